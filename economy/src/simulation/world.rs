//! A ledger on virtual time: commands decided and applied in memory, every refusal the ledger's own.

use super::{HOUR_US, Load, SimulationError};
use crate::report::DayFigures;
use ledger::command::*;
use ledger::economy::views;
use ledger::preset::{ModelHashes, Preset, PresetError};
use ledger::{Command, CommandBody, Decision, Refusal, State, apply, decide, end_commit};
use protocol::amount::Amount;
use protocol::asset::AssetId;
use protocol::event::economy::TreasuryEpochPaid;
use protocol::event::grant::{Backing, GrantSource};
use protocol::event::{Actor, Event, EventBody};
use protocol::id::{AccountId, BatchId, Hash32, IdempotencyKey, Word32};
use protocol::rate::{ModelRate, RateCard};

/// 2026-01-01, microseconds UTC: a day's first moment.
const BEGIN_US: u64 = 1_767_225_600 * 1_000_000;
/// Units in the treasury at the start of each simulated day.
const RESERVE_UNITS: u64 = 100_000_000;
/// Whole credits that the customers buy a day.
const SALE_CREDITS: i128 = 20;
/// Events of an expiry at once.
const EXPIRE_EVENTS_MAX: u32 = 4_096;

/// An error before the first day.
pub(super) enum OpenError {
    Preset(PresetError),
    Refused(Refusal),
}

impl OpenError {
    pub(super) fn on(self, day: u32) -> SimulationError {
        match self {
            OpenError::Preset(error) => error.into(),
            OpenError::Refused(refusal) => SimulationError::Refused { day, refusal },
        }
    }
}

impl From<Refusal> for OpenError {
    fn from(refusal: Refusal) -> OpenError {
        OpenError::Refused(refusal)
    }
}

impl From<PresetError> for OpenError {
    fn from(error: PresetError) -> OpenError {
        OpenError::Preset(error)
    }
}

/// The ledger, its clock, and the customers' account.
pub(super) struct World {
    pub(super) state: State,
    pub(super) now_us: u64,
    /// Ordinary and scarce.
    pub(super) models: [String; 2],
    pub(super) asset: AssetId,
    pub(super) customer: AccountId,
    scale: u8,
    unit: i128,
    next: u64,
    random: u64,
    lapsed: i128,
    paid_units: u64,
    /// Every event from here on, where somebody wants them.
    pub(super) trail: Option<Vec<Event>>,
}

impl World {
    pub(super) fn open(preset: &Preset, load: &Load) -> Result<World, OpenError> {
        let hash = Hash32([1; 32]);
        let hashes = |_: &str| Some(ModelHashes { weights: hash, tokenizer: hash, template: hash });
        let mut card = preset.rate_card(hashes)?;
        let models = scarce(&mut card);
        let asset = card.models[0].asset;
        let scale = preset.assets[asset.0 as usize].ledger_scale;
        let mut world = World {
            state: State::new(0),
            now_us: BEGIN_US,
            models,
            asset,
            customer: AccountId([0; 16]),
            scale,
            unit: 10i128.pow(u32::from(scale.saturating_sub(6))),
            next: 0,
            random: load.seed ^ 0x9e37_79b9_7f4a_7c15,
            lapsed: 0,
            paid_units: 0,
            trail: None,
        };
        world.run(preset.network("counterfoil.localhost/simulation/0")?)?;
        if let Some(economy) = preset.economy()? {
            world.run(economy)?;
        }
        world.run(PublishRateCard { card })?;
        world.customer = world.account()?;
        Ok(world)
    }

    /// Decides and applies one command as one commit.
    pub(super) fn run(&mut self, body: impl Into<CommandBody>) -> Result<Vec<Event>, Refusal> {
        self.next += 1;
        let key = IdempotencyKey::internal("simulation", &[&self.next.to_be_bytes()]);
        let command = Command::new(key, Actor::Admin, body);
        let Decision::New(events) = decide(&self.state, &command, self.now_us)? else {
            return Ok(Vec::new());
        };
        for event in &events {
            apply(&mut self.state, event).expect("what the ledger decided it applies");
            match &event.body {
                EventBody::GrantExpired(e) => self.lapsed += e.lapsed.0,
                EventBody::TreasuryEpochPaid(e) => self.paid_units += e.units,
                _ => {}
            }
        }
        if let Some(trail) = &mut self.trail {
            trail.extend_from_slice(&events);
        }
        let hash = Hash32(*blake3::hash(&self.next.to_be_bytes()).as_bytes());
        let number = self.state.last_commit() + 1;
        end_commit(&mut self.state, number, hash, self.now_us).expect("commits follow each other");
        Ok(events)
    }

    /// A new id of 16 bytes.
    pub(super) fn id(&mut self) -> [u8; 16] {
        self.next += 1;
        let mut id = [7; 16];
        id[..8].copy_from_slice(&self.next.to_be_bytes());
        id
    }

    pub(super) fn account(&mut self) -> Result<AccountId, Refusal> {
        let account = AccountId(self.id());
        self.run(OpenAccount { account })?;
        Ok(account)
    }

    /// Uniform below `bound`, by the seed (splitmix64).
    pub(super) fn random(&mut self, bound: u64) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.random ^ (self.random >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound.max(1)
    }

    /// With a probability in millionths.
    pub(super) fn chance(&mut self, ppm: u32) -> bool {
        self.random(1_000_000) < u64::from(ppm)
    }

    pub(super) fn scale(&self) -> u8 {
        self.scale
    }

    pub(super) fn events(&self) -> u64 {
        self.state.next_leaf()
    }

    /// A package for an account, whole credits.
    pub(super) fn sell(&mut self, account: AccountId, credits: i128) -> Result<(), Refusal> {
        self.run(IssueGrant {
            account,
            source: GrantSource::Package,
            asset: self.asset,
            amount: Amount(credits * 10i128.pow(u32::from(self.scale))),
            priority: ledger::grants::PRIORITY_PACKAGE,
            scope: vec![],
            expires_us: None,
            backing: Backing::Package(1),
        })?;
        Ok(())
    }

    /// Sells the customers what they need.
    pub(super) fn begin_day(&mut self, sells: bool) -> Result<(), Refusal> {
        if sells { self.sell(self.customer, SALE_CREDITS) } else { Ok(()) }
    }

    pub(super) fn open_allotment_day(&mut self, stake_units_total: u64) -> Result<u64, Refusal> {
        let day = views::day_of(&self.state, self.now_us);
        let (block, block_hash, reserve_units) = (day, Word32([0; 32]), RESERVE_UNITS);
        self.run(OpenAllotmentDay { day, block, block_hash, stake_units_total, reserve_units })?;
        Ok(day)
    }

    /// An hour passes: what is due ends, and every six hours the treasury pays its workers.
    pub(super) fn pass_hour(&mut self) -> Result<(), Refusal> {
        self.now_us += HOUR_US;
        self.expire()?;
        let hour = (self.now_us - BEGIN_US) / HOUR_US;
        let has_treasury = views::rules(&self.state).is_some_and(|rules| rules.allotment.is_some());
        if hour.is_multiple_of(6) && has_treasury { self.pay_workers() } else { Ok(()) }
    }

    /// Ends what is due.
    pub(super) fn expire(&mut self) -> Result<(), Refusal> {
        loop {
            match self.run(ExpireDue { events_max: EXPIRE_EVENTS_MAX }) {
                Ok(_) => {}
                Err(Refusal::NothingDue { .. }) => return Ok(()),
                Err(refusal) => return Err(refusal),
            }
        }
    }

    fn pay_workers(&mut self) -> Result<(), Refusal> {
        let batch = BatchId(self.id());
        let closed = match self.run(CloseTreasuryEpoch { batch }) {
            Ok(events) => events,
            Err(Refusal::TreasuryRefused { .. }) => return Ok(()),
            Err(refusal) => return Err(refusal),
        };
        let payouts = closed.iter().filter_map(|event| match &event.body {
            EventBody::TreasuryEpochClosed(e) => Some(&e.payouts),
            _ => None,
        });
        let units = payouts.flatten().map(|payout| payout.added_units).sum();
        self.run(TreasuryEpochPaid { batch, tx: Word32([0; 32]), block: 0, units })?;
        Ok(())
    }

    /// The network's own figures of a day.
    pub(super) fn fill(&mut self, figures: &mut DayFigures) {
        let day = views::allotment_day(&self.state);
        figures.pool = day.map_or(Amount::ZERO, |(day, _, _)| day.pool);
        figures.allotted = day.map_or(Amount::ZERO, |(_, given, _)| given);
        figures.lapsed = Amount(std::mem::take(&mut self.lapsed));
        figures.treasury_paid = Amount(i128::from(std::mem::take(&mut self.paid_units)) * self.unit);
        figures.bounties_paid = views::bounties_paid(&self.state);
        let left = views::sign_up_left(&self.state, self.now_us);
        figures.sign_up_left = left.map_or(Amount::ZERO, |(_, left)| left);
        assert_eq!(views::broken_promise(&self.state), None, "the ledger keeps its promises");
    }
}

/// The card's first two models; a scarce twin of the first where there is only one.
fn scarce(card: &mut RateCard) -> [String; 2] {
    let first = card.models[0].clone();
    if card.models.len() == 1 {
        let model = format!("{}-scarce", first.model);
        card.models.push(ModelRate { model, ..first });
    }
    [card.models[0].model.clone(), card.models[1].model.clone()]
}
