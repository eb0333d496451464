"""Registries of functions by name, by which a config, which holds only data, refers to them."""

from collections.abc import Mapping
from typing import Generic, TypeVar

from policy_core.errors import ConfigError

_Function = TypeVar("_Function")


class NamedFunctions(Generic[_Function]):
    """A registry of functions of one kind by name, which users may add to.

    Args:
        kind: what the functions are, such as "activation"; for errors.
        register: the public function that adds one; for errors.
        functions: the functions registered at first.
    """

    def __init__(self, kind: str, register: str, functions: Mapping[str, _Function]) -> None:
        self._kind, self._register, self.functions = kind, register, dict(functions)

    def find(self, name: str, where: str = "") -> _Function:
        """The function registered under a name.

        Raises:
            ConfigError: if there is none; the message lists the registered names.
        """
        if name not in self.functions:
            raise ConfigError(
                f"{where}no {self._kind} is registered as {name!r}; there are {sorted(self.functions)}, and "
                f"{self._register} adds one"
            )
        return self.functions[name]

    def add(self, name: str, function: _Function) -> None:
        """Register a function.

        Raises:
            ConfigError: if the name is taken by another function.
        """
        if self.functions.setdefault(name, function) is not function:
            raise ConfigError(f"the name {name!r} is taken by another {self._kind}; choose a new one")
