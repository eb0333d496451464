"""Squashed normals; the entropy by quadrature."""

from collections.abc import Iterator
from typing import Any

import jax.numpy as jnp
import numpy as np
from scipy import special as reference_special

import policy_core as pc
from benchmarks.numerics.common import (
    LARGEST_TERM,
    NORMAL,
    WIDE,
    Case,
    Cases,
    References,
    continuous,
    distrax,
)
from benchmarks.numerics.normal import HALF_LOG_2PI, TextbookNormal
from policy_core.distributions import SquashedNormal


def squashed_cases(rng: np.random.Generator, dtype: Any, quick: bool) -> Iterator[Case]:
    count = 1000 if quick else 40000
    sizes = np.where(rng.random(count) < 0.5, rng.normal(size=count) * 3, 10 ** rng.uniform(-6, 4, count))
    u = (sizes * rng.choice([-1, 1], count)).astype(dtype)
    log_std = rng.choice([-20.0, -10, -5, -2, -1, 0, 1, 2, 5, 10, 20], count).astype(dtype)
    # Draws within a few std, and some that the normal finds absurd.
    noise = rng.normal(size=count) * rng.choice([0, 1, 3, 100], count)
    loc = np.clip(u - noise * np.exp(log_std.astype(float)), -1e4, 1e4).astype(dtype)
    yield {"x": u, "loc": loc, "log_std": log_std}


def squashed_reference(case: Case) -> References:
    u, loc, log_std = (case[k].astype(WIDE) for k in ("x", *NORMAL))
    z = (u - loc) * np.exp(-log_std)
    slope = z * np.exp(-log_std)
    size = np.abs(u)
    log_det = np.where(
        size < 0.5,
        np.log1p(-(np.tanh(np.minimum(size, 1)) ** 2)),
        2 * (np.log(WIDE(2)) - size - np.log1p(np.exp(-2 * size))),
    )
    value = -z * z / 2 - log_std - HALF_LOG_2PI - log_det
    return {
        "log_prob": (value, (2 * np.tanh(u) - slope, slope, z * z - 1)),
        LARGEST_TERM: (np.maximum(np.maximum(z * z / 2, np.abs(log_std)), 2 * size), ()),
    }


def _log_prob_1e_6(d: Any, u: Any) -> Any:
    """With the 1e-6 that many implementations add under the logarithm."""
    return d.log_prob(u) - jnp.log(1 - jnp.tanh(u) ** 2 + 1e-6)


def entropy_cases(*log_stds: float) -> Cases:
    def cases(rng: np.random.Generator, dtype: Any, quick: bool) -> Iterator[Case]:
        del rng
        grid = np.concatenate(
            [np.linspace(0, 20, 100 if quick else 4001), np.geomspace(1e-8, 1e4, 60 if quick else 800)]
        )
        loc = np.concatenate([-grid[::7], grid]).astype(dtype)
        yield {
            "loc": np.tile(loc, len(log_stds)),
            "log_std": np.repeat(np.array(log_stds, dtype), len(loc)),
            "log_stds": np.array(log_stds, dtype),
        }

    return cases


def entropy_reference(case: Case) -> References:
    """E log cosh by quadrature over the noise if std is small, over u with E|u| split off if not."""
    columns: list[list[Any]] = [[], [], []]
    for log_std in case["log_stds"].astype(float):
        loc = case["loc"][case["log_std"] == log_std].astype(float)
        for column, part in zip(columns, _tanh_entropy(np.abs(loc), log_std), strict=True):
            column.append(part)
        columns[1][-1] = columns[1][-1] * np.sign(loc)
    value, by_loc, by_log_std = map(np.concatenate, columns)
    return {"entropy": (value, (by_loc, by_log_std))}


def _tanh_entropy(m: Any, log_std: float) -> tuple[Any, Any, Any]:
    """Entropy of tanh of a normal of mean m >= 0 and its two derivatives, in float64."""
    std, base = np.exp(log_std), 0.5 * np.log(2 * np.pi * np.e) + log_std
    if std < 0.5:  # the trapezoid rule converges like exp(-pi^2 / (std h))
        noise = np.arange(-160, 161) / 16
        weights = np.exp(-(noise**2) / 2) / np.sqrt(2 * np.pi) / 16
        u = m[:, None] + std * noise
        q = np.exp(-2 * np.abs(u))
        log_det = 2 * (np.log(2) - np.abs(u) - np.log1p(q))
        slope, bend = np.tanh(u) @ weights, 4 * q / (1 + q) ** 2 @ weights
        return base + log_det @ weights, -2 * slope, 1 - 2 * std**2 * bend
    nodes, node_weights = np.polynomial.legendre.leggauss(24)
    x = (np.arange(48)[:, None] + (nodes + 1) / 2).ravel() / 2  # up to 24, where e^-2x is nothing
    weights = np.tile(node_weights / 4, 48)
    left, right = (
        np.exp(-(((x + sign * m[:, None]) / std) ** 2) / 2) / np.sqrt(2 * np.pi) / std for sign in (1, -1)
    )
    z, q = m / std, np.exp(-2 * x)
    size = std * np.sqrt(2 / np.pi) * np.exp(-z * z / 2) + m * reference_special.erf(z / np.sqrt(2))
    mean = 2 * np.log(2) - 2 * size - 2 * (left + right) @ (weights * np.log1p(q))
    slope = reference_special.erf(z / np.sqrt(2)) - (right - left) @ (weights * 2 * q / (1 + q))
    bend = (left + right) @ (weights * 4 * q / (1 + q) ** 2)
    return base + mean, -2 * slope, 1 - 2 * std**2 * bend


SQUASHED = {
    "ours": continuous(lambda loc, log_std: SquashedNormal(loc, log_std, pc.Box(low=-1.0, high=1.0))),
    "naive": continuous(lambda loc, log_std: TextbookNormal(loc, jnp.exp(log_std)), _log_prob_1e_6),
    "distrax": continuous(  # from the action, for that is what it samples
        lambda loc, log_std: distrax.Transformed(distrax.Normal(loc, jnp.exp(log_std)), distrax.Tanh()),
        lambda d, u: d.log_prob(jnp.tanh(u)),
    ),
}
