"""Policies of Stable-Baselines3 and sb3-contrib: `load("ppo.zip", "vecnormalize.pkl")`, without torch.

PPO, A2C, TRPO, MaskablePPO and RecurrentPPO of versions 1.0 to 2.9, with `MlpPolicy`, `MlpLstmPolicy` or
`CnnPolicy`, for `Discrete`, `MultiDiscrete`, `MultiBinary` and `Box` actions.
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

_ACTIVATIONS = {
    "ReLU": "relu", "Tanh": "tanh", "ELU": "elu", "LeakyReLU": "leaky_relu", "SELU": "selu", "SiLU": "silu",
    "Sigmoid": "sigmoid", "Softplus": "softplus", "Identity": "identity",
}  # fmt: skip
_POLICIES = {
    "ActorCriticPolicy", "ActorCriticCnnPolicy", "MaskableActorCriticPolicy", "MaskableActorCriticCnnPolicy",
    "RecurrentActorCriticPolicy", "RecurrentActorCriticCnnPolicy",
}  # fmt: skip

PathLike = str | os.PathLike[str]


def load(path: PathLike, vecnormalize: PathLike | None = None) -> Imported:
    """The policy in a zip of Stable-Baselines3, with its observation statistics.

    Deterministic actions, log-probabilities, entropies and values are those of the original. The environment
    action is clipped to the bounds, as `predict` of SB3 does. Images have their channels last here; SB3 has
    them first, so transpose what `VecTransposeImage` transposed. gSDE becomes a `GSDEHead`, whose matrix is
    drawn once an episode where SB3 draws it once a rollout; the density of a squashed one (`squash_output`)
    is that within the bounds of the action, where that of SB3 is within -1 and 1.

    Args:
        path: the zip.
        vecnormalize: the file of `VecNormalize.save`, or None. Its observation statistics become `Normalize`;
            those of rewards are not needed to act.

    Returns:
        The policy, a report of every leaf, and metadata to save with it.

    Raises:
        FileError: for a file that is damaged, or asks for anything that is not data; for a policy with an
            extractor of its own, or whatever else is not known here, by its name.
    """
    content = Path(path).read_bytes()
    archive = open_zip(content)
    try:
        data = json.loads(read_member(archive, "data"))
    except (ValueError, RecursionError) as error:
        raise pc.errors.FileError(f"data: it is no JSON: {error}") from error
    source = Source(_arrays(load_torch(read_member(archive, "policy.pth"))))
    if not isinstance(data, dict):
        raise pc.errors.FileError("data: it is not that of a model of Stable-Baselines3")
    keywords = _value(data, "policy_kwargs") or {}
    observation_space = _space(_value(data, "observation_space"), "observation_space")
    action_space = _space(_value(data, "action_space"), "action_space")
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
    fields["encoder"] = _encoder(source, fields, keywords)
    _towers(source, fields, activation)
    if vecnormalize is not None:
        fields |= _statistics(source, load_pickle(Path(vecnormalize).read_bytes()), observation_space)
    version = _text(archive, "_stable_baselines3_version")
    metadata = {
        "imported from": "Stable-Baselines3", "version": version, "policy class": _class_name(data),
        "sha256": hashlib.sha256(content).hexdigest(),
    }  # fmt: skip
    return source.finish(pc.ActorCriticConfig(**fields), metadata)


def _arrays(state: Any) -> dict[str, Any]:
    if not isinstance(state, dict) or not all(isinstance(leaf, np.ndarray) for leaf in state.values()):
        raise pc.errors.FileError("policy.pth: it is not a state dict")
    return {str(name): leaf for name, leaf in state.items()}


def _value(data: dict[str, Any], name: str) -> Any:
    """An entry of the JSON: pickled, or as it is."""
    entry = data.get(name)
    if isinstance(entry, dict) and ":serialized:" in entry:
        try:
            return load_pickle(base64.b64decode(entry[":serialized:"], validate=True))
        except ValueError as error:
            raise pc.errors.FileError(f"{name}: {error}") from error
    return entry


def _class_name(data: dict[str, Any]) -> str:
    entry = data.get("policy_class")
    module = entry.get("__module__", "") if isinstance(entry, dict) else ""
    return str(module)[:200]


def _text(archive: Any, name: str) -> str:
    return read_member(archive, name).decode("utf-8", "replace").strip()[:100]


def _space(value: Any, name: str) -> Any:
    """A space of gym or gymnasium, from its state."""
    if not isinstance(value, Object) or not isinstance(value.state, dict):
        raise pc.errors.FileError(f"{name}: it is not a space of gym or gymnasium")
    kind, state = value.name.rpartition(".")[2], value.state
    if kind == "Box":
        low, high = np.asarray(state["low"], np.float64), np.asarray(state["high"], np.float64)
        return pc.Box.of(_open(low), _open(high), _dtype(state.get("dtype"), np.asarray(state["low"]).dtype))
    if kind == "Discrete":
        return pc.Discrete(int(state["n"]), start=int(state.get("start", 0)))
    if kind == "MultiDiscrete":
        sizes = np.asarray(state["nvec"])
        return pc.MultiDiscrete(tuple(sizes.ravel().tolist()), shape=tuple(sizes.shape))
    if kind == "MultiBinary":
        shape = state["n"]
        return pc.MultiBinary(tuple(np.ravel(shape).tolist()))
    raise pc.errors.FileError(f"{name}: a {kind} space is not known here")


def _open(bound: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Bounds at the end of float32, which mean none, as infinite ones."""
    return np.where(np.abs(bound) >= float(np.finfo(np.float32).max), np.copysign(np.inf, bound), bound)


def _dtype(value: Any, default: Any) -> Any:
    name = str(value if isinstance(value, np.dtype | str) else default)
    return name if name in ("float32", "float64", "float16", "uint8", "int32", "int64", "int8") else "float32"


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


_CNN = [f"cnn.{i}.{kind}" for i in (0, 2, 4) for kind in ("weight", "bias")]
_CNN += [f"linear.0.{kind}" for kind in ("weight", "bias")]


def _encoder(source: Source, fields: dict[str, Any], keywords: dict[str, Any]) -> Any:
    """The features extractor: none but a flattening, or the CNN of Mnih et al. 2015."""
    names = [name for name in source.left if "features_extractor." in name]
    if not names:
        return pc.Flatten()
    fronts = {name.partition("features_extractor.")[0] for name in names}
    kinds = {name.partition("features_extractor.")[2] for name in names}
    if kinds == set(_CNN) and fronts <= {"", "pi_", "vf_"}:
        return _nature(source, fields, fronts, keywords)
    extractor = keywords.get("features_extractor_class")
    own = extractor.name if isinstance(extractor, Object) else "an extractor of its own"
    raise pc.errors.FileError(
        f"features_extractor_class: {own} has the leaf {min(names)!r}, which is not known here; make a "
        "config that has such an encoder, and give its leaves to pc.surgery.from_leaves"
    )


def _nature(source: Source, fields: dict[str, Any], fronts: set[str], keywords: dict[str, Any]) -> Any:
    """`NatureCNN` of SB3: channels first, and pixels that are divided by 255."""
    if keywords.get("normalize_images") is False:
        raise pc.errors.FileError(
            "normalize_images: the policy takes pixels up to 255, which is not known here"
        )
    channels, height, width = fields["observation_space"].shape
    fields["observation_space"] = pc.Box(low=0, high=255, shape=(height, width, channels), dtype="uint8")
    sides = [height, width]
    for side, stride in ((8, 4), (4, 2), (3, 1)):
        sides = [(n - side) // stride + 1 for n in sides]
    separate = keywords.get("share_features_extractor") is False
    owners = {"pi_": "actor/encoder", "vf_": "critic/encoder"} if separate else {"": "encoder"}
    if separate:
        fields["encoder_sharing"] = "separate"
    size = 0
    for front, path in owners.items():
        name = f"{front}features_extractor"
        for i in range(3):
            layer = f"{name}.cnn.{2 * i}"
            kernel = source.take(f"{layer}.weight", "").transpose(
                2, 3, 1, 0
            )  # [out, in, h, w] -> [h, w, in, out]
            source.put(f"{path}/convolution_{i}/kernel", kernel, f"{layer}.weight")
            source.put(f"{path}/convolution_{i}/bias", source.take(f"{layer}.bias", ""), f"{layer}.bias")
        weight = source.take(f"{name}.linear.0.weight", "")  # of pixels in the order (channels, h, w)
        size = len(weight)
        kernel = weight.reshape(size, -1, *sides).transpose(2, 3, 1, 0).reshape(-1, size)
        source.put(f"{path}/linear/kernel", kernel, f"{name}.linear.0.weight")
        source.put(f"{path}/linear/bias", source.take(f"{name}.linear.0.bias", ""), f"{name}.linear.0.bias")
    for front in fronts - owners.keys():
        for kind in _CNN:
            source.take(f"{front}features_extractor.{kind}", "not needed: another name of one that is shared")
    return pc.NatureCNN(size=size)


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


def _statistics(source: Source, value: Any, space: Any) -> dict[str, Any]:
    """The observation statistics of a VecNormalize."""
    state = value.state if isinstance(value, Object) and value.name.endswith(".VecNormalize") else None
    if not isinstance(state, dict):
        raise pc.errors.FileError("vecnormalize: it is not the file of VecNormalize.save")
    if not state.get("norm_obs", True):
        return {}
    statistics = state.get("obs_rms")
    if not isinstance(statistics, Object) or not isinstance(statistics.state, dict):
        raise pc.errors.FileError("vecnormalize: statistics of a Dict observation are not known here")
    moments = statistics.state
    if np.shape(moments["mean"]) != space.shape or not space.is_float:
        raise pc.errors.FileError(
            f"vecnormalize: statistics of shape {np.shape(moments['mean'])} for an observation space {space}"
        )
    made = pc.Normalize.statistics(moments["mean"], moments["var"], float(moments["count"]))
    for name, pair in made.items():
        source.put(f"normalize/{name}", pair)
        source.report[f"vecnormalize {name}"] = f"normalize/{name}"
    source.report["vecnormalize ret_rms"] = "not needed: statistics of rewards"
    return {"normalize": pc.Normalize(clip=float(state["clip_obs"]), epsilon=float(state["epsilon"]))}
