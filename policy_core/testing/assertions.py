"""Assertions used by `testing`; each raises `ContractError`."""

from collections.abc import Callable
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from policy_core.errors import ContractError


def at(tree: PyTree, i: int) -> PyTree:
    """Entry `i` of every leaf."""
    return jax.tree.map(lambda x: x[i], tree)


def stack(trees: list[PyTree]) -> PyTree:
    """The trees stacked along a new leading axis."""
    return jax.tree.map(lambda *x: jnp.stack(x), *trees)


def require(condition: bool, message: str) -> None:
    """Raise `ContractError` unless the condition holds."""
    if not condition:
        raise ContractError(message)


def attempt(function: Callable[[], Any], message: str) -> Any:
    """The result of the function; any exception becomes the cause of a `ContractError`."""
    try:
        return function()
    except Exception as error:
        raise ContractError(f"{message}: {error}") from error


def require_close(tolerance: float, got: PyTree, expected: PyTree, when: str) -> None:
    """Raise unless |got - expected| <= tolerance * max(1, |expected|) in every leaf."""
    attempt(lambda: chex.assert_trees_all_equal_shapes(got, expected), f"results {when} differ in shape")

    def distance(a: Any, b: Any) -> float:
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        # NaN is equal to nothing and infinities only to themselves: a distance of NaN counts as inf.
        off = np.where(a == b, 0, np.abs(a - b) / np.maximum(1, np.abs(b)))
        return float(np.max(np.where(np.isnan(off), np.inf, off), initial=0))

    distances = jax.tree_util.tree_leaves_with_path(jax.tree.map(distance, got, expected))
    path, largest = max(distances, key=lambda pair: pair[1], default=((), 0.0))
    leaf = jax.tree_util.keystr(path) or "the result"
    require(largest <= tolerance, f"results {when} differ by {largest:.2g} at {leaf}")


def require_equal(got: PyTree, expected: PyTree, message: str) -> None:
    """Raise unless every leaf has the same dtype, shape and values."""
    attempt(lambda: chex.assert_trees_all_equal_shapes_and_dtypes(got, expected), message)
    attempt(lambda: chex.assert_trees_all_equal(got, expected), message)


def require_finite(tree: PyTree, message: str) -> None:
    """Raise unless every leaf is finite."""
    attempt(lambda: chex.assert_tree_all_finite(tree), message)


def require_finite_float(name: str, x: Any, shape: tuple[int, ...]) -> None:
    """Raise unless `x` is a finite float array of this shape."""
    expected = f"a float of shape {shape}" if shape else "a float scalar"
    right = x.shape == shape and jnp.issubdtype(x.dtype, jnp.floating)
    require(right, f"{name} is {x.dtype}{x.shape}, expected {expected}")
    require(bool(jnp.all(jnp.isfinite(x))), f"{name} is {x}, expected finite numbers")


def require_one_trace(function: Callable[..., Any], calls: list[tuple[Any, ...]], message: str) -> None:
    """Raise unless the jitted function is traced once for all calls."""
    # `chex.assert_max_traces` counts by the line of the source, over all configs of a process.
    traces = 0

    @jax.jit
    def counted(*call: Any) -> Any:
        nonlocal traces
        traces += 1
        return function(*call)

    for call in calls:
        counted(*call)
    require(traces == 1, f"{message}: {traces} times")
