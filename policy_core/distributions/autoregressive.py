"""The joint distribution of a `Dict` or `Tuple` action whose parts depend on other parts."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Shaped

from policy_core.contract import Key
from policy_core.distributions.graph import Graph
from policy_core.distributions.numerics.common import takes_seed, total
from policy_core.spaces.composite import Name
from policy_core.spaces.enumeration import count, element_at, index_of


@takes_seed
class AutoregressiveJoint(NamedTuple):
    """An autoregressive joint distribution: p(a) = prod_i p(a_i | actions of the parents of i).

    Each part has its conditional distributions for all combinations of its parents' actions,
    along one axis behind the batch axes: parents are discrete, so there are finitely many. Log-probability,
    entropy and KL are those of the joint distribution, by the chain rule; nothing is sampled
    for them.

    Args:
        parts: name to distribution, with parameters `[..., combinations, *parameter]`, in C
            order of the actions of the parents (one combination for a part without parents).
            A tuple of them for `Tuple` actions.
        graph: the parents of each part, static.

    Example:
        >>> import jax
        >>> import policy_core as pc
        >>> import jax.numpy as jnp
        >>> config = pc.ActorCriticConfig(
        ...     observation_space=pc.Box(shape=(2,)),
        ...     action_space=pc.Dict({"tool": pc.Discrete(2), "force": pc.Box(shape=(3,))}),
        ...     autoregressive=pc.Autoregressive({"force": ("tool",)}),
        ... )
        >>> policy = pc.init(config, key=jax.random.key(0))
        >>> _, d = pc.action_distribution(policy, (), jnp.zeros(2))
        >>> d.parts["force"].loc.shape, sorted(d.mode())
        ((2, 3), ['force', 'tool'])
    """

    parts: Any
    graph: Graph

    def sample(self, *, key: Key) -> Any:
        """A sample of each part, given those of its parents. `key` is consumed."""
        return self._visit(lambda part, key: (part.sample(key=key), None), key)[0]

    def mode(self) -> Any:
        """The mode of each part given those of its parents: greedy, not the mode of the joint."""
        return self._visit(lambda part, _: (part.mode(), None), None)[0]

    def log_prob(self, action: Any) -> Float[Array, "*batch"]:
        """The sum over the parts (nats); `MASKED_LOG_PROB` if one has probability 0."""
        return total(self.log_probs(action))

    def sample_and_log_prob(self, *, key: Key) -> tuple[Any, Float[Array, "*batch"]]:
        """A sample, and its log-probability (nats). `key` is consumed."""
        action, log_probs = self._visit(lambda part, key: part.sample_and_log_prob(key=key), key)
        return action, total(jnp.stack(log_probs, -1))

    def log_probs(self, action: Any) -> Float[Array, "*batch parts"]:
        """The log-probability of each part given its parents, parents first (nats)."""
        indices = {name: index_of(self._space(name), action[name]) for name in self.graph.discrete()}
        terms = [self._given(name, indices).log_prob(action[name]) for name in self.graph.order()]
        return jnp.stack(terms, -1)

    def entropy(self) -> Float[Array, "*batch"]:
        """Entropy (nats): the sum over the parts, each in expectation over the actions of its parents."""
        return self._expected(lambda name: self.parts[name].entropy())

    def kl(self, other: "AutoregressiveJoint") -> Float[Array, "*batch"]:
        """KL(self || other) (nats): the sum over the parts, in expectation over the actions of parents."""
        return self._expected(lambda name: self.parts[name].kl(other.parts[name]))

    def _visit(self, draw: Callable[[Any, Any], tuple[Any, Any]], key: Key | None) -> tuple[Any, list[Any]]:
        """Call `draw` for each part, parents first: the actions, and a list of its second results."""
        order, discrete = self.graph.order(), self.graph.discrete()
        keys: Any = [None] * len(order) if key is None else jax.random.split(key, len(order))
        actions: dict[Name, Any] = {}
        indices: dict[Name, Int[Array, "*batch"]] = {}
        others = []
        for name, part_key in zip(order, keys, strict=True):
            actions[name], other = draw(self._given(name, indices), part_key)
            others.append(other)
            if name in discrete:
                indices[name] = index_of(self._space(name), actions[name])
        names = [name for name, _ in self.graph.spaces]
        if isinstance(self.parts, dict):
            return {name: actions[name] for name in names}, others
        return tuple(actions[name] for name in names), others

    def _given(self, name: Name, indices: dict[Name, Int[Array, "*batch"]]) -> Any:
        """The distribution of a part, given the indices of the actions of its parents."""
        index = jnp.zeros(self._batch(), jnp.int32) + jnp.maximum(self.graph.combination(name, indices), 0)

        def pick(x: Shaped[Array, "..."]) -> Shaped[Array, "..."]:
            # A one-hot sum, not a gather: exact, as one term is not zero, and its transpose is no scatter.
            combinations = jnp.arange(x.shape[index.ndim], dtype=jnp.int32)
            hit = jnp.expand_dims(index, -1) == combinations.reshape((1,) * index.ndim + (-1,))
            hit = hit.reshape(hit.shape + (1,) * (x.ndim - hit.ndim))
            if x.dtype == jnp.bool_:
                return jnp.any(hit & x, index.ndim)
            return jnp.sum(jnp.where(hit, x, 0), index.ndim, dtype=x.dtype)

        return jax.tree.map(pick, self.parts[name])

    def _expected(self, term: Callable[[Name], Float[Array, "*batch m"]]) -> Float[Array, "*batch"]:
        """The sum over the parts of the expectation of `term` over the actions of the parents."""
        tables = {name: self._table(name) for name in self.graph.parents_of_others()}
        sums = []
        for name in self.graph.order():
            indices, values = self.graph.parent_indices(name), term(name)
            log_weight = jnp.zeros((), values.dtype)
            for parent, columns in indices.items():
                rows = np.broadcast_to(self.graph.combination(parent, indices), columns.shape)
                log_weight = log_weight + tables[parent][..., rows, columns]
            weights = jnp.broadcast_to(jnp.exp(log_weight), values.shape)
            # Combinations of probability 0 do not count, however large their term is.
            sums.append(jnp.sum(weights * jnp.where(weights > 0, values, 0), -1))
        return jnp.sum(jnp.stack(sums, -1), -1)

    def _table(self, name: Name) -> Float[Array, "*batch m n"]:
        """The log-probability of every action of a part, for each combination of its parents' actions."""
        space, part = self._space(name), self.parts[name]
        shape = (*self._batch(), self.graph.size(name), *space.struct().shape)

        def scores(action: Int[Array, "..."]) -> Float[Array, "*batch m"]:
            log_probs: jax.Array = part.log_prob(jnp.broadcast_to(action, shape))
            return log_probs

        return jax.vmap(scores, out_axes=-1)(element_at(space, jnp.arange(count(space), dtype=jnp.int32)))

    def _space(self, name: Name) -> Any:
        return dict(self.graph.spaces)[name]

    def _batch(self) -> tuple[int, ...]:
        """The batch axes: those of a mode in front of the combinations and of its own."""
        name, space = self.graph.spaces[0]
        mode = jax.tree.leaves(jax.eval_shape(self.parts[name].mode))[0]
        event = jax.tree.leaves(space.struct())[0]
        shape: tuple[int, ...] = mode.shape[: len(mode.shape) - len(event.shape) - 1]
        return shape
