"""The diagonal normal distribution over a `Box`."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from policy_core._dtypes import widen
from policy_core.contract import Key
from policy_core.distributions.numerics.common import (
    check_event,
    expm1_less,
    sample_and_log_prob,
    sum_event,
    takes_seed,
)
from policy_core.spaces import Box

HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


@takes_seed
class Normal(NamedTuple):
    """An independent normal distribution for each entry of a `Box`, ignoring its bounds.

    Args:
        loc: means, `[..., *shape]`; half precision is converted to float32 first.
        log_std: logarithms of the standard deviations, `[..., *shape]`.
        space: the space of the actions, static; only its shape is used.

    Example:
        >>> import jax.numpy as jnp
        >>> from policy_core import Box
        >>> from policy_core.distributions import Normal
        >>> d = Normal(jnp.zeros(2), jnp.zeros(2), Box(shape=(2,)))
        >>> round(float(d.log_prob(jnp.zeros(2))), 4)
        -1.8379
    """

    loc: Float[Array, "*batch_shape"]
    log_std: Float[Array, "*batch_shape"]
    space: Box

    @property
    def scale(self) -> Float[Array, "*batch_shape"]:
        """Standard deviations."""
        return jnp.exp(self._wide()[1])

    def sample(self, *, key: Key) -> Float[Array, "*batch_shape"]:
        """A sample, differentiable in `loc` and `log_std`. `key` is consumed."""
        loc, _ = self._wide()
        return loc + self.scale * jax.random.normal(key, loc.shape, loc.dtype)

    def mode(self) -> Float[Array, "*batch_shape"]:
        """The mean."""
        return widen(self.loc)

    def mean(self) -> Float[Array, "*batch_shape"]:
        """The mean, before anything is clipped."""
        return widen(self.loc)

    def stddev(self) -> Float[Array, "*batch_shape"]:
        """The standard deviation, likewise."""
        return self.scale

    def log_prob(self, action: Any) -> Float[Array, "*batch"]:
        """Log-density, summed over the entries (nats)."""
        return sum_event(normal_log_prob(action, *self._wide()), self.space)

    def entropy(self) -> Float[Array, "*batch"]:
        """Differential entropy, summed over the entries (nats)."""
        return sum_event(normal_entropy(self._wide()[1]), self.space)

    def kl(self, other: "Normal") -> Float[Array, "*batch"]:
        """KL(self || other), summed over the entries (nats)."""
        return sum_event(normal_kl(*self._wide(), *other._wide()), self.space)

    def sample_and_log_prob(self, *, key: Key) -> tuple[Float[Array, "*batch_shape"], Float[Array, "*batch"]]:
        """A sample and its log-density (nats). `key` is consumed."""
        return sample_and_log_prob(self, key)

    def _wide(self) -> tuple[Float[Array, "*batch_shape"], Float[Array, "*batch_shape"]]:
        check_event(self.space.shape, loc=self.loc, log_std=self.log_std)
        return widen(self.loc), widen(self.log_std)


def normal_kl(
    loc: Float[Array, "*shape"],
    log_std: Float[Array, "*shape"],
    other_loc: Float[Array, "*shape"],
    other_log_std: Float[Array, "*shape"],
) -> Float[Array, "*shape"]:
    """KL of normals, entry by entry (nats): a sum of terms that are at least 0, accurate when small."""
    z = (loc - other_loc) * jnp.exp(-other_log_std)
    return 0.5 * (expm1_less(2 * (log_std - other_log_std)) + jnp.square(z))


def normal_log_prob(
    x: Any, loc: Float[Array, "*shape"], log_std: Float[Array, "*shape"]
) -> Float[Array, "*shape"]:
    """Log-density, entry by entry (nats), from the log-std: log(exp(.)) is never formed."""
    x = jnp.asarray(x).astype(loc.dtype)
    return -0.5 * jnp.square((x - loc) * jnp.exp(-log_std)) - log_std - HALF_LOG_2PI


def normal_entropy(log_std: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Differential entropy, entry by entry (nats)."""
    return log_std + (0.5 + HALF_LOG_2PI)
