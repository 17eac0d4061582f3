//! Rotary tables (D). Computed in f64 with the pinned pure-Rust `libm`, because platform libraries differ in the last bit.

/// cos and sin of `position * base^(-2i/d)` for each position and each i below d/2, rounded once to f32.
pub(crate) struct RopeTable {
    half: usize,
    cos: Vec<f32>,
    sin: Vec<f32>,
}

impl RopeTable {
    /// Tables for positions `0..context`.
    pub(crate) fn new(context: usize, head_dim: usize, base: f64) -> RopeTable {
        let half = head_dim / 2;
        let frequencies: Vec<f64> =
            (0..half).map(|i| libm::pow(base, -2.0 * i as f64 / head_dim as f64)).collect();
        let mut table = RopeTable {
            half,
            cos: Vec::with_capacity(context * half),
            sin: Vec::with_capacity(context * half),
        };
        for position in 0..context {
            for frequency in &frequencies {
                let (sin, cos) = libm::sincos(position as f64 * frequency);
                table.cos.push(cos as f32);
                table.sin.push(sin as f32);
            }
        }
        table
    }

    /// cos and sin of one position, d/2 values each.
    pub(crate) fn at(&self, position: usize) -> (&[f32], &[f32]) {
        let range = position * self.half..(position + 1) * self.half;
        (&self.cos[range.clone()], &self.sin[range])
    }
}
