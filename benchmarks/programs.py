"""What the programs of `benchmarks/floor.py` consist of, which says how they will run where nothing is timed.

    python -m benchmarks.programs --record

writes `benchmarks/programs.json`: for each row and task of ours, the StableHLO operations by kind, as lowered
for CUDA and for TPU; and the kernels of the optimized program on a CPU: fusions, products, reductions, sorts,
loops, and what stands by itself. Operations of a function count as often as it is called, those of a loop
once. `floor` has the sums of the hand-written program, for comparison. `tests/test_portability.py` and
`tests/test_kernels.py` fail where a number has grown.
"""

import argparse
import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
from jax.extend.mlir import ir

from benchmarks import floor

RECORDED = Path(__file__).with_name("programs.json")
AGAIN = "if it has to be, record anew with `python -m benchmarks.programs --record`"
PLATFORMS = ("cuda", "tpu")
TASKS = ("act, 1", "draw 64", "gradient 64", "population 32 x 16")
"""One size of each kind; what is larger has no other operations, which `tests/test_portability.py` holds."""

# How a program talks to its host: callbacks are custom calls on a GPU and sends on a TPU.
HOST = {"custom_call", "send", "recv", "infeed", "outfeed"}
# Those that are kernels of the device: the Threefry of `jax.random`, where jaxlib comes with CUDA.
ON_DEVICE = {"cu_threefry2x32_ffi"}
WIDE = ("f64", "i64", "ui64", "complex<f64>")
KERNELS = ("convolution", "dot_general", "gather", "reduce", "reduce_window", "scatter", "sort", "while")
"""Kinds of StableHLO that a compiler does not fuse away; of the others their sum counts."""

Counts = dict[str, int]


class Operations(NamedTuple):
    """What a lowered program has in it."""

    kinds: Counts
    """How many of each kind, without constants and calls."""
    wide: set[tuple[str, str]]
    """`(kind, element type)` of results of 64 bits a number."""
    host: list[str]
    """Targets of custom calls that are not `ON_DEVICE`, and other ways to the host."""


def shapes(row: floor.Row, task: str) -> tuple[dict[str, Any], Any]:
    """The jitted functions of a task and the shapes of their arguments; nothing runs."""
    both: dict[str, Any] = {}

    def arguments() -> Any:
        functions, found = floor.contestants(row, task)
        both.update(functions)
        return found

    found = jax.eval_shape(arguments)
    return {name: jax.jit(function) for name, function in both.items()}, found


def programs(tasks: tuple[str, ...] = TASKS) -> Iterator[tuple[str, str, Any, Any]]:
    """Row, task, and the traced programs of ours and of the floor."""
    for name, row in floor.ROWS.items():
        for task in tasks:
            both, arguments = shapes(row, task)
            yield name, task, both["ours"].trace(*arguments), both["floor"].trace(*arguments)


# STABLEHLO ---------------------------------------------------------------------------------------


def operations(traced: Any, platform: str) -> Operations:
    """Of a traced function (`jax.jit(f).trace(...)`), as lowered for a platform that need not be here."""
    module = traced.lower(lowering_platforms=(platform,)).compiler_ir("stablehlo")
    wide: set[tuple[str, str]] = set()
    host: list[str] = []
    own: dict[str, Counts] = {}
    calls: dict[str, Counts] = {}
    for function in module.body.operations:
        name = ir.StringAttr(function.attributes["sym_name"]).value
        own[name], calls[name] = Counter(), Counter()

        def visit(operation: Any, name: str = name) -> Any:
            kind = operation.name.removeprefix("stablehlo.")
            if kind == "func.call":
                calls[name][ir.FlatSymbolRefAttr(operation.attributes["callee"]).value] += 1
            elif kind not in ("func.func", "func.return", "return", "constant"):
                own[name][kind] += 1
            if kind in HOST:
                target = operation.attributes["call_target_name"] if kind == "custom_call" else None
                text = kind if target is None else ir.StringAttr(target).value
                host.extend(() if text in ON_DEVICE else (text,))
            for result in operation.results:
                element = str(getattr(result.type, "element_type", result.type))
                if element in WIDE:
                    wide.add((kind, element))
            return ir.WalkResult.ADVANCE

        function.operation.walk(visit)

    def total(name: str) -> Counter[str]:
        found = Counter(own[name])
        for callee, times in calls[name].items():
            for kind, count in total(callee).items():
                found[kind] += times * count
        return found

    return Operations(dict(sorted(total("main").items())), wide, host)


def grown(recorded: Counts, found: Counts) -> list[str]:
    """What a program has more of: operations in all, or those of a kind that is a kernel of its own."""
    kinds = [kind for kind in KERNELS if found.get(kind, 0) > recorded.get(kind, 0)]
    lines = [f"{kind}: {recorded.get(kind, 0)} before, {found[kind]} now" for kind in kinds]
    before, now = sum(recorded.values()), sum(found.values())
    if now > before:
        more = {kind: found[kind] - recorded.get(kind, 0) for kind in found}
        kinds = [f"{kind} +{n}" for kind, n in more.items() if n > 0]
        lines.append(f"operations: {before} before, {now} now ({', '.join(kinds)})")
    return lines


# COMPILED ----------------------------------------------------------------------------------------

_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) .*\{$")
# `%name = type opcode(...)`; a type is `f32[3]{0}` or a tuple of types, which may hold `/*index=5*/`.
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?[\w.\-]+ = (?:\((?:[^()]|\([^()]*\))*\)|\S+) ([\w\-]+)\(")
_CALLED = re.compile(r"(?:to_apply|body|condition|true_computation|false_computation)=%?([\w.\-]+)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_FREE = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "call", "after-all"}
_NAMED = {"fusion", "dot", "reduce", "sort", "while", "convolution", "custom-call"}


def kernels(text: str) -> Counts:
    """Kernels of an optimized HLO module: what is named, and `other` for what is not in a fusion."""
    computations: dict[str, list[str]] = {}
    entry = current = ""
    for line in text.splitlines():
        if found := _COMPUTATION.match(line):
            current = found[2]
            entry = current if found[1] else entry
            computations[current] = []
        elif current:
            computations[current].append(line)
    if not entry:
        raise ValueError("got a text without an ENTRY computation, expected that of an HLO module")

    def count(name: str) -> Counter[str]:
        total: Counter[str] = Counter()
        for line in computations[name]:
            if not (found := _INSTRUCTION.match(line)):
                continue
            if (opcode := found[1]) not in _FREE:
                total[opcode if opcode in _NAMED else "other"] += 1
            if opcode in ("call", "while", "conditional"):
                names = _CALLED.findall(line)
                if branches := _BRANCHES.search(line):
                    names += [name.strip().lstrip("%") for name in branches[1].split(",")]
                for callee in names:
                    total += count(callee)
        return total

    return dict(sorted(count(entry).items()))


def recorded(row: str, task: str, platform: str) -> Counts | None:
    """What `programs.json` has for a platform; of a task of another size, what it has for its kind.

    None if it was recorded with another jax, which lowers and fuses in another way.
    """
    data = json.loads(RECORDED.read_text())
    if data["jax"] != jax.__version__:
        return None
    kind = task.split()[0]
    entry = next(found for name, found in data["rows"][row].items() if name.split()[0] == kind)
    counts: Counts = next(found for name, found in entry.items() if platform in name.split(", "))
    return counts


def record() -> dict[str, Any]:
    """The content of `programs.json`."""
    rows: dict[str, Any] = {}
    for name, task, ours, floors in programs():
        cuda, tpu = (operations(ours, platform).kinds for platform in PLATFORMS)
        rows.setdefault(name, {})[task] = {
            **({"cuda, tpu": cuda} if cuda == tpu else {"cuda": cuda, "tpu": tpu}),
            "cpu": kernels(ours.lower().compile().as_text()),
            "floor": {
                "cuda": sum(operations(floors, "cuda").kinds.values()),
                "cpu": sum(kernels(floors.lower().compile().as_text()).values()),
            },
        }
    return {"jax": jax.__version__, "rows": rows}


def written(recorded: dict[str, Any]) -> str:
    """As JSON with a line for each platform of a task, which a diff can show."""

    def entries(data: dict[str, Any], depth: int) -> str:
        pad = "  " * (4 - depth)
        if depth == 0 or not isinstance(data, dict):
            return json.dumps(data)
        inner = ",\n".join(
            f"{pad}{json.dumps(key)}: {entries(value, depth - 1)}" for key, value in data.items()
        )
        return f"{{\n{inner}\n{pad[:-2]}}}"

    rows = entries(recorded["rows"], 3)
    return f'{{\n"jax": {json.dumps(recorded["jax"])},\n"rows": {rows}\n}}\n'


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--record", action="store_true", help=f"write {RECORDED.name}; otherwise print it")
    options = parser.parse_args()
    text = written(record())
    if options.record:
        RECORDED.write_text(text)
    else:
        print(text, end="")


if __name__ == "__main__":
    main()
