r"""Inference from policy files with NumPy and msgpack only.

    runner = load("cartpole.msgpack")
    state = runner.reset()
    state, action = runner.act(state, observation)  # deterministic
    state, action = runner.act(state, observation, rng=rng, action_mask=mask)  # a sample

Neither JAX nor policy_core is imported. The file is verified as in docs/file-format.md; a class or
field that this runner does not support is an error, never ignored. Encoders, networks, memories,
heads, value heads and policies are looked up by the name of their class in `ENCODERS`, `NETWORKS`,
`MEMORIES`, `HEADS`, `VALUES` and `POLICIES`: add a function there for one of your own.
"""

from __future__ import annotations  # evaluating np.random.Generator would import np.random

import os
from collections.abc import Callable

import msgpack

from policy_core_adapters.numpy_runner.autoregressive import MaskFunction
from policy_core_adapters.numpy_runner.encoders import ENCODERS as ENCODERS
from policy_core_adapters.numpy_runner.file import params_of, read
from policy_core_adapters.numpy_runner.heads import HEADS as HEADS
from policy_core_adapters.numpy_runner.memory import MEMORIES as MEMORIES
from policy_core_adapters.numpy_runner.networks import ACTIVATIONS, Array, find
from policy_core_adapters.numpy_runner.networks import NETWORKS as NETWORKS
from policy_core_adapters.numpy_runner.policies import POLICIES as POLICIES
from policy_core_adapters.numpy_runner.policies import Given
from policy_core_adapters.numpy_runner.runner import Runner
from policy_core_adapters.numpy_runner.values import VALUES as VALUES


def load(
    path: str | os.PathLike[str],
    *,
    member: tuple[int, ...] | int = (),
    activations: dict[str, Callable[[Array], Array]] | None = None,
    mask_functions: dict[str, MaskFunction] | None = None,
) -> Runner:
    """Load the policy in a file.

    Args:
        path: the file.
        member: index of the member of a population.
        activations: activation functions by the name that they were registered under.
        mask_functions: likewise, `(mask, parents) -> mask` for parts of an action that depend on
            others, with NumPy arrays.

    Raises:
        ValueError: for a damaged file, or one with a class or field that is not supported.
        OSError: if there is no such file.
    """
    with open(path, "rb") as file:
        data = file.read()
    try:
        document = read(data)
        params = params_of(document, (member,) if isinstance(member, int) else tuple(member))
        config = msgpack.unpackb(document["config"], raw=False, strict_map_key=True)
        given = Given({**ACTIVATIONS, **(activations or {})}, mask_functions or {})
        runner: Runner = find(POLICIES, config, "policy")(config["fields"], params, given)
        return runner
    except (ArithmeticError, AttributeError, LookupError, MemoryError, RecursionError, TypeError) as error:
        raise ValueError(f"the file contradicts itself: {error!r}") from error
