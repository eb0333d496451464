"""The head for `Dict` and `Tuple` actions, and the choice of a head for a space."""

from typing import Any

import jax
from jaxtyping import Array, Float

from policy_core._static import static
from policy_core.contract import Key, Mask, Space
from policy_core.distributions import Joint
from policy_core.errors import ConfigError
from policy_core.heads.discrete import BinsHead, LogitsHead
from policy_core.heads.protocol import Head
from policy_core.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Tuple
from policy_core.spaces.composite import parts_of

_MOST_NUMBERS = 2**20  # a file of a few bytes must not ask for bounds of gigabytes


def head_of(space: Space[Any], box_head: Head) -> Head:
    """The head for an action space; `box_head` is the choice for boxes of floats.

    Raises:
        ConfigError: if there is none, or it cannot serve the space.
    """
    if isinstance(space, Box) and space.flat_size > _MOST_NUMBERS:
        raise ConfigError(
            f"action_space: a Box of {space.flat_size} numbers, at most {_MOST_NUMBERS} are served"
        )
    head: Head
    match space:
        case Discrete() | MultiDiscrete() | MultiBinary():
            head = LogitsHead()
        case Box():
            head = box_head if space.is_float else BinsHead()
        case Dict() | Tuple():
            head = JointHead(box_head=box_head)
        case _:
            raise ConfigError(
                f"action_space: got {type(space).__name__}, expected a space of policy_core; wrap "
                "what you have in a config of your own"
            )
    head.check_space(space)
    return head


@static
class JointHead:
    """Independent parts for `Dict` and `Tuple` spaces, nested to any depth.

    Args:
        box_head: how the boxes of floats among the parts are distributed.
    """

    box_head: Head

    def check_space(self, space: Any) -> None:
        """At least one part, each with a head."""
        if not parts_of(space):
            raise ConfigError(f"action_space: got an empty {type(space).__name__}, expected parts")
        for part in parts_of(space).values():
            head_of(part, self.box_head)

    def init(self, space: Dict | Tuple, in_size: int, *, key: Key, dtype: str, gain: float) -> Any:
        """The params of each part, by its name or its place."""
        parts = parts_of(space)
        return {
            str(name): head_of(part, self.box_head).init(part, in_size, key=k, dtype=dtype, gain=gain)
            for k, (name, part) in zip(jax.random.split(key, len(parts)), parts.items(), strict=True)
        }

    def distribution(
        self,
        space: Dict | Tuple,
        params: Any,
        features: Float[Array, " features"],
        mask: Mask,
        temperature: Float[Array, ""] | None,
    ) -> Joint:
        """A `Joint` of the distributions of the parts."""
        return Joint(
            like(
                space,
                {
                    name: head_of(part, self.box_head).distribution(
                        part,
                        params[str(name)],
                        features,
                        None if mask is None else mask[name],
                        temperature,
                    )
                    for name, part in parts_of(space).items()
                },
            )
        )

    def env_action(self, space: Dict | Tuple, action: Any) -> Any:
        """The environment action of each part."""
        parts = parts_of(space).items()
        return like(space, {n: head_of(p, self.box_head).env_action(p, action[n]) for n, p in parts})

    def policy_action(self, space: Dict | Tuple, env_action: Any) -> Any:
        """A policy action of each part."""
        parts = parts_of(space).items()
        return like(space, {n: head_of(p, self.box_head).policy_action(p, env_action[n]) for n, p in parts})


def like(space: Dict | Tuple, values: dict[Any, Any]) -> Any:
    """The container of an element of the space: a dict or a tuple."""
    return values if isinstance(space, Dict) else tuple(values.values())
