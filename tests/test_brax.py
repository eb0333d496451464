"""The adapter of Brax, on a counter of Brax's classes, on its `fast` and, if it is there, on Playground."""

from typing import Any

import adapted
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import config
from policy_core_adapters import brax as adapter
from policy_core_adapters import playground

import policy_core as pc

envs = pytest.importorskip("brax.envs", reason="brax is not installed")

pytestmark = [
    pytest.mark.filterwarnings("default"),  # other people's warnings are theirs
    pytest.mark.usefixtures("unchecked", "lenient"),
]


class Counter(envs.Env):
    """Ends after `length` steps; without one, never. Each episode shows the first number of its key."""

    observation_size, action_size, backend = 2, 3, "none"

    def __init__(self, length: int | None, parts: bool = False) -> None:
        self.length, self.parts = length, parts

    def state(self, count: Any, mark: Any) -> Any:
        done = jnp.zeros(()) if self.length is None else (count >= self.length).astype(float)
        seen = jnp.stack([count, mark])
        obs = {"state": seen, "privileged_state": jnp.append(seen, count)} if self.parts else seen
        return envs.State((count, mark), obs, count, done, {"count": count})

    def reset(self, rng: Any) -> Any:
        return self.state(jnp.zeros(()), jax.random.uniform(rng))

    def step(self, state: Any, action: Any) -> Any:
        now = self.state(state.pipeline_state[0] + 1, state.pipeline_state[1])
        return state.replace(
            pipeline_state=now.pipeline_state,
            obs=now.obs,
            reward=now.reward,
            done=now.done,
            metrics=now.metrics,
        )


def limited(env: Any, episode_length: int, action_repeat: int = 1) -> Any:
    return envs.training.EpisodeWrapper(env, episode_length, action_repeat)


@pytest.mark.parametrize(
    ("length", "limit", "ended"), [(None, 3, "truncated"), (3, 3, "terminated"), (3, 9, "terminated")]
)
def test_a_counter_counts(length: int | None, limit: int, ended: str) -> None:
    """An end in the step of the time limit is an end."""
    env = adapter.from_brax(limited(Counter(length), limit))
    assert env.observation_space == pc.Box(shape=(2,))
    assert env.action_space == pc.Box(low=-1.0, high=1.0, shape=(3,))
    adapted.counts(env, 3, ended, count=lambda observation: observation[:, 0])
    marks = adapted.play(env, 7).observation[:, 1]
    assert len(set(marks.tolist())) == 3  # each episode begins with a reset of its own
    assert len(set(marks[:3].tolist())) == 1


def test_repeated_actions_are_one_step() -> None:
    played = adapted.play(adapter.from_brax(limited(Counter(None), 6, 2)), 4)
    np.testing.assert_array_equal(played.observation[:, 0], [0, 2, 4, 0])
    np.testing.assert_array_equal(played.step.reward, [1 + 2, 3 + 4, 5 + 6, 1 + 2])
    np.testing.assert_array_equal(played.step.truncated, [False, False, True, False])


def test_the_critic_sees_what_is_privileged() -> None:
    env = adapter.from_brax(limited(Counter(None, parts=True), 3))
    assert env.observation_space == pc.Dict(
        {"privileged_state": pc.Box(shape=(3,)), "state": pc.Box(shape=(2,))}
    )
    fields = adapter.keys(env.observation_space)
    assert fields == {"actor_keys": ("state",), "critic_keys": ("privileged_state",)}
    assert adapter.keys(pc.Box(shape=(2,))) == adapter.keys(pc.Dict({"state": pc.Box()})) == {}
    policy = pc.init(config(env.action_space, env.observation_space, **fields), key=jax.random.key(0))
    adapted.is_sound(adapted.play(env, 7, policy=policy))
    observation, _ = env.reset(jax.random.key(0))
    other = {**observation, "privileged_state": observation["privileged_state"] + 1}
    assert (pc.act(policy, (), observation)[1] == pc.act(policy, (), other)[1]).all()
    assert pc.value(policy, (), observation)[1] != pc.value(policy, (), other)[1]


def test_an_environment_without_a_limit_or_in_another_wrapper_is_refused() -> None:
    with pytest.raises(ValueError, match="got an environment without a time limit; expected it within"):
        adapter.from_brax(Counter(None))
    with pytest.raises(ValueError, match="within AutoResetWrapper, which loses final observations"):
        adapter.from_brax(envs.training.AutoResetWrapper(limited(Counter(None), 3)))
    with pytest.raises(ValueError, match="within VmapWrapper, a batch, expected one environment"):
        adapter.from_brax(limited(envs.training.VmapWrapper(Counter(None)), 3))


@pytest.mark.parametrize("obs_mode", ["ndarray", "dict_latent_state"])
def test_fast_goes_faster(obs_mode: str) -> None:
    """Brax's own environment for tests: a positive action adds to the velocity, the reward is the way."""
    mode = {} if obs_mode == "ndarray" else {"obs_mode": obs_mode, "asymmetric_obs": True}
    env = adapter.make("fast", episode_length=8, **mode)
    played = adapted.play(env, 17, action=jnp.ones(1))
    adapted.is_sound(played)
    state = played.observation if obs_mode == "ndarray" else played.observation["state"]
    t = np.arange(17) % 8
    np.testing.assert_allclose(state[:, 1], 0.02 * t, rtol=1e-5)
    np.testing.assert_array_equal(played.step.truncated, t == 7)
    final = played.step.final_observation
    np.testing.assert_allclose((final if obs_mode == "ndarray" else final["state"])[:, 0], played.step.reward)


def test_playground_is_brax_with_another_physics() -> None:
    pytest.importorskip("mujoco_playground", reason="mujoco_playground is not installed")
    env = playground.make("CartpoleBalance", impl="jax", episode_length=4)
    assert (env.observation_space, env.action_space) == (
        pc.Box(shape=(5,)),
        pc.Box(low=-1.0, high=1.0, shape=(1,)),
    )
    played = adapted.play(env, 9)
    adapted.is_sound(played)
    np.testing.assert_array_equal(played.step.truncated, np.arange(9) % 4 == 3)
    ended = played.step.truncated
    assert (played.step.final_observation[ended] != played.step.observation[ended]).any(-1).all()
