"""Observation normalization: running statistics that are part of the params and never trained."""

import dataclasses
import math
from typing import Any, Literal, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PyTree

from policy_core._dtypes import wide_float, widen
from policy_core.configs import added, set_field, static
from policy_core.contract import Space
from policy_core.errors import ConfigError, StructureError
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
        epsilon: added to the variance, or to the standard deviation; a constant entry becomes 0.
        form: "variance" for sqrt(variance + epsilon), or "std" for sqrt(variance) + epsilon, as rsl-rl has
            it, with 0.01.
        min_std: the smallest standard deviation, before `epsilon` is added to it.
        max_count: the largest count. From there on the statistics are moving averages, in which a new
            observation weighs 1 / `max_count`: for observations whose distribution changes.
        keys: the parts of a `Dict` that are normalized; None for all.

    Raises:
        ConfigError: for a number out of range.

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
    form: Literal["variance", "std"] = added("variance")
    min_std: float = added(0.0)
    max_count: float = added(math.inf)
    keys: tuple[str, ...] | None = added(None)

    def __post_init__(self) -> None:
        if not self.clip > 0:
            raise ConfigError(f"Normalize.clip: got {self.clip}, expected a positive number")
        if not 0 < self.epsilon < math.inf:
            raise ConfigError(f"Normalize.epsilon: got {self.epsilon}, expected a positive number")
        if not 0 <= self.min_std < math.inf:
            raise ConfigError(f"Normalize.min_std: got {self.min_std}, expected at least 0")
        if not self.max_count >= 1:
            raise ConfigError(f"Normalize.max_count: got {self.max_count}, expected at least 1")
        if self.keys is not None:
            set_field(self, "keys", tuple(sorted(self.keys)))

    def check_space(self, space: Space) -> None:
        """Raise `ConfigError` unless the keys are parts of the space, each once."""
        if self.keys is None:
            return
        struct = space.struct()
        names = list(struct) if isinstance(struct, dict) else []
        if not set(self.keys) <= set(names) or len(set(self.keys)) != len(self.keys):
            raise ConfigError(
                f"Normalize.keys: got {self.keys}, expected names of a Dict observation, each once; there "
                f"are {names}"
            )

    def narrowed(self, space: Space) -> "Normalize":
        """The same for a space of fewer parts."""
        if self.keys is None:
            return self
        names = space.struct()
        return dataclasses.replace(self, keys=tuple(key for key in self.keys if key in names))

    @staticmethod
    def statistics(mean: Any, variance: Any, count: Any) -> Statistics:
        """The statistics of an array of floats, from its mean and variance over so many observations.

        Args:
            mean: in the shape of the array.
            variance: likewise, at least 0.
            count: number of observations.

        Raises:
            StructureError: for shapes that differ, or numbers that are negative or not finite.

        Example:
            >>> from policy_core import Normalize
            >>> Normalize.statistics([1.0, 2.0], [4.0, 9.0], count=100)["mean"][0].tolist()
            [1.0, 2.0]
        """
        numbers = {"count": np.full(np.shape(mean), count), "mean": mean, "variance": variance}
        result = {}
        for name, value in numbers.items():
            wide = np.asarray(value, np.float64)
            if wide.shape != np.shape(mean):
                raise StructureError(
                    f"{name}: got shape {wide.shape}, expected that of mean, {np.shape(mean)}"
                )
            if not np.all(np.isfinite(wide)) or (name != "mean" and np.any(wide < 0)):
                raise StructureError(
                    f"{name}: expected finite numbers" + (", >= 0" if name != "mean" else "")
                )
            high = wide.astype(np.float32)
            result[name] = jnp.asarray(np.stack([high, (wide - high).astype(np.float32)]))
        return result

    def init(self, space: Space) -> Statistics:
        """The initial statistics: count 0, mean 0, variance 1; float32, or float64 for a float64 space."""

        def fresh(leaf: jax.ShapeDtypeStruct) -> dict[str, Float[Array, "2 ..."]]:
            if not jnp.issubdtype(leaf.dtype, jnp.floating):
                return {}
            count_layer()
            # One array each: one that occurs twice cannot be donated.
            count, mean, variance = (jnp.zeros((2, *leaf.shape), wide_float(leaf.dtype)) for _ in range(3))
            return {"count": count, "mean": mean, "variance": variance.at[0].set(1.0)}

        struct = space.struct()
        if self.keys is None:
            return jax.tree.map(fresh, struct)
        return {
            name: jax.tree.map(fresh if name in self.keys else lambda _: {}, part)
            for name, part in struct.items()
        }

    def apply(self, statistics: Statistics, observation: PyTree) -> PyTree:
        """The normalized observation; no gradient flows to the statistics."""

        def normalized(x: Array, stats: dict[str, Float[Array, "2 ..."]]) -> Array:
            if not stats:
                return x
            (high, low), (variance, _) = jax.lax.stop_gradient((stats["mean"], stats["variance"]))
            variance = jnp.maximum(variance, 0)
            std = jnp.sqrt(variance + self.epsilon if self.form == "variance" else variance)
            if self.min_std:
                std = jnp.maximum(std, self.min_std)
            y = (widen(x).astype(high.dtype) - high - low) / (
                std if self.form == "variance" else std + self.epsilon
            )
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
            return merged(stats, x, mask, axis_name, self.max_count) if stats else {}

        return jax.tree.map(merge, observations, statistics)


def merged(
    stats: dict[str, Float[Array, "2 ..."]],
    x: Float[Array, "..."],
    mask: Bool[Array, "..."] | None,
    axis_name: Axis | None,
    max_count: float,
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
    if max_count < math.inf:
        new_count = jnp.where(
            new_count[0][None] < max_count, new_count, jnp.zeros_like(count).at[0].set(max_count)
        )
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
