"""One measurement of llama.cpp through llama-cpp-python's C functions. Prints one JSON object; the keys are those of `ttt bench --json`."""

import argparse
import ctypes
import json
import sys
import time

import llama_cpp as api

KV_TYPES = {"bf16": 30, "f16": 1}  # of ggml_type, which the package names only in part


def parse():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    for name in ("prompt-tokens", "new-tokens", "batch", "threads"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--kv", choices=KV_TYPES, default="bf16")
    return parser.parse_args()


class Batch:
    """Rows of one step: (token, position, sequence, wants logits)."""

    def __init__(self, capacity):
        self.raw = api.llama_batch_init(capacity, 0, 1)

    def set(self, rows):
        self.raw.n_tokens = len(rows)
        for i, (token, position, sequence, logits) in enumerate(rows):
            self.raw.token[i], self.raw.pos[i], self.raw.n_seq_id[i] = token, position, 1
            self.raw.seq_id[i][0], self.raw.logits[i] = sequence, logits
        return self.raw


def main():
    arguments = parse()
    quiet = api.llama_log_callback(lambda level, text, data: None)
    api.llama_log_set(quiet, None)
    api.llama_backend_init()
    begin = time.perf_counter()
    model = api.llama_model_load_from_file(arguments.model.encode(), api.llama_model_default_params())
    users, length = arguments.batch, arguments.prompt_tokens + arguments.new_tokens
    parameters = api.llama_context_default_params()
    parameters.n_ctx = users * ((length + 31) // 32 * 32)
    parameters.n_batch = parameters.n_ubatch = 512
    parameters.n_seq_max = users
    parameters.n_threads = parameters.n_threads_batch = arguments.threads
    parameters.type_k = parameters.type_v = KV_TYPES[arguments.kv]
    parameters.no_perf = True
    context = api.llama_init_from_model(model, parameters) if model else None
    if not context:
        sys.exit(f"error: llama.cpp could not load {arguments.model}")
    load_seconds = time.perf_counter() - begin
    memory = api.llama_get_memory(context)
    greedy = api.llama_sampler_init_greedy()
    vocab = api.llama_vocab_n_tokens(api.llama_model_get_vocab(model))
    batch = Batch(512)
    prompts = [[(i * 7919 + u * 104729 + 17) % vocab for i in range(arguments.prompt_tokens)] for u in range(users)]
    latest = [0] * users

    def decode(rows):
        if api.llama_decode(context, batch.set(rows)) != 0:
            sys.exit("error: llama_decode failed")

    def prefill(user):
        prompt = prompts[user]
        for at in range(0, len(prompt), 512):
            rows = [(token, at + i, user, at + i + 1 == len(prompt)) for i, token in enumerate(prompt[at : at + 512])]
            decode(rows)
        latest[user] = api.llama_sampler_sample(greedy, context, len(rows) - 1)

    def step(position):
        decode([(latest[user], position, user, True) for user in range(users)])
        for user in range(users):
            latest[user] = api.llama_sampler_sample(greedy, context, user)

    first = time.perf_counter()
    prefill(0)
    start_seconds = load_seconds + time.perf_counter() - first
    times_first, times_step = [], []
    for _ in range(arguments.repeats):
        api.llama_memory_clear(memory, True)
        for user in range(users):
            begin = time.perf_counter()
            prefill(user)
            times_first.append(time.perf_counter() - begin)
        steps = arguments.new_tokens - 1
        begin = time.perf_counter()
        for i in range(steps):
            step(arguments.prompt_tokens + i)
        if steps:
            times_step.append((time.perf_counter() - begin) / steps)
    median = lambda values: sorted(values)[len(values) // 2]
    result = {
        "start_to_first_token_ms": start_seconds * 1e3,
        "time_to_first_token_ms": median(times_first) * 1e3,
        "prefill_tokens_per_second": arguments.prompt_tokens / median(times_first),
        "tokens_per_second": users / median(times_step) if times_step else 0,
        "device": api.llama_print_system_info().decode(),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
