"""Never lost: whatever happens to a writer, a reader sees one whole file."""

import ctypes
import errno
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

import numpy as np
import pytest

import policy_core as pc
from policy_core.errors import FileError
from policy_core.files import policies, storage

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
    live, stale = (storage.temporary_name(tmp_path / "file", i) for i in range(2))
    others = [tmp_path / ".other.tmp", tmp_path / ".policy_core-0123456789abcdef.tmp"]
    others.append(storage.temporary_name(tmp_path / "another", 0))
    for path in (live, stale, *others):
        path.write_bytes(b"x")
    with open(live, "rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        storage.write_atomically(tmp_path / "file", [b"1"])
        assert sorted(tmp_path.iterdir()) == sorted([live, *others, tmp_path / "file"])
    storage.write_atomically(tmp_path / "file", [b"2"])
    assert sorted(tmp_path.iterdir()) == sorted([*others, tmp_path / "file"])


def _failing(number: int, *names: str) -> Any:
    """A function of `os` or `fcntl` that fails with an error where its argument has one of the names."""

    def call(real: Any) -> Any:
        def fail(argument: Any, *rest: Any, **more: Any) -> Any:
            handle = argument if isinstance(argument, int | str | Path) else argument.fileno()
            what = Path(f"/proc/self/fd/{handle}").resolve() if isinstance(handle, int) else Path(handle)
            if not names or ("folder" in names and what.is_dir()):
                raise OSError(number, os.strerror(number))
            return real(argument, *rest, **more)

        return fail

    return call


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_will_do(number, tmp_path, monkeypatch):
    monkeypatch.setattr(storage.fcntl, "flock", _failing(number)(fcntl.flock))
    for content in (b"1", b"2"):
        storage.write_atomically(tmp_path / "file", [content])
        assert (tmp_path / "file").read_bytes() == content
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]
    left = [storage.temporary_name(tmp_path / "file", i) for i in range(10)]
    for path in left:  # of writers of which nobody can know whether they live
        path.write_bytes(b"x")
    storage.write_atomically(tmp_path / "file", [b"3"])
    assert sorted(tmp_path.iterdir()) == sorted([*left, tmp_path / "file"])


def test_another_error_of_a_lock_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(storage.fcntl, "flock", _failing(errno.EIO)(fcntl.flock))
    with pytest.raises(OSError, match="Input/output error"):
        storage.write_atomically(tmp_path / "file", [b"1"])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("step", "number"), [("fsync", errno.EINVAL), ("open", errno.EACCES)], ids=["no flush", "write-only"]
)
def test_a_folder_that_cannot_be_flushed_is_no_error_after_the_rename(step, number, tmp_path, monkeypatch):
    monkeypatch.setattr(os, step, _failing(number, "folder")(getattr(os, step)))
    storage.write_atomically(tmp_path / "file", [b"1"])
    assert (tmp_path / "file").read_bytes() == b"1"


def test_a_disk_that_fails_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", _failing(errno.EIO, "folder")(os.fsync))
    with pytest.raises(OSError, match="Input/output error"):
        storage.write_atomically(tmp_path / "file", [b"1"])


def test_no_save_looks_through_the_folder(tmp_path, monkeypatch):
    def fail(*args: Any) -> Any:
        raise PermissionError("a folder that may only be written to")

    for name in ("scandir", "listdir"):
        monkeypatch.setattr(os, name, fail)
    storage.write_atomically(tmp_path / "file", [b"1"])
    assert (tmp_path / "file").read_bytes() == b"1"


@pytest.mark.parametrize("relative", [True, False])
def test_a_link_is_followed_and_stays(relative, tmp_path):
    (tmp_path / "runs").mkdir()
    target, link, other = tmp_path / "runs" / "policy", tmp_path / "latest", tmp_path / "chain"
    target.write_bytes(b"old")
    link.symlink_to(Path("runs/policy") if relative else target)
    other.symlink_to(link)
    for path in (link, other):
        storage.write_atomically(path, [path.name.encode()])
        assert target.read_bytes() == path.name.encode()
        assert link.is_symlink()
        assert other.is_symlink()
    assert sorted(tmp_path.rglob("*")) == sorted([other, link, target.parent, target])
    (tmp_path / "dangling").symlink_to(tmp_path / "new" / "policy")
    storage.write_atomically(tmp_path / "dangling", [b"1"])
    assert (tmp_path / "new" / "policy").read_bytes() == b"1"


def test_mode_and_owner_stay_those_of_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "file"
    mask = os.umask(0o027)
    try:
        storage.write_atomically(path, [b"1"])
        assert path.stat().st_mode & 0o7777 == 0o640
        for mode in (0o644, 0o600, 0o444):
            path.chmod(mode)
            storage.write_atomically(path, [b"2"])
            assert path.stat().st_mode & 0o7777 == mode
    finally:
        os.umask(mask)
    if os.geteuid() == 0:
        os.chown(path, 1234, 4321)
        storage.write_atomically(path, [b"3"])
        assert (path.stat().st_uid, path.stat().st_gid) == (1234, 4321)
    monkeypatch.setattr(os, "fchown", _failing(errno.EPERM)(os.fchown))
    storage.write_atomically(path, [b"4"])
    assert path.read_bytes() == b"4"
    assert path.stat().st_mode & 0o7777 == 0o444


def test_a_missing_folder_is_made(tmp_path):
    storage.write_atomically(tmp_path / "a" / "b" / "file", [b"1"])
    assert (tmp_path / "a" / "b" / "file").read_bytes() == b"1"


def test_another_working_folder_meanwhile_changes_nothing(tmp_path, monkeypatch):
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "here")

    class Parts(list[bytes]):
        def __iter__(self) -> Any:  # as it is written, another thread goes elsewhere
            yield b"1"
            os.chdir(tmp_path / "there")
            yield b"2"

    storage.write_atomically(Path("file"), Parts())
    assert (tmp_path / "here" / "file").read_bytes() == b"12"
    assert list((tmp_path / "there").iterdir()) == []


def test_the_path_of_a_save_is_that_of_its_call(tmp_path, monkeypatch):
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "here")

    def parts(*args: Any) -> Any:
        os.chdir(tmp_path / "there")
        return [b"1"]

    monkeypatch.setattr(policies, "parts_of", parts)
    config = pc.ActorCriticConfig(observation_space=pc.Box(), action_space=pc.Discrete(2))
    pc.save("file", ({}, config))
    assert (tmp_path / "here" / "file").read_bytes() == b"1"


def test_a_cleaner_that_comes_between_making_and_locking_does_no_harm(tmp_path, monkeypatch):
    lock, calls = fcntl.flock, []

    def late(file: Any, how: int) -> None:
        calls.append(how)
        if len(calls) == 1:
            storage.remove_stale(
                storage.temporary_name(tmp_path / "file", 0)
            )  # it takes the new file for stale
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


@pytest.mark.parametrize("size", [0, 1, 2**20, 2**21, 2**21 + 1, 2**21 + 2200, 2**22 + 17])
def test_a_file_is_read_whole_and_hashed_as_it_comes(size, tmp_path):
    from policy_core.files.checksum import content_size, digests

    content = os.urandom(size)
    storage.write_atomically(tmp_path / "file", [content[:7], content[7:]])
    begins = []
    data, blocks = storage.read_file(tmp_path / "file", lambda start: begins.append(bytes(start)))
    assert data == content
    assert (blocks is None) == (size <= 2**21)
    if blocks is not None:
        assert blocks == digests([content[: content_size(size)]])
        assert begins == [content[:64]]


def test_each_byte_is_read_once_and_hashed_by_the_thread_that_read_it(tmp_path, monkeypatch):
    content = os.urandom(2**22 + 2**20 + 12_345)
    (tmp_path / "file").write_bytes(content)
    read, hashed = dict[int, int](), dict[int, int]()
    fill, digests = storage._fill, storage.digests

    def filled(file: Any, view: memoryview) -> int:
        read[ctypes.addressof(ctypes.c_char.from_buffer(view))] = threading.get_ident()
        return fill(file, view)

    def digested(parts: Any) -> bytes:
        hashed[np.frombuffer(parts[0], np.uint8).ctypes.data] = threading.get_ident()
        return digests(parts)

    monkeypatch.setattr(storage, "_fill", filled)
    monkeypatch.setattr(storage, "digests", digested)
    data, blocks = storage.read_file(tmp_path / "file", len)
    assert data == content
    assert blocks is not None
    start = np.frombuffer(data, np.uint8).ctypes.data
    assert sorted(read) == [start + i * 2**20 for i in range(6)]
    assert hashed == read
    assert threading.get_ident() not in read.values()


@pytest.mark.parametrize("left", [0, 2**20 - 1, 2**20, 2**21 + 3])
def test_a_file_that_becomes_shorter_while_it_is_read_is_refused(left, tmp_path, monkeypatch):
    (tmp_path / "file").write_bytes(content := os.urandom(2**22))
    aligned = storage._aligned

    def shorter(size: int) -> memoryview:  # after its size was asked for
        os.truncate(tmp_path / "file", left)
        return aligned(size)

    monkeypatch.setattr(storage, "_aligned", shorter)
    data, blocks = storage.read_file(tmp_path / "file", len)
    assert blocks is None
    assert data == content[: left // 2**20 * 2**20]


def test_what_does_not_begin_as_a_policy_file_is_refused_before_it_is_read(tmp_path):
    with open(tmp_path / "file", "wb") as file:
        file.truncate(2**40)  # of zeros that take no place on the disk
    for read in (pc.load, pc.verify, pc.inspect):
        with pytest.raises(FileError, match=r"^not a policy file, or .*: it does not begin as one$"):
            read(tmp_path / "file")
