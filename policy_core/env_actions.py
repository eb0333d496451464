"""A config around a config, for trainers that know one kind of action."""

from dataclasses import field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree

from policy_core.configs import static
from policy_core.contract import (
    ActorCritic,
    CriticActorCritic,
    DetachableActorCritic,
    ExploringActorCritic,
    Key,
    Mask,
    Space,
)
from policy_core.distributions.numerics.common import takes_seed
from policy_core.errors import StructureError
from policy_core.functions.sequence import forward_sequence
from policy_core.functions.training import trainable, update_statistics


@takes_seed
class EnvActions(NamedTuple):
    """The distribution of the environment actions of a distribution over policy actions.

    `log_prob` is that of the policy action of an environment action: of one that was drawn it is off by as
    much as float32 loses on the way there and back, and it is what `sample_and_log_prob` gives. So the
    ratio of an unchanged policy is 1. `entropy` and `kl` are those of the distribution within.

    Args:
        base: the distribution over policy actions.
        config: the config that it is of.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import policy_core as pc
        >>> inner = pc.ActorCriticConfig(
        ...     observation_space=pc.Box(shape=(3,)),
        ...     action_space=pc.Box(low=-2.0, high=2.0, shape=(1,)),
        ...     box_head=pc.SquashedNormalHead(),
        ... )
        >>> policy = pc.init(pc.env_actions.InEnvActions(inner), key=jax.random.key(0))
        >>> _, distribution = pc.action_distribution(policy, (), jnp.ones(3))
        >>> bool(jnp.abs(distribution.sample(key=jax.random.key(1))) <= 2)
        True
    """

    base: Any
    config: Any

    def sample(self, *, key: Key) -> Any:
        """A random environment action. `key` is consumed."""
        return self._mapped(self.config.env_action, self.base.sample(key=key))

    def mode(self) -> Any:
        """The environment action of the mode."""
        return self._mapped(self.config.env_action, self.base.mode())

    def log_prob(self, action: Any) -> Float[Array, "..."]:
        """The log-probability of an environment action (nats), by that of its policy action."""
        probability: Float[Array, ...] = self.base.log_prob(self._mapped(self.config.policy_action, action))
        return probability

    def entropy(self) -> Float[Array, "..."]:
        """The entropy of the distribution within (nats)."""
        entropy: Float[Array, ...] = self.base.entropy()
        return entropy

    def kl(self, other: "EnvActions") -> Float[Array, "..."]:
        """KL(self || other) of the distributions within (nats)."""
        divergence: Float[Array, ...] = self.base.kl(other.base)
        return divergence

    def sample_and_log_prob(self, *, key: Key) -> tuple[Any, Float[Array, "..."]]:
        """A random environment action, and its `log_prob`. `key` is consumed."""
        action = self.sample(key=key)
        return action, self.log_prob(action)

    def _mapped(self, function: Any, action: Any) -> Any:
        """A function of one action, over the batch axes that a distribution has after a `vmap`."""
        for _ in range(jnp.ndim(jax.eval_shape(self.base.entropy))):
            function = jax.vmap(function)
        return function(action)


@static
class InEnvActions:
    """A policy whose policy actions are the environment actions of another one, with the same params.

    For trainers that give the action that they store to `env.step` as it is, or clip it: under
    `SquashedNormalHead`, `BetaHead` or `BinsHead` that number is before the squash, or an index, and the
    environment would be given another action than the one that was meant. Clipped actions, those of
    `NormalHead` beyond the bounds, are scored at the bound.

    Args:
        config: the config.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import policy_core as pc
        >>> inner = pc.ActorCriticConfig(
        ...     observation_space=pc.Box(shape=(3,)),
        ...     action_space=pc.Box(low=-2.0, high=2.0, shape=(1,)),
        ...     box_head=pc.SquashedNormalHead(),
        ... )
        >>> policy = pc.init(pc.env_actions.InEnvActions(inner), key=jax.random.key(0))
        >>> state, action, *_ = pc.action_and_value(policy, (), jnp.ones(3), key=jax.random.key(1))
        >>> bool(pc.env_action(policy, action) == action)
        True
    """

    config: ActorCritic = field(kw_only=False)

    @property
    def observation_space(self) -> Space:
        """That of the config."""
        return self.config.observation_space

    @property
    def action_space(self) -> Space:
        """That of the config."""
        return self.config.action_space

    @property
    def name(self) -> str:
        """That of the config, for people."""
        return str(getattr(self.config, "name", type(self.config).__name__))

    def init(self, *, key: Key) -> PyTree:
        """Fresh params of the config. `key` is consumed."""
        return self.config.init(key=key)

    def initial_state(self, params: PyTree, *, key: Key | None = None) -> PyTree:
        """That of the config."""
        return self.config.initial_state(params, key=key)

    def forward(
        self, params: PyTree, state: PyTree, observation: PyTree, *, action_mask: Mask = None
    ) -> tuple[PyTree, EnvActions, Any]:
        """One step of the config, whose distribution is over environment actions."""
        state, base, value = self.config.forward(params, state, observation, action_mask=action_mask)
        return state, EnvActions(base, self.config), value

    def forward_sequence(
        self,
        params: PyTree,
        state: PyTree,
        observations: PyTree,
        *,
        is_first: Bool[Array, " time"],
        action_masks: Mask = None,
    ) -> tuple[PyTree, EnvActions, Any]:
        """`forward` over the time axis."""
        policy = params, self.config
        state, base, value = forward_sequence(
            policy, state, observations, is_first=is_first, action_masks=action_masks
        )
        return state, EnvActions(base, self.config), value

    def explore(self, params: PyTree, state: PyTree, *, key: Key) -> PyTree:
        """That of the config; the state itself if it does not implement `ExploringActorCritic`."""
        config = self.config
        return config.explore(params, state, key=key) if isinstance(config, ExploringActorCritic) else state

    def env_action(self, action: PyTree) -> PyTree:
        """The action itself."""
        return action

    def policy_action(self, env_action: PyTree) -> PyTree:
        """The nearest action that the distribution can represent."""
        return self.config.env_action(self.config.policy_action(env_action))

    def trainable(self, params: PyTree) -> PyTree:
        """That of the config."""
        return trainable((params, self.config))[0]

    def update_statistics(
        self,
        params: PyTree,
        observations: PyTree,
        *,
        mask: Bool[Array, "..."] | None = None,
        axis_name: str | tuple[str, ...] | None = None,
    ) -> PyTree:
        """That of the config."""
        policy = params, self.config
        return update_statistics(policy, observations, mask=mask, axis_name=axis_name)[0]

    def update_value_statistics(
        self,
        params: PyTree,
        returns: Float[Array, "..."],
        *,
        mask: Bool[Array, "..."] | None = None,
        axis_name: str | tuple[str, ...] | None = None,
    ) -> PyTree:
        """That of the config."""
        policy = params, self.config
        return update_statistics(policy, returns=returns, mask=mask, axis_name=axis_name)[0]

    def actor_only(self, params: PyTree) -> tuple[PyTree, "InEnvActions"]:
        """That of the config.

        Raises:
            StructureError: if the config does not implement `DetachableActorCritic`.
        """
        if not isinstance(self.config, DetachableActorCritic):
            name = type(self.config).__name__
            raise StructureError(f"config: {name} does not implement DetachableActorCritic")
        params, config = self.config.actor_only(params)
        return params, InEnvActions(config)

    def critic_only(self, params: PyTree) -> tuple[PyTree, Any]:
        """That of the config: a critic has no actions.

        Raises:
            StructureError: if the config does not implement `CriticActorCritic`.
        """
        if not isinstance(self.config, CriticActorCritic):
            name = type(self.config).__name__
            raise StructureError(f"config: {name} does not implement CriticActorCritic")
        return self.config.critic_only(params)
