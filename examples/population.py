"""Population-based training (Jaderberg et al. 2017) of `ppo.py`: 32 CartPole agents in one jit.

Four rates belong to a member. After a generation the worst quarter copies the best (exploit) and
multiplies the rates that it got by 0.8 or 1.25 (explore). The best member becomes an ordinary file.
"""

import command

# isort: split
import argparse
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import evaluate
import experiments
import jax
import jax.numpy as jnp
import numpy as np
import ppo
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

import policy_core as pc

RANGES = {"learning_rate": (1e-5, 1e-2), "entropy_coefficient": (1e-4, 0.1),
          "clip_range": (0.05, 0.5), "temperature": (0.5, 2.0)}  # fmt: skip
HYPER = ppo.Hyperparameters(num_envs=8, num_steps=64, num_epochs=4)


def make_run(
    config: Any, env: Any, hyper: ppo.Hyperparameters, members: int, generations: int, report: Any
) -> Callable[[jax.Array], tuple[Any, jax.Array, dict[str, jax.Array]]]:
    """`run(key) -> (population, greedy returns, history)`, the last `[generation, member]` by name."""
    low, high = jnp.array([*RANGES.values()]).T  # of every rate

    def train(runner: ppo.Runner, rates: jax.Array) -> tuple[ppo.Runner, jax.Array]:
        _, update = ppo.make_train(config, env, hyper._replace(**dict(zip(RANGES, rates, strict=True))))
        runner, ended = jax.lax.scan(lambda r, _: update(r), runner, None, hyper.num_updates // generations)
        return runner, jnp.nanmean(ended)

    def generation(carry: Any, key: jax.Array) -> tuple[Any, dict[str, jax.Array]]:
        runner, rates = carry  # [member, ...], [member, rate]
        runner, returns = jax.vmap(train)(runner, rates)
        jax.debug.callback(report, returns, ordered=True)
        exploit_key, explore_key = jax.random.split(key)
        source = pc.population.exploit(returns, key=exploit_key)
        copied, theirs = pc.population.take((runner, rates), source)
        factors = jax.random.choice(explore_key, jnp.array([0.8, 1.25]), rates.shape)
        stays = (source == jnp.arange(members))[:, None]
        explored = jnp.where(stays, rates, jnp.clip(factors * theirs, low, high))
        history = dict(zip(RANGES, rates.T, strict=True)) | {"return": returns, "source": source}
        return (copied._replace(key=runner.key), explored), history  # a copy has luck of its own

    def run(key: jax.Array) -> tuple[Any, jax.Array, dict[str, jax.Array]]:
        init_key, rate_key, key = jax.random.split(key, 3)
        rates = low * (high / low) ** jax.random.uniform(rate_key, (members, len(RANGES)))
        runner = jax.vmap(ppo.make_train(config, env, hyper)[0])(jax.random.split(init_key, members))
        (runner, _), history = jax.lax.scan(generation, (runner, rates), jax.random.split(key, generations))
        scores = jax.vmap(lambda policy: evaluate.evaluate(policy, env, key, 32, 500).mean())(runner.policy)
        return runner.policy, scores, history

    return jax.jit(run)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--env", default="CartPole-v1", help="a gymnax environment")
    parser.add_argument("--members", type=command.positive, default=32)
    parser.add_argument("--generations", type=command.positive, default=12)
    parser.add_argument("--seeds", type=command.positive, default=3, help="so many populations")
    parser.add_argument("--target", type=float, default=500.0, help="mean return to ask of each best member")
    parser.add_argument("--out", type=Path, default=Path("build/population"), help="folder for the results")
    options = parser.parse_args()
    env, missed = command.environment(options.env), 0
    options.out.mkdir(parents=True, exist_ok=True)
    spaces = {"observation_space": env.observation_space, "action_space": env.action_space}
    config = pc.ActorCriticConfig(**spaces, temperature=1.0)
    hyper = HYPER._replace(num_updates=8 * options.generations)
    columns = TextColumn("seed {task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, TextColumn("{task.fields[figures]}")) as progress:

        def report(returns: np.ndarray) -> None:
            worst, median, best = np.nanquantile(returns, [0, 0.5, 1])
            figures = f"best {best:5.1f}  median {median:5.1f}  worst {worst:5.1f}"
            progress.update(progress.task_ids[-1], advance=1, figures=figures)

        run = make_run(config, env, hyper, options.members, options.generations, report)
        for seed in range(options.seeds):
            progress.add_task(str(seed), total=options.generations, figures="compiling" if not seed else "")
            population, scores, history = jax.device_get(run(jax.random.key(seed)))
            experiments.lineages(options.out / f"lineages-{seed}.png", history, scores.argmax())
            best = pc.population.member(population, scores.argmax())
            pc.save(options.out / f"best-{seed}.msgpack", best, metadata={"environment": options.env})
    for seed in range(options.seeds):
        script = [sys.executable, evaluate.__file__, str(options.out / f"best-{seed}.msgpack")]
        script += ["--env", options.env, "--target", str(options.target)]
        missed |= subprocess.run(script, check=False).returncode
    return missed


if __name__ == "__main__":
    command.run(main)
