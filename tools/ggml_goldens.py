#!/usr/bin/env python3
"""Writes tests/convert/data/ggml.safetensors: blocks of random bytes in every ggml type and the values that the package gguf reads in
them. Scales are kept finite, so that every value is a number. Needs: pip install gguf numpy safetensors
"""

import pathlib

import gguf.quants
import numpy as np
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
from safetensors.numpy import save_file

BLOCKS = {32: 24, 64: 12, 256: 5}
# Offsets of the float16 numbers in a block.
HALVES = {
    "Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0], "Q2_K": [80, 82], "Q3_K": [108], "Q4_K": [0, 2],
    "Q5_K": [0, 2], "Q6_K": [208], "IQ2_XXS": [0], "IQ2_XS": [0], "IQ2_S": [0], "IQ3_XXS": [0], "IQ3_S": [0], "IQ1_S": [0],
    "IQ4_NL": [0], "IQ4_XS": [0], "TQ1_0": [52], "TQ2_0": [64],
}  # fmt: skip


def main():
    rng = np.random.default_rng(1)
    tensors = {}
    for kind in gguf.quants._type_traits:
        if kind == GGMLQuantizationType.BF16:
            continue
        values, size = GGML_QUANT_SIZES[kind]
        data = rng.integers(0, 256, (BLOCKS[values], size), dtype=np.uint8)
        for at in HALVES.get(kind.name, []):
            data[:, at + 1] &= 0xBB  # exponent below 31
        if kind.name == "IQ1_M":
            data[:, 55] &= 0xBF  # its scale is spread over four words
        if kind.name == "MXFP4":
            data[:, 0] %= 253
        data[0] = 0
        tensors[f"{kind.name}.bytes"] = data
        expected = gguf.quants.dequantize(data, kind).astype(np.float32)
        assert np.isfinite(expected).all(), kind
        tensors[f"{kind.name}.values"] = expected
    halves = np.concatenate([np.arange(0, 0x7C01, 7, dtype=np.uint16), np.arange(1, 1024, 5, dtype=np.uint16) | 0x8000])
    tensors["F16.bytes"] = halves.view(np.uint8)
    tensors["F16.values"] = halves.view(np.float16).astype(np.float32)
    path = pathlib.Path(__file__).parents[1] / "tests/convert/data/ggml.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path)
    print(path.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
