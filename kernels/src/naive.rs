//! A decoder in f64 written as one reads it in a paper: no quantised activations, no tiles, no order. Only the tests' measure of
//! whether the canonical numerics compute the model they claim to compute.

use crate::gguf::{Header, Source, TensorType, Value};
use crate::packed::f32_from_f16;
use std::collections::HashMap;

/// The value of an element straight from the file format; `raw` is its row.
pub(crate) fn naive_element(kind: TensorType, raw: &[u8], column: usize) -> f64 {
    let half = |at: usize| f64::from(f32_from_f16(u16::from_le_bytes([raw[at], raw[at + 1]])));
    let block = column / kind.block_elements() * kind.block_bytes();
    let nibble = |start: usize| {
        let byte = raw[start + column % 16];
        f64::from(if column % 32 < 16 { byte & 15 } else { byte >> 4 })
    };
    match kind {
        TensorType::F32 => f32::from_le_bytes(raw[column * 4..column * 4 + 4].try_into().unwrap()).into(),
        TensorType::F16 => half(column * 2),
        TensorType::Bf16 => f32::from_le_bytes([0, 0, raw[column * 2], raw[column * 2 + 1]]).into(),
        TensorType::Q4_0 => half(block) * (nibble(block + 2) - 8.0),
        TensorType::Q4_1 => half(block) * nibble(block + 4) + half(block + 2),
        TensorType::Q8_0 => half(block) * f64::from(raw[block + 2 + column % 32] as i8),
        TensorType::Q4K => {
            let (sub, packed) = (column % 256 / 32, &raw[block + 4..block + 16]);
            let (scale, minimum) = if sub < 4 {
                (packed[sub] & 63, packed[sub + 4] & 63)
            } else {
                (
                    packed[sub + 4] & 15 | (packed[sub - 4] >> 6) << 4,
                    packed[sub + 4] >> 4 | (packed[sub] >> 6) << 4,
                )
            };
            let byte = raw[block + 16 + sub / 2 * 32 + column % 32];
            let q = if sub.is_multiple_of(2) { byte & 15 } else { byte >> 4 };
            half(block) * f64::from(scale) * f64::from(q) - half(block + 2) * f64::from(minimum)
        }
        TensorType::Q6K => {
            let e = column % 256;
            let (n, quarter, l) = (e / 128, e % 128 / 32, e % 32);
            let low = raw[block + n * 64 + quarter % 2 * 32 + l];
            let low = if quarter < 2 { low & 15 } else { low >> 4 };
            let high = raw[block + 128 + n * 32 + l] >> (2 * quarter) & 3;
            let scale = raw[block + 192 + e / 16] as i8;
            half(block + 208) * f64::from(scale) * (f64::from(low | high << 4) - 32.0)
        }
    }
}

/// A file, read whole.
pub(crate) struct NaiveModel {
    header: Header,
    tensors: HashMap<String, Vec<Vec<f64>>>,
    architecture: String,
}

impl NaiveModel {
    /// Every tensor of the file as f64 rows.
    pub(crate) fn read(bytes: &[u8]) -> NaiveModel {
        let header = Header::read(&mut Source::new(bytes, bytes.len() as u64)).unwrap();
        let tensors = header.tensors.iter().map(|info| {
            let data = &bytes[info.offset as usize..][..info.bytes as usize];
            let rows = data.chunks_exact(info.kind.row_bytes(info.columns));
            let rows = rows
                .map(|row| (0..info.columns).map(|k| naive_element(info.kind, row, k)).collect())
                .collect();
            (info.name.clone(), rows)
        });
        let (tensors, architecture) =
            (tensors.collect(), header.text("general.architecture").unwrap().to_owned());
        NaiveModel { header, tensors, architecture }
    }

    fn number(&self, key: &str) -> Option<f64> {
        match self.header.metadata.get(&format!("{}.{key}", self.architecture)) {
            Some(Value::Integer(n)) => Some(*n as f64),
            Some(Value::Float(x)) => Some(*x),
            _ => None,
        }
    }

    fn vector(&self, name: &str) -> Option<&[f64]> {
        self.tensors.get(name).map(|rows| &rows[0][..])
    }

    fn multiply(&self, name: &str, x: &[f64]) -> Vec<f64> {
        self.tensors[name].iter().map(|row| row.iter().zip(x).map(|(w, x)| w * x).sum()).collect()
    }

    fn norm(&self, x: &[f64], gain: &[f64]) -> Vec<f64> {
        let epsilon = self.number("attention.layer_norm_rms_epsilon").unwrap_or(1e-5);
        let r = (x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64 + epsilon).sqrt();
        x.iter().zip(gain).map(|(x, g)| x / r * g).collect()
    }

    /// Rotates every head by its position.
    fn rotate(&self, heads: &mut [f64], dim: usize, position: usize) {
        let base = self.number("rope.freq_base").unwrap_or(10_000.0);
        for head in heads.chunks_exact_mut(dim) {
            for i in 0..dim / 2 {
                let factor = self.vector("rope_freqs.weight").map_or(1.0, |f| f[i]);
                let angle = position as f64 * base.powf(-2.0 * i as f64 / dim as f64) / factor;
                let (at, to) =
                    if self.architecture == "llama" { (2 * i, 2 * i + 1) } else { (i, i + dim / 2) };
                let (a, b) = (head[at], head[to]);
                (head[at], head[to]) = (a * angle.cos() - b * angle.sin(), a * angle.sin() + b * angle.cos());
            }
        }
    }

    /// Queries, keys and values of a position.
    fn project(&self, layer: usize, x: &[f64], dim: usize, position: usize) -> [Vec<f64>; 3] {
        let h = self.norm(x, self.vector(&format!("blk.{layer}.attn_norm.weight")).unwrap());
        ["q", "k", "v"].map(|which| {
            let mut y = self.multiply(&format!("blk.{layer}.attn_{which}.weight"), &h);
            if let Some(bias) = self.vector(&format!("blk.{layer}.attn_{which}.bias")) {
                y.iter_mut().zip(bias).for_each(|(y, b)| *y += b);
            }
            if let Some(gain) = self.vector(&format!("blk.{layer}.attn_{which}_norm.weight")) {
                y = y.chunks_exact(dim).flat_map(|head| self.norm(head, gain)).collect();
            }
            if which != "v" {
                self.rotate(&mut y, dim, position);
            }
            y
        })
    }

    /// Logits after the last of `tokens`.
    pub(crate) fn logits(&self, tokens: &[u32]) -> Vec<f64> {
        let heads = self.number("attention.head_count").unwrap() as usize;
        let kv_heads = self.number("attention.head_count_kv").unwrap() as usize;
        let width = self.number("embedding_length").unwrap() as usize;
        let dim = self.number("attention.key_length").map_or(width / heads, |d| d as usize);
        let embedding = &self.tensors["token_embd.weight"];
        let mut stream: Vec<Vec<f64>> =
            tokens.iter().map(|token| embedding[*token as usize].clone()).collect();
        for layer in 0..self.number("block_count").unwrap() as usize {
            let projected: Vec<[Vec<f64>; 3]> =
                stream.iter().enumerate().map(|(p, x)| self.project(layer, x, dim, p)).collect();
            for (position, x) in stream.iter_mut().enumerate() {
                let mut attended = vec![0.0; heads * dim];
                for (head, out) in attended.chunks_exact_mut(dim).enumerate() {
                    let kv = head / (heads / kv_heads) * dim;
                    let q = &projected[position][0][head * dim..][..dim];
                    let score = |j: usize| {
                        let k = &projected[j][1][kv..kv + dim];
                        q.iter().zip(k).map(|(q, k)| q * k).sum::<f64>() / (dim as f64).sqrt()
                    };
                    let scores: Vec<f64> = (0..=position).map(score).collect();
                    let maximum = scores.iter().copied().fold(f64::MIN, f64::max);
                    let total: f64 = scores.iter().map(|s| (s - maximum).exp()).sum();
                    for (j, score) in scores.iter().enumerate() {
                        let weight = (score - maximum).exp() / total;
                        out.iter_mut().zip(&projected[j][2][kv..]).for_each(|(o, v)| *o += weight * v);
                    }
                }
                let delta = self.multiply(&format!("blk.{layer}.attn_output.weight"), &attended);
                x.iter_mut().zip(delta).for_each(|(x, d)| *x += d);
                let h = self.norm(x, self.vector(&format!("blk.{layer}.ffn_norm.weight")).unwrap());
                let gate = self.multiply(&format!("blk.{layer}.ffn_gate.weight"), &h);
                let up = self.multiply(&format!("blk.{layer}.ffn_up.weight"), &h);
                let inner: Vec<f64> = gate.iter().zip(up).map(|(g, u)| g / (1.0 + (-g).exp()) * u).collect();
                let delta = self.multiply(&format!("blk.{layer}.ffn_down.weight"), &inner);
                x.iter_mut().zip(delta).for_each(|(x, d)| *x += d);
            }
        }
        let last = self.norm(&stream[tokens.len() - 1], self.vector("output_norm.weight").unwrap());
        let head =
            if self.tensors.contains_key("output.weight") { "output.weight" } else { "token_embd.weight" };
        self.multiply(head, &last)
    }
}
