//! Embeddings: the mean of the final states of a text's tokens, with a digest that anybody recomputes (`specs/numerics.md`, O).

use crate::digest::embedding_digest;
use crate::error::Error;
use crate::forward::Output;
use crate::job::{JobSpec, SamplingParams};
use crate::model::Model;
use crate::pool::Pool;
use crate::prefill::Prefill;

/// An embedding and its receipt.
#[derive(Clone, Debug, PartialEq)]
pub struct Embedding {
    /// One value per dimension of the model's stream, of length 1.
    pub values: Vec<f32>,
    /// Binds job, model, numerics, tokens and values.
    pub digest: [u8; 32],
}

/// Embeds `ids` on `threads` threads.
///
/// # Errors
/// [`Error::InvalidJob`] for no tokens, unknown tokens or no threads; [`Error::ContextExceeded`]; [`Error::NonFinite`].
pub fn embed(model: &Model, threads: usize, job_id: [u8; 16], ids: &[u32]) -> Result<Embedding, Error> {
    // The same limits as a prompt's, with room for nothing after it.
    let spec = JobSpec {
        job_id,
        prompt_ids: ids.to_vec(),
        max_tokens: 1,
        params: SamplingParams::greedy(),
        stop_ids: Vec::new(),
    };
    spec.check(model, model.context_length())?;
    let pool = Pool::new(threads)?;
    let mut sums = vec![0.0f32; model.shape.width];
    Prefill::new(model, &pool).run(
        ids,
        |_| Output::Activations,
        |pass, rows| {
            for row in 0..rows.len() {
                model.numerics.add(&mut sums, pass.space.final_norm(row));
            }
            Ok(true)
        },
    )?;
    let bad = || Error::NonFinite { position: ids.len() as u32 - 1 };
    let mean: Vec<f32> = sums.iter().map(|sum| sum / ids.len() as f32).collect();
    let length = length(&mean);
    if !(length.is_finite() && length > 0.0) {
        return Err(bad());
    }
    let values: Vec<f32> = mean.iter().map(|value| value / length).collect();
    let digest = embedding_digest(&job_id, &model.id(), ids, &values);
    Ok(Embedding { values, digest })
}

/// Square root of the sum of squares, summed as in C: 256 chains, then a halving tree.
fn length(values: &[f32]) -> f32 {
    let mut chains = [0.0f32; 256];
    for (i, value) in values.iter().enumerate() {
        chains[i % 256] = value.mul_add(*value, chains[i % 256]);
    }
    let mut half = 128;
    while half > 0 {
        for i in 0..half {
            chains[i] += chains[i + half];
        }
        half /= 2;
    }
    chains[0].sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gguf::TensorType;
    use crate::numerics::Backend;
    use crate::synthetic::SyntheticModel;

    #[test]
    fn an_embedding_is_the_same_on_every_backend_and_thread_count_and_bound_to_its_input() {
        let synthetic = SyntheticModel::small(TensorType::Q4_1);
        let ids: Vec<u32> = (0..150).map(|i| (i * 7 + 3) % 256).collect();
        let expected = embed(&synthetic.load(Backend::Scalar), 1, [1; 16], &ids).unwrap();
        assert_eq!(expected.values.len(), 64);
        let length: f64 = expected.values.iter().map(|v| f64::from(*v) * f64::from(*v)).sum();
        assert!((length - 1.0).abs() < 1e-6, "{length}");
        for backend in
            [Backend::Avx2, Backend::Avx512, Backend::Neon].into_iter().filter(|b| b.is_available())
        {
            for threads in [1, 3] {
                assert_eq!(embed(&synthetic.load(backend), threads, [1; 16], &ids).unwrap(), expected);
            }
        }
        let model = synthetic.load(Backend::Scalar);
        let other_job = embed(&model, 1, [2; 16], &ids).unwrap();
        assert_eq!(other_job.values, expected.values);
        assert_ne!(other_job.digest, expected.digest);
        let other_text = embed(&model, 1, [1; 16], &ids[..149]).unwrap();
        assert_ne!((other_text.values, other_text.digest), (expected.values, expected.digest));
        assert!(matches!(embed(&model, 1, [1; 16], &[]), Err(Error::InvalidJob { .. })));
        assert!(matches!(embed(&model, 1, [1; 16], &vec![1; 256]), Err(Error::ContextExceeded { .. })));
    }
}
