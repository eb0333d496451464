"""Microseconds a call and seconds to compile, against the same network written by hand.

Run by `make bench`. Machines are noisy: every round runs all contestants in turn, and the
ratios of the medians are what counts.
"""

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import policy_core as pc
from benchmarks.table import aligned

ROUNDS, CALLS = 15, 400


def by_hand(params: Any, observation: jax.Array) -> jax.Array:
    x = observation
    for i in range(2):
        layer = params["actor"]["tower"][f"hidden_{i}"]
        x = jnp.tanh(x @ layer["kernel"] + layer["bias"])
    head = params["actor"]["head"]
    return jnp.clip(x @ head["kernel"] + head["bias"], -1.0, 1.0)


def microseconds(contestants: dict[str, Callable[[], Any]]) -> dict[str, np.ndarray]:
    for call in contestants.values():
        jax.block_until_ready(call())
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(ROUNDS):
        for name, call in contestants.items():
            start = time.perf_counter()
            for _ in range(CALLS - 1):
                call()
            jax.block_until_ready(call())
            times[name].append((time.perf_counter() - start) / CALLS * 1e6)
    return {name: np.array(values) for name, values in times.items()}


def main() -> None:
    config = pc.ActorCriticConfig(
        observation_space=pc.Box(shape=(17,)), action_space=pc.Box(low=-1.0, high=1.0, shape=(6,))
    )
    start = time.perf_counter()
    policy = jax.block_until_ready(pc.init(config, key=jax.random.key(0)))
    first = [["init", f"{time.perf_counter() - start:.2f}"]]
    observation = np.ones(17, np.float32)
    state = pc.reset(policy)
    key = jax.random.key(1)
    hand = jax.jit(by_hand)
    contestants: dict[str, Callable[[], Any]] = {
        "by hand, jax.jit": lambda: hand(policy[0], observation),
        "act": lambda: pc.act(policy, state, observation),
        "act with a key": lambda: pc.act(policy, state, observation, key=key),
        "action_and_value": lambda: pc.action_and_value(policy, state, observation, key=key),
    }
    for name, call in contestants.items():
        start = time.perf_counter()
        jax.block_until_ready(call())
        first.append([name, f"{time.perf_counter() - start:.2f}"])
    print(aligned(("first call", "s"), first))
    times = microseconds(contestants)
    reference = np.median(times["by hand, jax.jit"])
    rows = [
        [name, f"{np.median(x):.1f}", f"{np.min(x):.1f}", f"{np.median(x) / reference:.2f}"]
        for name, x in times.items()
    ]
    print(f"\n{aligned(('one call, 17-64-64-6', 'median us', 'min us', 'ratio'), rows)}")


if __name__ == "__main__":
    main()
