//! L3: a dispute about one output token is narrowed to one operation of one layer, which the scalar reference then decides. Both
//! sides walk the row that the token was chosen from and commit to a chain of digests, one per operation; the chains differ
//! from the first differing operation on, so a binary search finds it with few questions (`specs/numerics.md`, N).

use crate::error::Error;
use crate::forward::Output;
use crate::kv::{KvCache, KvShape};
use crate::model::{Layer, Model};
use crate::numerics::{Activations, Attention, AttentionScratch, Matmul, Numerics, SharedSlice, scalar};
use crate::packed::PackedMatrix;
use crate::pool::Pool;
use crate::prefill::Prefill;
use crate::request::JobRequest;
use crate::rope::RopePairs;

/// One step of a row through the decoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// The row's embedding.
    Embedding,
    /// C before attention.
    AttentionNorm,
    /// B: queries, keys and values.
    Projections,
    /// Biases, norms of heads, and D.
    Rotation,
    /// E: keys and values of all positions up to this one, as stored.
    KeysValues,
    /// F.
    Attention,
    /// B, added to the stream.
    AttentionOutput,
    /// C before the feed-forward part.
    FeedForwardNorm,
    /// B: gate and up.
    GateUp,
    /// silu(gate) * up.
    Activation,
    /// B, added to the stream.
    Down,
    /// C after the last layer.
    FinalNorm,
    /// B: logits.
    Logits,
}

/// Steps of one layer.
const LAYER_STEPS: usize = 10;

/// What one side says about a row: the chain over its operations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace {
    /// c_k = H(c_{k-1} || H(f32 values of step k)), c before the first step = 32 zero bytes.
    pub chain: Vec<[u8; 32]>,
}

/// The end of a dispute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dispute {
    /// Both sides compute the same.
    Agreed,
    /// The first operation that differs, and who follows the reference in it.
    Operation {
        /// Step, from 0.
        step: usize,
        /// Layer; None for the embedding and what comes after the last layer.
        layer: Option<usize>,
        /// Which operation.
        operation: Operation,
        /// Whether this machine's result is that of the scalar reference.
        ours_stands: bool,
        /// Whether the other side's is.
        theirs_stands: bool,
    },
}

/// Layer and operation of a step of a model of `layers` layers.
pub(crate) fn step_name(step: usize, layers: usize) -> (Option<usize>, Operation) {
    use Operation::{
        Activation, Attention, AttentionNorm, AttentionOutput, Down, FeedForwardNorm, GateUp, KeysValues,
        Projections, Rotation,
    };
    const OF_LAYER: [Operation; LAYER_STEPS] = [
        AttentionNorm,
        Projections,
        Rotation,
        KeysValues,
        Attention,
        AttentionOutput,
        FeedForwardNorm,
        GateUp,
        Activation,
        Down,
    ];
    match step.checked_sub(1) {
        None => (None, Operation::Embedding),
        Some(at) if at < layers * LAYER_STEPS => (Some(at / LAYER_STEPS), OF_LAYER[at % LAYER_STEPS]),
        Some(at) if at == layers * LAYER_STEPS => (None, Operation::FinalNorm),
        Some(_) => (None, Operation::Logits),
    }
}

/// The trace of the row that output token `index` was chosen from.
///
/// # Errors
/// As [`crate::verify`]; [`Error::InvalidJob`] for an index beyond the output.
pub fn trace(
    model: &Model,
    threads: usize,
    request: &JobRequest,
    output_ids: &[u32],
    index: u32,
) -> Result<Trace, Error> {
    let row = DisputedRow::new(model, threads, request, output_ids, index)?;
    Ok(Trace { chain: row.walk(|_| model.numerics)?.0 })
}

/// Settles a dispute about output token `index`. `theirs` answers what the other side's chain is after a step; it is asked
/// about log2 of the number of steps.
///
/// # Errors
/// As [`trace`].
pub fn settle(
    model: &Model,
    threads: usize,
    request: &JobRequest,
    output_ids: &[u32],
    index: u32,
    mut theirs: impl FnMut(usize) -> [u8; 32],
) -> Result<Dispute, Error> {
    let row = DisputedRow::new(model, threads, request, output_ids, index)?;
    let (ours, _) = row.walk(|_| model.numerics)?;
    let last = ours.len() - 1;
    if theirs(last) == ours[last] {
        return Ok(Dispute::Agreed);
    }
    // Invariant: the chains agree before `low` and differ at `high`.
    let (mut low, mut high) = (0, last);
    while low < high {
        let middle = low + (high - low) / 2;
        if theirs(middle) == ours[middle] { low = middle + 1 } else { high = middle }
    }
    // Only this step by the reference: its inputs are those that both sides agree on.
    let (reference, _) = row.walk(|step| if step == low { &scalar::Scalar } else { model.numerics })?;
    let (layer, operation) = step_name(low, model.shape.layers);
    Ok(Dispute::Operation {
        step: low,
        layer,
        operation,
        ours_stands: reference[low] == ours[low],
        theirs_stands: reference[low] == theirs(low),
    })
}

/// The row in dispute, with the keys and values of all positions before it.
struct DisputedRow<'d> {
    model: &'d Model,
    cache: KvCache,
    shape: KvShape,
    token: u32,
    position: usize,
}

impl<'d> DisputedRow<'d> {
    fn new(
        model: &'d Model,
        threads: usize,
        request: &JobRequest,
        output_ids: &[u32],
        index: u32,
    ) -> Result<DisputedRow<'d>, Error> {
        let request = JobRequest { resume: Vec::new(), ..request.clone() };
        request.check(model, model.context_length())?;
        let vocabulary = model.shape.vocabulary;
        let before =
            output_ids.get(..index as usize).filter(|ids| ids.iter().all(|id| (*id as usize) < vocabulary));
        let Some(before) = before.filter(|_| index < request.spec.max_tokens) else {
            return Err(Error::InvalidJob { what: format!("no output token {index} to dispute") });
        };
        let tokens = [&request.spec.prompt_ids[..], before].concat();
        let pool = Pool::new(threads)?;
        let mut prefill = Prefill::new(model, &pool);
        prefill.run(&tokens, |_| Output::Nothing, |_, _| Ok(true))?;
        let (position, shape) = (tokens.len() - 1, model.kv_shape());
        Ok(DisputedRow { model, cache: prefill.cache, shape, token: tokens[position], position })
    }

    /// The chain over all steps, each by the numerics that `numerics` names, and the logits.
    fn walk(&self, numerics: impl Fn(usize) -> &'d dyn Numerics) -> Result<(Vec<[u8; 32]>, Vec<f32>), Error> {
        let mut steps = Steps { chain: Vec::new() };
        let shape = &self.model.shape;
        let mut stream = vec![0.0; shape.width];
        self.model.weights.embed(self.token as usize, &mut stream);
        steps.push(&stream);
        for (index, layer) in self.model.weights.layers.iter().enumerate() {
            let base = 1 + index * LAYER_STEPS;
            let by = |step: usize| numerics(base + step);
            let normed = norm(by(0), &stream, &layer.attention_norm, shape.epsilon);
            steps.push(&normed);
            let mut projected = product(by(1), &[&layer.query, &layer.key, &layer.value], &normed);
            steps.push(&projected);
            self.rotate(by(2), layer, &mut projected);
            steps.push(&projected);
            steps.push_stored(&self.cache, index, self.position);
            let attended = self.attend(by(4), index, &projected)?;
            steps.push(&attended);
            by(5).add(&mut stream, &product(by(5), &[&layer.attention_output], &attended));
            steps.push(&stream);
            let normed = norm(by(6), &stream, &layer.feed_forward_norm, shape.epsilon);
            steps.push(&normed);
            let mut gate_up = product(by(7), &[&layer.gate, &layer.up], &normed);
            steps.push(&gate_up);
            let (gate, up) = gate_up.split_at_mut(shape.feed_forward);
            by(8).silu_multiply(gate, up);
            steps.push(gate);
            by(9).add(&mut stream, &product(by(9), &[&layer.down], gate));
            steps.push(&stream);
        }
        let base = 1 + shape.layers * LAYER_STEPS;
        let last = norm(numerics(base), &stream, &self.model.weights.output_norm, shape.epsilon);
        steps.push(&last);
        let logits = product(numerics(base + 1), &[self.model.head()], &last);
        steps.push(&logits);
        Ok((steps.chain, logits))
    }

    fn rotate(&self, numerics: &dyn Numerics, layer: &Layer, values: &mut [f32]) {
        let shape = &self.model.shape;
        let (dim, keys_at) = (shape.head_dim, shape.heads * shape.head_dim);
        let values_at = keys_at + shape.kv_heads * dim;
        if let Some(bias) = &layer.bias {
            numerics.add(values, bias);
        }
        if let Some((query_gain, key_gain)) = &layer.head_norms {
            for (head, values) in values[..values_at].chunks_exact_mut(dim).enumerate() {
                let gain = if head < shape.heads { query_gain } else { key_gain };
                let normed = norm(numerics, values, gain, shape.epsilon);
                values.copy_from_slice(&normed);
            }
        }
        let (cos, sin) = self.model.rope.at(self.position);
        match shape.rope_pairs {
            RopePairs::Adjacent => numerics.rope(&mut values[..values_at], cos, sin),
            RopePairs::Halves => numerics.rope_halves(&mut values[..values_at], cos, sin),
        }
    }

    /// F over a copy of this layer's keys and values, because a cache is lent for writing only.
    fn attend(&self, numerics: &dyn Numerics, layer: usize, projected: &[f32]) -> Result<Vec<f32>, Error> {
        let shape = &self.model.shape;
        let (dim, group) = (shape.head_dim, shape.heads / shape.kv_heads);
        let mut copy = KvCache::new(KvShape { layers: 1, ..self.shape });
        copy.grow(self.position + 1, &mut Vec::new());
        let shared = copy.shared();
        for position in 0..=self.position {
            let (keys, values) = self.cache.position(layer, position);
            for (head, (key, value)) in keys.chunks_exact(dim).zip(values.chunks_exact(dim)).enumerate() {
                // SAFETY: this thread alone has the copy.
                unsafe { shared.store(0, head, position, key, value) };
            }
        }
        let mut attended = vec![0.0; shape.heads * dim];
        let mut finite = true;
        for (head, out) in attended.chunks_exact_mut(group * dim).enumerate() {
            // SAFETY: nothing is stored any more.
            let cache = unsafe { shared.head(0, head) };
            let query = &projected[head * group * dim..][..group * dim];
            let scale = (1.0 / (dim as f64).sqrt()) as f32;
            let task = Attention { query, head_dim: dim, key_count: self.position + 1, cache, scale };
            finite &= numerics.attention(&task, out, &mut AttentionScratch::default());
        }
        match finite {
            true => Ok(attended),
            false => Err(Error::NonFinite { position: self.position as u32 }),
        }
    }
}

struct Steps {
    chain: Vec<[u8; 32]>,
}

impl Steps {
    fn push(&mut self, values: &[f32]) {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.push_digest(blake3::hash(&bytes));
    }

    fn push_stored(&mut self, cache: &KvCache, layer: usize, position: usize) {
        let mut hash = blake3::Hasher::new();
        for position in 0..=position {
            let (keys, values) = cache.position(layer, position);
            hash.update(&keys.iter().chain(&values).flat_map(|bits| bits.to_le_bytes()).collect::<Vec<u8>>());
        }
        self.push_digest(hash.finalize());
    }

    fn push_digest(&mut self, digest: blake3::Hash) {
        let mut hash = blake3::Hasher::new();
        hash.update(self.chain.last().unwrap_or(&[0; 32]));
        hash.update(digest.as_bytes());
        self.chain.push(hash.finalize().into());
    }
}

fn norm(numerics: &dyn Numerics, x: &[f32], gain: &[f32], epsilon: f32) -> Vec<f32> {
    let mut y = vec![0.0; x.len()];
    // What is not finite was found by the prefill before.
    let _ = numerics.rms_norm(x, gain, epsilon, &mut y);
    y
}

/// A, then B for matrices that share an input; their outputs side by side.
fn product(numerics: &dyn Numerics, matrices: &[&PackedMatrix], x: &[f32]) -> Vec<f32> {
    let mut input = Activations::new(1, x.len());
    let shared = input.shared();
    // SAFETY: this thread alone.
    let (values, quantised) = unsafe { shared.row(0) };
    values.copy_from_slice(x);
    // As in `norm`.
    let _ = numerics.quantise(x, quantised);
    let stride = matrices.iter().map(|m| m.rows()).sum();
    let mut output = vec![0.0; stride];
    let shared = SharedSlice::new(&mut output);
    let mut column = 0;
    for weights in matrices {
        let task = Matmul { weights, input: &input, tokens: 1, output: &shared, stride, column };
        // SAFETY: this thread alone.
        unsafe { numerics.matmul(&task, 0..weights.group_count()) };
        column += weights.rows();
    }
    output
}

#[cfg(test)]
mod tests;
