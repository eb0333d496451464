"""Policies of rsl-rl, legged_gym and Isaac Lab: exported TorchScript actors, and training checkpoints."""

import hashlib
import math
import os
from pathlib import Path
from typing import Any

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


def load(path: str | os.PathLike[str], *, activation: str = "elu") -> Imported:
    """The policy in `policy.pt`, as TorchScript of an actor, or in `model_*.pt`, a training checkpoint.

    Actions are those of the module: the raw ones, which the robot multiplies by its scale and adds to its
    default pose; `NormalHead(offset=, factor=, clip=)` does that in the policy. A TorchScript file has no
    critic, and no standard deviation: the deterministic action is what comes over.

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
    metadata = {"imported from": "rsl-rl", "sha256": hashlib.sha256(content).hexdigest()}
    if isinstance(value, Object) and value.name.startswith("__torch__."):
        metadata["module"] = value.name.removeprefix("__torch__.")
        return _exported(value, metadata)
    state = value.get("model_state_dict") if isinstance(value, dict) else None
    if not isinstance(state, dict):
        raise pc.errors.FileError("the file is neither TorchScript nor a checkpoint with a model_state_dict")
    return _checkpoint(state, activation, metadata)


def _exported(module: Object, metadata: dict[str, str]) -> Imported:
    leaves: dict[str, Any] = {}
    _collect(module, "", leaves)
    source = Source(leaves)
    for name in list(source.left):
        if name in _NOT_NEEDED:
            source.take(name, _NOT_NEEDED[name])
    actor = module.state.get("actor") if isinstance(module.state, dict) else None
    if not isinstance(actor, Object) or not isinstance(actor.state, dict):
        raise pc.errors.FileError(f"module: {module.name} has no actor that is a Sequential")
    names = {inner.name.rpartition(".")[2] for inner in actor.state.values() if isinstance(inner, Object)} - {
        "Linear"
    }
    if len(names) > 1 or not names <= set(_ACTIVATIONS):
        raise pc.errors.FileError(
            f"actor: it has the modules {sorted(names)}, expected linear layers and one activation"
        )
    activation = _ACTIVATIONS[names.pop()] if names else "identity"
    normalizer = module.state.get("normalizer")
    kind = normalizer.name.rpartition(".")[2] if isinstance(normalizer, Object) else "Identity"
    if kind not in ("Identity", "EmpiricalNormalization"):
        raise pc.errors.FileError(f"normalizer: {kind} is not known here")
    statistics = "normalizer" if kind == "EmpiricalNormalization" else ""
    memory = module.state.get("memory", module.state.get("rnn"))
    if memory is not None and not (isinstance(memory, Object) and memory.name.endswith(".LSTM")):
        raise pc.errors.FileError(
            f"memory: {getattr(memory, 'name', memory)} is not known here, expected an LSTM"
        )
    name = "memory" if "memory" in module.state else "rnn"
    return _policy(source, activation, name if memory is not None else "", statistics, None, metadata)


def _collect(module: Object, front: str, leaves: dict[str, Any]) -> None:
    """The arrays of a module and of those in it, by name, as in a state dict."""
    for name, value in (module.state or {}).items():
        if isinstance(value, np.ndarray):
            leaves[front + name] = value
        elif isinstance(value, Object):
            _collect(value, f"{front}{name}.", leaves)


def _checkpoint(state: dict[str, Any], activation: str, metadata: dict[str, str]) -> Imported:
    source = Source({str(name): leaf for name, leaf in state.items() if isinstance(leaf, np.ndarray)})
    memory = "memory_a.rnn" if "memory_a.rnn.weight_ih_l0" in source else ""
    statistics = "actor_obs_normalizer" if "actor_obs_normalizer._mean" in source else ""
    return _policy(source, activation, memory, statistics, "critic", metadata)


def _policy(
    source: Source,
    activation: str,
    memory: str,
    statistics: str,
    critic: str | None,
    metadata: dict[str, str],
) -> Imported:
    fields: dict[str, Any] = {"critic": None, "memory_sharing": "shared"}
    if memory:
        fields["memory"] = pc.LSTM(source.left[f"{memory}.weight_hh_l0"].shape[1])
        fields["memory_sharing"] = "actor"
        inputs = source.left[f"{memory}.weight_ih_l0"].shape[1]
        _memory(source, "actor/memory", memory)
    else:
        if not (layers := source.layers("actor")):
            raise pc.errors.FileError(
                f"actor: there are no layers actor.0, ...; there are {sorted(source.left)[:20]}"
            )
        inputs = source.left[f"{layers[0]}.weight"].shape[1]
    fields["actor"] = pc.MLP(source.mlp("actor/tower", "actor", "actor/head"), activation=activation)
    outputs = len(source.params["actor/head/bias"])
    fields["observation_space"] = pc.Box(shape=(inputs,))
    fields["action_space"] = pc.Box(shape=(outputs,))
    scale = pc.Scale(std="fixed", log_std=0.0)
    if "std" in source:
        scale = pc.Scale(positive="identity")
        source.put("actor/head/scale", source.take("std", ""), "std")
    elif "log_std" in source:
        scale = pc.Scale()
        source.put("actor/head/scale", source.take("log_std", ""), "log_std")
    fields["box_head"] = pc.NormalHead(scale)
    if critic is not None and source.layers(critic):
        _critic(source, fields, critic, inputs, activation)
    if statistics:
        _statistics(source, fields, statistics)
    return source.finish(pc.ActorCriticConfig(**fields), metadata)


def _critic(source: Source, fields: dict[str, Any], critic: str, inputs: int, activation: str) -> None:
    seen = source.left[f"{source.layers(critic)[0]}.weight"].shape[1]
    recurrent = "memory_c.rnn.weight_ih_l0" in source
    seen = source.left["memory_c.rnn.weight_ih_l0"].shape[1] if recurrent else seen
    if seen != inputs:
        raise pc.errors.FileError(
            f"critic: it has {seen} inputs and the actor {inputs}; which of them are the actor's is not in "
            "the file"
        )
    if recurrent:
        fields["memory_sharing"] = "separate"
        _memory(source, "critic/memory", "memory_c.rnn")
    fields["critic"] = pc.MLP(source.mlp("critic/tower", critic, "critic/head"), activation=activation)


def _memory(source: Source, path: str, name: str) -> None:
    if f"{name}.weight_ih_l1" in source:
        raise pc.errors.FileError(f"{name}: an LSTM of several layers is not known here")
    source.lstm(path, name)


def _statistics(source: Source, fields: dict[str, Any], name: str) -> None:
    """`EmpiricalNormalization`: (x - mean) / (std + 0.01)."""
    fields["normalize"] = pc.Normalize(clip=math.inf, epsilon=_EPSILON, form="std")
    mean, std = (source.take(f"{name}.{part}", f"normalize/{to}").ravel()
                 for part, to in (("_mean", "mean"), ("_std", "variance")))  # fmt: skip
    if f"{name}._var" in source:
        source.take(f"{name}._var", "not needed: the square of _std")
    count = 1.0
    if f"{name}.count" in source:
        count = float(source.take(f"{name}.count", "normalize/count").ravel()[0])
    for part, pair in pc.Normalize.statistics(mean, np.square(std.astype(np.float64)), count).items():
        source.put(f"normalize/{part}", pair)
