"""Sets of policies of different configs, as stacks of those that are equal."""

from collections.abc import Mapping
from typing import Any

from policy_core.checks.arguments import pair
from policy_core.contract import ActorCritic, Policy
from policy_core.errors import StructureError
from policy_core.population.members import size, stack, unstack


def groups(policies: Mapping[str, Policy]) -> dict[ActorCritic, tuple[tuple[str, ...], Policy]]:
    """A set of policies by name, such as the agents of a game or a league, as one population a config.

    Each group is mapped by one `jax.vmap`, so that a set costs as many programs as it has configs.
    `ungroup` is the inverse.

    Args:
        policies: the pairs by name.

    Returns:
        By config, in the order in which the configs come: the names, and the population whose member
        i is that of the i-th name. The names are no arrays: only the populations go into a `jax.jit`.

    Raises:
        StructureError: for leaves of one config with different shapes or dtypes.

    Example:
        >>> import jax
        >>> import policy_core as pc
        >>> def policy(actions, seed):
        ...     config = pc.ActorCriticConfig(
        ...         observation_space=pc.Box(shape=(4,)), action_space=pc.Discrete(actions)
        ...     )
        ...     return pc.init(config, key=jax.random.key(seed))
        >>> agents = {"good": policy(2, 0), "bad": policy(3, 1), "ugly": policy(2, 2)}
        >>> grouped = pc.population.groups(agents)
        >>> [(names, pc.batch_shape(population)) for names, population in grouped.values()]
        [(('good', 'ugly'), (2,)), (('bad',), (1,))]
    """
    sets: dict[Any, dict[str, Policy]] = {}
    for name, policy in policies.items():
        sets.setdefault(pair(policy)[1], {})[name] = policy
    return {config: (tuple(members), stack(list(members.values()))) for config, members in sets.items()}


def ungroup(groups: Mapping[ActorCritic, tuple[tuple[str, ...], Policy]]) -> dict[str, Policy]:
    """The policies by name from the populations of `groups`.

    Raises:
        StructureError: for a population of another config than its key or another size than its
            names, and for a name in two groups.

    Example:
        >>> import jax
        >>> import policy_core as pc
        >>> config = pc.ActorCriticConfig(
        ...     observation_space=pc.Box(shape=(4,)), action_space=pc.Discrete(2)
        ... )
        >>> agents = {name: pc.init(config, key=jax.random.key(0)) for name in ("left", "right")}
        >>> list(pc.population.ungroup(pc.population.groups(agents)))
        ['left', 'right']
    """
    policies: dict[str, Policy] = {}
    for config, (names, population) in groups.items():
        where = f"groups: the population of {', '.join(names)}"
        if population[1] != config:
            raise StructureError(f"{where} has another config than its key")
        if size(population)[:1] != (len(names),):
            raise StructureError(f"{where} has the axes {size(population)}, expected {len(names)} members")
        for name, policy in zip(names, unstack(population), strict=True):
            if name in policies:
                raise StructureError(f"groups: the name {name!r} is there twice")
            policies[name] = policy
    return policies
