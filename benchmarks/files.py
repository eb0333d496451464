"""Seconds and memory to save and load, against bytes and a hash by hand, and against peers.

Run by `make bench` with 50 thousand and 5 million parameters; `--large` adds 250 million. Every
contestant runs in a process of its own for memory, and all in turn in one process for time:
machines are noisy, so what counts are the ratios of the minima.
"""

import argparse
import hashlib
import importlib
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

import policy_core as pc
from benchmarks.table import aligned
from benchmarks.timing import Clock, Measured, in_turn, measured, same

SIZES = {"50k": 60, "5M": 1540, "250M": 11160}


def config_of(width: int) -> Any:
    """Two towers of two layers: about 4 * width^2 parameters, 60 wide with a larger observation."""
    inputs = 300 if width == 60 else 64
    tower = pc.MLP((width, width), kernel_init="lecun_uniform")
    return pc.ActorCriticConfig(
        observation_space=pc.Box(shape=(inputs,)), action_space=pc.Discrete(4), actor=tower, critic=tower
    )


def policy_of(size: str) -> Any:
    """Params of random bits; a plain loop over the leaves, for 250 million fit once."""
    config = config_of(SIZES[size])
    rng = np.random.default_rng(0)
    template = jax.eval_shape(lambda: config.init(key=jax.random.key(0)))
    params = jax.tree.map(lambda x: jax.device_put(rng.random(x.shape, np.float32)), template)
    return jax.block_until_ready(params), config


def contestants(policy: Any, folder: Path) -> dict[str, tuple[Callable[[], Any], Callable[[], Any]]]:
    """Name to (save, load); what is loaded is on the device."""
    params, config = policy
    flat = {
        jax.tree_util.keystr(p, simple=True, separator="/"): x for p, x in jax.tree.leaves_with_path(params)
    }
    whole = np.concatenate([np.asarray(x).ravel() for x in flat.values()])
    pairs: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {}

    def flush(path: Path) -> None:
        handle = os.open(path, os.O_RDONLY)
        os.fsync(handle)
        os.close(handle)

    def tofile() -> None:
        whole.tofile(folder / "raw")
        hashlib.sha256(whole.view(np.uint8)).digest()  # type: ignore[arg-type]
        flush(folder / "raw")

    def fromfile() -> Any:
        data = np.fromfile(folder / "raw", np.float32)
        hashlib.sha256(data.view(np.uint8)).digest()  # type: ignore[arg-type]
        return data

    pairs["by hand: bytes + sha256"] = tofile, fromfile
    pairs["policy_core"] = (
        lambda: pc.save(folder / "ours", policy, self_test=False),
        lambda: pc.load(folder / "ours", config),
    )
    pairs["policy_core, self-test"] = (
        lambda: pc.save(folder / "tested", policy),
        lambda: pc.load(folder / "tested", config),
    )

    def load_npz() -> Any:
        with np.load(folder / "x.npz") as data:
            return [jax.device_put(data[name]) for name in data.files]

    host = {name: np.asarray(x) for name, x in flat.items()}
    pairs["np.savez"] = lambda: np.savez(folder / "x.npz", **host), load_npz  # type: ignore[arg-type]
    if importlib.util.find_spec("safetensors"):
        safetensors: Any = importlib.import_module("safetensors.flax")

        file = folder / "x.safetensors"
        pairs["safetensors"] = lambda: safetensors.save_file(flat, file), lambda: safetensors.load_file(file)
    if importlib.util.find_spec("flax"):
        serialization: Any = importlib.import_module("flax.serialization")

        def load_flax() -> Any:
            loaded = serialization.from_bytes(params, (folder / "flax").read_bytes())
            return jax.tree.map(jax.device_put, loaded)

        pairs["flax msgpack"] = (
            lambda: (folder / "flax").write_bytes(serialization.to_bytes(params)),
            load_flax,
        )
    if importlib.util.find_spec("equinox"):
        equinox: Any = importlib.import_module("equinox")

        file_eqx = str(folder / "x.eqx")
        pairs["equinox"] = (
            lambda: equinox.tree_serialise_leaves(file_eqx, params),
            lambda: equinox.tree_deserialise_leaves(file_eqx, params),
        )
    if importlib.util.find_spec("orbax"):
        import logging

        checkpoint: Any = importlib.import_module("orbax.checkpoint")

        logging.disable(logging.WARNING)
        checkpointer = checkpoint.StandardCheckpointer()

        def save_orbax() -> None:
            checkpointer.save(folder / "orbax", params, force=True)
            checkpointer.wait_until_finished()

        pairs["orbax"] = save_orbax, lambda: checkpointer.restore(folder / "orbax", params)
    return pairs


def seconds(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    jax.block_until_ready(call())
    return time.perf_counter() - start


def compare(size: str, rounds: int) -> None:
    policy = policy_of(size)
    count = sum(x.size for x in jax.tree.leaves(policy[0]))
    with tempfile.TemporaryDirectory() as folder:
        pairs = contestants(policy, Path(folder))
        best = {name: [np.inf, np.inf] for name in pairs}
        for _ in range(rounds):
            for name, calls in pairs.items():
                for i, call in enumerate(calls):
                    best[name][i] = min(best[name][i], seconds(call))
        memory = {way: peak_memory(size, Path(folder) / "ours", way) for way in ("load", "save")}
        nbytes = (Path(folder) / "ours").stat().st_size
    print(f"\n{size}: {count:,} parameters, the least of {rounds} rounds")
    base, rows = best["by hand: bytes + sha256"], []
    for name, (save, load) in best.items():
        ratios = f"{save / base[0]:.2f}", f"{load / base[1]:.2f}"
        rows.append([name, f"{save * 1e3:.2f}", ratios[0], f"{load * 1e3:.2f}", ratios[1]])
    print(aligned(("", "save ms", "ratio", "load ms", "ratio"), rows))
    ratio, extra = memory["load"] / nbytes, memory["save"] / 2**20
    print(f"policy_core, peak extra memory: load {ratio:.2f} of the file, save {extra:.0f} MiB")


def compare_members(rounds: int) -> None:
    """Time to load one member of 1,024 policies of 64x64, against the time to load all of them."""
    config = pc.ActorCriticConfig(
        observation_space=pc.Box(shape=(8,)), action_space=pc.Discrete(4), normalize=pc.Normalize()
    )
    template = jax.eval_shape(lambda: config.init(key=jax.random.key(0)))
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda x: jax.device_put(rng.random((1024, *x.shape), np.float32)), template)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "population"
        pc.save(path, (params, config), self_test=False)
        calls: dict[str, Callable[[], Any]] = {
            "load": lambda: pc.load(path, config),
            "load, member": lambda: pc.load(path, config, member=700),
            "load and index": lambda: jax.tree.map(lambda x: x[700], pc.load(path, config)),
        }
        best = dict.fromkeys(calls, np.inf)
        for _ in range(rounds):
            for name, call in calls.items():
                best[name] = min(best[name], seconds(call))
        nbytes = path.stat().st_size
    print(f"\n1,024 members, {nbytes:,} bytes, the least of {rounds} rounds")
    rows = [[name, f"{time * 1e3:.2f}", f"{time / best['load']:.2f}"] for name, time in best.items()]
    print(aligned(("", "ms", "ratio"), rows))


def values_of(loaded: Any) -> np.ndarray:
    """All numbers that were loaded, in order of size: formats have orders of their own."""
    return np.sort(np.concatenate([np.ravel(np.asarray(x)) for x in jax.tree.leaves(loaded)]))


def measure(
    seconds: float = 3.0,
    *,
    sizes: tuple[str, ...] = ("50k", "5M"),
    ways: tuple[str, ...] = ("save", "load"),
    peers: tuple[str, ...] | None = None,
    clock: Clock = time.perf_counter,
) -> list[Measured]:
    """To save and to load, against bytes and a hash by hand and, unless `peers` are named, every format here.

    What each loads is compared first. Peers verify nothing when they load, and do not flush when they save.
    """
    found = []
    for size in sizes:
        policy = policy_of(size)
        with tempfile.TemporaryDirectory() as folder:
            pairs = contestants(policy, Path(folder))
            pairs = {name: pairs[name] for name in pairs if peers is None or name in peers or "core" in name}
            expected = values_of(policy[0])
            for save, load in pairs.values():
                save()
                same(values_of(load()), expected, rtol=0, atol=0)
            for i, way in enumerate(("save", "load")):
                if way not in ways:
                    continue
                calls = {name: pair[i] for name, pair in pairs.items()}
                del calls["policy_core, self-test"]  # the same file, with rows that a load does not run
                times = in_turn(calls, seconds, clock=clock)
                times = {"ours" if name == "policy_core" else name: x for name, x in times.items()}
                found += measured(f"{size} parameters", way, times, "ms")
    return found


MEMORY = """
import json, re, sys
def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
sys.path.insert(0, sys.argv[4])
import files, policy_core as pc, jax
config = files.config_of(files.SIZES[sys.argv[2]])
with __import__("tempfile").TemporaryDirectory() as folder:
    small = files.policy_of("50k")
    pc.save(folder + "/warm", small, self_test=False)
    pc.load(folder + "/warm")
    policy = files.policy_of(sys.argv[2]) if sys.argv[3] == "save" else None
    jax.eval_shape(lambda: config.init(key=jax.random.key(0)))
    open("/proc/self/clear_refs", "w").write("5")  # the peak begins anew
    before = peak()
    if sys.argv[3] == "save":
        pc.save(folder + "/x", policy, self_test=False)
    else:
        policy = pc.load(sys.argv[1], config)
    print(json.dumps((peak() - before) * 1024))
"""


def peak_memory(size: str, path: Path, way: str) -> int:
    """Bytes that the peak of a fresh process grows by."""
    command = [sys.executable, "-c", MEMORY, str(path), size, way, str(Path(__file__).parent)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(json.loads(result.stdout.splitlines()[-1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--large", action="store_true", help="also 250 million parameters: 8 GB of memory")
    options = parser.parse_args()
    for size, rounds in (("50k", 200), ("5M", 15), *((("250M", 2),) if options.large else ())):
        compare(size, rounds)
    compare_members(30)


if __name__ == "__main__":
    main()
