"""What an adapted environment must do, whatever package it comes from."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from cases import config
from policy_core_adapters.environment import Environment, Step

import policy_core as pc

COMPILED_SOON: dict[str, Any] = {"xla_backend_optimization_level": 0}


class Played(NamedTuple):
    """A rollout, `[time, ...]`."""

    observation: Any  # that was acted upon
    mask: Any
    action: Any  # of the environment
    step: Step
    ratio: jax.Array  # of the log-probability evaluated again to that of the action
    legal: jax.Array  # whether the action is in the space and each part of it allowed by its row
    observed: jax.Array  # whether the observations are in their space, the final one too


def play(env: Environment, steps: int, *, policy: Any = None, action: Any = None, seed: int = 0) -> Played:
    """`steps` steps of one environment under a policy with the default heads, or under one action."""
    if policy is None:
        policy = pc.init(config(env.action_space, env.observation_space), key=jax.random.key(seed))

    def one(carry: Any, key: jax.Array) -> Any:
        state, observation = carry
        mask = env.action_mask(state)
        env.action_space.check_mask(mask)
        action_key, env_key = jax.random.split(key)
        _, drawn, _, log_prob = pc.action_and_value(policy, (), observation, key=action_key, action_mask=mask)
        _, _, again, _ = pc.evaluate_action(policy, (), observation, drawn, action_mask=mask)
        taken = pc.env_action(policy, drawn) if action is None else action
        step = env.step(env_key, state, taken)
        legal = env.action_space.contains(taken) & allowed(env.action_space, mask, taken)
        spaces = [env.observation_space.contains(x) for x in (observation, step.final_observation)]
        ratio = jnp.exp(again - log_prob)
        played = Played(observation, mask, taken, step, ratio, legal, spaces[0] & spaces[1])
        return (step.state, step.observation), played._replace(step=step._replace(state=None))

    @functools.partial(jax.jit, compiler_options=COMPILED_SOON)
    def run(key: jax.Array) -> Played:
        reset_key, key = jax.random.split(key)
        observation, state = env.reset(reset_key)
        return jax.lax.scan(one, (state, observation), jax.random.split(key, steps))[1]

    return jax.tree.map(np.asarray, run(jax.random.key(seed)))


def allowed(space: pc.contract.Space, mask: Any, action: Any) -> jax.Array:
    """Whether a mask allows an action."""
    if mask is None:
        return jnp.array(True)
    if isinstance(mask, pc.spaces.JointMask):
        return mask.allowed[tuple(action)]
    if isinstance(space, pc.Dict):
        return jnp.all(jnp.stack([allowed(part, mask[name], action[name]) for name, part in space.spaces]))
    if isinstance(space, pc.Discrete):
        return mask[action - space.start]
    rows = zip(mask, (action - space.starts()).ravel(), strict=True)
    return jnp.all(jnp.stack([row[number] for row, number in rows]))


def is_sound(played: Played) -> None:
    """Every action was legal, every observation in its space, every ratio 1, every end of one kind."""
    assert played.legal.all()
    assert played.observed.all()
    np.testing.assert_array_equal(played.ratio, 1.0)
    step = played.step
    assert step.reward.dtype == np.float32
    assert np.isfinite(step.reward).all()
    assert step.terminated.dtype == step.truncated.dtype == bool
    assert step.reward.shape == step.terminated.shape == step.truncated.shape
    assert not (step.terminated & step.truncated).any()


def counts(
    env: Environment, length: int, ended: str, *, action: Any = None, count: Callable[[Any], Any] = np.ravel
) -> None:
    """The observation is the number of steps since the reset, the reward is the next number.

    So an episode of `length` steps shows 0, 1, ..., length - 1, its last observation is `length`, and
    what follows is 0. `ended` is "terminated" or "truncated". One more episode than two is played, so
    that the second reset is seen, too.
    """
    played = play(env, 2 * length + 1, action=action)
    t = np.arange(2 * length + 1) % length
    np.testing.assert_array_equal(count(played.observation), t)
    np.testing.assert_array_equal(count(played.step.final_observation), t + 1)
    np.testing.assert_array_equal(count(played.step.observation), (t + 1) % length)
    np.testing.assert_array_equal(played.step.reward, t + 1)
    other = {"terminated": "truncated", "truncated": "terminated"}[ended]
    np.testing.assert_array_equal(getattr(played.step, ended), t == length - 1)
    assert not getattr(played.step, other).any()
    is_sound(played)
