"""The self-test: outputs of a policy for a few observations, recorded when it is saved and replayed.

The observations are one episode: 8 samples of the space, then those of the user. Saved are the
observations, the deterministic policy actions, their environment actions, and the values (if there
is a critic), log-probabilities and entropies. Compared are continuous policy actions, and, for the
*saved* policy actions, the environment actions, values, log-probabilities and entropies. Discrete
modes are not compared: where two actions are equally probable, machines may differ in the mode.

Matrix products have the highest precision, whatever the default is: an accelerator that multiplies float32 in
fewer bits, as GPUs and TPUs do, would record outputs that no other machine has, and be off by 1e-3 itself.
"""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from policy_core.checks.structure import check_structure
from policy_core.contract import ActorCritic, Policy
from policy_core.errors import FileError, SelfTestError, StructureError
from policy_core.files.arrays import arrays_of, check_specs, rows_of
from policy_core.files.rows import Row
from policy_core.functions.step import forward, reset
from policy_core.trees import by_path, spec

OBSERVATIONS = 8


class Verification(NamedTuple):
    """The result of a self-test.

    Args:
        observations: number of observations; 0 if the file has no self-test.
        deviation: the largest difference from the saved outputs, relative to max(1, |saved|).
        where: the output with that difference.

    Example:
        >>> from policy_core.files import Verification
        >>> Verification(8, 0.0, "value").deviation
        0.0
    """

    observations: int
    deviation: float
    where: str


class _Outputs(NamedTuple):
    action: Any
    env_action: Any
    value: Any
    log_prob: Any
    entropy: Any


def record(policy: Policy, batch: tuple[int, ...], observations: PyTree) -> tuple[Row, ...]:
    """The rows of a self-test: run the policy and record its outputs.

    Raises:
        FileError: if the policy cannot act, or `observations` are not those of its space.
    """
    params, config = policy
    try:
        inputs = _sampled(config)
        if observations is not None:
            inputs = _joined(config, inputs, observations)
        outputs = _run(params, config, inputs, None, len(batch))
    except StructureError as error:
        raise FileError(f"self_test: {error}") from error
    except NotImplementedError as error:
        raise FileError(
            f"self_test: {type(config).__name__} cannot act ({error or 'NotImplementedError'}); save with "
            "self_test=False"
        ) from error
    return rows_of(by_path({"observation": inputs, **outputs._asdict()}, "self_test"))


def check(policy: Policy, batch: tuple[int, ...], rows: tuple[Row, ...], tolerance: float) -> Verification:
    """Run the self-test and compare with the recorded outputs.

    Raises:
        SelfTestError: if an output deviates by more than the tolerance, with the largest deviation; or
            if it is NaN or infinite and was not, at any tolerance.
    """
    if not tolerance >= 0:  # also for NaN, with which every comparison is false
        raise FileError(f"tolerance: got {tolerance}, expected a number of at least 0")
    if not rows or 0 in batch:  # nothing to run; else `count` would be whatever the file says
        return Verification(0, 0.0, "")
    params, config = policy
    saved = {row.path: row for row in rows}
    count = saved["entropy"].shape[-1] if "entropy" in saved and saved["entropy"].shape else 0
    observations_struct, outputs_struct = _structs(params, config, len(batch), count)
    expected = by_path({"observation": observations_struct, **outputs_struct._asdict()}, "self_test")
    check_specs(
        {row.path: (row.dtype, row.shape) for row in rows},
        {name: spec(leaf) for name, leaf in expected.items()},
        "self_test",
        "the config's self-test",
    )

    def tree(name: str, struct: PyTree) -> PyTree:
        paths = list(by_path({name: struct}, "self_test"))
        return jax.tree.unflatten(jax.tree.structure(struct), arrays_of([saved[path] for path in paths]))

    inputs, action = tree("observation", observations_struct), tree("action", outputs_struct.action)
    got = by_path(_run(params, config, inputs, action, len(batch))._asdict(), "self_test")
    worst, where = 0.0, "entropy"
    for name, array in got.items():
        then, now = np.asarray(saved[name].array()), np.asarray(array)
        if not jnp.issubdtype(now.dtype, jnp.floating):
            if name.startswith("env_action") and not np.array_equal(then, now):
                worst, where = math.inf, name
            continue
        if (off := _deviation(then.astype(np.float64), now.astype(np.float64))) > worst:
            worst, where = off, name
    if worst > tolerance or worst == math.inf:  # what is not finite and was so is within no tolerance
        raise SelfTestError(
            f"self-test: {where!r} is off by {worst:.3g}, at most {tolerance:g} is allowed, over "
            f"{count} observations; the policy does not act here as it did where it was saved"
        )
    return Verification(count, worst, where)


def given_observations(policy: Policy, rows: tuple[Row, ...]) -> PyTree:
    """The observations that a user added to a self-test, `[n, ...]`; None if there are none, or no self-test.

    Raises:
        FileError: if the observations are not those of the config's space.
    """
    _, config = policy
    found = {row.path: row for row in rows if row.path.partition("/")[0] == "observation"}
    struct = config.observation_space.struct()
    expected = {name: spec(leaf) for name, leaf in by_path({"observation": struct}, "self_test").items()}
    count = min((row.shape[0] for row in found.values() if row.shape), default=0)
    if count <= OBSERVATIONS:
        return None
    specs = {name: (row.dtype, row.shape) for name, row in found.items()}
    shapes = {name: (dtype, (count, *shape)) for name, (dtype, shape) in expected.items()}
    check_specs(specs, shapes, "self_test", "the config's observation space")
    arrays = arrays_of([found[name] for name in expected])
    return jax.tree.unflatten(jax.tree.structure(struct), [array[OBSERVATIONS:] for array in arrays])


@functools.partial(jax.jit, static_argnums=0)
def _sampled(config: ActorCritic) -> PyTree:
    keys = jax.random.split(jax.random.key(0), OBSERVATIONS)
    return jax.vmap(lambda key: config.observation_space.sample(key=key))(keys)


def _joined(config: ActorCritic, sampled: PyTree, given: PyTree) -> PyTree:
    first = jax.tree.map(lambda x: np.asarray(x)[0] if np.ndim(x) else np.asarray(x), given)
    check_structure(first, config.observation_space.struct(), "observations[0]")
    lengths = {np.shape(leaf)[:1] for leaf in jax.tree.leaves(given)}
    if len(lengths) > 1:
        raise FileError("observations: the leaves differ in their first axis, that of the observations")
    return jax.tree.map(lambda a, b: jnp.concatenate([a, jnp.asarray(b, a.dtype)]), sampled, given)


def _run(params: Any, config: Any, observations: Any, actions: Any, axes: int) -> _Outputs:
    """The outputs for a sequence of observations, for the given actions, or for the modes if None."""
    with jax.default_matmul_precision("highest"):
        outputs: _Outputs = _compiled(params, config, observations, actions, (0,) * axes)
    return outputs


@functools.partial(jax.jit, static_argnums=1)
def _compiled(params: Any, config: Any, observations: Any, actions: Any, axes: tuple[Any, ...]) -> _Outputs:
    def one(params: Any, actions: Any) -> _Outputs:
        def step(state: Any, inputs: Any) -> tuple[Any, _Outputs]:
            observation, action = inputs
            state, distribution, prediction = forward((params, config), state, observation)
            mode = distribution.mode()
            action = mode if action is None else action
            score = distribution.log_prob(action), distribution.entropy()
            value = None if prediction is None else prediction.value()
            return state, _Outputs(mode, config.env_action(action), value, *score)

        state = reset((params, config))
        if jax.tree.leaves(state):
            return jax.lax.scan(step, state, (observations, actions))[1]
        return jax.vmap(lambda inputs: step(state, inputs)[1])((observations, actions))

    for _ in axes:
        one = jax.vmap(one)
    return one(params, actions)


def _structs(params: Any, config: Any, axes: int, count: int) -> tuple[PyTree, _Outputs]:
    observations = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct((count, *leaf.shape), leaf.dtype), config.observation_space.struct()
    )
    return observations, jax.eval_shape(lambda p, o: _run(p, config, o, None, axes), params, observations)


def _deviation(then: np.ndarray, now: np.ndarray) -> float:
    """The largest difference relative to max(1, |then|); inf if a NaN or infinity is not the same."""
    same = (then == now) | (np.isnan(then) & np.isnan(now))
    with np.errstate(all="ignore"):
        off = np.where(same, 0.0, np.abs(then - now) / np.maximum(1.0, np.abs(then)))
    return float(np.max(np.where(np.isnan(off), np.inf, off), initial=0.0))
