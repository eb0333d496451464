"""The section of docs/results.md and its picture, from the file of runs."""

import math
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.defaults.runs import SURE, Cell, Cells, Mean, read
from benchmarks.defaults.schedule import ROOT
from benchmarks.defaults.settings import (
    ALL_OF_REJAX,
    CAR,
    DEEPER,
    DEFAULTS,
    EVERYTHING,
    HEAD_GAIN,
    HEADS,
    HOSTS,
    LECUN,
    NETWORKS,
    OPTIONS,
    ORTHOGONAL,
    ORTHOGONAL_RELU,
    REJAX_OWN,
    RELU,
    SETTINGS,
    TIMES,
    WIDER,
    Rule,
    Setting,
    arm,
    shorter,
)
from benchmarks.table import markdown, section

PAGE, PICTURE = ROOT / "docs/results.md", ROOT / "docs/defaults.png"
TITLE = "The defaults"
COLORS = {
    DEFAULTS: "black",
    ORTHOGONAL: "tab:blue",
    LECUN: "tab:orange",
    RELU: "tab:red",
    WIDER: "tab:green",
    DEEPER: "tab:purple",
}


def shown(mean: Mean, reference: Mean | None = None) -> str:
    """Mean, standard error and seeds; bold if above the reference for sure, italic if below."""
    mark = "" if reference is None else {1: "**", -1: "*", 0: ""}[mean.minus(reference).sure()]
    digits = 2 if abs(mean.value) < 10 else 0
    return f"{mark}{mean.value:.{digits}f}{mark} ({mean.error:.{digits}f}; {mean.count})"


def difference(mean: Mean) -> str:
    """A difference of returns of CartPole, with its standard error; bold if it is sure."""
    mark = "**" if mean.sure() else ""
    return f"{mark}{mean.value:+.0f}{mark} ({mean.error:.0f})"


def settings_of(cells: Cells) -> list[str]:
    return [name for name in SETTINGS if (name, DEFAULTS) in cells]


def networks_of(cells: Cells) -> list[str]:
    settings = settings_of(cells)
    return [network for network in NETWORKS if any((name, network) in cells for name in settings)]


def times(cells: Cells, network: str) -> dict[str, float]:
    """The time of a seed in that of the defaults, in each setting where it is known."""
    ratios = {
        name: cells[name, network].time_in(clocked(cells, name))
        for name in settings_of(cells)
        if (name, network) in cells
    }
    return {name: ratio for name, ratio in ratios.items() if ratio is not None}


def clocked(cells: Cells, name: str) -> Cell:
    """The defaults, with the seconds of `lecun_normal`, too, which is the same program."""
    defaults, lecun = cells[name, DEFAULTS], cells.get((name, LECUN))
    return defaults if lecun is None else replace(defaults, seconds={**lecun.seconds, **defaults.seconds})


def at_equal_time(cells: Cells, name: str, network: str) -> Mean | None:
    """The return of a network when the defaults have ended, by processor time; None if unknown.

    Where the rate is annealed, of seeds with fewer steps, if there are any.
    """
    if (cell := fewer_steps(cells, name, network)) is not None:
        return cell.mean
    ratio = times(cells, network).get(name)
    return None if ratio is None else Mean.of(cells[name, network].ends(1 / ratio))


def fewer_steps(cells: Cells, name: str, network: str) -> Cell | None:
    return cells.get((shorter(name, network), network)) if network in TIMES else None


def returns_table(cells: Cells) -> str:
    """A row for each network, a column for each setting, and the time, in that of the defaults."""
    settings, rows = settings_of(cells), []
    for network in networks_of(cells):
        texts = [
            shown(cells[name, network].mean, cells[name, DEFAULTS].mean) if (name, network) in cells else ""
            for name in settings
        ]
        ratios = list(times(cells, network).values())
        rows.append([network, *texts, f"{np.median(ratios):.2f}" if ratios else ""])
    return markdown(("network", *settings, "time"), rows, "<" + ">" * (len(settings) + 1))


def equal_time_table(cells: Cells, least: float = 1.1) -> str:
    """The same at the time of the defaults, of the networks that take longer than `least` in some setting."""
    settings = [name for name in settings_of(cells) if any(name in times(cells, n) for n in NETWORKS)]
    rows = []
    for network in networks_of(cells):
        ratios = times(cells, network)
        if max(ratios.values(), default=0) < least:
            continue
        texts = []
        for name in settings:
            mean = at_equal_time(cells, name, network)
            whole = fewer_steps(cells, name, network) is not None
            part = TIMES[network] if whole else ratios.get(name, 1.0)
            texts.append(
                ""
                if mean is None
                else f"{shown(mean, cells[name, DEFAULTS].mean)} at {100 / max(1.0, part):.0f} %"
                + ", annealed" * whole
            )
        rows.append([network, *texts])
    return markdown(("network", *settings), rows, "<" + ">" * len(settings))


def verdicts(cells: Cells, network: str) -> tuple[list[str], list[str], list[str], list[str]]:
    """Where a network is above the defaults for sure and where below, at equal steps and at equal time.

    Where the time is not known, as on a GPU, equal time is not told.
    """
    steps, equal = dict[str, int](), dict[str, int]()
    for name in settings_of(cells):
        if (name, network) not in cells:
            continue
        defaults = cells[name, DEFAULTS].mean
        steps[name] = cells[name, network].mean.minus(defaults).sure()
        if (mean := at_equal_time(cells, name, network)) is not None:
            equal[name] = mean.minus(defaults).sure()
    return (
        [name for name, sign in steps.items() if sign > 0],
        [name for name, sign in steps.items() if sign < 0],
        [name for name, sign in equal.items() if sign > 0],
        [name for name, sign in equal.items() if sign < 0],
    )


def better(cells: Cells) -> dict[str, int]:
    """The networks above the defaults somewhere for sure and below nowhere; in how many settings they are.

    At equal time, and at equal steps too: what has no time is compared there alone.
    """
    found = dict[str, int]()
    for network in networks_of(cells):
        _, below_steps, above, below = verdicts(cells, network)
        if above and not below and not below_steps:
            found[network] = sum((name, network) in cells for name in settings_of(cells))
    return found


def gained(cells: Cells, name: str, network: str, equal_time: bool) -> str:
    """A setting, and by how much the network is above the defaults there."""
    mean = at_equal_time(cells, name, network) if equal_time else cells[name, network].mean
    defaults = cells[name, DEFAULTS].mean
    digits = 2 if abs(defaults.value) < 10 else 0
    return f"{name} ({mean.minus(defaults).value:+.{digits}f})" if mean is not None else name


def verdict_table(cells: Cells) -> str:
    rows = []
    for network in networks_of(cells):
        if network != DEFAULTS:
            compared = sum((name, network) in cells for name in settings_of(cells))
            columns = [
                "; ".join(gained(cells, name, network, equal_time) for name in names)
                for names, equal_time in zip(
                    verdicts(cells, network), (False, False, True, True), strict=True
                )
            ]
            rows.append([network, str(compared), *columns])
    header = ("network", "settings", "above", "below", "above, equal time", "below, equal time")
    return markdown(header, rows, "<><<<<")


# OPTIONS -------------------------------------------------------------------------------------

VALUES = {  # of each option, those of `OPTIONS`
    "learning rate": ("annealed", "constant"),
    "Adam's epsilon": ("1e-5", "1e-8"),
    "gradient clipped": ("by its norm", "each number"),
    "values": ("clipped", "not clipped"),
    "time limits": ("are ends", "bootstrapped"),
    "entropy": ("0.01", "0"),
    "rate": ("2.5e-4", "7.5e-4"),
}


def other_value(host: str, option: str) -> str:
    """What the option is when it is the other one, in words."""
    first, _ = OPTIONS[option]
    rule = EVERYTHING[arm(host, option)][0].rule
    return VALUES[option][0 if all(getattr(rule, name) == value for name, value in first.items()) else 1]


def options_table(cells: Cells) -> str:
    """A row for each rule and each option of it; empty without runs."""
    rows = []
    for host in HOSTS:
        changes = [(arm(host, option), f"{option}: {other_value(host, option)}") for option in OPTIONS]
        changes += [(ALL_OF_REJAX, "all of rejax but its batches")] if ALL_OF_REJAX.startswith(host) else []
        found = [(name, text) for name, text in changes if (name, LECUN) in cells]
        kinds = [(host, f"**{host}**", (LECUN, ORTHOGONAL))]
        if found:
            kinds.append((host, "`actor_gain=1`", (REJAX_OWN, HEAD_GAIN)))
        kinds += [(name, text, (LECUN, ORTHOGONAL)) for name, text in found]
        if not found:
            continue
        base = [cells[host, network].mean for network in (LECUN, ORTHOGONAL)]
        for name, text, networks in kinds:
            if any((name, network) not in cells for network in networks):
                continue
            lecun, orthogonal = (cells[name, network].mean for network in networks)
            own = name == host and networks[0] == LECUN
            gap = lecun.minus(orthogonal)
            relu, orthogonal_relu = (
                cells[name, network].mean if (name, network) in cells and networks[0] == LECUN else None
                for network in (RELU, ORTHOGONAL_RELU)
            )
            rows.append(
                [
                    text,
                    shown(lecun),
                    "" if own else difference(lecun.minus(base[0])),
                    shown(orthogonal),
                    "" if own else difference(orthogonal.minus(base[1])),
                    difference(gap),
                    "" if relu is None else difference(relu.minus(lecun)),
                    "" if orthogonal_relu is None else difference(orthogonal_relu.minus(orthogonal)),
                ]
            )
    header = (
        "", "lecun_normal", "change", "orthogonal", "change", "lecun_normal - orthogonal",
        "relu - tanh, lecun_normal", "relu - tanh, orthogonal",
    )  # fmt: skip
    return markdown(header, rows, "<>>>>>>>") if rows else ""


def effects(cells: Cells, network: str) -> dict[str, dict[str, Mean]]:
    """Of each option and rule: the return with its second value of `OPTIONS` less that with the first one."""
    found = dict[str, dict[str, Mean]]()
    for option, (first, _) in OPTIONS.items():
        for host in HOSTS:
            if (host, network) not in cells or (arm(host, option), network) not in cells:
                continue
            change = cells[arm(host, option), network].mean.minus(cells[host, network].mean)
            rule = EVERYTHING[host][0].rule
            has_first = all(getattr(rule, name) == value for name, value in first.items())
            sign = 1 if has_first else -1
            found.setdefault(option, {})[host] = Mean(sign * change.value, change.error, change.count)
    return found


# RULES ---------------------------------------------------------------------------------------


def rules_table(settings: Sequence[str]) -> str:
    header = (
        "", "steps", "envs x steps", "epochs x minibatches", "rate", "discount, lambda", "entropy",
        "gradient clip", "Adam's epsilon", "",
    )  # fmt: skip
    return markdown(header, [rule_row(name, EVERYTHING[name][0]) for name in settings])


def rule_row(name: str, setting: Setting) -> list[str]:
    rule: Rule = setting.rule
    yes = {
        "rate annealed": rule.annealed,
        "values clipped": rule.value_clip,
        "time limits bootstrapped": rule.bootstrap,
        "actions stored clipped": rule.as_played,
        "observations normalized": setting.normalize,
        f"reward x {setting.reward_scale:g}": setting.reward_scale != 1,
    }
    return [
        name,
        f"{setting.steps:,}",
        f"{rule.num_envs} x {rule.num_steps}",
        f"{rule.num_epochs} x {rule.num_minibatches}",
        f"{rule.learning_rate:g}",
        f"{rule.discount:g}, {rule.gae_lambda:g}",
        f"{rule.entropy:g}",
        f"{rule.max_gradient:g}, {'each number' if rule.clip_entries else 'norm'}",
        f"{rule.adam_eps:g}",
        ", ".join(text for text, there in yes.items() if there),
    ]


def cars_table(cells: Cells) -> str:
    rows = []
    for name in HEADS:
        if (cell := cells.get((CAR, name))) is not None:
            ends = cell.ends()
            found = f"{int((ends > 0).sum())} of {len(ends)}"
            rows.append([name, shown(cell.mean), f"{ends.min():.0f} to {ends.max():.0f}", found])
    return markdown(("of the config", "return", "of the seeds", "reach the flag"), rows, "<>>>")


def plot(path: Path, cells: Cells) -> None:
    """Learning curves: means of the seeds, with their standard errors."""
    sys.path.append(str(ROOT / "examples"))
    from experiments import figure

    settings = settings_of(cells)
    with figure(path, len(settings), (4.6, 3.1)) as panels:
        for panel, name in zip(panels, settings, strict=True):
            for network, color in COLORS.items():
                if (cell := cells.get((name, network))) is None:
                    continue
                points = cell.curves.shape[1]
                steps = SETTINGS[name].steps * (np.arange(points) + 0.5) / points
                mean = np.nanmean(cell.curves, axis=0)
                error = np.nanstd(cell.curves, axis=0, ddof=1) / math.sqrt(len(cell.curves))
                width = 1.8 if network == DEFAULTS else 1.3
                panel.plot(steps, mean, color=color, lw=width, label=network.replace("`", ""))
                panel.fill_between(steps, mean - error, mean + error, color=color, alpha=0.2, lw=0)
            panel.set_title(name, fontsize=10)
            panel.locator_params(axis="x", nbins=5)
            panel.xaxis.set_major_formatter(lambda x, _: f"{x / 1000:.0f}k")
            panel.spines[["top", "right"]].set_visible(False)
            panel.legend(frameon=False, loc="best", fontsize=7)


def write(runs: Path, page: Path = PAGE, picture: Path = PICTURE) -> None:
    """The section of the page anew, and the picture."""
    from benchmarks.defaults.prose import text

    cells = read(runs)
    before = page.read_text()
    page.write_text(before.replace(section(before, TITLE), "") + text(cells, TITLE, picture.name))
    plot(picture, cells)
    print(f"wrote {page.name} and {picture.name}: above {SURE} standard errors or below")
