"""How parts of an action are chosen, in NumPy; see `numpy_runner`."""

from __future__ import annotations  # to evaluate np.random.Generator imports all of np.random

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from policy_core_adapters.numpy_runner.networks import Array, linear
from policy_core_adapters.numpy_runner.spaces import Box, flat_size_of


class Noise(NamedTuple):
    """Noise that is kept in the state for several draws."""

    initial: Any
    """what is in the state before any has been drawn"""
    draw: Callable[[Any, np.random.Generator], Any]
    """`(noise, rng) -> noise`, the one for the next draw"""
    sample: Callable[[Array, Any, np.random.Generator, Any], Any]
    """`(features, mask, rng, noise) -> environment action`"""


class Choice(NamedTuple):
    """One part of an action: how it is chosen."""

    mode: Callable[[Array, Any], Any]
    """`(features, mask) -> environment action`, the deterministic one"""
    sample: Callable[[Array, Any, np.random.Generator], Any]
    """`(features, mask, rng) -> environment action`, a draw"""
    noise: Noise | None = None
    """if draws have noise that is kept"""


class Head(NamedTuple):
    """What a head is made of."""

    space: Any
    params: Any
    inputs: int
    dtype: Any
    temperature: float | None
    fields: dict[str, Any]


def unmasked(choice: Choice) -> Choice:
    """The choice for a box, which has no masks."""

    def refuse() -> None:
        raise ValueError("action_mask: got a mask for a Box, which cannot be masked; pass None")

    def mode(x: Array, mask: Any) -> Any:
        if mask is not None:
            refuse()
        return choice.mode(x, None)

    def sample(x: Array, mask: Any, rng: np.random.Generator) -> Any:
        if mask is not None:
            refuse()
        return choice.sample(x, None, rng)

    if (noise := choice.noise) is None:
        return Choice(mode, sample)

    def kept(x: Array, mask: Any, rng: np.random.Generator, drawn: Any) -> Any:
        if mask is not None:
            refuse()
        return noise.sample(x, None, rng, drawn)

    return Choice(mode, sample, noise._replace(sample=kept))


def joint(parts: list[tuple[Any, Choice]], named: bool) -> Choice:
    """The choice for a `Dict` or `Tuple`, part by part."""

    def each(x: Array, mask: Any, rng: np.random.Generator | None, drawn: Any = None) -> Any:
        values = {}
        for key, part in parts:
            row = None if mask is None else mask[key]
            if rng is None:
                values[key] = part.mode(x, row)
            elif drawn is None or part.noise is None:
                values[key] = part.sample(x, row, rng)
            else:
                values[key] = part.noise.sample(x, row, rng, drawn[str(key)])
        return values if named else tuple(values.values())

    kept = {str(key): part.noise for key, part in parts if part.noise is not None}
    noise = Noise(
        {key: part.initial for key, part in kept.items()},
        lambda drawn, rng: {key: part.draw(drawn[key], rng) for key, part in kept.items()},
        each,
    )
    return Choice(lambda x, mask: each(x, mask, None), each, noise if kept else None)


def boxed(head: Head, each: int) -> tuple[Callable[[Array], Array], Box]:
    """The linear layer to so many numbers for each entry of a box, and the box, which may be large."""
    layer = linear(head.params, head.inputs, each * flat_size_of(head.space), head.dtype)
    return layer, Box(head.space, head.dtype)
