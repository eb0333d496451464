"""JaxMARL environments (0.2): agents of equal spaces as one array, with the true last observations.

`step` of JaxMARL resets by itself and loses the last observation; the adapter calls `step_env` and
`reset`. JaxMARL does not tell a time limit from an end: an episode that ends at `env.max_steps` is
truncated here. What an agent may do comes from `get_avail_actions` (SMAX), or `get_legal_moves`
(Hanabi); the other environments have no masks.
"""

import importlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import policy_core as pc
from policy_core_adapters.environment import Environment, auto_reset, declared
from policy_core_adapters.multi_agent import (
    Group,
    MultiAgentEnvironment,
    MultiAgentStep,
    central,
    grouped,
    stack,
    unstack,
)

WORLD = "world_state"


class Playing(NamedTuple):
    """The state of a JaxMARL environment, and which agents have ended, by group."""

    state: Any
    ended: Any


def make(name: str, **env_kwargs: Any) -> Environment:
    """The registered environment `name`, as "MPE_simple_spread_v3", with all agents as one (`central`)."""
    return central(make_multi_agent(name, **env_kwargs))


def make_multi_agent(name: str, *, world_state: bool = False, **env_kwargs: Any) -> MultiAgentEnvironment:
    """The registered JaxMARL environment `name`."""
    jaxmarl: Any = importlib.import_module("jaxmarl")
    with jax.ensure_compile_time_eval():
        env = jaxmarl.make(name, **env_kwargs)
    return from_jaxmarl(env, world_state=world_state)


def from_jaxmarl(env: Any, *, world_state: bool = False) -> MultiAgentEnvironment:
    """A JaxMARL environment by groups of agents.

    Args:
        env: a `MultiAgentEnv`, whose observations are a dict by agent.
        world_state: whether each agent's observation is a dict of its own `observation` and of
            `world_state`, as SMAX has it, for a critic with `critic_keys=("world_state",)`.

    The shape of an observation is that of what is given, where the declared one is another
    (Overcooked, MPE's facmac).

    Raises:
        ValueError: for observations that are no dict by agent, a space that is not known, or a world
            state that there is not.
    """
    key = jax.eval_shape(lambda: jax.random.key(0))
    with jax.ensure_compile_time_eval():
        given, first = jax.eval_shape(env.reset, key)
        if not isinstance(given, Mapping) or not set(env.agents) <= set(given):
            raise ValueError("env: reset gives no dict by agent, expected observations as in JaxMARL")
        if world_state and WORLD not in given:
            raise ValueError(f"world_state: the environment gives none, only {sorted(given)}")
        observations: dict[Any, pc.contract.Space] = {
            agent: space_of(env.observation_space(agent), given[agent]) for agent in env.agents
        }
        actions = {agent: space_of(env.action_space(agent)) for agent in env.agents}
        limit = getattr(env, "max_steps", None)
    if world_state:
        world = pc.Box(shape=given[WORLD].shape)
        observations = {
            agent: pc.Dict({"observation": space, WORLD: world}) for agent, space in observations.items()
        }
    groups = grouped(observations, actions)
    available = _masks_of(env, first)

    def seen(observation: Any, state: Any, ended: Any) -> tuple[Any, Playing]:
        if world_state:
            own = {
                agent: {"observation": observation[agent], WORLD: observation[WORLD]} for agent in env.agents
            }
            observation = own
        plain = {agent: declared(space, observation[agent]) for agent, space in observations.items()}
        return stack(groups, plain), Playing(state, ended)

    def reset(key: jax.Array) -> tuple[Any, Any]:
        observation, state = env.reset(key)
        ended = {name: jnp.zeros(len(group.agents), bool) for name, group in groups.items()}
        return seen(observation, state, ended)

    def step(key: jax.Array, playing: Playing, action: Any) -> MultiAgentStep:
        step_key, reset_key = jax.random.split(key)
        observation, state, reward, dones, _ = env.step_env(step_key, playing.state, unstack(groups, action))
        done = jnp.asarray(dones["__all__"]).astype(bool)
        timed_out = done & _timed_out(state, limit)
        ended = stack(groups, {agent: jnp.asarray(dones[agent]).astype(bool) for agent in env.agents})
        after = seen(observation, state, ended)
        result = auto_reset(reset(reset_key), after, 0.0, done, False)
        truncated = {name: timed_out & ~playing.ended[name] for name in groups}
        return MultiAgentStep(
            result.observation,
            result.state,
            stack(groups, {agent: jnp.asarray(reward[agent]).astype(jnp.float32) for agent in env.agents}),
            {name: (ended[name] | done) & ~truncated[name] for name in groups},
            truncated,
            done,
            result.final_observation,
        )

    def action_mask(playing: Playing) -> Any:
        masks = available(playing.state)
        return {name: _group_mask(group, masks) for name, group in groups.items()}

    return MultiAgentEnvironment(groups, reset, step, action_mask)


def space_of(space: Any, given: Any = None) -> pc.contract.Space:
    """The space of a space of JaxMARL; the shape of a box is that of what is given.

    Raises:
        ValueError: for a space that is neither Discrete, MultiDiscrete nor Box.
    """
    if hasattr(space, "num_categories"):
        return pc.MultiDiscrete(tuple(np.ravel(space.num_categories).astype(int).tolist()))
    if hasattr(space, "n"):
        return pc.Discrete(int(space.n))
    if not hasattr(space, "low"):
        raise ValueError(f"space: got {type(space).__name__}, expected Discrete, MultiDiscrete or Box")
    shape = tuple(np.ravel(space.shape).astype(int).tolist()) if given is None else given.shape
    dtype: Any = np.dtype(space.dtype).name
    low, high = (
        tuple(np.broadcast_to(np.asarray(x, float), shape).ravel().tolist()) for x in (space.low, space.high)
    )
    return pc.Box(low=low, high=high, shape=shape, dtype=dtype)


def _masks_of(env: Any, state: Any) -> Callable[[Any], Any]:
    """The function from a state to what each agent may do; to None if there is none."""
    for name in ("get_avail_actions", "get_legal_moves"):
        if hasattr(env, name):
            try:
                jax.eval_shape(getattr(env, name), state)
            except NotImplementedError:
                continue
            function: Callable[[Any], Any] = getattr(env, name)
            return function
    return lambda _: None


def _group_mask(group: Group, masks: Any) -> Any:
    if masks is None or not isinstance(group.action_space, pc.Discrete):
        return None
    return jnp.stack([jnp.asarray(masks[agent]) > 0 for agent in group.agents])


def _timed_out(state: Any, limit: int | None) -> jax.Array:
    """Whether the time limit was reached: by the count of JaxMARL, or as Brax tells it."""
    if limit is None:
        info = getattr(state, "info", {})
        return jnp.asarray(info["truncation"] > 0) if "truncation" in info else jnp.array(False)
    while not hasattr(state, "step"):  # SMAX with enemies has its state within
        state = state.state
    return jnp.asarray(state.step >= limit)
