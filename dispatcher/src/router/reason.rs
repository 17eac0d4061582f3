//! The one reason why a node is or is not routed. Codes are stable: an operator's `node why` prints them.

use serde::Serialize;

/// Why a node would or would not get the next job of a model; the first that holds, in this order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// Nothing stands against it.
    Eligible,
    /// No such node is registered, or it retired.
    NotRegistered,
    /// No heartbeat came yet.
    NeverSeen,
    /// Three heartbeats in a row are missing.
    HeartbeatMissed,
    /// It said that it is leaving.
    Draining,
    /// It is not registered for the model.
    ModelNotRegistered,
    /// It is registered for the model, but its heartbeat does not list it.
    ModelNotLoaded,
    /// Three failures in a minute; it waits fifteen seconds.
    Parked,
    /// It was parked, and its single probe is out.
    Probing,
    /// All its slots are taken.
    Full,
    /// This request already tried it.
    Tried,
}

impl Reason {
    /// The stable code, as in JSON.
    pub fn code(self) -> &'static str {
        use Reason::*;
        match self {
            Eligible => "eligible",
            NotRegistered => "not_registered",
            NeverSeen => "never_seen",
            HeartbeatMissed => "heartbeat_missed",
            Draining => "draining",
            ModelNotRegistered => "model_not_registered",
            ModelNotLoaded => "model_not_loaded",
            Parked => "parked",
            Probing => "probing",
            Full => "full",
            Tried => "tried",
        }
    }

    /// Whether waiting a moment may help.
    pub fn passes_by_itself(self) -> bool {
        use Reason::*;
        match self {
            Parked | Probing | Full => true,
            Eligible | NotRegistered | NeverSeen | HeartbeatMissed | Draining | ModelNotRegistered
            | ModelNotLoaded | Tried => false,
        }
    }
}
