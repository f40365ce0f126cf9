"""vLLM over ttt, in this process: tokens equal transformers' and our own generator's, however the scheduler cuts the work."""

import contextlib
import json
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from support import make_checkpoint, reference
from vllm import LLM, SamplingParams
from vllm.engine.arg_utils import EngineArgs
from vllm.sampling_params import StructuredOutputsParams

import ttt

PRECISION = {"ttt": {"precision": "f32", "threads": 2}}
# One of each kind: MHA, GQA with norms, windows, parallel and reordered blocks, experts, state-space, hybrid.
FAMILIES = ["llama", "qwen3", "gemma3_text", "mistral", "gpt2", "gpt_neox", "mixtral", "olmo2", "starcoder2"]
RECURRENT = ["falcon_mamba", "granitemoehybrid"]


@contextlib.contextmanager
def engine(path, tokenizer=True, **options):
    """An LLM in this process, gone afterwards."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
        llm = LLM(model=str(path), skip_tokenizer_init=not tokenizer, disable_log_stats=False,
                  **{"max_model_len": 96, "max_num_seqs": 8, "additional_config": PRECISION, **options})
        try:
            yield llm
        finally:
            llm.llm_engine.engine_core.shutdown()


def greedy(count=8, **fields):
    return SamplingParams(temperature=0, max_tokens=count, ignore_eos=True, detokenize=False, **fields)


def generate(llm, prompts, params):
    outputs = llm.generate([{"prompt_token_ids": list(map(int, p))} for p in prompts], params, use_tqdm=False)
    return [list(o.outputs[0].token_ids) for o in outputs]


def counter(llm, name):
    return sum(m.value for m in llm.get_metrics() if m.name == name)


@pytest.fixture(scope="module")
def checkpoint(folder, cache):
    return make_checkpoint("llama", folder)


@pytest.fixture(scope="module")
def ours(checkpoint):
    return ttt.load(checkpoint, precision="f32", threads=2)


@pytest.fixture(scope="module")
def llm(checkpoint):
    with engine(checkpoint) as llm:
        yield llm


def mixed_prompts(count=32):
    rng = np.random.default_rng(7)
    return [rng.integers(3, 160, size=1 + (i * 7) % 60).tolist() for i in range(count)]


def wanted_tokens(model, prompts, count):
    sampling = ttt.SamplingParams(max_new_tokens=count, ignore_eos=True)
    return [model.generate(p, sampling).ids for p in prompts]


@pytest.mark.parametrize("name", [pytest.param(n, marks=() if n in ("qwen3", "gemma3_text") else pytest.mark.full) for n in FAMILIES[1:]])
def test_families_are_transformers(name, folder):
    golden = reference(name)
    prompt, wanted = golden["input_ids"][0].tolist(), golden["continuation"].tolist()
    with engine(make_checkpoint(name, folder, tokenizer=False), tokenizer=False, max_num_batched_tokens=16, block_size=16,
                max_model_len=64) as llm:
        prompts = [prompt] + [prompt[: 1 + i % 23] for i in range(31)]
        tokens = generate(llm, prompts, greedy())
    assert tokens[0] == wanted
    assert tokens[1:] == wanted_tokens(ttt.load(folder / name, precision="f32"), prompts[1:], 8)


@pytest.mark.parametrize("name", RECURRENT)
def test_recurrent_state_is_served_without_prefix_caching_and_refused_with_it(name, folder):
    golden = reference(name)
    prompt, wanted = golden["input_ids"][0].tolist(), golden["continuation"].tolist()
    path = make_checkpoint(name, folder, tokenizer=False)
    with pytest.raises(Exception, match="no-enable-prefix-caching"), engine(path, tokenizer=False, enable_prefix_caching=True):
        pass
    with engine(path, tokenizer=False, enable_prefix_caching=False, max_num_batched_tokens=16, max_num_seqs=4, max_model_len=64) as llm:
        prompts = [prompt] + [prompt[: 1 + i % 23] for i in range(11)]
        tokens = generate(llm, prompts, greedy())
    assert tokens[0] == wanted
    assert tokens[1:] == wanted_tokens(ttt.load(path, precision="f32"), prompts[1:], 8)


@pytest.mark.parametrize("precision", ["f32", "bfp8_b"])
def test_a_converted_folder(checkpoint, folder, precision):
    out = folder / f"converted-{precision}"
    subprocess.run([sys.executable, "-m", "ttt", "convert", "--model", str(checkpoint), "--out", str(out), "--precision", precision], check=True,
                   capture_output=True, timeout=120)
    prompts = mixed_prompts(4)
    with engine(out, additional_config={"ttt": {"precision": precision, "threads": 2}}) as llm:
        tokens = generate(llm, prompts, greedy())
    assert tokens == wanted_tokens(ttt.load(checkpoint, precision=precision), prompts, 8)


def test_one_request_and_thirty_two(llm, ours):
    golden = reference("llama")
    assert generate(llm, [golden["input_ids"][0]], greedy()) == [golden["continuation"].tolist()]
    prompts = mixed_prompts()
    assert generate(llm, prompts, greedy(24)) == wanted_tokens(ours, prompts, 24)


def test_prefix_hits(llm, ours):
    prompt = mixed_prompts()[17][:5] + list(range(3, 73))
    first = generate(llm, [prompt], greedy())
    before = counter(llm, "vllm:prefix_cache_hits")
    again = generate(llm, [prompt, prompt[:64] + [9, 9]], greedy())
    assert counter(llm, "vllm:prefix_cache_hits") >= before + 128
    assert [first[0], again[1]] == wanted_tokens(ours, [prompt, prompt[:64] + [9, 9]], 8) and again[0] == first[0]


def test_logprobs_and_prompt_logprobs(llm, ours):
    prompt = mixed_prompts()[9]
    output = llm.generate([{"prompt_token_ids": prompt}], SamplingParams(temperature=0, max_tokens=6, logprobs=3, prompt_logprobs=2),
                          use_tqdm=False)[0]
    result = ours.generate(prompt, max_new_tokens=6, logprobs=3, prompt_logprobs=2)
    for found, wanted in zip(output.outputs[0].logprobs, result.logprobs, strict=True):
        assert found[wanted.token.id].rank == wanted.rank
        for one in (wanted.token, *wanted.top):
            assert found[one.id].logprob == pytest.approx(one.logprob, abs=1e-4)
    assert output.prompt_logprobs[0] is None
    for token, found, wanted in zip(prompt[1:], output.prompt_logprobs[1:], result.prompt_logprobs, strict=True):
        assert found[token].logprob == pytest.approx(wanted.token.logprob, abs=1e-4)


def test_seeds_repeat_whatever_runs_beside(llm):
    prompt = [5, 6, 7, 8]
    params = SamplingParams(temperature=1.0, seed=3, max_tokens=16, ignore_eos=True, detokenize=False)
    alone = generate(llm, [prompt], params)[0]
    crowd = generate(llm, [*mixed_prompts(12), prompt], params)[-1]
    other = generate(llm, [prompt], SamplingParams(temperature=1.0, seed=4, max_tokens=16, ignore_eos=True, detokenize=False))[0]
    assert alone == crowd != other
    several = llm.generate([{"prompt_token_ids": prompt}],
                           SamplingParams(temperature=1.0, seed=3, n=3, max_tokens=16, ignore_eos=True, detokenize=False), use_tqdm=False)
    assert len({tuple(o.token_ids) for o in several[0].outputs}) == 3


def test_every_sampling_parameter_reaches_the_sampler(llm, ours):
    prompt = [5, 6, 7, 8]
    plain = generate(llm, [prompt], greedy(12))[0]
    assert generate(llm, [prompt], greedy(3, logit_bias={9: 100.0}))[0] == [9, 9, 9]
    assert set(generate(llm, [prompt], greedy(6, allowed_token_ids=[11, 12]))[0]) <= {11, 12}
    penalised = generate(llm, [prompt], greedy(12, repetition_penalty=1.5, presence_penalty=1.0, frequency_penalty=0.5))[0]
    assert penalised == ours.generate(prompt, max_new_tokens=12, ignore_eos=True, repetition_penalty=1.5, presence_penalty=1.0,
                                      frequency_penalty=0.5).ids
    hot = dict(temperature=2.0, max_tokens=12, ignore_eos=True, detokenize=False, seed=1)
    assert generate(llm, [prompt], SamplingParams(top_k=1, **hot))[0] == plain
    assert generate(llm, [prompt], SamplingParams(top_p=1e-6, **hot))[0] == plain
    assert generate(llm, [prompt], SamplingParams(min_p=1.0, **hot))[0] == plain
    stopped = generate(llm, [prompt], SamplingParams(temperature=0, max_tokens=12, stop_token_ids=[plain[3]], ignore_eos=True,
                                                     min_tokens=2, detokenize=False))[0]
    assert stopped == plain[: plain.index(plain[3]) + 1] or len(stopped) > 2
    mixed = generate(llm, [prompt] * 3, [greedy(8), SamplingParams(top_k=1, **{**hot, "max_tokens": 8}), greedy(8, logit_bias={9: 100.0})])
    assert mixed == [plain[:8], plain[:8], [9] * 8]


def test_structured_output(llm):
    schema = {"type": "object", "properties": {"a": {"type": "boolean"}, "b": {"enum": ["x", "y"]}}, "required": ["a", "b"],
              "additionalProperties": False}
    params = [SamplingParams(temperature=0, max_tokens=60, structured_outputs=StructuredOutputsParams(json=schema)),
              SamplingParams(temperature=0.7, seed=1, max_tokens=60, structured_outputs=StructuredOutputsParams(json=schema)),
              SamplingParams(temperature=0, max_tokens=5, ignore_eos=True)]
    outputs = llm.generate(["The other thing"] * 3, params, use_tqdm=False)
    for output in outputs[:2]:
        value = json.loads(output.outputs[0].text)
        assert isinstance(value["a"], bool) and value["b"] in ("x", "y")
    assert len(outputs[2].outputs[0].token_ids) == 5


def test_an_unsupported_parameter_is_refused(llm):
    from vllm.platforms import current_platform

    assert current_platform.device_name == "ttt"
    for name in ("thinking_token_budget", "prompt_logprob_token_ids"):
        with pytest.raises(ValueError, match=name):
            current_platform.validate_request(None, SimpleNamespace(**{name: [3]}))


@pytest.mark.parametrize("asynchronous", [False, True])
def test_chunks_and_forced_preemption(checkpoint, ours, asynchronous):
    prompts = mixed_prompts(16)
    with engine(checkpoint, max_num_batched_tokens=24, block_size=8, num_gpu_blocks_override=26, async_scheduling=asynchronous,
                enable_prefix_caching=not asynchronous) as llm:
        seeded = SamplingParams(temperature=1.0, seed=11, max_tokens=24, ignore_eos=True, detokenize=False)
        tokens = generate(llm, prompts, greedy(24))
        drawn = generate(llm, prompts, seeded)
        assert counter(llm, "vllm:num_preemptions") > 0
    assert tokens == wanted_tokens(ours, prompts, 24)
    with engine(checkpoint, async_scheduling=asynchronous) as roomy:
        assert generate(roomy, prompts, seeded) == drawn


def test_prompt_logprobs_in_chunks_under_preemption(checkpoint, ours):
    prompts = mixed_prompts(10)
    with engine(checkpoint, max_num_batched_tokens=24, block_size=8, num_gpu_blocks_override=26) as llm:
        outputs = llm.generate([{"prompt_token_ids": p} for p in prompts],
                               SamplingParams(temperature=0, max_tokens=20, ignore_eos=True, prompt_logprobs=0, detokenize=False), use_tqdm=False)
    for prompt, output in zip(prompts, outputs, strict=True):
        wanted = ours.generate(prompt, max_new_tokens=1, prompt_logprobs=0).prompt_logprobs
        assert len(output.prompt_logprobs) == len(prompt)
        for token, found, one in zip(prompt[1:], output.prompt_logprobs[1:], wanted, strict=True):
            assert found[token].logprob == pytest.approx(one.token.logprob, abs=1e-4)


def test_arguments_serve_again(checkpoint):
    """Under data parallelism several API servers start from the same ones."""
    arguments = EngineArgs(model=str(checkpoint), max_model_len=96, additional_config=PRECISION)
    for _ in range(2):
        assert arguments.create_engine_config().structured_outputs_config.disable_any_whitespace


def test_configurations_that_can_not_work_are_refused(checkpoint):
    for options, words in [(dict(tensor_parallel_size=2), "mesh"), (dict(additional_config={"ttt": {"precison": "f32"}}), "precison"),
                           (dict(enable_lora=True), "LoRA")]:
        with pytest.raises(Exception, match=words), engine(checkpoint, **options):
            pass
