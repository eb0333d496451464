"""Policy files taken apart and put together without policy_core, as docs/file-format.md says."""

import hashlib
from typing import Any

import msgpack

TABLES = ("leaves", "self_test", "extra")


def sealed(content: bytes) -> bytes:
    """The file with this content: all but its last two keys, which are put behind."""
    digests = b"".join(hashlib.sha256(content[i : i + 2**16]).digest() for i in range(0, len(content), 2**16))
    seal = hashlib.sha256(b"policy_core file\n" + digests).digest()
    pairs = {"blocks": digests, "checksum": seal}
    return content + b"".join(msgpack.packb(part) for pair in pairs.items() for part in pair)


def content_of(data: bytes) -> bytes:
    """A file without its last two keys."""
    return data[: data.rindex(b"\xa6blocks")]


def opened(data: bytes) -> dict[str, Any]:
    """The file as a plain map, in which a row's chunks are joined and its padding is gone."""
    document = msgpack.unpackb(data)
    for name in TABLES:
        document[name] = [[*row[:3], b"".join(row[4])] for row in document[name]]
    return document


def closed(document: dict[str, Any]) -> bytes:
    """A file again, with paddings and checksum; whatever is not as it should be is packed as it is."""
    parts = [msgpack.Packer().pack_map_header(len(document))]
    ends = list(document)[-2:] == ["blocks", "checksum"]
    for key, value in list(document.items())[: -2 if ends else None]:
        parts.append(msgpack.packb(key))
        if key not in TABLES or not isinstance(value, list):
            parts.append(msgpack.packb(value))
            continue
        parts.append(msgpack.Packer().pack_array_header(len(value)))
        for row in value:
            parts.append(_row(row, sum(map(len, parts))))
    return sealed(b"".join(parts)) if ends else b"".join(parts)


def _row(row: Any, position: int) -> bytes:
    if not isinstance(row, list) or len(row) != 4 or not isinstance(row[3], bytes):
        return msgpack.packb(row)
    content = row[3]
    head = b"\x95" + b"".join(msgpack.packb(part) for part in row[:3])
    if not content:
        return head + msgpack.packb(b"") + msgpack.packb([])
    packed = msgpack.packb([content])
    padding = bytes(-(position + len(head) + 2 + len(packed) - len(content)) % 64)
    return head + msgpack.packb(padding) + packed
