//! Our tokenizer beside Hugging Face's, fed with the vocabulary of the fetched model, for each pre-tokeniser that the loader
//! knows. The corpus is made here, from a seed.

use super::*;
use serde_json::json;
use std::path::PathBuf;
use std::str::FromStr;

/// Texts of one pre-tokeniser, and pieces of a text at most.
const TEXTS: usize = 6_000;
const PIECES_MAX: u64 = 40;

/// Blocks of characters of many scripts: letters, marks, digits, spaces, signs, joiners.
const BLOCKS: [(u32, u32); 26] = [
    (0x20, 0x7e),
    (0x61, 0x7a),
    (0x30, 0x39),
    (0xa0, 0x17f),
    (0x300, 0x36f),
    (0x370, 0x3ff),
    (0x400, 0x4ff),
    (0x5d0, 0x5ea),
    (0x600, 0x6ff),
    (0x900, 0x97f),
    (0xe00, 0xe5b),
    (0x10a0, 0x10ff),
    (0x1e00, 0x1eff),
    (0x2000, 0x206f),
    (0x2150, 0x218b),
    (0x2200, 0x22ff),
    (0x3000, 0x30ff),
    (0x4e00, 0x9fff),
    (0xac00, 0xd7a3),
    (0xe000, 0xe0ff),
    (0xfe00, 0xfe0f),
    (0xff01, 0xff5e),
    (0x1d400, 0x1d7ff),
    (0x1f300, 0x1faff),
    (0x1f1e6, 0x1f1ff),
    (0x20000, 0x2a6df),
];
const FRAGMENTS: [&str; 20] = [
    " ",
    "  ",
    "\n",
    "\r\n",
    "\n\n  ",
    "\t",
    "'s",
    "'LL",
    "n't",
    "1984",
    "3.14159",
    "http://",
    "<|im_start|>",
    "\u{200d}",
    "\u{a0}",
    "\u{85}",
    "\u{0}",
    "e\u{301}",
    "👩‍👩‍👧",
    "٣٤٥",
];

/// xorshift64*: the corpus is the same on every machine.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) % bound
    }

    fn text(&mut self, tokenizer: &Tokenizer) -> String {
        let mut text = String::new();
        for _ in 0..self.below(PIECES_MAX) {
            match self.below(4) {
                // Words as the vocabulary has them, so that merges are met.
                0 | 1 => {
                    let id = self.below(u64::from(tokenizer.vocabulary_size())) as u32;
                    text.extend(std::str::from_utf8(tokenizer.token_bytes(id)).ok());
                }
                2 => text.push_str(FRAGMENTS[self.below(FRAGMENTS.len() as u64) as usize]),
                _ => {
                    let (first, last) = BLOCKS[self.below(BLOCKS.len() as u64) as usize];
                    for _ in 0..=self.below(8) {
                        let code = first + self.below(u64::from(last - first + 1)) as u32;
                        text.extend(char::from_u32(code));
                    }
                }
            }
        }
        text
    }
}

fn header() -> Header {
    let path = std::env::var_os("COUNTERFOIL_MODEL").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../.tools/models/SmolLM2-135M-Instruct.Q4_1.gguf"),
        PathBuf::from,
    );
    let file =
        File::open(&path).unwrap_or_else(|_| panic!("no model at {}: run cargo xtask tools", path.display()));
    let length = file.metadata().unwrap().len();
    Header::read(&mut Source::new(BufReader::new(file), length)).unwrap()
}

/// What Hugging Face's `tokenizer.json` of such a model says.
fn foreign(header: &Header, pre: &str) -> tokenizers::Tokenizer {
    let byte_level = |regex: bool| json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": regex });
    let split = |digits: &str| {
        let expression = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}DIGITS| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
        let pattern = json!({ "Regex": expression.replace("DIGITS", digits) });
        json!({ "type": "Split", "pattern": pattern, "behavior": "Isolated", "invert": false })
    };
    let steps = match pre {
        "smollm" => json!([{ "type": "Digits", "individual_digits": true }, byte_level(true)]),
        "qwen2" => json!([split(""), byte_level(false)]),
        _ => json!([split("{1,3}"), byte_level(false)]),
    };
    let tokens = texts(header.list("tokenizer.ggml.tokens").unwrap(), "tokens").unwrap();
    let vocabulary: HashMap<&str, usize> =
        tokens.into_iter().enumerate().map(|(id, token)| (token, id)).collect();
    let merges = texts(header.list("tokenizer.ggml.merges").unwrap(), "merges").unwrap();
    let file = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": { "type": "Sequence", "pretokenizers": steps },
        "post_processor": null,
        "decoder": byte_level(true),
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
            "ignore_merges": pre == "llama-bpe", "vocab": vocabulary, "merges": merges,
        },
    });
    tokenizers::Tokenizer::from_str(&file.to_string()).unwrap()
}

fn check(pre: &str, seed: u64) {
    let mut header = header();
    header.metadata.insert("tokenizer.ggml.pre".to_owned(), Value::Text(pre.to_owned()));
    let (ours, theirs) = (Tokenizer::from_header(&header).unwrap(), foreign(&header, pre));
    let mut random = Random(seed);
    let (mut bytes, mut tokens) = (0, 0);
    for number in 0..TEXTS {
        let text = random.text(&ours);
        let ids = ours.encode(&text);
        let expected = theirs.encode(text.as_str(), false).unwrap();
        assert_eq!(ids, expected.get_ids(), "text {number}: {text:?}");
        assert_eq!(ours.decode(&ids), theirs.decode(&ids, false).unwrap(), "text {number}: {text:?}");
        check_pieces(&ours, &ids, &text);
        bytes += text.len();
        tokens += ids.len();
    }
    assert!(bytes > 500_000 && tokens > 200_000, "the corpus is too small: {bytes} bytes, {tokens} tokens");
}

/// What the incremental decoder says token by token is the text, and no piece ends inside a character.
fn check_pieces(tokenizer: &Tokenizer, ids: &[u32], text: &str) {
    let mut decoder = tokenizer.decoder();
    let mut so_far = String::new();
    for id in ids {
        so_far.push_str(&decoder.push(*id));
        assert!(text.starts_with(&so_far), "{so_far:?} of {text:?}");
    }
    assert_eq!(decoder.finish(), "", "{text:?}");
    assert_eq!(so_far, text);
}

#[test]
fn smollm_equals_the_foreign_tokenizer() {
    check("smollm", 0x5eed_0001);
}

#[test]
fn qwen2_equals_the_foreign_tokenizer() {
    check("qwen2", 0x5eed_0002);
}

#[test]
fn llama_bpe_equals_the_foreign_tokenizer() {
    check("llama-bpe", 0x5eed_0003);
}

/// Tokens in any order, so bytes that are no UTF-8: the pieces together are the foreign decoder's text.
#[test]
fn any_tokens_decode_as_elsewhere() {
    let header = header();
    let (ours, theirs) = (Tokenizer::from_header(&header).unwrap(), foreign(&header, "smollm"));
    let partial: Vec<u32> = (0..ours.vocabulary_size())
        .filter(|id| std::str::from_utf8(ours.token_bytes(*id)).is_err())
        .collect();
    assert!(partial.len() > 100, "half characters are what this test is about: {}", partial.len());
    let mut random = Random(0x5eed_0004);
    for _ in 0..2_000 {
        let ids: Vec<u32> = (0..random.below(30))
            .map(|_| match random.below(3) {
                0 => 17 + random.below(u64::from(ours.vocabulary_size() - 17)) as u32,
                _ => partial[random.below(partial.len() as u64) as usize],
            })
            .collect();
        let mut decoder = ours.decoder();
        let mut text: String = ids.iter().map(|id| decoder.push(*id)).collect();
        text.push_str(&decoder.finish());
        assert_eq!(text, theirs.decode(&ids, false).unwrap(), "{ids:?}");
    }
}
