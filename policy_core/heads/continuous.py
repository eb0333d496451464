"""Heads for boxes of floats: normal, squashed normal, Beta."""

import math
from dataclasses import field
from typing import Any, Literal

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
from policy_core.networks.layers import init_linear, linear
from policy_core.spaces import Box


@static
class Scale:
    """Parameterization of the standard deviation: state-independent, state-dependent or fixed.

    Args:
        std: "global": one learned number an entry, whatever the observation; "state": a
            function of the observation; "fixed": never learned.
        log_std: the logarithm of the standard deviation, at the start or fixed; 0 by default.
        low, high: bounds of the log-std; beyond them it is clipped, and has no gradient.
        positive: what makes the standard deviation of the raw number: "exp" or "softplus".

    Example:
        >>> from policy_core import NormalHead, Scale
        >>> NormalHead(scale=Scale(std="state", log_std=-1.0, low=-5.0, high=2.0)).scale.std
        'state'
    """

    std: Literal["global", "state", "fixed"] = "global"
    log_std: float = 0.0
    low: float = -20.0
    high: float = 20.0
    positive: Literal["exp", "softplus"] = "exp"

    def __post_init__(self) -> None:
        if not self.low <= self.log_std <= self.high:
            raise ConfigError(
                f"Scale.log_std: got {self.log_std}, expected a number from {self.low} to {self.high}"
            )

    def init(self, shape: tuple[int, ...], dtype: str) -> dict[str, Array]:
        """A `log_std` (raw for softplus) of this shape if it is global, else nothing."""
        return {"scale": jnp.full(shape, self._raw(), dtype)} if self.std == "global" else {}

    def outputs(self) -> int:
        """How many numbers an entry takes of the linear layer, the mean included."""
        return 2 if self.std == "state" else 1

    def split(
        self, space: Box, params: Any, features: Features
    ) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
        """Mean and log-std, of the shape of the space."""
        outputs = widen(linear(params, features))
        loc = outputs[: space.flat_size].reshape(space.shape)
        match self.std:
            case "global":
                raw = widen(params["scale"])
            case "state":
                raw = self._raw() + outputs[space.flat_size :].reshape(space.shape)
            case "fixed":
                return loc, jnp.full(space.shape, self.log_std, loc.dtype)
        log_std = raw if self.positive == "exp" else _log_softplus(raw)
        return loc, jnp.clip(log_std, self.low, self.high)

    def _raw(self) -> float:
        """The number that gives `log_std`."""
        if self.positive == "exp":
            return self.log_std
        std = math.exp(self.log_std)
        return std + math.log(-math.expm1(-std))  # the inverse of softplus


@static
class NormalHead:
    """A diagonal normal over a float `Box`; what lies outside of the bounds is clipped.

    The policy action is the draw before clipping, and so is what `log_prob` and `entropy`
    are of; the environment action is clipped to the bounds. Without bounds they are one.

    Args:
        scale: parameterization of the standard deviation.

    Example:
        >>> from policy_core import NormalHead, Scale
        >>> NormalHead(Scale(std="fixed", log_std=-0.5)).scale.log_std
        -0.5
    """

    scale: Scale = field(default=Scale(), kw_only=False)

    def check_space(self, space: Any) -> None:
        """A float box."""
        _check_float(space)

    def policy_space(self, space: Box) -> Box:
        """The draws before clipping: any number."""
        return Box(shape=space.shape)

    def init(self, space: Box, in_size: int, *, key: Key, dtype: str, gain: float) -> Any:
        """A linear layer to the mean (and the scale, if a function of state), or also a `scale`."""
        size = space.flat_size * self.scale.outputs()
        layer = init_linear(in_size, size, key=key, dtype=dtype, gain=gain)
        return {**layer, **self.scale.init(space.shape, dtype)}

    def distribution(
        self, space: Box, params: Any, features: Features, mask: Mask, temperature: Temperature
    ) -> Normal:
        """The normal before clipping."""
        loc, log_std = self.scale.split(space, params, features)
        if temperature is not None:  # the root of a normal density: a variance times the temperature
            log_std = log_std + 0.5 * jnp.log(temperature)
        return Normal(loc, log_std, space)

    def env_action(self, space: Box, action: Float[Array, "..."]) -> Num[Array, "..."]:
        """The action, clipped to the bounds, in the dtype of the space."""
        low, high = space.bounds()
        return jnp.clip(jnp.asarray(action).astype(low.dtype), low, high)

    def policy_action(self, space: Box, env_action: Num[Array, "..."]) -> Float[Array, "..."]:
        """The action in float32, clipped to the bounds: the nearest that gives it."""
        return widen(self.env_action(space, jnp.asarray(env_action)))


@static
class SquashedNormalHead:
    """A diagonal normal, mapped by tanh into the bounds; clipped where there are not two.

    The policy action is the draw before the squash. `log_prob` and `entropy` are those of the
    environment action, exact and finite everywhere, see `distributions.SquashedNormal`.

    Args:
        scale: parameterization of the standard deviation before the squash.

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

    def check_space(self, space: Any) -> None:
        """A float box whose finite bounds do not meet."""
        _check_float(space)
        _check_width(space)

    def policy_space(self, space: Box) -> Box:
        """The draws before the squash: any number."""
        return Box(shape=space.shape)

    def init(self, space: Box, in_size: int, *, key: Key, dtype: str, gain: float) -> Any:
        """As `NormalHead.init`."""
        return NormalHead(self.scale).init(space, in_size, key=key, dtype=dtype, gain=gain)

    def distribution(
        self, space: Box, params: Any, features: Features, mask: Mask, temperature: Temperature
    ) -> SquashedNormal:
        """The squashed normal; a temperature is that of the normal before the squash."""
        return SquashedNormal(
            *NormalHead(self.scale).distribution(space, params, features, mask, temperature)
        )

    def env_action(self, space: Box, action: Float[Array, "..."]) -> Num[Array, "..."]:
        """The squashed action in the dtype of the space, never outside of the bounds."""
        u = widen(jnp.asarray(action))
        inside = _between(space, jax.nn.sigmoid(2 * u), jax.nn.sigmoid(-2 * u))
        return NormalHead().env_action(space, jnp.where(bounded_entries(space), inside, u))

    def policy_action(self, space: Box, env_action: Num[Array, "..."]) -> Float[Array, "..."]:
        """The inverse of the squash, clamped to |tanh| = 1 - 2^-24, the largest float32 below 1."""
        x = NormalHead().policy_action(space, env_action)
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
        low: least concentration; 1 (the default) makes every density unimodal.
        high: largest concentration; beyond it is clipped, and has no gradient.

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
        """A float box with finite bounds that do not meet."""
        _check_float(space)
        _check_width(space)
        if not space.bounded:
            raise ConfigError("action_space: got a Box without bounds, expected two finite ones for Beta")

    def policy_space(self, space: Box) -> Box:
        """Log-odds: any number."""
        return Box(shape=space.shape)

    def init(self, space: Box, in_size: int, *, key: Key, dtype: str, gain: float) -> Any:
        """One linear layer to two numbers an entry."""
        return init_linear(in_size, 2 * space.flat_size, key=key, dtype=dtype, gain=gain)

    def distribution(
        self, space: Box, params: Any, features: Features, mask: Mask, temperature: Temperature
    ) -> Beta:
        """The Beta distribution."""
        outputs = jax.nn.softplus(widen(linear(params, features)))
        if temperature is not None:  # the root of x^(a-1) (1-x)^(b-1)
            outputs = (outputs + (self.low - 1)) / temperature + (1 - self.low)
        concentrations = jnp.clip(self.low + outputs, min(self.low, 1e-2), self.high)
        alpha, beta = jnp.split(concentrations, 2)
        return Beta(alpha.reshape(space.shape), beta.reshape(space.shape), space)

    def env_action(self, space: Box, action: Float[Array, "..."]) -> Num[Array, "..."]:
        """The action in the dtype of the space, never outside of the bounds."""
        z = widen(jnp.asarray(action))
        return NormalHead().env_action(space, _between(space, jax.nn.sigmoid(z), jax.nn.sigmoid(-z)))

    def policy_action(self, space: Box, env_action: Num[Array, "..."]) -> Float[Array, "..."]:
        """Log-odds, of a position clamped to 2^-24 from either bound."""
        return 2 * SquashedNormalHead().policy_action(space, env_action)


def _between(space: Box, up: Float[Array, "..."], down: Float[Array, "..."]) -> Float[Array, "..."]:
    """The point at the fraction `up` = 1 - `down` between the bounds; no width can overflow."""
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


def _log_softplus(raw: Float[Array, "..."]) -> Float[Array, "..."]:
    """log(log(1 + e^x)), which is x for very negative x."""
    tiny = raw < -15
    return jnp.where(tiny, raw, jnp.log(jax.nn.softplus(jnp.where(tiny, 0.0, raw))))


def _check_float(space: Any) -> None:
    if not isinstance(space, Box) or not space.is_float:
        got = f"a Box of {space.dtype}" if isinstance(space, Box) else type(space).__name__
        raise ConfigError(f"action_space: got {got}, expected a Box of floats")


def _check_width(space: Box) -> None:
    low, high = space.bounds()
    if np.any(low == high):
        raise ConfigError("action_space: two bounds of the Box are equal, expected low < high")
