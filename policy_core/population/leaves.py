"""Single leaves of a policy or a population, by path."""

import difflib
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from policy_core.checks.arguments import pair
from policy_core.checks.structure import check_structure
from policy_core.contract import Policy
from policy_core.errors import StructureError
from policy_core.population.members import size
from policy_core.trees import by_path

_Policy = TypeVar("_Policy", bound=Policy)


def get_leaves(pop: Policy, paths: Iterable[str] | None = None) -> dict[str, Any]:
    """Leaves of a policy or a population by path, as files name them: the keys joined by "/".

    Args:
        pop: the pair.
        paths: which; None for all.

    Raises:
        StructureError: for a path that is none of a leaf.

    Example:
        >>> import jax
        >>> import policy_core as pc
        >>> config = pc.ActorCriticConfig(
        ...     observation_space=pc.Box(shape=(4,)), action_space=pc.Discrete(2), temperature=1.0
        ... )
        >>> population = pc.population.init(config, 3, key=jax.random.key(0))
        >>> pc.population.get_leaves(population, ["temperature"])["temperature"].tolist()
        [1.0, 1.0, 1.0]
    """
    leaves = by_path(pair(pop)[0], "params", StructureError)
    return leaves if paths is None else {path: leaves[_known(path, leaves, "paths")] for path in paths}


def set_leaves(pop: _Policy, values: Mapping[str, Any]) -> _Policy:
    """The pair with some leaves replaced, such as hyper-parameters that differ by member.

    Args:
        pop: a population or one policy.
        values: the new leaves by path, as `get_leaves` names them: arrays of exactly the shape of the
            leaf, `[n, ...]`, and of its kind of dtype. They are cast to its dtype and lie where it lies.

    Raises:
        StructureError: for a path that is none of a leaf, or another shape or kind of dtype.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import policy_core as pc
        >>> config = pc.ActorCriticConfig(
        ...     observation_space=pc.Box(shape=(4,)), action_space=pc.Box(low=-1.0, high=1.0, shape=(2,)),
        ...     temperature=1.0,
        ... )
        >>> population = pc.population.init(config, 3, key=jax.random.key(0))
        >>> population = pc.population.set_leaves(population, {
        ...     "temperature": jnp.array([0.5, 1.0, 2.0]),
        ...     "actor/head/scale": jnp.full((3, 2), -1.0),
        ... })
        >>> pc.population.member(population, 2)[0]["temperature"].tolist()
        2.0
    """
    size(pop)
    leaves = by_path(pop[0], "params", StructureError)
    for path, value in values.items():
        leaf = leaves[_known(path, leaves, "values")]
        check_structure(value, jax.ShapeDtypeStruct(jnp.shape(leaf), leaf.dtype), f"values[{path!r}]")
        leaves[path] = _placed(value, leaf)
    replaced: _Policy = (jax.tree.unflatten(jax.tree.structure(pop[0]), [*leaves.values()]), pop[1])  # type: ignore[assignment]
    return replaced


def _known(path: Any, leaves: Mapping[str, Any], name: str) -> Any:
    if path in leaves:
        return path
    near = difflib.get_close_matches(str(path), leaves, 3, 0.5) or list(leaves)[:8]
    raise StructureError(f"{name}: {path!r} is no leaf; near it are {', '.join(near)}")


def _placed(value: Any, leaf: Any) -> Any:
    """The value as the leaf is: a NumPy array, or one of JAX on the same devices."""
    if isinstance(leaf, np.ndarray) and not isinstance(value, jax.Array):
        return np.array(value, leaf.dtype)
    value = jnp.asarray(value, leaf.dtype)
    if isinstance(value, Tracer) or isinstance(leaf, Tracer | np.ndarray) or not leaf.committed:
        return value
    return jax.device_put(value, leaf.sharding)
