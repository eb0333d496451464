"""The categorical distribution, masked: functions of logits `[..., n]`, and `Categorical`."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from policy_core.contract import Key
from policy_core.spaces import Discrete
from policy_core.spaces.masks import allowed

MASKED_LOG_PROB = -1e30
"""The log-probability of what a mask forbids, or of what is not in the space: finite, so that
sums of it and gradients past it stay finite; `exp` of it is exactly 0."""


def log_softmax(
    logits: Float[Array, "*batch n"], mask: Bool[Array, "*batch n"] | None
) -> Float[Array, "*batch n"]:
    """Normalised log-probabilities over the allowed; `MASKED_LOG_PROB` elsewhere."""
    if mask is None:
        return jax.nn.log_softmax(logits, -1)
    mask = allowed(mask)
    # Twice `where`: what is masked may be inf or NaN, and neither it nor its gradient counts.
    safe = jnp.where(mask, logits, 0)
    peak = jax.lax.stop_gradient(jnp.max(safe, -1, keepdims=True, where=mask, initial=-jnp.inf))
    shifted = jnp.where(mask, safe - peak, 0)
    normaliser = jnp.log(jnp.sum(jnp.exp(shifted), -1, keepdims=True, where=mask))
    return jnp.where(mask, shifted - normaliser, MASKED_LOG_PROB)


def pick(log_probs: Float[Array, "*batch n"], index: Int[Array, "*batch"]) -> Float[Array, "*batch"]:
    """The entry of each row; `MASKED_LOG_PROB` for an index out of range."""
    n = log_probs.shape[-1]
    inside = (index >= 0) & (index < n)
    safe = jnp.where(inside, index, 0)
    picked = jnp.take_along_axis(log_probs, safe[..., None], -1, mode="clip")[..., 0]
    return jnp.where(inside, picked, MASKED_LOG_PROB)


def entropy(log_probs: Float[Array, "*batch n"]) -> Float[Array, "*batch"]:
    """Minus the sum of p log p (nats); what is masked adds exactly 0."""
    possible = log_probs > MASKED_LOG_PROB
    safe = jnp.where(possible, log_probs, 0)
    return -jnp.sum(jnp.where(possible, jnp.exp(safe) * safe, 0), -1)


def kl(p: Float[Array, "*batch n"], q: Float[Array, "*batch n"]) -> Float[Array, "*batch"]:
    """KL(p || q) of two rows of log-probabilities (nats)."""
    possible = p > MASKED_LOG_PROB
    safe_p, safe_q = jnp.where(possible, p, 0), jnp.where(possible, q, 0)
    terms = jnp.where(possible, jnp.exp(safe_p) * (safe_p - safe_q), 0)
    return jnp.maximum(jnp.sum(terms, -1), 0)


def sample(log_probs: Float[Array, "*batch n"], key: Key) -> Int[Array, "*batch"]:
    """An index a row. What is masked is never drawn. `key` is consumed."""
    return jax.random.categorical(key, log_probs, -1).astype(jnp.int32)


class Categorical(NamedTuple):
    """One of `space.n` categories.

    Args:
        logits: unnormalised log-probabilities, float32.
        mask: true = allowed, or None. A row that allows nothing counts as one that allows
            everything. Logits of what is masked may be anything, also NaN.
        space: the space of the actions, static.

    Example:
        >>> from policy_core import Discrete
        >>> d = Categorical(jnp.zeros(3), jnp.array([True, True, False]), Discrete(3))
        >>> d.probs.tolist(), round(float(d.entropy()), 4)
        ([0.5, 0.5, 0.0], 0.6931)
    """

    logits: Float[Array, "*batch n"]
    mask: Bool[Array, "*batch n"] | None
    space: Discrete

    @property
    def log_probs(self) -> Float[Array, "*batch n"]:
        """Normalised log-probabilities; `MASKED_LOG_PROB` for what is masked."""
        return log_softmax(self.logits, self.mask)

    @property
    def probs(self) -> Float[Array, "*batch n"]:
        """Probabilities; exactly 0 for what is masked."""
        return jnp.exp(self.log_probs)

    def sample(self, *, key: Key) -> Int[Array, "*batch"]:
        """A category, int32. `key` is consumed."""
        return self.space.start + sample(self.log_probs, key)

    def mode(self) -> Int[Array, "*batch"]:
        """The most probable category, the first of equals."""
        return self.space.start + jnp.argmax(self.log_probs, -1).astype(jnp.int32)

    def log_prob(self, action: Int[Array, "*batch"]) -> Float[Array, "*batch"]:
        """Log-probability (nats); `MASKED_LOG_PROB` for what is masked or out of range."""
        return pick(self.log_probs, _index(action) - self.space.start)

    def entropy(self) -> Float[Array, "*batch"]:
        """Entropy over what is allowed (nats)."""
        return entropy(self.log_probs)

    def kl(self, other: "Categorical") -> Float[Array, "*batch"]:
        """KL(self || other) (nats)."""
        return kl(self.log_probs, other.log_probs)

    def sample_and_log_prob(self, *, key: Key) -> tuple[Int[Array, "*batch"], Float[Array, "*batch"]]:
        """A category and its log-probability, one normalisation for both."""
        log_probs = self.log_probs
        index = sample(log_probs, key)
        return self.space.start + index, pick(log_probs, index)


def _index(action: Int[Array, "*batch"]) -> Int[Array, "*batch"]:
    return jnp.asarray(action).astype(jnp.int32)
