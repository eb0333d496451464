"""Heads for boxes of floats: normal, squashed normal and Beta distributions."""

import math
from dataclasses import field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Num

from policy_core._dtypes import widen
from policy_core.configs import static
from policy_core.contract import Features, Key, Mask, Temperature
from policy_core.distributions import Beta, Normal, SquashedNormal
from policy_core.distributions.numerics.beta import horner
from policy_core.distributions.squashed_normal import bounded_entries, safe_bounds
from policy_core.errors import ConfigError
from policy_core.heads.scale import Scale
from policy_core.networks.layers import init_linear, linear
from policy_core.spaces import Box


@static
class NormalHead:
    """A diagonal normal distribution over a float `Box`, clipped to the bounds.

    The policy action is the sample before clipping, and `log_prob` and `entropy` are those of
    the normal before clipping; the environment action is clipped to the bounds. Without bounds
    the two actions are the same.

    Args:
        scale: parameterization of the standard deviation.
        mean_bound: the largest absolute value of the mean, which is `mean_bound * tanh(x / mean_bound)` of
            the output x of the linear layer; None for x itself.
        offset, factor: the environment action is `offset + factor * clip(action, -clip, clip)`, clipped to
            the bounds of the space: what rsl-rl does with `clip_actions` and `action_scale`, and rl_games
            with the bounds. One number, or one for each entry in C order.
        clip: the largest absolute value of an action before that; inf for none.

    Raises:
        ConfigError: for a bound, factor or clip that is not positive.

    Example:
        >>> from policy_core import NormalHead, Scale
        >>> NormalHead(Scale(std="fixed", log_std=-0.5)).scale.log_std
        -0.5
    """

    scale: Scale = field(default=Scale(), kw_only=False)
    mean_bound: float | None = None
    offset: float | tuple[float, ...] = 0.0
    factor: float | tuple[float, ...] = 1.0
    clip: float = math.inf

    def __post_init__(self) -> None:
        _check_positive(self, "mean_bound", "clip")
        numbers = np.array([*np.ravel(self.offset), *np.ravel(self.factor)])
        if not np.all(np.isfinite(numbers)) or np.any(np.ravel(self.factor) == 0):
            raise ConfigError(
                f"NormalHead.offset, NormalHead.factor: got {self.offset}, {self.factor}, expected finite "
                "numbers, no factor 0"
            )

    def check_space(self, space: Any) -> None:
        """Raise `ConfigError` unless `space` is a box of floats, with an entry for each offset and factor."""
        _check_float(space)
        for name in ("offset", "factor"):
            value = getattr(self, name)
            if isinstance(value, tuple) and len(value) != space.flat_size:
                raise ConfigError(
                    f"NormalHead.{name}: got {len(value)} numbers, expected one, or {space.flat_size} for "
                    f"the entries of the action space"
                )

    def policy_space(self, space: Box) -> Box:
        """An unbounded box: the samples before clipping."""
        return Box(shape=space.shape)

    def init(self, space: Box, in_size: int, *, key: Key, dtype: str, gain: float) -> Any:
        """Fresh params: a linear layer, and a `scale` if `std` is "global"; `key` is consumed."""
        size = space.flat_size * self.scale.outputs()
        layer = init_linear(in_size, size, key=key, dtype=dtype, gain=gain)
        return {**layer, **self.scale.init(space.shape, dtype)}

    def distribution(
        self, space: Box, params: Any, features: Features, mask: Mask, temperature: Temperature
    ) -> Normal:
        """The normal distribution before clipping."""
        loc, log_std = self.scale.split(space, params, features)
        loc = _bounded_mean(loc, self.mean_bound)
        if temperature is not None:  # a normal density to the power 1 / T has T times the variance
            log_std = log_std + 0.5 * jnp.log(temperature)
        return Normal(loc, log_std, space)

    def env_action(self, space: Box, action: Float[Array, "..."]) -> Num[Array, "..."]:
        """The action, after offset and factor, within the bounds, in the dtype of the space."""
        action = jnp.asarray(action)
        if not self._plain:
            offset, factor = self._affine(space, action.dtype)
            action = offset + factor * jnp.clip(action, -self.clip, self.clip)
        return _inside(space, action)

    def policy_action(self, space: Box, env_action: Num[Array, "..."]) -> Float[Array, "..."]:
        """The action that gives the environment action, in float32, which is clipped to the bounds first."""
        action = widen(_inside(space, jnp.asarray(env_action)))
        if self._plain:
            return action
        offset, factor = self._affine(space, action.dtype)
        return jnp.clip((action - offset) / factor, -self.clip, self.clip)

    @property
    def _plain(self) -> bool:
        return (self.offset, self.factor, self.clip) == (0.0, 1.0, math.inf)

    def _affine(self, space: Box, dtype: Any) -> tuple[Array, Array]:
        offset, factor = (
            jnp.asarray(np.broadcast_to(np.ravel(value), space.flat_size).reshape(space.shape), dtype)
            for value in (self.offset, self.factor)
        )
        return offset, factor


@static
class SquashedNormalHead:
    """A diagonal normal distribution, mapped by tanh into the bounds of a float `Box`.

    Entries without two finite bounds are clipped instead. The policy action is the sample before
    the squash. `log_prob` and `entropy` are those of the environment action, exact and finite
    everywhere, see `distributions.SquashedNormal`.

    Args:
        scale: parameterization of the standard deviation before the squash.
        mean_bound: as in `NormalHead`, of the mean before the squash.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import policy_core as pc
        >>> config = pc.ActorCriticConfig(
        ...     observation_space=pc.Box(shape=(3,)),
        ...     action_space=pc.Box(low=-2.0, high=2.0, shape=(1,)),
        ...     box_head=pc.SquashedNormalHead(scale=pc.Scale(std="state")),
        ... )
        >>> policy = pc.init(config, key=jax.random.key(0))
        >>> pc.env_action(policy, jnp.array([100.0])).tolist()
        [2.0]
    """

    scale: Scale = field(default=Scale(), kw_only=False)
    mean_bound: float | None = None

    def __post_init__(self) -> None:
        _check_positive(self, "mean_bound")

    def check_space(self, space: Any) -> None:
        """Raise `ConfigError` unless `space` is a box of floats with low < high, somewhere finite."""
        _check_float(space)
        _check_width(space)
        if space.flat_size and not bounded_entries(space).any():
            raise ConfigError(
                "action_space: got a Box without bounds, which nothing can be squashed into; give it low and "
                "high, or use NormalHead()"
            )

    def policy_space(self, space: Box) -> Box:
        """An unbounded box: the samples before the squash."""
        return Box(shape=space.shape)

    def init(self, space: Box, in_size: int, *, key: Key, dtype: str, gain: float) -> Any:
        """Fresh params, as of `NormalHead`; `key` is consumed."""
        return NormalHead(self.scale).init(space, in_size, key=key, dtype=dtype, gain=gain)

    def distribution(
        self, space: Box, params: Any, features: Features, mask: Mask, temperature: Temperature
    ) -> SquashedNormal:
        """The squashed normal; a temperature applies to the normal before the squash."""
        head = NormalHead(self.scale, mean_bound=self.mean_bound)
        return SquashedNormal(*head.distribution(space, params, features, mask, temperature))

    def env_action(self, space: Box, action: Float[Array, "..."]) -> Num[Array, "..."]:
        """The squashed action, in the dtype of the space and within the bounds."""
        u = widen(jnp.asarray(action))
        inside = _between(space, jax.nn.sigmoid(2 * u), jax.nn.sigmoid(-2 * u))
        return _inside(space, jnp.where(bounded_entries(space), inside, u))

    def policy_action(self, space: Box, env_action: Num[Array, "..."]) -> Float[Array, "..."]:
        """The inverse of the squash, clamped to |tanh| = 1 - 2^-24, the largest float32 below 1."""
        x = widen(_inside(space, jnp.asarray(env_action)))
        low, high = safe_bounds(space)
        # In units near the width, a power of 2: nothing overflows, and nothing is rounded.
        scale = np.exp2(-np.clip(np.round(np.log2(high / 4 - low / 4)), -100, 100))
        u = 0.5 * _log_odds(x * jnp.asarray(scale, x.dtype), scale * low, scale * high)
        return jnp.where(bounded_entries(space), u, x)


@static
class BetaHead:
    """A Beta distribution for each entry of a float `Box` with finite bounds.

    The policy action is the log-odds of the position between the bounds; `log_prob` and
    `entropy` are those of the environment action, see `distributions.Beta`. Concentrations
    are softplus of a linear layer plus a minimum, at most `high`.

    Args:
        low: the smallest concentration; at 1 (the default) every density is unimodal.
        high: the largest concentration; beyond it is clipped, with zero gradient.

    Example:
        >>> from policy_core import BetaHead
        >>> BetaHead(low=1.0).high
        10000.0
    """

    low: float = 1.0
    high: float = 1e4

    def __post_init__(self) -> None:
        if not 0 < self.low < self.high < math.inf:
            raise ConfigError(
                f"BetaHead.low, BetaHead.high: got {self.low}, {self.high}, expected 0 < low < high"
            )

    def check_space(self, space: Any) -> None:
        """Raise `ConfigError` unless `space` is a box of floats with finite bounds, low < high."""
        _check_float(space)
        _check_width(space)
        if not space.bounded:
            raise ConfigError("action_space: got a Box without bounds, expected two finite ones for Beta")

    def policy_space(self, space: Box) -> Box:
        """An unbounded box: log-odds."""
        return Box(shape=space.shape)

    def init(self, space: Box, in_size: int, *, key: Key, dtype: str, gain: float) -> Any:
        """Fresh params: a linear layer with two outputs per entry; `key` is consumed."""
        return init_linear(in_size, 2 * space.flat_size, key=key, dtype=dtype, gain=gain)

    def distribution(
        self, space: Box, params: Any, features: Features, mask: Mask, temperature: Temperature
    ) -> Beta:
        """The Beta distribution."""
        outputs = jax.nn.softplus(widen(linear(params, features)))
        if temperature is not None:  # x^(a-1) (1-x)^(b-1) to the power 1 / T divides a - 1 and b - 1 by T
            outputs = (outputs + (self.low - 1)) / temperature + (1 - self.low)
        concentrations = jnp.clip(self.low + outputs, min(self.low, 1e-2), self.high)
        alpha, beta = jnp.split(concentrations, 2)
        return Beta(alpha.reshape(space.shape), beta.reshape(space.shape), space)

    def env_action(self, space: Box, action: Float[Array, "..."]) -> Num[Array, "..."]:
        """The action, in the dtype of the space and within the bounds."""
        z = widen(jnp.asarray(action))
        return _inside(space, _between(space, jax.nn.sigmoid(z), jax.nn.sigmoid(-z)))

    def policy_action(self, space: Box, env_action: Num[Array, "..."]) -> Float[Array, "..."]:
        """The log-odds of the position between the bounds, clamped to 2^-24 from either bound."""
        return 2 * SquashedNormalHead().policy_action(space, env_action)


def _inside(space: Box, action: Num[Array, "..."]) -> Num[Array, "..."]:
    """The action, clipped to the bounds, in the dtype of the space."""
    low, high = space.bounds()
    return jnp.clip(action.astype(low.dtype), low, high)


def _bounded_mean(loc: Float[Array, "..."], bound: float | None) -> Float[Array, "..."]:
    return loc if bound is None else bound * jnp.tanh(loc / bound)


def _check_positive(head: Any, *names: str) -> None:
    for name in names:
        value = getattr(head, name)
        if value is not None and not value > 0:
            raise ConfigError(f"{type(head).__name__}.{name}: got {value}, expected a positive number")


def _between(space: Box, up: Float[Array, "..."], down: Float[Array, "..."]) -> Float[Array, "..."]:
    """`low * down + high * up` for `up` = 1 - `down`: never forms high - low, which may overflow."""
    low, high = (jnp.asarray(bound, up.dtype) for bound in safe_bounds(space))
    return low * down + high * up


def _log_odds(x: Float[Array, "..."], low: Any, high: Any) -> Float[Array, "..."]:
    """log((x - low) / (high - x)) to four ulp, of a position clamped to 2^-25 from either bound.

    By the distance from the middle, which is held in two words, up to half way to a bound; then by those
    to the bounds.
    """
    exact = 0.5 * (low.astype(np.longdouble) + high)
    middle = exact.astype(x.dtype)
    rest = jnp.asarray((exact - middle).astype(x.dtype))
    sign = jnp.where(x < middle, -1, 1).astype(x.dtype)
    distance, slope = jnp.abs(x - middle) - sign * rest, 4 / (high - low)
    line = distance * jnp.asarray(slope, x.dtype)  # twice the part t of the way to a bound
    tail = distance * jnp.asarray(slope - slope.astype(x.dtype), x.dtype)  # what rounding the slope lost
    t = jnp.minimum(0.5 * line, 0.5)
    bend = t * t * horner(t * t, [1 / (2 * k + 3) for k in range(26 if x.dtype == np.float64 else 11)])
    least = jnp.asarray((high - low) * float(jnp.finfo(x.dtype).epsneg) / 2, x.dtype)
    below, above = x - jnp.asarray(low, x.dtype), jnp.asarray(high, x.dtype) - x
    far = jnp.log(jnp.maximum(below, above) / jnp.maximum(jnp.minimum(below, above), least))
    return sign * jnp.where(t < 0.5, line + (tail + line * bend), far)


def _check_float(space: Any) -> None:
    if not isinstance(space, Box) or not space.is_float:
        got = f"a Box of {space.dtype}" if isinstance(space, Box) else type(space).__name__
        raise ConfigError(f"action_space: got {got}, expected a Box of floats")


def _check_width(space: Box) -> None:
    low, high = space.bounds()
    if np.any(low == high):
        raise ConfigError("action_space: two bounds of the Box are equal, expected low < high")
