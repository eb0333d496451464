"""Exact validation of the fields of a config against their annotations."""

import dataclasses
import functools
import inspect
import math
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, cast

from policy_core.configs.advice import advise, describe
from policy_core.configs.registry import is_static
from policy_core.errors import ConfigError

# Arrays in a file have at most 32 axes, of which half are for populations, and less than 2^62 bytes.
_MOST_AXES, _MOST_NUMBERS = 16, 2**60


def validate_fields(config: Any) -> None:
    """Convert every field to its canonical form; raise `ConfigError` for the first invalid one."""
    cls = type(config)
    hints = hints_of(cast("Any", cls))
    for name, value in fields_of(config).items():
        path = f"{cls.__name__}.{name}"
        set_field(config, name, exact(value, hints[name], path))


def exact(value: Any, hint: Any, path: str) -> Any:
    """`value` in its canonical form; raise `ConfigError`, with `path` in it, if it is invalid."""
    matched, result = _match(value, hint, path)
    if matched:
        return result
    raise ConfigError(f"{path}: got {describe(value)}, expected {_name(hint)}; {advise(value, hint)}")


@functools.cache
def hints_of(cls: Any) -> dict[str, Any]:
    """The annotations of a class, evaluated."""
    return inspect.get_annotations(cls, eval_str=True)


def fields_of(config: Any) -> dict[str, Any]:
    """Field name to value, in the order of the class."""
    return {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}


def set_field(config: object, name: str, value: object) -> None:
    """Set a field of a frozen config; only from `__init__` or `__post_init__` of its class."""
    object.__setattr__(config, name, value)


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
        kinds = set(typing.get_args(hints[0]) or hints[:1])
        if kinds <= {int, str} and all(
            type(x) in kinds and (type(x) is str or -(2**63) <= x < 2**63) for x in value
        ):
            return True, value  # there may be many
        hints = (hints[0],) * len(value)
    if len(hints) != len(value):
        return False, None
    items = zip(value, hints, strict=True)
    return True, tuple(exact(item, hint, f"{path}[{i}]") for i, (item, hint) in enumerate(items))


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
    return True, value + 0.0  # canonical form: -0.0 becomes 0.0, so that equal floats have equal bytes


def _name(hint: Any) -> str:
    if typing.get_origin(hint) is typing.Literal:
        return " or ".join(map(repr, typing.get_args(hint)))
    return hint.__name__ if isinstance(hint, type) and not typing.get_args(hint) else str(hint)


def check_at_least(config: Any, least: int, *names: str, of: str = "", otherwise: str = "") -> None:
    """Raise `ConfigError` if one of the fields is, or contains, a number below `least`.

    Args:
        config: the config.
        least: the smallest number allowed.
        names: names of fields that are a number, a tuple of numbers, or None, which is allowed.
        of: what the numbers are, such as "widths", for the error.
        otherwise: which other values are allowed, for the error.
    """
    for name in names:
        value = getattr(config, name)
        numbers = value if isinstance(value, tuple) else () if value is None else (value,)
        if any(number < least for number in numbers):
            expected = f"{of} of at least {least}" if of else f"at least {least}"
            raise ConfigError(f"{type(config).__name__}.{name}: got {value}, expected {expected}{otherwise}")


def check_shape(config: Any, shape: tuple[int, ...]) -> None:
    """Raise `ConfigError` for a shape that no array in a file can have."""
    name = type(config).__name__
    if len(shape) > _MOST_AXES:
        raise ConfigError(f"{name}.shape: got {len(shape)} axes, at most {_MOST_AXES} are allowed")
    if any(size < 0 for size in shape):
        raise ConfigError(f"{name}.shape: got {shape}, expected sizes of at least 0")
    if math.prod(shape) >= _MOST_NUMBERS:
        raise ConfigError(f"{name}.shape: got {shape}, expected fewer than 2^60 numbers")


def pairs_of(mapping: Any) -> Any:
    """A mapping as a tuple of pairs; any other value unchanged, for `validate_fields` to check."""
    return tuple(mapping.items()) if isinstance(mapping, Mapping) else mapping


def sort_pairs(config: Any, name: str, key: Callable[[Any], Any] | None = None) -> None:
    """Sort a field of pairs by name, ints first; raise `ConfigError` for a repeated name."""
    pairs = getattr(config, name)
    names = [first for first, _ in pairs]
    if len(set(names)) != len(names):
        raise ConfigError(f"{type(config).__name__}.{name}: got the names {names}, expected each once")
    by_name = lambda pair: (isinstance(pair[0], str), pair[0])  # noqa: E731
    set_field(config, name, tuple(sorted(pairs, key=key or by_name)))
