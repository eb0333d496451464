"""Navix environments (0.7), whose own reset, a step late, is never reached.

`step` of Navix resets in the step *after* an end, and ignores the action given there. Here the state
after an end is a fresh one, so that every step is one of the game.
"""

import importlib
from typing import Any

import jax
import numpy as np

import policy_core as pc
from policy_core_adapters.environment import Environment, Step, auto_reset, declared

TRUNCATION, TERMINATION = 1, 2  # of `StepType`


def make(name: str, **env_kwargs: Any) -> Environment:
    """The registered environment `name`, as "Navix-Empty-5x5-v0"."""
    navix: Any = importlib.import_module("navix")
    with jax.ensure_compile_time_eval():
        env = navix.make(name, **env_kwargs)
    return from_navix(env)


def from_navix(env: Any) -> Environment:
    """A Navix environment.

    Grids of categories are arrays of small integers, not of `MultiDiscrete`: Navix declares fewer
    categories than it gives.
    """
    with jax.ensure_compile_time_eval():
        space = _space_of(env.observation_space)
        action_space = pc.Discrete(int(env.action_space.maximum) + 1)

    def seen(timestep: Any) -> tuple[Any, Any]:
        return declared(space, timestep.observation), timestep

    def reset(key: jax.Array) -> tuple[Any, Any]:
        return seen(env.reset(key))

    def step(key: jax.Array, timestep: Any, action: Any) -> Step:
        timestep = env.step(timestep, action)
        kind = timestep.step_type
        return auto_reset(
            reset(key), seen(timestep), timestep.reward, kind == TERMINATION, kind == TRUNCATION
        )

    return Environment(space, action_space, reset, step)


def _space_of(space: Any) -> pc.contract.Space:
    shape, dtype = tuple(space.shape), np.dtype(space.dtype)
    if not np.issubdtype(dtype, np.integer):
        low, high = (
            tuple(np.broadcast_to(x, shape).astype(float).ravel().tolist())
            for x in (space.minimum, space.maximum)
        )
        return pc.Box(low=low, high=high, shape=shape)
    pixels = np.max(space.maximum) == 255
    return pc.Box(low=0, high=255, shape=shape, dtype="uint8" if pixels else "int32")
