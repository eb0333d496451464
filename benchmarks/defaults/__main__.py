"""Trains what is missing, and writes the section of docs/results.md; see the package."""

import argparse
import json
import math
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.defaults.settings import (
    DEFAULTS,
    FIRST_GAIN,
    GAINS,
    HEAD_GAIN,
    HEADS,
    LERAX_OWN,
    MOUNTAIN,
    NETWORKS,
    ORTHOGONAL,
    REJAX_OWN,
    RELU,
    SETTINGS,
    WIDER,
    Setting,
)
from benchmarks.defaults.train import ended_by_chance, run
from benchmarks.table import markdown, section

sys.path.append(str(Path(__file__).parent.parent.parent / "examples"))
from experiments import figure

ROOT = Path(__file__).parent.parent.parent
RUNS, PAGE, PICTURE = ROOT / "build/defaults.jsonl", ROOT / "docs/results.md", ROOT / "docs/defaults.png"
TITLE = "The defaults"
SURE = 2.6  # standard errors; beyond them is one difference in a hundred of nothing but chance
CAR = "ours, mountain car"
EVERYTHING: dict[str, tuple[Setting, dict[str, dict[str, Any]]]] = {
    **{name: (setting, NETWORKS) for name, setting in SETTINGS.items()},
    CAR: (MOUNTAIN, HEADS),
}
# What is trained for the page: setting, networks, seeds. Fewer where a seed takes longer.
PLAN: list[tuple[str, list[str], range]] = [
    ("PureJaxRL, CartPole", [ORTHOGONAL, DEFAULTS, REJAX_OWN, RELU, WIDER], range(25)),
    (
        "rejax, CartPole",
        [ORTHOGONAL, DEFAULTS, REJAX_OWN, FIRST_GAIN, HEAD_GAIN, GAINS, RELU],
        range(25),
    ),
    ("rejax, CartPole", [ORTHOGONAL, REJAX_OWN], range(25, 65)),
    ("Lerax, CartPole", [ORTHOGONAL, DEFAULTS, REJAX_OWN, RELU], range(25)),
    ("Lerax, CartPole", [LERAX_OWN], range(16)),
    ("PureJaxRL, Catch", [ORTHOGONAL, DEFAULTS], range(16)),
    ("rejax, Acrobot", [ORTHOGONAL, DEFAULTS], range(12)),
    ("ours, Pendulum", [ORTHOGONAL, DEFAULTS, REJAX_OWN], range(10)),
    (CAR, list(HEADS), range(5)),
]  # fmt: skip


class Cell(NamedTuple):
    """All seeds of a network in a setting."""

    curves: np.ndarray  # [seed, point]
    seconds: float  # of the processors, a seed

    @property
    def ends(self) -> np.ndarray:
        """The return of each seed in the last tenth of training."""
        return np.asarray(np.nanmean(self.curves[:, -max(1, self.curves.shape[1] // 10) :], axis=1))

    @property
    def mean(self) -> float:
        return float(self.ends.mean())

    @property
    def error(self) -> float:
        """The standard error of the mean."""
        return float(self.ends.std(ddof=1) / math.sqrt(len(self.ends)))

    def fell(self) -> float:
        """The part of the seeds that end more than a fifth below their best point; of positive returns."""
        return float((self.ends < 0.8 * np.nanmax(self.curves, axis=1)).mean())

    def above(self, other: "Cell") -> float:
        """The difference of the means, in units of its standard error."""
        return (self.mean - other.mean) / max(math.hypot(self.error, other.error), 1e-9)


Cells = dict[tuple[str, str], Cell]


def read(path: Path) -> Cells:
    """The batches of the file together, in the order of `EVERYTHING`."""
    batches: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for batch in map(json.loads, path.read_text().splitlines()):
        batches.setdefault((batch["setting"], batch["network"]), []).append(batch)
    return {
        key: Cell(
            np.concatenate([np.array(batch["curves"]) for batch in batches[key]]),
            sum(batch["seconds"] * batch["seeds"] for batch in batches[key])
            / sum(batch["seeds"] for batch in batches[key]),
        )
        for name, (_, networks) in EVERYTHING.items()
        for key in ((name, network) for network in networks)
        if key in batches
    }


def train(path: Path, setting: str, network: str, seeds: range) -> None:
    """Add a batch of seeds to the file, unless it is there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    key = (setting, network, seeds.start)
    batches = map(json.loads, path.read_text().splitlines())
    if key in {(batch["setting"], batch["network"], batch["first"]) for batch in batches}:
        return
    what, networks = EVERYTHING[setting]
    batch: dict[str, Any] = {
        "setting": setting,
        "network": network,
        "first": seeds.start,
        "seeds": len(seeds),
    }
    batch |= run(what, network, networks[network], seeds)
    with path.open("a") as file:
        print(json.dumps(batch), file=file)
    ends = Cell(np.array(batch["curves"]), batch["seconds"])
    print(f"{setting}: {network}: {ends.mean:.1f} ({ends.error:.1f}), {ends.seconds:.2f} s", flush=True)


# THE PAGE ------------------------------------------------------------------------------------

COLORS = {
    ORTHOGONAL: "black",
    DEFAULTS: "tab:blue",
    REJAX_OWN: "tab:cyan",
    "relu": "tab:red",
}


def shown(cell: Cell, reference: Cell) -> str:
    """Mean, standard error and seeds; bold if above the reference for sure, italic if below."""
    above = cell.above(reference)
    mark = "**" if above > SURE else "*" if above < -SURE else ""
    digits = 2 if abs(cell.mean) < 10 else 0
    return f"{mark}{cell.mean:.{digits}f}{mark} ({cell.error:.{digits}f}; {len(cell.ends)})"


def returns_table(cells: Cells, settings: list[str], networks: list[str]) -> str:
    """A row for each network, a column for each setting, and the time, in that of orthogonal kernels."""
    rows = []
    for network in networks:
        found = {name: cells[name, network] for name in settings if (name, network) in cells}
        texts = [shown(found[name], cells[name, ORTHOGONAL]) if name in found else "" for name in settings]
        ratio = np.median([cell.seconds / cells[name, ORTHOGONAL].seconds for name, cell in found.items()])
        rows.append([network, *texts, f"{ratio:.2f}"])
    return markdown(("network", *settings, "time"), rows, "<" + ">" * (len(settings) + 1))


def rules_table(settings: list[str]) -> str:
    rows = []
    for name in settings:
        setting, _ = EVERYTHING[name]
        rule = setting.rule
        clip = "each number" if rule.clip == "entries" else "norm"
        yes = [
            text
            for text, there in {
                "rate annealed": rule.annealed,
                "values clipped": rule.value_clip,
                "time limits bootstrapped": rule.bootstrap,
                "actions stored clipped": rule.as_played,
                "observations normalized": setting.normalize,
                f"reward x {setting.reward_scale:g}": setting.reward_scale != 1,
            }.items()
            if there
        ]
        rows.append(
            [
                name,
                f"{setting.steps:,}",
                f"{rule.num_envs} x {rule.num_steps}",
                f"{rule.num_epochs} x {rule.num_minibatches}",
                f"{rule.learning_rate:g}",
                f"{rule.discount:g}, {rule.gae_lambda:g}",
                f"{rule.entropy:g}",
                f"{rule.max_gradient:g}, {clip}",
                f"{rule.adam_eps:g}",
                ", ".join(yes),
            ]
        )
    header = (
        "", "steps", "envs x steps", "epochs x minibatches", "rate", "discount, lambda", "entropy",
        "gradient clip", "Adam's epsilon", "",
    )  # fmt: skip
    return markdown(header, rows)


def plot(path: Path, cells: Cells) -> None:
    """Learning curves: means of the seeds, with their standard errors."""
    settings = [name for name in SETTINGS if (name, DEFAULTS) in cells or (name, REJAX_OWN) in cells]
    with figure(path, len(settings), (4.6, 3.1)) as panels:
        for panel, name in zip(panels, settings, strict=True):
            for network, color in COLORS.items():
                if (cell := cells.get((name, network))) is None:
                    continue
                points = cell.curves.shape[1]
                steps = SETTINGS[name].steps * (np.arange(points) + 0.5) / points
                mean = np.nanmean(cell.curves, axis=0)
                error = np.nanstd(cell.curves, axis=0, ddof=1) / math.sqrt(len(cell.curves))
                panel.plot(
                    steps,
                    mean,
                    color=color,
                    lw=1.8 if network == ORTHOGONAL else 1.3,
                    label=network.replace("`", ""),
                )
                panel.fill_between(steps, mean - error, mean + error, color=color, alpha=0.2, lw=0)
            panel.set_title(name, fontsize=10)
            panel.xaxis.set_major_formatter(lambda x, _: f"{x / 1000:.0f}k")
            panel.spines[["top", "right"]].set_visible(False)
            panel.legend(frameon=False, loc="best", fontsize=7)


def cars_table(cells: Cells) -> str:
    rows = []
    for name in HEADS:
        if (cell := cells.get((CAR, name))) is not None:
            found = f"{int((cell.ends > 0).sum())} of {len(cell.ends)}"
            rows.append([name, ", ".join(f"{end:.1f}" for end in cell.ends), found, f"{cell.seconds:.1f} s"])
    return markdown(("of the config", "return of each seed", "reach the flag", "a seed"), rows, "<>>>")


def page(cells: Cells) -> str:
    """The section, as Markdown."""
    settings = [name for name in SETTINGS if (name, ORTHOGONAL) in cells]
    networks = [name for name in NETWORKS if any(network == name for _, network in cells)]
    chances = [ended_by_chance(MOUNTAIN, std, 999) for std in (1.0, 4.0)]

    rejax = {name: cells["rejax, CartPole", name] for name in (ORTHOGONAL, DEFAULTS)}
    fell = [f"{100 * cell.fell():.0f} %" for cell in rejax.values()]
    acrobot = cells["rejax, Acrobot", ORTHOGONAL].ends
    stuck = int((acrobot < -400).sum())

    both = [name for name in settings if (name, DEFAULTS) in cells]
    above = [cells[name, DEFAULTS].above(cells[name, ORTHOGONAL]) for name in both]

    def of(network: str) -> str:
        return f"{rejax[network].mean:.0f}"

    def whole(network: str) -> str:
        return f"{np.nanmean(rejax[network].curves):.0f}"

    return f"""
## {TITLE}

Written by `python -m benchmarks.defaults`, which trains everything here again.

Which network should one have without more thought? Towers of 64 x 64 with tanh and `actor_gain=0.01` are
compared here: with `lecun_normal` kernels, which are the defaults, and with orthogonal kernels times
sqrt(2), which many PPOs have, and these defaults had before. One
[PPO](../benchmarks/defaults/train.py), with what distinguishes that of other libraries as
[options](../benchmarks/defaults/settings.py), trains each network; it is written from their sources, and is
not their code. A figure is the return of the training episodes in the last tenth of training: the mean
over seeds (its standard error; the number of seeds). **Bold** is above orthogonal kernels by {SURE} standard
errors, *italic* is below. The time is that of the processors for a seed, in that of orthogonal kernels.

{returns_table(cells, settings, networks)}

![Learning curves of three networks; means over seeds with their standard errors]({PICTURE.name})

- **The first layer decides.** Entries of an orthogonal kernel with fewer inputs than outputs have the
  variance gain^2 / outputs, those of `lecun_normal` gain^2 / inputs. For the four numbers of CartPole the
  standard deviation is {math.sqrt(2 / 64):.2f} and {math.sqrt(1 / 4):.2f}; from 64 inputs on the gain is
  all they differ in. Orthogonal kernels do as well once the first is scaled likewise
  ("`gain=4`, then `gain=1`"); with `actor_gain=1` they do not, nor with `gain=1` for all layers.
- **What is lost is the end, at a constant learning rate.** In PPO of rejax the mean return of all of
  training is {whole(ORTHOGONAL)} with orthogonal kernels and {whole(DEFAULTS)} with `lecun_normal`, but
  {of(ORTHOGONAL)} and {of(DEFAULTS)} in the last tenth: {fell[0]} and {fell[1]} of the seeds end more than
  a fifth below the best twentieth of their training. On Acrobot {stuck} of {len(acrobot)} seeds never leave
  -500 with orthogonal kernels. Where the rate is annealed, in PureJaxRL and `examples/ppo.py`, no difference
  is certain.
- **No activation is best everywhere:** relu is worse in two of the rules, and better in that of Lerax.
  Towers of 128 x 128 are better in that of PureJaxRL, at three times the time.
- **So the defaults are `lecun_normal` with a gain of 1.** They cost nothing, and are above orthogonal kernels
  in {sum(x > 0 for x in above)} of {len(above)} settings, for sure in {sum(x > SURE for x in above)}.
  To choose otherwise: `pc.MLP(kernel_init="orthogonal", gain=math.sqrt(2))`.
- **Not compared:** images, memories, and wide observations, where the two kernels differ little. The other
  sections of this page were measured with orthogonal kernels, and their configs say so.

In Lerax itself, with 4 x 128 steps, that rate and its own CartPole, 50 to 80 seeds gave 389 (13) with
orthogonal kernels, 462 (12) with `lecun_normal` and gains of 1, 482 (9) with relu, and 481 (6) with its own
deeper network, which takes one and a half times as long.

The settings, each with a clip range of 0.2, advantages normalized in each minibatch, and a value
coefficient of 0.5:

{rules_table([*settings, CAR])}

### A car that must find the flag

On MountainCarContinuous standing still is worth 0, and the flag 100 less the fuel. Actions independent of
everything, with a standard deviation of 1, reach it in {100 * chances[0]:.0f} % of the episodes, with 4,
clipped to the box, in {100 * chances[1]:.0f} %. Most policies with orthogonal kernels learn to save
fuel before they have found it: the velocity, at most 0.07, hardly moves their outputs. Normalized
observations cure that, by the config alone. A wider normal, `NormalHead(Scale(log_std=log(4)))` for a
box of half-width 1, is not needed; alone it burns the fuel.

{cars_table(cells)}

```python
import policy_core as pc

config = pc.ActorCriticConfig(
    observation_space=pc.Box(low=(-1.2, -0.07), high=(0.6, 0.07), shape=(2,)),
    action_space=pc.Box(low=-1.0, high=1.0, shape=(1,)),
    normalize=pc.Normalize(),
)
```

The trainer updates the statistics, with `pc.update_statistics`, as
[`examples/ppo.py`](../examples/ppo.py) does.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--setting", choices=EVERYTHING, help="train one, and do not write the page")
    parser.add_argument("--network", action="append", help="of the setting; may be repeated, all by default")
    parser.add_argument("--seeds", type=int, default=25, help="of a batch")
    parser.add_argument("--first", type=int, default=0, help="seed of a batch")
    parser.add_argument("--runs", type=Path, default=RUNS, help="where batches are added, and read from")
    options = parser.parse_args()
    if options.setting:
        for network in options.network or EVERYTHING[options.setting][1]:
            seeds = range(options.first, options.first + options.seeds)
            train(options.runs, options.setting, network, seeds)
        return
    for setting, networks, seeds in PLAN:
        for network in networks:
            train(options.runs, setting, network, seeds)
    cells = read(options.runs)
    text = PAGE.read_text()
    PAGE.write_text(text.replace(section(text, TITLE), "") + page(cells))
    plot(PICTURE, cells)
    print(f"wrote {PAGE} and {PICTURE}")


if __name__ == "__main__":
    main()
