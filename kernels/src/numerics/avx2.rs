//! AVX2 + FMA + F16C. Lanes are weight rows (two vectors of eight for a group of sixteen) or keys. Each kernel cites the
//! section of `specs/numerics.md` it follows; the reference is `scalar.rs`.

#![allow(
    clippy::needless_range_loop,
    reason = "an index names the token, head or key in several arrays at once"
)]

use super::{Attention, AttentionScratch, Matmul, Numerics, QuantisedRow, scalar, strips};
use crate::gguf::TensorType;
use crate::kv::PAGE_POSITIONS;
use crate::packed::{BLOCK, LANES, k_quants};
use std::arch::x86_64::*;
use std::ops::Range;

/// Kinds of four-bit weights, as constant parameters.
pub(super) const Q4_0: u8 = 0;
pub(super) const Q4_1: u8 = 1;
pub(super) const Q4_K: u8 = 2;

/// Proof that the processor has AVX2, FMA and F16C.
pub(crate) struct Avx2(());

impl Avx2 {
    /// The backend, if the processor has the instructions.
    pub(crate) fn detect() -> Option<&'static dyn Numerics> {
        static AVX2: Avx2 = Avx2(());
        let present = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c");
        present.then_some(&AVX2 as &dyn Numerics)
    }
}

// The element-wise text of scalar.rs, compiled with these instructions.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn rms_norm(x: &[f32], gain: &[f32], epsilon: f32, y: &mut [f32]) -> bool {
    scalar::rms_norm(x, gain, epsilon, y)
}

#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn rope(row: &mut [f32], cos: &[f32], sin: &[f32]) {
    scalar::rope(row, cos, sin);
}

#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn rope_halves(row: &mut [f32], cos: &[f32], sin: &[f32]) {
    scalar::rope_halves(row, cos, sin);
}

#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn to_f16(values: &[f32], out: &mut [u16]) -> bool {
    scalar::to_f16(values, out)
}

#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn silu_multiply(gate: &mut [f32], up: &[f32]) {
    scalar::silu_multiply(gate, up);
}

#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn add(x: &mut [f32], y: &[f32]) {
    scalar::add(x, y);
}

#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn sampling_weights(logits: &[f32], maximum: f32, temperature: f32, out: &mut [u32]) {
    scalar::sampling_weights(logits, maximum, temperature, out);
}

// SAFETY of every block below: an `Avx2` exists only after `detect` saw the features.
impl Numerics for Avx2 {
    unsafe fn matmul(&self, task: &Matmul<'_>, groups: Range<usize>) {
        task.check(&groups);
        // SAFETY: features detected; columns are ours by the caller's promise; shapes checked above.
        unsafe {
            for group in groups {
                let mut token = 0;
                while task.tokens - token >= 4 {
                    tile::<4>(task, token, group);
                    token += 4;
                }
                while token < task.tokens {
                    tile::<1>(task, token, group);
                    token += 1;
                }
            }
        }
    }

    fn quantise(&self, values: &[f32], out: QuantisedRow<'_>) -> bool {
        // SAFETY: features detected.
        unsafe { quantise(values, out) }
    }

    fn rms_norm(&self, x: &[f32], gain: &[f32], epsilon: f32, y: &mut [f32]) -> bool {
        // SAFETY: features detected.
        unsafe { rms_norm(x, gain, epsilon, y) }
    }

    fn rope(&self, row: &mut [f32], cos: &[f32], sin: &[f32]) {
        // SAFETY: features detected.
        unsafe { rope(row, cos, sin) }
    }

    fn rope_halves(&self, row: &mut [f32], cos: &[f32], sin: &[f32]) {
        // SAFETY: features detected.
        unsafe { rope_halves(row, cos, sin) }
    }

    fn to_f16(&self, values: &[f32], out: &mut [u16]) -> bool {
        // SAFETY: features detected.
        unsafe { to_f16(values, out) }
    }

    fn attention(&self, task: &Attention<'_>, out: &mut [f32], scratch: &mut AttentionScratch) -> bool {
        // SAFETY: features detected.
        unsafe { attention(task, out, scratch) }
    }

    fn silu_multiply(&self, gate: &mut [f32], up: &[f32]) {
        // SAFETY: features detected.
        unsafe { silu_multiply(gate, up) }
    }

    fn add(&self, x: &mut [f32], y: &[f32]) {
        // SAFETY: features detected.
        unsafe { add(x, y) }
    }

    fn sampling_weights(&self, logits: &[f32], maximum: f32, temperature: f32, out: &mut [u32]) {
        // SAFETY: features detected.
        unsafe { sampling_weights(logits, maximum, temperature, out) }
    }
}

/// B for T tokens x 16 rows.
///
/// # Safety
/// AVX2, FMA, F16C; `token + T <= tokens`; `group` exists and is the caller's.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn tile<const T: usize>(task: &Matmul<'_>, token: usize, group: usize) {
    for half in 0..2 {
        // SAFETY: passed on.
        let totals = unsafe {
            match task.weights.kind() {
                TensorType::Q4_0 => half_q4::<T, Q4_0>(task, token, group, half),
                TensorType::Q4_1 => half_q4::<T, Q4_1>(task, token, group, half),
                TensorType::Q4K => half_q4::<T, Q4_K>(task, token, group, half),
                TensorType::Q6K => half_q6::<T>(task, token, group, half),
                TensorType::Q8_0 => half_q8::<T>(task, token, group, half),
                TensorType::F32 | TensorType::F16 | TensorType::Bf16 => {
                    half_float::<T>(task, token, group, half)
                }
            }
        };
        for (t, total) in totals.into_iter().enumerate() {
            let mut lanes = [0.0f32; 8];
            // SAFETY: eight floats of room; the output columns are the caller's.
            let output = unsafe {
                _mm256_storeu_ps(lanes.as_mut_ptr(), total);
                task.output(token + t, group)
            };
            output.iter_mut().skip(half * 8).zip(lanes).for_each(|(y, lane)| *y = lane);
        }
    }
}

/// Q4: nibbles are at most 15, so eight products of one lane stay in i16 (16 * 15 * 127 = 30 480).
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn half_q4<const T: usize, const KIND: u8>(
    task: &Matmul<'_>,
    token: usize,
    group: usize,
    half: usize,
) -> [__m256; T] {
    let (weights, input) = (task.weights, task.input);
    let block_count = weights.block_count();
    let (quants, scales) = (weights.quants(group), weights.scales(group));
    let (low, ones) = (_mm256_set1_epi8(15), _mm256_set1_epi16(1));
    let mut totals = [_mm256_setzero_ps(); T];
    for strip in strips(block_count) {
        let mut sums = [_mm256_setzero_ps(); T];
        for b in strip {
            let (scale, minimum) = q4_scales::<KIND>(scales, b, half);
            let mut nibbles = [[_mm256_setzero_si256(); 2]; 4];
            for (k, pair) in nibbles.iter_mut().enumerate() {
                let both = load_bytes(&quants[b * 256 + k * 64 + half * 32..]);
                *pair = [_mm256_and_si256(both, low), _mm256_and_si256(_mm256_srli_epi16::<4>(both), low)];
            }
            for t in 0..T {
                let x = (token + t) * block_count + b;
                let words = &input.quants[x * BLOCK..(x + 1) * BLOCK];
                let mut pairs = _mm256_setzero_si256();
                for (k, [first, second]) in nibbles.iter().enumerate() {
                    pairs = _mm256_add_epi16(pairs, _mm256_maddubs_epi16(*first, broadcast(words, k)));
                    pairs = _mm256_add_epi16(pairs, _mm256_maddubs_epi16(*second, broadcast(words, 4 + k)));
                }
                let mut integer = _mm256_madd_epi16(pairs, ones);
                if KIND == Q4_0 {
                    integer = _mm256_sub_epi32(integer, _mm256_set1_epi32(8 * input.integer_sums[x]));
                }
                let d = _mm256_mul_ps(scale, _mm256_set1_ps(input.scales[x]));
                sums[t] = _mm256_fmadd_ps(d, _mm256_cvtepi32_ps(integer), sums[t]);
                if KIND != Q4_0 {
                    sums[t] = _mm256_fmadd_ps(minimum, _mm256_set1_ps(input.sums[x]), sums[t]);
                }
            }
        }
        for t in 0..T {
            totals[t] = _mm256_add_ps(totals[t], sums[t]);
        }
    }
    totals
}

/// d and m of a block for eight rows; for Q4_K both products are exact.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn q4_scales<const KIND: u8>(scales: &[u8], b: usize, half: usize) -> (__m256, __m256) {
    match KIND {
        Q4_0 => (load_f16(&scales[b * 32 + half * 16..]), _mm256_setzero_ps()),
        Q4_1 => (load_f16(&scales[b * 64 + half * 16..]), load_f16(&scales[b * 64 + 32 + half * 16..])),
        _ => {
            let whole =
                &scales[b / k_quants::BLOCKS * k_quants::Q4_SCALE_BYTES..][..k_quants::Q4_SCALE_BYTES];
            let own = &whole[64 + b % k_quants::BLOCKS * 32..];
            let scale = _mm256_mul_ps(load_f16(&whole[half * 16..]), load_u8(&own[half * 8..]));
            let minimum = _mm256_mul_ps(load_f16(&whole[32 + half * 16..]), load_u8(&own[16 + half * 8..]));
            (scale, _mm256_xor_ps(minimum, _mm256_set1_ps(-0.0)))
        }
    }
}

/// Q6_K: q of 0..=63 stays unsigned; 32 times the activations' sums takes the offset off. Two products of pairs fit i16.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn half_q6<const T: usize>(task: &Matmul<'_>, token: usize, group: usize, half: usize) -> [__m256; T] {
    let (weights, input) = (task.weights, task.input);
    let block_count = weights.block_count();
    let (quants, scales) = (weights.quants(group), weights.scales(group));
    let (low, high_bits) = (_mm256_set1_epi8(15), _mm256_set1_epi8(0x30));
    let mut totals = [_mm256_setzero_ps(); T];
    for strip in strips(block_count) {
        let mut sums = [_mm256_setzero_ps(); T];
        for b in strip {
            let whole =
                &scales[b / k_quants::BLOCKS * k_quants::Q6_SCALE_BYTES..][..k_quants::Q6_SCALE_BYTES];
            let own = &whole[32 + b % k_quants::BLOCKS * 32 + half * 8..];
            let (scale, first, second) = (load_f16(&whole[half * 16..]), load_i8(own), load_i8(&own[16..]));
            let block = &quants[b * 384..(b + 1) * 384];
            let mut q = [_mm256_setzero_si256(); 8];
            for h in 0..2 {
                let pairs = load_bytes(&block[k_quants::Q6_HIGH + h * 64 + half * 32..]);
                let shifted = [
                    _mm256_slli_epi16::<4>(pairs),
                    _mm256_slli_epi16::<2>(pairs),
                    pairs,
                    _mm256_srli_epi16::<2>(pairs),
                ];
                for (k, shifted) in shifted.into_iter().enumerate() {
                    let both = load_bytes(&block[k * 64 + half * 32..]);
                    let nibble = if h == 0 { both } else { _mm256_srli_epi16::<4>(both) };
                    let high = _mm256_and_si256(shifted, high_bits);
                    q[h * 4 + k] = _mm256_or_si256(_mm256_and_si256(nibble, low), high);
                }
            }
            for t in 0..T {
                let x = (token + t) * block_count + b;
                let words = &input.quants[x * BLOCK..(x + 1) * BLOCK];
                let first_sum: i32 = words[..16].iter().map(|q| i32::from(*q)).sum();
                let a = dot_q6(&q[..4], words, 0, first_sum);
                let c = dot_q6(&q[4..], words, 4, input.integer_sums[x] - first_sum);
                // Every product and the sum are below 2^24: exact.
                let integer = _mm256_fmadd_ps(second, c, _mm256_mul_ps(first, a));
                let d = _mm256_mul_ps(scale, _mm256_set1_ps(input.scales[x]));
                sums[t] = _mm256_fmadd_ps(d, integer, sums[t]);
            }
        }
        for t in 0..T {
            totals[t] = _mm256_add_ps(totals[t], sums[t]);
        }
    }
    totals
}

/// Sum of (q - 32) * x over four chunks, as f32; `sum` is that of x.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn dot_q6(q: &[__m256i], words: &[i8], chunk: usize, sum: i32) -> __m256 {
    let ones = _mm256_set1_epi16(1);
    let mut integer = _mm256_set1_epi32(-32 * sum);
    for pair in 0..2 {
        let k = pair * 2;
        let products = _mm256_add_epi16(
            _mm256_maddubs_epi16(q[k], broadcast(words, chunk + k)),
            _mm256_maddubs_epi16(q[k + 1], broadcast(words, chunk + k + 1)),
        );
        integer = _mm256_add_epi32(integer, _mm256_madd_epi16(products, ones));
    }
    _mm256_cvtepi32_ps(integer)
}

/// Eight unsigned bytes as floats.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn load_u8(bytes: &[u8]) -> __m256 {
    // SAFETY: eight bytes, bounds-checked.
    _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(unsafe { _mm_loadl_epi64(bytes[..8].as_ptr().cast()) }))
}

/// Eight signed bytes as floats.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn load_i8(bytes: &[u8]) -> __m256 {
    // SAFETY: eight bytes, bounds-checked.
    _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(unsafe { _mm_loadl_epi64(bytes[..8].as_ptr().cast()) }))
}

/// Q8: |w| * sign(x, w), because unsigned x signed products of full bytes would saturate i16.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn half_q8<const T: usize>(task: &Matmul<'_>, token: usize, group: usize, half: usize) -> [__m256; T] {
    let (weights, input) = (task.weights, task.input);
    let block_count = weights.block_count();
    let (quants, scales) = (weights.quants(group), weights.scales(group));
    let (flip, ones) = (_mm256_set1_epi8(-128), _mm256_set1_epi16(1));
    let mut totals = [_mm256_setzero_ps(); T];
    for strip in strips(block_count) {
        let mut sums = [_mm256_setzero_ps(); T];
        for b in strip {
            let scale = load_f16(&scales[b * 32 + half * 16..]);
            let mut signed = [_mm256_setzero_si256(); 8];
            for (k, w) in signed.iter_mut().enumerate() {
                *w = _mm256_xor_si256(load_bytes(&quants[b * 512 + k * 64 + half * 32..]), flip);
            }
            for t in 0..T {
                let x = (token + t) * block_count + b;
                let words = &input.quants[x * BLOCK..(x + 1) * BLOCK];
                let mut integer = _mm256_setzero_si256();
                for (k, w) in signed.iter().enumerate() {
                    let pairs =
                        _mm256_maddubs_epi16(_mm256_abs_epi8(*w), _mm256_sign_epi8(broadcast(words, k), *w));
                    integer = _mm256_add_epi32(integer, _mm256_madd_epi16(pairs, ones));
                }
                let d = _mm256_mul_ps(scale, _mm256_set1_ps(input.scales[x]));
                sums[t] = _mm256_fmadd_ps(d, _mm256_cvtepi32_ps(integer), sums[t]);
            }
        }
        for t in 0..T {
            totals[t] = _mm256_add_ps(totals[t], sums[t]);
        }
    }
    totals
}

/// Float weights: one chain over columns in each strip.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn half_float<const T: usize>(
    task: &Matmul<'_>,
    token: usize,
    group: usize,
    half: usize,
) -> [__m256; T] {
    let (weights, width) = (task.weights, task.input.width());
    let quants = weights.quants(group);
    let mut totals = [_mm256_setzero_ps(); T];
    for strip in strips(weights.block_count()) {
        let mut sums = [_mm256_setzero_ps(); T];
        for column in strip.start * BLOCK..strip.end * BLOCK {
            let lane = column * LANES + half * 8;
            let w = match weights.kind() {
                TensorType::F16 => load_f16(&quants[lane * 2..]),
                TensorType::Bf16 => {
                    // SAFETY: eight u16 lie there: the slice below is bounds-checked.
                    let bits = unsafe { _mm_loadu_si128(quants[lane * 2..lane * 2 + 16].as_ptr().cast()) };
                    _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(bits)))
                }
                _ => _mm256_castsi256_ps(load_bytes(&quants[lane * 4..])),
            };
            for (t, sum) in sums.iter_mut().enumerate() {
                let x = task.input.values[(token + t) * width + column];
                *sum = _mm256_fmadd_ps(w, _mm256_set1_ps(x), *sum);
            }
        }
        for t in 0..T {
            totals[t] = _mm256_add_ps(totals[t], sums[t]);
        }
    }
    totals
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn load_f16(bytes: &[u8]) -> __m256 {
    // SAFETY: sixteen bytes, bounds-checked.
    _mm256_cvtph_ps(unsafe { _mm_loadu_si128(bytes[..16].as_ptr().cast()) })
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn load_bytes(bytes: &[u8]) -> __m256i {
    // SAFETY: thirty-two bytes, bounds-checked.
    unsafe { _mm256_loadu_si256(bytes[..32].as_ptr().cast()) }
}

/// Four activations, the k-th word of a block, in every lane.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn broadcast(block: &[i8], k: usize) -> __m256i {
    let word = &block[k * 4..k * 4 + 4];
    _mm256_set1_epi32(i32::from_le_bytes([word[0] as u8, word[1] as u8, word[2] as u8, word[3] as u8]))
}

/// A. The largest magnitude is found on the bits, which orders NaN and infinity above every number.
#[target_feature(enable = "avx2,fma,f16c")]
fn quantise(values: &[f32], out: QuantisedRow<'_>) -> bool {
    let magnitude = _mm256_set1_epi32(0x7fff_ffff);
    let mut finite = true;
    for (b, block) in values.chunks_exact(BLOCK).enumerate() {
        let mut largest = _mm256_setzero_si256();
        let mut lanes = [_mm256_setzero_ps(); 4];
        for (lane, part) in lanes.iter_mut().zip(block.chunks_exact(8)) {
            // SAFETY: eight floats.
            *lane = unsafe { _mm256_loadu_ps(part.as_ptr()) };
            largest = _mm256_max_epi32(largest, _mm256_and_si256(_mm256_castps_si256(*lane), magnitude));
        }
        let mut bits = [0i32; 8];
        // SAFETY: room for eight integers.
        unsafe { _mm256_storeu_si256(bits.as_mut_ptr().cast(), largest) };
        let largest = bits.into_iter().fold(0, i32::max);
        finite &= largest < 0x7f80_0000;
        let largest = f32::from_bits(largest as u32);
        let (inverse, scale) =
            if largest < scalar::QUANTISE_MIN { (0.0, 0.0) } else { (127.0 / largest, largest / 127.0) };
        let mut sum = 0i32;
        let quants = &mut out.quants[b * BLOCK..(b + 1) * BLOCK];
        for (lane, quants) in lanes.iter().zip(quants.chunks_exact_mut(8)) {
            let mut rounded = [0i32; 8];
            let product = _mm256_mul_ps(*lane, _mm256_set1_ps(inverse));
            // SAFETY: room for eight integers.
            unsafe { _mm256_storeu_si256(rounded.as_mut_ptr().cast(), _mm256_cvtps_epi32(product)) };
            for (q, r) in quants.iter_mut().zip(rounded) {
                *q = r as i8;
                sum = sum.wrapping_add(r);
            }
        }
        out.scales[b] = scale;
        out.integer_sums[b] = sum;
        out.sums[b] = scale * sum as f32;
    }
    finite
}

/// F, one head at a time: eight keys a vector, then eight dimensions a vector.
#[target_feature(enable = "avx2,fma,f16c")]
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
#[target_feature(enable = "avx2,fma,f16c")]
fn scores(query: &[f32], keys: &[u16], scale: f32) -> [f32; PAGE_POSITIONS] {
    let mut chains = [_mm256_setzero_ps(); 8];
    for (q, row) in query.iter().zip(keys.chunks_exact(PAGE_POSITIONS)) {
        let q = _mm256_set1_ps(*q);
        for (chain, keys) in chains.iter_mut().zip(row.chunks_exact(8)) {
            *chain = _mm256_fmadd_ps(q, load_halves(keys), *chain);
        }
    }
    let mut scores = [0.0f32; PAGE_POSITIONS];
    for (chain, part) in chains.into_iter().zip(scores.chunks_exact_mut(8)) {
        // SAFETY: eight floats.
        unsafe { _mm256_storeu_ps(part.as_mut_ptr(), _mm256_mul_ps(_mm256_set1_ps(scale), chain)) };
    }
    scores
}

/// `output[d] <- sum over keys of weight * value[d]`, keys ascending.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn weigh(weights: &[f32], values: &[u16], output: &mut [f32]) {
    let dim = output.len();
    for (part, output) in output.chunks_exact_mut(8).enumerate() {
        let mut sum = _mm256_setzero_ps();
        for (w, row) in weights.iter().zip(values.chunks_exact(dim)) {
            sum = _mm256_fmadd_ps(_mm256_set1_ps(*w), load_halves(&row[part * 8..]), sum);
        }
        // SAFETY: eight floats.
        unsafe { _mm256_storeu_ps(output.as_mut_ptr(), sum) };
    }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn load_halves(halves: &[u16]) -> __m256 {
    // SAFETY: eight u16, bounds-checked.
    _mm256_cvtph_ps(unsafe { _mm_loadu_si128(halves[..8].as_ptr().cast()) })
}
