"""MuJoCo Playground environments (0.2): Brax's interface with another physics.

They are wrapped in Brax's `EpisodeWrapper`, with the time limit and the repetition of actions of their
own config. Where an observation has a part "privileged_state", `keys` gives what the critic sees.
"""

import importlib
from typing import Any

import jax

from policy_core_adapters.brax import from_brax as from_playground
from policy_core_adapters.brax import keys as keys
from policy_core_adapters.environment import Environment

__all__ = ["from_playground", "keys", "make"]


def make(name: str, **overrides: Any) -> Environment:
    """The registered environment `name`, as "CartpoleBalance"; `overrides` are entries of its config.

    On CPUs `impl="jax"` spares the compilation of Warp's kernels.
    """
    wrappers: Any = importlib.import_module("brax.envs.wrappers.training")
    registry: Any = importlib.import_module("mujoco_playground").registry
    config = registry.get_default_config(name)
    config.update(overrides)
    with jax.ensure_compile_time_eval():
        env = registry.load(name, config=config)
        wrapped = wrappers.EpisodeWrapper(env, config.episode_length, config.action_repeat)
    return from_playground(wrapped)
