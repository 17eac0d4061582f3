//! Puts the contracts on a chain, once, and writes down where they are.

use alloy::primitives::{Bytes, TxKind};
use alloy::sol_types::SolConstructor;

use crate::bindings::anchor::CheckpointAnchor;
use crate::bindings::token::FoilToken;
use crate::bindings::vault::CreditVault;
use crate::chain::{Call, Chain, Head};
use crate::error::ChainError;
use crate::fixed_bytes::{Address20, Hash32};
use crate::key::EvmKey;
use crate::manifest::{CodeHashes, Manifest, read_code_hashes, read_wiring};

/// Who is who in a new deployment. No role can take deposits; none should double for another on a real chain.
#[derive(Debug, Clone)]
pub struct DeployOptions {
    /// Pays for the deployment; has no role afterwards, except that it mints the development token.
    pub deployer: EvmKey,
    /// The cold identity that spend authorisations name; appoints the settler.
    pub coordinator: Address20,
    /// The hot key that settles and signs vouchers.
    pub settler: Address20,
    /// Who may refuse a payout root before it becomes active.
    pub guardian: Address20,
    /// Seconds between an exit's request and its payment; at most 30 days.
    pub exit_delay_s: u32,
    /// Seconds between a payout root and its first claim; at most 30 days.
    pub root_delay_s: u32,
    /// The token to be deposited (6 to 18 decimals); `None` deploys the development token.
    pub token: Option<Address20>,
}

/// Deploys token (if none is given), vault with payouts, and anchor.
pub async fn deploy(chain: &Chain, options: &DeployOptions) -> Result<Manifest, ChainError> {
    let deployer = &options.deployer;
    let anchor = create(chain, deployer, "deploying the anchor", CheckpointAnchor::BYTECODE.to_vec()).await?;
    let token = match options.token {
        Some(token) => token,
        None => {
            create(chain, deployer, "deploying the development token", FoilToken::BYTECODE.to_vec()).await?.0
        }
    };
    let (vault, _) = create(chain, deployer, "deploying the vault", vault_code(token, options)).await?;
    let wiring = read_wiring(chain, vault).await?;
    let mut manifest = Manifest {
        chain_id: chain.config().chain_id,
        deployed_block: anchor.1.number,
        deployed_block_hash: anchor.1.hash,
        token,
        token_decimals: wiring.token_decimals,
        vault,
        payouts: wiring.payouts,
        anchor: anchor.0,
        coordinator: wiring.coordinator,
        guardian: wiring.guardian,
        exit_delay_s: wiring.exit_delay_s,
        root_delay_s: wiring.root_delay_s,
        code_hashes: CodeHashes {
            token: Hash32::ZERO,
            vault: Hash32::ZERO,
            payouts: Hash32::ZERO,
            anchor: Hash32::ZERO,
        },
        economy: None,
    };
    manifest.code_hashes = read_code_hashes(chain, &manifest).await?;
    manifest.verify(chain).await?;
    Ok(manifest)
}

fn vault_code(token: Address20, options: &DeployOptions) -> Vec<u8> {
    let arguments = CreditVault::constructorCall {
        token_: token.into(),
        coordinator_: options.coordinator.into(),
        settler_: options.settler.into(),
        guardian_: options.guardian.into(),
        exitDelay_: options.exit_delay_s,
        rootDelay_: options.root_delay_s,
    };
    [CreditVault::BYTECODE.to_vec(), arguments.abi_encode()].concat()
}

pub(crate) async fn create(
    chain: &Chain,
    deployer: &EvmKey,
    name: &'static str,
    code: Vec<u8>,
) -> Result<(Address20, Head), ChainError> {
    let receipt = chain.send(deployer, Call { name, to: TxKind::Create, input: Bytes::from(code) }).await?;
    let address = receipt.contract_address.expect("the receipt of a creation names the contract");
    let number = receipt.block_number.expect("a mined transaction has a block");
    let block = chain.block(number).await?;
    let block = block.ok_or_else(|| chain.failed("eth_getBlockByNumber", format!("no block {number}")))?;
    Ok((address.into(), block))
}
