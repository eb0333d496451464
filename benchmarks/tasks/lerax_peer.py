"""PPO of Lerax with its defaults, on its own environments, as in the example of its README.

These have no time limit of their own; they are given that of gymnax, by Lerax's `TimeLimit`.
"""

from collections.abc import Callable, Iterator
from typing import Any

import equinox as eqx  # pyright: ignore[reportMissingImports]
import jax
import jax.numpy as jnp
import numpy as np
from lerax.algorithm import PPO  # pyright: ignore[reportMissingImports]
from lerax.callback import AbstractCallbackStepState, AbstractStepCallback  # pyright: ignore[reportMissingImports]
from lerax.env import classic_control  # pyright: ignore[reportMissingImports]
from lerax.policy import MLPActorCriticPolicy  # pyright: ignore[reportMissingImports]
from lerax.wrapper import TimeLimit  # pyright: ignore[reportMissingImports]

from benchmarks.tasks import jitted
from benchmarks.tasks.record import Seed
from benchmarks.tasks.settings import Setting, Task

ENVIRONMENTS = {
    "CartPole-v1": (classic_control.CartPole, 500),
    "Acrobot-v1": (classic_control.Acrobot, 500),
    "Pendulum-v1": (classic_control.Pendulum, 200),
    "MountainCarContinuous-v0": (classic_control.ContinuousMountainCar, 999),
}


class Count(AbstractCallbackStepState):  # type: ignore[misc, unused-ignore]
    """The return so far, and returns and number of ended episodes."""

    total: jax.Array
    returned: jax.Array
    episodes: jax.Array


class Returns(AbstractStepCallback):  # type: ignore[misc, unused-ignore]
    """Counts the episodes of each environment."""

    def step_reset(self, ctx: Any, *, key: Any) -> Count:
        return Count(jnp.zeros(()), jnp.zeros(()), jnp.zeros((), int))

    def on_step(self, ctx: Any, *, key: Any) -> Count:
        total = ctx.state.total + ctx.locals["reward"]  # that of `ctx` has the value beyond a time limit
        return Count(
            jnp.where(ctx.done, 0.0, total),
            ctx.state.returned + jnp.where(ctx.done, total, 0.0),
            ctx.state.episodes + ctx.done,
        )


def train(
    task: Task, setting: Setting, seeds: list[int], fresh: Callable[..., Any] = MLPActorCriticPolicy
) -> Iterator[Seed]:
    """By its iterations, without the callbacks that log; compile once, then train each seed.

    `fresh(env=, key=)` makes the policy.
    """
    make, limit = ENVIRONMENTS[task.name]
    env, algo, callback = TimeLimit(make(), limit), PPO(**setting.fields), Returns()
    rollout = algo.num_envs * algo.num_steps
    updates = -(-task.steps // rollout)

    def whole(key: jax.Array) -> Any:
        policy_key, reset_key, key = jax.random.split(key, 3)
        policy = fresh(env=env, key=policy_key)
        start = algo.reset(env, policy, key=reset_key, callback=callback)
        first, rest = eqx.partition(start, eqx.is_array)

        def one(arrays: Any, key: jax.Array) -> Any:
            state = algo.iteration(eqx.combine(arrays, rest), key=key, callback=callback)
            count = state.step_state.callback_state
            arrays, _ = eqx.partition(algo.per_iteration(state), eqx.is_array)
            return arrays, (count.returned.sum(), count.episodes.sum())

        return jax.lax.scan(one, first, jax.random.split(key, updates))[1]

    def read(out: Any) -> Any:
        return tuple(np.diff(np.asarray(x, float), prepend=0.0) for x in out)

    yield from jitted.trained(whole, read, rollout * updates, seeds)
