"""The contract: what a policy, a distribution and a space are, as `typing.Protocol`s.

A policy is a pair `(params, config)`. `params` is a pytree of arrays, `config` is static
data that implements `ActorCritic`. The free functions of `policy_core.policy` know this
file and nothing else of the library, so a config written elsewhere is a first-class
citizen; `policy_core.testing.check_policy` tells whether it keeps the contract.

Everything here is unbatched (batches are `jax.vmap`) and pure (same arguments, same
result; randomness only from `key`, which is consumed).
"""

from typing import Any, NamedTuple, Protocol, TypeAlias, TypeVar, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree, UInt32
from jaxtyping import Key as KeyArray

Key: TypeAlias = KeyArray[Array, ""] | UInt32[Array, "_"]
"""A PRNG key of either style: `jax.random.key(0)` or `jax.random.PRNGKey(0)`."""

Scalar: TypeAlias = Float[Array, ""]

Value: TypeAlias = Float[Array, "*objectives"]
"""An expected return, in units of reward: a scalar, or a vector of a critic with several objectives."""

Mask: TypeAlias = Any
"""Which actions are allowed: booleans in the structure of the action space, or None for all."""

# Each is taken and given by some method, so all of them are invariant.
Element = TypeVar("Element")
Action = TypeVar("Action")
Params = TypeVar("Params")
State = TypeVar("State")
Observation = TypeVar("Observation")


@runtime_checkable
class Space(Protocol[Element]):
    """A set of observations or actions. Spaces are static configs themselves."""

    @property
    def flat_size(self) -> int:
        """How many numbers `flatten` gives."""
        ...

    def struct(self) -> PyTree:
        """Shape and dtype of an element, as a pytree of `jax.ShapeDtypeStruct`."""
        ...

    def sample(self, *, key: Key, mask: Mask = None) -> Element:
        """A random element that the mask allows. `key` is consumed."""
        ...

    def contains(self, element: PyTree) -> Bool[Array, ""]:
        """Whether `element` has the right structure, shape and kind, and lies in the space."""
        ...

    def flatten(self, element: Element) -> Float[Array, " flat"]:
        """The element as one float vector of `flat_size` numbers."""
        ...

    def unflatten(self, flat: Float[Array, " flat"]) -> Element:
        """Inverse of `flatten`."""
        ...

    def full_mask(self) -> Mask:
        """The mask that allows everything; None where a mask cannot apply."""
        ...

    def check_mask(self, mask: Mask, name: str = "action_mask") -> None:
        """Raise `MaskError` unless `mask` has the structure, shapes and dtype of `full_mask`."""
        ...


@runtime_checkable
class Distribution(Protocol[Action]):
    """A distribution over actions: a pytree of parameters with pure methods.

    Methods work on trailing axes only. A distribution that leaves a `vmap` has its batch
    axes in front and all of its methods are right as they stand.
    """

    def sample(self, *, key: Key) -> Action:
        """One draw. `key` is consumed."""
        ...

    def mode(self) -> Action:
        """The deterministic choice; each family says what it is."""
        ...

    def log_prob(self, action: Action) -> Float[Array, "..."]:
        """Log-probability, or log-density, of a policy action (nats)."""
        ...

    def entropy(self) -> Float[Array, "..."]:
        """Minus the expectation of `log_prob` (nats)."""
        ...

    def kl(self, other: Any) -> Float[Array, "..."]:
        """Divergence from `self` to `other`, KL(self || other) (nats), at least 0."""
        ...

    def sample_and_log_prob(self, *, key: Key) -> tuple[Action, Float[Array, "..."]]:
        """`sample` and the `log_prob` of that sample, with shared work. `key` is consumed."""
        ...


@runtime_checkable
class ValuePrediction(Protocol):
    """What a critic says of an observation: a pytree that gives a value, and a loss to train it by.

    Like a distribution it works on trailing axes only, and is right where it leaves a `vmap`.
    """

    def value(self) -> Float[Array, "..."]:
        """The expected return, in units of reward: a scalar, or `[objectives]`."""
        ...

    def loss(self, target: Float[Array, "..."]) -> Float[Array, "..."]:
        """How wrong it is about returns, in the shape of `value`; not differentiated in `target`."""
        ...


class PointValue(NamedTuple):
    """A plain number as a prediction; its loss is half the squared error.

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
    """What the config of a policy must offer. It must be static: `@policy_core.static`.

    There are two kinds of action. A *policy action* is what the distribution samples and
    scores: rollouts store it. An *environment action* is what `env.step` takes: inside the
    bounds, of the right dtype. For discrete spaces they are the same.
    """

    @property
    def observation_space(self) -> Space[Observation]:
        """Where observations come from."""
        ...

    @property
    def action_space(self) -> Space[Any]:
        """Where environment actions go."""
        ...

    def init(self, *, key: Key) -> Params:
        """Fresh params: a pytree of arrays. `key` is consumed."""
        ...

    def initial_state(self, params: Params, *, key: Key | None = None) -> State:
        """The memory at the start of an episode; `()` if there is none."""
        ...

    def forward(
        self, params: Params, state: State, observation: Observation, *, action_mask: Mask = None
    ) -> tuple[State, Distribution[Action], ValuePrediction | Scalar | None]:
        """One step: the next state, the distribution over policy actions, and the value.

        The one primitive; the free functions are derived from it and XLA removes what
        they do not use. `state` has been reset already where an episode begins. A value that
        is an array is a scalar and counts as a `PointValue`; a policy without a critic gives None.
        """
        ...

    def env_action(self, action: Action) -> Any:
        """The environment action of a policy action."""
        ...

    def policy_action(self, env_action: Any) -> Action:
        """A policy action that gives `env_action`, clamped to what the family can represent."""
        ...


@runtime_checkable
class SequenceActorCritic(ActorCritic[Params, State, Observation, Action], Protocol):
    """A policy that also has a form of its own for sequences.

    Optional: `evaluate_sequence` uses it where a config offers it, and else scans `forward`.
    Both must agree; `policy_core.testing.check_policy` compares them.
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
        """As many steps of `forward`, over a leading axis of time of everything but `state`.

        Before step t the state becomes the initial one where `is_first[t]`: here, unlike in
        `forward`, that is for the implementation to do.

        Returns:
            The state after the last step, and the distributions and values with a leading axis
            of time, as if from `vmap`.
        """
        ...


@runtime_checkable
class NormalizingActorCritic(ActorCritic[Params, State, Observation, Action], Protocol):
    """A policy some of whose params are not for an optimiser, such as running statistics.

    Optional: for a config without these methods `trainable` is true everywhere, and
    `update_statistics` changes nothing.
    """

    def trainable(self, params: Params) -> PyTree:
        """Which leaves an optimiser may move: Python bools in the structure of `params`."""
        ...

    def update_statistics(
        self,
        params: Params,
        observations: Observation,
        *,
        mask: Bool[Array, "..."] | None = None,
        axis_name: str | tuple[str, ...] | None = None,
    ) -> Params:
        """The params after seeing observations, which have any number of leading axes.

        Args:
            params: the params.
            observations: with the same leading axes in all of their parts.
            mask: which of them count, in the shape of the leading axes; None for all.
            axis_name: named axes over which the observations are split, if any.
        """
        ...


@runtime_checkable
class DetachableActorCritic(ActorCritic[Params, State, Observation, Action], Protocol):
    """A policy whose actor can go without its critic. Optional: `actor_only` asks for it."""

    def actor_only(self, params: Params) -> tuple[Any, Any]:
        """The pair that acts alike and has no leaf of the critic's; its `forward` gives None for a value."""
        ...


Policy: TypeAlias = tuple[Params, ActorCritic[Params, State, Observation, Action]]
"""A plain tuple `(params, config)`. As a pytree its leaves are those of `params`."""
