"""Policies lowered to graphs act as `act` does; the graphs are computed by NumPy here."""

import jax
import numpy as np
import pytest
from exported import ALL, CONFIGS, COUNT, MASKS, REFUSED, at, close, named, policy_of, saved, steps_of
from policy_core_adapters.exports.graph import evaluate
from policy_core_adapters.exports.lowering import lower

import policy_core as pc

pytestmark = pytest.mark.usefixtures("unchecked")  # beartype doubles the time to trace


def _feeds(lowered, steps, states):
    """The inputs of all steps at once, each from the state that JAX was in before it."""
    feeds = {**named(steps.observations, "observation"), **states}
    if "is_first" in lowered.graph.inputs:
        feeds["is_first"] = steps.is_first
    if lowered.masks:
        feeds |= named(steps.masks, "action_mask")
    return {name: np.asarray(feeds[name]) for name in lowered.graph.inputs}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_lowered_policy_acts_as_it_does(name, tmp_path):
    policy = policy_of(CONFIGS[name])
    path = saved(policy, tmp_path / "file")
    beta = "beta" in name
    outputs = ("action", "policy_action", "value", *([] if beta else ["log_prob"]))
    lowered = lower(path, outputs=outputs, masks="rows", is_first=True, mask_functions=MASKS)
    steps = steps_of(policy)
    before = jax.tree.map(
        lambda start, after: np.concatenate([np.asarray(start)[None], after[:-1]]),
        pc.reset(policy),
        steps.states,
    )
    got = evaluate(lowered.graph, _feeds(lowered, steps, named(before, "state")))
    wanted = named(steps.actions, "action") | named(steps.states, "next_state")
    wanted |= {"value": steps.values}
    assert set(wanted) <= set(got)
    same = np.ones(COUNT, bool)
    for key, want in named(steps.actions, "action").items():
        assert (got[key].shape, got[key].dtype) == (want.shape, want.dtype), key
        if want.dtype.kind != "f" or name in WITH_TIES:
            apart = ~np.isclose(got[key], want, rtol=1e-5, atol=1e-5).reshape(COUNT, -1).all(1)
            same &= ~apart
        else:
            assert close(got[key], want), key
    assert (~same).sum() <= COUNT // 200, "more than ties"
    for key in wanted.keys() - named(steps.actions, "action").keys():
        assert (got[key].shape, got[key].dtype) == (wanted[key].shape, wanted[key].dtype), key
        assert close(got[key], wanted[key]), (key, np.abs(got[key] - wanted[key]).max())
    if not beta:
        assert close(got["log_prob"][same], steps.log_probs[same]), np.abs(
            got["log_prob"] - steps.log_probs
        ).max()


WITH_TIES = ("temperature", "autoregressive", "autoregressive bins", "bins")  # discrete parts that others see
