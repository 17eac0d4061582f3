//! A loaded model: shape, weights, tokenizer, template. Reads the file once, in order; what it hashes is what it computes with.
//! No arithmetic, no state of a job.

use crate::error::Error;
use crate::gguf::{Header, Source, TensorInfo, TensorType};
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
use std::sync::Arc;

/// Positions a model may use, whatever its file says: bounds the rotary tables.
const CONTEXT_TOKENS_MAX: u64 = 131_072;
/// Layers of a model.
const LAYERS_MAX: u64 = 1_024;
/// Width of any row of weights or activations.
const WIDTH_MAX: u64 = 1 << 18;
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
}

/// The numbers that describe a decoder of the `llama` family.
#[derive(Clone, Debug)]
pub(crate) struct Shape {
    pub layers: usize,
    pub width: usize,
    pub feed_forward: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    pub vocabulary: usize,
    pub context: usize,
    pub epsilon: f32,
    rope_base: f64,
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
        let rope = RopeTable::new(shape.context, shape.head_dim, shape.rope_base);
        let name = header.text("general.name").unwrap_or("unnamed").to_owned();
        let id = source.finish()?;
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

    /// `scalar`, `avx2` or `avx512`. Informative: results do not depend on it.
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

    /// The matrix that makes logits.
    pub(crate) fn head(&self) -> &PackedMatrix {
        self.weights.output.as_ref().unwrap_or(&self.weights.embedding)
    }
}

impl Shape {
    fn from_header(header: &Header) -> Result<Shape, Error> {
        let architecture = header.text("general.architecture")?;
        if architecture != "llama" {
            return Err(Error::unsupported(format!("architecture {architecture}; this version runs llama")));
        }
        for key in ["llama.expert_count", "llama.attention.sliding_window"] {
            if header.integer_optional(key)?.unwrap_or(0) != 0 {
                return Err(Error::unsupported(format!("metadata key {key}")));
            }
        }
        if header.metadata.contains_key("llama.rope.scaling.type")
            && header.text("llama.rope.scaling.type")? != "none"
        {
            return Err(Error::unsupported("rope scaling (llama.rope.scaling.type)"));
        }
        let width = header.extent("llama.embedding_length", WIDTH_MAX)?;
        let heads = header.extent("llama.attention.head_count", 4_096)?;
        let kv_heads = match header.integer_optional("llama.attention.head_count_kv")? {
            None => heads,
            Some(_) => header.extent("llama.attention.head_count_kv", heads as u64)?,
        };
        let head_dim = match header.integer_optional("llama.attention.key_length")? {
            None => width / heads,
            Some(_) => header.extent("llama.attention.key_length", 1_024)?,
        };
        let embedding = header.tensors.iter().find(|t| t.name == "token_embd.weight");
        let embedding =
            embedding.ok_or_else(|| Error::malformed(0, "there is no tensor token_embd.weight"))?;
        let context = header.extent("llama.context_length", u32::MAX.into())? as u64;
        let epsilon = header.float_optional("llama.attention.layer_norm_rms_epsilon")?.unwrap_or(1e-5) as f32;
        let shape = Shape {
            layers: header.extent("llama.block_count", LAYERS_MAX)?,
            width,
            feed_forward: header.extent("llama.feed_forward_length", WIDTH_MAX)?,
            heads,
            kv_heads,
            head_dim,
            vocabulary: embedding.rows,
            context: context.min(CONTEXT_TOKENS_MAX) as usize,
            epsilon,
            rope_base: header.float_optional("llama.rope.freq_base")?.unwrap_or(10_000.0),
        };
        shape.check(header)?;
        Ok(shape)
    }

    fn check(&self, header: &Header) -> Result<(), Error> {
        let rope_dimensions =
            header.integer_optional("llama.rope.dimension_count")?.unwrap_or(self.head_dim as u64);
        let value_length =
            header.integer_optional("llama.attention.value_length")?.unwrap_or(self.head_dim as u64);
        if rope_dimensions != self.head_dim as u64 || value_length != self.head_dim as u64 {
            let what = format!(
                "head dimension {}, rope {rope_dimensions}, value {value_length}: must be equal",
                self.head_dim
            );
            return Err(Error::unsupported(what));
        }
        if !self.head_dim.is_multiple_of(16) || !self.heads.is_multiple_of(self.kv_heads) {
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
    fn check_tensors(&self, tensors: &[TensorInfo]) -> Result<(), Error> {
        let mut expected = self.expected_tensors();
        for tensor in tensors {
            let Some((rows, columns)) = expected.remove(&tensor.name) else {
                return Err(Error::unsupported(format!(
                    "tensor {}: architecture llama has no use for it",
                    tensor.name
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
        }
        expected.remove("output.weight");
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
        for layer in 0..self.layers {
            for (name, rows, columns) in [
                ("attn_norm", 1, self.width),
                ("attn_q", attention, self.width),
                ("attn_k", kv, self.width),
                ("attn_v", kv, self.width),
                ("attn_output", self.width, attention),
                ("ffn_norm", 1, self.width),
                ("ffn_gate", self.feed_forward, self.width),
                ("ffn_up", self.feed_forward, self.width),
                ("ffn_down", self.width, self.feed_forward),
            ] {
                expected.insert(format!("blk.{layer}.{name}.weight"), (rows, columns));
            }
        }
        expected
    }
}

/// Tensors by name while the model is put together.
#[derive(Default)]
struct Tensors {
    matrices: HashMap<String, PackedMatrix>,
    vectors: HashMap<String, Vec<f32>>,
}

impl Tensors {
    fn read<R: Read>(source: &mut Source<R>, infos: &[TensorInfo]) -> Result<Tensors, Error> {
        let mut tensors = Tensors::default();
        for info in infos {
            source.advance_to(info.offset)?;
            if info.rows == 1 {
                tensors.vectors.insert(info.name.clone(), read_vector(source, info)?);
            } else {
                tensors.matrices.insert(info.name.clone(), read_matrix(source, info)?);
            }
        }
        Ok(tensors)
    }

    fn matrix(&mut self, name: &str) -> Result<PackedMatrix, Error> {
        self.matrices.remove(name).ok_or_else(|| Error::malformed(0, format!("there is no matrix {name}")))
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

fn read_matrix<R: Read>(source: &mut Source<R>, info: &TensorInfo) -> Result<PackedMatrix, Error> {
    let mut matrix = PackedMatrix::zeroed(info.kind, info.rows, info.columns);
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
    Ok(matrix)
}

impl Weights {
    fn take(tensors: &mut Tensors, shape: &Shape) -> Result<Weights, Error> {
        let layers = (0..shape.layers).map(|i| Layer::take(tensors, i)).collect::<Result<_, _>>()?;
        Ok(Weights {
            embedding: tensors.matrix("token_embd.weight")?,
            output: tensors.matrix("output.weight").ok(),
            output_norm: tensors.vector("output_norm.weight")?,
            layers,
        })
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
        let table = &self.embedding;
        for (column, out) in out.iter_mut().enumerate() {
            let block = column / crate::packed::BLOCK;
            *out = match table.kind() {
                TensorType::F32 | TensorType::F16 | TensorType::Bf16 => table.float(token, column),
                TensorType::Q8_0 => table.scale(token, block) * table.quant(token, column) as f32,
                TensorType::Q4_0 => table.scale(token, block) * (table.quant(token, column) - 8) as f32,
                TensorType::Q4_1 => table
                    .scale(token, block)
                    .mul_add(table.quant(token, column) as f32, table.minimum(token, block)),
            };
        }
    }
}

impl Layer {
    fn take(tensors: &mut Tensors, index: usize) -> Result<Layer, Error> {
        let name = |part: &str| format!("blk.{index}.{part}.weight");
        Ok(Layer {
            attention_norm: tensors.vector(&name("attn_norm"))?,
            query: tensors.matrix(&name("attn_q"))?,
            key: tensors.matrix(&name("attn_k"))?,
            value: tensors.matrix(&name("attn_v"))?,
            attention_output: tensors.matrix(&name("attn_output"))?,
            feed_forward_norm: tensors.vector(&name("ffn_norm"))?,
            gate: tensors.matrix(&name("ffn_gate"))?,
            up: tensors.matrix(&name("ffn_up"))?,
            down: tensors.matrix(&name("ffn_down"))?,
        })
    }
}
