"""Policies as graphs: from a config and params to what `act` does."""

from collections.abc import Callable
from typing import Any

from policy_core_adapters.exports.graph import Value
from policy_core_adapters.exports.lowering.autoregressive import dependent
from policy_core_adapters.exports.lowering.choices import choose
from policy_core_adapters.exports.lowering.context import Context, ExportError, only, unsupported
from policy_core_adapters.exports.lowering.encoders import encode
from policy_core_adapters.exports.lowering.memories import Given, memory
from policy_core_adapters.exports.lowering.networks import network
from policy_core_adapters.exports.lowering.observations import Tree, inputs_of, normalize, paths, view
from policy_core_adapters.exports.lowering.parts import Chosen, Head
from policy_core_adapters.exports.lowering.values import value_of
from policy_core_adapters.numpy_runner.heads import Heads
from policy_core_adapters.numpy_runner.networks import Array, shaped
from policy_core_adapters.numpy_runner.policies import FIELDS

OUTPUTS = ("action", "policy_action", "value", "log_prob", "distribution")


class Request:
    """What is asked for of a policy.

    Args:
        outputs: some of `OUTPUTS`.
        is_first: whether there is an input of that name, which resets the state.
    """

    def __init__(self, outputs: tuple[str, ...], is_first: bool) -> None:
        self.outputs, self.is_first = outputs, is_first
        self.initial: dict[str, Array] = {}


def lower_policy(c: Context, config: Any, params: Any, request: Request) -> None:
    """Add the policy of a config to a graph, its inputs and outputs."""
    if config["type"] not in POLICIES:
        unsupported("policy", config["type"])
    POLICIES[config["type"]](c, config["fields"], params, request)


def _actor_critic(c: Context, fields: Any, params: Any, request: Request) -> None:
    only(fields, "ActorCriticConfig", *FIELDS)
    _check_dtypes(fields, params)
    if fields["actor"] is None:
        raise ExportError("actor: the policy has none, so it cannot act; it was made by `critic_only`")
    valued = "value" in request.outputs
    if valued and fields["critic"] is None:
        raise ExportError("outputs: the value was asked for, and the policy has no critic")
    features = _features(c, fields, params, valued)
    is_first = None
    if request.is_first and fields["memory"] is not None:
        is_first = c.graph.input("is_first", (), "bool")
    features = _remember(c, fields, params, request, features, is_first)
    x = network(c, fields["actor"], params["actor"].get("tower", {}), features["actor"])
    chosen = _choose(c, fields, params, x)
    _outputs(c, request, chosen)
    if valued:
        y = network(c, fields["critic"], params["critic"].get("tower", {}), features["critic"])
        c.graph.output("value", value_of(c, fields["value_head"], params["critic"]["head"], y))


def _check_dtypes(fields: Any, params: Any) -> None:
    if fields["compute_dtype"] != "float32":
        raise ExportError(
            f"compute_dtype: {fields['compute_dtype']} is carried by no export, which compute in float32; "
            "act with JAX, or make the policy with compute_dtype='float32'"
        )
    for path, dtype in params.unused.items():
        if dtype not in ("float32", "bfloat16", "float16"):
            raise ExportError(
                f"leaves: {path!r} is {dtype}, which no export carries; load the file with "
                "policy_core.load(path, narrow=True) and save it again"
            )


def _features(c: Context, fields: Any, params: Any, valued: bool) -> dict[str, Value]:
    """What actor and critic see, before the memories."""
    space, config = fields["observation_space"], fields["encoder"]
    owners = ("actor", "critic") if valued else ("actor",)
    keys = {owner: fields[f"{owner}_keys"] for owner in ("actor", "critic")}
    apart = keys != {"actor": None, "critic": None} or fields["encoder_sharing"] == "separate"
    observation: Tree
    if not apart:
        observation = normalize(
            c, space, fields["normalize"], params.get("normalize", {}), inputs_of(c, space)
        )
        x = c.join(encode(c, config, space, params.get("encoder", {}), observation))
        if fields["trunk"] is not None:
            x = network(c, fields["trunk"], params.get("trunk", {}), x)
        return {"actor": x, "critic": x}
    names = None
    if not any(keys[owner] is None for owner in owners):
        names = sorted({name for owner in owners for name in keys[owner]})
    seen = view(space, names)
    observation = normalize(c, seen, fields["normalize"], params.get("normalize", {}), inputs_of(c, seen))
    return {
        owner: c.join(
            encode(c, config, view(space, keys[owner]), params[owner].get("encoder", {}), observation)
        )
        for owner in owners
    }


def _remember(
    c: Context, fields: Any, params: Any, request: Request, features: dict[str, Value], is_first: Value | None
) -> dict[str, Value]:
    """The features behind the memories, whose states become inputs and outputs."""
    data, sharing = fields["memory"], fields["memory_sharing"]
    if data is None:
        return features
    features = dict(features)
    owners = {"separate": ("actor", "critic"), "actor": ("actor",), "shared": ("shared",)}[sharing]
    for owner in owners:
        if owner not in features and owner != "shared":
            continue  # the critic's, and no value was asked for
        given = Given(c, f"state/{owner}", request.initial, is_first)
        part = (params if owner == "shared" else params[owner]).get("memory", {})
        state, y = memory(given, data, part, features["actor" if owner == "shared" else owner])
        for path, leaf in paths(state, f"next_state/{owner}").items():
            c.graph.output(path, leaf)
        features.update(dict.fromkeys(("actor", "critic") if owner == "shared" else (owner,), y))
    return features


def _choose(c: Context, fields: Any, params: Any, x: Value) -> Chosen:
    temperature = None if fields["temperature"] is None else float(shaped(params["temperature"]))
    if temperature is not None and not temperature > 0:
        raise ExportError(f"temperature: got {temperature}, expected a positive number")
    given = fields["heads"]
    if given is not None and given["type"] != "policy_core/PartHeads":
        unsupported("heads", given["type"])
    heads = Heads(fields["box_head"], fields["discrete_head"], given)
    head = Head(c, fields["action_space"], heads, params["actor"]["head"], x, temperature, "")
    return choose(head) if fields["autoregressive"] is None else dependent(head, fields["autoregressive"])


def _outputs(c: Context, request: Request, chosen: Chosen) -> None:
    trees = {"action": chosen.env, "policy_action": chosen.policy, "distribution": chosen.distribution}
    for name, tree in trees.items():
        if name in request.outputs:
            for path, value in paths(tree, name).items():
                c.graph.output(path, value)
    if "log_prob" in request.outputs:
        c.graph.output("log_prob", chosen.log_prob())


def _in_env_actions(c: Context, fields: Any, params: Any, request: Request) -> None:
    """The action of a graph is the environment action in any case."""
    only(fields, "InEnvActions", "config")
    if asked := {"log_prob", "policy_action"} & set(request.outputs):
        raise ExportError(
            f"outputs: {sorted(asked)[0]} of InEnvActions is carried by no export; its action is the "
            "environment action"
        )
    lower_policy(c, fields["config"], params, request)


POLICIES: dict[str, Callable[[Context, Any, Any, Request], None]] = {
    "policy_core/ActorCriticConfig": _actor_critic,
    "policy_core/InEnvActions": _in_env_actions,
}
