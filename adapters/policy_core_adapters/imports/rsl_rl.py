"""Policies of rsl-rl, legged_gym and Isaac Lab: exported TorchScript actors, and training checkpoints."""

import hashlib
import math
import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import policy_core as pc
from policy_core_adapters.imports.pickles import Object, load_torch
from policy_core_adapters.imports.report import Imported, Source

_ACTIVATIONS = {
    "ELU": "elu", "ReLU": "relu", "SELU": "selu", "LeakyReLU": "leaky_relu", "Tanh": "tanh", "SiLU": "silu",
    "Sigmoid": "sigmoid", "Identity": "identity",
}  # fmt: skip
_NOT_NEEDED = {
    "hidden_state": "not needed: state of the exported module", "cell_state": "not needed: likewise",
}  # fmt: skip
_EPSILON = 0.01  # of rsl-rl's EmpiricalNormalization
_STD = (math.log(1e-6), math.log(1e6))  # the range to which versions from 4 on clip the log-std


class _Names(NamedTuple):
    """What the parts of one network are called in a file; "" for what it has not."""

    layers: str
    memory: str
    statistics: str


def load(path: str | os.PathLike[str], *, activation: str = "elu") -> Imported:
    """The policy in `policy.pt`, as TorchScript of an actor, or in `model_*.pt`, a training checkpoint.

    Actions are those of the module: the raw ones, which the robot multiplies by its scale and adds to its
    default pose; `NormalHead(offset=, factor=, clip=)` does that in the policy. A TorchScript file has no
    critic, and no standard deviation: the deterministic action is what comes over.

    Where the critic of a checkpoint sees something else than the actor (it has other inputs, or statistics of
    its own), observations are a `Dict` of "policy" and "critic", as Isaac Lab calls them, of which each sees
    its part; `pc.actor_only` leaves the critic behind.

    Args:
        path: the file.
        activation: that of a training checkpoint, which does not say; TorchScript does.

    Returns:
        The policy, a report of every leaf, and metadata to save with it.

    Raises:
        FileError: for a file that is damaged, or asks for anything that is not data; for a module that is
            not known here, by its name.
    """
    content = Path(path).read_bytes()
    value = load_torch(content)
    metadata = {
        "imported from": "rsl-rl", "version": "not in the file",
        "sha256": hashlib.sha256(content).hexdigest(),
    }  # fmt: skip
    if isinstance(value, Object) and value.name.startswith("__torch__."):
        metadata["module"] = value.name.removeprefix("__torch__.")
        return _exported(value, metadata)
    leaves = _leaves(value) if isinstance(value, dict) else {}
    if not leaves:
        raise pc.errors.FileError(
            "the file is neither TorchScript nor a checkpoint with a model_state_dict or an actor_state_dict"
        )
    source = Source(leaves)
    return _policy(source, activation, _named(source, "actor"), _named(source, "critic"), metadata)


def _leaves(value: dict[str, Any]) -> dict[str, Any]:
    """The arrays of a checkpoint: of versions up to 3 together, after that by network."""
    parts = {
        "": "model_state_dict", "actor.": "actor_state_dict", "critic.": "critic_state_dict",
        "actor_obs_normalizer.": "obs_norm_state_dict",
        "critic_obs_normalizer.": "privileged_obs_norm_state_dict",
    }  # fmt: skip
    return {
        f"{front}{name}": leaf
        for front, key in parts.items()
        if isinstance(state := value.get(key), dict)
        for name, leaf in state.items()
        if isinstance(leaf, np.ndarray)
    }


def _named(source: Source, network: str) -> _Names | None:
    """The names of the parts of the actor or the critic; None if there is none."""
    if source.layers(f"{network}.mlp"):
        names = _Names(f"{network}.mlp", f"{network}.rnn.rnn", f"{network}.obs_normalizer")
    elif source.layers(network):
        names = _Names(network, f"memory_{network[0]}.rnn", f"{network}_obs_normalizer")
    else:
        return None
    return _present(source, names)


def _present(source: Source, names: _Names) -> _Names:
    return names._replace(
        memory=names.memory if f"{names.memory}.weight_ih_l0" in source else "",
        statistics=names.statistics if f"{names.statistics}._mean" in source else "",
    )


def _exported(module: Object, metadata: dict[str, str]) -> Imported:
    """An actor as TorchScript: its parts are `actor` and `normalizer`, from version 4 on `mlp` and so on."""
    state = module.state if isinstance(module.state, dict) else {}
    leaves: dict[str, Any] = {}
    _collect(module, "", leaves)
    source = Source(leaves)
    for name in list(source.left):
        if name in _NOT_NEEDED:
            source.take(name, _NOT_NEEDED[name])
    layers = "mlp" if "mlp" in state else "actor"
    actor = state.get(layers)
    if not isinstance(actor, Object) or not isinstance(actor.state, dict):
        raise pc.errors.FileError(f"module: {module.name} has no actor that is a Sequential")
    names = {_kind(inner) for inner in actor.state.values() if isinstance(inner, Object)} - {"Linear"}
    if len(names) > 1 or not names <= set(_ACTIVATIONS):
        raise pc.errors.FileError(
            f"actor: it has the modules {sorted(names)}, expected linear layers and one activation"
        )
    activation = _ACTIVATIONS[names.pop()] if names else "identity"
    output = _kind(state.get("deterministic_output"))
    if output not in ("Identity", "_IdentityDeterministicOutput"):
        raise pc.errors.FileError(
            f"deterministic_output: {output} is not known here; expected the mean as it is"
        )
    name = "obs_normalizer" if "obs_normalizer" in state else "normalizer"
    normalizer = state.get(name)
    if (kind := _kind(normalizer)) not in ("Identity", "EmpiricalNormalization"):
        raise pc.errors.FileError(f"{name}: {kind} is not known here")
    epsilon = normalizer.state.get("eps", _EPSILON) if isinstance(normalizer, Object) else _EPSILON
    rnn = "memory" if "memory" in state else "rnn"
    if _kind(state.get(rnn)) not in ("Identity", "LSTM", "GRU"):
        raise pc.errors.FileError(f"{rnn}: {_kind(state[rnn])} is not known here, expected an LSTM or a GRU")
    parts = _present(source, _Names(layers, rnn, name))
    return _policy(source, activation, parts, None, metadata, exported=True, epsilon=float(epsilon))


def _kind(module: Any) -> str:
    """The name of the class of a module; that of none is "Identity"."""
    return module.name.rpartition(".")[2] if isinstance(module, Object) else "Identity"


def _collect(module: Object, front: str, leaves: dict[str, Any]) -> None:
    """The arrays of a module and of those in it, by name, as in a state dict."""
    for name, value in (module.state or {}).items():
        if isinstance(value, np.ndarray):
            leaves[front + name] = value
        elif isinstance(value, Object):
            _collect(value, f"{front}{name}.", leaves)


def _policy(
    source: Source,
    activation: str,
    actor: _Names | None,
    critic: _Names | None,
    metadata: dict[str, str],
    *,
    exported: bool = False,
    epsilon: float = _EPSILON,
) -> Imported:
    if actor is None or not source.layers(actor.layers):
        raise pc.errors.FileError(
            f"actor: there are no layers actor.0, ...; there are {sorted(source.left)[:20]}"
        )
    networks = {"actor": actor} | ({"critic": critic} if critic is not None else {})
    apart = critic is not None and _see_apart(source, actor, critic)
    spaces = {"policy" if owner == "actor" else owner: pc.Box(shape=(_inputs(source, names),))
              for owner, names in networks.items()}  # fmt: skip
    fields: dict[str, Any] = {
        "observation_space": pc.Dict(spaces) if apart else spaces["policy"],
        "critic": None,
    }
    if apart:
        fields |= {"actor_keys": ("policy",), "critic_keys": ("critic",)}
    _statistics(source, fields, networks, apart, epsilon)
    for owner, names in networks.items():
        if names.memory:
            fields["memory_sharing"] = "separate" if owner == "critic" else "actor"
            memory = source.memory(f"{owner}/memory", names.memory)
            if fields.setdefault("memory", memory) != memory:
                raise pc.errors.FileError(f"memory: actor and critic have {fields['memory']} and {memory}")
        widths = source.mlp(f"{owner}/tower", names.layers, f"{owner}/head")
        fields[owner] = pc.MLP(widths, activation=activation)
    fields["action_space"] = pc.Box(shape=(len(source.params["actor/head/bias"]),))
    fields["box_head"] = pc.NormalHead(_scale(source, exported))
    return source.finish(pc.ActorCriticConfig(**fields), metadata)


def _inputs(source: Source, names: _Names) -> int:
    name = f"{names.memory}.weight_ih_l0" if names.memory else f"{source.layers(names.layers)[0]}.weight"
    return int(source.left[name].shape[1])


def _see_apart(source: Source, actor: _Names, critic: _Names) -> bool:
    """Whether the critic sees something else than the actor."""
    if _inputs(source, actor) != _inputs(source, critic) or bool(actor.statistics) != bool(critic.statistics):
        return True
    return bool(actor.statistics) and any(
        not np.array_equal(
            source.left[f"{actor.statistics}.{part}"], source.left[f"{critic.statistics}.{part}"]
        )
        for part in ("_mean", "_std")
    )


def _scale(source: Source, exported: bool) -> Any:
    """The standard deviation of actions: a number of each, or its logarithm."""
    forms = {
        "std": pc.Scale(positive="identity"),
        "log_std": pc.Scale(),
        "actor.distribution.std_param": pc.Scale(positive="identity", low=_STD[0], high=_STD[1]),
        "actor.distribution.log_std_param": pc.Scale(low=_STD[0], high=_STD[1]),
    }
    for name, scale in forms.items():
        if name in source:
            source.put("actor/head/scale", source.take(name, "").ravel(), name)
            return scale
    if not exported:
        raise pc.errors.FileError(
            f"std: the checkpoint has none of {', '.join(forms)}; a distribution whose std depends on the "
            "observation, or that is no normal one, is not known here"
        )
    return pc.Scale(std="fixed", log_std=0.0)


def _statistics(
    source: Source, fields: dict[str, Any], networks: dict[str, _Names], apart: bool, epsilon: float
) -> None:
    """`EmpiricalNormalization`: (x - mean) / (std + 0.01)."""
    keys = []
    for owner, names in networks.items():
        if not (name := names.statistics):
            continue
        key = "policy" if owner == "actor" else owner
        path = f"normalize/{key}" if apart else "normalize"
        again = owner == "critic" and not apart
        mean, std = (
            source.take(
                f"{name}.{part}", "not needed: those of the actor" if again else f"{path}/{to}"
            ).ravel()
            for part, to in (("_mean", "mean"), ("_std", "variance"))
        )
        if f"{name}._var" in source:
            source.take(f"{name}._var", "not needed: the square of _std")
        count = source.take(f"{name}.count", f"{path}/count") if f"{name}.count" in source else 1.0
        if not again:
            keys.append(key)
            source.statistics(path, mean, np.square(std.astype(np.float64)), float(np.ravel(count)[0]))
    if keys:
        names_ = tuple(sorted(keys)) if apart and len(keys) < len(networks) else None
        fields["normalize"] = pc.Normalize(clip=math.inf, epsilon=epsilon, form="std", keys=names_)
