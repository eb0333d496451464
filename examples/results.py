"""The results in `docs/`: what `ppo.py`, unchanged, makes of tasks that differ in what is seen and done.

Five seeds of a task are one program. Writes `results.md` and `results.png`; a run of some tasks,
or with fewer updates or seeds, writes into `build/results` so as not to overwrite them.
"""

import argparse
import dataclasses
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import demo
import environments
import jax
import jax.numpy as jnp
import numpy as np
import ppo
from evaluate import evaluate
from policy_core_adapters import gymnax
from policy_core_adapters.environment import Environment

import policy_core as pc

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


PENDULUM = ppo.Hyperparameters(
    num_steps=128, num_updates=150, num_minibatches=8, discount=0.95, gae_lambda=0.95
)
TOY = ppo.Hyperparameters(learning_rate=3e-3, discount=0.99, entropy_coefficient=0.01)
BREAKOUT = ppo.Hyperparameters(
    num_envs=64, num_steps=64, num_updates=240, num_epochs=4, num_minibatches=8,
    learning_rate=2e-3, discount=0.99, gae_lambda=0.95, entropy_coefficient=0.01,
)  # fmt: skip
TOWER = pc.MLP((64,), activation="relu")


def pendulum(what: str, **fields: Any) -> Task:
    """Pendulum, with a reward of a tenth in training unless the value head takes it as it is."""
    scale = 1.0 if "value_head" in fields else 0.1
    make = lambda: gymnax.make("Pendulum-v1")  # noqa: E731
    return Task("Pendulum-v1", make, what, PENDULUM, 200, fields, reward_scale=scale, chunk=5)


def breakout(what: str, **fields: Any) -> Task:
    """Images of 10 x 10 and four channels, behind a CNN that actor and critic share."""
    make = lambda: gymnax.make("Breakout-MinAtar")  # noqa: E731
    fields = {"encoder": pc.MinAtarCNN(), "actor": TOWER, "critic": TOWER, **fields}
    return Task("Breakout-MinAtar", make, what, BREAKOUT, 1000, fields, chunk=15)


HYBRID = {"box_head": pc.NormalHead(pc.Scale(log_std=-0.5))}
SEES_TOOL = pc.Autoregressive({"force": ("tool",)}, network=pc.MLP((32,)))
TASKS = {
    "pendulum-squashed": pendulum("SquashedNormal actions", box_head=pc.SquashedNormalHead()),
    "pendulum-beta": pendulum("Beta actions", box_head=pc.BetaHead()),
    "pendulum-normalized": pendulum(
        "normalized observations, values in hundreds",
        box_head=pc.SquashedNormalHead(),
        normalize=pc.Normalize(),
        value_head=pc.RegressionHead(scale=100.0),
    ),
    "breakout": breakout("images, MinAtarCNN"),
    "breakout-hl-gauss": breakout("images, HL-Gauss values", value_head=pc.HLGaussHead(low=-5.0, high=20.0)),
    "hybrid": Task(
        "hybrid", environments.hybrid, "Joint of Categorical, masked, and Normal",
        TOY._replace(num_steps=24, num_updates=240, num_minibatches=8),
        environments.JOBS, HYBRID, environments.HYBRID_OPTIMUM,
    ),
    "hybrid-autoregressive": Task(
        "hybrid, a quarter of the steps", environments.hybrid, "AutoregressiveJoint: the force sees the tool",
        TOY._replace(num_steps=24, num_updates=60, num_minibatches=8),
        environments.JOBS, {**HYBRID, "autoregressive": SEES_TOOL}, environments.HYBRID_OPTIMUM, chunk=2,
    ),
    "masked_grid": Task(
        "masked_grid", environments.masked_grid, "MultiCategorical, masked",
        TOY._replace(num_steps=16, num_updates=80, num_epochs=4, gae_lambda=0.95),
        environments.LIMIT, {}, environments.GRID_OPTIMUM, chunk=2,
    ),
    "cartpole": Task(
        "CartPole-v1, as `make demo`", lambda: gymnax.make("CartPole-v1"), "Categorical",
        ppo.Hyperparameters(), 500, {}, optimum=500.0,
    ),
}  # fmt: skip


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
            return (result.state, total + alive * result.reward, alive & ~_ended(result)), None

        reset_key, key = jax.random.split(key)
        start = (env.reset(reset_key)[1], jnp.zeros(()), jnp.array(True))
        (_, total, _), _ = jax.lax.scan(step, start, jax.random.split(key, max_steps))
        return jnp.asarray(total)

    return float(jax.jit(jax.vmap(episode))(jax.random.split(jax.random.key(0), 1000)).mean())


def _ended(result: Any) -> Any:
    return result.terminated | result.truncated


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


def plot(path: Path, results: list[Result]) -> None:
    """A panel of learning curves for each result."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    columns = min(2, len(results))
    rows = -(-len(results) // columns)
    size = (4.6 * columns, 3.1 * rows)
    figure, panels = pyplot.subplots(rows, columns, figsize=size, layout="constrained", squeeze=False)
    for panel in panels.ravel()[len(results) :]:
        panel.set_visible(False)
    for panel, result in zip(panels.ravel(), results, strict=False):
        task = result.task
        for curve in result.curves:
            panel.plot(result.steps, curve, lw=1, alpha=0.55)
        panel.plot(
            result.steps, np.nanmean(result.curves, axis=0), color="black", lw=1.8, label="mean of the seeds"
        )
        panel.axhline(result.random, color="tab:red", lw=1, ls="--", label="random policy")
        if task.optimum is not None:
            panel.axhline(task.optimum, color="gray", lw=1, ls=":", label="optimum")
        panel.set_title(f"{task.title.partition(',')[0]}\n{task.what}", fontsize=10)
        panel.xaxis.set_major_formatter(lambda x, _: f"{x / 1000:.0f}k")
        panel.spines[["top", "right"]].set_visible(False)
        panel.legend(frameon=False, loc="best", fontsize=8)
    figure.supxlabel("environment steps of a seed", fontsize=10)
    figure.supylabel("return of the training episodes", fontsize=10)
    figure.savefig(path, dpi=110)


def shown(config: Any) -> str:
    """The constructor of a config, with what is not a default."""
    changed = [(f.name, getattr(config, f.name), f.default) for f in dataclasses.fields(config)]
    arguments = [
        f"{name}={shown(value) if dataclasses.is_dataclass(value) else repr(value)}"
        for name, value, default in changed
        if value != default
    ]
    return f"{type(config).__name__}({', '.join(arguments)})"


def page(results: list[Result], picture: str) -> str:
    """The results as Markdown."""
    seeds = len(results[0].returns)
    lines = [
        "# Results",
        "",
        "Written by `python examples/results.py`, which trains everything here again.",
        "",
        f"[`examples/ppo.py`](../examples/ppo.py), unchanged, on each task with {seeds} seeds, one program",
        "a task. The policy is `ActorCriticConfig` with its defaults, but for what the last table says.",
        f"A return is the mean of the deterministic policy (`act` without a key) over {EPISODES} episodes;",
        '"random" is a uniform choice among the allowed actions. The toy environments, with proofs of their',
        "optima, are in [`examples/environments.py`](../examples/environments.py). Tasks that need a memory",
        "are on [its page](memory.md#results).",
        "",
        "## Returns",
        "",
        "| task | | steps a seed | mean return of each seed | random | optimum | time |",
        "|---|---|--:|---|--:|--:|--:|",
    ]
    for result in results:
        task = result.task
        digits = 2 if abs(result.random) < 20 else 1
        means = ", ".join(f"{mean:.{digits}f}" for mean in result.returns.mean(1))
        optimum = "not known" if task.optimum is None else f"{task.optimum:g}"
        lines.append(
            f"| {task.title} | {task.what} | {result.steps[-1]:,} | {means} | {result.random:.{digits}f} | "
            f"{optimum} | {result.seconds:.0f} s |"
        )
    lines += [
        "",
        f"The time is that of all {seeds} seeds together, compilation included, on two shared CPU cores",
        f"(JAX {jax.__version__}). A mean above -200 is commonly taken to solve Pendulum. Breakout",
        "begins in one of two ways and then holds no chance, so a mean there is that of two episodes, one of",
        "which may come to nothing; its curves, of sampled actions, say more.",
        "",
        f"![Learning curves of each seed, with the mean and a random policy]({picture})",
        "",
        "## Hyper-parameters",
        "",
        "What is not named is as in `ppo.Hyperparameters`. Rewards are scaled in training only; the returns",
        "on this page are not.",
        "",
        "| task | of the config | hyper-parameters | reward scale |",
        "|---|---|---|--:|",
    ]
    for result in results:
        task = result.task
        default = ppo.Hyperparameters()._asdict()
        changed = [f"{n}={v:g}" for n, v in task.hyper._asdict().items() if v != default[n]]
        fields = (
            ", ".join(f"`{name}={shown(value)}`" for name, value in task.fields.items()) or "the defaults"
        )
        names = f"`{', '.join(changed)}`" if changed else "the defaults"
        lines.append(f"| {task.title.partition(',')[0]} | {fields} | {names} | {task.reward_scale:g} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--task", action="append", choices=TASKS, help="may be repeated; all by default")
    parser.add_argument("--updates", type=int, help="instead of those of the task")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, help="folder for the results")
    options = parser.parse_args()
    whole = options.task is None and options.updates is None and options.seeds == 5
    out = options.out or Path("docs" if whole else "build/results")
    out.mkdir(parents=True, exist_ok=True)

    results = []
    for name in options.task or TASKS:
        task = TASKS[name]
        if options.updates is not None:
            task = task._replace(hyper=task.hyper._replace(num_updates=options.updates))
        results.append(run(task, options.seeds))
    drawn = [result for result in results if result.task != TASKS["cartpole"]]  # `make demo` draws it
    plot(out / "results.png", drawn or results)
    (out / "results.md").write_text(page(results, "results.png"))
    demo.console.print(f"wrote {out / 'results.md'} and {out / 'results.png'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
