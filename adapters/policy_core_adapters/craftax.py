"""Craftax environments (1.6), whose interface is that of gymnax 0.x, and which name their time otherwise.

An episode that ends at `params.max_timesteps` is truncated here; Craftax does not tell it from death.
"""

import importlib
from typing import Any

import jax
import jax.numpy as jnp

from policy_core_adapters.environment import Environment, Step, auto_reset, declared
from policy_core_adapters.gymnax import space_of


def make(name: str) -> Environment:
    """The Craftax environment `name`, as "Craftax-Classic-Symbolic-v1", with its default parameters."""
    module: Any = importlib.import_module("craftax.craftax_env")
    with jax.ensure_compile_time_eval():
        env = module.make_craftax_env_from_name(name, auto_reset=False)
        params = env.default_params
    return from_craftax(env, params)


def from_craftax(env: Any, params: Any) -> Environment:
    """A Craftax environment, with or without auto-reset of its own, and its parameters."""
    with jax.ensure_compile_time_eval():
        space, action_space = (space_of(space(params)) for space in (env.observation_space, env.action_space))

    def reset(key: jax.Array) -> tuple[Any, Any]:
        observation, state = env.reset_env(key, params)
        return declared(space, observation), state

    def step(key: jax.Array, state: Any, action: Any) -> Step:
        step_key, reset_key = jax.random.split(key)
        observation, state, reward, done, _ = env.step_env(step_key, state, action, params)
        timed_out = jnp.asarray(state.timestep >= params.max_timesteps)
        after = declared(space, observation), state
        return auto_reset(reset(reset_key), after, reward, done & ~timed_out, done & timed_out)

    return Environment(space, action_space, reset, step)
