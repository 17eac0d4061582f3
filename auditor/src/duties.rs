//! `audit sod`: segregation of duties. Who did what, from the actor in every event; what somebody did that is another
//! role's, or for an account that is not theirs; and who stands on both sides.

use crate::checks::CheckKind;
use crate::copy::LogCopy;
use crate::error::AuditError;
use crate::log::each_event;
use crate::report::{Checks, Finding, Item, Report};
use crate::verify::{head, load_policy};
use protocol::event::grant::GrantSource;
use protocol::event::{Actor, Event, EventBody, GrantId};
use protocol::id::{AccountId, EvmAddress, HoldId, JobId, OperatorId};
use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

/// What to look through.
pub struct DutiesOptions {
    /// A fetched copy, or a data directory.
    pub directory: PathBuf,
    /// The policy file; a fetched copy keeps its own.
    pub policy: Option<PathBuf>,
}

/// Looks at the actor of every event. Never prints.
pub fn duties(options: &DutiesOptions) -> Result<Report, AuditError> {
    let copy = LogCopy::open(&options.directory)?;
    let mut report = Report::begin("sod");
    let mut checks = Checks::default();
    let policy = load_policy(&copy, options.policy.as_deref(), &mut report)?;
    let Some(signed) = head(&copy, policy.as_ref(), &mut checks, &mut report)? else {
        return Ok(report.end(checks));
    };
    let mut seen = Seen::default();
    let walked = each_event(&copy, signed.checkpoint.size, |leaf, event, _| {
        seen.event(leaf, event, &mut checks);
        report.events += 1;
    });
    if let Err(fault) = walked {
        checks.of(CheckKind::Entries).fail_because(
            "every entry under the checkpoint",
            fault,
            "an entry is missing",
        );
    }
    for ((role, kind), count) in seen.matrix {
        report.items.push(Item {
            what: role.to_owned(),
            note: format!("{kind}: {count}"),
            ..Item::default()
        });
    }
    Ok(report.end(checks))
}

fn role(actor: &Actor) -> &'static str {
    match actor {
        Actor::Writer => "writer",
        Actor::Admin => "admin",
        Actor::Account(_) => "account",
        Actor::Gateway => "gateway",
        Actor::Watcher => "watcher",
        Actor::Settler => "settler",
        Actor::Operator(_) => "operator",
        Actor::Verifier => "verifier",
    }
}

/// The roles whose duty a kind of event is (`specs/audit.md`, 8); empty = anybody's, it follows from another event.
fn duty(body: &EventBody) -> &'static [&'static str] {
    match body {
        EventBody::LedgerAccountsOpened(_) => &[],
        EventBody::GrantIssued(grant) if grant.amount.0 == 0 => &[],
        // A package is bought on the chain.
        EventBody::GrantIssued(grant) if grant.source == GrantSource::Package => &["admin", "watcher"],
        EventBody::GrantIssued(grant) if grant.source == GrantSource::Allotment => &["admin", "watcher"],
        EventBody::GrantIssued(grant) if grant.source == GrantSource::Promo => &["admin", "gateway"],
        EventBody::NetworkOpened(_) | EventBody::WriterChanged(_) => &["writer"],
        EventBody::GrantExpired(_) | EventBody::HoldExpired(_) => &["writer", "gateway"],
        EventBody::RateCardPublished(_)
        | EventBody::VaultRegistered(_)
        | EventBody::GrantIssued(_)
        | EventBody::CreditLineSet(_)
        | EventBody::CreditRepaid(_) => &["admin"],
        EventBody::AccountOpened(_) => &["gateway", "admin", "account", "watcher"],
        EventBody::AccountClosed(_)
        | EventBody::SpendCapSet(_)
        | EventBody::CreditMoved(_)
        | EventBody::EarningsTaken(_) => &["account", "admin"],
        EventBody::SpendAuthorised(_) | EventBody::DepositAttributed(_) => &["account", "watcher"],
        EventBody::VoucherIssued(_) => &["account"],
        EventBody::DepositConfirmed(_)
        | EventBody::DepositReversed(_)
        | EventBody::ExitRequested(_)
        | EventBody::ExitCancelled(_)
        | EventBody::ExitFinalised(_)
        | EventBody::VoucherRedeemed(_)
        | EventBody::VoucherLapsed(_)
        | EventBody::SolvencyChecked(_)
        | EventBody::PayoutClaimed(_) => &["watcher"],
        EventBody::HoldPlaced(_) | EventBody::HoldExtended(_) | EventBody::JobDispatched(_) => {
            &["account", "gateway"]
        }
        EventBody::HoldVoided(_) | EventBody::UsageCaptured(_) => &["gateway"],
        EventBody::CaptureReversed(_) => &["verifier", "admin"],
        EventBody::OperatorRegistered(_) | EventBody::NodeRegistered(_) | EventBody::NodeRetired(_) => {
            &["operator", "admin"]
        }
        EventBody::BatchClosed(_) | EventBody::BatchSubmitted(_) | EventBody::BatchReplaced(_) => {
            &["settler"]
        }
        EventBody::BatchConfirmed(_) | EventBody::BatchFailed(_) => &["settler", "watcher"],
        EventBody::CheckpointAnchored(_) => &["settler", "watcher"],
        // They follow from the event beside them.
        EventBody::BountyPaid(_)
        | EventBody::BountyTakenBack(_)
        | EventBody::PayoutCutStarted(_)
        | EventBody::JobShareSet(_) => &[],
        EventBody::EconomyPublished(_) | EventBody::FallbackMarked(_) => &["admin"],
        EventBody::AllotmentDayOpened(_) | EventBody::StakeAllotted(_) => &["watcher", "admin"],
        EventBody::SignUpCredited(_) => &["gateway", "admin"],
        EventBody::BountyPublished(_) | EventBody::UptimeNoted(_) | EventBody::ServiceMeasured(_) => {
            &["gateway", "admin"]
        }
        EventBody::OperatorStruck(_) => &["verifier", "admin"],
        EventBody::TreasuryEpochClosed(_) | EventBody::TreasuryEpochPaid(_) => &["settler", "watcher"],
    }
}

#[derive(Default)]
struct Seen {
    matrix: BTreeMap<(&'static str, &'static str), u64>,
    grants: HashMap<GrantId, AccountId>,
    jobs: HashMap<JobId, AccountId>,
    holds: HashMap<HoldId, AccountId>,
    operators: HashMap<OperatorId, AccountId>,
    /// Who registered which payout address.
    platforms: Vec<EvmAddress>,
}

impl Seen {
    fn event(&mut self, leaf: u64, event: &Event, checks: &mut Checks) {
        let (actor, kind) = (&event.header.actor, event.body.kind());
        *self.matrix.entry((role(actor), kind)).or_default() += 1;
        checks.of(CheckKind::Duties).examine();
        let allowed = duty(&event.body);
        if !allowed.is_empty() && !allowed.contains(&role(actor)) {
            let message = format!("a {} did what is another's duty: {kind}", role(actor));
            fail(checks, CheckKind::Duties, leaf, allowed.join(" or "), role(actor), message);
        }
        if let (Actor::Account(own), Some(account)) = (actor, self.account_of(&event.body))
            && *own != account
        {
            let message = format!("an account did {kind} for another");
            fail(checks, CheckKind::Duties, leaf, account.to_string(), &own.to_string(), message);
        }
        if let (Actor::Operator(own), Some(operator)) = (actor, operator_of(&event.body))
            && *own != operator
        {
            let message = format!("an operator did {kind} for another");
            fail(checks, CheckKind::Duties, leaf, operator.to_string(), &own.to_string(), message);
        }
        self.both_sides(leaf, &event.body, checks);
    }

    /// The account that an event is about, and remembers what later events will name.
    fn account_of(&mut self, body: &EventBody) -> Option<AccountId> {
        match body {
            EventBody::SpendAuthorised(e) => Some(e.account),
            EventBody::AccountClosed(e) => Some(e.account),
            EventBody::SpendCapSet(e) => Some(e.account),
            EventBody::VoucherIssued(e) => Some(e.account),
            EventBody::HoldPlaced(e) => {
                self.jobs.insert(e.job, e.account);
                self.holds.insert(e.hold, e.account);
                Some(e.account)
            }
            EventBody::HoldExtended(e) => self.holds.get(&e.hold).copied(),
            EventBody::JobDispatched(e) => self.jobs.get(&e.job).copied(),
            EventBody::CreditMoved(e) => self.grants.get(&e.from).copied(),
            EventBody::EarningsTaken(e) => self.grants.get(&e.grant).copied(),
            EventBody::GrantIssued(e) => {
                self.grants.insert(e.grant, e.account);
                Some(e.account)
            }
            _ => None,
        }
    }

    /// Who pays and is paid, and who is paid as operator and as platform.
    fn both_sides(&mut self, leaf: u64, body: &EventBody, checks: &mut Checks) {
        match body {
            EventBody::VaultRegistered(e) => self.platforms.push(e.platform),
            EventBody::OperatorRegistered(e) => {
                self.operators.insert(e.operator, e.account);
                checks.of(CheckKind::BothSides).examine();
                if self.platforms.contains(&e.payout_address) {
                    let (address, message) =
                        (e.payout_address.to_string(), "an operator is paid at the platform's address");
                    fail(
                        checks,
                        CheckKind::BothSides,
                        leaf,
                        "an address of its own".into(),
                        &address,
                        message.into(),
                    );
                }
            }
            EventBody::UsageCaptured(e) => {
                checks.of(CheckKind::BothSides).examine();
                let payer = self.jobs.get(&e.job);
                if payer.is_some() && payer == self.operators.get(&e.operator) {
                    let message = "an operator served its own account and was paid for it".to_owned();
                    fail(
                        checks,
                        CheckKind::BothSides,
                        leaf,
                        "another payer".into(),
                        &e.job.to_string(),
                        message,
                    );
                }
            }
            _ => {}
        }
    }
}

fn operator_of(body: &EventBody) -> Option<OperatorId> {
    match body {
        EventBody::NodeRegistered(e) => Some(e.operator),
        _ => None,
    }
}

fn fail(checks: &mut Checks, kind: CheckKind, leaf: u64, expected: String, actual: &str, message: String) {
    let actual = actual.to_owned();
    checks.of(kind).fail(Finding { leaf: Some(leaf), event_id: None, expected, actual, message });
}
