//! Grants: buckets of credit with source, priority, scope, expiry and backing, and the order they are consumed in.
//! An expired grant pays for nothing new, whether or not its expiry is logged (rulings 3.13).

use crate::accounts::{BookKey, LEG_MAX, open_account};
use crate::apply::ApplyError;
use crate::command::IssueGrant;
use crate::decide::{Legs, Plan};
use crate::preset::NAME_BYTES_MAX;
use crate::refusal::Refusal;
use crate::state::State;
use crate::timers::Due;
use crate::{credit_lines, deposits};
use minicbor::{Decode, Encode};
use protocol::amount::Amount;
use protocol::asset::AssetId;
use protocol::event::GrantId;
use protocol::event::account::AccountKind;
use protocol::event::grant::{Backing, GrantExpired, GrantIssued, GrantSource};
use protocol::event::hold::Slice;
use protocol::id::AccountId;

/// Default priorities; lower is consumed first.
pub const PRIORITY_ALLOTMENT: u8 = 10;
/// Bought packages.
pub const PRIORITY_PACKAGE: u8 = 20;
/// Given by the platform.
pub const PRIORITY_PROMO: u8 = 30;
/// Earned by serving.
pub const PRIORITY_EARNED: u8 = 40;
/// Deposited funds come last: they are the only ones that can be withdrawn.
pub const PRIORITY_DEPOSITED: u8 = 50;

/// Most grants one hold draws on.
pub const SLICES_MAX: usize = 256;
/// Most models in a grant's scope.
pub const SCOPE_MODELS_MAX: usize = 64;

/// One bucket.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(array)]
pub(crate) struct Grant {
    #[n(0)]
    pub(crate) id: GrantId,
    #[n(1)]
    pub(crate) account: AccountId,
    #[n(2)]
    pub(crate) source: GrantSource,
    #[n(3)]
    pub(crate) asset: AssetId,
    #[n(4)]
    pub(crate) priority: u8,
    #[n(5)]
    pub(crate) scope: Vec<String>,
    #[n(6)]
    pub(crate) expires_us: Option<u64>,
    #[n(7)]
    pub(crate) backing: Backing,
    /// Filled and not spent, withdrawn or lapsed; includes what is held and reserved.
    #[n(8)]
    pub(crate) remaining: Amount,
    /// In open holds.
    #[n(9)]
    pub(crate) held: Amount,
    /// In open withdrawal vouchers.
    #[n(10)]
    pub(crate) reserved: Amount,
}

impl Grant {
    pub(crate) fn is_deposit(&self) -> bool {
        self.source == GrantSource::Deposited
    }

    pub(crate) fn expired(&self, now_us: u64) -> bool {
        self.expires_us.is_some_and(|expires_us| expires_us <= now_us)
    }

    /// Neither held nor reserved.
    pub(crate) fn free(&self) -> i128 {
        self.remaining.0 - self.held.0 - self.reserved.0
    }

    /// Whether it may pay for a model.
    pub(crate) fn covers(&self, model: &str) -> bool {
        self.scope.is_empty() || self.scope.iter().any(|name| name == model)
    }

    /// The customer's ledger account behind it.
    pub(crate) fn book_key(&self) -> BookKey {
        BookKey::new(self.account, customer_kind(self.source), self.asset)
    }

    fn order(&self) -> (u8, u64, GrantId) {
        (self.priority, self.expires_us.unwrap_or(u64::MAX), self.id)
    }
}

/// The ledger account that a source's credit stands in.
pub(crate) fn customer_kind(source: GrantSource) -> AccountKind {
    match source {
        GrantSource::Deposited => AccountKind::CustomerDeposited,
        GrantSource::Package => AccountKind::CustomerPackage,
        GrantSource::Earned => AccountKind::CustomerEarned,
        GrantSource::Allotment => AccountKind::CustomerAllotment,
        GrantSource::Promo => AccountKind::CustomerPromo,
        GrantSource::CreditLine => AccountKind::CustomerCredit,
    }
}

/// What a new hold may take from a grant now.
pub(crate) fn spendable(state: &State, grant: &Grant, now_us: u64) -> i128 {
    if grant.expired(now_us) {
        return 0;
    }
    let free = grant.free().max(0);
    match (grant.source, grant.backing) {
        (GrantSource::Deposited, Backing::Vault(vault, wallet)) => {
            let limit = deposits::collectable(state, vault, wallet, now_us).saturating_sub(grant.held.0);
            free.min(limit).max(0)
        }
        (GrantSource::CreditLine, _) => credit_lines::spendable(state, grant),
        _ => free,
    }
}

/// What a hold wants.
pub(crate) struct Need<'a> {
    pub(crate) account: AccountId,
    pub(crate) asset: AssetId,
    pub(crate) model: &'a str,
    pub(crate) amount: i128,
}

/// Slices that cover the need, in consumption order; or what is available.
pub(crate) fn choose(state: &State, need: &Need, now_us: u64) -> Result<Vec<Slice>, Amount> {
    let Some(account) = state.accounts.get(&need.account) else { return Err(Amount::ZERO) };
    let mut slices = Vec::new();
    let mut open = need.amount;
    for (_, _, id) in &account.grants {
        if open == 0 || slices.len() == SLICES_MAX {
            break;
        }
        let grant = &state.grants[id.0 as usize];
        if grant.asset != need.asset || !grant.covers(need.model) {
            continue;
        }
        let take = spendable(state, grant, now_us).min(open);
        if take > 0 {
            slices.push(Slice { grant: *id, amount: Amount(take) });
            open -= take;
        }
    }
    if open == 0 { Ok(slices) } else { Err(Amount(need.amount - open)) }
}

pub(crate) fn decide_issue(plan: &mut Plan, command: &IssueGrant) -> Result<(), Refusal> {
    open_account(plan.state, command.account)?;
    if plan.state.asset(command.asset).is_none() {
        return Err(Refusal::AssetUnknown { asset: command.asset });
    }
    let invalid = |detail| Err(Refusal::GrantInvalid { detail });
    if command.source == GrantSource::Deposited || matches!(command.backing, Backing::Vault(..)) {
        return invalid("deposits make their own buckets: confirm a deposit instead");
    }
    if command.source == GrantSource::CreditLine {
        return invalid("a credit line makes its own bucket: set its limit instead");
    }
    if command.amount.0 <= 0 || command.amount.0 > LEG_MAX {
        return invalid("the amount must be above zero and at most 2^110 base units");
    }
    if command.expires_us.is_some_and(|expires_us| expires_us <= plan.now_us) {
        return invalid("it would have expired already");
    }
    let named = command.scope.iter().all(|name| !name.is_empty() && name.len() <= NAME_BYTES_MAX);
    if command.scope.len() > SCOPE_MODELS_MAX || !named {
        return invalid("the scope must be at most 64 model names");
    }
    let event = GrantIssued {
        grant: next_id(plan.state)?,
        account: command.account,
        source: command.source,
        asset: command.asset,
        amount: command.amount,
        priority: command.priority,
        scope: command.scope.clone(),
        expires_us: command.expires_us,
        backing: command.backing,
    };
    let customer = BookKey::new(event.account, customer_kind(event.source), event.asset);
    let mut legs = Legs::default();
    plan.post(&mut legs, BookKey::system(AccountKind::PromoExpense, event.asset), event.amount.0)?;
    plan.post(&mut legs, customer, -event.amount.0)?;
    plan.emit_with(event, legs);
    Ok(())
}

/// The number the next bucket gets.
pub(crate) fn next_id(state: &State) -> Result<GrantId, Refusal> {
    let next = u32::try_from(state.grants.len());
    next.map(GrantId).map_err(|_| Refusal::Overflow { what: "grant number" })
}

/// Adds the end of a grant: what is left and not held becomes breakage; what is held does so at its release.
pub(crate) fn plan_expiry(plan: &mut Plan, id: GrantId) -> Result<(), Refusal> {
    let grant = &plan.state.grants[id.0 as usize];
    let lapsed = grant.free();
    let mut legs = Legs::default();
    plan.post(&mut legs, grant.book_key(), lapsed)?;
    plan.post(&mut legs, BookKey::system(AccountKind::Breakage, grant.asset), -lapsed)?;
    plan.emit_with(GrantExpired { grant: id, lapsed: Amount(lapsed) }, legs);
    Ok(())
}

pub(crate) fn apply_issued(state: &mut State, event: &GrantIssued) -> Result<(), ApplyError> {
    if event.grant.0 as usize != state.grants.len() || event.amount.0 < 0 {
        return Err(ApplyError::Impossible("grants are numbered without gaps and never negative"));
    }
    state.account_mut(event.account)?;
    let grant = Grant {
        id: event.grant,
        account: event.account,
        source: event.source,
        asset: event.asset,
        priority: event.priority,
        scope: event.scope.clone(),
        expires_us: event.expires_us,
        backing: event.backing,
        remaining: event.amount,
        held: Amount::ZERO,
        reserved: Amount::ZERO,
    };
    if let (GrantSource::Deposited, Backing::Vault(vault, wallet)) = (event.source, event.backing) {
        let wallet = state.wallet_mut(vault, wallet)?;
        if wallet.bucket.replace(event.grant).is_some() {
            return Err(ApplyError::Impossible("a wallet's deposit bucket is opened twice"));
        }
    }
    if let Some(expires_us) = event.expires_us {
        state.timers.insert((expires_us, Due::Grant(event.grant)));
    }
    state.grants.push(grant);
    index(state, event.grant)
}

pub(crate) fn apply_expired(state: &mut State, event: &GrantExpired) -> Result<(), ApplyError> {
    let grant = state.grant_mut(event.grant)?;
    if event.lapsed.0 < 0 || event.lapsed.0 > grant.free() {
        return Err(ApplyError::Impossible("a grant lapses by more than what is left"));
    }
    grant.remaining.0 -= event.lapsed.0;
    let expires_us = grant.expires_us.ok_or(ApplyError::Impossible("a grant without an end expires"))?;
    state.timers.remove(&(expires_us, Due::Grant(event.grant)));
    index(state, event.grant)
}

/// Keeps the account's list to grants that matter: deposit buckets always, others while something is left. A bucket
/// whose expiry is logged stays only while open holds still have slices of it.
pub(crate) fn index(state: &mut State, id: GrantId) -> Result<(), ApplyError> {
    let grant = state.grant(id)?;
    let (owner, order) = (grant.account, grant.order());
    let ended = grant.expires_us.is_some_and(|us| !state.timers.contains(&(us, Due::Grant(id))));
    let held = !grant.held.is_zero();
    let listed = grant.is_deposit() || (grant.remaining.0 > 0 && (held || !ended));
    let account = state.account_mut(owner)?;
    if listed {
        account.grants.insert(order);
    } else {
        account.grants.remove(&order);
    }
    Ok(())
}
