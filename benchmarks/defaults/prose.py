"""The text around the tables of the section; whatever depends on the runs is computed from them."""

import math
import textwrap
from collections import Counter

import numpy as np

from benchmarks.defaults import page
from benchmarks.defaults.plan import on_cpus, on_gpus
from benchmarks.defaults.runs import SURE, Cell, Cells, Mean
from benchmarks.defaults.settings import (
    CAR,
    DEFAULTS,
    HOSTS,
    LECUN,
    MOUNTAIN,
    OPTIONS,
    ORTHOGONAL,
    SAME_KERNELS,
    SETTINGS,
    arm,
)
from benchmarks.defaults.train import ended_by_chance


def text(cells: Cells, title: str, picture: str) -> str:
    """The section, as Markdown."""
    parts = [
        f"## {title}\n\n{INTRODUCTION}",
        page.returns_table(cells),
        f"![Learning curves of some networks; means over seeds with their standard errors]({picture})",
        machines(cells),
        f"### At equal time\n\n{EQUAL_TIME}",
        page.equal_time_table(cells),
        f"### The choice\n\n{choice(cells)}",
        page.verdict_table(cells),
        kernels(cells),
        missing(cells),
        options(cells),
        f"### Settings\n\n{SETTINGS_TEXT}",
        MEMORY_TEXT if (tuple(SETTINGS)[-1], DEFAULTS) in cells else "",
        page.rules_table([*page.settings_of(cells), *[CAR] * any(name == CAR for name, _ in cells)]),
        car(cells),
    ]
    return "\n" + "\n\n".join(part for part in parts if part) + "\n"


INTRODUCTION = f"""\
Written by `python -m benchmarks.defaults --page`, from what `python -m benchmarks.defaults` trained.

Which network should one have without more thought? The defaults, two towers of 64 x 64 with tanh,
`lecun_orthogonal` kernels times sqrt(2) and `actor_gain=0.01`, are compared with others: orthogonal and
normal kernels, other gains and activations, wider, deeper and shared towers. One
[PPO](../benchmarks/defaults/train.py), with what distinguishes that of other libraries as
[options](../benchmarks/defaults/settings.py), trains each network; it is written from their sources, and is
not their code. A figure is the return of the training episodes in the last tenth of training: the mean
over seeds (its standard error; the number of seeds). **Bold** is above the defaults by {SURE} standard
errors, *italic* is below: of a hundred pairs without a difference, one is marked. The time is that of one
core for a seed, in that of the defaults, the median over the settings that ran on a CPU. On Breakout and
behind a GRU the defaults are the orthogonal kernels, and were not trained twice."""

EQUAL_TIME = """\
A network that takes longer is stopped when the defaults have ended: the return in the tenth of training
before that, and how far it is by then. Where the rate is annealed, it is not annealed to the end there;
"annealed" are seeds of their own with so much fewer steps, whose rate is; of 64 x 64 x 64 with two thirds,
which is more than its time allows where that is 1.75 times as long. A network that takes less time
is not given more steps."""

SETTINGS_TEXT = """\
Each has a clip range of 0.2, advantages normalized in each minibatch, and a value coefficient of 0.5.
Breakout has the rule of PureJaxRL's MinAtar notebook with a fifth of its steps, and flat towers, which are
the defaults for a `Box` of floats too."""
MEMORY_TEXT = """\
CartPole without velocities has that of its `ppo_rnn.py`, with more and shorter sequences and a higher rate,
and a GRU before the towers in all networks."""


def wrapped(paragraph: str, indent: str = "") -> str:
    """In lines of the page, after the first one with an indent."""
    return textwrap.fill(" ".join(paragraph.split()), 110, subsequent_indent=indent, break_on_hyphens=False)


def listed(names: list[str]) -> str:
    """`a, b and c`."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def machines(cells: Cells) -> str:
    """Where the seeds ran."""
    seeds = Counter[str]()
    for (name, network), cell in cells.items():
        if network != DEFAULTS or name not in SAME_KERNELS:
            seeds.update(cell.machines)
    return wrapped(
        f"Trained were {sum(seeds.values()):,} seeds: "
        f"{'; '.join(f'{count:,} on {machine}' for machine, count in seeds.most_common())}. "
        "Times are compared on equal processors only, and none are taken from a GPU, where all seeds of "
        "several networks are one program."
    )


def choice(cells: Cells) -> str:
    """Whether a network is better than the defaults, in all settings or in those that it was trained in."""
    count, found = len(page.settings_of(cells)), page.better(cells)
    whole = [network for network, settings in found.items() if settings == count]
    part = [f"{network} ({settings} of {count})" for network, settings in found.items() if settings < count]
    if whole:
        be = "is" if len(whole) == 1 else "are"
        first = f"**{listed(whole)}** {be} above the defaults in a setting for sure and below in none"
    else:
        first = (
            "**The defaults stay as they are.** No network that was trained in all settings is above them "
        )
        first += "in one for sure and below in none"
    more = f" In some of the settings alone, so far, this is true of {listed(part)}." if part else ""
    return wrapped(
        f"{first}, at equal steps and, where the time is known, at equal time.{more} In which settings each "
        "network is above or below, and by how much:"
    )


def kernels(cells: Cells) -> str:
    """Why the kernels are what they are; empty without rejax's rule."""
    host = HOSTS[1]
    if any((host, network) not in cells for network in (DEFAULTS, LECUN, ORTHOGONAL)):
        return ""
    orthogonal, lecun = cells[host, ORTHOGONAL], cells[host, LECUN]

    def against(network: str) -> str:
        both = [name for name in page.settings_of(cells) if (name, network) in cells]
        both = [name for name in both if name not in SAME_KERNELS or network != ORTHOGONAL]
        gaps = {name: cells[name, DEFAULTS].mean.minus(cells[name, network].mean) for name in both}
        above = [name for name, gap in gaps.items() if gap.sure() > 0]
        below = [name for name, gap in gaps.items() if gap.sure() < 0]
        return (
            f"for sure above it in {len(above)} of {len(gaps)} settings ({'; '.join(above) or 'none'}), "
            f"below in {len(below)} ({'; '.join(below) or 'none'})"
        )

    def whole(cell: Cell) -> str:
        return f"{np.nanmean(cell.curves):.0f}"

    first = f"""\
- **Kernels:** Where there are as many inputs as outputs, on the 400 numbers of Breakout, behind a GRU, in
  every second layer, `lecun_orthogonal` is `orthogonal`, which PPO often has, times sqrt(2). Where there are
  fewer inputs, entries of an orthogonal kernel have the variance gain^2 / outputs, and those of
  `lecun_orthogonal`, as of `lecun_normal`, gain^2 / inputs: a standard deviation of
  {math.sqrt(2 / 64):.2f} and
  {math.sqrt(2 / 4):.2f} for the four numbers of CartPole. Compared with `orthogonal`, the defaults are
  {against(ORTHOGONAL)}; compared with `lecun_normal` with a gain of 1, which they were before,
  {against(LECUN)}. All cost the same."""
    second = f"""\
- **What is lost is the end.** In PPO of rejax the mean return of all of
  training is {whole(orthogonal)} with orthogonal kernels and {whole(lecun)} with `lecun_normal`, but
  {orthogonal.mean.value:.0f} and {lecun.mean.value:.0f} in the last tenth: {100 * orthogonal.fell():.0f} %
  and {100 * lecun.fell():.0f} % of the seeds end more than a fifth below the best twentieth of their
  training."""
    return f"""\
{wrapped(first, "  ")}
{wrapped(second, "  ")}
- To choose otherwise: `pc.MLP(kernel_init="orthogonal")`, `pc.MLP(kernel_init="lecun_normal", gain=1)`,
  `pc.MLP((128, 128))`, `pc.MLP(activation="relu")`, for the actor and the critic; a trunk for both is
  `trunk=pc.MLP()` with `pc.MLP(())` for the two. The other sections of this page were measured with
  orthogonal kernels, and their configs say so.

What three of these libraries learn with these networks in their own code is in
[your trainer](trainers.md#what-is-learned-in-them)."""


def missing(cells: Cells) -> str:
    """What is planned and has no seeds, by network; empty if nothing."""
    found = dict[str, list[str]]()
    for wanted in [*on_cpus(), *on_gpus()]:
        for name, network in wanted.cells:
            if name in SETTINGS and (name, network) not in cells and name not in found.get(network, []):
                found.setdefault(network, []).append(name)
    if not found:
        return ""
    lines = (wrapped(f"- {network}: {'; '.join(names)}", "  ") for network, names in found.items())
    return "Planned, and not trained yet:\n\n" + "\n".join(lines)


def options(cells: Cells) -> str:
    """The ablation; empty without its runs."""
    table = page.options_table(cells)
    if not table:
        return ""
    return f"""\
### Which option makes the difference

The rules of CartPole with one option at a time as it is elsewhere. The changes are those of the return
against the rule as it is, with their standard errors; **bold** are differences of more than {SURE} standard
errors.

{table}

{findings(cells)}"""


def findings(cells: Cells) -> str:
    """Which options change the gap between the two kernels for sure, and which do not help everywhere."""
    lines = list[str]()
    for option, by_host in page.effects(cells, LECUN).items():
        signs = {mean.sure() for mean in by_host.values()}
        told = "; ".join(f"{page.difference(mean)} in {host}" for host, mean in by_host.items())
        first, second = page.VALUES[option]
        what = f"{option} {second} rather than {first}: {told}"
        if {1, -1} <= signs:
            lines.append(f"- **Helps in one and hurts in another:** {what}.")
        elif len(by_host) > 1 and len(signs) == 1 and 0 not in signs:
            lines.append(f"- {'Helps' if 1 in signs else 'Hurts'} in each: {what}.")
    for host in HOSTS:
        base = gap_of(cells, host)
        arms = {f"{o}: {page.other_value(host, o)}": gap_of(cells, arm(host, o)) for o in OPTIONS}
        gaps = {text: gap for text, gap in arms.items() if gap is not None}
        if base is None or not gaps:
            continue
        changed = [
            f"{text}, {page.difference(gap)}, a change of {page.difference(gap.minus(base))}"
            for text, gap in gaps.items()
            if gap.minus(base).sure()
        ]
        lines.append(
            f"- `lecun_normal` less orthogonal kernels is {page.difference(base)} in {host}. For sure it "
            f"changes {'with ' + '; '.join(changed) if changed else 'with no option by itself'}."
        )
    return "Of `lecun_normal`, the return with one value less that with the other:\n\n" + "\n".join(
        wrapped(line, "  ") for line in lines
    )


def gap_of(cells: Cells, name: str) -> Mean | None:
    """`lecun_normal` less orthogonal kernels."""
    pair = [cells.get((name, network)) for network in (LECUN, ORTHOGONAL)]
    return None if pair[0] is None or pair[1] is None else pair[0].mean.minus(pair[1].mean)


def car(cells: Cells) -> str:
    """The mountain car; empty without its runs."""
    if all(name != CAR for name, _ in cells):
        return ""
    chances = [ended_by_chance(MOUNTAIN, std, 999) for std in (1.0, 4.0)]
    return f"""\
### A car that must find the flag

On MountainCarContinuous standing still is worth 0, and the flag 100 less the fuel. Actions independent of
everything, with a standard deviation of 1, reach it in {100 * chances[0]:.0f} % of the episodes, with 4,
clipped to the box, in {100 * chances[1]:.0f} %. Most policies with orthogonal kernels learn to save
fuel before they have found it: the velocity, at most 0.07, hardly moves their outputs. Normalized
observations cure that, by the config alone. A wider normal, `NormalHead(Scale(log_std=log(4)))` for a
box of half-width 1, is not needed; alone it burns the fuel.

{page.cars_table(cells)}

```python
import policy_core as pc

config = pc.ActorCriticConfig(
    observation_space=pc.Box(low=(-1.2, -0.07), high=(0.6, 0.07), shape=(2,)),
    action_space=pc.Box(low=-1.0, high=1.0, shape=(1,)),
    normalize=pc.Normalize(),
)
```

The trainer updates the statistics, with `pc.update_statistics`, as
[`examples/ppo.py`](../examples/ppo.py) does."""
