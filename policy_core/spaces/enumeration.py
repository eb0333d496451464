"""The elements of a discrete space by index, in C order."""

import functools
import math
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from policy_core._dtypes import as_int32
from policy_core.contract import Space
from policy_core.spaces.discrete import Discrete, MultiBinary, MultiDiscrete


def count(space: Space) -> int | None:
    """The number of elements of a space, or, beyond 2^31, a number above that; None if it is not discrete."""
    radix = _radix(space)
    return None if radix is None else functools.reduce(lambda n, size: min(n * size, 2**32), radix[0], 1)


def element_at(space: Any, index: Int[Array, "*batch"]) -> Int[Array, "*batch_shape"]:
    """The int32 elements at indices from 0 to `count` - 1, in C order."""
    nvec, starts, shape = _digits_of(space)
    strides = _strides(nvec)
    digits = index[..., None] // _like(strides, index) % _like(nvec, index)
    return (digits + _like(starts, index)).astype(jnp.int32).reshape(*index.shape, *shape)


def index_of(space: Any, action: Any) -> Int[Array, "*batch"]:
    """The indices of elements; -1 for an element outside of the space."""
    nvec, starts, shape = _digits_of(space)
    action = as_int32(action)
    batch = action.shape[: action.ndim - len(shape)]
    digits = action.reshape(*batch, len(nvec))
    rank = jnp.zeros(batch, jnp.int32)
    digits = digits - _like(starts, rank)
    inside = jnp.all((digits >= 0) & (digits < _like(nvec, rank)), -1)
    return jnp.where(inside, jnp.sum(digits * _like(_strides(nvec), rank), -1, dtype=jnp.int32), -1)


def _radix(space: Any) -> tuple[list[int], list[int], tuple[int, ...]] | None:
    """An element as mixed-radix digits: sizes and starts of the digits, and the shape of an element."""
    match space:
        case Discrete(n=n, start=start):
            return [n], [start], ()
        case MultiDiscrete(nvec=nvec):
            return list(nvec), space.starts().ravel().tolist(), space.struct().shape
        case MultiBinary():
            return [2] * space.flat_size, [0] * space.flat_size, space.struct().shape
    return None


def _digits_of(space: Any) -> tuple[list[int], list[int], tuple[int, ...]]:
    radix = _radix(space)
    assert radix is not None, f"{type(space).__name__} is not discrete"
    return radix


def _strides(nvec: list[int]) -> list[int]:
    return [math.prod(nvec[i + 1 :]) for i in range(len(nvec))]


def _like(numbers: list[int], batch: Int[Array, "*batch"]) -> np.ndarray:
    """One integer per digit, with a leading axis of length 1 for each axis of `batch`."""
    return np.array(numbers, np.int32).reshape((1,) * batch.ndim + (len(numbers),))
