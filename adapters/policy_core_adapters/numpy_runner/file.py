"""Policy files in NumPy: the verified msgpack map of a file, and its params."""

import hashlib
import math
from typing import Any

import msgpack
import numpy as np

from policy_core_adapters.numpy_runner.networks import Array


def read(data: bytes) -> dict[str, Any]:
    """The msgpack map of a file, with its format, checksum and fingerprint verified."""
    view = memoryview(data)[:-32]
    blocks = [hashlib.sha256(view[i : i + 2**20]).digest() for i in range(0, len(view), 2**20)]
    if not data.startswith(b"\x8a\xa6format\xabpolicy_core"):
        raise ValueError("not a policy file")
    if hashlib.sha256(b"policy_core file\n" + b"".join(blocks)).digest() != data[-32:]:
        raise ValueError("checksum: the file is truncated or damaged")
    document: dict[str, Any] = msgpack.unpackb(data, raw=False, strict_map_key=True)
    if document.get("version") != 1:
        raise ValueError(f"version: got {document.get('version')}, expected 1")
    expected = hashlib.sha256(b"policy_core config\n" + document["config"]).digest()
    if document["fingerprint"] != expected:
        raise ValueError("fingerprint: it is not that of the config in the file")
    return document


def params_of(document: dict[str, Any], member: tuple[int, ...]) -> dict[str, Any]:
    """The params of one member of a population (`()` for one policy), as nested dicts of arrays."""
    batch = tuple(document["batch"])
    if len(member) != len(batch) or any(not 0 <= i < n for i, n in zip(member, batch, strict=True)):
        raise ValueError(f"member: got {member}, expected an index for each of the axes {batch}")
    params: dict[str, Any] = {}
    for name, dtype, shape, _, chunks in document["leaves"]:
        *parents, last = name.split("/")
        holder = params
        for parent in parents:
            holder = holder.setdefault(parent, {})
        holder[last] = _array(name, dtype, shape, b"".join(chunks))[member]
    return params


def _array(name: str, dtype: str, shape: list[int], content: bytes) -> Array:
    if dtype not in ("float16", "bfloat16", "float32", "float64"):
        raise ValueError(f"leaves: {name!r} is {dtype}, which no policy of this runner has")
    kind = np.dtype("<u2" if dtype == "bfloat16" else dtype).newbyteorder("<")
    if math.prod(shape) * kind.itemsize != len(content):
        raise ValueError(f"leaves: {name!r} has {len(content)} bytes, not those of its shape {shape}")
    array = np.frombuffer(content, kind).reshape(shape)
    return (array.astype(np.uint32) << 16).view(np.float32) if dtype == "bfloat16" else array
