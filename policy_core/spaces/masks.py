"""Action masks: boolean, true = allowed, one row for each categorical choice."""

import math
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.experimental import checkify
from jaxtyping import Array, Bool

from policy_core.checks.structure import is_array
from policy_core.contract import Mask, Space
from policy_core.errors import MaskError

MOST_COMBINATIONS = 2**20


class JointMask(NamedTuple):
    """A mask over all combinations of the entries of a `MultiDiscrete`, as in Jumanji.

    Args:
        allowed: booleans of shape `nvec`; `allowed[i, j]` is whether the action (i, j) is allowed.

    Example:
        >>> import jax
        >>> import policy_core as pc
        >>> import jax.numpy as jnp
        >>> config = pc.ActorCriticConfig(
        ...     observation_space=pc.Box(shape=(2,)), action_space=pc.MultiDiscrete((2, 2))
        ... )
        >>> policy = pc.init(config, key=jax.random.key(0))
        >>> mask = pc.spaces.JointMask(jnp.array([[False, False], [True, False]]))
        >>> pc.act(policy, (), jnp.zeros(2), action_mask=mask)[1].tolist()
        [1, 0]
    """

    allowed: Bool[Array, "..."]


def allowed(mask: Bool[Array, "*batch n"]) -> Bool[Array, "*batch n"]:
    """The mask, with rows that allow nothing replaced by rows that allow everything."""
    return mask | ~jnp.any(mask, -1, keepdims=True)


def pad_rows(mask: Mask, nvec: tuple[int, ...]) -> Bool[Array, "*batch rows width"]:
    """The rows of a mask as one array, padded with false; None allows everything."""
    rows = (None,) * len(nvec) if mask is None else mask
    batch = np.broadcast_shapes(*(jnp.shape(row)[:-1] for row in rows if row is not None))
    full = [
        jnp.ones((*batch, n), bool) if row is None else jnp.broadcast_to(row, (*batch, n))
        for row, n in zip(rows, nvec, strict=True)
    ]
    width = max(nvec, default=0)
    padding = [(0, 0)] * len(batch)
    return jnp.stack([jnp.pad(row, (*padding, (0, width - row.shape[-1]))) for row in full], -2)


def rows_of_mask(mask: Any, nvec: tuple[int, ...]) -> tuple[Any, ...]:
    """The mask of a `MultiDiscrete` from a flat mask (sb3-contrib) or a stacked one (Jumanji).

    Args:
        mask: booleans, flat `[sum(nvec)]` or stacked `[len(nvec), max(nvec)]`, where the
            padding of a row is ignored. More leading axes are batch axes.
        nvec: the number of categories of each row. A mask that fits both shapes is taken as stacked.

    Returns:
        A tuple of rows, the i-th `[..., nvec[i]]`.

    Raises:
        MaskError: if the mask has neither shape, or is not boolean. (For a mask over
            combinations see `JointMask`.)

    Example:
        >>> import numpy as np
        >>> from policy_core.spaces import rows_of_mask
        >>> flat = np.array([True, False, True, True, False])
        >>> [row.tolist() for row in rows_of_mask(flat, (2, 3))]
        [[True, False], [True, True, False]]
    """
    _check_bool(mask, "mask")
    shape, width = jnp.shape(mask), max(nvec, default=0)
    if shape[-2:] == (len(nvec), width):
        return tuple(mask[..., i, :n] for i, n in enumerate(nvec))
    if shape[-1:] == (sum(nvec),):
        ends = np.cumsum(nvec)
        return tuple(mask[..., end - n : end] for end, n in zip(ends, nvec, strict=True))
    raise MaskError(
        f"mask: got shape {shape}, expected flat ({sum(nvec)},) or stacked ({len(nvec)}, {width})"
    )


def checked_mask(space: Space, mask: Mask) -> Mask:
    """The mask, with a run-time check that each of its rows allows something.

    Everywhere else a row that allows nothing counts as one that allows everything. To raise an
    error instead, pass masks through this function inside `checkify.checkify`.

    Args:
        space: the action space.
        mask: a mask in its structure.

    Raises:
        MaskError: for a mask that cannot apply, when traced.
        JaxRuntimeError: from `error.throw()`, for a row that allows nothing.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> from jax.experimental import checkify
        >>> from policy_core import Discrete
        >>> from policy_core.spaces import checked_mask
        >>> check = checkify.checkify(lambda mask: checked_mask(Discrete(2), mask))
        >>> error, _ = jax.jit(check)(jnp.array([False, False]))
        >>> error.get()
        'action_mask: a row allows nothing (`check` failed)'
    """
    space.check_mask(mask)
    for row in space.mask_rows(mask):
        checkify.check(jnp.any(row), "action_mask: a row allows nothing")
    return mask


def check_row(mask: Mask, shape: tuple[int, ...], name: str) -> None:
    """Raise `MaskError` unless `mask` is None or boolean of this shape."""
    if mask is None:
        return
    _check_bool(mask, name)
    if jnp.shape(mask) != shape:
        advice = "; for a batch use jax.vmap" if jnp.shape(mask)[1:] == shape else ""
        raise MaskError(f"{name}: got shape {jnp.shape(mask)}, expected {shape}{advice}")


def check_rows(mask: Mask, nvec: tuple[int, ...], name: str) -> None:
    """Raise `MaskError` unless `mask` is None, a `JointMask` or a tuple of boolean rows or None."""
    if mask is None:
        return
    if isinstance(mask, JointMask) and nvec:
        check_row(mask.allowed, nvec, f"{name}.allowed")
        if math.prod(nvec) > MOST_COMBINATIONS:
            raise MaskError(
                f"{name}: got a joint mask of {math.prod(nvec)} combinations, expected at most "
                f"{MOST_COMBINATIONS}; use a mask of rows"
            )
        return
    if not isinstance(mask, tuple) or len(mask) != len(nvec):
        got = f"{len(mask)} rows" if isinstance(mask, tuple) else type(mask).__name__
        raise MaskError(
            f"{name}: got {got}, expected a tuple of {len(nvec)} boolean rows of lengths {nvec}; "
            "policy_core.spaces.rows_of_mask converts flat and stacked masks, JointMask holds joint ones"
        )
    for i, (row, n) in enumerate(zip(mask, nvec, strict=True)):
        check_row(row, (n,), f"{name}[{i}]")


def _check_bool(mask: Any, name: str) -> None:
    if not is_array(mask):
        raise MaskError(f"{name}: got {type(mask).__name__}, expected a boolean array; use jnp.array(mask)")
    dtype = jnp.result_type(mask)
    if jnp.issubdtype(dtype, jnp.floating):
        raise MaskError(
            f"{name}: got dtype {dtype}, an additive mask?, expected bool with true = allowed; "
            "use mask == 0 for additive and mask > 0 for multiplicative masks"
        )
    if dtype != jnp.bool_:
        raise MaskError(
            f"{name}: got dtype {dtype}, expected bool with true = allowed; use mask.astype(bool)"
        )
