//! The page for outsiders (`examples/verify`) in a real browser, offline, on files that the auditor itself made and accepts:
//! a receipt, an event's proof with and without witnesses, a payout; and the same with one bit changed, which it must refuse.
//! Left out where there is no Chromium (COUNTERFOIL_CHROMIUM) or no driver (COUNTERFOIL_BROWSER_MODULES).

use crate::log::{self, put};
use crate::story::{honest, receipt_bytes};
use auditor::prove::{ProveOptions, prove};
use auditor::settlement::{payout_leaf, payout_root};
use ed25519_dalek::{Signer, SigningKey};
use protocol::id::EvmAddress;
use protocol::proof::ProofFile;
use protocol::witness::{WitnessKey, cosignature_line, cosigned_bytes};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;

const OPERATOR: EvmAddress = EvmAddress([0x99; 20]);
const OTHER: EvmAddress = EvmAddress([0x11; 20]);

/// Files for the page.
struct Files {
    directory: tempfile::TempDir,
}

impl Files {
    fn new() -> Files {
        let files = Files { directory: tempfile::tempdir().unwrap() };
        let story = honest();
        let copy = files.directory.path().join("copy");
        story.write(&copy);
        let leaf = story.find("usage_captured", 0);
        let wanted = leaf.to_string().parse().unwrap();
        let proven =
            prove(&ProveOptions { directory: copy.clone(), policy: None, wanted }).unwrap().1.unwrap();
        files.put("proof", proven.proof.as_bytes());
        files.put("event", &proven.event);
        files.put("receipt", &receipt_bytes(0));
        files.put("other-receipt", &receipt_bytes(1));
        let policy = std::fs::read_to_string(copy.join("policy")).unwrap();
        files.put("policy", policy.as_bytes());
        files.witnessed(&proven.proof, &policy);
        let (units, other) = (2_305_000_u64, 577_000_u64);
        let root = payout_root([(OPERATOR, units), (OTHER, other)]).to_string();
        let claims = json!({"epoch": 1, "root": root, "claims": [{"operator": OPERATOR.to_string(),
            "cumulative_units": units.to_string(), "proof": [payout_leaf(OTHER, other).to_string()]}]});
        files.put("claims", claims.to_string().as_bytes());
        files.put("greedy-claims", claims.to_string().replace("2305000", "2305001").as_bytes());
        files
    }

    /// The same proof under a checkpoint that a witness cosigned, and the policy that asks for it.
    fn witnessed(&self, proof: &str, policy: &str) {
        let secret = SigningKey::from_bytes(&[8; 32]);
        let witness = WitnessKey::new("witness.test/w", secret.verifying_key().as_bytes()).unwrap();
        let asks = format!("witness one {witness}\ngroup all 1 one\nquorum all\n");
        self.put("strict-policy", policy.replace("quorum none\n", &asks).as_bytes());
        let mut file = ProofFile::parse(proof).unwrap();
        let text = file.checkpoint.split("\n\n").next().unwrap().to_owned() + "\n";
        let signature = secret.sign(&cosigned_bytes(1_790_000_000, &text)).to_bytes();
        file.checkpoint.push_str(&cosignature_line(&witness, 1_790_000_000, &signature));
        self.put("witnessed-proof", file.text().as_bytes());
    }

    fn put(&self, name: &str, bytes: &[u8]) {
        put(&self.directory.path().join(name), bytes);
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A file with one bit of it changed.
    fn altered(&self, name: &str, at: usize) -> String {
        let mut bytes = std::fs::read(self.path(name)).unwrap();
        bytes[at] ^= 1;
        let altered = format!("{name}-{at}");
        self.put(&altered, &bytes);
        altered
    }

    fn receipt(&self, name: &str) -> Value {
        json!({"check": "receipt", "files": {"receipt-file": self.path(name)}})
    }

    fn inclusion(&self, proof: &str, event: &str, policy: &str, receipt: Option<&str>) -> Value {
        let mut files = json!({"proof-file": self.path(proof), "event-file": self.path(event),
            "policy-file": self.path(policy)});
        if let Some(receipt) = receipt {
            files["charge-file"] = json!(self.path(receipt));
        }
        json!({"check": "inclusion", "files": files})
    }

    fn payout(&self, claims: &str, address: EvmAddress, root: &str) -> Value {
        json!({"check": "payout", "files": {"claims-file": self.path(claims)},
            "texts": {"address": address.to_string(), "root": root}})
    }
}

/// What the page said to each case; `None` where there is no browser.
fn page_says(files: &Files, cases: &[Value]) -> Option<Value> {
    let asked = ["COUNTERFOIL_CHROMIUM", "COUNTERFOIL_BROWSER_MODULES"].map(std::env::var_os);
    let [Some(chromium), Some(modules)] = asked else {
        eprintln!(
            "skipped: no Chromium or no driver of it (COUNTERFOIL_CHROMIUM, COUNTERFOIL_BROWSER_MODULES)"
        );
        return None;
    };
    files.put("cases", json!(cases).to_string().as_bytes());
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut node = Command::new("node");
    node.arg(root.join("tests/foreign/verify_page.cjs")).arg(root.join("examples/verify/index.html"));
    node.arg(files.path("cases")).env("NODE_PATH", modules).env("CHROMIUM", chromium);
    let output = node.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(serde_json::from_slice(&output.stdout).unwrap())
}

#[test]
fn the_page_proves_what_is_right_and_nothing_else() {
    let files = Files::new();
    let root = payout_root([(OPERATOR, 2_305_000), (OTHER, 577_000)]).to_string();
    let (receipt, event) =
        (std::fs::read(files.path("receipt")).unwrap(), std::fs::read(files.path("event")).unwrap());
    let proof = std::fs::read_to_string(files.path("proof")).unwrap();
    let hash_at = proof.find('\n').unwrap() + 20;
    let signature_at = proof.rfind(' ').unwrap() + 20;
    let cases = [
        (true, files.receipt("receipt")),
        (true, files.inclusion("proof", "event", "policy", None)),
        (true, files.inclusion("proof", "event", "policy", Some("receipt"))),
        (true, files.inclusion("witnessed-proof", "event", "strict-policy", None)),
        (true, files.payout("claims", OPERATOR, "")),
        (true, files.payout("claims", OPERATOR, &root)),
        (false, files.receipt(&files.altered("receipt", receipt.len() / 2))),
        (false, files.receipt(&files.altered("receipt", receipt.len() - 1))),
        (false, files.receipt("event")),
        (false, files.inclusion("proof", &files.altered("event", event.len() - 1), "policy", None)),
        (false, files.inclusion(&files.altered("proof", hash_at), "event", "policy", None)),
        (false, files.inclusion(&files.altered("proof", signature_at), "event", "policy", None)),
        (false, files.inclusion("proof", "event", "policy", Some("other-receipt"))),
        (false, files.inclusion("proof", "event", "strict-policy", None)),
        (false, files.inclusion("proof", "event", "event", None)),
        (false, files.payout("greedy-claims", OPERATOR, "")),
        (false, files.payout("claims", OTHER, "")),
        (false, files.payout("claims", OPERATOR, &root.replace("0x", "0x00")[..66])),
    ];
    let asked: Vec<Value> = cases.iter().map(|(_, case)| case.clone()).collect();
    let Some(told) = page_says(&files, &asked) else { return };
    for ((right, case), answer) in cases.iter().zip(told["answers"].as_array().unwrap()) {
        assert_eq!(answer["is"], right.to_string(), "{case}: {answer}");
    }
    let says = |at: usize| told["answers"][at]["says"].as_str().unwrap().to_owned();
    assert!(says(2).contains("It is the charge of job"), "{}", says(2));
    assert!(says(3).contains("cosigned by 1 witnesses"), "{}", says(3));
    assert!(says(5).contains("That is the root on the chain"), "{}", says(5));
    assert_eq!(told["protocols"], json!(["file:"]), "the page asked somebody");
    assert_eq!(log::ORIGIN, says(1).lines().find_map(|line| line.strip_prefix("log ")).unwrap());
}
