//! The operator's configuration file: what `--config FILE` holds. The binary parses the TOML; secrets are in files that
//! it names.

use crate::backend::openai::{OpenAiOptions, read_key};
use crate::error::WorkerError;
use crate::keys::{OperatorKey, refuse_readable_by_others};
use crate::worker::{BackendOptions, ModelOptions, NodeOptions, WorkerOptions};
use protocol::id::{Hash32, NodeId};
use serde::{Deserialize, Serialize};
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// The file. Relative paths count from its own directory.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkerConfig {
    /// `nats://HOST:PORT`, several separated by commas.
    pub nats_url: String,
    /// The operator's user seed (`SU...`), readable by its owner only.
    pub operator_seed_file: PathBuf,
    /// The user JWT that registration gave.
    pub operator_jwt_file: PathBuf,
    /// Node keys and receipts not yet acknowledged. Default `worker-data`.
    #[serde(default = "default_data_dir")]
    pub data_dir: PathBuf,
    /// Threads that compute, for each model file. Default: one for each core.
    #[serde(default = "default_threads")]
    pub threads: u32,
    /// Loopback address of `/metrics`, `/healthz` and `/readyz`, as `127.0.0.1:9464`. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metrics: Option<SocketAddr>,
    /// At least one.
    pub nodes: Vec<NodeConfig>,
}

/// One node of the operator.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeConfig {
    /// Its id from registration.
    pub id: NodeId,
    /// Jobs at once. Default 4.
    #[serde(default = "default_slots")]
    pub slots: u32,
    /// At least one.
    pub models: Vec<ModelConfig>,
}

/// One model and what runs it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "backend", rename_all = "snake_case", deny_unknown_fields)]
pub enum ModelConfig {
    /// Our kernels: re-executable receipts.
    Builtin {
        /// Its name on the rate card.
        name: String,
        /// The GGUF file.
        path: PathBuf,
    },
    /// An OpenAI-compatible server (vLLM, llama.cpp, Ollama): attested receipts.
    #[serde(rename = "openai")]
    OpenAi {
        /// Its name on the rate card.
        name: String,
        /// Base URL with `/v1`.
        url: String,
        /// Its name at the server; the same when left out.
        model: Option<String>,
        /// File with the server's bearer key, if it wants one.
        api_key_file: Option<PathBuf>,
        /// GGUF file with the tokenizer that the rate card pins: outputs are counted with it.
        tokenizer: PathBuf,
        /// SHA-256 of the weights on the rate card; of that file when left out.
        weights: Option<Hash32>,
    },
}

fn default_data_dir() -> PathBuf {
    "worker-data".into()
}

fn default_slots() -> u32 {
    4
}

fn default_threads() -> u32 {
    std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(1))
}

impl WorkerConfig {
    /// Reads the files it names; `config_dir` is the directory of the configuration file.
    ///
    /// # Errors
    /// [`WorkerError::File`], [`WorkerError::Seed`], [`WorkerError::Options`].
    pub fn options(&self, config_dir: &Path) -> Result<WorkerOptions, WorkerError> {
        let read = |path: &Path| {
            let path = config_dir.join(path);
            fs::read_to_string(&path).map_err(|e| WorkerError::file(&path, e))
        };
        let seed_file = config_dir.join(&self.operator_seed_file);
        if seed_file.exists() {
            refuse_readable_by_others(&seed_file)?;
        }
        let node = |node: &NodeConfig| -> Result<NodeOptions, WorkerError> {
            let models = node.models.iter().map(|model| model.options(config_dir));
            Ok(NodeOptions { id: node.id, slots: node.slots, models: models.collect::<Result<_, _>>()? })
        };
        let options = WorkerOptions {
            nats_url: self.nats_url.clone(),
            operator_key: OperatorKey::from_seed(&read(&self.operator_seed_file)?)?,
            operator_jwt: read(&self.operator_jwt_file)?.trim().to_owned(),
            data_dir: config_dir.join(&self.data_dir),
            nodes: self.nodes.iter().map(node).collect::<Result<_, _>>()?,
            threads: self.threads,
            metrics: self.metrics,
        };
        crate::worker::check(&options)?;
        Ok(options)
    }
}

impl ModelConfig {
    fn options(&self, config_dir: &Path) -> Result<ModelOptions, WorkerError> {
        let (name, backend) = match self {
            ModelConfig::Builtin { name, path } => {
                (name, BackendOptions::Builtin { path: config_dir.join(path) })
            }
            ModelConfig::OpenAi { name, url, model, api_key_file, tokenizer, weights } => {
                if !(url.starts_with("http://") || url.starts_with("https://")) {
                    let text =
                        format!("model {name}: url must begin with http:// or https://, found {url:?}");
                    return Err(WorkerError::Options(text));
                }
                let api_key = api_key_file.as_ref().map(|file| {
                    let file = config_dir.join(file);
                    if file.exists() {
                        refuse_readable_by_others(&file)?;
                    }
                    read_key(&file)
                });
                let options = OpenAiOptions {
                    url: url.clone(),
                    model: model.clone().unwrap_or_else(|| name.clone()),
                    api_key: api_key.transpose()?,
                    tokenizer: config_dir.join(tokenizer),
                    weights: *weights,
                };
                (name, BackendOptions::OpenAi(options))
            }
        };
        Ok(ModelOptions { name: name.clone(), backend })
    }
}

#[cfg(test)]
mod tests;
