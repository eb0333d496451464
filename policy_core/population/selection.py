"""Selection among members: which are copied, and the copy."""

import functools
import math
from numbers import Real
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Int, PyTree, Shaped

from policy_core.checks.arguments import check_key
from policy_core.checks.structure import describe, is_array
from policy_core.contract import Key
from policy_core.errors import StructureError
from policy_core.population.indexing import check_divisible, checked_source, read

T = TypeVar("T")

_REAL = (jnp.floating, jnp.integer, jnp.bool_)


def take(tree: T, source: Any, *, donate: bool = False) -> T:
    """`leaf[source]` of every leaf: the members with these numbers, in this order.

    For the population and for everything that it has by member: the state of a `jax.vmap`ped
    optimizer, hyper-parameters, environments, keys, all in one tree. All values of `source` take one
    compilation. Leaves keep their sharding; NumPy leaves stay NumPy arrays unless `source` is traced.
    Members that lie on other devices come by a collective of whole leaves. (Inside `jax.jit`, on a mesh
    whose axes are automatic, the compiler chooses where the result lies: give `out_shardings` there.)

    Args:
        tree: a pytree of arrays with one common first axis, of length n.
        source: integers `[k]`, negative from the end; of `exploit`, k = n. If they are traced, those
            out of range give NaN in floats, and the least number in integers.
        donate: whether the leaves of `tree` may be used for the result, and cannot be used again.
            Inside `jax.jit`, donate there.

    Raises:
        MemberError: an `IndexError`, for numbers out of range.
        StructureError: for a leaf without the common axis, such as a scalar, with its path; for a number of
            members that cannot be sharded as the leaves are.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import policy_core as pc
        >>> config = pc.ActorCriticConfig(
        ...     observation_space=pc.Box(shape=(4,)), action_space=pc.Discrete(2)
        ... )
        >>> population = pc.population.init(config, 4, key=jax.random.key(0))
        >>> learning_rates = jnp.array([1e-4, 3e-4, 1e-3, 3e-3])
        >>> source = jnp.array([2, 1, 2, 3])  # member 0 becomes a copy of member 2
        >>> population, learning_rates = pc.population.take((population, learning_rates), source)
        >>> pc.population.take({"count": jnp.zeros(())}, source)
        Traceback (most recent call last):
        ...
        policy_core.errors.StructureError: tree['count']: got float32(), expected a leading axis ...
    """
    leaves, structure = jax.tree.flatten(tree)
    n = _common_axis(tree)
    source = checked_source(source, n)
    for leaf in leaves:
        check_divisible(leaf, source.shape[0])
    taken: T = jax.tree.unflatten(structure, read(leaves, source, donate))
    return taken


def exploit(
    returns: Shaped[Array, " n"] | Shaped[np.ndarray, " n"], *, key: Key, fraction: float = 0.25
) -> Int[Array, " n"]:
    """Truncation selection: the members that the worst are to copy, for `take`.

    Each of the worst `fraction` becomes a copy of one of the best `fraction`, chosen at random; all
    others stay. Of equal returns the one with the lower index counts as better; NaN is worse than any
    number, and is never copied.

    Args:
        returns: `[n]`, or anything of which more is better. On several processes, the same on all.
        key: consumed.
        fraction: in [0, 0.5], a Python number. The number of copies is rounded up, and is at most
            n // 2.

    Returns:
        int32 `[n]`: `source[i]` is i for a member that stays. Pure; may be jitted, and vmapped over
        separate populations.

    Raises:
        StructureError: for returns of another shape, or a fraction out of range.

    References:
        Jaderberg et al. 2017: their truncation selection, with a fraction of 0.2, which each member does
        for itself; here all members do so at once.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import policy_core as pc
        >>> returns = jnp.array([1.0, jnp.nan, 7.0, 3.0])
        >>> pc.population.exploit(returns, key=jax.random.key(0)).tolist()
        [0, 2, 2, 3]
    """
    check_key(key)
    if isinstance(fraction, Tracer) or not isinstance(fraction, Real) or not 0 <= fraction <= 0.5:
        got = fraction if isinstance(fraction, Real) else type(fraction).__name__
        raise StructureError(f"fraction: got {got}, expected a Python number from 0 to 0.5")
    kind = jnp.result_type(returns) if is_array(returns) else None
    if kind is None or jnp.ndim(returns) != 1 or not any(map(functools.partial(jnp.issubdtype, kind), _REAL)):
        got = describe(returns) if is_array(returns) else type(returns).__name__
        raise StructureError(f"returns: got {got}, expected real numbers (n,); for several sets use jax.vmap")
    count = min(math.ceil(fraction * jnp.shape(returns)[0] - 1e-9), jnp.shape(returns)[0] // 2)
    source: Int[Array, " n"] = _exploit(returns, key, count)
    return source


@functools.partial(jax.jit, static_argnums=2, inline=True)
def _exploit(returns: Any, key: Any, count: int) -> Any:
    returns = jnp.asarray(returns)
    where = jax.typeof(returns).sharding
    if any(where.spec):  # a mesh of explicit axes sorts nothing that is split
        returns = jax.sharding.reshard(returns, NamedSharding(where.mesh, PartitionSpec()))
    floating = jnp.issubdtype(returns.dtype, jnp.floating)
    order = jnp.argsort(-returns if floating else ~returns, stable=True)  # the best first, NaN last
    n = len(order)
    stay = jnp.arange(n, dtype=jnp.int32)
    if not count:
        return stay
    numbers = jnp.sum(~jnp.isnan(returns), dtype=jnp.int32) if floating else n
    chosen = jax.random.randint(key, (count,), 0, jnp.clip(numbers, 1, count), dtype=jnp.int32)
    worst = order[n - count :].astype(jnp.int32)
    copied = jnp.where(numbers > 0, order[chosen].astype(jnp.int32), worst)
    return stay.at[worst].set(copied)


def _common_axis(tree: PyTree) -> int:
    """The length of the first axis, which all leaves have."""
    n, first = None, ""
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        name = "tree" + jax.tree_util.keystr(path)
        if not isinstance(leaf, jax.Array | np.ndarray) or not jnp.ndim(leaf):
            got = describe(leaf) if is_array(leaf) else type(leaf).__name__
            raise StructureError(
                f"{name}: got {got}, expected a leading axis of the members; make it by jax.vmap, such as "
                "jax.vmap(optimizer.init)"
            )
        if n is None:
            n, first = leaf.shape[0], name
        elif leaf.shape[0] != n:
            raise StructureError(f"{name}: got {leaf.shape[0]} members, expected {n}, as {first} has")
    if n is None:
        raise StructureError("tree: has no leaves, expected arrays with a leading axis of the members")
    return n
