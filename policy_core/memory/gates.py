"""Building blocks of gated cells: linear maps, layer norm and initial state."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from policy_core._dtypes import wide_float
from policy_core.contract import Key
from policy_core.networks.layers import init_linear, normalized


def init_maps(
    in_size: int, size: int, gates: int, *, key: Key, dtype: str, layer_norm: bool
) -> dict[str, dict[str, Float[Array, "..."]]]:
    """Kernels `input` (LeCun normal) and `recurrent` (orthogonal for each gate), without biases."""
    input_key, recurrent_key = jax.random.split(key)

    def orthogonal(key: Key) -> Float[Array, "size size"]:
        return init_linear(size, size, key=key, dtype=dtype, gain=1.0)["kernel"]

    inputs = init_linear(
        in_size, gates * size, key=input_key, dtype=dtype, gain=1.0, kernel_init="lecun_normal"
    )
    blocks = jax.vmap(orthogonal, out_axes=1)(jax.random.split(recurrent_key, gates))
    recurrent = blocks.reshape(size, gates * size)
    maps = {"input": {"kernel": inputs["kernel"]}, "recurrent": {"kernel": recurrent}}
    if layer_norm:
        for part in maps.values():
            part["scale"] = jnp.ones(gates * size, dtype)
    return maps


def apply_map(
    params: dict[str, Float[Array, "..."]],
    x: Float[Array, " inputs"],
    gates: int,
    dtype: Any,
    layer_norm: bool,
) -> Float[Array, " gates_size"]:
    """`x @ kernel` in the dtype of `x`, converted to `dtype`; with `layer_norm`, normalized per gate."""
    y = jnp.matmul(x, params["kernel"].astype(x.dtype)).astype(dtype)
    if not layer_norm:
        return y
    return jax.vmap(normalized)(y.reshape(gates, -1)).ravel() * params["scale"].astype(dtype)


def first_state(
    params: dict[str, Any], learned: bool, shape: tuple[int, ...], dtype: Any
) -> Float[Array, "..."]:
    """The initial state: the learned `start` of the params, or zeros; float32 or wider."""
    dtype = wide_float(dtype)
    return params["start"].astype(dtype) if learned else jnp.zeros(shape, dtype)
