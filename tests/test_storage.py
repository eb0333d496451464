"""Never lost: whatever happens to a writer, a reader sees one whole file."""

import fcntl
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from policy_core.files import storage

ROOT = Path(__file__).parent.parent
KILLS = int(os.environ.get("POLICY_CORE_KILLS", "3"))  # 200 were run once, see docs/file-format.md

# Writes files of one letter over and over; says when it is about to begin, as it goes.
WRITER = """
import itertools, sys
from pathlib import Path
from policy_core.files.storage import write_atomically

print("ready", flush=True)
for letter in itertools.cycle(sys.argv[2].encode()):
    write_atomically(Path(sys.argv[1]), [bytes([letter]) * 3_000_000] * 2)
"""


def _writer(path: Path, letters: str) -> subprocess.Popen[str]:
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path), letters], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert writer.stdout is not None
    assert writer.stdout.readline() == "ready\n"
    return writer


def _whole(path: Path) -> bool:
    data = path.read_bytes()
    return len(data) == 6_000_000 and data == data[:1] * len(data)


def _temporaries(folder: Path) -> list[Path]:
    return list(folder.glob(".policy_core-*.tmp"))


def test_a_killed_writer_loses_nothing_and_its_rubbish_goes_with_the_next_save(tmp_path):
    path = tmp_path / "file"
    storage.write_atomically(path, [b"a" * 6_000_000])
    left = 0
    for i in range(KILLS):
        writer = _writer(path, "abc")
        time.sleep(0.02 + 0.05 * (i * 0.618 % 1))
        os.kill(writer.pid, signal.SIGKILL)
        writer.communicate()
        assert _whole(path)
        left += len(_temporaries(tmp_path))
        assert len(_temporaries(tmp_path)) <= 1
    storage.write_atomically(path, [b"z" * 6_000_000])
    assert list(tmp_path.iterdir()) == [path]
    if KILLS >= 100:
        print(f"{KILLS} kills, {left} temporary files left behind and removed")


def test_readers_see_whole_files_while_two_write(tmp_path):
    path = tmp_path / "file"
    storage.write_atomically(path, [b"a" * 6_000_000])
    writers = [_writer(path, "bc"), _writer(path, "de")]
    torn: list[int] = []
    seen = set()

    def read() -> None:
        end = time.monotonic() + 0.7
        while time.monotonic() < end:
            if not _whole(path):
                torn.append(1)
            seen.add(path.read_bytes()[:1])

    readers = [threading.Thread(target=read) for _ in range(3)]
    for thread in readers:
        thread.start()
    for thread in readers:
        thread.join()
    for writer in writers:
        assert writer.poll() is None, "a writer has failed"
        writer.kill()
        writer.communicate()
    assert torn == []
    assert len(seen) > 1


def test_a_temporary_file_that_a_writer_holds_is_left_alone(tmp_path):
    live, stale = (tmp_path / f".policy_core-{i:016x}.tmp" for i in range(2))
    other = tmp_path / ".other.tmp"
    for path in (live, stale, other):
        path.write_bytes(b"x")
    with open(live, "rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        storage.write_atomically(tmp_path / "file", [b"1"])
        assert sorted(tmp_path.iterdir()) == sorted([live, other, tmp_path / "file"])
    storage.write_atomically(tmp_path / "file", [b"2"])
    assert sorted(tmp_path.iterdir()) == sorted([other, tmp_path / "file"])


def test_a_cleaner_that_comes_between_making_and_locking_does_no_harm(tmp_path, monkeypatch):
    lock, calls = fcntl.flock, []

    def late(file: Any, how: int) -> None:
        calls.append(how)
        if len(calls) == 1:
            storage.remove_stale(tmp_path)  # it takes the new file for stale
        lock(file, how)

    monkeypatch.setattr(storage.fcntl, "flock", late)
    storage.write_atomically(tmp_path / "file", [b"whole"])
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_bytes() == b"whole"


@pytest.mark.parametrize("step", ["replace", "fsync", "write"])
def test_a_failed_save_leaves_the_old_file_and_nothing_else(step, tmp_path, monkeypatch):
    path = tmp_path / "file"
    storage.write_atomically(path, [b"old"])

    def fail(*args: Any, **kwargs: Any) -> Any:
        raise OSError("the disk is full")

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        if step == "write":  # the system says so, as on a full disk
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
        else:
            monkeypatch.setattr(os, step, fail)
        with pytest.raises(OSError, match=r"disk is full|too large"):
            storage.write_atomically(path, [b"new" * 1000])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes() == b"old"


def test_the_file_and_the_folder_are_flushed_in_this_order(tmp_path, monkeypatch):
    done = []
    fsync, replace = os.fsync, os.replace

    def flush(handle: int) -> None:
        done.append("folder" if Path(f"/proc/self/fd/{handle}").is_dir() else "file")
        fsync(handle)

    def rename(old: Any, new: Any) -> None:
        done.append("rename")
        replace(old, new)

    monkeypatch.setattr(os, "fsync", flush)
    monkeypatch.setattr(os, "replace", rename)
    storage.write_atomically(tmp_path / "file", [b"x"])
    assert done == ["file", "rename", "folder"]


@pytest.mark.parametrize("size", [0, 1, 2**20, 2**20 + 31, 2**20 + 33, 2**21 + 32, 2**21 + 33, 2**22 + 17])
def test_a_file_is_read_whole_and_hashed_as_it_comes(size, tmp_path):
    from policy_core.files.checksum import checksum

    content = os.urandom(size)
    storage.write_atomically(tmp_path / "file", [content[:7], content[7:]])
    data, seal = storage.read_file(tmp_path / "file")
    assert data == content
    assert seal in (None, checksum([content[:-32]]))
    assert (seal is None) == (size <= 2**21)
