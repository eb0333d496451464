"""Stacked memories."""

from dataclasses import field
from typing import Any, Literal, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from policy_core.configs import added, static
from policy_core.contract import Key, Memory
from policy_core.errors import ConfigError
from policy_core.networks.layers import MOST_LAYERS

State: TypeAlias = tuple[Any, ...]


@static
class Stack:
    """Stacked memories: the input of a layer is the output of the layer before it.

    Args:
        layers: any memories, at least one; `(GRU(64),) * 2` for two equal layers.
        residual: whether, from the second layer on, the input of a layer is added to its
            output; both must have the same dimension (He et al. 2016).
        skip: "concat" for the output of the last layer followed by the input of the first, as with
            `concat_output` of rl_games: what is seen now reaches the tower around the memory.

    Raises:
        ConfigError: without a layer, or for more than 100; in `out_size` and `init`, for a residual layer
            whose input and output differ in dimension.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> from policy_core import GRU, MinGRU, Stack
        >>> memory = Stack((GRU(8), MinGRU(8)), residual=True)
        >>> params = memory.init(3, key=jax.random.key(0), dtype="float32")
        >>> state, y = memory.step(params, memory.initial_state(params), jnp.ones(3))
        >>> len(state), y.shape
        (2, (8,))
    """

    layers: tuple[Memory, ...] = field(kw_only=False)
    residual: bool = False
    skip: Literal["none", "concat"] = added("none")

    def __post_init__(self) -> None:
        if not self.layers:
            raise ConfigError("Stack.layers: got (), expected at least one memory")
        if len(self.layers) > MOST_LAYERS:
            raise ConfigError(f"Stack.layers: got {len(self.layers)}, expected at most {MOST_LAYERS}")

    def init(self, in_size: int, *, key: Key, dtype: str) -> dict[str, Any]:
        """Fresh params of `layer_0`, `layer_1`, ...; `key` is consumed."""
        keys = jax.random.split(key, len(self.layers))
        sizes = self._sizes(in_size)
        return {
            f"layer_{i}": layer.init(sizes[i], key=keys[i], dtype=dtype)
            for i, layer in enumerate(self.layers)
        }

    def out_size(self, in_size: int) -> int:
        """The output dimension of the last layer, and with a `skip` that of the input in addition."""
        return self._sizes(in_size)[-1] + (in_size if self.skip == "concat" else 0)

    def initial_state(self, params: dict[str, Any]) -> State:
        """The states of the layers."""
        return tuple(layer.initial_state(params[f"layer_{i}"]) for i, layer in enumerate(self.layers))

    def step(
        self, params: dict[str, Any], state: State, x: Float[Array, " inputs"]
    ) -> tuple[State, Float[Array, " outputs"]]:
        """One step of each layer."""
        states, start = [], x
        for i, layer in enumerate(self.layers):
            new, y = layer.step(params[f"layer_{i}"], state[i], x)
            states.append(new)
            x = x + y if self.residual and i else y
        return tuple(states), self._with(start, x)

    def sequence(
        self, params: Any, state: State, xs: Float[Array, "time inputs"], is_first: Bool[Array, " time"]
    ) -> tuple[State, Float[Array, "time outputs"]]:
        """`sequence` of each layer, one layer after the other."""
        states, start = [], xs
        for i, layer in enumerate(self.layers):
            new, ys = layer.sequence(params[f"layer_{i}"], state[i], xs, is_first)
            states.append(new)
            xs = xs + ys if self.residual and i else ys
        return tuple(states), self._with(start, xs)

    def _with(self, start: Float[Array, "..."], output: Float[Array, "..."]) -> Float[Array, "..."]:
        return jnp.concatenate([output, start], -1) if self.skip == "concat" else output

    def _sizes(self, in_size: int) -> list[int]:
        """The input dimension, then the output dimension of each layer."""
        sizes = [in_size]
        for i, layer in enumerate(self.layers):
            sizes.append(layer.out_size(sizes[-1]))
            if self.residual and i and sizes[-1] != sizes[-2]:
                raise ConfigError(
                    f"Stack.layers[{i}]: got output dimension {sizes[-1]} for input dimension {sizes[-2]}, "
                    "expected the same dimension; residual layers add the two"
                )
        return sizes


_: type[Memory] = Stack
