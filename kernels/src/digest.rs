//! The digest chain (J): binds job, model, numerics, prompt, parameters, each token and the activations it was chosen from.

use crate::job::JobSpec;
use crate::kv::{KvCache, KvShape};
use crate::numerics::{Activations, NUMERICS_ID};
use crate::packed::BLOCK;
use crate::request::JobRequest;

/// First bytes of the start of a chain.
const START_TAG: &[u8; 16] = b"counterfoil/h0/1";

/// First bytes of the start of a chain of a job with controls.
const CONTROLS_TAG: &[u8; 16] = b"counterfoil/h0/2";

/// First bytes of what an embedding's digest covers.
const EMBEDDING_TAG: &[u8; 19] = b"counterfoil/embed/1";

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

    /// h_0 of a job with controls: that of its spec where they are the default, else bound to them.
    pub(crate) fn of_request(request: &JobRequest, model_id: &[u8; 32]) -> Chain {
        let mut chain = Chain::start(&request.spec, model_id);
        if let Some(controls) = request.controls.committed_bytes() {
            let mut hash = blake3::Hasher::new();
            hash.update(CONTROLS_TAG);
            hash.update(&chain.head);
            hash.update(&controls);
            chain.head = hash.finalize().into();
        }
        chain
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

/// Root over the layers of a full page (N): leaf = keys and values of its 64 positions in one layer.
pub(crate) fn kv_page_root(cache: &KvCache, shape: KvShape, page: usize) -> [u8; 32] {
    let leaf = |layer: usize| {
        let mut hash = blake3::Hasher::new();
        hash.update(&[0]);
        hash.update(&(page as u32).to_le_bytes());
        hash.update(&(layer as u32).to_le_bytes());
        let halves = cache.layer(layer, page);
        let mut bytes = vec![0u8; halves.len() * 2];
        bytes
            .chunks_exact_mut(2)
            .zip(halves)
            .for_each(|(two, half)| two.copy_from_slice(&half.to_le_bytes()));
        hash.update(&bytes);
        hash.finalize().into()
    };
    merkle_root(&(0..shape.layers).map(leaf).collect::<Vec<_>>())
}

/// Merkle root (N): of one leaf the leaf, else H(1 || root of the largest power of two below the count || root of the rest); of
/// none 32 zero bytes.
pub fn merkle_root(leaves: &[[u8; 32]]) -> [u8; 32] {
    match leaves {
        [] => [0; 32],
        [leaf] => *leaf,
        _ => {
            let (left, right) = leaves.split_at(leaves.len().next_power_of_two() / 2);
            let mut hash = blake3::Hasher::new();
            hash.update(&[1]);
            hash.update(&merkle_root(left));
            hash.update(&merkle_root(right));
            hash.finalize().into()
        }
    }
}

/// Digest of an embedding (O).
pub(crate) fn embedding_digest(
    job_id: &[u8; 16],
    model_id: &[u8; 32],
    ids: &[u32],
    values: &[f32],
) -> [u8; 32] {
    let mut hash = blake3::Hasher::new();
    hash.update(EMBEDDING_TAG);
    hash.update(&(NUMERICS_ID.len() as u32).to_le_bytes());
    hash.update(NUMERICS_ID.as_bytes());
    hash.update(job_id);
    hash.update(model_id);
    hash.update(&(ids.len() as u32).to_le_bytes());
    hash.update(&ids.iter().flat_map(|id| id.to_le_bytes()).collect::<Vec<u8>>());
    hash.update(&values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>());
    hash.finalize().into()
}
