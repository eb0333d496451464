r"""One SHA-256 for a file of any size, computed on several cores.

    SHA-256 of "policy_core file\n" and then the SHA-256 of each MiB, one after the other

A plain SHA-256 is one chain and uses one core. The digests of the blocks do not depend on each
other; the last block may be shorter.
"""

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

BLOCK = 2**20
_PREFIX = b"policy_core file\n"

Buffer = bytes | memoryview


def checksum(parts: Sequence[Buffer]) -> bytes:
    """The checksum of the concatenated parts, which are not copied.

    Example:
        >>> from policy_core.files.checksum import checksum
        >>> checksum([b"ab", b"c"]) == checksum([b"abc"])
        True
    """
    blocks = list(_blocks(parts))
    if len(blocks) < 2:
        return combine(map(_digest, blocks))
    workers = min(len(blocks), os.cpu_count() or 1, 8)
    with ThreadPoolExecutor(workers) as pool:  # hashlib releases the GIL
        return combine(pool.map(_digest, blocks))


def combine(digests: Iterable[bytes]) -> bytes:
    """The checksum of a file from the digests of its blocks."""
    total = hashlib.sha256(_PREFIX)
    for digest in digests:
        total.update(digest)
    return total.digest()


def _digest(block: list[memoryview]) -> bytes:
    hasher = hashlib.sha256()
    for piece in block:
        hasher.update(piece)
    return hasher.digest()


def _blocks(parts: Sequence[Buffer]) -> Iterator[list[memoryview]]:
    """The blocks of one MiB, each as a list of slices of the parts."""
    block: list[memoryview] = []
    room = BLOCK
    for part in parts:
        view = memoryview(part).cast("B") if len(part) else memoryview(b"")
        start = 0
        while start < len(view):
            piece = view[start : start + room]
            block.append(piece)
            start += len(piece)
            room -= len(piece)
            if room == 0:
                yield block
                block, room = [], BLOCK
    if block:
        yield block
