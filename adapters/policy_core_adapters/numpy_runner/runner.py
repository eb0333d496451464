"""The runner of a policy: `reset`, `act`, `value`."""

from __future__ import annotations  # to evaluate np.random.Generator imports all of np.random

from collections.abc import Callable
from typing import Any

import numpy as np

from policy_core_adapters.numpy_runner.choices import Choice
from policy_core_adapters.numpy_runner.memory import Memory
from policy_core_adapters.numpy_runner.networks import Array


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
        self._owners = [*self._memories, *([] if choice.noise is None else ["exploration"])]
        self._keys = frozenset(self._owners)

    def reset(self) -> Any:
        """The state at the start of an episode; `()` for a policy without memory and kept noise."""
        noise = {} if self._choice.noise is None else {"exploration": self._choice.noise.initial}
        return {**{owner: memory.initial for owner, memory in self._memories.items()}, **noise} or ()

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
        if not hasattr(rng, "standard_normal"):  # isinstance would import numpy.random
            raise TypeError(f"rng: got {type(rng).__name__}, expected a numpy.random.Generator")
        if (noise := self._choice.noise) is None:
            return state, self._choice.sample(features, action_mask, rng)
        drawn = noise.draw(state["exploration"], rng)
        return {**state, "exploration": drawn}, noise.sample(features, action_mask, rng, drawn)

    def value(self, state: Any, observation: Any, *, is_first: bool | None = None) -> tuple[Any, Any]:
        """The next state, and the value of an observation: a float, or an array `[objectives]`."""
        state, _, x = self._advance(state, observation, is_first)
        return state, self._critic(x)

    def _advance(self, state: Any, observation: Any, is_first: bool | None) -> tuple[Any, Array, Array]:
        """The next state, and the features of actor and critic."""
        seen = self._features(observation)
        if not self._owners:
            return state, *seen
        if is_first:
            state = self.reset()
        if not isinstance(state, dict) or state.keys() != self._keys:
            raise ValueError(
                f"state: expected the state returned by `reset` or the last call, with {self._owners}, got "
                f"{list(state) if isinstance(state, dict) else type(state).__name__}"
            )
        states, (actor, critic) = dict(state), seen
        for owner, memory in self._memories.items():
            states[owner], y = memory.step(state[owner], seen[owner == "critic"])
            actor = actor if owner == "critic" else y
            critic = critic if owner == "actor" else y
        return states, actor, critic
