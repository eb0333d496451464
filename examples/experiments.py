"""What `results.py` and `memory.py` share: tasks, how they are trained, and how that is told and drawn.

The seeds of a task are one program.
"""

import argparse
import contextlib
import dataclasses
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import command
import demo
import jax
import jax.numpy as jnp
import numpy as np
import ppo
from evaluate import evaluate
from policy_core_adapters.environment import Environment

import policy_core as pc
from benchmarks.table import markdown

EVALUATION_SEED, EPISODES = 1000, 100


class Task(NamedTuple):
    """What is trained, with what, and what is known of it."""

    title: str
    make: Callable[[], Environment]
    what: str  # is special about it
    hyper: ppo.Hyperparameters
    max_steps: int  # of an episode
    fields: dict[str, Any]  # of the config, where they are not the defaults
    optimum: float | None = None
    reward_scale: float = 1.0  # in training only
    chunk: int = 8  # updates to a point of the curve

    def config(self, env: Environment) -> pc.ActorCriticConfig:
        """The shipped policy with its defaults, but for `fields`."""
        return pc.ActorCriticConfig(
            observation_space=env.observation_space, action_space=env.action_space, **self.fields
        )


class Result(NamedTuple):
    """What came of a task."""

    task: Task
    steps: np.ndarray
    curves: np.ndarray  # [seed, point]
    returns: np.ndarray  # [seed, episode], of the deterministic policies
    random: float
    seconds: float


# TRAINING ----------------------------------------------------------------------------------


def scaled(env: Environment, factor: float) -> Environment:
    """The environment with its rewards multiplied."""

    def step(key: jax.Array, state: Any, action: Any) -> Any:
        result = env.step(key, state, action)
        return result._replace(reward=factor * result.reward)

    return env._replace(step=step)


def random_return(env: Environment, max_steps: int) -> float:
    """The mean return of 1000 first episodes under uniform choices among what is allowed."""

    def episode(key: jax.Array) -> jax.Array:
        def step(carry: Any, key: jax.Array) -> Any:
            state, total, alive = carry
            action_key, key = jax.random.split(key)
            action = env.action_space.sample(key=action_key, mask=env.action_mask(state))
            result = env.step(key, state, action)
            ended = result.terminated | result.truncated
            return (result.state, total + alive * result.reward, alive & ~ended), None

        reset_key, key = jax.random.split(key)
        start = (env.reset(reset_key)[1], jnp.zeros(()), jnp.array(True))
        (_, total, _), _ = jax.lax.scan(step, start, jax.random.split(key, max_steps))
        return jnp.asarray(total)

    return float(jax.jit(jax.vmap(episode))(jax.random.split(jax.random.key(0), 1000)).mean())


def run(task: Task, seeds: int) -> Result:
    """Train all seeds at once, then let the deterministic policies play."""
    env, hyper = task.make(), task.hyper
    demo.console.rule(f"{task.title}, {task.what}")
    start = time.perf_counter()
    policies, steps, curves = demo.train(
        task.config(env),
        scaled(env, task.reward_scale),
        hyper,
        seeds,
        math.gcd(task.chunk, hyper.num_updates),
    )
    seconds = time.perf_counter() - start
    key = jax.random.key(EVALUATION_SEED)
    play = jax.jit(jax.vmap(lambda policy: evaluate(policy, env, key, EPISODES, task.max_steps)))
    returns = np.asarray(play(policies))
    demo.console.print("mean returns", returns.mean(1), f"in {seconds:.0f} s")
    random = random_return(env, task.max_steps)
    return Result(task, steps, curves / task.reward_scale, returns, random, seconds)


def run_all(description: str | None, tasks: dict[str, Task], seeds: int) -> tuple[list[Result], Path]:
    """Those tasks that the command line asks for, and the folder to write into.

    That is `docs/` only for a run of everything as it is.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--task", action="append", choices=tasks, help="may be repeated; all by default")
    parser.add_argument("--updates", type=command.positive, help="instead of those of the task")
    parser.add_argument("--seeds", type=command.positive, default=seeds)
    parser.add_argument("--out", type=Path, help="folder for the results")
    options = parser.parse_args()
    whole = options.task is None and options.updates is None and options.seeds == seeds
    out = options.out or Path("docs" if whole else "build/results")
    out.mkdir(parents=True, exist_ok=True)

    results = []
    for name in options.task or tasks:
        task = tasks[name]
        if options.updates is not None:
            task = task._replace(hyper=task.hyper._replace(num_updates=options.updates))
        results.append(run(task, options.seeds))
    return results, out


# PAGES -------------------------------------------------------------------------------------


def shown(config: Any) -> str:
    """The constructor of a config, with what is not a default."""
    fields = [(f.name, getattr(config, f.name), f.default) for f in dataclasses.fields(config)]
    arguments = [
        f"{name}={shown(value) if dataclasses.is_dataclass(value) else repr(value)}"
        for name, value, default in fields
        if value != default
    ]
    return f"{type(config).__name__}({', '.join(arguments)})"


def changed(hyper: ppo.Hyperparameters) -> str:
    """Those hyper-parameters that are not the defaults."""
    default = ppo.Hyperparameters()._asdict()
    return ", ".join(f"{name}={x:g}" for name, x in hyper._asdict().items() if x != default[name])


def returns_table(results: list[Result], what: str) -> str:
    """A row for each result, and a sentence on its last column; `what` is a title."""
    seeds, rows = len(results[0].returns), []
    for result in results:
        task = result.task
        digits = 2 if abs(result.random) < 20 else 1
        rows.append(
            [
                task.title,
                task.what,
                f"{result.steps[-1]:,}",
                ", ".join(f"{mean:.{digits}f}" for mean in result.returns.mean(1)),
                f"{result.random:.{digits}f}",
                "not known" if task.optimum is None else f"{task.optimum:g}",
                f"{result.seconds:.0f} s",
            ]
        )
    header = ("task", what, "steps a seed", "mean return of each seed", "random", "optimum", "time")
    return f"""\
{markdown(header, rows, "<<><>>>")}

The time is that of all {seeds} seeds together, compilation included, on two shared CPU cores
(JAX {jax.__version__})."""


# PICTURES ----------------------------------------------------------------------------------


@contextlib.contextmanager
def figure(path: Path, count: int, size: tuple[float, float]) -> Iterator[list[Any]]:
    """So many panels, two in a row and each of that size, which are saved in the end."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    columns = min(2, count)
    rows = -(-count // columns)
    canvas, panels = pyplot.subplots(
        rows, columns, figsize=(size[0] * columns, size[1] * rows), layout="constrained", squeeze=False
    )
    for panel in panels.ravel()[count:]:
        panel.set_visible(False)
    yield list(panels.ravel()[:count])
    canvas.supxlabel("environment steps of a seed", fontsize=10)
    canvas.supylabel("return of the training episodes", fontsize=10)
    canvas.savefig(path, dpi=110)


def draw(panel: Any, result: Result, label: str, color: str | None = None) -> None:
    """The curve of each seed, of many colors by default, and their mean."""
    for curve in result.curves:
        panel.plot(result.steps, curve, color=color, lw=1, alpha=0.35 if color else 0.55)
    panel.plot(result.steps, np.nanmean(result.curves, axis=0), color=color or "black", lw=1.8, label=label)


def finish(panel: Any, result: Result, title: str) -> None:
    """What the curves are to be compared with, a title and a legend."""
    panel.axhline(result.random, color="tab:red", lw=1, ls="--", label="random policy")
    if result.task.optimum is not None:
        panel.axhline(result.task.optimum, color="gray", lw=1, ls=":", label="optimum")
    panel.set_title(title, fontsize=10)
    panel.xaxis.set_major_formatter(lambda x, _: f"{x / 1000:.0f}k")
    panel.spines[["top", "right"]].set_visible(False)
    panel.legend(frameon=False, loc="best", fontsize=8)


def lineages(path: Path, history: dict[str, np.ndarray], best: int) -> None:
    """Returns and rates `[generation, member]` of all lineages, in the color of their founder.

    `history["source"]` says whom each member copied after a generation. The lineage of the best is black.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.collections import LineCollection
    from matplotlib.ticker import MaxNLocator

    source, returns = history["source"][:-1], history["return"]
    generations = np.arange(len(returns))
    founders, line = [np.arange(source.shape[1])], [best]
    for parents in source:
        founders.append(founders[-1][parents])
    for parents in source[::-1]:
        line.insert(0, parents[line[0]])
    colors = pyplot.colormaps["turbo"](np.concatenate(founders[1:]) / source.shape[1])
    canvas, panels = pyplot.subplot_mosaic("AABC;AADE", figsize=(12, 5), layout="constrained")
    names = ["return", *(name for name in history if name not in ("return", "source"))]
    for panel, name in zip(panels.values(), names, strict=True):
        x = history[name]
        ends = (generations[:-1], np.take_along_axis(x[:-1], source, 1)), (generations[1:], x[1:])
        lines = [np.stack(np.broadcast_arrays(g[:, None], y), -1).reshape(-1, 2) for g, y in ends]
        panel.add_collection(LineCollection([*np.stack(lines, 1)], colors=colors, lw=0.8, alpha=0.7))
        panel.plot(generations, x[generations, line], color="black", lw=1.8, label="of the best")
        panel.set(title=name.replace("_", " "), yscale="linear" if name == "return" else "log")
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        panel.spines[["top", "right"]].set_visible(False)
    panels["A"].legend(frameon=False)
    canvas.supxlabel("generation", fontsize=10)
    canvas.savefig(path, dpi=110)
