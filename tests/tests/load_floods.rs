//! Loads on a running network. By default so small that they take seconds and say only that nothing falls over;
//! `cargo xtask load` runs them in full and prints figures.

use network_tests::load::{
    Calls, answers, idle_connections, refusals, resident_mib, sleeping_readers, small_streams, tell,
};
use network_tests::{Network, NetworkOptions};
use serde_json::json;
use std::time::Duration;

struct Size {
    idle: usize,
    sleepers: usize,
    refusals: u64,
    streams: u64,
    answers: u64,
}

/// Enough to see that nothing falls over.
const SMALL: Size = Size { idle: 300, sleepers: 6, refusals: 150, streams: 16, answers: 8 };
/// What is asked of a gateway.
const FULL: Size = Size { idle: 10_000, sleepers: 40, refusals: 5_000, streams: 400, answers: 60 };

fn figures(what: &str, calls: &Calls) {
    let value = json!({
        "calls": calls.times.len(),
        "per_second": (calls.rate() * 10.0).round() / 10.0,
        "p50_ms": calls.percentile(50).as_millis() as u64,
        "p99_ms": calls.percentile(99).as_millis() as u64,
        "statuses": calls.statuses,
    });
    tell(what, &value);
}

#[test]
fn a_gateway_under_floods_serves_on() {
    let full = std::env::var_os("COUNTERFOIL_LOAD").is_some_and(|load| load == "full");
    let size = if full { FULL } else { SMALL };
    let dir = tempfile::tempdir().expect("a directory");
    let data = dir.path().join("data");
    let network = Network::up(NetworkOptions { data: &data, story: false });
    let memory = resident_mib(network.pid());

    // Those who say nothing cost nothing but their sockets.
    let quiet = idle_connections(&network, size.idle);
    assert_eq!(quiet.len(), size.idle, "the gateway takes them");
    let (status, answer) = network.chat("Name the capital of France.", 8);
    assert_eq!(status, 200, "beside {} idle connections: {answer}", quiet.len());
    let with_idle = resident_mib(network.pid());
    tell(
        "idle connections",
        &json!({"count": quiet.len(), "memory_mib": {"before": memory, "with": with_idle}}),
    );
    drop(quiet);

    let refused = refusals(&network, size.refusals, 8);
    figures("calls without credit (402)", &refused);
    assert_eq!(refused.count(402), size.refusals, "each is refused for what it is: {:?}", refused.statuses);

    let streams = small_streams(&network, size.streams, 8);
    figures("streams of one token, 8 at once", &streams);
    assert_eq!(streams.count(200), size.streams, "each is whole: {:?}", streams.statuses);

    let sleepers = sleeping_readers(&network, size.sleepers);
    let (status, answer) = network.chat("Name the capital of France.", 4);
    assert!([200, 503].contains(&status), "beside {} readers that sleep: {answer}", sleepers.len());
    drop(sleepers);

    overload(&network, &size);
    let after = resident_mib(network.pid());
    tell("memory of the coordinator, MiB", &json!({"before": memory, "after": after}));
    assert!(after < memory + 400, "memory is bounded: {memory} MiB before, {after} MiB after");
    wait_for_no_hold(&network);
    assert!(network.interrupt().success());
    network_tests::check::audit_replay(&data);
}

/// Three times what the node has slots for: whole answers or an honest 503, and no fewer whole ones than without the crowd.
fn overload(network: &Network, size: &Size) {
    let calm = answers(network, size.answers, 4, 8);
    figures("4 callers, 4 slots", &calm);
    let crowd = answers(network, size.answers * 3, 12, 8);
    figures("12 callers, 4 slots", &crowd);
    let rate = |calls: &Calls| calls.count(200) as f64 / calls.took.as_secs_f64();
    let goodput = rate(&crowd) / rate(&calm);
    tell("goodput at three times the load", &json!((goodput * 100.0).round() / 100.0));
    let honest = crowd.statuses.keys().all(|status| [200, 429, 503].contains(status));
    assert!(honest, "{:?}", crowd.statuses);
    // On a machine that does other things too; the full run's figure is for people.
    assert!(goodput > 0.5, "{goodput}");
}

fn wait_for_no_hold(network: &Network) {
    let begun = std::time::Instant::now();
    while network.held() > 0 {
        assert!(begun.elapsed() < Duration::from_secs(60), "a hold is left");
        std::thread::park_timeout(Duration::from_millis(50));
    }
}
