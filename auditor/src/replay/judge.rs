//! Collects findings while the log is folded: knows which event is being judged, and which was wrong first.

use crate::checks::CheckKind;
use crate::report::{Checks, Divergence, Finding};
use std::fmt::Display;

/// The judge of one replay.
#[derive(Default)]
pub(crate) struct Judge {
    checks: Checks,
    shard: u32,
    leaf: u64,
    first: Option<Divergence>,
}

impl Judge {
    /// What follows is about this event.
    pub(crate) fn at(&mut self, shard: u32, leaf: u64) {
        (self.shard, self.leaf) = (shard, leaf);
    }

    pub(crate) fn checks(&mut self) -> &mut Checks {
        &mut self.checks
    }

    pub(crate) fn into_checks(self) -> Checks {
        self.checks
    }

    pub(crate) fn first(&self) -> Option<&Divergence> {
        self.first.as_ref()
    }

    /// Counts one thing looked at.
    pub(crate) fn examine(&mut self, kind: CheckKind) {
        self.checks.of(kind).examine();
    }

    pub(crate) fn fail(
        &mut self,
        kind: CheckKind,
        expected: impl Display,
        actual: impl Display,
        message: impl Display,
    ) {
        let (leaf, message) = (self.leaf, message.to_string());
        if self.first.as_ref().is_none_or(|first| leaf < first.leaf) {
            self.first = Some(Divergence { leaf, check: kind.id(), message: message.clone() });
        }
        let event_id = Some(format!("{}.{leaf}", self.shard));
        let (expected, actual) = (expected.to_string(), actual.to_string());
        self.checks.of(kind).fail(Finding { leaf: Some(leaf), event_id, expected, actual, message });
    }

    /// Looks at one figure: what it should be, what the log says.
    pub(crate) fn equal<T: PartialEq + Display>(
        &mut self,
        kind: CheckKind,
        message: &str,
        expected: T,
        actual: T,
    ) -> bool {
        self.examine(kind);
        let same = expected == actual;
        if !same {
            self.fail(kind, expected, actual, message);
        }
        same
    }

    /// Looks at one condition; the sentence says what should hold.
    pub(crate) fn require(
        &mut self,
        kind: CheckKind,
        should: impl Display,
        actual: impl Display,
        holds: impl FnOnce() -> bool,
    ) -> bool {
        self.examine(kind);
        let holds = holds();
        if !holds {
            let should = should.to_string();
            self.fail(kind, &should, actual, format!("it must be so: {should}"));
        }
        holds
    }

    /// Something that an event names and that must exist.
    pub(crate) fn known<T>(
        &mut self,
        kind: CheckKind,
        found: Option<T>,
        what: &str,
        id: impl Display,
    ) -> Option<T> {
        self.examine(kind);
        if found.is_none() {
            self.fail(kind, format!("a known {what}"), id, format!("the event names an unknown {what}"));
        }
        found
    }
}
