//! The commands that the measurements send: a network with accounts that hold credit, transfers between them, holds and
//! captures of jobs. Deterministic but for the time and a key prefix. Must not: measure.

use ledger::command::{
    Admit, Capture, Command, CommandBody, IssueGrant, MoveCredit, OpenAccount, PublishRateCard,
};
use protocol::amount::Amount;
use protocol::asset::{Asset, AssetId};
use protocol::event::grant::{Backing, GrantSource};
use protocol::event::job::Outcome;
use protocol::event::node::{NodeRegistered, OperatorRegistered};
use protocol::event::policy::{NetworkOpened, Settings};
use protocol::event::{Actor, GrantId};
use protocol::id::{
    AccountId, EvmAddress, Hash32, HoldId, IdempotencyKey, JobId, NodeId, OperatorId, SealingKey,
};
use protocol::rate::{ModelRate, ProofClass, RateCard, Unit};
use std::time::{SystemTime, UNIX_EPOCH};

const ASSET: AssetId = AssetId(0);
const MODEL: &str = "bench-model";
const OPERATOR: OperatorId = OperatorId([0xb0; 32]);
const NODE: NodeId = NodeId([0xb1; 16]);
const OWNER: AccountId = AccountId([0xb2; 16]);
const SECOND_US: u64 = 1_000_000;
/// Of every account at the beginning, base units: enough for any run.
const CREDIT: i128 = 1_000_000_000_000_000_000;

/// Microseconds UTC.
pub(crate) fn now_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64)
}

/// The network that is measured.
pub(crate) fn genesis() -> NetworkOpened {
    NetworkOpened {
        origin: "bench.example/bench/0".into(),
        preset: "bench".into(),
        preset_hash: Hash32([1; 32]),
        assets: vec![Asset { id: ASSET, symbol: "CREDIT".into(), ledger_scale: 9, chain_scale: None }],
        settings: Settings {
            epoch_us: 21_600 * SECOND_US,
            hold_grace_us: 60 * SECOND_US,
            job_deadline_us_max: 3_600 * SECOND_US,
            idempotency_us: 86_400 * SECOND_US,
            settle_units_min: 0,
            voucher_us: 3_600 * SECOND_US,
            authorisation_margin_epochs: 2,
            capture_tolerance_ppm: None,
        },
    }
}

/// Which accounts transfers touch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Spread {
    /// All alike.
    Uniform,
    /// Every transfer leaves one account.
    Hot,
}

/// One sender of commands. Senders with different lanes never make the same key.
pub(crate) struct Load {
    accounts: u32,
    lane: u32,
    made: u64,
    random: u64,
    /// Holds that wait for their capture.
    open: Vec<JobId>,
}

impl Load {
    pub(crate) fn new(accounts: u32, lane: u32) -> Load {
        Load {
            accounts,
            lane,
            made: 0,
            random: 0x9e37_79b9_7f4a_7c15 ^ u64::from(lane) << 17,
            open: Vec::new(),
        }
    }

    /// What the network needs before accounts: a price, an operator, a node.
    pub(crate) fn opening(&mut self) -> Vec<Command> {
        let rate = ModelRate {
            model: MODEL.into(),
            weights: Hash32([1; 32]),
            tokenizer: Hash32([2; 32]),
            template: Hash32([3; 32]),
            licence: "Apache-2.0".into(),
            proof_class: ProofClass::ReExecutable,
            asset: ASSET,
            unit: Unit::Token,
            price: Amount(4_000),
            per_units: 1,
            operator_share_ppm: 800_000,
            context_tokens: 8_192,
        };
        let card = RateCard { version: 1, effective_us: 0, headroom_ppm: 0, models: vec![rate] };
        let operator =
            OperatorRegistered { operator: OPERATOR, account: OWNER, payout_address: EvmAddress([4; 20]) };
        let node = NodeRegistered {
            node: NODE,
            operator: OPERATOR,
            models: vec![MODEL.into()],
            slots: 64,
            sealing_key: SealingKey([5; 32]),
        };
        vec![
            self.command(PublishRateCard { card }),
            self.command(OpenAccount { account: OWNER }),
            self.command(operator),
            self.command(node),
        ]
    }

    /// Opens account `number` and gives it credit: two commands. In order, its grant has the account's number.
    pub(crate) fn account(&mut self, number: u32) -> [Command; 2] {
        let account = account_id(number);
        let grant = IssueGrant {
            account,
            source: GrantSource::Package,
            asset: ASSET,
            amount: Amount(CREDIT),
            priority: ledger::grants::PRIORITY_PACKAGE,
            scope: Vec::new(),
            expires_us: None,
            backing: Backing::Unbacked,
        };
        [self.command(OpenAccount { account }), self.command(grant)]
    }

    /// Credit from one account to another.
    pub(crate) fn transfer(&mut self, spread: Spread) -> Command {
        let from = match spread {
            Spread::Uniform => self.below(self.accounts),
            Spread::Hot => 0,
        };
        let to = (from + 1 + self.below(self.accounts - 1)) % self.accounts;
        let amount = Amount(i128::from(1 + self.below(1_000)));
        self.command(MoveCredit { from: GrantId(from), to: GrantId(to), amount })
    }

    /// A hold with its dispatch.
    pub(crate) fn admit(&mut self) -> Command {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&self.next_random().to_be_bytes());
        id[8..].copy_from_slice(&(u64::from(self.lane) << 40 | self.made).to_be_bytes());
        self.open.push(JobId(id));
        let account = account_id(self.below(self.accounts));
        let admit = Admit {
            hold: HoldId(id),
            job: JobId(id),
            account,
            model: MODEL.into(),
            input_units: 420,
            output_units_max: 1_000,
            deadline_us: now_us() + 600 * SECOND_US,
            node: NODE,
            body: Hash32([6; 32]),
            spender: None,
        };
        self.command(admit)
    }

    /// The charge of the oldest open hold.
    pub(crate) fn capture(&mut self) -> Option<Command> {
        let job = if self.open.is_empty() { return None } else { self.open.swap_remove(0) };
        let output = u64::from(1 + self.below(1_000));
        Some(self.command(Capture {
            job,
            attempt: 0,
            outcome: Outcome::Completed,
            input_units: 420,
            output_units_worker: output,
            output_units_gateway: output,
            receipt: Hash32([7; 32]),
            chain_head: Hash32([8; 32]),
            part: None,
        }))
    }

    /// `count` commands of which `holds_percent` are holds or their captures, in turns; captures only of holds of
    /// earlier batches, which are committed by then.
    pub(crate) fn batch(&mut self, count: usize, holds_percent: u32, spread: Spread) -> Vec<Command> {
        let committed = self.open.len();
        let mut captured = 0;
        let mut commands = Vec::with_capacity(count);
        for _ in 0..count {
            let holds = self.below(100) < holds_percent;
            let command = if !holds {
                self.transfer(spread)
            } else if captured < committed && self.below(2) == 0 {
                captured += 1;
                self.capture().unwrap_or_else(|| self.transfer(spread))
            } else {
                self.admit()
            };
            commands.push(command);
        }
        commands
    }

    fn command(&mut self, body: impl Into<CommandBody>) -> Command {
        self.made += 1;
        let mut key = [0; 16];
        key[..4].copy_from_slice(&self.lane.to_be_bytes());
        // Keys are hashes in the product: these are spread alike.
        key[4..8].copy_from_slice(&(self.made as u32).wrapping_mul(0x9e37_79b1).to_be_bytes());
        key[8..].copy_from_slice(&self.made.to_be_bytes());
        Command::new(IdempotencyKey(key), Actor::Gateway, body)
    }

    fn next_random(&mut self) -> u64 {
        // xorshift64*: fast, and the same on every machine.
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        self.random.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, bound: u32) -> u32 {
        ((u128::from(self.next_random()) * u128::from(bound)) >> 64) as u32
    }
}

fn account_id(number: u32) -> AccountId {
    let mut id = [0x77; 16];
    // Real ids are random: these are spread alike.
    id[..8].copy_from_slice(&u64::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    id[8..12].copy_from_slice(&number.to_be_bytes());
    AccountId(id)
}
