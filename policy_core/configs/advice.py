"""What to write instead of a value that a field refuses, for its error."""

import inspect
import sys
import types
import typing
from typing import Any

from policy_core.configs.registry import CONFIGS, is_static, name_of

LEGAL = "bool, int, float, str, None, a tuple of these, or a static config"


def describe(value: Any) -> str:
    """The type of a value and, if it is short, the value."""
    if isinstance(value, type):
        return f"the class {value.__name__}"
    text = repr(value)
    if hasattr(value, "shape") and hasattr(value, "dtype") and hasattr(value, "ndim"):  # of whatever library
        text = f"of shape {value.shape} and dtype {value.dtype}"
    return f"{type(value).__name__} {text if len(text) <= 60 else text[:57] + '...'}"


def advise(value: Any, hint: Any) -> str:
    """What to write instead, for a field of this annotation."""
    options = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    kinds = [option for option in options if option is not type(None)]
    if configs := [cls for kind in kinds for cls in _configs_of(typing.get_origin(kind) or kind)]:
        return _use_a_config(value, configs)
    if isinstance(value, type) and CONFIGS.get(name_of(value)) is value:
        return f"use {value.__name__}(...)"
    if type(value) is list:
        return "use a tuple"
    if any(typing.get_origin(kind) is tuple for kind in kinds) and isinstance(value, int | float | str):
        return f"use ({value!r},)"
    dtype = getattr(value, "name", getattr(value, "__name__", None))  # of NumPy, or of jax.numpy
    if any(dtype in typing.get_args(kind) for kind in kinds if typing.get_origin(kind) is typing.Literal):
        return f"use {dtype!r}"
    if isinstance(value, bool):
        return "use an int or a float: True and 1 would share a compiled program"
    if isinstance(value, dict | set):
        return f"use {LEGAL}"
    if hasattr(value, "dtype"):
        if getattr(value, "ndim", 0):
            return "use a tuple of Python numbers; arrays that learn belong in the params"
        return "use a Python number, such as `.item()` gives; a traced value belongs in the params"
    if any(typing.get_origin(kind) is typing.Literal for kind in kinds) and isinstance(value, int | str):
        return "use one of these"
    if callable(value) and not is_static(value):
        return "refer to functions by their registered name, such as 'tanh'"
    return f"a config holds only {LEGAL}"


def signature_of(cls: type) -> str:
    """How a config is written: its name and its arguments with their defaults."""
    parameters = inspect.signature(cls).parameters.values()
    plain = [parameter.replace(annotation=inspect.Parameter.empty) for parameter in parameters]
    return f"{cls.__name__}{inspect.Signature(plain)}"


def _path_of(cls: type) -> str:
    """Where a config class is found: at the top of this library, or in the public module that has it."""
    package, _, name = name_of(cls).partition("/")
    if package != "policy_core" or name in vars(sys.modules[package]):
        return f"{package}.{name}"
    return f"{'.'.join(cls.__module__.split('.')[:2])}.{name}"


def _use_a_config(value: Any, configs: list[type]) -> str:
    by_name = {cls.__name__.lower(): _path_of(cls) for cls in configs}
    name = value if isinstance(value, str) else getattr(value, "__name__", type(value).__name__)
    if match := by_name.get(str(name).replace("_", "").lower()):
        return f"use {match}(...)"
    return f"use a config: {', '.join(sorted(by_name.values()))}, or one of your own"


def _configs_of(kind: Any) -> list[type]:
    """The registered classes of configs that have the methods of a protocol, arguments and all."""
    if not getattr(kind, "_is_protocol", False):
        return []
    methods = {name: _arguments(method) for name, method in vars(kind).items() if inspect.isfunction(method)}
    methods = {name: arguments for name, arguments in methods.items() if not name.startswith("_")}
    return [
        cls
        for cls in list(CONFIGS.values())
        if all(_arguments(getattr(cls, name, None)) == arguments for name, arguments in methods.items())
    ]


def _arguments(method: Any) -> tuple[str, ...] | None:
    return tuple(inspect.signature(method).parameters) if inspect.isfunction(method) else None
