"""Kernels in 8 bits: symmetric, a scale for each output."""

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def quantized(kernel: Array) -> tuple[Array, Array]:
    """`(values, scale)`: int8 in -127..127 and float32 for each entry of the last axis.

    `values * scale` is off by at most half a scale, which is 1/127 of the largest weight of an output.
    """
    most = np.abs(kernel).max(tuple(range(kernel.ndim - 1)))
    scale = np.where(most > 0, most / np.float32(127), np.float32(1)).astype(np.float32)
    return np.clip(np.rint(kernel / scale), -127, 127).astype(np.int8), scale
