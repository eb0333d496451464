"""Types are behaviour: right uses pass, and each wrong use is an error, in two checkers."""

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
def wrong_lines(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[int]]:
    """For each checker, the lines of wrong.py that it complains about."""
    mypy = subprocess.run(
        [sys.executable, "-m", "mypy", str(WRONG)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    project = tmp_path_factory.mktemp("pyright") / "pyrightconfig.json"
    folders = ", ".join(f'"{ROOT / name}"' for name in (".", "adapters"))
    project.write_text(f'{{"include": ["{WRONG}"], "extraPaths": [{folders}]}}')
    pyright = subprocess.run(
        [sys.executable, "-m", "pyright", "-p", str(project), "--pythonpath", sys.executable],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return {
        "mypy": {int(n) for n in re.findall(r"wrong\.py:(\d+): error", mypy.stdout)},
        "pyright": {int(n) for n in re.findall(r"wrong\.py:(\d+):\d+ - error", pyright.stdout)},
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
