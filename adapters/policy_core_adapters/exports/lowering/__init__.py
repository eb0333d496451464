"""From a policy file to the graph of what its `act` does.

    lowered = lower("walker.msgpack")
    outputs = evaluate(lowered.graph, {"observation": x, "state/shared": lowered.initial["state/shared"]})
    outputs["action"], outputs["next_state/shared"]

Inputs and outputs have the names of the parts of what `act` takes and returns:

- `observation`, `observation/KEY/...`: each part that the actor sees, in the dtype of its space
- `state/OWNER/...`: leaves of the state; the owner is `shared`, `actor` or `critic`
- `is_first`: bool, the state is that of the start of an episode
- `action_mask`, `action_mask/KEY/...`: bool, of a Discrete [n], of a MultiBinary, of each row of a
  MultiDiscrete (its number behind the path), or a joint one of a MultiDiscrete [*nvec]
- `noise`, `noise/KEY/...`: independent numbers from which the action is drawn
- `action`, `policy_action`, `value`, `log_prob`, `distribution/...`: what was asked for
- `next_state/OWNER/...`: the state to be given next
"""

import operator
import os
from collections.abc import Mapping
from typing import Any, NamedTuple

from policy_core_adapters.exports.graph import Graph
from policy_core_adapters.exports.lowering.context import Activation, Context, ExportError, MaskFunction
from policy_core_adapters.exports.lowering.policies import OUTPUTS, Request, lower_policy
from policy_core_adapters.numpy_runner.fields import check_fields
from policy_core_adapters.numpy_runner.file import Document, Row, array_of, params_of, read
from policy_core_adapters.numpy_runner.networks import Array

__all__ = ["ExportError", "Lowered", "lower"]


class Lowered(NamedTuple):
    """A policy as a graph, and what else a target keeps of its file."""

    graph: Graph
    initial: dict[str, Array]
    """Name of each input of the state to its value at the start of an episode."""
    noise: dict[str, str]
    """Name of each input of noise to "uniform" (from 0 on, below 1) or "normal"."""
    masks: dict[str, str]
    """Path of each part of the action that has masks to "rows" or "joint"."""
    config: Any
    """As in the file: `{"type": ..., "fields": ...}`."""
    fingerprint: str
    """Of the config, in hexadecimal digits."""
    self_test: dict[str, Array]
    """Path to array, the steps in front; empty if the file has none."""
    int8: bool
    """Whether kernels are kept in 8 bits."""


def lower(
    path: str | os.PathLike[str],
    *,
    member: tuple[int, ...] | int = (),
    outputs: tuple[str, ...] = ("action",),
    masks: Mapping[str, str] | str = "none",
    noise: bool = False,
    is_first: bool = False,
    int8: bool = False,
    activations: Mapping[str, Activation] | None = None,
    mask_functions: Mapping[str, MaskFunction] | None = None,
) -> Lowered:
    """The graph of what `act` does with the policy in a file.

    Args:
        path: the file.
        member: which one of a population.
        outputs: what the graph gives: "action" (the environment action), "policy_action", "value",
            "log_prob" of the policy action, "distribution" (its parameters). What none of them needs, such
            as the critic and what it alone sees, is not in the graph.
        masks: whether the discrete parts of an action have inputs for masks: "none"; "rows", as `act`
            takes them; "joint" for one mask over all combinations of a MultiDiscrete; or one for each, by
            its path ("" for the whole action, else "tool", "tool/0").
        noise: draw the action, from inputs of noise, instead of the mode.
        is_first: an input of that name resets the state of a memory.
        int8: keep kernels in 8 bits, a scale for each output.
        activations: functions that were registered by name where the policy was made, as
            `(graph, x) -> y`.
        mask_functions: likewise, as `(graph, mask or None, parents) -> mask or None`.

    Raises:
        ExportError: for what no export carries.
        ValueError: for a damaged file, or one that contradicts itself.
        OSError: if there is no such file.
    """
    if unknown := sorted(set(outputs) - set(OUTPUTS)):
        raise ExportError(f"outputs: got {unknown[0]!r}, expected some of {OUTPUTS}")
    layouts = [masks] if isinstance(masks, str) else list(masks.values())
    if not set(layouts) <= {"none", "rows", "joint"}:
        raise ExportError(f"masks: got {masks!r}, expected 'none', 'rows' or 'joint', or one by path")
    index = tuple(map(operator.index, member if isinstance(member, tuple) else (member,)))
    try:
        with open(path, "rb") as file:
            document = read(file, whole=not index)
            params = params_of(document, index)
            self_test = {row.path: _of_member(document, row, index) for row in document.self_test}
        check_fields(document.config)
        context = Context(
            activations=activations or {},
            mask_functions=mask_functions or {},
            masks=masks,
            noise=noise,
            int8=int8,
        )
        request = Request(outputs, is_first)
        lower_policy(context, document.config, params, request)
    except (ArithmeticError, AttributeError, LookupError, MemoryError, RecursionError, TypeError) as error:
        raise ValueError(f"the file contradicts itself: {error!r}") from error
    _check_unused(params.unused, "value" in outputs)
    if isinstance(masks, Mapping) and (unknown := sorted(set(masks) - set(context.masked))):
        raise ExportError(f"masks: {unknown[0]!r} is no discrete part of the action")
    graph = context.graph.pruned()
    initial = {name: start for name, start in request.initial.items() if name in graph.inputs}
    return Lowered(
        graph,
        initial,
        context.noises,
        context.masked,
        document.config,
        document.fingerprint,
        self_test,
        int8,
    )


def _of_member(document: Document, row: Row, member: tuple[int, ...]) -> Array:
    """A row of the self-test: the observations have no axes of members."""
    return array_of(document.content, row, () if row.path.startswith("observation") else member)


def _check_unused(unused: Mapping[str, str], valued: bool) -> None:
    """Raise ValueError for a leaf that is none of the config's params, as far as they were needed."""
    for path in unused:
        if valued or not path.startswith(("critic/", "normalize/")):
            raise ValueError(f"leaves: there is a leaf {path!r}, which is none of the config's params")
