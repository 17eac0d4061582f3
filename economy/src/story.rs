//! One fixed story on a preset's rules: what each event of it says is kept as a golden file, so that a change of rule shows in
//! review, event by event.

use crate::simulation::{Load, SimulationError};
use crate::simulation::{StoryWorld, story_world};
use ledger::Refusal;
use ledger::command::*;
use ledger::economy::views;
use ledger::preset::Preset;
use protocol::amount::Amount;
use protocol::event::Event;
use protocol::event::economy::{FallbackMarked, TreasuryEpochPaid, UptimeNoted};
use protocol::event::grant::{Backing, GrantSource};
use protocol::event::hold::VoidReason;
use protocol::event::job::Outcome;
use protocol::event::node::{NodeRegistered, OperatorRegistered};
use protocol::id::{
    AccountId, BatchId, EvmAddress, Hash32, HoldId, JobId, NodeId, OperatorId, SealingKey, Word32,
};

const HOUR_US: u64 = 3_600 * 1_000_000;
const OPERATOR: OperatorId = OperatorId([0x11; 32]);
const NODE: NodeId = NodeId([0x12; 16]);
const PROVIDER: AccountId = AccountId([0x13; 16]);
const NEWCOMER: AccountId = AccountId([0x14; 16]);
/// Stake of the newcomer, 10^-6 of a token.
const STAKE_UNITS: u64 = 150_000_000;

/// The story's events, from the opening of the network on.
pub fn events(preset: &Preset) -> Result<Vec<Event>, SimulationError> {
    let mut story = Story { world: story_world(preset, &Load::default())?, jobs: 0 };
    story.walk().map_err(|refusal| SimulationError::Refused { day: 0, refusal })?;
    Ok(story.world.into_events())
}

struct Story {
    world: StoryWorld,
    jobs: u8,
}

impl Story {
    fn walk(&mut self) -> Result<(), Refusal> {
        self.arrive()?;
        let rules = views::rules(self.world.state()).cloned();
        if rules.as_ref().is_some_and(|rules| rules.sign_up.is_some()) {
            self.world.run(GrantSignUp { account: NEWCOMER })?;
        }
        if rules.as_ref().is_some_and(|rules| rules.allotment.is_some()) {
            self.allotment()?;
        }
        if rules.as_ref().is_none_or(|rules| rules.sign_up.is_none() && rules.allotment.is_none()) {
            self.fund()?;
        }
        self.job()?;
        self.fund()?;
        self.world.pass(15 * 24 * HOUR_US)?;
        self.job()?;
        if rules.as_ref().is_some_and(|rules| rules.bounties.is_some()) {
            let model = self.world.model(0);
            self.world.run(PublishBounty { model, queue_ms: 1_000, fallback_ppm: 100_000 })?;
            self.job()?;
        }
        if rules.as_ref().is_some_and(|rules| rules.conduct.is_some()) {
            self.conduct()?;
        }
        Ok(())
    }

    fn arrive(&mut self) -> Result<(), Refusal> {
        for account in [NEWCOMER, PROVIDER] {
            self.world.run(OpenAccount { account })?;
        }
        let payout_address = EvmAddress([0x15; 20]);
        self.world.run(OperatorRegistered { operator: OPERATOR, account: PROVIDER, payout_address })?;
        self.register(0)
    }

    fn register(&mut self, model: usize) -> Result<(), Refusal> {
        let models = vec![self.world.model(model)];
        let sealing_key = SealingKey([0x16; 32]);
        self.world.run(NodeRegistered { node: NODE, operator: OPERATOR, models, slots: 4, sealing_key })
    }

    fn allotment(&mut self) -> Result<(), Refusal> {
        let day = views::day_of(self.world.state(), self.world.now_us());
        let (block_hash, reserve_units) = (Word32([0x17; 32]), 20_000_000);
        let stake_units_total = 2 * STAKE_UNITS;
        self.world.run(OpenAllotmentDay { day, block: 7, block_hash, stake_units_total, reserve_units })?;
        let wallet = EvmAddress([0x18; 20]);
        let stakes = vec![SeenStake { account: NEWCOMER, wallet, stake_units: STAKE_UNITS }];
        self.world.run(AllotStakes { day, stakes })?;
        self.job()?;
        let batch = BatchId([0x19; 16]);
        self.world.run(CloseTreasuryEpoch { batch })?;
        let units = views::treasury_epoch(self.world.state())
            .map_or(0, |epoch| epoch.payouts.iter().map(|payout| payout.added_units).sum());
        self.world.run(TreasuryEpochPaid { batch, tx: Word32([0x1a; 32]), block: 8, units })
    }

    /// Credit that something backs.
    fn fund(&mut self) -> Result<(), Refusal> {
        self.world.run(IssueGrant {
            account: NEWCOMER,
            source: GrantSource::Package,
            asset: self.world.asset(),
            amount: Amount(10_000_000_000),
            priority: ledger::grants::PRIORITY_PACKAGE,
            scope: vec![],
            expires_us: None,
            backing: Backing::Package(1),
        })
    }

    fn next_job(&mut self) -> JobId {
        self.jobs += 1;
        JobId([self.jobs; 16])
    }

    fn admit(&mut self, model: usize) -> Result<JobId, Refusal> {
        let job = self.next_job();
        let command = Admit {
            hold: HoldId(job.0),
            job,
            account: NEWCOMER,
            model: self.world.model(model),
            input_units: 600,
            output_units_max: 400,
            deadline_us: self.world.now_us() + 60_000_000,
            node: NODE,
            body: Hash32([0x1b; 32]),
            spender: None,
        };
        self.world.run(command)?;
        Ok(job)
    }

    fn capture(&mut self, job: JobId) -> Result<(), Refusal> {
        self.world.run(Capture {
            job,
            attempt: 0,
            outcome: Outcome::Completed,
            input_units: 600,
            output_units_worker: 310,
            output_units_gateway: 310,
            receipt: Hash32([0x1c; 32]),
            chain_head: Hash32([0x1d; 32]),
            part: None,
        })
    }

    fn job(&mut self) -> Result<(), Refusal> {
        let job = self.admit(0)?;
        self.capture(job)
    }

    /// Uptime, a fault, a switch and its cut, a failed verification, fallback.
    fn conduct(&mut self) -> Result<(), Refusal> {
        let (online_us, probes_passed, probes_failed) = (24 * HOUR_US, 3, 1);
        self.world.run(UptimeNoted { operator: OPERATOR, online_us, probes_passed, probes_failed })?;
        let job = self.admit(0)?;
        self.world.run(Void { job, reason: VoidReason::OperatorFault })?;
        self.register(1)?;
        self.world.pass(36 * HOUR_US)?;
        let job = self.admit(1)?;
        self.capture(job)?;
        self.world.run(ReverseCapture { job })?;
        self.world.run(StrikeOperator { job })?;
        self.world.run(FallbackMarked { operator: OPERATOR, share_ppm: Some(0) })?;
        let job = self.admit(1)?;
        self.capture(job)
    }
}
