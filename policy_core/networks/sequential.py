"""Networks one after the other, and a layer norm as a network."""

from dataclasses import field
from typing import Any

import jax
from jaxtyping import Array, Float

from policy_core.configs import static
from policy_core.contract import Encoder, Key, Network
from policy_core.errors import ConfigError
from policy_core.networks.layers import (
    EPSILON,
    MOST_LAYERS,
    Layer,
    check_epsilon,
    count_layer,
    init_norm,
    norm,
)


@static
class LayerNorm:
    """A layer norm as a network, to be placed anywhere in a `Sequential` (Ba et al. 2016).

    Args:
        epsilon: added to the variance; 1e-5, as in PyTorch. Flax has 1e-6.

    Raises:
        ConfigError: unless `epsilon` is positive.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> from policy_core.networks import LayerNorm
        >>> params = LayerNorm().init(2, key=jax.random.key(0), dtype="float32")
        >>> LayerNorm(epsilon=1e-12).apply(params, jnp.array([1.0, 3.0])).tolist()
        [-1.0, 1.0]
    """

    epsilon: float = EPSILON

    def __post_init__(self) -> None:
        check_epsilon(self)

    def init(self, in_size: int, *, key: Key, dtype: str) -> Layer:
        """Fresh params: a scale of ones and a bias of zeros."""
        count_layer()
        return init_norm(in_size, dtype)

    def out_size(self, in_size: int) -> int:
        """`in_size`."""
        return in_size

    def apply(self, params: Layer, x: Float[Array, " inputs"]) -> Float[Array, " outputs"]:
        """The normalized vector."""
        return norm(params, x, self.epsilon)


@static
class Sequential:
    """Networks one after the other, such as an `MLP` for each activation, or a `LayerNorm` between two.

    Args:
        networks: the networks, first to last.

    Raises:
        ConfigError: for an encoder, or more than 100 networks.

    Example:
        >>> import jax
        >>> from policy_core import MLP
        >>> from policy_core.networks import LayerNorm, Sequential
        >>> torso = Sequential((MLP((32,), activation="elu"), LayerNorm(), MLP((8,), activation="identity")))
        >>> params = torso.init(4, key=jax.random.key(0), dtype="float32")
        >>> sorted(params), torso.out_size(4)
        (['network_0', 'network_1', 'network_2'], 8)
    """

    networks: tuple[Network, ...] = field(kw_only=False)

    def __post_init__(self) -> None:
        if len(self.networks) > MOST_LAYERS:
            raise ConfigError(
                f"Sequential.networks: got {len(self.networks)}, expected at most {MOST_LAYERS}"
            )
        for i, network in enumerate(self.networks):
            if isinstance(network, Encoder):
                name = type(network).__name__
                raise ConfigError(f"Sequential.networks[{i}]: got {name}, an encoder, expected a network")

    def init(self, in_size: int, *, key: Key, dtype: str) -> dict[str, Any]:
        """Fresh params: `network_0`, ...; `key` is consumed."""
        params = {}
        keys = jax.random.split(key, max(len(self.networks), 1))
        for i, network in enumerate(self.networks):
            params[f"network_{i}"] = network.init(in_size, key=keys[i], dtype=dtype)
            in_size = network.out_size(in_size)
        return params

    def out_size(self, in_size: int) -> int:
        """The output dimension of the last network."""
        for network in self.networks:
            in_size = network.out_size(in_size)
        return in_size

    def apply(self, params: dict[str, Any], x: Float[Array, " inputs"]) -> Float[Array, " outputs"]:
        """The output of the last network."""
        for i, network in enumerate(self.networks):
            x = network.apply(params[f"network_{i}"], x)
        return x


_: tuple[type[Network], ...] = (LayerNorm, Sequential)
