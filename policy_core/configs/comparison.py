"""Comparison of configs: fingerprints, and the fields in which two configs differ."""

import hashlib
from typing import Any

from policy_core.configs.codec import encoding_of, to_data
from policy_core.configs.registry import is_static
from policy_core.errors import ConfigError


def fingerprint(config: object) -> bytes:
    """The SHA-256 of the canonical encoding of a config: 32 bytes.

    Two configs have the same fingerprint if and only if they are equal: it covers the type of
    every config and every field, nested ones too (activations, bounds, dtypes,
    hyperparameters). It does not depend on the order of fields in the source, on the versions
    of Python and JAX, on hash seeds, on the machine, or on the params.

    Args:
        config: any `@static` config.

    Example:
        >>> from policy_core import MLP, fingerprint
        >>> fingerprint(MLP(activation="relu")) == fingerprint(MLP(activation="tanh"))
        False
        >>> len(fingerprint(MLP()))
        32
    """
    return fingerprint_of_encoding(encoding_of(_checked(config)))


def fingerprint_of_encoding(encoding: bytes) -> bytes:
    """The fingerprint of a config from its canonical msgpack bytes."""
    return hashlib.sha256(b"policy_core config\n" + encoding).digest()


def diff(left: object, right: object) -> list[tuple[str, str, str]]:
    """The fields in which two configs differ: (path, left value, right value) each.

    Example:
        >>> from policy_core import MLP, diff
        >>> diff(MLP((64,)), MLP((64,), activation="relu"))
        [('activation', "'tanh'", "'relu'")]
    """
    return diff_data(to_data(_checked(left)), to_data(_checked(right)))


def _checked(config: object) -> object:
    if is_static(config):
        return config
    advice = "use policy[1]" if isinstance(config, tuple) else "decorate its class with @policy_core.static"
    raise ConfigError(f"config: got {type(config).__name__}, expected a config; {advice}")


def diff_data(left: Any, right: Any) -> list[tuple[str, str, str]]:
    """`diff` of configs as plain data, whose classes need not be registered."""
    a, b = _leaves(left, ""), _leaves(right, "")
    paths = [*a, *(path for path in b if path not in a)]
    return [
        (path, a.get(path, "(absent)"), b.get(path, "(absent)"))
        for path in paths
        if a.get(path) != b.get(path)
    ]


def difference_table(left: object, right: object, left_name: str, right_name: str) -> str:
    """The fields in which two configs differ as a table for an error, a line each."""
    return difference_table_of_data(to_data(_checked(left)), to_data(_checked(right)), left_name, right_name)


def difference_table_of_data(left: Any, right: Any, left_name: str, right_name: str) -> str:
    """`difference_table` of configs as plain data."""
    found = [tuple(text[:200] for text in row) for row in diff_data(left, right)[:50]]
    rows = [("field", left_name, right_name), *found]
    widths = [max(len(row[i]) for row in rows) for i in range(2)]
    return "\n".join(f"  {a:<{widths[0]}}  {b:<{widths[1]}}  {c}" for a, b, c in rows)


def printable(text: str) -> str:
    """Text from a file, whatever would steer a terminal or begin a line spelt out."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def _leaves(data: Any, path: str) -> dict[str, str]:
    """Path to printed value; a tuple of plain values is one value."""
    if isinstance(data, dict):
        name = f"type of {path or 'config'}"
        leaves = {name: printable(data["type"])}
        for key, value in data["fields"].items():
            key = printable(key)
            leaves |= _leaves(value, f"{path}.{key}" if path else key)
        return leaves
    if isinstance(data, list) and any(isinstance(item, dict | list) for item in data):
        leaves = {f"{path} (length)": str(len(data))}
        for i, item in enumerate(data):
            leaves |= _leaves(item, f"{path}[{i}]")
        return leaves
    return {path: str(tuple(data)) if isinstance(data, list) else repr(data)}
