r"""The document: a policy file as checked structure, and the bytes of it. See docs/file-format.md.

    format       "policy_core"
    version      1
    config       bytes: the canonical msgpack encoding of the config
    fingerprint  32 bytes: SHA-256 of "policy_core config\n" + config
    metadata     text by name, the user's
    batch        the leading axes of a population, [] for one policy
    leaves       rows: the params
    self_test    rows: observations and the outputs of the policy for them, or none
    extra        rows: arrays saved beside the policy, or none
    blocks       the digest of each block of 64 KiB of all that stands before this key
    checksum     32 bytes over these digests

Nothing here depends on JAX or a class of config: a reader in another language needs only this.
"""

import functools
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from policy_core.configs.comparison import fingerprint_of_encoding
from policy_core.errors import FileError
from policy_core.files.checksum import check_blocks, content_size, digests, ending, read_ending
from policy_core.files.rows import MOST_AXES, Row, read_rows, write_rows
from policy_core.files.wire import Budget, Content, Reader, map_header, pack

FORMAT = "policy_core"
VERSION = 1

MOST_CONFIG_BYTES = 2**22
MOST_CONFIG_VALUES = 2**18
DEEPEST_CONFIG = 64
MOST_METADATA_BYTES = 2**20
MOST_METADATA_ENTRIES = 2**10
MOST_METADATA_NAME = 2**8

_START = map_header(11) + pack("format") + pack(FORMAT) + pack("version")


@dataclass(frozen=True)
class Document:
    """The checked content of a policy file."""

    config: bytes
    batch: tuple[int, ...]
    leaves: tuple[Row, ...]
    metadata: Mapping[str, str] = field(default_factory=dict)
    self_test: tuple[Row, ...] = ()
    extra: tuple[Row, ...] = ()
    version: int = VERSION

    @property
    def fingerprint(self) -> bytes:
        """The fingerprint of the config, from its bytes in the file."""
        return fingerprint_of_encoding(self.config)

    def member(self, index: tuple[int, ...] | int, tables: Sequence[str]) -> "Document":
        """The document of one member of a population, whose content alone is read.

        Args:
            index: of the member; one number for each axis of the population.
            tables: of which tables its part is read; the others are empty.

        Raises:
            FileError: for an index that the population has not, or a leaf without its axes.
        """
        batch = self.batch
        given = index if isinstance(index, tuple) else (index,)
        at = [operator.index(i) for i in given if hasattr(i, "__index__") and not isinstance(i, bool)]
        valid = len(at) == len(given) == len(batch)
        if not valid or not all(0 <= i < size for i, size in zip(at, batch, strict=True)):
            expected = f"an index for each of the axes {batch} of the population"
            raise FileError(
                f"member: got {index!r}, expected {expected if batch else 'none: it is one policy'}"
            )
        flat = 0
        for i, size in zip(at, batch, strict=True):
            flat = flat * size + i

        def part(row: Row, table: str) -> Row:
            if table == "self_test" and row.path.partition("/")[0] == "observation":  # the same for all
                return row.member(0, 0)
            if row.shape[: len(batch)] != batch:
                has = f"has the shape {row.shape}, expected {batch} in front"
                raise FileError(f"{table}: the leaf {row.path!r} {has}, the axes of the population")
            return row.member(flat, len(batch))

        rows: dict[str, Any] = {
            table: tuple(part(row, table) for row in getattr(self, table) if table in tables)
            for table in ("leaves", "self_test", "extra")
        }
        return replace(self, batch=(), **rows)

    def config_data(self) -> Any:
        """The config as plain data.

        Raises:
            FileError: if it is damaged, too large, or not in its canonical form.
        """
        reader = Reader(memoryview(self.config))
        data = reader.value(Budget(MOST_CONFIG_VALUES, DEEPEST_CONFIG), "config")
        reader.end("config")
        _check_form(data)
        return data


def write(document: Document) -> list[bytes | memoryview]:
    """The bytes of a file, as parts to be concatenated; the content of arrays is not copied.

    Raises:
        FileError: for a document beyond the limits of the format.
    """
    if len(document.config) > MOST_CONFIG_BYTES:
        raise FileError(f"config: {len(document.config)} bytes, at most {MOST_CONFIG_BYTES} are allowed")
    _check_config(document.config)
    metadata = check_metadata(document.metadata)
    parts: list[bytes | memoryview] = [
        _START + pack(document.version),
        pack("config") + pack(document.config),
        pack("fingerprint") + pack(document.fingerprint),
        pack("metadata") + pack(metadata),
        pack("batch") + pack(list(document.batch)),
    ]
    position = sum(len(part) for part in parts)
    tables = (("leaves", document.leaves), ("self_test", document.self_test), ("extra", document.extra))
    for name, rows in tables:
        parts.append(pack(name))
        table = write_rows(rows, position + len(parts[-1]), name)
        position += len(parts[-1]) + sum(len(part) for part in table)
        parts += table
    return [*parts, ending(digests(parts))]


def read(data: memoryview, blocks: bytes | None = None) -> Document:
    """The document of a file, with every MUST of the format verified.

    Args:
        data: the bytes of the file.
        blocks: the digests of the blocks of its content, if they have been computed already.

    Raises:
        FileError: for anything that `write` would not have written.
    """
    version = check_start(data)
    content = data[: content_size(len(data))]
    expected = read_ending(data[len(content) :], len(content))
    check_blocks(digests([content]) if blocks is None else blocks, expected)
    return READERS[version](content)


def read_lazily(content: Content) -> Document:
    """The document of a file whose content is verified as it is read; the rows refer to parts of it.

    Raises:
        FileError: for anything that `write` would not have written, in what is read.
    """
    return READERS[check_start(content)](content)


def _read_1(data: Content) -> Document:
    """The document of a file of version 1, from its content, which has been verified."""
    reader = Reader(data, len(_START) + 1)
    config = bytes(_key(reader, "config").binary(MOST_CONFIG_BYTES, "config"))
    fingerprint = bytes(_key(reader, "fingerprint").binary(32, "fingerprint"))
    if fingerprint != fingerprint_of_encoding(config):
        raise FileError("fingerprint: it is not that of the config in the file")
    metadata = _read_metadata(_key(reader, "metadata"))
    batch_size = _key(reader, "batch").array(MOST_AXES // 2, "batch")
    batch = tuple(reader.uint("batch") for _ in range(batch_size))
    leaves = read_rows(_key(reader, "leaves"), "leaves")
    self_test = read_rows(_key(reader, "self_test"), "self_test")
    extra = read_rows(_key(reader, "extra"), "extra")
    reader.end("extra")
    return Document(config, batch, leaves, metadata, self_test, extra, version=1)


READERS: dict[int, Callable[[Content], Document]] = {1: _read_1}
"""The reader of each version; each verifies every MUST of its version and calls no other."""


def _check_form(data: Any) -> None:
    """Raise unless every map is one of a type and its fields, in their order."""
    if isinstance(data, dict):
        named = list(data) == ["type", "fields"] and isinstance(data["type"], str)
        if (
            not named
            or not isinstance(data["fields"], dict)
            or list(data["fields"]) != sorted(data["fields"])
        ):
            raise FileError(
                f"config: a config is a map of 'type' and sorted 'fields', got {str(data)[:60]!r}"
            )
        data = list(data["fields"].values())
    for item in data if isinstance(data, list) else ():
        _check_form(item)


@functools.lru_cache(maxsize=64)
def _check_config(encoding: bytes) -> None:
    """Raise `FileError` for a config beyond the limits of the reader, before it is written."""
    Document(encoding, (), ()).config_data()


def check_metadata(metadata: Any) -> dict[str, str]:
    """The metadata, sorted by name.

    Raises:
        FileError: if it is not a mapping of text to text, or too large.
    """
    if not isinstance(metadata, Mapping):
        raise FileError(f"metadata: got {type(metadata).__name__}, expected a mapping of text")
    for name, text in metadata.items():
        if type(name) is not str or type(text) is not str:
            raise FileError(f"metadata: got {name!r}: {type(text).__name__}, expected text")
        if len(pack(name)) > MOST_METADATA_NAME:
            raise FileError(f"metadata: the name {name[:20]!r}... has more than {MOST_METADATA_NAME} bytes")
    if len(metadata) > MOST_METADATA_ENTRIES:
        raise FileError(f"metadata: {len(metadata)} entries, at most {MOST_METADATA_ENTRIES} are allowed")
    result = dict(sorted(metadata.items()))
    if len(pack(result)) > MOST_METADATA_BYTES:
        raise FileError(
            f"metadata: {len(pack(result))} bytes, at most {MOST_METADATA_BYTES} are allowed; arrays "
            "belong in `extra`, logs in a file of their own"
        )
    return result


def check_start(data: Content) -> int:
    """The version of a file, from its first bytes.

    Raises:
        FileError: unless there is a reader for it.
    """
    if bytes(data[: len(_START)]) != _START:
        raise FileError("not a policy file, or truncated or damaged: it does not begin as one")
    reader = Reader(data, len(_START))
    version = reader.uint("version")
    if version not in READERS:
        raise FileError(f"version: got {version}, expected 1 to {VERSION}; a newer policy_core may read it")
    return version


def _key(reader: Reader, name: str) -> Reader:
    """The reader, advanced past the expected key."""
    if (got := reader.text(16, "keys")) != name:
        raise FileError(f"keys: got {got!r}, expected {name!r}")
    return reader


def _read_metadata(reader: Reader) -> dict[str, str]:
    start = reader.position
    metadata: dict[str, str] = {}
    last = None
    for _ in range(reader.map(MOST_METADATA_ENTRIES, "metadata")):
        name = reader.text(MOST_METADATA_NAME, "metadata")
        if last is not None and name <= last:
            raise FileError(f"metadata: the name {name!r} is there twice, or out of order")
        metadata[name] = reader.text(MOST_METADATA_BYTES, "metadata")
        last = name
    if reader.position - start > MOST_METADATA_BYTES:
        raise FileError(f"metadata: more than {MOST_METADATA_BYTES} bytes")
    return metadata
