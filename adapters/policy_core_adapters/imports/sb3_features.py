"""What the policies of Stable-Baselines3 see: spaces, features extractors, and statistics of observations."""

from typing import Any

import numpy as np

import policy_core as pc
from policy_core_adapters.imports.pickles import Object
from policy_core_adapters.imports.report import Source

_EXTRACTORS = {"FlattenExtractor", "NatureCNN", "CombinedExtractor"}
_CNN = [f"cnn.{i}.{kind}" for i in (0, 2, 4) for kind in ("weight", "bias")]
_CNN += [f"linear.0.{kind}" for kind in ("weight", "bias")]
_TO_DO = (
    "read its code, make a config with an encoder that computes the same, and give sb3.leaves(path) under "
    "its paths to pc.surgery.from_leaves"
)


def space_of(value: Any, name: str) -> Any:
    """A space of gym or gymnasium, from its state.

    Raises:
        FileError: for what is none, or not known here.
    """
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
    if kind == "Dict" and name == "observation_space":
        return pc.Dict({key: space_of(part, f"{name}[{key!r}]") for key, part in parts_of(value).items()})
    raise pc.errors.FileError(f"{name}: a {kind} space is not known here")


def parts_of(value: Object) -> dict[str, Any]:
    """The parts of a Dict space of gym or gymnasium, in the order in which the file has them."""
    parts = value.state.get("spaces")
    if not isinstance(parts, dict) or not parts or not all(isinstance(key, str) for key in parts):
        raise pc.errors.FileError("observation_space: it is a Dict without named parts")
    return parts


def _open(bound: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Bounds at the end of float32, which mean none, as infinite ones."""
    return np.where(np.abs(bound) >= float(np.finfo(np.float32).max), np.copysign(np.inf, bound), bound)


def _dtype(value: Any, default: Any) -> Any:
    name = str(value if isinstance(value, np.dtype | str) else default)
    return name if name in ("float32", "float64", "float16", "uint8", "int32", "int64", "int8") else "float32"


def extractor_of(source: Source, fields: dict[str, Any], value: Object, keywords: dict[str, Any]) -> None:
    """Set the encoder, its sharing, and the observation space with the channels of images last.

    Args:
        source: the leaves; first layers are changed in it where they expect the features in another order.
        fields: those of the config, with the observation space as it is in the file.
        value: the observation space in the file.
        keywords: the `policy_kwargs`.

    Raises:
        FileError: for an extractor that is not known here, by its name.
    """
    chosen = keywords.get("features_extractor_class")
    own = class_name(chosen) if chosen is not None else "FlattenExtractor"
    names = [name for name in source.left if "features_extractor." in name]
    if own not in _EXTRACTORS:
        raise pc.errors.FileError(f"features_extractor_class: {own} is not of Stable-Baselines3; {_TO_DO}")
    kinds = {name.partition("features_extractor.")[2] for name in names}
    space = fields["observation_space"]
    images = {name.split(".")[1] for name in kinds if name.startswith("extractors.")} & set(_names(space))
    known = {f"extractors.{name}.{leaf}" for name in images for leaf in _CNN}
    if kinds and kinds != (known or set(_CNN)):
        raise pc.errors.FileError(
            f"features_extractor_class: the leaf {min(names)!r} is of none of Stable-Baselines3; {_TO_DO}"
        )
    owners = _owners(source, fields, names, keywords)
    raw = keywords.get("normalize_images") is False
    if not isinstance(space, pc.Dict):
        fields["encoder"] = pc.Flatten()
        if kinds:
            fields["observation_space"] = channels_last(space)
            fields["encoder"] = _nature(source, owners, "", space, raw)
        elif not raw and _is_image(space):  # pixels are divided by 255 in front of a Flatten, too
            _columns(source, np.arange(space.flat_size), np.full(space.flat_size, 1 / 255))
        return
    parts = dict(space.spaces)
    encoders: dict[str, Any] = {
        name: _nature(source, owners, name, parts[name], raw) for name in sorted(images)
    }
    fields["encoder"] = pc.Parts(encoders, rest=pc.Flatten()) if encoders else pc.Flatten()
    fields["observation_space"] = pc.Dict(
        {name: channels_last(part) if name in images else part for name, part in parts.items()}
    )
    sizes = {name: encoders[name].size if name in images else part.flat_size for name, part in parts.items()}
    starts = dict(
        zip(parts_of(value), np.cumsum([0, *(sizes[name] for name in parts_of(value))]), strict=False)
    )
    order = np.concatenate([starts[name] + np.arange(sizes[name]) for name in sorted(sizes)])
    _columns(source, order.astype(int), np.ones(len(order)))


def class_name(value: Any) -> str:
    """The name of a class in a pickle; of one that was pickled with its code, too."""
    if not isinstance(value, Object):
        return str(value)[:100]
    if value.name.endswith("._make_skeleton_class") and len(value.args) > 1:
        return str(value.args[1])[:100]
    return value.name.rpartition(".")[2]


def _names(space: Any) -> list[str]:
    return [name for name, _ in space.spaces] if isinstance(space, pc.Dict) else []


def _is_image(space: Any) -> bool:
    """Whether Stable-Baselines3 takes it for an image."""
    whole = isinstance(space, pc.Box) and len(space.shape) == 3 and space.dtype == "uint8"
    return whole and (space.low, space.high) == (0, 255)


def channels_last(space: Any) -> Any:
    """The space of an image with its channels first."""
    if not isinstance(space, pc.Box) or len(space.shape) != 3:
        raise pc.errors.FileError(f"observation_space: {space} has a CNN in front and is no image")
    bounds = [np.asarray(bound) for bound in (space.low, space.high)]
    low, high = (
        np.moveaxis(np.broadcast_to(bound.reshape(space.shape if bound.ndim else ()), space.shape), 0, -1)
        for bound in bounds
    )
    return pc.Box.of(low, high, space.dtype)


def _owners(
    source: Source, fields: dict[str, Any], names: list[str], keywords: dict[str, Any]
) -> dict[str, str]:
    """The prefix in the file and the path in the params of each extractor; other names of them are taken."""
    fronts = {name.partition("features_extractor.")[0] for name in names}
    if not names or fronts == {""}:
        return {"": "encoder"}
    if fronts != {"", "pi_", "vf_"}:
        raise pc.errors.FileError(
            f"features_extractor: got {sorted(fronts)}, expected one, or those of actor and critic beside it"
        )
    kinds = [name for name in names if name.startswith("pi_")]
    different = any(
        not np.array_equal(source.left[name], source.left[name.replace("pi_", "vf_", 1)]) for name in kinds
    )
    if different or keywords.get("share_features_extractor") is False:
        fields["encoder_sharing"] = "separate"
        owners = {"pi_": "actor/encoder", "vf_": "critic/encoder"}
    else:
        owners = {"": "encoder"}
    for name in names:
        if name.partition("features_extractor.")[0] not in owners:
            source.take(name, "not needed: another name of one that is shared")
    return owners


def _nature(source: Source, owners: dict[str, str], part: str, space: Any, raw: bool) -> Any:
    """`NatureCNN`, whose images have their channels first."""
    _, *sides = space.shape
    for side, stride in ((8, 4), (4, 2), (3, 1)):
        sides = [(n - side) // stride + 1 for n in sides]
    # Pixels of uint8 are divided by 255 here in any case; floats are not.
    scale = 255.0 if raw and space.dtype == "uint8" else 1.0
    size = 0
    for front, owner in owners.items():
        name = f"{front}features_extractor" + (f".extractors.{part}" if part else "")
        path = f"{owner}/{part}" if part else owner
        for i in range(3):
            layer = f"{name}.cnn.{2 * i}"
            weight = source.take(f"{layer}.weight", "")
            kernel = weight.transpose(2, 3, 1, 0)  # [out, in, h, w] -> [h, w, in, out]
            kernel = kernel * np.float32(scale) if i == 0 and scale != 1 else kernel
            source.put(f"{path}/convolution_{i}/kernel", kernel, f"{layer}.weight")
            source.put(f"{path}/convolution_{i}/bias", source.take(f"{layer}.bias", ""), f"{layer}.bias")
        weight = source.take(f"{name}.linear.0.weight", "")  # of pixels in the order (channels, h, w)
        size = len(weight)
        if weight.shape[1] % (sides[0] * sides[1]):
            raise pc.errors.FileError(
                f"{name}.linear.0.weight: its shape {weight.shape} is not that of {space}"
            )
        kernel = weight.reshape(size, -1, *sides).transpose(2, 3, 1, 0).reshape(-1, size)
        source.put(f"{path}/linear/kernel", kernel, f"{name}.linear.0.weight")
        source.put(f"{path}/linear/bias", source.take(f"{name}.linear.0.bias", ""), f"{name}.linear.0.bias")
    return pc.NatureCNN(size=size)


def _columns(source: Source, order: Any, scale: Any) -> None:
    """Let the first layers expect the features in another order, each multiplied by a number."""
    if np.array_equal(order, np.arange(len(order))) and np.all(scale == 1):
        return
    for name in _first(source):
        weight = source.left[name]
        if weight.shape[-1] != len(order):
            raise pc.errors.FileError(f"{name}: it has {weight.shape[-1]} inputs for {len(order)} features")
        source.left[name] = (weight[:, order] * scale).astype(weight.dtype)


def _first(source: Source) -> list[str]:
    """The leaves by which features are multiplied."""
    if "lstm_actor.weight_ih_l0" in source:
        others = ("lstm_critic.weight_ih_l0", "critic.weight")
        return ["lstm_actor.weight_ih_l0", *(name for name in others if name in source)]
    if shared := source.layers("mlp_extractor.shared_net"):
        return [f"{shared[0]}.weight"]
    towers = {"action_net": "policy_net", "value_net": "value_net"}
    return [
        f"{next(iter(source.layers(f'mlp_extractor.{tower}')), head)}.weight"
        for head, tower in towers.items()
    ]


def statistics_of(source: Source, value: Any, space: Any) -> dict[str, Any]:
    """The observation statistics of a VecNormalize, as fields of the config.

    Raises:
        FileError: for what is none, or of another observation.
    """
    state = value.state if isinstance(value, Object) and value.name.endswith(".VecNormalize") else None
    if not isinstance(state, dict):
        raise pc.errors.FileError("vecnormalize: it is not the file of VecNormalize.save")
    source.report["vecnormalize ret_rms"] = "not needed: statistics of rewards"
    if not state.get("norm_obs", True):
        return {}
    statistics = state.get("obs_rms")
    clip, epsilon = float(state["clip_obs"]), float(state["epsilon"])
    if not isinstance(space, pc.Dict):
        _moments(source, statistics, space, "")
        return {"normalize": pc.Normalize(clip=clip, epsilon=epsilon)}
    parts = dict(space.spaces)
    keys = state.get("norm_obs_keys") or list(parts)
    if not isinstance(statistics, dict) or not set(keys) <= set(statistics) & set(parts):
        raise pc.errors.FileError(
            f"vecnormalize: it normalizes {sorted(map(str, keys))}, expected parts of {sorted(parts)}"
        )
    for key in keys:
        _moments(source, statistics[key], parts[key], key)
    return {"normalize": pc.Normalize(clip=clip, epsilon=epsilon, keys=tuple(sorted(keys)))}


def _moments(source: Source, statistics: Any, space: Any, key: str) -> None:
    """The mean and variance of one part."""
    moments = statistics.state if isinstance(statistics, Object) else None
    if not isinstance(moments, dict) or not {"mean", "var", "count"} <= set(moments):
        raise pc.errors.FileError(f"vecnormalize: there are no statistics of {key or 'the observation'}")
    if not isinstance(space, pc.Box) or not space.is_float or np.shape(moments["mean"]) != space.shape:
        raise pc.errors.FileError(
            f"vecnormalize: statistics of shape {np.shape(moments['mean'])} for the space {space}, expected "
            "a Box of floats of this shape; images and integers are not normalized here"
        )
    made = pc.Normalize.statistics(moments["mean"], moments["var"], float(moments["count"]))
    front = f"normalize/{key}/" if key else "normalize/"
    for name, pair in made.items():
        source.put(f"{front}{name}", pair)
        source.report[f"vecnormalize {key} {name}".replace("  ", " ")] = f"{front}{name}"
