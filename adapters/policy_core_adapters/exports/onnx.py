"""Graphs as ONNX models of opset 17, for onnxruntime and whatever else reads them; needs `onnx`.

    export("walker.msgpack", "walker.onnx", is_first=True)

Every value has a batch axis in front within the model. Without `batch` the inputs get it first and the
outputs lose it last, so that a call takes one observation, as `act` does. Images are turned to
channels first where a convolution begins, and back where something else needs them.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from policy_core_adapters.exports.graph import Graph, Node, Value
from policy_core_adapters.exports.lowering import ExportError, Lowered
from policy_core_adapters.exports.metadata import metadata_of
from policy_core_adapters.numpy_runner.networks import Array

OPSET = 17
IR_VERSION = 8  # of the first onnx with this opset, so that old runtimes read it

_SAME = {
    "neg": "Neg", "abs": "Abs", "exp": "Exp", "log": "Log", "sqrt": "Sqrt", "tanh": "Tanh", "not": "Not",
    "sigmoid": "Sigmoid", "softplus": "Softplus", "relu": "Relu", "leaky_relu": "LeakyRelu", "elu": "Elu",
    "selu": "Selu", "add": "Add", "sub": "Sub", "mul": "Mul", "div": "Div", "floordiv": "Div", "mod": "Mod",
    "minimum": "Min", "maximum": "Max", "less": "Less", "less_equal": "LessOrEqual", "equal": "Equal",
    "and": "And", "or": "Or", "where": "Where", "matmul": "MatMul",
}  # fmt: skip
_LAST = {"softmax": "Softmax", "log_softmax": "LogSoftmax"}
_OF_IMAGES = {"relu", "tanh", "sigmoid", "softplus", "leaky_relu", "elu", "selu", "abs", "neg", "exp"}


def model_of(lowered: Lowered, *, batch: int | str | None = None) -> Any:
    """The `onnx.ModelProto` of a policy.

    Args:
        lowered: from `lower`.
        batch: the size of a batch axis in front of all inputs and outputs, or its name ("batch") for one
            of any size; None for no such axis.

    Raises:
        ExportError: if `onnx` is not installed.
    """
    onnx = onnx_module()
    printer = _Printer(lowered.graph, batch)
    nodes, initializers, inputs, outputs = printer.parts()
    graph = onnx.helper.make_graph(nodes, "policy_core", inputs, outputs, initializers)
    opset = onnx.helper.make_opsetid("", OPSET)
    model = onnx.helper.make_model(graph, opset_imports=[opset], producer_name="policy_core")
    model.ir_version = IR_VERSION
    onnx.helper.set_model_props(model, metadata_of(lowered))
    onnx.checker.check_model(model, full_check=True)
    return model


def onnx_module() -> Any:
    """`onnx`, or ExportError that says how to get it."""
    try:
        import onnx  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ExportError("onnx is not installed; install policy-core[onnx]") from error
    return onnx


class _Printer:
    """One graph, on its way to nodes of ONNX."""

    def __init__(self, graph: Graph, batch: int | str | None) -> None:
        self.graph, self.batch, self.onnx = graph, batch, onnx_module()
        self.nodes: list[Any] = []
        self.initializers: dict[Any, Any] = {}
        self.names: dict[str, str] = {}  # of a value in the model, with the batch axis
        self.channels_first: dict[str, str] = {}  # likewise, of an image
        self.made: dict[str, Node] = {x.name: node for node in graph.nodes for x in node.outputs}
        self.used: dict[str, int] = {}
        for x in [x for node in graph.nodes for x in node.inputs] + list(graph.outputs.values()):
            self.used[x.name] = self.used.get(x.name, 0) + 1
        self.reserved = {} if batch is None else self._reserved()

    def _reserved(self) -> dict[str, str]:
        """The name that a value has as an output, which it is given at once."""
        names: dict[str, str] = {}
        for name, value in self.graph.outputs.items():
            if value.name in self.made:
                names.setdefault(value.name, name)
        return names

    def parts(self) -> tuple[list[Any], list[Any], list[Any], list[Any]]:
        """Nodes, initializers, inputs and outputs."""
        for node in self.graph.nodes:
            if node.op != "dequantize" and not self._absorbed(node):
                self._print(node)
        for name, value in self.graph.outputs.items():
            inner = self.name(value)
            if self.batch is None:
                self.add("Squeeze", inner, self.ints(0), out=name)
            elif inner != name:
                self.add("Identity", inner, out=name)
        inputs = [self._info(*pair) for pair in self.graph.inputs.items()]
        outputs = [self._info(*pair) for pair in self.graph.outputs.items()]
        return self.nodes, list(self.initializers.values()), inputs, outputs

    def _info(self, name: str, value: Value) -> Any:
        dtype = self.onnx.helper.np_dtype_to_tensor_dtype(np.dtype(value.dtype))
        front = () if self.batch is None else (self.batch,)
        return self.onnx.helper.make_tensor_value_info(name, dtype, [*front, *value.shape])

    # NAMES

    def add(self, op: str, *inputs: str, out: str | None = None, **attributes: Any) -> str:
        """The name of the output of a new node."""
        out = out or f"t{len(self.nodes)}"
        self.nodes.append(self.onnx.helper.make_node(op, inputs, [out], **attributes))
        return out

    def keep(self, array: Any, key: Any = None) -> str:
        """The name of an initializer; equal small ones are kept once."""
        array = np.ascontiguousarray(array) if np.ndim(array) else np.asarray(array)
        key = key or (array.dtype.str, array.shape, array.tobytes())
        if key not in self.initializers:
            name = f"k{len(self.initializers)}"
            self.initializers[key] = self.onnx.numpy_helper.from_array(array, name)
        return str(self.initializers[key].name)

    def ints(self, *numbers: int) -> str:
        """An initializer of int64, for axes and shapes."""
        return self.keep(np.array(numbers, np.int64))

    def name(self, value: Value) -> str:
        """The name of a value, with the batch axis in front unless it is a constant."""
        if value.name not in self.names:
            self.names[value.name] = self._named(value)
        return self.names[value.name]

    def _named(self, value: Value) -> str:
        if value.name in self.graph.constants:
            return self.keep(self.graph.constants[value.name])
        if value.constant:
            return self.weights(value, lambda x: x, lambda x: x, -1)
        if value.name in self.channels_first:
            return self.add("Transpose", self.channels_first[value.name], perm=[0, 2, 3, 1])
        return value.name if self.batch is not None else self.add("Unsqueeze", value.name, self.ints(0))

    def image(self, value: Value) -> str:
        """The name of an image with its channels first."""
        if value.name not in self.channels_first:
            self.channels_first[value.name] = self.add("Transpose", self.name(value), perm=[0, 3, 1, 2])
        return self.channels_first[value.name]

    def sequence(self, value: Value) -> str:
        """The name of a vector with an axis of one step in front of the batch axis."""
        if value.name in self.graph.inputs and self.batch is None and value.name not in self.names:
            return self.add("Unsqueeze", value.name, self.ints(0, 1))
        return self.add("Unsqueeze", self.name(value), self.ints(0))

    def weights(
        self, value: Value, change: Callable[[Array], Array], scales: Callable[[Array], Array], axis: int
    ) -> str:
        """The name of a kernel in another layout; `scales` does the same to the scales, on `axis`."""
        if value.name in self.graph.constants:
            return self.keep(change(self.graph.constants[value.name]))
        values, scale = (self.graph.constants[x.name] for x in self.made[value.name].inputs)
        changed = change(values)
        names = self.keep(changed), self.keep(scales(scale)), self.keep(np.zeros(len(scale), np.int8))
        return self.add("DequantizeLinear", *names, axis=axis % changed.ndim)

    # OPERATIONS

    def _absorbed(self, node: Node) -> bool:
        """Whether a `maximum` becomes part of the Clip of the `minimum` behind it."""
        return node.op == "maximum" and any(
            other.op == "minimum" and self._clip_of(other) is node for other in self.graph.nodes
        )

    def _clip_of(self, node: Node) -> Node | None:
        """The `maximum` in front of a `minimum` that are one Clip."""
        x, high = node.inputs
        inner = self.made.get(x.name)
        if inner is None or inner.op != "maximum" or self.used[x.name] > 1 or x.dtype != "float32":
            return None
        ends = (high, inner.inputs[1])
        return inner if all(end.name in self.graph.constants and end.shape == () for end in ends) else None

    def _print(self, node: Node) -> None:
        first = node.outputs[0]
        name = self.reserved.get(first.name)
        method = getattr(self, f"_{node.op}", None)
        if method is not None:
            made = method(node, out=name)
        elif node.op in _OF_IMAGES and node.inputs[0].name in self.channels_first:
            self.channels_first[first.name] = self.add(_SAME[node.op], self.image(node.inputs[0]))
            return
        elif node.op in _LAST:
            made = self.add(_LAST[node.op], self.name(node.inputs[0]), out=name, axis=-1)
        else:
            extra = {"alpha": 0.01} if node.op == "leaky_relu" else {}
            made = self.add(_SAME[node.op], *map(self.name, node.inputs), out=name, **extra)
        if made is not None:
            self.names[first.name] = made

    def _minimum(self, node: Node, out: str | None) -> str:
        inner = self._clip_of(node)
        if inner is None:
            return self.add("Min", *map(self.name, node.inputs), out=out)
        return self.add(
            "Clip", self.name(inner.inputs[0]), *map(self.name, (inner.inputs[1], node.inputs[1])), out=out
        )

    def _add(self, node: Node, out: str | None) -> str | None:
        if all(x.name in self.channels_first for x in node.inputs):
            self.channels_first[node.outputs[0].name] = self.add("Add", *map(self.image, node.inputs))
            return None
        return self.add("Add", *map(self.name, node.inputs), out=out)

    def _log1p(self, node: Node, out: str | None) -> str:
        """W. Kahan: log(u) x / (u - 1) with u = 1 + x rounded, and x where u is 1."""
        x, one = self.name(node.inputs[0]), self.keep(np.float32(1))
        u = self.add("Add", x, one)
        ratio = self.add("Div", self.add("Log", u), self.add("Sub", u, one))
        return self.add("Where", self.add("Equal", u, one), x, self.add("Mul", ratio, x), out=out)

    def _expm1(self, node: Node, out: str | None) -> str:
        """W. Kahan: (u - 1) x / log(u) with u = e^x rounded; x where u is 1, and u - 1 far from it."""
        x, one = self.name(node.inputs[0]), self.keep(np.float32(1))
        u = self.add("Exp", x)
        less = self.add("Sub", u, one)
        near = self.add("Div", self.add("Mul", less, x), self.add("Log", u))
        far = self.add("Less", one, self.add("Abs", x))
        near = self.add("Where", self.add("Equal", u, one), x, near)
        return self.add("Where", far, less, near, out=out)

    def _gelu(self, node: Node, out: str | None) -> str:
        x = self.name(node.inputs[0])
        cube = self.add("Mul", self.add("Mul", x, x), x)
        inner = self.add("Add", x, self.add("Mul", cube, self.keep(np.float32(0.044715))))
        half = self.keep(np.float32(0.5))
        tanh = self.add("Tanh", self.add("Mul", inner, self.keep(np.float32(np.sqrt(2 / np.pi)))))
        return self.add("Mul", x, self.add("Add", self.add("Mul", tanh, half), half), out=out)

    def _silu(self, node: Node, out: str | None) -> str:
        x = self.name(node.inputs[0])
        return self.add("Mul", x, self.add("Sigmoid", x), out=out)

    def _cast(self, node: Node, out: str | None) -> str:
        dtype = self.onnx.helper.np_dtype_to_tensor_dtype(np.dtype(node.attributes["dtype"]))
        return self.add("Cast", self.name(node.inputs[0]), out=out, to=dtype)

    def _linear(self, node: Node, out: str | None) -> str:
        x, kernel, *bias = node.inputs
        rest = list(map(self.name, bias))
        if len(x.shape) == 1 and kernel.name not in self.graph.constants:
            # Transposed: onnxruntime fuses DequantizeLinear and MatMul to one that rounds x to 8 bits, too.
            weights = self.weights(kernel, lambda k: k.T, lambda s: s, 0)
            return self.add("Gemm", self.name(x), weights, *rest, out=out, transB=1)
        if len(x.shape) == 1:
            return self.add("Gemm", self.name(x), self.name(kernel), *rest, out=out)
        y = self.add("MatMul", self.name(x), self.name(kernel), out=None if bias else out)
        return self.add("Add", y, *rest, out=out) if bias else y

    def _layer_norm(self, node: Node, out: str | None) -> str:
        x, *affine = map(self.name, node.inputs)
        affine = affine or [self.keep(np.ones(node.inputs[0].shape[-1], np.float32))]
        return self.add(
            "LayerNormalization", x, *affine, out=out, axis=-1, epsilon=node.attributes["epsilon"]
        )

    def _cumsum(self, node: Node, out: str | None) -> str:
        return self.add("CumSum", self.name(node.inputs[0]), self.keep(np.array(-1, np.int64)), out=out)

    def _sum(self, node: Node, out: str | None) -> str:
        axes, keep = self.ints(*node.attributes["axes"]), int(node.attributes["keep"])
        return self.add("ReduceSum", self.name(node.inputs[0]), axes, out=out, keepdims=keep)

    def _mean(self, node: Node, out: str | None) -> str:
        return self._reduced("ReduceMean", node, self.name(node.inputs[0]), out)

    def _max(self, node: Node, out: str | None) -> str:
        return self._reduced("ReduceMax", node, self.name(node.inputs[0]), out)

    def _any(self, node: Node, out: str | None) -> str:
        number = self.add("Cast", self.name(node.inputs[0]), to=self.onnx.TensorProto.FLOAT)
        most = self._reduced("ReduceMax", node, number, None)
        return self.add("Cast", most, out=out, to=self.onnx.TensorProto.BOOL)

    def _reduced(self, op: str, node: Node, x: str, out: str | None) -> str:
        axes, keep = list(node.attributes["axes"]), int(node.attributes["keep"])
        return self.add(op, x, out=out, axes=axes, keepdims=keep)

    def _argmax(self, node: Node, out: str | None) -> str:
        index = self.add("ArgMax", self.name(node.inputs[0]), axis=-1, keepdims=0)
        return self.add("Cast", index, out=out, to=self.onnx.TensorProto.INT32)

    def _take(self, node: Node, out: str | None) -> str:
        return self.add("Gather", *map(self.name, node.inputs), out=out, axis=0)

    def _gather(self, node: Node, out: str | None) -> str:
        return self.add("Gather", *map(self.name, node.inputs), out=out, axis=-1)

    def _reshape(self, node: Node, out: str | None) -> str:
        return self.add(
            "Reshape", self.name(node.inputs[0]), self.ints(0, *node.attributes["shape"]), out=out
        )

    def _broadcast(self, node: Node, out: str | None) -> str:
        return self.add("Expand", self.name(node.inputs[0]), self.ints(1, *node.attributes["shape"]), out=out)

    def _transpose(self, node: Node, out: str | None) -> str:
        axes = node.attributes["axes"]
        perm = [0, *(1 + len(axes) + axis for axis in axes)]
        return self.add("Transpose", self.name(node.inputs[0]), out=out, perm=perm)

    def _concat(self, node: Node, out: str | None) -> str:
        return self.add("Concat", *map(self.name, node.inputs), out=out, axis=node.attributes["axis"])

    def _slice(self, node: Node, out: str | None) -> str:
        ends = (self.ints(node.attributes[name]) for name in ("start", "stop", "axis"))
        return self.add("Slice", self.name(node.inputs[0]), *ends, out=out)

    def _conv2d(self, node: Node, out: str | None) -> None:
        x, kernel, *bias = node.inputs
        weights = self.weights(kernel, lambda k: k.transpose(3, 2, 0, 1), lambda s: s, 0)
        top, bottom, left, right = node.attributes["pads"]
        stride = [node.attributes["stride"]] * 2
        image = self.add("Conv", self.image(x), weights, *map(self.name, bias), strides=stride,
                         pads=[top, left, bottom, right], kernel_shape=list(kernel.shape[:2]))  # fmt: skip
        self.channels_first[node.outputs[0].name] = image

    def _max_pool2d(self, node: Node, out: str | None) -> None:
        top, bottom, left, right = node.attributes["pads"]
        side, stride = [node.attributes["window"]] * 2, [node.attributes["stride"]] * 2
        image = self.add("MaxPool", self.image(node.inputs[0]), kernel_shape=side, strides=stride,
                         pads=[top, left, bottom, right])  # fmt: skip
        self.channels_first[node.outputs[0].name] = image

    def _mean_pool2d(self, node: Node, out: str | None) -> None:
        side = [node.attributes["window"]] * 2
        image = self.add("AveragePool", self.image(node.inputs[0]), kernel_shape=side, strides=side)
        self.channels_first[node.outputs[0].name] = image

    def _gru(self, node: Node, out: str | None) -> str:
        x, h, kernel, recurrent, bias, inner = node.inputs
        (size,) = h.shape
        order = np.concatenate([np.arange(size) + i * size for i in (1, 0, 2)])  # z, r, n
        biases = np.zeros(6 * size, np.float32)
        biases[: 3 * size], biases[5 * size :] = (
            self.graph.constants[bias.name][order],
            self.graph.constants[inner.name],
        )
        made = self._cell("GRU", [x, kernel, recurrent, h], biases, order, 1, linear_before_reset=1)
        return self.add("Squeeze", made[0], self.ints(0), out=out)

    def _lstm(self, node: Node, out: str | None) -> str:
        x, cell, hidden, kernel, recurrent, bias = node.inputs
        (size,) = cell.shape
        order = np.concatenate([np.arange(size) + i * size for i in (0, 3, 1, 2)])  # i, o, f, g
        biases = np.concatenate([self.graph.constants[bias.name][order], np.zeros(4 * size, np.float32)])
        made = self._cell("LSTM", [x, kernel, recurrent, hidden, cell], biases, order, 2)
        other = self.reserved.get(node.outputs[1].name)
        self.names[node.outputs[1].name] = self.add("Squeeze", made[0], self.ints(0), out=other)
        return self.add("Squeeze", made[1], self.ints(0), out=out)

    def _cell(
        self, op: str, values: list[Value], biases: Array, order: Array, outputs: int, **more: Any
    ) -> list[str]:
        x, kernel, recurrent, *states = values
        weights = [
            self.weights(part, lambda k: k[:, order].T[None], lambda s: s[order], 1)
            for part in (kernel, recurrent)
        ]
        front = [self.sequence(x), *weights, self.keep(biases[None]), ""]
        made = [f"t{len(self.nodes)}_{i}" for i in range(outputs)]
        inputs = [*front, *map(self.sequence, states)]
        self.nodes.append(
            self.onnx.helper.make_node(op, inputs, ["", *made], hidden_size=states[0].shape[0], **more)
        )
        return made
