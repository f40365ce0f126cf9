"""vLLM on ttt: a platform plugin for vLLM 0.33 (docs/serving.md), and Tenstorrent's generator contract (``generator``).

Importing this package imports neither vLLM nor torch.
"""

from __future__ import annotations

import os

SUPPORTED_VLLM = "0.33"


def platform_plugin() -> str | None:
    """Entry point ``vllm.platform_plugins``: the platform's class, or None where another platform is there.

    It steps aside where vLLM was built for a device of its own, unless ``TTT_VLLM=1`` or ``VLLM_PLUGINS`` asks for it;
    ``TTT_VLLM=0`` turns it off.
    """
    wish = os.environ.get("TTT_VLLM", "")
    if wish == "0":
        return None
    if wish != "1" and "ttt" not in os.environ.get("VLLM_PLUGINS", "").split(","):
        from vllm.platforms import builtin_platform_plugins

        if any(plugin() is not None for plugin in builtin_platform_plugins.values()):
            return None
    return "vllm_ttt.platform.TttPlatform"


def register() -> None:
    """Entry point ``vllm.general_plugins``: makes the architectures of all model libraries known to vLLM."""
    from vllm.platforms import current_platform

    if current_platform.device_name != "ttt":
        return
    from .model import register_models

    register_models()
