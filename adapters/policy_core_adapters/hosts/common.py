"""What the hosts ask for: batches without `vmap`, one kind of action, and an optimizer for each tower."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import policy_core as pc

DRAWS = 16  # of the action space, to tell whether policy actions are environment actions


def check_config(config: Any) -> None:
    """Raise `StructureError` unless the config implements `ActorCritic`."""
    if not isinstance(config, pc.contract.ActorCritic):
        raise pc.errors.StructureError(
            f"config: got {type(config).__name__}, expected a config such as pc.ActorCriticConfig(...)"
        )


def check_stateless(config: Any, host: str, instead: str) -> None:
    """Raise `ConfigError` for a policy with a memory, or kept noise: the host carries no state."""
    state = jax.eval_shape(lambda: config.initial_state(config.init(key=jax.random.key(0))))
    if jax.tree.leaves(state):
        raise pc.errors.ConfigError(
            f"config: got a policy with a memory, or kept noise, whose state {host} does not carry; {instead}"
        )


def check_no_kept_noise(config: Any, host: str) -> None:
    """Raise `ConfigError` for a head whose noise is kept in the state: the host would never draw it."""
    same = [True]

    def look() -> Any:
        params, key = config.init(key=jax.random.key(0)), jax.random.key(0)
        state = config.initial_state(params)
        if isinstance(config, pc.contract.ExploringActorCritic):
            same[0] = config.explore(params, state, key=key) is state
        return state

    jax.eval_shape(look)
    if not same[0]:
        raise pc.errors.ConfigError(
            f"config: got a head whose noise is kept, which {host} does not draw; use another"
        )


def check_no_statistics(config: Any, host: str, instead: str) -> None:
    """Raise `ConfigError` for statistics of observations, which the host would never update."""
    if getattr(config, "normalize", None) is not None or (
        hasattr(config, "config") and getattr(config.config, "normalize", None) is not None
    ):
        raise pc.errors.ConfigError(
            f"config: got normalize=, whose statistics {host} does not update; {instead}"
        )


def leading_axes(space: pc.contract.Space, observation: Any, name: str = "observation") -> int:
    """The number of axes that an observation has in front of those of the space.

    Raises:
        StructureError: for an observation that is not one of the space, with or without leading axes.
    """
    struct: Any = space.struct()
    got, expected = jax.tree.leaves(observation), jax.tree.leaves(struct)
    axes = {jnp.ndim(leaf) - len(one.shape) for leaf, one in zip(got, expected, strict=False)}
    count = axes.pop() if len(axes) == 1 else -1
    same = jax.tree.structure(observation) == jax.tree.structure(struct)  # type: ignore[operator]
    if (
        not same
        or count < 0
        or any(jnp.shape(leaf)[count:] != one.shape for leaf, one in zip(got, expected, strict=True))
    ):
        shapes = [jnp.shape(leaf) for leaf in got], [one.shape for one in expected]
        raise pc.errors.StructureError(
            f"{name}: got shapes {shapes[0]}, expected those of the observation space, {shapes[1]}, with the "
            "same leading axes in front of each"
        )
    return count


def mapped(function: Callable[..., Any], axes: int) -> Callable[..., Any]:
    """`jax.vmap` over so many leading axes of every argument."""
    for _ in range(axes):
        function = jax.vmap(function)
    return function


def output(policy: Any, observation: Any, action_mask: Any = None) -> tuple[Any, Any]:
    """Distribution and prediction of a policy without memory, for any leading axes of the observation."""
    axes = leading_axes(policy[1].observation_space, observation)

    def one(observation: Any, action_mask: Any) -> Any:
        return pc.forward(policy, (), observation, action_mask=action_mask)[1:]

    return mapped(one, axes)(observation, action_mask)  # type: ignore[no-any-return]


def scalar_value(prediction: Any, host: str) -> jax.Array:
    """The values of a prediction that is a scalar for each observation.

    Raises:
        StructureError: for a policy without a critic, or whose critic has several objectives.
    """
    if prediction is None:
        raise pc.errors.StructureError(f"config: critic is None, and {host} needs the values of a critic")
    value: jax.Array = prediction.value()
    return value


def check_scalar(config: Any, host: str) -> None:
    """Raise `ConfigError` unless the value is one number: the host takes it for that."""

    def one() -> Any:
        policy: Any = pc.init(config, key=jax.random.key(0))
        x = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), config.observation_space.struct())
        return scalar_value(pc.forward(policy, pc.reset(policy), x)[2], host)

    if (shape := jax.eval_shape(one).shape) != ():
        raise pc.errors.ConfigError(
            f"config: got a critic whose values have the shape {shape}, and {host} takes one number"
        )


# ONE KIND OF ACTION --------------------------------------------------------------------------


@functools.lru_cache(maxsize=256)
def plays_what_it_draws(config: Any) -> bool:
    """Whether policy actions are environment actions, but for clipping, as of `NormalHead`; on 16 draws."""
    with jax.ensure_compile_time_eval():
        keys = jax.random.split(jax.random.key(0), DRAWS)
        actions = jax.vmap(lambda key: config.action_space.sample(key=key))(keys)
        ours = jax.vmap(config.policy_action)(actions)
    pairs = zip(jax.tree.leaves(actions), jax.tree.leaves(ours), strict=True)
    return all(a.shape == b.shape and np.allclose(a, b, rtol=1e-3, atol=1e-6) for a, b in pairs)


def one_kind(config: Any) -> Any:
    """The config, or around it `InEnvActions`, which has the same params, where its two actions differ.

    For hosts that play what they store, or clip it: clipping is what `NormalHead` does, too.
    """
    return config if plays_what_it_draws(config) else pc.env_actions.InEnvActions(config)


# AN OPTIMIZER FOR EACH TOWER -----------------------------------------------------------------


def check_apart(config: Any, host: str) -> None:
    """Raise `ConfigError` for a policy whose actor and critic share params that are trained."""
    if shared := sorted(_numbered(config)[2]):
        raise pc.errors.ConfigError(
            f"config: actor and critic share {', '.join(map(repr, shared[:3]))}, and {host} trains them with "
            'an optimizer each; use trunk=None, encoder_sharing="separate"'
        )


def together(config: Any, actor: Any, critic: Any) -> Any:
    """The policy of a config from its actor and its critic, as the hosts train them: the pair to save.

    Args:
        config: the config that both are of.
        actor, critic: the pairs of `pc.actor_only` and `pc.surgery.critic_only`.

    Raises:
        StructureError: for pairs of another config.
    """
    struct, halves, _ = _numbered(config)
    leaves: list[Any] = [None] * len(jax.tree.leaves(struct))
    for name, part, pair in zip(("critic", "actor"), halves, (critic, actor), strict=True):
        (numbers, of), (params, got) = part, pair
        same: Any = jax.tree.structure(params)
        if got != of or same != jax.tree.structure(numbers):
            raise pc.errors.StructureError(f"{name}: got a pair of another config than that of the {name}")
        for number, leaf in zip(jax.tree.leaves(numbers), jax.tree.leaves(params), strict=True):
            leaves[number] = leaf
    return jax.tree.unflatten(jax.tree.structure(struct), leaves), config


def _numbered(config: Any) -> tuple[Any, Any, set[str]]:
    """The structure of the params; critic and actor with numbers for leaves; the paths of what they share.

    Both parts are made by moving leaves, so leaves that are their own numbers say where each came from.
    """
    parts: Any = config
    for protocol in (pc.contract.DetachableActorCritic, pc.contract.CriticActorCritic):
        if not isinstance(config, protocol):
            raise pc.errors.ConfigError(
                f"config: {type(config).__name__} does not implement {protocol.__name__}"
            )
    struct = jax.eval_shape(lambda: config.init(key=jax.random.key(0)))
    count = len(jax.tree.leaves(struct))
    numbers = jax.tree.unflatten(jax.tree.structure(struct), range(count))
    critic, actor = parts.critic_only(numbers), parts.actor_only(numbers)
    flags = [True] * count
    if isinstance(config, pc.contract.NormalizingActorCritic):
        flags = jax.tree.leaves(config.trainable(numbers))
    both = set(jax.tree.leaves(critic[0])) & set(jax.tree.leaves(actor[0]))
    paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(struct)]
    shared = {
        jax.tree_util.keystr(paths[number], simple=True, separator="/")
        for number, flag in enumerate(flags)
        if flag and number in both
    }
    return struct, (critic, actor), shared
