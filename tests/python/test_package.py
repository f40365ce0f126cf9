"""The wheel as it is installed: the program, the stubs, model libraries of other packages."""

import ast
import builtins
import importlib.metadata
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import ttt

PACKAGE = Path(ttt.__file__).parent


def run(*arguments, **environment):
    return subprocess.run([sys.executable, "-m", "ttt", *arguments], capture_output=True, text=True,
                          env={**os.environ, **environment}, check=False)


def test_it_is_typed():
    assert (PACKAGE / "py.typed").exists()
    stub = (PACKAGE / "_core.pyi").read_text()
    for name in ("class CausalLM", "class Batch", "class Generator", "class SamplingParams", "def evaluate_perplexity"):
        assert name in stub
    tree = ast.parse(stub)
    known = set(dir(builtins))
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            known |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
        elif isinstance(node, (ast.ClassDef, ast.FunctionDef)):
            known.add(node.name)
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    assert used <= known, used - known


def test_every_public_name_has_a_docstring_or_is_data():
    for name in ttt.__all__:
        value = getattr(ttt, name)
        if callable(value) and name not in ("TokenLogprob", "PerplexityResult", "TokenAccuracyResult", "GoldenResult"):
            assert value.__doc__, name


def test_the_program_says_what_the_library_says(checkpoint, model):
    answer = run("run", "--model", str(checkpoint), "--raw", "--prompt", "The other thing", "--max-new-tokens", "8",
                 "--precision", "f32", "--temperature", "0")
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout == model.generate("The other thing", max_new_tokens=8).text + "\n"
    refused = run("run", "--model", "/nowhere")
    assert refused.returncode == 1 and refused.stderr.startswith("error: ")


@pytest.fixture
def other_package(tmp_path):
    """An installed package that brings a model library: here a copy of ours."""
    library = next((PACKAGE / "lib/ttt-2/models").glob("libttt_models.so"))
    shutil.copy(library, tmp_path / "libmine.so")
    (tmp_path / "mine.py").write_text("def library_path():\n    return __file__.replace('mine.py', 'libmine.so')\n")
    info = tmp_path / "mine-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[ttt.models]\nmine = mine:library_path\n")
    return tmp_path


@pytest.mark.skipif(not (PACKAGE / "lib").exists(), reason="not installed: run by scripts/test_python")
def test_model_libraries_of_other_packages(other_package):
    environment = {**os.environ, "PYTHONPATH": str(other_package)}
    code = "import ttt; print(ttt.model_libraries()[0]); print(ttt.families()[0]['library'])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True).stdout
    assert out.splitlines() == [str(other_package / "libmine.so")] * 2
    listed = run("models", "--json", PYTHONPATH=str(other_package))
    assert "libmine.so" in listed.stdout, listed.stderr
    (other_package / "mine.py").write_text("library_path = 1 / 0\n")
    broken = run("models", PYTHONPATH=str(other_package))
    assert broken.returncode == 1 and "entry point 'mine'" in broken.stderr


def test_entry_points_are_there():
    names = {e.name for e in importlib.metadata.entry_points(group="vllm.platform_plugins")}
    assert "ttt" in names
