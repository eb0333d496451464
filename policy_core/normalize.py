"""Observation normalization: running statistics that are part of the params and never trained."""

import math
from typing import TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree

from policy_core._dtypes import wide_float, widen
from policy_core.configs import static
from policy_core.contract import Space
from policy_core.errors import ConfigError
from policy_core.networks.layers import count_layer

Statistics: TypeAlias = PyTree
"""In the structure of an observation: `{count, mean, variance}` for an array of floats, else `{}`."""

Axis: TypeAlias = str | tuple[str, ...]

# Larger entries are left out: their squares and sums of squares would overflow float32.
_LARGEST = 1e18


@static
class Normalize:
    """Normalization of float observations to mean 0 and variance 1, entry by entry.

    y = clip((x - mean) / sqrt(variance + epsilon), -clip, clip), with the statistics of all
    observations passed to `update_statistics`. Integers are not normalized: neither images of
    uint8 nor the parts of discrete spaces. Until there are statistics the mean is 0
    and the variance 1. A NaN in an observation stays NaN; an infinity is clipped.

    The statistics are leaves of the params, so they are saved in files and constant at
    inference. They have no gradient, and `trainable` masks them from the optimizer.
    A count, a mean and a variance are each an unevaluated sum of two floats `[2, ...]`, the
    first of which is that sum rounded: float32 alone stops counting at 2^24, and a mean at
    1000 stops changing when its steps are below 3e-5.

    Args:
        clip: the largest absolute value of a normalized entry; inf for none.
        epsilon: added to the variance; a constant entry becomes 0.

    Raises:
        ConfigError: unless both are positive, and `epsilon` is finite.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import policy_core as pc
        >>> config = pc.ActorCriticConfig(
        ...     observation_space=pc.Box(shape=(2,)), action_space=pc.Discrete(2),
        ...     normalize=pc.Normalize(),
        ... )
        >>> policy = pc.init(config, key=jax.random.key(0))
        >>> params, _ = pc.update_statistics(policy, jnp.array([[1.0, 5.0], [3.0, 5.0]]))
        >>> params["normalize"]["mean"][0].tolist(), params["normalize"]["variance"][0].tolist()
        ([2.0, 5.0], [1.0, 0.0])
    """

    clip: float = 10.0
    epsilon: float = 1e-8

    def __post_init__(self) -> None:
        if not self.clip > 0:
            raise ConfigError(f"Normalize.clip: got {self.clip}, expected a positive number")
        if not 0 < self.epsilon < math.inf:
            raise ConfigError(f"Normalize.epsilon: got {self.epsilon}, expected a positive number")

    def init(self, space: Space) -> Statistics:
        """The initial statistics: count 0, mean 0, variance 1; float32, or float64 for a float64 space."""

        def fresh(leaf: jax.ShapeDtypeStruct) -> dict[str, Float[Array, "2 ..."]]:
            if not jnp.issubdtype(leaf.dtype, jnp.floating):
                return {}
            count_layer()
            # One array each: one that occurs twice cannot be donated.
            count, mean, variance = (jnp.zeros((2, *leaf.shape), wide_float(leaf.dtype)) for _ in range(3))
            return {"count": count, "mean": mean, "variance": variance.at[0].set(1.0)}

        return jax.tree.map(fresh, space.struct())

    def apply(self, statistics: Statistics, observation: PyTree) -> PyTree:
        """The normalized observation; no gradient flows to the statistics."""

        def normalized(x: Array, stats: dict[str, Float[Array, "2 ..."]]) -> Array:
            if not stats:
                return x
            (high, low), (variance, _) = jax.lax.stop_gradient((stats["mean"], stats["variance"]))
            y = (widen(x).astype(high.dtype) - high - low) / jnp.sqrt(jnp.maximum(variance, 0) + self.epsilon)
            return jnp.clip(y, -self.clip, self.clip)

        return jax.tree.map(normalized, observation, statistics)

    def update(
        self,
        statistics: Statistics,
        observations: PyTree,
        mask: Bool[Array, "..."] | None = None,
        axis_name: Axis | None = None,
    ) -> Statistics:
        """The statistics updated from a batch of observations with any number of leading axes.

        The update of Chan, Golub & LeVeque 1983, on the variance in place of the sum of squares.
        The moments of the batch are those of the distances from the old mean, in two passes, and
        sums over devices are sums of these, so no large numbers cancel. Entries that are not
        finite, or beyond 1e18, are left out, entry by entry.

        Args:
            statistics: as returned by `Normalize.init`, equal on all devices.
            observations: with the same leading axes in all parts.
            mask: which of them count, in the shape of the leading axes; None for all.
            axis_name: named axes to also sum over.
        """

        def merge(x: Array, stats: dict[str, Float[Array, "2 ..."]]) -> dict[str, Float[Array, "2 ..."]]:
            return _merge(stats, x, mask, axis_name) if stats else {}

        return jax.tree.map(merge, observations, statistics)


def _merge(
    stats: dict[str, Float[Array, "2 ..."]],
    x: Float[Array, "..."],
    mask: Bool[Array, "..."] | None,
    axis_name: Axis | None,
) -> dict[str, Float[Array, "2 ..."]]:
    """The statistics of one array, merged with those of a batch `[..., *shape]`."""
    count, mean, variance = stats["count"], stats["mean"], stats["variance"]
    shape = mean.shape[1:]
    x = widen(x).reshape(-1, *shape).astype(mean.dtype)
    valid = jnp.abs(x) < _LARGEST  # false for NaN
    if mask is not None:
        valid &= mask.reshape(-1, *(1 for _ in shape))

    def total(values: Array) -> Array:
        local = jnp.sum(values, 0)
        return local if axis_name is None else jax.lax.psum(local, axis_name)

    n = total(valid.astype(jnp.int32)).astype(mean.dtype)

    def average(values: Array) -> Array:
        return total(jnp.where(valid, values, 0)) / jnp.maximum(n, 1)

    y = x - mean[0][None]
    center = average(y)
    rest = average(y - center[None])  # the rounding error of center
    batch_variance = average(jnp.square(y - center[None] - rest[None]))

    # With d = batch mean - mean = center + rest - mean[1] and w = n / (n + count):
    # mean' = mean + w d and var' = var + w (batch_variance - var + (1 - w) d^2): those of all observations
    # together, however they are split into batches. Before the first one w is 1; the initial variance
    # of 1 is dropped there, so that it leaves no rounding error.
    old = jnp.where(count[0][None] > 0, variance, 0)
    new_count = _two_sum(count, n)
    weight = n / jnp.maximum(new_count[0], 1)
    rest -= mean[1]
    change = batch_variance - old[0] - old[1] + (1 - weight) * jnp.square(center + rest)
    new = {
        "count": new_count,
        "mean": _two_sum(_two_sum(mean, weight * center), weight * rest),
        "variance": _two_sum(old, weight * change),
    }
    # Without a valid entry the statistics stay the same, bit for bit.
    return {name: jnp.where(n[None] > 0, new[name], stats[name]) for name in stats}


def _two_sum(pair: Float[Array, "2 ..."], x: Float[Array, "..."]) -> Float[Array, "2 ..."]:
    """The sum of a pair and a float, as a pair (Knuth's two-sum).

    The first float of the result is `high + (low + x)` rounded, the second its rounding error.
    """
    high, low = pair
    x = low + x
    rounded = high + x
    part = rounded - high
    return jnp.stack([rounded, (high - (rounded - part)) + (x - part)])
