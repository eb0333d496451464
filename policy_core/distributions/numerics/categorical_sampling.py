"""Sampling a categorical by inverse transform sampling, from one random number per row, in integers.

`jax.random.categorical` draws a Gumbel number for every class. Here one random number is compared with
the cumulative sum of the weights, which are rounded to integers first; see `benchmarks/categorical.py` for
how much faster that is.

Invariants: a class of weight 0 is never sampled, and the same key gives the same class eagerly, under jit
and under vmap. Both follow from the integers: their sums are exact in any order, and class k is chosen if
and only if `sum(weights[:k]) <= target < sum(weights[:k + 1])`.

In float32 a weight is a multiple of about 2^-31 of the total (2^-25 of the largest for up to 32 classes),
so the total variation from the exact distribution is at most n 2^-30 (n 2^-25); in float64, of 2^-63.
"""

import math

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, UInt

from policy_core.contract import Key

_WIDTH = 32  # the longest row that is searched in one step


def sample(shifted: Float[Array, "*batch n"], key: Key) -> Int[Array, "*batch"]:
    """An index per row, int32, from logits minus their maximum. `key` is consumed.

    A row with a NaN is NaN in every allowed class: there all allowed classes are equally likely.
    """
    shifted = lax.stop_gradient(shifted)
    shifted = jnp.where(jnp.isnan(shifted), 0, shifted)
    bits = jax.random.bits(key, shifted.shape[:-1], f"uint{8 * shifted.dtype.itemsize}")
    weights = _integers(jnp.exp(shifted))
    n = weights.shape[-1]
    if n <= _WIDTH:
        return _search(weights, _fraction(bits, jnp.sum(weights, -1, dtype=weights.dtype)))[0]
    columns = math.isqrt(n - 1) + 1  # first a column of classes, then a class in it
    rows = -(-n // columns)
    padding = [(0, 0)] * (weights.ndim - 1) + [(0, rows * columns - n)]
    table = jnp.pad(weights, padding).reshape(*weights.shape[:-1], rows, columns)
    sums = jnp.sum(table, -2, dtype=table.dtype)
    column, rest = _search(sums, _fraction(bits, jnp.sum(sums, -1, dtype=sums.dtype)))
    picked = jnp.take_along_axis(table, column[..., None, None], -1, mode="promise_in_bounds")[..., 0]
    return _search(picked, rest)[0] * columns + column


def _integers(weights: Float[Array, "*batch n"]) -> UInt[Array, "*batch n"]:
    """Weights of at most 1, rounded down to multiples of one unit, whose sum stays below half the range."""
    n, bits = weights.shape[-1], 8 * weights.dtype.itemsize
    signed, unsigned = f"int{bits}", f"uint{bits}"
    scale = 2.0 ** (bits - 1 - n.bit_length())
    if n <= _WIDTH:
        return (weights * scale).astype(signed).astype(unsigned)
    # A sum that is too large by up to n says by which power of 2 the unit may be smaller.
    coarse = jnp.sum((weights * scale).astype(signed) + 1, -1, dtype=signed)
    finer = jnp.left_shift(jnp.ones_like(coarse), lax.clz(coarse) - 1).astype(weights.dtype)
    return (weights * (scale * finer)[..., None]).astype(signed).astype(unsigned)


def _fraction(bits: UInt[Array, "*batch"], total: UInt[Array, "*batch"]) -> UInt[Array, "*batch"]:
    """The upper half of the product: uniform among the integers below the total."""
    half = 4 * bits.dtype.itemsize
    low = (1 << half) - 1
    a, b, c, d = bits >> half, bits & low, total >> half, total & low
    middle = a * d + (b * d >> half)
    return a * c + (middle >> half) + ((b * c + (middle & low)) >> half)


def _search(
    weights: UInt[Array, "*batch n"], target: UInt[Array, "*batch"]
) -> tuple[Int[Array, "*batch"], UInt[Array, "*batch"]]:
    """The class whose interval of the cumulative sum holds the target, and the target's place in it."""
    n = weights.shape[-1]
    until = lax.broadcasted_iota(jnp.int32, (n, n), 0) >= lax.broadcasted_iota(jnp.int32, (n, n), 1)
    sums = jnp.sum(jnp.where(until, weights[..., None, :], 0), -1, dtype=weights.dtype)
    past = sums <= target[..., None]
    before = jnp.max(jnp.where(past, sums, 0), -1)
    return jnp.sum(past, -1, dtype=jnp.int32), target - before
