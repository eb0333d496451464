"""Policy files in NumPy: the map of a file, verified, and its params."""

import hashlib
import math
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from policy_core_adapters.numpy_runner.blocks import Blocks
from policy_core_adapters.numpy_runner.networks import Array
from policy_core_adapters.numpy_runner.tokens import Reader

_START = b"\x8b\xa6format\xabpolicy_core\xa7version"
_CHUNK = 2**32 - 64

# The name of a dtype to the bytes of an entry.
_SIZES = {
    **dict.fromkeys(("bool", "int8", "uint8"), 1),
    **dict.fromkeys(("int16", "uint16", "float16", "bfloat16"), 2),
    **dict.fromkeys(("int32", "uint32", "float32"), 4),
    **dict.fromkeys(("int64", "uint64", "float64", "complex64", "key:threefry2x32"), 8),
    **dict.fromkeys(("complex128", "key:rbg", "key:unsafe_rbg"), 16),
    **dict.fromkeys((f"float8_{kind}" for kind in (
        "e3m4", "e4m3", "e4m3b11fnuz", "e4m3fn", "e4m3fnuz", "e5m2", "e5m2fnuz", "e8m0fnu",
    )), 1),
}  # fmt: skip
_KINDS = {"float16": "<f2", "bfloat16": "<u2", "float32": "<f4", "float64": "<f8"}  # of params
_INTEGERS = {f"{sign}int{8 * n}": f"<{'u' if sign else 'i'}{n}" for sign in ("", "u") for n in (1, 2, 4, 8)}


class Row(NamedTuple):
    """An array in a file: where its chunks are, as (start, stop) in the content."""

    path: str
    dtype: str
    shape: tuple[int, ...]
    chunks: list[tuple[int, int]]


class Document(NamedTuple):
    """What of a file the runner needs; all of it has been verified but the numbers of the leaves."""

    config: Any
    batch: tuple[int, ...]
    leaves: list[Row]
    content: Blocks
    fingerprint: str = ""
    """In hexadecimal digits."""
    self_test: tuple[Row, ...] = ()


class Leaves(dict[str, Any]):
    """Params by name, nested: a leaf that was asked for is no longer unused.

    Args:
        unused: path to dtype of every leaf that nobody has asked for, shared by all levels.
        path: of this level, with a slash behind it.
    """

    def __init__(self, unused: dict[str, str], path: str = "") -> None:
        super().__init__()
        self.unused, self.path = unused, path

    def __getitem__(self, key: str) -> Any:
        self.unused.pop(self.path + key, None)
        return super().__getitem__(key)

    def __missing__(self, key: str) -> Any:
        raise ValueError(f"leaves: the leaf {self.path + key!r} of the config's params is missing")


def read(file: BinaryIO, whole: bool) -> Document:
    """The content of an open file, verified as docs/file-format.md says.

    Args:
        file: the file.
        whole: whether all of it is read and verified now, or the numbers of the leaves where they are used.
    """
    if file.read(len(_START)) != _START:
        raise ValueError("not a policy file")
    data = Blocks(file, whole)
    reader = Reader(data, len(_START))
    if (version := reader.number("size", 2**63 - 1, "version")) != 1:
        raise ValueError(f"version: got {version}, expected 1")
    config = bytes(_after(reader, "config").take("bytes", 2**22, "config"))
    fingerprint = _after(reader, "fingerprint").take("bytes", 32, "fingerprint")
    if fingerprint != hashlib.sha256(b"policy_core config\n" + config).digest():
        raise ValueError("fingerprint: it is not that of the config in the file")
    _skip_metadata(_after(reader, "metadata"))
    batch = _shape(_after(reader, "batch"), 16, "batch")
    leaves, self_test, _ = (
        list(_rows(_after(reader, name), name)) for name in ("leaves", "self_test", "extra")
    )
    inner = Reader(memoryview(config))
    content = inner.value()
    if reader.position != len(data) or inner.position != len(config):
        raise ValueError("file, config: bytes too many")
    if not isinstance(content, dict):
        raise ValueError("config: it is not one")
    return Document(content, batch, leaves, data, bytes(fingerprint).hex(), tuple(self_test))


def params_of(document: Document, member: tuple[int, ...]) -> Leaves:
    """The params of one member, as nested dicts of arrays."""
    batch = document.batch
    if len(member) != len(batch) or any(not 0 <= i < n for i, n in zip(member, batch, strict=True)):
        raise ValueError(f"member: got {member}, expected an index for each of the axes {batch}")
    params = Leaves({row.path: row.dtype for row in document.leaves})
    for row in document.leaves:
        if row.shape[: len(batch)] != batch:
            raise ValueError(f"leaves: {row.path!r} has the shape {row.shape}, expected {batch} in front")
        *parents, last = row.path.split("/")
        holder = params
        for parent in parents:
            if parent not in holder:
                holder[parent] = Leaves(params.unused, f"{holder.path}{parent}/")
            holder = dict.__getitem__(holder, parent)
        if row.dtype not in _KINDS:
            raise ValueError(f"leaves: {row.path!r} is {row.dtype}, which no policy of this runner has")
        holder[last] = array_of(document.content, row, member)
    return params


def array_of(data: Blocks, row: Row, member: tuple[int, ...]) -> Array:
    """The numbers of a row, or of a member in it, which alone are read; bfloat16 as float32."""
    kind = {**_KINDS, **_INTEGERS, "bool": "?"}.get(row.dtype)
    if kind is None:
        raise ValueError(f"leaves: {row.path!r} is {row.dtype}, which NumPy has not")
    shape = row.shape[len(member) :]
    size = math.prod(shape) * _SIZES[row.dtype]
    index = int(np.ravel_multi_index(member, row.shape[: len(member)])) if member else 0
    first, last = index * size, (index + 1) * size  # of the bytes of all chunks, one after the other
    pieces = []
    for start, stop in row.chunks:
        pieces.append(data[start + max(first, 0) : min(start + max(last, 0), stop)])
        first, last = first - (stop - start), last - (stop - start)
    content = pieces[0] if len(pieces) == 1 else b"".join(pieces)
    array = np.frombuffer(content, kind).reshape(shape)
    return (array.astype(np.uint32) << 16).view(np.float32) if row.dtype == "bfloat16" else array


def _after(reader: Reader, name: str) -> Reader:
    if reader.text(16, "keys") != name:
        raise ValueError(f"keys: expected {name!r}")
    return reader


def _skip_metadata(reader: Reader) -> None:
    start, last = reader.position, None
    for _ in range(reader.number("map", 2**10, "metadata")):
        name = reader.text(2**8, "metadata")
        if last is not None and name <= last:
            raise ValueError(f"metadata: the name {name!r} is there twice, or out of order")
        reader.text(2**20, "metadata")
        last = name
    if reader.position - start > 2**20:
        raise ValueError("metadata: too many bytes")


def _shape(reader: Reader, most: int, what: str) -> tuple[int, ...]:
    axes = reader.number("list", most, what)
    return tuple([reader.number("size", 2**63 - 1, what) for _ in range(axes)])


def _rows(reader: Reader, what: str) -> Iterator[Row]:
    last = None
    for _ in range(reader.number("list", 2**16, what)):
        row = _row(reader, what)
        if last is not None and row.path <= last:
            raise ValueError(f"{what}: the leaf {row.path!r} is there twice, or out of order")
        yield row
        last = row.path


def _row(reader: Reader, what: str) -> Row:
    if reader.number("list", 5, what) != 5:
        raise ValueError(f"{what}: expected rows of [path, dtype, shape, padding, chunks]")
    path = reader.text(2**12, what)
    where = f"{what}: the leaf {path!r}"
    dtype = reader.text(64, where)
    if dtype not in _SIZES:
        raise ValueError(f"{where} is of the unknown dtype {dtype!r}")
    shape = _shape(reader, 32, where)
    padding = reader.take("bytes", 63, where)
    left = math.prod(shape) * _SIZES[dtype]
    if math.prod(max(size, 1) for size in shape) * _SIZES[dtype] >= 2**62:
        raise ValueError(f"{where} has the shape {shape}, larger than any array")
    if any(padding) or (left == 0 and len(padding)):
        raise ValueError(f"{where} has a padding that is not zero")
    chunks: list[tuple[int, int]] = []
    for _ in range(reader.number("list", -(-left // _CHUNK), where)):
        size = reader.number("bytes", min(left, _CHUNK), where)
        chunks.append((reader.position, reader.position + size))
        reader.position += size
        if size != min(left, _CHUNK):
            break
        left -= size
        if len(chunks) == 1 and chunks[0][0] % 64:
            raise ValueError(f"{where} is not aligned to 64 bytes")
        whole = isinstance(reader.data, Blocks) and reader.data.whole is not None
        if dtype == "bool" and whole and np.frombuffer(reader.data[slice(*chunks[-1])], np.uint8).max() > 1:
            raise ValueError(f"{where} is bool and holds a byte that is neither 0 nor 1")
    if left:
        raise ValueError(f"{where} has not the bytes of its shape {shape}")
    return Row(path, dtype, shape, chunks)
