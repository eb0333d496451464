"""The adapter of JaxMARL: a counter of its classes, its environments, and all agents as one."""

from typing import Any

import adapted
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import config
from policy_core_adapters import jaxmarl as adapter
from policy_core_adapters import multi_agent

import policy_core as pc

jaxmarl = pytest.importorskip("jaxmarl", reason="jaxmarl is not installed")
struct = pytest.importorskip("flax.struct", reason="flax is not installed")
spaces = pytest.importorskip("jaxmarl.environments.spaces", reason="jaxmarl is not installed")

pytestmark = [
    pytest.mark.filterwarnings("default"),  # other people's warnings are theirs
    pytest.mark.usefixtures("unchecked", "lenient"),
]


@struct.dataclass
class State:
    step: Any
    done: Any


class Counter(jaxmarl.environments.MultiAgentEnv):
    """Two `walker`s and a `bird`, which sees more and ends a step before the others.

    An agent sees the step and its own number; it may take only their sum modulo 4, and is told by its
    reward, the new step plus ten times its number, minus 100 if it took another. After `length`
    steps the walkers' goal is reached, after `max_steps` time is over.
    """

    def __init__(self, length: int, max_steps: int) -> None:
        super().__init__(3)
        self.agents, self.length, self.max_steps = ["walker_0", "bird_0", "walker_1"], length, max_steps
        wide, narrow = spaces.Box(-1.0, 99.0, (3,)), spaces.Box(jnp.zeros(2), jnp.array([99.0, 9.0]), (2,))
        self.observation_spaces = {"walker_0": narrow, "bird_0": wide, "walker_1": narrow}
        self.action_spaces = dict.fromkeys(self.agents, spaces.Discrete(4))

    def get_obs(self, state: Any) -> Any:
        seen = {agent: jnp.stack([state.step, jnp.int32(i)]) for i, agent in enumerate(self.agents)}
        return {**seen, "bird_0": jnp.append(seen["bird_0"], -1), "world_state": state.step[None] * 1.0}

    def reset(self, key: Any) -> Any:
        state = State(jnp.int32(0), jnp.array(False))
        return self.get_obs(state), state

    def step_env(self, key: Any, state: Any, actions: Any) -> Any:
        wrong = {agent: actions[agent] != (state.step + i) % 4 for i, agent in enumerate(self.agents)}
        state = State(state.step + 1, state.step + 1 >= min(self.length, self.max_steps))
        reward = {
            agent: state.step + 10 * i - 100 * wrong[agent].astype(int) for i, agent in enumerate(self.agents)
        }
        ends = min(self.length, self.max_steps)
        dones = dict.fromkeys(self.agents, state.done) | {
            "bird_0": state.step >= ends - 1,
            "__all__": state.done,
        }
        return self.get_obs(state), state, reward, dones, {}

    def get_avail_actions(self, state: Any) -> Any:
        only = [jnp.arange(4) == (state.step + i) % 4 for i in range(3)]
        return {agent: mask.astype(jnp.uint8) for agent, mask in zip(self.agents, only, strict=True)}


@pytest.mark.parametrize(("length", "max_steps"), [(3, 9), (9, 3)])
def test_a_counter_counts_by_group(length: int, max_steps: int) -> None:
    env = adapter.from_jaxmarl(Counter(length, max_steps))
    narrow = pc.Box(low=0.0, high=(99.0, 9.0), shape=(2,))
    assert env.groups == {
        "walker": multi_agent.Group(("walker_0", "walker_1"), narrow, pc.Discrete(4)),
        "bird": multi_agent.Group(("bird_0",), pc.Box(low=-1.0, high=99.0, shape=(3,)), pc.Discrete(4)),
    }
    policies = {
        name: pc.init(config(group.action_space, group.observation_space), key=jax.random.key(0))
        for name, group in env.groups.items()
    }

    def act(policy: Any, observation: Any, mask: Any, key: Any) -> Any:
        keys = jax.random.split(key, len(mask))
        one = lambda o, m, k: pc.act(policy, (), o, key=k, action_mask=m)[1]  # a policy for a group
        return jax.vmap(one)(observation, mask, keys)

    def one(carry: Any, key: Any) -> Any:
        observation, state = carry
        mask = env.action_mask(state)
        action = {name: act(policies[name], observation[name], mask[name], key) for name in env.groups}
        step = env.step(key, state, action)
        return (step.observation, step.state), (observation, step._replace(state=None))

    start = env.reset(jax.random.key(0))
    seen, step = jax.jit(lambda: jax.lax.scan(one, start, jax.random.split(jax.random.key(1), 7))[1])()
    t = np.arange(7) % 3
    np.testing.assert_array_equal(
        seen["walker"], np.stack([[t, t], [0 * t, 0 * t + 2]], -1).transpose(1, 0, 2)
    )
    np.testing.assert_array_equal(seen["bird"][:, 0, :2], np.stack([t, 0 * t + 1], -1))
    assert seen["walker"].dtype == jnp.float32
    np.testing.assert_array_equal(step.final_observation["walker"][..., 0], np.stack([t + 1, t + 1], -1))
    np.testing.assert_array_equal(step.observation["bird"][:, 0, 0], (t + 1) % 3)
    # Nobody took what its mask forbids.
    np.testing.assert_array_equal(step.reward["walker"], np.stack([t + 1, t + 21], -1))
    np.testing.assert_array_equal(step.reward["bird"][:, 0], t + 11)
    assert step.reward["walker"].dtype == jnp.float32
    np.testing.assert_array_equal(step.done, t == 2)
    ended, other = (step.terminated, step.truncated)[:: 1 if length < max_steps else -1]
    np.testing.assert_array_equal(ended["walker"], np.stack([t == 2, t == 2], -1))
    assert not other["walker"].any()
    # The bird reached its end before time was over.
    np.testing.assert_array_equal(step.terminated["bird"][:, 0], t >= 1)
    assert not step.truncated["bird"].any()


@pytest.mark.parametrize(("length", "max_steps", "ended"), [(3, 9, "terminated"), (9, 3, "truncated")])
def test_all_agents_as_one_count(length: int, max_steps: int, ended: str) -> None:
    env = multi_agent.central(
        adapter.from_jaxmarl(Counter(length, max_steps)),
        lambda reward: reward["walker"][1] - 20.0,
    )
    assert env.observation_space == pc.Dict(
        {
            "walker": pc.Box(low=0.0, high=(99.0, 9.0, 99.0, 9.0), shape=(2, 2)),
            "bird": pc.Box(low=-1.0, high=99.0, shape=(1, 3)),
        }
    )
    assert env.action_space == pc.Dict({"walker": pc.MultiDiscrete((4, 4)), "bird": pc.MultiDiscrete((4,))})
    adapted.counts(env, 3, ended, count=lambda observation: observation["walker"][:, 1, 0])


def test_the_world_is_for_the_critic() -> None:
    env = adapter.from_jaxmarl(Counter(3, 9), world_state=True)
    observation, _ = env.reset(jax.random.key(0))
    assert observation["walker"]["world_state"].shape == (2, 1)
    assert env.groups["bird"].observation_space == pc.Dict(
        {"observation": pc.Box(low=-1.0, high=99.0, shape=(3,)), "world_state": pc.Box(shape=(1,))}
    )
    counter = Counter(3, 9)
    counter.get_obs = lambda state: {agent: jnp.zeros(2) for agent in counter.agents}
    with pytest.raises(ValueError, match=r"world_state: the environment gives none, only \['bird_0', 'walk"):
        adapter.from_jaxmarl(counter, world_state=True)
    counter.get_obs = lambda state: jnp.zeros(2)
    with pytest.raises(ValueError, match="env: reset gives no dict by agent"):
        adapter.from_jaxmarl(counter)


def test_spaces_of_every_kind_are_stacked() -> None:
    parts = {
        "a": pc.Discrete(3, start=1),
        "b": pc.Tuple((pc.MultiDiscrete((2, 3), start=(0, 4)), pc.MultiBinary(2))),
        "c": pc.Box(low=(0.0, -1.0), high=2.0, shape=(2,)),
    }
    space = pc.Dict(parts)
    both = multi_agent._times(2, space)
    assert both["a"] == pc.MultiDiscrete((3, 3), start=(1, 1))
    elements = [space.sample(key=jax.random.key(i)) for i in range(2)]
    assert both.contains(jax.tree.map(lambda *x: jnp.stack(x), *elements))
    mask = {
        "a": jnp.ones((2, 3), bool),
        "b": ((jnp.ones((2, 2), bool), jnp.arange(6).reshape(2, 3) > 2), None),
        "c": None,
    }
    rows = multi_agent._rows(space, mask)
    both.check_mask(rows)
    assert [row.tolist() for row in rows["b"][0]] == [[True] * 2, [False] * 3, [True] * 2, [True] * 3]


def test_mpe_ends_by_its_time_limit() -> None:
    """Its observations begin with the velocity; at rest in the beginning, not where an episode ended."""
    env = adapter.make("MPE_simple_spread_v3", max_steps=2)
    assert env.action_space == pc.Dict({"agent": pc.MultiDiscrete((5, 5, 5))})
    played = adapted.play(env, 7, action={"agent": jnp.array([1, 2, 3])})
    adapted.is_sound(played)
    last = played.step.truncated
    assert last.sum() == 2
    assert not played.step.observation["agent"][last, :, :2].any()
    assert played.step.final_observation["agent"][last, :, :2].any()


def test_smax_units_do_what_they_may() -> None:
    env = adapter.make("HeuristicEnemySMAX")
    played = adapted.play(env, 40)
    adapted.is_sound(played)
    assert any(not row.all() for row in played.mask["ally"])
