"""Who sees what: one view that actor and critic share, or one each.

An owner is "shared", "actor" or "critic"; what it has is in the params, or in its part of them.
"""

from typing import Any, TypeVar, cast

from policy_core.contract import Space
from policy_core.encoders import Encoder, Parts
from policy_core.errors import ConfigError
from policy_core.spaces import Dict

T = TypeVar("T")
Keys = tuple[str, ...] | None


def views_of(space: Space[Any], actor_keys: Keys, critic_keys: Keys) -> dict[str, Space[Any]]:
    """Owner to what it observes; without keys there is one, "shared"."""
    if actor_keys is None and critic_keys is None:
        return {"shared": space}
    parts = dict(cast("Dict", space).spaces)
    keys = {"actor": actor_keys, "critic": critic_keys}
    return {
        owner: Dict({name: parts[name] for name in (parts if names is None else names)})
        for owner, names in keys.items()
    }


def check_keys(keys: tuple[str, ...], space: Space[Any], name: str) -> None:
    """Raise `ConfigError` unless the keys are parts of a `Dict`, at least one, each once."""
    known = [part for part, _ in space.spaces] if isinstance(space, Dict) else []
    if not keys or not set(keys) <= set(known) or len(set(keys)) != len(keys):
        raise ConfigError(
            f"{name}: got {keys}, expected names of a Dict observation, each once; there are {known}"
        )


def narrowed(encoder: Encoder, view: Space[Any], whole: Space[Any]) -> Encoder:
    """The encoder of a view, without the parts that only others see."""
    if not isinstance(encoder, Parts) or not isinstance(view, Dict):
        return encoder
    seen, everything = view.struct(), whole.struct()
    kept = tuple(item for item in encoder.encoders if item[0] in seen or item[0] not in everything)
    return Parts(kept, rest=encoder.rest)


def part_of(params: dict[str, Any], owner: str) -> dict[str, Any]:
    """The part of the params that an owner has."""
    return params if owner == "shared" else cast("dict[str, Any]", params[owner])


def reader(owner: str) -> str:
    """A tower that sees what an owner gives."""
    return "actor" if owner == "shared" else owner


def seen_by(owner: str, output: T) -> dict[str, T]:
    """What an owner gives, for each tower that sees it."""
    return {"actor": output, "critic": output} if owner == "shared" else {owner: output}
