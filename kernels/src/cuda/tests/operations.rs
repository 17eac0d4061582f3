//! One kernel at a time: golden vectors, then random shapes against the scalar reference.

use super::*;
use crate::cuda::plan::attention_shared_bytes;
use crate::gguf::Header;
use crate::kv::PAGE_POSITIONS;
use crate::model::Shape;
use crate::packed::f16_from_f32;
use proptest::prelude::*;
use std::path::Path;

/// `golden/<name>.txt`: (name, words) of each line.
fn golden(name: &str) -> Vec<(String, Vec<u32>)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join(name).with_extension("txt");
    let text = std::fs::read_to_string(&path).unwrap();
    let line = |line: &str| {
        let (name, words) = line.split_once(": ").unwrap();
        let words = words.split(' ').map(|word| u32::from_str_radix(word, 16).unwrap()).collect();
        (name.to_owned(), words)
    };
    text.lines().filter(|text| !text.starts_with('#') && !text.starts_with("BLAKE3")).map(line).collect()
}

fn floats(words: &[u32]) -> Vec<f32> {
    words.iter().map(|word| f32::from_bits(*word)).collect()
}

fn named<'g>(golden: &'g [(String, Vec<u32>)], name: &str) -> &'g [u32] {
    &golden.iter().find(|(own, _)| own == name).unwrap_or_else(|| panic!("no line {name}")).1
}

fn as_words(bytes: &[u32]) -> Vec<u32> {
    bytes.chunks_exact(4).map(|b| b[0] | b[1] << 8 | b[2] << 16 | b[3] << 24).collect()
}

#[test]
fn golden_products_and_quantisation() {
    for kind in KINDS {
        let golden = golden(&format!("matmul_{kind:?}").to_lowercase());
        let raw: Vec<&Vec<u32>> =
            golden.iter().filter(|(name, _)| name.starts_with("weights")).map(|(_, words)| words).collect();
        let x = floats(named(&golden, "x f32"));
        let width = x.len() / 2;
        let mut matrix = PackedMatrix::zeroed(kind, raw.len(), width);
        for (row, raw) in raw.iter().enumerate() {
            matrix.set_row(row, &raw.iter().map(|byte| *byte as u8).collect::<Vec<u8>>());
        }
        for seed in SEEDS {
            let device = device(seed);
            // Ten tokens are enough for a GEMM; they are the two over and over.
            let input = device.quantised(&x.repeat(5), width);
            let [quants, scales, sums, _] = device.planes(&input, 2);
            assert_eq!(quants, as_words(named(&golden, "quants i8")), "{kind:?} {seed}");
            assert_eq!(scales, named(&golden, "d f32"), "{kind:?} {seed}");
            assert_eq!(sums, named(&golden, "s f32"), "{kind:?} {seed}");
            let matrix = DeviceMatrix::upload(&*device, &[&matrix]).unwrap();
            let y = named(&golden, "y f32");
            assert_eq!(device.product(&matrix, &input, 2).unwrap(), y, "{kind:?} {seed}");
            assert_eq!(device.product(&matrix, &input, 10).unwrap(), y.repeat(5), "{kind:?} {seed}");
        }
    }
}

#[test]
fn golden_norm() {
    let golden = golden("rms_norm");
    for seed in SEEDS {
        let device = device(seed);
        let (x, gain) =
            (device.put_words(named(&golden, "x f32")), device.put_words(named(&golden, "gain f32")));
        let out = device.activations(1, 576);
        norm(&*device, (x, Address::NONE, gain), &out, 1).unwrap();
        assert_eq!(device.words(out.values, 576), named(&golden, "y f32"), "{seed}");
    }
}

/// `places`: stream, delta, gain. Returns the flags.
pub(super) fn norm(
    device: &dyn Device,
    places: (Address, Address, Address),
    out: &DeviceActivations,
    rows: usize,
) -> Result<Vec<u32>, Error> {
    let bad = device.put_words(&vec![0; rows]);
    let arguments = Arguments::new()
        .address(places.0)
        .address(places.1)
        .address(places.2)
        .address(Address::NONE)
        .structure(&words_of(out))
        .address(bad)
        .integer(out.width)
        .float(1e-5);
    device.start("rmsnorm_q8", [rows, 1, 1], 256, arguments)?;
    Ok(device.words(bad, rows))
}

/// One query head, one key-value head, all with the same values; returns projections, page, stored.
fn rotate(
    device: &dyn Device,
    values: &[f32],
    angles: &[f32],
    halves: usize,
) -> (Vec<u32>, Vec<u16>, Vec<u16>) {
    let dim = values.len();
    let projections = device.put(&values.repeat(3));
    let page = device.put_words(&vec![u32::MAX; PAGE_POSITIONS * dim]);
    let pages = device.put_words(&[page.0 as u32, (page.0 >> 32) as u32]);
    let stored = device.allocate(2 * dim * 2).unwrap();
    let arguments = Arguments::new()
        .address(projections)
        .address(device.put(angles))
        .address(device.rows(&[(5, 0)]))
        .address(pages)
        .address(stored)
        .address(device.put_words(&[0]))
        .structure(&[two(1, 1), two(dim, halves)])
        .integer(0)
        .integer(1);
    device.start("rope_kv_store", [(3 * dim / 2).div_ceil(128), 1, 1], 128, arguments).unwrap();
    let page = device.halves(page, 2 * PAGE_POSITIONS * dim);
    (device.words(projections, dim), page, device.halves(stored, 2 * dim))
}

#[test]
fn golden_rotation_and_f16() {
    let halves = golden("rope_halves");
    for (at, (name, cos)) in halves.iter().enumerate().filter(|(_, (name, _))| name.ends_with(" cos f32")) {
        let (sin, x, out) = (&halves[at + 1].1, &halves[at + 2].1, &halves[at + 3].1);
        let angles = [floats(cos), floats(sin)].concat();
        let (rotated, page, stored) = rotate(&*device(3), &floats(x), &angles, 1);
        assert_eq!(&rotated, out, "{name}");
        // The key is rotated as the query is; the value is not. Both lie in the page at position 5 and in the copy.
        let expected: Vec<u16> =
            floats(out).iter().chain(&floats(x)).map(|value| f16_from_f32(*value)).collect();
        assert_eq!(stored, expected, "{name}");
        let tile = PAGE_POSITIONS * 64;
        let in_page: Vec<u16> = (0..64)
            .map(|d| page[d * PAGE_POSITIONS + 5])
            .chain(page[tile + 5 * 64..tile + 6 * 64].iter().copied())
            .collect();
        assert_eq!(in_page, expected, "{name}");
        let untouched = page.iter().filter(|half| **half == u16::MAX).count();
        assert_eq!(untouched, 2 * tile - 128, "{name}: other positions were written");
    }
    let adjacent = golden("rope");
    let table = crate::rope::RopeTable::new(8192, 64, 100_000.0, None);
    for (position, lines) in [0, 1, 777, 8191].into_iter().zip(adjacent.chunks_exact(2)) {
        let angles = [table.at(position).0, table.at(position).1].concat();
        let (rotated, ..) = rotate(&*device(4), &floats(&lines[0].1), &angles, 0);
        assert_eq!(rotated, lines[1].1, "{position}");
    }
    let other = golden("exp_silu_f16");
    let (.., stored) = rotate(&*device(5), &floats(named(&other, "x f32")), &[1.0; 64], 0);
    let expected: Vec<u16> = named(&other, "f16").iter().map(|half| *half as u16).collect();
    assert_eq!(stored[64..], expected);
}

#[test]
fn golden_activation() {
    let golden = golden("exp_silu_f16");
    let both = [named(&golden, "x f32"), named(&golden, "up f32")].concat();
    for seed in SEEDS {
        let device = device(seed);
        let out = device.activations(1, 64);
        let arguments = Arguments::new()
            .address(device.put_words(&both))
            .structure(&words_of(&out))
            .address(device.put_words(&[0]))
            .integer(64);
        device.start("silu_mul_q8", [2, 1, 1], 32, arguments).unwrap();
        assert_eq!(device.words(out.values, 64), named(&golden, "silu(x)*up f32"), "{seed}");
    }
}

/// What attention works on: one layer, one key-value head, one row per entry of `key_counts`, all over the same pages.
pub(super) struct AttentionCase {
    pub heads: usize,
    pub dim: usize,
    /// `[K: dim x 64 | V: 64 x dim]` each.
    pub pages: Vec<Vec<u16>>,
    /// `[row][heads * dim]`.
    pub queries: Vec<f32>,
    pub key_counts: Vec<usize>,
}

impl AttentionCase {
    pub(super) fn run(&self, device: &dyn Device) -> Result<(Vec<u32>, Vec<u32>), Error> {
        let (rows, width, tiles) = (self.key_counts.len(), self.heads * self.dim, self.pages.len());
        let pages: Vec<u32> = self
            .pages
            .iter()
            .map(|page| device.put_words(&pairs(page)))
            .flat_map(|address| [address.0 as u32, (address.0 >> 32) as u32])
            .collect();
        let projections: Vec<f32> = self
            .queries
            .chunks_exact(width)
            .flat_map(|query| [query, &vec![f32::NAN; 2 * self.dim][..]].concat())
            .collect();
        let positions: Vec<(usize, usize)> = self.key_counts.iter().map(|count| (count - 1, 0)).collect();
        let row_table = device.rows(&positions);
        let partial = device.allocate(rows * tiles * width * 4).unwrap();
        let stats = device.allocate(rows * tiles * self.heads * 8).unwrap();
        let bad = device.put_words(&vec![0; rows]);
        let heads = [two(self.heads, 1), two(self.dim, 0)];
        let arguments = Arguments::new()
            .address(device.put(&projections))
            .address(row_table)
            .address(device.put_words(&pages))
            .address(partial)
            .address(stats)
            .address(bad)
            .structure(&heads)
            .integer(0)
            .float((1.0 / (self.dim as f64).sqrt()) as f32);
        let shared_bytes = self.heads * (self.dim + PAGE_POSITIONS + 2) * 4;
        device.launch(&Launch {
            kernel: "attn_tile",
            grid: [tiles, 1, rows],
            threads: 64,
            shared_bytes,
            arguments,
        })?;
        let out = device.activations(rows, width.next_multiple_of(BLOCK));
        let arguments = Arguments::new()
            .address(partial)
            .address(stats)
            .address(row_table)
            .structure(&words_of(&out))
            .address(bad)
            .structure(&heads)
            .integer(tiles);
        device.start("attn_combine_q8", [width / BLOCK, rows, 1], 32, arguments)?;
        Ok((device.words(out.values, rows * width), device.words(bad, rows)))
    }
}

fn pairs(halves: &[u16]) -> Vec<u32> {
    halves.chunks_exact(2).map(|two| u32::from(two[0]) | u32::from(two[1]) << 16).collect()
}

#[test]
fn golden_attention() {
    let golden = golden("attention");
    let tiles = |name: &str| {
        let lines = golden.iter().filter(|(own, _)| own == name);
        lines.map(|(_, words)| words.iter().map(|half| *half as u16).collect()).collect::<Vec<Vec<u16>>>()
    };
    let pages: Vec<Vec<u16>> =
        tiles("K f16").into_iter().zip(tiles("V f16")).map(|(k, v)| [k, v].concat()).collect();
    // Three heads of 16 are one and a half blocks: with a fourth the combination is whole.
    let query = floats(named(&golden, "query f32"));
    let queries = [&query[..], &query[..16]].concat();
    let case = AttentionCase { heads: 4, dim: 16, pages, queries, key_counts: vec![130] };
    for seed in SEEDS {
        let (out, bad) = case.run(&*device(seed)).unwrap();
        let expected = named(&golden, "out f32");
        assert_eq!(out, [expected, &expected[..16]].concat(), "{seed}");
        assert_eq!(bad, [0]);
    }
}

/// Random attention over `tiles` pages.
pub(super) fn attention_case(
    random: &mut Random,
    heads: usize,
    dim: usize,
    key_counts: Vec<usize>,
) -> AttentionCase {
    let tiles = key_counts.iter().max().unwrap().div_ceil(PAGE_POSITIONS);
    let mut page = || random.values(2 * PAGE_POSITIONS * dim).iter().map(|v| f16_from_f32(*v)).collect();
    let pages = (0..tiles).map(|_| page()).collect();
    let queries = random.values(key_counts.len() * heads * dim);
    AttentionCase { heads, dim, pages, queries, key_counts }
}

/// The scalar reference's output for one row.
fn reference_attention(case: &AttentionCase, row: usize) -> Vec<u32> {
    use crate::kv::{KvCache, KvShape};
    use crate::numerics::{Attention, AttentionScratch};
    let shape = KvShape { layers: 1, heads: 1, head_dim: case.dim };
    let mut cache = KvCache::new(shape);
    cache.grow(case.pages.len() * PAGE_POSITIONS, &mut Vec::new());
    let shared = cache.shared();
    let tile = PAGE_POSITIONS * case.dim;
    for position in 0..case.pages.len() * PAGE_POSITIONS {
        let (page, slot) = (&case.pages[position / PAGE_POSITIONS], position % PAGE_POSITIONS);
        let key: Vec<u16> = (0..case.dim).map(|d| page[d * PAGE_POSITIONS + slot]).collect();
        // SAFETY: one thread.
        unsafe { shared.store(0, 0, position, &key, &page[tile + slot * case.dim..][..case.dim]) };
    }
    let width = case.heads * case.dim;
    let task = Attention {
        query: &case.queries[row * width..(row + 1) * width],
        head_dim: case.dim,
        key_count: case.key_counts[row],
        // SAFETY: nobody stores any more.
        cache: unsafe { shared.head(0, 0) },
        scale: (1.0 / (case.dim as f64).sqrt()) as f32,
    };
    let mut out = vec![0.0; width];
    assert!(scalar::Scalar.attention(&task, &mut out, &mut AttentionScratch::default()));
    bits(&out)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn products_are_the_references(
        seed in 0u64..1000, kind in 0usize..8, blocks in prop::sample::select(vec![1usize, 2, 7, 9, 18, 48]), rows in 2usize..90,
        tokens in 1usize..40,
    ) {
        let kind = KINDS[kind];
        let columns = blocks * kind.block_elements().max(BLOCK) / if kind.is_k_quant() && blocks > 9 { 6 } else { 1 };
        let host = weights(kind, rows, columns, seed);
        let values = Random(seed + 1).values(tokens * columns);
        let input = reference_activations(&values, columns);
        let expected = reference_product(&host, &input, tokens);
        let device = device(seed);
        let matrix = DeviceMatrix::upload(&*device, &[&host]).unwrap();
        let input = device.quantised(&values, columns);
        prop_assert_eq!(device.product(&matrix, &input, tokens).unwrap(), expected, "{:?}", kind);
    }

    #[test]
    fn norms_are_the_references(seed in 0u64..1000, blocks in 1usize..40, rows in 1usize..4, poison in 0usize..20) {
        let width = blocks * BLOCK;
        let mut random = Random(seed + 1);
        let (mut stream, delta, gain) = (random.values(rows * width), random.values(rows * width), random.values(width));
        if poison < 3 {
            stream[seed as usize % width] = [f32::NAN, f32::INFINITY, f32::MAX][poison];
        }
        let device = device(seed);
        let out = device.activations(rows, width);
        let at = device.put(&stream);
        let bad = norm(&*device, (at, device.put(&delta), device.put(&gain)), &out, rows).unwrap();
        scalar::Scalar.add(&mut stream, &delta);
        let mut expected = vec![0.0; rows * width];
        let finite: Vec<bool> = (0..rows)
            .map(|row| {
                let range = row * width..(row + 1) * width;
                scalar::Scalar.rms_norm(&stream[range.clone()], &gain, 1e-5, &mut expected[range])
            })
            .collect();
        prop_assert_eq!(bad.iter().map(|bad| *bad == 0).collect::<Vec<_>>(), finite);
        if poison >= 3 {
            prop_assert_eq!(device.words(at, rows * width), bits(&stream));
            prop_assert_eq!(device.words(out.values, rows * width), bits(&expected));
            let host = reference_activations(&expected, width);
            let quants: Vec<u32> = host.quants.iter().map(|q| u32::from(*q as u8)).collect();
            let integers = host.integer_sums.iter().map(|sum| *sum as u32).collect();
            let expected = [as_words(&quants), bits(&host.scales), bits(&host.sums), integers];
            prop_assert_eq!(device.planes(&out, rows), expected);
        }
    }

    #[test]
    fn attention_is_the_references(
        seed in 0u64..1000, keys in 1usize..200, heads in prop::sample::select(vec![2usize, 4, 6, 10]),
        dim in prop::sample::select(vec![16usize, 48, 64, 128]),
    ) {
        let mut random = Random(seed + 1);
        let case = attention_case(&mut random, heads, dim, vec![keys, 1 + keys / 2]);
        let (out, bad) = case.run(&*device(seed)).unwrap();
        prop_assert_eq!(bad, vec![0, 0]);
        prop_assert_eq!(out, [reference_attention(&case, 0), reference_attention(&case, 1)].concat());
    }
}

#[test]
fn scores_and_keys_that_are_not_finite_are_noticed() {
    let mut case = attention_case(&mut Random(9), 2, 64, vec![70, 3]);
    case.queries[5] = f32::INFINITY;
    assert_eq!(case.run(&*device(1)).unwrap().1, [1, 0]);
    let device = device(2);
    let mut values = vec![1.0; 64];
    values[40] = 65520.0;
    let projections = device.put(&values.repeat(3));
    let page = device.allocate(2 * PAGE_POSITIONS * 64 * 2).unwrap();
    let bad = device.put_words(&[0]);
    let arguments = Arguments::new()
        .address(projections)
        .address(device.put(&[1.0; 64]))
        .address(device.rows(&[(0, 0)]))
        .address(device.put_words(&[page.0 as u32, (page.0 >> 32) as u32]))
        .address(device.allocate(256).unwrap())
        .address(bad)
        .structure(&[two(1, 1), two(64, 0)])
        .integer(0)
        .integer(1);
    device.start("rope_kv_store", [1, 1, 1], 128, arguments).unwrap();
    assert_eq!(device.words(bad, 1), [1]);
}

#[test]
fn a_kernel_that_leaves_its_memory_is_noticed() {
    let device = emulated(EmulatedOptions::default());
    let host = weights(TensorType::Q8_0, 16, 64, 1);
    let matrix = DeviceMatrix::upload(&device, &[&host]).unwrap();
    let input = device.quantised(&[1.0; 64], 64);
    let output = device.allocate(15 * 4).unwrap();
    let error = device.launch(&plan::product(&matrix, &input, (output, 16, 4), 1)).unwrap_err();
    assert!(error.to_string().contains("beyond its memory"), "{error}");
    assert!(device.upload(output.plus(40), &[0; 32]).is_err());
}

#[test]
fn shared_memory_of_attention_is_what_the_plan_says() {
    // The synthetic model's four heads of 16 over two.
    let bytes = SyntheticModel::small(TensorType::Q8_0).bytes();
    let mut source = crate::gguf::Source::new(&bytes[..], bytes.len() as u64);
    let shape = Shape::from_header(&Header::read(&mut source).unwrap()).unwrap();
    assert_eq!(attention_shared_bytes(&shape), 2 * (16 + 64 + 2) * 4);
}
