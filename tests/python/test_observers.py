"""Selection of tests, debug mode and profiles: what `ttt tests`, `ttt debug` and `ttt perf` do, as Python calls."""

import json

import numpy as np
import pytest
from support import ROOT, reference

import ttt

PROMPT = [int(i) for i in reference("llama")["input_ids"][0]]
REFERENCE = ROOT / "tests/golden/reference/llama.safetensors"


def test_tests_are_selected_and_run(checkpoint):
    selection = ttt.tests.select(family="llama", module="norm")
    assert isinstance(selection, ttt.tests.Selection)
    assert 0 < len(selection.instances) < selection.of_instances
    assert all(row["kind"].startswith("norm") and row["why"] for row in selection.instances)
    own = ttt.tests.select(model=checkpoint, precision="f32")
    rows = own.run(threads=2, repeats=2)
    assert len(rows) == own.of_instances
    assert all(row["outcome"] == "pass" and row["pcc"] > 0.99999 and len(row["seconds"]) == 2 for row in rows)
    with pytest.raises(ttt.Error, match="nearest is llama"):
        ttt.tests.select(family="lama")


def test_a_debug_run_is_a_mapping_of_the_references_intermediates(model, tmp_path):
    run = ttt.debug.run(model, PROMPT, taps="attn.*,ffn", layers="0-1")
    golden = reference("llama")
    assert "layers.0.attn.q" in run and "layers.2.attn.q" not in run and list(run)[0] == "layers.0.attn.in"
    for name in ("layers.0.attn.q", "layers.1.ffn"):
        assert run[name].dtype == np.float32 and run[name].shape == (24, 64)
        assert np.abs(run[name][-len(golden[name]):] - golden[name]).max() < 2e-3
    with pytest.raises(KeyError):
        run["layers.0.nothing"]
    assert run.prompt == PROMPT and run.non_finite == []
    document = run.document
    assert document["kind"] == "debug_run" and len(document["taps"]) == len(run) and document["model"] == "llama"
    run.save(tmp_path / "taps.safetensors")
    assert ttt.debug.compare(model, tmp_path / "taps.safetensors").agrees
    assert len(ttt.debug.run(model, "The other", taps="embed").prompt) > 1


def test_comparisons_name_the_first_divergence(checkpoint, model):
    same = ttt.debug.compare(model, REFERENCE)
    assert same.agrees and same.first_divergence is None and "0.002" in same.expected
    strict = ttt.debug.compare(model, REFERENCE, tolerance=1e-12)
    assert not strict.agrees and strict.first_divergence in repr(strict)
    assert strict.document["first_divergence"] == strict.first_divergence

    described = ttt.describe(checkpoint)
    fields = described.spec.to_dict()
    fields["layers"][1]["mixer"]["attention"]["window"] = 3
    wrong = ttt.load(checkpoint, spec=ttt.ModelSpec(fields), weight_map=described.weight_map, precision="f32")
    assert ttt.debug.compare(wrong, REFERENCE).first_divergence == "layers.1.attn.context"
    alone = ttt.debug.compare(wrong, model, PROMPT, taps="attn,ffn", isolate=True)
    assert [row["tap"] for row in alone.document["taps"] if not row["good"]] == ["layers.1.attn"]
    assert alone.document["isolated_modules"] == 6

    lossy = ttt.load(checkpoint, precision="bfp8_b")
    assert ttt.debug.compare(lossy, model, PROMPT, isolate=True).agrees
    assert ttt.debug.compare(lossy, model, PROMPT, pcc=1).grows_most_at is not None
    with pytest.raises(TypeError, match="prompt"):
        ttt.debug.compare(lossy, model)
    with pytest.raises(TypeError, match="reference"):
        ttt.debug.compare(model, REFERENCE, "text")
    with pytest.raises(ttt.Error):
        ttt.debug.compare(model, checkpoint / "nothing")
    with pytest.raises(ttt.Error, match="write numbers"):
        ttt.debug.run(model, PROMPT, layers="x")


def test_a_profile_says_where_time_goes(model, tmp_path):
    profile = ttt.perf.run(model, prompt_tokens=16, new_tokens=4, repeats=2, threads=1)
    prefill, decode = profile.phases
    assert (prefill["phase"], decode["phase"]) == ("prefill", "decode") and prefill["tokens"] == 16
    assert {"attn.qkv", "ffn.down"} <= {row["module"] for row in decode["rows"]}
    assert profile.document["counters"] and len(profile.trace) > 1000
    assert prefill["expectations"] == []
    row = {"key": "mlp/nothing", "device": "nowhere", "pcc_at_least": 1, "error_at_most": 0, "version": "", "commit": "", "date": ""}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
    assert ttt.perf.run(model, prompt_tokens=4, new_tokens=1, repeats=1, threads=1, serving=False,
                        expectations=tmp_path / "rows.jsonl").document["counters"] == []
    with pytest.raises(ttt.Error, match="can not be read"):
        ttt.perf.run(model, prompt_tokens=4, new_tokens=1, repeats=1, expectations=tmp_path / "nothing")
    with pytest.raises(ttt.Error):
        ttt.perf.run(model, prompt_tokens=0)


def test_results_become_one_page(model, tmp_path):
    results = [ttt.debug.run(model, PROMPT, taps="ffn"), ttt.debug.compare(model, REFERENCE),
               ttt.perf.run(model, prompt_tokens=4, new_tokens=1, repeats=1, threads=1, serving=False).document]
    page = ttt.debug.report(results, tmp_path / "page.html")
    assert (tmp_path / "page.html").read_text() == page
    assert all(f'"{kind}"' in page for kind in ("debug_run", "debug_compare", "perf"))
    with pytest.raises(ttt.Error, match="document 1"):
        ttt.debug.report([{}])
