r"""Policy files on NumPy alone: for a robot, or a game server.

    runner = load("cartpole.msgpack")
    state = runner.reset()
    state, action = runner.act(state, observation)  # deterministic
    state, action = runner.act(state, observation, rng=rng, action_mask=mask)  # a draw

Neither JAX nor policy_core is imported. The file is verified as docs/file-format.md says; what
the config asks for and this runner does not know is an error, never left out, and the params are
exactly those of the config. Encoders, networks, memories, heads, value heads and policies are found by
the name of their class in `ENCODERS`, `NETWORKS`, `MEMORIES`, `HEADS`, `VALUES` and `POLICIES`: add a
function there for one of your own.
"""

from __future__ import annotations  # to evaluate np.random.Generator imports all of np.random

import operator
import os
from collections.abc import Callable

from policy_core_adapters.numpy_runner.autoregressive import MaskFunction
from policy_core_adapters.numpy_runner.encoders import ENCODERS as ENCODERS
from policy_core_adapters.numpy_runner.fields import check_fields
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
    """The policy in a file.

    Args:
        path: the file.
        member: which one of a population; only its part of the file is read and verified.
        activations: functions that were registered by name in the process that saved.
        mask_functions: likewise, `(mask, seen) -> mask` for parts of an action that depend on
            others; they get and give NumPy arrays.

    Raises:
        ValueError: for a damaged file, or one that asks for what is not known here.
        OSError: if there is no such file.
    """
    index = member if isinstance(member, tuple) else (member,)
    if any(isinstance(i, bool) or not hasattr(i, "__index__") for i in index):
        raise ValueError(f"member: got {member!r}, expected an index, or one for each axis of the population")
    index = tuple(map(operator.index, index))
    try:
        with open(path, "rb") as file:
            document = read(file, whole=not index)
            params = params_of(document, index)
        config = document.config
        check_fields(config)
        given = Given({**ACTIVATIONS, **(activations or {})}, mask_functions or {})
        runner: Runner = find(POLICIES, config, "policy")(config["fields"], params, given)
    except (ArithmeticError, AttributeError, LookupError, MemoryError, RecursionError, TypeError) as error:
        raise ValueError(f"the file contradicts itself: {error!r}") from error
    if params.unused:
        raise ValueError(
            f"leaves: there is a leaf {next(iter(params.unused))!r}, which is none of the config's params"
        )
    return runner
