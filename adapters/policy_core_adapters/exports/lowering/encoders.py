"""Encoders as graphs: from an observation to features."""

from collections.abc import Callable
from typing import Any

import numpy as np

from policy_core_adapters.exports.graph import Value
from policy_core_adapters.exports.lowering.context import Context, ExportError, only, unsupported
from policy_core_adapters.exports.lowering.networks import activation, network
from policy_core_adapters.exports.lowering.observations import Tree, flatten
from policy_core_adapters.numpy_runner.networks import few, shaped
from policy_core_adapters.numpy_runner.spaces import flat_size_of, kind_of, parts_of


def encode(c: Context, config: Any, space: Any, params: Any, x: Tree) -> list[Value]:
    """The features of an observation: vectors to be joined."""
    if config["type"] not in ENCODERS:
        unsupported("encoder", config["type"])
    return ENCODERS[config["type"]](c, config["fields"], space, params, x)


def _flatten(c: Context, fields: Any, space: Any, params: Any, x: Tree) -> list[Value]:
    del params
    only(fields, "Flatten")
    return flatten(c, space, x)


def _encode(c: Context, fields: Any, space: Any, params: Any, x: Tree) -> list[Value]:
    only(fields, "Encode", "network")
    return [network(c, fields["network"], params, c.join(flatten(c, space, x)))]


def _parts(c: Context, fields: Any, space: Any, params: Any, x: Tree) -> list[Value]:
    only(fields, "Parts", "encoders", "rest")
    named = dict(fields["encoders"])
    return [
        y
        for key, part in parts_of(space).items()
        for y in encode(c, named.get(key, fields["rest"]), part, params.get(str(key), {}), x[key])
    ]


def _embedding(c: Context, fields: Any, space: Any, params: Any, x: Value) -> list[Value]:
    only(fields, "Embedding", "size")
    kind, size = kind_of(space), fields["size"]
    if kind == "MultiBinary":
        count = flat_size_of(space)
        sizes, starts = [2] * count, [0] * count
    else:
        whole = kind == "MultiDiscrete"
        sizes = space["fields"]["nvec"] if whole else [space["fields"]["n"]]
        starts = space["fields"]["start"] if whole else [space["fields"]["start"]]
    total = sum(sizes)
    # What is outside of its range has a row of zeros, the last one.
    table = np.concatenate(
        [np.float32(shaped(params["table"], total, size)), np.zeros((1, size), np.float32)]
    )
    index = c("sub", c.shape(x, len(sizes)), c.constant(np.array(starts)))
    inside = c("and", c("less_equal", 0, index), c("less", index, c.constant(np.array(sizes))))
    places = c("add", index, c.constant(np.cumsum(sizes) - sizes))
    rows = c("take", c.constant(table), c("where", inside, places, total))
    return [c.flat(rows)]


# IMAGES

_PLAIN = {"strides": None, "padding": "VALID", "pool": "none", "window": 2, "activation": "relu"}


def _cnn(c: Context, fields: Any, space: Any, params: Any, x: Value) -> list[Value]:
    names = ("channels", "kernels", "strides", "padding", "pool", "window", "activation", "size", "gain")
    only(fields, "CNN", *names)
    return _convolutions(c, fields, space, params, x)


def _nature(c: Context, fields: Any, space: Any, params: Any, x: Value) -> list[Value]:
    only(fields, "NatureCNN", "size")
    layers = {"channels": [32, 64, 64], "kernels": [8, 4, 3], "strides": [4, 2, 1]}
    return _convolutions(c, {**_PLAIN, **layers, **fields}, space, params, x)


def _minatar(c: Context, fields: Any, space: Any, params: Any, x: Value) -> list[Value]:
    only(fields, "MinAtarCNN", "filters", "size")
    layers = {"channels": [fields["filters"]], "kernels": [3], "size": fields["size"]}
    return _convolutions(c, {**_PLAIN, **layers}, space, params, x)


def _convolutions(c: Context, fields: Any, space: Any, params: Any, x: Value) -> list[Value]:
    few(len(fields["channels"]), "CNN.channels")
    x, function = _pixels(c, space, x), fields["activation"]
    strides = fields["strides"] or [1] * len(fields["channels"])
    layers = zip(fields["channels"], fields["kernels"], strides, strict=True)
    for i, (filters, side, stride) in enumerate(layers):
        x = activation(
            c, function, _convolution(c, params[f"convolution_{i}"], x, filters, side, stride, fields)
        )
        if fields["pool"] == "max":
            x = c("max_pool2d", x, window=fields["window"], stride=fields["window"], pads=(0, 0, 0, 0))
        elif fields["pool"] == "mean":
            x = c("mean_pool2d", x, window=fields["window"])
    x = c.flat(x)
    return [
        x
        if fields["size"] is None
        else activation(c, function, c.linear(params["linear"], x, fields["size"]))
    ]


def _convolution(
    c: Context, layer: Any, x: Value, filters: int, side: int, stride: int, fields: Any
) -> Value:
    kernel = c.weights(shaped(layer["kernel"], side, side, x.shape[-1], filters))
    bias = c.constant(np.float32(shaped(layer["bias"], filters)))
    pads = _pads(x.shape, side, stride) if fields["padding"] == "SAME" else (0, 0, 0, 0)
    return c("conv2d", x, kernel, bias, stride=stride, pads=pads)


def _pads(shape: tuple[int, ...], side: int, stride: int) -> tuple[int, int, int, int]:
    """Pixels before and behind each axis, so that ceil(size / stride) windows fit."""
    rows, columns = (max(stride * (-(-size // stride) - 1) + side - size, 0) for size in shape[:2])
    return rows // 2, rows - rows // 2, columns // 2, columns - columns // 2


def _impala(c: Context, fields: Any, space: Any, params: Any, x: Value) -> list[Value]:
    only(fields, "ImpalaCNN", "channels", "blocks", "size")
    few(len(fields["channels"]), "ImpalaCNN.channels")
    few(fields["blocks"], "ImpalaCNN.blocks")
    x, same = _pixels(c, space, x), {"padding": "SAME"}
    for i, filters in enumerate(fields["channels"]):
        part = params[f"stage_{i}"]
        x = _convolution(c, part["convolution"], x, filters, 3, 1, same)
        x = c("max_pool2d", x, window=3, stride=2, pads=_pads(x.shape, 3, 2))
        for j in range(fields["blocks"]):
            y = x
            for k in range(2):
                layer = part[f"block_{j}"][f"convolution_{k}"]
                y = _convolution(c, layer, c("relu", y), filters, 3, 1, same)
            x = c("add", x, y)
    x = c.flat(c("relu", x))
    return [c("relu", c.linear(params["linear"], x, fields["size"]))]


def _pixels(c: Context, space: Any, x: Value) -> Value:
    """The image in float32, uint8 divided by 255."""
    if kind_of(space) != "Box" or len(x.shape) != 3:
        raise ExportError("encoder: it takes an image, which the observation is not")
    if x.dtype == "float32":
        return x
    y = c("cast", x, dtype="float32")
    return c("div", y, 255.0) if x.dtype == "uint8" else y


ENCODERS: dict[str, Callable[[Context, Any, Any, Any, Any], list[Value]]] = {
    "policy_core/Flatten": _flatten,
    "policy_core/Encode": _encode,
    "policy_core/Embedding": _embedding,
    "policy_core/Parts": _parts,
    "policy_core/CNN": _cnn,
    "policy_core/NatureCNN": _nature,
    "policy_core/ImpalaCNN": _impala,
    "policy_core/MinAtarCNN": _minatar,
}
