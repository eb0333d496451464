"""CartPole in the trainers of others, with their own network and with ours in its place.

    python -m benchmarks.hosts --host rejax
    python -m benchmarks.hosts --host PureJaxRL --purejaxrl FOLDER
    python -m benchmarks.hosts --host Lerax    # with a Python that has Lerax
    python -m benchmarks.hosts --page

The first ones train what is missing, add a line for each seed to `build/hosts.jsonl`, and need the packages
that `benchmarks.tasks` needs; the last one writes the section of `docs/trainers.md`. "alike" is a network of
ours of the same shape, whose first params are of the same laws; a return is that of the training episodes in
the last tenth of training.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from policy_core_adapters import gymnax
from policy_core_adapters.hosts import lerax as in_lerax
from policy_core_adapters.hosts import purejaxrl as in_purejaxrl
from policy_core_adapters.hosts import rejax as in_rejax

import policy_core as pc
from benchmarks.defaults.runs import Mean
from benchmarks.defaults.settings import LERAX_OWN, NETWORKS, ORTHOGONAL, REJAX_OWN, as_equinox
from benchmarks.table import markdown, section
from benchmarks.tasks.__main__ import lines as lines_of
from benchmarks.tasks.record import Seed, versions
from benchmarks.tasks.settings import (
    CARTPOLE_REJAX,
    LERAX,
    PUREJAXRL,
    REJAX,
    SCRIPT_PUREJAXRL,
    TASKS,
    Setting,
)

ROOT = Path(__file__).parent.parent
RUNS, PAGE, TITLE = ROOT / "build/hosts.jsonl", ROOT / "docs/trainers.md", "What is learned in them"
KINDS = OWN, ALIKE, DEFAULTS = "its own", "ours, alike", "ours, the defaults"
NAMED = ("python", "jax", "gymnax", "flax", "equinox")  # of the versions, on the page
SEEDS = 100
TASK = TASKS["CartPole-v1"]
# With the batches and the rate of PureJaxRL: with those that it has by default, every network reaches 500.
SHORT = {
    "num_envs": 4, "num_steps": 128, "num_batches": 4, "num_epochs": 4, "learning_rate": 2.5e-4,
}  # fmt: skip
SHAPES = {
    PUREJAXRL: (
        ORTHOGONAL,
        "two tanh towers of 64, orthogonal times sqrt(2), the last of the actor times 0.01",
    ),
    REJAX: (REJAX_OWN, "two tanh towers of 64, `lecun_normal`, gains of 1"),
    LERAX: (LERAX_OWN, "a relu encoder 64-64-16, relu towers of 64, uniform up to 1 / sqrt(inputs)"),
}
RULES = {
    PUREJAXRL: "`ppo.py` of 31756b1, as it stands there",
    REJAX: "PPO of 0.1.3 with its `cartpole.yaml`",
    LERAX: "PPO of 67006e1 with 4 x 128 steps, 4 epochs of 4 minibatches, a rate of 2.5e-4",
}


def config_of(host: str, kind: str, spaces: dict[str, Any]) -> pc.ActorCriticConfig:
    """The config of a network of ours."""
    fields = NETWORKS[SHAPES[host][0]] if kind == ALIKE else {}
    return pc.ActorCriticConfig(**spaces, **fields)


def train(host: str, kind: str, seeds: list[int], folder: Path | None) -> Iterator[Seed]:
    """A host's PPO with one of the networks."""
    if host == LERAX:
        from benchmarks.tasks import lerax_peer

        def fresh(env: Any, key: jax.Array) -> Any:
            spaces = {
                name: in_lerax.space_of(getattr(env, name)) for name in ("observation_space", "action_space")
            }
            params, config = pc.init(config_of(host, kind, spaces), key=key)
            params = as_equinox(params, key) if kind == ALIKE else params
            return in_lerax.ActorCriticPolicy((params, config))

        more = {} if kind == OWN else {"fresh": fresh}
        yield from lerax_peer.train(TASK, Setting(SHORT, ""), seeds, **more)
        return

    from benchmarks.tasks import environments, flax_peers

    env, params = environments.make(TASK.name)
    spaces = {
        name: gymnax.space_of(getattr(env, name)(params)) for name in ("observation_space", "action_space")
    }
    config = config_of(host, kind, spaces)
    if host == REJAX:
        agent = None if kind == OWN else in_rejax.agent(config)
        yield from flax_peers.rejax(TASK, Setting(CARTPOLE_REJAX, ""), seeds, agent)
    else:
        if folder is None:
            raise SystemExit("--purejaxrl: got nothing, expected a checkout of PureJaxRL")
        network = None if kind == OWN else in_purejaxrl.ActorCritic(config)
        yield from flax_peers.purejaxrl(TASK, Setting(SCRIPT_PUREJAXRL, ""), seeds, folder, network)


# THE SECTION ------------------------------------------------------------------------------------


def page(lines: list[dict[str, Any]]) -> str:
    """The section, from the lines of the file.

    Raises:
        ValueError: if there are none.
    """
    if not lines:
        raise ValueError("lines: got no seed, expected some; run `python -m benchmarks.hosts --host` first")

    def of(host: str, kind: str, name: str) -> np.ndarray:
        found = [line[name] for line in lines if (line["host"], line["network"]) == (host, kind)]
        return np.array(found, float)

    def cell(x: np.ndarray) -> str:
        if len(x) < 2:
            return ""
        mean = Mean.of(x)
        return f"{mean.value:.1f} ({mean.error:.1f}; {mean.count})"

    def off(x: np.ndarray, y: np.ndarray) -> str:
        if min(len(x), len(y)) < 2:
            return ""
        more = Mean.of(x).minus(Mean.of(y))
        return f"{more.value:+.1f} ({more.error:.1f})"

    rows = []
    for host, (_, shape) in SHAPES.items():
        own, alike, ours = (of(host, kind, "final") for kind in KINDS)
        times = [of(host, kind, "seconds") for kind in KINDS]
        seconds = ", ".join(f"{np.median(x):.2f}" if len(x) else "-" for x in times)
        compared = [cell(alike), off(alike, own), cell(ours), off(ours, own)]
        rows.append([RULES[host], shape, cell(own), *compared, seconds])
    networks = ("with it", "with ours, alike", "more", "with our defaults", "more")
    header = ("trainer", "its own network", *networks, "seconds")
    machines = []
    for host in SHAPES:
        found = {
            ", ".join(f"{name} {line['versions'][name]}" for name in NAMED if name in line["versions"])
            for line in lines
            if line["host"] == host
        }
        machines += [f"- {host}: {text}" for text in sorted(found)]
    return f"""
## {TITLE}

Written by `python -m benchmarks.hosts --page`, from what `python -m benchmarks.hosts --host` trained.

CartPole-v1 for {TASK.steps:,} steps: the mean return of the training episodes, whose actions are sampled, in
the last tenth of training (its standard error; the number of seeds). A network of ours that is "alike" has
the same shape, and first params of the same laws. "more" is the return with ours less that with its own, with
the standard error of the difference. The seconds are those of a processor for a seed, after compilation, with
the three networks.

{markdown(header, rows, "<<>>>>>>")}

Our defaults, two tanh towers of 64 with `lecun_orthogonal` kernels times sqrt(2) and `actor_gain=0.01`, were
chosen over [more tasks](results.md#the-defaults). With:

{chr(10).join(machines)}
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--host", choices=SHAPES)
    parser.add_argument("--network", choices=KINDS, action="append", help="may be repeated")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--purejaxrl", type=Path, help="a checkout of PureJaxRL")
    parser.add_argument("--runs", type=Path, default=RUNS, help="where seeds are added, and read from")
    parser.add_argument("--page", action="store_true", help="train nothing, write the section")
    options = parser.parse_args()
    lines = lines_of(options.runs)
    if options.page:
        text = PAGE.read_text()
        PAGE.write_text(text.replace(section(text, TITLE), "").rstrip("\n") + "\n" + page(lines))
        return
    if options.host is None:
        parser.error("--host: got nothing, expected a trainer, or --page")
    options.runs.parent.mkdir(parents=True, exist_ok=True)
    for kind in options.network or KINDS:
        there = {line["seed"] for line in lines if (line["host"], line["network"]) == (options.host, kind)}
        missing = [seed for seed in range(options.seeds) if seed not in there]
        if not missing:
            continue
        for seed in train(options.host, kind, missing, options.purejaxrl):
            record = {"host": options.host, "network": kind, **seed.record(kind, TASK.name)}
            with options.runs.open("a") as file:
                print(json.dumps({**record, "versions": versions()}), file=file)
            print(f"{options.host}, {kind}, seed {seed.seed}: {record['final']}", flush=True)


if __name__ == "__main__":
    main()
