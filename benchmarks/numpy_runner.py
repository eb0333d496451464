"""Microseconds a call of the runner without JAX, and seconds to import it. Run by `make bench`."""

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from policy_core_adapters import numpy_runner

import policy_core as pc
from benchmarks.table import aligned
from benchmarks.timing import Measured, in_turn, measured, same

ADAPTERS = Path(numpy_runner.__file__).parents[2]


def seconds_to_import(module: str) -> float:
    """The least of five fresh processes, without what the interpreter itself needs."""
    script = f"import time; start = time.perf_counter(); import {module}; print(time.perf_counter() - start)"
    command = [sys.executable, "-c", script]
    runs = [
        subprocess.run(command, cwd=ADAPTERS, capture_output=True, text=True, check=True) for _ in range(5)
    ]
    return min(float(run.stdout) for run in runs)


def by_hand(params: Any, head: str) -> Callable[[Any], Any]:
    """The mode of two towers of tanh in plain NumPy: argmax, or a clipped mean."""
    hidden = [params["actor"]["tower"][f"hidden_{i}"] for i in range(2)]
    layers = [(np.asarray(x["kernel"]), np.asarray(x["bias"])) for x in (*hidden, params["actor"]["head"])]

    def act(x: Any) -> Any:
        for kernel, bias in layers[:-1]:
            x = np.tanh(x @ kernel + bias)
        x = x @ layers[-1][0] + layers[-1][1]
        return np.argmax(x) if head == "Discrete" else np.minimum(np.maximum(x, -1.0), 1.0)

    return act


def measure(seconds: float = 1.0, *, names: tuple[str, ...] | None = None) -> list[Measured]:
    """A mode, against `pc.act` and, of two heads, plain NumPy; the actions are compared first."""
    box, rows = pc.Box(low=-1.0, high=1.0, shape=(6,)), []
    cases: dict[str, dict[str, Any]] = {
        "Discrete": {"action_space": pc.Discrete(6)},
        "NormalHead": {},
        "SquashedNormalHead": {"box_head": pc.SquashedNormalHead()},
        "BetaHead": {"box_head": pc.BetaHead()},
        "BinsHead": {"box_head": pc.BinsHead(5)},
        "GRU": {"memory": pc.GRU(64)},
        "LSTM": {"memory": pc.LSTM(64)},
        "MinGRU": {"memory": pc.MinGRU(64)},
        "WindowAttention": {"memory": pc.WindowAttention(64)},
    }
    observation = np.ones(17, np.float32)
    for name in names or cases:
        config = pc.ActorCriticConfig(
            **{"observation_space": pc.Box(shape=(17,)), "action_space": box, **cases[name]}
        )
        policy = pc.init(config, key=jax.random.key(0))
        with tempfile.TemporaryDirectory() as folder:
            pc.save(folder + "/file", policy, self_test=False)
            runner = numpy_runner.load(folder + "/file")
        state, first = runner.reset(), pc.reset(policy)
        calls: dict[str, Any] = {
            "ours": lambda runner=runner, state=state: runner.act(state, observation)[1],
            "pc.act": lambda policy=policy, first=first: pc.act(policy, first, observation)[1],
        }
        if name in ("Discrete", "NormalHead"):
            calls["NumPy by hand"] = partial(by_hand(policy[0], name), observation)
        for call in list(calls.values())[1:]:
            same(calls["ours"](), call())
        rows += measured(name, "mode", in_turn(calls, seconds), "us")
    return rows


def main() -> None:
    print(
        f"import: {seconds_to_import('policy_core_adapters.numpy_runner'):.3f} s (target 0.15), of which ",
        end="",
    )
    print(f"numpy {seconds_to_import('numpy'):.3f} s; jax {seconds_to_import('jax'):.3f} s")
    rng, observation = np.random.default_rng(0), np.ones(17, np.float32)
    box = pc.Box(low=-1.0, high=1.0, shape=(6,))
    heads = (pc.NormalHead(), pc.SquashedNormalHead(), pc.BetaHead(), pc.BinsHead(5))
    cases: list[tuple[str, pc.contract.Space, pc.contract.Head, pc.contract.Memory | None]] = [
        ("Discrete(6)", pc.Discrete(6), pc.NormalHead(), None),
        *((type(head).__name__, box, head, None) for head in heads),
        ("NormalHead, GRU(64)", box, pc.NormalHead(), pc.GRU(64)),
        ("NormalHead, LSTM(64)", box, pc.NormalHead(), pc.LSTM(64)),
        ("NormalHead, MinGRU(64)", box, pc.NormalHead(), pc.MinGRU(64)),
        ("NormalHead, attention(64)", box, pc.NormalHead(), pc.WindowAttention(64)),
    ]
    rows = []
    for name, space, head, memory in cases:
        config = pc.ActorCriticConfig(
            observation_space=pc.Box(shape=(17,)), action_space=space, box_head=head, memory=memory
        )
        with tempfile.TemporaryDirectory() as folder:
            pc.save(folder + "/file", pc.init(config, key=jax.random.key(0)), self_test=False)
            runner = numpy_runner.load(folder + "/file")
        state, times = runner.reset(), []
        for draws in (None, rng):
            best = np.inf
            for _ in range(15):
                start = time.perf_counter()
                for _ in range(300):
                    runner.act(state, observation, rng=draws)
                best = min(best, (time.perf_counter() - start) / 300 * 1e6)
            times.append(best)
        rows.append([name, *(f"{best:.1f}" for best in times)])
    print("\nThe target is 25 us without a memory.")
    print(aligned(("one call, 17-(64-)64-64-6", "mode us", "sample us"), rows))


if __name__ == "__main__":
    main()
