"""Spaces of policy files in NumPy: observations to vectors, numbers to actions of a box."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from policy_core_adapters.numpy_runner.networks import TWO, Array, only, shaped, sigmoids

FIELDS = {
    "Box": ("low", "high", "shape", "dtype"),
    "Discrete": ("n", "start"),
    "MultiDiscrete": ("nvec", "shape", "start"),
    "MultiBinary": ("shape",),
    "Dict": ("spaces",),
    "Tuple": ("spaces",),
}


def kind_of(space: Any) -> str:
    """The name of the class of a space."""
    package, _, kind = space["type"].partition("/")
    if package != "policy_core" or kind not in FIELDS:
        raise ValueError(f"space: no space {space['type']!r} is supported by this runner")
    only(space["fields"], kind, *FIELDS[kind])
    return str(kind)


def flat_size_of(space: Any, one_hot: bool = True) -> int:
    """Dimension of the flat form of an element; without `one_hot`, the number of its entries."""
    fields = space["fields"]
    match kind_of(space):
        case "Box" | "MultiBinary":
            return math.prod(fields["shape"])
        case "Discrete":
            return int(fields["n"]) if one_hot else 1
        case "MultiDiscrete":
            return sum(fields["nvec"]) if one_hot else len(fields["nvec"])
        case "Dict" | "Tuple":
            return sum(flat_size_of(part, one_hot) for part in parts_of(space).values())
    raise ValueError(f"space: no space {space['type']!r} is supported by this runner")


def checked_of(space: Any) -> Callable[[Any], Any]:
    """`observation -> observation`, or ValueError unless it has the form of an element of the space."""

    def of(space: Any, name: str) -> Callable[[Any], Any]:
        fields, kind = space["fields"], kind_of(space)
        if kind in ("Dict", "Tuple"):
            parts = parts_of(space)
            inner = [(key, of(part, f"{name}[{key!r}]")) for key, part in parts.items()]
            container = dict if kind == "Dict" else tuple

            def each(x: Any) -> Any:
                keys = (
                    x.keys() if isinstance(x, dict) else range(len(x)) if isinstance(x, tuple | list) else ()
                )
                if isinstance(x, dict) != (container is dict) or set(keys) != parts.keys():
                    raise ValueError(f"{name}: expected a {container.__name__} of {list(parts)}")
                for key, part in inner:
                    part(x[key])
                return x

            return each
        shape = () if kind == "Discrete" else tuple(fields["shape"])
        kinds = "fiub" if kind == "Box" and "float" in fields["dtype"] else "iub"

        def one(x: Any) -> Any:
            array = np.asarray(x)
            if array.shape != shape or array.dtype.kind not in kinds:
                raise ValueError(
                    f"{name}: got {array.dtype}{array.shape}, expected {space['type'][12:]}{shape}"
                )
            return x

        return one

    return of(space, "observation")


def flatten_of(space: Any) -> Callable[[Any], Array]:
    """`element -> flat float vector` of a space."""
    fields, name = space["fields"], space["type"]
    match kind_of(space):
        case "Box":
            kind = np.dtype("f8" if fields["dtype"] == "float64" else "f4")
            return lambda x: np.asarray(x, kind).ravel()
        case "MultiBinary":
            return lambda x: np.asarray(x, np.float32).ravel()
        case "Discrete":
            return _one_hot([fields["n"]], [fields["start"]])
        case "MultiDiscrete":
            return _one_hot(fields["nvec"], fields["start"])
        case "Dict":
            parts = [(key, flatten_of(part)) for key, part in fields["spaces"]]
            return lambda x: np.concatenate([np.zeros(0, "f4"), *(part(x[key]) for key, part in parts)])
        case "Tuple":
            numbered = [flatten_of(part) for part in fields["spaces"]]
            return lambda x: np.concatenate(
                [np.zeros(0, "f4"), *(part(x[i]) for i, part in enumerate(numbered))]
            )
    raise ValueError(f"space: no space {name!r} is supported by this runner")


def normalizer_of(space: Any, config: Any, statistics: Any) -> Callable[[Any], Any]:
    """What `Normalize` does to an element of the space."""
    if config["type"] != "policy_core/Normalize":
        raise ValueError(f"normalize: this runner does not support {config['type']!r}")
    fields = config["fields"]
    only(fields, "Normalize", "clip", "epsilon", "form", "min_std", "max_count", "keys")
    clip, epsilon, least, keys = (
        fields["clip"],
        fields["epsilon"],
        fields["min_std"],
        fields["keys"],
    )
    of_std = fields["form"] == "std"

    def of(space: Any, seen: Any) -> Callable[[Any], Any]:
        name = kind_of(space)
        if name in ("Dict", "Tuple"):
            parts = {key: of(part, seen.get(str(key), {})) for key, part in parts_of(space).items()}
            return lambda x: {key: part(x[key]) for key, part in parts.items()}
        if name != "Box" or "float" not in space["fields"]["dtype"]:
            return lambda x: x
        pairs = {
            name: shaped(seen[name], 2, *space["fields"]["shape"]) for name in ("count", "mean", "variance")
        }
        high, low = pairs["mean"]
        variance = np.maximum(pairs["variance"][0], 0)
        scale = np.maximum(np.sqrt(variance if of_std else variance + epsilon), least)
        scale = (scale + epsilon if of_std else scale).astype(high.dtype)
        first, last = (np.asarray(end, high.dtype) for end in (-clip, clip))
        return lambda x: np.minimum(np.maximum((np.asarray(x, high.dtype) - high - low) / scale, first), last)

    if keys is None:
        return of(space, statistics)
    parts = {key: of(part, statistics.get(key, {})) for key, part in parts_of(space).items() if key in keys}
    return lambda x: {key: parts[key](part) if key in parts else part for key, part in x.items()}


def parts_of(space: Any) -> dict[Any, Any]:
    """Name, or place, to part of a `Dict` or `Tuple`."""
    parts = space["fields"]["spaces"]
    return dict(parts) if space["type"].endswith("Dict") else dict(enumerate(parts))


def _one_hot(sizes: list[int], starts: list[int]) -> Callable[[Any], Array]:
    """One row after the other, each zeros for a number outside of its range."""
    counts, first = np.array(sizes, np.int64), np.array(starts, np.int64)
    before, total = np.cumsum(counts) - counts, sum(sizes)

    def flatten(x: Any) -> Array:
        index = np.asarray(x).ravel() - first
        flat = np.zeros(total, np.float32)
        flat[(before + index)[(index >= 0) & (index < counts)]] = 1
        return flat

    return flatten


class Box:
    """The shape, dtype and bounds of a box, and its numbers from there to an action."""

    def __init__(self, space: Any, dtype: Any) -> None:
        fields = space["fields"]
        only(fields, "Box", "low", "high", "shape", "dtype")
        self.shape, name = tuple(fields["shape"]), fields["dtype"]
        self.size, self.is_float = math.prod(self.shape), "float" in name
        self.short = name == "bfloat16"  # NumPy has none: float32 of the same values
        if dtype != np.float64:  # JAX would have 32 bits
            name = name.replace("64", "32")
        self.dtype = np.dtype("float32" if self.short else name)
        given = [np.array(fields[end], np.float64) for end in ("low", "high")]
        ends = [np.broadcast_to(end.reshape(self.shape if end.ndim else ()), self.shape) for end in given]
        if np.any(ends[0] > ends[1]):
            raise ValueError("Box.low: above Box.high somewhere")
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
        self.all_bounded = bool(self.bounded.all())
        wide = (end.astype(np.float64) for end in (self.low, self.high))
        self.safe_low, self.safe_high = (
            np.where(self.bounded, e, d) for e, d in zip(wide, (-1.0, 1.0), strict=True)
        )

    def clip(self, x: Array) -> Array:
        """Within the bounds, of the dtype."""
        x = x.astype(self.dtype)
        clipped: Array = np.minimum(np.maximum(self._rounded(x) if self.short else x, self.low), self.high)
        return clipped

    def squash(self, u: Array) -> Array:
        """The action of a draw: by tanh where there are two bounds."""
        point = self.between(*sigmoids(TWO * u))
        return self.clip(point if self.all_bounded else np.where(self.bounded, point, u))

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
