//! What gateways and sequencer say to each other on `cmd.<shard>`, and the leader's beat on `lease.<shard>`. Normative
//! texts: `specs/commands.cddl`, `specs/commands.md`. Must not: I/O.

use crate::pipeline::Position;
use ledger::Refusal;
use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};
use protocol::codec::{CodecError, decode, encode};
use protocol::id::Hash32;

/// The version of these messages that is spoken today.
pub const MESSAGE_VERSION: u32 = 1;
/// Commands in one message.
pub const MESSAGE_COMMANDS_MAX: usize = 2_048;
/// Bytes of one message of commands.
pub const MESSAGE_BYTES_MAX: usize = 1024 * 1024;
/// Bytes of one command; the rest of a message is its head.
pub const COMMAND_BYTES_MAX: usize = MESSAGE_BYTES_MAX - 1_024;
/// Bytes of one answer, below the server's `max_payload`: beyond it events are left out, and the asker reads the log.
pub const ANSWER_BYTES_MAX: usize = 7 * 1024 * 1024;

/// The subject of a shard's commands.
pub fn command_subject(shard: u32) -> String {
    format!("cmd.{shard}")
}

/// The subject of a shard's beats.
pub fn lease_subject(shard: u32) -> String {
    format!("lease.{shard}")
}

/// What an asker wants to know of a command that was done.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(index_only)]
pub enum Want {
    /// Where it stands.
    #[n(0)]
    Place,
    /// Its events too.
    #[n(1)]
    Events,
}

/// One command of a message.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(array)]
pub struct Asked {
    /// What to answer.
    #[n(0)]
    pub want: Want,
    /// The canonical bytes of a `ledger::Command`.
    #[n(1)]
    pub command: ByteVec,
}

/// A message on `cmd.<shard>`.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(array)]
pub struct CommandMessage {
    /// [`MESSAGE_VERSION`].
    #[n(0)]
    pub version: u32,
    /// Shard of the log.
    #[n(1)]
    pub shard: u32,
    /// The last commit that the asker knows of: a sequencer that is not so far must not answer.
    #[n(2)]
    pub known_commit: u64,
    /// At least one, in the order in which they are to be decided.
    #[n(3)]
    pub commands: Vec<Asked>,
}

/// A commit that answers refer to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(array)]
pub struct Stands {
    /// Its number.
    #[n(0)]
    pub commit: u64,
    /// Its hash.
    #[n(1)]
    pub hash: Hash32,
    /// Its time, microseconds UTC.
    #[n(2)]
    pub time_us: u64,
}

/// How far the log is, as bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(array)]
pub struct Reached {
    /// Number of the last commit.
    #[n(0)]
    pub commit: u64,
    /// Number of leaves up to and including it.
    #[n(1)]
    pub leaf: u64,
    /// Its hash.
    #[n(2)]
    pub hash: Hash32,
    /// Its time, microseconds UTC.
    #[n(3)]
    pub time_us: u64,
}

impl From<Position> for Reached {
    fn from(Position { commit, leaf, hash, time_us }: Position) -> Self {
        Self { commit, leaf, hash, time_us }
    }
}

impl From<Reached> for Position {
    fn from(Reached { commit, leaf, hash, time_us }: Reached) -> Self {
        Self { commit, leaf, hash, time_us }
    }
}

/// What became of one command.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(flat)]
pub enum Answer {
    /// It stands in the log.
    #[n(0)]
    Placed {
        /// Which of the message's [`Stands`].
        #[n(0)]
        stands: u32,
        /// Leaf of its first event.
        #[n(1)]
        first_leaf: u64,
        /// How many events.
        #[n(2)]
        count: u32,
        /// The key was used before with this very command.
        #[n(3)]
        repeated: bool,
        /// The events' bytes, when they were wanted and had room.
        #[n(4)]
        events: Option<Vec<ByteVec>>,
    },
    /// The ledger said no.
    #[n(1)]
    Refused {
        /// Number of leaves that it was decided on.
        #[n(0)]
        at_leaf: u64,
        /// Why.
        #[n(1)]
        refusal: Refusal,
    },
    /// Too much waits; nothing happened.
    #[n(2)]
    Overloaded,
    /// Not known.
    #[n(3)]
    Unknown,
    /// The writer stopped; it did not happen.
    #[n(4)]
    Stopped(#[n(0)] String),
    /// No commit could carry it; nothing happened.
    #[n(5)]
    TooLarge(#[n(0)] String),
    /// It was committed before, and its outcome could not be read back.
    #[n(6)]
    Unreadable {
        /// Where it stands.
        #[n(0)]
        commit: u64,
        /// Why.
        #[n(1)]
        reason: String,
    },
    /// Not a command that the sequencer knows; nothing happened.
    #[n(7)]
    NotUnderstood(#[n(0)] String),
}

/// Why a whole message was not taken; nothing of it happened.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(index_only)]
pub enum Fault {
    /// Not this version.
    #[n(0)]
    Version,
    /// Not this shard.
    #[n(1)]
    Shard,
    /// Not canonical CBOR of this shape, or without commands.
    #[n(2)]
    Malformed,
    /// Too many commands or bytes for one message.
    #[n(3)]
    TooLarge,
    /// Too much waits: try again in a moment.
    #[n(4)]
    Overloaded,
    /// Whoever received it does not (or no longer) lead: ask the leader.
    #[n(5)]
    NotLeading,
}

/// What comes back for a message.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(flat)]
pub enum AnswerBody {
    /// One answer per command, in order.
    #[n(0)]
    Answers {
        /// The commits that the answers name.
        #[n(0)]
        stands: Vec<Stands>,
        /// The answers.
        #[n(1)]
        answers: Vec<Answer>,
    },
    /// Nothing of it happened.
    #[n(1)]
    Fault {
        /// Why.
        #[n(0)]
        fault: Fault,
        /// For people.
        #[n(1)]
        text: String,
    },
}

/// The answer to a [`CommandMessage`].
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(array)]
pub struct AnswerMessage {
    /// [`MESSAGE_VERSION`].
    #[n(0)]
    pub version: u32,
    /// The answering writer's term: an asker that knows of a later one does not believe it.
    #[n(1)]
    pub epoch: u64,
    /// How far the log is.
    #[n(2)]
    pub reached: Reached,
    /// The answer.
    #[n(3)]
    pub body: AnswerBody,
}

/// The leader's beat on `lease.<shard>`: "I lead, and this is how far the log is".
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(array)]
pub struct Beat {
    /// [`MESSAGE_VERSION`].
    #[n(0)]
    pub version: u32,
    /// Shard of the log.
    #[n(1)]
    pub shard: u32,
    /// The leader's term.
    #[n(2)]
    pub epoch: u64,
    /// How far the log is.
    #[n(3)]
    pub reached: Reached,
    /// Beats of this term so far: the leader knows its own by it.
    #[n(4)]
    pub count: u64,
}

impl CommandMessage {
    /// Reads a message for `shard`: the first thing that is wrong with it, in the order version, form, shard, size.
    pub fn read(bytes: &[u8], shard: u32) -> Result<CommandMessage, (Fault, String)> {
        if bytes.len() > MESSAGE_BYTES_MAX {
            let text = format!("{} bytes; at most {MESSAGE_BYTES_MAX} in one message", bytes.len());
            return Err((Fault::TooLarge, text));
        }
        let version = peek_version(bytes).map_err(|e| (Fault::Malformed, e.to_string()))?;
        if version != MESSAGE_VERSION {
            let text = format!("version {version}; this sequencer speaks version {MESSAGE_VERSION}");
            return Err((Fault::Version, text));
        }
        let message: CommandMessage =
            decode("command message", bytes).map_err(|e| (Fault::Malformed, e.to_string()))?;
        if message.shard != shard {
            let text = format!("for shard {}; this is shard {shard}", message.shard);
            return Err((Fault::Shard, text));
        }
        match message.commands.len() {
            0 => Err((Fault::Malformed, "no commands".to_owned())),
            count if count > MESSAGE_COMMANDS_MAX => Err((
                Fault::TooLarge,
                format!("{count} commands; at most {MESSAGE_COMMANDS_MAX} in one message"),
            )),
            _ => Ok(message),
        }
    }

    /// Its bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        encode(self)
    }
}

impl AnswerMessage {
    /// Reads an answer to a message of `count` commands.
    pub fn read(bytes: &[u8], count: usize) -> Result<AnswerMessage, CodecError> {
        let malformed = |reason: String| CodecError::Malformed { what: "answer message", reason };
        let version = peek_version(bytes).map_err(|e| malformed(e.to_string()))?;
        if version != MESSAGE_VERSION {
            return Err(malformed(format!(
                "version {version}, this gateway speaks version {MESSAGE_VERSION}"
            )));
        }
        let message: AnswerMessage = decode("answer message", bytes)?;
        if let AnswerBody::Answers { stands, answers } = &message.body {
            if answers.len() != count {
                return Err(malformed(format!("{} answers for {count} commands", answers.len())));
            }
            let outside = |answer: &&Answer| matches!(answer, Answer::Placed { stands: at, .. } if *at as usize >= stands.len());
            if answers.iter().any(|answer| outside(&answer)) {
                return Err(malformed("an answer names a commit that is not in the list".to_owned()));
            }
        }
        Ok(message)
    }

    /// Its bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        encode(self)
    }
}

impl Beat {
    /// Reads a beat of `shard`; anything else is none.
    pub fn read(bytes: &[u8], shard: u32) -> Option<Beat> {
        let beat: Beat = decode("beat", bytes).ok()?;
        (beat.version == MESSAGE_VERSION && beat.shard == shard).then_some(beat)
    }

    /// Its bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        encode(self)
    }
}

fn peek_version(bytes: &[u8]) -> Result<u32, minicbor::decode::Error> {
    let mut decoder = minicbor::Decoder::new(bytes);
    decoder.array()?;
    decoder.u32()
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::amount::Amount;
    use protocol::asset::AssetId;

    fn message(commands: usize) -> CommandMessage {
        let asked =
            |k: usize| Asked { want: [Want::Place, Want::Events][k % 2], command: vec![k as u8; 3].into() };
        CommandMessage {
            version: 1,
            shard: 0,
            known_commit: 77,
            commands: (0..commands).map(asked).collect(),
        }
    }

    fn reached() -> Reached {
        Reached { commit: 300, leaf: 70_000, hash: Hash32([1; 32]), time_us: 1_700_000_000_000_000 }
    }

    fn answers() -> Vec<Answer> {
        let refusal =
            Refusal::InsufficientCredit { needed: Amount(5), available: Amount(3), asset: AssetId(0) };
        vec![
            Answer::Placed { stands: 0, first_leaf: 69_998, count: 2, repeated: false, events: None },
            Answer::Placed {
                stands: 1,
                first_leaf: 5,
                count: 1,
                repeated: true,
                events: Some(vec![vec![9].into()]),
            },
            Answer::Refused { at_leaf: 70_000, refusal },
            Answer::Overloaded,
            Answer::Unknown,
            Answer::Stopped("shut down".into()),
            Answer::TooLarge("too many events".into()),
            Answer::Unreadable { commit: 3, reason: "gone".into() },
            Answer::NotUnderstood("not a command".into()),
        ]
    }

    fn answer(body: AnswerBody) -> AnswerMessage {
        AnswerMessage { version: 1, epoch: 4, reached: reached(), body }
    }

    /// `UPDATE_GOLDEN=1` writes the file; version 1 never changes.
    #[test]
    fn golden_messages() {
        let stands = [300, 2].map(|commit| Stands { commit, hash: Hash32([2; 32]), time_us: 5 }).to_vec();
        let fault = AnswerBody::Fault { fault: Fault::NotLeading, text: "stopped".into() };
        let all = [
            ("command-message", message(3).to_bytes()),
            ("answer-message", answer(AnswerBody::Answers { stands, answers: answers() }).to_bytes()),
            ("answer-message", answer(fault).to_bytes()),
            ("beat", Beat { version: 1, shard: 0, epoch: 4, reached: reached(), count: 9 }.to_bytes()),
        ];
        let hex = data_encoding::HEXLOWER;
        let lines: String =
            all.iter().map(|(kind, bytes)| format!("{kind} {}\n", hex.encode(bytes))).collect();
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/golden/commands_v1.hex");
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(path, &lines).unwrap();
        }
        assert_eq!(lines, std::fs::read_to_string(path).unwrap(), "the bytes of version 1 are frozen");
        assert_eq!(CommandMessage::read(&all[0].1, 0).unwrap(), message(3));
        assert_eq!(AnswerMessage::read(&all[1].1, 9).unwrap().to_bytes(), all[1].1);
        assert_eq!(Beat::read(&all[3].1, 0).unwrap().reached, reached());
    }

    #[test]
    fn what_is_wrong_with_a_message_is_named() {
        let fault = |bytes: &[u8]| CommandMessage::read(bytes, 0).unwrap_err().0;
        assert_eq!(fault(&vec![0; MESSAGE_BYTES_MAX + 1]), Fault::TooLarge);
        assert_eq!(fault(b"hello"), Fault::Malformed);
        assert_eq!(fault(&CommandMessage { version: 2, ..message(1) }.to_bytes()), Fault::Version);
        assert_eq!(fault(&CommandMessage { shard: 1, ..message(1) }.to_bytes()), Fault::Shard);
        assert_eq!(fault(&message(0).to_bytes()), Fault::Malformed);
        assert_eq!(fault(&message(MESSAGE_COMMANDS_MAX + 1).to_bytes()), Fault::TooLarge);
        let mut trailing = message(1).to_bytes();
        trailing.push(0);
        assert_eq!(fault(&trailing), Fault::Malformed);
        // The same value in a longer form: 24 as two bytes where one is enough.
        let mut longer = message(1).to_bytes();
        longer.splice(1..2, [0x18, 0x01]);
        assert_eq!(fault(&longer), Fault::Malformed);
        assert!(Beat::read(&message(1).to_bytes(), 0).is_none());
    }

    #[test]
    fn an_answer_must_fit_its_question() {
        let body = |stands| AnswerBody::Answers { stands, answers: vec![answers().remove(0)] };
        let stands = vec![Stands { commit: 1, hash: Hash32([0; 32]), time_us: 1 }];
        assert!(AnswerMessage::read(&answer(body(stands.clone())).to_bytes(), 1).is_ok());
        assert!(AnswerMessage::read(&answer(body(stands)).to_bytes(), 2).is_err(), "one too few");
        assert!(
            AnswerMessage::read(&answer(body(Vec::new())).to_bytes(), 1).is_err(),
            "a commit that is not named"
        );
    }
}
