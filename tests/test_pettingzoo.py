"""The adapter of PettingZoo, on counters of its two classes and on tic-tac-toe."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import config
from policy_core_adapters import pettingzoo as adapter
from policy_core_adapters.multi_agent import Group

import policy_core as pc

pettingzoo = pytest.importorskip("pettingzoo", reason="pettingzoo is not installed")
spaces = pytest.importorskip("gymnasium", reason="gymnasium is not installed").spaces

pytestmark = [
    pytest.mark.filterwarnings("default"),  # other people's warnings are theirs
    pytest.mark.usefixtures("unchecked", "lenient"),
]
AGENTS = ("walker_0", "bird_0", "walker_1")


class Counter(pettingzoo.ParallelEnv):
    """Three agents see the step; only the sum of it and their number, modulo 4, is allowed.

    The reward is the new step, less 100 for what is not allowed.

    The bird is gone after two steps, and the end comes after three.
    """

    def __init__(self, ended: str) -> None:
        self.ended, self.possible_agents = ended, list(AGENTS)

    def observation_space(self, agent: str) -> Any:
        seen = spaces.Box(0, 99, (2 if agent == "bird_0" else 1,), np.float32)
        return spaces.Dict({"observation": seen, "action_mask": spaces.Box(0, 1, (4,), np.int8)})

    def action_space(self, agent: str) -> Any:
        return spaces.Discrete(4)

    def seen(self, agents: Any) -> Any:
        return {
            agent: {
                "observation": np.full(2 if agent == "bird_0" else 1, self.t),
                "action_mask": (np.arange(4) == self.allowed(agent)).astype(np.int8),
            }
            for agent in agents
        }

    def allowed(self, agent: str) -> int:
        return (self.t + AGENTS.index(agent)) % 4

    def reset(self, seed: Any = None, options: Any = None) -> Any:
        self.t, self.agents = 0, list(AGENTS)
        return self.seen(self.agents), {agent: {} for agent in self.agents}

    def step(self, actions: Any) -> Any:
        here = self.agents
        assert set(actions) == set(here)
        assert all(type(action) is int for action in actions.values())
        reward = {agent: float(self.t + 1 - 100 * (actions[agent] != self.allowed(agent))) for agent in here}
        self.t += 1
        over = {agent: self.t >= (2 if agent == "bird_0" else 3) for agent in here}
        no = dict.fromkeys(here, False)
        flags = (
            (over, over) if self.ended == "both" else (over, no) if self.ended == "terminated" else (no, over)
        )
        self.agents = [agent for agent in here if not over[agent]]
        return self.seen(here), reward, *flags, {agent: {} for agent in here}


@pytest.mark.parametrize("ended", ["terminated", "truncated", "both"])
def test_a_parallel_counter_counts(ended: str) -> None:
    env = adapter.Parallel(Counter(ended))
    box = pc.Box(low=0.0, high=99.0, shape=(1,))
    assert env.groups["walker"] == Group(("walker_0", "walker_1"), box, pc.Discrete(4))
    assert env.groups["bird"].agents == ("bird_0",)
    policies = {
        name: pc.init(config(group.action_space, group.observation_space), key=jax.random.key(0))
        for name, group in env.groups.items()
    }
    act = jax.jit(
        jax.vmap(lambda policy, o, m, k: pc.act(policy, (), o, key=k, action_mask=m)[1], (None, 0, 0, 0))
    )
    observation = env.reset(seed=0)
    for i in range(7):
        t = i % 3
        there = t < 2  # the bird
        np.testing.assert_array_equal(observation["walker"], [[t], [t]])
        np.testing.assert_array_equal(observation["bird"], [[t, t] if there else [0, 0]])
        assert observation["walker"].dtype == np.float32
        np.testing.assert_array_equal(env.alive["bird"], [there])
        assert env.action_mask["walker"].dtype == bool
        action = {
            name: act(policy, observation[name], masks, jax.random.split(jax.random.key(i), len(masks)))
            for (name, policy), masks in zip(policies.items(), env.action_mask.values(), strict=True)
        }
        step = env.step(action)
        np.testing.assert_array_equal(step.reward["walker"], [t + 1, t + 1])  # none of 100 was taken off
        np.testing.assert_array_equal(step.reward["bird"], [t + 1 if there else 0])
        assert step.reward["walker"].dtype == np.float32
        np.testing.assert_array_equal(step.final_observation["walker"], [[t + 1], [t + 1]])
        flags = {"terminated": step.terminated, "truncated": step.truncated}
        kind = "truncated" if ended == "truncated" else "terminated"
        (other,) = set(flags) - {kind}
        np.testing.assert_array_equal(flags[kind]["walker"], [t == 2, t == 2])
        np.testing.assert_array_equal(flags[kind]["bird"], [t == 1])
        assert not flags[other]["walker"].any()
        assert not flags[other]["bird"].any()
        assert step.done == (t == 2)
        observation = step.observation


class Nim(pettingzoo.AECEnv):
    """Two players take one or two of `sticks`; the winner, who took the last one, gets 1 and the loser -1."""

    def __init__(self, sticks: int) -> None:
        self.sticks, self.possible_agents = sticks, ["first", "second"]

    def observation_space(self, agent: str) -> Any:
        return spaces.Discrete(self.sticks + 1)

    def action_space(self, agent: str) -> Any:
        return spaces.Discrete(2, start=1)

    def reset(self, seed: Any = None, options: Any = None) -> None:
        self.left, self.agents = self.sticks, list(self.possible_agents)
        zeros = dict.fromkeys(self.agents, 0.0)
        self.rewards, self._cumulative_rewards = dict(zeros), dict(zeros)
        self.terminations, self.truncations = (
            dict.fromkeys(self.agents, False),
            dict.fromkeys(self.agents, False),
        )
        self.infos = {agent: {} for agent in self.agents}
        self.agent_selection = "first"
        self._mask()

    def _mask(self) -> None:
        self.infos[self.agent_selection] = {"action_mask": np.array([1, self.left > 1], np.int8)}

    def observe(self, agent: str) -> Any:
        return np.int64(self.left)

    def step(self, action: Any) -> None:
        mover = self.agent_selection
        if self.terminations[mover]:
            self._was_dead_step(action)
            return
        assert action in (1, 2)
        assert action <= self.left
        self._cumulative_rewards[mover] = 0.0
        self._clear_rewards()
        self.left -= action
        (other,) = set(self.agents) - {mover}
        if not self.left:
            self.rewards = {mover: 1.0, other: -1.0}
            self.terminations = dict.fromkeys(self.agents, True)
        self._accumulate_rewards()
        self.agent_selection = other
        self._mask()


def test_agents_take_turns_and_each_sees_its_end() -> None:
    """A policy that knows Nim's rule, 3 sticks at once, plays the first side, and takes the last stick."""
    game = adapter.Turns(Nim(4))
    assert game.groups["first"] == Group(("first", "second"), pc.Discrete(5), pc.Discrete(2, start=1))
    policy = pc.init(config(pc.Discrete(2, start=1), pc.Discrete(5)), key=jax.random.key(0))
    game.reset(seed=0)
    turns = []
    while (turn := game.turn) is not None:
        turns.append(turn)
        if turn.agent == "first":
            game.step(jnp.int32(1 if turn.observation == 4 else turn.observation))  # a JAX array
        else:
            game.step(
                pc.act(policy, (), turn.observation, key=jax.random.key(1), action_mask=turn.action_mask)[1]
            )
    agents = [turn.agent for turn in turns]
    assert agents == ["first", "second", "first", "second", "first"]
    assert [int(turn.observation) for turn in turns[:2]] == [4, 3]
    assert turns[0].action_mask.tolist() == [True, True]
    assert turns[0].observation.dtype == np.int32
    assert [turn.terminated for turn in turns] == [False, False, False, True, True]
    assert [float(turn.reward) for turn in turns] == [0.0, 0.0, 0.0, -1.0, 1.0]
    assert int(turns[-1].observation) == int(turns[-2].observation) == 0


def test_tic_tac_toe_is_played_by_its_rules() -> None:
    """An illegal move ends this game with a reward of -1 and leaves squares empty."""
    pytest.importorskip("pygame", reason="pygame is not installed")
    game = adapter.make_multi_agent("classic/tictactoe-v3")
    assert isinstance(game, adapter.Turns)
    (group,) = game.groups.values()
    assert group.action_space == pc.Discrete(9)
    assert group.observation_space == pc.Box(low=0, high=1, shape=(3, 3, 2), dtype="int8")
    policy = pc.init(config(group.action_space, group.observation_space), key=jax.random.key(0))
    act = jax.jit(lambda o, m, k: pc.act(policy, (), o, key=k, action_mask=m)[1])
    for seed in range(5):
        game.reset(seed=seed)
        moves, rewards = 0, {}
        while (turn := game.turn) is not None:
            if turn.terminated:
                rewards[turn.agent] = float(turn.reward)
                game.step(None)
                continue
            assert turn.action_mask.sum() == 9 - moves
            game.step(act(turn.observation, turn.action_mask, jax.random.key(10 * seed + moves)))
            moves += 1
        assert sorted(rewards.values()) in ([-1.0, 1.0], [0.0, 0.0])
        assert moves >= 5


def test_rock_paper_scissors_is_parallel() -> None:
    """Rewards sum to zero; all three rounds of it end by its time limit."""
    pytest.importorskip("pygame", reason="pygame is not installed")
    env = adapter.make_multi_agent("classic/rps-v2", max_cycles=3)
    assert isinstance(env, adapter.Parallel)
    assert {name: len(group.agents) for name, group in env.groups.items()} == {"player": 2}
    env.reset(seed=0)
    for i in range(7):
        step = env.step({"player": np.array([i % 3, (i + 1) % 3])})  # paper covers rock, and so on
        assert step.reward["player"].tolist() == [-1.0, 1.0]
        assert step.truncated["player"].all() == step.done == (i % 3 == 2)
        assert not step.terminated["player"].any()
    with pytest.raises(ValueError, match=r"name: got 'chess', expected one of \['atari/basketball_pong-v3'"):
        adapter.make_multi_agent("chess")


@pytest.mark.parametrize("ended", ["terminated", "truncated"])
def test_all_agents_of_a_parallel_counter_are_one_for_a_trainer(ended: str) -> None:
    """Two environments under jit: what is seen is the step, masks hold, and no episode is reset twice."""
    resets = []

    class Counted(Counter):
        def reset(self, seed: Any = None, options: Any = None) -> Any:
            resets.append(seed)
            return super().reset(seed, options)

    env = adapter.from_parallel(lambda: Counted(ended))
    assert env.action_space == pc.Dict(
        {"walker": pc.MultiDiscrete((4, 4)), "bird": pc.MultiDiscrete((4,), shape=(1,))}
    )
    policy = pc.init(config(env.action_space, env.observation_space), key=jax.random.key(0))

    @jax.jit
    def play(observation: Any, state: Any, key: jax.Array) -> Any:
        def one(observation: Any, state: Any, key: jax.Array) -> Any:
            mask = env.action_mask(state)
            action = pc.act(policy, (), observation, key=key, action_mask=mask)[1]
            return env.step(key, state, action)

        return jax.vmap(one)(observation, state, jax.random.split(key, 2))

    observation, state = jax.jit(jax.vmap(env.reset))(jax.random.split(jax.random.key(0), 2))
    before = len(resets)
    for i in range(7):
        t = i % 3
        np.testing.assert_array_equal(observation["walker"], np.full((2, 2, 1), t))
        np.testing.assert_array_equal(observation["bird"], np.full((2, 1, 2), t if t < 2 else 0))
        step = play(observation, state, jax.random.key(i))
        # Nobody did what was not allowed; the bird has left in the third step, with a reward of 0.
        np.testing.assert_allclose(step.reward, (t + 1) if t < 2 else 2 * 3 / 3)
        np.testing.assert_array_equal(step.final_observation["walker"], np.full((2, 2, 1), t + 1))
        flags = {"terminated": step.terminated, "truncated": step.truncated}
        assert flags.pop(ended).tolist() == [t == 2] * 2
        assert not np.any(list(flags.values()))
        observation, state = step.observation, step.state
    assert len(resets) - before == 2 * 2  # two environments, two ends


def test_a_game_in_turns_is_no_environment_of_one() -> None:
    with pytest.raises(
        ValueError, match=r"name: 'classic/tictactoe-v3' is a game in turns.*make_multi_agent"
    ):
        adapter.make("classic/tictactoe-v3")
    with pytest.raises(ValueError, match=r"name: got 'chess', expected one of \["):
        adapter.make("chess")
