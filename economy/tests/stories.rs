//! Golden stories: one fixed story on each preset's rules, event by event. `UPDATE_GOLDEN=1` writes them after a change of rule
//! that is meant.

use economy::{preset_file, story};
use protocol::event::Event;
use serde_json::Value;
use std::collections::BTreeMap;

/// Leaf, kind, what it says, and its legs; ids and hashes are the story's own.
fn line(event: &Event) -> String {
    let body = sorted(serde_json::to_value(&event.body).unwrap());
    let legs = |legs: &[protocol::event::Posting]| {
        let legs = legs.iter().map(|leg| format!("{}:{:+}", leg.account.0, leg.amount.0));
        legs.collect::<Vec<_>>().join(" ")
    };
    let (postings, pending) = (legs(&event.postings), legs(&event.pending));
    format!("{} {} | {postings} | {pending}\n", event.header.leaf, body)
}

/// By name at every depth: whether objects keep their order is a feature that other crates of a build decide.
fn sorted(value: Value) -> String {
    match value {
        Value::Object(fields) => {
            let fields: BTreeMap<String, Value> = fields.into_iter().collect();
            let one = |(name, value)| format!("{}:{}", Value::String(name), sorted(value));
            format!("{{{}}}", fields.into_iter().map(one).collect::<Vec<_>>().join(","))
        }
        Value::Array(values) => {
            format!("[{}]", values.into_iter().map(sorted).collect::<Vec<_>>().join(","))
        }
        plain => plain.to_string(),
    }
}

#[test]
fn the_story_of_each_preset_is_golden() {
    for (name, text) in preset_file::SHIPPED {
        let preset = preset_file::read(name, text).unwrap();
        let lines: String =
            story::events(&preset).unwrap_or_else(|e| panic!("{name}: {e}")).iter().map(line).collect();
        let path = format!("{}/golden/story_{name}.txt", env!("CARGO_MANIFEST_DIR"));
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&path, &lines).unwrap();
        }
        let golden = std::fs::read_to_string(&path).expect("the golden story is there");
        for (now, was) in lines.lines().zip(golden.lines()) {
            assert_eq!(now, was, "{name}: a rule changed; is it meant?");
        }
        assert_eq!(lines.lines().count(), golden.lines().count(), "{name}");
        for kind in match name {
            "prepaid" => &["usage_captured"][..],
            "allotment" => {
                &["allotment_day_opened", "treasury_epoch_paid", "grant_expired", "operator_struck"]
            }
            "circular" => &["sign_up_credited", "bounty_paid", "payout_cut_started", "job_share_set"],
            _ => &["stake_allotted", "sign_up_credited", "bounty_paid", "job_share_set"],
        } {
            assert!(golden.contains(&format!("\"{kind}\"")), "{name} has no {kind}");
        }
    }
}
