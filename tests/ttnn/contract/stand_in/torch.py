"""Stands in for torch where there is none: what vllm_ttt.generator and the fake runner take from it, over numpy.

The ttnn wheel is for Python 3.10 and 3.12; torch for these comes with CUDA only, gigabytes that this suite does not need.
"""

import numpy as np

float32, int32, int64 = np.dtype(np.float32), np.dtype(np.int32), np.dtype(np.int64)
bfloat16 = "bfloat16"  # named, never computed with
dtype = np.dtype


class Tensor(np.ndarray):
    def cpu(self):
        return self

    def numpy(self):
        return self.view(np.ndarray)

    def clone(self):
        return self.copy()


def from_numpy(array):
    return array.view(Tensor)


def tensor(values, dtype=None):
    return np.array(values, dtype).view(Tensor)


def full(shape, value, dtype=int64):
    return np.full(shape, value, dtype).view(Tensor)


def zeros(shape, dtype=float32):
    return full(shape, 0, dtype)


def empty(shape, dtype=float32):
    return full(shape, 0, dtype)
