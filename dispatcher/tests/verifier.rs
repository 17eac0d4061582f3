//! A charge is run again on the real model: a worker that made its answer up loses the charge and gets no more jobs.

mod network;

use dispatcher::doors::{DoorError, DoorFuture, Recheck, Rechecked, ReexecutionDoor};
use dispatcher::{Challenges, GatewayOptions, VerifierOptions};
use journal::auth::{Role, connect};
use kernels::{JobSpec, LoadOptions, Model, SamplingParams, Verdict};
use network::worker::{Script, Worker};
use network::{Customer, MODEL, Network, eventually, job_of};
use serde_json::json;
use std::path::Path;
use std::sync::Arc;

const CREDIT: i128 = 1_000_000_000;

struct Kernels(Arc<Model>);

impl ReexecutionDoor for Kernels {
    fn reexecute(&self, what: Recheck) -> DoorFuture<'_, Rechecked> {
        let model = self.0.clone();
        Box::pin(async move {
            let body = &what.body;
            let spec = JobSpec {
                job_id: what.job.0,
                prompt_ids: body.prompt_ids.clone(),
                max_tokens: body.max_tokens,
                params: SamplingParams {
                    temperature_millionths: body.temperature_millionths,
                    top_p_millionths: body.top_p_millionths,
                    top_k: body.top_k,
                    sampling_key: body.sampling_key.0,
                },
                stop_ids: Vec::new(),
            };
            match kernels::verify(&model, 1, &spec, &what.output_ids, &what.chain_head.0) {
                Ok(Verdict::Identical { .. }) => Ok(Rechecked::Same),
                Ok(Verdict::Differs { index, .. }) => {
                    Ok(Rechecked::Differs { token: Some(u64::from(index)) })
                }
                Ok(Verdict::HeadDiffers { .. }) => Ok(Rechecked::Differs { token: None }),
                Err(error) => Err(DoorError::Unavailable(error.to_string())),
            }
        })
    }
}

fn verifier(share_ppm: u32, challenges: Challenges) -> VerifierOptions {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.tools/models/SmolLM2-135M-Instruct.Q4_1.gguf");
    let model = Model::load(&path, LoadOptions::from_environment().unwrap()).expect("run cargo xtask tools");
    VerifierOptions { door: Arc::new(Kernels(model)), share_ppm, challenges }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_was_made_up_is_given_back_and_its_operator_stopped() {
    let network = Network::start().await;
    let verifier = verifier(1_000_000, Challenges::Nobody);
    let nats =
        connect(&network.server.url(), network.server.keys().credentials(Role::Gateway)).await.unwrap();
    let options = GatewayOptions { verifier: Some(verifier), ..network.options(nats) };
    let gateway = dispatcher::Gateway::start(options).await.unwrap();
    let owner = Customer::open(gateway.local_addr(), 0).await;
    let worker = Worker::start(&owner, 1, 4).await;
    let customer = Customer::open(gateway.local_addr(), CREDIT).await;
    worker.then(Script::Say("I did not run any model for this."));
    let answer = customer.chat(json!({})).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let job = job_of(&answer);
    eventually("the charge is reversed", || async {
        network.job(job).await.charge.is_some_and(|charge| charge.reversed)
    })
    .await;
    assert_eq!(network.balance(customer.account).await, (CREDIT, 0));
    let told = customer.get(&format!("/v1/nodes/{}", worker.node)).await.json();
    assert_eq!(told["why"][MODEL], "refuted", "{told}");
    assert_eq!(customer.chat(json!({})).await.status, 503, "it gets no more jobs");
    let metrics = customer.get("/metrics").await.text();
    assert!(metrics.contains("counterfoil_reexecutions_total{reason=\"differs\"} 1"), "{metrics}");
    gateway.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newcomer_that_does_not_run_its_model_is_found_before_it_is_paid() {
    let network = Network::start().await;
    let nats =
        connect(&network.server.url(), network.server.keys().credentials(Role::Gateway)).await.unwrap();
    let options =
        GatewayOptions { verifier: Some(verifier(0, Challenges::Newcomers)), ..network.options(nats) };
    let gateway = dispatcher::Gateway::start(options).await.unwrap();
    let owner = Customer::open(gateway.local_addr(), 0).await;
    let worker = Worker::join(&owner, 1, 4, Arc::default()).await;
    let path = format!("/v1/nodes/{}", worker.node);
    eventually("it is refuted", || async { owner.get(&path).await.json()["why"][MODEL] == "refuted" }).await;
    gateway.shutdown().await;
}
