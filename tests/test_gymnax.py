"""The adapter of gymnax on both of its lines, and the example trainer on its environments."""

import functools
import importlib.metadata
from typing import Any

import environments
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import config
from evaluate import episode_return
from policy_core_adapters import gymnax as adapter
from small_ppo import TINY, ppo_runs_on, train

import policy_core as pc

gymnax = pytest.importorskip("gymnax", reason="gymnax is not installed")

pytestmark = [
    pytest.mark.filterwarnings("default"),  # other people's warnings are theirs
    pytest.mark.usefixtures("unchecked", "lenient"),
]


@functools.cache
def cartpole() -> tuple[Any, Any]:
    return gymnax.make("CartPole-v1")


class LegacyCartPole:
    """CartPole with the five-value interface of gymnax 0.x, where `done` merges both ends."""

    def __init__(self, env: Any) -> None:
        self.env = env
        self.action_space, self.observation_space = env.action_space, env.observation_space
        self.reset, self.reset_env = env.reset, env.reset_env

    def is_terminal(self, state: Any, params: Any) -> Any:
        return self.env.is_terminated(state, params) | self.env.is_truncated(state, params)

    def step_env(self, key: Any, state: Any, action: Any, params: Any) -> Any:
        observation, state, reward, terminated, info = self.env.step_env(key, state, action, params)
        return observation, state, reward, terminated | self.env.is_truncated(state, params), info

    def step(self, key: Any, state: Any, action: Any, params: Any) -> Any:
        observation, state, reward, done, info = self.step_env(key, state, action, params)
        first, fresh = self.reset_env(key, params)
        state = jax.tree.map(lambda a, b: jnp.where(done, a, b), fresh, state)
        return jnp.where(done, first, observation), state, reward, done, info


OLD = importlib.metadata.version("gymnax").startswith("0.")
LINES = ["as it is"] if OLD else ["as it is", "behind the five-value wrapper", "as in 0.x"]


def cartpole_of(line: str) -> tuple[Any, Any]:
    env, params = cartpole()
    if line == "as in 0.x":
        return LegacyCartPole(env), params
    if line != "as it is":
        from gymnax.wrappers.compat import LegacyStepAPIWrapper

        return LegacyStepAPIWrapper(env), params
    return env, params


@pytest.mark.parametrize("line", LINES)
def test_gymnax_steps_tell_termination_from_truncation(line: str) -> None:
    env, params = cartpole_of(line)
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


@pytest.mark.parametrize("line", LINES)
def test_what_ends_by_itself_at_the_time_limit_is_not_truncated(line: str) -> None:
    env, params = cartpole_of(line)

    def end(limit: int) -> tuple[int, bool, bool]:
        ours = adapter.from_gymnax(env, params.replace(max_steps_in_episode=limit))
        _, state = ours.reset(jax.random.key(0))
        step = jax.jit(ours.step)
        for t in range(1, 51):
            result = step(jax.random.key(0), state, jnp.int32(1))
            if result.terminated | result.truncated:
                return t, bool(result.terminated), bool(result.truncated)
            state = result.state
        pytest.fail("it does not end")

    fallen, *_ = end(500)
    assert end(fallen) == (fallen, True, False)
    assert end(fallen - 1) == (fallen - 1, False, True)


def digits() -> Any:
    """Stands in for the images that gymnax would download."""
    return (np.zeros((20, 28, 28)), np.zeros(20, np.int32)), None


@pytest.mark.parametrize("name", gymnax.registered_envs)
def test_every_registered_environment_acts_steps_and_is_scored(name: str, monkeypatch: Any) -> None:
    from gymnax.utils import load_mnist

    if OLD and name == "SimpleBandit-bsuite":
        pytest.xfail("gymnax 0.0.9 mixes up the fields of its state")
    monkeypatch.setattr(load_mnist, "load_mnist", digits)
    env = adapter.make(name)
    plain = config(env.action_space, env.observation_space, encoder=pc.Flatten())

    def play(key: Any) -> Any:
        observation, state = env.reset(key)
        policy = pc.init(plain, key=key)
        _, action = pc.act(policy, pc.reset(policy), observation, key=key)
        env.action_space.check_mask(env.action_mask(state))
        step = env.step(key, state, action)
        return observation, action, step, episode_return(policy, env, key, max_steps=3)

    observation, action, step, score = jax.eval_shape(play, jax.random.key(0))
    for seen in (observation, step.observation, step.final_observation):
        got, expected = (
            jax.tree.map(lambda x: (x.shape, x.dtype), x) for x in (seen, env.observation_space.struct())
        )
        assert got == expected
    assert (action.shape, action.dtype) == (env.action_space.struct().shape, env.action_space.struct().dtype)
    assert (step.reward.shape, step.reward.dtype, score.shape) == ((), jnp.float32, ())
    assert step.terminated.dtype == step.truncated.dtype == jnp.bool_


@pytest.mark.parametrize("name", ["Catch-bsuite", "FourRooms-misc", "UmbrellaChain-bsuite", "DeepSea-bsuite"])
def test_observations_of_other_dtypes_than_declared_are_cast(name: str) -> None:
    """The last two give rewards of integers, or end before the time limit."""
    env = adapter.make(name)

    def step(state: Any, key: Any) -> Any:
        action = env.action_space.sample(key=key)
        step = env.step(key, state, action)
        inside = [env.observation_space.contains(x) for x in (step.observation, step.final_observation)]
        return step.state, (inside[0] & inside[1], step.terminated, step.truncated, step.reward)

    run = jax.jit(lambda key: jax.lax.scan(step, env.reset(key)[1], jax.random.split(key, 120))[1])
    inside, terminated, truncated, reward = run(jax.random.key(0))
    assert inside.all()
    assert not (terminated & truncated).any()
    assert reward.dtype == jnp.float32
    assert terminated.any() == (name != "FourRooms-misc")


def test_an_environment_may_be_made_inside_of_a_jit() -> None:
    env, params = cartpole()

    @jax.jit
    def score(key: Any) -> Any:
        ours = adapter.from_gymnax(env, params)
        policy = pc.init(config(ours.action_space, ours.observation_space), key=key)
        return episode_return(policy, ours, key, max_steps=3)

    assert float(score(jax.random.key(0))) == 3.0
    with pytest.raises(
        pc.errors.ConfigError, match=r"^space: got bounds that are traced, .*jax.ensure_compile_time_eval\(\)"
    ):
        jax.jit(lambda x: (adapter.space_of(env.observation_space(params)), x)[1])(0.0)


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


def test_spaces_of_gymnasium_are_not_misread() -> None:
    theirs = pytest.importorskip("gymnasium.spaces", reason="gymnasium is not installed")
    assert adapter.space_of(theirs.Discrete(3, start=1)) == pc.Discrete(3, start=1)
    assert adapter.space_of(theirs.MultiBinary(5)) == pc.MultiBinary(5)
    with pytest.raises(pc.errors.ConfigError, match=r"^space: got OneOf, expected Discrete, MultiDiscrete, "):
        adapter.space_of(theirs.OneOf([theirs.Discrete(2)]))


def test_gymnax_spaces_are_converted() -> None:
    spaces = gymnax.environments.spaces
    box = spaces.Box(np.array([-1.0, -2.0]), np.array([1.0, np.inf]), (2,), jnp.float32)
    space = spaces.Dict({"b": spaces.Discrete(3), "a": box})
    assert adapter.space_of(space) == pc.Dict(
        {"a": pc.Box(low=(-1.0, -2.0), high=(1.0, float("inf")), shape=(2,)), "b": pc.Discrete(3)}
    )
    with pytest.raises(
        ValueError, match="got object, expected Discrete, MultiDiscrete, MultiBinary, Box, Dict or Tuple"
    ):
        adapter.space_of(object())


@pytest.mark.parametrize("name", ["Breakout-MinAtar", "Pendulum-v1"])
def test_the_same_file_trains_on_images_and_on_normalised_observations(name: str) -> None:
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


@pytest.mark.parametrize("name", ["pendulum-beta", "pendulum-normalized", "breakout-hl-gauss"])
def test_ppo_runs_on(name: str) -> None:
    ppo_runs_on(name)
