"""Policies of rl_games, as IsaacGymEnvs and Isaac Lab train them: `load("nn/run.pth")`."""

import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np

import policy_core as pc
from policy_core_adapters.imports.pickles import load_torch
from policy_core_adapters.imports.report import Imported, Source

_EPSILON, _CLIP = 1e-5, 5.0  # of RunningMeanStd


def load(path: str | os.PathLike[str], *, activation: str = "elu") -> Imported:
    """The policy in a checkpoint of an actor-critic of MLPs, separate or shared, discrete or continuous.

    Running statistics of observations become `Normalize`; those of values are folded into the last layer of
    the critic, whose value is then that of the return.

    Args:
        path: the file.
        activation: of the layers, which the file does not say.

    Returns:
        The policy, a report of every leaf, and metadata to save with it.

    Raises:
        FileError: for a file that is damaged, or asks for anything that is not data; for a layer that is not
            known here, by its name.
    """
    content = Path(path).read_bytes()
    value = load_torch(content)
    state = value.get("model") if isinstance(value, dict) else None
    if not isinstance(state, dict):
        raise pc.errors.FileError("the file is no checkpoint of rl_games: it has no 'model'")
    source = Source({str(name): leaf for name, leaf in state.items() if isinstance(leaf, np.ndarray)})
    net = "a2c_network"
    first = source.layers(f"{net}.actor_mlp")
    inputs = source.left[f"{first[0] if first else f'{net}.value'}.weight"].shape[1]
    fields: dict[str, Any] = {"observation_space": pc.Box(shape=(inputs,))}
    if source.layers(f"{net}.critic_mlp"):
        fields["actor"] = pc.MLP(source.mlp("actor/tower", f"{net}.actor_mlp"), activation=activation)
        fields["critic"] = pc.MLP(source.mlp("critic/tower", f"{net}.critic_mlp"), activation=activation)
    else:
        fields["trunk"] = pc.MLP(source.mlp("trunk", f"{net}.actor_mlp"), activation=activation)
        fields["actor"] = fields["critic"] = pc.MLP(())
    if f"{net}.logits.weight" in source:
        source.linear("actor/head", f"{net}.logits")
        fields["action_space"] = pc.Discrete(len(source.params["actor/head/bias"]))
    else:
        source.linear("actor/head", f"{net}.mu")
        size = len(source.params["actor/head/bias"])
        fields["action_space"] = pc.Box(low=-1.0, high=1.0, shape=(size,))
        source.put("actor/head/scale", source.take(f"{net}.sigma", ""), f"{net}.sigma")
    source.linear("critic/head", f"{net}.value")
    _values(source)
    if "running_mean_std.running_mean" in source:
        fields["normalize"] = pc.Normalize(clip=_CLIP, epsilon=_EPSILON)
        moments = [
            source.take(f"running_mean_std.{name}", f"normalize/{to}")
            for name, to in (("running_mean", "mean"), ("running_var", "variance"), ("count", "count"))
        ]
        for name, pair in pc.Normalize.statistics(
            moments[0], moments[1], float(np.ravel(moments[2])[0])
        ).items():
            source.put(f"normalize/{name}", pair)
    metadata = {"imported from": "rl_games", "sha256": hashlib.sha256(content).hexdigest()}
    return source.finish(pc.ActorCriticConfig(**fields), metadata)


def _values(source: Source) -> None:
    """Fold the statistics of values into the last layer: v * sqrt(variance + epsilon) + mean."""
    if "value_mean_std.running_mean" not in source:
        return
    mean, variance = (
        source.take(f"value_mean_std.{name}", "folded into critic/head").astype(np.float64)
        for name in ("running_mean", "running_var")
    )
    source.take("value_mean_std.count", "not needed: the critic of the policy is not normalized")
    scale = np.sqrt(variance + _EPSILON)
    kernel, bias = source.params["critic/head/kernel"], source.params["critic/head/bias"]
    source.params["critic/head/kernel"] = kernel * scale
    source.params["critic/head/bias"] = bias * scale + mean
