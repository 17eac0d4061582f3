//! What the header says about a decoder: architecture, extents, rotary embedding, which tensors there must be. Everything is
//! checked before a byte of weights is read. No weights here.

use crate::error::Error;
use crate::gguf::{Header, TensorInfo, TensorType};
use crate::rope::RopePairs;
use std::collections::HashMap;

/// Positions a model may use, whatever its file says.
const CONTEXT_TOKENS_MAX: u64 = 131_072;
/// Layers of a model.
const LAYERS_MAX: u64 = 1_024;
/// Width of any row of weights or activations.
const WIDTH_MAX: u64 = 1 << 18;

/// The decoders this version runs (H). They differ in rotary pairs, biases and norms of heads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Architecture {
    Llama,
    Qwen2,
    Qwen3,
}

impl Architecture {
    fn from_header(header: &Header) -> Result<Architecture, Error> {
        match header.text("general.architecture")? {
            "llama" => Ok(Architecture::Llama),
            "qwen2" => Ok(Architecture::Qwen2),
            "qwen3" => Ok(Architecture::Qwen3),
            other => Err(Error::unsupported(format!(
                "architecture {other}; this version runs llama, qwen2 and qwen3"
            ))),
        }
    }

    /// As in `general.architecture` and at the start of its keys.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Architecture::Llama => "llama",
            Architecture::Qwen2 => "qwen2",
            Architecture::Qwen3 => "qwen3",
        }
    }

    fn rope_pairs(self) -> RopePairs {
        match self {
            Architecture::Llama => RopePairs::Adjacent,
            Architecture::Qwen2 | Architecture::Qwen3 => RopePairs::Halves,
        }
    }
}

/// The numbers that describe a decoder.
#[derive(Clone, Debug)]
pub(crate) struct Shape {
    pub architecture: Architecture,
    pub layers: usize,
    pub width: usize,
    pub feed_forward: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    pub vocabulary: usize,
    pub context: usize,
    pub epsilon: f32,
    pub rope_base: f64,
    pub rope_pairs: RopePairs,
}

impl Shape {
    pub(crate) fn from_header(header: &Header) -> Result<Shape, Error> {
        let architecture = Architecture::from_header(header)?;
        let key = |name: &str| format!("{}.{name}", architecture.name());
        for name in ["expert_count", "attention.sliding_window"] {
            if header.integer_optional(&key(name))?.unwrap_or(0) != 0 {
                return Err(Error::unsupported(format!("metadata key {}", key(name))));
            }
        }
        let scaling = key("rope.scaling.type");
        if header.metadata.contains_key(&scaling) && header.text(&scaling)? != "none" {
            let kind: String = header.text(&scaling)?.chars().take(32).collect();
            return Err(Error::unsupported(format!(
                "rope scaling {kind} ({scaling}); this version scales by the factors of rope_freqs.weight only"
            )));
        }
        let width = header.extent(&key("embedding_length"), WIDTH_MAX)?;
        let heads = header.extent(&key("attention.head_count"), 4_096)?;
        let kv_heads = match header.integer_optional(&key("attention.head_count_kv"))? {
            None => heads,
            Some(_) => header.extent(&key("attention.head_count_kv"), heads as u64)?,
        };
        let head_dim = match header.integer_optional(&key("attention.key_length"))? {
            None => width / heads,
            Some(_) => header.extent(&key("attention.key_length"), 1_024)?,
        };
        let embedding = header.tensors.iter().find(|t| t.name == "token_embd.weight");
        let embedding =
            embedding.ok_or_else(|| Error::malformed(0, "there is no tensor token_embd.weight"))?;
        let context = header.extent(&key("context_length"), u32::MAX.into())? as u64;
        let epsilon = header.float_optional(&key("attention.layer_norm_rms_epsilon"))?.unwrap_or(1e-5) as f32;
        let shape = Shape {
            architecture,
            layers: header.extent(&key("block_count"), LAYERS_MAX)?,
            width,
            feed_forward: header.extent(&key("feed_forward_length"), WIDTH_MAX)?,
            heads,
            kv_heads,
            head_dim,
            vocabulary: embedding.rows,
            context: context.min(CONTEXT_TOKENS_MAX) as usize,
            epsilon,
            rope_base: header.float_optional(&key("rope.freq_base"))?.unwrap_or(10_000.0),
            rope_pairs: architecture.rope_pairs(),
        };
        shape.check(header)?;
        Ok(shape)
    }

    fn check(&self, header: &Header) -> Result<(), Error> {
        let dimensions = |name: &str| {
            let key = format!("{}.{name}", self.architecture.name());
            Ok::<_, Error>(header.integer_optional(&key)?.unwrap_or(self.head_dim as u64))
        };
        let (rope, value) = (dimensions("rope.dimension_count")?, dimensions("attention.value_length")?);
        if rope != self.head_dim as u64 || value != self.head_dim as u64 {
            let what = format!("head dimension {}, rope {rope}, value {value}: must be equal", self.head_dim);
            return Err(Error::unsupported(what));
        }
        if !self.head_dim.is_multiple_of(16)
            || self.head_dim == 0
            || !self.heads.is_multiple_of(self.kv_heads)
        {
            let what =
                format!("{} heads of {} over {} key-value heads", self.heads, self.head_dim, self.kv_heads);
            return Err(Error::unsupported(what));
        }
        for (what, width) in [
            ("embedding", self.width),
            ("feed-forward", self.feed_forward),
            ("attention", self.heads * self.head_dim),
        ] {
            if !width.is_multiple_of(32) {
                return Err(Error::unsupported(format!("{what} width {width}: must be a multiple of 32")));
            }
        }
        let sane = self.epsilon > 0.0
            && self.epsilon.is_finite()
            && self.rope_base > 1.0
            && self.rope_base.is_finite();
        if !sane {
            let detail = format!("rms epsilon {} or rope base {}", self.epsilon, self.rope_base);
            return Err(Error::malformed(0, detail));
        }
        Ok(())
    }

    /// Names, shapes and types of all tensors, before any of their bytes is read.
    pub(crate) fn check_tensors(&self, tensors: &[TensorInfo]) -> Result<(), Error> {
        let mut expected = self.expected_tensors();
        for tensor in tensors {
            let Some((rows, columns)) = expected.remove(&tensor.name) else {
                return Err(Error::unsupported(format!(
                    "tensor {}: architecture {} has no use for it",
                    tensor.name,
                    self.architecture.name()
                )));
            };
            if (tensor.rows, tensor.columns) != (rows, columns) {
                let detail = format!(
                    "tensor {} is {} x {}, expected {rows} x {columns}",
                    tensor.name, tensor.rows, tensor.columns
                );
                return Err(Error::malformed(tensor.offset, detail));
            }
            if rows == 1 && tensor.kind.block_elements() != 1 {
                return Err(Error::unsupported(format!("vector {} of type {:?}", tensor.name, tensor.kind)));
            }
            if tensor.name == "rope_freqs.weight" && tensor.kind != TensorType::F32 {
                return Err(Error::unsupported(format!("rope_freqs.weight of type {:?}", tensor.kind)));
            }
        }
        expected.remove("output.weight");
        expected.remove("rope_freqs.weight");
        match expected.keys().min() {
            Some(name) => Err(Error::malformed(0, format!("there is no tensor {name}"))),
            None => Ok(()),
        }
    }

    fn expected_tensors(&self) -> HashMap<String, (usize, usize)> {
        let (attention, kv) = (self.heads * self.head_dim, self.kv_heads * self.head_dim);
        let mut expected = HashMap::new();
        expected.insert("token_embd.weight".to_owned(), (self.vocabulary, self.width));
        expected.insert("output.weight".to_owned(), (self.vocabulary, self.width));
        expected.insert("output_norm.weight".to_owned(), (1, self.width));
        if self.architecture == Architecture::Llama {
            expected.insert("rope_freqs.weight".to_owned(), (1, self.head_dim / 2));
        }
        let mut parts = vec![
            ("attn_norm.weight", 1, self.width),
            ("attn_q.weight", attention, self.width),
            ("attn_k.weight", kv, self.width),
            ("attn_v.weight", kv, self.width),
            ("attn_output.weight", self.width, attention),
            ("ffn_norm.weight", 1, self.width),
            ("ffn_gate.weight", self.feed_forward, self.width),
            ("ffn_up.weight", self.feed_forward, self.width),
            ("ffn_down.weight", self.width, self.feed_forward),
        ];
        parts.extend(match self.architecture {
            Architecture::Llama => vec![],
            Architecture::Qwen2 => {
                vec![("attn_q.bias", 1, attention), ("attn_k.bias", 1, kv), ("attn_v.bias", 1, kv)]
            }
            Architecture::Qwen3 => {
                vec![("attn_q_norm.weight", 1, self.head_dim), ("attn_k_norm.weight", 1, self.head_dim)]
            }
        });
        for layer in 0..self.layers {
            for (name, rows, columns) in &parts {
                expected.insert(format!("blk.{layer}.{name}"), (*rows, *columns));
            }
        }
        expected
    }
}
