"""Policies in NumPy: from a config and params to a runner."""

from __future__ import annotations  # to evaluate np.random.Generator imports all of np.random

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from policy_core_adapters.numpy_runner.autoregressive import MaskFunction, dependent
from policy_core_adapters.numpy_runner.choices import Choice
from policy_core_adapters.numpy_runner.encoders import encoder_of
from policy_core_adapters.numpy_runner.heads import Heads, choice_of
from policy_core_adapters.numpy_runner.memory import Memory, memory_of
from policy_core_adapters.numpy_runner.networks import NETWORKS, Array, find, only, shaped
from policy_core_adapters.numpy_runner.runner import Runner
from policy_core_adapters.numpy_runner.spaces import checked_of, normalizer_of
from policy_core_adapters.numpy_runner.values import value_of

FIELDS = (
    "observation_space", "action_space", "actor", "critic", "actor_keys", "critic_keys", "trunk", "encoder",
    "encoder_sharing", "normalize", "memory", "memory_sharing", "box_head", "discrete_head", "heads",
    "autoregressive", "temperature", "actor_gain", "critic_gain", "value_head", "param_dtype",
    "compute_dtype", "name",
)  # fmt: skip
"""Of an `ActorCriticConfig`, all of which a file has."""


class Given(NamedTuple):
    """What a file names and does not hold."""

    activations: dict[str, Callable[[Array], Array]]
    mask_functions: dict[str, MaskFunction]


def _actor_critic(fields: dict[str, Any], params: dict[str, Any], given: Given) -> Runner:
    only(fields, "ActorCriticConfig", *FIELDS)
    if fields["compute_dtype"] not in ("float32", "float64"):
        raise ValueError(f"compute_dtype: {fields['compute_dtype']} is not what NumPy computes in; use JAX")
    if fields["actor"] is None:
        raise ValueError("actor: the policy has no actor, so it cannot act; it was made by `critic_only`")
    dtype = np.dtype(fields["compute_dtype"])

    _check_dtypes(fields["param_dtype"], params)

    def network(data: Any, at: Any, inputs: int) -> Any:
        return find(NETWORKS, data, "network")(data["fields"], at, inputs, dtype, given.activations)

    features, sizes = _features(fields, params, dtype, network)
    memories = _memories(fields, params, sizes, dtype)
    for owner, memory in memories.items():
        sizes.update(dict.fromkeys(("actor", "critic") if owner == "shared" else (owner,), memory.size))
    actor, size = network(fields["actor"], params["actor"].get("tower", {}), sizes["actor"])
    choice = _choice(fields, params, size, dtype, network, given)
    if fields["critic"] is None:
        return Runner(features, actor, choice, _no_critic, memories)
    critic, size = network(fields["critic"], params["critic"].get("tower", {}), sizes["critic"])
    value = value_of(fields["value_head"], params["critic"]["head"], size, dtype)
    return Runner(features, actor, choice, lambda x: value(critic(x)), memories)


def _check_dtypes(dtype: str, params: Any) -> None:
    """Raise ValueError for a leaf of another dtype than the config asks for."""
    for path, got in params.unused.items():
        if path == "temperature" or path.startswith(("normalize/", "critic/head/statistics/")):
            expected: tuple[str, ...] = ("float32", "float64") if path != "temperature" else ("float32",)
        else:
            expected = (dtype,)
        if got not in expected:
            raise ValueError(f"leaves: {path!r} is {got}, expected {expected[0]}")


def _features(
    fields: dict[str, Any], params: dict[str, Any], dtype: Any, network: Any
) -> tuple[Callable[[Any], tuple[Array, Array]], dict[str, int]]:
    """From an observation to the inputs of actor and critic, and their dimensions."""
    space, config = fields["observation_space"], fields["encoder"]
    checked = prepared = checked_of(space)
    if fields["normalize"] is not None:
        normalize = normalizer_of(space, fields["normalize"], params.get("normalize", {}))
        prepared = lambda observation: normalize(checked(observation))  # noqa: E731
    keys = fields["actor_keys"], fields["critic_keys"]
    if keys != (None, None) or fields["encoder_sharing"] == "separate":
        (by_actor, a), (by_critic, b) = (
            encoder_of(
                config,
                space if keys == (None, None) else _view(space, names),
                params[owner].get("encoder", {}),
                dtype,
            )
            for owner, names in zip(("actor", "critic"), keys, strict=True)
        )

        def two(observation: Any) -> tuple[Array, Array]:
            observation = prepared(observation)
            return by_actor(observation), by_critic(observation)

        return two, {"actor": a, "critic": b}
    encode, size = encoder_of(config, space, params.get("encoder", {}), dtype)
    trunk = None
    if fields["trunk"] is not None:
        trunk, size = network(fields["trunk"], params.get("trunk", {}), size)

    def one(observation: Any) -> tuple[Array, Array]:
        x = encode(prepared(observation))
        x = x if trunk is None else trunk(x)
        return x, x

    return one, {"actor": size, "critic": size}


def _view(space: Any, names: list[str] | None) -> Any:
    """The space of the parts of a `Dict` that are inputs of the actor or the critic."""
    parts = space["fields"]["spaces"]
    seen = [part for part in parts if names is None or part[0] in names]
    return {**space, "fields": {"spaces": seen}}


def _no_critic(_: Array) -> Any:
    raise ValueError("value: the policy has no critic; it was made by `actor_only`")


def _memories(
    fields: dict[str, Any], params: dict[str, Any], sizes: dict[str, int], dtype: Any
) -> dict[str, Memory]:
    """The memories by owner, for inputs of those dimensions."""
    data, sharing = fields["memory"], fields["memory_sharing"]
    if data is None:
        return {}
    if sharing == "shared":
        return {"shared": memory_of(data, params["memory"], sizes["actor"], dtype)}
    owners = {"separate": ("actor", "critic"), "actor": ("actor",)}[sharing]
    return {owner: memory_of(data, params[owner]["memory"], sizes[owner], dtype) for owner in owners}


def _choice(
    fields: dict[str, Any], params: dict[str, Any], inputs: int, dtype: Any, network: Any, given: Given
) -> Choice:
    """How an action is chosen from the features of the actor."""
    temperature = None if fields["temperature"] is None else float(shaped(params["temperature"]))
    space, head = fields["action_space"], params["actor"]["head"]
    heads = Heads(fields["box_head"], fields["discrete_head"], fields["heads"])
    dependence = fields["autoregressive"]
    if dependence is None:
        return choice_of(space, heads, head, inputs, dtype, temperature)
    if dependence["type"] != "policy_core/Autoregressive":
        raise ValueError(f"autoregressive: this runner does not support {dependence['type']!r}")
    inner = dependence["fields"]

    def between(at: Any, inputs: int) -> Any:
        return network(inner["network"], at, inputs)

    return dependent(space, heads, inner, head, inputs, dtype, temperature, between, given.mask_functions)


def _in_env_actions(fields: dict[str, Any], params: dict[str, Any], given: Given) -> Runner:
    """The actions of a runner are environment actions in any case."""
    only(fields, "InEnvActions", "config")
    runner: Runner = find(POLICIES, fields["config"], "policy")(fields["config"]["fields"], params, given)
    return runner


POLICIES: dict[str, Callable[..., Runner]] = {
    "policy_core/ActorCriticConfig": _actor_critic,
    "policy_core/InEnvActions": _in_env_actions,
}
