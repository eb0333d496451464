"""Policies and graphs in C: compiled with checks of memory and of undefined behavior, and run on arrays."""

import math
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
from policy_core_adapters.exports import c_source
from policy_core_adapters.exports.c_source.helpers import text_of
from policy_core_adapters.exports.c_source.text import TYPES, Constants

COMPILER = shutil.which("cc")
FLAGS = ["-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic", "-Wdouble-promotion", "-Wconversion", "-Wshadow",
         "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]  # fmt: skip
HEAD = """
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

static void *taken(FILE *file, size_t size) {
    void *data = malloc(size ? size : 1);
    if (!data || (file && fread(data, 1, size, file) != size)) exit(3);
    return data;
}
"""


def call_of(name: str, inputs: Any, outputs: Any, arguments: list[str], state: str, reset: str) -> str:
    """A function that calls another one for all steps in a file; every array is one of its own."""
    lines = ["int32_t steps, step, first;", "if (fread(&steps, 4, 1, in) != 1) exit(3);", "(void)first;"]
    lines += [state, "for (step = 0; step < steps; ++step) {"]
    lines += [f"const {TYPES[x.dtype]} *{x.name} = taken(in, {_bytes(x)});" for x in inputs]
    lines += [f"{TYPES[x.dtype]} *{x.name} = taken(NULL, {_bytes(x)});" for x in outputs]
    lines += ["if (fread(&first, 4, 1, in) != 1) exit(3);", f"{name}({', '.join(arguments)});"]
    lines += [f"fwrite({x.name}, 1, {_bytes(x)}, out);" for x in outputs] + [reset]
    lines += [f"free((void *){x.name});" for x in (*inputs, *outputs)]
    body = "\n".join(f"    {line}" for line in [*lines, "}"] if line)
    return f"static void run_{name}(FILE *in, FILE *out) {{\n{body}\n}}\n"


def _bytes(x: Any) -> int:
    return math.prod(x.shape) * np.dtype(x.dtype).itemsize


def run(folder: Path, text: str, names: list[str], data: bytes, flags: tuple[str, ...] = ()) -> bytes:
    """What the program of a text writes; it calls the functions of these names in turn."""
    calls = "".join(f"    run_{name}(in, out);\n" for name in names)
    main = f"""
int main(void) {{
    FILE *in = fopen("in", "rb"), *out = fopen("out", "wb");
    if (!in || !out) return 3;
{calls}    fclose(in);
    return fclose(out) ? 3 : 0;
}}
"""
    (folder / "all.c").write_text(HEAD + text + main)
    (folder / "in").write_bytes(data)
    for command in ([str(COMPILER), *FLAGS, *flags, "all.c", "-o", "all", "-lm"], ["./all"]):
        result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr[:3000]
    return (folder / "out").read_bytes()


def split(data: bytes, layout: list[tuple[int, Any]]) -> list[dict[str, np.ndarray]]:
    """The outputs of each function: name to array with the steps in front."""
    results, at = [], 0
    for steps, arrays in layout:
        record = np.dtype([(x.name, x.dtype, x.shape) for x in arrays])
        found = np.frombuffer(data, record, steps, at)
        at += steps * record.itemsize
        results.append({x.name: found[x.name] for x in arrays})
    assert at == len(data)
    return results


def fed(inputs: Any, feeds: dict[str, np.ndarray], firsts: np.ndarray) -> bytes:
    """The inputs of all steps as `call_of` reads them."""
    rows = [
        np.ascontiguousarray(feeds[x.graph_name]).astype(x.dtype).reshape(len(firsts), -1) for x in inputs
    ]
    steps = [b"".join([*(row[i].tobytes() for row in rows), firsts[i].tobytes()]) for i in range(len(firsts))]
    return np.int32(len(firsts)).tobytes() + b"".join(steps)


def run_policies(
    folder: Path,
    cases: dict[str, tuple[Any, dict[str, np.ndarray], np.ndarray]],
    flags: tuple[str, ...] = (),
) -> dict[str, dict[str, np.ndarray]]:
    """What policies in C do.

    Args:
        folder: where to compile them, all in one.
        cases: name to the lowered policy, its inputs by step, and which steps are first ones.
        flags: more of them for the compiler; `P<number>` is the prefix of a policy.

    Returns:
        Outputs and states (`next_state/...`) by step.
    """
    text, data, layout = "", b"", []
    for i, (lowered, feeds, firsts) in enumerate(cases.values()):
        prefix = f"P{i}"
        source = c_source.write(lowered, prefix=prefix)
        (folder / f"{prefix}.h").write_text(source.header)
        text += source.source
        names = [
            x.name for x in (*source.inputs, *["first"] * bool(source.state), *source.outputs) if x != "first"
        ]
        if source.state:
            names = [
                "&state",
                *(x.name for x in source.inputs),
                "(int)first",
                *(x.name for x in source.outputs),
            ]
        writes = " ".join(f"fwrite(state.{x.name}, 1, {_bytes(x)}, out);" for x in source.state)
        start = f"{prefix}_state state; {prefix}_reset(&state);" if source.state else ""
        text += call_of(f"{prefix}_act", source.inputs, source.outputs, names, start, writes)
        states = [x._replace(name=f"next_{x.graph_name}") for x in source.state]
        layout.append((len(firsts), [*(x._replace(name=x.graph_name) for x in source.outputs), *states]))
        data += fed(source.inputs, feeds, firsts.astype(np.int32))
    found = split(run(folder, text, [f"P{i}_act" for i in range(len(cases))], data, flags), layout)
    return dict(zip(cases, found, strict=True))


def run_graphs(
    folder: Path, cases: dict[str, tuple[Any, dict[str, np.ndarray]]]
) -> dict[str, dict[str, np.ndarray]]:
    """What graphs in C compute; name to the graph and its inputs, one set after the other."""
    constants, helpers, text, data, layout = Constants("T"), set[str](), "", b"", []
    for i, (graph, feeds) in enumerate(cases.values()):
        inputs = [c_source.Argument(name, name, x.shape, x.dtype) for name, x in graph.inputs.items()]
        outputs = [c_source.Argument(name, name, x.shape, x.dtype) for name, x in graph.outputs.items()]
        address = {x.graph_name: x.name for x in (*inputs, *outputs)}
        body = c_source.function_of(graph, "T", constants, helpers, {}, address)
        parts = [f"const {TYPES[x.dtype]} *{x.name}" for x in inputs]
        parts += [f"{TYPES[x.dtype]} *{x.name}" for x in outputs]
        text += f"static void T{i}({', '.join(parts)}) {{\n{body.declarations}{body.statements}}}\n"
        text += call_of(f"T{i}", inputs, outputs, [x.name for x in (*inputs, *outputs)], "", "")
        count = len(next(iter(feeds.values())))
        data += fed(inputs, feeds, np.zeros(count, np.int32))
        layout.append((count, outputs))
    head = f"#define T_SCRATCH static\n{constants.text()}\n{text_of(helpers, 'T')}"
    found = split(run(folder, head + text, [f"T{i}" for i in range(len(cases))], data), layout)
    return dict(zip(cases, found, strict=True))
