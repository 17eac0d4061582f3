//! The one reason why a node is or is not routed, and by which rule a job went where it went. Codes are stable: an
//! operator's `node why` and the metrics print them.

use serde::Serialize;

/// How many reasons there are.
pub const REASONS: usize = 14;

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
    /// An answer of its operator came out different when it was run again; no jobs until the administration has looked.
    Refuted,
    /// Three failures in a minute; it waits fifteen seconds.
    Parked,
    /// It was parked, and its single probe is out.
    Probing,
    /// It generates below the network's floor; it gets jobs when nobody else has a slot, and a probe a minute.
    BelowFloor,
    /// All its slots are taken.
    Full,
    /// The slots that are free are kept for another lane.
    Reserved,
    /// This request already tried it.
    Tried,
}

impl Reason {
    /// Every reason, in order.
    pub const ALL: [Reason; REASONS] = [
        Reason::Eligible,
        Reason::NotRegistered,
        Reason::NeverSeen,
        Reason::HeartbeatMissed,
        Reason::Draining,
        Reason::ModelNotRegistered,
        Reason::ModelNotLoaded,
        Reason::Refuted,
        Reason::Parked,
        Reason::Probing,
        Reason::BelowFloor,
        Reason::Full,
        Reason::Reserved,
        Reason::Tried,
    ];

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
            Refuted => "refuted",
            Parked => "parked",
            Probing => "probing",
            BelowFloor => "below_floor",
            Full => "full",
            Reserved => "reserved",
            Tried => "tried",
        }
    }

    /// Whether waiting a moment may help.
    pub fn passes_by_itself(self) -> bool {
        use Reason::*;
        match self {
            Parked | Probing | BelowFloor | Full | Reserved => true,
            Eligible | NotRegistered | NeverSeen | HeartbeatMissed | Draining | ModelNotRegistered
            | ModelNotLoaded | Refuted | Tried => false,
        }
    }
}

/// By which rule a node was chosen.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// It alone had the smallest load.
    LeastLoaded,
    /// Several had; it was drawn, by health.
    Drawn,
    /// Several had; it has the prompt's beginning in its cache.
    Affinity,
    /// It was parked or too slow, and this is its probe.
    Probe,
    /// No node of an operator had a slot: the project's accelerator.
    FallbackAccelerator,
    /// Nor had that one: the server's processor.
    FallbackProcessor,
    /// Nobody else had one: a node below the floor.
    LastResort,
}

impl Rule {
    /// Every rule, in the order of its code.
    pub const ALL: [Rule; 7] = [
        Rule::LeastLoaded,
        Rule::Drawn,
        Rule::Affinity,
        Rule::Probe,
        Rule::FallbackAccelerator,
        Rule::FallbackProcessor,
        Rule::LastResort,
    ];

    /// The stable code, as in JSON.
    pub fn code(self) -> &'static str {
        match self {
            Rule::LeastLoaded => "least_loaded",
            Rule::Drawn => "drawn",
            Rule::Affinity => "affinity",
            Rule::Probe => "probe",
            Rule::FallbackAccelerator => "fallback_accelerator",
            Rule::FallbackProcessor => "fallback_processor",
            Rule::LastResort => "last_resort",
        }
    }

    /// Whether the network's own hardware served, because no operator's could.
    pub fn is_fallback(self) -> bool {
        matches!(self, Rule::FallbackAccelerator | Rule::FallbackProcessor)
    }
}
