"""gymnasium environments as an `Environment`: streams of the host under `jit`, `vmap` and `scan`, and PPO on them."""

import functools
from collections.abc import Callable
from typing import Any

import environments
import jax
import jax.numpy as jnp
import numpy as np
import ppo
import pytest
from cases import config
from evaluate import evaluate
from policy_core_adapters import gymnasium as adapter
from small_ppo import TINY, train

import policy_core as pc

gymnasium = pytest.importorskip("gymnasium", reason="gymnasium is not installed")
from gymnasium_environments import MODES, Counter, Everything, Masked, Starts, vector  # noqa: E402

pytestmark = [
    pytest.mark.filterwarnings("default"),  # other people's warnings are theirs
    pytest.mark.usefixtures("unchecked", "lenient"),
]

FAILED = (
    ValueError,
    jax.errors.JaxRuntimeError,
)  # which of them JAX raises for an error in a callback, varies


def pure(make: Callable[[], Any], mode: str) -> Any:
    return adapter.from_gymnasium(lambda n: vector([make] * n, mode))


def counted(env: Any, batch: int, steps: int) -> Any:
    """`steps` steps of a batch of environments, `[time, env]`, in one program."""

    def step(state: Any, key: Any) -> Any:
        outcome = jax.vmap(env.step)(jax.random.split(key, batch), state, jnp.zeros(batch, jnp.int32))
        return outcome.state, outcome._replace(state=None)

    @jax.jit
    def run(key: Any) -> Any:
        observation, state = jax.vmap(env.reset)(jax.random.split(key, batch))
        return observation, jax.lax.scan(step, state, jax.random.split(key, steps))[1]

    return jax.tree.map(np.asarray, run(jax.random.key(0)))


@pytest.mark.parametrize("ends", ["terminated", "truncated"])
@pytest.mark.parametrize("mode", MODES)
def test_an_environment_in_a_program_counts_right(mode: str, ends: str) -> None:
    first, step = counted(pure(functools.partial(Counter, 3, ends), mode), batch=2, steps=10)
    assert first.shape == (2, 1)
    assert step.observation.shape == (10, 2, 1)
    if mode == "NextStep":  # every fourth step only resets, and ends, so that is_first is right
        after, last, valid = [1, 2, 3, 0, 1, 2, 3, 0, 1, 2], [1, 2, 3, 0, 1, 2, 3, 0, 1, 2], [1, 1, 1, 0] * 3
        end = [0, 0, 1, 0, 0, 0, 1, 0, 0, 0]
    else:
        after, last, valid = [1, 2, 0, 1, 2, 0, 1, 2, 0, 1], [1, 2, 3, 1, 2, 3, 1, 2, 3, 1], [1] * 12
        end = [0, 0, 1, 0, 0, 1, 0, 0, 1, 0]
    only_reset = ~np.array(valid[:10], bool)
    for env in range(2):
        np.testing.assert_array_equal(step.observation[:, env, 0], after)
        np.testing.assert_array_equal(step.final_observation[:, env, 0], last)
        np.testing.assert_array_equal(step.reward[:, env], last)
        np.testing.assert_array_equal(step.valid[:, env], ~only_reset)
        ended = {"terminated": only_reset, "truncated": np.zeros(10, bool)}
        ended[ends] = ended[ends] | np.array(end, bool)
        np.testing.assert_array_equal(step.terminated[:, env], ended["terminated"])
        np.testing.assert_array_equal(step.truncated[:, env], ended["truncated"])
    assert step.reward.dtype == np.float32


def test_an_environment_that_reuses_its_arrays_keeps_its_last_observation() -> None:
    gymnasium.register("Reuses-v0", functools.partial(Counter, 3, "truncated", reuses=True))
    _, step = counted(adapter.make("Reuses-v0"), batch=2, steps=4)
    gymnasium.registry.pop("Reuses-v0")
    np.testing.assert_array_equal(step.final_observation[:, 0, 0], [1, 2, 3, 1])
    np.testing.assert_array_equal(step.observation[:, 0, 0], [1, 2, 0, 1])


@pytest.mark.parametrize(("ends", "later"), [("truncated", 2.0), ("terminated", 4 / 3)])
@pytest.mark.parametrize("mode", MODES)
def test_ppo_learns_the_values_that_arithmetic_gives(mode: str, ends: str, later: float) -> None:
    """With discount 1/2, for v the value of the two later observations, which look alike.

    The first of them has the target 1 + v / 2. If the episode terminates, the second has 1, so v = 4/3. If
    it is truncated the second has 1 + v / 2, too, so v = 2; bootstrapped from the first observation of
    the next episode it would be 1.6, and 1 if steps that only reset were in the loss.
    """
    env = pure(functools.partial(Starts, ends), mode)
    hyper = TINY._replace(discount=0.5, num_updates=60, sequence_length=1, gae_lambda=0.0)
    policy, returned = train(env, config(env.action_space, env.observation_space), hyper)
    start, after = (float(pc.value(policy, (), jnp.array(x))[1]) for x in ([0.0, 1.0], [1.0, 0.0]))
    assert after == pytest.approx(later, abs=0.08)
    assert start == pytest.approx(later / 2, abs=0.08)
    assert np.nanmin(returned) == np.nanmax(returned) == 2.0  # no episode of 0 where it only reset


@pytest.mark.parametrize("mode", MODES)
def test_ppo_counts_no_observation_that_only_waited_for_a_reset(mode: str) -> None:
    env = pure(functools.partial(Counter, 3, "terminated"), mode)
    hyper = TINY._replace(num_updates=1)
    plain = config(env.action_space, env.observation_space, normalize=pc.Normalize())
    (params, _), _ = train(env, plain, hyper)
    statistics = params["normalize"]
    acted = np.arange(16) % 4 if mode == "NextStep" else np.arange(16) % 3
    acted = acted[acted < 3]
    assert float(statistics["count"].sum(0)[0]) == 4 * len(acted)
    assert float(statistics["mean"].sum(0)[0]) == pytest.approx(acted.mean(), abs=1e-6)


@pytest.mark.parametrize("where", ["info", "call"])
def test_ppo_plays_what_is_allowed(where: str) -> None:
    """The environment raises for an action that it did not allow just then."""
    env = pure(functools.partial(Masked, where, "flat"), "SameStep")
    plain = config(env.action_space, env.observation_space, memory=pc.MinGRU(4))
    _, returned = train(env, plain, TINY._replace(num_updates=2))
    assert np.nansum(returned) == 3 * (2 * 16 // 3) * 4


def test_every_space_goes_through_a_program() -> None:
    """The environment asserts that its space contains each action."""
    env = pure(Everything, "Disabled")
    policy = pc.init(config(env.action_space, env.observation_space), key=jax.random.key(0))

    def step(carry: Any, key: Any) -> Any:
        observation, states = carry
        keys = jax.random.split(key, 2)
        _, actions = jax.vmap(lambda key, o: pc.act(policy, (), o, key=key))(keys, observation)
        step = jax.vmap(env.step)(keys, states, actions)
        inside = jax.vmap(env.observation_space.contains)
        held = inside(step.observation) & inside(step.final_observation)
        return (step.observation, step.state), (held, step.truncated)

    first = jax.vmap(env.reset)(jax.random.split(jax.random.key(0), 2))
    held, truncated = jax.jit(lambda c, k: jax.lax.scan(step, c, k)[1])(
        first, jax.random.split(jax.random.key(1), 9)
    )
    assert held.all()
    np.testing.assert_array_equal(truncated.sum(0), [2, 2])


def test_environments_vectorized_by_themselves_are_trained_on() -> None:
    """CartPole has a vector environment of its own, which takes one seed and resets in the next step."""
    env = adapter.from_gymnasium(
        lambda n: gymnasium.make_vec("CartPole-v1", n, vectorization_mode="vector_entry_point")
    )
    _, returned = train(env, config(env.action_space, env.observation_space), TINY._replace(num_updates=8))
    ended = returned[~np.isnan(returned)]
    assert len(ended) > 5
    assert ended.min() >= 8  # no pole falls sooner


# STREAMS -------------------------------------------------------------------------------------


def test_a_population_trains_in_one_program_as_its_members_do() -> None:
    env = adapter.make("CartPole-v1")
    hyper = TINY._replace(num_updates=2)
    init, update = ppo.make_train(config(env.action_space, env.observation_space), env, hyper)
    run = jax.jit(lambda key: jax.lax.scan(lambda r, _: update(r), init(key), None, 2)[1])
    keys = jax.random.split(jax.random.key(0), 2)
    together = jax.jit(jax.vmap(run))(keys)
    alone = jnp.stack([run(key) for key in keys])
    np.testing.assert_array_equal(
        np.isnan(together), np.isnan(alone)
    )  # the same poles fall at the same times


def test_policies_are_evaluated_on_the_same_episodes() -> None:
    """The episodes are reset once, outside of the `vmap` over policies, and stepped within it."""
    env = adapter.make("CartPole-v1")
    plain = config(env.action_space, env.observation_space, actor_gain=1.0)
    policies = jax.vmap(lambda key: pc.init(plain, key=key))(jax.random.split(jax.random.key(0), 3))
    play = jax.jit(lambda policy: evaluate(policy, env, jax.random.key(7), episodes=5, max_steps=60))
    together = jax.jit(jax.vmap(play))(policies)
    alone = jnp.stack([play(jax.tree.map(lambda x, i=i: x[i], policies)) for i in range(3)])
    np.testing.assert_array_equal(together, alone)
    assert len(np.unique(alone)) > 3


def test_a_stream_goes_one_way() -> None:
    env = adapter.make("CartPole-v1")
    step = jax.jit(jax.vmap(env.step))
    keys = jax.random.split(jax.random.key(0), 2)
    left, right = jnp.zeros(2, jnp.int32), jnp.ones(2, jnp.int32)
    _, first = jax.vmap(env.reset)(keys)
    one = step(keys, first, left)
    again = step(keys, first, left)  # the same question has the same answer
    jax.tree.map(np.testing.assert_array_equal, one, again)
    other = step(keys, first, right)  # a first state begins anew from its seeds
    assert (other.observation != one.observation).any()
    two = step(keys, one.state, left)
    for state, action in (
        (one.state, right),  # left behind
        (jax.tree.map(lambda x: x[::-1], two.state), left),  # in another order
        (jax.tree.map(lambda x, y: jnp.stack([x[0], y[1]]), two.state, other.state), left),  # of two streams
    ):
        with pytest.raises(FAILED, match="these states are not the newest of one stream"):
            jax.block_until_ready(step(keys, state, action))
    with pytest.raises(FAILED, match="these states are not the newest of one stream"):
        jax.block_until_ready(jax.jit(env.step)(keys[0], jax.tree.map(lambda x: x[0], two.state), left[0]))
    np.testing.assert_array_equal(step(keys, two.state, left).reward, 1.0)  # and goes on
    for _ in range(8):
        jax.block_until_ready(jax.vmap(env.reset)(keys))
    with pytest.raises(FAILED, match="in at most 8 streams at a time"):
        jax.block_until_ready(step(keys, two.state, left))


def test_what_cannot_be_begun_anew_is_said() -> None:
    class Random(Counter):
        def seen(self) -> Any:
            return np.random.default_rng().random(1)  # whatever the seed

    env = pure(Random, "SameStep")
    keys = jax.random.split(jax.random.key(0), 2)
    _, first = jax.vmap(env.reset)(keys)
    actions = jnp.zeros(2, jnp.int32)
    step = jax.jit(jax.vmap(env.step))
    jax.block_until_ready(step(keys, first, actions))
    with pytest.raises(FAILED, match="do not give the same first observations again"):
        jax.block_until_ready(step(keys, first, actions + 1))
    with pytest.raises(pc.errors.StructureError, match=r"^make_vector: gave 2 environments, expected 1"):
        adapter.from_gymnasium(lambda n: vector([Counter] * 2, "SameStep"))


def test_a_declared_observation_space_is_what_is_given() -> None:
    space = pc.Box(shape=(1,), dtype="float16")
    env = adapter.from_gymnasium(lambda n: vector([Counter] * n, "SameStep"), observation_space=space)
    observation, _ = env.reset(jax.random.key(0))
    assert env.observation_space == space
    assert observation.dtype == jnp.float16


# BY NAME -------------------------------------------------------------------------------------


def test_an_environment_is_made_by_package_and_name() -> None:
    assert environments.make("CartPole-v1").observation_space == environments.make("gymnax:CartPole-v1")[0]
    theirs = environments.make("gymnasium:CartPole-v1")
    assert theirs.action_space == pc.Discrete(2)
    with pytest.raises(ValueError, match=r"^env: got the package 'gim', expected one of gymnax, gymnasium, "):
        environments.make("gim:CartPole-v1")
