"""Whether an imported policy is that of its library: by the criterion of docs/exchange.md."""

import atexit
import functools
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from policy_core_adapters import numpy_runner

import policy_core as pc

FIXTURES = Path(__file__).parent / "fixtures"


def names(library: str, ending: str) -> list[str]:
    """The files of a library that end so."""
    with tarfile.open(FIXTURES / f"{library}.tar.xz") as tar:
        return sorted(name for name in tar.getnames() if name.endswith(ending))


@functools.cache
def unpacked(library: str) -> Path:
    """The folder of its files, for this process."""
    place = tempfile.TemporaryDirectory()
    atexit.register(place.cleanup)
    with tarfile.open(FIXTURES / f"{library}.tar.xz") as tar:
        tar.extractall(place.name, filter="data")
    return Path(place.name)


LEAST = 1e-6  # what is allowed in any case, relative to max(1, |reference|)


def deviation(got: Any, exact: Any) -> float:
    """The largest difference, relative to max(1, |exact|)."""
    got, exact = np.asarray(got, np.float64), np.asarray(exact, np.float64)
    assert got.shape == exact.shape, f"{got.shape} and {exact.shape}"
    return float(np.max(np.abs(got - exact) / np.maximum(1, np.abs(exact)), initial=0))


def outputs(policy: Any, x: Any, actions: Any, masks: Any, first: Any) -> dict[str, Any]:
    """What a policy computes for a sequence of observations, or for each of them if `first` is None."""
    count = len(jax.tree.leaves(x)[0])
    first = np.ones(count, bool) if first is None else first

    @jax.jit
    def compute(x: Any, actions: Any, masks: Any, first: Any) -> Any:
        state = pc.reset(policy)
        _, distribution, value = pc.forward_sequence(policy, state, x, is_first=first, action_masks=masks)
        each: dict[str, Any] = {
            "mode": jax.vmap(lambda d: d.mode())(distribution),
            "predict": jax.vmap(lambda d: pc.env_action(policy, d.mode()))(distribution),
            "entropy": jax.vmap(lambda d: d.entropy())(distribution),
        }
        if actions is not None:
            each["log_prob"] = jax.vmap(lambda d, a: d.log_prob(a))(distribution, actions)
        return each if value is None else {**each, "value": value.value()}

    return jax.tree.map(np.asarray, compute(x, actions, masks, jnp.asarray(first)))


def check(found: Any, expected: dict[str, Any], x: Any, masks: Any, folder: Path) -> dict[str, float]:
    """Compare an import with the outputs of its library in float64, and the NumPy runner with both.

    Args:
        found: the import.
        expected: the arrays of the file: "mode", "predict", "value", "log_prob" (of "sample") and "entropy", as
            many as there are, and as "mode_error" that of the library's own float32; "first" for sequences.
        x: the observations, as the policy has them.
        masks: likewise, or None.
        folder: for a file.

    Returns:
        The largest deviation of each output.
    """
    x = jax.tree.map(lambda leaf: leaf.astype(np.float32) if leaf.dtype == np.float64 else leaf, x)
    x = jax.tree.map(lambda leaf: leaf.astype(np.int32) if leaf.dtype in (np.int64, np.int8) else leaf, x)
    sample = expected.get("sample")
    if sample is not None:
        struct = jax.eval_shape(
            lambda: (
                found.policy[1]
                .plan.head.policy_space(found.policy[1].action_space)
                .sample(key=jax.random.key(0))
            )
        )
        sample = np.asarray(sample).astype(struct.dtype).reshape(len(sample), *struct.shape)
    first = expected.get("first")
    got = outputs(found.policy, x, sample, masks, first)
    result = {}
    for name in sorted(got.keys() & expected.keys()):
        exact = expected[name]
        if np.issubdtype(got[name].dtype, np.floating):
            result[name] = deviation(got[name].reshape(np.shape(exact)), exact)
            error = float(expected.get(f"{name}_error", expected.get("mode_error", 0)))
            assert result[name] <= max(3 * error, LEAST), f"{name}: {result[name]}, of the original {error}"
        else:
            result[name] = float(np.count_nonzero(got[name].reshape(np.shape(exact)) != exact))
            assert result[name] == 0, name  # the two best logits are nowhere nearer than 1e-5
    pc.save(folder / "file", found.policy, metadata=found.metadata)
    runner = numpy_runner.load(folder / "file")
    state = runner.reset()
    for i in range(len(jax.tree.leaves(x)[0])):
        if first is None or first[i]:
            state = runner.reset()
        mask = jax.tree.map(lambda leaf, i=i: leaf[i], masks)
        state, action = runner.act(state, jax.tree.map(lambda leaf, i=i: leaf[i], x), action_mask=mask)
        exact = got["predict"][i]
        if np.issubdtype(exact.dtype, np.floating):
            assert deviation(action, exact) <= max(3 * float(expected.get("mode_error", 0)), 3 * LEAST)
        else:
            assert np.array_equal(action, exact)
    return result
