"""The free functions of training: a mask for the optimizer, and updates of running statistics.

They depend on the contract and on no implementation.
"""

import functools
from typing import Any

import jax
from jaxtyping import Array, Bool, Float, PyTree

from policy_core.checks.arguments import check_batch, check_params, pair
from policy_core.contract import (
    Action,
    NormalizingActorCritic,
    Observation,
    Params,
    Policy,
    State,
    ValueNormalizingActorCritic,
)


def trainable(policy: Policy[Params, State, Observation, Action]) -> PyTree:
    """Which leaves an optimizer may update: a pair in the structure of the policy, with bools for leaves.

    Running statistics and a temperature are False: their gradient is zero, yet weight decay or
    the noise of an evolution strategy would change them. Pass the function itself to optax, which
    calls it on policies and on gradients:

        optax.multi_transform({True: optimizer, False: optax.set_to_zero()}, pc.trainable)

    Args:
        policy: the pair, or a gradient or an update of one. The bools are Python bools, also when traced.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import policy_core as pc
        >>> config = pc.ActorCriticConfig(
        ...     observation_space=pc.Box(shape=(4,)), action_space=pc.Discrete(2),
        ...     normalize=pc.Normalize(),
        ... )
        >>> policy = pc.init(config, key=jax.random.key(0))
        >>> mask, _ = pc.trainable(policy)
        >>> mask["normalize"], mask["actor"]["head"]
        ({'count': False, 'mean': False, 'variance': False}, {'bias': True, 'kernel': True})
        >>> def noise(moves, leaf):  # of an evolution strategy
        ...     return 0.1 * jnp.ones_like(leaf) if moves else jnp.zeros_like(leaf)
        >>> (noise_params, _) = jax.tree.map(noise, pc.trainable(policy), policy)
    """
    params, config = pair(policy)
    if isinstance(config, NormalizingActorCritic):
        return config.trainable(params), config
    return jax.tree.map(lambda _: True, params), config


def update_statistics(
    policy: Policy[Params, State, Observation, Action],
    observations: PyTree | None = None,
    *,
    returns: Float[Array, "..."] | None = None,
    mask: Bool[Array, "..."] | None = None,
    axis_name: str | tuple[str, ...] | None = None,
) -> Policy[Params, State, Observation, Action]:
    """The policy with its running statistics updated from a batch of observations, or of returns.

    A policy without statistics is returned unchanged, so a trainer may always call this. With observations
    call it between the update from a rollout and the next rollout, so that the log-probabilities of a
    rollout are those of the policy that is trained on it. With returns, the targets of the critic, call it
    before the update: a `PopArtHead` keeps its values.

    Args:
        policy: the pair. For a population, `jax.vmap`.
        observations: with any number of leading axes, the same in all parts; none for one observation. None
            leaves the statistics of observations as they are.
        returns: likewise, in units of reward, `[..., *objectives]`.
        mask: which of them count, in the shape of the leading axes; None for all.
        axis_name: of a `shard_map`, `pmap` or `vmap`, over which observations are split and
            the policy is replicated: the result is the same on every member, as if from all of them.

    Raises:
        StructureError: for observations, returns or a mask of another structure, shape or dtype.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import policy_core as pc
        >>> config = pc.ActorCriticConfig(
        ...     observation_space=pc.Box(shape=(2,)), action_space=pc.Discrete(2),
        ...     normalize=pc.Normalize(),
        ... )
        >>> policy = pc.init(config, key=jax.random.key(0))
        >>> rollout = jnp.arange(12.0).reshape(2, 3, 2)
        >>> params, _ = pc.update_statistics(policy, rollout, mask=jnp.array([[True] * 3, [False] * 3]))
        >>> params["normalize"]["count"].sum(0).tolist(), params["normalize"]["mean"][0].tolist()
        ([3.0, 3.0], [2.0, 3.0])
    """
    params, config = pair(policy)
    check_params(params, config)
    if observations is not None:
        check_batch(config, observations, mask)
    updated: Policy[Params, State, Observation, Action] = _updated(
        policy, observations, returns, mask, axis_name
    )
    return updated


@functools.partial(jax.jit, static_argnames="axis_name", inline=True)
def _updated(policy: Any, observations: Any, returns: Any, mask: Any, axis_name: Any) -> Any:
    params, config = policy
    if observations is not None and isinstance(config, NormalizingActorCritic):
        params = config.update_statistics(params, observations, mask=mask, axis_name=axis_name)
    if returns is not None and isinstance(config, ValueNormalizingActorCritic):
        params = config.update_value_statistics(params, returns, mask=mask, axis_name=axis_name)
    return params, config
