"""Brax (0.14): a policy as the networks of its PPO.

    make_inference, params, metrics = ppo.train(env, network_factory=network_factory(config), ...)
    pc.save("policy.msgpack", policy_of(config, params))

Brax passes what the policy network returns through its rollouts and its loss as `logits`, and so the
pytree of our distribution stands for them. It knows both kinds of action: the environment is given the
environment action, the loss scores the policy action. Brax has params for the policy and params for the
value, so the two towers can share none that are trained.
"""

import importlib
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import policy_core as pc
from policy_core_adapters.hosts.common import (
    check_apart,
    check_config,
    check_no_statistics,
    check_scalar,
    check_stateless,
    mapped,
    output,
    scalar_value,
    together,
)


def network_factory(config: Any) -> Callable[..., Any]:
    """What `ppo.train(network_factory=...)` takes, for the policy of a config.

    Args:
        config: a config whose action space is `Box(low=-1.0, high=1.0, shape=(env.action_size,))`, which
            is what Brax clips to, and whose observation space is that of the environment, as
            `policy_core_adapters.brax` gives them. Without memory, without `normalize=` (Brax has
            `normalize_observations`), and with actor and critic that share no params that are trained.

    Returns:
        A function of the sizes of the environment that makes `PPONetworks`. The metrics of Brax's loss
        that look at `loc` and `scale` are given the mean and standard deviation of the distribution, and
        NaN where a family has none; with `learning_rate_schedule="ADAPTIVE_KL"` the divergence is ours.

    Raises:
        ConfigError: for another config; and by the function, for an environment of other sizes.

    Example:
        >>> import policy_core as pc
        >>> from policy_core_adapters.hosts import brax
        >>> config = pc.ActorCriticConfig(
        ...     observation_space=pc.Box(shape=(3,)), action_space=pc.Box(low=-1.0, high=1.0, shape=(2,)),
        ...     box_head=pc.SquashedNormalHead(),
        ... )
        >>> factory = brax.network_factory(config)
    """
    check_config(config)
    check_stateless(config, "Brax's PPO", "use memory=None")
    check_no_statistics(config, "Brax", "use ppo.train(normalize_observations=True)")
    check_scalar(config, "Brax")
    check_apart(config, "Brax")
    if not isinstance(config.action_space, pc.Box) or len(config.action_space.shape) != 1:
        raise pc.errors.ConfigError(
            f"config.action_space: got {config.action_space}, expected a Box of one axis: Brax has no other"
        )

    def factory(
        observation_size: Any, action_size: int, preprocess_observations_fn: Any = lambda x, _: x
    ) -> Any:
        _check_sizes(config, observation_size, action_size)
        networks: Any = importlib.import_module("brax.training.networks")
        ppo: Any = importlib.import_module("brax.training.agents.ppo.networks")

        def network(part: Callable[[Any], Any], result: Callable[..., Any]) -> Any:
            def apply(processor: Any, params: Any, observation: Any) -> Any:
                x = preprocess_observations_fn(observation, processor)
                if isinstance(params[1].observation_space, pc.Dict):
                    x = {name: x[name] for name in params[1].observation_space.struct()}
                return result(*output(params, x))

            return networks.FeedForwardNetwork(init=lambda key: part(pc.init(config, key=key)), apply=apply)

        return ppo.PPONetworks(
            policy_network=network(pc.actor_only, lambda distribution, _: distribution),
            value_network=network(pc.surgery.critic_only, lambda _, critic: scalar_value(critic, "Brax")),
            parametric_action_distribution=_actions(config),
        )

    return factory


def policy_of(config: Any, params: Any) -> Any:
    """The policy, a pair, of the params that `ppo.train` returns: `(normalizer, policy, value)`.

    With `normalize_observations=True` the policy observes what `running_statistics.normalize` gives.

    Args:
        config: the config that was given to `network_factory`.
        params: the params.

    Raises:
        StructureError: for params of another config.
    """
    _, actor, critic = params
    return together(config, actor, critic)


def _actions(config: Any) -> SimpleNamespace:
    """What Brax calls a parametric distribution: functions of `logits`, here our distribution."""

    def played(action: Any) -> Any:
        return mapped(config.env_action, jnp.ndim(action) - 1)(action)

    return SimpleNamespace(
        create_dist=_Described,
        sample_no_postprocessing=lambda distribution, seed: distribution.sample(key=seed),
        postprocess=played,
        inverse_postprocess=lambda action: mapped(config.policy_action, jnp.ndim(action) - 1)(action),
        sample=lambda distribution, seed: played(distribution.sample(key=seed)),
        mode=lambda distribution: played(distribution.mode()),
        log_prob=lambda distribution, action: distribution.log_prob(action),
        entropy=lambda distribution, seed: distribution.entropy(),
    )


class _Described:
    """A distribution as Brax's loss describes it: `loc` and `scale` for its metrics, and a divergence."""

    def __init__(self, distribution: Any) -> None:
        self.distribution = distribution
        unknown = jnp.full(1, jnp.nan)
        self.loc = distribution.mean() if hasattr(distribution, "mean") else unknown
        self.scale = distribution.stddev() if hasattr(distribution, "stddev") else unknown

    def kl_divergence(self, old: "_Described") -> jax.Array:
        """KL(old || self) (nats), as that of Brax."""
        divergence: jax.Array = old.distribution.kl(self.distribution)
        return divergence


def _check_sizes(config: Any, observation_size: Any, action_size: int) -> None:
    """Raise `ConfigError` unless the spaces of the config have the sizes of the environment."""
    if config.action_space.shape != (action_size,):
        raise pc.errors.ConfigError(
            f"config.action_space: got shape {config.action_space.shape}, expected {(action_size,)}, as the "
            "environment has"
        )
    bounds = config.action_space.low, config.action_space.high
    if not all(np.all(np.asarray(bound) == end) for bound, end in zip(bounds, (-1, 1), strict=True)):
        raise pc.errors.ConfigError(
            f"config.action_space: got {config.action_space}, expected the bounds of Brax, -1 and 1"
        )
    struct: Any = config.observation_space.struct()
    expected = (
        {name: _shape(size) for name, size in observation_size.items()}
        if hasattr(observation_size, "items")
        else _shape(observation_size)
    )
    got = jax.tree.map(lambda leaf: leaf.shape, struct)
    if got != expected:
        raise pc.errors.ConfigError(
            f"config.observation_space: got {got}, expected {expected}, as the environment has"
        )


def _shape(size: Any) -> tuple[int, ...]:
    return (size,) if isinstance(size, int) else tuple(size)
