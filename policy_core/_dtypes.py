"""One rule of precision: numbers that are summed, scored or sampled are float32 or wider."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Num


def wide_float(*dtypes: Any) -> np.dtype[Any]:
    """float64 if one of the dtypes is, else float32."""
    return np.dtype("float64" if np.dtype("float64") in map(np.dtype, dtypes) else "float32")


def widen(x: Num[Array, "*shape"]) -> Float[Array, "*shape"]:
    """The numbers in float32, or as they are if in float64."""
    x = jnp.asarray(x)
    return x.astype(wide_float(x.dtype))
