"""What all parts of a lowering share: the graph, what was asked for, and layers of params."""

from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import numpy as np

from policy_core_adapters.exports.graph import Graph, Operand, Value
from policy_core_adapters.exports.quantize import quantized
from policy_core_adapters.numpy_runner.networks import Array, shaped


class ExportError(ValueError):
    """A policy, or what was asked for, that no export carries; the message says which and what to do."""


Activation = Callable[[Graph, Value], Value]
MaskFunction = Callable[[Graph, Value | None, Mapping[Any, Value]], Value | None]


class Context:
    """The graph of a policy while it is made.

    Args:
        activations: name to `(graph, x) -> y`, for those that were registered where the policy was made.
        mask_functions: name to `(graph, mask or None, parents) -> mask or None`, likewise.
        masks: path of a discrete part of the action to "rows", "joint" or "none", or one for all.
        noise: whether an action is drawn, from noise that is given.
        int8: whether kernels are kept in 8 bits.
    """

    def __init__(
        self,
        *,
        activations: Mapping[str, Activation],
        mask_functions: Mapping[str, MaskFunction],
        masks: Mapping[str, str] | str,
        noise: bool,
        int8: bool,
    ) -> None:
        self.graph = Graph()
        self.activations, self.mask_functions = activations, mask_functions
        self.masks, self.noise, self.int8 = masks, noise, int8
        self.masked: dict[str, str] = {}
        self.noises: dict[str, str] = {}
        self.kept: dict[str, int | None] = {}

    def __call__(self, name: str, *operands: Operand, **attributes: Any) -> Value:
        """The output of a new node."""
        return self.graph.op(name, *operands, **attributes)

    def constant(self, array: Any) -> Value:
        """A constant, float32 or int32 or bool."""
        return self.graph.constant(array)

    def weights(self, array: Array) -> Value:
        """A kernel: a constant, or one of 8 bits and a scale for each output."""
        array = np.asarray(array, np.float32)
        if not self.int8 or array.size == 0:
            return self.graph.constant(array)
        values, scale = quantized(array)
        return self.graph.op("dequantize", self.graph.constant(values, "int8"), self.graph.constant(scale))

    def linear(self, layer: Any, x: Value, outputs: int, *, biased: bool = True) -> Value:
        """`x @ kernel + bias`."""
        kernel = self.weights(shaped(layer["kernel"], x.shape[-1], outputs))
        if not biased:
            return self("linear", x, kernel)
        return self("linear", x, kernel, self.constant(np.float32(shaped(layer["bias"], outputs))))

    def layer_norm(self, part: Any, x: Value, epsilon: float = 1e-5) -> Value:
        """A layer norm with its scale and bias."""
        affine = (self.constant(np.float32(shaped(part[name], x.shape[-1]))) for name in ("scale", "bias"))
        return self("layer_norm", x, *affine, epsilon=epsilon)

    def cut(self, x: Value, start: int, stop: int) -> Value:
        """A part of the last axis."""
        return x if (start, stop) == (0, x.shape[-1]) else self("slice", x, axis=-1, start=start, stop=stop)

    def shape(self, x: Value, *shape: int) -> Value:
        """The value in another shape."""
        return x if x.shape == shape else self("reshape", x, shape=shape)

    def flat(self, x: Value) -> Value:
        """The value as a vector."""
        return self.shape(x, int(np.prod(x.shape, dtype=np.int64)))

    def join(self, values: list[Value]) -> Value:
        """Vectors one after the other, without those that are empty."""
        values = [x for x in values if x.shape != (0,)]
        if not values:
            raise ExportError("observation_space: it has no numbers, so there is nothing to act on")
        return values[0] if len(values) == 1 else self("concat", *values, axis=-1)

    def clip(self, x: Value, low: Any, high: Any) -> Value:
        """Within bounds, a number or an array each; where both ends are infinite nothing is done."""
        if np.any(np.asarray(low) > -np.inf):
            x = self("maximum", x, self.constant(np.float32(low)))
        return self("minimum", x, self.constant(np.float32(high))) if np.any(np.asarray(high) < np.inf) else x

    def mask_layout(self, path: str) -> str:
        """How the mask of a discrete part is given: "rows", "joint" or "none"."""
        layout = self.masks if isinstance(self.masks, str) else self.masks.get(path, "none")
        if layout != "none":
            self.masked[path] = layout
        return layout

    def mask(self, path: str, shape: tuple[int, ...]) -> Value:
        """An input, a mask."""
        return self.graph.input(under("action_mask", path), shape, "bool")

    def draw(self, path: str, kind: str, shape: tuple[int, ...]) -> Value:
        """An input, independent numbers: "uniform" ones, from 0 on and below 1, or "normal" ones."""
        value = self.graph.input(under("noise", path), shape)
        self.noises[value.name] = kind
        return value


def under(root: str, path: str) -> str:
    """A name under another: `action`, or `action/tool`."""
    return f"{root}/{path}" if root and path else root or path


def unsupported(what: str, got: Any) -> NoReturn:
    """Raise ExportError for a class that no export knows."""
    raise ExportError(
        f"{what}: {got!r} is carried by no export, which know the classes of policy_core only; act with JAX, "
        "or convert the policy with jax2onnx or jax.export (docs/deploy.md)"
    )


def only(fields: Mapping[str, Any], name: str, *known: str) -> None:
    """Raise ExportError for a field that is not known, or missing: nothing is left out or made up."""
    for field in sorted(set(known) - set(fields)):
        raise ExportError(f"{name}.{field}: the field is missing")
    for field in sorted(set(fields) - set(known)):
        raise ExportError(
            f"{name}.{field}: no export knows this field, and none is ignored; update policy_core"
        )
