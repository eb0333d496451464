"""State-dependent exploration as a graph: the matrix of noise is an input, which is kept."""

import math
from typing import Any

import numpy as np

from policy_core_adapters.exports.lowering.boxes import box_of, clipped, squashed
from policy_core_adapters.exports.lowering.context import only
from policy_core_adapters.exports.lowering.parts import Chosen, Head
from policy_core_adapters.numpy_runner.networks import Array, shaped


def gsde_head(head: Head) -> Chosen:
    """A normal whose standard deviation is a function of the features."""
    c, box, fields = head.context, box_of(head), head.fields
    names = ("log_std", "positive", "full_std", "squash", "learn_features", "resample_every", "epsilon")
    only(fields, "GSDEHead", *names)
    (size,), x = head.features.shape, head.features
    loc = c.shape(c.linear(head.params, x, box.size), *box.shape)
    raw = shaped(head.params["log_std"], size, box.size if fields["full_std"] else 1)
    std = _positive(fields, raw.astype(np.float64))
    variance = c("linear", c("mul", x, x), c.constant(np.square(std)))
    heat = 1.0 if head.temperature is None else head.temperature
    log_std = c("mul", c("log", c("add", variance, fields["epsilon"])), 0.5)
    log_std = log_std if heat == 1 else c("add", log_std, 0.5 * math.log(heat))
    log_std = c.shape(c("broadcast", log_std, shape=(box.size,)), *box.shape)
    action = loc
    if c.noise:
        matrix = c.draw(head.path, "normal", (size, box.size))
        c.kept[matrix.name] = fields["resample_every"]
        change = c("matmul", c.shape(x, 1, size), c("mul", matrix, c.constant(math.sqrt(heat) * std)))
        action = c("add", loc, c.shape(change, *box.shape))
    return (squashed if fields["squash"] else clipped)(c, box, loc, log_std, action)


def _positive(fields: Any, raw: Array) -> Array:
    if fields["positive"] == "exp":
        return np.exp(raw)
    above = 1 + np.log1p(np.maximum(raw, 0) + fields["epsilon"])
    return np.where(raw > 0, above, np.exp(np.minimum(raw, 0)))
