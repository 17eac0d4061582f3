//! What was served and what it came to, by day, model and operator: kept as charges come, and corrected when they are undone,
//! at the day on which that happened.

use super::varint::{Bytes, put_signed};
use super::{Index, IndexError};
use crate::time::date;
use protocol::amount::Amount;
use protocol::asset::AssetId;
use protocol::event::{Event, EventBody};
use protocol::id::{JobId, OperatorId};
use redb::{ReadableTable, ReadableTableMetadata, TableDefinition, WriteTransaction};
use serde::Serialize;
use std::collections::BTreeMap;

/// Models and operators by number, and their numbers.
pub(super) const WORDS: TableDefinition<u32, &[u8]> = TableDefinition::new("words");
pub(super) const WORD_NUMBERS: TableDefinition<&[u8], u32> = TableDefinition::new("word_numbers");
/// Job: its asset, model and operator, and the units that were charged.
pub(super) const JOBS: TableDefinition<&[u8; 16], &[u8]> = TableDefinition::new("jobs");
/// Day, asset, model, operator: sums.
pub(super) const DAYS: TableDefinition<(u32, u32, u32, u32), &[u8]> = TableDefinition::new("days");

const DAY_US: u64 = 86_400 * 1_000_000;

/// What stands behind a sum.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Activity {
    /// Charged jobs less undone ones.
    pub jobs: i128,
    /// Input units charged.
    pub input_units: i128,
    /// Output units charged.
    pub output_units: i128,
    /// What customers paid, base units.
    pub gross: Amount,
    /// What the platform kept: its revenue.
    pub platform: Amount,
    /// What operators earned: payable to them sooner or later.
    pub operators: Amount,
}

impl Activity {
    fn add(&mut self, other: &Activity) {
        self.jobs += other.jobs;
        self.input_units += other.input_units;
        self.output_units += other.output_units;
        self.gross.0 += other.gross.0;
        self.platform.0 += other.platform.0;
        self.operators.0 += other.operators.0;
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for figure in
            [self.jobs, self.input_units, self.output_units, self.gross.0, self.platform.0, self.operators.0]
        {
            put_signed(&mut bytes, figure);
        }
        bytes
    }

    fn parse(bytes: &[u8]) -> Activity {
        let mut bytes = Bytes(bytes);
        Activity {
            jobs: bytes.take_signed(),
            input_units: bytes.take_signed(),
            output_units: bytes.take_signed(),
            gross: Amount(bytes.take_signed()),
            platform: Amount(bytes.take_signed()),
            operators: Amount(bytes.take_signed()),
        }
    }
}

/// A sum and what it is of. What it is not divided by is `None`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct ActivityLine {
    /// `2026-11-21`, UTC.
    pub day: Option<String>,
    /// The model's name on the price list.
    pub model: Option<String>,
    /// Who served.
    pub operator: Option<OperatorId>,
    /// Asset symbol.
    pub asset: String,
    /// The sums.
    #[serde(flatten)]
    pub sums: Activity,
}

/// What sums are divided by; assets always are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum By {
    /// A line a day.
    Day,
    /// A line a model.
    Model,
    /// A line an operator.
    Operator,
    /// A line each day, model and operator.
    All,
}

/// One step of a job, as far as sums go.
pub(super) enum Turn {
    /// Its hold: model and asset.
    Placed { job: JobId, model: String, asset: AssetId },
    /// A charge.
    Charged { job: JobId, day: u32, operator: OperatorId, sums: Activity },
    /// All its charges undone.
    Undone { job: JobId, day: u32, sums: Activity },
}

impl Turn {
    /// What an event is here; `None` for most.
    pub(super) fn of(event: &Event) -> Option<Turn> {
        let day = u32::try_from(event.header.time_us / DAY_US).unwrap_or(u32::MAX);
        match &event.body {
            EventBody::HoldPlaced(e) => {
                Some(Turn::Placed { job: e.job, model: e.model.clone(), asset: e.asset })
            }
            EventBody::UsageCaptured(e) => {
                let is_first = e.part.as_ref().is_none_or(|part| part.number == 0);
                let sums = Activity {
                    jobs: i128::from(is_first),
                    input_units: i128::from(e.input_units),
                    output_units: i128::from(e.output_units),
                    gross: e.cost,
                    platform: e.platform_share,
                    operators: e.operator_share,
                };
                Some(Turn::Charged { job: e.job, day, operator: e.operator, sums })
            }
            EventBody::CaptureReversed(e) => {
                let (gross, platform, operators) = (-e.refunded, -e.platform_share, -e.operator_share);
                // How many units it was stands with the job.
                let sums = Activity { jobs: -1, gross, platform, operators, ..Activity::default() };
                Some(Turn::Undone { job: e.job, day, sums })
            }
            _ => None,
        }
    }
}

/// What is known of a job.
#[derive(Clone, Copy, Default)]
struct Job {
    asset: u32,
    model: u32,
    operator: u32,
    input_units: i128,
    output_units: i128,
}

impl Job {
    fn bytes(self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for figure in [self.asset, self.model, self.operator].map(i128::from) {
            put_signed(&mut bytes, figure);
        }
        put_signed(&mut bytes, self.input_units);
        put_signed(&mut bytes, self.output_units);
        bytes
    }

    fn parse(bytes: &[u8]) -> Job {
        let mut bytes = Bytes(bytes);
        let mut number = || u32::try_from(bytes.take_signed()).unwrap_or(0);
        let (asset, model, operator) = (number(), number(), number());
        Job { asset, model, operator, input_units: bytes.take_signed(), output_units: bytes.take_signed() }
    }
}

/// Writes what a batch of commits did. Each job and each sum is read and written once, whatever happened to it.
pub(super) fn write(write: &WriteTransaction, turns: &[Turn]) -> Result<(), IndexError> {
    let mut table = write.open_table(JOBS)?;
    let mut jobs: BTreeMap<JobId, Job> = BTreeMap::new();
    let mut sums: BTreeMap<(u32, u32, u32, u32), Activity> = BTreeMap::new();
    for turn in turns {
        let (Turn::Placed { job: id, .. } | Turn::Charged { job: id, .. } | Turn::Undone { job: id, .. }) =
            turn;
        let mut job = match jobs.get(id) {
            Some(job) => *job,
            None => table.get(&id.0)?.map_or_else(Job::default, |row| Job::parse(row.value())),
        };
        let (day, change) = match turn {
            Turn::Placed { model, asset, .. } => {
                (job.model, job.asset) = (number(write, model.as_bytes())?, asset.0);
                jobs.insert(*id, job);
                continue;
            }
            Turn::Charged { day, operator, sums, .. } => {
                job.operator = number(write, &operator.0)?;
                job.input_units += sums.input_units;
                job.output_units += sums.output_units;
                (*day, *sums)
            }
            Turn::Undone { day, sums, .. } => {
                let units = (-job.input_units, -job.output_units);
                (job.input_units, job.output_units) = (0, 0);
                (*day, Activity { input_units: units.0, output_units: units.1, ..*sums })
            }
        };
        jobs.insert(*id, job);
        sums.entry((day, job.asset, job.model, job.operator)).or_default().add(&change);
    }
    for (id, job) in &jobs {
        table.insert(&id.0, job.bytes().as_slice())?;
    }
    let mut days = write.open_table(DAYS)?;
    for (key, more) in sums {
        let mut sum = days.get(key)?.map_or_else(Activity::default, |row| Activity::parse(row.value()));
        sum.add(&more);
        days.insert(key, sum.bytes().as_slice())?;
    }
    Ok(())
}

/// The number of a model or operator; a new one gets the next. 0 is nobody's.
fn number(write: &WriteTransaction, word: &[u8]) -> Result<u32, IndexError> {
    let mut numbers = write.open_table(WORD_NUMBERS)?;
    let known = numbers.get(word)?.map(|row| row.value());
    if let Some(known) = known {
        return Ok(known);
    }
    let next = u32::try_from(numbers.len()? + 1).map_err(|e| IndexError::Store(e.to_string()))?;
    numbers.insert(word, next)?;
    write.open_table(WORDS)?.insert(next, word)?;
    Ok(next)
}

impl Index {
    /// Sums of charges whose log time lies in a range of days (both ends in), by whatever is asked; as of the index's
    /// position. Lines are in the order of days, then assets, models, operators.
    pub fn activity(&self, from_us: u64, until_us: u64, by: By) -> Result<Vec<ActivityLine>, IndexError> {
        let read = self.read()?;
        let (days, words) = (read.open_table(DAYS)?, read.open_table(WORDS)?);
        let day = |us: u64| u32::try_from(us / DAY_US).unwrap_or(u32::MAX);
        let mut sums: BTreeMap<(u32, u32, u32, u32), Activity> = BTreeMap::new();
        for row in days.range((day(from_us), 0, 0, 0)..=(day(until_us), u32::MAX, u32::MAX, u32::MAX))? {
            let (key, bytes) = row?;
            let (day, asset, model, operator) = key.value();
            let key = match by {
                By::Day => (day, asset, 0, 0),
                By::Model => (u32::MAX, asset, model, 0),
                By::Operator => (u32::MAX, asset, 0, operator),
                By::All => (day, asset, model, operator),
            };
            sums.entry(key).or_default().add(&Activity::parse(bytes.value()));
        }
        let mut lines = Vec::new();
        for ((day, asset, model, operator), sums) in sums {
            let word = |number: u32| words.get(number).map(|row| row.map(|row| row.value().to_vec()));
            let asset = self.assets.get(asset as usize).map_or("?", |asset| asset.symbol.as_str()).to_owned();
            let model = word(model)?.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
            let operator = word(operator)?.and_then(|bytes| bytes.try_into().ok()).map(OperatorId);
            let day = (day != u32::MAX).then(|| date(u64::from(day) * DAY_US));
            lines.push(ActivityLine { day, model, operator, asset, sums });
        }
        Ok(lines)
    }
}
