"""Policies of Brax and MuJoCo Playground, trained by `ppo.train`: `load("params")`."""

import hashlib
import math
import os
from pathlib import Path
from typing import Any

import numpy as np

import policy_core as pc
from policy_core_adapters.imports.pickles import Object
from policy_core_adapters.imports.pickles import load as load_pickle
from policy_core_adapters.imports.report import Imported, Source


def load(path: str | os.PathLike[str], *, activation: str = "silu") -> Imported:
    """The policy in a pickle of `(statistics, policy)` or `(statistics, policy, value)`.

    As `brax.io.model.save_params` writes it: a squashed normal over [-1, 1] with std = softplus(raw) + 0.001,
    behind a normalization by mean and std.

    Args:
        path: the file.
        activation: of the layers, which the file does not say; Brax has swish by default, which is "silu".

    Returns:
        The policy, without a critic if the file has none, a report of every leaf, and metadata to save.

    Raises:
        FileError: for a file that is damaged, or asks for anything that is not data; for observations in
            parts.
    """
    content = Path(path).read_bytes()
    value = load_pickle(content)
    if not isinstance(value, tuple | list) or not 2 <= len(value) <= 3:
        raise pc.errors.FileError("the file is no tuple of statistics, policy and perhaps value")
    statistics = value[0].state if isinstance(value[0], Object) else value[0]
    if not isinstance(statistics, dict) or not isinstance(statistics.get("mean"), np.ndarray):
        raise pc.errors.FileError(
            "statistics: they are of observations in parts, or none, which is not known here"
        )
    leaves = {f"statistics.{name}": leaf for name, leaf in statistics.items() if isinstance(leaf, np.ndarray)}
    leaves |= _layers(value[1], "policy")
    if len(value) == 3:
        leaves |= _layers(value[2], "value")
    source = Source(leaves)
    # `raw` is what `Scale` adds to the output of the head: it is taken off the bias.
    scale = pc.Scale(std="state", positive="softplus", min_std=0.001, log_std=math.log(math.log(2) + 0.001))
    widths, outputs = _tower(source, "policy", "actor")
    size = outputs // 2
    bias = source.params["actor/head/bias"].astype(np.float64)
    source.params["actor/head/bias"] = np.concatenate([bias[:size], bias[size:] - scale.raw])
    count = source.take("statistics.count", "normalize/count")
    mean, std = (source.take(f"statistics.{name}", to) for name, to in (
        ("mean", "normalize/mean"), ("std", "normalize/variance")
    ))  # fmt: skip
    for name in [name for name in source.left if name.startswith("statistics.")]:
        source.take(name, "not needed: std is known")
    pairs = pc.Normalize.statistics(mean, np.square(std.astype(np.float64)), float(np.ravel(count)[0]))
    for name, pair in pairs.items():
        source.put(f"normalize/{name}", pair)
    fields: dict[str, Any] = {
        "observation_space": pc.Box(shape=mean.shape),
        "action_space": pc.Box(low=-1.0, high=1.0, shape=(size,)),
        "actor": pc.MLP(widths, activation=activation),
        "critic": None,
        "box_head": pc.SquashedNormalHead(scale),
        "normalize": pc.Normalize(clip=math.inf, epsilon=1e-30),
    }
    if len(value) == 3:
        fields["critic"] = pc.MLP(_tower(source, "value", "critic")[0], activation=activation)
    metadata = {"imported from": "Brax", "sha256": hashlib.sha256(content).hexdigest()}
    return source.finish(pc.ActorCriticConfig(**fields), metadata)


def _layers(value: Any, name: str) -> dict[str, Any]:
    """The leaves of an MLP of flax, by name."""
    value = value.state if isinstance(value, Object) and isinstance(value.state, dict) else value
    value = value.args[0] if isinstance(value, Object) and value.args else value
    params = value.get("params", value) if isinstance(value, dict) else None
    if not isinstance(params, dict) or not all(isinstance(layer, dict) for layer in params.values()):
        raise pc.errors.FileError(f"{name}: it is no MLP of flax")
    return {f"{name}.{layer}.{kind}": leaf for layer, part in params.items() for kind, leaf in part.items()}


def _tower(source: Source, name: str, owner: str) -> tuple[tuple[int, ...], int]:
    """The layers of an MLP: all but the last into the tower, the last into the head."""
    count = sum(leaf.startswith(f"{name}.hidden_") and leaf.endswith(".kernel") for leaf in source.left)
    widths = []
    for i in range(count):
        path = f"{owner}/tower/hidden_{i}" if i < count - 1 else f"{owner}/head"
        for kind in ("kernel", "bias"):
            leaf = f"{name}.hidden_{i}.{kind}"
            source.put(f"{path}/{kind}", source.take(leaf, ""), leaf)
        widths.append(len(source.params[f"{path}/bias"]))
    if not widths:
        raise pc.errors.FileError(f"{name}: it has no layers hidden_0, ...")
    return tuple(widths[:-1]), widths[-1]
