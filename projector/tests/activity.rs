//! What the index says was served and earned, by day, model and operator, and what is open and for how long: against the
//! books' own balances, over several days, followed in pieces, and after being opened again.

mod story;

use projector::index::{At, By, Index, IndexError, LogCommit, Open};
use protocol::amount::Amount;
use protocol::event::account::AccountKind;
use protocol::event::{Event, EventBody};
use protocol::id::Hash32;

const DAY_US: u64 = 86_400_000_000;

/// The story, its third job charged and undone on different days, each event a commit of its own.
fn commits() -> Vec<LogCommit> {
    let mut events = story::log();
    let undone = events.iter().rposition(|event| event.body.kind() == "capture_reversed").unwrap();
    for event in &mut events[undone..] {
        event.header.time_us += 2 * DAY_US;
    }
    let hash = |number: u64| Hash32([number as u8; 32]);
    let commit = |event: Event| {
        let number = event.header.commit;
        LogCommit {
            number,
            hash: hash(number),
            previous: if number == 1 { Hash32([0; 32]) } else { hash(number - 1) },
            events: vec![event],
        }
    };
    events.into_iter().map(commit).collect()
}

fn follow(index: &mut Index, commits: Vec<LogCommit>) {
    index.append(commits.into_iter().map(Ok::<_, String>)).unwrap();
}

#[test]
fn sums_are_those_of_the_books_whatever_the_pieces() {
    let all = commits();
    let mut whole = Index::in_memory().unwrap();
    follow(&mut whole, all.clone());
    let dir = tempfile::tempdir().unwrap();
    for commit in &all {
        // Opened again after every commit: what was written is all it knows.
        let mut index = Index::open(dir.path()).unwrap();
        follow(&mut index, vec![commit.clone()]);
    }
    let pieces = Index::open(dir.path()).unwrap();
    for by in [By::Day, By::Model, By::Operator, By::All] {
        assert_eq!(
            whole.activity(0, u64::MAX, by).unwrap(),
            pieces.activity(0, u64::MAX, by).unwrap(),
            "{by:?}"
        );
    }
    let models = whole.activity(0, u64::MAX, By::Model).unwrap();
    let sums = models[0].sums;
    assert_eq!((models.len(), models[0].model.as_deref(), sums.jobs), (1, Some("small"), 1));
    assert_eq!((sums.input_units, sums.output_units), (20, 150));
    assert_eq!(
        (sums.gross, sums.platform, sums.operators),
        (Amount(680_001), Amount(136_001), Amount(544_000))
    );
    let revenue = whole.trial_balance(At::Newest).unwrap().lines;
    let revenue = revenue.iter().find(|line| line.kind == AccountKind::PlatformRevenue).unwrap();
    assert_eq!(-revenue.balance, sums.platform, "revenue is what the books have");
    let operators = whole.activity(0, u64::MAX, By::Operator).unwrap();
    assert_eq!((operators[0].operator, operators[0].sums), (Some(story::OPERATOR), sums));
}

#[test]
fn what_is_undone_later_counts_on_its_own_day() {
    let mut index = Index::in_memory().unwrap();
    follow(&mut index, commits());
    let days = index.activity(0, u64::MAX, By::Day).unwrap();
    let told: Vec<_> =
        days.iter().map(|line| (line.day.as_deref().unwrap(), line.sums.jobs, line.sums.gross.0)).collect();
    assert_eq!(told, [("2026-09-21", 2, 1_080_002), ("2026-09-23", -1, -400_001)]);
    assert_eq!(days[1].sums.output_units, -80);
    let first = 1_790_000_000_000_000;
    let one = index.activity(first, first, By::Day).unwrap();
    assert_eq!(one, days[..1], "a range of one day is that day");
    assert_eq!(index.activity(0, first - DAY_US, By::All).unwrap(), []);
}

#[test]
fn what_is_open_is_laid_on_its_newest_movements() {
    let mut index = Index::in_memory().unwrap();
    let all = commits();
    let placed =
        all.iter().position(|c| matches!(c.events[0].body, EventBody::HoldPlaced(_))).unwrap() as u64;
    let closed = all.iter().position(|c| c.events[0].body.kind() == "batch_closed").unwrap() as u64;
    follow(&mut index, all);
    let holds = index.ageing(Open::Holds, At::Size(placed + 1)).unwrap();
    assert_eq!(
        (holds.len(), holds[0].count, holds[0].amount, holds[0].age),
        (1, 1, Amount(480_001), "up to 1 hour")
    );
    assert_eq!(index.ageing(Open::Holds, At::Newest).unwrap(), []);
    // All of it was earned two days before the batch closed, but for what was undone.
    let payable = index.ageing(Open::Payable, At::Size(closed)).unwrap();
    let classes: Vec<_> = payable.iter().map(|line| (line.age, line.amount.0, line.count)).collect();
    assert_eq!(classes, [("up to 7 days", 544_000, 1)]);
    let rest = index.ageing(Open::Payable, At::Newest).unwrap();
    assert_eq!(rest.iter().map(|line| line.amount.0).sum::<i128>(), 4_000, "what the batch's floor left");
    let owed = index.ageing(Open::Receivable, At::Newest).unwrap();
    assert_eq!(owed.iter().map(|line| line.amount.0).sum::<i128>(), 1_000_000, "the reversed deposit's rest");
}

#[test]
fn a_client_reads_its_own_write_or_is_told_how_far_the_index_is() {
    let mut index = Index::in_memory().unwrap();
    let all = commits();
    let (first, rest) = all.split_at(10);
    follow(&mut index, first.to_vec());
    assert_eq!(index.holding(9).unwrap(), 10);
    assert!(matches!(index.holding(10), Err(IndexError::Beyond { asked: 11, size: 10 })));
    follow(&mut index, rest.to_vec());
    assert_eq!(index.holding(10).unwrap(), index.position().size);
}
