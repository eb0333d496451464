"""The example trainer on an environment of each package: masks, dicts, boxes, several agents, two players."""

import importlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import config
from small_ppo import TINY, train

import policy_core as pc

pytestmark = [
    pytest.mark.filterwarnings("default"),  # other people's warnings are theirs
    pytest.mark.usefixtures("unchecked", "lenient"),
]


@pytest.mark.parametrize(
    ("package", "name", "options"),
    [
        ("jumanji", "Game2048-v1", {}),
        ("pgx", "tic_tac_toe", {"opponent": "random"}),
        ("pgx", "tic_tac_toe", {"opponent": None}),
        ("brax", "fast", {"episode_length": 5}),
        ("jaxmarl", "MPE_simple_spread_v3", {"max_steps": 5}),
        ("pettingzoo", "classic/rps-v2", {"max_cycles": 5}),
        ("navix", "Navix-Empty-5x5-v0", {"max_steps": 7}),
    ],
)
def test_ppo_trains_on_it(package: str, name: str, options: dict[str, Any]) -> None:
    pytest.importorskip(package, reason=f"{package} is not installed")
    env = importlib.import_module(f"policy_core_adapters.{package}").make(name, **options)
    configuration = config(env.action_space, env.observation_space)
    hyper = TINY._replace(num_steps=8, num_updates=3, num_epochs=1, sequence_length=1)
    (params, _), returned = train(env, configuration, hyper)
    before, _ = pc.init(configuration, key=jax.random.split(jax.random.key(0), 3)[0])
    moved = jax.tree.map(lambda a, b: bool((a != b).any()), params["actor"], before["actor"])
    assert jax.tree.all(moved)
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(params))
    if package != "jumanji":  # whose games are longer
        assert np.isfinite(returned).any()
