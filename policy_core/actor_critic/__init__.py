"""The shipped implementation of `ActorCritic`.

plan     the branches from the observation to the towers, and the head, derived once
config   `ActorCriticConfig`
"""

from policy_core.actor_critic.config import ActorCriticConfig as ActorCriticConfig
