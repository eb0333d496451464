"""The head of generalized state-dependent exploration: noise that is a function of the features."""

import math
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Num

from policy_core._dtypes import wide_float, widen
from policy_core.configs import static
from policy_core.configs.validation import check_at_least
from policy_core.contract import Distribution, Features, Key, Mask, Temperature
from policy_core.distributions import KeptNoise, Normal, SquashedNormal
from policy_core.errors import ConfigError
from policy_core.heads.continuous import NormalHead, SquashedNormalHead
from policy_core.networks.layers import init_linear, linear
from policy_core.spaces import Box
from policy_core.trees import varying_as


@static
class GSDEHead:
    """A normal distribution whose noise is a linear function of the features, kept for many steps.

    With x the features of the actor, the action is mean(x) + x E, where the matrix E has independent normal
    entries with standard deviations S. So the action is normal given x, with the variance
    x^2 S^2 + `epsilon`, and log-probability and entropy are those of that normal. E is kept: within an
    episode the action is a smooth function of what is observed, and the robot does not shake.

    E is drawn from the key of the first step of an episode that has one, in `act` or `action_and_value`, and
    is part of the state of the policy as `state["exploration"]`; `reset(policy, key=key)` draws it at once.
    Without a key the action is the mean. `evaluate_action` and `evaluate_sequence` need no E: the ratio of
    an unchanged policy is 1, whatever E was.

    Args:
        log_std: the initial logarithm of the entries of S.
        positive: from the learned parameter to S: "exp", or "expln", which is exp below 0 and 1 + log(1 + x)
            above, so that it grows slowly.
        full_std: whether S has a column for each entry of the action, or one for all.
        squash: whether the sum is mapped by tanh into the bounds, as by `SquashedNormalHead`, or clipped to
            them, as by `NormalHead`.
        learn_features: whether the gradient of the variance flows to the features.
        resample_every: number of draws until E is drawn anew; None for once an episode.
        epsilon: added to the variance, and to x in "expln".

    Raises:
        ConfigError: for a `resample_every` below 1, or numbers that are not finite; with `squash`, for a box
            without bounds.

    References:
        Raffin, Kober & Stulp 2022, equations 6 to 8; defaults and formulas as in Stable-Baselines3, whose E
        is drawn once a rollout. Here E is S times a matrix that is kept, so that it follows S when S is
        trained, and the density of a squashed action is that in the bounds, without an epsilon in it.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import policy_core as pc
        >>> config = pc.ActorCriticConfig(
        ...     observation_space=pc.Box(shape=(3,)),
        ...     action_space=pc.Box(low=-2.0, high=2.0, shape=(1,)),
        ...     box_head=pc.heads.GSDEHead(),
        ... )
        >>> policy = pc.init(config, key=jax.random.key(0))
        >>> state, first = pc.act(policy, pc.reset(policy), jnp.ones(3), key=jax.random.key(1))
        >>> state, second = pc.act(policy, state, jnp.ones(3), key=jax.random.key(2))
        >>> bool(first == second), state["exploration"]["matrix"].shape
        (True, (64, 1))
    """

    log_std: float = -2.0
    positive: Literal["exp", "expln"] = "exp"
    full_std: bool = True
    squash: bool = False
    learn_features: bool = False
    resample_every: int | None = None
    epsilon: float = 1e-6

    def __post_init__(self) -> None:
        check_at_least(self, 1, "resample_every", otherwise=", or None for once an episode")
        if not math.isfinite(self.log_std) or not 0 < self.epsilon < math.inf:
            raise ConfigError(
                f"GSDEHead.log_std, GSDEHead.epsilon: got {self.log_std}, {self.epsilon}, expected finite "
                "numbers, epsilon above 0"
            )

    @property
    def _plain(self) -> NormalHead | SquashedNormalHead:
        """The head with the same spaces and environment actions."""
        return SquashedNormalHead() if self.squash else NormalHead()

    def check_space(self, space: Any) -> None:
        """Raise `ConfigError` unless `space` is a box of floats; to be squashed, with bounds."""
        self._plain.check_space(space)

    def policy_space(self, space: Box) -> Box:
        """An unbounded box: the samples before they are clipped or squashed."""
        return self._plain.policy_space(space)

    def init(self, space: Box, in_size: int, *, key: Key, dtype: str, gain: float) -> Any:
        """Fresh params: a linear layer, and `log_std` `[features, entries or 1]`; `key` is consumed."""
        layer = init_linear(in_size, space.flat_size, key=key, dtype=dtype, gain=gain)
        columns = space.flat_size if self.full_std else 1
        return {**layer, "log_std": jnp.full((in_size, columns), self.log_std, dtype)}

    def distribution(
        self, space: Box, params: Any, features: Features, mask: Mask, temperature: Temperature
    ) -> Normal | SquashedNormal:
        """The distribution over all draws of E; a temperature applies to the normal before a squash."""
        loc = widen(linear(params, features)).reshape(space.shape)
        variance = jnp.matmul(jnp.square(self._inputs(features)), jnp.square(self._std(params)))
        log_std = 0.5 * jnp.log(variance + self.epsilon)
        if temperature is not None:
            log_std = log_std + 0.5 * jnp.log(temperature)
        log_std = jnp.broadcast_to(log_std, space.flat_size).reshape(space.shape)
        return SquashedNormal(loc, log_std, space) if self.squash else Normal(loc, log_std, space)

    def initial_noise(self, space: Box, params: Any) -> dict[str, Array]:
        """No E yet: a `matrix` of zeros, for E / S, and an `age` of -1."""
        shape = (params["log_std"].shape[0], space.flat_size)
        return {
            "matrix": jnp.zeros(shape, wide_float(params["log_std"].dtype)),
            "age": jnp.full((), -1, jnp.int32),
        }

    def draw_noise(self, space: Box, noise: dict[str, Array], *, key: Key) -> dict[str, Array]:
        """E for one more draw: a new one if there is none, or it is too old. `key` is consumed."""
        every, (matrix, age) = self.resample_every, (noise["matrix"], noise["age"])
        due = age < 0 if every is None else (age < 0) | (age >= every)

        def turn(at: tuple[Array, Array]) -> tuple[Array, Array]:
            left, old = at
            return left - 1, jax.random.normal(jax.random.fold_in(key, left), old.shape, old.dtype)

        # A loop of one turn or none: under `vmap` a `cond` would draw for every environment in every step,
        # and this does so only in a step in which one of them is due. XLA moves what does not depend on
        # the turn, such as a draw from `key` itself, out of the loop.
        start = varying_as((due.astype(jnp.int32), jax.lax.stop_gradient(matrix)), noise, key)
        matrix = jax.lax.while_loop(lambda at: at[0] > 0, turn, start)[1]
        age = jnp.where(due, 0, age) + (0 if every is None else 1)
        return {"matrix": matrix, "age": age}

    def with_noise(
        self,
        space: Box,
        params: Any,
        features: Features,
        temperature: Temperature,
        distribution: Distribution,
        noise: dict[str, Array],
    ) -> KeptNoise:
        """The distribution, with x E as its noise."""
        std = self._std(params)
        change = jnp.matmul(self._inputs(features), std * noise["matrix"].astype(std.dtype))
        if temperature is not None:
            change = change * jnp.sqrt(temperature)
        assert isinstance(distribution, Normal | SquashedNormal)
        return KeptNoise(distribution, change.reshape(space.shape), noise["age"] >= 0)

    def env_action(self, space: Box, action: Float[Array, "..."]) -> Num[Array, "..."]:
        """That of `NormalHead`, or of `SquashedNormalHead`."""
        return self._plain.env_action(space, action)

    def policy_action(self, space: Box, env_action: Num[Array, "..."]) -> Float[Array, "..."]:
        """Likewise."""
        return self._plain.policy_action(space, env_action)

    def _inputs(self, features: Features) -> Features:
        x = widen(features)
        return x if self.learn_features else jax.lax.stop_gradient(x)

    def _std(self, params: Any) -> Float[Array, "features columns"]:
        raw = widen(params["log_std"])
        if self.positive == "exp":
            return jnp.exp(raw)
        return jnp.where(
            raw > 0, 1 + jnp.log1p(jnp.maximum(raw, 0) + self.epsilon), jnp.exp(jnp.minimum(raw, 0))
        )
