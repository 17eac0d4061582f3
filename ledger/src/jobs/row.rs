//! The row of one job, 304 bytes, because there are many: a finished one stays for a day. What nearly every job has once
//! (an attempt, a charge, one or two slices) lies in place; what a few have more of lies aside. Must not: rules.

use crate::accounts::AccountNo;
use crate::nodes::OperatorNo;
use crate::slab::definite;
use crate::spend_caps::CapKey;
use minicbor::decode::Error as DecodeError;
use minicbor::encode::{Error as EncodeError, Write};
use minicbor::{Decode, Decoder, Encode, Encoder};
use protocol::amount::Amount;
use protocol::asset::AssetId;
use protocol::event::GrantId;
use protocol::event::hold::{Slice, Slices, VoidReason};
use protocol::event::job::UsageCaptured;
use protocol::id::{Hash32, HoldId, JobId, NodeId, OperatorId, SpenderId};

/// One job with its hold.
#[derive(Clone, Debug, Encode, Decode)]
#[cbor(array)]
pub(crate) struct Job {
    #[n(0)]
    pub(crate) id: JobId,
    #[n(1)]
    pub(crate) hold: HoldId,
    #[n(2)]
    pub(crate) account: AccountNo,
    #[n(3)]
    pub(crate) asset: AssetId,
    /// Of the hold and its extensions, in the order they were taken.
    #[n(4)]
    pub(crate) slices: Held,
    #[n(5)]
    pub(crate) rate_card_version: u32,
    /// The model's place on the card.
    #[n(6)]
    pub(crate) model: u32,
    #[n(7)]
    pub(crate) input_units: u64,
    #[n(8)]
    pub(crate) output_units_max: u64,
    #[n(9)]
    pub(crate) deadline_us: u64,
    /// Deadline plus grace: when the hold's timer fires.
    #[n(10)]
    pub(crate) due_us: u64,
    #[n(11)]
    pub(crate) placed_leaf: u64,
    #[n(12)]
    pub(crate) attempts: Attempts,
    #[n(13)]
    pub(crate) state: JobState,
    /// The key it counts for; `None` when the key had no cap at admission.
    #[n(14)]
    pub(crate) spender: Option<Box<SpenderId>>,
    /// Its charges, in their order.
    #[n(15)]
    pub(super) charges: Charges,
    /// Whether the charges were undone.
    #[n(16)]
    pub(crate) reversed: bool,
    /// Charges of it that wait in wallets' queues.
    #[n(17)]
    pub(crate) queued: u32,
    /// Its retention is over; it stays for its queued charges only.
    #[n(18)]
    pub(crate) overdue: bool,
    /// Leaf of the event that ended it.
    #[n(19)]
    pub(crate) ended_leaf: u64,
    /// Time of that event.
    #[n(20)]
    pub(crate) ended_us: u64,
    /// Its place in the timers' slot while it runs.
    #[cbor(skip)]
    pub(crate) place: u32,
}

const _: () = assert!(std::mem::size_of::<Job>() <= 304);

/// A job as it is admitted.
pub(crate) struct NewJob {
    pub(crate) id: JobId,
    pub(crate) hold: HoldId,
    pub(crate) account: AccountNo,
    pub(crate) asset: AssetId,
    pub(crate) rate_card_version: u32,
    pub(crate) model: u32,
    pub(crate) input_units: u64,
    pub(crate) output_units_max: u64,
    pub(crate) deadline_us: u64,
    pub(crate) due_us: u64,
    pub(crate) placed_leaf: u64,
    pub(crate) spender: Option<SpenderId>,
}

impl Job {
    #[inline]
    pub(crate) fn new(new: NewJob, slices: &[Slice]) -> Job {
        Job {
            id: new.id,
            hold: new.hold,
            account: new.account,
            asset: new.asset,
            slices: Held::new(slices),
            rate_card_version: new.rate_card_version,
            model: new.model,
            input_units: new.input_units,
            output_units_max: new.output_units_max,
            deadline_us: new.deadline_us,
            due_us: new.due_us,
            placed_leaf: new.placed_leaf,
            attempts: Attempts::None,
            state: JobState::Running,
            spender: new.spender.map(Box::new),
            charges: Charges::None,
            reversed: false,
            queued: 0,
            overdue: false,
            ended_leaf: 0,
            ended_us: 0,
            place: 0,
        }
    }

    /// Everything ever held for it: the price of input and output bound.
    #[inline]
    pub(crate) fn amount(&self) -> Amount {
        Amount(self.slices.iter().map(|slice| slice.amount.0).sum())
    }

    /// Adds a charge. Its slices are the next of the hold, and what is beyond it.
    #[inline]
    pub(crate) fn charge(&mut self, event: &UsageCaptured, leaf: u64) {
        if matches!(self.charges, Charges::None)
            && let Some(only) = Only::of(event, leaf)
        {
            self.charges = Charges::One(only);
        } else {
            let mut parts = self.parts();
            parts.push(Part::of(event, leaf));
            self.charges = Charges::Many(parts.into());
        }
    }

    /// Its charges, in their order.
    pub(crate) fn parts(&self) -> Vec<Part> {
        match &self.charges {
            Charges::None => Vec::new(),
            Charges::One(only) => vec![only.part(self)],
            Charges::Many(many) => many.to_vec(),
        }
    }

    /// How many charges it has.
    #[inline]
    pub(crate) fn part_count(&self) -> usize {
        match &self.charges {
            Charges::None => 0,
            Charges::One(_) => 1,
            Charges::Many(many) => many.len(),
        }
    }

    #[inline]
    fn sum<T: std::iter::Sum>(&self, of_one: impl Fn(&Only) -> T, of_part: impl Fn(&Part) -> T) -> T {
        match &self.charges {
            Charges::None => std::iter::empty().sum(),
            Charges::One(only) => std::iter::once(of_one(only)).sum(),
            Charges::Many(many) => many.iter().map(of_part).sum(),
        }
    }

    /// What the charges so far took of the hold.
    #[inline]
    pub(crate) fn consumed(&self) -> i128 {
        self.sum(|only| i128::from(only.cost), |part| part.cost.0 - part.beyond.0)
    }

    /// What the charges so far cost.
    #[inline]
    pub(crate) fn charged(&self) -> i128 {
        self.sum(|only| i128::from(only.cost), |part| part.cost.0)
    }

    /// Input and output that the charges so far bill.
    #[inline]
    pub(crate) fn billed(&self) -> (u64, u64) {
        let input = self.sum(|only| only.input_units.into(), |part| part.input_units);
        (input, self.sum(|only| only.output_units.into(), |part| part.output_units))
    }

    /// To where output is billed, or never will be, from the job's beginning.
    #[inline]
    pub(crate) fn output_end(&self) -> u64 {
        let cut = |attempt: u32| self.attempts.get(attempt).map_or(0, |to| to.continues_at);
        match &self.charges {
            Charges::None => 0,
            Charges::One(only) => cut(only.attempt).saturating_add(only.output_units.into()),
            Charges::Many(many) => many
                .iter()
                .fold(0u64, |end, part| end.max(cut(part.attempt)).saturating_add(part.output_units)),
        }
    }

    /// From where an attempt is paid: its own beginning, or what is billed. What lies between is billed to nobody.
    #[inline]
    pub(crate) fn output_from(&self, attempt: u32) -> u64 {
        let cut = self.attempts.get(attempt).map_or(0, |to| to.continues_at);
        self.output_end().max(cut)
    }

    /// To where an attempt is paid: where the next one went on.
    #[inline]
    pub(crate) fn output_until(&self, attempt: u32) -> Option<u64> {
        self.attempts.get(attempt.checked_add(1)?).map(|next| next.continues_at)
    }

    /// What is still held of each slice, in their order.
    #[inline]
    pub(crate) fn open_slices(&self) -> impl Iterator<Item = Slice> + '_ {
        let mut consumed = self.consumed();
        self.slices.iter().map(move |slice| {
            let taken = slice.amount.0.min(consumed);
            consumed -= taken;
            Slice { grant: slice.grant, amount: Amount(slice.amount.0 - taken) }
        })
    }

    /// Who was paid by a charge: the operator of its attempt.
    pub(crate) fn operator_of(&self, part: &Part) -> OperatorNo {
        self.attempts.get(part.attempt).expect("a charge is of an attempt that was").operator
    }

    /// Reads some of each of its parts; see [`crate::look_ahead`].
    #[inline]
    pub(crate) fn touch(&self) -> u32 {
        let tags = self.attempts.len() ^ self.part_count() ^ self.slices.len();
        tags as u32 ^ self.model ^ self.due_us as u32 ^ u32::from(self.hold.0[0]) ^ self.place
    }

    /// Where its spending counts.
    #[inline]
    pub(crate) fn cap_key(&self) -> Option<CapKey> {
        self.spender.as_ref().map(|spender| (self.account, **spender, self.asset))
    }
}

/// The slices of a hold.
#[derive(Clone, Debug)]
pub(crate) enum Held {
    Few { count: u8, grants: [GrantId; 2], amounts: [u64; 2] },
    Many(Box<[Slice]>),
}

impl Held {
    #[inline]
    pub(crate) fn new(slices: &[Slice]) -> Held {
        let (mut grants, mut amounts) = ([GrantId(0); 2], [0; 2]);
        if slices.len() > grants.len() {
            return Held::Many(slices.into());
        }
        for (place, slice) in slices.iter().enumerate() {
            let Ok(amount) = u64::try_from(slice.amount.0) else { return Held::Many(slices.into()) };
            (grants[place], amounts[place]) = (slice.grant, amount);
        }
        Held::Few { count: slices.len() as u8, grants, amounts }
    }

    #[inline]
    pub(crate) fn len(&self) -> usize {
        match self {
            Held::Few { count, .. } => usize::from(*count),
            Held::Many(slices) => slices.len(),
        }
    }

    #[inline]
    pub(crate) fn iter(&self) -> impl Iterator<Item = Slice> + '_ {
        (0..self.len()).map(|place| match self {
            Held::Few { grants, amounts, .. } => {
                Slice { grant: grants[place], amount: Amount(amounts[place].into()) }
            }
            Held::Many(slices) => slices[place],
        })
    }

    /// More slices at the end.
    pub(crate) fn extend(&mut self, slices: &[Slice]) {
        let all: Vec<Slice> = self.iter().chain(slices.iter().copied()).collect();
        *self = Held::new(&all);
    }
}

impl<C> Encode<C> for Held {
    fn encode<W: Write>(&self, e: &mut Encoder<W>, c: &mut C) -> Result<(), EncodeError<W::Error>> {
        e.array(self.len() as u64)?;
        self.iter().try_for_each(|slice| slice.encode(e, c))
    }
}

impl<'b, C> Decode<'b, C> for Held {
    fn decode(d: &mut Decoder<'b>, c: &mut C) -> Result<Held, DecodeError> {
        Ok(Held::new(&Slices::decode(d, c)?))
    }
}

/// One dispatch, as it is kept.
#[derive(Clone, Copy, Debug, Encode, Decode)]
#[cbor(array)]
pub(crate) struct Dispatch {
    #[n(0)]
    pub(crate) node: NodeId,
    #[n(1)]
    pub(crate) operator: OperatorNo,
    #[n(2)]
    pub(crate) body: Hash32,
    #[n(3)]
    pub(crate) continues_at: u64,
    #[n(4)]
    pub(crate) dispatched_us: u64,
}

/// The dispatches of a job.
#[derive(Clone, Debug)]
pub(crate) enum Attempts {
    None,
    /// One, from the beginning.
    One {
        node: NodeId,
        operator: OperatorNo,
        body: Hash32,
        dispatched_us: u64,
    },
    Many(Box<[Dispatch]>),
}

impl Attempts {
    #[inline]
    pub(crate) fn len(&self) -> usize {
        match self {
            Attempts::None => 0,
            Attempts::One { .. } => 1,
            Attempts::Many(many) => many.len(),
        }
    }

    #[inline]
    pub(crate) fn get(&self, attempt: u32) -> Option<Dispatch> {
        match self {
            Attempts::One { node, operator, body, dispatched_us } if attempt == 0 => Some(Dispatch {
                node: *node,
                operator: *operator,
                body: *body,
                continues_at: 0,
                dispatched_us: *dispatched_us,
            }),
            Attempts::None | Attempts::One { .. } => None,
            Attempts::Many(many) => many.get(attempt as usize).copied(),
        }
    }

    pub(crate) fn last(&self) -> Option<Dispatch> {
        self.get((self.len() as u32).checked_sub(1)?)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Dispatch> + '_ {
        (0..self.len() as u32).filter_map(|attempt| self.get(attempt))
    }

    #[inline]
    pub(crate) fn push(&mut self, dispatch: Dispatch) {
        let Dispatch { node, operator, body, continues_at, dispatched_us } = dispatch;
        *self = if self.len() == 0 && continues_at == 0 {
            Attempts::One { node, operator, body, dispatched_us }
        } else {
            Attempts::Many(self.iter().chain([dispatch]).collect())
        };
    }
}

impl<C> Encode<C> for Attempts {
    fn encode<W: Write>(&self, e: &mut Encoder<W>, c: &mut C) -> Result<(), EncodeError<W::Error>> {
        e.array(self.len() as u64)?;
        self.iter().try_for_each(|dispatch| dispatch.encode(e, c))
    }
}

impl<'b, C> Decode<'b, C> for Attempts {
    fn decode(d: &mut Decoder<'b>, c: &mut C) -> Result<Attempts, DecodeError> {
        let mut attempts = Attempts::None;
        for _ in 0..definite(d)? {
            attempts.push(Dispatch::decode(d, c)?);
        }
        Ok(attempts)
    }
}

/// One dispatch of a job; its number is its place in the job's list.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Attempt {
    /// The node.
    pub node: NodeId,
    /// Its owner.
    pub operator: OperatorId,
    /// Salted commitment to the body.
    pub body: Hash32,
    /// Tokens delivered by earlier attempts.
    pub continues_at: u64,
    /// When it was dispatched, microseconds UTC.
    pub dispatched_us: u64,
}

/// One charge of a job; it pays its attempt's operator.
#[derive(Clone, Debug, Encode, Decode)]
#[cbor(array)]
pub(crate) struct Part {
    #[n(0)]
    pub(crate) attempt: u32,
    /// Billed by this part alone.
    #[n(1)]
    pub(crate) input_units: u64,
    /// Billed by this part alone.
    #[n(2)]
    pub(crate) output_units: u64,
    #[n(3)]
    pub(crate) cost: Amount,
    /// Of the cost, what the hold did not cover.
    #[n(4)]
    pub(crate) beyond: Amount,
    #[n(5)]
    pub(crate) slices: Slices,
    #[n(6)]
    pub(crate) operator_share: Amount,
    #[n(7)]
    pub(crate) receipt: Hash32,
    #[n(8)]
    pub(crate) leaf: u64,
}

impl Part {
    fn of(event: &UsageCaptured, leaf: u64) -> Part {
        Part {
            attempt: event.attempt,
            input_units: event.input_units,
            output_units: event.output_units,
            cost: event.cost,
            beyond: event.beyond_hold.unwrap_or_default(),
            slices: event.slices.clone(),
            operator_share: event.operator_share,
            receipt: event.receipt,
            leaf,
        }
    }

    /// Whether it is kept in the short form when it is the only one.
    fn is_short(&self) -> bool {
        let small = |amount: Amount| u64::try_from(amount.0).is_ok();
        let counted = u32::try_from(self.input_units.max(self.output_units)).is_ok();
        self.beyond.is_zero() && counted && small(self.cost) && small(self.operator_share)
    }

    pub(crate) fn platform_share(&self) -> i128 {
        self.cost.0 - self.operator_share.0
    }
}

/// The first charge within the hold: its slices are the hold's first.
#[derive(Clone, Copy, Debug, Encode, Decode)]
#[cbor(array)]
pub(super) struct Only {
    #[n(0)]
    pub(super) attempt: u32,
    #[n(1)]
    pub(super) input_units: u32,
    #[n(2)]
    pub(super) output_units: u32,
    #[n(3)]
    pub(super) cost: u64,
    #[n(4)]
    pub(super) operator_share: u64,
    #[n(5)]
    pub(super) receipt: Hash32,
    #[n(6)]
    pub(super) leaf: u64,
}

impl Only {
    /// `None` when it is beyond the hold, or larger than nearly all are.
    #[inline]
    fn of(event: &UsageCaptured, leaf: u64) -> Option<Only> {
        if event.beyond_hold.is_some_and(|beyond| !beyond.is_zero()) {
            return None;
        }
        Some(Only {
            attempt: event.attempt,
            input_units: event.input_units.try_into().ok()?,
            output_units: event.output_units.try_into().ok()?,
            cost: event.cost.0.try_into().ok()?,
            operator_share: event.operator_share.0.try_into().ok()?,
            receipt: event.receipt,
            leaf,
        })
    }

    fn part(&self, job: &Job) -> Part {
        Part {
            attempt: self.attempt,
            input_units: self.input_units.into(),
            output_units: self.output_units.into(),
            cost: Amount(self.cost.into()),
            beyond: Amount::ZERO,
            slices: first_of(job.slices.iter(), self.cost.into()),
            operator_share: Amount(self.operator_share.into()),
            receipt: self.receipt,
            leaf: self.leaf,
        }
    }
}

/// The first slices that cover a cost, the last one possibly in part.
#[inline]
pub(crate) fn first_of(slices: impl Iterator<Item = Slice>, cost: i128) -> Slices {
    let mut open = cost;
    let mut covered = Slices::new();
    for slice in slices {
        let take = slice.amount.0.min(open);
        if take > 0 {
            covered.push(Slice { grant: slice.grant, amount: Amount(take) });
            open -= take;
        }
    }
    covered
}

/// The charges of a job.
#[derive(Clone, Default, Debug)]
pub(super) enum Charges {
    #[default]
    None,
    One(Only),
    Many(Box<[Part]>),
}

/// An array of charges; the only one as a map of one, so that the two forms differ in their first byte.
impl<C> Encode<C> for Charges {
    fn encode<W: Write>(&self, e: &mut Encoder<W>, c: &mut C) -> Result<(), EncodeError<W::Error>> {
        match self {
            Charges::None => e.array(0)?.ok(),
            Charges::One(only) => only.encode(e.tag(ONLY)?, c),
            Charges::Many(many) => (**many).encode(e, c),
        }
    }
}

impl<'b, C> Decode<'b, C> for Charges {
    fn decode(d: &mut Decoder<'b>, c: &mut C) -> Result<Charges, DecodeError> {
        let at = d.position();
        if d.datatype()? == minicbor::data::Type::Tag {
            let tag = d.tag()?;
            let only = Only::decode(d, c)?;
            let known = tag == ONLY;
            return known
                .then_some(Charges::One(only))
                .ok_or_else(|| DecodeError::message("an unknown tag").at(at));
        }
        let parts: Vec<Part> = Decode::decode(d, c)?;
        match &parts[..] {
            [] => Ok(Charges::None),
            [part] if part.is_short() => Err(DecodeError::message("a charge in its long form").at(at)),
            _ => Ok(Charges::Many(parts.into())),
        }
    }
}

/// Says that a charge leaves its slices to the hold: private to the snapshot, from the unassigned tags.
const ONLY: minicbor::data::Tag = minicbor::data::Tag::new(70_700);

/// Where a job stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(flat)]
pub(crate) enum JobState {
    #[n(0)]
    Running,
    /// A charge ended it.
    #[n(1)]
    Captured,
    /// Released; charges in parts stand.
    #[n(2)]
    Voided(#[n(0)] VoidReason),
    /// Released; charges in parts stand.
    #[n(3)]
    Expired,
}

impl JobState {
    pub(crate) fn name(self) -> &'static str {
        match self {
            JobState::Running => "running",
            JobState::Captured => "captured",
            JobState::Voided(_) => "voided",
            JobState::Expired => "expired",
        }
    }
}
