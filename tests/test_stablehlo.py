"""`act` as StableHLO: for three platforms, any batch and any population; what is read back acts the same."""

import doctest
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import cases
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from policy_core_adapters.exports import stablehlo

import policy_core as pc
from policy_core.files.policies import read_document

pytestmark = pytest.mark.usefixtures("unchecked")
pytest.importorskip("flatbuffers")  # which `jax.export` serializes with

DRAWN = ("act nested", "two memories", "squashed", "beta")
MODES = ("autoregressive", "normalized", "image", "bfloat16")


def policy_of(config: Any, *axes: int) -> Any:
    rng = np.random.default_rng(0)
    struct = jax.eval_shape(lambda: config.init(key=jax.random.key(0)))
    draw = lambda leaf: jnp.asarray(0.5 * rng.standard_normal((*axes, *leaf.shape)), leaf.dtype)
    return jax.tree.map(draw, struct), config


def stacked(tree: Any, *axes: int) -> Any:
    return jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (*axes, *leaf.shape)), tree)


def inputs_of(config: Any, *axes: int) -> tuple[Any, dict[str, Any]]:
    keys = jax.random.split(jax.random.key(1), axes)
    sample = lambda key: config.observation_space.sample(key=key)
    mask = lambda key: jax.tree.map(
        lambda row: jax.random.bernoulli(key, 0.6, row.shape), config.action_space.full_mask()
    )
    for _ in axes:
        sample, mask = jax.vmap(sample), jax.vmap(mask)
    data = jax.random.key_data(keys)
    return sample(keys), {
        "action_mask": mask(keys),
        "key": data,
        "is_first": jnp.arange(data[..., 0].size).reshape(axes) % 2 == 1,
    }


def expected_of(policy: Any, state: Any, observation: Any, given: Any, axes: int) -> Any:
    def one(params: Any, state: Any, observation: Any, given: Any) -> Any:
        key = jax.random.wrap_key_data(given["key"]) if "key" in given else None
        return pc.act((params, policy[1]), state, observation, **{**given, "key": key})

    function = jax.vmap(one, (None, 0, 0, 0))
    return (jax.vmap(function) if axes == 2 else function)(policy[0], state, observation, given)


def assert_same(got: Any, expected: Any, rounding: float) -> None:
    assert jax.tree.structure(got) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        np.testing.assert_allclose(np.asarray(a, float), np.asarray(b, float), rtol=rounding, atol=rounding)


@pytest.mark.parametrize(
    ("name", "drawn"), [*((name, True) for name in DRAWN), *((name, False) for name in MODES)]
)
def test_what_is_read_back_acts_as_the_policy_does(name: str, drawn: bool) -> None:
    config = cases.CONFIGS[name]
    policy = policy_of(config)
    exported = stablehlo.export(policy, action_mask=True, key=drawn)
    assert exported.platforms == ("cpu", "cuda", "tpu")
    read = jax.export.deserialize(exported.serialize())
    for count in (1, 5):  # of one program
        observation, given = inputs_of(config, count)
        state = stacked(pc.reset(policy), count)
        state = jax.tree.map(lambda x: x + jnp.ones((), x.dtype), state)  # so that a reset is seen
        if not drawn:
            del given["key"]
        asked = given if jax.tree.leaves(state) else {k: v for k, v in given.items() if k != "is_first"}
        got = read.call(state, observation, **asked)
        assert_same(
            got, expected_of(policy, state, observation, given, 1), 2e-2 if "bfloat16" in name else 1e-5
        )


@pytest.mark.parametrize("name", ["squashed", "gru"])
def test_a_program_for_populations_takes_the_params_of_any(name: str) -> None:
    config = cases.CONFIGS[name]
    exported = stablehlo.export(policy_of(config), population="members", key=True, action_mask=True)
    read = jax.export.deserialize(exported.serialize())
    for members, count in ((2, 3), (4, 1)):
        policy = policy_of(config, members)
        observation, given = inputs_of(config, members, count)
        state = stacked(pc.reset(policy_of(config)), members, count)
        asked = given if jax.tree.leaves(state) else {k: v for k, v in given.items() if k != "is_first"}
        got = read.call(policy[0], state, observation, **asked)
        assert_same(got, expected_of(policy, state, observation, given, 2), 1e-5)
    again = stablehlo.export(policy, population="members", key=True, action_mask=True)
    lines = [re.sub(r"loc\(.*|#loc.*", "", program.mlir_module()) for program in (again, exported)]
    assert lines[0] == lines[1], "of a population it is not that of one policy"


@pytest.mark.parametrize("name", ["act box", "act nested", "gru"])
def test_the_program_passes_the_self_test_of_the_file(name: str, tmp_path: Path) -> None:
    policy = policy_of(cases.CONFIGS[name])
    pc.save(tmp_path / "policy", policy)
    rows = {row.path: np.asarray(row.array()) for row in read_document(tmp_path / "policy").self_test}
    read = jax.export.deserialize(stablehlo.export(policy, batch=None).serialize())
    state, count = pc.reset(policy), len(rows["entropy"])
    assert count == 8
    for i in range(count):
        first = {"is_first": jnp.array(False)} if jax.tree.leaves(state) else {}
        state, action = read.call(state, jnp.asarray(rows["observation"][i]), **first)
        paths = pc.trees.by_path({"env_action": action}, "action")
        assert paths.keys() == {path for path in rows if path.startswith("env_action")}
        for path, leaf in paths.items():
            np.testing.assert_allclose(leaf, rows[path][i], rtol=1e-5, atol=1e-5)


ALONE = """
import sys
sys.modules["policy_core"] = None  # an import of it fails
import jax, numpy
with open(sys.argv[1], "rb") as file:
    exported = jax.export.deserialize(bytearray(file.read()))
state = {"shared": numpy.zeros((3, 4), "float32")}
observation, first = numpy.ones((3, 3), "float32"), numpy.ones(3, bool)
print(*exported.call(state, observation, is_first=first)[1])
"""


def test_the_program_runs_without_this_package(tmp_path: Path) -> None:
    policy = policy_of(cases.CONFIGS["gru"])
    (tmp_path / "program").write_bytes(stablehlo.export(policy).serialize())
    command = [sys.executable, "-c", ALONE, str(tmp_path / "program")]
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    action = pc.act(policy, pc.reset(policy), jnp.ones(3))[1]
    assert (result.returncode, result.stdout.split()) == (0, [str(action)] * 3), result.stderr


def test_a_population_needs_a_name_for_its_axis() -> None:
    config = cases.CONFIGS["act box"]
    with pytest.raises(
        pc.errors.StructureError, match=r"got a population of \(2,\), expected one policy, or"
    ):
        stablehlo.export(policy_of(config, 2))
    with pytest.raises(pc.errors.StructureError, match=r"got a population of \(2, 3\), expected one axis"):
        stablehlo.export(policy_of(config, 2, 3), population="members")


def test_the_example_runs() -> None:
    assert doctest.testmod(stablehlo) == doctest.TestResults(failed=0, attempted=9)
