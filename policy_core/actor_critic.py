"""The shipped policy: encoder, towers, heads."""

import math
from typing import Any, Literal, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from policy_core._dtypes import widen
from policy_core._static import static
from policy_core.contract import ActorCritic, Distribution, Key, Mask, Scalar, Space
from policy_core.errors import ConfigError
from policy_core.heads import Autoregressive, AutoregressiveHead, Head, NormalHead, head_of
from policy_core.networks import MLP, Network, init_linear, linear

Params: TypeAlias = dict[str, Any]
Dtype: TypeAlias = Literal["bfloat16", "float16", "float32", "float64"]


@static
class ActorCriticConfig:
    """An actor and a critic on one observation.

    The observation is flattened, passes the trunk if there is one, then the tower of the
    actor and that of the critic; a linear head on each gives the parameters of the
    distribution and the value.

    Args:
        observation_space: any space.
        action_space: any space with at least one part; boxes of integers need bounds.
        actor: the network of the actor, `MLP((64, 64), activation="tanh")` by default.
        critic: the network of the critic, likewise. Separate by default: sharing features
            couples the two losses (Andrychowicz et al. 2021).
        trunk: a network before both, shared, or None. To share everything but the heads,
            give `MLP(())` for both towers.
        box_head: how boxes of floats among the actions are distributed: `NormalHead`,
            `SquashedNormalHead`, `BetaHead`, `BinsHead`, or one of your own.
        autoregressive: which parts of a `Dict` or `Tuple` action depend on which others; None
            for independent ones.
        temperature: None, or the first value of a scalar leaf of the params that flattens
            (above 1) or sharpens (below 1) the distribution. It has no gradient: set it,
            member by member in a population if you like.
        actor_gain: factor of the initial kernel of the actor's head, 0.01 by default: the
            first policy is nearly uniform, or centred.
        critic_gain: factor of the initial kernel of the critic's head.
        param_dtype: dtype of the params.
        compute_dtype: dtype of the towers; distribution parameters and the value are
            float32 in any case (float64 for float64).

    Raises:
        ConfigError: for what is not static, or an action space that no head serves.

    Example:
        >>> import policy_core as pc
        >>> config = pc.ActorCriticConfig(
        ...     observation_space=pc.Box(shape=(4,)), action_space=pc.Discrete(2)
        ... )
        >>> policy = pc.init(config, key=jax.random.key(0))
        >>> state, action = pc.act(policy, pc.reset(policy), jnp.ones(4))
        >>> action.dtype, action.shape
        (dtype('int32'), ())
    """

    observation_space: Space[Any]
    action_space: Space[Any]
    actor: Network = MLP()
    critic: Network = MLP()
    trunk: Network | None = None
    box_head: Head = NormalHead()
    autoregressive: Autoregressive | None = None
    temperature: float | None = None
    actor_gain: float = 0.01
    critic_gain: float = 1.0
    param_dtype: Dtype = "float32"
    compute_dtype: Dtype = "float32"

    def __post_init__(self) -> None:
        self._head().check_space(self.action_space)
        if self.temperature is not None and not 0 < self.temperature < math.inf:
            raise ConfigError(
                f"ActorCriticConfig.temperature: got {self.temperature}, expected a positive number"
            )

    def init(self, *, key: Key) -> Params:
        """Params `actor`, `critic` (each a `tower` and a `head`), perhaps `trunk`, `temperature`."""
        self._check_precision()
        trunk_key, actor_key, actor_head_key, critic_key, critic_head_key = jax.random.split(key, 5)
        dtype: str = self.param_dtype
        size = self.observation_space.flat_size
        params: Params = {}
        if self.trunk is not None:
            params["trunk"] = self.trunk.init(size, key=trunk_key, dtype=dtype)
            size = self.trunk.out_size(size)
        head = self._head()
        params["actor"] = {
            "tower": self.actor.init(size, key=actor_key, dtype=dtype),
            "head": head.init(
                self.action_space,
                self.actor.out_size(size),
                key=actor_head_key,
                dtype=dtype,
                gain=self.actor_gain,
            ),
        }
        params["critic"] = {
            "tower": self.critic.init(size, key=critic_key, dtype=dtype),
            "head": init_linear(
                self.critic.out_size(size), 1, key=critic_head_key, dtype=dtype, gain=self.critic_gain
            ),
        }
        if self.temperature is not None:
            params["temperature"] = jnp.full((), self.temperature, jnp.float32)
        return params

    def initial_state(self, params: Params, *, key: Key | None = None) -> PyTree:
        """`()`: no memory."""
        del params, key
        return ()

    def forward(
        self, params: Params, state: PyTree, observation: PyTree, *, action_mask: Mask = None
    ) -> tuple[PyTree, Distribution[Any], Scalar]:
        """Trunk, towers, heads."""
        self._check_precision()
        temperature = params.get("temperature")
        if temperature is not None:
            temperature = jax.lax.stop_gradient(temperature)
        x = self.observation_space.flatten(observation).astype(self.compute_dtype)
        if self.trunk is not None:
            x = self.trunk.apply(params["trunk"], x)
        actor, critic = params["actor"], params["critic"]
        distribution = self._head().distribution(
            self.action_space,
            actor["head"],
            self.actor.apply(actor["tower"], x),
            action_mask,
            temperature,
        )
        value = linear(critic["head"], self.critic.apply(critic["tower"], x))
        return state, distribution, widen(jnp.squeeze(value, -1))

    def env_action(self, action: PyTree) -> PyTree:
        """By the head: clipped for a `Box`, the action itself otherwise."""
        return self._head().env_action(self.action_space, action)

    def policy_action(self, env_action: PyTree) -> PyTree:
        """By the head."""
        return self._head().policy_action(self.action_space, env_action)

    def _head(self) -> Head:
        if self.autoregressive is None:
            return head_of(self.action_space, self.box_head)
        return AutoregressiveHead(box_head=self.box_head, dependence=self.autoregressive)

    def _check_precision(self) -> None:
        """Without x64 JAX would turn float64 into float32 behind the config's back."""
        wanted = {"param_dtype": self.param_dtype, "compute_dtype": self.compute_dtype}
        for name, dtype in wanted.items():
            if jax.dtypes.canonicalize_dtype(dtype) != dtype:
                raise ConfigError(
                    f"ActorCriticConfig.{name}: {dtype} needs 64-bit JAX; set jax_enable_x64, or use float32"
                )


_: type[ActorCritic[Params, Any, Any, Any]] = ActorCriticConfig
