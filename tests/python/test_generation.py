"""Generating, streaming, chatting and evaluating from Python."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import numpy as np
import pytest
from support import make_checkpoint, reference

import ttt

FAMILIES = ["llama", "qwen3", "gemma3_text", "mistral", "gpt2", "gpt_neox", "mixtral", "falcon_mamba", "granitemoehybrid"]


@pytest.mark.parametrize("name", FAMILIES)
def test_greedy_tokens_are_transformers(name, folder):
    golden = reference(name)
    prompt, wanted = golden["input_ids"][0].tolist(), golden["continuation"].tolist()
    model = ttt.load(make_checkpoint(name, folder / "families", tokenizer=False), precision="f32", threads=2)
    sampling = ttt.SamplingParams(max_new_tokens=8, ignore_eos=True)
    assert model.generate(prompt, sampling).ids == wanted
    # Among 31 others of mixed lengths, by chunks that leave steps mixed, in KV memory that forces some back.
    others = [prompt[: 1 + i % 23] for i in range(31)]
    generator = ttt.Generator(model, max_batch=8, max_step_tokens=16, block_size=4, kv_blocks=24)
    results = generator.generate_batch([prompt, *others], sampling)
    assert results[0].ids == wanted
    assert [r.ids for r in results[1:]] == [model.generate(other, sampling).ids for other in others]


def test_text_in_text_out(model):
    result = model.generate("The other thing", max_new_tokens=12)
    assert result.finish_reason == "length" and len(result.ids) == 12
    assert result.text == model.tokenizer.decode(result.ids)
    assert result.prompt_tokens == len(model.tokenizer.encode("The other thing"))
    many = model.generate(["The other thing", "The"], max_new_tokens=12)
    assert many[0].ids == result.ids


def test_a_stream_is_the_same_text(model):
    whole = model.generate("The other thing", max_new_tokens=16, logprobs=2)
    stream = model.stream("The other thing", max_new_tokens=16, logprobs=2)
    deltas = list(stream)
    assert "".join(d.text for d in deltas) == whole.text
    assert [i for d in deltas for i in d.ids] == whole.ids
    assert deltas[-1].finish_reason == "length" and all(d.finish_reason is None for d in deltas[:-1])
    assert stream.result.ids == whole.ids
    flat = [p for d in deltas for p in d.logprobs]
    assert [p.token.id for p in flat] == whole.ids and len(flat[0].top) == 2


def test_a_dropped_stream_ends_its_request(model):
    generator = ttt.Generator(model, max_batch=1)
    stream = generator.stream([1, 2, 3], ttt.SamplingParams(max_new_tokens=100, ignore_eos=True))
    next(stream)
    del stream
    generator.step()
    assert generator.stats.running == 0


def test_sampling(model):
    draw = lambda seed: model.generate([1, 2, 3], temperature=1.0, seed=seed, max_new_tokens=16).ids  # noqa: E731
    assert draw(1) == draw(1) != draw(2)
    assert set(model.generate([1, 2, 3], allowed_token_ids=[7, 8], max_new_tokens=5).ids) <= {7, 8}
    assert model.generate([1, 2, 3], logit_bias={9: 100.0}, max_new_tokens=3).ids == [9, 9, 9]
    scored = model.generate([5, 6, 7, 8], prompt_logprobs=1, max_new_tokens=1)
    assert [p.token.id for p in scored.prompt_logprobs] == [6, 7, 8]
    with pytest.raises(ttt.Error, match="top_p"):
        model.generate([1], top_p=2.0)
    with pytest.raises(TypeError):
        model.generate([1], ttt.SamplingParams(), top_p=0.5)


def test_logits_processor(model):
    seen = []

    def force(output, logits):
        seen.append(output.tolist())
        logits[:] = -np.inf
        logits[40 + len(output)] = 0

    assert model.generator.generate([1, 2], ttt.SamplingParams(max_new_tokens=3), logits_processor=force).ids == [40, 41, 42]
    assert seen == [[], [40], [40, 41]]

    def fail(output, logits):
        raise ValueError("no thanks")

    with pytest.raises(ttt.Error, match="no thanks"):
        model.generator.generate([1, 2], ttt.SamplingParams(max_new_tokens=3), logits_processor=fail)


def test_json_schema(model):
    schema = {"type": "object", "properties": {"a": {"type": "boolean"}, "b": {"enum": ["x", "y"]}}, "required": ["a", "b"],
              "additionalProperties": False}
    if not ttt.Generator.follows_schemas():
        with pytest.raises(ttt.Error, match="xgrammar"):
            model.generate("The other thing", json_schema=schema)
        return
    for given in (schema, json.dumps(schema)):
        results = model.generate(["The other thing", "One"], json_schema=given, max_new_tokens=60)
        for result in results:
            value = json.loads(result.text)
            assert isinstance(value["a"], bool) and value["b"] in ("x", "y") and result.finish_reason == "stop"
    assert json.loads("".join(d.text for d in model.chat([{"role": "user", "content": "Hi"}], json_schema=schema, max_new_tokens=60, stream=True)))
    assert ttt.SamplingParams(json_schema=schema).json_schema == json.dumps(schema)
    with pytest.raises(ttt.Error, match="schema"):
        model.generate("One", json_schema={"type": "nonsense"})


def test_chat_follows_the_template(model):
    messages = [{"role": "user", "content": "Hi </s> there"}]
    text = model.chat_template.render(messages)
    assert text.endswith("assistant: ")
    ids = model.chat_template.encode(model.tokenizer, messages)
    assert ids.count(model.tokenizer.eos_id) == 0  # a user can not spell the end
    answer = model.chat(messages, max_new_tokens=8)
    assert answer.ids == model.generate(ids, max_new_tokens=8).ids
    assert "".join(d.text for d in model.chat(messages, max_new_tokens=8, stream=True)) == answer.text


def test_threads_share_a_generator_and_the_gil_is_free(checkpoint):
    model = ttt.load(checkpoint, precision="f32", threads=1)
    generator = ttt.Generator(model, max_batch=4, max_context=128)
    prompts = [[1 + i, 2, 3] for i in range(6)]
    wanted = [r.ids for r in generator.generate_batch(prompts, ttt.SamplingParams(max_new_tokens=40, ignore_eos=True))]
    found = [None] * len(prompts)

    def run(i):
        found[i] = generator.generate(prompts[i], ttt.SamplingParams(max_new_tokens=40, ignore_eos=True)).ids

    threads = [threading.Thread(target=run, args=(i,)) for i in range(len(prompts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert found == wanted


def test_ctrl_c_ends_a_long_answer(checkpoint, tmp_path):
    program = textwrap.dedent(f"""
        import signal, sys, ttt
        signal.signal(signal.SIGINT, signal.default_int_handler)
        model = ttt.load({str(checkpoint)!r}, precision="f32", threads=1)
        sampling = ttt.SamplingParams(max_new_tokens=100, ignore_eos=True)
        print("ready", flush=True)
        try:
            while True:
                model.generate([1, 2, 3], sampling)
        except KeyboardInterrupt:
            print("interrupted", flush=True)
        print(len(model.generate([1, 2, 3], max_new_tokens=4).ids))
    """)
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert out.splitlines()[0] == "interrupted" and process.returncode == 0


def test_evaluations(model, checkpoint):
    text = (checkpoint / "config.json").read_text()
    whole = ttt.evaluate_perplexity(model, text, tokens=100)
    assert whole.scored == 99 and 1 < whole.perplexity < 1000
    # The same from the step's own log-probabilities.
    ids = model.tokenizer.encode(text)[:100]
    scored = model.generate(ids, prompt_logprobs=0, max_new_tokens=1).prompt_logprobs
    assert whole.perplexity == pytest.approx(np.exp(-np.mean([p.token.logprob for p in scored])), rel=1e-4)
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    golden = ttt.evaluate_golden(os.path.join(root, "golden/fixtures/llama.json"), precisions=["f32"])
    assert golden.passed and golden.runs[0].tokens_equal == 8
    accuracy = ttt.evaluate_tokens(model, os.path.join(root, "golden/reference/llama.safetensors"), prefill=12)
    assert accuracy.top1 == 1.0
    with pytest.raises(ttt.Error, match="bos"):
        ttt.evaluate_perplexity(model, text, bos="maybe")


def test_tokenizer(checkpoint, model):
    tokenizer = ttt.Tokenizer.from_checkpoint(checkpoint)
    ids = tokenizer.encode("The other thing", add_special_tokens=False)
    assert tokenizer.decode(ids) == "The other thing"
    assert tokenizer.encode("The other thing")[1:] == ids
    assert b"".join(tokenizer.token_bytes(i) for i in ids).decode() == "The other thing"
    assert tokenizer.id_to_token(tokenizer.token_to_id("<s>")) == "<s>" and tokenizer.is_special(tokenizer.bos_id)
    decoder = ttt.StreamDecoder(tokenizer)
    assert "".join(decoder.push(i) for i in ids) + decoder.finish() == "The other thing"
