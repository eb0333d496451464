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
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int, UInt

from policy_core.contract import Key
from policy_core.distributions.numerics.common import pick

_WIDTH = 32  # the longest row that is searched in one step


def sample(shifted: Float[Array, "*batch n"], key: Key) -> Int[Array, "*batch"]:
    """An index per row, int32, from logits minus their maximum. `key` is consumed.

    A NaN has the largest weight, so that in a row of NaN all allowed classes are equally likely.
    """
    weights = lax.exp(lax.stop_gradient(shifted))
    weights = lax.select(lax.ne(weights, weights), lax.full_like(weights, 1), weights)
    bits = jax.random.bits(key, shifted.shape[:-1], f"uint{8 * shifted.dtype.itemsize}")
    integers, total = _integers(weights)
    target = _fraction(bits, total)
    if integers.ndim == weights.ndim:
        return _search(integers, target)[0]
    row, rest = _search(_sum(integers, -1), target)  # first a row of classes, then a class in it
    return row * integers.shape[-1] + _search(pick(integers, row), rest)[0]


def _integers(weights: Float[Array, "*batch n"]) -> tuple[Int[Array, "..."], Int[Array, "*batch"]]:
    """Weights of at most 1, rounded down to multiples of one unit, and their sum, below half the range.

    More than 32 are a table, in C order, of about as many rows as columns.
    """
    n, bits = weights.shape[-1], 8 * weights.dtype.itemsize
    scale = 2.0 ** (bits - 1 - n.bit_length())
    if n <= _WIDTH:
        integers = _rounded(weights * scale)
        return integers, _sum(integers, -1)
    columns = math.isqrt(n - 1) + 1
    rows = -(-n // columns)
    if rows * columns > n:
        padding = [(0, 0, 0)] * (weights.ndim - 1) + [(0, rows * columns - n, 0)]
        weights = lax.pad(weights, np.zeros((), weights.dtype), padding)
    table = weights.reshape(*weights.shape[:-1], rows, columns)
    # A sum that is too large by up to n says by which power of 2 the unit may be smaller.
    coarse = _total(_rounded(table * scale)) + n
    finer = lax.shift_left(lax.full_like(coarse, 1), lax.clz(coarse) - 1).astype(table.dtype)
    unit = lax.expand_dims(scale * finer, (finer.ndim, finer.ndim + 1))
    integers = _rounded(table * unit)
    return integers, _total(integers)


def _rounded(weights: Float[Array, "*shape"]) -> Int[Array, "*shape"]:
    return weights.astype(f"int{8 * weights.dtype.itemsize}")


def _fraction(bits: UInt[Array, "*batch"], total: Int[Array, "*batch"]) -> Int[Array, "*batch"]:
    """The upper half of the product: uniform among the integers below the total."""
    half = 4 * bits.dtype.itemsize
    low = (1 << half) - 1
    total = lax.convert_element_type(total, bits.dtype)
    a, b, c, d = bits >> half, bits & low, total >> half, total & low
    middle = a * d + (b * d >> half)
    product = a * c + (middle >> half) + ((b * c + (middle & low)) >> half)
    return lax.convert_element_type(product, f"int{8 * bits.dtype.itemsize}")


def _search(
    weights: Int[Array, "*batch n"], target: Int[Array, "*batch"]
) -> tuple[Int[Array, "*batch"], Int[Array, "*batch"]]:
    """The class whose interval of the cumulative sums holds the target, and the target's place in it."""
    shape = (*weights.shape, weights.shape[-1])
    axes = len(shape) - 2, len(shape) - 1
    until = lax.broadcasted_iota(jnp.int32, shape, axes[0]) >= lax.broadcasted_iota(jnp.int32, shape, axes[1])
    over = lax.broadcast_in_dim(weights, shape, (*range(len(shape) - 2), axes[1]))
    past = _sum(lax.select(until, over, lax.full_like(over, 0)), -1) <= lax.expand_dims(
        target, (target.ndim,)
    )
    before = lax.select(past, weights, lax.full_like(weights, 0))
    zero = np.zeros((), weights.dtype)
    index, before = lax.reduce(
        (lax.convert_element_type(past, jnp.int32), before),
        (np.int32(0), zero),
        lambda x, y: (x[0] + y[0], x[1] + y[1]),
        (weights.ndim - 1,),
    )
    return index, target - before


def _total(table: Int[Array, "*batch rows columns"]) -> Int[Array, "*batch"]:
    """The sum of a table. The maximum changes nothing; without it XLA makes one long sum of the two."""
    return _sum(lax.max(_sum(table, -1), np.zeros((), table.dtype)), -1)


def _sum(x: Int[Array, "..."], axis: int) -> Int[Array, "..."]:
    return lax.reduce_sum(x, (x.ndim + axis,))
