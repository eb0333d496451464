"""The free functions around an optimiser: what it may move, and what is learned without it.

They know the contract and no implementation.
"""

from typing import Any

import jax
from jaxtyping import Array, Bool, PyTree

from policy_core._arguments import check_batch, check_config, pair
from policy_core.contract import (
    Action,
    DetachableActorCritic,
    NormalizingActorCritic,
    Observation,
    Params,
    Policy,
    State,
)
from policy_core.errors import StructureError


def trainable(policy: Policy[Params, State, Observation, Action]) -> PyTree:
    """Which leaves an optimiser may move: a pair of the structure of the policy, with bools for leaves.

    False are running statistics and a temperature: their gradient is zero, yet weight decay or
    the noise of an evolution strategy would move them. Give the function itself to optax, which
    calls it on policies and on gradients:

        optax.multi_transform({True: optimizer, False: optax.set_to_zero()}, pc.trainable)

    Args:
        policy: the pair, or a gradient or an update of one; traced or not, the bools are Python's.

    Example:
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


def actor_only(policy: Policy[Params, State, Observation, Action]) -> Policy[Any, Any, Any, Action]:
    """The policy without its critic, to be deployed: it acts alike and is a pair like any other.

    It takes what the actor sees: with `actor_keys`, only those parts of an observation. `act`
    and `action_distribution` work; whatever needs a value raises `StructureError`.

    Raises:
        StructureError: if the config does not offer `DetachableActorCritic`.

    Example:
        >>> import policy_core as pc
        >>> space = pc.Dict({"seen": pc.Box(shape=(2,)), "hidden": pc.Box(shape=(9,))})
        >>> config = pc.ActorCriticConfig(
        ...     observation_space=space, action_space=pc.Discrete(2), actor_keys=("seen",)
        ... )
        >>> policy = pc.actor_only(pc.init(config, key=jax.random.key(0)))
        >>> state, action = pc.act(policy, pc.reset(policy), {"seen": jnp.ones(2)})
        >>> sorted(policy[0])
        ['actor']
    """
    params, config = pair(policy)
    if not isinstance(config, DetachableActorCritic):
        raise StructureError(f"config: {type(config).__name__} does not offer DetachableActorCritic")
    params, config = config.actor_only(params)
    check_config(config)
    return params, config


def update_statistics(
    policy: Policy[Params, State, Observation, Action],
    observations: Observation,
    *,
    mask: Bool[Array, "..."] | None = None,
    axis_name: str | tuple[str, ...] | None = None,
) -> Policy[Params, State, Observation, Action]:
    """The policy, with the running statistics of its observations brought up to date.

    A policy without statistics is returned as it is, so a trainer may always call this. Call it
    between the update from a rollout and the next rollout, so that the log-probabilities of a
    rollout are those of the policy that is trained on it.

    Args:
        policy: the pair. For a population, `jax.vmap`.
        observations: with any number of leading axes, the same everywhere; none for one observation.
        mask: which observations count, in the shape of the leading axes; None for all.
        axis_name: of a `shard_map`, `pmap` or `vmap`, over which observations are split and
            the policy is not: the result is the same everywhere, as if they were together.

    Raises:
        StructureError: for observations or a mask of another structure, shape or dtype.

    Example:
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
    check_batch(pair(policy)[1], observations, mask)
    updated: Policy[Params, State, Observation, Action] = _updated(policy, observations, mask, axis_name)
    return updated


def _update(policy: Any, observations: Any, mask: Any, axis_name: Any) -> Any:
    params, config = policy
    if isinstance(config, NormalizingActorCritic):
        params = config.update_statistics(params, observations, mask=mask, axis_name=axis_name)
    return params, config


_updated: Any = jax.jit(_update, static_argnums=3, inline=True)
