"""The model as both adapters drive it: rows of a step as numpy arrays into ``CausalLM.step``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

import ttt

# What additional_config["ttt"] may hold; all but kv_bytes go to ttt.Model.
OPTIONS = ("backend", "sku", "mesh", "precision", "overrides", "threads", "deterministic", "cache", "model_libraries")


@dataclass
class Row:
    """What one sequence brings to a step."""

    tokens: Sequence[int] | np.ndarray  # new ones
    context: int  # tokens whose KV is there
    blocks: Sequence[int] | np.ndarray
    slot: int = 0
    wanted: range | Sequence[int] = ()  # of `tokens`, those whose logits are wanted, ascending


def open_model(path: str, options: dict, **changes: object) -> ttt.Model:
    """Loads with the options that ``--additional-config '{"ttt": {...}}'`` gave."""
    unknown = sorted(set(options) - {*OPTIONS, "kv_bytes"})
    if unknown:
        raise ttt.Error(f"no option {', '.join(unknown)}", "additional_config.ttt", f"use {', '.join((*OPTIONS, 'kv_bytes'))}")
    given = {key: value for key, value in options.items() if key in OPTIONS}
    return ttt.Model(path, **{**given, **changes})


class Engine:
    """One model and its state. Block tables and slots are the caller's."""

    def __init__(self, model: ttt.CausalLM) -> None:
        self.model = model
        self.capabilities = model.capabilities
        self.recurrent = not self.capabilities.prefix_reuse
        self.bytes_per_position = sum(layer.bytes_per_position for layer in model.kv_layers)
        self.vocab = model.spec.vocab
        self.state: ttt.State | None = None

    def allocate(self, blocks: int, block_size: int, slots: int) -> None:
        self.state = None  # its memory first
        self.state = self.model.allocate(blocks=max(1, blocks), block_size=block_size, slots=slots)

    def forward(self, rows: list[Row]) -> np.ndarray:
        """Float32 logits [sum of wanted, vocab], in the order of the rows."""
        if not rows:
            return np.empty((0, self.vocab), np.float32)
        if not self.capabilities.mixed_step:
            single = [len(row.tokens) == 1 for row in rows]
            if any(single) and not all(single):
                return self._split(rows, single)
        return self._step(rows)

    def _split(self, rows: list[Row], single: list[bool]) -> np.ndarray:
        """A step for the rows that decode and one for those that prefill."""
        counts = np.array([len(row.wanted) for row in rows])
        ends = np.cumsum(counts)
        logits = np.empty((int(ends[-1]), self.vocab), np.float32)
        for kind in (True, False):
            chosen = [i for i, one in enumerate(single) if one == kind]
            part = self._step([rows[i] for i in chosen])
            begin = 0
            for i in chosen:
                logits[ends[i] - counts[i] : ends[i]] = part[begin : begin + counts[i]]
                begin += counts[i]
        return logits

    def _step(self, rows: list[Row]) -> np.ndarray:
        assert self.state is not None
        row_begin = np.zeros(len(rows) + 1, np.int32)
        np.cumsum([len(row.tokens) for row in rows], out=row_begin[1:])
        tables = np.full((len(rows), max(1, max(len(row.blocks) for row in rows))), -1, np.int32)
        tokens = np.empty(row_begin[-1], np.int32)
        wanted: list[int] = []
        for i, row in enumerate(rows):
            begin = int(row_begin[i])
            tokens[begin : row_begin[i + 1]] = row.tokens
            tables[i, : len(row.blocks)] = row.blocks
            wanted.extend(begin + position for position in row.wanted)
        batch = ttt.Batch(
            tokens=tokens,
            row_begin=row_begin,
            context=np.fromiter((row.context for row in rows), np.int32, len(rows)),
            block_tables=tables,
            slots=np.fromiter((row.slot for row in rows), np.int32, len(rows)),
            logit_rows=np.array(wanted, np.int32),
        )
        return self.model.step(batch, self.state)
