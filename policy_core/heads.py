"""Heads: from features to a distribution over the action space.

The one place that maps spaces to distributions. A head is a static config; its params are
one linear layer (and a global scale for some). Whatever dtype the features have,
distribution parameters are float32 before a mask, a sample or a log-probability sees them.
"""

from typing import Any, Literal, Protocol, runtime_checkable

import jax.numpy as jnp
from jaxtyping import Array, Float, Num

from policy_core._dtypes import widen
from policy_core._static import static
from policy_core.contract import Distribution, Key, Mask, Space
from policy_core.distributions import Bernoulli, Categorical, MultiCategorical, Normal
from policy_core.errors import ConfigError
from policy_core.networks import init_linear, linear
from policy_core.spaces import Box, Discrete, MultiBinary, MultiDiscrete


@runtime_checkable
class Head(Protocol):
    """What a head offers, for one kind of action space."""

    def check_space(self, space: Any) -> None:
        """Raise `ConfigError` if the head cannot serve this space."""
        ...

    def init(self, space: Any, in_size: int, *, key: Key, dtype: str, gain: float) -> Any:
        """Fresh params for features of `in_size` numbers. `key` is consumed."""
        ...

    def distribution(
        self, space: Any, params: Any, features: Float[Array, " features"], mask: Mask
    ) -> Distribution[Any]:
        """The distribution over policy actions."""
        ...

    def env_action(self, space: Any, action: Any) -> Any:
        """The environment action of a policy action."""
        ...

    def policy_action(self, space: Any, env_action: Any) -> Any:
        """A policy action that gives `env_action`, clamped to what can be represented."""
        ...


def head_of(space: Space[Any], box_head: Head) -> Head:
    """The head for an action space; `box_head` is the choice for boxes.

    Raises:
        ConfigError: if there is none, or it cannot serve the space.
    """
    head: Head
    match space:
        case Discrete() | MultiDiscrete() | MultiBinary():
            head = LogitsHead()
        case Box():
            head = box_head
        case _:
            raise ConfigError(
                f"action_space: got {type(space).__name__}, expected Box, Discrete, MultiDiscrete "
                "or MultiBinary"
            )
    head.check_space(space)
    return head


@static
class LogitsHead:
    """Logits for `Discrete`, `MultiDiscrete` and `MultiBinary`; both kinds of action are one."""

    def check_space(self, space: Any) -> None:
        """Any of the three."""

    def init(
        self,
        space: Discrete | MultiDiscrete | MultiBinary,
        in_size: int,
        *,
        key: Key,
        dtype: str,
        gain: float,
    ) -> Any:
        """One linear layer to a logit for each number of the flat form."""
        return init_linear(in_size, space.flat_size, key=key, dtype=dtype, gain=gain)

    def distribution(
        self,
        space: Discrete | MultiDiscrete | MultiBinary,
        params: Any,
        features: Float[Array, " features"],
        mask: Mask,
    ) -> Categorical | MultiCategorical | Bernoulli:
        """`Categorical`, `MultiCategorical` or `Bernoulli`."""
        logits = widen(linear(params, features))
        match space:
            case Discrete():
                return Categorical(logits, mask, space)
            case MultiDiscrete():
                return MultiCategorical(logits, mask, space)
            case MultiBinary():
                return Bernoulli(logits.reshape(space.struct().shape), mask, space)

    def env_action(self, space: Any, action: Any) -> Any:
        """The action as it is."""
        del space
        return action

    def policy_action(self, space: Any, env_action: Any) -> Any:
        """The action as it is."""
        del space
        return env_action


@static
class NormalHead:
    """A diagonal normal over a float `Box`; what lies outside of the bounds is clipped.

    The policy action is the draw before clipping, and so is what `log_prob` and `entropy`
    are of; the environment action is clipped to the bounds. Without bounds they are one.

    Args:
        std: "global": one learned standard deviation an entry, whatever the observation;
            "state": a function of the observation; "fixed": never learned.
        log_std: the logarithm of the standard deviation, at the start or fixed; 0 by
            default. One number for all entries.

    Example:
        >>> from policy_core import NormalHead
        >>> NormalHead(std="state", log_std=-1.0)
        NormalHead(std='state', log_std=-1.0)
    """

    std: Literal["global", "state", "fixed"] = "global"
    log_std: float = 0.0

    def check_space(self, space: Box) -> None:
        """A float box."""
        if not space.is_float:
            raise ConfigError(f"action_space: got a Box of {space.dtype}, expected one of floats")

    def init(self, space: Box, in_size: int, *, key: Key, dtype: str, gain: float) -> Any:
        """A linear layer to the mean (and the log-std, by `std`), or one and a `log_std`."""
        size = space.flat_size * (2 if self.std == "state" else 1)
        params: dict[str, Any] = init_linear(in_size, size, key=key, dtype=dtype, gain=gain)
        if self.std == "global":
            params["log_std"] = jnp.full(space.shape, self.log_std, dtype)
        return params

    def distribution(
        self, space: Box, params: Any, features: Float[Array, " features"], mask: Mask
    ) -> Normal:
        """The normal before clipping."""
        del mask  # `check_mask` of the space has refused one
        outputs = widen(linear(params, features))
        loc = outputs[: space.flat_size].reshape(space.shape)
        match self.std:
            case "global":
                log_std = widen(params["log_std"])
            case "state":
                log_std = self.log_std + outputs[space.flat_size :].reshape(space.shape)
            case "fixed":
                log_std = jnp.full(space.shape, self.log_std, loc.dtype)
        return Normal(loc, log_std, space)

    def env_action(self, space: Box, action: Float[Array, "..."]) -> Num[Array, "..."]:
        """The action, clipped to the bounds, in the dtype of the space."""
        low, high = space.bounds()
        return jnp.clip(jnp.asarray(action).astype(low.dtype), low, high)

    def policy_action(self, space: Box, env_action: Num[Array, "..."]) -> Float[Array, "..."]:
        """The action in float32, clipped to the bounds: the nearest that gives it."""
        return widen(self.env_action(space, jnp.asarray(env_action)))
