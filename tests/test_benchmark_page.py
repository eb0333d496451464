"""The page of the benchmarks from a small raw file, and the verdict of `make bench-quick`."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import __main__ as command
from benchmarks import page, quick
from benchmarks.sections import SECTIONS
from benchmarks.timing import Measured, in_turn, measured, same

ROOT = Path(__file__).parent.parent


# --- Rows ------------------------------------------------------------------------------------


def test_a_ratio_is_that_of_the_times_of_one_round_with_its_quartiles() -> None:
    times = {"other": [1.0, 2.0, 4.0, 8.0, 16.0], "ours": [0.5, 2.0, 6.0, 16.0, 64.0]}
    ours, other = measured("case", "task", times, "ms")
    assert (ours.contestant, ours.median, ours.low, ours.high, ours.repeats) == ("ours", 6e3, 2e3, 16e3, 5)
    assert ours.ratio is None
    assert (other.ratio, other.ratio_low, other.ratio_high) == (1.5, 1.0, 2.0)
    _, other = measured("case", "task", times, "ms", paired=False)
    assert (other.ratio, other.ratio_low, other.ratio_high) == (1.5, None, None)  # 6 / 4


def test_contestants_take_turns_and_the_clock_decides_how_long() -> None:
    now, calls = [0.0], []

    def call(name: str, seconds: float) -> Any:
        def f() -> None:
            calls.append(name)
            now[0] += seconds

        return f

    times = in_turn({"a": call("a", 1.0), "b": call("b", 3.0)}, 20.0, clock=lambda: now[0], batch=0, least=2)
    assert {name: set(found) for name, found in times.items()} == {"a": {1.0}, "b": {3.0}}
    assert len(times["a"]) == len(times["b"]) == 5  # 4 s a round
    assert calls[4:] == list("abbaabbaab")  # after two calls of each; who begins changes
    assert len(in_turn({"a": call("a", 1.0)}, 0.0, clock=lambda: now[0], least=3)["a"]) == 3


def test_other_numbers_are_not_the_same() -> None:
    same({"x": np.ones(3)}, [np.ones(3) + 1e-7])
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        same(np.ones(3), np.ones(3) + 0.01)
    with pytest.raises(AssertionError, match="1 arrays against 2"):
        same([1.0], [1.0, 1.0])


# --- The page --------------------------------------------------------------------------------


def raw() -> dict[str, Any]:
    """One case for each section, of two others and of one, and Lerax missing."""
    data: dict[str, Any] = {"rows": {}, "missing": {"lerax_peer.measure": "there was no such environment."}}
    for section in SECTIONS:
        rows = measured("first", "run", {"ours": [1e-3, 2e-3, 3e-3], "peer": [2e-3, 2e-3, 12e-3]}, "us")
        rows += measured("second", "run", {"ours": [0.1], "other": [0.4]}, "s", paired=False)
        data["rows"][section.call] = [row._asdict() for row in rows]
    data["about"] = {
        "date": "2026-01-02", "cpu": "a processor", "cores": 3, "load": 0.25, "python": "3.11", "short": True,
        "packages": {"jax": "9.9"}, "cpu_seconds": 600.0,
    }  # fmt: skip
    return data


def test_the_page_has_the_machine_every_section_and_what_was_not_run() -> None:
    text = page.render(raw())
    assert "2026-01-02, 3 cores of a processor, load 0.2 before the run; Python 3.11, jax 9.9." in text
    assert "The run took 10 minutes of CPU time. **A short run" in text
    for section in SECTIONS:
        _, found, rest = text.partition(f"\n## {section.title}\n")
        assert found
        body = rest.partition("\n## ")[0]
        if section.elsewhere:
            assert "Not run: there was no such environment." in body
            assert "|" not in body
        elif section.layout == "matrix":
            assert "| first | 0.50 (0.38-0.75) |" in body
            assert "| first | 2,000 us |" in body
        else:
            assert "| first | run | 2,000 (1,500-2,500) us | 0.50 (0.38-0.75) |" in body
            assert "| second | run | 0.100 (0.100-0.100) s | 0.25 |" in body  # in a table of its own
    assert "**A short run" not in page.render({**raw(), "about": {**raw()["about"], "short": False}})


def test_numbers_have_three_digits() -> None:
    numbers = {0.01234: "0.0123", 1.234: "1.23", 12.34: "12.3", 123.4: "123", 12345.0: "12,345", 0.0: "0"}
    assert {x: page.number(x) for x in numbers} == numbers


def test_the_picture_is_drawn(tmp_path: Path) -> None:
    page.plot(raw(), tmp_path / "picture.png")
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")


def test_the_page_that_is_there_has_every_section() -> None:
    text = (ROOT / "docs" / "benchmarks.md").read_text()
    assert [line[3:] for line in text.splitlines() if line.startswith("## ")] == [s.title for s in SECTIONS]


@pytest.mark.parametrize("call", [section.call for section in SECTIONS])
def test_a_section_names_a_function(call: str) -> None:
    module, _, function = call.partition(".")
    tree = (ROOT / "benchmarks" / f"{module}.py").read_text()
    assert f"\ndef {function}(\n    seconds: float" in tree or f"\ndef {function}(seconds: float" in tree


# --- bench-quick -----------------------------------------------------------------------------


def verdicts(
    now: list[float], recorded: dict[str, float] | None = None
) -> tuple[bool, list[str], list[float]]:
    """Of one row that gives these ratios in turn, with what was shown and the factors that were asked for."""
    shown: list[str] = []
    asked: list[float] = []
    left = iter(now)

    def measure(more: float) -> float:
        asked.append(more)
        return next(left)

    fine = quick.check({"a row": measure}, {"a row": 1.0} if recorded is None else recorded, shown.append)
    return fine, shown, asked


def test_a_ratio_may_be_worse_by_15_percent_and_no_more() -> None:
    assert verdicts([1.14]) == (
        True,
        ["a row: was 1.00, is 1.14, allowed 1.15: ok", "1 of 1 rows are as recorded, or better"],
        [1.0],
    )
    fine, shown, asked = verdicts([1.16, 1.16])
    assert not fine
    assert shown == [
        "a row: was 1.00, is 1.16, allowed 1.15: FAILS",
        "0 of 1 rows are as recorded, or better",
    ]
    assert asked == [1.0, 2.0]
    assert verdicts([0.2])[0]


def test_what_fails_is_measured_again() -> None:
    assert verdicts([1.5, 1.1])[:2] == (
        True,
        ["a row: was 1.00, is 1.10, allowed 1.15: ok", "1 of 1 rows are as recorded, or better"],
    )


@pytest.mark.parametrize("recorded", [{}, {"a row": 1.0, "another": 1.0}])
def test_a_row_that_is_missing_on_either_side_is_an_error(recorded: dict[str, float]) -> None:
    with pytest.raises(
        KeyError, match=r"recorded\.json lacks .*write it anew with `python -m benchmarks --record`"
    ):
        verdicts([1.0], recorded)
    with pytest.raises(KeyError, match="'other' is not in"):
        quick.judge("other", recorded, lambda _: 1.0)


@pytest.mark.parametrize(("now", "code"), [(1.14, 0), (1.16, 1)])
def test_the_command_exits_with_the_verdict(
    now: float, code: int, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(quick, "cells", lambda: {"a row": lambda _: now})
    monkeypatch.setattr(quick, "load", lambda: {"a row": 1.0})
    monkeypatch.setattr(sys, "argv", ["benchmarks", "--quick"])
    with pytest.raises(SystemExit) as exit_:
        command.main()
    assert exit_.value.code == code
    assert f"a row: was 1.00, is {now}, allowed 1.15" in capsys.readouterr().out


def test_the_recorded_rows_are_those_that_are_measured() -> None:
    recorded = quick.load()
    assert set(recorded) == set(quick.cells())
    assert all(0.05 < ratio < 20 for ratio in recorded.values())


def test_what_is_recorded_is_a_median() -> None:
    ratios = iter([1.0, 5.0, 2.0])
    assert quick.record({"a row": lambda _: next(ratios)}, show=lambda _: None) == {"a row": 2.0}
    with pytest.raises(ValueError, match="got 2 ratios, expected one"):
        quick._ratio(
            [Measured("", "", "x", "s", 1, 1, 1, 1, 1.0), Measured("", "", "y", "s", 1, 1, 1, 1, 1.0)]
        )


def test_a_section_that_fails_is_named_and_the_others_are_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = raw()["rows"]["floor.measure"]
    ran: list[tuple[str, float, str]] = []

    def run(section: Any, seconds: float, python: str) -> Any:
        ran.append((section.call, seconds, python))
        return None if section.call == "files.measure" else {"rows": rows, "versions": {"lerax": "1"}}

    for name in ("STORED", "PAGE", "PICTURE"):
        monkeypatch.setattr(command, name, tmp_path / "build" / f"{name}.png")
    monkeypatch.setattr(command, "run", run)
    monkeypatch.setattr(command, "about", lambda short: {**raw()["about"], "short": short})
    monkeypatch.setattr(sys, "argv", ["benchmarks", "--lerax", "another/python"])
    with pytest.raises(SystemExit) as exit_:
        command.main()
    assert exit_.value.code == 1
    text = (tmp_path / "build" / "PAGE.png").read_text()
    assert text.count("Not run") == 1
    assert "## Files" in text.partition("Not run: its process failed")[0].splitlines()[-4:][0]
    assert "With lerax 1." in text
    assert [call for call, _, _ in ran] == [section.call for section in SECTIONS]
    assert {python for call, _, python in ran if "lerax" in call} == {"another/python"}
    assert (tmp_path / "build" / "PICTURE.png").exists()

    ran.clear()
    monkeypatch.setattr(
        command, "about", lambda short: {**raw()["about"], "date": "2026-03-04", "short": short}
    )
    monkeypatch.setattr(sys, "argv", ["benchmarks", "--only", "floor.measure"])
    with pytest.raises(SystemExit):
        command.main()
    assert [call for call, _, _ in ran] == ["floor.measure"]
    text = (tmp_path / "build" / "PAGE.png").read_text()
    assert text.count("2026-01-02, 3 cores") == text.count("Measured again: 2026-03-04, 3 cores") == 1

    ran.clear()
    monkeypatch.setattr(sys, "argv", ["benchmarks", "--only", "lerax_peer.measure", "--lerax", ""])
    with pytest.raises(SystemExit):  # files.measure is still missing
        command.main()
    assert not ran
    text = (tmp_path / "build" / "PAGE.png").read_text()
    assert "Not run: there was no environment of Python 3.13" in text
    assert text.count("Not run") == 2
