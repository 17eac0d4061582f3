//! A plain job as a snapshot has it: one attempt, at most one charge, two slices, all in places of their own, because item
//! by item millions of jobs would be most of a snapshot's time. Must not: know other jobs (they are CBOR arrays).

use super::row::{Attempts, Charges, Held, Job, JobState, Only};
use crate::accounts::AccountNo;
use crate::nodes::OperatorNo;
use protocol::asset::AssetId;
use protocol::event::GrantId;
use protocol::id::{Hash32, HoldId, JobId, NodeId};

/// Bytes of a plain job.
pub(super) const PLAIN_BYTES: usize = 265;

struct Writer {
    bytes: [u8; PLAIN_BYTES],
    at: usize,
}

impl Writer {
    #[inline(always)]
    fn put<const N: usize>(&mut self, bytes: [u8; N]) {
        self.bytes[self.at..self.at + N].copy_from_slice(&bytes);
        self.at += N;
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
}

impl Reader<'_> {
    #[inline(always)]
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.bytes.split_first_chunk()?;
        self.bytes = rest;
        Some(*first)
    }

    fn number(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    fn small(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    fn flag(&mut self) -> Option<bool> {
        match self.take()? {
            [0] => Some(false),
            [1] => Some(true),
            _ => None,
        }
    }
}

const NOTHING: Only = Only {
    attempt: 0,
    input_units: 0,
    output_units: 0,
    cost: 0,
    operator_share: 0,
    receipt: Hash32([0; 32]),
    leaf: 0,
};

/// The bytes of a job, if it is a plain one.
pub(super) fn write(job: &Job) -> Option<[u8; PLAIN_BYTES]> {
    let Held::Few { count, grants, amounts } = &job.slices else { return None };
    let Attempts::One { node, operator, body, dispatched_us } = &job.attempts else { return None };
    let (charged, only) = match &job.charges {
        Charges::None => (0, &NOTHING),
        Charges::One(only) => (1, only),
        Charges::Many(_) => return None,
    };
    let state = match job.state {
        JobState::Running => 0,
        JobState::Captured => 1,
        JobState::Expired => 2,
        JobState::Voided(_) => return None,
    };
    if job.spender.is_some() {
        return None;
    }
    let mut to = Writer { bytes: [0; PLAIN_BYTES], at: 0 };
    to.put([state, charged, *count, job.reversed.into(), job.overdue.into()]);
    to.put(job.id.0);
    to.put(job.hold.0);
    for small in [job.account.0, job.asset.0, grants[0].0, grants[1].0, job.rate_card_version, job.model] {
        to.put(small.to_le_bytes());
    }
    for small in [operator.0, only.attempt, only.input_units, only.output_units, job.queued] {
        to.put(small.to_le_bytes());
    }
    for number in [amounts[0], amounts[1], job.input_units, job.output_units_max, job.deadline_us, job.due_us]
    {
        to.put(number.to_le_bytes());
    }
    for number in [job.placed_leaf, *dispatched_us, only.cost, only.operator_share, only.leaf] {
        to.put(number.to_le_bytes());
    }
    to.put(job.ended_leaf.to_le_bytes());
    to.put(job.ended_us.to_le_bytes());
    to.put(node.0);
    to.put(body.0);
    to.put(only.receipt.0);
    Some(to.bytes)
}

/// Reads [`write`]'s bytes; `None` for others. Whether they are exactly those the job would write, the caller compares.
pub(super) fn read(bytes: &[u8; PLAIN_BYTES]) -> Option<Job> {
    let mut from = Reader { bytes };
    let [state, charged, count] = from.take()?;
    let (reversed, overdue) = (from.flag()?, from.flag()?);
    let (id, hold) = (JobId(from.take()?), HoldId(from.take()?));
    let (account, asset) = (AccountNo(from.small()?), AssetId(from.small()?));
    let grants = [GrantId(from.small()?), GrantId(from.small()?)];
    let (rate_card_version, model) = (from.small()?, from.small()?);
    let (operator, attempt) = (OperatorNo(from.small()?), from.small()?);
    let (charged_input, charged_output, queued) = (from.small()?, from.small()?, from.small()?);
    let amounts = [from.number()?, from.number()?];
    let (input_units, output_units_max) = (from.number()?, from.number()?);
    let (deadline_us, due_us) = (from.number()?, from.number()?);
    let (placed_leaf, dispatched_us) = (from.number()?, from.number()?);
    let (cost, operator_share, leaf) = (from.number()?, from.number()?, from.number()?);
    let (ended_leaf, ended_us) = (from.number()?, from.number()?);
    let (node, body, receipt) = (NodeId(from.take()?), Hash32(from.take()?), Hash32(from.take()?));
    let (input, output) = (charged_input, charged_output);
    let only =
        Only { attempt, input_units: input, output_units: output, cost, operator_share, receipt, leaf };
    let charges = match charged {
        0 => Charges::None,
        1 => Charges::One(only),
        _ => return None,
    };
    let state = match state {
        0 => JobState::Running,
        1 => JobState::Captured,
        2 => JobState::Expired,
        _ => return None,
    };
    if usize::from(count) > grants.len() || (charged == 1 && attempt != 0) {
        return None;
    }
    Some(Job {
        id,
        hold,
        account,
        asset,
        slices: Held::Few { count, grants, amounts },
        rate_card_version,
        model,
        input_units,
        output_units_max,
        deadline_us,
        due_us,
        placed_leaf,
        attempts: Attempts::One { node, operator, body, dispatched_us },
        state,
        spender: None,
        charges,
        reversed,
        queued,
        overdue,
        ended_leaf,
        ended_us,
        place: 0,
    })
}
