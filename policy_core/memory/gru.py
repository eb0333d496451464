"""The gated recurrent unit."""

from dataclasses import field
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from policy_core.configs import static
from policy_core.configs.validation import check_at_least
from policy_core.contract import Key, Memory
from policy_core.memory.gates import apply_map, first_state, init_maps
from policy_core.memory.scan import scan_steps

State: TypeAlias = Float[Array, " size"]


@static
class GRU:
    """A gated recurrent unit (Cho et al. 2014), with the reset gate after the product.

    r, z = sigmoid(W x + U h + b), n = tanh(W x + b + r * (U h + c)), h' = (1 - z) * n + z * h,
    as in cuDNN, torch and flax, so that weights can be converted: kernels are
    `[inputs, 3 * size]` in the order r, z, n, the bias of the input is `[3 * size]`, that of
    the recurrent map is c, `[size]`. Torch has a second bias for r and z: add the two.

    Args:
        size: dimension of the state and the output.
        layer_norm: whether W x and U h are normalized, each gate by itself, with a learned
            scale (Ba et al. 2016, who normalize r and z together).
        learned_start: whether the state at the start of an episode is learned; else zeros.

    Raises:
        ConfigError: for a size below 1.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> from policy_core import GRU
        >>> gru = GRU(8)
        >>> params = gru.init(3, key=jax.random.key(0), dtype="float32")
        >>> state, y = gru.step(params, gru.initial_state(params), jnp.ones(3))
        >>> y.shape
        (8,)
    """

    size: int = field(kw_only=False)
    layer_norm: bool = False
    learned_start: bool = False

    def __post_init__(self) -> None:
        check_at_least(self, 1, "size")

    def init(self, in_size: int, *, key: Key, dtype: str) -> dict[str, Any]:
        """Fresh params: `input`, `recurrent`, and `start` if learned; biases are zeros. `key` is consumed."""
        params: dict[str, Any] = init_maps(
            in_size, self.size, 3, key=key, dtype=dtype, layer_norm=self.layer_norm
        )
        params["input"]["bias"] = jnp.zeros(3 * self.size, dtype)
        params["recurrent"]["bias"] = jnp.zeros(self.size, dtype)
        if self.learned_start:
            params["start"] = jnp.zeros(self.size, dtype)
        return params

    def out_size(self, in_size: int) -> int:
        """`size`."""
        return self.size

    def initial_state(self, params: dict[str, Any]) -> State:
        """Zeros, or the learned initial state."""
        return first_state(params, self.learned_start, (self.size,), params["input"]["kernel"].dtype)

    def step(self, params: dict[str, Any], state: State, x: Float[Array, " inputs"]) -> tuple[State, State]:
        """One step: the next state, which is also the output."""
        dtype = state.dtype
        from_input = apply_map(params["input"], x, 3, dtype, self.layer_norm)
        input_r, input_z, input_n = jnp.split(from_input + params["input"]["bias"].astype(dtype), 3)
        from_state = apply_map(params["recurrent"], state.astype(x.dtype), 3, dtype, self.layer_norm)
        state_r, state_z, state_n = jnp.split(from_state, 3)
        r = jax.nn.sigmoid(input_r + state_r)
        z = jax.nn.sigmoid(input_z + state_z)
        n = jnp.tanh(input_n + r * (state_n + params["recurrent"]["bias"].astype(dtype)))
        state = (1 - z) * n + z * state
        return state, state.astype(x.dtype)

    def sequence(
        self, params: Any, state: State, xs: Float[Array, "time inputs"], is_first: Bool[Array, " time"]
    ) -> tuple[State, Float[Array, "time size"]]:
        """A scan of steps; W x is computed inside of it, which is faster on CPUs (docs/design.md)."""
        return scan_steps(self, params, state, xs, is_first)


_: type[Memory] = GRU
