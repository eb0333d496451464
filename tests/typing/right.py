"""Right uses: mypy --strict and pyright accept every line."""

from typing import assert_type

import jax
import jax.numpy as jnp

import policy_core as pc

config = pc.ActorCriticConfig(
    observation_space=pc.Box(shape=(4,)),
    action_space=pc.Discrete(2),
    actor=pc.MLP((64, 64), activation="relu"),
)
policy = pc.init(config, key=jax.random.key(0))
params, same_config = policy
state = pc.reset(policy)
observation = jnp.zeros(4)

state, action = pc.act(policy, state, observation)
state, action, value, log_prob = pc.action_and_value(policy, state, observation, key=jax.random.key(1))
state, value, log_prob, entropy = pc.evaluate_action(policy, state, observation, action)
assert_type(value, jax.Array)
state, distribution = pc.action_distribution(policy, state, observation)
divergence = distribution.kl(distribution)
state, values, log_probs, entropies = pc.evaluate_sequence(
    policy, state, jnp.zeros((3, 4)), jnp.zeros(3, int), is_first=jnp.zeros(3, bool)
)
assert_type(pc.fingerprint(config), bytes)
state, distribution, critic = pc.forward(policy, state, observation)
if critic is not None:
    assert_type(critic.loss(value), jax.Array)
conforms: pc.contract.ActorCritic[dict[str, object], object, object, object] = config

recurrent = pc.ActorCriticConfig(
    observation_space=pc.Box(shape=(4,)),
    action_space=pc.Discrete(2),
    memory=pc.Stack((pc.GRU(8), pc.WindowAttention(8, window=4)), residual=True),
    memory_sharing="separate",
    value_head=pc.TwoHotHead(low=-10.0, high=10.0, objectives=2),
)
sequences: pc.contract.SequenceActorCritic[dict[str, object], object, object, object] = recurrent
normalizing: pc.contract.NormalizingActorCritic[dict[str, object], object, object, object] = recurrent
detachable: pc.contract.DetachableActorCritic[dict[str, object], object, object, object] = recurrent
memory: pc.contract.Memory = pc.MinGRU(8)
head: pc.contract.ValueHead = pc.HLGaussHead(low=0.0, high=1.0)
network: pc.contract.Network = pc.ResidualMLP(64)
