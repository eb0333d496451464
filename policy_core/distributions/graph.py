"""The dependency graph of the parts of an action, and the combinations of the actions of parents."""

import math
from typing import Any

import jax.numpy as jnp
import numpy as np

from policy_core.configs import static
from policy_core.contract import Space
from policy_core.errors import ConfigError
from policy_core.spaces.composite import Name
from policy_core.spaces.enumeration import count, element_at

MOST_COMBINATIONS = 4096
MOST_PARTS, MOST_PARENTS = 256, 32  # the work grows faster than a file that asks for more


@static
class Graph:
    """The dependency graph of the parts of an action; the parents of a part are those it depends on.

    Parents are discrete, and the parents of a parent are parents, too. So the actions of the
    parents of a part are one of finitely many combinations, in C order of the parents.

    Args:
        spaces: key or index, and space of the policy actions, of each part.
        parents: the parents of each part with parents.

    Raises:
        ConfigError: for parents that are unknown or not discrete, that lack a parent of a parent, or
            that are more than 32 or have more than 4096 combinations; for more than 256 parts.
    """

    spaces: tuple[tuple[Name, Space], ...]
    parents: tuple[tuple[Name, tuple[Name, ...]], ...]

    def __post_init__(self) -> None:
        spaces, parents = dict(self.spaces), dict(self.parents)
        where = "Autoregressive.parents"
        if len(spaces) > MOST_PARTS or any(len(seen) > MOST_PARENTS for seen in parents.values()):
            raise ConfigError(f"{where}: more than {MOST_PARTS} parts, or {MOST_PARENTS} parents of one")
        for name, of_part in parents.items():
            for part in (name, *of_part):
                if part not in spaces:
                    raise ConfigError(f"{where}: got {part!r}, expected one of {list(spaces)}")
            if name in of_part or len(set(of_part)) < len(of_part):
                raise ConfigError(f"{where}: got {of_part} for {name!r}, expected other parts, each once")
            for parent in of_part:
                if count(spaces[parent]) is None:
                    raise ConfigError(
                        f"{where}: got {parent!r}, a {type(spaces[parent]).__name__}, for {name!r}, expected "
                        "a discrete part (a Box is one with BinsHead)"
                    )
                if missing := [p for p in parents.get(parent, ()) if p not in of_part]:
                    raise ConfigError(
                        f"{where}: got {parent!r} for {name!r} without its parents; add {missing}"
                    )
            if self.size(name) > MOST_COMBINATIONS:
                raise ConfigError(
                    f"{where}: got {of_part} for {name!r}, with more than {MOST_COMBINATIONS} combinations"
                )

    def order(self) -> list[Name]:
        """All parts in topological order: a part has more parents than any of its parents."""
        return sorted((name for name, _ in self.spaces), key=lambda name: len(self.parents_of(name)))

    def discrete(self) -> set[Name]:
        """The parts that are discrete, and so may be parents."""
        return {name for name, space in self.spaces if count(space) is not None}

    def parents_of_others(self) -> set[Name]:
        """The parts that are a parent of another part."""
        return {parent for _, parents in self.parents for parent in parents}

    def parents_of(self, name: Name) -> tuple[Name, ...]:
        """The parents of a part."""
        return dict(self.parents).get(name, ())

    def size(self, name: Name) -> int:
        """The number of combinations of the actions of its parents; 1 without parents."""
        return math.prod(self._counts(name))

    def parent_indices(self, name: Name) -> dict[Name, np.ndarray]:
        """By parent, the index of its action in each combination, `[combinations]`."""
        digits = np.indices(self._counts(name)).reshape(len(self.parents_of(name)), self.size(name))
        return dict(zip(self.parents_of(name), digits.astype(np.int32), strict=True))

    def parent_actions(self, name: Name) -> dict[Name, Any]:
        """By parent, its action in each combination, `[combinations, ...]`."""
        spaces = dict(self.spaces)
        return {q: element_at(spaces[q], jnp.asarray(i)) for q, i in self.parent_indices(name).items()}

    def combination(self, name: Name, indices: dict[Name, Any]) -> Any:
        """The index of a combination, in C order, from the indices of the parents' actions."""
        combination: Any = 0
        for parent, size in zip(self.parents_of(name), self._counts(name), strict=True):
            combination = combination * size + indices[parent]
        return combination

    def _counts(self, name: Name) -> list[int]:
        spaces = dict(self.spaces)
        return [count(spaces[parent]) or 0 for parent in self.parents_of(name)]
