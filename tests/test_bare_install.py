"""The NumPy runner by the two lines of docs/files.md, in an environment that has nothing else."""

import json
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import policy_core as pc

ROOT = Path(__file__).parent.parent
GOLDEN = ROOT / "tests" / "golden" / "v1-policy.msgpack"
UNREACHABLE = ("No matching distribution", "Could not find a version", "Connection", "Timeout", "timed out")

ACT = """
import importlib.util, json, sys
import numpy as np
from policy_core_adapters import numpy_runner

path, observations = sys.argv[1], json.loads(sys.argv[2])
runner = numpy_runner.load(path)
state, actions, values = runner.reset(), [], []
for i, observation in enumerate(observations):
    observation = np.array(observation, np.float32)
    actions.append(runner.act(state, observation, is_first=i == 0)[1])
    state, value = runner.value(state, observation, is_first=i == 0)
    values.append(float(value))
absent = [name for name in ("jax", "jaxlib", "msgpack", "chex") if importlib.util.find_spec(name) is None]
print(json.dumps([actions, values, absent, sorted(sys.modules)], default=lambda x: np.asarray(x).tolist()))
"""


def _lines_of_the_docs() -> list[list[str]]:
    """The commands that docs/files.md gives."""
    section = (ROOT / "docs" / "files.md").read_text().partition("## Without JAX")[2]
    commands = section.partition("```\n")[2].partition("```")[0].splitlines()
    return [line.split() for line in commands]


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A Python with NumPy and this project without its dependencies; a skip where no index is reached."""
    folder = tmp_path_factory.mktemp("bare") / "env"
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True, timeout=120)
    python = str(folder / "bin" / "python")
    commands = _lines_of_the_docs()
    assert [command[:2] for command in commands] == [["pip", "install"]] * 2
    for _, *arguments in commands:
        options = ["--quiet", "--disable-pip-version-check", "--retries", "1", "--timeout", "10"]
        command = [python, "-m", "pip", *arguments, *options]
        try:
            result = subprocess.run(
                command, cwd=ROOT, capture_output=True, text=True, timeout=150, check=False
            )
        except subprocess.TimeoutExpired:
            pytest.skip(f"{' '.join(arguments)}: no answer from the package index in 150 s")
        if result.returncode and any(text in result.stderr for text in UNREACHABLE):
            pytest.skip(f"{' '.join(arguments)}: no package index: {result.stderr.splitlines()[-1]}")
        assert result.returncode == 0, result.stderr
    return python


def test_the_numpy_runner_acts_where_there_is_no_jax(python, tmp_path):
    policy = pc.load(GOLDEN)
    struct = policy[1].observation_space.struct()
    observations = np.random.default_rng(0).normal(size=(4, *struct.shape)).astype(np.float32)
    script = [python, "-c", ACT, str(GOLDEN), json.dumps(observations.tolist())]
    result = subprocess.run(script, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert (result.returncode, result.stderr) == (0, "")
    actions, values, absent, modules = json.loads(result.stdout)
    assert absent == ["jax", "jaxlib", "msgpack", "chex"]
    assert "policy_core" not in modules
    state, step = pc.reset(policy), jax.jit(lambda *args: (pc.act(*args), pc.value(*args)))
    for observation, action, value in zip(observations, actions, values, strict=True):
        (_, expected), (state, ours) = step(policy, state, jnp.asarray(observation))
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), expected, action)
        np.testing.assert_allclose(value, ours, rtol=1e-5, atol=1e-5)
