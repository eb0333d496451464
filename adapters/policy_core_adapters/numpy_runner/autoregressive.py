"""Actions in NumPy whose parts depend on other parts: parents first; see `numpy_runner`."""

from __future__ import annotations  # to evaluate np.random.Generator imports all of np.random

from collections.abc import Callable
from typing import Any

import numpy as np

from policy_core_adapters.numpy_runner.choices import Choice
from policy_core_adapters.numpy_runner.heads import Heads, choice_of, index_form
from policy_core_adapters.numpy_runner.networks import Array, few, only
from policy_core_adapters.numpy_runner.spaces import flat_size_of, flatten_of, parts_of

MaskFunction = Callable[[Any, dict[Any, Any]], Any]


def dependent(
    space: Any,
    heads: Heads,
    fields: dict[str, Any],
    params: Any,
    inputs: int,
    dtype: Any,
    temperature: float | None,
    network: Callable[[Any, int], tuple[Callable[[Array], Array], int]],
    mask_functions: dict[str, MaskFunction],
) -> Choice:
    """How a `Dict` or `Tuple` is chosen under `Autoregressive`.

    Args:
        space, heads, params, inputs, dtype, temperature: as in `choice_of`.
        fields: of the config of class Autoregressive.
        network: from its params in the file and the number of its inputs to the network of a part,
            and the number of its outputs.
        mask_functions: name to `(mask, seen) -> mask`; `seen` are the policy actions of the
            parents by name, as NumPy integers: of a box in bins, the indices.
    """
    only(fields, "Autoregressive", "parents", "network", "masks")
    for name, function in fields["masks"]:
        if function not in mask_functions:
            raise ValueError(
                f"Autoregressive.masks[{name!r}]: {function!r} is not known here; pass it in `mask_functions`"
            )
    masks = {name: mask_functions[function] for name, function in fields["masks"]}
    parents = {name: tuple(seen) for name, seen in fields["parents"]}
    parts, named = parts_of(space), space["type"].endswith("Dict")
    few(flat_size_of(space, one_hot=False), "Autoregressive: the numbers of an action", 2**14)
    few(len(parts), "Autoregressive: the parts of an action", 256)
    few(max(map(len, parents.values()), default=0), "Autoregressive: the parents of a part", 32)
    # A part has more parents than any of them.
    order = sorted(parts, key=lambda name: len(parents.get(name, ())))
    by_part = heads.named(space)
    forms = {name: index_form(part, by_part[name], dtype) for name, part in parts.items()}
    flatten = {seen: flatten_of(forms[seen][0]) for names in parents.values() for seen in names}
    networks, choices = {}, {}
    for name, (form, _) in forms.items():
        size = inputs
        if parents.get(name):
            size += sum(flat_size_of(forms[parent][0]) for parent in parents[name])
            networks[name], size = network(params[str(name)].get("network", {}), size)
        choices[name] = choice_of(
            form,
            _of_index(form, parts[name], by_part[name]),
            params[str(name)]["head"],
            size,
            dtype,
            temperature,
        )

    def each(x: Array, mask: Any, rng: np.random.Generator | None) -> Any:
        actions: dict[Any, Any] = {}
        for name in order:
            row, y = None if mask is None else mask[name], x
            seen = {parent: actions[parent] for parent in parents.get(name, ())}
            if seen:
                flat = [flatten[parent](action) for parent, action in seen.items()]
                y = networks[name](np.concatenate([x, *flat]).astype(dtype, copy=False))
            if name in masks:
                row = masks[name](row, seen)
            choice = choices[name]
            actions[name] = choice.mode(y, row) if rng is None else choice.sample(y, row, rng)
        values = {name: forms[name][1](actions[name]) for name in parts}
        return values if named else tuple(values.values())

    return Choice(lambda x, mask: each(x, mask, None), each)


def _of_index(form: Any, part: Any, heads: Heads) -> Heads:
    """The heads of a part, or of the indices of a box in bins."""
    return heads if form is part else Heads(heads.box, {"type": "policy_core/LogitsHead", "fields": {}})
