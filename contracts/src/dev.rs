//! What only a development chain allows: money from nowhere, time that jumps, blocks on demand, reorgs.

use alloy::primitives::{Bytes, U256};
use alloy::providers::Provider;
use serde_json::{Value, json};

use crate::bindings::token::FoilToken;
use crate::chain::{Chain, Head, Mined};
use crate::deployment::Deployment;
use crate::error::ChainError;
use crate::fixed_bytes::{Address20, Hash32};
use crate::key::EvmKey;

/// Mints `units` of the development token; only its deployer's key can.
pub async fn mint(
    deployment: &Deployment,
    minter: &EvmKey,
    to: Address20,
    units: u64,
) -> Result<Mined, ChainError> {
    let call = FoilToken::mintCall { to: to.into(), amount: deployment.base_units(units) };
    deployment.send(minter, "mint", deployment.manifest().token, call).await
}

/// Approves and deposits `units` of the key's tokens for an account; what the deposit's transaction was.
pub async fn approve_and_deposit(
    deployment: &Deployment,
    key: &EvmKey,
    account: Address20,
    units: u64,
) -> Result<Mined, ChainError> {
    deployment.approve(key, units).await?;
    deployment.deposit(key, account, units).await
}

/// Moves the chain's clock forward and mines one block with the new time.
pub async fn increase_time(chain: &Chain, seconds: u64) -> Result<Head, ChainError> {
    request(chain, "evm_increaseTime", json!([seconds])).await?;
    mine(chain, 1).await
}

/// Mines blocks.
pub async fn mine(chain: &Chain, block_count: u64) -> Result<Head, ChainError> {
    request(chain, "anvil_mine", json!([U256::from(block_count)])).await?;
    chain.head().await
}

/// Whether each transaction is mined at once.
pub async fn set_automine(chain: &Chain, on: bool) -> Result<(), ChainError> {
    request(chain, "evm_setAutomine", json!([on])).await.map(|_| ())
}

/// How many transactions wait for a block.
pub async fn waiting_count(chain: &Chain) -> Result<u64, ChainError> {
    let status = request(chain, "txpool_status", json!([])).await?;
    let count = status["pending"]
        .as_str()
        .and_then(|text| u64::from_str_radix(text.trim_start_matches("0x"), 16).ok());
    count.ok_or_else(|| chain.failed("txpool_status", format!("expected a pending count, got {status}")))
}

/// Gives an account the chain's own coin, so that it can pay for gas.
pub async fn set_coin_balance(chain: &Chain, account: Address20, wei: u128) -> Result<(), ChainError> {
    request(chain, "anvil_setBalance", json!([account, U256::from(wei)])).await.map(|_| ())
}

/// Replaces the newest blocks. With a `filler` account, a plain transfer of it makes the new blocks differ; without,
/// empty blocks may come out with the same hash. The replaced transactions are lost.
pub async fn reorg(chain: &Chain, depth: u64, filler: Option<Address20>) -> Result<Head, ChainError> {
    let pairs = match filler {
        Some(from) => json!([[{ "from": from, "to": from, "value": "0x1", "gas": "0x5208" }, 0]]),
        None => json!([]),
    };
    request(chain, "anvil_reorg", json!([depth, pairs])).await?;
    chain.head().await
}

/// The code at an address.
pub async fn code(chain: &Chain, address: Address20) -> Result<Vec<u8>, ChainError> {
    crate::manifest::code_at(chain, address).await.map(|code| code.to_vec())
}

/// Puts code at an address.
pub async fn set_code(chain: &Chain, address: Address20, code: &[u8]) -> Result<(), ChainError> {
    let code = Bytes::copy_from_slice(code);
    request(chain, "anvil_setCode", json!([address, code])).await.map(|_| ())
}

/// Writes one storage word of a contract.
pub async fn set_storage(
    chain: &Chain,
    contract: Address20,
    slot: Hash32,
    word: Hash32,
) -> Result<(), ChainError> {
    request(chain, "anvil_setStorageAt", json!([contract, slot, word])).await.map(|_| ())
}

/// Forgets a waiting transaction, as a node whose pool is full does.
pub async fn drop_waiting(chain: &Chain, tx: Hash32) -> Result<(), ChainError> {
    request(chain, "anvil_dropTransaction", json!([tx])).await.map(|_| ())
}

/// Sends a call as any account, with no key, and mines it: what a multisig does when its owners have signed.
pub async fn send_as(
    chain: &Chain,
    from: Address20,
    to: Address20,
    input: &[u8],
) -> Result<Hash32, ChainError> {
    set_coin_balance(chain, from, 1_000_000_000_000_000_000).await?;
    request(chain, "anvil_impersonateAccount", json!([from])).await?;
    let call = json!([{ "from": from, "to": to, "data": Bytes::copy_from_slice(input) }]);
    let tx = request(chain, "eth_sendTransaction", call).await?;
    let tx =
        serde_json::from_value(tx).map_err(|error| chain.failed("eth_sendTransaction", error.to_string()))?;
    // The node answers when the transaction is in its pool; whoever reads next wants to see what it did.
    chain.wait_for("eth_sendTransaction", tx).await?;
    Ok(tx)
}

async fn request(chain: &Chain, method: &'static str, parameters: Value) -> Result<Value, ChainError> {
    let answer = chain.provider().raw_request(method.into(), parameters).await;
    answer.map_err(|error| chain.rpc(method, error))
}
