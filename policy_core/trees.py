"""The leaves of a pytree by path, the dtype and shape of a leaf, and the devices over which it varies."""

import functools
from collections.abc import Mapping
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import PyTree

from policy_core.errors import FileError, PolicyError

Spec: TypeAlias = tuple[str, tuple[int, ...]]
"""The name of a dtype, as in files, and a shape."""

# From the string of the dtype of JAX's typed keys to the name of the implementation.
_KEY_NAMES = {"key<fry>": "threefry2x32", "key<rbg>": "rbg", "key<urbg>": "unsafe_rbg"}


def varying_as(tree: PyTree, *others: PyTree) -> PyTree:
    """`tree`, varying over the axes of a `shard_map` over which a leaf of `others` does.

    The type of a traced array says over which axes its numbers may differ from device to device, and
    the carry of a scan must have one type throughout: that of everything that it is made from.
    """
    axes = {axis for leaf in jax.tree.leaves(others) for axis in _axes_of(leaf)}

    def cast(leaf: Any) -> Any:
        missing = tuple(axes - _axes_of(leaf))
        return jax.lax.pcast(leaf, missing, to="varying") if missing else leaf

    return jax.tree.map(cast, tree)


def _axes_of(leaf: Any) -> frozenset[Any]:
    return jax.typeof(leaf).manual_axis_type.varying  # type: ignore[no-any-return]


def by_path(tree: PyTree, what: str, error: type[PolicyError] = FileError) -> dict[str, Any]:
    """The leaves of a pytree by path: the keys joined by "/".

    Args:
        tree: any pytree.
        what: the name of the pytree in an error.
        error: the error that is raised if two leaves have the same path.
    """
    leaves: dict[str, Any] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        if name in leaves:
            raise error(f"{what}: two leaves have the path {name!r}; use keys without '/'")
        leaves[name] = leaf
    return leaves


def spec(leaf: Any) -> Spec:
    """The name of the dtype, as in files, and the shape of an array or a `jax.ShapeDtypeStruct`."""
    return _dtype_name(leaf.dtype), tuple(leaf.shape)


@functools.lru_cache(maxsize=256)
def _dtype_name(dtype: Any) -> str:
    if jnp.issubdtype(dtype, jax.dtypes.prng_key):
        return f"key:{_KEY_NAMES.get(str(dtype), dtype)}"
    return str(dtype)


def check_arrays(leaves: Mapping[str, Any], what: str, error: type[PolicyError] = FileError) -> None:
    """Raise `error` unless every leaf is an array with values: not traced, not deleted."""
    for name, leaf in leaves.items():
        if not isinstance(leaf, jax.Array | np.ndarray) or isinstance(leaf, Tracer):
            raise error(f"{what}: the leaf {name!r} is {type(leaf).__name__}, expected an array")
        if isinstance(leaf, jax.Array) and leaf.is_deleted():
            raise error(f"{what}: the leaf {name!r} was deleted, perhaps as it was donated to a jit")


def check_in_one_process(leaves: Mapping[str, Any], what: str) -> None:
    """Raise `FileError` for an array of which other processes have a part, or take part in its use."""
    for name, leaf in leaves.items():
        if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
            raise FileError(
                f"{what}: the leaf {name!r} spans {jax.process_count()} processes; call "
                "policy_core.population.gather on all of them, and save what it returns on one"
            )
