"""What an encoder offers."""

from typing import Any, Protocol, runtime_checkable

from jaxtyping import Array, Float, PyTree

from policy_core.contract import Key, Space


@runtime_checkable
class Encoder(Protocol):
    """What an encoder config offers; write your own with `@policy_core.static`."""

    def check_space(self, space: Space[Any], name: str = "observation_space") -> None:
        """Raise `ConfigError`, with `name` in it, for a space that cannot be encoded."""
        ...

    def init(self, space: Space[Any], *, key: Key, dtype: str) -> Any:
        """Fresh params, in `dtype`; `{}` for an encoder without. `key` is consumed."""
        ...

    def out_size(self, space: Space[Any]) -> int:
        """How many features `apply` gives."""
        ...

    def apply(
        self, params: Any, space: Space[Any], observation: PyTree, dtype: str
    ) -> Float[Array, " features"]:
        """The features of one observation, computed in `dtype`."""
        ...
