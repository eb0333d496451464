"""The head of state-dependent exploration in NumPy, whose noise is kept in the state; see `numpy_runner`."""

from __future__ import annotations  # to evaluate np.random.Generator imports all of np.random

import math
from typing import Any

import numpy as np

from policy_core_adapters.numpy_runner.choices import Choice, Head, Noise, boxed
from policy_core_adapters.numpy_runner.networks import Array, only, shaped


def gsde(head: Head) -> Choice:
    """The choice of a `GSDEHead`."""
    fields = head.fields
    names = ("log_std", "positive", "full_std", "squash", "learn_features", "resample_every", "epsilon")
    only(fields, "GSDEHead", *names)
    layer, box = boxed(head, 1)
    columns = box.size if fields["full_std"] else 1
    std = _positive(fields, shaped(head.params["log_std"], head.inputs, columns).astype(np.float64))
    heat, every = math.sqrt(head.temperature or 1.0), fields["resample_every"]

    def finish(u: Array) -> Array:
        if not fields["squash"]:
            return box.clip(u)
        return box.squash(u)

    def mean(x: Array) -> Array:
        return layer(x).reshape(box.shape)

    def sample(x: Array, mask: Any, rng: np.random.Generator) -> Array:
        del mask  # a box has none
        wide = x.astype(np.float64)
        spread = np.sqrt(np.square(wide) @ np.square(std) + fields["epsilon"])
        noise = np.broadcast_to(spread, box.size) * rng.standard_normal(box.size)
        return finish(mean(x) + heat * noise.reshape(box.shape))

    def draw(noise: dict[str, Array], rng: np.random.Generator) -> dict[str, Array]:
        age, matrix = int(noise["age"]), noise["matrix"]
        if age < 0 or (every is not None and age >= every):
            age, matrix = 0, np.asarray(rng.standard_normal(matrix.shape), matrix.dtype)
        return {"matrix": matrix, "age": np.array(age + (every is not None), np.int32)}

    def kept(x: Array, mask: Any, rng: np.random.Generator, noise: dict[str, Array]) -> Array:
        del mask, rng
        change = x.astype(np.float64) @ (std * noise["matrix"])
        return finish(mean(x) + heat * change.reshape(box.shape))

    none = {"matrix": np.zeros((head.inputs, box.size), head.dtype), "age": np.array(-1, np.int32)}
    for array in none.values():
        array.flags.writeable = False  # every episode begins with these very arrays
    return Choice(lambda x, mask: finish(mean(x)), sample, Noise(none, draw, kept))


def _positive(fields: dict[str, Any], raw: Array) -> Array:
    if fields["positive"] == "exp":
        return np.exp(raw)
    above = 1 + np.log1p(np.maximum(raw, 0) + fields["epsilon"])
    return np.where(raw > 0, above, np.exp(np.minimum(raw, 0)))
