"""Recurrent cells over sequences, forward and gradient, against flax.linen and equinox.

Run by `make bench`. All have the same weights and scan the same inputs, reset where an episode begins, with a
batch by `vmap`, as a trainer does; before they are timed their outputs are compared.
"""

import importlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import policy_core as pc
from benchmarks.timing import Measured, in_turn, measured, same, show

linen: Any = importlib.import_module("flax.linen")  # untyped, and of the `bench` extra only
equinox: Any = importlib.import_module("equinox")

SIZE, BATCH, TIMES = 128, 16, (128, 1024)

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


def kernels_of(theirs: Any, gates: str, biases: str) -> Any:
    """The params of a cell of flax as ours; `biases` is the letter of the map that has those of all gates."""
    maps = {
        name: {"kernel": jnp.concatenate([theirs[letter + gate]["kernel"] for gate in gates], 1)}
        for name, letter in (("input", "i"), ("recurrent", "h"))
    }
    maps["input"]["bias"] = jnp.concatenate([theirs[biases + gate]["bias"] for gate in gates])
    return maps


def with_weights_of(cell: Any, params: Any) -> Any:
    """A cell of equinox with the weights of ours."""

    def weights(cell: Any) -> list[Any]:
        found = [cell.weight_ih, cell.weight_hh, cell.bias]
        return [*found, cell.bias_n] if hasattr(cell, "bias_n") else found

    kernels = [params["input"]["kernel"].T, params["recurrent"]["kernel"].T, params["input"]["bias"]]
    if hasattr(cell, "bias_n"):
        kernels.append(params["recurrent"]["bias"])
    return equinox.tree_at(weights, cell, kernels)


def contestants() -> dict[str, tuple[Any, Sequence]]:
    zeros, key = jnp.zeros(SIZE), jax.random.key(0)
    gru, lstm = of_flax(linen.GRUCell(SIZE)), of_flax(linen.OptimizedLSTMCell(SIZE))
    of_gru = kernels_of(gru[0]["params"], "rzn", "i")
    of_gru["recurrent"]["bias"] = gru[0]["params"]["hn"]["bias"]
    of_lstm = kernels_of(lstm[0]["params"], "ifgo", "h")
    gru_cell, lstm_cell = (cell(SIZE, SIZE, key=key) for cell in (equinox.nn.GRUCell, equinox.nn.LSTMCell))
    return {
        "GRU": (of_gru, ours(pc.GRU(SIZE))[1]),
        "GRU, flax": gru,
        "GRU, equinox": of_equinox(with_weights_of(gru_cell, of_gru), zeros),
        "LSTM": (of_lstm, ours(pc.LSTM(SIZE))[1]),
        "LSTM, flax": lstm,
        "LSTM, equinox": of_equinox(with_weights_of(lstm_cell, of_lstm), (zeros, zeros)),
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


def times_of(length: int, gradient: bool, seconds: float) -> dict[str, np.ndarray]:
    """The times of each contestant, whose outputs are compared first."""
    rng = np.random.default_rng(0)
    xs = jnp.array(rng.standard_normal((BATCH, length, SIZE)), jnp.float32)
    is_first = jnp.array(rng.random((BATCH, length)) < 0.02)
    calls: dict[str, Any] = {}
    for name, (params, sequence) in contestants().items():
        program: Any = compiled(sequence, gradient, params, xs, is_first)
        calls[name] = lambda program=program, params=params: program(params, xs, is_first)
    if not gradient:
        for kind, peer in PAIRS:
            same(calls[kind](), calls[f"{kind}, {peer}"](), atol=1e-4)
    return in_turn(calls, seconds)


PAIRS = [(kind, peer) for kind in ("GRU", "LSTM") for peer in ("flax", "equinox")]


def measure(seconds: float = 8.0, *, times: tuple[int, ...] = TIMES) -> list[Measured]:
    """Each cell against flax and equinox, and the other memories against the GRU."""
    rows = []
    for length in times:
        for gradient in (False, True):
            found = times_of(length, gradient, seconds)
            task = f"{'gradient' if gradient else 'forward'}, T = {length}"
            for kind in ("GRU", "LSTM"):
                samples = {peer: found[f"{kind}, {peer}"] for peer in ("flax", "equinox")}
                rows += measured(kind, task, {"ours": found[kind], **samples}, "ms")
            for kind in ("MinGRU", "WindowAttention"):
                rows += measured(kind, task, {"ours": found[kind], "our GRU": found["GRU"]}, "ms")
    return rows


if __name__ == "__main__":
    print(show(measure()))
