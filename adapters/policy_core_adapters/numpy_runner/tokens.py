"""Canonical msgpack, token by token, for policy files in NumPy; see `numpy_runner`.

A reader of its own, of what docs/file-format.md says: that of policy_core cannot be imported without
JAX. Both read the same files of `tests/abuse`.
"""

import struct
from typing import Any

MOST_VALUES, MAP_VALUES, DEEPEST, MOST_TEXT = 2**18, 64, 64, 2**16

# Tag to kind, bytes of the number after it, and the least number that is written so.
_FORMS: dict[int, tuple[str, int, int]] = {
    **{0xCC + i: ("size", 1 << i, least) for i, least in enumerate((2**7, 2**8, 2**16, 2**32))},
    **{0xD0 + i: ("negative", 1 << i, most) for i, most in enumerate((-(2**5), -(2**7), -(2**15), -(2**31)))},
    **{0xC4 + i: ("bytes", 1 << i, least) for i, least in enumerate((0, 2**8, 2**16))},
    **{0xD9 + i: ("text", 1 << i, least) for i, least in enumerate((2**5, 2**8, 2**16))},
    **{0xDC + i: ("list", 2 << i, least) for i, least in enumerate((2**4, 2**16))},
    **{0xDE + i: ("map", 2 << i, least) for i, least in enumerate((2**4, 2**16))},
}
_CONSTANTS = {0xC0: None, 0xC2: False, 0xC3: True}


class Reader:
    """A position in a `memoryview` or `Blocks`; every method raises ValueError for what is not canonical."""

    def __init__(self, data: Any, position: int = 0) -> None:
        self.data, self.position = data, position
        self.values = MOST_VALUES

    def number(self, kind: str, most: int, what: str) -> int:
        """A size, or that of text, bytes, a list or a map, each of which is at least as long in bytes."""
        got, number = self._token(what)
        if got != kind:
            raise ValueError(f"{what}: expected a {kind}, got a {got}")
        if number > most:
            raise ValueError(f"{what}: {number} is too many, at most {most} are allowed")
        if kind != "size" and number > len(self.data) - self.position:
            raise ValueError(f"{what}: truncated, {number} declared")
        return int(number)

    def take(self, kind: str, most: int, what: str) -> memoryview:
        """The content of text or bytes, not copied."""
        size = self.number(kind, most, what)
        self.position += size
        content: memoryview = self.data[self.position - size : self.position]
        return content

    def text(self, most: int, what: str) -> str:
        """Text."""
        return str(self.take("text", most, what), "utf-8")  # UnicodeDecodeError is a ValueError

    def value(self, what: str = "config", depth: int = 0) -> Any:
        """A value of a config: a config, a list, or a scalar."""
        self.values -= 1
        if self.values < 0 or depth > DEEPEST:
            raise ValueError(f"{what}: too many values, or nested too deep")
        start = self.position
        kind, number = self._token(what)
        if kind == "text":
            self.position = start
            return self.text(MOST_TEXT, what)
        if kind == "list":
            self.position = start
            size = self.number("list", self.values, what)
            return [self.value(what, depth + 1) for _ in range(size)]
        if kind == "map":
            self.position = start
            return self._config(what, depth)
        if kind == "bytes":
            raise ValueError(f"{what}: bytes in a config")
        return number

    def _config(self, what: str, depth: int) -> dict[str, Any]:
        self.values -= 2 * MAP_VALUES
        if self.values < 0 or depth >= DEEPEST:
            raise ValueError(f"{what}: too many values, or nested too deep")
        if self.number("map", 2, what) != 2 or self.text(4, what) != "type":
            raise ValueError(f"{what}: expected a map of 'type' and 'fields'")
        name = self.text(MOST_TEXT, what)
        if self.text(6, what) != "fields":
            raise ValueError(f"{what}: expected the key 'fields'")
        fields: dict[str, Any] = {}
        last = None
        for _ in range(self.number("map", max(self.values, 0), what)):
            key = self.text(MOST_TEXT, what)
            if last is not None and key <= last:
                raise ValueError(f"{what}: the field {key!r} is there twice, or out of order")
            fields[key] = self.value(what, depth + 2)
            last = key
        return {"type": name, "fields": fields}

    def _token(self, what: str) -> tuple[str, Any]:
        """The kind of what stands here, and its number or its size; the position moves behind them."""
        start = self.position
        if start >= len(self.data):
            raise ValueError(f"{what}: truncated")
        tag, self.position = self.data[start], start + 1
        if tag < 0x80:
            return "size", tag
        if tag < 0xC0:
            return (
                ("map", tag & 15) if tag < 0x90 else ("list", tag & 15) if tag < 0xA0 else ("text", tag & 31)
            )
        if tag >= 0xE0:
            return "negative", tag - 0x100
        if tag in _CONSTANTS:
            return "constant", _CONSTANTS[tag]
        kind, width, limit = ("float", 8, 0) if tag == 0xCB else _FORMS.get(tag, ("", 0, 0))
        self.position += width
        if not kind or self.position > len(self.data):
            raise ValueError(f"{what}: truncated, or what no policy file has, at byte {start}: 0x{tag:02x}")
        raw = self.data[start + 1 : self.position]
        if kind == "float":
            number = struct.unpack(">d", raw)[0]
            if number != number or bytes(raw) == b"\x80" + bytes(7):
                raise ValueError(f"{what}: NaN or -0.0")
            return kind, number
        whole = int.from_bytes(raw, "big", signed=kind == "negative")
        if whole >= limit if kind == "negative" else whole < limit:
            raise ValueError(f"{what}: a number is not in its shortest form, at byte {start}")
        return kind, whole
