//! The one question that the watcher asks of a chain, as a trait: tests and other sources can stand in for a node.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::future::Future;

use alloy::consensus::Transaction;
use alloy::primitives::{Address, B256, Bloom, BloomInput};
use alloy::providers::Provider;
use alloy::rpc::types::{Filter, Log};

use crate::chain::Head;
use crate::deployment::Deployment;
use crate::error::ChainError;
use crate::event::{ChainEvent, ChainFact, Emitter, EventKey, Origin, decode, records_in};
use crate::fixed_bytes::{Address20, Hash32};

/// In ranges up to this length each block without an event of ours is checked against its header: a node that drops
/// logs is caught. Longer ranges are catch-up over old blocks; what is missed there, reconciliation finds.
const CHECKED_BLOCKS_MAX: u64 = 64;

/// Reads heads, block hashes and our contracts' events.
pub trait ChainReader {
    /// The newest block.
    fn head(&self) -> impl Future<Output = Result<Head, ChainError>> + Send;

    /// A block by number; `None` when the chain is not that long.
    fn block(&self, number: u64) -> impl Future<Output = Result<Option<Head>, ChainError>> + Send;

    /// All events of our contracts in the blocks `from..=to`, in the chain's order.
    fn events(&self, from: u64, to: u64) -> impl Future<Output = Result<Vec<ChainEvent>, ChainError>> + Send;
}

impl ChainReader for Deployment {
    async fn head(&self) -> Result<Head, ChainError> {
        // A node behind a name can be exchanged while we run; its other chain is no reorg of ours.
        self.chain().require_chain().await?;
        self.chain().head().await
    }

    async fn block(&self, number: u64) -> Result<Option<Head>, ChainError> {
        self.chain().block(number).await
    }

    async fn events(&self, from: u64, to: u64) -> Result<Vec<ChainEvent>, ChainError> {
        let filter = Filter::new().address(self.emitters()).from_block(from).to_block(to);
        let mut by_block: BTreeMap<u64, Vec<Log>> = BTreeMap::new();
        for log in self.logs(&filter).await? {
            by_block.entry(log.block_number.unwrap_or_default()).or_default().push(log);
        }
        if to.saturating_sub(from) < CHECKED_BLOCKS_MAX {
            for number in (from..=to).filter(|number| !by_block.contains_key(number)) {
                self.require_none_missing(number).await?;
            }
        }
        let mut events = Vec::new();
        for logs in by_block.into_values() {
            self.block_events(logs, &mut events).await?;
        }
        Ok(events)
    }
}

impl Deployment {
    pub(crate) async fn logs(&self, filter: &Filter) -> Result<Vec<Log>, ChainError> {
        let logs = self.chain().provider().get_logs(filter).await;
        logs.map_err(|error| self.chain().rpc("eth_getLogs", error))
    }

    async fn block_events(&self, mut logs: Vec<Log>, events: &mut Vec<ChainEvent>) -> Result<(), ChainError> {
        // A node may name one log twice, and in any order.
        logs.sort_by_key(|log| log.log_index);
        logs.dedup_by_key(|log| log.log_index);
        let block_hash = logs[0].block_hash.unwrap_or_default();
        if logs.iter().any(|log| log.block_hash != Some(block_hash)) {
            return Err(self.chain().failed("eth_getLogs", "logs of two blocks with one number".to_string()));
        }
        let all = self.logs(&Filter::new().at_block_hash(block_hash)).await?;
        let ours: HashSet<u64> =
            all.iter().filter(|log| self.is_ours(log)).filter_map(|log| log.log_index).collect();
        if logs.len() < ours.len() {
            return Err(self.gap(logs[0].block_number.unwrap_or_default()));
        }
        let first_index = first_log_indexes(&all);
        let from = events.len();
        for log in &logs {
            if let Some(event) = self.read_log(log, block_hash, &first_index)? {
                events.push(event);
            }
        }
        let settled: Vec<ChainEvent> =
            events[from..].iter().filter(|event| is_settled(event)).cloned().collect();
        for event in settled {
            let charged = self.charged_by(&event, &events[from..]).await?;
            let behind = events.iter().rposition(|other| other.origin.key == event.origin.key);
            let behind = behind.expect("it was just found there") + 1;
            events.splice(behind..behind, charged);
        }
        Ok(())
    }

    fn read_log(
        &self,
        log: &Log,
        block_hash: B256,
        first_index: &HashMap<B256, u64>,
    ) -> Result<Option<ChainEvent>, ChainError> {
        let tx = log.transaction_hash.unwrap_or_default();
        let (Some(index), Some(first)) = (log.log_index, first_index.get(&tx)) else {
            return Err(self
                .chain()
                .failed("eth_getLogs", format!("block {block_hash} has lost transaction {tx}")));
        };
        let ordinal = (index - first) as u32;
        let contract = Address20::from(log.address());
        let Some(emitter) = self.emitter(contract) else { return Ok(None) };
        let fact = decode(emitter, log.data());
        let fact = fact.map_err(|cause| ChainError::BadLog { tx: tx.into(), ordinal, cause })?;
        let key = EventKey { chain_id: self.manifest().chain_id, contract, tx: tx.into(), ordinal, part: 0 };
        let origin =
            Origin { key, block: log.block_number.unwrap_or_default(), block_hash: block_hash.into() };
        Ok(fact.map(|fact| ChainEvent { origin, fact }))
    }

    fn emitter(&self, contract: Address20) -> Option<Emitter> {
        let manifest = self.manifest();
        match contract {
            address if address == manifest.vault => Some(Emitter::Vault),
            address if address == manifest.payouts => Some(Emitter::Payouts),
            address if address == manifest.anchor => Some(Emitter::Anchor),
            address => manifest.economy?.emitter(address).map(Emitter::Economy),
        }
    }

    /// All contracts whose events are read.
    fn emitters(&self) -> Vec<Address> {
        let manifest = self.manifest();
        let economy = manifest.economy.iter().flat_map(|economy| economy.emitters());
        [manifest.vault, manifest.payouts, manifest.anchor]
            .into_iter()
            .chain(economy)
            .map(Address::from)
            .collect()
    }

    fn is_ours(&self, log: &Log) -> bool {
        self.emitter(Address20::from(log.address())).is_some()
    }

    fn gap(&self, number: u64) -> ChainError {
        self.chain().failed("eth_getLogs", format!("the answer lacks events of block {number}"))
    }

    /// A header's bloom filter names the contracts that logged something in its block, and sometimes others. Where it
    /// names one of ours, all logs of the block must add up to that filter and hold none of ours.
    async fn require_none_missing(&self, number: u64) -> Result<(), ChainError> {
        let block = self.chain().provider().get_block_by_number(number.into()).await;
        let block = block.map_err(|error| self.chain().rpc("eth_getBlockByNumber", error))?;
        let Some(block) = block else { return Ok(()) };
        let bloom = &block.header.logs_bloom;
        if !self.emitters().iter().any(|ours| bloom.contains_input(BloomInput::Raw(ours.as_slice()))) {
            return Ok(());
        }
        let all = self.logs(&Filter::new().at_block_hash(block.header.hash)).await?;
        let mut bloom = Bloom::ZERO;
        for log in &all {
            bloom.accrue_log(&log.inner);
        }
        if bloom != block.header.logs_bloom || all.iter().any(|log| self.is_ours(log)) {
            return Err(self.gap(number));
        }
        Ok(())
    }

    /// What a settlement's records came to. The vault logs only shortfalls; the rest is in the call's data, which the
    /// event pins by hash.
    async fn charged_by(
        &self,
        settled: &ChainEvent,
        block: &[ChainEvent],
    ) -> Result<Vec<ChainEvent>, ChainError> {
        let ChainFact::Settled { epoch, records_hash, .. } = settled.fact else { return Ok(Vec::new()) };
        let key = settled.origin.key;
        let input = self.input_of(key.tx).await?;
        let records = records_in(&input, records_hash).ok_or_else(|| ChainError::BadLog {
            tx: key.tx,
            ordinal: key.ordinal,
            cause: "its transaction's input does not hold the settled records".to_string(),
        })?;
        let shortfalls: HashMap<(Address20, u64), u64> = block
            .iter()
            .filter(|event| event.origin.key.tx == key.tx)
            .filter_map(|event| match event.fact {
                ChainFact::Shortfall { account, asked, charged, epoch: of } if of == epoch => {
                    Some(((account, asked), charged))
                }
                _ => None,
            })
            .collect();
        let one = |(index, record): (usize, crate::event::Record)| {
            let asked = record.cumulative_units;
            let cumulative = shortfalls.get(&(record.account, asked)).copied().unwrap_or(asked);
            let fact = ChainFact::Charged { epoch, account: record.account, asked, cumulative };
            let origin = Origin { key: EventKey { part: index as u32 + 1, ..key }, ..settled.origin };
            ChainEvent { origin, fact }
        };
        Ok(records.into_iter().enumerate().map(one).collect())
    }

    async fn input_of(&self, tx: Hash32) -> Result<Vec<u8>, ChainError> {
        let found = self.chain().provider().get_transaction_by_hash(tx.into()).await;
        let found = found.map_err(|error| self.chain().rpc("eth_getTransactionByHash", error))?;
        let missing = || self.chain().failed("eth_getTransactionByHash", format!("no transaction {tx}"));
        Ok(found.ok_or_else(missing)?.inner.input().to_vec())
    }
}

/// The block-wide index of each transaction's first log: an ordinal within a receipt is counted from there.
fn first_log_indexes(all: &[Log]) -> HashMap<B256, u64> {
    let mut first: HashMap<B256, u64> = HashMap::new();
    for log in all {
        let (Some(tx), Some(index)) = (log.transaction_hash, log.log_index) else { continue };
        let known = first.entry(tx).or_insert(index);
        *known = index.min(*known);
    }
    first
}

fn is_settled(event: &ChainEvent) -> bool {
    matches!(event.fact, ChainFact::Settled { .. })
}
