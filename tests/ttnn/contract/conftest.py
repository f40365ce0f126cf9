import importlib.util
import os
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(TESTS / "python"), str(TESTS / "vllm")]
ON_MOCK = "TT_METAL_MOCK_CLUSTER_DESC_PATH" in os.environ
if ON_MOCK:
    # What the driver sets too late for a package that is imported before it. TTNN looks for torch when it is imported, and the stand-in is not for it.
    for name, value in (("TT_LOGGER_LEVEL", "off"), ("TT_METAL_LOGGER_LEVEL", "off"), ("LOGURU_LEVEL", "WARNING")):
        os.environ.setdefault(name, value)
    import ttnn  # noqa: F401
if importlib.util.find_spec("torch") is None:
    sys.path.append(str(Path(__file__).parent / "stand_in"))
from support import cache  # noqa: E402, F401


def pytest_collection_modifyitems(items):
    if not ON_MOCK:
        for item in items:
            item.add_marker(pytest.mark.skip(reason="no mock cluster: tools/ttnn/mock n150 .."))
