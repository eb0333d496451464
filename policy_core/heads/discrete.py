"""Categorical heads: for discrete spaces, and for boxes discretized to a grid of values."""

from dataclasses import field
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Num

from policy_core._dtypes import widen
from policy_core.configs import static
from policy_core.configs.validation import check_at_least
from policy_core.contract import Features, Key, Mask, Temperature
from policy_core.distributions import Bernoulli, Categorical, MultiCategorical, ProductCategorical
from policy_core.errors import ConfigError
from policy_core.networks.layers import init_linear, linear
from policy_core.spaces import Box, Discrete, JointMask, MultiBinary, MultiDiscrete

_MOST_CATEGORIES, _MOST_CHOICES = 2**20, 2**14


@static
class LogitsHead:
    """Logits for `Discrete`, `MultiDiscrete` and `MultiBinary`; both kinds of action are the same.

    Example:
        >>> import jax.numpy as jnp
        >>> from policy_core import Discrete
        >>> from policy_core.heads import LogitsHead
        >>> layer = {"kernel": jnp.array([[1.0, -1.0]]), "bias": jnp.zeros(2)}
        >>> LogitsHead().distribution(Discrete(2), layer, jnp.array([2.0]), None, None).logits.tolist()
        [2.0, -2.0]
    """

    def check_space(self, space: Any) -> None:
        """Raise `ConfigError` unless `space` is one of the three."""
        if not isinstance(space, Discrete | MultiDiscrete | MultiBinary):
            raise ConfigError(f"action_space: got {type(space).__name__}, expected a discrete space")

    def policy_space(self, space: Any) -> Any:
        """The space itself."""
        return space

    def init(self, space: Any, in_size: int, *, key: Key, dtype: str, gain: float) -> Any:
        """Fresh params: a linear layer with a logit per entry of the flat form; `key` is consumed."""
        return init_linear(in_size, space.flat_size, key=key, dtype=dtype, gain=gain)

    def distribution(
        self,
        space: Discrete | MultiDiscrete | MultiBinary,
        params: Any,
        features: Features,
        mask: Mask,
        temperature: Temperature,
    ) -> Categorical | MultiCategorical | ProductCategorical | Bernoulli:
        """`Categorical`, `MultiCategorical` (`ProductCategorical` if joint masked) or `Bernoulli`."""
        logits = widen(linear(params, features))
        if temperature is not None:
            logits = logits / temperature
        match space:
            case Discrete():
                return Categorical(logits, mask, space)
            case MultiDiscrete() if isinstance(mask, JointMask):
                return ProductCategorical(logits, mask, space)
            case MultiDiscrete():
                return MultiCategorical(logits, mask, space)
            case MultiBinary():
                return Bernoulli(logits.reshape(space.struct().shape), mask, space)

    def env_action(self, space: Any, action: Any) -> Any:
        """The action, unchanged."""
        return action

    def policy_action(self, space: Any, env_action: Any) -> Any:
        """The action, unchanged."""
        return env_action


@static
class BinsHead:
    """A categorical distribution over evenly spaced values for each entry of a `Box` with finite bounds.

    The policy action is the index of the value, int32, in the shape of the box; the
    environment action is the value. Unlike a normal, the distribution can have several modes
    (Tang & Agrawal 2020).

    Args:
        bins: number of values per entry of a float box, bounds included. The values of a box of
            integers are all of its integers, whatever `bins` is.

    Raises:
        ConfigError: for fewer than 2 bins; for a box without bounds, of floats with two equal bounds, of
            more than 2^14 entries or 2^20 values in all.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import policy_core as pc
        >>> config = pc.ActorCriticConfig(
        ...     observation_space=pc.Box(shape=(3,)),
        ...     action_space=pc.Box(low=-1.0, high=1.0, shape=(2,)),
        ...     box_head=pc.BinsHead(bins=5),
        ... )
        >>> policy = pc.init(config, key=jax.random.key(0))
        >>> pc.env_action(policy, jnp.array([0, 3])).tolist()
        [-1.0, 0.5]
    """

    bins: int = field(default=11, kw_only=False)

    def __post_init__(self) -> None:
        check_at_least(self, 2, "bins")

    def check_space(self, space: Any) -> None:
        """Raise `ConfigError` unless `space` is a box with finite bounds (floats: not equal), few values."""
        if not isinstance(space, Box):
            raise ConfigError(f"action_space: got {type(space).__name__}, expected a Box")
        if not space.bounded:
            raise ConfigError("action_space: got a Box without bounds, expected two finite ones")
        if space.is_float and np.any(np.equal(*space.bounds())):
            raise ConfigError("action_space: two bounds of the Box are equal, expected low < high for bins")
        if space.flat_size > _MOST_CHOICES or self._sizes(space).sum() > _MOST_CATEGORIES:
            raise ConfigError(
                f"action_space: got a Box of {space.dtype} with more than {_MOST_CATEGORIES} values "
                f"or {_MOST_CHOICES} entries, too many for a categorical; narrow its bounds"
            )

    def policy_space(self, space: Box) -> MultiDiscrete:
        """The space of the indices of the values, in the shape of the box."""
        return MultiDiscrete(tuple(self._sizes(space).tolist()), shape=space.shape)

    def init(self, space: Box, in_size: int, *, key: Key, dtype: str, gain: float) -> Any:
        """Fresh params: a linear layer with a logit per value; `key` is consumed."""
        size = int(self._sizes(space).sum())
        return init_linear(in_size, size, key=key, dtype=dtype, gain=gain)

    def distribution(
        self, space: Box, params: Any, features: Features, mask: Mask, temperature: Temperature
    ) -> MultiCategorical:
        """A `MultiCategorical` over the indices."""
        distribution = LogitsHead().distribution(
            self.policy_space(space), params, features, mask, temperature
        )
        assert isinstance(distribution, MultiCategorical)
        return distribution

    def env_action(self, space: Box, action: Int[Array, "..."]) -> Num[Array, "..."]:
        """The values at the indices."""
        low, high = space.bounds()
        if not space.is_float:
            # Modulo 2^bits: an intermediate result may wrap, the sum is in range.
            unsigned = np.dtype(f"uint{low.dtype.itemsize * 8}")
            return (jnp.asarray(action).astype(unsigned) + low.astype(unsigned)).astype(low.dtype)
        fraction = widen(jnp.asarray(action)) / (self.bins - 1)
        wide_low, wide_high = widen(jnp.asarray(low)), widen(jnp.asarray(high))
        value = wide_low * (1 - fraction) + wide_high * fraction
        return jnp.clip(value.astype(low.dtype), low, high)

    def policy_action(self, space: Box, env_action: Num[Array, "..."]) -> Int[Array, "..."]:
        """The indices of the nearest values."""
        low, high = space.bounds()
        env_action = jnp.clip(jnp.asarray(env_action).astype(low.dtype), low, high)
        if not space.is_float:
            unsigned = np.dtype(f"uint{low.dtype.itemsize * 8}")
            return (env_action.astype(unsigned) - low.astype(unsigned)).astype(jnp.int32)
        wide_low, wide_high = 0.5 * widen(jnp.asarray(low)), 0.5 * widen(jnp.asarray(high))  # no overflow
        fraction = (0.5 * widen(env_action) - wide_low) / (wide_high - wide_low)
        return jnp.round(fraction * (self.bins - 1)).astype(jnp.int32)

    def _sizes(self, space: Box) -> np.ndarray:
        if space.is_float:
            return np.full(space.flat_size, self.bins)
        low, high = (bound.ravel().astype(np.uint64) for bound in space.bounds())  # modulo 2^64
        sizes: np.ndarray = np.minimum(high - low, np.uint64(_MOST_CATEGORIES)).astype(np.int64) + 1
        return sizes
