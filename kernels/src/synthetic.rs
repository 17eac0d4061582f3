//! Small model files made in memory for tests: any tensor type, random weights from a seed, every field open to damage.

use crate::gguf::TensorType;
use crate::model::{LoadOptions, Model};
use crate::numerics::Backend;
use crate::packed::f16_from_f32;
use std::sync::Arc;

/// What to build. `SyntheticModel::small(kind)`, then change what the test is about.
#[derive(Clone)]
pub(crate) struct SyntheticModel {
    pub kind: TensorType,
    pub seed: u64,
    pub width: usize,
    pub feed_forward: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub layers: usize,
    pub context: u32,
    /// A head of its own instead of the embedding.
    pub separate_head: bool,
    /// Written instead of the weights' own bytes: tensor name, offset in the tensor, bytes.
    pub damage: Vec<(String, usize, Vec<u8>)>,
    pub architecture: &'static str,
    /// `tokenizer.ggml.pre`.
    pub pre: &'static str,
    /// Elements of a head; queries may be wider than the stream.
    pub head_dim: usize,
    /// Type of the embedding and the head; None as the rest (K-quant files keep them in Q6_K).
    pub embedding_kind: Option<TensorType>,
    /// Writes `rope_freqs.weight`, as llama-3 files have it.
    pub rope_factors: bool,
}

/// 256 bytes, two control tokens, three merged tokens.
pub(crate) const VOCABULARY: usize = 261;
pub(crate) const IM_START: u32 = 256;
pub(crate) const IM_END: u32 = 257;

impl SyntheticModel {
    /// Two layers, four heads of 16 over two (K-quants: of 64, because their rows have at least 256 elements).
    pub(crate) fn small(kind: TensorType) -> SyntheticModel {
        let (width, feed_forward) = if kind.is_k_quant() { (256, 512) } else { (64, 96) };
        SyntheticModel {
            kind,
            seed: 1,
            width,
            feed_forward,
            heads: 4,
            kv_heads: 2,
            layers: 2,
            context: 256,
            separate_head: false,
            damage: Vec::new(),
            architecture: "llama",
            pre: "smollm",
            head_dim: width / 4,
            embedding_kind: None,
            rope_factors: false,
        }
    }

    /// The model on `backend`.
    pub(crate) fn load(&self, backend: Backend) -> Arc<Model> {
        let bytes = self.bytes();
        Model::read(&bytes[..], bytes.len() as u64, LoadOptions { backend }).unwrap()
    }

    /// The file.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let tensors = self.tensors();
        let pairs = self.pairs();
        let mut file = b"GGUF".to_vec();
        file.extend(3u32.to_le_bytes());
        file.extend((tensors.len() as u64).to_le_bytes());
        file.extend((pairs.len() as u64).to_le_bytes());
        file.extend(pairs.concat());
        let mut data = Vec::new();
        for (name, rows, columns, kind) in &tensors {
            file.extend(text(name));
            file.extend(2u32.to_le_bytes());
            file.extend((*columns as u64).to_le_bytes());
            file.extend((*rows as u64).to_le_bytes());
            file.extend(kind.code().to_le_bytes());
            file.extend((data.len() as u64).to_le_bytes());
            let start = data.len();
            data.extend(self.weights(name, *rows, *columns, *kind));
            for (_, at, bytes) in self.damage.iter().filter(|(damaged, ..)| damaged == name) {
                data[start + at..start + at + bytes.len()].copy_from_slice(bytes);
            }
            data.resize(data.len().next_multiple_of(32), 0);
        }
        file.resize(file.len().next_multiple_of(32), 0);
        file.extend(data);
        file
    }

    pub(crate) fn tensors(&self) -> Vec<(String, usize, usize, TensorType)> {
        let (width, kind) = (self.width, self.kind);
        let (query, kv) = (self.heads * self.head_dim, self.kv_heads * self.head_dim);
        let embedding = self.embedding_kind.unwrap_or(kind);
        let mut tensors = vec![("token_embd.weight".to_owned(), VOCABULARY, width, embedding)];
        if self.separate_head {
            tensors.push(("output.weight".to_owned(), VOCABULARY, width, embedding));
        }
        if self.rope_factors {
            tensors.push(("rope_freqs.weight".to_owned(), 1, self.head_dim / 2, TensorType::F32));
        }
        for layer in 0..self.layers {
            for (name, rows, columns, kind) in [
                ("attn_norm", 1, width, TensorType::F32),
                ("attn_q", query, width, kind),
                ("attn_k", kv, width, kind),
                ("attn_v", kv, width, kind),
                ("attn_output", width, query, kind),
                ("ffn_norm", 1, width, TensorType::F32),
                ("ffn_gate", self.feed_forward, width, kind),
                ("ffn_up", self.feed_forward, width, kind),
                ("ffn_down", width, self.feed_forward, kind),
            ] {
                tensors.push((format!("blk.{layer}.{name}.weight"), rows, columns, kind));
            }
            let extra: &[(&str, usize)] = match self.architecture {
                "qwen2" => &[("attn_q.bias", query), ("attn_k.bias", kv), ("attn_v.bias", kv)],
                "qwen3" => &[("attn_q_norm.weight", self.head_dim), ("attn_k_norm.weight", self.head_dim)],
                _ => &[],
            };
            for (name, width) in extra {
                tensors.push((format!("blk.{layer}.{name}"), 1, *width, TensorType::F32));
            }
        }
        tensors.push(("output_norm.weight".to_owned(), 1, width, TensorType::F32));
        tensors
    }

    fn pairs(&self) -> Vec<Vec<u8>> {
        let number = |key: &str, value: u32| {
            [text(key), 4u32.to_le_bytes().to_vec(), value.to_le_bytes().to_vec()].concat()
        };
        let string = |key: &str, value: &str| [text(key), 8u32.to_le_bytes().to_vec(), text(value)].concat();
        let list = |key: &str, element: u32, count: usize, body: Vec<u8>| {
            let head = [text(key), 9u32.to_le_bytes().to_vec(), element.to_le_bytes().to_vec()].concat();
            [head, (count as u64).to_le_bytes().to_vec(), body].concat()
        };
        let key = |name: &str| {
            // An unknown architecture is refused by name; its other keys do not matter.
            let known = ["qwen2", "qwen3"].into_iter().find(|known| *known == self.architecture);
            format!("{}.{name}", known.unwrap_or("llama"))
        };
        let (tokens, merges) = vocabulary();
        let types: Vec<u8> = (0..VOCABULARY as u32)
            .flat_map(|i| if i == IM_START || i == IM_END { 3i32 } else { 1 }.to_le_bytes())
            .collect();
        let mut pairs = vec![
            string("general.architecture", self.architecture),
            string("general.name", "synthetic"),
            number(&key("block_count"), self.layers as u32),
            number(&key("context_length"), self.context),
            number(&key("embedding_length"), self.width as u32),
            number(&key("feed_forward_length"), self.feed_forward as u32),
            number(&key("attention.head_count"), self.heads as u32),
            number(&key("attention.head_count_kv"), self.kv_heads as u32),
            string("tokenizer.ggml.model", "gpt2"),
            string("tokenizer.ggml.pre", self.pre),
            list("tokenizer.ggml.tokens", 8, tokens.len(), tokens.iter().flat_map(|t| text(t)).collect()),
            list("tokenizer.ggml.token_type", 5, VOCABULARY, types),
            list("tokenizer.ggml.merges", 8, merges.len(), merges.iter().flat_map(|m| text(m)).collect()),
            number("tokenizer.ggml.eos_token_id", IM_END),
            string(
                "tokenizer.chat_template",
                "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>' }}{% endfor %}<|im_start|>",
            ),
        ];
        if self.head_dim * self.heads != self.width {
            pairs.push(number(&key("attention.key_length"), self.head_dim as u32));
            pairs.push(number(&key("attention.value_length"), self.head_dim as u32));
        }
        pairs
    }

    pub(crate) fn weights(&self, name: &str, rows: usize, columns: usize, kind: TensorType) -> Vec<u8> {
        let mut state = name.bytes().fold(self.seed.wrapping_add(0x9E37_79B9_7F4A_7C15), |s, b| {
            (s ^ u64::from(b)).wrapping_mul(0x0100_0000_01B3)
        }) | 1;
        let mut next = move || {
            state ^= state >> 12;
            state ^= state << 25;
            state ^= state >> 27;
            state.wrapping_mul(0x2545_F491_4F6C_DD1D)
        };
        let mut raw = Vec::new();
        for _ in 0..rows * columns / kind.block_elements() {
            let unit = (next() >> 40) as f32 / 8_388_608.0 - 1.0;
            match kind {
                TensorType::F32 if name == "rope_freqs.weight" => {
                    raw.extend((4.5 + 3.5 * unit).to_le_bytes())
                }
                TensorType::F32 if rows == 1 => raw.extend((1.0 + unit * 0.1).to_le_bytes()),
                TensorType::F32 => raw.extend((unit * 0.3).to_le_bytes()),
                TensorType::F16 => raw.extend(f16_from_f32(unit * 0.3).to_le_bytes()),
                TensorType::Bf16 => raw.extend(&(unit * 0.3).to_le_bytes()[2..]),
                TensorType::Q4_0 | TensorType::Q4_1 | TensorType::Q8_0 => {
                    let step = if kind == TensorType::Q8_0 { 0.003 } else { 0.04 };
                    raw.extend(f16_from_f32(step * (1.0 + 0.1 * unit)).to_le_bytes());
                    if kind == TensorType::Q4_1 {
                        raw.extend(f16_from_f32(-0.3).to_le_bytes());
                    }
                    raw.extend(
                        (0..if kind == TensorType::Q8_0 { 32 } else { 16 }).map(|_| (next() >> 32) as u8),
                    );
                }
                TensorType::Q4K => {
                    // Scales of about 32 and minima of about 32 that bring the mean near zero.
                    raw.extend(f16_from_f32(0.0012 * (1.0 + 0.1 * unit)).to_le_bytes());
                    raw.extend(f16_from_f32(0.009).to_le_bytes());
                    raw.extend((0..140).map(|_| (next() >> 32) as u8));
                }
                TensorType::Q6K => {
                    raw.extend((0..208).map(|_| (next() >> 32) as u8));
                    raw.extend(f16_from_f32(0.0001 * (1.0 + 0.1 * unit)).to_le_bytes());
                }
            }
        }
        raw
    }
}

/// Tokens in the byte alphabet of GPT-2, and merges: " t", "he", " the".
fn vocabulary() -> (Vec<String>, Vec<String>) {
    let mut shifted = 256;
    let mut tokens: Vec<String> = (0..=255u8)
        .map(|byte| {
            let code = if matches!(byte, 33..=126 | 161..=172 | 174..=255) {
                u32::from(byte)
            } else {
                shifted += 1;
                shifted - 1
            };
            char::from_u32(code).unwrap().to_string()
        })
        .collect();
    tokens.extend(["<|im_start|>", "<|im_end|>", "\u{120}t", "he", "\u{120}the"].map(str::to_owned));
    (tokens, ["\u{120} t", "h e", "\u{120}t he"].map(str::to_owned).to_vec())
}

fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat()
}
