"""The head for `Dict` and `Tuple` actions, and the choice of a head for a space."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax

from policy_core.contract import Features, Head, Key, Mask, Space, Temperature
from policy_core.distributions import Joint
from policy_core.errors import ConfigError
from policy_core.heads.discrete import BinsHead, LogitsHead
from policy_core.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Tuple
from policy_core.spaces.composite import Name, like, parts_of

_MOST_NUMBERS = 2**20  # a file of a few bytes must not ask for bounds of gigabytes


def head_of(space: Space, box_head: Head) -> Head:
    """The head for an action space; `box_head` is the choice for boxes of floats.

    It is to be checked with `check_space`, once, before it is used.

    Raises:
        ConfigError: if there is none.
    """
    match space:
        case Discrete() | MultiDiscrete() | MultiBinary():
            return LogitsHead()
        case Box(flat_size=size) if size > _MOST_NUMBERS:
            raise ConfigError(f"action_space: a Box of {size} numbers, at most {_MOST_NUMBERS} are served")
        case Box():
            return box_head if space.is_float else BinsHead()
        case Dict() | Tuple():
            return JointHead({name: head_of(part, box_head) for name, part in parts_of(space).items()})
    raise ConfigError(
        f"action_space: got {type(space).__name__}, expected a space of policy_core; wrap "
        "what you have in a config of your own"
    )


@dataclass(frozen=True)
class JointHead:
    """Independent parts for `Dict` and `Tuple` spaces, nested to any depth.

    Args:
        heads: name, or place, of each part to its head.
    """

    heads: Mapping[Name, Head]

    def check_space(self, space: Any) -> None:
        """At least one part, each served by its head."""
        if not self.heads:
            raise ConfigError(f"action_space: got an empty {type(space).__name__}, expected parts")
        for name, part in parts_of(space).items():
            self.heads[name].check_space(part)

    def policy_space(self, space: Any) -> Space:
        """The policy spaces of the parts, in the same container."""
        spaces = {name: self.heads[name].policy_space(part) for name, part in parts_of(space).items()}
        return (Dict if isinstance(space, Dict) else Tuple)(like(space, spaces))

    def init(self, space: Any, in_size: int, *, key: Key, dtype: str, gain: float) -> dict[str, Any]:
        """The params of each part, by its name or its place."""
        parts = parts_of(space)
        return {
            str(name): self.heads[name].init(part, in_size, key=key, dtype=dtype, gain=gain)
            for key, (name, part) in zip(jax.random.split(key, len(parts)), parts.items(), strict=True)
        }

    def distribution(
        self, space: Any, params: Any, features: Features, mask: Mask, temperature: Temperature
    ) -> Joint:
        """A `Joint` of the distributions of the parts."""

        def part(name: Name, space: Any) -> Any:
            own_mask = None if mask is None else mask[name]
            return self.heads[name].distribution(space, params[str(name)], features, own_mask, temperature)

        return Joint(like(space, {name: part(name, inner) for name, inner in parts_of(space).items()}))

    def env_action(self, space: Any, action: Any) -> Any:
        """The environment action of each part."""
        parts = parts_of(space).items()
        return like(space, {name: self.heads[name].env_action(part, action[name]) for name, part in parts})

    def policy_action(self, space: Any, env_action: Any) -> Any:
        """A policy action of each part."""
        parts = parts_of(space).items()
        return like(
            space, {name: self.heads[name].policy_action(part, env_action[name]) for name, part in parts}
        )


_: type[Head] = JointHead
