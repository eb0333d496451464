"""The joint distribution of independent parts, for `Dict` and `Tuple` actions, nested to any depth."""

import functools
from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from policy_core.contract import Key
from policy_core.distributions.numerics.common import takes_seed, total


@takes_seed
class Joint(NamedTuple):
    """A joint distribution of independent parts; its actions have the structure of the parts.

    Args:
        parts: a dict or a tuple of distributions.

    Example:
        >>> import jax.numpy as jnp
        >>> from policy_core import Box, Discrete
        >>> from policy_core.distributions import Categorical, Joint, Normal
        >>> d = Joint({
        ...     "tool": Categorical(jnp.zeros(4), None, Discrete(4)),
        ...     "force": Normal(jnp.zeros(()), jnp.zeros(()), Box()),
        ... })
        >>> sorted(d.mode()), round(float(d.entropy()), 4)
        (['force', 'tool'], 2.8052)
    """

    parts: Any

    def sample(self, *, key: Key) -> Any:
        """A sample of each part. `key` is consumed."""
        pairs = zip(self._list(), self._keys(key), strict=True)
        return self._like([part.sample(key=k) for part, k in pairs])

    def mode(self) -> Any:
        """The mode of each part."""
        return self._like([part.mode() for part in self._list()])

    def mean(self) -> Any:
        """The mean of each part; None for one that has none, a categorical."""
        return self._like([part.mean() if hasattr(part, "mean") else None for part in self._list()])

    def stddev(self) -> Any:
        """The standard deviation of each part, likewise."""
        return self._like([part.stddev() if hasattr(part, "stddev") else None for part in self._list()])

    def log_prob(self, action: Any) -> Float[Array, "*batch"]:
        """The sum over the parts (nats); `MASKED_LOG_PROB` if one has probability 0."""
        return total(self.log_probs(action))

    def entropy(self) -> Float[Array, "*batch"]:
        """The sum of the entropies of the parts (nats)."""
        return _sum(part.entropy() for part in self._list())

    def kl(self, other: "Joint") -> Float[Array, "*batch"]:
        """The sum of the divergences of the parts (nats)."""
        pairs = zip(self._list(), other._list(), strict=True)
        return _sum(part.kl(twin) for part, twin in pairs)

    def sample_and_log_prob(self, *, key: Key) -> tuple[Any, Float[Array, "*batch"]]:
        """A sample of each part, and the log-probability of all together. `key` is consumed."""
        pairs = [
            part.sample_and_log_prob(key=k) for part, k in zip(self._list(), self._keys(key), strict=True)
        ]
        log_probs = jnp.stack([log_prob for _, log_prob in pairs], -1)
        return self._like([action for action, _ in pairs]), total(log_probs)

    def log_probs(self, action: Any) -> Float[Array, "*batch parts"]:
        """The log-probability of each part, in sorted order of the names (nats)."""
        actions = [action[name] for name in self._names()]
        pairs = zip(self._list(), actions, strict=True)
        return jnp.stack([part.log_prob(action) for part, action in pairs], -1)

    def _names(self) -> list[Any]:
        return sorted(self.parts) if isinstance(self.parts, dict) else list(range(len(self.parts)))

    def _list(self) -> list[Any]:
        return [self.parts[name] for name in self._names()]

    def _like(self, values: list[Any]) -> Any:
        if isinstance(self.parts, dict):
            return dict(zip(self._names(), values, strict=True))
        return tuple(values)

    def _keys(self, key: Key) -> Any:
        return jax.random.split(key, len(self.parts))


def _sum(terms: Iterable[Array]) -> Array:
    """One by one: over an explicit mesh JAX stacks only what is split alike, and a fixed scale is not."""
    return functools.reduce(jnp.add, terms)
