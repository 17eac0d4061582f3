//! Witnessing, both sides (c2sp.org/tlog-witness): asking the policy's witnesses to cosign the published checkpoint, and
//! being one (`cosigner`). A cosigned checkpoint stands beside the published one as `checkpoint.witnessed`.
//!
//! Must not: know HTTP. Who asks brings the wire; who is asked is given bodies and answers with them.

mod cosigner;

pub use cosigner::{Cosigner, Refusal};

use super::tiles::{TileStore, read_optional};
use super::tree::Tree;
use super::{TransparencyError, proof};
use data_encoding::BASE64;
use protocol::checkpoint::{Checkpoint, Policy};
use protocol::id::Hash32;
use protocol::tile::CHECKPOINT_PATH;
use protocol::witness::WitnessKey;
use std::fmt::Write;
use std::path::Path;

/// The newest checkpoint that the policy's quorum cosigned, beside `checkpoint`.
pub const WITNESSED_PATH: &str = "checkpoint.witnessed";
/// What is asked of a witness, below its URL.
pub const ADD_CHECKPOINT: &str = "add-checkpoint";

/// What a witness said.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    /// HTTP's number.
    pub status: u16,
    /// The body.
    pub body: String,
}

/// Sends a body to a URL and gives the answer; the text of an error is for people.
pub type Post<'a> = dyn Fn(&str, &str) -> Result<Answer, String> + 'a;

/// What came of asking.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Collected {
    /// The checkpoint that was shown.
    pub checkpoint: Checkpoint,
    /// Who cosigned it.
    pub cosigned: Vec<String>,
    /// Who did not, and why.
    pub refused: Vec<(String, String)>,
    /// Whether the quorum holds and the cosigned checkpoint was written.
    pub is_quorum: bool,
}

/// Asks every witness of the policy that has a URL to cosign the published checkpoint of the log under `dir`, and writes the
/// cosigned one when the quorum holds. A witness that has seen a larger or another log says so, and is named.
pub fn collect(dir: &Path, policy: &Policy, post: &Post<'_>) -> Result<Collected, TransparencyError> {
    let store = TileStore::new(dir);
    let path = dir.join(CHECKPOINT_PATH);
    let damaged = |reason: String| TransparencyError::Damaged { path: path.clone(), reason };
    let note = read_optional(&path)?.ok_or_else(|| damaged("there is no checkpoint".to_owned()))?;
    let checkpoint = policy.open_log(&note).map_err(|e| damaged(e.to_string()))?;
    let tree = Tree::load(store.clone(), checkpoint.size)?;
    let before = read_optional(&dir.join(WITNESSED_PATH))?;
    let known = before.and_then(|note| policy.open_log(&note).ok()).map_or(0, |old| old.size);
    let mut cosigned_note = note.clone();
    let (mut cosigned, mut refused) = (Vec::new(), Vec::new());
    for (key, url) in policy.quorum.witnesses() {
        let Some(url) = url else {
            refused.push((key.name().to_owned(), "the policy has no URL for it".to_owned()));
            continue;
        };
        match ask(&tree, key, url, &note, known.min(checkpoint.size), post)? {
            Ok(line) => {
                cosigned_note.push_str(&line);
                cosigned.push(key.name().to_owned());
            }
            Err(reason) => refused.push((key.name().to_owned(), reason)),
        }
    }
    let is_quorum = !policy.quorum.is_none() && policy.open(&cosigned_note).is_ok();
    if is_quorum {
        store.write_file(WITNESSED_PATH, cosigned_note.as_bytes())?;
    }
    Ok(Collected { checkpoint, cosigned, refused, is_quorum })
}

/// One witness: its line, or why there is none. A conflict tells the size it knows, and is asked again from there, once.
fn ask(
    tree: &Tree,
    key: &WitnessKey,
    url: &str,
    note: &str,
    known: u64,
    post: &Post<'_>,
) -> Result<Result<String, String>, TransparencyError> {
    let url = format!("{}/{ADD_CHECKPOINT}", url.trim_end_matches('/'));
    let mut old = known;
    for attempt in 0..2 {
        let body = request(old, &proof::consistency(tree, old, tree.size())?, note);
        let answer = match post(&url, &body) {
            Ok(answer) => answer,
            Err(reason) => return Ok(Err(reason)),
        };
        match answer.status {
            200 => return Ok(line_of(key, note, &answer.body)),
            409 if attempt == 0 => match answer.body.trim().parse() {
                Ok(size) if size <= tree.size() => old = size,
                Ok(size) => {
                    let ours = tree.size();
                    return Ok(Err(format!("it knows {size} leaves of this log, the checkpoint has {ours}")));
                }
                Err(_) => return Ok(Err(format!("it has seen another head: {}", short(&answer.body)))),
            },
            status => return Ok(Err(format!("it answered {status}: {}", short(&answer.body)))),
        }
    }
    Ok(Err("it said twice that it knows another size".to_owned()))
}

/// The body of `add-checkpoint`.
pub fn request(old: u64, proof: &[Hash32], note: &str) -> String {
    let mut body = format!("old {old}\n");
    for hash in proof {
        writeln!(body, "{}", BASE64.encode(&hash.0)).expect("writing to a string");
    }
    format!("{body}\n{note}")
}

/// The witness's own line in its answer, when it is right.
fn line_of(key: &WitnessKey, note: &str, answer: &str) -> Result<String, String> {
    for line in answer.lines() {
        let line = format!("{line}\n");
        match key.cosigned(&format!("{note}{line}")) {
            Ok(Some(_)) => return Ok(line),
            Ok(None) => {}
            Err(error) => return Err(error.to_string()),
        }
    }
    Err("its answer has no cosignature by its key".to_owned())
}

fn short(text: &str) -> String {
    text.trim().chars().take(200).collect()
}
