"""Recurrent cells over sequences, forward and gradient, against flax.linen and equinox.

Run by `make bench`. All scan the same inputs, reset where an episode begins, with a batch by
`vmap`, as a trainer does. All contestants take turns in every round, and the ratios are of minima;
a ratio below 1 says that ours is faster.
"""

import importlib
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import policy_core as pc
from benchmarks.table import markdown

linen: Any = importlib.import_module("flax.linen")  # untyped, and of the `bench` extra only
equinox: Any = importlib.import_module("equinox")

SIZE, BATCH, TIMES = 128, 16, (128, 1024)
SECONDS, LEAST = 12.0, 12  # for each table row, and at least so many rounds

Sequence = Callable[[Any, jax.Array, jax.Array], jax.Array]  # params, inputs, is_first


def ours(memory: pc.contract.Memory) -> tuple[Any, Sequence]:
    def sequence(params: Any, xs: jax.Array, is_first: jax.Array) -> jax.Array:
        return memory.sequence(params, memory.initial_state(params), xs, is_first)[1]

    return memory.init(SIZE, key=jax.random.key(0), dtype="float32"), sequence


def scanned(step: Callable[[Any, Any, jax.Array], tuple[Any, jax.Array]], zeros: Any) -> Sequence:
    """A scan of somebody's `step(params, state, x)` from zeros."""

    def sequence(params: Any, xs: jax.Array, is_first: jax.Array) -> jax.Array:
        def one(state: Any, inputs: Any) -> Any:
            x, first = inputs
            return step(params, jax.tree.map(lambda s: jnp.where(first, 0.0, s), state), x)

        return jnp.asarray(jax.lax.scan(one, zeros, (xs, is_first))[1])

    return sequence


def of_flax(cell: Any) -> tuple[Any, Sequence]:
    x = jnp.zeros(SIZE)
    zeros = cell.initialize_carry(jax.random.key(0), x.shape)
    return cell.init(jax.random.key(0), zeros, x), scanned(cell.apply, zeros)


def of_equinox(cell: Any, zeros: Any) -> tuple[Any, Sequence]:
    def step(cell: Any, state: Any, x: jax.Array) -> Any:
        state = cell(x, state)
        return state, state[0] if isinstance(state, tuple) else state

    return cell, scanned(step, zeros)


def contestants() -> dict[str, tuple[Any, Sequence]]:
    zeros, key = jnp.zeros(SIZE), jax.random.key(0)
    return {
        "GRU": ours(pc.GRU(SIZE)),
        "GRU, flax": of_flax(linen.GRUCell(SIZE)),
        "GRU, equinox": of_equinox(equinox.nn.GRUCell(SIZE, SIZE, key=key), zeros),
        "LSTM": ours(pc.LSTM(SIZE)),
        "LSTM, flax": of_flax(linen.OptimizedLSTMCell(SIZE)),
        "LSTM, equinox": of_equinox(equinox.nn.LSTMCell(SIZE, SIZE, key=key), (zeros, zeros)),
        "MinGRU": ours(pc.MinGRU(SIZE)),
        "WindowAttention": ours(pc.WindowAttention(SIZE)),
    }


def compiled(sequence: Sequence, gradient: bool, *arguments: Any) -> Any:
    """One program for the batch: the outputs, or the gradient of a loss of all of them."""

    def batch(params: Any, xs: jax.Array, is_first: jax.Array) -> jax.Array:
        return jax.vmap(sequence, (None, 0, 0))(params, xs, is_first)

    def loss(params: Any, xs: jax.Array, is_first: jax.Array) -> jax.Array:
        return jnp.sum(jnp.square(batch(params, xs, is_first)))

    return jax.jit(jax.grad(loss) if gradient else batch).lower(*arguments).compile()


def milliseconds(length: int, gradient: bool) -> dict[str, float]:
    """The least time of each contestant."""
    rng = np.random.default_rng(0)
    xs = jnp.array(rng.standard_normal((BATCH, length, SIZE)), jnp.float32)
    is_first = jnp.array(rng.random((BATCH, length)) < 0.02)
    calls: dict[str, Any] = {}
    for name, (params, sequence) in contestants().items():
        program: Any = compiled(sequence, gradient, params, xs, is_first)
        calls[name] = lambda program=program, params=params: program(params, xs, is_first)
    least = dict.fromkeys(calls, float("inf"))
    start, rounds = time.perf_counter(), 0
    while rounds < LEAST or time.perf_counter() - start < SECONDS:
        for name, call in calls.items():
            begin = time.perf_counter()
            jax.block_until_ready(call())
            least[name] = min(least[name], (time.perf_counter() - begin) * 1e3)
        rounds += 1
    return least


def main() -> None:
    print(f"size {SIZE}, batch {BATCH}; milliseconds, least of at least {LEAST} rounds\n")
    pairs = [(a, f"{a}, {b}") for a in ("GRU", "LSTM") for b in ("flax", "equinox")]
    pairs, rows = [*pairs, ("MinGRU", "GRU")], []
    for length in TIMES:
        for gradient in (False, True):
            least = milliseconds(length, gradient)
            what = f"T = {length}, {'gradient' if gradient else 'forward'}"
            print(f"{what:22s}" + ", ".join(f"{name} {ms:.2f}" for name, ms in least.items()), flush=True)
            rows.append([what, *(f"{least[a] / least[b]:.2f}" for a, b in pairs)])
    header = ("", "GRU / flax", "/ equinox", "LSTM / flax", "/ equinox", "MinGRU / GRU")
    print(f"\n{markdown(header, rows)}")


if __name__ == "__main__":
    main()
