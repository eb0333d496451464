"""Independent, masked Bernoulli distributions."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from policy_core._dtypes import as_int32, widen
from policy_core.contract import Key
from policy_core.distributions.numerics.common import (
    MASKED_LOG_PROB,
    check_event,
    expm1_less,
    sample_and_log_prob,
    sum_event,
    takes_seed,
    total,
)
from policy_core.spaces import MultiBinary


@takes_seed
class Bernoulli(NamedTuple):
    """An independent Bernoulli distribution for each bit of a `MultiBinary`.

    Args:
        logits: log-odds of a one, `[..., *shape]`.
        mask: true = the bit may be one, false = it is zero, or None.
        space: the space of the actions, static.

    Example:
        >>> import jax.numpy as jnp
        >>> from policy_core import MultiBinary
        >>> from policy_core.distributions import Bernoulli
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
        return self._free(jax.nn.sigmoid(self._clean()), 0.0)

    def mean(self) -> Float[Array, "*batch_shape"]:
        """The probability of a one."""
        return self.probs

    def stddev(self) -> Float[Array, "*batch_shape"]:
        """The standard deviation of each bit."""
        return jnp.sqrt(self.probs * jax.nn.sigmoid(-self._clean()))

    def sample(self, *, key: Key) -> Int[Array, "*batch_shape"]:
        """Zeros and ones, int32. `key` is consumed."""
        # The less likely value where a uniform number is below its probability: of 64 bits, with the
        # precision of a float however small it is, so right down to 2^-64.
        z = self._clean()
        high, low = jax.random.bits(key, (2, *z.shape), "uint32").astype(z.dtype)
        rare = high * 2.0**-32 + low * 2.0**-64 < jax.nn.sigmoid(-jnp.abs(z))
        return self._free(rare ^ (z > 0), jnp.array(False)).astype(jnp.int32)

    def mode(self) -> Int[Array, "*batch_shape"]:
        """The more probable value of each bit, 0 of equals."""
        return self._free(self._clean() > 0, jnp.array(False)).astype(jnp.int32)

    def log_prob(self, action: Any) -> Float[Array, "*batch"]:
        """The sum over the bits (nats), for integers, booleans or floats.

        `MASKED_LOG_PROB` if a masked bit is one, or something is neither 0 nor 1.
        """
        bits = as_int32(action)
        is_one, is_zero = bits == 1, bits == 0
        z = self._clean()
        # -log(1 + e^-z) for a one, -log(1 + e^z) for a zero: no difference of two logarithms.
        log_probs = -_softplus(jnp.where(is_one, -z, z))
        possible = self._free(is_one, jnp.array(False)) | is_zero
        log_probs = jnp.where(possible, self._free_or_zero(log_probs), MASKED_LOG_PROB)
        rank = len(self.space.struct().shape)
        return total(log_probs.reshape(*log_probs.shape[: log_probs.ndim - rank], -1))

    def entropy(self) -> Float[Array, "*batch"]:
        """The sum of the entropies of the bits (nats)."""
        return sum_event(self._free_or_zero(_bit_entropy(self._clean())), self.space)

    def kl(self, other: "Bernoulli") -> Float[Array, "*batch"]:
        """The sum of the divergences of the bits (nats)."""
        p, q = self._clean(), other._clean()
        bits = _bit_kl(p, q)
        if other.mask is not None:  # a bit that `other` masks is 0 with probability 1
            surely_zero = -jax.nn.sigmoid(p) * MASKED_LOG_PROB
            bits = jnp.where(other.mask, bits, surely_zero)
        if self.mask is not None:  # a bit that `self` masks is 0 with probability 1
            other_zero = _softplus(q) if other.mask is None else jnp.where(other.mask, _softplus(q), 0)
            bits = jnp.where(self.mask, bits, other_zero)
        return sum_event(bits, self.space)

    def sample_and_log_prob(self, *, key: Key) -> tuple[Int[Array, "*batch_shape"], Float[Array, "*batch"]]:
        """A sample and its log-probability (nats). `key` is consumed."""
        return sample_and_log_prob(self, key)

    def _clean(self) -> Float[Array, "*batch_shape"]:
        """Finite logits; 0 where masked, so that no gradient flows there."""
        check_event(self.space.struct().shape, logits=self.logits)
        return jnp.clip(self._free(widen(self.logits), 0.0), -1e30, 1e30)

    def _free(self, x: Array, masked: Any) -> Array:
        return x if self.mask is None else jnp.where(self.mask, x, masked)

    def _free_or_zero(self, x: Float[Array, "*batch_shape"]) -> Float[Array, "*batch_shape"]:
        return self._free(x, 0.0)


@jax.custom_jvp
def _softplus(z: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """log(1 + e^z)."""
    return jnp.maximum(z, 0) + jnp.log1p(jnp.exp(-jnp.abs(z)))


@_softplus.defjvp
def _softplus_jvp(primals, tangents):  # type: ignore[no-untyped-def]
    return _softplus(*primals), jax.nn.sigmoid(primals[0]) * tangents[0]


@jax.custom_jvp
def _bit_entropy(z: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """log(1 + e^-|z|) + |z| / (1 + e^|z|): two terms of one sign, even in z."""
    size = jnp.abs(z)
    return jnp.log1p(jnp.exp(-size)) + size * jax.nn.sigmoid(-size)


@_bit_entropy.defjvp
def _bit_entropy_jvp(primals, tangents):  # type: ignore[no-untyped-def]
    (z,), (tangent,) = primals, tangents
    return _bit_entropy(z), -z * jax.nn.sigmoid(z) * jax.nn.sigmoid(-z) * tangent


@jax.custom_jvp
def _bit_kl(p: Float[Array, "*shape"], q: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """KL of two bits from their log-odds, as `numerics.categorical.kl`: terms that are at least 0."""
    terms = []
    for sign in (1.0, -1.0):
        prob_p, prob_q = jax.nn.sigmoid(sign * p), jax.nn.sigmoid(sign * q)
        d = _log_ratio(sign * p, sign * q)
        near = prob_p * expm1_less(jnp.minimum(d, 2.0))
        terms.append(jnp.where(d < 2, near, prob_q - prob_p - prob_p * d))
    return terms[0] + terms[1]


def _log_ratio(p: Float[Array, "*shape"], q: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """log sigmoid(q) - log sigmoid(p), accurate when q is near p."""
    # (1 + e^-q) / (1 + e^-p) = 1 + sigmoid(-p) (e^(p - q) - 1)
    near = jnp.abs(q - p) < 0.5
    delta = jnp.where(near, q - p, 0.0)
    close = -jnp.log1p(jax.nn.sigmoid(-p) * jnp.expm1(-delta))
    return jnp.where(near, close, _softplus(-p) - _softplus(-q))


@_bit_kl.defjvp
def _bit_kl_jvp(primals, tangents):  # type: ignore[no-untyped-def]
    (p, q), (tangent_p, tangent_q) = primals, tangents
    slope = jax.nn.sigmoid(p) * jax.nn.sigmoid(-p) * (p - q)
    near = jnp.abs(q - p) < 0.5
    delta = jnp.where(near, q - p, 0.0)
    # sigmoid(q) - sigmoid(p) = sigmoid(q) sigmoid(-p) (1 - e^(p - q))
    close = jax.nn.sigmoid(q) * jax.nn.sigmoid(-p) * -jnp.expm1(-delta)
    difference = jnp.where(near, close, jax.nn.sigmoid(q) - jax.nn.sigmoid(p))
    return _bit_kl(p, q), slope * tangent_p + difference * tangent_q
