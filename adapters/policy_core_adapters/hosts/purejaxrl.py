"""PureJaxRL: policies in the place of its `ActorCritic` and `ActorCriticRNN`.

Its scripts are copied and changed, so this is what a script builds its network from. What changes in
`ppo.py` and `ppo_continuous_action.py` is the line of the constructor; in `ppo_rnn.py` those of
`ScannedRNN.initialize_carry`, too. `train_state.params` is the pair that `pc.save` and `pc.act` take.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

import policy_core as pc
from policy_core_adapters.hosts.common import (
    check_config,
    check_no_kept_noise,
    check_scalar,
    check_stateless,
    leading_axes,
    one_kind,
    output,
    scalar_value,
)


@dataclass(frozen=True)
class ActorCritic:
    """A policy without memory as a network of PureJaxRL: `init(key, x)`, `apply(params, x) -> (pi, value)`.

    `pi` is a distribution over what the script stores and gives to `env.step`: of `SquashedNormalHead`,
    `BetaHead` and `BinsHead` over environment actions, by `InEnvActions`, else over policy actions, which
    the script's `ClipAction` clips. `pi.sample` takes `seed=`. Statistics of `normalize=` change only where
    the script calls `update_statistics`: `train_state.replace(params=pc.update_statistics(params, obs))`.

    Args:
        config: the config of the policy.

    Raises:
        ConfigError: for a policy with a memory, or whose critic does not give one number.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import policy_core as pc
        >>> from policy_core_adapters.hosts.purejaxrl import ActorCritic
        >>> config = pc.ActorCriticConfig(
        ...     observation_space=pc.Box(shape=(4,)), action_space=pc.Discrete(2)
        ... )
        >>> network = ActorCritic(config)
        >>> params = network.init(jax.random.key(0), jnp.zeros(4))
        >>> pi, value = network.apply(params, jnp.ones((8, 4)))
        >>> pi.sample(seed=jax.random.key(1)).shape, pi.entropy().shape, value.shape
        ((8,), (8,), (8,))
    """

    config: Any

    def __post_init__(self) -> None:
        check_config(self.config)
        check_stateless(self.config, "ppo.py", "use ActorCriticRNN")
        check_scalar(self.config, "PureJaxRL")

    def init(self, key: jax.Array, x: Any) -> Any:
        """A fresh policy, the pair. `key` is consumed; `x` is an observation, or several.

        Raises:
            StructureError: for an `x` that is not of the observation space.
        """
        leading_axes(self.config.observation_space, x, "x")
        return pc.init(self.config, key=key)

    def apply(self, params: Any, x: Any, action_mask: Any = None) -> tuple[Any, jax.Array]:
        """The distribution and the values of observations with any leading axes.

        Args:
            params: the pair of `init`, as trained since.
            x: observations.
            action_mask: in the structure of the action space, with the leading axes of `x`; or None.
        """
        distribution, critic = output((params[0], one_kind(params[1])), x, action_mask)
        return distribution, scalar_value(critic, "PureJaxRL")


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Carry:
    """The states of the memories of several environments, which can be indexed as an array.

    `initial_hstate[None, :]` and `init_hstate[0]` of `ppo_rnn.py` work on it as they stand.

    Args:
        state: the state of the policy, with the axis of the environments in front.
        fresh: `[environments]`, where the state is not one of the policy yet, and its first state is meant.
    """

    state: Any
    fresh: jax.Array

    def __getitem__(self, index: Any) -> "Carry":
        return jax.tree.map(lambda x: x[index], self)  # type: ignore[no-any-return]


@dataclass(frozen=True)
class ActorCriticRNN:
    """A policy as the recurrent network of PureJaxRL: `apply(params, hstate, (obs, dones))`, time in front.

    As there, `dones[t]` is whether the episode ended before `obs[t]`: the memory is reset before it.

    Args:
        config: the config of the policy, with a memory or without.

    Raises:
        ConfigError: for a policy whose critic does not give one number.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import policy_core as pc
        >>> from policy_core_adapters.hosts.purejaxrl import ActorCriticRNN
        >>> config = pc.ActorCriticConfig(
        ...     observation_space=pc.Box(shape=(4,)), action_space=pc.Discrete(2), memory=pc.GRU(8)
        ... )
        >>> network, time, environments = ActorCriticRNN(config), 5, 3
        >>> hstate = network.initialize_carry(environments)
        >>> x = jnp.zeros((time, environments, 4)), jnp.zeros((time, environments), bool)
        >>> params = network.init(jax.random.key(0), hstate, x)
        >>> hstate, pi, value = network.apply(params, hstate, x)
        >>> hstate.state["shared"].shape, pi.entropy().shape, value.shape
        ((3, 8), (5, 3), (5, 3))
    """

    config: Any

    def __post_init__(self) -> None:
        check_config(self.config)
        check_no_kept_noise(self.config, "ppo_rnn.py")
        check_scalar(self.config, "PureJaxRL")

    def initialize_carry(self, batch_size: int, *_: Any) -> Carry:
        """What stands for the first states of so many environments: `ScannedRNN.initialize_carry`.

        It needs no params, though a first state may be learned: `apply` puts it in. A second argument, the
        size of PureJaxRL's GRU, is not looked at.
        """
        struct = jax.eval_shape(lambda: self.config.initial_state(self.config.init(key=jax.random.key(0))))
        state = jax.tree.map(lambda leaf: jnp.zeros((batch_size, *leaf.shape), leaf.dtype), struct)
        return Carry(state, jnp.ones(batch_size, bool))

    def init(self, key: jax.Array, hstate: Carry, x: Any) -> Any:
        """A fresh policy, the pair. `key` is consumed; `x` is `(obs, dones)`.

        Raises:
            StructureError: for observations that are not of the observation space, or not `[time, env, ...]`.
        """
        self._check(hstate, *x)
        return pc.init(self.config, key=key)

    def apply(
        self, params: Any, hstate: Carry, x: Any, action_mask: Any = None
    ) -> tuple[Carry, Any, jax.Array]:
        """The states after the last observation, the distributions and the values, `[time, env]`.

        Args:
            params: the pair of `init`, as trained since.
            hstate: the states before the first observation.
            x: `(obs, dones)`, `[time, env, ...]` and `[time, env]`, booleans or numbers that are 0 or 1.
            action_mask: in the structure of the action space, `[time, env, ...]`; or None.
        """
        obs, dones = x
        self._check(hstate, obs, dones)
        first = jnp.asarray(dones).astype(bool)
        first = first.at[0].set(first[0] | hstate.fresh)
        policy = params[0], one_kind(params[1])

        def one(state: Any, obs: Any, first: Any, mask: Any) -> Any:
            return pc.forward_sequence(policy, state, obs, is_first=first, action_masks=mask)

        run = jax.vmap(one, in_axes=(0, 1, 1, 1), out_axes=(0, 1, 1))
        state, distribution, critic = run(hstate.state, obs, first, action_mask)
        fresh = jnp.zeros_like(hstate.fresh)
        return Carry(state, fresh), distribution, scalar_value(critic, "PureJaxRL")

    def _check(self, hstate: Any, obs: Any, dones: Any) -> None:
        axes = leading_axes(self.config.observation_space, obs, "obs")
        if axes != 2 or jnp.ndim(dones) != 2:
            raise pc.errors.StructureError(
                f"obs: got {axes} leading axes, and {jnp.ndim(dones)} of dones, expected [time, env] in both"
            )
        if not isinstance(hstate, Carry):
            raise pc.errors.StructureError(
                f"hstate: got {type(hstate).__name__}, expected what initialize_carry or apply returned"
            )
