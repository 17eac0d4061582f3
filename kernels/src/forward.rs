//! One pass of the decoder over a set of rows. A row is one position of one sequence; rows of many sequences, prefill and
//! decode, go together. No row's result depends on which others are present (`specs/numerics.md`, section K).

use crate::cuda::Outcome;
use crate::digest::activation_digest;
use crate::error::Error;
use crate::kv::{KvCache, SharedKv};
use crate::model::{Layer, Model};
use crate::numerics::{Activations, Attention, AttentionScratch, Matmul, SharedSlice};
use crate::packed::PackedMatrix;
use crate::pool::{PARTS_MAX, Pool};
use crate::rope::RopePairs;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

/// Parts of a section per thread: enough that a slow thread does not hold up the others.
const PARTS_PER_THREAD: usize = 4;
/// Keys x heads below which attention is not worth waking the other threads.
const ATTENTION_INLINE: usize = 512;

/// One position of one sequence.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row {
    /// Index into the caches of the pass.
    pub sequence: usize,
    pub position: usize,
    pub token: u32,
    pub output: Output,
}

/// What is wanted of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Output {
    /// Its keys and values only.
    Nothing,
    /// The final norm, too.
    Activations,
    /// The final norm and the logits.
    Logits,
}

/// Memory of a pass, taken once.
pub(crate) struct Workspace {
    /// Residual stream, `[row][width]`.
    stream: Vec<f32>,
    hidden: Activations,
    /// `[row][q | k | v]`.
    projections: Vec<f32>,
    attended: Activations,
    /// `[row][gate | up]`.
    gate_up: Vec<f32>,
    inner: Activations,
    /// What is added to the stream, `[row][width]`.
    delta: Vec<f32>,
    /// Final norm of the rows with output: those with logits first.
    last: Activations,
    /// Where each row with output lies in `last`.
    slots: Vec<usize>,
    /// `[output][vocabulary]`.
    logits: Vec<f32>,
    vocabulary: usize,
    /// Rows that met NaN or infinity.
    bad: Vec<AtomicBool>,
    scratch: Mutex<Vec<AttentionScratch>>,
}

impl Workspace {
    /// Room for `rows_max` rows of which `logits_max` want logits.
    pub(crate) fn new(model: &Model, rows_max: usize, logits_max: usize) -> Workspace {
        let shape = &model.shape;
        let projection = (shape.heads + 2 * shape.kv_heads) * shape.head_dim;
        Workspace {
            stream: vec![0.0; rows_max * shape.width],
            hidden: Activations::new(rows_max, shape.width),
            projections: vec![0.0; rows_max * projection],
            attended: Activations::new(rows_max, shape.heads * shape.head_dim),
            gate_up: vec![0.0; rows_max * 2 * shape.feed_forward],
            inner: Activations::new(rows_max, shape.feed_forward),
            delta: vec![0.0; rows_max * shape.width],
            last: Activations::new(rows_max, shape.width),
            slots: vec![0; rows_max],
            logits: vec![0.0; logits_max * shape.vocabulary],
            vocabulary: shape.vocabulary,
            bad: (0..rows_max).map(|_| AtomicBool::new(false)).collect(),
            scratch: Mutex::new(Vec::new()),
        }
    }

    /// Logits of a row that wanted them.
    pub(crate) fn logits(&self, row: usize) -> &[f32] {
        let slot = self.slots[row];
        &self.logits[slot * self.vocabulary..(slot + 1) * self.vocabulary]
    }

    /// D of a row that wanted its final norm (J).
    pub(crate) fn digest(&self, model: &Model, row: usize) -> [u8; 32] {
        activation_digest(&self.last, self.slots[row], model.head().is_quantised())
    }

    /// Final norm of a row that wanted it.
    pub(crate) fn final_norm(&self, row: usize) -> &[f32] {
        let width = self.last.width();
        &self.last.values[self.slots[row] * width..][..width]
    }

    /// Whether the row met NaN or infinity.
    pub(crate) fn is_bad(&self, row: usize) -> bool {
        self.bad[row].load(Ordering::Relaxed)
    }
}

/// The parts of a pass that every section needs.
struct Pass<'p> {
    model: &'p Model,
    pool: &'p Pool,
    rows: &'p [Row],
    bad: &'p [AtomicBool],
}

impl Model {
    /// Runs `rows` through all layers. `caches[row.sequence]` must have room for `row.position`; earlier positions of a
    /// sequence must have been run before or be among the rows.
    ///
    /// # Errors
    /// [`Error::Device`] where passes run on a device.
    pub(crate) fn forward(
        &self,
        pool: &Pool,
        space: &mut Workspace,
        rows: &[Row],
        caches: &mut [&mut KvCache],
    ) -> Result<(), Error> {
        if let Some(device) = &self.device {
            let Workspace { last, slots, logits, bad, .. } = space;
            return device.forward(self, rows, caches, &mut Outcome { last, slots, logits, bad });
        }
        let caches: Vec<SharedKv<'_>> = caches.iter_mut().map(|cache| cache.shared()).collect();
        space.bad.iter().for_each(|bad| bad.store(false, Ordering::Relaxed));
        let pass = Pass { model: self, pool, rows, bad: &space.bad };
        let width = self.shape.width;
        for (row, out) in rows.iter().zip(space.stream.chunks_exact_mut(width)) {
            self.weights.embed(row.token as usize, out);
        }
        for (index, layer) in self.weights.layers.iter().enumerate() {
            let delta = (index > 0).then_some(&space.delta[..]);
            pass.add_and_normalise(&mut space.stream, delta, &layer.attention_norm, &mut space.hidden);
            pass.products(
                &space.hidden,
                rows.len(),
                &[&layer.query, &layer.key, &layer.value],
                &mut space.projections,
            );
            pass.rotate_and_store(index, layer, &mut space.projections, &caches);
            pass.attend(index, &space.projections, &caches, &mut space.attended, &space.scratch);
            pass.products(&space.attended, rows.len(), &[&layer.attention_output], &mut space.delta);
            pass.add_and_normalise(
                &mut space.stream,
                Some(&space.delta),
                &layer.feed_forward_norm,
                &mut space.hidden,
            );
            pass.products(&space.hidden, rows.len(), &[&layer.gate, &layer.up], &mut space.gate_up);
            pass.activate(&mut space.gate_up, &mut space.inner);
            pass.products(&space.inner, rows.len(), &[&layer.down], &mut space.delta);
        }
        let outputs = pass.final_norm(&space.stream, &space.delta, &mut space.last, &mut space.slots);
        pass.products(&space.last, outputs, &[self.head()], &mut space.logits);
        Ok(())
    }
}

impl Pass<'_> {
    /// Calls `each` with every row index; few rows stay on this thread.
    fn for_rows(&self, each: impl Fn(usize) + Sync) {
        let count = self.rows.len();
        let parts = if count < 4 { 1 } else { count.min(self.pool.threads() * PARTS_PER_THREAD) };
        self.pool.run(parts, |part| (count * part / parts..count * (part + 1) / parts).for_each(&each));
    }

    fn note(&self, row: usize, finite: bool) {
        if !finite {
            self.bad[row].store(true, Ordering::Relaxed);
        }
    }

    /// H then C then A: `stream += delta; hidden <- quantised norm of stream`.
    fn add_and_normalise(
        &self,
        stream: &mut [f32],
        delta: Option<&[f32]>,
        gain: &[f32],
        hidden: &mut Activations,
    ) {
        let (numerics, epsilon, width) =
            (self.model.numerics, self.model.shape.epsilon, self.model.shape.width);
        let (stream, hidden) = (SharedSlice::new(stream), hidden.shared());
        self.for_rows(|row| {
            let range = row * width..(row + 1) * width;
            // SAFETY: each row is visited by one thread.
            let (x, (y, quantised)) = unsafe { (stream.range(range.clone()), hidden.row(row)) };
            if let Some(delta) = delta {
                numerics.add(x, &delta[range]);
            }
            let finite = numerics.rms_norm(x, gain, epsilon, y);
            self.note(row, numerics.quantise(y, quantised) && finite);
        });
    }

    /// B for matrices that share an input; their outputs stand side by side in a row.
    fn products(&self, input: &Activations, tokens: usize, matrices: &[&PackedMatrix], output: &mut [f32]) {
        let (numerics, threads) = (self.model.numerics, self.pool.threads());
        let stride = matrices.iter().map(|m| m.rows()).sum();
        let total: usize = matrices.iter().map(|m| m.group_count()).sum();
        let parts = if threads == 1 { 1 } else { total.min(threads * PARTS_PER_THREAD) };
        let output = &SharedSlice::new(output);
        self.pool.run(if tokens == 0 { 0 } else { parts }, |part| {
            let (start, end) = (total * part / parts, total * (part + 1) / parts);
            let (mut first, mut column) = (0, 0);
            for weights in matrices {
                let groups =
                    start.max(first) - first..end.clamp(first, first + weights.group_count()) - first;
                if groups.start < groups.end {
                    let task = Matmul { weights, input, tokens, output, stride, column };
                    // SAFETY: a group belongs to one part, so its columns are written by one thread.
                    unsafe { numerics.matmul(&task, groups) };
                }
                first += weights.group_count();
                column += weights.rows();
            }
        });
    }

    /// D and E: rotates queries and keys in place, stores keys and values.
    fn rotate_and_store(
        &self,
        index: usize,
        layer: &Layer,
        projections: &mut [f32],
        caches: &[SharedKv<'_>],
    ) {
        let (shape, numerics) = (&self.model.shape, self.model.numerics);
        let dim = shape.head_dim;
        let (keys_at, values_at) = (shape.heads * dim, (shape.heads + shape.kv_heads) * dim);
        let stride = values_at + shape.kv_heads * dim;
        let projections = SharedSlice::new(projections);
        self.for_rows(|at| {
            let row = &self.rows[at];
            // SAFETY: each row is visited by one thread.
            let values = unsafe { projections.range(at * stride..(at + 1) * stride) };
            if let Some(bias) = &layer.bias {
                numerics.add(values, bias);
            }
            if let Some(gains) = &layer.head_norms {
                self.note(at, self.normalise_heads(&mut values[..values_at], keys_at, gains));
            }
            let (cos, sin) = self.model.rope.at(row.position);
            match shape.rope_pairs {
                RopePairs::Adjacent => numerics.rope(&mut values[..values_at], cos, sin),
                RopePairs::Halves => numerics.rope_halves(&mut values[..values_at], cos, sin),
            }
            let mut halves = vec![0u16; stride - keys_at];
            self.note(at, numerics.to_f16(&values[keys_at..], &mut halves));
            let (keys, values) = halves.split_at(values_at - keys_at);
            for (head, (key, value)) in keys.chunks_exact(dim).zip(values.chunks_exact(dim)).enumerate() {
                // SAFETY: rows of a pass differ in sequence or position, and attention starts after this section.
                unsafe { caches[row.sequence].store(index, head, row.position, key, value) };
            }
        });
    }

    /// C on every head of q and k, each with its gain.
    fn normalise_heads(&self, heads: &mut [f32], keys_at: usize, gains: &(Vec<f32>, Vec<f32>)) -> bool {
        let (shape, numerics) = (&self.model.shape, self.model.numerics);
        let mut before = vec![0.0; shape.head_dim];
        let mut finite = true;
        for (head, values) in heads.chunks_exact_mut(shape.head_dim).enumerate() {
            let gain = if head * shape.head_dim < keys_at { &gains.0 } else { &gains.1 };
            before.copy_from_slice(values);
            finite &= numerics.rms_norm(&before, gain, shape.epsilon, values);
        }
        finite
    }

    /// F then A: one item per row and key-value head, longest first.
    fn attend(
        &self,
        layer: usize,
        projections: &[f32],
        caches: &[SharedKv<'_>],
        attended: &mut Activations,
        scratch: &Mutex<Vec<AttentionScratch>>,
    ) {
        let (shape, numerics, count) = (&self.model.shape, self.model.numerics, self.rows.len());
        let dim = shape.head_dim;
        let query_width = shape.heads / shape.kv_heads * dim;
        let stride = (shape.heads + 2 * shape.kv_heads) * dim;
        let scale = (1.0 / (dim as f64).sqrt()) as f32;
        let shared = attended.shared();
        let item = |item: usize, scratch: &mut AttentionScratch| {
            let (index, head) = (count - 1 - item / shape.kv_heads, item % shape.kv_heads);
            let row = &self.rows[index];
            // SAFETY: nothing is stored into the caches during this section; this item alone writes these columns.
            let (cache, out) = unsafe {
                (
                    caches[row.sequence].head(layer, head),
                    shared.columns(index, head * query_width..(head + 1) * query_width),
                )
            };
            let query = &projections[index * stride + head * query_width..][..query_width];
            let task = Attention { query, head_dim: dim, key_count: row.position + 1, cache, scale };
            self.note(index, numerics.attention(&task, out, scratch));
        };
        let keys: usize = self.rows.iter().map(|row| row.position + 1).sum();
        let items = count * shape.kv_heads;
        if keys * shape.heads < ATTENTION_INLINE * self.pool.threads() {
            let mut scratch = AttentionScratch::default();
            (0..items).for_each(|i| item(i, &mut scratch));
        } else {
            let parts = items.min(PARTS_MAX);
            self.pool.run(parts, |part| {
                // The lock is held for one pop or push, never during the work.
                let mut own = scratch.lock().ok().and_then(|mut free| free.pop()).unwrap_or_default();
                (items * part / parts..items * (part + 1) / parts).for_each(|i| item(i, &mut own));
                if let Ok(mut free) = scratch.lock() {
                    free.push(own);
                }
            });
        }
        self.for_rows(|row| {
            // SAFETY: each row is visited by one thread.
            let (values, quantised) = unsafe { shared.row(row) };
            self.note(row, numerics.quantise(values, quantised));
        });
    }

    /// H then A: `inner <- quantised silu(gate) * up`.
    fn activate(&self, gate_up: &mut [f32], inner: &mut Activations) {
        let (numerics, width) = (self.model.numerics, self.model.shape.feed_forward);
        let (gate_up, inner) = (SharedSlice::new(gate_up), inner.shared());
        self.for_rows(|row| {
            // SAFETY: each row is visited by one thread.
            let (both, (values, quantised)) =
                unsafe { (gate_up.range(row * 2 * width..(row + 1) * 2 * width), inner.row(row)) };
            let (gate, up) = both.split_at_mut(width);
            numerics.silu_multiply(gate, up);
            values.copy_from_slice(gate);
            self.note(row, numerics.quantise(values, quantised));
        });
    }

    /// H, C, A for the rows with output, those with logits first; returns how many want logits.
    fn final_norm(
        &self,
        stream: &[f32],
        delta: &[f32],
        last: &mut Activations,
        slots: &mut [usize],
    ) -> usize {
        let (numerics, shape) = (self.model.numerics, &self.model.shape);
        let wanting =
            |output: Output| (0..self.rows.len()).filter(move |row| self.rows[*row].output == output);
        let logits = wanting(Output::Logits).count();
        let wanted: Vec<usize> = wanting(Output::Logits).chain(wanting(Output::Activations)).collect();
        wanted.iter().enumerate().for_each(|(slot, row)| slots[*row] = slot);
        let last = last.shared();
        for (slot, row) in wanted.iter().enumerate() {
            let range = row * shape.width..(row + 1) * shape.width;
            let mut x = stream[range.clone()].to_vec();
            numerics.add(&mut x, &delta[range]);
            // SAFETY: this thread alone.
            let (values, quantised) = unsafe { last.row(slot) };
            let finite = numerics.rms_norm(&x, &self.model.weights.output_norm, shape.epsilon, values);
            self.note(*row, numerics.quantise(values, quantised) && finite);
        }
        logits
    }
}

#[cfg(test)]
pub(crate) mod tests;
