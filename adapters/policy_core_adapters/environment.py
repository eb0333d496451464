"""The environment interface of the examples: spaces, `reset`, `step` and action masks, in plain JAX."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

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
