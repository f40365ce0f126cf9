#!/usr/bin/env python3
"""Writes tests/modules/data/rope.json: inverse frequencies and attention factors of transformers' rope initialisation functions."""
import json
import pathlib

from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

CASES = {
    "linear": dict(rope_type="linear", factor=4.0),
    "dynamic": dict(rope_type="dynamic", factor=2.0),
    "llama3": dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=512),
    "yarn": dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=512),
    "yarn_mscale": dict(rope_type="yarn", factor=40.0, original_max_position_embeddings=512, mscale=0.8, mscale_all_dim=1.0, beta_fast=24, beta_slow=2),
    "yarn_untruncated": dict(rope_type="yarn", factor=32.0, original_max_position_embeddings=512, truncate=False),
    "longrope": dict(rope_type="longrope", factor=4.0, original_max_position_embeddings=512,
                     short_factor=[1.0 + 0.01 * i for i in range(16)], long_factor=[1.0 + 0.5 * i for i in range(16)]),
}
LENGTHS = [1, 512, 513, 2048, 2049, 5000]


def main():
    cases = []
    for name, parameters in CASES.items():
        config = LlamaConfig(hidden_size=128, num_attention_heads=4, head_dim=32, max_position_embeddings=2048,
                             rope_parameters={"rope_theta": 10000.0, **parameters})
        rows = []
        for length in LENGTHS:
            inv_freq, factor = ROPE_INIT_FUNCTIONS[parameters["rope_type"]](config, "cpu", seq_len=length)
            rows.append({"length": length, "inv_freq": inv_freq.tolist(), "attention_factor": float(factor)})
        cases.append({"name": name, "head_dim": 32, "theta": 10000.0, "max_positions": 2048, "parameters": parameters, "rows": rows})
    out = pathlib.Path(__file__).resolve().parent.parent / "tests/modules/data/rope.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(cases, indent=0) + "\n")
    print(out)


if __name__ == "__main__":
    main()
