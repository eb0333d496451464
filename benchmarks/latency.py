"""Microseconds a call from Python, against the same network written by hand. Run by `make bench`."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import policy_core as pc
from benchmarks.timing import Measured, in_turn, measured, same, show


def by_hand(params: Any, observation: jax.Array) -> jax.Array:
    x = observation
    for i in range(2):
        layer = params["actor"]["tower"][f"hidden_{i}"]
        x = jnp.tanh(x @ layer["kernel"] + layer["bias"])
    head = params["actor"]["head"]
    return jnp.clip(x @ head["kernel"] + head["bias"], -1.0, 1.0)


def measure(seconds: float = 3.0) -> list[Measured]:
    """A call of each function, 17-64-64-6, against the jitted floor of a mode."""
    config = pc.ActorCriticConfig(
        observation_space=pc.Box(shape=(17,)), action_space=pc.Box(low=-1.0, high=1.0, shape=(6,))
    )
    policy = pc.init(config, key=jax.random.key(0))
    observation, key = np.ones(17, np.float32), jax.random.key(1)
    state = pc.reset(policy)
    hand = jax.jit(by_hand)
    same(pc.act(policy, state, observation)[1], hand(policy[0], observation))
    calls: dict[str, Any] = {
        "a jitted mode by hand": lambda: hand(policy[0], observation),
        "act": lambda: pc.act(policy, state, observation),
        "act with a key": lambda: pc.act(policy, state, observation, key=key),
        "action_and_value": lambda: pc.action_and_value(policy, state, observation, key=key),
    }
    times = in_turn(calls, seconds)
    rows = []
    for name in list(calls)[1:]:
        both = {"ours": times[name], "a jitted mode by hand": times["a jitted mode by hand"]}
        rows += measured(name, "one call", both, "us")
    return rows


if __name__ == "__main__":
    print(show(measure()))
