"""Trace-time validation of pytrees against shapes and dtypes."""

from collections.abc import Mapping
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import keystr, tree_flatten_with_path
from typing_extensions import TypeIs

from policy_core.errors import StructureError

ArrayLike: TypeAlias = bool | int | float | complex | np.generic | np.ndarray | jax.Array


def check_structure(value: Any, struct: Any, name: str) -> None:
    """Raise `StructureError` unless `value` has the tree, shapes and kinds of dtype of `struct`.

    Only the kind of a dtype is checked, not its width (bfloat16 passes for float32). A bool
    passes for an integer. Runs when traced, so it costs nothing at run time.
    """
    if advice := _container_advice(value, struct, name):
        raise StructureError(f"{name}: got {type(value).__name__}, expected {advice}")
    expected = {keystr(path): leaf for path, leaf in tree_flatten_with_path(struct)[0]}
    got = {keystr(path): leaf for path, leaf in tree_flatten_with_path(value)[0]}
    for path in got:
        if path not in expected:
            raise StructureError(f"{name}{path}: unexpected; expected {_tree(expected)}, got {_tree(got)}")
    for path, leaf in expected.items():
        if path not in got:
            raise StructureError(f"{name}{path}: missing; expected {_tree(expected)}, got {_tree(got)}")
        _check_leaf(got[path], leaf, name + path)
    got_tree: Any = jax.tree.structure(value)
    expected_tree: Any = jax.tree.structure(struct)
    if got_tree != expected_tree:
        raise StructureError(
            f"{name}: got a tree {got_tree}, expected {expected_tree}; use the same containers"
        )


def matches_structure(value: Any, struct: Any) -> bool:
    """Whether `check_structure` passes."""
    try:
        check_structure(value, struct, "")
    except StructureError:
        return False
    return True


def is_array(value: object) -> TypeIs[ArrayLike]:
    """Whether `value` is an array or a Python or NumPy scalar."""
    return isinstance(value, bool | int | float | complex | np.generic | np.ndarray | jax.Array)


def describe(leaf: Any) -> str:
    """Dtype and shape of a leaf, such as `float32(4,)`; never its values."""
    return f"{jnp.result_type(leaf)}{jnp.shape(leaf)}"


def _container_advice(value: Any, struct: Any, name: str) -> str | None:
    """What to write for a container of another type, which is another tree; None for the right one."""
    match struct:
        case dict() if isinstance(value, Mapping) and type(value) is not dict:
            return f"a dict; use dict({name})"
        case dict() if hasattr(value, "_asdict"):
            return f"a dict; use {name}._asdict()"
        case tuple() if isinstance(value, list) or (
            isinstance(value, tuple) and type(value) is not type(struct)
        ):
            return f"a tuple; use tuple({name})"
        case jax.ShapeDtypeStruct() if isinstance(value, list | tuple):
            return f"an array {describe(struct)}; use jnp.array({name})"
    return None


def _check_leaf(value: Any, expected: Any, path: str) -> None:
    if not is_array(value):
        raise StructureError(f"{path}: got {type(value).__name__}, expected an array {describe(expected)}")
    shape, dtype = jnp.shape(value), jnp.result_type(value)
    if shape != expected.shape:
        batch = len(shape) > len(expected.shape) and shape[-len(expected.shape) :] == expected.shape
        batch = batch or (expected.shape == () and shape != ())
        advice = "; for a batch use jax.vmap" if batch else ""
        if len(shape) == 3 and (*shape[1:], shape[0]) == expected.shape:
            advice = "; channels come last, use jnp.moveaxis(image, 0, -1)"
        raise StructureError(f"{path}: got shape {shape}, expected {expected.shape}{advice}")
    if not _same_kind(dtype, expected.dtype):
        raise StructureError(f"{path}: got dtype {dtype}, expected {expected.dtype}; convert it with .astype")


def _same_kind(got: Any, expected: Any) -> bool:
    for kind in (jnp.floating, jnp.integer):
        if jnp.issubdtype(expected, kind):
            return bool(jnp.issubdtype(got, kind) or (kind is jnp.integer and jnp.issubdtype(got, jnp.bool_)))
    return bool(got == expected)


def _tree(leaves: dict[str, Any]) -> str:
    """The leaves of a tree on one line."""
    if set(leaves) == {""}:
        return "one array"
    names = list(leaves)
    return "leaves " + ", ".join(names[:8]) + (", ..." if len(names) > 8 else "") if names else "()"
