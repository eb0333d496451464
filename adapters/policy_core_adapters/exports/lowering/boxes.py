"""Actions of boxes of floats as graphs: normal, squashed normal and Beta distributions."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from policy_core_adapters.exports.graph import Value
from policy_core_adapters.exports.lowering.context import Context, ExportError, only
from policy_core_adapters.exports.lowering.observations import dtype_of
from policy_core_adapters.exports.lowering.parts import Chosen, Head
from policy_core_adapters.numpy_runner.heads import raw_of
from policy_core_adapters.numpy_runner.networks import shaped
from policy_core_adapters.numpy_runner.spaces import Box, flat_size_of

HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


def box_of(head: Head) -> Box:
    """The box of a head, with its bounds in float32."""
    dtype_of(head.space)  # refuses 16 bits
    return Box(head.space, np.float32)


def _scaled(head: Head, box: Box) -> tuple[Value, Value]:
    """Mean and log-std; the log-std may be a constant."""
    c, scale = head.context, head.fields["scale"]["fields"]
    names = ("std", "log_std", "low", "high", "positive", "min_std", "factor", "bounding")
    only(scale, "Scale", *names)
    size, bound = flat_size_of(head.space), head.fields["mean_bound"]
    heat = 0.0 if head.temperature is None else 0.5 * math.log(head.temperature)
    of_state = scale["std"] == "state"
    outputs = c.linear(head.params, head.features, size * (2 if of_state else 1))
    loc = c.shape(c.cut(outputs, 0, size), *box.shape)
    if bound is not None:
        loc = c("mul", c("tanh", c("div", loc, bound)), bound)
    if of_state:
        raw = c.shape(c.cut(outputs, size, 2 * size), *box.shape)
        raw = c("add", raw, raw_of(scale))
        log_std = _log_std(c, scale, raw)
        return loc, log_std if heat == 0 else c("add", log_std, heat)
    if scale["std"] == "fixed":
        return loc, c.constant(np.full(box.shape, scale["log_std"] + heat))
    raw = c.constant(np.float32(shaped(head.params["scale"], *box.shape)))
    log_std = _log_std(c, scale, raw)  # computed at once: it depends on no input
    return loc, log_std if heat == 0 else c("add", log_std, heat)


def _log_std(c: Context, scale: Any, raw: Value) -> Value:
    """The log-std of a raw parameter."""
    low, high, positive = scale["low"], scale["high"], scale["positive"]
    least, factor = scale["min_std"], scale["factor"]
    if scale["bounding"] == "tanh":
        return c("add", c("mul", c("add", c("tanh", raw), 1.0), 0.5 * (high - low)), low)
    if positive == "identity":
        ends = (math.exp(min(max(bound, -87.0), 88.0)) / factor for bound in (low, high))
        return c("add", c("log", c.clip(c("add", raw, least), *ends)), math.log(factor))
    if positive == "softplus":
        inner = c("log1p", c("exp", c("neg", c("abs", raw))))
        soft = c("log", c("add", c("maximum", raw, 0.0), inner))
        raw = c("where", c("less", raw, -15.0), raw, soft)
    if least:  # log(e^raw + least), by the larger of the two
        floor = math.log(least)
        apart = c("exp", c("neg", c("abs", c("sub", raw, floor))))
        raw = c("add", c("maximum", raw, floor), c("log1p", apart))
    if factor != 1:
        raw = c("add", raw, math.log(factor))
    return c.clip(raw, low, high)


def _drawn(head: Head, loc: Value, log_std: Value) -> Value:
    """The mean, or a draw by one normal number each."""
    c = head.context
    if not c.noise:
        return loc
    return c("add", loc, c("mul", c("exp", log_std), c.draw(head.path, "normal", loc.shape)))


def _terms(c: Context, x: Value, loc: Value, log_std: Value) -> Value:
    """Log-densities of a normal, entry by entry (nats)."""
    z = c("mul", c("sub", x, loc), c("exp", c("neg", log_std)))
    return c("sub", c("mul", c("mul", z, z), -0.5), c("add", log_std, HALF_LOG_2PI))


def _sum(c: Context, terms: Value) -> Value:
    return c("sum", c.flat(terms), axes=(-1,), keep=False)


def _parameters(c: Context, loc: Value, log_std: Value) -> dict[str, Value]:
    return {"loc": loc, "log_std": c.graph.varying(log_std, loc) if log_std.constant else log_std}


def _inside(c: Context, box: Box, x: Value) -> Value:
    return _clipped(c, x, box.low, box.high)


def _clipped(c: Context, x: Value, low: Any, high: Any) -> Value:
    """Within the bounds, by one number for both ends where they are alike."""
    low, high = (
        end.ravel()[0] if end.size and np.all(end == end.ravel()[0]) else end
        for end in map(np.asarray, (low, high))
    )
    return c.clip(x, low, high)


def _normal(head: Head) -> Chosen:
    c, box = head.context, box_of(head)
    only(head.fields, "NormalHead", "scale", "mean_bound", "offset", "factor", "clip")
    loc, log_std = _scaled(head, box)
    action = env = _drawn(head, loc, log_std)
    most = head.fields["clip"]
    env = c.clip(env, -most, most)
    offset, factor = (
        np.broadcast_to(np.ravel(head.fields[name]), flat_size_of(head.space)).reshape(box.shape)
        for name in ("offset", "factor")
    )
    if np.any(factor != 1):
        env = c("mul", env, c.constant(factor))
    if np.any(offset):
        env = c("add", env, c.constant(offset))
    return clipped(c, box, loc, log_std, action)._replace(env=_inside(c, box, env))


def clipped(c: Context, box: Box, loc: Value, log_std: Value, action: Value) -> Chosen:
    """What a normal chooses within the bounds."""
    return Chosen(
        action,
        _inside(c, box, action),
        lambda: _sum(c, _terms(c, action, loc, log_std)),
        _parameters(c, loc, log_std),
    )


def _squashed(head: Head) -> Chosen:
    c, box = head.context, box_of(head)
    only(head.fields, "SquashedNormalHead", "scale", "mean_bound")
    loc, log_std = _scaled(head, box)
    return squashed(c, box, loc, log_std, _drawn(head, loc, log_std))


def squashed(c: Context, box: Box, loc: Value, log_std: Value, action: Value) -> Chosen:
    """What a normal chooses that is squashed into the bounds."""
    # middle + half tanh u: off by what float32 loses of the width, as in a robot's own units it may be.
    half = 0.5 * box.safe_high - 0.5 * box.safe_low
    env = c("add", c("mul", c("tanh", action), _alike(c, half)), _alike(c, box.safe_low + half))
    if not box.bounded.all():
        env = c("where", c.constant(box.bounded), env, action)

    def log_prob() -> Value:
        # log(1 - tanh^2 u) = 2 (log 2 - |u| - log(1 + e^(-2 |u|)))
        size = c("abs", action)
        tail = c("log1p", c("exp", c("mul", size, -2.0)))
        log_det = c("mul", c("sub", math.log(2), c("add", size, tail)), 2.0)
        squash = c("add", log_det, c.constant(np.log(half)))
        if not box.bounded.all():
            squash = c("where", c.constant(box.bounded), squash, 0.0)
        return _sum(c, c("sub", _terms(c, action, loc, log_std), squash))

    return Chosen(action, _inside(c, box, env), log_prob, _parameters(c, loc, log_std))


def _alike(c: Context, array: Any) -> Value:
    """A constant, a number if all entries are the same."""
    array = np.asarray(array, np.float32)
    return c.constant(array.ravel()[0] if array.size and np.all(array == array.ravel()[0]) else array)


_TRIES = 8


def _beta(head: Head) -> Chosen:
    """A Beta distribution between the bounds."""
    c, box, fields = head.context, box_of(head), head.fields
    only(fields, "BetaHead", "low", "high")
    size, low, high = flat_size_of(head.space), fields["low"], fields["high"]
    outputs = c("softplus", c.linear(head.params, head.features, 2 * size))
    if head.temperature is not None:
        outputs = c("add", c("div", c("add", outputs, low - 1), head.temperature), 1 - low)
    both = c.clip(c("add", outputs, low), min(low, 1e-2), high)
    a, b = (c.shape(c.cut(both, i * size, (i + 1) * size), *box.shape) for i in range(2))
    if c.noise:
        logs = _log_gamma(c, both, head.path)
        x, y = (c.shape(c.cut(logs, i * size, (i + 1) * size), *box.shape) for i in range(2))
        action = c("sub", x, y)
        part = c("sigmoid", action)
    else:
        inner = c("and", c("less", 1.0, a), c("less", 1.0, b))
        x, y = (c("where", inner, c("sub", one, 1.0), one) for one in (a, b))
        action, part = c("log", c("div", x, y)), c("div", x, c("add", x, y))
    width = box.safe_high - box.safe_low
    env = c("add", c("mul", part, _alike(c, width)), _alike(c, box.safe_low))

    def log_prob() -> Value:
        raise ExportError(
            "outputs: the log_prob of a BetaHead is carried by no export; ask for the distribution, and "
            "compute it from alpha and beta"
        )

    return Chosen(action, _inside(c, box, env), log_prob, {"alpha": a, "beta": b})


def _log_gamma(c: Context, a: Value, path: str) -> Value:
    """Logarithms of Gamma draws `[m]`, by rejection of at most 8 proposals (Marsaglia & Tsang 2000).

    A draw for a + 1 times u^(1/a). Of 1,000 proposals at least 950 are accepted, so that in 3e-11 of all
    draws none is; then it is near the mode.
    """
    (m,) = a.shape
    x = c.draw(f"{path}/proposals".lstrip("/"), "normal", (m, _TRIES))
    u = c.draw(f"{path}/accept".lstrip("/"), "uniform", (m, _TRIES))
    d = c.shape(c("add", a, 2 / 3), m, 1)
    root = c("add", c("div", x, c("sqrt", c("mul", d, 9.0))), 1.0)
    good = c("less", 0.0, root)
    root = c("maximum", root, 1e-30)
    log_v = c("mul", c("log", root), 3.0)
    v = c("mul", root, c("mul", root, root))
    bound = c("add", c("mul", c("mul", x, x), 0.5), c("mul", d, c("add", c("sub", 1.0, v), log_v)))
    good = c("and", good, c("less", c("log", c("maximum", u, 1e-38)), bound))
    flags = c("cast", good, dtype="float32")
    first = c("equal", c("cumsum", flags), 1.0)  # the first accepted one, and rejected ones behind it
    chosen = c("sum", c("where", c("and", good, first), log_v, 0.0), axes=(-1,), keep=False)
    boost = c.draw(f"{path}/boost".lstrip("/"), "uniform", (m,))
    power = c("div", c("log", c("maximum", boost, 1e-38)), a)
    return c("add", c("add", c("log", c.shape(d, m)), chosen), power)


BOX_HEADS: dict[str, Callable[[Head], Chosen]] = {
    "policy_core/NormalHead": _normal,
    "policy_core/SquashedNormalHead": _squashed,
    "policy_core/BetaHead": _beta,
}
