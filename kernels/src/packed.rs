//! Weight matrices in memory, sixteen rows side by side so that a row is a lane and no kernel needs a horizontal sum. This is
//! the only copy of the weights. No arithmetic beyond exact f16/bf16 conversion of a single element.
//!
//! A matrix of R rows x K columns (K a multiple of 32, nb = K/32) is ceil(R/16) groups. A group is
//! `scales | quants`, each part starting on a 64-byte line:
//! * scales, per block of 32 columns: 16 x f16 d, and for Q4_1 16 x f16 m after it;
//! * quants, per block: Q4: 4 x 64 bytes, chunk k = 16 lanes x bytes 4k..4k+4 of that row's 16 nibble bytes;
//!   Q8: 8 x 64 bytes, chunk k = 16 lanes x columns 4k..4k+4, each byte w XOR 0x80 (so unsigned);
//!   F16/BF16/F32: 32 columns x 16 lanes. Q4_K and Q6_K: see `packed/k_quants.rs`.
//!
//! Lanes beyond the last row hold zero bytes; their results are never stored.

pub(crate) mod k_quants;

use crate::arena::{Arena, Part};
use crate::gguf::TensorType;

/// Rows side by side.
pub(crate) const LANES: usize = 16;
/// Columns of one quantisation block.
pub(crate) const BLOCK: usize = 32;

/// 64 bytes on their own cache line.
#[derive(Clone)]
#[repr(C, align(64))]
struct Line([u8; 64]);

/// A weight matrix in the layout above.
pub(crate) struct PackedMatrix {
    kind: TensorType,
    rows: usize,
    columns: usize,
    memory: Memory,
}

/// Where a matrix lies.
enum Memory {
    /// On its own.
    Own(Vec<Line>),
    /// Beside the model's others.
    Part(Part),
}

impl PackedMatrix {
    /// A matrix of zero bytes; `columns` must be a multiple of 32.
    pub(crate) fn zeroed(kind: TensorType, rows: usize, columns: usize) -> PackedMatrix {
        let mut matrix = PackedMatrix::without_memory(kind, rows, columns);
        matrix.memory = Memory::Own(vec![Line([0; 64]); matrix.resident_bytes() / 64]);
        matrix
    }

    /// As [`PackedMatrix::zeroed`], in the next `bytes_of` bytes of `arena`.
    pub(crate) fn zeroed_in(
        arena: &mut Arena,
        kind: TensorType,
        rows: usize,
        columns: usize,
    ) -> PackedMatrix {
        let mut matrix = PackedMatrix::without_memory(kind, rows, columns);
        matrix.memory = Memory::Part(arena.take(matrix.resident_bytes()));
        matrix
    }

    /// Bytes that such a matrix takes.
    pub(crate) fn bytes_of(kind: TensorType, rows: usize, columns: usize) -> usize {
        PackedMatrix::without_memory(kind, rows, columns).resident_bytes()
    }

    fn without_memory(kind: TensorType, rows: usize, columns: usize) -> PackedMatrix {
        let block = BLOCK.max(kind.block_elements());
        assert!(columns.is_multiple_of(block), "the loader refuses other widths");
        PackedMatrix { kind, rows, columns, memory: Memory::Own(Vec::new()) }
    }

    /// Stores one row as it stands in the file.
    pub(crate) fn set_row(&mut self, row: usize, raw: &[u8]) {
        assert!(row < self.rows, "row {row} of {}", self.rows);
        assert_eq!(raw.len(), self.kind.row_bytes(self.columns), "row length");
        let (kind, lane) = (self.kind, row % LANES);
        let (scale_block, quant_block) = (self.scale_block_bytes(), self.quant_block_bytes());
        let scale_area = self.scale_area_bytes();
        let group_bytes = self.group_bytes();
        if kind.is_k_quant() {
            let group = &mut self.bytes_mut()[row / LANES * group_bytes..][..group_bytes];
            let (scales, quants) = group.split_at_mut(scale_area);
            k_quants::set_row(kind, lane, raw, scales, quants);
            return;
        }
        let group = &mut self.bytes_mut()[row / LANES * group_bytes..][..group_bytes];
        let (scales, quants) = group.split_at_mut(scale_area);
        let raw_block = kind.row_bytes(BLOCK);
        for (b, raw) in raw.chunks_exact(raw_block).enumerate() {
            let quants = &mut quants[b * quant_block..][..quant_block];
            let mut scale = |at: usize, from: usize| {
                scales[b * scale_block + at + lane * 2..][..2].copy_from_slice(&raw[from..from + 2]);
            };
            match kind {
                TensorType::Q4_0 => {
                    scale(0, 0);
                    spread(quants, lane, 4, &raw[2..]);
                }
                TensorType::Q4_1 => {
                    scale(0, 0);
                    scale(32, 2);
                    spread(quants, lane, 4, &raw[4..]);
                }
                TensorType::Q8_0 => {
                    scale(0, 0);
                    spread(quants, lane, 4, &raw[2..]);
                    quants
                        .chunks_exact_mut(64)
                        .for_each(|line| line[lane * 4..lane * 4 + 4].iter_mut().for_each(|q| *q ^= 0x80));
                }
                TensorType::F16 | TensorType::Bf16 => spread(quants, lane, 2, raw),
                TensorType::F32 => spread(quants, lane, 4, raw),
                TensorType::Q4K | TensorType::Q6K => unreachable!("packed above"),
            }
        }
    }

    /// How elements are stored.
    pub(crate) fn kind(&self) -> TensorType {
        self.kind
    }

    /// Output width.
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// Input width.
    pub(crate) fn columns(&self) -> usize {
        self.columns
    }

    /// Blocks of 32 columns in a row.
    pub(crate) fn block_count(&self) -> usize {
        self.columns / BLOCK
    }

    /// Groups of 16 rows; the last may be partly empty.
    pub(crate) fn group_count(&self) -> usize {
        self.rows.div_ceil(LANES)
    }

    /// Rows of `group` that exist: 16 but for the last group.
    pub(crate) fn group_rows(&self, group: usize) -> usize {
        LANES.min(self.rows - group * LANES)
    }

    /// True where the activations are quantised too.
    pub(crate) fn is_quantised(&self) -> bool {
        !matches!(self.kind, TensorType::F32 | TensorType::F16 | TensorType::Bf16)
    }

    /// Bytes in memory.
    pub(crate) fn resident_bytes(&self) -> usize {
        self.group_count() * self.group_bytes()
    }

    /// Scales of `group`: `block_count * scale_block_bytes` bytes, on a 64-byte line; K-quants: see `k_quants`.
    pub(crate) fn scales(&self, group: usize) -> &[u8] {
        &self.bytes()[group * self.group_bytes()..][..self.scale_bytes()]
    }

    /// Quants of `group`: `block_count * quant_block_bytes` bytes, on a 64-byte line.
    pub(crate) fn quants(&self, group: usize) -> &[u8] {
        let start = group * self.group_bytes() + self.scale_area_bytes();
        &self.bytes()[start..][..self.block_count() * self.quant_block_bytes()]
    }

    /// Scale bytes of 16 rows x 32 columns; 0 for K-quants, whose scales belong to 256 columns.
    pub(crate) fn scale_block_bytes(&self) -> usize {
        match self.kind {
            TensorType::Q4_1 => 64,
            TensorType::Q4_0 | TensorType::Q8_0 => 32,
            TensorType::F32 | TensorType::F16 | TensorType::Bf16 => 0,
            TensorType::Q4K | TensorType::Q6K => 0,
        }
    }

    /// Quant bytes of 16 rows x 32 columns.
    pub(crate) fn quant_block_bytes(&self) -> usize {
        match self.kind {
            TensorType::Q4_0 | TensorType::Q4_1 | TensorType::Q4K => 256,
            TensorType::Q6K => 384,
            TensorType::Q8_0 => 512,
            TensorType::F16 | TensorType::Bf16 => 1024,
            TensorType::F32 => 2048,
        }
    }

    /// d of a block; Q4_K: d times the block's own 6-bit scale, which is exact. Quantised kinds only.
    pub(crate) fn scale(&self, row: usize, block: usize) -> f32 {
        match self.kind {
            TensorType::Q4K => k_quants::q4_scale(self.scales(row / LANES), row % LANES, block),
            TensorType::Q6K => k_quants::q6_scale(self.scales(row / LANES), row % LANES, block),
            _ => self.scale_at(row, block * self.scale_block_bytes()),
        }
    }

    /// m of a block; Q4_K: -(dmin times the block's own 6-bit minimum), which is exact. Q4_1 and Q4_K only.
    pub(crate) fn minimum(&self, row: usize, block: usize) -> f32 {
        match self.kind {
            TensorType::Q4K => k_quants::q4_minimum(self.scales(row / LANES), row % LANES, block),
            _ => self.scale_at(row, block * self.scale_block_bytes() + 32),
        }
    }

    /// The scale of 16 columns of a Q6_K matrix, -128..=127; `half` counts in 16 columns.
    pub(crate) fn sub_scale(&self, row: usize, half: usize) -> i32 {
        k_quants::q6_sub_scale(self.scales(row / LANES), row % LANES, half)
    }

    /// The integer of an element: 0..=15 for Q4_0, Q4_1 and Q4_K, -128..=127 for Q8_0, -32..=31 for Q6_K.
    pub(crate) fn quant(&self, row: usize, column: usize) -> i32 {
        let block = &self.quants(row / LANES)[column / BLOCK * self.quant_block_bytes()..];
        let (lane, j) = (row % LANES * 4, column % BLOCK);
        let nibble = |j: usize| {
            let byte = block[j % 16 / 4 * 64 + lane + j % 4];
            i32::from(if j < 16 { byte & 15 } else { byte >> 4 })
        };
        match self.kind {
            TensorType::Q8_0 => i32::from((block[j / 4 * 64 + lane + j % 4] ^ 0x80) as i8),
            TensorType::Q6K => nibble(j) + 16 * k_quants::q6_high(block, row % LANES, j) - 32,
            _ => nibble(j),
        }
    }

    /// The value of an element of an F32, F16 or BF16 matrix.
    pub(crate) fn float(&self, row: usize, column: usize) -> f32 {
        let width = self.quant_block_bytes() / (BLOCK * LANES);
        let at = (column * LANES + row % LANES) * width;
        let bytes = &self.quants(row / LANES)[at..at + width];
        float_from_bytes(self.kind, bytes)
    }

    /// The values of a row (H, embedding): one rounding each.
    pub(crate) fn row(&self, row: usize, out: &mut [f32]) {
        for (column, out) in out.iter_mut().enumerate() {
            let block = column / BLOCK;
            *out = match self.kind {
                TensorType::F32 | TensorType::F16 | TensorType::Bf16 => self.float(row, column),
                TensorType::Q8_0 => self.scale(row, block) * self.quant(row, column) as f32,
                TensorType::Q4_0 => self.scale(row, block) * (self.quant(row, column) - 8) as f32,
                TensorType::Q6K => {
                    let scale = self.scale(row, block) * self.sub_scale(row, column / 16) as f32;
                    scale * self.quant(row, column) as f32
                }
                TensorType::Q4_1 | TensorType::Q4K => {
                    self.scale(row, block).mul_add(self.quant(row, column) as f32, self.minimum(row, block))
                }
            };
        }
    }

    fn scale_at(&self, row: usize, offset: usize) -> f32 {
        let at = offset + row % LANES * 2;
        float_from_bytes(TensorType::F16, &self.scales(row / LANES)[at..at + 2])
    }

    fn scale_bytes(&self) -> usize {
        match self.kind {
            TensorType::Q4K => self.block_count() / k_quants::BLOCKS * k_quants::Q4_SCALE_BYTES,
            TensorType::Q6K => self.block_count() / k_quants::BLOCKS * k_quants::Q6_SCALE_BYTES,
            _ => self.block_count() * self.scale_block_bytes(),
        }
    }

    fn scale_area_bytes(&self) -> usize {
        self.scale_bytes().next_multiple_of(64)
    }

    fn group_bytes(&self) -> usize {
        self.scale_area_bytes() + self.block_count() * self.quant_block_bytes()
    }

    fn bytes(&self) -> &[u8] {
        match &self.memory {
            // SAFETY: `Line` is 64 initialised bytes without padding, so the vector is one run of 64 * len bytes.
            Memory::Own(lines) => unsafe {
                std::slice::from_raw_parts(lines.as_ptr().cast(), lines.len() * 64)
            },
            Memory::Part(part) => part.bytes(),
        }
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        match &mut self.memory {
            // SAFETY: as in `bytes`; the borrow of `self` is exclusive.
            Memory::Own(lines) => unsafe {
                std::slice::from_raw_parts_mut(lines.as_mut_ptr().cast(), lines.len() * 64)
            },
            Memory::Part(part) => part.bytes_mut(),
        }
    }
}

/// Writes consecutive pieces of `width` bytes into lane `lane` of consecutive rows of 16 lanes.
fn spread(quants: &mut [u8], lane: usize, width: usize, raw: &[u8]) {
    for (line, piece) in quants.chunks_exact_mut(LANES * width).zip(raw.chunks_exact(width)) {
        line[lane * width..][..width].copy_from_slice(piece);
    }
}

/// One stored element as f32, exactly. `bytes` is its little-endian form.
pub(crate) fn float_from_bytes(kind: TensorType, bytes: &[u8]) -> f32 {
    match (kind, bytes) {
        (TensorType::F32, &[a, b, c, d]) => f32::from_le_bytes([a, b, c, d]),
        (TensorType::F16, &[a, b]) => f32_from_f16(u16::from_le_bytes([a, b])),
        (TensorType::Bf16, &[a, b]) => f32::from_bits(u32::from(u16::from_le_bytes([a, b])) << 16),
        _ => unreachable!("not a float element: {kind:?} of {} bytes", bytes.len()),
    }
}

/// IEEE binary16 to binary32; exact for every input.
#[inline(always)]
pub(crate) fn f32_from_f16(half: u16) -> f32 {
    let sign = u32::from(half & 0x8000) << 16;
    let exponent = u32::from(half >> 10) & 31;
    let mantissa = u32::from(half & 1023);
    let magnitude = match exponent {
        // A subnormal is mantissa * 2^-24, a product without rounding.
        0 => (mantissa as f32 * (1.0 / 16_777_216.0)).to_bits(),
        31 => 0x7f80_0000 | mantissa << 13,
        _ => (exponent + 112) << 23 | mantissa << 13,
    };
    f32::from_bits(sign | magnitude)
}

/// IEEE binary32 to binary16, round to nearest even; overflow gives infinity.
#[inline(always)]
pub(crate) fn f16_from_f32(value: f32) -> u16 {
    let bits = value.to_bits();
    let sign = (bits >> 16 & 0x8000) as u16;
    let magnitude = bits & 0x7fff_ffff;
    let half = if magnitude > 0x7f80_0000 {
        0x7e00
    } else if magnitude >= 0x4780_0000 {
        // 65536 and above, infinity.
        0x7c00
    } else if magnitude < 0x3880_0000 {
        // Below 2^-14: adding 0.5 rounds the value to a multiple of 2^-24, to nearest even.
        (f32::from_bits(magnitude) + 0.5).to_bits() - 0x3f00_0000
    } else {
        // Round at bit 13; a carry into the exponent is right, and 65520 becomes infinity.
        (magnitude + 0xfff + (magnitude >> 13 & 1) - 0x3800_0000) >> 13
    };
    sign | half as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f16_round_trips_and_rounds_to_even() {
        for half in 0..=u16::MAX {
            let value = f32_from_f16(half);
            if value.is_nan() {
                assert_eq!(f16_from_f32(value) & 0x7e00, 0x7e00);
            } else {
                assert_eq!(f16_from_f32(value), half, "{value}");
            }
            if half & 0x7c00 < 0x7800 && half & 0x8000 == 0 {
                // Halfway to the next one goes to the even one, and the neighbours of halfway to their own side.
                let half_way = (value + f32_from_f16(half + 1)) / 2.0;
                assert_eq!(f16_from_f32(half_way), half + (half & 1));
                assert_eq!(f16_from_f32(f32::from_bits(half_way.to_bits() - 1)), half);
                assert_eq!(f16_from_f32(f32::from_bits(half_way.to_bits() + 1)), half + 1);
            }
        }
        assert_eq!(f16_from_f32(65519.996), 0x7bff);
        assert_eq!(f16_from_f32(65520.0), 0x7c00);
    }
}
