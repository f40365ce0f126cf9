"""The platform: what vLLM has to know before it starts a worker."""

from __future__ import annotations

import copy
import os
from typing import TYPE_CHECKING

import torch
import vllm
from vllm.platforms.interface import Platform, PlatformEnum

from . import SUPPORTED_VLLM
from .engine import open_model

if TYPE_CHECKING:
    from vllm.config import VllmConfig


def options(config: VllmConfig) -> dict:
    """What ``--additional-config '{"ttt": {...}}'`` says."""
    given = config.additional_config
    return dict(given.get("ttt", {})) if isinstance(given, dict) else {}


def memory_available() -> int:
    """Bytes that the system would give without swapping."""
    with open("/proc/meminfo", encoding="ascii") as file:
        for line in file:
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")


def _refuse(condition: object, what: str, fix: str) -> None:
    if condition:
        raise ValueError(f"ttt: {what}, {fix}")


class TttPlatform(Platform):
    _enum = PlatformEnum.OOT
    device_name = "ttt"
    device_type = "cpu"  # where logits and samples live
    dispatch_key = "CPU"
    dist_backend = "gloo"
    device_control_env_var = "TTT_VISIBLE_DEVICES"
    simple_compile_backend = "eager"

    @classmethod
    def import_kernels(cls) -> None:
        """vLLM's own kernels are not used."""

    @classmethod
    def import_ir_kernels(cls) -> None:
        """Nor are those of its IR."""

    @classmethod
    def get_device_name(cls, device_id: int = 0) -> str:
        return "ttt"

    @classmethod
    def get_device_total_memory(cls, device_id: int = 0) -> int:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")

    @classmethod
    def set_device(cls, device: torch.device) -> None:
        """There is one."""

    @classmethod
    def manual_seed_all(cls, seed: int) -> None:
        """Sampling has generators of its own."""

    @classmethod
    def inference_mode(cls):
        return torch.no_grad()

    @classmethod
    def is_pin_memory_available(cls) -> bool:
        return False

    @classmethod
    def support_hybrid_kv_cache(cls) -> bool:
        return True

    @classmethod
    def get_attn_backend_cls(cls, *args, **kwargs) -> str:
        return ""  # attention is inside the step

    @classmethod
    def check_runner_kv_caches_multi_layer(cls) -> None:
        """All layers share one block table."""

    @classmethod
    def device_id_to_physical_device_id(cls, device_id: int) -> int:
        return device_id

    @classmethod
    def update_block_size_for_backend(cls, vllm_config: VllmConfig) -> None:
        """Any block size does."""

    @classmethod
    def pre_register_and_update(cls, parser=None) -> None:
        # Its protocol sends resumed requests as new ones.
        os.environ["VLLM_USE_V2_MODEL_RUNNER"] = "0"

    @classmethod
    def check_and_update_config(cls, config: VllmConfig) -> None:
        if not vllm.__version__.startswith(SUPPORTED_VLLM + "."):
            raise RuntimeError(f"ttt: vLLM {vllm.__version__} is not supported, install vllm=={SUPPORTED_VLLM}.*")
        os.environ["VLLM_USE_V2_MODEL_RUNNER"] = "0"
        from vllm.config import CompilationMode

        parallel, cache, scheduler = config.parallel_config, config.cache_config, config.scheduler_config
        _refuse(parallel.tensor_parallel_size > 1 or parallel.pipeline_parallel_size > 1, "vLLM's tensor and pipeline parallelism",
                'let the model shard itself: --additional-config \'{"ttt": {"mesh": "1x2"}}\'')
        _refuse(config.speculative_config, "speculative decoding is not supported", "drop --speculative-config")
        _refuse(config.lora_config, "LoRA is not supported", "merge the adapter into the checkpoint")
        _refuse(config.kv_transfer_config, "KV transfer between engines is not supported", "drop --kv-transfer-config")

        config.compilation_config.mode = CompilationMode.NONE
        # Greedy output of a JSON grammar may be white space without end. On a copy: further API servers start from the same arguments.
        config.structured_outputs_config = copy.copy(config.structured_outputs_config)
        config.structured_outputs_config.disable_any_whitespace = True
        if parallel.worker_cls == "auto":
            parallel.worker_cls = "vllm_ttt.worker.TttWorker"
        parallel.distributed_executor_backend = "uni"  # one process owns the model and its mesh
        if not cache.user_specified_block_size:
            cache.block_size = 32
        if config.model_config is not None:
            _refuse(config.model_config.runner_type != "generate", "only text generation is served", "use --runner generate")
            # Shapes alone: neither weights nor the device are touched.
            can = open_model(config.model_config.model, options(config), backend="null").capabilities
            _refuse(cache.enable_prefix_caching and not can.prefix_reuse,
                    "prefix caching is unsound for this model: its recurrent state can not be shared between sequences",
                    "start with --no-enable-prefix-caching")
            _refuse(not can.chunked_prefill and scheduler.enable_chunked_prefill, "this model reads prompts in one piece only",
                    "start with --no-enable-chunked-prefill")

    @classmethod
    def validate_request(cls, processed_inputs, params) -> None:
        for name in ("thinking_token_budget", "prompt_logprob_token_ids"):
            if getattr(params, name, None) is not None:
                raise ValueError(f"{name} is not supported on ttt")
