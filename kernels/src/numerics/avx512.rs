//! AVX-512 F/BW/DQ/VL + VNNI. A vector lane is one of the sixteen rows of a group (matmul), a key (scores) or a dimension
//! (values), so no horizontal sums. The element-wise operations are those of `avx2.rs`. Each kernel cites the section of
//! `specs/numerics.md` it follows; the reference is `scalar.rs`.

#![allow(
    clippy::needless_range_loop,
    reason = "an index names the token, head or key in several arrays at once"
)]

use super::avx2::{Q4_0, Q4_1, Q4_K};
use super::{
    Attention, AttentionScratch, Matmul, Numerics, QuantisedRow, STRIPS, avx2, scalar, strips, strips_of,
};
use crate::gguf::TensorType;
use crate::kv::PAGE_POSITIONS;
use crate::packed::{BLOCK, LANES, k_quants};
use std::arch::x86_64::*;
use std::ops::Range;

/// Groups whose weights stay in the cache while all tokens pass over them.
const GROUPS_IN_CACHE: usize = 4;
/// Bytes between a load of weights and the prefetch ahead of it.
const PREFETCH_BYTES: usize = 6144;
/// Query heads that share one pass over keys and values.
const HEADS_MAX: usize = 4;

/// Proof that the processor has the features above.
pub(crate) struct Avx512(());

impl Avx512 {
    /// The backend, if the processor has the instructions.
    pub(crate) fn detect() -> Option<&'static dyn Numerics> {
        static AVX512: Avx512 = Avx512(());
        let present = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512vnni");
        (present && avx2::Avx2::detect().is_some()).then_some(&AVX512 as &dyn Numerics)
    }
}

// SAFETY of every block below: an `Avx512` exists only after `detect` saw the features, AVX2's included.
impl Numerics for Avx512 {
    unsafe fn matmul(&self, task: &Matmul<'_>, groups: Range<usize>) {
        task.check(&groups);
        let mut start = groups.start;
        while start < groups.end {
            let end = groups.end.min(start + GROUPS_IN_CACHE);
            // SAFETY: features detected; columns are ours by the caller's promise; shapes checked above.
            unsafe { cached_groups(task, start..end) };
            start = end;
        }
    }

    fn quantise(&self, values: &[f32], out: QuantisedRow<'_>) -> bool {
        // SAFETY: features detected.
        unsafe { quantise(values, out) }
    }

    fn rms_norm(&self, x: &[f32], gain: &[f32], epsilon: f32, y: &mut [f32]) -> bool {
        // SAFETY: features detected.
        unsafe { avx2::rms_norm(x, gain, epsilon, y) }
    }

    fn rope(&self, row: &mut [f32], cos: &[f32], sin: &[f32]) {
        // SAFETY: features detected.
        unsafe { avx2::rope(row, cos, sin) }
    }

    fn rope_halves(&self, row: &mut [f32], cos: &[f32], sin: &[f32]) {
        // SAFETY: features detected.
        unsafe { avx2::rope_halves(row, cos, sin) }
    }

    fn to_f16(&self, values: &[f32], out: &mut [u16]) -> bool {
        // SAFETY: features detected.
        unsafe { avx2::to_f16(values, out) }
    }

    fn attention(&self, task: &Attention<'_>, out: &mut [f32], scratch: &mut AttentionScratch) -> bool {
        // SAFETY: features detected.
        unsafe { attention(task, out, scratch) }
    }

    fn silu_multiply(&self, gate: &mut [f32], up: &[f32]) {
        // SAFETY: features detected.
        unsafe { avx2::silu_multiply(gate, up) }
    }

    fn add(&self, x: &mut [f32], y: &[f32]) {
        // SAFETY: features detected.
        unsafe { avx2::add(x, y) }
    }

    fn sampling_weights(&self, logits: &[f32], maximum: f32, temperature: f32, out: &mut [u32]) {
        // SAFETY: features detected.
        unsafe { avx2::sampling_weights(logits, maximum, temperature, out) }
    }
}

/// All tokens over a few groups, in tiles of tokens that fit the registers.
///
/// # Safety
/// The features; `groups` exist and are the caller's.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
unsafe fn cached_groups(task: &Matmul<'_>, groups: Range<usize>) {
    let mut token = 0;
    while token < task.tokens {
        // SAFETY: passed on; a tile never reaches beyond `tokens`.
        token += unsafe {
            match task.tokens - token {
                8.. => tile_of_groups::<8>(task, token, groups.clone()),
                4.. => tile_of_groups::<4>(task, token, groups.clone()),
                2.. => tile_of_groups::<2>(task, token, groups.clone()),
                _ => tile_of_groups::<1>(task, token, groups.clone()),
            }
        };
    }
}

/// T tokens over `groups`; returns T.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
unsafe fn tile_of_groups<const T: usize>(task: &Matmul<'_>, token: usize, groups: Range<usize>) -> usize {
    for group in groups {
        // SAFETY: passed on.
        let totals = unsafe {
            match task.weights.kind() {
                TensorType::Q4_0 => tile_q4::<T, Q4_0, STRIPS>(task, token, group),
                TensorType::Q4_1 => tile_q4::<T, Q4_1, STRIPS>(task, token, group),
                TensorType::Q4K => tile_q4::<T, Q4_K, STRIPS>(task, token, group),
                TensorType::Q6K => tile_q6::<T>(task, token, group),
                TensorType::Q8_0 => tile_q8::<T>(task, token, group),
                TensorType::F32 | TensorType::F16 | TensorType::Bf16 => tile_float::<T>(task, token, group),
            }
        };
        let rows = task.weights.group_rows(group);
        let live = if rows == LANES { u16::MAX } else { (1 << rows) - 1 };
        for (t, total) in totals.into_iter().enumerate() {
            // SAFETY: the output columns are the caller's; the mask leaves out lanes beyond the last row.
            unsafe { _mm512_mask_storeu_ps(task.output(token + t, group).as_mut_ptr(), live, total) };
        }
    }
    T
}

/// B, Q4_0, Q4_1 and Q4_K: out lane = row; integer dots by VNNI, two chains of four. `STRIP_COUNT` is [`STRIPS`] but where
/// the cost of that order is measured.
///
/// # Safety
/// The features; `token + T <= tokens`; `group` exists.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
pub(super) unsafe fn tile_q4<const T: usize, const KIND: u8, const STRIP_COUNT: usize>(
    task: &Matmul<'_>,
    token: usize,
    group: usize,
) -> [__m512; T] {
    let (weights, input) = (task.weights, task.input);
    let block_count = weights.block_count();
    let (quants, scales) = (weights.quants(group).as_ptr(), weights.scales(group).as_ptr());
    let low = _mm512_set1_epi8(15);
    let mut totals = [_mm512_setzero_ps(); T];
    for strip in strips_of(block_count, STRIP_COUNT) {
        let mut sums = [_mm512_setzero_ps(); T];
        for b in strip {
            // SAFETY: block b of the group's planes and of T activation rows, in bounds by `Matmul::check`.
            unsafe {
                let q = quants.add(b * 256);
                prefetch::<5>(scales.wrapping_add(b * 320));
                let (scale, minimum) = q4_scales::<KIND>(scales, b);
                let mut nibbles = [[_mm512_setzero_si512(); 2]; 4];
                for (k, pair) in nibbles.iter_mut().enumerate() {
                    let both = _mm512_load_si512(q.add(k * 64).cast());
                    *pair =
                        [_mm512_and_si512(both, low), _mm512_and_si512(_mm512_srli_epi16::<4>(both), low)];
                }
                for t in 0..T {
                    let x = (token + t) * block_count + b;
                    let words: *const i32 = input.quants.as_ptr().add(x * BLOCK).cast();
                    let start = if KIND != Q4_0 { 0 } else { -8 * *input.integer_sums.get_unchecked(x) };
                    let (mut first, mut second) = (_mm512_set1_epi32(start), _mm512_setzero_si512());
                    for (k, pair) in nibbles.iter().enumerate() {
                        first = _mm512_dpbusd_epi32(
                            first,
                            pair[0],
                            _mm512_set1_epi32(words.add(k).read_unaligned()),
                        );
                        second = _mm512_dpbusd_epi32(
                            second,
                            pair[1],
                            _mm512_set1_epi32(words.add(4 + k).read_unaligned()),
                        );
                    }
                    let integer = _mm512_cvtepi32_ps(_mm512_add_epi32(first, second));
                    let d = _mm512_mul_ps(scale, _mm512_set1_ps(*input.scales.get_unchecked(x)));
                    sums[t] = _mm512_fmadd_ps(d, integer, sums[t]);
                    if KIND != Q4_0 {
                        sums[t] =
                            _mm512_fmadd_ps(minimum, _mm512_set1_ps(*input.sums.get_unchecked(x)), sums[t]);
                    }
                }
            }
        }
        for t in 0..T {
            totals[t] = _mm512_add_ps(totals[t], sums[t]);
        }
    }
    totals
}

/// d and m of a block for sixteen rows; for Q4_K both products are exact.
///
/// # Safety
/// The features; `b` is a block of the group whose scales these are.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
unsafe fn q4_scales<const KIND: u8>(scales: *const u8, b: usize) -> (__m512, __m512) {
    // SAFETY: scales of a block that exists, 32-byte lines by the layout (16-byte ones for the bytes of Q4_K).
    unsafe {
        let half = |at: *const u8| _mm512_cvtph_ps(_mm256_load_si256(at.cast()));
        let byte = |at: *const u8| _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_load_si128(at.cast())));
        match KIND {
            Q4_0 => (half(scales.add(b * 32)), _mm512_setzero_ps()),
            Q4_1 => (half(scales.add(b * 64)), half(scales.add(b * 64 + 32))),
            _ => {
                let whole = scales.add(b / k_quants::BLOCKS * k_quants::Q4_SCALE_BYTES);
                let own = whole.add(64 + b % k_quants::BLOCKS * 32);
                let scale = _mm512_mul_ps(half(whole), byte(own));
                let minimum = _mm512_mul_ps(half(whole.add(32)), byte(own.add(16)));
                (scale, _mm512_xor_ps(minimum, _mm512_set1_ps(-0.0)))
            }
        }
    }
}

/// B, Q6_K: q of 0..=63 stays unsigned; 32 times the activations' sums takes the offset off.
///
/// # Safety
/// The features; `token + T <= tokens`; `group` exists.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
unsafe fn tile_q6<const T: usize>(task: &Matmul<'_>, token: usize, group: usize) -> [__m512; T] {
    let (weights, input) = (task.weights, task.input);
    let block_count = weights.block_count();
    let (quants, scales) = (weights.quants(group).as_ptr(), weights.scales(group).as_ptr());
    let mut totals = [_mm512_setzero_ps(); T];
    for strip in strips(block_count) {
        let mut sums = [_mm512_setzero_ps(); T];
        for b in strip {
            // SAFETY: block b of the group's planes and of T activation rows, in bounds by `Matmul::check`.
            unsafe {
                prefetch::<7>(scales.wrapping_add(b * 420));
                let whole = scales.add(b / k_quants::BLOCKS * k_quants::Q6_SCALE_BYTES);
                let own = whole.add(32 + b % k_quants::BLOCKS * 32);
                let byte =
                    |at: *const u8| _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_load_si128(at.cast())));
                let scale = _mm512_cvtph_ps(_mm256_load_si256(whole.cast()));
                let (first, second) = (byte(own), byte(own.add(16)));
                let q = q6_quants(quants.add(b * 384));
                for t in 0..T {
                    let x = (token + t) * block_count + b;
                    let block = input.quants.as_ptr().add(x * BLOCK);
                    let words: *const i32 = block.cast();
                    let sixteen = _mm256_cvtepi8_epi16(_mm_loadu_si128(block.cast()));
                    let first_sum = sum_of_sixteen(sixteen);
                    let second_sum = *input.integer_sums.get_unchecked(x) - first_sum;
                    let (mut a, mut c) =
                        (_mm512_set1_epi32(-32 * first_sum), _mm512_set1_epi32(-32 * second_sum));
                    for k in 0..4 {
                        a = _mm512_dpbusd_epi32(a, q[k], _mm512_set1_epi32(words.add(k).read_unaligned()));
                        c = _mm512_dpbusd_epi32(
                            c,
                            q[4 + k],
                            _mm512_set1_epi32(words.add(4 + k).read_unaligned()),
                        );
                    }
                    // Every product and the sum are below 2^24: exact.
                    let product = _mm512_mul_ps(first, _mm512_cvtepi32_ps(a));
                    let integer = _mm512_fmadd_ps(second, _mm512_cvtepi32_ps(c), product);
                    let d = _mm512_mul_ps(scale, _mm512_set1_ps(*input.scales.get_unchecked(x)));
                    sums[t] = _mm512_fmadd_ps(d, integer, sums[t]);
                }
            }
        }
        for t in 0..T {
            totals[t] = _mm512_add_ps(totals[t], sums[t]);
        }
    }
    totals
}

/// q of 0..=63 for the eight chunks of a block.
///
/// # Safety
/// The features; 384 bytes on a 64-byte line lie there.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
unsafe fn q6_quants(block: *const u8) -> [__m512i; 8] {
    let (low, high_bits) = (_mm512_set1_epi8(15), _mm512_set1_epi8(0x30));
    let mut q = [_mm512_setzero_si512(); 8];
    for h in 0..2 {
        // SAFETY: inside the block.
        let pairs = unsafe { _mm512_load_si512(block.add(k_quants::Q6_HIGH + h * 64).cast()) };
        let shifted = [
            _mm512_slli_epi16::<4>(pairs),
            _mm512_slli_epi16::<2>(pairs),
            pairs,
            _mm512_srli_epi16::<2>(pairs),
        ];
        for (k, shifted) in shifted.into_iter().enumerate() {
            // SAFETY: inside the block.
            let both = unsafe { _mm512_load_si512(block.add(k * 64).cast()) };
            let nibble = if h == 0 { both } else { _mm512_srli_epi16::<4>(both) };
            let high = _mm512_and_si512(shifted, high_bits);
            q[h * 4 + k] = _mm512_or_si512(_mm512_and_si512(nibble, low), high);
        }
    }
    q
}

/// Sum of sixteen i16.
#[inline]
#[target_feature(enable = "avx2")]
fn sum_of_sixteen(values: __m256i) -> i32 {
    let pairs = _mm256_madd_epi16(values, _mm256_set1_epi16(1));
    let four = _mm_add_epi32(_mm256_castsi256_si128(pairs), _mm256_extracti128_si256::<1>(pairs));
    let two = _mm_add_epi32(four, _mm_shuffle_epi32::<0x4e>(four));
    _mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32::<0xb1>(two)))
}

/// B, Q8_0: weights are stored with 128 added, which the block sum of the activations takes off again.
///
/// # Safety
/// The features; `token + T <= tokens`; `group` exists.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
unsafe fn tile_q8<const T: usize>(task: &Matmul<'_>, token: usize, group: usize) -> [__m512; T] {
    let (weights, input) = (task.weights, task.input);
    let block_count = weights.block_count();
    let (quants, scales) = (weights.quants(group).as_ptr(), weights.scales(group).as_ptr());
    let mut totals = [_mm512_setzero_ps(); T];
    for strip in strips(block_count) {
        let mut sums = [_mm512_setzero_ps(); T];
        for b in strip {
            // SAFETY: block b of the group's planes and of T activation rows, in bounds by `Matmul::check`.
            unsafe {
                let q = quants.add(b * 512);
                prefetch::<9>(scales.wrapping_add(b * 544));
                let scale = _mm512_cvtph_ps(_mm256_load_si256(scales.add(b * 32).cast()));
                let mut w = [_mm512_setzero_si512(); 8];
                for (k, w) in w.iter_mut().enumerate() {
                    *w = _mm512_load_si512(q.add(k * 64).cast());
                }
                for t in 0..T {
                    let x = (token + t) * block_count + b;
                    let words: *const i32 = input.quants.as_ptr().add(x * BLOCK).cast();
                    let start = -128 * *input.integer_sums.get_unchecked(x);
                    let (mut first, mut second) = (_mm512_set1_epi32(start), _mm512_setzero_si512());
                    for k in 0..4 {
                        first = _mm512_dpbusd_epi32(
                            first,
                            w[k],
                            _mm512_set1_epi32(words.add(k).read_unaligned()),
                        );
                        second = _mm512_dpbusd_epi32(
                            second,
                            w[4 + k],
                            _mm512_set1_epi32(words.add(4 + k).read_unaligned()),
                        );
                    }
                    let integer = _mm512_cvtepi32_ps(_mm512_add_epi32(first, second));
                    let d = _mm512_mul_ps(scale, _mm512_set1_ps(*input.scales.get_unchecked(x)));
                    sums[t] = _mm512_fmadd_ps(d, integer, sums[t]);
                }
            }
        }
        for t in 0..T {
            totals[t] = _mm512_add_ps(totals[t], sums[t]);
        }
    }
    totals
}

/// B, float weights: one chain over the columns of each strip.
///
/// # Safety
/// The features; `token + T <= tokens`; `group` exists.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
unsafe fn tile_float<const T: usize>(task: &Matmul<'_>, token: usize, group: usize) -> [__m512; T] {
    let (weights, width) = (task.weights, task.input.width());
    let quants = weights.quants(group).as_ptr();
    let mut totals = [_mm512_setzero_ps(); T];
    for strip in strips(weights.block_count()) {
        let mut sums = [_mm512_setzero_ps(); T];
        for column in strip.start * BLOCK..strip.end * BLOCK {
            // SAFETY: sixteen elements of a column that exists; T rows of activations, in bounds by `Matmul::check`.
            unsafe {
                let w = match weights.kind() {
                    TensorType::F16 => {
                        _mm512_cvtph_ps(_mm256_load_si256(quants.add(column * LANES * 2).cast()))
                    }
                    TensorType::Bf16 => {
                        let bits = _mm256_load_si256(quants.add(column * LANES * 2).cast());
                        _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(bits)))
                    }
                    _ => _mm512_load_ps(quants.add(column * LANES * 4).cast()),
                };
                for (t, sum) in sums.iter_mut().enumerate() {
                    let x = *task.input.values.get_unchecked((token + t) * width + column);
                    *sum = _mm512_fmadd_ps(w, _mm512_set1_ps(x), *sum);
                }
            }
        }
        for t in 0..T {
            totals[t] = _mm512_add_ps(totals[t], sums[t]);
        }
    }
    totals
}

/// Asks for LINES lines, `PREFETCH_BYTES` ahead. A group is one run of memory and the next group follows it, so walking from the
/// scales at the average bytes of a block touches every line once.
#[inline(always)]
fn prefetch<const LINES: usize>(from: *const u8) {
    for line in 0..LINES {
        // SAFETY: a prefetch never faults, whatever the address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(from.wrapping_add(PREFETCH_BYTES + line * 64).cast()) };
    }
}

/// A. The largest magnitude is found on the bits, which orders NaN and infinity above every number.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn quantise(values: &[f32], out: QuantisedRow<'_>) -> bool {
    let magnitude = _mm512_set1_epi32(0x7fff_ffff);
    let mut finite = true;
    let QuantisedRow { quants, scales, sums, integer_sums } = out;
    for (b, (block, quants)) in values.chunks_exact(BLOCK).zip(quants.chunks_exact_mut(BLOCK)).enumerate() {
        // SAFETY: a block is 32 floats.
        let (low, high) =
            unsafe { (_mm512_loadu_ps(block.as_ptr()), _mm512_loadu_ps(block.as_ptr().add(16))) };
        let bits = _mm512_max_epi32(
            _mm512_and_si512(_mm512_castps_si512(low), magnitude),
            _mm512_and_si512(_mm512_castps_si512(high), magnitude),
        );
        let largest = _mm512_reduce_max_epi32(bits);
        finite &= largest < 0x7f80_0000;
        let largest = f32::from_bits(largest as u32);
        let (inverse, scale) =
            if largest < scalar::QUANTISE_MIN { (0.0, 0.0) } else { (127.0 / largest, largest / 127.0) };
        let inverse = _mm512_set1_ps(inverse);
        let low = _mm512_cvtps_epi32(_mm512_mul_ps(low, inverse));
        let high = _mm512_cvtps_epi32(_mm512_mul_ps(high, inverse));
        // SAFETY: a block of quants is 32 bytes.
        unsafe {
            _mm_storeu_si128(quants.as_mut_ptr().cast(), _mm512_cvtepi32_epi8(low));
            _mm_storeu_si128(quants.as_mut_ptr().add(16).cast(), _mm512_cvtepi32_epi8(high));
        }
        let sum = _mm512_reduce_add_epi32(_mm512_add_epi32(low, high));
        scales[b] = scale;
        integer_sums[b] = sum;
        sums[b] = scale * sum as f32;
    }
    finite
}

/// F. Heads that share a key-value head go together, up to `HEADS_MAX`, so that each key and value is converted once.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn attention(task: &Attention<'_>, out: &mut [f32], scratch: &mut AttentionScratch) -> bool {
    let (dim, heads) = (task.head_dim, task.query.len() / task.head_dim);
    let tiles = task.key_count.div_ceil(PAGE_POSITIONS);
    scratch.reserve(heads * tiles, dim);
    let mut finite = true;
    for tile in 0..tiles {
        let mut head = 0;
        while head < heads {
            let step = (heads - head).min(HEADS_MAX);
            finite &= match step {
                1 => heads_of_tile::<1>(task, tile, head, heads, scratch),
                2 => heads_of_tile::<2>(task, tile, head, heads, scratch),
                3 => heads_of_tile::<3>(task, tile, head, heads, scratch),
                _ => heads_of_tile::<4>(task, tile, head, heads, scratch),
            };
            head += step;
        }
    }
    scalar::combine(scratch, heads, tiles, dim, out);
    finite
}

/// F for G heads within one tile.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn heads_of_tile<const G: usize>(
    task: &Attention<'_>,
    tile: usize,
    head: usize,
    heads: usize,
    scratch: &mut AttentionScratch,
) -> bool {
    let dim = task.head_dim;
    let live = (task.key_count - tile * PAGE_POSITIONS).min(PAGE_POSITIONS);
    let (keys, values) = task.cache.tiles(tile);
    let chains = score_chains::<G>(&task.query[head * dim..(head + G) * dim], keys);
    let mut weights = [[0.0f32; PAGE_POSITIONS]; G];
    let mut finite = true;
    for g in 0..G {
        let (maximum, ok) = exponentials(chains[g], task.scale, live, &mut weights[g]);
        finite &= ok;
        scratch.stats[tile * heads + head + g].0 = maximum;
    }
    let mut totals = [0.0f32; G];
    for j in 0..live {
        for g in 0..G {
            totals[g] += weights[g][j];
        }
    }
    for (g, total) in totals.into_iter().enumerate() {
        scratch.stats[tile * heads + head + g].1 = total;
    }
    let start = (tile * heads + head) * dim;
    let outputs = &mut scratch.outputs[start..start + G * dim];
    if dim.is_multiple_of(64) {
        weigh::<G, 4>(&weights, &values[..live * dim], outputs);
    } else {
        weigh::<G, 1>(&weights, &values[..live * dim], outputs);
    }
    finite
}

/// q.k for 64 keys and G heads: one chain over d a key.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn score_chains<const G: usize>(query: &[f32], keys: &[u16]) -> [[__m512; 4]; G] {
    let dim = query.len() / G;
    let mut chains = [[_mm512_setzero_ps(); 4]; G];
    for (d, row) in keys.chunks_exact(PAGE_POSITIONS).enumerate() {
        for i in 0..4 {
            let keys = load_halves(&row[i * 16..i * 16 + 16]);
            for (g, chain) in chains.iter_mut().enumerate() {
                chain[i] = _mm512_fmadd_ps(_mm512_set1_ps(query[g * dim + d]), keys, chain[i]);
            }
        }
    }
    chains
}

/// `exp(score - maximum)` of the live keys; the maximum; whether all live scores are finite.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn exponentials(
    chains: [__m512; 4],
    scale: f32,
    live: usize,
    weights: &mut [f32; PAGE_POSITIONS],
) -> (f32, bool) {
    let lowest = _mm512_set1_ps(f32::NEG_INFINITY);
    let infinite = _mm512_set1_epi32(0x7f80_0000);
    let (mut maximum, mut bad) = (lowest, 0);
    let mut scores = [lowest; 4];
    for i in 0..4 {
        let count = live.saturating_sub(i * 16).min(16);
        let mask = ((1u32 << count) - 1) as u16;
        scores[i] = _mm512_mask_mul_ps(lowest, mask, chains[i], _mm512_set1_ps(scale));
        let magnitude = _mm512_and_si512(_mm512_castps_si512(scores[i]), _mm512_set1_epi32(0x7fff_ffff));
        bad |= _mm512_mask_cmpge_epi32_mask(mask, magnitude, infinite);
        maximum = _mm512_max_ps(maximum, scores[i]);
    }
    let maximum = _mm512_reduce_max_ps(maximum);
    for (score, part) in scores.into_iter().zip(weights.chunks_exact_mut(16)) {
        let weight = exp(_mm512_sub_ps(score, _mm512_set1_ps(maximum)));
        // SAFETY: sixteen floats.
        unsafe { _mm512_storeu_ps(part.as_mut_ptr(), weight) };
    }
    (maximum, bad == 0)
}

/// G, sixteen at a time.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn exp(x: __m512) -> __m512 {
    let x = _mm512_max_ps(x, _mm512_set1_ps(scalar::EXP_LOW));
    let x = _mm512_min_ps(x, _mm512_set1_ps(scalar::EXP_HIGH));
    let integer = _mm512_cvtps_epi32(_mm512_mul_ps(x, _mm512_set1_ps(scalar::EXP_LOG2_E)));
    let n = _mm512_cvtepi32_ps(integer);
    let r = _mm512_fmadd_ps(n, _mm512_set1_ps(scalar::EXP_LN2_HIGH), x);
    let r = _mm512_fmadd_ps(n, _mm512_set1_ps(scalar::EXP_LN2_LOW), r);
    let mut p = _mm512_set1_ps(scalar::EXP_POLYNOMIAL[0]);
    for c in &scalar::EXP_POLYNOMIAL[1..] {
        p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(*c));
    }
    let y = _mm512_add_ps(_mm512_fmadd_ps(p, _mm512_mul_ps(r, r), r), _mm512_set1_ps(1.0));
    _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(y), _mm512_slli_epi32::<23>(integer)))
}

/// `outputs[g][d] <- sum over keys of weights[g][j] * values[j][d]`, keys ascending; V vectors of dimensions at a time.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn weigh<const G: usize, const V: usize>(
    weights: &[[f32; PAGE_POSITIONS]; G],
    values: &[u16],
    outputs: &mut [f32],
) {
    let dim = outputs.len() / G;
    for start in (0..dim).step_by(V * 16) {
        let mut sums = [[_mm512_setzero_ps(); V]; G];
        for (j, row) in values.chunks_exact(dim).enumerate() {
            for v in 0..V {
                let value = load_halves(&row[start + v * 16..start + v * 16 + 16]);
                for g in 0..G {
                    sums[g][v] = _mm512_fmadd_ps(_mm512_set1_ps(weights[g][j]), value, sums[g][v]);
                }
            }
        }
        for (g, sums) in sums.into_iter().enumerate() {
            for (v, sum) in sums.into_iter().enumerate() {
                let part = &mut outputs[g * dim + start + v * 16..][..16];
                // SAFETY: sixteen floats.
                unsafe { _mm512_storeu_ps(part.as_mut_ptr(), sum) };
            }
        }
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn load_halves(halves: &[u16]) -> __m512 {
    // SAFETY: sixteen u16, bounds-checked.
    _mm512_cvtph_ps(unsafe { _mm256_loadu_si256(halves[..16].as_ptr().cast()) })
}
