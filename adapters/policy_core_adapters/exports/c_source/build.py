"""A policy in C compiled and called from here: to replay it, and to measure it."""

import ctypes
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from policy_core_adapters.exports.c_source import Argument, Source
from policy_core_adapters.exports.lowering import ExportError
from policy_core_adapters.numpy_runner.networks import Array

_TYPES = {
    "float32": ctypes.c_float,
    "bool": ctypes.c_uint8,
    **{
        name: getattr(ctypes, f"c_{name}") for name in ("int8", "int16", "int32", "uint8", "uint16", "uint32")
    },
}


class Built(NamedTuple):
    """A policy that was compiled.

    Args:
        call: one step, from the inputs of the graph to its outputs.
        microseconds: of a call in C, at `-O2`; None if the file has no self-test.
        text: bytes of the code and the constants at `-Os`; None without the tool `size`.
    """

    call: Callable[[dict[str, Array]], dict[str, Array]]
    microseconds: float | None
    text: int | None


def compiler() -> str | None:
    """The C compiler: that in the environment variable CC, or `cc`."""
    return shutil.which(os.environ.get("CC") or "cc")


def build(source: Source, prefix: str) -> Built:
    """Compile a policy, and run its self-test.

    Raises:
        ExportError: if the compiler refuses it, or the self-test fails.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / f"{prefix}.h").write_text(source.header)
        (folder / f"{prefix}.c").write_text(source.source)
        _run(folder, "-O2", "-fPIC", "-shared", f"{prefix}.c", "-o", "shared.so", "-lm")
        library = ctypes.CDLL(str(folder / "shared.so"))
        microseconds = None
        if source.self_test:
            macros = [f"-D{prefix.upper()}_{name}" for name in ("SELF_TEST", "BENCHMARK")]
            _run(folder, "-O2", *macros, f"{prefix}.c", "-o", "program", "-lm")
            result = subprocess.run([folder / "program"], capture_output=True, text=True, check=False)
            found = re.search(r"(\S+) us a call", result.stdout)
            if result.returncode or found is None:
                raise ExportError(f"self-test: the policy in C does not pass it: {result.stdout.strip()}")
            microseconds = float(found[1])
        text = None
        if (size := shutil.which("size")) is not None:
            _run(folder, "-Os", "-c", f"{prefix}.c", "-o", "object.o")
            told = subprocess.run([size, "object.o"], cwd=folder, capture_output=True, text=True, check=True)
            text = int(told.stdout.splitlines()[1].split()[0])
    return Built(_call_of(library, source, prefix), microseconds, text)


def _run(folder: Path, *options: str) -> None:
    command = [str(compiler()), "-std=c99", *options]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if result.returncode:
        raise ExportError(f"compiler: {' '.join(command)} failed: {result.stderr.strip()[:1000]}")


def _call_of(library: Any, source: Source, prefix: str) -> Callable[[dict[str, Array]], dict[str, Array]]:
    function = getattr(library, f"{prefix}_act")
    function.restype = None
    types = [(f"m{i}", _TYPES[x.dtype] * max(int(np.prod(x.shape)), 1)) for i, x in enumerate(source.state)]
    state = type("State", (ctypes.Structure,), {"_fields_": types})

    def call(feeds: dict[str, Array]) -> dict[str, Array]:
        given = state()
        for (member, kind), x in zip(types, source.state, strict=True):
            setattr(given, member, kind.from_buffer_copy(_bytes(feeds[x.graph_name], x)))
        inputs = [np.ascontiguousarray(feeds[x.graph_name], x.dtype) for x in source.inputs]
        outputs = [np.empty(x.shape, x.dtype) for x in source.outputs]
        arguments: list[Any] = [ctypes.byref(given)] if source.state else []
        arguments += [x.ctypes.data_as(ctypes.c_void_p) for x in inputs]
        arguments += [ctypes.c_int(0)] if source.state else []
        arguments += [x.ctypes.data_as(ctypes.c_void_p) for x in outputs]
        function(*arguments)
        made = {x.graph_name: array for x, array in zip(source.outputs, outputs, strict=True)}
        for (member, _), x in zip(types, source.state, strict=True):
            array = np.frombuffer(bytes(getattr(given, member)), x.dtype)
            made[f"next_{x.graph_name}"] = array[: int(np.prod(x.shape))].reshape(x.shape)
        return made

    return call


def _bytes(array: Array, x: Argument) -> bytes:
    return np.ascontiguousarray(array, x.dtype).tobytes() or bytes(np.dtype(x.dtype).itemsize)
