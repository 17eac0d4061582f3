//! `GET /metrics` in the OpenMetrics text form: what this gateway counted, and gauges that are read when somebody asks.
//! Names and units are an interface: `specs/metrics.md`. Must not: labels with an unbounded number of values.

use crate::clock::now_us;
use crate::gateway::Shared;
use crate::router::{Reason, Rule};
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The content type of the text form.
const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Upper bounds of the answer-time histogram, seconds.
const SECONDS: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 2.5, 10.0, 60.0];

/// A figure of another part of the coordinator, read at each scrape.
pub struct Reading {
    /// `counterfoil_*`, without a unit suffix that the help text contradicts.
    pub name: &'static str,
    /// A sentence.
    pub help: &'static str,
    /// Its value now.
    pub value: f64,
}

/// Where figures of other parts come from.
pub type Readings = Arc<dyn Fn() -> Vec<Reading> + Send + Sync>;

/// Status classes: five values, whatever clients do.
#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct Class {
    class: &'static str,
}

/// What the gateway counts.
#[derive(Default)]
pub(crate) struct Metrics {
    answers: Family<Class, Counter>,
    seconds: SecondsHistogram,
}

struct SecondsHistogram(Histogram);

impl Default for SecondsHistogram {
    fn default() -> Self {
        SecondsHistogram(Histogram::new(SECONDS))
    }
}

impl Metrics {
    /// One answer left (its headers; a stream may still run).
    pub fn answered(&self, status: StatusCode, took: Duration) {
        let class = match status.as_u16() / 100 {
            1 => "1xx",
            2 => "2xx",
            3 => "3xx",
            4 => "4xx",
            _ => "5xx",
        };
        self.answers.get_or_create(&Class { class }).inc();
        self.seconds.0.observe(took.as_secs_f64());
    }
}

/// The call. It tells of volumes, not of anybody's business, and the port is loopback unless configured otherwise.
pub(crate) async fn show(State(shared): State<Arc<Shared>>) -> Response {
    let mut registry = Registry::default();
    let metrics = &shared.metrics;
    let answers = metrics.answers.clone();
    registry.register("counterfoil_http_answers", "Answers of the API by class of their status", answers);
    let seconds = metrics.seconds.0.clone();
    let help = "Time until an answer's headers left";
    registry.register_with_unit("counterfoil_http_answer", help, Unit::Seconds, seconds);
    registry.register(
        "counterfoil_route_decisions",
        "Choices of a node, by rule or by why there was none",
        decisions(&shared),
    );
    registry.register(
        "counterfoil_nodes",
        "Registered nodes, a model each, by why they are or are not routed",
        standings(&shared),
    );
    registry.register(
        "counterfoil_reexecutions",
        "Charges that were drawn to be run again, by what came out",
        reexecutions(&shared),
    );
    for Reading { name, help, value } in own(&shared).await.into_iter().chain((shared.readings)()) {
        let gauge: Gauge<f64, AtomicU64> = Gauge::default();
        gauge.set(value);
        registry.register(name, help, gauge);
    }
    let mut body = String::new();
    match text::encode(&mut body, &registry) {
        Ok(()) => ([(header::CONTENT_TYPE, CONTENT_TYPE)], body).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// What charges came to that were run again.
fn reexecutions(shared: &Shared) -> Family<Why, Counter> {
    let family = Family::<Why, Counter>::default();
    if let Some(verifier) = &shared.verifier {
        let counts = &verifier.counts;
        let by = [
            ("same", &counts.same),
            ("differs", &counts.differs),
            ("unavailable", &counts.unavailable),
            ("skipped", &counts.skipped),
        ];
        for (reason, count) in by {
            family.get_or_create(&Why { reason }).inc_by(count.load(Ordering::Relaxed));
        }
    }
    family
}

/// A decision's rule, or the reason why there was none.
#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct Why {
    reason: &'static str,
}

/// The table's own counts, copied into counters of this scrape.
fn decisions(shared: &Shared) -> Family<Why, Counter> {
    let family = Family::<Why, Counter>::default();
    let table = shared.table();
    let counted = table.decisions();
    let rules = Rule::ALL.iter().map(|rule| rule.code()).zip(counted.chosen);
    let reasons = Reason::ALL.iter().map(|reason| reason.code()).zip(counted.refused);
    for (reason, count) in rules.chain(reasons.filter(|(_, count)| *count > 0)) {
        family.get_or_create(&Why { reason }).inc_by(count);
    }
    family
}

fn standings(shared: &Shared) -> Family<Why, Gauge> {
    let family = Family::<Why, Gauge>::default();
    let counts = shared.table().reasons(now_us());
    for (reason, count) in Reason::ALL.iter().zip(counts) {
        family.get_or_create(&Why { reason: reason.code() }).set(i64::try_from(count).unwrap_or(i64::MAX));
    }
    family
}

async fn own(shared: &Shared) -> Vec<Reading> {
    let reading = |name, help, value: usize| Reading { name, help, value: value as f64 };
    let mut readings = vec![
        reading("counterfoil_jobs_running", "Jobs that this gateway looks after", shared.running.count()),
        reading("counterfoil_nodes_online", "Nodes with a fresh heartbeat", shared.table().online(now_us())),
    ];
    let position = *shared.client.position().borrow();
    let fallback = shared.table().decisions().fallback_ppm() as f64 / 1e6;
    readings.push(Reading {
        name: "counterfoil_route_fallback_share",
        help: "Part of the jobs that the network's own hardware served because no operator's node could",
        value: fallback,
    });
    readings.push(reading(
        "counterfoil_requests_waiting",
        "Requests that wait for a slot of a node",
        shared.lines.waiting(),
    ));
    readings.push(reading("counterfoil_log_commits", "Commits in the log", position.commit as usize));
    readings.push(reading("counterfoil_log_events", "Events in the log", position.leaf as usize));
    let stopped = usize::from(shared.client.stopped().borrow().is_some());
    readings.push(reading("counterfoil_log_stopped", "1 when the ledger's writer has stopped", stopped));
    let open = shared.client.read(|state| ledger::query::open_jobs(state).len()).await;
    if let Ok(open) = open {
        readings.push(reading(
            "counterfoil_holds_open",
            "Holds that are neither captured nor released",
            open,
        ));
    }
    readings
}
