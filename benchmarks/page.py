"""docs/benchmarks.md and its picture, from the rows of `build/benchmarks.json`."""

import math
from pathlib import Path
from typing import Any

from benchmarks.sections import SECTIONS, Section
from benchmarks.table import markdown
from benchmarks.timing import Measured

HEAD = """\
# Benchmarks

Every figure of this page is from one run of `make bench`, which writes it, but for sections that say when
they were measured again. A ratio is the time of ours in
that of what it stands beside: below 1 ours is faster. Contestants compute the same, which is checked before
they are timed, and take turns in every round; times are CPU times of all processors together, but for
files. Given are medians, with quartiles over the rounds in brackets. Ratios are those of single rounds, or
of the medians where rounds are processes of their own.

@MACHINE@

![The ratios on a logarithmic axis, tasks from top to bottom as in the tables](benchmarks.png)
"""


def number(x: float) -> str:
    """Three digits."""
    if x == 0 or not math.isfinite(x):
        return f"{x:g}"
    return f"{x:,.{max(0, 2 - math.floor(math.log10(abs(x))))}f}"


def ratio(row: Measured) -> str:
    """The ratio with its quartiles."""
    assert row.ratio is not None
    if row.ratio_low is None or row.ratio_high is None:
        return f"{row.ratio:.2f}"
    return f"{row.ratio:.2f} ({row.ratio_low:.2f}-{row.ratio_high:.2f})"


def lines(rows: list[Measured]) -> str:
    """A line for each case and task: the time of ours, and a column for each other."""
    others = list(dict.fromkeys(row.contestant for row in rows if row.ratio is not None))
    body = []
    for case, task in dict.fromkeys((row.case, row.task) for row in rows):
        here = {row.contestant: row for row in rows if (row.case, row.task) == (case, task)}
        ours = next(row for row in here.values() if row.ratio is None)
        time = f"{number(ours.median)} ({number(ours.low)}-{number(ours.high)}) {ours.unit}"
        body.append([case, task, time, *(ratio(here[name]) if name in here else "" for name in others)])
    return markdown(("", "", "ours", *(f"/ {name}" for name in others)), body, "<<>" + ">" * len(others))


def by_kind(rows: list[Measured]) -> str:
    """As `lines`, a table for each set of cases with the same others."""
    tables: dict[tuple[str, ...], list[Measured]] = {}
    for case, task in dict.fromkeys((row.case, row.task) for row in rows):
        here = [row for row in rows if (row.case, row.task) == (case, task)]
        others = tuple(row.contestant for row in here if row.ratio is not None)
        key = next((known for known in tables if set(known) >= set(others)), others)
        tables.setdefault(key, []).extend(here)
    return "\n\n".join(lines(part) for part in tables.values())


def matrix(rows: list[Measured]) -> str:
    """Ratios, a line for each case and a column for each task; then the times of ours."""
    tasks = list(dict.fromkeys(row.task for row in rows))
    cases = list(dict.fromkeys(row.case for row in rows))

    def table(cell: Any, ours: bool) -> str:
        found = {(row.case, row.task): cell(row) for row in rows if (row.ratio is None) == ours}
        body = [[case, *(found.get((case, task), "") for task in tasks)] for case in cases]
        return markdown(("", *tasks), body, "<" + ">" * len(tasks))

    times = table(lambda row: f"{number(row.median)} {row.unit}", True)
    return f"{table(ratio, False)}\n\nThe times of ours:\n\n{times}"


LAYOUTS = {"lines": by_kind, "matrix": matrix}


def machine(about: dict[str, Any]) -> str:
    packages = ", ".join(f"{name} {version}" for name, version in about["packages"].items())
    text = (
        f"{about['date']}, {about['cores']} cores of {about['cpu']}, load {about['load']:.1f} before the "
        f"run; Python {about['python']}, {packages}."
    )
    if "cpu_seconds" in about:
        text += f" The run took {about['cpu_seconds'] / 60:.0f} minutes of CPU time."
    if about.get("short"):
        text += " **A short run, of which single figures are rough.**"
    return text


def render(data: dict[str, Any]) -> str:
    """The page.

    Args:
        data: `about` (machine and versions), `rows` by the `call` of a section, and in `missing` why one has
            none.
    """
    parts = [HEAD.replace("@MACHINE@", machine(data["about"]))]
    for section in SECTIONS:
        parts.append(f"## {section.title}\n\n{section.text}\n")
        if section.call in data["missing"]:
            parts.append(f"Not run: {data['missing'][section.call]}\n")
            continue
        parts.append(f"{LAYOUTS[section.layout](rows_of(data, section))}\n")
        if again := data.get("again", {}).get(section.call):
            parts.append(f"Measured again: {machine(again)}\n")
        versions = data["about"].get("elsewhere")
        if section.elsewhere and versions:
            named = ", ".join(f"{name} {version}" for name, version in versions.items())
            parts.append(f"With {named}.\n")
    return "\n".join(parts)


def rows_of(data: dict[str, Any], section: Section) -> list[Measured]:
    return [Measured(**row) for row in data["rows"][section.call]]


def plot(data: dict[str, Any], path: Path) -> None:
    """Every ratio of the page on a logarithmic axis, with a line at 1, in the order of the tables."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    panels = []
    for section in SECTIONS:
        if section.call not in data["missing"]:
            cases: dict[str, list[Measured]] = {}
            for row in rows_of(data, section):
                if row.ratio is not None:
                    cases.setdefault(row.case, []).append(row)
            panels.append((section, cases))
    slots = [max(len({row.task for row in rows}) for rows in cases.values()) for _, cases in panels]
    heights = [len(cases) * max(0.25, 0.1 * n) + 0.35 for (_, cases), n in zip(panels, slots, strict=True)]
    size = (10, sum(heights) + 0.7)
    figure, axes = plt.subplots(
        len(panels), 1, figsize=size, sharex=True, height_ratios=heights, squeeze=False
    )
    for axis, (section, cases) in zip(axes[:, 0], panels, strict=True):
        colors: dict[str, str] = {}
        for position, rows in enumerate(cases.values()):
            tasks = list(dict.fromkeys(row.task for row in rows))
            axis.axhline(position + 0.5, color="0.85", lw=0.5)
            for row in rows:
                name = label(section, row)
                known = name in colors
                color = colors.setdefault(name, f"C{len(colors) % 10}")
                middle = row.ratio or 0.0
                spread = [[middle - (row.ratio_low or middle)], [(row.ratio_high or middle) - middle]]
                y = position + 0.8 * ((tasks.index(row.task) + 0.5) / len(tasks) - 0.5)
                shown = None if known else name
                axis.errorbar(middle, y, xerr=spread, fmt="o", ms=3, lw=1, color=color, label=shown)
        axis.axvline(1, color="0.3", lw=1, zorder=0)
        axis.set_yticks(range(len(cases)), cases, fontsize=8)
        axis.set_ylim(len(cases) - 0.5, -0.5)
        axis.set_xscale("log")
        axis.grid(axis="x", which="both", lw=0.3, alpha=0.6)
        axis.set_title(section.title, loc="left", fontsize=9, fontweight="bold")
        axis.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=7, frameon=False)
        for side in ("top", "right"):
            axis.spines[side].set_visible(False)
    last = axes[-1, 0]
    last.set_xlabel("time of ours / time of the other (medians, quartiles); left of 1 ours is faster")
    ticks = [0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20]
    found = [row.ratio or 1.0 for _, cases in panels for rows in cases.values() for row in rows]
    least, most = min(found), max(found)
    ticks = [tick for tick in ticks if 0.7 * least <= tick <= 1.5 * most]
    last.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    last.minorticks_off()
    figure.tight_layout(h_pad=0.4)
    figure.savefig(path, dpi=110, metadata={"Software": None})
    plt.close(figure)


def label(section: Section, row: Measured) -> str:
    """What a color means: the task in a matrix; elsewhere the other, and tasks go from top to bottom."""
    return row.task if section.layout == "matrix" else f"/ {row.contestant}"
