//! `audit prove` and `audit check-proof`: that one event, or one receipt, is in the log, for somebody who has nothing but
//! a small file and the log's policy. Format: c2sp.org/tlog-proof@v1. Proofs are made from tiles, and checked before they
//! are given away.

use crate::checks::CheckKind;
use crate::copy::{CopyFault, LogCopy};
use crate::error::AuditError;
use crate::log::each_event;
use crate::merkle::subtree_root;
use crate::note::{SignedCheckpoint, parse_policy};
use crate::report::{Checks, Item, Report};
use crate::verify::{add_input, head, load_policy};
use protocol::codec::decode_event;
use protocol::event::job::UsageCaptured;
use protocol::event::{Event, EventBody};
use protocol::id::{Hash32, JobId};
use protocol::proof::{ProofFile, leaf_hash, node_hash, verify_inclusion};
use protocol::receipt::SignedReceipt;
use protocol::tile::{TILE_HEIGHT, TILE_WIDTH};
use std::path::{Path, PathBuf};

/// What is to be proved.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Wanted {
    /// The event at a leaf.
    Leaf(u64),
    /// The charge of a job; of several parts the last.
    Job(JobId),
    /// The charge that a signed receipt's bytes hash to.
    Receipt(PathBuf),
}

impl std::str::FromStr for Wanted {
    type Err = AuditError;

    /// `17`, `0.17`, `job_...`, or a receipt's file.
    fn from_str(text: &str) -> Result<Wanted, AuditError> {
        let leaf = text.split_once('.').map_or(text, |(_, leaf)| leaf);
        if let Ok(leaf) = leaf.parse() {
            return Ok(Wanted::Leaf(leaf));
        }
        match (text.parse(), Path::new(text).is_file()) {
            (Ok(job), _) => Ok(Wanted::Job(job)),
            (Err(_), true) => Ok(Wanted::Receipt(PathBuf::from(text))),
            (Err(_), false) => Err(AuditError::Usage {
                what: "what to prove",
                expected: "a leaf, `<shard>.<leaf>`, `job_...` or a receipt's file",
                given: text.to_owned(),
            }),
        }
    }
}

/// What to prove, from what.
pub struct ProveOptions {
    /// A fetched copy, or a data directory.
    pub directory: PathBuf,
    /// The policy file; a fetched copy keeps its own.
    pub policy: Option<PathBuf>,
    /// What.
    pub wanted: Wanted,
}

/// A proof and what it proves.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Proven {
    /// The leaf.
    pub leaf: u64,
    /// Text of the `.tlog-proof`.
    pub proof: String,
    /// The event's bytes: the leaf itself.
    pub event: Vec<u8>,
}

/// Makes a proof. `None` beside a report that says why not.
pub fn prove(options: &ProveOptions) -> Result<(Report, Option<Proven>), AuditError> {
    let copy = LogCopy::open(&options.directory)?;
    let mut report = Report::begin("prove");
    let mut checks = Checks::default();
    let policy = load_policy(&copy, options.policy.as_deref(), &mut report)?;
    let Some(signed) = head(&copy, policy.as_ref(), &mut checks, &mut report)? else {
        return Ok((report.end(checks), None));
    };
    let size = signed.checkpoint.size;
    let proven = match find(&copy, size, &options.wanted)? {
        Err(reason) => {
            checks.of(CheckKind::Inclusion).fail_because(
                "an event of this log",
                reason,
                "there is nothing to prove",
            );
            None
        }
        Ok(leaf) => made(&copy, &signed, leaf, &mut checks),
    };
    if let Some(proven) = &proven {
        report.items.push(item(proven.leaf, &proven.event));
        report.events = 1;
    }
    Ok((report.end(checks), proven))
}

fn item(leaf: u64, event: &[u8]) -> Item {
    let note = decode_event(event).map_or("not an event".to_owned(), |event| event.body.kind().to_owned());
    Item { what: "event".to_owned(), leaf: Some(leaf), note, ..Item::default() }
}

/// The leaf of what is wanted.
fn find(copy: &LogCopy, size: u64, wanted: &Wanted) -> Result<Result<u64, String>, AuditError> {
    let is_it: Box<dyn Fn(&UsageCaptured) -> bool> = match wanted {
        Wanted::Leaf(leaf) if *leaf < size => return Ok(Ok(*leaf)),
        Wanted::Leaf(leaf) => return Ok(Err(format!("leaf {leaf}; the log has {size}"))),
        Wanted::Job(job) => {
            let job = *job;
            Box::new(move |charge| charge.job == job)
        }
        Wanted::Receipt(path) => {
            let bytes = std::fs::read(path).map_err(|e| AuditError::file(path, e))?;
            let hash = SignedReceipt::hash(&bytes);
            Box::new(move |charge| charge.receipt == hash)
        }
    };
    let mut found = None;
    let walked = each_event(copy, size, |leaf, event, _| {
        if let EventBody::UsageCaptured(charge) = &event.body
            && is_it(charge)
        {
            found = Some(leaf);
        }
    });
    Ok(walked
        .map_err(|fault| fault.to_string())
        .and_then(|()| found.ok_or_else(|| "no charge of this log is the one".to_owned())))
}

/// Makes the proof of a leaf and checks it like anybody would.
fn made(copy: &LogCopy, signed: &SignedCheckpoint, leaf: u64, checks: &mut Checks) -> Option<Proven> {
    let check = checks.of(CheckKind::Inclusion);
    check.examine();
    let size = signed.checkpoint.size;
    let (index, at) = (leaf / TILE_WIDTH, (leaf % TILE_WIDTH) as usize);
    let width = (size - index * TILE_WIDTH).min(TILE_WIDTH);
    let parts = copy.bundle(index, width).and_then(|entries| Ok((entries, path(copy, leaf, size)?)));
    let (entries, hashes) = match parts {
        Ok(parts) => parts,
        Err(fault) => {
            check.fail_because("tiles and entries under the checkpoint", &fault, "the proof cannot be made");
            return None;
        }
    };
    let event = entries.get(at)?.clone();
    let root = &signed.checkpoint.root;
    if let Err(error) = verify_inclusion(leaf, size, &leaf_hash(&event), &hashes, root) {
        check.fail_because(
            root,
            &error,
            "tiles and entries do not lead to the signed root: run `audit verify`",
        );
        return None;
    }
    let proof = ProofFile { index: leaf, hashes, checkpoint: signed.note.clone() }.text();
    Some(Proven { leaf, proof, event })
}

/// Siblings from the leaf up to the root's child, in a tree of `size` leaves.
fn path(copy: &LogCopy, leaf: u64, size: u64) -> Result<Vec<Hash32>, CopyFault> {
    let mut hashes = Vec::new();
    let (mut begin, mut end) = (0, size);
    while end - begin > 1 {
        let left = 1 << (u64::BITS - 1 - (end - begin - 1).leading_zeros());
        let middle = begin + left;
        if leaf < middle {
            hashes.push(range_root(copy, middle, end, size)?);
            end = middle;
        } else {
            hashes.push(range_root(copy, begin, middle, size)?);
            begin = middle;
        }
    }
    hashes.reverse();
    Ok(hashes)
}

/// The root over leaves `begin..end` of a tree of `size`: a range as RFC 6962 divides it.
fn range_root(copy: &LogCopy, begin: u64, end: u64, size: u64) -> Result<Hash32, CopyFault> {
    let count = end - begin;
    if count.is_power_of_two() {
        return perfect_root(copy, count.trailing_zeros(), begin, size);
    }
    let left = 1 << (u64::BITS - 1 - (count - 1).leading_zeros());
    let (left, right) =
        (range_root(copy, begin, begin + left, size)?, range_root(copy, begin + left, end, size)?);
    Ok(node_hash(&left, &right))
}

/// The root of a perfect subtree of `2^height` leaves: a run of hashes of one tile.
fn perfect_root(copy: &LogCopy, height: u32, begin: u64, size: u64) -> Result<Hash32, CopyFault> {
    let (level, run) = (height / TILE_HEIGHT, 1usize << (height % TILE_HEIGHT));
    let first = begin >> (level * TILE_HEIGHT);
    let hashes_at_level = size >> (level * TILE_HEIGHT);
    let index = first / TILE_WIDTH;
    let width = (hashes_at_level - index * TILE_WIDTH).min(TILE_WIDTH);
    let tile = copy.tile(level, index, width)?;
    let at = (first % TILE_WIDTH) as usize;
    let short = || CopyFault { path: format!("tile {level}/{index}"), reason: "it is too short".to_owned() };
    Ok(subtree_root(tile.get(at..at + run).ok_or_else(short)?))
}

/// What to check.
pub struct CheckProofOptions {
    /// A `.tlog-proof`.
    pub proof: PathBuf,
    /// The event's bytes.
    pub event: PathBuf,
    /// The policy: whose checkpoint counts.
    pub policy: PathBuf,
    /// A signed receipt that the event must be the charge of.
    pub receipt: Option<PathBuf>,
}

/// Checks a proof offline. An error means that a file is missing.
pub fn check_proof(options: &CheckProofOptions) -> Result<Report, AuditError> {
    let mut report = Report::begin("check-proof");
    let mut checks = Checks::default();
    let mut read = |name: &str, path: &Path| {
        let bytes = std::fs::read(path).map_err(|e| AuditError::file(path, e))?;
        add_input(&mut report, name, &bytes);
        Ok::<_, AuditError>(bytes)
    };
    let (proof, event) = (read("proof", &options.proof)?, read("event", &options.event)?);
    let policy = read("policy", &options.policy)?;
    let receipt = options.receipt.as_deref().map(|path| read("receipt", path)).transpose()?;
    let policy = parse_policy(&String::from_utf8_lossy(&policy));
    let policy = policy.map_err(|e| AuditError::file(&options.policy, e))?;
    let check = checks.of(CheckKind::Inclusion);
    check.examine();
    let file = ProofFile::parse(&String::from_utf8_lossy(&proof));
    match file.and_then(|file| Ok((file.index, file.check(&event, &policy)?))) {
        Ok((leaf, checkpoint)) => {
            report.subject.origin = checkpoint.origin;
            report.subject.size = checkpoint.size;
            report.subject.root = checkpoint.root.to_string();
            report.items.push(item(leaf, &event));
            report.events = 1;
        }
        Err(error) => check.fail_because("a proof of this event", &error, "the proof does not stand"),
    }
    if let Some(receipt) = receipt {
        check_receipt(decode_event(&event).ok(), &receipt, &mut checks);
    }
    Ok(report.end(checks))
}

fn check_receipt(event: Option<Event>, bytes: &[u8], checks: &mut Checks) {
    let check = checks.of(CheckKind::ReceiptSignatures);
    check.examine();
    let Some(EventBody::UsageCaptured(charge)) = event.map(|event| event.body) else {
        return check.fail_because("a charge", "another event", "a receipt belongs to a charge");
    };
    let hash = SignedReceipt::hash(bytes);
    if hash != charge.receipt {
        return check.fail_because(charge.receipt, hash, "the charge is of another receipt");
    }
    match SignedReceipt::open(bytes) {
        Ok(receipt) if receipt.operator == charge.operator && receipt.job == charge.job => {}
        Ok(receipt) => {
            check.fail_because(charge.operator, receipt.operator, "another operator or job signed")
        }
        Err(error) => check.fail_because(charge.operator, error, "the receipt's signature does not stand"),
    }
}
