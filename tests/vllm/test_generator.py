"""Tenstorrent's generator contract on the CPU backend, by a fake of the runner that calls it (fake_runner.py); tests/ttnn/contract replays it on TTNN."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from fake_runner import BLOCK, ROWS, WIDTH, FakeRunner, Sampling
from support import make_checkpoint, reference

import ttt
from vllm_ttt.generator import Generator, RecurrentGenerator

VOCAB = 160


class Llama(Generator):
    architecture = "LlamaForCausalLM"


@pytest.fixture(scope="module")
def checkpoint(folder):
    return make_checkpoint("llama", folder)


@pytest.fixture(params=["cpu"])
def runner(checkpoint, monkeypatch, request):
    return FakeRunner(Llama, checkpoint, {"backend": request.param, "precision": "f32"}, monkeypatch)


def prompts_and_answers(checkpoint, count=8):
    golden = reference("llama")
    prompt = golden["input_ids"][0].tolist()
    prompts = {0: prompt, 1: prompt[:3], 2: prompt[:11]}
    model = ttt.load(checkpoint, precision="f32")
    wanted = {r: model.generate(p, max_new_tokens=count, ignore_eos=True).ids for r, p in prompts.items()}
    assert wanted[0] == golden["continuation"].tolist()[:count]
    return prompts, wanted


@pytest.mark.parametrize("asynchronous", [False, True])
def test_the_observed_calls_give_the_references_tokens(runner, checkpoint, asynchronous):
    prompts, wanted = prompts_and_answers(checkpoint)
    logits = runner.prefill(prompts)
    assert {tuple(row.shape) for row in logits.values()} == {(1, VOCAB)}
    found = {r: [int(row[0].argmax())] for r, row in logits.items()}
    for r in prompts:
        runner.tokens[r] += found[r]
    for _ in range(7):
        out = runner.decode(list(prompts), asynchronous)
        assert out.shape == (ROWS, 1, VOCAB) and out.dtype == torch.float32
        for r in prompts:
            found[r].append(int(out[r, 0].argmax()))
            runner.tokens[r].append(found[r][-1])
    assert found == wanted


def test_sampling_on_the_device(runner, checkpoint):
    prompts, wanted = prompts_and_answers(checkpoint)
    found = {r: [int(token)] for r, token in runner.prefill(prompts, sampling=Sampling()).items()}
    for r in prompts:
        runner.tokens[r] += found[r]
    for step in range(7):
        out = runner.decode(list(prompts), sampling=Sampling(), reset_batch=step == 0)
        assert out.shape == (ROWS,)
        for r in prompts:
            found[r].append(int(out[r]))
            runner.tokens[r].append(found[r][-1])
    assert found == wanted
    seeded = Sampling(temperature=[1.0] * ROWS, seed=[5] * ROWS, enable_log_probs=[True] * ROWS)
    tokens, logprobs = runner.decode(list(prompts), sampling=seeded)
    again, _ = runner.decode(list(prompts), sampling=seeded)
    assert tokens[:3].tolist() == again[:3].tolist() and (logprobs[:3] < 0).all()
    logits = runner.decode(list(prompts))[:, 0]
    assert logprobs[0] == pytest.approx(float(torch.log_softmax(logits[0], -1)[tokens[0]]), abs=1e-5)
    # Penalties: the likeliest token is pushed away once it has been said.
    said = torch.full((ROWS, 1), -1)
    said[0] = int(logits[0].argmax())
    pushed = runner.decode(list(prompts), sampling=Sampling(presence_penalty=[100.0] * ROWS), reset_batch=True,
                           prompt_tokens=torch.full((ROWS, 1), -1), output_tokens=said)
    assert int(pushed[0]) != int(logits[0].argmax()) and int(pushed[1]) == int(logits[1].argmax())


def test_a_prefix_hit_starts_where_the_cache_ends(runner, checkpoint):
    prompt = list(range(3, 103))
    whole = runner.prefill({0: prompt})[0]
    shared = runner.tables[0][:2]
    runner.tables[1] = [*shared]
    assert torch.allclose(runner.prefill({1: prompt}, start={1: 64})[1], whole, atol=1e-4)


def test_rows_move_between_places(runner, checkpoint):
    prompts, wanted = prompts_and_answers(checkpoint)
    first = runner.prefill(prompts)
    for r, row in first.items():
        runner.tokens[r].append(int(row[0].argmax()))
    remap = torch.tensor([2, 0, 1, 3])
    out = runner.decode(list(prompts), slot_remap=remap)
    assert [int(out[place, 0].argmax()) for place in range(3)] == [wanted[int(r)][1] for r in remap[:3]]
    assert (out[3] == 0).all()


def test_recurrent_state_follows_its_slot(folder, monkeypatch):
    path = make_checkpoint("falcon_mamba", folder, tokenizer=False)
    golden = reference("falcon_mamba")
    with pytest.raises(ttt.Error, match="RecurrentGenerator"):
        FakeRunner(Generator, path, {"precision": "f32"}, monkeypatch)
    runner = FakeRunner(RecurrentGenerator, path, {"precision": "f32"}, monkeypatch)
    prompt = golden["input_ids"][0].tolist()
    logits = runner.prefill({2: prompt, 0: prompt[:5]})
    found = [int(logits[2][0].argmax())]
    runner.tokens[2] += found
    runner.tokens[0].append(int(logits[0][0].argmax()))
    for _ in range(7):
        out = runner.decode([0, 2], slot_remap=torch.tensor([2, 0, 1, 3]))
        found.append(int(out[0, 0].argmax()))
        runner.tokens[2].append(found[-1])
        runner.tokens[0].append(int(out[1, 0].argmax()))
    assert found == golden["continuation"].tolist()


def test_what_can_not_be_served_is_refused(runner, checkpoint, monkeypatch):
    runner.prefill({0: [1, 2, 3]})
    with pytest.raises(ttt.Error, match="pixel_values"):
        runner.model.prefill_forward(tokens=torch.zeros((1, 1), dtype=torch.int32), page_table=torch.zeros((1, WIDTH), dtype=torch.int32),
                                     kv_cache=runner.kv, prompt_lens=np.array([1]), pixel_values=[1])
    with pytest.raises(ttt.Error, match="page_tables_per_layer"):
        runner.decode([0], page_tables_per_layer=[1])
    with pytest.raises(ttt.Error, match="page table"):
        runner.tokens[0] = [1] * (BLOCK * WIDTH + 5)
        runner.tables[0] = list(range(WIDTH))
        runner.model.decode_forward(tokens=torch.zeros((1, 1), dtype=torch.int32), page_table=torch.zeros((1, 1), dtype=torch.int32),
                                    kv_cache=runner.kv, start_pos=torch.tensor([BLOCK]))
    with pytest.raises(ttt.Error, match="blocks"):
        runner.model.allocate_kv_cache_per_layer([((4, 2, 32, 64), torch.bfloat16, 0), ((8, 2, 32, 64), torch.bfloat16, 1)])

    class Other(Generator):
        architecture = "OtherForCausalLM"

    with pytest.raises(ttt.Error, match="OtherForCausalLM"):
        FakeRunner(Other, checkpoint, {}, monkeypatch)
    with pytest.raises(ttt.Error, match="data-parallel"):
        Llama.initialize_vllm_model(SimpleNamespace(_name_or_path=str(checkpoint)), None, 4, max_seq_len=64, tt_data_parallel=2)
