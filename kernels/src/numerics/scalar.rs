//! The reference: every operation in the order of `specs/numerics.md`, in plain Rust. The other backends are compared with this
//! file bit by bit. The element-wise operations are `inline(always)`, because the vector backends compile the same text with
//! more instructions enabled: Rust neither contracts nor reorders floats, so that cannot change a bit.

#![allow(
    clippy::excessive_precision,
    clippy::approx_constant,
    reason = "constants stand as in the specification"
)]

use super::{Attention, AttentionScratch, Matmul, Numerics, QuantisedRow, is_bad, strips};
use crate::gguf::TensorType;
use crate::kv::PAGE_POSITIONS;
use crate::packed::{BLOCK, LANES, f16_from_f32, f32_from_f16};
use std::ops::Range;

/// Below this, 127 / a would overflow: the block counts as zero (A).
pub(crate) const QUANTISE_MIN: f32 = f32::from_bits((127 - 119) << 23);

/// exp: clamps, reduction and polynomial (G).
pub(crate) const EXP_LOW: f32 = -87.0;
pub(crate) const EXP_HIGH: f32 = 88.0;
pub(crate) const EXP_LOG2_E: f32 = 1.442_695_04;
pub(crate) const EXP_LN2_HIGH: f32 = -0.693_359_375;
pub(crate) const EXP_LN2_LOW: f32 = 2.121_944_4e-4;
pub(crate) const EXP_POLYNOMIAL: [f32; 6] = [
    1.987_569_15e-4,
    1.398_199_950_7e-3,
    8.333_451_907_3e-3,
    4.166_579_589_4e-2,
    1.666_666_545_9e-1,
    5.000_000_120_1e-1,
];

/// 2^24: a sampling weight of 1.0 (I).
pub(crate) const WEIGHT_ONE: f32 = 16_777_216.0;

/// The reference backend.
pub(crate) struct Scalar;

impl Numerics for Scalar {
    unsafe fn matmul(&self, task: &Matmul<'_>, groups: Range<usize>) {
        task.check(&groups);
        for group in groups {
            for token in 0..task.tokens {
                // SAFETY: the caller has these columns to itself.
                let output = unsafe { task.output(token, group) };
                for (lane, y) in output.iter_mut().enumerate() {
                    *y = dot(task, group * LANES + lane, token);
                }
            }
        }
    }

    fn quantise(&self, values: &[f32], out: QuantisedRow<'_>) -> bool {
        let mut finite = true;
        for (b, block) in values.chunks_exact(BLOCK).enumerate() {
            finite &= block.iter().all(|v| !is_bad(*v));
            let largest = block.iter().fold(0.0f32, |a, v| if v.abs() > a { v.abs() } else { a });
            let (inverse, scale) =
                if largest < QUANTISE_MIN { (0.0, 0.0) } else { (127.0 / largest, largest / 127.0) };
            let mut sum = 0i32;
            for (v, q) in block.iter().zip(&mut out.quants[b * BLOCK..]) {
                let rounded = (v * inverse).round_ties_even() as i32;
                *q = rounded as i8;
                sum += rounded;
            }
            out.scales[b] = scale;
            out.integer_sums[b] = sum;
            out.sums[b] = scale * sum as f32;
        }
        finite
    }

    fn rms_norm(&self, x: &[f32], gain: &[f32], epsilon: f32, y: &mut [f32]) -> bool {
        rms_norm(x, gain, epsilon, y)
    }

    fn rope(&self, row: &mut [f32], cos: &[f32], sin: &[f32]) {
        rope(row, cos, sin);
    }

    fn rope_halves(&self, row: &mut [f32], cos: &[f32], sin: &[f32]) {
        rope_halves(row, cos, sin);
    }

    fn to_f16(&self, values: &[f32], out: &mut [u16]) -> bool {
        to_f16(values, out)
    }

    fn attention(&self, task: &Attention<'_>, out: &mut [f32], scratch: &mut AttentionScratch) -> bool {
        let (dim, heads) = (task.head_dim, task.query.len() / task.head_dim);
        let tiles = task.key_count.div_ceil(PAGE_POSITIONS);
        scratch.reserve(heads * tiles, dim);
        let mut finite = true;
        for tile in 0..tiles {
            let live = (task.key_count - tile * PAGE_POSITIONS).min(PAGE_POSITIONS);
            for head in 0..heads {
                let at = tile * heads + head;
                let query = &task.query[head * dim..(head + 1) * dim];
                let (stats, ok) =
                    tile_of_head(task, query, tile, live, &mut scratch.outputs[at * dim..(at + 1) * dim]);
                scratch.stats[at] = stats;
                finite &= ok;
            }
        }
        combine(scratch, heads, tiles, dim, out);
        finite
    }

    fn silu_multiply(&self, gate: &mut [f32], up: &[f32]) {
        silu_multiply(gate, up);
    }

    fn add(&self, x: &mut [f32], y: &[f32]) {
        add(x, y);
    }

    fn sampling_weights(&self, logits: &[f32], maximum: f32, temperature: f32, out: &mut [u32]) {
        sampling_weights(logits, maximum, temperature, out);
    }
}

/// B for one row and one token.
fn dot(task: &Matmul<'_>, row: usize, token: usize) -> f32 {
    let mut total = 0.0f32;
    for strip in strips(task.weights.block_count()) {
        let mut sum = 0.0f32;
        for block in strip {
            sum = if task.weights.is_quantised() {
                block_quantised(task, row, token, block, sum)
            } else {
                block_float(task, row, token, block, sum)
            };
        }
        total += sum;
    }
    total
}

fn block_quantised(task: &Matmul<'_>, row: usize, token: usize, block: usize, sum: f32) -> f32 {
    let (weights, input) = (task.weights, task.input);
    let x = token * input.width() / BLOCK + block;
    let quants = &input.quants[x * BLOCK..(x + 1) * BLOCK];
    if weights.kind() == TensorType::Q6K {
        return block_q6(task, row, block, x, sum);
    }
    let mut integer = 0i32;
    for (j, q) in quants.iter().enumerate() {
        integer += weights.quant(row, block * BLOCK + j) * i32::from(*q);
    }
    let scale = weights.scale(row, block) * input.scales[x];
    match weights.kind() {
        TensorType::Q4_0 => scale.mul_add((integer - 8 * input.integer_sums[x]) as f32, sum),
        TensorType::Q4_1 | TensorType::Q4K => {
            let sum = scale.mul_add(integer as f32, sum);
            weights.minimum(row, block).mul_add(input.sums[x], sum)
        }
        _ => scale.mul_add(integer as f32, sum),
    }
}

/// B, Q6_K: one integer of two scaled halves; `x` is the block of activations.
fn block_q6(task: &Matmul<'_>, row: usize, block: usize, x: usize, sum: f32) -> f32 {
    let (weights, input) = (task.weights, task.input);
    let mut total = 0i32;
    for half in 0..2 {
        let columns = half * 16..half * 16 + 16;
        let integer: i32 = columns
            .map(|j| weights.quant(row, block * BLOCK + j) * i32::from(input.quants[x * BLOCK + j]))
            .sum();
        total += weights.sub_scale(row, block * 2 + half) * integer;
    }
    (weights.scale(row, block) * input.scales[x]).mul_add(total as f32, sum)
}

fn block_float(task: &Matmul<'_>, row: usize, token: usize, block: usize, sum: f32) -> f32 {
    let x = token * task.input.width();
    let columns = block * BLOCK..(block + 1) * BLOCK;
    columns.fold(sum, |sum, k| task.weights.float(row, k).mul_add(task.input.values[x + k], sum))
}

/// F within one tile: partial output of one head, its maximum and sum.
fn tile_of_head(
    task: &Attention<'_>,
    query: &[f32],
    tile: usize,
    live: usize,
    output: &mut [f32],
) -> ((f32, f32), bool) {
    let (keys, values) = task.cache.tiles(tile);
    let mut finite = true;
    let mut scores = [0.0f32; PAGE_POSITIONS];
    let mut maximum = f32::NEG_INFINITY;
    for (j, score) in scores.iter_mut().enumerate().take(live) {
        let chain = query
            .iter()
            .enumerate()
            .fold(0.0f32, |sum, (d, q)| q.mul_add(f32_from_f16(keys[d * PAGE_POSITIONS + j]), sum));
        *score = task.scale * chain;
        finite &= !is_bad(*score);
        maximum = if *score > maximum { *score } else { maximum };
    }
    output.fill(0.0);
    let mut total = 0.0f32;
    for (score, value) in scores.iter().zip(values.chunks_exact(query.len())).take(live) {
        let weight = exp(score - maximum);
        total += weight;
        for (o, v) in output.iter_mut().zip(value) {
            *o = weight.mul_add(f32_from_f16(*v), *o);
        }
    }
    ((maximum, total), finite)
}

/// F across tiles, ascending.
#[inline(always)]
pub(crate) fn combine(scratch: &AttentionScratch, heads: usize, tiles: usize, dim: usize, out: &mut [f32]) {
    for (head, out) in out.chunks_exact_mut(dim).enumerate().take(heads) {
        let mut maximum = f32::NEG_INFINITY;
        for tile in 0..tiles {
            let candidate = scratch.stats[tile * heads + head].0;
            maximum = if candidate > maximum { candidate } else { maximum };
        }
        out.fill(0.0);
        let mut total = 0.0f32;
        for tile in 0..tiles {
            let at = tile * heads + head;
            let (tile_maximum, tile_total) = scratch.stats[at];
            let factor = exp(tile_maximum - maximum);
            for (o, part) in out.iter_mut().zip(&scratch.outputs[at * dim..(at + 1) * dim]) {
                *o = part.mul_add(factor, *o);
            }
            total = tile_total.mul_add(factor, total);
        }
        out.iter_mut().for_each(|o| *o /= total);
    }
}

/// G.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    let x = if x > EXP_LOW { x } else { EXP_LOW };
    let x = if x < EXP_HIGH { x } else { EXP_HIGH };
    let n = (x * EXP_LOG2_E).round_ties_even();
    let r = n.mul_add(EXP_LN2_HIGH, x);
    let r = n.mul_add(EXP_LN2_LOW, r);
    let mut p = EXP_POLYNOMIAL[0];
    for c in &EXP_POLYNOMIAL[1..] {
        p = p.mul_add(r, *c);
    }
    let y = p.mul_add(r * r, r) + 1.0;
    // SAFETY: n lies in -126..=127 by the clamps; NaN was clamped to EXP_LOW.
    let n: i32 = unsafe { n.to_int_unchecked() };
    f32::from_bits((y.to_bits() as i32).wrapping_add(n << 23) as u32)
}

/// C: 256 strided chains, then a halving tree.
#[inline(always)]
pub(crate) fn rms_norm(x: &[f32], gain: &[f32], epsilon: f32, y: &mut [f32]) -> bool {
    let mut chains = [0.0f32; 256];
    for part in x.chunks(256) {
        for (a, v) in chains.iter_mut().zip(part) {
            *a = v.mul_add(*v, *a);
        }
    }
    let mut half = 128;
    while half > 0 {
        let (low, high) = chains.split_at_mut(half);
        low.iter_mut().zip(&high[..half]).for_each(|(a, b)| *a += b);
        half /= 2;
    }
    let r = 1.0 / (chains[0] / x.len() as f32 + epsilon).sqrt();
    for ((y, x), g) in y.iter_mut().zip(x).zip(gain) {
        *y = (x * r) * g;
    }
    !is_bad(chains[0])
}

/// D.
#[inline(always)]
pub(crate) fn rope(row: &mut [f32], cos: &[f32], sin: &[f32]) {
    for head in row.chunks_exact_mut(cos.len() * 2) {
        for ((pair, c), s) in head.chunks_exact_mut(2).zip(cos).zip(sin) {
            let (a, b) = (pair[0], pair[1]);
            pair[0] = a.mul_add(*c, -(b * s));
            pair[1] = a.mul_add(*s, b * c);
        }
    }
}

/// D for pairs half a head apart.
#[inline(always)]
pub(crate) fn rope_halves(row: &mut [f32], cos: &[f32], sin: &[f32]) {
    for head in row.chunks_exact_mut(cos.len() * 2) {
        let (first, second) = head.split_at_mut(cos.len());
        for (((x, y), c), s) in first.iter_mut().zip(second).zip(cos).zip(sin) {
            let (a, b) = (*x, *y);
            *x = a.mul_add(*c, -(b * s));
            *y = a.mul_add(*s, b * c);
        }
    }
}

/// E.
#[inline(always)]
pub(crate) fn to_f16(values: &[f32], out: &mut [u16]) -> bool {
    let mut bad = false;
    for (v, h) in values.iter().zip(out) {
        *h = f16_from_f32(*v);
        bad |= *h & 0x7c00 == 0x7c00;
    }
    !bad
}

/// H.
#[inline(always)]
pub(crate) fn silu_multiply(gate: &mut [f32], up: &[f32]) {
    for (g, u) in gate.iter_mut().zip(up) {
        // The clamp in exp swallows NaN, but g / (..) keeps it.
        *g = *g / (1.0 + exp(-*g)) * u;
    }
}

/// H.
#[inline(always)]
pub(crate) fn add(x: &mut [f32], y: &[f32]) {
    x.iter_mut().zip(y).for_each(|(x, y)| *x += y);
}

/// I.
#[inline(always)]
pub(crate) fn sampling_weights(logits: &[f32], maximum: f32, temperature: f32, out: &mut [u32]) {
    for (logit, w) in logits.iter().zip(out) {
        let rounded = (exp((logit - maximum) / temperature) * WEIGHT_ONE).round_ties_even();
        // SAFETY: exp of a number <= 0 is in 0..=1, so the product is in 0..=2^24; NaN became exp(-87).
        *w = unsafe { rounded.to_int_unchecked::<i32>() } as u32;
    }
}
