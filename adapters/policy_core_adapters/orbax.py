"""Policies in Orbax checkpoints: the config is kept beside the params, and compared before they are read.

Orbax stores the arrays of a pair on any topology of devices and restores them on another, but it knows
nothing of a config: params of a policy with tanh go into one with relu without a word. Here a step of a
`CheckpointManager` has two or three items:

    policy_core   JSON: the canonical bytes of the config, its fingerprint, the axes of a population
    params        the params of the policy
    extra         what was saved beside it, such as the state of an optimizer

An ordinary file of one of these policies is `pc.save(path, restore(manager, step))`.
"""

import base64
import binascii
from typing import Any, TypeVar

import jax
import numpy as np

import policy_core as pc

FileError, FingerprintError = pc.errors.FileError, pc.errors.FingerprintError

T = TypeVar("T")

_ITEM, _FORMAT = "policy_core", 1


def save(manager: Any, step: int, policy: pc.Policy, extra: Any = None, **options: Any) -> bool:
    """Save a policy, or a population, as a step of an `orbax.checkpoint.CheckpointManager`.

    Arrays may be sharded, over several processes too: all of them call it.

    Args:
        manager: the manager. It writes in the background unless it is told not to:
            `manager.wait_until_finished()`.
        step: the number of the step.
        policy: the pair.
        extra: a pytree of arrays to keep beside it; `restore_extra` gives it back.
        **options: of `manager.save`, such as `metrics` or `force`.

    Returns:
        What `manager.save` does: whether the step was saved.

    Raises:
        FileError: if the config is not one of `@pc.static`.
        StructureError: if the params are not those of the config.

    Example:
        >>> import jax, tempfile
        >>> import orbax.checkpoint as ocp
        >>> import policy_core as pc
        >>> from policy_core_adapters import orbax
        >>> config = pc.ActorCriticConfig(
        ...     observation_space=pc.Box(shape=(4,)), action_space=pc.Discrete(2)
        ... )
        >>> policy = pc.init(config, key=jax.random.key(0))
        >>> with tempfile.TemporaryDirectory() as folder, ocp.CheckpointManager(folder) as manager:
        ...     saved = orbax.save(manager, 0, policy)
        ...     manager.wait_until_finished()
        ...     _, restored = orbax.restore(manager, 0)
        >>> saved, restored == config
        (True, True)
    """
    args = _args()
    params, config = policy
    encoded = pc.files.config_to_bytes(config)
    header = {
        "version": _FORMAT,
        "config": base64.b64encode(encoded).decode("ascii"),
        "fingerprint": pc.fingerprint(config).hex(),
        "batch": list(pc.batch_shape(policy)),
    }
    items = {_ITEM: args.JsonSave(header), "params": args.StandardSave(params)}
    if extra is not None:
        items["extra"] = args.StandardSave(extra)
    return bool(manager.save(step, args=args.Composite(**items), **options))


def restore(
    manager: Any,
    step: int,
    config: Any = None,
    *,
    sharding: jax.sharding.Sharding | None = None,
    member: int | None = None,
) -> pc.Policy:
    """Restore the policy of a step, on the devices of today.

    Args:
        manager: an `orbax.checkpoint.CheckpointManager` of the folder; a new one will do.
        step: the number of the step.
        config: the expected config, or None to use the one that was saved.
        sharding: of every leaf; None for the first device of this process.
        member: of a population, along its first axis, to get only this one. Orbax reads all of them,
            into the memory of the host; only the member goes to the devices.

    Returns:
        The pair.

    Raises:
        FingerprintError: if another config was saved; no array has been read.
        FileError: if the step was not saved by this adapter, or its config is damaged.
        IndexError: if there is no such member.
        OSError: if there is no such step.

    Example:
        >>> import jax, tempfile
        >>> import orbax.checkpoint as ocp
        >>> import policy_core as pc
        >>> from policy_core_adapters import orbax
        >>> config = pc.ActorCriticConfig(
        ...     observation_space=pc.Box(shape=(4,)), action_space=pc.Discrete(2)
        ... )
        >>> keys = jax.random.split(jax.random.key(0), 8)
        >>> population = jax.vmap(lambda key: pc.init(config, key=key))(keys)
        >>> with tempfile.TemporaryDirectory() as folder, ocp.CheckpointManager(folder) as manager:
        ...     saved = orbax.save(manager, 0, population)
        ...     manager.wait_until_finished()
        ...     third = orbax.restore(manager, 0, config, member=2)
        >>> pc.batch_shape(third)
        ()
    """
    args = _args()
    config, batch = _header(manager, step, config)
    if member is not None:
        if not batch:
            raise IndexError(f"member: got {member}, but step {step} holds one policy and no population")
        if not -batch[0] <= member < batch[0]:
            raise IndexError(f"member: got {member}, expected one of the {batch[0]} of step {step}")
    shapes = jax.eval_shape(lambda: config.init(key=jax.random.key(0)))
    place = jax.sharding.SingleDeviceSharding(jax.local_devices()[0]) if sharding is None else sharding

    def target(leaf: Any) -> Any:
        shape = (*batch, *leaf.shape)
        if member is not None:
            return np.empty(shape, leaf.dtype)  # restored as an array of the host
        return jax.ShapeDtypeStruct(shape, leaf.dtype, sharding=place)

    items = args.Composite(params=args.StandardRestore(jax.tree.map(target, shapes)))
    params = manager.restore(step, args=items)["params"]
    if member is not None:
        params = jax.device_put(jax.tree.map(lambda leaf: leaf[member], params), place)
    return params, config


def restore_extra(manager: Any, step: int, like: T) -> T:
    """Restore what was saved as `extra`, in the structure of `like`.

    Args:
        manager: the manager.
        step: the number of the step.
        like: a pytree of arrays or `jax.ShapeDtypeStruct`s, whose shardings say where the arrays go.

    Raises:
        FileError: if nothing was saved beside the policy.
        OSError: if there is no such step.

    Example:
        >>> import jax, tempfile
        >>> import jax.numpy as jnp
        >>> import orbax.checkpoint as ocp
        >>> import policy_core as pc
        >>> from policy_core_adapters import orbax
        >>> config = pc.ActorCriticConfig(
        ...     observation_space=pc.Box(shape=(4,)), action_space=pc.Discrete(2)
        ... )
        >>> policy = pc.init(config, key=jax.random.key(0))
        >>> with tempfile.TemporaryDirectory() as folder, ocp.CheckpointManager(folder) as manager:
        ...     saved = orbax.save(manager, 0, policy, extra={"returns": jnp.arange(3.0)})
        ...     manager.wait_until_finished()
        ...     extra = orbax.restore_extra(manager, 0, {"returns": jnp.zeros(3)})
        >>> extra["returns"].tolist()
        [0.0, 1.0, 2.0]
    """
    args = _args()
    _header(manager, step, None)
    if not (manager.directory / str(step) / "extra").exists():
        raise FileError(f"step {step} of {manager.directory}: nothing was saved beside the policy")
    restored: T = manager.restore(step, args=args.Composite(extra=args.StandardRestore(like)))["extra"]
    return restored


def _args() -> Any:
    import orbax.checkpoint

    return orbax.checkpoint.args


def _header(manager: Any, step: int, config: Any) -> tuple[Any, tuple[int, ...]]:
    """The config of a step, which is `config` unless that is None, and the axes of its population."""
    where = f"step {step} of {manager.directory}"
    args = _args()
    try:
        header = manager.restore(step, args=args.Composite(**{_ITEM: args.JsonRestore()}))[_ITEM]
    except KeyError:
        header = None
    if header is None:
        raise FileError(f"{where}: it was not saved by policy_core_adapters.orbax: no item {_ITEM!r}")
    try:
        version, fingerprint, batch = header["version"], bytes.fromhex(header["fingerprint"]), header["batch"]
        encoded = base64.b64decode(header["config"], validate=True)
        axes = tuple(int(size) for size in batch)
    except (KeyError, TypeError, ValueError, binascii.Error) as error:
        raise FileError(f"{where}: the item {_ITEM!r} is damaged: {error!r}") from error
    if version != _FORMAT:
        raise FileError(f"{where}: got version {version} of the item {_ITEM!r}, expected {_FORMAT}")
    try:
        saved = pc.files.config_from_bytes(encoded, config)
    except FingerprintError as error:
        raise FingerprintError(f"{where}: {error}") from None
    except FileError as error:
        raise FileError(f"{where}: {error}") from error
    if pc.fingerprint(saved) != fingerprint:
        raise FileError(f"{where}: the fingerprint is not that of the config beside it")
    return saved, axes
