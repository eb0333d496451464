"""Categorical heads in NumPy: of discrete spaces, and of boxes in bins; see `numpy_runner`."""

from __future__ import annotations  # to evaluate np.random.Generator imports all of np.random

from collections.abc import Callable
from typing import Any

import numpy as np

from policy_core_adapters.numpy_runner.choices import Choice, Head
from policy_core_adapters.numpy_runner.networks import Array, few, linear, only, sigmoid
from policy_core_adapters.numpy_runner.spaces import Box, flat_size_of, kind_of


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


def discrete(head: Head) -> Choice:
    """A category of a discrete space, by its logits."""
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


def bins(head: Head) -> Choice:
    """A value of a box in bins."""
    space, value = grid(head.space, head.fields, head.dtype)
    index = discrete(head._replace(space=space, fields={}))
    return Choice(
        lambda x, mask: value(index.mode(x, mask)), lambda x, mask, rng: value(index.sample(x, mask, rng))
    )


def grid(space: Any, fields: dict[str, Any], dtype: Any) -> tuple[Any, Callable[[Any], Any]]:
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
