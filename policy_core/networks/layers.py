"""Linear layers and layer norm: `init` and `apply` over plain dicts of arrays."""

import math
from contextvars import ContextVar
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from policy_core._dtypes import widen
from policy_core.contract import Key
from policy_core.errors import ConfigError
from policy_core.networks.activations import ACTIVATIONS
from policy_core.networks.initializers import INITIALIZERS

Layer: TypeAlias = dict[str, Float[Array, "..."]]

MOST_LAYERS = 100  # bounds the tracing time of a network whose config is read from a file
EPSILON = 1e-5  # added to the variance of a layer norm
# How many layers may still be made: `init` of what has more raises ConfigError at the first one too many.
LEFT: ContextVar[float] = ContextVar("LEFT", default=math.inf)


def count_layer() -> None:
    """Count a layer that is about to be made, of at least one leaf; see `LEFT`."""
    if (left := LEFT.get()) <= 0:
        raise ConfigError("there are more of them than the file has leaves")
    LEFT.set(left - 1)


def init_linear(
    in_size: int,
    out_size: int,
    *,
    key: Key,
    dtype: str,
    gain: float,
    kernel_init: str = "orthogonal",
    bias: bool = True,
) -> Layer:
    """Params of a linear layer: a kernel `[inputs, outputs]` scaled by `gain`, a bias of zeros."""
    count_layer()
    kernel = INITIALIZERS.find(kernel_init)(key, (in_size, out_size))
    kind = jnp.result_type(kernel, gain)
    if not abs(gain) <= jnp.finfo(kind).max:
        raise ConfigError(f"gain: got {gain}, more than {kind} can hold")
    # lax, not jnp: a jnp product is traced again for every shape, which doubles the tracing time.
    kernel = jax.lax.mul(jax.lax.convert_element_type(kernel, kind), kind.type(gain))
    layer = {"kernel": kernel.astype(dtype)}
    return {**layer, "bias": jnp.zeros(out_size, dtype)} if bias else layer


def linear(layer: Layer, x: Float[Array, " inputs"]) -> Float[Array, " outputs"]:
    """`x @ kernel + bias`, in the dtype of `x`."""
    y = jnp.matmul(x, layer["kernel"].astype(x.dtype))
    return y + layer["bias"].astype(x.dtype) if "bias" in layer else y


def init_norm(size: int, dtype: str) -> Layer:
    """Params of a layer norm: a scale of ones and a bias of zeros."""
    return {"scale": jnp.ones(size, dtype), "bias": jnp.zeros(size, dtype)}


def normalized(x: Float[Array, " size"], epsilon: float = EPSILON) -> Float[Array, " size"]:
    """`x` normalized to mean 0 and variance 1 (Ba et al. 2016)."""
    centered = x - jnp.mean(x)
    return centered * jax.lax.rsqrt(jnp.mean(jnp.square(centered)) + epsilon)


def norm(layer: Layer, x: Float[Array, " size"], epsilon: float = EPSILON) -> Float[Array, " size"]:
    """Layer norm, computed in float32 or wider and returned in the dtype of `x`."""
    wide = widen(x)
    scale, bias = (layer[name].astype(wide.dtype) for name in ("scale", "bias"))
    return (normalized(wide, epsilon) * scale + bias).astype(x.dtype)


def check_epsilon(config: Any) -> None:
    """Raise `ConfigError` unless the field `epsilon` is positive and finite."""
    if not 0 < config.epsilon < math.inf:
        raise ConfigError(
            f"{type(config).__name__}.epsilon: got {config.epsilon}, expected a positive number"
        )


def check_names(network: Any) -> None:
    """Raise `ConfigError` unless the activation and the initializer of a network are registered."""
    name = type(network).__name__
    ACTIVATIONS.find(network.activation, f"{name}.activation: ")
    INITIALIZERS.find(network.kernel_init, f"{name}.kernel_init: ")
