"""Parameterization of the standard deviation of normal heads."""

import math
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from policy_core._dtypes import widen
from policy_core.configs import static
from policy_core.contract import Features
from policy_core.errors import ConfigError
from policy_core.networks.layers import linear
from policy_core.spaces import Box


@static
class Scale:
    """Parameterization of the standard deviation: state-independent, state-dependent or fixed.

    Args:
        std: "global": one learned parameter per entry, independent of the observation; "state": a
            function of the observation; "fixed": a constant.
        log_std: the initial, or fixed, logarithm of the standard deviation; 0 by default.
        low, high: bounds of the log-std; beyond them it is clipped, with zero gradient.
        positive: the function from the raw parameter to the standard deviation: "exp", "softplus", or
            "identity", where the bounds keep it positive.
        min_std, factor: std = (positive(raw) + min_std) * factor. Unlike `low`, a least std keeps the
            gradient; Brax has softplus with 0.001 and 1 (`NormalTanhDistribution`).
        bounding: "clip", or "tanh" for log-std = low + (high - low) (tanh(raw) + 1) / 2, which has a
            gradient everywhere, as in implementations of SAC; then `positive` is "exp".

    Raises:
        ConfigError: for a `log_std` that is out of the bounds or that no raw parameter gives.

    Example:
        >>> from policy_core import NormalHead, Scale
        >>> NormalHead(scale=Scale(std="state", log_std=-1.0, low=-5.0, high=2.0)).scale.std
        'state'
    """

    std: Literal["global", "state", "fixed"] = "global"
    log_std: float = 0.0
    low: float = -20.0
    high: float = 20.0
    positive: Literal["exp", "softplus", "identity"] = "exp"
    min_std: float = 0.0
    factor: float = 1.0
    bounding: Literal["clip", "tanh"] = "clip"

    def __post_init__(self) -> None:
        if not self.low <= self.log_std <= self.high:
            raise ConfigError(
                f"Scale.log_std: got {self.log_std}, expected a number from {self.low} to {self.high}"
            )
        if not 0 <= self.min_std < math.inf or not 0 < self.factor < math.inf:
            raise ConfigError(
                f"Scale.min_std, Scale.factor: got {self.min_std}, {self.factor}, expected min_std >= 0 and "
                "factor > 0"
            )
        plain = (self.min_std, self.factor, self.bounding) == (0.0, 1.0, "clip")
        if self.std == "fixed" and not plain:
            raise ConfigError('Scale: std="fixed" is exp(log_std); it has no min_std, factor or bounding')
        if self.bounding == "tanh" and (self.positive, self.min_std, self.factor) != ("exp", 0.0, 1.0):
            raise ConfigError(
                'Scale.bounding: "tanh" bounds the log-std; it goes with positive="exp", min_std=0, factor=1'
            )
        if not math.isfinite(self.raw):
            raise ConfigError(
                f"Scale.log_std: got {self.log_std}, which no raw parameter gives; {self._why()}"
            )

    def _why(self) -> str:
        if self.bounding == "tanh":
            return "with tanh it is above low and below high"
        return f"the std must be above min_std * factor = {self.min_std * self.factor:g}"

    def init(self, shape: tuple[int, ...], dtype: str) -> dict[str, Array]:
        """Fresh params: a raw `scale` of this shape if `std` is "global", else `{}`."""
        return {"scale": jnp.full(shape, self.raw, dtype)} if self.std == "global" else {}

    def outputs(self) -> int:
        """The number of outputs of the linear layer per entry, the mean included."""
        return 2 if self.std == "state" else 1

    def split(
        self, space: Box, params: Any, features: Features
    ) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
        """Mean and log-std, in the shape of the space."""
        outputs = widen(linear(params, features))
        loc = outputs[: space.flat_size].reshape(space.shape)
        match self.std:
            case "global":
                raw = widen(params["scale"])
            case "state":
                raw = self.raw + outputs[space.flat_size :].reshape(space.shape)
            case "fixed":
                return loc, jnp.full(space.shape, self.log_std, loc.dtype)
        return loc, self._log_std(raw)

    def _log_std(self, raw: Float[Array, "..."]) -> Float[Array, "..."]:
        """The log-std of a raw parameter."""
        if self.bounding == "tanh":
            return self.low + 0.5 * (self.high - self.low) * (jnp.tanh(raw) + 1)
        if self.positive == "identity":
            low, high = (_bounded_exp(bound) / self.factor for bound in (self.low, self.high))
            return jnp.log(jnp.clip(raw + self.min_std, low, high)) + math.log(self.factor)
        log_std = raw if self.positive == "exp" else _log_softplus(raw)
        if self.min_std:
            log_std = jnp.logaddexp(log_std, math.log(self.min_std))
        if self.factor != 1:
            log_std = log_std + math.log(self.factor)
        return jnp.clip(log_std, self.low, self.high)

    @property
    def raw(self) -> float:
        """The raw parameter that gives `log_std`; infinite or NaN if there is none."""
        if self.bounding == "tanh":
            width = self.high - self.low
            part = (2 * self.log_std - self.low - self.high) / width if 0 < width < math.inf else 1.0
            return math.atanh(part) if abs(part) < 1 else math.inf
        if self.positive == "exp" and not self.min_std:
            return self.log_std - math.log(self.factor)
        std = _bounded_exp(self.log_std) / self.factor - self.min_std
        if self.positive == "identity":
            return std if std > 0 else -math.inf
        if std <= 0:
            return -math.inf
        return math.log(std) if self.positive == "exp" else std + math.log(-math.expm1(-std))


def _bounded_exp(x: float) -> float:
    """e^x, at least and at most what a float32 can hold."""
    return math.exp(min(max(x, -87.0), 88.0))


def _log_softplus(raw: Float[Array, "..."]) -> Float[Array, "..."]:
    """log(log(1 + e^x)), which is x for very negative x."""
    tiny = raw < -15
    return jnp.where(tiny, raw, jnp.log(jax.nn.softplus(jnp.where(tiny, 0.0, raw))))
