"""The shipped policy: normalisation, encoder, memory, towers, heads."""

import dataclasses
import math
from typing import Any, Literal, TypeAlias, cast

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree

from policy_core._dtypes import wide_float
from policy_core._static import later, set_field, static
from policy_core.contract import (
    DetachableActorCritic,
    Distribution,
    Key,
    Mask,
    NormalizingActorCritic,
    SequenceActorCritic,
    Space,
    ValuePrediction,
)
from policy_core.encoders import Encoder, default_encoder
from policy_core.errors import ConfigError
from policy_core.heads import Autoregressive, AutoregressiveHead, Head, NormalHead, head_of
from policy_core.memory import Memory
from policy_core.networks import MLP, Network
from policy_core.normalize import Normalize, merged
from policy_core.values import RegressionHead, ValueHead
from policy_core.views import check_keys, narrowed, part_of, reader, seen_by, views_of

Params: TypeAlias = dict[str, Any]
_UNTRAINED = ("normalize", "temperature")  # parts of the params
Dtype: TypeAlias = Literal["bfloat16", "float16", "float32", "float64"]


@static
class ActorCriticConfig:
    """An actor and a critic on one observation.

    The observation is normalised if so asked, encoded as a vector, passes the trunk and the
    memory if there are any, then the tower of the actor and that of the critic; a head on each
    gives the distribution and the prediction of the value.

    Args:
        observation_space: any space.
        action_space: any space with at least one part; boxes of integers need bounds.
        actor: the network of the actor, `MLP((64, 64), activation="tanh")` by default.
        critic: the network of the critic, likewise. Separate by default: sharing features
            couples the two losses (Andrychowicz et al. 2021). None for no critic at all, as
            `actor_only` has it: then asking for a value is an error.
        actor_keys: which parts of a `Dict` observation the actor sees; None for all.
        critic_keys: likewise, so that a critic may be privileged (Pinto et al. 2018). If either
            is given, the two share nothing: each has an encoder and, if any, a memory.
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
        value_head: from the features of the critic to the value: `RegressionHead`, `TwoHotHead`,
            `HLGaussHead`, or one of your own.

    Raises:
        ConfigError: for what is not static, an action space that no head serves, an
            observation space that the encoder does not take, keys that it does not have, or
            something shared that cannot be.

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
    critic: Network | None = MLP()
    actor_keys: tuple[str, ...] | None = None
    critic_keys: tuple[str, ...] | None = None
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
    value_head: ValueHead = later(RegressionHead())

    def __post_init__(self) -> None:
        for name in ("actor", "critic", "trunk"):
            if isinstance(network := getattr(self, name), Encoder):  # which has the methods of a network, too
                raise ConfigError(
                    f"ActorCriticConfig.{name}: got {type(network).__name__}, an encoder, expected a "
                    "network; give it as encoder="
                )
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
        self._check_sharing()
        for owner, space in self._views().items():
            self._encoder(owner).check_space(space)
        self._sizes()  # a memory whose parts do not fit says so

    def init(self, *, key: Key) -> Params:
        """Params `actor`, `critic` (each a `tower` and a `head`), perhaps `encoder` and more.

        That is `trunk`, `memory`, `normalize` (the statistics), `temperature`. An encoder or a
        memory that is not shared is with its owner, as `params["actor"]["memory"]`.
        """
        self._check_precision()
        keys = jax.random.split(key, 7)
        trunk_key, actor_key, actor_head_key, critic_key, critic_head_key, memory_key, encoder_key = keys
        dtype: str = self.param_dtype
        encoded, size = self._sizes()
        params: Params = {}
        if self.trunk is not None:
            flat = self._encoder("shared").out_size(self.observation_space)
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
        if self.critic is not None:
            width = self.critic.out_size(size["critic"])
            params["critic"] = {
                "tower": self.critic.init(size["critic"], key=critic_key, dtype=dtype),
                "head": self.value_head.init(width, key=critic_head_key, dtype=dtype, gain=self.critic_gain),
            }
        views = self._views()
        for (owner, space), key in zip(views.items(), jax.random.split(encoder_key, len(views)), strict=True):
            encoder = self._encoder(owner).init(space, key=key, dtype=dtype)
            if jax.tree.leaves(encoder):
                part_of(params, owner)["encoder"] = encoder
        if self.memory is not None:
            owners = self._owners()
            for owner, key in zip(owners, jax.random.split(memory_key, len(owners)), strict=True):
                in_size = encoded[reader(owner)]
                part_of(params, owner)["memory"] = self.memory.init(in_size, key=key, dtype=dtype)
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
            owner: self.memory.initial_state(part_of(params, owner)["memory"]) for owner in self._owners()
        }
        return jax.tree.map(wide, states)

    def forward(
        self, params: Params, state: PyTree, observation: PyTree, *, action_mask: Mask = None
    ) -> tuple[PyTree, Distribution[Any], ValuePrediction | None]:
        """Trunk, memory, towers, heads."""
        states, features = {}, self._encode(params, observation)
        if self.memory is not None:
            for owner in self._owners():
                memory, x = part_of(params, owner)["memory"], features[reader(owner)]
                states[owner], y = self.memory.step(memory, state[owner], x)
                features.update(seen_by(owner, y))
        return states or state, *self._decide(params, features, action_mask)

    def forward_sequence(
        self,
        params: Params,
        state: PyTree,
        observations: PyTree,
        *,
        is_first: Bool[Array, " time"],
        action_masks: Mask = None,
    ) -> tuple[PyTree, Distribution[Any], ValuePrediction | None]:
        """As many steps; only the memory goes along time, the rest is one batch."""
        # With `is_first`, for an observation may have no parts.
        features = jax.vmap(lambda x, _: self._encode(params, x))(observations, is_first)
        states = {}
        if self.memory is not None:
            for owner in self._owners():
                memory, xs = part_of(params, owner)["memory"], features[reader(owner)]
                states[owner], ys = self.memory.sequence(memory, state[owner], xs, is_first)
                features.update(seen_by(owner, ys))
        decide: Any = jax.vmap(lambda features, mask: self._decide(params, features, mask))
        return states or state, *decide(features, action_masks)

    def _encode(self, params: Params, observation: PyTree) -> dict[str, Float[Array, " features"]]:
        """What comes before the memory, for each tower."""
        self._check_precision()
        if self.normalize is not None:
            observation = self.normalize.apply(params["normalize"], observation)
        features: dict[str, Float[Array, " features"]] = {}
        for owner, space in self._views().items():
            seen = observation if owner == "shared" else {name: observation[name] for name in space.struct()}
            encoder = part_of(params, owner).get("encoder", {})
            x = self._encoder(owner).apply(encoder, space, seen, self.compute_dtype)
            features.update(seen_by(owner, x if self.trunk is None else self.trunk.apply(params["trunk"], x)))
        return features

    def _decide(
        self, params: Params, features: dict[str, Float[Array, " features"]], action_mask: Mask
    ) -> tuple[Distribution[Any], ValuePrediction | None]:
        """What comes after the memory: towers and heads."""
        temperature = params.get("temperature")
        if temperature is not None:
            temperature = jax.lax.stop_gradient(temperature)
        actor = params["actor"]
        distribution = self._head().distribution(
            self.action_space,
            actor["head"],
            self.actor.apply(actor["tower"], features["actor"]),
            action_mask,
            temperature,
        )
        if self.critic is None:
            return distribution, None
        critic = params["critic"]
        tower = self.critic.apply(critic["tower"], features["critic"])
        return distribution, self.value_head.predict(critic["head"], tower)

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

    def actor_only(self, params: Params) -> tuple[Params, "ActorCriticConfig"]:
        """What `act` needs, on an observation space of what the actor sees."""
        apart = "actor" in self._views()
        owner = "actor" if apart else "shared"
        space = self._views()[owner]
        config = dataclasses.replace(
            self,
            observation_space=space,
            critic=None,
            actor_keys=None,
            critic_keys=None,
            encoder=self._encoder(owner),
            memory_sharing="actor" if self.memory_sharing == "separate" else self.memory_sharing,
        )
        kept = {name: part for name, part in params.items() if name != "critic"}
        if apart:
            actor = dict(params["actor"])
            kept.update({"encoder": actor.pop("encoder")} if "encoder" in actor else {}, actor=actor)
            if self.normalize is not None:
                kept["normalize"] = {name: params["normalize"][name] for name in space.struct()}
        return kept, config

    def _views(self) -> dict[str, Space[Any]]:
        """Who encodes what: `shared`, or `actor` and `critic` apart."""
        return views_of(self.observation_space, self.actor_keys, self.critic_keys)

    def _encoder(self, owner: str) -> Encoder:
        """The encoder, without the parts that the owner does not see."""
        view = self._views()[owner]
        return narrowed(cast("Encoder", self.encoder), view, self.observation_space)

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

    def _sizes(self) -> tuple[dict[str, int], dict[str, int]]:
        """How many numbers come before the memory, and after it, for each tower."""
        encoded: dict[str, int] = {}
        for owner, space in self._views().items():
            size = self._encoder(owner).out_size(space)
            encoded.update(seen_by(owner, size if self.trunk is None else self.trunk.out_size(size)))
        sizes = dict(encoded)
        if self.memory is not None:
            for owner in self._owners():
                sizes.update(seen_by(owner, self.memory.out_size(encoded[reader(owner)])))
        return encoded, sizes

    def _check_sharing(self) -> None:
        """Raise `ConfigError` for keys that are not there, and for what cannot be shared or kept."""
        if self.critic is None and (self.critic_keys is not None or self.memory_sharing == "separate"):
            raise ConfigError("ActorCriticConfig.critic: None has no critic_keys and no memory of its own")
        for name in ("actor_keys", "critic_keys"):
            keys = getattr(self, name)
            if keys is None:
                continue
            check_keys(keys, self.observation_space, f"ActorCriticConfig.{name}")
            if self.trunk is not None or (self.memory is not None and self.memory_sharing == "shared"):
                raise ConfigError(
                    f"ActorCriticConfig.{name}: actor and critic see different things and cannot share a "
                    'trunk or a memory; use trunk=None and memory_sharing="separate" or "actor"'
                )
            set_field(self, name, tuple(sorted(keys)))

    def _check_precision(self) -> None:
        """Without x64 JAX would turn float64 into float32 behind the config's back."""
        wanted = {"param_dtype": self.param_dtype, "compute_dtype": self.compute_dtype}
        for name, dtype in wanted.items():
            if jax.dtypes.canonicalize_dtype(dtype) != dtype:
                raise ConfigError(
                    f"ActorCriticConfig.{name}: {dtype} needs 64-bit JAX; set jax_enable_x64, or use float32"
                )


_: type[SequenceActorCritic[Params, Any, Any, Any]] = ActorCriticConfig
_detachable: type[DetachableActorCritic[Params, Any, Any, Any]] = ActorCriticConfig
_also: type[NormalizingActorCritic[Params, Any, Any, Any]] = ActorCriticConfig
