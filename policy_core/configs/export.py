"""Trees in what `jax.export` serializes: classes by their names, configs as their canonical bytes."""

from types import ModuleType
from typing import Any

import jax
import msgpack

from policy_core.configs.codec import encoding_of, from_data
from policy_core.configs.registry import name_of


def serialize_config(cls: type) -> None:
    """Let `jax.export` serialize configs of a class. They are read from the classes that are registered."""
    _register(
        jax.export.register_pytree_node_serialization,
        cls,
        serialize_auxdata=encoding_of,
        deserialize_auxdata=lambda data: from_data(msgpack.unpackb(data)),
        from_children=lambda config, _: config,
    )


def serialize_tuples(*modules: ModuleType) -> None:
    """Let `jax.export` serialize the named tuples of modules."""
    for cls in {cls for module in modules for cls in vars(module).values() if hasattr(cls, "_fields")}:
        _register(jax.export.register_namedtuple_serialization, cls)


def _register(register: Any, cls: type, **options: Any) -> None:
    """By the name, or with a number behind it for a class that is defined anew: JAX forgets no name."""
    if cls in _REGISTERED:  # as when a module is loaded again
        return
    name = name_of(cls)
    number = 1 + sum(name == other for other in _REGISTERED.values())
    register(cls, serialized_name=name if number == 1 else f"{name} {number}", **options)
    _REGISTERED[cls] = name


_REGISTERED: dict[type, str] = {}
