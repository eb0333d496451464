"""Decoding of the config in a file, and the dtypes and shapes of its params."""

import contextvars
import functools
from collections.abc import Callable
from typing import Any

import jax

from policy_core.configs.codec import completed, encoding_of, from_data, to_data
from policy_core.configs.comparison import diff_data
from policy_core.configs.registry import is_static, registrations
from policy_core.contract import ActorCritic
from policy_core.errors import ConfigError, FileError, FingerprintError
from policy_core.files import document as layout
from policy_core.files.document import Document
from policy_core.networks.layers import LEFT
from policy_core.trees import Spec, by_path, params_struct, spec

MIGRATIONS: dict[int, Callable[[Any], Any]] = {}
"""By version n, the function from the plain data of a config in a file of version n to version n + 1.

There is none yet. A field that is added with a default needs no migration and no version; one
that is renamed or removed, or whose meaning changes, needs both. `tests/golden` keeps a file
of every version.
"""


_SPARE = 16  # layers that are made although no row is left for them, to say which leaf is missing

# Exceptions of the code of a config with unexpected fields. An encoder in the field of a network has
# all methods of the protocol, and only calling `init` shows that its arguments differ.
_UNFIT = (
    ArithmeticError, AttributeError, LookupError, MemoryError, RecursionError, TypeError, ValueError,
)  # fmt: skip


def config_to_bytes(config: Any) -> bytes:
    """The canonical bytes of a config, as in a policy file; for stores that keep params by themselves.

    Args:
        config: a `@static` config that implements `ActorCritic`.

    Raises:
        FileError: for anything else.

    Example:
        >>> import policy_core as pc
        >>> config = pc.ActorCriticConfig(
        ...     observation_space=pc.Box(shape=(4,)), action_space=pc.Discrete(2)
        ... )
        >>> pc.files.config_from_bytes(pc.files.config_to_bytes(config)) == config
        True
    """
    if not is_static(config) or not isinstance(config, ActorCritic):
        advice = "; use policy[1]" if isinstance(config, tuple) else ""
        raise FileError(f"config: got {type(config).__name__}, expected the config of a policy{advice}")
    return encoding_of(config)


def config_from_bytes(data: bytes, config: Any = None) -> Any:
    """The config from the bytes of `config_to_bytes`.

    Args:
        data: the bytes.
        config: the expected config, or None to use the one in the bytes.

    Raises:
        FingerprintError: if it is another config; the fields that differ are listed.
        FileError: if the bytes are damaged, or no such config can be made here.

    Example:
        >>> import policy_core as pc
        >>> spaces = {"observation_space": pc.Box(shape=(4,)), "action_space": pc.Discrete(2)}
        >>> data = pc.files.config_to_bytes(pc.ActorCriticConfig(**spaces, actor=pc.MLP((8,))))
        >>> pc.files.config_from_bytes(data, pc.ActorCriticConfig(**spaces, actor=pc.MLP((16,))))
        Traceback (most recent call last):
        ...
        policy_core.errors.FingerprintError: the file holds a policy of another config
        ...
    """
    return decode(Document(bytes(data), (), ()), config)


def decode(document: Document, config: Any = None) -> Any:
    """The config of a document.

    Raises:
        FingerprintError: if it differs from `config`, unless that is None; the fields are listed.
        FileError: if it cannot be built.
    """
    if config is not None and document.version == layout.VERSION and document.config == encoding_of(config):
        return config  # equal encodings are equal configs
    if config is not None and document.version == layout.VERSION:
        data, expected = document.config_data(), to_data(config)
        if not _is_canonical(data, expected):  # so it is another one, and need not be made
            raise FingerprintError(_explain(data, expected))
    saved = _decode(document.config, document.version, layout.VERSION, registrations())
    if config is not None and config != saved:
        raise FingerprintError(_explain(to_data(saved), to_data(config)))
    return saved


@functools.lru_cache(maxsize=64)
def _decode(encoding: bytes, version: int, newest: int, registered: int) -> Any:
    del registered  # part of the cache key: a name may now be bound to another class
    data = Document(encoding, (), ()).config_data()
    migrated = data
    for step in range(version, newest):
        migrated = MIGRATIONS.get(step, lambda unchanged: unchanged)(migrated)
    try:
        config = from_data(migrated)
        if version == newest and not _is_canonical(data, to_data(config)):
            raise ConfigError("it is not in its canonical form")
    except ConfigError as error:
        raise FileError(f"config: {error}") from error
    except _UNFIT as error:
        raise FileError(f"config: it cannot be made: {error!r}") from error
    if not isinstance(config, ActorCritic):
        raise FileError(f"config: got {type(config).__name__}, which is not an ActorCritic")
    return config


def specs_of(config: Any, rows: int | None = None) -> tuple[dict[str, Spec], Any]:
    """Dtype and shape of the params of a config, by path, and their tree structure, by `jax.eval_shape`.

    Args:
        config: the config.
        rows: how many leaves a file has: a config that needs many more is refused at once, however
            many it needs.

    Raises:
        FileError: if `init` of the config fails.
    """
    context = contextvars.copy_context()
    if rows is not None:
        context.run(LEFT.set, float(rows + _SPARE))
    try:
        return context.run(_specs_of, config, bool(jax.config.jax_enable_x64))  # type: ignore[attr-defined]
    except _UNFIT as error:
        raise FileError(f"config: its params cannot be made: {error}") from error


@functools.lru_cache(maxsize=512)
def _specs_of(config: Any, x64: bool) -> tuple[dict[str, Spec], Any]:
    del x64  # part of the cache key: the dtypes of `init` depend on it
    params = params_struct(config)
    return {name: spec(leaf) for name, leaf in by_path(params, "params").items()}, jax.tree.structure(params)


def _is_canonical(data: Any, canonical: Any) -> bool:
    """Whether data equals the canonical encoding, up to fields that were added since."""
    if type(data) is not type(canonical):
        return False
    if isinstance(data, list):
        return len(data) == len(canonical) and all(map(_is_canonical, data, canonical))
    if isinstance(data, dict):
        in_order = list(data) == [name for name in canonical if name in data]
        return in_order and all(_is_canonical(value, canonical[name]) for name, value in data.items())
    return bool(data == canonical)


def _explain(saved: Any, expected: Any) -> str:
    # Equal but for a default that is spelt out, which is not canonical, the two differ in what is written.
    differences = diff_data(completed(saved), completed(expected)) or diff_data(saved, expected)
    found = [tuple(text[:200] for text in row) for row in differences[:50]]
    rows = [("field", "in the file", "expected"), *found]
    widths = [max(len(row[i]) for row in rows) for i in range(2)]
    table = "\n".join(f"  {a:<{widths[0]}}  {b:<{widths[1]}}  {c}" for a, b, c in rows)
    return (
        f"the file holds a policy of another config\n{table}\nload without a config to take the "
        "one in the file"
    )
