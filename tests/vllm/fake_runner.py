"""A fake of the runner of tenstorrent/vllm-tt-plugin: it calls a generator class as that one was observed to do.

Steps are all-prefill or all-decode; a decode always has max_num_seqs rows, padded by start_pos -1; tables have a fixed width. The suites of vLLM and
of TTNN's mock cluster share it.
"""

import json
from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np
import torch

BLOCK, WIDTH, ROWS = 32, 16, 4


@dataclass
class Sampling:
    """What the plugin sends to a device that samples: lists by row."""

    temperature: list = field(default_factory=lambda: [0.0] * ROWS)
    top_k: list = field(default_factory=lambda: [0] * ROWS)
    top_p: list = field(default_factory=lambda: [1.0] * ROWS)
    presence_penalty: list = field(default_factory=lambda: [0.0] * ROWS)
    frequency_penalty: list = field(default_factory=lambda: [0.0] * ROWS)
    repetition_penalty: list = field(default_factory=lambda: [1.0] * ROWS)
    seed: list = field(default_factory=lambda: [None] * ROWS)
    num_logprobs: list = field(default_factory=lambda: [0] * ROWS)
    enable_log_probs: list = field(default_factory=lambda: [False] * ROWS)


class FakeRunner:
    """Makes the calls that the plugin's runner makes, in its order and with its shapes and dtypes."""

    def __init__(self, cls, path, options, monkeypatch, max_seq_len=512, blocks=132):
        monkeypatch.setenv("TTT_VLLM_OPTIONS", json.dumps(options))
        config = SimpleNamespace(_name_or_path=str(path))
        assert set(cls.model_capabilities) == {"supports_prefix_caching", "supports_async_decode", "supports_sample_on_device"}
        self.max_tokens = cls.get_max_tokens_all_users(model_name=str(path), num_devices=1, tt_data_parallel=1, max_model_len=max_seq_len,
                                                       max_num_seqs=ROWS)
        assert cls.get_kv_cache_spec(SimpleNamespace()) is None
        self.model = cls.initialize_vllm_model(config, SimpleNamespace(get_num_devices=lambda: 1), ROWS, max_seq_len=max_seq_len,
                                               tt_data_parallel=1, optimizations=None)
        self.kv = self.model.allocate_kv_cache((blocks, 2, BLOCK, 64), torch.bfloat16, 3)
        for trace in (False, True):  # compile, then capture
            self.model.already_warmed_up_prefill = False
            self.model.warmup_model_prefill(kv_cache=self.kv, enable_trace=trace, can_sample_on_device=True)
            self.model.warmup_model_decode(kv_cache=self.kv, enable_trace=trace, max_batch_size=ROWS, num_blocks=WIDTH, can_sample_on_device=True)
        self.tables = {}
        self.tokens = {}
        self.free = list(range(blocks))[::-1]

    def table(self, row):
        padded = np.zeros(WIDTH, np.int32)  # what is behind a sequence's blocks is 0, as in the plugin
        padded[: len(self.tables[row])] = self.tables[row]
        return padded

    def prefill(self, prompts, start=None, sampling=None):
        """{row: ids}; `start`: tokens that a prefix hit has computed already."""
        rows = sorted(prompts)
        for row in rows:
            self.tokens[row] = list(prompts[row])
            self.tables.setdefault(row, [])
            while len(self.tables[row]) * BLOCK < len(prompts[row]) + 1:
                self.tables[row].append(self.free.pop())
        lens = np.array([len(prompts[row]) for row in rows], np.int64)
        tokens = torch.zeros((len(rows), int(lens.max())), dtype=torch.int32)
        for i, row in enumerate(rows):
            tokens[i, : lens[i]] = torch.tensor(prompts[row])
        out = self.model.prefill_forward(
            tokens=tokens, page_table=torch.from_numpy(np.stack([self.table(r) for r in rows])), kv_cache=self.kv, enable_trace=True,
            prompt_lens=lens, start_pos=np.array([(start or {}).get(r, 0) for r in rows]), empty_slots=rows, sampling_params=sampling)
        return dict(zip(rows, out[0] if isinstance(out, tuple) else out, strict=True))

    def decode(self, rows, asynchronous=True, sampling=None, slot_remap=None, **extra):
        """One token for each of the rows, which stand where `slot_remap` says."""
        tokens = torch.zeros((ROWS, 1), dtype=torch.int32)
        positions = torch.full((ROWS,), -1, dtype=torch.int32)
        tables = np.zeros((ROWS, WIDTH), np.int32)
        for row in rows:
            place = row if slot_remap is None else slot_remap.tolist().index(row)
            if len(self.tables[row]) * BLOCK < len(self.tokens[row]):
                self.tables[row].append(self.free.pop())
            tokens[place], positions[place], tables[place] = self.tokens[row][-1], len(self.tokens[row]) - 1, self.table(row)
        out = self.model.decode_forward(tokens=tokens, page_table=torch.from_numpy(tables), kv_cache=self.kv, start_pos=positions,
                                        enable_trace=True, read_from_device=not asynchronous, slot_remap=slot_remap,
                                        sampling_params=sampling, **extra)
        if asynchronous:
            handle, events = self.model.read_decode_output(out, async_read=True)
            assert events == []
            out = self.model.process_decode_output_host(handle, is_tokens=sampling is not None)
        return out
