"""What may import what, and what every file and public name must have."""

import ast
import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import policy_core as pc
from policy_core import distributions, spaces, testing

ROOT = Path(__file__).parent.parent

# A module imports only from its own layer and those above it in this list.
LAYERS: list[set[str]] = [
    {"errors"},
    {"_arguments", "_drawn", "_dtypes", "_registry", "_structure", "_static", "contract"},
    {"spaces", "fingerprint", "networks", "memory", "normalize"},
    {"distributions", "encoders"},
    {"heads", "views", "values"},
    {"actor_critic", "policy", "sequences", "training"},
    {"files"},
    {"testing", "_draws", "_requirements", "transplant", "__main__"},
    {""},  # `policy_core/__init__.py`
]
LAYER_OF = {name: i for i, layer in enumerate(LAYERS) for name in layer}

THIRD_PARTY = {"jax", "numpy", "jaxtyping", "typing_extensions", "msgpack", "chex"}
IF_INSTALLED = {"__main__": {"rich"}}


def _files(folder: str) -> list[Path]:
    return sorted(path for path in (ROOT / folder).rglob("*.py"))


CORE = _files("policy_core")
ADAPTERS = _files("adapters")
EVERY_FILE = [*CORE, *ADAPTERS]


def _id(path: Path) -> str:
    return str(path.relative_to(ROOT))


def _module(path: Path) -> str:
    """The part of a file's module name that has a layer: `spaces` of `policy_core/spaces/box.py`."""
    return path.relative_to(ROOT / "policy_core").with_suffix("").parts[0].removesuffix("__init__")


def _imports(path: Path) -> list[str]:
    """Everything that a file imports, wherever in it: `a.b` and, for `from a import b`, `a.b` too."""
    names = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return names


def _core_imports(path: Path) -> set[str]:
    """The modules of `policy_core` that have a layer and are imported."""
    return {name.split(".")[1] for name in _imports(path) if name.startswith("policy_core.")}


def test_there_are_files_to_check():
    assert len(CORE) >= 20
    assert len(ADAPTERS) >= 3
    assert {_module(path) for path in CORE} == set(LAYER_OF)


@pytest.mark.parametrize("path", CORE, ids=_id)
def test_a_module_imports_only_from_its_layer_or_below(path):
    layer = LAYER_OF[_module(path)]
    for name in _core_imports(path):
        assert name in LAYER_OF, f"{name} is not a module of policy_core"
        assert LAYER_OF[name] <= layer, f"{_id(path)} imports {name}, which is above it"
    assert not [name for name in _imports(path) if name == "policy_core"], "import the module that is meant"


def test_modules_import_each_other_in_one_direction_only():
    edges: dict[str, set[str]] = {}
    for path in CORE:
        edges.setdefault(_module(path), set()).update(_core_imports(path) - {_module(path)})
    done: set[str] = set()
    while ready := {name for name in edges if name not in done and edges[name] <= done}:
        done |= ready
    assert done == set(edges), f"these import each other in a circle: {set(edges) - done}"


def test_the_free_functions_know_no_implementation():
    for name in ("policy", "sequences", "training"):
        imported = _core_imports(ROOT / f"policy_core/{name}.py")
        assert imported <= {"_arguments", "_static", "_structure", "contract", "errors", "policy"}


@pytest.mark.parametrize("path", CORE, ids=_id)
def test_the_core_imports_nothing_but_its_dependencies(path):
    roots = {name.partition(".")[0] for name in _imports(path)}
    assert roots - set(sys.stdlib_module_names) - {"policy_core"} <= THIRD_PARTY | IF_INSTALLED.get(
        path.stem, set()
    )


def test_every_dependency_of_the_core_is_imported():
    used = {name.partition(".")[0] for path in CORE for name in _imports(path)}
    lines = (ROOT / "pyproject.toml").read_text().split("\ndependencies = [")[1].split("]")[0]
    declared = {line.strip().strip('",').partition(">")[0] for line in lines.strip().splitlines()}
    assert {name.replace("-", "_") for name in declared} <= used | {"numpy"}


@pytest.mark.parametrize("path", ADAPTERS, ids=_id)
def test_adapters_use_only_public_names_of_the_core(path):
    exported = _exports()
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                assert alias.name == "policy_core" or not alias.name.startswith("policy_core.")
        if isinstance(node, ast.ImportFrom) and node.module:
            assert not node.module.startswith("policy_core."), f"{node.module} is not public"
            if node.module == "policy_core":
                assert {alias.name for alias in node.names} <= exported
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "pc":
            assert node.attr in exported, f"pc.{node.attr} is not public"


@pytest.mark.parametrize("path", EVERY_FILE, ids=_id)
def test_files_are_short_and_have_a_docstring(path):
    text = path.read_text()
    assert len(text.splitlines()) <= 400
    assert ast.get_docstring(ast.parse(text))


def _exports() -> set[str]:
    """The names that `policy_core/__init__.py` exports, each spelt `X as X`."""
    names = set()
    for node in ast.parse((ROOT / "policy_core/__init__.py").read_text()).body:
        if isinstance(node, ast.ImportFrom):
            assert all(alias.asname == alias.name for alias in node.names)
            names |= {alias.name for alias in node.names}
    return names


PUBLIC: dict[str, Any] = {
    **{name: getattr(pc, name) for name in _exports()},
    **{f"distributions.{name}": x for name, x in vars(distributions).items() if inspect.isclass(x)},
    "testing.check_policy": testing.check_policy,
}
ALIASES = {"Policy"}  # of types: what they mean is a string below them in the source

# What has no example: protocols are not called, and some functions are shown at their siblings.
WITHOUT_EXAMPLE = {  # protocols and modules
    "ActorCritic",
    "DetachableActorCritic",
    "Distribution",
    "Encoder",
    "Head",
    "Memory",
    "Network",
    "NormalizingActorCritic",
    "SequenceActorCritic",
    "Space",
    "ValueHead",
    "ValuePrediction",
    "distributions",
    "errors",
}


def test_the_public_names_are_found():
    assert {"act", "MLP", "save", "Box", "static", "distributions.Normal"} <= set(PUBLIC)
    assert {name for name in vars(spaces) if name[0].isupper()} <= set(PUBLIC)


@pytest.mark.parametrize("name", sorted(set(PUBLIC) - ALIASES))
def test_every_public_name_has_a_docstring(name):
    text = inspect.getdoc(PUBLIC[name])
    assert text
    assert not text.startswith(f"{PUBLIC[name].__name__}("), "that is what dataclasses write"


@pytest.mark.parametrize("name", sorted(ALIASES))
def test_every_public_alias_has_a_docstring(name):
    body = ast.parse((ROOT / "policy_core/contract.py").read_text()).body
    for node, following in zip(body, body[1:], strict=False):
        if isinstance(node, ast.AnnAssign) and getattr(node.target, "id", None) == name:
            assert isinstance(following, ast.Expr)
            assert isinstance(following.value, ast.Constant)
            return
    pytest.fail(f"{name} is not in contract.py")


def test_every_public_name_has_an_example_or_is_listed_as_without():
    without = {name for name in set(PUBLIC) - ALIASES if ">>>" not in inspect.getdoc(PUBLIC[name])}
    assert without == WITHOUT_EXAMPLE


def test_the_public_methods_have_docstrings():
    classes = {cls for cls in PUBLIC.values() if inspect.isclass(cls)}
    missing = [
        f"{cls.__name__}.{name}"
        for cls in classes
        for name, method in vars(cls).items()
        if not name.startswith("_")
        and (inspect.isfunction(method) or isinstance(method, property))
        and not method.__doc__
        # A method of a protocol is documented there.
        and not any(name in vars(protocol) for protocol in (pc.Space, pc.Distribution, pc.ActorCritic))
    ]
    assert missing == []


def test_importing_the_core_imports_no_optional_package():
    script = "import sys, policy_core; print(*{name.partition('.')[0] for name in sys.modules})"
    result = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=120, check=True
    )
    imported = set(result.stdout.split())
    assert {"policy_core", "jax", "msgpack"} <= imported
    optional = {"optax", "gymnax", "flax", "distrax", "scipy", "matplotlib", "rich", "hypothesis", "beartype"}
    assert not imported & (optional | {"policy_core_adapters"})
