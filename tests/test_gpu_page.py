"""The script for a GPU, as far as a CPU runs it: its page, its sums, and one section of it in small."""

import itertools
import json
import sys

import jax
import numpy as np
import pytest

from benchmarks.gpu import __main__ as main
from benchmarks.gpu import exact, measure, page, speed

MACHINE = {
    "device": "GPU X", "driver": "1.2", "jax": "0.11", "python": "3.12", "date": "2026-11-26", "platform": "gpu"
}  # fmt: skip


def test_the_page_has_every_section_and_says_which_failed_or_were_not_run(tmp_path, monkeypatch):
    floor = {
        "tasks": list(speed.TASKS),
        "rows": [["row", *["1.00 (9)"] * len(speed.TASKS)]],
        "compiled": [["row", "1.00", "3 / 3"] * 1],
    }
    other = {**MACHINE, "device": "GPU Y"}
    sections = {
        "floor": floor | {"machine": MACHINE, "seconds": 61.2},
        "bits": {"error": "ValueError: no", "machine": other, "seconds": 2.0},
    }
    path = tmp_path / "gpu.md"
    path.write_text(f"# Mine\n\n{page.START}\nold\n{page.END}\n\n## Kept\n")
    monkeypatch.setattr(page, "PAGE", path)
    page.write_page({"sections": sections})
    text = path.read_text()
    assert text.startswith("# Mine\n\n")
    assert text.endswith("\n\n## Kept\n")
    assert "old" not in text
    assert text.count("GPU X, jax 0.11, Python 3.12, 2026-11-26; 61 s.") == 2
    assert text.count("GPU Y, jax 0.11, Python 3.12, 2026-11-26; 2 s.") == 1
    assert "| row | 1.00 (9) | 1.00 (9) |" in text
    assert "Failed: `ValueError: no`" in text
    assert text.count("Not run.") == len(page.HEADERS) - 3
    path.write_text("# Mine\n")
    with pytest.raises(SystemExit, match="has no lines"):
        page.write_page({"sections": {}})


def test_sections_that_are_not_run_again_are_kept(tmp_path, monkeypatch):
    path = tmp_path / "gpu.json"
    path.write_text(json.dumps({"sections": {"files": {"rows": [["old"]]}, "bits": {"rows": [["old"]]}}}))
    monkeypatch.setattr(sys, "argv", ["gpu", "bits", "--out", str(path)])
    monkeypatch.setattr(main, "rendered", lambda raw: "")
    monkeypatch.setitem(main.SECTIONS, "bits", lambda: {"rows": [["new"]]})
    with pytest.raises(SystemExit, match=r"^0$"):
        main.main()
    found = json.loads(path.read_text())["sections"]
    assert found["files"] == {"rows": [["old"]]}
    assert found["bits"]["rows"] == [["new"]]
    assert found["bits"]["machine"]["jax"] == jax.__version__

    def fails():
        raise ValueError("no room")

    monkeypatch.setitem(main.SECTIONS, "bits", fails)
    with pytest.raises(SystemExit, match=r"^1$"):
        main.main()
    found = json.loads(path.read_text())["sections"]
    assert found["bits"]["error"] == "ValueError: no room"
    assert found["files"] == {"rows": [["old"]]}


def test_deviations_are_relative_where_numbers_are_large():
    a, b = {"x": np.array([1.0, 200.0])}, {"x": np.array([1.5, 100.0])}
    assert measure.deviation(a, b) == 1.0
    assert measure.deviation(b, b) == 0.0
    assert measure.deviation({"x": np.array([1.0, -0.5])}, {"x": np.array([0.75, 0.0])}) == 0.5
    assert measure.alike(np.array([[1, 2], [3, 4], [5, 6]]), np.array([[1, 2], [3, 5], [5, 6]])) == "2 of 3"
    assert measure.alike(np.array([0.5]), np.array([0.25])) == "2.5e-01"


def test_contestants_take_turns_and_are_waited_for():
    calls = []
    times = measure.in_turn({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 0.0)
    assert set(times) == {"a", "b"}
    rounds = [name for name, _ in itertools.groupby(calls)]
    assert rounds == ["a", "b"] * 3  # one to warm up and three measured, of which the second begins with b
    assert calls.count("a") == calls.count("b")


def test_draws_are_the_same_bits_however_they_are_compiled():
    """A section as it runs on a GPU; on this machine "the CPU" is the same device."""
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        rows = exact.bits()["rows"]
    assert [row[1:] for row in rows] == [["True", "True", "256 of 256", "True"]] * 3
