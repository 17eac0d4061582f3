//! What a customer's invoice is made of: what was served to an account, by model and price list, and what paid for it. It is
//! data for whoever writes invoices; tax is theirs.

use super::{ExportError, Provenance, booked, cell, provenance_lines};
use protocol::amount::Amount;
use protocol::asset::Asset;
use protocol::event::grant::GrantSource;
use protocol::event::{Event, EventBody, GrantId};
use protocol::id::{AccountId, HoldId, JobId};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write;

/// What lines are summed over: asset, model, price list.
type LineKey = (u32, String, u32);

/// One line: a model at one price list.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct InvoiceLine {
    /// Jobs charged, less those undone.
    pub jobs: i64,
    /// Input units.
    pub input_units: i128,
    /// Output units.
    pub output_units: i128,
    /// What they cost.
    pub amount: Amount,
}

/// An account's charges in the file's period.
#[derive(Clone, Debug)]
pub struct Invoice<'a> {
    account: AccountId,
    assets: Vec<Asset>,
    lines: BTreeMap<LineKey, InvoiceLine>,
    paid_by: BTreeMap<(u32, String), Amount>,
    corrections: Vec<String>,
    provenance: &'a Provenance,
}

/// A hold of the account, as far as invoices need it.
struct Held {
    key: LineKey,
}

/// A charge of the account.
struct Charged {
    key: LineKey,
    units: (i128, i128),
}

impl<'a> Invoice<'a> {
    /// Folds the events.
    pub fn of(
        account: AccountId,
        events: &[Event],
        provenance: &'a Provenance,
    ) -> Result<Invoice<'a>, ExportError> {
        let books = booked(events)?;
        let mut invoice = Invoice {
            account,
            assets: books.assets().to_vec(),
            lines: BTreeMap::new(),
            paid_by: BTreeMap::new(),
            corrections: super::period::corrections_of(account, &books, events, provenance),
            provenance,
        };
        let mut known = false;
        let mut holds: BTreeMap<HoldId, Held> = BTreeMap::new();
        let mut charged: BTreeMap<JobId, Charged> = BTreeMap::new();
        let mut sources: BTreeMap<GrantId, GrantSource> = BTreeMap::new();
        for event in events {
            match &event.body {
                EventBody::AccountOpened(e) => known |= e.account == account,
                EventBody::GrantIssued(e) if e.account == account => {
                    sources.insert(e.grant, e.source);
                }
                EventBody::HoldPlaced(e) if e.account == account => {
                    holds.insert(e.hold, Held { key: (e.asset.0, e.model.clone(), e.rate_card_version) });
                }
                EventBody::UsageCaptured(e) => {
                    let Some(held) = holds.get(&e.hold) else { continue };
                    let units = (i128::from(e.input_units), i128::from(e.output_units));
                    let before = charged
                        .entry(e.job)
                        .or_insert_with(|| Charged { key: held.key.clone(), units: (0, 0) });
                    before.units = (before.units.0 + units.0, before.units.1 + units.1);
                    if !provenance.holds(event) {
                        continue;
                    }
                    // Parts of one job are one job.
                    let is_first = e.part.as_ref().is_none_or(|part| part.number == 0);
                    invoice.add(&held.key, i64::from(is_first), units, e.cost);
                    for slice in e.slices.iter() {
                        let source =
                            sources.get(&slice.grant).map_or_else(String::new, |source| source_name(*source));
                        invoice.paid_by.entry((held.key.0, source)).or_default().0 += slice.amount.0;
                    }
                }
                EventBody::CaptureReversed(e) if provenance.holds(event) => {
                    let Some(Charged { key, units }) = charged.get(&e.job) else { continue };
                    invoice.add(key, -1, (-units.0, -units.1), -e.refunded);
                    invoice.paid_by.entry((key.0, "refunded".to_owned())).or_default().0 -= e.refunded.0;
                }
                _ => {}
            }
        }
        if known { Ok(invoice) } else { Err(ExportError::UnknownAccount(account)) }
    }

    fn add(&mut self, key: &LineKey, jobs: i64, units: (i128, i128), amount: Amount) {
        let line = self.lines.entry(key.clone()).or_default();
        line.jobs += jobs;
        line.input_units += units.0;
        line.output_units += units.1;
        line.amount.0 += amount.0;
    }

    fn symbol(&self, asset: u32) -> (&str, u8) {
        self.assets.get(asset as usize).map_or(("?", 0), |a| (a.symbol.as_str(), a.ledger_scale))
    }

    fn totals(&self) -> BTreeMap<u32, Amount> {
        let mut totals: BTreeMap<u32, Amount> = BTreeMap::new();
        for ((asset, _, _), line) in &self.lines {
            totals.entry(*asset).or_default().0 += line.amount.0;
        }
        totals
    }

    /// One object; amounts are decimal strings.
    pub fn json(&self) -> String {
        let money = |asset: u32, amount: Amount| amount.to_decimal_string(self.symbol(asset).1);
        let lines = self.lines.iter().map(|((asset, model, card), line)| {
            json!({"model": model, "rate_card_version": card, "asset": self.symbol(*asset).0, "jobs": line.jobs,
                "input_units": line.input_units.to_string(), "output_units": line.output_units.to_string(),
                "amount": money(*asset, line.amount)})
        });
        let paid_by = self.paid_by.iter().map(|((asset, source), amount)| {
            json!({"asset": self.symbol(*asset).0, "source": source, "amount": money(*asset, *amount)})
        });
        let totals = self.totals();
        let totals = totals
            .iter()
            .map(|(asset, amount)| json!({"asset": self.symbol(*asset).0, "amount": money(*asset, *amount)}));
        let value = json!({"provenance": self.provenance.json("invoice"), "account": self.account,
            "number": self.number(), "lines": lines.collect::<Vec<Value>>(), "totals": totals.collect::<Vec<Value>>(),
            "paid_by": paid_by.collect::<Vec<Value>>(), "corrections": self.corrections});
        super::json_text(value)
    }

    /// One row a line, with totals in the header.
    pub fn csv(&self) -> String {
        let mut extra = vec![
            format!("account: {}", self.account),
            format!("number: {}", self.number()),
            format!("rows: {}", self.lines.len()),
        ];
        extra.extend(self.totals().iter().map(|(asset, amount)| {
            let (symbol, scale) = self.symbol(*asset);
            format!("control total {symbol}: {}", amount.to_decimal_string(scale))
        }));
        extra.extend(self.corrections.iter().cloned());
        let sign = ("invoice", "+ is what the account pays");
        let mut text = provenance_lines("#", sign, self.provenance, &extra);
        text.push_str("model,rate_card_version,asset,jobs,input_units,output_units,amount\n");
        for ((asset, model, card), line) in &self.lines {
            let (symbol, scale) = self.symbol(*asset);
            let amount = line.amount.to_decimal_string(scale);
            let (model, jobs) = (cell(model), line.jobs);
            writeln!(
                text,
                "{model},{card},{symbol},{jobs},{},{},{amount}",
                line.input_units, line.output_units
            )
            .expect("writing to a string");
        }
        text
    }

    /// The same for the same account and period, whoever writes it.
    fn number(&self) -> String {
        let period = self.provenance.period.as_ref().map_or("all", |period| period.name.as_str());
        let account = self.account.to_string();
        format!("{period}-{}", account.rsplit('_').next().unwrap_or_default())
    }
}

/// As JSON and our events call it: `deposited`, `promo`.
fn source_name(source: GrantSource) -> String {
    match serde_json::to_value(source) {
        Ok(Value::String(name)) => name,
        _ => "unknown".to_owned(),
    }
}
