"""Values as graphs: from the features of the critic."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from policy_core_adapters.exports.graph import Value
from policy_core_adapters.exports.lowering.context import Context, only, unsupported
from policy_core_adapters.numpy_runner.networks import shaped
from policy_core_adapters.numpy_runner.values import DEFAULT


def value_of(c: Context, data: Any, params: Any, x: Value) -> Value:
    """The value, a scalar, or `[objectives]`."""
    data = DEFAULT if data is None else data
    if data["type"] not in VALUES:
        unsupported("value_head", data["type"])
    value, objectives = VALUES[data["type"]](c, data["fields"], params, x), data["fields"]["objectives"]
    return c.shape(value) if objectives is None else value


def _regression(c: Context, fields: Any, params: Any, x: Value) -> Value:
    only(fields, "RegressionHead", "objectives", "scale", "symlog")
    z = c.linear(params, x, fields["objectives"] or 1)
    if fields["symlog"]:
        size = c("expm1", c("abs", z))
        z = c("where", c("less", z, 0.0), c("neg", size), size)
    return z if fields["scale"] == 1 else c("mul", z, fields["scale"])


def _popart(c: Context, fields: Any, params: Any, x: Value) -> Value:
    only(fields, "PopArtHead", "objectives", "preserve", "max_count", "epsilon")
    objectives, statistics = fields["objectives"], params["statistics"]
    shape = () if objectives is None else (objectives,)
    _, mean, variance = (
        shaped(statistics[name], 2, *shape).astype(np.float64) for name in ("count", "mean", "variance")
    )
    std = np.sqrt(np.maximum(variance[0], 0) + fields["epsilon"])
    z = c.linear(params, x, objectives or 1)
    return c("add", c("mul", z, c.constant(std)), c.constant(mean.sum(0)))


def _two_hot(c: Context, fields: Any, params: Any, x: Value) -> Value:
    only(fields, "TwoHotHead", "low", "high", "bins", "symlog", "objectives", "gain")
    low, high, bins = fields["low"], fields["high"], fields["bins"]
    if not fields["symlog"]:
        return _mean(c, fields, np.linspace(low, high, bins), params, x)
    first, last = (math.copysign(math.log1p(abs(end)), end) for end in (low, high))
    grid = np.linspace(first, last, bins)
    return _mean(c, fields, np.copysign(np.expm1(np.abs(grid)), grid), params, x)


def _hl_gauss(c: Context, fields: Any, params: Any, x: Value) -> Value:
    only(fields, "HLGaussHead", "low", "high", "bins", "sigma", "objectives", "gain")
    edges = np.linspace(fields["low"], fields["high"], fields["bins"] + 1)
    return _mean(c, fields, (edges[:-1] + edges[1:]) / 2, params, x)


def _mean(c: Context, fields: Any, centers: Any, params: Any, x: Value) -> Value:
    """The mean of a categorical distribution, by mirrored pairs of bins as in `policy_core.heads`.

    With c the center that is nearer to 0, p c + q d = (p - q) c + q (c + d): what is equally likely on both
    sides of a symmetric grid cancels exactly, however large it is.
    """
    count, bins = fields["objectives"] or 1, len(centers)
    logits = c.clip(c.shape(c.linear(params, x, count * bins), count, bins), -1e30, 1e30)
    probs = c("softmax", logits)
    mirrored = c("gather", probs, c.constant(np.arange(bins)[::-1]))
    origin = float(np.float32(np.clip(0, centers[0], centers[-1])))
    centers = centers - origin
    nearer = np.heaviside(np.abs(centers[::-1]) - np.abs(centers), 0.5)
    alone = c("mul", probs, c.constant((1 - nearer) * (centers + centers[::-1])))
    paired = c("mul", c("sub", probs, mirrored), c.constant(nearer * centers))
    value = c("sum", c("add", alone, paired), axes=(-1,), keep=False)
    return value if origin == 0 else c("add", value, origin)


VALUES: dict[str, Callable[[Context, Any, Any, Value], Value]] = {
    "policy_core/RegressionHead": _regression,
    "policy_core/PopArtHead": _popart,
    "policy_core/TwoHotHead": _two_hot,
    "policy_core/HLGaussHead": _hl_gauss,
}
