"""Policies of PPO in Brax and MuJoCo Playground: `load("params")`, and back: `dump(policy)`."""

import hashlib
import importlib
import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np

import policy_core as pc
from policy_core_adapters.imports.brax_dump import ACTIVATIONS, SCALE
from policy_core_adapters.imports.brax_dump import Dumped as Dumped
from policy_core_adapters.imports.brax_dump import dump as dump
from policy_core_adapters.imports.pickles import Object
from policy_core_adapters.imports.pickles import load as load_pickle
from policy_core_adapters.imports.report import Imported, Source

_CONFIG = "ppo_network_config.json"
_MOST_BYTES = 2**32


def load(
    path: str | os.PathLike[str],
    *,
    activation: str | None = None,
    policy_obs_key: str | None = None,
    value_obs_key: str | None = None,
    normalize_observations: bool | None = None,
) -> Imported:
    """The policy in a pickle of `(statistics, policy)` or `(statistics, policy, value)`, or in a checkpoint.

    A pickle is what `brax.io.model.save_params` writes, a checkpoint the folder of one step of
    `brax.training.agents.ppo.checkpoint.save`, which is read with Orbax. The distribution is a normal that is
    squashed into [-1, 1], with std = softplus(raw) + 0.001, or a normal with a std of its own that is not
    clipped. Observations are normalized by mean and std.

    Observations in parts stay a `Dict`, of which actor and critic see the parts that the keys name, as the
    adapter of MuJoCo Playground gives them.

    Args:
        path: the file, or the folder of one step.
        activation: of the layers; a checkpoint has it, a pickle has not: Brax has "silu" by default.
        policy_obs_key: the part that the actor sees; in a checkpoint, else "state" by default.
        value_obs_key: that of the critic, likewise; MuJoCo Playground often has "privileged_state".
        normalize_observations: whether the statistics are used; in a checkpoint, else true by default.

    Returns:
        The policy, without a critic if the file has none, a report of every leaf, and metadata to save.

    Raises:
        FileError: for a file that is damaged, or asks for anything that is not data; for a network that is
            not known here, by its name.
        ImportError: for a checkpoint without Orbax.
    """
    path = Path(path)
    value, settings, digest = _checkpoint(path) if path.is_dir() else _pickle(path)
    given = {
        "activation": activation, "policy_obs_key": policy_obs_key, "value_obs_key": value_obs_key,
        "normalize_observations": normalize_observations,
    }  # fmt: skip
    settings = {
        "activation": "silu", "policy_obs_key": "state", "value_obs_key": "state",
        "normalize_observations": True, **settings,
        **{name: one for name, one in given.items() if one is not None},
    }  # fmt: skip
    if settings["activation"] not in ACTIVATIONS:
        known = ", ".join(ACTIVATIONS)
        raise pc.errors.FileError(f"activation: got {settings['activation']!r}, expected one of {known}")
    if settings.get("mean_clip_scale") is not None:
        raise pc.errors.FileError("mean_clip_scale: the mean is s x / (1 + |x|), which no head here has")
    source = Source(
        {
            **_statistics_of(value[0]),
            **_layers(value[1], "policy"),
            **(_layers(value[2], "value") if len(value) == 3 else {}),
        }
    )
    fields: dict[str, Any] = {"critic": None}
    fields |= _observation(source, settings)
    activation = ACTIVATIONS[settings["activation"]]
    fields["actor"] = pc.MLP(_actor(source, fields, settings), activation=activation)
    if len(value) == 3:
        widths = _tower(source, "value", "critic")
        fields["critic"] = pc.MLP(widths[:-1], activation=activation)
    metadata = {"imported from": "Brax", "version": "not in the file", "sha256": digest}
    return source.finish(pc.ActorCriticConfig(**fields), metadata)


def _pickle(path: Path) -> tuple[tuple[Any, ...], dict[str, Any], str]:
    content = path.read_bytes()
    value = load_pickle(content)
    if not isinstance(value, tuple | list) or not 2 <= len(value) <= 3:
        raise pc.errors.FileError("the file is no tuple of statistics, policy and perhaps value")
    return tuple(value), {}, hashlib.sha256(content).hexdigest()


def _checkpoint(path: Path) -> tuple[tuple[Any, ...], dict[str, Any], str]:
    """The params and the settings of a folder, and a digest of all of its files."""
    try:
        document = json.loads((path / _CONFIG).read_bytes())
        settings = {
            **document["network_factory_kwargs"],
            "normalize_observations": document["normalize_observations"],
        }
    except FileNotFoundError as error:
        raise pc.errors.FileError(
            f"{path}: there is no {_CONFIG} in it; expected the folder of one step of a PPO checkpoint"
        ) from error
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise pc.errors.FileError(f"{_CONFIG}: it is damaged: {error!r}") from error
    checkpoint: Any = importlib.import_module("orbax.checkpoint")
    jax: Any = importlib.import_module("jax")
    reader = checkpoint.PyTreeCheckpointer()
    try:
        tree = reader.metadata(path.resolve()).item_metadata.tree
        arrays = [leaf for leaf in jax.tree.leaves(tree) if getattr(leaf, "shape", None)]
        total = sum(math.prod(leaf.shape) * 8 for leaf in arrays)
        if total > _MOST_BYTES:
            raise pc.errors.FileError(f"{path}: its arrays would take {total} bytes")
        how = jax.tree.map(lambda _: checkpoint.RestoreArgs(restore_type=np.ndarray), tree)
        args = checkpoint.args.PyTreeRestore(restore_args=how)
        value = reader.restore(path.resolve(), args)
    except pc.errors.FileError:
        raise
    except Exception as error:  # Orbax, TensorStore and JSON have errors of their own
        raise pc.errors.FileError(f"{path}: Orbax cannot read it: {str(error)[:300]}") from error
    if not isinstance(value, list | tuple) or not 2 <= len(value) <= 3:
        raise pc.errors.FileError(f"{path}: it holds no statistics, policy and perhaps value")
    digest = hashlib.sha256()
    for file in sorted(file for file in path.rglob("*") if file.is_file()):
        digest.update(f"{file.relative_to(path).as_posix()}\n".encode())
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return tuple(value), settings, digest.hexdigest()


def _statistics_of(value: Any) -> dict[str, Any]:
    """The leaves of the statistics, by name."""
    state = value.state if isinstance(value, Object) else value
    if not isinstance(state, dict) or not isinstance(state.get("mean"), np.ndarray | dict):
        raise pc.errors.FileError("statistics: there is no mean of observations in them")
    leaves: dict[str, Any] = {}
    for name in ("mean", "std", "summed_variance"):
        part = state.get(name)
        inner = part.items() if isinstance(part, dict) else [("", part)]
        leaves |= {f"statistics.{name}" + (f".{key}" if key else ""): leaf
                   for key, leaf in inner if isinstance(leaf, np.ndarray)}  # fmt: skip
    leaves["statistics.count"] = np.asarray(_count(state.get("count")))
    return leaves


def _count(value: Any) -> float:
    """A number, or that of two halves of 32 bits."""
    halves = value.state if isinstance(value, Object) else value
    if isinstance(halves, dict) and {"hi", "lo"} <= set(halves):
        return float(np.ravel(halves["hi"])[0]) * 2**32 + float(np.ravel(halves["lo"])[0])
    return float(np.ravel(halves)[0]) if isinstance(halves, np.ndarray | int | float) else 1.0


def _observation(source: Source, settings: dict[str, Any]) -> dict[str, Any]:
    """The observation space with its statistics, and who sees what."""
    parts = sorted(
        name.removeprefix("statistics.mean") for name in source.left if name.startswith("statistics.mean")
    )
    spaces, used = {}, bool(settings["normalize_observations"])
    count = float(source.take("statistics.count", "normalize/count" if used else "not needed"))
    for part in parts:
        key = part.removeprefix(".")
        path = f"normalize/{key}".rstrip("/")
        mean, std = (
            source.take(
                f"statistics.{name}{part}", f"{path}/{to}" if used else "not needed: they are not used"
            )
            for name, to in (("mean", "mean"), ("std", "variance"))
        )
        if f"statistics.summed_variance{part}" in source:
            source.take(f"statistics.summed_variance{part}", "not needed: std is known")
        if used:
            source.statistics(path, mean, np.square(std.astype(np.float64)), count)
        spaces[key] = pc.Box(shape=mean.shape)
    fields: dict[str, Any] = {"observation_space": spaces[""] if parts == [""] else pc.Dict(spaces)}
    if used:  # not 1e-14, which would be no little beside the std of 1e-6 of what is constant
        fields["normalize"] = pc.Normalize(clip=math.inf, epsilon=1e-30)
    if parts == [""]:
        return fields
    for owner, network in (("actor", "policy"), ("critic", "value")):
        kernels = [
            leaf for name, leaf in source.left.items()
            if name.startswith(f"{network}.") and name.endswith("hidden_0.kernel")
        ]  # fmt: skip
        key = settings[f"{network}_obs_key"]
        for kernel in kernels:
            if key not in spaces or kernel.shape[:1] != spaces[key].shape:
                sizes = {name: space.shape for name, space in spaces.items()}
                raise pc.errors.FileError(
                    f"{network}_obs_key: got {key!r} for a network of {kernel.shape[0]} inputs; the parts "
                    f"are {sizes}"
                )
            fields[f"{owner}_keys"] = (key,)
    return fields


def _layers(value: Any, name: str) -> dict[str, Any]:
    """The leaves of modules of flax, by name."""
    value = value.state if isinstance(value, Object) and isinstance(value.state, dict) else value
    value = value.args[0] if isinstance(value, Object) and value.args else value
    params = value.get("params", value) if isinstance(value, dict) else None
    if not isinstance(params, dict) or not params:
        raise pc.errors.FileError(f"{name}: it is no module of flax")
    leaves: dict[str, Any] = {}

    def collect(front: str, part: dict[Any, Any]) -> None:
        for key, inner in part.items():
            if isinstance(inner, dict):
                collect(f"{front}.{key}", inner)
            elif isinstance(inner, np.ndarray):
                leaves[f"{front}.{key}"] = inner
            else:
                raise pc.errors.FileError(f"{front}.{key}: it is no array")

    collect(name, params)
    return leaves


def _actor(source: Source, fields: dict[str, Any], settings: dict[str, Any]) -> tuple[int, ...]:
    """The layers of the actor; sets the action space and the head."""
    if "policy.Dense_0.kernel" not in source:  # a normal that is squashed
        # `raw` is what `Scale` adds to the output of the head: it is taken off the bias.
        *widths, outputs = _tower(source, "policy", "actor")
        bias = source.params["actor/head/bias"].astype(np.float64)
        size = outputs // 2
        source.params["actor/head/bias"] = np.concatenate([bias[:size], bias[size:] - SCALE.raw])
        fields["action_space"] = pc.Box(low=-1.0, high=1.0, shape=(size,))
        fields["box_head"] = pc.SquashedNormalHead(SCALE)
        return tuple(widths)
    widths = list(_tower(source, "policy.MLP_0", "actor", head=False))
    names = ["policy.Dense_0"]
    scales = {"policy.std_param.std_param": "identity", "policy.std_logparam.std_logparam": "exp"}
    if found := [
        name for name in source.left if name.startswith(("policy.std_param.", "policy.std_logparam."))
    ]:
        positive: Any = scales.get(found[0], "identity" if ".std_param." in found[0] else "exp")
        scale = pc.Scale(positive=positive)
        source.put("actor/head/scale", source.take(found[0], "").ravel(), found[0])
    else:
        kind = settings.get("noise_std_type")
        if kind not in ("scalar", "log"):
            raise pc.errors.FileError(
                "noise_std_type: the std depends on the observation, and a pickle does not say how; load the "
                "folder of a checkpoint"
            )
        scale = pc.Scale(std="state", positive="exp" if kind == "log" else "identity")
        names.append("policy.Dense_1")
    for kind in ("kernel", "bias"):
        leaves = [source.take(f"{name}.{kind}", "") for name in names]
        if kind == "bias" and len(leaves) == 2:
            leaves[1] = leaves[1] - scale.raw
        source.put(f"actor/head/{kind}", np.concatenate(leaves, -1), *(f"{name}.{kind}" for name in names))
    size = source.params["actor/head/bias"].size // len(names)
    fields["action_space"] = pc.Box(shape=(size,))  # Brax does not clip it
    fields["box_head"] = pc.NormalHead(scale)
    return tuple(widths)


def _tower(source: Source, name: str, owner: str, head: bool = True) -> tuple[int, ...]:
    """The layers of an MLP: all but the last into the tower, the last into the head, or all; their widths."""
    count = sum(leaf.startswith(f"{name}.hidden_") and leaf.endswith(".kernel") for leaf in source.left)
    widths = []
    for i in range(count):
        path = f"{owner}/head" if head and i == count - 1 else f"{owner}/tower/hidden_{i}"
        for kind in ("kernel", "bias"):
            leaf = f"{name}.hidden_{i}.{kind}"
            source.put(f"{path}/{kind}", source.take(leaf, ""), leaf)
        widths.append(len(source.params[f"{path}/bias"]))
    if not widths:
        raise pc.errors.FileError(
            f"{name}: it has no layers hidden_0, ...; is it one that Brax calls distributional?"
        )
    return tuple(widths)
