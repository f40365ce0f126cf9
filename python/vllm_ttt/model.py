"""What vLLM's registry is told of our models. The network itself runs in C++; vLLM asks this class only what it can do."""

from __future__ import annotations

import torch
from torch import nn
from vllm import ModelRegistry
from vllm.config import VllmConfig

import ttt


class TttForCausalLM(nn.Module):
    """Stands for every architecture: a text generation model without layers that vLLM could see."""

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        raise RuntimeError("the worker loads the model; vLLM does not build it")

    def embed_input_ids(self, input_ids: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError

    def forward(self, input_ids: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError

    def compute_logits(self, hidden_states: torch.Tensor) -> torch.Tensor | None:
        raise NotImplementedError


_registered = False


def register_models() -> None:
    """Once per process; vLLM calls it in each."""
    global _registered
    if _registered:
        return
    for family in ttt.families():
        for architecture in family["architectures"]:
            # Goes over vLLM's own model of that name: on this platform only ours can run.
            ModelRegistry.models.pop(architecture, None)
            ModelRegistry.register_model(architecture, TttForCausalLM)
    _registered = True
