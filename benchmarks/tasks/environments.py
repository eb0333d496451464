"""RepeatPrevious, and gymnax environments in the form of before 1.0, which others call."""

from typing import Any, NamedTuple

import gymnax  # pyright: ignore[reportMissingImports]
import jax
import jax.numpy as jnp
from gymnax.environments import environment, spaces  # pyright: ignore[reportMissingImports]

SUITS, CARDS, LAG = 4, 52, 4


class Deck(NamedTuple):
    """The suits of the cards in their order, of which `time` is seen."""

    suits: jax.Array
    time: Any


class Rules(NamedTuple):
    """An episode has an action after each card."""

    max_steps_in_episode: int = CARDS


class RepeatPrevious(environment.Environment):  # type: ignore[misc, type-arg, unused-ignore]
    """RepeatPreviousEasy of POPGym (Morad et al. 2023): say the suit that was shown four cards before.

    A deck of 52 cards is shown one by one, each by its suit, one-hot. From the fifth on an action is worth
    1 / 48 if it is right, else minus that. The best return is 1, that of a uniform choice -0.5; the card in
    sight tells hardly anything, but that a deck has 13 of a suit.
    """

    @property
    def default_params(self) -> Any:
        return Rules()

    def shown(self, deck: Deck) -> jax.Array:
        return jax.nn.one_hot(deck.suits[jnp.minimum(deck.time, CARDS - 1)], SUITS)

    def reset_env(self, key: jax.Array, params: Rules) -> tuple[jax.Array, Deck]:
        deck = Deck(suits=jax.random.permutation(key, jnp.arange(CARDS) % SUITS), time=jnp.int32(0))
        return self.shown(deck), deck

    def step_env(
        self, key: jax.Array, state: Deck, action: Any, params: Rules
    ) -> tuple[jax.Array, Deck, jax.Array, jax.Array, dict[Any, Any]]:
        right = state.suits[jnp.maximum(state.time - LAG, 0)] == action
        reward = jnp.where(right, 1.0, -1.0) / (CARDS - LAG)
        reward = jnp.where(state.time >= LAG, reward, 0.0)
        state = state._replace(time=state.time + 1)
        return self.shown(state), state, reward, state.time >= CARDS, {}

    def is_truncated(self, state: Deck, params: Rules) -> jax.Array:
        return jnp.array(False)

    @property
    def name(self) -> str:
        return "RepeatPrevious"

    @property
    def num_actions(self) -> int:
        return SUITS

    def action_space(self, params: Any = None) -> spaces.Discrete:
        return spaces.Discrete(SUITS)

    def observation_space(self, params: Any) -> spaces.Box:
        return spaces.Box(0.0, 1.0, (SUITS,), jnp.float32)


def make(name: str) -> tuple[Any, Any]:
    """The environment and its parameters, in the form of the gymnax that is installed."""
    if name == "RepeatPrevious":
        return RepeatPrevious(), Rules()
    env, params = gymnax.make(name)
    return env, params


class Counted(NamedTuple):
    """The state of an environment with the return so far, and returns and number of ended episodes."""

    inner: Any
    total: jax.Array
    returned: jax.Array
    episodes: jax.Array


class Legacy:
    """`step` with one `done`, as before gymnax 1.0, and a state that counts episodes and their returns."""

    def __init__(self, env: Any) -> None:
        self.inner = env

    def __getattr__(self, name: str) -> Any:
        if name == "inner":  # while a copy is made
            raise AttributeError(name)
        return getattr(self.inner, name)

    def __deepcopy__(self, memo: Any) -> "Legacy":
        return self  # rejax copies what it is given; the environment is a key of jit

    def reset(self, key: jax.Array, params: Any = None) -> tuple[Any, Counted]:
        observation, state = self.inner.reset(key, params)
        return observation, Counted(state, jnp.zeros(()), jnp.zeros(()), jnp.zeros((), int))

    def step(self, key: jax.Array, state: Counted, action: Any, params: Any = None) -> tuple[Any, ...]:
        observation, inner, reward, terminated, truncated, _ = self.inner.step(
            key, state.inner, action, params
        )
        done, reward = jnp.reshape(terminated | truncated, ()), jnp.reshape(reward, ())
        total = state.total + reward
        state = Counted(
            inner,
            jnp.where(done, 0.0, total),
            state.returned + jnp.where(done, total, 0.0),
            state.episodes + done,
        )
        return observation, state, reward, done, {}
