"""Params by path, transfer of params between policies, and an actor or a critic by itself."""

import fnmatch
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from policy_core.checks.arguments import batch_axes, check_config, pair
from policy_core.contract import ActorCritic, CriticActorCritic, DetachableActorCritic, Policy
from policy_core.errors import StructureError
from policy_core.trees import by_path, check_arrays, params_struct, spec

LeafAction = Literal["copy", "keep", "pad", "skip"]
_ACTIONS = ("copy", "keep", "pad", "skip")


class LeafReport(NamedTuple):
    """One row of the report of a transplant.

    Args:
        path: path of the leaf, its keys joined by "/".
        action: "copy", "keep", "pad" or "skip".
        rule: the glob that matched.
        source: dtype and shape in the source, or "(absent)".
        target: dtype and shape in the target, likewise.

    Example:
        >>> from policy_core.surgery import LeafReport
        >>> LeafReport("a/kernel", "copy", "a/*", "float32(4, 2)", "float32(4, 2)").action
        'copy'
    """

    path: str
    action: str
    rule: str
    source: str
    target: str


def transplant(
    source: Policy, target: Policy, rules: Mapping[str, LeafAction]
) -> tuple[Policy, tuple[LeafReport, ...]]:
    """Copy leaves of the source into the target, and report what was done with every leaf.

    Args:
        source: a policy.
        target: a policy, such as a fresh one of another config. It is not changed.
        rules: from path globs (`*` also matches "/") to actions for the leaves that match; the
            first glob that matches counts, and every leaf must match one:

            - "copy": the leaf of the source, of the same dtype and shape.
            - "pad": the leaf of the source in the first entries of each axis, that of the target
              beyond them; for a wider layer or more actions. It may not be larger.
            - "keep": the leaf of the target, whatever the source has.
            - "skip": the leaf of the source is dropped; the target has none.

    Returns:
        The pair `(params, config of the target)`, and the report, in the order of the paths.

    Raises:
        StructureError: for a leaf that no rule matches or whose rule does not apply, and for a rule
            that matches no leaf: no leaf is dropped silently.

    Example:
        >>> import jax
        >>> import policy_core as pc
        >>> def config(actions):
        ...     return pc.ActorCriticConfig(
        ...         observation_space=pc.Box(shape=(4,)), action_space=pc.Discrete(actions)
        ...     )
        >>> old, new = (pc.init(config(n), key=jax.random.key(n)) for n in (2, 3))
        >>> policy, report = pc.transplant(old, new, {"actor/head/*": "pad", "*": "copy"})
        >>> [row.path for row in report if row.action == "pad"]
        ['actor/head/bias', 'actor/head/kernel']
    """
    for action in rules.values():
        if action not in _ACTIONS:
            raise StructureError(f"rules: got {action!r}, expected one of {', '.join(_ACTIONS)}")
    sources, targets = _arrays(source, "source"), _arrays(target, "target")
    leaves: dict[str, Any] = {}
    report = []
    for path in sorted({*sources, *targets}):
        rule = next((glob for glob in rules if fnmatch.fnmatchcase(path, glob)), None)
        a, b = sources.get(path), targets.get(path)
        specs = _described(a), _described(b)
        if rule is None:
            raise StructureError(
                f"rules: no rule matches {path!r}, {specs[0]} in the source and {specs[1]} in the target; "
                "copy, pad, keep or skip it"
            )
        leaves[path] = _leaf(path, rules[rule], rule, a, b)
        report.append(LeafReport(path, rules[rule], rule, *specs))
    if unused := [glob for glob in rules if glob not in {row.rule for row in report}]:
        raise StructureError(f"rules: {unused[0]!r} is the first match of no leaf; correct it or remove it")
    structure = jax.tree.structure(target[0])
    return (jax.tree.unflatten(structure, [leaves[path] for path in targets]), target[1]), tuple(report)


def leaves(policy: Policy) -> dict[str, jax.Array]:
    """The params by path, as in files: the keys joined by "/"; those of a population, too.

    Raises:
        StructureError: for params that are not those of the config.

    Example:
        >>> import jax
        >>> import policy_core as pc
        >>> config = pc.ActorCriticConfig(
        ...     observation_space=pc.Box(shape=(4,)), action_space=pc.Discrete(2)
        ... )
        >>> found = pc.surgery.leaves(pc.init(config, key=jax.random.key(0)))
        >>> found["actor/head/kernel"].shape
        (64, 2)
    """
    params, config = pair(policy)
    batch_axes(params, config)
    return dict(sorted(by_path(params, "params", StructureError).items()))


def from_leaves(config: ActorCritic, leaves: Mapping[str, Any], *, batch: tuple[int, ...] = ()) -> Policy:
    """The policy of a config with params that are given by path: the inverse of `leaves`.

    Nothing is initialized: every leaf of the config must be given, and no other.

    Args:
        config: the config.
        leaves: from path to array, of NumPy, JAX, or anything that `np.asarray` takes. A dtype is cast where
            that keeps its kind, such as float64 to float32.
        batch: the leading axes of a population; `()` for one policy.

    Raises:
        StructureError: for a path that is missing or none of the config's, with all of them; for an array of
            another shape or kind of dtype, or with a number that the dtype cannot hold.

    Example:
        >>> import jax
        >>> import policy_core as pc
        >>> config = pc.ActorCriticConfig(
        ...     observation_space=pc.Box(shape=(4,)), action_space=pc.Discrete(2)
        ... )
        >>> policy = pc.init(config, key=jax.random.key(0))
        >>> pc.surgery.from_leaves(config, pc.surgery.leaves(policy))[1] == config
        True
        >>> pc.surgery.from_leaves(config, {})
        Traceback (most recent call last):
        ...
        policy_core.errors.StructureError: leaves: 'actor/head/bias' float32(2,) is missing, and 11 ...
    """
    check_config(config)
    struct = params_struct(config)
    expected = by_path(struct, "params", StructureError)
    missing, unknown = sorted(expected.keys() - leaves.keys()), sorted(leaves.keys() - expected.keys())
    for names, why in ((missing, "is missing"), (unknown, "is not one of the config's params")):
        if names:
            first = (
                f"{names[0]!r} {_described(expected[names[0]])}" if why == "is missing" else f"{names[0]!r}"
            )
            others = f", and {len(names) - 1} others: {', '.join(names[1:])}" if names[1:] else ""
            raise StructureError(f"leaves: {first} {why}{others}"[:1000])
    arrays = []
    for name, one in expected.items():
        array = leaves[name] if isinstance(leaves[name], jax.Array) else np.asarray(leaves[name])
        shape = (*batch, *one.shape)
        if array.shape != shape:
            raise StructureError(f"leaves[{name!r}]: got shape {array.shape}, expected {shape}")
        kinds = [kind for kind in (jnp.floating, jnp.integer, jnp.bool_) if jnp.issubdtype(one.dtype, kind)]
        if array.dtype != one.dtype and not (kinds and jnp.issubdtype(array.dtype, kinds[0])):
            raise StructureError(f"leaves[{name!r}]: got dtype {array.dtype}, expected {one.dtype}")
        if array.dtype != one.dtype and isinstance(array, np.ndarray):
            with np.errstate(over="ignore"):
                array, wide = array.astype(one.dtype), array
            if not np.array_equal(np.isfinite(array), np.isfinite(wide)) or (
                np.issubdtype(wide.dtype, np.integer) and not np.array_equal(array, wide)
            ):
                raise StructureError(f"leaves[{name!r}]: got a number beyond {one.dtype}")
        arrays.append(jnp.asarray(array, one.dtype))
    return jax.tree.unflatten(jax.tree.structure(struct), arrays), config


def actor_only(policy: Policy) -> Policy:
    """The policy without its critic, for deployment: a pair with the same actions.

    Its observations are the inputs of the actor: with `actor_keys`, only those parts. `act` and
    `action_distribution` work; functions that return a value raise `StructureError`.

    Raises:
        StructureError: if the config does not implement `DetachableActorCritic`.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import policy_core as pc
        >>> space = pc.Dict({"seen": pc.Box(shape=(2,)), "hidden": pc.Box(shape=(9,))})
        >>> config = pc.ActorCriticConfig(
        ...     observation_space=space, action_space=pc.Discrete(2), actor_keys=("seen",)
        ... )
        >>> policy = pc.actor_only(pc.init(config, key=jax.random.key(0)))
        >>> state, action = pc.act(policy, pc.reset(policy), {"seen": jnp.ones(2)})
        >>> sorted(policy[0])
        ['actor']
    """
    params, config = pair(policy)
    if not isinstance(config, DetachableActorCritic):
        raise StructureError(f"config: {type(config).__name__} does not implement DetachableActorCritic")
    batch_axes(params, config)  # of a population, too
    params, config = config.actor_only(params)
    check_config(config)
    return params, config


def critic_only(policy: Policy) -> Policy:
    """The policy without its actor, for trainers with an optimizer for each: a pair with the same values.

    Its observations are the inputs of the critic: with `critic_keys`, only those parts. `value` works;
    the distribution is a `distributions.NoActor`, whose methods raise `StructureError`. What actor and
    critic share, such as a trunk, is in this pair and in that of `actor_only`. A memory that the critic
    has for itself becomes that of the policy. A file needs `self_test=False`, as nothing can be acted.

    Raises:
        StructureError: if the config does not implement `CriticActorCritic`.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import policy_core as pc
        >>> config = pc.ActorCriticConfig(
        ...     observation_space=pc.Box(shape=(4,)), action_space=pc.Discrete(2)
        ... )
        >>> policy = pc.init(config, key=jax.random.key(0))
        >>> critic = pc.surgery.critic_only(policy)
        >>> (_, a), (_, b) = (pc.value(pair, (), jnp.ones(4)) for pair in (policy, critic))
        >>> sorted(critic[0]), bool(a == b)
        (['critic'], True)
    """
    params, config = pair(policy)
    if not isinstance(config, CriticActorCritic):
        raise StructureError(f"config: {type(config).__name__} does not implement CriticActorCritic")
    batch_axes(params, config)  # of a population, too
    params, config = config.critic_only(params)
    check_config(config)
    return params, config


def _arrays(policy: Policy, name: str) -> dict[str, Any]:
    leaves = by_path(policy[0], name, StructureError)
    check_arrays(leaves, name, StructureError)
    return leaves


def _leaf(path: str, action: str, rule: str, source: Any, target: Any) -> Any:
    """The new leaf, or None for a skipped one."""
    where = f"rules[{rule!r}]: cannot {action} {path!r}"
    match action:
        case "keep":
            if target is None:
                raise StructureError(f"{where}: the target has no such leaf; skip it")
            return target
        case "skip":
            if target is not None:
                raise StructureError(f"{where}: the target has such a leaf; keep, copy or pad it")
            return None
    if source is None or target is None:
        lacking, instead = ("source", "keep") if source is None else ("target", "skip")
        raise StructureError(f"{where}: the {lacking} has no such leaf; {instead} it")
    sizes = f"{_described(source)} into {_described(target)}"
    if action == "copy":
        if spec(source) != spec(target):
            raise StructureError(f"{where}: {sizes}; pad it, or keep the target's")
        return jnp.asarray(source)
    if spec(source)[0] != spec(target)[0] or source.ndim != target.ndim:
        raise StructureError(f"{where}: {sizes}; padding changes neither the dtype nor the axes")
    if any(n > m for n, m in zip(source.shape, target.shape, strict=True)):
        raise StructureError(f"{where}: {sizes}; it is larger, and entries would be lost")
    return jnp.asarray(target).at[tuple(slice(0, n) for n in source.shape)].set(source)


def _described(leaf: Any) -> str:
    return "(absent)" if leaf is None else "{}{}".format(*spec(leaf))
