"""PettingZoo environments (1.27), which are NumPy objects with a state of their own.

`Parallel` steps all agents at once, in groups of equal spaces, and resets itself. `Turns` is for the
games in which one agent moves after another (AEC). `from_parallel` makes an `Environment` for trainers in
JAX, in which all agents are one. Spaces are gymnasium's; where an observation is a
dict of `observation` and `action_mask`, the mask is taken out. Observations are in the dtypes of their
spaces, rewards float32, flags and masks booleans.
"""

import importlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

import policy_core as pc
from policy_core_adapters.environment import Environment
from policy_core_adapters.gymnasium import from_gymnasium, space_of, to_gymnasium, to_observation
from policy_core_adapters.multi_agent import (
    Group,
    MultiAgentStep,
    central_mask,
    central_spaces,
    grouped,
    stack,
    unstack,
)

SEEN, MASK = "observation", "action_mask"


def make(name: str, **env_kwargs: Any) -> Environment:
    """The registered parallel environment `name`, as "classic/rps-v2", with all agents as one.

    Raises:
        ValueError: for a name that is not registered, or that of a game in turns.
    """
    pettingzoo: Any = importlib.import_module("pettingzoo")
    if name not in pettingzoo.parallel_registry and name in pettingzoo.aec_registry:
        raise ValueError(
            f"name: {name!r} is a game in turns, whose agents cannot be one that acts for all at once; use "
            "make_multi_agent, which gives Turns"
        )
    _check_name(name, pettingzoo.parallel_registry)
    return from_parallel(lambda: pettingzoo.make("parallel", name, **env_kwargs))


def make_multi_agent(name: str, **env_kwargs: Any) -> "Parallel | Turns":
    """The registered environment `name`, as "butterfly/pistonball-v6": parallel if it can be, else in turns.

    Raises:
        ValueError: for a name that is not registered.
    """
    pettingzoo: Any = importlib.import_module("pettingzoo")
    _check_name(name, {**pettingzoo.parallel_registry, **pettingzoo.aec_registry})
    if name in pettingzoo.parallel_registry:
        return Parallel(pettingzoo.make("parallel", name, **env_kwargs))
    return Turns(pettingzoo.make("aec", name, **env_kwargs))


def _check_name(name: str, registry: Mapping[str, Any]) -> None:
    if name not in registry:
        raise ValueError(f"name: got {name!r}, expected one of {sorted(registry)}")


def from_parallel(make_env: Callable[[], Any]) -> Environment:
    """Parallel environments as an `Environment` in which all agents are one, as in `multi_agent.central`.

    They run on the host, through `policy_core_adapters.gymnasium.from_gymnasium`, whose rules for states
    hold. The reward is the mean over the agents, and an end is truncated where an agent's is.

    Args:
        make_env: makes a parallel environment, as `lambda: pettingzoo.make("parallel", "classic/rps-v2")`.

    Example:
        >>> import jax, pettingzoo
        >>> from policy_core_adapters.pettingzoo import from_parallel
        >>> env = from_parallel(lambda: pettingzoo.make("parallel", "classic/rps-v2"))
        >>> env.action_space
        Dict({'player': MultiDiscrete((3, 3))})
        >>> observation, state = jax.jit(jax.vmap(env.reset))(jax.random.split(jax.random.key(0), 5))
        >>> observation["player"].shape
        (5, 2)
    """
    gymnasium: Any = importlib.import_module("gymnasium")

    class AsOne(gymnasium.Env):  # type: ignore[misc]
        """All agents as one, for vector environments; what ends is not reset twice."""

        def __init__(self) -> None:
            self.parallel = Parallel(make_env())
            self.spaces = central_spaces(self.parallel.groups)
            self.observation_space, self.action_space = map(to_gymnasium, self.spaces)
            self.first: Any = None  # of the episode that `parallel` has begun
            self.parallel.reset(seed=0)
            if self.masks() is not None:
                self.action_masks = self.masks  # by which vector environments know that there are masks

        def masks(self) -> Any:
            masks = central_mask(self.parallel.groups, self.parallel.action_mask)
            if masks is None:
                return None
            every = self.spaces[1].full_mask()
            return {name: every[name] if mask is None else mask for name, mask in masks.items()}

        def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
            first, self.first = self.first, None
            return self.parallel.reset(seed=seed) if first is None or seed is not None else first, {}

        def step(self, action: Any) -> Any:
            result = self.parallel.step(action)
            self.first = result.observation if result.done else None
            truncated = result.done and bool(np.concatenate(list(result.truncated.values())).any())
            reward = np.concatenate(list(result.reward.values())).mean()
            seen = result.final_observation if result.done else result.observation
            return seen, reward, result.done and not truncated, truncated, {}

        def close(self) -> None:
            self.parallel.env.close()

    def make_vector(num_envs: int) -> Any:
        mode = gymnasium.vector.AutoresetMode.DISABLED
        return gymnasium.vector.SyncVectorEnv([AsOne] * num_envs, autoreset_mode=mode)

    return from_gymnasium(make_vector)


class Parallel:
    """A parallel environment: what is seen and done is a dict by group of arrays `[agent, ...]`.

    An agent that has left is seen as zeros and gets no reward; what it should do is ignored. When no
    agent is left the environment is reset, without a seed: it goes on with its own random numbers.
    """

    def __init__(self, env: Any) -> None:
        self.env = env
        self.groups, self._observed = _groups_of(env)
        self.alive: dict[str, np.ndarray] = {}
        """Which agents are there, by group."""
        self.action_mask: dict[str, Any] = {}
        """What each agent may do next, by group; None for a group without masks."""

    def reset(self, seed: int | None = None) -> dict[str, Any]:
        """The first observations."""
        observation, info = self.env.reset(seed=seed)
        return self._seen(observation, info)

    def step(self, action: dict[str, Any]) -> MultiAgentStep:
        """One step of all agents that are there; `state` is None."""
        here, actions = set(self.env.agents), unstack(self.groups, jax.device_get(action))
        observation, reward, terminated, truncated, info = self.env.step(
            {agent: _taken(actions[agent]) for agent in actions if agent in here}
        )

        def flags(by_agent: Mapping[Any, Any]) -> dict[str, np.ndarray]:
            return self._arrays({agent: bool(by_agent.get(agent, False)) for agent in actions}, bool)

        ended = flags(terminated)
        over = {name: flag & ~ended[name] for name, flag in flags(truncated).items()}
        done = not self.env.agents
        final = self._seen(observation, info)
        return MultiAgentStep(
            self.reset() if done else self._without_left(final),
            None,
            self._arrays({agent: reward.get(agent, 0.0) for agent in actions}, np.float32),
            ended,
            over,
            done,
            final,
        )

    def _without_left(self, observation: dict[str, Any]) -> dict[str, Any]:
        """What the agents see that are there; zeros for those who have just left."""

        def zeros(leaf: Any, alive: np.ndarray) -> Any:
            return leaf * alive.astype(leaf.dtype).reshape(-1, *[1] * (leaf.ndim - 1))

        return {
            name: jax.tree.map(lambda leaf, alive=self.alive[name]: zeros(leaf, alive), part)
            for name, part in observation.items()
        }

    def _seen(self, observation: Mapping[Any, Any], info: Mapping[Any, Any]) -> dict[str, Any]:
        alive = set(self.env.agents)
        agents = [agent for group in self.groups.values() for agent in group.agents]
        self.alive = self._arrays({agent: agent in alive for agent in agents}, bool)
        seen, masks = {}, {}
        for agent in agents:
            space = self._observed[agent]
            if agent in observation:
                seen[agent], masks[agent] = _parts(space, observation[agent], info.get(agent))
            else:  # it has left
                seen[agent], masks[agent] = _zeros(space), None
        self.action_mask = {
            name: _stacked_masks([masks[agent] for agent in group.agents])
            for name, group in self.groups.items()
        }
        arrays: dict[str, Any] = stack(self.groups, seen, np)
        return arrays

    def _arrays(self, by_agent: dict[Any, Any], dtype: Any) -> dict[str, np.ndarray]:
        return {
            name: np.array([by_agent[agent] for agent in group.agents], dtype)
            for name, group in self.groups.items()
        }


class Turn(NamedTuple):
    """What the agent sees whose turn it is, and what its last move has led to."""

    agent: Any
    group: str
    observation: Any
    action_mask: Any
    reward: np.float32
    """The sum since its last move."""
    terminated: bool
    truncated: bool
    """At the end of an agent `observation` is its last one, and `step` takes None for an action."""


class Turns:
    """An AEC environment: one agent moves after another.

    A game is played by `reset`, then `turn` and `step(action)` until `turn` is None.
    """

    def __init__(self, env: Any) -> None:
        self.env = env
        self.groups, self._observed = _groups_of(env)
        self._group_of = {agent: name for name, group in self.groups.items() for agent in group.agents}

    def reset(self, seed: int | None = None) -> None:
        """Begin a game."""
        self.env.reset(seed=seed)

    @property
    def turn(self) -> Turn | None:
        """Whose turn it is, or None when every agent has seen its end."""
        if not self.env.agents:
            return None
        agent = self.env.agent_selection
        observation, reward, terminated, truncated, info = self.env.last()
        seen, mask = _parts(self._observed[agent], observation, info)
        truncated = bool(truncated) and not terminated
        return Turn(agent, self._group_of[agent], seen, mask, np.float32(reward), bool(terminated), truncated)

    def step(self, action: Any) -> None:
        """The move of the agent whose turn it is; of one that has ended, whatever is given, None."""
        agent = self.env.agent_selection
        ended = self.env.terminations[agent] or self.env.truncations[agent]
        self.env.step(None if ended else _taken(jax.device_get(action)))


def _groups_of(env: Any) -> tuple[dict[str, Group], dict[Any, pc.contract.Space]]:
    """The groups, and the space that each agent sees, without its mask."""
    observed: dict[Any, pc.contract.Space] = {}
    actions: dict[Any, pc.contract.Space] = {}
    for agent in env.possible_agents:
        space = space_of(env.observation_space(agent))
        if isinstance(space, pc.Dict) and {SEEN, MASK} == {name for name, _ in space.spaces}:
            space = space[SEEN]
        observed[agent], actions[agent] = space, space_of(env.action_space(agent))
    return grouped(observed, actions), observed


def _parts(space: pc.contract.Space, whole: Any, info: Any) -> tuple[Any, Any]:
    """The observation in the dtypes of its space, and the mask of it or of the info."""
    mask = (info or {}).get(MASK)
    if isinstance(whole, Mapping) and set(whole) == {SEEN, MASK}:
        whole, mask = whole[SEEN], whole[MASK]
    return to_observation(space, whole), None if mask is None else np.asarray(mask).astype(bool)


def _zeros(space: pc.contract.Space) -> Any:
    return jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), space.struct())


def _stacked_masks(masks: list[Any]) -> Any:
    if all(mask is None for mask in masks):
        return None
    shape = next(np.shape(mask) for mask in masks if mask is not None)
    return np.stack([np.ones(shape, bool) if mask is None else mask for mask in masks])


def _taken(action: Any) -> Any:
    """A scalar as an int: some games compare it with `in` or use it as a key."""
    return int(action) if np.ndim(action) == 0 else action
