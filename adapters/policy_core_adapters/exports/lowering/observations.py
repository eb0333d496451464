"""Observations as graphs: inputs, flat forms and normalization.

An observation is a nested dict of values: by name for a `Dict`, by place for a `Tuple`.
"""

from typing import Any

import numpy as np

from policy_core_adapters.exports.graph import Value
from policy_core_adapters.exports.lowering.context import Context, ExportError, only, under, unsupported
from policy_core_adapters.exports.ops import DTYPES
from policy_core_adapters.numpy_runner.networks import shaped
from policy_core_adapters.numpy_runner.spaces import kind_of, parts_of

Tree = Any
"""A value, or a dict of trees."""


def dtype_of(space: Any) -> str:
    """The dtype of an element of a space that has no parts, in 32 bits as JAX has it."""
    if not space["type"].endswith("/Box"):
        return "int32"
    dtype = str(space["fields"]["dtype"]).replace("64", "32")
    if dtype not in DTYPES:
        raise ExportError(
            f"Box.dtype: {dtype} is carried by no export; act with JAX or policy_core_adapters.numpy_runner, "
            "or make the policy for a Box of float32"
        )
    return dtype


def inputs_of(c: Context, space: Any, path: str = "observation") -> Tree:
    """The inputs of an observation: one for each part that has numbers."""
    if kind_of(space) in ("Dict", "Tuple"):
        return {key: inputs_of(c, part, f"{path}/{key}") for key, part in parts_of(space).items()}
    shape = () if kind_of(space) == "Discrete" else tuple(space["fields"]["shape"])
    return c.graph.input(path, shape, dtype_of(space))


def flatten(c: Context, space: Any, x: Tree) -> list[Value]:
    """The flat form of an element: float vectors to be joined."""
    fields, kind = space["fields"], kind_of(space)
    match kind:
        case "Dict" | "Tuple":
            return [y for key, part in parts_of(space).items() for y in flatten(c, part, x[key])]
        case "Box" | "MultiBinary":
            return [c.flat(x if x.dtype == "float32" else c("cast", x, dtype="float32"))]
        case "Discrete":
            return [one_hot(c, c.shape(x, 1), [fields["n"]], [fields["start"]])]
        case "MultiDiscrete":
            return [one_hot(c, c.shape(x, len(fields["nvec"]), 1), fields["nvec"], fields["start"])]
    return unsupported("space", space["type"])


def one_hot(c: Context, x: Value, sizes: list[int], starts: list[int]) -> Value:
    """One row after the other, each zeros for a number outside of its range."""
    width = max(sizes, default=0)
    places = np.arange(width)
    numbers = np.where(places < np.array(sizes)[:, None], np.array(starts)[:, None] + places, -(2**31))
    rows = c("cast", c("equal", x, c.constant(numbers if len(x.shape) == 2 else numbers[0])), dtype="float32")
    return real(c, c.flat(rows), sizes)


def real(c: Context, flat: Value, sizes: list[int]) -> Value:
    """The entries of padded rows, one row after the other, without their padding."""
    width = max(sizes, default=0)
    if set(sizes) <= {width}:
        return flat
    kept = [i * width + j for i, size in enumerate(sizes) for j in range(size)]
    return c("gather", flat, c.constant(np.array(kept)))


def normalize(c: Context, space: Any, config: Any, statistics: Any, x: Tree) -> Tree:
    """What `Normalize` does to an element of the space."""
    if config is None:
        return x
    if config["type"] != "policy_core/Normalize":
        unsupported("normalize", config["type"])
    fields = config["fields"]
    only(fields, "Normalize", "clip", "epsilon", "form", "min_std", "max_count", "keys")
    keys = fields["keys"]
    if keys is None:
        return _normalized(c, space, fields, statistics, x)
    return {
        key: _normalized(c, part, fields, statistics.get(key, {}), x[key]) if key in keys else x[key]
        for key, part in parts_of(space).items()
    }


def _normalized(c: Context, space: Any, fields: Any, statistics: Any, x: Tree) -> Tree:
    kind = kind_of(space)
    if kind in ("Dict", "Tuple"):
        parts = parts_of(space).items()
        return {
            key: _normalized(c, part, fields, statistics.get(str(key), {}), x[key]) for key, part in parts
        }
    if kind != "Box" or "float" not in space["fields"]["dtype"] or 0 in x.shape:
        return x
    epsilon, least, of_std = fields["epsilon"], fields["min_std"], fields["form"] == "std"
    pairs = {name: shaped(statistics[name], 2, *x.shape) for name in ("count", "mean", "variance")}
    if pairs["mean"].dtype != np.float32:
        raise ExportError(
            f"normalize: its statistics are {pairs['mean'].dtype}, expected float32; see `narrow`"
        )
    high, low = pairs["mean"]
    variance = np.maximum(pairs["variance"][0], 0)
    scale = np.maximum(np.sqrt(variance if of_std else variance + epsilon), least)
    scale = (scale + epsilon if of_std else scale).astype(np.float32)
    y = c("sub", x, c.constant(high))
    y = c("sub", y, c.constant(low)) if low.any() else y
    return c.clip(c("div", y, c.constant(scale)), -fields["clip"], fields["clip"])


def view(space: Any, names: list[str] | None) -> Any:
    """The space of the parts of a `Dict` that are inputs of the actor or the critic."""
    if names is None:
        return space
    seen = [part for part in space["fields"]["spaces"] if part[0] in names]
    return {**space, "fields": {"spaces": seen}}


def paths(tree: Tree, root: str) -> dict[str, Value]:
    """Path to value of a tree."""
    if not isinstance(tree, dict):
        return {root: tree}
    return {name: x for key, part in tree.items() for name, x in paths(part, under(root, str(key))).items()}
