r"""The last two keys of a file: the SHA-256 of each block of 64 KiB of its content, and one over these.

    blocks    the SHA-256 of each 2^16 bytes of all that stands before this key, one after the other
    checksum  SHA-256 of "policy_core file\n" and then the bytes of `blocks`

The digests of blocks do not depend on each other: several cores compute them, and who reads a part of a
file verifies the blocks of this part. The last block may be shorter.
"""

import hashlib
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from policy_core.errors import FileError
from policy_core.files.wire import Reader, bin_header, pack

BLOCK = 2**16
DIGEST = 32  # bytes
_PREFIX = b"policy_core file\n"
_BLOCKS, _CHECKSUM = pack("blocks"), pack("checksum") + bin_header(DIGEST)
_TASK = 2**20  # bytes that one thread hashes at a time

Buffer = bytes | memoryview


def digests(parts: Sequence[Buffer]) -> bytes:
    """The digests of the blocks of the concatenated parts, one after the other.

    Example:
        >>> from policy_core.files.checksum import digests
        >>> digests([b"ab", b"c"]) == digests([b"abc"])
        True
    """
    tasks = list(_tasks(parts))
    if len(tasks) < 2:
        return b"".join(map(_digests, tasks))
    with ThreadPoolExecutor(min(len(tasks), os.cpu_count() or 1, 8)) as pool:  # hashlib releases the GIL
        return b"".join(pool.map(_digests, tasks))


def ending(blocks: bytes) -> bytes:
    """The last two keys of a file and their values, from the digests of its blocks."""
    return _BLOCKS + bin_header(len(blocks)) + blocks + _CHECKSUM + _seal(blocks)


def content_size(size: int) -> int:
    """The number of bytes before the last two keys of a file of `size` bytes.

    Raises:
        FileError: if no file has this size.
    """
    most = size // BLOCK + 1
    for count in range(max(most - most // (BLOCK // DIGEST) - 2, 0), most + 1):
        content = (
            size - len(_BLOCKS) - len(bin_header(DIGEST * count)) - (DIGEST * count) - len(_CHECKSUM) - DIGEST
        )
        if content >= 0 and -(-content // BLOCK) == count:
            return content
    raise FileError("not a policy file, or truncated or damaged: no file has this size")


def read_ending(ending: Buffer, content: int) -> bytes:
    """The digests of the blocks, verified against the checksum, from all that follows the content.

    Raises:
        FileError: for anything but what `ending` gives for that many blocks.
    """
    reader = Reader(memoryview(ending))
    try:
        if reader.text(16, "keys") != "blocks":
            raise FileError("keys: the last but one is not 'blocks'")
        blocks = bytes(reader.binary(2**32 - 1, "blocks"))
        if reader.text(16, "keys") != "checksum":
            raise FileError("keys: the last one is not 'checksum'")
        seal = bytes(reader.binary(DIGEST, "checksum"))
        reader.end("checksum")
    except FileError as error:
        raise FileError(f"not a policy file, or truncated or damaged: {error}") from error
    if len(blocks) != DIGEST * -(-content // BLOCK) or seal != _seal(blocks):
        raise FileError("checksum: the file is truncated or damaged; nothing was loaded")
    return blocks


def check_blocks(found: bytes, blocks: bytes, first: int = 0) -> None:
    """Raise `FileError` unless the digests are those of the file, from the block `first` on."""
    if found != (expected := blocks[DIGEST * first : DIGEST * first + len(found)]):
        where = next(
            i for i in range(0, len(found), DIGEST) if found[i : i + DIGEST] != expected[i : i + DIGEST]
        )
        start = (first + where // DIGEST) * BLOCK
        raise FileError(
            f"checksum: the file is damaged between bytes {start} and {start + BLOCK}; nothing was loaded"
        )


def _seal(blocks: bytes) -> bytes:
    return hashlib.sha256(_PREFIX + blocks).digest()


def _digests(pieces: Sequence[Buffer]) -> bytes:
    """The digests of the blocks of at most a MiB, which is joined here and not before."""
    whole = pieces[0] if len(pieces) == 1 else b"".join(pieces)
    return b"".join(hashlib.sha256(whole[i : i + BLOCK]).digest() for i in range(0, len(whole), BLOCK))


def _tasks(parts: Sequence[Buffer]) -> Iterator[list[memoryview]]:
    """The concatenated parts, a MiB at a time, each as a list of slices of the parts."""
    task: list[memoryview] = []
    room = _TASK
    for part in parts:
        view = memoryview(part).cast("B") if len(part) else memoryview(b"")
        start = 0
        while start < len(view):
            piece = view[start : start + room]
            task.append(piece)
            start += len(piece)
            room -= len(piece)
            if room == 0:
                yield task
                task, room = [], _TASK
    if task:
        yield task
