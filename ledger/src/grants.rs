//! Grants: buckets of credit with source, priority, scope, expiry and backing, and the order they are consumed in.
//! An expired grant pays for nothing new, whether or not its expiry is logged (rulings 3.13).

use crate::accounts::{AccountNo, open_account};
use crate::apply::ApplyError;
use crate::books::{BookKey, LEG_MAX};
use crate::command::IssueGrant;
use crate::decide::{Legs, Plan};
use crate::preset::NAME_BYTES_MAX;
use crate::refusal::Refusal;
use crate::slab::Slab;
use crate::state::State;
use crate::wallets::WalletNo;
use crate::{credit_lines, deposits, earnings};
use minicbor::{Decode, Encode};
use protocol::amount::Amount;
use protocol::asset::AssetId;
use protocol::event::GrantId;
use protocol::event::account::AccountKind;
use protocol::event::grant::{Backing, GrantExpired, GrantIssued, GrantSource};
use protocol::event::hold::{Slice, Slices};
use std::collections::BTreeMap;

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

/// What stands behind a bucket; a vault's balance by the wallet's row.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Encode, Decode)]
#[cbor(flat)]
pub(crate) enum Paper {
    #[n(0)]
    Unbacked,
    #[n(1)]
    Wallet(#[n(0)] WalletNo),
    #[n(2)]
    Treasury,
    /// A purchase number, its upper and lower half.
    #[n(3)]
    Package(#[n(0)] u32, #[n(1)] u32),
}

/// The grant is in its account's order.
const LISTED: u8 = 1;
/// The event of its expiry is in the log.
const ENDED: u8 = 2;

/// One bucket, one cache line; its number is its place.
#[derive(Clone, Debug, Encode, Decode)]
#[cbor(array)]
#[repr(align(64))]
pub(crate) struct Grant {
    /// Filled and not spent, withdrawn, lapsed or promised in an open voucher; includes what is held.
    #[n(0)]
    pub(crate) remaining: Amount,
    /// In open holds.
    #[n(1)]
    pub(crate) held: Amount,
    /// `u64::MAX` = never.
    #[n(2)]
    pub(crate) expires_us: u64,
    #[n(3)]
    pub(crate) paper: Paper,
    #[n(4)]
    pub(crate) account: AccountNo,
    /// Which list of models; 0 is the empty one: all.
    #[n(5)]
    scope: u32,
    #[n(6)]
    pub(crate) source: GrantSource,
    #[n(7)]
    asset: u8,
    #[n(8)]
    pub(crate) priority: u8,
    #[n(9)]
    flags: u8,
}

const _: () = assert!(std::mem::size_of::<Grant>() <= 64);

impl Grant {
    pub(crate) fn is_deposit(&self) -> bool {
        self.source == GrantSource::Deposited
    }

    pub(crate) fn asset(&self) -> AssetId {
        AssetId(u32::from(self.asset))
    }

    pub(crate) fn expired(&self, now_us: u64) -> bool {
        self.expires_us != u64::MAX && self.expires_us <= now_us
    }

    /// Neither held nor promised.
    pub(crate) fn free(&self) -> i128 {
        self.remaining.0 - self.held.0
    }

    /// The customer's ledger account behind it.
    pub(crate) fn book_key(&self) -> BookKey {
        BookKey::new(self.account, customer_kind(self.source), self.asset())
    }

    /// Its place in the order of consumption: priority, then expiry, then number.
    pub(crate) fn order(&self, id: GrantId) -> (u8, u64, GrantId) {
        (self.priority, self.expires_us, id)
    }
}

/// Every bucket there was, and the scopes they name.
#[derive(Clone, Default, Debug, Encode, Decode)]
#[cbor(array)]
pub(crate) struct Grants {
    #[n(0)]
    rows: Slab<Grant>,
    /// In the order of their first use; the empty one is none of them.
    #[n(1)]
    scopes: Vec<Vec<String>>,
    #[cbor(skip)]
    scope_numbers: BTreeMap<Vec<String>, u32>,
}

impl std::ops::Index<GrantId> for Grants {
    type Output = Grant;
    #[inline]
    fn index(&self, id: GrantId) -> &Grant {
        &self.rows[id.0]
    }
}

impl Grants {
    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    #[inline]
    pub(crate) fn get(&self, id: GrantId) -> Option<&Grant> {
        self.rows.get(id.0)
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, id: GrantId) -> Option<&mut Grant> {
        self.rows.get_mut(id.0)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (GrantId, &Grant)> {
        self.rows.iter().enumerate().map(|(k, grant)| (GrantId(k as u32), grant))
    }

    /// The models it may pay for; empty = all.
    pub(crate) fn scope(&self, grant: &Grant) -> &[String] {
        match grant.scope.checked_sub(1) {
            Some(at) => &self.scopes[at as usize],
            None => &[],
        }
    }

    /// Whether it may pay for a model.
    pub(crate) fn covers(&self, grant: &Grant, model: &str) -> bool {
        grant.scope == 0 || self.scope(grant).iter().any(|name| name == model)
    }

    fn scope_number(&mut self, scope: &[String]) -> u32 {
        if scope.is_empty() {
            return 0;
        }
        if let Some(number) = self.scope_numbers.get(scope) {
            return *number;
        }
        self.scopes.push(scope.to_vec());
        let number = self.scopes.len() as u32;
        self.scope_numbers.insert(scope.to_vec(), number);
        number
    }

    pub(crate) fn rebuild(&mut self) -> Result<(), &'static str> {
        let scopes = self.scopes.iter().cloned();
        self.scope_numbers = scopes.zip(1u32..).collect();
        let known = self.scopes.len();
        if self.scope_numbers.len() != known || self.rows.iter().any(|g| g.scope as usize > known) {
            return Err("a grant's scope is not there, or one is there twice");
        }
        Ok(())
    }

    /// Ends of grants whose expiry is not in the log.
    pub(crate) fn timers(&self) -> impl Iterator<Item = (u64, GrantId)> {
        let open = self.iter().filter(|(_, g)| g.expires_us != u64::MAX && g.flags & ENDED == 0);
        open.map(|(id, grant)| (grant.expires_us, id))
    }

    /// A copy that shares what it can.
    pub(crate) fn share(&mut self) -> Grants {
        let (scopes, scope_numbers) = (self.scopes.clone(), self.scope_numbers.clone());
        Grants { rows: self.rows.share(), scopes, scope_numbers }
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
    match (grant.source, grant.paper) {
        (GrantSource::Deposited, Paper::Wallet(wallet)) => {
            let limit = deposits::collectable(state, wallet, now_us).saturating_sub(grant.held.0);
            free.min(limit).max(0)
        }
        (GrantSource::CreditLine, _) => credit_lines::spendable(state, grant),
        _ => free,
    }
}

/// What a hold wants.
pub(crate) struct Need<'a> {
    pub(crate) account: AccountNo,
    pub(crate) asset: AssetId,
    pub(crate) model: &'a str,
    pub(crate) amount: i128,
}

/// Slices that cover the need, in consumption order; or what is available.
pub(crate) fn choose(state: &State, need: &Need, now_us: u64) -> Result<Slices, Amount> {
    let Some(account) = state.accounts.row(need.account) else { return Err(Amount::ZERO) };
    let mut slices = Slices::new();
    let mut open = need.amount;
    for id in account.grants.as_slice() {
        if open == 0 || slices.len() == SLICES_MAX {
            break;
        }
        let grant = &state.grants[*id];
        if grant.asset() != need.asset || !state.grants.covers(grant, need.model) {
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
    let account = open_account(plan.state, command.account)?;
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
    if command.expires_us == Some(u64::MAX) {
        return invalid("without an end it has no date");
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
    plan_filled(plan, account, event)
}

/// Adds a filled bucket whose figures were decided.
pub(crate) fn plan_issued(plan: &mut Plan, event: GrantIssued) -> Result<(), Refusal> {
    let account = open_account(plan.state, event.account)?;
    plan_filled(plan, account, event)
}

fn plan_filled(plan: &mut Plan, account: AccountNo, event: GrantIssued) -> Result<(), Refusal> {
    let customer = BookKey::new(account, customer_kind(event.source), event.asset);
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
    let grant = &plan.state.grants[id];
    let lapsed = grant.free();
    let mut legs = Legs::default();
    plan.post(&mut legs, grant.book_key(), lapsed)?;
    plan.post(&mut legs, BookKey::system(AccountKind::Breakage, grant.asset()), -lapsed)?;
    plan.emit_with(GrantExpired { grant: id, lapsed: Amount(lapsed) }, legs);
    Ok(())
}

pub(crate) fn apply_issued(state: &mut State, event: &GrantIssued) -> Result<(), ApplyError> {
    if event.grant.0 as usize != state.grants.len() || event.amount.0 < 0 {
        return Err(ApplyError::Impossible("grants are numbered without gaps and never negative"));
    }
    let paper = match event.backing {
        Backing::Vault(vault, wallet) => state.wallets.find(&(vault, wallet)).map(Paper::Wallet),
        _ => paper_beside_vaults(event.backing),
    };
    let paper = paper.ok_or_else(|| ApplyError::unknown("backing", format!("{:?}", event.backing)))?;
    if let (GrantSource::Deposited, Paper::Wallet(wallet)) = (event.source, paper) {
        let wallet = state.wallets.row_mut(wallet)?;
        if wallet.bucket.replace(event.grant).is_some() {
            return Err(ApplyError::Impossible("a wallet's deposit bucket is opened twice"));
        }
    }
    if let Some(expires_us) = event.expires_us {
        state.timers.add_grant(expires_us, event.grant);
    }
    let account = state.account_no(event.account)?;
    state.asset(event.asset).ok_or_else(|| ApplyError::unknown("asset", event.asset.0))?;
    if event.source == GrantSource::Earned && event.amount.is_zero() {
        if matches!(paper, Paper::Wallet(_)) {
            return Err(ApplyError::Impossible("what a vault backs is paid on the chain"));
        }
        earnings::apply_opened(state, (account, event.asset, paper), event.grant)?;
    }
    let scope = state.grants.scope_number(&event.scope);
    state.grants.rows.push(Grant {
        remaining: event.amount,
        held: Amount::ZERO,
        expires_us: event.expires_us.unwrap_or(u64::MAX),
        paper,
        account,
        scope,
        source: event.source,
        asset: event.asset.0 as u8,
        priority: event.priority,
        flags: 0,
    });
    index(state, event.grant)
}

pub(crate) fn apply_expired(state: &mut State, event: &GrantExpired) -> Result<(), ApplyError> {
    let grant = state.grant_mut(event.grant)?;
    if event.lapsed.0 < 0 || event.lapsed.0 > grant.free() {
        return Err(ApplyError::Impossible("a grant lapses by more than what is left"));
    }
    if grant.expires_us == u64::MAX || grant.flags & ENDED != 0 {
        return Err(ApplyError::Impossible("a grant expires once, and only one that has an end"));
    }
    grant.remaining.0 -= event.lapsed.0;
    grant.flags |= ENDED;
    let expires_us = grant.expires_us;
    state.timers.remove_grant(expires_us, event.grant);
    index(state, event.grant)
}

/// Keeps the account's list to grants that matter: deposit buckets always, others while something is left. A bucket
/// whose expiry is logged stays only while open holds still have slices of it.
#[inline]
pub(crate) fn index(state: &mut State, id: GrantId) -> Result<(), ApplyError> {
    let grant = state.grant_mut(id)?;
    let held = !grant.held.is_zero();
    let ended = grant.flags & ENDED != 0;
    let listed = grant.is_deposit() || (grant.remaining.0 > 0 && (held || !ended));
    if listed == (grant.flags & LISTED != 0) {
        return Ok(());
    }
    grant.flags ^= LISTED;
    state.accounts.list(&state.grants, id, listed)
}

/// A backing other than a wallet's balance, as buckets have it.
pub(crate) fn paper_beside_vaults(backing: Backing) -> Option<Paper> {
    match backing {
        Backing::Unbacked => Some(Paper::Unbacked),
        Backing::Treasury => Some(Paper::Treasury),
        Backing::Package(number) => Some(Paper::Package((number >> 32) as u32, number as u32)),
        Backing::Vault(..) => None,
    }
}

/// What stands behind a bucket, as events say it.
pub(crate) fn backing(state: &State, paper: Paper) -> Backing {
    match paper {
        Paper::Unbacked => Backing::Unbacked,
        Paper::Treasury => Backing::Treasury,
        Paper::Package(upper, lower) => Backing::Package(u64::from(upper) << 32 | u64::from(lower)),
        Paper::Wallet(wallet) => {
            let row = &state.wallets[wallet];
            Backing::Vault(row.vault, row.address)
        }
    }
}
