"""`Box`: float or integer arrays with a lower and an upper bound."""

import math
from typing import Any, Literal, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Num, PyTree

from policy_core._dtypes import in_range, wide_float
from policy_core.checks.structure import matches_structure
from policy_core.configs import set_field, static
from policy_core.configs.validation import check_shape
from policy_core.contract import Key, Mask
from policy_core.errors import ConfigError, MaskError

BoxDtype: TypeAlias = Literal[
    "float16", "bfloat16", "float32", "float64",
    "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
]  # fmt: skip


@static
class Box:
    """A box: arrays of one shape and dtype between two bounds, inclusive.

    Args:
        low: lower bound, one float for all entries or a tuple of one per entry in C order;
            -inf for none (the default).
        high: upper bound, likewise; inf for none (the default).
        shape: shape of an element, `()` by default.
        dtype: name of a float or integer dtype. An infinite bound of an integer box is the
            bound of its dtype. 64-bit dtypes become 32-bit unless JAX runs in x64.

    Raises:
        ConfigError: for bounds that do not fit the shape, cross, or are not of the dtype.

    Example:
        >>> import jax.numpy as jnp
        >>> from policy_core import Box
        >>> torque = Box(low=(-2.0, -1.0), high=(2.0, 1.0), shape=(2,))
        >>> torque.flat_size, torque.bounded
        (2, True)
        >>> bool(torque.contains(jnp.array([1.5, -1.0])))
        True
    """

    low: float | tuple[float, ...] = -math.inf
    high: float | tuple[float, ...] = math.inf
    shape: tuple[int, ...] = ()
    dtype: BoxDtype = "float32"

    def __post_init__(self) -> None:
        check_shape(self, self.shape)
        for name in ("low", "high"):
            bound = getattr(self, name)
            if isinstance(bound, tuple):
                if len(bound) != math.prod(self.shape):
                    raise ConfigError(
                        f"Box.{name}: got {len(bound)} bounds for shape {self.shape}, expected one "
                        f"number, or {math.prod(self.shape)} in C order"
                    )
                if len(set(bound)) == 1:  # canonical form: equal bounds are stored as one float
                    set_field(self, name, bound[0])
        low, high = np.broadcast_arrays(self.low, self.high)
        if np.any(low > high) or np.any(low == np.inf) or np.any(high == -np.inf):
            raise ConfigError("Box.low: above Box.high somewhere; expected low <= high")
        if self.is_float:
            largest = float(jnp.finfo(self.dtype).max)
            if np.any(low > largest) or np.any(high < -largest):  # the cast would make them infinite
                raise ConfigError(f"Box.low, Box.high: outside of the range of {self.dtype}")
        else:
            info = np.iinfo(self.dtype)
            finite = np.concatenate([low[np.isfinite(low)], high[np.isfinite(high)]])
            if np.any(finite != np.round(finite)):
                raise ConfigError(f"Box.low, Box.high: expected whole numbers for {self.dtype}")
            if np.any(finite < float(info.min)) or np.any(finite > float(info.max)):
                raise ConfigError(f"Box.low, Box.high: outside of the range of {self.dtype}")

    @classmethod
    def of(cls, low: Any, high: Any, dtype: BoxDtype = "float32") -> "Box":
        """The box between two arrays of bounds, which have the shape of an element.

        Raises:
            ConfigError: for arrays of two shapes, and as the constructor.

        Example:
            >>> import numpy as np
            >>> from policy_core import Box
            >>> Box.of(-np.ones(2), np.array([1.0, 2.0])).shape
            (2,)
        """
        low, high = np.asarray(low, np.float64), np.asarray(high, np.float64)
        if low.shape != high.shape:
            raise ConfigError(f"Box.of: got bounds of shapes {low.shape} and {high.shape}, expected the same")
        bounds = (tuple(bound.ravel().tolist()) for bound in (low, high))
        low_bound, high_bound = (bound[0] if len(bound) == 1 else bound for bound in bounds)
        return cls(low=low_bound, high=high_bound, shape=low.shape, dtype=dtype)

    @property
    def flat_size(self) -> int:
        """The number of entries."""
        return math.prod(self.shape)

    @property
    def is_float(self) -> bool:
        """Whether the dtype is a float."""
        return bool(jnp.issubdtype(self.dtype, jnp.floating))

    @property
    def bounded(self) -> bool:
        """Whether every entry has two finite bounds."""
        return not self.is_float or bool(np.all(np.isfinite([*np.ravel(self.low), *np.ravel(self.high)])))

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """`low` and `high` as NumPy arrays of the space's shape and dtype.

        Where JAX has a narrower dtype than the space they are rounded inwards: what is within them is
        within the bounds that were given.
        """
        return self._rounded(inwards=True)

    def struct(self) -> jax.ShapeDtypeStruct:
        """Shape and dtype of an element."""
        return jax.ShapeDtypeStruct(self.shape, jax.dtypes.canonicalize_dtype(self.dtype))

    def sample(self, *, key: Key, mask: Mask = None) -> Num[Array, "..."]:
        """A random element; `key` is consumed.

        Uniform between two finite bounds, a shifted exponential beside one, a standard
        normal without any, as in gymnasium.
        """
        self.check_mask(mask, "mask")
        low, high = self.bounds()
        if not self.is_float:
            return _sample_integers(key, low, high)
        # Sampled in float32 or wider; low * (1 - u) + high * u cannot overflow, for bounds of +-3e38 too.
        wide = wide_float(low.dtype)
        uniform_key, tail_key, normal_key = jax.random.split(key, 3)
        u = jax.random.uniform(uniform_key, self.shape, wide)
        finite_low, finite_high = np.isfinite(low), np.isfinite(high)
        safe_low = jnp.asarray(np.where(finite_low, low, 0), wide)
        safe_high = jnp.asarray(np.where(finite_high, high, 0), wide)
        tail = jax.random.exponential(tail_key, self.shape, wide)
        sample = jnp.select(
            [finite_low & finite_high, finite_low, finite_high],
            [safe_low * (1 - u) + safe_high * u, safe_low + tail, safe_high - tail],
            jax.random.normal(normal_key, self.shape, wide),
        )
        return jnp.clip(sample.astype(low.dtype), low, high)

    def contains(self, element: PyTree) -> Bool[Array, ""]:
        """Whether `element` has this shape and kind of dtype, and lies within the bounds."""
        if not matches_structure(element, self.struct()):
            return jnp.array(False)
        low, high = self._rounded(inwards=False)  # for the element has been rounded likewise
        if self.is_float:
            element = jnp.asarray(element)
            with np.errstate(over="ignore"):  # a bound beyond the range of the dtype becomes infinite
                low, high = low.astype(element.dtype), high.astype(element.dtype)
            return jnp.all((element >= low) & (element <= high))
        return in_range(element, low, high)

    def flatten(self, element: Num[Array, "..."]) -> Float[Array, " flat"]:
        """The entries in C order, as float32 (float64 for a float64 box)."""
        return jnp.ravel(jnp.asarray(element).astype(self._flat_dtype()))

    def unflatten(self, flat: Float[Array, " flat"]) -> Num[Array, "..."]:
        """Inverse of `flatten`; integers are rounded."""
        struct = self.struct()
        values = flat if self.is_float else jnp.round(flat)
        return values.reshape(self.shape).astype(struct.dtype)

    def full_mask(self) -> None:
        """None: a box has no mask."""

    def mask_rows(self, mask: Mask) -> list[Bool[Array, "..."]]:
        """`[]`: a box has no mask."""
        return []

    def check_mask(self, mask: Mask, name: str = "action_mask") -> None:
        """Raise `MaskError` unless `mask` is None."""
        if mask is not None:
            raise MaskError(f"{name}: got a mask for a Box, which cannot be masked; pass None")

    def _rounded(self, *, inwards: bool) -> tuple[np.ndarray, np.ndarray]:
        """The bounds in the dtype that JAX has: the nearest numbers, or the nearest that are between them."""
        dtype = jax.dtypes.canonicalize_dtype(self.dtype)
        low, high = np.asarray(self.low), np.asarray(self.high)
        if self.is_float:
            with np.errstate(over="ignore"):
                first, last = self._filled(low.astype(dtype)), self._filled(high.astype(dtype))
            if not inwards or dtype == self.dtype:
                return first, last
            low, high = self._filled(low), self._filled(high)
            inner_first = np.where(np.isfinite(first) & (first < low), np.nextafter(first, last), first)
            inner_last = np.where(np.isfinite(last) & (last > high), np.nextafter(last, first), last)
            fits = inner_first <= inner_last  # there may be no number of the dtype between them
            return np.where(fits, inner_first, first), np.where(fits, inner_last, last)
        info = np.iinfo(dtype)

        def whole(bound: np.ndarray) -> np.ndarray:
            # Python ints: a float cannot hold every bound of a 64-bit integer.
            clipped = [
                info.max if x >= info.max else info.min if x <= info.min else int(x)
                for x in bound.ravel().tolist()
            ]
            return self._filled(np.array(clipped, dtype).reshape(bound.shape))

        return whole(low), whole(high)

    def _filled(self, bound: np.ndarray) -> np.ndarray:
        """A bound in the shape of the space, from one number, or from all in C order."""
        return np.array(np.broadcast_to(bound.reshape(self.shape) if bound.ndim else bound, self.shape))

    def _flat_dtype(self) -> np.dtype:
        return wide_float(self.struct().dtype)


def _sample_integers(key: Key, low: np.ndarray, high: np.ndarray) -> Num[Array, "..."]:
    """Uniform integers between inclusive bounds, which may span the whole dtype."""
    unsigned = np.dtype(f"uint{low.dtype.itemsize * 8}")
    with np.errstate(over="ignore"):
        span = high.astype(unsigned) - low.astype(unsigned)  # modulo 2^bits, so exact for signed dtypes too
        exclusive = span + unsigned.type(1)  # 0 where the span is the whole dtype
    bits_key, range_key = jax.random.split(key)
    in_span = jax.random.randint(range_key, low.shape, 0, np.maximum(exclusive, 1), unsigned)
    all_bits = jax.random.bits(bits_key, low.shape, unsigned)
    offset = jnp.where(exclusive == 0, all_bits, in_span)
    return (offset + low.astype(unsigned)).astype(low.dtype)
