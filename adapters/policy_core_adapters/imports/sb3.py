"""Policies of Stable-Baselines3 and sb3-contrib: `load("ppo.zip", "vecnormalize.pkl")`, without torch.

PPO, A2C, TRPO, MaskablePPO and RecurrentPPO of versions 1.0 to 2.9, with `MlpPolicy`, `CnnPolicy`,
`MultiInputPolicy` or their recurrent forms, for `Discrete`, `MultiDiscrete`, `MultiBinary` and `Box` actions.
"""

import base64
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

import policy_core as pc
from policy_core_adapters.imports.pickles import Object, load_torch, open_zip, read_member
from policy_core_adapters.imports.pickles import load as load_pickle
from policy_core_adapters.imports.report import Imported, Source
from policy_core_adapters.imports.sb3_features import class_name, extractor_of, space_of, statistics_of

_ACTIVATIONS = {
    "ReLU": "relu", "Tanh": "tanh", "ELU": "elu", "LeakyReLU": "leaky_relu", "SELU": "selu", "SiLU": "silu",
    "Sigmoid": "sigmoid", "Softplus": "softplus", "Identity": "identity",
}  # fmt: skip
_POLICIES = {
    f"{front}{kind}Policy" for front in ("", "Maskable", "Recurrent", "MultiInput", "MaskableMultiInput",
                                         "RecurrentMultiInput") for kind in ("ActorCritic", "ActorCriticCnn")
}  # fmt: skip

PathLike = str | os.PathLike[str]


def load(path: PathLike, vecnormalize: PathLike | None = None) -> Imported:
    """The policy in a zip of Stable-Baselines3, with its observation statistics.

    Deterministic actions, log-probabilities, entropies and values are those of the original. The environment
    action is clipped to the bounds, as `predict` of SB3 does. Images that go through a `NatureCNN` have their
    channels last here, those of stacked frames too; SB3 has them first, so leave out `VecTransposeImage`.
    Anything else is as the model sees it, an image of an `MlpPolicy` too. gSDE becomes a `GSDEHead`, whose
    matrix is drawn once an episode where SB3 draws it once a rollout; the density of a squashed one
    (`squash_output`) is that within the bounds of the action, where that of SB3 is within -1 and 1.

    Args:
        path: the zip.
        vecnormalize: the file of `VecNormalize.save`, or None. Its observation statistics become `Normalize`;
            those of rewards are not needed to act.

    Returns:
        The policy, a report of every leaf, and metadata to save with it.

    Raises:
        FileError: for a file that is damaged, or asks for anything that is not data; for a policy class or an
            extractor of one's own, or whatever else is not known here, by its name.
    """
    content = Path(path).read_bytes()
    archive = open_zip(content)
    try:
        data = json.loads(read_member(archive, "data"))
    except (ValueError, RecursionError) as error:
        raise pc.errors.FileError(f"data: it is no JSON: {error}") from error
    if not isinstance(data, dict):
        raise pc.errors.FileError("data: it is not that of a model of Stable-Baselines3")
    policy_class = _policy_class(data)
    source = Source(_arrays(load_torch(read_member(archive, "policy.pth"))))
    keywords = _value(data, "policy_kwargs", strangers=True) or {}
    if not isinstance(keywords, dict):
        raise pc.errors.FileError("policy_kwargs: they are no dict")
    seen = _value(data, "observation_space")
    observation_space = space_of(seen, "observation_space")
    action_space = space_of(_value(data, "action_space"), "action_space")
    fields: dict[str, Any] = {"observation_space": observation_space, "action_space": action_space}
    if data.get("use_sde"):
        if keywords.get("sde_net_arch") is not None:
            raise pc.errors.FileError(
                "sde_net_arch: features of its own for the noise of gSDE are not known here"
            )
        fields["box_head"] = _gsde(source, data, keywords, action_space)
    elif isinstance(action_space, pc.Box):
        fields["box_head"] = pc.NormalHead()
        source.put("actor/head/scale", source.take("log_std", "").reshape(action_space.shape), "log_std")
    activation = _activation(keywords)
    extractor_of(source, fields, seen, keywords)
    _towers(source, fields, activation)
    if vecnormalize is not None:
        fields |= statistics_of(source, load_pickle(Path(vecnormalize).read_bytes()), observation_space)
    version = read_member(archive, "_stable_baselines3_version").decode("utf-8", "replace").strip()[:100]
    metadata = {
        "imported from": "Stable-Baselines3", "version": version, "policy class": policy_class,
        "sha256": hashlib.sha256(content).hexdigest(),
    }  # fmt: skip
    return source.finish(pc.ActorCriticConfig(**fields), metadata)


def leaves(path: PathLike) -> dict[str, np.ndarray[Any, Any]]:
    """The weights in a zip of Stable-Baselines3 by their names, for a policy that `load` does not know.

    Raises:
        FileError: for a file that is damaged, or asks for anything that is not data.
    """
    return _arrays(load_torch(read_member(open_zip(Path(path).read_bytes()), "policy.pth")))


def _arrays(state: Any) -> dict[str, Any]:
    if not isinstance(state, dict) or not all(isinstance(leaf, np.ndarray) for leaf in state.values()):
        raise pc.errors.FileError("policy.pth: it is not a state dict")
    return {str(name): leaf for name, leaf in state.items()}


def _value(data: dict[str, Any], name: str, strangers: bool = False) -> Any:
    """An entry of the JSON: pickled, or as it is."""
    entry = data.get(name)
    if isinstance(entry, dict) and ":serialized:" in entry:
        try:
            return load_pickle(base64.b64decode(entry[":serialized:"], validate=True), strangers=strangers)
        except (TypeError, ValueError) as error:
            raise pc.errors.FileError(f"{name}: {error}") from error
    return entry


def _policy_class(data: dict[str, Any]) -> str:
    """The name of the policy's class, which is one of Stable-Baselines3 or its contrib."""
    value = _value(data, "policy_class", strangers=True)
    module = (
        value.name
        if isinstance(value, Object)
        else value.get("__module__")
        if isinstance(value, dict)
        else value
    )
    name = class_name(value) if isinstance(value, Object) else "ActorCriticPolicy"
    if not str(module).startswith(("stable_baselines3.", "sb3_contrib.")) or name not in _POLICIES:
        name = name if isinstance(value, Object) else str(module)[:100]
        raise pc.errors.FileError(
            f"policy_class: {name} is no actor-critic of Stable-Baselines3; if it computes what one of them "
            "does, save the same weights with that class, else give sb3.leaves(path) under the paths of a "
            "config of yours to pc.surgery.from_leaves"
        )
    return name


def _activation(keywords: Any) -> str:
    value = keywords.get("activation_fn") if isinstance(keywords, dict) else None
    if value is None:
        return "tanh"
    name = value.name.rpartition(".")[2] if isinstance(value, Object) else str(value)
    if name not in _ACTIVATIONS:
        raise pc.errors.FileError(
            f"activation_fn: {name} is not known here; known are {', '.join(_ACTIVATIONS)}"
        )
    return _ACTIVATIONS[name]


def _gsde(source: Source, data: dict[str, Any], keywords: dict[str, Any], space: Any) -> Any:
    """The head of a policy that explores by gSDE."""
    log_std, full = source.take("log_std", ""), bool(keywords.get("full_std", True))
    columns = space.flat_size if full else 1
    if log_std.ndim != 2 or log_std.shape[1] != columns:
        raise pc.errors.FileError(
            f"use_sde: log_std has the shape {log_std.shape}, expected (features, {columns})"
        )
    source.put("actor/head/log_std", log_std, "log_std")
    every = data.get("sde_sample_freq", -1)
    return pc.heads.GSDEHead(
        full_std=full,
        positive="expln" if keywords.get("use_expln") else "exp",
        squash=bool(keywords.get("squash_output")),
        resample_every=every if type(every) is int and every > 0 else None,
    )


def _towers(source: Source, fields: dict[str, Any], activation: str) -> None:
    """Memories, the shared network, and the two networks with their last layers."""
    if source.layers("mlp_extractor.shared_net"):
        fields["trunk"] = pc.MLP(source.mlp("trunk", "mlp_extractor.shared_net"), activation=activation)
    _memories(source, fields)
    actor = source.mlp("actor/tower", "mlp_extractor.policy_net")
    fields["actor"] = pc.MLP(actor, activation=activation)
    if "critic.weight" in source:  # RecurrentPPO without an LSTM of the critic: a linear layer in its place
        width = len(source.left["critic.bias"])
        source.linear("critic/tower/network_0/hidden_0", "critic")
        rest = source.mlp("critic/tower/network_1", "mlp_extractor.value_net")
        linear = pc.MLP((width,), activation="identity")
        fields["critic"] = pc.networks.Sequential((linear, pc.MLP(rest, activation=activation)))
    else:
        critic = source.mlp("critic/tower", "mlp_extractor.value_net")
        fields["critic"] = pc.MLP(critic, activation=activation)
    source.linear("actor/head", "action_net")
    source.linear("critic/head", "value_net")


def _memories(source: Source, fields: dict[str, Any]) -> None:
    """The LSTMs of a recurrent policy."""
    owners = {"actor": "lstm_actor", "critic": "lstm_critic"}
    sizes: dict[str, list[int]] = {}
    for owner, name in owners.items():
        sizes[owner] = []
        while f"{name}.weight_ih_l{len(sizes[owner])}" in source:
            i = len(sizes[owner])
            sizes[owner].append(source.left[f"{name}.weight_hh_l{i}"].shape[1])
    if not sizes["actor"]:
        return
    if sizes["critic"] and sizes["critic"] != sizes["actor"]:
        raise pc.errors.FileError(
            f"lstm: actor and critic have {sizes['actor']} and {sizes['critic']}, expected the same"
        )
    cells = tuple(pc.LSTM(size) for size in sizes["actor"])
    fields["memory"] = cells[0] if len(cells) == 1 else pc.Stack(cells)
    alone = "critic.weight" in source
    fields["memory_sharing"] = "separate" if sizes["critic"] else "actor" if alone else "shared"
    for owner, name in owners.items():
        front = "memory" if fields["memory_sharing"] == "shared" else f"{owner}/memory"
        for i in range(len(sizes[owner])):
            source.lstm(front if len(cells) == 1 else f"{front}/layer_{i}", name, i)
