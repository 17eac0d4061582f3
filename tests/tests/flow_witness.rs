//! Witnesses as their users run them: two processes that cosign a growing log over HTTP, a policy that asks for both, an
//! auditor that fetches what they cosigned, and what everybody says when one is gone or the log is rewritten.

use journal::transparency::{Signer, Transparency};
use network_tests::check::counterfoil;
use network_tests::network::command;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

const ORIGIN: &str = "ledger.example/log1";

/// A witness process; ended when dropped.
struct Running {
    child: Child,
    /// Its line in a policy.
    line: String,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn start(name: &str, folder: &Path, logs: &Path) -> Running {
    let mut run = command();
    run.args(["--json", "witness", "run", "--listen", "127.0.0.1:0", "--name", &format!("{name}.example/w")]);
    run.arg("--data").arg(folder).arg("--policy").arg(logs).stdout(Stdio::piped());
    let mut child = run.spawn().expect("it starts");
    let mut told = String::new();
    BufReader::new(child.stdout.take().expect("piped")).read_line(&mut told).expect("it says where it is");
    let told: serde_json::Value = serde_json::from_str(&told).expect("JSON");
    let word = |key: &str| told[key].as_str().expect("text").to_owned();
    Running { child, line: format!("witness {name} {} {}\n", word("key"), word("url")) }
}

fn log(data: &Path) -> Transparency {
    let signer = Signer::load_or_create(&data.join("keys"), ORIGIN).expect("a key");
    Transparency::open(&data.join("tlog"), signer).expect("a log")
}

fn grow(log: &mut Transparency, to: u64, word: &str) {
    let leaves: Vec<String> = (log.next_leaf()..to).map(|n| format!("{word} {n}")).collect();
    let leaves: Vec<&[u8]> = leaves.iter().map(|leaf| leaf.as_bytes()).collect();
    log.append_commit(log.next_leaf(), &leaves).expect("appended");
    log.checkpoint().expect("signed");
}

fn text(path: &Path) -> &str {
    path.to_str().expect("text")
}

fn write(path: PathBuf, words: &str) -> PathBuf {
    std::fs::write(&path, words).expect("written");
    path
}

#[test]
fn a_log_is_witnessed_audited_and_cannot_be_rewritten() {
    let dir = tempfile::tempdir().expect("a directory");
    let place = |name: &str| dir.path().join(name);
    let data = place("data");
    let mut growing = log(&data);
    grow(&mut growing, 300, "leaf");
    let own = std::fs::read_to_string(data.join("tlog/policy")).expect("a policy");
    let logs = write(place("logs.policy"), &own);
    let (first, second) = (start("w1", &place("w1"), &logs), start("w2", &place("w2"), &logs));
    let witnesses = format!("{}{}", first.line, second.line);
    let asks = |threshold: &str| {
        own.replace("quorum none\n", &format!("{witnesses}group both {threshold} w1 w2\nquorum both\n"))
    };
    let policy = write(place("auditor.policy"), &asks("all"));
    let collect = || counterfoil(&["witness", "collect", "--data", text(&data), "--policy", text(&policy)]);
    let fetch =
        |copy: &Path| counterfoil(&["audit", "fetch", text(&data), text(copy), "--policy", text(&policy)]);
    let verify = |copy: &Path| counterfoil(&["audit", "verify", text(copy)]);

    let copy = place("copy");
    assert_eq!(fetch(&copy).code, 0);
    let unwitnessed = verify(&copy);
    assert_eq!(unwitnessed.code, 4, "nobody cosigned yet: {}", unwitnessed.stdout);
    assert!(unwitnessed.stdout.contains("FAIL witnesses"), "{}", unwitnessed.stdout);
    assert_eq!(collect().code, 0);
    grow(&mut growing, 700, "leaf");
    let collected = collect();
    assert_eq!(collected.code, 0, "{}{}", collected.stdout, collected.stderr);
    assert_eq!(fetch(&copy).code, 0);
    let verified = verify(&copy);
    assert_eq!(verified.code, 0, "{}", verified.stdout);
    assert!(verified.stdout.contains("cosigned by w1.example/w, w2.example/w"), "{}", verified.stdout);
    assert!(verified.stdout.contains("size 700"), "{}", verified.stdout);

    // One is gone: what both cosigned stays the newest that this policy accepts.
    drop(second);
    grow(&mut growing, 800, "leaf");
    let alone = collect();
    assert_eq!(alone.code, 3, "{}", alone.stdout);
    assert!(alone.stdout.contains("w2.example/w"), "{}", alone.stdout);
    assert_eq!(fetch(&copy).code, 0);
    assert!(verify(&copy).stdout.contains("size 700"));

    // The log's key, without its memory, signs another past: the witness has none of it.
    drop(growing);
    let forged = place("forged");
    std::fs::create_dir_all(forged.join("keys")).expect("made");
    std::fs::copy(data.join("keys/checkpoint.key"), forged.join("keys/checkpoint.key")).expect("stolen");
    grow(&mut log(&forged), 900, "another");
    let policy = write(place("one.policy"), &asks("any"));
    let refused = counterfoil(&["witness", "collect", "--data", text(&forged), "--policy", text(&policy)]);
    assert_eq!(refused.code, 3, "{}", refused.stdout);
    assert!(refused.stdout.contains("422"), "{}", refused.stdout);
    assert!(!forged.join("tlog/checkpoint.witnessed").exists());
    assert_eq!(std::fs::read_dir(place("w1/evidence")).expect("kept").count(), 1);
}
