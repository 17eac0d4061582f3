//! Random operations, and the commands they become where they happen: about a third of them must be refused. Must not:
//! judge.

use crate::model::Model;
use crate::world::*;
use ledger::command::*;
use ledger::{Command, CommandBody};
use proptest::prelude::*;
use protocol::amount::Amount;
use protocol::asset::AssetId;
use protocol::event::account::SpendAuthorised;
use protocol::event::batch::Rail;
use protocol::event::chain::{DepositKey, ExitCancelled, ExitRequested};
use protocol::event::grant::{Backing, GrantSource};
use protocol::event::hold::VoidReason;
use protocol::event::job::{CapturePart, Outcome};
use protocol::event::{Actor, GrantId};
use protocol::id::*;
use protocol::rate::{ModelRate, RateCard};

/// What is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum What {
    Advance,
    ClockBack,
    Open,
    CloseAccount,
    Grant,
    Cap,
    Line,
    Repay,
    Move,
    Take,
    Authorise,
    Deposit,
    ReverseDeposit,
    AskExit,
    CancelExit,
    FinaliseExit,
    Voucher,
    Redeem,
    Lapse,
    Publish,
    RetireNode,
    Admit,
    Extend,
    Redispatch,
    Capture,
    Void,
    Reverse,
    Expire,
    CloseBatch,
    Submit,
    Confirm,
    Fail,
    Claim,
}

/// How often each is tried.
const WEIGHTS: &[(u32, What)] = &[
    (8, What::Advance),
    (1, What::ClockBack),
    (1, What::Open),
    (1, What::CloseAccount),
    (6, What::Grant),
    (3, What::Cap),
    (4, What::Line),
    (3, What::Repay),
    (4, What::Move),
    (5, What::Take),
    (7, What::Authorise),
    (10, What::Deposit),
    (2, What::ReverseDeposit),
    (1, What::AskExit),
    (3, What::CancelExit),
    (2, What::FinaliseExit),
    (6, What::Voucher),
    (5, What::Redeem),
    (2, What::Lapse),
    (2, What::Publish),
    (1, What::RetireNode),
    (28, What::Admit),
    (8, What::Extend),
    (8, What::Redispatch),
    (30, What::Capture),
    (4, What::Void),
    (8, What::Reverse),
    (5, What::Expire),
    (8, What::CloseBatch),
    (8, What::Submit),
    (8, What::Confirm),
    (2, What::Fail),
    (8, What::Claim),
];

/// Under which key, and how late.
#[derive(Clone, Copy, Debug)]
pub enum Key {
    Fresh,
    /// An earlier command once more.
    Again(usize),
    /// An earlier key for this command.
    Reused(usize),
    /// A key that says it is so many seconds old; negative is ahead of time.
    Aged(i64),
    /// Not after so many seconds from now; may be past.
    Until(i64),
}

/// One step. What the numbers mean depends on what is tried.
#[derive(Clone, Copy, Debug)]
pub struct Op {
    pub what: What,
    pub key: Key,
    pub who: u8,
    pub pick: usize,
    pub a: u64,
    pub b: u64,
    pub c: u64,
}

pub fn op() -> impl Strategy<Value = Op> {
    let whats = WEIGHTS.iter().map(|(weight, what)| (*weight, Just(*what).boxed())).collect::<Vec<_>>();
    let key = prop_oneof![
        40 => Just(Key::Fresh),
        1 => (0usize..100).prop_map(Key::Again),
        1 => (0usize..100).prop_map(Key::Reused),
        1 => (-90i64..330).prop_map(Key::Aged),
        1 => (-3i64..30).prop_map(Key::Until),
    ];
    let numbers = (0u8..14, 0usize..60, 0u64..64, 0u64..64, 0u64..64);
    (proptest::strategy::Union::new_weighted(whats), key, numbers)
        .prop_map(|(what, key, (who, pick, a, b, c))| Op { what, key, who, pick, a, b, c })
}

pub const CRED: AssetId = AssetId(1);

/// Customers, operators' accounts, and nobody's.
fn who(n: u8) -> AccountId {
    account([1, 2, 3, 1, 2, 3, 1, 2, 3, 101, 102, 101, 1, 9][usize::from(n)])
}

fn asset(n: u64) -> AssetId {
    match n % 16 {
        0..=11 => FOIL,
        12..=14 => CRED,
        _ => AssetId(7),
    }
}

fn backing(n: u64) -> Backing {
    match n % 12 {
        0..=5 => Backing::Unbacked,
        6..=8 => Backing::Treasury,
        9 => Backing::Package(1),
        10 => Backing::Package(1 << 40),
        _ => Backing::Vault(vault(), wallet(1)),
    }
}

/// The lists of the cards: names, assets, prices and shares that do not divide evenly.
pub fn rates(version: u64) -> Vec<ModelRate> {
    let named = |model: &str, asset, rate| ModelRate { model: model.into(), asset, ..rate };
    vec![
        named("gift", FOIL, rate(0, 1, 500_000)),
        named(
            "small",
            FOIL,
            ModelRate { context_tokens: 90, ..rate(210 + i128::from(version % 3), 3, 333_333) },
        ),
        named("tall", FOIL, rate(310, 7, 800_000 + (version % 2) as u32)),
        named("zinc", CRED, rate(5, 2, 1_000_000)),
    ]
}

fn models(n: u64) -> &'static str {
    ["small", "small", "small", "tall", "tall", "tall", "zinc", "gift", "small", "none"][n as usize % 10]
}

/// What [`job`] was given.
fn number_of(id: &JobId) -> u32 {
    u32::from_be_bytes([id.0[0], id.0[1], id.0[2], id.0[3]])
}

fn one_of<T: Copy>(all: &[T], pick: usize) -> Option<T> {
    all.get(pick % all.len().max(1)).copied()
}

/// From every source and with every backing, those that must be refused too.
fn grant(op: &Op, now_us: u64) -> IssueGrant {
    let Op { pick, a, b, c, .. } = *op;
    let sources = [
        GrantSource::Promo,
        GrantSource::Package,
        GrantSource::Package,
        GrantSource::Allotment,
        GrantSource::Earned,
        GrantSource::CreditLine,
        GrantSource::Deposited,
        GrantSource::Promo,
    ];
    let scopes: [&[&str]; 4] = [&[], &["small"], &["small", "tall"], &[]];
    IssueGrant {
        account: who(op.who),
        source: sources[pick % 8],
        asset: asset(c),
        amount: Amount(i128::from(a * 150 + c)),
        priority: [10, 30, 50, 60][b as usize % 4],
        scope: scopes[b as usize / 4 % 4].iter().map(|model| (*model).to_owned()).collect(),
        expires_us: (b >= 32).then(|| now_us + (b - 32) * 3 * S),
        backing: backing(a),
    }
}

/// Builds commands; remembers them and the ids it gave.
#[derive(Default)]
pub struct Builder {
    sent: Vec<Command>,
    next: u32,
}

impl Builder {
    fn fresh(&mut self) -> u32 {
        self.next += 1;
        self.next
    }

    /// Most often a running job, sometimes any other that was ever asked for.
    fn job(&self, model: &Model, pick: usize) -> JobId {
        let running = model.jobs.iter().filter(|(_, job)| job.ended.is_none()).map(|(id, _)| *id);
        let running: Vec<JobId> = running.collect();
        match one_of(&running, pick / 8) {
            Some(id) if !pick.is_multiple_of(8) => id,
            _ => job(1 + pick as u32 % self.next.max(1)),
        }
    }

    /// What every sequence begins with: three wallets with funds that may be spent, so that there is something to do.
    pub fn opening() -> Vec<Op> {
        let step =
            |what, pick| Op { what, key: Key::Fresh, who: pick as u8 % 3, pick, a: 60, b: pick as u64, c: 9 };
        let each = |what| (0..3).map(move |pick| step(what, pick));
        each(What::Authorise).chain(each(What::Deposit)).collect()
    }

    /// The command of a step; `None` where it only moves the clock.
    pub fn command(&mut self, op: &Op, model: &Model, world: &mut World) -> Option<Command> {
        if let Key::Again(n) = op.key
            && let Some(sent) = self.sent.get(n % self.sent.len().max(1))
            && (model.keys.contains_key(&sent.key) || !matches!(sent.body, CommandBody::Admit(_)))
        {
            return Some(sent.clone());
        }
        match op.what {
            What::Advance => world.now_us += (op.a + op.b / 60 * 300) * S,
            What::ClockBack => world.now_us = world.now_us.saturating_sub(op.a % 4 * S).max(S),
            _ => {}
        }
        let body = self.money(op, model, world.now_us).or_else(|| self.chain(op, model, world));
        let body = body.or_else(|| self.work(op, model, world.now_us))?;
        let nth = self.sent.len() as u32;
        let mut command =
            Command::new(IdempotencyKey::internal("naive", &[&nth.to_be_bytes()]), Actor::Admin, body);
        let moment = |seconds: i64| world.now_us.saturating_add_signed(seconds * S as i64);
        match op.key {
            Key::Fresh | Key::Again(_) => {}
            Key::Reused(n) => {
                command.key = self.sent.get(n % nth.max(1) as usize).map_or(command.key, |c| c.key)
            }
            Key::Aged(seconds) => command.key_time_us = Some(moment(-seconds)),
            Key::Until(seconds) => command.not_after_us = Some(moment(seconds)),
        }
        self.sent.push(command.clone());
        Some(command)
    }

    fn money(&mut self, op: &Op, model: &Model, now_us: u64) -> Option<CommandBody> {
        let Op { pick, a, b, c, .. } = *op;
        let account = who(op.who);
        Some(match op.what {
            What::Open => OpenAccount { account: AccountId([40 + op.who % 2; 16]) }.into(),
            What::CloseAccount => CloseAccount { account }.into(),
            What::Grant => grant(op, now_us).into(),
            What::Cap => SetSpendCap {
                account,
                spender: SpenderId([op.who % 2; 16]),
                asset: asset(b),
                cap: (c % 4 > 0).then_some(Amount(i128::from(a) * 400 - 50)),
            }
            .into(),
            What::Line => SetCreditLine {
                account,
                asset: asset(b),
                limit: Amount(i128::from(a) * 150 - 50),
                priority: if c % 8 == 0 { 61 } else { 60 },
            }
            .into(),
            What::Repay => {
                let drawn = model.lines.iter().filter(|(_, line)| line.drawn > 0);
                let lines: Vec<_> = drawn.map(|(key, _)| *key).collect();
                let line = one_of(&lines, pick).filter(|_| c % 8 > 0);
                let (account, asset) = line.unwrap_or((account, asset(b)));
                RepayCredit { account, asset, amount: Amount(i128::from(a) * 60), reference: Hash32([1; 32]) }
                    .into()
            }
            What::Move => {
                let (from, to) = self.pair(model, pick, b as usize);
                MoveCredit { from, to, amount: Amount(i128::from(a) * 40) }.into()
            }
            What::Take => {
                let waiting = model.earnings.iter().filter(|(_, earning)| earning.0 > 0);
                let waiting: Vec<_> = waiting.map(|(key, earning)| (*key, earning.0)).collect();
                let known = one_of(&waiting, pick).filter(|_| c % 8 > 0);
                let ((account, asset, backing), most) = known.unwrap_or(((account, asset(b), backing(b)), 9));
                TakeEarnings { account, asset, backing, amount: Amount(most * i128::from(a) / 60) }.into()
            }
            What::Publish => {
                let version = model.cards.len() as u32 + 1 + u32::from(c == 0);
                let effective_us = (now_us + a * S).saturating_sub(5 * S);
                let card =
                    RateCard { version, effective_us, headroom_ppm: 0, models: rates(u64::from(version)) };
                PublishRateCard { card }.into()
            }
            What::RetireNode => RetireNode { node: node(if c < 40 { 3 } else { 7 }) }.into(),
            _ => return None,
        })
    }

    /// Two buckets: most often of one source and one backing, so that something moves.
    fn pair(&self, model: &Model, pick: usize, other: usize) -> (GrantId, GrantId) {
        let id = |k: usize| GrantId(k as u32);
        let count = model.buckets.len().max(1);
        let from = pick % count;
        let alike = |k: &usize| {
            let (a, b) = (&model.buckets[from], &model.buckets[*k]);
            let own = a.owner == b.owner || matches!(a.source, GrantSource::Package | GrantSource::Earned);
            let lives = b.ends_us.unwrap_or(u64::MAX) <= a.ends_us.unwrap_or(u64::MAX);
            from != *k && own && lives && (a.source, a.backing, a.asset) == (b.source, b.backing, b.asset)
        };
        let alike: Vec<usize> = (0..model.buckets.len()).filter(alike).collect();
        match one_of(&alike, other / 8) {
            Some(to) if !other.is_multiple_of(8) => (id(from), id(to)),
            _ => (id(from), id(other % (count + 2))),
        }
    }

    fn chain(&mut self, op: &Op, model: &Model, world: &World) -> Option<CommandBody> {
        let Op { pick, a, b, c, .. } = *op;
        let address = wallet(1 + (pick % 3) as u8);
        let now_s = world.now_us / S;
        let owner = model.wallets.get(&address).and_then(|row| row.account);
        let account = owner.filter(|_| c % 8 > 0).unwrap_or(who(op.who));
        Some(match op.what {
            What::Authorise => SpendAuthorised {
                account,
                vault: vault(),
                wallet: address,
                max_cumulative_units: a * 2 + model.commit / 10,
                valid_until_s: if c < 48 { u32::MAX } else { (now_s + c * 10).saturating_sub(500) as u32 },
                nonce: b / 30,
                session: Hash32([4; 32]),
                signature: None,
            }
            .into(),
            What::Deposit => {
                let deposit = deposit(address.0[0], a % 32, (b % 24) as u32);
                ConfirmDeposit { wallet: if c == 0 { wallet(5) } else { address }, ..deposit }.into()
            }
            What::ReverseDeposit => {
                let known =
                    model.deposits.iter().filter(|(_, (.., reversed))| !reversed).map(|(key, _)| *key);
                let known = one_of(&known.collect::<Vec<_>>(), pick).filter(|_| c % 8 > 0);
                let (tx, ordinal) = known.unwrap_or((tx(u32::from(address.0[0])), (b % 24) as u32));
                let key = DepositKey { vault: vault(), tx, ordinal };
                ReverseDeposit { key }.into()
            }
            What::AskExit => {
                ExitRequested { vault: vault(), wallet: address, exit_at_s: 9, tx: tx(1) }.into()
            }
            What::CancelExit => ExitCancelled { vault: vault(), wallet: address, tx: tx(2) }.into(),
            What::FinaliseExit => {
                let row = model.wallets.get(&address);
                let left = row.map_or(0, |row| (row.deposited - row.withdrawn - row.charged).max(0));
                let units = left as u64 + u64::from(c == 0);
                SeeExitFinalised { vault: vault(), wallet: address, units, tx: tx(4) }.into()
            }
            What::Voucher => {
                let deadline_s = if c == 1 { now_s + 100_000 } else { now_s + 600 };
                let known = model.vouchers.keys().next().copied().filter(|_| c == 2);
                let voucher = known.unwrap_or_else(|| voucher(self.fresh()));
                let (units, nonce) = (a % 8, b % 3);
                IssueVoucher { voucher, account, vault: vault(), wallet: address, units, nonce, deadline_s }
                    .into()
            }
            What::Redeem => {
                let open = model.vouchers.values().filter(|voucher| voucher.end.is_none());
                let open: Vec<_> = open.map(|v| (v.wallet, v.nonce, v.units as u64)).collect();
                let known = one_of(&open, pick).filter(|_| c % 4 > 0);
                let (wallet, nonce, units) = known.unwrap_or((address, b % 3, 1));
                let units = units + u64::from(c == 1);
                RedeemVoucher { vault: vault(), wallet, nonce, units, tx: tx(7) }.into()
            }
            What::Lapse => {
                let all: Vec<VoucherId> = model.vouchers.keys().copied().collect();
                LapseVoucher { voucher: one_of(&all, pick).unwrap_or(voucher(1)), block: 1 }.into()
            }
            _ => return self.settlement(op, model, world),
        })
    }

    fn settlement(&mut self, op: &Op, model: &Model, world: &World) -> Option<CommandBody> {
        let Op { pick, a, c, .. } = *op;
        let all: Vec<BatchId> = model.batches.keys().copied().collect();
        let open = model.open_batch().filter(|_| c > 3).or(one_of(&all, pick)).unwrap_or(batch(0));
        let number = number_of(&JobId(open.0));
        Some(match op.what {
            What::CloseBatch => {
                let batch = if c < 6 { open } else { batch(self.fresh()) };
                CloseBatch { batch, vault: vault(), rail: Rail::RootClaims, without: Vec::new() }.into()
            }
            What::Submit => {
                let mut submission = world.submission(number);
                submission.root_total_units += u64::from(c == 1);
                submission.into()
            }
            What::Confirm => {
                let charges =
                    model.batches.get(&open).map_or(0, |batch| batch.charges.iter().map(|c| c.2).sum());
                let charged_units = charges as u64 + u64::from(c == 1);
                let (tx, block, block_hash) = (tx(9), 5, tx(5));
                ConfirmBatch { batch: open, tx, block, block_hash, charged_units }.into()
            }
            What::Fail => FailBatch { batch: open, reason: "test".into() }.into(),
            What::Claim => {
                let payees =
                    [payout_address(1), payout_address(2), EvmAddress([0xee; 20]), payout_address(9)];
                let tx = tx(1_000 + if c < 16 { 1 } else { self.fresh() });
                RecordClaim { vault: vault(), address: payees[pick % 16 / 5], units: a % 6, tx }.into()
            }
            _ => return None,
        })
    }

    fn work(&mut self, op: &Op, model: &Model, now_us: u64) -> Option<CommandBody> {
        let Op { pick, a, b, c, .. } = *op;
        let id = self.job(model, pick);
        let known = model.jobs.get(&id);
        Some(match op.what {
            What::Admit => {
                // An id is never new again for the auditor, and for the ledger only while it remembers the job.
                let known = model.jobs.keys().next().filter(|_| pick == 0);
                let number = known.map_or_else(|| self.fresh(), number_of);
                Admit {
                    hold: hold(number),
                    job: job(number),
                    account: who(op.who),
                    model: models(c).into(),
                    input_units: a,
                    output_units_max: b / 2,
                    deadline_us: now_us
                        + [60 * S, 20 * S, 5 * S, 601 * S][(c / 4 % 16).saturating_sub(12) as usize],
                    node: node([1, 1, 1, 1, 1, 1, 2, 2, 3, 3, 3, 3, 3, 1, 1, 7][pick % 16]),
                    body: Hash32([5; 32]),
                    spender: (c % 3 > 0).then_some(SpenderId([op.who % 2; 16])),
                }
                .into()
            }
            What::Extend => {
                let (bound, deadline_us) = known.map_or((1, now_us), |job| (job.bound, job.deadline_us));
                let output_units_max = (bound + a / 4).saturating_sub(b / 60);
                let deadline_us = if c < 30 { deadline_us } else { deadline_us + (c - 30) * S };
                ExtendHold { job: id, output_units_max, deadline_us }.into()
            }
            What::Redispatch => {
                let (next, bound) = known.map_or((1, 9), |job| (job.attempts.len() as u32, job.bound));
                let (attempt, continues_at) = (next + u32::from(c == 0), a % (bound + 2));
                Redispatch {
                    job: id,
                    attempt,
                    node: node([1, 2, 3, 3][pick % 4]),
                    body: Hash32([6; 32]),
                    continues_at,
                }
                .into()
            }
            What::Capture => self.charge(op, id, known),
            What::Void => Void { job: id, reason: VoidReason::NoUsage }.into(),
            What::Reverse => {
                let charged =
                    model.jobs.iter().filter(|(_, job)| job.ended.is_some() && !job.parts.is_empty());
                let charged: Vec<JobId> = charged.map(|(id, _)| *id).collect();
                ReverseCapture { job: one_of(&charged, pick).filter(|_| c % 8 > 0).unwrap_or(id) }.into()
            }
            What::Expire => ExpireDue { events_max: (a % 4) as u32 }.into(),
            _ => return None,
        })
    }

    /// Figures around what may be charged: before, at and beyond each limit.
    fn charge(&self, op: &Op, id: JobId, known: Option<&crate::model::Job>) -> CommandBody {
        let Op { a, b, c, .. } = *op;
        let (attempts, parts) =
            known.map_or((1, 0), |job| (job.attempts.len() as u32, job.parts.len() as u32));
        let (input, bound) = known.map_or((a, b), |job| (job.input, job.bound));
        let attempt = if c % 16 == 0 { attempts } else { (b / 8) as u32 % attempts };
        let cut = known.and_then(|job| Some(job.attempts.get(attempt as usize)?.1)).unwrap_or(0);
        let next = known.and_then(|job| Some(job.attempts.get(attempt as usize + 1)?.1));
        let upper = next.unwrap_or(bound + bound / 3);
        let counted = cut + a % (upper.saturating_sub(cut) + 2);
        let part = match c % 8 {
            0..=2 if parts == 0 => None,
            3 => Some(CapturePart { number: parts + 1, open: true }),
            0..=4 => Some(CapturePart { number: parts, open: false }),
            _ => Some(CapturePart { number: parts, open: true }),
        };
        Capture {
            job: id,
            attempt,
            outcome: Outcome::Completed,
            input_units: if c / 8 == 7 {
                input + 1
            } else if c / 8 == 6 {
                input / 2
            } else {
                input
            },
            output_units_worker: counted + b % 3,
            output_units_gateway: counted,
            receipt: Hash32([7; 32]),
            chain_head: Hash32([8; 32]),
            part,
        }
        .into()
    }
}
