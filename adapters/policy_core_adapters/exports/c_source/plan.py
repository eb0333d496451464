"""What of a graph is computed when, and where it lies: loops that are one, values that are views, buffers.

- An elementwise operation whose one reader is an elementwise operation of the same shape is part of its loop.
- A value that lies in another one as it is (`reshape`, a `slice` without gaps) is a view of it, its root.
- A root lies in an argument, in the state, or in a buffer for its dtype, of which a part is used again as
  soon as nobody reads what lies there.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from policy_core_adapters.exports.graph import Graph, Node, Value

_FLOATS = ("neg", "abs", "exp", "log", "log1p", "expm1", "sqrt", "tanh", "sigmoid", "softplus", "relu")
_ACTIVATIONS = ("leaky_relu", "elu", "selu", "gelu", "silu")
_PAIRS = ("add", "sub", "mul", "minimum", "maximum", "div", "floordiv", "mod", "less", "less_equal", "equal")
ELEMENTWISE = frozenset((*_FLOATS, *_ACTIVATIONS, *_PAIRS, "not", "and", "or", "where", "cast"))
_ROWS = ("softmax", "log_softmax", "cumsum", "layer_norm")  # may write where they read
_MOST_FUSED = 12
TEMPORARY = {"gru": (3, 3), "lstm": (4, 4)}
"""Floats that an operation needs beside its outputs, as multiples of the size of the state."""
_WEIGHTS = {"linear": (1,), "conv2d": (1,), "gru": (2, 3), "lstm": (3, 4), "take": (0,)}


Root = Callable[[Value], tuple[str, int]]


class Place(NamedTuple):
    """Where a value begins: an address in C, and a number of entries behind it."""

    base: str
    offset: int


class Step(NamedTuple):
    """What is computed at once: a node, and those that its loop contains, by the name of their output."""

    node: Node
    inner: dict[str, Node]

    def reads(self) -> list[Value]:
        """What it reads that is not computed in it."""
        nodes = (self.node, *self.inner.values())
        return [x for node in nodes for x in node.inputs if x.name not in self.inner]


class Plan(NamedTuple):
    """A graph as steps, with a place for each value that is there."""

    steps: list[Step]
    places: dict[str, Place]
    temporary: dict[int, Place]
    """Number of a step to the buffer that it alone uses."""
    buffers: dict[str, int]
    """Dtype to the entries of its buffer."""
    copies: list[tuple[str, Value]]
    """Outputs that are copied to where they belong at the end."""
    packed: dict[str, tuple[Value, Value]]
    """A value that is never made: its int8 values, and their scale."""


def plan_of(graph: Graph, held: Mapping[str, str], address: Mapping[str, str]) -> Plan:
    """The plan of a graph.

    Args:
        graph: without what no output needs.
        held: name of an output to the input whose place it takes: the states.
        address: name of an input or output to the address in C of its entries; of an output that is held,
            that of its input.
    """
    steps, packed = _steps(graph)
    roots = _roots(graph, packed)

    def root(value: Value) -> tuple[str, int]:
        return roots.get(value.name, (value.name, 0))

    inputs = {value.name: name for name, value in graph.inputs.items()}
    values = {value.name: value for node in graph.nodes for value in node.outputs} | {
        value.name: value for value in graph.inputs.values()
    }
    # A part of the state that is an output as it was given could be overwritten before it is read.
    copies: list[tuple[str, Value]] = []
    for name, value in graph.outputs.items():
        if held.get(name) == inputs.get(root(value)[0]) and root(value)[1] == 0 and name in held:
            continue  # stays where it is
        if inputs.get(root(value)[0]) in held.values():
            copied = Value(f"copy of {name}", value.shape, value.dtype)
            steps.append(Step(Node("identity", (value,), (copied,), {}), {}))
            values[copied.name] = value = copied
        copies.append((name, value))
    last = {name: len(steps) for name in (root(value)[0] for _, value in copies)}
    for i, step in enumerate(steps):
        for value in step.reads():
            last[root(value)[0]] = max(last.get(root(value)[0], 0), i)
    places = {value.name: Place(address[name], 0) for name, value in graph.inputs.items()}
    made = {value.name: i for i, step in enumerate(steps) for value in step.node.outputs}
    for name, value in list(copies):
        base, offset = root(value)
        if base in places or base not in made or offset or math.prod(values[base].shape) != _size(value):
            continue
        if name in held and not _free(graph.inputs[held[name]], values[base], made[base], steps, last, root):
            continue
        places[base] = Place(address[name], 0)
        copies.remove((name, value))
    buffers = _Buffers()
    temporary = {}
    for i, step in enumerate(steps):
        if step.node.op in TEMPORARY:
            size = sum(TEMPORARY[step.node.op]) * step.node.outputs[0].shape[0]
            temporary[i] = buffers.take("float32", size)
        for value in step.node.outputs:
            if value.name in places:
                continue
            for other in _reusable(step, value, root):
                if last[other] == i and other in buffers.taken and _size(values[other]) == _size(value):
                    places[value.name] = buffers.hand_over(other, value.name)
                    break
            else:
                places[value.name] = buffers.take(value.dtype, _size(value), value.name)
        if i in temporary:
            buffers.give_back(temporary[i], sum(TEMPORARY[step.node.op]) * step.node.outputs[0].shape[0])
        for name in {root(value)[0] for value in (*step.reads(), *step.node.outputs)}:
            if last.get(name, -1) <= i:
                buffers.release(name)
    for name, (base, offset) in roots.items():
        if base in places:
            places[name] = Place(places[base].base, places[base].offset + offset)
    return Plan(steps, places, temporary, buffers.most, copies, packed)


def _size(value: Value) -> int:
    return math.prod(value.shape)


def _free(
    given: Value, value: Value, at: int, steps: list[Step], last: Mapping[str, int], root: Root
) -> bool:
    """Whether a new state can be computed where the old one lies."""
    if given.dtype != value.dtype or _size(given) != _size(value):
        return False
    if last.get(given.name, -1) < at:
        return True
    step = steps[at]
    in_cell = step.node.op in TEMPORARY and [root(x)[0] for x in step.reads()].count(given.name) == 1
    return last[given.name] == at and (in_cell or given.name in _reusable(step, value, root))


def _reusable(step: Step, value: Value, root: Root) -> Iterable[str]:
    """Roots of which a step reads each entry for the last time when it writes the same entry of `value`."""
    if step.node.op in _ROWS:
        base, offset = root(step.node.inputs[0])
        return [base] if offset == 0 else []
    if step.node.op not in ELEMENTWISE:
        return []
    good: dict[str, bool] = {}
    for x in step.reads():
        base, offset = root(x)
        fits = offset == 0 and x.shape == value.shape and x.dtype == value.dtype and not x.constant
        good[base] = good.get(base, True) and fits
    return [name for name, fits in good.items() if fits]


def _steps(graph: Graph) -> tuple[list[Step], dict[str, tuple[Value, Value]]]:
    readers: dict[str, list[Node | None]] = {}
    for node in graph.nodes:
        for value in node.inputs:
            readers.setdefault(value.name, []).append(node)
    for value in graph.outputs.values():
        readers.setdefault(value.name, []).append(None)
    steps: list[Step] = []
    waiting: dict[str, Step] = {}  # elementwise, and will be part of the loop of its reader
    packed = {}
    for node in graph.nodes:
        out = node.outputs[0]
        if node.op == "dequantize" and all(_unpacks(reader, out) for reader in readers[out.name]):
            packed[out.name] = node.inputs[0], node.inputs[1]
            continue
        if is_view(node) and node.inputs[0].name not in packed:
            continue
        inner: dict[str, Node] = {}
        if node.op in ELEMENTWISE:
            for value in node.inputs:
                if value.name in waiting:
                    step = waiting.pop(value.name)
                    inner |= step.inner | {value.name: step.node}
        [*others] = readers.get(out.name, [])
        reader = others[0] if len(others) == 1 else None
        step = Step(node, inner)
        small = len(inner) < _MOST_FUSED
        joins = reader is not None and reader.op in ELEMENTWISE and reader.outputs[0].shape == out.shape
        if node.op in ELEMENTWISE and joins and small:
            waiting[out.name] = step
        else:
            steps.append(step)
    return steps, packed


def _unpacks(reader: Node | None, value: Value) -> bool:
    """Whether a node multiplies by the scale itself, where `value` is one of its weights."""
    if reader is None:
        return False
    at = [i for i, x in enumerate(reader.inputs) if x == value]
    return set(at) <= set(_WEIGHTS.get(reader.op, ())) and (reader.op != "take" or len(value.shape) > 1)


def is_view(node: Node) -> bool:
    """Whether the output lies in the input as it is."""
    x = node.inputs[0]
    if x.constant:
        return False
    if node.op == "slice":
        before = x.shape[: len(x.shape) + node.attributes["axis"]]
        return math.prod(before) == 1
    return node.op == "reshape" or (node.op == "broadcast" and node.outputs[0].shape == x.shape)


def _roots(graph: Graph, packed: Mapping[str, object]) -> dict[str, tuple[str, int]]:
    """Name of a view to its root, and the number of the first entry there."""
    roots: dict[str, tuple[str, int]] = {}
    for node in graph.nodes:
        x = node.inputs[0]
        if is_view(node) and x.name not in packed:
            base, offset = roots.get(x.name, (x.name, 0))
            if node.op == "slice":
                behind = math.prod(x.shape[len(x.shape) + node.attributes["axis"] + 1 :])
                offset += node.attributes["start"] * behind
            roots[node.outputs[0].name] = base, offset
    return roots


class _Buffers:
    """One buffer for each dtype, cut into parts that are taken and given back."""

    def __init__(self) -> None:
        self.most: dict[str, int] = {}
        self.taken: dict[str, tuple[str, int, int]] = {}
        self._gaps: dict[str, list[tuple[int, int]]] = {}  # dtype to (first, end) of free parts

    def take(self, dtype: str, size: int, name: str = "") -> Place:
        """A part of a buffer: the smallest gap that is large enough, else at the end."""
        gaps = self._gaps.setdefault(dtype, [])
        fitting = [gap for gap in gaps if gap[1] - gap[0] >= size]
        end = self.most.get(dtype, 0)
        if fitting:
            gap = min(fitting, key=lambda gap: gap[1] - gap[0])
        else:
            gap = next((gap for gap in gaps if gap[1] == end), (end, end))
            self.most[dtype] = gap[0] + size
        if gap in gaps:
            gaps.remove(gap)
        if gap[0] + size < gap[1]:
            gaps.append((gap[0] + size, gap[1]))
        if name:
            self.taken[name] = dtype, gap[0], size
        return Place(BUFFERS[dtype], gap[0])

    def hand_over(self, old: str, new: str) -> Place:
        """The part of one value for another one of its dtype and size."""
        self.taken[new] = self.taken.pop(old)
        dtype, first, _ = self.taken[new]
        return Place(BUFFERS[dtype], first)

    def release(self, name: str) -> None:
        """Nobody reads a value any more."""
        if name in self.taken:
            dtype, first, size = self.taken.pop(name)
            self.give_back(Place(BUFFERS[dtype], first), size)

    def give_back(self, place: Place, size: int) -> None:
        """A part is free again, and one with the free parts beside it."""
        dtype = next(dtype for dtype, base in BUFFERS.items() if base == place.base)
        first, end = place.offset, place.offset + size
        gaps = self._gaps[dtype]
        for gap in list(gaps):
            if gap[1] == first or gap[0] == end:
                gaps.remove(gap)
                first, end = min(first, gap[0]), max(end, gap[1])
        if end > first:
            gaps.append((first, end))


BUFFERS = {
    "float32": "floats",
    "int32": "ints",
    "bool": "bools",
    "int8": "int8s",
    "int16": "int16s",
    "uint8": "uint8s",
    "uint16": "uint16s",
    "uint32": "uint32s",
}
