//! The second door: an event changes the state. Counters first, from the event's own legs and by one rule for all
//! kinds; then the feature's bookkeeping. After an error the state is unusable: the log is wrong, stop.

use crate::idempotency::KEY_AHEAD_US_MAX;
use crate::state::State;
use crate::{
    accounts, batches, books, captures, credit_lines, deposits, earnings, economy, grants, holds, jobs,
    moves, nodes, rates, spend_caps, vouchers,
};
use protocol::event::account::AccountKind;
use protocol::event::{Event, EventBody};
use protocol::id::{Hash32, IdempotencyKey};

/// Why an event cannot have happened in this state: the log is broken or was written by other rules.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// The header does not continue the log.
    #[error("event at leaf {leaf}: {field} is {given}, expected {expected}: the log is broken here")]
    WrongPlace {
        /// Leaf of the event.
        leaf: u64,
        /// Which field of the header.
        field: &'static str,
        /// What it should say.
        expected: u64,
        /// What it says.
        given: u64,
    },
    /// The key stood for another command, or came again in another commit.
    #[error("key {key} was used at leaf {first_leaf} already: one command's events follow each other")]
    KeyUsedAgain {
        /// The key.
        key: IdempotencyKey,
        /// Where it was used first.
        first_leaf: u64,
    },
    /// Legs that do not sum to zero.
    #[error("legs in asset {asset} sum to {sum}, expected 0")]
    Unbalanced {
        /// Which asset.
        asset: u32,
        /// What is too much.
        sum: i128,
    },
    /// Something the event names does not exist.
    #[error("unknown {what} {id}")]
    Unknown {
        /// What kind of thing.
        what: &'static str,
        /// Its id as text.
        id: String,
    },
    /// A customer or operator would own less than nothing.
    #[error("ledger account {number} ({kind}) would have {available} available, expected at least 0")]
    BelowFloor {
        /// Dense number.
        number: u32,
        /// Its kind.
        kind: &'static str,
        /// What it would have.
        available: i128,
    },
    /// A counter beyond its range.
    #[error("a counter of ledger account {0} leaves its range")]
    Overflow(u32),
    /// The event contradicts the state in another way.
    #[error("impossible event: {0}")]
    Impossible(&'static str),
}

impl ApplyError {
    pub(crate) fn unknown(what: &'static str, id: impl ToString) -> ApplyError {
        ApplyError::Unknown { what, id: id.to_string() }
    }
}

/// Applies one event. Call it for every event in the order of the log, then [`end_commit`] at each commit's end.
pub fn apply(state: &mut State, event: &Event) -> Result<(), ApplyError> {
    check_place(state, event)?;
    if let EventBody::LedgerAccountsOpened(e) = &event.body {
        books::apply_ledger_accounts_opened(state, e)?;
    }
    state.books.book(event)?;
    apply_body(state, event)?;
    economy::note(state, &event.header, &event.body)?;
    state.keys.note(&event.header)?;
    state.next_leaf += 1;
    state.time_us = event.header.time_us;
    Ok(())
}

/// Ends a commit after its events were applied: number, hash of its bytes, its time.
pub fn end_commit(state: &mut State, number: u64, hash: Hash32, time_us: u64) -> Result<(), ApplyError> {
    let leaf = state.next_leaf;
    if number != state.commit + 1 {
        let expected = state.commit + 1;
        return Err(ApplyError::WrongPlace { leaf, field: "commit", expected, given: number });
    }
    if time_us < state.time_us {
        let expected = state.time_us;
        return Err(ApplyError::WrongPlace { leaf, field: "time_us", expected, given: time_us });
    }
    state.commit = number;
    state.commit_hash = hash;
    state.time_us = time_us;
    if let Some(keep_us) = state.settings().map(|settings| settings.idempotency_us) {
        state.keys.forget(time_us, keep_us.saturating_add(KEY_AHEAD_US_MAX));
        state.jobs.retire(time_us, keep_us);
    }
    Ok(())
}

fn check_place(state: &State, event: &Event) -> Result<(), ApplyError> {
    let header = &event.header;
    let leaf = header.leaf;
    let fields = [
        ("shard", u64::from(state.shard), u64::from(header.shard)),
        ("leaf", state.next_leaf, header.leaf),
        ("commit", state.commit + 1, header.commit),
        ("time_us", header.time_us.max(state.time_us), header.time_us),
    ];
    for (field, expected, given) in fields {
        if expected != given {
            return Err(ApplyError::WrongPlace { leaf, field, expected, given });
        }
    }
    let opens = matches!(event.body, EventBody::NetworkOpened(_));
    if opens == state.network.is_some() {
        return Err(ApplyError::Impossible("the network is opened by the first event and by no other"));
    }
    Ok(())
}

fn apply_body(state: &mut State, event: &Event) -> Result<(), ApplyError> {
    let header = &event.header;
    match &event.body {
        EventBody::NetworkOpened(e) => rates::apply_network_opened(state, e),
        EventBody::WriterChanged(e) => rates::apply_writer_changed(state, e),
        EventBody::RateCardPublished(e) => rates::apply_published(state, e),
        EventBody::VaultRegistered(e) => deposits::apply_vault_registered(state, e),
        EventBody::AccountOpened(e) => accounts::apply_opened(state, e),
        EventBody::LedgerAccountsOpened(_) => Ok(()),
        EventBody::SpendAuthorised(e) => deposits::apply_authorised(state, e),
        EventBody::AccountClosed(e) => accounts::apply_closed(state, e),
        EventBody::SpendCapSet(e) => spend_caps::apply_set(state, e),
        EventBody::CreditLineSet(e) => credit_lines::apply_set(state, e),
        EventBody::CreditRepaid(e) => credit_lines::apply_repaid(state, e),
        EventBody::CreditMoved(e) => moves::apply(state, e),
        EventBody::EarningsTaken(e) => earnings::apply_taken(state, e),
        EventBody::HoldExtended(e) => holds::apply_extended(state, e),
        EventBody::DepositConfirmed(e) => deposits::apply_confirmed(state, e),
        EventBody::DepositAttributed(e) => deposits::apply_attributed(state, e),
        EventBody::DepositReversed(e) => deposits::apply_reversed(state, e),
        EventBody::ExitRequested(e) => vouchers::apply_exit_requested(state, e),
        EventBody::ExitCancelled(e) => vouchers::apply_exit_cancelled(state, e),
        EventBody::ExitFinalised(e) => vouchers::apply_exit_finalised(state, e),
        EventBody::VoucherIssued(e) => vouchers::apply_issued(state, e),
        EventBody::VoucherRedeemed(e) => vouchers::apply_redeemed(state, e),
        EventBody::VoucherLapsed(e) => vouchers::apply_lapsed(state, e),
        EventBody::CheckpointAnchored(e) => batches::apply_anchored(state, e),
        EventBody::GrantIssued(e) => grants::apply_issued(state, e),
        EventBody::GrantExpired(e) => grants::apply_expired(state, e),
        EventBody::HoldPlaced(e) => holds::apply_placed(state, header, e),
        EventBody::HoldVoided(e) => holds::apply_voided(state, header, e),
        EventBody::HoldExpired(e) => holds::apply_expired(state, header, e),
        EventBody::JobDispatched(e) => jobs::apply_dispatched(state, header, e),
        EventBody::UsageCaptured(e) => captures::apply_captured(state, header, e),
        EventBody::CaptureReversed(e) => captures::apply_reversed(state, header, e),
        EventBody::OperatorRegistered(e) => nodes::apply_operator_registered(state, e),
        EventBody::NodeRegistered(e) => nodes::apply_node_registered(state, e),
        EventBody::NodeRetired(e) => nodes::apply_node_retired(state, e),
        EventBody::BatchClosed(e) => batches::apply_closed(state, header, e),
        EventBody::BatchSubmitted(e) => batches::apply_submitted(state, e),
        EventBody::BatchConfirmed(e) => batches::apply_confirmed(state, e),
        EventBody::BatchFailed(e) => batches::apply_failed(state, e),
        EventBody::PayoutClaimed(e) => batches::apply_claimed(state, e),
        EventBody::BatchReplaced(e) => batches::apply_replaced(state, e),
        EventBody::SolvencyChecked(e) => deposits::apply_solvency(state, e),
        EventBody::EconomyPublished(e) => economy::apply_published(state, header, e),
        EventBody::AllotmentDayOpened(e) => economy::allotment::apply_opened(state, e),
        EventBody::StakeAllotted(e) => economy::allotment::apply_allotted(state, e),
        EventBody::SignUpCredited(e) => economy::sign_up::apply(state, header, e),
        EventBody::BountyPublished(e) => economy::bounties::apply_published(state, e),
        EventBody::BountyPaid(e) => economy::bounties::apply_paid(state, header, e),
        EventBody::BountyTakenBack(e) => economy::bounties::apply_taken_back(state, e),
        EventBody::PayoutCutStarted(e) => economy::conduct::apply_cut(state, e),
        EventBody::JobShareSet(e) => economy::conduct::apply_share(state, header, e),
        EventBody::FallbackMarked(e) => economy::conduct::apply_fallback(state, e),
        EventBody::UptimeNoted(e) => economy::conduct::apply_uptime(state, header, e),
        EventBody::OperatorStruck(e) => economy::conduct::apply_struck(state, e),
        EventBody::ServiceMeasured(e) => economy::packages::apply(state, e),
        EventBody::TreasuryEpochClosed(e) => economy::treasury::apply_closed(state, e),
        EventBody::TreasuryEpochPaid(e) => economy::treasury::apply_paid(state, e),
    }
}

/// Kinds that may never be overdrawn: they are what we owe to somebody.
pub(crate) fn has_floor(kind: AccountKind) -> bool {
    use AccountKind::*;
    match kind {
        CustomerDeposited | CustomerPackage | CustomerEarned | CustomerAllotment | CustomerPromo
        | CustomerCredit | OperatorAccrued | OperatorSettling | OperatorPayable | UnattributedDeposits
        | HoldsPending => true,
        VaultAsset | PotAsset | Receivable | PlatformRevenue | Breakage | PromoExpense | PlatformTreasury
        | CreditLines => false,
    }
}
