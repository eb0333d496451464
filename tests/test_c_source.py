"""Policies in C act as they do in JAX; each operation is what it is in NumPy."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import cases
import jax
import numpy as np
import pytest
from compiled import COMPILER, FLAGS, run_graphs, run_policies
from exported import (
    ALL,
    CONFIGS,
    COUNT,
    FULL,
    MASKS,
    WITH_MEMORY,
    WITH_TIES,
    check_close,
    compare,
    install_command,
    named,
    policy_of,
    saved,
    steps_of,
)
from policy_core_adapters.exports import c_source
from policy_core_adapters.exports.graph import Graph, evaluate
from policy_core_adapters.exports.lowering import ExportError, lower
from policy_core_adapters.exports.ops import OPS
from policy_core_adapters.exports.quantize import quantized
from policy_core_adapters.exports.targets import export

import policy_core as pc
from policy_core.__main__ import main

pytestmark = [
    pytest.mark.usefixtures("unchecked"),
    pytest.mark.skipif(COMPILER is None, reason="there is no C compiler `cc`"),
]

# OPERATIONS ------------------------------------------------------------------------------------

RNG = np.random.default_rng(0)
FLOATS = [0.0, -0.0, 1e-45, -1e-39, 1e-8, -1e-4, 0.3, -0.7, 1.0, 5.5, -20.0, 90.0, -110.0, 3e38, -3e38]
ODD = [*FLOATS, np.inf, -np.inf, np.nan]
INTS = [0, 1, -1, 2, 7, -9, 2**31 - 1, -(2**31), 2**30, -(2**30)]
SETS = 5


def floats(*shape: int) -> np.ndarray:
    return RNG.standard_normal((SETS, *shape)).astype(np.float32)


def pairs(values: list[Any], dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """All pairs, as one set."""
    x, y = np.meshgrid(np.array(values, dtype), np.array(values, dtype))
    return x.reshape(1, -1), y.reshape(1, -1)


def some(*shape: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def ints(low: int, high: int, *shape: int) -> np.ndarray:
    return RNG.integers(low, high, (SETS, *shape)).astype(np.int32)


UNARY = ["neg", "abs", "exp", "log", "log1p", "expm1", "sqrt", "tanh", "sigmoid", "softplus", "relu", "leaky_relu",
         "elu", "selu", "gelu", "silu"]  # fmt: skip
ROWS = ("softmax", "log_softmax", "cumsum")
# Name of a case to the operation, its operands (an array with sets in front is an input), and attributes;
# what is in a tuple of one is a constant.
CASES: dict[str, tuple[str, list[Any], dict[str, Any]]] = {
    **{name: (name, [np.concatenate([[*ODD, *(8 * some(30))]]).astype(np.float32)[None]], {}) for name in UNARY},
    "not": ("not", [np.array([[True, False]])], {}),
    **{name: (name, [*pairs(ODD, "float32")], {}) for name in ("add", "sub", "mul", "div")},
    **{f"{name} of int32": (name, [*pairs(INTS, "int32")], {}) for name in ("add", "sub", "mul")},
    **{name: (name, [*pairs(ODD[:-1], "float32")], {}) for name in ("minimum", "maximum")},
    **{f"{name} of int32": (name, [*pairs(INTS, "int32")], {}) for name in ("minimum", "maximum")},
    **{name: (name, [*pairs(ODD, "float32")], {}) for name in ("less", "less_equal", "equal")},
    **{f"{name} of int32": (name, [*pairs(INTS, "int32")], {}) for name in ("less", "less_equal", "equal")},
    **{
        f"{name} of bools": (name, [*pairs([True, False], "bool")], {}) for name in ("and", "or", "equal")
    },
    "floordiv": ("floordiv", [np.array([INTS], np.int32).clip(0), (np.int32(3),)], {}),
    "mod": ("mod", [np.array([INTS], np.int32), (np.array([3], np.int32),)], {}),
    "mod of many": ("mod", [ints(-99, 99, 4, 3), (np.array([3, 1, 2**31 - 1], np.int32),)], {}),
    "broadcast sides": ("add", [floats(3, 1), floats(1, 4)], {}),
    "broadcast twice": ("mul", [floats(2, 1, 3, 1), floats(1, 4, 3, 5)], {}),
    "broadcast a constant": ("sub", [floats(2, 3), (some(3),)], {}),
    "a scalar constant": ("sub", [(np.float32(-1.5),), floats(2, 3)], {}),
    "rank 0": ("add", [floats(), floats()], {}),
    "where": ("where", [RNG.random((SETS, 3, 1)) < 0.5, floats(3, 2), (some(2),)], {}),
    "where, not a number": ("where", [np.array([[True, False]]), np.array([[1, np.nan]], np.float32), (np.float32(2),)], {}),
    "where of int32": ("where", [RNG.random((SETS, 3)) < 0.5, ints(-9, 9, 3), ints(-9, 9, 3)], {}),
    **{
        f"cast to {dtype}": ("cast", [np.array([[0, 1, 100.0, 127]], np.float32)], {"dtype": dtype})
        for dtype in ("int8", "int16", "int32", "uint8", "uint16", "uint32", "bool", "float32")
    },
    **{
        f"cast from {dtype}": ("cast", [np.array([[0, 1, 3, 120]]).astype(dtype)], {"dtype": "float32"})
        for dtype in ("int8", "int16", "int32", "uint8", "uint16", "uint32", "bool")
    },
    "cast to int32 of the largest": ("cast", [np.array([[-(2.0**31), 2.0**31 - 128]], np.float32)], {"dtype": "int32"}),
    "cast to uint32 of the largest": ("cast", [np.array([[0, 2.0**32 - 256]], np.float32)], {"dtype": "uint32"}),
    "linear": ("linear", [floats(5), (some(5, 19),), (some(19),)], {}),
    "linear of rows": ("linear", [floats(2, 3, 4), (some(4, 8),)], {}),
    "linear of one": ("linear", [floats(1), (some(1, 1),), (some(1),)], {}),
    "matmul": ("matmul", [floats(2, 3, 4), floats(2, 4, 5)], {}),
    "matmul of two": ("matmul", [floats(3, 1), floats(1, 2)], {}),
    "layer_norm": ("layer_norm", [floats(2, 7), (some(7),), (some(7, seed=2),)], {"epsilon": 1e-5}),
    "layer_norm without scale": ("layer_norm", [floats(7)], {"epsilon": 1e-2}),
    **{name: (name, [floats(3, 6)], {}) for name in ROWS},
    **{f"{name} of much": (name, [np.array([[-2e30, 0, 1e30, 1e30]], np.float32)], {}) for name in ROWS[:2]},
    **{f"{name} of one": (name, [floats(1)], {}) for name in ROWS},
    **{
        f"{name} over {axes}, keep {keep}": (name, [floats(2, 3, 4)], {"axes": axes, "keep": keep})
        for name in ("sum", "mean", "max")
        for axes, keep in (((-1,), False), ((-2,), True), ((-3, -1), False), ((-1, -2, -3), True))
    },
    "any": ("any", [RNG.random((SETS, 3, 2, 2)) < 0.3], {"axes": (-2, -3), "keep": False}),
    "argmax": ("argmax", [floats(3, 5)], {}),
    "argmax of equals": ("argmax", [np.array([[1, 2, 2, -np.inf], [-np.inf] * 4], np.float32)], {}),
    "take": ("take", [(some(4, 2, 3),), ints(0, 4, 5)], {}),
    "take of int32": ("take", [(np.arange(4, dtype=np.int32),), ints(0, 4)], {}),
    "gather": ("gather", [floats(2, 5), (np.array([4, 0, 0], np.int32),)], {}),
    "reshape": ("reshape", [floats(2, 6)], {"shape": (3, 4)}),
    "broadcast": ("broadcast", [floats(2, 1, 3)], {"shape": (2, 4, 3)}),
    "broadcast of bools": ("broadcast", [RNG.random((SETS, 1)) < 0.5], {"shape": (3,)}),
    "transpose": ("transpose", [floats(2, 3, 4)], {"axes": (-1, -3, -2)}),
    "transpose of int32": ("transpose", [ints(-9, 9, 2, 3)], {"axes": (-1, -2)}),
    "concat": ("concat", [floats(2, 3, 2), floats(2, 1, 2), floats(2, 4, 2)], {"axis": -2}),
    "concat of rows": ("concat", [ints(0, 9, 3), ints(0, 9, 2)], {"axis": -1}),
    "slice": ("slice", [floats(3, 4, 2)], {"axis": -2, "start": 1, "stop": 3}),
    "slice in front": ("slice", [floats(5, 2)], {"axis": -2, "start": 1, "stop": 4}),
    **{
        f"conv2d, stride {stride}, pads {pads}": (
            "conv2d", [floats(6, 5, 3), (some(3, 2, 3, 9),), (some(9),)], {"stride": stride, "pads": pads}
        )
        for stride, pads in ((1, (0, 0, 0, 0)), (2, (1, 0, 0, 1)), (3, (2, 2, 1, 1)))
    },
    "conv2d without bias": ("conv2d", [floats(4, 4, 1), (some(4, 4, 1, 2),)], {"stride": 1, "pads": (0,) * 4}),
    "conv2d, more padding than image": ("conv2d", [floats(1, 1, 2), (some(3, 3, 2, 2),)], {"stride": 2, "pads": (3, 3, 4, 1)}),
    "max_pool2d": ("max_pool2d", [floats(7, 5, 2)], {"window": 3, "stride": 2, "pads": (1, 1, 0, 1)}),
    "mean_pool2d": ("mean_pool2d", [floats(7, 5, 2)], {"window": 2}),
    "gru": ("gru", [floats(4), floats(3), (some(4, 9),), (some(3, 9),), (some(9),), (some(3),)], {}),
    "lstm": ("lstm", [floats(4), floats(3), floats(3), (some(4, 12),), (some(3, 12),), (some(12),)], {}),
}  # fmt: skip
EXACT = {
    "neg", "abs", "relu", "not", "add", "sub", "mul", "div", "minimum", "maximum", "less", "less_equal", "equal",
    "and", "or", "floordiv", "mod", "where", "cast", "argmax", "take", "gather", "reshape", "broadcast", "transpose",
    "concat", "slice", "max", "any", "max_pool2d", "sqrt",
}  # fmt: skip


def graph_of(op: str, operands: list[Any], attributes: dict[str, Any]) -> tuple[Graph, dict[str, np.ndarray]]:
    graph, feeds, values = Graph(), {}, []
    for i, x in enumerate(operands):
        if isinstance(x, tuple):
            values.append(graph.constant(x[0]))
        else:
            feeds[f"x{i}"] = x
            values.append(graph.input(f"x{i}", x.shape[1:], str(x.dtype)))
    for i, value in enumerate(graph.ops(op, *values, **attributes)):
        graph.output(f"y{i}", value)
    return graph, feeds


def assert_is(got: np.ndarray, want: np.ndarray, exact: bool, what: str) -> None:
    assert (got.dtype, got.shape) == (want.dtype, want.shape), what
    if exact or want.dtype.kind != "f":
        np.testing.assert_array_equal(got, want, err_msg=what)
    else:
        np.testing.assert_allclose(got, want, rtol=3e-6, atol=1e-6, err_msg=what)


def test_every_operation_is_what_it_is_in_numpy(tmp_path: Path) -> None:
    assert {op for op, *_ in CASES.values()} == OPS.keys() - {"dequantize"}, "an operation has no case"
    made = {name: graph_of(*case) for name, case in CASES.items()}
    found = run_graphs(tmp_path, made)
    for name, (graph, feeds) in made.items():
        with np.errstate(all="ignore"):
            wanted = evaluate(graph, feeds)
        for output, want in wanted.items():
            assert_is(found[name][output], want, CASES[name][0] in EXACT, name)


def packed(graph: Graph, *shape: int) -> Any:
    values, scale = quantized(some(*shape))
    return graph.op("dequantize", graph.constant(values, "int8"), graph.constant(scale))


def test_weights_of_8_bits_are_those_of_numpy_wherever_they_are_used(tmp_path: Path) -> None:
    made: dict[str, Any] = {}
    for name in (
        "linear",
        "linear without bias",
        "conv2d",
        "gru",
        "lstm",
        "take",
        "take of rank 1",
        "add",
        "twice",
    ):
        graph = Graph()
        x, feeds = graph.input("x", (5,)), {"x": floats(5)}
        match name:
            case "linear":
                y = graph.op("linear", x, packed(graph, 5, 9), graph.constant(some(9)))
            case "linear without bias":
                y = graph.op("linear", x, packed(graph, 5, 3))
            case "conv2d":
                image = graph.op("reshape", graph.op("concat", x, x, axis=-1), shape=(2, 5, 1))
                kernel = packed(graph, 2, 3, 1, 4)
                y = graph.op("conv2d", image, kernel, graph.constant(some(4)), stride=1, pads=(1, 0, 1, 0))
            case "gru" | "lstm":
                n = 3 if name == "gru" else 4
                h = graph.op("slice", x, axis=-1, start=1, stop=3)
                rest = [graph.constant(some(2 * n)), *([graph.constant(some(2))] if n == 3 else [])]
                held = [h] if n == 3 else [graph.op("tanh", h), h]
                y = graph.ops(name, x, *held, packed(graph, 5, 2 * n), packed(graph, 2, 2 * n), *rest)[0]
            case "take" | "take of rank 1":
                index = graph.input("i", (3,), "int32")
                feeds["i"] = ints(0, 4, 3)
                table = packed(graph, *((4, 2, 3) if name == "take" else (4,)))
                y = graph.op("take", table, index)
                graph.output("same", x)
            case "add":
                y = graph.op("add", x, packed(graph, 5))
            case _:
                kernel = packed(graph, 5, 5)
                y = graph.op("linear", graph.op("linear", x, kernel), kernel)
                graph.output("also", graph.op("mul", graph.op("reshape", x, shape=(1, 5)), kernel))
        graph.output("y", y)
        made[name] = graph, feeds
    found = run_graphs(tmp_path, made)
    for name, (graph, feeds) in made.items():
        for output, want in evaluate(graph, feeds).items():
            assert_is(found[name][output], want, False, name)


def random_graph(seed: int) -> tuple[Graph, dict[str, np.ndarray]]:
    """Values that are read several times, late, in views and in loops with others."""
    rng, graph = np.random.default_rng(seed), Graph()
    feeds = {name: rng.standard_normal((3, 2, 4)).astype(np.float32) for name in ("x0", "x1")}
    values = [graph.input(name, (2, 4)) for name in feeds]
    for _ in range(25):
        a, b = (values[i] for i in rng.integers(max(0, len(values) - 6), len(values), 2))
        match rng.integers(9):
            case 0 | 1:
                new = graph.op(str(rng.choice(["add", "sub", "minimum"])), a, b)
            case 2 | 3:
                new = graph.op(str(rng.choice(["tanh", "relu", "sigmoid", "neg"])), a)
            case 4:
                new = graph.op("reshape", graph.op("transpose", a, axes=(-1, -2)), shape=(2, 4))
            case 5:
                start = int(rng.integers(2))
                row = graph.op("slice", a, axis=-2, start=start, stop=start + 1)
                new = graph.op("add", graph.op("tanh", row) if rng.random() < 0.3 else row, b)
            case 6:
                new = graph.op("linear", a, graph.constant(some(4, 4, seed=seed)))
            case 7:
                flat = graph.op("reshape", a, shape=(8,))
                parts = [graph.op("slice", flat, axis=-1, start=s, stop=s + 4) for s in (4, 0)]
                new = graph.op("reshape", graph.op("concat", *parts, axis=-1), shape=(2, 4))
            case _:
                new = graph.op(
                    "where",
                    graph.op("less", a, b),
                    graph.op("softmax", a),
                    graph.op("exp", graph.op("minimum", b, 1.0)),
                )
        values.append(new)
    graph.output("y0", values[-1])
    graph.output("y1", graph.op("reshape", values[-1], shape=(8,)))
    graph.output("y2", values[int(rng.integers(2, len(values)))])
    graph.output("y3", graph.inputs["x0"])
    return graph.pruned(), feeds


def test_buffers_are_used_again_only_when_nobody_reads_them(tmp_path: Path) -> None:
    made = {}
    for seed in range(200 if FULL else 30):
        graph, feeds = random_graph(seed)
        made[str(seed)] = graph, {name: feeds[name] for name in graph.inputs}
    found = run_graphs(tmp_path, made)
    for name, (graph, feeds) in made.items():
        for output, want in evaluate(graph, feeds).items():
            np.testing.assert_allclose(found[name][output], want, rtol=1e-4, atol=1e-4, err_msg=name)


# POLICIES ---------------------------------------------------------------------------------------

SOME = ("act nested", "act box int8", "observe nested", "squashed, mixed bounds", "beta", "autoregressive", "gru",
        "every memory", "symlog values", "normalized", "image")  # fmt: skip
NAMES = [name for name in CONFIGS if FULL or name in SOME]


def lowered_of(name: str, folder: Path, **options: Any) -> Any:
    pc.save(folder / "file", policy_of(CONFIGS[name]), self_test=False)
    outputs = ("action", "value")
    return lower(folder / "file", outputs=outputs, mask_functions=MASKS, **options)


def groups(names: list[str], count: int) -> list[tuple[str, ...]]:
    return [tuple(names[i::count]) for i in range(count)]


@pytest.mark.parametrize("group", groups(NAMES, 4 if FULL else 1), ids=lambda group: group[0])
def test_policies_act_as_in_jax(group: tuple[str, ...], tmp_path: Path) -> None:
    given, steps = {}, {}
    for name in group:
        lowered = lowered_of(name, tmp_path, masks="rows")
        count = 300 if name in WITH_MEMORY and not FULL else COUNT
        steps[name] = steps_of(policy_of(CONFIGS[name]), count)
        feeds = named(steps[name].observations, "observation") | named(steps[name].masks, "action_mask")
        given[name] = lowered, feeds, steps[name].is_first
    found = run_policies(tmp_path, given)
    for name, got in found.items():
        try:
            compare(name, steps[name], got)
        except AssertionError as error:
            raise AssertionError(name) from error


@pytest.mark.parametrize("options", [{"noise": True, "masks": "rows"}, {"int8": True}], ids=["drawn", "int8"])
@pytest.mark.parametrize("group", groups(list(CONFIGS), 2), ids=lambda group: group[0])
def test_draws_and_8_bits_are_those_of_the_graph(
    group: tuple[str, ...], options: dict[str, Any], tmp_path: Path
) -> None:
    given, wanted = {}, {}
    rng, count = np.random.default_rng(3), 20
    for name in group:
        lowered, config = lowered_of(name, tmp_path, **options), CONFIGS[name]
        keys = jax.random.split(jax.random.key(4), count)
        feeds = named(
            jax.vmap(lambda key, s=config.observation_space: s.sample(key=key))(keys), "observation"
        )
        for key, value in lowered.graph.inputs.items():
            if key in lowered.noise:
                draw = rng.random if lowered.noise[key] == "uniform" else rng.standard_normal
                feeds[key] = draw((count, *value.shape)).astype(np.float32)
            elif key.startswith("action_mask"):
                feeds[key] = rng.random((count, *value.shape)) < 0.6
        feeds = {key: np.asarray(x) for key, x in feeds.items() if key in lowered.graph.inputs}
        firsts = np.arange(count) % 7 == 0
        start = {key: x[None] for key, x in lowered.initial.items()}
        states, rows = start, []
        for i in range(count):
            states = start if firsts[i] else states
            rows.append(
                evaluate(lowered.graph, {**{key: x[i : i + 1] for key, x in feeds.items()}, **states})
            )
            states = {key: rows[-1].get(f"next_{key}", x) for key, x in states.items()}
        given[name] = lowered, feeds, firsts
        wanted[name] = {key: np.concatenate([row[key] for row in rows]) for key in rows[0]}
    stack = tuple(f"-DP{i}_SCRATCH=" for i in range(len(group)))  # buffers on the stack
    found = run_policies(tmp_path, given, stack)
    for name, got in found.items():
        differ = np.zeros(count, bool)
        for key, x in got.items():
            want = wanted[name][key]
            assert (x.dtype, x.shape) == (want.dtype, want.shape), (name, key)
            if x.dtype.kind == "f" and not (key.startswith("action") and name in WITH_TIES):
                span = 1e6 if name == "bounds that are far off" and key == "action" else 1.0
                check_close(f"{name}: {key}", x / span, want / span)
            else:
                differ |= ~np.isclose(x, want, rtol=1e-5, atol=1e-5).reshape(count, -1).all(1)
        assert not differ.any(), name


# THE SOURCE ------------------------------------------------------------------------------------


def written(folder: Path, name: str = "gru", prefix: str = "walker", **options: Any) -> c_source.Source:
    lowered = lower(saved(policy_of(CONFIGS[name]), folder / "file", self_test=True), **options)
    source = c_source.write(lowered, prefix=prefix)
    (folder / f"{prefix}.h").write_text(source.header)
    (folder / f"{prefix}.c").write_text(source.source)
    return source


def compiled(folder: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    command = [str(COMPILER), *flags]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", ["gru", "act nested"])
def test_the_self_test_passes_and_fails_for_another_weight(name: str, tmp_path: Path) -> None:
    source = written(tmp_path, name, outputs=("action", "value"))
    flags = [*FLAGS, "-DWALKER_SELF_TEST", "-DWALKER_BENCHMARK", "walker.c", "-o", "walker", "-lm"]
    assert (result := compiled(tmp_path, *flags)).returncode == 0, result.stderr
    result = subprocess.run(["./walker"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0
    match = re.match(
        r"largest deviation (\S+), at most 0.0001 is allowed, over 8 observations\n\S+ us a call\n",
        result.stdout,
    )
    assert match is not None, result.stdout
    assert 0 < float(match[1]) < 1e-5
    assert source.self_test == 8
    text = re.sub(r"(walker_c0\[\d+\] = \{\s*)\(?-?[\d.]+", r"\g<1>(7.5", source.source, count=1)
    text = text.replace("(7.5f,", "7.5f,", 1)
    assert text != source.source
    (tmp_path / "walker.c").write_text(text)
    assert compiled(tmp_path, *flags).returncode == 0
    result = subprocess.run(["./walker"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 1, result.stdout


def test_an_object_needs_nothing_but_three_functions(tmp_path: Path) -> None:
    nm = shutil.which("nm")
    source = written(tmp_path, "every memory", outputs=("action", "value", "log_prob"))
    assert (
        compiled(tmp_path, "-std=c99", "-O2", "-Wdouble-promotion", "-Werror", "-c", "walker.c").returncode
        == 0
    )
    if nm is None:
        pytest.skip("there is no `nm`")
    lines = subprocess.run([nm, "walker.o"], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    names = {line.split()[-1] for line in lines.splitlines() if " U " in line}
    allowed = {"expf", "logf", "sqrtf", "memcpy", "memset", "_GLOBAL_OFFSET_TABLE_", "__stack_chk_fail"}
    assert names <= allowed
    public = {line.split()[-1] for line in lines.splitlines() if " T " in line}
    assert public == {"walker_act", "walker_reset"}
    assert "double" not in source.source.split("#ifdef WALKER_SELF_TEST")[0]
    assert not re.search(r"\d\.\d*(e[+-]?\d+)?(?![\dfe])", source.source.split("#ifdef WALKER_SELF_TEST")[0])


def test_the_header_is_one_of_two_policies_in_a_program_in_c_plus_plus(tmp_path: Path) -> None:
    compiler = shutil.which("c++")
    if compiler is None:
        pytest.skip("there is no C++ compiler `c++`")
    for name, prefix in (("gru", "one"), ("act discrete", "two")):
        written(tmp_path, name, prefix)
        assert compiled(tmp_path, "-c", f"{prefix}.c").returncode == 0
    (tmp_path / "main.cpp").write_text(MAIN)
    command = [compiler, "-Wall", "-Wextra", "-Werror", "main.cpp", "one.o", "two.o", "-o", "main", "-lm"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    subprocess.run(["./main"], cwd=tmp_path, check=True)


MAIN = """
#include "one.h"
#include "two.h"
#include "one.h"
int main() {
    one_state state;
    float observation[ONE_OBSERVATION_SIZE] = {0.1f, 0.2f, 0.3f};
    int32_t action[ONE_ACTION_SIZE];
    one_reset(&state);
    one_act(&state, observation, 0, action);
    two_act(observation, action);
    return action[0] < 0 || action[0] > 4;
}
"""


@pytest.mark.parametrize("prefix", ["", "1a", "a-b", "a b", "a" * 42, "ä", "a\n"])
def test_a_prefix_is_a_name_in_c(prefix: str, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"prefix: got .* expected a letter, then up to 40"):
        written(tmp_path, prefix=prefix)


def test_names_of_parts_become_different_names_in_c(tmp_path: Path) -> None:
    box = pc.Box(shape=(2,))
    space = pc.Dict({"a-b": box, "a b": box, "int": box, "ä": box})
    config = cases.config(pc.Dict({"mask": pc.Discrete(2), "x": pc.Discrete(2)}), space)
    pc.save(tmp_path / "file", policy_of(config))
    source = c_source.write(lower(tmp_path / "file", masks={"x": "rows"}))
    names = [x.name for x in (*source.inputs, *source.outputs)]
    assert len(set(names)) == len(names) == 7
    assert all(name.isascii() and name.isidentifier() for name in names)
    (tmp_path / "policy.h").write_text(source.header)
    (tmp_path / "policy.c").write_text(source.source)
    flags = [*FLAGS, "-DPOLICY_SELF_TEST", "policy.c", "-o", "policy", "-lm"]
    assert (result := compiled(tmp_path, *flags)).returncode == 0, result.stderr
    subprocess.run(["./policy"], cwd=tmp_path, check=True)


def test_is_first_is_an_argument_and_a_file_may_have_no_self_test(tmp_path: Path) -> None:
    pc.save(tmp_path / "file", policy_of(ALL["gru"]), self_test=False)
    with pytest.raises(ExportError, match="lower without is_first=True"):
        c_source.write(lower(tmp_path / "file", is_first=True))
    source = c_source.write(lower(tmp_path / "file"))
    assert source.self_test == 0
    assert "main" not in source.source


STUBS = """
#include <stdlib.h>
static int steps = 0;
void read_sensors(int32_t *gait, float *joints) {
    int i;
    gait[0] = steps % 3;
    for (i = 0; i < WALKER_OBSERVATION_JOINTS_SIZE; ++i) joints[i] = (float)i * 0.1f;
}
void drive(const float *action) {
    int i;
    for (i = 0; i < WALKER_ACTION_SIZE; ++i)
        if (!(action[i] >= -1.0f && action[i] <= 1.0f)) exit(1);
}
int fallen(void) { return steps % 4 == 3; }
void wait_for_tick(void) {
    if (++steps == 20) exit(0);
}
"""


def test_the_loop_of_the_page_runs(tmp_path: Path) -> None:
    page = (Path(__file__).parent.parent / "docs/deploy.md").read_text()
    (loop,) = re.findall(r"^```c\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    sensed = {"joints": pc.Box(shape=(12,)), "gait": pc.Discrete(3), "truth": pc.Box(shape=(8,))}
    config = pc.ActorCriticConfig(
        observation_space=pc.Dict(sensed),
        actor_keys=("gait", "joints"),
        action_space=pc.Box(low=-1.0, high=1.0, shape=(6,)),
        box_head=pc.SquashedNormalHead(),
        memory=pc.GRU(32),
        memory_sharing="separate",
        normalize=pc.Normalize(),
    )
    pc.save(tmp_path / "file", policy_of(config), self_test=False)
    source = c_source.write(lower(tmp_path / "file"), prefix="walker")
    (tmp_path / "walker.h").write_text(source.header)
    (tmp_path / "walker.c").write_text(source.source)
    (tmp_path / "main.c").write_text(loop + STUBS)
    result = compiled(tmp_path, *FLAGS, "main.c", "walker.c", "-o", "main", "-lm")
    assert result.returncode == 0, result.stderr
    subprocess.run(["./main"], cwd=tmp_path, check=True)


# THE COMMAND -----------------------------------------------------------------------------------


def test_the_command_writes_compiles_replays_and_measures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    install_command(monkeypatch)
    path = saved(policy_of(CONFIGS["every memory"]), tmp_path / "file", self_test=True)
    command = ["export", str(path), "--c", "-o", str(tmp_path / "walker.c")]
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert f"{tmp_path / 'walker.c'}, {tmp_path / 'walker.h'}: " in printed
    assert re.search(r"compiled \d,\d+ bytes of code and constants, \d+ bytes of RAM\n", printed)
    found = re.search(
        r"over 8 steps within (\S+) .* self-test, 0 discrete numbers differ .* (\S+) us a call", printed
    )
    assert found is not None, printed
    assert 0 < float(found[1]) < 1e-5
    assert 0 < float(found[2]) < 100
    assert main([*command, "--json", "--tolerance", "0"]) == 1
    result = json.loads(capsys.readouterr().out)
    assert (result["target"], result["replay"]["against"], result["replay"]["steps"]) == ("c", "self-test", 8)
    assert main([*command[:-1], str(tmp_path / "1a.c")]) == 2
    assert "prefix: got '1a', expected a letter" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["two memories", "observe nested", "act box int8", "no frames"])
def test_a_target_in_c_is_called_with_masks_noise_and_8_bits(name: str, tmp_path: Path) -> None:
    path = saved(policy_of(CONFIGS[name]), tmp_path / "file", self_test=True)
    for options in ({"masks": "rows", "noise": True}, {"int8": 1.0}):
        replayed = export(path, tmp_path / "a", "c", calls=1, **options).replay
        assert replayed is not None
        assert (replayed.against, replayed.differing) == ("graph", 0)
        assert replayed.deviation < 1e-5


def test_a_compiler_may_be_missing_or_refuse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(policy_of(CONFIGS["act box"]), tmp_path / "file", self_test=True)
    monkeypatch.setenv("CC", "no such compiler")
    report = export(path, tmp_path / "a.c", "c")
    assert report.replay is None
    assert report.missing == "there is no C compiler `cc`, and none in the variable CC"
    assert (tmp_path / "a.c").exists()
    monkeypatch.setenv("CC", "false")
    with pytest.raises(ExportError, match=r"compiler: .*false -std=c99 -O2 .* failed"):
        export(path, tmp_path / "a.c", "c")
