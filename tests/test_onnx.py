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
from policy_core_adapters.exports.graph import evaluate
from policy_core_adapters.exports.lowering import ExportError, lower
from policy_core_adapters.exports.metadata import unpacked
from policy_core_adapters.exports.onnx import model_of
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
        apart |= ~np.isclose(got[key], wanted[key], rtol=1e-4, atol=1e-4).reshape(COUNT, -1).all(1)
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
@pytest.mark.parametrize("name", ["act box", "gru", "act nested"])
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
