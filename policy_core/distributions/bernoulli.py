"""Independent bits, masked."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from policy_core.contract import Key
from policy_core.distributions.categorical import MASKED_LOG_PROB
from policy_core.distributions.normal import sum_event
from policy_core.spaces import MultiBinary


class Bernoulli(NamedTuple):
    """An independent bit for each entry of `space`.

    Args:
        logits: log-odds of a one, `[..., *shape]`, float32.
        mask: true = the bit may be one, false = it is zero, or None.
        space: the space of the actions, static.

    Example:
        >>> from policy_core import MultiBinary
        >>> d = Bernoulli(jnp.array([0.0, 30.0]), None, MultiBinary(2))
        >>> d.mode().tolist(), round(float(d.entropy()), 4)
        ([0, 1], 0.6931)
    """

    logits: Float[Array, "*batch_shape"]
    mask: Bool[Array, "*batch_shape"] | None
    space: MultiBinary

    @property
    def probs(self) -> Float[Array, "*batch_shape"]:
        """Probability of a one; exactly 0 where it is masked."""
        return self._where_free(jax.nn.sigmoid(self._safe_logits()), 0.0)

    def sample(self, *, key: Key) -> Int[Array, "*batch_shape"]:
        """Zeros and ones, int32. `key` is consumed."""
        uniform = jax.random.uniform(key, self.logits.shape, self.logits.dtype)
        return (uniform < self.probs).astype(jnp.int32)

    def mode(self) -> Int[Array, "*batch_shape"]:
        """The more probable value of each bit, 0 of equals."""
        return (self.probs > 0.5).astype(jnp.int32)

    def log_prob(self, action: Any) -> Float[Array, "*batch"]:
        """The sum of the log-probabilities of the bits (nats).

        `MASKED_LOG_PROB` for a masked one, and for what is neither 0 nor 1.
        """
        action = jnp.asarray(action).astype(jnp.int32)
        logits = self._safe_logits()
        # log sigmoid(+-logit): each sign in its own stable form, no difference of the two.
        signed = jnp.where(action == 1, logits, -logits)
        log_probs = self._where_free(jax.nn.log_sigmoid(signed), 0.0)
        possible = (action == 0) | (action == 1)
        if self.mask is not None:
            possible = possible & (self.mask | (action == 0))
        return self._sum(jnp.where(possible, log_probs, MASKED_LOG_PROB))

    def entropy(self) -> Float[Array, "*batch"]:
        """The sum of the entropies of the bits (nats)."""
        size = jnp.abs(self._safe_logits())
        # log(1 + e^-|l|) + |l| e^-|l| / (1 + e^-|l|): no cancellation, even in l.
        bits = jnp.log1p(jnp.exp(-size)) + size * jax.nn.sigmoid(-size)
        return self._sum(self._where_free(bits, 0.0))

    def kl(self, other: "Bernoulli") -> Float[Array, "*batch"]:
        """The sum of the divergences of the bits (nats)."""
        p = self.probs
        a, b = self._safe_logits(), other._safe_logits()
        free = p * (jax.nn.log_sigmoid(a) - other._log_one())
        free = free + (1 - p) * (jax.nn.log_sigmoid(-a) - jax.nn.log_sigmoid(-b))
        return self._sum(jnp.maximum(free, 0))

    def sample_and_log_prob(self, *, key: Key) -> tuple[Int[Array, "*batch_shape"], Float[Array, "*batch"]]:
        """A sample and its log-probability."""
        action = self.sample(key=key)
        return action, self.log_prob(action)

    def _safe_logits(self) -> Float[Array, "*batch_shape"]:
        return self._where_free(self.logits, 0.0)

    def _log_one(self) -> Float[Array, "*batch_shape"]:
        return self._where_free(jax.nn.log_sigmoid(self._safe_logits()), MASKED_LOG_PROB)

    def _where_free(self, x: Float[Array, "..."], masked: float) -> Float[Array, "*batch_shape"]:
        return x if self.mask is None else jnp.where(self.mask, x, masked)

    def _sum(self, x: Float[Array, "*batch_shape"]) -> Float[Array, "*batch"]:
        return sum_event(x, self.space)
