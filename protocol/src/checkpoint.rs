//! Checkpoints of the transparency log: the text (c2sp.org/tlog-checkpoint), the signed note around it (c2sp.org/signed-note),
//! verifier keys, and the policy file for auditors (c2sp.org/tlog-policy). The reader's side; signing is the journal's.

use crate::id::Hash32;
use crate::witness::Quorum;
use data_encoding::BASE64;
use ed25519_dalek::{Signature, VerifyingKey};
use sha2::{Digest, Sha256};

/// Largest note we read, in bytes.
pub const NOTE_BYTES_MAX: usize = 64 * 1024;
/// Most signature lines we read.
pub const SIGNATURES_MAX: usize = 100;
/// Signature type of an Ed25519 log key.
const ALGORITHM_ED25519: u8 = 0x01;

/// Why a checkpoint, key or policy does not stand.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// Not a checkpoint, or not in its one canonical form.
    #[error("not a checkpoint: {0}; expected origin, size and root, a blank line, and signature lines")]
    Malformed(&'static str),
    /// No line by the key we trust.
    #[error("the checkpoint is not signed by {0}")]
    NotSigned(String),
    /// A line by the key we trust that does not verify.
    #[error("the signature of {0} on the checkpoint is wrong")]
    BadSignature(String),
    /// Signed, but another log's.
    #[error("the checkpoint is of log {found:?}, expected {expected:?}")]
    WrongOrigin {
        /// The key's name.
        expected: String,
        /// The first line.
        found: String,
    },
    /// Not a verifier key.
    #[error("not a verifier key: {0:?}; expected name+hash+base64 of an Ed25519 key")]
    Key(String),
    /// Fewer witnesses than the policy asks for.
    #[error("{signed} of the policy's {of} witnesses cosigned, which is not the quorum {wanted:?}")]
    Quorum {
        /// The quorum's name.
        wanted: String,
        /// Who did.
        signed: usize,
        /// Who could have.
        of: usize,
    },
    /// Not a policy we can follow.
    #[error("policy, line {line}: {reason}")]
    Policy {
        /// Counted from 1.
        line: usize,
        /// What is wrong, and what was expected.
        reason: String,
    },
}

/// A tree head: origin, number of leaves, root.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Checkpoint {
    /// Name of the log.
    pub origin: String,
    /// Number of leaves.
    pub size: u64,
    /// RFC 6962 root of that many leaves (SHA-256).
    pub root: Hash32,
}

impl Checkpoint {
    /// The text that is signed: three lines, each ended.
    pub fn text(&self) -> String {
        format!("{}\n{}\n{}\n", self.origin, self.size, BASE64.encode(&self.root.0))
    }

    /// Parses the text; extension lines and any other than the canonical form are refused.
    pub fn parse(text: &str) -> Result<Checkpoint, CheckpointError> {
        let malformed = CheckpointError::Malformed;
        let mut lines = text.split('\n');
        let mut line = || lines.next().ok_or(malformed("fewer than three lines"));
        let (origin, size, root) = (line()?, line()?, line()?);
        let size = size.parse().map_err(|_| malformed("the size is not a number"))?;
        let root = BASE64.decode(root.as_bytes()).ok().and_then(|root| <[u8; 32]>::try_from(root).ok());
        let root = root.ok_or(malformed("the root is not base64 of 32 bytes"))?;
        let checkpoint = Checkpoint { origin: origin.to_owned(), size, root: Hash32(root) };
        if origin.is_empty() || checkpoint.text() != text {
            return Err(malformed("not the canonical three lines"));
        }
        Ok(checkpoint)
    }

    /// Opens a signed note: the text is a checkpoint of the key's log and carries a good signature of that key.
    /// Lines by other keys (witnesses) are not looked at.
    pub fn open(note: &str, key: &VerifierKey) -> Result<Checkpoint, CheckpointError> {
        let (text, signatures) = split_note(note)?;
        let mut signed = false;
        for (name, blob) in signatures {
            let Some((id, signature)) = blob.split_first_chunk::<4>() else {
                return Err(CheckpointError::Malformed("a signature is too short"));
            };
            if name != key.name || u32::from_be_bytes(*id) != key.id() {
                continue;
            }
            let bad = || CheckpointError::BadSignature(key.name.clone());
            let signature = Signature::from_slice(signature).map_err(|_| bad())?;
            key.key.verify_strict(text.as_bytes(), &signature).map_err(|_| bad())?;
            signed = true;
        }
        if !signed {
            return Err(CheckpointError::NotSigned(key.name.clone()));
        }
        let checkpoint = Checkpoint::parse(text)?;
        if checkpoint.origin != key.name {
            let (expected, found) = (key.name.clone(), checkpoint.origin);
            return Err(CheckpointError::WrongOrigin { expected, found });
        }
        Ok(checkpoint)
    }
}

/// Name and decoded signature of one signature line.
pub(crate) type SignatureLine<'a> = (&'a str, Vec<u8>);

/// Text with its last line feed, and the signature lines.
pub(crate) fn split_note(note: &str) -> Result<(&str, Vec<SignatureLine<'_>>), CheckpointError> {
    let malformed = CheckpointError::Malformed;
    if note.len() > NOTE_BYTES_MAX {
        return Err(malformed("larger than any checkpoint"));
    }
    if note.chars().any(|c| c < ' ' && c != '\n') {
        return Err(malformed("control characters"));
    }
    let split = note.rfind("\n\n").ok_or(malformed("no blank line"))?;
    let (text, block) = (&note[..=split], &note[split + 2..]);
    let block = block.strip_suffix('\n').ok_or(malformed("the last line is not ended"))?;
    let mut signatures = Vec::new();
    for line in block.split('\n') {
        let (name, base64) = line
            .strip_prefix("\u{2014} ")
            .and_then(|rest| rest.split_once(' '))
            .ok_or(malformed("a signature line is not `\u{2014} name base64`"))?;
        let blob = BASE64.decode(base64.as_bytes()).map_err(|_| malformed("a signature is not base64"))?;
        if !is_key_name(name) || signatures.len() == SIGNATURES_MAX {
            return Err(malformed("a signature's name, or too many signatures"));
        }
        signatures.push((name, blob));
    }
    Ok((text, signatures))
}

pub(crate) fn is_key_name(name: &str) -> bool {
    !name.is_empty() && !name.contains(|c: char| c.is_whitespace() || c == '+')
}

/// A log's public key: `name+hash+base64(0x01 || key)`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VerifierKey {
    name: String,
    key: VerifyingKey,
}

impl VerifierKey {
    /// A key under a name, which is the log's origin. Refuses names with spaces or `+`, and bytes that are no key.
    pub fn new(name: &str, key: &[u8; 32]) -> Result<VerifierKey, CheckpointError> {
        let wrong = || CheckpointError::Key(name.to_owned());
        let key = VerifyingKey::from_bytes(key).map_err(|_| wrong())?;
        if !is_key_name(name) || name.contains(|c: char| c.is_control()) || key.is_weak() {
            return Err(wrong());
        }
        Ok(VerifierKey { name: name.to_owned(), key })
    }

    /// Its name: the origin of the log's checkpoints.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The first four bytes of SHA-256 over name, line feed and typed key.
    pub fn id(&self) -> u32 {
        let mut hasher = Sha256::new();
        hasher.update(self.name.as_bytes());
        hasher.update(b"\n");
        hasher.update(self.typed());
        let hash: [u8; 32] = hasher.finalize().into();
        u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]])
    }

    fn typed(&self) -> [u8; 33] {
        let mut typed = [ALGORITHM_ED25519; 33];
        typed[1..].copy_from_slice(self.key.as_bytes());
        typed
    }
}

impl std::fmt::Display for VerifierKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}+{:08x}+{}", self.name, self.id(), BASE64.encode(&self.typed()))
    }
}

impl std::str::FromStr for VerifierKey {
    type Err = CheckpointError;
    fn from_str(text: &str) -> Result<VerifierKey, CheckpointError> {
        let wrong = || CheckpointError::Key(text.chars().take(200).collect());
        let mut parts = text.splitn(3, '+');
        let name = parts.next().ok_or_else(wrong)?;
        let base64 = parts.nth(1).ok_or_else(wrong)?;
        let typed = BASE64.decode(base64.as_bytes()).map_err(|_| wrong())?;
        let Some((&ALGORITHM_ED25519, key)) = typed.split_first() else { return Err(wrong()) };
        let key = VerifierKey::new(name, key.try_into().map_err(|_| wrong())?)?;
        // The middle part is a hash of the rest: compare by writing it again.
        if key.to_string() == text { Ok(key) } else { Err(wrong()) }
    }
}

/// What an auditor trusts: the logs' keys, and who must have witnessed. Comes out of band, never from the log's own host.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Policy {
    /// The logs; at least one.
    pub logs: Vec<VerifierKey>,
    /// The witnesses.
    pub quorum: Quorum,
}

impl Policy {
    /// One log, and no witnesses.
    pub fn of_log(key: VerifierKey) -> Policy {
        Policy { logs: vec![key], quorum: Quorum::default() }
    }

    /// The policy file's text.
    pub fn text(&self) -> String {
        let mut text =
            "# Keys of the log. Get this file from somebody other than the log's own host.\n".to_owned();
        for log in &self.logs {
            text.push_str(&format!("log {log}\n"));
        }
        text.push_str(&self.quorum.text());
        text
    }

    /// Parses a policy (c2sp.org/tlog-policy): logs, witnesses, groups of those above them, and one quorum.
    pub fn parse(text: &str) -> Result<Policy, CheckpointError> {
        let mut logs: Vec<VerifierKey> = Vec::new();
        let (mut quorum, mut quorums) = (Quorum::default(), 0);
        for (line, content) in text.lines().enumerate().map(|(n, l)| (n + 1, l)) {
            let error = |reason: &str| CheckpointError::Policy { line, reason: reason.to_owned() };
            let words: Vec<&str> = content.split([' ', '\t']).filter(|w| !w.is_empty()).collect();
            match words[..] {
                [] => {}
                [first, ..] if first.starts_with('#') => {}
                ["log", key] | ["log", key, _] => {
                    let key: VerifierKey = key.parse().map_err(|e: CheckpointError| error(&e.to_string()))?;
                    if logs.iter().any(|other| other.key == key.key) {
                        return Err(error("this key stands there twice"));
                    }
                    logs.push(key);
                }
                ["quorum", "none"] => quorums += 1,
                [kind @ ("witness" | "group" | "quorum"), ..] => {
                    quorums += usize::from(kind == "quorum");
                    quorum.take(&words).map_err(|reason| error(&reason))?;
                }
                _ => return Err(error("expected `log`, `witness`, `group` or `quorum`")),
            }
        }
        let end =
            |reason: &str| CheckpointError::Policy { line: text.lines().count(), reason: reason.to_owned() };
        if quorums != 1 {
            return Err(end("expected exactly one `quorum` line: a name, or none"));
        }
        if logs.is_empty() {
            return Err(end("expected at least one `log <key>` line"));
        }
        Ok(Policy { logs, quorum })
    }

    /// Opens a signed note by whichever of the logs it names, cosigned by the quorum.
    pub fn open(&self, note: &str) -> Result<Checkpoint, CheckpointError> {
        let checkpoint = self.open_log(note)?;
        self.quorum.check(note).map(|_| checkpoint)
    }

    /// The same without asking who witnessed it: what a log signed is evidence against it, witnessed or not.
    pub fn open_log(&self, note: &str) -> Result<Checkpoint, CheckpointError> {
        let mut last = CheckpointError::NotSigned("any log of the policy".to_owned());
        for key in &self.logs {
            match Checkpoint::open(note, key) {
                Ok(checkpoint) => return Ok(checkpoint),
                Err(CheckpointError::NotSigned(_)) => {}
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use signed_note::{Note, Signer as _, StandardSigner};

    const ORIGIN: &str = "ledger.example/log1";

    fn signer(seed: u8, name: &str) -> (StandardSigner, VerifierKey) {
        let public = ed25519_dalek::SigningKey::from_bytes(&[seed; 32]).verifying_key();
        let key = VerifierKey::new(name, public.as_bytes()).unwrap();
        let private = BASE64.encode(&[&[1u8][..], &[seed; 32]].concat());
        (StandardSigner::new(&format!("PRIVATE+KEY+{name}+{:08x}+{private}", key.id())).unwrap(), key)
    }

    fn note(text: &str, signers: &[&StandardSigner]) -> String {
        let mut note = Note::new(text.as_bytes(), &[]).unwrap();
        for signer in signers {
            note.add_sigs(&[*signer as &dyn signed_note::Signer]).unwrap();
        }
        String::from_utf8(note.to_bytes()).unwrap()
    }

    fn checkpoint() -> Checkpoint {
        Checkpoint { origin: ORIGIN.to_owned(), size: 42, root: Hash32([7; 32]) }
    }

    #[test]
    fn opens_what_another_implementation_signed() {
        let (signer, key) = signer(1, ORIGIN);
        assert_eq!(signer.key_id(), key.id());
        let note = note(&checkpoint().text(), &[&signer]);
        assert_eq!(Checkpoint::open(&note, &key), Ok(checkpoint()));
        assert_eq!(key.to_string().parse(), Ok(key.clone()));
        let theirs = tlog_tiles::Checkpoint::from_bytes(checkpoint().text().as_bytes());
        assert_eq!(theirs.unwrap().size(), 42);
        assert_eq!(
            signed_note::StandardVerifier::new(&key.to_string()).map(|_| ()).map_err(|e| e.to_string()),
            Ok(())
        );
    }

    #[test]
    fn every_flipped_byte_is_noticed() {
        let (signer, key) = signer(1, ORIGIN);
        let note = note(&checkpoint().text(), &[&signer]);
        for at in 0..note.len() {
            let mut bytes = note.clone().into_bytes();
            bytes[at] ^= 1;
            let Ok(text) = String::from_utf8(bytes) else { continue };
            assert!(Checkpoint::open(&text, &key).is_err(), "byte {at}");
        }
        assert!(Checkpoint::open(&note[..note.len() - 1], &key).is_err());
        assert!(Checkpoint::open(&format!("{note}\n"), &key).is_err());
    }

    #[test]
    fn strangers_and_other_logs_are_refused() {
        let (ours, key) = signer(1, ORIGIN);
        let (stranger, _) = signer(2, ORIGIN);
        let (witness, _) = signer(3, "witness.example");
        let text = checkpoint().text();
        let refused = |note: &str| Checkpoint::open(note, &key).unwrap_err();
        assert_eq!(refused(&note(&text, &[&stranger])), CheckpointError::NotSigned(ORIGIN.to_owned()));
        assert_eq!(Checkpoint::open(&note(&text, &[&witness, &ours]), &key), Ok(checkpoint()));
        let other = Checkpoint { origin: "other".to_owned(), ..checkpoint() };
        assert!(matches!(refused(&note(&other.text(), &[&ours])), CheckpointError::WrongOrigin { .. }));
        let extended = format!("{text}extension\n");
        assert!(matches!(refused(&note(&extended, &[&ours])), CheckpointError::Malformed(_)));
    }

    #[test]
    fn only_the_canonical_text_is_a_checkpoint() {
        let good = checkpoint().text();
        assert_eq!(Checkpoint::parse(&good), Ok(checkpoint()));
        for wrong in [
            good.replace("42", "042"),
            good.replace("42", "+42"),
            good.replace("42", "-1"),
            good.replace('=', ""),
            good.trim_end().to_owned(),
            format!("{good}\n"),
            good.replacen(ORIGIN, "", 1),
            String::new(),
        ] {
            assert!(Checkpoint::parse(&wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn policies_are_strict() {
        let (signer, key) = signer(1, ORIGIN);
        let policy = Policy::of_log(key.clone());
        assert_eq!(Policy::parse(&policy.text()), Ok(policy.clone()));
        assert_eq!(policy.open(&note(&checkpoint().text(), &[&signer])), Ok(checkpoint()));
        for wrong in [
            String::new(),
            format!("log {key}\n"),
            "quorum none\n".to_owned(),
            format!("log {key}\nlog {key}\nquorum none\n"),
            format!("log {key}\nquorum none\nquorum none\n"),
            format!("log {key}\nwitness w {key}\nquorum w\n"),
            format!("log x{key}\nquorum none\n"),
            format!("logs {key}\nquorum none\n"),
        ] {
            assert!(Policy::parse(&wrong).is_err(), "{wrong}");
        }
    }
}
