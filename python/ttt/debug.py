"""Intermediates of a model, and the first one that leaves a reference or another run: what ``ttt debug`` does
(docs/debugging.md)."""

from __future__ import annotations

import os
from collections.abc import Sequence

from ._core import CausalLM, Comparison, DebugRun, debug_compare_models, debug_compare_reference, debug_run, html_report
from ._error import Error
from ._libraries import PathLike

__all__ = ["Comparison", "DebugRun", "compare", "report", "run"]


def _name(model: CausalLM) -> str:
    return os.path.basename(os.path.normpath(getattr(model, "path", model.architecture)))


def _ids(model: CausalLM, prompt: str | Sequence[int]) -> list[int]:
    if not isinstance(prompt, str):
        return list(prompt)
    if model.tokenizer is None:
        raise Error("no tokenizer", model.family, "give the prompt as token ids")
    return model.tokenizer.encode(prompt)


def run(model: CausalLM, prompt: str | Sequence[int], *, taps: str = "", layers: str = "", decode: int = 0,
        hunt: bool = True) -> DebugRun:
    """Keeps what the model computes on the way. ``taps`` are patterns, separated by commas, of names inside a layer
    ("attn.*") or of whole ones ("layers.*.attn"); ``layers`` is "0-3,7"; the last ``decode`` tokens are fed one by one;
    ``hunt`` searches the result of every operation for NaN and infinities."""
    return debug_run(model, _name(model), _ids(model, prompt), taps=taps, layers=layers, decode=decode, hunt=hunt)


def compare(model: CausalLM, against: CausalLM | PathLike, prompt: str | Sequence[int] | None = None, *, taps: str = "",
            layers: str = "", decode: int = 0, isolate: bool = False, hunt: bool = True, pcc: float = 0,
            tolerance: float = 0, expectations: PathLike | None = None) -> Comparison:
    """Walks the intermediates beside those of a reference file, whose prompt is run, or of another model (the same one
    loaded otherwise) on ``prompt``. ``isolate`` runs every mixer and feed-forward on the counterpart's input, so that each
    shows its own error alone, and expects what is recorded of its instance. ``pcc`` and ``tolerance`` replace what is
    expected."""
    options = {"taps": taps, "layers": layers, "decode": decode, "isolate": isolate, "hunt": hunt, "pcc": pcc,
               "tolerance": tolerance, "expectations": expectations}
    if isinstance(against, CausalLM):
        if prompt is None:
            raise TypeError("give a prompt to run on both models")
        return debug_compare_models(model, _name(model), against, _ids(model, prompt), **options)
    if prompt is not None:
        raise TypeError("the prompt is that of the reference")
    return debug_compare_reference(model, _name(model), against, **options)


def report(results: Sequence, out: PathLike | None = None) -> str:
    """One HTML page, without need of a network, of any results: a DebugRun, a Comparison, a perf.Profile, or a document of
    one. Written to ``out`` where that is given."""
    page = html_report([getattr(result, "document", result) for result in results])
    if out is not None:
        with open(out, "w", encoding="utf-8") as file:
            file.write(page)
    return page
