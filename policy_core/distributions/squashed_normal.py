"""The normal distribution, squashed by tanh into the bounds of a `Box`."""

import math
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from policy_core._dtypes import wide_float, widen
from policy_core.contract import Key
from policy_core.distributions.normal import Normal, normal_entropy, normal_log_prob
from policy_core.distributions.numerics.common import check_event, sample_and_log_prob, sum_event, takes_seed
from policy_core.distributions.numerics.tanh_normal import tanh_log_det, tanh_moments, tanh_normal_entropy
from policy_core.spaces import Box


@takes_seed
class SquashedNormal(NamedTuple):
    """An independent normal distribution for each entry, mapped by tanh into the bounds of a `Box`.

    The policy action is the sample u before the squash, which keeps its precision near the
    bounds; `log_prob`, `entropy` and `kl` are those of the environment action
    low + (high - low) (1 + tanh u) / 2, as functions of u. Entries without two
    finite bounds are plain normals, clipped as by `NormalHead`.

    Args:
        loc: means before the squash, `[..., *shape]`.
        log_std: logarithms of the standard deviations before the squash, `[..., *shape]`.
        space: the space of the actions, static.

    References:
        Haarnoja et al. 2018 (soft actor-critic), appendix C, for the density. The entropy, which
        they estimate by a sample, is computed here (`numerics.tanh_normal`).

    Example:
        >>> import jax.numpy as jnp
        >>> from policy_core import Box
        >>> from policy_core.distributions import SquashedNormal
        >>> d = SquashedNormal(jnp.zeros(1), jnp.zeros(1), Box(low=-1.0, high=1.0, shape=(1,)))
        >>> round(float(d.log_prob(jnp.array([1e4]))), 1), round(float(d.entropy()), 4)
        (-49980000.0, 0.6698)
    """

    loc: Float[Array, "*batch_shape"]
    log_std: Float[Array, "*batch_shape"]
    space: Box

    @property
    def base(self) -> Normal:
        """The normal before the squash."""
        check_event(self.space.shape, loc=self.loc, log_std=self.log_std)
        return Normal(widen(self.loc), widen(self.log_std), self.space)

    @property
    def scale(self) -> Float[Array, "*batch_shape"]:
        """Standard deviations before the squash."""
        return self.base.scale

    def sample(self, *, key: Key) -> Float[Array, "*batch_shape"]:
        """A sample before the squash, differentiable in `loc` and `log_std`. `key` is consumed."""
        return self.base.sample(key=key)

    def mode(self) -> Float[Array, "*batch_shape"]:
        """The mean before the squash: the median of the environment action.

        It does not maximize the density of the environment action, whose maximum for a wide
        normal is at the bounds.
        """
        return self.base.mode()

    def mean(self) -> Float[Array, "*batch_shape"]:
        """The mean of the environment action."""
        return self._moments()[0]

    def stddev(self) -> Float[Array, "*batch_shape"]:
        """The standard deviation of the environment action."""
        return self._moments()[1]

    def log_prob(self, action: Any) -> Float[Array, "*batch"]:
        """Log-density of the environment action of a policy action, summed (nats)."""
        loc, log_std, _ = self.base
        u = jnp.asarray(action).astype(loc.dtype)
        squash = tanh_log_det(u) + self._log_half_width()
        if not self._bounded().all():
            squash = jnp.where(self._bounded(), squash, 0.0)
        return sum_event(normal_log_prob(u, loc, log_std) - squash, self.space)

    def entropy(self) -> Float[Array, "*batch"]:
        """Differential entropy of the environment action, summed (nats); exact, differentiable."""
        loc, log_std, _ = self.base
        squashed = tanh_normal_entropy(loc, log_std) + self._log_half_width()
        if not self._bounded().all():
            squashed = jnp.where(self._bounded(), squashed, normal_entropy(log_std))
        return sum_event(squashed, self.space)

    def base_entropy(self) -> Float[Array, "*batch"]:
        """Entropy of the normal before the squash, summed (nats), which some libraries use."""
        return self.base.entropy()

    def entropy_estimate(self, *, key: Key) -> Float[Array, "*batch"]:
        """Minus the log-density of one sample, an unbiased estimate of `entropy`. `key` is consumed."""
        return -self.log_prob(self.sample(key=key))

    def kl(self, other: "SquashedNormal") -> Float[Array, "*batch"]:
        """KL(self || other), summed (nats): that of the normals, as KL is invariant under the squash."""
        return self.base.kl(other.base)

    def sample_and_log_prob(self, *, key: Key) -> tuple[Float[Array, "*batch_shape"], Float[Array, "*batch"]]:
        """A sample before the squash, and the log-density of its environment action. `key` is consumed."""
        return sample_and_log_prob(self, key)

    def _moments(self) -> tuple[Float[Array, "*batch_shape"], Float[Array, "*batch_shape"]]:
        loc, log_std, _ = self.base
        mean, std = tanh_moments(loc, log_std)
        low, high = (jnp.full(loc.shape, 0.5 * bound, loc.dtype) for bound in safe_bounds(self.space))
        moments = low * (1 - mean) + high * (1 + mean), (high - low) * std
        return jnp.where(self._bounded(), moments[0], loc), jnp.where(self._bounded(), moments[1], self.scale)

    def _bounded(self) -> np.ndarray:
        return np.broadcast_to(bounded_entries(self.space), self.loc.shape)

    def _log_half_width(self) -> Float[Array, "*batch_shape"]:
        low, high = safe_bounds(self.space)
        half = np.log(high - low) - math.log(2)
        return jnp.broadcast_to(jnp.asarray(half, wide_float(self.loc.dtype)), self.loc.shape)


def bounded_entries(space: Box) -> np.ndarray:
    """Which entries of a box have two finite bounds."""
    low, high = space.bounds()
    return np.asarray(np.isfinite(low) & np.isfinite(high))  # `&` of 0-d arrays is a NumPy scalar


def safe_bounds(space: Box) -> tuple[np.ndarray, np.ndarray]:
    """The bounds in float64, -1 and 1 for entries that are not bounded on both sides."""
    low, high = (bound.astype(np.float64) for bound in space.bounds())
    bounded = bounded_entries(space)
    return np.where(bounded, low, -1.0), np.where(bounded, high, 1.0)
