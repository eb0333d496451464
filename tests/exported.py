"""What the tests of exports share: policies in files, and what JAX does with them, step by step."""

import os
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from cases import LOW_PRECISION
from test_numpy_runner import CONFIGS as ALL
from test_numpy_runner import _policy as policy_of
from test_numpy_runner import _random_mask as random_mask

import policy_core as pc

FULL = "POLICY_CORE_FULL" in os.environ  # 1,000 observations, else 60
COUNT = 1000 if FULL else 60
REFUSED = (*LOW_PRECISION, "act box bfloat16")
CONFIGS = {name: config for name, config in ALL.items() if name not in REFUSED}
TOLERANCE = 1e-5


def others(graph: Any, mask: Any, seen: Any) -> Any:
    """`cases.others` as a graph."""
    tool = graph.op("reshape", seen["tool"], shape=(1,))
    free = graph.op("not", graph.op("equal", graph.constant(np.arange(4)), tool))
    return free if mask is None else graph.op("and", mask, free)


MASKS = {"others": others}


class Steps(NamedTuple):
    """What JAX did: every leaf has the steps in front."""

    observations: Any
    masks: Any
    is_first: Any
    states: Any
    """After each step."""
    actions: Any
    """Environment actions."""
    policy_actions: Any
    values: Any
    log_probs: Any
    logits_gap: Any
    """How far the log-probability of the mode is above that of a uniform draw."""


def steps_of(policy: Any, count: int = COUNT, masked: bool = True) -> Steps:
    """Run a policy on random observations, under random masks, with a reset now and then."""
    config = policy[1]
    rng, keys = np.random.default_rng(1), jax.random.split(jax.random.key(2), count)
    observations = jax.vmap(lambda key: config.observation_space.sample(key=key))(keys)
    masks = None
    if masked:
        rows = [random_mask(config.action_space.full_mask(), rng) for _ in range(count)]
        masks = jax.tree.map(lambda *rows: np.stack(rows), *rows)
    is_first = np.arange(count) % 130 == 17

    @jax.jit
    def run(observations: Any, masks: Any) -> Any:
        def step(state: Any, inputs: Any) -> Any:
            observation, mask, first = inputs
            _, value = pc.value(policy, state, observation, is_first=first)
            state, distribution = pc.action_distribution(
                policy, state, observation, action_mask=mask, is_first=first
            )
            action = distribution.mode()
            return state, (state, pc.env_action(policy, action), action, value, distribution.log_prob(action))

        return jax.lax.scan(step, pc.reset(policy), (observations, masks, is_first))[1]

    results = run(observations, masks)
    return Steps(*jax.tree.map(np.asarray, (observations, masks, is_first, *results)), None)


def named(tree: Any, root: str) -> dict[str, Any]:
    """Leaves by the names that inputs and outputs of graphs have."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {"/".join([root, *(_key(entry) for entry in path)]): leaf for path, leaf in leaves}


def _key(entry: Any) -> str:
    return str(getattr(entry, "key", getattr(entry, "idx", getattr(entry, "name", None))))


def at(tree: Any, i: Any) -> Any:
    """A step of a tree."""
    return jax.tree.map(lambda x: x[i], tree)


def saved(policy: Any, path: Any) -> Any:
    """The path of a file with the policy and its self-test."""
    pc.save(path, policy)
    return path


def close(got: Any, want: Any) -> bool:
    """Within the tolerance, relative to what is above 1."""
    want = np.asarray(want, np.float64)
    return bool(np.all(np.abs(got - want) <= TOLERANCE * np.maximum(1, np.abs(want))))


__all__ = [
    "ALL",
    "CONFIGS",
    "MASKS",
    "REFUSED",
    "at",
    "close",
    "jnp",
    "named",
    "policy_of",
    "saved",
    "steps_of",
]
