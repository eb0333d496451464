"""Environments of several agents: those with equal spaces are a group, in arrays with an axis of agents.

One policy serves a group: `jax.vmap` over the first axis of what it sees, of the memory, and of the
mask. `central` makes one agent of all, so that a trainer of one agent, as `examples/ppo.py`, trains
one policy that sees and decides everything.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

import policy_core as pc
from policy_core_adapters.environment import Environment, Step


class Group(NamedTuple):
    """Agents with equal spaces, in the order in which arrays have them."""

    agents: tuple[Any, ...]
    observation_space: pc.contract.Space
    action_space: pc.contract.Space


class MultiAgentStep(NamedTuple):
    """One transition of all agents; the environment has been reset if the episode ended (auto-reset).

    All but `state` and `done` are dicts by group, of arrays `[agent, ...]`.
    """

    observation: Any
    state: Any
    reward: Any
    terminated: Any
    """Whether the end of this agent was reached: the value of what follows is 0."""
    truncated: Any
    """Whether the episode ended for this agent by a time limit: bootstrap from `final_observation`."""
    done: Any
    """Whether the episode ended, for all agents. An agent may have ended before."""
    final_observation: Any


class MultiAgentEnvironment(NamedTuple):
    """Pure functions with auto-reset; observations, actions and masks are dicts by group."""

    groups: dict[str, Group]
    reset: Callable[[jax.Array], tuple[Any, Any]]
    """`reset(key) -> (observation, state)`"""
    step: Callable[[jax.Array, Any, Any], MultiAgentStep]
    """`step(key, state, env_action) -> MultiAgentStep`"""
    action_mask: Callable[[Any], Any]
    """`action_mask(state)`: by group, with an axis of agents; None for a group without masks."""


def grouped(
    observation_spaces: dict[Any, pc.contract.Space], action_spaces: dict[Any, pc.contract.Space]
) -> dict[str, Group]:
    """The groups of agents of equal spaces, named by their agents without numbers, or by the first one."""
    members: dict[Any, list[Any]] = {}
    for agent, space in observation_spaces.items():
        members.setdefault((space, action_spaces[agent]), []).append(agent)
    groups: dict[str, Group] = {}
    for spaces, agents in members.items():
        stems = {str(agent).rstrip("_0123456789") for agent in agents}
        name = stems.pop() if len(stems) == 1 else ""
        if not name or name in groups:
            name = str(agents[0])
        groups[name] = Group(tuple(agents), *spaces)
    return groups


def stack(groups: dict[str, Group], by_agent: Any, xp: Any = jnp) -> Any:
    """From a dict by agent to a dict by group of arrays `[agent, ...]`."""
    return {
        name: jax.tree.map(lambda *leaves: xp.stack(leaves), *(by_agent[agent] for agent in group.agents))
        for name, group in groups.items()
    }


def unstack(groups: dict[str, Group], by_group: Any) -> dict[Any, Any]:
    """From a dict by group of arrays `[agent, ...]` to a dict by agent."""
    return {
        agent: jax.tree.map(lambda leaf, i=i: leaf[i], by_group[name])
        for name, group in groups.items()
        for i, agent in enumerate(group.agents)
    }


def mean_reward(reward: dict[str, jax.Array]) -> jax.Array:
    """The mean over all agents: where all are given the same, that."""
    return jnp.concatenate(list(reward.values())).mean()


def central(
    env: MultiAgentEnvironment, reward: Callable[[dict[str, jax.Array]], jax.Array] = mean_reward
) -> Environment:
    """All agents as one, which sees all observations and takes all actions, as dicts by group.

    The actions of k agents with `Discrete(n)` are a `MultiDiscrete((n,) * k)`. `reward` makes one reward of
    those of the agents.
    """
    observation_space, action_space = central_spaces(env.groups)

    def step(key: jax.Array, state: Any, action: Any) -> Step:
        result = env.step(key, state, action)
        truncated = result.done & jnp.concatenate(list(result.truncated.values())).any()
        return Step(
            result.observation,
            result.state,
            reward(result.reward),
            result.done & ~truncated,
            truncated,
            result.final_observation,
        )

    def action_mask(state: Any) -> Any:
        return central_mask(env.groups, env.action_mask(state))

    return Environment(observation_space, action_space, env.reset, step, action_mask)


def central_spaces(groups: dict[str, Group]) -> tuple[pc.Dict, pc.Dict]:
    """What all agents together see, and what they do: a part for each group."""
    observed, done = (
        pc.Dict({name: _times(len(group.agents), group[i]) for name, group in groups.items()}) for i in (1, 2)
    )
    return observed, done


def central_mask(groups: dict[str, Group], masks: dict[str, Any]) -> Any:
    """The mask of what all agents together do, from those of the groups; None if there is none."""
    if all(mask is None for mask in masks.values()):
        return None
    return {name: _rows(group.action_space, masks[name]) for name, group in groups.items()}


def _times(k: int, space: Any) -> pc.contract.Space:
    """The space of k elements, stacked."""
    if isinstance(space, pc.Discrete):
        return pc.MultiDiscrete((space.n,) * k, start=(space.start,) * k)
    if isinstance(space, pc.MultiDiscrete):
        return pc.MultiDiscrete(
            space.nvec * k, shape=(k, *space.struct().shape), start=(space.start or ()) * k
        )
    if isinstance(space, pc.MultiBinary):
        return pc.MultiBinary((k, *space.struct().shape))
    if isinstance(space, pc.Box):
        low, high = (x * k if isinstance(x, tuple) else x for x in (space.low, space.high))
        return pc.Box(low=low, high=high, shape=(k, *space.shape), dtype=space.dtype)
    if isinstance(space, pc.Dict):
        return pc.Dict({name: _times(k, part) for name, part in space.spaces})
    if isinstance(space, pc.Tuple):
        return pc.Tuple(tuple(_times(k, part) for part in space.spaces))
    raise ValueError(f"space: got {type(space).__name__}, which cannot be stacked")


def _rows(space: Any, mask: Any) -> Any:
    """The mask of k elements in the stacked space, from one with an axis of agents."""
    if mask is None:
        return None
    if isinstance(space, pc.Discrete):
        return tuple(mask)
    if isinstance(space, pc.MultiDiscrete):
        return tuple(row[i] for i in range(len(mask[0])) for row in mask)
    if isinstance(space, pc.Dict):
        return {name: _rows(part, mask[name]) for name, part in space.spaces}
    if isinstance(space, pc.Tuple):
        return tuple(_rows(part, mask[i]) for i, part in enumerate(space.spaces))
    return mask
