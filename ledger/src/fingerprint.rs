//! Fingerprints of commands: 64 bits of the canonical body, which tell two commands under one key apart and nothing else.
//! Whoever makes two bodies with one fingerprint gets the first one's outcome for his own second one. Kept in headers, so
//! never changed. Must not: know what a command does.

use crate::command::{Admit, Capture, CommandBody, MoveCredit};
use protocol::codec;
use protocol::event::job::Outcome;

/// Of a command's body.
pub(crate) fn fingerprint(body: &CommandBody) -> u64 {
    let mut small = Small { bytes: [0; SMALL_BODY_BYTES], len: 0 };
    let frequent = match body {
        CommandBody::MoveCredit(command) => small.move_credit(command),
        CommandBody::Admit(command) => small.admit(command),
        CommandBody::Capture(command) => small.capture(command),
        _ => None,
    };
    if frequent.is_some() {
        return mix(&small.bytes[..small.len]);
    }
    small.len = 0;
    match minicbor::encode(body, &mut small) {
        Ok(()) => mix(&small.bytes[..small.len]),
        // Long lists: rare, and never on a hot path.
        Err(_) => mix(&codec::encode(body)),
    }
}

/// Word by word, each multiplied with what came before; the length last.
fn mix(bytes: &[u8]) -> u64 {
    let fold = |a: u64, b: u64| {
        let product = u128::from(a ^ 0x9e37_79b9_7f4a_7c15) * u128::from(b ^ 0xd1b5_4a32_d192_ed03);
        product as u64 ^ (product >> 64) as u64
    };
    let (words, rest) = bytes.as_chunks::<8>();
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    let words = words.iter().map(|word| u64::from_le_bytes(*word));
    let state = words.fold(0x2545_f491_4f6c_dd1d, |state: u64, word| fold(state.rotate_left(23), word));
    fold(fold(state.rotate_left(23), u64::from_le_bytes(last)), bytes.len() as u64 ^ state)
}

/// Bodies up to this size are hashed without an allocation.
const SMALL_BODY_BYTES: usize = 384;
/// Longest model name that is written without a look at the room left: names that are published are no longer.
const MODEL_BYTES_MAX: usize = 128;

const UNSIGNED: u8 = 0;
const BYTES: u8 = 2;
const TEXT: u8 = 3;
const ARRAY: u8 = 4;

/// The bytes of a small body. Three kinds of commands are nearly all commands; theirs are written here, without a branch
/// for each number's size. A test compares them with the general way.
struct Small {
    bytes: [u8; SMALL_BODY_BYTES],
    len: usize,
}

impl Small {
    /// The head of an item in its shortest form.
    #[inline(always)]
    fn head(&mut self, major: u8, value: u64) {
        let bits = 64 - value.leading_zeros();
        let class =
            usize::from(value > 23) + usize::from(bits > 8) + usize::from(bits > 16) + usize::from(bits > 32);
        let size = [0, 1, 2, 4, 8][class];
        let short = if class == 0 { value as u8 } else { 23 + class as u8 };
        let word = value.checked_shl(64 - 8 * size as u32).unwrap_or(0);
        let place = &mut self.bytes[self.len..self.len + 9];
        place[0] = major << 5 | short;
        place[1..].copy_from_slice(&word.to_be_bytes());
        self.len += 1 + size;
    }

    #[inline(always)]
    fn fixed<const N: usize>(&mut self, bytes: &[u8; N]) {
        self.head(BYTES, N as u64);
        self.bytes[self.len..self.len + N].copy_from_slice(bytes);
        self.len += N;
    }

    #[inline(always)]
    fn body(&mut self, number: u64, fields: u64) {
        self.head(ARRAY, 2);
        self.head(UNSIGNED, number);
        self.head(ARRAY, fields);
    }

    #[inline(always)]
    fn move_credit(&mut self, command: &MoveCredit) -> Option<()> {
        self.body(31, 3);
        self.head(UNSIGNED, command.from.0.into());
        self.head(UNSIGNED, command.to.0.into());
        self.head(UNSIGNED, command.amount.0.try_into().ok()?);
        Some(())
    }

    #[inline(always)]
    fn admit(&mut self, command: &Admit) -> Option<()> {
        if command.model.len() > MODEL_BYTES_MAX || command.spender.is_some() {
            return None;
        }
        self.body(40, 9);
        self.fixed(&command.hold.0);
        self.fixed(&command.job.0);
        self.fixed(&command.account.0);
        self.head(TEXT, command.model.len() as u64);
        self.bytes[self.len..self.len + command.model.len()].copy_from_slice(command.model.as_bytes());
        self.len += command.model.len();
        self.head(UNSIGNED, command.input_units);
        self.head(UNSIGNED, command.output_units_max);
        self.head(UNSIGNED, command.deadline_us);
        self.fixed(&command.node.0);
        self.fixed(&command.body.0);
        Some(())
    }

    #[inline(always)]
    fn capture(&mut self, command: &Capture) -> Option<()> {
        if command.part.is_some() {
            return None;
        }
        self.body(42, 8);
        self.fixed(&command.job.0);
        self.head(UNSIGNED, command.attempt.into());
        self.head(
            UNSIGNED,
            match command.outcome {
                Outcome::Completed => 0,
                Outcome::ClientGone => 1,
            },
        );
        self.head(UNSIGNED, command.input_units);
        self.head(UNSIGNED, command.output_units_worker);
        self.head(UNSIGNED, command.output_units_gateway);
        self.fixed(&command.receipt.0);
        self.fixed(&command.chain_head.0);
        Some(())
    }
}

impl minicbor::encode::Write for &mut Small {
    type Error = ();

    #[inline(always)]
    fn write_all(&mut self, bytes: &[u8]) -> Result<(), ()> {
        let end = self.len + bytes.len();
        self.bytes.get_mut(self.len..end).ok_or(())?.copy_from_slice(bytes);
        self.len = end;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use protocol::amount::Amount;
    use protocol::event::GrantId;
    use protocol::event::job::CapturePart;
    use protocol::id::{AccountId, Hash32, HoldId, JobId, NodeId, SpenderId};
    use std::collections::BTreeSet;

    /// Headers keep fingerprints: another value for the same body would refuse honest copies of old commands.
    #[test]
    fn fingerprints_stay_what_they_are_and_differ() {
        assert_eq!(mix(b""), MIX_OF_NOTHING);
        assert_eq!(mix(b"one fingerprint for ever"), MIX_OF_TEXT);
        let mut seen = BTreeSet::new();
        for length in 0..64 {
            for at in 0..=length {
                let mut bytes = vec![0u8; length];
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = 1;
                }
                seen.insert(mix(&bytes));
            }
        }
        assert_eq!(seen.len(), (0..64).map(|length| length + 1).sum::<usize>());
    }

    const MIX_OF_NOTHING: u64 = 0xfb22_68a4_0e70_0543;
    const MIX_OF_TEXT: u64 = 0xca97_3605_06a8_de5c;

    /// Numbers of every size.
    fn number() -> impl Strategy<Value = u64> {
        (any::<u64>(), 0u32..64).prop_map(|(bits, shift)| bits >> shift)
    }

    fn admit() -> impl Strategy<Value = CommandBody> {
        let ids = (any::<[u8; 16]>(), any::<[u8; 32]>(), prop::option::of(any::<[u8; 16]>()));
        let model = prop::collection::vec(any::<char>(), 0..80).prop_map(String::from_iter);
        (ids, model, number(), number(), number()).prop_map(|(ids, model, input, output, deadline_us)| {
            CommandBody::Admit(Admit {
                hold: HoldId(ids.0),
                job: JobId([ids.0[0]; 16]),
                account: AccountId([ids.0[1]; 16]),
                model,
                input_units: input,
                output_units_max: output,
                deadline_us,
                node: NodeId([ids.0[2]; 16]),
                body: Hash32(ids.1),
                spender: ids.2.map(SpenderId),
            })
        })
    }

    fn capture() -> impl Strategy<Value = CommandBody> {
        let part = prop::option::of((any::<u32>(), any::<bool>()));
        let units = (number(), number(), number(), any::<u32>());
        (any::<[u8; 16]>(), any::<[u8; 32]>(), units, any::<bool>(), part).prop_map(
            |(job, hash, units, gone, part)| {
                CommandBody::Capture(Capture {
                    job: JobId(job),
                    attempt: units.3,
                    outcome: if gone { Outcome::ClientGone } else { Outcome::Completed },
                    input_units: units.0,
                    output_units_worker: units.1,
                    output_units_gateway: units.2,
                    receipt: Hash32(hash),
                    chain_head: Hash32([hash[0]; 32]),
                    part: part.map(|(number, open)| CapturePart { number, open }),
                })
            },
        )
    }

    fn move_credit() -> impl Strategy<Value = CommandBody> {
        (any::<i128>(), 0u32..128, number(), number()).prop_map(|(bits, shift, from, to)| {
            let (from, to) = (GrantId(from as u32), GrantId(to as u32));
            CommandBody::MoveCredit(MoveCredit { from, to, amount: Amount(bits >> shift) })
        })
    }

    proptest! {
        /// What is written by hand is the canonical body.
        #[test]
        fn the_short_way_is_the_general_way(body in prop_oneof![move_credit(), admit(), capture()]) {
            prop_assert_eq!(fingerprint(&body), mix(&codec::encode(&body)));
        }
    }
}
