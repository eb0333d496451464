"""The actor, or the critic, of the shipped policy by itself: what it needs of the params, and its config."""

import dataclasses
from typing import Any, Literal

from policy_core.actor_critic.plan import EncoderBranch
from policy_core.errors import StructureError


def detached(
    config: Any, params: dict[str, Any], tower: Literal["actor", "critic"]
) -> tuple[dict[str, Any], Any]:
    """The pair with one tower, whose observation space is what that tower observes.

    An encoder or a memory that the tower has for itself becomes that of the policy.

    Args:
        config: an `ActorCriticConfig`.
        params: its params, of one policy or of a population.
        tower: the tower that is kept.

    Raises:
        StructureError: if the policy does not have it.
    """
    if getattr(config, tower) is None:
        raise StructureError(f"policy: has no {tower} that could be kept; give the policy that has both")
    other = "critic" if tower == "actor" else "actor"
    branch: EncoderBranch = config.plan.encoders[0 if tower == "actor" else -1]
    separate = branch.name == tower
    memories = {memory.name for memory in config.plan.memories}
    sharing = {
        # The state of an actor's memory keeps its name; a critic has a name for one that is shared only.
        "memory_sharing": "actor" if tower == "actor" and "actor" in memories else "shared",
        "memory": config.memory if memories & {"shared", tower} else None,
    }
    normalize = None if config.normalize is None else config.normalize.narrowed(branch.space)
    alone = dataclasses.replace(
        config,
        observation_space=branch.space,
        normalize=normalize,
        actor_keys=None,
        critic_keys=None,
        encoder=branch.encoder,
        encoder_sharing="shared",
        **{other: None},
        **sharing,
    )
    kept = {name: part for name, part in params.items() if name != other}
    if tower == "critic":
        kept.pop("temperature", None)
        alone = dataclasses.replace(alone, temperature=None)
    own = {"encoder"} if separate else set()
    if tower == "critic" and "critic" in memories:
        own.add("memory")
    part = dict(params[tower])
    kept.update({name: part.pop(name) for name in own if name in part})
    kept[tower] = part
    if separate and normalize is not None and not branch.whole:
        kept["normalize"] = {name: params["normalize"][name] for name in branch.space.struct()}
    return kept, alone
