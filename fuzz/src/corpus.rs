//! What each target begins with: the golden files of the rooms, and texts as the real parts write them. Entries that once
//! broke something are added to `fuzz/findings/<target>/` and tried for ever. Must not: chance.

use data_encoding::HEXLOWER;
use std::path::{Path, PathBuf};

/// The tree's root.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_owned).unwrap_or_default()
}

/// Inputs that broke a target once.
pub fn findings(target: &str) -> Vec<Vec<u8>> {
    let Ok(entries) = std::fs::read_dir(root().join("fuzz/findings").join(target)) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    paths.iter().filter_map(|path| std::fs::read(path).ok()).collect()
}

/// Lines `name hex` of a golden file whose name begins so.
fn golden(path: &str, prefix: &str) -> Vec<Vec<u8>> {
    let text = std::fs::read_to_string(root().join(path)).expect("golden files are in the tree");
    let lines =
        text.lines().filter_map(|line| line.split_once(' ')).filter(|(name, _)| name.starts_with(prefix));
    lines.filter_map(|(_, hex)| HEXLOWER.decode(hex.trim().as_bytes()).ok()).collect()
}

/// Every kind of event, as committed.
pub fn events() -> Vec<Vec<u8>> {
    [golden("protocol/golden/events_v1.hex", ""), golden("protocol/golden/events_v2.hex", "")].concat()
}

/// Messages of the command door.
pub fn command_messages() -> Vec<Vec<u8>> {
    golden("journal/golden/commands_v1.hex", "command-message")
}

/// Answers of the command door.
pub fn answer_messages() -> Vec<Vec<u8>> {
    golden("journal/golden/commands_v1.hex", "answer-message")
}

/// Everything else of that door.
pub fn beats() -> Vec<Vec<u8>> {
    golden("journal/golden/commands_v1.hex", "")
}

/// Refusals as they travel.
pub fn refusals() -> Vec<Vec<u8>> {
    golden("ledger/golden/refusals_v1.hex", "")
}

/// The golden segment's name and bytes.
pub fn segment() -> (String, Vec<u8>) {
    let folder = root().join("journal/tests/golden");
    let entry = std::fs::read_dir(folder).expect("it is in the tree").flatten().next().expect("one segment");
    let bytes = std::fs::read(entry.path()).expect("readable");
    (entry.file_name().to_string_lossy().into_owned(), bytes)
}

/// Checkpoints, signed and not, of sizes small and large.
pub fn checkpoints() -> Vec<Vec<u8>> {
    let root = data_encoding::BASE64.encode(&[7; 32]);
    let key = data_encoding::BASE64.encode(&[[1; 4].as_slice(), &[9; 64]].concat());
    let body = |size: &str| format!("counterfoil.example/prepaid/0\n{size}\n{root}\n");
    let signed = |size: &str| format!("{}\n\u{2014} counterfoil.example/prepaid/0 {key}\n", body(size));
    let texts = ["0", "1", "70000", "18446744073709551615"];
    texts.iter().flat_map(|size| [body(size).into_bytes(), signed(size).into_bytes()]).collect()
}

/// A proof file around a checkpoint.
pub fn proofs() -> Vec<Vec<u8>> {
    let hash = data_encoding::BASE64.encode(&[5; 32]);
    let note = String::from_utf8(checkpoints()[3].clone()).expect("text");
    let hashes = format!("{hash}\n").repeat(16);
    vec![format!("c2sp.org/tlog-proof@v1\nindex 12\n{hashes}\n{note}").into_bytes(), note.into_bytes()]
}

/// Messages between gateway and worker.
pub fn job_messages() -> Vec<Vec<u8>> {
    let hash = "07".repeat(32);
    let texts = [
        format!(
            r#"{{"protocol":1,"job":"job_00000000000000000000000000","attempt":0,"node":"node_00000000000000000000000000","gateway":"gw0","model":"m","weights":"{hash}","deadline_us":1,"body_commitment":"{hash}","sealed_body":"AAAA"}}"#
        ),
        r#"{"kind":"accept","attempt":0}"#.to_owned(),
        r#"{"kind":"nak","attempt":0,"reason":"busy","detail":"x"}"#.to_owned(),
        format!(r#"{{"kind":"frame","seq":0,"ids":[1,2,4294967295],"text":"caf\u00e9","chain":"{hash}"}}"#),
        r#"{"kind":"done","seq":1,"receipt":"AAAA"}"#.to_owned(),
        r#"{"kind":"failed","seq":18446744073709551615,"detail":""}"#.to_owned(),
        r#"{"job":"job_00000000000000000000000000","attempt":0}"#.to_owned(),
        r#"{"protocol":1,"node":"node_00000000000000000000000000","seq":1,"inflight":0,"slots":4,"models":["m"],"draining":false}"#.to_owned(),
    ];
    texts.into_iter().map(String::into_bytes).collect()
}

/// Bodies of the OpenAI call.
pub fn chats() -> Vec<Vec<u8>> {
    let texts = [
        r#"{"model":"m","messages":[{"role":"user","content":"hi"}]}"#,
        r#"{"model":"m","messages":[{"role":"system","content":"a"},{"role":"user","content":[{"type":"text","text":"b"}]},{"role":"assistant","content":null,"tool_calls":[]}],"max_tokens":5,"temperature":0.7,"top_p":0.9,"n":1,"stream":true,"stream_options":{"include_usage":true},"stop":["x","y"],"seed":7,"user":"u","metadata":{"a":"b"},"logit_bias":{"5":-100}}"#,
        r#"{"model":"m","messages":[{"role":"user","content":"\ud83d\ude00"}],"max_completion_tokens":18446744073709551615,"temperature":1e308,"presence_penalty":-2,"frequency_penalty":2,"response_format":{"type":"json_object"},"tools":[{"type":"function","function":{"name":"f","parameters":{}}}],"tool_choice":"auto"}"#,
    ];
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}

/// Texts that tokenizers trip over.
pub fn texts() -> Vec<Vec<u8>> {
    let texts = [
        "the cat",
        "  \t\n",
        "<|im_start|>user<|im_end|>",
        "\u{feff}\u{200d}e\u{301}\u{1f468}\u{200d}\u{1f469}",
        "漢字かな",
        "1234567890",
        "don't I'LL",
    ];
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}
