"""Memories of policy files in NumPy: one step at a time; see `numpy_runner`.

States have the form that they have in JAX, and are never written to: each step makes new ones.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from policy_core_adapters.numpy_runner.networks import (
    HALF,
    ONE,
    Array,
    few,
    find,
    layer_norm_of,
    linear,
    normalized,
    only,
    shaped,
)


class Memory(NamedTuple):
    """What a policy carries from step to step."""

    initial: Any
    """The state at the start of an episode."""
    step: Callable[[Any, Array], tuple[Any, Array]]
    """`(state, x) -> (next state, output)`"""
    size: int
    """Of the output."""


def memory_of(data: Any, params: Any, inputs: int, dtype: Any) -> Memory:
    """The memory of a config for inputs of dimension `inputs`, computed and kept in a dtype."""
    memory: Memory = find(MEMORIES, data, "memory")(data["fields"], params, inputs, dtype)
    return memory


def _gate(x: Array) -> Array:
    """The sigmoid of `2 x`, by the one function that cannot overflow; a new array."""
    y: Array = np.tanh(x)
    y *= HALF
    y += HALF
    return y


def _maps(fields: dict[str, Any], params: Any, inputs: int, factor: Array) -> list[Callable[[Array], Array]]:
    """The maps of the input and of the state, whose outputs are multiplied by `factor`, 1 or 0.5 each.

    Halved kernels give halved products, bit for bit.
    """
    size, layer_norm = fields["size"], fields["layer_norm"]
    return [
        _map(params[name], count, factor, len(factor) // size if layer_norm else None)
        for name, count in (("input", inputs), ("recurrent", size))
    ]


def _map(part: Any, inputs: int, factor: Array, gates: int | None) -> Callable[[Array], Array]:
    """`x @ kernel`, perhaps normalized in so many gates, times the factor."""
    kernel = shaped(part["kernel"], inputs, len(factor)).astype(factor.dtype)
    if gates is None:
        product: Callable[[Array], Array] = np.ascontiguousarray((kernel * factor).T).dot
        return product
    rows = np.ascontiguousarray(kernel.T)
    scale = shaped(part["scale"], len(factor)).astype(factor.dtype) * factor
    return lambda x: normalized(rows.dot(x).reshape(gates, -1)).ravel() * scale


def _factor(size: int, dtype: Any, *gates: float) -> Array:
    return np.repeat(np.asarray(gates, dtype), size)


def _start(fields: dict[str, Any], params: Any, shape: tuple[int, ...], dtype: Any) -> Array:
    start = (
        shaped(params["start"], *shape).astype(dtype) if fields["learned_start"] else np.zeros(shape, dtype)
    )
    start.flags.writeable = False  # every episode begins with this very array
    return start


def _gru(fields: dict[str, Any], params: Any, inputs: int, dtype: Any) -> Memory:
    only(fields, "GRU", "size", "layer_norm", "learned_start")
    size, both = fields["size"], 2 * fields["size"]
    bias = shaped(params["input"]["bias"], 3 * size).astype(dtype)
    inner = shaped(params["recurrent"]["bias"], size).astype(dtype)
    factor = _factor(size, dtype, 0.5, 0.5, 1)
    bias, (seen, recalled) = bias * factor, _maps(fields, params, inputs, factor)

    def step(state: Array, x: Array) -> tuple[Array, Array]:
        w, u = seen(x) + bias, recalled(state)
        gates = _gate(w[:both] + u[:both])
        r, z = gates[:size], gates[size:]
        n = np.tanh(w[both:] + r * (u[both:] + inner))
        state = (ONE - z) * n + z * state
        return state, state

    return Memory(_start(fields, params, (size,), dtype), step, size)


def _lstm(fields: dict[str, Any], params: Any, inputs: int, dtype: Any) -> Memory:
    only(fields, "LSTM", "size", "layer_norm", "learned_start")
    size, layer_norm = fields["size"], fields["layer_norm"]
    bias = shaped(params["input"]["bias"], 4 * size).astype(dtype)
    factor = _factor(size, dtype, 0.5, 0.5, 1, 0.5)
    bias, (seen, recalled) = bias * factor, _maps(fields, params, inputs, factor)
    norm = layer_norm_of(params["cell"], size, dtype) if layer_norm else lambda x: x
    place = slice(2 * size, 3 * size)  # of what is added to the cell, by a tanh alone

    def step(state: dict[str, Array], x: Array) -> tuple[dict[str, Array], Array]:
        y = np.tanh(seen(x) + recalled(state["hidden"]) + bias)
        gates = y * HALF
        gates += HALF
        cell = gates[size : 2 * size] * state["cell"] + gates[:size] * y[place]
        hidden = gates[3 * size :] * np.tanh(norm(cell))
        return {"cell": cell, "hidden": hidden}, hidden

    cell, hidden = _start(fields, params, (2, size), dtype)
    return Memory({"cell": cell, "hidden": hidden}, step, size)


def _min_gru(fields: dict[str, Any], params: Any, inputs: int, dtype: Any) -> Memory:
    only(fields, "MinGRU", "size", "horizon", "learned_start")
    size = fields["size"]
    part = params["linear"]
    kernel, bias = shaped(part["kernel"], inputs, 2 * size), shaped(part["bias"], 2 * size)
    factor = _factor(size, dtype, 0.5, 1)
    layer = linear({"kernel": kernel * factor, "bias": bias * factor}, inputs, 2 * size, dtype)

    def step(state: Array, x: Array) -> tuple[Array, Array]:
        y = layer(x)
        z = _gate(y[:size])
        state = (ONE - z) * state + z * y[size:]
        return state, state

    return Memory(_start(fields, params, (size,), dtype), step, size)


def _window_attention(fields: dict[str, Any], params: Any, inputs: int, dtype: Any) -> Memory:
    only(fields, "WindowAttention", "size", "window", "heads")
    size, window, heads = fields["size"], fields["window"], fields["heads"]
    few(size * window, "WindowAttention.window, times the size", 2**19)
    embed = linear(params["embedding"], inputs, size, dtype)
    attended, out = (
        linear(params["attended"], size, 3 * size, dtype),
        linear(params["output"], size, size, dtype),
    )
    norm, places = layer_norm_of(params["norm"], size, dtype), np.arange(window)
    ages = shaped(params["ages"], heads, window).astype(dtype)
    root, least = np.asarray(math.sqrt(size // heads), dtype), np.asarray(-1e30, dtype)

    def step(state: dict[str, Any], x: Array) -> tuple[dict[str, Any], Array]:
        e, count = embed(x), int(state["count"])
        query, key, value = attended(norm(e)).reshape(3, size)
        keys, values = np.array(state["keys"]), np.array(state["values"])
        keys[count % window], values[count % window] = key, value
        age = (count - places) % window
        k, v = (ring.reshape(window, heads, -1).transpose(1, 0, 2) for ring in (keys, values))
        scores = (k @ query.reshape(heads, -1, 1))[..., 0] / root + ages[:, age]
        scores = np.where(age <= count, scores, least)
        weights = np.exp(scores - np.maximum.reduce(scores, -1, keepdims=True))
        weights /= np.add.reduce(weights, -1, keepdims=True)
        read = (weights[:, None] @ v).ravel()
        count = count + 1 if count + 1 < 2 * window else window + (count + 1) % window
        return {"keys": keys, "values": values, "count": np.int32(count)}, e + out(read)

    ring = np.zeros((window, size), dtype)
    ring.flags.writeable = False
    return Memory({"keys": ring, "values": ring, "count": np.int32(0)}, step, size)


def _frames(fields: dict[str, Any], params: Any, inputs: int, dtype: Any) -> Memory:
    only(fields, "FrameStack", "frames", "fill")
    start = shaped(params["start"], fields["frames"] - 1, inputs).astype(dtype)
    start.flags.writeable = False

    def step(state: dict[str, Any], x: Array) -> tuple[dict[str, Any], Array]:
        frames, new = state["frames"], {}
        if fields["fill"] == "first":
            frames = np.broadcast_to(x, frames.shape) if state["count"] == 0 else frames
            new["count"] = np.int32(1)
        frames = np.concatenate([frames, x[None]])
        return {"frames": frames[1:], **new}, frames.ravel()

    initial = {"frames": start, **({"count": np.int32(0)} if fields["fill"] == "first" else {})}
    return Memory(initial, step, fields["frames"] * inputs)


def _stack(fields: dict[str, Any], params: Any, inputs: int, dtype: Any) -> Memory:
    only(fields, "Stack", "layers", "residual", "skip")
    residual, layers = fields["residual"], []
    skip = inputs if fields["skip"] == "concat" else 0
    few(len(fields["layers"]), "Stack.layers")
    for i, data in enumerate(fields["layers"]):
        layers.append(memory_of(data, params[f"layer_{i}"], inputs, dtype))
        if residual and i and layers[-1].size != inputs:
            raise ValueError(f"Stack.layers[{i}]: got {layers[-1].size} numbers, expected {inputs} to add")
        inputs = layers[-1].size

    def step(state: tuple[Any, ...], x: Array) -> tuple[tuple[Any, ...], Array]:
        states, start = [], x
        for i, layer in enumerate(layers):
            new, y = layer.step(state[i], x)
            states.append(new)
            x = x + y if residual and i else y
        return tuple(states), np.concatenate([x, start]) if skip else x

    return Memory(tuple(layer.initial for layer in layers), step, inputs + skip)


MEMORIES: dict[str, Callable[[dict[str, Any], Any, int, Any], Memory]] = {
    "policy_core/GRU": _gru,
    "policy_core/LSTM": _lstm,
    "policy_core/MinGRU": _min_gru,
    "policy_core/WindowAttention": _window_attention,
    "policy_core/Stack": _stack,
    "policy_core/FrameStack": _frames,
}
