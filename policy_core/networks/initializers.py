"""Initializers of kernels by registered name."""

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from policy_core.configs.named import NamedFunctions
from policy_core.contract import Key
from policy_core.networks.primitive import drawn

Initializer: TypeAlias = Callable[[Key, tuple[int, int]], Float[Array, "inputs outputs"]]

_HIGHEST = jax.lax.Precision.HIGHEST  # otherwise TPUs and Ampere GPUs multiply with 8 to 11 bits


@drawn
def orthogonal(key: Key, shape: tuple[int, int]) -> Float[Array, "inputs outputs"]:
    """A random matrix with orthonormal columns (or rows, if there are fewer), float32.

    Uniform over such matrices (Haar), as the Q of a QR decomposition of a normal matrix
    with positive diagonal R (Saxe et al. 2014, Mezzadri 2007). It is computed by classical
    Gram-Schmidt, twice per column, which is as orthogonal as Householder (Giraud et al.
    2005), with matrix products only: batched QR calls can deadlock on a machine with two
    cores (jax 0.10), so code that may be vmapped should not call QR.

    Args:
        key: consumed.
        shape: (inputs, outputs).

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> from policy_core.networks.initializers import orthogonal
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
def lecun_orthogonal(key: Key, shape: tuple[int, int]) -> Float[Array, "inputs outputs"]:
    """An orthogonal matrix whose entries have the variance of `lecun_normal`, 1 / inputs, float32.

    It is `orthogonal`, times sqrt(outputs / inputs) where there are fewer inputs than outputs: there few
    inputs would hardly move the layer. `key` is consumed.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> from policy_core.networks.initializers import lecun_orthogonal
        >>> q = lecun_orthogonal(jax.random.key(0), (4, 64))
        >>> bool(jnp.allclose(q @ q.T, 16 * jnp.eye(4), atol=1e-5))
        True
    """
    inputs, outputs = shape
    return orthogonal(key, shape) * math.sqrt(max(1.0, outputs / inputs))


@drawn
def _scaled_normal(key: Key, shape: tuple[int, int]) -> Float[Array, "inputs outputs"]:
    return jax.random.normal(key, shape, jnp.float32) / math.sqrt(shape[0])


@drawn
def _scaled_uniform(key: Key, shape: tuple[int, int]) -> Float[Array, "inputs outputs"]:
    bound = math.sqrt(3 / shape[0])
    return jax.random.uniform(key, shape, jnp.float32, -bound, bound)


INITIALIZERS: NamedFunctions[Initializer] = NamedFunctions(
    "initializer",
    "policy_core.networks.register_initializer",
    {
        "lecun_normal": _scaled_normal,
        "lecun_uniform": _scaled_uniform,
        "lecun_orthogonal": lecun_orthogonal,
        "orthogonal": orthogonal,
    },
)


def register_initializer(name: str, function: Initializer) -> None:
    """Register an initializer `(key, (inputs, outputs)) -> kernel` for use as `kernel_init=name`.

    Raises:
        ConfigError: if the name is taken by another function.

    Example:
        >>> import jax
        >>> from policy_core import MLP
        >>> from policy_core.networks import register_initializer
        >>> def small(key, shape):
        ...     return 0.01 * jax.random.normal(key, shape)
        >>> register_initializer("small", small)
        >>> MLP((64,), kernel_init="small").kernel_init
        'small'
    """
    INITIALIZERS.add(name, function)
