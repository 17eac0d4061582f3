//! Weights as the device reads them: the layout of `struct Matrix` in `kernels.cu`, made from the host's matrices at load. Copies
//! bytes; the only arithmetic is exact.

use super::device::{Address, Device, two};
use crate::error::Error;
use crate::gguf::TensorType;
use crate::packed::k_quants::{BLOCKS, Q4_SCALE_BYTES};
use crate::packed::{BLOCK, LANES, PackedMatrix, f16_from_f32};

/// Rows of a warp, strips of a row: 32 slots side by side.
const QUAD: usize = 4;
const STRIPS: usize = 8;

/// A matrix in device memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct DeviceMatrix {
    pub kind: TensorType,
    pub rows: usize,
    /// Blocks of 32 columns of a row.
    pub blocks: usize,
    low: Address,
    high: Address,
    scales: Address,
    supers: Address,
}

/// A matrix and the column of the product's output where its rows begin.
pub(super) type Placed = (usize, DeviceMatrix);

/// The four planes on the host.
struct Planes {
    low: Vec<u8>,
    high: Vec<u8>,
    scales: Vec<u8>,
    supers: Vec<u8>,
}

/// Bytes a slot has in `low`, `high` and `scales`, and bytes of 256 columns in `supers`.
fn slot_bytes(kind: TensorType) -> [usize; 4] {
    match kind {
        TensorType::F32 => [128, 0, 0, 0],
        TensorType::F16 | TensorType::Bf16 => [64, 0, 0, 0],
        TensorType::Q4_0 => [16, 0, 2, 0],
        TensorType::Q4_1 => [16, 0, 4, 0],
        TensorType::Q8_0 => [16, 16, 2, 0],
        TensorType::Q4K => [16, 0, 2, 4],
        TensorType::Q6K => [16, 8, 2, 2],
    }
}

/// As `kernels.cu` numbers the types.
pub(super) fn kind_code(kind: TensorType) -> usize {
    match kind {
        TensorType::F32 => 0,
        TensorType::F16 => 1,
        TensorType::Bf16 => 2,
        TensorType::Q4_0 => 3,
        TensorType::Q4_1 => 4,
        TensorType::Q8_0 => 5,
        TensorType::Q4K => 6,
        TensorType::Q6K => 7,
    }
}

impl DeviceMatrix {
    /// `struct Matrix` of `kernels.cu`.
    pub(super) fn words(&self) -> [u64; 5] {
        let planes = [self.low, self.high, self.scales, self.supers];
        [planes[0].0, planes[1].0, planes[2].0, planes[3].0, two(self.rows, self.blocks)]
    }

    /// Repacks the rows of `matrices`, one after another; all have one type and one width.
    pub(super) fn upload(device: &dyn Device, matrices: &[&PackedMatrix]) -> Result<DeviceMatrix, Error> {
        let (kind, blocks) = (matrices[0].kind(), matrices[0].block_count());
        let rows: usize = matrices.iter().map(|m| m.rows()).sum();
        let planes = Planes::pack(matrices, rows);
        let parts = [&planes.low, &planes.high, &planes.scales, &planes.supers];
        let aligned = |bytes: usize| bytes.next_multiple_of(256);
        let memory = device.allocate(parts.iter().map(|part| aligned(part.len())).sum())?;
        let mut at = memory;
        let mut addresses = [Address::NONE; 4];
        for (address, part) in addresses.iter_mut().zip(parts) {
            if !part.is_empty() {
                device.upload(at, part)?;
                *address = at;
                at = at.plus(aligned(part.len()));
            }
        }
        let [low, high, scales, supers] = addresses;
        Ok(DeviceMatrix { kind, rows, blocks, low, high, scales, supers })
    }

    /// Matrices that share an input, side by side in its product: neighbours of one type become one matrix, one launch.
    pub(super) fn upload_side_by_side(
        device: &dyn Device,
        matrices: &[&PackedMatrix],
    ) -> Result<Vec<Placed>, Error> {
        let mut placed = Vec::new();
        let mut column = 0;
        for run in matrices.chunk_by(|a, b| a.kind() == b.kind()) {
            let matrix = DeviceMatrix::upload(device, run)?;
            placed.push((column, matrix));
            column += matrix.rows;
        }
        Ok(placed)
    }
}

impl Planes {
    fn pack(matrices: &[&PackedMatrix], rows: usize) -> Planes {
        let (kind, blocks) = (matrices[0].kind(), matrices[0].block_count());
        let strip = blocks.div_ceil(STRIPS);
        let slots = rows.div_ceil(QUAD) * QUAD * STRIPS * strip;
        let bytes = slot_bytes(kind);
        let mut planes = Planes {
            low: vec![0; slots * bytes[0]],
            high: vec![0; slots * bytes[1]],
            scales: vec![0; slots * bytes[2]],
            supers: vec![0; rows * (blocks / BLOCKS) * bytes[3]],
        };
        let sources = matrices.iter().flat_map(|m| (0..m.rows()).map(move |row| (*m, row)));
        for (row, (matrix, source)) in sources.enumerate() {
            for block in 0..blocks {
                let quad = row / QUAD * strip + block % strip;
                let slot = quad * QUAD * STRIPS + row % QUAD * STRIPS + block / strip;
                planes.set(matrix, source, block, slot);
            }
            planes.set_supers(matrix, source, row * (blocks / BLOCKS));
        }
        planes
    }

    fn set(&mut self, matrix: &PackedMatrix, row: usize, block: usize, slot: usize) {
        let first = block * BLOCK;
        let scale = |planes: &mut Planes, at: usize, value: f32| {
            planes.scales[at..at + 2].copy_from_slice(&f16_from_f32(value).to_le_bytes());
        };
        match matrix.kind() {
            TensorType::F32 | TensorType::F16 | TensorType::Bf16 => self.set_floats(matrix, row, first, slot),
            TensorType::Q8_0 => {
                for j in 0..16 {
                    self.low[slot * 16 + j] = matrix.quant(row, first + j) as u8;
                    self.high[slot * 16 + j] = matrix.quant(row, first + 16 + j) as u8;
                }
                scale(self, slot * 2, matrix.scale(row, block));
            }
            TensorType::Q4_0 | TensorType::Q4_1 | TensorType::Q4K => {
                for j in 0..16 {
                    let high = matrix.quant(row, first + 16 + j) << 4;
                    self.low[slot * 16 + j] = (matrix.quant(row, first + j) | high) as u8;
                }
                match matrix.kind() {
                    TensorType::Q4_0 => scale(self, slot * 2, matrix.scale(row, block)),
                    TensorType::Q4_1 => {
                        scale(self, slot * 4, matrix.scale(row, block));
                        scale(self, slot * 4 + 2, matrix.minimum(row, block));
                    }
                    _ => {
                        let own = q4k_scales(matrix, row, block / BLOCKS);
                        let at = 64 + block % BLOCKS * 32 + row % LANES;
                        self.scales[slot * 2] = own[at];
                        self.scales[slot * 2 + 1] = own[at + LANES];
                    }
                }
            }
            TensorType::Q6K => self.set_q6k(matrix, row, block, slot),
        }
    }

    fn set_floats(&mut self, matrix: &PackedMatrix, row: usize, first: usize, slot: usize) {
        for j in 0..BLOCK {
            let value = matrix.float(row, first + j);
            let (at, bits) = (slot * BLOCK + j, value.to_bits());
            match matrix.kind() {
                TensorType::F32 => self.low[at * 4..at * 4 + 4].copy_from_slice(&bits.to_le_bytes()),
                TensorType::F16 => {
                    self.low[at * 2..at * 2 + 2].copy_from_slice(&f16_from_f32(value).to_le_bytes());
                }
                _ => self.low[at * 2..at * 2 + 2].copy_from_slice(&bits.to_le_bytes()[2..]),
            }
        }
    }

    fn set_q6k(&mut self, matrix: &PackedMatrix, row: usize, block: usize, slot: usize) {
        // 0..=63, as the file has it.
        let quant = |j: usize| (matrix.quant(row, block * BLOCK + j) + 32) as u8;
        for j in 0..16 {
            self.low[slot * 16 + j] = quant(j) & 15 | (quant(16 + j) & 15) << 4;
        }
        for j in 0..BLOCK {
            let (word, k, byte) = (j / 16, j % 16 / 4, j % 4);
            self.high[slot * 8 + word * 4 + byte] |= quant(j) >> 4 << (2 * k);
        }
        for half in 0..2 {
            self.scales[slot * 2 + half] = matrix.sub_scale(row, block * 2 + half) as u8;
        }
    }

    /// `first`: index of the row's first super-block.
    fn set_supers(&mut self, matrix: &PackedMatrix, row: usize, first: usize) {
        for super_block in 0..matrix.block_count() / BLOCKS {
            let at = first + super_block;
            match matrix.kind() {
                TensorType::Q4K => {
                    let (own, lane) = (q4k_scales(matrix, row, super_block), row % LANES * 2);
                    self.supers[at * 4..at * 4 + 2].copy_from_slice(&own[lane..lane + 2]);
                    self.supers[at * 4 + 2..at * 4 + 4].copy_from_slice(&own[32 + lane..32 + lane + 2]);
                }
                TensorType::Q6K => {
                    let d = f16_from_f32(matrix.scale(row, super_block * BLOCKS));
                    self.supers[at * 2..at * 2 + 2].copy_from_slice(&d.to_le_bytes());
                }
                _ => {}
            }
        }
    }
}

/// d, dmin, scales and minima of 256 columns of sixteen rows; layout in `packed/k_quants.rs`.
fn q4k_scales(matrix: &PackedMatrix, row: usize, super_block: usize) -> &[u8] {
    &matrix.scales(row / LANES)[super_block * Q4_SCALE_BYTES..][..Q4_SCALE_BYTES]
}
