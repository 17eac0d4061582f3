//! A loaded model: shape, weights, tokenizer, template. Reads the file once, in order; what it hashes is what it computes with.
//! No arithmetic, no state of a job.

mod shape;

pub(crate) use shape::{Architecture, Shape};

use crate::arena::Arena;
use crate::cuda::DeviceModel;
use crate::error::Error;
use crate::gguf::{Header, Source, TensorInfo};
use crate::grammar::GrammarVocabulary;
use crate::kv::KvShape;
use crate::numerics::{Backend, Numerics};
use crate::packed::{PackedMatrix, float_from_bytes};
use crate::rope::RopeTable;
use crate::template::ChatTemplate;
use crate::tokenizer::Tokenizer;
use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;
use std::sync::{Arc, OnceLock};

/// Bytes of weights read at a time.
const READ_BYTES: usize = 1 << 18;

/// How to load a model.
#[derive(Clone, Copy, Debug)]
pub struct LoadOptions {
    /// Which kernels to run; see [`Backend::from_environment`].
    pub backend: Backend,
}

impl LoadOptions {
    /// The fastest kernels here, or those that `COUNTERFOIL_KERNELS` names.
    ///
    /// # Errors
    /// [`Error::UnsupportedBackend`].
    pub fn from_environment() -> Result<LoadOptions, Error> {
        Ok(LoadOptions { backend: Backend::from_environment()? })
    }
}

/// Weights, tokenizer and template of one model file, ready to run. Share it as `Arc<Model>`.
pub struct Model {
    id: [u8; 32],
    name: String,
    tokenizer: Tokenizer,
    template: ChatTemplate,
    backend: Backend,
    pub(crate) numerics: &'static dyn Numerics,
    pub(crate) shape: Shape,
    pub(crate) weights: Weights,
    pub(crate) rope: RopeTable,
    /// Set where passes run on a device.
    pub(crate) device: Option<DeviceModel>,
    grammar: OnceLock<GrammarVocabulary>,
}

/// All weights. Matrices are `[output rows][input columns]`.
pub(crate) struct Weights {
    pub embedding: PackedMatrix,
    /// None where the head is tied to the embedding.
    output: Option<PackedMatrix>,
    pub output_norm: Vec<f32>,
    pub layers: Vec<Layer>,
}

/// One decoder layer.
pub(crate) struct Layer {
    pub attention_norm: Vec<f32>,
    pub query: PackedMatrix,
    pub key: PackedMatrix,
    pub value: PackedMatrix,
    pub attention_output: PackedMatrix,
    pub feed_forward_norm: Vec<f32>,
    pub gate: PackedMatrix,
    pub up: PackedMatrix,
    pub down: PackedMatrix,
    /// Added to queries, keys and values side by side (qwen2).
    pub bias: Option<Vec<f32>>,
    /// Gains of the norms of each query head and each key head (qwen3).
    pub head_norms: Option<(Vec<f32>, Vec<f32>)>,
}

impl Model {
    /// Reads, checks and repacks a GGUF file.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::MalformedModel`], [`Error::UnsupportedModel`], [`Error::UnsupportedBackend`].
    pub fn load(path: &Path, options: LoadOptions) -> Result<Arc<Model>, Error> {
        let file = File::open(path).map_err(|e| Error::io(path, &e))?;
        let length = file.metadata().map_err(|e| Error::io(path, &e))?.len();
        Model::read(BufReader::with_capacity(READ_BYTES, file), length, options)
    }

    /// As [`Model::load`], from any reader of `length` bytes.
    pub(crate) fn read(reader: impl Read, length: u64, options: LoadOptions) -> Result<Arc<Model>, Error> {
        let numerics = options.backend.numerics()?;
        let mut source = Source::new(reader, length);
        let header = Header::read(&mut source)?;
        let tokenizer = Tokenizer::from_header(&header)?;
        let template = ChatTemplate::from_header(&header)?;
        let shape = Shape::from_header(&header)?;
        if tokenizer.vocabulary_size() as usize != shape.vocabulary {
            let detail = format!(
                "{} tokens, but token_embd.weight has {} rows",
                tokenizer.vocabulary_size(),
                shape.vocabulary
            );
            return Err(Error::malformed(0, detail));
        }
        shape.check_tensors(&header.tensors)?;
        let mut tensors = Tensors::read(&mut source, &header.tensors)?;
        let weights = Weights::take(&mut tensors, &shape)?;
        let factors = tensors.rope_factors(shape.head_dim)?;
        let rope = RopeTable::new(shape.context, shape.head_dim, shape.rope_base, factors.as_deref());
        let name = header.text("general.name").unwrap_or("unnamed").to_owned();
        let id = source.finish()?;
        let device = crate::cuda::load(options.backend, &shape, &weights)?;
        Ok(Arc::new(Model {
            id,
            name,
            tokenizer,
            template,
            backend: options.backend,
            numerics,
            shape,
            weights,
            rope,
            device,
            grammar: OnceLock::new(),
        }))
    }

    /// SHA-256 of the file.
    pub fn id(&self) -> [u8; 32] {
        self.id
    }

    /// `general.name` of the file.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Positions, prompt and output together, that the model can use.
    pub fn context_length(&self) -> u32 {
        self.shape.context as u32
    }

    /// The tokenizer of the file.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The chat template of the file.
    pub fn template(&self) -> &ChatTemplate {
        &self.template
    }

    /// The token that ends an answer.
    pub fn eos(&self) -> u32 {
        self.tokenizer.eos()
    }

    /// `scalar`, `avx2`, `avx512`, `neon`, `cuda` or `emulated`. Informative: results do not depend on it.
    pub fn backend(&self) -> &'static str {
        self.backend.name()
    }

    /// Bytes of weights in memory.
    pub fn weight_bytes(&self) -> usize {
        self.weights.resident_bytes()
    }

    pub(crate) fn kv_shape(&self) -> KvShape {
        KvShape { layers: self.shape.layers, heads: self.shape.kv_heads, head_dim: self.shape.head_dim }
    }

    /// The vocabulary as grammars need it.
    pub(crate) fn grammar_vocabulary(&self) -> &GrammarVocabulary {
        self.grammar.get_or_init(|| GrammarVocabulary::new(&self.tokenizer))
    }

    /// The matrix that makes logits.
    pub(crate) fn head(&self) -> &PackedMatrix {
        self.weights.output.as_ref().unwrap_or(&self.weights.embedding)
    }
}

/// Tensors by name while the model is put together.
#[derive(Default)]
struct Tensors {
    matrices: HashMap<String, PackedMatrix>,
    vectors: HashMap<String, Vec<f32>>,
}

impl Tensors {
    /// Matrices lie in memory in the order in which a token meets them; `infos` is in the order of the file.
    fn read<R: Read>(source: &mut Source<R>, infos: &[TensorInfo]) -> Result<Tensors, Error> {
        let mut tensors = Tensors::default();
        let mut matrices: Vec<&TensorInfo> = infos.iter().filter(|info| info.rows > 1).collect();
        let bytes = matrices.iter().map(|info| PackedMatrix::bytes_of(info.kind, info.rows, info.columns));
        let mut arena = Arena::new(bytes.sum());
        matrices.sort_by_key(|info| order_of_use(&info.name));
        for TensorInfo { name, kind, rows, columns, .. } in matrices {
            let matrix = PackedMatrix::zeroed_in(&mut arena, *kind, *rows, *columns);
            tensors.matrices.insert(name.clone(), matrix);
        }
        for info in infos {
            source.advance_to(info.offset)?;
            if info.rows == 1 {
                tensors.vectors.insert(info.name.clone(), read_vector(source, info)?);
            } else if let Some(matrix) = tensors.matrices.get_mut(&info.name) {
                read_matrix(source, info, matrix)?;
            }
        }
        Ok(tensors)
    }

    fn matrix(&mut self, name: &str) -> Result<PackedMatrix, Error> {
        self.matrices.remove(name).ok_or_else(|| Error::malformed(0, format!("there is no matrix {name}")))
    }

    /// Positive finite divisors of the rotary frequencies, if the file has them.
    fn rope_factors(&mut self, head_dim: usize) -> Result<Option<Vec<f32>>, Error> {
        let Some(factors) = self.vectors.remove("rope_freqs.weight") else { return Ok(None) };
        match factors.iter().find(|f| !(f.is_finite() && **f >= 1e-6)) {
            Some(bad) => {
                Err(Error::malformed(0, format!("rope_freqs.weight holds {bad}, expected 1e-6 or more")))
            }
            None if factors.len() != head_dim / 2 => {
                Err(Error::malformed(0, format!("rope_freqs.weight has {} factors", factors.len())))
            }
            None => Ok(Some(factors)),
        }
    }

    fn vector(&mut self, name: &str) -> Result<Vec<f32>, Error> {
        self.vectors.remove(name).ok_or_else(|| Error::malformed(0, format!("there is no vector {name}")))
    }
}

fn read_vector<R: Read>(source: &mut Source<R>, info: &TensorInfo) -> Result<Vec<f32>, Error> {
    let width = info.kind.block_bytes();
    let mut raw = vec![0u8; info.columns * width];
    source.read(&mut raw)?;
    Ok(raw.chunks_exact(width).map(|bytes| float_from_bytes(info.kind, bytes)).collect())
}

/// Blocks of the model one after the other, then the tables; within a block as [`Pass`](crate::forward) runs it.
fn order_of_use(name: &str) -> (usize, usize) {
    const PARTS: [&str; 7] = ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"];
    let place = || {
        let (layer, part) = name.strip_prefix("blk.")?.split_once('.')?;
        let part = PARTS.iter().position(|known| part.strip_suffix(".weight") == Some(*known))?;
        Some((layer.parse().ok()?, part))
    };
    place().unwrap_or((usize::MAX, 0))
}

fn read_matrix<R: Read>(
    source: &mut Source<R>,
    info: &TensorInfo,
    matrix: &mut PackedMatrix,
) -> Result<(), Error> {
    let row_bytes = info.kind.row_bytes(info.columns);
    let rows_at_once = (READ_BYTES / row_bytes).clamp(1, info.rows);
    let mut raw = vec![0u8; rows_at_once * row_bytes];
    for first in (0..info.rows).step_by(rows_at_once) {
        let count = rows_at_once.min(info.rows - first);
        source.read(&mut raw[..count * row_bytes])?;
        for (row, raw) in raw[..count * row_bytes].chunks_exact(row_bytes).enumerate() {
            matrix.set_row(first + row, raw);
        }
    }
    Ok(())
}

impl Weights {
    fn take(tensors: &mut Tensors, shape: &Shape) -> Result<Weights, Error> {
        let layers = (0..shape.layers).map(|i| Layer::take(tensors, shape, i)).collect::<Result<_, _>>()?;
        Ok(Weights {
            embedding: tensors.matrix("token_embd.weight")?,
            output: tensors.matrix("output.weight").ok(),
            output_norm: tensors.vector("output_norm.weight")?,
            layers,
        })
    }

    /// The head, where it is not the embedding.
    pub(crate) fn output(&self) -> Option<&PackedMatrix> {
        self.output.as_ref()
    }

    fn resident_bytes(&self) -> usize {
        let layer = |l: &Layer| {
            let matrices = [&l.query, &l.key, &l.value, &l.attention_output, &l.gate, &l.up, &l.down];
            matrices.iter().map(|m| m.resident_bytes()).sum::<usize>()
        };
        let output = self.output.as_ref().map_or(0, PackedMatrix::resident_bytes);
        self.embedding.resident_bytes() + output + self.layers.iter().map(layer).sum::<usize>()
    }

    /// Embedding of `token` (H): the stored value, one rounding.
    pub(crate) fn embed(&self, token: usize, out: &mut [f32]) {
        self.embedding.row(token, out);
    }
}

impl Layer {
    fn take(tensors: &mut Tensors, shape: &Shape, index: usize) -> Result<Layer, Error> {
        let name = |part: &str| format!("blk.{index}.{part}");
        let bias = match shape.architecture {
            Architecture::Qwen2 => {
                let parts =
                    ["attn_q.bias", "attn_k.bias", "attn_v.bias"].map(|part| tensors.vector(&name(part)));
                Some(parts.into_iter().collect::<Result<Vec<_>, _>>()?.concat())
            }
            _ => None,
        };
        let head_norms = match shape.architecture {
            Architecture::Qwen3 => Some((
                tensors.vector(&name("attn_q_norm.weight"))?,
                tensors.vector(&name("attn_k_norm.weight"))?,
            )),
            _ => None,
        };
        Ok(Layer {
            attention_norm: tensors.vector(&name("attn_norm.weight"))?,
            query: tensors.matrix(&name("attn_q.weight"))?,
            key: tensors.matrix(&name("attn_k.weight"))?,
            value: tensors.matrix(&name("attn_v.weight"))?,
            attention_output: tensors.matrix(&name("attn_output.weight"))?,
            feed_forward_norm: tensors.vector(&name("ffn_norm.weight"))?,
            gate: tensors.matrix(&name("ffn_gate.weight"))?,
            up: tensors.matrix(&name("ffn_up.weight"))?,
            down: tensors.matrix(&name("ffn_down.weight"))?,
            bias,
            head_norms,
        })
    }
}
