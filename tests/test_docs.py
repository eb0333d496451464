"""Every example in a docstring and on a page runs and prints what it says."""

import contextlib
import doctest
import importlib
import io
import pkgutil
import re
from pathlib import Path

import pytest

import policy_core

ROOT = Path(__file__).parent.parent
PAGES = [
    "README.md",
    "CONTRIBUTING.md",
    *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md"))),
]
MODULES = ["policy_core"] + [
    module.name
    for module in pkgutil.walk_packages(policy_core.__path__, "policy_core.")
    if module.name != "policy_core.__main__"
]
_BLOCK = re.compile(r"^```python\n(.*?)^```\n(?:\n```text\n(.*?)^```\n)?", re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples_run(name: str) -> None:
    """Each with an empty name space: an example imports what it uses."""
    module = importlib.import_module(name)
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    for example in doctest.DocTestFinder(exclude_empty=True).find(module, globs={}):
        runner.run(example)
    assert runner.summarize().failed == 0


OTHERS = {  # run packages that mix dtypes and warn, or that `make test` has not
    "docs/environments.md": ("jumanji", "pgx", "brax", "jaxmarl", "pettingzoo"),
    "docs/deploy.md": ("onnx", "onnxruntime"),
    "docs/trainers.md": ("brax", "flax", "rejax"),
}


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, marks=pytest.mark.filterwarnings("default" if page in OTHERS else "error"))
        for page in PAGES
    ],
)
def test_code_of_a_page_runs_and_prints_what_follows_it(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """The blocks of a page share their names; a ```text block after one is what it prints."""
    monkeypatch.chdir(tmp_path)
    if page in OTHERS:
        for package in OTHERS[page]:
            pytest.importorskip(package, reason=f"{package} is not installed: make test-more")
        request.getfixturevalue("lenient")
    names: dict = {"__name__": f"page_{Path(page).stem}"}
    for code, text in _BLOCK.findall((ROOT / page).read_text()):
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(compile(code, page, "exec"), names)
        if text:
            assert printed.getvalue() == text


def test_the_page_of_the_functions_names_every_public_function() -> None:
    text = (ROOT / "docs/functions.md").read_text()
    public = [name for name, value in vars(policy_core).items() if callable(value) and name[0].islower()]
    assert [name for name in public if f"`{name}" not in text] == []
    table = text.split("| function of `pc.population` |")[1].split("\n\n")[0]
    assert [name for name in policy_core.population.__all__ if f"`{name}(" not in table] == []


def test_the_api_page_has_every_public_name() -> None:
    text = (ROOT / "docs/api.md").read_text()
    public = [*policy_core.__all__, *(f"population.{name}" for name in policy_core.population.__all__)]
    assert [name for name in public if f"::: policy_core.{name}\n" not in text] == []


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_links_of_a_page_lead_to_files(page: str) -> None:
    """Those of docs/ are checked by `make docs`."""
    links = re.findall(r"\]\(([^)\s]+)", (ROOT / page).read_text())
    assert [link for link in links if not (link.startswith("https:") or (ROOT / link).exists())] == []


@pytest.mark.parametrize("page", PAGES)
def test_links_to_tests_name_tests_that_are_there(page: str) -> None:
    """`[yes](tests/test_x.py "test_y")`: the title is a test of the file."""
    for path, title in re.findall(r'\]\(((?:\.\./)?tests/[^)\s]*)(?: "(\w+)")?\)', (ROOT / page).read_text()):
        text = (ROOT / page).parent.joinpath(path).resolve().read_text()
        assert not title or f"def {title}(" in text


def test_changelog_has_the_version() -> None:
    assert f"## [{policy_core.__version__}]" in (ROOT / "CHANGELOG.md").read_text()
