"""Policies in NumPy: from a config and params to a runner."""

from __future__ import annotations  # evaluating np.random.Generator would import np.random

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from policy_core_adapters.numpy_runner.autoregressive import MaskFunction, dependent
from policy_core_adapters.numpy_runner.encoders import encoder_of
from policy_core_adapters.numpy_runner.heads import Choice, choice_of
from policy_core_adapters.numpy_runner.memory import Memory, memory_of
from policy_core_adapters.numpy_runner.networks import NETWORKS, Array, find, only
from policy_core_adapters.numpy_runner.runner import Runner
from policy_core_adapters.numpy_runner.spaces import normalizer_of
from policy_core_adapters.numpy_runner.values import value_of


class Given(NamedTuple):
    """Functions of the user, which a file refers to by name."""

    activations: dict[str, Callable[[Array], Array]]
    mask_functions: dict[str, MaskFunction]


def _actor_critic(fields: dict[str, Any], params: dict[str, Any], given: Given) -> Runner:
    known = "observation_space action_space actor critic trunk box_head temperature actor_gain critic_gain"
    added = "memory memory_sharing autoregressive normalize encoder actor_keys critic_keys value_head"
    only(fields, "ActorCriticConfig", *known.split(), *added.split(), "param_dtype", "compute_dtype")
    if fields["compute_dtype"] not in ("float32", "float64"):
        raise ValueError(f"compute_dtype: {fields['compute_dtype']} is not what NumPy computes in; use JAX")
    dtype = np.dtype(fields["compute_dtype"])

    def network(data: Any, at: Any) -> Any:
        return find(NETWORKS, data, "network")(data["fields"], at, dtype, given.activations)

    features = _features(fields, params, dtype, network)
    actor = network(fields["actor"], params["actor"].get("tower", {}))
    memories = _memories(fields, params, dtype)
    choice = _choice(fields, params, dtype, network, given)
    if fields["critic"] is None:
        return Runner(features, actor, choice, _no_critic, memories)
    critic = network(fields["critic"], params["critic"].get("tower", {}))
    value = value_of(fields.get("value_head"), params["critic"]["head"], dtype)
    return Runner(features, actor, choice, lambda x: value(critic(x)), memories)


def _features(
    fields: dict[str, Any], params: dict[str, Any], dtype: Any, network: Any
) -> Callable[[Any], tuple[Array, Array]]:
    """The function from an observation to the features of actor and critic, before the memories."""
    space, config = fields["observation_space"], fields["encoder"]
    normalize: Callable[[Any], Any] = lambda observation: observation  # noqa: E731
    if fields["normalize"] is not None:
        normalize = normalizer_of(space, fields["normalize"], params.get("normalize", {}))
    keys = fields["actor_keys"], fields["critic_keys"]
    if keys != (None, None):
        by_actor, by_critic = (
            encoder_of(config, _view(space, names), params[branch].get("encoder", {}), dtype)
            for branch, names in zip(("actor", "critic"), keys, strict=True)
        )

        def separate(observation: Any) -> tuple[Array, Array]:
            observation = normalize(observation)
            return by_actor(observation), by_critic(observation)

        return separate
    encode = encoder_of(config, space, params.get("encoder", {}), dtype)
    trunk = network(fields["trunk"], params["trunk"]) if fields["trunk"] is not None else None

    def shared(observation: Any) -> tuple[Array, Array]:
        x = encode(normalize(observation))
        x = x if trunk is None else trunk(x)
        return x, x

    return shared


def _view(space: Any, names: list[str] | None) -> Any:
    """The `Dict` space with only the named parts; None for all."""
    parts = space["fields"]["spaces"]
    kept = [part for part in parts if names is None or part[0] in names]
    return {**space, "fields": {"spaces": kept}}


def _no_critic(_: Array) -> Any:
    raise ValueError("value: the policy has no critic; it was made by `actor_only`")


def _memories(fields: dict[str, Any], params: dict[str, Any], dtype: Any) -> dict[str, Memory]:
    """The memories by branch: `shared`, or `actor` and `critic`."""
    data, sharing = fields["memory"], fields["memory_sharing"]
    if data is None:
        return {}
    if sharing == "shared":
        return {"shared": memory_of(data, params["memory"], dtype)}
    branches = {"separate": ("actor", "critic"), "actor": ("actor",)}[sharing]
    return {branch: memory_of(data, params[branch]["memory"], dtype) for branch in branches}


def _choice(fields: dict[str, Any], params: dict[str, Any], dtype: Any, network: Any, given: Given) -> Choice:
    """The `Choice` of the action space."""
    temperature = None if fields["temperature"] is None else float(params["temperature"])
    space, box_head, head = fields["action_space"], fields["box_head"], params["actor"]["head"]
    dependence = fields["autoregressive"]
    if dependence is None:
        return choice_of(space, box_head, head, dtype, temperature)
    if dependence["type"] != "policy_core/Autoregressive":
        raise ValueError(f"autoregressive: this runner does not support {dependence['type']!r}")
    inner = dependence["fields"]

    def part_network(part_params: Any) -> Any:
        return network(inner["network"], part_params)

    return dependent(space, box_head, inner, head, dtype, temperature, part_network, given.mask_functions)


POLICIES: dict[str, Callable[..., Runner]] = {"policy_core/ActorCriticConfig": _actor_critic}
