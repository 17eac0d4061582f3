//! What an audit says: checks with findings, totals, and one verdict. For machines in `json`, for people in `text`.

pub mod dsse;
pub mod html;
pub mod json;
pub mod text;

use crate::checks::{CheckKind, Gravity};
use serde::Serialize;

/// The report's layout.
pub const REPORT_SCHEMA: &str = "counterfoil-audit-report-1";
/// Findings kept of one check; the rest is counted.
pub const FINDINGS_MAX: usize = 100;

/// How a check ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// All that was examined is right.
    Pass,
    /// Something is wrong.
    Fail,
    /// Something needed was not there.
    Inconclusive,
    /// It does not apply, or was not asked for.
    Skipped,
}

/// One thing that is wrong.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Finding {
    /// The event's leaf, where it is about one.
    pub leaf: Option<u64>,
    /// `<shard>.<leaf>`, as on FEED.
    pub event_id: Option<String>,
    /// What should be there.
    pub expected: String,
    /// What is there.
    pub actual: String,
    /// A sentence for people.
    pub message: String,
}

/// One check and what it found.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Check {
    /// Stable id.
    pub id: &'static str,
    /// What it says when it passes.
    pub title: &'static str,
    /// How it ended.
    pub result: Outcome,
    /// How many things were looked at.
    pub examined: u64,
    /// All findings, also those that are not listed.
    pub findings_total: u64,
    /// The first [`FINDINGS_MAX`] of them.
    pub findings: Vec<Finding>,
    /// Why it is inconclusive or skipped.
    pub note: Option<String>,
    #[serde(skip)]
    kind: CheckKind,
}

impl Check {
    /// A check that has looked at nothing yet.
    pub fn new(kind: CheckKind) -> Check {
        let (id, title) = (kind.id(), kind.title());
        let (result, findings) = (Outcome::Pass, Vec::new());
        Check { id, title, result, examined: 0, findings_total: 0, findings, note: None, kind }
    }

    /// Which check.
    pub fn kind(&self) -> CheckKind {
        self.kind
    }

    pub(crate) fn examine(&mut self) {
        self.examined += 1;
    }

    pub(crate) fn fail(&mut self, finding: Finding) {
        self.result = Outcome::Fail;
        self.findings_total += 1;
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(finding);
        }
    }

    /// A finding about the log as a whole.
    pub(crate) fn fail_because(
        &mut self,
        expected: impl ToString,
        actual: impl ToString,
        message: impl ToString,
    ) {
        let (expected, actual) = (expected.to_string(), actual.to_string());
        let message = message.to_string();
        self.fail(Finding { leaf: None, event_id: None, expected, actual, message });
    }

    /// Something needed is missing; a failure stays a failure.
    pub(crate) fn inconclusive(&mut self, note: impl ToString) {
        if self.result != Outcome::Fail {
            self.result = Outcome::Inconclusive;
        }
        self.note = Some(note.to_string());
    }

    pub(crate) fn skip(&mut self, note: impl ToString) {
        if self.result == Outcome::Pass && self.examined == 0 {
            self.result = Outcome::Skipped;
            self.note = Some(note.to_string());
        }
    }

    /// The code that this check alone would end the process with.
    pub fn exit_code(&self) -> u8 {
        match (self.result, self.kind.gravity()) {
            (Outcome::Pass | Outcome::Skipped, _) => 0,
            (Outcome::Inconclusive, _) => 3,
            (Outcome::Fail, Gravity::Accounting) => 1,
            (Outcome::Fail, Gravity::Cryptographic) => 4,
        }
    }
}

/// Checks by kind, while an audit runs.
#[derive(Clone, Default, Debug)]
pub struct Checks {
    /// By the kind's number: a replay looks here dozens of times an event.
    by_kind: Vec<Option<Check>>,
}

impl Checks {
    /// The check of a kind, begun when it was not.
    pub fn of(&mut self, kind: CheckKind) -> &mut Check {
        let at = kind as usize;
        if self.by_kind.len() <= at {
            self.by_kind.resize_with(CheckKind::ALL.len(), || None);
        }
        self.by_kind[at].get_or_insert_with(|| Check::new(kind))
    }

    /// All of them, in the order of [`CheckKind`].
    pub fn into_vec(self) -> Vec<Check> {
        self.by_kind.into_iter().flatten().collect()
    }
}

/// Which program said so.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Tool {
    /// Its name.
    pub name: &'static str,
    /// Its version.
    pub version: &'static str,
    /// The source it was built from, when known.
    pub commit: Option<&'static str>,
}

/// What was audited.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Subject {
    /// The log's name.
    pub origin: String,
    /// Leaves.
    pub size: u64,
    /// Root over them, hex.
    pub root: String,
    /// The signed note.
    pub checkpoint: String,
}

/// A file that went in.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Input {
    /// Its name.
    pub name: String,
    /// SHA-256 of its bytes, hex.
    pub sha256: String,
}

/// One line of the trial balance. Amounts are base units as text.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct TrialBalanceLine {
    /// Kind of account.
    pub kind: &'static str,
    /// Asset's symbol.
    pub asset: String,
    /// Digits after the point.
    pub scale: u8,
    /// Ledger accounts of this kind.
    pub accounts: u64,
    /// Booked debits.
    pub debits: String,
    /// Booked credits.
    pub credits: String,
    /// What is reserved now (debits less credits pending).
    pub reserved: String,
}

/// Totals of one asset. Amounts are base units as text.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct AssetTotals {
    /// Its symbol.
    pub asset: String,
    /// Digits after the point.
    pub scale: u8,
    /// Confirmed deposits less reversed ones.
    pub deposited: String,
    /// Withdrawn by voucher or exit.
    pub withdrawn: String,
    /// Charged to customers, less what was undone.
    pub captured: String,
    /// The operators' part of it.
    pub operators: String,
    /// The platform's part of it.
    pub platform: String,
    /// Charged on the chain by confirmed batches.
    pub settled: String,
    /// Paid out by the pot.
    pub claimed: String,
}

/// Where a replay left the path of the rules first.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Divergence {
    /// The leaf.
    pub leaf: u64,
    /// The check that failed there.
    pub check: &'static str,
    /// A sentence.
    pub message: String,
}

/// One drawn row of a sample.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct SampledRow {
    /// Leaf of the charge.
    pub leaf: u64,
    /// The job.
    pub job: String,
    /// Charged, base units.
    pub charged: String,
    /// Recomputed, base units, where it was.
    pub recomputed: Option<String>,
    /// What running it again gave, where it was.
    pub reexecuted: Option<String>,
}

/// Difference of one asset between log and chain, vault units.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Drift {
    /// What is compared.
    pub what: String,
    /// The log's figure.
    pub log: String,
    /// The chain's.
    pub chain: String,
    /// Chain less log.
    pub drift: String,
    /// Explained by named items that are on the chain and not yet in the log.
    pub pending: String,
}

/// One thing that a command lists: an item at a period's edge, a role and what it did, a proved event.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Item {
    /// What kind of thing.
    pub what: String,
    /// Where it stands, if at one place.
    pub leaf: Option<u64>,
    /// Which one.
    pub id: Option<String>,
    /// Symbol of the amount's asset.
    pub asset: Option<String>,
    /// Base units.
    pub amount: Option<String>,
    /// In words.
    pub note: String,
}

/// What an audit says.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Report {
    /// [`REPORT_SCHEMA`].
    pub schema: &'static str,
    /// Which program.
    pub tool: Tool,
    /// Which command, such as `verify`.
    pub command: &'static str,
    /// What was audited.
    pub subject: Subject,
    /// Which period, when it was limited.
    pub period: Option<String>,
    /// Files that went in.
    pub inputs: Vec<Input>,
    /// What a sample was drawn by.
    pub seed: Option<String>,
    /// `passed`, `finding`, `inconclusive` or `cryptographic_failure`.
    pub verdict: &'static str,
    /// The process exit code.
    pub exit_code: u8,
    /// Words about the whole, such as `internally consistent only`.
    pub remark: Option<String>,
    /// The checks.
    pub checks: Vec<Check>,
    /// Events read.
    pub events: u64,
    /// First leaf at which a replay disagrees.
    pub first_divergence: Option<Divergence>,
    /// Hash of the replayed state, hex; two replays of one log agree.
    pub state_digest: Option<String>,
    /// Totals per asset.
    pub totals: Vec<AssetTotals>,
    /// Balances per kind of account.
    pub trial_balance: Vec<TrialBalanceLine>,
    /// Rows of a sample.
    pub sample: Vec<SampledRow>,
    /// Log against chain.
    pub drift: Vec<Drift>,
    /// What the command lists.
    pub items: Vec<Item>,
    /// When it began, microseconds UTC.
    pub started_us: u64,
    /// When it ended, microseconds UTC.
    pub finished_us: u64,
}

impl Report {
    pub(crate) fn begin(command: &'static str) -> Report {
        let tool = Tool {
            name: "counterfoil",
            version: env!("CARGO_PKG_VERSION"),
            commit: option_env!("COUNTERFOIL_COMMIT"),
        };
        Report {
            schema: REPORT_SCHEMA,
            tool,
            command,
            subject: Subject::default(),
            period: None,
            inputs: Vec::new(),
            seed: None,
            verdict: "inconclusive",
            exit_code: 3,
            remark: None,
            checks: Vec::new(),
            events: 0,
            first_divergence: None,
            state_digest: None,
            totals: Vec::new(),
            trial_balance: Vec::new(),
            sample: Vec::new(),
            drift: Vec::new(),
            items: Vec::new(),
            started_us: now_us(),
            finished_us: 0,
        }
    }

    /// Takes the checks and draws the verdict: the gravest code wins, 4 before 1 before 3.
    pub(crate) fn end(mut self, checks: Checks) -> Report {
        self.checks = checks.into_vec();
        self.exit_code = gravest(self.checks.iter().map(Check::exit_code));
        self.verdict = match self.exit_code {
            0 => "passed",
            1 => "finding",
            3 => "inconclusive",
            _ => "cryptographic_failure",
        };
        self.finished_us = now_us();
        self
    }

    /// The check of a kind, if it was made.
    pub fn check(&self, kind: CheckKind) -> Option<&Check> {
        self.checks.iter().find(|check| check.kind == kind)
    }
}

/// The code that wins: 4, then 1, then 3.
pub fn gravest(codes: impl IntoIterator<Item = u8>) -> u8 {
    let rank = |code: u8| match code {
        0 => 0,
        3 => 1,
        1 => 2,
        _ => 3,
    };
    codes.into_iter().max_by_key(|code| rank(*code)).unwrap_or(0)
}

fn now_us() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |since| since.as_micros() as u64)
}
