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
    print(f"init, first call          {time.perf_counter() - start:8.2f} s")
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
        print(f"{name + ', first call':26s}{time.perf_counter() - start:8.2f} s")
    times = microseconds(contestants)
    reference = np.median(times["by hand, jax.jit"])
    print(f"\n{'one call, 17-64-64-6':26s}{'median us':>10s}{'min us':>10s}{'ratio':>8s}")
    for name, values in times.items():
        ratio = np.median(values) / reference
        print(f"{name:26s}{np.median(values):10.1f}{np.min(values):10.1f}{ratio:8.2f}")


if __name__ == "__main__":
    main()
