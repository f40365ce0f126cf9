"""The scripts of this folder's neighbours as modules; their names have no ending, so `import` does not find them."""

import importlib.machinery
import importlib.util
from pathlib import Path

BENCHMARKS = Path(__file__).resolve().parents[1]


def script(name):
    """The script benchmarks/NAME."""
    loader = importlib.machinery.SourceFileLoader(Path(name).name, str(BENCHMARKS / name))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(loader.name, loader))
    loader.exec_module(module)
    return module
