"""Random arrays whose shape is known beforehand, each one operation for JAX.

To know what params a config has, a file traces its `init`. Tracing a kernel takes JAX some 10 ms,
and ends in the shape that was asked for; an operation of its own says so at once, and is spelt out
when a program is compiled. The numbers are the same.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import batching, mlir
from jaxtyping import Array, Float

from policy_core.contract import Key

Draw = Callable[[Key, tuple[int, int]], Float[Array, "rows columns"]]


def drawn(function: Draw, /) -> Draw:
    """A function that gives float32 of the shape that it is asked for, as one operation."""

    @functools.wraps(function)
    def draw(key: Key, shape: tuple[int, int]) -> Float[Array, "rows columns"]:
        array: Float[Array, "rows columns"] = _drawn.bind(key, function=function, shape=tuple(shape))
        return array

    return draw


def _spelt_out(key: Any, *, function: Draw, shape: tuple[int, int]) -> Any:
    return function(key, shape)


def _batched(keys: Any, axes: Any, *, function: Draw, shape: tuple[int, int]) -> Any:
    return jax.vmap(lambda key: function(key, shape), in_axes=axes)(*keys), 0


_drawn = Primitive("drawn")
# What else a type says, such as over which devices it varies, is as with the key.
_drawn.def_abstract_eval(
    lambda key, *, function, shape: key.update(shape=shape, dtype=jnp.dtype("float32"), weak_type=False)
)
_drawn.def_impl(jax.jit(_spelt_out, static_argnames=("function", "shape")))
mlir.register_lowering(_drawn, mlir.lower_fun(_spelt_out, multiple_results=False))
batching.primitive_batchers[_drawn] = _batched
