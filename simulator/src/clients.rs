//! Clients: each does one thing after the other, repeats it under the same key until the answer is certain (or gives up),
//! now and then asks again what it did before, or uses a key for something else. Must not: know the log.

use crate::random::Random;
use ledger::command::{Admit, Capture, IssueGrant, OpenAccount, PublishRateCard, Void};
use ledger::{Command, CommandBody};
use protocol::amount::Amount;
use protocol::asset::{Asset, AssetId};
use protocol::event::Actor;
use protocol::event::grant::{Backing, GrantSource};
use protocol::event::hold::VoidReason;
use protocol::event::job::Outcome;
use protocol::event::node::{NodeRegistered, OperatorRegistered};
use protocol::event::policy::{NetworkOpened, Settings};
use protocol::id::{
    AccountId, EvmAddress, Hash32, HoldId, IdempotencyKey, JobId, NodeId, OperatorId, SealingKey,
};
use protocol::rate::{ModelRate, ProofClass, RateCard, Unit};

/// Accounts that the clients fight over.
const ACCOUNTS: u64 = 6;
/// How many things one client does.
const THINGS: u32 = 14;
const HOUR_US: u64 = 3_600_000_000;
const MODEL: &str = "small";
const NODE: NodeId = NodeId([3; 16]);

/// What a client asks for next.
#[derive(Clone)]
pub enum Wish {
    /// One command; with its events in the answer, or only its place.
    One {
        /// What.
        command: Box<Command>,
        /// Whether the events are wanted.
        events: Events,
    },
    /// Several as one message.
    Many(Vec<Command>),
    /// A look at the state.
    Look,
}

/// Whether an answer carries events.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Events {
    /// It does.
    Wanted,
    /// It tells where they stand.
    Unwanted,
}

/// See the module.
pub struct Client {
    /// What it does now; `None` = nothing yet, or done.
    pub wish: Option<Wish>,
    /// The request it waits for.
    pub waits_for: Option<u64>,
    /// Things it has yet to do.
    pub left: u32,
    number: u64,
    /// Commands it did before.
    before: Vec<Command>,
    /// Its jobs that may have an open hold.
    jobs: Vec<JobId>,
    counter: u64,
}

impl Client {
    /// Client number `number`; number 0 also sets the network up.
    pub fn new(number: u64) -> Self {
        let jobs = Vec::new();
        Self { wish: None, waits_for: None, left: THINGS, number, before: Vec::new(), jobs, counter: 0 }
    }

    /// The next wish.
    pub fn choose(&mut self, random: &mut Random, now_us: u64) {
        self.left -= 1;
        self.wish = Some(if self.number == 0 && self.counter == 0 {
            Wish::Many(self.set_up())
        } else {
            match random.below(10) {
                0 => Wish::Look,
                1..=3 => {
                    let count = random.between(2, 9);
                    Wish::Many((0..count).map(|_| self.command(random, now_us)).collect())
                }
                _ => Wish::One {
                    command: Box::new(self.command(random, now_us)),
                    events: if random.chance(500) { Events::Wanted } else { Events::Unwanted },
                },
            }
        });
    }

    fn key(&mut self) -> IdempotencyKey {
        self.counter += 1;
        IdempotencyKey::internal("simulation", &[&self.number.to_be_bytes(), &self.counter.to_be_bytes()])
    }

    fn command(&mut self, random: &mut Random, now_us: u64) -> Command {
        if !self.before.is_empty() && random.chance(120) {
            let pick = random.below(self.before.len() as u64) as usize;
            let mut command = self.before[pick].clone();
            if random.chance(200) {
                command.body = OpenAccount { account: account(random.below(ACCOUNTS)) }.into();
            }
            return command;
        }
        let body = self.body(random, now_us);
        let mut command = Command::new(self.key(), Actor::Gateway, body);
        if random.chance(100) {
            command.not_after_us = Some(now_us + random.below(5_000));
        }
        self.before.push(command.clone());
        command
    }

    fn body(&mut self, random: &mut Random, now_us: u64) -> CommandBody {
        let account = account(random.below(ACCOUNTS));
        match random.below(10) {
            0..=2 => OpenAccount { account }.into(),
            3..=4 => grant(account, 1_000 + i128::from(random.below(3_000) as u32)).into(),
            5..=6 if !self.jobs.is_empty() => {
                let pick = random.below(self.jobs.len() as u64) as usize;
                let job = self.jobs.swap_remove(pick);
                if random.chance(500) {
                    return Void { job, reason: VoidReason::OperatorFault }.into();
                }
                capture(job, random.below(1_000)).into()
            }
            _ => {
                let job = JobId(random.id());
                self.jobs.push(job);
                admit(job, account, now_us).into()
            }
        }
    }

    fn set_up(&mut self) -> Vec<Command> {
        let operator = OperatorId([2; 32]);
        let owner = AccountId([8; 16]);
        let card = RateCard { version: 1, effective_us: 0, headroom_ppm: 0, models: vec![rate()] };
        let node = NodeRegistered {
            node: NODE,
            operator,
            models: vec![MODEL.into()],
            slots: 1_000,
            sealing_key: SealingKey([1; 32]),
        };
        let payout_address = EvmAddress([9; 20]);
        let bodies: [CommandBody; 4] = [
            PublishRateCard { card }.into(),
            OpenAccount { account: owner }.into(),
            OperatorRegistered { operator, account: owner, payout_address }.into(),
            node.into(),
        ];
        bodies.into_iter().map(|body| Command::new(self.key(), Actor::Admin, body)).collect()
    }
}

pub(crate) fn account(number: u64) -> AccountId {
    let mut id = [7; 16];
    id[..8].copy_from_slice(&number.to_be_bytes());
    AccountId(id)
}

pub(crate) fn grant(account: AccountId, amount: i128) -> IssueGrant {
    IssueGrant {
        account,
        source: GrantSource::Package,
        asset: AssetId(0),
        amount: Amount(amount),
        priority: 5,
        scope: Vec::new(),
        expires_us: None,
        backing: Backing::Unbacked,
    }
}

pub(crate) fn admit(job: JobId, account: AccountId, now_us: u64) -> Admit {
    Admit {
        hold: HoldId(job.0),
        job,
        account,
        model: MODEL.into(),
        input_units: 100,
        output_units_max: 1_000,
        deadline_us: now_us + HOUR_US / 2,
        node: NODE,
        body: Hash32([4; 32]),
        spender: None,
    }
}

fn capture(job: JobId, units: u64) -> Capture {
    Capture {
        job,
        attempt: 0,
        outcome: Outcome::Completed,
        input_units: 100,
        output_units_worker: units,
        output_units_gateway: units,
        receipt: Hash32([5; 32]),
        chain_head: Hash32([6; 32]),
        part: None,
    }
}

fn rate() -> ModelRate {
    ModelRate {
        model: MODEL.into(),
        weights: Hash32([1; 32]),
        tokenizer: Hash32([2; 32]),
        template: Hash32([3; 32]),
        licence: "Apache-2.0".into(),
        proof_class: ProofClass::ReExecutable,
        asset: AssetId(0),
        unit: Unit::Token,
        price: Amount(1_000),
        per_units: 1_000,
        operator_share_ppm: 800_000,
        context_tokens: 100_000,
    }
}

/// The network that every history begins with.
pub fn genesis() -> NetworkOpened {
    NetworkOpened {
        origin: "counterfoil.example/simulation/0".into(),
        preset: "simulation".into(),
        preset_hash: Hash32([1; 32]),
        assets: vec![Asset { id: AssetId(0), symbol: "CRED".into(), ledger_scale: 9, chain_scale: None }],
        settings: Settings {
            epoch_us: 6 * HOUR_US,
            hold_grace_us: 60_000_000,
            job_deadline_us_max: HOUR_US,
            idempotency_us: 24 * HOUR_US,
            settle_units_min: 0,
            voucher_us: HOUR_US,
            authorisation_margin_epochs: 2,
            capture_tolerance_ppm: None,
        },
    }
}
