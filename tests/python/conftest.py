import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from support import cache, make_checkpoint  # noqa: E402, F401


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="session")
def checkpoint(folder):
    return make_checkpoint("llama", folder)


@pytest.fixture(scope="session")
def model(checkpoint, cache):
    import ttt

    return ttt.load(checkpoint, precision="f32", threads=2)
