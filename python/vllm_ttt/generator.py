"""Tenstorrent's model contract for vLLM (tenstorrent/vllm-tt-plugin): one generator class for all models.

A subclass only names an architecture::

    class MyModel(Generator):
        architecture = "MyForCausalLM"

The plugin's model bundle then names that class. Its runner owns block tables and state slots; a step here is one
``CausalLM.step``. Arrays come as torch tensors or numpy arrays of int32 or int64; results are torch tensors on the host.
"""

from __future__ import annotations

import json
import os
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import torch

import ttt

from .engine import Engine, Row, open_model
from .host_sampling import HostSampler


def _ints(values: Any) -> np.ndarray:
    return np.asarray(values.cpu().numpy() if isinstance(values, torch.Tensor) else values).astype(np.int64, copy=False)


class KvCache:
    """The opaque handle that allocate_kv_cache() gives and every forward gets back."""

    def __init__(self, blocks: int, block_size: int) -> None:
        self.blocks = blocks
        self.block_size = block_size


class Generator:
    """See the contract: prefill_forward, decode_forward and what stands around them."""

    architecture = ""  # as in config.json; empty: whatever the checkpoint says
    model_capabilities = {"supports_prefix_caching": True, "supports_async_decode": True, "supports_sample_on_device": True}

    def __init__(self, model: ttt.CausalLM, max_batch_size: int, max_seq_len: int) -> None:
        if self.architecture and model.architecture and self.architecture != model.architecture:
            raise ttt.Error(f"{type(self).__name__} is for {self.architecture}, the checkpoint is {model.architecture}",
                            "initialize_vllm_model", "register a subclass that names this architecture")
        self.engine = Engine(model)
        self.max_batch_size = max_batch_size
        self.max_seq_len = max_seq_len
        self.already_warmed_up_prefill = False  # the runner resets it between its two phases
        self._sampler = HostSampler(self.engine.vocab)
        self._thread = ThreadPoolExecutor(1, "ttt-decode")

    # ------------------------------------------------------------------ construction

    @classmethod
    def initialize_vllm_model(cls, hf_config: Any, mesh_device: Any, max_batch_size: int, *, max_seq_len: int,
                              tt_data_parallel: int = 1, optimizations: str | None = None, **_: Any) -> Generator:
        """Loads the checkpoint that ``hf_config`` came from.

        ``optimizations`` ("performance", "accuracy") names the precision recipe. ``TTT_VLLM_OPTIONS``, a JSON object, holds
        further options of ttt.load, as {"backend": "ttnn", "sku": "n150"}; the mesh's shape is taken from ``mesh_device``
        where that has one and the backend is not the processor.
        """
        if tt_data_parallel != 1:
            raise ttt.Error(f"tt_data_parallel is {tt_data_parallel}", "initialize_vllm_model",
                            "run one engine per submesh: vLLM's --data-parallel-size")
        options = json.loads(os.environ.get("TTT_VLLM_OPTIONS", "{}"))
        if optimizations:
            options.setdefault("precision", optimizations)
        shape = getattr(mesh_device, "shape", None)
        if options.get("backend", "cpu") != "cpu" and shape is not None:
            options.setdefault("mesh", "x".join(str(extent) for extent in shape))
        model = open_model(hf_config._name_or_path, options)
        if model.capabilities.prefix_reuse is False and cls.model_capabilities["supports_prefix_caching"]:
            raise ttt.Error("prefix caching is unsound for this model: its recurrent state can not be shared",
                            cls.__name__, "name it by a subclass of RecurrentGenerator")
        return cls(model, max_batch_size, max_seq_len)

    @classmethod
    def get_max_tokens_all_users(cls, *, model_name: str, num_devices: int, tt_data_parallel: int, max_model_len: int,
                                 max_num_seqs: int) -> int:
        """Tokens that the KV cache should hold: every sequence at its full length."""
        return max_model_len * max_num_seqs

    @classmethod
    def get_kv_cache_spec(cls, vllm_config: Any) -> None:
        """All layers share one table, so there is nothing hybrid to declare."""
        return None

    def allocate_kv_cache(self, shape: tuple[int, int, int, int], dtype: torch.dtype, num_layers: int) -> KvCache:
        """``shape``: (blocks, KV heads of one device, block size, head size). What a block holds is the plan's to say."""
        blocks, _, block_size, _ = shape
        self.engine.allocate(blocks, block_size, self.max_batch_size)
        return KvCache(blocks, block_size)

    def allocate_kv_cache_per_layer(self, layers: list[tuple[tuple[int, int, int, int], torch.dtype, int]]) -> KvCache:
        """The hybrid form [(shape, dtype, index)]: layers must agree on blocks and block size, which one table needs."""
        sizes = {(shape[0], shape[2]) for shape, _, _ in layers}
        if len(sizes) != 1:
            raise ttt.Error("layers with block tables of their own are not supported", "allocate_kv_cache_per_layer",
                            "give all layers the same number and size of blocks")
        blocks, block_size = sizes.pop()
        return self.allocate_kv_cache((blocks, 1, block_size, 1), torch.bfloat16, len(layers))

    # ------------------------------------------------------------------ warm-up

    def warmup_model_prefill(self, *, kv_cache: KvCache, enable_trace: bool, can_sample_on_device: bool) -> None:
        if self.already_warmed_up_prefill:
            return
        self.engine.model.load_weights()
        self._dummy(np.zeros(min(kv_cache.block_size, self.max_seq_len), np.int64))
        self.already_warmed_up_prefill = True

    def warmup_model_decode(self, *, kv_cache: KvCache, enable_trace: bool, max_batch_size: int, num_blocks: int,
                            can_sample_on_device: bool) -> None:
        self._dummy(np.zeros(1, np.int64))

    def _dummy(self, tokens: np.ndarray) -> None:
        """A step on the first block, which holds nothing yet."""
        self.engine.forward([Row(tokens=tokens, context=0, blocks=[0], wanted=[len(tokens) - 1])])

    # ------------------------------------------------------------------ forwards

    def prefill_forward(self, *, tokens: Any, page_table: Any, kv_cache: KvCache, prompt_lens: Any, start_pos: Any = None,
                        enable_trace: bool = False, empty_slots: list[int] | None = None, sampling_params: Any = None,
                        page_tables_per_layer: Any = None, **unknown: Any) -> torch.Tensor | tuple:
        """``tokens`` [N, longest], of which row i brings [start_pos[i], prompt_lens[i]): what is before is in the cache.

        Logits [N, 1, V] of the last positions, or tokens [N] where ``sampling_params`` says so.
        """
        self._refuse(page_tables_per_layer, unknown)
        tokens, page_table, ends = _ints(tokens), _ints(page_table), _ints(prompt_lens)
        starts = np.zeros_like(ends) if start_pos is None else _ints(start_pos)
        slots = empty_slots if empty_slots is not None else range(len(tokens))
        rows = [Row(tokens=tokens[i, start:end], context=int(start), blocks=self._blocks(page_table[i], int(end), kv_cache),
                    slot=int(slot), wanted=[int(end - start) - 1])
                for i, (start, end, slot) in enumerate(zip(starts, ends, slots, strict=True))]
        logits = torch.from_numpy(self.engine.forward(rows))
        if sampling_params is None:
            return logits[:, None, :]
        return self._sampler.sample(logits, sampling_params, [int(end) for end in ends])

    def decode_forward(self, *, tokens: Any, page_table: Any, kv_cache: KvCache, start_pos: Any, enable_trace: bool = False,
                       read_from_device: bool = True, slot_remap: Any = None, sampling_params: Any = None,
                       reset_batch: bool = False, prompt_tokens: Any = None, output_tokens: Any = None,
                       page_tables_per_layer: Any = None, rope_deltas_all_users: Any = None, **unknown: Any) -> Any:
        """One token for each row of the padded batch [B]; rows with start_pos -1 are padding.

        Logits [B, 1, V] or tokens [B]; with ``read_from_device=False`` a handle for read_decode_output().
        ``slot_remap`` [B]: the state slot of each row, where that is not the row itself.
        """
        self._refuse(page_tables_per_layer, unknown)
        tokens, page_table, positions = _ints(tokens).reshape(-1), _ints(page_table), _ints(start_pos)
        remap = None if slot_remap is None else _ints(slot_remap)
        active = [i for i in range(len(tokens)) if positions[i] >= 0]
        rows = [Row(tokens=tokens[i : i + 1], context=int(positions[i]),
                    blocks=self._blocks(page_table[i], int(positions[i]) + 1, kv_cache),
                    slot=int(i if remap is None else remap[i]), wanted=[0]) for i in active]

        def run() -> tuple[torch.Tensor, torch.Tensor | None]:
            logits = torch.from_numpy(self.engine.forward(rows))
            if sampling_params is None:
                padded = torch.zeros((len(tokens), 1, self.engine.vocab), dtype=torch.float32)
                padded[active, 0] = logits
                return padded, None
            self._sampler.begin_decode(prompt_tokens, output_tokens)
            chosen = self._sampler.sample(logits, sampling_params, [int(positions[i]) + 1 for i in active], active)
            chosen, logprobs = chosen if isinstance(chosen, tuple) else (chosen, None)
            padded = torch.zeros(len(tokens), dtype=chosen.dtype)
            padded[active] = chosen
            if logprobs is not None:
                wide = torch.zeros(len(tokens), dtype=logprobs.dtype)
                wide[active] = logprobs
                logprobs = wide
            return padded, logprobs

        handle = self._thread.submit(run)
        return handle if not read_from_device else self._result(handle.result())

    def read_decode_output(self, tt_out: Future, async_read: bool = False) -> Any:
        """Waits for the step; with ``async_read`` (handle, events) at once, and process_decode_output_host() waits."""
        return (tt_out, []) if async_read else self._result(tt_out.result())

    def process_decode_output_host(self, tt_out: Any, is_tokens: bool = False) -> torch.Tensor | tuple:
        """What read_decode_output() gave, as a tensor on the host (with log-probabilities where they were asked for)."""
        return self._result(tt_out.result()) if isinstance(tt_out, Future) else tt_out

    def cleanup(self) -> None:
        self._thread.shutdown(wait=True)

    # ------------------------------------------------------------------

    @staticmethod
    def _result(output: tuple[torch.Tensor, torch.Tensor | None]) -> torch.Tensor | tuple:
        values, logprobs = output
        return values if logprobs is None else (values, logprobs)

    @staticmethod
    def _blocks(table: np.ndarray, positions: int, kv_cache: KvCache) -> np.ndarray:
        """The blocks that the positions fill; what is behind them in a padded table means nothing."""
        needed = -(-positions // kv_cache.block_size)
        if needed > len(table):
            raise ttt.Error(f"a sequence of {positions} tokens has a page table of {len(table)} blocks", "page_table",
                            "give each sequence the blocks that its tokens need")
        return table[:needed]

    @staticmethod
    def _refuse(page_tables_per_layer: Any, unknown: dict[str, Any]) -> None:
        if page_tables_per_layer is not None:
            raise ttt.Error("layers with page tables of their own are not supported", "page_tables_per_layer", "give one page_table")
        given = [name for name, value in unknown.items() if value is not None]
        if given:
            raise ttt.Error(f"{', '.join(given)} can not be served: the model reads text only", "forward", "send text alone")


class RecurrentGenerator(Generator):
    """The same for networks with recurrent state, whose prefixes can not be shared."""

    model_capabilities = {**Generator.model_capabilities, "supports_prefix_caching": False}
