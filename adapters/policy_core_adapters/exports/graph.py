"""A policy as a graph of array operations of fixed shape, which ONNX and C print.

    graph = Graph()
    x = graph.input("x", (3,))
    y = graph.op("tanh", graph.op("linear", x, graph.constant(kernel)))
    graph.output("y", y)
    evaluate(graph, {"x": np.zeros(3, np.float32)})["y"]

`ops` says what each operation takes and means. Shapes and dtypes are checked when a node is added; what
depends on constants only is computed then, and is a constant (but for `dequantize`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from policy_core_adapters.exports import shapes as shapes  # its operations are added to OPS
from policy_core_adapters.exports.ops import DTYPES, OPS, Array, F, I, Kind, Shape

CARRIED = ("float32", "int32", "bool", "int8")


@dataclass(frozen=True)
class Value:
    """What a graph computes with: an input, a constant, or an output of a node."""

    name: str
    shape: Shape
    dtype: str
    constant: bool = False
    """Whether no input changes it; then it has no axes in front, ever."""


@dataclass(frozen=True)
class Node:
    """One operation of a graph."""

    op: str
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    attributes: dict[str, Any]


Operand = Value | float | int | bool


@dataclass
class Graph:
    """Operations in the order in which they are computed."""

    inputs: dict[str, Value] = field(default_factory=dict)
    outputs: dict[str, Value] = field(default_factory=dict)
    constants: dict[str, Array] = field(default_factory=dict)
    """Name of a constant value to its array, in C order: float32, int32, bool, or int8 for `dequantize`."""
    nodes: list[Node] = field(default_factory=list)

    def input(self, name: str, shape: Shape, dtype: str = F) -> Value:
        """A new input; ValueError if the name is taken or the dtype none of `ops.DTYPES`."""
        if name in self.inputs or dtype not in DTYPES:
            raise ValueError(f"input {name!r}: it is there already, or {dtype} is none of {DTYPES}")
        self.inputs[name] = Value(name, tuple(shape), dtype)
        return self.inputs[name]

    def constant(self, array: Any, dtype: str | None = None) -> Value:
        """A constant: floats become float32, integers int32 unless `dtype` is "int8"."""
        array = np.asarray(array)
        dtype = dtype or {"f": F, "i": I, "u": I, "b": "bool"}.get(array.dtype.kind, "")
        if dtype not in CARRIED:
            raise ValueError(f"constant: got {array.dtype}, expected one of {CARRIED}")
        array = np.array(array, dtype, order="C")
        array.flags.writeable = False
        value = Value(f"c{len(self.constants)}", array.shape, dtype, constant=True)
        self.constants[value.name] = array
        return value

    def op(self, name: str, *operands: Operand, **attributes: Any) -> Value:
        """The output of a new node; numbers become scalar constants of the dtype of the other operands."""
        (value,) = self.ops(name, *operands, **attributes)
        return value

    def ops(self, name: str, *operands: Operand, **attributes: Any) -> tuple[Value, ...]:
        """The outputs of a new node, several for `lstm`.

        Raises:
            ValueError: for an operation that there is not, or what it does not take.
        """
        if name not in OPS:
            raise ValueError(f"op: there is no {name!r}; there are {sorted(OPS)}")
        numbers = [x.dtype for x in operands if isinstance(x, Value) and x.dtype != "bool"]
        values = tuple(
            x if isinstance(x, Value) else self.constant(x, numbers[0] if numbers else None) for x in operands
        )
        try:
            kinds = OPS[name].infer([Kind(x.shape, x.dtype, x.constant) for x in values], attributes)
        except (TypeError, ValueError, KeyError) as error:
            raise ValueError(f"{name}: {error}") from error
        if name != "dequantize" and all(x.name in self.constants for x in values):
            arrays = [self.constants[x.name] for x in values]
            return tuple(self.constant(x) for x in run(name, values, attributes, arrays))
        constant = all(x.constant for x in values)
        first = sum(len(node.outputs) for node in self.nodes)
        outputs = tuple(Value(f"v{first + i}", *kind, constant) for i, kind in enumerate(kinds))
        self.nodes.append(Node(name, values, outputs, attributes))
        return outputs

    def output(self, name: str, value: Value) -> None:
        """Name a value as an output; ValueError if the name is taken, or for a constant."""
        if name in self.outputs or value.constant:
            raise ValueError(f"output {name!r}: it is there already, or depends on no input")
        self.outputs[name] = value

    def varying(self, constant: Value, like: Value) -> Value:
        """A constant as a value that has the axes in front that `like` has."""
        flat = self.op("reshape", like, shape=(int(np.prod(like.shape)),))
        one = self.op("slice", flat, axis=-1, start=0, stop=1)
        one = one if one.dtype == I else self.op("cast", one, dtype="bool") if one.dtype == "bool" else one
        condition = one if one.dtype == "bool" else self.op("less", one, 0)
        shape = self.op("reshape", condition, shape=(1,) * len(constant.shape))
        return self.op("where", shape, constant, constant)

    def pruned(self) -> "Graph":
        """The graph without the nodes, constants and inputs that no output needs."""
        needed, nodes = {value.name for value in self.outputs.values()}, []
        for node in reversed(self.nodes):
            if any(value.name in needed for value in node.outputs):
                nodes.append(node)
                needed.update(value.name for value in node.inputs)
        inputs = {name: value for name, value in self.inputs.items() if name in needed}
        constants = {name: array for name, array in self.constants.items() if name in needed}
        return Graph(inputs, dict(self.outputs), constants, nodes[::-1])


def run(
    name: str, inputs: tuple[Value, ...], attributes: dict[str, Any], arrays: list[Array]
) -> tuple[Array, ...]:
    """One operation on arrays, with axes in front of those of the values that are not constant."""
    result = OPS[name].run(arrays, {**attributes, "rank": len(inputs[0].shape)})
    results = result if isinstance(result, tuple) else (result,)
    # Python's floats and means of NumPy would widen what is float32 by definition.
    return tuple(
        np.asarray(x, np.float32) if np.asarray(x).dtype == np.float64 else np.asarray(x) for x in results
    )


def evaluate(graph: Graph, inputs: Mapping[str, Any]) -> dict[str, Array]:
    """The outputs of a graph, in NumPy.

    Args:
        graph: the graph.
        inputs: an array for each input, of its dtype; all may have the same axes in front.

    Raises:
        ValueError: for an input that is missing, or of another shape or dtype.
    """
    arrays: dict[str, Array] = dict(graph.constants)
    lead: Shape | None = None
    for name, value in graph.inputs.items():
        if name not in inputs:
            raise ValueError(f"inputs: {name!r} is missing; the graph has {list(graph.inputs)}")
        x = np.asarray(inputs[name])
        front = x.shape[: x.ndim - len(value.shape)]
        lead = front if lead is None else lead
        if x.dtype != value.dtype or x.shape[len(front) :] != value.shape or front != lead:
            raise ValueError(f"inputs: {name!r} is {x.dtype}{x.shape}, expected {value.dtype}{value.shape}")
        arrays[name] = x
    for node in graph.nodes:
        results = run(node.op, node.inputs, node.attributes, [arrays[x.name] for x in node.inputs])
        arrays.update({value.name: x for value, x in zip(node.outputs, results, strict=True)})
    return {name: arrays[value.name] for name, value in graph.outputs.items()}
