"""Networks of policy files in NumPy; see `numpy_runner`."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


# Arrays without axes: an operation with a Python number takes twice as long. They widen with what they meet.
ZERO, HALF, ONE, TWO = (np.asarray(x, np.float32) for x in (0, 0.5, 1, 2))


def sigmoid(x: Any) -> Any:
    """1 / (1 + e^-x), without overflow."""
    return np.exp(np.minimum(x, ZERO)) / (ONE + np.exp(-np.abs(x)))


def sigmoids(x: Any) -> tuple[Any, Any]:
    """`sigmoid(x)` and `sigmoid(-x)`."""
    whole = ONE + np.exp(-np.abs(x))
    return np.exp(np.minimum(x, ZERO)) / whole, np.exp(np.minimum(-x, ZERO)) / whole


def softplus(x: Any) -> Any:
    """log(1 + e^x), without overflow."""
    return np.maximum(x, ZERO) + np.log1p(np.exp(-np.abs(x)))


def _elu(x: Array) -> Array:
    return np.where(x > 0, x, np.expm1(np.minimum(x, 0)))


ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "elu": _elu,
    "gelu": lambda x: x * (0.5 + 0.5 * np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "identity": lambda x: x,
    "leaky_relu": lambda x: np.where(x >= 0, x, x * np.asarray(0.01, x.dtype)),
    "relu": lambda x: np.maximum(x, ZERO),
    "selu": lambda x: (
        1.0507009873554805 * np.where(x > 0, x, 1.6732632423543772 * np.expm1(np.minimum(x, 0)))
    ),
    "sigmoid": sigmoid,
    "silu": lambda x: x * sigmoid(x),
    "softplus": softplus,
    "tanh": np.tanh,
}


MOST_LAYERS = 100


def linear(
    layer: dict[str, Array], inputs: int, outputs: int, dtype: Any, biased: bool = True
) -> Callable[[Array], Array]:
    """`x @ kernel + bias` in a dtype."""
    product: Callable[[Array], Array]
    product = np.ascontiguousarray(shaped(layer["kernel"], inputs, outputs).T, dtype).dot
    if not biased:
        return product
    bias = shaped(layer["bias"], outputs).astype(dtype)
    return lambda x: product(x) + bias


def shaped(leaf: Array, *shape: int) -> Array:
    """A leaf of this shape: NumPy would stretch a smaller one, and say nothing."""
    if leaf.shape != shape:
        raise ValueError(f"leaves: one has the shape {leaf.shape}, expected {shape}")
    return leaf


def few(count: int, what: str, most: int = MOST_LAYERS) -> int:
    """Raise ValueError for a number of a config above its limit."""
    if count > most:
        raise ValueError(f"{what}: got {count}, at most {most} are allowed")
    return count


def normalized(x: Array, epsilon: float = 1e-5) -> Array:
    """Rows of mean 0 and variance 1."""
    count = np.asarray(x.shape[-1], x.dtype)  # `x.mean()` is the same, and four times as slow
    centred = x - np.add.reduce(x, -1, keepdims=True) / count
    variance = np.add.reduce(np.square(centred), -1, keepdims=True) / count
    y: Array = centred / np.sqrt(variance + np.asarray(epsilon, x.dtype))
    return y


def layer_norm_of(
    part: dict[str, Array], size: int, dtype: Any, epsilon: float = 1e-5
) -> Callable[[Array], Array]:
    """The layer norm of a vector, with its scale and bias."""
    scale, bias = (shaped(part[name], size).astype(dtype) for name in ("scale", "bias"))
    return lambda x: normalized(x, epsilon) * scale + bias


Network = tuple[Callable[[Array], Array], int]
"""A network, and its output dimension."""


def _mlp(
    fields: dict[str, Any], params: dict[str, Any], inputs: int, dtype: Any, names: dict[str, Any]
) -> Network:
    only(fields, "MLP", "hidden", "activation", "kernel_init", "gain", "layer_norm", "epsilon", "bias")
    function = _activation("MLP", fields, names)
    layers = []
    few(len(fields["hidden"]), "MLP.hidden")
    for i, width in enumerate(fields["hidden"]):
        layers.append(linear(params[f"hidden_{i}"], inputs, width, dtype, fields["bias"]))
        inputs = width
        if fields["layer_norm"]:
            epsilon = fields["epsilon"]
            layers.append(layer_norm_of(params[f"norm_{i}"], width, dtype, epsilon))
        layers.append(function)
    return _chain(layers), inputs


def _residual_mlp(
    fields: dict[str, Any], params: dict[str, Any], inputs: int, dtype: Any, names: dict[str, Any]
) -> Network:
    only(fields, "ResidualMLP", "width", "blocks", "expansion", "activation", "kernel_init", "gain")
    function, width = _activation("ResidualMLP", fields, names), fields["width"]
    inner = width * fields["expansion"]

    def block(part: dict[str, Any]) -> Callable[[Array], Array]:
        norm = layer_norm_of(part["norm"], width, dtype)
        up, down = linear(part["up"], width, inner, dtype), linear(part["down"], inner, width, dtype)
        return lambda x: x + down(function(up(norm(x))))

    first = linear(params["input"], inputs, width, dtype)
    blocks = [block(params[f"block_{i}"]) for i in range(few(fields["blocks"], "ResidualMLP.blocks"))]
    return _chain([first, *blocks, layer_norm_of(params["norm"], width, dtype)]), width


def _layer_norm(
    fields: dict[str, Any], params: dict[str, Any], inputs: int, dtype: Any, names: dict[str, Any]
) -> Network:
    del names
    only(fields, "LayerNorm", "epsilon")
    return layer_norm_of(params, inputs, dtype, fields["epsilon"]), inputs


def _sequential(
    fields: dict[str, Any], params: dict[str, Any], inputs: int, dtype: Any, names: dict[str, Any]
) -> Network:
    only(fields, "Sequential", "networks")
    layers = []
    few(len(fields["networks"]), "Sequential.networks")
    for i, data in enumerate(fields["networks"]):
        part = params.get(f"network_{i}", {})
        network, inputs = find(NETWORKS, data, "network")(data["fields"], part, inputs, dtype, names)
        layers.append(network)
    return _chain(layers), inputs


def _activation(name: str, fields: dict[str, Any], names: dict[str, Any]) -> Callable[[Array], Array]:
    if fields["activation"] not in names:
        raise ValueError(
            f"{name}.activation: {fields['activation']!r} is not known here; pass it in `activations`"
        )
    function: Callable[[Array], Array] = names[fields["activation"]]
    return function


def _chain(layers: list[Callable[[Array], Array]]) -> Callable[[Array], Array]:
    def apply(x: Array) -> Array:
        for layer in layers:
            x = layer(x)
        return x

    return apply


NETWORKS: dict[str, Callable[..., Any]] = {
    "policy_core/MLP": _mlp,
    "policy_core/ResidualMLP": _residual_mlp,
    "policy_core/LayerNorm": _layer_norm,
    "policy_core/Sequential": _sequential,
}


def find(table: dict[str, Any], data: Any, kind: str) -> Any:
    """What a table has for the class of a config."""
    if data["type"] not in table:
        raise ValueError(f"no {kind} {data['type']!r} is supported by this runner; it has {sorted(table)}")
    return table[data["type"]]


def only(fields: dict[str, Any], name: str, *known: str) -> None:
    """Raise ValueError for a field that is not known, or missing: nothing is left out or made up."""
    if missing := sorted(set(known) - set(fields)):
        raise ValueError(f"{name}.{missing[0]}: the field is missing")
    if unknown := sorted(set(fields) - set(known)):
        raise ValueError(f"{name}.{unknown[0]}: this runner does not support the field, and ignores none")
