"""Operations of a graph that move entries, and those of whole layers; `ops` says what they mean."""

import math
from typing import Any

import numpy as np

from policy_core_adapters.exports.ops import (
    OPS,
    Array,
    Attributes,
    F,
    Kind,
    Op,
    Shape,
    axes_of,
    floats,
    need,
    sigmoid,
)


def _reshape(kinds: list[Kind], attributes: Attributes) -> list[tuple[Shape, str]]:
    shape = tuple(attributes["shape"])
    need(
        math.prod(shape) == math.prod(kinds[0].shape),
        f"shape: {kinds[0].shape} is not of the size of {shape}",
    )
    return [(shape, kinds[0].dtype)]


def _broadcast(kinds: list[Kind], attributes: Attributes) -> list[tuple[Shape, str]]:
    shape, old = tuple(attributes["shape"]), kinds[0].shape
    fits = len(shape) == len(old) and all(a in (1, b) for a, b in zip(old, shape, strict=True))
    need(fits, f"shape: {old} cannot be stretched to {shape}")
    return [(shape, kinds[0].dtype)]


def _transpose(kinds: list[Kind], attributes: Attributes) -> list[tuple[Shape, str]]:
    rank = len(kinds[0].shape)
    axes = axes_of(attributes, rank)
    need(len(axes) == rank, f"axes: got {axes}, expected {rank} of them")
    return [(tuple(kinds[0].shape[axis] for axis in axes), kinds[0].dtype)]


def _concat(kinds: list[Kind], attributes: Attributes) -> list[tuple[Shape, str]]:
    axis, first = attributes["axis"], kinds[0]
    need(-len(first.shape) <= axis < 0, f"axis: got {axis}")
    need(len({kind.constant for kind in kinds}) == 1, "constants are not joined to others")
    at = len(first.shape) + axis
    for kind in kinds:
        fits = kind.dtype == first.dtype and len(kind.shape) == len(first.shape)
        need(fits and kind.shape[:at] + kind.shape[at + 1 :] == first.shape[:at] + first.shape[at + 1 :],
              f"{[kind.shape for kind in kinds]} do not go together along {axis}")  # fmt: skip
    total = sum(kind.shape[at] for kind in kinds)
    return [((*first.shape[:at], total, *first.shape[at + 1 :]), first.dtype)]


def _slice(kinds: list[Kind], attributes: Attributes) -> list[tuple[Shape, str]]:
    axis, start, stop = (attributes[name] for name in ("axis", "start", "stop"))
    shape = kinds[0].shape
    need(-len(shape) <= axis < 0 and 0 <= start <= stop <= shape[axis], f"{start}:{stop} is not in {shape}")
    at = len(shape) + axis
    return [((*shape[:at], stop - start, *shape[at + 1 :]), kinds[0].dtype)]


def _lead(x: Array, rank: int) -> Shape:
    """The axes in front of those of an element."""
    return tuple(x.shape[: x.ndim - rank])


def _run_slice(arrays: list[Array], attributes: Attributes) -> Array:
    behind = (slice(None),) * (-1 - attributes["axis"])
    return np.asarray(arrays[0][(..., slice(attributes["start"], attributes["stop"]), *behind)])


def _run_transpose(arrays: list[Array], attributes: Attributes) -> Array:
    x, axes = arrays[0], attributes["axes"]
    return x.transpose(*range(x.ndim - len(axes)), *(x.ndim + axis for axis in axes))


# These know the rank of the element from `rank`, which the evaluator adds: from the array alone they cannot.
OPS["reshape"] = Op(_reshape, lambda x, a: x[0].reshape((*_lead(x[0], a["rank"]), *a["shape"])))
OPS["broadcast"] = Op(_broadcast, lambda x, a: np.broadcast_to(x[0], (*_lead(x[0], a["rank"]), *a["shape"])))
OPS["transpose"] = Op(_transpose, _run_transpose)
OPS["concat"] = Op(_concat, lambda arrays, a: np.concatenate(arrays, a["axis"]))
OPS["slice"] = Op(_slice, _run_slice)


# IMAGES


def _image(kind: Kind) -> None:
    floats(kind)
    need(len(kind.shape) == 3, f"expected [height, width, channels], got {kind.shape}")


def _sides(shape: Shape, window: Shape, stride: int, pads: Any) -> Shape:
    top, bottom, left, right = pads
    sides = (
        (shape[0] + top + bottom - window[0]) // stride + 1,
        (shape[1] + left + right - window[1]) // stride + 1,
    )
    need(stride >= 1 and min(pads) >= 0 and min(sides) >= 1, f"the image {shape} is too small for {window}")
    return sides


def _conv2d(kinds: list[Kind], attributes: Attributes) -> list[tuple[Shape, str]]:
    x, kernel, *bias = kinds
    _image(x)
    need(all(part.constant for part in kinds[1:]), "expected a constant kernel and bias")
    need(len(kernel.shape) == 4 and kernel.shape[2] == x.shape[2], f"the kernel {kernel.shape} does not fit")
    need(all(part.shape == kernel.shape[3:] for part in bias), "the bias has not the size of the kernel")
    sides = _sides(x.shape, kernel.shape[:2], attributes["stride"], attributes["pads"])
    return [((*sides, kernel.shape[3]), F)]


def _windows(x: Array, window: Shape, stride: int, pads: Any, fill: float) -> Array:
    """`[..., rows, columns, channels, kh, kw]`"""
    around = [(0, 0)] * (x.ndim - 3) + [tuple(pads[:2]), tuple(pads[2:]), (0, 0)]
    x = np.pad(x, around, constant_values=fill)
    windows = np.lib.stride_tricks.sliding_window_view(x, window, (-3, -2))
    return np.asarray(windows[..., ::stride, ::stride, :, :, :])


def _run_conv2d(arrays: list[Array], attributes: Attributes) -> Array:
    x, kernel, *bias = arrays
    windows = _windows(x, kernel.shape[:2], attributes["stride"], attributes["pads"], 0.0)
    flat = windows.reshape(*windows.shape[:-3], -1) @ kernel.transpose(2, 0, 1, 3).reshape(
        -1, kernel.shape[3]
    )
    return np.asarray(flat + bias[0] if bias else flat)


def _max_pool2d(kinds: list[Kind], attributes: Attributes) -> list[tuple[Shape, str]]:
    _image(kinds[0])
    side = attributes["window"]
    sides = _sides(kinds[0].shape, (side, side), attributes["stride"], attributes["pads"])
    return [((*sides, kinds[0].shape[2]), F)]


def _run_max_pool2d(arrays: list[Array], attributes: Attributes) -> Array:
    side = attributes["window"]
    windows = _windows(arrays[0], (side, side), attributes["stride"], attributes["pads"], -np.inf)
    return np.asarray(windows.max((-2, -1)))


def _mean_pool2d(kinds: list[Kind], attributes: Attributes) -> list[tuple[Shape, str]]:
    _image(kinds[0])
    side = attributes["window"]
    sides = _sides(kinds[0].shape, (side, side), side, (0, 0, 0, 0))
    return [((*sides, kinds[0].shape[2]), F)]


def _run_mean_pool2d(arrays: list[Array], attributes: Attributes) -> Array:
    side = attributes["window"]
    return np.asarray(_windows(arrays[0], (side, side), side, (0, 0, 0, 0), 0.0).mean((-2, -1)))


OPS["conv2d"] = Op(_conv2d, _run_conv2d)
OPS["max_pool2d"] = Op(_max_pool2d, _run_max_pool2d)
OPS["mean_pool2d"] = Op(_mean_pool2d, _run_mean_pool2d)


# CELLS


def _cell(kinds: list[Kind], states: int, gates: int, biases: tuple[int, ...]) -> Shape:
    x, *held = kinds[: 1 + states]
    kernel, recurrent, *bias = kinds[1 + states :]
    for kind in kinds:
        floats(kind)
    need(all(part.constant for part in kinds[1 + states :]), "expected constant weights")
    need(not any(part.constant for part in kinds[: 1 + states]), "expected an input and a state that vary")
    size = held[0].shape[0] if held[0].shape else 0
    expected = [
        (kernel.shape[0],),
        *[(size,)] * states,
        (kernel.shape[0], gates * size),
        (size, gates * size),
    ]
    got = [part.shape for part in (x, *held, kernel, recurrent, *bias)]
    need(got == [*expected, *((n * size,) for n in biases)], f"the shapes {got} do not go together")
    return (size,)


def _gru(kinds: list[Kind], _: Attributes) -> list[tuple[Shape, str]]:
    return [(_cell(kinds, 1, 3, (3, 1)), F)]


def _run_gru(arrays: list[Array], _: Attributes) -> Array:
    x, h, kernel, recurrent, bias, inner = arrays
    a, b = np.split(x @ kernel + bias, 3, -1), np.split(h @ recurrent, 3, -1)
    r, z = sigmoid(a[0] + b[0]), sigmoid(a[1] + b[1])
    n = np.tanh(a[2] + r * (b[2] + inner))
    return np.asarray((1 - z) * n + z * h)


def _lstm(kinds: list[Kind], _: Attributes) -> list[tuple[Shape, str]]:
    return [(_cell(kinds, 2, 4, (4,)), F)] * 2


def _run_lstm(arrays: list[Array], _: Attributes) -> tuple[Array, Array]:
    x, cell, hidden, kernel, recurrent, bias = arrays
    i, f, g, o = np.split(x @ kernel + hidden @ recurrent + bias, 4, -1)
    cell = np.asarray(sigmoid(f) * cell + sigmoid(i) * np.tanh(g))
    return cell, np.asarray(sigmoid(o) * np.tanh(cell))


def _dequantize(kinds: list[Kind], _: Attributes) -> list[tuple[Shape, str]]:
    values, scale = kinds
    need(values.constant and scale.constant, "expected constants")
    fits = values.dtype == "int8" and scale.dtype == F and scale.shape == values.shape[-1:]
    need(
        fits, f"expected int8 and a scale for its last axis, got {values.dtype}{values.shape}, {scale.shape}"
    )
    return [(values.shape, F)]


OPS["gru"] = Op(_gru, _run_gru)
OPS["lstm"] = Op(_lstm, _run_lstm)
OPS["dequantize"] = Op(_dequantize, lambda arrays, attributes: arrays[0].astype(np.float32) * arrays[1])
