"""Params of flax, as scripts and libraries in JAX save them: `load(source, config, rules)`.

    found = flax_params.load("ppo.pkl", config, flax_params.gymnax_blines)

`config` says what the policy is, for params do not; `rules` say which layer of the source is which of the
policy. A rule goes from a path in the source to one in the params, for a layer or a whole module:

    {"Dense_0": "trunk/hidden_0", "ScannedRNN_0/GRUCell_*": "memory", "Dense_1": "actor/head", ...}

Names below "params" are joined by "/", globs are allowed, and where two layers go to one path their outputs
are beside each other, in the order of the rules, as for a mean and a std. A GRU or LSTM of flax is known by
its gates. Ready rules are functions from a config to such a table, for it says how many layers there are.
"""

import fnmatch
import hashlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

import policy_core as pc
from policy_core_adapters.imports import safetensors
from policy_core_adapters.imports.pickles import Object
from policy_core_adapters.imports.pickles import load as load_pickle
from policy_core_adapters.imports.report import Imported, Source

Rules = Mapping[str, str] | Callable[[Any], Mapping[str, str]]

_GRU = {"ir", "iz", "in", "hr", "hz", "hn"}
_LSTM = {"ii", "if", "ig", "io", "hi", "hf", "hg", "ho"}
_DEEPEST = 50


def load(source: Any, config: Any, rules: Rules) -> Imported:
    """A policy from params of flax.

    Args:
        source: a path of a pickle or a file of safetensors, or the tree itself: nested mappings of arrays, or
            arrays by names whose parts are joined by "/", "," or ".". A pickle may hold it under "network",
            "params", "model" or "agent".
        config: the config of the policy.
        rules: the table, or a function from the config to it, such as `purejaxrl`.

    Returns:
        The policy, a report of every leaf, and metadata to save with it.

    Raises:
        FileError: for a file that is damaged, or asks for anything that is not data; for a rule that fits no
            module or several, and a leaf that no rule takes.
        StructureError: for a leaf of another shape than that of the config.

    Example:
        >>> import jax
        >>> import policy_core as pc
        >>> from policy_core_adapters.imports import flax_params
        >>> config = pc.ActorCriticConfig(
        ...     observation_space=pc.Box(shape=(4,)), action_space=pc.Discrete(2)
        ... )
        >>> policy = pc.init(config, key=jax.random.key(0))
        >>> tree = flax_params.dump(policy, flax_params.purejaxrl)
        >>> sorted(tree["params"])
        ['Dense_0', 'Dense_1', 'Dense_2', 'Dense_3', 'Dense_4', 'Dense_5']
        >>> flax_params.load(tree, config, flax_params.purejaxrl).policy[1] == config
        True
    """
    metadata = {"imported from": "flax", "version": "not in the file"}
    if isinstance(source, str | os.PathLike):
        content = Path(source).read_bytes()
        metadata["sha256"] = hashlib.sha256(content).hexdigest()
        source = _tree(content, source)
    leaves = _flat(source)
    table = rules(config) if callable(rules) else rules
    taken = Source(leaves)
    parts: dict[str, list[dict[str, np.ndarray[Any, Any]]]] = {}
    for pattern, path in table.items():
        module = _module(taken, pattern)
        for name, leaf in _converted(taken, module, path).items():
            parts.setdefault(name, []).append({module: leaf})
    for path, pieces in parts.items():
        arrays = [array for piece in pieces for array in piece.values()]
        taken.params[path] = np.concatenate(arrays, -1) if len(arrays) > 1 else arrays[0]
    _shift(taken.params, config, -1)
    return taken.finish(config, metadata)


def dump(policy: Any, rules: Rules) -> dict[str, Any]:
    """The params of a policy as a tree of flax, the inverse of `load`.

    `safetensors.save(path, flax.traverse_util.flatten_dict(tree, sep=","))` writes it as JaxMARL does.

    Args:
        policy: the pair.
        rules: as of `load`. Two rules to one path share its outputs equally.

    Returns:
        `{"params": ...}`, nested.

    Raises:
        FileError: for a leaf that no rule takes, a rule that takes none, and a rule with a glob other
            than that of a cell.

    Example: see `load`.
    """
    table = rules(policy[1]) if callable(rules) else rules
    leaves = {name: np.asarray(leaf) for name, leaf in pc.surgery.leaves(policy).items()}
    _shift(leaves, policy[1], 1)
    left = set(leaves)
    tree: dict[str, Any] = {}
    for pattern, path in table.items():
        memory = getattr(policy[1], "memory", None)
        name = "GRUCell_0" if isinstance(memory, pc.GRU) else "OptimizedLSTMCell_0"
        target = pattern.replace("*Cell_*", name)
        if any(sign in target for sign in "*?["):
            raise pc.errors.FileError(f"rules: {pattern!r} is a glob, expected one name to write")
        sharing = [other for other, to in table.items() if to == path]
        inside = [other for other in table.values() if other.startswith(f"{path}/")]  # rules of their own
        found = {
            name: leaf
            for name, leaf in leaves.items()
            if _within(name, path) and not any(_within(name, other) for other in inside)
        }
        if not found:
            raise pc.errors.FileError(f"rules: {pattern!r} goes to {path!r}, which the policy has not")
        left -= set(found)
        inner = {name[len(path) :].lstrip("/"): leaf for name, leaf in found.items()}
        if len(sharing) > 1:
            which = sharing.index(pattern)
            inner = {name: np.split(leaf, len(sharing), -1)[which] for name, leaf in inner.items()}
        place = tree
        *front, last = target.split("/")
        for name in front:
            place = place.setdefault(name, {})
        place[last] = (
            inner[""] if set(inner) == {""} else _gates(inner) if "recurrent/kernel" in inner else inner
        )
    if left:
        raise pc.errors.FileError(f"rules: none takes {min(left)!r}, nor {len(left) - 1} others")
    return {"params": tree}


def _tree(content: bytes, path: Any) -> Any:
    """The tree in a file."""
    if str(path).endswith(".safetensors"):
        return safetensors.load(path)[0]
    value = _plain(load_pickle(content))
    inner = [
        value[name] for name in ("network", "model", "agent") if isinstance(value, dict) and name in value
    ]
    return next((part for part in inner if isinstance(part, dict)), value)


def _plain(value: Any, depth: int = 0) -> Any:
    """Without a FrozenDict or a DotMap, which are dicts."""
    if depth > _DEEPEST:
        raise pc.errors.FileError(f"params: nested deeper than {_DEEPEST}")
    if isinstance(value, Object):
        inner = value.args[0] if value.args else (value.state or {})
        inner = inner.get("_dict", inner.get("_map", inner)) if isinstance(inner, dict) else inner
        return _plain(inner, depth + 1)
    if isinstance(value, Mapping):
        return {str(name): _plain(inner, depth + 1) for name, inner in value.items()}
    if (fields := getattr(value, "_asdict", None)) is not None:  # of a NamedTuple
        return _plain(fields(), depth + 1)
    return value


def _flat(tree: Any) -> dict[str, np.ndarray[Any, Any]]:
    """The arrays by path, without "params", in whatever form they came."""
    leaves: dict[str, Any] = {}

    def collect(front: tuple[str, ...], part: Any) -> None:
        if isinstance(part, Mapping):
            for name, inner in part.items():
                joined = str(name).replace(",", "/").replace(".", "/")
                collect((*front, *(one for one in joined.split("/") if one != "params")), inner)
        elif hasattr(part, "shape") and np.asarray(part).dtype.kind in "fiub":
            leaves["/".join(front)] = np.asarray(part)
        else:
            raise pc.errors.FileError(
                f"params: {'/'.join(front) or 'the source'!r} is a {type(part).__name__}, expected arrays in "
                "mappings"
            )

    collect((), _plain(tree))
    return leaves


def _module(source: Source, pattern: str) -> str:
    """The one module, or leaf, that fits a pattern."""
    depth = pattern.count("/") + 1
    found = {"/".join(name.split("/")[:depth]) for name in source.left if name.count("/") >= depth - 1}
    fits = sorted(name for name in found if fnmatch.fnmatchcase(name, pattern))
    if len(fits) != 1:
        there = sorted({name.rpartition("/")[0] or name for name in source.left})
        raise pc.errors.FileError(
            f"rules: {pattern!r} fits {fits or 'nothing'}, expected one; there are {there}"[:600]
        )
    return fits[0]


def _converted(source: Source, module: str, path: str) -> dict[str, np.ndarray[Any, Any]]:
    """The leaves of a module, by their paths."""
    if module in source:
        return {path: source.take(module, path)}
    names = sorted(name for name in source.left if name.startswith(f"{module}/"))
    parts = {name[len(module) + 1 :].partition("/")[0] for name in names}
    gates = ("r", "z", "n") if parts == _GRU else ("i", "f", "g", "o") if parts == _LSTM else ()
    if not gates:
        return {(to := f"{path}/{name[len(module) + 1 :]}"): source.take(name, to) for name in names}
    result: dict[str, np.ndarray[Any, Any]] = {}
    for side, part in (("i", "input"), ("h", "recurrent")):
        leaves = [f"{module}/{side}{gate}/kernel" for gate in gates]
        result[f"{path}/{part}/kernel"] = np.concatenate(
            [source.take(leaf, f"{path}/{part}/kernel") for leaf in leaves], -1
        )
    if gates == ("r", "z", "n"):
        biases = [f"{module}/i{gate}/bias" for gate in gates]
        result[f"{path}/recurrent/bias"] = source.take(f"{module}/hn/bias", f"{path}/recurrent/bias")
    else:
        biases = [f"{module}/h{gate}/bias" for gate in gates]
    result[f"{path}/input/bias"] = np.concatenate(
        [source.take(leaf, f"{path}/input/bias") for leaf in biases]
    )
    return result


def _within(name: str, path: str) -> bool:
    return name == path or name.startswith(f"{path}/")


def _gates(inner: dict[str, np.ndarray[Any, Any]]) -> dict[str, Any]:
    """The layers of a cell of flax."""
    of_gru = "recurrent/bias" in inner
    gates = ("r", "z", "n") if of_gru else ("i", "f", "g", "o")
    tree: dict[str, Any] = {f"{side}{gate}": {} for side in "ih" for gate in gates}
    for side, part in (("i", "input"), ("h", "recurrent")):
        for gate, kernel in zip(gates, np.split(inner[f"{part}/kernel"], len(gates), -1), strict=True):
            tree[f"{side}{gate}"]["kernel"] = kernel
    for gate, bias in zip(gates, np.split(inner["input/bias"], len(gates)), strict=True):
        tree[f"{'i' if of_gru else 'h'}{gate}"]["bias"] = bias
    if of_gru:
        tree["hn"]["bias"] = inner["recurrent/bias"]
    return tree


def _shift(leaves: dict[str, Any], config: Any, sign: int) -> None:
    """What `Scale` adds to the output of the head is not in the source."""
    scale = getattr(getattr(config, "box_head", None), "scale", None)
    bias = leaves.get("actor/head/bias")
    if scale is None or scale.std != "state" or bias is None or not isinstance(config.action_space, pc.Box):
        return
    wide = np.asarray(bias, np.float64).copy()
    wide[len(wide) // 2 :] += sign * scale.raw
    leaves["actor/head/bias"] = wide.astype(np.asarray(bias).dtype) if sign > 0 else wide


# READY RULES


def purejaxrl(config: Any) -> dict[str, str]:
    """PureJaxRL's `ActorCritic`, `ActorCriticRNN` with a memory, JaxMARL's feed-forward and recurrent IPPO.

    Layers are counted: those of the trunk, if there is a memory, those of the actor, those of the critic;
    there is a `log_std` if actions are continuous.
    """
    rules, count = {}, 0
    if config.memory is not None:
        for i in range(len(config.trunk.hidden)):
            rules[f"Dense_{i}"] = f"trunk/hidden_{i}"
        count = len(config.trunk.hidden)
        rules |= {"ScannedRNN_0/*Cell_*": "memory"}
    for owner in ("actor", "critic"):
        network = getattr(config, owner)
        if network is None:
            continue
        for i in range(len(network.hidden)):
            rules[f"Dense_{count + i}"] = f"{owner}/tower/hidden_{i}"
        count += len(network.hidden)
        rules[f"Dense_{count}"] = f"{owner}/head"
        count += 1
    return rules | ({"log_std": "actor/head/scale"} if isinstance(config.action_space, pc.Box) else {})


def jaxmarl_mappo(config: Any) -> dict[str, str]:
    """JaxMARL's recurrent MAPPO: `load({"actor": ..., "critic": ...}, config, jaxmarl_mappo)`.

    The first layer is the encoder, `Encode(MLP(...))` of the part that each sees, and each has its memory.
    The file of an actor alone goes into a config without a critic, with a `trunk` and a memory.
    """
    if config.critic is None:
        owner = "actor/" if config.memory_sharing == "actor" else ""
        return {
            name: f"{owner}memory" if path == "memory" else path for name, path in purejaxrl(config).items()
        }
    rules: dict[str, str] = {}
    for owner in ("actor", "critic"):
        encoder, path = config.encoder, f"{owner}/encoder"
        if (keys := getattr(config, f"{owner}_keys")) is not None:
            encoder, path = dict(encoder.encoders)[keys[0]], f"{path}/{keys[0]}"
        first, hidden = len(encoder.network.hidden), len(getattr(config, owner).hidden)
        rules |= {f"{owner}/Dense_{i}": f"{path}/hidden_{i}" for i in range(first)}
        rules[f"{owner}/ScannedRNN_0/*Cell_*"] = f"{owner}/memory"
        rules |= {f"{owner}/Dense_{first + i}": f"{owner}/tower/hidden_{i}" for i in range(hidden)}
        rules[f"{owner}/Dense_{first + hidden}"] = f"{owner}/head"
    return rules


def gymnax_blines(config: Any) -> dict[str, str]:
    """gymnax-blines' `CategoricalSeparateMLP` and `GaussianSeparateMLP`: std = softplus(raw) + 0.001."""
    actor, critic = len(config.actor.hidden), len(config.critic.hidden)
    rules = {f"critic_fc_{i + 1}": f"critic/tower/hidden_{i}" for i in range(critic)} | {
        "critic_fc_v": "critic/head"
    }
    if isinstance(config.action_space, pc.Box):
        rules |= {f"actor_fc_{i + 1}": f"actor/tower/hidden_{i}" for i in range(actor)}
        return rules | {"actor_fc_mu": "actor/head", "actor_fc_scale": "actor/head"}
    return (
        rules
        | {f"Dense_{i}": f"actor/tower/hidden_{i}" for i in range(actor)}
        | {f"Dense_{actor}": "actor/head"}
    )


def stoix(config: Any) -> dict[str, str]:
    """Stoix' `FeedForwardActor` and `FeedForwardCritic` of an `MLPTorso`, as `ActorCriticParams`.

    Heads: `CategoricalHead`; `MultivariateNormalDiagHead`, whose std is (softplus(raw) + 1e-6 / f) f with
    f = 0.3 / log 2; `NormalTanhDistributionHead`, squashed with softplus(raw) + 0.001.
    """
    rules = {}
    for owner, head in (("actor", "action_head"), ("critic", "critic_head")):
        for i in range(len(getattr(config, owner).hidden)):
            rules[f"{owner}_params/torso/Dense_{i}"] = f"{owner}/tower/hidden_{i}"
        rules[f"{owner}_params/{head}/Dense_0"] = f"{owner}/head"
        if owner == "actor" and isinstance(config.action_space, pc.Box):
            rules["actor_params/action_head/Dense_1"] = "actor/head"
    return rules


def rejax(config: Any) -> dict[str, str]:
    """rejax' PPO: `{"actor": actor_ts.params, "critic": critic_ts.params}`; discrete, Gaussian or Beta."""
    actor, critic = len(config.actor.hidden), len(config.critic.hidden)
    rules = {f"actor/features/Dense_{i}": f"actor/tower/hidden_{i}" for i in range(actor)}
    rules |= {f"critic/Dense_{i}": f"critic/tower/hidden_{i}" for i in range(critic)}
    rules[f"critic/Dense_{critic}"] = "critic/head"
    if not isinstance(config.action_space, pc.Box):
        return rules | {"actor/action_logits": "actor/head"}
    if isinstance(config.box_head, pc.BetaHead):
        return rules | {"actor/alpha": "actor/head", "actor/beta": "actor/head"}
    return rules | {"actor/action_mean": "actor/head", "actor/action_log_std": "actor/head/scale"}
