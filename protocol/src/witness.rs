//! Witnesses of a log: their keys, their cosignatures on checkpoints (c2sp.org/tlog-cosignature, version 1), and how many of
//! whom an auditor wants (the quorum of c2sp.org/tlog-policy). The reader's side; who cosigns is the journal's.

use crate::checkpoint::{CheckpointError, is_key_name, split_note};
use data_encoding::BASE64;
use ed25519_dalek::{Signature, VerifyingKey};
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;

/// Signature type of an Ed25519 witness key.
const ALGORITHM_COSIGNATURE: u8 = 0x04;
/// Most witnesses and groups of a policy.
pub const MEMBERS_MAX: usize = 100;

/// A witness's public key: `name+hash+base64(0x04 || key)`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WitnessKey {
    name: String,
    key: VerifyingKey,
}

impl WitnessKey {
    /// A key under a name, which is a URL without scheme. Refuses names with spaces or `+`, and bytes that are no key.
    pub fn new(name: &str, key: &[u8; 32]) -> Result<WitnessKey, CheckpointError> {
        let wrong = || CheckpointError::Key(name.to_owned());
        let key = VerifyingKey::from_bytes(key).map_err(|_| wrong())?;
        if !is_key_name(name) || name.contains(|c: char| c.is_control()) || key.is_weak() {
            return Err(wrong());
        }
        Ok(WitnessKey { name: name.to_owned(), key })
    }

    /// Its name.
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

    /// The second at which it cosigned a note; `None` when it did not. A cosignature that is wrong is an error.
    pub fn cosigned(&self, note: &str) -> Result<Option<u64>, CheckpointError> {
        let (text, signatures) = split_note(note)?;
        for (name, blob) in signatures {
            let Some((id, rest)) = blob.split_first_chunk::<4>() else { continue };
            if name != self.name || u32::from_be_bytes(*id) != self.id() {
                continue;
            }
            let bad = || CheckpointError::BadSignature(self.name.clone());
            let (time, signature) = rest.split_first_chunk::<8>().ok_or_else(bad)?;
            let time_s = u64::from_be_bytes(*time);
            let signature = Signature::from_slice(signature).map_err(|_| bad())?;
            self.key.verify_strict(&cosigned_bytes(time_s, text), &signature).map_err(|_| bad())?;
            return Ok(Some(time_s));
        }
        Ok(None)
    }

    fn typed(&self) -> [u8; 33] {
        let mut typed = [ALGORITHM_COSIGNATURE; 33];
        typed[1..].copy_from_slice(self.key.as_bytes());
        typed
    }
}

/// What a witness signs: a header, the second, and the checkpoint's three lines.
pub fn cosigned_bytes(time_s: u64, checkpoint: &str) -> Vec<u8> {
    format!("cosignature/v1\ntime {time_s}\n{checkpoint}").into_bytes()
}

/// A cosignature's line, ended: `— name base64(id || time || signature)`.
pub fn cosignature_line(key: &WitnessKey, time_s: u64, signature: &[u8; 64]) -> String {
    let blob = [&key.id().to_be_bytes()[..], &time_s.to_be_bytes(), signature].concat();
    format!("\u{2014} {} {}\n", key.name(), BASE64.encode(&blob))
}

impl std::fmt::Display for WitnessKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}+{:08x}+{}", self.name, self.id(), BASE64.encode(&self.typed()))
    }
}

impl std::str::FromStr for WitnessKey {
    type Err = CheckpointError;
    fn from_str(text: &str) -> Result<WitnessKey, CheckpointError> {
        let wrong = || CheckpointError::Key(text.chars().take(200).collect());
        let mut parts = text.splitn(3, '+');
        let name = parts.next().ok_or_else(wrong)?;
        let base64 = parts.nth(1).ok_or_else(wrong)?;
        let typed = BASE64.decode(base64.as_bytes()).map_err(|_| wrong())?;
        let Some((&ALGORITHM_COSIGNATURE, key)) = typed.split_first() else { return Err(wrong()) };
        let key = WitnessKey::new(name, key.try_into().map_err(|_| wrong())?)?;
        if key.to_string() == text { Ok(key) } else { Err(wrong()) }
    }
}

/// One line of a policy: a witness, or a group of those above it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Member {
    /// Somebody who cosigns.
    Witness {
        /// The policy's own name for it.
        name: String,
        /// Its key.
        key: Box<WitnessKey>,
        /// Where it is asked, without `/add-checkpoint`.
        url: Option<String>,
    },
    /// At least so many of some.
    Group {
        /// The policy's own name for it.
        name: String,
        /// How many.
        threshold: usize,
        /// Of whom: places in the policy's list.
        of: Vec<usize>,
    },
}

impl Member {
    fn name(&self) -> &str {
        match self {
            Member::Witness { name, .. } | Member::Group { name, .. } => name,
        }
    }
}

/// Who must have cosigned.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Quorum {
    members: Vec<Member>,
    /// The member that must hold; `None` asks for nobody.
    wanted: Option<usize>,
}

impl Quorum {
    /// Whether anybody is asked for.
    pub fn is_none(&self) -> bool {
        self.wanted.is_none()
    }

    /// The witnesses, in the order of the policy.
    pub fn witnesses(&self) -> impl Iterator<Item = (&WitnessKey, Option<&str>)> {
        self.members.iter().filter_map(|member| match member {
            Member::Witness { key, url, .. } => Some((&**key, url.as_deref())),
            Member::Group { .. } => None,
        })
    }

    /// Takes in one line of a policy, already in words; the text is why it is refused.
    pub(crate) fn take(&mut self, words: &[&str]) -> Result<(), String> {
        match *words {
            ["witness", name, key] => self.witness(name, key, None),
            ["witness", name, key, url] => self.witness(name, key, Some(url)),
            ["group", name, threshold, ref of @ ..] if !of.is_empty() => self.group(name, threshold, of),
            ["quorum", name] => {
                self.wanted = Some(self.find(name).ok_or("the quorum is no witness or group above")?);
                Ok(())
            }
            _ => Err("expected `witness <name> <key> [url]`, `group <name> <k|any|all> <name>...` or `quorum <name>`"
                .to_owned()),
        }
    }

    fn witness(&mut self, name: &str, key: &str, url: Option<&str>) -> Result<(), String> {
        let key: WitnessKey = key.parse().map_err(|e: CheckpointError| e.to_string())?;
        if self.witnesses().any(|(other, _)| other.key == key.key) {
            return Err("this witness key stands there twice".to_owned());
        }
        let (name, url) = (name.to_owned(), url.map(str::to_owned));
        self.add(Member::Witness { name, key: Box::new(key), url })
    }

    fn group(&mut self, name: &str, threshold: &str, of: &[&str]) -> Result<(), String> {
        let mut members = Vec::new();
        for one in of {
            let at = self.find(one).ok_or_else(|| format!("{one} is no witness or group above"))?;
            if members.contains(&at) {
                return Err(format!("{one} is twice in a group"));
            }
            members.push(at);
        }
        let threshold = match threshold {
            "any" => 1,
            "all" => members.len(),
            number => number.parse().map_err(|_| "expected a number, `any` or `all`".to_owned())?,
        };
        if threshold == 0 || threshold > members.len() {
            return Err(format!("{threshold} of {} can never be, or means nothing", members.len()));
        }
        self.add(Member::Group { name: name.to_owned(), threshold, of: members })
    }

    fn add(&mut self, member: Member) -> Result<(), String> {
        if member.name() == "none" || self.find(member.name()).is_some() {
            return Err(format!("the name {} stands there twice, or is `none`", member.name()));
        }
        if self.members.len() == MEMBERS_MAX {
            return Err(format!("more than {MEMBERS_MAX} witnesses and groups"));
        }
        self.members.push(member);
        Ok(())
    }

    fn find(&self, name: &str) -> Option<usize> {
        self.members.iter().position(|member| member.name() == name)
    }

    /// The names of the witnesses that cosigned a note, or why they are not enough. A cosignature by a key of the policy
    /// that does not verify is an error, whoever else signed.
    pub fn check(&self, note: &str) -> Result<Vec<String>, CheckpointError> {
        let mut signed = BTreeSet::new();
        let mut names = Vec::new();
        for (at, member) in self.members.iter().enumerate() {
            if let Member::Witness { key, .. } = member
                && key.cosigned(note)?.is_some()
            {
                signed.insert(at);
                names.push(key.name().to_owned());
            }
        }
        match self.wanted {
            Some(wanted) if !self.holds(wanted, &signed) => {
                let wanted = self.members[wanted].name().to_owned();
                let of = self.witnesses().count();
                Err(CheckpointError::Quorum { wanted, signed: names.len(), of })
            }
            _ => Ok(names),
        }
    }

    /// Groups are made of members above them, so this ends.
    fn holds(&self, at: usize, signed: &BTreeSet<usize>) -> bool {
        match &self.members[at] {
            Member::Witness { .. } => signed.contains(&at),
            Member::Group { threshold, of, .. } => {
                of.iter().filter(|member| self.holds(**member, signed)).count() >= *threshold
            }
        }
    }

    /// The policy's lines.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for member in &self.members {
            match member {
                Member::Witness { name, key, url } => {
                    let url = url.as_ref().map_or_else(String::new, |url| format!(" {url}"));
                    text.push_str(&format!("witness {name} {key}{url}\n"));
                }
                Member::Group { name, threshold, of } => {
                    let of: Vec<&str> = of.iter().map(|at| self.members[*at].name()).collect();
                    text.push_str(&format!("group {name} {threshold} {}\n", of.join(" ")));
                }
            }
        }
        let wanted = self.wanted.map_or("none", |at| self.members[at].name());
        text.push_str(&format!("quorum {wanted}\n"));
        text
    }
}

#[cfg(test)]
mod tests;
