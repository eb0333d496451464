"""`Dict` and `Tuple`: composite spaces, nested to any depth."""

from collections.abc import Mapping
from dataclasses import field
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PyTree

from policy_core._dtypes import wide_float
from policy_core.checks.structure import matches_structure
from policy_core.configs import set_field, static
from policy_core.configs.validation import pairs_of, sort_pairs
from policy_core.contract import Key, Mask, Space
from policy_core.errors import MaskError

Name: TypeAlias = str | int
"""The name of a part: its key in a `Dict`, its index in a `Tuple`."""


class _Parts:
    """Base of `Dict` and `Tuple`: each method applies to the parts, in their order."""

    @property
    def flat_size(self) -> int:
        """The sum of the flat sizes of the parts."""
        return sum(space.flat_size for space in parts_of(self).values())

    def struct(self) -> PyTree:
        """Shape and dtype of an element, part by part."""
        return like(self, {name: space.struct() for name, space in parts_of(self).items()})

    def sample(self, *, key: Key, mask: Mask = None) -> Any:
        """A random element allowed by the mask; `key` is consumed."""
        self.check_mask(mask, "mask")
        parts = parts_of(self)
        keys = dict(zip(parts, jax.random.split(key, len(parts)), strict=True))
        masks = dict.fromkeys(parts) if mask is None else mask
        return like(self, {n: space.sample(key=keys[n], mask=masks[n]) for n, space in parts.items()})

    def contains(self, element: PyTree) -> Bool[Array, ""]:
        """Whether `element` has exactly the parts, each contained in its space."""
        if not matches_structure(element, self.struct()):
            return jnp.array(False)
        inside = [space.contains(element[name]) for name, space in parts_of(self).items()]
        return jnp.all(jnp.array(inside, bool))

    def flatten(self, element: Any) -> Float[Array, " flat"]:
        """The flat forms of the parts, concatenated."""
        flat = [space.flatten(element[name]) for name, space in parts_of(self).items()]
        dtype = wide_float(*(part.dtype for part in flat))
        return jnp.concatenate([jnp.zeros(0, dtype), *(part.astype(dtype) for part in flat)])

    def unflatten(self, flat: Float[Array, " flat"]) -> Any:
        """Inverse of `flatten`."""
        parts = parts_of(self)
        ends = np.cumsum([space.flat_size for space in parts.values()])
        pieces = {
            name: flat[end - space.flat_size : end]
            for (name, space), end in zip(parts.items(), ends, strict=True)
        }
        return like(self, {name: space.unflatten(pieces[name]) for name, space in parts.items()})

    def full_mask(self) -> Any:
        """The full masks of the parts."""
        return like(self, {name: space.full_mask() for name, space in parts_of(self).items()})

    def mask_rows(self, mask: Mask) -> list[Bool[Array, "..."]]:
        """The rows of all parts."""
        if mask is None:
            return []
        return [row for name, space in parts_of(self).items() for row in space.mask_rows(mask[name])]

    def check_mask(self, mask: Mask, name: str = "action_mask") -> None:
        """Raise `MaskError` unless `mask` is None, or a dict or tuple of masks of the parts (or None)."""
        if mask is None:
            return
        parts, masks = parts_of(self), mask
        if isinstance(self, Dict):
            if not isinstance(mask, Mapping) or set(mask) != set(parts):
                got = f"keys {list(mask)}" if isinstance(mask, Mapping) else type(mask).__name__
                raise MaskError(f"{name}: got {got}, expected a dict of {list(parts)}, None for no mask")
        elif not isinstance(mask, tuple) or len(mask) != len(parts):
            got = f"{len(mask)} masks" if isinstance(mask, tuple) else type(mask).__name__
            raise MaskError(f"{name}: got {got}, expected a tuple of {len(parts)} masks")
        for part, space in parts.items():
            space.check_mask(masks[part], f"{name}[{part!r}]")


@static
class Dict(_Parts):
    """A dict of named spaces. Elements and masks are plain dicts (None for a part without a mask).

    Keys are strings, in sorted order, as JAX orders dicts: the order of the features does not
    depend on the order of the mapping.

    Args:
        spaces: name to space.

    Example:
        >>> from policy_core import Box, Dict, Discrete
        >>> space = Dict({"tool": Discrete(3), "force": Box(shape=(2,))})
        >>> space.flat_size, [name for name, _ in space.spaces]
        (5, ['force', 'tool'])
    """

    spaces: tuple[tuple[str, Space], ...]

    def __init__(self, spaces: Mapping[str, Space] | tuple[tuple[str, Space], ...]) -> None:
        set_field(self, "spaces", pairs_of(spaces))
        self.__post_init__()

    def __post_init__(self) -> None:
        sort_pairs(self, "spaces")

    def __getitem__(self, name: str) -> Space:
        return dict(self.spaces)[name]


@static
class Tuple(_Parts):
    """A tuple of spaces. Elements and masks are tuples (None for a part without a mask).

    Args:
        spaces: a tuple of spaces.

    Example:
        >>> from policy_core import Box, Discrete, Tuple
        >>> Tuple((Discrete(3), Box(shape=(2,)))).flat_size
        5
    """

    spaces: tuple[Space, ...] = field(kw_only=False)


def parts_of(space: Any) -> dict[Name, Space]:
    """The parts of a `Dict` by key, or of a `Tuple` by index."""
    return dict(space.spaces) if isinstance(space, Dict) else dict(enumerate(space.spaces))


def like(space: Any, values: Mapping[Name, Any]) -> Any:
    """The values as an element of the space: a dict for a `Dict`, a tuple for a `Tuple`."""
    return dict(values) if isinstance(space, Dict) else tuple(values.values())
