"""The free functions over sequences, with resets inside, differentiable through the memory."""

from typing import Any

import jax
from jaxtyping import Array, Bool, Float

from policy_core.checks.arguments import (
    check_inputs,
    check_params,
    check_state,
    check_time,
    pair,
    predicted,
    value_of,
)
from policy_core.contract import (
    Action,
    Distribution,
    Mask,
    Observation,
    Params,
    Policy,
    SequenceActorCritic,
    State,
    ValuePrediction,
)
from policy_core.functions.step import forward, jit, score
from policy_core.trees import varying_as


@jit
def forward_sequence(
    policy: Policy[Params, State, Observation, Action],
    state: State,
    observations: Observation,
    *,
    is_first: Bool[Array, " time"],
    action_masks: Mask = None,
) -> tuple[State, Distribution[Action], ValuePrediction | None]:
    """`forward` over a sequence: last state, distributions and predictions of the value.

    Equal to single steps of `forward`. All but the memory is computed in parallel over time.

    Args:
        policy: the pair.
        state: the state before the first observation.
        observations, action_masks: as in `forward`, with a leading time axis.
        is_first: `is_first[t]` is whether `observations[t]` is the first of an episode; if so,
            the state is reset before it.

    Returns:
        The state after the last observation; the distributions, and the predictions of the values
        (None without a critic), with a leading time axis: their methods need no `vmap`.

    Raises:
        StructureError: if the time axes differ, or an argument has the wrong structure,
            shape or dtype, when traced.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import policy_core as pc
        >>> config = pc.ActorCriticConfig(
        ...     observation_space=pc.Box(shape=(4,)), action_space=pc.Discrete(2)
        ... )
        >>> policy = pc.init(config, key=jax.random.key(0))
        >>> state, distributions, critic = pc.forward_sequence(
        ...     policy, pc.reset(policy), jnp.ones((3, 4)), is_first=jnp.array([True, False, False])
        ... )
        >>> distributions.kl(distributions).tolist(), critic.loss(jnp.zeros(3)).shape
        ([0.0, 0.0, 0.0], (3,))
    """
    check_time(is_first, observations=observations, action_masks=action_masks)
    params, config = pair(policy)
    check_params(params, config)
    if isinstance(config, SequenceActorCritic):
        check_state(params, config, state)
        jax.vmap(lambda x, mask, _: check_inputs(config, x, mask))(observations, action_masks, is_first)
        state, distributions, values = config.forward_sequence(
            params, state, observations, is_first=is_first, action_masks=action_masks
        )
        return state, distributions, predicted(values)

    inputs = (observations, action_masks, is_first)
    seen = (params, state, inputs)

    def step(state: State, inputs: Any) -> Any:
        observation, action_mask, first = inputs
        state, *outputs = forward(policy, state, observation, action_mask=action_mask, is_first=first)
        return varying_as(state, *seen), outputs

    if jax.tree.leaves(state):
        state, (distributions, prediction) = jax.lax.scan(step, varying_as(state, *seen), inputs)
    else:
        _, (distributions, prediction) = jax.vmap(lambda inputs: step(state, inputs))(inputs)
    return state, distributions, prediction


@jit
def evaluate_sequence(
    policy: Policy[Params, State, Observation, Action],
    state: State,
    observations: Observation,
    actions: Action,
    *,
    is_first: Bool[Array, " time"],
    action_masks: Mask = None,
) -> tuple[State, Float[Array, "time *objectives"], Float[Array, " time"], Float[Array, " time"]]:
    """`evaluate_action` over a sequence, differentiable through the memory.

    Equal to single steps of `evaluate_action`. All but the memory is computed in parallel over time.

    Args:
        policy: the pair.
        state: the state before the first observation.
        observations, actions, action_masks: as in `evaluate_action`, with a leading time axis.
        is_first: `is_first[t]` is whether `observations[t]` is the first of an episode; if so,
            the state is reset before it.

    Returns:
        The state after the last observation; values, log-probabilities, entropies `[time]`.

    Raises:
        StructureError: if the time axes differ, or an argument has the wrong structure,
            shape or dtype, when traced.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import policy_core as pc
        >>> config = pc.ActorCriticConfig(
        ...     observation_space=pc.Box(shape=(4,)), action_space=pc.Discrete(2)
        ... )
        >>> policy = pc.init(config, key=jax.random.key(0))
        >>> state, values, log_probs, entropies = pc.evaluate_sequence(
        ...     policy, pc.reset(policy), jnp.ones((3, 4)), jnp.array([0, 1, 0]),
        ...     is_first=jnp.array([True, False, False]),
        ... )
        >>> values.shape
        (3,)
    """
    check_time(is_first, actions=actions)
    state, distributions, prediction = forward_sequence(
        policy, state, observations, is_first=is_first, action_masks=action_masks
    )
    return state, value_of(prediction), *jax.vmap(score)(distributions, actions)
