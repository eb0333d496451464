"""Atomic writes and reads of files.

Invariant: at any time, also after a crash, `path` is the complete old file or the complete new one.
A save writes a temporary file in the same folder, flushes it to the disk, renames it over the
path, and flushes the folder. The temporary file is locked while its writer lives. The lock of a
killed writer is free, and the next save into the folder deletes its temporary file.
"""

import contextlib
import hashlib
import os
import secrets
import stat
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

import numpy as np

from policy_core.files.checksum import BLOCK, Buffer, combine
from policy_core.files.rows import ALIGNMENT

try:
    import fcntl
except ImportError:  # without locks no temporary file is known to be stale, and none is deleted
    fcntl = None  # type: ignore[assignment]

_PREFIX, _SUFFIX = ".policy_core-", ".tmp"


def write_atomically(path: Path, parts: Sequence[Buffer]) -> None:
    """Replace the file at `path` by the concatenated parts, atomically.

    Raises:
        OSError: if that fails; an old file is unchanged.
    """
    remove_stale(path.parent)
    with _temporary(path.parent) as (file, name):
        for part in parts:
            file.write(part)
        # All bytes must be on the disk before the rename, else a crash could leave a part of them.
        file.flush()
        os.fsync(file.fileno())
        if fcntl is None:  # Windows cannot rename an open file
            file.close()
        os.replace(name, path)
    if hasattr(os, "O_DIRECTORY"):  # the rename itself must reach the disk, where a folder can be flushed
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def remove_stale(folder: Path) -> None:
    """Delete the temporary files of dead writers: those whose lock is free."""
    if fcntl is None:
        return
    with os.scandir(folder) as entries:
        names = [Path(e.path) for e in entries if e.name.startswith(_PREFIX) and e.name.endswith(_SUFFIX)]
    for name in names:
        # OSError: another process deleted the file, holds its lock, or owns it. All are left alone.
        with contextlib.suppress(OSError):
            handle = os.open(name, os.O_RDWR | getattr(os, "O_NOFOLLOW", 0))
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.path.samestat(name.stat(), os.fstat(handle)):
                    name.unlink()
            finally:
                os.close(handle)


def read_file(path: Path) -> tuple[memoryview, bytes | None]:
    """The bytes of a file in one aligned buffer, and the checksum of all but the last 32.

    A block is hashed while the next one is read.

    Raises:
        OSError: if there is no such file, or it cannot be read.
    """
    with open(path, "rb", buffering=0) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):  # a pipe has no size to allocate
            return memoryview(file.read()), None
        data = _aligned(status.st_size)
        if len(data) <= 2 * BLOCK:
            data = data[: _fill(file, data)]
            return data.toreadonly(), None
        return _read_and_hash(file, data)


def _read_and_hash(file: Any, data: memoryview) -> tuple[memoryview, bytes | None]:
    end = len(data) - 32
    pending: list[Future[bytes]] = []
    with ThreadPoolExecutor(min(os.cpu_count() or 1, 8)) as pool:
        for start in range(0, len(data), BLOCK):
            piece = data[start : start + BLOCK]
            if _fill(file, piece) != len(piece):
                return data[:start].toreadonly(), None  # the file was truncated while it was read
            if start < end:
                hashed = data[start : min(start + BLOCK, end)]
                pending.append(pool.submit(lambda block: hashlib.sha256(block).digest(), hashed))
    return data.toreadonly(), combine(future.result() for future in pending)


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
def _temporary(folder: Path) -> Iterator[tuple[IO[bytes], Path]]:
    """A new locked file in the folder, deleted at the end unless it was renamed."""
    for _ in range(100):
        name = folder / f"{_PREFIX}{secrets.token_hex(8)}{_SUFFIX}"
        file = open(name, "xb", buffering=BLOCK)  # noqa: SIM115
        try:
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_EX)
            # Another save may have deleted it as stale before it was locked: then try a new name.
            if not _is_at(file, name):
                continue
            yield file, name
            return
        finally:
            name.unlink(missing_ok=True)  # after a rename there is nothing to delete
            file.close()
    raise OSError(f"no temporary file in {folder} stays where it was made")


def _is_at(file: IO[bytes], name: Path) -> bool:
    try:
        return os.path.samestat(name.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False
