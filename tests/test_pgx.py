"""The adapter of Pgx: a counter of Pgx's classes for one player and for two, its games, and self-play."""

from typing import Any

import adapted
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import self_play
from cases import config
from policy_core_adapters import pgx as adapter
from rich.console import Console
from small_ppo import TINY, train

import policy_core as pc

pgx = pytest.importorskip("pgx", reason="pgx is not installed")
struct = pytest.importorskip("flax.struct", reason="flax is not installed")

pytestmark = [
    pytest.mark.filterwarnings("default"),  # other people's warnings are theirs
    pytest.mark.usefixtures("unchecked", "lenient"),
]


@struct.dataclass
class Counted:
    """A state with the attributes that every state of Pgx has."""

    current_player: Any
    observation: Any
    rewards: Any
    terminated: Any
    truncated: Any
    legal_action_mask: Any
    _step_count: Any
    count: Any


class Counter(pgx.core.Env):
    """Counts the moves of all players, of whom `first` begins; the only legal one is the count modulo 4.

    The observation is the count and whose view it is. The mover is given the new count, and what
    that is comes from the next player.
    """

    def __init__(self, length: int, players: int = 1, first: int = 0, truncates: bool = False) -> None:
        self.length, self.players, self.first, self.truncates = length, players, first, truncates

    id, version, num_players = "counter", "v0", property(lambda self: self.players)

    def _init(self, key: Any) -> Counted:
        no = jnp.array(False)
        state = Counted(
            jnp.int32(self.first), None, jnp.zeros(self.players), no, no, None, jnp.int32(0), jnp.int32(0)
        )
        return state.replace(legal_action_mask=jnp.arange(4) == 0)

    def _step(self, state: Any, action: Any, key: Any) -> Counted:
        mover, count = state.current_player, state.count + 1
        after = (mover + 1) % self.players
        rewards = jnp.zeros(self.players).at[after].add(-count).at[mover].set(count.astype(float))
        over = count >= self.length
        return state.replace(
            current_player=after,
            count=count,
            rewards=rewards,
            terminated=over & (not self.truncates),
            truncated=over & self.truncates,
            legal_action_mask=jnp.arange(4) == count % 4,
        )

    def _observe(self, state: Any, player_id: Any) -> Any:
        return jnp.stack([state.count, player_id])


def first_legal(key: Any, observation: Any, mask: Any) -> Any:
    return jnp.argmax(mask)


@pytest.mark.parametrize("ended", ["terminated", "truncated"])
def test_a_counter_of_one_player_counts(ended: str) -> None:
    env = adapter.from_pgx(Counter(3, truncates=ended == "truncated"))
    assert env.observation_space == pc.Box(shape=(2,), dtype="int32")
    adapted.counts(env, 3, ended, count=lambda observation: observation[:, 0])


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("length", [5, 6])
def test_an_opponent_answers_inside_of_step(length: int, first: int) -> None:
    """Each side counts its own moves and sees its own view, the last one too, whoever made it."""
    env = adapter.from_pgx(Counter(length, 2, first, truncates=True), first_legal, player=0)
    played = adapted.play(env, 8)
    adapted.is_sound(played)
    seen = np.arange(first, length, 2)  # counts at which it is the player's turn
    turn = np.arange(8) % len(seen)
    after = np.minimum(seen + 2, length)
    np.testing.assert_array_equal(played.observation[:, 0], seen[turn])
    np.testing.assert_array_equal(played.step.final_observation[:, 0], after[turn])
    np.testing.assert_array_equal(played.observation[:, 1], 0)
    np.testing.assert_array_equal(played.step.final_observation[:, 1], 0)
    np.testing.assert_array_equal(played.step.truncated, turn == len(seen) - 1)
    # Our move is worth the new count; the answer, where there is one, costs one more.
    worth = [count + 1 - (count + 2) * (count + 2 <= length) for count in seen]
    np.testing.assert_array_equal(played.step.reward, np.array(worth)[turn])
    np.testing.assert_array_equal(played.step.sign, 1.0)


def test_in_self_play_every_move_is_a_step_of_its_mover() -> None:
    env = adapter.from_pgx(Counter(3, 2))
    adapted.counts(env, 3, "terminated", count=lambda observation: observation[:, 0])
    played = adapted.play(env, 7)
    np.testing.assert_array_equal(played.observation[:, 1], [0, 1, 0, 0, 1, 0, 0])
    np.testing.assert_array_equal(played.step.sign, -1.0)
    alone = adapted.play(adapter.from_pgx(Counter(3, 1)), 4)
    np.testing.assert_array_equal(alone.step.sign, 1.0)


def test_an_opponent_with_a_memory_keeps_it_for_a_game() -> None:
    """The opponent plays the number of its moves in this game: that is legal only if it is remembered."""

    class Opponent(Counter):
        def _step(self, state: Any, action: Any, key: Any) -> Counted:
            state = super()._step(state, action, key)
            return state.replace(legal_action_mask=jnp.arange(4) == (state.count // 2) % 4)

    policy = pc.init(
        config(pc.Discrete(4), pc.Box(shape=(2,), dtype="int32"), memory=pc.GRU(3)), key=jax.random.key(0)
    )
    env = adapter.from_pgx(Opponent(8, 2), policy)
    game = env.reset(jax.random.key(0))[1]
    step = jax.jit(env.step)
    zeros, states = game.memory, []
    for _ in range(4):
        result = step(jax.random.key(1), game, jnp.int32(jnp.argmax(env.action_mask(game))))
        game = result.state
        states.append(np.asarray(game.memory["shared"]))
    assert result.terminated
    assert not np.array_equal(states[0], states[1])
    assert all(not state[0].any() for state in states)  # of the player who has no opponent's memory
    np.testing.assert_array_equal(states[-1], zeros["shared"])  # a new game


def test_what_cannot_be_played_is_refused() -> None:
    with pytest.raises(ValueError, match="got a game of 3 players, whose values do not follow"):
        adapter.from_pgx(Counter(3, 3))
    with pytest.raises(ValueError, match="opponent: got one for a game of one player, expected None"):
        adapter.from_pgx(Counter(3, 1), first_legal)
    with pytest.raises(ValueError, match="player: got 2, expected 0 to 1"):
        adapter.from_pgx(Counter(3, 2), first_legal, player=2)
    with pytest.raises(ValueError, match="opponent: got str, expected a policy or a function"):
        adapter.from_pgx(Counter(3, 2), "random")


def test_three_players_deal_again_what_is_over_before_our_turn() -> None:
    class Short(Counter):
        def _init(self, key: Any) -> Counted:
            return super()._init(key).replace(current_player=jax.random.randint(key, (), 0, 3))

    # Over after two moves: where player 1 begins, player 0 has no turn.
    env = adapter.from_pgx(Short(2, 3), first_legal, player=0)
    counts, state = jax.jit(jax.vmap(env.reset))(jax.random.split(jax.random.key(0), 64))
    assert not state.state.terminated.any()
    assert set(counts[:, 0].tolist()) == {0, 1}


@pytest.mark.parametrize("name", ["connect_four", "2048", "minatar-breakout", "kuhn_poker"])
def test_games_are_played_by_their_rules(name: str) -> None:
    """An illegal action ends a game of Pgx with a reward of -1."""
    env = adapter.make(name, None)
    assert env.observation_space == pc.Box(low=0.0, high=1.0, shape=env.observation_space.shape)
    played = adapted.play(env, 60)
    adapted.is_sound(played)
    if name == "2048":
        assert not played.mask.all()
        assert not played.step.terminated.any()
    if name == "connect_four":
        end = played.step.terminated
        assert end.any()
        stones = played.step.final_observation.sum((1, 2, 3))
        # Won by who moved last, or drawn on a full board.
        assert ((played.step.reward == 1) | (stones == 42))[end].all()
        assert (played.step.reward[~end] == 0).all()


NIM, MOST = 7, 2


class Nim(Counter):
    """Take one or two of seven sticks; who takes the last one has won."""

    def __init__(self) -> None:
        super().__init__(NIM, 2)

    def _init(self, key: Any) -> Counted:
        state = super()._init(key).replace(legal_action_mask=jnp.ones(MOST, bool))
        # Any number of sticks, so that all of them are learned about.
        return state.replace(count=jax.random.randint(key, (), 0, NIM))

    def _step(self, state: Any, action: Any, key: Any) -> Counted:
        count, mover = state.count + 1 + action, state.current_player
        over = count >= NIM
        return state.replace(
            current_player=1 - mover,
            count=count,
            rewards=jnp.where(over, -jnp.ones(2).at[mover].set(-1.0), 0.0),
            terminated=over,
            legal_action_mask=jnp.arange(MOST) < NIM - count,
        )

    def _observe(self, state: Any, player_id: Any) -> Any:
        return jax.nn.one_hot(state.count, NIM) > 0


def test_self_play_learns_to_leave_a_multiple_of_three() -> None:
    """With the sign of the next value forgotten, both players would learn to lose time together."""
    env = adapter.from_pgx(Nim())
    configuration = config(env.action_space, env.observation_space)
    hyper = TINY._replace(
        num_envs=32, num_updates=60, sequence_length=1, discount=0.95, entropy_coefficient=0.01
    )
    policy, _ = train(env, configuration, hyper)
    left = NIM - np.arange(NIM)
    observations = jnp.eye(NIM)[np.arange(NIM)]
    _, values = jax.vmap(lambda observation: pc.value(policy, (), observation))(observations)
    legal = jnp.arange(MOST) < jnp.asarray(left)[:, None]
    act = lambda observation, mask: pc.act(policy, (), observation, action_mask=mask)
    _, actions = jax.vmap(act)(observations, legal)
    wins = left % 3 != 0
    np.testing.assert_array_equal((left - 1 - actions)[wins] % 3, 0)
    np.testing.assert_array_equal(np.asarray(values) > 0, wins)


def test_self_play_soon_beats_random_moves() -> None:
    """Of two that draw their moves the first wins 56 games of 100; after 49,000 moves it is far from that."""
    config_of = config(
        adapter.make("connect_four").action_space, adapter.make("connect_four").observation_space
    )
    hyper = self_play.HYPER._replace(num_updates=12)
    policy, curve = self_play.train(config_of, hyper, 0, 64, Console(quiet=True))
    assert curve.shape == (self_play.CHUNKS, 2)
    first, second = self_play.against_random(policy, jax.random.key(1000), 400)
    assert min(first, second) > 0.75
