//! A ledger in a test: commands in, events applied live, and the same log replayed from bytes beside it. After every
//! command the invariants are checked; at the end the auditor, who shares no code with the ledger, replays the log too.
#![allow(dead_code, reason = "each test binary uses a part")]

// The writer of logs on disk that the auditor's own tests use.
#[path = "../../../auditor/tests/audit/log.rs"]
mod disk;

use auditor::replay::{ReplayOptions, replay};
use auditor::settlement::{self, ServedRequest};
use ledger::command::*;
use ledger::{Command, CommandBody, Decision, Refusal, State, apply, decide, end_commit, invariants};
use protocol::amount::Amount;
use protocol::asset::{Asset, AssetId, VaultRef};
use protocol::codec::{decode_event, encode_event};
use protocol::commit::{COMMIT_VERSION, Commit};
use protocol::event::account::SpendAuthorised;
use protocol::event::batch::{BatchSubmitted, Rail};
use protocol::event::chain::{DepositKey, VaultRegistered};
use protocol::event::grant::{Backing, GrantSource};
use protocol::event::hold::VoidReason;
use protocol::event::job::Outcome;
use protocol::event::node::{NodeRegistered, OperatorRegistered};
use protocol::event::policy::{NetworkOpened, Settings};
use protocol::event::{Actor, Event};
use protocol::id::*;
use protocol::proof::leaf_hash;
use protocol::rate::{ModelRate, ProofClass, RateCard, Unit};

pub const FOIL: AssetId = AssetId(0);
pub const MODEL: &str = "small";
/// A second in microseconds.
pub const S: u64 = 1_000_000;
/// Base units of one vault unit at scale 9.
pub const UNIT: i128 = 1_000;

pub fn vault() -> VaultRef {
    VaultRef { chain_id: 31_337, vault: EvmAddress([0xaa; 20]) }
}
pub fn account(n: u8) -> AccountId {
    AccountId([n; 16])
}
/// Wallet `n` belongs to account `n` once it is linked.
pub fn wallet(n: u8) -> EvmAddress {
    EvmAddress([n; 20])
}
/// Operator `n` earns for account `100 + n` and is paid to its own address.
pub fn operator(n: u8) -> OperatorId {
    OperatorId([n; 32])
}
pub fn payout_address(n: u8) -> EvmAddress {
    EvmAddress([100 + n; 20])
}
pub fn node(n: u8) -> NodeId {
    NodeId([n; 16])
}
pub fn job(n: u32) -> JobId {
    let mut id = [1; 16];
    id[..4].copy_from_slice(&n.to_be_bytes());
    JobId(id)
}
pub fn hold(n: u32) -> HoldId {
    HoldId(job(n).0)
}
pub fn voucher(n: u32) -> VoucherId {
    VoucherId(job(n).0)
}
pub fn batch(n: u32) -> BatchId {
    BatchId(job(n).0)
}
pub fn tx(n: u32) -> Word32 {
    let mut word = [2; 32];
    word[..4].copy_from_slice(&n.to_be_bytes());
    Word32(word)
}

pub fn rate(price: i128, per_units: u64, operator_share_ppm: u32) -> ModelRate {
    ModelRate {
        model: MODEL.into(),
        weights: Hash32([1; 32]),
        tokenizer: Hash32([2; 32]),
        template: Hash32([3; 32]),
        licence: "Apache-2.0".into(),
        proof_class: ProofClass::ReExecutable,
        asset: FOIL,
        unit: Unit::Token,
        price: Amount(price),
        per_units,
        operator_share_ppm,
        context_tokens: 100_000,
    }
}

pub struct World {
    pub state: State,
    /// Fed only from bytes.
    pub replica: State,
    pub now_us: u64,
    pub log: Vec<Vec<u8>>,
    pub commit_hashes: Vec<(Hash32, u64)>,
    next_key: u32,
}

impl World {
    /// Before the first event.
    pub fn empty() -> World {
        let (state, replica) = (State::new(0), State::new(0));
        World { state, replica, now_us: S, log: Vec::new(), commit_hashes: Vec::new(), next_key: 0 }
    }

    /// Network, vault, rate card (version 1), operators 1 and 2 with nodes 1 and 2, accounts 1 to 3.
    pub fn open(rate: ModelRate) -> World {
        World::open_with(rate, settings())
    }

    pub fn open_with(rate: ModelRate, settings: Settings) -> World {
        let mut world = World::empty();
        world.must(NetworkOpened {
            origin: "test.example/prepaid/0".into(),
            preset: "test".into(),
            preset_hash: Hash32([9; 32]),
            assets: vec![Asset { id: FOIL, symbol: "FOIL".into(), ledger_scale: 9, chain_scale: Some(18) }],
            settings,
        });
        world.must(VaultRegistered {
            vault: vault(),
            payouts: EvmAddress([0xbb; 20]),
            token: EvmAddress([0xcc; 20]),
            asset: FOIL,
            deployed_block: 1,
            coordinator: EvmAddress([0xdd; 20]),
            platform: EvmAddress([0xee; 20]),
        });
        world.publish(1, 0, rate).expect("first card");
        for n in 1..=3 {
            world.must(OpenAccount { account: account(n) });
        }
        for n in 1..=2 {
            world.must(OpenAccount { account: account(100 + n) });
            world.must(OperatorRegistered {
                operator: operator(n),
                account: account(100 + n),
                payout_address: payout_address(n),
            });
            world.must(NodeRegistered {
                node: node(n),
                operator: operator(n),
                models: vec![MODEL.into()],
                slots: 4,
                sealing_key: SealingKey([n; 32]),
            });
        }
        world
    }

    pub fn publish(
        &mut self,
        version: u32,
        effective_us: u64,
        rate: ModelRate,
    ) -> Result<Vec<Event>, Refusal> {
        let card = RateCard { version, effective_us, headroom_ppm: 0, models: vec![rate] };
        self.run(PublishRateCard { card })
    }

    pub fn must(&mut self, body: impl Into<CommandBody>) -> Vec<Event> {
        let body = body.into();
        let what = format!("{body:?}");
        self.run(body).unwrap_or_else(|refusal| panic!("{what} was refused: {refusal}"))
    }

    pub fn run(&mut self, body: impl Into<CommandBody>) -> Result<Vec<Event>, Refusal> {
        self.next_key += 1;
        let key = IdempotencyKey::internal("test", &[&self.next_key.to_be_bytes()]);
        let command = Command::new(key, Actor::Admin, body);
        match self.run_command(&command)? {
            Decision::New(events) => Ok(events),
            Decision::Repeated { .. } => panic!("a fresh key cannot repeat"),
        }
    }

    /// Decides, writes, applies and replays one command as one commit.
    pub fn run_command(&mut self, command: &Command) -> Result<Decision, Refusal> {
        let decision = decide(&self.state, command, self.now_us)?;
        if let Decision::New(events) = &decision {
            assert!(!events.is_empty());
            let bytes: Vec<Vec<u8>> = events.iter().map(|event| encode_event(event).unwrap()).collect();
            let commit = Commit {
                version: COMMIT_VERSION,
                shard: 0,
                writer_epoch: self.state.writer_epoch(),
                number: self.state.last_commit() + 1,
                first_leaf: self.state.next_leaf(),
                time_us: events[0].header.time_us,
                previous: self.state.last_commit_hash(),
                events: bytes.iter().map(|b| b.clone().into()).collect(),
            };
            assert_eq!(&commit.decode_events().unwrap(), events);
            let hash = Commit::hash(&protocol::codec::encode(&commit));
            for event in events {
                apply(&mut self.state, event).unwrap();
                invariants::check(&self.state).unwrap_or_else(|e| panic!("{e}\nafter {event:?}"));
            }
            end_commit(&mut self.state, commit.number, hash, commit.time_us).unwrap();
            for bytes in &bytes {
                apply(&mut self.replica, &decode_event(bytes).unwrap()).unwrap();
            }
            end_commit(&mut self.replica, commit.number, hash, commit.time_us).unwrap();
            self.log.extend(bytes);
            self.commit_hashes.push((hash, commit.time_us));
        }
        Ok(decision)
    }

    pub fn available(&self, n: u8) -> i128 {
        let balances = ledger::query::balance(&self.state, account(n), self.now_us);
        balances.iter().map(|balance| balance.available.0).sum()
    }

    pub fn held(&self, n: u8) -> i128 {
        let balances = ledger::query::balance(&self.state, account(n), self.now_us);
        balances.iter().map(|balance| balance.held.0).sum()
    }

    pub fn total(&self, n: u8) -> i128 {
        let balances = ledger::query::balance(&self.state, account(n), self.now_us);
        balances.iter().map(|balance| balance.total.0).sum()
    }

    pub fn grant(&mut self, n: u8, amount: i128, expires_us: Option<u64>) -> Vec<Event> {
        self.must(IssueGrant {
            account: account(n),
            source: GrantSource::Promo,
            asset: FOIL,
            amount: Amount(amount),
            priority: ledger::grants::PRIORITY_PROMO,
            scope: vec![],
            expires_us,
            backing: Backing::Unbacked,
        })
    }

    pub fn authorise(&mut self, n: u8, cap_units: u64) -> Result<Vec<Event>, Refusal> {
        self.run(SpendAuthorised {
            account: account(n),
            vault: vault(),
            wallet: wallet(n),
            max_cumulative_units: cap_units,
            valid_until_s: u32::MAX,
            nonce: 0,
            session: Hash32([4; 32]),
            signature: None,
        })
    }

    pub fn deposit(&mut self, n: u8, units: u64, ordinal: u32) -> Result<Vec<Event>, Refusal> {
        self.run(deposit(n, units, ordinal))
    }

    pub fn admit(&mut self, n: u8, id: u32, input: u64, output_max: u64) -> Result<Vec<Event>, Refusal> {
        let command = self.admission(n, id, input, output_max);
        self.run(command)
    }

    pub fn admission(&self, n: u8, id: u32, input: u64, output_max: u64) -> Admit {
        Admit {
            hold: hold(id),
            job: job(id),
            account: account(n),
            model: MODEL.into(),
            input_units: input,
            output_units_max: output_max,
            deadline_us: self.now_us + 60 * S,
            node: node(1 + (id % 2) as u8),
            body: Hash32([5; 32]),
            spender: None,
        }
    }

    pub fn capture(&mut self, id: u32, input: u64, output: u64) -> Result<Vec<Event>, Refusal> {
        self.run(capture(id, input, output, output))
    }

    pub fn void(&mut self, id: u32) -> Result<Vec<Event>, Refusal> {
        self.run(Void { job: job(id), reason: VoidReason::NoUsage })
    }

    pub fn voucher(&mut self, n: u8, id: u32, units: u64, nonce: u64) -> Result<Vec<Event>, Refusal> {
        let deadline_s = self.now_us / S + 600;
        self.run(IssueVoucher {
            voucher: voucher(id),
            account: account(n),
            vault: vault(),
            wallet: wallet(n),
            units,
            nonce,
            deadline_s,
        })
    }

    pub fn redeem(&mut self, n: u8, units: u64, nonce: u64) -> Result<Vec<Event>, Refusal> {
        self.run(RedeemVoucher { vault: vault(), wallet: wallet(n), nonce, units, tx: tx(7) })
    }

    pub fn close_batch(&mut self, id: u32) -> Result<Vec<Event>, Refusal> {
        self.close_without(id, &[])
    }

    pub fn close_without(&mut self, id: u32, left_out: &[u8]) -> Result<Vec<Event>, Refusal> {
        let without = left_out.iter().map(|n| wallet(*n)).collect();
        self.run(CloseBatch { batch: batch(id), vault: vault(), rail: Rail::RootClaims, without })
    }

    /// Roots and commitment as the settler makes them, computed by the auditor's code.
    pub fn submit_batch(&mut self, id: u32) -> Result<Vec<Event>, Refusal> {
        let submission = self.submission(id);
        self.run(submission)
    }

    pub fn submission(&self, id: u32) -> BatchSubmitted {
        let view = ledger::query::batch(&self.state, batch(id));
        let number = view.as_ref().map_or(0, |view| view.number);
        let payouts = view.map(|view| view.payouts).unwrap_or_default();
        let line = |line: ledger::query::RequestLine| ServedRequest {
            job: line.job,
            operator: line.payout_address,
            amount_base_units: line.amount.0.unsigned_abs(),
            receipt: line.receipt,
        };
        let requests: Vec<ServedRequest> =
            ledger::query::batch_requests(&self.state, batch(id)).into_iter().map(line).collect();
        let requests_root = settlement::requests_root(vault(), number, &requests);
        let paid = payouts.iter().filter(|payout| payout.cumulative_units > 0);
        let payout_root = settlement::payout_root(paid.map(|p| (p.address, p.cumulative_units)));
        let hashes: Vec<Hash32> = self.log.iter().map(|bytes| leaf_hash(bytes)).collect();
        let (tlog_size, tlog_root) = (self.state.next_leaf(), disk::root(&hashes));
        BatchSubmitted {
            batch: batch(id),
            payout_root,
            root_total_units: payouts.iter().map(|payout| payout.cumulative_units).sum(),
            requests_root,
            tlog_size,
            tlog_root,
            commitment: settlement::commitment(requests_root, tlog_size, tlog_root),
        }
    }

    pub fn confirm_batch(&mut self, id: u32) -> Result<Vec<Event>, Refusal> {
        let charged_units = ledger::query::batch(&self.state, batch(id)).map_or(0, |view| view.charged_units);
        self.run(ConfirmBatch { batch: batch(id), tx: tx(9), block: 5, block_hash: tx(5), charged_units })
    }

    pub fn claim(&mut self, address: EvmAddress, units: u64, nth: u32) -> Result<Vec<Event>, Refusal> {
        self.run(RecordClaim { vault: vault(), address, units, tx: tx(1_000 + nth) })
    }

    /// Replay from bytes and snapshots must give the very state, and the second replayer must agree.
    pub fn check_replay(&self) {
        self.check_rebuild();
        self.check_audit();
    }

    /// Replay from bytes and snapshots must give the very state.
    pub fn check_rebuild(&self) {
        let live = ledger::snapshot::write(&self.state);
        assert_eq!(live, ledger::snapshot::write(&self.replica), "replay is not the live state");
        let read = ledger::snapshot::read(&live).unwrap();
        assert_eq!(read, self.state);
        assert_eq!(read.hash(), self.state.hash());
    }

    /// The second replayer finds nothing in a log that the ledger made.
    fn check_audit(&self) {
        let dir = tempfile::tempdir().unwrap();
        disk::write(dir.path(), &self.log);
        let options = ReplayOptions { directory: dir.path().to_owned(), policy: None, at: None };
        let report = replay(&options).unwrap();
        assert_eq!(report.exit_code, 0, "{}", auditor::report::text::render(&report));
    }

    /// A snapshot taken after `commits` commits, with the rest of the log, must give the very state.
    pub fn check_snapshot_and_suffix(&self, commits: usize) {
        let mut state = State::new(0);
        let events: Vec<Event> = self.log.iter().map(|bytes| decode_event(bytes).unwrap()).collect();
        for (k, (hash, time_us)) in self.commit_hashes.iter().enumerate() {
            if k == commits {
                state = ledger::snapshot::read(&ledger::snapshot::write(&state)).unwrap();
            }
            let number = k as u64 + 1;
            for event in events.iter().filter(|event| event.header.commit == number) {
                apply(&mut state, event).unwrap();
            }
            end_commit(&mut state, number, *hash, *time_us).unwrap();
        }
        assert_eq!(ledger::snapshot::write(&state), ledger::snapshot::write(&self.state));
    }
}

pub fn settings() -> Settings {
    Settings {
        epoch_us: 100 * S,
        hold_grace_us: 10 * S,
        job_deadline_us_max: 600 * S,
        idempotency_us: 86_400 * S,
        settle_units_min: 0,
        voucher_us: 3_600 * S,
        authorisation_margin_epochs: 2,
        capture_tolerance_ppm: None,
    }
}

pub fn deposit(n: u8, units: u64, ordinal: u32) -> ConfirmDeposit {
    ConfirmDeposit {
        key: DepositKey { vault: vault(), tx: tx(u32::from(n)), ordinal },
        wallet: wallet(n),
        units,
        block: 10,
        block_hash: tx(10),
    }
}

pub fn capture(id: u32, input: u64, worker: u64, gateway: u64) -> Capture {
    Capture {
        job: job(id),
        attempt: 0,
        outcome: Outcome::Completed,
        input_units: input,
        output_units_worker: worker,
        output_units_gateway: gateway,
        receipt: Hash32([7; 32]),
        chain_head: Hash32([8; 32]),
        part: None,
    }
}
