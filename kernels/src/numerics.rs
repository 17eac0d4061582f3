//! The operations of `counterfoil-numerics-1` behind one trait, and the choice of the fastest implementation this processor
//! can run. Every implementation gives the same bits; the order of operations stands in `specs/numerics.md`, whose sections
//! the comments cite. No model structure, no threads here.

pub(crate) mod scalar;

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
#[cfg(all(target_arch = "aarch64", target_endian = "little"))]
pub(crate) mod neon;
#[cfg(target_arch = "x86_64")]
pub(crate) mod unordered;

use crate::error::Error;
use crate::kv::KvHead;
use crate::packed::{BLOCK, PackedMatrix};
use std::marker::PhantomData;
use std::ops::Range;

/// The id of these numerics. Hashed into every digest chain and receipt.
pub const NUMERICS_ID: &str = "counterfoil-numerics-1";

/// Which implementation of the numerics to run. All give the same bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// The reference: plain Rust, any processor.
    Scalar,
    /// x86-64 with AVX2, FMA and F16C.
    Avx2,
    /// x86-64 with AVX-512 F, BW, DQ, VL and VNNI.
    Avx512,
    /// AArch64 with the dot products of ARMv8.2.
    Neon,
    /// An NVIDIA GPU (cargo feature `cuda`).
    Cuda,
    /// The CUDA kernels run by this CPU: slow, for tests and for machines without a GPU (cargo feature `cuda-shim`).
    Emulated,
}

/// All of them; those of processors come first, the fastest first.
const BACKENDS: [Backend; 6] =
    [Backend::Avx512, Backend::Avx2, Backend::Neon, Backend::Scalar, Backend::Cuda, Backend::Emulated];

impl Backend {
    /// The fastest this processor has, or the one that `COUNTERFOIL_KERNELS` (`scalar`, `avx2`, `avx512`, `neon`, `cuda`,
    /// `emulated`) names.
    ///
    /// # Errors
    /// [`Error::UnsupportedBackend`] for an unknown name.
    pub fn from_environment() -> Result<Backend, Error> {
        match std::env::var("COUNTERFOIL_KERNELS") {
            Ok(name) if !name.is_empty() => {
                let known = BACKENDS.into_iter().find(|b| b.name() == name);
                known.ok_or_else(|| Error::UnsupportedBackend { what: format!("COUNTERFOIL_KERNELS={name}") })
            }
            _ => Ok(Backend::fastest_processor()),
        }
    }

    fn fastest_processor() -> Backend {
        let fastest = [Backend::Avx512, Backend::Avx2, Backend::Neon].into_iter().find(|b| b.is_available());
        fastest.unwrap_or(Backend::Scalar)
    }

    /// Whether passes run on a device, not on this processor's own instructions.
    pub(crate) fn is_device(self) -> bool {
        matches!(self, Backend::Cuda | Backend::Emulated)
    }

    /// `scalar`, `avx2`, `avx512`, `neon`, `cuda` or `emulated`.
    pub fn name(self) -> &'static str {
        match self {
            Backend::Scalar => "scalar",
            Backend::Avx2 => "avx2",
            Backend::Avx512 => "avx512",
            Backend::Neon => "neon",
            Backend::Cuda => "cuda",
            Backend::Emulated => "emulated",
        }
    }

    /// Whether this processor has the instructions, or this build and machine the device.
    pub fn is_available(self) -> bool {
        if self.is_device() { crate::cuda::is_available(self) } else { self.numerics().is_ok() }
    }

    /// The implementation, after asking the processor. For a device: what the host computes itself, on its fastest.
    pub(crate) fn numerics(self) -> Result<&'static dyn Numerics, Error> {
        if self.is_device() {
            return Backend::fastest_processor().numerics();
        }
        let found: Option<&'static dyn Numerics> = match self {
            Backend::Scalar => Some(&scalar::Scalar),
            #[cfg(target_arch = "x86_64")]
            Backend::Avx2 => avx2::Avx2::detect(),
            #[cfg(target_arch = "x86_64")]
            Backend::Avx512 => avx512::Avx512::detect(),
            #[cfg(not(target_arch = "x86_64"))]
            Backend::Avx2 | Backend::Avx512 => None,
            Backend::Cuda | Backend::Emulated => None,
            #[cfg(all(target_arch = "aarch64", target_endian = "little"))]
            Backend::Neon => neon::Neon::detect(),
            #[cfg(not(all(target_arch = "aarch64", target_endian = "little")))]
            Backend::Neon => None,
        };
        found.ok_or_else(|| Error::UnsupportedBackend {
            what: format!("this processor lacks {}", self.name()),
        })
    }
}

/// Fails unless arithmetic rounds to nearest even and keeps subnormals. To be called on each thread that computes.
pub(crate) fn check_float_environment() -> Result<(), Error> {
    use std::hint::black_box;
    if black_box(f32::MIN_POSITIVE) * black_box(0.5) != f32::from_bits(0x0040_0000) {
        return Err(Error::FloatEnvironment { what: "subnormal results are flushed" });
    }
    if black_box(f32::from_bits(1)) * black_box(8_388_608.0) == 0.0 {
        return Err(Error::FloatEnvironment { what: "subnormal operands are flushed" });
    }
    let tie = black_box(16_777_216.0f32);
    if tie + black_box(1.0) != 16_777_216.0
        || tie + black_box(3.0) != 16_777_220.0
        || -tie - black_box(1.0) != -16_777_216.0
    {
        return Err(Error::FloatEnvironment { what: "rounding is not to nearest even" });
    }
    Ok(())
}

#[cfg(target_arch = "x86_64")]
pub use unordered::order_cost;

/// What reproducibility costs was not written for this processor.
#[cfg(not(target_arch = "x86_64"))]
pub fn order_cost(_: &crate::model::Model) -> Option<(f64, f64)> {
    None
}

/// The operations. Methods that return `bool` return whether every value they looked at was finite.
pub(crate) trait Numerics: Send + Sync {
    /// B. `output[t][column + r] <- sum over k of weights[r][k] * input[t][k]` for tokens `0..tokens` and the rows of `groups`.
    ///
    /// # Safety
    /// No other thread touches these columns of `output` during the call.
    unsafe fn matmul(&self, task: &Matmul<'_>, groups: Range<usize>);

    /// A. Quantises a row of `values`, a multiple of 32 long.
    fn quantise(&self, values: &[f32], out: QuantisedRow<'_>) -> bool;

    /// C. `y[i] <- (x[i] * r) * gain[i]`, r = 1 / sqrt(mean of squares + epsilon).
    fn rms_norm(&self, x: &[f32], gain: &[f32], epsilon: f32, y: &mut [f32]) -> bool;

    /// D. Rotates the pairs (2i, 2i+1) of each head of `row`; `cos` and `sin` hold head_dim / 2 entries.
    fn rope(&self, row: &mut [f32], cos: &[f32], sin: &[f32]);

    /// D for the pairs (i, i + head_dim / 2).
    fn rope_halves(&self, row: &mut [f32], cos: &[f32], sin: &[f32]);

    /// E. f32 to f16, round to nearest even. False if a result is not finite.
    fn to_f16(&self, values: &[f32], out: &mut [u16]) -> bool;

    /// F. The query heads that share one key-value head, over all keys up to their position.
    fn attention(&self, task: &Attention<'_>, out: &mut [f32], scratch: &mut AttentionScratch) -> bool;

    /// H. `gate[i] <- silu(gate[i]) * up[i]`.
    fn silu_multiply(&self, gate: &mut [f32], up: &[f32]);

    /// H. `x[i] <- x[i] + y[i]`.
    fn add(&self, x: &mut [f32], y: &[f32]);

    /// I. `out[i] <- rint(exp((logits[i] - maximum) / temperature) * 2^24)`.
    fn sampling_weights(&self, logits: &[f32], maximum: f32, temperature: f32, out: &mut [u32]);
}

/// Rows of activations, in f32 and quantised (A). Row t occupies `t * width ..` of each plane (per 32 for the last three).
pub(crate) struct Activations {
    width: usize,
    /// f32 values, before quantisation.
    pub values: Vec<f32>,
    /// q, one byte an element.
    pub quants: Vec<i8>,
    /// d per block.
    pub scales: Vec<f32>,
    /// s = d * f32(sum of q) per block.
    pub sums: Vec<f32>,
    /// Sum of q per block.
    pub integer_sums: Vec<i32>,
}

impl Activations {
    /// Room for `rows` rows of `width` values; `width` is a multiple of 32.
    pub(crate) fn new(rows: usize, width: usize) -> Activations {
        assert!(width.is_multiple_of(BLOCK), "the loader refuses other widths");
        let blocks = rows * width / BLOCK;
        Activations {
            width,
            values: vec![0.0; rows * width],
            quants: vec![0; rows * width],
            scales: vec![0.0; blocks],
            sums: vec![0.0; blocks],
            integer_sums: vec![0; blocks],
        }
    }

    /// Elements of a row.
    pub(crate) fn width(&self) -> usize {
        self.width
    }

    /// All rows as one, for the quantiser.
    pub(crate) fn shared(&mut self) -> SharedActivations<'_> {
        SharedActivations {
            width: self.width,
            values: SharedSlice::new(&mut self.values),
            quants: SharedSlice::new(&mut self.quants),
            scales: SharedSlice::new(&mut self.scales),
            sums: SharedSlice::new(&mut self.sums),
            integer_sums: SharedSlice::new(&mut self.integer_sums),
        }
    }
}

/// [`Activations`] that several threads fill, each its own rows.
pub(crate) struct SharedActivations<'a> {
    width: usize,
    values: SharedSlice<'a, f32>,
    quants: SharedSlice<'a, i8>,
    scales: SharedSlice<'a, f32>,
    sums: SharedSlice<'a, f32>,
    integer_sums: SharedSlice<'a, i32>,
}

impl SharedActivations<'_> {
    /// The f32 values and the quantised planes of `row`.
    ///
    /// # Safety
    /// No other thread holds this row.
    #[allow(clippy::mut_from_ref)]
    pub(crate) unsafe fn row(&self, row: usize) -> (&mut [f32], QuantisedRow<'_>) {
        let values = row * self.width..(row + 1) * self.width;
        let blocks = values.start / BLOCK..values.end / BLOCK;
        // SAFETY: the ranges are those of this row alone, which is the caller's by contract.
        unsafe {
            let quantised = QuantisedRow {
                quants: self.quants.range(values.clone()),
                scales: self.scales.range(blocks.clone()),
                sums: self.sums.range(blocks.clone()),
                integer_sums: self.integer_sums.range(blocks),
            };
            (self.values.range(values), quantised)
        }
    }
}

impl SharedActivations<'_> {
    /// Some f32 columns of `row`.
    ///
    /// # Safety
    /// No other thread holds these columns or this row.
    #[allow(clippy::mut_from_ref)]
    pub(crate) unsafe fn columns(&self, row: usize, columns: Range<usize>) -> &mut [f32] {
        let start = row * self.width;
        // SAFETY: passed on.
        unsafe { self.values.range(start + columns.start..start + columns.end) }
    }
}

/// Where the quantiser writes one row.
pub(crate) struct QuantisedRow<'a> {
    pub quants: &'a mut [i8],
    pub scales: &'a mut [f32],
    pub sums: &'a mut [f32],
    pub integer_sums: &'a mut [i32],
}

/// A slice of which several threads write disjoint parts.
pub(crate) struct SharedSlice<'a, T> {
    pointer: *mut T,
    length: usize,
    borrow: PhantomData<&'a mut [T]>,
}

// SAFETY: the only access is `range`, whose contract is that ranges held at one time are disjoint.
unsafe impl<T: Send> Send for SharedSlice<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for SharedSlice<'_, T> {}

impl<'a, T> SharedSlice<'a, T> {
    pub(crate) fn new(slice: &'a mut [T]) -> SharedSlice<'a, T> {
        SharedSlice { pointer: slice.as_mut_ptr(), length: slice.len(), borrow: PhantomData }
    }

    /// A slice of which no part may ever be asked for with [`SharedSlice::range`]; `read` is sound.
    pub(crate) fn read_only(slice: &'a [T]) -> SharedSlice<'a, T> {
        SharedSlice { pointer: slice.as_ptr().cast_mut(), length: slice.len(), borrow: PhantomData }
    }

    /// A part of the slice.
    ///
    /// # Safety
    /// Parts held at one time are disjoint; the slice was not made by [`SharedSlice::read_only`].
    #[allow(clippy::mut_from_ref)]
    pub(crate) unsafe fn range(&self, range: Range<usize>) -> &mut [T] {
        assert!(
            range.start <= range.end && range.end <= self.length,
            "part {range:?} of a slice of {}",
            self.length
        );
        // SAFETY: inside the slice by the assertion, not aliased by the contract.
        unsafe { std::slice::from_raw_parts_mut(self.pointer.add(range.start), range.len()) }
    }
}

impl<T> SharedSlice<'_, T> {
    /// A part of the slice, for reading.
    ///
    /// # Safety
    /// No thread holds an overlapping [`SharedSlice::range`] while the result lives.
    pub(crate) unsafe fn read(&self, range: Range<usize>) -> &[T] {
        assert!(
            range.start <= range.end && range.end <= self.length,
            "part {range:?} of a slice of {}",
            self.length
        );
        // SAFETY: inside the slice by the assertion, not written meanwhile by the contract.
        unsafe { std::slice::from_raw_parts(self.pointer.add(range.start), range.len()) }
    }
}

/// One matrix product; see [`Numerics::matmul`].
pub(crate) struct Matmul<'a> {
    pub weights: &'a PackedMatrix,
    pub input: &'a Activations,
    /// Rows of `input` that count.
    pub tokens: usize,
    /// f32, row-major, `stride` columns a row.
    pub output: &'a SharedSlice<'a, f32>,
    pub stride: usize,
    /// First column of `output` that belongs to this matrix.
    pub column: usize,
}

impl Matmul<'_> {
    /// Where the results of `group` for `token` go: `group_rows(group)` columns.
    ///
    /// # Safety
    /// As for [`Numerics::matmul`].
    #[allow(clippy::mut_from_ref)]
    #[inline(always)]
    pub(crate) unsafe fn output(&self, token: usize, group: usize) -> &mut [f32] {
        let start = token * self.stride + self.column + group * crate::packed::LANES;
        // SAFETY: columns of a group are written by the one thread that was given the group.
        unsafe { self.output.range(start..start + self.weights.group_rows(group)) }
    }

    /// Panics unless shapes fit: the kernels index without bounds checks after this.
    pub(crate) fn check(&self, groups: &Range<usize>) {
        assert_eq!(self.weights.columns(), self.input.width(), "matrix and activations differ in width");
        assert!(self.tokens * self.input.width() <= self.input.values.len(), "more tokens than activations");
        assert!(
            groups.end <= self.weights.group_count(),
            "groups {groups:?} of {}",
            self.weights.group_count()
        );
    }
}

/// Blocks of each strip (B): 8 strips of c = ceil(nb/8) contiguous blocks, empty strips left out.
#[inline(always)]
pub(crate) fn strips(block_count: usize) -> impl Iterator<Item = Range<usize>> {
    strips_of(block_count, STRIPS)
}

/// How many strips a sum has (B).
pub(crate) const STRIPS: usize = 8;

/// The same with another number of strips: other sums, for measuring only.
#[inline(always)]
pub(crate) fn strips_of(block_count: usize, strip_count: usize) -> impl Iterator<Item = Range<usize>> {
    let length = block_count.div_ceil(strip_count);
    (0..block_count).step_by(length).map(move |start| start..(start + length).min(block_count))
}

/// One attention problem: a query row, one key-value head, `key_count` keys.
pub(crate) struct Attention<'a> {
    /// `group` heads of `head_dim` values, after RoPE.
    pub query: &'a [f32],
    pub head_dim: usize,
    pub key_count: usize,
    pub cache: KvHead<'a>,
    /// f32(1 / sqrt(head_dim)).
    pub scale: f32,
}

/// What attention keeps per tile until tiles are combined; one per thread, grown as needed.
#[derive(Default)]
pub(crate) struct AttentionScratch {
    /// Per head and tile: head_dim partial sums.
    pub outputs: Vec<f32>,
    /// Per head and tile: maximum, sum.
    pub stats: Vec<(f32, f32)>,
}

impl AttentionScratch {
    /// Makes room for `heads * tiles` results.
    pub(crate) fn reserve(&mut self, count: usize, head_dim: usize) {
        self.outputs.resize(self.outputs.len().max(count * head_dim), 0.0);
        self.stats.resize(self.stats.len().max(count), (0.0, 0.0));
    }
}

/// True for NaN and the infinities.
#[inline(always)]
pub(crate) fn is_bad(value: f32) -> bool {
    value.to_bits() & 0x7fff_ffff >= 0x7f80_0000
}

#[cfg(test)]
mod tests;
