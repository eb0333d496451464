"""Actions as graphs whose parts depend on other parts: parents first."""

from typing import Any

import numpy as np

from policy_core_adapters.exports.graph import Value
from policy_core_adapters.exports.lowering.choices import choose, together
from policy_core_adapters.exports.lowering.context import ExportError, only, under, unsupported
from policy_core_adapters.exports.lowering.networks import network
from policy_core_adapters.exports.lowering.observations import flatten
from policy_core_adapters.exports.lowering.parts import Chosen, Head
from policy_core_adapters.numpy_runner.heads import index_form
from policy_core_adapters.numpy_runner.networks import few
from policy_core_adapters.numpy_runner.spaces import flat_size_of, kind_of, parts_of


def dependent(head: Head, config: Any) -> Chosen:
    """The action of a `Dict` or `Tuple` under `Autoregressive`."""
    if config["type"] != "policy_core/Autoregressive":
        unsupported("autoregressive", config["type"])
    c, fields = head.context, config["fields"]
    only(fields, "Autoregressive", "parents", "network", "masks")
    for name, function in fields["masks"]:
        if function not in c.mask_functions:
            raise ExportError(
                f"Autoregressive.masks[{name!r}]: {function!r} is a function that was registered where the "
                "policy was made; give it in `mask_functions` as (graph, mask or None, parents) -> mask"
            )
    functions = {name: c.mask_functions[function] for name, function in fields["masks"]}
    parents = {name: tuple(seen) for name, seen in fields["parents"]}
    parts = parts_of(head.space)
    few(flat_size_of(head.space, one_hot=False), "Autoregressive: the numbers of an action", 2**14)
    few(len(parts), "Autoregressive: the parts of an action", 256)
    few(max(map(len, parents.values()), default=0), "Autoregressive: the parents of a part", 32)
    by_part = head.heads.named(head.space)
    forms = {name: index_form(part, by_part[name], np.float32) for name, part in parts.items()}
    chosen: dict[Any, Chosen] = {}
    # A part has more parents than any of them.
    for name in sorted(parts, key=lambda name: len(parents.get(name, ()))):
        seen = {parent: chosen[parent].policy for parent in parents.get(name, ())}
        params, features = head.params[str(name)], head.features
        if seen:
            flat = [y for parent, action in seen.items() for y in flatten(c, forms[parent][0], action)]
            features = network(c, fields["network"], params.get("network", {}), c.join([features, *flat]))
        part = head._replace(
            space=parts[name],
            heads=by_part[name],
            params=params["head"],
            features=features,
            path=under(head.path, str(name)),
        )
        if name in functions:
            part = part._replace(mask=_mask(part, functions[name], seen))
        chosen[name] = choose(part)
    return together(c, {name: chosen[name] for name in parts})


def _mask(part: Head, function: Any, seen: dict[Any, Value]) -> Value | None:
    """What a mask function gives for a part."""
    c, kind = part.context, kind_of(part.space)
    if kind not in ("Discrete", "MultiBinary"):
        raise ExportError(
            f"Autoregressive.masks[{part.path!r}]: a mask function of a {kind} is carried by no export, "
            "which have those of Discrete and MultiBinary; act with JAX or policy_core_adapters.numpy_runner"
        )
    shape = (part.space["fields"]["n"],) if kind == "Discrete" else tuple(part.space["fields"]["shape"])
    own = c.mask(part.path, shape) if c.mask_layout(part.path) != "none" else None
    mask: Value | None = function(c.graph, own, seen)
    if mask is not None and (mask.shape, mask.dtype) != (shape, "bool"):
        raise ExportError(
            f"mask_functions: got {mask.dtype}{mask.shape} for {part.path!r}, expected bool{shape}"
        )
    return mask
