//! The index against the books' own fold: whatever is asked at whatever point, the answer is that of a replay from
//! genesis up to there. Logs are made by the ledger from random commands. Cases: env PROPTEST_CASES, 32 by default.

#[path = "../../ledger/tests/world/mod.rs"]
mod world;

use ledger::command::{ExpireDue, ReverseCapture};
use projector::index::{Caught, Index, IndexError, LogCommit, OpenHold, Range};
use projector::statements::Statement;
use projector::subject::{Finder, InMemory, Subject, belongs_to};
use projector::trial_balance::trial_balance;
use projector::{At, Books};
use proptest::prelude::*;
use protocol::codec::decode_event;
use protocol::event::{Event, EventBody};
use protocol::id::{AccountId, Hash32, HoldId};
use std::collections::BTreeMap;
use world::*;

#[derive(Clone, Debug)]
enum Op {
    Advance(u64),
    Grant { to: u8, amount: i128, life_s: Option<u64> },
    Deposit { of: u8, units: u64 },
    Authorise { of: u8 },
    Admit { of: u8, input: u64, output: u64 },
    Capture { pick: usize, output: u64 },
    Void { pick: usize },
    Reverse { pick: usize },
    Expire,
    Voucher { of: u8, units: u64 },
    Close,
    Confirm,
}

fn op() -> impl Strategy<Value = Op> {
    let who = 1u8..=3;
    prop_oneof![
        2 => (1u64..40).prop_map(Op::Advance),
        3 => (who.clone(), 500i128..9_000, prop::option::of(1u64..90))
            .prop_map(|(to, amount, life_s)| Op::Grant { to, amount, life_s }),
        3 => (who.clone(), 1u64..12).prop_map(|(of, units)| Op::Deposit { of, units }),
        2 => who.clone().prop_map(|of| Op::Authorise { of }),
        10 => (who.clone(), 0u64..30, 1u64..30).prop_map(|(of, input, output)| Op::Admit { of, input, output }),
        8 => (0usize..20, 1u64..30).prop_map(|(pick, output)| Op::Capture { pick, output }),
        2 => (0usize..20).prop_map(|pick| Op::Void { pick }),
        1 => (0usize..20).prop_map(|pick| Op::Reverse { pick }),
        2 => Just(Op::Expire),
        1 => (who, 1u64..6).prop_map(|(of, units)| Op::Voucher { of, units }),
        2 => Just(Op::Close),
        1 => Just(Op::Confirm),
    ]
}

/// Runs the commands; what the ledger refuses is not in the log.
fn log_of(ops: &[Op]) -> World {
    let mut world = World::open(rate(70, 3, 333_333));
    let (mut jobs, mut ordinal, mut batches) = (Vec::new(), 0, 0);
    for op in ops {
        let picked = |pick: &usize| jobs.get(*pick).copied().unwrap_or(999);
        let _ = match op {
            Op::Advance(seconds) => {
                world.now_us += seconds * S;
                continue;
            }
            Op::Grant { to, amount, life_s } => {
                let expires_us = life_s.map(|life| world.now_us + life * S);
                Ok(world.grant(*to, *amount, expires_us))
            }
            Op::Deposit { of, units } => {
                ordinal += 1;
                world.deposit(*of, *units, ordinal)
            }
            Op::Authorise { of } => world.authorise(*of, 1_000),
            Op::Admit { of, input, output } => {
                let id = jobs.len() as u32 + 1;
                jobs.push(id);
                world.admit(*of, id, *input, *output)
            }
            Op::Capture { pick, output } => world.capture(picked(pick), 0, *output),
            Op::Void { pick } => world.void(picked(pick)),
            Op::Reverse { pick } => world.run(ReverseCapture { job: job(picked(pick)) }),
            Op::Expire => world.run(ExpireDue { events_max: 8 }),
            Op::Voucher { of, units } => world.voucher(*of, 7_000 + ordinal, *units, 0),
            Op::Close => {
                batches += 1;
                world.close_batch(batches)
            }
            Op::Confirm => world.submit_batch(batches).and_then(|_| world.confirm_batch(batches)),
        };
    }
    world
}

fn events_of(world: &World) -> Vec<Event> {
    world.log.iter().map(|bytes| decode_event(bytes).unwrap()).collect()
}

fn commits_of(world: &World) -> Vec<LogCommit> {
    let mut by_commit: BTreeMap<u64, Vec<Event>> = BTreeMap::new();
    for event in events_of(world) {
        by_commit.entry(event.header.commit).or_default().push(event);
    }
    let mut previous = Hash32([0; 32]);
    let commits = by_commit.into_iter().map(|(number, events)| {
        let hash = world.commit_hashes[number as usize - 1].0;
        LogCommit { number, hash, previous: std::mem::replace(&mut previous, hash), events }
    });
    commits.collect()
}

fn from(commits: &[LogCommit], number: u64) -> Vec<Result<LogCommit, String>> {
    commits.iter().filter(|commit| commit.number >= number).cloned().map(Ok).collect()
}

/// Holds open after these events, by a map that knows nothing of the index.
fn open_holds(events: &[Event]) -> BTreeMap<HoldId, i128> {
    let mut open = BTreeMap::new();
    for event in events {
        match &event.body {
            EventBody::HoldPlaced(e) => drop(open.insert(e.hold, e.amount.0)),
            EventBody::HoldVoided(e) => drop(open.remove(&e.hold)),
            EventBody::HoldExpired(e) => drop(open.remove(&e.hold)),
            EventBody::UsageCaptured(e) => drop(open.remove(&e.hold)),
            _ => {}
        }
    }
    open
}

fn as_map(holds: &[OpenHold]) -> BTreeMap<HoldId, i128> {
    holds.iter().map(|hold| (hold.hold, hold.amount.0)).collect()
}

const OWNERS: [u8; 5] = [0, 1, 2, 3, 101];

fn check_size(index: &Index, events: &[Event], size: u64) {
    let prefix = &events[..size as usize];
    let mut books = Books::new();
    prefix.iter().for_each(|event| books.apply(event).unwrap());
    let at = At::Size(size);
    assert_eq!(index.trial_balance(at).unwrap(), trial_balance(&books), "size {size}");
    for account in books.accounts() {
        assert_eq!(index.balance(account.opened.number, at).unwrap(), account.counters, "size {size}");
    }
    for owner in OWNERS {
        let owner = AccountId([owner; 16]);
        let mut statement = Statement::of(owner);
        prefix.iter().for_each(|event| statement.apply(event).unwrap());
        let mut expected = statement.lines().to_vec();
        let lines = index.owner_statement(owner, &Range::until(at)).unwrap();
        let mut lines: Vec<_> = lines.iter().map(|line| line.line(index)).collect();
        // Lines of one event may come in another order; within one account they may not.
        expected.sort_by(|a, b| (a.leaf, &a.account).cmp(&(b.leaf, &b.account)));
        lines.sort_by(|a, b| (a.leaf, &a.account).cmp(&(b.leaf, &b.account)));
        assert_eq!(lines, expected, "size {size}");
    }
    assert_eq!(as_map(&index.holds(at).unwrap()), open_holds(prefix), "size {size}");
    assert!(index.balance(protocol::event::LedgerAccount(u32::MAX), at).unwrap().balance().is_zero());
}

fn check_points(index: &Index, events: &[Event]) {
    for event in events {
        let (us, leaf) = (event.header.time_us, event.header.leaf);
        let until = |us: u64| events.iter().filter(|e| e.header.time_us <= us).count() as u64;
        assert_eq!(index.size_at(At::Time(us)).unwrap(), until(us));
        assert_eq!(index.size_at(At::Time(us - 1)).unwrap(), until(us - 1));
        assert_eq!(index.commit_of(leaf).unwrap(), Some(event.header.commit));
        if let EventBody::BatchClosed(batch) = &event.body {
            assert_eq!(index.size_at(At::Batch(batch.batch)).unwrap(), batch.cutoff_leaf);
        }
    }
    let memory = InMemory::new(events);
    for event in events {
        for subject in belongs_to(&event.body) {
            assert_eq!(index.leaves(&subject).unwrap(), memory.leaves(&subject).unwrap(), "{subject:?}");
        }
        let leaf = event.header.leaf;
        assert_eq!(index.batch_after(leaf).unwrap(), memory.batch_after(leaf).unwrap());
    }
    let granted =
        events.iter().filter(|e| matches!(&e.body, EventBody::GrantIssued(g) if g.account == account(1)));
    assert_eq!(index.grants(account(1), At::Newest).unwrap().len(), granted.count());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), ..ProptestConfig::default() })]

    #[test]
    fn every_answer_is_that_of_a_replay_of_the_prefix(
        ops in prop::collection::vec(op(), 1..120),
        cuts in prop::collection::vec(0usize..200, 0..4),
    ) {
        let world = log_of(&ops);
        let (events, commits) = (events_of(&world), commits_of(&world));
        let dir = tempfile::tempdir().unwrap();
        // Followed in pieces, closed and opened in between.
        for cut in cuts {
            let upto = &commits[..cut.min(commits.len())];
            let mut index = Index::open(dir.path()).unwrap();
            let next = index.next_commit();
            if upto.len() as u64 >= next {
                index.follow(from(upto, next)).unwrap();
            }
        }
        let (index, caught) = Index::catch_up(dir.path(), |next| from(&commits, next)).unwrap();
        prop_assert_ne!(caught, Caught::Rebuilt);
        prop_assert_eq!(index.position().size, events.len() as u64);
        for size in 0..=events.len() as u64 {
            check_size(&index, &events, size);
        }
        check_points(&index, &events);
    }
}

fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(32)
}

fn some_log(seed: i128) -> World {
    let mut world = World::open(rate(70, 3, 333_333));
    for n in 0..40 {
        world.grant(1 + (n % 3) as u8, 1_000 + seed + n, None);
    }
    world
}

#[test]
fn an_index_of_another_log_is_noticed_and_built_anew() {
    let (ours, theirs) = (commits_of(&some_log(0)), commits_of(&some_log(1)));
    let dir = tempfile::tempdir().unwrap();
    Index::catch_up(dir.path(), |next| from(&theirs, next)).unwrap();
    {
        let mut index = Index::open(dir.path()).unwrap();
        let next = index.next_commit();
        let error = index.follow(from(&ours, next)).unwrap_err();
        assert!(matches!(error, IndexError::Foreign { .. }), "{error}");
    }
    let (index, caught) = Index::catch_up(dir.path(), |next| from(&ours, next)).unwrap();
    assert_eq!(caught, Caught::Rebuilt);
    let events = events_of(&some_log(0));
    check_size(&index, &events, events.len() as u64);
}

#[test]
fn an_index_beyond_a_shorter_log_is_built_anew() {
    let commits = commits_of(&some_log(0));
    let dir = tempfile::tempdir().unwrap();
    Index::catch_up(dir.path(), |next| from(&commits, next)).unwrap();
    let shorter = &commits[..commits.len() - 5];
    let (index, caught) = Index::catch_up(dir.path(), |next| from(shorter, next)).unwrap();
    assert_eq!(caught, Caught::Rebuilt);
    assert_eq!(index.position().commit, shorter.len() as u64);
}

#[test]
fn a_truncated_or_overwritten_file_is_built_anew() {
    let world = some_log(0);
    let commits = commits_of(&world);
    let events = events_of(&world);
    let whole = {
        let dir = tempfile::tempdir().unwrap();
        Index::catch_up(dir.path(), |next| from(&commits, next)).unwrap();
        std::fs::read(dir.path().join("index.redb")).unwrap()
    };
    let mut damaged: Vec<Vec<u8>> = [0, 1, 100, 4_096, whole.len() / 2, whole.len() - 1]
        .iter()
        .map(|length| whole[..*length].to_vec())
        .collect();
    damaged.push(b"not a database at all".repeat(1_000));
    for bytes in damaged {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("index.redb"), &bytes).unwrap();
        let (index, _) = Index::catch_up(dir.path(), |next| from(&commits, next)).unwrap();
        check_size(&index, &events, events.len() as u64);
    }
}

#[test]
fn a_failing_log_leaves_the_index_where_it_was_and_it_goes_on() {
    let commits = commits_of(&some_log(0));
    let dir = tempfile::tempdir().unwrap();
    let mut index = Index::open(dir.path()).unwrap();
    let mut broken: Vec<Result<LogCommit, String>> = from(&commits, 1);
    broken[20] = Err("the disk is gone".into());
    assert!(matches!(index.follow(broken).unwrap_err(), IndexError::Log(_)));
    assert_eq!(index.position().commit, 0);
    let mut gap = from(&commits, 1);
    drop(gap.remove(7));
    assert!(matches!(index.follow(gap).unwrap_err(), IndexError::Foreign { .. }));
    index.follow(from(&commits, 1)).unwrap();
    assert_eq!(index.position().commit, commits.len() as u64);
}

#[test]
fn points_that_do_not_exist_are_named() {
    let commits = commits_of(&some_log(0));
    let dir = tempfile::tempdir().unwrap();
    let (index, _) = Index::catch_up(dir.path(), |next| from(&commits, next)).unwrap();
    let size = index.position().size;
    assert!(index.size_at(At::Size(size)).is_ok());
    let error = index.size_at(At::Size(size + 1)).unwrap_err();
    assert_eq!(error.to_string(), format!("size {} is beyond the log's {size} events", size + 1));
    assert!(matches!(index.size_at(At::Batch(batch(9))), Err(IndexError::UnknownBatch(_))));
    assert_eq!(index.size_at(At::Time(0)).unwrap(), 0);
    assert_eq!(index.size_at(At::Time(u64::MAX)).unwrap(), size);
    assert!(index.leaves(&Subject::Job(job(77))).unwrap().is_empty());
}

#[test]
fn a_live_follower_appends_commit_by_commit() {
    let world = some_log(0);
    let (commits, events) = (commits_of(&world), events_of(&world));
    let dir = tempfile::tempdir().unwrap();
    let mut index = Index::open(dir.path()).unwrap();
    for commit in &commits {
        index.append([Ok::<_, String>(commit.clone())]).unwrap();
    }
    check_size(&index, &events, events.len() as u64);
    let again = index.append([Ok::<_, String>(commits[3].clone())]).unwrap_err();
    assert!(matches!(again, IndexError::Foreign { .. }), "{again}");
}

#[test]
fn the_newest_lines_are_kept_when_there_are_too_many() {
    let commits = commits_of(&some_log(0));
    let dir = tempfile::tempdir().unwrap();
    let (index, _) = Index::catch_up(dir.path(), |next| from(&commits, next)).unwrap();
    let owner = AccountId::SYSTEM;
    let all = index.owner_statement(owner, &Range::until(At::Newest)).unwrap();
    let range = Range { from_leaf: all[5].leaf, until: At::Newest, lines_max: 7 };
    assert_eq!(index.owner_statement(owner, &range).unwrap(), all[all.len() - 7..].to_vec());
    let range = Range { from_leaf: all[5].leaf, until: At::Newest, lines_max: usize::MAX };
    assert_eq!(index.owner_statement(owner, &range).unwrap(), all[5..].to_vec());
}
