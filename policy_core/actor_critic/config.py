"""The shipped policy: normalization, encoder, memory, towers, heads."""

import functools
import math
from typing import Any, Literal, TypeAlias, cast

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree

from policy_core._dtypes import wide_float
from policy_core.actor_critic.detach import detached
from policy_core.actor_critic.plan import (
    BranchName,
    Keys,
    Plan,
    action_head,
    check_precision,
    check_sharing,
    plan_branches,
)
from policy_core.checks.structure import check_structure
from policy_core.configs import added, set_field, static
from policy_core.contract import (
    Distribution,
    Encoder,
    Features,
    Head,
    Key,
    Mask,
    Memory,
    Network,
    NormalizingValueHead,
    Space,
    ValueHead,
    ValuePrediction,
)
from policy_core.distributions import NoActor
from policy_core.encoders import default_encoder
from policy_core.errors import ConfigError
from policy_core.heads import Autoregressive, LogitsHead, NormalHead, PartHeads, RegressionHead
from policy_core.heads.composite import explores
from policy_core.networks import MLP
from policy_core.normalize import Normalize

Params: TypeAlias = dict[str, Any]
_UNTRAINED = ("normalize", "temperature")  # parts of the params
Dtype: TypeAlias = Literal["bfloat16", "float16", "float32", "float64"]


@static
class ActorCriticConfig:
    """The config of an actor and a critic: spaces, encoder, memory, networks and heads.

    The observation is normalized if `normalize` is set, encoded as a vector, passed through the
    trunk and the memory if there are any, then through the tower of the actor and that of the
    critic; a head on each outputs the distribution and the prediction of the value.

    Args:
        observation_space: any space.
        action_space: any space with at least one part; boxes of integers need bounds.
        actor: the network of the actor, `MLP((64, 64), activation="tanh")` by default. None for a policy
            without an actor, such as `surgery.critic_only` returns: then its distribution is an error.
        critic: the network of the critic, likewise. Separate by default: sharing features
            couples the two losses (Andrychowicz et al. 2021). None for a policy without a critic,
            such as `actor_only` returns: then `value` is an error.
        actor_keys: which parts of a `Dict` observation are inputs of the actor; None for all.
        critic_keys: likewise, so that a critic may be privileged (Pinto et al. 2018). If either
            is given, the two share nothing: each has an encoder and, if any, a memory.
        trunk: a network before both, shared, or None. To share everything but the heads,
            give `MLP(())` for both towers.
        encoder: from the observation to a vector: `Flatten`, `Embedding`, `NatureCNN`,
            `ImpalaCNN`, `MinAtarCNN`, `Parts` of a `Dict` or `Tuple`, or one of your own. None
            is replaced by the `default_encoder` of the space: a CNN for images of uint8, `Flatten`
            for everything else.
        encoder_sharing: whether actor and critic have one encoder ("shared"), or one each of the same
            observation ("separate"); with keys they have one each in any case.
        normalize: how arrays of floats are normalized by running statistics of the observations,
            which `update_statistics` updates; None for no normalization.
        memory: the recurrent network: `GRU`, `LSTM`, `MinGRU`, `WindowAttention`, a `Stack` of
            these, one of your own, or None.
        memory_sharing: whether actor and critic have one memory ("shared"), one each
            ("separate"), or only the actor has one ("actor"). The state always has all of
            them, and `act` keeps the critic's up to date.
        box_head: the head for actions that are boxes of floats: `NormalHead`,
            `SquashedNormalHead`, `BetaHead`, `BinsHead`, `heads.GSDEHead`, or one of your own.
        discrete_head: the head for discrete actions: `heads.LogitsHead`, or one of your own.
        heads: heads of some parts of a `Dict` or `Tuple` action, in place of the two, or None.
        autoregressive: which parts of a `Dict` or `Tuple` action depend on which others; None
            for independent ones.
        temperature: None, or the initial value of a scalar leaf of the params that flattens
            (above 1) or sharpens (below 1) the distribution. It has no gradient and is set by
            hand, per member of a population if you like.
        actor_gain: factor of the initial kernel of the actor's head, 0.01 by default: the
            first policy is nearly uniform, or centered.
        critic_gain: factor of the initial kernel of the critic's head.
        param_dtype: dtype of the params.
        compute_dtype: dtype of the towers; distribution parameters and the value are
            float32 in any case (float64 for float64), and so is the state of a memory.
        value_head: from the features of the critic to the value: `RegressionHead`, `TwoHotHead`,
            `HLGaussHead`, `heads.PopArtHead`, or one of your own.
        name: of the policy, for people: `inspect` and `summary` show it.

    Raises:
        ConfigError: for a value that is not static, an action space that no head supports, an
            observation space that the encoder does not support, keys that it does not have, or
            a trunk or memory that cannot be shared.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import policy_core as pc
        >>> config = pc.ActorCriticConfig(
        ...     observation_space=pc.Box(shape=(4,)), action_space=pc.Discrete(2)
        ... )
        >>> policy = pc.init(config, key=jax.random.key(0))
        >>> state, action = pc.act(policy, pc.reset(policy), jnp.ones(4))
        >>> action.dtype, action.shape
        (dtype('int32'), ())
    """

    observation_space: Space
    action_space: Space
    actor: Network | None = MLP()
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
    value_head: ValueHead = added(RegressionHead())
    name: str = added("ActorCriticConfig")
    encoder_sharing: Literal["shared", "separate"] = added("shared")
    discrete_head: Head = added(LogitsHead())
    heads: PartHeads | None = added(None)

    def __post_init__(self) -> None:
        for name in ("actor", "critic", "trunk"):
            # An encoder also has the methods of a network, so the check must be for an encoder.
            if isinstance(network := getattr(self, name), Encoder):
                raise ConfigError(
                    f"ActorCriticConfig.{name}: got {type(network).__name__}, an encoder, expected a "
                    "network; give it as encoder="
                )
        if self.temperature is not None and not 0 < self.temperature < math.inf:
            raise ConfigError(
                f"ActorCriticConfig.temperature: got {self.temperature}, expected a positive number"
            )
        if self.memory is None and self.memory_sharing != "shared":
            raise ConfigError(
                f"ActorCriticConfig.memory_sharing: got {self.memory_sharing!r} without a memory; "
                "give a memory, or leave it out"
            )
        if self.encoder is None:  # resolved here, so that it is part of the config, its file and fingerprint
            set_field(self, "encoder", default_encoder(self.observation_space))
        if self.normalize is not None:
            self.normalize.check_space(self.observation_space)
        check_sharing(self)
        _ = self.plan  # raises ConfigError now, not in `init`, if the parts do not fit together

    @functools.cached_property
    def plan(self) -> Plan:
        """The branches and the head, derived once when the config is built."""
        keys: dict[BranchName, Keys] = {"actor": self.actor_keys, "critic": self.critic_keys}
        encoder = cast("Encoder", self.encoder)
        branches = plan_branches(
            self.observation_space,
            keys,
            encoder,
            self.trunk,
            self.memory,
            self.memory_sharing,
            self.encoder_sharing,
        )
        head = action_head(
            self.action_space, self.box_head, self.discrete_head, self.heads, self.autoregressive
        )
        return Plan(*branches, head, self.actor is not None and explores(head))

    @functools.cached_property
    def _policy_space(self) -> Space:
        """The space of the policy actions, made when it is asked for: of bins it may be large."""
        return self.plan.head.policy_space(self.action_space)

    def init(self, *, key: Key) -> Params:
        """Fresh params: `actor` and `critic`, each with `tower` and `head`; `key` is consumed.

        Optional entries are `encoder`, `trunk`, `memory`, `normalize` (the statistics) and
        `temperature`. An encoder or a memory that is not shared is in the params of its branch, as
        `params["actor"]["memory"]`.
        """
        check_precision(self.param_dtype, self.compute_dtype)
        keys = jax.random.split(key, 7)
        trunk_key, actor_key, actor_head_key, critic_key, critic_head_key, memory_key, encoder_key = keys
        dtype, plan = self.param_dtype, self.plan
        actor_in, critic_in = plan.in_sizes["actor"], plan.in_sizes["critic"]
        params: Params = {}
        if self.trunk is not None:
            params["trunk"] = self.trunk.init(plan.encoders[0].encoded, key=trunk_key, dtype=dtype)
        if self.actor is not None:
            features = self.actor.out_size(actor_in)
            params["actor"] = {
                "tower": self.actor.init(actor_in, key=actor_key, dtype=dtype),
                "head": plan.head.init(
                    self.action_space, features, key=actor_head_key, dtype=dtype, gain=self.actor_gain
                ),
            }
        if self.critic is not None:
            features = self.critic.out_size(critic_in)
            params["critic"] = {
                "tower": self.critic.init(critic_in, key=critic_key, dtype=dtype),
                "head": self.value_head.init(
                    features, key=critic_head_key, dtype=dtype, gain=self.critic_gain
                ),
            }
        keys = jax.random.split(encoder_key, len(plan.encoders))
        for encoder, key in zip(plan.encoders, keys, strict=True):
            encoder_params = encoder.encoder.init(encoder.space, key=key, dtype=dtype)
            if jax.tree.leaves(encoder_params):
                encoder.params(params)["encoder"] = encoder_params
        if plan.memories:
            keys = jax.random.split(memory_key, len(plan.memories))
            for branch, key in zip(plan.memories, keys, strict=True):
                branch.params(params)["memory"] = branch.memory.init(branch.in_size, key=key, dtype=dtype)
        if self.normalize is not None:
            params["normalize"] = self.normalize.init(self.observation_space)
        if self.temperature is not None:
            params["temperature"] = jnp.full((), self.temperature, jnp.float32)
        return params

    def initial_state(self, params: Params, *, key: Key | None = None) -> PyTree:
        """The states of the memories by branch, `shared` or `actor` and `critic`; `()` without a memory.

        And `exploration`, the noise of an `ExploringHead`, drawn if there is a `key`, which is consumed.
        """
        dtype = wide_float(self.compute_dtype)

        def widened(leaf: Array) -> Array:
            return leaf.astype(dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf

        states: dict[str, Any] = {
            branch.name: branch.memory.initial_state(branch.params(params)["memory"])
            for branch in self.plan.memories
        }
        if self.plan.explores:
            states["exploration"] = self._initial_noise(params)
            if key is not None:
                states = self.explore(params, states, key=key)
        return jax.tree.map(widened, states or ())

    def explore(self, params: Params, state: PyTree, *, key: Key) -> PyTree:
        """The state with the noise of its head for one more draw; the state itself for other heads."""
        if not self.plan.explores:
            return state
        key = jax.random.fold_in(key, 2**32 - 1)  # `key` itself draws the action
        head: Any = self.plan.head
        return {**state, "exploration": head.draw_noise(self.action_space, state["exploration"], key=key)}

    def _initial_noise(self, params: Params) -> PyTree:
        head: Any = self.plan.head
        return head.initial_noise(self.action_space, params["actor"]["head"])

    def forward(
        self, params: Params, state: PyTree, observation: PyTree, *, action_mask: Mask = None
    ) -> tuple[PyTree, Distribution, ValuePrediction | None]:
        """One step: encoders, memories, then towers and heads."""
        states: dict[str, Any] = {}
        features = self._encode(params, observation)
        for branch in self.plan.memories:
            memory, x = branch.params(params)["memory"], features[branch.tower]
            states[branch.name], y = branch.memory.step(memory, state[branch.name], x)
            features.update(branch.to_towers(y))
        if self.plan.explores:
            states["exploration"] = state["exploration"]
        return states or state, *self._decide(params, features, action_mask, states.get("exploration"))

    def forward_sequence(
        self,
        params: Params,
        state: PyTree,
        observations: PyTree,
        *,
        is_first: Bool[Array, " time"],
        action_masks: Mask = None,
    ) -> tuple[PyTree, Distribution, ValuePrediction | None]:
        """`forward` over the time axis: a scan of the memories; all other layers are batched."""
        # `is_first` is mapped too, for an observation without leaves has no time axis.
        features = jax.vmap(lambda x, _: self._encode(params, x))(observations, is_first)
        states: dict[str, Any] = {}
        for branch in self.plan.memories:
            memory, xs = branch.params(params)["memory"], features[branch.tower]
            states[branch.name], ys = branch.memory.sequence(memory, state[branch.name], xs, is_first)
            features.update(branch.to_towers(ys))
        noise = None
        if self.plan.explores:  # gone from the first reset on: no key is here to draw it anew
            first, kept, over = self._initial_noise(params), state["exploration"], jnp.cumsum(is_first) > 0
            noise = jax.vmap(lambda over: jax.tree.map(lambda a, b: jnp.where(over, a, b), first, kept))(over)
            states["exploration"] = jax.tree.map(lambda x: x[-1], noise)
        decide: Any = jax.vmap(lambda *inputs: self._decide(params, *inputs))
        return states or state, *decide(features, action_masks, noise)

    def _encode(self, params: Params, observation: PyTree) -> dict[str, Features]:
        """The features for each tower, or for the memory in front of it."""
        check_precision(self.param_dtype, self.compute_dtype)
        if self.normalize is not None:
            observation = self.normalize.apply(params["normalize"], observation)
        features: dict[str, Features] = {}
        for branch in self.plan.encoders:
            encoder_params = branch.params(params).get("encoder", {})
            view = branch.view(observation)
            x = branch.encoder.apply(encoder_params, branch.space, view, self.compute_dtype)
            x = x if self.trunk is None else self.trunk.apply(params["trunk"], x)
            features.update(branch.to_towers(x))
        return features

    def _decide(
        self, params: Params, features: dict[str, Features], action_mask: Mask, noise: PyTree
    ) -> tuple[Distribution, ValuePrediction | None]:
        """The outputs of the towers and heads."""
        temperature = params.get("temperature")
        if temperature is not None:
            temperature = jax.lax.stop_gradient(temperature)
        distribution: Distribution = NoActor()
        if self.actor is not None:
            head: Any = self.plan.head
            tower = self.actor.apply(params["actor"]["tower"], features["actor"])
            given = self.action_space, params["actor"]["head"], tower
            distribution = head.distribution(*given, action_mask, temperature)
            if noise is not None:
                distribution = head.with_noise(*given, temperature, distribution, noise)
        if self.critic is None:
            return distribution, None
        critic = params["critic"]
        tower = self.critic.apply(critic["tower"], features["critic"])
        return distribution, self.value_head.predict(critic["head"], tower)

    def env_action(self, action: PyTree) -> PyTree:
        """The environment action of a policy action, from the head."""
        check_structure(action, self._policy_space.struct(), "action")
        return self.plan.head.env_action(self.action_space, action)

    def policy_action(self, env_action: PyTree) -> PyTree:
        """The policy action of an environment action, from the head."""
        return self.plan.head.policy_action(self.action_space, env_action)

    def trainable(self, params: Params) -> PyTree:
        """True for all leaves but the statistics and the temperature."""
        moves = {
            name: jax.tree.map(lambda _, name=name: name not in _UNTRAINED, part)
            for name, part in params.items()
        }
        if "critic" in params and isinstance(self.value_head, NormalizingValueHead):
            moves["critic"]["head"] = self.value_head.trainable(params["critic"]["head"])
        return moves

    def update_statistics(
        self,
        params: Params,
        observations: PyTree,
        *,
        mask: Bool[Array, "..."] | None = None,
        axis_name: str | tuple[str, ...] | None = None,
    ) -> Params:
        """The params with `params["normalize"]` updated."""
        if self.normalize is None:
            return params
        statistics = self.normalize.update(params["normalize"], observations, mask, axis_name)
        return {**params, "normalize": statistics}

    def update_value_statistics(
        self,
        params: Params,
        returns: Float[Array, "..."],
        *,
        mask: Bool[Array, "..."] | None = None,
        axis_name: str | tuple[str, ...] | None = None,
    ) -> Params:
        """The params with the statistics of a `NormalizingValueHead` updated."""
        if self.critic is None or not isinstance(self.value_head, NormalizingValueHead):
            return params
        critic = params["critic"]
        head = self.value_head.update(critic["head"], returns, mask, axis_name)
        return {**params, "critic": {**critic, "head": head}}

    def actor_only(self, params: Params) -> tuple[Params, "ActorCriticConfig"]:
        """The pair that `act` needs, whose observation space is the view of the actor."""
        return detached(self, params, "actor")

    def critic_only(self, params: Params) -> tuple[Params, "ActorCriticConfig"]:
        """The pair that `value` needs, whose observation space is the view of the critic."""
        return detached(self, params, "critic")
