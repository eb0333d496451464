"""gymnax environments, of versions 0.x and 1.x.

`step` of gymnax 1.x returns six values and distinguishes termination from truncation. Before, it
returned five, `done` was either, and the last observation of an episode was lost; for these
versions the adapter calls `step_env` and `reset_env` itself, and an end at the time limit is a
truncation. The version is told by the number of values. (gymnax 1.0 imports the package `six`
without requiring it.)
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import policy_core as pc
from policy_core_adapters.environment import Environment, Step


def make(name: str, **env_kwargs: Any) -> Environment:
    """The registered gymnax environment `name` with its default parameters."""
    import gymnax

    return from_gymnax(*gymnax.make(name, **env_kwargs))


def from_gymnax(env: Any, params: Any) -> Environment:
    """An environment and its parameters as an `Environment`.

    Raises:
        ValueError: if the `step` of the environment returns neither five nor six values.
    """

    def reset(key: jax.Array) -> tuple[Any, Any]:
        observation, state = env.reset(key, params)
        return declared(observation), state

    def declared(observation: Any) -> Any:
        """In the dtypes of the space: some environments give floats for integers, or the reverse."""
        return jax.tree.map(
            lambda x, leaf: jnp.asarray(x).astype(leaf.dtype), observation, observation_space.struct()
        )

    key = jax.eval_shape(lambda: jax.random.key(0))
    with jax.ensure_compile_time_eval():  # a trainer may make its environment inside of a jit
        action_space, observation_space = (
            space_of(space(params)) for space in (env.action_space, env.observation_space)
        )
    _, state = jax.eval_shape(reset, key)
    outcome = jax.eval_shape(env.step, key, state, action_space.struct(), params)
    if len(outcome) not in (5, 6):
        raise ValueError(f"env: step returns {len(outcome)} values, expected 5 or 6 as in gymnax")
    modern = "final_observation" in outcome[-1]

    def step(key: jax.Array, state: Any, action: Any) -> Step:
        if modern:
            observation, state, reward, *_, info = env.step(key, state, action, params)
            end, final = (info["terminated"], info["truncated"]), info["final_observation"]
        else:
            observation, state, reward, *flags, final = _legacy_step(env, params, key, state, action)
            end = flags[0], flags[1]
        terminated, truncated = (jnp.asarray(flag).astype(bool) for flag in end)
        reward = jnp.asarray(reward).astype(jnp.float32)
        return Step(
            declared(observation), state, reward, terminated, truncated & ~terminated, declared(final)
        )

    return Environment(observation_space, action_space, reset, step)


def space_of(space: Any) -> pc.contract.Space:
    """The policy_core space of a gymnax or gymnasium space, recognized by its attributes.

    Raises:
        ValueError: for a space that is not Discrete, MultiDiscrete, MultiBinary, Box, Dict or Tuple.
    """
    if type(space).__name__ == "MultiBinary":  # whose `n` is a shape
        return pc.MultiBinary(tuple(int(size) for size in space.shape))
    if hasattr(space, "n"):
        return pc.Discrete(int(space.n), start=int(getattr(space, "start", 0)))
    if hasattr(space, "nvec"):
        nvec, start = (np.ravel(x).astype(int).tolist() for x in (space.nvec, space.start))
        return pc.MultiDiscrete(tuple(nvec), shape=np.shape(space.nvec), start=tuple(start))
    if hasattr(space, "low"):
        dtype: Any = np.dtype(space.dtype).name
        return pc.Box(
            low=_bound(space.low),
            high=_bound(space.high),
            shape=tuple(int(size) for size in space.shape),
            dtype=dtype,
        )
    if hasattr(space, "spaces"):
        if hasattr(space.spaces, "items"):
            return pc.Dict({str(name): space_of(part) for name, part in space.spaces.items()})
        return pc.Tuple(tuple(space_of(part) for part in space.spaces))
    raise ValueError(
        f"space: got {type(space).__name__}, expected Discrete, MultiDiscrete, MultiBinary, Box, Dict or "
        "Tuple"
    )


def _legacy_step(env: Any, params: Any, key: jax.Array, state: Any, action: Any) -> tuple[Any, ...]:
    """One step of gymnax 0.x, with the final observation, and truncation at the time limit."""
    step_key, reset_key = jax.random.split(key)
    final, stepped, reward, done, _ = env.step_env(step_key, state, action, params)
    first, fresh = env.reset_env(reset_key, params)
    limit = getattr(params, "max_steps_in_episode", None)
    timed_out = jnp.array(False) if limit is None else stepped.time >= limit
    done = jnp.asarray(done, bool)

    def pick(a: Any, b: Any) -> Any:
        return jax.tree.map(lambda a, b: jnp.where(done, a, b), a, b)

    observation, state = pick(first, final), pick(fresh, stepped)
    return observation, state, reward, done & ~timed_out, done & timed_out, final


def _bound(bound: Any) -> float | tuple[float, ...]:
    values = np.asarray(bound, np.float64).ravel().tolist()
    return values[0] if np.ndim(bound) == 0 else tuple(values)
