"""What a policy file holds, without its params being loaded: `inspect`."""

from pathlib import Path
from typing import Any, NamedTuple

from policy_core.files.document import check_start, read
from policy_core.files.policies import PathLike
from policy_core.files.rows import Row
from policy_core.files.storage import read_file


class FileInfo(NamedTuple):
    """Header and metadata of a policy file, read without loading the params.

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
    """
    data, blocks = read_file(Path(path), check_start)
    document = read(data, blocks)
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
