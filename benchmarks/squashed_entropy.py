"""The exact entropy of a squashed normal against the usual estimate by one sample.

Run by `make bench`. The work is that of a PPO update: `evaluate_action` of a batch, the loss,
and its gradient. The contestants take turns; a ratio above 1 is what exactness costs.
"""

import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import policy_core as pc
from benchmarks.table import markdown
from policy_core.distributions import SquashedNormal

BATCH, OBSERVATION, ACTION = 4096, 17, 8
ROUNDS = 150

CONFIG = pc.ActorCriticConfig(
    observation_space=pc.Box(shape=(OBSERVATION,)),
    action_space=pc.Box(low=-1.0, high=1.0, shape=(ACTION,)),
    box_head=pc.SquashedNormalHead(scale=pc.Scale(std="state", log_std=-0.5)),
)


def terms(params: Any, observation: Any, action: Any, key: Any, kind: str) -> tuple[Any, Any, Any]:
    """The value, the log-probability, and the entropy of that kind."""
    if kind == "exact":
        return pc.evaluate_action((params, CONFIG), (), observation, action)[1:]
    _, distribution, prediction = CONFIG.forward(params, (), observation)
    assert isinstance(distribution, SquashedNormal)
    assert prediction is not None
    entropy = distribution.entropy_estimate(key=key) if kind == "one sample" else jnp.zeros(())
    return prediction.value(), distribution.log_prob(action), entropy


def gradient(kind: str) -> Any:
    """The gradient of a loss that uses all terms, jitted."""

    def loss(params: Any, observations: Any, actions: Any, keys: Any) -> jax.Array:
        def one(observation: Any, action: Any, key: Any) -> jax.Array:
            value, log_prob, entropy = terms(params, observation, action, key, kind)
            return jnp.asarray(jnp.square(value) - log_prob - 0.01 * entropy)

        return jnp.mean(jax.vmap(one)(observations, actions, keys))

    return jax.jit(jax.value_and_grad(loss))


def main() -> None:
    params, _ = pc.init(CONFIG, key=jax.random.key(0))
    observations = jax.random.normal(jax.random.key(1), (BATCH, OBSERVATION))
    actions = jax.random.normal(jax.random.key(2), (BATCH, ACTION))
    keys = jax.random.split(jax.random.key(3), BATCH)
    calls = {kind: gradient(kind) for kind in ("none", "one sample", "exact")}
    names, times = list(calls), {kind: np.zeros(ROUNDS) for kind in calls}
    for call in calls.values():
        jax.block_until_ready(call(params, observations, actions, keys))
    for i in range(ROUNDS):
        for kind in names[i % len(names) :] + names[: i % len(names)]:
            start = time.perf_counter()
            jax.block_until_ready(calls[kind](params, observations, actions, keys))
            times[kind][i] = (time.perf_counter() - start) * 1e3
    print(f"loss and gradient, batch {BATCH} x {ACTION}: ratio to one sample, median (min)\n")
    other, rows = times["one sample"], []
    for kind, values in times.items():
        ratio = f"{np.median(values) / np.median(other):.2f} ({values.min() / other.min():.2f})"
        rows.append([kind, f"{np.median(values):.2f}", f"{values.min():.2f}", ratio])
    print(markdown(("entropy", "median ms", "min ms", "ratio"), rows))


if __name__ == "__main__":
    main()
