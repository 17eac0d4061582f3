//! The doors, by name, each with what must hold: nothing panics; what is taken is canonical and reads back the same; what is
//! refused is refused with words. Must not: keep anything from one input to the next.

use crate::{corpus, gguf};
use auditor::archive::Archive;
use journal::remote::message::{AnswerMessage, Beat, CommandMessage};
use journal::segment::{DirectoryStore, Segment, SegmentName};
use kernels::{Backend, LoadOptions, Model, Tokenizer};
use protocol::checkpoint::{Checkpoint, Policy};
use protocol::codec::{decode, decode_event, encode, encode_event};
use protocol::commit::Commit;
use protocol::job_message::{Cancel, Heartbeat, JobBody, JobOffer, ResultMessage};
use protocol::proof::ProofFile;
use protocol::receipt::SignedReceipt;
use protocol::tile::{parse_entries, push_entry};
use protocol::witness::Quorum;
use serde::{Serialize, de::DeserializeOwned};
use std::fmt::Debug;
use std::path::Path;
use std::sync::{Arc, OnceLock};

/// A door.
pub struct Target {
    /// As the command line calls it.
    pub name: &'static str,
    /// What it begins with; never empty.
    pub corpus: fn() -> Vec<Vec<u8>>,
    /// Tries one input. A refusal is an error with words; a broken promise is a panic.
    pub run: fn(&[u8]) -> Result<(), String>,
}

/// Every door.
pub const TARGETS: &[Target] = &[
    Target { name: "event", corpus: corpus::events, run: event },
    Target { name: "apply", corpus: corpus::events, run: apply },
    Target { name: "commit", corpus: commits, run: commit },
    Target { name: "command", corpus: corpus::command_messages, run: command },
    Target { name: "answer", corpus: corpus::answer_messages, run: answer },
    Target { name: "beat", corpus: corpus::beats, run: beat },
    Target { name: "refusal", corpus: corpus::refusals, run: refusal },
    Target { name: "snapshot", corpus: snapshots, run: snapshot },
    Target { name: "receipt", corpus: receipts, run: receipt },
    Target { name: "job-message", corpus: corpus::job_messages, run: job_message },
    Target { name: "checkpoint", corpus: corpus::checkpoints, run: checkpoint },
    Target { name: "proof", corpus: corpus::proofs, run: proof },
    Target { name: "bundle", corpus: bundles, run: bundle },
    Target { name: "segment", corpus: segments, run: segment },
    Target { name: "archive", corpus: segments, run: archive },
    Target { name: "chat-body", corpus: corpus::chats, run: chat_body },
    Target { name: "gguf", corpus: models, run: model },
    Target { name: "tokenizer-file", corpus: models, run: tokenizer_file },
    Target { name: "tokenizer-text", corpus: corpus::texts, run: tokenizer_text },
];

/// By its name.
pub fn named(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}

fn words(error: impl ToString) -> String {
    let words = error.to_string();
    assert!(!words.trim().is_empty(), "a refusal without words");
    words
}

fn event(input: &[u8]) -> Result<(), String> {
    let event = decode_event(input).map_err(words)?;
    let again = encode_event(&event).map_err(words)?;
    assert_eq!(again, input, "an event was taken that is not written so");
    Ok(())
}

/// Nothing that decodes makes the fold fall over.
fn apply(input: &[u8]) -> Result<(), String> {
    let event = decode_event(input).map_err(words)?;
    let mut state = ledger::State::new(event.header.shard);
    for entry in corpus::events().iter().take(3) {
        if let Ok(before) = decode_event(entry) {
            let _ = ledger::apply(&mut state, &before);
        }
    }
    ledger::apply(&mut state, &event).map_err(words)
}

fn commits() -> Vec<Vec<u8>> {
    let events = corpus::events();
    let commit = |events: &[Vec<u8>]| {
        let first = decode_event(&events[0]).expect("golden");
        encode(&Commit {
            version: protocol::commit::COMMIT_VERSION,
            shard: first.header.shard,
            number: first.header.commit,
            writer_epoch: 1,
            previous: protocol::id::Hash32([3; 32]),
            time_us: first.header.time_us,
            first_leaf: first.header.leaf,
            events: events.iter().map(|bytes| bytes.clone().into()).collect(),
        })
    };
    vec![commit(&events[..1]), commit(&events[..5]), commit(&events)]
}

fn commit(input: &[u8]) -> Result<(), String> {
    let commit: Commit = decode("commit", input).map_err(words)?;
    assert_eq!(encode(&commit), input, "a commit was taken that is not written so");
    commit.decode_events().map(drop).map_err(words)
}

fn command(input: &[u8]) -> Result<(), String> {
    let message = CommandMessage::read(input, 0).map_err(|(_, text)| text)?;
    assert_eq!(message.to_bytes(), input, "a message was taken that is not written so");
    assert!(!message.commands.is_empty());
    Ok(())
}

fn answer(input: &[u8]) -> Result<(), String> {
    for count in 0..4 {
        if let Ok(message) = AnswerMessage::read(input, count) {
            assert_eq!(message.to_bytes(), input, "an answer was taken that is not written so");
        }
    }
    AnswerMessage::read(input, 1).map(drop).map_err(words)
}

fn beat(input: &[u8]) -> Result<(), String> {
    let beat = Beat::read(input, 0).ok_or("no beat of ours")?;
    assert_eq!(beat.to_bytes(), input, "a beat was taken that is not written so");
    Ok(())
}

fn refusal(input: &[u8]) -> Result<(), String> {
    let refusal: ledger::Refusal = decode("refusal", input).map_err(words)?;
    assert_eq!(encode(&refusal), input, "a refusal was taken that is not written so");
    let _ = words(refusal);
    Ok(())
}

fn snapshots() -> Vec<Vec<u8>> {
    let mut state = ledger::State::new(0);
    let mut all = vec![ledger::snapshot::write(&state)];
    // The golden events are no history; those that happen to follow one another make a state.
    for entry in corpus::events() {
        if let Ok(event) = decode_event(&entry) {
            let _ = ledger::apply(&mut state, &event);
        }
    }
    all.push(ledger::snapshot::write(&state));
    all
}

fn snapshot(input: &[u8]) -> Result<(), String> {
    let state = ledger::snapshot::read(input).map_err(words)?;
    assert_eq!(ledger::snapshot::write(&state), input, "a snapshot was taken that is not written so");
    Ok(())
}

fn receipts() -> Vec<Vec<u8>> {
    use protocol::id::{Hash32, JobId, NodeId, OperatorId};
    let receipt = protocol::receipt::Receipt {
        version: 1,
        job: JobId([1; 16]),
        attempt: 0,
        node: NodeId([2; 16]),
        operator: OperatorId([3; 32]),
        weights: Hash32([4; 32]),
        numerics: "counterfoil-numerics-1".into(),
        proof_class: protocol::rate::ProofClass::ReExecutable,
        body: Hash32([5; 32]),
        input_tokens: 7,
        output_tokens: 9,
        output: Hash32([6; 32]),
        chain_head: Hash32([7; 32]),
        finish: protocol::receipt::Finish::Stop,
        started_us: 1,
        ended_us: 2,
        backend: "x".into(),
    };
    vec![receipt.sign(|_| [8; 64]).to_bytes()]
}

/// Nobody's signature is found by chance: what opens was in the corpus.
fn receipt(input: &[u8]) -> Result<(), String> {
    let signed: SignedReceipt = decode("signed receipt", input).map_err(words)?;
    assert_eq!(signed.to_bytes(), input, "a receipt was taken that is not written so");
    let opened = SignedReceipt::open(input);
    assert!(opened.is_err(), "a signature by nobody's key was believed");
    opened.map(drop).map_err(words)
}

/// Taken, written and taken again, it says the same.
fn same_again<T: Serialize + DeserializeOwned + PartialEq + Debug>(input: &[u8]) -> Result<(), String> {
    let value: T = serde_json::from_slice(input).map_err(words)?;
    let text = serde_json::to_vec(&value).expect("what was read can be written");
    let again: T = serde_json::from_slice(&text).expect("what we write we read");
    assert_eq!(value, again);
    Ok(())
}

fn job_message(input: &[u8]) -> Result<(), String> {
    let _ = same_again::<JobOffer>(input);
    let _ = same_again::<JobBody>(input);
    let _ = same_again::<Cancel>(input);
    let _ = same_again::<Heartbeat>(input);
    same_again::<ResultMessage>(input)
}

fn checkpoint(input: &[u8]) -> Result<(), String> {
    let text = std::str::from_utf8(input).map_err(words)?;
    let _ = Policy::parse(text).map(|policy| assert_eq!(Policy::parse(&policy.text()), Ok(policy)));
    let body = text.split_once("\n\n").map_or(text.to_owned(), |(body, _)| format!("{body}\n"));
    let checkpoint = Checkpoint::parse(&body).map_err(words)?;
    assert_eq!(Checkpoint::parse(&checkpoint.text()).map_err(words)?, checkpoint);
    let nobody = Policy { logs: Vec::new(), quorum: Quorum::default() };
    assert!(nobody.open(text).is_err(), "a note was believed without a key");
    Ok(())
}

fn proof(input: &[u8]) -> Result<(), String> {
    let text = std::str::from_utf8(input).map_err(words)?;
    let proof = ProofFile::parse(text).map_err(words)?;
    assert_eq!(proof.text(), text, "a proof was taken that is not written so");
    assert!(
        proof.check(b"leaf", &Policy { logs: Vec::new(), quorum: Quorum::default() }).is_err(),
        "a proof without a key was believed"
    );
    Ok(())
}

fn bundles() -> Vec<Vec<u8>> {
    let mut bundle = Vec::new();
    for entry in corpus::events().iter().take(7) {
        push_entry(&mut bundle, entry).expect("golden events fit");
    }
    vec![bundle]
}

fn bundle(input: &[u8]) -> Result<(), String> {
    let entries = parse_entries(input, 7).map_err(words)?;
    let mut again = Vec::new();
    entries.iter().try_for_each(|entry| push_entry(&mut again, entry)).map_err(words)?;
    assert_eq!(again, input, "a bundle was taken that is not written so");
    Ok(())
}

fn segments() -> Vec<Vec<u8>> {
    vec![corpus::segment().1]
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary folder can be made")
}

/// The writer's reader: whatever the bytes, only the segment that its name states is whole.
fn segment(input: &[u8]) -> Result<(), String> {
    let (folder, (name, golden)) = (folder(), corpus::segment());
    let path = folder.path().join(&name);
    std::fs::write(&path, input).map_err(|error| error.to_string())?;
    let name = SegmentName::parse(&path).expect("the golden segment's name is one");
    let here = folder.path().display().to_string();
    let words = |error: journal::segment::SegmentError| words(error).replace(&here, "");
    let segment = Segment::open(Arc::new(DirectoryStore::new(folder.path())), name).map_err(words)?;
    for frame in 0..segment.frame_count().min(4) {
        let _ = segment.frame(frame);
    }
    let whole = segment.verify().map_err(words);
    assert!(whole.is_err() || input == golden, "another segment was taken for the golden one");
    whole.map(drop)
}

/// The auditor's reader, of segments and of tail files.
fn archive(input: &[u8]) -> Result<(), String> {
    let mut said = Vec::new();
    for name in [corpus::segment().0, format!("tail-{:020}.cft", 5)] {
        let folder = folder();
        std::fs::write(folder.path().join(name), input).map_err(words)?;
        let read = match Archive::find(folder.path()) {
            Ok(Some(archive)) => {
                let _ = archive.checkpoint();
                archive.commits_before(u64::MAX).try_for_each(|commit| commit.map(drop)).map_err(words)
            }
            Ok(None) => Err("no archive".to_owned()),
            Err(error) => Err(words(error)),
        };
        let here = folder.path().display().to_string();
        said.push(read.err().unwrap_or_else(|| "whole".to_owned()).replace(&here, ""));
    }
    Err(said.join("; "))
}

fn chat_body(input: &[u8]) -> Result<(), String> {
    let parsed = dispatcher::api::request::ChatRequest::parse(input);
    parsed.map(drop).map_err(|error| {
        assert!((400..500).contains(&error.status.as_u16()), "a body is never a fault of ours: {error:?}");
        words(error.message)
    })
}

fn models() -> Vec<Vec<u8>> {
    vec![gguf::file()]
}

fn write_model(folder: &Path, input: &[u8]) -> Result<std::path::PathBuf, String> {
    let path = folder.join("model.gguf");
    std::fs::write(&path, input).map_err(words)?;
    Ok(path)
}

fn model(input: &[u8]) -> Result<(), String> {
    let folder = folder();
    let path = write_model(folder.path(), input)?;
    let loaded = Model::load(&path, LoadOptions { backend: Backend::Scalar });
    loaded.map(drop).map_err(|error| words(error).replace(&folder.path().display().to_string(), ""))
}

fn tokenizer_file(input: &[u8]) -> Result<(), String> {
    let folder = folder();
    let path = write_model(folder.path(), input)?;
    let here = folder.path().display().to_string();
    let (tokenizer, ..) = Tokenizer::from_gguf(&path).map_err(|error| words(error).replace(&here, ""))?;
    // Whatever the vocabulary, ids are in it.
    let ids = tokenizer.encode("the cat\n");
    assert!(ids.iter().all(|id| *id < tokenizer.vocabulary_size()));
    let _ = tokenizer.decode(&ids);
    Ok(())
}

fn tokenizer_text(input: &[u8]) -> Result<(), String> {
    static TOKENIZER: OnceLock<Tokenizer> = OnceLock::new();
    let tokenizer = TOKENIZER.get_or_init(|| {
        let folder = folder();
        let path = write_model(folder.path(), &gguf::file()).expect("it can be written");
        Tokenizer::from_gguf(&path).expect("the corpus's model has a tokenizer").0
    });
    let text = std::str::from_utf8(input).map_err(words)?;
    let ids = tokenizer.encode(text);
    assert!(ids.iter().all(|id| *id < tokenizer.vocabulary_size()));
    assert_eq!(tokenizer.decode(&ids), text, "a text is lost on its way through the tokenizer");
    // A customer's text never becomes a control token; with them, nothing falls over.
    assert!(!ids.contains(&tokenizer.eos()), "a control token came out of a customer's text");
    let _ = tokenizer.encode_with_special(text);
    // Ids in any order, any length.
    let ids: Vec<u32> = input.iter().map(|byte| u32::from(*byte) * 3).collect();
    let _ = tokenizer.decode(&ids);
    Ok(())
}
