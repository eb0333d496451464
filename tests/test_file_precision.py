"""Files of policies in 64 bits, read by processes whose JAX has 64, and by those whose JAX has 32."""

import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from by_hand import closed, opened
from cases import SPACES, config

import policy_core as pc
from policy_core.errors import FileError, FingerprintError

pytestmark = pytest.mark.usefixtures("unchecked")  # beartype doubles the time to trace

ROOT = Path(__file__).parent.parent
OBSERVATION = pc.Box(low=-1.0, high=1.0, shape=(3,), dtype="float64")


def _config(**dtypes: str) -> Any:
    return config(SPACES["box"], OBSERVATION, memory=pc.GRU(2), temperature=2.0, **dtypes)


NARROW = _config()
WIDE = """
import sys
import jax, jax.numpy as jnp
import policy_core as pc
from cases import config, SPACES
from test_file_precision import _config

folder, both = sys.argv[1], _config(param_dtype="float64", compute_dtype="float64")
params = pc.init(both, key=jax.random.key(0))[0]
params["actor"]["head"]["bias"] += 1 / 3
pc.save(folder + "/both", (params, both))
again = pc.load(folder + "/both", both, self_test=True)[0]
assert params["actor"]["head"]["bias"].dtype == "float64"
assert jax.tree.all(jax.tree.map(lambda a, b: a.dtype == b.dtype and (a == b).all(), again, params))
same = pc.load(folder + "/both", both, narrow=True)[0]
assert same["actor"]["head"]["bias"].dtype == "float64", "64 bits are there: nothing to narrow"
pc.save(folder + "/population", (jax.tree.map(lambda x: jnp.stack([x, 2 * x]), params), both), self_test=False)
params["actor"]["head"]["bias"] = params["actor"]["head"]["bias"].at[1].set(1e39)
pc.save(folder + "/beyond", (params, both), self_test=False)
compute = _config(compute_dtype="float64")
pc.save(folder + "/compute", pc.init(compute, key=jax.random.key(0)), self_test=False)
"""


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """A folder of files that a 64-bit process wrote."""
    folder = tmp_path_factory.mktemp("wide")
    result = subprocess.run(
        [sys.executable, "-c", WIDE, str(folder)],
        cwd=ROOT,
        env={**os.environ, "JAX_ENABLE_X64": "1", "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"},
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stderr.decode()
    return folder


@pytest.mark.parametrize(
    ("name", "found"),
    [("both", "the leaf 'actor/head/bias' is float64"), ("compute", "the config computes in float64")],
)
def test_64_bits_are_refused_by_a_32_bit_process_with_advice(wide, name, found):
    message = rf"^file: {found}, and JAX has 32 bits in this process; set jax_enable_x64 .* narrow=True"
    for read in (pc.load, pc.verify, lambda path: pc.from_bytes(path.read_bytes())):
        with pytest.raises(FileError, match=message):
            read(wide / name)


def test_64_bits_are_rounded_where_that_is_asked_for(wide):
    params, loaded = policy = pc.load(wide / "both", narrow=True, self_test=True)
    assert loaded == NARROW
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    saved = {name: leaf for name, *leaf in _rows(wide / "both")}
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        assert np.array_equal(leaf, np.asarray(saved[name][0], np.float32)), "rounded to nearest"
    assert pc.fingerprint(loaded) == pc.fingerprint(NARROW)
    pc.act(policy, pc.reset(policy), jnp.ones(3))
    assert pc.load(wide / "both", NARROW, narrow=True)[1] == NARROW
    with pytest.raises(FingerprintError, match="param_dtype"):
        pc.load(wide / "both", _config(param_dtype="float64", compute_dtype="float64"), narrow=True)
    assert pc.load(wide / "compute", narrow=True)[1] == NARROW
    population, _ = pc.load(wide / "population", narrow=True)
    assert np.array_equal(jax.tree.leaves(population)[0][0], jax.tree.leaves(params)[0])


def test_the_self_test_notices_what_rounding_did(wide, tmp_path):
    document = opened((wide / "both").read_bytes())
    for row in document["self_test"]:
        if row[0] == "value":
            row[3] = (np.frombuffer(row[3]) + 0.01).tobytes()
    (tmp_path / "file").write_bytes(closed(document))
    with pytest.raises(FileError, match=r"^self-test: 'value' is off by 0.01"):
        pc.load(tmp_path / "file", narrow=True, self_test=True)


def test_what_32_bits_cannot_hold_is_refused(wide):
    message = r"^leaves: the leaf 'actor/head/bias' holds 1e\+39, which is beyond float32; set jax_enable_x64"
    with pytest.raises(FileError, match=message):
        pc.load(wide / "beyond", narrow=True)


LARGEST = float(np.finfo(np.float32).max)
HALFWAY = LARGEST + 2.0**103  # to 2^128, to which it is rounded: infinity


def test_a_float_is_rounded_or_refused_and_never_becomes_infinite(tmp_path):
    params = jax.tree.map(jnp.zeros_like, jax.eval_shape(lambda: NARROW.init(key=jax.random.key(0))))
    data = pc.to_bytes((params, NARROW))

    def load(table: str, path: str, numbers: list[float]) -> Any:
        """The policy of a file of which one row is float64, with these numbers."""
        document = opened(data)
        row = next(row for row in document[table] if row[0] == path)
        row[1], row[3] = "float64", np.resize(numbers, row[2]).tobytes()
        (tmp_path / "file").write_bytes(closed(document))
        return pc.load(tmp_path / "file", narrow=True)

    for held in ([math.inf, -math.inf, LARGEST], [math.nan, 1e-60, -LARGEST]):
        bias = load("leaves", "actor/head/bias", held)[0]["actor"]["head"]["bias"]
        np.testing.assert_array_equal(bias, np.array(held, np.float32))
    for number in (HALFWAY, -HALFWAY, 1e39):
        with pytest.raises(FileError, match=r"^leaves: the leaf 'actor/head/bias' holds .*beyond float32"):
            load("leaves", "actor/head/bias", [0.0, number, math.inf])
    with pytest.raises(
        FileError, match=r"^self_test: the leaf 'value' holds 1e\+39, which is beyond float32"
    ):
        load("self_test", "value", [1e39])


def test_nothing_is_done_to_a_policy_in_32_bits(tmp_path):
    policy = pc.init(NARROW, key=jax.random.key(0))
    pc.save(tmp_path / "file", policy, self_test=False)
    loaded = pc.load(tmp_path / "file", NARROW, narrow=True)
    assert pc.to_bytes(loaded, self_test=False) == pc.to_bytes(policy, self_test=False)


def _rows(path: Path) -> Any:
    return [
        (row[0], np.frombuffer(row[3], row[1]).reshape(row[2])) for row in opened(path.read_bytes())["leaves"]
    ]
