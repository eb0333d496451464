"""Seconds of contestants that take turns, compilation, and how much two results differ."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks import timing

Rows = list[list[str]]
ROOT = Path(__file__).parent.parent.parent
TRIAL = jax.default_backend() == "cpu"  # smaller, to see that it runs
MANY, SOME, IMAGES, SEQUENCES = (256, 64, 4, 2) if TRIAL else (65536, 4096, 1024, 256)
seconds_of_a_ratio = 0.4


def in_turn(calls: Mapping[str, Callable[[], Any]], seconds: float | None = None) -> dict[str, float]:
    """The median seconds of a call of each, over rounds in which they take turns."""
    seconds = seconds_of_a_ratio if seconds is None else seconds
    times = timing.in_turn(calls, seconds, clock=time.perf_counter, batch=5e-3, least=3)
    return {name: float(np.median(values)) for name, values in times.items()}


def compiled(f: Any, arguments: Any) -> tuple[float, int]:
    """Seconds from the function to the executable, with nothing cached, and its kernels."""
    jax.clear_caches()
    start = time.perf_counter()
    program = f.lower(*arguments).compile()
    return time.perf_counter() - start, kernels_of(program.as_text())


def kernels_of(text: str) -> int:
    """Instructions of an optimized program that start something on the device; loops count once."""
    starts = (" fusion(", " custom-call(", " sort(", " copy(", " while(", " convolution(", " dot(")
    return sum(any(start in line for start in starts) for line in text.splitlines())


def deviation(a: Any, b: Any) -> float:
    """The largest difference of two trees, relative to max(1, |b|)."""
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return max(
        float(np.max(np.abs(x - y) / np.maximum(1, np.abs(y)), initial=0.0))
        for x, y in ((np.asarray(x, np.float64), np.asarray(y, np.float64)) for x, y in pairs)
    )


def alike(a: Any, b: Any) -> str:
    """Of integers how many rows are equal, of floats the largest difference."""
    a, b = np.asarray(a), np.asarray(b)
    if np.issubdtype(a.dtype, np.floating):
        return f"{deviation(a, b):.1e}"
    return f"{(a == b).reshape(len(a), -1).all(1).sum()} of {len(a)}"
