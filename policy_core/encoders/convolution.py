"""What convolutional encoders share: the checks of an image, its pixels, and one layer."""

import math
from functools import partial
from typing import Any, Literal, TypeAlias

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
Form: TypeAlias = Literal["y", "x", "kernel"]
_COLORS = 4  # images of at most so many channels are likely to be channel first if these lead


def check_image(space: Space, least: int, encoder: str, name: str) -> None:
    """Raise `ConfigError` unless `space` is an image, channel last, of sides of at least `least`."""
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
    """Whether the first axis is as short as that of colours, and shorter than both others."""
    return shape[0] <= _COLORS and shape[0] < min(shape[1:])


def pixels(image: Num[Array, "height width channels"], dtype: str) -> Float[Array, "height width channels"]:
    """The image in `dtype`: uint8 divided by 255, floats as they are."""
    image = jnp.asarray(image)
    scaled = image.astype(dtype)
    return scaled / 255 if image.dtype == jnp.uint8 else scaled


def init_convolution(channels: int, filters: int, side: int, *, key: Key, dtype: str) -> Layer:
    """A kernel `[side, side, channels, filters]`, orthogonal as a matrix of `filters` columns, and a bias."""
    layer = init_linear(side * side * channels, filters, key=key, dtype=dtype, gain=_SQRT_2)
    return {**layer, "kernel": layer["kernel"].reshape(side, side, channels, filters)}


def convolution(
    layer: Layer, x: Float[Array, "height width channels"], stride: int, padding: str
) -> Float[Array, "rows columns filters"]:
    """The layer applied at every `stride`-th place, in the dtype of `x`."""
    x, kernel = varying_as((x, layer["kernel"].astype(x.dtype)), x, layer["kernel"])
    if any(jax.typeof(array).sharding.mesh.explicit_axes for array in (x, kernel)):
        y = _product("y", x[None], kernel, stride, padding)  # JAX shards it by itself
    else:
        taken = kernel.shape[0] if padding == "VALID" else 1
        sides = ((n - taken) // stride + 1 for n in x.shape[:2])
        y = _bind("y", (1, *sides, kernel.shape[3]), stride, padding)(x[None], kernel)
    result: jax.Array = y[0]
    return result + layer["bias"].astype(x.dtype)[None, None]


def init_dense(in_size: int, size: int, *, key: Key, dtype: str) -> Layer:
    """The linear layer behind the last convolution. `key` is consumed."""
    return init_linear(in_size, size, key=key, dtype=dtype, gain=_SQRT_2)


def dense(layer: Layer, x: Float[Array, "height width channels"]) -> Features:
    """The layer on all numbers of an image, then ReLU."""
    return jax.nn.relu(linear(layer, jnp.ravel(x)))


# A convolution is linear in x and in kernel, and so are its transposes in them. They are one primitive:
# form "y" is of (x, kernel), "x" of (y, kernel), "kernel" of (x, y), where x and y are several images.
#
# XLA for CPUs brings convolutions into the layout that it has a fast form for, but not in the bodies of
# loops (jax 0.10), and those of the gradients that JAX derives are in others: in a `scan` they take ten times
# as long. So each form is written in a layout that is, or whose transpose is, the fast one. Kernels
# of a population would be one grouped convolution, which is slow on CPUs and which XLA does not split
# over devices by members; their batching rule is a product of patches, which is neither.


def _bind(form: Form, shape: tuple[int, ...], stride: int, padding: str) -> Any:
    return partial(_convolved.bind, form=form, shape=tuple(shape), stride=stride, padding=padding)


def _spelt_out(a: Any, b: Any, *, form: Form, shape: tuple[int, ...], stride: int, padding: str) -> Any:
    def layout(x: Any, kernel: Any, names: tuple[str, str, str]) -> Any:
        return jax.lax.conv_general_dilated(x, kernel, (stride, stride), padding, dimension_numbers=names)

    def of_x(x: Any) -> Any:
        return layout(x, b.transpose(0, 1, 3, 2), ("NHWC", "HWOI", "NHWC"))

    def of_kernel(kernel: Any) -> Any:
        kernel = kernel.transpose(2, 0, 1, 3)
        return layout(a.transpose(3, 1, 2, 0), kernel, ("CHWN", "IHWO", "HWNC")).transpose(2, 0, 1, 3)

    if form == "y":
        return layout(a, b, ("NHWC", "HWIO", "NHWC"))
    return _transposed(of_x, a, shape) if form == "x" else _transposed(of_kernel, b, shape)


def _product(form: Form, a: Any, b: Any, stride: int, padding: str, shape: tuple[int, ...] = ()) -> Any:
    """The same by a product of patches, in operations that JAX knows."""

    def of(x: Any, kernel: Any) -> Any:
        return _patches(x, kernel.shape[0], stride, padding) @ kernel.reshape(-1, kernel.shape[3])

    if form == "y":
        return of(a, b)
    return _transposed(lambda x: of(x, b) if form == "x" else of(a, x), a if form == "x" else b, shape)


def _transposed(function: Any, y: Any, shape: tuple[int, ...]) -> Any:
    return jax.linear_transpose(function, jax.ShapeDtypeStruct(shape, y.dtype))(y)[0]


def _patches(x: Any, side: int, stride: int, padding: str) -> Any:
    """What the kernel sees at each place: `[images, rows, columns, side * side * channels]`."""
    sides, window, strides = x.shape[1:3], (side, side), (stride, stride)
    x = jnp.pad(x, [(0, 0), *jax.lax.padtype_to_pads(sides, window, strides, padding), (0, 0)])
    images, height, width, channels = x.shape
    most = (height - side) // stride * stride + 1, (width - side) // stride * stride + 1
    seen = [
        jax.lax.slice(x, (0, i, j, 0), (images, i + most[0], j + most[1], channels), (1, stride, stride, 1))
        for i, j in np.ndindex(side, side)
    ]
    return jnp.concatenate(seen, -1)


def _batched(arrays: Any, axes: Any, *, form: Form, shape: tuple[int, ...], stride: int, padding: str) -> Any:
    if form == "kernel" or axes[1] is not None:
        function = partial(_product, form, stride=stride, padding=padding, shape=shape)
        return jax.vmap(function, axes)(*arrays), 0
    # One kernel: more images.
    images = jnp.moveaxis(arrays[0], axes[0], 0)
    count = images.shape[0]
    merged = images.reshape(-1, *images.shape[2:])
    result = _bind(form, (count * shape[0], *shape[1:]), stride, padding)(merged, arrays[1])
    return result.reshape(count, *shape), 0


def _transpose_first(ct: Any, a: Any, b: Any, *, form: Form, **options: Any) -> Any:
    arguments = (b, ct) if form == "kernel" else (ct, b)
    return _bind("x" if form != "x" else "y", a.aval.shape, options["stride"], options["padding"])(*arguments)


def _transpose_second(ct: Any, a: Any, b: Any, *, form: Form, **options: Any) -> Any:
    arguments = (ct, a) if form == "x" else (a, ct)
    return _bind("y" if form == "kernel" else "kernel", b.aval.shape, options["stride"], options["padding"])(
        *arguments
    )


_convolved = Primitive("convolved")
_convolved.def_abstract_eval(lambda a, b, *, shape, **_: a.update(shape=shape, weak_type=False))
_convolved.def_impl(jax.jit(_spelt_out, static_argnames=("form", "shape", "stride", "padding")))
mlir.register_lowering(_convolved, mlir.lower_fun(_spelt_out, multiple_results=False))
batching.primitive_batchers[_convolved] = _batched
ad.defbilinear(_convolved, _transpose_first, _transpose_second)
