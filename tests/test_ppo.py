"""The example trainer: whole, small, and right about time limits."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import ppo
import pytest
from cases import config
from policy_core_adapters.environment import Environment, Step
from small_ppo import TINY, train

import policy_core as pc

pytestmark = [
    pytest.mark.filterwarnings("default"),  # other people's warnings are theirs
    pytest.mark.usefixtures("unchecked", "lenient"),
]


def corridor(length: int = 3) -> Environment:
    """Walk right to the end: action 1 moves, action 0 waits and is masked at the start."""

    def observe(place: Any) -> Any:
        return jnp.stack([place / length, 1.0])

    def reset(key: Any) -> Any:
        return observe(jnp.zeros(())), jnp.zeros(())

    def step(key: Any, place: Any, action: Any) -> Step:
        there = place + action
        done = there >= length
        first, start = reset(key)
        return Step(
            jnp.where(done, first, observe(there)), jnp.where(done, start, there),
            jnp.where(done, 1.0, -0.1), done, jnp.array(False), observe(there),
        )  # fmt: skip

    def action_mask(place: Any) -> Any:
        return jnp.stack([place > 0, jnp.array(True)])

    return Environment(pc.Box(shape=(2,)), pc.Discrete(2), reset, step, action_mask)


def test_it_learns_a_masked_corridor() -> None:
    env = corridor()
    policy, returned = train(env, config(env.action_space, env.observation_space), TINY)
    assert np.nanmean(returned[-3:]) > 0.75 > np.nanmean(returned[:1])  # the best is 1 - 0.2
    state = pc.reset(policy)
    for place in (1.0, 2.0):
        state, action = pc.act(policy, state, jnp.array([place / 3, 1.0]))
        assert int(action) == 1


def signal() -> Environment:
    """The first of two observations is a sign; the action at the second is worth 1 if it tells it."""

    def observe(sign: Any, late: Any) -> Any:
        return jnp.stack([jnp.where(late, 0.0, sign), late.astype(jnp.float32)])

    def reset(key: Any) -> Any:
        sign, late = jax.random.rademacher(key, (), jnp.float32), jnp.array(False)
        return observe(sign, late), (sign, late)

    def step(key: Any, state: Any, action: Any) -> Step:
        sign, late = state
        observation, fresh = reset(key)
        after = observe(sign, jnp.array(True))
        state = jax.tree.map(lambda a, b: jnp.where(late, a, b), fresh, (sign, jnp.array(True)))
        right = jnp.where((action == 1) == (sign > 0), 1.0, 0.0)
        return Step(
            jnp.where(late, observation, after), state, jnp.where(late, right, 0.0), late,
            jnp.array(False), after,
        )  # fmt: skip

    return Environment(pc.Box(shape=(2,)), pc.Discrete(2), reset, step)


def test_a_memory_is_trained_by_the_same_file() -> None:
    env = signal()
    hyper = TINY._replace(num_steps=8, num_envs=8, sequence_length=8, num_updates=40)
    scores = {}
    for name, memory in (("memory", pc.MinGRU(8)), ("none", None)):
        _, returned = train(env, config(env.action_space, env.observation_space, memory=memory), hyper)
        scores[name] = np.nanmean(returned[-5:])
    assert scores["memory"] > 0.95 > 0.7 > scores["none"]


def test_a_time_limit_bootstraps_and_a_termination_does_not() -> None:
    """Reward 1 a step for ever: the value of a cut episode is 1 / (1 - discount), of an ended one 1."""

    def endless(truncated: bool) -> Environment:
        def step(key: Any, state: Any, action: Any) -> Step:
            cut = jnp.array(truncated)
            return Step(jnp.ones(1), state, jnp.ones(()), ~cut, cut, jnp.ones(1))

        return Environment(pc.Box(shape=(1,)), pc.Discrete(2), lambda key: (jnp.ones(1), jnp.zeros(())), step)

    hyper = TINY._replace(discount=0.5, num_updates=60)
    for truncated, expected in ((True, 2.0), (False, 1.0)):
        env = endless(truncated)
        policy, _ = train(env, config(env.action_space, env.observation_space), hyper)
        assert float(pc.value(policy, (), jnp.ones(1))[1]) == pytest.approx(expected, abs=0.1)


def test_the_pieces_must_fit() -> None:
    env = corridor()
    with pytest.raises(ValueError, match="whole sequences"):
        ppo.make_train(config(env.action_space, env.observation_space), env, TINY._replace(sequence_length=5))
