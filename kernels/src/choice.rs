//! The choice of a job's tokens, one after another: what the job's controls make of the logits (I), and when its output ends.
//! State of one job; no model arithmetic.

use crate::error::Error;
use crate::grammar::Grammar;
use crate::job::MILLION;
use crate::model::Model;
use crate::request::{Controls, JobRequest};
use crate::sampling::Sampler;
use std::collections::{BTreeMap, BTreeSet};

/// What the tokens so far mean for the next.
pub(crate) struct Chooser {
    controls: Controls,
    /// True where the controls change nothing: the logits are used as they are.
    plain: bool,
    /// Tokens of prompt and output.
    seen: BTreeSet<u32>,
    /// How often each token occurs in the output.
    counts: BTreeMap<u32, u32>,
    grammar: Option<Grammar>,
    /// The last bytes of the output: as many as a stop text needs.
    tail: Vec<u8>,
    adjusted: Vec<f32>,
}

/// Which token is chosen, and from what.
pub(crate) struct Position<'a> {
    /// Output index.
    pub index: u32,
    pub logits: &'a [f32],
}

impl Chooser {
    /// At the first output token.
    pub(crate) fn new(model: &Model, request: &JobRequest) -> Result<Chooser, Error> {
        let controls = request.controls.clone();
        let plain = Controls { stop_texts: Vec::new(), ..controls.clone() } == Controls::default();
        let grammar = Grammar::new(model, &controls.format)?;
        let seen = match controls.repetition_penalty_millionths {
            MILLION => BTreeSet::new(),
            _ => request.spec.prompt_ids.iter().copied().collect(),
        };
        let (counts, tail, adjusted) = (BTreeMap::new(), Vec::new(), Vec::new());
        Ok(Chooser { controls, plain, seen, counts, grammar, tail, adjusted })
    }

    /// True where each choice is a function of its logits and index alone.
    pub(crate) fn is_stateless(&self) -> bool {
        self.plain
    }

    /// The token at `position`; None where a logit is not finite.
    pub(crate) fn choose(
        &mut self,
        model: &Model,
        request: &JobRequest,
        sampler: &mut Sampler,
        position: &Position<'_>,
    ) -> Result<Option<u32>, Error> {
        let params = &request.spec.params;
        if self.plain {
            return Ok(sampler.sample(model.numerics, params, position.index, position.logits));
        }
        self.adjust(position.logits);
        let allowed = self.grammar.as_mut().map(Grammar::allowed).transpose()?;
        let controls = crate::sampling::Cuts { min_p_millionths: self.controls.min_p_millionths, allowed };
        Ok(sampler.sample_controlled(model.numerics, params, &controls, position.index, &self.adjusted))
    }

    /// I, steps 0.1 to 0.3, on a copy.
    fn adjust(&mut self, logits: &[f32]) {
        self.adjusted.clear();
        self.adjusted.extend_from_slice(logits);
        let real = |millionths: i64| (millionths as f64 / f64::from(MILLION)) as f32;
        let controls = &self.controls;
        if controls.repetition_penalty_millionths != MILLION {
            let penalty = real(controls.repetition_penalty_millionths.into());
            for id in &self.seen {
                let logit = &mut self.adjusted[*id as usize];
                *logit = if *logit > 0.0 { *logit / penalty } else { *logit * penalty };
            }
        }
        let frequency = real(controls.frequency_penalty_millionths.into());
        let presence = real(controls.presence_penalty_millionths.into());
        if frequency != 0.0 || presence != 0.0 {
            for (id, count) in &self.counts {
                let logit = &mut self.adjusted[*id as usize];
                let product = frequency * *count as f32;
                *logit = (*logit - product) - presence;
            }
        }
        for (id, bias) in &controls.logit_bias {
            self.adjusted[*id as usize] += real((*bias).into());
        }
    }

    /// Takes note of an output token; true if it completes a stop text.
    pub(crate) fn push(&mut self, model: &Model, id: u32) -> Result<bool, Error> {
        if !self.plain {
            *self.counts.entry(id).or_default() += 1;
            if self.controls.repetition_penalty_millionths != MILLION {
                self.seen.insert(id);
            }
        }
        if let Some(grammar) = &mut self.grammar
            && id != model.eos()
        {
            grammar.push(id)?;
        }
        if self.controls.stop_texts.is_empty() {
            return Ok(false);
        }
        let bytes = model.tokenizer().token_bytes(id);
        self.tail.extend_from_slice(bytes);
        let stops = &self.controls.stop_texts;
        let found = stops.iter().any(|stop| {
            // Only an occurrence that ends in the new bytes: earlier ones ended the job.
            let from = self.tail.len().saturating_sub(bytes.len() + stop.len() - 1);
            self.tail[from..].windows(stop.len()).any(|window| window == stop.as_bytes())
        });
        let keep = stops.iter().map(String::len).max().unwrap_or(0);
        self.tail.drain(..self.tail.len().saturating_sub(keep));
        Ok(found)
    }
}
