//! One event explained to a person: a sentence, the arithmetic behind its figures, its legs in words, and the leaves of
//! the events it belongs with. For `ledger describe`, pages and statements. Must not: read the log (`Finder` does).

mod charge;
mod economy;
mod money;
mod network;
mod words;

use crate::names::Names;
use crate::subject::{self, Finder};
use protocol::amount::Amount;
use protocol::asset::{Asset, AssetId, VAULT_SCALE, VaultRef};
use protocol::event::chain::VaultRegistered;
use protocol::event::grant::GrantIssued;
use protocol::event::hold::HoldPlaced;
use protocol::event::{Event, EventBody, GrantId, Posting};
use protocol::id::{HoldId, JobId};
use protocol::rate::ModelRate;

/// What there is to say about one event.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct Description {
    /// What happened.
    pub sentence: String,
    /// How its figures follow: rate x units, shares, what was released. One line each; empty where nothing is computed.
    pub arithmetic: Vec<String>,
    /// Who got what, one line a leg; reserved legs say so.
    pub words: Vec<String>,
    /// `debit  0.00568 FOIL  customer_deposited:FOIL:acct_...`
    pub legs: Vec<String>,
    /// The events it belongs with, in the log's order.
    pub links: Vec<Link>,
}

/// Another event about the same thing.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct Link {
    /// Its leaf.
    pub leaf: u64,
    /// Its kind.
    pub kind: &'static str,
}

/// Explains an event with everything that the finder knows about it.
pub fn explain<F: Finder>(names: &dyn Names, finder: &F, event: &Event) -> Result<Description, F::Error> {
    Ok(describe(names, event, &subject::related(finder, event)?))
}

/// Explains an event; `related` are events of the same log about the same things. Without them figures that are not in
/// the event itself are left out.
pub fn describe(names: &dyn Names, event: &Event, related: &[Event]) -> Description {
    let teller = Teller { names, event, related };
    let mut legs = Vec::new();
    let mut words = Vec::new();
    for (layer, postings) in [("", &event.postings), (" (reserved)", &event.pending)] {
        legs.extend(postings.iter().map(|posting| leg(names, posting, layer)));
    }
    words.extend(event.postings.iter().map(|posting| words::booked(names, posting)));
    words.extend(event.pending.iter().filter_map(|posting| words::reserved(names, posting)));
    Description {
        sentence: teller.sentence(),
        arithmetic: teller.arithmetic(),
        words,
        legs,
        links: teller.links(),
    }
}

fn leg(names: &dyn Names, posting: &Posting, layer: &str) -> String {
    let side = if posting.amount.0 >= 0 { "debit" } else { "credit" };
    let amount = names.money_of(posting.account, absolute(posting.amount));
    format!("{side:6} {amount}{layer}  {}", names.name(posting.account))
}

fn absolute(amount: Amount) -> Amount {
    Amount(amount.0.saturating_abs())
}

/// One event, the log's names and what belongs with it.
struct Teller<'a> {
    names: &'a dyn Names,
    event: &'a Event,
    related: &'a [Event],
}

impl Teller<'_> {
    fn sentence(&self) -> String {
        use EventBody::*;
        match &self.event.body {
            NetworkOpened(_)
            | WriterChanged(_)
            | RateCardPublished(_)
            | CheckpointAnchored(_)
            | OperatorRegistered(_)
            | NodeRegistered(_)
            | NodeRetired(_)
            | AccountOpened(_)
            | AccountClosed(_)
            | LedgerAccountsOpened(_) => network::sentence(self),
            VaultRegistered(_) | SpendAuthorised(_) | SpendCapSet(_) | CreditLineSet(_) | CreditRepaid(_)
            | DepositConfirmed(_) | DepositAttributed(_) | DepositReversed(_) | ExitRequested(_)
            | ExitCancelled(_) | ExitFinalised(_) | VoucherIssued(_) | VoucherRedeemed(_)
            | VoucherLapsed(_) | GrantIssued(_) | GrantExpired(_) | CreditMoved(_) | EarningsTaken(_)
            | BatchClosed(_) | BatchSubmitted(_) | BatchConfirmed(_) | BatchFailed(_) | PayoutClaimed(_)
            | BatchReplaced(_) | SolvencyChecked(_) => money::sentence(self),
            HoldPlaced(_) | HoldVoided(_) | HoldExpired(_) | HoldExtended(_) | JobDispatched(_)
            | UsageCaptured(_) | CaptureReversed(_) => charge::sentence(self),
            EconomyPublished(_)
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
            | OperatorStruck(_)
            | ServiceMeasured(_)
            | TreasuryEpochClosed(_)
            | TreasuryEpochPaid(_) => economy::sentence(self),
        }
    }

    fn arithmetic(&self) -> Vec<String> {
        use EventBody::*;
        match &self.event.body {
            HoldPlaced(_) | HoldExtended(_) | UsageCaptured(_) | CaptureReversed(_) => {
                charge::arithmetic(self)
            }
            BatchClosed(_) => money::batch_lines(self),
            _ => Vec::new(),
        }
    }

    /// What explains it and what came of it; price lists, buckets and registrations are context, but for themselves.
    fn links(&self) -> Vec<Link> {
        let own = subject::belongs_to(&self.event.body);
        // What was undone is in no batch.
        let undone = self.bodies().any(|body| matches!(body, EventBody::CaptureReversed(_)));
        let life = |event: &&Event| {
            use EventBody::*;
            let same = subject::belongs_to(&event.body).iter().any(|subject| own.contains(subject));
            let job = match &event.body {
                HoldPlaced(_) | HoldVoided(_) | HoldExpired(_) | HoldExtended(_) | JobDispatched(_)
                | UsageCaptured(_) | CaptureReversed(_) => true,
                BatchClosed(_) => !undone,
                _ => false,
            };
            same || job
        };
        let link = |event: &Event| Link { leaf: event.header.leaf, kind: event.body.kind() };
        self.related.iter().filter(life).map(link).collect()
    }

    /// A figure in the asset of the event's first leg.
    fn figure(&self, amount: Amount) -> String {
        let posting = self.event.postings.first().or(self.event.pending.first());
        match posting {
            Some(posting) => self.names.money_of(posting.account, amount),
            None => format!("{} base units", amount.0),
        }
    }

    /// Vault units (1e-6) in the asset of the vault.
    fn units(&self, vault: VaultRef, units: u64) -> String {
        let asset = self.vault(vault).and_then(|v| self.names.asset(v.asset));
        units_of(asset.as_ref(), units)
    }

    fn bodies(&self) -> impl Iterator<Item = &EventBody> {
        self.related.iter().chain([self.event]).map(|event| &event.body)
    }

    fn vault(&self, vault: VaultRef) -> Option<&VaultRegistered> {
        self.bodies().find_map(|body| match body {
            EventBody::VaultRegistered(e) if e.vault == vault => Some(e),
            _ => None,
        })
    }

    fn grant(&self, grant: GrantId) -> Option<&GrantIssued> {
        self.bodies().find_map(|body| match body {
            EventBody::GrantIssued(e) if e.grant == grant => Some(e),
            _ => None,
        })
    }

    fn hold(&self, hold: HoldId) -> Option<&HoldPlaced> {
        self.bodies().find_map(|body| match body {
            EventBody::HoldPlaced(e) if e.hold == hold => Some(e),
            _ => None,
        })
    }

    fn hold_of_job(&self, job: JobId) -> Option<&HoldPlaced> {
        self.bodies().find_map(|body| match body {
            EventBody::HoldPlaced(e) if e.job == job => Some(e),
            _ => None,
        })
    }

    /// The price that a hold is pinned to.
    fn rate(&self, hold: &HoldPlaced) -> Option<&ModelRate> {
        self.bodies().find_map(|body| match body {
            EventBody::RateCardPublished(e) if e.card.version == hold.rate_card_version => {
                e.card.model(&hold.model)
            }
            _ => None,
        })
    }

    fn money(&self, asset: AssetId, amount: Amount) -> String {
        self.names.money(asset, amount)
    }
}

/// Vault units as a decimal of the asset they are units of.
fn units_of(asset: Option<&Asset>, units: u64) -> String {
    let text = Amount(i128::from(units)).to_decimal_string(VAULT_SCALE);
    match asset {
        Some(asset) => format!("{text} {}", asset.symbol),
        None => text,
    }
}

/// `1 wallet`, `2 wallets`.
fn counted(count: usize, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}
