"""The Beta distribution in log-odds, accurate to float32 for concentrations from 1e-2 to 1e4.

The point x in (0, 1) is given as z = log x - log(1 - x), which keeps its precision near 0 and 1;
densities are those of x. With s = a + b, m = a / s and d = z - log(a / b):

For a = b = 1e4 the textbook formulas subtract numbers of 1e5 to find one of size 1, which
leaves two digits in float32. Here the large parts are removed on paper.

- Stirling (DLMF 5.11.1, 5.11.2): lgamma(x) = (x - 1/2) log x - x + log(2 pi)/2 + R(x),
  psi(x) = log x - Q(x), psi'(x) = 1/x + U(x). R, Q and U are small and smooth: asymptotic
  series from N on, and the recurrence (DLMF 5.5.1, 5.5.2) moves smaller x up by N.
- log p = -s KL(Bern(m) | Bern(x)) - log x - log(1-x) - log(2 pi s/(ab))/2 - R(a) - R(b) + R(s),
  the saddle-point form of Loader, "Fast and accurate computation of binomial probabilities"
  (2000). KL(Bern(m) | Bern(x)) = m h(v) + (1-m) h(-w) with v = x/m - 1, w = (x-m)/(1-m) and
  h(u) = u - log1p(u): two positive terms, both from d without cancellation.
- d must be good to much less than the last bit of z, for s multiplies it: log(a/b) is formed
  in two words (Dekker 1971). All splits are `lax.reduce_precision` and products of split
  parts are exact, so neither fused operations nor excess precision spoil them.
- In the entropy all terms a log a cancel; in the KL they leave s2 KL(Bern(m2) | Bern(m1)).

Derivatives are given in the same stable quantities, forward, reverse and second order.
Everything is elementwise and branch-free; arguments have one shape and dtype, a and b are in
[1e-6, 1e8], z is finite. Figures: docs/numerics.md.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

_BERNOULLI = (1 / 6, -1 / 30, 1 / 42, -1 / 30, 5 / 66, -691 / 2730, 7 / 6, -3617 / 510, 43867 / 798)


def precision(x: Array) -> Any:
    """(N, number of Stirling terms, number of atanh terms) that reach the dtype's precision."""
    return (8, 9, 17) if x.dtype == jnp.float64 else (4, 4, 8)


def horner(t: Array, coefs: Any) -> Any:
    """sum_k coefs[k] t^k."""
    acc = jnp.full_like(t, coefs[-1])
    for c in coefs[-2::-1]:
        acc = acc * t + c
    return acc


# EXACT BUILDING BLOCKS


def _split(x: Array) -> Any:
    """x = hi + lo, each with half of the significand, so that products of halves are exact."""
    hi = lax.reduce_precision(x, 8, 11) if x.dtype == jnp.float32 else lax.reduce_precision(x, 11, 25)
    return hi, x - hi


@jax.custom_jvp
def cross(a: Array, b: Array, c: Array, d: Array) -> Any:
    """a*d - b*c, accurate to about one rounding error even when the products agree in many digits."""
    (ah, al), (bh, bl), (ch, cl), (dh, dl) = map(_split, (a, b, c, d))
    return (ah * dh - bh * ch) + ((ah * dl - bh * cl) + (al * dh - bl * ch)) + (al * dl - bl * cl)


cross.defjvps(
    lambda t, o, a, b, c, d: t * d,
    lambda t, o, a, b, c, d: -t * c,
    lambda t, o, a, b, c, d: -t * b,
    lambda t, o, a, b, c, d: t * a,
)


@jax.custom_jvp
def _offset(a: Array, b: Array, z: Array) -> Any:
    """d = z - log(a/b), with the logarithm to about 8 bits more than float32.

    log(a/b) = k log 2 + 2 atanh(t) with |t| < 0.172.
    """
    (fa, ka), (fb, kb) = jnp.frexp(a), jnp.frexp(b)
    up, dn = fa > math.sqrt(2) * fb, fb > math.sqrt(2) * fa
    fa, fb = jnp.where(up, fa * 0.5, fa), jnp.where(dn, fb * 0.5, fb)
    k = (ka - kb + up.astype(ka.dtype) - dn.astype(ka.dtype)).astype(a.dtype)
    num, den = fa - fb, fa + fb  # num is exact (Sterbenz)
    den_lo = jnp.minimum(fa, fb) - (den - jnp.maximum(fa, fb))  # exact rounding error of den
    t = num / den
    (th, tl), (dh, dl) = _split(t), _split(den)
    t_lo = ((((num - th * dh) - th * dl) - tl * dh) - tl * dl - t * den_lo) / den
    t2 = t * t
    tail = t * t2 * horner(t2, [2 / (2 * j + 3) for j in range(13 if a.dtype == jnp.float64 else 5)])
    bits = 2.0 ** (40 if a.dtype == jnp.float64 else 14)
    ln2 = round(math.log(2) * bits) / bits  # short enough for k * ln2 to be exact
    ln2_lo = (math.log(2) - ln2) + 2.319046813846299616e-17  # second word of log 2
    hi = k * ln2 + 2 * t
    lo = (2 * t - (hi - k * ln2)) + (tail + (2 * t_lo + k * ln2_lo))
    return (z - hi) - lo


_offset.defjvps(lambda t, o, a, b, z: -t / a, lambda t, o, a, b, z: t / b, lambda t, o, a, b, z: t)


def log1p_and_h(u: Array, far: Array) -> Any:
    """(log1p(u), u - log1p(u)); `far` is log(1+u), used outside -1/2 < u < 1 (Loader's bd0, atanh series)."""
    near = (u > -0.5) & (u < 1)
    v = jnp.where(near, u, 0)
    t = v / (2 + v)
    c = t * t * horner(t * t, [2 / (2 * j + 3) for j in range(precision(t)[2])])
    return jnp.where(near, t * (2 + c), far), jnp.where(near, t * (v - c), u - far)


# STIRLING REMAINDERS


def _shift(x: Array) -> Any:
    """y >= N with y = x or y = x + N, the flag, and x clipped to the range where it is shifted."""
    n = precision(x)[0]
    small = x < n
    return jnp.where(small, x + n, x), small, jnp.minimum(x, n), n


def r_series(y: Array, first: int = 0) -> Any:
    """R(y) for y >= N, without its leading terms before `first`."""
    c = [b / ((2 * k + 2) * (2 * k + 1)) for k, b in enumerate(_BERNOULLI[: precision(y)[1]])][first:]
    return (1 / y) ** (2 * first + 1) * horner((1 / y) ** 2, c)


def t_series(y: Array, first: int = 0) -> Any:
    """-R'(y) = Q(y) - 1/(2y) for y >= N, without its leading terms before `first`."""
    c = [b / (2 * k + 2) for k, b in enumerate(_BERNOULLI[: precision(y)[1]])][first:]
    return (1 / y) ** (2 * first + 2) * horner((1 / y) ** 2, c)


def _r(x: Array) -> Any:
    """R(x) = lgamma(x) - (x-1/2) log x + x - log(2 pi)/2."""
    y, small, xs, n = _shift(x)
    ratio = math.prod([(xs + k) / (xs + n) for k in range(n)])
    return r_series(y) + jnp.where(small, (xs - 0.5) * jnp.log1p(n / xs) - n - jnp.log(ratio), 0)


@jax.custom_jvp
def q_remainder(x: Array) -> Any:
    """Q(x) = log x - psi(x)."""
    y, small, xs, n = _shift(x)
    return (
        0.5 / y + t_series(y) + jnp.where(small, sum(1 / (xs + k) for k in range(n)) - jnp.log1p(n / xs), 0)
    )


q_remainder.defjvps(lambda t, o, x: -t * u_remainder(x))


def u_remainder(x: Array) -> Any:
    """U(x) = psi'(x) - 1/x = sum_k 1/((x+k)^2 (x+k+1)): only positive terms, hence relatively accurate."""
    y, small, xs, n = _shift(x)
    i = 1 / y
    head = sum(1 / ((xs + k) * (xs + k) * (xs + k + 1)) for k in range(n))
    return i * i * (0.5 + i * horner(i * i, _BERNOULLI[: precision(x)[1]])) + jnp.where(small, head, 0)


# LOG DENSITY


@jax.custom_jvp
def tilt(a: Array, b: Array, z: Array, d: Array) -> Any:
    """(log(x/m), log((1-x)/(1-m)), x - m, KL(Bern(m)|Bern(x))) where logit x = z = logit m + d."""
    del z  # only its derivative is used
    s = a + b
    m, mc, up = a / s, b / s, d >= 0
    e, e1 = jnp.exp(-jnp.abs(d)), -jnp.expm1(-jnp.abs(d))
    rise, fall = jnp.where(up, m, mc), jnp.where(up, mc, m)  # mean of the outcome that gains / loses weight
    den = e + rise * e1
    gain, loss = fall * e1 / den, rise * e1 / den  # relative changes, gain >= 0, 0 <= loss < 1
    l_rise, h_rise = log1p_and_h(gain, jnp.log(1 + gain))
    l_fall, h_fall = log1p_and_h(-loss, -jnp.abs(d) - jnp.log(den))
    delta = rise * gain
    return (
        jnp.where(up, l_rise, l_fall),
        jnp.where(up, l_fall, l_rise),
        jnp.where(up, delta, -delta),
        rise * h_rise + fall * h_fall,
    )


@tilt.defjvp
def _tilt_jvp(primals: Any, tangents: Any) -> Any:
    (a, b, z, d), (ta, tb, tz, _) = primals, tangents  # d is a function of a, b, z: its tangent is not used
    s, x, xc = a + b, jax.nn.sigmoid(z), jax.nn.sigmoid(-z)
    out = tilt(a, b, z, d)
    ts = (ta + tb) / s
    tm = (b / s * ta - a / s * tb) / s
    tl1, tl2 = xc * tz - (ta / a - ts), -x * tz - (tb / b - ts)
    return out, (tl1, tl2, x * xc * tz - tm, out[2] * tz - (out[0] - out[1]) * tm)


@jax.custom_jvp
def beta_log_prob(a: Array, b: Array, z: Array) -> Any:
    """Log-density of Beta(a, b) at x = sigmoid(z), with respect to x (nats)."""
    s = a + b
    tail = jnp.log1p(jnp.exp(-jnp.abs(z)))
    lx, lxc = jnp.minimum(z, 0) - tail, -jnp.maximum(z, 0) - tail
    saddle = -s * tilt(a, b, z, _offset(a, b, z))[3] - lx - lxc
    # For a < 2 the terms -a log x and log x nearly cancel in the saddle-point form: use (a - 1) log x there.
    plain = (a - 1) * lx + (b - 1) * lxc + a * jnp.log1p(b / a) + b * jnp.log1p(a / b)
    const = 0.5 * jnp.log(2 * math.pi * (1 / a + 1 / b)) + ((_r(a) + _r(b)) - _r(s))
    return jnp.where(jnp.minimum(a, b) < 2, plain, saddle) - const


@beta_log_prob.defjvp
def _log_prob_jvp(primals: Any, tangents: Any) -> Any:
    (a, b, z), (ta, tb, tz) = primals, tangents
    l1, l2, delta, _ = tilt(a, b, z, _offset(a, b, z))
    qs = q_remainder(a + b)
    grad = (
        (l1 + (q_remainder(a) - qs)) * ta
        + (l2 + (q_remainder(b) - qs)) * tb
        + (jnp.tanh(z / 2) - (a + b) * delta) * tz
    )
    return beta_log_prob(a, b, z), grad


# ENTROPY


@jax.custom_jvp
def beta_entropy(a: Array, b: Array) -> Any:
    """Differential entropy of Beta(a, b) (nats)."""
    s = a + b

    def part(x: Array, k: int) -> Array:
        return jnp.asarray(_r(x) + (x - k) * q_remainder(x))

    return 0.5 * jnp.log(2 * math.pi * (a / s) * (b / s) / s) + ((part(a, 1) + part(b, 1)) - part(s, 2))


@beta_entropy.defjvp
def _entropy_jvp(primals: Any, tangents: Any) -> Any:
    (a, b), (ta, tb) = primals, tangents

    def part(x: Array, k: int) -> Array:
        return jnp.asarray(k / x - (x - k) * u_remainder(x))  # 1 - (x-k) psi'(x)

    ps = part(a + b, 2)
    return beta_entropy(a, b), (part(a, 1) - ps) * ta + (part(b, 1) - ps) * tb


# LOCATION


def beta_mean_logit(a: Array, b: Array) -> Array:
    """Log-odds of the mean, log(a/b)."""
    mean: Array = -_offset(a, b, jnp.zeros_like(a))
    return mean


def beta_mode_logit(a: Array, b: Array) -> Array:
    """Log-odds of the mode, log((a-1)/(b-1)), for a, b > 1; of the mean otherwise."""
    inner = (a > 1) & (b > 1)
    return beta_mean_logit(jnp.where(inner, a - 1, a), jnp.where(inner, b - 1, b))
