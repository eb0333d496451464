"""The worst errors of all families."""

import math
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.numerics.bernoulli import (
    BERNOULLIS,
    bernoulli_cases,
    bernoulli_reference,
    near_equal_bernoulli_cases,
)
from benchmarks.numerics.beta import BETAS, beta_cases, beta_reference
from benchmarks.numerics.categorical import (
    CATEGORICALS,
    MULTI,
    categorical_cases,
    categorical_reference,
    multi_cases,
    multi_reference,
    near_equal_cases,
)
from benchmarks.numerics.common import LARGEST_TERM, NEAR_EQUAL, WIDE, Case, Contestant, Family, References
from benchmarks.numerics.normal import NORMALS, normal_cases, normal_reference
from benchmarks.numerics.rows import Row
from benchmarks.numerics.squashed import (
    SQUASHED,
    entropy_cases,
    entropy_reference,
    squashed_cases,
    squashed_reference,
)

_NARROW = (-20.0, -10.0, -5.0, -3.0, -2.0, -1.0, -0.5, 0.0, 0.5, 1.0)
_EXACT = {"ours": SQUASHED["ours"]}  # the others have no entropy
FAMILIES = (
    Family("Categorical", categorical_cases(False), categorical_reference, CATEGORICALS),
    Family("Categorical", near_equal_cases, categorical_reference, CATEGORICALS, NEAR_EQUAL),
    Family("Categorical, masked", categorical_cases(True), categorical_reference, CATEGORICALS),
    Family("MultiCategorical", multi_cases, multi_reference, MULTI),
    Family("Bernoulli", bernoulli_cases, bernoulli_reference, BERNOULLIS),
    Family("Bernoulli", near_equal_bernoulli_cases, bernoulli_reference, BERNOULLIS, NEAR_EQUAL),
    Family("Normal", normal_cases, normal_reference, NORMALS),
    Family("SquashedNormal", squashed_cases, squashed_reference, SQUASHED),
    Family("SquashedNormal", entropy_cases(*_NARROW), entropy_reference, _EXACT),
    Family("SquashedNormal", entropy_cases(2.0), entropy_reference, _EXACT, ", log-std 2"),
    Family("SquashedNormal", entropy_cases(3.0), entropy_reference, _EXACT, ", log-std 3"),
    Family("Beta", beta_cases, beta_reference, BETAS),
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
