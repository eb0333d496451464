"""A normal distribution whose noise has been drawn before, for several actions at once."""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from policy_core.contract import Key
from policy_core.distributions.normal import Normal
from policy_core.distributions.numerics.common import sample_and_log_prob, takes_seed
from policy_core.distributions.squashed_normal import SquashedNormal


@takes_seed
class KeptNoise(NamedTuple):
    """A `Normal` or `SquashedNormal` whose sample is the mean plus noise that was drawn before.

    Over all draws of the noise, samples have the law of `base`, and `log_prob`, `entropy` and `kl` are those
    of `base`. Where no noise has been drawn, a sample is one of `base`.

    Args:
        base: the distribution.
        noise: what is added to its mean, before a squash, `[..., *shape]`.
        drawn: whether there is noise, `[...]`.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> from policy_core import Box
        >>> from policy_core.distributions import KeptNoise, Normal
        >>> base = Normal(jnp.ones(2), jnp.zeros(2), Box(shape=(2,)))
        >>> KeptNoise(base, jnp.array([0.5, -0.5]), jnp.array(True)).sample(key=jax.random.key(0)).tolist()
        [1.5, 0.5]
    """

    base: Normal | SquashedNormal
    noise: Float[Array, "*batch_shape"]
    drawn: Bool[Array, "*batch"]

    @property
    def space(self) -> Any:
        """The space of the actions."""
        return self.base.space

    @property
    def scale(self) -> Float[Array, "*batch_shape"]:
        """Standard deviations, before a squash."""
        return self.base.scale

    def sample(self, *, key: Key) -> Float[Array, "*batch_shape"]:
        """The mean plus the noise; where there is none, a sample of `base`. `key` is consumed."""
        fresh = self.base.sample(key=key)
        drawn = jnp.reshape(self.drawn, (*self.drawn.shape, *(1 for _ in self.space.shape)))
        return jnp.where(drawn, self.base.mode() + self.noise.astype(fresh.dtype), fresh)

    def mode(self) -> Float[Array, "*batch_shape"]:
        """The mode of `base`: the mean, before a squash."""
        return self.base.mode()

    def mean(self) -> Float[Array, "*batch_shape"]:
        """The mean of `base`."""
        return self.base.mean()

    def stddev(self) -> Float[Array, "*batch_shape"]:
        """The standard deviation of `base`."""
        return self.base.stddev()

    def log_prob(self, action: Any) -> Float[Array, "*batch"]:
        """The log-density under `base` (nats)."""
        return self.base.log_prob(action)

    def entropy(self) -> Float[Array, "*batch"]:
        """The entropy of `base` (nats)."""
        return self.base.entropy()

    def kl(self, other: Any) -> Float[Array, "*batch"]:
        """KL(self || other) of the bases (nats)."""
        return self.base.kl(other.base)

    def sample_and_log_prob(self, *, key: Key) -> tuple[Float[Array, "*batch_shape"], Float[Array, "*batch"]]:
        """A sample, and its log-density under `base` (nats). `key` is consumed."""
        return sample_and_log_prob(self, key)
