//! Tests of the driver's decisions, without a network.

use super::*;
use protocol::id::{JobId, NodeId};
use std::sync::atomic::{AtomicU32, Ordering};

struct Case {
    progress: Progress,
    cancel_count: Arc<AtomicU32>,
}

fn case(stop: &[&str]) -> Case {
    let body = JobBody {
        job: JobId([5; 16]),
        prompt_ids: vec![1],
        messages: serde_json::Value::Null,
        max_tokens: 100,
        temperature_millionths: 0,
        top_p_millionths: 1_000_000,
        top_k: 0,
        seed: None,
        sampling_key: Hash32([9; 32]),
        stop: stop.iter().map(|s| s.to_string()).collect(),
        controls: Default::default(),
        salt: Hash32([8; 32]),
    };
    let offer = JobOffer {
        protocol: 1,
        job: body.job,
        attempt: 0,
        node: NodeId([1; 16]),
        gateway: "gw1".into(),
        model: "m".into(),
        weights: Hash32([2; 32]),
        deadline_us: 60_000_000,
        body_commitment: body.commitment(),
        sealed_body: String::new(),
    };
    let cancel_count = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&cancel_count);
    let canceller = Canceller::new(move || {
        counted.fetch_add(1, Ordering::Relaxed);
    });
    Case { progress: Progress::new(&offer, &body, canceller, 0), cancel_count }
}

fn token(id: u32, text: &str) -> Wake {
    Wake::Step(Some(Step::Token { id, text: text.into(), chain: Hash32([id as u8; 32]), logprobs: None }))
}

fn end(finish: Finish, head: u32) -> Wake {
    Wake::Step(Some(Step::End { finish, text: String::new(), chain: Hash32([head as u8; 32]) }))
}

/// Frames, in order, of all wakes up to the end; panics when there is none.
fn drive(progress: &mut Progress, wakes: Vec<Wake>) -> (Vec<Frame>, End) {
    let mut frames = Vec::new();
    for wake in wakes {
        let (frame, end) = progress.take(wake);
        frames.extend(frame);
        if let Some(end) = end {
            assert!(frames.iter().enumerate().all(|(at, frame)| frame.seq == at as u64), "contiguous from 0");
            return (frames, end);
        }
    }
    panic!("no end");
}

fn text_of(frames: &[Frame]) -> String {
    frames.iter().map(|f| f.text.as_str()).collect()
}

#[test]
fn every_token_is_in_exactly_one_frame_and_the_receipt_has_the_last_chain() {
    let mut case = case(&[]);
    let mut wakes: Vec<Wake> = (1..=20).map(|id| token(id, "x")).collect();
    wakes.push(end(Finish::Length, 20));
    let (frames, end) = drive(&mut case.progress, wakes);
    let ids: Vec<u32> = frames.iter().flat_map(|f| f.ids.clone()).collect();
    assert_eq!(ids, (1..=20).collect::<Vec<_>>());
    assert_eq!(ids, case.progress.output_ids);
    assert!(matches!(end, End::Receipt { finish: Finish::Length, chain } if chain == Hash32([20; 32])));
    assert_eq!(frames.last().unwrap().chain, Hash32([20; 32]));
}

#[test]
fn a_stop_text_cuts_the_output_after_the_token_that_completes_it() {
    let mut case = case(&["END"]);
    let wakes = vec![token(1, "hello E"), token(2, "ND more"), token(3, "late")];
    let (frames, end) = drive(&mut case.progress, wakes);
    assert_eq!(text_of(&frames), "hello ", "neither the stop text nor what follows is shown");
    assert_eq!(case.progress.output_ids, [1, 2]);
    assert!(matches!(end, End::Receipt { finish: Finish::Stop, chain } if chain == Hash32([2; 32])));
}

#[test]
fn text_held_back_for_a_stop_that_never_comes_is_delivered() {
    let mut case = case(&["END"]);
    let (frames, _) = drive(&mut case.progress, vec![token(1, "a EN"), end(Finish::Stop, 1)]);
    assert_eq!(text_of(&frames), "a EN");
}

#[test]
fn cancel_stops_the_backend_and_its_prefix_gets_a_receipt() {
    let mut case = case(&[]);
    let wakes = vec![token(1, "a"), token(2, "b"), Wake::Cancelled, token(3, "c"), end(Finish::Cancelled, 3)];
    let (frames, end) = drive(&mut case.progress, wakes);
    assert_eq!(case.cancel_count.load(Ordering::Relaxed), 1);
    assert_eq!(text_of(&frames), "abc", "what the backend made before it stopped counts and is delivered");
    assert!(matches!(end, End::Receipt { finish: Finish::Cancelled, chain } if chain == Hash32([3; 32])));
}

#[test]
fn the_deadline_cancels_and_a_backend_that_does_not_stop_fails_the_job() {
    let mut case = case(&[]);
    assert!(matches!(case.progress.take(Wake::Deadline), (None, None)));
    assert_eq!(case.cancel_count.load(Ordering::Relaxed), 1);
    assert!(matches!(case.progress.take(Wake::Deadline), (None, Some(End::Failed(_)))));
}

#[test]
fn a_backend_that_vanishes_fails_the_job_but_its_tokens_are_delivered() {
    let mut case = case(&[]);
    let (frames, end) = drive(&mut case.progress, vec![token(1, "a"), token(2, "b"), Wake::Step(None)]);
    assert_eq!(text_of(&frames), "ab");
    assert!(matches!(end, End::Failed(_)));
}

#[tokio::test(start_paused = true)]
async fn waiting_tokens_and_the_deadline_wake_the_driver() {
    let mut case = case(&[]);
    let (_sender, mut steps) = mpsc::channel(1);
    let (cancel, mut cancelled) = watch::channel(false);
    case.progress.take(token(1, "a"));
    case.progress.take(token(2, "b"));
    assert!(matches!(case.progress.next(&mut steps, &mut cancelled).await, Wake::FrameDue));
    let frame = case.progress.take(Wake::FrameDue).0.expect("token 2");
    assert_eq!((frame.seq, frame.ids), (1, vec![2]));
    assert!(matches!(case.progress.next(&mut steps, &mut cancelled).await, Wake::Deadline));
    cancel.send_replace(true);
    assert!(matches!(case.progress.next(&mut steps, &mut cancelled).await, Wake::Cancelled));
    case.progress.take(Wake::Cancelled);
    assert!(
        matches!(case.progress.next(&mut steps, &mut cancelled).await, Wake::Deadline),
        "cancelled once only"
    );
}
