"""Writes small model files with the `gguf` package, and what a decoder in numpy's f64 makes of them.

write_models.py DIRECTORY: for each case DIRECTORY/<case>.gguf and <case>.json {"kind", "tokens", "logits"}.
Shares no code with `kernels`: file layout, quantising and dequantising are the package's, the decoder is below.
"""

import json
import sys
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType as Q
from gguf import GGUFWriter, quants

TOKENS = [(i * 37 + 11) % 256 for i in range(70)]
HEADS, KV_HEADS, LAYERS = 4, 2, 2
ARCHITECTURES = {"llama": "llama-bpe", "qwen2": "qwen2", "qwen3": "qwen2"}


def alphabet():
    """The 256 byte tokens of GPT-2, two control tokens, three merged ones."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    shifted = iter(range(256, 512))
    tokens = [chr(b) if b in plain else chr(next(shifted)) for b in range(256)]
    return tokens + ["<|im_start|>", "<|im_end|>", "\u0120t", "he", "\u0120the"]


def matrix(random, kind, rows, columns):
    """Bytes as the file holds them, and their values in f64."""
    if kind in (Q.Q4_K, Q.Q6_K):
        # The package reads these types but does not write them: random blocks.
        elements, size = (256, 144) if kind == Q.Q4_K else (256, 210)
        raw = random.integers(0, 256, (rows, columns // elements, size), dtype=np.uint8)
        scale = lambda low: np.full((rows, columns // elements, 1), low, np.float16).view(np.uint8)
        if kind == Q.Q4_K:
            raw[..., 0:2], raw[..., 2:4] = scale(0.0012), scale(0.009)
        else:
            raw[..., 208:210] = scale(0.0001)
        raw = raw.reshape(rows, -1)
    else:
        values = (random.standard_normal((rows, columns)) * 0.15).astype(np.float32)
        raw = quants.quantize(values, kind)
    return raw, quants.dequantize(raw, kind).astype(np.float64)


def tensors(random, architecture, kind, separate_head):
    width, inner = (256, 512) if kind in (Q.Q4_K, Q.Q6_K) else (64, 96)
    head = 2 * width // HEADS if architecture == "qwen3" else width // HEADS
    table = Q.Q6_K if kind == Q.Q4_K else kind
    shapes = {"token_embd.weight": (261, width, table)}
    if separate_head:
        shapes["output.weight"] = (261, width, table)
    vectors = {"output_norm.weight": width}
    if architecture == "llama":
        vectors["rope_freqs.weight"] = head // 2
    for layer in range(LAYERS):
        for name, rows, columns in [
            ("attn_q", HEADS * head, width), ("attn_k", KV_HEADS * head, width), ("attn_v", KV_HEADS * head, width),
            ("attn_output", width, HEADS * head), ("ffn_gate", inner, width), ("ffn_up", inner, width),
            ("ffn_down", width, inner),
        ]:
            shapes[f"blk.{layer}.{name}.weight"] = (rows, columns, kind)
            if architecture == "qwen2" and name in ("attn_q", "attn_k", "attn_v"):
                vectors[f"blk.{layer}.{name}.bias"] = rows
        vectors |= {f"blk.{layer}.{name}.weight": width for name in ("attn_norm", "ffn_norm")}
        if architecture == "qwen3":
            vectors |= {f"blk.{layer}.attn_{x}_norm.weight": head for x in "qk"}
    made = {name: (*matrix(random, kind, rows, columns), kind) for name, (rows, columns, kind) in shapes.items()}
    for name, count in vectors.items():
        values = (1 + 0.1 * random.standard_normal(count)).astype(np.float32)
        if name == "rope_freqs.weight":
            values = (1 + 7 * random.random(count)).astype(np.float32)
        made[name] = (values, values.astype(np.float64), Q.F32)
    return made, width, inner, head


def write(path, architecture, made, width, inner, head):
    writer = GGUFWriter(path, architecture)
    writer.add_name("foreign")
    writer.add_block_count(LAYERS)
    writer.add_context_length(256)
    writer.add_embedding_length(width)
    writer.add_feed_forward_length(inner)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_key_length(head)
    writer.add_value_length(head)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(500000.0)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(ARCHITECTURES[architecture])
    writer.add_token_list(alphabet())
    writer.add_token_types([3 if i in (256, 257) else 1 for i in range(261)])
    writer.add_token_merges(["\u0120 t", "h e", "\u0120t he"])
    writer.add_bos_token_id(256)
    writer.add_eos_token_id(257)
    writer.add_chat_template("{{ bos_token }}{% for m in messages %}{{ m['content'] + eos_token }}{% endfor %}")
    for name, (raw, _, kind) in made.items():
        writer.add_tensor(name, raw, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def logits(made, architecture, head):
    w = {name: values for name, (_, values, _) in made.items()}
    norm = lambda x, gain: x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-6) * gain
    frequencies = 500000.0 ** (-2 * np.arange(head // 2) / head) / w.get("rope_freqs.weight", 1.0)
    angles = np.outer(np.arange(len(TOKENS)), frequencies)[:, None, :]

    def rotate(x):
        pairs = np.split(x, 2, -1) if architecture != "llama" else (x[..., 0::2], x[..., 1::2])
        a, b = pairs[0] * np.cos(angles) - pairs[1] * np.sin(angles), pairs[0] * np.sin(angles) + pairs[1] * np.cos(angles)
        return np.concatenate((a, b), -1) if architecture != "llama" else np.stack((a, b), -1).reshape(x.shape)

    x = w["token_embd.weight"][TOKENS]
    mask = np.triu(np.full((len(TOKENS),) * 2, -np.inf), 1)
    for layer in range(LAYERS):
        part = lambda name, kind="weight": w.get(f"blk.{layer}.{name}.{kind}")
        h = norm(x, part("attn_norm"))
        q, k, v = ((h @ part(f"attn_{n}").T + (0 if part(f"attn_{n}", "bias") is None else part(f"attn_{n}", "bias")))
                   .reshape(len(TOKENS), -1, head) for n in "qkv")
        if architecture == "qwen3":
            q, k = norm(q, part("attn_q_norm")), norm(k, part("attn_k_norm"))
        q, k = rotate(q), np.repeat(rotate(k), HEADS // KV_HEADS, 1)
        scores = np.einsum("ihd,jhd->hij", q, k) / np.sqrt(head) + mask
        p = np.exp(scores - scores.max(-1, keepdims=True))
        p /= p.sum(-1, keepdims=True)
        attended = np.einsum("hij,jhd->ihd", p, np.repeat(v, HEADS // KV_HEADS, 1)).reshape(len(TOKENS), -1)
        x = x + attended @ part("attn_output").T
        h = norm(x, part("ffn_norm"))
        gate = h @ part("ffn_gate").T
        x = x + (gate / (1 + np.exp(-gate)) * (h @ part("ffn_up").T)) @ part("ffn_down").T
    return norm(x[-1], w["output_norm.weight"]) @ w.get("output.weight", w["token_embd.weight"]).T


def main():
    directory = Path(sys.argv[1])
    random = np.random.default_rng(5)
    kinds = [Q.F32, Q.F16, Q.BF16, Q.Q4_0, Q.Q4_1, Q.Q8_0, Q.Q4_K, Q.Q6_K]
    for index, kind in enumerate(kinds):
        for architecture in ARCHITECTURES:
            made, width, inner, head = tensors(random, architecture, kind, index % 2 == 0)
            case = directory / f"{architecture}_{kind.name}"
            write(case.with_suffix(".gguf"), architecture, made, width, inner, head)
            result = {"kind": kind.name, "tokens": TOKENS, "logits": logits(made, architecture, head).tolist()}
            case.with_suffix(".json").write_text(json.dumps(result))


if __name__ == "__main__":
    main()
