//! The money rules once more, slowly: one list or map for each thing, every sum made anew, products as big integers. Shares
//! ids and commands with the ledger and nothing else. Must not: call the ledger.

use ledger::command::*;
use num_bigint::BigInt;
use protocol::asset::AssetId;
use protocol::event::account::AccountKind;
use protocol::event::grant::{Backing, GrantSource};
use protocol::id::*;
use protocol::rate::ModelRate;
use std::collections::{BTreeMap, BTreeSet};

/// The name of a refusal.
pub type No = &'static str;

/// Settings that the rules need.
#[derive(Clone, Debug)]
pub struct Rules {
    pub keep_us: u64,
    pub grace_us: u64,
    pub deadline_us_max: u64,
    pub voucher_us: u64,
    pub epoch_us: u64,
    pub margin_epochs: u64,
    pub settle_units_min: i128,
    pub tolerance_ppm: i128,
}

/// What a command came to.
#[derive(Debug, PartialEq)]
pub enum Answer {
    New,
    Repeated { commit: u64 },
}

pub struct Bucket {
    pub owner: AccountId,
    pub source: GrantSource,
    pub asset: AssetId,
    pub priority: u8,
    pub ends_us: Option<u64>,
    pub scope: Vec<String>,
    pub backing: Backing,
    pub free: i128,
    pub promised: i128,
    pub end_logged: bool,
}

impl Bucket {
    pub fn ended(&self, now_us: u64) -> bool {
        self.ends_us.is_some_and(|ends_us| ends_us <= now_us)
    }
    pub fn wallet(&self) -> Option<EvmAddress> {
        match self.backing {
            Backing::Vault(_, wallet) => Some(wallet),
            _ => None,
        }
    }
}

pub struct Line {
    pub bucket: usize,
    pub limit: i128,
    pub drawn: i128,
}

#[derive(Default)]
pub struct Cap {
    pub cap: Option<i128>,
    pub charged: i128,
}

pub struct Part {
    pub attempt: usize,
    pub operator: OperatorId,
    pub input: u64,
    pub output: u64,
    pub cost: i128,
    pub paid: Vec<(usize, i128)>,
    pub share: i128,
}

pub struct Job {
    pub account: AccountId,
    pub rate: ModelRate,
    pub input: u64,
    pub bound: u64,
    pub deadline_us: u64,
    pub due_us: u64,
    /// Only of a key that had a cap at admission.
    pub spender: Option<SpenderId>,
    pub amount: i128,
    /// What is still held, in the order it was taken.
    pub open: Vec<(usize, i128)>,
    /// Operator and cut.
    pub attempts: Vec<(OperatorId, u64)>,
    pub parts: Vec<Part>,
    pub ended: Option<(No, u64)>,
    pub reversed: bool,
}

pub struct Entry {
    pub nth: u64,
    pub job: JobId,
    pub operator: OperatorId,
    pub cost: i128,
    pub share: i128,
    pub covered: i128,
    pub time_us: u64,
}

#[derive(Default)]
pub struct Wallet {
    pub account: Option<AccountId>,
    pub bucket: Option<usize>,
    pub waiting: i128,
    /// Cap in units, end in seconds, nonce.
    pub signed: Option<(i128, u64, u64)>,
    pub leaving: bool,
    pub captured: i128,
    pub charged: i128,
    pub deposited: i128,
    pub withdrawn: i128,
    pub queue: Vec<Entry>,
}

pub struct Voucher {
    pub wallet: EvmAddress,
    pub units: i128,
    pub nonce: u64,
    pub end: Option<No>,
}

pub struct Batch {
    pub step: No,
    /// Wallet, cumulative and added units.
    pub charges: Vec<(EvmAddress, i128, i128)>,
    /// Account, address, cumulative and added units.
    pub payouts: Vec<(AccountId, EvmAddress, i128, i128)>,
    /// Wallet, queue entry, owner, cost, share.
    pub lines: Vec<(EvmAddress, u64, AccountId, i128, i128)>,
}

#[derive(Clone, Copy, Default)]
pub struct Payee {
    pub covered: i128,
    pub closed: i128,
    pub confirmed: i128,
    pub claimed: i128,
}

pub struct Operator {
    pub account: AccountId,
    pub address: EvmAddress,
}

pub struct Node {
    pub operator: OperatorId,
    pub models: Vec<String>,
    pub retired: bool,
}

pub struct Model {
    pub rules: Rules,
    pub now_us: u64,
    pub commit: u64,
    pub keys: BTreeMap<IdempotencyKey, (CommandBody, u64, u64)>,
    /// Whether it is open.
    pub accounts: BTreeMap<AccountId, bool>,
    pub debts: BTreeMap<(AccountId, AssetId), i128>,
    pub buckets: Vec<Bucket>,
    pub lines: BTreeMap<(AccountId, AssetId), Line>,
    pub caps: BTreeMap<(AccountId, SpenderId, AssetId), Cap>,
    /// What waits, and where it goes when it is taken.
    pub earnings: BTreeMap<(AccountId, AssetId, Backing), (i128, Option<usize>)>,
    pub jobs: BTreeMap<JobId, Job>,
    /// Gross and paid.
    pub carries: BTreeMap<(OperatorId, AssetId, u32), (i128, i128)>,
    /// Effective from, and the rates.
    pub cards: Vec<(u64, Vec<ModelRate>)>,
    pub operators: BTreeMap<OperatorId, Operator>,
    pub nodes: BTreeMap<NodeId, Node>,
    pub wallets: BTreeMap<EvmAddress, Wallet>,
    /// Wallet, units, whether it was reversed.
    pub deposits: BTreeMap<(Word32, u32), (EvmAddress, i128, bool)>,
    pub vouchers: BTreeMap<VoucherId, Voucher>,
    pub batches: BTreeMap<BatchId, Batch>,
    pub payees: BTreeMap<AccountId, Payee>,
    pub claims: BTreeSet<(EvmAddress, Word32)>,
    /// Figures that nothing else gives: credits are positive.
    pub counters: BTreeMap<(AccountId, AccountKind, AssetId), i128>,
    pub entries: u64,
}

/// `floor(a x b / c)` for figures of at least zero.
pub fn floor(a: i128, b: i128, c: i128) -> i128 {
    let quotient = BigInt::from(a) * BigInt::from(b) / BigInt::from(c);
    i128::try_from(quotient).expect("figures of these tests are small")
}

pub fn sure(holds: bool, no: No) -> Result<(), No> {
    if holds { Ok(()) } else { Err(no) }
}

impl Model {
    pub fn count(&mut self, owner: AccountId, kind: AccountKind, asset: AssetId, credit: i128) {
        *self.counters.entry((owner, kind, asset)).or_default() += credit;
    }

    /// One command as the ledger takes it.
    pub fn submit(&mut self, command: &Command, now_us: u64) -> Result<Answer, No> {
        if let Some((body, commit, _)) = self.keys.get(&command.key) {
            sure(*body == command.body, "key_reused")?;
            return Ok(Answer::Repeated { commit: *commit });
        }
        let now_us = now_us.max(self.now_us);
        sure(command.not_after_us.is_none_or(|last_us| now_us <= last_us), "too_late")?;
        if let Some(key_us) = command.key_time_us {
            sure(key_us + self.rules.keep_us >= now_us, "too_old")?;
            sure(key_us <= now_us + 60_000_000, "key_time_ahead")?;
        }
        self.run(&command.body, now_us)?;
        self.now_us = now_us;
        self.commit += 1;
        self.keys.insert(command.key, (command.body.clone(), self.commit, now_us));
        self.forget();
        Ok(Answer::New)
    }

    fn forget(&mut self) {
        let (now_us, keep_us) = (self.now_us, self.rules.keep_us);
        self.keys.retain(|_, (_, _, at_us)| *at_us + keep_us + 60_000_000 >= now_us);
        let queues = self.wallets.values().flat_map(|wallet| &wallet.queue);
        let waiting: BTreeSet<JobId> = queues.map(|entry| entry.job).collect();
        self.jobs.retain(|id, job| match job.ended {
            Some((_, at_us)) => at_us + keep_us >= now_us || waiting.contains(id),
            None => true,
        });
    }

    fn run(&mut self, body: &CommandBody, now_us: u64) -> Result<(), No> {
        match body {
            CommandBody::PublishRateCard(c) => self.publish(c, now_us),
            CommandBody::OpenAccount(c) => {
                sure(!self.accounts.contains_key(&c.account), "account_known")?;
                self.accounts.insert(c.account, true);
                Ok(())
            }
            CommandBody::CloseAccount(c) => self.close_account(c.account),
            CommandBody::SetSpendCap(c) => self.set_cap(c),
            CommandBody::SetCreditLine(c) => self.set_line(c),
            CommandBody::RepayCredit(c) => self.repay(c),
            CommandBody::IssueGrant(c) => self.grant(c, now_us),
            CommandBody::MoveCredit(c) => self.move_credit(c, now_us),
            CommandBody::TakeEarnings(c) => self.take(c),
            CommandBody::RetireNode(c) => {
                let node = self.nodes.get_mut(&c.node).ok_or("node_unknown")?;
                sure(!node.retired, "node_retired")?;
                node.retired = true;
                Ok(())
            }
            CommandBody::Admit(c) => self.admit(c, now_us),
            CommandBody::ExtendHold(c) => self.extend(c, now_us),
            CommandBody::Redispatch(c) => self.redispatch(c, now_us),
            CommandBody::Capture(c) => self.capture(c, now_us),
            CommandBody::Void(c) => {
                self.running(c.job)?;
                self.release(c.job, 0, "voided", now_us);
                Ok(())
            }
            CommandBody::ReverseCapture(c) => self.reverse(c.job, now_us),
            CommandBody::ExpireDue(c) => self.expire(c.events_max, now_us),
            other => self.run_vault(other, now_us),
        }
    }

    pub fn open_account(&self, id: AccountId) -> Result<(), No> {
        let open = *self.accounts.get(&id).ok_or("account_unknown")?;
        sure(open, "account_closed")
    }

    pub fn owes(&self, id: AccountId) -> bool {
        self.debts.iter().any(|((account, _), debt)| *account == id && *debt > 0)
    }

    pub fn may_spend(&self, id: AccountId) -> Result<(), No> {
        self.open_account(id)?;
        sure(!self.owes(id), "account_frozen")
    }

    fn close_account(&mut self, id: AccountId) -> Result<(), No> {
        self.may_spend(id)?;
        let held = |k: usize| self.held(k) + self.buckets[k].promised;
        let own = (0..self.buckets.len()).filter(|k| self.buckets[*k].owner == id);
        let kept =
            |k: &usize| held(*k) > 0 || self.buckets[*k].wallet().is_some() && self.buckets[*k].free > 0;
        let wanted = own.into_iter().any(|k| kept(&k));
        let drawn = self.lines.iter().any(|((account, _), line)| *account == id && line.drawn > 0);
        sure(!wanted && !drawn, "account_not_empty")?;
        self.accounts.insert(id, false);
        Ok(())
    }

    pub fn asset(&self, asset: AssetId) -> Result<(), No> {
        sure(asset.0 < 2, "asset_unknown")
    }

    /// In open holds of a bucket.
    pub fn held(&self, k: usize) -> i128 {
        let open = self.jobs.values().flat_map(|job| &job.open).filter(|(of, _)| *of == k);
        open.map(|(_, amount)| amount).sum()
    }

    /// What a new hold may take of a bucket.
    pub fn gives(&self, k: usize, now_us: u64) -> i128 {
        let bucket = &self.buckets[k];
        if bucket.ended(now_us) {
            return 0;
        }
        if let Some(wallet) = bucket.wallet() {
            return bucket.free.min(self.collectable(&self.wallets[&wallet], now_us) - self.held(k)).max(0);
        }
        if bucket.source == GrantSource::CreditLine {
            let line = &self.lines[&(bucket.owner, bucket.asset)];
            return bucket.free.min(line.limit - line.drawn - self.held(k)).max(0);
        }
        bucket.free
    }

    /// An account's buckets as they are consumed.
    pub fn order(&self, owner: AccountId) -> Vec<usize> {
        let mut order: Vec<usize> =
            (0..self.buckets.len()).filter(|k| self.buckets[*k].owner == owner).collect();
        order.sort_by_key(|k| {
            let bucket = &self.buckets[*k];
            (bucket.priority, bucket.ends_us.unwrap_or(u64::MAX), *k)
        });
        order
    }

    /// Buckets that pay for an amount, if they can.
    pub fn choose(
        &self,
        owner: AccountId,
        rate: &ModelRate,
        amount: i128,
        now_us: u64,
    ) -> Option<Vec<(usize, i128)>> {
        let mut left = amount;
        let mut chosen = Vec::new();
        for k in self.order(owner) {
            let bucket = &self.buckets[k];
            let pays = bucket.scope.is_empty() || bucket.scope.contains(&rate.model);
            let take = if pays && bucket.asset == rate.asset { self.gives(k, now_us).min(left) } else { 0 };
            if take > 0 {
                chosen.push((k, take));
                left -= take;
            }
        }
        (left == 0).then_some(chosen)
    }

    fn grant(&mut self, c: &IssueGrant, now_us: u64) -> Result<(), No> {
        self.open_account(c.account)?;
        self.asset(c.asset)?;
        let on_chain = c.source == GrantSource::Deposited || matches!(c.backing, Backing::Vault(..));
        let good = !on_chain && c.source != GrantSource::CreditLine && c.amount.0 > 0;
        sure(good && c.expires_us.is_none_or(|ends_us| ends_us > now_us), "grant_invalid")?;
        self.count(AccountId::SYSTEM, AccountKind::PromoExpense, c.asset, -c.amount.0);
        self.buckets.push(Bucket {
            owner: c.account,
            source: c.source,
            asset: c.asset,
            priority: c.priority,
            ends_us: c.expires_us,
            scope: c.scope.clone(),
            backing: c.backing,
            free: c.amount.0,
            promised: 0,
            end_logged: false,
        });
        Ok(())
    }

    pub fn empty_bucket(
        &mut self,
        owner: AccountId,
        source: GrantSource,
        asset: AssetId,
        priority: u8,
        backing: Backing,
    ) -> usize {
        let (scope, free, promised) = (Vec::new(), 0, 0);
        let ends_us = None;
        self.buckets.push(Bucket {
            owner,
            source,
            asset,
            priority,
            ends_us,
            scope,
            backing,
            free,
            promised,
            end_logged: false,
        });
        self.buckets.len() - 1
    }

    fn set_line(&mut self, c: &SetCreditLine) -> Result<(), No> {
        self.open_account(c.account)?;
        self.asset(c.asset)?;
        sure(c.limit.0 >= 0, "credit_line_invalid")?;
        let key = (c.account, c.asset);
        let known = self.lines.get(&key).map(|line| line.bucket);
        sure(known.is_none_or(|k| self.buckets[k].priority == c.priority), "credit_line_invalid")?;
        let bucket = match known {
            Some(bucket) => bucket,
            None => {
                self.empty_bucket(c.account, GrantSource::CreditLine, c.asset, c.priority, Backing::Unbacked)
            }
        };
        let held = self.held(bucket);
        let line = self.lines.entry(key).or_insert(Line { bucket, limit: 0, drawn: 0 });
        line.limit = c.limit.0;
        // Unused is what is not drawn, but never less than what is held of it.
        self.buckets[bucket].free = (line.limit - line.drawn - held).max(0);
        Ok(())
    }

    fn repay(&mut self, c: &RepayCredit) -> Result<(), No> {
        let line = self.lines.get(&(c.account, c.asset)).ok_or("credit_line_unknown")?;
        let (k, limit, drawn) = (line.bucket, line.limit, line.drawn);
        sure(c.amount.0 > 0, "units_zero")?;
        sure(c.amount.0 <= drawn, "repays_more_than_drawn")?;
        let room = limit - (drawn - c.amount.0) - self.held(k) - self.buckets[k].free;
        self.buckets[k].free += room.clamp(0, c.amount.0);
        self.lines.get_mut(&(c.account, c.asset)).unwrap().drawn -= c.amount.0;
        self.count(AccountId::SYSTEM, AccountKind::PlatformTreasury, c.asset, -c.amount.0);
        Ok(())
    }

    fn set_cap(&mut self, c: &SetSpendCap) -> Result<(), No> {
        self.open_account(c.account)?;
        self.asset(c.asset)?;
        sure(c.cap.is_none_or(|cap| cap.0 >= 0), "spend_cap_invalid")?;
        let key = (c.account, c.spender, c.asset);
        let capped = self.caps.get(&key).is_some_and(|cap| cap.cap.is_some());
        sure(c.cap.is_some() || capped, "spend_cap_invalid")?;
        self.caps.entry(key).or_default().cap = c.cap.map(|cap| cap.0);
        Ok(())
    }

    /// Whether a key may spend so much more: what it was charged and what its jobs hold count.
    pub fn cap_allows(&self, key: (AccountId, SpenderId, AssetId), asked: i128) -> bool {
        let Some(row) = self.caps.get(&key) else { return true };
        let counted =
            |job: &&Job| job.spender.map(|spender| (job.account, spender, job.rate.asset)) == Some(key);
        let open = self.jobs.values().filter(counted).flat_map(|job| &job.open);
        let held: i128 = open.map(|(_, amount)| amount).sum();
        row.cap.is_none_or(|cap| asked == 0 || row.charged + held + asked <= cap)
    }

    fn move_credit(&mut self, c: &MoveCredit, now_us: u64) -> Result<(), No> {
        let (from_at, to_at) = (c.from.0 as usize, c.to.0 as usize);
        let from = self.buckets.get(from_at).ok_or("grant_unknown")?;
        let to = self.buckets.get(to_at).ok_or("grant_unknown")?;
        self.may_spend(from.owner)?;
        self.open_account(to.owner)?;
        sure(c.amount.0 > 0, "units_zero")?;
        let travels = match from.source {
            GrantSource::Deposited | GrantSource::CreditLine => false,
            GrantSource::Promo | GrantSource::Allotment => from.owner == to.owner,
            GrantSource::Earned | GrantSource::Package => true,
        };
        let alike = (from.asset, from.source, from.backing) == (to.asset, to.source, to.backing);
        let end = |bucket: &Bucket| bucket.ends_us.unwrap_or(u64::MAX);
        let lives = !from.ended(now_us) && !to.ended(now_us) && end(to) <= end(from);
        let narrower = from.scope.is_empty()
            || !to.scope.is_empty() && to.scope.iter().all(|model| from.scope.contains(model));
        sure(from_at != to_at && travels && alike && lives && narrower, "move_refused")?;
        sure(c.amount.0 <= from.free, "insufficient_credit")?;
        self.buckets[from_at].free -= c.amount.0;
        self.buckets[to_at].free += c.amount.0;
        Ok(())
    }

    fn take(&mut self, c: &TakeEarnings) -> Result<(), No> {
        self.may_spend(c.account)?;
        self.asset(c.asset)?;
        sure(!matches!(c.backing, Backing::Vault(..)), "earnings_on_chain")?;
        sure(c.amount.0 > 0, "units_zero")?;
        let key = (c.account, c.asset, c.backing);
        let (waiting, bucket) = self.earnings.get(&key).copied().unwrap_or_default();
        sure(c.amount.0 <= waiting, "more_than_earned")?;
        let bucket = match bucket {
            Some(bucket) => bucket,
            None => self.empty_bucket(c.account, GrantSource::Earned, c.asset, 40, c.backing),
        };
        self.buckets[bucket].free += c.amount.0;
        self.earnings.insert(key, (waiting - c.amount.0, Some(bucket)));
        self.count(c.account, AccountKind::OperatorAccrued, c.asset, -c.amount.0);
        Ok(())
    }

    fn publish(&mut self, c: &PublishRateCard, now_us: u64) -> Result<(), No> {
        sure(c.card.version as usize == self.cards.len() + 1, "rate_card_version")?;
        sure(self.cards.is_empty() || c.card.effective_us >= now_us, "rate_card_in_the_past")?;
        self.cards.push((c.card.effective_us, c.card.models.clone()));
        Ok(())
    }
}
