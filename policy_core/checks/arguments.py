"""Trace-time argument validation of the free functions."""

from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from policy_core.checks.structure import check_structure, describe, is_array
from policy_core.contract import ActorCritic, Mask, PointValue, ValuePrediction
from policy_core.errors import StructureError
from policy_core.trees import params_struct

_Policy = TypeVar("_Policy")


def pair(policy: _Policy) -> _Policy:
    """The policy; raise `StructureError` unless it is a pair (params, config)."""
    if not isinstance(policy, tuple) or len(policy) != 2:
        got = f"{type(policy).__name__}"
        raise StructureError(f"policy: got {got}, expected the pair (params, config)")
    check_config(policy[1])
    return policy


def check_config(config: Any) -> None:
    """Raise `StructureError` unless the config implements `ActorCritic`."""
    if not isinstance(config, ActorCritic):
        raise StructureError(
            f"config: got {type(config).__name__}, expected a config that implements ActorCritic; a "
            "policy is the pair (params, config), in this order"
        )


def check_params(params: Any, config: ActorCritic) -> None:
    """Raise `StructureError` unless the params have the paths, shapes and kinds of dtype of `init`."""
    if axes := batch_axes(params, config):
        path, leaf = jax.tree_util.tree_leaves_with_path(params)[0]
        shape, where = jnp.shape(leaf), jax.tree_util.keystr(path)
        raise StructureError(
            f"params{where}: got shape {shape}, expected {shape[len(axes) :]}; these are the params of a "
            f"population of {axes}: use jax.vmap over it, or take one with policy_core.population.member"
        )


def batch_axes(params: Any, config: ActorCritic) -> tuple[int, ...]:
    """The leading axes that all leaves have in front of those of `init`; `()` if that is unchecked.

    Raises:
        StructureError: for params that are not those of the config.
    """
    if getattr(config, "params_unchecked", False):
        return ()
    struct = _params_struct(config)
    pairs = list(zip(jax.tree.leaves(params), jax.tree.leaves(struct), strict=False))
    axes = {_in_front(leaf, one) for leaf, one in pairs if is_array(leaf)}
    front = axes.pop() if len(axes) == 1 else ()
    batch = jax.tree.map(lambda one: jax.ShapeDtypeStruct((*front, *one.shape), one.dtype), struct)
    try:
        check_structure(params, batch, "params")
    except StructureError as error:
        _check_mixed(params, struct)
        first = str(error).partition(";")[0]
        whose = "these are the params of another config: policy_core.transplant carries leaves over"
        raise StructureError(f"{first}; {whose}") from None
    return front


def _in_front(leaf: Any, one: Any) -> tuple[int, ...]:
    """The axes that a leaf has in front of those of one policy."""
    return jnp.shape(leaf)[: max(jnp.ndim(leaf) - len(one.shape), 0)]


def _check_mixed(params: Any, struct: Any) -> None:
    """Raise `StructureError` if params are those of the config but for leading axes that differ."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    if jax.tree.structure(params) != jax.tree.structure(struct):  # type: ignore[operator]
        return
    pairs = list(zip(leaves, jax.tree.leaves(struct), strict=True))
    if any(
        not is_array(leaf) or jnp.shape(leaf)[len(_in_front(leaf, one)) :] != one.shape
        for (_, leaf), one in pairs
    ):
        return
    (first, leaf), one = pairs[0]
    expected = _in_front(leaf, one)
    for (path, leaf), one in pairs:
        if (got := _in_front(leaf, one)) != expected:
            raise StructureError(
                f"params{jax.tree_util.keystr(path)}: has the leading axes {got}, expected {expected}, as "
                f"params{jax.tree_util.keystr(first)} has; all leaves of a population have the same"
            )


def _params_struct(config: Any) -> PyTree:
    try:
        return params_struct(config)
    except (TypeError, jax.errors.JAXTypeError) as error:
        name, why = type(config).__name__, str(error).partition("\n")[0]
        raise StructureError(
            f"config: {name}.init cannot be traced, so its params cannot be checked ({why}); set "
            "params_unchecked = True on the class to act without"
        ) from error


def check_inputs(config: ActorCritic, observation: Any, action_mask: Mask) -> None:
    """Raise `StructureError` unless observation and mask match the spaces of the config."""
    check_structure(observation, config.observation_space.struct(), "observation")
    config.action_space.check_mask(action_mask)


def check_state(params: Any, config: ActorCritic, state: Any) -> None:
    """Raise `StructureError` unless the state has the structure of the initial state."""
    try:
        check_structure(state, jax.eval_shape(lambda: config.initial_state(params)), "state")
    except StructureError as error:
        raise StructureError(f"{error}; the initial state is policy_core.reset(policy)") from None


def check_batch(config: ActorCritic, observations: PyTree, mask: Any) -> None:
    """Raise `StructureError` unless all observations have the same leading axes, as does the mask."""
    struct = config.observation_space.struct()
    pairs = zip(jax.tree.leaves(observations), jax.tree.leaves(struct), strict=False)
    leaf, expected = next(pairs, (0, jax.ShapeDtypeStruct((), jnp.int32)))
    axes = jnp.shape(leaf)[: max(jnp.ndim(leaf) - len(expected.shape), 0)]
    batch = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((*axes, *leaf.shape), leaf.dtype), struct)
    check_structure(observations, batch, "observations")
    if mask is not None:
        check_structure(mask, jax.ShapeDtypeStruct(axes, jnp.bool_), "mask")


def predicted(prediction: Any) -> ValuePrediction | None:
    """The value returned by `forward`, as a prediction; an array becomes a `PointValue`."""
    if prediction is None or isinstance(prediction, ValuePrediction):
        return prediction
    return PointValue(prediction)


def value_of(prediction: Any) -> Any:
    """The value of a prediction; raise `StructureError` for a policy without a critic."""
    prediction = predicted(prediction)
    if prediction is None:
        raise StructureError(
            "policy: has no critic, so there is no value; use act or action_distribution, or the policy "
            "that was passed to actor_only"
        )
    return prediction.value()


def check_key(key: Any) -> None:
    """Raise `StructureError` unless `key` is None or one key, of either style."""
    if key is None:
        return
    typed = jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    if not typed and (key.dtype != jnp.uint32 or key.ndim == 0):
        raise StructureError(f"key: got {describe(key)}, expected a key; use jax.random.key(seed)")
    shape = jnp.shape(key) if typed else jnp.shape(key)[:-1]
    if shape:
        raise StructureError(f"key: got keys of shape {shape}, expected one key; use jax.vmap")


def check_time(is_first: Any, **arguments: PyTree) -> None:
    """Raise `StructureError` unless all arguments have the time axis of `is_first`."""
    if jnp.ndim(is_first) != 1 or jnp.result_type(is_first) != jnp.bool_:
        raise StructureError(
            f"is_first: got {describe(is_first)}, expected bool(time,); for a batch use jax.vmap"
        )
    time = jnp.shape(is_first)[0]
    if time == 0:
        raise StructureError("is_first: got no steps, expected at least one")
    for name, argument in arguments.items():
        for path, leaf in jax.tree_util.tree_leaves_with_path(argument):
            if jnp.shape(leaf)[:1] != (time,):
                raise StructureError(
                    f"{name}{jax.tree_util.keystr(path)}: got shape {jnp.shape(leaf)}, expected a "
                    f"leading time axis of length {time}, as is_first has"
                )
