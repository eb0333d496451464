"""A JAX primitive for initializers, so that `jax.eval_shape` need not trace the sampler.

When a file is loaded, the shapes of the params are found by `jax.eval_shape` of `init`. Tracing the
sampler of a kernel takes some 10 ms; a primitive has a shape rule instead, and is expanded into the
sampler when a program is compiled. The random values are the same.
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
    """Make an initializer of float32 kernels a single JAX primitive."""

    @functools.wraps(function)
    def draw(key: Key, shape: tuple[int, int]) -> Float[Array, "rows columns"]:
        array: Float[Array, "rows columns"] = _drawn.bind(key, function=function, shape=tuple(shape))
        return array

    return draw


def _expanded(keys: Any, *, function: Draw, shape: tuple[int, int]) -> Any:
    draw: Any = lambda key: function(key, shape)  # noqa: E731
    for _ in _axes_of(keys):
        draw = jax.vmap(draw)
    return draw(keys)


def _batched(keys: Any, axes: Any, *, function: Draw, shape: tuple[int, int]) -> Any:
    return _drawn.bind(jnp.moveaxis(keys[0], axes[0], 0), function=function, shape=shape), 0


def _shape_and_dtype(keys: Any, *, function: Draw, shape: tuple[int, int]) -> Any:
    del function
    # All other attributes of the type, such as the axes over which it varies, are those of the keys.
    return keys.update(shape=(*_axes_of(keys), *shape), dtype=jnp.dtype("float32"), weak_type=False)


def _axes_of(keys: Any) -> tuple[int, ...]:
    """The shape of an array of keys, of either style, without the axis of a raw key."""
    typed = jnp.issubdtype(keys.dtype, jax.dtypes.prng_key)
    return tuple(keys.shape if typed else keys.shape[:-1])


_drawn = Primitive("drawn")
_drawn.def_abstract_eval(_shape_and_dtype)
_drawn.def_impl(jax.jit(_expanded, static_argnames=("function", "shape")))
mlir.register_lowering(_drawn, mlir.lower_fun(_expanded, multiple_results=False))
batching.primitive_batchers[_drawn] = _batched
