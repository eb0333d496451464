"""Entries along the first axis of arrays: which to read or write, and where the results lie."""

import functools
import operator
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.sharding import NamedSharding, PartitionSpec

from policy_core.checks.structure import describe, is_array
from policy_core.errors import MemberError, StructureError


def checked_index(i: Any, n: int) -> Any:
    """`i` as an int in [0, n), or as it is if it is traced.

    Raises:
        MemberError: if it is out of range.
        StructureError: if it is no integer, or has axes.
    """
    advice = "expected an integer; policy_core.population.take takes several"
    if isinstance(i, Tracer):
        if jnp.ndim(i) or not jnp.issubdtype(i.dtype, jnp.integer):
            raise StructureError(f"i: got {describe(i)}, {advice}")
        return i
    try:
        i = operator.index(i)
    except TypeError:
        got = describe(i) if is_array(i) else type(i).__name__
        raise StructureError(f"i: got {got}, {advice}") from None
    _check_range(i, i, n, "i")
    return np.int32(i % n)


def checked_source(source: Any, n: int) -> Any:
    """`source` as int32 `[k]`: a NumPy array in [0, n) where its numbers are known, else as it is.

    Raises:
        MemberError: if one is out of range.
        StructureError: if it is no vector of integers.
    """
    if not isinstance(source, jax.Array):
        try:
            array = np.asarray(source)
        except (TypeError, ValueError):  # traced or ragged
            raise StructureError("source: got no array, expected integers (k,); use jnp.array") from None
        source = array.astype(np.int32) if isinstance(source, list | tuple) and not array.size else array
    if source.ndim != 1 or not jnp.issubdtype(source.dtype, jnp.integer):
        got = f"{source.dtype}{source.shape}"
        raise StructureError(f"source: got {got}, expected integers (k,): the members to take, in order")
    if isinstance(source, Tracer):
        return source.astype(jnp.int32)
    if isinstance(source, jax.Array) and not (source.is_fully_addressable or source.is_fully_replicated):
        return source.astype(jnp.int32)
    known = np.asarray(source).astype(np.int64)
    if known.size:
        _check_range(int(known.min()), int(known.max()), n, "source")
    return np.where(known < 0, known + n, known).astype(np.int32)


def read(leaves: Sequence[Any], index: Any, donate: bool = False) -> list[Any]:
    """`leaf[index]` of each leaf, for an integer or a vector of them, in one program.

    NumPy leaves give NumPy, unless the index is a JAX array. What has the first axis is sharded as
    the leaf was, and one member is on all of its devices. An index that is out of range, which only
    the running program knows, gives NaN in floats.
    """
    host = [isinstance(leaf, np.ndarray) and not isinstance(index, jax.Array) for leaf in leaves]
    arrays = [leaf for leaf, numpy in zip(leaves, host, strict=True) if not numpy]
    kept = tuple(_kept_by(leaf, np.shape(index)) for leaf in arrays)
    rows = iter(_reader(kept, donate)(arrays, index) if arrays else [])
    return [np.array(leaf[index]) if numpy else next(rows) for leaf, numpy in zip(leaves, host, strict=True)]


def write(leaves: Sequence[Any], i: Any, values: Sequence[Any]) -> list[Any]:
    """Each leaf with `leaf[i]` replaced; kinds of arrays and shardings as in `read`.

    An index that is out of range, which only the running program knows, changes nothing.
    """
    pairs = list(zip(leaves, values, strict=True))
    host = [not any(isinstance(x, jax.Array) for x in (*pair, i)) for pair in pairs]
    arrays = [pair for pair, numpy in zip(pairs, host, strict=True) if not numpy]
    kept = tuple(_sharding_of(leaf) for leaf, _ in arrays)
    rows = iter(_writer(kept)(arrays, i) if arrays else [])
    return [
        _written(leaf, i, value) if numpy else next(rows)
        for (leaf, value), numpy in zip(pairs, host, strict=True)
    ]


def check_divisible(leaf: Any, k: int) -> None:
    """Raise `StructureError` unless `k` entries can be split as the first axis of the leaf is."""
    if (sharding := _sharding_of(leaf)) is None or not leaf.shape[0]:
        return
    parts = leaf.shape[0] // max(sharding.shard_shape(leaf.shape)[0], 1)
    if k % parts:
        raise StructureError(
            f"source: got {k} members, expected a multiple of {parts}, the parts into which the first axis "
            "is split; to take fewer, jax.device_put with policy_core.population.replicated(mesh) first"
        )


def _check_range(low: int, high: int, n: int, name: str) -> None:
    if low < -n or high >= n:
        expected = f"expected {-n} to {n - 1}" if n else "there are none"
        raise MemberError(
            f"{name}: got {high if high >= n else low}, out of range of {n} members; {expected}"
        )


def _sharding_of(leaf: Any) -> Any:
    """The sharding of an array on several devices; None where JAX is to choose."""
    known = isinstance(leaf, jax.Array) and not isinstance(leaf, Tracer)
    return leaf.sharding if known and len(leaf.sharding.device_set) > 1 else None


def _kept_by(leaf: Any, index_shape: tuple[int, ...]) -> Any:
    sharding = _sharding_of(leaf)
    if index_shape or not isinstance(sharding, NamedSharding):
        return sharding if index_shape else None
    return NamedSharding(sharding.mesh, PartitionSpec(*sharding.spec[1:]))


@functools.lru_cache(maxsize=64)
def _reader(kept: tuple[Any, ...], donate: bool) -> Any:
    return jax.jit(_read, out_shardings=list(kept), donate_argnums=(0,) if donate else ())


def _read(leaves: list[Any], index: Any) -> list[Any]:
    # Past the end "fill" is NaN. It is also what a partitioner sums over devices instead of gathering.
    return [
        jnp.asarray(leaf).at[index].get(mode="fill", out_sharding=_explicit(leaf, jnp.ndim(index)))
        for leaf in leaves
    ]


@functools.lru_cache(maxsize=64)
def _writer(kept: tuple[Any, ...]) -> Any:
    return jax.jit(_write, out_shardings=list(kept))


def _write(pairs: list[tuple[Any, Any]], i: Any) -> list[Any]:
    return [
        jnp.asarray(leaf).at[i].set(value, mode="drop", out_sharding=_explicit(leaf, 1))
        for leaf, value in pairs
    ]


def _written(leaf: Any, i: Any, value: Any) -> Any:
    leaf = np.array(leaf)
    leaf[i] = value
    return leaf


def _explicit(leaf: Any, first: int) -> Any:
    """Where a result lies, with or without the first axis: a mesh of explicit axes asks for it."""
    sharding = jax.typeof(leaf).sharding
    spec = sharding.spec
    return NamedSharding(sharding.mesh, PartitionSpec(*spec[:first], *spec[1:])) if any(spec) else None
