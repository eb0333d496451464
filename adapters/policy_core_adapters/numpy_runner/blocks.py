"""The content of a policy file, verified by the digests of its blocks: whole, or only what is read."""

import hashlib
import os
from typing import Any, BinaryIO

_BLOCK, _DIGEST, _KEPT = 2**16, 32, 64
_CHECKSUM = b"\xa8checksum\xc4\x20"
_DAMAGED = "checksum: the file is truncated or damaged"


class Blocks:
    """Bytes of an open file, read and verified where they are asked for: a slice, or one byte.

    Args:
        file: the open file.
        whole: whether all of it is read and verified at once.

    Raises:
        ValueError: if it ends as no policy file does; here or later, for a damaged block.
    """

    def __init__(self, file: BinaryIO, whole: bool) -> None:
        self._file = file
        size = os.fstat(file.fileno()).st_size
        for count in range(max(size // (_BLOCK + _DIGEST) - 1, 0), size // (_BLOCK + _DIGEST) + 3):
            head = b"\xa6blocks" + _bin_header(count * _DIGEST)
            self._size = size - len(head) - count * _DIGEST - len(_CHECKSUM) - _DIGEST
            if self._size >= 0 and -(-self._size // _BLOCK) == count:
                break
        else:
            raise ValueError(f"not a policy file, or truncated: no policy file has {size} bytes")
        ending = self._read(self._size, size)
        self._digests = ending[len(head) : len(head) + count * _DIGEST]
        seal = hashlib.sha256(b"policy_core file\n" + self._digests).digest()
        if ending != head + self._digests + _CHECKSUM + seal:
            raise ValueError(_DAMAGED)
        self._cache: dict[int, bytes] = {}
        self.whole = memoryview(self._read(0, self._size)) if whole else None
        for i in range(count if whole else 0):
            self._check(i, self.whole[i * _BLOCK : (i + 1) * _BLOCK])  # type: ignore[index]

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, key: Any) -> Any:
        if self.whole is not None:
            return self.whole[key]
        if not isinstance(key, slice):
            return self._verified(key, key + 1)[0]
        start, stop, _ = key.indices(self._size)
        return memoryview(self._verified(start, max(start, stop)))

    def _verified(self, start: int, stop: int) -> bytes:
        """Bytes of blocks that are read and compared with their digests; the last ones are kept."""
        pieces: list[bytes] = []
        for i in range(start // _BLOCK, -(-stop // _BLOCK) if stop > start else 0):
            if i not in self._cache:
                block = self._read(i * _BLOCK, min((i + 1) * _BLOCK, self._size))
                self._check(i, block)
                if len(self._cache) >= _KEPT:
                    del self._cache[next(iter(self._cache))]
                self._cache[i] = block
            first = i * _BLOCK
            pieces.append(self._cache[i][max(start - first, 0) : stop - first])
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _check(self, i: int, block: bytes | memoryview) -> None:
        if hashlib.sha256(block).digest() != self._digests[i * _DIGEST : (i + 1) * _DIGEST]:
            raise ValueError(_DAMAGED)

    def _read(self, start: int, stop: int) -> bytes:
        self._file.seek(start)
        data = self._file.read(stop - start)
        if len(data) != stop - start:
            raise ValueError("file: it became shorter while it was read")
        return data


def _bin_header(size: int) -> bytes:
    if size < 2**8:
        return b"\xc4" + size.to_bytes(1, "big")
    return b"\xc5" + size.to_bytes(2, "big") if size < 2**16 else b"\xc6" + size.to_bytes(4, "big")
