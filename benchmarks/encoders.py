"""Image encoders against the same networks written by hand in flax.linen: compilation and speed.

Run by `make bench`. Both take bytes, 84 x 84 x 4, in a batch; ours is unbatched and under `vmap`,
flax has its batch axis. They take turns in every round, and the ratios are of minima; a ratio
below 1 says that ours is faster. "In a scan" is what a jitted trainer does: a gradient step for
each minibatch, here two, and the time of one of them.
"""

import importlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import policy_core as pc
from benchmarks import timing
from benchmarks.table import lines
from policy_core import trees

linen: Any = importlib.import_module("flax.linen")  # untyped, and of the `bench` extra only

SHAPE, BATCH = (84, 84, 4), 32
COMPILATIONS, ROUNDS, MINIBATCHES = 5, 15, 2

Apply = Callable[[Any, jax.Array], jax.Array]  # params, images


class Nature(linen.Module):  # type: ignore[misc]
    """Mnih et al. 2015."""

    @linen.compact  # type: ignore[untyped-decorator]
    def __call__(self, x: Any) -> Any:
        x = x.astype(jnp.float32) / 255
        for filters, side, stride in ((32, 8, 4), (64, 4, 2), (64, 3, 1)):
            x = linen.relu(linen.Conv(filters, (side, side), (stride, stride), padding="VALID")(x))
        return linen.relu(linen.Dense(512)(x.reshape(len(x), -1)))


class Impala(linen.Module):  # type: ignore[misc]
    """Espeholt et al. 2018, without the LSTM."""

    @linen.compact  # type: ignore[untyped-decorator]
    def __call__(self, x: Any) -> Any:
        x = x.astype(jnp.float32) / 255
        for filters in (16, 32, 32):
            x = linen.max_pool(linen.Conv(filters, (3, 3))(x), (3, 3), (2, 2), "SAME")
            for _ in range(2):
                y = linen.Conv(filters, (3, 3))(linen.relu(x))
                x = x + linen.Conv(filters, (3, 3))(linen.relu(y))
        return linen.relu(linen.Dense(256)(linen.relu(x).reshape(len(x), -1)))


def ours(encoder: pc.contract.Encoder) -> tuple[Any, Apply]:
    space = pc.Box(low=0, high=255, shape=SHAPE, dtype="uint8")
    params = jax.jit(lambda key: encoder.init(space, key=key, dtype="float32"))(jax.random.key(0))
    return params, lambda params, x: jax.vmap(lambda x: encoder.apply(params, space, x, "float32"))(x)


def of_flax(module: Any) -> tuple[Any, Apply]:
    params = jax.jit(module.init)(jax.random.key(0), jnp.zeros((1, *SHAPE), jnp.uint8))
    return params, module.apply


def lowered(apply: Apply, what: str, *arguments: Any) -> Any:
    def loss(params: Any, x: jax.Array) -> jax.Array:
        return jnp.sum(jnp.square(apply(params, x)))

    def descend(params: Any, x: jax.Array) -> tuple[Any, None]:
        return jax.tree.map(lambda a, b: a - 1e-6 * b, params, jax.grad(loss)(params, x)), None

    def train(params: Any, x: jax.Array) -> Any:
        return jax.lax.scan(descend, params, jnp.stack([x] * MINIBATCHES))[0]

    programs = {"forward": apply, "gradient": jax.grad(loss), "gradient in a scan": train}
    return jax.jit(programs[what]).lower(*arguments)


def measured(contestants: dict[str, tuple[Any, Apply]], what: str) -> dict[str, tuple[float, float]]:
    """The least seconds to trace and compile, and to run once."""
    x = jnp.asarray(np.random.default_rng(0).integers(0, 256, (BATCH, *SHAPE)), jnp.uint8)
    compilation = dict.fromkeys(contestants, float("inf"))
    running = dict(compilation)
    programs: dict[str, Any] = {}
    for _ in range(COMPILATIONS):
        for name, (params, apply) in contestants.items():
            jax.clear_caches()
            start = time.perf_counter()
            programs[name] = lowered(apply, what, params, x).compile()
            compilation[name] = min(compilation[name], time.perf_counter() - start)
    for _ in range(ROUNDS):
        for name, (params, _apply) in contestants.items():
            start = time.perf_counter()
            jax.block_until_ready(programs[name](params, x))
            running[name] = min(running[name], time.perf_counter() - start)
    steps = MINIBATCHES if what == "gradient in a scan" else 1
    return {name: (compilation[name], running[name] / steps) for name in contestants}


def with_weights_of_flax(params: Any, theirs: Any) -> Any:
    """Ours with the weights of flax: layers in the order in which images go through them."""

    def position(path: str) -> tuple[Any, ...]:
        stage, _, rest = path.partition("/")
        return stage == "linear", stage if stage.startswith("stage") else "", rest.startswith("block"), path

    layers = [(name, layer) for name, layer in theirs["params"].items()]
    layers.sort(key=lambda item: (item[0].partition("_")[0], int(item[0].partition("_")[2])))
    ours = trees.by_path(params, "params")
    names = sorted({path.removeprefix("params/").rpartition("/")[0] for path in ours}, key=position)
    flat = {name: layer for name, (_, layer) in zip(names, layers, strict=True)}

    def replaced(path: Any, leaf: Any) -> Any:
        name, _, kind = jax.tree_util.keystr(path, simple=True, separator="/").rpartition("/")
        return flat[name][kind].reshape(leaf.shape)

    return jax.tree.map_with_path(replaced, params)


def measure(
    seconds: float = 4.0, *, towers: tuple[str, ...] = ("Nature", "IMPALA"), compilations: int = 2
) -> list[timing.Measured]:
    """Each tower, whose outputs are compared first: the time to compile it, and to run it."""
    found: list[timing.Measured] = []
    x = jnp.asarray(np.random.default_rng(0).integers(0, 256, (BATCH, *SHAPE)), jnp.uint8)
    for title, encoder, module in (
        ("Nature", pc.NatureCNN(), Nature()),
        ("IMPALA", pc.ImpalaCNN(), Impala()),
    ):
        if title not in towers:
            continue
        (params, apply), (theirs, module_apply) = ours(encoder), of_flax(module)
        params = with_weights_of_flax(params, theirs)
        timing.same(jax.jit(apply)(params, x), jax.jit(module_apply)(theirs, x))
        contestants = {"ours": (params, apply), "flax": (theirs, module_apply)}
        for what in ("forward", "gradient", "gradient in a scan"):
            compiling: dict[str, list[float]] = {name: [] for name in contestants}
            calls: dict[str, Any] = {}
            for _ in range(compilations):
                for name, (weights, function) in contestants.items():
                    jax.clear_caches()
                    start = time.process_time()
                    program: Any = lowered(function, what, weights, x).compile()
                    compiling[name].append(time.process_time() - start)
                    calls[name] = lambda program=program, weights=weights: program(weights, x)
            found += timing.measured(title, what, timing.in_turn(calls, seconds, least=3), "ms")
            found += timing.measured(title, f"compile {what}", compiling, "s", paired=False)
    return found


def rows() -> Iterator[list[str]]:
    """Those of the table, in the order of its columns."""
    for title, encoder, module in (
        ("Nature", pc.NatureCNN(), Nature()),
        ("IMPALA", pc.ImpalaCNN(), Impala()),
    ):
        contestants = {"ours": ours(encoder), "flax": of_flax(module)}
        for what in ("forward", "gradient", "gradient in a scan"):
            times = measured(contestants, what)
            (compilation, running), (compilation_flax, running_flax) = times["ours"], times["flax"]
            yield [
                f"{title}, {what}",
                f"{compilation * 1e3:.0f}",
                f"{compilation / compilation_flax:.2f}",
                f"{running * 1e3:.1f}",
                f"{running / running_flax:.2f}",
            ]


def main() -> None:
    print(f"batch {BATCH} of {SHAPE}, bytes; least of {COMPILATIONS} compilations, {ROUNDS} runs\n")
    header = ("", "compile, ms", "/ flax", "run, ms", "/ flax")
    for line in lines(header, rows(), "<>>>>"):
        print(line, flush=True)


if __name__ == "__main__":
    main()
