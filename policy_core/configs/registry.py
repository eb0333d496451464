"""The registry of config classes: the name by which files refer to a class."""

from policy_core.errors import ConfigError

# Name -> class of every config, the only way from a file back to a class.
CONFIGS: dict[str, type] = {}

# How often a class was registered: what was read from a file before may mean another class now.
_registrations = 0


def register(cls: type) -> None:
    """Make a class known by its name.

    Raises:
        ConfigError: if the name is taken by a class of another module.
    """
    name = name_of(cls)
    known = CONFIGS.get(name)
    if known is not None and known.__module__ != cls.__module__:
        raise ConfigError(
            f"{cls.__module__}.{cls.__qualname__}: a config named {name!r} exists already in "
            f"{known.__module__}; rename one of the two"
        )
    global _registrations
    _registrations += 1
    CONFIGS[name] = cls  # the same class again, as after a reload, replaces itself


def registrations() -> int:
    """Changes whenever a class of configs is registered."""
    return _registrations


def name_of(cls: type) -> str:
    """The name by which files refer to a config class."""
    return f"{cls.__module__.partition('.')[0]}/{cls.__qualname__}"


def is_static(value: object) -> bool:
    """Whether `value` is an instance of a `@static` class."""
    return CONFIGS.get(name_of(type(value))) is type(value)
