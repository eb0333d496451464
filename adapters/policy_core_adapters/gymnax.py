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

from policy_core_adapters.environment import Environment, Step
from policy_core_adapters.gymnasium.spaces import space_of as space_of


def make(name: str, **env_kwargs: Any) -> Environment:
    """The registered gymnax environment `name` with its default parameters.

    Example:
        >>> import jax
        >>> from policy_core_adapters import gymnax
        >>> env = gymnax.make("Catch-bsuite")
        >>> observation, state = env.reset(jax.random.key(0))
        >>> bool(env.observation_space.contains(observation))
        True
    """
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


def _legacy_step(env: Any, params: Any, key: jax.Array, state: Any, action: Any) -> tuple[Any, ...]:
    """One step of gymnax 0.x, with the final observation, and truncation at the time limit."""
    step_key, reset_key = jax.random.split(key)
    final, stepped, reward, done, _ = env.step_env(step_key, state, action, params)
    first, fresh = env.reset_env(reset_key, params)
    limit = getattr(params, "max_steps_in_episode", None)
    done = jnp.asarray(done, bool)
    truncated = jnp.array(False) if limit is None else done & (stepped.time >= limit)
    if limit is not None:
        truncated &= ~_ends_by_itself(env, stepped, params)

    def pick(a: Any, b: Any) -> Any:
        return jax.tree.map(lambda a, b: jnp.where(done, a, b), a, b)

    observation, state = pick(first, final), pick(fresh, stepped)
    return observation, state, reward, done & ~truncated, truncated, final


def _ends_by_itself(env: Any, state: Any, params: Any) -> jax.Array:
    """Whether a state is terminal, time limit or not; false for an environment that cannot be asked."""
    if not hasattr(env, "is_terminal") or not hasattr(params, "replace"):
        return jnp.array(False)
    try:
        end = env.is_terminal(state, params.replace(max_steps_in_episode=np.iinfo(np.int32).max))
    except NotImplementedError:  # the base class
        return jnp.array(False)
    return jnp.asarray(end, bool)
