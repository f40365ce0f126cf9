import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from support import make_checkpoint  # noqa: E402


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TTT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def checkpoint(folder):
    return make_checkpoint("llama", folder)


@pytest.fixture(scope="session")
def model(checkpoint, cache):
    import ttt

    return ttt.load(checkpoint, precision="f32", threads=2)
