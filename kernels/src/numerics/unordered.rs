//! What the fixed order of section B costs: the AVX-512 kernel of Q4_1 beside the same without strips, one running sum a row
//! from the first block to the last. For `counterfoil bench kernels` only: no job ever runs it.

use super::avx2::Q4_1;
use super::{Activations, Matmul, Numerics, SharedSlice, avx512};
use crate::gguf::TensorType;
use crate::model::Model;
use crate::packed::PackedMatrix;
use std::arch::x86_64::_mm512_storeu_ps;
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

/// The kernel itself with one strip: the sum runs from the first block to the last, as it would if nobody asked for an order.
///
/// # Safety
/// The features; the columns of `group` are the caller's; shapes were checked.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
unsafe fn unordered(task: &Matmul<'_>, group: usize) {
    // SAFETY: passed on; the task has as many tokens as the tile.
    let totals = unsafe { avx512::tile_q4::<TOKENS, Q4_1, 1>(task, 0, group) };
    for (token, total) in totals.into_iter().enumerate() {
        let mut row = [0.0f32; 16];
        // SAFETY: sixteen floats; the output columns are the caller's.
        unsafe {
            _mm512_storeu_ps(row.as_mut_ptr(), total);
            let output = task.output(token, group);
            output.copy_from_slice(&row[..output.len()]);
        }
    }
}
