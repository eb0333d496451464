"""Policies as params of Brax: `dump` of `policy_core_adapters.imports.brax`."""

import importlib
import math
from typing import Any, NamedTuple

import numpy as np

import policy_core as pc

ACTIVATIONS = {
    "silu": "silu", "swish": "silu", "relu": "relu", "tanh": "tanh", "elu": "elu", "selu": "selu",
    "gelu": "gelu", "leaky_relu": "leaky_relu", "sigmoid": "sigmoid", "softplus": "softplus",
    "linear": "identity",
}  # fmt: skip
# What `NormalTanhDistribution` has.
SCALE = pc.Scale(std="state", positive="softplus", min_std=0.001, log_std=math.log(math.log(2) + 0.001))


class Dumped(NamedTuple):
    """A policy for Brax.

    Args:
        params: what `ppo.train` returns: statistics, policy and value; without value if there is no critic.
        network: the arguments of `ppo.networks.make_ppo_networks`, but for `preprocess_observations_fn`,
            which is `running_statistics.normalize`.
    """

    params: tuple[Any, ...]
    network: dict[str, Any]


def dump(policy: Any) -> Dumped:
    """A policy as params of Brax, whose own inference function then acts the same.

    Args:
        policy: a pair whose config Brax can express: towers of `MLP` with one activation, no memory,
            observations that are one vector or a `Dict` of vectors of which each tower sees one, and a
            `SquashedNormalHead` over [-1, 1] with `Scale(std="state", positive="softplus", min_std=0.001)`,
            whatever its initial `log_std`.

    Returns:
        Params and arguments of the networks. `statistics` are those of `Normalize`, or mean 0 and std 1.

    Raises:
        ConfigError: for a field that Brax cannot express, by its name.
        ImportError: without Brax.

    Example:
        >>> from policy_core_adapters.imports import brax  # doctest: +SKIP
        >>> params, network = brax.dump(policy)  # doctest: +SKIP
        >>> networks = make_ppo_networks(
        ...     **network, preprocess_observations_fn=running_statistics.normalize
        ... )  # doctest: +SKIP
        >>> act = make_inference_fn(networks)(params, deterministic=True)  # doctest: +SKIP
    """
    statistics: Any = importlib.import_module("brax.training.acme.running_statistics")
    uint64: Any = importlib.import_module("brax.training.types").UInt64
    config = policy[1]
    network = _network(config)
    leaves = {name: np.asarray(leaf) for name, leaf in pc.surgery.leaves(policy).items()}
    moments: dict[str, dict[str, Any]] = {"mean": {}, "std": {}, "count": {}}
    for key, space in _vectors(config.observation_space).items():
        path = f"normalize/{key}".rstrip("/")
        known = f"{path}/mean" in leaves
        mean, variance, count = (
            np.sum(leaves[f"{path}/{name}"].astype(np.float64), 0) if known else np.full(space.shape, one)
            for name, one in (("mean", 0.0), ("variance", 1.0), ("count", 0.0))
        )
        form = config.normalize or pc.Normalize()
        std = np.sqrt(np.maximum(variance, 0) + (form.epsilon if form.form == "variance" and known else 0))
        std = np.maximum(std, form.min_std) + (form.epsilon if form.form == "std" and known else 0)
        moments["mean"][key], moments["std"][key], moments["count"][key] = mean, std, count
    total = int(max(np.max(count, initial=0) for count in moments["count"].values()))

    def parts(name: str) -> Any:
        values = {key: np.float32(value) for key, value in moments[name].items()}
        return values[""] if set(values) == {""} else values

    moments["summed"] = {key: np.square(std) * total for key, std in moments["std"].items()}
    state = statistics.RunningStatisticsState(
        count=uint64(hi=total >> 32, lo=total & 0xFFFFFFFF),
        mean=parts("mean"), std=parts("std"), summed_variance=parts("summed"),
    )  # fmt: skip
    bias = leaves["actor/head/bias"].astype(np.float64)
    size = len(bias) // 2
    raw = config.box_head.scale.raw
    leaves["actor/head/bias"] = np.concatenate([bias[:size], bias[size:] + raw]).astype(np.float32)
    owners = ("actor",) if config.critic is None else ("actor", "critic")
    return Dumped(
        (state, *(_module(leaves, owner, getattr(config, owner).hidden) for owner in owners)), network
    )


def _module(leaves: dict[str, Any], owner: str, hidden: tuple[int, ...]) -> dict[str, Any]:
    paths = [*(f"{owner}/tower/hidden_{i}" for i in range(len(hidden))), f"{owner}/head"]
    layers = {
        f"hidden_{i}": {kind: leaves[f"{path}/{kind}"] for kind in ("kernel", "bias")}
        for i, path in enumerate(paths)
    }
    return {"params": layers}


def _vectors(space: Any) -> dict[str, Any]:
    """The vectors of an observation, by name; "" for one that is not in parts."""
    return dict(space.spaces) if isinstance(space, pc.Dict) else {"": space}


def _network(config: Any) -> dict[str, Any]:
    """The arguments of `make_ppo_networks`."""

    def expect(name: str, fits: bool, expected: str) -> None:
        if not fits:
            raise pc.errors.ConfigError(f"{name}: got {getattr(config, name)!r}; Brax has {expected}")

    if not isinstance(config, pc.ActorCriticConfig):
        raise pc.errors.ConfigError(f"config: got {type(config).__name__}, expected an ActorCriticConfig")
    for name in ("trunk", "memory", "temperature", "autoregressive"):
        expect(name, getattr(config, name) is None, "none")
    parts = _vectors(config.observation_space)
    floats = all(
        isinstance(part, pc.Box) and part.is_float and len(part.shape) == 1 for part in parts.values()
    )
    expect("observation_space", floats, "vectors of floats, one or several by name")
    space: Any = config.action_space
    fits = isinstance(space, pc.Box) and len(space.shape) == 1 and (space.low, space.high) == (-1.0, 1.0)
    expect("action_space", fits, "vectors in [-1, 1]")
    expect("encoder", config.encoder == pc.Flatten(), "none but Flatten()")
    head: Any = config.box_head
    plain = isinstance(head, pc.SquashedNormalHead) and head.mean_bound is None
    same = plain and all(
        getattr(head.scale, name) == getattr(SCALE, name)
        for name in ("std", "positive", "min_std", "factor", "bounding", "low", "high")
    )
    expect("box_head", same, f"SquashedNormalHead({SCALE!r}), with any log_std")
    expect("value_head", config.value_head == pc.RegressionHead(), "RegressionHead()")
    expect(
        "normalize", config.normalize is None or math.isinf(config.normalize.clip), "no clipping: clip=inf"
    )
    towers = {
        name: getattr(config, name) for name in ("actor", "critic") if getattr(config, name) is not None
    }
    names = {value: name for name, value in ACTIVATIONS.items()} | {"silu": "silu"}
    for name, tower in towers.items():
        simple = isinstance(tower, pc.MLP) and not tower.layer_norm and tower.bias
        simple = simple and tower.activation == towers["actor"].activation and tower.activation in names
        expect(
            name,
            simple,
            "an MLP with biases and without layer norm, of one of its activations, the same for both",
        )
    actor: Any = config.actor
    flax: Any = importlib.import_module("brax.training.networks")
    result: dict[str, Any] = {
        "observation_size": parts[""].shape[0] if "" in parts else {k: x.shape for k, x in parts.items()},
        "action_size": space.shape[0],
        "policy_hidden_layer_sizes": actor.hidden,
        "activation": flax.ACTIVATION[names[actor.activation]],
    }  # fmt: skip
    if config.critic is not None:
        result["value_hidden_layer_sizes"] = towers["critic"].hidden
    if "" not in parts:
        for owner, network in (("actor", "policy"), ("critic", "value")):
            keys = getattr(config, f"{owner}_keys") or tuple(parts)
            if owner in towers:
                expect(f"{owner}_keys", len(keys) == 1, "one part for each network")
                result[f"{network}_obs_key"] = keys[0]
    return result
