"""`examples/population.py` and `evolution.py`, small: rates by member, exploit and explore, lineages."""

import ast
import sys
from pathlib import Path
from typing import Any

import command
import evolution
import experiments
import jax
import jax.numpy as jnp
import numpy as np
import optax
import population
import ppo
import pytest
from cases import config
from policy_core_adapters import gymnax
from small_ppo import TINY

import policy_core as pc

pytestmark = [
    pytest.mark.filterwarnings("default"),  # other people's warnings are theirs
    pytest.mark.usefixtures("unchecked", "lenient"),
]

with jax.numpy_dtype_promotion("standard"):
    ENV = gymnax.make("CartPole-v1")
CONFIG = config(ENV.action_space, ENV.observation_space, temperature=1.0, normalize=pc.Normalize())
SMALL = TINY._replace(num_updates=4, sequence_length=1)
KEY = jax.random.key(0)
RATES = {"learning_rate": 1e-2, "entropy_coefficient": 0.1, "clip_range": 0.2, "temperature": 1.0}
OTHERS = {"learning_rate": 2e-2, "entropy_coefficient": 0.2, "clip_range": 1e-3, "temperature": 2.0}


def trained(key: Any, optimizer: Any = None, **rates: Any) -> Any:
    init, update = ppo.make_train(CONFIG, ENV, SMALL._replace(**rates), optimizer)
    return jax.lax.scan(lambda r, _: update(r), init(key), None, 2)[0].policy


def moved(a: Any, b: Any) -> dict[str, float]:
    """The largest change of each leaf of the params."""
    before, after = (pc.population.get_leaves(policy) for policy in (a, b))
    return {path: float(jnp.abs(after[path] - before[path]).max()) for path in before}


def test_rates_may_be_arrays_by_member() -> None:
    """A member does what it does alone with Python numbers, and every rate tells."""
    members = [RATES, *({**RATES, name: other} for name, other in OTHERS.items())]
    rates = {name: jnp.array([member[name] for member in members]) for name in RATES}
    together = jax.jit(jax.vmap(lambda rates: trained(KEY, **rates)))(rates)
    alone = jax.jit(lambda key: trained(key, **RATES))(KEY)
    first = pc.population.member(together, 0)
    assert max(moved(first, alone).values()) < 1e-5
    assert together[0]["temperature"].tolist() == [1.0, 1.0, 1.0, 1.0, 2.0]
    for i, name in enumerate(OTHERS, 1):
        assert max(moved(first, pc.population.member(together, i)).values()) > 1e-4, name


def test_a_temperature_needs_a_leaf() -> None:
    plain = config(ENV.action_space, ENV.observation_space)
    init, update = ppo.make_train(plain, ENV, SMALL._replace(temperature=2.0))
    with pytest.raises(pc.errors.StructureError, match="'temperature' is no leaf"):
        jax.eval_shape(lambda key: update(init(key)), KEY)


def test_an_optimizer_of_the_user_moves_what_is_trainable() -> None:
    """Weight decay alone: every kernel shrinks, statistics and temperature follow their own rules."""
    decay = optax.chain(optax.set_to_zero(), optax.add_decayed_weights(0.5), optax.scale(-1.0))
    before = jax.jit(lambda key: ppo.make_train(CONFIG, ENV, SMALL)[0](key).policy)(KEY)
    after = jax.jit(lambda key: trained(key, decay))(KEY)
    steps = 2 * SMALL.num_epochs * SMALL.num_minibatches
    start, end = (pc.population.get_leaves(policy) for policy in (before, after))
    assert end["temperature"] == start["temperature"] == 1.0
    assert end["normalize/count"][0, 0] == 2 * SMALL.num_envs * SMALL.num_steps
    kernels = [path for path in start if path.endswith("kernel")]
    assert kernels
    for path in kernels:
        np.testing.assert_allclose(end[path], start[path] * 0.5**steps, rtol=1e-5, atol=1e-12)


@pytest.fixture(scope="module")
def run() -> Any:
    """Eight members and three generations, and what was reported while they ran."""
    told: list[np.ndarray] = []
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        hyper = TINY._replace(num_updates=6, num_steps=32, sequence_length=1, num_epochs=1)
        train = population.make_run(CONFIG, ENV, hyper, 8, 3, lambda x: told.append(np.asarray(x)))
        trained, scores, history = jax.device_get(train(jax.random.key(0)))
    jax.effects_barrier()
    assert scores.shape == (8,)
    assert (scores >= 8).all()  # CartPole falls no sooner
    return trained, history, told


def test_each_generation_is_reported_while_it_runs(run: Any) -> None:
    _, history, told = run
    np.testing.assert_array_equal(np.stack(told), history["return"])
    assert history["return"].shape == (3, 8)
    assert np.nanmin(history["return"]) >= 8  # CartPole falls no sooner


def test_the_worst_copy_the_best_and_explore(run: Any) -> None:
    _, history, _ = run
    for g in range(2):
        order = np.argsort(-np.nan_to_num(history["return"][g], nan=-1.0), kind="stable")
        source = history["source"][g]
        copied = source != np.arange(8)
        assert set(np.flatnonzero(copied)) == set(order[-2:])
        assert set(source[copied]) <= set(order[:2])
        for name, (low, high) in population.RANGES.items():
            now, then = history[name][g + 1], history[name][g]
            assert (now[~copied] == then[~copied]).all()
            factors = now[copied] / then[source[copied]]
            edge = np.isclose(now[copied], low) | np.isclose(now[copied], high)
            assert (np.isclose(factors, 0.8) | np.isclose(factors, 1.25) | edge).all()
            assert (now >= np.float32(low)).all()
            assert (now <= np.float32(high)).all()
    assert len(np.unique(history["learning_rate"][0])) == 8


def test_a_copy_has_the_params_of_its_source_and_goes_its_own_way(run: Any) -> None:
    """After the last generation nothing has been trained since."""
    params, history, _ = run
    source = history["source"][-1]
    for leaf in jax.tree.leaves(params):
        np.testing.assert_array_equal(leaf, leaf[source])
    assert (source != np.arange(8)).sum() == 2
    kernel = params[0]["actor"]["head"]["kernel"]
    assert len(np.unique(kernel.reshape(8, -1), axis=0)) == 6


def test_the_picture_of_lineages(run: Any, tmp_path: Path) -> None:
    experiments.lineages(tmp_path / "lineages.png", run[1], 3)
    from matplotlib import pyplot

    assert pyplot.imread(tmp_path / "lineages.png").std() > 0.01
    pyplot.close("all")


def test_the_best_member_is_an_ordinary_file(run: Any, tmp_path: Path) -> None:
    best = pc.population.member(run[0], int(np.nanargmax(run[1]["return"][-1])))
    pc.save(tmp_path / "best.msgpack", best)
    assert pc.batch_shape(pc.load(tmp_path / "best.msgpack", CONFIG)) == ()
    assert pc.verify(tmp_path / "best.msgpack").deviation < 1e-5


def test_it_is_eighty_lines_above_the_trainer() -> None:
    """Neither blank, nor a comment, nor a docstring."""
    text = Path(population.__file__).read_text()
    prose = {
        line
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)
    }
    code = [line.strip() for i, line in enumerate(text.splitlines(), 1) if i not in prose]
    assert sum(1 for line in code if line and not line.startswith("#")) <= 80


@pytest.mark.parametrize("main", [population.main, evolution.main], ids=["population", "evolution"])
@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["--env", "CartPole"], "gymnax has no 'CartPole'"), (["--seeds", "0"], "got 0, expected at least 1")],
)
def test_a_mistake_is_one_line(
    main: Any, arguments: list[str], said: str, monkeypatch: Any, capsys: Any
) -> None:
    monkeypatch.setattr(sys, "argv", ["example.py", *arguments])
    with pytest.raises(SystemExit) as end:
        command.run(main)
    assert end.value.code == 2
    error = capsys.readouterr().err
    assert said in error.splitlines()[-1]
    assert "Traceback" not in error


def test_a_strategy_evolves_the_pair(monkeypatch: Any) -> None:
    """The mean is a policy of the same config, every member played, and the last are better."""
    monkeypatch.setattr(evolution, "MEMBERS", 16)
    monkeypatch.setattr(evolution, "MAX_STEPS", 100)
    actor = config(ENV.action_space, ENV.observation_space, critic=None)
    (params, saved), returns = jax.jit(lambda key: evolution.evolve(actor, ENV, key, 12))(KEY)
    assert saved == actor
    assert pc.batch_shape((params, saved)) == ()
    assert returns.shape == (12, 16)
    assert returns[-3:].mean() > 1.5 * returns[:1].mean()
