"""Where the time of a load and a save goes, part by part, and what importing the runner adds to NumPy.

Run by `make bench-deploy`. `--large` adds the memory that a load of 250 million parameters takes, alone in a
process: 2 GB of memory and 1 GB of disk. CPU time of all threads, which other work on the machine changes
least; the parts of a round are taken in turn.
"""

import argparse
import hashlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from policy_core_adapters import numpy_runner

import policy_core as pc
from benchmarks import files
from benchmarks.table import aligned
from policy_core.files import checksum, configs, document, policies, storage

Row = tuple[str, str, float, float]
"""A task, a part of it, and its CPU time and its time in microseconds."""


def timed(calls: dict[str, Callable[[], Any]], rounds: int) -> dict[str, tuple[float, float]]:
    """Medians of the CPU time and the time of each call, in microseconds."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            cpu, start = time.process_time(), time.perf_counter()
            result = jax.block_until_ready(call())
            times[name].append((time.process_time() - cpu, time.perf_counter() - start))
            del result
    middle = {name: map(statistics.median, zip(*each, strict=True)) for name, each in times.items()}
    return {name: (cpu * 1e6, wall * 1e6) for name, (cpu, wall) in middle.items()}


def stages(path: Path, config: Any) -> dict[str, tuple[float, float]]:
    """One load, stage after stage as in `policy_core.load`: CPU time and time of each in microseconds."""
    times: dict[str, tuple[float, float]] = {}
    last = time.process_time(), time.perf_counter()

    def done(stage: str) -> None:
        nonlocal last
        now = time.process_time(), time.perf_counter()
        times[stage] = (now[0] - last[0]) * 1e6, (now[1] - last[1]) * 1e6
        last = time.process_time(), time.perf_counter()

    data, blocks = storage.read_file(path, document.check_start)
    done("read" if blocks is None else "read and hash, on all cores")
    version, content = document.check_start(data), data[: checksum.content_size(len(data))]
    expected = checksum.read_ending(data[len(content) :], len(content))
    if blocks is None:
        blocks = checksum.digests([content])
        done("hash")
    checksum.check_blocks(blocks, expected)
    read = document.READERS[version](content)
    done("the map, and all headers")
    configs.decode(read, config)
    specs, structure = configs.specs_of(config, len(read.leaves))
    rows = {row.path: row for row in read.leaves}
    assert specs == {row.path: (row.dtype, row.shape) for row in read.leaves}
    done("the config, and its params")
    views = [rows[name].array() for name in specs]
    done("views of the leaves")
    leaves = jax.device_put(views, may_alias=True)
    done("jax.device_put")
    jax.block_until_ready(jax.tree.unflatten(structure, leaves))
    done("waiting for the arrays")
    return times


def of_a_load(size: str, rounds: int, folder: Path) -> list[Row]:
    """The stages of a load, in turn with a load and what does the same by hand; medians."""
    policy = files.policy_of(size)
    path, config = folder / size, policy[1]
    pc.save(path, policy, self_test=False)
    count = len(jax.tree.leaves(policy))
    del policy

    def by_hand() -> Any:
        data: Any = np.fromfile(path, np.uint8)
        return hashlib.sha256(data).digest()

    each: list[dict[str, tuple[float, float]]] = []
    calls: dict[str, Callable[[], Any]] = {
        "all of it": lambda: pc.load(path, config)[0],
        "by hand: np.fromfile and one SHA-256": by_hand,
        "stage by stage": lambda: each.append(stages(path, config)),
    }
    found = timed(calls, rounds)
    found |= {
        stage: (statistics.median(x[stage][0] for x in each), statistics.median(x[stage][1] for x in each))
        for stage in each[0]
    }
    return [(f"load {size}, {count} leaves", part, *times) for part, times in found.items()]


def of_a_save(size: str, rounds: int, folder: Path) -> list[Row]:
    """The parts of a save, without a self-test, and what does the same by hand."""
    policy = files.policy_of(size)
    parts = policies.parts_of(policy, self_test=False)
    whole: Any = np.concatenate([np.asarray(x).ravel() for x in jax.tree.leaves(policy[0])])

    def by_hand() -> None:
        hashlib.sha256(whole.view(np.uint8)).digest()
        with open(folder / "temporary", "wb") as file:
            file.write(whole)
            file.flush()
            os.fsync(file.fileno())
        os.replace(folder / "temporary", folder / "by hand")
        handle = os.open(folder, os.O_RDONLY)
        os.fsync(handle)
        os.close(handle)

    calls: dict[str, Callable[[], Any]] = {
        "all of it": lambda: pc.save(folder / "file", policy, self_test=False),
        "by hand: bytes, SHA-256, flush, rename, flush of the folder": by_hand,
        "the bytes, hashed": lambda: policies.parts_of(policy, self_test=False),
        "hash": lambda: checksum.digests(parts[:-1]),
        "written, flushed, renamed": lambda: storage.write_atomically(folder / "file", parts),
    }
    return [(f"save {size}", part, *times) for part, times in timed(calls, rounds).items()]


def of_an_import(rounds: int) -> list[Row]:
    """Fresh processes in turn, whose bytecode is on the disk: what is imported after NumPy and msgpack."""
    script = (
        "import time, numpy, msgpack; c, s = time.process_time(), time.perf_counter(); import {}; "
        "print(time.process_time() - c, time.perf_counter() - s)"
    )
    options: dict[str, Any] = {
        "cwd": Path(numpy_runner.__file__).parents[2],
        "env": {name: x for name, x in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"},
        "capture_output": True,
        "text": True,
        "check": True,
    }
    modules = {"the runner": "policy_core_adapters.numpy_runner", "hashlib, which it needs": "hashlib"}
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in modules}
    for i in range(rounds + 1):
        for name, module in modules.items():
            result = subprocess.run([sys.executable, "-c", script.format(module)], **options)
            cpu, wall = map(float, result.stdout.split())
            if i:
                times[name].append((cpu * 1e6, wall * 1e6))
    middle = {name: map(statistics.median, zip(*each, strict=True)) for name, each in times.items()}
    return [("import after NumPy and msgpack", name, *each) for name, each in middle.items()]


def measure(rounds: int = 200) -> list[Row]:
    """All rows; larger files get fewer rounds."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        return [
            *of_a_load("50k", rounds, folder),
            *of_a_load("5M", max(rounds // 10, 3), folder),
            *of_a_save("50k", rounds, folder),
            *of_an_import(max(rounds // 10, 3)),
        ]


def alone(size: str) -> None:
    """The memory and the time of one load in a fresh process, against the size of the file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file"
        policy = files.policy_of(size)
        pc.save(path, policy, self_test=False)
        del policy
        nbytes = path.stat().st_size
        start = time.perf_counter()
        peak = files.peak_memory(size, path, "load")
        wall = time.perf_counter() - start
    print(f"load {size}: {nbytes:,} bytes, peak extra memory {peak / nbytes:.3f} of them, {wall:.1f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--large", action="store_true", help="also the memory of 250 million parameters")
    options = parser.parse_args()
    table = [[task, part, f"{cpu:,.0f}", f"{wall:,.0f}"] for task, part, cpu, wall in measure()]
    print(aligned(("", "part", "CPU us", "us"), table))
    if options.large:
        alone("250M")


if __name__ == "__main__":
    main()
