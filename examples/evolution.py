"""Evolution strategies on a policy: the pair is a solution of evosax as it is.

OpenAI-ES (Salimans et al. 2017) on CartPole, three seeds in one program. The policies are actors
without a critic; what comes out is a file like any other. Needs the extra `evolution`.
"""

import command

# isort: split
import argparse
import importlib.util
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import evaluate
import jax
import numpy as np
import optax
from policy_core_adapters.environment import Environment
from rich.console import Console

import policy_core as pc

MEMBERS, EPISODES, MAX_STEPS = 256, 2, 500
console = Console()


def evolve(
    config: pc.ActorCriticConfig, env: Environment, key: jax.Array, generations: int
) -> tuple[Any, jax.Array]:
    """The mean of the last generation, and the returns `[generation, member]`."""
    from evosax.algorithms import Open_ES  # pyright: ignore[reportMissingImports]

    init_key, key = jax.random.split(key)
    start = pc.init(config, key=init_key)
    rate, spread = (optax.exponential_decay(x, generations, 0.3) for x in (0.1, 0.3))
    strategy = Open_ES(MEMBERS, start, optimizer=optax.adam(rate), std_schedule=spread)
    params = strategy.default_params

    def generation(state: Any, key: jax.Array) -> tuple[Any, jax.Array]:
        ask_key, play_key, tell_key = jax.random.split(key, 3)
        population, state = strategy.ask(ask_key, state, params)  # a pair, with an axis in front
        # All members start from the same states: they differ in what they do, not in their luck.
        returns = jax.vmap(lambda policy: evaluate.evaluate(policy, env, play_key, EPISODES, MAX_STEPS))(
            population
        ).mean(1)
        state, _ = strategy.tell(tell_key, population, -returns, state, params)  # which is minimized
        return state, returns

    state = strategy.init(init_key, start, params)
    state, returns = jax.lax.scan(generation, state, jax.random.split(key, generations))
    return strategy.get_mean(state), returns


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--env", default="CartPole-v1", help="a gymnax environment")
    parser.add_argument("--seeds", type=command.positive, default=3, help="how many policies to evolve")
    parser.add_argument("--generations", type=command.positive, default=40)
    parser.add_argument("--target", type=float, default=500.0, help="mean return to ask of each seed")
    parser.add_argument("--out", type=Path, default=Path("build/evolution"), help="folder for the file")
    options = parser.parse_args()
    if importlib.util.find_spec("evosax") is None:
        raise command.UserError("evosax cannot be imported; pip install -e '.[evolution]'")

    env = command.environment(options.env)
    config = pc.ActorCriticConfig(
        observation_space=env.observation_space,
        action_space=env.action_space,
        actor=pc.MLP((16,)),
        critic=None,
    )
    keys = jax.random.split(jax.random.key(0), options.seeds)
    start = time.perf_counter()
    run = jax.jit(jax.vmap(lambda key: evolve(config, env, key, options.generations)))
    policies, returns = jax.block_until_ready(run(keys))
    seconds = time.perf_counter() - start
    console.print(f"{options.seeds} seeds of {options.generations} generations: {seconds:.1f} s")
    for seed, curve in enumerate(np.asarray(returns.mean(-1))):
        console.print(f"seed {seed}, mean of a generation:", *(f"{x:.0f}" for x in curve[::5]))
    file = options.out / "policies.msgpack"
    pc.save(file, policies, metadata={"environment": options.env})
    script = [sys.executable, evaluate.__file__, str(file), "--env", options.env]
    return subprocess.run([*script, "--target", str(options.target)], check=False).returncode


if __name__ == "__main__":
    command.run(main)
