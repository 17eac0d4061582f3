//! Whether an output that somebody else's backend made is plausible for known weights: it is teacher-forced through our kernels,
//! and the ranks and log-probabilities of its tokens are compared with what honest output looks like. Statistics, not proof.

use crate::error::Error;
use crate::forward::Output;
use crate::job::{JobSpec, SamplingParams};
use crate::model::Model;
use crate::pool::Pool;
use crate::prefill::Prefill;
use crate::sampling::Sampler;

/// Mean rank from which an output of a low temperature is no longer plausible; see `specs/numerics.md`, P, for what was measured.
const GREEDY_RANK_MEAN_MAX: f64 = 0.5;
/// A token beyond this rank is an outlier.
const OUTLIER_RANK: u32 = 32;
/// Share of outliers from which an output of a low temperature is no longer plausible.
const GREEDY_OUTLIERS_MAX: f64 = 0.02;
/// Log-probability below its expectation, in standard errors, from which a sampled output is no longer plausible.
const DEVIATIONS_MAX: f64 = 4.0;
/// Temperatures up to here count as greedy.
const GREEDY_TEMPERATURE_MILLIONTHS: u32 = 300_000;
/// Fewer tokens say nothing.
pub const PLAUSIBILITY_TOKENS_MIN: u32 = 16;

/// What the tokens of an output look like under the weights.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Plausibility {
    /// Output tokens.
    pub tokens: u32,
    /// Mean rank of the tokens; 0 = always the most likely one.
    pub rank_mean: f64,
    /// Share of tokens that are the most likely one.
    pub first_share: f64,
    /// Share of tokens beyond rank 32.
    pub outlier_share: f64,
    /// Mean log-probability at the job's temperature (1 where it is greedy), natural logarithm.
    pub logprob_mean: f64,
    /// How far the sum of log-probabilities lies from what sampling gives, in its standard deviations; negative = less likely.
    pub deviations: f64,
    /// Whether the output passes; None for too few tokens.
    pub plausible: Option<bool>,
}

/// Sums over the tokens.
#[derive(Default)]
struct Sums {
    tokens: u32,
    rank: f64,
    first: u32,
    outliers: u32,
    logprob: f64,
    expected: f64,
    variance: f64,
}

/// Judges `output_ids` as an output of `prompt_ids` at a temperature, on `threads` threads.
///
/// # Errors
/// [`Error::InvalidJob`] for empty or unknown tokens; [`Error::ContextExceeded`]; [`Error::NonFinite`].
pub fn plausibility(
    model: &Model,
    threads: usize,
    prompt_ids: &[u32],
    output_ids: &[u32],
    temperature_millionths: u32,
) -> Result<Plausibility, Error> {
    let params = SamplingParams { temperature_millionths, ..SamplingParams::greedy() };
    let all = [prompt_ids, output_ids].concat();
    let max_tokens = output_ids.len().max(1) as u32;
    let spec = JobSpec {
        job_id: [0; 16],
        prompt_ids: prompt_ids.to_vec(),
        max_tokens,
        params,
        stop_ids: Vec::new(),
    };
    spec.check(model, model.context_length())?;
    if let Some(id) = output_ids.iter().find(|id| **id as usize >= model.shape.vocabulary) {
        return Err(Error::InvalidJob { what: format!("output token {id} is outside the vocabulary") });
    }
    let greedy = temperature_millionths <= GREEDY_TEMPERATURE_MILLIONTHS;
    let temperature = if greedy { 1.0 } else { f64::from(temperature_millionths) / 1e6 };
    let pool = Pool::new(threads)?;
    let mut sums = Sums::default();
    let tokens = &all[..all.len() - 1];
    let output =
        |position: usize| if position + 1 >= prompt_ids.len() { Output::Logits } else { Output::Nothing };
    if !output_ids.is_empty() {
        Prefill::new(model, &pool).run(tokens, output, |pass, rows| {
            for (row, place) in rows.iter().enumerate().filter(|(_, row)| row.output == Output::Logits) {
                sums.take(pass.space.logits(row), all[place.position + 1], temperature);
            }
            Ok(true)
        })?;
    }
    Ok(sums.judge(greedy))
}

impl Sums {
    fn take(&mut self, logits: &[f32], id: u32, temperature: f64) {
        let rank = Sampler::rank(logits, id);
        let maximum = logits.iter().copied().fold(f32::MIN, f32::max);
        let scaled = |logit: f32| f64::from(logit - maximum) / temperature;
        let (mut total, mut first, mut second) = (0.0, 0.0, 0.0);
        for logit in logits {
            let x = scaled(*logit);
            let weight = x.exp();
            total += weight;
            first += weight * x;
            second += weight * x * x;
        }
        // Mean and variance of log p over p itself: entropy, and how much one draw varies.
        let (mean, log_total) = (first / total, total.ln());
        self.tokens += 1;
        self.rank += f64::from(rank);
        self.first += u32::from(rank == 0);
        self.outliers += u32::from(rank > OUTLIER_RANK);
        self.logprob += scaled(logits[id as usize]) - log_total;
        self.expected += mean - log_total;
        self.variance += second / total - mean * mean;
    }

    fn judge(&self, greedy: bool) -> Plausibility {
        let count = f64::from(self.tokens.max(1));
        let deviations = (self.logprob - self.expected) / self.variance.max(1e-9).sqrt();
        let (rank_mean, outlier_share) = (self.rank / count, f64::from(self.outliers) / count);
        let passes = match greedy {
            true => rank_mean <= GREEDY_RANK_MEAN_MAX && outlier_share <= GREEDY_OUTLIERS_MAX,
            false => deviations >= -DEVIATIONS_MAX,
        };
        Plausibility {
            tokens: self.tokens,
            rank_mean,
            first_share: f64::from(self.first) / count,
            outlier_share,
            logprob_mean: self.logprob / count,
            deviations,
            plausible: (self.tokens >= PLAUSIBILITY_TOKENS_MIN).then_some(passes),
        }
    }
}

#[cfg(test)]
mod tests;
