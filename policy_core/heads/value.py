"""Value heads: from the features of the critic to a prediction of the return.

Each returns a `ValuePrediction`, whose `value()` is in units of reward, whatever the scale of the
network output, and whose `loss(target)` is the loss to train it with. Both are computed in float32
or wider, whatever the compute dtype of the network.
"""

import math
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from policy_core._dtypes import widen
from policy_core.configs import static
from policy_core.configs.validation import check_at_least
from policy_core.contract import Features, Key, ValueHead
from policy_core.distributions.numerics import categorical as rows
from policy_core.errors import ConfigError
from policy_core.networks.layers import Layer, init_linear, linear


@static
class RegressionHead:
    """Regression of the value with the squared error, optionally scaled or in symlog space.

    With z the output of a linear layer, value = scale * z, or scale * symexp(z) with `symlog`,
    where symexp(z) = sign(z) (exp|z| - 1) (Hafner et al. 2023). The loss is (z - z*)^2 / 2, where
    z* is the target mapped likewise: `scale`, or the symlog, makes it of order 1, whatever the
    returns are. With `symlog` the best prediction of a random return is not its mean but
    one nearer to 0; `TwoHotHead(symlog=True)` predicts the mean.

    Args:
        objectives: None for a scalar value, or the number of values, for a vector.
        scale: the scale of the returns; above 0.
        symlog: whether returns are compressed by the symlog.

    Raises:
        ConfigError: for a scale that is not positive and finite, or fewer than 1 objective.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import policy_core as pc
        >>> config = pc.ActorCriticConfig(
        ...     observation_space=pc.Box(shape=(4,)), action_space=pc.Discrete(2),
        ...     value_head=pc.RegressionHead(objectives=3, scale=100.0),
        ... )
        >>> policy = pc.init(config, key=jax.random.key(0))
        >>> state, value = pc.value(policy, pc.reset(policy), jnp.ones(4))
        >>> value.shape
        (3,)
    """

    objectives: int | None = None
    scale: float = 1.0
    symlog: bool = False

    def __post_init__(self) -> None:
        check_at_least(self, 1, "objectives", otherwise=", or None for a scalar")
        if not 0 < self.scale < math.inf:
            raise ConfigError(f"RegressionHead.scale: got {self.scale}, expected a positive number")

    def init(self, in_size: int, *, key: Key, dtype: str, gain: float) -> Layer:
        """Fresh params: a linear layer with an output per objective; `key` is consumed."""
        return init_linear(in_size, self.objectives or 1, key=key, dtype=dtype, gain=gain)

    def predict(self, params: Layer, features: Features) -> "RegressedValue":
        """The prediction for one vector of features."""
        output = widen(linear(params, features))
        return RegressedValue(jnp.squeeze(output, -1) if self.objectives is None else output, self)


class RegressedValue(NamedTuple):
    """A prediction of `RegressionHead`.

    Args:
        output: output of the linear layer, `[...]`.
        head: the head, which maps outputs to values.

    Example:
        >>> import jax.numpy as jnp
        >>> from policy_core.heads.value import RegressedValue, RegressionHead
        >>> prediction = RegressedValue(jnp.array(0.25), RegressionHead(scale=100.0))
        >>> float(prediction.value()), float(prediction.loss(jnp.array(125.0)))
        (25.0, 0.5)
    """

    output: Float[Array, "..."]
    head: RegressionHead

    def value(self) -> Float[Array, "..."]:
        """The expected return, in units of reward."""
        return self.head.scale * (symexp(self.output) if self.head.symlog else self.output)

    def loss(self, target: Float[Array, "..."]) -> Float[Array, "..."]:
        """Half the squared error of the output; no gradient flows to `target`.

        Infinite for an error above 1.8e19, whose square float32 does not hold: a limit would hide that a
        critic diverges. The gradient is the error itself, and finite up to 1.7e38.
        """
        target = jax.lax.stop_gradient(jnp.asarray(target, self.output.dtype)) / self.head.scale
        return 0.5 * jnp.square(self.output - (symlog(target) if self.head.symlog else target))


class _CategoricalValueHead:
    """Base of value heads with a categorical distribution over bins of return."""

    low: float
    high: float
    bins: int
    objectives: int | None
    gain: float

    def init(self, in_size: int, *, key: Key, dtype: str, gain: float) -> Layer:
        """Fresh params: a linear layer with a logit per bin and objective; `key` is consumed."""
        outputs = (self.objectives or 1) * self.bins
        return init_linear(in_size, outputs, key=key, dtype=dtype, gain=gain * self.gain)

    def predict(self, params: Layer, features: Features) -> "CategoricalValue":
        """The prediction for one vector of features."""
        logits, head = widen(linear(params, features)), cast("TwoHotHead | HLGaussHead", self)
        return CategoricalValue(logits if self.objectives is None else logits.reshape(-1, self.bins), head)

    def _check_grid(self) -> None:
        check_at_least(self, 1, "objectives", otherwise=", or None for a scalar")
        check_at_least(self, 2, "bins")
        name, low, high = type(self).__name__, self.low, self.high
        if not -1e38 <= low < high <= 1e38:  # so that float32 holds their differences
            raise ConfigError(f"{name}.low: got {low} to {high}, expected bounds within +-1e38, low < high")
        most = max(-low, high)  # there float32 is coarsest, and the bins of a symlog are widest
        width = (_symlog(high) - _symlog(low)) * (1 + most) if getattr(self, "symlog", False) else high - low
        if width / self.bins < 4 * np.spacing(np.float32(most)):
            raise ConfigError(
                f"{name}.bins: got {self.bins} from {low} to {high}, finer than float32; use fewer bins"
            )


@static
class TwoHotHead(_CategoricalValueHead):
    """A categorical distribution over returns, trained by cross-entropy with a two-hot target.

    A target becomes probabilities of the two grid points next to it, whose mean it is (Bellemare et
    al. 2017, Schrittwieser et al. 2020), and the value is the mean of the distribution. So, unlike a
    regression of transformed returns, it predicts the mean of a random return, even where the grid
    is evenly spaced in symlog and spans many orders of magnitude (Hafner et al. 2023; they take 255
    bins in +-4.9e8). Targets beyond the grid are clipped to it.

    Args:
        low: the smallest return of the grid.
        high: the largest return of the grid.
        bins: number of grid points.
        symlog: whether they are evenly spaced in symlog(x) = sign(x) log(1 + |x|), or in x.
        objectives: None for a scalar value, or the number of values, for a vector.
        gain: factor of the initial kernel, on top of `critic_gain`: at 0 the initial distribution
            is uniform, and the value is the mean of the grid (0 for a symmetric one).

    Raises:
        ConfigError: unless low < high, both within +-1e38; for fewer than 2 bins or 1 objective, or a grid
            that is finer than float32.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import policy_core as pc
        >>> config = pc.ActorCriticConfig(
        ...     observation_space=pc.Box(shape=(4,)), action_space=pc.Discrete(2),
        ...     value_head=pc.TwoHotHead(low=-1e4, high=1e4, symlog=True),
        ... )
        >>> policy = pc.init(config, key=jax.random.key(0))
        >>> state, distribution, critic = pc.forward(policy, pc.reset(policy), jnp.ones(4))
        >>> critic.probs.shape, float(critic.value())
        ((255,), 0.0)
    """

    low: float
    high: float
    bins: int = 255
    symlog: bool = False
    objectives: int | None = None
    gain: float = 0.0

    def __post_init__(self) -> None:
        self._check_grid()

    def centers(self) -> np.ndarray:
        """The returns of the bins, `[bins]`, ascending; float64."""
        if not self.symlog:
            return _evenly(self.low, self.high, self.bins)
        grid = _evenly(_symlog(self.low), _symlog(self.high), self.bins)
        return np.asarray(np.copysign(np.expm1(np.abs(grid)), grid))

    def target_probs(self, target: Float[Array, "..."]) -> Float[Array, "... bins"]:
        """The two-hot target: probabilities of the two grid points next to it, whose mean it is."""
        centers = self.centers().astype(target.dtype)  # so that the gaps are those of the rounded bins
        x, grid = _aligned(target, centers)
        rises = (x - grid)[..., :-1] / _row_like(np.diff(centers), x)  # fraction of the way to the next bin
        ends = jnp.full_like(x[..., :1], jnp.inf)
        # min(up, down) is the hat function of each bin: 1 at the bin, 0 at its neighbors and negative beyond.
        up = jnp.concatenate([ends, rises], -1)
        down = jnp.concatenate([1 - rises, ends], -1)
        return jnp.maximum(0, jnp.minimum(up, down))


@static
class HLGaussHead(_CategoricalValueHead):
    """A categorical distribution over bins of return, trained by cross-entropy with a Gaussian target.

    A target becomes the histogram of a normal distribution centered at it (Imani & White 2018),
    whose standard deviation of 0.75 bins is that of Farebrother et al. 2024, "Stop Regressing". The
    value is the mean of the distribution. Within three standard deviations of `low` or `high` the
    histogram is truncated, which shifts its mean inwards; targets beyond are clipped to these
    bounds: choose wider bounds than the returns have.

    Args:
        low: the lower edge of the first bin.
        high: the upper edge of the last bin.
        bins: number of bins, of equal width.
        sigma: standard deviation of the target histogram, in widths of a bin.
        objectives: None for a scalar value, or the number of values, for a vector.
        gain: factor of the initial kernel, on top of `critic_gain`: at 0 the initial distribution
            is uniform, and the value is (low + high) / 2.

    Raises:
        ConfigError: unless low < high, both within +-1e38, and sigma > 0; for fewer than 2 bins or 1
            objective, or bins that are finer than float32.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import policy_core as pc
        >>> config = pc.ActorCriticConfig(
        ...     observation_space=pc.Box(shape=(4,)), action_space=pc.Discrete(2),
        ...     value_head=pc.HLGaussHead(low=-10.0, high=30.0),
        ... )
        >>> policy = pc.init(config, key=jax.random.key(0))
        >>> state, value = pc.value(policy, pc.reset(policy), jnp.ones(4))
        >>> round(float(value), 3)
        10.0
    """

    low: float
    high: float
    bins: int = 101
    sigma: float = 0.75
    objectives: int | None = None
    gain: float = 0.0

    def __post_init__(self) -> None:
        self._check_grid()
        if not 0 < self.sigma < math.inf:
            raise ConfigError(f"HLGaussHead.sigma: got {self.sigma}, expected a positive number")

    def centers(self) -> np.ndarray:
        """The centers of the bins, `[bins]`, ascending; float64."""
        edges = _evenly(self.low, self.high, self.bins + 1)
        return np.asarray((edges[:-1] + edges[1:]) / 2)

    def target_probs(self, target: Float[Array, "..."]) -> Float[Array, "... bins"]:
        """The histogram of a normal distribution centered at the target, truncated to the bins."""
        edges = _evenly(self.low, self.high, self.bins + 1)
        x, grid = _aligned(target, edges)
        width = (self.high - self.low) / self.bins
        below = jax.scipy.special.ndtr((grid - x) / (self.sigma * width))
        return jnp.diff(below) / (below[..., -1:] - below[..., :1])


class CategoricalValue(NamedTuple):
    """A prediction of `TwoHotHead` or `HLGaussHead`: a distribution over returns.

    Args:
        logits: unnormalized log-probabilities, `[..., bins]`.
        head: the head, which defines the bins.

    Example:
        >>> import jax.numpy as jnp
        >>> from policy_core import TwoHotHead
        >>> from policy_core.heads.value import CategoricalValue
        >>> head = TwoHotHead(low=0.0, high=10.0, bins=3)
        >>> head.target_probs(jnp.array(6.0)).tolist()
        [0.0, 0.800..., 0.200...]
        >>> float(CategoricalValue(jnp.zeros(3), head).loss(jnp.array(6.0)))
        1.098...
    """

    logits: Float[Array, "... bins"]
    head: TwoHotHead | HLGaussHead

    @property
    def probs(self) -> Float[Array, "... bins"]:
        """The probabilities of the bins."""
        return rows.softmax(rows.shift(self.logits, None))

    def value(self) -> Float[Array, "..."]:
        """The mean of the distribution, in units of reward."""
        centers, probs = self.head.centers(), self.probs
        origin = float(np.float32(np.clip(0, centers[0], centers[-1])))
        # Bins in mirrored pairs: with c the nearer one to the origin, p c + q d = (p - q) c + q (c + d).
        # So what is equally likely on both sides of a symmetric grid cancels exactly, however large it
        # is, and a bin alone gives itself. Bins that are equally near count half each way.
        c = centers - origin
        nearer = np.heaviside(np.abs(c[::-1]) - np.abs(c), 0.5)
        alone, paired = (1 - nearer) * (c + c[::-1]), nearer * c
        terms = probs * _row_like(alone, probs) + (probs - probs[..., ::-1]) * _row_like(paired, probs)
        return origin + jnp.sum(terms, -1)

    def loss(self, target: Float[Array, "..."]) -> Float[Array, "..."]:
        """The cross-entropy to `target_probs` (nats), at least their entropy; no gradient to `target`."""
        probs = self.head.target_probs(jax.lax.stop_gradient(jnp.asarray(target, self.logits.dtype)))
        return -jnp.sum(probs * rows.log_softmax(rows.shift(self.logits, None)), -1)


def symlog(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """sign(x) log(1 + |x|) (Hafner et al. 2023)."""
    # In two parts, each with half of the slope at 0, where sign(x) and |x| have none.
    return jnp.log1p(jnp.maximum(x, 0)) - jnp.log1p(jnp.maximum(-x, 0))


def symexp(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """The inverse of `symlog`."""
    return jnp.expm1(jnp.maximum(x, 0)) - jnp.expm1(jnp.maximum(-x, 0))


def _aligned(target: Float[Array, "..."], grid: np.ndarray) -> tuple[Any, Any]:
    """The target, clipped to the grid, and the grid, both broadcast to `[..., points]`."""
    x = jnp.clip(target, float(grid[0]), float(grid[-1]))
    shape = (*x.shape, len(grid))
    return jnp.broadcast_to(x[..., None], shape), jnp.broadcast_to(jnp.asarray(grid, x.dtype), shape)


def _row_like(row: np.ndarray, like: Array) -> Array:
    """A row in the dtype of `like`, broadcast to its leading axes."""
    return jnp.broadcast_to(jnp.asarray(row, like.dtype), (*like.shape[:-1], *row.shape))


def _symlog(x: float) -> float:
    return math.copysign(math.log1p(abs(x)), x)


def _evenly(low: float, high: float, count: int) -> np.ndarray:
    """An even grid, exactly symmetric if its ends are."""
    return np.asarray((np.linspace(low, high, count) + np.linspace(high, low, count)[::-1]) / 2)


_: tuple[type[ValueHead], ...] = (RegressionHead, TwoHotHead, HLGaussHead)
