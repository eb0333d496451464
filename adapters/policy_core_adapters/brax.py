"""Brax environments (0.14), within `EpisodeWrapper`, which tells a time limit from an end.

Brax has no spaces: observations are unbounded arrays or a dict of them, actions are in [-1, 1]. An
`AutoResetWrapper` would lose the last observation of an episode, and start each one from the same
state; here a new episode is a new `reset`. It is computed at every step, for under `vmap` both sides
of a condition are.
"""

import importlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

import policy_core as pc
from policy_core_adapters.environment import Environment, Step, auto_reset, declared, refuse_wrappers

ACTOR, CRITIC = "state", "privileged_state"  # as in MuJoCo Playground


def make(name: str, episode_length: int = 1000, action_repeat: int = 1, **env_kwargs: Any) -> Environment:
    """The registered Brax environment `name`, as "ant", with this time limit."""
    envs: Any = importlib.import_module("brax.envs")
    with jax.ensure_compile_time_eval():
        env = envs.create(
            name, episode_length=episode_length, action_repeat=action_repeat, auto_reset=False, **env_kwargs
        )
    return from_brax(env)


def from_brax(env: Any) -> Environment:
    """A Brax environment as an `Environment`.

    Args:
        env: within `brax.envs.wrappers.training.EpisodeWrapper`, and not within one that resets or that
            makes a batch.

    Raises:
        ValueError: for an environment without a time limit, or within another wrapper.
    """
    without = "expected it without: the adapter resets; pass auto_reset=False to brax.envs.create"
    batch = "a batch, expected one environment: use jax.vmap on the adapter"
    refuse_wrappers(
        env,
        {
            "AutoResetWrapper": f"which loses final observations, {without}",
            "BraxAutoResetWrapper": f"which loses final observations, {without}",
            "VmapWrapper": batch,
            "DomainRandomizationVmapWrapper": batch,
            "BraxDomainRandomizationVmapWrapper": batch,
        },
    )
    with jax.ensure_compile_time_eval():
        first = jax.eval_shape(env.reset, jax.eval_shape(lambda: jax.random.key(0)))
        action_space = pc.Box(low=-1.0, high=1.0, shape=(int(env.action_size),))
    if "truncation" not in first.info:
        raise ValueError(
            "env: got an environment without a time limit; expected it within "
            "brax.envs.wrappers.training.EpisodeWrapper(env, episode_length, action_repeat)"
        )
    space = _space_of(first.obs)

    def seen(state: Any) -> tuple[Any, Any]:
        return declared(space, _plain(state.obs)), state

    def reset(key: jax.Array) -> tuple[Any, Any]:
        return seen(env.reset(key))

    def step(key: jax.Array, state: Any, action: Any) -> Step:
        state = env.step(state, action)
        truncated = state.info["truncation"] > 0
        terminated = (state.done > 0) & ~truncated  # `done` is set at a time limit, too
        return auto_reset(reset(key), seen(state), state.reward, terminated, truncated)

    return Environment(space, action_space, reset, step)


def keys(space: pc.contract.Space) -> dict[str, tuple[str, ...]]:
    """Which parts of an observation the actor and the critic see, as fields of `ActorCriticConfig`.

    With a part "privileged_state" the critic sees that and the actor "state", as in the configs of MuJoCo
    Playground; else both see everything. `ActorCriticConfig(..., **keys(env.observation_space))`
    """
    names = {name for name, _ in space.spaces} if isinstance(space, pc.Dict) else set()
    return {"actor_keys": (ACTOR,), "critic_keys": (CRITIC,)} if {ACTOR, CRITIC} <= names else {}


def _space_of(struct: Any) -> pc.contract.Space:
    if isinstance(struct, Mapping):
        return pc.Dict({str(name): _space_of(part) for name, part in struct.items()})
    dtype: Any = jnp.dtype(struct.dtype).name
    return pc.Box(shape=struct.shape, dtype=dtype)


def _plain(observation: Any) -> Any:
    if isinstance(observation, Mapping):
        return {str(name): _plain(part) for name, part in observation.items()}
    return observation
