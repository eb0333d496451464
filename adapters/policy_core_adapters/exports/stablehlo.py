"""`act` of a policy as StableHLO, by `jax.export`: for JAX without this package, PJRT or IREE.

Lowered for CPUs, CUDA and TPUs at once, with an axis of any length for a batch, and one for a
population. The program holds its params as constants, or takes them where it is one of a population.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

import policy_core as pc
from policy_core_adapters.exports.lowering import ExportError, Lowered
from policy_core_adapters.exports.replay import Call
from policy_core_adapters.numpy_runner.networks import Array

if TYPE_CHECKING:
    from policy_core_adapters.exports.targets import Asked

PLATFORMS = ("cpu", "cuda", "tpu")


def export(
    policy: pc.contract.Policy,
    *,
    batch: int | str | None = "batch",
    population: int | str | None = None,
    action_mask: bool = False,
    key: bool = False,
    platforms: tuple[str, ...] = PLATFORMS,
) -> Any:
    """`act` as a `jax.export.Exported`: `call(state, observation, **given) -> (state, action)`.

    `given` are those of `action_mask` and `key` that are asked for, and `is_first`, a bool, for a policy
    with a memory. All are as in `policy_core.act`, but a key is `uint32[2]`, the data of a threefry key.
    Nothing of this package is needed to deserialize and call it; `exported.mlir_module()` is its text.

    Args:
        policy: the pair.
        batch: the axis in front of all inputs but the params: a length, or a name for one of any length;
            None for no such axis.
        population: likewise, the axis in front of that one. The first argument of `call` are then the
            params, which have it too. None for one policy, whose params are constants in the program.
        action_mask: whether it takes masks, in the structure of `action_space.full_mask()`.
        key: whether it takes a key, to draw the action; else it is deterministic.
        platforms: those that it is lowered for.

    Raises:
        StructureError: for a population without `population`, or one with more than one axis.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import policy_core as pc
        >>> from policy_core_adapters.exports import stablehlo
        >>> config = pc.ActorCriticConfig(
        ...     observation_space=pc.Box(shape=(4,)), action_space=pc.Discrete(2), actor=pc.MLP((8,))
        ... )
        >>> policy = pc.init(config, key=jax.random.key(0))
        >>> data = stablehlo.export(policy).serialize()  # needs flatbuffers
        >>> _, actions = jax.export.deserialize(data).call((), jnp.ones((5, 4)))
        >>> actions.shape
        (5,)
    """
    params, config = policy
    axes = pc.batch_shape(policy)
    if len(axes) > 1 or (axes and population is None):
        raise pc.errors.StructureError(
            f"policy: got a population of {axes}, expected "
            + (
                "one policy, or `population=` with a name for its axis"
                if len(axes) == 1
                else "one axis at most"
            )
        )
    one = jax.tree.map(lambda leaf: _struct(leaf, len(axes)), params)
    state = jax.eval_shape(lambda p: pc.reset((p, config)), one)
    given = {
        "action_mask": (action_mask, config.action_space.full_mask()),
        "is_first": (bool(jax.tree.leaves(state)), np.zeros((), bool)),
        "key": (key, np.zeros(2, np.uint32)),
    }

    def act(params: Any, state: Any, observation: Any, given: Any) -> Any:
        data = given.get("key")
        drawn = None if data is None else jax.random.wrap_key_data(data, impl="threefry2x32")
        return pc.act((params, config), state, observation, **{**given, "key": drawn})

    inputs = (
        state,
        config.observation_space.struct(),
        {name: tree for name, (asked, tree) in given.items() if asked},
    )
    # One scope, or the names would be those of different axes.
    names = [axis for axis in (population, batch) if isinstance(axis, str)]
    symbols: dict[Any, Any] = (
        dict(zip(names, jax.export.symbolic_shape(",".join(names)), strict=True)) if names else {}
    )
    if batch is not None:
        act, inputs = jax.vmap(act, (None, 0, 0, 0)), _stacked(inputs, symbols.get(batch, batch))
    if population is not None:
        act, inputs = jax.vmap(act), _stacked((one, *inputs), symbols.get(population, population))

    def alone(state: Any, observation: Any, **given: Any) -> Any:
        return act(params, state, observation, given)

    def of_population(params: Any, state: Any, observation: Any, **given: Any) -> Any:
        return act(params, state, observation, given)

    function = jax.jit(alone if population is None else of_population, keep_unused=True)
    return jax.export.export(function, platforms=platforms)(*inputs[:-1], **inputs[-1])


def write_file(lowered: Lowered, path: Path, asked: "Asked", batch: int | str | None) -> Call:
    """Write `act` to a file, and call what is read back: a text if the file is `.mlir`, else serialized.

    A text is lowered for CPUs alone, as IREE takes it.

    Raises:
        ExportError: for outputs, draws and kernels that it has not, or if flatbuffers is not installed.
    """
    outputs = tuple(asked.options.get("outputs", ("action",)))
    masks = asked.options.get("masks", "none")
    if outputs != ("action",):
        raise ExportError(f"outputs: got {outputs}, but StableHLO is that of `act`; trace another function")
    if lowered.noise or asked.int8:
        raise ExportError(
            f"{'int8' if asked.int8 else 'noise'}: the target stablehlo has none; `stablehlo.export(policy, "
            "key=True)` draws the action by a key"
        )
    if masks not in ("none", "rows"):
        raise ExportError(f"masks: got {masks!r}, expected 'none' or 'rows' for the target stablehlo")
    member = asked.options.get("member", ())
    policy = pc.load(asked.file, member=member) if member != () else pc.load(asked.file)
    text = path.suffix == ".mlir"
    platforms = ("cpu",) if text else PLATFORMS
    exported = export(policy, batch=batch, action_mask=masks == "rows", platforms=platforms)
    if text:
        path.write_text(exported.mlir_module())
    else:
        try:
            path.write_bytes(exported.serialize())
        except ImportError as error:
            raise ExportError(
                "flatbuffers is not installed, with which JAX serializes: install it"
            ) from error
        exported = jax.export.deserialize(bytearray(path.read_bytes()))
    count = batch if isinstance(batch, int) else None if batch is None else 1
    return _call_of(exported, count)


def _call_of(exported: Any, count: int | None) -> Call:
    """One step of what was read back, from and to the names of a graph."""
    (state, observation), given = jax.tree.unflatten(exported.in_tree, list(exported.in_avals))

    program = jax.jit(exported.call)

    def call(feeds: dict[str, Array]) -> dict[str, Array]:
        def filled(tree: Any, root: str) -> Any:
            def leaf(path: Any, struct: Any) -> Any:
                name = "/".join([root, *(str(_key(entry)) for entry in path)])
                x = feeds.get(
                    name, np.zeros(struct.shape[count is not None :], struct.dtype)
                )  # of the critic
                return (
                    np.asarray(x, struct.dtype) if count is None else np.repeat(np.asarray(x)[None], count, 0)
                )

            return jax.tree_util.tree_map_with_path(leaf, tree)

        more = {name: filled(tree, name) for name, tree in given.items()}
        after, action = program(filled(state, "state"), filled(observation, "observation"), **more)
        made = {}
        for root, tree in (("next_state", after), ("action", action)):
            for path, x in jax.tree_util.tree_flatten_with_path(tree)[0]:
                name = "/".join([root, *(str(_key(entry)) for entry in path)])
                made[name] = np.asarray(x if count is None else x[0])
        return made

    return call


def _key(entry: Any) -> Any:
    return entry.key if hasattr(entry, "key") else entry.idx


def _struct(leaf: Any, axes: int) -> Any:
    return jax.ShapeDtypeStruct(leaf.shape[axes:], leaf.dtype)


def _stacked(tree: Any, axis: Any) -> Any:
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((axis, *leaf.shape), leaf.dtype), tree)
