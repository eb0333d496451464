"""Heads of policy files in NumPy: from features to environment actions; see `numpy_runner`."""

from __future__ import annotations  # to evaluate np.random.Generator imports all of np.random

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from policy_core_adapters.numpy_runner.choices import Choice, Head, boxed, joint, unmasked
from policy_core_adapters.numpy_runner.discrete import bins, discrete, grid
from policy_core_adapters.numpy_runner.gsde import gsde
from policy_core_adapters.numpy_runner.networks import ONE, Array, find, only, shaped, softplus
from policy_core_adapters.numpy_runner.spaces import Box, kind_of, parts_of


class Heads(NamedTuple):
    """The heads of a policy, for an action space or a part of one."""

    box: Any
    discrete: Any
    parts: Any = None
    """heads of parts by name, as in a file, or None"""
    own: Any = None
    """the head of this part alone, or None"""

    def named(self, space: Any) -> dict[Any, Heads]:
        """The heads of each part."""
        data = self.parts or {"type": "policy_core/PartHeads", "fields": {"heads": []}}
        if data["type"] != "policy_core/PartHeads":
            raise ValueError(f"heads: this runner does not support {data['type']!r}")
        given = dict(data["fields"]["heads"])
        names = list(parts_of(space)) if kind_of(space) in ("Dict", "Tuple") else []
        if unknown := given.keys() - set(names):
            raise ValueError(
                f"heads: got {min(map(str, unknown))!r}, but the parts of the action are {names}"
            )

        def heads(own: Any) -> Heads:
            parts = own is not None and own["type"].endswith("/PartHeads")
            return self._replace(parts=own if parts else None, own=None if parts else own)

        return {name: heads(given.get(name)) for name in names}

    def of(self, space: Any) -> Any:
        """The head of a space without parts."""
        if self.own is not None:
            return self.own
        if kind_of(space) != "Box":
            return self.discrete
        return self.box if "float" in space["fields"]["dtype"] else _OF_INTEGERS


_OF_INTEGERS = {"type": "policy_core/BinsHead", "fields": {"bins": 2}}


def choice_of(
    space: Any, heads: Heads, params: Any, inputs: int, dtype: Any, temperature: float | None
) -> Choice:
    """How an action of a space is chosen from features of dimension `inputs`, with the params of its head."""
    by_part, kind = heads.named(space), kind_of(space)
    if heads.own is None and kind in ("Dict", "Tuple"):
        parts = [
            (key, choice_of(part, by_part[key], params[str(key)], inputs, dtype, temperature))
            for key, part in parts_of(space).items()
        ]
        return joint(parts, kind == "Dict")
    if kind not in ("Discrete", "MultiDiscrete", "MultiBinary", "Box", "Dict", "Tuple"):
        raise ValueError(f"action_space: no space {space['type']!r} is supported by this runner")
    data = heads.of(space)
    choice = find(HEADS, data, "head")(Head(space, params, inputs, dtype, temperature, data["fields"]))
    return unmasked(choice) if kind == "Box" else choice


def _scaled(head: Head) -> tuple[Callable[[Array], tuple[Array, Array]], Box]:
    """`features -> (mean, log-std)`, and the box."""
    scale = head.fields["scale"]["fields"]
    if head.fields["scale"]["type"] != "policy_core/Scale":
        raise ValueError(f"scale: this runner does not support {head.fields['scale']['type']!r}")
    layer, box = boxed(head, 2 if scale["std"] == "state" else 1)
    names = ("std", "log_std", "low", "high", "positive", "min_std", "factor", "bounding")
    only(scale, "Scale", *names)
    low, high, positive = scale["low"], scale["high"], scale["positive"]
    least, factor = scale["min_std"], scale["factor"]
    by_tanh = scale["bounding"] == "tanh"
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
    bound = head.fields["mean_bound"]

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
    factor, least = scale["factor"], scale["min_std"]
    if scale["bounding"] == "tanh":
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
        np.broadcast_to(np.ravel(head.fields[name]), box.size).reshape(box.shape)
        for name in ("offset", "factor")
    )
    most = head.fields["clip"]
    plain = most == math.inf and not offset.any() and (factor == 1).all()
    if plain:
        return _of_unbounded(split, box.clip)
    return _of_unbounded(split, lambda x: box.clip(offset + factor * np.clip(x, -most, most)))


def _squashed(head: Head) -> Choice:
    only(head.fields, "SquashedNormalHead", "scale", "mean_bound")
    split, box = _scaled(head)

    return _of_unbounded(split, box.squash)


def _of_unbounded(split: Callable[[Array], tuple[Array, Array]], finish: Callable[[Array], Array]) -> Choice:
    def sample(x: Array, mask: Any, rng: np.random.Generator) -> Array:
        del mask  # a box has none
        loc, log_std = split(x)
        return finish(loc + np.exp(log_std) * rng.standard_normal(loc.shape))

    return Choice(lambda x, mask: finish(split(x)[0]), sample)


def _beta(head: Head) -> Choice:
    only(head.fields, "BetaHead", "low", "high")
    low, high = head.fields["low"], head.fields["high"]
    layer, box = boxed(head, 2)

    least, first, last = (np.asarray(bound) for bound in (low, min(low, 1e-2), high))

    def concentrations(x: Array) -> tuple[Array, Array]:
        outputs = softplus(layer(x).astype(np.float64))
        if head.temperature is not None:
            outputs = (outputs + (low - 1)) / head.temperature + (1 - low)
        both = np.minimum(np.maximum(least + outputs, first), last)
        return both[: box.size].reshape(box.shape), both[box.size :].reshape(box.shape)

    def mode(x: Array, mask: Any) -> Array:
        del mask  # a box has none
        a, b = concentrations(x)
        inner = (a > ONE) & (b > ONE)
        a, b = a - inner, b - inner
        whole = a + b
        return box.clip(box.between(a / whole, b / whole))

    def sample(x: Array, mask: Any, rng: np.random.Generator) -> Array:
        del mask
        part = np.asarray(rng.beta(*concentrations(x)))
        return box.clip(box.between(part, 1 - part))

    return Choice(mode, sample)


def index_form(space: Any, heads: Heads, dtype: Any) -> tuple[Any, Callable[[Any], Any]]:
    """The space of the policy actions of a part, and from those to environment actions.

    They are indices for a box in bins. For any other space they are the environment actions.
    """
    if space["type"].endswith("/Box"):
        head = heads.of(space)
        if head["type"] == "policy_core/BinsHead":
            return grid(space, head["fields"], dtype)
    return space, lambda action: action


HEADS: dict[str, Callable[[Head], Choice]] = {
    "policy_core/LogitsHead": discrete,
    "policy_core/NormalHead": _normal,
    "policy_core/SquashedNormalHead": _squashed,
    "policy_core/GSDEHead": gsde,
    "policy_core/BetaHead": _beta,
    "policy_core/BinsHead": bins,
}
