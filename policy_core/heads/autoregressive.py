"""The head for `Dict` and `Tuple` actions whose parts depend on other parts."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp

from policy_core.configs import set_field, static
from policy_core.configs.named import NamedFunctions
from policy_core.configs.validation import pairs_of, sort_pairs
from policy_core.contract import Features, Head, Key, Mask, Network, Space, Temperature
from policy_core.distributions import AutoregressiveJoint
from policy_core.distributions.graph import Graph
from policy_core.errors import ConfigError
from policy_core.heads.composite import JointHead, explores
from policy_core.networks import MLP
from policy_core.spaces.composite import Name, like, parts_of

MaskFunction: TypeAlias = Callable[[Mask, dict[Any, Any]], Mask]

_MASK_FUNCTIONS: NamedFunctions[MaskFunction] = NamedFunctions(
    "mask_function", "policy_core.heads.register_mask_function", {}
)
_DEFAULT_NETWORK = MLP((64,))
_MOST_NUMBERS = 2**14  # in an action: those of a box in bins are looked at one by one


def register_mask_function(name: str, function: MaskFunction) -> None:
    """Register a function `(mask, parents) -> mask` for use in `Autoregressive(masks=...)`.

    Its arguments are the mask of the part, or None, and the policy actions of its parents by
    name. The returned mask replaces that of the part, so it should also forbid what `mask`
    forbids. It should allow something: a mask that allows nothing counts as one that allows
    everything.

    Raises:
        ConfigError: if the name is taken by another function.

    Example:
        >>> import jax.numpy as jnp
        >>> import policy_core as pc
        >>> def another(mask, parents):
        ...     others = jnp.arange(3) != parents["first"]
        ...     return others if mask is None else mask & others
        >>> pc.heads.register_mask_function("another", another)
        >>> pc.Autoregressive({"second": ("first",)}, masks={"second": "another"}).masks
        (('second', 'another'),)
    """
    _MASK_FUNCTIONS.add(name, function)


@static
class Autoregressive:
    """The dependence of the parts of a `Dict` or `Tuple` action on each other.

    A part is conditioned on the policy actions of its parents. Parents are discrete, and the
    parents of a parent must be listed as parents, too; so the conditional distributions are
    tabulated over all combinations, and log-probability, entropy and KL of the joint distribution
    are exact. Parts without parents are independent given the observation.

    Args:
        parents: the parents of each part, a mapping or a tuple of pairs. Parts of a `Tuple` are
            named by index.
        network: from the features and the flattened actions of the parents to the features of
            the head, one for each part with parents.
        masks: the name of a function that computes the mask of a part from the actions of its
            parents, by part; see `register_mask_function`.

    Raises:
        ConfigError: for a mask without parents, or an unknown one; in a policy, for an action of more
            than 256 parts or 2^14 numbers, or parents that are more than 32, not discrete, not there, or
            of more than 4096 combinations.

    References:
        Metz et al. 2017, Vinyals et al. 2019, for action parts in sequence. They estimate
        the entropy from a sample; here it is summed out.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import policy_core as pc
        >>> config = pc.ActorCriticConfig(
        ...     observation_space=pc.Box(shape=(2,)),
        ...     action_space=pc.Dict({"tool": pc.Discrete(2), "force": pc.Box(shape=(3,))}),
        ...     autoregressive=pc.Autoregressive({"force": ("tool",)}, network=pc.MLP((32,))),
        ... )
        >>> policy = pc.init(config, key=jax.random.key(0))
        >>> _, action = pc.act(policy, pc.reset(policy), jnp.zeros(2))
        >>> action["force"].shape
        (3,)
    """

    parents: tuple[tuple[Name, tuple[Name, ...]], ...]
    network: Network = _DEFAULT_NETWORK
    masks: tuple[tuple[Name, str], ...] = ()

    def __init__(
        self,
        parents: Mapping[Any, tuple[Name, ...]] | tuple[tuple[Name, tuple[Name, ...]], ...],
        *,
        network: Network = _DEFAULT_NETWORK,
        masks: Mapping[Any, str] | tuple[tuple[Name, str], ...] = (),
    ) -> None:
        set_field(self, "parents", pairs_of(parents))
        set_field(self, "network", network)
        set_field(self, "masks", pairs_of(masks))
        self.__post_init__()

    def __post_init__(self) -> None:
        for field in ("parents", "masks"):
            sort_pairs(self, field, key=str)  # the canonical order, which the files have
        if extra := [name for name, _ in self.masks if name not in dict(self.parents)]:
            raise ConfigError(f"Autoregressive.masks: {extra[0]!r} has no parents to make a mask from")
        for name, function in self.masks:
            _MASK_FUNCTIONS.find(function, f"Autoregressive.masks[{name!r}]: ")


@dataclass(frozen=True)
class AutoregressiveHead:
    """A head for each part, and a network before it for each part with parents.

    Args:
        joint: the heads of the parts.
        dependence: the config of the dependence.
        graph: the dependence, with the spaces of the policy actions.
    """

    joint: JointHead
    dependence: Autoregressive
    graph: Graph

    def check_space(self, space: Any) -> None:
        """Raise `ConfigError` unless each head supports the space of its part."""
        self.joint.check_space(space)

    def policy_space(self, space: Any) -> Space:
        """The policy spaces of the parts, as a `Dict` or `Tuple`."""
        return self.joint.policy_space(space)

    def init(self, space: Any, in_size: int, *, key: Key, dtype: str, gain: float) -> dict[str, Any]:
        """Fresh params of each part by name: `head`, and `network` if it has parents; `key` is consumed."""
        network, params = self.dependence.network, {}
        keys = jax.random.split(key, (len(self.graph.spaces), 2))
        spaces = dict(self.graph.spaces)
        for (name, part), part_keys in zip(parts_of(space).items(), keys, strict=True):
            part_params, size = {}, in_size
            if parents := self.graph.parents_of(name):
                inputs = in_size + sum(spaces[parent].flat_size for parent in parents)
                part_params["network"] = network.init(inputs, key=part_keys[0], dtype=dtype)
                size = network.out_size(inputs)
            head = self.joint.heads[name]
            part_params["head"] = head.init(part, size, key=part_keys[1], dtype=dtype, gain=gain)
            params[str(name)] = part_params
        return params

    def distribution(
        self, space: Any, params: Any, features: Features, mask: Mask, temperature: Temperature
    ) -> AutoregressiveJoint:
        """The conditional distributions of all parts; a temperature applies to each of them."""
        spaces, functions = dict(self.graph.spaces), dict(self.dependence.masks)

        def conditional(name: Name, parents: dict[Name, Any]) -> Any:
            part, part_params = parts_of(space)[name], params[str(name)]
            part_mask, x = None if mask is None else mask[name], features
            if parents:
                flat = [spaces[parent].flatten(parents[parent]) for parent in self.graph.parents_of(name)]
                x = jnp.concatenate([x, *(f.astype(x.dtype) for f in flat)])
                x = self.dependence.network.apply(part_params["network"], x)
            if function := functions.get(name):
                part_mask = _MASK_FUNCTIONS.find(function)(part_mask, parents)
                part.check_mask(part_mask, f"the mask of {name!r} by {function!r}")
            head = self.joint.heads[name]
            return head.distribution(part, part_params["head"], x, part_mask, temperature)

        parts = {
            name: jax.vmap(
                lambda parents, name=name: conditional(name, parents), axis_size=self.graph.size(name)
            )(self.graph.parent_actions(name))
            for name in spaces
        }
        return AutoregressiveJoint(like(space, parts), self.graph)

    def env_action(self, space: Any, action: Any) -> Any:
        """The environment action of each part."""
        return self.joint.env_action(space, action)

    def policy_action(self, space: Any, env_action: Any) -> Any:
        """A policy action of each part."""
        return self.joint.policy_action(space, env_action)


def autoregressive_head(space: Space, head: Head, dependence: Autoregressive) -> AutoregressiveHead:
    """The head for dependent parts, from the one for independent parts, whose space has been checked.

    Raises:
        ConfigError: for a space without parts, or a dependence that the space does not allow.
    """
    if not isinstance(head, JointHead):
        raise ConfigError(
            f"action_space: got {type(space).__name__}, expected a Dict or Tuple for Autoregressive"
        )
    if sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(space.struct())) > _MOST_NUMBERS:
        raise ConfigError(f"Autoregressive: for an action of more than {_MOST_NUMBERS} numbers")
    if explores(head):
        raise ConfigError(
            "Autoregressive: got a head whose noise is kept, such as GSDEHead, which is for independent parts"
        )
    spaces = parts_of(head.policy_space(space))
    return AutoregressiveHead(
        head, dependence, Graph(spaces=tuple(spaces.items()), parents=dependence.parents)
    )


_: type[Head] = AutoregressiveHead
