"""The main job: train CartPole policies, save them, and use the file in a fresh process.

Five seeds are one population: one program, one compilation, one file. Run by `make demo`.
"""

import command

# isort: split
import argparse
import math
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import ppo
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

import policy_core as pc

HERE = Path(__file__).parent
console = Console()


def train(
    config: pc.ActorCriticConfig, env: Any, hyper: ppo.Hyperparameters, seeds: int, updates_a_chunk: int
) -> tuple[Any, np.ndarray, np.ndarray]:
    """A population of trained policies, environment steps, and returns `[seed, chunk]`."""
    init, update = ppo.make_train(config, env, hyper)
    steps = hyper.num_envs * hyper.num_steps * updates_a_chunk
    chunks = hyper.num_updates // updates_a_chunk

    @jax.jit
    def train_chunk(runner: ppo.Runner) -> tuple[ppo.Runner, jax.Array]:
        runner, returned = jax.lax.scan(lambda r, _: update(r), runner, None, updates_a_chunk)
        ended = ~jnp.isnan(returned)
        return runner, jnp.sum(jnp.where(ended, returned, 0.0)) / jnp.sum(ended)

    population = jax.jit(jax.vmap(train_chunk))
    start = time.perf_counter()
    with console.status("compiling"):
        runner = jax.jit(jax.vmap(init))(jax.vmap(jax.random.key)(jnp.arange(seeds)))
        compiled = population.lower(runner).compile()
    seconds = time.perf_counter() - start
    console.print(f"{seeds} policies, {steps * chunks:,} steps each, compiled in {seconds:.1f} s")
    curves = []
    columns = (
        TextColumn("training"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(compact=True),
        TextColumn("{task.fields[figures]}"),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("", total=chunks, figures="")
        start = time.perf_counter()
        for i in range(chunks):
            runner, returns = compiled(runner)
            curves.append(np.asarray(returns))
            rate = seeds * steps * (i + 1) / (time.perf_counter() - start)
            latest = np.nanmean(curves[-1])
            figures = f"return {latest:5.1f}  {rate:9,.0f} steps/s"
            progress.update(task, advance=1, figures=figures)
    return runner.policy, steps * np.arange(1, chunks + 1), np.stack(curves, axis=1)


def plot(path: Path, steps: np.ndarray, returns: np.ndarray, target: float | None) -> None:
    """The learning curves as a picture, over the logarithm of the steps: most is learned early."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 3.6), layout="constrained")
    for seed, curve in enumerate(returns):
        axes.plot(steps, curve, color="tab:blue", lw=1, alpha=0.5, label=None if seed else "each seed")
    axes.plot(steps, np.nanmean(returns, axis=0), color="black", lw=2, label="mean")
    if target is not None:
        axes.axhline(target, color="tab:red", lw=1, ls="--", label=f"target: {target:g}")
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.set(
        xlabel="environment steps of each seed",
        ylabel="return of ended episodes",
        title=f"PPO, {len(returns)} seeds in one jitted program",
        xlim=(steps[0], steps[-1]),
        ylim=(0, None) if np.nanmin(returns) >= 0 else None,
    )
    axes.legend(frameon=False, loc="lower right")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=130)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--env", default="CartPole-v1", help="PACKAGE:NAME, of gymnax without PACKAGE:")
    parser.add_argument("--seeds", type=command.positive, default=5, help="how many policies to train")
    parser.add_argument("--updates", type=command.positive, default=ppo.Hyperparameters().num_updates)
    parser.add_argument("--episodes", type=command.positive, default=100, help="of the evaluation, a policy")
    parser.add_argument("--target", type=float, help="mean return to ask of each seed; of CartPole 475")
    parser.add_argument("--out", type=Path, default=Path("build/demo"), help="folder for the results")
    options = parser.parse_args()
    if options.target is None and options.env.endswith("CartPole-v1"):
        options.target = 475.0
    env = command.environment(options.env)
    options.out.mkdir(parents=True, exist_ok=True)
    config = pc.ActorCriticConfig(observation_space=env.observation_space, action_space=env.action_space)
    hyper = ppo.Hyperparameters(num_updates=options.updates)
    policies, steps, returns = train(config, env, hyper, options.seeds, math.gcd(8, options.updates))

    picture, file = options.out / "learning_curve.png", options.out / "policies.msgpack"
    plot(picture, steps, returns, options.target)
    pc.save(file, policies, metadata={"environment": options.env})
    console.print(f"learning curves: {picture}")
    console.print(f"saved {file}, {file.stat().st_size:,} bytes; loading it in a fresh process")
    script = [sys.executable, str(HERE / "evaluate.py"), str(file), "--env", options.env]
    script += ["--episodes", str(options.episodes)]
    script += [] if options.target is None else ["--target", str(options.target)]
    return subprocess.run(script, check=False).returncode


if __name__ == "__main__":
    command.run(main)
