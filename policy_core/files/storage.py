"""Atomic writes and reads of files, whole or by verified blocks.

Invariant: at any time, also after a crash, `path` is the complete old file or the complete new one.
A save writes a temporary file in the same folder, flushes it to the disk, renames it over the
path, and flushes the folder. The temporary file is locked while its writer lives. The lock of a
killed writer is free, and the next save to the same path, which uses the same name, deletes its file.
"""

import contextlib
import copy
import errno
import hashlib
import os
import secrets
import stat
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

import numpy as np

from policy_core.errors import FileError
from policy_core.files.checksum import BLOCK, Buffer, check_blocks, content_size, digests, read_ending
from policy_core.files.rows import ALIGNMENT

try:
    import fcntl
except ImportError:  # without locks no temporary file is known to be stale, and none is deleted
    fcntl = None  # type: ignore[assignment]

_PREFIX, _SUFFIX = ".policy_core-", ".tmp"
_PIECE = 2**20  # bytes that are read, and then hashed, by one thread
_KEPT = 64  # blocks that are kept of a file that is read by blocks: headers, which share theirs with content
_NOT_LOCKED = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP}  # as on clusters
_NOT_FLUSHED = {errno.EINVAL, errno.EACCES, errno.EPERM, *_NOT_LOCKED}  # a folder that cannot be, or opened


def write_atomically(path: Path, parts: Sequence[Buffer]) -> None:
    """Replace the file at `path`, or the one it links to, by the concatenated parts, atomically.

    The mode of an old file is kept, and its owner where that is allowed. A missing folder is created.

    Raises:
        OSError: if that fails; an old file is unchanged.
    """
    path = Path(os.path.realpath(path))  # absolute, so that a `chdir` meanwhile changes nothing
    path.parent.mkdir(parents=True, exist_ok=True)
    with _temporary(path) as (file, name):
        for part in parts:
            file.write(part)
        # All bytes must be on the disk before the rename, else a crash could leave a part of them.
        file.flush()
        if fcntl is not None and path.exists():
            status = path.stat()
            with contextlib.suppress(PermissionError):
                os.fchown(file.fileno(), status.st_uid, status.st_gid)
            os.fchmod(file.fileno(), stat.S_IMODE(status.st_mode))
        os.fsync(file.fileno())
        if fcntl is None:  # Windows cannot rename an open file
            file.close()
        os.replace(name, path)
    if hasattr(os, "O_DIRECTORY"):  # the rename itself must reach the disk, where that is known
        with _but_for(_NOT_FLUSHED), contextlib.ExitStack() as stack:
            folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
            stack.callback(os.close, folder)
            os.fsync(folder)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold an exclusive lock of a folder, if the file system can."""
    with contextlib.ExitStack() as stack:
        if fcntl is not None:
            handle = os.open(folder, os.O_RDONLY)
            stack.callback(os.close, handle)  # which lets go of the lock
            with _but_for(_NOT_LOCKED):
                fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def temporary_name(path: Path, i: int) -> Path:
    """The i-th of the names that a writer of `path` takes, of which it takes the first that is free."""
    token = hashlib.sha256(os.fsencode(f"{path.name}\0{i}")).hexdigest() if i < 10 else secrets.token_hex()
    return path.parent / f"{_PREFIX}{token[:16]}{_SUFFIX}"


def remove_stale(name: Path) -> None:
    """Remove the temporary file of a writer that is no more; never that of one that lives."""
    if fcntl is None:
        return
    # What another process removes, keeps locked or does not let us touch is none of our business.
    with contextlib.suppress(OSError):
        handle = os.open(name, os.O_RDWR | getattr(os, "O_NOFOLLOW", 0))
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(name.stat(), os.fstat(handle)):
                name.unlink()
        finally:
            os.close(handle)


def read_file(path: Path, check_start: Callable[[memoryview], Any]) -> tuple[memoryview, bytes | None]:
    """The bytes of a file in one aligned buffer, and the digests of the blocks of its content.

    Each thread hashes what it has read, while another one reads. The digests of a small file are None.

    Args:
        path: the file.
        check_start: raises for the first bytes of what is no policy file, before anything is allocated.

    Raises:
        FileError: if no policy file has its size.
        OSError: if there is no such file, or it cannot be read.
    """
    with open(path, "rb", buffering=0) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):  # a pipe has no size to allocate
            return memoryview(file.read()), None
        if status.st_size <= 2 * _PIECE:
            data = _aligned(status.st_size)
            return data[: _fill(file, data)].toreadonly(), None
        check_start(memoryview(file.read(64)))
        file.seek(0)
        return _read_and_hash(file, content_size(status.st_size), _aligned(status.st_size))


def _read_and_hash(file: Any, content: int, data: memoryview) -> tuple[memoryview, bytes | None]:
    lock = threading.Lock()

    def work(start: int) -> bytes | None:
        piece = data[start : start + _PIECE]
        with lock:
            file.seek(start)
            if _fill(file, piece) != len(piece):
                return None
        return digests([piece[: max(content - start, 0)]])  # while it is in the cache of this core

    with ThreadPoolExecutor(min(os.cpu_count() or 1, 8)) as pool:
        found = list(pool.map(work, range(0, len(data), _PIECE)))
    if None in found:  # the file was truncated while it was read
        return data[: found.index(None) * _PIECE].toreadonly(), None
    return data.toreadonly(), b"".join(filter(None, found))


class Blocks:
    """The content of an open file, of which only what is asked for is read, and verified block by block.

    It stands where a `memoryview` of the content would: a slice is another `Blocks`, and nothing is read
    before it is turned into bytes.

    Args:
        file: the open file.

    Raises:
        FileError: if it ends as no policy file does; from `bytes` and an index, for a damaged block.
    """

    def __init__(self, file: IO[bytes]) -> None:
        size = os.fstat(file.fileno()).st_size
        self._file, self._content = file, content_size(size)
        self._digests = read_ending(self._read(self._content, size), self._content)
        self._cache: dict[int, bytes] = {}
        self._start, self._stop = 0, self._content

    def __len__(self) -> int:
        return self._stop - self._start

    def __getitem__(self, key: Any) -> Any:
        if not isinstance(key, slice):
            return bytes(self[key : key + 1])[0]
        part = copy.copy(self)
        start, stop, _ = key.indices(len(self))
        part._start, part._stop = self._start + start, self._start + max(start, stop)
        return part

    def __bytes__(self) -> bytes:
        start, stop = self._start, self._stop
        pieces = [self._block(i) for i in range(start // BLOCK, -(-stop // BLOCK))]
        return b"".join(pieces)[start % BLOCK :][: stop - start] if stop > start else b""

    def _block(self, i: int) -> bytes:
        if i not in self._cache:
            block = self._read(i * BLOCK, min((i + 1) * BLOCK, self._content))
            check_blocks(digests([block]), self._digests, i)
            while len(self._cache) >= _KEPT:
                del self._cache[next(iter(self._cache))]
            self._cache[i] = block
        return self._cache[i]

    def _read(self, start: int, stop: int) -> bytes:
        self._file.seek(start)
        data = bytearray(stop - start)
        if _fill(self._file, memoryview(data)) != len(data):
            raise FileError("file: it became shorter while it was read")
        return bytes(data)


def _fill(file: Any, view: memoryview) -> int:
    """Read until the view is full or the file ends; return the number of bytes read."""
    done = 0
    while done < len(view):
        count = file.readinto(view[done:])
        if not count:
            break
        done += count
    return done


def _aligned(size: int) -> memoryview:
    """A buffer whose address is a multiple of the alignment."""
    buffer = np.empty(size + ALIGNMENT, np.uint8)
    start = -buffer.ctypes.data % ALIGNMENT
    view: Any = buffer[start : start + size]
    return memoryview(view)


@contextlib.contextmanager
def _temporary(path: Path) -> Iterator[tuple[IO[bytes], Path]]:
    """A new file beside the path, locked if the file system can, removed at the end unless it was renamed."""
    for i in range(100):
        name = temporary_name(path, i)
        remove_stale(name)
        try:
            file = open(name, "xb", buffering=_PIECE)  # noqa: SIM115
        except FileExistsError:  # of a writer that lives, or may live
            continue
        try:
            if fcntl is not None:
                with _but_for(_NOT_LOCKED):
                    fcntl.flock(file, fcntl.LOCK_EX)
            # Between its making and its locking another save may have taken it for stale.
            if not _is_at(file, name):
                continue
            yield file, name
            return
        finally:
            if not file.closed and _is_at(file, name):  # else it was renamed, and the name may be another's
                name.unlink()
            file.close()
    raise OSError(f"no temporary file in {path.parent} stays where it was made")


@contextlib.contextmanager
def _but_for(numbers: set[int]) -> Iterator[None]:
    """Suppress errors of the system of these numbers."""
    try:
        yield
    except OSError as error:
        if error.errno not in numbers:
            raise


def _is_at(file: IO[bytes], name: Path) -> bool:
    try:
        return os.path.samestat(name.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False
