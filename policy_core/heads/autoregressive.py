"""The head for `Dict` and `Tuple` actions whose parts depend on other parts."""

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from policy_core._registry import add, find
from policy_core._static import set_field, static
from policy_core.contract import Key, Mask, Space
from policy_core.distributions import AutoregressiveJoint
from policy_core.distributions.graph import Graph, Name
from policy_core.errors import ConfigError
from policy_core.heads.composite import JointHead, head_of, like
from policy_core.heads.discrete import BinsHead
from policy_core.heads.protocol import Head
from policy_core.networks import MLP, Network
from policy_core.spaces import Box, Dict, Tuple
from policy_core.spaces.composite import parts_of

MaskFunction: TypeAlias = Callable[[Mask, dict[Any, Any]], Mask]

_MASK_FUNCTIONS: dict[str, MaskFunction] = {}
_DEFAULT_NETWORK = MLP((64,))


def register_mask_function(name: str, function: MaskFunction) -> None:
    """Make a function `(mask, seen) -> mask` available to `Autoregressive(masks=...)`.

    It gets the part's own mask, or None if there is none, and the policy actions of its
    parents by name. What it returns is the mask of the part, so it should forbid what the
    part's own mask forbids, and leave something, or everything will be allowed.

    Raises:
        ConfigError: if the name is taken by another function.

    Example:
        >>> import policy_core as pc
        >>> def another(mask, seen):
        ...     others = jnp.arange(3) != seen["first"]
        ...     return others if mask is None else mask & others
        >>> pc.register_mask_function("another", another)
        >>> pc.Autoregressive({"second": ("first",)}, masks={"second": "another"}).masks
        (('second', 'another'),)
    """
    add(_MASK_FUNCTIONS, name, function, "mask_function")


@static
class Autoregressive:
    """Which parts of a `Dict` or `Tuple` action depend on which others, and how.

    A part sees the policy actions of its parents. Parents are discrete, and what a parent
    sees its children see, too; so every conditional distribution is computed for all that
    can be seen, and log-probability, entropy and KL of the whole are exact. Parts that see
    nothing are independent given the observation.

    Args:
        parents: part -> the parts that it sees, a mapping or a tuple of pairs. Parts of a
            `Tuple` go by their places.
        network: from the features and the flat forms of what is seen to the features of
            the head, one for each part that sees something.
        masks: part -> the name of a function that makes its mask from what it sees, see
            `register_mask_function`.

    References:
        Metz et al. 2017, Vinyals et al. 2019, for action parts in sequence. They estimate
        the entropy from a sample; here it is summed out.

    Example:
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
        set_field(self, "parents", tuple(parents.items()) if isinstance(parents, Mapping) else parents)
        set_field(self, "network", network)
        set_field(self, "masks", tuple(masks.items()) if isinstance(masks, Mapping) else masks)
        self.__post_init__()

    def __post_init__(self) -> None:
        for field in ("parents", "masks"):
            pairs = getattr(self, field)
            names = [name for name, _ in pairs]
            if len(set(names)) < len(names):
                raise ConfigError(f"Autoregressive.{field}: got {names}, expected each part once")
            set_field(self, field, tuple(sorted(pairs, key=str)))
        if extra := [name for name, _ in self.masks if name not in dict(self.parents)]:
            raise ConfigError(f"Autoregressive.masks: {extra[0]!r} has no parents to make a mask from")
        for name, function in self.masks:
            find(_MASK_FUNCTIONS, function, "mask_function", f"Autoregressive.masks[{name!r}]: ")


@static
class AutoregressiveHead:
    """A head for each part, behind a network for each that sees others.

    Args:
        box_head: how the boxes of floats among the parts are distributed.
        dependence: who sees whom.
    """

    box_head: Head
    dependence: Autoregressive

    def check_space(self, space: Any) -> None:
        """A `Dict` or `Tuple` that has the parts that are named, and heads for all of them."""
        if not isinstance(space, Dict | Tuple):
            raise ConfigError(
                f"action_space: got {type(space).__name__}, expected a Dict or Tuple for Autoregressive"
            )
        JointHead(box_head=self.box_head).check_space(space)
        self.graph(space)

    def graph(self, space: Dict | Tuple) -> Graph:
        """The spaces of the policy actions, and who sees whom."""
        return Graph(
            spaces=tuple((name, self._policy_space(part)) for name, part in parts_of(space).items()),
            parents=self.dependence.parents,
        )

    def init(self, space: Dict | Tuple, in_size: int, *, key: Key, dtype: str, gain: float) -> Any:
        """For each part, by its name or place, a `head` and, if it sees something, a `network`."""
        graph, network, params = self.graph(space), self.dependence.network, {}
        keys = jax.random.split(key, (len(graph.spaces), 2))
        spaces = dict(graph.spaces)
        for (name, part), part_keys in zip(parts_of(space).items(), keys, strict=True):
            own, size = {}, in_size
            if seen := graph.parents_of(name):
                wide = in_size + sum(spaces[parent].flat_size for parent in seen)
                own["network"] = network.init(wide, key=part_keys[0], dtype=dtype)
                size = network.out_size(wide)
            head = head_of(part, self.box_head)
            own["head"] = head.init(part, size, key=part_keys[1], dtype=dtype, gain=gain)
            params[str(name)] = own
        return params

    def distribution(
        self,
        space: Dict | Tuple,
        params: Any,
        features: Float[Array, " features"],
        mask: Mask,
        temperature: Float[Array, ""] | None,
    ) -> AutoregressiveJoint:
        """The conditional distributions; a temperature is that of each of them."""
        graph = self.graph(space)
        spaces = dict(graph.spaces)

        def part_given(name: Name, seen: dict[Name, Any]) -> Any:
            part, own = parts_of(space)[name], params[str(name)]
            own_mask, x = None if mask is None else mask[name], features
            if seen:
                flat = [spaces[parent].flatten(seen[parent]) for parent in graph.parents_of(name)]
                x = jnp.concatenate([x, *(f.astype(x.dtype) for f in flat)])
                x = self.dependence.network.apply(own["network"], x)
            if function := dict(self.dependence.masks).get(name):
                own_mask = find(_MASK_FUNCTIONS, function, "mask_function")(own_mask, seen)
                part.check_mask(own_mask, f"the mask of {name!r} by {function!r}")
            return head_of(part, self.box_head).distribution(part, own["head"], x, own_mask, temperature)

        parts = {
            name: jax.vmap(lambda seen, name=name: part_given(name, seen), axis_size=graph.size(name))(
                graph.seen(name)
            )
            for name in spaces
        }
        return AutoregressiveJoint(like(space, parts), graph)

    def env_action(self, space: Dict | Tuple, action: Any) -> Any:
        """The environment action of each part."""
        return JointHead(box_head=self.box_head).env_action(space, action)

    def policy_action(self, space: Dict | Tuple, env_action: Any) -> Any:
        """A policy action of each part."""
        return JointHead(box_head=self.box_head).policy_action(space, env_action)

    def _policy_space(self, part: Space[Any]) -> Space[Any]:
        """The space of the policy actions of a part, where that is discrete; else its own."""
        head = head_of(part, self.box_head)
        return head.index_space(part) if isinstance(head, BinsHead) and isinstance(part, Box) else part
