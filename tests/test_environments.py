"""The toy environments: what is claimed of their optimum, and that everything stays in its space."""

import importlib
import itertools
from typing import Any

import environments
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from policy_core_adapters.environment import Environment, auto_reset, with_previous
from small_ppo import ppo_runs_on

pytestmark = [
    pytest.mark.filterwarnings("default"),  # other people's warnings are theirs
    pytest.mark.usefixtures("unchecked", "lenient"),
]


TOYS = {"hybrid": environments.hybrid, "masked_grid": environments.masked_grid}
HARDNESS = np.linspace(-environments.HARDEST, environments.HARDEST, 5, dtype=np.float32)
FORCES = np.unique(np.concatenate([HARDNESS, -HARDNESS, np.linspace(-1, 1, 9, dtype=np.float32), [0.0]]))


def hybrid_step(charge: int, jobs: int, hardness: np.ndarray, tool: int, force: np.ndarray) -> Any:
    """Rewards `[hardness, force]`, the next charge and whether that was all, of `step` itself."""
    env = environments.hybrid()

    def one(hardness: Any, force: Any) -> Any:
        bench = environments.Bench(jnp.int32(charge), hardness, jnp.int32(jobs))
        action = {"tool": jnp.int32(tool), "force": force[None]}
        step = env.step(jax.random.key(0), bench, action)
        return step.reward, step.final_observation["charge"], step.terminated

    reward, after, done = jax.vmap(lambda h: jax.vmap(lambda f: one(h, f))(force))(hardness)
    assert np.ptp(np.asarray(after)) == 0  # what comes next depends on the tool alone
    return np.asarray(reward), int(after[0, 0]), bool(done[0, 0])


def test_every_package_by_name_has_an_adapter() -> None:
    for package in environments.PACKAGES:
        adapter = importlib.import_module(f"policy_core_adapters.{package}")
        assert callable(adapter.make)


def test_the_optimum_of_hybrid_is_right() -> None:
    """Backward induction over (jobs, charge, hardness), tools times a grid of forces."""
    env = environments.hybrid()
    jobs, charges = environments.JOBS, range(environments.CAPACITY + 1)
    value = np.zeros((jobs + 1, len(charges), len(HARDNESS)))
    for job, charge in itertools.product(reversed(range(jobs)), charges):
        bench = environments.Bench(jnp.int32(charge), jnp.float32(0), jnp.int32(job))
        options = []
        for tool in np.flatnonzero(env.action_mask(bench)["tool"]):
            reward, after, done = hybrid_step(charge, job, HARDNESS, tool, FORCES)
            assert done == (job == jobs - 1)
            options.append(reward.max(1) + value[job + 1, after].mean())
        value[job, charge] = np.max(options, axis=0)
    assert np.ptp(value, axis=2).max() < 1e-5  # the hardness takes nothing from who knows the force
    assert value[0, 1] == pytest.approx(environments.HYBRID_OPTIMUM, abs=1e-5)


def test_both_parts_of_a_hybrid_action_count() -> None:
    """A right tool with the force of another is worse than it could be, by more than it is worth."""
    hardest = HARDNESS[-1:]
    for tool, wrong in ((environments.DRILL, -hardest), (environments.HAND, hardest)):
        good, _, _ = hybrid_step(1, 0, hardest, tool, -wrong)
        bad, _, _ = hybrid_step(1, 0, hardest, tool, wrong)
        assert good.item() == pytest.approx(environments.WORTH[tool])
        assert bad.item() < -1


def test_the_optimum_of_the_grid_is_right() -> None:
    """Value iteration over all places, by `step` itself, each allowed move; no move leaves the grid."""
    env = environments.masked_grid()
    cells = list(itertools.product(range(environments.ROWS), range(environments.COLUMNS)))
    moves = np.array(list(itertools.product(range(3), range(4))), np.int32)

    @jax.jit
    @jax.vmap
    def outcomes(cell: Any) -> Any:
        place = environments.Place(cell[0], cell[1], jnp.int32(0))
        rows, columns = env.action_mask(place)
        step = jax.vmap(lambda move: env.step(jax.random.key(0), place, move))(moves)
        allowed = rows[moves[:, 0]] & columns[moves[:, 1]]
        return allowed, step.final_observation, step.reward, step.terminated

    allowed, after, reward, done = map(np.asarray, outcomes(jnp.array(cells, jnp.int32)))
    steps = np.array(environments.MOVES[0])[moves[:, 0]], np.array(environments.MOVES[1])[moves[:, 1]]
    intended = np.array(cells)[:, None] + np.stack(steps, -1)
    assert (after[allowed] == intended[allowed]).all()
    inside = (intended >= 0) & (intended < [environments.ROWS, environments.COLUMNS])
    from_the_bank = (np.array(cells)[:, None, 1] == environments.BANK) & (moves[:, 1] == 3)
    assert (allowed == (inside.all(-1) & ~from_the_bank)).all()

    value = np.zeros((environments.ROWS, environments.COLUMNS))
    for _ in range(environments.LIMIT + 1):
        ahead = value[after[..., 0], after[..., 1]]
        best = np.where(allowed, reward + ~done * ahead, -np.inf).max(1)
        value, before = best.reshape(value.shape), value
    assert (value == before).all()
    assert (value[:, 0] == environments.GRID_OPTIMUM).all()


@pytest.mark.parametrize("name", TOYS)
def test_random_walks_stay_in_the_spaces(name: str) -> None:
    """Masks allow something, `sample` keeps to them, episodes end in time and start again."""
    env: Environment = TOYS[name]()

    def step(carry: Any, key: Any) -> Any:
        observation, state, age = carry
        mask = env.action_mask(state)
        action_key, key = jax.random.split(key)
        action = env.action_space.sample(key=action_key, mask=mask)
        result = env.step(key, state, action)
        done = result.terminated | result.truncated
        facts = {
            "observation": env.observation_space.contains(observation),
            "final": env.observation_space.contains(result.final_observation),
            "action": env.action_space.contains(action),
            "mask": jnp.stack([row.any() for row in jax.tree.leaves(mask)]).all(),
            "one end": ~(result.terminated & result.truncated),
            "finite": jnp.isfinite(result.reward),
            "age": age < 16,
        }
        return (result.observation, result.state, jnp.where(done, 0, age + 1)), (facts, done)

    @jax.jit
    @jax.vmap
    def walk(key: Any) -> Any:
        reset_key, key = jax.random.split(key)
        env.action_space.check_mask(env.action_mask(env.reset(reset_key)[1]))
        carry = (*env.reset(reset_key), jnp.int32(0))
        return jax.lax.scan(step, carry, jax.random.split(key, 200))[1]

    facts, done = walk(jax.random.split(jax.random.key(0), 20))
    assert {fact: bool(held.all()) for fact, held in facts.items()} == dict.fromkeys(facts, True)
    assert (done.sum(1) >= 200 // 16).all()


@pytest.mark.parametrize("name", ["hybrid", "masked_grid"])
def test_ppo_runs_on(name: str) -> None:
    ppo_runs_on(name)


def test_what_ends_by_itself_is_not_truncated_and_dtypes_are_those_of_the_first_state() -> None:
    first, after = (jnp.float32(0), jnp.int32(0)), (jnp.float32(3), jnp.int16(3))
    step = auto_reset(first, after, 1, jnp.float32(1), 1)
    assert (bool(step.terminated), bool(step.truncated)) == (True, False)
    assert (step.observation, step.state, step.final_observation) == (0, 0, 3)
    step = auto_reset(first, after, 1, 0, 0)
    assert (step.observation, step.state, step.final_observation) == (3, 3, 3)
    assert step.state.dtype == jnp.int32
    assert step.reward.dtype == jnp.float32
    assert step.terminated.dtype == step.truncated.dtype == bool


@pytest.mark.parametrize("name", TOYS)
def test_the_previous_action_and_reward_are_in_the_observation(name):
    plain = TOYS[name]()
    env = with_previous(plain)
    observation, state = env.reset(jax.random.key(0))
    twin_observation, twin = plain.reset(jax.random.key(0))
    step, plain_step, ends = jax.jit(env.step), jax.jit(plain.step), 0
    last: Any = None  # the action and reward before, or None at the start of an episode
    for i in range(40):
        assert bool(env.observation_space.contains(observation))
        action, reward = last or (np.zeros(plain.action_space.flat_size), 0.0)
        assert np.array_equal(observation["previous_action"], action)
        assert float(observation["previous_reward"]) == reward
        for ours, theirs in zip(
            jax.tree.leaves(observation["observation"]), jax.tree.leaves(twin_observation), strict=True
        ):
            assert np.array_equal(ours, theirs)
        key, action_key = jax.random.split(jax.random.key(i))
        action = plain.action_space.sample(key=action_key, mask=plain.action_mask(twin))
        result, expected = step(key, state, action), plain_step(key, twin, action)
        flat = plain.action_space.flatten(action)
        assert np.array_equal(result.final_observation["previous_action"], flat)
        assert float(result.final_observation["previous_reward"]) == float(expected.reward)
        done = bool(result.terminated | result.truncated)
        last, ends = None if done else (flat, float(expected.reward)), ends + done
        observation, state = result.observation, result.state
        twin_observation, twin = expected.observation, expected.state
    assert ends > 1
