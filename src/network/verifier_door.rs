//! Runs charged answers again on this machine's processor, one at a time and on one thread: the network's own work goes first.

use dispatcher::doors::{DoorError, DoorFuture, Recheck, Rechecked, ReexecutionDoor};
use kernels::{JobSpec, LoadOptions, Model, SamplingParams, Verdict};
use protocol::id::Hash32;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

/// See the module.
pub struct Rerunner {
    path: PathBuf,
    /// Loaded when the first answer is drawn.
    model: Arc<OnceLock<Result<Arc<Model>, String>>>,
}

impl Rerunner {
    /// Of the model in this file.
    pub fn new(path: PathBuf) -> Rerunner {
        Rerunner { path, model: Arc::default() }
    }
}

impl ReexecutionDoor for Rerunner {
    fn reexecute(&self, what: Recheck) -> DoorFuture<'_, Rechecked> {
        let (path, model) = (self.path.clone(), Arc::clone(&self.model));
        Box::pin(async move {
            let ran = tokio::task::spawn_blocking(move || {
                let load = || {
                    let options = LoadOptions::from_environment().map_err(|e| e.to_string())?;
                    Model::load(&path, options).map_err(|e| format!("{}: {e}", path.display()))
                };
                let model =
                    model.get_or_init(load).as_ref().map_err(|e| DoorError::Unavailable(e.clone()))?;
                run_again(model, &what)
            });
            ran.await.map_err(|e| DoorError::Unavailable(e.to_string()))?
        })
    }
}

fn run_again(model: &Model, what: &Recheck) -> Result<Rechecked, DoorError> {
    if what.weights.0 != model.id() {
        let ours = Hash32(model.id());
        let text = format!("the job ran on weights {}, this file is {ours}", what.weights);
        return Err(DoorError::Unavailable(text));
    }
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
    match kernels::verify(model, 1, &spec, &what.output_ids, &what.chain_head.0) {
        Ok(Verdict::Identical { .. }) => Ok(Rechecked::Same),
        Ok(Verdict::Differs { index, .. }) => Ok(Rechecked::Differs { token: Some(u64::from(index)) }),
        Ok(Verdict::HeadDiffers { .. }) => Ok(Rechecked::Differs { token: None }),
        Err(error) => Err(DoorError::Unavailable(error.to_string())),
    }
}
