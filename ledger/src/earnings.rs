//! What operators earn from credit that no vault backs: it waits by account, asset and backing, and can be taken as
//! earned credit of the same backing (rulings 3.1). Must not: shares that vaults back (they wait in wallets' queues).

use crate::accounts::{AccountNo, spending_account};
use crate::apply::ApplyError;
use crate::books::BookKey;
use crate::command::TakeEarnings;
use crate::decide::{Legs, Plan};
use crate::grants::{self, PRIORITY_EARNED, Paper, customer_kind};
use crate::jobs::Job;
use crate::refusal::Refusal;
use crate::splits;
use crate::state::State;
use minicbor::{Decode, Encode};
use protocol::amount::Amount;
use protocol::asset::AssetId;
use protocol::event::GrantId;
use protocol::event::account::AccountKind;
use protocol::event::grant::{Backing, EarningsTaken, GrantIssued, GrantSource};
use std::collections::BTreeMap;

/// Whose earnings, in what, backed by what: never by a wallet's vault balance.
pub(crate) type EarningKey = (AccountNo, AssetId, Paper);

/// What was earned with one backing.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Encode, Decode)]
#[cbor(array)]
pub(crate) struct Earning {
    /// Accrued and not taken.
    #[n(0)]
    pub(crate) waiting: Amount,
    /// Where it goes when it is taken; made the first time.
    #[n(1)]
    pub(crate) bucket: Option<GrantId>,
}

/// A share that no vault pays.
pub(crate) fn wait(state: &mut State, key: EarningKey, share: i128) {
    state.earnings.entry(key).or_default().waiting.0 += share;
}

/// The first time for an account, asset and backing a bucket is opened, empty; later the same one is filled again.
///
/// Postings: Dr `OperatorAccrued` / Cr `CustomerEarned`, both of the account.
pub(crate) fn decide_take(plan: &mut Plan, command: &TakeEarnings) -> Result<(), Refusal> {
    let state = plan.state;
    let TakeEarnings { account, asset, backing, amount } = *command;
    let number = spending_account(state, account)?;
    state.asset(asset).ok_or(Refusal::AssetUnknown { asset })?;
    let paper = match backing {
        Backing::Vault(vault, _) => Err(Refusal::EarningsOnChain { vault }),
        _ => grants::paper_beside_vaults(backing).ok_or(Refusal::Overflow { what: "backing" }),
    }?;
    if amount.0 <= 0 {
        return Err(Refusal::UnitsZero {});
    }
    let earning = state.earnings.get(&(number, asset, paper)).copied().unwrap_or_default();
    if amount > earning.waiting {
        return Err(Refusal::MoreThanEarned { asked: amount, waiting: earning.waiting });
    }
    let grant = match earning.bucket {
        Some(grant) => grant,
        None => open_bucket(plan, command)?,
    };
    let mut legs = Legs::default();
    plan.post(&mut legs, BookKey::new(number, AccountKind::OperatorAccrued, asset), amount.0)?;
    plan.post(&mut legs, BookKey::new(number, customer_kind(GrantSource::Earned), asset), -amount.0)?;
    plan.emit_with(EarningsTaken { grant, amount }, legs);
    Ok(())
}

fn open_bucket(plan: &mut Plan, command: &TakeEarnings) -> Result<GrantId, Refusal> {
    let grant = grants::next_id(plan.state)?;
    plan.emit(GrantIssued {
        grant,
        account: command.account,
        source: GrantSource::Earned,
        asset: command.asset,
        amount: Amount::ZERO,
        priority: PRIORITY_EARNED,
        scope: Vec::new(),
        expires_us: None,
        backing: command.backing,
    });
    Ok(grant)
}

/// An empty bucket of earned credit is the one that earnings of its backing go to.
pub(crate) fn apply_opened(state: &mut State, key: EarningKey, grant: GrantId) -> Result<(), ApplyError> {
    match state.earnings.entry(key).or_default().bucket.replace(grant) {
        None => Ok(()),
        Some(_) => Err(ApplyError::Impossible("earnings of one backing have one bucket")),
    }
}

pub(crate) fn apply_taken(state: &mut State, event: &EarningsTaken) -> Result<(), ApplyError> {
    let grant = state.grant(event.grant)?;
    let key = (grant.account, grant.asset(), grant.paper);
    let earning = state.earnings.get_mut(&key).filter(|earning| earning.bucket == Some(event.grant));
    let earning = earning.ok_or(ApplyError::Impossible("earnings go to the bucket of their backing"))?;
    if event.amount.0 <= 0 || event.amount > earning.waiting {
        return Err(ApplyError::Impossible("more is taken than was earned"));
    }
    earning.waiting.0 -= event.amount.0;
    state.grant_mut(event.grant)?.remaining.0 += event.amount.0;
    grants::index(state, event.grant)
}

/// What undoing a charge takes back of one account's earnings with one backing.
pub(crate) struct Recall {
    key: EarningKey,
    share: i128,
    /// Of what waits; the rest comes out of the free part of the bucket.
    waiting_part: i128,
    bucket: Option<GrantId>,
    free: i128,
}

impl Recall {
    pub(crate) fn owner(&self) -> AccountNo {
        self.key.0
    }

    /// What comes out of the bucket.
    pub(crate) fn bucket_part(&self) -> i128 {
        self.share - self.waiting_part
    }

    /// The refusal when it was spent.
    pub(crate) fn check(&self, job: &Job) -> Result<(), Refusal> {
        if self.bucket_part() <= self.free {
            return Ok(());
        }
        let available = Amount(self.waiting_part + self.free);
        Err(Refusal::EarningsSpent { job: job.id, needed: Amount(self.share), available })
    }
}

/// How the shares of a job's charges that no vault backs come back: first what still waits with their backing, then what
/// is free in its bucket before anything is refunded. `None` beyond 128 bits.
pub(crate) fn recalls(state: &State, job: &Job) -> Option<Vec<Recall>> {
    let mut shares: BTreeMap<EarningKey, i128> = BTreeMap::new();
    for part in &job.parts() {
        let owner = state.operators[job.operator_of(part)].account_no;
        let spread = splits::spread(part.operator_share, part.cost, part.slices.iter().map(|s| s.amount))?;
        for (slice, share) in part.slices.iter().zip(spread) {
            let paper = state.grants[slice.grant].paper;
            if !matches!(paper, Paper::Wallet(_)) {
                *shares.entry((owner, job.asset, paper)).or_default() += share.0;
            }
        }
    }
    let recall = |(key, share): (EarningKey, i128)| {
        let Earning { waiting, bucket } = state.earnings.get(&key).copied().unwrap_or_default();
        let free = bucket.map_or(0, |bucket| state.grants[bucket].free().max(0));
        Recall { key, share, waiting_part: share.min(waiting.0), bucket, free }
    };
    Some(shares.into_iter().map(recall).collect())
}

/// Takes back, before the slices are refunded.
pub(crate) fn apply_recalled(state: &mut State, job: &Job) -> Result<(), ApplyError> {
    let recalls = recalls(state, job).ok_or(ApplyError::Impossible("a share beyond 128 bits"))?;
    for recall in recalls {
        if recall.bucket_part() > recall.free {
            return Err(ApplyError::Impossible("a charge is undone whose shares were spent"));
        }
        wait(state, recall.key, -recall.waiting_part);
        if let Some(bucket) = recall.bucket.filter(|_| recall.bucket_part() > 0) {
            state.grant_mut(bucket)?.remaining.0 -= recall.bucket_part();
            grants::index(state, bucket)?;
        }
    }
    Ok(())
}
