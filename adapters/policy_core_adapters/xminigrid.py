"""XLand-MiniGrid environments (0.9): tiles and colors as categories, ends as in dm_env.

A LAST step whose discount is 0 is a termination, with any other a truncation.
"""

import importlib
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

import policy_core as pc
from policy_core_adapters.environment import Environment, Step, auto_reset, declared, refuse_wrappers

LAST = 2  # of `StepType`
TILES, COLORS = 13, 12


def make(name: str, **env_kwargs: Any) -> Environment:
    """The registered environment `name`, as "MiniGrid-Empty-5x5"."""
    xminigrid: Any = importlib.import_module("xminigrid")
    with jax.ensure_compile_time_eval():
        env, params = xminigrid.make(name, **env_kwargs)
    return from_xminigrid(env, params)


def from_xminigrid(env: Any, params: Any) -> Environment:
    """An XLand-MiniGrid environment and its parameters, without a wrapper that resets.

    An observation of `[height, width, 2]` integers is a `MultiDiscrete` of a tile and a color for each
    square, so a one-hot input; every other array is a `Box`, and a dict a `Dict`.

    Raises:
        ValueError: for an environment within a wrapper that resets.
    """
    advice = "which loses final observations, expected it without: the adapter resets"
    refuse_wrappers(env, {"GymAutoResetWrapper": advice, "DmEnvAutoResetWrapper": advice})
    with jax.ensure_compile_time_eval():
        first = jax.eval_shape(lambda key: env.reset(params, key), jax.eval_shape(lambda: jax.random.key(0)))
        space, action_space = _space_of(first.observation), pc.Discrete(int(env.num_actions(params)))

    def seen(timestep: Any) -> tuple[Any, Any]:
        return declared(space, timestep.observation), timestep

    def reset(key: jax.Array) -> tuple[Any, Any]:
        return seen(env.reset(params, key))

    def step(key: jax.Array, timestep: Any, action: Any) -> Step:
        timestep = env.step(params, timestep, action)
        last, going_on = timestep.step_type == LAST, timestep.discount > 0
        return auto_reset(reset(key), seen(timestep), timestep.reward, last & ~going_on, last & going_on)

    return Environment(space, action_space, reset, step)


def _space_of(struct: Any) -> pc.contract.Space:
    if isinstance(struct, Mapping):
        return pc.Dict({str(name): _space_of(part) for name, part in struct.items()})
    if len(struct.shape) == 3 and struct.shape[-1] == 2 and jnp.issubdtype(struct.dtype, jnp.integer):
        squares = math.prod(struct.shape[:-1])
        return pc.MultiDiscrete((TILES, COLORS) * squares, shape=struct.shape)
    dtype: Any = jnp.dtype(struct.dtype).name
    return pc.Box(shape=struct.shape, dtype=dtype)
