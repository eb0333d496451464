"""`make bench-quick`: some ratios against those of `benchmarks/recorded.json`.

Ratios carry over between machines better than times do. A ratio may be worse than the recorded one by 15 %;
one that is, is measured a second time, longer, and the better of both counts.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

RECORDED = Path(__file__).with_name("recorded.json")
ALLOWED = 1.15
TASKS = ("act, 1", "draw 64", "gradient 64")
COMPILED = (
    ("64 to Discrete(18)", "draw 64"),
    ("27 to Box(8)", "gradient 64"),
    ("the same, squashed", "gradient 64"),
)

Cell = Callable[[float], float]
"""From a factor of the usual time to the ratio of ours to its floor."""


def cells() -> dict[str, Cell]:
    """What is measured, by name. Imports JAX."""
    from benchmarks import files, floor, numpy_runner

    def run(name: str, task: str) -> Cell:
        return lambda more: _ratio(floor.run_times(name, task, 0.6 * more))

    def compiling(name: str, task: str) -> Cell:
        return lambda more: _ratio(floor.compile_times(name, task, round(3 * more)))

    def runner(name: str) -> Cell:
        return lambda more: _ratio(numpy_runner.measure(1.5 * more, names=(name,)), "NumPy by hand")

    def loading(more: float) -> float:
        import time

        rows = files.measure(
            2.0 * more,
            sizes=("50k",),
            ways=("load",),
            peers=("by hand: bytes + sha256",),
            clock=time.process_time,
        )
        return _ratio(rows)

    found: dict[str, Cell] = {}
    for name in floor.ROWS:
        for task in TASKS:
            found[f"{name}: {task}"] = run(name, task)
    found["64 to Discrete(18): population 32 x 16"] = run("64 to Discrete(18)", "population 32 x 16")
    for name, task in COMPILED:
        found[f"{name}: compile {task}"] = compiling(name, task)
    for name in ("Discrete", "NormalHead"):
        found[f"runner without JAX: {name}"] = runner(name)
    found["load of 50k parameters"] = loading
    return found


def _ratio(rows: list, contestant: str = "") -> float:  # type: ignore[type-arg]
    found = [row.ratio for row in rows if row.ratio is not None and contestant in row.contestant]
    if len(found) != 1:
        raise ValueError(f"got {len(found)} ratios, expected one")
    return float(found[0])


class Verdict(NamedTuple):
    """What became of a row."""

    name: str
    was: float
    now: float
    allowed: float

    @property
    def fails(self) -> bool:
        return self.now > self.allowed

    def __str__(self) -> str:
        mark = "FAILS" if self.fails else "ok"
        return f"{self.name}: was {self.was:.2f}, is {self.now:.2f}, allowed {self.allowed:.2f}: {mark}"


def judge(name: str, recorded: dict[str, float], measure: Cell) -> Verdict:
    """Measure a row, a second time if it fails.

    Raises:
        KeyError: if it is not among the recorded ones.
    """
    if name not in recorded:
        raise KeyError(f"{name!r} is not in {RECORDED.name}; write it with `python -m benchmarks --record`")
    was = recorded[name]
    verdict = Verdict(name, was, measure(1.0), ALLOWED * was)
    if verdict.fails:
        verdict = verdict._replace(now=min(verdict.now, measure(2.0)))
    return verdict


def check(measures: dict[str, Cell], recorded: dict[str, float], show: Callable[[str], None] = print) -> bool:
    """Whether no row is worse than allowed; a line for each is shown.

    Raises:
        KeyError: for a row that is not recorded, or recorded and no longer measured, before any is measured.
    """
    missing, gone = sorted(set(measures) - set(recorded)), sorted(set(recorded) - set(measures))
    if missing or gone:
        raise KeyError(
            f"{RECORDED.name} lacks {missing} and has {gone}, which is not measured; "
            "write it anew with `python -m benchmarks --record`"
        )
    verdicts = []
    for name, measure in measures.items():
        verdicts.append(judge(name, recorded, measure))
        show(str(verdicts[-1]))
    failed = [verdict for verdict in verdicts if verdict.fails]
    show(f"{len(verdicts) - len(failed)} of {len(verdicts)} rows are as recorded, or better")
    return not failed


def record(
    measures: dict[str, Cell], times: int = 3, show: Callable[[str], None] = print
) -> dict[str, float]:
    """The medians of some measurements of each row."""
    found: dict[str, list[float]] = {name: [] for name in measures}
    for _ in range(times):
        for name, measure in measures.items():
            found[name].append(measure(1.0))
    for name, ratios in found.items():
        show(f"{name}: {', '.join(f'{ratio:.2f}' for ratio in ratios)}")
    return {name: round(float(np.median(ratios)), 3) for name, ratios in found.items()}


def load() -> dict[str, float]:
    ratios: dict[str, float] = json.loads(RECORDED.read_text())
    return ratios
