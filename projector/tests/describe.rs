//! Every kind of event explained: one golden text. `UPDATE_GOLDEN=1` writes it anew; then read it.

mod story;

use projector::Books;
use projector::describe::{Description, explain};
use projector::index::{At, Index, LogCommit};
use projector::subject::InMemory;
use protocol::event::{Event, EventBody};
use protocol::id::Hash32;
use std::fmt::Write;

fn books(events: &[Event]) -> Books {
    let mut books = Books::new();
    events.iter().for_each(|event| books.apply(event).unwrap());
    books
}

fn described(events: &[Event]) -> Vec<Description> {
    let (books, finder) = (books(events), InMemory::new(events));
    events.iter().map(|event| explain(&books, &finder, event).unwrap()).collect()
}

fn render(events: &[Event]) -> String {
    let mut text = String::new();
    for (event, about) in events.iter().zip(described(events)) {
        writeln!(text, "{} {}\n{}", event.header.leaf, event.body.kind(), about.sentence).unwrap();
        for line in about.arithmetic {
            writeln!(text, "  = {line}").unwrap();
        }
        for line in about.words {
            writeln!(text, "  - {line}").unwrap();
        }
        for line in about.legs {
            writeln!(text, "    {line}").unwrap();
        }
        let links: Vec<String> =
            about.links.iter().map(|link| format!("{} {}", link.leaf, link.kind)).collect();
        if !links.is_empty() {
            writeln!(text, "  see {}", links.join(", ")).unwrap();
        }
        text.push('\n');
    }
    text
}

#[test]
fn every_kind_is_explained_as_the_golden_text_says() {
    let events = story::log_with_earnings();
    for kind in EventBody::KINDS {
        assert!(events.iter().any(|event| event.body.kind() == *kind), "the story has no {kind}");
    }
    let text = render(&events);
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/describe.txt");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(path, &text).unwrap();
    }
    let golden = std::fs::read_to_string(path).unwrap();
    assert_eq!(text, golden, "UPDATE_GOLDEN=1 writes it anew; then read it");
}

#[test]
fn a_charge_shows_how_its_price_follows_and_where_it_belongs() {
    let events = story::log();
    let all = described(&events);
    let of = |kind: &str| {
        let at = events.iter().position(|event| event.body.kind() == kind).unwrap();
        (&events[at], &all[at])
    };
    let (_, hold) = of("hold_placed");
    assert_eq!(
        hold.arithmetic[0],
        "0.004000001 FOIL per 1000 tokens x 120 tokens = 0.000480001 FOIL, rounded up once"
    );
    let (capture, charge) = of("usage_captured");
    let kinds: Vec<&str> = charge.links.iter().map(|link| link.kind).collect();
    let expected = [
        "hold_placed",
        "job_dispatched",
        "job_dispatched",
        "hold_extended",
        "usage_captured",
        "batch_closed",
    ];
    assert_eq!(kinds, expected);
    assert!(charge.links.iter().all(|link| link.leaf != capture.header.leaf));
    let second = events
        .iter()
        .rposition(|e| matches!(&e.body, EventBody::UsageCaptured(c) if c.job == story::JOB))
        .unwrap();
    assert!(
        all[second]
            .arithmetic
            .iter()
            .any(|line| line.contains("less 0.000200001 FOIL for the 50 before = 0.00048 FOIL")),
        "{:?}",
        all[second].arithmetic
    );
}

#[test]
fn holds_that_grow_and_are_charged_in_parts_are_right_at_every_size() {
    let events = story::log();
    let mut previous = Hash32([0; 32]);
    let commits = events.iter().map(|event| {
        let number = event.header.commit;
        let hash = Hash32([number as u8; 32]);
        let commit = LogCommit { number, hash, previous, events: vec![event.clone()] };
        previous = hash;
        Ok::<_, String>(commit)
    });
    let mut index = Index::in_memory().unwrap();
    index.follow(commits.collect::<Vec<_>>()).unwrap();
    let held = |size: u64| {
        let holds = index.holds(At::Size(size)).unwrap();
        holds.iter().find(|hold| hold.hold == story::HOLD).map(|hold| hold.amount.0)
    };
    let placed = events.iter().position(|e| e.body.kind() == "hold_placed").unwrap() as u64;
    // Placed, two dispatches, extended, charged in part, charged to the end.
    let expected = [None, Some(480_001), Some(480_001), Some(480_001), Some(680_001), Some(480_000), None];
    for (k, amount) in expected.into_iter().enumerate() {
        assert_eq!(held(placed + k as u64), amount, "{k} events after it");
    }
}
