//! Remembers every answer and says which promise is broken, at once or at the end. Must not: steer anything.

use crate::log::Log;
use crate::tail::Tail;
use bytes::Bytes;
use journal::pipeline::{Each, Outcome, Placed, Reply};
use journal::reader::ChainCheck;
use ledger::{Command, Decision, Refusal, State};
use protocol::commit::Commit;
use protocol::id::{Hash32, IdempotencyKey};
use std::collections::BTreeMap;

/// A broken promise: which rule, and what was seen.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{rule}: {seen}")]
pub struct Violation {
    /// The promise.
    pub rule: &'static str,
    /// What broke it.
    pub seen: String,
}

/// What a reader saw of the state.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// Leaves in it.
    pub leaves: u64,
    /// Its last whole commit.
    pub commit: u64,
    /// That commit's hash.
    pub hash: Hash32,
}

impl Seen {
    /// For a [`journal::pipeline::Query`].
    pub fn of(state: &State) -> Self {
        Self { leaves: state.next_leaf(), commit: state.last_commit(), hash: state.last_commit_hash() }
    }
}

/// Somebody was told that a command's events stand there.
#[derive(Clone, Debug)]
struct Promise {
    key: IdempotencyKey,
    commit: u64,
    /// `None` for a repeated command: the reply leaves it to a reader.
    hash: Option<Hash32>,
    first_leaf: u64,
    count: u32,
    time_us: Option<u64>,
}

/// How often a command was asked for, and how often the answer was a certain no.
#[derive(Default)]
struct Asked {
    requests: u32,
    noes: u32,
}

/// See the module.
#[derive(Default)]
pub struct Checker {
    promises: Vec<Promise>,
    refusals: Vec<(u64, Command, Refusal)>,
    asked: BTreeMap<IdempotencyKey, Asked>,
    /// The highest commit that anybody was told of.
    pub told: u64,
    /// Certain answers.
    pub answers: u64,
}

/// What is known when a reply leaves its writer.
pub struct Moment<'a> {
    /// The log as it is.
    pub log: &'a Log,
    /// Leaves in it.
    pub leaves: u64,
    /// The archive tail as it is.
    pub tail: &'a Tail,
    /// Neither may be held to what it lost.
    pub rotten: Rot,
}

/// What has rotted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rot {
    /// Nothing.
    None,
    /// The log, at some time; the archive tail is the truth.
    Log,
    /// The tail; the log is the truth.
    Tail,
}

fn broken<T>(rule: &'static str, seen: String) -> Result<T, Violation> {
    Err(Violation { rule, seen })
}

impl Checker {
    /// A request with these commands was sent.
    pub fn sent(&mut self, commands: &[Command]) {
        for command in commands {
            self.asked.entry(command.key).or_default().requests += 1;
        }
    }

    /// A reply to these commands left its writer.
    pub fn replied(&mut self, commands: &[Command], reply: &Reply, now: &Moment) -> Result<(), Violation> {
        self.answers += 1;
        match reply {
            Reply::Done(outcome) => {
                let Outcome { commit, commit_hash, first_leaf, time_us, .. } = outcome;
                let headed = outcome.events.iter().all(|event| event.header.key == commands[0].key);
                if !headed {
                    return broken("an answer holds the command's own events", format!("{outcome:?}"));
                }
                let placed = Placed {
                    commit: *commit,
                    commit_hash: *commit_hash,
                    first_leaf: *first_leaf,
                    count: outcome.events.len() as u32,
                    time_us: *time_us,
                    repeated: false,
                };
                self.placed(&commands[0], &placed, now)
            }
            Reply::Placed(placed) => self.placed(&commands[0], placed, now),
            Reply::Repeated { commit, first_leaf, count } => {
                self.repeated(&commands[0], *commit, *first_leaf, *count, now)
            }
            Reply::Refused { refusal, at_leaf } => self.refused(&commands[0], refusal, *at_leaf, now),
            Reply::Batch { results, .. } => {
                if results.len() != commands.len() {
                    let seen = format!("{} results for {} commands", results.len(), commands.len());
                    return broken("a batch has a result for each command", seen);
                }
                for (command, each) in commands.iter().zip(results) {
                    match each {
                        Each::Placed(placed) => self.placed(command, placed, now)?,
                        Each::Repeated { commit, first_leaf, count } => {
                            self.repeated(command, *commit, *first_leaf, *count, now)?;
                        }
                        Each::Refused { refusal, at_leaf } => {
                            self.refused(command, refusal, *at_leaf, now)?
                        }
                        Each::TooLarge(_) => self.no(command),
                    }
                }
                Ok(())
            }
            Reply::TooLarge(_) | Reply::Overloaded | Reply::Stopped(_) => {
                commands.iter().for_each(|command| self.no(command));
                Ok(())
            }
            Reply::Unknown => Ok(()),
            Reply::Answer(_) => unreachable!("looks are checked by `looked`"),
        }
    }

    /// A read's answer left its writer.
    pub fn looked(&mut self, seen: Seen, now: &Moment) -> Result<(), Violation> {
        self.answers += 1;
        if now.rotten == Rot::Log {
            return Ok(());
        }
        let there = seen.commit == 0 || now.log.get(seen.commit).is_some_and(|m| m.hash == seen.hash);
        if there && seen.leaves <= now.leaves {
            return Ok(());
        }
        broken(
            "a read tells only of what is committed",
            format!("{seen:?}, the log has {} leaves", now.leaves),
        )
    }

    fn no(&mut self, command: &Command) {
        self.asked.entry(command.key).or_default().noes += 1;
    }

    fn placed(&mut self, command: &Command, placed: &Placed, now: &Moment) -> Result<(), Violation> {
        let Placed { commit, commit_hash, first_leaf, count, time_us, .. } = *placed;
        let in_log = now.log.get(commit).is_some_and(|message| message.hash == commit_hash);
        if now.rotten != Rot::Log && !in_log {
            return broken("an answer leaves after the log has the commit", format!("{placed:?}"));
        }
        if now.rotten != Rot::Tail && now.tail.hash(commit) != Some(commit_hash) {
            return broken("an answer leaves after the archive tail has the commit", format!("{placed:?}"));
        }
        self.told = self.told.max(commit);
        let (hash, time_us) = (Some(commit_hash), Some(time_us));
        self.promises.push(Promise { key: command.key, commit, hash, first_leaf, count, time_us });
        Ok(())
    }

    fn repeated(
        &mut self,
        command: &Command,
        commit: u64,
        first_leaf: u64,
        count: u32,
        now: &Moment,
    ) -> Result<(), Violation> {
        if now.rotten != Rot::Log && now.log.get(commit).is_none() {
            let seen = format!("commit {commit}, the log ends at {}", now.log.last());
            return broken("a repeated command's answer waits for its commit", seen);
        }
        let (hash, time_us) = (None, None);
        self.promises.push(Promise { key: command.key, commit, hash, first_leaf, count, time_us });
        Ok(())
    }

    fn refused(
        &mut self,
        command: &Command,
        refusal: &Refusal,
        at_leaf: u64,
        now: &Moment,
    ) -> Result<(), Violation> {
        self.no(command);
        if now.rotten != Rot::Log && at_leaf > now.leaves {
            let seen = format!("decided on {at_leaf} leaves, the log has {}: {refusal}", now.leaves);
            return broken("a refusal waits for what it was decided on", seen);
        }
        self.refusals.push((at_leaf, command.clone(), refusal.clone()));
        Ok(())
    }

    /// Holds every answer against the truth: the whole log, or the archive when the log rotted.
    pub fn finish<'a>(&mut self, truth: impl Iterator<Item = &'a Bytes>) -> Result<(), Violation> {
        self.refusals.sort_by_key(|(at_leaf, ..)| *at_leaf);
        let mut refusals = std::mem::take(&mut self.refusals).into_iter().peekable();
        let mut state = State::new(0);
        let mut chain = ChainCheck::new(0, 1);
        let mut keys: BTreeMap<IdempotencyKey, (u64, u64, u32)> = BTreeMap::new();
        let mut commits: Vec<(Hash32, u64)> = Vec::new();
        for bytes in truth {
            let bad = |e: String| Violation { rule: "the log replays to its end", seen: e };
            let commit = chain.check(bytes.clone()).map_err(|e| bad(e.to_string()))?;
            for event in &commit.events {
                while let Some((_, command, refusal)) = refusals.next_if(|r| r.0 <= state.next_leaf()) {
                    justified(&state, &command, &refusal)?;
                }
                ledger::apply(&mut state, event).map_err(|e| bad(e.to_string()))?;
                let header = &event.header;
                keys.entry(header.key).or_insert((header.commit, header.leaf, 0)).2 += 1;
            }
            let Commit { number, time_us, .. } = commit.commit;
            ledger::end_commit(&mut state, number, commit.hash, time_us).map_err(|e| bad(e.to_string()))?;
            commits.push((commit.hash, time_us));
        }
        for (at_leaf, command, refusal) in refusals {
            if at_leaf > state.next_leaf() {
                let seen = format!("{refusal}, decided on {at_leaf} leaves of {}", state.next_leaf());
                return broken("a refusal waits for what it was decided on", seen);
            }
            justified(&state, &command, &refusal)?;
        }
        ledger::invariants::check(&state)
            .map_err(|seen| Violation { rule: "the books balance at the end", seen })?;
        self.hold_promises(&keys, &commits)
    }

    fn hold_promises(
        &self,
        keys: &BTreeMap<IdempotencyKey, (u64, u64, u32)>,
        commits: &[(Hash32, u64)],
    ) -> Result<(), Violation> {
        for promise in &self.promises {
            let Promise { key, commit, hash, first_leaf, count, time_us } = promise;
            let at = commits.get(*commit as usize - 1);
            let same_commit = at.is_some_and(|(h, t)| {
                hash.is_none_or(|hash| hash == *h) && time_us.is_none_or(|time_us| time_us == *t)
            });
            if !same_commit || keys.get(key) != Some(&(*commit, *first_leaf, *count)) {
                let seen = format!("{promise:?}, the log has {:?} and {at:?}", keys.get(key));
                return broken("what was answered stands in the log, once, as it was told", seen);
            }
        }
        for (key, asked) in &self.asked {
            if asked.requests == asked.noes && keys.contains_key(key) {
                let seen = format!("{key}: {} requests, all of them denied", asked.requests);
                return broken("what was denied did not happen", seen);
            }
        }
        Ok(())
    }
}

/// Decided again on the very prefix that it names, a command is refused for the same reason.
fn justified(state: &State, command: &Command, refusal: &Refusal) -> Result<(), Violation> {
    let rule = "a refusal follows from the prefix that it names";
    if let Refusal::TooLate { not_after_us, now_us } = refusal {
        let late = command.not_after_us == Some(*not_after_us) && now_us > not_after_us;
        return if late { Ok(()) } else { broken(rule, refusal.to_string()) };
    }
    match ledger::decide(state, &Command { not_after_us: None, ..command.clone() }, state.last_time_us()) {
        Err(again) if again == *refusal => Ok(()),
        Err(again) => broken(rule, format!("{refusal}; on that prefix: {again}")),
        Ok(Decision::New(_)) => broken(rule, format!("{refusal}; on that prefix it is accepted")),
        Ok(Decision::Repeated { .. }) => broken(rule, format!("{refusal}; on that prefix it is repeated")),
    }
}
