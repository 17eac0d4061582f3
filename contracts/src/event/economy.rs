//! What happens on the contracts of stake, votes, treasury and packages. Decoding only.
//!
//! A type of its own, so that a claim from the treasury's pot can never be taken for one from the vault's.

use alloy::primitives::{B256, U256};
use alloy::sol_types::SolEventInterface;
use serde::{Deserialize, Serialize};

use super::units;
use crate::bindings::bounds::AllotmentBounds::AllotmentBoundsEvents;
use crate::bindings::governor::NetworkGovernor::NetworkGovernorEvents;
use crate::bindings::packages::Packages::PackagesEvents;
use crate::bindings::payouts::OperatorPayouts::OperatorPayoutsEvents;
use crate::bindings::stake::StakeRegistry::StakeRegistryEvents;
use crate::bindings::treasury::Treasury::TreasuryEvents;
use crate::fixed_bytes::{Address20, Hash32};

/// Which contract logged it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EconomyEmitter {
    Stake,
    Governor,
    Bounds,
    Treasury,
    TreasuryPayouts,
    Packages,
}

/// What happened. `units` are 1e-6 of a whole payout token or credit, `base_units` the token's own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum EconomyFact {
    /// An account staked.
    Staked {
        /// The account.
        account: Address20,
        /// How much was added.
        #[serde(with = "decimal")]
        base_units: u128,
        /// All it has staked now.
        #[serde(with = "decimal")]
        total_base_units: u128,
    },
    /// An account takes stake out; it counts no longer.
    UnbondingStarted {
        /// The account.
        account: Address20,
        /// How much is taken out.
        #[serde(with = "decimal")]
        base_units: u128,
        /// All it has staked now.
        #[serde(with = "decimal")]
        total_base_units: u128,
        /// When it may be withdrawn (seconds).
        ready_at: u64,
    },
    /// An account has taken out what it unbonded.
    UnbondingFinished {
        /// The account.
        account: Address20,
        /// The recipient.
        to: Address20,
        /// How much.
        #[serde(with = "decimal")]
        base_units: u128,
    },
    /// A delegate's votes changed.
    VotesChanged {
        /// Who votes.
        delegate: Address20,
        /// Its votes before.
        #[serde(with = "decimal")]
        before_base_units: u128,
        /// Its votes now.
        #[serde(with = "decimal")]
        now_base_units: u128,
    },
    /// A proposal was made.
    Proposed {
        /// The proposal's id.
        proposal: Hash32,
        /// Who made it.
        proposer: Address20,
        /// Whose stake at this time votes (seconds).
        snapshot_s: u64,
        /// The last time of a vote (seconds).
        ends_s: u64,
        /// In its proposer's words.
        description: String,
    },
    /// A proposal was executed.
    Executed {
        /// The proposal's id.
        proposal: Hash32,
    },
    /// The allotment's bounds changed.
    BoundsChanged {
        /// The smallest pool of a day.
        floor_units: u64,
        /// The largest pool of a day.
        ceiling_units: u64,
    },
    /// A day's pool was reserved.
    DayOpened {
        /// The allotment day.
        day: u64,
        /// The pool.
        pool_units: u64,
        /// What no day has reserved.
        free_units: u64,
    },
    /// Workers' shares of a day went into the treasury's pot.
    DayPaid {
        /// The allotment day.
        day: u64,
        /// The treasury's payment epoch.
        epoch: u64,
        /// How much.
        units: u64,
        /// What the day has left.
        left_units: u64,
        /// The payout root.
        root: Hash32,
        /// What the payment stands for.
        commitment: Hash32,
    },
    /// What a day left is free again.
    DayClosed {
        /// The allotment day.
        day: u64,
        /// How much.
        unspent_units: u64,
    },
    /// A vote released money.
    Released {
        /// The recipient.
        to: Address20,
        /// How much.
        units: u64,
    },
    /// A worker was paid from the treasury's pot.
    WorkerClaimed {
        /// The worker's operator.
        operator: Address20,
        /// The recipient.
        payee: Address20,
        /// Units paid now.
        units: u64,
        /// Units paid in all.
        cumulative_units: u64,
    },
    /// The treasury's settler was appointed.
    TreasurySettlerAppointed {
        /// The settler.
        settler: Address20,
    },
    /// The price list changed.
    PackageListed {
        /// The package.
        package: u32,
        /// Its price.
        #[serde(with = "decimal")]
        price_base_units: u128,
        /// What it gives.
        units: u64,
        /// For how many seconds; zero: not on sale.
        validity_s: u32,
    },
    /// A package was sold.
    PackagePurchased {
        /// The package.
        package: u32,
        /// Who got it.
        account: Address20,
        /// Who paid.
        payer: Address20,
        /// What was paid.
        #[serde(with = "decimal")]
        price_base_units: u128,
        /// What it gives.
        units: u64,
        /// Until when (seconds).
        valid_until: u64,
    },
}

type Decoded = Result<Option<Result<EconomyFact, String>>, alloy::sol_types::Error>;

/// Decodes a log; `None` inside for logs that mean nothing here.
pub(crate) fn decode(emitter: EconomyEmitter, topics: &[B256], data: &[u8]) -> Decoded {
    Ok(match emitter {
        EconomyEmitter::Stake => stake_fact(StakeRegistryEvents::decode_raw_log(topics, data)?).transpose(),
        EconomyEmitter::Governor => governor_fact(NetworkGovernorEvents::decode_raw_log(topics, data)?),
        EconomyEmitter::Bounds => {
            let AllotmentBoundsEvents::BoundsChanged(e) =
                AllotmentBoundsEvents::decode_raw_log(topics, data)?;
            Some(Ok(EconomyFact::BoundsChanged { floor_units: e.floor, ceiling_units: e.ceiling }))
        }
        EconomyEmitter::Treasury => Some(treasury_fact(TreasuryEvents::decode_raw_log(topics, data)?)),
        EconomyEmitter::TreasuryPayouts => {
            pot_fact(OperatorPayoutsEvents::decode_raw_log(topics, data)?).transpose()
        }
        EconomyEmitter::Packages => Some(packages_fact(PackagesEvents::decode_raw_log(topics, data)?)),
    })
}

fn base_units(amount: U256) -> Result<u128, String> {
    u128::try_from(amount).map_err(|_| format!("{amount} base units are more than 128 bits"))
}

fn stake_fact(event: StakeRegistryEvents) -> Result<Option<EconomyFact>, String> {
    use StakeRegistryEvents as E;
    Ok(Some(match event {
        E::Staked(e) => EconomyFact::Staked {
            account: e.account.into(),
            base_units: base_units(e.amount)?,
            total_base_units: base_units(e.total)?,
        },
        E::UnbondingStarted(e) => EconomyFact::UnbondingStarted {
            account: e.account.into(),
            base_units: base_units(e.amount)?,
            total_base_units: base_units(e.total)?,
            ready_at: e.readyAt.saturating_to(),
        },
        E::UnbondingFinished(e) => EconomyFact::UnbondingFinished {
            account: e.account.into(),
            to: e.to.into(),
            base_units: base_units(e.amount)?,
        },
        E::DelegateVotesChanged(e) => EconomyFact::VotesChanged {
            delegate: e.delegate.into(),
            before_base_units: base_units(e.previousVotes)?,
            now_base_units: base_units(e.newVotes)?,
        },
        E::DelegateChanged(_) | E::EIP712DomainChanged(_) => return Ok(None),
    }))
}

fn governor_fact(event: NetworkGovernorEvents) -> Option<Result<EconomyFact, String>> {
    use NetworkGovernorEvents as E;
    Some(Ok(match event {
        E::ProposalCreated(e) => EconomyFact::Proposed {
            proposal: Hash32(e.proposalId.to_be_bytes()),
            proposer: e.proposer.into(),
            snapshot_s: e.voteStart.saturating_to(),
            ends_s: e.voteEnd.saturating_to(),
            description: e.description,
        },
        E::ProposalExecuted(e) => EconomyFact::Executed { proposal: Hash32(e.proposalId.to_be_bytes()) },
        E::EIP712DomainChanged(_)
        | E::ProposalCanceled(_)
        | E::ProposalQueued(_)
        | E::ProposalThresholdSet(_)
        | E::QuorumNumeratorUpdated(_)
        | E::VoteCast(_)
        | E::VoteCastWithParams(_)
        | E::VotingDelaySet(_)
        | E::VotingPeriodSet(_) => return None,
    }))
}

fn treasury_fact(event: TreasuryEvents) -> Result<EconomyFact, String> {
    use TreasuryEvents as E;
    Ok(match event {
        E::DayOpened(e) => {
            EconomyFact::DayOpened { day: e.day, pool_units: units(e.pool)?, free_units: units(e.free)? }
        }
        E::DayPaid(e) => EconomyFact::DayPaid {
            day: e.day,
            epoch: e.epoch,
            units: units(e.units)?,
            left_units: units(e.left)?,
            root: e.root.into(),
            commitment: e.commitment.into(),
        },
        E::DayClosed(e) => EconomyFact::DayClosed { day: e.day, unspent_units: units(e.unspent)? },
        E::Released(e) => EconomyFact::Released { to: e.to.into(), units: units(e.units)? },
        E::SettlerAppointed(e) => EconomyFact::TreasurySettlerAppointed { settler: e.settler.into() },
    })
}

fn pot_fact(event: OperatorPayoutsEvents) -> Result<Option<EconomyFact>, String> {
    use OperatorPayoutsEvents as E;
    Ok(Some(match event {
        E::Claimed(e) => EconomyFact::WorkerClaimed {
            operator: e.operator.into(),
            payee: e.payee.into(),
            units: units(e.units)?,
            cumulative_units: units(e.cumulative)?,
        },
        E::RootPosted(_) | E::RootDisabled(_) | E::PayeeSet(_) => return Ok(None),
    }))
}

fn packages_fact(event: PackagesEvents) -> Result<EconomyFact, String> {
    use PackagesEvents as E;
    Ok(match event {
        E::Listed(e) => EconomyFact::PackageListed {
            package: e.id,
            price_base_units: base_units(e.price)?,
            units: e.units,
            validity_s: e.validityS,
        },
        E::Purchased(e) => EconomyFact::PackagePurchased {
            package: e.id,
            account: e.account.into(),
            payer: e.payer.into(),
            price_base_units: base_units(e.price)?,
            units: e.units,
            valid_until: e.validUntil,
        },
    })
}

/// 128-bit figures as decimal text: JSON numbers lose them, and serde cannot buffer them in a tagged enum.
pub(crate) mod decimal {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(crate) fn serialize<S: Serializer>(figure: &u128, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(figure)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<u128, D::Error> {
        let text = String::deserialize(from)?;
        text.parse().map_err(|_| D::Error::custom(format!("expected a decimal figure, got {text:?}")))
    }
}
