"""Pickles as plain data: with a list of harmless names, and nothing that is run.

    load(data)            the value of a pickle
    load_torch(data)      that of a file of `torch.save`, or of TorchScript

Classes become an `Object` of their name, arguments and state; arrays of NumPy, JAX and torch become arrays of
NumPy. Any name that is not on the list is refused by its name. Sizes are checked against the bytes that are
there before anything is allocated.
"""

import io
import math
import pickle
import pickletools
import re
import zipfile
from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn

import numpy as np

import policy_core as pc

_MOST_OPCODES = 10**7
_MOST_BYTES = 2**32  # that a zip may say to hold
_DEEPEST = 100
_MOST_STRANGERS = 1000  # each of which is a class of a kilobyte

# Opcodes that no pickle of data needs: names of the registry of extensions, buffers outside of the file, and
# the forms of protocol 0 that name classes in text.
_REFUSED = {"EXT1", "EXT2", "EXT4", "NEXT_BUFFER", "READONLY_BUFFER", "PERSID", "INST", "OBJ"}

# Classes, as patterns of "module name", that become an `Object`.
_CLASSES = re.compile(
    r"(gym|gymnasium)\.spaces(\.\w+)? (Box|Discrete|MultiDiscrete|MultiBinary|Dict|Tuple)"
    r"|(gym|gymnasium)\.utils\.seeding (RandomNumberGenerator|RandomState)"
    r"|numpy\.random\._pickle (__randomstate_ctor|__generator_ctor|__bit_generator_ctor)"
    r"|numpy\.random\.bit_generator (SeedSequence|__pyx_unpickle_SeedSequence)"
    r"|numpy\.random\.(_mt19937 MT19937|_pcg64 PCG64|mtrand RandomState|_generator Generator)"
    r"|stable_baselines3\.common\.running_mean_std RunningMeanStd"
    r"|stable_baselines3\.common\.vec_env\.vec_normalize VecNormalize"
    r"|torch\.nn\.modules\.activation \w+|torch\.nn\.modules\.linear Identity|torch\.optim\.\w+ \w+"
    r"|torch device|brax\.training\.acme\.running_statistics (RunningStatisticsState|NestedMeanStd)"
    r"|brax\.training\.acme\.running_statistics NormalizationMode|brax\.training\.types UInt64"
    r"|dotmap DotMap|flax\.core\.frozen_dict FrozenDict"
    r"|__torch__(\.\w+)* \w+"
)
_STORAGES = {
    "FloatStorage": "f4", "DoubleStorage": "f8", "HalfStorage": "f2", "LongStorage": "i8", "IntStorage": "i4",
    "ShortStorage": "i2", "CharStorage": "i1", "ByteStorage": "u1", "BoolStorage": "?",
}  # fmt: skip
_DTYPE = re.compile(r"[<>|=]?([fiu][1248]|b1|\?|bool)")


class Object(NamedTuple):
    """An instance, or with no arguments and state a class, that was in a pickle."""

    name: str
    """Such as "gym.spaces.box.Box"."""
    args: tuple[Any, ...]
    state: Any


def load(data: bytes, storages: Callable[[str], bytes] | None = None, *, strangers: bool = False) -> Any:
    """The value of a pickle, as plain data.

    Args:
        data: the pickle.
        storages: the bytes of a storage of torch by its key; None if there are none.
        strangers: whether names that are not on the list become an `Object`, too, so that one can say what
            they are. They are no more run than the others.

    Raises:
        FileError: for a name that is not on the list, with the name, and for whatever is no pickle of data.
    """
    _check_opcodes(data)
    unpickler = _Unpickler(io.BytesIO(data))
    unpickler.storages = storages
    unpickler.strangers = _MOST_STRANGERS if strangers else 0
    unpickler.named = {}
    try:
        return _plain(unpickler.load(), {}, 0)
    except pc.errors.FileError:
        raise
    except (MemoryError, RecursionError) as error:
        raise pc.errors.FileError(f"pickle: {type(error).__name__} while it was read") from error
    except Exception as error:  # what an unpickler raises for bytes that make no sense is no closed set
        raise pc.errors.FileError(f"pickle: it is damaged, or none: {str(error)[:200]}") from error


def load_torch(data: bytes, inner: str = "data.pkl") -> Any:
    """The value of a file of `torch.save` since torch 1.6, or of a TorchScript module.

    Raises:
        FileError: as `load`; for a file of an older torch.
    """
    archive = open_zip(data)
    names = [name for name in archive.namelist() if name.rpartition("/")[2] == inner and name.count("/") < 2]
    if len(names) != 1:
        raise pc.errors.FileError(
            f"zip: it holds {len(names)} files {inner!r}, expected one; is it a file of torch?"
        )
    root = names[0].rpartition("/")[0]

    def storage(key: str) -> bytes:
        if not re.fullmatch(r"\w{1,32}", key):
            raise pc.errors.FileError(f"pickle: {key[:40]!r} is no key of a storage")
        return read_member(archive, f"{root}/data/{key}")

    return load(read_member(archive, names[0]), storage)


def open_zip(data: bytes) -> zipfile.ZipFile:
    """A zip in memory, whose sizes have been checked; nothing is ever written to a disk.

    Raises:
        FileError: for what is no zip, or one that unpacks to more than 4 GiB or 200 times its size.
    """
    try:
        archive = zipfile.ZipFile(io.BytesIO(data))
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError) as error:
        raise pc.errors.FileError(f"zip: it is damaged, or none: {error}") from error
    total = sum(info.file_size for info in archive.infolist())
    if total > min(_MOST_BYTES, 200 * len(data)):
        raise pc.errors.FileError(f"zip: it unpacks to {total} bytes, of {len(data)}")
    return archive


def read_member(archive: zipfile.ZipFile, name: str) -> bytes:
    """The bytes of a file in a zip.

    Raises:
        FileError: if there is none, or it is damaged.
    """
    try:
        size = archive.getinfo(name).file_size
        with archive.open(name) as file:
            content = file.read(size + 1)
    except KeyError as error:
        raise pc.errors.FileError(f"zip: there is no {name!r} in it") from error
    except Exception as error:  # zlib, bz2, lzma and zipfile have errors of their own
        raise pc.errors.FileError(f"zip: {name!r} is damaged: {error}") from error
    if len(content) != size:
        raise pc.errors.FileError(f"zip: {name!r} has not the size that is said")
    return content


def _check_opcodes(data: bytes) -> None:
    """Raise `FileError` for opcodes that no data needs, or memory that the bytes do not ask for."""
    count = 0
    try:
        for opcode, argument, position in pickletools.genops(data):
            count += 1
            if opcode.name in _REFUSED:
                raise pc.errors.FileError(f"pickle: the opcode {opcode.name} at byte {position} is refused")
            if count > _MOST_OPCODES:
                raise pc.errors.FileError(f"pickle: more than {_MOST_OPCODES} opcodes")
            if "PUT" in opcode.name and int(argument or 0) > len(
                data
            ):  # the memo is as long as its largest index
                raise pc.errors.FileError(f"pickle: a memo of {argument} entries in {len(data)} bytes")
    except pc.errors.FileError:
        raise
    except Exception as error:
        raise pc.errors.FileError(f"pickle: it is damaged, or none: {str(error)[:200]}") from error


class _Unpickler(pickle.Unpickler):
    storages: Callable[[str], bytes] | None = None
    strangers: int
    named: dict[str, type]

    def find_class(self, module: str, name: str) -> Any:
        """What stands for a name; nothing is imported."""
        full = f"{module} {name}"
        if full in _FUNCTIONS:
            return _Callable(_FUNCTIONS[full])
        if module in ("torch", "torch.storage") and name in _STORAGES:
            return _Storage(np.dtype(f"<{_STORAGES[name]}" if _STORAGES[name] != "?" else "?"))
        if full not in self.named:
            if not _CLASSES.fullmatch(full):
                if not self.strangers:
                    raise pc.errors.FileError(
                        f"pickle: it asks for {module}.{name}, which is not on the list of what is harmless"
                    )
                self.strangers -= 1
            self.named[full] = type("_Named", (_Instance,), {"name": f"{module}.{name}"})
        return self.named[full]

    def persistent_load(self, pid: Any) -> Any:
        """A storage of torch: `("storage", type, key, location, number of entries)`."""
        if (
            self.storages is None
            or type(pid) is not tuple
            or len(pid) != 5
            or not isinstance(pid[1], _Storage)
        ):
            raise pc.errors.FileError("pickle: it refers to what is not in it")
        dtype, key, count = pid[1].dtype, pid[2], pid[4]
        content = self.storages(str(key))
        if type(count) is not int or len(content) != count * dtype.itemsize:
            raise pc.errors.FileError(f"pickle: a storage of {count} {dtype} has {len(content)} bytes")
        return np.frombuffer(content, dtype)


class _Fixed:
    """What a pickle may use and not change: it could give any object that it gets a new state."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        raise pc.errors.FileError("pickle: it sets the state of what has none")


class _Callable(_Fixed):
    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, *args: Any) -> Any:
        return self._function(*args)


class _Storage(_Fixed):
    __slots__ = ("dtype",)

    def __init__(self, dtype: Any) -> None:
        self.dtype = dtype


class _Instance:
    """An instance of a class that is only a name here."""

    name = ""
    state: Any = None

    def __new__(cls, *args: Any, **_: Any) -> "_Instance":
        instance = super().__new__(cls)
        instance.args = args  # type: ignore[attr-defined]
        return instance

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __call__(self, *_: Any, **__: Any) -> "_Instance":  # of a class or function that came with its code
        return self

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __setitem__(self, key: Any, value: Any) -> None:  # of a class that derives from dict
        if not isinstance(self.state, dict):
            self.state = {}
        self.state[key] = value


class _Dtype:
    """A dtype, by its name and its order of bytes."""

    def __init__(self, name: Any, *_: Any) -> None:
        if type(name) is not str or not _DTYPE.fullmatch(name):
            raise pc.errors.FileError(f"pickle: the dtype {str(name)[:40]!r} is none of plain numbers")
        self.value = np.dtype(name)

    def __setstate__(self, state: Any) -> None:
        if type(state) is tuple and len(state) > 1 and state[1] in ("<", ">"):
            self.value = self.value.newbyteorder(state[1])


class _Array:
    """An array of NumPy, which is made once its state is known."""

    def __init__(self, *_: Any) -> None:
        self.value: Any = None

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, content = state
        self.value = _array(content, dtype, shape, "F" if fortran else "C")


def _array(content: Any, dtype: Any, shape: Any, order: str = "C") -> Any:
    if not isinstance(dtype, _Dtype) or not isinstance(content, bytes | bytearray):
        raise pc.errors.FileError("pickle: an array that is not of plain numbers")
    sizes = tuple(shape) if isinstance(shape, tuple | list) else (shape,)
    whole = all(type(size) is int and size >= 0 for size in sizes) and len(sizes) <= 32
    if not whole or math.prod(sizes) * dtype.value.itemsize != len(content):
        raise pc.errors.FileError(f"pickle: an array of shape {sizes} has {len(content)} bytes")
    return np.frombuffer(content, dtype.value).reshape(sizes, order="F" if order == "F" else "C")


def _reconstruct_jax(_: Any, __: Any, state: Any, *___: Any) -> Any:
    array = _Array()
    array.__setstate__(state)
    return array


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> Any:
    """A tensor of torch: a view of a storage."""
    numbers = (offset, *size, *stride)
    if not isinstance(storage, np.ndarray) or not all(type(x) is int and x >= 0 for x in numbers):
        raise pc.errors.FileError("pickle: a tensor that is not one of a storage")
    last = offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True))
    count = math.prod(size)
    if count and (last >= storage.size or count > storage.size):
        raise pc.errors.FileError(
            f"pickle: a tensor of shape {tuple(size)} is beyond its storage of {storage.size}"
        )
    if not count:
        return np.zeros(size, storage.dtype)
    strides = tuple(s * storage.itemsize for s in stride)
    return np.lib.stride_tricks.as_strided(storage[offset:], tuple(size), strides, writeable=False).copy()


def _encode(text: Any, encoding: Any) -> bytes:
    if encoding not in ("latin1", "latin-1"):
        raise pc.errors.FileError(f"pickle: text in {str(encoding)[:40]!r}")
    return str(text).encode("latin1")


def _scalar(dtype: Any, content: Any = None) -> Any:
    return _array(content, dtype, ()).item()


def _mapping(*args: Any) -> dict[Any, Any]:
    return _Mapping(*args)


class _Mapping(dict[Any, Any]):
    def __setstate__(self, state: Any) -> None:  # such as the `_metadata` of a state dict
        pass


# What may be called, by "module name".
_FUNCTIONS: dict[str, Any] = {
    "collections OrderedDict": _mapping,
    "_codecs encode": _encode,
    "__builtin__ bytes": lambda: b"",  # how protocol 2 spells it; with a number it would allocate that
    "builtins bytes": lambda: b"",
    "numpy dtype": _Dtype,
    "numpy ndarray": _Array,
    "jax._src.array _reconstruct_array": _reconstruct_jax,
    "torch._utils _rebuild_tensor_v2": _tensor,
    "torch._utils _rebuild_parameter": lambda data, *_: data,
    "torch.jit._pickle build_tensorlist": lambda items: items,
    "torch.jit._pickle build_intlist": lambda items: items,
    "torch.jit._pickle build_doublelist": lambda items: items,
    "torch.jit._pickle build_boollist": lambda items: items,
    "torch.jit._pickle restore_type_tag": lambda value, _: value,
}
for _package in ("numpy.core", "numpy._core"):
    _FUNCTIONS[f"{_package}.multiarray _reconstruct"] = _Array
    _FUNCTIONS[f"{_package}.multiarray scalar"] = _scalar
    _FUNCTIONS[f"{_package}.numeric _frombuffer"] = lambda content, dtype, shape, order="C": _array(
        bytes(content), dtype, shape, order
    )


def _plain(value: Any, done: dict[int, Any], depth: int) -> Any:
    """The value without the classes of this module but `Object`; what is shared is converted once."""
    if depth > _DEEPEST:
        raise pc.errors.FileError(f"pickle: nested deeper than {_DEEPEST}")
    if value is None or isinstance(value, bool | int | float | str | bytes | np.ndarray):
        return value
    if id(value) in done:
        return done[id(value)][0]

    def inner(item: Any) -> Any:
        return _plain(item, done, depth + 1)

    result: Any
    if isinstance(value, _Dtype | _Array):
        result = value.value
    elif isinstance(value, dict):
        result = {inner(key): inner(item) for key, item in value.items()}
    elif isinstance(value, list | tuple | set | frozenset):
        result = [inner(item) for item in value]
        result = tuple(result) if isinstance(value, tuple) else result
    elif isinstance(value, _Instance):
        done[id(value)] = Object(value.name, (), None), value  # for one that is in itself
        result = Object(value.name, inner(value.args), inner(value.state))  # type: ignore[attr-defined]
    elif isinstance(value, type) and issubclass(value, _Instance):
        result = Object(value.name, (), None)
    elif isinstance(value, _Fixed):  # a function or a class of NumPy or torch, not called
        result = Object(type(value).__name__, (), None)
    elif isinstance(value, bytearray):
        result = bytes(value)
    else:
        _refuse(value)
    done[id(value)] = result, value  # which is kept, so that its id stays its own
    return result


def _refuse(value: Any) -> NoReturn:
    raise pc.errors.FileError(f"pickle: it holds a {type(value).__name__}, which is no data")
