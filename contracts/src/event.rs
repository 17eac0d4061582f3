//! What happens on the chain, as this room's neighbours see it: one fact an event, with the place that makes it
//! unique. Decoding only; fetching is `reader.rs`.

use alloy::primitives::{Address, LogData};
use alloy::sol_types::{SolCall, SolEventInterface};
use serde::{Deserialize, Serialize};

use crate::bindings::anchor::CheckpointAnchor::CheckpointAnchorEvents;
use crate::bindings::payouts::OperatorPayouts::OperatorPayoutsEvents;
use crate::bindings::vault::CreditVault::{CreditVaultEvents, settleCall};
use crate::fixed_bytes::{Address20, Hash32};

mod economy;

pub(crate) use economy::EconomyEmitter;
pub use economy::EconomyFact;

/// Bytes of one record in a settlement: account (20), cumulative charge (8, big-endian).
pub(crate) const RECORD_BYTES: usize = 28;

/// What makes an event unique for ever: (chain, contract, transaction, ordinal within its receipt, part).
/// The ordinal stays when a reorg re-mines the transaction elsewhere; a log index would not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct EventKey {
    /// The chain.
    pub chain_id: u64,
    /// The contract that logged it.
    pub contract: Address20,
    /// The transaction.
    pub tx: Hash32,
    /// The log's place among all logs of the transaction's receipt, from 0.
    pub ordinal: u32,
    /// 0 for the log itself; 1 + i for the i-th record that a settlement carries.
    pub part: u32,
}

/// Where an event stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// Its identity.
    pub key: EventKey,
    /// The block's number.
    pub block: u64,
    /// The block's hash.
    pub block_hash: Hash32,
}

/// One fact and its place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChainEvent {
    /// Where it stands.
    pub origin: Origin,
    /// What happened.
    pub fact: ChainFact,
}

/// What happened. Amounts in vault units, 1e-6 of a whole token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ChainFact {
    /// `units` were credited to `account`.
    Deposited {
        /// Whose balance grew.
        account: Address20,
        /// Who paid.
        payer: Address20,
        /// How much.
        units: u64,
    },
    /// An account's signed cap was recorded.
    Authorised {
        /// The account.
        account: Address20,
        /// The highest cumulative charge that it signed for.
        max_cumulative: u64,
        /// The last time (seconds) of a settlement under it.
        valid_until: u32,
        /// The signed nonce.
        nonce: u64,
        /// The signed session hash.
        session: Hash32,
    },
    /// An epoch was settled. Its `Charged` facts follow.
    Settled {
        /// The epoch.
        epoch: u64,
        /// Units debited in all.
        total: u64,
        /// The payout root; zero for a settlement that only debits.
        root: Hash32,
        /// The sum of the root's leaves.
        root_total: u64,
        /// keccak256 of the records.
        records_hash: Hash32,
        /// What the settlement stands for.
        commitment: Hash32,
    },
    /// A settlement's record: the account's cumulative charge has reached at least `cumulative`.
    Charged {
        /// The epoch.
        epoch: u64,
        /// The account.
        account: Address20,
        /// What the record asked for.
        asked: u64,
        /// What it came to: `asked`, or less when the account could not cover it.
        cumulative: u64,
    },
    /// An account could not cover what was asked of it.
    Shortfall {
        /// The account.
        account: Address20,
        /// The epoch.
        epoch: u64,
        /// The cumulative charge asked for.
        asked: u64,
        /// The cumulative charge reached.
        charged: u64,
    },
    /// An account withdrew with a voucher.
    Withdrawn {
        /// The account.
        account: Address20,
        /// The recipient.
        to: Address20,
        /// How much.
        units: u64,
        /// The voucher's nonce.
        nonce: u64,
    },
    /// An account asked to leave.
    ExitRequested {
        /// The account.
        account: Address20,
        /// When it may be finalized (seconds).
        exit_at: u32,
    },
    /// An account stays.
    ExitCancelled {
        /// The account.
        account: Address20,
    },
    /// An account left; its authorisations and open vouchers are void.
    ExitFinalized {
        /// The account.
        account: Address20,
        /// The recipient.
        to: Address20,
        /// How much.
        units: u64,
    },
    /// The coordinator appointed a settler.
    SettlerAppointed {
        /// The settler.
        settler: Address20,
    },
    /// A payout root was posted.
    RootPosted {
        /// The epoch.
        epoch: u64,
        /// The root.
        root: Hash32,
        /// The sum of its leaves.
        root_total: u64,
        /// Units ever received by the pot.
        funded: u64,
        /// The first time (seconds) of a claim against it.
        active_at: u64,
    },
    /// The guardian refused a payout root.
    RootDisabled {
        /// The epoch.
        epoch: u64,
    },
    /// An operator was paid.
    Claimed {
        /// The operator.
        operator: Address20,
        /// The recipient.
        payee: Address20,
        /// Units paid now.
        units: u64,
        /// Units paid in all.
        cumulative: u64,
    },
    /// Tokens that came past the vault by an account's authorisation were credited; a `Deposited` stands beside it.
    SurplusAttributed {
        /// The account.
        account: Address20,
        /// The authorisation's nonce.
        nonce: Hash32,
        /// How much.
        units: u64,
    },
    /// An operator chose where it is paid.
    PayeeSet {
        /// The operator.
        operator: Address20,
        /// The recipient from now on.
        payee: Address20,
    },
    /// A transparency log's head was anchored.
    Anchored {
        /// Whose log.
        publisher: Address20,
        /// keccak256 of the origin line.
        origin: Hash32,
        /// The log's size.
        size: u64,
        /// The tree head.
        root: Hash32,
    },
    /// Something on the contracts of stake, votes, treasury and packages.
    Economy(EconomyFact),
}

impl ChainFact {
    /// The vault's account that a fact is about, if it is about one.
    pub fn account(&self) -> Option<Address20> {
        match self {
            Self::Deposited { account, .. }
            | Self::Authorised { account, .. }
            | Self::Charged { account, .. }
            | Self::Shortfall { account, .. }
            | Self::Withdrawn { account, .. }
            | Self::ExitRequested { account, .. }
            | Self::ExitCancelled { account }
            | Self::ExitFinalized { account, .. }
            | Self::SurplusAttributed { account, .. } => Some(*account),
            Self::Settled { .. }
            | Self::SettlerAppointed { .. }
            | Self::RootPosted { .. }
            | Self::RootDisabled { .. }
            | Self::Claimed { .. }
            | Self::PayeeSet { .. }
            | Self::Anchored { .. }
            | Self::Economy(_) => None,
        }
    }
}

/// Which of our contracts logged something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Emitter {
    Vault,
    Payouts,
    Anchor,
    Economy(EconomyEmitter),
}

/// One record of a settlement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The account.
    pub account: Address20,
    /// Its cumulative charge in vault units.
    pub cumulative_units: u64,
}

/// Decodes a log; `None` for logs that mean nothing here.
pub(crate) fn decode(emitter: Emitter, log: &LogData) -> Result<Option<ChainFact>, String> {
    let (topics, data) = (log.topics(), &log.data);
    match emitter {
        Emitter::Vault => CreditVaultEvents::decode_raw_log(topics, data).map(vault_fact),
        Emitter::Payouts => OperatorPayoutsEvents::decode_raw_log(topics, data).map(payouts_fact),
        Emitter::Anchor => CheckpointAnchorEvents::decode_raw_log(topics, data).map(anchor_fact),
        Emitter::Economy(emitter) => {
            let fact = economy::decode(emitter, topics, data);
            fact.map(|fact| fact.map(|fact| fact.map(ChainFact::Economy)))
        }
    }
    .map_err(|error| error.to_string())?
    .transpose()
}

type Fact = Option<Result<ChainFact, String>>;

/// Units above u64 cannot come from our contracts: the vault's balances are u64.
pub(crate) fn units(amount: alloy::primitives::U256) -> Result<u64, String> {
    u64::try_from(amount).map_err(|_| format!("{amount} units are more than the vault can hold"))
}

fn vault_fact(event: CreditVaultEvents) -> Fact {
    use CreditVaultEvents as E;
    let account = |address: Address| Address20::from(address);
    Some(Ok(match event {
        E::Deposited(e) => match units(e.units) {
            Ok(units) => ChainFact::Deposited { account: account(e.account), payer: e.payer.into(), units },
            Err(error) => return Some(Err(error)),
        },
        E::Authorised(e) => ChainFact::Authorised {
            account: account(e.account),
            max_cumulative: e.maxCumulative,
            valid_until: e.validUntil,
            nonce: e.nonce,
            session: e.session.into(),
        },
        E::Settled(e) => match (units(e.total), units(e.rootTotal)) {
            (Ok(total), Ok(root_total)) => ChainFact::Settled {
                epoch: e.epoch,
                total,
                root: e.root.into(),
                root_total,
                records_hash: e.recordsHash.into(),
                commitment: e.commitment.into(),
            },
            (Err(error), _) | (_, Err(error)) => return Some(Err(error)),
        },
        E::Shortfall(e) => ChainFact::Shortfall {
            account: account(e.account),
            epoch: e.epoch,
            asked: e.asked,
            charged: e.charged,
        },
        E::Withdrawn(e) => match units(e.units) {
            Ok(units) => {
                ChainFact::Withdrawn { account: account(e.account), to: e.to.into(), units, nonce: e.nonce }
            }
            Err(error) => return Some(Err(error)),
        },
        E::ExitRequested(e) => ChainFact::ExitRequested { account: account(e.account), exit_at: e.exitAt },
        E::ExitCancelled(e) => ChainFact::ExitCancelled { account: account(e.account) },
        E::ExitFinalized(e) => match units(e.units) {
            Ok(units) => ChainFact::ExitFinalized { account: account(e.account), to: e.to.into(), units },
            Err(error) => return Some(Err(error)),
        },
        E::SurplusAttributed(e) => match units(e.units) {
            Ok(units) => {
                ChainFact::SurplusAttributed { account: account(e.account), nonce: e.nonce.into(), units }
            }
            Err(error) => return Some(Err(error)),
        },
        E::SettlerAppointed(e) => ChainFact::SettlerAppointed { settler: e.settler.into() },
        E::EIP712DomainChanged(_) => return None,
    }))
}

fn payouts_fact(event: OperatorPayoutsEvents) -> Fact {
    use OperatorPayoutsEvents as E;
    Some(match event {
        E::RootPosted(e) => (|| {
            Ok(ChainFact::RootPosted {
                epoch: e.epoch,
                root: e.root.into(),
                root_total: units(e.rootTotal)?,
                funded: units(e.funded)?,
                active_at: e.activeAt.saturating_to(),
            })
        })(),
        E::RootDisabled(e) => Ok(ChainFact::RootDisabled { epoch: e.epoch }),
        E::Claimed(e) => (|| {
            Ok(ChainFact::Claimed {
                operator: e.operator.into(),
                payee: e.payee.into(),
                units: units(e.units)?,
                cumulative: units(e.cumulative)?,
            })
        })(),
        E::PayeeSet(e) => Ok(ChainFact::PayeeSet { operator: e.operator.into(), payee: e.payee.into() }),
    })
}

fn anchor_fact(event: CheckpointAnchorEvents) -> Fact {
    let CheckpointAnchorEvents::Anchored(e) = event;
    Some(Ok(ChainFact::Anchored {
        publisher: e.publisher.into(),
        origin: e.origin.into(),
        size: e.size,
        root: e.root.into(),
    }))
}

/// Packs a settlement's records.
pub(crate) fn pack_records(records: &[Record]) -> Vec<u8> {
    let mut packed = Vec::with_capacity(records.len() * RECORD_BYTES);
    for record in records {
        packed.extend_from_slice(&record.account.0);
        packed.extend_from_slice(&record.cumulative_units.to_be_bytes());
    }
    packed
}

fn unpack_records(packed: &[u8]) -> Vec<Record> {
    let one = |bytes: &[u8]| {
        let (account, cumulative) = bytes.split_at(20);
        Record {
            account: Address20(account.try_into().expect("20 bytes")),
            cumulative_units: u64::from_be_bytes(cumulative.try_into().expect("8 bytes")),
        }
    };
    packed.chunks_exact(RECORD_BYTES).map(one).collect()
}

/// Finds the records of a settlement in its transaction's input. The call may lie inside another one (a multisig's
/// batch): every place that looks like a `settle` is tried, and the hash in the event decides.
pub(crate) fn records_in(input: &[u8], records_hash: Hash32) -> Option<Vec<Record>> {
    let mut rest = input;
    while let Some(found) = rest.windows(4).position(|window| window == settleCall::SELECTOR) {
        let arguments = &rest[found + 4..];
        if let Ok(call) = settleCall::abi_decode_raw(arguments)
            && Hash32::keccak(&call.records) == records_hash
        {
            return Some(unpack_records(&call.records));
        }
        rest = arguments;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settle_input(records: &[Record]) -> Vec<u8> {
        let call = settleCall {
            epoch: 1,
            minTotal: 0,
            root: Default::default(),
            rootTotal: 0,
            commitment: Default::default(),
            records: pack_records(records).into(),
        };
        call.abi_encode()
    }

    #[test]
    fn records_are_found_in_a_direct_and_in_a_wrapped_call() {
        let records = [
            Record { account: Address20([1; 20]), cumulative_units: 7 },
            Record { account: Address20([2; 20]), cumulative_units: u64::MAX },
        ];
        let hash = Hash32::keccak(&pack_records(&records));
        let direct = settle_input(&records);
        assert_eq!(records_in(&direct, hash).expect("direct"), records);
        let mut wrapped = settleCall::SELECTOR.to_vec();
        wrapped.extend_from_slice(&[9; 37]);
        wrapped.extend_from_slice(&direct);
        wrapped.extend_from_slice(&[0; 28]);
        assert_eq!(records_in(&wrapped, hash).expect("wrapped"), records);
        assert_eq!(records_in(&direct, Hash32([1; 32])), None);
    }
}
