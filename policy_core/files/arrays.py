"""Conversion of pytrees of JAX arrays to rows and back."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from policy_core.errors import FileError
from policy_core.files.rows import KEYS, Row, row_of
from policy_core.trees import Spec, spec

_WIDE = ("int64", "uint64", "float64", "complex128")
_SMALL = 2**20  # bytes of a file that any leaf may keep in memory


def rows_of(leaves: Mapping[str, Any]) -> tuple[Row, ...]:
    """The rows of arrays by path, in the order of the paths; arrays on the CPU are not copied."""
    rows = []
    for name, leaf in sorted(leaves.items()):
        dtype, shape = spec(leaf)
        content = jax.random.key_data(leaf) if dtype in KEYS else leaf
        rows.append(row_of(name, dtype, shape, np.asarray(content)))
    return tuple(rows)


def arrays_of(rows: Sequence[Row]) -> list[jax.Array]:
    """The JAX arrays of rows, each of exactly the dtype of its row.

    Nearly all share the memory of the bytes that were read, where JAX supports it. They are made by
    `device_put`, as `jnp.asarray` compiles a program for every new shape: 13 ms each.

    Raises:
        FileError: for 64-bit numbers, unless JAX runs in x64.
    """
    if not jax.config.jax_enable_x64:  # type: ignore[attr-defined]
        for row in rows:
            if row.dtype in _WIDE:
                raise _too_wide(row)
    views = [row.array() for row in rows]
    small = _small(rows)
    contents = [view.copy() if row.path in small else view for row, view in zip(rows, views, strict=True)]
    arrays: list[jax.Array] = jax.device_put(contents, may_alias=True)
    for i, row in enumerate(rows):
        if arrays[i].dtype != contents[i].dtype:
            raise _too_wide(row)
        if row.dtype in KEYS:
            arrays[i] = jax.random.wrap_key_data(arrays[i], impl=row.dtype[4:])
    return arrays


def check_specs(specs: Mapping[str, Spec], expected: Mapping[str, Spec], what: str, of: str) -> None:
    """Raise `FileError` unless the leaves are the expected ones.

    Args:
        specs: dtype and shape of each leaf, by path.
        expected: the expected ones.
        what: where `specs` is from, for the error.
        of: where `expected` is from, for the error.
    """
    if specs == expected:
        return
    for name in [*expected, *specs]:
        if name not in specs:
            raise FileError(f"{what}: the leaf {name!r} of {of} is missing")
        if name not in expected:
            raise FileError(f"{what}: there is a leaf {name!r}, which is none of {of}")
        if specs[name] != expected[name]:
            advice = ""
            if specs[name][0] == "float64" != expected[name][0]:
                advice = "; enable jax_enable_x64 to use 64-bit numbers"
            (got, got_shape), (dtype, shape) = specs[name], expected[name]
            raise FileError(
                f"{what}: the leaf {name!r} is {got}{got_shape}, expected {dtype}{shape} of {of}{advice}"
            )


def _small(rows: Sequence[Row]) -> set[str]:
    """The paths of the smallest leaves, which are copied, so that they do not keep a large file in memory.

    Together they are at most a 32nd of it: copies of all leaves would double the memory.
    """
    held = max((memoryview(row.chunks[0].obj).nbytes for row in rows if row.chunks), default=0)
    paths: set[str] = set()
    if held > _SMALL:
        left = held // 32
        for row in sorted(rows, key=lambda row: row.nbytes):
            left -= row.nbytes
            if left < 0:
                break
            paths.add(row.path)
    return paths


def _too_wide(row: Row) -> FileError:
    return FileError(
        f"the leaf {row.path!r} is {row.dtype}, which JAX would narrow without a word; set jax_enable_x64"
    )
