"""What a head offers."""

from typing import Any, Protocol, runtime_checkable

from jaxtyping import Array, Float

from policy_core.contract import Distribution, Key, Mask


@runtime_checkable
class Head(Protocol):
    """From features to a distribution over one kind of action space.

    A head is a static config; write your own with `@policy_core.static`. Whatever dtype the
    features have, distribution parameters are float32 before a mask, a sample or a
    log-probability sees them.
    """

    def check_space(self, space: Any) -> None:
        """Raise `ConfigError` if the head cannot serve this space."""
        ...

    def init(self, space: Any, in_size: int, *, key: Key, dtype: str, gain: float) -> Any:
        """Fresh params for features of `in_size` numbers. `key` is consumed."""
        ...

    def distribution(
        self,
        space: Any,
        params: Any,
        features: Float[Array, " features"],
        mask: Mask,
        temperature: Float[Array, ""] | None,
    ) -> Distribution[Any]:
        """The distribution over policy actions.

        With a temperature T it is the one whose density is the T-th root of what it would
        be, renormalised: T above 1 is flatter, T near 0 is the mode.
        """
        ...

    def env_action(self, space: Any, action: Any) -> Any:
        """The environment action of a policy action."""
        ...

    def policy_action(self, space: Any, env_action: Any) -> Any:
        """A policy action that gives `env_action`, clamped to what can be represented."""
        ...
