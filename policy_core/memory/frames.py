"""The last observations as a memory."""

from dataclasses import field
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from policy_core._dtypes import wide_float
from policy_core.configs import static
from policy_core.configs.validation import check_at_least
from policy_core.contract import Key, Memory
from policy_core.memory.scan import scan_steps
from policy_core.networks.layers import count_layer


@static
class FrameStack:
    """The last `frames` feature vectors of the episode, concatenated, the oldest first.

    The history is state of the policy, so that a robot or an evaluation cannot forget to reset it. Features
    are those behind the encoder and the trunk; frames of images in front of a CNN are channels, which
    the environment stacks.

    Args:
        frames: how many, the current one included.
        fill: what stands for the frames before the first of an episode: "zeros", or "first", copies of the
            first.

    Raises:
        ConfigError: for a number below 1.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> from policy_core.memory import FrameStack
        >>> memory = FrameStack(3)
        >>> params = memory.init(2, key=jax.random.key(0), dtype="float32")
        >>> state, y = memory.step(params, memory.initial_state(params), jnp.array([1.0, 2.0]))
        >>> y.tolist()
        [0.0, 0.0, 0.0, 0.0, 1.0, 2.0]
    """

    frames: int = field(kw_only=False)
    fill: Literal["zeros", "first"] = "zeros"

    def __post_init__(self) -> None:
        check_at_least(self, 1, "frames")

    def init(self, in_size: int, *, key: Key, dtype: str) -> dict[str, Float[Array, "..."]]:
        """Params: `start`, zeros `[frames - 1, in_size]`, the frames before the first one; not trained."""
        count_layer()
        return {"start": jnp.zeros((self.frames - 1, in_size), dtype)}

    def out_size(self, in_size: int) -> int:
        """`frames * in_size`."""
        return self.frames * in_size

    def initial_state(self, params: dict[str, Any]) -> dict[str, Array]:
        """`frames`, and with `fill="first"` how many were seen, `count` 0 or 1."""
        start = jax.lax.stop_gradient(params["start"])
        state = {"frames": start.astype(wide_float(start.dtype))}
        return {**state, "count": jnp.zeros((), jnp.int32)} if self.fill == "first" else state

    def step(
        self, params: dict[str, Any], state: dict[str, Array], x: Float[Array, " inputs"]
    ) -> tuple[dict[str, Array], Float[Array, " outputs"]]:
        """One step: the frames with `x` behind them, and without the oldest."""
        frames, new = state["frames"], {}
        if self.fill == "first":
            frames = jnp.where(state["count"] == 0, x[None].astype(frames.dtype), frames)
            new["count"] = jnp.ones_like(state["count"])
        frames = jnp.concatenate([frames, x[None].astype(frames.dtype)])
        return {"frames": frames[1:], **new}, jnp.ravel(frames).astype(x.dtype)

    def sequence(
        self,
        params: dict[str, Any],
        state: dict[str, Array],
        xs: Float[Array, "time inputs"],
        is_first: Bool[Array, " time"],
    ) -> tuple[dict[str, Array], Float[Array, "time outputs"]]:
        """The same step by step."""
        return scan_steps(self, params, state, xs, is_first)


_: type[Memory] = FrameStack
