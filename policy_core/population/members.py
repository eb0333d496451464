"""Populations and their members: made, measured, stacked, taken apart."""

from collections.abc import Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding

from policy_core.checks.arguments import batch_axes, check_config, check_key, pair
from policy_core.checks.structure import describe
from policy_core.configs.comparison import difference_table
from policy_core.contract import ActorCritic, Key, Policy
from policy_core.errors import StructureError
from policy_core.population.indexing import checked_index, read, write
from policy_core.trees import by_path

_Policy = TypeVar("_Policy", bound=Policy)


def init(config: ActorCritic, n: int, *, key: Key, out_shardings: Any = None) -> Policy:
    """A population of `n` fresh policies, each made where it will be.

    Member i is that of the key `jax.random.fold_in(key, i)`, whatever `n` and the sharding are: the
    same bits of randomness, and params that agree to rounding (1e-6). (Keys of the implementation
    "rbg" do not keep this under `jax.vmap`.)

    Args:
        config: a static config.
        n: how many, at least 1.
        key: consumed.
        out_shardings: where the leaves lie, as in `jax.jit`: one sharding for all, such as
            `sharding(mesh)`, or a tree of them; None for the default device.

    Returns:
        The pair; every leaf is `[n, ...]`.

    Raises:
        StructureError: if `n` is below 1, or cannot be split as asked.

    Example:
        >>> import jax
        >>> import policy_core as pc
        >>> config = pc.ActorCriticConfig(
        ...     observation_space=pc.Box(shape=(4,)), action_space=pc.Discrete(2)
        ... )
        >>> population = pc.population.init(config, 8, key=jax.random.key(0))
        >>> population[0]["actor"]["head"]["kernel"].shape
        (8, 64, 2)
    """
    check_config(config)
    check_key(key)
    if isinstance(n, bool) or not isinstance(n, int | np.integer) or n < 1:
        raise StructureError(f"n: got {n if isinstance(n, int) else type(n).__name__}, expected an int >= 1")
    for where in jax.tree.leaves(out_shardings):
        if isinstance(where, NamedSharding) and (parts := _parts(where)) and n % parts:
            raise StructureError(
                f"n: got {n}, expected a multiple of {parts}, the parts into which out_shardings splits "
                "the members"
            )
    made = (
        _init if out_shardings is None else jax.jit(_made, static_argnums=(0, 1), out_shardings=out_shardings)
    )
    population: Policy = made(config, int(n), key)
    return population


def _made(config: Any, n: int, key: Any) -> Any:
    return jax.vmap(lambda i: (config.init(key=jax.random.fold_in(key, i)), config))(jnp.arange(n))


_init = jax.jit(_made, static_argnums=(0, 1), inline=True)


def _parts(where: NamedSharding) -> int:
    names = where.spec[0] if len(where.spec) else None
    names = (names,) if isinstance(names, str) else names or ()
    parts = 1
    for name in names:
        parts *= where.mesh.shape[name]
    return parts


def size(pop: Policy) -> tuple[int, ...]:
    """The leading axes of a population: `(n,)`, several for a population of populations, `()` for one policy.

    They are compared with the params of the config, in every leaf, as by `pc.batch_shape`. For a config
    whose params are not checked (`params_unchecked`) it is the first axis, if all leaves share it.

    Args:
        pop: the pair. Not for use inside the `jax.vmap` over it, where it is one policy.

    Raises:
        StructureError: for params that are not those of the config, or of mixed leading axes.

    Example:
        >>> import jax
        >>> import policy_core as pc
        >>> config = pc.ActorCriticConfig(
        ...     observation_space=pc.Box(shape=(4,)), action_space=pc.Discrete(2)
        ... )
        >>> pc.population.size(pc.population.init(config, 8, key=jax.random.key(0)))
        (8,)
        >>> pc.population.size(pc.init(config, key=jax.random.key(0)))
        ()
    """
    params, config = pair(pop)
    if not getattr(config, "params_unchecked", False):
        return batch_axes(params, config)
    # Without the shapes of `init` an axis that all leaves have is taken for that of the members.
    first = {np.shape(leaf)[:1] for leaf in jax.tree.leaves(params)}
    return first.pop() if len(first) == 1 else ()


def check(pop: Policy) -> None:
    """Raise unless `pop` is a population: all leaves have the same axes in front of those of one policy.

    Raises:
        StructureError: with the first leaf whose leading axes differ; for one policy; for params of
            another config.

    Example:
        >>> import jax
        >>> import policy_core as pc
        >>> config = pc.ActorCriticConfig(
        ...     observation_space=pc.Box(shape=(4,)), action_space=pc.Discrete(2)
        ... )
        >>> params, config = pc.population.init(config, 8, key=jax.random.key(0))
        >>> fewer, _ = pc.population.init(config, 5, key=jax.random.key(0))
        >>> pc.population.check((params, config))
        >>> pc.population.check(({**params, "critic": fewer["critic"]}, config))
        Traceback (most recent call last):
        ...
        policy_core.errors.StructureError: params['critic']['head']['bias']: has the leading axes (5,), ...
    """
    _axes(pop)


def stack(policies: Sequence[_Policy]) -> _Policy:
    """A population from policies, or from populations, of one config; `unstack` is the inverse.

    Args:
        policies: at least one. Leaves that are NumPy arrays in all of them stay NumPy arrays.

    Returns:
        The pair; every leaf has a new axis in front, of the length of `policies`.

    Raises:
        StructureError: for two configs, with the fields that differ; for leaves of different shapes or
            dtypes; for no policies.

    Example:
        >>> import jax
        >>> import policy_core as pc
        >>> config = pc.ActorCriticConfig(
        ...     observation_space=pc.Box(shape=(4,)), action_space=pc.Discrete(2)
        ... )
        >>> policies = [pc.init(config, key=jax.random.key(seed)) for seed in range(3)]
        >>> pc.population.size(pc.population.stack(policies))
        (3,)
    """
    policies = list(policies)
    if not policies:
        raise StructureError("policies: got none, expected at least one")
    trees = []
    for k, policy in enumerate(policies):
        params, config = pair(policy)
        check_same_config(config, policies[0][1], f"policies[{k}]", "policies[0]")
        size(policy)
        trees.append(params)
        _check_like(params, policies[0][0], f"policies[{k}]")
    return jax.tree.map(_stacked, *trees), policies[0][1]  # type: ignore[return-value]


def unstack(pop: _Policy) -> list[_Policy]:
    """The members of a population, in order: a list of `n` policies.

    Raises:
        StructureError: for one policy, or leaves of mixed leading axes.

    Example:
        >>> import jax
        >>> import policy_core as pc
        >>> config = pc.ActorCriticConfig(
        ...     observation_space=pc.Box(shape=(4,)), action_space=pc.Discrete(2)
        ... )
        >>> population = pc.population.init(config, 3, key=jax.random.key(0))
        >>> [pc.batch_shape(policy) for policy in pc.population.unstack(population)]
        [(), (), ()]
    """
    n = _axes(pop)[0]
    leaves, structure = jax.tree.flatten(pop)
    return [jax.tree.unflatten(structure, read(leaves, np.int32(i))) for i in range(n)]


def member(pop: _Policy, i: int | jax.Array) -> _Policy:
    """One member: entry `i` of every leaf.

    All members of a population take one compilation. Leaves that are NumPy arrays stay NumPy arrays
    (copies), so that a member of a loaded or gathered population costs no device. A member of a
    population that is split over devices is on all of them.

    Args:
        pop: the population; with several leading axes `i` counts along the first.
        i: an int, negative from the end, or a traced integer. A traced one that is out of range gives
            NaN in floats, and the least number in integers.

    Raises:
        MemberError: an `IndexError`, for an int out of range.
        StructureError: for one policy, or leaves of mixed leading axes.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import policy_core as pc
        >>> config = pc.ActorCriticConfig(
        ...     observation_space=pc.Box(shape=(4,)), action_space=pc.Discrete(2)
        ... )
        >>> population = pc.population.init(config, 8, key=jax.random.key(0))
        >>> best = pc.population.member(population, 3)
        >>> state, action = pc.act(best, pc.reset(best), jnp.ones(4))
        >>> pc.population.member(population, 8)
        Traceback (most recent call last):
        ...
        policy_core.errors.MemberError: i: got 8, out of range of 8 members; expected -8 to 7
    """
    i = checked_index(i, _axes(pop)[0])
    leaves, structure = jax.tree.flatten(pop)
    policy: _Policy = jax.tree.unflatten(structure, read(leaves, i))
    return policy


def replace(pop: _Policy, i: int | jax.Array, policy: _Policy) -> _Policy:
    """The population with member `i` replaced; shardings are kept.

    Args:
        pop: the population.
        i: as in `member`. A traced one that is out of range changes nothing.
        policy: of the same config, shapes and dtypes as a member.

    Raises:
        MemberError: an `IndexError`, for an int out of range.
        StructureError: for another config, with the fields that differ, or other shapes or dtypes.

    Example:
        >>> import jax
        >>> import policy_core as pc
        >>> config = pc.ActorCriticConfig(
        ...     observation_space=pc.Box(shape=(4,)), action_space=pc.Discrete(2)
        ... )
        >>> population = pc.population.init(config, 8, key=jax.random.key(0))
        >>> fresh = pc.init(config, key=jax.random.key(1))
        >>> population = pc.population.replace(population, 3, fresh)
        >>> again = pc.population.member(population, 3)
        >>> bool((again[0]["actor"]["head"]["kernel"] == fresh[0]["actor"]["head"]["kernel"]).all())
        True
    """
    i = checked_index(i, _axes(pop)[0])
    check_same_config(pair(policy)[1], pop[1], "policy", "pop")
    size(policy)
    one = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(np.shape(leaf)[1:], leaf.dtype), pop)
    _check_like(policy[0], one[0], "policy")
    leaves, structure = jax.tree.flatten(pop)
    replaced: _Policy = jax.tree.unflatten(structure, write(leaves, i, jax.tree.leaves(policy)))
    return replaced


def check_same_config(config: Any, expected: Any, name: str, of: str) -> None:
    """Raise `StructureError`, with the fields that differ, unless two configs are equal."""
    if config != expected:
        table = difference_table(config, expected, name, of)
        raise StructureError(f"{name}: has another config than {of}\n{table}")


def _axes(pop: Policy) -> tuple[int, ...]:
    """The leading axes, at least one."""
    if axes := size(pop):
        return axes
    raise StructureError(
        "pop: got one policy, expected a population, whose leaves have a leading axis; "
        "policy_core.population.stack([policy]) is one"
    )


def _check_like(params: Any, expected: Any, name: str) -> None:
    """Raise `StructureError` unless leaves have the very shapes and dtypes of others of the same config."""
    others = by_path(expected, "params", StructureError)
    for path, leaf in by_path(params, "params", StructureError).items():
        if path not in others:
            raise StructureError(f"{name}: unexpected leaf {path!r}")
        other = others[path]
        if (np.shape(leaf), leaf.dtype) != (np.shape(other), other.dtype):
            raise StructureError(f"{name}: the leaf {path!r} is {describe(leaf)}, expected {describe(other)}")


def _stacked(*leaves: Any) -> Any:
    stacked = np.stack if all(isinstance(leaf, np.ndarray) for leaf in leaves) else jnp.stack
    return stacked(leaves)
