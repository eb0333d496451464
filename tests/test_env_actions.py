"""Policies in environment actions: for trainers that store what they play."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from policy_core_adapters import numpy_runner

import policy_core as pc
from policy_core.env_actions import InEnvActions
from policy_core.errors import StructureError
from policy_core.testing import Case, check_policy, checks

pytestmark = pytest.mark.usefixtures("unchecked")  # beartype doubles the time to trace

BOX = pc.Box(low=(-2.0, 0.0), high=(2.0, 1.0), shape=(2,))
SMALL = {"observation_space": pc.Box(shape=(3,)), "actor": pc.MLP((4,)), "critic": pc.MLP((4,))}
STATE = pc.Scale(std="state", log_std=-0.5)
CONFIGS: dict[str, Any] = {
    "squashed": pc.ActorCriticConfig(action_space=BOX, box_head=pc.SquashedNormalHead(STATE), **SMALL),
    "beta": pc.ActorCriticConfig(action_space=BOX, box_head=pc.BetaHead(), **SMALL),
    "bins": pc.ActorCriticConfig(action_space=BOX, box_head=pc.BinsHead(5), **SMALL),
    "parts": pc.ActorCriticConfig(
        action_space=pc.Dict({"go": pc.Discrete(3), "by": BOX}), box_head=pc.SquashedNormalHead(),
        memory=pc.GRU(4), normalize=pc.Normalize(), temperature=1.0, **SMALL,
    ),
}  # fmt: skip


def policy_of(name: str) -> tuple[Any, Any]:
    inner = pc.init(CONFIGS[name], key=jax.random.key(0))
    noisy = jax.tree.map(lambda leaf: leaf + 0.3 * jnp.cos(jnp.arange(leaf.size, dtype=leaf.dtype)).reshape(leaf.shape),
                         {"actor": inner[0]["actor"]})  # fmt: skip
    inner = {**inner[0], **noisy}, inner[1]
    return inner, (inner[0], InEnvActions(inner[1]))


def test_the_contract_is_kept():
    check_policy(InEnvActions(CONFIGS["parts"]))


@pytest.mark.parametrize("name", [name for name in CONFIGS if name != "parts"])
def test_masks_of_a_head_hold(name):
    """The ratio is below; what is left of the contract does not depend on the head."""
    case = Case(InEnvActions(CONFIGS[name]))
    checks.check_shapes(case)
    checks.check_masks(case)


@pytest.mark.parametrize("name", CONFIGS)
def test_what_is_stored_is_what_is_played_and_scored_as_it_was_drawn(name):
    inner, policy = policy_of(name)
    observations = jax.random.normal(jax.random.key(1), (256, 3))
    keys = jax.random.split(jax.random.key(2), 256)

    @jax.jit
    @jax.vmap
    def both(observation: Any, key: Any) -> Any:
        _, drawn, _, log_prob = pc.action_and_value(inner, pc.reset(inner), observation, key=key)
        theirs = pc.env_action(inner, drawn), log_prob
        _, action, _, log_prob = pc.action_and_value(policy, pc.reset(policy), observation, key=key)
        again = pc.evaluate_action(policy, pc.reset(policy), observation, action)[2]
        return theirs, (action, log_prob), pc.env_action(policy, action), again

    (expected, exact), (action, log_prob), played, again = both(observations, keys)
    for a, b, c in zip(*map(jax.tree.leaves, (expected, action, played)), strict=True):
        assert np.array_equal(a, b)
        assert np.array_equal(b, c)
    assert np.array_equal(log_prob, again)  # the ratio of an unchanged policy is 1
    assert np.max(np.abs(log_prob - exact)) < 1e-4


def test_sequences_statistics_and_files_are_those_of_the_config(tmp_path):
    inner, policy = policy_of("parts")
    observations = jax.random.normal(jax.random.key(1), (6, 3))
    first = jnp.array([True, False, False, True, False, False])
    actions = jax.vmap(lambda key: CONFIGS["parts"].action_space.sample(key=key))(
        jax.random.split(jax.random.key(3), 6)
    )
    _, values, log_probs, _ = pc.evaluate_sequence(
        policy, pc.reset(policy), observations, actions, is_first=first
    )
    theirs = jax.vmap(lambda action: pc.policy_action(inner, action))(actions)
    _, expected, scores, _ = pc.evaluate_sequence(
        inner, pc.reset(inner), observations, theirs, is_first=first
    )
    assert np.allclose(values, expected, atol=1e-6)
    assert np.allclose(log_probs, scores, atol=1e-5)
    assert pc.update_statistics(policy, observations)[0]["normalize"]["count"][0, 0] == 6
    assert pc.trainable(policy)[0]["temperature"] is False
    assert pc.actor_only(policy)[1].config.critic is None
    pc.save(tmp_path / "file", policy)
    assert pc.load(tmp_path / "file", policy[1])[1].config == CONFIGS["parts"]
    assert pc.verify(tmp_path / "file").deviation < 1e-5
    runner, observation = numpy_runner.load(tmp_path / "file"), np.asarray(observations[0])
    _, played = pc.act(policy, pc.reset(policy), observations[0])
    assert np.allclose(runner.act(runner.reset(), observation)[1]["by"], played["by"], atol=1e-5)
    with pytest.raises(pc.errors.FingerprintError):
        pc.load(tmp_path / "file", CONFIGS["parts"])


def test_a_distribution_leaves_a_vmap():
    _, policy = policy_of("squashed")
    observations = jax.random.normal(jax.random.key(1), (2, 5, 3))
    distribution = jax.vmap(jax.vmap(lambda x: pc.action_distribution(policy, (), x)[1]))(observations)
    action, log_prob = distribution.sample_and_log_prob(key=jax.random.key(0))
    assert (action.shape, log_prob.shape, distribution.mode().shape) == ((2, 5, 2), (2, 5), (2, 5, 2))
    assert np.array_equal(distribution.log_prob(action), log_prob)
    assert np.allclose(distribution.kl(distribution), 0, atol=1e-6)


def test_what_is_no_policy_is_refused():
    with pytest.raises(pc.errors.ConfigError, match=r"^InEnvActions\.config: got MLP"):
        InEnvActions(pc.MLP())
    assert InEnvActions(CONFIGS["beta"]).name == "ActorCriticConfig"
    assert issubclass(StructureError, ValueError)
