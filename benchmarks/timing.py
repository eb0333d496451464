"""What every measurement has in common: contestants in turn, medians with quartiles, and ratios.

A script has `measure(seconds) -> list[Measured]`, which spends about so many seconds on each case and
raises AssertionError unless the contestants of a case compute the same. All contestants of a case take
turns in every round. Times are those of all processors together, which other work on the machine changes
least. A ratio is that of the times of one round, ours to the other (below 1 ours is faster), of which the
median and the quartiles over the rounds are kept.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from benchmarks.table import aligned

Clock = Callable[[], float]
SCALE = {"us": 1e6, "ms": 1e3, "s": 1.0}
OURS = "ours"


class Measured(NamedTuple):
    """The times of a contestant in a task of a case."""

    case: str
    task: str
    contestant: str
    unit: str
    median: float
    low: float
    """The lower quartile."""
    high: float
    """The upper quartile."""
    repeats: int
    ratio: float | None = None
    """Ours to this contestant, or None for ours."""
    ratio_low: float | None = None
    ratio_high: float | None = None


def quartiles(values: Any) -> tuple[float, float, float]:
    """Median, lower and upper quartile."""
    low, middle, high = np.percentile(np.asarray(values, float), [25, 50, 75])
    return float(middle), float(low), float(high)


def in_turn(
    calls: Mapping[str, Callable[[], Any]],
    seconds: float,
    *,
    clock: Clock = time.process_time,
    batch: float = 2e-3,
    least: int = 5,
) -> dict[str, np.ndarray]:
    """Seconds a call of each contestant, by rounds.

    Args:
        calls: what is timed; arrays that it returns are waited for.
        seconds: the time for all rounds, by the clock.
        clock: `time.process_time`, of all processors together, which other work on the machine changes least;
            or `time.perf_counter`, for what waits for a disk.
        batch: seconds that a contestant calls at a stretch, at least once.
        least: rounds, however long they take.
    """
    once: list[float] = []
    for call in calls.values():
        jax.block_until_ready(call())  # compiles
        start = time.perf_counter()
        jax.block_until_ready(call())
        once.append(time.perf_counter() - start)
    number = max(1, int(batch / max([*once, 1e-9])))
    names = list(calls)
    times: dict[str, list[float]] = {name: [] for name in names}
    end, rounds = clock() + seconds, 0
    while rounds < least or clock() < end:
        turn = rounds % len(names)
        for name in names[turn:] + names[:turn]:
            call = calls[name]
            start = clock()
            for _ in range(number - 1):
                call()
            jax.block_until_ready(call())
            times[name].append((clock() - start) / number)
        rounds += 1
    return {name: np.array(values) for name, values in times.items()}


def measured(
    case: str, task: str, samples: dict[str, Any], unit: str, *, ours: str = OURS, paired: bool = True
) -> list[Measured]:
    """A row for each contestant, ours first.

    Args:
        case: the row of a table.
        task: what is timed.
        samples: seconds by contestant and round.
        unit: "us", "ms" or "s".
        ours: the name of ours among them.
        paired: whether the i-th samples are of one round; otherwise (processes of their own) a ratio is that
            of the medians, and has no quartiles.
    """
    found: list[Measured] = []
    for name in sorted(samples, key=lambda name: name != ours):
        middle, low, high = quartiles(np.asarray(samples[name]) * SCALE[unit])
        ratios: tuple[float | None, ...] = (None, None, None)
        if name != ours and paired:
            ratios = quartiles(np.asarray(samples[ours]) / np.maximum(samples[name], 1e-12))
        elif name != ours:
            ratios = (found[0].median / middle, None, None)
        found.append(Measured(case, task, name, unit, middle, low, high, len(samples[name]), *ratios))
    return found


def same(ours: Any, theirs: Any, rtol: float = 1e-3, atol: float = 1e-5) -> None:
    """Raise AssertionError unless two trees of arrays have the same numbers, leaf by leaf."""
    a, b = jax.tree.leaves(ours), jax.tree.leaves(theirs)
    assert len(a) == len(b), f"{len(a)} arrays against {len(b)}"
    for x, y in zip(a, b, strict=True):
        np.testing.assert_allclose(np.asarray(x, float), np.asarray(y, float), rtol=rtol, atol=atol)


def show(rows: Sequence[Measured]) -> str:
    """A table for a terminal."""
    cells = [
        [
            f"{row.case}, {row.task}",
            row.contestant,
            f"{row.median:.3g} ({row.low:.3g}-{row.high:.3g}) {row.unit}",
            "" if row.ratio is None else f"{row.ratio:.2f}",
            "" if row.ratio_low is None else f"{row.ratio_low:.2f}-{row.ratio_high:.2f}",
        ]
        for row in rows
    ]
    return aligned(("", "", "median (quartiles)", "ours / it", "quartiles"), cells)
