"""The canonical encoding of a config, and configs from plain data."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, TypeVar, cast

import msgpack

from policy_core.configs.registry import CONFIGS, is_static, name_of
from policy_core.configs.validation import exact, fields_of, hints_of, set_field
from policy_core.errors import ConfigError

_T = TypeVar("_T")

ADDED = "policy_core.added"
_SCALARS = {bool, int, float, str, type(None)}


def to_data(value: Any) -> Any:
    """A config as plain data: maps `{"type": name, "fields": {...}}`, lists and scalars."""
    return msgpack.unpackb(encode(value))


def encode(value: Any) -> bytes:
    """The canonical msgpack bytes of a value of a field; those of a config in it are there already."""
    if isinstance(value, tuple):
        if all(type(item) in _SCALARS for item in value):
            return pack(value)
        return b"".join([msgpack.Packer().pack_array_header(len(value)), *map(encode, value)])
    return encoding_of(value) if is_static(value) else pack(value)


def encode_fields(config: Any) -> bytes:
    """The canonical msgpack bytes of a config whose fields are validated."""
    cls: Any = type(config)
    added = _added_defaults(cls)
    encoded = {name: encode(item) for name, item in sorted(fields_of(config).items())}
    parts = [pack(name) + item for name, item in encoded.items() if item != added.get(name)]
    start = msgpack.Packer().pack_map_header(2) + pack("type") + pack(name_of(cls)) + pack("fields")
    return b"".join([start, msgpack.Packer().pack_map_header(len(parts)), *parts])


@functools.cache
def _added_defaults(cls: Any) -> dict[str, bytes]:
    """The encoded defaults of the fields that were declared with `added`."""
    hints = hints_of(cls)
    return {
        field.name: encode(exact(field.default, hints[field.name], f"{cls.__name__}.{field.name}"))
        for field in dataclasses.fields(cls)
        if ADDED in field.metadata
    }


def added_defaults(name: str) -> dict[str, Any]:
    """The defaults of the fields of a class that were declared with `added`, as plain data."""
    cls = CONFIGS.get(name)
    return {} if cls is None else {key: msgpack.unpackb(data) for key, data in _added_defaults(cls).items()}


def completed(data: Any) -> Any:
    """A config as plain data with the fields that are absent since they hold their later defaults."""
    if isinstance(data, list):
        return [completed(item) for item in data]
    if not isinstance(data, dict):
        return data
    fields = {**added_defaults(data["type"]), **data["fields"]}
    return {"type": data["type"], "fields": {key: completed(fields[key]) for key in sorted(fields)}}


def from_data(data: Any, path: str = "config") -> Any:
    """Inverse of `to_data`; a missing field takes its default.

    Raises:
        ConfigError: for an unknown type or field, or an invalid value of a field.
    """
    if isinstance(data, list):
        return tuple(from_data(item, f"{path}[{i}]") for i, item in enumerate(data))
    if not isinstance(data, dict):
        return data
    if set(data) != {"type", "fields"} or not isinstance(data["fields"], dict):
        raise ConfigError(f"{path}: a config is a map of 'type' and 'fields', got {list(data)}")
    name = data["type"]
    cls = CONFIGS.get(name) if isinstance(name, str) else None
    if cls is None:
        raise ConfigError(
            f"{path}: no config type named {name!r} is registered; import the module that defines it"
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


def build(cls: type[_T], values: Mapping[str, object]) -> _T:
    """A config from the values of all its fields, validated as by its constructor."""
    config = object.__new__(cls)
    for name, value in values.items():
        set_field(config, name, value)
    cast(Any, config).__post_init__()
    return config


def encoding_of(config: Any) -> bytes:
    """The canonical msgpack bytes of a config: sorted fields, shortest ints, 64-bit floats."""
    encoding: bytes = config._encoding
    return encoding


def pack(data: Any) -> bytes:
    """Msgpack bytes of plain data."""
    return cast("bytes", msgpack.packb(data, use_bin_type=True))
