"""`Discrete`, `MultiDiscrete` and `MultiBinary`: int32 scalars and arrays."""

import math
from dataclasses import field

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree, Shaped

from policy_core._dtypes import in_range
from policy_core.checks.structure import matches_structure
from policy_core.configs import set_field, static
from policy_core.configs.validation import check_shape
from policy_core.contract import Key, Mask
from policy_core.errors import ConfigError
from policy_core.spaces.masks import JointMask, allowed, check_row, check_rows, pad_rows


@static
class Discrete:
    """The integers `start, ..., start + n - 1`, as int32 scalars.

    Args:
        n: the number of integers, at least 1.
        start: the smallest integer.

    The flat form is one-hot. A mask is `Bool[n]`.

    Example:
        >>> import jax.numpy as jnp
        >>> from policy_core import Discrete
        >>> Discrete(3).flatten(jnp.array(1)).tolist()
        [0.0, 1.0, 0.0]
    """

    n: int = field(kw_only=False)
    start: int = 0

    def __post_init__(self) -> None:
        _check_categories("Discrete.n", (self.n,), (self.start,))

    @property
    def flat_size(self) -> int:
        """The number of categories."""
        return self.n

    def struct(self) -> jax.ShapeDtypeStruct:
        """An int32 scalar."""
        return jax.ShapeDtypeStruct((), jnp.dtype("int32"))

    def sample(self, *, key: Key, mask: Mask = None) -> Int[Array, ""]:
        """A uniform sample of the allowed integers; `key` is consumed."""
        self.check_mask(mask, "mask")
        if mask is None:
            return self.start + jax.random.randint(key, (), 0, self.n, jnp.int32)
        return self.start + _sample_allowed(key, allowed(jnp.asarray(mask)))

    def contains(self, element: PyTree) -> Bool[Array, ""]:
        """Whether `element` is an integer scalar in range."""
        if not matches_structure(element, self.struct()):
            return jnp.array(False)
        return in_range(element, self.start, self.start + self.n - 1)

    def flatten(self, element: Int[Array, ""]) -> Float[Array, " flat"]:
        """One-hot, float32; zeros for an element outside of the space."""
        return jax.nn.one_hot(_as_int32(element) - self.start, self.n, dtype=jnp.float32)

    def unflatten(self, flat: Float[Array, " flat"]) -> Int[Array, ""]:
        """The integer of the largest entry."""
        return self.start + jnp.argmax(flat).astype(jnp.int32)

    def full_mask(self) -> Bool[Array, " n"]:
        """True for every integer: `Bool[n]`."""
        return jnp.ones(self.n, bool)

    def mask_rows(self, mask: Mask) -> list[Bool[Array, "..."]]:
        """The mask itself, the only row; `[]` for None."""
        return [] if mask is None else [mask]

    def check_mask(self, mask: Mask, name: str = "action_mask") -> None:
        """Raise `MaskError` unless `mask` is None or `Bool[n]`."""
        check_row(mask, (self.n,), name)


@static
class MultiDiscrete:
    """An array of integers, each with its own number of categories, as int32.

    Args:
        nvec: the number of categories of each entry, in C order.
        shape: shape of an element; `(len(nvec),)` by default.
        start: the smallest integer of each entry, in C order; 0 by default.

    The flat form is the concatenated one-hot rows. A mask is a tuple of rows, the i-th
    `Bool[nvec[i]]`, or a `JointMask` over the combinations.

    Example:
        >>> import jax.numpy as jnp
        >>> from policy_core import MultiDiscrete
        >>> MultiDiscrete((2, 3)).flatten(jnp.array([1, 0])).tolist()
        [0.0, 1.0, 1.0, 0.0, 0.0]
    """

    nvec: tuple[int, ...] = field(kw_only=False)
    shape: tuple[int, ...] | None = None
    start: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        shape = (len(self.nvec),) if self.shape is None else self.shape
        start = (0,) * len(self.nvec) if self.start is None else self.start
        check_shape(self, shape)
        if math.prod(shape) != len(self.nvec) or len(start) != len(self.nvec):
            raise ConfigError(
                f"MultiDiscrete: got {len(self.nvec)} numbers of categories, shape {shape} and "
                f"{len(start)} starts, expected as many of each"
            )
        _check_categories("MultiDiscrete.nvec", self.nvec, start)
        set_field(self, "shape", shape)
        set_field(self, "start", start)

    @property
    def flat_size(self) -> int:
        """The number of categories of all entries together."""
        return sum(self.nvec)

    def struct(self) -> jax.ShapeDtypeStruct:
        """An int32 array."""
        assert self.shape is not None  # `__post_init__` has set it
        return jax.ShapeDtypeStruct(self.shape, jnp.dtype("int32"))

    def starts(self) -> np.ndarray:
        """`start` in the shape of an element."""
        return np.array(self.start, np.int32).reshape(self.struct().shape)

    def valid(self) -> np.ndarray:
        """`[len(nvec), max(nvec)]`: which columns of the padded rows are categories."""
        return np.arange(max(self.nvec, default=0)) < np.array(self.nvec, np.int32)[:, None]

    def sample(self, *, key: Key, mask: Mask = None) -> Int[Array, "..."]:
        """A uniform sample of the allowed elements; `key` is consumed."""
        self.check_mask(mask, "mask")
        shape = self.struct().shape
        if mask is None:
            sizes = np.array(self.nvec, np.int32).reshape(shape)
            return jax.random.randint(key, shape, 0, sizes, jnp.int32) + self.starts()
        if not self.nvec:
            return jnp.zeros(shape, jnp.int32)
        if isinstance(mask, JointMask):
            index = _sample_allowed(key, allowed(jnp.ravel(mask.allowed)))
            choices = jnp.stack(jnp.unravel_index(index, self.nvec)).astype(jnp.int32)
            return choices.reshape(shape) + self.starts()
        rows = allowed(pad_rows(mask, self.nvec)) & self.valid()
        draws = jax.vmap(_sample_allowed)(jax.random.split(key, len(self.nvec)), rows)
        return draws.reshape(shape) + self.starts()

    def contains(self, element: PyTree) -> Bool[Array, ""]:
        """Whether `element` is an integer array of this shape, in range."""
        if not matches_structure(element, self.struct()):
            return jnp.array(False)
        last = self.starts() + (np.array(self.nvec, np.int32).reshape(self.starts().shape) - 1)
        return in_range(element, self.starts(), last)

    def flatten(self, element: Int[Array, "..."]) -> Float[Array, " flat"]:
        """One-hot rows, concatenated, float32."""
        index = (_as_int32(element) - self.starts()).ravel()
        rows, columns = np.nonzero(self.valid())
        return (index[rows] == columns.astype(np.int32)).astype(jnp.float32)

    def unflatten(self, flat: Float[Array, " flat"]) -> Int[Array, "..."]:
        """The integer of the largest entry of each row."""
        if not self.nvec:
            return jnp.zeros(self.struct().shape, jnp.int32)
        padded = jnp.full(self.valid().shape, -jnp.inf, flat.dtype).at[np.nonzero(self.valid())].set(flat)
        return jnp.argmax(padded, -1).astype(jnp.int32).reshape(self.struct().shape) + self.starts()

    def full_mask(self) -> tuple[Bool[Array, " n"], ...]:
        """A row of true for each entry."""
        return tuple(jnp.ones(n, bool) for n in self.nvec)

    def mask_rows(self, mask: Mask) -> list[Bool[Array, "..."]]:
        """The rows of the mask; a `JointMask` is one row over all combinations."""
        if isinstance(mask, JointMask):
            return [mask.allowed]
        return [row for row in mask or () if row is not None]

    def check_mask(self, mask: Mask, name: str = "action_mask") -> None:
        """Raise `MaskError` unless `mask` is None, a tuple of rows (or None) or a `JointMask`."""
        check_rows(mask, self.nvec, name)


@static
class MultiBinary:
    """An array of bits, as int32 zeros and ones.

    Args:
        shape: shape of an element, or its length as an int.

    A mask has the same shape: true = the bit may be 1, false = it is 0.

    Example:
        >>> import jax
        >>> from policy_core import MultiBinary
        >>> MultiBinary(4).sample(key=jax.random.key(0)).shape
        (4,)
    """

    shape: int | tuple[int, ...] = field(kw_only=False)

    def __post_init__(self) -> None:
        shape = (self.shape,) if isinstance(self.shape, int) else self.shape
        set_field(self, "shape", shape)
        check_shape(self, shape)

    @property
    def flat_size(self) -> int:
        """The number of bits."""
        return math.prod(self.struct().shape)

    def struct(self) -> jax.ShapeDtypeStruct:
        """An int32 array."""
        shape = (self.shape,) if isinstance(self.shape, int) else self.shape
        return jax.ShapeDtypeStruct(shape, jnp.dtype("int32"))

    def sample(self, *, key: Key, mask: Mask = None) -> Int[Array, "..."]:
        """Independent bits, 1 with probability 1/2 where the mask allows it; `key` is consumed."""
        self.check_mask(mask, "mask")
        bits = jax.random.bernoulli(key, 0.5, self.struct().shape)
        return (bits if mask is None else bits & mask).astype(jnp.int32)

    def contains(self, element: PyTree) -> Bool[Array, ""]:
        """Whether `element` is an integer or boolean array of zeros and ones."""
        if not matches_structure(element, self.struct()):
            return jnp.array(False)
        return in_range(element, 0, 1)

    def flatten(self, element: Shaped[Array, "..."]) -> Float[Array, " flat"]:
        """The bits in C order, float32."""
        return jnp.ravel(jnp.asarray(element).astype(jnp.float32))

    def unflatten(self, flat: Float[Array, " flat"]) -> Int[Array, "..."]:
        """1 where the entry is above 0.5, else 0."""
        return (flat > 0.5).astype(jnp.int32).reshape(self.struct().shape)

    def full_mask(self) -> Bool[Array, "..."]:
        """True for every bit."""
        return jnp.ones(self.struct().shape, bool)

    def mask_rows(self, mask: Mask) -> list[Bool[Array, "..."]]:
        """`[]`: a masked bit is 0, so no entry must be allowed."""
        return []

    def check_mask(self, mask: Mask, name: str = "action_mask") -> None:
        """Raise `MaskError` unless `mask` is None or boolean of this shape."""
        check_row(mask, self.struct().shape, name)


def _as_int32(element: Shaped[Array, "..."]) -> Int[Array, "..."]:
    return jnp.asarray(element).astype(jnp.int32)


def _sample_allowed(key: Key, mask: Bool[Array, " n"]) -> Int[Array, ""]:
    """The index of a true entry, uniformly sampled; `mask` has at least one."""
    rank = jnp.cumsum(mask, dtype=jnp.int32)
    return jnp.argmax(rank > jax.random.randint(key, (), 0, rank[-1], jnp.int32)).astype(jnp.int32)


def _check_categories(name: str, sizes: tuple[int, ...], starts: tuple[int, ...]) -> None:
    if any(size < 1 for size in sizes):
        raise ConfigError(f"{name}: got {min(sizes)}, expected at least one category")
    for size, start in zip(sizes, starts, strict=True):
        if start < -(2**31) or size >= 2**31 or start + size > 2**31:
            raise ConfigError(f"{name}: {start} + {size} leaves the range of int32")
