//! Postings as CSV: one row a booked leg. RFC 4180, UTF-8, LF, amounts as integers of base units with their scale.
//! Lines before the header begin with `#`.

use super::{DEBIT_CREDIT, ExportError, Provenance, booked, cell, provenance_lines, subjects};
use crate::names::Names;
use crate::time::rfc3339;
use protocol::event::Event;
use std::collections::BTreeMap;
use std::fmt::Write;

/// The columns, in order.
pub const COLUMNS: &str = "seq,event_id,event_type,ts,job_id,batch_id,account,asset,amount_base,scale";

/// The whole file.
pub fn csv(events: &[Event], provenance: &Provenance) -> Result<String, ExportError> {
    let books = booked(events)?;
    let mut rows = String::new();
    let mut count = 0u64;
    let mut debits: BTreeMap<String, i128> = BTreeMap::new();
    for event in events {
        let (job, batch) = subjects(event);
        for posting in &event.postings {
            let asset = books.account(posting.account).and_then(|a| books.asset(a.opened.asset));
            let (symbol, scale) = asset.map_or(("?", 0), |a| (a.symbol.as_str(), a.ledger_scale));
            *debits.entry(symbol.to_owned()).or_default() += posting.amount.0.max(0);
            let header = &event.header;
            writeln!(
                rows,
                "{},{}.{},{},{},{job},{batch},{},{symbol},{},{scale}",
                header.leaf,
                header.shard,
                header.leaf,
                event.body.kind(),
                rfc3339(header.time_us),
                cell(&books.name(posting.account)),
                posting.amount.0,
            )
            .expect("writing to a string");
            count += 1;
        }
    }
    let mut extra = vec![format!("rows: {count}")];
    extra.extend(
        debits.iter().map(|(asset, sum)| format!("control total {asset}: debits {sum} = credits {sum}")),
    );
    Ok(format!("{}{COLUMNS}\n{rows}", provenance_lines("#", ("postings", DEBIT_CREDIT), provenance, &extra)))
}
