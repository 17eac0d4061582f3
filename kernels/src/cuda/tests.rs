//! The device path on the emulated device: every kernel against golden vectors and the scalar reference under several orders of
//! threads, whole models against the scalar engine, and the proof that a missing barrier is noticed.

mod barriers;
mod models;
mod operations;
mod sampling;

use super::device::{Address, Arguments, Device, Launch, two};
use super::emulated::{Emulated, EmulatedOptions};
use super::matrix::DeviceMatrix;
use super::plan::{self, DeviceActivations, ROW_BYTES};
use crate::error::Error;
use crate::gguf::TensorType;
use crate::numerics::{Activations, Backend, Matmul, Numerics, SharedSlice, scalar};
use crate::packed::{BLOCK, PackedMatrix};
use crate::synthetic::SyntheticModel;

const KINDS: [TensorType; 8] = [
    TensorType::F32,
    TensorType::F16,
    TensorType::Bf16,
    TensorType::Q4_0,
    TensorType::Q4_1,
    TensorType::Q8_0,
    TensorType::Q4K,
    TensorType::Q6K,
];

/// Orders in which threads run; 0 is ascending.
const SEEDS: [u64; 4] = [0, 1, 2, 77];

/// Set to `cuda` on a machine with a GPU, in a build with the feature `cuda`: the same tests run there.
const DEVICE_VARIABLE: &str = "COUNTERFOIL_TEST_DEVICE";

/// What the tests run on.
fn backend() -> Backend {
    match std::env::var(DEVICE_VARIABLE).as_deref() {
        Err(_) | Ok("" | "emulated") => Backend::Emulated,
        Ok("cuda") => Backend::Cuda,
        Ok(other) => panic!("{DEVICE_VARIABLE}={other}; expected cuda or emulated"),
    }
}

/// A device; a GPU has orders of its own and takes no seed.
fn device(seed: u64) -> Box<dyn Device> {
    match backend() {
        Backend::Emulated => Box::new(emulated(EmulatedOptions { seed, ..EmulatedOptions::default() })),
        gpu => crate::cuda::open(gpu).unwrap(),
    }
}

fn emulated(options: EmulatedOptions) -> Emulated {
    Emulated::open(options).unwrap()
}

/// xorshift64*.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// `count` numbers in -3..3, one in sixteen of them zero or tiny.
    fn values(&mut self, count: usize) -> Vec<f32> {
        let unit = |bits: u64| (bits >> 40) as f32 / 8_388_608.0 - 1.0;
        let value = |bits: u64| match bits % 32 {
            0 => 0.0,
            1 => unit(bits) * 1e-30,
            _ => unit(bits) * 3.0,
        };
        (0..count).map(|_| value(self.next())).collect()
    }
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// What tests do with any device.
trait Bench: Device {
    fn put_words(&self, words: &[u32]) -> Address {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        let address = self.allocate(bytes.len()).unwrap();
        self.upload(address, &bytes).unwrap();
        address
    }

    fn put(&self, values: &[f32]) -> Address {
        self.put_words(&bits(values))
    }

    fn words(&self, from: Address, count: usize) -> Vec<u32> {
        let mut bytes = vec![0; count * 4];
        self.download(from, &mut bytes).unwrap();
        bytes.chunks_exact(4).map(|four| u32::from_le_bytes(four.try_into().unwrap())).collect()
    }

    fn halves(&self, from: Address, count: usize) -> Vec<u16> {
        let mut bytes = vec![0; count * 2];
        self.download(from, &mut bytes).unwrap();
        bytes.chunks_exact(2).map(|two| u16::from_le_bytes(two.try_into().unwrap())).collect()
    }

    fn activations(&self, rows: usize, width: usize) -> DeviceActivations {
        let memory = self.allocate(DeviceActivations::bytes(rows, width)).unwrap();
        DeviceActivations::at(memory, rows, width)
    }

    /// Quants, scales, sums, integer sums of all rows, as words.
    fn planes(&self, of: &DeviceActivations, rows: usize) -> [Vec<u32>; 4] {
        let blocks = rows * of.width / BLOCK;
        [
            self.words(of.quants, rows * of.width / 4),
            self.words(of.scales, blocks),
            self.words(of.sums, blocks),
            self.words(of.integer_sums, blocks),
        ]
    }

    /// Rows of a pass: (position, first page).
    fn rows(&self, rows: &[(usize, usize)]) -> Address {
        let words: Vec<u32> = rows.iter().flat_map(|(p, page)| [0, *p as u32, *page as u32, 0]).collect();
        assert_eq!(words.len() * 4, rows.len() * ROW_BYTES);
        self.put_words(&words)
    }

    fn start(
        &self,
        kernel: &'static str,
        grid: [usize; 3],
        threads: u32,
        arguments: Arguments,
    ) -> Result<(), Error> {
        self.launch(&Launch { kernel, grid, threads, shared_bytes: 0, arguments })
    }

    /// A of `values` as they are: the combination of one tile with weight 1 changes nothing.
    fn quantised(&self, values: &[f32], width: usize) -> DeviceActivations {
        let rows = values.len() / width;
        let out = self.activations(rows, width);
        let stats: Vec<f32> = (0..rows).flat_map(|_| [0.0, 1.0]).collect();
        let arguments = Arguments::new()
            .address(self.put(values))
            .address(self.put(&stats))
            .address(self.rows(&vec![(0, 0); rows]))
            .structure(&words_of(&out))
            .address(self.put_words(&vec![0; rows]))
            .structure(&[two(1, 1), two(width, 0)])
            .integer(1);
        self.start("attn_combine_q8", [width / BLOCK, rows, 1], 32, arguments).unwrap();
        out
    }

    /// Products of `tokens` rows of `input`; GEMM or GEMV as the plan chooses.
    fn product(
        &self,
        matrix: &DeviceMatrix,
        input: &DeviceActivations,
        tokens: usize,
    ) -> Result<Vec<u32>, Error> {
        // A column on either side that must stay.
        let stride = matrix.rows + 2;
        let output = self.put(&vec![f32::MAX; tokens * stride]);
        self.launch(&plan::product(matrix, input, (output, stride, 1), tokens))?;
        let found = self.words(output, tokens * stride);
        let mut inner = Vec::new();
        for row in found.chunks_exact(stride) {
            assert_eq!(
                [row[0], row[stride - 1]],
                [f32::MAX.to_bits(); 2],
                "a neighbour's column was written"
            );
            inner.extend_from_slice(&row[1..stride - 1]);
        }
        Ok(inner)
    }
}

impl<D: Device + ?Sized> Bench for D {}

fn words_of(of: &DeviceActivations) -> [u64; 5] {
    [of.values.0, of.quants.0, of.scales.0, of.sums.0, of.integer_sums.0]
}

/// Random weights as they stand in a file, and packed for the host.
fn weights(kind: TensorType, rows: usize, columns: usize, seed: u64) -> PackedMatrix {
    let model = SyntheticModel { seed, ..SyntheticModel::small(kind) };
    let raw = model.weights("test", rows, columns, kind);
    let mut matrix = PackedMatrix::zeroed(kind, rows, columns);
    for (row, raw) in raw.chunks_exact(kind.row_bytes(columns)).enumerate() {
        matrix.set_row(row, raw);
    }
    matrix
}

/// The scalar reference's activations of `values`.
fn reference_activations(values: &[f32], width: usize) -> Activations {
    let mut input = Activations::new(values.len() / width, width);
    let shared = input.shared();
    for (row, values) in values.chunks_exact(width).enumerate() {
        // SAFETY: one thread.
        let (own, quantised) = unsafe { shared.row(row) };
        own.copy_from_slice(values);
        scalar::Scalar.quantise(values, quantised);
    }
    input
}

/// The scalar reference's product, `[token][row]`.
fn reference_product(weights: &PackedMatrix, input: &Activations, tokens: usize) -> Vec<u32> {
    let mut output = vec![0.0; tokens * weights.rows()];
    let shared = SharedSlice::new(&mut output);
    let task = Matmul { weights, input, tokens, output: &shared, stride: weights.rows(), column: 0 };
    // SAFETY: one thread.
    unsafe { scalar::Scalar.matmul(&task, 0..weights.group_count()) };
    bits(&output)
}
