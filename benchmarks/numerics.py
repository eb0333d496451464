"""How right the distributions are: worst errors against references in extended precision.

`python benchmarks/numerics.py` measures and writes docs/numerics.md; with distrax installed
it measures that too. `tests/test_distributions.py` holds the bounds of `ROWS` on fewer
points of the same cases. `--json` prints the errors of one precision (float64 if
JAX_ENABLE_X64=1), and `--quick` takes fewer points.

An error is |x - reference| / max(1, |reference|), where the reference sees the same rounded
inputs. A gradient is measured in reverse, entry by entry, and forward along random signs,
there relative to the sum of the sizes of what is added.
"""

import argparse
import importlib.util
import itertools
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
from jax.scipy import special, stats
from scipy import special as reference_special

import policy_core as pc
from policy_core.distributions import Bernoulli, Beta, Categorical, MultiCategorical, Normal, SquashedNormal

has_distrax = importlib.util.find_spec("distrax") is not None
distrax: Any = importlib.import_module("distrax") if has_distrax else None

Case = dict[str, Any]
Functions = dict[str, tuple[Callable[..., Any], tuple[str, ...]]]  # quantity: (function, its float arguments)
References = dict[str, tuple[Any, tuple[Any, ...]]]  # quantity: (value, its gradients in those arguments)

WIDE = np.longdouble
NVEC = (2, 3, 18, 5, 1)
LARGEST_TERM = "log_prob, by its largest term"
NEAR_EQUAL = ", near-equal"  # a suffix: errors are absolute


Cases = Callable[[np.random.Generator, Any, bool], Iterator[Case]]  # (rng, dtype, quick)
Contestant = Callable[[Case], Functions]


class Family(NamedTuple):
    """Cases of one distribution, their references, and who takes part."""

    name: str
    cases: Cases
    reference: Callable[[Case], References]
    contestants: dict[str, Contestant]
    suffix: str = ""  # appended to the names of the quantities


class Row(NamedTuple):
    """A line of the table. `held` is what the tests hold in float32, `asked` what was wished for."""

    family: str
    quantity: str
    cases: str
    asked: float | None
    held: float


ROWS = (
    Row("Categorical", "log_prob", "n = 1 to 10000, logits in +-1e4, -1e9, -inf", 3e-7, 3e-7),
    Row("Categorical", "log_prob gradient", "same", 3e-7, 3e-7),
    Row("Categorical", "entropy", "same", 3e-7, 3e-7),
    Row("Categorical", "entropy gradient", "same", 3e-7, 3e-7),
    Row("Categorical", "KL", "same", 3e-7, 6e-7),
    Row("Categorical", "KL gradient p", "same; relative to the largest of the row", 3e-7, 1e-6),
    Row("Categorical", "KL gradient q", "same", 3e-7, 3e-7),
    Row("Categorical", "KL, near-equal", "logits differ by 1e-6 to 1e-4; absolute", 1e-9, 1e-9),
    Row(
        "Categorical, masked", "log_prob", "masked logits 1e6, +-inf, NaN; allowed ones also -1e9", 3e-7, 3e-7
    ),
    Row("Categorical, masked", "log_prob gradient", "same", 3e-7, 3e-7),
    Row("Categorical, masked", "entropy", "same", 3e-7, 3e-7),
    Row("Categorical, masked", "entropy gradient", "same", 3e-7, 3e-7),
    Row("Categorical, masked", "KL", "same", 3e-7, 6e-7),
    Row("Categorical, masked", "KL gradient p", "same; relative to the largest of the row", 3e-7, 1e-6),
    Row("Categorical, masked", "KL gradient q", "same", 3e-7, 3e-7),
    Row("MultiCategorical", "log_prob", "rows of 2, 3, 18, 5, 1; masked likewise", 3e-7, 3e-7),
    Row("MultiCategorical", "log_prob gradient", "same", 3e-7, 3e-7),
    Row("MultiCategorical", "entropy", "same", 3e-7, 3e-7),
    Row("MultiCategorical", "entropy gradient", "same", 3e-7, 3e-7),
    Row("MultiCategorical", "KL", "same", 3e-7, 6e-7),
    Row("MultiCategorical", "KL gradient p", "same; relative to the largest of the row", 3e-7, 1e-6),
    Row("MultiCategorical", "KL gradient q", "same", 3e-7, 3e-7),
    Row("Bernoulli", "log_prob", "logits in +-1e4, both bits", 3e-7, 3e-7),
    Row("Bernoulli", "log_prob gradient", "same, also at 0", 3e-7, 3e-7),
    Row("Bernoulli", "entropy", "same", 3e-7, 3e-7),
    Row("Bernoulli", "entropy gradient", "same", 3e-7, 3e-7),
    Row("Bernoulli", "KL", "same, against near and far", 3e-7, 3e-7),
    Row("Bernoulli", "KL gradient", "same", 3e-7, 3e-7),
    Row("Bernoulli", "KL, near-equal", "logits differ by 1e-6 to 1e-4; absolute", 1e-9, 1e-9),
    Row("Normal", "log_prob", "log-std in +-20, to 1000 std from the mean", 5e-7, 1e-5),
    Row("Normal", LARGEST_TERM, "same", 5e-7, 5e-7),
    Row("Normal", "log_prob gradient", "same", 5e-7, 5e-7),
    Row("Normal", "entropy", "same", 5e-7, 5e-7),
    Row("Normal", "KL", "same, log-stds differ by up to 5", 1e-6, 1e-6),
    Row("Normal", "KL gradient", "same", 1e-6, 1e-6),
    Row("SquashedNormal", "log_prob", "of draws in +-1e4, log-std in +-20", 5e-7, 1e-4),
    Row("SquashedNormal", LARGEST_TERM, "same", 5e-7, 5e-7),
    Row("SquashedNormal", "log_prob gradient", "same", 1e-5, 1e-5),
    Row("SquashedNormal", "entropy", "log-std in [-20, 1]", 1e-6, 1e-6),
    Row("SquashedNormal", "entropy gradient", "same", 1e-5, 1e-5),
    Row("SquashedNormal", "entropy, log-std 2", "means in +-1e4", 1e-5, 1e-6),
    Row("SquashedNormal", "entropy, log-std 3", "same", 1e-2, 1e-6),
    Row("SquashedNormal", "entropy, log-std 2 gradient", "same, also log-std 3", 1e-5, 1e-5),
    Row("Beta", "log_prob", "concentrations in [1e-2, 1e4], log-odds in +-1e4", 1e-4, 5e-6),
    Row("Beta", "log_prob gradient", "same", 1e-5, 1e-5),
    Row("Beta", "entropy", "same", 1e-4, 5e-6),
    Row("Beta", "entropy gradient", "same", 1e-5, 1e-5),
    Row("Beta", "KL", "same, near and far", None, 1e-4),
    Row("Beta", "KL gradient", "same", 1e-5, 1e-5),
)


# CATEGORICAL


def categorical_cases(masked: bool) -> Cases:
    """For each n one case, a batch in which everything that is hard comes up."""

    def cases(rng: np.random.Generator, dtype: Any, quick: bool) -> Iterator[Case]:
        for n, rows in ((1, 16), (2, 400), (18, 200), (1000, 16), (10000, 4)):
            parts = list(_logits(rng, n, 1 + rows // 8 if quick else rows, masked))
            case: Case = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
            case["p"], case["q"] = case["p"].astype(dtype), case["q"].astype(dtype)
            if not masked:
                case["mask"] = case["other mask"] = None
            yield case

    return cases


def _logits(rng: np.random.Generator, n: int, rows: int, masked: bool) -> Iterator[Case]:
    def normal(scale: float) -> np.ndarray:
        return rng.normal(size=(rows, n)) * scale

    uniform = [rng.uniform(-1e4, 1e4, (rows, n)) for _ in range(2)]
    some_low, low = normal(1), [normal(1e8) - 1e9 for _ in range(2)]
    some_low[:, ::2] = -1e9 - 1e8 * rng.random(some_low[:, ::2].shape)
    peaked = [normal(1) for _ in range(2)]
    peaked[0][:, 0] = peaked[1][:, -1] = 30
    p = normal(2)
    pairs = [*((normal(s), normal(s)) for s in (0, 0.01, 1, 10, 100)), (p, p + normal(0.3))]
    pairs += [(uniform[0], uniform[1]), (1e4 + normal(2), normal(2) - 1e4)]
    pairs += [(peaked[0], peaked[1]), (some_low, some_low[:, ::-1]), (low[0], low[1])]
    if n > 2:
        impossible = normal(2)
        impossible[:, 0] = -np.inf
        pairs.append((impossible, np.where(impossible > -np.inf, normal(2), -np.inf)))
    for p, q in pairs:
        mask = np.ones((rows, n), bool)
        if masked:  # in one half of the rows an end is masked, and in one row all but one
            mask = rng.random((rows, n)) < 0.6
            mask[: rows // 4, : n // 2] = False
            mask[rows // 4 : rows // 2, (n + 1) // 2 :] = False
            mask[-1] = np.arange(n) == rng.integers(n)
            mask &= p > -np.inf
            mask[np.arange(rows), np.argmax(p, -1)] |= ~mask.any(-1)
        other = mask | (rng.random(mask.shape) < 0.3) if masked else mask
        possible = mask & (p > -np.inf)
        action = np.argmax(np.where(possible, rng.random(p.shape), -1), -1).astype(np.int32)
        junk = rng.choice([1e6, np.inf, -np.inf, np.nan, 3e38], p.shape)
        yield {
            "p": np.where(mask, p, junk),
            "q": np.where(other, q, junk),
            "mask": mask,
            "other mask": other,
            "action": action,
        }


def near_equal_cases(rng: np.random.Generator, dtype: Any, quick: bool) -> Iterator[Case]:
    for n, rows in ((2, 800), (18, 400), (1000, 16)):
        p = rng.normal(size=(1 + rows // 8 if quick else rows, n)) * 3
        size = 10 ** rng.uniform(-6, -4, (len(p), 1))
        p = p.astype(dtype)
        yield {"p": p, "q": (p + rng.normal(size=p.shape) * size).astype(dtype)}


def categorical_reference(case: Case) -> References:
    def parts(z: Any, mask: Any) -> tuple[Any, Any, Any]:
        z = z.astype(WIDE)
        possible = (z > -np.inf) & (True if mask is None else mask)
        with np.errstate(invalid="ignore"):  # masked NaN and inf
            shifted = z - np.max(np.where(possible, z, -np.inf), -1, keepdims=True)
        weights = np.where(possible, np.exp(np.where(possible, shifted, 0)), 0)
        whole = weights.sum(-1, keepdims=True)
        return weights / whole, np.where(possible, shifted - np.log(whole), 0), possible

    p, log_p, possible = parts(case["p"], case.get("mask"))
    q, log_q, other_possible = parts(case["q"], case.get("other mask"))
    d = log_q - log_p
    near = np.abs(d) < 0.1
    terms = np.where(near, p * (np.expm1(np.where(near, d, 0)) - d), q - p - p * d)
    kl = np.where(possible, terms, q).sum(-1)
    mean = np.where(possible, p * -d, 0).sum(-1, keepdims=True)
    out: References = {"KL": (kl, (p * (-d - mean), np.where(other_possible, q - p, 0)))}
    if "action" not in case:
        return {"KL": (kl, ())}
    entropy = -(p * log_p).sum(-1)
    out["entropy"] = entropy, (-p * (log_p + entropy[:, None]),)
    hit = np.arange(p.shape[-1]) == case["action"][:, None]
    out["log_prob"] = (log_p * hit).sum(-1), (hit - p,)
    return out


class _Logits(NamedTuple):
    """Categoricals by log_softmax."""

    logits: Any

    def log_prob(self, action: Any) -> Any:
        return jnp.take_along_axis(jax.nn.log_softmax(self.logits), action[:, None], -1)[:, 0]

    def entropy(self) -> Any:
        return -jnp.sum(jax.nn.softmax(self.logits) * jax.nn.log_softmax(self.logits), -1)

    def kl(self, other: "_Logits") -> Any:
        log_p, log_q = jax.nn.log_softmax(self.logits), jax.nn.log_softmax(other.logits)
        return jnp.sum(jnp.exp(log_p) * (log_p - log_q), -1)


def _discrete(of: Callable[[Any, Any], Any]) -> Contestant:
    """The quantities of a distribution that is built from logits and a mask."""

    def functions(case: Case) -> Functions:
        mask, other = case.get("mask"), case.get("other mask")
        out: Functions = {"KL": (lambda p, q: _kl(of(p, mask), of(q, other)), ("p", "q"))}
        if "action" in case:
            out["log_prob"] = (lambda p: of(p, mask).log_prob(case["action"])), ("p",)
            out["entropy"] = (lambda p: of(p, mask).entropy()), ("p",)
        return out

    return functions


def _kl(p: Any, q: Any) -> Any:
    return p.kl(q) if hasattr(p, "kl") else p.kl_divergence(q)


def _masked_by(least: float, of: Callable[[Any], Any]) -> Callable[[Any, Any], Any]:
    """With a number for the logits of what is masked, as most do it."""
    return lambda z, mask: of(z if mask is None else jnp.where(mask, z, least))


def multi_cases(rng: np.random.Generator, dtype: Any, quick: bool) -> Iterator[Case]:
    case: Case = {}
    rows = [list(_logits(rng, n, 8 if quick else 80, True)) for n in NVEC]
    for name in ("p", "q", "mask", "other mask", "action"):
        # Short rows lack the last kind of case; the kinds are in another order in each row.
        count = min(map(len, rows))
        columns = [
            np.concatenate([kinds[(i + shift) % count][name] for i in range(count)])
            for shift, kinds in enumerate(rows)
        ]
        if name in ("p", "q"):
            case[name] = np.concatenate(columns, -1).astype(dtype)
        else:
            case[name] = np.stack(columns, -1) if name == "action" else tuple(columns)
    yield case


def multi_reference(case: Case) -> References:
    ends = np.cumsum(NVEC)
    rows = [
        categorical_reference(
            {
                **{name: case[name][:, end - n : end] for name in ("p", "q")},
                **{name: case[name][i] for name in ("mask", "other mask")},
                "action": case["action"][:, i],
            }
        )
        for i, (n, end) in enumerate(zip(NVEC, ends, strict=True))
    ]
    return {
        name: (
            sum(row[name][0] for row in rows),
            tuple(np.concatenate(parts, -1) for parts in zip(*(row[name][1] for row in rows), strict=True)),
        )
        for name in rows[0]
    }


# BERNOULLI


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


# NORMAL


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


NORMAL, OTHER = ("loc", "log_std"), ("other loc", "other log_std")
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


def _scores(d: Any, x: Any) -> Any:
    return d.log_prob(x)


def _continuous(
    of: Callable[..., Any], log_prob: Callable[[Any, Any], Any] = _scores, names: tuple[str, ...] = NORMAL
) -> Contestant:
    """Those quantities, for which the case has the arguments, of a distribution with two parameters."""
    others = tuple(f"other {name}" for name in names)
    everything: Functions = {
        "log_prob": (lambda x, *p: log_prob(of(*p), x), ("x", *names)),
        "entropy": (lambda *p: of(*p).entropy(), names),
        "KL": (lambda *p: _kl(of(*p[:2]), of(*p[2:])), (*names, *others)),
    }

    def functions(case: Case) -> Functions:
        return {name: f for name, f in everything.items() if set(f[1]) <= set(case)}

    return functions


class _Normal(NamedTuple):
    """The textbook, by the standard deviation."""

    loc: Any
    scale: Any

    def log_prob(self, x: Any) -> Any:
        return stats.norm.logpdf(x, self.loc, self.scale)

    def entropy(self) -> Any:
        return 0.5 * jnp.log(2 * math.pi * math.e * self.scale**2)

    def kl(self, other: "_Normal") -> Any:
        ratio = (self.scale / other.scale) ** 2
        return 0.5 * (ratio + ((self.loc - other.loc) / other.scale) ** 2 - 1 - jnp.log(ratio))


# SQUASHED NORMAL


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


# BETA


def beta_cases(rng: np.random.Generator, dtype: Any, quick: bool) -> Iterator[Case]:
    grid = [
        *np.logspace(-2, 4, 4 if quick else 13),
        1.0,
        2.0,
        *(() if quick else (1.9999, 3.9999, 4.0001, 7.9999, 8.0001)),
    ]
    pairs = np.array([*itertools.product(grid, grid), *10 ** rng.uniform(-2, 4, (20 if quick else 150, 2))])
    a, b = pairs.astype(dtype).T
    spread = np.sqrt(reference_special.polygamma(1, a) + reference_special.polygamma(1, b))
    middle = np.log(a.astype(float) / b)
    points = [
        middle,
        *(middle + k * spread for k in (-4, -1, 1, 4)),
        np.nextafter(middle.astype(dtype), dtype(9)),
    ]
    points += [np.full(a.shape, z) for z in (-1e4, -30.0, 0, 30, 1e4)]
    yield {
        "x": np.concatenate(points).astype(dtype),
        "a": np.tile(a, len(points)), "b": np.tile(b, len(points)),
    }  # fmt: skip
    others = [pairs * np.exp(rng.normal(size=pairs.shape) * s) for s in (0, 1e-6, 1e-4, 1e-2, 0.3)]
    others += [
        pairs * 1.5,
        rng.permutation(pairs),
        rng.choice(grid, pairs.shape),
        rng.choice(grid, pairs.shape),
    ]
    others = others[1::3] if quick else others
    first, second = np.tile(pairs.T, len(others)).astype(dtype), np.concatenate(others).T.astype(dtype)
    hard = np.array(
        [[0.01, 10**0.5, 0.01, 1000], [0.01, 2.46, 0.0222, 150], [4600, 0.0577, 2, 0.0316]], dtype
    ).T
    columns = np.concatenate([np.concatenate([first, second]), hard], -1)
    yield dict(zip(("a", "b", "other a", "other b"), columns, strict=True))


def beta_reference(case: Case) -> References:
    with mpmath.workdps(40):
        return _beta_reference(case)


def _beta_reference(case: Case) -> References:
    def special_of(values: Any) -> dict[Any, tuple[Any, Any, Any]]:
        return {
            v: (mpmath.loggamma(v), mpmath.digamma(v), mpmath.psi(1, v)) for v in set(map(mpmath.mpf, values))
        }

    a, b = ([mpmath.mpf(float(v)) for v in case[k]] for k in ("a", "b"))
    known = special_of([*a, *b, *(x + y for x, y in zip(a, b, strict=True))])
    if "x" in case:
        log_probs, entropies = [], []
        for x, y, z in zip(a, b, map(float, case["x"]), strict=True):
            (lg_a, psi_a, psi1_a), (lg_b, psi_b, psi1_b), (lg_s, psi_s, psi1_s) = (
                known[x],
                known[y],
                known[x + y],
            )
            tail = mpmath.log1p(mpmath.exp(-abs(z)))
            log_x, log_1x = min(z, 0) - tail, -max(z, 0) - tail
            value = (x - 1) * log_x + (y - 1) * log_1x - (lg_a + lg_b - lg_s)
            by_z = (x - 1) * mpmath.exp(log_1x) - (y - 1) * mpmath.exp(log_x)
            log_probs.append((value, by_z, log_x - psi_a + psi_s, log_1x - psi_b + psi_s))
            value = lg_a + lg_b - lg_s - (x - 1) * psi_a - (y - 1) * psi_b + (x + y - 2) * psi_s
            by_s = (x + y - 2) * psi1_s
            entropies.append((value, by_s - (x - 1) * psi1_a, by_s - (y - 1) * psi1_b))
        return {"log_prob": _columns(log_probs), "entropy": _columns(entropies)}
    c, d = ([mpmath.mpf(float(v)) for v in case[k]] for k in ("other a", "other b"))
    known |= special_of([*c, *d, *(x + y for x, y in zip(c, d, strict=True))])
    kls = []
    for a1, b1, a2, b2 in zip(a, b, c, d, strict=True):
        s1, s2 = a1 + b1, a2 + b2
        log_b1, log_b2 = (known[x][0] + known[y][0] - known[x + y][0] for x, y in ((a1, b1), (a2, b2)))
        psi_a, psi_b, psi_s = known[a1][1], known[b1][1], known[s1][1]
        value = log_b2 - log_b1 + (a1 - a2) * psi_a + (b1 - b2) * psi_b - (s1 - s2) * psi_s
        by_s = (s1 - s2) * known[s1][2]
        by_1 = (a1 - a2) * known[a1][2] - by_s, (b1 - b2) * known[b1][2] - by_s
        kls.append(
            (value, *by_1, *(known[x][1] - known[s2][1] - y + psi_s for x, y in ((a2, psi_a), (b2, psi_b))))
        )
    return {"KL": _columns(kls)}


def _columns(rows: list[Any]) -> tuple[Any, tuple[Any, ...]]:
    value, *gradients = np.array(rows, dtype=float).T
    return value, tuple(gradients)


class _Beta(NamedTuple):
    """The textbook, by the log-odds."""

    a: Any
    b: Any

    def log_prob(self, z: Any) -> Any:
        inner = (self.a - 1) * jax.nn.log_sigmoid(z) + (self.b - 1) * jax.nn.log_sigmoid(-z)
        return inner - special.betaln(self.a, self.b)

    def entropy(self) -> Any:
        psi, (a, b) = special.digamma, self
        inner = (a - 1) * psi(a) + (b - 1) * psi(b)
        return special.betaln(a, b) - inner + (a + b - 2) * psi(a + b)

    def kl(self, other: "_Beta") -> Any:
        psi, (a, b), (c, d) = special.digamma, self, other
        gap = special.betaln(c, d) - special.betaln(a, b)
        return gap + (a - c) * psi(a) + (b - d) * psi(b) + (c + d - a - b) * psi(a + b)


# MEASURING

_CATEGORICALS = {
    "ours": _discrete(lambda z, mask: Categorical(z, mask, pc.Discrete(z.shape[-1]))),
    "naive": _discrete(_masked_by(-1e8, _Logits)),
    "distrax": _discrete(_masked_by(-1e30, lambda z: distrax.Categorical(z))),
}
_MULTI = {"ours": _discrete(lambda z, mask: MultiCategorical(z, mask, pc.MultiDiscrete(NVEC)))}
_BERNOULLIS = {
    "ours": _discrete(lambda z, mask: Bernoulli(z, mask, pc.MultiBinary(()))),
    "naive": _discrete(lambda z, mask: _Bits(z)),
    "distrax": _discrete(lambda z, mask: distrax.Bernoulli(z)),
}
_NORMALS = {
    "ours": _continuous(lambda loc, log_std: Normal(loc, log_std, pc.Box())),
    "naive": _continuous(lambda loc, log_std: _Normal(loc, jnp.exp(log_std))),
    "distrax": _continuous(lambda loc, log_std: distrax.Normal(loc, jnp.exp(log_std))),
}
_SQUASHED = {
    "ours": _continuous(lambda loc, log_std: SquashedNormal(loc, log_std, pc.Box(low=-1.0, high=1.0))),
    "naive": _continuous(lambda loc, log_std: _Normal(loc, jnp.exp(log_std)), _log_prob_1e_6),
    "distrax": _continuous(  # from the action, for that is what it samples
        lambda loc, log_std: distrax.Transformed(distrax.Normal(loc, jnp.exp(log_std)), distrax.Tanh()),
        lambda d, u: d.log_prob(jnp.tanh(u)),
    ),
}
_BETAS = {
    "ours": _continuous(lambda a, b: Beta(a, b, pc.Box(low=0.0, high=1.0)), names=("a", "b")),
    "naive": _continuous(_Beta, names=("a", "b")),
    "distrax": _continuous(
        lambda *p: distrax.Beta(*p), lambda d, z: d.log_prob(jax.nn.sigmoid(z)), names=("a", "b")
    ),
}
_NARROW = (-20.0, -10.0, -5.0, -3.0, -2.0, -1.0, -0.5, 0.0, 0.5, 1.0)
_EXACT = {"ours": _SQUASHED["ours"]}  # the others have no entropy
FAMILIES = (
    Family("Categorical", categorical_cases(False), categorical_reference, _CATEGORICALS),
    Family("Categorical", near_equal_cases, categorical_reference, _CATEGORICALS, NEAR_EQUAL),
    Family("Categorical, masked", categorical_cases(True), categorical_reference, _CATEGORICALS),
    Family("MultiCategorical", multi_cases, multi_reference, _MULTI),
    Family("Bernoulli", bernoulli_cases, bernoulli_reference, _BERNOULLIS),
    Family("Bernoulli", near_equal_bernoulli_cases, bernoulli_reference, _BERNOULLIS, NEAR_EQUAL),
    Family("Normal", normal_cases, normal_reference, _NORMALS),
    Family("SquashedNormal", squashed_cases, squashed_reference, _SQUASHED),
    Family("SquashedNormal", entropy_cases(*_NARROW), entropy_reference, _EXACT),
    Family("SquashedNormal", entropy_cases(2.0), entropy_reference, _EXACT, ", log-std 2"),
    Family("SquashedNormal", entropy_cases(3.0), entropy_reference, _EXACT, ", log-std 3"),
    Family("Beta", beta_cases, beta_reference, _BETAS),
)


def measure(family: Family, dtype: Any, *, quick: bool, who: tuple[str, ...]) -> dict[str, dict[str, float]]:
    """For each contestant the worst error of each quantity."""
    rng = np.random.default_rng(0)
    worst: dict[str, dict[str, float]] = {}
    for case in family.cases(rng, dtype, quick):
        wanted = family.reference(case)
        signs = {
            name: rng.choice([-1.0, 1.0], np.shape(x)).astype(dtype)
            for name, x in case.items()
            if isinstance(x, np.ndarray) and x.dtype == dtype
        }
        for name in set(who) & set(family.contestants):
            so_far = worst.setdefault(name, {})
            for quantity, error in _errors(family, family.contestants[name], case, signs, wanted):
                so_far[quantity] = max(error, so_far.get(quantity, 0))
    return worst


def _errors(
    family: Family, contestant: Contestant, case: Case, signs: Case, wanted: References
) -> Iterator[tuple[str, float]]:
    arguments: dict[str, tuple[str, ...]] = {}

    @jax.jit
    def run(case: Case, signs: Case) -> dict[str, Any]:
        out = {}
        for name, (function, names) in contestant(case).items():
            if name not in wanted:
                continue
            arguments[name] = names
            primals = tuple(case[x] for x in names)
            if not wanted[name][1]:
                out[name] = function(*primals), (), None
                continue
            value, pull = jax.vjp(function, *primals)
            forward = jax.jvp(function, primals, tuple(signs[x] for x in names))[1]
            out[name] = value, pull(jnp.ones_like(value)), forward
        return out

    for name, (value, gradients, forward) in run(case, signs).items():
        want, slopes = wanted[name]
        quantity = name + family.suffix
        yield quantity, _error(value, want, 1 if family.suffix == NEAR_EQUAL else None)
        if name == "log_prob" and LARGEST_TERM in wanted:
            yield LARGEST_TERM, _error(value, want, wanted[LARGEST_TERM][0])
        terms = []
        for x, got, slope in zip(arguments[name], gradients, slopes, strict=bool(slopes)):
            by_row = quantity == "KL" and x == "p" and slope.ndim > 1
            largest = np.max(np.abs(slope), -1, keepdims=True) if by_row else None
            yield f"{quantity} gradient {x}", _error(got, slope, largest)
            term = slope * signs[x]
            terms += [term] if term.ndim == 1 else list(term.T)
        if terms:
            key = f"{quantity} gradient {arguments[name][0]}"
            yield key, _error(forward, sum(terms), sum(map(np.abs, terms)))


def _error(got: Any, want: Any, scale: Any = None) -> float:
    """The worst error, relative to `scale` (the reference itself by default) where that is above 1."""
    with np.errstate(invalid="ignore", over="ignore"):
        size = np.abs(np.asarray(got).astype(WIDE) - want)
    worst = np.max(size / np.maximum(1, np.abs(want) if scale is None else scale))
    return float(worst) if np.isfinite(worst) else math.inf


def errors(*, quick: bool, who: tuple[str, ...]) -> dict[str, dict[str, dict[str, float]]]:
    """{family: {contestant: {quantity: error}}} in the widest precision that JAX now has."""
    dtype = np.float64 if jax.config.read("jax_enable_x64") else np.float32
    out: dict[str, dict[str, dict[str, float]]] = {}
    for family in FAMILIES:
        for name, worst in measure(family, dtype, quick=quick, who=who).items():
            out.setdefault(family.name, {}).setdefault(name, {}).update(worst)
    return out


def of_row(row: Row, worst: dict[str, float]) -> float | None:
    """The error that belongs into a row: that of a value, or of its gradients together."""
    of = [
        error
        for key, error in worst.items()
        if key == row.quantity or (row.quantity.endswith("gradient") and key.startswith(f"{row.quantity} "))
    ]
    return max(of, default=None)


# REPORT

ROOT = Path(__file__).parent.parent


def _cell(error: float | None) -> str:
    return "" if error is None else "non-finite" if math.isinf(error) else f"{error:.0e}"


def report() -> str:
    everyone = ("ours", "naive", "distrax") if has_distrax else ("ours", "naive")
    narrow = errors(quick=False, who=everyone)
    command = [sys.executable, __file__, "--json"]
    wide = subprocess.run(
        command, env={**os.environ, "JAX_ENABLE_X64": "1"}, check=True, capture_output=True, text=True
    )
    double = json.loads(wide.stdout)
    lines = []
    for row in ROWS:
        found = [narrow[row.family].get(name, {}) for name in ("ours", "naive", "distrax")]
        ours, naive, theirs = (_cell(of_row(row, worst)) for worst in found)
        ours_64 = _cell(of_row(row, double[row.family]["ours"]))
        cells = (f"{row.family} {row.quantity}", row.cases, _cell(row.asked), ours, ours_64, naive, theirs)
        lines.append(f"| {' | '.join(cells)} |")
    return TEMPLATE.replace("@ROWS@", "\n".join(lines))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    if options.json:
        print(json.dumps(errors(quick=options.quick, who=("ours",))))
    else:
        (ROOT / "docs" / "numerics.md").write_text(report())


TEMPLATE = """\
# Numerics

What the distributions compute, against references in extended precision (80-bit floats, quadrature,
mpmath) that see the same rounded inputs. An error is |x - reference| / max(1, |reference|), the worst
of the cases; a gradient counts in reverse and forward mode. *naive* is the textbook formula in plain
JAX, *distrax* is distrax 0.1; both are given masked logits as -1e8 and -1e30, the usual ways. Empty:
it does not have this. *non-finite*: NaN or infinity where the right number is finite.

| quantity | cases | asked | ours float32 | ours float64 | naive | distrax |
|---|---|---|---|---|---|---|
@ROWS@

## What is weaker than was asked

- **KL of categoricals** is held to 6e-7 by the tests, and its gradient with respect to the first
  distribution to 1e-6 of the largest entry of the row: such an entry is p (r - sum of p r), and
  where one class dominates the difference of two near numbers is all that is left of it.
- **Log-densities of normals** are sums of terms of both signs. At log-std -20 the terms are of size
  20 and their sum may be near 0; half an ulp of 20 is 1e-6 already, and the square of the distance
  in standard deviations doubles the rounding of both of its factors. Relative to the largest term
  the error stays below 5e-7. The same holds for the squashed normal, where the terms are of size 2|u|.
- **From an environment action**, up to 1 - 2^-24 of the bound, the draw of a squashed normal is
  recovered to three ulp, and that alone costs the log-density up to 8e-7. Stored policy actions lose nothing.
- **KL of Beta distributions** is off by 6e-5 at worst, where one concentration is about 1e-2 in both
  and the other is some 1000 times larger in the second: (0.01, 3.16) against (0.01, 1000). In 99 % of
  random pairs it is below 2e-6.
- **Uniform numbers have 32 bits.** A class whose probability is below about 2^-24 may be drawn at
  2^-24 or never (float32).

Tests hold these figures on fewer points of the same cases. `python benchmarks/numerics.py` measures
them again and writes this page, except for the next section, which it keeps.

## Speed

Two CPU cores, shared with other work, jax 0.10. All contestants take turns in one process; ratios are
of medians, of minima in brackets. Below 1: ours is faster.

`benchmarks/categorical.py`, rows with keys of their own under `vmap`:

| n | batch | sample, us | / jax.random | / distrax | with log_prob / jax | / distrax |
|---|---|---|---|---|---|---|
| 2 | 1 | 7 | 0.87 (0.86) | 0.72 (0.72) | 0.92 (0.93) | 0.81 (0.81) |
| 2 | 64 | 11 | 0.88 (0.88) | 0.72 (0.67) | 0.97 (0.95) | 0.81 (0.82) |
| 2 | 4096 | 130 | 0.94 (1.08) | 0.58 (0.58) | 0.94 (0.94) | 0.73 (0.70) |
| 18 | 1 | 19 | 0.38 (1.13) | 0.45 (0.76) | 0.42 (0.97) | 0.50 (0.94) |
| 18 | 64 | 73 | 0.69 (0.28) | 0.62 (0.27) | 0.68 (0.32) | 0.62 (0.36) |
| 18 | 4096 | 256 | 0.26 (0.20) | 0.25 (0.19) | 0.34 (0.31) | 0.27 (0.25) |
| 256 | 1 | 26 | 0.59 (0.44) | 0.53 (0.36) | 0.62 (0.51) | 0.57 (0.41) |
| 256 | 64 | 92 | 0.19 (0.18) | 0.18 (0.15) | 0.23 (0.23) | 0.22 (0.20) |
| 256 | 4096 | 1167 | 0.08 (0.11) | 0.08 (0.09) | 0.11 (0.14) | 0.11 (0.10) |
| 1024 | 1 | 31 | 0.44 (0.37) | 0.37 (0.33) | 0.47 (0.51) | 0.42 (0.45) |
| 1024 | 64 | 190 | 0.18 (0.17) | 0.17 (0.15) | 0.23 (0.19) | 0.21 (0.17) |
| 1024 | 4096 | 7581 | 0.08 (0.08) | 0.08 (0.07) | 0.24 (0.16) | 0.21 (0.13) |

`benchmarks/squashed_entropy.py`, loss and gradient of `evaluate_action` for a batch of 4096 actions
of 8 numbers (17-64-64 towers). The exact entropy against one more draw and its log-density:

| entropy | median ms | min ms | ratio |
|---|---|---|---|
| none | 3.40 | 2.91 | 0.91 (0.98) |
| one sample | 3.74 | 2.98 | 1.00 (1.00) |
| exact | 4.22 | 3.33 | 1.13 (1.12) |
"""

if __name__ == "__main__":
    main()
