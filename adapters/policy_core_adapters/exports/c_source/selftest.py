"""The self-test of a file as a program in C."""

import math
from typing import Any

import numpy as np

from policy_core_adapters.exports.c_source.text import TYPES, constant, literal
from policy_core_adapters.exports.graph import evaluate
from policy_core_adapters.exports.lowering import Lowered

_SAVED = {"action": "env_action", "policy_action": "action", "value": "value", "log_prob": "log_prob"}

_OFF = """/* Relative to max(1, |wanted|); infinite if one is no number and the other is not the same. */
static float P_off(float got, float wanted) {
    const float size = fabsf(wanted) > 1.0f ? fabsf(wanted) : 1.0f, off = fabsf(got - wanted) / size;
    if (got == wanted || (got != got && wanted != wanted)) return 0.0f;
    return off == off ? off : INFINITY;
}

"""


def main_of(lowered: Lowered, prefix: str, state: Any, inputs: Any, outputs: Any, tolerance: float) -> str:
    """The program, to be compiled under a macro; nothing if the file has no self-test."""
    count = len(lowered.self_test.get("entropy", ()))
    if not count:
        return ""
    feeds, wanted = cases_of(lowered, count)
    compared = [x for x in outputs if x.graph_name in wanted]
    tables = "".join(
        constant(f"{prefix}_test_{x.name}", feeds[x.graph_name].astype(x.dtype)) for x in inputs
    ) + "".join(constant(f"{prefix}_wanted_{x.name}", wanted[x.graph_name].astype(x.dtype)) for x in compared)
    arguments = ["&state"] if state else []
    arguments += [f"{prefix}_test_{x.name} + STEP * {math.prod(x.shape)}" for x in inputs]
    arguments += ["0"] if state else []
    arguments += [x.name for x in outputs]
    call = f"{prefix}_act({', '.join(arguments)});"
    lines = [
        *(f"static {TYPES[x.dtype]} {x.name}[{max(math.prod(x.shape), 1)}];" for x in outputs),
        *([f"{prefix}_state state;"] if state else []),
        "float worst = 0.0f, off;",
        "int32_t step, i;",
        *([f"{prefix}_reset(&state);"] if state else []),
        f"for (step = 0; step < {count}; ++step) {{",
        f"    {call.replace('STEP', 'step')}",
    ]
    for x in compared:
        size = math.prod(x.shape)
        lines += [f"    for (i = 0; i < {size}; ++i) {{"]
        at = f"{prefix}_wanted_{x.name}[step * {size} + i]"
        if x.dtype == "float32":
            lines += [f"        off = {prefix}_off({x.name}[i], {at});"]
        else:
            lines += [f"        off = {x.name}[i] == {at} ? 0.0f : INFINITY;"]
        lines += ["        worst = off > worst ? off : worst;", "    }"]
    lines += [
        "}",
        'printf("largest deviation %.3g, at most %.3g is allowed, over %d observations\\n", (double)worst,',
        f"       {tolerance:.9g}, {count});",
        f"#ifdef {prefix.upper()}_BENCHMARK",
        "{",
        "    long calls = 0, more;",
        "    const clock_t start = clock();",
        "    do {",
        f"        for (more = 0; more < 100; ++more) {call.replace('STEP', f'(more % {count})')}",
        "        calls += more;",
        "    } while (clock() - start < CLOCKS_PER_SEC / 5);",
        '    printf("%.3f us a call\\n", 1e6 * (double)(clock() - start) / CLOCKS_PER_SEC / (double)calls);',
        "}",
        "#endif",
        f"return worst <= {literal(np.float32(tolerance))} ? 0 : 1;",
    ]
    body = "".join(line + "\n" if line.startswith("#") else f"    {line}\n" for line in lines)
    macro = f"{prefix.upper()}_SELF_TEST"
    return f"""
#ifdef {macro}
#include <stdio.h>
#include <time.h>

{tables}
{_OFF.replace("P_", f"{prefix}_") if any(x.dtype == "float32" for x in compared) else ""}int main(void) {{
{body}}}
#endif
"""


def cases_of(lowered: Lowered, count: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """The inputs of each step but the state, and the outputs wanted, by the names of the graph.

    They are those of the file. What the file has not, since an action is drawn there from no noise and its
    weights have no 8 bits, is computed by NumPy.
    """
    rng, saved, graph = np.random.default_rng(0), lowered.self_test, lowered.graph
    feeds = {}
    for name, value in graph.inputs.items():
        if name in saved:
            feeds[name] = np.asarray(saved[name]).astype(value.dtype)
        elif name in lowered.noise:
            draw = rng.random if lowered.noise[name] == "uniform" else rng.standard_normal
            feeds[name] = draw((count, *value.shape)).astype(np.float32)
        elif name not in lowered.initial:
            feeds[name] = np.ones((count, *value.shape), value.dtype)  # masks: all is allowed
    exact = not lowered.noise and not any(node.op == "dequantize" for node in graph.nodes)
    wanted: dict[str, list[Any]] = {}
    state = {name: x[None] for name, x in lowered.initial.items()}
    for i in range(count):
        got = evaluate(graph, {**{name: x[i : i + 1] for name, x in feeds.items()}, **state})
        state = {name: got.get(f"next_{name}", x) for name, x in state.items()}
        for name, x in got.items():
            wanted.setdefault(name, []).append(x)
    result = {
        name: np.concatenate(rows) for name, rows in wanted.items() if not name.startswith("next_state")
    }
    for name in result if exact else ():
        root, _, rest = name.partition("/")
        path = "/".join([_SAVED.get(root, root), *([rest] if rest else [])])
        if path in saved:
            result[name] = np.asarray(saved[path])
    return feeds, result
