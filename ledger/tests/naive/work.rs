//! Holds, jobs and charges of the naive model. Must not: call the ledger.

use crate::model::*;
use ledger::command::*;
use protocol::event::account::AccountKind;
use protocol::event::grant::{Backing, GrantSource};
use protocol::id::*;
use protocol::rate::ModelRate;
use std::collections::BTreeMap;

/// The price of so many units, rounded up once.
fn price(rate: &ModelRate, units: u64) -> i128 {
    let (gross, per) = (floor(rate.price.0, i128::from(units), 1), i128::from(rate.per_units));
    (gross + per - 1) / per
}

/// A share spread over what was paid, so that every beginning of the list has its floor.
fn spread(share: i128, paid: &[(usize, i128)]) -> Vec<i128> {
    let cost: i128 = paid.iter().map(|(_, amount)| amount).sum();
    let until = |n: usize| {
        let covered: i128 = paid[..n].iter().map(|(_, amount)| amount).sum();
        if cost == 0 { 0 } else { floor(share, covered, cost) }
    };
    (0..paid.len()).map(|n| until(n + 1) - until(n)).collect()
}

impl Job {
    fn output_before(&self) -> u64 {
        self.parts.iter().map(|part| part.output).sum()
    }
    fn input_before(&self) -> u64 {
        self.parts.iter().map(|part| part.input).sum()
    }
    pub fn charged(&self) -> i128 {
        self.parts.iter().map(|part| part.cost).sum()
    }
    /// To where output is settled, from the job's beginning.
    fn settled_to(&self) -> u64 {
        let mut to = 0;
        for part in &self.parts {
            to = self.attempts[part.attempt].1.max(to) + part.output;
        }
        to
    }
    fn key(&self) -> Option<(AccountId, SpenderId, protocol::asset::AssetId)> {
        self.spender.map(|spender| (self.account, spender, self.rate.asset))
    }
}

impl Model {
    pub fn running(&self, id: JobId) -> Result<&Job, No> {
        let job = self.jobs.get(&id).ok_or("job_unknown")?;
        sure(job.ended.is_none(), "hold_closed")?;
        Ok(job)
    }

    fn bounds(&self, rate: &ModelRate, units: (u64, u64), deadline_us: u64, now_us: u64) -> Result<i128, No> {
        sure(units.1 > 0, "output_bound_zero")?;
        sure(units.0 + units.1 <= u64::from(rate.context_tokens), "context_exceeded")?;
        let in_time = deadline_us > now_us && deadline_us <= now_us + self.rules.deadline_us_max;
        sure(in_time, "deadline_out_of_range")?;
        Ok(price(rate, units.0 + units.1))
    }

    fn serving(&self, node: NodeId, model: &str) -> Result<OperatorId, No> {
        let node = self.nodes.get(&node).ok_or("node_unknown")?;
        sure(!node.retired, "node_retired")?;
        sure(node.models.iter().any(|name| name == model), "model_not_served")?;
        Ok(node.operator)
    }

    fn hold(&mut self, chosen: &[(usize, i128)]) {
        for (k, amount) in chosen {
            self.buckets[*k].free -= amount;
        }
    }

    pub fn admit(&mut self, c: &Admit, now_us: u64) -> Result<(), No> {
        sure(!self.jobs.contains_key(&c.job), "job_known")?;
        self.may_spend(c.account)?;
        let card = self.cards.iter().rev().find(|(from_us, _)| *from_us <= now_us).ok_or("no_rate_card")?;
        let rate = card.1.iter().find(|rate| rate.model == c.model).ok_or("model_unknown")?.clone();
        let needed = self.bounds(&rate, (c.input_units, c.output_units_max), c.deadline_us, now_us)?;
        let operator = self.serving(c.node, &c.model)?;
        let key = c.spender.map(|spender| (c.account, spender, rate.asset));
        sure(key.is_none_or(|key| self.cap_allows(key, needed)), "spend_cap_reached")?;
        let open = self.choose(c.account, &rate, needed, now_us).ok_or("insufficient_credit")?;
        self.hold(&open);
        let counted = key.filter(|key| self.caps.contains_key(key));
        let job = Job {
            account: c.account,
            rate,
            input: c.input_units,
            bound: c.output_units_max,
            deadline_us: c.deadline_us,
            due_us: c.deadline_us + self.rules.grace_us,
            spender: counted.map(|(_, spender, _)| spender),
            amount: needed,
            open,
            attempts: vec![(operator, 0)],
            parts: Vec::new(),
            ended: None,
            reversed: false,
        };
        self.jobs.insert(c.job, job);
        Ok(())
    }

    pub fn extend(&mut self, c: &ExtendHold, now_us: u64) -> Result<(), No> {
        let job = self.running(c.job)?;
        let (bound, deadline_us) = (c.output_units_max, c.deadline_us);
        let grows = bound >= job.bound && deadline_us >= job.deadline_us;
        sure(grows && (bound, deadline_us) != (job.bound, job.deadline_us), "extension_invalid")?;
        sure(now_us < job.deadline_us, "deadline_passed")?;
        let needed = self.bounds(&job.rate, (job.input, bound), deadline_us, now_us)?;
        let added = needed - job.amount;
        let mut chosen = Vec::new();
        if added > 0 {
            self.may_spend(job.account)?;
            sure(job.key().is_none_or(|key| self.cap_allows(key, added)), "spend_cap_reached")?;
            chosen = self.choose(job.account, &job.rate, added, now_us).ok_or("insufficient_credit")?;
        }
        self.hold(&chosen);
        let grace_us = self.rules.grace_us;
        let job = self.jobs.get_mut(&c.job).unwrap();
        job.open.extend(chosen);
        (job.amount, job.bound, job.deadline_us) = (needed, bound, deadline_us);
        job.due_us = deadline_us + grace_us;
        Ok(())
    }

    pub fn redispatch(&mut self, c: &Redispatch, now_us: u64) -> Result<(), No> {
        let job = self.running(c.job)?;
        let next = job.attempts.len();
        sure(c.attempt as usize == next && next < 16, "attempt_number")?;
        sure(now_us < job.deadline_us, "deadline_passed")?;
        sure(c.continues_at <= job.bound, "output_above_hold")?;
        let least = job.settled_to().max(job.attempts[next - 1].1);
        sure(c.continues_at >= least, "cut_goes_back")?;
        let operator = self.serving(c.node, &job.rate.model)?;
        self.jobs.get_mut(&c.job).unwrap().attempts.push((operator, c.continues_at));
        Ok(())
    }

    pub fn capture(&mut self, c: &Capture, now_us: u64) -> Result<(), No> {
        let job = self.running(c.job)?;
        let attempt = c.attempt as usize;
        sure(attempt < job.attempts.len(), "attempt_unknown")?;
        let part = c.part.map_or((0, false), |part| (part.number as usize, part.open));
        let named = c.part.is_some() || job.parts.is_empty();
        sure(named && part.0 == job.parts.len(), "part_number")?;
        sure(c.input_units <= job.input, "input_above_hold")?;
        let counted = c.output_units_worker.min(c.output_units_gateway);
        let goes_on = c.input_units >= job.input_before() && counted >= job.settled_to();
        sure(goes_on, "part_goes_back")?;
        let from = job.settled_to().max(job.attempts[attempt].1);
        let until = job.attempts.get(attempt + 1).map_or(u64::MAX, |next| next.1);
        sure(counted >= from && counted <= until, "outside_cut")?;
        let output = job.output_before() + counted - from;
        let new = c.input_units > job.input_before() || counted > from;
        sure(output > 0 && (new || !part.1), "nothing_delivered")?;
        let tolerant = self.rules.tolerance_ppm > 0 && !part.1;
        sure(counted <= job.bound || tolerant, "output_above_hold")?;
        let (output, total, beyond) = self.bill(job, c.input_units, output, now_us)?;
        let cost = total - job.charged();
        let billed = (c.input_units - job.input_before(), output - job.output_before());
        self.charge(c.job, attempt, billed, cost, beyond, part.1, now_us);
        Ok(())
    }

    /// Output units, total price, and who pays what the hold does not.
    #[expect(clippy::type_complexity, reason = "three figures of one bill")]
    fn bill(
        &self,
        job: &Job,
        input: u64,
        output: u64,
        now_us: u64,
    ) -> Result<(u64, i128, Vec<(usize, i128)>), No> {
        let total = price(&job.rate, input + output);
        if total <= job.amount {
            return Ok((output, total, Vec::new()));
        }
        let extra = total - job.amount;
        sure(extra <= floor(job.amount, self.rules.tolerance_ppm, 1_000_000), "beyond_tolerance")?;
        let allowed =
            self.may_spend(job.account).is_ok() && job.key().is_none_or(|key| self.cap_allows(key, extra));
        let beyond = self.choose(job.account, &job.rate, extra, now_us).filter(|_| allowed);
        if let Some(beyond) = beyond {
            return Ok((output, total, beyond));
        }
        // Unit by unit, until the hold is spent.
        let mut output = output;
        while output > 0 && price(&job.rate, input + output) > job.amount {
            output -= 1;
        }
        Ok((output, price(&job.rate, input + output), Vec::new()))
    }

    #[expect(clippy::too_many_arguments, reason = "one charge, spelled out")]
    fn charge(
        &mut self,
        id: JobId,
        attempt: usize,
        billed: (u64, u64),
        cost: i128,
        beyond: Vec<(usize, i128)>,
        stays_open: bool,
        now_us: u64,
    ) {
        let of_hold = cost - beyond.iter().map(|(_, amount)| amount).sum::<i128>();
        let mut paid = self.consume(id, of_hold);
        for (k, amount) in &beyond {
            self.buckets[*k].free -= amount;
        }
        paid.extend(beyond);
        if !stays_open {
            self.release(id, 0, "captured", now_us);
        }
        let job = &self.jobs[&id];
        let (account, rate, key) = (job.account, job.rate.clone(), job.key());
        let operator = job.attempts[attempt].0;
        let carry = self.carries.entry((operator, rate.asset, rate.operator_share_ppm)).or_default();
        let due = floor(carry.0 + cost, i128::from(rate.operator_share_ppm), 1_000_000) - carry.1;
        let share = due.clamp(0, cost);
        *carry = (carry.0 + cost, carry.1 + share);
        if let Some(key) = key {
            self.caps.get_mut(&key).unwrap().charged += cost;
        }
        let owner = self.operators[&operator].account;
        for ((k, amount), share) in paid.iter().zip(spread(share, &paid)) {
            self.earn(id, (owner, operator), *k, *amount, share, now_us);
            if self.buckets[*k].source == GrantSource::CreditLine {
                self.lines.get_mut(&(account, rate.asset)).unwrap().drawn += amount;
            }
        }
        self.count(owner, AccountKind::OperatorAccrued, rate.asset, share);
        self.count(AccountId::SYSTEM, AccountKind::PlatformRevenue, rate.asset, cost - share);
        let (input, output) = billed;
        let part = Part { attempt, operator, input, output, cost, paid, share };
        self.jobs.get_mut(&id).unwrap().parts.push(part);
    }

    fn earn(
        &mut self,
        job: JobId,
        who: (AccountId, OperatorId),
        k: usize,
        cost: i128,
        share: i128,
        now_us: u64,
    ) {
        let (owner, operator) = who;
        let (asset, backing) = (self.buckets[k].asset, self.buckets[k].backing);
        let Some(wallet) = self.buckets[k].wallet() else {
            self.earnings.entry((owner, asset, backing)).or_default().0 += share;
            return;
        };
        self.entries += 1;
        let nth = self.entries;
        let row = self.wallets.get_mut(&wallet).unwrap();
        row.captured += cost;
        row.queue.push(Entry { nth, job, operator, cost, share, covered: 0, time_us: now_us });
    }

    /// Takes from what a job holds, in its order; gives what was taken of which bucket.
    fn consume(&mut self, id: JobId, amount: i128) -> Vec<(usize, i128)> {
        let job = self.jobs.get_mut(&id).unwrap();
        let mut left = amount;
        let mut taken = Vec::new();
        for (k, open) in &mut job.open {
            let take = left.min(*open);
            if take > 0 {
                taken.push((*k, take));
                *open -= take;
                left -= take;
            }
        }
        assert_eq!(left, 0, "a hold pays at most itself");
        taken
    }

    /// Ends a hold: what is left of it is free again, or lost with its bucket.
    pub fn release(&mut self, id: JobId, consumed: i128, end: No, now_us: u64) {
        self.consume(id, consumed);
        let job = self.jobs.get_mut(&id).unwrap();
        job.ended = Some((end, now_us));
        for (k, open) in std::mem::take(&mut job.open) {
            self.give_back(k, open, now_us);
        }
    }

    fn give_back(&mut self, k: usize, amount: i128, now_us: u64) {
        let (asset, ended) = (self.buckets[k].asset, self.buckets[k].ended(now_us));
        if ended {
            self.count(AccountId::SYSTEM, AccountKind::Breakage, asset, amount);
        } else {
            self.buckets[k].free += amount;
        }
    }

    /// How much of a job's shares comes back from what waits, and how much from earned buckets.
    fn recalls(&self, job: &Job) -> BTreeMap<(AccountId, protocol::asset::AssetId, Backing), i128> {
        let mut recalls = BTreeMap::new();
        for part in &job.parts {
            let owner = self.operators[&part.operator].account;
            for ((k, _), share) in part.paid.iter().zip(spread(part.share, &part.paid)) {
                if self.buckets[*k].wallet().is_none() {
                    *recalls.entry((owner, job.rate.asset, self.buckets[*k].backing)).or_default() += share;
                }
            }
        }
        recalls
    }

    pub fn reverse(&mut self, id: JobId, now_us: u64) -> Result<(), No> {
        let job = self.jobs.get(&id).ok_or("job_unknown")?;
        sure(job.ended.is_some() && !job.parts.is_empty(), "not_captured")?;
        sure(!job.reversed, "already_reversed")?;
        let of_wallets = job.parts.iter().flat_map(|part| &part.paid);
        let of_wallets = of_wallets.filter(|(k, _)| self.buckets[*k].wallet().is_some()).count();
        let queues = self.wallets.values().flat_map(|wallet| &wallet.queue);
        let untouched = queues.filter(|entry| entry.job == id && entry.covered == 0).count();
        sure(of_wallets == untouched, "capture_in_batch")?;
        let recalls = self.recalls(job);
        for (key, share) in &recalls {
            let (waiting, bucket) = self.earnings.get(key).copied().unwrap_or_default();
            let free = bucket.map_or(0, |k| self.buckets[k].free);
            sure(*share <= waiting + free, "earnings_spent")?;
        }
        for (key, share) in recalls {
            let (waiting, bucket) = self.earnings.get(&key).copied().unwrap_or_default();
            let from_waiting = share.min(waiting);
            self.earnings.insert(key, (waiting - from_waiting, bucket));
            if share > from_waiting {
                self.buckets[bucket.unwrap()].free -= share - from_waiting;
                self.count(key.0, AccountKind::OperatorAccrued, key.1, share - from_waiting);
            }
        }
        self.refund(id, now_us);
        Ok(())
    }

    fn refund(&mut self, id: JobId, now_us: u64) {
        let job = self.jobs.get_mut(&id).unwrap();
        job.reversed = true;
        let (account, rate, key, charged) = (job.account, job.rate.clone(), job.key(), job.charged());
        let parts = job.parts.iter().map(|part| (part.operator, part.cost, part.share, part.paid.clone()));
        let parts: Vec<_> = parts.collect();
        if let Some(key) = key {
            self.caps.get_mut(&key).unwrap().charged -= charged;
        }
        for (operator, cost, share, paid) in parts {
            let carry = self.carries.get_mut(&(operator, rate.asset, rate.operator_share_ppm)).unwrap();
            *carry = (carry.0 - cost, carry.1 - share);
            let owner = self.operators[&operator].account;
            self.count(owner, AccountKind::OperatorAccrued, rate.asset, -share);
            self.count(AccountId::SYSTEM, AccountKind::PlatformRevenue, rate.asset, share - cost);
            for (k, amount) in paid {
                if let Some(wallet) = self.buckets[k].wallet() {
                    self.wallets.get_mut(&wallet).unwrap().captured -= amount;
                }
                if self.buckets[k].source == GrantSource::CreditLine {
                    self.lines.get_mut(&(account, rate.asset)).unwrap().drawn -= amount;
                }
                self.give_back(k, amount, now_us);
            }
        }
        for wallet in self.wallets.values_mut() {
            wallet.queue.retain(|entry| entry.job != id);
        }
    }

    /// When what ends by itself ends: holds before buckets of the same moment.
    pub fn timers(&self) -> Vec<(u64, u8, [u8; 16])> {
        let running = self.jobs.iter().filter(|(_, job)| job.ended.is_none());
        let mut timers: Vec<_> = running.map(|(id, job)| (job.due_us, 0, id.0)).collect();
        for (k, bucket) in self.buckets.iter().enumerate().filter(|(_, bucket)| !bucket.end_logged) {
            timers.extend(bucket.ends_us.map(|ends_us| (ends_us, 1, (k as u128).to_be_bytes())));
        }
        timers.sort();
        timers
    }

    pub fn expire(&mut self, events_max: u32, now_us: u64) -> Result<(), No> {
        let mut due: Vec<_> = self.timers().into_iter().filter(|(at_us, ..)| *at_us <= now_us).collect();
        due.truncate(events_max as usize);
        sure(!due.is_empty(), "nothing_due")?;
        for (_, kind, id) in due {
            if kind == 0 {
                self.release(JobId(id), 0, "expired", now_us);
                continue;
            }
            let bucket = &mut self.buckets[u128::from_be_bytes(id) as usize];
            let (asset, lost) = (bucket.asset, std::mem::take(&mut bucket.free));
            bucket.end_logged = true;
            self.count(AccountId::SYSTEM, AccountKind::Breakage, asset, lost);
        }
        Ok(())
    }
}
