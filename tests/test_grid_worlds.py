"""The adapters of Craftax, XLand-MiniGrid and Navix, each on an environment of its own."""

import dataclasses

import adapted
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from policy_core_adapters import craftax, navix, xminigrid
from policy_core_adapters.environment import Environment

import policy_core as pc

pytestmark = [
    pytest.mark.filterwarnings("default"),  # other people's warnings are theirs
    pytest.mark.usefixtures("unchecked", "lenient"),
]


def walks(env: Environment, ahead: int, steps: int, turn: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Terminated, truncated and reward of walking to the goal in a 5x5 room: two ahead, a turn, two ahead.

    What is seen after an end is the first observation again, and the last one is another.
    """
    plan = [ahead, ahead, turn, ahead, ahead]
    step, reset = jax.jit(env.step), jax.jit(env.reset)
    first, state = reset(jax.random.key(0))
    flags = []
    for i in range(steps):
        result = step(jax.random.key(0), state, jnp.int32(plan[i % 5]))
        state = result.state
        ended = bool(result.terminated | result.truncated)
        if ended:
            np.testing.assert_array_equal(result.observation, first)
        assert (np.asarray(result.final_observation) == np.asarray(result.observation)).all() != ended
        flags.append((bool(result.terminated), bool(result.truncated), float(result.reward)))
    terminated, truncated, reward = np.array(flags).T
    return terminated, truncated, reward


def test_xminigrid_tells_the_goal_from_the_time_limit() -> None:
    package = pytest.importorskip("xminigrid", reason="xminigrid is not installed")
    env = xminigrid.make("MiniGrid-Empty-5x5")
    assert env.action_space == pc.Discrete(6)
    assert env.observation_space == pc.MultiDiscrete((13, 12) * 49, shape=(7, 7, 2))
    adapted.is_sound(adapted.play(env, 20))
    terminated, truncated, reward = walks(env, 0, 11, 1)
    np.testing.assert_array_equal(np.flatnonzero(terminated), [4, 9])
    assert not truncated.any()
    assert (reward[[4, 9]] > 0).all()
    raw, params = package.make("MiniGrid-Empty-5x5")
    terminated, truncated, _ = walks(xminigrid.from_xminigrid(raw, params.replace(max_steps=3)), 0, 7, 1)
    np.testing.assert_array_equal(np.flatnonzero(truncated), [2, 5])
    assert not terminated.any()
    from xminigrid.wrappers import GymAutoResetWrapper

    with pytest.raises(ValueError, match="within GymAutoResetWrapper, which loses final observations"):
        xminigrid.from_xminigrid(GymAutoResetWrapper(raw), params)


def test_navix_wastes_no_step_on_a_reset() -> None:
    pytest.importorskip("navix", reason="navix is not installed")
    env = navix.make("Navix-Empty-5x5-v0")
    assert isinstance(env.action_space, pc.Discrete)
    assert env.observation_space == pc.Box(low=0, high=255, shape=(5, 5, 3), dtype="int32")
    adapted.is_sound(adapted.play(env, 20))
    terminated, truncated, reward = walks(env, 2, 11, 1)
    np.testing.assert_array_equal(np.flatnonzero(terminated), [4, 9])
    assert not truncated.any()
    assert (reward[[4, 9]] > 0).all()
    terminated, truncated, _ = walks(navix.make("Navix-Empty-5x5-v0", max_steps=3), 2, 7, 1)
    np.testing.assert_array_equal(np.flatnonzero(truncated), [2, 5])
    assert not terminated.any()


def test_craftax_is_truncated_at_its_time_limit() -> None:
    pytest.importorskip("craftax", reason="craftax is not installed")
    from craftax.craftax_env import make_craftax_env_from_name

    raw = make_craftax_env_from_name("Craftax-Classic-Symbolic-v1", auto_reset=False)
    env = craftax.from_craftax(raw, dataclasses.replace(raw.default_params, max_timesteps=3))
    assert env.action_space == pc.Discrete(17)
    assert env.observation_space == pc.Box(low=0.0, high=1.0, shape=(1345,))
    played = adapted.play(env, 7)
    adapted.is_sound(played)
    np.testing.assert_array_equal(played.step.truncated, np.arange(7) % 3 == 2)
    assert not played.step.terminated.any()
    ended = played.step.truncated
    assert (played.step.final_observation[ended] != played.step.observation[ended]).any(-1).all()
