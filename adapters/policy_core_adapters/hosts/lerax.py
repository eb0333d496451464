"""Lerax (main of August 2026): a policy as one of its `AbstractActorCriticPolicy`s, an Equinox module.

    policy = ActorCriticPolicy(pc.init(config, key=key))
    policy = PPO().learn(env, policy, total_timesteps=2**17, key=key)
    pc.save("policy.msgpack", policy.pair)  # or policy.serialize("policy.msgpack")

`space_of(env.observation_space)` gives the spaces for the config. Lerax is imported when
`ActorCriticPolicy` is asked for.

Lerax stores the action that it plays, clipped: so a policy with a part that is a box of floats is one over
environment actions, by `InEnvActions`, and the ratio of an unchanged policy is 1. Its trainers replay single
steps from stored states, without backpropagation through time, so a memory learns its readout and one step.
"""

import functools
import importlib
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

import policy_core as pc
from policy_core_adapters.hosts.common import check_config, check_no_statistics, check_scalar, one_kind


def space_of(space: Any, name: str = "space") -> pc.contract.Space:
    """The policy_core space of a Lerax space, recognized by its attributes; boxes are of float32.

    Raises:
        ConfigError: for something else.
    """
    if hasattr(space, "nvec"):
        return pc.MultiDiscrete(tuple(map(int, space.nvec)))
    if hasattr(space, "low"):
        low, high = (np.asarray(bound, np.float32) for bound in (space.low, space.high))
        return pc.Box.of(low, high)
    if hasattr(space, "n"):
        return pc.MultiBinary(tuple(space.n)) if isinstance(space.n, tuple) else pc.Discrete(int(space.n))
    if isinstance(parts := getattr(space, "spaces", None), Mapping):
        return pc.Dict({key: space_of(part, f"{name}[{key!r}]") for key, part in parts.items()})
    if parts is not None:
        return pc.Tuple(tuple(space_of(part, f"{name}[{i}]") for i, part in enumerate(parts)))
    raise pc.errors.ConfigError(f"{name}: got {type(space).__name__}, expected a space of Lerax")


def to_lerax(space: pc.contract.Space) -> Any:
    """The Lerax space of a policy_core space.

    Raises:
        ConfigError: for a `Discrete` or `MultiDiscrete` that does not start at 0, or of more than one axis,
            which Lerax does not have.
    """
    spaces: Any = importlib.import_module("lerax.space")
    starts = np.ravel(getattr(space, "start", 0))
    if isinstance(space, pc.Discrete | pc.MultiDiscrete) and (starts.any() or len(space.struct().shape) > 1):
        raise pc.errors.ConfigError(
            f"space: got {space}, and discrete spaces of Lerax start at 0 and have one axis"
        )
    match space:
        case pc.Discrete():
            return spaces.Discrete(space.n)
        case pc.MultiDiscrete():
            return spaces.MultiDiscrete(space.nvec)
        case pc.MultiBinary():
            return spaces.MultiBinary(space.shape)
        case pc.Box():
            bounds = (np.full(space.shape, x) if np.ndim(x) == 0 else x for x in (space.low, space.high))
            return spaces.Box(*(jnp.reshape(jnp.asarray(x, float), space.shape) for x in bounds))
        case pc.Dict():
            return spaces.Dict({name: to_lerax(part) for name, part in space.spaces})
        case pc.Tuple():
            return spaces.Tuple(tuple(to_lerax(part) for part in space.spaces))
    raise pc.errors.ConfigError(f"space: got {type(space).__name__}, which Lerax does not have")


@functools.cache
def _policy_class() -> Any:
    base: Any = importlib.import_module("lerax.policy").AbstractActorCriticPolicy

    class ActorCriticPolicy(base):  # type: ignore[misc]
        """A policy of policy_core as an actor-critic policy of Lerax.

        Args:
            pair: the policy, `(params, config)`: the leaves of this module are its params. A fresh one may
                not have `normalize=`: Lerax would not update its statistics.
        """

        name: ClassVar[str] = "policy_core"
        # Not fields: bounds are no leaves, so that no optimizer moves them.
        action_space: ClassVar[Any] = property(lambda self: to_lerax(self.pair[1].action_space))
        observation_space: ClassVar[Any] = property(lambda self: to_lerax(self.pair[1].observation_space))
        pair: Any

        def __check_init__(self) -> None:
            params, config = self.pair
            check_config(config)
            check_scalar(config, "Lerax")
            if _fresh(params, config):
                check_no_statistics(config, "Lerax", "normalize in a wrapper of the environment")

        def reset(self, *, key: Any) -> Any:
            return pc.reset(self.pair, key=key)

        def __call__(self, state: Any, observation: Any, *, key: Any = None, action_mask: Any = None) -> Any:
            seen = self._seen(observation)
            state, action = pc.act(self.pair, state, seen, key=key, action_mask=action_mask)
            return state, _theirs(self.pair[1].action_space, action)

        def action_and_value(self, state: Any, observation: Any, *, key: Any, action_mask: Any = None) -> Any:
            seen = self._seen(observation)
            state, action, *rest = pc.action_and_value(
                self._played(), state, seen, key=key, action_mask=action_mask
            )
            return state, _theirs(self.pair[1].action_space, action), *rest

        def evaluate_action(
            self, state: Any, observation: Any, action: Any, *, action_mask: Any = None
        ) -> Any:
            seen, played = self._seen(observation), _like(self.pair[1].action_space, action)
            return pc.evaluate_action(self._played(), state, seen, played, action_mask=action_mask)

        def value(self, state: Any, observation: Any) -> Any:
            return pc.value(self.pair, state, self._seen(observation))

        def serialize(self, path: Any) -> None:
            """`pc.save` of the pair, to this very path, in a folder that is made where it is missing."""
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            pc.save(path, self.pair)

        @classmethod
        def deserialize(cls, path: Any, config: Any = None) -> Any:
            """`pc.load`: no argument but the path is needed; with a config, another one is refused."""
            return cls(pc.load(path, config))

        def _played(self) -> Any:
            """The policy over what Lerax stores and plays, within the bounds."""
            params, config = self.pair
            return params, _in_bounds(config)

        def _seen(self, observation: Any) -> Any:
            return _like(self.pair[1].observation_space, observation)

    return ActorCriticPolicy


def _in_bounds(config: Any) -> Any:
    """The config over environment actions: Lerax clips and stores whatever comes from a box."""
    dtypes = [leaf.dtype for leaf in jax.tree.leaves(config.action_space.struct())]
    boxes = any(jnp.issubdtype(dtype, jnp.floating) for dtype in dtypes)
    if boxes and not isinstance(config, pc.env_actions.InEnvActions):
        return pc.env_actions.InEnvActions(config)
    return one_kind(config)


def _fresh(params: Any, config: Any) -> bool:
    """Whether what no optimizer moves, such as statistics, is as `init` made it; false where it is traced."""
    if not isinstance(config, pc.contract.NormalizingActorCritic):
        return False
    kept = pc.trainable((params, config))[0]
    start = config.init(key=jax.random.key(0))
    trees = (jax.tree.leaves(tree) for tree in (kept, params, start))
    pairs = [(now, then) for moved, now, then in zip(*trees, strict=True) if not moved]
    if any(isinstance(now, Tracer) for now, _ in pairs):
        return False
    return all(np.array_equal(now, then) for now, then in pairs)


def _like(space: pc.contract.Space, value: Any) -> Any:
    """A value of Lerax as an element of the space: dicts, tuples, the dtypes of the space."""
    if isinstance(space, pc.Dict):
        return {name: _like(part, value[name]) for name, part in space.spaces}
    if isinstance(space, pc.Tuple):
        return tuple(_like(part, x) for part, x in zip(space.spaces, value, strict=True))
    struct: Any = space.struct()
    return jnp.asarray(value).astype(struct.dtype)


def _theirs(space: pc.contract.Space, action: Any) -> Any:
    """An action as the spaces of Lerax have it: ordered dicts, bits as booleans."""
    if isinstance(space, pc.Dict):
        return OrderedDict((name, _theirs(part, action[name])) for name, part in space.spaces)
    if isinstance(space, pc.Tuple):
        return tuple(_theirs(part, x) for part, x in zip(space.spaces, action, strict=True))
    return action.astype(bool) if isinstance(space, pc.MultiBinary) else action


def __getattr__(name: str) -> Any:
    if name == "ActorCriticPolicy":
        return _policy_class()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
