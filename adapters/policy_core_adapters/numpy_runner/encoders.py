"""Encoders of policy files in NumPy: from an observation to features; see `numpy_runner`."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from policy_core_adapters.numpy_runner.networks import (
    ACTIVATIONS,
    NETWORKS,
    Array,
    few,
    find,
    linear,
    only,
    shaped,
)
from policy_core_adapters.numpy_runner.spaces import flat_size_of, flatten_of, parts_of

Encode = Callable[[Any], Array]  # an observation -> features


def encoder_of(config: Any, space: Any, params: Any, dtype: Any) -> tuple[Encode, int]:
    """`observation -> features` of an encoder, and its output dimension."""
    encoder: tuple[Encode, int] = find(ENCODERS, config, "encoder")(config["fields"], space, params, dtype)
    return encoder


def _flatten(fields: Any, space: Any, params: Any, dtype: Any) -> tuple[Encode, int]:
    del params
    only(fields, "Flatten")
    return _flat(space, dtype), flat_size_of(space)


def _flat(space: Any, dtype: Any) -> Encode:
    """`element -> flat vector` of a space in a dtype."""
    flatten = flatten_of(space)
    wide = space["fields"].get("dtype") == "float64"
    if space["type"] == "policy_core/Box" and dtype == (np.float64 if wide else np.float32):
        return flatten  # which gives this dtype
    return lambda x: flatten(x).astype(dtype, copy=False)


def _encode(fields: Any, space: Any, params: Any, dtype: Any) -> tuple[Encode, int]:
    only(fields, "Encode", "network")
    flatten, data = _flat(space, dtype), fields["network"]
    network, size = find(NETWORKS, data, "network")(
        data["fields"], params, flat_size_of(space), dtype, ACTIVATIONS
    )
    return lambda x: network(flatten(x)), size


def _embedding(fields: Any, space: Any, params: Any, dtype: Any) -> tuple[Encode, int]:
    only(fields, "Embedding", "size")
    bits = space["type"] == "policy_core/MultiBinary"
    total = flat_size_of(space) * (2 if bits else 1)
    table = shaped(params["table"], total, fields["size"]).astype(dtype)
    flatten, counts = flatten_of(space), _categories(space["type"], space["fields"])
    rows = [slice(end - n, end) for n, end in zip(counts, np.cumsum(counts), strict=True)]

    def encode(x: Any) -> Array:
        one_hot = flatten(x)
        if bits:
            one_hot = np.ravel(np.stack([one_hot == 0, one_hot == 1], -1))
        one_hot = one_hot.astype(dtype)
        return np.concatenate([one_hot[part] @ table[part] for part in rows])

    return encode, fields["size"] * len(counts)


def _categories(name: str, fields: Any) -> list[int]:
    """The number of categories of each part of a discrete space."""
    match name:
        case "policy_core/Discrete":
            return [fields["n"]]
        case "policy_core/MultiBinary":
            return [2] * math.prod(fields["shape"])
        case _:
            return list(fields["nvec"])


def _parts(fields: Any, space: Any, params: Any, dtype: Any) -> tuple[Encode, int]:
    only(fields, "Parts", "encoders", "rest")
    named = dict(fields["encoders"])
    parts = {
        key: encoder_of(named.get(key, fields["rest"]), part, params.get(str(key), {}), dtype)
        for key, part in parts_of(space).items()
    }

    def encode(x: Any) -> Array:
        return np.concatenate([np.zeros(0, dtype), *(f(x[key]) for key, (f, _) in parts.items())])

    return encode, sum(size for _, size in parts.values())


def _cnn(fields: Any, space: Any, params: Any, dtype: Any) -> tuple[Encode, int]:
    names = ("channels", "kernels", "strides", "padding", "pool", "window", "activation", "size", "gain")
    only(fields, "CNN", *names)
    return _convolutions(fields, space, params, dtype, least=1)


def _nature(fields: Any, space: Any, params: Any, dtype: Any) -> tuple[Encode, int]:
    only(fields, "NatureCNN", "size")
    layers = {"channels": [32, 64, 64], "kernels": [8, 4, 3], "strides": [4, 2, 1]}
    return _convolutions({**_PLAIN, **layers, **fields}, space, params, dtype, least=36)


def _minatar(fields: Any, space: Any, params: Any, dtype: Any) -> tuple[Encode, int]:
    only(fields, "MinAtarCNN", "filters", "size")
    layers = {"channels": [fields["filters"]], "kernels": [3], "size": fields["size"]}
    return _convolutions({**_PLAIN, **layers}, space, params, dtype, least=3)


_PLAIN = {"strides": None, "padding": "VALID", "pool": "none", "window": 2, "activation": "relu"}


def _convolutions(fields: Any, space: Any, params: Any, dtype: Any, least: int) -> tuple[Encode, int]:
    """A `CNN`: convolutions, each with an activation and pooling, and a linear layer."""
    height, width, channels = _image(space, least)
    few(len(fields["channels"]), "CNN.channels")
    activation, padding, pool, window = (
        ACTIVATIONS.get(fields["activation"]),
        *(fields[name] for name in ("padding", "pool", "window")),
    )
    if activation is None or padding not in ("VALID", "SAME") or pool not in ("none", "max", "mean"):
        raise ValueError(
            f"CNN: this runner does not support {fields['activation']!r}, {padding!r} or {pool!r}"
        )
    layers = []
    strides = fields["strides"] or [1] * len(fields["channels"])
    for i, (filters, side, stride) in enumerate(
        zip(fields["channels"], fields["kernels"], strides, strict=True)
    ):
        layer = params[f"convolution_{i}"]
        layers.append(_convolution(layer, channels, filters, side, stride, padding, dtype))
        lost = side if padding == "VALID" else 1
        height, width, channels = (height - lost) // stride + 1, (width - lost) // stride + 1, filters
        if pool != "none":
            height, width = height // window, width // window
        if min(height, width) < 1:
            raise ValueError("CNN: the image is too small for its layers")
    size, inputs = fields["size"], height * width * channels
    dense = None if size is None else linear(params["linear"], inputs, size, dtype)

    def encode(image: Any) -> Array:
        x = _pixels(image, dtype)
        for layer in layers:
            x = activation(layer(x))
            if pool != "none":
                x = _pooled_apart(x, window, pool)
        x = x.ravel()
        return x if dense is None else activation(dense(x))

    return encode, inputs if size is None else size


def _pooled_apart(x: Array, window: int, pool: str) -> Array:
    rows, columns, channels = x.shape[0] // window, x.shape[1] // window, x.shape[2]
    windows = x[: rows * window, : columns * window].reshape(rows, window, columns, window, channels)
    return np.asarray(windows.max((1, 3)) if pool == "max" else windows.mean((1, 3)))


def _impala(fields: Any, space: Any, params: Any, dtype: Any) -> tuple[Encode, int]:
    only(fields, "ImpalaCNN", "channels", "blocks", "size")

    def stage(params: Any, before: int, after: int) -> Callable[[Array], Array]:
        first = _convolution(params["convolution"], before, after, 3, 1, "SAME", dtype)
        blocks = [
            [
                _convolution(params[f"block_{j}"][f"convolution_{k}"], after, after, 3, 1, "SAME", dtype)
                for k in range(2)
            ]
            for j in range(few(fields["blocks"], "ImpalaCNN.blocks"))
        ]

        def apply(x: Array) -> Array:
            x = _pooled(first(x))
            for one, two in blocks:
                x = x + two(_relu(one(_relu(x))))
            return x

        return apply

    height, width, before = _image(space, 1)
    stages = []
    few(len(fields["channels"]), "ImpalaCNN.channels")
    for i, after in enumerate(fields["channels"]):
        stages.append(stage(params[f"stage_{i}"], before, after))
        height, width, before = -(-height // 2), -(-width // 2), after

    def features(x: Array) -> Array:
        for apply in stages:
            x = apply(x)
        return x

    dense = linear(params["linear"], height * width * before, fields["size"], dtype)
    return lambda x: _relu(dense(_relu(features(_pixels(x, dtype))).ravel())), fields["size"]


def _image(space: Any, least: int) -> tuple[int, int, int]:
    """Height, width and channels of an image."""
    fields = space["fields"]
    if not space["type"].endswith("/Box") or len(fields["shape"]) != 3:
        raise ValueError("encoder: it takes an image, which the observation is not")
    height, width, channels = fields["shape"]
    if min(height, width) < least:
        raise ValueError(f"encoder: got an image of {height} x {width}, expected at least {least} x {least}")
    return height, width, channels


def _pixels(image: Any, dtype: Any) -> Array:
    """The image in a dtype, uint8 divided by 255."""
    image = np.asarray(image)
    x: Array = image.astype(dtype)
    return x / np.asarray(255, dtype) if image.dtype == np.uint8 else x


def _convolution(
    layer: Any, channels: int, filters: int, side: int, stride: int, padding: str, dtype: Any
) -> Callable[[Array], Array]:
    """A convolution as one product of all windows with the kernel."""
    kernel = shaped(layer["kernel"], side, side, channels, filters).astype(dtype)
    kernel = kernel.transpose(2, 0, 1, 3).reshape(-1, filters)
    bias = shaped(layer["bias"], filters).astype(dtype)

    def apply(x: Array) -> Array:
        if padding == "SAME":
            x = np.pad(x, (*_pads(x.shape[:2], side, stride), (0, 0)))
        windows = np.lib.stride_tricks.sliding_window_view(x, (side, side), (0, 1))[::stride, ::stride]
        rows, columns = windows.shape[:2]
        y = windows.reshape(rows * columns, -1) @ kernel + bias
        return np.asarray(y.reshape(rows, columns, filters))

    return apply


def _pads(sides: tuple[int, ...], side: int, stride: int) -> list[tuple[int, int]]:
    """How many pixels are put before and behind each axis, so that ceil(size / stride) windows fit."""
    wholes = [max(stride * (-(-size // stride) - 1) + side - size, 0) for size in sides]
    return [(whole // 2, whole - whole // 2) for whole in wholes]


def _pooled(x: Array) -> Array:
    """The maximum over 3 x 3 at stride 2, padded."""
    x = np.pad(x, (*_pads(x.shape[:2], 3, 2), (0, 0)), constant_values=-np.inf)
    windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), (0, 1))[::2, ::2]
    return np.asarray(windows.max((-2, -1)))


def _relu(x: Array) -> Array:
    return np.maximum(x, 0)


ENCODERS: dict[str, Callable[[Any, Any, Any, Any], tuple[Encode, int]]] = {
    "policy_core/Flatten": _flatten,
    "policy_core/Encode": _encode,
    "policy_core/Embedding": _embedding,
    "policy_core/Parts": _parts,
    "policy_core/CNN": _cnn,
    "policy_core/NatureCNN": _nature,
    "policy_core/ImpalaCNN": _impala,
    "policy_core/MinAtarCNN": _minatar,
}
