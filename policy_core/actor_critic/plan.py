"""The plan of a policy: the branches from the observation to the towers, and the head.

A *branch* is "shared", "actor" or "critic": its output is the input of both towers or of one, and
its params are entries of `params` or of `params[branch]`. There is one encoder branch that is
shared, or one for each tower; each branch may have a memory behind the encoder:

    observation --encoder[branch]--> features --memory[branch]--> features --tower--> head
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, TypeVar, cast

import jax

from policy_core.configs import set_field
from policy_core.contract import Encoder, Head, Memory, Network, Space
from policy_core.encoders import Parts
from policy_core.errors import ConfigError
from policy_core.heads.autoregressive import Autoregressive, autoregressive_head
from policy_core.heads.composite import PartHeads, head_of
from policy_core.spaces import Dict

BranchName: TypeAlias = Literal["shared", "actor", "critic"]
Keys: TypeAlias = tuple[str, ...] | None
_T = TypeVar("_T")


@dataclass(frozen=True)
class Branch:
    """A branch: layers whose output is the input of one tower or both.

    Args:
        name: "shared", "actor" or "critic".
        out_size: output dimension.
    """

    name: BranchName
    out_size: int

    @property
    def tower(self) -> str:
        """A tower whose input it is."""
        return "actor" if self.name == "shared" else self.name

    def to_towers(self, output: _T) -> dict[str, _T]:
        """An output of this branch, by tower."""
        return dict.fromkeys(("actor", "critic") if self.name == "shared" else (self.name,), output)

    def params(self, params: dict[str, Any]) -> dict[str, Any]:
        """The dict that holds the params of this branch: all params, or those of its tower."""
        return params if self.name == "shared" else cast("dict[str, Any]", params[self.name])


@dataclass(frozen=True)
class EncoderBranch(Branch):
    """A branch from an observation to features, through the trunk if there is one.

    Args:
        space: its observation space: all of it, or some parts of a `Dict`.
        encoder: its encoder.
        encoded: output dimension of the encoder, the input dimension of the trunk.
        whole: whether the space is that of the policy.
    """

    space: Space
    encoder: Encoder
    encoded: int
    whole: bool

    def view(self, observation: Any) -> Any:
        """The parts of an observation that are inputs of this branch."""
        return observation if self.whole else {name: observation[name] for name in self.space.struct()}


@dataclass(frozen=True)
class MemoryBranch(Branch):
    """A branch with a memory.

    Args:
        memory: the memory.
        in_size: input dimension of the memory.
    """

    memory: Memory
    in_size: int


@dataclass(frozen=True)
class Plan:
    """The structure of a policy, derived from its config once.

    Args:
        encoders: one branch that is shared, or one for each tower, the actor's first.
        memories: the branches with a memory.
        in_sizes: input dimension of each tower.
        head: the head for the action space.
        explores: whether noise of the head is kept in the state.
    """

    encoders: tuple[EncoderBranch, ...]
    memories: tuple[MemoryBranch, ...]
    in_sizes: Mapping[str, int]
    head: Head
    explores: bool


def plan_branches(
    space: Space,
    keys: Mapping[BranchName, Keys],
    encoder: Encoder,
    trunk: Network | None,
    memory: Memory | None,
    sharing: Literal["shared", "separate", "actor"],
    encoder_sharing: Literal["shared", "separate"],
) -> tuple[tuple[EncoderBranch, ...], tuple[MemoryBranch, ...], dict[str, int]]:
    """The branches of a policy, and the input dimension of each tower.

    Args:
        space: the observation space.
        keys: the parts of a `Dict` for each tower; None for all parts; both None for a shared branch.
        encoder: the encoder of the whole observation.
        trunk: the network behind the encoder, or None.
        memory: the memory of each branch that has one, or None.
        sharing: which branches have one.
        encoder_sharing: whether the two have one encoder each of the whole observation.

    Raises:
        ConfigError: for a space that the encoder does not support.
    """
    sizes: dict[str, int] = {}
    encoders = []
    for name, view in _views(space, keys, encoder_sharing).items():
        own = _narrow(encoder, view, space)
        own.check_space(view)
        encoded = own.out_size(view)
        size = encoded if trunk is None else trunk.out_size(encoded)
        encoders.append(EncoderBranch(name, size, view, own, encoded, view is space))
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


def action_head(
    space: Space,
    box_head: Head,
    discrete_head: Head,
    heads: PartHeads | None,
    autoregressive: Autoregressive | None,
) -> Head:
    """The head for an action space, with the space checked.

    Raises:
        ConfigError: if there is none, or it does not support the space.
    """
    head = head_of(space, box_head, discrete_head, heads)
    head.check_space(space)
    return head if autoregressive is None else autoregressive_head(space, head, autoregressive)


def check_keys(keys: tuple[str, ...], space: Space, name: str) -> None:
    """Raise `ConfigError` unless the keys are parts of a `Dict`, at least one, each once."""
    names = [part for part, _ in space.spaces] if isinstance(space, Dict) else []
    if not keys or not set(keys) <= set(names) or len(set(keys)) != len(keys):
        raise ConfigError(
            f"{name}: got {keys}, expected names of a Dict observation, each once; there are {names}"
        )


def check_sharing(config: Any) -> None:
    """Raise `ConfigError` for unknown keys, or a trunk or memory shared between different views."""
    own = config.critic_keys is not None or "separate" in (config.memory_sharing, config.encoder_sharing)
    if config.critic is None and own:
        raise ConfigError(
            "ActorCriticConfig.critic: None has no critic_keys, and no memory or encoder of its own"
        )
    sharing = {config.memory_sharing, config.encoder_sharing}
    keys = config.actor_keys or config.critic_keys
    if config.actor is None and (config.critic is None or sharing != {"shared"} or keys is not None):
        raise ConfigError(
            "ActorCriticConfig.actor: None needs a critic, which has no keys, and no memory or encoder "
            "of its own"
        )
    apart = []
    for name in ("actor_keys", "critic_keys"):
        if (keys := getattr(config, name)) is not None:
            check_keys(keys, config.observation_space, f"ActorCriticConfig.{name}")
            set_field(config, name, tuple(sorted(keys)))
            apart.append(name)
    if config.encoder_sharing == "separate":
        if apart:
            raise ConfigError(
                f"ActorCriticConfig.encoder_sharing: with {apart[0]} encoders are separate; leave it out"
            )
        apart.append("encoder_sharing")
    if apart and (
        config.trunk is not None or (config.memory is not None and config.memory_sharing == "shared")
    ):
        raise ConfigError(
            f"ActorCriticConfig.{apart[0]}: actor and critic have different inputs and cannot share a "
            'trunk or a memory; use trunk=None and memory_sharing="separate" or "actor"'
        )


def check_precision(param_dtype: str, compute_dtype: str) -> None:
    """Raise `ConfigError` for float64 without x64: JAX would silently use float32."""
    for name, dtype in {"param_dtype": param_dtype, "compute_dtype": compute_dtype}.items():
        if jax.dtypes.canonicalize_dtype(dtype) != dtype:
            raise ConfigError(
                f"ActorCriticConfig.{name}: {dtype} needs 64-bit JAX; set jax_enable_x64, or use float32"
            )


def _views(space: Space, keys: Mapping[BranchName, Keys], sharing: str) -> dict[BranchName, Space]:
    """The observation space of each encoder branch."""
    if all(names is None for names in keys.values()):
        return {"shared": space} if sharing == "shared" else dict.fromkeys(keys, space)
    parts = dict(cast("Dict", space).spaces)
    return {
        tower: Dict({name: parts[name] for name in (parts if names is None else names)})
        for tower, names in keys.items()
    }


def _narrow(encoder: Encoder, view: Space, full: Space) -> Encoder:
    """The encoder of a view: a `Parts` without the parts that are in `full` and not in the view."""
    if not isinstance(encoder, Parts) or not isinstance(view, Dict):
        return encoder
    inside, everything = view.struct(), full.struct()
    # Names that are in neither are kept, so that `Parts.check_space` reports them.
    kept = tuple(item for item in encoder.encoders if item[0] in inside or item[0] not in everything)
    return Parts(kept, rest=encoder.rest)
