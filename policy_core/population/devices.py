"""Populations on the devices of one process or of several."""

from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import msgpack
import numpy as np
from jax.core import Tracer
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from policy_core.configs.codec import encoding_of
from policy_core.configs.comparison import difference_table_of_data, fingerprint
from policy_core.errors import FingerprintError, StructureError
from policy_core.trees import by_path

T = TypeVar("T")


def sharding(mesh: Mesh, axis: str | tuple[str, ...] = "population") -> NamedSharding:
    """The sharding by members: the first axis of every leaf is split over an axis of the mesh.

    For `out_shardings` of `init` and of `jax.jit`, and for `jax.device_put`. The number of
    members must be a multiple of the number of devices along the axis.

    Args:
        mesh: as of `jax.make_mesh`.
        axis: the name of one of its axes, or of several, over all of which it is split.

    Raises:
        StructureError: if the mesh has no such axis.

    Example:
        >>> import jax
        >>> import policy_core as pc
        >>> mesh = jax.make_mesh(
        ...     (1,), ("population",), axis_types=(jax.sharding.AxisType.Auto,)
        ... )
        >>> pc.population.sharding(mesh).shard_shape((8, 4))  # of one device
        (8, 4)
    """
    for name in (axis,) if isinstance(axis, str) else axis:
        if name not in mesh.axis_names:
            raise StructureError(f"axis: got {name!r}, expected an axis of the mesh: {mesh.axis_names}")
    return NamedSharding(mesh, PartitionSpec(axis))


def replicated(mesh: Mesh) -> NamedSharding:
    """The sharding of what all devices of the mesh have: hyper-parameters, a shared critic, one member.

    Example:
        >>> import jax
        >>> import policy_core as pc
        >>> mesh = jax.make_mesh(
        ...     (1,), ("population",), axis_types=(jax.sharding.AxisType.Auto,)
        ... )
        >>> pc.population.replicated(mesh).is_fully_replicated
        True
    """
    return NamedSharding(mesh, PartitionSpec())


def gather(pop: T) -> T:
    """All of a population in each process: every leaf a NumPy array, for `save` and for plots.

    With several processes every one must call this, with the same tree: it communicates. One leaf
    after the other is on every device as a whole. Typed keys become keys on the default device.

    Args:
        pop: the pair, or any pytree, such as the state of an optimizer. What is not split over
            processes is taken as it is.

    Raises:
        StructureError: for a leaf that is traced or deleted.

    Example:
        >>> import jax
        >>> import policy_core as pc
        >>> config = pc.ActorCriticConfig(
        ...     observation_space=pc.Box(shape=(4,)), action_space=pc.Discrete(2)
        ... )
        >>> params, _ = pc.population.gather(pc.population.init(config, 8, key=jax.random.key(0)))
        >>> type(params["actor"]["head"]["kernel"]).__name__
        'ndarray'
    """
    for name, leaf in by_path(pop, "pop", StructureError).items():
        if isinstance(leaf, Tracer):
            raise StructureError(f"pop: the leaf {name!r} is traced; gather runs on the host, outside of jit")
        if isinstance(leaf, jax.Array) and leaf.is_deleted():
            raise StructureError(f"pop: the leaf {name!r} was deleted, perhaps as it was donated to a jit")
    gathered: T = jax.tree.map(_gathered, pop)
    return gathered


def _gathered(leaf: Any) -> Any:
    if not isinstance(leaf, jax.Array):
        return leaf
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(_gathered(jax.random.key_data(leaf)), impl=jax.random.key_impl(leaf))
    if leaf.is_fully_addressable or leaf.is_fully_replicated:
        return np.asarray(leaf)
    return multihost_utils.process_allgather(leaf, tiled=True)


def assert_same_config(config: object) -> None:
    """Raise unless all processes have equal configs; to be called by every one before they train.

    Processes that were started with different flags run different programs, which hang or mix
    their numbers. With one process there is nothing to compare.

    Raises:
        FingerprintError: on every process, with the fields that differ between process 0 and the first
            process that has another config.

    Example:
        >>> import policy_core as pc
        >>> pc.population.assert_same_config(pc.MLP((64, 64)))
    """
    own = np.frombuffer(fingerprint(config), np.uint8)
    if jax.process_count() == 1:
        return
    fingerprints = multihost_utils.process_allgather(own)
    if not (others := np.flatnonzero((fingerprints != fingerprints[0]).any(axis=1))).size:
        return
    encoding = np.frombuffer(encoding_of(config), np.uint8)
    lengths = multihost_utils.process_allgather(np.array(encoding.size, np.int32))
    padded = np.zeros(int(lengths.max()), np.uint8)
    padded[: encoding.size] = encoding
    encodings = multihost_utils.process_allgather(padded)
    data = [msgpack.unpackb(encodings[p, : lengths[p]].tobytes()) for p in (int(others[0]), 0)]
    table = difference_table_of_data(data[0], data[1], f"process {others[0]}", "process 0")
    raise FingerprintError(f"config: process {others[0]} has another config than process 0\n{table}")
