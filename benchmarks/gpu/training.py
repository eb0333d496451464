"""`examples/ppo.py` on CartPole: populations, and one policy with many environments."""

import sys
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import policy_core as pc
from benchmarks.gpu.measure import ROOT, SOME, TRIAL, Rows

sys.path.append(str(ROOT / "examples"))
import ppo
from policy_core_adapters import gymnax


def train_cartpole(members: int, hyper: Any) -> tuple[float, float, np.ndarray]:
    """Compilation and training of `examples/ppo.py`, in seconds, and the last mean return of each."""
    env = gymnax.make("CartPole-v1")
    config = pc.ActorCriticConfig(observation_space=env.observation_space, action_space=env.action_space)
    init, update = ppo.make_train(config, env, hyper)

    def train(key: jax.Array) -> jax.Array:
        _, returns = jax.lax.scan(lambda runner, _: update(runner), init(key), None, hyper.num_updates)
        return jnp.nanmean(returns[-max(1, hyper.num_updates // 10) :])

    keys = jax.random.split(jax.random.key(0), members)
    start = time.perf_counter()
    compiled = jax.jit(jax.vmap(train)).lower(keys).compile()
    took = time.perf_counter() - start
    start = time.perf_counter()
    returns = np.asarray(compiled(keys))
    return took, time.perf_counter() - start, returns


def training() -> dict[str, Any]:
    """Populations of the demo's PPO, and one policy with many environments."""
    rows: Rows = []
    plan = [(n, ppo.Hyperparameters()) for n in ((1, 5) if TRIAL else (1, 5, 64, 512))]
    plan.append((1, ppo.Hyperparameters(num_envs=SOME, num_updates=40)))
    for n, hyper in plan:
        compiling, seconds, returns = train_cartpole(n, hyper)
        steps = n * hyper.num_envs * hyper.num_steps * hyper.num_updates
        rows.append(
            [
                str(n),
                f"{hyper.num_envs}",
                f"{steps:,}",
                f"{compiling:.1f}",
                f"{seconds:.1f}",
                f"{steps / seconds:,.0f}",
                f"{returns.mean():.1f} ({returns.min():.1f} to {returns.max():.1f})",
            ]
        )
    return {"rows": rows}
