"""Observations, masks and actions, from gymnasium to policies and back.

Each may have any number of leading axes, those of a vector environment.
"""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

import policy_core as pc


def to_observation(space: pc.contract.Space, value: Any, name: str = "observation") -> Any:
    """A value of gymnasium as an element of `space`: its containers, and copies in its dtypes.

    An `OrderedDict` or another `Mapping` becomes a dict, a list a tuple, a scalar an array.

    Args:
        space: of policy_core; the one that the policy observes.
        value: an element of the gymnasium space, perhaps with leading axes.
        name: what errors call it.

    Raises:
        StructureError: for other parts, another shape, or integers that the declared dtype cannot
            hold; it names the part.

    Example:
        >>> import numpy as np
        >>> import policy_core as pc
        >>> from policy_core_adapters.gymnasium import to_observation
        >>> space = pc.Dict({"x": pc.Box(shape=(2,)), "gear": pc.Discrete(3)})
        >>> observation = to_observation(space, {"gear": np.int64(2), "x": [0.5, 1.0]})
        >>> observation["gear"].dtype, observation["x"].dtype
        (dtype('int32'), dtype('float32'))
    """
    if parts := _parts(space):
        values = _values(space, value, parts, name)
        return _like(
            space, {key: to_observation(parts[key], values[key], f"{name}[{key!r}]") for key in parts}
        )
    struct: Any = space.struct()
    try:
        array = np.asarray(value)
    except ValueError:
        array = np.array(None)
    if array.dtype == object:
        raise pc.errors.StructureError(
            f"{name}: got {type(value).__name__} that is no array, expected {struct.dtype}{struct.shape}"
        )
    _check_shape(array, struct.shape, name)
    cast = array.astype(struct.dtype)  # a copy: gymnasium may reuse its arrays
    narrowed = np.issubdtype(struct.dtype, np.integer) and not np.can_cast(array.dtype, struct.dtype)
    if narrowed and not np.array_equal(cast, array):
        raise pc.errors.StructureError(
            f"{name}: got {array.dtype} that {struct.dtype} cannot hold, expected an element of {space}; "
            "declare the observation space as what the environment gives"
        )
    return cast


def to_mask(space: pc.contract.Space, mask: Any, name: str = "action_mask") -> Any:
    """A mask as environments give it, as one of the action space: booleans, true = allowed.

    Taken are int8 (or any integer) zeros and ones for booleans, and for a `MultiDiscrete` besides
    a tuple or list of rows a flat `[sum(nvec)]` or a stacked `[len(nvec), max(nvec)]` array, or a
    `JointMask`. A `Dict` or `Tuple` may hold None for parts without a mask. In `MultiBinary`
    true says that a bit may be 1. (`MultiBinary.sample` of gymnasium takes other masks: a 2 is
    refused here.)

    Args:
        space: the action space, of policy_core.
        mask: the mask, perhaps with leading axes; None for none.
        name: what errors call it.

    Raises:
        MaskError: for another structure, shape or kind of number.

    Example:
        >>> import numpy as np
        >>> import policy_core as pc
        >>> from policy_core_adapters.gymnasium import to_mask
        >>> rows = to_mask(pc.MultiDiscrete((2, 3)), np.array([1, 0, 1, 1, 0], np.int8))
        >>> [row.tolist() for row in rows]
        [[True, False], [True, True, False]]
    """
    if mask is None:
        return None
    if parts := _parts(space):
        try:
            masks = _values(space, mask, parts, name)
        except pc.errors.StructureError as error:
            raise pc.errors.MaskError(str(error)) from None
        return _like(space, {key: to_mask(parts[key], masks[key], f"{name}[{key!r}]") for key in parts})
    if isinstance(space, pc.MultiDiscrete):
        shape = space.struct().shape
        if isinstance(mask, pc.spaces.JointMask):
            joint: Any = _booleans(mask.allowed, name, space.nvec)
            return pc.spaces.JointMask(joint)
        if isinstance(mask, list | tuple) and not all(isinstance(x, bool | int) for x in mask):
            rows = _rows(mask, len(shape))
            if len(rows) != len(space.nvec):
                raise pc.errors.MaskError(f"{name}: got {len(rows)} rows, expected {len(space.nvec)}")
            return tuple(
                None if row is None else _booleans(row, f"{name}[{i}]", (n,))
                for i, (row, n) in enumerate(zip(rows, space.nvec, strict=True))
            )
        try:
            return pc.spaces.rows_of_mask(_booleans(mask, name), space.nvec)
        except pc.errors.MaskError as error:
            raise pc.errors.MaskError(f"{name}: {str(error).partition(': ')[2]}") from None
    if isinstance(space, pc.Box):
        space.check_mask(mask, name)
    full: Any = jax.eval_shape(space.full_mask)
    return _booleans(mask, name, full.shape)


def to_action(space: Any, action: Any) -> Any:
    """An environment action as gymnasium's `env.step` takes it: NumPy in the dtypes of its space.

    It is of the types of `space.sample()`: a `Discrete` action is a NumPy scalar, which can be looked
    up in a dict, as FrozenLake does, where an array of JAX cannot.

    Args:
        space: of gymnasium: `env.action_space`, for a vector environment the batched one.
        action: what `pc.act` or `pc.env_action` gave; for a vector environment through `jax.vmap`.

    Example:
        >>> import gymnasium, jax.numpy as jnp
        >>> from policy_core_adapters.gymnasium import to_action
        >>> to_action(gymnasium.spaces.Discrete(4), jnp.array(2))
        np.int64(2)
    """
    return _to_action(space, jax.device_get(action))


def _to_action(space: Any, action: Any) -> Any:
    if hasattr(space, "spaces"):
        if hasattr(space.spaces, "items"):
            return {key: _to_action(part, action[key]) for key, part in space.spaces.items()}
        return tuple(_to_action(part, x) for part, x in zip(space.spaces, action, strict=True))
    array = np.array(action, space.dtype)
    return array[()] if hasattr(space, "n") and array.shape == () else array  # a NumPy scalar for a Discrete


def _parts(space: Any) -> dict[Any, Any]:
    """The parts of a `Dict` by key, of a `Tuple` by index; none for the others."""
    if isinstance(space, pc.Dict):
        return dict(space.spaces)
    return dict(enumerate(space.spaces)) if isinstance(space, pc.Tuple) else {}


def _like(space: Any, values: dict[Any, Any]) -> Any:
    return values if isinstance(space, pc.Dict) else tuple(values.values())


def _values(space: Any, value: Any, parts: dict[Any, Any], name: str) -> Any:
    """The values of the parts, by the same keys."""
    if isinstance(space, pc.Dict):
        if isinstance(value, Mapping) and set(value) == set(parts):
            return value
        got = f"keys {list(value)}" if isinstance(value, Mapping) else type(value).__name__
        raise pc.errors.StructureError(f"{name}: got {got}, expected a mapping with keys {list(parts)}")
    if isinstance(value, list | tuple) and len(value) == len(parts):
        return value
    got = f"{len(value)} parts" if isinstance(value, list | tuple) else type(value).__name__
    raise pc.errors.StructureError(f"{name}: got {got}, expected a tuple or list of {len(parts)} parts")


def _rows(mask: Any, rank: int) -> list[Any]:
    """The rows in tuples nested so deep, which is how gymnasium masks a `MultiDiscrete` of any shape."""
    if rank <= 1 or not all(isinstance(row, list | tuple) for row in mask):
        return list(mask)
    return [row for part in mask for row in _rows(part, rank - 1)]


def _booleans(mask: Any, name: str, shape: tuple[int, ...] | None = None) -> np.ndarray:
    array = np.asarray(mask)
    if shape is not None and array.shape[max(array.ndim - len(shape), 0) :] != shape:
        raise pc.errors.MaskError(f"{name}: got shape {array.shape}, expected {shape}")
    if np.issubdtype(array.dtype, np.integer) and not ((array == 0) | (array == 1)).all():
        raise pc.errors.MaskError(f"{name}: got an integer other than 0 and 1, expected true = allowed")
    if array.dtype != bool and not np.issubdtype(array.dtype, np.integer):
        raise pc.errors.MaskError(
            f"{name}: got dtype {array.dtype}, expected booleans, or integers 0 and 1, with true = allowed; "
            "use mask == 0 for an additive mask"
        )
    return array.astype(bool)


def _check_shape(array: np.ndarray, shape: tuple[int, ...], name: str) -> None:
    if array.shape[max(array.ndim - len(shape), 0) :] != shape:
        raise pc.errors.StructureError(f"{name}: got shape {array.shape}, expected {shape}")
