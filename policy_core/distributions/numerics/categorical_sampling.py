"""Sampling a categorical by inverting its distribution function at one uniform number.

`jax.random.categorical` draws a Gumbel number for every class. One uniform and a running
sum over the exponentials that the log-probability needs anyway do the same; see
`benchmarks/categorical.py` for how much faster.

A class of weight 0 must never be drawn, also where rounding meets the ends of the running
sum. The sum is therefore one explicit chain of additions: it rises at a class only if the
weight of that class is above 0, and it is bit for bit the same eagerly, under jit and
under vmap. A parallel scan such as `jnp.cumsum` promises neither.

The uniform has 32 random bits (64 in float64), rounded once. A class whose probability is
below about 2^-24 may be drawn at 2^-24 or never.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from policy_core.contract import Key

_WIDTH = 32  # the longest running sum that is unrolled
_NOTHING = -2e30


def sample(shifted: Float[Array, "*batch n"], key: Key) -> Int[Array, "*batch"]:
    """An index a row, int32, from logits less their largest. `key` is consumed.

    A row with a NaN is NaN in all that is allowed: there every allowed class is as likely.
    """
    shifted = jax.lax.stop_gradient(shifted)
    shifted = jnp.where(jnp.isnan(shifted), 0, shifted)
    bits = 8 * shifted.dtype.itemsize
    uniform = jax.random.bits(key, shifted.shape[:-1], f"uint{bits}").astype(shifted.dtype) * 2.0**-bits
    return _choose(shifted, uniform, is_fraction=True)


def _choose(
    shifted: Float[Array, "*batch n"], target: Float[Array, "*batch"], *, is_fraction: bool
) -> Int[Array, "*batch"]:
    """The class that holds `target`: choose a column of classes, then a class inside it only.

    What is gathered are logits, whose exponentials are taken again: none is ever stored.
    """
    n = shifted.shape[-1]
    if n <= _WIDTH:
        return _invert(_weights(shifted), target, is_fraction)[0]
    rows = -(-n // _WIDTH)
    padding = [(0, 0)] * (shifted.ndim - 1) + [(0, rows * _WIDTH - n)]
    table = jnp.pad(shifted, padding, constant_values=_NOTHING)
    table = table.reshape(*shifted.shape[:-1], rows, _WIDTH)
    column, target, before = _invert(_sum_rows(_weights(table)), target, is_fraction)
    picked = jnp.take_along_axis(table, column[..., None, None], -1)[..., 0]
    return _choose(picked, target - before, is_fraction=False) * _WIDTH + column


def _weights(shifted: Float[Array, "*batch n"]) -> Float[Array, "*batch n"]:
    """Exponentials; 0 where they would be subnormal, which backends flush differently."""
    smallest = math.log(float(jnp.finfo(shifted.dtype).tiny)) + 0.1
    return jnp.where(shifted > smallest, jnp.exp(shifted), 0)


def _invert(
    weights: Float[Array, "*batch n"], target: Float[Array, "*batch"], is_fraction: bool
) -> tuple[Int[Array, "*batch"], Float[Array, "*batch"], Float[Array, "*batch"]]:
    """The class that holds the target, the target itself, and the sum before that class.

    It is the first class whose running sum exceeds the target, or the first that reaches the
    total if rounding put the target there. At both the sum rises, so the weight is above 0.
    """
    sums = [weights[..., 0]]
    for k in range(1, weights.shape[-1]):
        sums.append(sums[-1] + weights[..., k])
    whole = sums[-1]
    if is_fraction:
        # The minimum also keeps `target * whole - before` from becoming one fused operation.
        target = jnp.minimum(target * whole, whole)
    index, before = jnp.zeros(whole.shape, jnp.int32), jnp.zeros_like(whole)
    for partial in sums[:-1]:
        past = (partial <= target) & (partial < whole)
        index, before = index + past.astype(jnp.int32), jnp.where(past, partial, before)
    return index, target, before


def _sum_rows(weights: Float[Array, "*batch rows n"]) -> Float[Array, "*batch n"]:
    """Sums over the rows by halving, in an order that is fixed for the same reason."""
    while (n := weights.shape[-2]) > 1:
        half = n // 2
        odd = weights[..., n - n % 2 :, :]
        weights = weights[..., :half, :] + weights[..., half : 2 * half, :]
        weights = jnp.concatenate([weights, odd], -2)
    return weights[..., 0, :]
