"""Loading, specs and plans, the step, taps: against transformers' numbers."""

import json

import numpy as np
import pytest
from support import reference

import ttt


def arrays(**values):
    return {key: np.asarray(value, np.int32) for key, value in values.items()}


def test_what_a_model_says_of_itself(model):
    assert model.architecture.endswith("ForCausalLM")
    assert model.precision == "f32" and "cpu" in model.device
    assert model.spec.vocab == 160 and model.spec.layers == 3
    assert model.weight_bytes >= sum(rows * cols * 4 for rows, cols in model.spec.weight_slots().values())
    assert [layer.layer for layer in model.kv_layers] == [0, 1, 2]
    assert model.kv_layers[0].bytes_per_position == 2 * 2 * 16 * 4
    assert model.capabilities.prefix_reuse
    assert "layers.0.attn" in json.dumps(model.plan)
    assert 2 in model.end_ids


def test_step_gives_the_reference_logits_whole_and_in_chunks(model):
    golden = reference("llama")
    prompt = golden["input_ids"][0].astype(np.int32)
    state = model.allocate(blocks=8, block_size=8, slots=1)
    table = np.array([[5, 2, 7, 0]], np.int32)
    for pieces in ([24], [5, 5, 5, 5, 4], [1] * 24):
        logits, context = [], 0
        for count in pieces:
            batch = ttt.Batch(**arrays(tokens=prompt[context : context + count], row_begin=[0, count], context=[context],
                                       slots=[0], logit_rows=np.arange(count)), block_tables=table)
            assert batch.sequences == 1
            out = model.step(batch, state)
            assert out.dtype == np.float32 and out.shape == (count, 160)
            logits.append(out)
            context += count
        assert np.abs(np.concatenate(logits) - golden["logits"]).max() < 2e-3


def test_step_uses_arrays_where_they_lie(model):
    """The batch is built once; what is written into its arrays afterwards is what runs."""
    golden = reference("llama")
    prompt = golden["input_ids"][0].astype(np.int32)
    tokens = np.zeros_like(prompt)
    batch = ttt.Batch(**arrays(row_begin=[0, 24], context=[0], slots=[0], logit_rows=[23]), tokens=tokens,
                      block_tables=np.arange(3, dtype=np.int32)[None])
    tokens[:] = prompt
    logits = model.step(batch, model.allocate(blocks=3, block_size=8))
    assert np.abs(logits[0] - golden["logits"][23]).max() < 2e-3


def test_a_wrong_batch_is_refused(model, checkpoint):
    state = model.allocate(blocks=2, block_size=8)
    good = arrays(tokens=[1, 2], row_begin=[0, 2], context=[0], slots=[0], logit_rows=[1])
    table = np.zeros((1, 1), np.int32)
    with pytest.raises(ttt.Error):
        model.step(ttt.Batch(**{**good, "tokens": np.array([1, 9999], np.int32)}, block_tables=table), state)
    with pytest.raises(ttt.Error):
        model.step(ttt.Batch(**good, block_tables=np.full((1, 1), 7, np.int32)), state)
    with pytest.raises(TypeError):
        ttt.Batch(**{**good, "tokens": np.zeros((1, 2), np.int32)}, block_tables=table)
    other = ttt.load(checkpoint, precision="f32")
    with pytest.raises(ttt.Error, match="another model"):
        other.step(ttt.Batch(**good, block_tables=table), state)


def test_a_state_outlives_the_name_of_its_model(checkpoint):
    model = ttt.load(checkpoint, precision="f32")
    state = model.allocate(blocks=2, block_size=8)
    with model.taps() as taps:
        model.generate([1, 2, 3], max_new_tokens=1)
    tensor = taps["layers.0.attn.q"]
    before = tensor.numpy().copy()
    del model, taps
    assert np.array_equal(tensor.numpy(), before) and state.blocks == 2


def test_taps_are_the_references_intermediates_without_a_copy(model):
    golden = reference("llama")
    prompt = golden["input_ids"][0].astype(np.int32)
    state = model.allocate(blocks=3, block_size=8)
    batch = ttt.Batch(**arrays(tokens=prompt, row_begin=[0, 24], context=[0], slots=[0], logit_rows=[23]),
                      block_tables=np.arange(3, dtype=np.int32)[None])
    with model.taps("layers.*") as taps:
        model.step(batch, state)
    assert "embed" not in taps and len(taps) > 20
    for name in ("layers.0.attn.q", "layers.1.ffn.hidden", "layers.2"):
        wanted = golden[name]
        found = taps[name].numpy().reshape(-1, wanted.shape[-1])[-len(wanted) :]
        assert np.abs(found - wanted).max() < 2e-3, name
    tensor = taps["layers.0.attn.q"]
    assert tensor.dtype == "f32" and np.prod(tensor.shape) == 24 * 64
    first, second = np.from_dlpack(tensor), tensor.numpy()
    assert first.__array_interface__["data"][0] == second.__array_interface__["data"][0]
    with pytest.raises(KeyError):
        taps["layers.0.nothing"]
    with model.taps() as silent:
        pass
    model.step(batch, state)
    assert len(silent) == 0


def test_a_block_format_and_bf16_are_read_as_float32(checkpoint):
    model = ttt.load(checkpoint, precision="bf16")
    with model.taps("layers.0.attn.q") as taps:
        model.generate([1, 2, 3], max_new_tokens=1)
    tensor = taps["layers.0.attn.q"]
    assert tensor.dtype == "bf16" and tensor.numpy().dtype == np.float32


def test_a_model_described_in_python(checkpoint, model):
    described = ttt.describe(checkpoint)
    spec = ttt.ModelSpec(described.spec.to_dict())
    assert spec == described.spec and described.weight_map == ttt.WeightMap.from_json(described.weight_map.to_json())
    weights = ttt.WeightMap.hf_decoder_names()
    same = ttt.load(checkpoint, spec=spec, weight_map=weights, precision="f32")
    wanted = model.generate([1, 2, 3], max_new_tokens=6).ids
    assert same.generate([1, 2, 3], max_new_tokens=6).ids == wanted
    # An experiment: one layer less, its weights dropped.
    fields = spec.to_dict()
    fields["layers"] = fields["layers"][:2]
    smaller = ttt.load(checkpoint, spec=ttt.ModelSpec(fields), weight_map=weights.ignore("*layers.2.*"), precision="f32")
    assert smaller.spec.layers == 2
    assert smaller.generate([1, 2, 3], max_new_tokens=6).ids != wanted
    with pytest.raises(ttt.Error, match="layers.2"):
        ttt.load(checkpoint, spec=ttt.ModelSpec(fields), weight_map=ttt.WeightMap.hf_decoder_names())
    with pytest.raises(ttt.Error, match="both"):
        ttt.load(checkpoint, spec=spec)
    with pytest.raises(ttt.Error):
        ttt.ModelSpec({"vocab": "many"})


def test_errors_have_parts(tmp_path, checkpoint):
    with pytest.raises(ttt.Error) as caught:
        ttt.load(tmp_path / "nothing")
    assert caught.value.problem and "nothing" in str(caught.value)
    with pytest.raises(ttt.Error, match="f32"):
        ttt.load(checkpoint, precision="f33")
    with pytest.raises(ttt.Error, match="cpu"):
        ttt.load(checkpoint, backend="gpu")


def test_the_null_backend_plans_without_weights(checkpoint):
    model = ttt.load(checkpoint, backend="null", sku="n150", precision="performance")
    assert model.precision == "performance" and model.plan


def test_families_and_backends():
    assert {"cpu", "null"} <= set(ttt.backend_names())
    assert any("LlamaForCausalLM" in family["architectures"] for family in ttt.families())
    assert "n150" in ttt.skus() and "bfp8_b" in ttt.precision_names()
    assert ttt.__version__.count(".") == 2
