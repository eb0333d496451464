"""The diagonal normal distribution over a `Box`."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from policy_core.contract import Key
from policy_core.spaces import Box

_HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


class Normal(NamedTuple):
    """An independent normal for each entry of `space`, whose bounds it does not know.

    Args:
        loc: means, `[..., *shape]`, float32.
        log_std: logarithms of the standard deviations, `[..., *shape]`.
        space: the space of the actions, static; it gives the shape of an action.

    Example:
        >>> from policy_core import Box
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
        return jnp.exp(self.log_std)

    def sample(self, *, key: Key) -> Float[Array, "*batch_shape"]:
        """A draw, differentiable in `loc` and `log_std`. `key` is consumed."""
        noise = jax.random.normal(key, self.loc.shape, self.loc.dtype)
        return self.loc + self.scale * noise

    def mode(self) -> Float[Array, "*batch_shape"]:
        """The mean."""
        return self.loc

    def log_prob(self, action: Any) -> Float[Array, "*batch"]:
        """Log-density, summed over the entries (nats)."""
        # The log-std itself, never log(exp(.)): right for any log-std that float32 holds.
        z = (jnp.asarray(action).astype(self.loc.dtype) - self.loc) * jnp.exp(-self.log_std)
        return sum_event(-0.5 * jnp.square(z) - self.log_std - _HALF_LOG_2PI, self.space)

    def entropy(self) -> Float[Array, "*batch"]:
        """Differential entropy, summed over the entries (nats)."""
        return sum_event(self.log_std + (0.5 + _HALF_LOG_2PI), self.space)

    def kl(self, other: "Normal") -> Float[Array, "*batch"]:
        """KL(self || other), summed over the entries (nats)."""
        ratio = 2 * (self.log_std - other.log_std)
        z = (self.loc - other.loc) * jnp.exp(-other.log_std)
        terms = 0.5 * (jnp.expm1(ratio) - ratio + jnp.square(z))
        return sum_event(jnp.maximum(terms, 0), self.space)

    def sample_and_log_prob(self, *, key: Key) -> tuple[Float[Array, "*batch_shape"], Float[Array, "*batch"]]:
        """A draw and its log-density."""
        action = self.sample(key=key)
        return action, self.log_prob(action)


def sum_event(x: Float[Array, "..."], space: Any) -> Float[Array, "*batch"]:
    """The sum over the axes of one element of the space, the trailing ones."""
    rank = len(space.struct().shape)
    return jnp.sum(x, tuple(range(x.ndim - rank, x.ndim)))
