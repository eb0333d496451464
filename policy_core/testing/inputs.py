"""Random masks and perturbed params for the contract checks."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from policy_core.spaces import JointMask


def is_allowed(space: Any, mask: Any, action: Any) -> bool:
    """Whether a mask allows an environment action; each row must allow something."""
    if mask is None:
        return True
    if isinstance(mask, dict):
        return all(is_allowed(space[name], mask[name], action[name]) for name in mask)
    if isinstance(action, tuple):
        parts = zip(space.spaces, mask, action, strict=True)
        return all(is_allowed(*part) for part in parts)
    if isinstance(mask, JointMask):
        return bool(mask.allowed[tuple((np.asarray(action) - space.starts()).ravel())])
    if isinstance(mask, tuple):
        indices = (np.asarray(action) - space.starts()).ravel()
        return all(bool(row[i]) for row, i in zip(mask, indices, strict=True))
    if np.ndim(action):
        return bool(np.all(mask | (action == 0)))
    return bool(mask[action - space.start])


def random_mask(full: PyTree, key: Any) -> PyTree:
    """A random mask in the structure of `full`; the last entry of each row is allowed."""
    leaves, structure = jax.tree.flatten(full)
    keys = jax.random.split(key, max(len(leaves), 1))
    masks = [jax.random.bernoulli(k, 0.5, leaf.shape) for k, leaf in zip(keys, leaves, strict=False)]
    return jax.tree.unflatten(structure, [mask.at[..., -1].set(True) for mask in masks])


def perturb(params: PyTree, moves: PyTree, key: Any) -> PyTree:
    """The params plus normal noise of standard deviation 0.3, in float leaves where `moves` is true."""
    leaves, structure = jax.tree.flatten(params)
    keys = jax.random.split(key, max(len(leaves), 1))

    def moved(leaf: Any, moves: bool, key: Any) -> Any:
        if not moves or not jnp.issubdtype(leaf.dtype, jnp.floating):
            return leaf
        return leaf + (0.3 * jax.random.normal(key, leaf.shape)).astype(leaf.dtype)

    return jax.tree.unflatten(
        structure, [moved(*x) for x in zip(leaves, jax.tree.leaves(moves), keys, strict=False)]
    )
