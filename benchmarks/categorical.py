"""Sampling a categorical: one uniform number against a Gumbel number for each class.

Run by `make bench`. Rows have keys of their own under `vmap`, as in a rollout. The log-probabilities of what
is drawn are compared first; the draws are of the same law, not the same.
"""

import importlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

import policy_core as pc
from benchmarks.timing import Measured, in_turn, measured, same, show
from policy_core.distributions import Categorical

distrax: Any = importlib.import_module("distrax")  # untyped, and of the `bench` extra only

CLASSES, BATCHES = (2, 18, 256, 1024), (1, 64, 4096)


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


def check(logits: jax.Array, keys: jax.Array) -> None:
    """Raise AssertionError unless all score what they draw as log-softmax does."""
    for name, function in CONTESTANTS.items():
        if name.startswith("both"):
            index, log_prob = jax.vmap(function)(logits, keys)
            expected = jnp.take_along_axis(jax.nn.log_softmax(logits), index[:, None], -1)[:, 0]
            same(log_prob, expected)


def measure(
    seconds: float = 1.0, *, classes: tuple[int, ...] = CLASSES, batches: tuple[int, ...] = BATCHES
) -> list[Measured]:
    """A draw, and a draw with its log-probability, by the number of classes and of rows."""
    rows = []
    for n in classes:
        for batch in batches:
            logits = 2 * jax.random.normal(jax.random.key(0), (batch, n))
            keys = jax.random.split(jax.random.key(1), batch)
            check(logits, keys)
            calls: dict[str, Any] = {}
            for name, function in CONTESTANTS.items():
                program: Any = jax.jit(jax.vmap(function)).lower(logits, keys).compile()
                calls[name] = lambda program=program, x=logits, k=keys: program(x, k)
            times = in_turn(calls, seconds, batch=0)
            for what, task in (("sample", "sample"), ("both", "with the log-probability")):
                samples = {
                    who: times[f"{what}, {key}"]
                    for who, key in (("ours", "ours"), ("jax.random", "jax"), ("distrax", "distrax"))
                }
                rows += measured(f"n = {n}, {batch} {'row' if batch == 1 else 'rows'}", task, samples, "us")
    return rows


if __name__ == "__main__":
    print(show(measure()))
