"""KL divergence of Beta distributions: never negative, and accurate when they are nearly equal.

In the notation of `numerics.beta`, KL = s2 KL(Bern(m2) | Bern(m1)) + half + rest: the large terms
x log x cancel on paper and leave the first; `half` collects the log(x) / 2 terms, and `rest` the
Bregman divergences of the Stirling remainder R. Invariant: all terms are formed from a2 - a1, b2 - b1
and the exact cross product a1 b2 - b1 a2, and are of second order in these. So no large numbers
cancel, and the relative error stays small as the two distributions approach each other.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from policy_core.distributions.numerics.beta import cross as exact_cross
from policy_core.distributions.numerics.beta import (
    log1p_and_h,
    precision,
    r_series,
    t_series,
    tilt,
    u_remainder,
)


def _pair(x: Array, y: Array, t: Array) -> Any:
    """For y = x + t: x and y shifted above N by the recurrence if need be, and log1p(w), h(w).

    1 + w = x (y + n) / (y (x + n)). `xs`, `ys` and `ts` are x, y
    and t where they are shifted and 1, 1, 0 elsewhere, so that nothing there is inf or NaN.
    """
    n = precision(x)[0]
    small = jnp.minimum(x, y) < n
    xn, yn = (jnp.where(small, v + n, v) for v in (x, y))
    xs, ys, ts = jnp.where(small, x, 1), jnp.where(small, y, 1), jnp.where(small, t, 0)
    w = log1p_and_h(-n * ts / (ys * (xs + n)), jnp.log(xs / ys * ((ys + n) / (xs + n))))
    return n, small, xn, yn, xs, ys, ts, w


def _bregman_r(x: Array, y: Array, t: Array) -> Any:
    """Bregman divergence R(y) - R(x) - R'(x) t for y = x + t, from terms of second order in t."""
    n, small, xn, yn, xs, ys, ts, (_, h_w) = _pair(x, y, t)
    series = (t / xn) ** 2 / (12 * yn) + (r_series(yn, 1) - r_series(xn, 1) + t * t_series(xn, 1))
    # sum_k h(t/(x+k)) with few logarithms: prod_k (1 + r_k) = 1 + u and u = sum_k r_k + excess.
    ratio = [(ys + k) / (xs + k) for k in range(n)]
    u = excess = total = jnp.zeros_like(ts)
    for k in range(n):
        r = ts / (xs + k)
        u, excess, total = u + r + u * r, excess + u * r, total + r
    log_u, h_u = log1p_and_h(u, jnp.log(math.prod(ratio[: n // 2])) + jnp.log(math.prod(ratio[n // 2 :])))
    h_sum = jnp.where((u > -0.5) & (u < 1), h_u - excess, total - log_u)
    h_n = log1p_and_h(ts / (xs + n), jnp.log((ys + n) / (xs + n)))[1]
    h_0 = log1p_and_h(ts / xs, jnp.log(ratio[0]))[1]
    return series + jnp.where(small, (h_sum - n * h_n - ys * h_w) + 0.5 * (h_n - h_0), 0)


@jax.custom_jvp
def _q_diff(x: Array, y: Array, t: Array) -> Any:
    """Q(y) - Q(x) for y = x + t, relatively accurate for small t."""
    n, small, xn, yn, xs, ys, ts, (log_w, _) = _pair(x, y, t)
    series = -0.5 * t / (xn * yn) + (t_series(yn) - t_series(xn))
    return series - jnp.where(small, ts * sum(1 / ((xs + k) * (ys + k)) for k in range(n)) + log_w, 0)


_q_diff.defjvps(lambda g, o, x, y, t: g * u_remainder(x), lambda g, o, x, y, t: -g * u_remainder(y), None)


def _kl_tilt(a1: Array, b1: Array, a2: Array, b2: Array) -> Any:
    """a1 b2 - b1 a2, and `tilt` from the mean of the second distribution to that of the first."""
    cross = exact_cross(a1, b1, a2, b2)
    d = log1p_and_h(cross / (b1 * a2), jnp.log(a1 / b1 * (b2 / a2)))[0]
    return cross, tilt(a2, b2, jnp.log(a1 / b1), d)


@jax.custom_jvp
def beta_kl(a1: Array, b1: Array, a2: Array, b2: Array) -> Any:
    """KL(Beta(a1, b1) | Beta(a2, b2)) (nats), at least 0."""
    s1, s2, da, db = a1 + b1, a2 + b2, a2 - a1, b2 - b1
    ds = da + db  # not s2 - s1, whose terms are already rounded
    cross, (_, _, _, bern) = _kl_tilt(a1, b1, a2, b2)
    # The log(x)/2 terms leave [h(a2/a1-1) + h(b2/b1-1) - h(s2/s1-1)]/2. With A the larger of a, b:
    # h(A2/A1-1) - h(s2/s1-1) = h(q) + (A2/A1 - s2/s1)(s2-s1)/s2, q = (A2/s2)/(A1/s1) - 1: no cancellation.
    swap = a1 < b1
    big1, small1, small2 = jnp.where(swap, b1, a1), jnp.where(swap, a1, b1), jnp.where(swap, a2, b2)
    big2, gap = jnp.where(swap, b2, a2), jnp.where(swap, cross, -cross) / (big1 * s1)
    h_q = log1p_and_h(gap * (s1 / s2), jnp.log(big2 / big1 * (s1 / s2)))[1]
    h_small = log1p_and_h((small2 - small1) / small1, jnp.log(small2 / small1))[1]
    half = 0.5 * (h_small + h_q + gap * (ds / s2))
    rest = (_bregman_r(a1, a2, da) + _bregman_r(b1, b2, db)) - _bregman_r(s1, s2, ds)
    return jnp.maximum(s2 * bern + half + rest, 0)  # only rounding can make the sum negative


@beta_kl.defjvp
def _kl_jvp(primals: Any, tangents: Any) -> Any:
    (a1, b1, a2, b2), (ta1, tb1, ta2, tb2) = primals, tangents
    s1, da, db = a1 + b1, a2 - a1, b2 - b1
    cross, (l1, l2, _, _) = _kl_tilt(a1, b1, a2, b2)
    us, qs = (da + db) * u_remainder(s1), _q_diff(s1, a2 + b2, da + db)
    grad = (
        (cross / (a1 * s1) - da * u_remainder(a1) + us) * ta1
        + (us - cross / (b1 * s1) - db * u_remainder(b1)) * tb1
        + (qs - _q_diff(a1, a2, da) - l1) * ta2
        + (qs - _q_diff(b1, b2, db) - l2) * tb2
    )
    return beta_kl(a1, b1, a2, b2), grad
