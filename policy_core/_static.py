"""Static configs: frozen data that JAX carries in the tree structure, and a typed `jit`.

JAX compares static data with `==` and never looks inside it. A list field, an array,
a NaN, or `True` where `1` was meant would therefore reuse the wrong compiled program
or retrace for ever. So every field is checked deeply and exactly when a config is
built, once; under `jit` a config is never rebuilt.

Two configs are equal exactly if their canonical encodings are, and the fingerprint of
a policy file is a hash of that same encoding: equality and fingerprint cannot disagree.
"""

import dataclasses
import functools
import inspect
import math
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, TypeVar, cast

import jax
import msgpack
from typing_extensions import dataclass_transform

from policy_core.errors import ConfigError

_T = TypeVar("_T")
_P = ParamSpec("_P")
_R = TypeVar("_R")

# Name -> class of every config, the only way from a file back to a class.
_CONFIGS: dict[str, type] = {}

# How often a class was registered: what was read from a file before may mean another class now.
_registrations = 0

_LATER = "policy_core.later"

_LEGAL = "bool, int, float, str, None, a tuple of these, or a static config"


def jit(function: Callable[_P, _R], /) -> Callable[_P, _R]:
    """`jax.jit` whose result keeps the signature of `function` for type checkers."""
    return cast("Callable[_P, _R]", jax.jit(function, inline=True))


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(dataclasses.field,))
def static(cls: type[_T], /) -> type[_T]:
    """Make a class a static config: frozen, keyword-only, validated, hashable, leafless.

    Fields may hold bool, int, float, str, None, tuples of these, and other configs; what
    a field holds is declared by its annotation and checked exactly when a config is built
    (an int is accepted for a float, nothing else is converted). Functions are referred
    to by registered name. A `__post_init__` of the class runs after the check, and may
    raise `ConfigError` or normalise a field with `set_field`.

    The config is registered with JAX as a tree without leaves, so `(params, config)` goes
    through `jit`, `grad`, `vmap` and `scan` as it is. It is also registered under the name
    `"<top-level package>/<class name>"`, by which files refer to it; two different classes
    may not share that name.

    Raises:
        ConfigError: when a field holds something else, naming its path and the fix.

    Example:
        >>> from policy_core import static
        >>> @static
        ... class Torso:
        ...     width: int = 64
        ...     gain: float = 1.0
        >>> Torso(width=32) == Torso(width=32, gain=1)
        True
        >>> Torso(width=[32])
        Traceback (most recent call last):
        ...
        policy_core.errors.ConfigError: Torso.width: got list [32], expected int; ...
    """
    if parents := [base.__qualname__ for base in cls.__mro__[1:] if dataclasses.is_dataclass(base)]:
        raise ConfigError(
            f"{cls.__qualname__}: derives from the config {parents[0]}; configs are final, hold one "
            "in a field instead"
        )
    post_init: Callable[[Any], None] | None = cls.__dict__.get("__post_init__")

    def validate(self: Any) -> None:
        _validate_fields(self)
        if post_init is not None:
            post_init(self)
        encoding = pack(to_data(self))
        object.__setattr__(self, "_encoding", encoding)
        object.__setattr__(self, "_hash", hash(encoding))

    def equal(self: Any, other: object) -> bool:
        if self is other:
            return True
        if type(self) is not type(other):
            return False
        return encoding_of(self) == encoding_of(other)

    def reduce(self: Any) -> tuple[Any, ...]:
        return (build, (type(self), fields_of(self)))

    for name, method in (
        ("__post_init__", validate),
        ("__eq__", equal),
        ("__hash__", lambda self: self._hash),
        ("__reduce__", reduce),
    ):
        setattr(cls, name, method)
    config = dataclasses.dataclass(frozen=True, kw_only=True, eq=False)(cls)
    # Run-time type checkers leave the constructor alone: what it takes is checked here.
    config.__no_type_check__ = True  # type: ignore[attr-defined]
    _register(config)
    return jax.tree_util.register_static(config)


def later(default: _T) -> _T:
    """The default of a field that is added to a config class of which files exist.

    A field with this default is left out of the encoding, and so of the fingerprint, as long
    as it holds the default: configs made before it keep their fingerprints, and equal configs
    equal fingerprints. What the field's absence means must never change, so neither may this
    default; an ordinary default may.

    Args:
        default: the value that leaves the behaviour of old configs as it was.

    Example:
        >>> from policy_core import fingerprint, later, static
        >>> @static
        ... class Tower:
        ...     width: int
        >>> old = fingerprint(Tower(width=8))
        >>> @static
        ... class Tower:
        ...     width: int
        ...     dropout: float = later(0.0)
        >>> fingerprint(Tower(width=8)) == old, fingerprint(Tower(width=8, dropout=0.5)) == old
        (True, False)
    """
    return dataclasses.field(default=default, metadata={_LATER: True})


def registrations() -> int:
    """Changes whenever a class of configs is registered."""
    return _registrations


def name_of(cls: type) -> str:
    """The name by which files refer to a config class."""
    return f"{cls.__module__.partition('.')[0]}/{cls.__qualname__}"


def is_static(value: object) -> bool:
    """Whether `value` is an instance of a `@static` class."""
    return _CONFIGS.get(name_of(type(value))) is type(value)


def fields_of(config: Any) -> dict[str, Any]:
    """Field name to value, in the order of the class."""
    return {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}


def set_field(config: object, name: str, value: object) -> None:
    """Normalise one field; only from `__init__` or `__post_init__` of a static class."""
    object.__setattr__(config, name, value)


def build(cls: type[_T], values: Mapping[str, object]) -> _T:
    """A config from all of its field values, validated as any other."""
    config = object.__new__(cls)
    for name, value in values.items():
        set_field(config, name, value)
    cast(Any, config).__post_init__()
    return config


def to_data(value: Any) -> Any:
    """Plain data of a config: maps `{"type": name, "fields": {...}}`, lists, scalars."""
    if isinstance(value, tuple):
        return [to_data(item) for item in value]
    if is_static(value):
        added = _added_defaults(cast("Any", type(value)))
        fields = {
            name: to_data(item)
            for name, item in sorted(fields_of(value).items())
            if name not in added or pack(to_data(item)) != added[name]
        }
        return {"type": name_of(type(value)), "fields": fields}
    return value


@functools.cache
def _added_defaults(cls: Any) -> dict[str, bytes]:
    """The encoded defaults of the fields that were declared with `later`."""
    hints = _hints(cls)
    return {
        field.name: pack(to_data(_exact(field.default, hints[field.name], f"{cls.__name__}.{field.name}")))
        for field in dataclasses.fields(cls)
        if _LATER in field.metadata
    }


def from_data(data: Any, path: str = "config") -> Any:
    """Inverse of `to_data`. Fields that the data lacks take their default.

    Raises:
        ConfigError: for an unknown type or field, or a value that the field refuses.
    """
    if isinstance(data, list):
        return tuple(from_data(item, f"{path}[{i}]") for i, item in enumerate(data))
    if not isinstance(data, dict):
        return data
    if set(data) != {"type", "fields"} or not isinstance(data["fields"], dict):
        raise ConfigError(f"{path}: a config is a map of 'type' and 'fields', got {list(data)}")
    name = data["type"]
    cls = _CONFIGS.get(name) if isinstance(name, str) else None
    if cls is None:
        raise ConfigError(
            f"{path}: no config type named {name!r} is known here; import the module that defines it"
        )
    values = {key: from_data(item, f"{path}.{key}") for key, item in data["fields"].items()}
    fields = {field.name: field for field in dataclasses.fields(cls)}
    if unknown := sorted(set(values) - set(fields), key=str):
        raise ConfigError(f"{path}: {name} has no field {unknown[0]!r}; it has {sorted(fields)}")
    for key, field in fields.items():
        if key not in values:
            if field.default_factory is not dataclasses.MISSING:
                values[key] = field.default_factory()
            elif field.default is not dataclasses.MISSING:
                values[key] = field.default
            else:
                raise ConfigError(f"{path}: the field {key!r} of {name} is missing")
    return build(cls, values)


def encoding_of(config: Any) -> bytes:
    """The canonical msgpack bytes of a config: sorted fields, shortest ints, 64-bit floats."""
    encoding: bytes = config._encoding
    return encoding


def pack(data: Any) -> bytes:
    """Msgpack bytes of plain data."""
    return cast("bytes", msgpack.packb(data, use_bin_type=True))


def _register(cls: type) -> None:
    name = name_of(cls)
    known = _CONFIGS.get(name)
    if known is not None and known.__module__ != cls.__module__:
        raise ConfigError(
            f"{cls.__module__}.{cls.__qualname__}: a config named {name!r} exists already in "
            f"{known.__module__}; rename one of the two"
        )
    global _registrations
    _registrations += 1
    _CONFIGS[name] = cls  # the same class again, as after a reload, replaces itself


@functools.cache
def _hints(cls: Any) -> dict[str, Any]:
    return inspect.get_annotations(cls, eval_str=True)


def _validate_fields(config: Any) -> None:
    cls = type(config)
    hints = _hints(cast("Any", cls))
    for name, value in fields_of(config).items():
        path = f"{cls.__name__}.{name}"
        set_field(config, name, _exact(value, hints[name], path))


def _exact(value: Any, hint: Any, path: str) -> Any:
    """`value` in its canonical form, or a `ConfigError` that names `path`."""
    matched, result = _match(value, hint, path)
    if matched:
        return result
    raise ConfigError(f"{path}: got {_describe(value)}, expected {_name(hint)}; {_advice(value)}")


def _match(value: Any, hint: Any, path: str) -> tuple[bool, Any]:
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        for option in typing.get_args(hint):
            matched, result = _match(value, option, path)
            if matched:
                return True, result
        return False, None
    if origin is typing.Literal:
        legal = [item for item in typing.get_args(hint) if type(item) is type(value)]
        return value in legal, value
    if origin is tuple:
        return _match_tuple(value, typing.get_args(hint), path)
    if hint is float:
        return _match_float(value, path)
    if hint in (bool, str):
        return type(value) is hint, value
    if hint is int:
        if type(value) is int and not -(2**63) <= value < 2**63:
            raise ConfigError(f"{path}: got {value}, expected an int of at most 64 bits")
        return type(value) is int, value
    if hint in (None, type(None)):
        return value is None, value
    kind = origin or hint
    if not isinstance(kind, type):
        raise ConfigError(f"{path}: {hint} is not an annotation of static data; name what it holds")
    return isinstance(value, kind) and is_static(value), value


def _match_tuple(value: Any, hints: tuple[Any, ...], path: str) -> tuple[bool, Any]:
    if type(value) is not tuple:
        return False, None
    if len(hints) == 2 and hints[1] is Ellipsis:
        hints = (hints[0],) * len(value)
    if len(hints) != len(value):
        return False, None
    items = zip(value, hints, strict=True)
    return True, tuple(_exact(item, hint, f"{path}[{i}]") for i, (item, hint) in enumerate(items))


def _match_float(value: Any, path: str) -> tuple[bool, Any]:
    if type(value) is int:
        try:
            exact = int(float(value)) == value
        except OverflowError:
            exact = False
        if not exact:
            raise ConfigError(f"{path}: got the int {value}, which no float holds exactly")
        return True, float(value)
    if type(value) is not float:
        return False, None
    if math.isnan(value):
        raise ConfigError(f"{path}: got NaN, expected a number; NaN never equals itself")
    return True, value + 0.0  # -0.0 and 0.0 are one config


def _name(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) and not typing.get_args(hint) else str(hint)


def _describe(value: Any) -> str:
    text = repr(value)
    if hasattr(value, "shape") and hasattr(value, "dtype"):  # an array, of whatever library
        text = f"of shape {value.shape} and dtype {value.dtype}"
    return f"{type(value).__name__} {text if len(text) <= 60 else text[:57] + '...'}"


def _advice(value: Any) -> str:
    """What to write instead."""
    match value:
        case list():
            return "use a tuple"
        case dict() | set():
            return f"use {_LEGAL}"
        case bool():
            return "use an int or a float: True and 1 would share a compiled program"
    if hasattr(value, "dtype"):
        if getattr(value, "ndim", 0):
            return "use a tuple of Python numbers; arrays that learn belong in the params"
        return "use a Python number, such as `.item()` gives; a traced value belongs in the params"
    if callable(value) and not is_static(value):
        return "refer to functions by their registered name, such as 'tanh'"
    return f"a config holds only {_LEGAL}"
