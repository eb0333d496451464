"""The example trainer: whole, small, on both lines of gymnax, and right about time limits."""

import functools
from typing import Any

import environments
import jax
import jax.numpy as jnp
import numpy as np
import ppo
import pytest
from cases import config
from policy_core_adapters import gymnax as adapter
from policy_core_adapters.environment import Environment, Step

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


TINY = ppo.Hyperparameters(
    num_envs=4,
    num_steps=16,
    num_updates=30,
    num_epochs=4,
    num_minibatches=2,
    sequence_length=4,
    learning_rate=0.01,
)


def train(env: Environment, config: Any, hyper: ppo.Hyperparameters) -> tuple[Any, np.ndarray]:
    init, update = ppo.make_train(config, env, hyper)

    @jax.jit
    def run(key: Any) -> Any:
        return jax.lax.scan(lambda r, _: update(r), init(key), None, hyper.num_updates)

    runner, returned = run(jax.random.key(0))
    return runner.policy, np.asarray(returned)


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


@functools.cache
def cartpole() -> tuple[Any, Any]:
    gymnax = pytest.importorskip("gymnax")
    return gymnax.make("CartPole-v1")


class LegacyCartPole:
    """CartPole with the five-value interface of gymnax 0.x, where `done` merges both ends."""

    def __init__(self, env: Any) -> None:
        self.env = env
        self.action_space, self.observation_space = env.action_space, env.observation_space
        self.reset, self.reset_env = env.reset, env.reset_env

    def step_env(self, key: Any, state: Any, action: Any, params: Any) -> Any:
        observation, state, reward, terminated, info = self.env.step_env(key, state, action, params)
        return observation, state, reward, terminated | self.env.is_truncated(state, params), info

    def step(self, key: Any, state: Any, action: Any, params: Any) -> Any:
        observation, state, reward, done, info = self.step_env(key, state, action, params)
        first, fresh = self.reset_env(key, params)
        state = jax.tree.map(lambda a, b: jnp.where(done, a, b), fresh, state)
        return jnp.where(done, first, observation), state, reward, done, info


@pytest.mark.parametrize("line", ["1.x", "1.x behind its five-value wrapper", "0.x"])
def test_gymnax_steps_tell_termination_from_truncation(line: str) -> None:
    env, params = cartpole()
    if line == "0.x":
        env = LegacyCartPole(env)
    elif line != "1.x":
        from gymnax.wrappers.compat import LegacyStepAPIWrapper

        env = LegacyStepAPIWrapper(env)
    ours = adapter.from_gymnax(env, params.replace(max_steps_in_episode=5))
    assert ours.action_space == pc.Discrete(2)
    assert ours.observation_space.struct().shape == (4,)
    key = jax.random.key(0)
    observation, state = jax.jit(ours.reset)(key)
    step = jax.jit(ours.step)
    for t in range(5):
        result = step(key, state, jnp.int32(t % 2))
        assert bool(result.truncated) == (t == 4)
        assert not bool(result.terminated)
        observation, state = result.observation, result.state
    assert int(state.time) == 0
    assert not np.allclose(result.final_observation, observation)

    ours = adapter.from_gymnax(env, params)
    observation, state = jax.jit(ours.reset)(key)
    step = jax.jit(ours.step)
    for _ in range(50):
        result = step(key, state, jnp.int32(1))
        state = result.state
        if bool(result.terminated):
            break
    assert bool(result.terminated)
    assert not bool(result.truncated)


def test_hidden_velocities_are_the_odd_numbers_and_nothing_else_changes() -> None:
    whole = adapter.from_gymnax(*cartpole())
    ours = environments.hidden_velocity(whole)
    assert ours.observation_space == pc.Box(
        low=whole.observation_space.low[::2], high=whole.observation_space.high[::2], shape=(2,)
    )
    key = jax.random.key(0)
    observation, state = ours.reset(key)
    np.testing.assert_array_equal(observation, whole.reset(key)[0][::2])
    got, expected = (env.step(key, state, jnp.int32(1)) for env in (ours, whole))
    for name in ("observation", "final_observation"):
        np.testing.assert_array_equal(getattr(got, name), getattr(expected, name)[::2])
    assert got.reward == expected.reward


def test_gymnax_spaces_are_converted() -> None:
    gymnax = pytest.importorskip("gymnax")
    spaces = gymnax.environments.spaces
    box = spaces.Box(np.array([-1.0, -2.0]), np.array([1.0, np.inf]), (2,), jnp.float32)
    space = spaces.Dict({"b": spaces.Discrete(3), "a": box})
    assert adapter.space_of(space) == pc.Dict(
        {"a": pc.Box(low=(-1.0, -2.0), high=(1.0, float("inf")), shape=(2,)), "b": pc.Discrete(3)}
    )
    with pytest.raises(ValueError, match="got object, expected Discrete, Box, Dict or Tuple"):
        adapter.space_of(object())


@pytest.mark.usefixtures("unchecked")  # beartype doubles the time to trace
@pytest.mark.parametrize("name", ["Breakout-MinAtar", "Pendulum-v1"])
def test_the_same_file_trains_on_images_and_on_normalized_observations(name: str) -> None:
    pytest.importorskip("gymnax")
    env = adapter.make(name)
    images = name == "Breakout-MinAtar"
    encoder, normalize = (pc.MinAtarCNN(filters=2, size=8), None) if images else (None, pc.Normalize())
    configuration = config(env.action_space, env.observation_space, encoder=encoder, normalize=normalize)
    hyper = TINY._replace(num_steps=8, num_updates=2, num_epochs=1, sequence_length=1)
    (params, _), _ = train(env, configuration, hyper)
    before, _ = pc.init(configuration, key=jax.random.split(jax.random.key(0), 3)[0])
    if images:
        moved = jax.tree.map(lambda a, b: bool((a != b).any()), params["encoder"], before["encoder"])
        assert jax.tree.all(moved)
    else:
        statistics = params["normalize"]
        assert (statistics["count"].sum(0) == 2 * 8 * 4).all()  # nothing was counted twice, nothing decayed
        assert (jnp.abs(statistics["mean"][0]) <= jnp.array([1.0, 1.0, 8.0])).all()
        assert (statistics["variance"][0] > 0).all()
