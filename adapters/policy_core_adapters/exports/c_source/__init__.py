"""A policy as C99: one source and its header, which need nothing but a compiler and expf, logf and sqrtf.

    written = write(lower("walker.msgpack"), prefix="walker")
    Path("walker.h").write_text(written.header)
    Path("walker.c").write_text(written.source)

Nothing is allocated; the weights are constants, and what is computed in between lies in static buffers, or
on the stack where the source is compiled with `-DWALKER_SCRATCH=` (then calls from several threads are
safe). With `-DWALKER_SELF_TEST` the source is a program that replays the self-test of the file, and with
`-DWALKER_BENCHMARK` also says how long a call takes.

plan      what is computed when, and where it lies
code      operations as statements
helpers   the functions that those call
text      numbers, arrays and indices
"""

import math
import re
from typing import NamedTuple

import numpy as np

from policy_core_adapters.exports.c_source.code import Code
from policy_core_adapters.exports.c_source.helpers import text_of
from policy_core_adapters.exports.c_source.plan import BUFFERS, plan_of
from policy_core_adapters.exports.c_source.selftest import main_of
from policy_core_adapters.exports.c_source.text import TYPES, Constants, constant
from policy_core_adapters.exports.graph import Graph, Value
from policy_core_adapters.exports.lowering import ExportError, Lowered

__all__ = ["Argument", "Source", "write"]


class Argument(NamedTuple):
    """An array that `act` takes or gives.

    Args:
        graph_name: of the input or output of the graph, such as `observation/x`.
        name: in C.
        shape, dtype: in C order; a bool is a `uint8_t`.
    """

    graph_name: str
    name: str
    shape: tuple[int, ...]
    dtype: str


class Source(NamedTuple):
    """The text of a policy in C.

    Args:
        header, source: of `<prefix>.h` and `<prefix>.c`.
        inputs, outputs: of `act`, in this order, between the state and `is_first`, and behind it.
        state: the members of the struct.
        ram: bytes of the state and the buffers.
        flash: bytes of the constants.
        self_test: the number of observations of the self-test; 0 if the file has none.
    """

    header: str
    source: str
    inputs: tuple[Argument, ...]
    outputs: tuple[Argument, ...]
    state: tuple[Argument, ...]
    ram: int
    flash: int
    self_test: int


_PREFIX = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,40}\Z")


def write(lowered: Lowered, *, prefix: str = "policy", tolerance: float = 1e-4) -> Source:
    """The graph of a policy as C.

    Args:
        lowered: by `lower(path, ...)`, without `is_first=True`: in C it is an argument in any case.
        prefix: of every name; a letter and then at most 40 letters, digits and underscores.
        tolerance: of the self-test, relative to max(1, |saved|).

    Raises:
        ExportError: for another prefix, or an input `is_first`.
    """
    if not _PREFIX.match(prefix):
        raise ExportError(f"prefix: got {prefix!r}, expected a letter, then up to 40 letters, digits and _")
    graph = lowered.graph
    if "is_first" in graph.inputs:
        raise ExportError("is_first: C has it in any case, as an argument; lower without is_first=True")
    state = _arguments({name: x for name, x in graph.inputs.items() if name in lowered.initial}, "state/")
    taken = {name: x for name, x in graph.inputs.items() if name not in lowered.initial}
    held = {f"next_{argument.graph_name}": argument.graph_name for argument in state}
    # A state that does not change is no state; one that is not read is none, either.
    given = {name: x for name, x in graph.outputs.items() if not name.startswith("next_state")}
    both = _arguments({**taken, **given})
    inputs, outputs = both[: len(taken)], both[len(taken) :]
    address = {x.graph_name: x.name for x in (*inputs, *outputs)}
    address |= {x.graph_name: f"state->{x.name}" for x in state}
    address |= {name: address[old] for name, old in held.items()}
    constants, helpers = Constants(prefix), set[str]()
    kept = Graph(
        graph.inputs, {k: v for k, v in graph.outputs.items() if k in address}, graph.constants, graph.nodes
    )
    body = function_of(kept.pruned(), prefix, constants, helpers, held, address)
    signature = _signature(prefix, state, inputs, outputs)
    reset = _reset(prefix, lowered, state) if state else ("", "")
    first = f"    if (is_first) {prefix}_reset(state);\n" if state else ""
    main = main_of(lowered, prefix, state, inputs, outputs, tolerance)
    source = (
        f'#include "{prefix}.h"\n\n#include <math.h>\n#include <stddef.h>\n\n'
        f"#ifndef {prefix.upper()}_SCRATCH\n#define {prefix.upper()}_SCRATCH static\n#endif\n\n"
        f"{constants.text()}\n{text_of(helpers, prefix)}\n{reset[1]}"
        f"{signature} {{\n{body.declarations}{first}{body.statements}}}\n{main}"
    )
    ram = body.scratch + sum(_bytes(x) for x in state)
    flash = sum(array.nbytes for _, array in constants.arrays.values()) + sum(
        lowered.initial[x.graph_name].nbytes for x in state
    )
    header = _header(lowered, prefix, state, inputs, outputs, f"{reset[0]}{signature};\n")
    count = len(lowered.self_test["entropy"]) if main else 0
    return Source(header, source, inputs, outputs, state, ram, flash, count)


class Body(NamedTuple):
    """The inside of a function, and the bytes of its buffers."""

    declarations: str
    statements: str
    scratch: int


def function_of(
    graph: Graph,
    prefix: str,
    constants: Constants,
    helpers: set[str],
    held: dict[str, str],
    address: dict[str, str],
) -> Body:
    """A graph as the inside of a function.

    Args:
        graph: without what no output needs.
        prefix: of names.
        constants, helpers: of the source; what is needed is added.
        held, address: as in `plan_of`.
    """
    plan = plan_of(graph, held, address)
    code = Code(graph, plan, constants, prefix)
    code.write()
    for name, value in plan.copies:
        code.copy(address[name], (1,), value, 0, (1,), (math.prod(value.shape),))
    helpers |= code.helpers
    lines, scratch = [], 0
    if code.axes:
        lines.append(f"int32_t {', '.join(f'i{i}' for i in range(code.axes))};")
    for dtype, size in plan.buffers.items():
        if re.search(rf"\b{BUFFERS[dtype]}\b", "\n".join(code.lines)):
            lines.append(f"{prefix.upper()}_SCRATCH {TYPES[dtype]} {BUFFERS[dtype]}[{max(size, 1)}];")
            scratch += max(size, 1) * np.dtype(dtype).itemsize
    lines += [f"(void){name};" for name in _unused(address, code.lines)]
    declarations = "".join(f"    {line}\n" for line in lines)
    return Body(declarations, "".join(f"    {line}\n" for line in code.lines), scratch)


def _unused(address: dict[str, str], lines: list[str]) -> list[str]:
    text = "\n".join(lines)
    names = {base for base in address.values() if base.isidentifier()}
    return sorted(name for name in names if not re.search(rf"\b{name}\b", text))


def _arguments(values: dict[str, Value], without: str = "") -> tuple[Argument, ...]:
    """Names of a graph as names in C, each once."""
    arguments: dict[str, Argument] = {}
    for graph_name, value in values.items():
        base = name = re.sub(r"[^A-Za-z0-9_]", "_", graph_name.removeprefix(without))
        count = 1
        while name in arguments:
            count += 1
            name = f"{base}_{count}"
        arguments[name] = Argument(graph_name, name, value.shape, value.dtype)
    return tuple(arguments.values())


def _bytes(argument: Argument) -> int:
    return math.prod(argument.shape) * np.dtype(argument.dtype).itemsize


def _signature(
    prefix: str, state: tuple[Argument, ...], inputs: tuple[Argument, ...], outputs: tuple[Argument, ...]
) -> str:
    parts = [f"{prefix}_state *state"] if state else []
    parts += [f"const {TYPES[x.dtype]} *{x.name}" for x in inputs]
    parts += ["int is_first"] if state else []
    parts += [f"{TYPES[x.dtype]} *{x.name}" for x in outputs]
    return f"void {prefix}_act({', '.join(parts)})"


def _reset(prefix: str, lowered: Lowered, state: tuple[Argument, ...]) -> tuple[str, str]:
    """The declarations of the state and its reset, and the function."""
    members = "".join(f"    {TYPES[x.dtype]} {x.name}[{max(math.prod(x.shape), 1)}];\n" for x in state)
    head = f"void {prefix}_reset({prefix}_state *state)"
    starts, lines = "", ["int32_t i;"]
    for x in state:
        array = lowered.initial[x.graph_name]
        entry = "0" if array.dtype.kind != "f" else "0.0f"
        if array.any():
            starts += constant(f"{prefix}_start_{x.name}", array)
            entry = f"{prefix}_start_{x.name}[i]"
        lines.append(f"for (i = 0; i < {array.size}; ++i) state->{x.name}[i] = {entry};")
    body = "".join(f"    {line}\n" for line in lines)
    declared = f"typedef struct {{\n{members}}} {prefix}_state;\n\n{head};\n"
    return declared, f"{starts}{head} {{\n{body}}}\n\n"


def _header(
    lowered: Lowered,
    prefix: str,
    state: tuple[Argument, ...],
    inputs: tuple[Argument, ...],
    outputs: tuple[Argument, ...],
    declarations: str,
) -> str:
    upper = prefix.upper()
    sizes = "".join(
        f"#define {upper}_{x.name.upper()}_SIZE {math.prod(x.shape)}\n" for x in (*inputs, *outputs)
    )
    lines = [
        f"{x.name}: {TYPES[x.dtype]} {list(x.shape) or [1]}{_meaning(x, lowered)}"
        for x in (*inputs, *outputs)
    ]
    if state:
        lines.append(
            f"is_first: not 0 at the first step of an episode, where the state is that of {prefix}_reset"
        )
    about = "".join(f" *   {line}\n" for line in lines)
    return (
        f"/* {prefix}_act: what the policy of the fingerprint\n * {lowered.fingerprint} does.\n *\n"
        f" * Arrays are in C order and must not overlap:\n{about} */\n"
        f"#ifndef {upper}_H\n#define {upper}_H\n\n#include <stdint.h>\n\n{sizes}\n"
        f'#ifdef __cplusplus\nextern "C" {{\n#endif\n\n{declarations}\n'
        "#ifdef __cplusplus\n}\n#endif\n\n#endif\n"
    )


def _meaning(argument: Argument, lowered: Lowered) -> str:
    name, root = argument.graph_name, argument.graph_name.split("/")[0]
    if name in lowered.noise:
        steps = lowered.kept.get(name, 1)
        kept = "an episode" if steps is None else f"{steps} steps"
        again = "" if steps == 1 else f", the same ones for {kept}"
        return f", independent random numbers, {_NOISE[lowered.noise[name]]}{again}"
    return _MEANINGS.get(root, "")


_NOISE = {"uniform": "uniform from 0 on and below 1", "normal": "normal with mean 0 and variance 1"}
_MEANINGS = {
    "action_mask": ", not 0 where allowed",
    "action": ", for the environment",
    "value": ", the expected return",
    "log_prob": ", of the action (nats)",
}
