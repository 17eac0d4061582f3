//! Random command sequences against a naive model of all the money rules: the ledger accepts what the model accepts,
//! refuses the rest by the same name, and comes to the same figures after every command. Cases: env PROPTEST_CASES.

mod model;
mod ops;
mod vault;
mod work;
#[path = "../world/mod.rs"]
mod world;

use ledger::command::OpenAccount;
use ledger::query::{self, JobStatus};
use ledger::{Decision, Refusal};
use model::{Answer, Model, No, Node, Operator, Rules};
use ops::{Builder, CRED, Op, What, op, rates};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use protocol::asset::{Asset, AssetId};
use protocol::event::account::AccountKind;
use protocol::event::chain::VaultRegistered;
use protocol::event::grant::GrantSource;
use protocol::event::node::{NodeRegistered, OperatorRegistered};
use protocol::event::policy::{NetworkOpened, Settings};
use protocol::id::*;
use protocol::rate::RateCard;
use std::collections::BTreeMap;
use world::*;

/// Nodes: the first and the third belong to operators of one account.
const NODES: [(u8, u8, &[&str]); 3] = [
    (1, 101, &["gift", "small", "tall", "zinc"]),
    (2, 102, &["small", "tall"]),
    (3, 101, &["small", "tall", "zinc"]),
];

/// The ledger and the model side by side.
struct Pair {
    world: World,
    model: Model,
    builder: Builder,
    /// How often each operation came to what.
    seen: BTreeMap<(What, No), u32>,
}

fn choose_settings(n: u8) -> Settings {
    Settings {
        idempotency_us: 200 * S,
        settle_units_min: if n & 1 == 0 { 0 } else { 3 },
        capture_tolerance_ppm: if n & 2 == 0 { None } else { Some(250_000) },
        authorisation_margin_epochs: u32::from(n & 4 == 0) * 2,
        ..settings()
    }
}

fn open(settings: &Settings) -> World {
    let mut world = World::empty();
    let asset =
        |id, symbol: &str, chain_scale| Asset { id, symbol: symbol.into(), ledger_scale: 9, chain_scale };
    world.must(NetworkOpened {
        origin: "test.example/naive/0".into(),
        preset: "test".into(),
        preset_hash: Hash32([9; 32]),
        assets: vec![asset(FOIL, "FOIL", Some(18)), asset(CRED, "CRED", None)],
        settings: settings.clone(),
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
    let card = RateCard { version: 1, effective_us: 0, headroom_ppm: 0, models: rates(1) };
    world.must(ledger::command::PublishRateCard { card });
    for n in [1, 2, 3, 101, 102] {
        world.must(OpenAccount { account: account(n) });
    }
    for (n, owner, models) in NODES {
        let payout_address = payout_address(owner - 100);
        world.must(OperatorRegistered { operator: operator(n), account: account(owner), payout_address });
        let models = models.iter().map(|name| (*name).to_owned()).collect();
        let sealing_key = SealingKey([n; 32]);
        world.must(NodeRegistered { node: node(n), operator: operator(n), models, slots: 4, sealing_key });
    }
    world
}

fn model_of(world: &World, settings: &Settings) -> Model {
    let rules = Rules {
        keep_us: settings.idempotency_us,
        grace_us: settings.hold_grace_us,
        deadline_us_max: settings.job_deadline_us_max,
        voucher_us: settings.voucher_us,
        epoch_us: settings.epoch_us,
        margin_epochs: u64::from(settings.authorisation_margin_epochs),
        settle_units_min: i128::from(settings.settle_units_min),
        tolerance_ppm: i128::from(settings.capture_tolerance_ppm.unwrap_or(0)),
    };
    let address = |owner: u8| payout_address(owner - 100);
    let operators = NODES
        .map(|(n, owner, _)| (operator(n), Operator { account: account(owner), address: address(owner) }));
    let nodes = NODES.map(|(n, _, models)| {
        let models = models.iter().map(|name| (*name).to_owned()).collect();
        (node(n), Node { operator: operator(n), models, retired: false })
    });
    Model {
        rules,
        now_us: S,
        commit: world.commit_hashes.len() as u64,
        keys: BTreeMap::new(),
        accounts: [1, 2, 3, 101, 102].map(|n| (account(n), true)).into(),
        debts: BTreeMap::new(),
        buckets: Vec::new(),
        lines: BTreeMap::new(),
        caps: BTreeMap::new(),
        earnings: BTreeMap::new(),
        jobs: BTreeMap::new(),
        carries: BTreeMap::new(),
        cards: vec![(0, rates(1))],
        operators: operators.into(),
        nodes: nodes.into(),
        wallets: BTreeMap::new(),
        deposits: BTreeMap::new(),
        vouchers: BTreeMap::new(),
        batches: BTreeMap::new(),
        payees: BTreeMap::new(),
        claims: Default::default(),
        counters: BTreeMap::new(),
        entries: 0,
    }
}

impl Pair {
    fn new(settings: u8) -> Pair {
        let settings = choose_settings(settings);
        let world = open(&settings);
        let model = model_of(&world, &settings);
        Pair { world, model, builder: Builder::default(), seen: BTreeMap::new() }
    }

    fn step(&mut self, op: &Op) {
        let Some(command) = self.builder.command(op, &self.model, &mut self.world) else { return };
        let expected = self.model.submit(&command, self.world.now_us);
        let came = self.world.run_command(&command);
        let (name, same) = match (&expected, &came) {
            (Ok(Answer::New), Ok(Decision::New(_))) => ("done", true),
            (Ok(Answer::Repeated { commit: a }), Ok(Decision::Repeated { commit: b, .. })) => {
                ("repeated", a == b)
            }
            (Err(no), Err(refusal)) => (*no, *no == refusal.name()),
            _ => ("", false),
        };
        let came = came.as_ref().map_err(Refusal::name);
        assert!(same, "{command:?}\nmodel: {expected:?}, ledger: {came:?}");
        *self.seen.entry((op.what, name)).or_default() += 1;
    }

    /// Every figure that both sides know.
    fn compare(&self) {
        self.compare_books();
        self.compare_balances();
        self.compare_jobs();
        self.compare_wallets();
        let first = self.model.timers().first().map(|(at_us, ..)| *at_us);
        assert_eq!(query::next_due_us(&self.world.state), first, "the next timer");
    }

    /// Ledger accounts, booked and reserved, as they follow from the model's things.
    fn compare_books(&self) {
        let model = &self.model;
        let mut booked = model.counters.clone();
        let mut reserved: BTreeMap<(AccountId, AccountKind, AssetId), i128> = BTreeMap::new();
        let mut book =
            |owner, kind, asset, credit: i128| *booked.entry((owner, kind, asset)).or_default() += credit;
        for (k, bucket) in model.buckets.iter().enumerate() {
            let (owner, kind, asset) = (bucket.owner, customer_kind(bucket.source), bucket.asset);
            let taken = model.held(k) + bucket.promised;
            book(owner, kind, asset, bucket.free + taken);
            *reserved.entry((owner, kind, asset)).or_default() += taken;
            *reserved.entry((AccountId::SYSTEM, AccountKind::HoldsPending, asset)).or_default() -= taken;
            if bucket.source == GrantSource::CreditLine {
                book(AccountId::SYSTEM, AccountKind::CreditLines, asset, -bucket.free - taken);
            }
        }
        for ((owner, asset), line) in &model.lines {
            book(*owner, AccountKind::Receivable, *asset, -line.drawn);
        }
        for ((owner, asset), debt) in &model.debts {
            book(*owner, AccountKind::Receivable, *asset, -debt);
        }
        for row in model.wallets.values() {
            let in_vault = (row.deposited - row.withdrawn - row.charged) * UNIT;
            book(AccountId::SYSTEM, AccountKind::VaultAsset, FOIL, -in_vault);
            book(AccountId::SYSTEM, AccountKind::UnattributedDeposits, FOIL, row.waiting);
        }
        for line in query::trial_balance(&self.world.state) {
            let key = (line.owner, line.kind, line.asset);
            let credit = line.credits_posted.0 - line.debits_posted.0;
            assert_eq!(credit, booked.remove(&key).unwrap_or(0), "booked in {key:?}");
            let taken = line.debits_pending.0 - line.credits_pending.0;
            assert_eq!(taken, reserved.remove(&key).unwrap_or(0), "reserved in {key:?}");
        }
        let missing = booked.iter().chain(&reserved).find(|(_, amount)| **amount != 0);
        assert_eq!(missing, None, "a ledger account that the ledger does not have");
    }

    fn compare_balances(&self) {
        let (model, now_us) = (&self.model, self.world.now_us);
        for (id, open) in &model.accounts {
            let frozen = !open || model.owes(*id);
            let gives = |k: usize| if frozen { 0 } else { model.gives(k, now_us) };
            let mut left = model.order(*id);
            for balance in query::balance(&self.world.state, *id, now_us) {
                let owed = model.debts.get(&(*id, balance.asset)).copied().unwrap_or(0);
                assert_eq!(balance.owed.0, owed, "owed by {id}");
                let all = balance.grants.iter();
                assert_eq!(balance.available.0, all.map(|grant| grant.spendable.0).sum::<i128>());
                for view in &balance.grants {
                    let at = left.iter().position(|k| *k == view.id.0 as usize).expect("a bucket of his");
                    let k = left.remove(at);
                    let bucket = &model.buckets[k];
                    let held = model.held(k);
                    let expected = (held, bucket.free + held + bucket.promised, gives(k));
                    assert_eq!((view.held.0, view.remaining.0, view.spendable.0), expected, "bucket {k}");
                    assert_eq!((view.backing, view.source), (bucket.backing, bucket.source), "bucket {k}");
                }
            }
            for k in left {
                let bucket = &model.buckets[k];
                assert_eq!(
                    bucket.free + model.held(k) + bucket.promised,
                    0,
                    "bucket {k} is forgotten too early"
                );
            }
        }
        for (n, owner, _) in NODES {
            for line in query::earnings(&self.world.state, operator(n)) {
                let waiting =
                    |backing| model.earnings.get(&(account(owner), line.asset, backing)).map_or(0, |e| e.0);
                let mine = model
                    .earnings
                    .iter()
                    .filter(|((of, asset, _), _)| (*of, *asset) == (account(owner), line.asset));
                assert_eq!(line.unbacked.0, mine.map(|(_, earning)| earning.0).sum::<i128>());
                assert!(line.takeable.iter().all(|part| part.amount.0 == waiting(part.backing)), "{line:?}");
            }
        }
    }

    fn compare_jobs(&self) {
        for (id, job) in &self.model.jobs {
            let view = query::job(&self.world.state, *id).expect("the model knows it");
            let status = match job.ended {
                None => JobStatus::Running,
                Some(("captured", _)) => JobStatus::Captured,
                Some(("voided", _)) => JobStatus::Voided,
                Some(_) => JobStatus::Expired,
            };
            assert_eq!((view.status, view.amount.0, view.due_us), (status, job.amount, job.due_us), "{id}");
            let sum = |of: fn(&model::Part) -> i128| job.parts.iter().map(of).sum::<i128>();
            let expected =
                (sum(|part| part.cost), sum(|part| part.share), sum(|part| i128::from(part.output)));
            let charge = view.charge.map_or((0, 0, 0), |charge| {
                (charge.cost.0, charge.operator_share.0, i128::from(charge.output_units))
            });
            assert_eq!(charge, expected, "{id}");
        }
        let open = query::open_jobs(&self.world.state).len();
        assert_eq!(open, self.model.jobs.values().filter(|job| job.ended.is_none()).count(), "running jobs");
    }

    fn compare_wallets(&self) {
        for (address, row) in &self.model.wallets {
            let view = query::wallet(&self.world.state, vault(), *address).expect("the model knows it");
            let came = (view.account, view.captured.0, i128::from(view.charged_units), view.unattributed.0);
            assert_eq!(came, (row.account, row.captured, row.charged, row.waiting), "{address}");
            let came = (
                i128::from(view.deposited_units),
                i128::from(view.withdrawn_units),
                view.exit_at_s.is_some(),
            );
            assert_eq!(came, (row.deposited, row.withdrawn, row.leaving), "{address}");
        }
        for (id, expected) in &self.model.batches {
            let view = query::batch(&self.world.state, *id).expect("the model knows it");
            let payouts = view.payouts.iter().map(|payout| {
                let units = (i128::from(payout.cumulative_units), i128::from(payout.added_units));
                (payout.account, payout.address, units.0, units.1)
            });
            assert_eq!(payouts.collect::<Vec<_>>(), expected.payouts, "payouts of {id}");
            let charged: i128 = expected.charges.iter().map(|charge| charge.2).sum();
            assert_eq!(i128::from(view.charged_units), charged, "charges of {id}");
        }
    }
}

fn customer_kind(source: GrantSource) -> AccountKind {
    match source {
        GrantSource::Deposited => AccountKind::CustomerDeposited,
        GrantSource::Package => AccountKind::CustomerPackage,
        GrantSource::Earned => AccountKind::CustomerEarned,
        GrantSource::Allotment => AccountKind::CustomerAllotment,
        GrantSource::Promo => AccountKind::CustomerPromo,
        GrantSource::CreditLine => AccountKind::CustomerCredit,
    }
}

fn run(ops: &[Op], settings: u8) -> Pair {
    let mut pair = Pair::new(settings);
    for op in Builder::opening().iter().chain(ops) {
        pair.step(op);
        pair.compare();
    }
    pair
}

fn sequences() -> impl Strategy<Value = Vec<Op>> {
    prop::collection::vec(op(), 1..240)
}

proptest! {
    #![proptest_config(ProptestConfig::default())]

    /// Same answers, same refusals, same figures; then replay, the snapshot's bytes and the auditor agree too.
    #[test]
    fn the_ledger_is_the_naive_model(ops in sequences(), settings in 0u8..8) {
        run(&ops, settings).world.check_replay();
    }
}

/// Refusals that random sequences must meet, and operations that must succeed: otherwise the property proves little.
const MET: &[No] = &[
    "account_closed",
    "account_frozen",
    "account_known",
    "account_not_empty",
    "account_unknown",
    "already_reversed",
    "asset_unknown",
    "attempt_number",
    "attempt_unknown",
    "authorisation_expired",
    "authorisation_nonce",
    "authorisation_not_higher",
    "batch_known",
    "batch_not_open",
    "batch_open",
    "batch_unknown",
    "beyond_tolerance",
    "capture_in_batch",
    "claim_known",
    "context_exceeded",
    "credit_line_invalid",
    "credit_line_unknown",
    "cut_goes_back",
    "deadline_out_of_range",
    "deadline_passed",
    "deposit_known",
    "deposit_unknown",
    "earnings_on_chain",
    "earnings_spent",
    "exit_pending",
    "extension_invalid",
    "grant_invalid",
    "grant_unknown",
    "hold_closed",
    "holds_open",
    "input_above_hold",
    "insufficient_credit",
    "job_known",
    "job_unknown",
    "key_reused",
    "key_time_ahead",
    "model_not_served",
    "model_unknown",
    "more_than_claimable",
    "more_than_earned",
    "more_than_withdrawable",
    "move_refused",
    "no_exit_pending",
    "node_retired",
    "node_unknown",
    "nonce_in_use",
    "not_captured",
    "nothing_delivered",
    "nothing_due",
    "nothing_to_charge",
    "output_above_hold",
    "output_bound_zero",
    "outside_cut",
    "part_goes_back",
    "part_number",
    "payee_unknown",
    "rate_card_in_the_past",
    "rate_card_version",
    "repays_more_than_drawn",
    "spend_cap_invalid",
    "spend_cap_reached",
    "too_late",
    "too_old",
    "units_differ",
    "units_zero",
    "voucher_closed",
    "voucher_known",
    "voucher_not_open",
    "voucher_unknown",
    "wallet_linked_elsewhere",
    "wallet_not_linked",
    "done",
    "repeated",
];

#[test]
fn random_sequences_meet_every_rule() {
    let mut runner = TestRunner::deterministic();
    let mut seen: BTreeMap<(What, No), u32> = BTreeMap::new();
    for settings in (0..8).cycle().take(160) {
        let ops = sequences().new_tree(&mut runner).expect("a tree").current();
        for (key, count) in run(&ops, settings).seen {
            *seen.entry(key).or_default() += count;
        }
    }
    let missing: Vec<_> = MET.iter().filter(|name| !seen.keys().any(|(_, no)| no == *name)).collect();
    let idle = seen.keys().map(|(what, _)| *what).filter(|what| !seen.contains_key(&(*what, "done")));
    let mut idle: Vec<What> = idle.filter(|what| !matches!(what, What::Advance | What::ClockBack)).collect();
    idle.dedup();
    assert!(missing.is_empty() && idle.is_empty(), "never met: {missing:?}; never done: {idle:?}\n{seen:#?}");
}
