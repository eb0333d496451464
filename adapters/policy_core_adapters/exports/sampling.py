"""Random elements of spaces in NumPy, by the names that inputs have."""

from typing import Any

import numpy as np

from policy_core_adapters.exports.lowering.observations import dtype_of
from policy_core_adapters.numpy_runner.networks import Array
from policy_core_adapters.numpy_runner.spaces import Box, kind_of, parts_of


def sample(space: Any, rng: np.random.Generator, count: int, path: str = "observation") -> dict[str, Array]:
    """Independent elements `[count, ...]`, part by part.

    Uniform; a box without bounds is normal, and one with one bound is that far from it as an exponential.
    """
    fields, kind = space["fields"], kind_of(space)
    if kind in ("Dict", "Tuple"):
        parts = parts_of(space).items()
        return {n: x for key, part in parts for n, x in sample(part, rng, count, f"{path}/{key}").items()}
    if kind == "Box":
        return {path: _box(Box(space, np.float32), dtype_of(space), rng, count)}
    if kind == "Discrete":
        return {path: (fields["start"] + rng.integers(0, fields["n"], count)).astype(np.int32)}
    shape = tuple(fields["shape"])
    if kind == "MultiBinary":
        return {path: rng.integers(0, 2, (count, *shape), np.int32)}
    sizes, starts = (np.array(fields[name], np.int64).reshape(shape) for name in ("nvec", "start"))
    return {path: (starts + np.floor(rng.random((count, *shape)) * sizes)).astype(np.int32)}


def _box(box: Box, dtype: str, rng: np.random.Generator, count: int) -> Array:
    low, high = box.low.astype(np.float64), box.high.astype(np.float64)
    shape = (count, *box.shape)
    if not box.is_float:
        return np.asarray(np.floor(low + rng.random(shape) * (high - low + 1))).astype(dtype)
    below, above = np.isfinite(low), np.isfinite(high)
    ends = np.where(below, low, 0.0), np.where(above, high, 0.0)
    between = ends[0] + rng.random(shape) * (ends[1] - ends[0])
    far = rng.exponential(size=shape)
    one = np.where(below, ends[0] + far, np.where(above, ends[1] - far, rng.standard_normal(shape)))
    return np.asarray(np.where(below & above, between, one)).astype(dtype)
