//! Room `kernels`: bitwise-reproducible inference. Model files, tokenizer, chat template, the numerics of `specs/numerics.md`
//! on several instruction sets, the engine that runs jobs, and re-execution that checks them. No network, no money, no
//! other room; the only room where `unsafe` is allowed (SIMD, and memory that pool threads share by disjoint parts).
//!
//! The way of a job: [`prompt_ids`] -> [`JobSpec`] -> [`Engine::submit`] -> [`JobHandle::next`] -> [`verify()`].

#[cfg(test)]
mod allocation;
mod arena;
mod batch;
mod choice;
mod cuda;
mod digest;
mod dispute;
mod embed;
mod error;
mod forward;
mod gguf;
mod grammar;
mod job;
mod kv;
mod model;
#[cfg(test)]
mod naive;
mod numerics;
mod packed;
mod plausibility;
mod pool;
mod prefill;
mod pretokenizer;
mod quantize;
mod request;
mod rope;
mod sampling;
#[cfg(test)]
mod synthetic;
mod template;
mod tokenizer;
mod tools;
mod verify;

pub use batch::{Canceller, Engine, EngineMetrics, EngineOptions, EngineTuning, JobHandle};
pub use digest::merkle_root as kv_root;
pub use dispute::{Dispute, Operation, Trace, settle, trace};
pub use embed::{Embedding, embed};
pub use error::Error;
pub use grammar::check_format;
pub use job::{Finish, JobEvent, JobSpec, SamplingParams, TokenOut};
pub use model::{LoadOptions, Model};
pub use numerics::{Backend, NUMERICS_ID, order_cost};
pub use plausibility::{PLAUSIBILITY_TOKENS_MIN, Plausibility, plausibility};
pub use quantize::{QuantizeReport, QuantizeType, quantize};
pub use request::{Controls, JobRequest, OutputFormat};
pub use sampling::TokenLogprobs;
pub use template::{ChatMessage, ChatTemplate, prompt_ids, prompt_ids_with_tools};
pub use tokenizer::{Detokenizer, Tokenizer};
pub use tools::{ToolAnswer, ToolCall, ToolFormat};
pub use verify::{Claim, Finding, Level, NO_TOKEN, Verdict, verify, verify_job};
