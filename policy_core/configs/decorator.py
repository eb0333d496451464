"""The decorator of static configs: frozen data that JAX carries in the tree structure.

JAX compares static data with `==` and never looks inside it. A list field, an array,
a NaN, or `True` where `1` was meant would therefore reuse the wrong compiled program
or retrace for ever. So every field is checked deeply and exactly when a config is
built, once; under `jit` a config is never rebuilt.

Two configs are equal exactly if their canonical encodings are, and the fingerprint of
a policy file is a hash of that same encoding: equality and fingerprint cannot disagree.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, TypeVar

import jax
from typing_extensions import dataclass_transform

from policy_core.configs.codec import ADDED, build, encoding_of, pack, to_data
from policy_core.configs.export import serialize_config
from policy_core.configs.registry import register
from policy_core.configs.validation import fields_of, validate_fields
from policy_core.errors import ConfigError

_T = TypeVar("_T")


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
        validate_fields(self)
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
    register(config)
    config = jax.tree_util.register_static(config)
    serialize_config(config)
    return config


def added(default: _T) -> _T:
    """The default of a field that is added to a config class of which files exist.

    A field with this default is left out of the encoding, and so of the fingerprint, as long
    as it holds the default: configs made before it keep their fingerprints, and equal configs
    equal fingerprints. What the field's absence means must never change, so neither may this
    default; an ordinary default may.

    Args:
        default: the value that leaves the behaviour of old configs as it was.

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
