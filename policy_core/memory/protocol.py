"""What a memory offers, and the sequence form that every memory can have."""

from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from policy_core.contract import Key

_PIECES = 4


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
    leaves, structure = jax.tree.flatten(params)
    pieces = [_cut(leaf) for leaf in leaves]

    def step(state: Any, inputs: Any) -> tuple[Any, Float[Array, " outputs"]]:
        x, first = inputs
        whole = jax.tree.unflatten(structure, [_joined(parts) for parts in pieces])
        return memory.step(whole, reset_where(first, initial, state), x)

    state, ys = jax.lax.scan(step, state, (xs, is_first))
    return state, ys


def _cut(leaf: Array) -> list[Array]:
    """A wide matrix in pieces.

    The gradient of a kernel is summed over the steps of the scan. In pieces that stay in a
    cache the sum takes less time: a fifth less for a whole gradient, on CPUs (docs/design.md).
    """
    if jnp.ndim(leaf) != 2 or leaf.shape[1] % _PIECES:
        return [leaf]
    return jnp.split(leaf, _PIECES, 1)


def _joined(pieces: list[Array]) -> Array:
    return pieces[0] if len(pieces) == 1 else jnp.concatenate(pieces, 1)


def reset_where(is_first: Bool[Array, ""], initial: Any, state: Any) -> Any:
    """`initial`, in the dtypes of `state`, if `is_first`; else `state`."""

    def select(initial: Array, old: Array) -> Array:
        return jnp.where(is_first, initial.astype(old.dtype), old)

    return jax.tree.map(select, initial, state)
