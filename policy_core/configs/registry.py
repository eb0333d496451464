"""The registry of config classes: the name by which files refer to a class."""

from policy_core.errors import ConfigError

# Config classes by name, the only way from a file back to a class.
CONFIGS: dict[str, type] = {}

# The number of registrations. Part of the key of caches of decoded configs: a name may be bound to a
# new class, as after a reload.
_registrations = 0


def register(cls: type) -> None:
    """Register a config class under its name.

    Raises:
        ConfigError: if the name is taken by a class of another module.
    """
    name = name_of(cls)
    existing = CONFIGS.get(name)
    if existing is not None and existing.__module__ != cls.__module__:
        raise ConfigError(
            f"{cls.__module__}.{cls.__qualname__}: a config named {name!r} exists already in "
            f"{existing.__module__}; rename one of the two"
        )
    global _registrations
    _registrations += 1
    CONFIGS[name] = cls  # a class of the same name and module, as after a reload, is replaced


def registrations() -> int:
    """The number of registrations so far; changes whenever a config class is registered."""
    return _registrations


def name_of(cls: type) -> str:
    """The name by which files refer to a config class."""
    return f"{cls.__module__.partition('.')[0]}/{cls.__qualname__}"


def is_static(value: object) -> bool:
    """Whether `value` is an instance of a `@static` class."""
    return CONFIGS.get(name_of(type(value))) is type(value)
