r"""Policy files on NumPy and msgpack alone: for a robot, or a game server.

    runner = load("cartpole.msgpack")
    state = runner.reset()
    state, action = runner.act(state, observation)  # deterministic
    state, action = runner.act(state, observation, rng=rng, action_mask=mask)  # a draw

Neither JAX nor policy_core is imported. The file is verified as docs/file-format.md says; what
the config asks for and this runner does not know is an error, never left out. Networks, heads
and policies are found by the name of their class in `NETWORKS`, `HEADS` and `POLICIES`: add a
function there for one of your own.
"""

import hashlib
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgpack
import numpy as np

from policy_core_adapters.numpy_heads import HEADS as HEADS
from policy_core_adapters.numpy_heads import Choice, choice_of
from policy_core_adapters.numpy_networks import ACTIVATIONS, NETWORKS, Array, find, linear, only
from policy_core_adapters.numpy_spaces import flatten_of


class Runner:
    """A loaded policy: `reset`, `act`, `value`.

    Args:
        features: `observation -> flat vector`.
        actor: from that to the features of the head.
        choice: how the head chooses.
        critic: from the flat vector to the value.
    """

    def __init__(
        self,
        features: Callable[[Any], Array],
        actor: Callable[[Array], Array],
        choice: Choice,
        critic: Callable[[Array], Array],
    ) -> None:
        self._features, self._actor, self._choice, self._critic = features, actor, choice, critic

    def reset(self) -> Any:
        """The state at the start of an episode; `()` for a policy without memory."""
        return ()

    def act(
        self,
        state: Any,
        observation: Any,
        *,
        rng: np.random.Generator | None = None,
        action_mask: Any = None,
        is_first: bool | None = None,
    ) -> tuple[Any, Any]:
        """The next state, and the environment action: the mode, or a draw if there is an `rng`."""
        del is_first  # there is no memory to reset
        features = self._actor(self._features(observation))
        if rng is None:
            return state, self._choice.mode(features, action_mask)
        return state, self._choice.sample(features, action_mask, rng)

    def value(self, state: Any, observation: Any) -> tuple[Any, float]:
        """The next state, and the value of an observation."""
        return state, float(self._critic(self._features(observation))[0])


def load(
    path: str | os.PathLike[str],
    *,
    member: tuple[int, ...] | int = (),
    activations: dict[str, Callable[[Array], Array]] | None = None,
) -> Runner:
    """The policy in a file.

    Args:
        path: the file.
        member: which one of a population.
        activations: functions that were registered by name in the process that saved.

    Raises:
        ValueError: for a damaged file, or one that asks for what is not known here.
        OSError: if there is no such file.
    """
    document = read(Path(path).read_bytes())
    try:
        return _runner(document, member, {**ACTIVATIONS, **(activations or {})})
    except (ArithmeticError, AttributeError, IndexError, LookupError, TypeError) as error:
        raise ValueError(f"the file contradicts itself: {error!r}") from error


def _runner(document: dict[str, Any], member: Any, names: dict[str, Any]) -> Runner:
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
    runner: Runner = find(POLICIES, config, "policy")(config["fields"], params, names)
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


def _actor_critic(fields: dict[str, Any], params: dict[str, Any], names: dict[str, Any]) -> Runner:
    known = "observation_space action_space actor critic trunk box_head temperature actor_gain critic_gain"
    later = "memory memory_sharing autoregressive"
    only(fields, "ActorCriticConfig", *known.split(), *later.split(), "param_dtype", "compute_dtype")
    for name in ("memory", "autoregressive"):
        if fields[name] is not None:
            raise ValueError(f"{name}: this runner has none yet; use JAX")
    if fields["compute_dtype"] not in ("float32", "float64"):
        raise ValueError(f"compute_dtype: {fields['compute_dtype']} is not what NumPy computes in; use JAX")
    dtype = np.dtype(fields["compute_dtype"])

    def network(name: str, at: Any) -> Any:
        return find(NETWORKS, fields[name], "network")(fields[name]["fields"], at, dtype, names)

    flatten = flatten_of(fields["observation_space"])
    trunk = network("trunk", params["trunk"]) if fields["trunk"] is not None else None

    def features(observation: Any) -> Array:
        x = flatten(observation).astype(dtype, copy=False)
        return x if trunk is None else np.asarray(trunk(x))

    temperature = None if fields["temperature"] is None else float(params["temperature"])
    actor, critic = (network(name, params[name].get("tower", {})) for name in ("actor", "critic"))
    head, last = params["actor"]["head"], linear(params["critic"]["head"], dtype)
    choice = choice_of(fields["action_space"], fields["box_head"], head, dtype, temperature)
    return Runner(features, actor, choice, lambda x: last(critic(x)))


POLICIES: dict[str, Callable[..., Runner]] = {"policy_core/ActorCriticConfig": _actor_critic}
