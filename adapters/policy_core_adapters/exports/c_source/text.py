"""Numbers, names, arrays and the order of entries, as text in C."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from policy_core_adapters.exports.graph import Value

TYPES = {
    "float32": "float",
    "bool": "uint8_t",
    **{name: f"{name}_t" for name in ("int8", "int16", "int32", "uint8", "uint16", "uint32")},
}


class Constants:
    """Arrays that stand in a source, each once.

    Args:
        prefix: of their names.
    """

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.arrays: dict[tuple[str, bytes], tuple[str, np.ndarray[Any, Any]]] = {}

    def name(self, array: np.ndarray[Any, Any]) -> str:
        """The name of an array, which is added unless it is there."""
        key = str(array.dtype), array.tobytes()
        self.arrays.setdefault(key, (f"{self.prefix}_c{len(self.arrays)}", array))
        return self.arrays[key][0]

    def text(self) -> str:
        """The arrays in C."""
        return "".join(constant(name, array) for name, array in self.arrays.values())


def constant(name: str, array: np.ndarray[Any, Any], storage: str = "static const") -> str:
    """An array in C, with one entry if it has none, which C does not know."""
    entries = [literal(x) for x in array.ravel()] or ["0"]
    lines, line = [], ""
    for entry in entries:
        if line and len(line) + len(entry) > 100:
            lines.append(line)
            line = ""
        line += f"{entry}, "
    body = "".join(f"    {line.rstrip()}\n" for line in (*lines, line))
    return f"{storage} {TYPES[str(array.dtype)]} {name}[{len(entries)}] = {{\n{body}}};\n"


def literal(x: Any) -> str:
    """A number in C, exactly."""
    x = np.asarray(x)
    if x.dtype.kind != "f":
        number = int(x)
        return f"({number + 1} - 1)" if number == -(2**31) else f"({number})" if number < 0 else str(number)
    if np.isnan(x):
        return "NAN"
    if np.isinf(x):
        return "INFINITY" if x > 0 else "(-INFINITY)"
    text = f"{float(x):.9g}"
    text = text if "." in text or "e" in text else f"{text}.0"
    return f"({text}f)" if text.startswith("-") else f"{text}f"


def bare(text: str) -> str:
    """An expression without parentheses around all of it."""
    if not text.startswith("(") or not text.endswith(")"):
        return text
    depth = 0
    for i, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if depth == 0 and i < len(text) - 1:
            return text
    return text[1:-1]


def plus(x: str, y: str) -> str:
    """A sum of two terms, of which one may be 0."""
    if x == "0" or y == "0":
        return y if x == "0" else x
    return f"{x} + {y}"


def entry_at(address: str, at: str) -> str:
    """An entry behind an address."""
    base, _, offset = address.partition(" + ")
    return f"{base}[{plus(offset or '0', at)}]"


def index(names: list[str], strides: Sequence[int]) -> str:
    """The number of an entry from the variables of loops."""
    terms = [
        name if stride == 1 else f"{name} * {stride}"
        for name, stride in zip(names, strides, strict=True)
        if stride
    ]
    return " + ".join(terms) or "0"


def rows_of(x: Value) -> tuple[int, int]:
    """The rows of a value, and the entries of one."""
    return math.prod(x.shape[:-1]), x.shape[-1]


def dense(shape: Sequence[int]) -> tuple[int, ...]:
    """The entries between neighbors along each axis."""
    return tuple(math.prod(shape[i + 1 :]) for i in range(len(shape)))


def stretched(shape: Sequence[int], to: Sequence[int]) -> tuple[int, ...]:
    """The same of a value that is broadcast to another shape."""
    steps = [0 if size == 1 else stride for size, stride in zip(shape, dense(shape), strict=True)]
    return (0,) * (len(to) - len(shape)) + tuple(steps)


def merged(
    shape: Sequence[int], strides: Sequence[Sequence[int]]
) -> tuple[tuple[int, ...], list[tuple[int, ...]]]:
    """Axes without those of size 1, and neighbors as one where all strides allow it."""
    axes = [(size, [row[i] for row in strides]) for i, size in enumerate(shape) if size != 1]
    result: list[tuple[int, list[int]]] = []
    for size, steps in axes:
        if result and all(old == new * size for old, new in zip(result[-1][1], steps, strict=True)):
            result[-1] = result[-1][0] * size, steps
        else:
            result.append((size, steps))
    sizes = tuple(size for size, _ in result)
    return sizes, [tuple(steps[i] for _, steps in result) for i in range(len(strides))]
