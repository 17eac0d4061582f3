//! Byte-level byte-pair encoding, special tokens, and a decoder that never emits half a character. The vocabulary comes from
//! the model file. Nothing here knows about weights.

use crate::error::Error;
use crate::gguf::{Header, Source, Value};
use crate::pretokenizer::Pretokenizer;
use crate::template::ChatTemplate;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::sync::Arc;

/// Text to token ids and back. Cheap to clone: the vocabulary is shared.
#[derive(Clone)]
pub struct Tokenizer {
    vocabulary: Arc<Vocabulary>,
}

struct Vocabulary {
    pre: Pretokenizer,
    /// `llama-bpe` only: words that are one token, whatever the merges say.
    whole_words: HashMap<Box<[u8]>, u32>,
    /// Bytes of each token; empty for control tokens, which have no text.
    bytes: Vec<Box<[u8]>>,
    /// Token of a single byte, if the vocabulary has one.
    byte_tokens: [Option<u32>; 256],
    /// (left, right) -> (rank, merged token).
    merges: HashMap<(u32, u32), (u32, u32)>,
    /// Control and user-defined tokens with their text, longest first.
    specials: Vec<(String, u32)>,
    eos: u32,
    hash: [u8; 32],
}

/// A run of the text to encode: what [`Tokenizer::encode_with_special`] finds.
pub(crate) enum Piece {
    Plain(String),
    Special(u32),
}

impl Tokenizer {
    /// Tokenizer, template and model id (SHA-256 of the file) of a GGUF file. The weights are only hashed.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::MalformedModel`], [`Error::UnsupportedModel`].
    pub fn from_gguf(path: &Path) -> Result<(Tokenizer, ChatTemplate, [u8; 32]), Error> {
        let file = File::open(path).map_err(|e| Error::io(path, &e))?;
        let length = file.metadata().map_err(|e| Error::io(path, &e))?.len();
        let mut source = Source::new(BufReader::with_capacity(1 << 18, file), length);
        let header = Header::read(&mut source)?;
        let tokenizer = Tokenizer::from_header(&header)?;
        let template = ChatTemplate::from_header(&header)?;
        Ok((tokenizer, template, source.finish()?))
    }

    pub(crate) fn from_header(header: &Header) -> Result<Tokenizer, Error> {
        Ok(Tokenizer { vocabulary: Arc::new(Vocabulary::from_header(header)?) })
    }

    /// Token ids of plain text. Text that looks like a special token is *not* parsed as one: what a user writes can never
    /// become a control token. A byte without a token in the vocabulary is left out (as the reference tokeniser does).
    pub fn encode(&self, text: &str) -> Vec<u32> {
        let mut ids = Vec::with_capacity(text.len() / 3 + 1);
        self.vocabulary.pre.split(text, |word| self.vocabulary.encode_word(word.as_bytes(), &mut ids));
        ids
    }

    /// Token ids of trusted text, in which special tokens are written as text (a rendered template).
    pub fn encode_with_special(&self, text: &str) -> Vec<u32> {
        let mut ids = Vec::new();
        for piece in self.pieces(text) {
            match piece {
                Piece::Plain(plain) => ids.extend(self.encode(&plain)),
                Piece::Special(id) => ids.push(id),
            }
        }
        ids
    }

    /// A decoder for one stream of tokens. It owns what it needs and may cross `await` points and threads.
    pub fn decoder(&self) -> Detokenizer {
        Detokenizer { vocabulary: Arc::clone(&self.vocabulary), pending: Vec::new() }
    }

    /// Text of `ids`. Control tokens and unknown ids have no text; bytes that are not UTF-8 become U+FFFD.
    pub fn decode(&self, ids: &[u32]) -> String {
        let mut decoder = self.decoder();
        let mut text: String = ids.iter().map(|id| decoder.push(*id)).collect();
        text.push_str(&decoder.finish());
        text
    }

    /// Bytes of a token; none for control tokens and unknown ids.
    pub fn token_bytes(&self, id: u32) -> &[u8] {
        self.vocabulary.bytes.get(id as usize).map_or(&[], |bytes| bytes)
    }

    /// Number of tokens; ids are below it.
    pub fn vocabulary_size(&self) -> u32 {
        self.vocabulary.bytes.len() as u32
    }

    /// The token that ends an answer.
    pub fn eos(&self) -> u32 {
        self.vocabulary.eos
    }

    /// BLAKE3 over pre-tokeniser, tokens, types, merges and eos (`specs/numerics.md`, section L).
    pub fn hash(&self) -> [u8; 32] {
        self.vocabulary.hash
    }

    /// Splits trusted text at the special tokens written in it: leftmost first, the longest at one place.
    pub(crate) fn pieces(&self, text: &str) -> Vec<Piece> {
        let mut pieces = Vec::new();
        let mut plain = String::new();
        let mut rest = text;
        while let Some(next) = rest.chars().next() {
            match self.vocabulary.specials.iter().find(|(special, _)| rest.starts_with(special.as_str())) {
                Some((special, id)) => {
                    if !plain.is_empty() {
                        pieces.push(Piece::Plain(std::mem::take(&mut plain)));
                    }
                    pieces.push(Piece::Special(*id));
                    rest = &rest[special.len()..];
                }
                None => {
                    plain.push(next);
                    rest = &rest[next.len_utf8()..];
                }
            }
        }
        if !plain.is_empty() {
            pieces.push(Piece::Plain(plain));
        }
        pieces
    }
}

impl Vocabulary {
    fn from_header(header: &Header) -> Result<Vocabulary, Error> {
        let model = header.text("tokenizer.ggml.model")?;
        if model != "gpt2" {
            return Err(Error::unsupported(format!(
                "tokenizer {model}; this version reads gpt2 (byte-level BPE)"
            )));
        }
        let pre_name = header.text("tokenizer.ggml.pre")?;
        let pre = Pretokenizer::by_name(pre_name).ok_or_else(|| {
            Error::unsupported(format!(
                "pre-tokeniser {pre_name}; this version reads smollm, qwen2 and llama-bpe"
            ))
        })?;
        if header.flag("tokenizer.ggml.add_bos_token")? || header.flag("tokenizer.ggml.add_space_prefix")? {
            return Err(Error::unsupported("tokenizer with add_bos_token or add_space_prefix"));
        }
        let tokens = texts(header.list("tokenizer.ggml.tokens")?, "tokenizer.ggml.tokens")?;
        let types = token_types(header.list("tokenizer.ggml.token_type")?, tokens.len())?;
        let merge_texts = texts(header.list("tokenizer.ggml.merges")?, "tokenizer.ggml.merges")?;
        let eos = header.extent("tokenizer.ggml.eos_token_id", tokens.len() as u64 - 1)? as u32;
        let mut ids = HashMap::with_capacity(tokens.len());
        for (id, token) in tokens.iter().enumerate() {
            if ids.insert(*token, id as u32).is_some() {
                return Err(Error::malformed(0, format!("token {token:?} occurs twice in the vocabulary")));
            }
        }
        let hash = vocabulary_hash(pre_name, &tokens, &types, &merge_texts, eos);
        let mut vocabulary = Vocabulary {
            pre,
            whole_words: HashMap::new(),
            bytes: token_bytes(&tokens, &types)?,
            byte_tokens: [None; 256],
            merges: HashMap::with_capacity(merge_texts.len()),
            specials: Vec::new(),
            eos,
            hash,
        };
        vocabulary.index_bytes(&types);
        if pre == Pretokenizer::LlamaBpe {
            vocabulary.index_words(&types);
        }
        vocabulary.index_merges(&merge_texts, &ids, &types)?;
        vocabulary.specials = tokens
            .iter()
            .zip(&types)
            .enumerate()
            .filter(|(_, (_, kind))| **kind != NORMAL)
            .map(|(id, (token, _))| ((*token).to_owned(), id as u32))
            .filter(|(token, _)| !token.is_empty())
            .collect();
        vocabulary.specials.sort_by_key(|(token, _)| Reverse(token.len()));
        Ok(vocabulary)
    }

    fn index_bytes(&mut self, types: &[u8]) {
        for (id, (bytes, kind)) in self.bytes.iter().zip(types).enumerate() {
            if let ([byte], NORMAL) = (&bytes[..], *kind) {
                self.byte_tokens[*byte as usize] = Some(id as u32);
            }
        }
    }

    fn index_words(&mut self, types: &[u8]) {
        let normal = self.bytes.iter().zip(types).enumerate().filter(|(_, (_, kind))| **kind == NORMAL);
        self.whole_words = normal.map(|(id, (bytes, _))| (bytes.clone(), id as u32)).collect();
    }

    fn index_merges(&mut self, merges: &[&str], ids: &HashMap<&str, u32>, types: &[u8]) -> Result<(), Error> {
        for (rank, merge) in merges.iter().enumerate() {
            let normal = |token: &str| ids.get(token).copied().filter(|id| types[*id as usize] == NORMAL);
            let entry = merge.split_once(' ').and_then(|(left, right)| {
                Some(((normal(left)?, normal(right)?), normal(&format!("{left}{right}"))?))
            });
            let Some((pair, merged)) = entry else {
                return Err(Error::malformed(
                    0,
                    format!("merge {rank} ({merge:?}) does not join two tokens to a third"),
                ));
            };
            self.merges.entry(pair).or_insert((rank as u32, merged));
        }
        Ok(())
    }

    /// Appends the tokens of one word: repeatedly the merge of lowest rank, leftmost first. O(n log n).
    fn encode_word(&self, word: &[u8], out: &mut Vec<u32>) {
        if let Some(id) = self.whole_words.get(word) {
            out.push(*id);
            return;
        }
        let mut symbols: Vec<Symbol> = Vec::with_capacity(word.len());
        for id in word.iter().filter_map(|byte| self.byte_tokens[*byte as usize]) {
            let at = symbols.len();
            symbols.push(Symbol { id, previous: at.wrapping_sub(1), next: at + 1 });
        }
        let mut heap = BinaryHeap::new();
        for left in 0..symbols.len().saturating_sub(1) {
            self.propose(&symbols, left, &mut heap);
        }
        while let Some(Reverse((_, left, pair, merged))) = heap.pop() {
            let right = symbols[left].next;
            // A proposal is stale when one of its two symbols has been merged since.
            if symbols[left].id != pair.0 || right >= symbols.len() || symbols[right].id != pair.1 {
                continue;
            }
            let after = symbols[right].next;
            symbols[right].id = GONE;
            symbols[left] = Symbol { id: merged, next: after, ..symbols[left] };
            if after < symbols.len() {
                symbols[after].previous = left;
            }
            self.propose(&symbols, left, &mut heap);
            if symbols[left].previous < symbols.len() {
                self.propose(&symbols, symbols[left].previous, &mut heap);
            }
        }
        out.extend(symbols.iter().map(|s| s.id).filter(|id| *id != GONE));
    }

    fn propose(&self, symbols: &[Symbol], left: usize, heap: &mut BinaryHeap<Reverse<Proposal>>) {
        let right = symbols[left].next;
        if right < symbols.len() {
            let pair = (symbols[left].id, symbols[right].id);
            if let Some((rank, merged)) = self.merges.get(&pair) {
                heap.push(Reverse((*rank, left, pair, *merged)));
            }
        }
    }
}

/// Rank, index of the left symbol, the pair of ids, the merged id.
type Proposal = (u32, usize, (u32, u32), u32);

/// An id that no token has: the symbol was merged into its left neighbour.
const GONE: u32 = u32::MAX;

/// A link of the doubly linked list of a word's symbols; an index out of range means none.
#[derive(Clone, Copy)]
struct Symbol {
    id: u32,
    previous: usize,
    next: usize,
}

/// Token types as we keep them: an ordinary token, a token without text, a special token with text.
const NORMAL: u8 = 1;
const CONTROL: u8 = 3;
const USER_DEFINED: u8 = 4;

fn texts<'h>(list: &'h [Value], key: &str) -> Result<Vec<&'h str>, Error> {
    if list.is_empty() {
        return Err(Error::malformed(0, format!("metadata key {key} is an empty array")));
    }
    list.iter()
        .map(|v| match v {
            Value::Text(text) => Ok(text.as_str()),
            other => {
                Err(Error::malformed(0, format!("metadata key {key}: expected strings, found {other:?}")))
            }
        })
        .collect()
}

fn token_types(list: &[Value], token_count: usize) -> Result<Vec<u8>, Error> {
    if list.len() != token_count {
        return Err(Error::malformed(0, format!("{} token types for {token_count} tokens", list.len())));
    }
    list.iter()
        .map(|v| match v {
            Value::Integer(1) => Ok(NORMAL),
            // Unknown, control and unused tokens have no text of their own.
            Value::Integer(2 | 3 | 5) => Ok(CONTROL),
            Value::Integer(4) => Ok(USER_DEFINED),
            other => Err(Error::unsupported(format!("token type {other:?} in a byte-level vocabulary"))),
        })
        .collect()
}

/// The bytes behind each token, by the byte-to-character table of GPT-2.
fn token_bytes(tokens: &[&str], types: &[u8]) -> Result<Vec<Box<[u8]>>, Error> {
    let mut table = HashMap::new();
    let mut shifted = 256u32;
    for byte in 0..=255u8 {
        let code = if matches!(byte, 33..=126 | 161..=172 | 174..=255) {
            u32::from(byte)
        } else {
            shifted += 1;
            shifted - 1
        };
        table.extend(char::from_u32(code).map(|c| (c, byte)));
    }
    let decode = |token: &str| token.chars().map(|c| table.get(&c).copied()).collect::<Option<Box<[u8]>>>();
    tokens
        .iter()
        .zip(types)
        .map(|(token, kind)| match *kind {
            NORMAL => decode(token)
                .ok_or_else(|| Error::malformed(0, format!("token {token:?} is not in the byte alphabet"))),
            USER_DEFINED => Ok(token.as_bytes().into()),
            _ => Ok(Box::default()),
        })
        .collect()
}

fn vocabulary_hash(pre: &str, tokens: &[&str], types: &[u8], merges: &[&str], eos: u32) -> [u8; 32] {
    let mut hash = blake3::Hasher::new();
    let mut text = |text: &str| {
        hash.update(&(text.len() as u32).to_le_bytes());
        hash.update(text.as_bytes());
    };
    text("counterfoil/tokenizer/1");
    text(pre);
    tokens.iter().for_each(|token| text(token));
    merges.iter().for_each(|merge| text(merge));
    hash.update(types);
    hash.update(&eos.to_le_bytes());
    hash.update(&(tokens.len() as u32).to_le_bytes());
    hash.update(&(merges.len() as u32).to_le_bytes());
    hash.finalize().into()
}

/// Incremental decoder. Owned: keep it across `await`, move it between threads.
pub struct Detokenizer {
    vocabulary: Arc<Vocabulary>,
    /// At most three bytes: the beginning of a character whose rest has not come yet.
    pending: Vec<u8>,
}

impl Detokenizer {
    /// Text that `id` completes; empty while a character is incomplete, for control tokens and for unknown ids.
    pub fn push(&mut self, id: u32) -> String {
        if let Some(bytes) = self.vocabulary.bytes.get(id as usize) {
            self.pending.extend_from_slice(bytes);
        }
        self.take(false)
    }

    /// What is left at the end of the stream: U+FFFD for an incomplete character, else nothing.
    pub fn finish(&mut self) -> String {
        self.take(true)
    }

    fn take(&mut self, end: bool) -> String {
        let mut text = String::new();
        let mut rest = &self.pending[..];
        loop {
            match std::str::from_utf8(rest) {
                Ok(valid) => {
                    text.push_str(valid);
                    rest = &[];
                    break;
                }
                Err(error) => {
                    let (valid, after) = rest.split_at(error.valid_up_to());
                    text.push_str(std::str::from_utf8(valid).unwrap_or_default());
                    rest = after;
                    match error.error_len() {
                        Some(length) => rest = &rest[length..],
                        None if end => rest = &[],
                        None => break,
                    }
                    text.push(char::REPLACEMENT_CHARACTER);
                }
            }
        }
        self.pending = rest.to_vec();
        text
    }
}

#[cfg(test)]
mod tests;
