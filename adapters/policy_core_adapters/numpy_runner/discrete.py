"""Categorical heads in NumPy: of discrete spaces, and of boxes in bins; see `numpy_runner`."""

from __future__ import annotations  # to evaluate np.random.Generator imports all of np.random

from collections.abc import Callable
from typing import Any

import numpy as np

from policy_core_adapters.numpy_runner.choices import Choice, Head
from policy_core_adapters.numpy_runner.networks import ONE, Array, few, linear, only, sigmoid
from policy_core_adapters.numpy_runner.spaces import Box, flat_size_of, kind_of


def _pick(logits: Array, mask: Any, rng: np.random.Generator | None) -> int:
    """The index of the largest logit that is allowed, or of a draw among them."""
    finite = _finite(logits) if mask is not None or rng is not None else logits
    if mask is not None:
        mask = np.asarray(mask)
        if mask.shape != logits.shape or mask.dtype != bool:
            raise ValueError(f"action_mask: got {mask.dtype}{mask.shape}, expected bool{logits.shape}")
        if mask.any():
            finite = np.where(mask, finite, -2e30)
    if rng is None:
        return int(finite.argmax())
    sums = _sums(finite)
    if (whole := sums.item(-1)) != whole:
        sums = _sums(_even(finite))
        whole = sums.item(-1)
    # A class of weight 0 does not raise the running sum, so no target falls into it.
    target = rng.random() * whole
    return int(sums.searchsorted(target, "right") if target < whole else sums.searchsorted(whole))


_MOST, _LEAST = np.asarray(1e30, np.float32), np.asarray(-1e30, np.float32)


def _finite(logits: Array) -> Array:
    """The logits within +-1e30, but for NaNs."""
    finite: Array = np.minimum(np.maximum(logits, _LEAST), _MOST)
    return finite


def _sums(logits: Array) -> Array:
    """The running sums of the probabilities of each row up to a factor; NaNs if one of its logits is.

    The logits are in +-1e30, or -2e30 where masked.
    """
    wide = logits.astype(np.float64)
    sums: Array = np.add.accumulate(np.exp(wide - np.maximum.reduce(wide, -1, keepdims=True)), -1)
    return sums


def _even(logits: Array) -> Array:
    """The logits, but equal ones in a row with a NaN, where it is allowed."""
    damaged = np.isnan(np.maximum.reduce(logits, -1, keepdims=True))
    return np.where(damaged & ~(logits < -1.5e30), 0, logits)


def _pick_even(logits: Array, rng: np.random.Generator | None) -> Array:
    """`_pick` for each row of a table, without masks."""
    if rng is None:
        return np.asarray(logits.argmax(-1), np.int32)
    finite = _finite(logits)
    sums = _sums(finite)
    if np.isnan(sums[:, -1]).any():
        sums = _sums(_even(finite))
    whole = sums[:, -1:]
    past = (sums <= rng.random(whole.shape) * whole) & (sums < whole)
    index: Array = np.add.reduce(past, -1, np.int32)
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
        table = table[..., None] + _finite(row)  # the last axis is that of this row
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

    most = np.asarray(bins - 1, np.float64)

    def value(index: Array) -> Array:
        if not box.is_float:
            return np.asarray(box.low + index).astype(box.dtype)
        part = index / most
        return box.clip(np.asarray(box.between(part, ONE - part)))

    return {"type": "policy_core/MultiDiscrete", "fields": rows}, value
