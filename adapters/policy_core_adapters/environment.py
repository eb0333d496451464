"""The environment interface of the examples: spaces, `reset`, `step` and action masks, in plain JAX."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

import policy_core as pc


class Step(NamedTuple):
    """One transition; the environment has been reset if the episode ended (auto-reset)."""

    observation: Any
    """The next observation of the policy: the first one of a new episode after an end."""
    state: Any
    reward: jax.Array
    terminated: jax.Array
    """Whether a terminal state was reached: the value of `final_observation` is 0."""
    truncated: jax.Array
    """Whether the episode was truncated, as by a time limit: bootstrap from `final_observation`."""
    final_observation: Any
    """The observation that followed the action, also where the episode ended."""
    valid: Any = True
    """Whether the action was played. It was not where a vector environment of gymnasium only reset: such a
    step ends, is no part of an episode, and is to be left out of the loss."""
    sign: jax.Array | float = 1.0
    """What the next value counts for whoever has just acted: -1 where an opponent moves next, as in
    self-play of a zero-sum game, whose losses are our gains; else 1."""


def no_mask(state: Any) -> None:
    """No action mask: every action is allowed."""
    del state


class Environment(NamedTuple):
    """An environment as pure, unbatched functions with auto-reset."""

    observation_space: pc.contract.Space
    action_space: pc.contract.Space
    reset: Callable[[jax.Array], tuple[Any, Any]]
    """`reset(key) -> (observation, state)`"""
    step: Callable[[jax.Array, Any, Any], Step]
    """`step(key, state, env_action) -> Step`"""
    action_mask: Callable[[Any], Any] = no_mask
    """`action_mask(state)`: which actions are allowed next, in the structure of the action space."""


# FOR ADAPTERS --------------------------------------------------------------------------------


def declared(space: pc.contract.Space, element: Any) -> Any:
    """The element in the dtypes of the space: some environments give floats for integers, or the reverse."""
    return jax.tree.map(lambda leaf, x: jnp.asarray(x).astype(leaf.dtype), space.struct(), element)


def auto_reset(first: Any, after: Any, reward: Any, terminated: Any, truncated: Any) -> Step:
    """The transition to `after`, or to `first` if it was the last one; both are (observation, state).

    The reward becomes float32 and the flags booleans. What ends by itself is not truncated.
    """
    terminated = jnp.asarray(terminated).astype(bool)
    truncated = jnp.asarray(truncated).astype(bool) & ~terminated
    observation, state = pick(terminated | truncated, first, after)
    return Step(observation, state, jnp.asarray(reward).astype(jnp.float32), terminated, truncated, after[0])


def pick(condition: jax.Array, a: Any, b: Any) -> Any:
    """`a` or `b`, leaf by leaf, in the dtypes of `a`: those of the first state, so that a scan keeps them."""

    def leaf(a: Any, b: Any) -> jax.Array:
        a, b = jnp.asarray(a), jnp.asarray(b)
        return jnp.where(condition, a, b if a.dtype == b.dtype else b.astype(a.dtype))

    return jax.tree.map(leaf, a, b)


def refuse_wrappers(env: Any, advice: dict[str, str]) -> None:
    """Raise for an environment within one of these wrappers, by the names of their classes.

    Raises:
        ValueError: with the advice for the wrapper.
    """
    layer = env
    while layer is not None:
        name = type(layer).__name__
        if name in advice:
            raise ValueError(f"env: got an environment within {name}, {advice[name]}")
        layer = next((vars(layer)[x] for x in ("env", "_env") if x in getattr(layer, "__dict__", {})), None)


# FOR MEMORIES --------------------------------------------------------------------------------


def with_previous(env: Environment) -> Environment:
    """The environment with the previous action and reward in the observation, as a memory may need them.

    The observation is a `Dict` of `observation`, `previous_action` (the environment action, as a vector of
    `action_space.flatten`) and `previous_reward`. Both are 0 in the first observation of an episode.
    """
    size = env.action_space.flat_size
    space = pc.Dict(
        {
            "observation": env.observation_space,
            "previous_action": pc.Box(shape=(size,)),
            "previous_reward": pc.Box(),
        }
    )

    def seen(observation: Any, action: Any, reward: Any) -> Any:
        return {"observation": observation, "previous_action": action, "previous_reward": reward}

    def reset(key: jax.Array) -> tuple[Any, Any]:
        observation, state = env.reset(key)
        return seen(observation, jnp.zeros(size), jnp.zeros(())), state

    def step(key: jax.Array, state: Any, action: Any) -> Step:
        result = env.step(key, state, action)
        action = env.action_space.flatten(action).astype(jnp.float32)
        reward = jnp.asarray(result.reward).astype(jnp.float32)
        begins = jnp.asarray(result.terminated | result.truncated)
        first = seen(result.observation, jnp.zeros_like(action), jnp.zeros_like(reward))
        after = seen(result.final_observation, action, reward)
        going_on = seen(result.observation, action, reward)
        return result._replace(observation=pick(begins, first, going_on), final_observation=after)

    return env._replace(observation_space=space, reset=reset, step=step)
