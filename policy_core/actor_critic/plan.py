"""The plan of a policy: which branches an observation takes to the towers, and the head.

A *branch* is "shared", "actor" or "critic": what it gives feeds both towers or one, and its
params are `params` themselves or those of its tower. An observation is encoded by one branch that
is shared or by two; the features then pass a memory on each branch that has one:

    observation --encoder[branch]--> features --memory[branch]--> features --tower--> head
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, TypeVar, cast

from policy_core.contract import Encoder, Head, Memory, Network, Space
from policy_core.encoders import Parts
from policy_core.errors import ConfigError
from policy_core.heads.autoregressive import Autoregressive, autoregressive_head
from policy_core.heads.composite import head_of
from policy_core.spaces import Dict

BranchName: TypeAlias = Literal["shared", "actor", "critic"]
Keys: TypeAlias = tuple[str, ...] | None
_T = TypeVar("_T")


@dataclass(frozen=True)
class Branch:
    """A way to one tower or both.

    Args:
        name: "shared", "actor" or "critic".
        out_size: output dimension.
    """

    name: BranchName
    out_size: int

    @property
    def tower(self) -> str:
        """A tower that it feeds."""
        return "actor" if self.name == "shared" else self.name

    def to_towers(self, output: _T) -> dict[str, _T]:
        """An output of this branch, for each tower that it feeds."""
        return dict.fromkeys(("actor", "critic") if self.name == "shared" else (self.name,), output)

    def params(self, params: dict[str, Any]) -> dict[str, Any]:
        """The dict of params that its own are in: all of them, or those of its tower."""
        return params if self.name == "shared" else cast("dict[str, Any]", params[self.name])


@dataclass(frozen=True)
class EncoderBranch(Branch):
    """A branch from an observation to features, through the trunk if there is one.

    Args:
        space: of what it observes: the observation space, or some parts of a `Dict`.
        encoder: its encoder.
        encoded: output dimension of the encoder, which is the input of the trunk.
    """

    space: Space
    encoder: Encoder
    encoded: int

    def view(self, observation: Any) -> Any:
        """What it observes of an observation."""
        if self.name == "shared":
            return observation
        return {name: observation[name] for name in self.space.struct()}


@dataclass(frozen=True)
class MemoryBranch(Branch):
    """A branch that has a memory.

    Args:
        memory: the memory.
        in_size: number of features that go into it.
    """

    memory: Memory
    in_size: int


@dataclass(frozen=True)
class Plan:
    """The structure of a policy, derived from its config once.

    Args:
        encoders: one branch that is shared, or one for each tower.
        memories: the branches that have a memory, none without one.
        in_sizes: tower to the number of features that go into it.
        head: the head for the action space, which it serves.
        policy_space: the space of the policy actions.
    """

    encoders: tuple[EncoderBranch, ...]
    memories: tuple[MemoryBranch, ...]
    in_sizes: Mapping[str, int]
    head: Head
    policy_space: Space


def plan_branches(
    space: Space,
    keys: Mapping[BranchName, Keys],
    encoder: Encoder,
    trunk: Network | None,
    memory: Memory | None,
    sharing: Literal["shared", "separate", "actor"],
) -> tuple[tuple[EncoderBranch, ...], tuple[MemoryBranch, ...], dict[str, int]]:
    """The branches of a policy, and the number of features for each tower.

    Args:
        space: the observation space.
        keys: tower to the parts of a `Dict` that it sees; None for all, None everywhere to share.
        encoder: of the whole observation.
        trunk: the network behind it, or None.
        memory: the memory of each branch that has one, or None.
        sharing: which branches have one.

    Raises:
        ConfigError: for a space that the encoder does not take, or widths that do not fit.
    """
    sizes: dict[str, int] = {}
    encoders = []
    for name, view in _views(space, keys).items():
        own = _narrow(encoder, view, space)
        own.check_space(view)
        encoded = own.out_size(view)
        size = encoded if trunk is None else trunk.out_size(encoded)
        encoders.append(EncoderBranch(name, size, view, own, encoded))
        sizes.update(encoders[-1].to_towers(size))
    memories = []
    if memory is not None:
        names: tuple[BranchName, ...] = ("actor", "critic") if sharing == "separate" else (sharing,)
        for name in names:
            in_size = sizes["actor" if name == "shared" else name]
            memories.append(MemoryBranch(name, memory.out_size(in_size), memory, in_size))
        for branch in memories:
            sizes.update(branch.to_towers(branch.out_size))
    return tuple(encoders), tuple(memories), sizes


def action_head(space: Space, box_head: Head, autoregressive: Autoregressive | None) -> Head:
    """The head for an action space, checked.

    Raises:
        ConfigError: if there is none, or it does not serve the space.
    """
    head = head_of(space, box_head)
    head.check_space(space)
    return head if autoregressive is None else autoregressive_head(space, head, autoregressive)


def check_keys(keys: tuple[str, ...], space: Space, name: str) -> None:
    """Raise `ConfigError` unless the keys are parts of a `Dict`, at least one, each once."""
    known = [part for part, _ in space.spaces] if isinstance(space, Dict) else []
    if not keys or not set(keys) <= set(known) or len(set(keys)) != len(keys):
        raise ConfigError(
            f"{name}: got {keys}, expected names of a Dict observation, each once; there are {known}"
        )


def _views(space: Space, keys: Mapping[BranchName, Keys]) -> dict[BranchName, Space]:
    """What each branch from the observation sees."""
    if all(names is None for names in keys.values()):
        return {"shared": space}
    parts = dict(cast("Dict", space).spaces)
    return {
        tower: Dict({name: parts[name] for name in (parts if names is None else names)})
        for tower, names in keys.items()
    }


def _narrow(encoder: Encoder, view: Space, whole: Space) -> Encoder:
    """The encoder of a view, without the parts that only others see."""
    if not isinstance(encoder, Parts) or not isinstance(view, Dict):
        return encoder
    seen, everything = view.struct(), whole.struct()
    kept = tuple(item for item in encoder.encoders if item[0] in seen or item[0] not in everything)
    return Parts(kept, rest=encoder.rest)
