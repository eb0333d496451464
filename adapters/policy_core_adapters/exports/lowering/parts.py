"""One part of an action while it is lowered."""

from collections.abc import Callable
from typing import Any, NamedTuple

from policy_core_adapters.exports.graph import Value
from policy_core_adapters.exports.lowering.context import Context
from policy_core_adapters.numpy_runner.heads import Heads


class Chosen(NamedTuple):
    """An action, or a part of one."""

    policy: Any
    """The policy action: a value, or a dict of them."""
    env: Any
    """The environment action, likewise, in the dtype of the space."""
    log_prob: Callable[[], Value]
    """Adds the log-probability of the policy action to the graph, a scalar (nats)."""
    distribution: Any
    """The parameters by name, such as `logits`, likewise."""


class Head(NamedTuple):
    """What the action of a part is made of."""

    context: Context
    space: Any
    heads: Heads
    """Of the action, or of this part."""
    params: Any
    features: Value
    temperature: float | None
    path: str
    """Of the part in the action: "", or "tool/0"."""
    mask: Value | None = None
    """Instead of an input, what a mask function gives."""

    @property
    def config(self) -> Any:
        """The head of a space without parts."""
        return self.heads.of(self.space)

    @property
    def fields(self) -> dict[str, Any]:
        """Those of its head."""
        fields: dict[str, Any] = self.config["fields"]
        return fields
