"""Every example in a docstring and in the README runs and prints what it says."""

import doctest
import importlib
import pkgutil
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import policy_core

ROOT = Path(__file__).parent.parent
MODULES = ["policy_core"] + [
    module.name
    for module in pkgutil.walk_packages(policy_core.__path__, "policy_core.")
    if module.name != "policy_core.__main__"
]


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples_run(name: str) -> None:
    module = importlib.import_module(name)
    names = {**vars(module), "jax": jax, "jnp": jnp, "np": np}
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    result = doctest.testmod(module, extraglobs=names, optionflags=flags)
    assert result.failed == 0


@pytest.mark.parametrize("page", ["README.md", *(f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md"))])
def test_code_of_a_page_runs(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
    if page == "README.md":
        assert blocks
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    for block in blocks:
        exec(compile(block, page, "exec"), names)


def test_readme_names_every_public_function() -> None:
    text = (ROOT / "README.md").read_text()
    public = [name for name, value in vars(policy_core).items() if callable(value) and name[0].islower()]
    assert [name for name in public if f"`{name}" not in text] == []


def test_changelog_has_the_version() -> None:
    assert f"## [{policy_core.__version__}]" in (ROOT / "CHANGELOG.md").read_text()
