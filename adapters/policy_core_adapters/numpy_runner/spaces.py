"""Spaces of policy files in NumPy: flattening, normalization, and the bounds of boxes."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from policy_core_adapters.numpy_runner.networks import Array, only


def flatten_of(space: Any) -> Callable[[Any], Array]:
    """`element -> flat float vector` of a space."""
    fields, name = space["fields"], space["type"]
    match name.partition("/")[2]:
        case "Box":
            size, kind = math.prod(fields["shape"]), "f8" if fields["dtype"] == "float64" else "f4"
            return lambda x: _sized(np.asarray(x, kind).ravel(), size)
        case "MultiBinary":
            size = math.prod(fields["shape"])
            return lambda x: _sized(np.asarray(x, np.float32).ravel(), size)
        case "Discrete":
            n, start = np.arange(fields["n"]), fields["start"]
            return lambda x: (n == int(x) - start).astype(np.float32)
        case "MultiDiscrete":
            rows = [np.arange(n) + s for n, s in zip(fields["nvec"], fields["start"], strict=True)]
            values, counts = np.concatenate([np.zeros(0, int), *rows]), fields["nvec"]
            return lambda x: (np.repeat(np.asarray(x).ravel(), counts) == values).astype(np.float32)
        case "Dict":
            parts = [(key, flatten_of(part)) for key, part in fields["spaces"]]
            return lambda x: np.concatenate([np.zeros(0, "f4"), *(part(x[key]) for key, part in parts)])
        case "Tuple":
            numbered = [flatten_of(part) for part in fields["spaces"]]
            return lambda x: np.concatenate([part(y) for part, y in zip(numbered, x, strict=True)])
    raise ValueError(f"space: no space {name!r} is supported by this runner")


def normalizer_of(space: Any, config: Any, statistics: Any) -> Callable[[Any], Any]:
    """The function that normalizes an observation, as `Normalize.apply`."""
    if config["type"] != "policy_core/Normalize":
        raise ValueError(f"normalize: this runner does not support {config['type']!r}")
    only(config["fields"], "Normalize", "clip", "epsilon")
    clip, epsilon = config["fields"]["clip"], config["fields"]["epsilon"]

    def of(space: Any, stats: Any) -> Callable[[Any], Any]:
        name = space["type"].partition("/")[2]
        if name in ("Dict", "Tuple"):
            parts = {key: of(part, stats.get(str(key), {})) for key, part in parts_of(space).items()}
            return lambda x: {key: part(x[key]) for key, part in parts.items()}
        if not stats:
            return lambda x: x
        high, low = stats["mean"]
        scale = np.sqrt(np.maximum(stats["variance"][0], 0) + epsilon).astype(high.dtype)
        return lambda x: np.minimum(np.maximum((np.asarray(x, high.dtype) - high - low) / scale, -clip), clip)

    return of(space, statistics)


def parts_of(space: Any) -> dict[Any, Any]:
    """The parts of a `Dict` by key, or of a `Tuple` by index."""
    parts = space["fields"]["spaces"]
    return dict(parts) if space["type"].endswith("Dict") else dict(enumerate(parts))


def _sized(x: Array, size: int) -> Array:
    if x.size != size:
        raise ValueError(f"observation: got {x.size} entries, expected {size}")
    return x


class Box:
    """The shape, dtype and bounds of a box, and the functions that map floats into them."""

    def __init__(self, space: Any, dtype: Any) -> None:
        fields = space["fields"]
        only(fields, "Box", "low", "high", "shape", "dtype")
        self.shape, name = tuple(fields["shape"]), fields["dtype"]
        self.size, self.is_float = math.prod(self.shape), "float" in name
        self.short = name == "bfloat16"  # NumPy has no bfloat16: float32 rounded to its values
        if dtype != np.float64:  # as in JAX without x64
            name = name.replace("64", "32")
        self.dtype = np.dtype("float32" if self.short else name)
        given = [np.array(fields[end], np.float64) for end in ("low", "high")]
        ends = [np.broadcast_to(end.reshape(self.shape if end.ndim else ()), self.shape) for end in given]
        if self.is_float:
            with np.errstate(over="ignore"):
                low, high = (self._rounded(end.astype(self.dtype)) for end in ends)
            if self.dtype.name != fields["dtype"] and not self.short:  # narrowed: inwards
                inner_low = np.where(np.isfinite(low) & (low < ends[0]), np.nextafter(low, high), low)
                inner_high = np.where(np.isfinite(high) & (high > ends[1]), np.nextafter(high, low), high)
                fits = inner_low <= inner_high
                low, high = np.where(fits, inner_low, low), np.where(fits, inner_high, high)
            self.low, self.high = low, high
        else:
            info = np.iinfo(self.dtype.name)
            clipped = [[min(max(x, info.min), info.max) for x in end.ravel().tolist()] for end in ends]
            self.low, self.high = (np.array([int(x) for x in c], object).reshape(self.shape) for c in clipped)
        self.bounded = np.isfinite(self.low.astype(np.float64)) & np.isfinite(self.high.astype(np.float64))
        wide = (end.astype(np.float64) for end in (self.low, self.high))
        self.safe_low, self.safe_high = (
            np.where(self.bounded, e, d) for e, d in zip(wide, (-1.0, 1.0), strict=True)
        )

    def clip(self, x: Array) -> Array:
        """`x` in the dtype of the box, clipped to the bounds."""
        clipped: Array = np.minimum(np.maximum(self._rounded(x.astype(self.dtype)), self.low), self.high)
        return clipped

    def between(self, up: Array, down: Array) -> Array:
        """The point at the fraction `up` = 1 - `down` between the bounds."""
        point: Array = self.safe_low * down + self.safe_high * up
        return point

    def _rounded(self, x: Array) -> Array:
        if not self.short:
            return x
        bits = np.atleast_1d(x).view(np.uint32)
        rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)
        return np.where(np.isfinite(x), rounded.view(np.float32).reshape(x.shape), x)
