//! What the fixed order of section B costs: the AVX-512 kernel of Q4_1 beside the same without strips, one running sum a row
//! from the first block to the last. For `counterfoil bench kernels` only: no job ever runs it.

use super::{Activations, Matmul, Numerics, SharedSlice, avx512};
use crate::gguf::TensorType;
use crate::model::Model;
use crate::packed::{BLOCK, PackedMatrix};
use std::arch::x86_64::*;
use std::time::Instant;

/// Tokens of a product: what one tile holds, so that memory is not what is measured.
const TOKENS: usize = 8;
/// Passes over all layers, in turn; the best of each side counts.
const PASSES: usize = 5;

/// Seconds of the products of 8 tokens in the canonical order, and without one: what reproducibility costs on this processor.
/// None without AVX-512 or without Q4_1 weights. For `counterfoil bench kernels`.
pub fn order_cost(model: &Model) -> Option<(f64, f64)> {
    let numerics = avx512::Avx512::detect()?;
    let layers = model.weights.layers.iter();
    let matrices: Vec<&PackedMatrix> = layers
        .flat_map(|l| [&l.query, &l.key, &l.value, &l.attention_output, &l.gate, &l.up, &l.down])
        .filter(|matrix| matrix.kind() == TensorType::Q4_1)
        .collect();
    let mut widths: Vec<usize> = matrices.iter().map(|matrix| matrix.columns()).collect();
    widths.sort_unstable();
    widths.dedup();
    let inputs: Vec<Activations> = widths.iter().map(|width| input(numerics, *width)).collect();
    let mut output = vec![0.0; TOKENS * matrices.iter().map(|matrix| matrix.rows()).max()?];
    let shared = SharedSlice::new(&mut output);
    let tasks: Vec<Matmul<'_>> = matrices
        .iter()
        .filter_map(|weights| {
            let input = inputs.iter().find(|input| input.width() == weights.columns())?;
            Some(Matmul {
                weights,
                input,
                tokens: TOKENS,
                output: &shared,
                stride: weights.rows(),
                column: 0,
            })
        })
        .collect();
    tasks.iter().for_each(|task| task.check(&(0..task.weights.group_count())));
    let best = (0..PASSES).map(|_| {
        // SAFETY: one product after the other, on this thread alone; `detect` found the features; shapes were checked.
        let canonical =
            seconds(&tasks, |task| unsafe { numerics.matmul(task, 0..task.weights.group_count()) });
        let free = seconds(&tasks, |task| {
            // SAFETY: as above.
            (0..task.weights.group_count()).for_each(|group| unsafe { unordered(task, group) });
        });
        (canonical, free)
    });
    Some(best.fold((f64::INFINITY, f64::INFINITY), |best, now| (best.0.min(now.0), best.1.min(now.1))))
}

fn seconds(tasks: &[Matmul<'_>], product: impl Fn(&Matmul<'_>)) -> f64 {
    let started = Instant::now();
    tasks.iter().for_each(product);
    started.elapsed().as_secs_f64()
}

/// Some activations, the same each time.
fn input(numerics: &dyn Numerics, width: usize) -> Activations {
    let mut input = Activations::new(TOKENS, width);
    let shared = input.shared();
    for row in 0..TOKENS {
        // SAFETY: this thread alone.
        let (values, quantised) = unsafe { shared.row(row) };
        values.iter_mut().enumerate().for_each(|(i, value)| *value = ((i * 37 + row) % 101) as f32 - 50.0);
        numerics.quantise(values, quantised);
    }
    input
}

/// `avx512::tile_q4` for Q4_1 but for the order of the sum.
///
/// # Safety
/// The features; the columns of `group` are the caller's; shapes were checked.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
unsafe fn unordered(task: &Matmul<'_>, group: usize) {
    let (weights, input) = (task.weights, task.input);
    let (quants, scales) = (weights.quants(group).as_ptr(), weights.scales(group).as_ptr());
    let low = _mm512_set1_epi8(15);
    let mut sums = [_mm512_setzero_ps(); TOKENS];
    for b in 0..weights.block_count() {
        // SAFETY: block b of the group's planes and of all activation rows, in bounds by `Matmul::check`.
        unsafe {
            let scale = _mm512_cvtph_ps(_mm256_load_si256(scales.add(b * 64).cast()));
            let minimum = _mm512_cvtph_ps(_mm256_load_si256(scales.add(b * 64 + 32).cast()));
            let mut nibbles = [[_mm512_setzero_si512(); 2]; 4];
            for (k, pair) in nibbles.iter_mut().enumerate() {
                let both = _mm512_load_si512(quants.add(b * 256 + k * 64).cast());
                *pair = [_mm512_and_si512(both, low), _mm512_and_si512(_mm512_srli_epi16::<4>(both), low)];
            }
            for (token, sum) in sums.iter_mut().enumerate() {
                let x = token * weights.block_count() + b;
                let words: *const i32 = input.quants.as_ptr().add(x * BLOCK).cast();
                let word = |k: usize| _mm512_set1_epi32(words.add(k).read_unaligned());
                let (mut first, mut second) = (_mm512_setzero_si512(), _mm512_setzero_si512());
                for (k, pair) in nibbles.iter().enumerate() {
                    first = _mm512_dpbusd_epi32(first, pair[0], word(k));
                    second = _mm512_dpbusd_epi32(second, pair[1], word(4 + k));
                }
                let integer = _mm512_cvtepi32_ps(_mm512_add_epi32(first, second));
                let d = _mm512_mul_ps(scale, _mm512_set1_ps(*input.scales.get_unchecked(x)));
                *sum = _mm512_fmadd_ps(d, integer, *sum);
                *sum = _mm512_fmadd_ps(minimum, _mm512_set1_ps(*input.sums.get_unchecked(x)), *sum);
            }
        }
    }
    for (token, sum) in sums.into_iter().enumerate() {
        let mut row = [0.0f32; 16];
        // SAFETY: sixteen floats; the output columns are the caller's.
        unsafe {
            _mm512_storeu_ps(row.as_mut_ptr(), sum);
            let output = task.output(token, group);
            output.copy_from_slice(&row[..output.len()]);
        }
    }
}
