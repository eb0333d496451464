"""Dtype rules: sums, log-probabilities and samples are computed in float32 or wider."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Num


def wide_float(*dtypes: Any) -> np.dtype[Any]:
    """float64 if one of the dtypes is, else float32."""
    return np.dtype("float64" if np.dtype("float64") in map(np.dtype, dtypes) else "float32")


def widen(x: Num[Array, "*shape"]) -> Float[Array, "*shape"]:
    """`x` in float32, or unchanged if it is float64."""
    x = jnp.asarray(x)
    return x.astype(wide_float(x.dtype))


def as_integers(x: Any) -> Any:
    """Integers in a dtype that represents all of them.

    Booleans become int32. A NumPy array of 64-bit integers stays a NumPy array, as JAX would wrap
    values that do not fit into 32 bits.
    """
    if isinstance(x, jax.Array):
        return x.astype(jnp.int32) if x.dtype == jnp.bool_ else x
    array = np.asarray(x)
    return array.astype(np.int32) if array.dtype == np.bool_ else array


def in_range(x: Any, low: Any, high: Any) -> Bool[Array, ""]:
    """Whether low <= x <= high everywhere, for integers of any dtype, without wrapping."""
    x = as_integers(x)
    info = np.iinfo(x.dtype)
    lows, highs = np.ravel(low).tolist(), np.ravel(high).tolist()
    if any(y > info.max for y in lows) or any(y < info.min for y in highs):
        return jnp.array(False)
    least = np.array([max(y, info.min) for y in lows], x.dtype).reshape(np.shape(low))
    most = np.array([min(y, info.max) for y in highs], x.dtype).reshape(np.shape(high))
    return jnp.asarray((x >= least) & (x <= most)).all()


def as_int32(x: Any) -> Int[Array, "*shape"]:
    """Integers of any dtype as int32; values that are no integer of 32 bits become the least one.

    Nothing is rounded or wrapped: 0.5, NaN and 2^32 + 1 are no element of a space, and neither
    is the least int32, unless a space starts there.
    """
    array: Any = x if isinstance(x, jax.Array) else np.asarray(x)
    if array.dtype == np.int32:
        return jnp.asarray(array)
    module: Any = jnp if isinstance(x, jax.Array) else np
    low, high = np.iinfo(np.int32).min, np.iinfo(np.int32).max
    if array.dtype == np.bool_:
        exact = array | True
    elif jnp.issubdtype(array.dtype, jnp.floating):
        array = widen(array) if module is jnp else array.astype(np.float64)
        exact = (array == module.floor(array)) & (abs(array) < 2.0**31)
    else:
        held = np.iinfo(array.dtype)
        exact = (array <= min(high, held.max)) & (array >= max(low, held.min))
    integers = module.where(exact, array, array.dtype.type(0)).astype(np.int32)
    return jnp.asarray(module.where(exact, integers, np.int32(low)))
