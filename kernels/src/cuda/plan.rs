//! The launches of one pass, in order, as a list: which kernel, over how many blocks, with which memory. Pure; the same list is
//! launched one by one or recorded as a graph. What each kernel does stands in `kernels.cu`.

use super::device::{Address, Arguments, Launch, two};
use super::matrix::{DeviceMatrix, Placed, kind_code};
use crate::gguf::TensorType;
use crate::kv::PAGE_POSITIONS;
use crate::model::Shape;
use crate::packed::BLOCK;
use crate::rope::RopePairs;

/// Tokens up to which a product is a GEMV: eight is one launch's worth of registers.
const GEMV_TOKENS: usize = 8;
/// Rows of a block of threads in a GEMV and in a GEMM; tokens of a block in a GEMM.
const GEMV_ROWS: usize = 16;
const GEMM_ROWS: usize = 64;
const GEMM_TOKENS: usize = 32;
/// Bytes of partial attention results at once: rows of a long prefill go in several launches.
pub(super) const PARTIAL_BYTES_MAX: usize = 256 << 20;

/// A model's weights on the device.
pub(super) struct Net {
    pub shape: Shape,
    pub embedding: DeviceMatrix,
    pub head: DeviceMatrix,
    pub output_norm: Address,
    pub layers: Vec<NetLayer>,
}

/// One layer.
pub(super) struct NetLayer {
    pub attention_norm: Address,
    pub query_key_value: Vec<Placed>,
    pub attention_output: Vec<Placed>,
    pub feed_forward_norm: Address,
    pub gate_up: Vec<Placed>,
    pub down: Vec<Placed>,
    /// [`Address::NONE`] where the architecture has none; so the gains.
    pub bias: Address,
    pub query_gain: Address,
    pub key_gain: Address,
}

/// What decides the launches of a pass: passes that agree in this have one list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct PassShape {
    pub rows: usize,
    /// Rows with a final norm, those with logits first.
    pub outputs: usize,
    pub logits: usize,
    /// Attention tiles of the longest row, rounded up to a power of two.
    pub tiles: usize,
}

/// `struct Activations` of `kernels.cu`.
#[derive(Clone, Copy, Debug)]
pub(super) struct DeviceActivations {
    pub width: usize,
    pub values: Address,
    pub quants: Address,
    pub scales: Address,
    pub sums: Address,
    pub integer_sums: Address,
}

impl DeviceActivations {
    /// Bytes of `rows` rows.
    pub(super) fn bytes(rows: usize, width: usize) -> usize {
        rows * (width * 5 + width / BLOCK * 12)
    }

    /// Planes one after another from `start`, which has room for `rows` rows.
    pub(super) fn at(start: Address, rows: usize, width: usize) -> DeviceActivations {
        let (values, blocks) = (rows * width * 4, rows * width / BLOCK * 4);
        DeviceActivations {
            width,
            values: start,
            quants: start.plus(values),
            scales: start.plus(values + rows * width),
            sums: start.plus(values + rows * width + blocks),
            integer_sums: start.plus(values + rows * width + 2 * blocks),
        }
    }

    fn words(&self) -> [u64; 5] {
        [self.values.0, self.quants.0, self.scales.0, self.sums.0, self.integer_sums.0]
    }

    /// From row `row` on.
    fn starting_at(&self, row: usize) -> DeviceActivations {
        let (values, blocks) = (row * self.width, row * self.width / BLOCK * 4);
        DeviceActivations {
            width: self.width,
            values: self.values.plus(values * 4),
            quants: self.quants.plus(values),
            scales: self.scales.plus(blocks),
            sums: self.sums.plus(blocks),
            integer_sums: self.integer_sums.plus(blocks),
        }
    }
}

/// Memory of passes of one shape.
#[derive(Clone, Copy, Debug)]
pub(super) struct Memory {
    /// `struct Row` of each row.
    pub rows: Address,
    /// Row of each output.
    pub index: Address,
    /// `[row][cos | sin]`.
    pub angles: Address,
    /// Addresses of pages.
    pub pages: Address,
    pub stream: Address,
    pub delta: Address,
    pub projections: Address,
    pub gate_up: Address,
    pub hidden: DeviceActivations,
    pub attended: DeviceActivations,
    pub inner: DeviceActivations,
    pub partial: Address,
    pub stats: Address,
    /// Results: flags, new keys and values, final norms, logits.
    pub bad: Address,
    pub stored: Address,
    pub last: DeviceActivations,
    pub logits: Address,
}

/// Rows of one launch of attention.
pub(super) fn attention_rows(shape: &Shape, tiles: usize) -> usize {
    (PARTIAL_BYTES_MAX / (shape.heads * tiles * shape.head_dim * 4)).max(1)
}

/// Dynamic shared memory of `attn_tile`.
pub(super) fn attention_shared_bytes(shape: &Shape) -> usize {
    shape.heads / shape.kv_heads * (shape.head_dim + PAGE_POSITIONS + 2) * 4
}

/// All launches of a pass.
pub(super) fn launches(net: &Net, memory: &Memory, pass: PassShape) -> Vec<Launch> {
    let mut plan = Plan { net, memory, pass, launches: Vec::new() };
    plan.embed();
    for (index, layer) in net.layers.iter().enumerate() {
        let delta = if index == 0 { Address::NONE } else { memory.delta };
        plan.norm(layer.attention_norm, delta, Address::NONE, &memory.hidden, pass.rows);
        plan.products(&layer.query_key_value, &memory.hidden, memory.projections, pass.rows);
        plan.rotate_and_store(index, layer);
        plan.attend(index);
        plan.products(&layer.attention_output, &memory.attended, memory.delta, pass.rows);
        plan.norm(layer.feed_forward_norm, memory.delta, Address::NONE, &memory.hidden, pass.rows);
        plan.products(&layer.gate_up, &memory.hidden, memory.gate_up, pass.rows);
        plan.activate();
        plan.products(&layer.down, &memory.inner, memory.delta, pass.rows);
    }
    if pass.outputs > 0 {
        plan.norm(net.output_norm, memory.delta, memory.index, &memory.last, pass.outputs);
    }
    plan.products(&[(0, net.head)], &memory.last, memory.logits, pass.logits);
    plan.launches
}

struct Plan<'p> {
    net: &'p Net,
    memory: &'p Memory,
    pass: PassShape,
    launches: Vec<Launch>,
}

impl Plan<'_> {
    fn push(&mut self, kernel: &'static str, grid: [usize; 3], threads: u32, arguments: Arguments) {
        self.launches.push(Launch { kernel, grid, threads, shared_bytes: 0, arguments });
    }

    fn embed(&mut self) {
        let (matrix, memory) = (self.net.embedding, self.memory);
        let arguments = Arguments::new()
            .structure(&matrix.words())
            .integer(kind_code(matrix.kind))
            .address(memory.rows)
            .address(memory.stream)
            .address(memory.bad);
        self.push("embed_gather", [matrix.blocks, self.pass.rows, 1], 32, arguments);
    }

    fn norm(&mut self, gain: Address, delta: Address, index: Address, out: &DeviceActivations, count: usize) {
        let arguments = Arguments::new()
            .address(self.memory.stream)
            .address(delta)
            .address(gain)
            .address(index)
            .structure(&out.words())
            .address(self.memory.bad)
            .integer(self.net.shape.width)
            .float(self.net.shape.epsilon);
        self.push("rmsnorm_q8", [count, 1, 1], 256, arguments);
    }

    fn products(&mut self, matrices: &[Placed], input: &DeviceActivations, output: Address, tokens: usize) {
        if tokens == 0 {
            return;
        }
        let stride = matrices.iter().map(|(_, matrix)| matrix.rows).sum();
        for (column, matrix) in matrices {
            self.launches.push(product(matrix, input, (output, stride, *column), tokens));
        }
    }

    /// `struct Heads` of `kernels.cu`.
    fn heads(&self) -> [u64; 2] {
        let shape = &self.net.shape;
        let halves = usize::from(shape.rope_pairs == RopePairs::Halves);
        [two(shape.heads, shape.kv_heads), two(shape.head_dim, halves)]
    }

    fn rotate_and_store(&mut self, index: usize, layer: &NetLayer) {
        let (shape, memory, rows) = (&self.net.shape, self.memory, self.pass.rows);
        let all_heads = shape.heads + 2 * shape.kv_heads;
        let nothing = [layer.bias, layer.query_gain, layer.key_gain].iter().all(|a| *a == Address::NONE);
        if !nothing {
            let arguments = Arguments::new()
                .address(memory.projections)
                .address(layer.bias)
                .address(layer.query_gain)
                .address(layer.key_gain)
                .address(memory.bad)
                .integer(shape.heads)
                .integer(shape.kv_heads)
                .integer(shape.head_dim)
                .float(shape.epsilon);
            self.push("bias_head_norm", [all_heads, rows, 1], 256, arguments);
        }
        let arguments = Arguments::new()
            .address(memory.projections)
            .address(memory.angles)
            .address(memory.rows)
            .address(memory.pages)
            .address(memory.stored)
            .address(memory.bad)
            .structure(&self.heads())
            .integer(index)
            .integer(shape.layers);
        let pairs = all_heads * shape.head_dim / 2;
        self.push("rope_kv_store", [pairs.div_ceil(128), rows, 1], 128, arguments);
    }

    fn attend(&mut self, layer: usize) {
        let (shape, memory, tiles) = (&self.net.shape, self.memory, self.pass.tiles);
        let scale = (1.0 / (shape.head_dim as f64).sqrt()) as f32;
        let (width, stride) =
            (shape.heads * shape.head_dim, (shape.heads + 2 * shape.kv_heads) * shape.head_dim);
        let each = attention_rows(shape, tiles);
        for first in (0..self.pass.rows).step_by(each) {
            let count = each.min(self.pass.rows - first);
            let (rows, bad) = (memory.rows.plus(first * ROW_BYTES), memory.bad.plus(first * 4));
            let arguments = Arguments::new()
                .address(memory.projections.plus(first * stride * 4))
                .address(rows)
                .address(memory.pages)
                .address(memory.partial)
                .address(memory.stats)
                .address(bad)
                .structure(&self.heads())
                .integer(layer)
                .float(scale);
            self.launches.push(Launch {
                kernel: "attn_tile",
                grid: [tiles, shape.kv_heads, count],
                threads: 64,
                shared_bytes: attention_shared_bytes(shape),
                arguments,
            });
            let arguments = Arguments::new()
                .address(memory.partial)
                .address(memory.stats)
                .address(rows)
                .structure(&memory.attended.starting_at(first).words())
                .address(bad)
                .structure(&self.heads())
                .integer(tiles);
            self.push("attn_combine_q8", [width / BLOCK, count, 1], 32, arguments);
        }
    }

    fn activate(&mut self) {
        let (memory, width) = (self.memory, self.net.shape.feed_forward);
        let arguments = Arguments::new()
            .address(memory.gate_up)
            .structure(&memory.inner.words())
            .address(memory.bad)
            .integer(width);
        self.push("silu_mul_q8", [width / BLOCK, self.pass.rows, 1], 32, arguments);
    }
}

/// Bytes of `struct Row`.
pub(super) const ROW_BYTES: usize = 16;

/// One product; `output` is where it goes: memory, columns of a row of it, first column.
pub(super) fn product(
    matrix: &DeviceMatrix,
    input: &DeviceActivations,
    output: (Address, usize, usize),
    tokens: usize,
) -> Launch {
    let is_float = matches!(matrix.kind, TensorType::F32 | TensorType::F16 | TensorType::Bf16);
    let (kernel, grid) = if is_float || tokens <= GEMV_TOKENS {
        (gemv(matrix.kind), [matrix.rows.div_ceil(GEMV_ROWS), tokens.div_ceil(GEMV_TOKENS), 1])
    } else {
        (gemm(matrix.kind), [matrix.rows.div_ceil(GEMM_ROWS), tokens.div_ceil(GEMM_TOKENS), 1])
    };
    let arguments = Arguments::new()
        .structure(&matrix.words())
        .structure(&input.words())
        .address(output.0)
        .integer(output.1)
        .integer(output.2)
        .integer(tokens);
    Launch { kernel, grid, threads: 128, shared_bytes: 0, arguments }
}

fn gemv(kind: TensorType) -> &'static str {
    match kind {
        TensorType::F32 => "gemv_f32",
        TensorType::F16 => "gemv_f16",
        TensorType::Bf16 => "gemv_bf16",
        TensorType::Q4_0 => "gemv_q4_0",
        TensorType::Q4_1 => "gemv_q4_1",
        TensorType::Q8_0 => "gemv_q8_0",
        TensorType::Q4K => "gemv_q4_k",
        TensorType::Q6K => "gemv_q6_k",
    }
}

fn gemm(kind: TensorType) -> &'static str {
    match kind {
        TensorType::Q4_0 => "gemm_q4_0",
        TensorType::Q4_1 => "gemm_q4_1",
        TensorType::Q8_0 => "gemm_q8_0",
        TensorType::Q4K => "gemm_q4_k",
        TensorType::Q6K => "gemm_q6_k",
        TensorType::F32 | TensorType::F16 | TensorType::Bf16 => {
            unreachable!("float weights go through gemv")
        }
    }
}
