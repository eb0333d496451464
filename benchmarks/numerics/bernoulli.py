"""Bits; references in 80-bit floats."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import policy_core as pc
from benchmarks.numerics.common import WIDE, Case, References, discrete, distrax
from policy_core.distributions import Bernoulli


def bernoulli_cases(rng: np.random.Generator, dtype: Any, quick: bool) -> Iterator[Case]:
    sizes = np.concatenate([[0.0], np.geomspace(1e-8, 1e4, 40 if quick else 400)])
    grid = np.concatenate([sizes, -sizes])
    pairs = [
        (grid, grid[::-1]),
        (grid, rng.permutation(grid)),
        (grid, grid * (1 + 0.1 * rng.normal(size=grid.shape))),
    ]
    pairs += [(grid, grid + rng.normal(size=grid.shape) * s) for s in (1e-4, 0.1, 0.5, 1, 5)]
    p, q = (np.concatenate(side).astype(dtype) for side in zip(*pairs, strict=True))
    yield {"p": p, "q": q, "action": rng.integers(0, 2, p.shape).astype(np.int32)}


def near_equal_bernoulli_cases(rng: np.random.Generator, dtype: Any, quick: bool) -> Iterator[Case]:
    p = (rng.normal(size=200 if quick else 4000) * 3).astype(dtype)
    yield {"p": p, "q": (p + rng.normal(size=p.shape) * 10 ** rng.uniform(-6, -4, p.shape)).astype(dtype)}


def bernoulli_reference(case: Case) -> References:
    p, q = case["p"].astype(WIDE), case["q"].astype(WIDE)

    def softplus(z: Any) -> Any:
        return np.maximum(z, 0) + np.log1p(np.exp(-np.abs(z)))

    def sigmoid(z: Any) -> Any:
        return np.exp(-softplus(-z))

    one, zero = sigmoid(p), sigmoid(-p)
    kl = one * (softplus(-q) - softplus(-p)) + zero * (softplus(q) - softplus(p))
    if "action" not in case:
        return {"KL": (kl, ())}
    sign = 2 * case["action"] - 1
    return {
        "log_prob": (-softplus(-sign * p), (sign * sigmoid(-sign * p),)),
        "entropy": (softplus(-np.abs(p)) + np.abs(p) * sigmoid(-np.abs(p)), (-p * one * zero,)),
        "KL": (kl, (one * zero * (p - q), sigmoid(q) * zero - one * sigmoid(-q))),
    }


class _Bits(NamedTuple):
    """The textbook, by probabilities."""

    logits: Any

    def log_prob(self, action: Any) -> Any:
        return jnp.where(action == 1, jax.nn.log_sigmoid(self.logits), jax.nn.log_sigmoid(-self.logits))

    def entropy(self) -> Any:
        p = jax.nn.sigmoid(self.logits)
        return -(p * jnp.log(p) + (1 - p) * jnp.log(1 - p))

    def kl(self, other: "_Bits") -> Any:
        p, q = jax.nn.sigmoid(self.logits), jax.nn.sigmoid(other.logits)
        return p * jnp.log(p / q) + (1 - p) * jnp.log((1 - p) / (1 - q))


BERNOULLIS = {
    "ours": discrete(lambda z, mask: Bernoulli(z, mask, pc.MultiBinary(()))),
    "naive": discrete(lambda z, mask: _Bits(z)),
    "distrax": discrete(lambda z, mask: distrax.Bernoulli(z)),
}
