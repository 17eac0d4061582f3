//! Rotary tables (D). Computed in f64 with the pinned pure-Rust `libm`, because platform libraries differ in the last bit. Made
//! for 64 positions at a time, when a position is first used: a file that claims a long context costs nothing.

use crate::kv::PAGE_POSITIONS;
use std::sync::OnceLock;

/// Which elements of a head are rotated together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RopePairs {
    /// (2i, 2i+1): `llama`.
    Adjacent,
    /// (i, i + d/2): `qwen2`, `qwen3`.
    Halves,
}

/// cos and sin of `position * frequency_i` for each position and each i below d/2, rounded once to f32.
pub(crate) struct RopeTable {
    frequencies: Vec<f64>,
    /// Per 64 positions: `[position][cos: d/2 | sin: d/2]`.
    pages: Vec<OnceLock<Box<[f32]>>>,
}

impl RopeTable {
    /// Tables for positions `0..context`. `factors`, if any, divide the frequencies (the file's `rope_freqs.weight`).
    pub(crate) fn new(context: usize, head_dim: usize, base: f64, factors: Option<&[f32]>) -> RopeTable {
        let frequency = |i: usize| {
            let plain = libm::pow(base, -2.0 * i as f64 / head_dim as f64);
            factors.map_or(plain, |factors| plain / f64::from(factors[i]))
        };
        RopeTable {
            frequencies: (0..head_dim / 2).map(frequency).collect(),
            pages: (0..context.div_ceil(PAGE_POSITIONS)).map(|_| OnceLock::new()).collect(),
        }
    }

    /// cos and sin of one position, d/2 values each.
    pub(crate) fn at(&self, position: usize) -> (&[f32], &[f32]) {
        let page = self.pages[position / PAGE_POSITIONS].get_or_init(|| self.page(position / PAGE_POSITIONS));
        let half = self.frequencies.len();
        page[position % PAGE_POSITIONS * 2 * half..][..2 * half].split_at(half)
    }

    fn page(&self, page: usize) -> Box<[f32]> {
        let half = self.frequencies.len();
        let mut values = vec![0.0; PAGE_POSITIONS * 2 * half];
        for (slot, row) in values.chunks_exact_mut(2 * half).enumerate() {
            let position = (page * PAGE_POSITIONS + slot) as f64;
            let (cosines, sines) = row.split_at_mut(half);
            for ((frequency, c), s) in self.frequencies.iter().zip(cosines).zip(sines) {
                let (sin, cos) = libm::sincos(position * frequency);
                (*c, *s) = (cos as f32, sin as f32);
            }
        }
        values.into_boxed_slice()
    }
}
