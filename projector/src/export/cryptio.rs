//! Movements of tokens for Cryptio: what entered and left the network's contracts, by transaction. Between our own contracts
//! (a batch moves from the vault to the pot) nothing moves for finance.

use super::fiat::{RATE_SCALE, Rates};
use super::legs::Legs;
use super::{ExportError, Provenance, cell};
use crate::time::rfc3339;
use protocol::amount::Amount;
use protocol::asset::AssetId;
use protocol::event::account::AccountKind;
use protocol::event::{Event, EventBody};
use std::collections::BTreeMap;
use std::fmt::Write;

/// The columns, in order.
pub const COLUMNS: &str = "transactionDate,orderType,txhash,incomingAsset,incomingVolume,incomingUnitRate,\
incomingTransactionValue,outgoingAsset,outgoingVolume,outgoingUnitRate,outgoingTransactionValue,feeAsset,feeVolume,\
feeUnitRate,feeTransactionValue,otherParties,note";

/// The whole file; a unit rate stands where one was given.
pub fn csv(events: &[Event], provenance: &Provenance, rates: Option<&Rates>) -> Result<String, ExportError> {
    let legs = Legs::of(events, provenance)?;
    let books = legs.books();
    let mut text = format!("{COLUMNS}\n");
    for event in legs.events() {
        let mut moved: BTreeMap<u32, i128> = BTreeMap::new();
        for posting in &event.postings {
            let Some(account) = books.account(posting.account) else { continue };
            if matches!(account.opened.kind, AccountKind::VaultAsset | AccountKind::PotAsset) {
                *moved.entry(account.opened.asset.0).or_default() += posting.amount.0;
            }
        }
        for (asset, amount) in moved.into_iter().filter(|(_, amount)| *amount != 0) {
            let Some(asset) = books.asset(AssetId(asset)) else { continue };
            let volume = Amount(amount.abs()).to_decimal_string(asset.ledger_scale);
            let rate = rates.and_then(|rates| rates.by_asset.get(&asset.symbol));
            let rate = rate.map_or_else(String::new, |rate| rate.to_decimal_string(RATE_SCALE));
            let side = format!("{},{volume},{rate},", cell(&asset.symbol));
            let (kind, sides) = match amount > 0 {
                true => ("deposit", format!("{side},,,,")),
                false => ("withdraw", format!(",,,,{side}")),
            };
            let (tx, party) = transaction(&event.body);
            // Their form of a time has no fraction: `YYYY-MM-DD HH:MM:SS`, UTC.
            let time = rfc3339(event.header.time_us)[..19].replace('T', " ");
            let note = format!("event {}.{} {}", event.header.shard, event.header.leaf, event.body.kind());
            writeln!(text, "{time},{kind},{tx},{sides},,,,{},{}", cell(&party), cell(&note))
                .expect("writing to a string");
        }
    }
    Ok(text)
}

/// Transaction and the other party's address, where the event names them.
fn transaction(body: &EventBody) -> (String, String) {
    match body {
        EventBody::DepositConfirmed(e) => (e.key.tx.to_string(), e.wallet.to_string()),
        EventBody::DepositReversed(e) => (e.key.tx.to_string(), String::new()),
        EventBody::VoucherRedeemed(e) => (e.tx.to_string(), String::new()),
        EventBody::ExitFinalised(e) => (e.tx.to_string(), e.wallet.to_string()),
        EventBody::PayoutClaimed(e) => (e.tx.to_string(), e.address.to_string()),
        _ => (String::new(), String::new()),
    }
}
