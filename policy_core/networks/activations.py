"""Activation functions by registered name."""

from collections.abc import Callable
from typing import TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from policy_core.configs.named import NamedFunctions

Activation: TypeAlias = Callable[[Float[Array, "..."]], Float[Array, "..."]]

ACTIVATIONS: NamedFunctions[Activation] = NamedFunctions(
    "activation",
    "policy_core.networks.register_activation",
    {
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
    },
)


def register_activation(name: str, function: Activation) -> None:
    """Register an activation function for use as `MLP(activation=name)`.

    A config, its fingerprint and its files contain only the name; register the same function
    under it wherever they are used.

    Raises:
        ConfigError: if the name is taken by another function.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> from policy_core import MLP
        >>> from policy_core.networks import register_activation
        >>> def squared_relu(x):
        ...     return jnp.square(jax.nn.relu(x))
        >>> register_activation("squared_relu", squared_relu)
        >>> MLP((64,), activation="squared_relu").activation
        'squared_relu'
    """
    ACTIVATIONS.add(name, function)
