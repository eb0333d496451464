"""Operations of a graph as statements in C."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from policy_core_adapters.exports.c_source.plan import ELEMENTWISE, Place, Plan, Step
from policy_core_adapters.exports.c_source.text import (
    TYPES,
    Constants,
    bare,
    dense,
    entry_at,
    index,
    literal,
    merged,
    plus,
    rows_of,
    stretched,
)
from policy_core_adapters.exports.graph import Graph, Node, Value

_CALLED = {  # operations of floats that a function computes, and its name
    **{name: name for name in ("log1p", "expm1", "tanh", "sigmoid", "softplus", "relu", "leaky_relu", "elu")},
    **{name: name for name in ("selu", "gelu", "silu", "mod")},
}
_LIBM = {"exp": "expf", "log": "logf", "sqrt": "sqrtf", "abs": "fabsf"}
_SIGNS = {"div": "/", "floordiv": "/", "less": "<", "less_equal": "<=", "and": "&&", "or": "||"}
_BOTH = {"add": "+", "sub": "-", "mul": "*"}  # of floats; of integers by a function, lest they overflow


class Code:
    """Statements of a function, and what they need.

    Args:
        graph: what is computed.
        plan: where and when.
        constants: name in C by dtype, shape and bytes, shared by functions of a source; more are added.
        prefix: of the names of functions and constants.
    """

    def __init__(self, graph: Graph, plan: Plan, constants: "Constants", prefix: str) -> None:
        self.graph, self.plan, self.constants, self.prefix = graph, plan, constants, prefix
        self.lines: list[str] = []
        self.helpers: set[str] = set()
        self.axes = 0  # the largest number of loops in loops

    def write(self) -> None:
        """Add the statements of all steps, and the copies of outputs."""
        for i, step in enumerate(self.plan.steps):
            if any(math.prod(value.shape) for value in step.node.outputs):
                self.step(i, step)

    def step(self, number: int, step: Step) -> None:
        """The statements of one step."""
        node = step.node
        if node.op in ELEMENTWISE or node.op in ("identity", "broadcast", "reshape", "dequantize"):
            self.elementwise(step)
        elif node.op in ("gru", "lstm"):
            self.cell(node, self.plan.temporary[number])
        else:
            getattr(self, f"_{node.op}")(node)

    # ADDRESSES AND ENTRIES

    def at(self, value: Value, entry: int = 0) -> str:
        """The address of an entry of a value."""
        if value.name in self.plan.places:
            place = self.plan.places[value.name]
            return plus(place.base, str(place.offset + entry))
        return plus(self.constants.name(self.graph.constants[value.name]), str(entry))

    def entry(self, value: Value, index: str) -> str:
        """An entry of a value."""
        if value.name not in self.plan.places:
            array = self.graph.constants[value.name]
            if array.size == 1:
                return literal(array.ravel()[0])
            return f"{self.constants.name(array)}[{index}]"
        place = self.plan.places[value.name]
        return f"{place.base}[{plus(str(place.offset), index)}]"

    def call(self, name: str, *arguments: Any) -> str:
        """A call of a function of the source."""
        self.helpers.add(name)
        return f"{self.prefix}_{name}({', '.join(map(str, arguments))})"

    def do(self, name: str, *arguments: Any) -> None:
        """A call as a statement."""
        self.lines.append(f"{self.call(name, *arguments)};")

    def loops(
        self, sizes: Sequence[int], inside: Callable[[list[str]], list[str]], first: int = 0
    ) -> list[str]:
        """Loops in loops; `inside` gets their variables."""
        names = [f"i{first + i}" for i in range(len(sizes))]
        self.axes = max(self.axes, first + len(sizes))
        lines = inside(names)
        for name, size in reversed(list(zip(names, sizes, strict=True))):
            head = f"for ({name} = 0; {name} < {size}; ++{name})"
            if len(lines) == 1:
                lines = [f"{head} {lines[0]}"]
            else:
                lines = [f"{head} {{", *(f"    {line}" for line in lines), "}"]
        return lines

    # LOOPS OVER ENTRIES

    def elementwise(self, step: Step) -> None:
        """One loop over the entries of the output, with all operations of the step in it."""
        out = step.node.outputs[0]
        reads = list({value.name: value for value in step.reads()}.values())
        same = step.node.op in ("identity", "reshape")  # another shape, and the same order
        strides = [dense(out.shape) if same else stretched(value.shape, out.shape) for value in reads]
        sizes, (own, *others) = merged(out.shape, [dense(out.shape), *strides])

        def inside(names: list[str]) -> list[str]:
            indices = {value.name: index(names, steps) for value, steps in zip(reads, others, strict=True)}
            text = self.expression(step.node, step, indices)
            target = self.entry(out, index(names, own))
            if out.dtype == "bool" and step.node.op in ELEMENTWISE:  # C compares to int
                text = f"(uint8_t){text}"
            return [f"{target} = {bare(text)};"]

        self.lines += self.loops(sizes, inside)

    def expression(self, node: Node, step: Step, indices: dict[str, str]) -> str:
        """The entry of the output of a node, with parentheses around it."""

        def operand(value: Value) -> str:
            if value.name in step.inner:
                return self.expression(step.inner[value.name], step, indices)
            return self.entry(value, indices[value.name])

        x, *others = (operand(value) for value in node.inputs)
        return self.operation(node, x, *others)

    def operation(self, node: Node, x: str, *others: str) -> str:
        """An elementwise operation of entries."""
        op, dtype = node.op, node.inputs[0].dtype
        if op in _CALLED:
            return self.call(_CALLED[op], *map(bare, (x, *others)))
        if op in _LIBM:
            return f"{_LIBM[op]}({bare(x)})"
        if op in ("minimum", "maximum"):
            return self.call(op[:3] + "_int" * (dtype != "float32"), bare(x), bare(others[0]))
        if op in _BOTH and dtype == "int32":
            return self.call(f"{op}_int", bare(x), bare(others[0]))
        if op in _BOTH or op in _SIGNS:
            return f"({x} {_BOTH.get(op) or _SIGNS[op]} {others[0]})"
        match op:
            case "neg":
                return f"(-{x})"
            case "not":
                return f"(!{x})"
            case "equal" if dtype == "bool":
                return f"(!{x} == !{others[0]})"
            case "equal":
                return f"({x} == {others[0]})"
            case "where":
                return f"({x} ? {others[0]} : {others[1]})"
            case "cast":
                return self.cast(x, dtype, node.attributes["dtype"])
            case "dequantize":
                return f"((float){x} * {others[0]})"
        return x

    def cast(self, x: str, old: str, new: str) -> str:
        """An entry in another dtype."""
        if old == new:
            return x
        if new == "bool":
            return f"({x} != 0)"
        if old == "bool":
            one, zero = ("1.0f", "0.0f") if new == "float32" else ("1", "0")
            return f"({x} ? {one} : {zero})"
        if old != "float32" or new == "float32":
            return f"(({TYPES[new]}){x})"
        whole = self.call("to_uint" if new == "uint32" else "to_int", bare(x))
        return whole if new in ("int32", "uint32") else f"(({TYPES[new]}){whole})"

    def copy(self, target: str, steps: Sequence[int], x: Value, first: int, strides: Sequence[int],
             shape: Sequence[int]) -> None:  # fmt: skip
        """Entries from a value, which begin at `first` there, to an address in another order."""
        sizes, (to, of) = merged(tuple(shape), [tuple(steps), tuple(strides)])

        def inside(names: list[str]) -> list[str]:
            source = self.entry(x, plus(str(first), index(names, of)))
            return [f"{entry_at(target, index(names, to))} = {source};"]

        if math.prod(shape):
            self.lines += self.loops(sizes, inside)

    def _transpose(self, node: Node) -> None:
        (x,), (y,) = node.inputs, node.outputs
        steps = dense(x.shape)
        self.copy(
            self.at(y), dense(y.shape), x, 0, [steps[axis] for axis in node.attributes["axes"]], y.shape
        )

    def _slice(self, node: Node) -> None:
        (x,), (y,) = node.inputs, node.outputs
        steps = dense(x.shape)
        first = node.attributes["start"] * steps[node.attributes["axis"]]
        self.copy(self.at(y), dense(y.shape), x, first, steps, y.shape)

    def _concat(self, node: Node) -> None:
        (y,), axis, start = node.outputs, node.attributes["axis"], 0
        steps = dense(y.shape)
        for x in node.inputs:
            self.copy(self.at(y, start * steps[axis]), steps, x, 0, dense(x.shape), x.shape)
            start += x.shape[axis]

    def _gather(self, node: Node) -> None:
        (x, places), (y,) = node.inputs, node.outputs
        m = y.shape[-1]

        def inside(names: list[str]) -> list[str]:
            i, j = names
            at = f"{i} * {x.shape[-1]} + {self.entry(places, j)}"
            return [f"{self.entry(y, f'{i} * {m} + {j}')} = {self.entry(x, at)};"]

        self.lines += self.loops((math.prod(x.shape[:-1]), m), inside)

    def _take(self, node: Node) -> None:
        (table, at), (y,) = node.inputs, node.outputs
        rows, width = table.shape[0], math.prod(table.shape[1:])
        values, scale = self.plan.packed.get(table.name, (table, None))

        def inside(names: list[str]) -> list[str]:
            i, j = names
            row = self.call("row", self.entry(at, i), rows)
            entry = self.entry(values, f"{row} * {width} + {j}")
            if scale is not None:
                entry += f" * {self.entry(scale, f'{j} % {table.shape[-1]}')}"
            return [f"{self.entry(y, f'{i} * {width} + {j}')} = {entry};"]

        self.lines += self.loops((math.prod(at.shape), width), inside)

    def _reduce(self, node: Node, start: str, add: Callable[[str], str], end: str = "") -> None:
        (x,), (y,) = node.inputs, node.outputs
        axes = sorted(len(x.shape) + axis for axis in node.attributes["axes"])
        kept = [i for i in range(len(x.shape)) if i not in axes]
        steps = dense(x.shape)
        sizes, (to, of) = merged(
            tuple(x.shape[i] for i in kept),
            [dense(tuple(x.shape[i] for i in kept)), tuple(steps[i] for i in kept)],
        )
        reduced, (along,) = merged(tuple(x.shape[i] for i in axes), [tuple(steps[i] for i in axes)])

        def inside(names: list[str]) -> list[str]:
            target = self.entry(y, index(names, to))

            def each(more: list[str]) -> list[str]:
                return [add(target).replace("?x", self.entry(x, plus(index(names, of), index(more, along))))]

            lines = [f"{target} = {start};", *self.loops(reduced, each, len(sizes))]
            return [*lines, f"{target} {end};"] if end else lines

        self.lines += self.loops(sizes, inside)

    def _sum(self, node: Node) -> None:
        self._reduce(node, "0.0f", lambda y: f"{y} += ?x;")

    def _mean(self, node: Node) -> None:
        count = math.prod(node.inputs[0].shape[axis] for axis in node.attributes["axes"])
        self._reduce(node, "0.0f", lambda y: f"{y} += ?x;", f"/= {float(count)!r}f")

    def _max(self, node: Node) -> None:
        self._reduce(node, "-INFINITY", lambda y: f"{y} = {self.call('max', y, '?x')};")

    def _any(self, node: Node) -> None:
        self._reduce(node, "0", lambda y: f"{y} = {y} || ?x;")

    # FUNCTIONS OF WHOLE ARRAYS

    def weights(self, value: Value, bias: Sequence[Value] = ()) -> tuple[str, str, str, str]:
        """The ending of the name of a function of these weights, their address, that of scale and bias."""
        packed, scale = self.plan.packed.get(value.name, (value, None))
        at = ["NULL" if x is None else self.at(x) for x in (scale, *(bias or (None,)))]
        return "_int8" if scale else "", self.at(packed), at[0], at[1]

    def product(self, x: Value, kernel: Value, bias: Sequence[Value], target: str) -> None:
        """`x @ kernel + bias` at an address."""
        ending, *at = self.weights(kernel, bias)
        self.do(f"linear{ending}", self.at(x), *at, target, math.prod(x.shape[:-1]), *kernel.shape)

    def _linear(self, node: Node) -> None:
        x, kernel, *bias = node.inputs
        self.product(x, kernel, bias, self.at(node.outputs[0]))

    def _conv2d(self, node: Node) -> None:
        x, kernel, *bias = node.inputs
        y, (top, _, left, _) = node.outputs[0], node.attributes["pads"]
        ending, *at = self.weights(kernel, bias)
        sides = kernel.shape[0], kernel.shape[1], kernel.shape[3]
        self.do(f"conv2d{ending}", self.at(x), *at, self.at(y), *x.shape, *sides, node.attributes["stride"],
                top, left, *y.shape[:2])  # fmt: skip

    def _max_pool2d(self, node: Node) -> None:
        (x,), (y,), a = node.inputs, node.outputs, node.attributes
        (top, _, left, _) = a["pads"]
        self.do(
            "max_pool2d", self.at(x), self.at(y), *x.shape, a["window"], a["stride"], top, left, *y.shape[:2]
        )

    def _mean_pool2d(self, node: Node) -> None:
        (x,), (y,) = node.inputs, node.outputs
        self.do("mean_pool2d", self.at(x), self.at(y), *x.shape[1:], node.attributes["window"], *y.shape[:2])

    def _matmul(self, node: Node) -> None:
        (x, y), (z,) = node.inputs, node.outputs
        self.do(
            "matmul", self.at(x), self.at(y), self.at(z), math.prod(x.shape[:-2]), *x.shape[-2:], y.shape[-1]
        )

    def _layer_norm(self, node: Node) -> None:
        x, *affine = node.inputs
        parts = [self.at(part) for part in affine] or ["NULL", "NULL"]
        epsilon = literal(np.float32(node.attributes["epsilon"]))
        self.do("layer_norm", self.at(x), *parts, epsilon, self.at(node.outputs[0]), *rows_of(x))

    def _rowwise(self, node: Node) -> None:
        x = node.inputs[0]
        self.do(node.op, self.at(x), self.at(node.outputs[0]), *rows_of(x))

    _softmax = _log_softmax = _cumsum = _argmax = _rowwise

    def cell(self, node: Node, at: Place) -> None:
        """A step of a GRU or an LSTM, with two products in a buffer of its own."""
        gates = 3 if node.op == "gru" else 4
        x, *states = node.inputs[: 2 if node.op == "gru" else 3]
        kernel, recurrent, bias, *inner = node.inputs[1 + len(states) :]
        n = states[0].shape[0]
        self.product(x, kernel, [bias], plus(at.base, str(at.offset)))
        self.product(states[-1], recurrent, [], plus(at.base, str(at.offset + gates * n)))
        a, b = (
            [f"{at.base}[{plus(str(at.offset + (j * gates + i) * n), 'i0')}]" for i in range(gates)]
            for j in range(2)
        )

        def gru(_: list[str]) -> list[str]:
            r, z = (self.call("sigmoid", f"{a[i]} + {b[i]}") for i in range(2))
            new = self.call("tanh", f"{a[2]} + r * ({b[2]} + {self.entry(inner[0], 'i0')})")
            target, old = self.entry(node.outputs[0], "i0"), self.entry(states[0], "i0")
            return [f"const float r = {r}, z = {z};", f"{target} = (1.0f - z) * {new} + z * {old};"]

        def lstm(_: list[str]) -> list[str]:
            i, f, o = (self.call("sigmoid", f"{a[k]} + {b[k]}") for k in (0, 1, 3))
            g, old = self.call("tanh", f"{a[2]} + {b[2]}"), self.entry(states[0], "i0")
            cell, hidden = (self.entry(value, "i0") for value in node.outputs)
            return [
                f"const float cell = {f} * {old} + {i} * {g};",
                f"{cell} = cell;",
                f"{hidden} = {o} * {self.call('tanh', 'cell')};",
            ]

        self.lines += self.loops((n,), gru if node.op == "gru" else lstm)
