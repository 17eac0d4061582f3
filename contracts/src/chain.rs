//! One connection to one EVM chain over HTTP: heads, blocks, and the one way in which a transaction is sent.
//! Knows nothing of our contracts' meaning; that is `deployment.rs`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use alloy::consensus::{SignableTransaction, TxEip1559, TxEnvelope};
use alloy::contract::Error as ContractError;
use alloy::eips::BlockNumberOrTag;
use alloy::eips::eip2718::Encodable2718;
use alloy::network::{TransactionBuilder, TxSignerSync};
use alloy::primitives::{Address, Bytes, TxKind, U256};
use alloy::providers::{DynProvider, Provider, ProviderBuilder};
use alloy::rpc::client::RpcClient;
use alloy::rpc::types::{TransactionReceipt, TransactionRequest};
use alloy::sol_types::{Revert, SolError, SolInterface};
use alloy::transports::http::{Http, reqwest};
use alloy::transports::{RpcError, TransportError};
use serde::{Deserialize, Serialize};

use crate::bindings::{anchor, bounds, dollar, governor, packages, payouts, stake, token, treasury, vault};
use crate::error::ChainError;
use crate::fixed_bytes::{Address20, Hash32};
use crate::key::EvmKey;

/// A node that does not answer within this time counts as failed; the caller retries.
const RPC_TIMEOUT: Duration = Duration::from_secs(15);
/// How long a sent transaction may take until the caller is told that it has not appeared.
const MINED_WAIT_MS_MAX: u64 = 120_000;
/// A transaction may use this much more than estimated: state can change between estimate and execution.
const GAS_MARGIN_PERCENT: u64 = 30;

/// What one transaction may use (EIP-7825). A development chain takes more: a test there would not notice.
pub const TRANSACTION_GAS_MAX: u64 = 16_777_216;

/// Which chain, and how carefully it is read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChainConfig {
    /// The node's HTTP address.
    pub rpc_url: String,
    /// The chain id that the node must serve.
    pub chain_id: u64,
    /// How many blocks must lie above a block before its events count.
    pub confirmations: u64,
    /// The pause between two looks at the chain.
    pub poll_interval_ms: u64,
}

/// A block, as far as this room needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// The block's number.
    pub number: u64,
    /// The block's hash.
    pub hash: Hash32,
    /// The block's time in seconds. Deadlines come from here, never from the wall clock.
    pub timestamp: u64,
}

/// A transaction that is in a block and did not fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mined {
    /// The transaction.
    pub tx: Hash32,
    /// The block's number.
    pub block: u64,
    /// The block's hash.
    pub block_hash: Hash32,
    /// Gas used.
    pub gas_used: u64,
}

/// A connection to a chain. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Chain {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    config: ChainConfig,
    /// Scheme, host and port: paths and user names of node addresses are often secrets.
    endpoint: String,
    provider: DynProvider,
    // One lock an account, held from reading its nonce until the transaction is with the node, so that two sends
    // of one account never take one nonce. The outer lock is only held to look the inner one up.
    senders: Mutex<HashMap<Address, Arc<tokio::sync::Mutex<()>>>>,
}

/// One call of one of our contracts, ready to be sent.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub name: &'static str,
    pub to: TxKind,
    pub input: Bytes,
}

/// Everything that a signed transaction fixes; `settler.rs` persists it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Envelope {
    pub nonce: u64,
    pub gas_limit: u64,
    pub max_fee_per_gas: u128,
    pub max_priority_fee_per_gas: u128,
}

impl Chain {
    /// Connects and checks the chain id.
    pub async fn connect(config: ChainConfig) -> Result<Self, ChainError> {
        let (client, endpoint) = client(&config)?;
        let provider = ProviderBuilder::new().disable_recommended_fillers().connect_client(client).erased();
        let chain = Self { inner: Arc::new(Inner { config, endpoint, provider, senders: Mutex::default() }) };
        chain.require_chain().await?;
        Ok(chain)
    }

    /// Connects to whatever chain a node serves: for somebody who has an address and nothing else.
    pub async fn discover(rpc_url: &str, poll_interval_ms: u64) -> Result<Self, ChainError> {
        let config = |chain_id| ChainConfig {
            rpc_url: rpc_url.to_string(),
            chain_id,
            confirmations: 0,
            poll_interval_ms,
        };
        let (client, endpoint) = client(&config(0))?;
        let provider = ProviderBuilder::new().disable_recommended_fillers().connect_client(client).erased();
        let asking = Inner { config: config(0), endpoint, provider, senders: Mutex::default() };
        let asking = Self { inner: Arc::new(asking) };
        Self::connect(config(asking.served_chain_id().await?)).await
    }

    /// The chain id that the node serves now: it may be another than at the start.
    pub(crate) async fn served_chain_id(&self) -> Result<u64, ChainError> {
        self.provider().get_chain_id().await.map_err(|error| self.rpc("eth_chainId", error))
    }

    /// An error when the node serves another chain than configured.
    pub(crate) async fn require_chain(&self) -> Result<(), ChainError> {
        let (expected, got) = (self.config().chain_id, self.served_chain_id().await?);
        if got != expected {
            return Err(ChainError::WrongChain { endpoint: self.inner.endpoint.clone(), expected, got });
        }
        Ok(())
    }

    /// The configuration it was made with.
    pub fn config(&self) -> &ChainConfig {
        &self.inner.config
    }

    /// Scheme, host and port of the node: what may be shown of its address.
    pub fn endpoint(&self) -> &str {
        &self.inner.endpoint
    }

    /// The pause between two looks at the chain.
    pub fn poll_interval(&self) -> Duration {
        Duration::from_millis(self.config().poll_interval_ms)
    }

    /// The newest block.
    pub async fn head(&self) -> Result<Head, ChainError> {
        let head = self.block_at(BlockNumberOrTag::Latest).await?;
        head.ok_or_else(|| self.failed("eth_getBlockByNumber", "no latest block".to_string()))
    }

    /// A block by number; `None` when the chain is not that long.
    pub async fn block(&self, number: u64) -> Result<Option<Head>, ChainError> {
        self.block_at(BlockNumberOrTag::Number(number)).await
    }

    /// The chain's own coin of an account, in wei; it pays for gas.
    pub async fn coin_balance(&self, account: Address20) -> Result<u128, ChainError> {
        let balance = self.provider().get_balance(account.into()).await;
        balance.map(|wei| wei.saturating_to()).map_err(|error| self.rpc("eth_getBalance", error))
    }

    /// The block that holds a transaction of ours; `None` while there is none, an error when it failed.
    pub async fn mined(&self, tx: Hash32) -> Result<Option<Mined>, ChainError> {
        let Some(receipt) = self.receipt(tx).await? else { return Ok(None) };
        mined("transaction", &receipt).map(Some)
    }

    /// Waits for the next block after `number`.
    pub async fn wait_past(&self, number: u64) -> Result<Head, ChainError> {
        loop {
            let head = self.head().await?;
            if head.number > number {
                return Ok(head);
            }
            tokio::time::sleep(self.poll_interval()).await;
        }
    }

    pub(crate) fn provider(&self) -> &DynProvider {
        &self.inner.provider
    }

    /// Sends a call and waits until it is in a block.
    pub(crate) async fn send(&self, key: &EvmKey, call: Call) -> Result<TransactionReceipt, ChainError> {
        let sender = self.sender_lock(key.address().into());
        let sending = sender.lock().await;
        let envelope = self.fill(key, &call).await?;
        let (raw, tx) = self.sign(key, &call, envelope);
        self.broadcast(call.name, &raw).await?;
        drop(sending);
        self.wait_for(call.name, tx).await
    }

    /// Nonce, gas limit and fees for a call that would succeed now; a revert is returned as such.
    pub(crate) async fn fill(&self, key: &EvmKey, call: &Call) -> Result<Envelope, ChainError> {
        let from: Address = key.address().into();
        let mut request = TransactionRequest::default().with_from(from).with_input(call.input.clone());
        request.to = Some(call.to);
        let estimate = self.provider().estimate_gas(request).await;
        let gas = estimate.map_err(|error| self.refused(call.name, "eth_estimateGas", error))?;
        if gas > TRANSACTION_GAS_MAX {
            let reason = format!("it needs {gas} gas, a transaction may use {TRANSACTION_GAS_MAX}; split it");
            return Err(ChainError::Reverted { call: call.name, reason });
        }
        let nonce = self.provider().get_transaction_count(from).pending().await;
        let fees = self.provider().estimate_eip1559_fees().await;
        let fees = fees.map_err(|error| self.rpc("eth_feeHistory", error))?;
        Ok(Envelope {
            nonce: nonce.map_err(|error| self.rpc("eth_getTransactionCount", error))?,
            gas_limit: (gas + gas * GAS_MARGIN_PERCENT / 100).min(TRANSACTION_GAS_MAX),
            max_fee_per_gas: fees.max_fee_per_gas,
            max_priority_fee_per_gas: fees.max_priority_fee_per_gas,
        })
    }

    /// The signed bytes of a call and their transaction hash.
    pub(crate) fn sign(&self, key: &EvmKey, call: &Call, envelope: Envelope) -> (Vec<u8>, Hash32) {
        let mut transaction = TxEip1559 {
            chain_id: self.config().chain_id,
            nonce: envelope.nonce,
            gas_limit: envelope.gas_limit,
            max_fee_per_gas: envelope.max_fee_per_gas,
            max_priority_fee_per_gas: envelope.max_priority_fee_per_gas,
            to: call.to,
            value: U256::ZERO,
            input: call.input.clone(),
            ..TxEip1559::default()
        };
        let signature = key.transaction_signer().sign_transaction_sync(&mut transaction);
        let signature = signature.expect("a local key signs any transaction");
        let envelope = TxEnvelope::from(transaction.into_signed(signature));
        (envelope.encoded_2718(), (*envelope.tx_hash()).into())
    }

    pub(crate) async fn broadcast(&self, call: &'static str, raw: &[u8]) -> Result<(), ChainError> {
        let sent = self.provider().send_raw_transaction(raw).await;
        sent.map(|_| ()).map_err(|error| self.refused(call, "eth_sendRawTransaction", error))
    }

    pub(crate) async fn receipt(&self, tx: Hash32) -> Result<Option<TransactionReceipt>, ChainError> {
        let receipt = self.provider().get_transaction_receipt(tx.into()).await;
        receipt.map_err(|error| self.rpc("eth_getTransactionReceipt", error))
    }

    /// Turns the failure of a contract's call into a revert with its reason, or a failure of the node.
    pub(crate) fn call_failed(&self, call: &'static str, error: ContractError) -> ChainError {
        match error {
            ContractError::TransportError(error) => self.refused(call, "eth_call", error),
            other => self.failed(call, other.to_string()),
        }
    }

    pub(crate) fn rpc(&self, call: &'static str, error: TransportError) -> ChainError {
        // The transport's own text would repeat the whole address.
        let cause = match error.as_error_resp() {
            Some(answer) => answer.to_string(),
            None => error.to_string().replace(&self.config().rpc_url, &self.inner.endpoint),
        };
        self.failed(call, cause)
    }

    pub(crate) fn failed(&self, call: &'static str, cause: String) -> ChainError {
        ChainError::Rpc { endpoint: self.inner.endpoint.clone(), call, cause }
    }

    async fn block_at(&self, which: BlockNumberOrTag) -> Result<Option<Head>, ChainError> {
        let block = self.provider().get_block_by_number(which).await;
        let block = block.map_err(|error| self.rpc("eth_getBlockByNumber", error))?;
        Ok(block.map(|block| Head {
            number: block.header.number,
            hash: block.header.hash.into(),
            timestamp: block.header.timestamp,
        }))
    }

    pub(crate) async fn wait_for(
        &self,
        call: &'static str,
        tx: Hash32,
    ) -> Result<TransactionReceipt, ChainError> {
        let started = Instant::now();
        loop {
            if let Some(receipt) = self.receipt(tx).await? {
                mined(call, &receipt)?;
                return Ok(receipt);
            }
            let waited_ms = started.elapsed().as_millis() as u64;
            if waited_ms > MINED_WAIT_MS_MAX {
                return Err(ChainError::NotMined { call, tx, waited_ms });
            }
            tokio::time::sleep(self.poll_interval()).await;
        }
    }

    fn refused(&self, call: &'static str, rpc_call: &'static str, error: TransportError) -> ChainError {
        match &error {
            RpcError::ErrorResp(answer) => match answer.as_revert_data() {
                Some(data) => ChainError::Reverted { call, reason: revert_reason(&data) },
                None if is_execution_failure(&answer.message) => {
                    ChainError::Reverted { call, reason: answer.message.to_string() }
                }
                None => self.failed(rpc_call, format!("{call}: {answer}")),
            },
            _ => self.rpc(rpc_call, error),
        }
    }

    fn sender_lock(&self, account: Address) -> Arc<tokio::sync::Mutex<()>> {
        let mut senders = self.inner.senders.lock().expect("no code panics while it holds this lock");
        senders.entry(account).or_default().clone()
    }
}

/// The block of a receipt, or the failure that it records.
pub(crate) fn mined(call: &'static str, receipt: &TransactionReceipt) -> Result<Mined, ChainError> {
    let tx = Hash32::from(receipt.transaction_hash);
    if !receipt.status() {
        let reason = format!("transaction {tx} was mined and failed");
        return Err(ChainError::Reverted { call, reason });
    }
    Ok(Mined {
        tx,
        block: receipt.block_number.unwrap_or_default(),
        block_hash: receipt.block_hash.unwrap_or_default().into(),
        gas_used: receipt.gas_used,
    })
}

/// Whether a node's words say that the contract's code failed, rather than the node. Not standardised.
fn is_execution_failure(message: &str) -> bool {
    let message = message.to_lowercase();
    ["revert", "invalid opcode", "evm error", "out of gas", "invalid jump", "stack underflow"]
        .iter()
        .any(|word| message.contains(word))
}

/// A contract's error in words: its name with its values.
fn revert_reason(data: &[u8]) -> String {
    let known = [
        |data: &[u8]| words(vault::CreditVault::CreditVaultErrors::abi_decode(data)),
        |data: &[u8]| words(payouts::OperatorPayouts::OperatorPayoutsErrors::abi_decode(data)),
        |data: &[u8]| words(anchor::CheckpointAnchor::CheckpointAnchorErrors::abi_decode(data)),
        |data: &[u8]| words(stake::StakeRegistry::StakeRegistryErrors::abi_decode(data)),
        |data: &[u8]| words(treasury::Treasury::TreasuryErrors::abi_decode(data)),
        |data: &[u8]| words(packages::Packages::PackagesErrors::abi_decode(data)),
        |data: &[u8]| words(bounds::AllotmentBounds::AllotmentBoundsErrors::abi_decode(data)),
        |data: &[u8]| words(governor::NetworkGovernor::NetworkGovernorErrors::abi_decode(data)),
        |data: &[u8]| words(dollar::DollarToken::DollarTokenErrors::abi_decode(data)),
        |data: &[u8]| words(token::FoilToken::FoilTokenErrors::abi_decode(data)),
    ];
    if let Some(reason) = known.iter().find_map(|decode| decode(data)) {
        return reason;
    }
    match Revert::abi_decode(data) {
        Ok(text) => text.reason,
        Err(_) => format!("unknown error {}", Bytes::copy_from_slice(data)),
    }
}

fn words<E: std::fmt::Debug>(error: Result<E, alloy::sol_types::Error>) -> Option<String> {
    error.ok().map(|error| format!("{error:?}"))
}

/// How HTTP clients are begun here: TLS is by `ring`, as everywhere in this program.
pub fn http_client() -> reqwest::ClientBuilder {
    // Fails when another room did it before: it is the same one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder()
}

fn client(config: &ChainConfig) -> Result<(RpcClient, String), ChainError> {
    let wrong = |endpoint: &str, cause: String| {
        let endpoint = endpoint.to_string();
        ChainError::Rpc { endpoint, call: "connect", cause }
    };
    let url = config.rpc_url.parse::<reqwest::Url>();
    let url = url.map_err(|error| wrong("(rpc_url)", format!("rpc_url is not a URL: {error}")))?;
    let endpoint = url.origin().ascii_serialization();
    let local = matches!(url.host_str(), Some("127.0.0.1" | "localhost" | "[::1]"));
    let mut http = http_client().timeout(RPC_TIMEOUT);
    if local {
        // A proxy of the environment is for the outside, not for a node on this machine.
        http = http.no_proxy();
    }
    let http = http.build().map_err(|error| wrong(&endpoint, error.to_string()))?;
    Ok((RpcClient::new(Http::with_client(http, url), local), endpoint))
}
