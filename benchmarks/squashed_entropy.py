"""The exact entropy of a squashed normal against the usual estimate by one sample.

Run by `make bench`. The work is that of a PPO update: `evaluate_action` of a batch, the loss,
and its gradient; a ratio above 1 is what exactness costs. The mean of many estimates is compared with the
exact entropy first.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import policy_core as pc
from benchmarks.timing import Measured, in_turn, measured, show
from policy_core.distributions import SquashedNormal

BATCH, OBSERVATION, ACTION = 4096, 17, 8

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


def check(params: Any, observation: Any) -> None:
    """Raise AssertionError unless the mean of 4,096 estimates is exact within five errors."""
    keys = jax.random.split(jax.random.key(4), 4096)
    action = jnp.zeros(ACTION)
    exact = terms(params, observation, action, keys[0], "exact")[2]
    estimates = jax.vmap(lambda key: terms(params, observation, action, key, "one sample")[2])(keys)
    error = np.std(estimates) / np.sqrt(len(keys))
    assert abs(np.mean(estimates) - exact) < 5 * error, (np.mean(estimates), exact)


def measure(seconds: float = 3.0, *, size: int = BATCH) -> list[Measured]:
    """Loss and gradient of a batch with the exact entropy, against an estimate and against none."""
    params, _ = pc.init(CONFIG, key=jax.random.key(0))
    observations = jax.random.normal(jax.random.key(1), (size, OBSERVATION))
    actions = jax.random.normal(jax.random.key(2), (size, ACTION))
    keys = jax.random.split(jax.random.key(3), size)
    check(params, observations[0])
    calls: dict[str, Any] = {}
    for name, kind in (("ours", "exact"), ("one sample", "one sample"), ("no entropy", "none")):
        program: Any = gradient(kind)
        calls[name] = lambda program=program: program(params, observations, actions, keys)
    return measured(f"{size} x Box({ACTION})", "loss and gradient", in_turn(calls, seconds), "ms")


if __name__ == "__main__":
    print(show(measure()))
