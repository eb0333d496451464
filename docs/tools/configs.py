"""An extension of griffe: what it does not know of our classes and docstrings.

A class under `@static` has the signature of a keyword-only dataclass, a `NamedTuple` that of its
fields in order, `Example:` is a section of examples, and what `Returns:` says is no type.
"""

from typing import Any

import griffe


class Configs(griffe.Extension):
    """Changes what griffe has read before its own extension for dataclasses looks at it."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """`Example:` becomes `Examples:`; in `Returns:` the type is that of the signature."""
        if obj.docstring:
            text = obj.docstring.value.replace("\nExample:\n", "\nExamples:\n")
            obj.docstring.value = text.replace("\nReturns:\n    ", "\nReturns:\n    : ")

    def on_class_instance(self, *, cls: griffe.Class, **_: Any) -> None:
        """Classes with fields become dataclasses."""
        if any(str(base) == "NamedTuple" for base in cls.bases):
            cls.decorators.append(griffe.Decorator(_dataclass(), lineno=cls.lineno, endlineno=cls.lineno))
        for decorator in cls.decorators:
            if str(decorator.value) == "static":
                decorator.value = _dataclass(griffe.ExprKeyword("kw_only", "True"))


def _dataclass(*arguments: griffe.Expr) -> griffe.Expr:
    return griffe.ExprCall(griffe.ExprName("dataclass", parent=_Dataclasses("dataclasses")), list(arguments))


class _Dataclasses(griffe.Module):
    """The module, so that the name of the decorator resolves."""

    def resolve(self, name: str) -> str:
        """The path of a name."""
        return f"dataclasses.{name}"
