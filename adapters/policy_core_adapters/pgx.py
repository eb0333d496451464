"""Pgx games (2.x): for one player, against opponents, or in self-play.

Observations of booleans become float32, and `action_mask(state)` gives the legal actions; an illegal
one ends the game. A game of several players is an environment in one of two ways:

* With an `opponent`, who answers inside of `step`: what is seen is one player's side of the game,
  and every trainer is right. Who begins is drawn by the game. (Among more than two players a game
  may be over before the player's first turn; then it is dealt again.)
* Without: every move is a step, made by whose turn it is, and observation and reward are that
  player's. In a game of two players whose rewards sum to zero (all of Pgx's), the value of the next
  observation counts for the mover with `Step.sign`, -1 if the other player moves next.
  Whoever bootstraps must multiply by it, as `examples/ppo.py` does. A policy with a memory would see
  the observations of both.
"""

import importlib
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

import policy_core as pc
from policy_core_adapters.environment import Environment, Step, auto_reset, declared

Opponent: TypeAlias = Any
"""A policy, or a function `(key, observation, action_mask) -> action`."""


class Game(NamedTuple):
    """The state of a game."""

    state: Any
    first: Any
    """The number of the player who began."""
    memory: Any
    """Of the opponents, by player; `()` without a memory."""


def make(name: str, opponent: Opponent | None = "random") -> Environment:
    """The Pgx game `name`, as "connect_four" or "minatar-breakout".

    Other players draw among their legal moves, unless `opponent` is someone else; None is self-play.
    """
    pgx: Any = importlib.import_module("pgx")
    with jax.ensure_compile_time_eval():
        env = pgx.make(name)
    if isinstance(opponent, str) and opponent == "random":
        opponent = random_player if env.num_players > 1 else None
    return from_pgx(env, opponent)


def from_pgx(env: Any, opponent: Opponent | None = None, *, player: int = 0) -> Environment:
    """A Pgx game as an `Environment`.

    Args:
        env: a `pgx.Env`.
        opponent: who plays all other players, in `step` and, where they begin, in `reset`: a policy,
            or a function `(key, observation, action_mask) -> action`; None for self-play.
        player: the number of the player whose side is seen, if there is an opponent.

    Raises:
        ValueError: for self-play of more than two players, or an opponent of nobody.
    """
    players = env.num_players
    if opponent is None and players > 2:
        raise ValueError(
            f"env: got a game of {players} players, whose values do not follow from each other's in "
            "self-play; expected an opponent, which plays the others"
        )
    if opponent is not None and players == 1:
        raise ValueError("opponent: got one for a game of one player, expected None")
    if opponent is not None and not 0 <= player < players:
        raise ValueError(f"player: got {player}, expected 0 to {players - 1}")
    struct = jax.eval_shape(env.init, jax.eval_shape(lambda: jax.random.key(0)))
    observation_space = _box(struct.observation)
    action_space = pc.Discrete(struct.legal_action_mask.shape[0])
    initial_memory, answer = _player_of(opponent)

    def seen(game: Game) -> tuple[Any, Game]:
        return declared(observation_space, game.state.observation), game

    def answered(key: jax.Array, game: Game, reward: jax.Array) -> tuple[Game, jax.Array]:
        """The game when it is the player's turn again or over, and the sum of the player's rewards."""

        def waits(carry: Any) -> jax.Array:
            _, game, _ = carry
            return ~_over(game.state) & jnp.asarray(game.state.current_player != player)

        def move(carry: Any) -> Any:
            key, (state, first, memory), reward = carry
            key, action_key, step_key = jax.random.split(key, 3)
            who = state.current_player
            own = jax.tree.map(lambda x: x[who], memory)
            observation = declared(observation_space, state.observation)
            own, action = answer(action_key, own, observation, state.legal_action_mask)
            memory = jax.tree.map(lambda x, new: x.at[who].set(new.astype(x.dtype)), memory, own)
            state = env.step(state, jnp.asarray(action).astype(jnp.int32), step_key)
            return key, Game(state, first, memory), reward + state.rewards[player]

        _, game, reward = jax.lax.while_loop(waits, move, (key, game, reward))
        return game, reward

    def reset(key: jax.Array) -> tuple[Any, Any]:
        def deal(carry: Any) -> Any:
            key, init_key, move_key = jax.random.split(carry[0], 3)
            memory = jax.tree.map(lambda x: jnp.stack([x] * players), initial_memory())
            state = env.init(init_key)
            game = Game(state, state.current_player, memory)
            return key, game if opponent is None else answered(move_key, game, jnp.float32(0))[0]

        dealt = deal((key, None))
        if opponent is not None and players > 2:  # dealt again where it is over before the player's turn
            dealt = jax.lax.while_loop(lambda carry: _over(carry[1].state), deal, dealt)
        return seen(dealt[1])

    def step(key: jax.Array, game: Game, action: Any) -> Step:
        reset_key, step_key, key = jax.random.split(key, 3)
        mover = game.state.current_player
        state = env.step(game.state, action, step_key)
        reward, sign = state.rewards[mover], jnp.float32(1)
        after = game._replace(state=state)
        if opponent is not None:
            after, reward = answered(key, after, reward)
            # At the end of a game the observation may be that of another player.
            view = _view(env, after.state, player)
            after = after._replace(state=after.state.replace(observation=view))
        elif players == 2:
            sign = jnp.where(state.current_player == mover, sign, -sign)
        over = after.state.terminated, after.state.truncated
        return auto_reset(reset(reset_key), seen(after), reward, *over)._replace(sign=sign)

    return Environment(
        observation_space, action_space, reset, step, lambda game: game.state.legal_action_mask
    )


def random_player(key: jax.Array, observation: Any, action_mask: jax.Array) -> jax.Array:
    """An opponent that draws among its legal actions."""
    del observation
    return pc.Discrete(action_mask.shape[0]).sample(key=key, mask=action_mask)


def _player_of(opponent: Opponent | None) -> tuple[Callable[[], Any], Callable[..., tuple[Any, Any]]]:
    """The first memory of an opponent, and `(key, memory, observation, mask) -> (memory, action)`."""
    if isinstance(opponent, tuple):

        def play(key: jax.Array, memory: Any, observation: Any, mask: Any) -> tuple[Any, Any]:
            return pc.act(opponent, memory, observation, key=key, action_mask=mask)

        return lambda: pc.reset(opponent), play
    if opponent is not None and not callable(opponent):
        raise ValueError(
            f"opponent: got {type(opponent).__name__}, expected a policy or a function "
            "(key, observation, action_mask) -> action"
        )
    act: Any = opponent
    return tuple, lambda key, memory, observation, mask: (memory, act(key, observation, mask))


def _over(state: Any) -> jax.Array:
    return jnp.asarray(state.terminated | state.truncated)


def _view(env: Any, state: Any, player: int) -> Any:
    """What a player sees whose turn it may not be."""
    with warnings.catch_warnings():  # the argument is deprecated, and there is no other way
        warnings.simplefilter("ignore", DeprecationWarning)
        return env.observe(state, jnp.int32(player))


def _box(leaf: Any) -> pc.Box:
    """The space of observations of this shape and dtype: booleans become numbers from 0 to 1."""
    if leaf.dtype == bool:
        return pc.Box(low=0.0, high=1.0, shape=leaf.shape)
    dtype: Any = jnp.dtype(leaf.dtype).name
    return pc.Box(shape=leaf.shape, dtype=dtype)
