//! Postings as Parquet: the columns of the CSV with their types, sorted by event, so that DuckDB, Spark or Trino read them as
//! a table. One file, or a folder of days (`day=2026-10-31/postings-<first event>.parquet`): a day that is over never changes.

use super::legs::{Booked, Legs};
use super::{ExportError, Provenance};
use crate::time::date;
use ::parquet::basic::{Compression, Encoding, ZstdLevel};
use ::parquet::data_type::{
    ByteArray, ByteArrayType, FixedLenByteArray, FixedLenByteArrayType, Int32Type, Int64Type,
};
use ::parquet::file::metadata::KeyValue;
use ::parquet::file::properties::{WriterProperties, WriterPropertiesPtr, WriterVersion};
use ::parquet::file::writer::{SerializedColumnWriter, SerializedFileWriter, SerializedRowGroupWriter};
use ::parquet::schema::parser::parse_message_type;
use ::parquet::schema::types::{ColumnPath, TypePtr};
use protocol::event::Event;
use std::io::Write;
use std::sync::Arc;

/// The table, as Parquet says it.
pub const SCHEMA: &str = "message posting {
    required int64 seq (integer(64,false));
    required binary event_id (string);
    required binary event_type (string);
    required int64 ts (timestamp(micros,true));
    optional binary job_id (string);
    optional binary batch_id (string);
    required binary account (string);
    required binary asset (string);
    required fixed_len_byte_array(16) amount_base (decimal(38,0));
    required int32 scale;
}";
/// Rows that are kept before they are written: memory does not grow with the file.
const ROWS_PER_GROUP: usize = 128 * 1024;
/// What DECIMAL(38, 0) cannot hold.
const DECIMAL_LIMIT: u128 = 10_u128.pow(38);

const FORMAT: &str = "parquet";

/// The whole file.
pub fn file(
    events: &[Event],
    provenance: &Provenance,
    out: &mut (impl Write + Send),
) -> Result<(), ExportError> {
    let legs = Legs::of(events, provenance)?;
    let names = Names::of(&legs);
    let mut table = Table::new(out, properties(&legs, provenance, None)?)?;
    for booked in legs.booked() {
        table.add(&booked, &legs, &names)?;
    }
    table.end()
}

/// One file a day, made by `open` from its path in the folder; gives the paths. Days of the log's end may still grow.
pub fn days<W: Write + Send>(
    events: &[Event],
    provenance: &Provenance,
    mut open: impl FnMut(&str) -> std::io::Result<W>,
) -> Result<Vec<String>, ExportError> {
    let legs = Legs::of(events, provenance)?;
    let names = Names::of(&legs);
    let mut paths = Vec::new();
    let mut current: Option<(u64, Table<W>)> = None;
    for booked in legs.booked() {
        let header = &booked.event.header;
        let number = header.time_us / (86_400 * 1_000_000);
        if current.as_ref().is_none_or(|(day, _)| *day != number) {
            if let Some((_, table)) = current.take() {
                table.end()?;
            }
            let day = date(header.time_us);
            let path = format!("day={day}/postings-{}.parquet", header.leaf);
            let table = Table::new(open(&path)?, properties(&legs, provenance, Some(&day))?)?;
            paths.push(path);
            current = Some((number, table));
        }
        if let Some((_, table)) = &mut current {
            table.add(&booked, &legs, &names)?;
        }
    }
    if let Some((_, table)) = current {
        table.end()?;
    }
    Ok(paths)
}

/// How it is written, and where it comes from. A day's file says its origin only: size and root of the log would make the
/// files of past days new ones each time.
fn properties(
    legs: &Legs<'_>,
    provenance: &Provenance,
    day: Option<&str>,
) -> Result<WriterPropertiesPtr, ExportError> {
    let mut about: Vec<KeyValue> = Vec::new();
    let mut say = |key: &str, value: String| about.push(KeyValue::new(format!("counterfoil.{key}"), value));
    match day {
        Some(day) => {
            say("origin", provenance.origin.clone());
            say("day", day.to_owned());
        }
        None => {
            for (key, value) in provenance.pairs() {
                say(key, value);
            }
            let (rows, totals) = legs.control_totals();
            say("rows", rows.to_string());
            for (asset, sum) in totals {
                say(&format!("debits.{asset}"), sum.0.to_string());
            }
        }
    }
    say("sign", super::DEBIT_CREDIT.to_owned());
    let level = ZstdLevel::try_new(1).map_err(ExportError::format(FORMAT))?;
    let column = |name: &str| ColumnPath::from(name);
    let mut properties = WriterProperties::builder()
        .set_writer_version(WriterVersion::PARQUET_2_0)
        .set_compression(Compression::ZSTD(level))
        .set_created_by(format!("counterfoil {}", env!("CARGO_PKG_VERSION")))
        .set_key_value_metadata(Some(about));
    // Sorted, or alike in a row: the difference is shorter than a dictionary.
    for (name, encoding) in [
        ("seq", Encoding::DELTA_BINARY_PACKED),
        ("ts", Encoding::DELTA_BINARY_PACKED),
        ("event_id", Encoding::DELTA_BYTE_ARRAY),
        ("job_id", Encoding::DELTA_BYTE_ARRAY),
    ] {
        properties = properties
            .set_column_dictionary_enabled(column(name), false)
            .set_column_encoding(column(name), encoding);
    }
    properties = properties.set_column_dictionary_enabled(column("amount_base"), false);
    Ok(Arc::new(properties.build()))
}

/// Names by ledger account, ready to be written.
struct Names {
    accounts: Vec<(ByteArray, ByteArray, i32)>,
}

impl Names {
    fn of(legs: &Legs<'_>) -> Names {
        let words = |account: &crate::fold::BookAccount| {
            let posting = protocol::event::Posting {
                account: account.opened.number,
                amount: protocol::amount::Amount(0),
            };
            let words = legs.words(&posting);
            (text(&words.name), text(&words.asset), i32::from(words.scale))
        };
        Names { accounts: legs.books().accounts().iter().map(words).collect() }
    }
}

fn text(text: &str) -> ByteArray {
    ByteArray::from(text.as_bytes().to_vec())
}

/// A column that may be empty: values, and for each row whether there is one.
#[derive(Default)]
struct Optional {
    values: Vec<ByteArray>,
    levels: Vec<i16>,
}

impl Optional {
    fn push(&mut self, value: Option<&ByteArray>) {
        self.levels.push(i16::from(value.is_some()));
        self.values.extend(value.cloned());
    }

    fn clear(&mut self) {
        self.values.clear();
        self.levels.clear();
    }
}

/// Rows that wait, column by column.
#[derive(Default)]
struct Rows {
    seq: Vec<i64>,
    event_id: Vec<ByteArray>,
    event_type: Vec<ByteArray>,
    ts: Vec<i64>,
    job: Optional,
    batch: Optional,
    account: Vec<ByteArray>,
    asset: Vec<ByteArray>,
    amount: Vec<FixedLenByteArray>,
    scale: Vec<i32>,
}

struct Table<W: Write + Send> {
    writer: SerializedFileWriter<W>,
    rows: Rows,
}

impl<W: Write + Send> Table<W> {
    fn new(out: W, properties: WriterPropertiesPtr) -> Result<Table<W>, ExportError> {
        let schema: TypePtr = Arc::new(parse_message_type(SCHEMA).map_err(ExportError::format(FORMAT))?);
        let writer =
            SerializedFileWriter::new(out, schema, properties).map_err(ExportError::format(FORMAT))?;
        Ok(Table { writer, rows: Rows::default() })
    }

    fn add(&mut self, booked: &Booked<'_>, legs: &Legs<'_>, names: &Names) -> Result<(), ExportError> {
        let header = &booked.event.header;
        let optional = |id: &str| (!id.is_empty()).then(|| text(id));
        let id = text(&format!("{}.{}", header.shard, header.leaf));
        let kind = ByteArray::from(bytes::Bytes::from_static(booked.event.body.kind().as_bytes()));
        let (job, batch) = (optional(&booked.job), optional(&booked.batch));
        let rows = &mut self.rows;
        for posting in &booked.event.postings {
            if posting.amount.0.unsigned_abs() >= DECIMAL_LIMIT {
                let words = legs.words(posting);
                let reason =
                    format!("event {}: a figure of {} has more than 38 digits", header.leaf, words.asset);
                return Err(ExportError::format(FORMAT)(reason));
            }
            let (account, asset, scale) = &names.accounts[posting.account.0 as usize];
            rows.seq.push(header.leaf as i64);
            rows.event_id.push(id.clone());
            rows.event_type.push(kind.clone());
            rows.ts.push(header.time_us as i64);
            rows.job.push(job.as_ref());
            rows.batch.push(batch.as_ref());
            rows.account.push(account.clone());
            rows.asset.push(asset.clone());
            rows.amount.push(posting.amount.0.to_be_bytes().to_vec().into());
            rows.scale.push(*scale);
        }
        if self.rows.seq.len() >= ROWS_PER_GROUP { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), ExportError> {
        if self.rows.seq.is_empty() {
            return Ok(());
        }
        let mut group = self.writer.next_row_group().map_err(ExportError::format(FORMAT))?;
        self.rows.write(&mut group).map_err(ExportError::format(FORMAT))?;
        group.close().map_err(ExportError::format(FORMAT))?;
        self.rows.clear();
        Ok(())
    }

    fn end(mut self) -> Result<(), ExportError> {
        self.flush()?;
        self.writer.close().map_err(ExportError::format(FORMAT))?;
        Ok(())
    }
}

impl Rows {
    /// In the order of the schema.
    fn write<W: Write + Send>(
        &self,
        group: &mut SerializedRowGroupWriter<'_, W>,
    ) -> ::parquet::errors::Result<()> {
        numbers(group, &self.seq)?;
        texts(group, &self.event_id, None)?;
        texts(group, &self.event_type, None)?;
        numbers(group, &self.ts)?;
        texts(group, &self.job.values, Some(&self.job.levels))?;
        texts(group, &self.batch.values, Some(&self.batch.levels))?;
        texts(group, &self.account, None)?;
        texts(group, &self.asset, None)?;
        let mut column = next(group)?;
        column.typed::<FixedLenByteArrayType>().write_batch(&self.amount, None, None)?;
        column.close()?;
        let mut column = next(group)?;
        column.typed::<Int32Type>().write_batch(&self.scale, None, None)?;
        column.close()
    }

    fn clear(&mut self) {
        self.seq.clear();
        self.event_id.clear();
        self.event_type.clear();
        self.ts.clear();
        self.job.clear();
        self.batch.clear();
        self.account.clear();
        self.asset.clear();
        self.amount.clear();
        self.scale.clear();
    }
}

fn next<'a, W: Write + Send>(
    group: &'a mut SerializedRowGroupWriter<'_, W>,
) -> ::parquet::errors::Result<SerializedColumnWriter<'a>> {
    Ok(group.next_column()?.expect("one column for each of the schema"))
}

fn numbers<W: Write + Send>(
    group: &mut SerializedRowGroupWriter<'_, W>,
    values: &[i64],
) -> ::parquet::errors::Result<()> {
    let mut column = next(group)?;
    column.typed::<Int64Type>().write_batch(values, None, None)?;
    column.close()
}

fn texts<W: Write + Send>(
    group: &mut SerializedRowGroupWriter<'_, W>,
    values: &[ByteArray],
    levels: Option<&[i16]>,
) -> ::parquet::errors::Result<()> {
    let mut column = next(group)?;
    column.typed::<ByteArrayType>().write_batch(values, levels, None)?;
    column.close()
}
