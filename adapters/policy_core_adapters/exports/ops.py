"""The operations of a graph: what each takes, gives and computes; see `graph` for how they are put together.

Shapes are those of one element, without any batch axis, and axes are negative: -1 is the last. So every
operation means the same where axes stand in front of all the values that depend on an input, as the
evaluator here, ONNX with a batch axis, and a loop in C do it. Constants never have such axes.

Dtypes are `float32`, `int32` and `bool`; integers of fewer bits are inputs and outputs only, next to a
`cast`. `x`, `y` are values; what is called *constant* must be one. NaN is not promised to be carried by
`minimum`, `maximum`, `argmax` and `max`; `where` never lets pass what was not selected.

elementwise, of floats: `neg abs exp log log1p expm1 sqrt tanh sigmoid softplus relu leaky_relu elu selu gelu
    silu`, as in JAX: `leaky_relu` has the slope 0.01, `gelu` is the one with tanh, `elu` has alpha 1.
    `softplus` may be off by 2^-23; `log1p` and `expm1` are exact to a few units in the last place near 0.
of bools: `not`
of two: `add sub mul minimum maximum` (floats or int32), `div` (floats), `floordiv mod` (int32: x of any
    sign for `mod`, which is at least 0; x >= 0 for `floordiv`; y a positive constant), `less less_equal
    equal` (to bool), `and or` (bools).
    They broadcast as in NumPy. Two values that depend on inputs have the same rank; a constant has at
    most that rank. The same holds for `where`.
`where(condition, x, y)`: x where the condition (bool) holds, else y.
`cast(x; dtype)`: from floats to integers only whole numbers within range; to bool: not 0.
`linear(x, kernel, bias?)`: x [..., n] @ kernel [n, m] + bias [m]; kernel and bias constant.
`matmul(x, y)`: [..., n, k] @ [..., k, m], neither constant, the axes in front equal.
`layer_norm(x, scale?, bias?; epsilon)`: (x - mean) / sqrt(variance + epsilon) along the last axis, times
    scale [n], plus bias [n], both constant, or neither.
`softmax(x)`, `log_softmax(x)`, `cumsum(x)`: along the last axis.
`sum mean max (x; axes, keep)`: of floats along axes, which stay as 1 where `keep`. `any` likewise, of bools.
`argmax(x)`: index of the largest along the last axis, which goes; int32; the first of equals.
`take(table, index)`: rows of a constant table [n, ...] for int32 in 0..n-1: [*index, ...].
`gather(x, index)`: x [..., n] at constant int32 places [m] of 0..n-1 along the last axis: [..., m].
`reshape(x; shape)`, `broadcast(x; shape)` (same rank, 1 to n), `transpose(x; axes)` (a permutation of
    -rank..-1), `concat(x, y, ...; axis)`, `slice(x; axis, start, stop)`.
`conv2d(x, kernel, bias?; stride, pads)`: x [h, w, c], kernel [kh, kw, c, f] constant, zeros around as
    pads = (top, bottom, left, right): [(h + top + bottom - kh) // stride + 1, ..., f], not flipped.
`max_pool2d(x; window, stride, pads)` (-inf around), `mean_pool2d(x; window)` (stride = window, what is
    left over at the end is dropped): x [h, w, c].
`gru(x, h, kernel, recurrent, bias, inner)`: x [n], h [s], kernel [n, 3s], recurrent [s, 3s], bias [3s],
    inner [s]. With a = x @ kernel + bias and b = h @ recurrent, each cut into three for r, z, n:
    r = sigmoid(a_r + b_r), z = sigmoid(a_z + b_z), n = tanh(a_n + r (b_n + inner)), (1 - z) n + z h.
`lstm(x, cell, hidden, kernel, recurrent, bias)`, two outputs (cell, hidden): x @ kernel + hidden @
    recurrent + bias, cut into i, f, g, o: cell' = sigmoid(f) cell + sigmoid(i) tanh(g),
    hidden' = sigmoid(o) tanh(cell').
`dequantize(values, scale)`: of constants only, int8 [n, m] (or [kh, kw, c, f]) and float32 [m] for the
    last axis: values * scale, a constant. It stands before `linear`, `conv2d`, `gru`, `lstm`, `take`.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray[Any, Any]
Shape = tuple[int, ...]
Attributes = dict[str, Any]
F, I, B = "float32", "int32", "bool"  # noqa: E741 - as short as their use is frequent
NARROW = ("int8", "int16", "uint8", "uint16", "uint32")
DTYPES = (F, I, B, *NARROW)


class Kind(NamedTuple):
    """Of a value, as an operation sees it."""

    shape: Shape
    dtype: str
    constant: bool


class Op(NamedTuple):
    """An operation."""

    infer: Callable[[list[Kind], Attributes], list[tuple[Shape, str]]]
    """Shape and dtype of each output; ValueError for what it does not take."""
    run: Callable[..., Any]
    """`(arrays, attributes) -> array`, or a tuple for several outputs; axes in front where there are any."""


OPS: dict[str, Op] = {}


def need(holds: bool, what: str) -> None:
    """Raise ValueError unless it holds."""
    if not holds:
        raise ValueError(what)


def floats(kind: Kind) -> None:
    """Raise ValueError unless it is float32."""
    need(kind.dtype == F, f"expected float32, got {kind.dtype}")


def joined(kinds: list[Kind]) -> Shape:
    """The shape that values broadcast to."""
    ranks = {len(kind.shape) for kind in kinds if not kind.constant}
    need(len(ranks) <= 1, f"the ranks differ: {[kind.shape for kind in kinds]}; reshape one")
    for kind in kinds:
        need(not ranks or len(kind.shape) <= max(ranks), f"a constant of rank {len(kind.shape)} is too large")
    try:
        return tuple(np.broadcast_shapes(*(kind.shape for kind in kinds)))
    except ValueError:
        raise ValueError(f"the shapes {[kind.shape for kind in kinds]} do not go together") from None


def axes_of(attributes: Attributes, rank: int) -> tuple[int, ...]:
    """The attribute `axes`, checked."""
    axes = tuple(attributes["axes"])
    need(all(-rank <= axis < 0 for axis in axes) and len(set(axes)) == len(axes), f"axes: got {axes}")
    return axes


# ELEMENTWISE


def _unary(name: str, run: Callable[[Array], Array], dtype: str = F) -> None:
    def infer(kinds: list[Kind], _: Attributes) -> list[tuple[Shape, str]]:
        need(kinds[0].dtype == dtype, f"expected {dtype}, got {kinds[0].dtype}")
        return [(kinds[0].shape, dtype)]

    OPS[name] = Op(infer, lambda arrays, attributes: run(arrays[0]))


def sigmoid(x: Array) -> Array:
    """1 / (1 + e^-x), without overflow."""
    e = np.exp(-np.abs(x))
    return np.asarray(np.where(x >= 0, 1, e) / (1 + e))


_SELU = 1.0507009873554805, 1.6732632423543772
for _name, _run in {
    "neg": np.negative,
    "abs": np.abs,
    "exp": np.exp,
    "log": np.log,
    "log1p": np.log1p,
    "expm1": np.expm1,
    "sqrt": np.sqrt,
    "tanh": np.tanh,
    "sigmoid": sigmoid,
    "softplus": lambda x: np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x))),
    "relu": lambda x: np.maximum(x, 0),
    "leaky_relu": lambda x: np.where(x >= 0, x, np.float32(0.01) * x),
    "elu": lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))),
    "selu": lambda x: np.float32(_SELU[0]) * np.where(x > 0, x, _SELU[1] * np.expm1(np.minimum(x, 0))),
    "gelu": lambda x: x * (0.5 + 0.5 * np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x))),
    "silu": lambda x: x * sigmoid(x),
}.items():
    _unary(_name, _run)  # type: ignore[arg-type]
_unary("not", np.logical_not, B)


def _binary(name: str, run: Callable[[Array, Array], Array], dtypes: tuple[str, ...], to: str = "") -> None:
    def infer(kinds: list[Kind], _: Attributes) -> list[tuple[Shape, str]]:
        x, y = kinds
        need(x.dtype == y.dtype and x.dtype in dtypes, f"expected two of {dtypes}, got {x.dtype}, {y.dtype}")
        need(name not in ("floordiv", "mod") or y.constant, "expected a constant divisor")
        return [(joined(kinds), to or x.dtype)]

    OPS[name] = Op(infer, lambda arrays, attributes: run(*arrays))


_NUMBERS = (F, I)
_binary("add", np.add, _NUMBERS)
_binary("sub", np.subtract, _NUMBERS)
_binary("mul", np.multiply, _NUMBERS)
_binary("minimum", np.minimum, _NUMBERS)
_binary("maximum", np.maximum, _NUMBERS)
_binary("div", np.divide, (F,))
_binary("floordiv", np.floor_divide, (I,))
_binary("mod", np.mod, (I,))
_binary("less", np.less, _NUMBERS, B)
_binary("less_equal", np.less_equal, _NUMBERS, B)
_binary("equal", np.equal, (F, I, B), B)
_binary("and", np.logical_and, (B,))
_binary("or", np.logical_or, (B,))


def _where(kinds: list[Kind], _: Attributes) -> list[tuple[Shape, str]]:
    condition, x, y = kinds
    need(condition.dtype == B, f"expected a bool condition, got {condition.dtype}")
    need(x.dtype == y.dtype and x.dtype in (F, I), f"expected two of one dtype, got {x.dtype}, {y.dtype}")
    return [(joined(kinds), x.dtype)]


def _cast(kinds: list[Kind], attributes: Attributes) -> list[tuple[Shape, str]]:
    need(attributes["dtype"] in DTYPES, f"dtype: got {attributes['dtype']!r}, expected one of {DTYPES}")
    return [(kinds[0].shape, attributes["dtype"])]


OPS["where"] = Op(_where, lambda arrays, attributes: np.where(*arrays))
OPS["cast"] = Op(_cast, lambda arrays, attributes: arrays[0].astype(attributes["dtype"]))


# PRODUCTS AND ROWS


def _linear(kinds: list[Kind], _: Attributes) -> list[tuple[Shape, str]]:
    x, kernel, *bias = kinds
    floats(x)
    need(len(x.shape) >= 1 and len(kernel.shape) == 2 and x.shape[-1] == kernel.shape[0],
          f"x {x.shape} does not go with the kernel {kernel.shape}")  # fmt: skip
    need(all(part.constant for part in kinds[1:]), "expected a constant kernel and bias")
    need(all(part.shape == kernel.shape[1:] for part in bias), "the bias has not the size of the kernel")
    return [((*x.shape[:-1], kernel.shape[1]), F)]


def _run_linear(arrays: list[Array], _: Attributes) -> Array:
    x, kernel, *bias = arrays
    return np.asarray(x @ kernel + bias[0] if bias else x @ kernel)


def _matmul(kinds: list[Kind], _: Attributes) -> list[tuple[Shape, str]]:
    x, y = kinds
    floats(x)
    floats(y)
    need(not x.constant and not y.constant, "expected two values that depend on inputs; else use linear")
    fits = len(x.shape) == len(y.shape) >= 2 and x.shape[:-2] == y.shape[:-2] and x.shape[-1] == y.shape[-2]
    need(fits, f"{x.shape} and {y.shape} do not go together")
    return [((*x.shape[:-1], y.shape[-1]), F)]


def _layer_norm(kinds: list[Kind], _: Attributes) -> list[tuple[Shape, str]]:
    x, *affine = kinds
    floats(x)
    need(len(affine) in (0, 2) and all(part.constant and part.shape == x.shape[-1:] for part in affine),
          "expected a constant scale and bias of the size of the last axis, or neither")  # fmt: skip
    return [(x.shape, F)]


def _run_layer_norm(arrays: list[Array], attributes: Attributes) -> Array:
    x, *affine = arrays
    centred = x - x.mean(-1, keepdims=True)
    y = centred / np.sqrt(np.square(centred).mean(-1, keepdims=True) + np.float32(attributes["epsilon"]))
    return np.asarray(y * affine[0] + affine[1] if affine else y)


def _same(kinds: list[Kind], _: Attributes) -> list[tuple[Shape, str]]:
    floats(kinds[0])
    need(len(kinds[0].shape) >= 1, "expected at least one axis")
    return [(kinds[0].shape, F)]


def _softmax(x: Array) -> Array:
    e = np.exp(x - x.max(-1, keepdims=True))
    return np.asarray(e / e.sum(-1, keepdims=True))


def _log_softmax(x: Array) -> Array:
    shifted = x - x.max(-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(-1, keepdims=True)))


OPS["linear"] = Op(_linear, _run_linear)
OPS["matmul"] = Op(_matmul, lambda arrays, attributes: arrays[0] @ arrays[1])
OPS["layer_norm"] = Op(_layer_norm, _run_layer_norm)
OPS["softmax"] = Op(_same, lambda arrays, attributes: _softmax(arrays[0]))
OPS["log_softmax"] = Op(_same, lambda arrays, attributes: _log_softmax(arrays[0]))
OPS["cumsum"] = Op(_same, lambda arrays, attributes: np.cumsum(arrays[0], -1, dtype=arrays[0].dtype))


def _reduce(name: str, run: Callable[..., Any], dtype: str) -> None:
    def infer(kinds: list[Kind], attributes: Attributes) -> list[tuple[Shape, str]]:
        shape, rank = kinds[0].shape, len(kinds[0].shape)
        need(kinds[0].dtype == dtype, f"expected {dtype}, got {kinds[0].dtype}")
        axes = {axis + rank for axis in axes_of(attributes, rank)}
        kept = [1 if i in axes else n for i, n in enumerate(shape) if attributes["keep"] or i not in axes]
        return [(tuple(kept), dtype)]

    OPS[name] = Op(infer, lambda x, a: run(x[0], axis=tuple(a["axes"]), keepdims=a["keep"]))


_reduce("sum", np.sum, F)
_reduce("mean", np.mean, F)
_reduce("max", np.max, F)
_reduce("any", np.any, B)


def _argmax(kinds: list[Kind], _: Attributes) -> list[tuple[Shape, str]]:
    floats(kinds[0])
    need(len(kinds[0].shape) >= 1 and kinds[0].shape[-1] > 0, "expected a last axis that is not empty")
    return [(kinds[0].shape[:-1], I)]


def _take(kinds: list[Kind], _: Attributes) -> list[tuple[Shape, str]]:
    table, index = kinds
    need(
        table.constant and len(table.shape) >= 1 and index.dtype == I, "expected a constant table, and int32"
    )
    return [((*index.shape, *table.shape[1:]), table.dtype)]


def _gather(kinds: list[Kind], _: Attributes) -> list[tuple[Shape, str]]:
    x, index = kinds
    fits = len(x.shape) >= 1 and len(index.shape) == 1 and index.constant and index.dtype == I
    need(fits, "expected at least one axis, and constant int32 places")
    return [((*x.shape[:-1], index.shape[0]), x.dtype)]


OPS["argmax"] = Op(_argmax, lambda arrays, attributes: arrays[0].argmax(-1).astype(np.int32))
OPS["gather"] = Op(_gather, lambda arrays, attributes: np.take(arrays[0], arrays[1], -1))
OPS["take"] = Op(_take, lambda arrays, attributes: arrays[0][arrays[1]])
