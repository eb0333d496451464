"""What may import what, and what every file and public name must have."""

import ast
import importlib
import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any, TypeVar

import pytest

import policy_core as pc
from policy_core import contract, testing

ROOT = Path(__file__).parent.parent

# A room imports only from its own layer and those above it in this list.
LAYERS: list[set[str]] = [
    {"errors"},
    {"_dtypes", "checks", "configs", "contract", "trees"},
    {"memory", "networks", "normalize", "spaces"},
    {"distributions", "encoders"},
    {"heads"},
    {"actor_critic", "functions"},
    {"env_actions", "files", "population", "surgery"},
    {"testing", "__main__"},
    {""},  # `policy_core/__init__.py`
]
# 6,000 when the rooms were arranged; the rest is what compares params and actions with the config, and what
# the faults of numbers, files and modes of JAX took to mend (700), one member out of a file and sets of policies
# (300), what configs must say for the policies of other libraries (500), populations (450), policies in other
# trainers: in environment actions (100), and a critic without its actor (100), and noise that is kept,
# heads of parts and statistics of values (500). Raise it in the commit that says what it buys.
MOST_LINES = 8_600
LAYER_OF = {name: i for i, layer in enumerate(LAYERS) for name in layer}

THIRD_PARTY = {"jax", "numpy", "jaxtyping", "typing_extensions", "msgpack", "chex"}


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
    for path in CORE:
        if _module(path) == "functions":
            assert _core_imports(path) <= {"checks", "contract", "errors", "functions", "trees"}


def test_every_protocol_is_on_one_page():
    for path in EVERY_FILE:
        if path.name != "contract.py":
            bases = [
                base for node in ast.walk(ast.parse(path.read_text())) for base in getattr(node, "bases", [])
            ]
            assert "Protocol" not in {ast.unparse(base).partition("[")[0] for base in bases}, path


def test_no_name_hides_a_module():
    for path in CORE:
        if path.name != "__init__.py":
            module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            package, _, name = module.rpartition(".")
            imported = importlib.import_module(module)
            assert getattr(importlib.import_module(package), name) is imported


def test_the_core_keeps_its_budget():
    rooms = {_module(path) for path in CORE} - {""}
    assert len(rooms) <= 24
    assert sum(_lines_of_code(path) for path in CORE) <= MOST_LINES


def _lines_of_code(path: Path) -> int:
    """Lines that are neither blank, nor a comment, nor of a string that stands alone."""
    text = path.read_text()
    prose = {
        line
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)
    }
    return sum(
        1
        for i, line in enumerate(text.splitlines(), 1)
        if i not in prose and line.strip() and not line.strip().startswith("#")
    )


@pytest.mark.parametrize("path", CORE, ids=_id)
def test_the_core_imports_nothing_but_its_dependencies(path):
    roots = {name.partition(".")[0] for name in _imports(path)}
    assert roots - set(sys.stdlib_module_names) - {"policy_core"} <= THIRD_PARTY


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


# 400 lines are a smell. These files are longer, and why.
LONG: dict[str, str] = {
    "policy_core/actor_critic/config.py": "every field of the shipped policy, a quarter of it their description",
    "policy_core/contract.py": "every protocol on one page",
    "policy_core/files/policies.py": "save, load, verify and inspect, half of it their docstrings",
    "policy_core/functions/step.py": "the functions of one step, two thirds of it their docstrings",
}


@pytest.mark.parametrize("path", EVERY_FILE, ids=_id)
def test_a_file_has_a_docstring_and_is_short_or_says_why_not(path):
    text = path.read_text()
    assert ast.get_docstring(ast.parse(text))
    assert len(text.splitlines()) <= 400 or _id(path) in LONG


def test_the_public_surface_fits_a_screen():
    assert pc.__all__ == sorted(pc.__all__)
    assert len(pc.__all__) <= 60
    modules = {name for name in dir(pc) if inspect.ismodule(getattr(pc, name))}
    assert set(dir(pc)) == {*pc.__all__, "__version__", *modules}
    assert all(f"`{name}`" in pc.__doc__ for name in modules)


def test_a_renamed_name_is_found_with_a_warning(monkeypatch):
    monkeypatch.setitem(pc._RENAMED, "initialize", "init")
    with pytest.warns(
        DeprecationWarning, match=r"^policy_core\.initialize is deprecated, use policy_core\.init$"
    ):
        assert pc.initialize is pc.init
    with pytest.raises(AttributeError, match="no attribute 'initialise'"):
        _ = pc.initialise
    assert set(pc._RENAMED.values()) <= set(pc.__all__)


def _exports() -> set[str]:
    """What is public: the names, and the modules that are named in the docstring."""
    return set(dir(pc)) - {"__version__"}


def _public() -> dict[str, Any]:
    """The names of `policy_core`, and those of its public modules that are not among them."""
    names = {name: getattr(pc, name) for name in pc.__all__}
    for module in (name for name in dir(pc) if inspect.ismodule(getattr(pc, name))):
        for name, x in vars(getattr(pc, module)).items():
            ours = getattr(x, "__module__", "").startswith(f"policy_core.{module}")
            called = callable(x) and not isinstance(x, TypeVar)
            if not name.startswith("_") and called and ours and x is not names.get(name):
                names[f"{module}.{name}"] = x
    return {**names, "testing.check_policy": testing.check_policy}


PUBLIC = _public()
ALIASES = {"Policy"}  # of types: what they mean is a string below them in the source

# What has no example: what is implemented or caught, and not called.
WITHOUT_EXAMPLE = {
    *(f"contract.{name}" for name, x in vars(contract).items() if getattr(x, "_is_protocol", False)),
    *(name for name in PUBLIC if name.startswith("errors.")),
} - {"contract.Protocol"}


def test_the_public_names_are_found():
    assert {"act", "MLP", "save", "Box", "static", "distributions.Normal"} <= set(PUBLIC)
    assert {"spaces.JointMask", "files.FileInfo", "contract.Head", "surgery.LeafReport"} <= set(PUBLIC)


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
        and not any(
            name in vars(protocol)
            for protocol in (pc.contract.Space, pc.contract.Distribution, pc.contract.ActorCritic)
        )
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
