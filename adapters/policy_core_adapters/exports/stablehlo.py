"""`act` of a policy as StableHLO, by `jax.export`: for JAX without this package, PJRT or IREE.

Lowered for CPUs, CUDA and TPUs at once, with an axis of any length for a batch, and one for a
population. The program holds its params as constants, or takes them where it is one of a population.
"""

from typing import Any

import jax
import numpy as np

import policy_core as pc

PLATFORMS = ("cpu", "cuda", "tpu")


def export(
    policy: pc.contract.Policy,
    *,
    batch: int | str | None = "batch",
    population: int | str | None = None,
    action_mask: bool = False,
    key: bool = False,
    platforms: tuple[str, ...] = PLATFORMS,
) -> Any:
    """`act` as a `jax.export.Exported`: `call(state, observation, **given) -> (state, action)`.

    `given` are those of `action_mask` and `key` that are asked for, and `is_first`, a bool, for a policy
    with a memory. All are as in `policy_core.act`, but a key is `uint32[2]`, the data of a threefry key.
    Nothing of this package is needed to deserialize and call it; `exported.mlir_module()` is its text.

    Args:
        policy: the pair.
        batch: the axis in front of all inputs but the params: a length, or a name for one of any length;
            None for no such axis.
        population: likewise, the axis in front of that one. The first argument of `call` are then the
            params, which have it too. None for one policy, whose params are constants in the program.
        action_mask: whether it takes masks, in the structure of `action_space.full_mask()`.
        key: whether it takes a key, to draw the action; else it is deterministic.
        platforms: those that it is lowered for.

    Raises:
        StructureError: for a population without `population`, or one with more than one axis.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import policy_core as pc
        >>> from policy_core_adapters.exports import stablehlo
        >>> config = pc.ActorCriticConfig(
        ...     observation_space=pc.Box(shape=(4,)), action_space=pc.Discrete(2), actor=pc.MLP((8,))
        ... )
        >>> policy = pc.init(config, key=jax.random.key(0))
        >>> data = stablehlo.export(policy).serialize()  # needs flatbuffers
        >>> _, actions = jax.export.deserialize(data).call((), jnp.ones((5, 4)))
        >>> actions.shape
        (5,)
    """
    params, config = policy
    axes = pc.batch_shape(policy)
    if len(axes) > 1 or (axes and population is None):
        raise pc.errors.StructureError(
            f"policy: got a population of {axes}, expected "
            + (
                "one policy, or `population=` with a name for its axis"
                if len(axes) == 1
                else "one axis at most"
            )
        )
    one = jax.tree.map(lambda leaf: _struct(leaf, len(axes)), params)
    state = jax.eval_shape(lambda p: pc.reset((p, config)), one)
    given = {
        "action_mask": (action_mask, config.action_space.full_mask()),
        "is_first": (bool(jax.tree.leaves(state)), np.zeros((), bool)),
        "key": (key, np.zeros(2, np.uint32)),
    }

    def act(params: Any, state: Any, observation: Any, given: Any) -> Any:
        data = given.get("key")
        drawn = None if data is None else jax.random.wrap_key_data(data, impl="threefry2x32")
        return pc.act((params, config), state, observation, **{**given, "key": drawn})

    inputs = (
        state,
        config.observation_space.struct(),
        {name: tree for name, (asked, tree) in given.items() if asked},
    )
    # One scope, or the names would be those of different axes.
    names = [axis for axis in (population, batch) if isinstance(axis, str)]
    symbols: dict[Any, Any] = (
        dict(zip(names, jax.export.symbolic_shape(",".join(names)), strict=True)) if names else {}
    )
    if batch is not None:
        act, inputs = jax.vmap(act, (None, 0, 0, 0)), _stacked(inputs, symbols.get(batch, batch))
    if population is not None:
        act, inputs = jax.vmap(act), _stacked((one, *inputs), symbols.get(population, population))

    def alone(state: Any, observation: Any, **given: Any) -> Any:
        return act(params, state, observation, given)

    def of_population(params: Any, state: Any, observation: Any, **given: Any) -> Any:
        return act(params, state, observation, given)

    function = jax.jit(alone if population is None else of_population, keep_unused=True)
    return jax.export.export(function, platforms=platforms)(*inputs[:-1], **inputs[-1])


def _struct(leaf: Any, axes: int) -> Any:
    return jax.ShapeDtypeStruct(leaf.shape[axes:], leaf.dtype)


def _stacked(tree: Any, axis: Any) -> Any:
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((axis, *leaf.shape), leaf.dtype), tree)
