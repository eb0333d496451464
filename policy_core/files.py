r"""The policy file: one msgpack map that holds the pair and proves what it holds.

    format       "policy_core"
    version      1
    config       bytes: the canonical msgpack encoding of the config
    fingerprint  32 bytes: SHA-256 of "policy_core config\n" + config
    batch        the leading axes of a population, [] for one policy
    leaves       a list of [path, dtype, shape, bytes], in the order of the paths
    metadata     a map of strings, the user's
    checksum     32 bytes: SHA-256 of every byte of the file before these 32

The keys come in this order, so the checksum is the end of the file. Numbers are little
endian, in C order. A path is the keys of the params joined by "/". There is no pickle and
no code, and a type of config is looked up among those registered, never imported.
"""

import hashlib
import math
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, overload

import jax
import jax.numpy as jnp
import msgpack
import numpy as np
from jax.core import Tracer
from jaxtyping import PyTree

from policy_core._static import encoding_of, from_data, pack
from policy_core.contract import ActorCritic, Policy
from policy_core.errors import ConfigError, FileError, FingerprintError
from policy_core.fingerprint import diff, fingerprint_of_encoding

P = TypeVar("P")
S = TypeVar("S")
Obs = TypeVar("Obs")
A = TypeVar("A")

_FORMAT, _VERSION = "policy_core", 1
_KEYS = (
    "format", "version", "config", "fingerprint", "batch", "leaves", "metadata", "checksum",
)  # fmt: skip
_LARGEST_LEAF = 2**32 - 1  # of a msgpack bin


def save(
    path: str | os.PathLike[str],
    policy: Policy[P, S, Obs, A],
    *,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write a policy, or a population, to a file.

    The file is written beside `path`, flushed to the disk, and renamed: at any time there
    is the old file or the new one, whole.

    Args:
        path: where; used as it is, no suffix is added or replaced.
        policy: the pair. Params with common leading axes are saved as a population.
        metadata: free text by name.

    Raises:
        FileError: if the params are not those of the config; nothing is written.
        OSError: if the file cannot be written; an old file stays as it was.

    Example:
        >>> import tempfile, policy_core as pc
        >>> config = pc.ActorCriticConfig(
        ...     observation_space=pc.Box(shape=(4,)), action_space=pc.Discrete(2)
        ... )
        >>> policy = pc.init(config, key=jax.random.key(0))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     pc.save(folder + "/cartpole.msgpack", policy)
        ...     _, loaded_config = pc.load(folder + "/cartpole.msgpack")
        >>> loaded_config == config
        True
    """
    data = to_bytes(policy, metadata=metadata)
    path = Path(path)
    temporary = path.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)  # gone already, unless something failed
    if hasattr(os, "O_DIRECTORY"):  # the rename itself must reach the disk, where that is known
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


@overload
def load(path: str | os.PathLike[str], config: None = None) -> Policy[Any, Any, Any, Any]: ...
@overload
def load(path: str | os.PathLike[str], config: ActorCritic[P, S, Obs, A]) -> Policy[P, S, Obs, A]: ...
def load(path: str | os.PathLike[str], config: Any = None) -> Policy[Any, Any, Any, Any]:
    """Read a policy from a file.

    Args:
        path: the file.
        config: what the policy must be, or None to take what the file holds.

    Returns:
        The pair. Everything has been verified, or nothing is returned.

    Raises:
        FingerprintError: if the file holds another config; the fields that differ are listed.
        FileError: if the file is damaged, truncated, or not a policy file.
        OSError: if there is no such file, or it cannot be read.

    Example:
        >>> import tempfile, policy_core as pc
        >>> config = pc.ActorCriticConfig(
        ...     observation_space=pc.Box(shape=(4,)), action_space=pc.Discrete(2)
        ... )
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     pc.save(folder + "/run.step_100", pc.init(config, key=jax.random.key(0)))
        ...     policy = pc.load(folder + "/run.step_100", config)
        >>> int(pc.act(policy, pc.reset(policy), jnp.ones(4))[1]) in (0, 1)
        True
    """
    return from_bytes(Path(path).read_bytes(), config)


def to_bytes(policy: Policy[P, S, Obs, A], *, metadata: Mapping[str, str] | None = None) -> bytes:
    """The content of the file. Equal pairs give equal bytes.

    Raises:
        FileError: if the params are not those of the config.

    Example:
        >>> import policy_core as pc
        >>> config = pc.ActorCriticConfig(
        ...     observation_space=pc.Box(shape=(4,)), action_space=pc.Discrete(2)
        ... )
        >>> policy = pc.init(config, key=jax.random.key(0))
        >>> pc.to_bytes(policy) == pc.to_bytes(policy)
        True
    """
    params, config = policy
    if not isinstance(config, ActorCritic):
        raise FileError(f"config: got {type(config).__name__}; a policy is the pair (params, config)")
    leaves, expected = _by_path(params), _by_path(_template(config))
    for name, leaf in leaves.items():
        if not isinstance(leaf, jax.Array | np.ndarray) or isinstance(leaf, Tracer):
            raise FileError(f"params: the leaf {name!r} is {type(leaf).__name__}, expected an array")
    batch = _batch_of(leaves, expected)
    _check_leaves({name: _spec(leaf) for name, leaf in leaves.items()}, expected, batch, "params")
    document = {
        "format": _FORMAT,
        "version": _VERSION,
        "config": encoding_of(config),
        "fingerprint": fingerprint_of_encoding(encoding_of(config)),
        "batch": list(batch),
        "leaves": [_pack_leaf(name, leaves[name]) for name in sorted(leaves)],
        "metadata": _check_metadata(metadata or {}),
        "checksum": bytes(32),
    }
    data = pack(document)
    return data[:-32] + hashlib.sha256(data[:-32]).digest()


@overload
def from_bytes(data: bytes, config: None = None) -> Policy[Any, Any, Any, Any]: ...
@overload
def from_bytes(data: bytes, config: ActorCritic[P, S, Obs, A]) -> Policy[P, S, Obs, A]: ...
def from_bytes(data: bytes, config: Any = None) -> Policy[Any, Any, Any, Any]:
    """The policy that `to_bytes` packed; see `load` for the errors.

    Example:
        >>> import policy_core as pc
        >>> config = pc.ActorCriticConfig(
        ...     observation_space=pc.Box(shape=(4,)), action_space=pc.Discrete(2)
        ... )
        >>> data = pc.to_bytes(pc.init(config, key=jax.random.key(0)))
        >>> pc.from_bytes(data[:-1])
        Traceback (most recent call last):
        ...
        policy_core.errors.FileError: not a policy file, or truncated or damaged: ...
    """
    document = _parse(data)
    saved = _decode_config(document["config"], document["fingerprint"])
    if config is not None and config != saved:
        raise FingerprintError(_explain(saved, config))
    template = _template(saved)
    expected = _by_path(template)
    rows, batch = _read_rows(document["leaves"]), _read_batch(document["batch"])
    specs = {name: (dtype, shape) for name, (dtype, shape, _) in rows.items()}
    _check_leaves(specs, expected, batch, "file")
    arrays = {name: _array(name, *row) for name, row in rows.items()}
    paths, structure = jax.tree_util.tree_flatten_with_path(template)
    leaves = [jnp.asarray(arrays[_path_name(path)]) for path, _ in paths]
    return jax.tree.unflatten(structure, leaves), saved


def _parse(data: bytes) -> dict[str, Any]:
    """The document, its format, version and checksum verified."""
    try:
        document = msgpack.unpackb(data, raw=False, strict_map_key=True)
    except (ValueError, RecursionError) as error:  # all of msgpack's errors are ValueErrors
        reason = str(error) or type(error).__name__
        raise FileError(f"not a policy file, or truncated or damaged: {reason}") from error
    if not isinstance(document, dict) or document.get("format") != _FORMAT:
        raise FileError("not a policy file: it is msgpack, but not of the format 'policy_core'")
    if type(document.get("version")) is not int or document["version"] != _VERSION:
        raise FileError(
            f"version: got {document.get('version')!r}, expected {_VERSION}; a newer policy_core may read it"
        )
    if tuple(document) != _KEYS:
        raise FileError(f"keys: got {list(document)}, expected {list(_KEYS)} in this order")
    _check_metadata(document["metadata"])
    if hashlib.sha256(data[:-32]).digest() != document["checksum"]:
        raise FileError("checksum: the file is damaged; nothing was loaded")
    return document


def _decode_config(encoding: Any, expected: Any) -> Any:
    if not isinstance(encoding, bytes) or fingerprint_of_encoding(encoding) != expected:
        raise FileError("fingerprint: it is not that of the config in the file")
    try:
        config = from_data(msgpack.unpackb(encoding, raw=False, strict_map_key=True))
    except ConfigError as error:
        raise FileError(f"config: {error}") from error
    except (ValueError, RecursionError) as error:
        raise FileError(f"config: damaged: {error}") from error
    if not isinstance(config, ActorCritic):
        raise FileError(f"config: got {type(config).__name__}, which is not an ActorCritic")
    return config


def _explain(saved: Any, config: Any) -> str:
    rows = [("field", "in the file", "expected"), *diff(saved, config)]
    widths = [max(len(row[i]) for row in rows) for i in range(2)]
    table = "\n".join(f"  {a:<{widths[0]}}  {b:<{widths[1]}}  {c}" for a, b, c in rows)
    return (
        f"the file holds a policy of another config\n{table}\nload without a config to take the "
        "one in the file"
    )


def _template(config: ActorCritic[P, S, Obs, A]) -> PyTree:
    """The params of a config as shapes and dtypes, without computing them."""
    try:
        return jax.eval_shape(lambda: config.init(key=jax.random.key(0)))
    except (OverflowError, TypeError, ValueError, MemoryError) as error:
        raise FileError(f"config: its params cannot be made: {error}") from error


def _by_path(tree: PyTree) -> dict[str, Any]:
    leaves: dict[str, Any] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        name = _path_name(path)
        if name in leaves:
            raise FileError(f"params: two leaves have the path {name!r}; use keys without '/'")
        leaves[name] = leaf
    return leaves


def _path_name(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _spec(leaf: Any) -> tuple[str, tuple[int, ...]]:
    return str(leaf.dtype), tuple(leaf.shape)


def _batch_of(leaves: dict[str, Any], expected: dict[str, Any]) -> tuple[int, ...]:
    """The leading axes that all leaves of a population have in front of what is expected."""
    for name, leaf in expected.items():
        if name in leaves:
            extra = leaves[name].ndim - len(leaf.shape)
            return tuple(leaves[name].shape[: max(extra, 0)])
    return ()


def _check_leaves(
    specs: dict[str, tuple[str, tuple[int, ...]]],
    expected: dict[str, Any],
    batch: tuple[int, ...],
    where: str,
) -> None:
    for name in [*expected, *specs]:
        if name not in specs:
            raise FileError(f"{where}: the leaf {name!r} of the config's params is missing")
        if name not in expected:
            raise FileError(f"{where}: there is a leaf {name!r}, which the config does not have")
        dtype, shape = _spec(expected[name])
        if specs[name] != (dtype, batch + shape):
            advice = ""
            if specs[name][0] == "float64" != dtype:
                advice = "; enable jax_enable_x64 to use 64-bit params"
            raise FileError(
                f"{where}: the leaf {name!r} is {specs[name][0]}{specs[name][1]}, the config "
                f"expects {dtype}{batch + shape}{advice}"
            )


def _pack_leaf(name: str, leaf: Any) -> list[Any]:
    array = np.asarray(leaf)
    array = array.astype(array.dtype.newbyteorder("<"), copy=False)
    if array.nbytes > _LARGEST_LEAF:
        raise FileError(f"params: the leaf {name!r} has {array.nbytes} bytes, at most 4 GiB fit")
    return [name, str(array.dtype), list(array.shape), array.tobytes()]


def _read_rows(table: Any) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    """Path to dtype, shape and content. Nothing is interpreted before it is compared."""
    rows: dict[str, tuple[str, tuple[int, ...], bytes]] = {}
    for row in table if isinstance(table, list) else [None]:
        match row:
            case [str(name), str(dtype), list(shape), bytes(content)]:
                if name in rows or not all(type(size) is int for size in shape):
                    raise FileError(f"leaves: {name!r} is there twice, or has no shape")
                rows[name] = (dtype, tuple(shape), content)
            case _:
                raise FileError("leaves: expected rows of [path, dtype, shape, bytes]")
    return rows


def _read_batch(batch: Any) -> tuple[int, ...]:
    if not isinstance(batch, list) or len(batch) > 16:
        raise FileError("batch: expected a list of at most 16 sizes")
    if not all(type(size) is int and size >= 0 for size in batch):
        raise FileError("batch: expected sizes of at least 0")
    return tuple(batch)


def _array(name: str, dtype: str, shape: tuple[int, ...], content: bytes) -> np.ndarray:
    """An array of a dtype and shape that the config has confirmed."""
    kind = jnp.dtype(dtype)
    if math.prod(shape) * kind.itemsize != len(content):
        raise FileError(f"leaves: {name!r} has {len(content)} bytes, not those of its shape {shape}")
    return np.frombuffer(content, kind).reshape(shape)


def _check_metadata(metadata: Any) -> dict[str, str]:
    if not isinstance(metadata, Mapping):
        raise FileError(f"metadata: got {type(metadata).__name__}, expected a mapping of text")
    for name, text in metadata.items():
        if type(name) is not str or type(text) is not str:
            raise FileError(f"metadata: got {name!r}: {type(text).__name__}, expected text")
    return dict(sorted(metadata.items()))
