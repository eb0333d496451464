"""The Beta distribution over a `Box` with finite bounds."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from policy_core._dtypes import wide_float, widen
from policy_core.contract import Key
from policy_core.distributions.numerics.beta import (
    beta_entropy,
    beta_log_prob,
    beta_mode_logit,
)
from policy_core.distributions.numerics.beta_kl import beta_kl
from policy_core.distributions.numerics.beta_sampling import sample_beta_logit
from policy_core.distributions.numerics.common import check_event, sample_and_log_prob, sum_event, takes_seed
from policy_core.spaces import Box


@takes_seed
class Beta(NamedTuple):
    """An independent Beta distribution for each entry of a `Box`, mapped linearly to its bounds.

    The policy action is the log-odds z of the position between the bounds, which keeps its
    precision near them; `log_prob`, `entropy` and `kl` are those of the environment action
    low + (high - low) / (1 + e^-z).

    Args:
        alpha: first concentrations, `[..., *shape]`, positive.
        beta: second concentrations, likewise.
        space: the space of the actions, static.

    References:
        Chou, Maturana & Scherer 2017, for policies; `numerics.beta` for the numerics.

    Example:
        >>> import jax.numpy as jnp
        >>> from policy_core import Box
        >>> from policy_core.distributions import Beta
        >>> d = Beta(jnp.full(1, 2.0), jnp.full(1, 2.0), Box(low=0.0, high=1.0, shape=(1,)))
        >>> round(float(jnp.exp(d.log_prob(jnp.zeros(1)))), 4)
        1.5
    """

    alpha: Float[Array, "*batch_shape"]
    beta: Float[Array, "*batch_shape"]
    space: Box

    def sample(self, *, key: Key) -> Float[Array, "*batch_shape"]:
        """Log-odds of a sample, differentiable in the concentrations. `key` is consumed."""
        return sample_beta_logit(*self._wide(), key)

    def mode(self) -> Float[Array, "*batch_shape"]:
        """Log-odds of the mode where both concentrations are above 1, else of the mean.

        Below that the density has no interior mode: it is largest at a bound, or at both.
        """
        mode: Float[Array, "*batch_shape"] = beta_mode_logit(*self._wide())
        return mode

    def mean(self) -> Float[Array, "*batch_shape"]:
        """The mean of the environment action."""
        alpha, beta = self._wide()
        low, high = (jnp.full(alpha.shape, bound, alpha.dtype) for bound in self.space.bounds())
        return low * (beta / (alpha + beta)) + high * (alpha / (alpha + beta))

    def stddev(self) -> Float[Array, "*batch_shape"]:
        """The standard deviation of the environment action."""
        alpha, beta = self._wide()
        spread = alpha / (alpha + beta) * (beta / (alpha + beta)) / (alpha + beta + 1)
        return jnp.exp(self._log_width()) * jnp.sqrt(spread)

    def log_prob(self, action: Any) -> Float[Array, "*batch"]:
        """Log-density of the environment action of a policy action, summed (nats)."""
        alpha, beta = self._wide()
        z = jnp.nan_to_num(jnp.asarray(action).astype(alpha.dtype), nan=jnp.nan)  # the largest for infinity
        terms = beta_log_prob(alpha, beta, z) - self._log_width()
        return sum_event(terms, self.space)

    def entropy(self) -> Float[Array, "*batch"]:
        """Differential entropy of the environment action, summed (nats)."""
        return sum_event(beta_entropy(*self._wide()) + self._log_width(), self.space)

    def kl(self, other: "Beta") -> Float[Array, "*batch"]:
        """KL(self || other), summed (nats)."""
        terms = beta_kl(*self._wide(), *other._wide())
        return sum_event(terms, self.space)

    def sample_and_log_prob(self, *, key: Key) -> tuple[Float[Array, "*batch_shape"], Float[Array, "*batch"]]:
        """Log-odds of a sample, and the log-density of its environment action. `key` is consumed."""
        return sample_and_log_prob(self, key)

    def _wide(self) -> tuple[Float[Array, "*batch_shape"], Float[Array, "*batch_shape"]]:
        check_event(self.space.shape, alpha=self.alpha, beta=self.beta)
        return widen(self.alpha), widen(self.beta)

    def _log_width(self) -> Float[Array, "*batch_shape"]:
        low, high = (bound.astype(np.float64) for bound in self.space.bounds())
        return jnp.full(self.alpha.shape, np.log(high - low), wide_float(self.alpha.dtype))
