"""Autoregressive actions of policy files in NumPy; see `numpy_runner`."""

from __future__ import annotations  # evaluating np.random.Generator would import np.random

from collections.abc import Callable
from typing import Any

import numpy as np

from policy_core_adapters.numpy_runner.heads import Choice, choice_of, index_form
from policy_core_adapters.numpy_runner.networks import Array, only
from policy_core_adapters.numpy_runner.spaces import flatten_of, parts_of

MaskFunction = Callable[[Any, dict[Any, Any]], Any]


def dependent(
    space: Any,
    box_head: Any,
    fields: dict[str, Any],
    params: Any,
    dtype: Any,
    temperature: float | None,
    network: Callable[[Any], Callable[[Array], Array]],
    mask_functions: dict[str, MaskFunction],
) -> Choice:
    """The `Choice` of a `Dict` or `Tuple` action with `Autoregressive` parts.

    Args:
        space, box_head, params, dtype, temperature: as in `choice_of`.
        fields: the fields of the `Autoregressive` config.
        network: a function from the params of a part to its network.
        mask_functions: `(mask, parents) -> mask` by name; `parents` are the policy actions of the
            parents by name, as NumPy integers: for a box with bins, the indices.
    """
    only(fields, "Autoregressive", "parents", "network", "masks")
    for name, function in fields["masks"]:
        if function not in mask_functions:
            raise ValueError(
                f"Autoregressive.masks[{name!r}]: {function!r} is not known here; pass it in `mask_functions`"
            )
    masks = {name: mask_functions[function] for name, function in fields["masks"]}
    parents = {name: tuple(names) for name, names in fields["parents"]}
    parts, named = parts_of(space), space["type"].endswith("Dict")
    # Topological order: a part has more parents than any of its parents.
    order = sorted(parts, key=lambda name: len(parents.get(name, ())))
    forms = {name: index_form(part, box_head, dtype) for name, part in parts.items()}
    flatten = {parent: flatten_of(forms[parent][0]) for names in parents.values() for parent in names}
    networks = {name: network(params[str(name)].get("network", {})) for name in parts if parents.get(name)}
    choices = {
        name: choice_of(form, box_head, params[str(name)]["head"], dtype, temperature)
        for name, (form, _) in forms.items()
    }

    def each(x: Array, mask: Any, rng: np.random.Generator | None) -> Any:
        actions: dict[Any, Any] = {}
        for name in order:
            row, y = None if mask is None else mask[name], x
            given = {parent: actions[parent] for parent in parents.get(name, ())}
            if given:
                flat = [flatten[parent](action) for parent, action in given.items()]
                y = networks[name](np.concatenate([x, *flat]).astype(dtype, copy=False))
            if name in masks:
                row = masks[name](row, given)
            choice = choices[name]
            actions[name] = choice.mode(y, row) if rng is None else choice.sample(y, row, rng)
        values = {name: forms[name][1](actions[name]) for name in parts}
        return values if named else tuple(values.values())

    return Choice(lambda x, mask: each(x, mask, None), each)
