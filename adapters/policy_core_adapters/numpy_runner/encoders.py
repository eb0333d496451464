"""Encoders of policy files in NumPy: from an observation to features; see `numpy_runner`."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from policy_core_adapters.numpy_runner.networks import Array, find, linear, only, shaped
from policy_core_adapters.numpy_runner.spaces import flatten_of, parts_of

Encode = Callable[[Any], Array]  # an observation -> features

NATURE = ((8, 4), (4, 2), (3, 1))  # side, stride


def encoder_of(config: Any, space: Any, params: Any, dtype: Any) -> Encode:
    """`observation -> features` of an encoder."""
    encode: Encode = find(ENCODERS, config, "encoder")(config["fields"], space, params, dtype)
    return encode


def _flatten(fields: Any, space: Any, params: Any, dtype: Any) -> Encode:
    del params
    only(fields, "Flatten")
    flatten = flatten_of(space)
    return lambda x: flatten(x).astype(dtype, copy=False)


def _embedding(fields: Any, space: Any, params: Any, dtype: Any) -> Encode:
    only(fields, "Embedding", "size")
    flatten, counts = flatten_of(space), _categories(space["type"], space["fields"])
    table = shaped(params["table"], sum(counts), fields["size"]).astype(dtype)
    rows = [slice(end - n, end) for n, end in zip(counts, np.cumsum(counts), strict=True)]
    bits = space["type"] == "policy_core/MultiBinary"

    def encode(x: Any) -> Array:
        one_hot = flatten(x)
        if bits:
            one_hot = np.ravel(np.stack([one_hot == 0, one_hot == 1], -1))
        one_hot = one_hot.astype(dtype)
        return np.concatenate([one_hot[part] @ table[part] for part in rows])

    return encode


def _categories(name: str, fields: Any) -> list[int]:
    """The number of categories of each entry of a discrete space."""
    match name:
        case "policy_core/Discrete":
            return [fields["n"]]
        case "policy_core/MultiBinary":
            return [2] * math.prod(fields["shape"])
        case _:
            return list(fields["nvec"])


def _parts(fields: Any, space: Any, params: Any, dtype: Any) -> Encode:
    only(fields, "Parts", "encoders", "rest")
    named = dict(fields["encoders"])
    parts = {
        key: encoder_of(named.get(key, fields["rest"]), part, params.get(str(key), {}), dtype)
        for key, part in parts_of(space).items()
    }
    return lambda x: np.concatenate([np.zeros(0, dtype), *(f(x[key]) for key, f in parts.items())])


def _nature(fields: Any, space: Any, params: Any, dtype: Any) -> Encode:
    only(fields, "NatureCNN", "size")
    layers = [
        _convolution(params[f"convolution_{i}"], side, stride, 0, dtype)
        for i, (side, stride) in enumerate(NATURE)
    ]
    return _tower(layers, params["linear"], space, dtype)


def _minatar(fields: Any, space: Any, params: Any, dtype: Any) -> Encode:
    only(fields, "MinAtarCNN", "filters", "size")
    return _tower([_convolution(params["convolution"], 3, 1, 0, dtype)], params["linear"], space, dtype)


def _impala(fields: Any, space: Any, params: Any, dtype: Any) -> Encode:
    only(fields, "ImpalaCNN", "channels", "blocks", "size")

    def stage(params: Any) -> Callable[[Array], Array]:
        first = _convolution(params["convolution"], 3, 1, 1, dtype)
        blocks = [
            [_convolution(params[f"block_{j}"][f"convolution_{k}"], 3, 1, 1, dtype) for k in range(2)]
            for j in range(fields["blocks"])
        ]

        def apply(x: Array) -> Array:
            x = _pooled(first(x))
            for one, two in blocks:
                x = x + two(_relu(one(_relu(x))))
            return x

        return apply

    stages = [stage(params[f"stage_{i}"]) for i in range(len(fields["channels"]))]

    def features(x: Array) -> Array:
        for apply in stages:
            x = apply(x)
        return x

    return _tower([features], params["linear"], space, dtype)


def _tower(layers: list[Callable[[Array], Array]], last: Any, space: Any, dtype: Any) -> Encode:
    """Convolutional layers and a linear layer, each followed by ReLU."""
    shape, dense = tuple(space["fields"]["shape"]), linear(last, dtype)

    def encode(image: Any) -> Array:
        image = np.asarray(image)
        if image.shape != shape:
            raise ValueError(f"observation: got an image of shape {image.shape}, expected {shape}")
        x = image.astype(dtype)
        if image.dtype == np.uint8:
            x /= np.asarray(255, dtype)
        for layer in layers:
            x = _relu(layer(x))
        return _relu(dense(x.ravel()))

    return encode


def _convolution(layer: Any, side: int, stride: int, padding: int, dtype: Any) -> Callable[[Array], Array]:
    """A convolution as one matrix product of all windows with the kernel."""
    channels, filters = layer["kernel"].shape[2:]
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
    """3 x 3 max pooling at stride 2, padded as "SAME" in JAX."""
    pads = []
    for size in x.shape[:2]:
        total = max(2 * (-(-size // 2) - 1) + 3 - size, 0)
        pads.append((total // 2, total - total // 2))
    x = np.pad(x, (*pads, (0, 0)), constant_values=-np.inf)
    windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), (0, 1))[::2, ::2]
    return np.asarray(windows.max((-2, -1)))


def _relu(x: Array) -> Array:
    return np.maximum(x, 0)


ENCODERS: dict[str, Callable[[Any, Any, Any, Any], Encode]] = {
    "policy_core/Flatten": _flatten,
    "policy_core/Embedding": _embedding,
    "policy_core/Parts": _parts,
    "policy_core/NatureCNN": _nature,
    "policy_core/ImpalaCNN": _impala,
    "policy_core/MinAtarCNN": _minatar,
}
