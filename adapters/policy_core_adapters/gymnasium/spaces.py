"""Spaces of gymnasium, and of packages whose spaces look alike, to those of policy_core and back."""

import math
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

import policy_core as pc

SPACES = "Discrete, MultiDiscrete, MultiBinary, Box, Dict or Tuple"
REFUSED = ("Graph", "OneOf", "Sequence", "Text")  # whose elements are no arrays of one shape


def space_of(space: Any, name: str = "space") -> pc.contract.Space:
    """The policy_core space of a gymnasium or gymnax space, recognized by names and attributes.

    A `Box` of bool is a `MultiBinary`. 64-bit dtypes are kept, and are 32-bit where JAX is.

    Args:
        space: the space, nested at will.
        name: what errors call it.

    Raises:
        ConfigError: for a space of another kind, among them Text, Graph, Sequence and OneOf; for a
            `Dict` whose keys are no strings; for one that was made inside a `jit`, as spaces of gymnax are
            when the environment is asked for them there.

    Example:
        >>> import gymnasium
        >>> from policy_core_adapters.gymnasium import space_of
        >>> space_of(gymnasium.spaces.Discrete(3, start=1))
        Discrete(n=3, start=1)
    """
    # The first of these names: a Tuple of gymnasium is a Sequence, of the standard library, as well.
    names = (cls.__name__ for cls in type(space).__mro__)
    kind = next((x for x in names if x in REFUSED or x in ("Tuple", "MultiBinary")), None)
    if kind in REFUSED:
        raise pc.errors.ConfigError(
            f"{name}: got {type(space).__name__}, expected {SPACES}; there is no such space in policy_core: "
            "wrap the environment so that it has arrays of one shape instead"
        )
    if kind == "MultiBinary":  # whose `n` is a shape
        return pc.MultiBinary(_shape(space))
    if hasattr(space, "n"):
        return pc.Discrete(int(space.n), start=int(getattr(space, "start", 0)))
    if hasattr(space, "nvec"):
        nvec = np.asarray(space.nvec)
        start = np.broadcast_to(np.asarray(getattr(space, "start", 0)), nvec.shape)
        return pc.MultiDiscrete(
            tuple(nvec.ravel().astype(int).tolist()),
            shape=nvec.shape,
            start=tuple(start.ravel().astype(int).tolist()),
        )
    if hasattr(space, "low"):
        if np.dtype(space.dtype) == bool:
            return pc.MultiBinary(_shape(space))
        dtype: Any = np.dtype(space.dtype).name
        return pc.Box(
            low=_bound(space.low, name), high=_bound(space.high, name), shape=_shape(space), dtype=dtype
        )
    if hasattr(space, "spaces"):
        if not hasattr(space.spaces, "items"):
            return pc.Tuple(tuple(space_of(part, f"{name}[{i}]") for i, part in enumerate(space.spaces)))
        for key in space.spaces:
            if not isinstance(key, str):
                raise pc.errors.ConfigError(f"{name}: got the key {key!r}, expected strings")
        return pc.Dict({key: space_of(part, f"{name}[{key!r}]") for key, part in space.spaces.items()})
    raise pc.errors.ConfigError(f"{name}: got {type(space).__name__}, expected {SPACES}")


def to_gymnasium(space: pc.contract.Space) -> Any:
    """The gymnasium space of a policy_core space; gymnasium is imported here.

    `space_of` of what it returns is the space, but that an infinite bound of integers is the bound
    of their dtype. `Discrete` and `MultiDiscrete` have gymnasium's own int64, which holds the int32
    that policies give.

    Raises:
        ConfigError: for a space of a class of your own, or a `Box` of a dtype that NumPy lacks.

    Example:
        >>> import policy_core as pc
        >>> from policy_core_adapters.gymnasium import to_gymnasium
        >>> to_gymnasium(pc.Box(low=-1.0, high=1.0, shape=(2,)))
        Box(-1.0, 1.0, (2,), float32)
    """
    from gymnasium import spaces

    match space:
        case pc.Discrete():
            return spaces.Discrete(space.n, start=space.start)
        case pc.MultiDiscrete():
            nvec = np.array(space.nvec, np.int64).reshape(space.struct().shape)
            return spaces.MultiDiscrete(nvec, start=space.starts().astype(np.int64))
        case pc.MultiBinary():
            shape = space.struct().shape
            return spaces.MultiBinary(shape[0] if len(shape) == 1 else shape)
        case pc.Box():
            if space.dtype == "bfloat16":
                raise pc.errors.ConfigError("space: got a Box of bfloat16, which NumPy lacks; use float32")
            low, high = (_filled(bound, space) for bound in (space.low, space.high))
            return spaces.Box(low, high, space.shape, np.dtype(space.dtype).type)
        case pc.Dict():
            return spaces.Dict({key: to_gymnasium(part) for key, part in space.spaces})
        case pc.Tuple():
            return spaces.Tuple([to_gymnasium(part) for part in space.spaces])
    raise pc.errors.ConfigError(f"space: got {type(space).__name__}, expected {SPACES} of policy_core")


def _shape(space: Any) -> tuple[int, ...]:
    return tuple(int(size) for size in space.shape)


def _bound(bound: Any, name: str) -> float | tuple[float, ...]:
    """A number, or one for each entry."""
    if isinstance(bound, Tracer):
        raise pc.errors.ConfigError(
            f"{name}: got bounds that are traced, expected numbers; ask the environment for its space "
            "outside of jit, or within jax.ensure_compile_time_eval(), as from_gymnax does"
        )
    values = np.asarray(bound, np.float64).ravel().tolist()
    return values[0] if np.ndim(bound) == 0 else tuple(values)


def _filled(bound: float | tuple[float, ...], space: pc.Box) -> np.ndarray:
    """A bound of a `Box` in its shape and dtype, where an infinite one of integers is that of the dtype."""
    dtype = np.dtype(space.dtype)
    if jnp.issubdtype(dtype, jnp.floating):
        values = np.array(bound, np.float64).astype(dtype)
    else:
        info = np.iinfo(dtype)
        whole = [
            info.max if x >= info.max else info.min if x <= info.min else int(x)
            for x in np.ravel(bound).tolist()
        ]
        values = np.array(whole, dtype).reshape(np.shape(bound))
    count = math.prod(space.shape)
    return np.array(np.broadcast_to(values, count if values.ndim else space.shape).reshape(space.shape))
