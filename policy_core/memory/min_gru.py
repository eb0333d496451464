"""The minimal gated recurrent unit: a gated linear recurrence, sequential or as a parallel scan."""

from dataclasses import field
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from policy_core.configs import static
from policy_core.configs.validation import check_at_least
from policy_core.contract import Key, Memory
from policy_core.errors import ConfigError
from policy_core.memory.gates import first_state
from policy_core.memory.scan import scan_steps
from policy_core.networks.layers import init_linear

State: TypeAlias = Float[Array, " size"]


@static
class MinGRU:
    """A minimal gated recurrent unit (Feng et al. 2024, section 3.1): linear in its state.

    z = sigmoid(W x + b), h' = (1 - z) * h + z * (V x + c). Gate and candidate do not depend on
    the state, so a sequence can be computed in parallel: on GPUs and TPUs it is one associative
    scan of pairs (a, b) that represent h -> a h + b (Blelloch 1990), where a reset is a pair
    with a = 0 (Lu et al. 2023). Every a is between 0 and 1, so no product overflows and float32
    is accurate; the log-space scan of the paper, which also needs positive candidates, is not
    used.

    Args:
        size: dimension of the state and the output.
        horizon: the longest time scale, in steps, of a fresh unit; the biases b
            start at -log(u), u uniform from 1 to horizon - 1 (Tallec & Ollivier 2018).
        learned_start: whether the state at the start of an episode is learned; else zeros.

    Raises:
        ConfigError: for a size below 1 or a horizon below 2.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> from policy_core import MinGRU
        >>> memory = MinGRU(8)
        >>> params = memory.init(3, key=jax.random.key(0), dtype="float32")
        >>> is_first = jnp.array([False, False, True, False])
        >>> _, ys = memory.sequence(params, memory.initial_state(params), jnp.ones((4, 3)), is_first)
        >>> bool(jnp.allclose(ys[2:], ys[:2]))
        True
    """

    size: int = field(kw_only=False)
    horizon: float = 100.0
    learned_start: bool = False

    def __post_init__(self) -> None:
        check_at_least(self, 1, "size")
        if not 2 <= self.horizon < float("inf"):
            raise ConfigError(f"MinGRU.horizon: got {self.horizon}, expected a number of at least 2")

    def init(self, in_size: int, *, key: Key, dtype: str) -> dict[str, Any]:
        """Fresh params: a `linear` layer to gates and candidates, `start` if learned. `key` is consumed."""
        key, bias_key = jax.random.split(key)
        linear = init_linear(
            in_size, 2 * self.size, key=key, dtype=dtype, gain=1.0, kernel_init="lecun_normal"
        )
        times = jax.random.uniform(bias_key, (self.size,), jnp.float32, 1.0, self.horizon - 1)
        bias = linear["bias"].at[: self.size].set(-jnp.log(times).astype(dtype))
        params: dict[str, Any] = {"linear": {**linear, "bias": bias}}
        if self.learned_start:
            params["start"] = jnp.zeros(self.size, dtype)
        return params

    def out_size(self, in_size: int) -> int:
        """`size`."""
        return self.size

    def initial_state(self, params: dict[str, Any]) -> State:
        """Zeros, or the learned initial state."""
        return first_state(params, self.learned_start, (self.size,), params["linear"]["kernel"].dtype)

    def step(self, params: dict[str, Any], state: State, x: Float[Array, " inputs"]) -> tuple[State, State]:
        """One step: the next state, which is also the output."""
        z, candidate = _gate_and_candidate(params, x, state.dtype)
        state = (1 - z) * state + z * candidate
        return state, state.astype(x.dtype)

    def sequence(
        self, params: Any, state: State, xs: Float[Array, "time inputs"], is_first: Bool[Array, " time"]
    ) -> tuple[State, Float[Array, "time size"]]:
        """A sequential scan on CPUs, where it is faster, or for a symbolic time; else an associative one."""

        def sequential_scan(params: Any, state: Any, xs: Any, is_first: Any) -> Any:
            return scan_steps(self, params, state, xs, is_first)

        arguments = (params, state, xs, is_first)
        if jax.export.is_symbolic_dim(xs.shape[0]):
            return scan_steps(self, *arguments)
        state, ys = jax.lax.platform_dependent(*arguments, cpu=sequential_scan, default=self.parallel_scan)
        return state, ys

    def parallel_scan(
        self, params: Any, state: State, xs: Float[Array, "time inputs"], is_first: Bool[Array, " time"]
    ) -> tuple[State, Float[Array, "time size"]]:
        """`sequence` as an associative scan, on any platform."""
        z, candidates = _gate_and_candidate(params, xs, state.dtype)
        first = is_first[:, None]
        start = self.initial_state(params).astype(state.dtype)[None]
        a = jnp.where(first, 0, 1 - z)
        b = z * candidates + jnp.where(first, (1 - z) * start, 0)

        def compose(left: Any, right: Any) -> Any:
            return left[0] * right[0], left[1] * right[0] + right[1]

        # With the initial state in b[0], the b of the t-th prefix is the state after step t.
        b = b.at[0].add(a[0] * state)
        _, states = jax.lax.associative_scan(compose, (a, b))
        return states[-1], states.astype(xs.dtype)


def _gate_and_candidate(
    params: dict[str, Any], x: Float[Array, "*time inputs"], dtype: Any
) -> tuple[Float[Array, "*time size"], Float[Array, "*time size"]]:
    """Gate z and candidate V x + c, in `dtype`; the matrix product is in the dtype of `x`."""
    kernel, bias = params["linear"]["kernel"], params["linear"]["bias"]
    y = jnp.matmul(x, kernel.astype(x.dtype)).astype(dtype)
    gate, candidate = jnp.split(y + jnp.broadcast_to(bias.astype(dtype), y.shape), 2, -1)
    return jax.nn.sigmoid(gate), candidate


_: type[Memory] = MinGRU
