"""What came of a seed, as a line of JSON."""

import platform
from importlib import metadata
from typing import Any, NamedTuple

import numpy as np

POINTS = 20  # of a curve
PACKAGES = (
    "jax", "jaxlib", "numpy", "gymnax", "flax", "distrax", "optax", "rejax", "torch", "gymnasium",
    "stable_baselines3", "sbx-rl", "equinox", "lerax",
)  # fmt: skip


class Seed(NamedTuple):
    """The returns of the training episodes of a seed, by updates, and what they cost."""

    seed: int
    steps: int  # that were made
    returned: np.ndarray  # [update], the sum over the episodes that ended in it
    episodes: np.ndarray  # [update], their number
    seconds: float  # of the processor, without compilation
    compiled: float  # seconds of the processor to compile; the same for all seeds of a process

    def curve(self, points: int = POINTS) -> list[float | None]:
        """The mean return of equal parts of training; None where no episode ended."""
        parts = np.array_split(np.arange(len(self.returned)), min(points, len(self.returned)))
        sums = [(self.returned[part].sum(), self.episodes[part].sum()) for part in parts]
        return [round(float(total / count), 4) if count else None for total, count in sums]

    def final(self) -> float | None:
        """The mean return of the episodes that ended in the last tenth of training.

        If none did, of those in the last update in which any did; None if no episode ever ended.
        """
        last = slice(-max(1, len(self.returned) // 10), None)
        if not self.episodes[last].sum():
            ended = np.flatnonzero(self.episodes)
            if not len(ended):
                return None
            last = slice(int(ended[-1]), int(ended[-1]) + 1)
        return round(float(self.returned[last].sum() / self.episodes[last].sum()), 4)

    def record(self, contestant: str, task: str) -> dict[str, Any]:
        return {
            "contestant": contestant,
            "task": task,
            "seed": self.seed,
            "steps": self.steps,
            "final": self.final(),
            "curve": self.curve(),
            "seconds": round(self.seconds, 3),
            "compile": round(self.compiled, 2),
        }


def processor() -> str:
    """The model of the processor, as Linux tells it, else what Python knows."""
    try:
        with open("/proc/cpuinfo") as file:
            names = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()


def versions() -> dict[str, str]:
    """Python and those packages that are installed."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
