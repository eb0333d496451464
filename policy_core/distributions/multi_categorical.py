"""Several independent categoricals at once, without a loop over them."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from policy_core.contract import Key, Mask
from policy_core.distributions import categorical
from policy_core.spaces import MultiDiscrete
from policy_core.spaces.masks import allowed, pad_rows


class MultiCategorical(NamedTuple):
    """An independent categorical for each entry of `space`.

    Rows of different lengths are padded to the longest by one static gather, the padding
    is masked, and everything is one operation over `[..., rows, width]`.

    Args:
        logits: the rows one after the other, `[..., sum(nvec)]`, float32.
        mask: a tuple of rows `[..., nvec[i]]` (or None), or None.
        space: the space of the actions, static.

    Example:
        >>> from policy_core import MultiDiscrete
        >>> d = MultiCategorical(jnp.zeros(5), None, MultiDiscrete((2, 3)))
        >>> round(float(jnp.exp(d.entropy())), 4)
        6.0
    """

    logits: Float[Array, "*batch flat"]
    mask: Mask
    space: MultiDiscrete

    @property
    def log_probs(self) -> Float[Array, "*batch rows width"]:
        """Normalised log-probabilities of the padded rows; `MASKED_LOG_PROB` in the padding."""
        valid = self.space.valid()
        places = np.minimum(np.cumsum(valid).reshape(valid.shape) - 1, self.space.flat_size - 1)
        mask: Bool[Array, ...] = jnp.asarray(valid)
        if self.mask is not None:
            mask = mask & allowed(pad_rows(self.mask, self.space.nvec))
        logits = self.logits[..., places]
        return categorical.log_softmax(logits, jnp.broadcast_to(mask, logits.shape))

    @property
    def probs(self) -> tuple[Float[Array, "*batch n"], ...]:
        """The probabilities of each row, without padding."""
        padded = jnp.exp(self.log_probs)
        return tuple(padded[..., i, :n] for i, n in enumerate(self.space.nvec))

    def sample(self, *, key: Key) -> Int[Array, "*batch_shape"]:
        """An int32 array of the space's shape. `key` is consumed."""
        return self._action(categorical.sample(self.log_probs, key))

    def mode(self) -> Int[Array, "*batch_shape"]:
        """The most probable category of each row."""
        return self._action(jnp.argmax(self.log_probs, -1).astype(jnp.int32))

    def log_prob(self, action: Int[Array, "*batch_shape"]) -> Float[Array, "*batch"]:
        """The sum of the log-probabilities of the entries (nats)."""
        return jnp.sum(categorical.pick(self.log_probs, self._index(action)), -1)

    def entropy(self) -> Float[Array, "*batch"]:
        """The sum of the entropies of the rows (nats)."""
        return jnp.sum(categorical.entropy(self.log_probs), -1)

    def kl(self, other: "MultiCategorical") -> Float[Array, "*batch"]:
        """The sum of the divergences of the rows (nats)."""
        return jnp.sum(categorical.kl(self.log_probs, other.log_probs), -1)

    def sample_and_log_prob(self, *, key: Key) -> tuple[Int[Array, "*batch_shape"], Float[Array, "*batch"]]:
        """A sample and its log-probability, one normalisation for both."""
        log_probs = self.log_probs
        index = categorical.sample(log_probs, key)
        return self._action(index), jnp.sum(categorical.pick(log_probs, index), -1)

    def _action(self, index: Int[Array, "*batch rows"]) -> Int[Array, "*batch_shape"]:
        shape = self.space.struct().shape
        starts = jnp.broadcast_to(self.space.starts().ravel(), index.shape)
        return (index + starts).reshape(index.shape[:-1] + shape)

    def _index(self, action: Any) -> Int[Array, "*batch rows"]:
        action = jnp.asarray(action).astype(jnp.int32)
        batch = action.shape[: action.ndim - len(self.space.struct().shape)]
        rows: jax.Array = action.reshape((*batch, len(self.space.nvec)))
        return rows - jnp.broadcast_to(self.space.starts().ravel(), rows.shape)
