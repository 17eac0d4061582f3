//! Which tokens keep an output inside a JSON schema. A thin door to `llguidance`, pinned because its masks are part of the
//! numerics; nothing of it leaves this file.

use crate::error::Error;
use crate::model::Model;
use crate::request::{OutputFormat, SCHEMA_BYTES_MAX};
use crate::tokenizer::Tokenizer;
use llguidance::api::TopLevelGrammar;
use llguidance::toktrie::{ApproximateTokEnv, InferenceCapabilities, SimpleVob, TokEnv, TokRxInfo, TokTrie};
use llguidance::{Matcher, ParserFactory};
use std::sync::Arc;

/// The vocabulary as the grammar engine wants it; made once a model, when a job first needs it.
pub(crate) struct GrammarVocabulary(TokEnv);

/// A grammar somewhere inside an output.
pub(crate) struct Grammar {
    matcher: Matcher,
    mask: Option<SimpleVob>,
}

impl GrammarVocabulary {
    /// Control tokens can never be part of an output's text; the model's end token ends it.
    pub(crate) fn new(tokenizer: &Tokenizer) -> GrammarVocabulary {
        let count = tokenizer.vocabulary_size();
        let word = |id: u32| match tokenizer.token_bytes(id) {
            // 0xFF marks a token that is no text.
            [] => [&[0xffu8][..], format!("[{id}]").as_bytes()].concat(),
            bytes => bytes.to_vec(),
        };
        let words: Vec<Vec<u8>> = (0..count).map(word).collect();
        let trie = TokTrie::from(&TokRxInfo::new(count, tokenizer.eos()), &words);
        GrammarVocabulary(Arc::new(ApproximateTokEnv::new(trie)))
    }
}

impl Grammar {
    /// The grammar of a format; None for text.
    ///
    /// # Errors
    /// [`Error::InvalidJob`] for a schema that is not JSON or uses what is not supported.
    pub(crate) fn new(model: &Model, format: &OutputFormat) -> Result<Option<Grammar>, Error> {
        match schema_of(format) {
            None => Ok(None),
            Some(schema) => Grammar::over(&model.grammar_vocabulary().0, schema).map(Some),
        }
    }

    fn over(vocabulary: &TokEnv, schema: &str) -> Result<Grammar, Error> {
        let refuse = |e: &dyn std::fmt::Display| {
            let detail: String = e.to_string().chars().take(300).collect();
            Error::InvalidJob { what: format!("JSON schema: {detail}") }
        };
        let mut schema: serde_json::Value = serde_json::from_str(schema).map_err(|e| refuse(&e))?;
        if let Some(fields) = schema.as_object_mut() {
            // No freedom of white space: a small model would fill its tokens with it. Not the client's to change either.
            fields.insert("x-guidance".to_owned(), serde_json::json!({"whitespace_flexible": false}));
        }
        let factory = ParserFactory::new(vocabulary, InferenceCapabilities::default(), &[]);
        let mut factory = factory.map_err(|e| refuse(&e))?;
        factory.quiet();
        let parser =
            factory.create_parser(TopLevelGrammar::from_json_schema(schema)).map_err(|e| refuse(&e))?;
        Ok(Grammar { matcher: Matcher::new(Ok(parser)), mask: None })
    }

    /// The tokens that may come next; never empty.
    pub(crate) fn allowed(&mut self) -> Result<&SimpleVob, Error> {
        let mask = self.matcher.compute_mask_or_eos().map_err(|e| failed(&e))?;
        Ok(self.mask.insert(mask))
    }

    /// Goes on by a token that was allowed.
    pub(crate) fn push(&mut self, id: u32) -> Result<(), Error> {
        self.matcher.consume_token(id).map_err(|e| failed(&e))
    }
}

fn schema_of(format: &OutputFormat) -> Option<&str> {
    match format {
        OutputFormat::Text => None,
        OutputFormat::JsonObject => Some(r#"{"type":"object"}"#),
        OutputFormat::JsonSchema(schema) => Some(schema),
    }
}

/// Whether jobs can be held to this format, whatever their model: for those who take jobs in and have no model.
///
/// # Errors
/// [`Error::InvalidJob`] for a schema that is not JSON, is too large or uses what is not supported.
pub fn check_format(format: &OutputFormat) -> Result<(), Error> {
    let Some(schema) = schema_of(format) else { return Ok(()) };
    if schema.len() > SCHEMA_BYTES_MAX {
        let what = format!("schema of {} bytes, at most {SCHEMA_BYTES_MAX}", schema.len());
        return Err(Error::InvalidJob { what });
    }
    Grammar::over(&ApproximateTokEnv::single_byte_env(), schema).map(drop)
}

fn failed(error: &dyn std::fmt::Display) -> Error {
    Error::Grammar { detail: error.to_string().chars().take(300).collect() }
}
