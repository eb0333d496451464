"""Convolutional encoders of channel-last images; uint8 is divided by 255, floats are not rescaled.

Kernels are initialized orthogonal with gain sqrt(2), biases with zeros (Huang et al. 2022). Stacked
frames are channels.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Num

from policy_core.configs import static
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
from policy_core.networks.layers import MOST_LAYERS, Layer

_NATURE = ((32, 8, 4), (64, 4, 2), (64, 3, 1))  # filters, side, stride


@static
class NatureCNN:
    """The convolutional network of Mnih et al. 2015, for images of at least 36 x 36.

    Three convolutions without padding and a linear layer, each followed by ReLU: 32 filters of
    8 x 8 at stride 4, 64 of 4 x 4 at stride 2, 64 of 3 x 3 at stride 1.

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

    def check_space(self, space: Space, name: str = "observation_space") -> None:
        """Raise `ConfigError` unless `space` is an image of at least 36 x 36."""
        check_image(space, 36, "NatureCNN", name)

    def init(self, space: Any, *, key: Key, dtype: str) -> dict[str, Layer]:
        """Fresh params: `convolution_0`, `convolution_1`, `convolution_2`, `linear`; `key` is consumed."""
        height, width, channels = space.shape
        keys = jax.random.split(key, 4)
        params = {}
        for i, (filters, side, stride) in enumerate(_NATURE):
            params[f"convolution_{i}"] = init_convolution(channels, filters, side, key=keys[i], dtype=dtype)
            height, width, channels = (height - side) // stride + 1, (width - side) // stride + 1, filters
        params["linear"] = init_dense(height * width * channels, self.size, key=keys[3], dtype=dtype)
        return params

    def out_size(self, space: Space) -> int:
        """`size`."""
        return self.size

    def apply(self, params: Any, space: Space, observation: Num[Array, "..."], dtype: str) -> Features:
        """The features: the output of the linear layer, after ReLU."""
        x = pixels(observation, dtype)
        for i, (_, _, stride) in enumerate(_NATURE):
            x = jax.nn.relu(convolution(params[f"convolution_{i}"], x, stride, "VALID"))
        return dense(params["linear"], x)


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

    One 3 x 3 convolution without padding and a linear layer, each followed by ReLU.

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

    def check_space(self, space: Space, name: str = "observation_space") -> None:
        """Raise `ConfigError` unless `space` is an image of at least 3 x 3."""
        check_image(space, 3, "MinAtarCNN", name)

    def init(self, space: Any, *, key: Key, dtype: str) -> dict[str, Layer]:
        """Fresh params: `convolution` and `linear`; `key` is consumed."""
        height, width, channels = space.shape
        first, second = jax.random.split(key)
        features = (height - 2) * (width - 2) * self.filters
        return {
            "convolution": init_convolution(channels, self.filters, 3, key=first, dtype=dtype),
            "linear": init_dense(features, self.size, key=second, dtype=dtype),
        }

    def out_size(self, space: Space) -> int:
        """`size`."""
        return self.size

    def apply(self, params: Any, space: Space, observation: Num[Array, "..."], dtype: str) -> Features:
        """The features: the output of the linear layer, after ReLU."""
        x = jax.nn.relu(convolution(params["convolution"], pixels(observation, dtype), 1, "VALID"))
        return dense(params["linear"], x)


def _pooled(x: Float[Array, "height width channels"]) -> Float[Array, "rows columns channels"]:
    """3 x 3 max pooling at stride 2, padded."""
    # The initial value must be a Python float: only so does JAX recognize max pooling, and differentiate it.
    pooled: jax.Array = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (3, 3, 1), (2, 2, 1), "SAME")
    return pooled


_: tuple[type[Encoder], ...] = (NatureCNN, ImpalaCNN, MinAtarCNN)
