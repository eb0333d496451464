"""Networks: pure `init` and `apply` over plain dicts of arrays; functions by name.

A network is a static config with `init(in_size, key=..., dtype=...)` and
`apply(params, x)`. It computes in the dtype of its input, whatever that of its params.
"""

import math
from collections.abc import Callable
from dataclasses import field
from typing import Any, Protocol, TypeAlias, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from policy_core._drawn import drawn
from policy_core._dtypes import widen
from policy_core._registry import add, find
from policy_core._static import later, static
from policy_core.contract import Key
from policy_core.errors import ConfigError

Activation: TypeAlias = Callable[[Float[Array, "..."]], Float[Array, "..."]]
Initializer: TypeAlias = Callable[[Key, tuple[int, int]], Float[Array, "inputs outputs"]]
Layer: TypeAlias = dict[str, Float[Array, "..."]]

_MOST_LAYERS = 100  # each is traced by itself, and a file may ask for any number of them
_EPSILON = 1e-5  # of a layer norm
_HIGHEST = jax.lax.Precision.HIGHEST  # else TPUs and Ampere GPUs multiply in 8 to 11 bits


@runtime_checkable
class Network(Protocol):
    """What a network config offers; write your own with `@policy_core.static`."""

    def init(self, in_size: int, *, key: Key, dtype: str) -> Any:
        """Fresh params, in `dtype`, for inputs of `in_size` numbers. `key` is consumed."""
        ...

    def out_size(self, in_size: int) -> int:
        """How many numbers `apply` gives."""
        ...

    def apply(self, params: Any, x: Float[Array, " inputs"]) -> Float[Array, " outputs"]:
        """The features of one input, in the dtype of `x`."""
        ...


@drawn
def orthogonal(key: Key, shape: tuple[int, int]) -> Float[Array, "inputs outputs"]:
    """A random matrix with orthonormal columns (or rows, if there are fewer), float32.

    Uniform over such matrices (Haar), as the Q of a QR decomposition of a normal matrix
    with positive diagonal R (Saxe et al. 2014, Mezzadri 2007). It is computed by classical
    Gram-Schmidt, twice a column, which is as orthogonal as Householder (Giraud et al.
    2005), in plain products: batched QR calls can block each other for ever on a machine
    of two cores (jax 0.10), so nothing that may be vmapped should contain one.

    Args:
        key: consumed.
        shape: (inputs, outputs).

    Example:
        >>> q = orthogonal(jax.random.key(0), (8, 3))
        >>> bool(jnp.allclose(q.T @ q, jnp.eye(3), atol=1e-6))
        True
    """
    tall = (max(shape), min(shape))
    normal = jax.random.normal(key, tall, jnp.float32)

    def add_column(j: Any, q: Float[Array, "rows columns"]) -> Float[Array, "rows columns"]:
        v = normal[:, j]
        for _ in range(2):
            v = v - jnp.matmul(q, jnp.matmul(v, q, precision=_HIGHEST), precision=_HIGHEST)
        return q.at[:, j].set(v / jnp.linalg.norm(v))

    q: jax.Array = jax.lax.fori_loop(0, tall[1], add_column, jnp.zeros_like(normal))
    return q if shape == tall else q.T


@drawn
def _scaled_normal(key: Key, shape: tuple[int, int]) -> Float[Array, "inputs outputs"]:
    return jax.random.normal(key, shape, jnp.float32) / math.sqrt(shape[0])


@drawn
def _scaled_uniform(key: Key, shape: tuple[int, int]) -> Float[Array, "inputs outputs"]:
    bound = math.sqrt(3 / shape[0])
    return jax.random.uniform(key, shape, jnp.float32, -bound, bound)


_ACTIVATIONS: dict[str, Activation] = {
    "elu": jax.nn.elu,
    "gelu": jax.nn.gelu,
    "identity": lambda x: x,
    "leaky_relu": jax.nn.leaky_relu,
    "relu": jax.nn.relu,
    "selu": jax.nn.selu,
    "sigmoid": jax.nn.sigmoid,
    "silu": jax.nn.silu,
    "softplus": jax.nn.softplus,
    "tanh": jnp.tanh,
}
_INITIALIZERS: dict[str, Initializer] = {
    "lecun_normal": _scaled_normal,
    "lecun_uniform": _scaled_uniform,
    "orthogonal": orthogonal,
}


def register_activation(name: str, function: Activation) -> None:
    """Make a function available as `MLP(activation=name)`.

    The name is what the config, its fingerprint and files hold; register the same function
    under it wherever they are used.

    Raises:
        ConfigError: if the name is taken by another function.

    Example:
        >>> from policy_core import MLP, register_activation
        >>> def squared_relu(x):
        ...     return jnp.square(jax.nn.relu(x))
        >>> register_activation("squared_relu", squared_relu)
        >>> MLP((64,), activation="squared_relu").activation
        'squared_relu'
    """
    add(_ACTIVATIONS, name, function, "activation")


def register_initializer(name: str, function: Initializer) -> None:
    """Make a function `(key, (inputs, outputs)) -> kernel` available as `kernel_init=name`.

    Raises:
        ConfigError: if the name is taken by another function.

    Example:
        >>> from policy_core import MLP, register_initializer
        >>> def small(key, shape):
        ...     return 0.01 * jax.random.normal(key, shape)
        >>> register_initializer("small", small)
        >>> MLP((64,), kernel_init="small").kernel_init
        'small'
    """
    add(_INITIALIZERS, name, function, "initializer")


def activation(name: str) -> Activation:
    """The activation registered under a name."""
    function: Activation = find(_ACTIVATIONS, name, "activation")
    return function


def init_linear(
    in_size: int, out_size: int, *, key: Key, dtype: str, gain: float, kernel_init: str = "orthogonal"
) -> Layer:
    """Kernel `[inputs, outputs]`, times `gain`, and a bias of zeros. `key` is consumed."""
    kernel = find(_INITIALIZERS, kernel_init, "initializer")(key, (in_size, out_size))
    kind = jnp.result_type(kernel, gain)
    # By lax: jnp traces a product anew for every shape, which takes as long as all the rest.
    kernel = jax.lax.mul(jax.lax.convert_element_type(kernel, kind), kind.type(gain))
    return {"kernel": kernel.astype(dtype), "bias": jnp.zeros(out_size, dtype)}


def linear(layer: Layer, x: Float[Array, " inputs"]) -> Float[Array, " outputs"]:
    """`x @ kernel + bias`, in the dtype of `x`."""
    return jnp.matmul(x, layer["kernel"].astype(x.dtype)) + layer["bias"].astype(x.dtype)


def init_norm(size: int, dtype: str) -> Layer:
    """A scale of ones and a bias of zeros."""
    return {"scale": jnp.ones(size, dtype), "bias": jnp.zeros(size, dtype)}


def normalised(x: Float[Array, " size"]) -> Float[Array, " size"]:
    """Mean 0, variance 1 (Ba et al. 2016)."""
    centred = x - jnp.mean(x)
    return centred * jax.lax.rsqrt(jnp.mean(jnp.square(centred)) + _EPSILON)


def norm(layer: Layer, x: Float[Array, " size"]) -> Float[Array, " size"]:
    """Layer norm, computed in float32 or wider and given in the dtype of `x`."""
    wide = widen(x)
    return (normalised(wide) * layer["scale"].astype(wide.dtype) + layer["bias"].astype(wide.dtype)).astype(
        x.dtype
    )


@static
class MLP:
    """A multi-layer perceptron whose every layer is linear, perhaps normalised, then activated.

    Args:
        hidden: the width of each layer; `()` for none.
        activation: a name, see `register_activation`.
        kernel_init: "orthogonal", "lecun_normal", "lecun_uniform", or registered.
        gain: factor of the initial kernels; sqrt(2) by default, as in Andrychowicz et al.
            2021 and Huang et al. 2022. Biases start at zero.
        layer_norm: whether each layer is normalised before it is activated (Ba et al. 2016).

    Raises:
        ConfigError: for an unknown name, a width below 1, or more than 100 layers.

    Example:
        >>> from policy_core import MLP
        >>> torso = MLP((64, 32), activation="relu")
        >>> params = torso.init(4, key=jax.random.key(0), dtype="float32")
        >>> torso.apply(params, jnp.ones(4)).shape
        (32,)
    """

    hidden: tuple[int, ...] = field(default=(64, 64), kw_only=False)
    activation: str = "tanh"
    kernel_init: str = "orthogonal"
    gain: float = math.sqrt(2)
    layer_norm: bool = later(False)

    def __post_init__(self) -> None:
        if len(self.hidden) > _MOST_LAYERS:
            raise ConfigError(f"MLP.hidden: got {len(self.hidden)} layers, expected at most {_MOST_LAYERS}")
        if any(width < 1 for width in self.hidden):
            raise ConfigError(f"MLP.hidden: got {self.hidden}, expected widths of at least 1")
        _check_names(self)

    def init(self, in_size: int, *, key: Key, dtype: str) -> dict[str, Layer]:
        """Fresh layers `hidden_0`, `hidden_1`, ..., and perhaps `norm_0`, ...; `key` is consumed."""
        sizes = (in_size, *self.hidden)
        keys = jax.random.split(key, len(self.hidden))
        layers = {
            f"hidden_{i}": init_linear(
                sizes[i], sizes[i + 1], key=key, dtype=dtype, gain=self.gain, kernel_init=self.kernel_init
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
        """The activations of the last layer."""
        function = activation(self.activation)
        for i in range(len(self.hidden)):
            x = linear(params[f"hidden_{i}"], x)
            x = function(norm(params[f"norm_{i}"], x) if self.layer_norm else x)
        return x


@static
class ResidualMLP:
    """Blocks of x + linear(f(linear(layer_norm(x)))) after a linear layer, and a layer norm at the end.

    The residual network of SimBa (Lee et al. 2025), which goes on gaining where a plain
    MLP loses from depth. It is meant to see normalised observations: `normalize=Normalize()`.

    Args:
        width: of x.
        blocks: how many.
        expansion: the width within a block, in widths of x.
        activation: a name, see `register_activation`.
        kernel_init: "orthogonal", "lecun_normal", "lecun_uniform", or registered.
        gain: factor of the initial kernels of layers that are activated; those of the others
            have 1. Biases start at zero.

    Raises:
        ConfigError: for an unknown name, a number below 1, or more than 100 blocks.

    Example:
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
        for name in ("width", "blocks", "expansion"):
            if getattr(self, name) < 1:
                raise ConfigError(f"ResidualMLP.{name}: got {getattr(self, name)}, expected at least 1")
        if self.blocks > _MOST_LAYERS:
            raise ConfigError(f"ResidualMLP.blocks: got {self.blocks}, expected at most {_MOST_LAYERS}")
        _check_names(self)

    def init(self, in_size: int, *, key: Key, dtype: str) -> dict[str, Any]:
        """Layer `input`, then `block_0`, ... of `norm`, `up`, `down`, then `norm`; `key` is consumed."""
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
        del in_size
        return self.width

    def apply(self, params: dict[str, Any], x: Float[Array, " inputs"]) -> Float[Array, " outputs"]:
        """The normalised sum of all blocks."""
        function = activation(self.activation)
        x = linear(params["input"], x)
        for i in range(self.blocks):
            block = params[f"block_{i}"]
            y = function(linear(block["up"], norm(block["norm"], x)))
            x = x + linear(block["down"], y)
        return norm(params["norm"], x)


def _check_names(network: Any) -> None:
    name = type(network).__name__
    find(_ACTIVATIONS, network.activation, "activation", f"{name}.activation: ")
    find(_INITIALIZERS, network.kernel_init, "initializer", f"{name}.kernel_init: ")
