//! What would become of a network: the ledger's own decisions and events on virtual time, hour by hour, under a load and with
//! operators of every strategy. The router is a plain one: the least used among those that may be given more.

mod holders;
mod operators;
mod world;

use crate::report::{DayFigures, Report};
use ledger::Refusal;
use ledger::preset::{Preset, PresetError};
use operators::{Demand, Operators};
use serde::{Deserialize, Serialize};
use world::World;

/// Microseconds of an hour.
pub(crate) const HOUR_US: u64 = 3_600 * 1_000_000;
/// Hours of a day.
pub(crate) const DAY_HOURS: u64 = 24;
/// Longest simulation.
pub const DAYS_MAX: u32 = 730;
/// Most jobs an hour.
const JOBS_PER_HOUR_MAX: u32 = 10_000;

/// Why nothing was simulated.
#[derive(Debug, thiserror::Error)]
pub enum SimulationError {
    /// A figure outside its bounds.
    #[error("{field}: {expected}, got {given}")]
    OutOfBounds {
        /// Which.
        field: &'static str,
        /// What it may be.
        expected: &'static str,
        /// What it is.
        given: u64,
    },
    /// The preset cannot work.
    #[error(transparent)]
    Preset(#[from] PresetError),
    /// The ledger refused what a network of this preset has to do.
    #[error("on day {day} the ledger refused: {refusal}")]
    Refused {
        /// The simulated day.
        day: u32,
        /// Its reason.
        refusal: Refusal,
    },
}

/// What is asked of the network, and by whom it is served.
#[derive(Clone, PartialEq, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Load {
    /// Of the random choices; the same seed gives the same figures.
    pub seed: u64,
    /// Jobs an hour at first.
    pub jobs_per_hour: u32,
    /// By how much they change a day, millionths; negative shrinks.
    pub growth_ppm_per_day: i32,
    /// Prompt units of a job.
    pub input_units: u64,
    /// Output units of a job.
    pub output_units: u64,
    /// Part of the jobs that ask for a second, scarce model, millionths.
    pub scarce_ppm: u32,
    /// Jobs an hour that one operator's machine can do, split over its identities.
    pub capacity_per_hour: u32,
    /// Honest operators.
    pub honest: u32,
    /// What an hour online costs an operator, millionths of one job's price.
    pub hour_cost_ppm: u32,
    /// What computing a job costs who really does it, millionths of its price.
    pub job_cost_ppm: u32,
    /// Part of the charges that are re-executed, millionths.
    pub verified_ppm: u32,
    /// Which strategies stand beside the honest operators; empty = all.
    pub strategies: Vec<Strategy>,
    /// Days from which a sponsor buys no more packages; `None` = never.
    pub sales_end_day: Option<u32>,
}

impl Default for Load {
    fn default() -> Load {
        Load {
            seed: 1,
            jobs_per_hour: 60,
            growth_ppm_per_day: 0,
            input_units: 600,
            output_units: 400,
            scarce_ppm: 300_000,
            capacity_per_hour: 8,
            honest: 3,
            hour_cost_ppm: 100_000,
            job_cost_ppm: 300_000,
            verified_ppm: 50_000,
            strategies: Vec::new(),
            sales_end_day: None,
        }
    }
}

/// How an operator tries to earn.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// One identity, one model, always there.
    Honest,
    /// Switches to the other model every day, after bounties.
    Hopper,
    /// Five identities with a fifth of the machine each.
    Sybil,
    /// Comes and goes, and drops a fifth of its jobs.
    Flapper,
    /// Makes outputs up: computes nothing.
    Liar,
    /// Buys credit and gives its own jobs to its own machine, granted that it could choose.
    WashTrader,
    /// Opens accounts for their sign-up credit and spends it on its own machine, granted that it could choose.
    SignUpLaunderer,
    /// Leaves every week and registers anew.
    ReRegistrant,
}

impl Strategy {
    /// All, the honest one first.
    pub const ALL: [Strategy; 8] = [
        Strategy::Honest,
        Strategy::Hopper,
        Strategy::Sybil,
        Strategy::Flapper,
        Strategy::Liar,
        Strategy::WashTrader,
        Strategy::SignUpLaunderer,
        Strategy::ReRegistrant,
    ];

    /// Its name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Strategy::Honest => "honest",
            Strategy::Hopper => "hopper",
            Strategy::Sybil => "sybil",
            Strategy::Flapper => "flapper",
            Strategy::Liar => "liar",
            Strategy::WashTrader => "wash trader",
            Strategy::SignUpLaunderer => "sign-up launderer",
            Strategy::ReRegistrant => "re-registrant",
        }
    }
}

fn within(
    field: &'static str,
    expected: &'static str,
    given: u64,
    fits: bool,
) -> Result<(), SimulationError> {
    if fits { Ok(()) } else { Err(SimulationError::OutOfBounds { field, expected, given }) }
}

fn check(load: &Load, days: u32) -> Result<(), SimulationError> {
    within("days", "1 to 730", days.into(), (1..=DAYS_MAX).contains(&days))?;
    let jobs = load.jobs_per_hour;
    within("jobs_per_hour", "1 to 10000", jobs.into(), (1..=JOBS_PER_HOUR_MAX).contains(&jobs))?;
    let units = load.input_units.saturating_add(load.output_units);
    within(
        "output_units",
        "1 or more, with the input at most 2000",
        units,
        load.output_units > 0 && units <= 2_000,
    )?;
    let capacity = load.capacity_per_hour;
    within("capacity_per_hour", "5 to 10000", capacity.into(), (5..=JOBS_PER_HOUR_MAX).contains(&capacity))?;
    within("honest", "1 to 100", load.honest.into(), (1..=100).contains(&load.honest))?;
    for (field, ppm) in [
        ("scarce_ppm", load.scarce_ppm),
        ("job_cost_ppm", load.job_cost_ppm),
        ("verified_ppm", load.verified_ppm),
    ] {
        within(field, "at most 1000000", ppm.into(), ppm <= 1_000_000)?;
    }
    Ok(())
}

/// Runs a preset for so many days.
pub fn simulate(preset: &Preset, load: &Load, days: u32) -> Result<Report, SimulationError> {
    check(load, days)?;
    preset.check()?;
    let at = |day: u32| move |refusal| SimulationError::Refused { day, refusal };
    let mut world = World::open(preset, load).map_err(|error| error.on(0))?;
    let mut operators = Operators::register(&mut world, load).map_err(at(0))?;
    let mut holders = holders::Holders::open(&mut world).map_err(at(0))?;
    let holder_accounts = holders.accounts();
    let mut report = Report::begin(&preset.name, days, world.scale());
    for day in 0..days {
        let sells = load.sales_end_day.is_none_or(|end| day < end);
        world.begin_day(sells).map_err(at(day))?;
        holders.begin_day(&mut world).map_err(at(day))?;
        operators.begin_day(&mut world, day).map_err(at(day))?;
        let jobs = jobs_of(load, day);
        let mut figures = DayFigures { day, ..DayFigures::default() };
        for hour in 0..DAY_HOURS {
            let demand = Demand { hour, jobs, holders: &holder_accounts };
            operators.hour(&mut world, &demand, &mut figures).map_err(at(day))?;
            world.pass_hour().map_err(at(day))?;
        }
        operators.end_day(&mut world).map_err(at(day))?;
        world.fill(&mut figures);
        operators.fill(&mut figures);
        report.days.push(figures);
    }
    report.strategies = operators.earnings();
    report.holders = holders.figures();
    report.events = world.events();
    Ok(report)
}

/// A world for a story: every event is kept.
pub(crate) struct StoryWorld(World);

pub(crate) fn story_world(preset: &Preset, load: &Load) -> Result<StoryWorld, SimulationError> {
    let mut world = World::open(preset, load).map_err(|error| error.on(0))?;
    world.trail = Some(Vec::new());
    Ok(StoryWorld(world))
}

impl StoryWorld {
    pub(crate) fn run(&mut self, body: impl Into<ledger::CommandBody>) -> Result<(), Refusal> {
        self.0.run(body).map(|_| ())
    }

    /// Time passes, and what is due ends.
    pub(crate) fn pass(&mut self, us: u64) -> Result<(), Refusal> {
        self.0.now_us += us;
        self.0.expire()
    }

    pub(crate) fn state(&self) -> &ledger::State {
        &self.0.state
    }

    pub(crate) fn now_us(&self) -> u64 {
        self.0.now_us
    }

    pub(crate) fn model(&self, place: usize) -> String {
        self.0.models[place].clone()
    }

    pub(crate) fn asset(&self) -> protocol::asset::AssetId {
        self.0.asset
    }

    pub(crate) fn into_events(self) -> Vec<protocol::event::Event> {
        self.0.trail.unwrap_or_default()
    }
}

fn jobs_of(load: &Load, day: u32) -> u32 {
    let factor = 1.0 + f64::from(load.growth_ppm_per_day) / 1e6;
    // A load is no money: its figure may be rounded.
    let jobs = f64::from(load.jobs_per_hour) * factor.powi(day as i32);
    (jobs.round() as u32).clamp(1, JOBS_PER_HOUR_MAX)
}
