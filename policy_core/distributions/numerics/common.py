"""Functions shared by the distributions."""

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, Shaped

from policy_core.contract import Action, Distribution, Key
from policy_core.errors import StructureError

_T = TypeVar("_T")

MASKED_LOG_PROB = -1e30
"""The log-probability of an action that is masked or not in the space: finite, so that sums
and gradients stay finite; `exp` of it is exactly 0."""


def check_event(shape: tuple[int, ...], **params: Float[Array, "..."]) -> None:
    """Raise `StructureError` unless the trailing axes of parameters are an event, and the others alike.

    A distribution is a tuple, which checks nothing when it is made: so this is asked when it is used.
    """
    batch = [jnp.shape(x)[: max(jnp.ndim(x) - len(shape), 0)] for x in params.values()]
    for (name, x), axes in zip(params.items(), batch, strict=True):
        if jnp.shape(x) != (*batch[0], *shape) or axes != batch[0]:
            expected = ", ".join(map(str, (*(batch[0] or ("...",)), *shape)))
            raise StructureError(f"{name}: got shape {jnp.shape(x)}, expected ({expected}) for its space")
        if not jnp.issubdtype(jnp.result_type(x), jnp.floating):
            raise StructureError(f"{name}: got dtype {jnp.result_type(x)}, expected a float")


def total(log_probs: Float[Array, "*batch rows"]) -> Float[Array, "*batch"]:
    """The sum of log-probabilities, or `MASKED_LOG_PROB` if one of them is `MASKED_LOG_PROB`."""
    impossible = jnp.any(log_probs <= MASKED_LOG_PROB, -1)
    possible = jnp.where(log_probs <= MASKED_LOG_PROB, 0, log_probs)
    return jnp.where(impossible, MASKED_LOG_PROB, jnp.sum(possible, -1))


def sum_event(x: Float[Array, "..."], space: Any) -> Float[Array, "*batch"]:
    """The sum over the axes of one element of the space, the trailing ones."""
    rank = len(space.struct().shape)
    return jnp.sum(x, tuple(range(x.ndim - rank, x.ndim)))


def pick(x: Shaped[Array, "..."], index: Int[Array, "*batch"]) -> Shaped[Array, "..."]:
    """`x[index]` for each element of the batch, of `x` `[*batch, n, ...]`; an index is clipped."""
    axis, batch = index.ndim, tuple(range(index.ndim))
    numbers = lax.GatherDimensionNumbers(tuple(range(axis, x.ndim - 1)), (axis,), (axis,), batch, batch)
    sizes = (1,) * (axis + 1) + x.shape[axis + 1 :]
    return lax.gather(x, lax.expand_dims(index, (index.ndim,)), numbers, sizes, mode="clip")


def takes_seed(cls: type[_T]) -> type[_T]:
    """Let `sample` and `sample_and_log_prob` take `seed=` for `key=`, as those of distrax do."""
    for name in ("sample", "sample_and_log_prob"):
        setattr(cls, name, _with_seed(getattr(cls, name)))
    return cls


def _with_seed(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def call(*arguments: Any, **options: Any) -> Any:
        if "seed" in options:
            if "key" in options:
                raise StructureError(f"{method.__qualname__}: got both key and seed, expected one; give key")
            options["key"] = options.pop("seed")
        return method(*arguments, **options)

    return call


def sample_and_log_prob(
    distribution: Distribution[Action], key: Key
) -> tuple[Action, Float[Array, "*batch"]]:
    """A sample and its log-probability, without shared computation. `key` is consumed."""
    action = distribution.sample(key=key)
    return action, distribution.log_prob(action)


def expm1_less(d: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """exp(d) - 1 - d to full relative accuracy, for d that does not overflow."""
    near = jnp.abs(d) < 0.5
    x = jnp.where(near, d, 0)
    # d^2/2 (1 + d/3 (1 + d/4 (...))), with as many terms as the precision of the dtype needs
    series = jnp.ones_like(x)
    for k in range(16 if d.dtype == jnp.float64 else 9, 2, -1):
        series = 1 + series * x * (1 / k)
    return jnp.where(near, 0.5 * x * x * series, jnp.expm1(d) - d)
