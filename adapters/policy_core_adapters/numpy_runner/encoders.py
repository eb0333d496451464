"""Encoders of policy files in NumPy: from an observation to features; see `numpy_runner`."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from policy_core_adapters.numpy_runner.networks import Array, few, find, linear, only, shaped
from policy_core_adapters.numpy_runner.spaces import flat_size_of, flatten_of, parts_of

Encode = Callable[[Any], Array]  # an observation -> features

NATURE = ((32, 8, 4), (64, 4, 2), (64, 3, 1))  # filters, side, stride


def encoder_of(config: Any, space: Any, params: Any, dtype: Any) -> tuple[Encode, int]:
    """`observation -> features` of an encoder, and its output dimension."""
    encoder: tuple[Encode, int] = find(ENCODERS, config, "encoder")(config["fields"], space, params, dtype)
    return encoder


def _flatten(fields: Any, space: Any, params: Any, dtype: Any) -> tuple[Encode, int]:
    del params
    only(fields, "Flatten")
    flatten = flatten_of(space)
    return lambda x: flatten(x).astype(dtype, copy=False), flat_size_of(space)


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


def _nature(fields: Any, space: Any, params: Any, dtype: Any) -> tuple[Encode, int]:
    only(fields, "NatureCNN", "size")
    height, width, channels = _image(space, 36)
    layers = []
    for i, (filters, side, stride) in enumerate(NATURE):
        layers.append(_convolution(params[f"convolution_{i}"], channels, filters, side, stride, 0, dtype))
        height, width, channels = (height - side) // stride + 1, (width - side) // stride + 1, filters
    return _tower(
        layers, linear(params["linear"], height * width * channels, fields["size"], dtype), fields, dtype
    )


def _minatar(fields: Any, space: Any, params: Any, dtype: Any) -> tuple[Encode, int]:
    only(fields, "MinAtarCNN", "filters", "size")
    height, width, channels = _image(space, 3)
    layer = _convolution(params["convolution"], channels, fields["filters"], 3, 1, 0, dtype)
    inputs = (height - 2) * (width - 2) * fields["filters"]
    return _tower([layer], linear(params["linear"], inputs, fields["size"], dtype), fields, dtype)


def _impala(fields: Any, space: Any, params: Any, dtype: Any) -> tuple[Encode, int]:
    only(fields, "ImpalaCNN", "channels", "blocks", "size")

    def stage(params: Any, before: int, after: int) -> Callable[[Array], Array]:
        first = _convolution(params["convolution"], before, after, 3, 1, 1, dtype)
        blocks = [
            [
                _convolution(params[f"block_{j}"][f"convolution_{k}"], after, after, 3, 1, 1, dtype)
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

    return _tower(
        [features], linear(params["linear"], height * width * before, fields["size"], dtype), fields, dtype
    )


def _image(space: Any, least: int) -> tuple[int, int, int]:
    """Height, width and channels of an image."""
    fields = space["fields"]
    if not space["type"].endswith("/Box") or len(fields["shape"]) != 3:
        raise ValueError("encoder: it takes an image, which the observation is not")
    height, width, channels = fields["shape"]
    if min(height, width) < least:
        raise ValueError(f"encoder: got an image of {height} x {width}, expected at least {least} x {least}")
    return height, width, channels


def _tower(
    layers: list[Callable[[Array], Array]], dense: Callable[[Array], Array], fields: Any, dtype: Any
) -> tuple[Encode, int]:
    """Convolutions and a linear layer, each before a ReLU, and the output dimension."""

    def encode(image: Any) -> Array:
        image = np.asarray(image)
        x = image.astype(dtype)
        if image.dtype == np.uint8:
            x /= np.asarray(255, dtype)
        for layer in layers:
            x = _relu(layer(x))
        return _relu(dense(x.ravel()))

    return encode, fields["size"]


def _convolution(
    layer: Any, channels: int, filters: int, side: int, stride: int, padding: int, dtype: Any
) -> Callable[[Array], Array]:
    """A convolution as one product of all windows with the kernel."""
    kernel = shaped(layer["kernel"], side, side, channels, filters).astype(dtype)
    kernel = kernel.transpose(2, 0, 1, 3).reshape(-1, filters)
    bias = shaped(layer["bias"], filters).astype(dtype)

    def apply(x: Array) -> Array:
        if padding:
            x = np.pad(x, ((padding, padding), (padding, padding), (0, 0)))
        windows = np.lib.stride_tricks.sliding_window_view(x, (side, side), (0, 1))[::stride, ::stride]
        rows, columns = windows.shape[:2]
        y = windows.reshape(rows * columns, -1) @ kernel + bias
        return np.asarray(y.reshape(rows, columns, filters))

    return apply


def _pooled(x: Array) -> Array:
    """The maximum over 3 x 3 at stride 2, padded."""
    pads = []
    for size in x.shape[:2]:
        whole = max(2 * (-(-size // 2) - 1) + 3 - size, 0)
        pads.append((whole // 2, whole - whole // 2))
    x = np.pad(x, (*pads, (0, 0)), constant_values=-np.inf)
    windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), (0, 1))[::2, ::2]
    return np.asarray(windows.max((-2, -1)))


def _relu(x: Array) -> Array:
    return np.maximum(x, 0)


ENCODERS: dict[str, Callable[[Any, Any, Any, Any], tuple[Encode, int]]] = {
    "policy_core/Flatten": _flatten,
    "policy_core/Embedding": _embedding,
    "policy_core/Parts": _parts,
    "policy_core/NatureCNN": _nature,
    "policy_core/ImpalaCNN": _impala,
    "policy_core/MinAtarCNN": _minatar,
}
