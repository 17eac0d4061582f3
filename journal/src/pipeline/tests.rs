//! The pipeline against a scripted log: each fault by name. Many schedules at once: `tests/schedule.rs`.

mod gather;
mod schedule;

use super::*;
use bytes::Bytes;
use ledger::command::OpenAccount;
use protocol::asset::{Asset, AssetId};
use protocol::codec;
use protocol::commit::COMMIT_EVENTS_MAX;
use protocol::event::policy::{NetworkOpened, Settings};
use protocol::id::{AccountId, Hash32};

const HOUR_US: u64 = 3_600_000_000;

fn genesis() -> NetworkOpened {
    NetworkOpened {
        origin: "counterfoil.example/test/0".into(),
        preset: "test".into(),
        preset_hash: Hash32([1; 32]),
        assets: vec![Asset { id: AssetId(0), symbol: "CRED".into(), ledger_scale: 9, chain_scale: None }],
        settings: Settings {
            epoch_us: 6 * HOUR_US,
            hold_grace_us: 60_000_000,
            job_deadline_us_max: HOUR_US,
            idempotency_us: 24 * HOUR_US,
            settle_units_min: 0,
            voucher_us: HOUR_US,
            authorisation_margin_epochs: 2,
            capture_tolerance_ppm: None,
        },
    }
}

fn account(number: u64) -> AccountId {
    let mut id = [7; 16];
    id[..8].copy_from_slice(&number.to_be_bytes());
    AccountId(id)
}

/// Opens account `number` under key `key`.
fn open(key: u64, number: u64) -> Command {
    Command {
        key: IdempotencyKey::internal("test", &[&key.to_be_bytes()]),
        actor: Actor::Admin,
        not_after_us: None,
        key_time_us: None,
        body: OpenAccount { account: account(number) }.into(),
    }
}

fn accounts_query() -> Query {
    Query::new(|state| Answer(Box::new(ledger::query::accounts(state).len())))
}

fn request(ticket: u64, command: Command) -> Request<u64> {
    Request::Command { ticket, command: Box::new(command), answer: AnswerWith::Events }
}

/// What waits is sent as soon as the log is idle. The other way: `gather.rs`.
fn at_once() -> PipelineOptions {
    PipelineOptions { gather_us: 0, ..PipelineOptions::new(0) }
}

/// One pipeline, what it asked for last, what it answered.
struct Bench {
    pipeline: Pipeline<u64>,
    now_us: u64,
    publish: Option<(u64, Position, Bytes)>,
    read_back: Option<(u64, u64)>,
    tail: Vec<Position>,
    replies: Vec<(u64, Reply)>,
    timers: Vec<u64>,
    stopped: Option<StopReason>,
    led: u32,
    committed: Vec<Position>,
}

impl Bench {
    fn new(options: PipelineOptions) -> Self {
        Self {
            pipeline: Pipeline::new(options),
            now_us: 1_000_000,
            publish: None,
            read_back: None,
            tail: Vec::new(),
            replies: Vec::new(),
            timers: Vec::new(),
            stopped: None,
            led: 0,
            committed: Vec::new(),
        }
    }

    /// Booted, leading, two commits in the log.
    fn serving() -> Self {
        let mut bench = Self::new(at_once());
        bench.boot();
        bench.ack();
        bench.ack();
        assert_eq!(bench.led, 1);
        assert_eq!(bench.pipeline.committed().commit, 2);
        bench
    }

    fn boot(&mut self) {
        let boot = Boot { state: State::new(0), nonce: Hash32([9; 32]), genesis: Some(genesis()) };
        self.step(Input::Boot(Box::new(boot)));
    }

    /// As the driver does: what is to be published leaves before the next commit is prepared.
    fn step(&mut self, input: Input<u64>) {
        self.step_once(input);
        while self.pipeline.may_prepare() {
            self.step_once(Input::Prepare);
        }
    }

    fn step_once(&mut self, input: Input<u64>) {
        let mut out = Vec::new();
        self.now_us += 1;
        self.pipeline.step(self.now_us, input, &mut out);
        for effect in out {
            match effect {
                Effect::Publish { attempt, position, bytes } => {
                    self.publish = Some((attempt, position, bytes))
                }
                Effect::ReadBack { attempt, number } => self.read_back = Some((attempt, number)),
                Effect::TailAppend { position, .. } => self.tail.push(position),
                Effect::Committed { position, .. } => self.committed.push(position),
                Effect::Reply { ticket, reply } => self.replies.push((ticket, reply)),
                Effect::Timer { timer, .. } => self.timers.push(timer),
                Effect::Led { .. } => self.led += 1,
                Effect::Warn(_) => {}
                Effect::Stop(reason) => self.stopped = Some(reason),
            }
        }
    }

    fn send(&mut self, requests: impl IntoIterator<Item = (u64, Command)>) {
        let requests = requests.into_iter().map(|(ticket, command)| request(ticket, command));
        self.step(Input::Requests(requests.collect()));
    }

    fn send_batch(&mut self, ticket: u64, commands: impl IntoIterator<Item = Command>) {
        let commands = commands.into_iter().collect();
        self.step(Input::Requests(vec![Request::Batch { ticket, commands }]));
    }

    fn read(&mut self, ticket: u64) {
        self.step(Input::Requests(vec![Request::Read { ticket, query: accounts_query() }]));
    }

    /// The log stores what is in flight and says so; the tail writes it.
    fn ack(&mut self) {
        self.ack_without_tail();
        self.write_tail();
    }

    fn ack_without_tail(&mut self) -> Position {
        let (attempt, position, _) = self.publish.take().expect("something is in flight");
        self.step(Input::Published { attempt, result: Published::Stored { sequence: position.commit } });
        position
    }

    fn write_tail(&mut self) {
        for position in std::mem::take(&mut self.tail) {
            self.step(Input::TailWritten { number: position.commit, result: Ok(()) });
        }
    }

    fn fail(&mut self) -> (u64, Position, Bytes) {
        let (attempt, position, bytes) = self.publish.take().expect("something is in flight");
        let reason = "timed out".to_owned();
        self.step(Input::Published { attempt, result: Published::Ambiguous { reason } });
        (attempt, position, bytes)
    }

    fn answer_read(&mut self, result: ReadBack) {
        let (attempt, _) = self.read_back.take().expect("a read was asked for");
        self.step(Input::ReadBack { attempt, result });
    }

    fn last_timer(&mut self) {
        let timer = *self.timers.last().expect("a timer was set");
        self.step(Input::TimedOut { timer });
    }

    fn tickets(&self) -> Vec<u64> {
        self.replies.iter().map(|(ticket, _)| *ticket).collect()
    }

    fn reply(&self, ticket: u64) -> &Reply {
        let mut found = self.replies.iter().filter(|(t, _)| *t == ticket);
        let reply = &found.next().unwrap_or_else(|| panic!("ticket {ticket} was not answered")).1;
        assert!(found.next().is_none(), "ticket {ticket} was answered twice");
        reply
    }

    fn done(&self, ticket: u64) -> &Outcome {
        match self.reply(ticket) {
            Reply::Done(outcome) => outcome,
            _ => panic!("ticket {ticket} is not done"),
        }
    }
}

#[test]
fn an_empty_log_needs_a_genesis() {
    let mut bench = Bench::new(at_once());
    bench.send([(1, open(1, 1))]);
    let boot = Boot { state: State::new(0), nonce: Hash32([9; 32]), genesis: None };
    bench.step(Input::Boot(Box::new(boot)));
    assert!(matches!(&bench.stopped, Some(StopReason::Broken(why)) if why.contains("genesis")));
    assert!(matches!(bench.reply(1), Reply::Stopped(_)));
}

#[test]
fn a_term_begins_with_genesis_and_writer_change() {
    let mut bench = Bench::new(at_once());
    bench.send([(1, open(1, 1))]);
    bench.boot();
    assert_eq!(bench.publish.as_ref().unwrap().1.commit, 1);
    bench.ack();
    assert_eq!((bench.led, bench.publish.as_ref().unwrap().1.commit), (0, 2));
    assert!(bench.replies.is_empty(), "nobody is served before the term began");
    bench.ack_without_tail();
    assert!(bench.led == 0 && bench.publish.is_none(), "the term begins when its first commit is safe");
    bench.write_tail();
    assert_eq!((bench.led, bench.publish.as_ref().unwrap().1.commit), (1, 3));
    bench.ack();
    assert_eq!(bench.done(1).commit, 3);
}

#[test]
fn an_idle_system_commits_at_once_and_replies_after_ack_and_tail() {
    let mut bench = Bench::serving();
    bench.send([(1, open(1, 1))]);
    let (_, position, bytes) = bench.publish.clone().expect("published without waiting");
    assert_eq!(position.hash, Commit::hash(&bytes));
    bench.ack_without_tail();
    assert!(bench.replies.is_empty(), "a reply before the tail");
    bench.write_tail();
    let outcome = bench.done(1);
    assert_eq!((outcome.commit, outcome.commit_hash), (position.commit, position.hash));
    assert_eq!(outcome.events.len(), 1);
    assert_eq!(bench.committed.last(), Some(&position));
}

#[test]
fn what_comes_during_a_flight_makes_one_commit_and_leaves_in_order() {
    let mut bench = Bench::serving();
    bench.send([(1, open(1, 1))]);
    bench.send((2..=100).map(|n| (n, open(n, n))));
    assert_eq!(bench.publish.as_ref().unwrap().1.commit, 3, "one commit in flight");
    bench.ack();
    bench.ack();
    assert!(bench.publish.is_none());
    assert_eq!(bench.tickets(), (1..=100).collect::<Vec<_>>());
    assert!((2..=100).all(|n| bench.done(n).commit == 4));
}

#[test]
fn refusals_repeats_and_reads_wait_for_the_commit_they_depend_on() {
    let mut bench = Bench::serving();
    bench.send([(1, open(1, 1)), (2, open(2, 1)), (3, open(1, 1))]);
    bench.read(4);
    assert!(bench.replies.is_empty(), "an answer from uncommitted state");
    bench.ack_without_tail();
    assert!(bench.replies.is_empty(), "an answer before the tail");
    bench.write_tail();
    assert_eq!(bench.tickets(), vec![1, 2, 3, 4]);
    let leaf = bench.done(1).first_leaf;
    assert!(matches!(bench.reply(2), Reply::Refused { at_leaf, .. } if *at_leaf == leaf + 1));
    assert!(matches!(bench.reply(3), Reply::Repeated { commit: 3, count: 1, .. }));
    bench.read(5);
    assert!(matches!(bench.reply(5), Reply::Answer(_)), "nothing to wait for");
}

#[test]
fn answers_on_uncommitted_state_never_leave_when_it_does_not_commit() {
    let mut bench = Bench::serving();
    bench.send([(1, open(1, 1)), (2, open(2, 1)), (3, open(1, 1))]);
    bench.read(4);
    bench.fail();
    bench.answer_read(ReadBack::Found(Bytes::from_static(b"another writer's")));
    assert!(matches!(bench.stopped, Some(StopReason::Fenced { number: 3, .. })));
    assert!(matches!(bench.reply(1), Reply::Unknown));
    for ticket in [2, 3, 4] {
        assert!(matches!(bench.reply(ticket), Reply::Stopped(StopReason::Fenced { .. })), "{ticket}");
    }
    bench.send([(5, open(1, 1))]);
    bench.read(6);
    assert!(matches!(bench.reply(5), Reply::Stopped(_)) && matches!(bench.reply(6), Reply::Stopped(_)));
}

#[test]
fn a_lost_ack_is_read_back() {
    let mut bench = Bench::serving();
    bench.send([(1, open(1, 1))]);
    let (_, position, bytes) = bench.fail();
    assert_eq!(bench.read_back.unwrap().1, position.commit);
    bench.answer_read(ReadBack::Found(bytes));
    bench.write_tail();
    assert_eq!(bench.done(1).commit_hash, position.hash);
    assert!(bench.publish.is_none(), "not sent again");
}

#[test]
fn an_absent_commit_is_sent_again_unchanged_and_a_late_ack_counts() {
    let mut bench = Bench::serving();
    bench.send([(1, open(1, 1))]);
    let first = bench.fail();
    bench.answer_read(ReadBack::Absent { last_sequence: 2 });
    let again = bench.publish.clone().expect("sent again");
    assert_eq!((again.1, &again.2), (first.1, &first.2), "same bytes, same number, same hash");
    assert_ne!(again.0, first.0);
    // The first attempt landed after all, and its acknowledgement comes late.
    bench.step(Input::Published { attempt: first.0, result: Published::Stored { sequence: 3 } });
    bench.write_tail();
    assert_eq!(bench.done(1).commit, 3);
    // The second attempt is refused by the log (10071): stale news.
    let result = Published::Ambiguous { reason: "wrong last sequence".into() };
    bench.step(Input::Published { attempt: again.0, result });
    assert!(bench.read_back.is_none() && bench.stopped.is_none());
}

#[test]
fn wrong_last_sequence_with_our_own_bytes_is_a_success() {
    let mut bench = Bench::serving();
    bench.send([(1, open(1, 1))]);
    let (_, _, bytes) = bench.fail();
    bench.answer_read(ReadBack::Absent { last_sequence: 2 });
    bench.fail();
    bench.answer_read(ReadBack::Found(bytes));
    bench.write_tail();
    assert_eq!(bench.done(1).commit, 3);
}

#[test]
fn an_ack_for_another_sequence_is_read_back() {
    let mut bench = Bench::serving();
    bench.send([(1, open(1, 1))]);
    let (attempt, _, _) = bench.publish.clone().unwrap();
    bench.step(Input::Published { attempt, result: Published::Stored { sequence: 2 } });
    assert_eq!(bench.read_back.unwrap().1, 3);
    assert!(bench.replies.is_empty());
}

#[test]
fn silence_is_read_back_too_and_unanswered_reads_are_asked_again() {
    let mut bench = Bench::serving();
    bench.send([(1, open(1, 1))]);
    let (_, _, bytes) = bench.publish.clone().unwrap();
    bench.last_timer();
    for _ in 0..5 {
        if bench.read_back.is_none() {
            bench.last_timer();
        }
        bench.answer_read(ReadBack::Failed { reason: "no responders".into() });
    }
    bench.last_timer();
    bench.answer_read(ReadBack::Found(bytes));
    bench.write_tail();
    assert_eq!(bench.done(1).commit, 3);
}

#[test]
fn a_shorter_log_halts() {
    let mut bench = Bench::serving();
    bench.send([(1, open(1, 1))]);
    bench.fail();
    bench.answer_read(ReadBack::Absent { last_sequence: 1 });
    assert_eq!(bench.stopped, Some(StopReason::Missing { acknowledged: 2, last: 1 }));
    assert!(matches!(bench.reply(1), Reply::Unknown));
}

#[test]
fn a_hole_in_the_log_halts_after_some_reads() {
    let mut bench = Bench::serving();
    bench.send([(1, open(1, 1))]);
    bench.fail();
    for _ in 0..20 {
        if bench.stopped.is_some() {
            break;
        }
        if bench.read_back.is_none() {
            bench.last_timer();
        }
        bench.answer_read(ReadBack::Absent { last_sequence: 7 });
    }
    assert!(matches!(&bench.stopped, Some(StopReason::Broken(why)) if why.contains("no message 3")));
}

#[test]
fn the_watchdog_notices_what_vanished_or_changed() {
    let at = |bench: &Bench| bench.pipeline.committed();
    let mut bench = Bench::serving();
    let position = at(&bench);
    bench.step(Input::Watched { position, result: ReadBack::Failed { reason: "away".into() } });
    assert!(bench.stopped.is_none());
    bench.step(Input::Watched { position, result: ReadBack::Absent { last_sequence: 1 } });
    assert_eq!(bench.stopped, Some(StopReason::Missing { acknowledged: 2, last: 1 }));
    let mut bench = Bench::serving();
    let position = at(&bench);
    bench.step(Input::Watched { position, result: ReadBack::Found(Bytes::from_static(b"x")) });
    assert!(matches!(bench.stopped, Some(StopReason::Altered { number: 2, .. })));
}

#[test]
fn a_tail_that_refuses_holds_replies_back_until_it_writes() {
    let mut bench = Bench::serving();
    bench.send([(1, open(1, 1))]);
    bench.ack_without_tail();
    bench.tail.clear();
    bench.step(Input::TailWritten { number: 3, result: Err(TailRefusal::Retry("disk full".into())) });
    assert!(bench.replies.is_empty());
    bench.last_timer();
    assert_eq!(bench.tail.len(), 1, "appended again");
    bench.write_tail();
    assert_eq!(bench.done(1).commit, 3);
}

#[test]
fn commits_behind_a_slow_tail_are_bounded() {
    let mut bench = Bench::serving();
    for n in 1..=30 {
        bench.send([(n, open(n, n))]);
        if bench.publish.is_some() {
            bench.ack_without_tail();
        }
    }
    assert_eq!(bench.tail.len(), SETTLING_COMMITS_MAX);
    assert!(bench.publish.is_none() && bench.replies.is_empty());
    bench.write_tail();
    bench.ack();
    assert_eq!(bench.tickets(), (1..=30).collect::<Vec<_>>());
}

#[test]
fn a_full_queue_says_overloaded() {
    let mut options = at_once();
    options.queue_requests_max = 2;
    let mut bench = Bench::new(options);
    bench.boot();
    bench.send((1..=3).map(|n| (n, open(n, n))));
    assert!(matches!(bench.reply(3), Reply::Overloaded));
    bench.ack();
    bench.ack();
    bench.ack();
    assert_eq!((bench.done(1).commit, bench.done(2).commit), (3, 3));
}

#[test]
fn a_tail_of_another_log_stops_the_writer() {
    let mut bench = Bench::serving();
    bench.send([(1, open(1, 1))]);
    bench.ack_without_tail();
    let result = Err(TailRefusal::Broken("the archive tail holds other bytes for commit 3".into()));
    bench.step(Input::TailWritten { number: 3, result });
    assert!(matches!(&bench.stopped, Some(StopReason::Broken(why)) if why.contains("counterfoil restore")));
    assert!(matches!(bench.reply(1), Reply::Unknown));
}

#[test]
fn a_gap_behind_a_commit_that_the_tail_refused_is_no_reason_to_stop() {
    let mut bench = Bench::serving();
    bench.send([(1, open(1, 1))]);
    bench.send([(2, open(2, 2))]);
    bench.ack_without_tail();
    bench.ack_without_tail();
    bench.tail.clear();
    bench.step(Input::TailWritten { number: 3, result: Err(TailRefusal::Retry("disk full".into())) });
    let gap = Err(TailRefusal::Broken("the tail ends at commit 2; commit 4 does not follow it".into()));
    bench.step(Input::TailWritten { number: 4, result: gap });
    assert!(bench.stopped.is_none());
    bench.last_timer();
    bench.write_tail();
    assert_eq!((bench.done(1).commit, bench.done(2).commit), (3, 4));
}

#[test]
fn commits_are_bounded_and_the_next_is_prepared_while_many_wait() {
    let mut bench = Bench::serving();
    let first = LAUNCH_COMMANDS_MAX as u64;
    let many = first + COMMIT_EVENTS_MAX as u64 + 10;
    bench.step_once(Input::Requests((1..=many).map(|n| request(n, open(n, n))).collect()));
    let flight = bench.publish.as_ref().expect("sent before the rest is decided").1;
    assert_eq!(flight.leaf, 2 + first);
    assert!(bench.pipeline.may_prepare() && bench.pipeline.prepared.is_none());
    while bench.pipeline.may_prepare() {
        bench.step_once(Input::Prepare);
    }
    let prepared = bench.pipeline.prepared.as_ref().unwrap().position;
    assert_eq!((prepared.commit, prepared.leaf - flight.leaf), (4, COMMIT_EVENTS_MAX as u64));
    bench.ack();
    bench.ack();
    bench.ack();
    assert_eq!(bench.tickets(), (1..=many).collect::<Vec<_>>());
    assert_eq!(bench.done(many).commit, 5);
}

#[test]
fn the_log_never_waits_for_a_commit_to_become_full() {
    let mut bench = Bench::serving();
    let many = (LAUNCH_COMMANDS_MAX + PREPARE_REQUESTS_MIN + PREPARE_COMMANDS_MAX) as u64;
    bench.step_once(Input::Requests((1..=many).map(|n| request(n, open(n, n))).collect()));
    for _ in 0..2 {
        bench.step_once(Input::Prepare);
    }
    let (attempt, position, _) = bench.publish.take().unwrap();
    bench.step_once(Input::Published { attempt, result: Published::Stored { sequence: position.commit } });
    let next = bench.publish.as_ref().expect("what is prepared goes at once").1;
    assert_eq!(next.leaf - position.leaf, 2 * PREPARE_COMMANDS_MAX as u64);
}

#[test]
fn a_commits_bytes_are_the_canonical_form_of_its_type() {
    for count in [1, 30, 300] {
        let mut bench = Bench::serving();
        bench.send_batch(1, (1..=count).map(|n| open(n, n)));
        let (_, position, bytes) = bench.publish.clone().unwrap();
        let commit: Commit = codec::decode("commit", &bytes).unwrap();
        assert_eq!((commit.number, commit.time_us, commit.events.len() as u64), (3, position.time_us, count));
        assert_eq!(commit.decode_events().unwrap().len() as u64, count);
    }
}

#[test]
fn a_batch_is_answered_once_with_each_commands_own_result() {
    let mut bench = Bench::serving();
    bench.send([(1, open(1, 1))]);
    bench.send_batch(2, [open(2, 2), open(3, 1), open(1, 1), open(2, 2), open(4, 4)]);
    bench.ack();
    bench.ack_without_tail();
    assert_eq!(bench.tickets(), vec![1], "a batch before the tail");
    bench.write_tail();
    let Reply::Batch { results, spent } = bench.reply(2) else { panic!("a batch gets a batch's reply") };
    assert_eq!(spent.len(), 5);
    let at = bench.committed.last().unwrap();
    let leaf = bench.done(1).first_leaf;
    let placed = |first_leaf| Placed::new(at, first_leaf, 1);
    assert!(matches!(&results[0], Each::Placed(p) if *p == placed(leaf + 1)), "{results:?}");
    assert!(matches!(&results[1], Each::Refused { at_leaf, .. } if *at_leaf == leaf + 2));
    assert!(matches!(&results[2], Each::Repeated { commit: 3, count: 1, .. }));
    assert!(matches!(&results[3], Each::Repeated { commit: 4, .. }));
    assert!(matches!(&results[4], Each::Placed(p) if *p == placed(leaf + 2)));
}

#[test]
fn a_batch_over_several_commits_knows_each_ones_hash_and_leaves_with_the_last() {
    let mut bench = Bench::serving();
    let many = (LAUNCH_COMMANDS_MAX + 5) as u64;
    bench.send_batch(1, (1..=many).map(|n| open(n, n)));
    let first = bench.ack_without_tail();
    bench.write_tail();
    assert!(bench.replies.is_empty(), "half a batch");
    bench.ack();
    let last = *bench.committed.last().unwrap();
    let Reply::Batch { results, .. } = bench.reply(1) else { panic!("a batch gets a batch's reply") };
    for (k, each) in results.iter().enumerate() {
        let at = if k < LAUNCH_COMMANDS_MAX { &first } else { &last };
        let expected = Placed::new(at, 2 + k as u64, 1);
        assert!(matches!(each, Each::Placed(p) if *p == expected), "{k}: {each:?}, expected {expected:?}");
    }
}

#[test]
fn a_batch_that_stopped_half_way_is_unknown_and_one_that_was_never_sent_is_not() {
    let mut bench = Bench::serving();
    bench.send_batch(1, (1..=LAUNCH_COMMANDS_MAX as u64 + 5).map(|n| open(n, n)));
    bench.send_batch(2, [open(9_001, 9_001)]);
    bench.send_batch(3, [open(9_002, 1)]);
    bench.fail();
    bench.answer_read(ReadBack::Found(Bytes::from_static(b"another writer's")));
    assert!(matches!(bench.reply(1), Reply::Unknown));
    for ticket in [2, 3] {
        assert!(matches!(bench.reply(ticket), Reply::Stopped(StopReason::Fenced { .. })), "{ticket}");
    }
}

#[test]
fn a_batch_that_does_not_fit_into_the_queue_does_not_happen_in_part() {
    let mut options = at_once();
    options.queue_requests_max = 4;
    let mut bench = Bench::new(options);
    bench.boot();
    bench.send_batch(1, (1..=3).map(|n| open(n, n)));
    bench.send_batch(2, (4..=5).map(|n| open(n, n)));
    bench.send([(3, open(6, 6))]);
    assert!(matches!(bench.reply(2), Reply::Overloaded));
    bench.ack();
    bench.ack();
    bench.ack();
    assert_eq!((bench.tickets(), bench.committed.last().unwrap().leaf), (vec![2, 1, 3], 2 + 4));
}

#[test]
fn a_shutdown_finishes_what_was_accepted() {
    let mut bench = Bench::serving();
    bench.send([(1, open(1, 1))]);
    bench.send([(2, open(2, 2))]);
    bench.step(Input::Shutdown);
    bench.send([(3, open(3, 3))]);
    assert!(matches!(bench.reply(3), Reply::Stopped(StopReason::Closed)));
    bench.ack();
    bench.ack();
    assert_eq!((bench.done(1).commit, bench.done(2).commit), (3, 4));
    assert_eq!(bench.stopped, Some(StopReason::Closed));
}

#[test]
fn time_never_goes_back() {
    let mut bench = Bench::serving();
    bench.now_us = 500;
    bench.send([(1, open(1, 1))]);
    let position = bench.publish.as_ref().unwrap().1;
    assert!(position.time_us >= 1_000_000, "{}", position.time_us);
}
