import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "python"))

# Before vLLM is imported: nothing is fetched, the engine runs in this process.
os.environ.update(HF_HUB_OFFLINE="1", VLLM_NO_USAGE_STATS="1", DO_NOT_TRACK="1", VLLM_LOGGING_LEVEL="ERROR", VLLM_PLUGINS="ttt,ttt_models")

import pytest  # noqa: E402
from support import cache  # noqa: E402, F401


def pytest_configure(config):
    config.addinivalue_line("markers", "full: long form, run by scripts/test_python --full")


def pytest_collection_modifyitems(items):
    if not os.environ.get("TTT_TEST_FULL"):
        for item in items:
            if "full" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="long form: scripts/test_python --vllm --full"))


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("models")
