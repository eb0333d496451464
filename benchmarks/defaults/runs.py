"""What the file of runs says of each cell: returns, times, and differences with their standard errors."""

import json
import math
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.defaults.settings import DEFAULTS, EVERYTHING, ORTHOGONAL, SAME_KERNELS

SURE = 2.6  # standard errors; beyond them is one difference in a hundred of nothing but chance
Host = tuple[str, str]  # the model of a processor and the version of jax
UNKNOWN: Host = ("two shared cores", "0.10.2")  # of batches that do not say it


@dataclass(frozen=True)
class Mean:
    """A mean over seeds, with its standard error."""

    value: float
    error: float
    count: int

    @classmethod
    def of(cls, numbers: np.ndarray) -> "Mean":
        error = float(numbers.std(ddof=1) / math.sqrt(len(numbers))) if len(numbers) > 1 else math.inf
        return cls(float(numbers.mean()), error, len(numbers))

    def minus(self, other: "Mean") -> "Mean":
        """The difference of two means of independent seeds."""
        error = math.hypot(self.error, other.error)
        return Mean(self.value - other.value, error, min(self.count, other.count))

    def sure(self) -> int:
        """1 or -1 if it is above or below 0 by `SURE` standard errors, else 0."""
        return int(np.sign(self.value)) if abs(self.value) > SURE * max(self.error, 1e-9) else 0


@dataclass(frozen=True)
class Cell:
    """All seeds of a network in a setting."""

    curves: np.ndarray  # [seed, point]
    seconds: dict[Host, tuple[float, int]]  # of a CPU: seconds of a seed, and seeds
    machines: dict[str, int]  # seeds on each kind of device, with its version of jax

    def ends(self, fraction: float = 1.0) -> np.ndarray:
        """The return of each seed in a tenth of training, that before `fraction` of it, or the last one."""
        points = self.curves.shape[1]
        stop = max(1, round(min(fraction, 1.0) * points))
        return np.asarray(np.nanmean(self.curves[:, max(0, stop - max(1, points // 10)) : stop], axis=1))

    @property
    def mean(self) -> Mean:
        return Mean.of(self.ends())

    def fell(self) -> float:
        """The part of the seeds that end more than a fifth below their best point; of positive returns."""
        return float((self.ends() < 0.8 * np.nanmax(self.curves, axis=1)).mean())

    def time_in(self, other: "Cell") -> float | None:
        """Seconds of a seed in those of the other, where most seeds of both ran on equal processors."""
        shared = self.seconds.keys() & other.seconds.keys()
        if not shared:
            return None
        host = max(shared, key=lambda host: min(self.seconds[host][1], other.seconds[host][1]))
        return self.seconds[host][0] / other.seconds[host][0]


Cells = dict[tuple[str, str], Cell]


def read(path: Path) -> Cells:
    """The batches of the file together, in the order of `EVERYTHING`; in `SAME_KERNELS` for both networks.

    Raises:
        ValueError: for a batch of a setting or a network that is not there.
    """
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for number, line in enumerate(path.read_text().splitlines(), 1):
        batch = json.loads(line)
        name, network = batch["setting"], batch["network"]
        if name not in EVERYTHING or network not in EVERYTHING[name][1]:
            raise ValueError(f"{path.name}, line {number}: there is no {network!r} in {name!r}")
        found.setdefault((name, network), []).append(batch)
    for name in SAME_KERNELS:
        if (name, ORTHOGONAL) in found:
            found.setdefault((name, DEFAULTS), found[name, ORTHOGONAL])
    return {
        (name, network): cell_of(found[name, network])
        for name, (_, networks) in EVERYTHING.items()
        for network in networks
        if (name, network) in found
    }


def cell_of(batches: list[dict[str, Any]]) -> Cell:
    seconds, seeds = defaultdict[Host, float](float), defaultdict[Host, int](int)
    machines = defaultdict[str, int](int)
    for batch in batches:
        host = (batch.get("processor", UNKNOWN[0]), batch.get("jax", UNKNOWN[1]))
        machines[f"{host[0]}, jax {host[1]}"] += batch["seeds"]
        if batch.get("device", "cpu") == "cpu":
            seconds[host] += batch["seconds"] * batch["seeds"]
            seeds[host] += batch["seeds"]
    curves = {
        batch["first"] + i: curve for batch in batches for i, curve in enumerate(batch["curves"])
    }  # of a seed that was trained twice, the later one
    rows = np.array([curves[seed] for seed in sorted(curves)], np.float64)
    return Cell(rows, {host: (seconds[host] / seeds[host], seeds[host]) for host in seconds}, dict(machines))
