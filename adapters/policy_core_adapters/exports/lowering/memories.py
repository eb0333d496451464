"""Memories as graphs: one step, from the state that is given to the next one.

A state is a nested dict of values, as observations are: by name, or by place for a `Stack`. Leaves of no
numbers, as of a `FrameStack(1)`, are left out.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from policy_core_adapters.exports.graph import Value
from policy_core_adapters.exports.lowering.context import Context, ExportError, only, under, unsupported
from policy_core_adapters.exports.lowering.observations import Tree
from policy_core_adapters.numpy_runner.networks import Array, few, shaped


class Given(NamedTuple):
    """The state that is given, by the path of its leaf."""

    context: Context
    path: str
    initial: dict[str, Array]
    """Name of an input to its value at the start of an episode; each `leaf` adds to it."""
    is_first: Value | None

    def leaf(self, name: str, initial: Any) -> Value:
        """An input of the state, that at the start of an episode if it is the first step of one."""
        c, initial = self.context, np.asarray(initial)
        path = under(self.path, name)
        value = c.graph.input(path, initial.shape, str(initial.dtype))
        self.initial[path] = initial
        if self.is_first is None:
            return value
        first = c.shape(self.is_first, *[1] * initial.ndim)
        return c("where", first, c.constant(initial), value)

    def inner(self, name: str) -> "Given":
        """The part of the state of a layer."""
        return self._replace(path=under(self.path, name))


def memory(given: Given, data: Any, params: Any, x: Value) -> tuple[Tree, Value]:
    """The next state, and the output."""
    if data["type"] not in MEMORIES:
        unsupported("memory", data["type"])
    return MEMORIES[data["type"]](given, data["fields"], params, x)


def _start(fields: Any, params: Any, *shape: int) -> Array:
    if not fields["learned_start"]:
        return np.zeros(shape, np.float32)
    return shaped(params["start"], *shape).astype(np.float32)


def _map(c: Context, part: Any, x: Value, size: int, gates: int) -> Value:
    """`x @ kernel`, normalized gate by gate."""
    y = c("linear", x, c.weights(shaped(part["kernel"], x.shape[-1], gates * size)))
    y = c.flat(c("layer_norm", c.shape(y, gates, size), epsilon=1e-5))
    return c("mul", y, c.constant(np.float32(shaped(part["scale"], gates * size))))


def _gru(given: Given, fields: Any, params: Any, x: Value) -> tuple[Tree, Value]:
    only(fields, "GRU", "size", "layer_norm", "learned_start")
    c, size = given.context, fields["size"]
    h = given.leaf("", _start(fields, params, size))
    bias = np.float32(shaped(params["input"]["bias"], 3 * size))
    inner = c.constant(np.float32(shaped(params["recurrent"]["bias"], size)))
    if not fields["layer_norm"]:
        kernel = c.weights(shaped(params["input"]["kernel"], x.shape[-1], 3 * size))
        recurrent = c.weights(shaped(params["recurrent"]["kernel"], size, 3 * size))
        h = c("gru", x, h, kernel, recurrent, c.constant(bias), inner)
        return h, h
    a = c("add", _map(c, params["input"], x, size, 3), c.constant(bias))
    b = _map(c, params["recurrent"], h, size, 3)
    gates = c("sigmoid", c("add", c.cut(a, 0, 2 * size), c.cut(b, 0, 2 * size)))
    r, z = c.cut(gates, 0, size), c.cut(gates, size, 2 * size)
    new = c("add", c.cut(b, 2 * size, 3 * size), inner)
    new = c("tanh", c("add", c.cut(a, 2 * size, 3 * size), c("mul", r, new)))
    h = c("add", c("mul", c("sub", 1.0, z), new), c("mul", z, h))
    return h, h


def _lstm(given: Given, fields: Any, params: Any, x: Value) -> tuple[Tree, Value]:
    only(fields, "LSTM", "size", "layer_norm", "learned_start")
    c, size = given.context, fields["size"]
    start = _start(fields, params, 2, size)
    cell, hidden = given.leaf("cell", start[0]), given.leaf("hidden", start[1])
    bias = c.constant(np.float32(shaped(params["input"]["bias"], 4 * size)))
    if not fields["layer_norm"]:
        kernel = c.weights(shaped(params["input"]["kernel"], x.shape[-1], 4 * size))
        recurrent = c.weights(shaped(params["recurrent"]["kernel"], size, 4 * size))
        cell, hidden = c.graph.ops("lstm", x, cell, hidden, kernel, recurrent, bias)
        return {"cell": cell, "hidden": hidden}, hidden
    a = c(
        "add",
        c("add", _map(c, params["input"], x, size, 4), _map(c, params["recurrent"], hidden, size, 4)),
        bias,
    )
    i, f, g, o = (c.cut(a, k * size, (k + 1) * size) for k in range(4))
    cell = c("add", c("mul", c("sigmoid", f), cell), c("mul", c("sigmoid", i), c("tanh", g)))
    hidden = c("mul", c("sigmoid", o), c("tanh", c.layer_norm(params["cell"], cell)))
    return {"cell": cell, "hidden": hidden}, hidden


def _min_gru(given: Given, fields: Any, params: Any, x: Value) -> tuple[Tree, Value]:
    only(fields, "MinGRU", "size", "horizon", "learned_start")
    c, size = given.context, fields["size"]
    h, y = given.leaf("", _start(fields, params, size)), c.linear(params["linear"], x, 2 * size)
    z = c("sigmoid", c.cut(y, 0, size))
    h = c("add", c("mul", c("sub", 1.0, z), h), c("mul", z, c.cut(y, size, 2 * size)))
    return h, h


def _window_attention(given: Given, fields: Any, params: Any, x: Value) -> tuple[Tree, Value]:
    only(fields, "WindowAttention", "size", "window", "heads")
    c, size, window, heads = given.context, fields["size"], fields["window"], fields["heads"]
    few(size * window, "WindowAttention.window, times the size", 2**19)
    ring = np.zeros((window, size), np.float32)
    count, keys, values = (
        given.leaf(name, start) for name, start in (("count", np.int32(0)), ("keys", ring), ("values", ring))
    )
    e = c.linear(params["embedding"], x, size)
    made = c.linear(params["attended"], c.layer_norm(params["norm"], e), 3 * size)
    query, key, value = (c.cut(made, i * size, (i + 1) * size) for i in range(3))
    places = np.arange(window)
    now = c.shape(count, 1)
    new = c("equal", c.constant(places), c("mod", now, window))
    rows = c.shape(new, window, 1)
    keys = c("where", rows, c.shape(key, 1, size), keys)
    values = c("where", rows, c.shape(value, 1, size), values)
    k, v = (
        c("transpose", c.shape(one, window, heads, size // heads), axes=(-2, -3, -1))
        for one in (keys, values)
    )
    age = c("mod", c("sub", now, c.constant(places)), window)
    ages = c.constant(np.float32(shaped(params["ages"], heads, window)).T)
    scores = c.shape(c("matmul", k, c.shape(query, heads, size // heads, 1)), heads, window)
    scores = c("div", scores, math.sqrt(size // heads))
    scores = c("add", scores, c("transpose", c("take", ages, age), axes=(-1, -2)))
    seen = c.shape(c("less_equal", age, now), 1, window)
    weights = c("softmax", c("where", seen, scores, -1e30))
    read = c.flat(c("matmul", c.shape(weights, heads, 1, window), v))
    after = c("add", now, 1)
    wrapped = c("add", c("mod", after, window), window)
    after = c.shape(c("where", c("less", after, 2 * window), after, wrapped))
    return {"count": after, "keys": keys, "values": values}, c(
        "add", e, c.linear(params["output"], read, size)
    )


def _frames(given: Given, fields: Any, params: Any, x: Value) -> tuple[Tree, Value]:
    only(fields, "FrameStack", "frames", "fill")
    c, (size,), kept = given.context, x.shape, fields["frames"] - 1
    start = np.float32(shaped(params["start"], kept, size))
    state: dict[Any, Value] = {}
    count = given.leaf("count", np.int32(0)) if fields["fill"] == "first" else None
    if count is not None:
        state["count"] = c("maximum", count, 1)
    if kept == 0:
        return state, x
    frames, new = given.leaf("frames", start), c.shape(x, 1, size)
    if count is not None:
        empty = c("equal", c.shape(count, 1, 1), 0)
        frames = c("where", empty, c("broadcast", new, shape=(kept, size)), frames)
    frames = c("concat", frames, new, axis=-2)
    state["frames"] = c("slice", frames, axis=-2, start=1, stop=kept + 1)
    return state, c.flat(frames)


def _stack(given: Given, fields: Any, params: Any, x: Value) -> tuple[Tree, Value]:
    only(fields, "Stack", "layers", "residual", "skip")
    few(len(fields["layers"]), "Stack.layers")
    states, start = {}, x
    for i, data in enumerate(fields["layers"]):
        states[i], y = memory(given.inner(str(i)), data, params[f"layer_{i}"], x)
        if fields["residual"] and i:
            if y.shape != x.shape:
                raise ExportError(
                    f"Stack.layers[{i}]: got {y.shape[0]} numbers, expected {x.shape[0]} to add"
                )
            y = given.context("add", x, y)
        x = y
    if fields.get("skip", "none") == "concat":
        x = given.context.join([x, start])
    return states, x


MEMORIES: dict[str, Callable[[Given, Any, Any, Value], tuple[Tree, Value]]] = {
    "policy_core/GRU": _gru,
    "policy_core/LSTM": _lstm,
    "policy_core/MinGRU": _min_gru,
    "policy_core/WindowAttention": _window_attention,
    "policy_core/Stack": _stack,
    "policy_core/FrameStack": _frames,
}
