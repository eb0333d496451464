"""Sampling a categorical: one uniform number against a Gumbel number for each class.

Run by `make bench`. Rows have keys of their own under `vmap`, as in a rollout. All contestants
take turns in every round; a ratio below 1 says that ours is faster.
"""

import importlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import policy_core as pc
from benchmarks.table import lines
from policy_core.distributions import Categorical

distrax: Any = importlib.import_module("distrax")  # untyped, and of the `bench` extra only

CLASSES, BATCHES = (2, 18, 256, 1024), (1, 64, 4096)
SECONDS, ROUNDS = 1.5, 15  # for each line of the table; at least so many rounds


def ours(logits: jax.Array) -> Categorical:
    return Categorical(logits, None, pc.Discrete(logits.shape[-1]))


def gumbel(logits: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
    index = jax.random.categorical(key, logits)
    return index, jnp.take_along_axis(jax.nn.log_softmax(logits), index[..., None], -1)[..., 0]


CONTESTANTS: dict[str, Callable[[jax.Array, jax.Array], Any]] = {
    "sample, ours": lambda z, key: ours(z).sample(key=key),
    "sample, jax": lambda z, key: jax.random.categorical(key, z),
    "sample, distrax": lambda z, key: distrax.Categorical(z).sample(seed=key),
    "both, ours": lambda z, key: ours(z).sample_and_log_prob(key=key),
    "both, jax": gumbel,
    "both, distrax": lambda z, key: distrax.Categorical(z).sample_and_log_prob(seed=key),
}


def microseconds(logits: jax.Array, keys: jax.Array) -> dict[str, np.ndarray]:
    """The time of each call of each contestant."""
    calls = {name: jax.jit(jax.vmap(f)).lower(logits, keys).compile() for name, f in CONTESTANTS.items()}
    names = list(calls)
    times: dict[str, list[float]] = {name: [] for name in names}
    start, rounds = time.perf_counter(), 0
    while rounds < ROUNDS or (time.perf_counter() - start < SECONDS and rounds < 5000):
        for name in names[rounds % len(names) :] + names[: rounds % len(names)]:
            begin = time.perf_counter()
            jax.block_until_ready(calls[name](logits, keys))
            times[name].append((time.perf_counter() - begin) * 1e6)
        rounds += 1
    return {name: np.array(values) for name, values in times.items()}


def ratio(times: dict[str, np.ndarray], what: str, other: str) -> str:
    """Ours to theirs: of the medians, and of the minima."""
    a, b = times[f"{what}, ours"], times[f"{what}, {other}"]
    return f"{np.median(a) / np.median(b):.2f} ({a.min() / b.min():.2f})"


def rows() -> Iterator[list[str]]:
    """Those of the table, in the order of its columns."""
    for n in CLASSES:
        for batch in BATCHES:
            logits = 2 * jax.random.normal(jax.random.key(0), (batch, n))
            times = microseconds(logits, jax.random.split(jax.random.key(1), batch))
            cells = [ratio(times, what, other) for what in ("sample", "both") for other in ("jax", "distrax")]
            middle = np.median(times["sample, ours"])
            yield [f"{n}", f"{batch}", f"{middle:.0f}", *cells]


def main() -> None:
    print("ours / theirs, median (min)\n")
    header = ("n", "batch", "sample, us", "/ jax.random", "/ distrax", "with log_prob / jax", "/ distrax")
    for line in lines(header, rows()):
        print(line, flush=True)


if __name__ == "__main__":
    main()
