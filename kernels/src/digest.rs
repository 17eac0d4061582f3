//! The digest chain (J): binds job, model, numerics, prompt, parameters, each token and the activations it was chosen from.

use crate::job::JobSpec;
use crate::numerics::{Activations, NUMERICS_ID};
use crate::packed::BLOCK;

/// First bytes of the start of a chain.
const START_TAG: &[u8; 16] = b"counterfoil/h0/1";

/// The chain so far.
#[derive(Clone)]
pub(crate) struct Chain {
    head: [u8; 32],
}

impl Chain {
    /// h_0.
    pub(crate) fn start(spec: &JobSpec, model_id: &[u8; 32]) -> Chain {
        let mut hash = blake3::Hasher::new();
        let number = |n: u32| n.to_le_bytes();
        hash.update(START_TAG);
        hash.update(&number(NUMERICS_ID.len() as u32));
        hash.update(NUMERICS_ID.as_bytes());
        hash.update(&spec.job_id);
        hash.update(model_id);
        hash.update(&number(spec.params.temperature_millionths));
        hash.update(&number(spec.params.top_p_millionths));
        hash.update(&number(spec.params.top_k));
        hash.update(&spec.params.sampling_key);
        hash.update(&number(spec.max_tokens));
        for ids in [&spec.stop_ids, &spec.prompt_ids] {
            hash.update(&number(ids.len() as u32));
            for id in ids {
                hash.update(&number(*id));
            }
        }
        Chain { head: hash.finalize().into() }
    }

    /// h_i = H(h_{i-1}, token_i, D_i); returns h_i.
    pub(crate) fn push(&mut self, token: u32, activations: &[u8; 32]) -> [u8; 32] {
        let mut hash = blake3::Hasher::new();
        hash.update(&self.head);
        hash.update(&token.to_le_bytes());
        hash.update(activations);
        self.head = hash.finalize().into();
        self.head
    }

    /// The last h.
    pub(crate) fn head(&self) -> [u8; 32] {
        self.head
    }
}

/// D of one row of final-norm activations: q as bytes then d as f32 where the head is quantised, else the f32 values.
pub(crate) fn activation_digest(last: &Activations, row: usize, quantised: bool) -> [u8; 32] {
    let values = row * last.width()..(row + 1) * last.width();
    let mut hash = blake3::Hasher::new();
    let floats = |hash: &mut blake3::Hasher, floats: &[f32]| {
        hash.update(&floats.iter().flat_map(|f| f.to_le_bytes()).collect::<Vec<u8>>());
    };
    if quantised {
        hash.update(&last.quants[values.clone()].iter().map(|q| *q as u8).collect::<Vec<u8>>());
        floats(&mut hash, &last.scales[values.start / BLOCK..values.end / BLOCK]);
    } else {
        floats(&mut hash, &last.values[values]);
    }
    hash.finalize().into()
}
