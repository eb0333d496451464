"""`Dict` and `Tuple`: several spaces side by side, nested to any depth."""

from collections.abc import Mapping
from dataclasses import field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PyTree

from policy_core import _structure
from policy_core._dtypes import wide_float
from policy_core._static import set_field, static
from policy_core.contract import Key, Mask, Space
from policy_core.errors import ConfigError, MaskError


@static
class Dict:
    """Named spaces. Elements are plain dicts, masks likewise (None for what has no mask).

    Keys are strings, in sorted order, as JAX orders dicts: features cannot be permuted
    between libraries, whatever order the mapping was written in.

    Args:
        spaces: name to space.

    Example:
        >>> from policy_core import Box, Dict, Discrete
        >>> space = Dict({"tool": Discrete(3), "force": Box(shape=(2,))})
        >>> space.flat_size, [name for name, _ in space.spaces]
        (5, ['force', 'tool'])
    """

    spaces: tuple[tuple[str, Space[Any]], ...]

    def __init__(self, spaces: Mapping[str, Space[Any]] | tuple[tuple[str, Space[Any]], ...]) -> None:
        items = tuple(spaces.items()) if isinstance(spaces, Mapping) else spaces
        set_field(self, "spaces", items)
        self.__post_init__()

    def __post_init__(self) -> None:
        names = [name for name, _ in self.spaces]
        if len(set(names)) != len(names):
            raise ConfigError(f"Dict.spaces: got the names {names}, expected each once")
        set_field(self, "spaces", tuple(sorted(self.spaces)))

    def __getitem__(self, name: str) -> Space[Any]:
        return dict(self.spaces)[name]

    @property
    def flat_size(self) -> int:
        """The sum over the spaces."""
        return sum(space.flat_size for _, space in self.spaces)

    def struct(self) -> dict[str, PyTree]:
        """A dict of structs."""
        return {name: space.struct() for name, space in self.spaces}

    def sample(self, *, key: Key, mask: Mask = None) -> dict[str, Any]:
        """A dict of samples; `key` is consumed."""
        self.check_mask(mask, "mask")
        keys = jax.random.split(key, len(self.spaces))
        masks = {} if mask is None else mask
        return {
            name: space.sample(key=key, mask=masks.get(name))
            for key, (name, space) in zip(keys, self.spaces, strict=True)
        }

    def contains(self, element: PyTree) -> Bool[Array, ""]:
        """Whether each of the spaces contains its part, and there are no other parts."""
        if not _structure.matches_structure(element, self.struct()):
            return jnp.array(False)
        return _all([space.contains(element[name]) for name, space in self.spaces])

    def flatten(self, element: Mapping[str, Any]) -> Float[Array, " flat"]:
        """The flat forms one after the other, in sorted order of the names."""
        return _concatenate([space.flatten(element[name]) for name, space in self.spaces])

    def unflatten(self, flat: Float[Array, " flat"]) -> dict[str, Any]:
        """Inverse of `flatten`."""
        parts = _split(flat, [space for _, space in self.spaces])
        return {name: part for (name, _), part in zip(self.spaces, parts, strict=True)}

    def full_mask(self) -> dict[str, Mask]:
        """A dict of full masks."""
        return {name: space.full_mask() for name, space in self.spaces}

    def check_mask(self, mask: Mask, name: str = "action_mask") -> None:
        """Raise `MaskError` unless `mask` is None or a dict of masks, each possibly None."""
        if mask is None:
            return
        names = [key for key, _ in self.spaces]
        if not isinstance(mask, Mapping) or set(mask) != set(names):
            got = f"keys {list(mask)}" if isinstance(mask, Mapping) else type(mask).__name__
            raise MaskError(f"{name}: got {got}, expected a dict of {names}, None for no mask")
        for key, space in self.spaces:
            space.check_mask(mask[key], f"{name}[{key!r}]")


@static
class Tuple:
    """Numbered spaces. Elements are tuples, masks likewise (None for what has no mask).

    Args:
        spaces: a tuple of spaces.

    Example:
        >>> from policy_core import Box, Discrete, Tuple
        >>> Tuple((Discrete(3), Box(shape=(2,)))).flat_size
        5
    """

    spaces: tuple[Space[Any], ...] = field(kw_only=False)

    @property
    def flat_size(self) -> int:
        """The sum over the spaces."""
        return sum(space.flat_size for space in self.spaces)

    def struct(self) -> tuple[PyTree, ...]:
        """A tuple of structs."""
        return tuple(space.struct() for space in self.spaces)

    def sample(self, *, key: Key, mask: Mask = None) -> tuple[Any, ...]:
        """A tuple of samples; `key` is consumed."""
        self.check_mask(mask, "mask")
        keys = jax.random.split(key, len(self.spaces))
        masks = (None,) * len(self.spaces) if mask is None else mask
        return tuple(
            space.sample(key=key, mask=mask)
            for key, space, mask in zip(keys, self.spaces, masks, strict=True)
        )

    def contains(self, element: PyTree) -> Bool[Array, ""]:
        """Whether each of the spaces contains its part."""
        if not _structure.matches_structure(element, self.struct()):
            return jnp.array(False)
        return _all([space.contains(part) for space, part in zip(self.spaces, element, strict=True)])

    def flatten(self, element: tuple[Any, ...]) -> Float[Array, " flat"]:
        """The flat forms one after the other."""
        return _concatenate([space.flatten(part) for space, part in zip(self.spaces, element, strict=True)])

    def unflatten(self, flat: Float[Array, " flat"]) -> tuple[Any, ...]:
        """Inverse of `flatten`."""
        return tuple(_split(flat, list(self.spaces)))

    def full_mask(self) -> tuple[Mask, ...]:
        """A tuple of full masks."""
        return tuple(space.full_mask() for space in self.spaces)

    def check_mask(self, mask: Mask, name: str = "action_mask") -> None:
        """Raise `MaskError` unless `mask` is None or a tuple of masks, each possibly None."""
        if mask is None:
            return
        if not isinstance(mask, tuple) or len(mask) != len(self.spaces):
            got = f"{len(mask)} masks" if isinstance(mask, tuple) else type(mask).__name__
            raise MaskError(f"{name}: got {got}, expected a tuple of {len(self.spaces)} masks")
        for i, (part, space) in enumerate(zip(mask, self.spaces, strict=True)):
            space.check_mask(part, f"{name}[{i}]")


def parts_of(space: Any) -> dict[Any, Space[Any]]:
    """The parts of a `Dict` by name, or of a `Tuple` by place."""
    return dict(space.spaces) if isinstance(space, Dict) else dict(enumerate(space.spaces))


def _all(conditions: list[Bool[Array, ""]]) -> Bool[Array, ""]:
    return jnp.all(jnp.array(conditions, bool))


def _concatenate(parts: list[Float[Array, " _"]]) -> Float[Array, " flat"]:
    dtype = wide_float(*(part.dtype for part in parts))
    return jnp.concatenate([jnp.zeros(0, dtype), *(part.astype(dtype) for part in parts)])


def _split(flat: Float[Array, " flat"], spaces: list[Space[Any]]) -> list[Any]:
    ends = np.cumsum([space.flat_size for space in spaces])
    return [
        space.unflatten(flat[end - space.flat_size : end]) for space, end in zip(spaces, ends, strict=True)
    ]
