"""The shipped policy: normalisation, encoder, memory, towers, heads."""

import math
from typing import Any, Literal, TypeAlias, TypeVar, cast

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree

from policy_core._dtypes import wide_float, widen
from policy_core._static import set_field, static
from policy_core.contract import (
    Distribution,
    Key,
    Mask,
    NormalizingActorCritic,
    Scalar,
    SequenceActorCritic,
    Space,
)
from policy_core.encoders import Encoder, default_encoder
from policy_core.errors import ConfigError
from policy_core.heads import Autoregressive, AutoregressiveHead, Head, NormalHead, head_of
from policy_core.memory import Memory
from policy_core.networks import MLP, Network, init_linear, linear
from policy_core.normalize import Normalize, merged

Params: TypeAlias = dict[str, Any]
T = TypeVar("T")
_UNTRAINED = ("normalize", "temperature")  # parts of the params
Dtype: TypeAlias = Literal["bfloat16", "float16", "float32", "float64"]


@static
class ActorCriticConfig:
    """An actor and a critic on one observation.

    The observation is normalised if so asked, encoded as a vector, passes the trunk and the
    memory if there are any, then the tower of the actor and that of the critic; a linear head
    on each gives the parameters of the distribution and the value.

    Args:
        observation_space: any space.
        action_space: any space with at least one part; boxes of integers need bounds.
        actor: the network of the actor, `MLP((64, 64), activation="tanh")` by default.
        critic: the network of the critic, likewise. Separate by default: sharing features
            couples the two losses (Andrychowicz et al. 2021).
        trunk: a network before both, shared, or None. To share everything but the heads,
            give `MLP(())` for both towers.
        encoder: from the observation to a vector: `Flatten`, `Embedding`, `NatureCNN`,
            `ImpalaCNN`, `MinAtarCNN`, `Parts` of a `Dict` or `Tuple`, or one of your own. None
            is replaced by what `default_encoder` finds for the space: an image of uint8 gets a
            CNN, everything else is flattened.
        normalize: whether and how arrays of floats are normalised by running statistics of the
            observations, which `update_statistics` moves; None for not.
        memory: what is carried from step to step: `GRU`, `LSTM`, `MinGRU`, `WindowAttention`,
            a `Stack` of these, one of your own, or None.
        memory_sharing: whether actor and critic have one memory ("shared"), one each
            ("separate"), or only the actor has one ("actor"). The state always has all of
            them, and `act` keeps the critic's up to date.
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
            float32 in any case (float64 for float64), and so is the state of a memory.

    Raises:
        ConfigError: for what is not static, an action space that no head serves, an
            observation space that the encoder does not take, or a `memory_sharing` without a
            memory.

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
    encoder: Encoder | None = None
    normalize: Normalize | None = None
    memory: Memory | None = None
    memory_sharing: Literal["shared", "separate", "actor"] = "shared"
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
        if self.memory is None and self.memory_sharing != "shared":
            raise ConfigError(
                f"ActorCriticConfig.memory_sharing: got {self.memory_sharing!r} without a memory; "
                "give a memory, or leave it out"
            )
        if self.encoder is None:  # so that config and file say which it is
            set_field(self, "encoder", default_encoder(self.observation_space))
        self._encoder.check_space(self.observation_space)
        self._sizes()  # a memory whose parts do not fit says so

    def init(self, *, key: Key) -> Params:
        """Params `actor`, `critic` (each a `tower` and a `head`), perhaps `encoder` and more.

        That is `trunk`, `memory`, `normalize` (the statistics), `temperature`. A memory that is
        not shared is with its owner, as `params["actor"]["memory"]`.
        """
        self._check_precision()
        keys = jax.random.split(key, 7)
        trunk_key, actor_key, actor_head_key, critic_key, critic_head_key, memory_key, encoder_key = keys
        dtype: str = self.param_dtype
        flat, encoded, size = self._sizes()
        params: Params = {}
        encoder = self._encoder.init(self.observation_space, key=encoder_key, dtype=dtype)
        if jax.tree.leaves(encoder):
            params["encoder"] = encoder
        if self.trunk is not None:
            params["trunk"] = self.trunk.init(flat, key=trunk_key, dtype=dtype)
        head = self._head()
        params["actor"] = {
            "tower": self.actor.init(size["actor"], key=actor_key, dtype=dtype),
            "head": head.init(
                self.action_space,
                self.actor.out_size(size["actor"]),
                key=actor_head_key,
                dtype=dtype,
                gain=self.actor_gain,
            ),
        }
        params["critic"] = {
            "tower": self.critic.init(size["critic"], key=critic_key, dtype=dtype),
            "head": init_linear(
                self.critic.out_size(size["critic"]),
                1,
                key=critic_head_key,
                dtype=dtype,
                gain=self.critic_gain,
            ),
        }
        if self.memory is not None:
            owners = self._owners()
            for owner, key in zip(owners, jax.random.split(memory_key, len(owners)), strict=True):
                part = params if owner == "shared" else params[owner]
                part["memory"] = self.memory.init(encoded, key=key, dtype=dtype)
        if self.normalize is not None:
            params["normalize"] = self.normalize.init(self.observation_space)
        if self.temperature is not None:
            params["temperature"] = jnp.full((), self.temperature, jnp.float32)
        return params

    def initial_state(self, params: Params, *, key: Key | None = None) -> PyTree:
        """`()` without a memory, else the states of the memories: `shared`, or `actor` and `critic`."""
        del key
        if self.memory is None:
            return ()
        dtype = wide_float(self.compute_dtype)

        def wide(leaf: Array) -> Array:
            return leaf.astype(dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf

        states = {
            owner: self.memory.initial_state(self._memory_params(params, owner)) for owner in self._owners()
        }
        return jax.tree.map(wide, states)

    def forward(
        self, params: Params, state: PyTree, observation: PyTree, *, action_mask: Mask = None
    ) -> tuple[PyTree, Distribution[Any], Scalar]:
        """Trunk, memory, towers, heads."""
        x = self._encode(params, observation)
        states, features = {}, {"actor": x, "critic": x}
        if self.memory is not None:
            for owner in self._owners():
                memory = self._memory_params(params, owner)
                states[owner], y = self.memory.step(memory, state[owner], x)
                features.update(_seen_by(owner, y))
        return states or state, *self._decide(params, features, action_mask)

    def forward_sequence(
        self,
        params: Params,
        state: PyTree,
        observations: PyTree,
        *,
        is_first: Bool[Array, " time"],
        action_masks: Mask = None,
    ) -> tuple[PyTree, Distribution[Any], Float[Array, " time"]]:
        """As many steps; only the memory goes along time, the rest is one batch."""
        # With `is_first`, for an observation may have no parts.
        xs = jax.vmap(lambda x, _: self._encode(params, x))(observations, is_first)
        states, features = {}, {"actor": xs, "critic": xs}
        if self.memory is not None:
            for owner in self._owners():
                memory = self._memory_params(params, owner)
                states[owner], ys = self.memory.sequence(memory, state[owner], xs, is_first)
                features.update(_seen_by(owner, ys))
        decide: Any = jax.vmap(lambda features, mask: self._decide(params, features, mask))
        return states or state, *decide(features, action_masks)

    def _encode(self, params: Params, observation: PyTree) -> Float[Array, " features"]:
        """What comes before the memory."""
        self._check_precision()
        if self.normalize is not None:
            observation = self.normalize.apply(params["normalize"], observation)
        encoder = params.get("encoder", {})
        x = self._encoder.apply(encoder, self.observation_space, observation, self.compute_dtype)
        return x if self.trunk is None else self.trunk.apply(params["trunk"], x)

    def _decide(
        self, params: Params, features: dict[str, Float[Array, " features"]], action_mask: Mask
    ) -> tuple[Distribution[Any], Scalar]:
        """What comes after the memory: towers and heads."""
        temperature = params.get("temperature")
        if temperature is not None:
            temperature = jax.lax.stop_gradient(temperature)
        actor, critic = params["actor"], params["critic"]
        distribution = self._head().distribution(
            self.action_space,
            actor["head"],
            self.actor.apply(actor["tower"], features["actor"]),
            action_mask,
            temperature,
        )
        value = linear(critic["head"], self.critic.apply(critic["tower"], features["critic"]))
        return distribution, widen(jnp.squeeze(value, -1))

    def env_action(self, action: PyTree) -> PyTree:
        """By the head: clipped for a `Box`, the action itself otherwise."""
        return self._head().env_action(self.action_space, action)

    def policy_action(self, env_action: PyTree) -> PyTree:
        """By the head."""
        return self._head().policy_action(self.action_space, env_action)

    def trainable(self, params: Params) -> PyTree:
        """All but the statistics and the temperature."""
        return {
            name: jax.tree.map(lambda _, name=name: name not in _UNTRAINED, part)
            for name, part in params.items()
        }

    def update_statistics(
        self,
        params: Params,
        observations: PyTree,
        *,
        mask: Bool[Array, "..."] | None = None,
        axis_name: str | tuple[str, ...] | None = None,
    ) -> Params:
        """Nothing but `params["normalize"]` changes."""
        if self.normalize is None:
            return params
        return {**params, "normalize": merged(params["normalize"], observations, mask, axis_name)}

    @property
    def _encoder(self) -> Encoder:
        return cast("Encoder", self.encoder)

    def _head(self) -> Head:
        if self.autoregressive is None:
            return head_of(self.action_space, self.box_head)
        return AutoregressiveHead(box_head=self.box_head, dependence=self.autoregressive)

    def _owners(self) -> tuple[str, ...]:
        """Who has a memory."""
        match self.memory_sharing:
            case "shared":
                return ("shared",)
            case "separate":
                return ("actor", "critic")
            case "actor":
                return ("actor",)

    def _memory_params(self, params: Params, owner: str) -> Any:
        return (params if owner == "shared" else params[owner])["memory"]

    def _sizes(self) -> tuple[int, int, dict[str, int]]:
        """How many numbers the encoder gives, the memory gets, and each tower gets."""
        flat = self._encoder.out_size(self.observation_space)
        encoded = flat if self.trunk is None else self.trunk.out_size(flat)
        sizes = {"actor": encoded, "critic": encoded}
        if self.memory is not None:
            for owner in self._owners():
                sizes.update(_seen_by(owner, self.memory.out_size(encoded)))
        return flat, encoded, sizes

    def _check_precision(self) -> None:
        """Without x64 JAX would turn float64 into float32 behind the config's back."""
        wanted = {"param_dtype": self.param_dtype, "compute_dtype": self.compute_dtype}
        for name, dtype in wanted.items():
            if jax.dtypes.canonicalize_dtype(dtype) != dtype:
                raise ConfigError(
                    f"ActorCriticConfig.{name}: {dtype} needs 64-bit JAX; set jax_enable_x64, or use float32"
                )


def _seen_by(owner: str, output: T) -> dict[str, T]:
    """The output of a memory, for each tower that sees it."""
    return {"actor": output, "critic": output} if owner == "shared" else {owner: output}


_: type[SequenceActorCritic[Params, Any, Any, Any]] = ActorCriticConfig
_also: type[NormalizingActorCritic[Params, Any, Any, Any]] = ActorCriticConfig
