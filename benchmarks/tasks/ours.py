"""`examples/ppo.py`, unchanged, a seed at a time."""

import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from policy_core_adapters import gymnax

import policy_core as pc
from benchmarks.tasks import environments, jitted
from benchmarks.tasks.record import Seed
from benchmarks.tasks.settings import Setting, Task

sys.path.append(str(Path(__file__).parent.parent.parent / "examples"))
import ppo
from experiments import scaled


def orthogonal(activation: str) -> dict[str, Any]:
    """Towers as those of PureJaxRL."""
    tower = pc.MLP(activation=activation, kernel_init="orthogonal", gain=math.sqrt(2))
    return {"actor": tower, "critic": tower}


CONFIGS: dict[str, dict[str, Any]] = {
    "": {},
    "tanh": orthogonal("tanh"),
    "relu": orthogonal("relu"),
    "squashed": {"box_head": pc.SquashedNormalHead()},
    "normalized": {"normalize": pc.Normalize()},
    "memory": {"memory": pc.GRU(64)},
}


def train(task: Task, setting: Setting, seeds: list[int]) -> Iterator[Seed]:
    """Compile once, then train each seed."""
    env = gymnax.from_gymnax(*environments.make(task.name))
    config = pc.ActorCriticConfig(
        observation_space=env.observation_space, action_space=env.action_space, **CONFIGS[setting.config]
    )
    hyper = ppo.Hyperparameters(**setting.fields)
    rollout = hyper.num_envs * hyper.num_steps
    hyper = hyper._replace(num_updates=-(-task.steps // rollout))
    init, update = ppo.make_train(config, scaled(env, setting.reward_scale), hyper)

    def one(runner: ppo.Runner, _: None) -> Any:
        runner, returned = update(runner)
        ended = ~jnp.isnan(returned)
        return runner, (jnp.sum(returned, where=ended) / setting.reward_scale, jnp.sum(ended))

    def whole(key: jax.Array) -> Any:
        return jax.lax.scan(one, init(key), None, hyper.num_updates)

    def read(out: Any) -> Any:
        _, (returned, episodes) = out
        return np.asarray(returned, float), np.asarray(episodes)

    yield from jitted.trained(whole, read, rollout * hyper.num_updates, seeds)
