"""Building blocks of convolutional encoders: image checks, pixel scaling and layers."""

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array, Float, Num

from policy_core.contract import Features, Key, Space
from policy_core.errors import ConfigError
from policy_core.networks.layers import Layer, init_linear, linear
from policy_core.spaces import Box
from policy_core.trees import varying_as

_SQRT_2 = math.sqrt(2)  # the gain of a layer before a ReLU
_COLORS = 4  # a leading axis of at most this length is likely to be that of the channels


def check_image(space: Space, least: int, encoder: str, name: str) -> None:
    """Raise `ConfigError` unless `space` is a channel-last image of at least `least` x `least` pixels."""
    if not isinstance(space, Box) or len(space.shape) != 3:
        got = f"a Box of shape {space.shape}" if isinstance(space, Box) else type(space).__name__
        raise ConfigError(
            f"{name}: got {got}, but {encoder} takes a Box of shape (height, width, channels); the "
            "frames of a stack are channels"
        )
    if space.dtype != "uint8" and not space.is_float:
        raise ConfigError(f"{name}: got an image of {space.dtype}, but {encoder} takes uint8 or floats")
    if seems_channel_first(space.shape):
        channels, height, width = space.shape
        raise ConfigError(
            f"{name}: got an image of shape {space.shape}, which seems to have its channels first; give "
            f"({height}, {width}, {channels}) and jnp.moveaxis(image, 0, -1), or encoder=Flatten() if it is "
            "no image"
        )
    if min(space.shape[:2]) < least or space.shape[2] < 1:
        raise ConfigError(
            f"{name}: got an image of shape {space.shape}, too small for {encoder}, which needs "
            f"{least} x {least} and a channel"
        )


def seems_channel_first(shape: tuple[int, ...]) -> bool:
    """Whether the first axis has at most 4 entries, and fewer than both others."""
    return shape[0] <= _COLORS and shape[0] < min(shape[1:])


def pixels(image: Num[Array, "height width channels"], dtype: str) -> Float[Array, "height width channels"]:
    """The image in `dtype`: uint8 divided by 255, floats unscaled."""
    image = jnp.asarray(image)
    scaled = image.astype(dtype)
    return scaled / 255 if image.dtype == jnp.uint8 else scaled


def init_convolution(
    channels: int, filters: int, side: int, *, key: Key, dtype: str, gain: float = _SQRT_2
) -> Layer:
    """Params of a convolution: an orthogonal kernel `[side, side, channels, filters]`, and a bias."""
    layer = init_linear(side * side * channels, filters, key=key, dtype=dtype, gain=gain)
    return {**layer, "kernel": layer["kernel"].reshape(side, side, channels, filters)}


def convolution(
    layer: Layer, x: Float[Array, "height width channels"], stride: int, padding: str
) -> Float[Array, "rows columns filters"]:
    """A convolution with a bias, in the dtype of `x`."""
    bias = layer["bias"].astype(x.dtype)[None, None]
    x, kernel = varying_as((x, layer["kernel"].astype(x.dtype)), x, layer["kernel"])
    if any(jax.typeof(array).sharding.mesh.explicit_axes for array in (x, kernel)):
        product: jax.Array = _product("y", x[None], kernel, stride, padding)[0]
        return product + bias  # of operations that JAX knows how to split
    least = kernel.shape[0] if padding == "VALID" else 1
    shape = (1, *((n - least) // stride + 1 for n in x.shape[:2]), kernel.shape[3])
    y: jax.Array = _convolved.bind(x[None], kernel, form="y", shape=shape, stride=stride, padding=padding)[0]
    return y + bias


def init_dense(in_size: int, size: int, *, key: Key, dtype: str) -> Layer:
    """Params of the linear layer behind the last convolution. `key` is consumed."""
    return init_linear(in_size, size, key=key, dtype=dtype, gain=_SQRT_2)


def dense(layer: Layer, x: Float[Array, "height width channels"]) -> Features:
    """A linear layer on the flattened image, then ReLU."""
    return jax.nn.relu(linear(layer, jnp.ravel(x)))


# A convolution is linear in x and in kernel, and so are its transposes in them. They are one primitive:
# form "y" is of (x, kernel), "x" of (y, kernel), "kernel" of (x, y), where x and y are several images.
#
# XLA for CPUs brings convolutions into the layout that it has a fast form for, but not in the bodies of
# loops (jax 0.10), and those of the gradients that JAX derives are in others: in a `scan` they take ten times
# as long. So each form is written in a layout that is, or whose transpose is, the fast one. Kernels
# of a population would be one grouped convolution, which is slow on CPUs and which XLA does not split
# over devices by members; their batching rule is a product of patches, which is neither.
_OPERANDS = {"y": ("x", "kernel"), "x": ("y", "kernel"), "kernel": ("x", "y")}
_LAYOUTS = {"y": "NHWC HWIO NHWC", "x": "NHWC HWOI NHWC", "kernel": "CHWN IHWO HWNC"}


def _convolution(form: str, x: Any, kernel: Any, stride: int, padding: str) -> Any:
    layout: Any = tuple(_LAYOUTS[form].split())
    of_x, of_kernel, of_y = layout
    x = x.transpose(["NHWC".index(axis) for axis in of_x])
    kernel = kernel.transpose(["HWIO".index(axis) for axis in of_kernel])
    y = jax.lax.conv_general_dilated(x, kernel, (stride, stride), padding, dimension_numbers=layout)
    return y.transpose([of_y.index(axis) for axis in "NHWC"])


def _product(_: str, x: Any, kernel: Any, stride: int, padding: str) -> Any:
    """The same as a product of patches, in operations that JAX knows."""
    side = kernel.shape[0]
    pads = jax.lax.padtype_to_pads(x.shape[1:3], (side, side), (stride, stride), padding)
    x = jnp.pad(x, [(0, 0), *pads, (0, 0)])
    images, height, width, channels = x.shape
    most = (height - side) // stride * stride + 1, (width - side) // stride * stride + 1
    patches = [
        jax.lax.slice(x, (0, i, j, 0), (images, i + most[0], j + most[1], channels), (1, stride, stride, 1))
        for i, j in np.ndindex(side, side)
    ]
    return jnp.concatenate(patches, -1) @ kernel.reshape(-1, kernel.shape[3])


def _form(function: Any, a: Any, b: Any, *, form: str, shape: Any, stride: int, padding: str) -> Any:
    """A form of what is given as form "y"."""
    if form == "y":
        return function(form, a, b, stride, padding)
    of_x: Any = lambda x: function(form, x, b, stride, padding)  # noqa: E731
    of_kernel: Any = lambda kernel: function(form, a, kernel, stride, padding)  # noqa: E731
    linear, y = (of_x, a) if form == "x" else (of_kernel, b)
    # What varies over an axis of a shard_map may not be summed over it: the type of these zeros says so.
    return jax.linear_transpose(linear, varying_as(jnp.zeros(shape, y.dtype), y))(y)[0]


def _batched(arrays: Any, axes: Any, *, shape: Any, **options: Any) -> Any:
    if options["form"] == "kernel" or axes[1] is not None:
        if 1 in (array.shape[axis] for array, axis in zip(arrays, axes, strict=True) if axis is not None):
            alone = [
                x if axis is None else jnp.squeeze(x, axis) for x, axis in zip(arrays, axes, strict=True)
            ]
            return _convolved.bind(*alone, shape=shape, **options)[None], 0  # a population of one
        return jax.vmap(partial(_form, _product, shape=shape, **options), axes)(*arrays), 0
    images = jnp.moveaxis(arrays[0], axes[0], 0)  # of one kernel: there are more of them
    (count, several, *rest), (_, *sides) = images.shape, shape
    merged = images.reshape(count * several, *rest)
    y = _convolved.bind(merged, arrays[1], shape=(count * several, *sides), **options)
    return y.reshape(count, several, *sides), 0


def _transposed(place: int, ct: Any, *operands: Any, form: str, shape: Any, **options: Any) -> Any:
    wanted, other = _OPERANDS[form][place], _OPERANDS[form][1 - place]
    known, shape = {form: ct, other: operands[1 - place]}, operands[place].aval.shape
    return _convolved.bind(*(known[name] for name in _OPERANDS[wanted]), form=wanted, shape=shape, **options)


_convolved = Primitive("convolved")
_spelt_out = partial(_form, _convolution)
_convolved.def_abstract_eval(lambda a, b, *, shape, **_: a.update(shape=shape, weak_type=False))
_convolved.def_impl(jax.jit(_spelt_out, static_argnames=("form", "shape", "stride", "padding")))
mlir.register_lowering(_convolved, mlir.lower_fun(_spelt_out, multiple_results=False))
batching.primitive_batchers[_convolved] = _batched
ad.defbilinear(_convolved, partial(_transposed, 0), partial(_transposed, 1))
