"""Functions by name: how a config, which holds only data, refers to code."""

from typing import Any

from policy_core.errors import ConfigError


def find(table: dict[str, Any], name: str, kind: str, where: str = "") -> Any:
    """The function registered under a name.

    Raises:
        ConfigError: if there is none, listing those that there are.
    """
    if name not in table:
        raise ConfigError(
            f"{where}no {kind} is registered as {name!r}; there are {sorted(table)}, and "
            f"policy_core.register_{kind} adds one"
        )
    return table[name]


def add(table: dict[str, Any], name: str, function: Any, kind: str) -> None:
    """Register a function.

    Raises:
        ConfigError: if the name is taken by another function.
    """
    if table.setdefault(name, function) is not function:
        raise ConfigError(f"the name {name!r} is taken by another {kind}; choose a new one")
