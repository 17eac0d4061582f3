//! One event in a sentence, with its legs in words: for `ledger describe`, pages and statements.

use crate::fold::Books;
use protocol::amount::Amount;
use protocol::asset::{Asset, AssetId};
use protocol::event::account::AccountKind;
use protocol::event::{Event, EventBody, Posting};

/// The sentence and the legs, one line each.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct Description {
    /// What happened.
    pub sentence: String,
    /// `debit 0.00568 FOIL  customer_deposited:FOIL:acct_...`
    pub legs: Vec<String>,
}

/// Describes an event; `books` must have taken in everything up to and including it.
pub fn describe(books: &Books, event: &Event) -> Description {
    let mut legs = Vec::new();
    for (layer, postings) in [("", &event.postings), (" (reserved)", &event.pending)] {
        legs.extend(postings.iter().map(|posting| leg(books, posting, layer)));
    }
    Description { sentence: sentence(books, event), legs }
}

fn leg(books: &Books, posting: &Posting, layer: &str) -> String {
    let side = if posting.amount.0 >= 0 { "debit" } else { "credit" };
    let asset = books.account(posting.account).and_then(|a| books.asset(a.opened.asset));
    let amount = money(asset, Amount(posting.amount.0.abs()));
    format!("{side:6} {amount}{layer}  {}", books.name(posting.account))
}

fn money(asset: Option<&Asset>, amount: Amount) -> String {
    match asset {
        Some(asset) => format!("{} {}", amount.to_decimal_string(asset.ledger_scale), asset.symbol),
        None => format!("{} base units", amount.0),
    }
}

/// The asset of an event's first leg: the one its figures are in.
fn leg_asset<'a>(books: &'a Books, event: &Event) -> Option<&'a Asset> {
    let posting = event.postings.first().or(event.pending.first())?;
    books.asset(books.account(posting.account)?.opened.asset)
}

fn sentence(books: &Books, event: &Event) -> String {
    use EventBody::*;
    let asset = |id: AssetId| books.asset(id);
    let figure = |amount: Amount| money(leg_asset(books, event), amount);
    match &event.body {
        NetworkOpened(_) | WriterChanged(_) | RateCardPublished(_) | VaultRegistered(_) => {
            policy_sentence(event)
        }
        AccountOpened(_)
        | LedgerAccountsOpened(_)
        | SpendAuthorised(_)
        | AccountClosed(_)
        | SpendCapSet(_)
        | CreditLineSet(_)
        | CreditRepaid(_) => account_sentence(event),
        DepositConfirmed(_)
        | DepositAttributed(_)
        | DepositReversed(_)
        | ExitRequested(_)
        | ExitCancelled(_)
        | ExitFinalised(_)
        | VoucherIssued(_)
        | VoucherRedeemed(_)
        | VoucherLapsed(_)
        | CheckpointAnchored(_) => chain_sentence(event, &figure),
        GrantIssued(e) => format!(
            "Grant {} of {} was opened for {} ({:?}, priority {}).",
            e.grant.0,
            money(asset(e.asset), e.amount),
            e.account,
            e.source,
            e.priority
        ),
        CreditMoved(e) => {
            format!("{} moved from grant {} to grant {}.", figure(e.amount), e.from.0, e.to.0)
        }
        GrantExpired(e) => format!("Grant {} ended; {} lapsed.", e.grant.0, figure(e.lapsed)),
        HoldPlaced(e) => format!(
            "{} was held from {} for {}: at most {} input and {} output units of {} under rate card {}.",
            money(asset(e.asset), e.amount),
            e.account,
            e.job,
            e.input_units,
            e.output_units_max,
            e.model,
            e.rate_card_version
        ),
        HoldExtended(e) => format!(
            "Hold {} grew by {}, to at most {} output units.",
            e.hold,
            figure(e.amount),
            e.output_units_max
        ),
        HoldVoided(e) => format!("Hold {} was released without a charge ({:?}).", e.hold, e.reason),
        HoldExpired(e) => format!("Hold {} ran out and was released.", e.hold),
        JobDispatched(_) | UsageCaptured(_) | CaptureReversed(_) => job_sentence(event, &figure),
        OperatorRegistered(e) => {
            format!(
                "Operator {} registered; {} earns, claims go to {}.",
                e.operator, e.account, e.payout_address
            )
        }
        NodeRegistered(e) => {
            format!(
                "Node {} of {} serves {} with {} slots.",
                e.node,
                e.operator,
                e.models.join(", "),
                e.slots
            )
        }
        NodeRetired(e) => format!("Node {} left.", e.node),
        BatchClosed(_) | BatchSubmitted(_) | BatchConfirmed(_) | BatchFailed(_) | PayoutClaimed(_) => {
            batch_sentence(event, &figure)
        }
    }
}

fn policy_sentence(event: &Event) -> String {
    match &event.body {
        EventBody::NetworkOpened(e) => format!("The log {} of preset {} began.", e.origin, e.preset),
        EventBody::WriterChanged(e) => format!("A writer took over; term {}.", e.epoch),
        EventBody::RateCardPublished(e) => {
            format!("Rate card {} with {} models was published.", e.card.version, e.card.models.len())
        }
        EventBody::VaultRegistered(e) => {
            format!("Vault {} on chain {} was registered.", e.vault.vault, e.vault.chain_id)
        }
        other => other.kind().replace('_', " "),
    }
}

fn account_sentence(event: &Event) -> String {
    match &event.body {
        EventBody::AccountOpened(e) => format!("Account {} was opened.", e.account),
        EventBody::LedgerAccountsOpened(e) => {
            let kinds: Vec<&str> = e.opened.iter().map(|o| AccountKind::name(o.kind)).collect();
            format!("Ledger accounts were opened: {}.", kinds.join(", "))
        }
        EventBody::SpendAuthorised(e) => format!(
            "Wallet {} authorised {} to spend up to {} vault units in all, until {} s UTC.",
            e.wallet, e.account, e.max_cumulative_units, e.valid_until_s
        ),
        EventBody::AccountClosed(e) => format!("Account {} was closed.", e.account),
        EventBody::SpendCapSet(e) => match e.cap {
            Some(cap) => format!("Key {} of {} may spend {} base units in all.", e.spender, e.account, cap.0),
            None => format!("Key {} of {} may spend without a cap.", e.spender, e.account),
        },
        EventBody::CreditLineSet(e) => {
            format!("Credit line {} was set to {} base units.", e.grant.0, e.limit.0)
        }
        EventBody::CreditRepaid(e) => {
            format!("{} base units drawn from credit line {} were paid.", e.amount.0, e.grant.0)
        }
        other => other.kind().replace('_', " "),
    }
}

fn chain_sentence(event: &Event, figure: &dyn Fn(Amount) -> String) -> String {
    match &event.body {
        EventBody::DepositConfirmed(e) => {
            let whose = e.account.map_or("no account yet".to_owned(), |a| a.to_string());
            format!(
                "{} deposited by wallet {} in block {} was mirrored to {whose}.",
                figure(e.amount),
                e.wallet,
                e.block
            )
        }
        EventBody::DepositAttributed(e) => {
            format!("{} that wallet {} had deposited went to {}.", figure(e.amount), e.wallet, e.account)
        }
        EventBody::DepositReversed(e) => {
            format!("A deposit vanished: {} taken back, {} owed.", figure(e.taken), figure(e.owed))
        }
        EventBody::ExitRequested(e) => format!("Wallet {} asked the vault to leave.", e.wallet),
        EventBody::ExitCancelled(e) => format!("Wallet {} stays after all.", e.wallet),
        EventBody::ExitFinalised(e) => format!("Wallet {} left with {}.", e.wallet, figure(e.amount)),
        EventBody::VoucherIssued(e) => {
            format!("{} was reserved for withdrawal {} by wallet {}.", figure(e.amount), e.voucher, e.wallet)
        }
        EventBody::VoucherRedeemed(e) => format!("Withdrawal {} was paid in {}.", e.voucher, e.tx),
        EventBody::VoucherLapsed(e) => format!("Withdrawal {} was not used in time.", e.voucher),
        EventBody::CheckpointAnchored(e) => {
            format!("The checkpoint of size {} stands on chain {}.", e.size, e.chain_id)
        }
        other => other.kind().replace('_', " "),
    }
}

fn job_sentence(event: &Event, figure: &dyn Fn(Amount) -> String) -> String {
    match &event.body {
        EventBody::JobDispatched(e) => {
            format!("{} went to node {} of {} (attempt {}).", e.job, e.node, e.operator, e.attempt)
        }
        EventBody::UsageCaptured(e) => format!(
            "{} cost {} for {} input and {} output units; {} to the operator, {} to the platform ({:?}).",
            e.job,
            figure(e.cost),
            e.input_units,
            e.output_units,
            figure(e.operator_share),
            figure(e.platform_share),
            e.outcome
        ),
        EventBody::CaptureReversed(e) => {
            format!("The charge of {} was undone; {} came back.", e.job, figure(e.refunded))
        }
        other => other.kind().replace('_', " "),
    }
}

fn batch_sentence(event: &Event, figure: &dyn Fn(Amount) -> String) -> String {
    match &event.body {
        EventBody::BatchClosed(e) => {
            let units: u64 = e.charges.iter().map(|c| c.added_units).sum();
            format!(
                "Batch {} ({}) closed before leaf {}: {} vault units from {} wallets to {} payees.",
                e.number,
                e.batch,
                e.cutoff_leaf,
                units,
                e.charges.len(),
                e.payouts.len()
            )
        }
        EventBody::BatchSubmitted(e) => {
            format!("Batch {} got payout root {} over log size {}.", e.batch, e.payout_root, e.tlog_size)
        }
        EventBody::BatchConfirmed(e) => {
            format!(
                "Batch {} is final: {} charged in {} (block {}).",
                e.batch,
                figure(e.amount),
                e.tx,
                e.block
            )
        }
        EventBody::BatchFailed(e) => format!("Batch {} was withdrawn: {}.", e.batch, e.reason),
        EventBody::PayoutClaimed(e) => {
            format!("{} was paid to {} for {}.", figure(e.amount), e.address, e.account)
        }
        other => other.kind().replace('_', " "),
    }
}
