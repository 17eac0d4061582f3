//! AArch64 with the dot products of ARMv8.2. A vector lane is one of four rows of a group (matmul), a key (scores) or a
//! dimension (values), as in `avx512.rs`. Quantised weights but the K-quants have kernels here; for the rest, and for the
//! element-wise operations, the text of `scalar.rs` is compiled with NEON, which every AArch64 has.

use super::{Attention, AttentionScratch, Matmul, Numerics, QuantisedRow, scalar, strips};
use crate::gguf::TensorType;
use crate::kv::PAGE_POSITIONS;
use crate::packed::{BLOCK, LANES};
use std::arch::aarch64::*;
use std::arch::{asm, is_aarch64_feature_detected};
use std::ops::Range;

/// Weights with one scale a block, which this file has kernels for.
const Q4_0: u8 = 0;
const Q4_1: u8 = 1;
const Q8_0: u8 = 2;

/// Proof that the processor has the dot products.
pub(crate) struct Neon(());

impl Neon {
    /// The backend, if the processor has the instructions.
    pub(crate) fn detect() -> Option<&'static dyn Numerics> {
        static NEON: Neon = Neon(());
        let present = is_aarch64_feature_detected!("neon") && is_aarch64_feature_detected!("dotprod");
        present.then_some(&NEON as &dyn Numerics)
    }
}

// SAFETY of every block below: a `Neon` exists only after `detect` saw the features.
impl Numerics for Neon {
    unsafe fn matmul(&self, task: &Matmul<'_>, groups: Range<usize>) {
        task.check(&groups);
        // SAFETY: features detected; columns are ours by the caller's promise; shapes checked above.
        unsafe {
            match task.weights.kind() {
                TensorType::Q4_0 => groups.for_each(|group| all_tokens::<Q4_0>(task, group)),
                TensorType::Q4_1 => groups.for_each(|group| all_tokens::<Q4_1>(task, group)),
                TensorType::Q8_0 => groups.for_each(|group| all_tokens::<Q8_0>(task, group)),
                TensorType::Q4K | TensorType::Q6K | TensorType::F32 | TensorType::F16 | TensorType::Bf16 => {
                    scalar::Scalar.matmul(task, groups);
                }
            }
        }
    }

    fn quantise(&self, values: &[f32], out: QuantisedRow<'_>) -> bool {
        scalar::Scalar.quantise(values, out)
    }

    fn rms_norm(&self, x: &[f32], gain: &[f32], epsilon: f32, y: &mut [f32]) -> bool {
        scalar::rms_norm(x, gain, epsilon, y)
    }

    fn rope(&self, row: &mut [f32], cos: &[f32], sin: &[f32]) {
        scalar::rope(row, cos, sin);
    }

    fn rope_halves(&self, row: &mut [f32], cos: &[f32], sin: &[f32]) {
        scalar::rope_halves(row, cos, sin);
    }

    fn to_f16(&self, values: &[f32], out: &mut [u16]) -> bool {
        scalar::to_f16(values, out)
    }

    fn attention(&self, task: &Attention<'_>, out: &mut [f32], scratch: &mut AttentionScratch) -> bool {
        // SAFETY: features detected.
        unsafe { attention(task, out, scratch) }
    }

    fn silu_multiply(&self, gate: &mut [f32], up: &[f32]) {
        scalar::silu_multiply(gate, up);
    }

    fn add(&self, x: &mut [f32], y: &[f32]) {
        scalar::add(x, y);
    }

    fn sampling_weights(&self, logits: &[f32], maximum: f32, temperature: f32, out: &mut [u32]) {
        scalar::sampling_weights(logits, maximum, temperature, out);
    }
}

/// B, all tokens over sixteen rows.
///
/// # Safety
/// The features; `group` exists and its columns are the caller's; shapes were checked.
#[target_feature(enable = "neon,dotprod")]
unsafe fn all_tokens<const KIND: u8>(task: &Matmul<'_>, group: usize) {
    let mut token = 0;
    // SAFETY: passed on; a tile never reaches beyond `tokens`.
    unsafe {
        while task.tokens - token >= 4 {
            tile::<4, KIND>(task, token, group);
            token += 4;
        }
        while token < task.tokens {
            tile::<1, KIND>(task, token, group);
            token += 1;
        }
    }
}

/// B for T tokens x 16 rows, four rows at a time.
///
/// # Safety
/// As `all_tokens`; `token + T <= tokens`.
#[target_feature(enable = "neon,dotprod")]
unsafe fn tile<const T: usize, const KIND: u8>(task: &Matmul<'_>, token: usize, group: usize) {
    for quarter in 0..4 {
        // SAFETY: passed on.
        let totals = unsafe { four_rows::<T, KIND>(task, token, group, quarter) };
        for (t, total) in totals.into_iter().enumerate() {
            let mut lanes = [0.0f32; 4];
            // SAFETY: four floats of room; the output columns are the caller's.
            let output = unsafe {
                vst1q_f32(lanes.as_mut_ptr(), total);
                task.output(token + t, group)
            };
            output.iter_mut().skip(quarter * 4).zip(lanes).for_each(|(y, lane)| *y = lane);
        }
    }
}

/// T tokens x rows `4 * quarter ..` of the group: integer dots of 32 columns, then one fma a scale.
///
/// # Safety
/// As `tile`.
#[target_feature(enable = "neon,dotprod")]
unsafe fn four_rows<const T: usize, const KIND: u8>(
    task: &Matmul<'_>,
    token: usize,
    group: usize,
    quarter: usize,
) -> [float32x4_t; T] {
    let (weights, input) = (task.weights, task.input);
    let block_count = weights.block_count();
    let (quants, scales) = (weights.quants(group), weights.scales(group));
    let scale_bytes = if KIND == Q4_1 { 64 } else { 32 };
    let mut totals = [vdupq_n_f32(0.0); T];
    for strip in strips(block_count) {
        let mut sums = [vdupq_n_f32(0.0); T];
        for b in strip {
            let scale = load_halves_of_bytes(&scales[b * scale_bytes + quarter * 8..]);
            let w = block_of_weights::<KIND>(quants, b, quarter);
            for t in 0..T {
                let x = (token + t) * block_count + b;
                let words = &input.quants[x * BLOCK..(x + 1) * BLOCK];
                let start = if KIND == Q4_0 { -8 * input.integer_sums[x] } else { 0 };
                let integer = vcvtq_f32_s32(dot_of_block(vdupq_n_s32(start), &w, words));
                sums[t] = vfmaq_f32(sums[t], vmulq_n_f32(scale, input.scales[x]), integer);
                if KIND == Q4_1 {
                    let minimum = load_halves_of_bytes(&scales[b * scale_bytes + 32 + quarter * 8..]);
                    sums[t] = vfmaq_f32(sums[t], minimum, vdupq_n_f32(input.sums[x]));
                }
            }
        }
        for t in 0..T {
            totals[t] = vaddq_f32(totals[t], sums[t]);
        }
    }
    totals
}

/// Four rows of block `b` as signed bytes; vector k holds columns 4k..4k+4 of each row.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn block_of_weights<const KIND: u8>(quants: &[u8], b: usize, quarter: usize) -> [int8x16_t; 8] {
    let mut w = [vdupq_n_s8(0); 8];
    let load = |at: usize| {
        // SAFETY: sixteen bytes, bounds-checked.
        unsafe { vld1q_u8(quants[at..at + 16].as_ptr()) }
    };
    if KIND == Q8_0 {
        for (k, w) in w.iter_mut().enumerate() {
            // Stored with 128 added.
            let stored = load(b * 512 + k * 64 + quarter * 16);
            *w = vreinterpretq_s8_u8(veorq_u8(stored, vdupq_n_u8(0x80)));
        }
    } else {
        for k in 0..4 {
            let both = load(b * 256 + k * 64 + quarter * 16);
            w[k] = vreinterpretq_s8_u8(vandq_u8(both, vdupq_n_u8(15)));
            w[4 + k] = vreinterpretq_s8_u8(vshrq_n_u8::<4>(both));
        }
    }
    w
}

/// `start` + the integer dot of 32 columns with the activations `words`.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn dot_of_block(start: int32x4_t, w: &[int8x16_t; 8], words: &[i8]) -> int32x4_t {
    // SAFETY: thirty-two bytes, bounds-checked.
    let (first, second) = unsafe { (vld1q_s8(words[..16].as_ptr()), vld1q_s8(words[16..32].as_ptr())) };
    let sum = dot::<0>(start, w[0], first);
    let sum = dot::<1>(sum, w[1], first);
    let sum = dot::<2>(sum, w[2], first);
    let sum = dot::<3>(sum, w[3], first);
    let sum = dot::<0>(sum, w[4], second);
    let sum = dot::<1>(sum, w[5], second);
    let sum = dot::<2>(sum, w[6], second);
    dot::<3>(sum, w[7], second)
}

/// `sum[lane] + w[lane][0..4] . x[word K]`: `sdot` by element, whose intrinsic is not stable yet.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn dot<const K: u32>(mut sum: int32x4_t, w: int8x16_t, x: int8x16_t) -> int32x4_t {
    // SAFETY: registers only; the feature is enabled.
    unsafe {
        asm!(
            "sdot {sum:v}.4s, {w:v}.16b, {x:v}.4b[{k}]",
            sum = inout(vreg) sum,
            w = in(vreg) w,
            x = in(vreg) x,
            k = const K,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    sum
}

/// F, one head at a time: four keys a vector, then four dimensions a vector.
#[target_feature(enable = "neon,dotprod")]
fn attention(task: &Attention<'_>, out: &mut [f32], scratch: &mut AttentionScratch) -> bool {
    let (dim, heads) = (task.head_dim, task.query.len() / task.head_dim);
    let tiles = task.key_count.div_ceil(PAGE_POSITIONS);
    scratch.reserve(heads * tiles, dim);
    let mut finite = true;
    for tile in 0..tiles {
        let live = (task.key_count - tile * PAGE_POSITIONS).min(PAGE_POSITIONS);
        let (keys, values) = task.cache.tiles(tile);
        for (head, query) in task.query.chunks_exact(dim).enumerate() {
            let at = tile * heads + head;
            let mut weights = scores(query, keys, task.scale);
            finite &= weights.iter().take(live).all(|s| !super::is_bad(*s));
            let maximum =
                weights.iter().take(live).fold(f32::NEG_INFINITY, |m, s| if *s > m { *s } else { m });
            weights.iter_mut().for_each(|w| *w = scalar::exp(*w - maximum));
            let total = weights.iter().take(live).fold(0.0f32, |sum, w| sum + w);
            weigh(&weights[..live], values, &mut scratch.outputs[at * dim..(at + 1) * dim]);
            scratch.stats[at] = (maximum, total);
        }
    }
    scalar::combine(scratch, heads, tiles, dim, out);
    finite
}

/// `scale * q.k` for the 64 keys of a tile; those beyond the last live key are meaningless.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn scores(query: &[f32], keys: &[u16], scale: f32) -> [f32; PAGE_POSITIONS] {
    let mut chains = [vdupq_n_f32(0.0); PAGE_POSITIONS / 4];
    for (q, row) in query.iter().zip(keys.chunks_exact(PAGE_POSITIONS)) {
        for (chain, keys) in chains.iter_mut().zip(row.chunks_exact(4)) {
            *chain = vfmaq_n_f32(*chain, load_halves(keys), *q);
        }
    }
    let mut scores = [0.0f32; PAGE_POSITIONS];
    for (chain, part) in chains.into_iter().zip(scores.chunks_exact_mut(4)) {
        // SAFETY: four floats.
        unsafe { vst1q_f32(part.as_mut_ptr(), vmulq_n_f32(chain, scale)) };
    }
    scores
}

/// `output[d] <- sum over keys of weight * value[d]`, keys ascending; a head has a multiple of four dimensions or few.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn weigh(weights: &[f32], values: &[u16], output: &mut [f32]) {
    let dim = output.len();
    for (part, output) in output.chunks_exact_mut(4).enumerate() {
        let mut sum = vdupq_n_f32(0.0);
        for (w, row) in weights.iter().zip(values.chunks_exact(dim)) {
            sum = vfmaq_n_f32(sum, load_halves(&row[part * 4..]), *w);
        }
        // SAFETY: four floats.
        unsafe { vst1q_f32(output.as_mut_ptr(), sum) };
    }
}

/// Four f16 as floats.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn load_halves(halves: &[u16]) -> float32x4_t {
    // SAFETY: four u16, bounds-checked.
    vcvt_f32_f16(vreinterpret_f16_u16(unsafe { vld1_u16(halves[..4].as_ptr()) }))
}

/// As `load_halves`, of eight bytes; AArch64 is little-endian here, as the file is.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn load_halves_of_bytes(bytes: &[u8]) -> float32x4_t {
    // SAFETY: eight bytes, bounds-checked.
    vcvt_f32_f16(vreinterpret_f16_u8(unsafe { vld1_u8(bytes[..8].as_ptr()) }))
}

const _: () = assert!(cfg!(target_endian = "little") && LANES == 16);
