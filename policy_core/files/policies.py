"""The functions of policy files: `save`, `load`, `verify`, and their variants for bytes."""

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias, TypeVar, overload

import jax
import numpy as np
from jaxtyping import PyTree

from policy_core.configs.codec import encoding_of
from policy_core.contract import (
    Action,
    ActorCritic,
    ActorCriticOf,
    Config,
    Observation,
    Params,
    Policy,
    State,
)
from policy_core.errors import FileError
from policy_core.files import replay
from policy_core.files.arrays import arrays_of, check_specs, rows_of
from policy_core.files.checksum import Buffer
from policy_core.files.configs import decode, specs_of
from policy_core.files.document import Document, check_metadata, check_start, read, read_lazily, write
from policy_core.files.precision import check_width, narrowed
from policy_core.files.replay import Verification
from policy_core.files.storage import Blocks, read_file, write_atomically
from policy_core.trees import by_path, check_arrays, check_in_one_process, spec

T = TypeVar("T")

PathLike: TypeAlias = str | os.PathLike[str]


def save(
    path: PathLike,
    policy: Policy,
    *,
    metadata: Mapping[str, str] | None = None,
    extra: PyTree = None,
    self_test: bool = True,
    observations: PyTree = None,
) -> None:
    """Write a policy, or a population, to a file.

    The write is atomic: a temporary file in the same folder is flushed to the disk and renamed, so
    at any time `path` is the complete old file or the complete new one. A link is followed; the mode
    of an old file is kept, and its owner where that is allowed; a missing folder is created.

    Args:
        path: the file; no suffix is added or replaced.
        policy: the pair. Params with common leading axes are saved as a population.
        metadata: free text by name, at most 1 MiB.
        extra: a pytree of arrays and Python numbers to keep beside the policy, such as the state
            of an optimizer; `load_extra` gives it back.
        self_test: whether to save the outputs of the policy for 8 random observations, which
            `verify` checks. It costs one compilation for each config.
        observations: a batch of observations `[n, ...]` to add to the self-test.

    Raises:
        FileError: if the params are not those of the config; nothing is written.
        OSError: if the file cannot be written; an old file stays as it was.

    Example:
        >>> import jax
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
    write_atomically(Path(path).absolute(), parts_of(policy, metadata, extra, self_test, observations))


@overload
def load(
    path: PathLike,
    config: ActorCriticOf[Params, State, Observation, Action, Config],
    *,
    member: tuple[int, ...] | int | None = None,
    self_test: bool = False,
    narrow: bool = False,
) -> tuple[Params, Config]: ...
@overload
def load(
    path: PathLike,
    config: ActorCritic[Params, State, Observation, Action] | None = None,
    *,
    member: tuple[int, ...] | int | None = None,
    self_test: bool = False,
    narrow: bool = False,
) -> Policy[Params, State, Observation, Action]: ...
def load(
    path: PathLike,
    config: Any = None,
    *,
    member: tuple[int, ...] | int | None = None,
    self_test: bool = False,
    narrow: bool = False,
) -> Any:
    """Read a policy from a file.

    Args:
        path: the file.
        config: the expected config, or None to use the one in the file.
        member: the index of the one member of a population to load, a tuple if it has several axes. Only
            this member is read, and verified, from the file. None for all that the file holds.
        self_test: whether to also run the self-test of the file, as `verify` does.
        narrow: whether a policy in 64 bits is rounded to 32 bits (params, config and self-test) if
            JAX does not run in x64; otherwise it is an error there. `config` is the one in 32 bits.

    Returns:
        The pair, after everything has been verified.

    Raises:
        FingerprintError: if the file holds another config; the fields that differ are listed.
        FileError: if the file is damaged, truncated, or not a policy file, or fails its self-test;
            if it needs 64 bits and JAX does not run in x64; if it has no such member.
        OSError: if there is no such file, or it cannot be read.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
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
    document = read_document(path, member, "leaves", *["self_test"] * self_test)
    if narrow:
        document = narrowed(document)
    policy = policy_of(document, config)
    if self_test:
        replay.check(policy, document.batch, document.self_test, _TOLERANCE)
    return policy


def load_extra(path: PathLike, like: T, *, member: tuple[int, ...] | int | None = None) -> T:
    """Read the arrays saved as `extra`, in the structure of `like`.

    A file holds arrays by path and no code: the NamedTuples of optax or a trainer are those of
    `like`, such as `jax.eval_shape(optimizer.init, params)`.

    Args:
        path: the file.
        like: a pytree with the structure, dtypes and shapes of `extra`: arrays,
            `jax.ShapeDtypeStruct`s, and Python numbers where numbers were saved.
        member: the index of the one member of a population whose part of `extra` is read, as in `load`.
            Every array in `extra` must have the axes of the population; `like` is without them.

    Raises:
        FileError: if the file holds other leaves, the message has the first; if it has no such member.
        OSError: if there is no such file, or it cannot be read.

    Example:
        >>> import jax
        >>> import tempfile, policy_core as pc
        >>> config = pc.ActorCriticConfig(
        ...     observation_space=pc.Box(shape=(4,)), action_space=pc.Discrete(2)
        ... )
        >>> policy = pc.init(config, key=jax.random.key(0))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     pc.save(folder + "/run", policy, extra={"step": 7, "key": jax.random.key(1)})
        ...     extra = pc.load_extra(folder + "/run", {"step": 0, "key": jax.random.key(0)})
        >>> extra["step"], extra["key"] == jax.random.key(1)
        (7, Array(True, dtype=bool))
    """
    rows = {row.path: row for row in read_document(path, member, "extra").extra}
    leaves = by_path(like, "like")
    expected = {name: spec(_NUMBERS[type(x)](x) if type(x) in _NUMBERS else x) for name, x in leaves.items()}
    specs = {row.path: (row.dtype, row.shape) for row in rows.values()}
    check_specs(specs, expected, "extra", "`like`")
    arrays = iter(arrays_of([rows[name] for name, leaf in leaves.items() if type(leaf) not in _NUMBERS]))
    values = [
        rows[name].array().item() if type(leaf) in _NUMBERS else next(arrays) for name, leaf in leaves.items()
    ]
    result: T = jax.tree.unflatten(jax.tree.structure(like), values)
    return result


def verify(
    path: PathLike,
    config: Any = None,
    *,
    member: tuple[int, ...] | int | None = None,
    tolerance: float = 1e-3,
) -> Verification:
    """Verify a file completely and run its self-test.

    Args:
        path: the file.
        config: the expected config, or None to use the one in the file.
        member: the index of the one member of a population to verify, as in `load`; the rest is not read.
        tolerance: the largest deviation of an output from the saved one, relative to
            max(1, |output|). The two agree to rounding, on an accelerator as well, for matrix products
            have the highest precision here; allow more for networks that compute in bfloat16.

    Returns:
        The number of observations, and the largest deviation.

    Raises:
        FileError: as `load`.
        SelfTestError: if the self-test fails, with the largest deviation.
        OSError: if there is no such file, or it cannot be read.

    Example:
        >>> import jax
        >>> import tempfile, policy_core as pc
        >>> config = pc.ActorCriticConfig(
        ...     observation_space=pc.Box(shape=(4,)), action_space=pc.Discrete(2)
        ... )
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     pc.save(folder + "/run", pc.init(config, key=jax.random.key(0)))
        ...     pc.verify(folder + "/run").observations
        8
    """
    document = read_document(path, member, "leaves", "self_test")
    return replay.check(policy_of(document, config), document.batch, document.self_test, tolerance)


def to_bytes(
    policy: Policy,
    *,
    metadata: Mapping[str, str] | None = None,
    extra: PyTree = None,
    self_test: bool = True,
    observations: PyTree = None,
) -> bytes:
    """The bytes of the file that `save` writes; equal pairs have equal bytes.

    Raises:
        FileError: if the params are not those of the config.

    Example:
        >>> import jax
        >>> import policy_core as pc
        >>> config = pc.ActorCriticConfig(
        ...     observation_space=pc.Box(shape=(4,)), action_space=pc.Discrete(2)
        ... )
        >>> policy = pc.init(config, key=jax.random.key(0))
        >>> pc.to_bytes(policy) == pc.to_bytes(policy)
        True
    """
    return b"".join(parts_of(policy, metadata, extra, self_test, observations))


@overload
def from_bytes(
    data: bytes, config: ActorCriticOf[Params, State, Observation, Action, Config]
) -> tuple[Params, Config]: ...
@overload
def from_bytes(
    data: bytes, config: ActorCritic[Params, State, Observation, Action] | None = None
) -> Policy[Params, State, Observation, Action]: ...
def from_bytes(data: bytes, config: Any = None) -> Any:
    """The policy from the bytes of `to_bytes`; the errors are those of `load`.

    Example:
        >>> import jax
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
    if not isinstance(data, bytes):  # arrays may share this memory, so it must be immutable
        data = bytes(data)
    return policy_of(read(memoryview(data)), config)


def read_document(path: PathLike, member: tuple[int, ...] | int | None = None, *tables: str) -> Document:
    """The checked document of a file, or of one member, with its part of the tables that are asked for."""
    if member is None:
        return read(*read_file(Path(path), check_start))
    with opened(path) as document:
        return document.member(member, tables)


@contextlib.contextmanager
def opened(path: PathLike) -> Iterator[Document]:
    """The document of a file that is read, and verified, where its rows are asked for."""
    with open(path, "rb", buffering=0) as file:
        check_start(memoryview(file.read(64)))
        yield read_lazily(Blocks(file))


_TOLERANCE = 1e-3
_NUMBERS: dict[type, Any] = {bool: np.bool_, int: np.int64, float: np.float64}


def parts_of(
    policy: Policy,
    metadata: Mapping[str, str] | None = None,
    extra: PyTree = None,
    self_test: bool = True,
    observations: PyTree = None,
) -> list[Buffer]:
    """The bytes of a file, as parts to be concatenated; arrays on the CPU are not copied."""
    if not isinstance(policy, tuple) or len(policy) != 2 or not isinstance(policy[1], ActorCritic):
        got = type(policy[1] if isinstance(policy, tuple) and len(policy) == 2 else policy).__name__
        raise FileError(f"config: got {got}; a policy is the pair (params, config)")
    if observations is not None and not self_test:
        raise FileError("observations: got some with self_test=False; they are those of the self-test")
    params, config = policy
    text = check_metadata({} if metadata is None else metadata)
    leaves, (expected, _) = by_path(params, "params"), specs_of(config)
    check_arrays(leaves, "params")
    check_in_one_process(leaves, "params")
    specs = {name: spec(leaf) for name, leaf in leaves.items()}
    batch = _batch_of(specs, expected)
    _check_params(specs, expected, batch, "params")
    document = Document(
        config=encoding_of(config),
        batch=batch,
        leaves=rows_of(leaves),
        metadata=text,
        self_test=replay.record(policy, batch, observations) if self_test else (),
        extra=rows_of(_extra_leaves(extra)),
    )
    return write(document)


def _extra_leaves(extra: PyTree) -> dict[str, Any]:
    leaves = by_path(extra, "extra")
    for name, leaf in leaves.items():
        if type(leaf) in _NUMBERS:
            try:
                leaves[name] = np.asarray(_NUMBERS[type(leaf)](leaf))
            except OverflowError as error:
                raise FileError(f"extra: the int {name!r} does not fit into 64 bits") from error
    check_arrays(leaves, "extra")
    check_in_one_process(leaves, "extra")
    return leaves


def policy_of(document: Document, config: Any = None) -> Policy:
    """The pair in a document, of which everything has been checked."""
    saved = decode(document, config)
    check_width(document)
    expected, structure = specs_of(saved, len(document.leaves))
    rows = {row.path: row for row in document.leaves}
    specs = {row.path: (row.dtype, row.shape) for row in document.leaves}
    _check_params(specs, expected, document.batch, "file")
    return jax.tree.unflatten(structure, arrays_of([rows[name] for name in expected])), saved


def _batch_of(specs: Mapping[str, Any], expected: Mapping[str, Any]) -> tuple[int, ...]:
    """The leading axes of a population: those of its first leaf beyond the expected shape."""
    for name, (_, shape) in expected.items():
        if name in specs:
            got: tuple[int, ...] = specs[name][1]
            return got[: max(len(got) - len(shape), 0)]
    return ()


def _check_params(
    specs: Mapping[str, Any], expected: Mapping[str, Any], batch: tuple[int, ...], what: str
) -> None:
    shapes = {name: (dtype, batch + shape) for name, (dtype, shape) in expected.items()}
    check_specs(specs, shapes, what, "the config's params")
