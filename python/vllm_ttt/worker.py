"""The worker: turns each scheduler step into one ``CausalLM.step`` and a sample.

Steps run on one thread of their own, in order, with the GIL released: under async scheduling vLLM prepares the next step
meanwhile; otherwise each call waits for it.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

import torch
from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, KVCacheSpec
from vllm.v1.outputs import EMPTY_MODEL_RUNNER_OUTPUT, AsyncModelRunnerOutput, ModelRunnerOutput
from vllm.v1.worker.worker_base import CompilationTimes, WorkerBase

import ttt

from .engine import Engine, Row, open_model
from .platform import memory_available, options
from .sampling import BatchSampler, Request

if TYPE_CHECKING:
    from vllm.v1.core.sched.output import GrammarOutput, SchedulerOutput


class _Output(AsyncModelRunnerOutput):
    def __init__(self, future: Future) -> None:
        self._future = future

    def get_output(self) -> ModelRunnerOutput:
        return self._future.result()

    def get_kv_connector_output(self) -> None:
        return None


class _Forward:
    """What one step's forward left for its sampling."""

    def __init__(self, scheduled: SchedulerOutput) -> None:
        self.scheduled = scheduled
        self.emitting: list[Request] = []  # those that get a token, in the order of the logits
        self.reading: list[Request] = []  # in the middle of their prompts
        self.logits: torch.Tensor | None = None


class TttWorker(WorkerBase):
    engine: Engine

    def init_device(self) -> None:
        self.device = torch.device("cpu")
        # The step has threads of its own; torch's would spin beside them after each operation of the sampler.
        torch.set_num_threads(1)
        self._requests: dict[str, Request] = {}
        self._thread = ThreadPoolExecutor(1, "ttt-step")
        self._pending: Future | None = None
        if not torch.accelerator.is_available():
            # vLLM's shutdown calls them whatever the platform.
            torch.accelerator.empty_cache = torch.accelerator.empty_host_cache = lambda: None

    def load_model(self, *, load_dummy_weights: bool = False) -> None:
        model = open_model(self.model_config.model, options(self.vllm_config))
        if model.spec.vocab < self.model_config.get_vocab_size():
            raise ttt.Error(f"the model has {model.spec.vocab} tokens, vLLM expects {self.model_config.get_vocab_size()}",
                            self.model_config.model, "correct vocab_size in config.json")
        if not load_dummy_weights:
            model.load_weights()
        self.engine = Engine(model)
        self._sampler = BatchSampler(self.vllm_config, self.engine.vocab)

    def get_model(self) -> Engine:
        return self.engine

    def get_supported_tasks(self) -> tuple[str, ...]:
        return ("generate",)

    # ------------------------------------------------------------------ KV cache

    def get_supported_kv_cache_layouts(self) -> list[str]:
        return ["LBNHC"]

    def get_kv_cache_spec(self) -> dict[str, KVCacheSpec]:
        """One entry for all layers: a block id means the same block in each, so one table and one size serve them.

        A network without KV caches gets blocks of next to no size: vLLM schedules by blocks.
        """
        layers = self.engine.model.kv_layers
        return {"model.layers.0.attn": FullAttentionSpec(
            block_size=self.cache_config.block_size, num_kv_heads=1, head_size=layers[0].head_dim if layers else 1,
            dtype=torch.float32 if layers and layers[0].dtype == "f32" else torch.bfloat16,
            state_content_bytes=self._position_bytes())}

    def _position_bytes(self) -> int:
        return max(1, self.engine.bytes_per_position)

    def determine_available_memory(self) -> int:
        """What max_num_seqs contexts need, within half of the memory that is free."""
        given = self.cache_config.kv_cache_memory_bytes or options(self.vllm_config).get("kv_bytes")
        if given:
            return int(given)
        block = self.cache_config.block_size
        blocks = (self.model_config.max_model_len + block - 1) // block
        wanted = (self.scheduler_config.max_num_seqs * blocks + 1) * block * self._position_bytes()
        return min(wanted, memory_available() // 2)

    def initialize_from_config(self, config: KVCacheConfig) -> None:
        slots = self.scheduler_config.max_num_seqs
        self.engine.allocate(config.num_blocks, config.kv_cache_groups[0].kv_cache_spec.block_size, slots)
        self._free_slots = list(range(slots)) if self.engine.recurrent else []

    def update_max_model_len(self, max_model_len: int) -> None:
        self.model_config.max_model_len = max_model_len

    def compile_or_warm_up_model(self) -> CompilationTimes:
        return CompilationTimes(language_model=0.0, encoder=0.0)

    # ------------------------------------------------------------------ a step

    def execute_model(self, scheduler_output: SchedulerOutput) -> ModelRunnerOutput | None:
        future = self._thread.submit(self._forward, scheduler_output)
        if not self.scheduler_config.async_scheduling:
            future.result()
        if scheduler_output.total_num_scheduled_tokens == 0:
            return EMPTY_MODEL_RUNNER_OUTPUT
        self._pending = future
        return None

    def sample_tokens(self, grammar_output: GrammarOutput | None) -> ModelRunnerOutput | AsyncModelRunnerOutput | None:
        if self._pending is None:
            return None
        forward, self._pending = self._pending, None
        future = self._thread.submit(self._sample, forward, grammar_output)
        return _Output(future) if self.scheduler_config.async_scheduling else future.result()

    def take_draft_token_ids(self) -> None:
        return None

    def execute_dummy_batch(self) -> None:
        """Ranks of a data-parallel group do not wait for each other."""

    def reset_encoder_cache(self) -> None:
        """There is no encoder."""

    def check_health(self) -> None:
        """A worker that answers is healthy."""

    def shutdown(self) -> None:
        self._thread.shutdown(wait=True, cancel_futures=True)

    # ------------------------------------------------------------------ on the thread of the steps

    def _update_requests(self, scheduled: SchedulerOutput) -> None:
        for req_id in scheduled.finished_req_ids:
            if (request := self._requests.pop(req_id, None)) is not None:
                self._release_slot(request)
        for req_id in scheduled.preempted_req_ids or ():
            if req_id in self._requests:
                self._release_slot(self._requests[req_id])
        for new in scheduled.scheduled_new_reqs:
            self._requests[new.req_id] = Request(
                req_id=new.req_id, prompt=list(new.prompt_token_ids or ()), params=new.sampling_params,
                blocks=list(new.block_ids[0]), computed=new.num_computed_tokens)
        cached = scheduled.scheduled_cached_reqs
        for i, req_id in enumerate(cached.req_ids):
            request = self._requests[req_id]
            request.computed = cached.num_computed_tokens[i]
            blocks = cached.new_block_ids[i]
            if req_id in cached.resumed_req_ids:
                request.blocks = list(blocks[0]) if blocks else []
                # The scheduler has dropped tokens that were on their way when it preempted.
                request.output[:] = cached.all_token_ids[req_id][len(request.prompt) :]
            elif blocks:
                request.blocks += blocks[0]

    def _release_slot(self, request: Request) -> None:
        if request.slot >= 0:
            self._free_slots.append(request.slot)
            request.slot = -1

    def _forward(self, scheduled: SchedulerOutput) -> _Forward:
        self._update_requests(scheduled)
        result = _Forward(scheduled)
        if not scheduled.total_num_scheduled_tokens:
            return result
        counts = scheduled.num_scheduled_tokens
        requests = [self._requests[req_id] for req_id in counts]
        emits = {r.req_id: r.computed + counts[r.req_id] == r.known for r in requests}
        result.emitting = [r for r in requests if emits[r.req_id]]
        result.reading = [r for r in requests if not emits[r.req_id]]
        rows, scored = [], []
        for request in result.emitting + result.reading:
            count = counts[request.req_id]
            # Prompt positions whose next token is a prompt token too, when their log-probabilities are wanted.
            score = 0
            if request.params.prompt_logprobs is not None and not request.prompt_logprobs_sent:
                score = max(0, min(count, len(request.prompt) - 1 - request.computed))
            scored.append(score)
            if self.engine.recurrent and request.slot < 0:
                request.slot = self._free_slots.pop()
            wanted = list(range(score))
            if emits[request.req_id]:
                wanted.append(count - 1)
            rows.append(Row(tokens=request.tokens(request.computed, count), context=request.computed, blocks=request.blocks,
                            slot=max(0, request.slot), wanted=wanted))
        logits = torch.from_numpy(self.engine.forward(rows))
        chosen, begin = [], 0
        for request, row, score in zip(result.emitting + result.reading, rows, scored, strict=True):
            if score:
                self._sampler.prompt_logprobs(request, row.context, logits[begin : begin + score])
            begin += len(row.wanted)
            if emits[request.req_id]:
                chosen.append(begin - 1)
        result.logits = logits if chosen == list(range(len(logits))) else logits[chosen]
        return result

    def _sample(self, forward: Future, grammar: GrammarOutput | None) -> ModelRunnerOutput:
        step: _Forward = forward.result()  # done: this thread ran it; raises what it raised
        tokens: list[list[int]] = [[] for _ in step.emitting + step.reading]
        logprobs = None
        if step.emitting:
            sampled = self._sampler.sample(step.emitting, step.logits, step.scheduled, grammar)
            for request, row, token in zip(step.emitting, tokens, sampled.sampled_token_ids.view(-1).tolist(), strict=False):
                request.output.append(token)
                row.append(token)
            if sampled.logprobs_tensors is not None:
                logprobs = sampled.logprobs_tensors.tolists()
        scores = {}
        for request in step.emitting:
            if request.prompt_logprobs is not None:
                scores[request.req_id], request.prompt_logprobs = request.prompt_logprobs, None
                request.prompt_logprobs_sent = True
        ids = [request.req_id for request in step.emitting + step.reading]
        return ModelRunnerOutput(req_ids=ids, req_id_to_index={req_id: i for i, req_id in enumerate(ids)}, sampled_token_ids=tokens,
                                 logprobs=logprobs, prompt_logprobs_dict={req_id: scores.get(req_id) for req_id in ids},
                                 pooler_output=[])

