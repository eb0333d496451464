"""The free functions of one step: initialization, acting and evaluation.

Each takes the pair `(params, config)`, is jitted, pure and unbatched, and may be called
inside `jit`, `grad`, `vmap` and `scan`. They depend on the contract and on no implementation.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, cast, overload

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool

from policy_core.checks.arguments import (
    check_config,
    check_inputs,
    check_key,
    check_params,
    check_state,
    pair,
    predicted,
    value_of,
)
from policy_core.checks.structure import check_structure
from policy_core.contract import (
    Action,
    ActorCritic,
    ActorCriticOf,
    Config,
    Distribution,
    ExploringActorCritic,
    Key,
    Mask,
    Observation,
    Params,
    Policy,
    Scalar,
    ScoringDistribution,
    State,
    Value,
    ValuePrediction,
)
from policy_core.errors import StructureError
from policy_core.trees import varying_as

_P = ParamSpec("_P")
_R = TypeVar("_R")


def jit(function: Callable[_P, _R], /, *, static: tuple[str, ...] = ()) -> Callable[_P, _R]:
    """`jax.jit` of a function of a policy, whose config is a static argument, as are those of these names.

    JAX hashes the structure of a pair without its config, so that the configs of pairs of one
    structure would be searched one by one at every call. A static argument is found by its hash.
    The signature is kept for type checkers, and `lower`, `trace` and `eval_shape` are those of `jax.jit`.
    """

    def apart(params: Any, config: Any, *arguments: Any, **options: Any) -> Any:
        return cast(Any, function)((params, config), *arguments, **options)

    def with_pair(method: Any) -> Any:
        @functools.wraps(function)
        def call(policy: Any, *arguments: Any, **options: Any) -> Any:
            try:
                params, config = policy
                return method(params, config, *arguments, **options)
            except Exception:
                pair(policy)  # says so if it is none
                raise

        return call

    _, *others = inspect.signature(function).parameters.values()
    first = [inspect.Parameter(name, inspect.Parameter.POSITIONAL_ONLY) for name in ("params", "config")]
    # For the errors of JAX, and the name of the compiled module in a profile.
    apart.__name__, apart.__signature__ = function.__name__, inspect.Signature([*first, *others])  # type: ignore[attr-defined]
    compiled = jax.jit(apart, static_argnums=1, static_argnames=static, inline=True)
    jitted = with_pair(compiled)
    for name in ("lower", "trace", "eval_shape"):
        setattr(jitted, name, with_pair(getattr(compiled, name)))
    return cast("Callable[_P, _R]", jitted)


@overload
def init(
    config: ActorCriticOf[Params, State, Observation, Action, Config], *, key: Key
) -> tuple[Params, Config]: ...
@overload
def init(
    config: ActorCritic[Params, State, Observation, Action], *, key: Key
) -> Policy[Params, State, Observation, Action]: ...
def init(config: Any, *, key: Key) -> Any:
    """A fresh policy: the pair `(params, config)`.

    Args:
        config: a static config.
        key: consumed.

    Returns:
        A plain tuple. `jax.vmap` over keys gives a population: again a pair, whose params
        have a leading axis.

    Example:
        >>> import jax
        >>> import policy_core as pc
        >>> config = pc.ActorCriticConfig(
        ...     observation_space=pc.Box(shape=(4,)), action_space=pc.Discrete(2)
        ... )
        >>> params, config = pc.init(config, key=jax.random.key(0))
        >>> params["actor"]["head"]["kernel"].shape
        (64, 2)
    """
    check_config(config)
    return _init(config, key)


@functools.partial(jax.jit, static_argnums=0, inline=True)
def _init(config: Any, key: Any) -> Any:
    check_key(key)
    return config.init(key=key), config


@functools.partial(jit, static=("batch",))
def reset(
    policy: Policy[Params, State, Observation, Action],
    *,
    key: Key | None = None,
    batch: tuple[int, ...] = (),
) -> State:
    """The state at the start of an episode; `()` for a policy without memory.

    Args:
        policy: the pair.
        key: consumed, for policies whose first state is random; None for the deterministic one. The noise
            of a `GSDEHead` is drawn here if there is a key, else by the first draw.
        batch: axes in front of each leaf, such as `(32,)` for as many environments. With a key, each state
            has one of its own.

    Raises:
        StructureError: for a batch that is no tuple of sizes.

    Example:
        >>> import jax
        >>> import policy_core as pc
        >>> config = pc.ActorCriticConfig(
        ...     observation_space=pc.Box(shape=(4,)), action_space=pc.Discrete(2)
        ... )
        >>> policy = pc.init(config, key=jax.random.key(0))
        >>> pc.reset(policy)
        ()
    """
    params, config = pair(policy)
    check_params(params, config)
    check_key(key)
    if not isinstance(batch, tuple) or not all(type(size) is int and size >= 0 for size in batch):
        raise StructureError(f"batch: got {batch!r}, expected a tuple of sizes, such as (32,)")

    def initial(key: Key | None) -> State:
        return config.initial_state(params, key=key)

    if key is None:
        state = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (*batch, *leaf.shape)), initial(None))
    else:
        for _ in batch:
            initial = jax.vmap(initial)
        state = initial(jax.random.split(key, batch) if batch else key)
    result: State = varying_as(state, params, key)
    return result


@jit
def forward(
    policy: Policy[Params, State, Observation, Action],
    state: State,
    observation: Observation,
    *,
    action_mask: Mask = None,
    is_first: Bool[Array, ""] | bool | None = None,
) -> tuple[State, Distribution[Action], ValuePrediction | None]:
    """The full output of one step: next state, distribution and prediction of the value.

    Args:
        policy, state, observation, action_mask, is_first: as in `act`.

    Returns:
        The next state; the distribution over policy actions; the prediction of the value, whose
        `value()` equals that of `value` and whose `loss(target)` trains it, or None without a critic.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import policy_core as pc
        >>> config = pc.ActorCriticConfig(
        ...     observation_space=pc.Box(shape=(4,)), action_space=pc.Discrete(2),
        ...     value_head=pc.HLGaussHead(low=-10.0, high=10.0),
        ... )
        >>> policy = pc.init(config, key=jax.random.key(0))
        >>> state, distribution, critic = pc.forward(policy, pc.reset(policy), jnp.ones(4))
        >>> distribution.entropy().shape, critic.value().shape, critic.loss(jnp.array(1.0)).shape
        ((), (), ())
    """
    state, distribution, value = _forward(policy, state, observation, action_mask, is_first)
    return state, distribution, predicted(value)


@jit
def act(
    policy: Policy[Params, State, Observation, Action],
    state: State,
    observation: Observation,
    *,
    key: Key | None = None,
    action_mask: Mask = None,
    is_first: Bool[Array, ""] | bool | None = None,
) -> tuple[State, Any]:
    """One step of inference: the environment action, ready for `env.step`.

    Args:
        policy: the pair.
        state: from `reset` or the step before.
        observation: one element of the observation space.
        key: consumed. Without a key the action is the mode: deterministic.
        action_mask: which actions are allowed, in the structure of `action_space.full_mask()`.
        is_first: whether `observation` is the first of an episode: if so, `state` is reset
            before it is used.

    Returns:
        The next state, and an element of the action space.

    Raises:
        StructureError: for an argument of the wrong structure, shape or dtype, when traced.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import policy_core as pc
        >>> config = pc.ActorCriticConfig(
        ...     observation_space=pc.Box(shape=(4,)), action_space=pc.Discrete(2)
        ... )
        >>> policy = pc.init(config, key=jax.random.key(0))
        >>> mask = jnp.array([False, True])
        >>> state, action = pc.act(policy, pc.reset(policy), jnp.ones(4), action_mask=mask)
        >>> int(action)
        1
    """
    state, distribution, _ = _forward(policy, state, observation, action_mask, is_first, key)
    action = distribution.mode() if key is None else distribution.sample(key=key)
    return state, policy[1].env_action(action)


@jit
def action_and_value(
    policy: Policy[Params, State, Observation, Action],
    state: State,
    observation: Observation,
    *,
    key: Key | None,
    action_mask: Mask = None,
    is_first: Bool[Array, ""] | bool | None = None,
) -> tuple[State, Action, Value, Scalar]:
    """One step of a rollout: next state, policy action, value and log-probability.

    Args:
        policy, state, observation, action_mask, is_first: as in `act`.
        key: consumed. None gives the mode.

    Returns:
        The next state, the *policy action* (store it; `env_action` converts it for `env.step`),
        the value, and the log-probability of that action (nats).

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import policy_core as pc
        >>> config = pc.ActorCriticConfig(
        ...     observation_space=pc.Box(shape=(4,)), action_space=pc.Discrete(2)
        ... )
        >>> policy = pc.init(config, key=jax.random.key(0))
        >>> state, action, value, log_prob = pc.action_and_value(
        ...     policy, pc.reset(policy), jnp.ones(4), key=jax.random.key(1)
        ... )
        >>> action.shape == value.shape == log_prob.shape == ()
        True
    """
    state, distribution, value = _forward(policy, state, observation, action_mask, is_first, key)
    if key is None:
        action = distribution.mode()
        return state, action, value_of(value), distribution.log_prob(action)
    action, log_prob = distribution.sample_and_log_prob(key=key)
    return state, action, value_of(value), log_prob


@jit
def evaluate_action(
    policy: Policy[Params, State, Observation, Action],
    state: State,
    observation: Observation,
    action: Action,
    *,
    action_mask: Mask = None,
    is_first: Bool[Array, ""] | bool | None = None,
) -> tuple[State, Value, Scalar, Scalar]:
    """Value, log-probability and entropy of a stored action: the terms of a policy-gradient loss.

    Args:
        policy, state, observation, action_mask, is_first: as in `act`.
        action: a policy action, as `action_and_value` returned it.

    Returns:
        The next state, the value, the log-probability of the action and the entropy (nats).
        For the policy that took the action the log-probability is the one it was stored
        with, so that the importance ratio is 1.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import policy_core as pc
        >>> config = pc.ActorCriticConfig(
        ...     observation_space=pc.Box(shape=(4,)), action_space=pc.Discrete(2)
        ... )
        >>> policy = pc.init(config, key=jax.random.key(0))
        >>> def loss(policy):
        ...     _, value, log_prob, entropy = pc.evaluate_action(policy, (), jnp.ones(4), 1)
        ...     return jnp.square(value) - log_prob - 0.01 * entropy
        >>> gradient, same_config = jax.grad(loss)(policy)
        >>> same_config == config
        True
    """
    state, distribution, value = _forward(policy, state, observation, action_mask, is_first)
    return state, value_of(value), *score(distribution, action)


@jit
def value(
    policy: Policy[Params, State, Observation, Action],
    state: State,
    observation: Observation,
    *,
    is_first: Bool[Array, ""] | bool | None = None,
) -> tuple[State, Value]:
    """The next state and the value of an observation. The actor is not computed.

    Args:
        policy, state, observation, is_first: as in `act`.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import policy_core as pc
        >>> config = pc.ActorCriticConfig(
        ...     observation_space=pc.Box(shape=(4,)), action_space=pc.Discrete(2)
        ... )
        >>> policy = pc.init(config, key=jax.random.key(0))
        >>> state, value = pc.value(policy, pc.reset(policy), jnp.ones(4))
        >>> value.dtype, value.shape
        (dtype('float32'), ())
    """
    state, _, value = _forward(policy, state, observation, None, is_first)
    return state, value_of(value)


@jit
def action_distribution(
    policy: Policy[Params, State, Observation, Action],
    state: State,
    observation: Observation,
    *,
    action_mask: Mask = None,
    is_first: Bool[Array, ""] | bool | None = None,
) -> tuple[State, Distribution[Action]]:
    """The next state and the distribution over policy actions.

    The distribution is a pytree of its parameters: its methods may be called inside or outside
    of the `vmap` or `jit` that returned it.

    Args:
        policy, state, observation, action_mask, is_first: as in `act`.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import policy_core as pc
        >>> config = pc.ActorCriticConfig(
        ...     observation_space=pc.Box(shape=(4,)), action_space=pc.Discrete(2)
        ... )
        >>> policy = pc.init(config, key=jax.random.key(0))
        >>> batch = jnp.ones((5, 4))
        >>> _, distribution = jax.vmap(lambda o: pc.action_distribution(policy, (), o))(batch)
        >>> distribution.probs.shape, distribution.entropy().shape
        ((5, 2), (5,))
    """
    state, distribution, _ = _forward(policy, state, observation, action_mask, is_first)
    return state, distribution


@jit
def env_action(policy: Policy[Params, State, Observation, Action], action: Action) -> Any:
    """The environment action of a policy action: inside the bounds, of the right dtype.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import policy_core as pc
        >>> config = pc.ActorCriticConfig(
        ...     observation_space=pc.Box(shape=(4,)), action_space=pc.Box(low=-1.0, high=1.0, shape=(2,))
        ... )
        >>> policy = pc.init(config, key=jax.random.key(0))
        >>> pc.env_action(policy, jnp.array([0.5, 7.0])).tolist()
        [0.5, 1.0]
    """
    return pair(policy)[1].env_action(action)


@jit
def policy_action(policy: Policy[Params, State, Observation, Action], env_action: Any) -> Action:
    """The policy action of an environment action, as for demonstrations or other off-policy data.

    The inverse of `env_action`, clamped to what the distribution can represent: a bound
    that a squashed distribution never reaches becomes the nearest action that it does.

    Raises:
        StructureError: for an action of another structure than the action space.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import policy_core as pc
        >>> config = pc.ActorCriticConfig(
        ...     observation_space=pc.Box(shape=(4,)), action_space=pc.Box(low=-1.0, high=1.0, shape=(2,))
        ... )
        >>> policy = pc.init(config, key=jax.random.key(0))
        >>> pc.policy_action(policy, jnp.array([0.5, 7.0])).tolist()
        [0.5, 1.0]
    """
    config = pair(policy)[1]
    check_structure(env_action, config.action_space.struct(), "env_action")
    return config.policy_action(env_action)


def _forward(
    policy: Policy,
    state: Any,
    observation: Any,
    action_mask: Mask,
    is_first: Any,
    key: Key | None = None,
) -> Any:
    """`forward` of the config, for a draw with `key` if there is one."""
    check_key(key)
    params, config = pair(policy)
    check_params(params, config)
    check_inputs(config, observation, action_mask)
    check_state(params, config, state)
    if is_first is not None:
        check_structure(is_first, jax.ShapeDtypeStruct((), jnp.bool_), "is_first")
        state = jax.tree.map(
            lambda first, old: jnp.where(is_first, first, old), config.initial_state(params), state
        )
    if key is not None and isinstance(config, ExploringActorCritic):
        state = config.explore(params, state, key=key)
    return config.forward(params, state, observation, action_mask=action_mask)


def score(distribution: Distribution[Action], action: Action) -> tuple[Scalar, Scalar]:
    """The log-probability of an action, and the entropy (nats)."""
    check_structure(action, jax.eval_shape(distribution.mode), "action")
    if isinstance(distribution, ScoringDistribution):
        return distribution.log_prob_and_entropy(action)
    return distribution.log_prob(action), distribution.entropy()
