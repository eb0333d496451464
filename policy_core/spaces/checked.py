"""Masks that say at run time when they allow nothing."""

from typing import Any

import jax.numpy as jnp
from jax.experimental import checkify

from policy_core.contract import Mask, Space
from policy_core.spaces.composite import Dict, Tuple
from policy_core.spaces.discrete import Discrete, MultiDiscrete
from policy_core.spaces.masks import JointMask


def checked_mask(space: Space[Any], mask: Mask) -> Mask:
    """The mask, with a run-time check that each of its rows allows something.

    Everywhere else a row that allows nothing counts as one that allows everything. To be
    told of it, pass masks through this function inside `checkify.checkify`.

    Args:
        space: the action space.
        mask: a mask in its structure.

    Raises:
        MaskError: for a mask that cannot apply, when traced.
        JaxRuntimeError: from `error.throw()`, for a row that allows nothing.

    Example:
        >>> from jax.experimental import checkify
        >>> from policy_core import Discrete, checked_mask
        >>> check = checkify.checkify(lambda mask: checked_mask(Discrete(2), mask))
        >>> error, _ = jax.jit(check)(jnp.array([False, False]))
        >>> error.get()
        'action_mask: a row allows nothing (`check` failed)'
    """
    space.check_mask(mask)
    for row in _rows(space, mask):
        checkify.check(jnp.any(row), "action_mask: a row allows nothing")
    return mask


def _rows(space: Space[Any], mask: Mask) -> list[Any]:
    """The rows of a mask of which one entry must be allowed; bits of a `MultiBinary` need not."""
    if mask is None:
        return []
    match space:
        case Discrete():
            return [mask]
        case MultiDiscrete() if isinstance(mask, JointMask):
            return [mask.allowed]
        case MultiDiscrete():
            return [row for row in mask if row is not None]
        case Dict():
            return [row for name, part in space.spaces for row in _rows(part, mask[name])]
        case Tuple():
            pairs = zip(space.spaces, mask, strict=True)
            return [row for part, part_mask in pairs for row in _rows(part, part_mask)]
        case _:
            return []
