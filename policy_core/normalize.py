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

Statistics: TypeAlias = PyTree
"""In the structure of an observation: `{count, mean, variance}` for an array of floats, else `{}`."""

Axis: TypeAlias = str | tuple[str, ...]

# Squares of what is larger would overflow float32 sooner or later.
_LARGEST = 1e18


@static
class Normalize:
    """Arrays of floats in an observation get mean 0 and variance 1, entry by entry.

    y = clip((x - mean) / sqrt(variance + epsilon), -clip, clip), with the statistics of all
    observations that `update_statistics` was given. Integers are left alone, so images of
    uint8 and the parts of discrete spaces are. Until there are statistics the mean is 0
    and the variance 1. A NaN in an observation stays NaN; an infinity is clipped.

    The statistics are leaves of the params, so a file holds them and inference leaves them as
    they are. They have no gradient, and `trainable` says that no optimiser should move them.
    A count, a mean and a variance are each a pair of floats `[2, ...]` whose sum is meant, the
    first of which is that sum rounded: float32 alone stops counting at 2^24, and a mean at
    1000 stops moving when its steps are below 3e-5.

    Args:
        clip: the largest size of a normalised number; inf for none.
        epsilon: added to the variance; what is constant becomes 0.

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
        """The statistics of no observations: mean 0, variance 1; float32, or float64 as the space."""

        def fresh(leaf: jax.ShapeDtypeStruct) -> dict[str, Float[Array, "2 ..."]]:
            if not jnp.issubdtype(leaf.dtype, jnp.floating):
                return {}
            # An array each, for one that is there twice cannot be donated.
            count, mean, variance = (jnp.zeros((2, *leaf.shape), wide_float(leaf.dtype)) for _ in range(3))
            return {"count": count, "mean": mean, "variance": variance.at[0].set(1.0)}

        return jax.tree.map(fresh, space.struct())

    def apply(self, statistics: Statistics, observation: PyTree) -> PyTree:
        """The observation, normalised, without a gradient to the statistics."""

        def normalized(x: Array, seen: dict[str, Float[Array, "2 ..."]]) -> Array:
            if not seen:
                return x
            (high, low), (variance, _) = jax.lax.stop_gradient((seen["mean"], seen["variance"]))
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
        """The statistics updated with observations that have any leading axes.

        The update of Chan, Golub & LeVeque 1983, on the variance in place of the sum of squares.
        Moments of the new observations are those of their distance from the old mean, in two
        passes, and sums over devices are sums of these, so nothing large cancels. Numbers that are
        not finite, or beyond 1e18, are left out, entry by entry.

        Args:
            statistics: as `Normalize.init` gives them, equal on all devices.
            observations: with the same leading axes everywhere.
            mask: which of them count, in the shape of the leading axes; None for all.
            axis_name: over which named axes to sum as well.
        """

        def merge(x: Array, seen: dict[str, Float[Array, "2 ..."]]) -> dict[str, Float[Array, "2 ..."]]:
            return _merge(seen, x, mask, axis_name) if seen else {}

        return jax.tree.map(merge, observations, statistics)


def _merge(
    seen: dict[str, Float[Array, "2 ..."]],
    x: Float[Array, "..."],
    mask: Bool[Array, "..."] | None,
    axis_name: Axis | None,
) -> dict[str, Float[Array, "2 ..."]]:
    count, mean, variance = seen["count"], seen["mean"], seen["variance"]
    shape = mean.shape[1:]
    x = widen(x).reshape(-1, *shape).astype(mean.dtype)
    valid = jnp.abs(x) < _LARGEST  # false for NaN
    if mask is not None:
        valid &= mask.reshape(-1, *(1 for _ in shape))

    def total(values: Array) -> Array:
        whole = jnp.sum(values, 0)
        return whole if axis_name is None else jax.lax.psum(whole, axis_name)

    n = total(valid.astype(jnp.int32)).astype(mean.dtype)

    def average(values: Array) -> Array:
        return total(jnp.where(valid, values, 0)) / jnp.maximum(n, 1)

    y = x - mean[0][None]
    center = average(y)
    rest = average(y - center[None])  # what rounding took from it
    spread = average(jnp.square(y - center[None] - rest[None]))

    # With weight w = n / (n + count): mean' = mean + w d and var' = var + w (spread - var + (1 - w) d^2),
    # where d = center + rest is how far the new mean is from the old one.
    old = jnp.where(count[0][None] > 0, variance, 0)
    new_count = _two_sum(count, n)
    weight = n / jnp.maximum(new_count[0], 1)
    rest -= mean[1]
    change = spread - old[0] - old[1] + (1 - weight) * jnp.square(center + rest)
    new = {
        "count": new_count,
        "mean": _two_sum(_two_sum(mean, weight * center), weight * rest),
        "variance": _two_sum(old, weight * change),
    }
    return {name: jnp.where(n[None] > 0, new[name], seen[name]) for name in seen}


def _two_sum(pair: Float[Array, "2 ..."], x: Float[Array, "..."]) -> Float[Array, "2 ..."]:
    """The pair and a number, summed without an error of rounding (Knuth's two-sum)."""
    high, low = pair
    x = low + x
    rounded = high + x
    part = rounded - high
    return jnp.stack([rounded, (high - (rounded - part)) + (x - part)])
