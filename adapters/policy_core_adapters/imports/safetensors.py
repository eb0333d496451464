"""Files of safetensors, in and out: a header in JSON, and the bytes of the arrays.

What is read is checked before anything is made of it: the arrays lie one behind the other, without gaps, and
fill the file.
"""

import json
import math
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

import policy_core as pc

_DTYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1",
    "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "u1", "BOOL": "?",
}  # fmt: skip
_MOST = 100_000_000  # bytes of a header, as the format says


def load(path: str | os.PathLike[str]) -> tuple[dict[str, np.ndarray[Any, Any]], dict[str, str]]:
    """The arrays of a file by name, and its metadata.

    Raises:
        FileError: for a file that is damaged, or has a dtype that NumPy has not.
    """
    content = Path(path).read_bytes()
    size = struct.unpack("<Q", content[:8])[0] if len(content) >= 8 else _MOST + 1
    if size > min(_MOST, len(content) - 8):
        raise pc.errors.FileError(f"safetensors: a header of {size} bytes in a file of {len(content)}")
    try:
        header = json.loads(content[8 : 8 + size])
        metadata = header.pop("__metadata__", {})
        rows = sorted(
            (*row["data_offsets"], name, row["dtype"], tuple(row["shape"])) for name, row in header.items()
        )
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
        raise pc.errors.FileError(f"safetensors: the header is damaged: {error!r}"[:300]) from error
    arrays, position, whole = {}, 0, len(content) - 8 - size
    for start, end, name, kind, shape in rows:
        if kind not in _DTYPES:
            raise pc.errors.FileError(f"safetensors: {name!r} has the dtype {kind}, which NumPy has not")
        sizes = all(type(n) is int and n >= 0 for n in (start, end, *shape)) and len(shape) <= 32
        if not sizes or start != position or end > whole:
            raise pc.errors.FileError(f"safetensors: {name!r} is not where the array before it ends")
        if math.prod(shape) * np.dtype(_DTYPES[kind]).itemsize != end - start:
            raise pc.errors.FileError(f"safetensors: {name!r} of shape {shape} has {end - start} bytes")
        data = content[8 + size + start : 8 + size + end]
        arrays[name], position = np.frombuffer(data, _DTYPES[kind]).reshape(shape), end
    if position != whole:
        raise pc.errors.FileError(f"safetensors: {whole - position} bytes are of no array")
    return arrays, {str(name): str(value) for name, value in dict(metadata).items()}


def save(
    path: str | os.PathLike[str], arrays: Mapping[str, Any], metadata: Mapping[str, str] | None = None
) -> None:
    """Write arrays by name, which `safetensors.numpy.load_file` and `load` read.

    Raises:
        FileError: for a dtype that the format has not.
    """
    names = {np.dtype(dtype): name for name, dtype in _DTYPES.items()}
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    parts, position = [], 0
    for name, array in sorted(arrays.items()):
        array = np.ascontiguousarray(array).reshape(np.shape(array))
        array = array.astype(array.dtype.newbyteorder("<"))
        if array.dtype not in names:
            raise pc.errors.FileError(
                f"safetensors: {name!r} has the dtype {array.dtype}, which the format has not"
            )
        parts.append(array.tobytes())
        offsets = [position, position + len(parts[-1])]
        header[name] = {"dtype": names[array.dtype], "shape": list(array.shape), "data_offsets": offsets}
        position = offsets[1]
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    Path(path).write_bytes(struct.pack("<Q", len(text)) + text + b"".join(parts))
