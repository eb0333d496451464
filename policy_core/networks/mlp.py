"""The multi-layer perceptron."""

import math
from dataclasses import field

import jax
from jaxtyping import Array, Float

from policy_core.configs import static
from policy_core.configs.validation import check_at_least
from policy_core.contract import Key, Network
from policy_core.errors import ConfigError
from policy_core.networks.activations import ACTIVATIONS
from policy_core.networks.layers import (
    EPSILON,
    MOST_LAYERS,
    Layer,
    check_epsilon,
    check_names,
    init_linear,
    init_norm,
    linear,
    norm,
)


@static
class MLP:
    """A multi-layer perceptron: linear layers, each followed by an activation, with optional layer norm.

    Args:
        hidden: the width of each layer; `()` for no layer.
        activation: a name, see `register_activation`.
        kernel_init: "lecun_orthogonal", "lecun_normal", "lecun_uniform" (LeCun et al. 1998), "orthogonal", or
            registered. The first is orthogonal with entries of variance 1 / inputs. Plain orthogonal ones, as
            in Huang et al. 2022, train worse on few inputs, normal ones on many: docs/results.md.
        gain: factor of the initial kernels. Biases start at zero.
        layer_norm: whether each layer is normalized before it is activated (Ba et al. 2016).
        epsilon: added to the variance of a layer norm.
        bias: whether the layers have biases.

    Raises:
        ConfigError: for an unknown name, a width below 1, or more than 100 layers.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> from policy_core import MLP
        >>> torso = MLP((64, 32), activation="relu")
        >>> params = torso.init(4, key=jax.random.key(0), dtype="float32")
        >>> torso.apply(params, jnp.ones(4)).shape
        (32,)
    """

    hidden: tuple[int, ...] = field(default=(64, 64), kw_only=False)
    activation: str = "tanh"
    kernel_init: str = "lecun_orthogonal"
    gain: float = math.sqrt(2)
    layer_norm: bool = False
    epsilon: float = EPSILON
    bias: bool = True

    def __post_init__(self) -> None:
        if len(self.hidden) > MOST_LAYERS:
            raise ConfigError(f"MLP.hidden: got {len(self.hidden)} layers, expected at most {MOST_LAYERS}")
        check_at_least(self, 1, "hidden", of="widths")
        check_names(self)
        check_epsilon(self)

    def init(self, in_size: int, *, key: Key, dtype: str) -> dict[str, Layer]:
        """Fresh params: `hidden_0`, ..., and with layer norm `norm_0`, ...; `key` is consumed."""
        sizes = (in_size, *self.hidden)
        keys = jax.random.split(key, len(self.hidden))
        layers = {
            f"hidden_{i}": init_linear(
                sizes[i],
                sizes[i + 1],
                key=key,
                dtype=dtype,
                gain=self.gain,
                kernel_init=self.kernel_init,
                bias=self.bias,
            )
            for i, key in enumerate(keys)
        }
        if self.layer_norm:
            layers |= {f"norm_{i}": init_norm(width, dtype) for i, width in enumerate(self.hidden)}
        return layers

    def out_size(self, in_size: int) -> int:
        """The width of the last layer; `in_size` if there is none."""
        return (in_size, *self.hidden)[-1]

    def apply(self, params: dict[str, Layer], x: Float[Array, " inputs"]) -> Float[Array, " outputs"]:
        """The output of the last layer, after its activation."""
        activation = ACTIVATIONS.find(self.activation)
        for i in range(len(self.hidden)):
            x = linear(params[f"hidden_{i}"], x)
            x = activation(norm(params[f"norm_{i}"], x, self.epsilon) if self.layer_norm else x)
        return x


_: type[Network] = MLP
