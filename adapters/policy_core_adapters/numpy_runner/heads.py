"""Heads of policy files in NumPy: from features to environment actions; see `numpy_runner`."""

from __future__ import annotations  # to evaluate np.random.Generator imports all of np.random

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from policy_core_adapters.numpy_runner.networks import (
    Array,
    few,
    find,
    linear,
    only,
    shaped,
    sigmoid,
    softplus,
)
from policy_core_adapters.numpy_runner.spaces import Box, flat_size_of, kind_of, parts_of


class Choice(NamedTuple):
    """One part of an action: how it is chosen."""

    mode: Callable[[Array, Any], Any]
    """`(features, mask) -> environment action`, the deterministic one"""
    sample: Callable[[Array, Any, np.random.Generator], Any]
    """`(features, mask, rng) -> environment action`, a draw"""


class Head(NamedTuple):
    """What a head is made of."""

    space: Any
    params: Any
    inputs: int
    dtype: Any
    temperature: float | None
    fields: dict[str, Any]


def choice_of(
    space: Any, box_head: Any, params: Any, inputs: int, dtype: Any, temperature: float | None
) -> Choice:
    """How an action of a space is chosen from features of dimension `inputs`, with the params of its head."""
    match kind_of(space):
        case "Discrete" | "MultiDiscrete" | "MultiBinary":
            return HEADS["policy_core/LogitsHead"](Head(space, params, inputs, dtype, temperature, {}))
        case "Box":
            if "float" not in space["fields"]["dtype"]:
                box_head = {"type": "policy_core/BinsHead", "fields": {"bins": 2}}
            make = find(HEADS, box_head, "head")
            return _unmasked(make(Head(space, params, inputs, dtype, temperature, box_head["fields"])))
        case "Dict" | "Tuple":
            parts = [
                (key, choice_of(part, box_head, params[str(key)], inputs, dtype, temperature))
                for key, part in parts_of(space).items()
            ]
            return _joint(parts, space["type"].endswith("Dict"))
    raise ValueError(f"action_space: no space {space['type']!r} is supported by this runner")


def _unmasked(choice: Choice) -> Choice:
    """The choice for a box, which has no masks."""

    def check(mask: Any) -> None:
        if mask is not None:
            raise ValueError("action_mask: got a mask for a Box, which cannot be masked; pass None")

    def mode(x: Array, mask: Any) -> Any:
        check(mask)
        return choice.mode(x, None)

    def sample(x: Array, mask: Any, rng: np.random.Generator) -> Any:
        check(mask)
        return choice.sample(x, None, rng)

    return Choice(mode, sample)


def _joint(parts: list[tuple[Any, Choice]], named: bool) -> Choice:
    def each(x: Array, mask: Any, rng: np.random.Generator | None) -> Any:
        values = {}
        for key, part in parts:
            row = None if mask is None else mask[key]
            values[key] = part.mode(x, row) if rng is None else part.sample(x, row, rng)
        return values if named else tuple(values.values())

    return Choice(lambda x, mask: each(x, mask, None), each)


def _pick(logits: Array, mask: Any, rng: np.random.Generator | None) -> int:
    """The index of the largest logit that is allowed, or of a draw among them."""
    finite = np.clip(logits, -1e30, 1e30) if mask is not None or rng is not None else logits
    if mask is not None:
        mask = np.asarray(mask)
        if mask.shape != logits.shape or mask.dtype != bool:
            raise ValueError(f"action_mask: got {mask.dtype}{mask.shape}, expected bool{logits.shape}")
        if mask.any():
            finite = np.where(mask, finite, -2e30)
    if rng is None:
        return int(finite.argmax())
    # A class of weight 0 does not raise the running sum, so no target falls into it.
    sums = np.cumsum(_weights(finite))
    index = np.searchsorted(sums, rng.random() * sums[-1], side="right")
    return int(min(index, np.searchsorted(sums, sums[-1])))


def _weights(logits: Array) -> Array:
    """The probabilities of each row up to a factor: of logits in +-1e30, or -2e30 where masked.

    A row with a NaN has equal ones where it is allowed.
    """
    wide = logits.astype(np.float64)
    shifted = wide - wide.max(-1, keepdims=True)
    return np.where(wide < -1.5e30, 0, np.exp(np.where(np.isnan(shifted), 0, shifted)))


def _pick_even(logits: Array, rng: np.random.Generator | None) -> Array:
    """`_pick` for each row of a table, without masks."""
    if rng is None:
        return np.asarray(logits.argmax(-1), np.int32)
    sums = np.cumsum(_weights(np.clip(logits, -1e30, 1e30)), -1)
    whole = sums[:, -1:]
    past = (sums <= rng.random(whole.shape) * whole) & (sums < whole)
    index: Array = past.sum(-1, dtype=np.int32)
    return index


def _pick_joint(
    logits: Array, allowed: Any, sizes: tuple[int, ...], rng: np.random.Generator | None
) -> Array:
    """An index for each row, among the combinations that a joint mask allows."""
    allowed = np.asarray(allowed)
    if allowed.shape != sizes or allowed.dtype != bool:
        raise ValueError(f"action_mask.allowed: got {allowed.dtype}{allowed.shape}, expected bool{sizes}")
    table = np.zeros((), logits.dtype)
    for row in np.split(logits, np.cumsum(sizes)[:-1]):
        table = table[..., None] + np.clip(row, -1e30, 1e30)  # the last axis is that of this row
    return np.array(np.unravel_index(_pick(table.ravel(), allowed.ravel(), rng), sizes), np.int32)


def _logits(head: Head) -> Callable[[Array], Array]:
    layer = linear(head.params, head.inputs, flat_size_of(head.space), head.dtype)
    temperature = head.temperature
    return layer if temperature is None else lambda x: layer(x) / temperature


def _discrete(head: Head) -> Choice:
    fields, kind, logits = head.space["fields"], kind_of(head.space), _logits(head)
    if kind == "Discrete":
        start = fields["start"]
        return Choice(
            lambda x, mask: np.int32(start + _pick(logits(x), mask, None)),
            lambda x, mask, rng: np.int32(start + _pick(logits(x), mask, rng)),
        )
    if kind == "MultiBinary":
        shape = tuple(fields["shape"])

        def bits(x: Array, mask: Any, rng: np.random.Generator | None) -> Array:
            z = logits(x).reshape(shape)
            ones = z > 0 if rng is None else rng.random(shape) < sigmoid(z.astype(np.float64))
            return (ones if mask is None else ones & np.asarray(mask, bool)).astype(np.int32)

        return Choice(lambda x, mask: bits(x, mask, None), bits)
    sizes = tuple(fields["nvec"])
    pick, starts = _rows(logits, list(sizes)), np.array(fields["start"], np.int32)

    def several(x: Array, mask: Any, rng: np.random.Generator | None) -> Array:
        if hasattr(mask, "allowed"):
            index = _pick_joint(logits(x), mask.allowed, sizes, rng)
        else:
            index = pick(x, mask, rng)
        return (index + starts).reshape(fields["shape"])

    return Choice(lambda x, mask: several(x, mask, None), several)


def _rows(logits: Callable[[Array], Array], sizes: list[int]) -> Callable[..., Array]:
    """An index for each of several rows of logits, one after the other."""
    ends, even = np.cumsum(sizes).tolist(), len(set(sizes)) == 1

    def pick(x: Array, mask: Any, rng: np.random.Generator | None) -> Array:
        if mask is None and even:  # the usual case, without a loop
            return _pick_even(logits(x).reshape(len(sizes), -1), rng)
        z, masks = logits(x), [None] * len(sizes) if mask is None else mask
        spans = zip(ends, sizes, masks, strict=True)
        return np.array([_pick(z[end - n : end], row, rng) for end, n, row in spans], np.int32)

    return pick


def _boxed(head: Head, each: int) -> tuple[Callable[[Array], Array], Box]:
    """The linear layer to so many numbers for each entry of a box, and the box, which may be large."""
    layer = linear(head.params, head.inputs, each * flat_size_of(head.space), head.dtype)
    return layer, Box(head.space, head.dtype)


def _scaled(head: Head) -> tuple[Callable[[Array], tuple[Array, Array]], Box]:
    """`features -> (mean, log-std)`, and the box."""
    scale = head.fields["scale"]["fields"]
    if head.fields["scale"]["type"] != "policy_core/Scale":
        raise ValueError(f"scale: this runner does not support {head.fields['scale']['type']!r}")
    layer, box = _boxed(head, 2 if scale["std"] == "state" else 1)
    names = ("std", "log_std", "low", "high", "positive", "min_std", "factor", "bounding")
    only(scale, "Scale", *names)
    low, high, positive = scale["low"], scale["high"], scale["positive"]
    least, factor = scale.get("min_std", 0.0), scale.get("factor", 1.0)
    by_tanh = scale.get("bounding", "clip") == "tanh"
    heat = 0.0 if head.temperature is None else 0.5 * math.log(head.temperature)

    def log_std(x: Any) -> Any:
        x = np.asarray(x, np.float64)
        if by_tanh:
            return low + 0.5 * (high - low) * (np.tanh(x) + 1) + heat
        if positive == "identity":
            least_std, most_std = (math.exp(min(max(bound, -87.0), 88.0)) for bound in (low, high))
            return np.log(np.clip((x + least) * factor, least_std, most_std)) + heat
        if positive == "softplus":
            x = np.where(x < -15, x, np.log(softplus(np.maximum(x, -15))))
        if least:
            x = np.logaddexp(x, math.log(least))
        return np.clip(x + math.log(factor), low, high) + heat

    raw = raw_of(scale) if scale["std"] == "state" else 0.0
    bound = head.fields.get("mean_bound")

    def mean(x: Array) -> Array:
        loc = x.reshape(box.shape)
        return loc if bound is None else np.asarray(bound * np.tanh(loc / bound))

    if scale["std"] != "state":
        fixed = scale["std"] == "fixed"
        constant = (
            np.full(box.shape, scale["log_std"] + heat)
            if fixed
            else log_std(shaped(head.params["scale"], *box.shape))
        )
        return lambda x: (mean(layer(x)), constant), box

    def split(x: Array) -> tuple[Array, Array]:
        outputs = layer(x)
        return mean(outputs[: box.size]), log_std(raw + outputs[box.size :].reshape(box.shape))

    return split, box


def raw_of(scale: dict[str, Any]) -> float:
    """The raw parameter that gives the initial log-std."""
    factor, least = scale.get("factor", 1.0), scale.get("min_std", 0.0)
    if scale.get("bounding", "clip") == "tanh":
        return math.atanh(
            (2 * scale["log_std"] - scale["low"] - scale["high"]) / (scale["high"] - scale["low"])
        )
    if scale["positive"] == "exp" and not least:
        return float(scale["log_std"] - math.log(factor))
    std = float(math.exp(min(max(scale["log_std"], -87.0), 88.0)) / factor - least)
    if scale["positive"] == "identity":
        return std
    return math.log(std) if scale["positive"] == "exp" else std + math.log(-math.expm1(-std))


def _normal(head: Head) -> Choice:
    only(head.fields, "NormalHead", "scale", "mean_bound", "offset", "factor", "clip")
    split, box = _scaled(head)
    offset, factor = (
        np.broadcast_to(np.ravel(head.fields.get(name, default)), box.size).reshape(box.shape)
        for name, default in (("offset", 0.0), ("factor", 1.0))
    )
    most = head.fields.get("clip", math.inf)
    plain = most == math.inf and not offset.any() and (factor == 1).all()
    if plain:
        return _of_unbounded(split, box.clip)
    return _of_unbounded(split, lambda x: box.clip(offset + factor * np.clip(x, -most, most)))


def _squashed(head: Head) -> Choice:
    only(head.fields, "SquashedNormalHead", "scale", "mean_bound")
    split, box = _scaled(head)

    def squash(u: Array) -> Array:
        return box.clip(np.where(box.bounded, box.between(sigmoid(2 * u), sigmoid(-2 * u)), u))

    return _of_unbounded(split, squash)


def _of_unbounded(split: Callable[[Array], tuple[Array, Array]], finish: Callable[[Array], Array]) -> Choice:
    def sample(x: Array, mask: Any, rng: np.random.Generator) -> Array:
        del mask  # a box has none
        loc, log_std = split(x)
        return finish(loc + np.exp(log_std) * rng.standard_normal(loc.shape))

    return Choice(lambda x, mask: finish(split(x)[0]), sample)


def _beta(head: Head) -> Choice:
    only(head.fields, "BetaHead", "low", "high")
    low, high = head.fields["low"], head.fields["high"]
    layer, box = _boxed(head, 2)

    def concentrations(x: Array) -> tuple[Array, Array]:
        outputs = softplus(layer(x).astype(np.float64))
        if head.temperature is not None:
            outputs = (outputs + (low - 1)) / head.temperature + (1 - low)
        both = np.clip(low + outputs, min(low, 1e-2), high)
        return both[: box.size].reshape(box.shape), both[box.size :].reshape(box.shape)

    def mode(x: Array, mask: Any) -> Array:
        del mask  # a box has none
        a, b = concentrations(x)
        inner = (a > 1) & (b > 1)
        a, b = np.where(inner, a - 1, a), np.where(inner, b - 1, b)
        return box.clip(box.between(a / (a + b), b / (a + b)))

    def sample(x: Array, mask: Any, rng: np.random.Generator) -> Array:
        del mask
        part = np.asarray(rng.beta(*concentrations(x)))
        return box.clip(box.between(part, 1 - part))

    return Choice(mode, sample)


def _bins(head: Head) -> Choice:
    space, value = _grid(head.space, head.fields, head.dtype)
    index = _discrete(head._replace(space=space, fields={}))
    return Choice(
        lambda x, mask: value(index.mode(x, mask)), lambda x, mask, rng: value(index.sample(x, mask, rng))
    )


def index_form(space: Any, box_head: Any, dtype: Any) -> tuple[Any, Callable[[Any], Any]]:
    """The space of the policy actions of a part, and from those to environment actions.

    They are indices for a box in bins. For any other space they are the environment actions.
    """
    if space["type"].endswith("/Box"):
        if "float" not in space["fields"]["dtype"]:
            return _grid(space, {"bins": 2}, dtype)
        if box_head["type"] == "policy_core/BinsHead":
            return _grid(space, box_head["fields"], dtype)
    return space, lambda action: action


def _grid(space: Any, fields: dict[str, Any], dtype: Any) -> tuple[Any, Callable[[Any], Any]]:
    """The space of the indices of a box in bins, and from indices to values."""
    only(fields, "BinsHead", "bins")
    few(flat_size_of(space), "BinsHead: the entries of a Box", 2**14)
    box, bins = Box(space, dtype), fields["bins"]
    if box.is_float and not bool(np.all(np.isfinite(box.low) & np.isfinite(box.high) & (box.low < box.high))):
        raise ValueError("BinsHead: expected a Box with finite bounds, low < high")
    sizes = [bins] * box.size if box.is_float else (box.high - box.low + 1).ravel().tolist()
    rows = {"nvec": sizes, "shape": box.shape, "start": [0] * box.size}

    def value(index: Array) -> Array:
        if not box.is_float:
            return np.asarray(box.low + index).astype(box.dtype)
        part = index / (bins - 1)
        return box.clip(
            np.asarray(box.low.astype(np.float64) * (1 - part) + box.high.astype(np.float64) * part)
        )

    return {"type": "policy_core/MultiDiscrete", "fields": rows}, value


HEADS: dict[str, Callable[[Head], Choice]] = {
    "policy_core/LogitsHead": _discrete,
    "policy_core/NormalHead": _normal,
    "policy_core/SquashedNormalHead": _squashed,
    "policy_core/BetaHead": _beta,
    "policy_core/BinsHead": _bins,
}
