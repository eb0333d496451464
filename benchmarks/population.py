"""Populations against single policies: compilation, time and memory a member, dispatch, convolutions.

Run by `make bench`; `python benchmarks/population.py dispatch` prints one table, of more sizes than the
page of all benchmarks has. Times are those of all processors together (`time.process_time`), which another
load on the machine changes least.

members: one PPO update of `examples/ppo.py` on CartPole, mapped over members; then for 32 members
against 32 calls of the update of one policy.

convolutions: the gradient of a CNN for a population, `jax.vmap` against `jax.lax.map`, and a population of
one against one policy.

dispatch: a call of `pc.act`, and of a `jax.jit` that takes the pair, while other configs of the same
structure are alive: the worst of the first, the middle and the last of them.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import policy_core as pc
from benchmarks.table import markdown
from benchmarks.timing import Measured, in_turn, measured, same

sys.path.append(str(Path(__file__).parent.parent / "examples"))
import ppo
from policy_core_adapters import gymnax

MEMBERS, ROUNDS = (1, 8, 32, 128, 512), 7
HYPER = ppo.Hyperparameters(num_envs=8, num_steps=32, num_epochs=2)
CONFIGS, CALLS = (1, 10, 100, 1000), 300


def medians(contestants: dict[str, Callable[[], Any]], rounds: int = ROUNDS) -> dict[str, float]:
    """Seconds of the processors for a call of each; they take turns."""
    for call in contestants.values():
        jax.block_until_ready(call())
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, call in contestants.items():
            start = time.process_time()
            jax.block_until_ready(call())
            times[name].append(time.process_time() - start)
    return {name: float(np.median(values)) for name, values in times.items()}


# PPO UPDATES ---------------------------------------------------------------------------------


def updates(members: Iterable[int] = MEMBERS) -> dict[int, tuple[Any, Any, float]]:
    """By number of members (0: one policy, not mapped): the compiled update, its argument, and seconds."""
    env = gymnax.make("CartPole-v1")
    config = pc.ActorCriticConfig(observation_space=env.observation_space, action_space=env.action_space)
    init, update = ppo.make_train(config, env, HYPER)
    found = {}
    for n in (0, *members):
        keys = jax.random.split(jax.random.key(0), n) if n else jax.random.key(0)
        runner = jax.jit(jax.vmap(init) if n else init)(keys)
        start = time.process_time()
        compiled = jax.jit(jax.vmap(update) if n else update).lower(runner).compile()
        found[n] = compiled, runner, time.process_time() - start
    return found


def numbers(tree: Any) -> list[jax.Array]:
    """The floats among the leaves."""
    return [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.floating)]


def per_member(found: dict[int, tuple[Any, Any, float]]) -> str:
    times = medians({str(n): lambda n=n: found[n][0](found[n][1]) for n in found})  # type: ignore[misc]
    rows = []
    for n in MEMBERS:
        compiled, _, seconds = found[n]
        memory = compiled.memory_analysis()
        each = times[str(n)] / n
        rows.append(
            [
                str(n),
                f"{seconds:.1f}",
                f"{seconds / found[1][2]:.2f}",
                f"{each * 1e3:.2f}",
                f"{each / times['1']:.2f}",
                f"{memory.argument_size_in_bytes / n / 1e3:.0f}",
                f"{memory.temp_size_in_bytes / n / 1e3:.0f}",
            ]
        )
    header = ("members", "compile, s", "/ 1", "ms a member", "/ 1", "state, kB a member", "temporary, kB")
    return markdown(header, rows, ">>>>>>>")


def against_single_runs(found: dict[int, tuple[Any, Any, float]], n: int = 32) -> str:
    one, start, _ = found[0]
    many, population, _ = found[n]

    def in_turn() -> Any:
        return [one(start) for _ in range(n)]

    times = medians({"population": lambda: many(population), "single": in_turn})
    ratio = times["population"] / times["single"]
    row = [f"{times['population'] * 1e3:.0f}", f"{times['single'] * 1e3:.0f}", f"{ratio:.2f}"]
    return markdown((f"{n} members, ms", f"{n} single runs, ms", "ratio"), [row], ">>>")


# DISPATCH ------------------------------------------------------------------------------------


def many(sizes: Iterable[int]) -> Iterator[tuple[int, Callable[[Any], Any], Callable[[Any], Any], list[Any]]]:
    """For each number of configs alive: `pc.act`, a `jax.jit` of a pair, and three of the policies."""
    observation = jnp.ones(3)

    @jax.jit
    def bias(policy: Any) -> jax.Array:
        return jnp.negative(policy[0]["actor"]["head"]["bias"])

    def act(policy: Any) -> Any:
        return pc.act(policy, (), observation)

    policies: list[Any] = []
    for k in sizes:
        while len(policies) < k:
            config = pc.ActorCriticConfig(
                observation_space=pc.Box(shape=(3,)), action_space=pc.Discrete(2), actor=pc.MLP((4,)),
                critic=None, name=f"policy {len(policies)}",
            )  # fmt: skip
            params = policies[0][0] if policies else pc.init(config, key=jax.random.key(0))[0]
            policies.append((params, config))
            jax.block_until_ready((act(policies[-1]), bias(policies[-1])))
        yield k, act, bias, [policies[i] for i in sorted({0, k // 2, k - 1})]


def dispatch() -> str:
    """In a process of its own, which compiles a thousand configs without optimization."""
    rows = []
    first: list[float] = []
    for k, act, bias, some in many(CONFIGS):
        calls = [max(microseconds(f, policy) for policy in some) for f in (act, bias)]
        first = first or calls
        rows.append(
            [str(k), *(x for a, b in zip(calls, first, strict=True) for x in (f"{a:.1f}", f"{a / b:.2f}"))]
        )
    return markdown(("configs alive", "pc.act, us", "/ 1", "jit of a pair, us", "/ 1"), rows, ">>>>>")


def measure_dispatch(seconds: float = 3.0, *, sizes: tuple[int, ...] = (1, 10, 300)) -> list[Measured]:
    """A call among live configs against a call of the only one; in a process of its own."""
    rows: list[Measured] = []
    alone: dict[str, np.ndarray] = {}
    for k, act, bias, some in many(sizes):
        for name, f in (("pc.act", act), ("a jit of a pair", bias)):
            calls: dict[str, Callable[[], Any]] = {
                f"policy {i}": partial(f, policy) for i, policy in enumerate(some)
            }
            times = in_turn(calls, seconds / len(some), least=20)
            worst = max(times.values(), key=np.median)
            if k == 1:
                alone[name] = worst
            else:
                samples = {"ours": worst, "the only config": alone[name]}
                rows += measured(name, f"{k} configs alive", samples, "us", paired=False)
    return rows


def microseconds(f: Callable[[Any], Any], policy: Any) -> float:
    """Of the calling thread, the median of some batches of calls."""
    times = []
    for _ in range(5):
        start = time.thread_time()
        for _ in range(CALLS - 1):
            f(policy)
        times.append((time.thread_time() - start) / CALLS * 1e6)
        jax.block_until_ready(f(policy))
    return float(np.median(times))


# CONVOLUTIONS --------------------------------------------------------------------------------


CASES: tuple[tuple[str, Any, tuple[int, ...], int], ...] = (
    ("MinAtar 10 x 10 x 4", pc.MinAtarCNN(), (10, 10, 4), 128),
    ("MinAtar 10 x 10 x 4", pc.MinAtarCNN(), (10, 10, 4), 512),
    ("Nature 84 x 84 x 4", pc.NatureCNN(), (84, 84, 4), 4),
)


def gradients(encoder: Any, shape: tuple[int, ...], images: int, n: int) -> dict[str, Callable[[], Any]]:
    """The gradient of a CNN for `n` members, two ways, and for one member, two ways."""
    config = pc.ActorCriticConfig(
        observation_space=pc.Box(low=0, high=255, shape=shape, dtype="uint8"),
        action_space=pc.Discrete(4),
        encoder=encoder,
    )
    x = np.random.default_rng(0).integers(0, 256, (n, images, *shape), np.uint8)
    seen = jnp.asarray(x)
    population = pc.population.init(config, n, key=jax.random.key(0))
    alone = jax.tree.map(lambda leaf: leaf[:1], population)
    single = pc.population.member(population, 0)

    def gradient(policy: Any, seen: jax.Array) -> Any:
        def loss(policy: Any) -> jax.Array:
            return jnp.mean(jnp.square(jax.vmap(lambda o: pc.value(policy, (), o)[1])(seen)))

        return jax.grad(loss)(policy)

    mapped, one = jax.jit(jax.vmap(gradient)), jax.jit(gradient)
    in_turn = jax.jit(lambda policy, seen: jax.lax.map(lambda both: gradient(*both), (policy, seen)))
    return {
        "vmap": lambda: mapped(population, seen),
        "map": lambda: in_turn(population, seen),
        "one of a population": lambda: mapped(alone, seen[:1]),
        "single": lambda: one(single, seen[0]),
    }


def convolutions(n: int = 5) -> str:
    rows = []
    for title, encoder, shape, images in CASES:
        times = medians(gradients(encoder, shape, images, n), 3 * ROUNDS)
        rows.append(
            [
                f"{title}, {images} images",
                f"{times['vmap'] * 1e3:.1f}",
                f"{times['map'] * 1e3:.1f}",
                f"{times['vmap'] / times['map']:.2f}",
                f"{times['one of a population'] * 1e3:.1f}",
                f"{times['single'] * 1e3:.1f}",
                f"{times['one of a population'] / times['single']:.2f}",
            ]
        )
    header = (
        f"gradient, {n} members",
        "vmap, ms",
        "lax.map",
        "ratio",
        "vmap of 1, ms",
        "single",
        "ratio",
    )
    return markdown(header, rows, "<>>>>>>")


def members() -> str:
    found = updates()
    return f"{per_member(found)}\n\n{against_single_runs(found)}"


def measure(
    seconds: float = 3.0, *, members: tuple[int, ...] = (1, 32), cases: int = len(CASES), n: int = 5
) -> list[Measured]:
    """A PPO update for members, its compilation, and gradients of CNNs."""
    found = updates(members)
    one, start, compiled = found[0]
    rows = []
    for k in members:
        program, population, compiling = found[k]
        last = jax.tree.map(lambda leaf: leaf[-1], (population, program(population)))
        same(numbers(one(last[0])), numbers(last[1]))
        calls: dict[str, Callable[[], Any]] = {
            "ours": partial(program, population),
            "as many single updates": lambda k=k: [one(start) for _ in range(k)],  # type: ignore[misc]
        }
        task = "1 member" if k == 1 else f"{k} members"
        rows += measured("PPO update", task, in_turn(calls, seconds), "ms")
        samples = {"ours": [compiling], "compiling one policy": [compiled]}
        rows += measured("PPO update", f"{task}, compile", samples, "s", paired=False)
    for title, encoder, shape, images in CASES[:cases]:
        ways = gradients(encoder, shape, images, n)
        same(ways["vmap"](), ways["map"](), atol=1e-4)
        times = in_turn(ways, seconds)
        case = f"{title}, {images} images"
        both = {"ours": times["vmap"], "lax.map": times["map"]}
        rows += measured(case, f"gradient, {n} members", both, "ms")
        both = {"ours": times["one of a population"], "a policy": times["single"]}
        rows += measured(case, "gradient, a population of 1", both, "ms")
    return rows


TABLES: dict[str, Callable[[], str]] = {
    "members": members,
    "convolutions": convolutions,
    "dispatch": dispatch,
}


def main() -> None:
    if sys.argv[1:]:
        print(TABLES[sys.argv[1]](), flush=True)
        return
    where = f"{jax.device_count()} {jax.devices()[0].platform}"
    print(f"jax {jax.__version__}, {where}; medians of {ROUNDS} or more rounds, in turn", flush=True)
    for name in TABLES:
        print(flush=True)
        quick = {"XLA_FLAGS": "--xla_backend_optimization_level=0"} if name == "dispatch" else {}
        subprocess.run([sys.executable, __file__, name], check=True, env={**os.environ, **quick})


if __name__ == "__main__":
    main()
