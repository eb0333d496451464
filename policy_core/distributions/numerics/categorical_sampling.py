"""Sampling a categorical by inverse transform sampling, from one uniform number per row.

`jax.random.categorical` draws a Gumbel number for every class. Here one uniform number is
compared with the cumulative sum of the exponentials, which the log-probability needs as well; see
`benchmarks/categorical.py` for how much faster that is.

Invariant: a class of weight 0 is never sampled, whatever the rounding. The cumulative sum is
therefore one explicit chain of additions: it increases at a class only if the weight of
that class is above 0, and it is bit for bit the same eagerly, under jit and under vmap. A
parallel scan such as `jnp.cumsum` guarantees neither.

The uniform number has 32 random bits (64 in float64), rounded once. A class whose probability
is below about 2^-24 may be sampled with probability 2^-24 or 0.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from policy_core.contract import Key

_WIDTH = 32  # the longest cumulative sum that is unrolled
_PADDING = -2e30  # a logit of weight exactly 0


def sample(shifted: Float[Array, "*batch n"], key: Key) -> Int[Array, "*batch"]:
    """An index per row, int32, from logits minus their maximum. `key` is consumed.

    A row with a NaN is NaN in every allowed class: there all allowed classes are equally likely.
    """
    shifted = jax.lax.stop_gradient(shifted)
    shifted = jnp.where(jnp.isnan(shifted), 0, shifted)
    bits = 8 * shifted.dtype.itemsize
    uniform = jax.random.bits(key, shifted.shape[:-1], f"uint{bits}").astype(shifted.dtype) * 2.0**-bits
    return _choose(shifted, uniform, is_fraction=True)


def _choose(
    shifted: Float[Array, "*batch n"], target: Float[Array, "*batch"], *, is_fraction: bool
) -> Int[Array, "*batch"]:
    """The class whose interval contains `target`: first a column of classes, then a class in it.

    The logits of the column are gathered and their exponentials computed again, not stored.
    """
    n = shifted.shape[-1]
    if n <= _WIDTH:
        return _invert(_weights(shifted), target, is_fraction)[0]
    rows = -(-n // _WIDTH)
    padding = [(0, 0)] * (shifted.ndim - 1) + [(0, rows * _WIDTH - n)]
    table = jnp.pad(shifted, padding, constant_values=_PADDING)
    table = table.reshape(*shifted.shape[:-1], rows, _WIDTH)
    column, target, before = _invert(_sum_rows(_weights(table)), target, is_fraction)
    picked = jnp.take_along_axis(table, column[..., None, None], -1)[..., 0]
    return _choose(picked, target - before, is_fraction=False) * _WIDTH + column


def _weights(shifted: Float[Array, "*batch n"]) -> Float[Array, "*batch n"]:
    """Exponentials; 0 where they would be subnormal, as backends differ in flushing these to 0."""
    smallest = math.log(float(jnp.finfo(shifted.dtype).tiny)) + 0.1
    return jnp.where(shifted > smallest, jnp.exp(shifted), 0)


def _invert(
    weights: Float[Array, "*batch n"], target: Float[Array, "*batch"], is_fraction: bool
) -> tuple[Int[Array, "*batch"], Float[Array, "*batch"], Float[Array, "*batch"]]:
    """The class whose interval contains the target, the target, and the sum before that class.

    Invariant: the weight of the class is above 0. It is the first class whose cumulative sum
    exceeds the target, or the first that reaches the total if rounding put the target there; at
    both the sum increases.
    """
    sums = [weights[..., 0]]
    for k in range(1, weights.shape[-1]):
        sums.append(sums[-1] + weights[..., k])
    total = sums[-1]
    if is_fraction:
        # The minimum also keeps `target * total - before` from becoming one fused operation.
        target = jnp.minimum(target * total, total)
    index, before = jnp.zeros(total.shape, jnp.int32), jnp.zeros_like(total)
    for partial in sums[:-1]:
        # `partial < total`: no class after the first that reaches the total is chosen, so none of weight 0.
        past = (partial <= target) & (partial < total)
        index, before = index + past.astype(jnp.int32), jnp.where(past, partial, before)
    return index, target, before


def _sum_rows(weights: Float[Array, "*batch rows n"]) -> Float[Array, "*batch n"]:
    """Sums over the rows by halving: a fixed order of additions, so the same bits in every program."""
    while (n := weights.shape[-2]) > 1:
        half = n // 2
        odd = weights[..., n - n % 2 :, :]
        weights = weights[..., :half, :] + weights[..., half : 2 * half, :]
        weights = jnp.concatenate([weights, odd], -2)
    return weights[..., 0, :]
