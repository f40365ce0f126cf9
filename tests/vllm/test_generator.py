"""Tenstorrent's generator contract, by a fake of the runner that calls it: the call shapes observed of tenstorrent/vllm-tt-plugin.

Steps are all-prefill or all-decode; a decode always has max_num_seqs rows, padded by start_pos -1; tables have a fixed width.
"""

import json
from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from support import make_checkpoint, reference

import ttt
from vllm_ttt.generator import Generator, RecurrentGenerator

BLOCK, WIDTH, ROWS, VOCAB = 32, 16, 4, 160


class Llama(Generator):
    architecture = "LlamaForCausalLM"


@dataclass
class Sampling:
    """What the plugin sends to a device that samples: lists by row."""

    temperature: list = field(default_factory=lambda: [0.0] * ROWS)
    top_k: list = field(default_factory=lambda: [0] * ROWS)
    top_p: list = field(default_factory=lambda: [1.0] * ROWS)
    presence_penalty: list = field(default_factory=lambda: [0.0] * ROWS)
    frequency_penalty: list = field(default_factory=lambda: [0.0] * ROWS)
    repetition_penalty: list = field(default_factory=lambda: [1.0] * ROWS)
    seed: list = field(default_factory=lambda: [None] * ROWS)
    num_logprobs: list = field(default_factory=lambda: [0] * ROWS)
    enable_log_probs: list = field(default_factory=lambda: [False] * ROWS)


class FakeRunner:
    """Makes the calls that the plugin's runner makes, in its order and with its shapes and dtypes."""

    def __init__(self, cls, path, options, monkeypatch, max_seq_len=512, blocks=132):
        monkeypatch.setenv("TTT_VLLM_OPTIONS", json.dumps(options))
        config = SimpleNamespace(_name_or_path=str(path))
        assert set(cls.model_capabilities) == {"supports_prefix_caching", "supports_async_decode", "supports_sample_on_device"}
        self.max_tokens = cls.get_max_tokens_all_users(model_name=str(path), num_devices=1, tt_data_parallel=1, max_model_len=max_seq_len,
                                                       max_num_seqs=ROWS)
        assert cls.get_kv_cache_spec(SimpleNamespace()) is None
        self.model = cls.initialize_vllm_model(config, SimpleNamespace(get_num_devices=lambda: 1), ROWS, max_seq_len=max_seq_len,
                                               tt_data_parallel=1, optimizations=None)
        self.kv = self.model.allocate_kv_cache((blocks, 2, BLOCK, 64), torch.bfloat16, 3)
        for trace in (False, True):  # compile, then capture
            self.model.already_warmed_up_prefill = False
            self.model.warmup_model_prefill(kv_cache=self.kv, enable_trace=trace, can_sample_on_device=True)
            self.model.warmup_model_decode(kv_cache=self.kv, enable_trace=trace, max_batch_size=ROWS, num_blocks=WIDTH, can_sample_on_device=True)
        self.tables = {}
        self.tokens = {}
        self.free = list(range(blocks))[::-1]

    def table(self, row):
        padded = np.zeros(WIDTH, np.int32)  # what is behind a sequence's blocks is 0, as in the plugin
        padded[: len(self.tables[row])] = self.tables[row]
        return padded

    def prefill(self, prompts, start=None, sampling=None):
        """{row: ids}; `start`: tokens that a prefix hit has computed already."""
        rows = sorted(prompts)
        for row in rows:
            self.tokens[row] = list(prompts[row])
            self.tables.setdefault(row, [])
            while len(self.tables[row]) * BLOCK < len(prompts[row]) + 1:
                self.tables[row].append(self.free.pop())
        lens = np.array([len(prompts[row]) for row in rows], np.int64)
        tokens = torch.zeros((len(rows), int(lens.max())), dtype=torch.int32)
        for i, row in enumerate(rows):
            tokens[i, : lens[i]] = torch.tensor(prompts[row])
        out = self.model.prefill_forward(
            tokens=tokens, page_table=torch.from_numpy(np.stack([self.table(r) for r in rows])), kv_cache=self.kv, enable_trace=True,
            prompt_lens=lens, start_pos=np.array([(start or {}).get(r, 0) for r in rows]), empty_slots=rows, sampling_params=sampling)
        return dict(zip(rows, out[0] if isinstance(out, tuple) else out, strict=True))

    def decode(self, rows, asynchronous=True, sampling=None, slot_remap=None, **extra):
        """One token for each of the rows, which stand where `slot_remap` says."""
        tokens = torch.zeros((ROWS, 1), dtype=torch.int32)
        positions = torch.full((ROWS,), -1, dtype=torch.int32)
        tables = np.zeros((ROWS, WIDTH), np.int32)
        for row in rows:
            place = row if slot_remap is None else slot_remap.tolist().index(row)
            if len(self.tables[row]) * BLOCK < len(self.tokens[row]):
                self.tables[row].append(self.free.pop())
            tokens[place], positions[place], tables[place] = self.tokens[row][-1], len(self.tokens[row]) - 1, self.table(row)
        out = self.model.decode_forward(tokens=tokens, page_table=torch.from_numpy(tables), kv_cache=self.kv, start_pos=positions,
                                        enable_trace=True, read_from_device=not asynchronous, slot_remap=slot_remap,
                                        sampling_params=sampling, **extra)
        if asynchronous:
            handle, events = self.model.read_decode_output(out, async_read=True)
            assert events == []
            out = self.model.process_decode_output_host(handle, is_tokens=sampling is not None)
        return out


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
