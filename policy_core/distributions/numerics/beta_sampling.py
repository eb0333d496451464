"""Sampling a Beta distribution in log-odds, differentiable in the concentrations."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from policy_core.contract import Key
from policy_core.distributions.numerics.beta import horner, q_remainder


@jax.custom_jvp
def _implicit_log_gamma(a: Array, log_g: Array) -> Any:
    """`log_g` itself, a log-gamma sample, with the derivative of the sample in its concentration."""
    del a
    return log_g


@_implicit_log_gamma.defjvp
def _implicit_log_gamma_jvp(primals: Any, tangents: Any) -> Any:
    """d log g / da = -(dP/da) / (g p(g)) at a fixed quantile (Figurnov et al. 2018).

    `lax.random_gamma_grad` needs g itself, which underflows for small a; there P(a, g) is
    g^a / Gamma(a+1) to within a relative g, hence d log g / da = (psi(a+1) - log g) / a. In
    float32 it also loses digits for large a (6e-4 at 1e4); there dg/da is expanded in 1/a:
    with e = g/a - 1, d log g / da = (log1p(e)/e + (1/6 - e/12 + e^2/20 - ...) / a) / a.
    """
    (a, log_g), (ta, _) = primals, tangents
    tiny, large = log_g < math.log(jnp.finfo(a.dtype).eps), a > (300 if a.dtype == jnp.float32 else jnp.inf)
    off = tiny | large
    g = jnp.exp(jnp.where(off, 0, log_g))
    slope = lax.random_gamma_grad(jnp.where(off, 1, a), g) / g  # pyright: ignore[reportCallIssue]
    low = (jnp.log1p(a) - q_remainder(a + 1) - log_g) / a
    log1p_e = jnp.where(large, log_g - jnp.log(a), 0)
    e = jnp.expm1(log1p_e)
    ratio = jnp.where(e == 0, 1, log1p_e / jnp.where(e == 0, 1, e))
    high = (ratio + horner(-e, [1 / ((j + 2) * (j + 3)) for j in range(6)]) / a) / a
    return log_g, jnp.where(tiny, low, jnp.where(large, high, slope)) * ta


def sample_beta_logit(a: Array, b: Array, key: Key) -> Array:
    """Log-odds of a sample, differentiable in a and b by implicit reparameterization.

    The difference of two log-gammas: finite also where x or 1 - x underflows. `key` is consumed.
    """
    logs = [
        _implicit_log_gamma(
            c,
            lax.stop_gradient(jax.random.loggamma(k, lax.stop_gradient(c), dtype=c.dtype)),
        )
        for k, c in zip(jax.random.split(key), (a, b), strict=True)
    ]
    return jnp.asarray(logs[0] - logs[1])
