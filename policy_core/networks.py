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
from policy_core._registry import add, find
from policy_core._static import static
from policy_core.contract import Key
from policy_core.errors import ConfigError

Activation: TypeAlias = Callable[[Float[Array, "..."]], Float[Array, "..."]]
Initializer: TypeAlias = Callable[[Key, tuple[int, int]], Float[Array, "inputs outputs"]]
Layer: TypeAlias = dict[str, Float[Array, "..."]]

_MOST_LAYERS = 100  # each is traced by itself, and a file may ask for any number of them
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


@static
class MLP:
    """A multi-layer perceptron whose every layer is linear, then activated.

    Args:
        hidden: the width of each layer; `()` for none.
        activation: a name, see `register_activation`.
        kernel_init: "orthogonal", "lecun_normal", "lecun_uniform", or registered.
        gain: factor of the initial kernels; sqrt(2) by default, as in Andrychowicz et al.
            2021 and Huang et al. 2022. Biases start at zero.

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

    def __post_init__(self) -> None:
        if len(self.hidden) > _MOST_LAYERS:
            raise ConfigError(f"MLP.hidden: got {len(self.hidden)} layers, expected at most {_MOST_LAYERS}")
        if any(width < 1 for width in self.hidden):
            raise ConfigError(f"MLP.hidden: got {self.hidden}, expected widths of at least 1")
        find(_ACTIVATIONS, self.activation, "activation", "MLP.activation: ")
        find(_INITIALIZERS, self.kernel_init, "initializer", "MLP.kernel_init: ")

    def init(self, in_size: int, *, key: Key, dtype: str) -> dict[str, Layer]:
        """Fresh layers `hidden_0`, `hidden_1`, ...; `key` is consumed."""
        sizes = (in_size, *self.hidden)
        keys = jax.random.split(key, len(self.hidden))
        return {
            f"hidden_{i}": init_linear(
                sizes[i], sizes[i + 1], key=key, dtype=dtype, gain=self.gain, kernel_init=self.kernel_init
            )
            for i, key in enumerate(keys)
        }

    def out_size(self, in_size: int) -> int:
        """The width of the last layer; `in_size` if there is none."""
        return (in_size, *self.hidden)[-1]

    def apply(self, params: dict[str, Layer], x: Float[Array, " inputs"]) -> Float[Array, " outputs"]:
        """The activations of the last layer."""
        function = activation(self.activation)
        for i in range(len(self.hidden)):
            x = function(linear(params[f"hidden_{i}"], x))
        return x
