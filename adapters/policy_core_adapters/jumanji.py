"""jumanji environments (1.x): specs as spaces, the mask of the observation as `action_mask`.

An observation is a NamedTuple or a dataclass, with the mask inside; here it is a dict without the
mask, which `action_mask(state)` gives. A LAST step whose discount is 0 is a termination, with any
other discount a truncation. (Of the registered environments Connector and LevelBasedForaging tell
their time limits so; for the others a time limit is a termination.) Where rewards and discounts are
given by agent, the rewards are added and the largest discount counts, as in jumanji's
`MultiToSingleWrapper`.
"""

import dataclasses
import importlib
import math
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

import policy_core as pc
from policy_core_adapters.environment import Environment, Step, auto_reset, declared, refuse_wrappers

MASK = "action_mask"
LAST = 2  # of `StepType`
Layout: TypeAlias = Literal["rows", "joint"]


class Masked(NamedTuple):
    """The state of a jumanji environment, and the mask of its next action."""

    state: Any
    mask: Any


def make(name: str, **env_kwargs: Any) -> Environment:
    """The registered jumanji environment `name`, as "Snake-v1"."""
    jumanji: Any = importlib.import_module("jumanji")
    with jax.ensure_compile_time_eval():
        env = jumanji.make(name, **env_kwargs)
    return from_jumanji(env)


def from_jumanji(
    env: Any, *, without: tuple[str, ...] = (), most_one_hot: int = 64, layout: Layout | None = None
) -> Environment:
    """A jumanji environment as an `Environment`.

    Args:
        env: without an `AutoResetWrapper`.
        without: parts of the observation to leave out, as "step_count".
        most_one_hot: a `DiscreteArray` of an observation that has more values is one number.
        layout: of the mask of a `MultiDiscreteArray`: "rows", one for each number, or "joint", over
            all combinations. It is told by the shape, unless both have the same one.

    Raises:
        ValueError: for a spec without a space, a mask of an unknown shape, or a wrapper that resets.
    """
    refuse_wrappers(
        env,
        {
            "AutoResetWrapper": "which loses final observations, expected it without: the adapter resets",
            "VmapAutoResetWrapper": "a batch, expected one environment: use jax.vmap on the adapter",
            "VmapWrapper": "a batch, expected one environment: use jax.vmap on the adapter",
        },
    )
    with jax.ensure_compile_time_eval():  # a trainer may make its environment inside of a jit
        spec, parts = env.observation_spec, _parts(env.observation_spec.generate_value()) or {}
        if unknown := set(without) - set(parts):
            raise ValueError(f"without: got {sorted(unknown)}, expected some of {sorted(parts)}")
        space = space_of(spec, most_one_hot=most_one_hot, without=(MASK, *without))
        action_space, dtype = action_space_of(env.action_spec), env.action_spec.dtype
        to_mask = _mask_converter(action_space, spec[MASK].shape, layout) if MASK in parts else None

    def seen(state: Any, timestep: Any) -> tuple[Any, Masked]:
        parts = _parts(timestep.observation)
        mask = None if to_mask is None or parts is None else to_mask(jnp.asarray(parts[MASK]).astype(bool))
        return declared(space, _plain(timestep.observation, space)), Masked(state, mask)

    def reset(key: jax.Array) -> tuple[Any, Any]:
        return seen(*env.reset(key))

    def step(key: jax.Array, state: Any, action: Any) -> Step:
        after, timestep = env.step(state.state, jnp.asarray(action).astype(dtype))
        last, discount = timestep.step_type == LAST, jnp.max(timestep.discount)
        return auto_reset(
            reset(key),
            seen(after, timestep),
            jnp.sum(timestep.reward),
            last & (discount == 0),
            last & (discount > 0),
        )

    return Environment(space, action_space, reset, step, lambda state: state.mask)


def space_of(spec: Any, *, most_one_hot: int = 64, without: tuple[str, ...] = ()) -> pc.contract.Space:
    """The space of the observations of a spec.

    A nested spec is a `Dict`, a `DiscreteArray` of at most `most_one_hot` values is `Discrete` and of
    more an integer `Box`, likewise `MultiDiscreteArray`; an array of booleans is `MultiBinary`, any
    other a `Box`.

    Raises:
        ValueError: for a spec of another kind.
    """
    if hasattr(spec, "dtype"):
        if np.max(getattr(spec, "num_values", math.inf)) <= most_one_hot:
            return action_space_of(spec)
        if np.dtype(spec.dtype) == bool:
            return pc.MultiBinary(spec.shape)
        return _box(spec)
    parts = _parts(spec.generate_value())
    if parts is None:
        raise ValueError(
            f"spec: got {type(spec).__name__} of something else than named parts, expected these"
        )
    return pc.Dict(
        {name: space_of(spec[name], most_one_hot=most_one_hot) for name in parts if name not in without}
    )


def action_space_of(spec: Any) -> pc.contract.Space:
    """The space of an action: an integer array with bounds is `MultiDiscrete`.

    Raises:
        ValueError: for a spec that is neither discrete nor a bounded array.
    """
    if hasattr(spec, "num_values"):
        sizes = np.ravel(spec.num_values).astype(int).tolist()
        return pc.MultiDiscrete(tuple(sizes), shape=spec.shape) if spec.shape else pc.Discrete(sizes[0])
    if not hasattr(spec, "minimum"):
        raise ValueError(
            f"action_spec: got {type(spec).__name__}, expected DiscreteArray, MultiDiscreteArray or "
            "BoundedArray"
        )
    if np.issubdtype(spec.dtype, np.integer):
        low, high = (np.broadcast_to(x, spec.shape).astype(int) for x in (spec.minimum, spec.maximum))
        return pc.MultiDiscrete(
            tuple((high - low + 1).ravel().tolist()), shape=spec.shape, start=tuple(low.ravel().tolist())
        )
    return _box(spec)


def _box(spec: Any) -> pc.Box:
    low, high = (
        np.ravel(np.broadcast_to(x, spec.shape)).astype(float).tolist()
        for x in (getattr(spec, "minimum", -math.inf), getattr(spec, "maximum", math.inf))
    )
    dtype: Any = np.dtype(spec.dtype).name
    return pc.Box(low=tuple(low), high=tuple(high), shape=spec.shape, dtype=dtype)


def _mask_converter(
    space: pc.contract.Space, shape: tuple[int, ...], layout: Layout | None
) -> Callable[[jax.Array], Any]:
    """From the mask of jumanji to that of the space."""
    if isinstance(space, pc.Discrete) and shape == (space.n,):
        return lambda mask: mask
    if isinstance(space, pc.MultiDiscrete):
        nvec, width = space.nvec, max(space.nvec)
        # Some masks have no column for the last values of a bounded array: these are not allowed.
        rows = len(shape) == 2 and shape[0] == len(nvec) and shape[1] <= width
        joint = shape == nvec
        if rows and joint and layout is None:
            raise ValueError(
                f"env: a mask of shape {shape} for {nvec} may hold a row for each number or all "
                'combinations; give layout="rows" or layout="joint"'
            )
        if joint and layout != "rows":
            return pc.spaces.JointMask
        if rows and layout != "joint":
            padding = ((0, 0), (0, width - shape[1]))
            return lambda mask: pc.spaces.rows_of_mask(jnp.pad(mask, padding), nvec)
    raise ValueError(
        f"env: got an action mask of shape {shape} for {space}, expected that of a Discrete, or for a "
        "MultiDiscrete a row for each number or one entry for each combination"
    )


def _parts(value: Any) -> dict[str, Any] | None:
    """The named parts of an observation; None for an array."""
    if hasattr(value, "_asdict"):
        return dict(value._asdict())
    if isinstance(value, Mapping):
        return dict(value)
    if dataclasses.is_dataclass(value):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    return None


def _plain(value: Any, space: pc.contract.Space) -> Any:
    """The observation as dicts, with the parts that the space has."""
    if not isinstance(space, pc.Dict):
        return value
    parts = _parts(value) or {}
    return {name: _plain(parts[name], part) for name, part in space.spaces}
