//! The first door: a command against the state gives events or a refusal. Only dispatches; each rule stands with its
//! feature. Must not: change state.

use crate::accounts;
use crate::books::{BookKey, COUNTER_MAX, LEG_MAX};
use crate::command::{Command, CommandBody};
use crate::fingerprint::fingerprint;
use crate::refusal::Refusal;
use crate::state::State;
use crate::{
    batches, captures, credit_lines, deposits, earnings, economy, grants, holds, idempotency, jobs, moves,
    nodes, rates, spend_caps, timers, vouchers,
};
use protocol::amount::Amount;
use protocol::codec;
use protocol::event::account::{LedgerAccountsOpened, OpenedLedgerAccount};
use protocol::event::policy::Settings;
use protocol::event::{
    self, EVENT_BYTES_MAX, EVENT_VERSION, Event, EventBody, Header, LedgerAccount, Posting,
};

/// What a command leads to.
#[derive(Clone, PartialEq, Debug)]
pub enum Decision {
    /// New events, at least one, complete with headers: write them in this order, then `apply` each.
    New(Vec<Event>),
    /// The command's key was used by the same command: its outcome stands there.
    Repeated {
        /// The commit of the first outcome; equal to `last_commit + 1` when it is still being written.
        commit: u64,
        /// Its first event.
        first_leaf: u64,
        /// How many events.
        count: u32,
    },
}

/// What [`decide_into`] found; the events themselves are in the caller's buffer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Decided {
    /// At least one event was appended.
    New,
    /// See [`Decision::Repeated`]; nothing was appended.
    Repeated {
        /// The commit of the first outcome.
        commit: u64,
        /// Its first event.
        first_leaf: u64,
        /// How many events.
        count: u32,
    },
}

/// Decides a command at the writer's time (microseconds UTC; the log's own time when that is later).
pub fn decide(state: &State, command: &Command, now_us: u64) -> Result<Decision, Refusal> {
    let mut events = Vec::new();
    Ok(match decide_into(state, command, now_us, &mut events)? {
        Decided::New => Decision::New(events),
        Decided::Repeated { commit, first_leaf, count } => Decision::Repeated { commit, first_leaf, count },
    })
}

/// [`decide`] that appends new events to a buffer which the caller keeps; a refusal leaves the buffer as it was.
pub fn decide_into(
    state: &State,
    command: &Command,
    now_us: u64,
    events: &mut Vec<Event>,
) -> Result<Decided, Refusal> {
    let fingerprint = fingerprint(&command.body);
    if let Some(entry) = state.keys.get(&command.key) {
        if entry.command != fingerprint {
            return Err(Refusal::KeyReused { key: command.key, first_leaf: entry.first_leaf });
        }
        let (commit, first_leaf, count) = (entry.commit, entry.first_leaf, entry.count);
        return Ok(Decided::Repeated { commit, first_leaf, count });
    }
    let now_us = now_us.max(state.time_us);
    if let Some(not_after_us) = command.not_after_us.filter(|not_after_us| now_us > *not_after_us) {
        return Err(Refusal::TooLate { not_after_us, now_us });
    }
    idempotency::check_time(state, command, now_us)?;
    let header = Header {
        shard: state.shard,
        leaf: state.next_leaf,
        commit: state.commit + 1,
        time_us: now_us,
        actor: command.actor,
        key: command.key,
        command: fingerprint,
    };
    let before = events.len();
    let mut plan = Plan { state, now_us, opened: Vec::new(), header, events };
    let planned = plan_body(&mut plan, &command.body).and_then(|()| plan.finish(before));
    if let Err(refusal) = planned {
        events.truncate(before);
        return Err(refusal);
    }
    Ok(Decided::New)
}

fn plan_body(plan: &mut Plan, body: &CommandBody) -> Result<(), Refusal> {
    if let CommandBody::OpenNetwork(c) = body {
        return rates::decide_open_network(plan, c);
    }
    if plan.state.network.is_none() {
        return Err(Refusal::NetworkNotOpened {});
    }
    match body {
        CommandBody::OpenNetwork(_) => Err(Refusal::NetworkAlreadyOpened {}),
        CommandBody::ChangeWriter(c) => rates::decide_change_writer(plan, c),
        CommandBody::PublishRateCard(c) => rates::decide_publish(plan, c),
        CommandBody::RegisterVault(c) => deposits::decide_register_vault(plan, c),
        CommandBody::OpenAccount(c) => accounts::decide_open(plan, c),
        CommandBody::CloseAccount(c) => accounts::decide_close(plan, c),
        CommandBody::SetSpendCap(c) => spend_caps::decide_set(plan, c),
        CommandBody::SetCreditLine(c) => credit_lines::decide_set(plan, c),
        CommandBody::RepayCredit(c) => credit_lines::decide_repay(plan, c),
        CommandBody::MoveCredit(c) => moves::decide(plan, c),
        CommandBody::TakeEarnings(c) => {
            economy::conduct::check_reserve(plan, c)?;
            earnings::decide_take(plan, c)
        }
        CommandBody::ExtendHold(c) => holds::decide_extend(plan, c),
        CommandBody::AuthoriseSpending(c) => deposits::decide_authorise(plan, c),
        CommandBody::ConfirmDeposit(c) => deposits::decide_confirm(plan, c),
        CommandBody::ReverseDeposit(c) => deposits::decide_reverse(plan, c),
        CommandBody::SeeExitRequest(c) => vouchers::decide_exit_requested(plan, c),
        CommandBody::SeeExitCancelled(c) => vouchers::decide_exit_cancelled(plan, c),
        CommandBody::SeeExitFinalised(c) => vouchers::decide_exit_finalised(plan, c),
        CommandBody::IssueVoucher(c) => vouchers::decide_issue(plan, c),
        CommandBody::RedeemVoucher(c) => vouchers::decide_redeem(plan, c),
        CommandBody::LapseVoucher(c) => vouchers::decide_lapse(plan, c),
        CommandBody::RecordAnchor(c) => batches::decide_anchor(plan, c),
        CommandBody::RecordReplacement(c) => batches::decide_replaced(plan, c),
        CommandBody::CheckSolvency(c) => deposits::decide_solvency(plan, c),
        CommandBody::IssueGrant(c) => grants::decide_issue(plan, c),
        CommandBody::Admit(c) => holds::decide_admit(plan, c),
        CommandBody::Redispatch(c) => jobs::decide_redispatch(plan, c),
        CommandBody::Capture(c) => captures::decide_capture(plan, c),
        CommandBody::Void(c) => holds::decide_void(plan, c),
        CommandBody::ReverseCapture(c) => captures::decide_reverse(plan, c),
        CommandBody::ExpireDue(c) => timers::decide_expire_due(plan, c),
        CommandBody::RegisterOperator(c) => nodes::decide_register_operator(plan, c),
        CommandBody::RegisterNode(c) => nodes::decide_register_node(plan, c),
        CommandBody::RetireNode(c) => nodes::decide_retire_node(plan, c),
        CommandBody::CloseBatch(c) => batches::decide_close(plan, c),
        CommandBody::SubmitBatch(c) => batches::decide_submit(plan, c),
        CommandBody::ConfirmBatch(c) => batches::decide_confirm(plan, c),
        CommandBody::FailBatch(c) => batches::decide_fail(plan, c),
        CommandBody::RecordClaim(c) => batches::decide_claim(plan, c),
        CommandBody::PublishEconomy(c) => economy::decide_publish(plan, c),
        CommandBody::OpenAllotmentDay(c) => economy::allotment::decide_open(plan, c),
        CommandBody::AllotStakes(c) => economy::allotment::decide_allot(plan, c),
        CommandBody::GrantSignUp(c) => economy::sign_up::decide(plan, c),
        CommandBody::PublishBounty(c) => economy::bounties::decide_publish(plan, c),
        CommandBody::MarkFallback(c) => economy::conduct::decide_fallback(plan, c),
        CommandBody::NoteUptime(c) => economy::conduct::decide_uptime(plan, c),
        CommandBody::StrikeOperator(c) => economy::conduct::decide_strike(plan, c),
        CommandBody::MeasureService(c) => economy::packages::decide(plan, c),
        CommandBody::CloseTreasuryEpoch(c) => economy::treasury::decide_close(plan, c),
        CommandBody::RecordTreasuryPayment(c) => economy::treasury::decide_paid(plan, c),
    }
}

/// The events of one command while they are decided, at the end of the caller's buffer.
pub(crate) struct Plan<'a> {
    pub(crate) state: &'a State,
    pub(crate) now_us: u64,
    opened: Vec<OpenedLedgerAccount>,
    /// Of the next event.
    header: Header,
    events: &'a mut Vec<Event>,
}

/// The legs of one event.
#[derive(Default)]
pub(crate) struct Legs {
    pub(crate) postings: event::Legs,
    pub(crate) pending: event::Legs,
}

impl<'a> Plan<'a> {
    /// The settings in force; commands come here only after the network was opened.
    pub(crate) fn settings(&self) -> Result<&'a Settings, Refusal> {
        self.state.settings().ok_or(Refusal::NetworkNotOpened {})
    }

    /// Books a leg (positive debits); nothing for zero. Opens the ledger account when this is its first leg.
    pub(crate) fn post(&mut self, legs: &mut Legs, key: BookKey, amount: i128) -> Result<(), Refusal> {
        if amount != 0 {
            let account = self.ledger_account(key)?;
            legs.postings.push(Posting { account, amount: Amount(amount) });
        }
        Ok(())
    }

    /// Reserves by a leg (positive debits), or releases by its opposite.
    pub(crate) fn reserve(&mut self, legs: &mut Legs, key: BookKey, amount: i128) -> Result<(), Refusal> {
        if amount != 0 {
            let account = self.ledger_account(key)?;
            legs.pending.push(Posting { account, amount: Amount(amount) });
        }
        Ok(())
    }

    /// Adds an event without legs.
    #[inline]
    pub(crate) fn emit(&mut self, body: impl Into<EventBody>) {
        self.emit_with(body, Legs::default());
    }

    /// Adds an event with its legs. Inlined, so that a small body is not copied at the size of the largest.
    #[inline(always)]
    pub(crate) fn emit_with(&mut self, body: impl Into<EventBody>, legs: Legs) {
        let Legs { postings, pending } = legs;
        let (header, body) = (self.header, body.into());
        self.events.push(Event { version: EVENT_VERSION, header, body, postings, pending });
        self.header.leaf += 1;
    }

    fn ledger_account(&mut self, key: BookKey) -> Result<LedgerAccount, Refusal> {
        if let Some(number) = self.state.books.find(&self.state.accounts, key) {
            return Ok(number);
        }
        let BookKey { owner, kind, asset } = key;
        let owner = self.state.accounts.id(owner);
        let same = |o: &&OpenedLedgerAccount| (o.owner, o.kind, o.asset) == (owner, kind, asset);
        if let Some(opened) = self.opened.iter().find(same) {
            return Ok(opened.number);
        }
        let number = u32::try_from(self.state.books.count() + self.opened.len());
        let number = LedgerAccount(number.map_err(|_| Refusal::Overflow { what: "ledger account number" })?);
        self.opened.push(OpenedLedgerAccount { number, owner, kind, asset });
        Ok(number)
    }

    fn finish(&mut self, before: usize) -> Result<(), Refusal> {
        if !self.opened.is_empty() {
            let opened = LedgerAccountsOpened { opened: std::mem::take(&mut self.opened) };
            self.emit(opened);
            // Numbers come before the legs that use them.
            self.events[before..].rotate_right(1);
            for (event, leaf) in self.events[before..].iter_mut().zip(self.state.next_leaf..) {
                event.header.leaf = leaf;
            }
        }
        assert!(self.events.len() > before, "an accepted command leaves at least one event");
        for event in &self.events[before..] {
            check_range(self.state, event)?;
            check_size(event)?;
        }
        Ok(())
    }
}

/// No counter may come near the end of 128 bits: `apply` must never overflow on what was decided here.
fn check_range(state: &State, event: &Event) -> Result<(), Refusal> {
    let overflow = Refusal::Overflow { what: "a ledger account's counter" };
    for posting in event.postings.iter().chain(&event.pending) {
        let counter_max = state.books.counters(posting.account).map_or(0, |row| row.largest());
        if posting.amount.0.unsigned_abs() > LEG_MAX as u128 || counter_max > COUNTER_MAX {
            return Err(overflow);
        }
    }
    Ok(())
}

/// No event about a hold or a charge is larger: legs and slices have at most 25 bytes each (a head, a number of 32 bits, a
/// bignum of 128), names at most 128, and everything else has a fixed size far below the rest.
fn legs_bytes_max(event: &Event, slices: usize) -> usize {
    2_048 + 32 * (event.postings.len() + event.pending.len() + slices)
}

/// Only bodies with lists or free text can outgrow an entry of the transparency log; the others have fixed sizes.
fn check_size(event: &Event) -> Result<(), Refusal> {
    use EventBody::*;
    let open_ended = match &event.body {
        NetworkOpened(_)
        | RateCardPublished(_)
        | GrantIssued(_)
        | NodeRegistered(_)
        | BatchClosed(_)
        | BatchFailed(_)
        | LedgerAccountsOpened(_)
        | EconomyPublished(_)
        | OperatorStruck(_)
        | TreasuryEpochClosed(_) => true,
        HoldPlaced(e) => legs_bytes_max(event, e.slices.len()) > EVENT_BYTES_MAX,
        HoldExtended(e) => legs_bytes_max(event, e.slices.len()) > EVENT_BYTES_MAX,
        UsageCaptured(e) => legs_bytes_max(event, e.slices.len()) > EVENT_BYTES_MAX,
        // Every slice of every part can come back.
        CaptureReversed(_) => legs_bytes_max(event, 0) > EVENT_BYTES_MAX,
        WriterChanged(_)
        | VaultRegistered(_)
        | AccountOpened(_)
        | SpendAuthorised(_)
        | AccountClosed(_)
        | DepositConfirmed(_)
        | DepositAttributed(_)
        | DepositReversed(_)
        | ExitRequested(_)
        | ExitCancelled(_)
        | ExitFinalised(_)
        | VoucherIssued(_)
        | VoucherRedeemed(_)
        | VoucherLapsed(_)
        | CheckpointAnchored(_)
        | GrantExpired(_)
        | HoldVoided(_)
        | HoldExpired(_)
        | JobDispatched(_)
        | SpendCapSet(_)
        | CreditLineSet(_)
        | CreditRepaid(_)
        | CreditMoved(_)
        | EarningsTaken(_)
        | OperatorRegistered(_)
        | NodeRetired(_)
        | BatchSubmitted(_)
        | BatchConfirmed(_)
        | BatchReplaced(_)
        | SolvencyChecked(_)
        | PayoutClaimed(_)
        | AllotmentDayOpened(_)
        | StakeAllotted(_)
        | SignUpCredited(_)
        | BountyPublished(_)
        | BountyPaid(_)
        | BountyTakenBack(_)
        | PayoutCutStarted(_)
        | JobShareSet(_)
        | FallbackMarked(_)
        | UptimeNoted(_)
        | ServiceMeasured(_)
        | TreasuryEpochPaid(_) => false,
    };
    if open_ended && let Err(codec::CodecError::TooLarge { bytes }) = codec::encode_event(event) {
        return Err(Refusal::EventTooLarge { bytes: bytes as u64 });
    }
    Ok(())
}
