//! Every backend against the scalar reference on random shapes, the reference against a naive reading of the file format, and
//! golden vectors in `kernels/golden/` (written by the reference with UPDATE_GOLDEN=1).

use super::*;
use crate::gguf::TensorType;
use crate::kv::{KvCache, KvShape};
use crate::naive::naive_element;
use crate::packed::f16_from_f32;
use crate::rope::RopeTable;
use proptest::prelude::*;
use std::fmt::Write as _;
use std::path::Path;

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

fn backends() -> Vec<Backend> {
    let all = [Backend::Scalar, Backend::Avx2, Backend::Avx512, Backend::Neon];
    all.into_iter().filter(|b| b.is_available()).collect()
}

/// xorshift64*, good enough for test data and the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// Uniform in -1..1.
    fn unit(&mut self) -> f32 {
        (self.next() >> 40) as f32 / 8_388_608.0 - 1.0
    }

    /// Mostly moderate, sometimes tiny, huge or zero.
    fn wild(&mut self) -> f32 {
        match self.next() % 16 {
            0 => 0.0,
            1 => self.unit() * 1e-30,
            2 => self.unit() * 1e4,
            _ => self.unit() * 3.0,
        }
    }

    fn values(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| self.unit() * 3.0).collect()
    }

    /// A row as it stands in a file.
    fn row(&mut self, kind: TensorType, columns: usize) -> Vec<u8> {
        let mut raw = Vec::new();
        for _ in 0..columns / kind.block_elements() {
            let value = self.unit();
            match kind {
                TensorType::F32 => raw.extend(value.to_le_bytes()),
                TensorType::F16 => raw.extend(f16_from_f32(value).to_le_bytes()),
                TensorType::Bf16 => raw.extend(&value.to_le_bytes()[2..]),
                TensorType::Q4_0 | TensorType::Q4_1 | TensorType::Q8_0 => {
                    raw.extend(f16_from_f32(value * 0.05).to_le_bytes());
                    if kind == TensorType::Q4_1 {
                        raw.extend(f16_from_f32(self.unit() * 0.3).to_le_bytes());
                    }
                    raw.extend(
                        (0..if kind == TensorType::Q8_0 { 32 } else { 16 }).map(|_| self.next() as u8),
                    );
                }
                TensorType::Q4K => {
                    raw.extend(f16_from_f32(value * 0.002).to_le_bytes());
                    raw.extend(f16_from_f32(self.unit() * 0.01).to_le_bytes());
                    raw.extend((0..140).map(|_| self.next() as u8));
                }
                TensorType::Q6K => {
                    raw.extend((0..208).map(|_| self.next() as u8));
                    raw.extend(f16_from_f32(value * 0.0005).to_le_bytes());
                }
            }
        }
        raw
    }
}

fn activations(numerics: &dyn Numerics, values: &[f32], width: usize) -> Activations {
    let mut input = Activations::new(values.len() / width, width);
    let shared = input.shared();
    for (row, values) in values.chunks_exact(width).enumerate() {
        // SAFETY: one thread.
        let (own, quantised) = unsafe { shared.row(row) };
        own.copy_from_slice(values);
        assert!(numerics.quantise(values, quantised));
    }
    input
}

fn packed(kind: TensorType, rows: &[Vec<u8>], columns: usize) -> PackedMatrix {
    let mut matrix = PackedMatrix::zeroed(kind, rows.len(), columns);
    rows.iter().enumerate().for_each(|(row, raw)| matrix.set_row(row, raw));
    matrix
}

/// `[token][row]`, with a column of canaries on either side that must stay.
fn product(numerics: &dyn Numerics, weights: &PackedMatrix, input: &Activations, tokens: usize) -> Vec<u32> {
    let stride = weights.rows() + 2;
    let mut output = vec![f32::MAX; tokens * stride];
    let shared = SharedSlice::new(&mut output);
    let task = Matmul { weights, input, tokens, output: &shared, stride, column: 1 };
    // SAFETY: one thread.
    unsafe { numerics.matmul(&task, 0..weights.group_count()) };
    for row in output.chunks_exact(stride) {
        assert_eq!((row[0], row[stride - 1]), (f32::MAX, f32::MAX), "a neighbour's column was written");
    }
    output.chunks_exact(stride).flat_map(|row| row[1..stride - 1].iter().map(|y| y.to_bits())).collect()
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

fn filled_cache(random: &mut Random, shape: KvShape, positions: usize) -> KvCache {
    let mut cache = KvCache::new(shape);
    cache.grow(positions, &mut Vec::new());
    let shared = cache.shared();
    for position in 0..positions {
        for head in 0..shape.heads {
            let mut halves =
                || random.values(shape.head_dim).iter().map(|v| f16_from_f32(*v)).collect::<Vec<u16>>();
            // SAFETY: one thread.
            unsafe { shared.store(0, head, position, &halves(), &halves()) };
        }
    }
    drop(shared);
    cache
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn matmul_is_the_same_on_every_backend(
        seed in 1u64.., kind in 0usize..8, blocks in prop::sample::select(vec![1usize, 2, 7, 8, 9, 18, 48]), rows in 1usize..70,
        tokens in 1usize..20,
    ) {
        let (mut random, kind) = (Random(seed), KINDS[kind]);
        let columns = blocks * kind.block_elements().max(32);
        let raw: Vec<Vec<u8>> = (0..rows).map(|_| random.row(kind, columns)).collect();
        let weights = packed(kind, &raw, columns);
        let values: Vec<f32> = (0..tokens * columns).map(|_| random.wild()).collect();
        let input = activations(&scalar::Scalar, &values, columns);
        let expected = product(&scalar::Scalar, &weights, &input, tokens);
        for backend in backends() {
            let found = product(backend.numerics().unwrap(), &weights, &input, tokens);
            prop_assert_eq!(&found, &expected, "{:?} {:?}", backend, kind);
        }
        // One token at a time gives what many at once give.
        let last = activations(&scalar::Scalar, &values[(tokens - 1) * columns..], columns);
        prop_assert_eq!(&product(&scalar::Scalar, &weights, &last, 1)[..], &expected[(tokens - 1) * rows..]);
    }

    #[test]
    fn reference_matmul_is_close_to_the_file_format(seed in 1u64.., kind in 0usize..8, blocks in 1usize..20, rows in 1usize..40) {
        let (mut random, kind) = (Random(seed), KINDS[kind]);
        let columns = blocks * kind.block_elements().max(32);
        let raw: Vec<Vec<u8>> = (0..rows).map(|_| random.row(kind, columns)).collect();
        let values = random.values(columns);
        let input = activations(&scalar::Scalar, &values, columns);
        let found = product(&scalar::Scalar, &packed(kind, &raw, columns), &input, 1);
        for (row, found) in raw.iter().zip(found) {
            let terms = (0..columns).map(|k| naive_element(kind, row, k) * f64::from(values[k]));
            let (sum, size) = terms.fold((0.0, 0.0), |(sum, size), t| (sum + t, size + t.abs()));
            // Activations carry 7 bits; weights are exact.
            let difference = (f64::from(f32::from_bits(found)) - sum).abs();
            prop_assert!(difference <= size * 0.02 + 0.02 * blocks as f64, "{kind:?} {sum} {difference}");
        }
    }

    #[test]
    fn rows_are_the_same_on_every_backend(seed in 1u64.., blocks in 1usize..60, poison in 0usize..40) {
        let (mut random, width) = (Random(seed), blocks * 32);
        let mut x: Vec<f32> = (0..width).map(|_| random.wild()).collect();
        if poison < 3 {
            x[seed as usize % width] = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY][poison];
        }
        let (gain, up) = (random.values(width), random.values(width));
        let table = RopeTable::new(3, 32, 10_000.0, None);
        let outcome = |numerics: &dyn Numerics| {
            let mut input = Activations::new(1, width);
            let mut finite = Vec::new();
            let shared = input.shared();
            // SAFETY: one thread.
            let (y, quantised) = unsafe { shared.row(0) };
            finite.push(numerics.rms_norm(&x, &gain, 1e-5, y));
            let normed = bits(y);
            finite.push(numerics.quantise(&x, quantised));

            let (mut rotated, mut gated, mut sum) = (x.clone(), x.clone(), x.clone());
            numerics.rope(&mut rotated, table.at(2).0, table.at(2).1);
            numerics.rope_halves(&mut rotated, table.at(1).0, table.at(1).1);
            numerics.silu_multiply(&mut gated, &up);
            numerics.add(&mut sum, &up);
            let (mut halves, mut weights) = (vec![0; width], vec![0; width]);
            finite.push(numerics.to_f16(&x, &mut halves));
            let maximum = x.iter().copied().fold(f32::MIN, f32::max);
            numerics.sampling_weights(&x, maximum, 0.7, &mut weights);
            let quantised = (input.quants, bits(&input.scales), bits(&input.sums), input.integer_sums);
            (finite, normed, quantised, bits(&rotated), bits(&gated), bits(&sum), halves, weights)
        };
        let expected = outcome(&scalar::Scalar);
        prop_assert_eq!(expected.0[1], poison >= 3);
        for backend in backends() {
            let found = outcome(backend.numerics().unwrap());
            prop_assert_eq!(&found.0, &expected.0, "{:?}", backend);
            // NaN payloads and their quants mean nothing: such a job fails.
            if poison >= 3 {
                prop_assert_eq!(&found, &expected, "{:?}", backend);
            }
        }
    }

    #[test]
    fn attention_is_the_same_on_every_backend(
        seed in 1u64.., keys in 1usize..200, group in 1usize..7, dim in prop::sample::select(vec![16usize, 32, 48, 64, 128]),
    ) {
        let mut random = Random(seed);
        let shape = KvShape { layers: 1, heads: 2, head_dim: dim };
        let mut cache = filled_cache(&mut random, shape, keys);
        let shared = cache.shared();
        let query = random.values(group * dim);
        let run = |numerics: &dyn Numerics| {
            let mut out = vec![0.0; group * dim];
            // SAFETY: nobody stores any more.
            let cache = unsafe { shared.head(0, 1) };
            let task = Attention { query: &query, head_dim: dim, key_count: keys, cache, scale: 0.125 };
            let finite = numerics.attention(&task, &mut out, &mut AttentionScratch::default());
            (finite, bits(&out))
        };
        let expected = run(&scalar::Scalar);
        prop_assert!(expected.0);
        for backend in backends() {
            prop_assert_eq!(&run(backend.numerics().unwrap()), &expected, "{:?}", backend);
        }
    }
}

#[test]
fn attention_reports_scores_that_are_not_finite() {
    let mut cache = filled_cache(&mut Random(9), KvShape { layers: 1, heads: 1, head_dim: 64 }, 70);
    let shared = cache.shared();
    for backend in backends() {
        for bad in [f32::NAN, f32::INFINITY, f32::MAX] {
            let mut query = vec![1.0f32; 192];
            query[100] = bad;
            // SAFETY: nobody stores any more.
            let cache = unsafe { shared.head(0, 0) };
            let task = Attention { query: &query, head_dim: 64, key_count: 70, cache, scale: 0.125 };
            let mut out = vec![0.0; 192];
            let finite =
                backend.numerics().unwrap().attention(&task, &mut out, &mut AttentionScratch::default());
            // The largest float times a key of at most 3 may or may not overflow; the others must be seen.
            assert!(!finite || bad == f32::MAX, "{backend:?} {bad}");
        }
    }
}

#[test]
fn a_norm_whose_sum_overflows_is_reported() {
    for backend in backends() {
        let mut y = vec![0.0; 64];
        assert!(!backend.numerics().unwrap().rms_norm(&[1e30; 64], &[1.0; 64], 1e-5, &mut y), "{backend:?}");
    }
}

#[test]
fn exp_is_within_one_unit_of_the_true_value() {
    let mut random = Random(77);
    assert_eq!(scalar::exp(0.0), 1.0);
    for _ in 0..200_000 {
        let x = (random.unit() - 1.0) * 43.0;
        let (found, truth) = (scalar::exp(x), f64::from(x).exp());
        let unit = f64::from(f32::from_bits(found.to_bits() + 1)) - f64::from(found);
        assert!((f64::from(found) - truth).abs() <= 1.01 * unit, "{x}");
    }
}

#[test]
fn this_thread_has_the_default_float_environment() {
    check_float_environment().unwrap();
}

/// Compares `golden/<name>.txt` with what each backend makes; UPDATE_GOLDEN=1 writes what the reference makes.
fn golden(name: &str, make: impl Fn(&dyn Numerics) -> String) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join(name).with_extension("txt");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, make(&scalar::Scalar)).unwrap();
    }
    let expected = std::fs::read_to_string(&path)
        .unwrap_or_else(|e| panic!("{}: {e}; run with UPDATE_GOLDEN=1", path.display()));
    for backend in backends() {
        assert!(
            make(backend.numerics().unwrap()) == expected,
            "{name} on {backend:?} differs from {}",
            path.display()
        );
    }
}

/// `name: hex hex ..`, one value a word, most significant digit first.
fn line(
    text: &mut String,
    name: &str,
    words: impl IntoIterator<Item = impl std::fmt::LowerHex>,
    digits: usize,
) {
    write!(text, "{name}:").unwrap();
    words.into_iter().for_each(|w| write!(text, " {w:0digits$x}").unwrap());
    text.push('\n');
}

#[test]
fn golden_matmul_and_quantise() {
    for kind in KINDS {
        golden(&format!("matmul_{kind:?}").to_lowercase(), |numerics| {
            let (rows, columns, tokens) = (5, if kind.is_k_quant() { 512 } else { 9 * 32 }, 2);
            let mut random = Random(31);
            let raw: Vec<Vec<u8>> = (0..rows).map(|_| random.row(kind, columns)).collect();
            let values = random.values(columns * tokens);
            let input = activations(numerics, &values, columns);
            let mut text = format!(
                "# y[token][row] = B(W[row], A(x[token])); rows {rows}, columns {columns}, tokens {tokens}\n"
            );
            raw.iter().for_each(|row| line(&mut text, "weights as in GGUF", row, 2));
            line(&mut text, "x f32", bits(&values), 8);
            line(&mut text, "quants i8", input.quants.iter().map(|q| *q as u8), 2);
            line(&mut text, "d f32", bits(&input.scales), 8);
            line(&mut text, "s f32", bits(&input.sums), 8);
            line(&mut text, "y f32", product(numerics, &packed(kind, &raw, columns), &input, tokens), 8);
            text
        });
    }
}

#[test]
fn golden_rows() {
    golden("rms_norm", |numerics| {
        let mut random = Random(32);
        let (x, gain) = (random.values(576), random.values(576));
        let mut y = vec![0.0; 576];
        numerics.rms_norm(&x, &gain, 1e-5, &mut y);
        let mut text = "# C, epsilon = f32(1e-5)\n".to_owned();
        [("x f32", &x), ("gain f32", &gain), ("y f32", &y)]
            .iter()
            .for_each(|(n, v)| line(&mut text, n, bits(v), 8));
        text
    });
    golden("rope", |numerics| {
        let table = RopeTable::new(8192, 64, 100_000.0, None);
        let mut text = "# D, head_dim 64, base 100000\n".to_owned();
        let all: Vec<u8> = (0..8192)
            .flat_map(|p| [table.at(p).0, table.at(p).1].concat())
            .flat_map(f32::to_le_bytes)
            .collect();
        line(
            &mut text,
            "BLAKE3 of cos[32], sin[32] of positions 0..8192, f32 LE",
            blake3::hash(&all).as_bytes(),
            2,
        );
        for position in [0, 1, 777, 8191] {
            let (cos, sin) = table.at(position);
            let mut row = Random(33).values(64);
            line(&mut text, &format!("position {position} in f32"), bits(&row), 8);
            numerics.rope(&mut row, cos, sin);
            line(&mut text, "out f32", bits(&row), 8);
        }
        text
    });
    golden("exp_silu_f16", |numerics| {
        let mut random = Random(34);
        let x: Vec<f32> = (0..64)
            .map(|i| {
                if i < 8 {
                    [0.0, -0.0, 1.0, -1.0, -87.0, 88.0, -100.0, 100.0][i]
                } else {
                    random.unit() * 30.0
                }
            })
            .collect();
        let up = random.values(64);
        let mut gate = x.clone();
        numerics.silu_multiply(&mut gate, &up);
        let (mut halves, mut weights) = (vec![0u16; 64], vec![0u32; 64]);
        numerics.to_f16(&x, &mut halves);
        numerics.sampling_weights(&x, 100.0, 2.5, &mut weights);
        let mut text =
            "# G, H, E, I: exp(x); silu(x) * up; f16(x); weights with maximum 100, temperature 2.5\n"
                .to_owned();
        line(&mut text, "x f32", bits(&x), 8);
        line(&mut text, "up f32", bits(&up), 8);
        line(&mut text, "exp f32", x.iter().map(|x| scalar::exp(*x).to_bits()), 8);
        line(&mut text, "silu(x)*up f32", bits(&gate), 8);
        line(&mut text, "f16", halves, 4);
        line(&mut text, "weights u32", weights, 8);
        text
    });
}

#[test]
fn golden_rope_halves() {
    golden("rope_halves", |numerics| {
        let mut random = Random(36);
        let factors: Vec<f32> =
            (0..32).map(|i| if i < 12 { 1.0 } else { 4.5 + 3.5 * random.unit() }).collect();
        let table = RopeTable::new(512, 64, 500_000.0, Some(&factors));
        let mut text =
            "# D, pairs (i, i+32), head_dim 64, base 500000, divisors of the frequencies\n".to_owned();
        line(&mut text, "divisors f32", bits(&factors), 8);
        for position in [1, 300] {
            let (cos, sin) = table.at(position);
            let mut row = random.values(64);
            line(&mut text, &format!("position {position} cos f32"), bits(cos), 8);
            line(&mut text, "sin f32", bits(sin), 8);
            line(&mut text, "in f32", bits(&row), 8);
            numerics.rope_halves(&mut row, cos, sin);
            line(&mut text, "out f32", bits(&row), 8);
        }
        text
    });
}

#[test]
fn golden_attention() {
    golden("attention", |numerics| {
        let mut random = Random(35);
        let shape = KvShape { layers: 1, heads: 1, head_dim: 16 };
        let mut cache = filled_cache(&mut random, shape, 130);
        let query = random.values(48);
        let shared = cache.shared();
        let mut text = "# F: 3 query heads of 16 over one key-value head, 130 keys, scale 0.25; K is [16][64] and V [64][16] of each page\n".to_owned();
        line(&mut text, "query f32", bits(&query), 8);
        // SAFETY: nobody stores any more.
        let cache = unsafe { shared.head(0, 0) };
        for page in 0..3 {
            line(&mut text, "K f16", cache.tiles(page).0, 4);
            line(&mut text, "V f16", cache.tiles(page).1, 4);
        }
        let task = Attention { query: &query, head_dim: 16, key_count: 130, cache, scale: 0.25 };
        let mut out = vec![0.0; 48];
        numerics.attention(&task, &mut out, &mut AttentionScratch::default());
        line(&mut text, "out f32", bits(&out), 8);
        text
    });
}
