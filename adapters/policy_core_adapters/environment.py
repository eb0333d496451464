"""What our examples ask of an environment: five functions' worth of plain JAX."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

import policy_core as pc


class Step(NamedTuple):
    """One transition, after which the environment has reset itself if the episode ended."""

    observation: Any
    """What the policy sees next: the first observation of a new episode after an end."""
    state: Any
    reward: jax.Array
    terminated: jax.Array
    """The episode ended by itself: nothing is to come."""
    truncated: jax.Array
    """The episode was cut, by a time limit: bootstrap from `final_observation`."""
    final_observation: Any
    """The observation that followed the action, also where the episode ended."""


def no_mask(state: Any) -> None:
    """Every action is allowed, always."""
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
    """`action_mask(state)`: what is allowed next, in the structure of the action space."""
