//! K-quants in memory: 256 columns of a file's block as eight blocks of 32 in the sixteen-lane layout of `packed.rs`. No
//! arithmetic beyond products that are exact in f32 (an f16 times an integer of at most eight bits).
//!
//! Scales, per 256 columns:
//! * Q4_K, 320 bytes: 16 x f16 d, 16 x f16 dmin, then per block of 32 columns 16 x u8 scale, 16 x u8 minimum;
//! * Q6_K, 288 bytes: 16 x f16 d, then per 16 columns 16 x i8 scale.
//!
//! Quants, per 32 columns: Q4_K as Q4_0. Q6_K: the low four bits as Q4_0 (256 bytes), then 2 x 64 bytes of high bits: line h
//! holds chunks 4h..4h+4 (chunk c = columns 4c..4c+4), chunk c in bits 2(c mod 4) and up of byte `lane * 4 + column mod 4`.

use super::{LANES, f32_from_f16, spread};
use crate::gguf::TensorType;

/// Blocks of 32 columns in one block of the file.
pub(crate) const BLOCKS: usize = 8;
/// Scale bytes of 16 rows x 256 columns of Q4_K.
pub(crate) const Q4_SCALE_BYTES: usize = 320;
/// Scale bytes of 16 rows x 256 columns of Q6_K.
pub(crate) const Q6_SCALE_BYTES: usize = 288;
/// Where the high bits of a Q6_K block start.
pub(crate) const Q6_HIGH: usize = 256;

/// Stores one row, as it stands in the file, into lane `lane` of a group's planes.
pub(super) fn set_row(kind: TensorType, lane: usize, raw: &[u8], scales: &mut [u8], quants: &mut [u8]) {
    match kind {
        TensorType::Q4K => {
            for ((raw, scales), quants) in raw
                .chunks_exact(144)
                .zip(scales.chunks_exact_mut(Q4_SCALE_BYTES))
                .zip(quants.chunks_exact_mut(BLOCKS * 256))
            {
                set_q4(lane, raw, scales, quants);
            }
        }
        _ => {
            for ((raw, scales), quants) in raw
                .chunks_exact(210)
                .zip(scales.chunks_exact_mut(Q6_SCALE_BYTES))
                .zip(quants.chunks_exact_mut(BLOCKS * 384))
            {
                set_q6(lane, raw, scales, quants);
            }
        }
    }
}

/// File: f16 d, f16 dmin, 12 bytes of 6-bit scales and minima, 128 bytes of nibbles.
fn set_q4(lane: usize, raw: &[u8], scales: &mut [u8], quants: &mut [u8]) {
    scales[lane * 2..][..2].copy_from_slice(&raw[..2]);
    scales[32 + lane * 2..][..2].copy_from_slice(&raw[2..4]);
    let (packed, nibbles) = raw[4..].split_at(12);
    for (block, quants) in quants.chunks_exact_mut(256).enumerate() {
        let (scale, minimum) = if block < 4 {
            (packed[block] & 63, packed[block + 4] & 63)
        } else {
            let both = packed[block + 4];
            (both & 15 | packed[block - 4] >> 6 << 4, both >> 4 | packed[block] >> 6 << 4)
        };
        scales[64 + block * 32 + lane] = scale;
        scales[64 + block * 32 + LANES + lane] = minimum;
        // Blocks 2i and 2i+1 share 32 bytes: low nibbles, high nibbles.
        let bytes = &nibbles[block / 2 * 32..][..32];
        let element = |j: usize| bytes[j] >> (block % 2 * 4) & 15;
        let own: [u8; 16] = std::array::from_fn(|j| element(j) | element(j + 16) << 4);
        spread(quants, lane, 4, &own);
    }
}

/// File: 128 bytes of low nibbles, 64 bytes of high pairs, 16 x i8 scale, f16 d.
fn set_q6(lane: usize, raw: &[u8], scales: &mut [u8], quants: &mut [u8]) {
    let (low, rest) = raw.split_at(128);
    let (high, rest) = rest.split_at(64);
    scales[lane * 2..][..2].copy_from_slice(&rest[16..18]);
    for (half, scale) in rest[..16].iter().enumerate() {
        scales[32 + half * LANES + lane] = *scale;
    }
    for (block, quants) in quants.chunks_exact_mut(384).enumerate() {
        let (half, quarter) = (block / 4, block % 4);
        let low = &low[half * 64 + quarter % 2 * 32..][..32];
        let high = &high[half * 32..][..32];
        let nibble = |j: usize| low[j] >> (quarter / 2 * 4) & 15;
        let own: [u8; 16] = std::array::from_fn(|j| nibble(j) | nibble(j + 16) << 4);
        let (nibbles, pairs) = quants.split_at_mut(Q6_HIGH);
        spread(nibbles, lane, 4, &own);
        for (j, byte) in high.iter().enumerate() {
            let (chunk, pair) = (j / 4, byte >> (quarter * 2) & 3);
            pairs[chunk / 4 * 64 + lane * 4 + j % 4] |= pair << (chunk % 4 * 2);
        }
    }
}

fn half(scales: &[u8], at: usize) -> f32 {
    f32_from_f16(u16::from_le_bytes([scales[at], scales[at + 1]]))
}

/// d * scale of a block of 32 columns.
pub(super) fn q4_scale(scales: &[u8], lane: usize, block: usize) -> f32 {
    let own = &scales[block / BLOCKS * Q4_SCALE_BYTES..][..Q4_SCALE_BYTES];
    half(own, lane * 2) * f32::from(own[64 + block % BLOCKS * 32 + lane])
}

/// -(dmin * minimum) of a block of 32 columns.
pub(super) fn q4_minimum(scales: &[u8], lane: usize, block: usize) -> f32 {
    let own = &scales[block / BLOCKS * Q4_SCALE_BYTES..][..Q4_SCALE_BYTES];
    -(half(own, 32 + lane * 2) * f32::from(own[64 + block % BLOCKS * 32 + LANES + lane]))
}

/// d of the 256 columns that `block` belongs to.
pub(super) fn q6_scale(scales: &[u8], lane: usize, block: usize) -> f32 {
    half(scales, block / BLOCKS * Q6_SCALE_BYTES + lane * 2)
}

/// Scale of 16 columns; `half` counts in 16 columns.
pub(super) fn q6_sub_scale(scales: &[u8], lane: usize, half: usize) -> i32 {
    let at = half / (2 * BLOCKS) * Q6_SCALE_BYTES + 32 + half % (2 * BLOCKS) * LANES + lane;
    i32::from(scales[at] as i8)
}

/// The two high bits of element `j` of a block of 32.
pub(super) fn q6_high(block: &[u8], lane: usize, j: usize) -> i32 {
    let chunk = j / 4;
    i32::from(block[Q6_HIGH + chunk / 4 * 64 + lane * 4 + j % 4] >> (chunk % 4 * 2) & 3)
}
