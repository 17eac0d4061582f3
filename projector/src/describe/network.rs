//! Sentences about the network itself: how it began, who writes, what prices hold, who takes part.

use super::{Teller, counted};
use crate::time::rfc3339;
use protocol::event::EventBody;
use protocol::event::policy::{NetworkOpened, RateCardPublished};

pub(super) fn sentence(teller: &Teller<'_>) -> String {
    match &teller.event.body {
        EventBody::NetworkOpened(e) => opened(e),
        EventBody::WriterChanged(e) => format!("A writer took the log over; its term is {}.", e.epoch),
        EventBody::RateCardPublished(e) => card(teller, e),
        EventBody::CheckpointAnchored(e) => format!(
            "The head of the log at size {} was written to chain {} in transaction {}.",
            e.size, e.chain_id, e.tx
        ),
        EventBody::OperatorRegistered(e) => format!(
            "Operator {} registered: {} earns, claims are paid to {}.",
            e.operator, e.account, e.payout_address
        ),
        EventBody::NodeRegistered(e) => format!(
            "Operator {} registered {} for {}, with {}.",
            e.operator,
            e.node,
            e.models.join(", "),
            counted(e.slots as usize, "concurrent job")
        ),
        EventBody::NodeRetired(e) => format!("{} left for good.", e.node),
        EventBody::AccountOpened(e) => format!("{} was opened.", e.account),
        EventBody::AccountClosed(e) => {
            format!("{} was closed by its owner; the key of its contents is destroyed.", e.account)
        }
        EventBody::LedgerAccountsOpened(e) => {
            let names: Vec<String> = e.opened.iter().map(|o| teller.names.name(o.number)).collect();
            format!("{} opened: {}.", counted(e.opened.len(), "ledger account"), names.join(", "))
        }
        other => other.kind().replace('_', " "),
    }
}

fn opened(event: &NetworkOpened) -> String {
    let assets: Vec<&str> = event.assets.iter().map(|asset| asset.symbol.as_str()).collect();
    format!(
        "The log {} began, with preset {} and {} {}; it settles every {} s.",
        event.origin,
        event.preset,
        if assets.len() == 1 { "the asset" } else { "the assets" },
        assets.join(", "),
        event.settings.epoch_us / 1_000_000
    )
}

fn card(teller: &Teller<'_>, event: &RateCardPublished) -> String {
    let line = |rate: &protocol::rate::ModelRate| {
        let price = teller.money(rate.asset, rate.price);
        format!("{} at {price} per {}", rate.model, super::charge::per(rate))
    };
    let models: Vec<String> = event.card.models.iter().map(line).collect();
    format!(
        "Rate card {} was published, in force from {}: {}.",
        event.card.version,
        rfc3339(event.card.effective_us),
        models.join("; ")
    )
}
