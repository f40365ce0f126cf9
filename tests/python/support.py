"""What the Python suites share: tiny checkpoints, and the reference files of tests/golden."""

from __future__ import annotations

import json
import shutil
import struct
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools" / "fixtures"))
from make_fixture import write_fixture  # noqa: E402


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory):
    """Converted weights of a session in a folder of its own; a conftest that imports it has it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TTT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def make_checkpoint(name: str, folder: Path, tokenizer: bool = True) -> Path:
    """The fixture `name` as a Hugging Face folder; with a tokenizer of its vocabulary's size where wanted."""
    path = folder / name
    write_fixture(ROOT / "tests/golden/fixtures" / f"{name}.json", path)
    if tokenizer:
        for file in (ROOT / "tests/cli/data/tiny_tokenizer").iterdir():
            shutil.copy(file, path)
    return path


def reference(name: str) -> dict[str, np.ndarray]:
    """Tensors of a reference file: what transformers computed."""
    data = (ROOT / "tests/golden/reference" / f"{name}.safetensors").read_bytes()
    size = struct.unpack("<Q", data[:8])[0]
    types = {"F32": np.float32, "I64": np.int64, "I32": np.int32}
    tensors = {}
    for key, row in json.loads(data[8 : 8 + size]).items():
        if key != "__metadata__":
            begin, end = (8 + size + offset for offset in row["data_offsets"])
            tensors[key] = np.frombuffer(data[begin:end], types[row["dtype"]]).reshape(row["shape"])
    return tensors
