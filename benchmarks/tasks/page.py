"""The section of docs/results.md, and its picture, from the lines of a file."""

import math
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.table import markdown, section
from benchmarks.tasks import settings
from benchmarks.tasks.settings import CONTESTANTS, OURS, PLAIN, PUREJAXRL, SAME, TASKS

TITLE = "Against other trainers"
COLORS = dict(
    zip(
        CONTESTANTS,
        ("black", "gray", "tab:brown", "tab:orange", "tab:green", "tab:blue", "tab:purple", "tab:red"),
        strict=True,
    )
)


class Cell(NamedTuple):
    """All seeds of a contestant on a task."""

    finals: np.ndarray  # [seed], NaN where no episode ended
    curves: np.ndarray  # [seed, point]
    seconds: np.ndarray  # [seed]
    compiled: np.ndarray  # [seed]
    steps: int
    machines: tuple[str, ...]

    @property
    def mean(self) -> float:
        return float(np.nanmean(self.finals)) if np.isfinite(self.finals).any() else math.nan

    @property
    def error(self) -> float:
        """The standard error of the mean; NaN of a single seed."""
        finals = self.finals[np.isfinite(self.finals)]
        return float(finals.std(ddof=1) / math.sqrt(len(finals))) if len(finals) > 1 else math.nan

    def behind(self, other: "Cell") -> float:
        """How many standard errors of the difference the mean is below that of the other."""
        return (other.mean - self.mean) / max(math.hypot(self.error, other.error), 1e-9)

    def average(self) -> np.ndarray:
        """The curve of the mean over those seeds of which an episode ended; NaN where of none."""
        there = np.isfinite(self.curves)
        sums = np.where(there, self.curves, 0.0).sum(0)
        return np.asarray(np.where(there.any(0), sums / np.maximum(there.sum(0), 1), np.nan))

    def reaches(self, value: float) -> str:
        """After how many seconds of a processor the curve of the mean is there, in words."""
        points = np.flatnonzero(self.average() >= value)
        if not len(points):
            return "not reached"
        return f"reached in {float(np.mean(self.seconds)) * (points[0] + 1) / self.curves.shape[1]:.1f} s"

    def shown(self) -> str:
        """The mean, in brackets its standard error and the number of seeds."""
        digits = 2 if abs(self.mean) < 10 else 1 if abs(self.mean) < 100 else 0
        never = int((~np.isfinite(self.finals)).sum())
        note = f", of {never} no episode ended" if never else ""
        error = f"{self.error:.{digits}f}; " if math.isfinite(self.error) else ""
        return f"{self.mean:.{digits}f} ({error}{len(self.finals)}{note})"


Cells = dict[tuple[str, str], Cell]


def read(lines: list[dict[str, Any]]) -> tuple[Cells, dict[str, str]]:
    """Cells by task and contestant, and why contestants are missing that have no seed."""
    seeds: dict[tuple[str, str], dict[int, dict[str, Any]]] = {}
    for line in lines:
        if "seed" in line:
            seeds.setdefault((line["task"], line["contestant"]), {})[line["seed"]] = line
    cells: Cells = {}
    for task in TASKS:
        for contestant in CONTESTANTS:
            if (found := seeds.get((task, contestant))) is None:
                continue
            points = min(len(line["curve"]) for line in found.values())
            cells[task, contestant] = Cell(
                np.array([line["final"] for line in found.values()], float),
                np.array([line["curve"][:points] for line in found.values()], float),
                np.array([line["seconds"] for line in found.values()], float),
                np.array([line["compile"] for line in found.values()], float),
                max(line["steps"] for line in found.values()),
                tuple(sorted({line["machine"] for line in found.values()})),
            )
    missing = {line["contestant"]: line["missing"] for line in lines if "missing" in line}
    return cells, {name: why for name, why in missing.items() if not any(who == name for _, who in cells)}


def present(cells: Cells) -> tuple[list[str], list[str]]:
    """Tasks and contestants that there is something of."""
    return (
        [task for task in TASKS if any(task == name for name, _ in cells)],
        [contestant for contestant in CONTESTANTS if any(contestant == who for _, who in cells)],
    )


def returns_table(cells: Cells) -> str:
    """A row for each task, the best mean in bold."""
    tasks, contestants = present(cells)
    rows = []
    for task in tasks:
        row = {who: cells[task, who] for who in contestants if (task, who) in cells}
        best = max((cell.mean for cell in row.values() if math.isfinite(cell.mean)), default=math.nan)
        texts = []
        for who in contestants:
            if who not in row:
                texts.append("")
                continue
            text = row[who].shown()
            if row[who].mean == best:
                mean, _, rest = text.partition(" ")
                text = f"**{mean}** {rest}"
            other = settings.of(who, task)
            if isinstance(other, settings.Setting) and other.steps is not None:
                text += f" in {row[who].steps:,} steps"
            texts.append(text)
        rows.append([task, f"{TASKS[task].steps:,}", *texts])
    return markdown(("task", "steps a seed", *contestants), rows, "<" + ">" * (len(contestants) + 1))


def seconds_table(cells: Cells) -> str:
    """Seconds of a processor: to train a seed, and to compile."""
    tasks, contestants = present(cells)
    rows = []
    for task in tasks:
        texts = []
        for who in contestants:
            cell = cells.get((task, who))
            if cell is None:
                texts.append("")
            else:
                compiled = f" + {np.median(cell.compiled):.0f}" if cell.compiled.any() else ""
                ours = cells.get((task, OURS), cell)
                mark = "" if cell.machines == ours.machines else " (elsewhere)"
                texts.append(f"{np.mean(cell.seconds):.1f}{compiled}{mark}")
        rows.append([task, *texts])
    return markdown(("task", *contestants), rows, "<" + ">" * len(contestants))


def comparisons(cells: Cells) -> str:
    """Where another is better or cheaper than ours: nothing of it is left out."""
    tasks, contestants = present(cells)
    mine = [(task, who) for who in (OURS, PLAIN, SAME) for task in tasks if (task, who) in cells]
    returns, times, pairs, above = [], [], 0, 0
    for task, us in mine:
        ours = cells[task, us]
        for who in contestants:
            cell = cells.get((task, who))
            if cell is None or who in (OURS, PLAIN, SAME) or (us == SAME and who != PUREJAXRL):
                continue
            z = ours.behind(cell)
            pairs, above = pairs + (us == OURS), above + (us == OURS and z < -1)
            if z > 1:
                returns.append(f"{us} on {task}: {who}, by {z:.1f} standard errors")
            ratio = float(np.mean(ours.seconds) / np.mean(cell.seconds))
            alike = cell.machines == ours.machines and abs(cell.steps / ours.steps - 1) < 0.1
            if ratio > 1 and alike:
                times.append(f"{us} on {task}: {who}, {ratio:.1f} ({ours.reaches(cell.mean)})")
    return f"""\
{OURS} is above another by more than a standard error of the difference in {above} of {pairs} cases,
where a single seed, which has none, counts as not above. Below by more than that:

{bullets(returns)}

Processor time of ours in that of another, where it is above 1, and machine and number of steps are the same;
in brackets, when the mean of ours reaches the other's final return:

{bullets(times)}"""


def bullets(items: list[str]) -> str:
    return "\n".join(f"- {item}" for item in items) or "- nowhere"


def left_out(cells: Cells, missing: dict[str, str]) -> str:
    """What is not in the tables, and why."""
    items = [f"{who}: {why}." for who, why in missing.items()]
    for who in CONTESTANTS:
        if who in missing:
            continue
        reasons: dict[str, list[str]] = {}
        for task in TASKS:
            setting = settings.of(who, task)
            if (task, who) in cells:
                wanted = (setting.seeds or TASKS[task].seeds) if isinstance(setting, settings.Setting) else 0
                if len(cells[task, who].finals) < wanted:
                    reason = f"only {len(cells[task, who].finals)} of {wanted} seeds were run"
                    reasons.setdefault(reason, []).append(task)
                continue
            reason = setting.reason if isinstance(setting, settings.LeftOut) else "not run"
            reasons.setdefault(reason, []).append(task)
        items += [f"{who}, {', '.join(tasks)}: {reason}." for reason, tasks in reasons.items()]
    return bullets(items)


def sources_table(cells: Cells) -> str:
    """Where the hyper-parameters of each contestant stand, and how often an update uses a step."""
    rows = []
    for who in present(cells)[1]:
        groups: dict[tuple[str, int], list[str]] = {}
        for task in TASKS:
            setting = settings.of(who, task)
            if (task, who) in cells and isinstance(setting, settings.Setting):
                groups.setdefault((setting.source, settings.epochs(who, setting)), []).append(task)
        rows += [[who, ", ".join(tasks), source, str(n)] for (source, n), tasks in groups.items()]
    return markdown(("", "tasks", "hyper-parameters", "epochs"), rows, "<<<>")


def where(lines: list[dict[str, Any]]) -> str:
    """Machines and versions, by contestants."""
    groups: dict[tuple[str, str], list[str]] = {}
    for line in lines:
        if "seed" in line:
            versions = ", ".join(f"{name} {version}" for name, version in line["versions"].items())
            who = groups.setdefault((line["machine"], versions), [])
            if line["contestant"] not in who:
                who.append(line["contestant"])
    return "\n".join(
        f"- {', '.join(who)}: {machine}; {versions}" for (machine, versions), who in groups.items()
    )


def page(lines: list[dict[str, Any]], picture: str) -> str:
    """The section, as Markdown."""
    cells, missing = read(lines)
    return f"""
## {TITLE}

Written by `python -m benchmarks.tasks`, which trains everything here again.

PPO of other libraries at the hyper-parameters that they have published, and ours at those that these pages
have; all make the same number of steps in an environment, up to a whole rollout. Ours is
[`examples/ppo.py`](../examples/ppo.py) with one rule for all tasks: where this page, or that on memory, had
hyper-parameters for such a task, these; elsewhere the defaults of `Hyperparameters` and `ActorCriticConfig`.
Ours were chosen on CartPole, Pendulum, the car and [Breakout](design.md#training), as those of others were on
theirs; Acrobot, Catch, SpaceInvaders and RepeatPrevious were met here for the first time. (An entropy bonus
of 0.06, which is better for 3.4 million steps of Breakout, has 25.4 there and 61 on SpaceInvaders.)
The column "{PLAIN}" has the defaults on the former, too: no statistics, flat images, no memory.
"{SAME}" is our code with its hyper-parameters and its network: what differs then is the code.

A figure is the mean return of the training episodes that ended in the last tenth of training, over
seeds (its standard error; the number of seeds), and the best of a row is **bold**. Every contestant samples
its actions in training. The environments are those of gymnax; SB3 and sbx are run on those of gymnasium,
Lerax (0.0.6, from its sources) has its own, and
[RepeatPrevious](../benchmarks/tasks/environments.py) is that of POPGym: say the suit of the card of
four steps before.

{returns_table(cells)}

{comparisons(cells)}

![Learning curves of each contestant; means over seeds with their standard errors]({picture})

Seconds of a processor for a seed, after compilation, plus those of compilation. Each process has one core,
and trains one seed at a time; "elsewhere" is on another machine than ours, and not to be compared.
Waiting does not count, but what else runs on a machine shares its caches:

{seconds_table(cells)}

Not in the tables:

{left_out(cells, missing)}

Hyper-parameters, and how often an update goes through its rollout, which is most of the processor time:

{sources_table(cells)}

The evaluations that rejax makes between updates are left out, since the others have none. Its steps and those
of PureJaxRL go through a wrapper that gives them the `step` of gymnax before 1.0, and nothing of their
[code](../benchmarks/tasks/flax_peers.py) is changed. Measured on:

{where(lines)}
"""


def plot(path: Path, cells: Cells) -> None:
    """Learning curves: means of the seeds, with their standard errors."""
    sys.path.append(str(Path(__file__).parent.parent.parent / "examples"))
    from experiments import figure

    tasks, contestants = present(cells)
    with figure(path, len(tasks), (4.6, 3.1)) as panels:
        for panel, task in zip(panels, tasks, strict=True):
            for who in contestants:
                if (cell := cells.get((task, who))) is None:
                    continue
                points = cell.curves.shape[1]
                steps = cell.steps * (np.arange(points) + 0.5) / points
                count, mean = np.maximum(np.isfinite(cell.curves).sum(0), 1), cell.average()
                squares = np.nansum(np.square(cell.curves - mean), 0)
                error = np.sqrt(squares / np.maximum(count - 1, 1) / count)
                there = np.isfinite(mean)
                width = 1.8 if who == OURS else 1.3
                panel.plot(steps[there], mean[there], color=COLORS[who], lw=width, label=who)
                low, high = (mean - error)[there], (mean + error)[there]
                panel.fill_between(steps[there], low, high, color=COLORS[who], alpha=0.2, lw=0)
            panel.set_title(task, fontsize=10)
            panel.xaxis.set_major_formatter(lambda x, _: f"{x / 1000:.0f}k")
            panel.spines[["top", "right"]].set_visible(False)
            panel.legend(frameon=False, loc="best", fontsize=7)


def write(lines: list[dict[str, Any]], path: Path, picture: Path) -> None:
    """The section into the page, instead of what was there, and the picture beside it."""
    if not any("seed" in line for line in lines):
        raise ValueError(
            "lines: got no seed, expected some; run `python -m benchmarks.tasks` without --no-page"
        )
    text = path.read_text()
    path.write_text(text.replace(section(text, TITLE), "").rstrip("\n") + "\n" + page(lines, picture.name))
    plot(picture, read(lines)[0])
