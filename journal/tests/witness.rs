//! Witnessing from outside: a log that is cosigned as it grows, a quorum, and every way in which a witness says no: to a log
//! it does not know, to a strange key, to a smaller log, to a rewritten one, also after it was started again.

use data_encoding::BASE64;
use journal::transparency::witness::{Answer, Collected, Cosigner, WITNESSED_PATH, collect, request};
use journal::transparency::{Signer, Transparency};
use protocol::checkpoint::{Policy, VerifierKey};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const ORIGIN: &str = "ledger.example/log1";
const NOW_S: u64 = 1_790_000_000;

fn open(dir: &Path) -> Transparency {
    Transparency::open(&dir.join("tlog"), Signer::load_or_create(&dir.join("keys"), ORIGIN).unwrap()).unwrap()
}

/// Appends leaves and gives the signed note.
fn grow(log: &mut Transparency, to: u64, word: &str) -> String {
    let leaves: Vec<Vec<u8>> = (log.next_leaf()..to).map(|n| format!("{word} {n}").into_bytes()).collect();
    let leaves: Vec<&[u8]> = leaves.iter().map(Vec::as_slice).collect();
    log.append_commit(log.next_leaf(), &leaves).unwrap();
    log.checkpoint().unwrap().text
}

/// Witnesses by URL, asked without a wire.
struct Street {
    dir: PathBuf,
    log: VerifierKey,
    houses: RefCell<BTreeMap<String, Cosigner>>,
}

impl Street {
    fn new(dir: &Path, log: &VerifierKey) -> Street {
        Street { dir: dir.to_owned(), log: log.clone(), houses: RefCell::default() }
    }

    /// The witness starts (again) with what it remembers; gives its line in a policy.
    fn house(&self, number: u32) -> String {
        let url = format!("http://{number}");
        self.houses.borrow_mut().remove(&url);
        let folder = self.dir.join(format!("witness{number}"));
        let name = format!("w{number}.example/w");
        let witness = Cosigner::open(&folder, &name, Policy::of_log(self.log.clone())).unwrap();
        let line = format!("witness w{number} {} {url}\n", witness.key());
        self.houses.borrow_mut().insert(url, witness);
        line
    }

    fn ask(&self, number: u32, body: &str) -> Answer {
        self.post(&format!("http://{number}/add-checkpoint"), body).unwrap()
    }

    fn post(&self, url: &str, body: &str) -> Result<Answer, String> {
        let mut houses = self.houses.borrow_mut();
        let house = houses.get_mut(url.trim_end_matches("/add-checkpoint")).ok_or("nobody lives there")?;
        Ok(match house.add_checkpoint(body, NOW_S) {
            Ok(body) => Answer { status: 200, body },
            Err(refusal) => Answer { status: refusal.status(), body: refusal.to_string() },
        })
    }

    fn collect(&self, policy: &Policy) -> Collected {
        collect(&self.dir.join("tlog"), policy, &|url, body| self.post(url, body)).unwrap()
    }
}

#[test]
fn a_growing_log_is_cosigned_by_its_quorum() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path());
    let street = Street::new(dir.path(), log.verifier_key());
    let houses: String = (1..=2).map(|number| street.house(number)).collect();
    let away = street.house(3);
    street.houses.borrow_mut().remove("http://3");
    let policy =
        |quorum: &str| Policy::parse(&format!("log {}\n{houses}{away}{quorum}", street.log)).unwrap();
    let two = policy("group g 2 w1 w2 w3\nquorum g\n");
    for size in [1, 300, 300, 700] {
        grow(&mut log, size, "leaf");
        let collected = street.collect(&two);
        assert!(collected.is_quorum, "{collected:?}");
        assert_eq!((collected.checkpoint.size, collected.cosigned.len()), (size, 2));
        assert_eq!(collected.refused[0].1, "nobody lives there");
        let note = std::fs::read_to_string(dir.path().join("tlog").join(WITNESSED_PATH)).unwrap();
        assert_eq!(two.open(&note).unwrap().size, size);
        assert!(two.open(log.published().unwrap().text.as_str()).is_err(), "the log alone is no quorum");
    }
    // A witness that was away, one that started again: both are led from where they stand.
    street.house(3);
    street.house(1);
    grow(&mut log, 701, "leaf");
    assert_eq!(street.collect(&policy("group g all w1 w2 w3\nquorum g\n")).cosigned.len(), 3);
    street.houses.borrow_mut().clear();
    grow(&mut log, 800, "leaf");
    assert!(!street.collect(&two).is_quorum);
    let note = std::fs::read_to_string(dir.path().join("tlog").join(WITNESSED_PATH)).unwrap();
    assert_eq!(two.open(&note).unwrap().size, 701, "what was witnessed stays until there is more");
}

#[test]
fn a_witness_says_no_in_the_protocol_s_numbers() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path());
    let street = Street::new(dir.path(), log.verifier_key());
    street.house(1);
    let first = grow(&mut log, 300, "leaf");
    assert_eq!(street.ask(1, &request(0, &[], &first)).status, 200);
    let second = grow(&mut log, 500, "leaf");
    let proof = log.prove_consistency(300, 500).unwrap();
    let conflict = street.ask(1, &request(0, &[], &second));
    assert_eq!((conflict.status, conflict.body.as_str()), (409, "300"));
    assert_eq!(street.ask(1, &request(300, &proof[1..], &second)).status, 422);
    assert_eq!(street.ask(1, &request(501, &proof, &second)).status, 400);
    assert_eq!(street.ask(1, "old 300\n").status, 400);
    assert_eq!(street.ask(1, &request(300, &proof, &second).replace("old 300", "old 0300")).status, 400);
    let strange = second.replace(ORIGIN, "ledger.example/log2");
    assert_eq!(street.ask(1, &request(300, &proof, &strange)).status, 404);
    let at = second.find("\u{2014}").unwrap();
    let blob = BASE64.decode(second[at..].trim().rsplit(' ').next().unwrap().as_bytes()).unwrap();
    let mut other = blob.clone();
    other[70 - 3] ^= 1;
    let forged = second.replace(&BASE64.encode(&blob), &BASE64.encode(&other));
    assert_eq!(street.ask(1, &request(300, &proof, &forged)).status, 403);
    assert_eq!(street.ask(1, &request(300, &proof, &second)).status, 200, "and none of that confused it");
    assert_eq!(street.ask(1, &request(300, &proof, &second)).status, 409, "it went on");
    assert_eq!(street.ask(1, &request(500, &[], &second)).status, 200, "the same head may be shown again");
}

#[test]
fn a_rewritten_history_signed_with_the_right_key_is_kept_as_evidence() {
    let (honest, forger) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut log = open(honest.path());
    let street = Street::new(honest.path(), log.verifier_key());
    street.house(1);
    let first = grow(&mut log, 300, "leaf");
    assert_eq!(street.ask(1, &request(0, &[], &first)).status, 200);
    // The same key in the forger's hands, without the memory of what it signed.
    std::fs::create_dir_all(forger.path().join("keys")).unwrap();
    let key = "keys/checkpoint.key";
    std::fs::copy(honest.path().join(key), forger.path().join(key)).unwrap();
    let mut forged = open(forger.path());
    let same_size = grow(&mut forged, 300, "another");
    let longer = grow(&mut forged, 400, "another");
    // Also a witness that was started again knows what it cosigned.
    street.house(1);
    assert_eq!(street.ask(1, &request(300, &[], &same_size)).status, 409);
    let proof = forged.prove_consistency(300, 400).unwrap();
    assert_eq!(street.ask(1, &request(300, &proof, &longer)).status, 422);
    let evidence = honest.path().join("witness1/evidence");
    let kept: Vec<String> = std::fs::read_dir(&evidence)
        .unwrap()
        .map(|file| std::fs::read_to_string(file.unwrap().path()).unwrap())
        .collect();
    assert_eq!(kept.len(), 2);
    assert!(kept.iter().any(|request| request.contains(&longer)), "with the log's own signature");
    let second =
        Cosigner::open(&honest.path().join("witness1"), "w1.example/w", Policy::of_log(street.log.clone()));
    assert!(second.is_err(), "one process holds a witness's key");
}
