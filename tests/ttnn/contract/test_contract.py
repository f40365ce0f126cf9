"""Tenstorrent's generator contract on TTNN's mock cluster: the calls of the fake runner (tests/vllm/fake_runner.py) on the CPU backend and on TTNN.

Both must give results of the same shapes and dtypes. What a mock reads back means nothing, so on TTNN the calls are looked at: which paged operations a
step makes, how often, and over which page tables. Of networks with recurrent state the scans are composed there, and a sequence's row of a state is written by
joining it with the others'. Run through tools/ttnn/mock n150; scripts/test_python --ttnn does.
"""

import json
from collections import Counter

import numpy as np
import pytest
import torch
from fake_runner import BLOCK, ROWS, WIDTH, FakeRunner, Sampling
from support import ROOT

import ttt
from make_fixture import write_fixture
from vllm_ttt.generator import Generator, RecurrentGenerator

LAYERS, KV_HEADS, HEAD_DIM, VOCAB = 3, 2, 64, 160
FILL, UPDATE, DECODE = "experimental.paged_fill_cache", "experimental.paged_update_cache", "transformer.paged_scaled_dot_product_attention_decode"
JOIN = "concat of rows"


class Llama(Generator):
    architecture = "LlamaForCausalLM"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """The fixture of tests/golden with heads of whole tiles, as every model has that a card serves."""
    fixture = json.loads((ROOT / "tests/golden/fixtures/llama.json").read_text())
    fixture["config"].update(head_dim=HEAD_DIM, hidden_size=256, intermediate_size=512, max_position_embeddings=512)
    sizes = {64: 256, 112: 512, 32: KV_HEADS * HEAD_DIM}
    for tensor in fixture["tensors"]:
        tensor["shape"] = [sizes.get(extent, extent) for extent in tensor["shape"]]
    folder = tmp_path_factory.mktemp("contract")
    (folder / "fixture.json").write_text(json.dumps(fixture))
    write_fixture(folder / "fixture.json", folder / "model")
    return folder / "model"


class Watched:
    """Counts calls of TTNN's operations: the paged ones with the extents of their page tables, and joins of rows. The driver finds the operations in the
    package by name."""

    def __init__(self):
        import ttnn

        self.calls, self.tables = Counter(), {}
        for path, table in ((FILL, 2), (UPDATE, "page_table"), (DECODE, 3)):
            module, name = path.rsplit(".", 1)
            module = getattr(ttnn, module)
            setattr(module, name, self.watch(path, getattr(module, name), table))
        concat = getattr(ttnn.concat, "function", ttnn.concat)

        def joined(parts, axis, **keywords):
            if axis == 0:
                self.calls[JOIN] += 1
            return concat(parts, axis, **keywords)

        ttnn.concat = joined

    def watch(self, path, function, table):
        function = getattr(function, "function", function)  # without the package's own decoration, as the driver calls it

        def watched(*arguments, **keywords):
            self.calls[path] += 1
            given = arguments[table] if isinstance(table, int) else keywords[table]
            self.tables.setdefault(path, set()).add(tuple(given.shape))
            return function(*arguments, **keywords)

        return watched

    def take(self):
        calls, tables = dict(self.calls), self.tables
        self.calls, self.tables = Counter(), {}
        return calls, tables


@pytest.fixture(scope="module")
def watched():
    return Watched()


def kind(out):
    if isinstance(out, tuple):
        return tuple(kind(one) for one in out)
    return tuple(out.shape), str(out.dtype)


def log(watched):
    """An empty list of (call, kinds of its results, TTNN's calls and page tables), and what adds to it."""
    steps = []

    def note(name, out):
        steps.append((name, kind(out), watched.take() if watched else None))

    if watched:
        watched.take()  # the warm-up's
    return steps, note


def replay(runner, watched=None):
    steps, note = log(watched)
    prompts = {0: list(range(3, 43)), 1: [5, 6, 7], 2: list(range(10, 43))}  # more than a block, a few, one over a block
    for row, logits in runner.prefill(prompts).items():
        runner.tokens[row].append(int(np.asarray(logits).reshape(-1).argmax()))
    note("prefill of three", logits)
    for asynchronous in (False, True):
        note("decode of three", runner.decode([0, 1, 2], asynchronous))
    runner.tables[3] = runner.tables[0][:1]
    note("prefill behind a prefix hit", runner.prefill({3: prompts[0]}, start={3: BLOCK})[3])
    runner.tokens[3].append(9)
    note("decode of a full batch", runner.decode([0, 1, 2, 3]))
    note("decode of rows that moved", runner.decode([0, 2, 3], slot_remap=torch.tensor([2, 0, 3, 1])))
    del runner.tables[1]
    note("prefill into a slot that became free", runner.prefill({1: [8, 9]})[1])
    runner.tokens[1].append(9)
    note("decode that samples", runner.decode([0, 1, 2, 3], sampling=Sampling(), reset_batch=True))
    note("prefill that samples", runner.prefill({1: [4, 5]}, sampling=Sampling())[1])
    return steps


def test_both_backends_take_the_calls(checkpoint, watched, monkeypatch):
    options = {"precision": "performance"}
    on_cpu = replay(FakeRunner(Llama, checkpoint, {"backend": "cpu", **options}, monkeypatch))
    runner = FakeRunner(Llama, checkpoint, {"backend": "ttnn", "sku": "n150", **options}, monkeypatch)
    assert "mock" in runner.model.engine.model.device, runner.model.engine.model.device
    on_ttnn = replay(runner, watched)
    assert [step[:2] for step in on_ttnn] == [step[:2] for step in on_cpu]
    assert on_cpu[0][1] == ((1, VOCAB), "float32") and on_cpu[1][1] == ((ROWS, 1, VOCAB), "float32")
    seen = {name: work for name, _, work in on_ttnn}

    # Decode: one paged attention per layer and two updates, whatever the number of users, over as many table rows.
    for name, users in (("decode of three", 3), ("decode of a full batch", 4), ("decode of rows that moved", 3), ("decode that samples", 4)):
        calls, tables = seen[name]
        assert calls == {DECODE: LAYERS, UPDATE: 2 * LAYERS}, (name, calls)
        assert {rows for shapes in tables.values() for rows, _ in shapes} == {users}, (name, tables)
        assert all(width <= WIDTH for shapes in tables.values() for _, width in shapes)
    # Prefill: keys and values of each sequence go into its own blocks.
    for name, sequences in (("prefill of three", 3), ("prefill behind a prefix hit", 1), ("prefill into a slot that became free", 1)):
        calls, tables = seen[name]
        assert calls == {FILL: 2 * LAYERS * sequences}, (name, calls)
        assert {shape[0] for shape in tables[FILL]} == {1}, (name, tables)
    runner.model.cleanup()


def test_errors_arrive_as_sentences(checkpoint, monkeypatch):
    runner = FakeRunner(Llama, checkpoint, {"backend": "ttnn", "sku": "n150", "precision": "performance"}, monkeypatch)
    runner.prefill({0: [1, 2, 3]})
    with pytest.raises(ttt.Error, match="page table"):
        runner.model.decode_forward(tokens=torch.zeros((1, 1), dtype=torch.int32), page_table=torch.zeros((1, 1), dtype=torch.int32),
                                    kv_cache=runner.kv, start_pos=torch.tensor([BLOCK]))
    with pytest.raises(ttt.Error, match="block"):
        runner.model.decode_forward(tokens=torch.zeros((1, 1), dtype=torch.int32), page_table=torch.full((1, 1), 4000, dtype=torch.int32),
                                    kv_cache=runner.kv, start_pos=torch.tensor([3]))
    runner.model.cleanup()


def replay_recurrent(runner, watched=None):
    steps, note = log(watched)
    prompts = {2: list(range(3, 12)), 0: [5, 6, 7]}
    out = runner.prefill(prompts)
    note("prefill of two", out[2])
    for row in prompts:
        runner.tokens[row].append(9)
    note("decode of two", runner.decode([0, 2]))
    note("decode of rows that moved", runner.decode([0, 2], slot_remap=torch.tensor([2, 0, 1, 3])))
    return steps


def test_recurrent_networks_take_the_calls(tmp_path, watched, monkeypatch):
    write_fixture(ROOT / "tests/golden/fixtures/falcon_mamba.json", tmp_path / "model")
    layers = json.loads((tmp_path / "model" / "config.json").read_text())["num_hidden_layers"]
    options = {"precision": "performance"}
    on_cpu = replay_recurrent(FakeRunner(RecurrentGenerator, tmp_path / "model", {"backend": "cpu", **options}, monkeypatch))
    runner = FakeRunner(RecurrentGenerator, tmp_path / "model", {"backend": "ttnn", "sku": "n150", **options}, monkeypatch)
    on_ttnn = replay_recurrent(runner, watched)
    assert [step[:2] for step in on_ttnn] == [step[:2] for step in on_cpu]
    for name, _, (calls, _) in on_ttnn:
        assert calls == {JOIN: 2 * 2 * layers}, (name, calls)  # of each sequence and layer: what the convolution keeps, and the scan's state
