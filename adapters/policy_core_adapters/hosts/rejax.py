"""rejax (0.1.3): the actor and the critic of its PPO.

    algo = rejax.PPO.create(env=env, env_params=env_params, ...)
    algo = algo.replace(**agent(config))
    state, evaluation = jax.jit(algo.train)(jax.random.key(0))
    pc.save("policy.msgpack", policy_of(config, state))

rejax has a train state for each, so actor and critic can share no params that are trained.
"""

from dataclasses import dataclass
from typing import Any

import jax

import policy_core as pc
from policy_core_adapters.hosts.common import (
    check_apart,
    check_config,
    check_no_statistics,
    check_scalar,
    check_stateless,
    leading_axes,
    one_kind,
    output,
    scalar_value,
    together,
)


def agent(config: Any) -> dict[str, Any]:
    """The actor and the critic of a config, as PPO of rejax has them: `algo.replace(**agent(config))`.

    Args:
        config: a config without memory, without `normalize=` (rejax has `normalize_observations`), and
            whose actor and critic share no params that are trained.

    Raises:
        ConfigError: for another one.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import policy_core as pc
        >>> from policy_core_adapters.hosts import rejax
        >>> config = pc.ActorCriticConfig(
        ...     observation_space=pc.Box(shape=(4,)), action_space=pc.Discrete(2)
        ... )
        >>> made = rejax.agent(config)
        >>> params = made["actor"].init(jax.random.key(0), jnp.zeros((1, 4)), jax.random.key(1))
        >>> sorted(params[0]), sorted(made["critic"].init(jax.random.key(0), jnp.zeros((1, 4)))[0])
        (['actor'], ['critic'])
    """
    check_config(config)
    check_stateless(config, "rejax's PPO", "use memory=None")
    check_no_statistics(config, "rejax", "use PPO.create(normalize_observations=True)")
    check_scalar(config, "rejax")
    check_apart(config, "rejax")
    return {"actor": Actor(config), "critic": Critic(config)}


def policy_of(config: Any, state: Any) -> Any:
    """The policy, a pair, of a train state of PPO, whose `agent(config)` was trained.

    Args:
        config: the config that was given to `agent`.
        state: what `algo.train` or `algo.init_state` returned; under `vmap` over seeds a population.

    Raises:
        StructureError: for a state of another config.
    """
    return together(config, state.actor_ts.params, state.critic_ts.params)


@dataclass(frozen=True)
class Actor:
    """The actor of a config as a module of rejax: `apply(params, obs, ..., method=)`, one leading axis.

    Args:
        config: the config of the policy; params are those of `pc.actor_only`.
    """

    config: Any

    def init(self, key: jax.Array, obs: Any, rng: Any = None) -> Any:
        """The actor of a fresh policy, the pair. `key` is consumed, `rng` is not used."""
        leading_axes(self.config.observation_space, obs, "obs")
        return pc.actor_only(pc.init(self.config, key=key))

    def apply(self, params: Any, obs: Any, *arguments: Any, method: str = "__call__") -> Any:
        """A method of rejax's policies.

        Args:
            params: the pair of `init`, as trained since.
            obs: observations with leading axes.
            arguments: those of the method.
            method: "act" `(obs, rng)`: actions; "action_log_prob" `(obs, rng)`: actions and
                log-probabilities; "log_prob_entropy" `(obs, action)`; "__call__" `(obs, rng)`: all three.

        Raises:
            StructureError: for another method.
        """
        params, config = params
        distribution, _ = output((params, one_kind(config)), _seen(config, obs))
        if method == "log_prob_entropy":
            (action,) = arguments
            return distribution.log_prob(action), distribution.entropy()
        if method not in ("act", "action_log_prob", "__call__"):
            raise pc.errors.StructureError(
                f"method: got {method!r}, expected 'act', 'action_log_prob', 'log_prob_entropy' or '__call__'"
            )
        (rng,) = arguments
        action, log_prob = distribution.sample_and_log_prob(key=rng)
        if method == "act":
            return action
        outcome = action, log_prob
        return outcome if method == "action_log_prob" else (*outcome, distribution.entropy())


@dataclass(frozen=True)
class Critic:
    """The critic of a config as a module of rejax: `apply(params, obs)`, one leading axis.

    Args:
        config: the config of the policy; params are those of `pc.surgery.critic_only`.
    """

    config: Any

    def init(self, key: jax.Array, obs: Any) -> Any:
        """The critic of a fresh policy, the pair. `key` is consumed."""
        leading_axes(self.config.observation_space, obs, "obs")
        return pc.surgery.critic_only(pc.init(self.config, key=key))

    def apply(self, params: Any, obs: Any) -> jax.Array:
        """The values of observations with leading axes."""
        return scalar_value(output(params, _seen(params[1], obs))[1], "rejax")


def _seen(config: Any, obs: Any) -> Any:
    """What a tower observes of an observation: the parts of its space."""
    if isinstance(config.observation_space, pc.Dict) and isinstance(obs, dict):
        return {name: obs[name] for name in config.observation_space.struct()}
    return obs
