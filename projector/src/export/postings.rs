//! Postings as CSV: one row a booked leg. RFC 4180, UTF-8, LF, amounts as integers of base units with their scale.
//! Lines before the header begin with `#`.

use super::legs::Legs;
use super::period::corrections;
use super::{DEBIT_CREDIT, ExportError, Provenance, provenance_lines};
use crate::time::Clock;
use protocol::event::Event;
use std::io::Write;

/// The columns, in order.
pub const COLUMNS: &str = "seq,event_id,event_type,ts,job_id,batch_id,account,asset,amount_base,scale";

/// The whole file.
pub fn csv(events: &[Event], provenance: &Provenance) -> Result<String, ExportError> {
    let mut bytes = Vec::new();
    write(events, provenance, &mut bytes)?;
    Ok(String::from_utf8(bytes).expect("names and figures are UTF-8"))
}

/// The same into a file, row by row.
pub fn write(events: &[Event], provenance: &Provenance, file: &mut impl Write) -> Result<(), ExportError> {
    let legs = Legs::of(events, provenance)?;
    let mut extra = legs.control_lines();
    extra.extend(corrections(events, provenance));
    let head = provenance_lines("#", ("postings", DEBIT_CREDIT), provenance, &extra);
    writeln!(file, "{head}{COLUMNS}")?;
    let mut clock = Clock::default();
    for booked in legs.booked() {
        let header = &booked.event.header;
        // What all legs of an event begin with.
        let (shard, leaf, kind) = (header.shard, header.leaf, booked.event.body.kind());
        let time = clock.rfc3339(header.time_us);
        let begin = format!("{leaf},{shard}.{leaf},{kind},{time},{},{},", booked.job, booked.batch);
        for posting in &booked.event.postings {
            let words = legs.words(posting);
            writeln!(file, "{begin}{},{},{},{}", words.name, words.asset, posting.amount.0, words.scale)?;
        }
    }
    Ok(())
}
