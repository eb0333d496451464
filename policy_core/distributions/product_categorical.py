"""A categorical distribution over the masked combinations of a `MultiDiscrete`."""

import math
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from policy_core._dtypes import wide_float
from policy_core.contract import Key
from policy_core.distributions.categorical import Categorical
from policy_core.distributions.numerics.categorical import clean
from policy_core.distributions.numerics.common import check_event, takes_seed
from policy_core.spaces import Discrete, JointMask, MultiDiscrete
from policy_core.spaces.enumeration import element_at, index_of


@takes_seed
class ProductCategorical(NamedTuple):
    """Independent categoricals of a `MultiDiscrete`, conditioned on a joint mask.

    The probability of an allowed combination is proportional to that under independent
    categoricals: p(i, j, ...) ~ exp(logits_1[i] + logits_2[j] + ...). A mask that allows
    everything makes it a `MultiCategorical`; a mask that allows nothing counts as such.

    Args:
        logits: the concatenated rows, `[..., sum(nvec)]`.
        mask: `JointMask` of booleans `[..., *nvec]`.
        space: the space of the actions, static.

    Example:
        >>> import jax.numpy as jnp
        >>> from policy_core import MultiDiscrete
        >>> from policy_core.distributions import ProductCategorical
        >>> from policy_core.spaces import JointMask
        >>> different = JointMask(~jnp.eye(3, dtype=bool))
        >>> d = ProductCategorical(jnp.zeros(6), different, MultiDiscrete((3, 3)))
        >>> round(float(jnp.exp(d.entropy())), 4), d.mode().tolist()
        (6.0, [0, 1])
    """

    logits: Float[Array, "*batch flat"]
    mask: JointMask
    space: MultiDiscrete

    @property
    def log_probs(self) -> Float[Array, "..."]:
        """Normalized log-probabilities `[..., *nvec]`; `MASKED_LOG_PROB` where masked."""
        return self._unravel(self._combinations().log_probs)

    @property
    def probs(self) -> Float[Array, "..."]:
        """Probabilities `[..., *nvec]`; exactly 0 where masked."""
        return self._unravel(self._combinations().probs)

    def sample(self, *, key: Key) -> Int[Array, "*batch_shape"]:
        """An int32 array of the space's shape. `key` is consumed."""
        return element_at(self.space, self._combinations().sample(key=key))

    def mode(self) -> Int[Array, "*batch_shape"]:
        """The most probable combination, the first of equals."""
        return element_at(self.space, self._combinations().mode())

    def log_prob(self, action: Any) -> Float[Array, "*batch"]:
        """Log-probability (nats); `MASKED_LOG_PROB` if masked or out of range."""
        return self._combinations().log_prob(index_of(self.space, action))

    def entropy(self) -> Float[Array, "*batch"]:
        """Entropy over the allowed combinations (nats)."""
        return self._combinations().entropy()

    def kl(self, other: "ProductCategorical") -> Float[Array, "*batch"]:
        """KL(self || other) (nats)."""
        return self._combinations().kl(other._combinations())

    def sample_and_log_prob(self, *, key: Key) -> tuple[Int[Array, "*batch_shape"], Float[Array, "*batch"]]:
        """A sample and its log-probability, one normalization for both."""
        index, log_prob = self._combinations().sample_and_log_prob(key=key)
        return element_at(self.space, index), log_prob

    def _combinations(self) -> Categorical:
        """One categorical over all combinations, in C order."""
        check_event((self.space.flat_size,), logits=self.logits)
        nvec, batch = self.space.nvec, self.logits.shape[:-1]
        ends = np.cumsum(nvec).tolist()
        table = jnp.zeros((*batch, *nvec), wide_float(self.logits.dtype))
        for i, (end, n) in enumerate(zip(ends, nvec, strict=True)):
            row = clean(self.logits[..., end - n : end], None)
            axes = [1] * len(nvec)
            axes[i] = n
            table = table + row.reshape(*batch, *axes)
        mask = jnp.broadcast_to(self.mask.allowed, table.shape)
        size = math.prod(nvec)
        return Categorical(table.reshape(*batch, size), mask.reshape(*batch, size), Discrete(size))

    def _unravel(self, x: Float[Array, "*batch n"]) -> Float[Array, "..."]:
        return x.reshape(*x.shape[:-1], *self.space.nvec)
