"""What a memory offers, and the sequence form that every memory can have."""

from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from policy_core.contract import Key


@runtime_checkable
class Memory(Protocol):
    """What a memory config offers; write your own with `@policy_core.static`.

    A state is a pytree of arrays. `step` keeps the dtypes of the state, whatever dtype it
    computes in (an `ActorCriticConfig` holds states in float32, or float64), and answers in
    the dtype of its input.
    """

    def init(self, in_size: int, *, key: Key, dtype: str) -> Any:
        """Fresh params, in `dtype`, for inputs of `in_size` numbers. `key` is consumed."""
        ...

    def out_size(self, in_size: int) -> int:
        """How many numbers a step gives."""
        ...

    def initial_state(self, params: Any) -> Any:
        """The state at the start of an episode."""
        ...

    def step(
        self, params: Any, state: Any, x: Float[Array, " inputs"]
    ) -> tuple[Any, Float[Array, " outputs"]]:
        """The next state, and the output at this step."""
        ...

    def sequence(
        self, params: Any, state: Any, xs: Float[Array, "time inputs"], is_first: Bool[Array, " time"]
    ) -> tuple[Any, Float[Array, "time outputs"]]:
        """As many steps; before step t the state is reset if `is_first[t]`.

        Returns:
            The state after the last step, and the outputs. `scan_steps` does for every memory.
        """
        ...


def scan_steps(
    memory: Memory, params: Any, state: Any, xs: Float[Array, "time inputs"], is_first: Bool[Array, " time"]
) -> tuple[Any, Float[Array, "time outputs"]]:
    """The sequence form of a memory, as a scan of its steps.

    Example:
        >>> from policy_core import GRU
        >>> from policy_core.memory import scan_steps
        >>> gru = GRU(8)
        >>> params = gru.init(3, key=jax.random.key(0), dtype="float32")
        >>> state = gru.initial_state(params)
        >>> state, ys = scan_steps(gru, params, state, jnp.ones((5, 3)), jnp.zeros(5, bool))
        >>> ys.shape
        (5, 8)
    """
    initial = memory.initial_state(params)

    def step(state: Any, inputs: Any) -> tuple[Any, Float[Array, " outputs"]]:
        x, first = inputs
        return memory.step(params, reset_where(first, initial, state), x)

    # Two steps a turn: the gradients of the kernels are summed half as often (docs/design.md).
    state, ys = jax.lax.scan(step, state, (xs, is_first), unroll=2)
    return state, ys


def reset_where(is_first: Bool[Array, ""], initial: Any, state: Any) -> Any:
    """`initial`, in the dtypes of `state`, if `is_first`; else `state`."""

    def select(initial: Array, old: Array) -> Array:
        return jnp.where(is_first, initial.astype(old.dtype), old)

    return jax.tree.map(select, initial, state)
