"""One short real measurement of each script of `make bench`, so that none rots; figures are not looked at."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from benchmarks import files, floor, latency, numpy_runner, population, squashed_entropy
from benchmarks.timing import Measured, show

pytestmark = [pytest.mark.usefixtures("unchecked", "lenient"), pytest.mark.filterwarnings("default")]
SHORT = 0.005


def check(rows: list[Measured], others: set[str], times: int) -> None:
    """Sane numbers, `times` cases and tasks, and these others beside ours."""
    assert {row.contestant for row in rows if row.ratio is not None} == others
    assert len({(row.case, row.task) for row in rows}) == times
    assert sum(row.ratio is None for row in rows) == times
    for row in rows:
        assert 0 < row.low <= row.median <= row.high < math.inf
        assert row.ratio is None or 0 < row.ratio < math.inf
        assert row.repeats >= 1
    assert len(show(rows).splitlines()) == len(rows) + 1


def test_floor() -> None:
    name = "4 to Discrete(2)"
    rows = floor.measure(SHORT, processes=1, names=[name], tasks=["act, 1", "gradient 64"])
    check(rows, {"floor"}, 2 + len(floor.COMPILED))
    assert len(floor.measure(SHORT, processes=0, names=[name], tasks=["act, 1"])) == 2


def test_a_floor_that_computes_something_else_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    right = floor.value_of
    monkeypatch.setattr(floor, "value_of", lambda *x: 1.01 * right(*x))
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        floor.measure(SHORT, processes=0, names=["27 to Box(8)"], tasks=["act, 1"])


def test_latency() -> None:
    check(latency.measure(SHORT), {"a jitted mode by hand"}, 3)


def test_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("equinox", reason="equinox is of the extra test-more")
    from benchmarks import memory

    monkeypatch.setattr(memory, "SIZE", 8)
    monkeypatch.setattr(memory, "BATCH", 2)
    check(memory.measure(SHORT, times=(4,)), {"flax", "equinox", "our GRU"}, 8)


def test_encoders(monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks import encoders

    monkeypatch.setattr(encoders, "SHAPE", (36, 36, 4))
    monkeypatch.setattr(encoders, "BATCH", 2)
    check(encoders.measure(SHORT, towers=("Nature",), compilations=1), {"flax"}, 6)
    right = encoders.with_weights_of_flax
    monkeypatch.setattr(
        encoders, "with_weights_of_flax", lambda params, theirs: right(params, theirs) and params
    )
    with pytest.raises(AssertionError, match="Not equal to tolerance"):  # with weights of its own
        encoders.measure(SHORT, towers=("Nature",), compilations=1)


def test_population() -> None:
    rows = population.measure(SHORT, members=(2,), cases=1, n=2)
    check(rows, {"as many single updates", "compiling one policy", "lax.map", "a policy"}, 4)


def test_dispatch() -> None:
    check(population.measure_dispatch(SHORT, sizes=(1, 3)), {"the only config"}, 2)


def test_files(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = files.measure(SHORT, sizes=("50k",), peers=("by hand: bytes + sha256", "np.savez"))
    check(rows, {"by hand: bytes + sha256", "np.savez"}, 2)
    right = files.values_of
    monkeypatch.setattr(files, "values_of", lambda x: right(x)[:-1] if isinstance(x, list) else right(x))
    with pytest.raises(AssertionError, match="shapes"):  # one number less of those of np.savez
        files.measure(SHORT, sizes=("50k",), peers=("np.savez",))


def test_numpy_runner() -> None:
    check(
        numpy_runner.measure(SHORT, names=("Discrete", "NormalHead", "GRU")), {"pc.act", "NumPy by hand"}, 3
    )


def test_categorical() -> None:
    pytest.importorskip("distrax")  # which warns when it is imported
    from benchmarks import categorical

    check(categorical.measure(SHORT, classes=(2,), batches=(1, 4)), {"jax.random", "distrax"}, 4)


def test_squashed_entropy(monkeypatch: pytest.MonkeyPatch) -> None:
    check(squashed_entropy.measure(SHORT, size=8), {"one sample", "no entropy"}, 1)
    right = squashed_entropy.terms

    def wrong(*x: Any) -> Any:
        value, log_prob, entropy = right(*x)
        return value, log_prob, entropy + (0.2 if x[-1] == "exact" else jnp.zeros(()))

    monkeypatch.setattr(squashed_entropy, "terms", wrong)
    with pytest.raises(AssertionError):
        squashed_entropy.measure(SHORT, size=8)


def test_peers(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("equinox", reason="equinox is of the extra test-more")
    from benchmarks import peers

    tasks = ("act", "gradient 64")
    check(
        peers.measure(SHORT, tasks=tasks, cases=("27 to Box(8)", "4 to Discrete(2)")),
        {"flax, distrax", "equinox"},
        4,
    )
    right = peers.of_flax
    monkeypatch.setattr(peers, "of_flax", lambda *x: right(x[0], jax.tree.map(lambda leaf: 1.1 * leaf, x[1])))
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        peers.measure(SHORT, tasks=tasks, cases=("4 to Discrete(2)",))


def test_lerax() -> None:
    pytest.importorskip("lerax", reason="Lerax is not installed: it needs Python 3.13")
    from benchmarks import lerax_peer

    check(lerax_peer.measure(SHORT, tasks=("act", "gradient 64")), {"Lerax"}, 6)
