//! The operator's view: credentials, doctor, heartbeats, one worker per directory.

use crate::gateway::{Job, MODEL_NAME, NODE, Network, sealing_key, within};
use worker::doctor::{Verdict, examine};
use worker::{BackendOptions, Worker, WorkerError, WorkerOptions};

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_says_that_it_lives_and_what_it_serves() {
    let mut network = Network::start().await;
    let _worker = network.worker(3).await;
    let first = network.next_heartbeat().await;
    assert_eq!((first.node, first.slots, first.inflight, first.draining), (NODE, 3, 0, false));
    assert_eq!(first.models, [MODEL_NAME]);
    assert_eq!(network.next_heartbeat().await.seq, first.seq + 1);
    let second = Worker::start(network.worker_options(3)).await.err().expect("the directory is taken");
    assert!(matches!(second, WorkerError::InUse(_)), "{second}");
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_of_another_network_are_refused_at_once() {
    let (network, other) = (Network::start().await, Network::start().await);
    let mut options = network.worker_options(1);
    options.operator_jwt = other.server.keys().issue_operator(&network.operator.public_key()).unwrap();
    let error = within("the refusal", Worker::start(options)).await.err().expect("a stranger");
    assert!(matches!(error, WorkerError::Credentials { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_doctor_finds_a_healthy_worker_and_names_what_is_wrong_with_others() {
    let network = Network::start().await;
    let verdicts = |diagnosis: &worker::doctor::Diagnosis| -> Vec<(String, Verdict)> {
        diagnosis.checks.iter().map(|c| (c.name.clone(), c.verdict)).collect()
    };
    let healthy = examine(&network.worker_options(2)).await;
    let clock = healthy.checks.iter().find(|c| c.name == "clock").unwrap().verdict;
    assert!(matches!(clock, Verdict::Passed | Verdict::Inconclusive), "{healthy:?}");
    assert!(healthy.checks.iter().all(|c| c.name == "clock" || c.verdict == Verdict::Passed), "{healthy:?}");

    let mut broken = network.worker_options(2);
    broken.nodes[0].models[0].backend =
        BackendOptions::Builtin { path: network.dir.path().join("missing.gguf") };
    broken.nats_url = "nats://127.0.0.1:1".into();
    let diagnosis = examine(&broken).await;
    assert_eq!(diagnosis.verdict(), Verdict::Failed);
    let failed: Vec<_> = verdicts(&diagnosis).into_iter().filter(|(_, v)| *v == Verdict::Failed).collect();
    let names: Vec<&str> = failed.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["connection", &format!("model {MODEL_NAME}")]);
    assert!(diagnosis.checks.iter().filter(|c| c.verdict != Verdict::Passed).all(|c| !c.remedy.is_empty()));
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_are_on_loopback_only_and_count_what_was_done() {
    let mut network = Network::start().await;
    let outside = WorkerOptions { metrics: Some("0.0.0.0:0".parse().unwrap()), ..network.worker_options(1) };
    let refused = Worker::start(outside).await.err().expect("anybody could read it");
    assert!(refused.to_string().contains("expected a loopback address"), "{refused}");
    let options =
        WorkerOptions { metrics: Some("127.0.0.1:0".parse().unwrap()), ..network.worker_options(1) };
    let worker = Worker::start(options).await.unwrap();
    let address = worker.handle().metrics_address().unwrap();
    let job = Job::new(sealing_key(&worker), "Say hello.", 8);
    network.send(&job).await;
    network.expect_accept(&job).await;
    let ids = network.answer_of(&job).await.ids().len();
    let metrics = get(address, "/metrics").await;
    assert!(
        metrics.contains(&format!("counterfoil_worker_tokens_total{{direction=\"output\"}} {ids}\n")),
        "{metrics}"
    );
    assert!(metrics.contains("counterfoil_worker_jobs_total{outcome=\"finished\"} 1\n"), "{metrics}");
    assert!(
        metrics.contains("counterfoil_worker_first_token_seconds_count 1\n") && metrics.ends_with("# EOF\n")
    );
    assert!(get(address, "/readyz").await.ends_with("ready\n"));
    assert!(get(address, "/secret").await.starts_with("HTTP/1.1 404"));
}

async fn get(address: std::net::SocketAddr, path: &str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: worker\r\n\r\n").as_bytes()).await.unwrap();
    let mut all = String::new();
    within("an answer", stream.read_to_string(&mut all)).await.unwrap();
    all
}
