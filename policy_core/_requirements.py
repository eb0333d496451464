"""What the checks of `testing` ask of a result, as errors that say what was broken."""

from collections.abc import Callable
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from policy_core.errors import ContractError


def at(tree: PyTree, i: int) -> PyTree:
    return jax.tree.map(lambda x: x[i], tree)


def stack(trees: list[PyTree]) -> PyTree:
    return jax.tree.map(lambda *x: jnp.stack(x), *trees)


def finite(tree: PyTree) -> bool:
    try:
        chex.assert_tree_all_finite(tree)
    except AssertionError:
        return False
    return True


def registered(config: Any) -> bool:
    return hasattr(config, "_encoding")


def far(x: Any, target: float) -> str:
    return f"{float(x[jnp.argmax(jnp.abs(x - target))])}, expected {target}"


def close(tolerance: float, got: PyTree, expected: PyTree, when: str, slack: float = 1.0) -> None:
    def distance(a: Any, b: Any) -> float:
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        return float(np.max(np.abs(a - b) / np.maximum(1, np.abs(b)), initial=0))

    largest = max(jax.tree.leaves(jax.tree.map(distance, got, expected)), default=0.0)
    require(largest <= slack * tolerance, f"results {when} differ by {largest:.2g}")


def require_finite(name: str, x: Any, shape: tuple[int, ...]) -> None:
    expected = f"a float of shape {shape}" if shape else "a float scalar"
    right = x.shape == shape and jnp.issubdtype(x.dtype, jnp.floating)
    require(right, f"{name} is {x.dtype}{x.shape}, expected {expected}")
    require(bool(jnp.all(jnp.isfinite(x))), f"{name} is {x}, expected finite numbers")


def require(condition: bool, message: str) -> None:
    if not condition:
        raise ContractError(message)


def attempt(function: Callable[[], Any], message: str) -> Any:
    try:
        return function()
    except Exception as error:
        raise ContractError(f"{message}: {error}") from error
