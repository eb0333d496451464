"""The head for `Dict` and `Tuple` actions with independent parts, and the head for each space."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import jax

from policy_core.configs import set_field, static
from policy_core.configs.validation import pairs_of, sort_pairs
from policy_core.contract import ExploringHead, Features, Head, Key, Mask, Space, Temperature
from policy_core.distributions import Joint
from policy_core.errors import ConfigError
from policy_core.heads.discrete import BinsHead
from policy_core.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Tuple
from policy_core.spaces.composite import Name, like, parts_of

_MOST_ENTRIES = 2**20  # bounds the memory that a small file can allocate: bounds have the shape of the box


@static
class PartHeads:
    """Heads of some parts of a `Dict` action (by key) or a `Tuple` (by index).

    Parts that are not named have the heads of the policy, `box_head` and `discrete_head`. The order of the
    mapping does not matter.

    Args:
        heads: name to the head of that part; a part that is a `Dict` or `Tuple` has another `PartHeads`.

    Raises:
        ConfigError: for a repeated name; in a policy, for one that is no part, or a head that does not
            support the space of its part.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import policy_core as pc
        >>> arm = pc.Box(low=-1.0, high=1.0, shape=(2,))
        >>> config = pc.ActorCriticConfig(
        ...     observation_space=pc.Box(shape=(3,)),
        ...     action_space=pc.Dict({"arm": arm, "base": pc.Box(shape=(2,))}),
        ...     heads=pc.heads.PartHeads({"arm": pc.BetaHead()}),
        ... )
        >>> policy = pc.init(config, key=jax.random.key(0))
        >>> _, distribution = pc.action_distribution(policy, (), jnp.ones(3))
        >>> {name: type(part).__name__ for name, part in distribution.parts.items()}
        {'arm': 'Beta', 'base': 'Normal'}
    """

    heads: "tuple[tuple[Name, Head | PartHeads], ...]" = field(kw_only=False)

    def __init__(
        self,
        heads: Mapping[str, "Head | PartHeads"]
        | Mapping[int, "Head | PartHeads"]
        | tuple[tuple[Name, "Head | PartHeads"], ...],
    ) -> None:
        set_field(self, "heads", pairs_of(heads))
        self.__post_init__()

    def __post_init__(self) -> None:
        sort_pairs(self, "heads")


def head_of(space: Space, box_head: Head, discrete_head: Head, heads: PartHeads | None = None) -> Head:
    """The head for an action space.

    Call `check_space` of the head once before it is used.

    Args:
        space: the space.
        box_head: the head of boxes of floats.
        discrete_head: the head of discrete spaces.
        heads: the heads of some parts.

    Raises:
        ConfigError: if there is none, or a name of `heads` is no part.
    """
    named = {} if heads is None else dict(heads.heads)
    parts = parts_of(space) if isinstance(space, Dict | Tuple) else {}
    if unknown := [name for name in named if name not in parts]:
        raise ConfigError(
            f"ActorCriticConfig.heads: got {unknown[0]!r}, but the parts of the action are {list(parts)}"
        )
    match space:
        case Discrete() | MultiDiscrete() | MultiBinary():
            return discrete_head
        case Box(flat_size=size) if size > _MOST_ENTRIES:
            raise ConfigError(f"action_space: got a Box of {size} entries, expected at most {_MOST_ENTRIES}")
        case Box():
            return box_head if space.is_float else BinsHead()
        case Dict() | Tuple():
            joint: dict[Name, Head] = {}
            for name, part in parts.items():
                own = named.get(name)
                if own is None or isinstance(own, PartHeads):
                    joint[name] = head_of(part, box_head, discrete_head, own)
                else:
                    joint[name] = own
            return JointHead(joint)
    raise ConfigError(
        f"action_space: got {type(space).__name__}, expected a space of policy_core; for another "
        "space write a config of your own"
    )


def explores(head: Head) -> bool:
    """Whether a head, or that of a part, is an `ExploringHead`."""
    if isinstance(head, JointHead):
        return any(explores(part) for part in head.heads.values())
    return isinstance(head, ExploringHead)


@dataclass(frozen=True)
class JointHead:
    """Independent heads for the parts of a `Dict` or `Tuple`, nested to any depth.

    Args:
        heads: the head of each part, by key or index.
    """

    heads: Mapping[Name, Head]

    def check_space(self, space: Any) -> None:
        """Raise `ConfigError` unless there is a part, and each head supports the space of its part."""
        if not self.heads:
            raise ConfigError(f"action_space: got an empty {type(space).__name__}, expected parts")
        for name, part in parts_of(space).items():
            self.heads[name].check_space(part)

    def policy_space(self, space: Any) -> Space:
        """The policy spaces of the parts, as a `Dict` or `Tuple`."""
        spaces = {name: self.heads[name].policy_space(part) for name, part in parts_of(space).items()}
        return (Dict if isinstance(space, Dict) else Tuple)(like(space, spaces))

    def init(self, space: Any, in_size: int, *, key: Key, dtype: str, gain: float) -> dict[str, Any]:
        """Fresh params of each part, by key or index; `key` is consumed."""
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
            part_mask = None if mask is None else mask[name]
            return self.heads[name].distribution(space, params[str(name)], features, part_mask, temperature)

        return Joint(like(space, {name: part(name, inner) for name, inner in parts_of(space).items()}))

    def initial_noise(self, space: Any, params: Any) -> dict[str, Any]:
        """That of each part with an `ExploringHead`, by key or index."""
        return {
            str(name): head.initial_noise(part, params[str(name)])
            for name, part, head in self._exploring(space)
        }

    def draw_noise(self, space: Any, noise: dict[str, Any], *, key: Key) -> dict[str, Any]:
        """That of each part with an `ExploringHead`; `key` is consumed."""
        parts = self._exploring(space)
        return {
            str(name): head.draw_noise(part, noise[str(name)], key=key)
            for key, (name, part, head) in zip(jax.random.split(key, len(parts)), parts, strict=True)
        }

    def with_noise(
        self,
        space: Any,
        params: Any,
        features: Features,
        temperature: Temperature,
        distribution: Joint,
        noise: dict[str, Any],
    ) -> Joint:
        """The distribution of all parts, where those of an `ExploringHead` have their noise."""
        parts = {name: distribution.parts[name] for name in parts_of(space)}
        for name, part, head in self._exploring(space):
            at = str(name)
            parts[name] = head.with_noise(part, params[at], features, temperature, parts[name], noise[at])
        return Joint(like(space, parts))

    def _exploring(self, space: Any) -> list[tuple[Name, Space, Any]]:
        parts = parts_of(space).items()
        return [(name, part, self.heads[name]) for name, part in parts if explores(self.heads[name])]

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
