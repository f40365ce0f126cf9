"""From logits to tokens by vLLM's own sampler, so that every parameter means what it means elsewhere under vLLM."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from vllm.sampling_params import SamplingType
from vllm.v1.outputs import LogprobsTensors, SamplerOutput
from vllm.v1.sample.logits_processor import BatchUpdate, build_logitsprocs
from vllm.v1.sample.metadata import SamplingMetadata
from vllm.v1.sample.sampler import Sampler
from vllm.v1.structured_output.utils import apply_grammar_bitmask

if TYPE_CHECKING:
    from vllm import SamplingParams
    from vllm.config import VllmConfig
    from vllm.v1.core.sched.output import GrammarOutput, SchedulerOutput


@dataclass
class Request:
    """A request as the worker knows it."""

    req_id: str
    prompt: list[int]
    params: SamplingParams
    blocks: list[int]
    computed: int
    output: list[int] = field(default_factory=list)
    slot: int = -1  # of recurrent state
    generator: torch.Generator | None = None
    prompt_logprobs: LogprobsTensors | None = None
    prompt_logprobs_sent: bool = False

    def __post_init__(self) -> None:
        if self.params.sampling_type == SamplingType.RANDOM_SEED:
            self.generator = torch.Generator()

    @property
    def known(self) -> int:
        return len(self.prompt) + len(self.output)

    def tokens(self, begin: int, count: int) -> list[int]:
        split = len(self.prompt)
        if begin >= split:
            return self.output[begin - split : begin - split + count]
        return self.prompt[begin : begin + count] + self.output[: max(0, begin + count - split)]


@dataclass
class _Order:
    req_ids: list[str]


class BatchSampler:
    """Samples one token for each request of a step."""

    def __init__(self, config: VllmConfig, vocab: int) -> None:
        self._vocab = vocab
        self._sampler = Sampler(config.model_config.logprobs_mode)
        self._processors = build_logitsprocs(config, torch.device("cpu"), False, False, config.model_config.logits_processors or ())
        self._order: list[str] = []  # of the rows that the processors know

    def sample(self, requests: list[Request], logits: torch.Tensor, scheduled: SchedulerOutput,
               grammar: GrammarOutput | None) -> SamplerOutput:
        """`logits` [len(requests), vocab], changed in place."""
        if grammar is not None and grammar.grammar_bitmask is not None:
            apply_grammar_bitmask(scheduled, grammar, _Order([r.req_id for r in requests]), logits)
        return self._sampler(logits=logits, sampling_metadata=self._metadata(requests))

    def prompt_logprobs(self, request: Request, first: int, logits: torch.Tensor) -> None:
        """Takes in the logits of prompt positions [first, first + len(logits)), each of which predicts the next one."""
        count = request.params.prompt_logprobs
        count = self._vocab if count == -1 else count
        if request.prompt_logprobs is None:
            request.prompt_logprobs = LogprobsTensors.empty_cpu(len(request.prompt) - 1, count + 1)
        rows = slice(first, first + len(logits))
        following = torch.tensor(request.prompt[first + 1 : first + 1 + len(logits)], dtype=torch.int64)
        found = self._sampler.gather_logprobs(self._sampler.compute_logprobs(logits), count, following)
        for target, values in zip(request.prompt_logprobs[:3], found[:3], strict=True):
            target[rows] = values

    def _metadata(self, requests: list[Request]) -> SamplingMetadata:
        params = [request.params for request in requests]
        self._update_processors(requests)

        def column(values, dtype=torch.float32) -> torch.Tensor:
            return torch.tensor(list(values), dtype=dtype)

        temperature = column(p.temperature for p in params)
        greedy = temperature < 1e-5
        plain = all(p.presence_penalty == 0 and p.frequency_penalty == 0 and p.repetition_penalty == 1 for p in params)
        logprobs = [p.num_logprobs for p in params if p.num_logprobs is not None]
        for request in requests:
            if request.generator is not None:
                # A draw depends on seed and position alone, so preemption and discarded steps change nothing.
                mixed = np.random.SeedSequence([request.params.seed % 2**64, len(request.output)])
                request.generator.manual_seed(int(mixed.generate_state(1, np.uint64)[0]))
        return SamplingMetadata(
            temperature=None if bool(greedy.all()) else temperature,
            all_greedy=bool(greedy.all()),
            all_random=not bool(greedy.any()),
            top_p=column(p.top_p for p in params) if any(p.top_p < 1 for p in params) else None,
            top_k=column((p.top_k if p.top_k > 0 else self._vocab for p in params), torch.int32)
            if any(p.top_k > 0 for p in params) else None,
            generators={i: r.generator for i, r in enumerate(requests) if r.generator is not None},
            max_num_logprobs=max((self._vocab if n == -1 else n for n in logprobs), default=None),
            no_penalties=plain,
            prompt_token_ids=None if plain else self._padded_prompts(requests),
            frequency_penalties=column(p.frequency_penalty for p in params),
            presence_penalties=column(p.presence_penalty for p in params),
            repetition_penalties=column(p.repetition_penalty for p in params),
            output_token_ids=[r.output for r in requests],
            allowed_token_ids_mask=self._forbidden(params),
            bad_words_token_ids={i: p.bad_words_token_ids for i, p in enumerate(params) if p.bad_words_token_ids},
            logitsprocs=self._processors,
            logprob_token_ids={i: p.logprob_token_ids for i, p in enumerate(params) if p.logprob_token_ids} or None,
        )

    def _padded_prompts(self, requests: list[Request]) -> torch.Tensor:
        padded = torch.full((len(requests), max(len(r.prompt) for r in requests)), self._vocab, dtype=torch.int64)
        for row, request in zip(padded, requests, strict=True):
            row[: len(request.prompt)] = torch.tensor(request.prompt)
        return padded

    def _forbidden(self, params: list[SamplingParams]) -> torch.Tensor | None:
        if not any(p.allowed_token_ids for p in params):
            return None
        mask = torch.zeros((len(params), self._vocab), dtype=torch.bool)
        for row, p in zip(mask, params, strict=True):
            if p.allowed_token_ids:
                row.fill_(True)
                row[p.allowed_token_ids] = False
        return mask

    def _update_processors(self, requests: list[Request]) -> None:
        """Tells min-p, logit bias, min-tokens and processors of plugins which request is in which row."""
        order = [r.req_id for r in requests]
        update = None
        if order != self._order:
            update = BatchUpdate(
                batch_size=len(order),
                removed=list(range(len(order), len(self._order))),
                added=[(i, r.params, r.prompt, r.output) for i, r in enumerate(requests)],
                moved=[],
            )
            self._order = order
        for processor in self._processors.all:
            processor.update_state(update)
