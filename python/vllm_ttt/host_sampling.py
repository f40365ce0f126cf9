"""Sampling as Tenstorrent's plugin asks a device for it: lists of parameters, one entry per row."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch


class HostSampler:
    """Temperature, top-k, top-p, penalties and seeds. Draws depend on seed and position alone."""

    def __init__(self, vocab: int) -> None:
        self._vocab = vocab
        self._prompt: Any = None
        self._output: Any = None
        self._fallback = np.random.SeedSequence().entropy  # of rows without a seed

    def begin_decode(self, prompt_tokens: Any, output_tokens: Any) -> None:
        """Token ids [B, n] of prompts and outputs for the penalties, padded with -1; None: as before."""
        self._prompt = prompt_tokens if prompt_tokens is not None else self._prompt
        self._output = output_tokens if output_tokens is not None else self._output

    def sample(self, logits: torch.Tensor, params: Any, positions: list[int],
               rows: list[int] | None = None) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        """Tokens [n] of logits [n, V]; with log-probabilities of the chosen ones where enable_log_probs is set.

        `rows`: those of the batch that the parameters are listed by; None: 0, 1, ..
        """
        rows = list(range(len(logits))) if rows is None else rows
        wants_logprobs = _truthy(getattr(params, "enable_log_probs", None))
        raw = torch.log_softmax(logits, -1) if wants_logprobs else None
        tokens = torch.empty(len(rows), dtype=torch.int64)
        for i, row in enumerate(rows):
            tokens[i] = self._one(logits[i].clone(), params, row, positions[i])
        if raw is None:
            return tokens
        return tokens, raw.gather(1, tokens[:, None]).squeeze(1)

    def _one(self, logits: torch.Tensor, params: Any, row: int, position: int) -> int:
        def value(name: str, default: float) -> float:
            given = getattr(params, name, None)
            if isinstance(given, (list, tuple, np.ndarray, torch.Tensor)):
                given = given[row] if row < len(given) else None
            return default if given is None else given

        self._penalise(logits, row, value)
        temperature = float(value("temperature", 0))
        if temperature < 1e-5:
            return int(logits.argmax())
        probabilities = torch.softmax(logits.double() / temperature, -1)
        probabilities, order = probabilities.sort(descending=True, stable=True)
        top_k = int(value("top_k", 0))
        if 0 < top_k < self._vocab:
            probabilities, order = probabilities[:top_k], order[:top_k]
            probabilities = probabilities / probabilities.sum()
        top_p = float(value("top_p", 1))
        if top_p < 1:
            kept = probabilities.cumsum(0) - probabilities < top_p  # the first is always kept
            probabilities, order = probabilities[kept], order[kept]
        seed = value("seed", -1)
        key = [self._fallback, row] if seed == -1 else [int(seed) % 2**64]
        uniform = np.random.default_rng(np.random.SeedSequence([*key, position])).random()
        cumulated = probabilities.cumsum(0)
        index = int(torch.searchsorted(cumulated, uniform * cumulated[-1], right=True))
        return int(order[min(index, len(order) - 1)])

    def _penalise(self, logits: torch.Tensor, row: int, value: Any) -> None:
        repetition, presence, frequency = value("repetition_penalty", 1), value("presence_penalty", 0), value("frequency_penalty", 0)
        if repetition == 1 and presence == 0 and frequency == 0:
            return
        output = self._counts(self._output, row)
        seen = (self._counts(self._prompt, row) + output) > 0
        logits[seen] = torch.where(logits[seen] > 0, logits[seen] / repetition, logits[seen] * repetition)
        logits -= frequency * output + presence * (output > 0)

    def _counts(self, ids: Any, row: int) -> torch.Tensor:
        if ids is None or row >= len(ids):
            return torch.zeros(self._vocab)
        values = torch.as_tensor(ids[row]).to(torch.int64).reshape(-1)
        values = values[(values >= 0) & (values < self._vocab)]
        return torch.bincount(values, minlength=self._vocab).float()


def _truthy(value: Any) -> bool:
    return any(value) if isinstance(value, (list, tuple)) else bool(value)
