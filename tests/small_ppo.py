"""The example trainer on a few steps of few environments, for tests."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import ppo
import results
from policy_core_adapters.environment import Environment

import policy_core as pc

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


def ppo_runs_on(name: str) -> None:
    """Three updates of a task of `results`: the params keep their structure, and every step counts once."""
    task = results.TASKS[name]
    env = task.make()
    hyper = task.hyper._replace(num_envs=4, num_steps=16, num_updates=3, num_epochs=2, num_minibatches=2)
    init, update = ppo.make_train(task.config(env), env, hyper)

    @functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})  # compiles sooner
    def run(key: Any) -> Any:
        return jax.lax.scan(lambda r, _: update(r), init(key), None, hyper.num_updates)

    before, _ = pc.init(task.config(env), key=jax.random.key(0))
    runner, _ = run(jax.random.key(0))
    params, _ = runner.policy
    assert jax.tree.structure(params) == jax.tree.structure(before)
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(params))
    counts = optax.tree_utils.tree_get_all_with_path(runner.optimizer_state, "count")
    steps = [int(count) for _, count in counts if not isinstance(count, optax.MaskedNode)]  # of a statistic
    assert set(steps) == {3 * 2 * 2}
