"""Normals; references in 80-bit floats."""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.scipy import stats

import policy_core as pc
from benchmarks.numerics.common import LARGEST_TERM, NORMAL, WIDE, Case, References, continuous, distrax
from policy_core.distributions import Normal


def normal_cases(rng: np.random.Generator, dtype: Any, quick: bool) -> Iterator[Case]:
    count = 1000 if quick else 40000
    log_std = np.where(
        rng.random(count) < 0.1, rng.choice([-20.0, 0, 20], count), rng.uniform(-20, 20, count)
    )
    loc = rng.normal(size=count) * rng.choice([0, 1, 1e3], count)
    log_std, loc = log_std.astype(dtype), loc.astype(dtype)
    far = rng.normal(size=(2, count)) * rng.choice([0, 1e-3, 1, 30, 1e3], (2, count))
    other = log_std + np.clip(rng.normal(size=count) * rng.choice([0, 1e-5, 1e-3, 0.1, 2], count), -5, 5)
    distance = np.clip(far, -1e3, 1e3) * np.exp(log_std.astype(float))
    yield {
        "x": (loc + distance[0]).astype(dtype), "loc": loc, "log_std": log_std,
        "other loc": (loc + distance[1]).astype(dtype), "other log_std": other.astype(dtype),
    }  # fmt: skip


OTHER = ("other loc", "other log_std")
HALF_LOG_2PI = WIDE("0.918938533204672741780329736405617639861")


def normal_reference(case: Case) -> References:
    x, loc, log_std, other_loc, other = (case[k].astype(WIDE) for k in ("x", *NORMAL, *OTHER))
    z = (x - loc) * np.exp(-log_std)
    slope = z * np.exp(-log_std)
    d, w = log_std - other, (loc - other_loc) * np.exp(-other)
    pull, ratio = w * np.exp(-other), np.expm1(2 * d)
    ones = np.ones_like(x)
    return {
        "log_prob": (-z * z / 2 - log_std - HALF_LOG_2PI, (-slope, slope, z * z - 1)),
        LARGEST_TERM: (np.maximum(z * z / 2, np.abs(log_std)), ()),
        "entropy": (log_std + HALF_LOG_2PI + WIDE(0.5), (0 * ones, ones)),
        "KL": ((ratio - 2 * d + w * w) / 2, (pull, ratio, -pull, -ratio - w * w)),
    }


class TextbookNormal(NamedTuple):
    """The textbook, by the standard deviation."""

    loc: Any
    scale: Any

    def log_prob(self, x: Any) -> Any:
        return stats.norm.logpdf(x, self.loc, self.scale)

    def entropy(self) -> Any:
        return 0.5 * jnp.log(2 * math.pi * math.e * self.scale**2)

    def kl(self, other: "TextbookNormal") -> Any:
        ratio = (self.scale / other.scale) ** 2
        return 0.5 * (ratio + ((self.loc - other.loc) / other.scale) ** 2 - 1 - jnp.log(ratio))


NORMALS = {
    "ours": continuous(lambda loc, log_std: Normal(loc, log_std, pc.Box())),
    "naive": continuous(lambda loc, log_std: TextbookNormal(loc, jnp.exp(log_std))),
    "distrax": continuous(lambda loc, log_std: distrax.Normal(loc, jnp.exp(log_std))),
}
