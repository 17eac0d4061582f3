//! Re-execution: one teacher-forced prefill over prompt and claimed output recomputes every D_i, every choice of a token and the
//! chain. Shares the arithmetic with the engine, not its scheduling. Levels in rising cost: the chain alone, a random window,
//! the whole job; a dispute about one token goes on in `dispute.rs`.

use crate::choice::{Chooser, Position};
use crate::digest::{Chain, kv_page_root};
use crate::error::Error;
use crate::forward::{Output, Row};
use crate::job::JobSpec;
use crate::kv::PAGE_POSITIONS;
use crate::model::Model;
use crate::pool::Pool;
use crate::prefill::Prefill;
use crate::request::JobRequest;
use crate::sampling::Sampler;
use std::sync::{Mutex, PoisonError};

/// In [`Verdict::Differs`]: no such token belongs there; the job had ended before this index, or its format has no place for it.
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

/// How much is re-executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// L0: the chain from the claimed digests; no arithmetic of the model. Microseconds.
    Chain,
    /// L1: L0, and `tokens` consecutive output tokens at a place that `seed` picks (choose it after the claim was made).
    Window {
        /// Output tokens to recompute.
        tokens: u32,
        /// Picks the place.
        seed: u64,
    },
    /// L2: everything.
    Whole,
}

/// What a worker claims about a job.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claim {
    /// Output tokens, with a stop token if there was one.
    pub output_ids: Vec<u32>,
    /// The digest chain after them.
    pub chain_head: [u8; 32],
    /// D of each output token; may be left empty, then only [`Level::Whole`] can be checked.
    pub activations: Vec<[u8; 32]>,
    /// Roots of full pages of keys and values, from the first; may be fewer than there are.
    pub kv_roots: Vec<[u8; 32]>,
}

/// What [`verify_job`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// About tokens and chain. At [`Level::Window`], `Identical` speaks of the chain as claimed and of the window's tokens.
    pub verdict: Verdict,
    /// First output index whose claimed D is not the computed one.
    pub activations_differ_at: Option<u32>,
    /// First page whose claimed root is not the computed one.
    pub kv_page_differs: Option<u32>,
    /// Output tokens that were recomputed.
    pub tokens_checked: u32,
}

impl Finding {
    /// True where nothing differs.
    pub fn is_identical(&self) -> bool {
        matches!(self.verdict, Verdict::Identical { .. })
            && self.activations_differ_at.is_none()
            && self.kv_page_differs.is_none()
    }
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
    let claim = Claim { output_ids: claimed_ids.to_vec(), chain_head: *claimed_head, ..Claim::default() };
    Ok(verify_job(model, threads, &spec.clone().into(), &claim, Level::Whole)?.verdict)
}

/// As [`verify`], for any request, at any level. Tokens that the request resumes are part of the claimed output.
///
/// # Errors
/// As [`verify`]; [`Error::InvalidJob`] too where a level needs digests that the claim lacks.
pub fn verify_job(
    model: &Model,
    threads: usize,
    request: &JobRequest,
    claim: &Claim,
    level: Level,
) -> Result<Finding, Error> {
    let request = JobRequest { resume: Vec::new(), ..request.clone() };
    request.check(model, model.context_length())?;
    if level != Level::Whole
        && let Some(finding) = check_chain(model, &request, claim)?
    {
        return Ok(finding);
    }
    let count = claim.output_ids.len();
    let window = match level {
        Level::Chain => 0..0,
        Level::Window { tokens, seed } => {
            let length = (tokens as usize).min(count);
            // The high half of a product spreads the seed evenly enough over the places.
            let places = (count - length + 1) as u128;
            let start = ((u128::from(seed) * places) >> 64) as usize;
            start..start + length
        }
        Level::Whole => 0..count,
    };
    let pool = Pool::new(threads)?;
    let replay = Replay {
        model,
        request: &request,
        claim,
        chooser: Chooser::new(model, &request)?,
        chain: Chain::of_request(&request, &model.id()),
        follows_chain: level == Level::Whole,
        window,
        samplers: Mutex::new(Vec::new()),
        activations_differ_at: None,
        kv_page_differs: None,
        checked: 0,
    };
    replay.finish(&pool)
}

/// L0: None where the claimed digests lead to the claimed head.
fn check_chain(model: &Model, request: &JobRequest, claim: &Claim) -> Result<Option<Finding>, Error> {
    if claim.activations.len() != claim.output_ids.len() {
        let what = format!(
            "{} digests for {} output tokens: this level needs one for each; verify the whole job instead",
            claim.activations.len(),
            claim.output_ids.len()
        );
        return Err(Error::InvalidJob { what });
    }
    let mut chain = Chain::of_request(request, &model.id());
    for (id, digest) in claim.output_ids.iter().zip(&claim.activations) {
        chain.push(*id, digest);
    }
    let computed = chain.head();
    let differs = Finding {
        verdict: Verdict::HeadDiffers { computed },
        activations_differ_at: None,
        kv_page_differs: None,
        tokens_checked: 0,
    };
    Ok((computed != claim.chain_head).then_some(differs))
}

/// A token and the digest D it was chosen from.
type Choice = (u32, [u8; 32]);

struct Replay<'v> {
    model: &'v Model,
    request: &'v JobRequest,
    claim: &'v Claim,
    chooser: Chooser,
    chain: Chain,
    /// Whether all tokens are recomputed, so that the head can be.
    follows_chain: bool,
    /// Output indices whose tokens are recomputed.
    window: std::ops::Range<usize>,
    /// Held for one pop or push.
    samplers: Mutex<Vec<Sampler>>,
    activations_differ_at: Option<u32>,
    kv_page_differs: Option<u32>,
    checked: u32,
}

impl Replay<'_> {
    fn finish(mut self, pool: &Pool) -> Result<Finding, Error> {
        let difference = self.first_difference(pool)?;
        let computed = self.chain.head();
        let verdict = match difference {
            Some(difference) => difference,
            None if !self.follows_chain || computed == self.claim.chain_head => {
                Verdict::Identical { chain_head: self.claim.chain_head }
            }
            None => Verdict::HeadDiffers { computed },
        };
        Ok(Finding {
            verdict,
            activations_differ_at: self.activations_differ_at,
            kv_page_differs: self.kv_page_differs,
            tokens_checked: self.checked,
        })
    }

    fn first_difference(&mut self, pool: &Pool) -> Result<Option<Verdict>, Error> {
        let (spec, claimed) = (&self.request.spec, &self.claim.output_ids);
        // Tokens that can be computed: up to the first claim that no row can be made of, or that comes after the end.
        let vocabulary = self.model.shape.vocabulary;
        let ends = |id: &u32| spec.is_stop(self.model, *id) || *id as usize >= vocabulary;
        let last =
            claimed.iter().position(ends).map_or(claimed.len(), |at| at + 1).min(spec.max_tokens as usize);
        let window = self.window.start.min(last)..self.window.end.min(last);
        let prompt = spec.prompt_ids.len();
        let tokens: Vec<u32> =
            spec.prompt_ids.iter().chain(&claimed[..window.end.saturating_sub(1)]).copied().collect();
        let mut found = None;
        if !window.is_empty() {
            let output = |position: usize| match (position + 1).checked_sub(prompt) {
                Some(index) if window.contains(&index) => Output::Logits,
                _ => Output::Nothing,
            };
            Prefill::new(self.model, pool).run(&tokens, output, |pass, rows| {
                self.check_pages(pass, rows);
                found = self.compare(pass, rows)?;
                Ok(found.is_none())
            })?;
        }
        let beyond = claimed.get(last).map(|claimed| Verdict::Differs {
            index: last as u32,
            expected: NO_TOKEN,
            claimed: *claimed,
        });
        Ok(found.or(beyond))
    }

    /// Compares the roots of pages that these rows have filled.
    fn check_pages(&mut self, pass: &Prefill<'_>, rows: &[Row]) {
        let (Some(first), Some(last)) = (rows.first(), rows.last()) else { return };
        for page in first.position / PAGE_POSITIONS..(last.position + 1) / PAGE_POSITIONS {
            let Some(claimed) = self.claim.kv_roots.get(page) else { return };
            if *claimed != kv_page_root(&pass.cache, self.model.kv_shape(), page) {
                self.kv_page_differs.get_or_insert(page as u32);
            }
        }
    }

    /// Chooses the tokens after the rows with logits and goes along the chain.
    fn compare(&mut self, pass: &Prefill<'_>, rows: &[Row]) -> Result<Option<Verdict>, Error> {
        let wanted: Vec<usize> = (0..rows.len()).filter(|row| rows[*row].output == Output::Logits).collect();
        let index_of = |row: usize| rows[row].position + 1 - self.request.spec.prompt_ids.len();
        // Choices that depend on the tokens before are made one after the other below.
        let free = self.chooser.is_stateless();
        let results: Vec<Mutex<Option<Choice>>> = wanted.iter().map(|_| Mutex::new(None)).collect();
        pass.pool.run(wanted.len(), |at| {
            let row = wanted[at];
            let mut sampler = lock(&self.samplers).pop().unwrap_or_default();
            let (params, index) = (&self.request.spec.params, index_of(row) as u32);
            let chosen = match free {
                true => sampler.sample(self.model.numerics, params, index, pass.space.logits(row)),
                false => Some(0),
            };
            *lock(&results[at]) = chosen.map(|id| (id, pass.space.digest(self.model, row)));
            lock(&self.samplers).push(sampler);
        });
        for (row, result) in wanted.iter().zip(results) {
            let bad = || Error::NonFinite { position: rows[*row].position as u32 };
            let (mut expected, digest) = lock(&result).ok_or_else(bad)?;
            let index = index_of(*row);
            let logits = pass.space.logits(*row);
            if let Some(difference) = self.catch_up(index) {
                return Ok(Some(difference));
            }
            if !free {
                expected = self.choose_in_order(index, logits)?.ok_or_else(bad)?;
            }
            if let Some(difference) = self.take(index, expected, &digest)? {
                return Ok(Some(difference));
            }
        }
        Ok(None)
    }

    /// Takes note of the claimed tokens before a window that begins in the middle.
    fn catch_up(&mut self, index: usize) -> Option<Verdict> {
        if self.checked > 0 {
            return None;
        }
        for (at, claimed) in self.claim.output_ids[..index].iter().enumerate() {
            let difference = |index: usize, claimed: u32| Verdict::Differs {
                index: index as u32,
                expected: NO_TOKEN,
                claimed,
            };
            match self.chooser.push(self.model, *claimed) {
                Ok(false) => {}
                Ok(true) => return Some(difference(at + 1, self.claim.output_ids[at + 1])),
                // The output's format has no place for it.
                Err(_) => return Some(difference(at, *claimed)),
            }
        }
        None
    }

    /// A choice that depends on the claimed tokens before it.
    fn choose_in_order(&mut self, index: usize, logits: &[f32]) -> Result<Option<u32>, Error> {
        let mut sampler = lock(&self.samplers).pop().unwrap_or_default();
        let position = Position { index: index as u32, logits };
        let chosen = self.chooser.choose(self.model, self.request, &mut sampler, &position);
        lock(&self.samplers).push(sampler);
        chosen
    }

    /// Compares one token and its digest; goes along the chain.
    fn take(&mut self, index: usize, expected: u32, digest: &[u8; 32]) -> Result<Option<Verdict>, Error> {
        let claimed = self.claim.output_ids[index];
        self.checked += 1;
        if self.claim.activations.get(index).is_some_and(|claimed| claimed != digest) {
            self.activations_differ_at.get_or_insert(index as u32);
        }
        if expected != claimed {
            return Ok(Some(Verdict::Differs { index: index as u32, expected, claimed }));
        }
        self.chain.push(expected, digest);
        // A token that completes a stop text is the last.
        let stopped = self.chooser.push(self.model, claimed)?;
        let beyond = |claimed: &u32| Verdict::Differs {
            index: index as u32 + 1,
            expected: NO_TOKEN,
            claimed: *claimed,
        };
        Ok(self.claim.output_ids.get(index + 1).filter(|_| stopped).map(beyond))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
