//! Clients that are not ours, unmodified, against a running network; and the FEED as an outsider reads it.

use network_tests::check::python;
use network_tests::{Network, NetworkOptions};
use serde_json::Value;
use std::collections::BTreeSet;

#[test]
fn openai_python_and_a_foreign_feed_reader() {
    let dir = tempfile::tempdir().expect("a directory");
    let network = Network::up(NetworkOptions { data: &dir.path().join("data"), story: true });
    let said = python("openai_chat.py", &[&network.ready.gateway, &network.ready.api_key]);
    assert!(said.contains("Paris"), "{said}");

    let creds = network.ready.data_dir.join("keys/auditor.creds");
    let feed = python("feed_reader.py", &[&network.ready.nats, creds.to_str().expect("text")]);
    let kinds: BTreeSet<String> = feed
        .lines()
        .map(|line| {
            serde_json::from_str::<Value>(line).expect("JSON")["type"].as_str().expect("a type").to_owned()
        })
        .collect();
    for kind in [
        "account_opened",
        "spend_authorised",
        "deposit_confirmed",
        "hold_placed",
        "job_dispatched",
        "usage_captured",
        "batch_closed",
        "batch_submitted",
        "batch_confirmed",
        "payout_claimed",
        "voucher_redeemed",
    ] {
        assert!(kinds.contains(kind), "{kind} is not in FEED; there are {kinds:?}");
    }
    assert!(network.interrupt().success(), "Ctrl-C ends it cleanly");
}
