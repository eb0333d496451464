"""What a policy is: the batch axes of a population, and a summary for people."""

import math
from typing import Any

import jax
import jax.numpy as jnp

from policy_core.checks.arguments import batch_axes, pair
from policy_core.contract import Policy


def batch_shape(policy: Policy) -> tuple[int, ...]:
    """The leading axes of a population; `()` for one policy.

    Args:
        policy: the pair. Not for use inside the `jax.vmap` over a population, where it is one policy.

    Raises:
        StructureError: for params that are not those of the config.

    Example:
        >>> import jax
        >>> import policy_core as pc
        >>> config = pc.ActorCriticConfig(
        ...     observation_space=pc.Box(shape=(4,)), action_space=pc.Discrete(2)
        ... )
        >>> keys = jax.random.split(jax.random.key(0), 8)
        >>> pc.batch_shape(jax.vmap(lambda key: pc.init(config, key=key))(keys))
        (8,)
    """
    params, config = pair(policy)
    return batch_axes(params, config)


def summary(policy: Policy) -> str:
    """The params of a policy as a table: path, dtype, shape and number of parameters.

    Args:
        policy: the pair, or a population, whose leading axes are left out of the shapes.

    Raises:
        StructureError: for params that are not those of the config.

    Example:
        >>> import jax
        >>> import policy_core as pc
        >>> config = pc.ActorCriticConfig(
        ...     observation_space=pc.Box(shape=(4,)), action_space=pc.Discrete(2),
        ...     actor=pc.MLP((8,)), critic=None, name="tiny",
        ... )
        >>> print(pc.summary(pc.init(config, key=jax.random.key(0))))
        tiny: 58 parameters
          actor/head/bias             float32  (2,)     2
          actor/head/kernel           float32  (8, 2)  16
          actor/tower/hidden_0/bias   float32  (8,)     8
          actor/tower/hidden_0/kernel float32  (4, 8)  32
    """
    params, config = pair(policy)
    axes = batch_axes(params, config)
    rows: list[tuple[Any, ...]] = []
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        shape = jnp.shape(leaf)[len(axes) :]
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        rows.append((name, str(jnp.result_type(leaf)), str(shape), math.prod(shape)))
    widths = [max((len(str(row[i])) for row in rows), default=0) for i in range(4)]
    lines = [
        f"  {name:<{widths[0]}} {dtype:<{widths[1]}}  {shape:<{widths[2]}}  {size:>{widths[3]}}"
        for name, dtype, shape, size in rows
    ]
    members = f", in each of {' x '.join(map(str, axes))} members" if axes else ""
    total = f"{sum(row[3] for row in rows):,} parameters{members}"
    return "\n".join([f"{getattr(config, 'name', type(config).__name__)}: {total}", *lines])
