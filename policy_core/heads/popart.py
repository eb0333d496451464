"""A value head with running statistics of the returns."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree

from policy_core._dtypes import wide_float, widen
from policy_core.configs import static
from policy_core.configs.validation import check_at_least
from policy_core.contract import Features, Key
from policy_core.errors import ConfigError, StructureError
from policy_core.networks.layers import Layer, init_linear, linear
from policy_core.normalize import Axis, merged


@static
class PopArtHead:
    """Regression of returns that are normalized by their running mean and standard deviation.

    With z the output of a linear layer, value = mean + std * z, where std = sqrt(variance + epsilon), and
    the loss is (z - (target - mean) / std)^2 / 2: targets are of order 1, whatever the returns are. The
    statistics are those of the returns given to `update_statistics(policy, returns=targets)`. They are leaves
    of the params, `params["critic"]["head"]["statistics"]`, without a gradient, and `trainable` masks them.

    Args:
        objectives: None for a scalar value, or the number of values, for a vector, each with its statistics.
        preserve: whether the linear layer is changed with the statistics so that every value stays what it
            was (PopArt); else values move with them, as in rl_games and MAPPO.
        max_count: the count from which on the statistics are moving averages, in which a new return weighs
            1 / `max_count`, since returns change while a policy learns; inf for averages over all.
        epsilon: added to the variance.

    Raises:
        ConfigError: for a number out of range.

    References:
        van Hasselt et al. 2016, algorithm 1; the statistics are merged as in `Normalize`, where they take
        moving averages of the two moments with a fixed step.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import policy_core as pc
        >>> config = pc.ActorCriticConfig(
        ...     observation_space=pc.Box(shape=(4,)), action_space=pc.Discrete(2),
        ...     value_head=pc.heads.PopArtHead(),
        ... )
        >>> policy = pc.init(config, key=jax.random.key(0))
        >>> policy = pc.update_statistics(policy, returns=jnp.array([100.0, 300.0]))
        >>> _, _, critic = pc.forward(policy, (), jnp.ones(4))
        >>> float(critic.mean), round(float(critic.std), 3)
        (200.0, 100.0)
    """

    objectives: int | None = None
    preserve: bool = True
    max_count: float = 1e5
    epsilon: float = 1e-5

    def __post_init__(self) -> None:
        check_at_least(self, 1, "objectives", otherwise=", or None for a scalar")
        if not self.max_count >= 1 or not 0 < self.epsilon < math.inf:
            raise ConfigError(
                f"PopArtHead.max_count, PopArtHead.epsilon: got {self.max_count}, {self.epsilon}, expected "
                "max_count >= 1 and epsilon > 0"
            )

    @property
    def _shape(self) -> tuple[int, ...]:
        return () if self.objectives is None else (self.objectives,)

    def init(self, in_size: int, *, key: Key, dtype: str, gain: float) -> dict[str, Any]:
        """Fresh params: a linear layer, and `statistics` of mean 0 and variance 1; `key` is consumed."""
        layer = init_linear(in_size, self.objectives or 1, key=key, dtype=dtype, gain=gain)
        count, mean, variance = (jnp.zeros((2, *self._shape), wide_float(dtype)) for _ in range(3))
        return {**layer, "statistics": {"count": count, "mean": mean, "variance": variance.at[0].set(1.0)}}

    def predict(self, params: dict[str, Any], features: Features) -> "NormalizedValue":
        """The prediction for one vector of features."""
        output = widen(linear(params, features))
        mean, std = self._moments(params["statistics"])
        output = output.reshape(self._shape)
        return NormalizedValue(output, mean.astype(output.dtype), std.astype(output.dtype))

    def trainable(self, params: dict[str, Any]) -> PyTree:
        """True for all leaves but the statistics."""
        return {
            name: jax.tree.map(lambda _, name=name: name != "statistics", part)
            for name, part in params.items()
        }

    def update(
        self,
        params: dict[str, Any],
        returns: Float[Array, "..."],
        mask: Bool[Array, "..."] | None = None,
        axis_name: Axis | None = None,
    ) -> dict[str, Any]:
        """The params with the statistics of more returns, and, with `preserve`, a layer of the same values.

        Raises:
            StructureError: for returns that are no floats `[..., *objectives]`, or a mask of another shape.
        """
        returns = jnp.asarray(returns)
        axes = jnp.ndim(returns) - len(self._shape)
        if axes < 0 or jnp.shape(returns)[axes:] != self._shape:
            raise StructureError(
                f"returns: got shape {jnp.shape(returns)}, expected (..., {self.objectives}), one for each "
                "objective"
            )
        if not jnp.issubdtype(returns.dtype, jnp.floating):
            raise StructureError(f"returns: got dtype {returns.dtype}, expected floats")
        front = jnp.shape(returns)[:axes]
        if mask is not None and (jnp.shape(mask) != front or jnp.result_type(mask) != jnp.bool_):
            raise StructureError(
                f"mask: got {jnp.result_type(mask)}{jnp.shape(mask)}, expected bool{front}, as returns have"
            )
        statistics = merged(
            params["statistics"], jax.lax.stop_gradient(returns), mask, axis_name, self.max_count
        )
        if not self.preserve:
            return {**params, "statistics": statistics}
        (mean, std), (new_mean, new_std) = self._moments(params["statistics"]), self._moments(statistics)
        layer = self._rescaled(params, std / new_std, (mean - new_mean) / new_std)
        return {**layer, "statistics": statistics}

    def folded(self, params: dict[str, Any]) -> Layer:
        """The params of a `RegressionHead` with the same values, in which the statistics are folded.

        Example:
            >>> import jax
            >>> import jax.numpy as jnp
            >>> from policy_core import RegressionHead
            >>> from policy_core.heads import PopArtHead
            >>> head, x = PopArtHead(), jnp.ones(4)
            >>> params = head.init(4, key=jax.random.key(0), dtype="float32", gain=1.0)
            >>> params = head.update(params, jnp.array([5.0, 9.0]))
            >>> plain = RegressionHead().predict(head.folded(params), x)
            >>> bool(jnp.isclose(plain.value(), head.predict(params, x).value()))
            True
        """
        mean, std = self._moments(params["statistics"])
        return self._rescaled(params, std, mean)

    def _rescaled(self, params: dict[str, Any], factor: Array, offset: Array) -> Layer:
        """The layer whose outputs are `offset + factor * output`."""
        factor, offset = jnp.ravel(factor), jnp.ravel(offset)
        kernel, bias = (widen(params[name]) for name in ("kernel", "bias"))
        return {
            "kernel": (kernel * factor[None].astype(kernel.dtype)).astype(params["kernel"].dtype),
            "bias": (offset + factor * bias).astype(params["bias"].dtype),
        }

    def _moments(self, statistics: dict[str, Any]) -> tuple[Array, Array]:
        """Mean and standard deviation, without a gradient."""
        mean, variance = jax.lax.stop_gradient((statistics["mean"], statistics["variance"]))
        return mean[0] + mean[1], jnp.sqrt(jnp.maximum(variance[0], 0) + self.epsilon)


class NormalizedValue(NamedTuple):
    """A prediction of `PopArtHead`.

    Args:
        output: output of the linear layer, `[...]`.
        mean, std: of the returns, in the shape of the output.

    Example:
        >>> import jax.numpy as jnp
        >>> from policy_core.heads import NormalizedValue
        >>> prediction = NormalizedValue(jnp.array(0.5), jnp.array(100.0), jnp.array(20.0))
        >>> float(prediction.value()), float(prediction.loss(jnp.array(130.0)))
        (110.0, 0.5)
    """

    output: Float[Array, "..."]
    mean: Float[Array, "..."]
    std: Float[Array, "..."]

    def value(self) -> Float[Array, "..."]:
        """The expected return, in units of reward."""
        return self.mean + self.std * self.output

    def loss(self, target: Float[Array, "..."]) -> Float[Array, "..."]:
        """Half the squared error of the output; no gradient flows to `target`."""
        target = jax.lax.stop_gradient(jnp.asarray(target, self.output.dtype))
        return 0.5 * jnp.square(self.output - (target - self.mean) / self.std)
