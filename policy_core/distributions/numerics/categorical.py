"""Masked categoricals as pure functions over the trailing axis, right to float32.

One idea carries the masks. `clean` turns logits into finite numbers: allowed ones clipped
to +-1e30, masked ones at -2e30. After the shift by the maximum of the row everything that
cannot happen lies below -5e29, its exponential is exactly 0, and 0 times a finite number
is 0: no inf or NaN ever enters a sum, a product or a derivative. What is masked may be
anything, even NaN; a NaN in an allowed logit is not hidden, and lifts no mask.

Functions take clean logits, called z. Nothing is normalised before it is masked.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from policy_core._dtypes import widen
from policy_core.distributions.numerics.common import MASKED_LOG_PROB, expm1_less
from policy_core.spaces.masks import allowed

_LARGEST = -MASKED_LOG_PROB


def clean(logits: Float[Array, "*batch n"], mask: Bool[Array, "*batch n"] | None) -> Float[Array, "*batch n"]:
    """Finite logits with the mask folded in; a row that allows nothing is taken as unmasked."""
    logits = widen(logits)
    if mask is None:
        return jnp.clip(logits, -_LARGEST, _LARGEST)
    mask = allowed(jnp.broadcast_to(mask, logits.shape))
    # Twice `where`: the inner keeps what is masked out of `clip`, the outer cuts its gradient.
    return jnp.where(mask, jnp.clip(jnp.where(mask, logits, 0), -_LARGEST, _LARGEST), -2 * _LARGEST)


def shift(z: Float[Array, "*batch n"]) -> Float[Array, "*batch n"]:
    """The logits less the largest of the row; what is masked stays masked beside a NaN."""
    shifted = z - jax.lax.stop_gradient(jnp.max(z, -1, keepdims=True))
    return jnp.where(z < -1.5 * _LARGEST, -2 * _LARGEST, shifted)


def log_softmax(z: Float[Array, "*batch n"]) -> Float[Array, "*batch n"]:
    """Normalised log-probabilities; `MASKED_LOG_PROB` for what cannot happen."""
    return _parts(z)[1]


def softmax(z: Float[Array, "*batch n"]) -> Float[Array, "*batch n"]:
    """Probabilities; exactly 0 for what cannot happen."""
    return _parts(z)[0]


def log_prob(shifted: Float[Array, "*batch n"], index: Int[Array, "*batch"]) -> Float[Array, "*batch"]:
    """The log-probability of one index a row, from shifted logits.

    `MASKED_LOG_PROB`, with zero gradient, for an index that cannot happen or is out of range.
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
    normaliser = jnp.sum(weights, -1, keepdims=True)
    return jnp.sum(weights / normaliser * (jnp.log(normaliser) - s), -1)


@entropy.defjvp
def _entropy_jvp(primals, tangents):  # type: ignore[no-untyped-def]
    (z,), (tangent,) = primals, tangents
    s, p = shift(z), softmax(z)
    # -p (log p + entropy), with the log-normalisers cancelled on paper.
    gradient = p * (jnp.sum(p * s, -1, keepdims=True) - s)
    return entropy(z), jnp.sum(gradient * tangent, -1)


@jax.custom_jvp
def kl(zp: Float[Array, "*batch n"], zq: Float[Array, "*batch n"]) -> Float[Array, "*batch"]:
    """KL(p || q) of each row (nats), never negative.

    The sum of p (log p - log q) loses everything when p is near q. Both are normalised, so
    the sum of q - p may be added: with d = log q - log p a term is p (exp(d) - 1 - d), at
    least 0, and stationary in the normalisers, whose rounding enters only squared. For
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
    # the most likely class of p the differences stay exact when q finds all of p absurd.
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
    """Probabilities, log-probabilities, and what cannot happen."""
    s = shift(z)
    weights = jnp.exp(s)
    normaliser = jnp.sum(weights, -1, keepdims=True)
    dead = _impossible(s)
    return weights / normaliser, jnp.where(dead, MASKED_LOG_PROB, s - jnp.log(normaliser)), dead
