"""Batches of seeds as processes of their own, the most important first, until the time is over."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from benchmarks.defaults.train import EXCLUSIVE

ROOT = Path(__file__).parent.parent.parent
Device = Literal["cpu", "gpu"]
Cells = tuple[tuple[str, str], ...]  # pairs of a setting and a network


class Batch(NamedTuple):
    """Some seeds of cells that are one program."""

    cells: Cells
    seeds: range
    device: Device
    seconds: float  # that it is expected to take, with its start and its compilation


class Wanted(NamedTuple):
    """Seeds of cells that are one program, and what is known of the time they take."""

    cells: Cells
    seeds: range
    device: Device = "cpu"
    start: float = 12.0  # seconds until it runs
    seed: float = 0.0  # seconds of a seed of all cells


def covered(lines: Iterable[str]) -> dict[tuple[str, str], set[int]]:
    """The seeds that the lines of a file of runs have, of each cell."""
    seeds: dict[tuple[str, str], set[int]] = {}
    for batch in map(json.loads, lines):
        first, key = batch["first"], (batch["setting"], batch["network"])
        seeds.setdefault(key, set()).update(range(first, first + batch["seeds"]))
    return seeds


def batches(
    wanted: Iterable[Wanted], seeds: Mapping[tuple[str, str], set[int]], longest: float = 70.0
) -> list[Batch]:
    """What is missing, in the order of `wanted`, in equal parts that are expected to take at most `longest`.

    A seed is missing if one of the cells lacks it. A batch on a GPU is not split: there a hundred seeds take
    little longer than one.
    """
    found = []
    for want in wanted:
        missing = [seed for seed in want.seeds if any(seed not in seeds.get(c, ()) for c in want.cells)]
        size = len(want.seeds)
        if want.device == "cpu" and want.seed > 0:
            size = max(1, min(size, int((longest - want.start) / want.seed)))
        while missing:
            run = [seed for i, seed in enumerate(missing) if seed == missing[0] + i]  # without a gap
            part = run[: -(-len(run) // -(-len(run) // size))]
            expected = want.start + want.seed * len(part)
            found.append(Batch(want.cells, range(part[0], part[-1] + 1), want.device, expected))
            missing = missing[len(part) :]
    return found


def next_batch(waiting: Sequence[Batch], device: Device, left: float, pace: float = 1.0) -> int | None:
    """The index of the first batch for the device that is expected to end within `left` seconds, if any.

    `pace` is what batches took so far, in what was expected of them.
    """
    for i, batch in enumerate(waiting):
        if batch.device == device and batch.seconds * pace <= left:
            return i
    return None


def pace_of(taken: Sequence[tuple[float, float]]) -> float:
    """The median of taken / expected; 1 before anything ended."""
    ratios = sorted(seconds / expected for seconds, expected in taken)
    return ratios[len(ratios) // 2] if ratios else 1.0


# PROCESSES -----------------------------------------------------------------------------------


class Running(NamedTuple):
    """A process, and the files that it prints to."""

    process: subprocess.Popen[bytes]
    batch: Batch
    begun: float
    result: Path
    log: Path


def command(batch: Batch, steps: int | None) -> list[str]:
    """What prints the batch, a line a cell."""
    told = json.dumps({"cells": batch.cells, "first": batch.seeds.start, "seeds": len(batch.seeds)})
    more = [] if steps is None else ["--steps", str(steps)]
    return [sys.executable, "-m", "benchmarks.defaults", "--batch", told, *more]


def spawn(batch: Batch, cores: set[int], folder: Path, number: int, steps: int | None) -> Running:
    """A process for the batch, on those cores."""
    result, log = folder / f"{number}.jsonl", folder / f"{number}.log"
    paths = [str(ROOT), str(ROOT / "adapters"), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(paths),
        "JAX_PLATFORMS": "cpu" if batch.device == "cpu" else "cuda",
        "JAX_COMPILATION_CACHE_DIR": str(folder / "compiled"),  # the same network has few programs
        "OMP_NUM_THREADS": str(len(cores)),
        "OPENBLAS_NUM_THREADS": str(len(cores)),
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
    }
    if batch.device == "gpu":
        environment[EXCLUSIVE] = str(folder / "gpu.lock")
        environment["JAX_DEFAULT_MATMUL_PRECISION"] = "highest"  # float32, as on a CPU
        environment["XLA_FLAGS"] = "--xla_gpu_autotune_level=0"  # which takes longer than it saves here
    with result.open("wb") as out, log.open("wb") as err:
        process = subprocess.Popen(command(batch, steps), stdout=out, stderr=err, env=environment, cwd=ROOT)
    os.sched_setaffinity(process.pid, cores)  # before it has another thread
    return Running(process, batch, time.monotonic(), result, log)


def train_all(
    waiting: Sequence[Batch],
    out: Path,
    cores: int,
    gpu_processes: int,
    budget: float,
    gpu_budget: float | None = None,
    steps: int | None = None,
) -> int:
    """Run batches, and append what they print to `out` as soon as they end; the number that failed.

    Each batch for a CPU has a core of its own, those for a GPU have the cores that remain, and take turns on
    the device. What has not ended after `budget` seconds, or `gpu_budget` for those, is ended, and lost.
    """
    budgets: dict[Device, float] = {"cpu": budget, "gpu": budget if gpu_budget is None else gpu_budget}
    available = sorted(os.sched_getaffinity(0))
    if cores > len(available):
        raise SystemExit(f"--cores: got {cores}, but {len(available)} are available")
    rest = set(available[cores:]) or set(available)
    slots: dict[str, tuple[Device, set[int]]] = {
        f"core {core}": ("cpu", {core}) for core in available[:cores]
    }
    slots |= {f"gpu, process {i}": ("gpu", rest) for i in range(gpu_processes)}
    waiting, running, well, failed = list(waiting), dict[str, Running](), 0, 0
    taken: dict[Device, list[tuple[float, float]]] = {"cpu": [], "gpu": []}
    out.parent.mkdir(parents=True, exist_ok=True)
    begun, number = time.monotonic(), 0

    def report(slot: str, run: Running, what: str) -> None:
        elapsed, took = time.monotonic() - begun, time.monotonic() - run.begun
        (setting, network), *others = run.batch.cells
        more = f" and {len(others)} more" if others else ""
        seeds = f"seeds {run.batch.seeds.start} to {run.batch.seeds.stop - 1}"
        expected = f"{took:.0f} s, expected {run.batch.seconds:.0f}"
        print(
            f"{elapsed:4.0f} s, {slot}: {setting}: {network}{more}, {seeds}: {what} ({expected})", flush=True
        )

    with tempfile.TemporaryDirectory() as name, out.open("a") as file:
        try:
            while True:
                left = {device: budgets[device] - (time.monotonic() - begun) for device in budgets}
                for slot, (device, own) in slots.items():
                    if slot in running:
                        continue
                    i = next_batch(waiting, device, left[device], pace_of(taken[device]))
                    if i is not None:
                        running[slot] = spawn(waiting.pop(i), own, Path(name), number, steps)
                        number += 1
                if not running:
                    break
                time.sleep(0.1)
                for slot, run in list(running.items()):
                    code = run.process.poll()
                    if code is None and left[run.batch.device] <= 0:
                        run.process.kill()
                        run.process.wait()
                        report(slot, run, "ended, the time is over")
                    elif code is None:
                        continue
                    elif code:
                        failed += 1
                        report(slot, run, f"failed with {code}")
                        print(run.log.read_text(errors="replace")[-3000:], file=sys.stderr, flush=True)
                    else:
                        text = run.result.read_text()
                        means = [summary(json.loads(line)) for line in text.splitlines()]
                        file.write(text)
                        file.flush()
                        taken[run.batch.device].append((time.monotonic() - run.begun, run.batch.seconds))
                        well += 1
                        report(slot, run, "; ".join(means))
                    del running[slot]
        finally:  # interrupted or terminated, nothing is left running
            for run in running.values():
                run.process.kill()
                run.process.wait()
    print(
        f"{well} batches of {number} ended well, {failed} failed, {len(waiting)} were not begun", flush=True
    )
    return failed


def summary(batch: dict[str, Any]) -> str:
    """The mean of the last point of the curves, and the seconds of a seed."""
    ends = [curve[-1] for curve in batch["curves"]]
    return f"{sum(ends) / len(ends):.1f} in {batch['seconds']:.2f} s"
