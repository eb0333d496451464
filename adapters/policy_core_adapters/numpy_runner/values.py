"""Value heads of policy files in NumPy; see `numpy_runner`."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from policy_core_adapters.numpy_runner.networks import Array, find, linear, only, shaped

Value = Callable[[Array], Any]  # from the features of the critic

DEFAULT = {
    "type": "policy_core/RegressionHead",
    "fields": {"objectives": None, "scale": 1.0, "symlog": False},
}


def value_of(data: Any, params: dict[str, Array], inputs: int, dtype: Any) -> Value:
    """How a value is predicted from features of dimension `inputs`: a float, or an array `[objectives]`."""
    data = DEFAULT if data is None else data
    fields = data["fields"]
    value: Value = find(VALUES, data, "value head")(fields, params, inputs, dtype)
    return value if fields["objectives"] is not None else lambda features: float(value(features)[0])


def _outputs(
    fields: dict[str, Any], params: dict[str, Array], inputs: int, dtype: Any, each: int
) -> Callable[[Array], Array]:
    """A linear layer with those outputs for each objective, checked before a grid is made of them."""
    return linear(params, inputs, (fields["objectives"] or 1) * each, dtype)


def _regression(fields: dict[str, Any], params: dict[str, Array], inputs: int, dtype: Any) -> Value:
    only(fields, "RegressionHead", "objectives", "scale", "symlog")
    scale, outputs = fields["scale"], _outputs(fields, params, inputs, dtype, 1)
    if not fields["symlog"]:
        return lambda features: scale * outputs(features)

    def value(features: Array) -> Array:
        z = outputs(features)
        return np.asarray(scale * np.copysign(np.expm1(np.abs(z)), z))

    return value


def _popart(fields: dict[str, Any], params: dict[str, Any], inputs: int, dtype: Any) -> Value:
    only(fields, "PopArtHead", "objectives", "preserve", "max_count", "epsilon")
    outputs, shape = _outputs(fields, params, inputs, dtype, 1), [n for n in [fields["objectives"]] if n]
    statistics = params["statistics"]
    _, mean, variance = (
        shaped(statistics[name], 2, *shape).astype(np.float64) for name in ("count", "mean", "variance")
    )
    std = np.sqrt(np.maximum(variance[0], 0) + fields["epsilon"])
    return lambda features: np.asarray(mean.sum(0) + std * outputs(features), dtype)


def _two_hot(fields: dict[str, Any], params: dict[str, Array], inputs: int, dtype: Any) -> Value:
    only(fields, "TwoHotHead", "low", "high", "bins", "symlog", "objectives", "gain")
    low, high, bins = fields["low"], fields["high"], fields["bins"]
    outputs = _outputs(fields, params, inputs, dtype, bins)
    if not fields["symlog"]:
        return _mean(np.linspace(low, high, bins), outputs)
    first, last = (math.copysign(math.log1p(abs(x)), x) for x in (low, high))
    grid = np.linspace(first, last, bins)
    return _mean(np.copysign(np.expm1(np.abs(grid)), grid), outputs)


def _hl_gauss(fields: dict[str, Any], params: dict[str, Array], inputs: int, dtype: Any) -> Value:
    only(fields, "HLGaussHead", "low", "high", "bins", "sigma", "objectives", "gain")
    outputs = _outputs(fields, params, inputs, dtype, fields["bins"])
    edges = np.linspace(fields["low"], fields["high"], fields["bins"] + 1)
    return _mean((edges[:-1] + edges[1:]) / 2, outputs)


def _mean(centers: Array, outputs: Callable[[Array], Array]) -> Value:
    """The mean of a categorical distribution, in float64: large bins of both signs cancel."""

    def value(features: Array) -> Array:
        logits = np.clip(outputs(features).reshape(-1, len(centers)).astype(np.float64), -1e30, 1e30)
        weights = np.exp(logits - logits.max(-1, keepdims=True))
        return np.asarray(weights.dot(centers) / weights.sum(-1))

    return value


VALUES: dict[str, Callable[..., Value]] = {
    "policy_core/RegressionHead": _regression,
    "policy_core/PopArtHead": _popart,
    "policy_core/TwoHotHead": _two_hot,
    "policy_core/HLGaussHead": _hl_gauss,
}
