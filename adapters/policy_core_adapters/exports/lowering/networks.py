"""Networks as graphs: MLPs, residual ones, and sequences."""

from collections.abc import Callable
from typing import Any

from policy_core_adapters.exports.graph import Value
from policy_core_adapters.exports.lowering.context import Context, ExportError, only, unsupported
from policy_core_adapters.numpy_runner.networks import few

_SHIPPED = ("elu", "gelu", "leaky_relu", "relu", "selu", "sigmoid", "silu", "softplus", "tanh")


def network(c: Context, data: Any, params: Any, x: Value) -> Value:
    """The output of a network."""
    if data["type"] not in NETWORKS:
        unsupported("network", data["type"])
    return NETWORKS[data["type"]](c, data["fields"], params, x)


def activation(c: Context, name: str, x: Value) -> Value:
    """An activation function by its registered name."""
    if name in c.activations:
        return c.activations[name](c.graph, x)
    if name == "identity":
        return x
    if name not in _SHIPPED:
        raise ExportError(
            f"activation: {name!r} is a function that was registered where the policy was made; give it in "
            "`activations` as (graph, x) -> y"
        )
    return c(name, x)


def _mlp(c: Context, fields: Any, params: Any, x: Value) -> Value:
    only(fields, "MLP", "hidden", "activation", "kernel_init", "gain", "layer_norm", "epsilon", "bias")
    few(len(fields["hidden"]), "MLP.hidden")
    for i, width in enumerate(fields["hidden"]):
        x = c.linear(params[f"hidden_{i}"], x, width, biased=fields["bias"])
        if fields["layer_norm"]:
            x = c.layer_norm(params[f"norm_{i}"], x, fields["epsilon"])
        x = activation(c, fields["activation"], x)
    return x


def _residual_mlp(c: Context, fields: Any, params: Any, x: Value) -> Value:
    only(fields, "ResidualMLP", "width", "blocks", "expansion", "activation", "kernel_init", "gain")
    width = fields["width"]
    x = c.linear(params["input"], x, width)
    for i in range(few(fields["blocks"], "ResidualMLP.blocks")):
        part = params[f"block_{i}"]
        inner = c.linear(part["up"], c.layer_norm(part["norm"], x), width * fields["expansion"])
        x = c("add", x, c.linear(part["down"], activation(c, fields["activation"], inner), width))
    return c.layer_norm(params["norm"], x)


def _layer_norm(c: Context, fields: Any, params: Any, x: Value) -> Value:
    only(fields, "LayerNorm", "epsilon")
    return c.layer_norm(params, x, fields["epsilon"])


def _sequential(c: Context, fields: Any, params: Any, x: Value) -> Value:
    only(fields, "Sequential", "networks")
    few(len(fields["networks"]), "Sequential.networks")
    for i, data in enumerate(fields["networks"]):
        x = network(c, data, params.get(f"network_{i}", {}), x)
    return x


NETWORKS: dict[str, Callable[[Context, Any, Any, Value], Value]] = {
    "policy_core/MLP": _mlp,
    "policy_core/ResidualMLP": _residual_mlp,
    "policy_core/LayerNorm": _layer_norm,
    "policy_core/Sequential": _sequential,
}
