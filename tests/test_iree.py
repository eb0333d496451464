"""StableHLO of a policy in IREE: compiled, and run by a program that has neither Python nor JAX."""

import subprocess
import sysconfig
from pathlib import Path
from typing import Any

import cases
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from policy_core_adapters.exports import stablehlo

import policy_core as pc

pytestmark = pytest.mark.usefixtures("unchecked")
TOOLS = Path(sysconfig.get_path("scripts"))
if not (TOOLS / "iree-compile").exists() or not (TOOLS / "iree-run-module").exists():
    pytest.skip("iree-base-compiler and iree-base-runtime are not installed", allow_module_level=True)

NAMES = (
    "act nested", "two memories", "attention of the actor", "autoregressive", "beta", "normalized",
    "image", "parts",
)  # fmt: skip


def run(*command: Any) -> None:
    result = subprocess.run([str(x) for x in command], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def through_files(folder: Path, leaves: list[Any], outputs: int) -> list[Any]:
    """What the compiled program makes of the arrays, each passed in a file."""
    options = ["--device=local-sync", f"--module={folder / 'policy.vmfb'}", "--function=main"]
    for i, leaf in enumerate(leaves):
        np.save(folder / f"in{i}.npy", np.asarray(leaf))
        options.append(f"--input=@{folder / f'in{i}.npy'}")
    options += [f"--output=@{folder / f'out{i}.npy'}" for i in range(outputs)]
    run(TOOLS / "iree-run-module", *options)
    return [np.load(folder / f"out{i}.npy") for i in range(outputs)]


@pytest.mark.parametrize("name", NAMES)
def test_iree_runs_the_text_and_acts_as_the_policy_does(name: str, tmp_path: Path) -> None:
    config = cases.CONFIGS[name]
    rng = np.random.default_rng(0)
    struct = jax.eval_shape(lambda: config.init(key=jax.random.key(0)))
    params = jax.tree.map(lambda leaf: jnp.asarray(0.5 * rng.standard_normal(leaf.shape), leaf.dtype), struct)
    policy = params, config
    exported = stablehlo.export(policy, batch=None, action_mask=True, platforms=("cpu",))
    (tmp_path / "policy.mlir").write_text(exported.mlir_module())
    run(
        TOOLS / "iree-compile", "--iree-input-type=stablehlo", "--iree-hal-target-device=local",
        "--iree-hal-local-target-device-backends=llvm-cpu", tmp_path / "policy.mlir",
        "-o", tmp_path / "policy.vmfb",
    )  # fmt: skip
    state = pc.reset(policy)
    for step in range(4):
        observation = config.observation_space.sample(key=jax.random.key(step))
        mask = jax.tree.map(
            lambda row: jnp.asarray(rng.random(row.shape) < 0.6), config.action_space.full_mask()
        )
        first = {"is_first": jnp.array(step == 2)} if jax.tree.leaves(state) else {}
        expected = pc.act(policy, state, observation, action_mask=mask, **first)
        wanted, tree = jax.tree.flatten(expected)
        given = jax.tree.leaves((state, observation, {"action_mask": mask, **first}))
        got = through_files(tmp_path, given, len(wanted))
        for a, b in zip(got, wanted, strict=True):
            assert a.dtype == b.dtype
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
        state = jax.tree.unflatten(tree, map(jnp.asarray, got))[0]
