"""Two tasks that need a memory, with one and without, written to the results of `docs/memory.md`.

`ppo.py` is unchanged, and so are its hyper-parameters between the two policies of a task: only
the field `memory` of the config differs. Three seeds are one program. A run of some tasks, or with
fewer updates or seeds, writes into `build/results`.
"""

import command

# isort: split
from pathlib import Path

import demo
import environments
import ppo
from experiments import EPISODES, Result, Task, changed, draw, figure, finish, returns_table, run_all, shown
from policy_core_adapters import gymnax
from policy_core_adapters.environment import Environment

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
    return "none" if memory is None else shown(memory).replace("size=", "")


TASKS = {
    name if memory else f"{name}-without": Task(
        title, make, f"`{name_of(memory)}`", hyper, max_steps, {"memory": memory}, optimum, chunk=chunk
    )
    for name, title, make, hyper, max_steps, optimum, chunk, some in (
        ("chain", f"MemoryChain-bsuite of length {CHAIN_LENGTH}", memory_chain,
         CHAIN, CHAIN_LENGTH + 1, 1.0, 2, pc.MinGRU(64)),
        ("cartpole", "CartPole-v1 without velocities", cartpole, CARTPOLE, 500, 500.0, 4, pc.GRU(64)),
    )
    for memory in (some, None)
}  # fmt: skip


def plot(path: Path, results: list[Result]) -> None:
    """A panel for each task, with the curves of both policies."""
    titles = dict.fromkeys(result.task.title for result in results)
    with figure(path, len(titles), (4.8, 3.6)) as panels:
        for panel, title in zip(panels, titles, strict=True):
            policies = [result for result in results if result.task.title == title]
            for result in policies:
                memory = result.task.fields["memory"]
                label, color = (name_of(memory), "tab:blue") if memory else ("no memory", "tab:gray")
                draw(panel, result, label, color)
            finish(panel, policies[0], title)


def section(results: list[Result], picture: str) -> str:
    """The results as Markdown, between the two marks."""
    seeds, tasks = len(results[0].returns), {result.task.title: result.task for result in results}
    hyperparameters = "\n".join(f"- {title}: `{changed(task.hyper)}`" for title, task in tasks.items())
    return f"""\
{BEGIN}

Written by `python examples/memory.py`, which trains everything here again.

[`examples/ppo.py`](../examples/ppo.py), unchanged, with {seeds} seeds, one program a row. The two
policies of a task differ in the field `memory` of their config, which has its defaults otherwise. A return is
the mean of the deterministic policy over {EPISODES} episodes.

{returns_table(results, "memory")}

![Learning curves of each seed and their means, with and without memory]({picture})

In the chain a bit is seen in the first two observations of an episode and asked for at the last,
29 steps later; nothing in between tells it, so a policy without memory cannot do better than 0 on
average. CartPole is seen without its velocities:
[`hidden_velocity`](../examples/environments.py) leaves the position of the cart and the angle.

Hyper-parameters, where they are not those of `ppo.Hyperparameters`:

{hyperparameters}

{END}
"""


def main() -> int:
    results, out = run_all(__doc__, TASKS, seeds=3)
    plot(out / "memory.png", results)
    page, found = out / "memory.md", section(results, "memory.png")
    if page.exists():  # what stands around the results is kept
        before, _, rest = page.read_text().partition(BEGIN)
        found = before + found + rest.partition(END)[2].lstrip("\n")
    page.write_text(found)
    demo.console.print(f"wrote {out / 'memory.md'} and {out / 'memory.png'}")
    return 0


if __name__ == "__main__":
    command.run(main)
