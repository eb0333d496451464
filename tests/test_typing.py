"""Types are behavior: right uses pass, and each wrong use is an error, in two checkers."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
WRONG = ROOT / "tests" / "typing" / "wrong.py"
PREFIX = WRONG.read_text().partition("# ---")[0]
CASES = re.findall(r"^# (.+)\n((?:[^#\n].*\n)+)", WRONG.read_text().partition("# ---")[2], re.MULTILINE)


@pytest.fixture(scope="module")
def wrong_lines() -> dict[str, set[int]]:
    """For each checker, the lines of wrong.py that it complains about."""

    def output(*command: str) -> str:
        run = subprocess.run(
            [sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, check=False
        )
        return run.stdout

    mypy = output("mypy", str(WRONG))
    pyright = output("pyright", "--pythonpath", sys.executable, str(WRONG))
    return {
        "mypy": {int(n) for n in re.findall(r"wrong\.py:(\d+): error", mypy)},
        "pyright": {int(n) for n in re.findall(r"wrong\.py:(\d+):\d+ - error", pyright)},
    }


@pytest.mark.parametrize("checker", ["mypy", "pyright"])
@pytest.mark.parametrize("case", range(len(CASES)), ids=[title for title, _ in CASES])
def test_wrong_use_is_an_error(wrong_lines: dict[str, set[int]], checker: str, case: int) -> None:
    title, code = CASES[case]
    first = WRONG.read_text().splitlines().index(f"# {title}") + 2
    lines = set(range(first, first + code.count("\n")))
    assert wrong_lines[checker] & lines, f"{checker} accepts: {code}"


@pytest.mark.parametrize("checker", ["mypy", "pyright"])
def test_nothing_else_is_an_error(wrong_lines: dict[str, set[int]], checker: str) -> None:
    assert not {line for line in wrong_lines[checker] if line <= PREFIX.count("\n")}
