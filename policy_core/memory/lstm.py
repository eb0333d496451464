"""Long short-term memory."""

from dataclasses import field
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from policy_core.configs import static
from policy_core.configs.validation import check_at_least
from policy_core.contract import Key, Memory
from policy_core.memory.gates import apply_map, first_state, init_maps
from policy_core.memory.scan import scan_steps
from policy_core.networks.layers import normalized

State = dict[str, Float[Array, " size"]]


@static
class LSTM:
    """Long short-term memory (Hochreiter & Schmidhuber 1997) with a forget gate (Gers et al. 2000).

    i, f, o = sigmoid(W x + U h + b), g = tanh(W x + U h + b), c' = f * c + i * g,
    h' = o * tanh(c'). Weights of torch and flax can be converted: kernels are
    `[inputs, 4 * size]` in the order i, f, g, o, and there is one bias; torch has two: add them.

    Args:
        size: dimension of the cell state and the output.
        layer_norm: whether W x and U h, each gate by itself, and c' are normalized, with
            learned scales (Ba et al. 2016, who normalize the four gates together).
        learned_start: whether the state at the start of an episode is learned; else zeros.

    The bias of the forget gate starts at 1 (Jozefowicz et al. 2015), the others at 0.

    Raises:
        ConfigError: for a size below 1.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> from policy_core import LSTM
        >>> lstm = LSTM(8)
        >>> params = lstm.init(3, key=jax.random.key(0), dtype="float32")
        >>> state, y = lstm.step(params, lstm.initial_state(params), jnp.ones(3))
        >>> sorted(state), y.shape
        (['cell', 'hidden'], (8,))
    """

    size: int = field(kw_only=False)
    layer_norm: bool = False
    learned_start: bool = False

    def __post_init__(self) -> None:
        check_at_least(self, 1, "size")

    def init(self, in_size: int, *, key: Key, dtype: str) -> dict[str, Any]:
        """Fresh params: `input`, `recurrent`, `cell` (layer norm), `start` if learned. `key` is consumed."""
        params: dict[str, Any] = init_maps(
            in_size, self.size, 4, key=key, dtype=dtype, layer_norm=self.layer_norm
        )
        zeros = jnp.zeros(self.size, dtype)
        params["input"]["bias"] = jnp.concatenate([zeros, zeros + jnp.ones((), dtype), zeros, zeros])
        if self.layer_norm:
            params["cell"] = {"scale": jnp.ones(self.size, dtype), "bias": zeros}
        if self.learned_start:
            params["start"] = jnp.zeros((2, self.size), dtype)
        return params

    def out_size(self, in_size: int) -> int:
        """`size`."""
        return self.size

    def initial_state(self, params: dict[str, Any]) -> State:
        """`cell` and `hidden`: zeros, or the learned initial state."""
        cell, hidden = first_state(
            params, self.learned_start, (2, self.size), params["input"]["kernel"].dtype
        )
        return {"cell": cell, "hidden": hidden}

    def step(
        self, params: dict[str, Any], state: State, x: Float[Array, " inputs"]
    ) -> tuple[State, Float[Array, " size"]]:
        """One step: the next state, whose hidden part is also the output."""
        cell, hidden = state["cell"], state["hidden"]
        dtype = cell.dtype
        from_input = apply_map(params["input"], x, 4, dtype, self.layer_norm)
        from_state = apply_map(params["recurrent"], hidden.astype(x.dtype), 4, dtype, self.layer_norm)
        i, f, g, o = jnp.split(from_input + from_state + params["input"]["bias"].astype(dtype), 4)
        cell = jax.nn.sigmoid(f) * cell + jax.nn.sigmoid(i) * jnp.tanh(g)
        normed = cell
        if self.layer_norm:
            scale, bias = (params["cell"][name].astype(dtype) for name in ("scale", "bias"))
            normed = normalized(cell) * scale + bias
        hidden = jax.nn.sigmoid(o) * jnp.tanh(normed)
        return {"cell": cell, "hidden": hidden}, hidden.astype(x.dtype)

    def sequence(
        self, params: Any, state: State, xs: Float[Array, "time inputs"], is_first: Bool[Array, " time"]
    ) -> tuple[State, Float[Array, "time size"]]:
        """A scan of steps."""
        return scan_steps(self, params, state, xs, is_first)


_: type[Memory] = LSTM
