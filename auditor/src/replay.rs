//! `audit replay`: the whole log folded again by rules written from the specifications, not from the ledger's code, with
//! every invariant checked at every event. It goes on after a finding, and names the first leaf that is wrong.

mod batches;
mod books;
mod captures;
mod charges;
mod conduct;
mod cuts;
mod digest;
mod draws;
mod earnings;
mod economy;
mod grants;
mod holds;
mod judge;
mod lines;
mod meters;
mod policy;
mod receipts;
mod totals;
mod vouchers;
mod wallets;
mod world;

use crate::checks::CheckKind;
use crate::commits;
use crate::copy::{CopyFault, LogCopy};
use crate::error::AuditError;
use crate::log::Walk;
use crate::report::Report;
use crate::verify::{head, load_policy};
pub(crate) use charges::SampledCharge;
use judge::Judge;
use protocol::codec::{CodecError, decode_event};
use protocol::event::Event;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, SyncSender};
pub(crate) use totals::symbol;
pub(crate) use world::World;

/// What to replay.
pub struct ReplayOptions {
    /// A fetched copy, or a data directory.
    pub directory: PathBuf,
    /// The policy file; a fetched copy keeps its own.
    pub policy: Option<PathBuf>,
    /// Stop after so many leaves; the report then says which.
    pub at: Option<u64>,
}

/// A finished replay: what it says, and what it knows.
pub(crate) struct Replayed {
    pub(crate) report: Report,
    pub(crate) judge: Judge,
    pub(crate) world: World,
}

/// Replays. Never prints; an error means there was nothing to replay.
pub fn replay(options: &ReplayOptions) -> Result<Report, AuditError> {
    let copy = LogCopy::open(&options.directory)?;
    let Replayed { mut report, judge, world } = run(&copy, "replay", options)?;
    report.trial_balance = totals::trial_balance(&world);
    report.totals = totals::totals(&world);
    report.state_digest = Some(digest::digest(&world).to_string());
    report.first_divergence = judge.first().cloned();
    Ok(report.end(judge.into_checks()))
}

/// Folds the log of a copy for any command that needs its state.
pub(crate) fn run(
    copy: &LogCopy,
    command: &'static str,
    options: &ReplayOptions,
) -> Result<Replayed, AuditError> {
    let mut report = Report::begin(command);
    let mut judge = Judge::default();
    let mut world = World::default();
    let policy = load_policy(copy, options.policy.as_deref(), &mut report)?;
    let signed = head(copy, policy.as_ref(), judge.checks(), &mut report)?;
    let Some(signed) = signed else { return Ok(Replayed { report, judge, world }) };
    let size = options.at.map_or(signed.checkpoint.size, |at| at.min(signed.checkpoint.size));
    if size < signed.checkpoint.size {
        report.period = Some(format!("leaves 0 to {size}"));
    }
    let mut walk = Walk::new(copy, size);
    fold_entries(copy, &mut walk, &mut world, &mut judge);
    let whole = walk.roots().size() == signed.checkpoint.size;
    if whole && walk.roots().root() != signed.checkpoint.root {
        let check = judge.checks().of(CheckKind::Entries);
        let message = "the entries do not hash to the signed root: run `audit verify`";
        check.fail_because(signed.checkpoint.root, walk.roots().root(), message);
    }
    anchors(&walk, &world, &mut judge);
    world.finish(&mut judge);
    commits::check(copy, &walk, judge.checks())?;
    report.events = world.next_leaf();
    Ok(Replayed { report, judge, world })
}

/// Bundles that wait between the thread that reads, hashes and decodes, and the one that judges.
const QUEUE_BUNDLES_MAX: usize = 64;

/// A bundle's events, in the order of their leaves.
struct Decoded {
    first_leaf: u64,
    events: Vec<Result<Event, CodecError>>,
}

/// Reads, hashes and decodes until the end, a fault, or until nobody listens any more.
fn decode_entries(walk: &mut Walk<'_>, decoded: &SyncSender<Result<Decoded, CopyFault>>) {
    while let Some(bundle) = walk.next_bundle() {
        let events = bundle.map(|bundle| {
            let events = bundle.entries.iter().map(|entry| decode_event(entry)).collect();
            Decoded { first_leaf: bundle.first_leaf, events }
        });
        let is_fault = events.is_err();
        if decoded.send(events).is_err() || is_fault {
            return;
        }
    }
}

fn fold_entries(copy: &LogCopy, walk: &mut Walk<'_>, world: &mut World, judge: &mut Judge) {
    let (sender, decoded) = std::sync::mpsc::sync_channel(QUEUE_BUNDLES_MAX);
    std::thread::scope(|scope| {
        scope.spawn(move || decode_entries(walk, &sender));
        fold_decoded(copy, decoded, world, judge);
    });
}

fn fold_decoded(
    copy: &LogCopy,
    decoded: Receiver<Result<Decoded, CopyFault>>,
    world: &mut World,
    judge: &mut Judge,
) {
    let has_receipts = copy.has_receipts();
    for bundle in decoded {
        let bundle = match bundle {
            Ok(bundle) => bundle,
            Err(fault) => {
                let check = judge.checks().of(CheckKind::Entries);
                check.fail_because(
                    "every entry under the checkpoint",
                    &fault,
                    "an entry bundle is damaged or missing",
                );
                return;
            }
        };
        for (leaf, event) in (bundle.first_leaf..).zip(bundle.events) {
            judge.checks().of(CheckKind::Entries).examine();
            judge.at(0, leaf);
            judge.examine(CheckKind::Codec);
            match event {
                Ok(event) => {
                    world.fold(judge, leaf, &event);
                    if has_receipts {
                        receipts::check(copy, world, judge, &event);
                    }
                }
                Err(error) => {
                    judge.fail(CheckKind::Codec, "a canonical event", &error, "an entry is not an event");
                    world.skip_leaf();
                }
            }
        }
    }
}

/// Heads of this very log that its events name: whoever wrote them must have meant this history.
fn anchors(walk: &Walk<'_>, world: &World, judge: &mut Judge) {
    for anchor in world.heads() {
        judge.at(0, anchor.leaf);
        judge.examine(CheckKind::Anchors);
        match walk.root_at(anchor.size) {
            Ok(root) if root == anchor.root => {}
            Ok(root) => {
                let message = format!("the head it names is not this log's at {} leaves", anchor.size);
                judge.fail(CheckKind::Anchors, root, anchor.root, message);
            }
            Err(_) if anchor.size > walk.roots().size() => {
                judge.fail(
                    CheckKind::Anchors,
                    format!("at most {} leaves", walk.roots().size()),
                    anchor.size,
                    "it names a head of a longer log",
                );
            }
            Err(fault) => judge.checks().of(CheckKind::Anchors).inconclusive(fault),
        }
    }
}
