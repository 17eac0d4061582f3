//! A log by hand with one event of every kind at least, whose legs add up: what golden files are made from.
#![allow(dead_code, reason = "each test binary uses a part")]

use protocol::amount::Amount;
use protocol::asset::{Asset, AssetId, VaultRef};
use protocol::event::account::*;
use protocol::event::batch::*;
use protocol::event::chain::*;
use protocol::event::economy::*;
use protocol::event::grant::*;
use protocol::event::hold::*;
use protocol::event::job::*;
use protocol::event::node::*;
use protocol::event::policy::*;
use protocol::event::*;
use protocol::id::*;
use protocol::rate::{ModelRate, ProofClass, RateCard, Unit};

pub const ALICE: AccountId = AccountId([1; 16]);
pub const BOB: AccountId = AccountId([2; 16]);
pub const EARNER: AccountId = AccountId([9; 16]);
pub const WALLET: EvmAddress = EvmAddress([0x11; 20]);
pub const OPERATOR: OperatorId = OperatorId([7; 32]);
pub const NODE: NodeId = NodeId([8; 16]);
pub const HOLD: HoldId = HoldId([0x21; 16]);
pub const JOB: JobId = JobId([0x31; 16]);
pub const BATCH: BatchId = BatchId([0x41; 16]);
const FOIL: AssetId = AssetId(0);

pub fn vault() -> VaultRef {
    VaultRef { chain_id: 31_337, vault: EvmAddress([0xaa; 20]) }
}

/// Ledger accounts by number, as the log opens them.
const ACCOUNTS: [(AccountId, AccountKind); 17] = [
    (AccountId::SYSTEM, AccountKind::PromoExpense),
    (AccountId::SYSTEM, AccountKind::HoldsPending),
    (AccountId::SYSTEM, AccountKind::PlatformRevenue),
    (AccountId::SYSTEM, AccountKind::Breakage),
    (AccountId::SYSTEM, AccountKind::VaultAsset),
    (AccountId::SYSTEM, AccountKind::PotAsset),
    (AccountId::SYSTEM, AccountKind::CreditLines),
    (ALICE, AccountKind::CustomerPromo),
    (ALICE, AccountKind::CustomerDeposited),
    (ALICE, AccountKind::CustomerCredit),
    (ALICE, AccountKind::Receivable),
    (EARNER, AccountKind::OperatorAccrued),
    (EARNER, AccountKind::OperatorSettling),
    (EARNER, AccountKind::OperatorPayable),
    (AccountId::SYSTEM, AccountKind::UnattributedDeposits),
    (AccountId::SYSTEM, AccountKind::PlatformTreasury),
    (ALICE, AccountKind::CustomerEarned),
];
pub const PROMO_EXPENSE: u32 = 0;
const HOLDS: u32 = 1;
const REVENUE: u32 = 2;
const BREAKAGE: u32 = 3;
const VAULT: u32 = 4;
const POT: u32 = 5;
const LINES: u32 = 6;
pub const PROMO: u32 = 7;
pub const DEPOSITED: u32 = 8;
const CREDIT: u32 = 9;
const OWED: u32 = 10;
const ACCRUED: u32 = 11;
const SETTLING: u32 = 12;
const PAYABLE: u32 = 13;
const WAITING: u32 = 14;
const TREASURY: u32 = 15;
const EARNED: u32 = 16;

/// Writes events with their places; the legs are given as (ledger account, base units).
pub struct Log {
    pub events: Vec<Event>,
}

type Legs<'a> = &'a [(u32, i128)];

impl Log {
    fn add(&mut self, body: impl Into<EventBody>, booked: Legs<'_>, reserved: Legs<'_>) {
        let leaf = self.events.len() as u64;
        let legs = |legs: Legs<'_>| {
            let leg =
                |(n, amount): &(u32, i128)| Posting { account: LedgerAccount(*n), amount: Amount(*amount) };
            legs.iter().map(leg).collect()
        };
        self.events.push(Event {
            version: EVENT_VERSION,
            header: Header {
                shard: 0,
                leaf,
                commit: leaf + 1,
                time_us: 1_790_000_000_000_000 + leaf * 60_000_000,
                actor: Actor::Admin,
                key: IdempotencyKey([leaf as u8; 16]),
                command: 0,
            },
            body: body.into(),
            postings: legs(booked),
            pending: legs(reserved),
        });
    }

    fn plain(&mut self, body: impl Into<EventBody>) {
        self.add(body, &[], &[]);
    }
}

/// The whole story: one event of every kind, and a job charged in two parts.
pub fn log() -> Vec<Event> {
    let mut log = Log { events: Vec::new() };
    network(&mut log);
    credit(&mut log);
    chain(&mut log);
    jobs(&mut log);
    batches(&mut log);
    leaving(&mut log);
    log.events
}

/// The story, and after it what needs no export of its own: the operator takes what it earned by promotional credit.
#[allow(dead_code, reason = "each test binary uses a part")]
pub fn log_with_earnings() -> Vec<Event> {
    let mut log = Log { events: log() };
    let owner = EARNER;
    let number = LedgerAccount(ACCOUNTS.len() as u32);
    let kind = AccountKind::CustomerEarned;
    log.plain(LedgerAccountsOpened {
        opened: vec![OpenedLedgerAccount { number, owner, kind, asset: FOIL }],
    });
    let bucket = grant(4, GrantSource::Earned, 0, Backing::Unbacked);
    log.plain(GrantIssued { account: EARNER, priority: 40, ..bucket });
    let taken = EarningsTaken { grant: GrantId(4), amount: Amount(320) };
    log.add(taken, &[(ACCRUED, 320), (number.0, -320)], &[]);
    allotments(&mut log);
    conduct(&mut log);
    log.events
}

fn allotments(log: &mut Log) {
    log.plain(EconomyPublished {
        version: 1,
        day_us: 86_400_000_000,
        allotment: None,
        sign_up: None,
        bounties: None,
        conduct: None,
        packages: Some(PackageRules {
            service_ppm_target: 990_000,
            first_token_ms_max: 2_000,
            credit_ppm: 100_000,
            credit_life_us: 2_592_000_000_000,
            concurrency: 8,
        }),
    });
    log.plain(AllotmentDayOpened {
        day: 20_717,
        block: 700,
        block_hash: Word32([0x91; 32]),
        stake_units_total: 200_000_000,
        reserve_units: 25_000_000,
        revenue_mean_7: Amount(3_571_428_571),
        usage_mean_7: Amount(11),
        usage_mean_28: Amount(10),
        pool_before: Amount(5_000_000_000),
        ratio_ppm: 1_100_000,
        pool: Amount(1_785_714_285),
    });
    let (account, wallet, stake_units) = (BOB, WALLET, 150_000_000);
    log.plain(StakeAllotted { day: 20_717, account, wallet, stake_units, amount: Amount(9), grant: None });
    let (day_left, left) = (Amount(900), Amount(99_900));
    log.plain(SignUpCredited { account: BOB, grant: GrantId(0), day_left, left });
    log.plain(ServiceMeasured {
        package: GrantId(1),
        day: 20_716,
        requests: 100,
        requests_met: 98,
        spent: Amount(1_000),
        credit: Amount(100),
        grant: Some(GrantId(0)),
    });
    let batch = BatchId([0x43; 16]);
    let address = EvmAddress([0x99; 20]);
    let payouts = vec![Payout { account: EARNER, address, cumulative_units: 9, added_units: 4 }];
    let closed = TreasuryEpochClosed { batch, epoch: 1, day: 20_717, asset: FOIL, payouts };
    log.add(closed, &[(ACCRUED, 4_000), (SETTLING, -4_000)], &[]);
    let paid = TreasuryEpochPaid { batch, tx: Word32([0x92; 32]), block: 701, units: 4 };
    log.add(paid, &[(SETTLING, 4_000), (TREASURY, -4_000)], &[]);
}

fn conduct(log: &mut Log) {
    let (operator, job, model) = (OPERATOR, JOB, "small".to_owned());
    log.plain(BountyPublished {
        model: model.clone(),
        queue_ms: 900,
        fallback_ppm: 60_000,
        multiplier_ppm: 1_080_000,
        until_us: 1_790_000_000_000_000,
        budget_left: Amount(1_000_000),
    });
    let paid = BountyPaid { job, operator, multiplier_ppm: 1_080_000, base: Amount(100), amount: Amount(8) };
    log.add(paid, &[(REVENUE, 8), (ACCRUED, -8)], &[]);
    let back = BountyTakenBack { job, operator, amount: Amount(8) };
    log.add(back, &[(REVENUE, -8), (ACCRUED, 8)], &[]);
    let until_us = 1_790_259_200_000_000;
    log.plain(PayoutCutStarted { operator, node: NODE, model, cut_ppm: 500_000, until_us });
    let reason = ShareReason::Cut;
    log.plain(JobShareSet { job, operator, card_share_ppm: 800_000, share_ppm: 400_000, reason });
    log.plain(FallbackMarked { operator, share_ppm: Some(0) });
    log.plain(UptimeNoted { operator, online_us: 3_600_000_000, probes_passed: 3, probes_failed: 1 });
    let forfeited = vec![Forfeit { asset: FOIL, backing: Backing::Unbacked, amount: Amount(500) }];
    let struck = OperatorStruck { operator, job, strikes: 2, banned: true, forfeited };
    log.add(struck, &[(ACCRUED, 500), (REVENUE, -500)], &[]);
}

fn network(log: &mut Log) {
    let settings = Settings {
        epoch_us: 21_600_000_000,
        hold_grace_us: 60_000_000,
        job_deadline_us_max: 600_000_000,
        idempotency_us: 86_400_000_000,
        settle_units_min: 0,
        voucher_us: 3_600_000_000,
        authorisation_margin_epochs: 2,
        capture_tolerance_ppm: Some(50_000),
    };
    log.plain(NetworkOpened {
        origin: "books.test/0".into(),
        preset: "prepaid".into(),
        preset_hash: Hash32([0; 32]),
        assets: vec![Asset { id: FOIL, symbol: "FOIL".into(), ledger_scale: 9, chain_scale: Some(18) }],
        settings,
    });
    log.plain(WriterChanged { epoch: 1, nonce: Hash32([1; 32]) });
    let rate = ModelRate {
        model: "small".into(),
        weights: Hash32([1; 32]),
        tokenizer: Hash32([2; 32]),
        template: Hash32([3; 32]),
        licence: "Apache-2.0".into(),
        proof_class: ProofClass::ReExecutable,
        asset: FOIL,
        unit: Unit::Token,
        price: Amount(4_000_001),
        per_units: 1_000,
        operator_share_ppm: 800_000,
        context_tokens: 2_048,
    };
    let card =
        RateCard { version: 1, effective_us: 1_790_000_000_000_000, headroom_ppm: 0, models: vec![rate] };
    log.plain(RateCardPublished { hash: card.hash(), card });
    log.plain(VaultRegistered {
        vault: vault(),
        payouts: EvmAddress([0xbb; 20]),
        token: EvmAddress([0xcc; 20]),
        asset: FOIL,
        deployed_block: 1,
        coordinator: EvmAddress([0xdd; 20]),
        platform: EvmAddress([0xee; 20]),
    });
    let opened = ACCOUNTS.iter().enumerate().map(|(n, (owner, kind))| OpenedLedgerAccount {
        number: LedgerAccount(n as u32),
        owner: *owner,
        kind: *kind,
        asset: FOIL,
    });
    log.plain(AccountOpened { account: ALICE });
    log.plain(LedgerAccountsOpened { opened: opened.collect() });
    log.plain(OperatorRegistered {
        operator: OPERATOR,
        account: EARNER,
        payout_address: EvmAddress([0x99; 20]),
    });
    log.plain(NodeRegistered {
        node: NODE,
        operator: OPERATOR,
        models: vec!["small".into()],
        slots: 4,
        sealing_key: SealingKey([3; 32]),
    });
}

fn grant(id: u32, source: GrantSource, amount: i128, backing: Backing) -> GrantIssued {
    GrantIssued {
        grant: GrantId(id),
        account: ALICE,
        source,
        asset: FOIL,
        amount: Amount(amount),
        priority: 30,
        scope: if source == GrantSource::Promo { vec!["small".into()] } else { vec![] },
        expires_us: (source == GrantSource::Promo).then_some(1_790_005_000_000_000),
        backing,
    }
}

fn credit(log: &mut Log) {
    let promo = grant(0, GrantSource::Promo, 1_000_000, Backing::Unbacked);
    log.add(promo, &[(PROMO_EXPENSE, 1_000_000), (PROMO, -1_000_000)], &[]);
    log.plain(grant(1, GrantSource::Deposited, 0, Backing::Vault(vault(), WALLET)));
    log.plain(grant(2, GrantSource::CreditLine, 0, Backing::Unbacked));
    let line = CreditLineSet { grant: GrantId(2), limit: Amount(5_000_000), change: Amount(5_000_000) };
    log.add(line, &[(LINES, 5_000_000), (CREDIT, -5_000_000)], &[]);
    log.plain(SpendCapSet {
        account: ALICE,
        spender: SpenderId([5; 16]),
        asset: FOIL,
        cap: Some(Amount(2_500_000_000)),
    });
    log.plain(SpendCapSet { account: ALICE, spender: SpenderId([5; 16]), asset: FOIL, cap: None });
    log.plain(grant(3, GrantSource::Earned, 0, Backing::Unbacked));
    let moved = CreditMoved { from: GrantId(0), to: GrantId(3), amount: Amount(100_000) };
    log.add(moved, &[(PROMO, 100_000), (EARNED, -100_000)], &[]);
}

fn chain(log: &mut Log) {
    log.plain(SpendAuthorised {
        account: ALICE,
        vault: vault(),
        wallet: WALLET,
        max_cumulative_units: 25_000_000,
        valid_until_s: 1_800_000_000,
        nonce: 0,
        session: Hash32([4; 32]),
        signature: None,
    });
    let deposit = |ordinal: u32, account: Option<AccountId>, units: u64| DepositConfirmed {
        key: DepositKey { vault: vault(), tx: Word32([0xd0; 32]), ordinal },
        wallet: WALLET,
        units,
        amount: Amount(i128::from(units) * 1_000),
        account,
        block: 12,
        block_hash: Word32([0xd1; 32]),
    };
    log.add(deposit(0, Some(ALICE), 20_000), &[(VAULT, 20_000_000), (DEPOSITED, -20_000_000)], &[]);
    log.add(deposit(1, None, 3_000), &[(VAULT, 3_000_000), (WAITING, -3_000_000)], &[]);
    let attributed =
        DepositAttributed { vault: vault(), wallet: WALLET, account: ALICE, amount: Amount(3_000_000) };
    log.add(attributed, &[(WAITING, 3_000_000), (DEPOSITED, -3_000_000)], &[]);
    let key = DepositKey { vault: vault(), tx: Word32([0xd0; 32]), ordinal: 1 };
    let reversed = DepositReversed { key, taken: Amount(2_000_000), owed: Amount(1_000_000) };
    log.add(reversed, &[(DEPOSITED, 2_000_000), (OWED, 1_000_000), (VAULT, -3_000_000)], &[]);
    log.plain(CheckpointAnchored { chain_id: 31_337, size: 20, root: Hash32([6; 32]), tx: Word32([6; 32]) });
}

fn slice(grant: u32, amount: i128) -> Slice {
    Slice { grant: GrantId(grant), amount: Amount(amount) }
}

fn hold(hold: HoldId, job: JobId, slices: Vec<Slice>) -> HoldPlaced {
    HoldPlaced {
        hold,
        job,
        account: ALICE,
        asset: FOIL,
        amount: slices.iter().map(|s| s.amount).sum(),
        slices: slices.into(),
        rate_card_version: 1,
        rate_card_hash: Hash32([0; 32]),
        model: "small".into(),
        input_units: 20,
        output_units_max: 100,
        deadline_us: 1_790_001_800_000_000,
        spender: Some(SpenderId([5; 16])),
    }
}

fn dispatch(job: JobId, attempt: u32, continues_at: u64) -> JobDispatched {
    JobDispatched { job, attempt, node: NODE, operator: OPERATOR, body: Hash32([5; 32]), continues_at }
}

/// 20 + 100 units at 4 000 001 per 1 000 are 480 001 base units (rounded up); 400 of the promotional grant first.
fn jobs(log: &mut Log) {
    let reserve: Legs<'_> = &[(PROMO, 400), (DEPOSITED, 479_601), (HOLDS, -480_001)];
    log.add(hold(HOLD, JOB, vec![slice(0, 400), slice(1, 479_601)]), &[], reserve);
    log.plain(dispatch(JOB, 0, 0));
    log.plain(dispatch(JOB, 1, 12));
    let extended = HoldExtended {
        hold: HOLD,
        amount: Amount(200_000),
        slices: vec![slice(1, 200_000)].into(),
        output_units_max: 150,
        deadline_us: 1_790_002_400_000_000,
    };
    log.add(extended, &[], &[(DEPOSITED, 200_000), (HOLDS, -200_000)]);
    // First part: 20 input and 30 output units, 200 001 base units (rounded up).
    let first =
        Part { number: 0, open: true, input: 20, output: 30, cost: 200_001, share: 160_000, beyond: None };
    log.add(
        capture(HOLD, JOB, first, vec![slice(0, 400), slice(1, 199_601)]),
        &[(PROMO, 400), (DEPOSITED, 199_601), (ACCRUED, -160_000), (REVENUE, -40_001)],
        &[(PROMO, -400), (DEPOSITED, -199_601), (HOLDS, 200_001)],
    );
    // All 170 units cost 680 001; the second part is the difference, 3 000 of it beyond the hold on the credit line.
    let second = Part {
        number: 1,
        open: false,
        input: 0,
        output: 120,
        cost: 480_000,
        share: 384_000,
        beyond: Some(3_000),
    };
    log.add(
        capture(HOLD, JOB, second, vec![slice(1, 477_000), slice(2, 3_000)]),
        &[
            (DEPOSITED, 477_000),
            (CREDIT, 3_000),
            (LINES, -3_000),
            (OWED, 3_000),
            (ACCRUED, -384_000),
            (REVENUE, -96_000),
        ],
        &[(DEPOSITED, -480_000), (HOLDS, 480_000)],
    );
    let repaid = CreditRepaid { grant: GrantId(2), amount: Amount(3_000), reference: Hash32([0xab; 32]) };
    log.add(repaid, &[(TREASURY, 3_000), (OWED, -3_000), (LINES, 3_000), (CREDIT, -3_000)], &[]);
    short_jobs(log);
}

/// One voided, one expired, one charged and undone.
fn short_jobs(log: &mut Log) {
    for n in 1..=3u8 {
        let (id, job) = (HoldId([0x50 + n; 16]), JobId([0x60 + n; 16]));
        log.add(hold(id, job, vec![slice(1, 480_001)]), &[], &[(DEPOSITED, 480_001), (HOLDS, -480_001)]);
        let release: Legs<'_> = &[(DEPOSITED, -480_001), (HOLDS, 480_001)];
        match n {
            1 => log.add(HoldVoided { hold: id, reason: VoidReason::OperatorFault }, &[], release),
            2 => log.add(HoldExpired { hold: id }, &[], release),
            _ => {
                log.plain(dispatch(job, 0, 0));
                let whole = Part {
                    number: 0,
                    open: false,
                    input: 20,
                    output: 80,
                    cost: 400_001,
                    share: 320_001,
                    beyond: None,
                };
                let mut body = capture(id, job, whole, vec![slice(1, 400_001)]);
                body.part = None;
                body.outcome = Outcome::ClientGone;
                body.output_units_gateway = 83;
                log.add(body, &[(DEPOSITED, 400_001), (ACCRUED, -320_001), (REVENUE, -80_000)], release);
                let reversed = CaptureReversed {
                    job,
                    refunded: Amount(400_001),
                    operator_share: Amount(320_001),
                    platform_share: Amount(80_000),
                };
                log.add(reversed, &[(DEPOSITED, -400_001), (ACCRUED, 320_001), (REVENUE, 80_000)], &[]);
            }
        }
    }
}

struct Part {
    number: u32,
    open: bool,
    input: u64,
    output: u64,
    cost: i128,
    share: i128,
    beyond: Option<i128>,
}

fn capture(hold: HoldId, job: JobId, part: Part, slices: Vec<Slice>) -> UsageCaptured {
    let so_far = if part.number == 0 { part.output } else { part.output + 30 };
    UsageCaptured {
        hold,
        job,
        attempt: 0,
        node: NODE,
        operator: OPERATOR,
        outcome: Outcome::Completed,
        input_units: part.input,
        output_units: part.output,
        output_units_worker: so_far,
        output_units_gateway: so_far,
        cost: Amount(part.cost),
        slices: slices.into(),
        operator_share: Amount(part.share),
        platform_share: Amount(part.cost - part.share),
        receipt: Hash32([7; 32]),
        chain_head: Hash32([8; 32]),
        part: Some(CapturePart { number: part.number, open: part.open }),
        beyond_hold: part.beyond.map(Amount),
    }
}

fn batches(log: &mut Log) {
    let cutoff_leaf = log.events.len() as u64;
    let payout = |account: AccountId, address: u8, units: u64| Payout {
        account,
        address: EvmAddress([address; 20]),
        cumulative_units: units,
        added_units: units,
    };
    let closed = BatchClosed {
        short: None,
        batch: BATCH,
        number: 1,
        vault: vault(),
        asset: FOIL,
        cutoff_leaf,
        rail: Rail::RootClaims,
        charges: vec![Charge { wallet: WALLET, cumulative_units: 676, added_units: 676 }],
        payouts: vec![payout(EARNER, 0x99, 540), payout(AccountId::SYSTEM, 0xee, 136)],
    };
    log.add(closed, &[(ACCRUED, 540_000), (SETTLING, -540_000)], &[]);
    log.plain(BatchSubmitted {
        batch: BATCH,
        payout_root: Word32([0x71; 32]),
        root_total_units: 676,
        requests_root: Word32([0x72; 32]),
        tlog_size: cutoff_leaf + 1,
        tlog_root: Hash32([0x73; 32]),
        commitment: Word32([0x74; 32]),
    });
    let confirmed = BatchConfirmed {
        batch: BATCH,
        tx: Word32([0x75; 32]),
        block: 99,
        block_hash: Word32([0x76; 32]),
        charged_units: 676,
        amount: Amount(676_000),
    };
    log.add(confirmed, &[(SETTLING, 540_000), (PAYABLE, -540_000), (POT, 676_000), (VAULT, -676_000)], &[]);
    let claimed = PayoutClaimed {
        vault: vault(),
        account: EARNER,
        address: EvmAddress([0x99; 20]),
        units: 540,
        amount: Amount(540_000),
        tx: Word32([0x77; 32]),
    };
    log.add(claimed, &[(PAYABLE, 540_000), (POT, -540_000)], &[]);
    log.plain(BatchFailed { batch: BatchId([0x42; 16]), reason: "the vault was paused".into() });
    let (replaced, tx) = (Word32([0x78; 32]), Word32([0x79; 32]));
    log.plain(BatchReplaced { batch: BatchId([0x42; 16]), replaced, tx });
    let (block, block_hash) = (130, Word32([0x7a; 32]));
    log.plain(SolvencyChecked { vault: vault(), block, block_hash, held_units: 20_000, owed_units: 19_320 });
}

fn leaving(log: &mut Log) {
    let expired = GrantExpired { grant: GrantId(0), lapsed: Amount(899_600) };
    log.add(expired, &[(PROMO, 899_600), (BREAKAGE, -899_600)], &[]);
    let issued = |voucher: u8| VoucherIssued {
        voucher: VoucherId([voucher; 16]),
        account: ALICE,
        vault: vault(),
        wallet: WALLET,
        units: 1_000,
        amount: Amount(1_000_000),
        nonce: 0,
        deadline_s: 1_790_010_000,
    };
    log.add(issued(1), &[], &[(DEPOSITED, 1_000_000), (HOLDS, -1_000_000)]);
    let redeemed = VoucherRedeemed { voucher: VoucherId([1; 16]), tx: Word32([0x81; 32]) };
    let release: Legs<'_> = &[(DEPOSITED, -1_000_000), (HOLDS, 1_000_000)];
    log.add(redeemed, &[(DEPOSITED, 1_000_000), (VAULT, -1_000_000)], release);
    log.add(issued(2), &[], &[(DEPOSITED, 1_000_000), (HOLDS, -1_000_000)]);
    log.add(VoucherLapsed { voucher: VoucherId([2; 16]), block: 300 }, &[], release);
    let (vault, wallet, tx) = (vault(), WALLET, Word32([0x82; 32]));
    log.plain(ExitRequested { vault, wallet, exit_at_s: 1_790_100_000, tx });
    log.plain(ExitCancelled { vault, wallet, tx });
    let left = ExitFinalised {
        vault,
        wallet,
        units: 19_000,
        amount: Amount(19_000_000),
        shortfall: Amount(0),
        tx: Word32([0x83; 32]),
    };
    log.add(left, &[(DEPOSITED, 19_000_000), (VAULT, -19_000_000)], &[]);
    log.plain(NodeRetired { node: NODE });
    log.plain(AccountClosed { account: ALICE });
}
