"""Masked categorical distributions: `Categorical`, and `MultiCategorical` for several at once."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from policy_core._dtypes import as_int32
from policy_core.contract import Key, Mask
from policy_core.distributions.numerics import categorical as rows
from policy_core.distributions.numerics.categorical_sampling import sample
from policy_core.distributions.numerics.common import check_event, takes_seed, total
from policy_core.spaces import Discrete, MultiDiscrete
from policy_core.spaces.masks import allowed, pad_rows


@takes_seed
class Categorical(NamedTuple):
    """A masked categorical distribution over a `Discrete`.

    Args:
        logits: unnormalized log-probabilities `[..., n]`.
        mask: true = allowed, or None. A row that allows nothing counts as one that allows
            everything. Masked logits may have any value, also NaN.
        space: the space of the actions, static.

    Example:
        >>> import jax.numpy as jnp
        >>> from policy_core import Discrete
        >>> from policy_core.distributions import Categorical
        >>> d = Categorical(jnp.zeros(3), jnp.array([True, True, False]), Discrete(3))
        >>> d.probs.tolist(), round(float(d.entropy()), 4)
        ([0.5, 0.5, 0.0], 0.6931)
    """

    logits: Float[Array, "*batch n"]
    mask: Bool[Array, "*batch n"] | None
    space: Discrete

    @property
    def log_probs(self) -> Float[Array, "*batch n"]:
        """Normalized log-probabilities; `MASKED_LOG_PROB` where masked."""
        return rows.log_softmax(self._shifted())

    @property
    def probs(self) -> Float[Array, "*batch n"]:
        """Probabilities; exactly 0 where masked."""
        return rows.softmax(self._shifted())

    def sample(self, *, key: Key) -> Int[Array, "*batch"]:
        """A category, int32. `key` is consumed."""
        return self.space.start + sample(self._shifted(), key)

    def mode(self) -> Int[Array, "*batch"]:
        """The most probable category, the first of equals."""
        check_event((self.space.n,), logits=self.logits)
        return self.space.start + jnp.argmax(rows.clean(self.logits, self.mask), -1).astype(jnp.int32)

    def log_prob(self, action: Any) -> Float[Array, "*batch"]:
        """Log-probability (nats); `MASKED_LOG_PROB` if masked or out of range."""
        index = as_int32(action) - self.space.start
        return rows.log_prob(self._shifted(), index)

    def entropy(self) -> Float[Array, "*batch"]:
        """Entropy over the allowed categories (nats)."""
        return rows.entropy(self._shifted())

    def log_prob_and_entropy(self, action: Any) -> tuple[Float[Array, "*batch"], Float[Array, "*batch"]]:
        """Both, with one normalization."""
        return rows.log_prob_and_entropy(self._shifted(), as_int32(action) - self.space.start)

    def kl(self, other: "Categorical") -> Float[Array, "*batch"]:
        """KL(self || other) (nats); about 1e30 p where `other` masks categories of probability p."""
        return rows.kl(self._shifted(), other._shifted())

    def sample_and_log_prob(self, *, key: Key) -> tuple[Int[Array, "*batch"], Float[Array, "*batch"]]:
        """A category and its log-probability, one normalization for both."""
        shifted = self._shifted()
        index = sample(shifted, key)
        return self.space.start + index, rows.log_prob(shifted, index)

    def _shifted(self) -> Float[Array, "*batch n"]:
        check_event((self.space.n,), logits=self.logits)
        return rows.shift(self.logits, self.mask)


@takes_seed
class MultiCategorical(NamedTuple):
    """An independent categorical distribution for each entry of a `MultiDiscrete`, in one batch.

    Rows of different lengths are padded to the longest, the padding is masked, and
    everything is one operation over `[..., rows, width]`.

    Args:
        logits: the concatenated rows, `[..., sum(nvec)]`.
        mask: a tuple of rows `[..., nvec[i]]` (or None), or None.
        space: the space of the actions, static.

    Example:
        >>> import jax.numpy as jnp
        >>> from policy_core import MultiDiscrete
        >>> from policy_core.distributions import MultiCategorical
        >>> d = MultiCategorical(jnp.zeros(5), None, MultiDiscrete((2, 3)))
        >>> round(float(jnp.exp(d.entropy())), 4)
        6.0
    """

    logits: Float[Array, "*batch flat"]
    mask: Mask
    space: MultiDiscrete

    @property
    def log_probs(self) -> tuple[Float[Array, "*batch _"], ...]:
        """Normalized log-probabilities of each row; `MASKED_LOG_PROB` where masked."""
        return self._unpad(rows.log_softmax(self._shifted()))

    @property
    def probs(self) -> tuple[Float[Array, "*batch _"], ...]:
        """The probabilities of each row; exactly 0 where masked."""
        return self._unpad(rows.softmax(self._shifted()))

    def sample(self, *, key: Key) -> Int[Array, "*batch_shape"]:
        """An int32 array of the space's shape. `key` is consumed."""
        return self._action(sample(self._shifted(), key))

    def mode(self) -> Int[Array, "*batch_shape"]:
        """The most probable category of each row, the first of equals."""
        return self._action(jnp.argmax(rows.clean(*self._padded()), -1).astype(jnp.int32))

    def log_prob(self, action: Any) -> Float[Array, "*batch"]:
        """The sum over the entries (nats); `MASKED_LOG_PROB` if one has probability 0."""
        return total(rows.log_prob(self._shifted(), self._index(action)))

    def entropy(self) -> Float[Array, "*batch"]:
        """The sum of the entropies of the rows (nats)."""
        return jnp.sum(rows.entropy(self._shifted()), -1)

    def log_prob_and_entropy(self, action: Any) -> tuple[Float[Array, "*batch"], Float[Array, "*batch"]]:
        """Both, with one normalization."""
        log_probs, entropies = rows.log_prob_and_entropy(self._shifted(), self._index(action))
        return total(log_probs), jnp.sum(entropies, -1)

    def kl(self, other: "MultiCategorical") -> Float[Array, "*batch"]:
        """The sum of the divergences of the rows (nats)."""
        return jnp.sum(rows.kl(self._shifted(), other._shifted()), -1)

    def sample_and_log_prob(self, *, key: Key) -> tuple[Int[Array, "*batch_shape"], Float[Array, "*batch"]]:
        """A sample and its log-probability, one normalization for both."""
        shifted = self._shifted()
        index = sample(shifted, key)
        return self._action(index), total(rows.log_prob(shifted, index))

    def _shifted(self) -> Float[Array, "*batch rows width"]:
        return rows.shift(*self._padded())

    def _padded(
        self,
    ) -> tuple[Float[Array, "*batch rows width"], Bool[Array, "*batch rows width"] | None]:
        """The rows, padded to one length, and what of them is allowed."""
        check_event((self.space.flat_size,), logits=self.logits)
        nvec, batch = self.space.nvec, self.logits.shape[:-1]
        width = max(nvec, default=0)
        if set(nvec) == {width}:  # rows of one length: nothing to pad
            logits = self.logits.reshape(*batch, len(nvec), width)
            return logits, None if self.mask is None else pad_rows(self.mask, nvec)
        ends = np.cumsum(nvec).tolist()
        pieces = [self.logits[..., end - n : end] for end, n in zip(ends, nvec, strict=True)]
        front = [(0, 0)] * len(batch)
        padded = [jnp.pad(row, [*front, (0, width - row.shape[-1])]) for row in pieces]
        logits = jnp.stack(padded, -2) if pieces else self.logits.reshape(*batch, 0, 0)
        real = jnp.broadcast_to(self.space.valid(), logits.shape)
        if self.mask is None:
            return logits, real
        mask = jnp.broadcast_to(pad_rows(self.mask, nvec), logits.shape)
        return logits, real & allowed(mask)

    def _unpad(self, padded: Float[Array, "*batch rows width"]) -> tuple[Float[Array, "*batch _"], ...]:
        return tuple(padded[..., i, :n] for i, n in enumerate(self.space.nvec))

    def _action(self, index: Int[Array, "*batch rows"]) -> Int[Array, "*batch_shape"]:
        starts = jnp.broadcast_to(self.space.starts().ravel(), index.shape)
        return (index + starts).reshape(index.shape[:-1] + self.space.struct().shape)

    def _index(self, action: Any) -> Int[Array, "*batch rows"]:
        action = as_int32(action)
        batch = action.shape[: action.ndim - len(self.space.struct().shape)]
        index: jax.Array = action.reshape((*batch, len(self.space.nvec)))
        return index - jnp.broadcast_to(self.space.starts().ravel(), index.shape)
