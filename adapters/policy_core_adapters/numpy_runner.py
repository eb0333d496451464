r"""Policy files on NumPy and msgpack alone: for a robot, or a game server.

    runner = load("cartpole.msgpack")
    state = runner.reset()
    state, action = runner.act(state, observation)  # deterministic
    state, action = runner.act(state, observation, rng=rng, action_mask=mask)  # a draw

Neither JAX nor policy_core is imported. The file is verified as docs/file-format.md says; what
the config asks for and this runner does not know is an error, never left out. Encoders, networks,
memories, heads, value heads and policies are found by the name of their class in `ENCODERS`,
`NETWORKS`, `MEMORIES`, `HEADS`, `VALUES` and `POLICIES`: add a function there for one of your own.
"""

from __future__ import annotations  # to evaluate np.random.Generator imports all of np.random

import hashlib
import math
import os
from collections.abc import Callable
from typing import Any, NamedTuple

import msgpack
import numpy as np

from policy_core_adapters.numpy_autoregressive import MaskFunction, dependent
from policy_core_adapters.numpy_encoders import ENCODERS as ENCODERS
from policy_core_adapters.numpy_encoders import encoder_of
from policy_core_adapters.numpy_heads import HEADS as HEADS
from policy_core_adapters.numpy_heads import Choice, choice_of
from policy_core_adapters.numpy_memory import MEMORIES as MEMORIES
from policy_core_adapters.numpy_memory import Memory, memory_of
from policy_core_adapters.numpy_networks import ACTIVATIONS, NETWORKS, Array, find, only
from policy_core_adapters.numpy_spaces import normaliser_of
from policy_core_adapters.numpy_values import VALUES as VALUES
from policy_core_adapters.numpy_values import value_of


class Given(NamedTuple):
    """What a file names and does not hold."""

    activations: dict[str, Callable[[Array], Array]]
    mask_functions: dict[str, MaskFunction]


class Runner:
    """A loaded policy: `reset`, `act`, `value`.

    Args:
        features: `observation -> two vectors`, what actor and critic see, before the memories.
        actor: from that, or the output of the memory, to the features of the head.
        choice: how the head chooses.
        critic: from what it sees, or the output of the memory, to the value: a float, or an array.
        memories: `shared`, or `actor` and perhaps `critic`; none for a policy without.
    """

    def __init__(
        self,
        features: Callable[[Any], tuple[Array, Array]],
        actor: Callable[[Array], Array],
        choice: Choice,
        critic: Callable[[Array], Any],
        memories: dict[str, Memory] | None = None,
    ) -> None:
        self._features, self._actor, self._choice, self._critic = features, actor, choice, critic
        self._memories = memories or {}

    def reset(self) -> Any:
        """The state at the start of an episode; `()` for a policy without memory."""
        return {owner: memory.initial for owner, memory in self._memories.items()} or ()

    def act(
        self,
        state: Any,
        observation: Any,
        *,
        rng: np.random.Generator | None = None,
        action_mask: Any = None,
        is_first: bool | None = None,
    ) -> tuple[Any, Any]:
        """The next state, and the environment action: the mode, or a draw if there is an `rng`.

        Args:
            state: from `reset` or the call before; it is not changed.
            observation: an element of the observation space.
            rng: draws the action.
            action_mask: as in `policy_core.act`; for a joint mask, an object with `.allowed`.
            is_first: whether the observation is the first of an episode: then the state is reset.
        """
        state, x, _ = self._advance(state, observation, is_first)
        features = self._actor(x)
        if rng is None:
            return state, self._choice.mode(features, action_mask)
        return state, self._choice.sample(features, action_mask, rng)

    def value(self, state: Any, observation: Any, *, is_first: bool | None = None) -> tuple[Any, Any]:
        """The next state, and the value of an observation: a float, or an array `[objectives]`."""
        state, _, x = self._advance(state, observation, is_first)
        return state, self._critic(x)

    def _advance(self, state: Any, observation: Any, is_first: bool | None) -> tuple[Any, Array, Array]:
        """The next state, and what the actor and the critic see."""
        seen = self._features(observation)
        if not self._memories:
            return state, *seen
        if is_first:
            state = self.reset()
        if not isinstance(state, dict) or state.keys() != self._memories.keys():
            raise ValueError(
                f"state: expected what `reset` or the last call gave, with {list(self._memories)}, "
                f"got {list(state) if isinstance(state, dict) else type(state).__name__}"
            )
        states, (actor, critic) = {}, seen
        for owner, memory in self._memories.items():
            states[owner], y = memory.step(state[owner], seen[owner == "critic"])
            actor = actor if owner == "critic" else y
            critic = critic if owner == "actor" else y
        return states, actor, critic


def load(
    path: str | os.PathLike[str],
    *,
    member: tuple[int, ...] | int = (),
    activations: dict[str, Callable[[Array], Array]] | None = None,
    mask_functions: dict[str, MaskFunction] | None = None,
) -> Runner:
    """The policy in a file.

    Args:
        path: the file.
        member: which one of a population.
        activations: functions that were registered by name in the process that saved.
        mask_functions: likewise, `(mask, seen) -> mask` for parts of an action that depend on
            others; they get and give NumPy arrays.

    Raises:
        ValueError: for a damaged file, or one that asks for what is not known here.
        OSError: if there is no such file.
    """
    with open(path, "rb") as file:
        data = file.read()
    try:
        given = Given({**ACTIVATIONS, **(activations or {})}, mask_functions or {})
        return _runner(read(data), member, given)
    except (ArithmeticError, AttributeError, LookupError, MemoryError, RecursionError, TypeError) as error:
        raise ValueError(f"the file contradicts itself: {error!r}") from error


def _runner(document: dict[str, Any], member: Any, given: Given) -> Runner:
    member = (member,) if isinstance(member, int) else tuple(member)
    batch = tuple(document["batch"])
    if len(member) != len(batch) or any(not 0 <= i < n for i, n in zip(member, batch, strict=True)):
        raise ValueError(f"member: got {member}, expected an index for each of the axes {batch}")
    params: dict[str, Any] = {}
    for name, dtype, shape, _, chunks in document["leaves"]:
        *parents, last = name.split("/")
        holder = params
        for parent in parents:
            holder = holder.setdefault(parent, {})
        holder[last] = _array(name, dtype, shape, b"".join(chunks))[member]
    config = msgpack.unpackb(document["config"], raw=False, strict_map_key=True)
    runner: Runner = find(POLICIES, config, "policy")(config["fields"], params, given)
    return runner


def read(data: bytes) -> dict[str, Any]:
    """The map of a file, its form, checksum and fingerprint verified."""
    view = memoryview(data)[:-32]
    blocks = [hashlib.sha256(view[i : i + 2**20]).digest() for i in range(0, len(view), 2**20)]
    if not data.startswith(b"\x8a\xa6format\xabpolicy_core"):
        raise ValueError("not a policy file")
    if hashlib.sha256(b"policy_core file\n" + b"".join(blocks)).digest() != data[-32:]:
        raise ValueError("checksum: the file is truncated or damaged")
    document: dict[str, Any] = msgpack.unpackb(data, raw=False, strict_map_key=True)
    if document.get("version") != 1:
        raise ValueError(f"version: got {document.get('version')}, expected 1")
    expected = hashlib.sha256(b"policy_core config\n" + document["config"]).digest()
    if document["fingerprint"] != expected:
        raise ValueError("fingerprint: it is not that of the config in the file")
    return document


def _array(name: str, dtype: str, shape: list[int], content: bytes) -> Array:
    if dtype not in ("float16", "bfloat16", "float32", "float64"):
        raise ValueError(f"leaves: {name!r} is {dtype}, which no policy of this runner has")
    kind = np.dtype("<u2" if dtype == "bfloat16" else dtype).newbyteorder("<")
    if math.prod(shape) * kind.itemsize != len(content):
        raise ValueError(f"leaves: {name!r} has {len(content)} bytes, not those of its shape {shape}")
    array = np.frombuffer(content, kind).reshape(shape)
    return (array.astype(np.uint32) << 16).view(np.float32) if dtype == "bfloat16" else array


def _actor_critic(fields: dict[str, Any], params: dict[str, Any], given: Given) -> Runner:
    known = "observation_space action_space actor critic trunk box_head temperature actor_gain critic_gain"
    later = "memory memory_sharing autoregressive normalize encoder actor_keys critic_keys value_head"
    only(fields, "ActorCriticConfig", *known.split(), *later.split(), "param_dtype", "compute_dtype")
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
    """From an observation to what actor and critic see."""
    space, config = fields["observation_space"], fields["encoder"]
    normalise: Callable[[Any], Any] = lambda observation: observation  # noqa: E731
    if fields["normalize"] is not None:
        normalise = normaliser_of(space, fields["normalize"], params.get("normalize", {}))
    keys = fields["actor_keys"], fields["critic_keys"]
    if keys != (None, None):
        by_actor, by_critic = (
            encoder_of(config, _view(space, names), params[owner].get("encoder", {}), dtype)
            for owner, names in zip(("actor", "critic"), keys, strict=True)
        )

        def two(observation: Any) -> tuple[Array, Array]:
            observation = normalise(observation)
            return by_actor(observation), by_critic(observation)

        return two
    encode = encoder_of(config, space, params.get("encoder", {}), dtype)
    trunk = network(fields["trunk"], params["trunk"]) if fields["trunk"] is not None else None

    def one(observation: Any) -> tuple[Array, Array]:
        x = encode(normalise(observation))
        x = x if trunk is None else trunk(x)
        return x, x

    return one


def _view(space: Any, names: list[str] | None) -> Any:
    """The parts of a `Dict` that actor or critic see; None for all."""
    parts = space["fields"]["spaces"]
    seen = [part for part in parts if names is None or part[0] in names]
    return {**space, "fields": {"spaces": seen}}


def _no_critic(_: Array) -> Any:
    raise ValueError("value: the policy has no critic; it was made by `actor_only`")


def _memories(fields: dict[str, Any], params: dict[str, Any], dtype: Any) -> dict[str, Memory]:
    """The memories by owner."""
    data, sharing = fields["memory"], fields["memory_sharing"]
    if data is None:
        return {}
    if sharing == "shared":
        return {"shared": memory_of(data, params["memory"], dtype)}
    owners = {"separate": ("actor", "critic"), "actor": ("actor",)}[sharing]
    return {owner: memory_of(data, params[owner]["memory"], dtype) for owner in owners}


def _choice(fields: dict[str, Any], params: dict[str, Any], dtype: Any, network: Any, given: Given) -> Choice:
    """How an action is chosen."""
    temperature = None if fields["temperature"] is None else float(params["temperature"])
    space, box_head, head = fields["action_space"], fields["box_head"], params["actor"]["head"]
    dependence = fields["autoregressive"]
    if dependence is None:
        return choice_of(space, box_head, head, dtype, temperature)
    if dependence["type"] != "policy_core/Autoregressive":
        raise ValueError(f"autoregressive: this runner does not know {dependence['type']!r}")
    inner = dependence["fields"]

    def between(at: Any) -> Any:
        return network(inner["network"], at)

    return dependent(space, box_head, inner, head, dtype, temperature, between, given.mask_functions)


POLICIES: dict[str, Callable[..., Runner]] = {"policy_core/ActorCriticConfig": _actor_critic}
