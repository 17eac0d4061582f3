//! Runs charged answers again on this machine's processor, one at a time and on one thread: the network's own work goes first.

use dispatcher::doors::{DoorError, DoorFuture, Recheck, Rechecked, ReexecutionDoor};
use kernels::{Claim, Level, LoadOptions, Model, Verdict};
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
    let claim =
        Claim { output_ids: what.output_ids.clone(), chain_head: what.chain_head.0, ..Claim::default() };
    // Everything that the worker was asked, controls too: another request would have another answer.
    let request = worker::backend::job_request(&what.body);
    match kernels::verify_job(model, 1, &request, &claim, Level::Whole).map(|finding| finding.verdict) {
        Ok(Verdict::Identical { .. }) => Ok(Rechecked::Same),
        Ok(Verdict::Differs { index, .. }) => Ok(Rechecked::Differs { token: Some(u64::from(index)) }),
        Ok(Verdict::HeadDiffers { .. }) => Ok(Rechecked::Differs { token: None }),
        Err(error) => Err(DoorError::Unavailable(error.to_string())),
    }
}
