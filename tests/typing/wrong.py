"""Wrong uses, each under its name: mypy and pyright must complain about every one."""

import jax
import jax.numpy as jnp

import policy_core as pc

config = pc.ActorCriticConfig(observation_space=pc.Box(shape=(4,)), action_space=pc.Discrete(2))
policy = pc.init(config, key=jax.random.key(0))
state = pc.reset(policy)
observation = jnp.zeros(4)
# ---

# the key is keyword-only
pc.init(config, jax.random.key(0))

# the state is forgotten
pc.act(policy, observation)

# a keyword is misspelled
pc.act(policy, state, observation, mask=None)

# two results are taken where there are four
state, action = pc.action_and_value(policy, state, observation, key=None)

# the parameters are passed without the config
pc.act(policy[0], state, observation)

# the pair is turned round
pc.act((policy[1], policy[0]), state, observation)

# a field is assigned
config.actor_gain = 1.0

# a field is misspelled
pc.MLP(hidden_sizes=(64,))

# a list is given for a tuple
pc.MLP([64, 64])

# a config field is positional
pc.Discrete(3, 1)

# a choice is misspelled
pc.Scale(std="learned")

# is_first is missing
pc.evaluate_sequence(policy, state, observation, observation)

# what is no policy config is initialized
pc.init(pc.MLP(), key=jax.random.key(0))

# a policy is loaded as something else
loaded: int = pc.load("policy.msgpack", config)
