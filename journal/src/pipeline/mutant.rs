//! Mistakes that the pipeline could have, as switches of the test-only feature `mutants`: the simulation must catch each.
//! Without the feature every question is answered `false` at compile time. Must not: be enabled by the product.

use super::Pipeline;

/// One mistake.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(not(feature = "mutants"), allow(dead_code, reason = "only asked about, never set"))]
pub enum Mutant {
    /// A repeated key is taken as new.
    ForgetIdempotency,
    /// After an unknown outcome the same bytes are sent under the next number.
    RetryUnderNewNumber,
    /// A sequence that is absent is taken as a commit that will never land.
    AbsentIsNotCommitted,
    /// Answers leave with the publish.
    ReplyBeforeAck,
    /// Answers leave with the acknowledgement, before the archive tail has the commit.
    ReplyBeforeTail,
    /// A fenced writer goes on with what it decided.
    ReuseSpeculativeState,
    /// The archive tail gets a commit when it is published.
    TailInParallel,
    /// A commit's time is the clock's, also when that went back.
    ClockNotClamped,
    /// A refusal does not wait for the commit that it was decided on.
    RefusalAtOnce,
    /// A repeated command's answer does not wait for the commit that holds its outcome.
    RepeatAtOnce,
    /// A read does not wait for the commit that it looked at.
    ReadAtOnce,
    /// A command's events are written in another order than they were applied in.
    ApplyOutOfOrder,
    /// A stream that lost commits is written to from where it ends.
    GoOnAtLowerSequence,
    /// The answers of one commit leave backwards.
    ReplyOutOfOrder,
    /// Any acknowledgement counts for the commit in flight.
    StaleAckCounts,
    /// A batch over two commits forgets to note where its first part went.
    BatchForgetsPlace,
    /// Stopping, a writer says of what is in flight that it did not happen.
    FlightAsStopped,
    /// The term's first commit carries no randomness.
    NoNonce,
}

#[cfg(feature = "mutants")]
impl Mutant {
    /// Every one.
    pub const ALL: &'static [Mutant] = &[
        Mutant::ForgetIdempotency,
        Mutant::RetryUnderNewNumber,
        Mutant::AbsentIsNotCommitted,
        Mutant::ReplyBeforeAck,
        Mutant::ReplyBeforeTail,
        Mutant::ReuseSpeculativeState,
        Mutant::TailInParallel,
        Mutant::ClockNotClamped,
        Mutant::RefusalAtOnce,
        Mutant::RepeatAtOnce,
        Mutant::ReadAtOnce,
        Mutant::ApplyOutOfOrder,
        Mutant::GoOnAtLowerSequence,
        Mutant::ReplyOutOfOrder,
        Mutant::StaleAckCounts,
        Mutant::BatchForgetsPlace,
        Mutant::FlightAsStopped,
        Mutant::NoNonce,
    ];
}

impl<T> Pipeline<T> {
    /// Whether this pipeline makes that mistake.
    #[cfg(feature = "mutants")]
    pub(super) fn is(&self, mutant: Mutant) -> bool {
        self.options.mutant == Some(mutant)
    }

    /// Whether this pipeline makes that mistake: never.
    #[cfg(not(feature = "mutants"))]
    #[inline(always)]
    pub(super) const fn is(&self, _mutant: Mutant) -> bool {
        false
    }
}
