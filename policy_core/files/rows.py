"""Arrays as rows `[path, dtype, shape, padding, chunks]`, aligned, sorted by path, without gaps.

The content of a leaf is in its row, so there is no table of offsets that could overlap,
leave gaps or point outside. Zeros before it (`padding`) align it to a multiple of 64 bytes
from the start of the file, so that an array can be a view of the bytes that were read. A msgpack
byte string has less than 4 GiB, so a larger leaf is split into chunks.
"""

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from policy_core.errors import FileError
from policy_core.files.wire import Reader, array_header, bin_header, pack

ALIGNMENT = 64
LARGEST_CHUNK = 2**32 - 64
MOST_ROWS = 2**16
LONGEST_PATH = 2**12
MOST_AXES = 32

# All dtypes of files, by name; no other name is passed to NumPy.
DTYPES: dict[str, np.dtype] = {
    name: np.dtype(getattr(jnp, name, name))
    for name in (
        "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
        "float16", "bfloat16", "float32", "float64", "complex64", "complex128",
        "float8_e3m4", "float8_e4m3", "float8_e4m3b11fnuz", "float8_e4m3fn", "float8_e4m3fnuz",
        "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu",
    )
}  # fmt: skip
# Typed PRNG keys: number of uint32 of a key, by implementation.
KEYS = {"key:threefry2x32": 2, "key:rbg": 4, "key:unsafe_rbg": 4}

_ROW = array_header(5)

# By place in a file: what stood there before the content of a row, and what it says. Files of one config have
# the same bytes there, which need not be taken apart again.
_HEADS: dict[int, tuple[bytes, tuple[str, str, tuple[int, ...], int]]] = {}
_MOST_HEADS, _LONGEST_HEAD = 1024, 256
_UNKNOWN: tuple[bytes, tuple[str, str, tuple[int, ...], int]] = (b"", ("", "", (), 0))


class Row(NamedTuple):
    """One array: its path, the name of its dtype, its shape, and its bytes in chunks.

    The chunks are `memoryview`s, or parts of a file that is read where it is asked.
    """

    path: str
    dtype: str
    shape: tuple[int, ...]
    chunks: tuple[Any, ...]

    @property
    def nbytes(self) -> int:
        """Size of the content in bytes."""
        return sum(len(chunk) for chunk in self.chunks)

    def array(self) -> np.ndarray:
        """The content as a read-only array; for keys, of their uint32.

        A view of the bytes that were read, unless the leaf is larger than one chunk.
        """
        shape = (*self.shape, KEYS[self.dtype]) if self.dtype in KEYS else self.shape
        kind = DTYPES["uint32" if self.dtype in KEYS else self.dtype]
        if not self.chunks:
            return np.zeros(shape, kind)
        content = self.chunks[0]
        if len(self.chunks) > 1:
            content = np.concatenate([np.frombuffer(chunk, np.uint8) for chunk in self.chunks])
        array = np.ndarray(shape, kind.newbyteorder("<"), content).astype(kind, copy=False)
        array.flags.writeable = False
        return array

    def member(self, index: int, axes: int) -> "Row":
        """The row of one member, whose content alone is read.

        Args:
            index: of the member, in C order over the axes of the population.
            axes: their number; they stand in front of the shape.
        """
        shape = self.shape[axes:]
        size = math.prod(shape) * _itemsize(self.dtype)
        start = index * size
        pieces = []
        for chunk in self.chunks:
            pieces.append(bytes(chunk[max(start, 0) : max(start + size, 0)]))
            start -= len(chunk)
        content = memoryview(b"".join(pieces))
        if self.dtype == "bool":
            _check_bools(content, f"the leaf {self.path!r}")
        return Row(self.path, self.dtype, shape, (content,) if size else ())


def row_of(path: str, dtype: str, shape: tuple[int, ...], content: np.ndarray) -> Row:
    """The row of an array; `content` is not copied if it is contiguous.

    Raises:
        FileError: for a dtype that files do not support, or too many axes.
    """
    if dtype not in DTYPES and dtype not in KEYS:
        raise FileError(f"the leaf {path!r} is {dtype}; a file holds {', '.join([*DTYPES, *KEYS])}")
    if len(shape) > MOST_AXES:
        raise FileError(f"the leaf {path!r} has {len(shape)} axes, at most {MOST_AXES} are allowed")
    little = content.astype(content.dtype.newbyteorder("<"), order="C", copy=False)
    flat: Any = np.ascontiguousarray(little).reshape(-1).view(np.uint8)
    view = memoryview(flat).toreadonly()
    chunks = tuple(view[i : i + LARGEST_CHUNK] for i in range(0, len(view), LARGEST_CHUNK))
    return Row(path, dtype, shape, chunks)


def write_rows(rows: Iterable[Row], position: int, what: str) -> list[bytes | memoryview]:
    """The bytes of a list of rows, as parts; `position` is where it begins in the file."""
    ordered = sorted(rows, key=lambda row: row.path)
    if len(ordered) > MOST_ROWS:
        raise FileError(f"{what}: {len(ordered)} leaves, at most {MOST_ROWS} are allowed")
    parts: list[bytes | memoryview] = [array_header(len(ordered))]
    position += len(parts[0])
    for row in ordered:
        if len(row.path.encode("utf-8", "replace")) > LONGEST_PATH:
            raise FileError(f"{what}: a path is longer than {LONGEST_PATH} bytes")
        head = _ROW + pack(row.path) + pack(row.dtype) + pack(list(row.shape))
        tail = array_header(len(row.chunks))
        if not row.chunks:
            pieces: list[bytes | memoryview] = [head + bin_header(0) + tail]
        else:
            tail += bin_header(len(row.chunks[0]))
            padding = bytes(-(position + len(head) + 2 + len(tail)) % ALIGNMENT)
            pieces = [head + bin_header(len(padding)) + padding + tail, row.chunks[0]]
            for chunk in row.chunks[1:]:
                pieces += [bin_header(len(chunk)), chunk]
        position += sum(map(len, pieces))
        parts += pieces
    return parts


def read_rows(reader: Reader, what: str) -> tuple[Row, ...]:
    """The rows of a list; every field is checked before it is used.

    Raises:
        FileError: for anything that `write_rows` would not have written.
    """
    rows: list[Row] = []
    for _ in range(reader.array(MOST_ROWS, what)):
        rows.append(_read_row(reader, what))
        if len(rows) > 1 and rows[-2].path >= rows[-1].path:
            raise FileError(f"{what}: the leaf {rows[-1].path!r} is there twice, or out of order")
    return tuple(rows)


def _read_row(reader: Reader, what: str) -> Row:
    start = reader.position
    head, (path, dtype, shape, size) = _HEADS.get(start, _UNKNOWN)
    end = start + len(head) + size
    if head and end <= reader.size and reader.data[start : end - size] == head:
        reader.position, content = end, reader.data[end - size : end]
        if dtype == "bool":
            _check_bools(content, f"{what}: the leaf {path!r}")
        return Row(path, dtype, shape, (content,))
    row = _read_new_row(reader, what)
    before = reader.data[start : reader.position - row.nbytes]
    if len(row.chunks) == 1 and len(before) <= _LONGEST_HEAD and isinstance(before, memoryview):
        if len(_HEADS) >= _MOST_HEADS:
            _HEADS.clear()
        _HEADS[start] = bytes(before), (*row[:3], row.nbytes)
    return row


def _read_new_row(reader: Reader, what: str) -> Row:
    if reader.array(5, what) != 5:
        raise FileError(f"{what}: expected rows of [path, dtype, shape, padding, chunks]")
    path = reader.text(LONGEST_PATH, what)
    where = f"{what}: the leaf {path!r}"
    dtype = reader.text(64, where)
    if dtype not in DTYPES and dtype not in KEYS:
        raise FileError(f"{where} is of the unknown dtype {dtype!r}")
    shape = tuple([reader.uint(where) for _ in range(reader.array(MOST_AXES, where))])
    padding = bytes(reader.binary(ALIGNMENT - 1, where))
    if padding != bytes(len(padding)):
        raise FileError(f"{where} has a padding that is not zero")
    left = math.prod(shape) * _itemsize(dtype)
    if (left or math.prod(max(size, 1) for size in shape) * _itemsize(dtype)) >= 2**62:
        raise FileError(f"{where} has the shape {shape}, larger than any array")
    count = reader.array(MOST_ROWS, where)
    if count != -(-left // LARGEST_CHUNK) or (left == 0 and len(padding)):
        raise FileError(f"{where} has {count} chunks, not those of its shape {shape}")
    chunks: list[Any] = []
    for i in range(count):
        chunk = reader.binary(LARGEST_CHUNK, where)
        if len(chunk) != min(left, LARGEST_CHUNK):
            raise FileError(f"{where} has {len(chunk)} bytes in a chunk, not those of its shape {shape}")
        if i == 0 and (reader.position - len(chunk)) % ALIGNMENT:
            raise FileError(f"{where} is not aligned to {ALIGNMENT} bytes")
        left -= len(chunk)
        if dtype == "bool" and isinstance(chunk, memoryview):  # else it is not read before it is asked for
            _check_bools(chunk, where)
        chunks.append(chunk)
    return Row(path, dtype, shape, tuple(chunks))


def _check_bools(content: memoryview, where: str) -> None:
    if len(content) and np.frombuffer(content, np.uint8).max() > 1:
        raise FileError(f"{where} is bool and holds a byte that is neither 0 nor 1")


def _itemsize(dtype: str) -> int:
    return 4 * KEYS[dtype] if dtype in KEYS else DTYPES[dtype].itemsize
