//! The pages of a network: what they are given here. Must not: what they look like.

use crate::audit_doors::CpuKernels;
use auditor::sample::{Reexecution, Reexecutor, Verdict as Found};
use dispatcher::{Pages, Welcome};
use pages::{BooksAccess, PagesOptions, Rerun, Reruns, Verdict};
use protocol::amount::Amount;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

/// What a newcomer gets on a development network: half a token of nine digits, about a hundred answers.
const WELCOME_BASE_UNITS: i128 = 500_000_000;
/// For all newcomers together.
const WELCOME_BUDGET_BASE_UNITS: i128 = 100_000_000_000;
/// How long it can be spent.
const WELCOME_LIFE_S: u64 = 30 * 86_400;

/// For a network on one's own machine: books open to whoever reaches it, answers run again with the weights at hand.
pub fn of_development(model: PathBuf) -> Pages {
    let reruns: Arc<dyn Reruns> = Arc::new(CpuReruns { model, loaded: OnceLock::new() });
    mounted(PagesOptions { reruns: Some(reruns), books: BooksAccess::Everybody })
}

/// For a gateway among others: books for auditors, nothing is run again there.
pub fn of_gateway() -> Pages {
    mounted(PagesOptions { reruns: None, books: BooksAccess::Auditors })
}

fn mounted(options: PagesOptions) -> Pages {
    Arc::new(move |desk| pages::router(desk, options.clone()))
}

/// The newcomers' credit of a development network.
pub fn welcome() -> Welcome {
    Welcome {
        amount: Amount(WELCOME_BASE_UNITS),
        budget: Amount(WELCOME_BUDGET_BASE_UNITS),
        life_s: WELCOME_LIFE_S,
    }
}

/// Runs answers again on this machine's CPU; the weights are read when somebody first asks.
struct CpuReruns {
    model: PathBuf,
    loaded: OnceLock<Result<CpuKernels, String>>,
}

impl Reruns for CpuReruns {
    fn rerun(&self, job: &Rerun) -> Verdict {
        let loaded = self.loaded.get_or_init(|| CpuKernels::load(&self.model).map_err(|e| format!("{e:#}")));
        let kernels = match loaded {
            Ok(kernels) => kernels,
            Err(reason) => return Verdict::Unavailable(reason.clone()),
        };
        let found = kernels.reexecute(&Reexecution {
            job: job.job,
            model: &job.model,
            weights: job.weights,
            body: &job.body,
            sampling_key: job.body.sampling_key,
            output_ids: &job.output_ids,
            chain_head: job.chain_head,
        });
        match found {
            Found::Identical => Verdict::Identical,
            Found::Differs { token, expected, actual } => {
                let place = token.map_or_else(|| "The digest".to_owned(), |token| format!("Token {token}"));
                Verdict::Differs(format!("{place} differs: here {expected}, in the receipt {actual}."))
            }
            Found::Unavailable(reason) => Verdict::Unavailable(reason),
        }
    }
}
