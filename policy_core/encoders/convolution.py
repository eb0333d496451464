"""Building blocks of convolutional encoders: image checks, pixel scaling and layers."""

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array, Float, Num

from policy_core.contract import Features, Key, Space
from policy_core.errors import ConfigError
from policy_core.networks.layers import Layer, init_linear, linear
from policy_core.spaces import Box

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


def init_convolution(channels: int, filters: int, side: int, *, key: Key, dtype: str) -> Layer:
    """Params of a convolution: an orthogonal kernel `[side, side, channels, filters]`, and a bias."""
    layer = init_linear(side * side * channels, filters, key=key, dtype=dtype, gain=_SQRT_2)
    return {**layer, "kernel": layer["kernel"].reshape(side, side, channels, filters)}


def convolution(
    layer: Layer, x: Float[Array, "height width channels"], stride: int, padding: str
) -> Float[Array, "rows columns filters"]:
    """A convolution with a bias, in the dtype of `x`."""
    y: jax.Array = _convolved(x[None], layer["kernel"].astype(x.dtype), stride, padding)[0]
    return y + layer["bias"].astype(x.dtype)[None, None]


def init_dense(in_size: int, size: int, *, key: Key, dtype: str) -> Layer:
    """Params of the linear layer behind the last convolution. `key` is consumed."""
    return init_linear(in_size, size, key=key, dtype=dtype, gain=_SQRT_2)


def dense(layer: Layer, x: Float[Array, "height width channels"]) -> Features:
    """A linear layer on the flattened image, then ReLU."""
    return jax.nn.relu(linear(layer, jnp.ravel(x)))


@partial(jax.custom_jvp, nondiff_argnums=(2, 3))
def _convolved(x: Any, kernel: Any, stride: int, padding: str) -> Any:
    """A convolution whose gradients are as fast inside a `scan` as outside.

    On CPUs XLA has a fast convolution for one layout. It converts other layouts to that one, but
    not in the bodies of loops (jax 0.10), where the gradients of a plain convolution take ten
    times as long. Invariant of the derivative below: each term is linear in its tangent, and its
    transpose, which is the gradient, is a convolution in the fast layout.
    """
    return _in_layout(x, kernel, stride, padding, ("NHWC", "HWIO", "NHWC"))


@partial(_convolved.defjvp, symbolic_zeros=True)
def _tangent(stride: int, padding: str, primals: Any, tangents: Any) -> Any:
    (x, kernel), (dx, dkernel) = primals, tangents
    terms = []
    if not isinstance(dx, SymbolicZero):  # it is zero where x is the observation
        terms.append(_in_layout(dx, kernel.transpose(0, 1, 3, 2), stride, padding, ("NHWC", "HWOI", "NHWC")))
    if not isinstance(dkernel, SymbolicZero):
        dkernel = dkernel.transpose(2, 0, 1, 3)
        dy = _in_layout(x.transpose(3, 1, 2, 0), dkernel, stride, padding, ("CHWN", "IHWO", "HWNC"))
        terms.append(dy.transpose(2, 0, 1, 3))
    return _convolved(x, kernel, stride, padding), sum(terms)


def _in_layout(x: Any, kernel: Any, stride: int, padding: str, layout: tuple[str, str, str]) -> Any:
    return jax.lax.conv_general_dilated(x, kernel, (stride, stride), padding, dimension_numbers=layout)
