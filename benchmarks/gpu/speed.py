"""Run time, compilation and kernels beside the same by hand, flax and equinox; populations; files."""

import hashlib
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import policy_core as pc
from benchmarks import floor
from benchmarks.files import policy_of
from benchmarks.gpu.measure import IMAGES, MANY, SEQUENCES, SOME, Rows, compiled, in_turn

TASKS = (
    "act, 1", f"draw {SOME}", f"draw {MANY}", f"gradient {SOME}", f"gradient {MANY}", "population 256 x 64",
)  # fmt: skip


def floor_rows() -> dict[str, Any]:
    """Beside plain jax.numpy: run time as a ratio and microseconds, compile time as a ratio, kernels."""
    rows: Rows = []
    compilation: Rows = []
    for name, row in floor.ROWS.items():
        cells = []
        for task in TASKS:
            both, arguments = floor.contestants(row, task)
            times = in_turn({who: partial(f, *arguments) for who, f in both.items()})
            cells.append(f"{times['ours'] / times['floor']:.2f} ({times['ours'] * 1e6:.0f})")
        rows.append([name, *cells])
        cells = []
        for task in TASKS[1::2][:2]:
            both, arguments = floor.contestants(row, task)
            (floors, fewest), (seconds, kernels) = (
                compiled(both[who], arguments) for who in ("floor", "ours")
            )
            cells += [f"{seconds / floors:.2f} ({seconds:.2f} s)", f"{kernels} / {fewest}"]
        compilation.append([name, *cells])
    return {"tasks": TASKS, "rows": rows, "compiled": compilation}


def images() -> dict[str, Any]:
    """Towers against flax, images of 84 x 84 x 4 bytes."""
    from benchmarks import encoders

    x = jnp.asarray(np.random.default_rng(0).integers(0, 256, (IMAGES, *encoders.SHAPE)), jnp.uint8)
    rows: Rows = []
    towers: dict[str, tuple[Any, Any]] = {
        "Nature": (pc.NatureCNN(), encoders.Nature()),
        "IMPALA": (pc.ImpalaCNN(), encoders.Impala()),
    }
    for title, (encoder, module) in towers.items():
        both = {"ours": encoders.ours(encoder), "flax": encoders.of_flax(module)}
        for what in ("forward", "gradient"):
            programs = {
                name: partial(encoders.lowered(apply, what, params, x).compile(), params, x)
                for name, (params, apply) in both.items()
            }
            times = in_turn(programs, 0.8)
            rows.append(
                [
                    f"{title}, {what}",
                    f"{times['ours'] * 1e3:.2f}",
                    f"{times['ours'] / times['flax']:.2f}",
                    f"{IMAGES / times['ours']:,.0f}",
                ]
            )
    return {"rows": rows}


def memories() -> dict[str, Any]:
    """Cells of 128 over sequences against flax and equinox."""
    from benchmarks import memory

    rows: Rows = []
    rng = np.random.default_rng(0)
    for length in memory.TIMES:
        xs = jnp.array(rng.standard_normal((SEQUENCES, length, memory.SIZE)), jnp.float32)
        first = jnp.array(rng.random((SEQUENCES, length)) < 0.02)
        for gradient in (False, True):
            calls = {
                name: partial(memory.compiled(sequence, gradient, params, xs, first), params, xs, first)
                for name, (params, sequence) in memory.contestants().items()
                if not name.startswith("Window")
            }
            ms = {name: seconds * 1e3 for name, seconds in in_turn(calls, 0.8).items()}
            rows.append(
                [
                    f"T = {length}, {'gradient' if gradient else 'forward'}",
                    f"{ms['GRU']:.2f}",
                    f"{ms['GRU'] / ms['GRU, flax']:.2f}",
                    f"{ms['GRU'] / ms['GRU, equinox']:.2f}",
                    f"{ms['LSTM']:.2f}",
                    f"{ms['LSTM'] / ms['LSTM, flax']:.2f}",
                    f"{ms['LSTM'] / ms['LSTM, equinox']:.2f}",
                    f"{ms['MinGRU']:.2f}",
                ]
            )
    return {"rows": rows}


def members() -> dict[str, Any]:
    """`act` of a population, one observation a member."""
    config = pc.ActorCriticConfig(observation_space=pc.Box(shape=(27,)), action_space=pc.Box(shape=(8,)))
    act = jax.jit(jax.vmap(lambda policy, x: pc.act(policy, (), x)[1]))
    rows: Rows = []
    for n in (1, 64, MANY // 64, MANY // 4):
        population = pc.population.init(config, n, key=jax.random.key(0))
        x = jnp.ones((n, 27))
        seconds = in_turn({"act": partial(act, population, x)})["act"]
        size = sum(leaf.nbytes for leaf in jax.tree.leaves(population[0]["actor"]))
        rows.append([f"{n:,}", f"{seconds * 1e6:.0f}", f"{n / seconds:,.0f}", f"{size / seconds / 1e9:.0f}"])
    return {"rows": rows}


def files() -> dict[str, Any]:
    """A load onto the device, beside reading, hashing and transferring the same bytes by hand."""
    rows: Rows = []
    with tempfile.TemporaryDirectory() as folder:
        for size in ("50k", "5M"):
            policy = policy_of(size)
            path = Path(folder) / size
            pc.save(path, policy)
            leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(policy)]
            np.concatenate([leaf.ravel() for leaf in leaves]).tofile(path.with_suffix(".raw"))

            def by_hand(path: Path = path, leaves: Any = leaves) -> Any:
                data = np.fromfile(path.with_suffix(".raw"), np.float32)
                hashlib.sha256(data.tobytes()).digest()
                ends = np.cumsum([leaf.size for leaf in leaves])[:-1]
                return [jax.device_put(part) for part in np.split(data, ends)]

            calls: dict[str, Callable[[], Any]] = {
                "ours": partial(lambda path, config: pc.load(path, config)[0], path, policy[1]),
                "by hand": by_hand,
            }
            ms = {name: seconds * 1e3 for name, seconds in in_turn(calls, 0.8).items()}
            rows.append(
                [size, f"{ms['ours']:.2f}", f"{ms['by hand']:.2f}", f"{ms['ours'] / ms['by hand']:.2f}"]
            )
    return {"rows": rows}
