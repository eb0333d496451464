"""The residual network of SimBa."""

import math
from dataclasses import field
from typing import Any

import jax
from jaxtyping import Array, Float

from policy_core.configs import static
from policy_core.configs.validation import check_at_least
from policy_core.contract import Key, Network
from policy_core.errors import ConfigError
from policy_core.networks.activations import ACTIVATIONS
from policy_core.networks.layers import MOST_LAYERS, Layer, check_names, init_linear, init_norm, linear, norm


@static
class ResidualMLP:
    """The residual network of SimBa (Lee et al. 2025).

    A linear layer, then blocks x + linear(f(linear(layer_norm(x)))), then a layer norm. It gains
    from depth where a plain MLP loses. Use it with normalized observations:
    `normalize=Normalize()`.

    Args:
        width: dimension of x.
        blocks: number of residual blocks.
        expansion: ratio of the hidden width of a block to `width`.
        activation: a name, see `register_activation`.
        kernel_init: "orthogonal", "lecun_orthogonal", "lecun_normal", "lecun_uniform", or registered.
        gain: factor of the initial kernels of layers followed by the activation; 1 for the
            others. Biases start at zero.

    Raises:
        ConfigError: for an unknown name, a number below 1, or more than 100 blocks.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> from policy_core import ResidualMLP
        >>> torso = ResidualMLP(32)
        >>> params = torso.init(4, key=jax.random.key(0), dtype="float32")
        >>> torso.apply(params, jnp.ones(4)).shape, params["block_1"]["up"]["kernel"].shape
        ((32,), (32, 128))
    """

    width: int = field(default=128, kw_only=False)
    blocks: int = 2
    expansion: int = 4
    activation: str = "relu"
    kernel_init: str = "orthogonal"
    gain: float = math.sqrt(2)

    def __post_init__(self) -> None:
        check_at_least(self, 1, "width", "blocks", "expansion")
        if self.blocks > MOST_LAYERS:
            raise ConfigError(f"ResidualMLP.blocks: got {self.blocks}, expected at most {MOST_LAYERS}")
        check_names(self)

    def init(self, in_size: int, *, key: Key, dtype: str) -> dict[str, Any]:
        """Fresh params: `input`, `block_0`, ... (each `norm`, `up`, `down`), `norm`; `key` is consumed."""
        inner = self.expansion * self.width
        input_key, *keys = jax.random.split(key, 1 + 2 * self.blocks)

        def layer(key: Key, sizes: tuple[int, int], gain: float) -> Layer:
            return init_linear(*sizes, key=key, dtype=dtype, gain=gain, kernel_init=self.kernel_init)

        params: dict[str, Any] = {"input": layer(input_key, (in_size, self.width), 1.0)}
        for i in range(self.blocks):
            up_key, down_key = keys[2 * i : 2 * i + 2]
            params[f"block_{i}"] = {
                "norm": init_norm(self.width, dtype),
                "up": layer(up_key, (self.width, inner), self.gain),
                "down": layer(down_key, (inner, self.width), 1.0),
            }
        return {**params, "norm": init_norm(self.width, dtype)}

    def out_size(self, in_size: int) -> int:
        """`width`."""
        return self.width

    def apply(self, params: dict[str, Any], x: Float[Array, " inputs"]) -> Float[Array, " outputs"]:
        """The output of the last block, after a layer norm."""
        activation = ACTIVATIONS.find(self.activation)
        x = linear(params["input"], x)
        for i in range(self.blocks):
            block = params[f"block_{i}"]
            y = activation(linear(block["up"], norm(block["norm"], x)))
            x = x + linear(block["down"], y)
        return norm(params["norm"], x)


_: type[Network] = ResidualMLP
