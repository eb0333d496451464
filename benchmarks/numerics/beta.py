"""Betas; references by mpmath."""

import itertools
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import mpmath
import numpy as np
from jax.scipy import special
from scipy import special as reference_special

import policy_core as pc
from benchmarks.numerics.common import Case, References, columns, continuous, distrax
from policy_core.distributions import Beta


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
        return {"log_prob": columns(log_probs), "entropy": columns(entropies)}
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
    return {"KL": columns(kls)}


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


BETAS = {
    "ours": continuous(lambda a, b: Beta(a, b, pc.Box(low=0.0, high=1.0)), names=("a", "b")),
    "naive": continuous(_Beta, names=("a", "b")),
    "distrax": continuous(
        lambda *p: distrax.Beta(*p), lambda d, z: d.log_prob(jax.nn.sigmoid(z)), names=("a", "b")
    ),
}
