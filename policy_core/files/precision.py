"""Policies in 64 bits where JAX does not run in x64: an error, or rounded to 32 bits on request."""

from dataclasses import replace
from typing import Any

import jax
import numpy as np

from policy_core.errors import FileError
from policy_core.files.document import Document
from policy_core.files.rows import Row, row_of
from policy_core.files.wire import pack

_NARROW = {"float64": "float32", "int64": "int32", "uint64": "uint32", "complex128": "complex64"}
_FIELDS = ("param_dtype", "compute_dtype")


def check_width(document: Document) -> None:
    """Raise `FileError` for a policy in 64 bits, unless JAX runs in x64."""
    if _has_64_bits():
        return
    cases = [f"the leaf {row.path!r} is {row.dtype}" for row in document.leaves if row.dtype in _NARROW]
    if not cases and b"float64" in document.config:  # a fast test before the config is decoded
        data = document.config_data()
        cases = ["the config computes in float64"] if _narrowed_config(data) != data else []
    if cases:
        raise FileError(
            f"file: {cases[0]}, and JAX has 32 bits in this process; set jax_enable_x64 for the same policy, "
            "or load with narrow=True to have it rounded to 32 bits, which is another policy"
        )


def narrowed(document: Document) -> Document:
    """The document rounded to 32 bits, or unchanged if JAX runs in x64.

    `float64` becomes `float32` in the fields `param_dtype` and `compute_dtype` of the config and of
    configs in it, and the params and the self-test are rounded to nearest; integers keep their values.

    Raises:
        FileError: for a number out of the range of 32 bits.
    """
    if _has_64_bits():
        return document
    return replace(
        document,
        config=pack(_narrowed_config(document.config_data())),
        leaves=tuple(_narrowed_row(row, "leaves") for row in document.leaves),
        self_test=tuple(_narrowed_row(row, "self_test") for row in document.self_test),
    )


def _has_64_bits() -> bool:
    return bool(jax.config.jax_enable_x64)  # type: ignore[attr-defined]


def _narrowed_config(data: Any) -> Any:
    if isinstance(data, list):
        return [_narrowed_config(item) for item in data]
    if not isinstance(data, dict):
        return data
    return {
        name: "float32" if name in _FIELDS and value == "float64" else _narrowed_config(value)
        for name, value in data.items()
    }


def _narrowed_row(row: Row, what: str) -> Row:
    if row.dtype not in _NARROW:
        return row
    wide = row.array()
    with np.errstate(over="ignore", under="ignore"):
        content = wide.astype(_NARROW[row.dtype])
    # An integer must keep its value; a float may be rounded, but must not become infinite.
    kept = content == wide if wide.dtype.kind in "iu" else np.isfinite(content) | ~np.isfinite(wide)
    if not np.all(kept):
        worst = wide[~kept].flat[0]
        raise FileError(
            f"{what}: the leaf {row.path!r} holds {worst}, which is beyond {_NARROW[row.dtype]}; "
            "set jax_enable_x64 instead of narrow=True"
        )
    return row_of(row.path, _NARROW[row.dtype], row.shape, content)
