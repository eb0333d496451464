"""A set of different policies, such as those of several agents: one file each and a manifest in a folder.

    manifest.json               names, files, fingerprints and checksums; written last, checked first
    <name>-<16 digits>.msgpack  a policy file, named by the first of its checksum

A file is never replaced by one of other content, so that until the manifest is there a set that is being
saved leaves the old one as it is, and afterwards the files that only the old one named are removed.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from policy_core.configs.comparison import fingerprint
from policy_core.contract import ActorCritic, Policy
from policy_core.errors import FileError
from policy_core.files.checksum import DIGEST, Buffer
from policy_core.files.document import check_start, read
from policy_core.files.policies import PathLike, parts_of, policy_of
from policy_core.files.storage import locked, read_file, write_atomically

MANIFEST = "manifest.json"
_FORMAT = "policy_core set"
_MOST_BYTES = 2**20
_MOST_NAME = 2**8


class _Entry(NamedTuple):
    file: str
    fingerprint: str
    checksum: str


def save_all(folder: PathLike, policies: Mapping[str, Policy], *, self_test: bool = True) -> None:
    """Write a set of policies, each of a config of its own, to a folder: all of them, or none.

    At any time, also after a crash, the folder holds the complete old set or the complete new one.

    Args:
        folder: the folder; it is created if it is missing. Nothing else of what is in it is touched.
        policies: the pairs by name; a population is one of them.
        self_test: as for `save`.

    Raises:
        FileError: if one of them cannot be saved; the folder holds the old set.
        OSError: likewise, if a file cannot be written.

    Example:
        >>> import jax
        >>> import tempfile, policy_core as pc
        >>> config = pc.ActorCriticConfig(
        ...     observation_space=pc.Box(shape=(4,)), action_space=pc.Discrete(2)
        ... )
        >>> policies = {"prey": pc.init(config, key=jax.random.key(0))}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     pc.files.save_all(folder, policies)
        ...     loaded = pc.files.load_all(folder, {"prey": config})
        >>> list(loaded)
        ['prey']
    """
    folder = Path(folder).absolute()
    entries: dict[str, _Entry] = {}
    contents: dict[str, list[Buffer]] = {}
    for name, policy in sorted(policies.items()):
        _check_name(name)
        with _Named(name):
            parts = parts_of(policy, self_test=self_test)
        checksum = bytes(parts[-1][-DIGEST:]).hex()
        file = f"{re.sub(r'[^A-Za-z0-9_-]', '_', name)[:64]}-{checksum[:16]}.msgpack"
        entries[name] = _Entry(file, fingerprint(policy[1]).hex(), checksum)
        contents[file] = parts
    text = json.dumps(
        {
            "format": _FORMAT,
            "version": 1,
            "policies": {name: entry._asdict() for name, entry in entries.items()},
        },
        indent=1,
    ).encode()
    if len(text) > _MOST_BYTES:
        raise FileError(f"policies: {len(policies)} names of {len(text)} bytes; a manifest has at most 1 MiB")
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder):  # of two that save at once, neither removes what the other one has just named
        try:
            old = {entry.file for entry in _read_manifest(folder).values()}
        except (FileError, OSError):  # then nobody knows which files are those of an old set
            old = set()
        for file, parts in contents.items():
            write_atomically(folder / file, parts)
        write_atomically(folder / MANIFEST, [text])
        for file in old - contents.keys():
            (folder / file).unlink(missing_ok=True)


def load_all(
    folder: PathLike, configs: Mapping[str, ActorCritic[Any, Any, Any, Any]] | None = None
) -> dict[str, Policy]:
    """Read a set of policies that `save_all` wrote.

    Args:
        folder: the folder.
        configs: the expected config of each name, or None to use those in the files.

    Returns:
        The pairs by name, after all of them have been verified.

    Raises:
        FingerprintError: if a policy is of another config; the message has its name and the fields.
        FileError: if the manifest or a file is damaged, or is not of this set, or if the set has other names.
        OSError: if there is no such folder, or a file of it cannot be read.

    Example:
        >>> import policy_core as pc
        >>> pc.files.load_all("/")
        Traceback (most recent call last):
        ...
        FileNotFoundError: [Errno 2] No such file or directory: '/manifest.json'
    """
    folder = Path(folder).absolute()
    while True:
        entries = _read_manifest(folder)
        if configs is not None and set(configs) != set(entries):
            raise FileError(f"{MANIFEST}: the set is of {sorted(entries)}, expected {sorted(configs)}")
        try:
            return {
                name: _load(name, folder / entry.file, entry, None if configs is None else configs[name])
                for name, entry in entries.items()
            }
        except FileNotFoundError:
            if _read_manifest(folder) == entries:  # else another process has just saved a new set
                raise


def _load(name: str, path: Path, entry: _Entry, config: Any) -> Policy:
    data, blocks = read_file(path, check_start)
    with _Named(name):
        document = read(data, blocks)
        if (data[-DIGEST:].hex(), document.fingerprint.hex()) != (entry.checksum, entry.fingerprint):
            raise FileError(f"{path.name} is a good file, but not the one that the manifest names")
        return policy_of(document, config)


def _read_manifest(folder: Path) -> dict[str, _Entry]:
    with open(folder / MANIFEST, "rb") as file:
        text = file.read(_MOST_BYTES + 1)
    if len(text) > _MOST_BYTES:
        raise FileError(f"{MANIFEST}: more than {_MOST_BYTES} bytes")
    try:
        data = json.loads(text, object_pairs_hook=_pairs)
    except (ValueError, RecursionError) as error:
        raise FileError(f"{MANIFEST}: it is damaged, or none: {error}") from error
    known = isinstance(data, dict) and data.get("format") == _FORMAT and data.get("version") == 1
    if not known or set(data) != {"format", "version", "policies"} or type(data["policies"]) is not dict:
        raise FileError(f"{MANIFEST}: expected that of a {_FORMAT!r} of version 1")
    for name, entry in data["policies"].items():
        _check_name(name)
        if type(entry) is not dict or set(entry) != set(_Entry._fields):
            raise FileError(f"{MANIFEST}: {name!r} has not just {', '.join(_Entry._fields)}")
        if not re.fullmatch(r"[A-Za-z0-9_-]+\.msgpack", str(entry["file"])):
            raise FileError(f"{MANIFEST}: the file {entry['file']!r} of {name!r} is not one of this folder")
    return {name: _Entry(**entry) for name, entry in data["policies"].items()}


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(result := dict(pairs)) != len(pairs):
        raise ValueError("a key is there twice")
    return result


def _check_name(name: Any) -> None:
    if type(name) is not str or not 0 < len(name.encode("utf-8", "replace")) <= _MOST_NAME:
        raise FileError(f"policies: got the name {name!r}, expected a text of 1 to {_MOST_NAME} bytes")


class _Named:
    """A context in which the text of a `FileError` begins with the name of a policy."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if isinstance(error, FileError):
            raise type(error)(f"{self.name!r}: {error}") from error
