"""Canonical msgpack, token by token: each value has exactly one valid encoding.

A general msgpack reader builds any value and leaves it to be checked later. The grammar of a policy
file is fixed, so this reader expects a certain token next and raises at any other: nesting,
duplicate keys, extension types and declared sizes beyond the end are rejected before any
allocation. The bytes are ordinary msgpack, which any other implementation reads.
"""

import struct
from typing import Any, TypeAlias, cast

import msgpack

from policy_core.errors import FileError

Content: TypeAlias = Any  # bytes by slices, which `bytes` takes: a `memoryview`, or the `Blocks` of a file
LARGEST_BIN = 2**32 - 1
MAP_VALUES = 64  # that a map counts for: a config is made of each two

_U8, _U16, _U32, _U64 = map(struct.Struct, (">B", ">H", ">I", ">Q"))
_I8, _I16, _I32, _I64 = map(struct.Struct, (">b", ">h", ">i", ">q"))

# By tag, the format of the number after it and the smallest number in this form; for signed tags,
# the smallest number that has a shorter form.
_Tags = dict[int, tuple[struct.Struct, int]]
_UINTS: _Tags = {0xCC: (_U8, 2**7), 0xCD: (_U16, 2**8), 0xCE: (_U32, 2**16), 0xCF: (_U64, 2**32)}
_INTS: _Tags = {0xD0: (_I8, -(2**5)), 0xD1: (_I16, -(2**7)), 0xD2: (_I32, -(2**15)), 0xD3: (_I64, -(2**31))}
_BINS: _Tags = {0xC4: (_U8, 0), 0xC5: (_U16, 2**8), 0xC6: (_U32, 2**16)}
_TEXTS: _Tags = {0xD9: (_U8, 2**5), 0xDA: (_U16, 2**8), 0xDB: (_U32, 2**16)}
_ARRAYS: _Tags = {0xDC: (_U16, 2**4), 0xDD: (_U32, 2**16)}
_MAPS: _Tags = {0xDE: (_U16, 2**4), 0xDF: (_U32, 2**16)}
_DOUBLE = struct.Struct(">d")


def pack(data: Any) -> bytes:
    """Canonical bytes of plain data."""
    try:
        return cast("bytes", msgpack.packb(data, use_bin_type=True))
    except (ValueError, OverflowError) as error:  # such as text that is not Unicode
        raise FileError(f"it cannot be written as msgpack: {error}") from error


def array_header(size: int) -> bytes:
    """The bytes before the items of an array."""
    return cast("bytes", msgpack.Packer().pack_array_header(size))


def map_header(size: int) -> bytes:
    """The bytes before the keys and values of a map."""
    return cast("bytes", msgpack.Packer().pack_map_header(size))


def bin_header(size: int) -> bytes:
    """The bytes before a byte string."""
    if size < 2**8:
        return struct.pack(">BB", 0xC4, size)
    return struct.pack(">BH", 0xC5, size) if size < 2**16 else struct.pack(">BI", 0xC6, size)


class Reader:
    """A position in a byte string, and methods to read one value from there.

    Raises:
        FileError: from every method, for anything but the canonical form of the expected value.
    """

    def __init__(self, data: Content, position: int = 0) -> None:
        self.data, self.position, self.size = data, position, len(data)

    def array(self, most: int, what: str) -> int:
        """The size of an array of at most `most` items."""
        return self._header(0x90, 15, _ARRAYS, most, what, "a list")

    def map(self, most: int, what: str) -> int:
        """The size of a map of at most `most` keys."""
        return self._header(0x80, 15, _MAPS, most, what, "a map")

    def uint(self, what: str) -> int:
        """An integer from 0 to 2^63 - 1."""
        start, tag = self.position, self._tag(what)
        if tag < 0x80:
            return tag
        if tag not in _UINTS:
            raise self._expected("a size", what, start)
        value = self._shortest(_UINTS, tag, what, start)
        if value >= 2**63:
            raise FileError(f"{what}: {value} is larger than any size")
        return value

    def binary(self, most: int, what: str) -> Any:
        """A byte string, not copied."""
        start, tag = self.position, self._tag(what)
        if tag not in _BINS:
            raise self._expected("bytes", what, start)
        return self._take(self._shortest(_BINS, tag, what, start), most, what)

    def text(self, most: int, what: str) -> str:
        """A string of at most `most` bytes of UTF-8."""
        size = self._header(0xA0, 31, _TEXTS, most, what, "text")
        content = self._take(size, most, what)
        try:
            return str(bytes(content), "utf-8")
        except UnicodeDecodeError as error:
            raise FileError(f"{what}: the text is not UTF-8") from error

    def value(self, budget: "Budget", what: str, depth: int = 0) -> Any:
        """Plain data of a config: maps, lists, text, numbers, booleans and None."""
        budget.spend(what, depth)
        start, tag = self.position, self._tag(what)
        if tag < 0x80:
            return tag
        if tag >= 0xE0:
            return tag - 0x100
        if tag in (0xC0, 0xC2, 0xC3):
            return {0xC0: None, 0xC2: False, 0xC3: True}[tag]
        if tag == 0xCB:
            number = self._number(_DOUBLE, what)
            if repr(number) in ("nan", "-0.0"):
                raise FileError(f"{what}: NaN or -0.0, at byte {start}")
            return number
        if tag in _UINTS:
            return self._shortest(_UINTS, tag, what, start)
        if tag in _INTS:
            form, limit = _INTS[tag]
            value = self._number(form, what)
            if value >= limit:
                raise _not_shortest(what, start)
            return value
        self.position = start
        if tag in _TEXTS or 0xA0 <= tag < 0xC0:
            return self.text(2**16, what)
        if tag in _ARRAYS or 0x90 <= tag < 0xA0:
            size = self.array(budget.left, what)
            return [self.value(budget, what, depth + 1) for _ in range(size)]
        if tag in _MAPS or 0x80 <= tag < 0x90:
            budget.left -= MAP_VALUES - 1
            result: dict[str, Any] = {}
            for _ in range(self.map(budget.left, what)):
                key = self.text(2**16, what)
                if key in result:
                    raise FileError(f"{what}: the key {key!r} is there twice")
                result[key] = self.value(budget, what, depth + 1)
            return result
        raise self._expected("a value", what, start)

    def end(self, what: str) -> None:
        """Raise unless everything has been read."""
        if self.position != self.size:
            raise FileError(f"{what}: {self.size - self.position} bytes too many")

    def _tag(self, what: str) -> int:
        position = self.position
        if position >= self.size:
            raise FileError(f"{what}: truncated, the bytes end here")
        self.position = position + 1
        return int(self.data[position])

    def _shortest(self, forms: _Tags, tag: int, what: str, start: int) -> int:
        form, least = forms[tag]
        value: int = self._number(form, what)
        if value < least:
            raise _not_shortest(what, start)
        return value

    def _number(self, form: struct.Struct, what: str) -> Any:
        start = self.position
        end = start + form.size
        if end > self.size:
            raise FileError(f"{what}: truncated, the header declares {form.size} bytes")
        self.position = end
        return form.unpack(bytes(self.data[start:end]))[0]

    def _take(self, size: int, most: int, what: str) -> Any:
        if size > most:
            raise FileError(f"{what}: {size} bytes, at most {most} are allowed")
        start = self.position
        end = start + size
        if end > self.size:
            raise FileError(
                f"{what}: truncated, the header declares {size} bytes, {self.size - start} remain"
            )
        self.position = end
        return self.data[start:end]

    def _header(self, short: int, largest_short: int, longer: _Tags, most: int, what: str, kind: str) -> int:
        start, tag = self.position, self._tag(what)
        size = tag - short
        if not 0 <= size <= largest_short:
            if tag not in longer:
                raise self._expected(kind, what, start)
            size = self._shortest(longer, tag, what, start)
        if size > most:
            raise FileError(f"{what}: {kind} of {size}, at most {most} are allowed")
        if size > self.size - self.position:  # each item has at least one byte
            raise FileError(f"{what}: truncated, the header declares {size} items")
        return size

    def _expected(self, kind: str, what: str, start: int) -> FileError:
        return FileError(
            f"{what}: expected {kind} at byte {start}, got the msgpack tag 0x{self.data[start]:02x}"
        )


def _not_shortest(what: str, start: int) -> FileError:
    return FileError(f"{what}: a number is not in its shortest form, at byte {start}")


class Budget:
    """Limits of the number and the nesting depth of values, which bound memory and recursion."""

    def __init__(self, values: int, depth: int) -> None:
        self.left, self.depth = values, depth

    def spend(self, what: str, depth: int) -> None:
        """Count one value."""
        self.left -= 1
        if self.left < 0:
            raise FileError(f"{what}: more values than are allowed")
        if depth > self.depth:
            raise FileError(f"{what}: nested deeper than {self.depth}")
