"""examples/finetune.py, in short: where it begins, and that it goes on from there."""

import finetune
import jax
import jax.numpy as jnp
import numpy as np
import ppo
import pytest
from evaluate import evaluate
from policy_core_adapters import gymnax
from policy_core_adapters.imports import sb3

import policy_core as pc

pytestmark = [
    pytest.mark.filterwarnings("default"),  # other people's warnings are theirs
    pytest.mark.usefixtures("unchecked", "lenient"),
]


def test_training_goes_on_from_what_was_imported():
    env = gymnax.make("CartPole-v1")
    policy = sb3.load(finetune.HERE / "sb3_cartpole.zip").policy
    # As long as it stood with Stable-Baselines3, which measured 115.9 over 50 episodes, with a deviation of 56.
    returns = jax.jit(lambda policy: evaluate(policy, env, jax.random.key(0), 50, 500))(policy)
    assert 80 < float(returns.mean()) < 160
    hyper = ppo.Hyperparameters(num_updates=1, num_envs=4, num_steps=4, num_epochs=1, num_minibatches=1, learning_rate=0.0)  # fmt: skip
    before = jax.tree.map(np.asarray, policy[0])
    same, config = finetune.finetune(policy, env, hyper, jax.random.key(0))
    assert config == policy[1]
    assert jax.tree.all(jax.tree.map(lambda a, b: bool(jnp.array_equal(a, b)), same, before))
    moved, _ = finetune.finetune(
        policy, env, hyper._replace(learning_rate=1e-3, num_updates=2), jax.random.key(0)
    )
    steps = [
        float(jnp.abs(a - b).max())
        for a, b in zip(jax.tree.leaves(moved), jax.tree.leaves(before), strict=True)
    ]
    assert min(steps) > 0
    assert max(steps) < 1e-2  # two steps of Adam from there, not a policy of its own
    assert pc.surgery.leaves((moved, config)).keys() == pc.surgery.leaves(policy).keys()
