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
_NET = "a2c_network"


def load(
    path: str | os.PathLike[str], *, activation: str = "elu", before_mlp: bool | None = None
) -> Imported:
    """The policy in a checkpoint of an actor-critic of MLPs, perhaps with an LSTM or a GRU.

    Actions are discrete, several discrete ones, or continuous: those of `continuous_a2c_logstd`, whose mean
    has no activation. Running statistics of observations become `Normalize`; those of values are folded into
    the last layer of the critic, whose value is then that of the return. What actor and critic share behind a
    memory (its layer norm, or an MLP) is in both here.

    Args:
        path: the file.
        activation: of the layers, which the file does not say.
        before_mlp: whether the memory is in front of the MLP. None to tell it by the shapes, which is an
            error where both fit.

    Returns:
        The policy, a report of every leaf, and metadata to save with it. Without a critic, if the file has a
        central one, which sees states instead of observations.

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
    inputs = _inputs(source, before_mlp)
    fields: dict[str, Any] = {"observation_space": pc.Box(shape=(inputs,))}
    _networks(source, fields, activation, inputs, before_mlp)
    _actions(source, fields)
    source.linear("critic/head", f"{_NET}.value")
    _values(source)
    if "running_mean_std.running_mean" in source:
        fields["normalize"] = pc.Normalize(clip=_CLIP, epsilon=_EPSILON)
        mean, variance, count = (
            source.take(f"running_mean_std.{name}", f"normalize/{to}")
            for name, to in (("running_mean", "mean"), ("running_var", "variance"), ("count", "count"))
        )
        source.statistics("normalize", mean, variance, float(np.ravel(count)[0]))
    metadata = {
        "imported from": "rl_games", "version": "not in the file",
        "sha256": hashlib.sha256(content).hexdigest(),
    }  # fmt: skip
    found = source.finish(pc.ActorCriticConfig(**fields), metadata)
    if "assymetric_vf_nets" not in value:  # spelt so
        return found
    central = "not carried over: the critic is a central one, which sees states"
    report = {name: central if "critic/" in where else where for name, where in found.report.items()}
    return Imported(pc.actor_only(found.policy), report, metadata)


def _rnn(source: Source) -> str:
    """The name of the memory, of the actor if there are two; "" without one."""
    names = [f"{_NET}.{name}.rnn" for name in ("rnn", "a_rnn")]
    return next((name for name in names if f"{name}.weight_ih_l0" in source), "")


def _inputs(source: Source, before_mlp: bool | None) -> int:
    """The number of observations."""
    if "running_mean_std.running_mean" in source:
        return int(source.left["running_mean_std.running_mean"].shape[0])
    first, rnn = source.layers(f"{_NET}.actor_mlp"), _rnn(source)
    heads = [
        name for name in (f"{_NET}.mu", f"{_NET}.logits", f"{_NET}.logits.0") if f"{name}.weight" in source
    ]
    if rnn and before_mlp is None and first:
        raise pc.errors.FileError(
            "before_mlp: the file has no statistics of observations, by which to tell it"
        )
    name = f"{rnn}.weight_ih_l0" if rnn and (before_mlp or not first) else f"{[*first, *heads, ''][0]}.weight"
    if name not in source:
        raise pc.errors.FileError(
            f"model: it has no layers {_NET}.actor_mlp; there are {sorted(source.left)[:20]}"
        )
    return int(source.left[name].shape[1])


def _networks(
    source: Source, fields: dict[str, Any], activation: str, inputs: int, before_mlp: bool | None
) -> None:
    """What is between the observation and the heads."""
    rnn, separate = (
        _rnn(source),
        bool(source.layers(f"{_NET}.critic_mlp")) or f"{_NET}.a_rnn.rnn.weight_ih_l0" in source,
    )
    mlps = {"actor": f"{_NET}.actor_mlp", "critic": f"{_NET}.critic_mlp" if separate else f"{_NET}.actor_mlp"}
    if not rnn:
        if separate:
            for owner, name in mlps.items():
                fields[owner] = pc.MLP(source.mlp(f"{owner}/tower", name), activation=activation)
            return
        fields["trunk"] = pc.MLP(source.mlp("trunk", mlps["actor"]), activation=activation)
        fields["actor"] = fields["critic"] = pc.MLP(())
        return
    before = _before(source, rnn, inputs, before_mlp)
    fields["memory_sharing"] = "separate" if separate else "shared"
    if not before and separate:
        fields["encoder_sharing"] = "separate"
        for owner, name in mlps.items():
            network = pc.MLP(source.mlp(f"{owner}/encoder", name), activation=activation)
            fields["encoder"] = pc.encoders.Encode(network)
    elif not before:
        fields["trunk"] = pc.MLP(source.mlp("trunk", mlps["actor"]), activation=activation)
    memories = {"actor": "a_rnn", "critic": "c_rnn"} if separate else {"": "rnn"}
    for owner, name in memories.items():
        fields["memory"] = source.memory(f"{owner}/memory".lstrip("/"), f"{_NET}.{name}.rnn")
    norm = f"{_NET}.{'a_' if separate else ''}layer_norm.weight" in source
    for owner, mlp in mlps.items():
        kinds = ["norm"] * norm + ["mlp"] * before
        networks: list[Any] = []
        left, report = dict(source.left), dict(source.report)
        for i, kind in enumerate(kinds):
            path = f"{owner}/tower" + (f"/network_{i}" if len(kinds) > 1 else "")
            if kind == "norm":
                _norm(source, path, f"{_NET}.{f'{owner[0]}_' if separate else ''}layer_norm")
                networks.append(pc.networks.LayerNorm())
            else:
                networks.append(pc.MLP(source.mlp(path, mlp), activation=activation))
        if owner == "actor" and not separate:  # what is shared is taken once, and put in both
            source.left, source.report = left, report
        fields[owner] = (
            pc.networks.Sequential(tuple(networks)) if len(networks) > 1 else [*networks, pc.MLP(())][0]
        )


def _norm(source: Source, path: str, name: str) -> None:
    """A layer norm of torch."""
    for kind, to in (("weight", "scale"), ("bias", "bias")):
        source.put(f"{path}/{to}", source.take(f"{name}.{kind}", ""), f"{name}.{kind}")


def _before(source: Source, rnn: str, inputs: int, before_mlp: bool | None) -> bool:
    """Whether the memory is in front of the MLP."""
    seen, size = (source.left[f"{rnn}.weight_{kind}_l0"].shape[1] for kind in ("ih", "hh"))
    layers = source.layers(f"{_NET}.actor_mlp")
    if not layers:
        return False
    first, last = (source.left[f"{layers[0]}.weight"].shape[1], source.left[f"{layers[-1]}.weight"].shape[0])
    fits = {True: (seen, first) == (inputs, size), False: (first, seen) == (inputs, last)}
    if before_mlp is None and all(fits.values()):
        raise pc.errors.FileError("before_mlp: both orders fit the shapes; say which it is")
    before = fits[True] if before_mlp is None else before_mlp
    if not fits[before]:
        raise pc.errors.FileError(
            f"{rnn}: it has {seen} inputs and {size} outputs, beside an MLP from {first} to {last} and "
            f"{inputs} observations; concatenated inputs and outputs are not known here"
        )
    return before


def _actions(source: Source, fields: dict[str, Any]) -> None:
    """The head, and the action space."""
    if rows := source.layers(f"{_NET}.logits"):
        sizes = [len(source.left[f"{name}.bias"]) for name in rows]
        fields["action_space"] = pc.MultiDiscrete(tuple(sizes))
        _beside(source, rows)
    elif f"{_NET}.logits.weight" in source:
        source.linear("actor/head", f"{_NET}.logits")
        fields["action_space"] = pc.Discrete(len(source.params["actor/head/bias"]))
    else:
        size = len(source.left[f"{_NET}.mu.bias"]) if f"{_NET}.mu.bias" in source else 0
        fields["action_space"] = pc.Box(low=-1.0, high=1.0, shape=(size,))
        if f"{_NET}.sigma.weight" in source:
            fields["box_head"] = pc.NormalHead(pc.Scale(std="state"))
            _beside(source, [f"{_NET}.mu", f"{_NET}.sigma"])
            return
        source.linear("actor/head", f"{_NET}.mu")
        source.put("actor/head/scale", source.take(f"{_NET}.sigma", ""), f"{_NET}.sigma")


def _beside(source: Source, names: list[str]) -> None:
    """Linear layers of the same input, as one."""
    for kind, to in (("weight", "kernel"), ("bias", "bias")):
        leaves = [f"{name}.{kind}" for name in names]
        source.put(
            f"actor/head/{to}", np.concatenate([source.take(leaf, "").T for leaf in leaves], -1), *leaves
        )


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
