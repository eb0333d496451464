"""Two tasks that need a memory, with one and without, written to the results of `docs/memory.md`.

`ppo.py` is unchanged, and so are its hyper-parameters between the two policies of a task: only
the field `memory` of the config differs. Three seeds are one program.
"""

import argparse
import sys
from pathlib import Path

import demo
import environments
import jax
import numpy as np
import ppo
from policy_core_adapters import gymnax
from policy_core_adapters.environment import Environment
from results import EPISODES, Result, Task, run, shown

import policy_core as pc

CHAIN_LENGTH = 30
BEGIN, END = "<!-- results: written by examples/memory.py -->", "<!-- end of results -->"


def memory_chain() -> Environment:
    """A bit is seen in the first two of 31 observations and asked for at the last: worth 1, or -1."""
    import gymnax as peer

    env, params = peer.make("MemoryChain-bsuite")
    return gymnax.from_gymnax(env, params.replace(memory_length=CHAIN_LENGTH))


def cartpole() -> Environment:
    """CartPole without velocities."""
    return environments.hidden_velocity(gymnax.make("CartPole-v1"))


# An episode of the chain has 31 steps, so a sequence of 62 has a whole one in it.
CHAIN = ppo.Hyperparameters(num_steps=62, sequence_length=62, num_updates=100, num_epochs=4)
CARTPOLE = ppo.Hyperparameters(num_steps=64, sequence_length=64, num_epochs=6)


def name_of(memory: pc.contract.Memory | None) -> str:
    """As it is written."""
    if memory is None:
        return "none"
    return shown(memory).replace("size=", "")


TASKS = [
    Task(title, make, name_of(memory), hyper, max_steps, {"memory": memory}, optimum, chunk=chunk)
    for title, make, hyper, max_steps, optimum, chunk, memories in (
        (f"MemoryChain-bsuite of length {CHAIN_LENGTH}", memory_chain, CHAIN, CHAIN_LENGTH + 1, 1.0, 2,
         (pc.MinGRU(64), None)),
        ("CartPole-v1 without velocities", cartpole, CARTPOLE, 500, 500.0, 4, (pc.GRU(64), None)),
    )
    for memory in memories
]  # fmt: skip


def plot(path: Path, results: list[Result]) -> None:
    """A panel for each task, with the curves of both policies."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    titles = list(dict.fromkeys(result.task.title for result in results))
    size = (4.8 * len(titles), 3.6)
    figure, panels = pyplot.subplots(1, len(titles), figsize=size, layout="constrained", squeeze=False)
    for panel, title in zip(panels[0], titles, strict=True):
        both = [result for result in results if result.task.title == title]
        for result in both:
            none = result.task.fields["memory"] is None
            color = "tab:gray" if none else "tab:blue"
            for curve in result.curves:
                panel.plot(result.steps, curve, color=color, lw=1, alpha=0.35)
            label = "no memory" if none else result.task.what
            panel.plot(result.steps, np.nanmean(result.curves, axis=0), color=color, lw=2, label=label)
        optimum = both[0].task.optimum
        assert optimum is not None
        panel.axhline(optimum, color="black", lw=1, ls=":", label="optimum")
        panel.axhline(both[0].random, color="tab:red", lw=1, ls="--", label="random policy")
        panel.set_title(title, fontsize=10)
        panel.xaxis.set_major_formatter(lambda x, _: f"{x / 1000:.0f}k")
        panel.spines[["top", "right"]].set_visible(False)
        height = 0.4 if optimum == 1 else 0.2  # where no curve is
        panel.legend(frameon=False, loc="lower right", bbox_to_anchor=(1, height), fontsize=8)
    figure.supxlabel("environment steps of a seed", fontsize=10)
    figure.supylabel("return of the training episodes", fontsize=10)
    figure.savefig(path, dpi=110)


def section(results: list[Result], picture: str) -> str:
    """The results as Markdown, between the two marks."""
    seeds = len(results[0].returns)
    lines = [
        BEGIN,
        "",
        "Written by `python examples/memory.py`, which trains everything here again.",
        "",
        f"[`examples/ppo.py`](../examples/ppo.py), unchanged, with {seeds} seeds, one program a row. The two",
        "policies of a task differ in the field `memory` of their config and in nothing else; towers",
        f"are the defaults. A return is the mean of the deterministic policy over {EPISODES} episodes.",
        "",
        "| task | memory | steps a seed | mean return of each seed | random | optimum | time |",
        "|---|---|--:|---|--:|--:|--:|",
    ]
    for result in results:
        task = result.task
        digits = 2 if task.optimum == 1 else 1
        means = ", ".join(f"{mean:.{digits}f}" for mean in result.returns.mean(1))
        lines.append(
            f"| {task.title} | `{task.what}` | {result.steps[-1]:,} | {means} | "
            f"{result.random:.{digits}f} | {task.optimum:g} | {result.seconds:.0f} s |"
        )
    lines += [
        "",
        f"The time is that of all {seeds} seeds together, compilation included, on two shared CPU cores",
        f"(JAX {jax.__version__}).",
        "",
        f"![Learning curves of each seed and their means, with and without memory]({picture})",
        "",
        "In the chain a bit is seen in the first two observations of an episode and asked for at the last,",
        "29 steps later; nothing in between tells it, so a policy without memory cannot do better than 0 on",
        "average. CartPole is seen without its velocities:",
        "[`hidden_velocity`](../examples/environments.py) leaves the position of the cart and the angle.",
        "",
        "Hyper-parameters, where they are not those of `ppo.Hyperparameters`:",
        "",
    ]
    default = ppo.Hyperparameters()._asdict()
    for task in {result.task.title: result.task for result in results}.values():
        changed = ", ".join(f"{n}={v:g}" for n, v in task.hyper._asdict().items() if v != default[n])
        lines.append(f"- {task.title}: `{changed}`")
    return "\n".join([*lines, "", END]) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--updates", type=int, help="instead of those of the tasks")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, help="folder for the results")
    options = parser.parse_args()
    whole = options.updates is None and options.seeds == 3
    out = options.out or Path("docs" if whole else "build/results")
    out.mkdir(parents=True, exist_ok=True)

    results = []
    for task in TASKS:
        if options.updates is not None:
            task = task._replace(hyper=task.hyper._replace(num_updates=options.updates))
        results.append(run(task, options.seeds))
    plot(out / "memory.png", results)
    page, found = out / "memory.md", section(results, "memory.png")
    if page.exists():  # what stands around the results is kept
        before, _, rest = page.read_text().partition(BEGIN)
        found = before + found + rest.partition(END)[2].lstrip("\n")
    page.write_text(found)
    demo.console.print(f"wrote {out / 'memory.md'} and {out / 'memory.png'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
