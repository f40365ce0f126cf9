#!/usr/bin/env python3
"""Each rule of check.py finds its violation in a small tree, and nothing in the same tree without it."""
import os
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import check

CLEAN = {
    "include/ttt/base/error.h": "#pragma once\n#include <string>\n",
    "include/ttt/ops/ops.h": '#include "ttt/tensor/tensor.h"\n',
    "src/ops/ops.cpp": '#include "ops/dispatch.h"\n#include "ttt/hw/sku.h"\n',
    "src/model/build.cpp": '#include "ttt/modules/mlp.h"\n// rope_type "llama3" of config.json\n',
    "src/model_sdk/library.cpp": '#include "ttt/convert/hf_config.h"\n',
    "backends/cpu/device.cpp": '#include "ttt/ops/backend.h"\n',
    "models/first.cpp": '#include <vector>\n#include "ttt/convert/model_entry.h"\n',
    "models/odd/odd.cpp": '#include "mixer.h"\n#include "ttt/model/build.h"\n',
    "models/odd/mixer.h": "\n",
    "cli/main.cpp": '#include "cli.h"\n#include "ttt/testing/evaluate.h"\n',
}


class Rules(unittest.TestCase):
    def violations(self, rule, changes):
        with tempfile.TemporaryDirectory() as root:
            for path, text in {**CLEAN, **changes}.items():
                os.makedirs(os.path.dirname(os.path.join(root, path)), exist_ok=True)
                with open(os.path.join(root, path), "w", encoding="utf-8") as f:
                    f.write(text)
            return list(check.RULES[rule](root))

    def assert_found(self, rule, path, text, words):
        self.assertEqual(self.violations(rule, {}), [])
        found = self.violations(rule, {path: text})
        self.assertEqual(len(found), 1, found)
        self.assertIn(words, found[0])
        self.assertIn(path, found[0])

    def test_layers(self):
        for path, include in (("include/ttt/tensor/x.h", "ttt/ops/ops.h"), ("src/hw/x.cpp", "ttt/perf/zone.h"), ("src/runtime/x.cpp", "ttt/convert/load.h"),
                              ("src/text/x.cpp", "ttt/tensor/shape.h"), ("src/ops/x.cpp", "modules/print.h"), ("backends/cpu/x.cpp", "ttt/model/spec.h"),
                              ("src/model_sdk/x.cpp", "ttt/runtime/generator.h")):
            self.assert_found("layers", path, f'#include "{include}"\n', "may include")

    def test_layers_public_headers(self):
        self.assert_found("layers", "include/ttt/ops/x.h", '#include "ops/dispatch.h"\n', "private")
        self.assert_found("layers", "include/ttt/ops/x.h", "#include <nlohmann/json.hpp>\n", "third-party")
        self.assert_found("layers", "cli/x.cpp", '#include "testing/driver.h"\n', "private")
        self.assert_found("layers", "src/ops/x.cpp", '#include "backends/cpu/device.h"\n', "backend")

    def test_layers_unknown_folder(self):
        self.assert_found("layers", "src/misc/x.cpp", "\n", "belongs to no layer")

    def test_names(self):
        for text in ('if (name == "llama") {', "// as Qwen3 does", "int gemma_scale = 1;", "scale_mistral(x);", "GPT-NeoX"):
            self.assert_found("names", "src/ops/x.cpp", text + "\n", "names a model")
        self.assertEqual(self.violations("names", {"models/x.cpp": "llama\n", "tests/x.cpp": "qwen\n"}), [])

    def test_models(self):
        self.assert_found("models", "models/second.cpp", '#include "first.cpp"\n', "never includes another")
        self.assert_found("models", "models/odd/x.cpp", '#include "../other/mixer.h"\n', "never includes another")

    def test_sizes(self):
        self.assert_found("sizes", "models/long.cpp", "\n" * 101, "101 lines")
        self.assertEqual(self.violations("sizes", {"models/odd/mixer.h": "\n" * 300}), ["models/odd: 302 lines, at most 300"])
        self.assertEqual(self.violations("sizes", {f"models/{name}.cpp": "\n" * 41 for name in "abc"}),
                         ["models: the median of 5 files has 41 lines, at most 40"])
        self.assert_found("sizes", "src/ops/long.cpp", "\n" * 801, "801 lines")

    def test_links(self):
        self.assert_found("links", "README.md", "[code](include/ttt/ops/ops.h) [web](https://example.org/x) [lost](docs/lost.md#part)\n", "docs/lost.md")


if __name__ == "__main__":
    unittest.main()
