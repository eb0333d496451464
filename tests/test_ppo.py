"""The example trainer: whole, small, and right about time limits."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
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


def endings(terminated: Any, truncated: Any) -> Environment:
    """Each episode is one step, which ends as is told by the third of the numbers of its observation."""

    def reset(key: Any) -> Any:
        x = jax.random.normal(key, (2,))
        kind = jax.random.randint(key, (), 0, 3)
        return jnp.append(x, kind), (x, kind)

    def step(key: Any, state: Any, action: Any) -> Step:
        x, kind = state
        beyond, (first, fresh) = jnp.append(10 * x, -1.0), reset(key)
        ended = terminated[kind], truncated[kind]
        following = jax.tree.map(lambda a, b: jnp.where(ended[0] | ended[1], a, b), fresh, (-x, kind))
        going_on = jnp.where(ended[0] | ended[1], first, beyond)
        return Step(going_on, following, jnp.sum(x), *ended, beyond)

    return Environment(pc.Box(shape=(3,)), pc.Discrete(2), reset, step)


@pytest.mark.parametrize("memory", [None, pc.GRU(4)], ids=["none", "GRU"])
def test_the_value_beyond_a_time_limit_is_exact(memory: Any) -> None:
    """The mean and variance of the targets of one step, whose parts are computed by hand.

    A third of the episodes ends, a third is cut, a third goes on. What is beyond a cut is the value of the
    final observation after the state that the memory has after the step, and of nothing else.
    """
    env = endings(jnp.array([True, False, False]), jnp.array([False, True, False]))
    made = config(
        env.action_space, env.observation_space, memory=memory, value_head=pc.heads.PopArtHead(preserve=False)
    )
    hyper = TINY._replace(num_envs=60, num_steps=1, sequence_length=1, num_epochs=1, discount=0.5)
    init, update = ppo.make_train(made, env, hyper, optax.sgd(0.0))
    runner = jax.jit(init)(jax.random.key(0))
    after, _ = jax.jit(update)(runner)
    x, kind = runner.env_state

    def values(state: Any, observation: Any) -> tuple[Any, Any]:
        one = jax.vmap(lambda state, x: pc.value(runner.policy, state, x))
        return one(state, observation)

    state, _ = values(runner.policy_state, runner.observation)
    final = jnp.concatenate([10 * x, -jnp.ones((60, 1))], 1)
    beyond = values(state, final)[1]  # also where the episode goes on
    assert jnp.std(beyond) > 0.05
    targets = jnp.sum(x, 1) + 0.5 * jnp.where(kind == 0, 0.0, beyond)
    statistics = after.policy[0]["critic"]["head"]["statistics"]
    assert float(statistics["count"].sum()) == 60
    assert float(statistics["mean"].sum()) == pytest.approx(float(targets.mean()), abs=1e-5)
    assert float(statistics["variance"].sum()) == pytest.approx(float(targets.var()), abs=1e-5)


def test_a_rollout_without_time_limits_evaluates_no_final_observation() -> None:
    """They may be anything where nothing was cut: the branch that evaluates them is not taken."""
    env = endings(jnp.array([True, False, False]), jnp.array([False, False, False]))
    made = config(env.action_space, env.observation_space)
    init, update = ppo.make_train(made, env, TINY)
    text = jax.jit(update).lower(jax.jit(init)(jax.random.key(0))).as_text()
    assert text.count("stablehlo.case") == 1


def test_steps_of_a_policy_without_memory_are_the_same_in_sequences_of_any_length() -> None:
    """With one minibatch the order does not matter; what was masked must stay with its step."""
    env = corridor()
    found = []
    for length in (1, 16):
        hyper = TINY._replace(sequence_length=length, num_minibatches=1, num_epochs=2)
        init, update = ppo.make_train(config(env.action_space, env.observation_space), env, hyper)
        runner, _ = jax.jit(update)(jax.jit(init)(jax.random.key(0)))
        found.append(runner.policy)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), *found)


def test_the_optimizer_of_one_vector_is_that_of_its_parts() -> None:
    env = corridor()
    made, hyper = config(env.action_space, env.observation_space), TINY._replace(max_grad_norm=0.1)
    updates = hyper.num_updates * hyper.num_epochs * hyper.num_minibatches
    adam = optax.adam(optax.linear_schedule(hyper.learning_rate, 0.0, updates), eps=1e-5)
    parts = optax.chain(optax.clip_by_global_norm(hyper.max_grad_norm), adam)
    found = []
    for optimizer in (None, parts):
        init, update = ppo.make_train(made, env, hyper, optimizer)
        runner, _ = jax.jit(update)(jax.jit(init)(jax.random.key(0)))
        found.append(runner.policy)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), *found)


def test_a_shuffle_has_every_number_once_and_anywhere() -> None:
    for size in (1, 2, 3, 48, 1024):
        rows = np.asarray(ppo.shuffles(jax.random.key(size), 5, size))
        np.testing.assert_array_equal(np.sort(rows), np.tile(np.arange(size), (5, 1)))
        assert size < 48 or len(np.unique(rows, axis=0)) == 5
    rows = np.asarray(ppo.shuffles(jax.random.key(0), 12_000, 3))
    counts = np.unique(rows, axis=0, return_counts=True)[1]  # of the six orders, 2000 each
    assert len(counts) == 6
    assert abs(counts - 2000).max() < 200  # 4.9 standard deviations


def test_the_pieces_must_fit() -> None:
    env = corridor()
    with pytest.raises(ValueError, match="whole sequences"):
        ppo.make_train(config(env.action_space, env.observation_space), env, TINY._replace(sequence_length=5))
