"""The decorator of static configs: frozen data that JAX carries in the tree structure.

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
from collections.abc import Callable
from typing import Any, TypeVar

import jax
from typing_extensions import dataclass_transform

from policy_core.configs.advice import signature_of
from policy_core.configs.codec import ADDED, build, encode_fields, encoding_of
from policy_core.configs.export import serialize_config
from policy_core.configs.registry import register
from policy_core.configs.validation import fields_of, validate_fields
from policy_core.errors import ConfigError, ConfigTypeError

_T = TypeVar("_T")


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(dataclasses.field,))
def static(cls: type[_T], /) -> type[_T]:
    """Make a class a static config: frozen, keyword-only, validated, hashable, leafless.

    Fields may hold bool, int, float, str, None, tuples of these, and other configs; the type
    of a field is declared by its annotation and checked exactly when a config is built
    (an int is accepted for a float, nothing else is converted). Functions are referred
    to by registered name. A `__post_init__` of the class runs after the check, and may
    raise `ConfigError` or normalize a field with `set_field`.

    The config is registered with JAX as a pytree without leaves, so `(params, config)` may be
    an argument of `jit`, `grad`, `vmap` and `scan`. It is also registered under the name
    `"<top-level package>/<class name>"`, by which files refer to it; two different classes
    may not share that name.

    Raises:
        ConfigError: for a value of another type, with the path of the field and the fix.

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
        validate_fields(self)
        if post_init is not None:
            post_init(self)
        encoding = encode_fields(self)
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
    _explain_arguments(config)
    # Run-time type checkers skip the constructor: `validate` raises the better error.
    config.__no_type_check__ = True  # type: ignore[attr-defined]
    register(config)
    config = jax.tree_util.register_static(config)
    serialize_config(config)
    return config


def _explain_arguments(config: Any) -> None:
    """Make the TypeError of an unknown or missing argument one that says what to write."""
    construct = config.__init__

    @functools.wraps(construct)
    def init(self: Any, *arguments: Any, **fields: Any) -> None:
        try:
            construct(self, *arguments, **fields)
        except TypeError:
            try:
                inspect.signature(construct).bind(self, *arguments, **fields)
            except TypeError as error:
                name = type(self).__name__
                raise ConfigTypeError(f"{name}: {error}; write {signature_of(type(self))}") from None
            raise

    config.__init__ = init


def added(default: _T) -> _T:
    """The default of a field added to a config class after files of it were saved.

    A field with this default is omitted from the encoding, and so from the fingerprint, while
    it holds the default: configs made before it keep their fingerprints, and equal configs
    have equal fingerprints. A missing field must always mean the same value, so this default
    may never change; an ordinary default may.

    Args:
        default: the value that leaves the behavior of old configs as it was.

    Example:
        >>> from policy_core import added, fingerprint, static
        >>> @static
        ... class Tower:
        ...     width: int
        >>> old = fingerprint(Tower(width=8))
        >>> @static
        ... class Tower:
        ...     width: int
        ...     dropout: float = added(0.0)
        >>> fingerprint(Tower(width=8)) == old, fingerprint(Tower(width=8, dropout=0.5)) == old
        (True, False)
    """
    return dataclasses.field(default=default, metadata={ADDED: True})
