"""Where the time of a model goes, beside what the machine could do: what ``ttt perf`` does (docs/profiling.md)."""

from __future__ import annotations

from ._core import CausalLM, Profile, profile
from ._libraries import PathLike
from .debug import _name

__all__ = ["Profile", "run"]


def run(model: CausalLM, *, prompt_tokens: int = 128, new_tokens: int = 16, batch: int = 1, repeats: int = 3,
        threads: int = 0, serving: bool = True, expectations: PathLike | None = None) -> Profile:
    """Profiles the prefill of ``batch`` prompts and decode steps: time, bytes and FLOPs of every operation of every module,
    the share of the machine's roof, and modules beside their recorded expectations. ``serving`` also runs the generator,
    for its counters; ``threads`` is for the measurements of the machine. ``debug.report()`` makes a page of it."""
    return profile(model, _name(model), prompt_tokens=prompt_tokens, new_tokens=new_tokens, batch=batch, repeats=repeats,
                   threads=threads, serving=serving, expectations=expectations)
