"""The results in `docs/`: what `ppo.py`, unchanged, makes of tasks that differ in what is seen and done.

Five seeds of a task are one program. Writes `results.md` and `results.png`; a run of some tasks,
or with fewer updates or seeds, writes into `build/results` so as not to overwrite them.
"""

import command

# isort: split
from pathlib import Path
from typing import Any

import demo
import environments
import ppo
from experiments import (
    EPISODES,
    Result,
    Task,
    changed,
    draw,
    figure,
    finish,
    returns_table,
    run_all,
    shown,
)
from policy_core_adapters import gymnax

import policy_core as pc
from benchmarks.table import markdown, section

PENDULUM = ppo.Hyperparameters(
    num_steps=128, num_updates=150, num_minibatches=8, discount=0.95, gae_lambda=0.95
)
TOY = ppo.Hyperparameters(learning_rate=3e-3, discount=0.99, entropy_coefficient=0.01)
BREAKOUT = ppo.Hyperparameters(
    num_envs=64, num_steps=64, num_updates=240, num_epochs=4, num_minibatches=8,
    learning_rate=2e-3, discount=0.99, gae_lambda=0.95, entropy_coefficient=0.01,
)  # fmt: skip
FLAT = BREAKOUT._replace(
    num_envs=128, num_steps=128, num_updates=192, learning_rate=5e-3, entropy_coefficient=0.1
)
RELU: dict[str, Any] = dict.fromkeys(("actor", "critic"), pc.MLP(activation="relu"))
CNN: dict[str, Any] = {
    "encoder": pc.MinAtarCNN(),
    **dict.fromkeys(("actor", "critic"), pc.MLP((64,), activation="relu")),
}


def pendulum(what: str, **fields: Any) -> Task:
    """Pendulum, with a reward of a tenth in training unless the value head takes it as it is."""
    scale = 1.0 if "value_head" in fields else 0.1
    make = lambda: gymnax.make("Pendulum-v1")  # noqa: E731
    return Task("Pendulum-v1", make, what, PENDULUM, 200, fields, reward_scale=scale, chunk=5)


def breakout(what: str, hyper: ppo.Hyperparameters = BREAKOUT, **fields: Any) -> Task:
    """Images of 10 x 10 and four channels."""
    make = lambda: gymnax.make("Breakout-MinAtar")  # noqa: E731
    return Task("Breakout-MinAtar", make, what, hyper, 1000, fields, chunk=15)


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
    "breakout": breakout("images, MinAtarCNN", **CNN),
    "breakout-hl-gauss": breakout(
        "images, MinAtarCNN, HL-Gauss values", **CNN, value_head=pc.HLGaussHead(low=-5.0, high=20.0)
    ),
    "breakout-mlp": breakout("images, flattened", FLAT, **RELU)._replace(chunk=8),
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


def plot(path: Path, results: list[Result]) -> None:
    """A panel of learning curves for each result."""
    with figure(path, len(results), (4.6, 3.1)) as panels:
        for panel, result in zip(panels, results, strict=True):
            draw(panel, result, "mean of the seeds")
            finish(panel, result, f"{result.task.title.partition(',')[0]}\n{result.task.what}")


def hyperparameters_table(results: list[Result]) -> str:
    rows = []
    for task in (result.task for result in results):
        fields = [f"`{name}={shown(value)}`" for name, value in task.fields.items()] or ["the defaults"]
        names = f"`{changed(task.hyper)}`" if changed(task.hyper) else "the defaults"
        rows.append([task.title.partition(",")[0], ", ".join(fields), names, f"{task.reward_scale:g}"])
    return markdown(("task", "of the config", "hyper-parameters", "reward scale"), rows, "<<<>")


def page(results: list[Result], picture: str) -> str:
    """The results as Markdown."""
    seeds = len(results[0].returns)
    return f"""\
# Results

Written by `python examples/results.py`, which trains everything here again.

[`examples/ppo.py`](../examples/ppo.py), unchanged, on each task with {seeds} seeds, one program
a task. The policy is `ActorCriticConfig` with its defaults, but for what the last table says.
A return is the mean of the deterministic policy (`act` without a key) over {EPISODES} episodes;
"random" is a uniform choice among the allowed actions. The toy environments, with proofs of their
optima, are in [`examples/environments.py`](../examples/environments.py). Tasks that need a memory
are on [its page](memory.md#results).

## Returns

{returns_table(results, "")} A mean above -200 is commonly taken to solve Pendulum. Breakout
begins in one of two ways and then holds no chance, so a mean there is that of two episodes, one of
which may come to nothing; its curves, of sampled actions, say more.

![Learning curves of each seed, with the mean and a random policy]({picture})

## Hyper-parameters

What is not named is as in `ppo.Hyperparameters`. Rewards are scaled in training only; the returns
on this page are not.

{hyperparameters_table(results)}
"""


def main() -> int:
    results, out = run_all(__doc__, TASKS, seeds=5)
    drawn = [result for result in results if result.task != TASKS["cartpole"]]  # `make demo` draws it
    plot(out / "results.png", drawn or results)
    path = out / "results.md"
    before = path.read_text() if path.exists() else ""
    others = "Against other trainers", "The defaults"  # of benchmarks/
    kept = "".join(section(before, title) for title in others)
    path.write_text(page(results, "results.png") + kept)
    demo.console.print(f"wrote {out / 'results.md'} and {out / 'results.png'}")
    return 0


if __name__ == "__main__":
    command.run(main)
