"""Masked categoricals as pure functions over the trailing axis, accurate to float32.

Invariant: all logits are finite. Allowed ones are clipped to +-1e30, masked ones are -2e30 after
the maximum of the row is subtracted. Every impossible class is below -5e29 then, its exponential is
exactly 0, and 0 times a finite number is 0: no inf or NaN enters a sum, a product or a derivative.
Masked logits may have any value, also NaN; a NaN in an allowed logit stays NaN, and masked classes
stay masked beside it.

Functions take shifted logits, called s: the maximum of each row is 0. Nothing is normalized before it is
masked. Derivatives are written out, so that a gradient reads and writes each class once. What a policy
gradient needs is written in `lax`, whose operations are traced faster than those of `jnp`.
"""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Shaped

from policy_core._dtypes import widen
from policy_core.distributions.numerics.common import MASKED_LOG_PROB, expm1_less, pick
from policy_core.spaces.masks import allowed

_LARGEST = -MASKED_LOG_PROB


def clean(logits: Float[Array, "*batch n"], mask: Bool[Array, "*batch n"] | None) -> Float[Array, "*batch n"]:
    """Finite, masked logits; a row that allows nothing counts as one that allows everything."""
    clipped = _clip(widen(logits))
    return clipped if mask is None else jnp.where(_allowed(mask, logits), clipped, -2 * _LARGEST)


def shift(logits: Float[Array, "*batch n"], mask: Bool[Array, "*batch n"] | None) -> Float[Array, "*batch n"]:
    """The clean logits minus the maximum of the row; masked ones stay masked beside a NaN.

    No derivative goes through the maximum: those of the functions below are 0 along (1, ..., 1).
    """
    clipped = _clip(widen(logits))
    fixed = lax.stop_gradient(clipped)
    if mask is None:
        return clipped - _spread(_max(fixed), clipped)
    mask = _allowed(mask, logits)
    shifted = clipped - _spread(_max(lax.select(mask, fixed, lax.full_like(fixed, -jnp.inf))), clipped)
    return lax.select(mask, shifted, lax.full_like(shifted, -2 * _LARGEST))


def log_softmax(s: Float[Array, "*batch n"]) -> Float[Array, "*batch n"]:
    """Normalized log-probabilities; `MASKED_LOG_PROB` for impossible classes."""
    log_probs = s - jnp.log(jnp.sum(jnp.exp(s), -1, keepdims=True))
    return jnp.where(_impossible(s), MASKED_LOG_PROB, log_probs)


def softmax(s: Float[Array, "*batch n"]) -> Float[Array, "*batch n"]:
    """Probabilities; exactly 0 for impossible classes."""
    weights = jnp.exp(s)
    return weights / jnp.sum(weights, -1, keepdims=True)


@jax.custom_jvp
def log_prob(s: Float[Array, "*batch n"], index: Int[Array, "*batch"]) -> Float[Array, "*batch"]:
    """The log-probability of one index per row.

    `MASKED_LOG_PROB`, with zero gradient, for an index that is impossible or out of range.
    """
    return _log_prob(s, index, _sum(lax.exp(s)))[0]


@log_prob.defjvp
def _log_prob_jvp(primals, tangents):  # type: ignore[no-untyped-def]
    s, index = primals
    weights = lax.exp(s)
    normalizer = _sum(weights)
    result, possible = _log_prob(s, index, normalizer)
    return result, _log_prob_slope(s, index, weights, normalizer, possible, tangents[0])


@jax.custom_jvp
def entropy(s: Float[Array, "*batch n"]) -> Float[Array, "*batch"]:
    """Entropy of each row (nats): a sum of terms that are all at least 0."""
    weights = lax.exp(s)
    normalizer = _sum(weights)
    return lax.log(normalizer) - _sum(weights * s) / normalizer


@entropy.defjvp
def _entropy_jvp(primals, tangents):  # type: ignore[no-untyped-def]
    (s,) = primals
    weights = lax.exp(s)
    normalizer = _sum(weights)
    return entropy(s), _entropy_slope(s, weights, normalizer, _sum(weights * s) / normalizer, tangents[0])


@jax.custom_jvp
def log_prob_and_entropy(
    s: Float[Array, "*batch n"], index: Int[Array, "*batch"]
) -> tuple[Float[Array, "*batch"], Float[Array, "*batch"]]:
    """Both, with one normalization."""
    weights = lax.exp(s)
    normalizer = _sum(weights)
    return (
        _log_prob(s, index, normalizer)[0],
        lax.log(normalizer) - _sum(weights * s) / normalizer,
    )


@log_prob_and_entropy.defjvp
def _log_prob_and_entropy_jvp(primals, tangents):  # type: ignore[no-untyped-def]
    (s, index), tangent = primals, tangents[0]
    weights = lax.exp(s)
    normalizer = _sum(weights)
    mean = _sum(weights * s) / normalizer
    result, possible = _log_prob(s, index, normalizer)
    return (result, lax.log(normalizer) - mean), (
        _log_prob_slope(s, index, weights, normalizer, possible, tangent),
        _entropy_slope(s, weights, normalizer, mean, tangent),
    )


@jax.custom_jvp
def kl(sp: Float[Array, "*batch n"], sq: Float[Array, "*batch n"]) -> Float[Array, "*batch"]:
    """KL(p || q) of each row (nats), never negative.

    The sum of p (log p - log q) loses everything when p is near q. Both are normalized, so
    the sum of q - p may be added: with d = log q - log p a term is p (exp(d) - 1 - d), at
    least 0, and stationary in the normalizers, whose rounding enters only squared. For
    large d it is written q - p - p d, which cannot overflow and is right where p is 0.
    """
    p, q = softmax(sp), softmax(sq)
    d = log_softmax(sq) - log_softmax(sp)
    return jnp.sum(jnp.where(d < 2, p * expm1_less(jnp.minimum(d, 2)), q - p - p * d), -1)


@kl.defjvp
def _kl_jvp(primals, tangents):  # type: ignore[no-untyped-def]
    (sp, sq), (tangent_p, tangent_q) = primals, tangents
    p, q, dead = softmax(sp), softmax(sq), _impossible(sq)
    d = log_softmax(sq) - log_softmax(sp)
    near = jnp.abs(d) < 0.5
    # With respect to q: q - p on the support of q, times the mass that p has there.
    off = jnp.sum(jnp.where(dead, p, 0), -1, keepdims=True)
    difference = jnp.where(near, p * jnp.expm1(jnp.where(near, d, 0)), q - p)
    gradient_q = jnp.where(dead, 0, difference - q * off)
    # With respect to p: p (r - sum p r), r = log p - log q up to a constant. Measured from
    # the most likely class of p the differences stay exact when q gives every class of p a tiny probability.
    masked = jnp.where(dead, MASKED_LOG_PROB, sq)
    r = sp - (masked - jnp.max(jnp.where(sp == 0, masked, -jnp.inf), -1, keepdims=True))
    gradient_p = p * (r - jnp.sum(p * r, -1, keepdims=True))
    tangent = jnp.sum(gradient_p * tangent_p, -1) + jnp.sum(gradient_q * tangent_q, -1)
    return kl(sp, sq), tangent


def _log_prob(
    s: Float[Array, "*batch n"], index: Int[Array, "*batch"], normalizer: Float[Array, "*batch"]
) -> tuple[Float[Array, "*batch"], Bool[Array, "*batch"]]:
    """The log-probability, and whether the index is possible."""
    picked, n = pick(s, index), s.shape[-1]
    inside = lax.lt(lax.convert_element_type(index, jnp.uint32), lax.full_like(index, n, jnp.uint32))
    possible = inside & ~_impossible(picked)
    return lax.select(
        possible, picked - lax.log(normalizer), lax.full_like(picked, MASKED_LOG_PROB)
    ), possible


def _log_prob_slope(
    s: Array, index: Array, weights: Array, normalizer: Array, possible: Array, tangent: Array
) -> Array:
    # (hit - p) tangent, divided by the normalizer once a row and not once a class: so what is multiplied into
    # a row is one number, which XLA computes before it, and not again for each class. The hits are compared,
    # so that the transpose of the gather is no scatter.
    hit = lax.eq(_spread(index, s), lax.broadcasted_iota(jnp.int32, s.shape, s.ndim - 1))
    hits = _sum(lax.select(hit, tangent, lax.full_like(tangent, 0)))
    slope = hits * normalizer - _sum(weights * tangent)
    return lax.select(possible, slope, lax.full_like(slope, 0)) / normalizer


def _entropy_slope(s: Array, weights: Array, normalizer: Array, mean: Array, tangent: Array) -> Array:
    # -p (log p + entropy) tangent: the log-normalizers cancel, so only s, its mean and p are left.
    return _sum(weights * (_spread(mean, s) - s) * tangent) / normalizer


def _sum(x: Float[Array, "*batch n"]) -> Float[Array, "*batch"]:
    return lax.reduce_sum(x, (x.ndim - 1,))


def _max(x: Float[Array, "*batch n"]) -> Float[Array, "*batch"]:
    return lax.reduce_max(x, (x.ndim - 1,))


def _spread(x: Shaped[Array, "*batch"], row: Shaped[Array, "*batch n"]) -> Shaped[Array, "*batch n"]:
    """The same number for each class of a row."""
    return lax.broadcast_in_dim(x, row.shape, tuple(range(x.ndim)))


@jax.custom_jvp
def _clip(logits: Float[Array, "*batch n"]) -> Float[Array, "*batch n"]:
    """Finite logits, but for NaN, with the derivative 1, which lets a NaN show.

    What is clipped from below has probability 0 and so no gradient; several that are clipped share one.
    """
    largest = logits.dtype.type(_LARGEST)
    return lax.clamp(-largest, logits, largest)


@_clip.defjvp
def _clip_jvp(primals, tangents):  # type: ignore[no-untyped-def]
    return _clip(*primals), tangents[0]


def _allowed(mask: Bool[Array, "*batch n"], logits: Float[Array, "*batch n"]) -> Bool[Array, "*batch n"]:
    return allowed(jnp.broadcast_to(mask, logits.shape))


def _impossible(s: Float[Array, "*shape"]) -> Bool[Array, "*shape"]:
    return s < -_LARGEST / 2
