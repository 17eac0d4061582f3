//! A model file of a few kilobytes with every field that the loader reads: what the loader's and the tokenizer's targets
//! begin with. Must not: be a model that says anything.

const WIDTH: u64 = 32;
const VOCABULARY: u32 = 259;
/// GGUF's code of Q8_0, and of F32.
const Q8_0: u32 = 8;
const F32: u32 = 0;

fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat()
}

fn number(key: &str, value: u32) -> Vec<u8> {
    [text(key), 4u32.to_le_bytes().to_vec(), value.to_le_bytes().to_vec()].concat()
}

fn string(key: &str, value: &str) -> Vec<u8> {
    [text(key), 8u32.to_le_bytes().to_vec(), text(value)].concat()
}

fn list(key: &str, element: u32, count: usize, body: Vec<u8>) -> Vec<u8> {
    let head = [text(key), 9u32.to_le_bytes().to_vec(), element.to_le_bytes().to_vec()].concat();
    [head, (count as u64).to_le_bytes().to_vec(), body].concat()
}

/// The byte alphabet of GPT-2, two control tokens, one merge.
fn tokens() -> Vec<String> {
    let mut shifted = 256;
    let letter = |byte: u32| {
        let shown = matches!(byte, 33..=126 | 161..=172 | 174..=255);
        let code = if shown {
            byte
        } else {
            shifted += 1;
            shifted - 1
        };
        char::from_u32(code).expect("below the surrogates").to_string()
    };
    let mut tokens: Vec<String> = (0..256).map(letter).collect();
    tokens.extend(["<|im_start|>", "<|im_end|>", "he"].map(str::to_owned));
    tokens
}

fn pairs() -> Vec<Vec<u8>> {
    let tokens = tokens();
    let types = (0..VOCABULARY).flat_map(|id| if id == 256 || id == 257 { 3i32 } else { 1 }.to_le_bytes());
    vec![
        string("general.architecture", "llama"),
        string("general.name", "fuzz"),
        number("llama.block_count", 1),
        number("llama.context_length", 64),
        number("llama.embedding_length", WIDTH as u32),
        number("llama.feed_forward_length", WIDTH as u32),
        number("llama.attention.head_count", 2),
        number("llama.attention.head_count_kv", 1),
        string("tokenizer.ggml.model", "gpt2"),
        string("tokenizer.ggml.pre", "smollm"),
        list("tokenizer.ggml.tokens", 8, tokens.len(), tokens.iter().flat_map(|token| text(token)).collect()),
        list("tokenizer.ggml.token_type", 5, tokens.len(), types.collect()),
        list("tokenizer.ggml.merges", 8, 1, text("h e")),
        number("tokenizer.ggml.eos_token_id", 257),
        string(
            "tokenizer.chat_template",
            "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>' }}{% endfor %}<|im_start|>",
        ),
    ]
}

fn tensors() -> Vec<(&'static str, u64, u64, u32)> {
    vec![
        ("token_embd.weight", u64::from(VOCABULARY), WIDTH, Q8_0),
        ("blk.0.attn_norm.weight", 1, WIDTH, F32),
        ("blk.0.attn_q.weight", WIDTH, WIDTH, Q8_0),
        ("blk.0.attn_k.weight", WIDTH / 2, WIDTH, Q8_0),
        ("blk.0.attn_v.weight", WIDTH / 2, WIDTH, Q8_0),
        ("blk.0.attn_output.weight", WIDTH, WIDTH, Q8_0),
        ("blk.0.ffn_norm.weight", 1, WIDTH, F32),
        ("blk.0.ffn_gate.weight", WIDTH, WIDTH, Q8_0),
        ("blk.0.ffn_up.weight", WIDTH, WIDTH, Q8_0),
        ("blk.0.ffn_down.weight", WIDTH, WIDTH, Q8_0),
        ("output_norm.weight", 1, WIDTH, F32),
    ]
}

/// The file.
pub fn file() -> Vec<u8> {
    let (tensors, pairs) = (tensors(), pairs());
    let mut file = b"GGUF".to_vec();
    file.extend(3u32.to_le_bytes());
    file.extend((tensors.len() as u64).to_le_bytes());
    file.extend((pairs.len() as u64).to_le_bytes());
    file.extend(pairs.concat());
    let mut data: Vec<u8> = Vec::new();
    for (name, rows, columns, kind) in tensors {
        file.extend(text(name));
        file.extend(2u32.to_le_bytes());
        file.extend(columns.to_le_bytes());
        file.extend(rows.to_le_bytes());
        file.extend(kind.to_le_bytes());
        file.extend((data.len() as u64).to_le_bytes());
        let elements = (rows * columns) as usize;
        match kind {
            F32 => data.extend(std::iter::repeat_n(1f32.to_le_bytes(), elements).flatten()),
            // A block of 32: a scale of 2^-8 in half precision, then the numbers.
            _ => (0..elements / 32).for_each(|block| {
                data.extend([0x00, 0x1c]);
                data.extend((0..32u8).map(|k| k.wrapping_mul(7).wrapping_add(block as u8)));
            }),
        }
        data.resize(data.len().next_multiple_of(32), 0);
    }
    file.resize(file.len().next_multiple_of(32), 0);
    file.extend(data);
    file
}
