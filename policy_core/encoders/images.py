"""Convolutional encoders of channel-last images; uint8 is divided by 255, floats are not rescaled.

Kernels are initialized orthogonal with gain sqrt(2), biases with zeros (Huang et al. 2022). Stacked
frames are channels.
"""

import functools
import math
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Num

from policy_core.configs import set_field, static
from policy_core.configs.validation import check_at_least
from policy_core.contract import Encoder, Features, Key, Space
from policy_core.encoders.convolution import (
    check_image,
    convolution,
    dense,
    init_convolution,
    init_dense,
    pixels,
)
from policy_core.errors import ConfigError
from policy_core.networks.activations import ACTIVATIONS
from policy_core.networks.layers import MOST_LAYERS, Layer, init_linear, linear


@static
class CNN:
    """A convolutional network: convolutions, each with an activation and pooling, and a linear layer.

    Args:
        channels: number of filters of each convolution.
        kernels: side of the square kernel of each convolution.
        strides: stride of each convolution; None for 1 everywhere.
        padding: "VALID" for none, or "SAME": as many zeros as keep ceil(side / stride) pixels.
        pool: the pooling behind each activation: "none", or "max" or "mean" over windows of `window` x
            `window` that do not overlap; pixels that fill no window are left out.
        window: side of these windows.
        activation: a name, see `register_activation`; it also follows the linear layer.
        size: output dimension, the width of the linear layer; None for no linear layer: then the features
            are the pixels of the last convolution, flattened, the channels last.
        gain: factor of the orthogonal initial kernels.

    Raises:
        ConfigError: for lengths that differ, a number below 1, or more than 100 convolutions.

    Example:
        >>> import jax
        >>> from policy_core import Box
        >>> from policy_core.encoders import CNN
        >>> space = Box(low=0, high=255, shape=(15, 15, 3), dtype="uint8")
        >>> encoder = CNN(channels=(16, 32), kernels=(3, 3), padding="SAME", pool="max", size=64)
        >>> params = jax.eval_shape(lambda: encoder.init(space, key=jax.random.key(0), dtype="float32"))
        >>> params["linear"]["kernel"].shape
        (288, 64)
    """

    channels: tuple[int, ...]
    kernels: tuple[int, ...]
    strides: tuple[int, ...] | None = None
    padding: Literal["VALID", "SAME"] = "VALID"
    pool: Literal["none", "max", "mean"] = "none"
    window: int = 2
    activation: str = "relu"
    size: int | None = 512
    gain: float = math.sqrt(2)

    def __post_init__(self) -> None:
        if not 0 < len(self.channels) <= MOST_LAYERS:
            raise ConfigError(f"CNN.channels: got {self.channels}, expected 1 to {MOST_LAYERS} convolutions")
        for name in ("kernels", "strides"):
            numbers = getattr(self, name)
            if numbers is not None and len(numbers) != len(self.channels):
                raise ConfigError(
                    f"CNN.{name}: got {numbers}, expected {len(self.channels)} numbers, as many as channels"
                )
        check_at_least(self, 1, "channels", "kernels", "strides", "window", "size")
        if self.strides is not None and all(stride == 1 for stride in self.strides):
            set_field(self, "strides", None)  # one form for one network
        ACTIVATIONS.find(self.activation, "CNN.activation: ")

    def check_space(self, space: Any, name: str = "observation_space") -> None:
        """Raise `ConfigError` unless `space` is an image of which a pixel is left."""
        check_image(space, 1, "CNN", name)
        if 0 in self._shapes(space)[-1]:
            raise ConfigError(
                f"{name}: got an image of shape {space.shape}, too small for CNN: its layers leave "
                f"{self._shapes(space)}"
            )

    def init(self, space: Any, *, key: Key, dtype: str) -> dict[str, Layer]:
        """Fresh params: `convolution_0`, ..., and `linear` if there is a `size`; `key` is consumed."""
        *keys, linear_key = jax.random.split(key, len(self.channels) + 1)
        shapes = self._shapes(space)
        params = {
            f"convolution_{i}": init_convolution(
                before[2], filters, side, key=keys[i], dtype=dtype, gain=self.gain
            )
            for i, (before, filters, side) in enumerate(
                zip([space.shape, *shapes], self.channels, self.kernels, strict=False)
            )
        }
        if self.size is not None:
            inputs = math.prod(shapes[-1])
            params["linear"] = init_linear(inputs, self.size, key=linear_key, dtype=dtype, gain=self.gain)
        return params

    def out_size(self, space: Any) -> int:
        """`size`, or the number of pixels and channels that are left."""
        return math.prod(self._shapes(space)[-1]) if self.size is None else self.size

    def apply(self, params: Any, space: Space, observation: Num[Array, "..."], dtype: str) -> Features:
        """The features: the output of the last layer, after its activation."""
        activation = ACTIVATIONS.find(self.activation)
        x = pixels(observation, dtype)
        for i, stride in enumerate(self.strides or (1,) * len(self.channels)):
            x = activation(convolution(params[f"convolution_{i}"], x, stride, self.padding))
            if self.pool != "none":
                x = _pooled_apart(x, self.window, self.pool)
        x = jnp.ravel(x)
        return x if self.size is None else activation(linear(params["linear"], x))

    def _shapes(self, space: Any) -> list[tuple[int, int, int]]:
        """Height, width and channels after each convolution and its pooling."""
        shapes: list[tuple[int, int, int]] = []
        sides = space.shape[:2]
        strides = self.strides or (1,) * len(self.channels)
        for filters, kernel, stride in zip(self.channels, self.kernels, strides, strict=True):
            least = kernel if self.padding == "VALID" else 1
            sides = [max((side - least) // stride + 1, 0) for side in sides]
            if self.pool != "none":
                sides = [side // self.window for side in sides]
            shapes.append((sides[0], sides[1], filters))
        return shapes


@static
class NatureCNN:
    """The convolutional network of Mnih et al. 2015, for images of at least 36 x 36.

    Three convolutions without padding and a linear layer, each followed by ReLU: 32 filters of
    8 x 8 at stride 4, 64 of 4 x 4 at stride 2, 64 of 3 x 3 at stride 1: a `CNN`.

    Args:
        size: output dimension, the width of the linear layer.

    Raises:
        ConfigError: for a size below 1.

    Example:
        >>> from policy_core import Box, NatureCNN
        >>> space = Box(low=0, high=255, shape=(84, 84, 4), dtype="uint8")
        >>> NatureCNN().out_size(space)
        512
    """

    size: int = 512

    def __post_init__(self) -> None:
        check_at_least(self, 1, "size")

    @functools.cached_property
    def network(self) -> CNN:
        """The same as a `CNN`."""
        return CNN(channels=(32, 64, 64), kernels=(8, 4, 3), strides=(4, 2, 1), size=self.size)

    def check_space(self, space: Space, name: str = "observation_space") -> None:
        """Raise `ConfigError` unless `space` is an image of at least 36 x 36."""
        check_image(space, 36, "NatureCNN", name)

    def init(self, space: Any, *, key: Key, dtype: str) -> dict[str, Layer]:
        """Fresh params: `convolution_0`, `convolution_1`, `convolution_2`, `linear`; `key` is consumed."""
        return self.network.init(space, key=key, dtype=dtype)

    def out_size(self, space: Space) -> int:
        """`size`."""
        return self.size

    def apply(self, params: Any, space: Space, observation: Num[Array, "..."], dtype: str) -> Features:
        """The features: the output of the linear layer, after ReLU."""
        return self.network.apply(params, space, observation, dtype)


@static
class ImpalaCNN:
    """The residual network of Espeholt et al. 2018, without its LSTM.

    Each stage is a 3 x 3 convolution, 3 x 3 max pooling at stride 2, and residual blocks
    x + conv(relu(conv(relu(x)))), all padded; then ReLU, a linear layer, ReLU.

    Args:
        channels: number of channels of each stage.
        blocks: number of residual blocks per stage.
        size: output dimension, the width of the linear layer.

    Raises:
        ConfigError: without stages, for a number below 1, or more than 100 stages or blocks.

    Example:
        >>> import jax
        >>> from policy_core import Box, ImpalaCNN
        >>> space, encoder = Box(low=0, high=255, shape=(8, 8, 3), dtype="uint8"), ImpalaCNN(size=16)
        >>> params = jax.eval_shape(lambda: encoder.init(space, key=jax.random.key(0), dtype="float32"))
        >>> params["linear"]["kernel"].shape, params["stage_2"]["block_1"]["convolution_0"]["kernel"].shape
        ((32, 16), (3, 3, 32, 32))
    """

    channels: tuple[int, ...] = (16, 32, 32)
    blocks: int = 2
    size: int = 256

    def __post_init__(self) -> None:
        if not self.channels:
            raise ConfigError("ImpalaCNN.channels: got (), expected at least one stage")
        check_at_least(self, 1, "channels", "blocks", "size")
        if max(len(self.channels), self.blocks) > MOST_LAYERS:
            raise ConfigError(f"ImpalaCNN: more than {MOST_LAYERS} stages, or blocks in a stage")

    def check_space(self, space: Space, name: str = "observation_space") -> None:
        """Raise `ConfigError` unless `space` is an image."""
        check_image(space, 1, "ImpalaCNN", name)

    def init(self, space: Any, *, key: Key, dtype: str) -> dict[str, Any]:
        """Fresh params: `stage_0`, ... (each `convolution`, `block_0`, ...), `linear`; `key` is consumed."""
        height, width, before = space.shape
        key, linear_key = jax.random.split(key)
        params: dict[str, Any] = {}

        def layer(key: Key, channels: int, filters: int) -> Layer:
            return init_convolution(channels, filters, 3, key=key, dtype=dtype)

        for i, (stage_key, after) in enumerate(
            zip(jax.random.split(key, len(self.channels)), self.channels, strict=True)
        ):
            first_key, *keys = jax.random.split(stage_key, 1 + 2 * self.blocks)
            stage: dict[str, Any] = {"convolution": layer(first_key, before, after)}
            for j in range(self.blocks):
                stage[f"block_{j}"] = {
                    f"convolution_{k}": layer(keys[2 * j + k], after, after) for k in range(2)
                }
            params[f"stage_{i}"] = stage
            height, width, before = -(-height // 2), -(-width // 2), after
        params["linear"] = init_dense(height * width * before, self.size, key=linear_key, dtype=dtype)
        return params

    def out_size(self, space: Space) -> int:
        """`size`."""
        return self.size

    def apply(self, params: Any, space: Space, observation: Num[Array, "..."], dtype: str) -> Features:
        """The features: the output of the linear layer, after ReLU."""
        x = pixels(observation, dtype)
        for i in range(len(self.channels)):
            stage = params[f"stage_{i}"]
            x = _pooled(convolution(stage["convolution"], x, 1, "SAME"))
            for j in range(self.blocks):
                y = x
                for layer in (stage[f"block_{j}"][f"convolution_{k}"] for k in range(2)):
                    y = convolution(layer, jax.nn.relu(y), 1, "SAME")
                x = x + y
        return dense(params["linear"], jax.nn.relu(x))


@static
class MinAtarCNN:
    """The convolutional network of Young & Tian 2019, for images of about 10 x 10.

    One 3 x 3 convolution without padding and a linear layer, each followed by ReLU: a `CNN`.

    Args:
        filters: number of filters of the convolution.
        size: output dimension, the width of the linear layer.

    Raises:
        ConfigError: for a number below 1.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> from policy_core import Box, MinAtarCNN
        >>> space, encoder = Box(low=0.0, high=1.0, shape=(10, 10, 4)), MinAtarCNN()
        >>> params = encoder.init(space, key=jax.random.key(0), dtype="float32")
        >>> encoder.apply(params, space, jnp.zeros((10, 10, 4)), "float32").shape
        (128,)
    """

    filters: int = 16
    size: int = 128

    def __post_init__(self) -> None:
        check_at_least(self, 1, "filters", "size")

    @functools.cached_property
    def network(self) -> CNN:
        """The same as a `CNN`."""
        return CNN(channels=(self.filters,), kernels=(3,), size=self.size)

    def check_space(self, space: Space, name: str = "observation_space") -> None:
        """Raise `ConfigError` unless `space` is an image of at least 3 x 3."""
        check_image(space, 3, "MinAtarCNN", name)

    def init(self, space: Any, *, key: Key, dtype: str) -> dict[str, Layer]:
        """Fresh params: `convolution_0` and `linear`; `key` is consumed."""
        return self.network.init(space, key=key, dtype=dtype)

    def out_size(self, space: Space) -> int:
        """`size`."""
        return self.size

    def apply(self, params: Any, space: Space, observation: Num[Array, "..."], dtype: str) -> Features:
        """The features: the output of the linear layer, after ReLU."""
        return self.network.apply(params, space, observation, dtype)


def _pooled_apart(
    x: Float[Array, "height width channels"], window: int, pool: str
) -> Float[Array, "rows columns channels"]:
    """Pooling over windows that do not overlap."""
    # An initial value that is a Python float: only so does JAX know the reduction, and its derivative.
    start, reduce = (-jnp.inf, jax.lax.max) if pool == "max" else (0.0, jax.lax.add)
    sides = (window, window, 1)
    pooled: jax.Array = jax.lax.reduce_window(x, start, reduce, sides, sides, "VALID")
    return pooled if pool == "max" else pooled / window**2


def _pooled(x: Float[Array, "height width channels"]) -> Float[Array, "rows columns channels"]:
    """3 x 3 max pooling at stride 2, padded."""
    # The initial value must be a Python float: only so does JAX recognize max pooling, and differentiate it.
    pooled: jax.Array = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (3, 3, 1), (2, 2, 1), "SAME")
    return pooled


_: tuple[type[Encoder], ...] = (CNN, NatureCNN, ImpalaCNN, MinAtarCNN)
