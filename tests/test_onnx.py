"""Policies as ONNX, run by onnxruntime: they act as `act` does."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
import pytest
from cases import config
from exported import (
    ALL,
    CONFIGS,
    COUNT,
    FULL,
    MASKS,
    SAMPLE,
    WITH_MEMORY,
    compare,
    feeds_of,
    named,
    outputs_of,
    policy_of,
    saved,
    steps_of,
)
from policy_core_adapters.exports import targets
from policy_core_adapters.exports.graph import Graph, evaluate
from policy_core_adapters.exports.lowering import ExportError, lower
from policy_core_adapters.exports.metadata import unpacked
from policy_core_adapters.exports.onnx import model_of
from policy_core_adapters.exports.ops import OPS
from policy_core_adapters.exports.replay import others_of
from policy_core_adapters.exports.sampling import sample

import policy_core as pc
from policy_core.__main__ import main

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytestmark = pytest.mark.usefixtures("unchecked")  # beartype doubles the time to trace

ROOT = Path(__file__).parent.parent


def _run(lowered, batch=None):
    """`feeds -> outputs` by name, of the model of a graph."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    data = model_of(lowered, batch=batch).SerializeToString()
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    names = list(lowered.graph.outputs)
    assert [x.name for x in session.get_outputs()] == names
    return lambda feeds: dict(zip(names, session.run(names, feeds), strict=True))


@pytest.mark.parametrize("name", SAMPLE)
def test_a_model_acts_as_the_policy_does(name, tmp_path):
    policy = policy_of(CONFIGS[name])
    path = saved(policy, tmp_path / "file")
    lowered = lower(path, outputs=outputs_of(name), masks="rows", is_first=True, mask_functions=MASKS)
    steps = steps_of(policy)
    feeds = feeds_of(lowered, policy, steps)
    together = _run(lowered, "batch")(feeds)
    compare(name, steps, together)
    alone = _run(lowered)({key: np.asarray(x[3]) for key, x in feeds.items()})
    for key, x in alone.items():
        assert (x.shape, x.dtype) == (together[key].shape[1:], together[key].dtype)
        assert np.allclose(x, together[key][3], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", [name for name in WITH_MEMORY if FULL or name in SAMPLE])
def test_a_memory_is_carried_for_300_steps(name, tmp_path):
    policy = policy_of(CONFIGS[name])
    lowered = lower(saved(policy, tmp_path / "file"), outputs=outputs_of(name), is_first=True)
    steps = steps_of(policy, 300, None)
    assert steps.is_first.sum() >= 2
    call, state, rows = _run(lowered), dict(lowered.initial), []
    seen = {key: np.asarray(x) for key, x in named(steps.observations, "observation").items()}
    for i in range(300):
        given = {key: np.asarray(x[i]) for key, x in seen.items() if key in lowered.graph.inputs}
        reset = {"is_first": np.asarray(steps.is_first[i])} if "is_first" in lowered.graph.inputs else {}
        rows.append(call(given | state | reset))
        state = {key: rows[-1][f"next_{key}"] for key in state}
    compare(name, steps, {key: np.stack([row[key] for row in rows]) for key in rows[0]})


def test_a_joint_mask_allows_combinations(tmp_path):
    policy = policy_of(config(pc.MultiDiscrete((2, 3, 2), start=(0, 1, 0))))
    allowed = np.random.default_rng(0).random((COUNT, 2, 3, 2)) < 0.2
    steps = steps_of(policy, COUNT, pc.spaces.JointMask(allowed))
    outputs = ("action", "value", "log_prob")
    lowered = lower(saved(policy, tmp_path / "file"), outputs=outputs, masks="joint")
    compare(
        "joint", steps, _run(lowered, "batch")({"observation": steps.observations, "action_mask": allowed})
    )


@pytest.mark.parametrize("name", SAMPLE)
def test_a_draw_is_that_of_the_graph(name, tmp_path):
    path = saved(policy_of(CONFIGS[name]), tmp_path / "file")
    lowered = lower(path, noise=True, masks="rows", mask_functions=MASKS)
    rng, space = np.random.default_rng(0), CONFIGS[name].observation_space
    from policy_core.configs.codec import to_data

    drawn = sample(to_data(space), rng, COUNT)
    feeds = {key: drawn[key] for key in lowered.graph.inputs if key.startswith("observation")}
    feeds |= others_of(lowered, rng, False, (COUNT,))
    feeds |= {key: np.tile(x, (COUNT, *[1] * x.ndim)) for key, x in lowered.initial.items()}
    got, wanted = _run(lowered, "batch")(feeds), evaluate(lowered.graph, feeds)
    apart = np.zeros(COUNT, bool)
    for key in wanted:
        least = 1e-4 + 1e-6 * np.abs(wanted[key]).max(initial=0)  # of a box of 1e6
        apart |= ~np.isclose(got[key], wanted[key], rtol=1e-4, atol=least).reshape(COUNT, -1).all(1)
    assert apart.sum() <= COUNT // 100  # a uniform number at the edge of two categories


def test_a_model_is_small(tmp_path):
    made = pc.ActorCriticConfig(
        observation_space=pc.Box(shape=(6,)),
        action_space=pc.Box(low=-2.0, high=2.0, shape=(2,)),
        memory=pc.GRU(32),
        normalize=pc.Normalize(),
        box_head=pc.SquashedNormalHead(),
        actor=pc.MLP((32,)),
    )
    lowered = lower(saved(policy_of(made), tmp_path / "file"))
    ops = [node.op_type for node in model_of(lowered, batch="batch").graph.node]
    assert len(ops) <= 15
    assert ops.count("GRU") == 1
    assert len(model_of(lowered).graph.node) <= 18


def test_a_model_says_what_it_is(tmp_path):
    policy = policy_of(CONFIGS["squashed, mixed bounds"])
    path = saved(policy, tmp_path / "file", self_test=True)
    model = model_of(lower(path))
    assert model.opset_import[0].version == 17
    props = {prop.key.removeprefix("policy_core."): prop.value for prop in model.metadata_props}
    assert props["format"] == "1"
    assert props["fingerprint"] == pc.fingerprint(policy[1]).hex()
    assert json.loads(props["observation_space"])["fields"]["shape"] == [3]
    assert json.loads(props["action_bounds"]) == {
        "action": {"low": [-1.0, None, 0.0], "high": [1.0, 2.0, None]}
    }
    rows = unpacked(props["self_test"])
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    for x, action in zip(rows["observation"], rows["env_action"], strict=True):
        assert np.allclose(session.run(["action"], {"observation": x})[0], action, rtol=1e-5, atol=1e-5)


BLOCKED = """
import sys
for name in ("jax", "jaxlib", "policy_core"):
    sys.modules[name] = None
from policy_core_adapters.exports.targets import export
for path in sys.argv[1:]:
    for noise in (False, True):
        report = export(path, path + ".onnx", "onnx", masks="rows", noise=noise, is_first=True, calls=1)
        print(report.replay.steps, report.replay.deviation, report.replay.differing, report.replay.against)
"""


def test_it_works_where_there_is_no_jax(tmp_path):
    names = ("act nested", "squashed", "every memory", "attention of the actor", "parts", "beta", "image")
    paths = [saved(policy_of(CONFIGS[name]), tmp_path / str(i), True) for i, name in enumerate(names)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "adapters")}
    result = subprocess.run(
        [sys.executable, "-c", BLOCKED, *map(str, paths)],
        env=environment, capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    lines = [line.split() for line in result.stdout.splitlines()]
    assert len(lines) == 2 * len(names)
    for i, (steps, deviation, differing, against) in enumerate(lines):
        assert (int(steps), int(differing)) == (8, 0)
        assert float(deviation) <= 1e-5
        assert against == ("graph" if i % 2 else "self-test")


def test_the_replay_sees_another_policy(tmp_path):
    path = saved(policy_of(CONFIGS["gru"]), tmp_path / "file", True)
    other = lower(saved(policy_of(CONFIGS["gru"], seed=1), tmp_path / "other", True))
    from policy_core_adapters.exports.replay import replay

    found = replay(lower(path), _run(other), calls=1)
    assert found.deviation > 0.1
    assert found.output == "next_state/shared"


# EVERY OPERATION

WEIGHTS = np.random.default_rng(5)


def _of(*shape):
    return WEIGHTS.standard_normal(shape).astype(np.float32)


MOVES = {
    "reshape": [((2, 3), {"shape": (3, 2)}), ((1,), {"shape": ()}), ((), {"shape": (1, 1)})],
    "broadcast": [((1, 3), {"shape": (4, 3)})],
    "transpose": [((2, 3, 4), {"axes": (-2, -1, -3)})],
    "slice": [((4, 3), {"axis": -2, "start": 1, "stop": 3})],
    "max_pool2d": [((5, 7, 2), {"window": 3, "stride": 2, "pads": (0, 1, 1, 1)})],
    "mean_pool2d": [((5, 7, 2), {"window": 2})],
    **{name: [((2, 3), {"axes": (-2,), "keep": False}), ((2, 3), {"axes": (-1, -2), "keep": True})] for name in ("sum", "mean", "max")},
}  # fmt: skip
UNARY = [
    "abs",
    "neg",
    "exp",
    "expm1",
    "tanh",
    "sigmoid",
    "softplus",
    "relu",
    "leaky_relu",
    "elu",
    "selu",
    "gelu",
    "silu",
]
ROWS = ["softmax", "log_softmax", "cumsum", "argmax"]
BINARY = ["add", "sub", "mul", "div", "minimum", "maximum", "less", "less_equal", "equal"]


def _graphs():
    """`(name, graph)` for every operation, with inputs x, y, z of floats, n of integers and b of bools."""

    def made(name, build):
        graph = Graph()
        graph.output("y0", build(graph))
        return name, graph.pruned()

    for name in UNARY:
        yield made(name, lambda g: g.op(name, g.input("x", (2, 3))))
    for name in ("log", "log1p", "sqrt"):
        yield made(name, lambda g: g.op(name, g.op("mul", g.input("x", (2, 3)), g.input("y", (2, 3)))))
        yield made(name, lambda g: g.op(name, g.op("abs", g.op("mul", g.input("x", (2, 3)), 1e-6))))
    yield made("expm1", lambda g: g.op("expm1", g.op("mul", g.input("x", (2, 3)), 1e-6)))
    for name in ROWS:
        yield made(name, lambda g: g.op(name, g.input("x", (2, 3))))
    for name in BINARY:
        yield made(name, lambda g: g.op(name, g.input("x", (2, 3)), g.input("y", (1, 3))))
        yield made(name, lambda g: g.op(name, 0.5, g.input("x", (2, 3))))
        yield made(name, lambda g: g.op(name, g.input("x", (2, 3)), g.constant(_of(3))))
    for name in ("add", "sub", "mul", "minimum", "maximum", "less", "less_equal", "equal"):
        yield made(name, lambda g: g.op(name, g.input("n", (3,), "int32"), g.constant(np.array([2, 1, 0]))))
    yield made("clip", lambda g: g.op("minimum", g.op("maximum", g.input("x", (3,)), -0.5), 0.5))
    yield made("mod", lambda g: g.op("mod", g.op("sub", g.input("n", (3,), "int32"), 5), 3))
    yield made("floordiv", lambda g: g.op("floordiv", g.input("n", (3,), "int32"), 3))
    for name in ("and", "or", "equal"):
        yield made(
            name, lambda g: g.op(name, g.input("b", (2, 3), "bool"), g.op("less", g.input("x", (2, 3)), 0.0))
        )
    yield made("not", lambda g: g.op("not", g.input("b", (2, 3), "bool")))
    yield made("any", lambda g: g.op("any", g.input("b", (2, 3), "bool"), axes=(-1,), keep=True))
    yield made("where", lambda g: g.op("where", g.input("b", (2, 3), "bool"), g.input("x", (2, 3)), -2e30))
    yield made("where", lambda g: g.op("where", g.input("b", (3,), "bool"), g.input("n", (3,), "int32"), 7))
    for dtype in ("float32", "int32", "int8", "uint8", "int16", "uint16", "uint32", "bool"):
        yield made("cast", lambda g: g.op("cast", g.input("n", (3,), "int32"), dtype=dtype))
    for name, cases in MOVES.items():
        for shape, attributes in cases:
            yield made(name, lambda g: g.op(name, g.input("x", shape), **attributes))
    yield made("concat", lambda g: g.op("concat", g.input("x", (2, 3)), g.input("y", (1, 3)), axis=-2))
    yield made("gather", lambda g: g.op("gather", g.input("x", (2, 3)), g.constant(np.array([2, 0, 2, 1]))))
    yield made("take", lambda g: g.op("take", g.constant(_of(9, 2)), g.input("n", (3,), "int32")))
    yield made("linear", lambda g: g.op("linear", g.input("x", (3,)), g.constant(_of(3, 4))))
    yield made(
        "linear", lambda g: g.op("linear", g.input("x", (2, 3)), g.constant(_of(3, 4)), g.constant(_of(4)))
    )
    yield made("matmul", lambda g: g.op("matmul", g.input("x", (2, 3, 4)), g.input("y", (2, 4, 1))))
    yield made("layer_norm", lambda g: g.op("layer_norm", g.input("x", (2, 5)), epsilon=1e-3))
    affine = _of(5), _of(5)
    yield made(
        "layer_norm", lambda g: g.op("layer_norm", g.input("x", (5,)), *map(g.constant, affine), epsilon=1e-6)
    )
    for pads in ((0, 0, 0, 0), (1, 2, 0, 1)):
        yield made(
            "conv2d",
            lambda g: g.op(
                "relu",
                g.op(
                    "conv2d",
                    g.input("x", (6, 7, 2)),
                    g.constant(_of(3, 2, 2, 4)),
                    g.constant(_of(4)),
                    stride=2,
                    pads=pads,
                ),
            ),
        )

    def dequantized(g):
        values = np.arange(-6, 6).reshape(3, 4)
        kernel = g.op("dequantize", g.constant(values, "int8"), g.constant(np.abs(_of(4))))
        return g.op("linear", g.input("x", (3,)), kernel)

    yield made("dequantize", dequantized)

    def cell(name, states, gates, biases):
        def build(g):
            held = [g.input(x, (4,)) for x in states]
            kernels = g.constant(_of(3, gates * 4)), g.constant(_of(4, gates * 4))
            made = g.ops(name, g.input("x", (3,)), *held, *kernels, *(g.constant(_of(n)) for n in biases))
            return g.op("concat", *made, axis=-1)

        return build

    yield made("gru", cell("gru", ["y"], 3, (12, 4)))
    yield made("lstm", cell("lstm", ["y", "z"], 4, (16,)))


GRAPHS = list(_graphs())


def test_every_operation_is_there():
    assert {name for name, _ in GRAPHS} - {"clip"} == set(OPS)


@pytest.mark.parametrize("batch", [None, "n"])
@pytest.mark.parametrize(("name", "graph"), GRAPHS, ids=[f"{name}-{i}" for i, (name, _) in enumerate(GRAPHS)])
def test_an_operation_computes_what_it_says(name, graph, batch):
    from policy_core_adapters.exports.onnx import Printer

    rng, front = np.random.default_rng(0), () if batch is None else (7,)
    feeds = {
        key: rng.standard_normal((*front, *x.shape)).astype(np.float32) for key, x in graph.inputs.items()
    }
    if name in ("log", "log1p", "sqrt"):  # of a square
        feeds["y"] = feeds["x"]
    for key, x in graph.inputs.items():
        if x.dtype == "int32":
            feeds[key] = rng.integers(0, 9, (*front, *x.shape), np.int32)
        elif x.dtype == "bool":
            feeds[key] = rng.random((*front, *x.shape)) < 0.5
    feeds = {key: feeds[key] for key in graph.inputs}
    nodes, constants, inputs, outputs = Printer(graph, batch).parts()
    made = onnx.helper.make_graph(nodes, "one", inputs, outputs, constants)
    model = onnx.helper.make_model(made, opset_imports=[onnx.helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (got,), want = session.run(None, feeds), evaluate(graph, feeds)["y0"]
    assert (got.shape, got.dtype) == (want.shape, want.dtype)
    scale = np.abs(want).max() if want.dtype.kind == "f" else 1
    assert np.all(np.abs(got.astype(np.float64) - want) <= 2e-6 * np.maximum(scale, np.abs(want))), (
        got,
        want,
    )


# 8 BITS


@pytest.mark.parametrize(
    "name", ["act nested", "lstm", "gru", "image", "every memory", "autoregressive bins"]
)
def test_8_bits_are_those_of_the_graph(name, tmp_path):
    path = saved(policy_of(CONFIGS[name]), tmp_path / "file", True)
    report = targets.export(path, tmp_path / "a.onnx", "onnx", int8=1.0, calls=1)
    assert report.replay.against == "graph"
    assert report.replay.deviation <= 1e-5
    assert report.replay.differing == 0
    assert report.loss.worst > 0
    ops = {node.op_type for node in onnx.load(tmp_path / "a.onnx").graph.node}
    assert "DequantizeLinear" in ops


def test_large_kernels_take_a_quarter_of_the_bytes(tmp_path):
    path = saved(policy_of(config(pc.Discrete(3), actor=pc.MLP((256, 256)))), tmp_path / "file")
    whole = targets.export(path, tmp_path / "a.onnx", "onnx", calls=1)
    short = targets.export(path, tmp_path / "b.onnx", "onnx", int8=0.2, calls=1)
    assert short.nbytes < 0.3 * whole.nbytes
    with pytest.raises(ExportError, match=r"^int8: 8 bits move an action by up to 0 of its range and change"):
        targets.export(path, tmp_path / "c.onnx", "onnx", int8=0.0)
    assert not (tmp_path / "c.onnx").exists()


# THE COMMAND


@pytest.fixture
def _installed(monkeypatch):
    """The command, as an entry point, whatever the metadata of the installed package says."""

    class Point:
        name = "export"

        @staticmethod
        def load():
            from policy_core_adapters.exports.command import add

            return add

    monkeypatch.setattr("importlib.metadata.entry_points", lambda *, group: [Point])


def test_the_command_is_declared():
    text = (ROOT / "pyproject.toml").read_text()
    assert 'export = "policy_core_adapters.exports.command:add"' in text.split("policy_core.commands")[1]


@pytest.mark.usefixtures("_installed")
def test_the_command_writes_and_replays(tmp_path, capsys):
    path = saved(policy_of(CONFIGS["act nested"]), tmp_path / "file", True)
    out = tmp_path / "policy.onnx"
    assert main(["export", str(path), "--onnx", "-o", str(out), "--masks", "rows", "--batch", "n"]) == 0
    printed = capsys.readouterr().out
    assert f"{out}: {out.stat().st_size:,} bytes, " in printed
    assert "over 8 steps within " in printed
    assert " of the self-test, 0 discrete numbers differ" in printed
    command = ["export", str(path), "--onnx", "-o", str(out), "--tolerance", "0", "--json", "--int8", "0.2"]
    assert main(command) == 1
    result = json.loads(capsys.readouterr().out)
    assert result["replay"]["deviation"] > 0
    assert result["loss"]["drawn"]["observations"] == 10_000
    assert out.exists()


@pytest.mark.usefixtures("_installed")
def test_the_command_says_what_cannot_be_exported(tmp_path, capsys):
    path = saved(policy_of(ALL["bfloat16"]), tmp_path / "file")
    command = ["export", str(path), "--onnx", "-o", str(tmp_path / "a.onnx")]
    assert main(command) == 2
    assert "policy_core: compute_dtype: bfloat16 is carried by no export" in capsys.readouterr().err
    (tmp_path / "file").write_bytes(b"x" * 100)
    assert main(command) == 2
    assert "policy_core: not a policy file" in capsys.readouterr().err


@pytest.mark.usefixtures("_installed")
def test_without_a_runtime_nothing_is_replayed_and_it_says_so(tmp_path, capsys, monkeypatch):
    path = saved(policy_of(CONFIGS["act box"]), tmp_path / "file")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert main(["export", str(path), "--onnx", "-o", str(tmp_path / "a.onnx")]) == 0
    assert "not replayed: onnxruntime is not installed; install policy-core[onnx]" in capsys.readouterr().out
    monkeypatch.setitem(sys.modules, "onnx", None)
    assert main(["export", str(path), "--onnx", "-o", str(tmp_path / "a.onnx")]) == 2
    assert "onnx is not installed; install policy-core[onnx]" in capsys.readouterr().err


# ANOTHER CONVERTER


@pytest.mark.skipif(importlib.util.find_spec("jax2onnx") is None, reason="jax2onnx is not installed")
@pytest.mark.parametrize("name", ["act box", "gru", "lstm", "squashed"])
@pytest.mark.filterwarnings("ignore")
def test_another_converter_gives_the_same(name, tmp_path):
    from jax2onnx import to_onnx

    policy = policy_of(CONFIGS[name])
    state, struct = pc.reset(policy), CONFIGS[name].observation_space.struct()
    leaves, structure = jax.tree.flatten((state, struct))

    def act(*leaves):
        return tuple(jax.tree.leaves(pc.act(policy, *jax.tree.unflatten(structure, leaves))))

    inputs = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in leaves]
    traced = jax.extend.core.jaxpr_as_fun(
        jax.make_jaxpr(act)(*inputs)
    )  # it takes checks of shapes for part of the graph
    model = to_onnx(lambda *x: tuple(traced(*x)), inputs=inputs)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    lowered = lower(saved(policy, tmp_path / "file"))
    ours, names = _run(lowered), [one.name for one in session.get_inputs()]
    assert len(model_of(lowered).graph.node) <= len(model.graph.node)
    for i in range(20):
        x = CONFIGS[name].observation_space.sample(key=jax.random.key(i))
        given = map(np.asarray, jax.tree.leaves((state, x)))
        theirs = session.run(None, dict(zip(names, given, strict=True)))
        feeds = {**named(state, "state"), **named(x, "observation")}
        got = ours({key: np.asarray(value) for key, value in feeds.items()})
        assert list(got) == sorted(got, key=lambda key: not key.startswith("next_state"))
        for a, b in zip(got.values(), theirs, strict=True):
            assert np.allclose(a, b, rtol=1e-5, atol=1e-5)
        state = jax.tree.unflatten(
            jax.tree.structure(state), map(jnp.asarray, theirs[: len(jax.tree.leaves(state))])
        )
