"""Tokens per second of llama.cpp: MODEL THREADS PREFILL DECODE RUNS. The work of its own llama-bench: one prompt in one
batch, then one token at a time after an empty context, without sampling. Prints one JSON object of medians."""

import json
import statistics
import sys
import time

import llama_cpp as llama

path, threads, prefill, decode, runs = sys.argv[1], *map(int, sys.argv[2:6])

quiet = llama.llama_log_callback(lambda level, text, data: None)
llama.llama_log_set(quiet, None)
llama.llama_backend_init()
model = llama.llama_model_load_from_file(path.encode(), llama.llama_model_default_params())
params = llama.llama_context_default_params()
params.n_ctx, params.n_batch, params.n_ubatch = 1024, 512, 512
params.n_threads = params.n_threads_batch = threads
context = llama.llama_init_from_model(model, params)
if not context:
    sys.exit(f"llama.cpp cannot open {path}")
vocabulary = llama.llama_vocab_n_tokens(llama.llama_model_get_vocab(model))


def run(tokens):
    """Runs these tokens in one batch and waits for the result."""
    array = (llama.llama_token * len(tokens))(*tokens)
    if llama.llama_decode(context, llama.llama_batch_get_one(array, len(tokens))) != 0:
        sys.exit("llama_decode failed")
    llama.llama_synchronize(context)


def seconds(batches):
    """Seconds of these batches after an empty context."""
    llama.llama_memory_clear(llama.llama_get_memory(context), True)
    started = time.perf_counter()
    for batch in batches:
        run(batch)
    return time.perf_counter() - started


def token(index):
    return 32 + index * 7919 % (vocabulary - 64)


prompt = [[token(i) for i in range(prefill)]]
single = [[token(i)] for i in range(decode)]
seconds(single[:4])
prefills, decodes = [], []
for _ in range(runs):
    prefills.append(prefill / seconds(prompt))
    decodes.append(decode / seconds(single))
print(
    json.dumps(
        {
            "version": llama.__version__,
            "prefill": statistics.median(prefills),
            "decode": statistics.median(decodes),
        }
    )
)
