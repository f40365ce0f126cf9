"""make_bfp_goldens.py GOLDENS.npz OUTDIR: the small form of TTNN's block-float goldens that tests/tensor reads.

GOLDENS.npz holds, per case, NAME.x (float32 [rows, cols]), NAME.bf8.packed and NAME.bf4.packed (uint8: what TTNN's host packer
writes) and NAME.bf8.dequant and NAME.bf4.dequant (float32: what its unpacker reads). One file NAME.bin is written per case,
little-endian: int32 rows, int32 cols, float32 x[rows * cols], the bfp8_b bytes, the bfp4_b bytes, then the values of both as
bfloat16, which holds each of them exactly.
"""
import sys
from pathlib import Path

import numpy as np


def bfloat16(values):
    words = np.ascontiguousarray(values, "<f4").view("<u4")
    if (words & 0xFFFF).any():
        raise SystemExit("a value that bfloat16 does not hold exactly")
    return (words >> 16).astype("<u2")


golden, out = np.load(sys.argv[1]), Path(sys.argv[2])
out.mkdir(parents=True, exist_ok=True)
for name in sorted(k[:-2] for k in golden.files if k.endswith(".x")):
    with open(out / f"{name}.bin", "wb") as f:
        x = golden[f"{name}.x"].astype("<f4")
        np.array(x.shape, "<i4").tofile(f)
        np.ascontiguousarray(x).tofile(f)
        for fmt in ("bf8", "bf4"):
            golden[f"{name}.{fmt}.packed"].tofile(f)
        for fmt in ("bf8", "bf4"):
            bfloat16(golden[f"{name}.{fmt}.dequant"]).tofile(f)
