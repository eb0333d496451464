"""`examples/multi_agent.py`, small: what an agent sees, that each learns for itself, and the set of files."""

import importlib.util
import sys
from pathlib import Path
from typing import Any

import command
import jax
import jax.numpy as jnp
import multi_agent
import numpy as np
import pytest
from small_ppo import TINY

import policy_core as pc

pytestmark = [
    pytest.mark.filterwarnings("default"),  # other people's warnings are theirs
    pytest.mark.usefixtures("unchecked", "lenient"),
]

KEY = jax.random.key(0)
HUNTERS = ("adversary_0", "adversary_1", "adversary_2")


@pytest.fixture(scope="module")
def game() -> Any:
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        return multi_agent.make_game()


@pytest.fixture(scope="module")
def policies(game: Any) -> dict[str, Any]:
    return multi_agent.make_policies(game, KEY)


def test_agents_of_equal_spaces_are_one_population(policies: dict[str, Any]) -> None:
    groups = list(pc.population.groups(policies).values())
    assert [names for names, _ in groups] == [HUNTERS, ("agent_0",)]
    assert [population[1].observation_space.shape for _, population in groups] == [(16,), (14,)]


@pytest.mark.parametrize(("g", "i"), [(0, 0), (0, 2), (1, 0)])
def test_a_view_is_the_game_with_the_others_playing(
    game: Any, policies: dict[str, Any], g: int, i: int
) -> None:
    """Against the game itself, with the actions that the others choose; the action of agent i is ours."""
    groups = list(pc.population.groups(policies).values())
    names, populations = [names for names, _ in groups], [population for _, population in groups]
    me, action = names[g][i], jnp.array(3)
    env = multi_agent.view(game, names, populations, g, jnp.array(i))

    @jax.jit
    def both(key: Any) -> Any:
        observation, state = env.reset(KEY)
        step = env.step(key, state, action)
        act_key, step_key, _ = jax.random.split(key, 3)
        seen, before = game.reset(KEY)
        chosen = multi_agent.choose(names, populations, seen, act_key)
        actions = {
            name: action if name == me else chosen[h][j]
            for h, group in enumerate(names)
            for j, name in enumerate(group)
        }
        after, _, rewards, _, _ = game.step_env(step_key, before, actions)
        return (observation, step.observation, step.reward), (seen[me], after[me], rewards[me])

    ours, theirs = both(jax.random.key(1))
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_an_episode_ends_by_time_and_starts_again(game: Any, policies: dict[str, Any]) -> None:
    groups = list(pc.population.groups(policies).values())
    names, populations = [names for names, _ in groups], [population for _, population in groups]
    env = multi_agent.view(game, names, populations, 1, jnp.array(0))

    def step(state: Any, key: Any) -> Any:
        result = env.step(key, state, jnp.array(0))
        return result.state, (
            result.terminated,
            result.truncated,
            jnp.abs(result.final_observation - result.observation).max(),
        )

    _, (terminated, truncated, jump) = jax.jit(
        lambda: jax.lax.scan(step, env.reset(KEY)[1], jax.random.split(KEY, 60))
    )()
    assert np.flatnonzero(truncated).tolist() == [25, 51]
    assert not terminated.any()
    assert ((jump > 0) == truncated).all()


def test_each_agent_learns_and_the_set_is_saved(
    game: Any, policies: dict[str, Any], tmp_path: Path, capsys: Any
) -> None:
    hyper = TINY._replace(num_updates=2, num_steps=28, sequence_length=1, num_epochs=1)
    groups = list(pc.population.groups(policies).values())
    trained, curve = multi_agent.train(game, groups, hyper, KEY)
    assert curve.shape == (2, 4)
    assert np.isfinite(curve).all()
    assert (curve[:, :3] >= 0).all()
    assert (curve[:, 3] <= 0).all()
    learned = pc.population.ungroup({population[1]: (names, population) for names, population in trained})
    assert set(learned) == set(game.agents)
    kernels = {name: np.asarray(params["actor"]["head"]["kernel"]) for name, (params, _) in learned.items()}
    for name, (params, _) in policies.items():
        assert np.abs(kernels[name] - params["actor"]["head"]["kernel"]).max() > 1e-4
    assert np.abs(kernels["adversary_0"] - kernels["adversary_1"]).max() > 1e-3

    pc.files.save_all(tmp_path, learned)
    loaded = pc.files.load_all(tmp_path, {name: config for name, (_, config) in policies.items()})
    again = list(pc.population.groups({name: loaded[name] for name in game.agents}).values())
    scores = multi_agent.play(game, trained, KEY, 4)
    assert scores == multi_agent.play(game, again, KEY, 4)
    assert scores["adversary_0"] == scores["adversary_2"] >= 0 >= scores["agent_0"]


def test_a_missing_package_is_one_line(monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(sys, "argv", ["multi_agent.py"])
    with pytest.raises(SystemExit) as end:
        command.run(multi_agent.main)
    assert end.value.code == 2
    error = capsys.readouterr().err
    assert error == "multi_agent.py: jaxmarl cannot be imported; pip install -e '.[multi-agent]'\n"
