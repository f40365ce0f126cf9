"""One measurement of OpenVINO GenAI on a GGUF file. Prints one JSON object; the keys are those of `ttt bench --json`."""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import openvino as ov
import openvino_genai as genai


def parse():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    for name in ("prompt-tokens", "new-tokens", "batch", "threads"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--repeats", type=int, default=3)
    return parser.parse_args()


def converted(path):
    """Folder with the model as OpenVINO keeps it, made on first use: it would convert the GGUF file at every start."""
    folder = Path(path).with_suffix(".openvino")
    if not (folder / "openvino_tokenizer.xml").exists():
        folder.mkdir(exist_ok=True)
        link = folder / "model.gguf"
        if not link.exists():
            link.symlink_to(Path(path).resolve())
        genai.LLMPipeline(str(link), "CPU", enable_save_ov_model=True)
    return str(folder)


def main():
    arguments = parse()
    folder = converted(arguments.model)
    begin = time.perf_counter()
    scheduler = genai.SchedulerConfig()
    scheduler.enable_prefix_caching = False  # a prompt that was there before would be free
    scheduler.max_num_batched_tokens = max(512, arguments.batch * arguments.prompt_tokens)  # all prompts in one step
    scheduler.max_num_seqs = arguments.batch
    scheduler.num_kv_blocks = arguments.batch * ((arguments.prompt_tokens + arguments.new_tokens) // 16 + 2)
    pipeline = genai.ContinuousBatchingPipeline(folder, scheduler, "CPU", {"INFERENCE_NUM_THREADS": arguments.threads, "KV_CACHE_PRECISION": "bf16"})
    load_seconds = time.perf_counter() - begin
    vocab = 49152  # ids that both models of the comparison have
    ids = np.array([[(i * 7919 + u * 104729 + 17) % vocab for i in range(arguments.prompt_tokens)] for u in range(arguments.batch)], dtype=np.int64)
    requests = 0

    def generate(rows, tokens):
        """Seconds of each step: the first takes the prompts, the others one token of everyone."""
        nonlocal requests
        config = genai.GenerationConfig()
        config.max_new_tokens, config.ignore_eos, config.do_sample, config.apply_chat_template = tokens, True, False, False
        handles = []  # a request whose handle is gone is cancelled
        for row in rows:
            handles.append(pipeline.add_request(requests, ov.Tensor(row[None, :]), config))
            requests += 1
        seconds = []
        while pipeline.has_non_finished_requests():
            begin = time.perf_counter()
            pipeline.step()
            seconds.append(time.perf_counter() - begin)
        if len(seconds) != tokens:
            raise SystemExit(f"error: {len(seconds)} steps for {tokens} tokens")
        return seconds

    start_seconds = load_seconds + sum(generate(ids[:1], 1))
    generate(ids, min(arguments.new_tokens, 4))
    first, step = [], []
    for turn in range(1, arguments.repeats + 1):
        seconds = generate((ids + turn) % vocab, arguments.new_tokens)
        first.append(seconds[0] / arguments.batch)
        if arguments.new_tokens > 1:
            step.append(sum(seconds[1:]) / (arguments.new_tokens - 1))
    median = lambda values: sorted(values)[len(values) // 2]
    print(json.dumps({
        "start_to_first_token_ms": start_seconds * 1e3,
        "time_to_first_token_ms": median(first) * 1e3,
        "prefill_tokens_per_second": arguments.prompt_tokens / median(first),
        "tokens_per_second": arguments.batch / median(step) if step else 0,
        "device": ov.get_version(),
    }))


if __name__ == "__main__":
    main()
