//! FEED and the transparency log behind a live journal, wired as whoever composes wires them, over a restart of all.

mod harness;

use async_nats::jetstream;
use harness::*;
use journal::auth::{Role, connect};
use journal::background::Background;
use journal::feed::{FeedThread, spawn as spawn_feed};
use journal::stream::FEED_STREAM;
use journal::transparency::{CHECKPOINT_INTERVAL, Signer, Transparency, TransparencyHandle, spawn};
use journal::{CommittedCommit, Journal};
use protocol::checkpoint::Policy;
use protocol::proof::{RootBuilder, leaf_hash};

const ORIGIN: &str = "counterfoil.example/test/0";

/// A journal with both of its followers.
struct Whole {
    journal: Journal,
    tlog: TransparencyHandle,
    feed: FeedThread,
    tiles: Background,
}

async fn start(harness: &Harness) -> Whole {
    let journal = harness.open("a").await;
    let keys = harness.dir.path().join("broker/keys");
    let signer = Signer::load_or_create(&keys, ORIGIN).unwrap();
    let log = Transparency::open(&harness.data_dir("a").join("tlog"), signer).unwrap();
    let tlog = spawn(log, CHECKPOINT_INTERVAL).unwrap();
    let (url, credentials) =
        (harness.server.url(), harness.server.keys().credentials(Role::Projector).clone());
    let follower = journal.follower();
    let connect = move || async move { connect(&url, &credentials).await };
    let feed = spawn_feed(ORIGIN.to_owned(), connect, follower.clone()).await.unwrap();
    let tiles = tlog.follow_behind(&follower).unwrap();
    Whole { journal, tlog, feed, tiles }
}

/// Waits until both have all, then compares them with the log.
async fn check(harness: &Harness, whole: &mut Whole) -> Vec<CommittedCommit> {
    let leaves = whole.journal.position().borrow().leaf;
    whole.feed.position.wait_for(|leaf| *leaf == leaves).await.unwrap();
    let mut published = whole.tlog.published();
    let signed = published.wait_for(|p| p.as_ref().is_some_and(|p| p.size == leaves)).await.unwrap().clone();
    let signed = signed.unwrap();
    let log = whole_log(&whole.journal).await;
    let mut root = RootBuilder::new();
    for bytes in log.iter().flat_map(|commit| &commit.commit.events) {
        root.push(leaf_hash(bytes));
    }
    assert_eq!((root.size(), root.root()), (signed.size, signed.root));
    let policy = Policy::of_log(whole.tlog.verifier_key().clone());
    let last = &log.last().unwrap().commit;
    for (k, bytes) in last.events.iter().enumerate() {
        let file = whole.tlog.proof_file(last.first_leaf + k as u64).await.unwrap();
        assert_eq!(file.check(bytes, &policy).unwrap().size, leaves);
    }
    let auditor = connect(&harness.server.url(), harness.server.keys().credentials(Role::Auditor)).await;
    let feed = jetstream::new(auditor.unwrap()).get_stream(FEED_STREAM).await.unwrap();
    assert_eq!(feed.cached_info().state.messages, leaves, "no event here concerns an operator");
    for event in log.iter().flat_map(|commit| &commit.events) {
        let message = feed.direct_get(event.header.leaf + 1).await.unwrap();
        assert_eq!(
            message.headers.get("x-counterfoil-leaf").unwrap().as_str(),
            event.header.leaf.to_string()
        );
    }
    log
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_follow_and_take_up_again() {
    let harness = Harness::start().await;
    let mut whole = start(&harness).await;
    submit_many(&whole.journal, 0..150, 8).await;
    let before = check(&harness, &mut whole).await.len();
    submit_many(&whole.journal, 150..300, 8).await;
    // Not waited for: both are behind when everything ends.
    let Whole { journal, tlog, feed, tiles } = whole;
    feed.thread.end().await;
    tiles.end().await;
    journal.shutdown().await.unwrap();
    let last = tlog.published().borrow().clone().unwrap();
    tlog.shutdown().await.unwrap();
    let mut whole = start(&harness).await;
    assert!(whole.tlog.first_needed() >= last.size);
    assert!(check(&harness, &mut whole).await.len() > before);
    whole.feed.thread.end().await;
    whole.journal.shutdown().await.unwrap();
}
