"""Which parts of an action see which: static data, and the enumeration of what is seen."""

import math
from typing import Any, TypeAlias

import jax.numpy as jnp
import numpy as np

from policy_core._static import static
from policy_core.contract import Space
from policy_core.distributions.enumeration import count, element
from policy_core.errors import ConfigError

Name: TypeAlias = str | int
MOST_COMBINATIONS = 4096


@static
class Graph:
    """The parts of an action, each with its parents: the parts that it depends on.

    Parents are discrete, and the parents of a parent are among them. So what a part sees is
    one of finitely many combinations, in C order of its parents.

    Args:
        spaces: name, or place, and space of the policy actions of each part.
        parents: the parents of each part that has some.

    Raises:
        ConfigError: for parents that are unknown, not discrete, or seen in part only, or too
            many combinations.
    """

    spaces: tuple[tuple[Name, Space[Any]], ...]
    parents: tuple[tuple[Name, tuple[Name, ...]], ...]

    def __post_init__(self) -> None:
        spaces, parents = dict(self.spaces), dict(self.parents)
        where = "Autoregressive.parents"
        for name, seen in parents.items():
            for known in (name, *seen):
                if known not in spaces:
                    raise ConfigError(f"{where}: got {known!r}, expected one of {list(spaces)}")
            if name in seen or len(set(seen)) < len(seen):
                raise ConfigError(f"{where}: {name!r} sees {seen}, expected other parts, each once")
            for parent in seen:
                if count(spaces[parent]) is None:
                    raise ConfigError(
                        f"{where}: {name!r} sees {parent!r}, a {type(spaces[parent]).__name__}; only "
                        "discrete parts can be seen (a Box is one with BinsHead)"
                    )
                if missing := [p for p in parents.get(parent, ()) if p not in seen]:
                    raise ConfigError(
                        f"{where}: {name!r} sees {parent!r} and not what that sees; add {missing}"
                    )
            if (size := self.size(name)) > MOST_COMBINATIONS:
                raise ConfigError(
                    f"{where}: {name!r} sees {size} combinations of {seen}, expected at most "
                    f"{MOST_COMBINATIONS}"
                )

    def order(self) -> list[Name]:
        """All parts, each after its parents: a part has more parents than any of them."""
        return sorted((name for name, _ in self.spaces), key=lambda name: len(self.parents_of(name)))

    def discrete(self) -> set[Name]:
        """The parts that can be seen."""
        return {name for name, space in self.spaces if count(space) is not None}

    def seen_by_others(self) -> set[Name]:
        """The parts that are parents."""
        return {parent for _, parents in self.parents for parent in parents}

    def parents_of(self, name: Name) -> tuple[Name, ...]:
        """The parts that a part sees."""
        return dict(self.parents).get(name, ())

    def size(self, name: Name) -> int:
        """How many combinations a part can see; 1 if it sees nothing."""
        return math.prod(self._counts(name))

    def places(self, name: Name) -> dict[Name, np.ndarray]:
        """For each combination that a part can see, the place of the action of each parent."""
        digits = np.indices(self._counts(name)).reshape(len(self.parents_of(name)), self.size(name))
        return dict(zip(self.parents_of(name), digits.astype(np.int32), strict=True))

    def seen(self, name: Name) -> dict[Name, Any]:
        """For each combination that a part can see, the actions of its parents."""
        spaces = dict(self.spaces)
        return {q: element(spaces[q], jnp.asarray(place)) for q, place in self.places(name).items()}

    def index(self, name: Name, places: dict[Name, Any]) -> Any:
        """Which combination a part sees, from the places of the actions of its parents."""
        total: Any = 0
        for parent, size in zip(self.parents_of(name), self._counts(name), strict=True):
            total = total * size + places[parent]
        return total

    def _counts(self, name: Name) -> list[int]:
        spaces = dict(self.spaces)
        return [count(spaces[parent]) or 0 for parent in self.parents_of(name)]
