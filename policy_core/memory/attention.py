"""Sliding-window attention: a memory of fixed length."""

import math
from dataclasses import field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from policy_core._dtypes import wide_float
from policy_core.configs import static
from policy_core.configs.validation import check_at_least
from policy_core.contract import Key, Memory
from policy_core.errors import ConfigError
from policy_core.networks.layers import init_linear, init_norm, linear, norm

State = dict[str, Any]

_MOST_NUMBERS = 2**19  # of keys, and of values, in a state
_MASKED = -1e30  # a masked score: its weight is exactly 0; finite, so that no gradient is NaN


@static
class WindowAttention:
    """Attention to the current step and the `window - 1` steps before it, within the episode.

    The input is mapped to an embedding e of dimension `size`; queries, keys and values are
    linear in the layer norm of e (Vaswani et al. 2017, Xiong et al. 2020), and the output is e
    plus a linear map of the attention output. A score has a learned bias for each head and age,
    the number of steps since the key (Shaw et al. 2018, in the scalar form of Raffel et al.
    2020), so the output does not depend on when an episode began. The state is a ring buffer of
    keys and values and a count of steps. There is no learned initial state: at the start of an
    episode the only step to attend to is the current one.

    A sequence is computed in blocks of the length of the window, each of which attends to
    itself and the one before it (Beltagy et al. 2020): time times window, not time squared.

    Args:
        size: output dimension.
        window: number of steps attended to, the current one included.
        heads: number of attention heads, a divisor of `size`.

    Raises:
        ConfigError: for a size or window below 1, heads that do not divide the size, or a window times
            size beyond 2^19.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> from policy_core import WindowAttention
        >>> memory = WindowAttention(8, window=3, heads=2)
        >>> params = memory.init(5, key=jax.random.key(0), dtype="float32")
        >>> state, y = memory.step(params, memory.initial_state(params), jnp.ones(5))
        >>> y.shape, state["keys"].shape
        ((8,), (3, 8))
    """

    size: int = field(kw_only=False)
    window: int = 32
    heads: int = 4

    def __post_init__(self) -> None:
        check_at_least(self, 1, "size", "window")
        if self.heads < 1 or self.size % self.heads:
            raise ConfigError(
                f"WindowAttention.heads: got {self.heads}, expected a divisor of the size {self.size}"
            )
        if self.window * self.size > _MOST_NUMBERS:
            raise ConfigError(f"WindowAttention.window: more than {_MOST_NUMBERS} numbers, times the size")

    def init(self, in_size: int, *, key: Key, dtype: str) -> dict[str, Any]:
        """Fresh params: `embedding`, `norm`, `attended` (queries, keys, values), `ages`, `output`.

        `ages` are the biases of the scores, `[heads, window]`, zeros. `key` is consumed.
        """
        keys = jax.random.split(key, 3)

        def layer(key: Key, inputs: int, outputs: int) -> Any:
            return init_linear(inputs, outputs, key=key, dtype=dtype, gain=1.0, kernel_init="lecun_normal")

        return {
            "embedding": layer(keys[0], in_size, self.size),
            "norm": init_norm(self.size, dtype),
            "attended": layer(keys[1], self.size, 3 * self.size),
            "ages": jnp.zeros((self.heads, self.window), dtype),
            "output": layer(keys[2], self.size, self.size),
        }

    def out_size(self, in_size: int) -> int:
        """`size`."""
        return self.size

    def initial_state(self, params: dict[str, Any]) -> State:
        """An empty ring buffer: `count` 0, `keys` and `values` zeros."""
        # One array each: one that occurs twice cannot be donated.
        keys, values = (
            jnp.zeros((self.window, self.size), wide_float(params["ages"].dtype)) for _ in range(2)
        )
        return {"keys": keys, "values": values, "count": jnp.zeros((), jnp.int32)}

    def step(
        self, params: dict[str, Any], state: State, x: Float[Array, " inputs"]
    ) -> tuple[State, Float[Array, " size"]]:
        """One step: write the current key and value into the ring buffer, then attend to it."""
        e, query, key, value = self._project(params, x, state["keys"].dtype)
        count = state["count"]
        # Slot i holds the latest step t <= count with t = i modulo window, so its age is (count - i)
        # modulo window; it has been written in this episode if and only if age <= count.
        age = jnp.mod(count - jnp.arange(self.window, dtype=jnp.int32), self.window)
        now = (age == 0)[:, None]
        keys = jnp.where(now, key[None], state["keys"])
        values = jnp.where(now, value[None], state["values"])
        # Plus zero times the count: over an explicit mesh JAX indexes only what is sharded as the index is.
        ages = params["ages"].astype(keys.dtype) + (0 * count).astype(keys.dtype)
        bias = ages[:, age]
        output = self._attend(query[None], keys, values, bias[:, None], (age <= count)[None])
        state = {"keys": keys, "values": values, "count": self._canonical(count + 1)}
        return state, e + linear(params["output"], output[0].astype(x.dtype))

    def sequence(
        self, params: Any, state: State, xs: Float[Array, "time inputs"], is_first: Bool[Array, " time"]
    ) -> tuple[State, Float[Array, "time size"]]:
        """All steps in parallel, in blocks of the length of the window."""
        time, window, count = xs.shape[0], self.window, state["count"]
        e, queries, keys, values = jax.vmap(lambda x: self._project(params, x, state["keys"].dtype))(xs)
        # The ring buffer in order of time, then the new steps. Invariant: query t attends to key s if and
        # only if 0 <= t - s < window and both are of the same episode. These are the keys that are
        # in the ring buffer when `step` attends to it, so both forms agree.
        keys, values = (
            jnp.concatenate([jnp.roll(buffer, -count, 0), new])
            for buffer, new in ((state["keys"], keys), (state["values"], values))
        )
        # Episode 0 is that of the state, and -1 marks slots that were not written in it.
        episode = jnp.cumsum(is_first.astype(jnp.int32))
        written = jnp.arange(window, 0, -1, dtype=jnp.int32) <= count
        episodes = jnp.concatenate([jnp.where(written, 0, -1), episode])

        # A block of at most `window` queries reaches back at most to the start of the block before.
        length = window if jax.export.is_symbolic_dim(time) else min(window, time)
        age = (window + np.arange(length)[:, None]) - np.arange(window + length)  # [query, key]
        bias = params["ages"].astype(keys.dtype)[:, np.clip(age, 0, window - 1)]
        in_window = (age >= 0) & (age < window)

        def attend(queries: Any, keys: Any, values: Any, query_episode: Any, key_episode: Any) -> Any:
            same = query_episode[:, None] == key_episode[None]
            return self._attend(queries, keys, values, bias, in_window & same)

        blocks = jax.vmap(attend)(
            _blocks(queries, length),
            _contexts(keys, window, length),
            _contexts(values, window, length),
            _blocks(episode, length),
            _contexts(episodes, window, length),
        )
        rows = blocks.reshape(-1, self.size)[:time].astype(xs.dtype)
        ys = e + jax.vmap(linear, (None, 0))(params["output"], rows)

        # The state is the one that `step` returns: the last `window` rows, with zeros for those of earlier
        # episodes, rolled so that step t of the last episode is in slot t modulo window.
        last = episode[-1]
        steps = jnp.sum(episode == last, dtype=jnp.int32) + jnp.where(last == 0, count, 0)
        kept = (episodes[time:] == last)[:, None]

        def ring_buffer(rows: Float[Array, "steps size"]) -> Float[Array, "window size"]:
            return jnp.roll(jnp.where(kept, rows[time:], 0), steps, 0)

        count = self._canonical(steps)
        return {"keys": ring_buffer(keys), "values": ring_buffer(values), "count": count}, ys

    def _project(self, params: dict[str, Any], x: Float[Array, " inputs"], dtype: Any) -> tuple[Any, ...]:
        """The embedding in the dtype of `x`; query, key and value in that of the state."""
        e = linear(params["embedding"], x)
        qkv = linear(params["attended"], norm(params["norm"], e))
        return e, *jnp.split(qkv.astype(dtype), 3)

    def _attend(
        self,
        queries: Float[Array, "queries size"],
        keys: Float[Array, "keys size"],
        values: Float[Array, "keys size"],
        bias: Float[Array, "heads queries keys"],
        allowed: Bool[Array, "queries keys"],
    ) -> Float[Array, "queries size"]:
        """Multi-head dot-product attention: the output for each query."""
        q, k, v = (x.reshape(len(x), self.heads, -1) for x in (queries, keys, values))
        scores = jnp.einsum("ihd,jhd->hij", q, k) / math.sqrt(q.shape[-1]) + bias
        weights = jax.nn.softmax(jnp.where(allowed[None], scores, _MASKED))
        return jnp.einsum("hij,jhd->ihd", weights, v).reshape(queries.shape)

    def _canonical(self, count: Int[Array, ""]) -> Int[Array, ""]:
        """An equivalent count below `2 * window`: same next slot, same number of written slots."""
        return jnp.where(count < 2 * self.window, count, self.window + jnp.mod(count, self.window))


def _blocks(x: Array, length: int) -> Array:
    """`[time, ...]` to `[block, length, ...]`, padded at the end with zeros."""
    time, *rest = x.shape
    count = (time + length - 1) // length  # `time` may be a symbol
    padded = jnp.pad(x, [(0, count * length - time), *[(0, 0)] * len(rest)])
    return padded.reshape(count, length, *rest)


def _contexts(x: Array, window: int, length: int) -> Array:
    """`[window + time, ...]` to `[block, window + length, ...]`: blocks and the rows before them."""
    if length < window:
        return x[None]  # all of time is one block
    blocks = _blocks(x[window:], length)
    before = jnp.concatenate([x[None, :window], blocks[:-1]])
    return jnp.concatenate([before, blocks], axis=1)


_: type[Memory] = WindowAttention
