#!/usr/bin/env python3
"""Write what the project keeps of full-size checkpoints: configurations, and names and shapes of their tensors.

  python tools/full_size.py LISTING... [--root DIR]

A listing is a JSON file, plain or .gz, of one architecture: {"name", "architecture", "transformers", "config", "tensors":
{name: shape}}: the configuration as transformers has it by default, and what save_pretrained of a model of that
configuration writes (made on torch's meta device, without weights). This writes

  data/models/architectures.json         the configurations, for `ttt models` and `ttt check`
  tests/testing/data/full_size.json      the tensors, numbers folded: "layers.{0-31}.mlp.up_proj.weight"

`ttt check --names LISTING` checks one listing directly.
"""
import argparse
import gzip
import json
import math
import os
import re

# What transformers writes into every configuration and no network depends on.
NOISE = {"_name_or_path", "architectures", "bos_token_id", "chunk_size_feed_forward", "dtype", "eos_token_id", "id2label", "initializer_range",
         "is_encoder_decoder", "label2id", "output_attentions", "output_hidden_states", "pad_token_id", "problem_type", "return_dict",
         "transformers_version", "use_cache"}


def read(path):
    with (gzip.open(path, "rt", encoding="utf-8") if path.endswith(".gz") else open(path, encoding="utf-8")) as f:
        return json.load(f)


def unlimited(value):
    """[0.0, Infinity]: no limit at all, which is what absence means; JSON has no infinity."""
    return isinstance(value, list) and math.inf in value


def clean(config):
    return {key: clean(value) if isinstance(value, dict) else value for key, value in config.items()
            if key not in NOISE and value is not None and not unlimited(value)}


def ranges(numbers):
    """[0, 1, 2, 5] -> "0-2,5"."""
    parts = []
    for n in sorted(numbers):
        if parts and parts[-1][1] == n - 1:
            parts[-1][1] = n
        else:
            parts.append([n, n])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in parts)


def fold_tuples(tuples, depth):
    """Tuples of numbers as products: [["0-2", "0-7"], ...]."""
    if depth == 0:
        return [[]]
    rests = {}
    for first in sorted({t[0] for t in tuples}):
        rest = tuple(sorted(t[1:] for t in tuples if t[0] == first))
        rests.setdefault(rest, []).append(first)
    return [[ranges(firsts), *more] for rest, firsts in rests.items() for more in fold_tuples(list(rest), depth - 1)]


def fold(tensors):
    """{name: shape} -> [[folded name, shape], ...]."""
    groups = {}
    for name, shape in tensors.items():
        pattern = re.sub(r"(?<=\.)\d+(?=\.|$)", "{}", name)
        numbers = tuple(int(n) for n in re.findall(r"(?<=\.)\d+(?=\.|$)", name))
        groups.setdefault((pattern, tuple(shape)), []).append(numbers)
    rows = []
    for (pattern, shape), tuples in groups.items():
        for parts in fold_tuples(tuples, pattern.count("{}")):
            rows.append([pattern.format(*("{" + part + "}" for part in parts)), list(shape)])
    return rows


def write(path, head, rows):
    """JSON with one row a line, so that changes can be read."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    lines = ",\n".join("  " + json.dumps(row, allow_nan=False, separators=(",", ":"), ensure_ascii=True) for row in rows)
    with open(path, "w", encoding="utf-8") as f:
        f.write("{" + "".join(f"{json.dumps(k)}: {json.dumps(v)}, " for k, v in head.items()) + f'"architectures": [\n{lines}\n]}}\n')


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("listing", nargs="+")
    parser.add_argument("--root", default=os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."), help="the project")
    options = parser.parse_args()
    listings = [read(path) for path in sorted(options.listing)]
    head = {"source": "default configurations of transformers " + ", ".join(sorted({x["transformers"] for x in listings}))}
    write(os.path.join(options.root, "data/models/architectures.json"), head,
          [{"name": x["name"], "architecture": x["architecture"], "config": clean(x["config"])} for x in listings])
    write(os.path.join(options.root, "tests/testing/data/full_size.json"), head,
          [{"name": x["name"], "tensors": fold(x["tensors"])} for x in listings])
    print(f"{len(listings)} architectures")


if __name__ == "__main__":
    main()
