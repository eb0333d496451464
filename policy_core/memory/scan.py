"""`sequence` of any memory as a `jax.lax.scan` of its steps."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from policy_core.contract import Memory
from policy_core.trees import varying_as

_PIECES = 4


def scan_steps(
    memory: Memory, params: Any, state: Any, xs: Float[Array, "time inputs"], is_first: Bool[Array, " time"]
) -> tuple[Any, Float[Array, "time outputs"]]:
    """`sequence` of a memory, as a `jax.lax.scan` of its steps.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
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
    pieces = [_split(leaf) for leaf in leaves]
    inputs = (params, state, xs, is_first)

    def step(state: Any, step_inputs: Any) -> tuple[Any, Float[Array, " outputs"]]:
        x, first = step_inputs
        params = jax.tree.unflatten(structure, [_joined(parts) for parts in pieces])
        state, y = memory.step(params, reset_where(first, initial, state), x)
        return varying_as(state, *inputs), y

    state, ys = jax.lax.scan(step, varying_as(state, *inputs), (xs, is_first))
    return state, ys


def _split(leaf: Array) -> list[Array]:
    """A matrix split into blocks of columns, whose gradients accumulate faster.

    The gradient of a kernel is summed over the steps of the scan. Blocks that fit into the
    cache make the sum faster: a fifth less time for a whole gradient, on CPUs (docs/design.md).
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
