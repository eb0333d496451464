"""The contract: every `typing.Protocol` that a user may implement.

A policy is a pair `(params, config)`. `params` is a pytree of arrays, `config` is static
data that implements `ActorCritic`. The functions of `policy_core.functions` import this file
and no implementation, so a config defined elsewhere works like the shipped one;
`policy_core.testing.check_policy` tests whether it satisfies the contract.

    ActorCritic, and its optional forms    a whole policy
    Space, Distribution, ValuePrediction   its inputs and outputs
    Network, Encoder, Memory, Head, ValueHead   the parts of `ActorCriticConfig`

Everything here is unbatched (batches are `jax.vmap`) and pure (same arguments, same
result; randomness only from `key`, which is consumed).
"""

from typing import Any, NamedTuple, Protocol, TypeAlias, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree, UInt32
from jaxtyping import Key as KeyArray
from typing_extensions import TypeVar

Key: TypeAlias = KeyArray[Array, ""] | UInt32[Array, "_"]
"""A PRNG key of either style: `jax.random.key(0)` or `jax.random.PRNGKey(0)`."""

Scalar: TypeAlias = Float[Array, ""]

Value: TypeAlias = Float[Array, "*objectives"]
"""An expected return, in units of reward: a scalar, or a vector of a critic with several objectives."""

Mask: TypeAlias = Any
"""Which actions are allowed: booleans in the structure of the action space, or None for all."""

Features: TypeAlias = Float[Array, " features"]
"""A feature vector: the output of an encoder, a memory or a network."""

Temperature: TypeAlias = Float[Array, ""] | None
"""A sampling temperature: above 1 flattens a distribution, below 1 sharpens it; None for 1."""

# Invariant: each is both an argument and a result of some method. Each defaults to Any, so
# `Policy` alone is a policy of any kind.
Element = TypeVar("Element", default=Any)
Action = TypeVar("Action", default=Any)
Params = TypeVar("Params", default=Any)
State = TypeVar("State", default=Any)
Observation = TypeVar("Observation", default=Any)
Config = TypeVar("Config", covariant=True, bound="ActorCritic[Any, Any, Any, Any]", default=Any)


@runtime_checkable
class Space(Protocol[Element]):
    """A set of observations or actions, as in gymnasium. A space is itself a static config."""

    @property
    def flat_size(self) -> int:
        """Dimension of the flat form."""
        ...

    def struct(self) -> PyTree:
        """Shape and dtype of an element, as a pytree of `jax.ShapeDtypeStruct`."""
        ...

    def sample(self, *, key: Key, mask: Mask = None) -> Element:
        """A random element allowed by the mask. `key` is consumed."""
        ...

    def contains(self, element: PyTree) -> Bool[Array, ""]:
        """Whether `element` has the structure, shape and kind of dtype of the space, and lies in it."""
        ...

    def flatten(self, element: Element) -> Float[Array, " flat"]:
        """The element as one float vector of `flat_size` entries."""
        ...

    def unflatten(self, flat: Float[Array, " flat"]) -> Element:
        """Inverse of `flatten`."""
        ...

    def full_mask(self) -> Mask:
        """The mask that allows everything; None where a mask cannot apply."""
        ...

    def mask_rows(self, mask: Mask) -> list[Bool[Array, "..."]]:
        """The rows of a mask of which at least one entry must be allowed; `[]` if there are none."""
        ...

    def check_mask(self, mask: Mask, name: str = "action_mask") -> None:
        """Raise `MaskError` unless `mask` has the structure, shapes and dtype of `full_mask`."""
        ...


@runtime_checkable
class Distribution(Protocol[Action]):
    """A distribution over actions: a pytree of parameters with pure methods.

    Methods work on trailing axes only. A distribution returned from a `vmap` has leading batch
    axes, and all of its methods apply to it unchanged.
    """

    def sample(self, *, key: Key) -> Action:
        """A random action. `key` is consumed."""
        ...

    def mode(self) -> Action:
        """The deterministic action; each family documents which one it is."""
        ...

    def log_prob(self, action: Action) -> Float[Array, "..."]:
        """Log-probability, or log-density, of a policy action (nats)."""
        ...

    def entropy(self) -> Float[Array, "..."]:
        """The entropy: minus the expectation of `log_prob` (nats)."""
        ...

    def kl(self, other: Any) -> Float[Array, "..."]:
        """The Kullback-Leibler divergence KL(self || other) (nats), at least 0."""
        ...

    def sample_and_log_prob(self, *, key: Key) -> tuple[Action, Float[Array, "..."]]:
        """A sample and its log-probability, with shared computation. `key` is consumed."""
        ...


@runtime_checkable
class ScoringDistribution(Distribution[Action], Protocol[Action]):
    """A distribution whose `log_prob` and `entropy` share work. Optional: `evaluate_action` calls it."""

    def log_prob_and_entropy(self, action: Action) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
        """What `log_prob` and `entropy` return, the first bit for bit."""
        ...


@runtime_checkable
class ValuePrediction(Protocol):
    """A critic's prediction: a pytree with a value and its training loss.

    Like a distribution it works on trailing axes only, so it may be returned from a `vmap`.
    """

    def value(self) -> Float[Array, "..."]:
        """The expected return, in units of reward: a scalar, or `[objectives]`."""
        ...

    def loss(self, target: Float[Array, "..."]) -> Float[Array, "..."]:
        """Per-sample loss against a return target, in the shape of `value`; no gradient flows to `target`."""
        ...


class PointValue(NamedTuple):
    """A scalar value prediction; its loss is half the squared error.

    Args:
        prediction: `[...]`, in units of reward.

    Example:
        >>> import jax.numpy as jnp
        >>> from policy_core.contract import PointValue
        >>> float(PointValue(jnp.array(3.0)).loss(jnp.array(1.0)))
        2.0
    """

    prediction: Float[Array, "..."]

    def value(self) -> Float[Array, "..."]:
        """The prediction itself."""
        return self.prediction

    def loss(self, target: Float[Array, "..."]) -> Float[Array, "..."]:
        """(prediction - target)^2 / 2."""
        return 0.5 * jnp.square(self.prediction - jax.lax.stop_gradient(target))


@runtime_checkable
class ActorCritic(Protocol[Params, State, Observation, Action]):
    """The methods that the config of a policy must implement. It must be static: `@policy_core.static`.

    There are two kinds of action. A *policy action* is a sample of the distribution, in whose
    units `log_prob` is defined: rollouts store it. An *environment action* is the argument of
    `env.step`: inside the bounds, of the right dtype. For discrete spaces they are the same.
    """

    @property
    def observation_space(self) -> Space[Observation]:
        """The space of the observations."""
        ...

    @property
    def action_space(self) -> Space:
        """The space of the environment actions."""
        ...

    def init(self, *, key: Key) -> Params:
        """Fresh params: a pytree of arrays. `key` is consumed."""
        ...

    def initial_state(self, params: Params, *, key: Key | None = None) -> State:
        """The recurrent state at the start of an episode; `()` for a policy without memory."""
        ...

    def forward(
        self, params: Params, state: State, observation: Observation, *, action_mask: Mask = None
    ) -> tuple[State, Distribution[Action], ValuePrediction | Scalar | None]:
        """One step: the next state, the distribution over policy actions, and the value.

        The one primitive: the free functions are derived from it, and XLA removes the outputs
        that they do not use. `state` has been reset already where an episode begins. A value that
        is an array must be a scalar and is wrapped in a `PointValue`; None for a policy without a critic.
        """
        ...

    def env_action(self, action: Action) -> Any:
        """The environment action of a policy action."""
        ...

    def policy_action(self, env_action: Any) -> Action:
        """A policy action mapped to `env_action`, clamped to what the distribution can represent."""
        ...


@runtime_checkable
class SequenceActorCritic(ActorCritic[Params, State, Observation, Action], Protocol):
    """A policy with its own implementation of `forward` over a sequence.

    Optional: `evaluate_sequence` uses it where a config implements it, and otherwise scans
    `forward`. Both must agree; `policy_core.testing.check_policy` compares them.
    """

    def forward_sequence(
        self,
        params: Params,
        state: State,
        observations: Observation,
        *,
        is_first: Bool[Array, " time"],
        action_masks: Mask = None,
    ) -> tuple[State, Distribution[Action], ValuePrediction | Float[Array, " time"] | None]:
        """`forward` over the leading time axis of every argument but `state`.

        Before step t the state is reset to the initial one where `is_first[t]`: here, unlike in
        `forward`, the implementation must do so.

        Returns:
            The state after the last step, and the distributions and values with a leading time
            axis, as if from `vmap`.
        """
        ...


@runtime_checkable
class NormalizingActorCritic(ActorCritic[Params, State, Observation, Action], Protocol):
    """A policy with params that the optimizer must not update, such as running statistics.

    Optional: for a config without these methods `trainable` is true everywhere, and
    `update_statistics` changes nothing.
    """

    def trainable(self, params: Params) -> PyTree:
        """Which leaves an optimizer may update: Python bools in the structure of `params`."""
        ...

    def update_statistics(
        self,
        params: Params,
        observations: Observation,
        *,
        mask: Bool[Array, "..."] | None = None,
        axis_name: str | tuple[str, ...] | None = None,
    ) -> Params:
        """The params with their statistics updated from a batch of observations.

        Args:
            params: the params.
            observations: with any number of leading axes, the same in all of their parts.
            mask: which of them count, in the shape of the leading axes; None for all.
            axis_name: named axes over which the observations are split, if any.
        """
        ...


@runtime_checkable
class ValueNormalizingActorCritic(ActorCritic[Params, State, Observation, Action], Protocol):
    """A policy with running statistics of returns. Optional: else `update_statistics` ignores returns."""

    def update_value_statistics(
        self,
        params: Params,
        returns: Float[Array, "..."],
        *,
        mask: Bool[Array, "..."] | None = None,
        axis_name: str | tuple[str, ...] | None = None,
    ) -> Params:
        """The params with these statistics updated; arguments are those of `update_statistics`."""
        ...


@runtime_checkable
class DetachableActorCritic(ActorCritic[Params, State, Observation, Action], Protocol):
    """A policy whose actor can be used without its critic. Optional: `actor_only` requires it."""

    def actor_only(self, params: Params) -> tuple[Any, Any]:
        """The pair without the params of the critic: same actions; its `forward` returns None as value."""
        ...


@runtime_checkable
class ExploringActorCritic(ActorCritic[Params, State, Observation, Action], Protocol):
    """A policy with noise in its state, which lasts for several steps. Optional.

    `act` and `action_and_value` call `explore` before `forward` where they are given a key, so that the
    distribution that `forward` returns may draw with the noise in the state. Its density must not depend
    on it: it is that over all draws of the noise.
    """

    def explore(self, params: Params, state: State, *, key: Key) -> State:
        """The state for one more draw, its noise drawn anew if that is due. `key` itself draws the action."""
        ...


@runtime_checkable
class CriticActorCritic(ActorCritic[Params, State, Observation, Action], Protocol):
    """A policy whose critic can be used without its actor. Optional: `surgery.critic_only` requires it."""

    def critic_only(self, params: Params) -> tuple[Any, Any]:
        """The pair without the params of the actor: same values; its `forward` returns a `NoActor`."""
        ...


Policy: TypeAlias = tuple[Params, ActorCritic[Params, State, Observation, Action]]
"""A plain tuple `(params, config)`. As a pytree its leaves are those of `params`."""


class ActorCriticOf(
    ActorCritic[Params, State, Observation, Action], Protocol[Params, State, Observation, Action, Config]
):
    """An `ActorCritic` of the class `Config`, which every config is that is no mere protocol.

    For type checkers: a type variable cannot be bounded by a protocol of other type variables, but
    the class of an object is one of its attributes. So `init(config)` has the class of `config`.
    """

    # As `object` has it, but without the setter.
    @property  # type: ignore[misc]
    def __class__(self) -> type[Config]:  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
        """The class of the config."""
        ...


# The parts of the shipped policy. To use your own, pass an instance of a `@policy_core.static`
# class with these methods in a field of `ActorCriticConfig`; no base class is needed.


@runtime_checkable
class Network(Protocol):
    """A network: from a vector to a vector of features, in the dtype of its input."""

    def init(self, in_size: int, *, key: Key, dtype: str) -> Any:
        """Fresh params, in `dtype`, for inputs of dimension `in_size`. `key` is consumed."""
        ...

    def out_size(self, in_size: int) -> int:
        """Output dimension for inputs of dimension `in_size`."""
        ...

    def apply(self, params: Any, x: Float[Array, " inputs"]) -> Float[Array, " outputs"]:
        """The features of one input, in the dtype of `x`."""
        ...


@runtime_checkable
class Encoder(Protocol):
    """An encoder: from one observation to a vector of features."""

    def check_space(self, space: Space, name: str = "observation_space") -> None:
        """Raise `ConfigError`, with `name` in it, for a space that cannot be encoded."""
        ...

    def init(self, space: Space, *, key: Key, dtype: str) -> Any:
        """Fresh params, in `dtype`; `{}` for an encoder without params. `key` is consumed."""
        ...

    def out_size(self, space: Space) -> int:
        """Output dimension for observations of `space`."""
        ...

    def apply(self, params: Any, space: Space, observation: PyTree, dtype: str) -> Features:
        """The features of one observation, computed in `dtype`."""
        ...


@runtime_checkable
class Memory(Protocol):
    """A memory: a recurrent network, whose state is carried from one observation to the next.

    A state is a pytree of arrays. `step` keeps the dtypes of the state, whatever dtype it
    computes in (an `ActorCriticConfig` holds states in float32, or float64), and its output
    has the dtype of its input.
    """

    def init(self, in_size: int, *, key: Key, dtype: str) -> Any:
        """Fresh params, in `dtype`, for inputs of dimension `in_size`. `key` is consumed."""
        ...

    def out_size(self, in_size: int) -> int:
        """Output dimension for inputs of dimension `in_size`."""
        ...

    def initial_state(self, params: Any) -> Any:
        """The state at the start of an episode."""
        ...

    def step(
        self, params: Any, state: Any, x: Float[Array, " inputs"]
    ) -> tuple[Any, Float[Array, " outputs"]]:
        """One step: the next state and the output."""
        ...

    def sequence(
        self, params: Any, state: Any, xs: Float[Array, "time inputs"], is_first: Bool[Array, " time"]
    ) -> tuple[Any, Float[Array, "time outputs"]]:
        """`step` over the time axis; before step t the state is reset if `is_first[t]`.

        Returns:
            The state after the last step, and the outputs. `scan_steps` implements this for any
            memory.
        """
        ...


@runtime_checkable
class Head(Protocol):
    """A head of the actor: from features to a distribution over one kind of action space.

    Whatever dtype the features have, distribution parameters are converted to float32 (float64
    for float64 features) before masks, sampling and log-probabilities.
    """

    def check_space(self, space: Any) -> None:
        """Raise `ConfigError` if the head does not support this space."""
        ...

    def policy_space(self, space: Any) -> Space:
        """The space of the policy actions, those that the distribution samples."""
        ...

    def init(self, space: Any, in_size: int, *, key: Key, dtype: str, gain: float) -> Any:
        """Fresh params for features of dimension `in_size`. `key` is consumed."""
        ...

    def distribution(
        self, space: Any, params: Any, features: Features, mask: Mask, temperature: Temperature
    ) -> Distribution:
        """The distribution over policy actions.

        A temperature T raises its density to the power 1 / T and renormalizes it: T above 1 is
        flatter, T near 0 is the mode.
        """
        ...

    def env_action(self, space: Any, action: Any) -> Any:
        """The environment action of a policy action."""
        ...

    def policy_action(self, space: Any, env_action: Any) -> Any:
        """A policy action mapped to `env_action`, clamped to what the distribution can represent."""
        ...


@runtime_checkable
class ExploringHead(Head, Protocol):
    """A head with noise that lasts for several steps, which is kept in the state of the policy. Optional.

    What `distribution` returns is that over all draws of the noise. Where the noise is kept, it is
    replaced by what `with_noise` returns, whose density must be the same.
    """

    def initial_noise(self, space: Any, params: Any) -> Any:
        """What is in the state as long as no noise has been drawn: a pytree of arrays."""
        ...

    def draw_noise(self, space: Any, noise: Any, *, key: Key) -> Any:
        """The noise for one more draw, drawn anew where that is due. `key` is consumed."""
        ...

    def with_noise(
        self,
        space: Any,
        params: Any,
        features: Features,
        temperature: Temperature,
        distribution: Distribution,
        noise: Any,
    ) -> Distribution:
        """The distribution that draws with this noise, or as before if none has been drawn."""
        ...


@runtime_checkable
class ValueHead(Protocol):
    """A head of the critic: from features to a prediction of the return."""

    def init(self, in_size: int, *, key: Key, dtype: str, gain: float) -> Any:
        """Fresh params, in `dtype`, for features of dimension `in_size`. `key` is consumed."""
        ...

    def predict(self, params: Any, features: Features) -> ValuePrediction:
        """The prediction for one vector of features."""
        ...


@runtime_checkable
class NormalizingValueHead(ValueHead, Protocol):
    """A value head with running statistics of the returns in its params. Optional."""

    def trainable(self, params: Any) -> PyTree:
        """Which leaves an optimizer may update: Python bools in the structure of `params`."""
        ...

    def update(
        self,
        params: Any,
        returns: Float[Array, "..."],
        mask: Bool[Array, "..."] | None,
        axis_name: str | tuple[str, ...] | None,
    ) -> Any:
        """The params, with statistics of more returns `[..., *objectives]`, of those that a mask allows."""
        ...
