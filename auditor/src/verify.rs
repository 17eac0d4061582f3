//! `audit verify`: is this one log, whole, signed, and never rewritten? Knows no event. Everything is recomputed from the
//! entries themselves; consistency with an earlier checkpoint is the root over that many entries.

use crate::chain::{ChainFact, ChainReader};
use crate::checks::CheckKind;
use crate::copy::{KeptCheckpoint, LogCopy};
use crate::error::AuditError;
use crate::log::Walk;
use crate::merkle::subtree_root;
use crate::note::{SignedCheckpoint, parse_policy};
use crate::report::{Checks, Input, Report, Subject};
use protocol::checkpoint::Policy;
use protocol::id::Hash32;
use protocol::tile::TILE_WIDTH;
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};

/// What to verify, and against what.
pub struct VerifyOptions<'a> {
    /// A fetched copy, or a data directory.
    pub directory: PathBuf,
    /// The policy file: the log's key, got from somebody other than its host. A fetched copy keeps its own.
    pub policy: Option<PathBuf>,
    /// An earlier checkpoint that the auditor kept.
    pub since: Option<PathBuf>,
    /// The chain, for heads that settlements and anchors wrote there.
    pub chain: Option<&'a dyn ChainReader>,
}

/// Verifies. Never prints; an error means there was nothing to verify.
pub fn verify(options: &VerifyOptions<'_>) -> Result<Report, AuditError> {
    let copy = LogCopy::open(&options.directory)?;
    let mut report = Report::begin("verify");
    let mut checks = Checks::default();
    let mut outside = 0u64;
    let policy = load_policy(&copy, options.policy.as_deref(), &mut report)?;
    let Some(signed) = head(&copy, policy.as_ref(), &mut checks, &mut report)? else {
        return Ok(report.end(checks));
    };
    outside += u64::from(policy.is_some());
    let mut walk = Walk::new(&copy, signed.checkpoint.size);
    if entries_and_tiles(&copy, &mut walk, signed.checkpoint.root, &mut checks) {
        let kept = earlier_checkpoints(&copy, options.since.as_deref(), policy.as_ref(), &mut checks)?;
        outside += u64::from(options.since.is_some());
        consistency(&walk, &kept, &mut checks);
        if copy.archive().is_some() {
            crate::commits::check(&copy, &walk, &mut checks)?;
        }
        if let Some(chain) = options.chain {
            outside += u64::from(chain_heads(&walk, &signed, chain, &mut checks));
        }
    }
    report.events = walk.roots().size();
    let check = checks.of(CheckKind::Outside);
    check.examined = outside;
    if outside == 0 {
        let words = "internally consistent only: give --policy, --since or --chain";
        check.inconclusive(words);
        report.remark = Some(words.to_owned());
    }
    Ok(report.end(checks))
}

/// The policy that counts: the one given, else the one that was given to `fetch`.
pub(crate) fn load_policy(
    copy: &LogCopy,
    given: Option<&Path>,
    report: &mut Report,
) -> Result<Option<Policy>, AuditError> {
    let kept = copy.beside("policy");
    let path = match given {
        Some(path) => path.to_owned(),
        // A data directory's own policy is its host's word about itself.
        None if copy.is_fetched() && kept.is_file() => kept,
        None => return Ok(None),
    };
    let text = std::fs::read_to_string(&path).map_err(|e| AuditError::file(&path, e))?;
    add_input(report, "policy", text.as_bytes());
    parse_policy(&text).map(Some).map_err(|e| AuditError::file(&path, e))
}

pub(crate) fn add_input(report: &mut Report, name: &str, bytes: &[u8]) {
    let sha256 = data_encoding::HEXLOWER.encode(&Sha256::digest(bytes));
    report.inputs.push(Input { name: name.to_owned(), sha256 });
}

/// Reads the newest checkpoint and checks who signed it; `None` when it is none.
pub(crate) fn head(
    copy: &LogCopy,
    policy: Option<&Policy>,
    checks: &mut Checks,
    report: &mut Report,
) -> Result<Option<SignedCheckpoint>, AuditError> {
    let check = checks.of(CheckKind::Checkpoint);
    check.examine();
    let signed = match copy.checkpoint()? {
        Ok(signed) => signed,
        Err(error) => {
            check.fail_because("a signed checkpoint", &error, "the newest checkpoint cannot be read");
            return Ok(None);
        }
    };
    add_input(report, "checkpoint", signed.note.as_bytes());
    report.subject = Subject {
        origin: signed.checkpoint.origin.clone(),
        size: signed.checkpoint.size,
        root: signed.checkpoint.root.to_string(),
        checkpoint: signed.note.clone(),
    };
    match policy.map(|policy| signed.check(policy)) {
        Some(Ok(())) => {}
        Some(Err(error)) => {
            let keys: Vec<String> =
                policy.iter().flat_map(|p| p.logs.iter().map(|key| key.to_string())).collect();
            check.fail_because(keys.join(", "), &error, "the checkpoint is not the log's");
        }
        None => check.inconclusive("no policy: nobody's signature was checked; give --policy"),
    }
    if let Some(policy) = policy.filter(|policy| policy.quorum.witnesses().next().is_some()) {
        witnessed(&signed, policy, checks);
    }
    Ok(Some(signed))
}

/// Whether those cosigned whom the policy asks for.
fn witnessed(signed: &SignedCheckpoint, policy: &Policy, checks: &mut Checks) {
    let check = checks.of(CheckKind::Witnesses);
    check.examined = policy.quorum.witnesses().count() as u64;
    match policy.quorum.check(&signed.note) {
        Ok(names) if policy.quorum.is_none() => {
            check.skip(format!("the policy asks for none; cosigned by {}", names.len()));
        }
        Ok(names) => check.note = Some(format!("cosigned by {}", names.join(", "))),
        Err(error) => {
            let wanted: Vec<&str> = policy.quorum.witnesses().map(|(key, _)| key.name()).collect();
            let message =
                "the checkpoint is not witnessed as the policy asks: others may be shown another log";
            check.fail_because(wanted.join(", "), &error, message);
        }
    }
}

/// Recomputes root and tiles from the entries. `false` when the entries are not there to go on with.
fn entries_and_tiles(copy: &LogCopy, walk: &mut Walk<'_>, root: Hash32, checks: &mut Checks) -> bool {
    checks.of(CheckKind::Tiles);
    while let Some(bundle) = walk.next_bundle() {
        let bundle = match bundle {
            Ok(bundle) => bundle,
            Err(fault) => {
                let check = checks.of(CheckKind::Entries);
                let size = format!("entries up to {}", walk.roots().size());
                check.fail_because(
                    "every entry under the checkpoint",
                    format!("{size}; {fault}"),
                    "an entry bundle is damaged or missing",
                );
                return false;
            }
        };
        checks.of(CheckKind::Entries).examined += bundle.entries.len() as u64;
        if let Some(tile) = bundle.tile {
            compare_tile(copy, 0, bundle.first_leaf / TILE_WIDTH, &tile, checks);
        }
    }
    if !copy.has_tiles() {
        checks.of(CheckKind::Tiles).skip("no tiles: the entries are those of the archive");
    } else if !walk.roots().tail().is_empty() {
        let index = walk.roots().tile_roots().len() as u64;
        compare_tile(copy, 0, index, walk.roots().tail(), checks);
    }
    upper_tiles(copy, walk.roots().tile_roots(), checks);
    let computed = walk.roots().root();
    if computed != root {
        let message = "the entries do not hash to the signed root: something was changed, dropped or moved";
        checks.of(CheckKind::Entries).fail_because(root, computed, message);
    }
    true
}

/// Levels above the leaves: each holds the roots of the full tiles below.
fn upper_tiles(copy: &LogCopy, first: &[Hash32], checks: &mut Checks) {
    let (mut level, mut hashes) = (1, first.to_vec());
    while !hashes.is_empty() {
        let mut above = Vec::new();
        for (index, tile) in hashes.chunks(TILE_WIDTH as usize).enumerate() {
            compare_tile(copy, level, index as u64, tile, checks);
            if tile.len() as u64 == TILE_WIDTH {
                above.push(subtree_root(tile));
            }
        }
        (level, hashes) = (level + 1, above);
    }
}

fn compare_tile(copy: &LogCopy, level: u32, index: u64, computed: &[Hash32], checks: &mut Checks) {
    if !copy.has_tiles() {
        return;
    }
    let check = checks.of(CheckKind::Tiles);
    check.examine();
    let width = computed.len() as u64;
    match copy.tile(level, index, width) {
        Ok(stored) if stored == computed => {}
        Ok(stored) => {
            let at = stored.iter().zip(computed).position(|(a, b)| a != b).unwrap_or(0);
            let message = format!("tile {level}/{index}: hash {at} is not that of what lies below it");
            check.fail_because(computed[at], stored[at], message);
        }
        Err(fault) => check.fail_because(format!("{width} hashes"), &fault, "a tile is damaged or missing"),
    }
}

/// A head that the log once had, and who says so.
struct Earlier {
    source: String,
    size: u64,
    root: Hash32,
}

fn earlier_checkpoints(
    copy: &LogCopy,
    since: Option<&Path>,
    policy: Option<&Policy>,
    checks: &mut Checks,
) -> Result<Vec<Earlier>, AuditError> {
    let mut notes = copy.kept_checkpoints()?;
    if let Some(path) = since {
        notes.push(KeptCheckpoint { path: path.to_owned(), note: crate::copy::read_checkpoint(path)? });
    }
    let check = checks.of(CheckKind::Consistency);
    let mut kept = Vec::new();
    for KeptCheckpoint { path, note } in notes {
        let source = path.display().to_string();
        let signed = note.and_then(|note| policy.map_or(Ok(()), |p| note.check(p)).map(|()| note));
        match signed {
            Ok(note) => kept.push(Earlier { source, size: note.checkpoint.size, root: note.checkpoint.root }),
            // What the log never signed says nothing against it, but it says that the copy was touched.
            Err(error) => check.fail_because("a checkpoint of this log", &error, source),
        }
    }
    Ok(kept)
}

fn consistency(walk: &Walk<'_>, kept: &[Earlier], checks: &mut Checks) {
    let check = checks.of(CheckKind::Consistency);
    for earlier in kept {
        check.examine();
        match walk.root_at(earlier.size) {
            Ok(root) if root == earlier.root => {}
            Ok(root) => {
                let message = format!(
                    "history was rewritten: {} has another root over {} leaves",
                    earlier.source, earlier.size
                );
                check.fail_because(earlier.root, root, message);
            }
            Err(_) => {
                let message = format!("the log was rolled back: {} is larger", earlier.source);
                check.fail_because(format!("at least {} leaves", earlier.size), walk.roots().size(), message);
            }
        }
    }
    if kept.is_empty() {
        check.skip("no earlier checkpoint was kept");
    }
}

/// Heads on the chain: anchors say size and root; a settlement's commitment is checked by `reconcile`, which knows the
/// batch. `true` when at least one head was compared.
fn chain_heads(
    walk: &Walk<'_>,
    signed: &SignedCheckpoint,
    chain: &dyn ChainReader,
    checks: &mut Checks,
) -> bool {
    let check = checks.of(CheckKind::ChainAnchors);
    let facts = match chain.facts() {
        Ok(facts) => facts,
        Err(error) => {
            check.inconclusive(error);
            return false;
        }
    };
    let origin = crate::settlement::origin_hash(&signed.checkpoint.origin);
    let mut compared = false;
    for fact in facts {
        let ChainFact::Anchored { origin: log, size, root } = fact.fact else { continue };
        if log != origin {
            continue;
        }
        check.examine();
        compared = true;
        match walk.root_at(size) {
            Ok(computed) if computed == root => {}
            Ok(computed) => {
                let message = format!("transaction {} anchored another history of {size} leaves", fact.tx);
                check.fail_because(root, computed, message);
            }
            Err(_) => {
                let message = format!("transaction {} anchored a longer log", fact.tx);
                check.fail_because(format!("at least {size} leaves"), walk.roots().size(), message);
            }
        }
    }
    if !compared {
        check.skip("no head of this log was anchored yet");
    }
    compared
}
