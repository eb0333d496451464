"""Networks of policy files in NumPy; see `numpy_runner`."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def sigmoid(x: Any) -> Any:
    """1 / (1 + e^-x), without overflow."""
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1, e) / (1 + e)


def softplus(x: Any) -> Any:
    """log(1 + e^x), without overflow."""
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def _elu(x: Array) -> Array:
    return np.where(x > 0, x, np.expm1(np.minimum(x, 0)))


ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "elu": _elu,
    "gelu": lambda x: x * (0.5 + 0.5 * np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "identity": lambda x: x,
    "leaky_relu": lambda x: np.where(x >= 0, x, x * np.asarray(0.01, x.dtype)),
    "relu": lambda x: np.maximum(x, 0),
    "selu": lambda x: (
        1.0507009873554805 * np.where(x > 0, x, 1.6732632423543772 * np.expm1(np.minimum(x, 0)))
    ),
    "sigmoid": sigmoid,
    "silu": lambda x: x * sigmoid(x),
    "softplus": softplus,
    "tanh": np.tanh,
}


def linear(layer: dict[str, Array], dtype: Any) -> Callable[[Array], Array]:
    """`x @ kernel + bias` in a dtype."""
    outputs = layer["kernel"].shape[1]
    kernel = np.ascontiguousarray(layer["kernel"].T, dtype)
    bias = shaped(layer["bias"], outputs).astype(dtype)
    return lambda x: kernel.dot(x) + bias


def shaped(leaf: Array, *shape: int) -> Array:
    """A leaf of this shape: NumPy would stretch a smaller one, and say nothing."""
    if leaf.shape != shape:
        raise ValueError(f"leaves: one has the shape {leaf.shape}, expected {shape}")
    return leaf


def _mlp(fields: dict[str, Any], params: dict[str, Any], dtype: Any, names: dict[str, Any]) -> Any:
    only(fields, "MLP", "hidden", "activation", "kernel_init", "gain")
    if fields["activation"] not in names:
        raise ValueError(
            f"MLP.activation: {fields['activation']!r} is not known here; give it in `activations`"
        )
    function = names[fields["activation"]]
    layers = [linear(params[f"hidden_{i}"], dtype) for i in range(len(fields["hidden"]))]

    def apply(x: Array) -> Array:
        for layer in layers:
            x = function(layer(x))
        return x

    return apply


NETWORKS: dict[str, Callable[..., Any]] = {"policy_core/MLP": _mlp}


def find(table: dict[str, Any], data: Any, kind: str) -> Any:
    """What a table has for the class of a config."""
    if data["type"] not in table:
        raise ValueError(f"no {kind} {data['type']!r} is known to this runner; it has {sorted(table)}")
    return table[data["type"]]


def only(fields: dict[str, Any], name: str, *known: str) -> None:
    """Raise ValueError for a field that is not known: nothing is left out."""
    if unknown := sorted(set(fields) - set(known)):
        raise ValueError(f"{name}.{unknown[0]}: this runner does not know the field, and leaves nothing out")
