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
    checksum     32 bytes over every byte of the file before these 32

Nothing here depends on JAX or a class of config: a reader in another language needs only this.
"""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from policy_core.configs.comparison import fingerprint_of_encoding
from policy_core.errors import FileError
from policy_core.files.checksum import checksum
from policy_core.files.rows import MOST_AXES, Row, read_rows, write_rows
from policy_core.files.wire import Budget, Reader, bin_header, map_header, pack

FORMAT = "policy_core"
VERSION = 1

MOST_CONFIG_BYTES = 2**22
MOST_CONFIG_VALUES = 2**18
DEEPEST_CONFIG = 64
MOST_METADATA_BYTES = 2**20
MOST_METADATA_ENTRIES = 2**10
MOST_METADATA_NAME = 2**8

_START = map_header(10) + pack("format") + pack(FORMAT) + pack("version")
_END = pack("checksum") + bin_header(32)


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
    parts.append(_END)
    return [*parts, checksum(parts)]


def read(data: memoryview, seal: bytes | None = None) -> Document:
    """The document of a file, with every MUST of the format verified.

    Args:
        data: the bytes of the file.
        seal: the checksum of all but the last 32 bytes, if it has been computed already.

    Raises:
        FileError: for anything that `write` would not have written.
    """
    version = _version(data)
    if bytes(data[-32 - len(_END) : -32]) != _END:
        raise FileError("not a policy file, or truncated or damaged: it does not end with a checksum")
    if (checksum([data[:-32]]) if seal is None else seal) != bytes(data[-32:]):
        raise FileError("checksum: the file is truncated or damaged; nothing was loaded")
    return READERS[version](data)


def _read_1(data: memoryview) -> Document:
    """The document of a file of version 1, whose checksum has been verified."""
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
    _key(reader, "checksum").binary(32, "checksum")
    reader.end("checksum")
    return Document(config, batch, leaves, metadata, self_test, extra, version=1)


READERS: dict[int, Callable[[memoryview], Document]] = {1: _read_1}
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


def _version(data: memoryview) -> int:
    """The version of a file; raise `FileError` unless there is a reader for it."""
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
