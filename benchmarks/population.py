"""Populations against single policies: compilation, time and memory a member, dispatch, convolutions.

Run by `make bench`, each table in a process of its own; `python benchmarks/population.py dispatch` is one.
Times are those of all processors together (`time.process_time`), which another load on the machine
changes least. What is compared takes turns in every round, and ratios are of medians over the rounds.

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
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import policy_core as pc
from benchmarks.table import markdown

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


def updates() -> dict[int, tuple[Any, Any, float]]:
    """By number of members (0: one policy, not mapped): the compiled update, its argument, and seconds."""
    env = gymnax.make("CartPole-v1")
    config = pc.ActorCriticConfig(observation_space=env.observation_space, action_space=env.action_space)
    init, update = ppo.make_train(config, env, HYPER)
    found = {}
    for n in (0, *MEMBERS):
        keys = jax.random.split(jax.random.key(0), n) if n else jax.random.key(0)
        runner = jax.jit(jax.vmap(init) if n else init)(keys)
        start = time.process_time()
        compiled = jax.jit(jax.vmap(update) if n else update).lower(runner).compile()
        found[n] = compiled, runner, time.process_time() - start
    return found


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


def dispatch() -> str:
    """In a process of its own, which compiles a thousand configs without optimization."""
    observation = jnp.ones(3)

    @jax.jit
    def bias(policy: Any) -> jax.Array:
        return jnp.negative(policy[0]["actor"]["head"]["bias"])

    def act(policy: Any) -> Any:
        return pc.act(policy, (), observation)

    policies: list[Any] = []
    rows = []
    first: list[float] = []
    for k in CONFIGS:
        while len(policies) < k:
            config = pc.ActorCriticConfig(
                observation_space=pc.Box(shape=(3,)), action_space=pc.Discrete(2), actor=pc.MLP((4,)),
                critic=None, name=f"policy {len(policies)}",
            )  # fmt: skip
            params = policies[0][0] if policies else pc.init(config, key=jax.random.key(0))[0]
            policies.append((params, config))
            jax.block_until_ready((act(policies[-1]), bias(policies[-1])))
        some = [policies[i] for i in sorted({0, k // 2, k - 1})]
        calls = [max(microseconds(f, policy) for policy in some) for f in (act, bias)]
        first = first or calls
        rows.append(
            [str(k), *(x for a, b in zip(calls, first, strict=True) for x in (f"{a:.1f}", f"{a / b:.2f}"))]
        )
    return markdown(("configs alive", "pc.act, us", "/ 1", "jit of a pair, us", "/ 1"), rows, ">>>>>")


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


def convolutions(n: int = 5) -> str:
    rows = []
    for title, encoder, shape, images in (
        ("MinAtar 10 x 10 x 4", pc.MinAtarCNN(), (10, 10, 4), 128),
        ("MinAtar 10 x 10 x 4", pc.MinAtarCNN(), (10, 10, 4), 512),
        ("Nature 84 x 84 x 4", pc.NatureCNN(), (84, 84, 4), 4),
    ):
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
        times = medians(
            {
                "vmap": lambda: mapped(population, seen),  # noqa: B023
                "map": lambda: in_turn(population, seen),  # noqa: B023
                "one of a population": lambda: mapped(alone, seen[:1]),  # noqa: B023
                "single": lambda: one(single, seen[0]),  # noqa: B023
            },
            3 * ROUNDS,
        )
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
