"""Right uses: mypy --strict and pyright accept every line."""

from typing import Any, TypeVar, assert_type

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
assert_type(same_config, pc.ActorCriticConfig)
width: pc.contract.Network | None = policy[1].actor
loaded = pc.load("policy.msgpack", config)
assert_type(loaded, tuple[dict[str, Any], pc.ActorCriticConfig])
assert_type(pc.from_bytes(b"", config), tuple[dict[str, Any], pc.ActorCriticConfig])
space: pc.contract.Space = pc.load("policy.msgpack")[1].action_space
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


@pc.static
class Bandit:
    """A policy of one's own, with params that are an array."""

    arms: int

    @property
    def observation_space(self) -> pc.Tuple:
        return pc.Tuple(())

    @property
    def action_space(self) -> pc.Discrete:
        return pc.Discrete(self.arms)

    def init(self, *, key: pc.contract.Key) -> jax.Array:
        return jnp.zeros(self.arms)

    def initial_state(self, params: jax.Array, *, key: pc.contract.Key | None = None) -> tuple[()]:
        return ()

    def forward(
        self,
        params: jax.Array,
        state: tuple[()],
        observation: tuple[()],
        *,
        action_mask: pc.contract.Mask = None,
    ) -> tuple[tuple[()], pc.distributions.Categorical, None]:
        return (), pc.distributions.Categorical(params, action_mask, self.action_space), None

    def env_action(self, action: jax.Array) -> jax.Array:
        return action

    def policy_action(self, env_action: jax.Array) -> jax.Array:
        return env_action


bandit = pc.init(Bandit(arms=3), key=jax.random.key(0))
assert_type(bandit, tuple[jax.Array, Bandit])
assert_type(pc.reset(bandit), tuple[()])

Params = TypeVar("Params")


def trainer(
    config: pc.contract.ActorCritic[Params, Any, Any, Any], expected: pc.contract.ActorCritic
) -> Params:
    """Of a config of which no more is known than the contract."""
    fresh = pc.init(config, key=jax.random.key(0))
    pc.act(fresh, pc.reset(fresh), jnp.zeros(4))
    pc.act(pc.load("policy.msgpack", expected), (), jnp.zeros(4))
    return fresh[0]
