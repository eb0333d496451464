"""What a policy file holds: read without building the params, and printed for people."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from policy_core.configs.codec import added_defaults, completed
from policy_core.configs.comparison import printable
from policy_core.files.document import read
from policy_core.files.policies import PathLike
from policy_core.files.rows import Row
from policy_core.files.storage import read_file


class FileInfo(NamedTuple):
    """Header and metadata of a policy file, read without loading the params. `print` it for a summary.

    Args:
        config: as plain data, `{"type": name, "fields": {...}}`; its class need not be registered.
        fingerprint: 32 bytes.
        version: version of the format.
        batch: the leading axes of a population, `()` for one policy.
        leaves: (path, dtype, shape, bytes) of each leaf of the params.
        extra: the same for `extra`.
        self_test: number of observations of the self-test, 0 without one.
        metadata: text by name.
        nbytes: size of the file.

    Example:
        >>> from policy_core.files import FileInfo
        >>> FileInfo._fields[:3]
        ('config', 'fingerprint', 'version')
    """

    config: Any
    fingerprint: bytes
    version: int
    batch: tuple[int, ...]
    leaves: tuple[tuple[str, str, tuple[int, ...], int], ...]
    extra: tuple[tuple[str, str, tuple[int, ...], int], ...]
    self_test: int
    metadata: dict[str, str]
    nbytes: int

    @property
    def parameters(self) -> int:
        """Number of parameters, of all members of a population together."""
        return sum(math.prod(shape) for _, _, shape, _ in self.leaves)

    @property
    def added(self) -> dict[str, Any]:
        """By path, the fields that are not in the file, since they were added later and hold their defaults.

        Values are plain data. They are known where the class of a config is registered.
        """
        return dict(sorted(_added_of(self.config, "")))

    def __str__(self) -> str:
        batch = f", a population of {' x '.join(map(str, self.batch))}" if self.batch else ""
        extra = ", and `extra`" if self.extra else ""
        config, added = completed(self.config), ", ".join(self.added)
        lines = [
            f"{config['type']}, {self.parameters:,} parameters in {len(self.leaves)} leaves{batch}{extra}",
            f"format {self.version}, {self.nbytes:,} bytes, self-test: {self.self_test or 'no'} observations",
            f"fingerprint {self.fingerprint.hex()}",
            *(f"  {name}: {_on_one_line(value)}" for name, value in config["fields"].items()),
            *([f"added later, at their defaults: {added}"] if added else []),
            *(f"metadata {name}: {text}" for name, text in self.metadata.items()),
        ]
        lines = [printable(line) for line in lines]
        return "\n".join(line if len(line) <= _WIDTH else f"{line[: _WIDTH - 3]}..." for line in lines)


_WIDTH = 100
_ADDED = "  (added later, at its default)"


def _added_of(data: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(data, dict):
        for name, value in data["fields"].items():
            yield from _added_of(value, f"{path}{name}.")
        for name, default in added_defaults(data["type"]).items():
            if name not in data["fields"]:
                yield path + name, default
    for i, item in enumerate(data if isinstance(data, list) else ()):
        yield from _added_of(item, f"{path[:-1]}[{i}].")


def _on_one_line(data: Any) -> str:
    """Plain data as it would be written in Python."""
    if isinstance(data, dict):
        fields = ", ".join(f"{name}={_on_one_line(value)}" for name, value in data["fields"].items())
        return f"{data['type'].rpartition('/')[2]}({fields})"
    if isinstance(data, list):
        return f"({', '.join(map(_on_one_line, data))}{',' if len(data) == 1 else ''})"
    return repr(data)


def inspect(path: PathLike) -> FileInfo:
    """Read the header and metadata of a policy file; its checksum and form are verified.

    Raises:
        FileError: if the file is damaged, truncated, or not a policy file.
        OSError: if there is no such file, or it cannot be read.

    Example:
        >>> import jax
        >>> import tempfile, policy_core as pc
        >>> config = pc.ActorCriticConfig(
        ...     observation_space=pc.Box(shape=(4,)), action_space=pc.Discrete(2)
        ... )
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     pc.save(folder + "/run", pc.init(config, key=jax.random.key(0)), metadata={"by": "me"})
        ...     found = pc.inspect(folder + "/run")
        >>> found.metadata, found.leaves[0]
        ({'by': 'me'}, ('actor/head/bias', 'float32', (2,), 8))
        >>> print(str(found).partition(" in ")[0])
        policy_core/ActorCriticConfig, 9,155 parameters
    """
    data, seal = read_file(Path(path))
    document = read(data, seal)
    counts = [row.shape[-1] for row in document.self_test if row.path == "entropy" and row.shape]

    def table(rows: tuple[Row, ...]) -> tuple[tuple[str, str, tuple[int, ...], int], ...]:
        return tuple((row.path, row.dtype, row.shape, row.nbytes) for row in rows)

    return FileInfo(
        config=document.config_data(),
        fingerprint=document.fingerprint,
        version=document.version,
        batch=document.batch,
        leaves=table(document.leaves),
        extra=table(document.extra),
        self_test=counts[0] if counts else 0,
        metadata=dict(document.metadata),
        nbytes=len(data),
    )


def tree_of(data: Any, name: str = "config", depth: int = 0, mark: str = "") -> list[tuple[int, str, str]]:
    """(depth, name, value) of every line of a config as a tree, with the fields that were added later."""
    if isinstance(data, dict):
        fields = {**added_defaults(data["type"]), **data["fields"]}
        parts = [
            tree_of(fields[key], key, depth + 1, "" if key in data["fields"] else _ADDED)
            for key in sorted(fields)
        ]
        return [(depth, name, data["type"] + mark), *(line for part in parts for line in part)]
    if isinstance(data, list) and any(isinstance(item, dict | list) for item in data):
        named = all(isinstance(item, list) and len(item) == 2 and isinstance(item[0], str) for item in data)
        pairs = data if named else [(f"[{i}]", item) for i, item in enumerate(data)]
        parts = [tree_of(item, label, depth + 1) for label, item in pairs]
        return [(depth, name, mark), *(line for part in parts for line in part)]
    text = str(tuple(data)) if isinstance(data, list) else repr(data)
    return [(depth, name, (text if len(text) <= 72 else f"{text[:60]}... ({len(data)})") + mark)]
