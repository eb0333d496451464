"""Surgery on policies: leaves from one to another, and an actor without its critic."""

import fnmatch
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from policy_core.checks.arguments import check_config, pair
from policy_core.contract import DetachableActorCritic, Policy
from policy_core.errors import StructureError
from policy_core.trees import by_path, check_arrays, spec

LeafAction = Literal["copy", "keep", "pad", "skip"]
_ACTIONS = ("copy", "keep", "pad", "skip")


class LeafReport(NamedTuple):
    """One row of the report of a transplant.

    Args:
        path: its keys, joined by "/".
        action: "copy", "keep", "pad" or "skip".
        rule: the glob that said so.
        source: dtype and shape there, or "(absent)".
        target: likewise.

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
    """The target with leaves of the source, and a report of every leaf of either.

    Args:
        source: a policy.
        target: a policy, such as a fresh one of another config. It is not changed.
        rules: path globs (`*` also matches "/") to what happens to the leaves that match; the
            first that matches counts, and every leaf must match one:

            - "copy": the leaf of the source, of the same dtype and shape.
            - "pad": the leaf of the source in the first places of each axis, what the target
              has beyond them; for a wider layer or more actions. It may not be larger.
            - "keep": the leaf of the target, whatever the source has.
            - "skip": the leaf of the source is left out on purpose; the target has none.

    Returns:
        The pair `(params, config of the target)`, and the report, in the order of the paths.

    Raises:
        StructureError: for a leaf that no rule matches, one that its rule does not fit, a rule
            that matches nothing, and so for every leaf that would be dropped in silence.

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
    given, had = _arrays(source, "source"), _arrays(target, "target")
    leaves: dict[str, Any] = {}
    report = []
    for path in sorted({*given, *had}):
        rule = next((glob for glob in rules if fnmatch.fnmatchcase(path, glob)), None)
        a, b = given.get(path), had.get(path)
        said = _described(a), _described(b)
        if rule is None:
            raise StructureError(
                f"rules: no rule matches {path!r}, {said[0]} in the source and {said[1]} in the target; "
                "copy, pad, keep or skip it"
            )
        leaves[path] = _leaf(path, rules[rule], rule, a, b)
        report.append(LeafReport(path, rules[rule], rule, *said))
    if unused := [glob for glob in rules if glob not in {row.rule for row in report}]:
        raise StructureError(f"rules: {unused[0]!r} decides about no leaf; correct it or take it out")
    structure = jax.tree.structure(target[0])
    return (jax.tree.unflatten(structure, [leaves[path] for path in had]), target[1]), tuple(report)


def actor_only(policy: Policy) -> Policy:
    """The policy without its critic, to be deployed: it acts alike and is a pair like any other.

    It takes what the actor sees: with `actor_keys`, only those parts of an observation. `act`
    and `action_distribution` work; whatever needs a value raises `StructureError`.

    Raises:
        StructureError: if the config does not offer `DetachableActorCritic`.

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
    params, config = config.actor_only(params)
    check_config(config)
    return params, config


def _arrays(policy: Policy, name: str) -> dict[str, Any]:
    leaves = by_path(policy[0], name, StructureError)
    check_arrays(leaves, name, StructureError)
    return leaves


def _leaf(path: str, action: str, rule: str, source: Any, target: Any) -> Any:
    """The new leaf, or None for one that is skipped."""
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
        raise StructureError(f"{where}: {sizes}; it is larger, and numbers would be lost")
    return jnp.asarray(target).at[tuple(slice(0, n) for n in source.shape)].set(source)


def _described(leaf: Any) -> str:
    return "(absent)" if leaf is None else "{}{}".format(*spec(leaf))
