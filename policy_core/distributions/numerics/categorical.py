"""Masked categoricals as pure functions over the trailing axis, accurate to float32.

Invariant: all logits are finite. `clean` clips allowed ones to +-1e30 and sets masked ones to
-2e30. After the shift by the maximum of the row every impossible class is below -5e29, its
exponential is exactly 0, and 0 times a finite number is 0: no inf or NaN enters a sum, a product
or a derivative. Masked logits may have any value, also NaN; a NaN in an allowed logit stays NaN,
and masked classes stay masked beside it.

Functions take clean logits, called z. Nothing is normalized before it is masked.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from policy_core._dtypes import widen
from policy_core.distributions.numerics.common import MASKED_LOG_PROB, expm1_less
from policy_core.spaces.masks import allowed

_LARGEST = -MASKED_LOG_PROB


def clean(logits: Float[Array, "*batch n"], mask: Bool[Array, "*batch n"] | None) -> Float[Array, "*batch n"]:
    """Finite, masked logits; a row that allows nothing counts as one that allows everything."""
    logits = widen(logits)
    if mask is None:
        return jnp.clip(logits, -_LARGEST, _LARGEST)
    mask = allowed(jnp.broadcast_to(mask, logits.shape))
    # Two `where`: the inner keeps masked NaNs out of `clip`, the outer makes their gradient 0.
    return jnp.where(mask, jnp.clip(jnp.where(mask, logits, 0), -_LARGEST, _LARGEST), -2 * _LARGEST)


def shift(z: Float[Array, "*batch n"]) -> Float[Array, "*batch n"]:
    """The logits minus the maximum of the row; masked ones stay masked beside a NaN."""
    shifted = z - jax.lax.stop_gradient(jnp.max(z, -1, keepdims=True))
    return jnp.where(z < -1.5 * _LARGEST, -2 * _LARGEST, shifted)


def log_softmax(z: Float[Array, "*batch n"]) -> Float[Array, "*batch n"]:
    """Normalized log-probabilities; `MASKED_LOG_PROB` for impossible classes."""
    return _parts(z)[1]


def softmax(z: Float[Array, "*batch n"]) -> Float[Array, "*batch n"]:
    """Probabilities; exactly 0 for impossible classes."""
    return _parts(z)[0]


def log_prob(shifted: Float[Array, "*batch n"], index: Int[Array, "*batch"]) -> Float[Array, "*batch"]:
    """The log-probability of one index per row, from shifted logits.

    `MASKED_LOG_PROB`, with zero gradient, for an index that is impossible or out of range.
    A one-hot sum, not a gather: exact, as one term is not zero; an index out of range matches
    nothing; and the transpose is no scatter.
    """
    n = jax.lax.broadcasted_iota(jnp.int32, shifted.shape, shifted.ndim - 1)
    hit = (index[..., None] == n) & ~_impossible(shifted)
    picked = jnp.sum(jnp.where(hit, shifted, 0), -1) - jnp.log(jnp.sum(jnp.exp(shifted), -1))
    return jnp.where(jnp.any(hit, -1), picked, MASKED_LOG_PROB)


@jax.custom_jvp
def entropy(z: Float[Array, "*batch n"]) -> Float[Array, "*batch"]:
    """Entropy of each row (nats): a sum of terms that are all at least 0."""
    s = shift(z)
    weights = jnp.exp(s)
    normalizer = jnp.sum(weights, -1, keepdims=True)
    return jnp.sum(weights / normalizer * (jnp.log(normalizer) - s), -1)


@entropy.defjvp
def _entropy_jvp(primals, tangents):  # type: ignore[no-untyped-def]
    (z,), (tangent,) = primals, tangents
    s, p = shift(z), softmax(z)
    # The gradient is -p (log p + entropy); its log-normalizers cancel, so only s and p are left.
    gradient = p * (jnp.sum(p * s, -1, keepdims=True) - s)
    return entropy(z), jnp.sum(gradient * tangent, -1)


@jax.custom_jvp
def kl(zp: Float[Array, "*batch n"], zq: Float[Array, "*batch n"]) -> Float[Array, "*batch"]:
    """KL(p || q) of each row (nats), never negative.

    The sum of p (log p - log q) loses everything when p is near q. Both are normalized, so
    the sum of q - p may be added: with d = log q - log p a term is p (exp(d) - 1 - d), at
    least 0, and stationary in the normalizers, whose rounding enters only squared. For
    large d it is written q - p - p d, which cannot overflow and is right where p is 0.
    """
    p, log_p, _ = _parts(zp)
    q, log_q, _ = _parts(zq)
    d = log_q - log_p
    return jnp.sum(jnp.where(d < 2, p * expm1_less(jnp.minimum(d, 2)), q - p - p * d), -1)


@kl.defjvp
def _kl_jvp(primals, tangents):  # type: ignore[no-untyped-def]
    (zp, zq), (tangent_p, tangent_q) = primals, tangents
    p, log_p, _ = _parts(zp)
    q, log_q, dead = _parts(zq)
    d = log_q - log_p
    near = jnp.abs(d) < 0.5
    # With respect to q: q - p on the support of q, times the mass that p has there.
    off = jnp.sum(jnp.where(dead, p, 0), -1, keepdims=True)
    difference = jnp.where(near, p * jnp.expm1(jnp.where(near, d, 0)), q - p)
    gradient_q = jnp.where(dead, 0, difference - q * off)
    # With respect to p: p (r - sum p r), r = log p - log q up to a constant. Measured from
    # the most likely class of p the differences stay exact when q gives every class of p a tiny probability.
    s = shift(zp)
    zq = jnp.where(dead, MASKED_LOG_PROB, zq)
    r = s - (zq - jnp.max(jnp.where(s == 0, zq, -jnp.inf), -1, keepdims=True))
    gradient_p = p * (r - jnp.sum(p * r, -1, keepdims=True))
    tangent = jnp.sum(gradient_p * tangent_p, -1) + jnp.sum(gradient_q * tangent_q, -1)
    return kl(zp, zq), tangent


def _impossible(shifted: Float[Array, "*batch n"]) -> Bool[Array, "*batch n"]:
    return shifted < -_LARGEST / 2


def _parts(
    z: Float[Array, "*batch n"],
) -> tuple[Float[Array, "*batch n"], Float[Array, "*batch n"], Bool[Array, "*batch n"]]:
    """Probabilities, log-probabilities, and which classes are impossible."""
    s = shift(z)
    weights = jnp.exp(s)
    normalizer = jnp.sum(weights, -1, keepdims=True)
    dead = _impossible(s)
    return weights / normalizer, jnp.where(dead, MASKED_LOG_PROB, s - jnp.log(normalizer)), dead
