//! Checkpoints as an auditor keeps them: with the note they were read from. Parsing and keys are `protocol`'s.

use protocol::checkpoint::{Checkpoint, CheckpointError, NOTE_BYTES_MAX, Policy, VerifierKey};

/// A checkpoint and the whole signed note.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SignedCheckpoint {
    /// What is signed.
    pub checkpoint: Checkpoint,
    /// The note, signatures and all.
    pub note: String,
}

impl SignedCheckpoint {
    /// Reads a note without asking who signed it.
    pub fn parse(bytes: &[u8]) -> Result<SignedCheckpoint, CheckpointError> {
        let malformed = CheckpointError::Malformed;
        if bytes.len() > NOTE_BYTES_MAX {
            return Err(malformed("larger than any checkpoint"));
        }
        let note = std::str::from_utf8(bytes).map_err(|_| malformed("not UTF-8"))?;
        let end = note.rfind("\n\n").ok_or(malformed("no blank line"))?;
        let checkpoint = Checkpoint::parse(&note[..=end])?;
        Ok(SignedCheckpoint { checkpoint, note: note.to_owned() })
    }

    /// Whether a log of the policy signed it. Who witnessed it is another question: an older head that the log signed is
    /// evidence against it, witnessed or not.
    pub fn check(&self, policy: &Policy) -> Result<(), CheckpointError> {
        policy.open_log(&self.note).map(|_| ())
    }
}

/// Reads a tlog-policy file, or a file that holds nothing but a verifier key.
pub fn parse_policy(text: &str) -> Result<Policy, CheckpointError> {
    match text.trim().parse::<VerifierKey>() {
        Ok(key) => Ok(Policy::of_log(key)),
        Err(_) => Policy::parse(text),
    }
}
