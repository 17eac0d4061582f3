//! Re-execution: one teacher-forced prefill over prompt and claimed output recomputes every D_i, every choice of a token and the
//! chain. Shares the arithmetic with the engine, not its scheduling.

use crate::digest::{Chain, activation_digest};
use crate::error::Error;
use crate::forward::{Row, Workspace};
use crate::job::JobSpec;
use crate::kv::KvCache;
use crate::model::Model;
use crate::pool::Pool;
use crate::sampling::Sampler;
use std::sync::{Mutex, PoisonError};

/// Rows of one pass.
const VERIFY_ROWS: usize = 64;

/// In [`Verdict::Differs`]: the job had ended before this index, no token belongs there.
pub const NO_TOKEN: u32 = u32::MAX;

/// What re-execution found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Every token and the chain are as claimed. The output may be a prefix (a cancelled job).
    Identical {
        /// The chain after the last token.
        chain_head: [u8; 32],
    },
    /// The first token that is not what the job gives.
    Differs {
        /// Index in the output, from 0.
        index: u32,
        /// What we computed; [`NO_TOKEN`] if the job had ended.
        expected: u32,
        /// What was claimed.
        claimed: u32,
    },
    /// The tokens agree, the chain does not: another model, prompt, parameter or job, or other activations.
    HeadDiffers {
        /// The chain that the job gives for these tokens.
        computed: [u8; 32],
    },
}

/// Re-executes `spec` on `threads` threads and compares with what was claimed: `claimed_ids`, the output tokens with a stop
/// token if there was one, and `claimed_head`, the digest chain after them.
///
/// # Errors
/// [`Error::InvalidJob`] and [`Error::ContextExceeded`] for a job that no worker could run; [`Error::NonFinite`] where no
/// honest worker would have gone on.
pub fn verify(
    model: &Model,
    threads: usize,
    spec: &JobSpec,
    claimed_ids: &[u32],
    claimed_head: &[u8; 32],
) -> Result<Verdict, Error> {
    spec.check(model, model.context_length())?;
    let pool = Pool::new(threads)?;
    let mut replay = Replay {
        model,
        pool: &pool,
        spec,
        claimed: claimed_ids,
        chain: Chain::start(spec, &model.id()),
        space: Workspace::new(model, VERIFY_ROWS, VERIFY_ROWS),
        samplers: Mutex::new(Vec::new()),
    };
    if let Some(difference) = replay.first_difference()? {
        return Ok(difference);
    }
    let computed = replay.chain.head();
    Ok(if computed == *claimed_head {
        Verdict::Identical { chain_head: computed }
    } else {
        Verdict::HeadDiffers { computed }
    })
}

/// A token and the digest D it was chosen from.
type Choice = (u32, [u8; 32]);

struct Replay<'v> {
    model: &'v Model,
    pool: &'v Pool,
    spec: &'v JobSpec,
    claimed: &'v [u32],
    chain: Chain,
    space: Workspace,
    /// Held for one pop or push.
    samplers: Mutex<Vec<Sampler>>,
}

impl Replay<'_> {
    fn first_difference(&mut self) -> Result<Option<Verdict>, Error> {
        // Tokens that can be computed: up to the first claim that no row can be made of, or that comes after the end.
        let vocabulary = self.model.shape.vocabulary;
        let stop = self
            .claimed
            .iter()
            .position(|id| self.spec.is_stop(self.model, *id) || *id as usize >= vocabulary);
        let last = stop.map_or(self.claimed.len(), |at| at + 1).min(self.spec.max_tokens as usize);
        let prompt = &self.spec.prompt_ids;
        let tokens: Vec<u32> =
            prompt.iter().chain(&self.claimed[..last.saturating_sub(1)]).copied().collect();
        let mut cache = KvCache::new(self.model.kv_shape());
        // Nothing was claimed, nothing needs to be run.
        let end = if last == 0 { 0 } else { tokens.len() };
        for start in (0..end).step_by(VERIFY_ROWS) {
            let rows: Vec<Row> = (start..end.min(start + VERIFY_ROWS))
                .map(|position| Row {
                    sequence: 0,
                    position,
                    token: tokens[position],
                    output: position + 1 >= prompt.len(),
                })
                .collect();
            cache.grow(start + rows.len(), &mut Vec::new());
            self.model.forward(self.pool, &mut self.space, &rows, &mut [&mut cache]);
            if let Some(difference) = self.compare(&rows)? {
                return Ok(Some(difference));
            }
        }
        let beyond = self.claimed.get(last).map(|claimed| Verdict::Differs {
            index: last as u32,
            expected: NO_TOKEN,
            claimed: *claimed,
        });
        Ok(beyond)
    }

    /// Chooses the tokens after the rows with output and goes along the chain.
    fn compare(&mut self, rows: &[Row]) -> Result<Option<Verdict>, Error> {
        if let Some(row) = (0..rows.len()).find(|row| self.space.is_bad(*row)) {
            return Err(Error::NonFinite { position: rows[row].position as u32 });
        }
        let outputs: Vec<usize> = rows.iter().filter(|row| row.output).map(|row| row.position).collect();
        let first_index = |position: usize| position + 1 - self.spec.prompt_ids.len();
        let results: Vec<Mutex<Option<Choice>>> = outputs.iter().map(|_| Mutex::new(None)).collect();
        self.pool.run(outputs.len(), |output| {
            let mut sampler = lock(&self.samplers).pop().unwrap_or_default();
            let index = first_index(outputs[output]) as u32;
            let chosen =
                sampler.sample(self.model.numerics, &self.spec.params, index, self.space.logits(output));
            let digest = activation_digest(self.space.last(), output, self.model.head().is_quantised());
            *lock(&results[output]) = chosen.map(|id| (id, digest));
            lock(&self.samplers).push(sampler);
        });
        for (position, result) in outputs.iter().zip(results) {
            let Some((expected, digest)) = *lock(&result) else {
                return Err(Error::NonFinite { position: *position as u32 });
            };
            let index = first_index(*position);
            let claimed = self.claimed[index];
            if expected != claimed {
                return Ok(Some(Verdict::Differs { index: index as u32, expected, claimed }));
            }
            self.chain.push(expected, &digest);
        }
        Ok(None)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
