"""Environments of gymnasium for tests: what they show tells whether a reset was seen at the right time."""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv

MODES = {mode.value: mode for mode in AutoresetMode}


class Counter(gymnasium.Env):
    """The observation is the number of steps since the reset, the reward likewise, after so many it ends.

    `reuses` gives the same array each time, as environments may that are careful with memory.
    """

    observation_space = spaces.Box(0, np.inf, (1,), np.float64)
    action_space = spaces.Discrete(2)

    def __init__(self, length: int = 3, ends: str = "terminated", reuses: bool = False) -> None:
        self.length, self.ends, self.reuses = length, ends, reuses
        self.time = np.zeros(1)

    def seen(self) -> np.ndarray:
        return self.time if self.reuses else self.time.copy()

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.time[:] = 0
        return self.seen(), {}

    def step(self, action: Any) -> Any:
        assert self.action_space.contains(action)
        self.time += 1
        end = bool(self.time[0] >= self.length)
        return (
            self.seen(), self.time[0], end and self.ends in ("terminated", "both"),
            end and self.ends in ("truncated", "both"), {},
        )  # fmt: skip


class Starts(gymnasium.Env):
    """Three steps an episode, of reward 0, 1 and 1; the first observation is (0, 1), each other one (1, 0)."""

    observation_space = spaces.Box(0.0, 1.0, (2,), np.float32)
    action_space = spaces.Discrete(2)
    time = 0

    def __init__(self, ends: str) -> None:
        self.ends = ends

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.time = 0
        return np.array([0, 1], np.float32), {}

    def step(self, action: Any) -> Any:
        self.time += 1
        end = self.time == 3
        return (
            np.array([1, 0], np.float32), float(self.time > 1), end and self.ends == "terminated",
            end and self.ends == "truncated", {},
        )  # fmt: skip


class Masked(gymnasium.Env):
    """Allows other actions each time, and raises for one that it did not allow; ends after three steps.

    `where` is "info" or "call"; `kind` is how the mask of a `MultiDiscrete((2, 3, 4))` is given.
    """

    observation_space = spaces.Discrete(5, start=-1)
    action_space = spaces.MultiDiscrete([2, 3, 4], start=[0, 1, -2])

    def __init__(self, where: str, kind: str) -> None:
        self.where, self.kind = where, kind

    def now(self) -> Any:
        """The observation and what comes with it."""
        self.rows = [self.np_random.random(n) < 0.5 for n in (2, 3, 4)]
        for row in self.rows:
            row[self.np_random.integers(len(row))] = True
        info = {"action_mask": self.given()} if self.where == "info" else {}
        return np.int64(self.time - 1), info

    def given(self) -> Any:
        rows = [row.astype(np.int8) for row in self.rows]
        if self.kind == "flat":
            return np.concatenate(rows)
        if self.kind == "stacked":
            return np.stack([np.pad(row, (0, 4 - len(row))) for row in rows])
        return tuple(rows)

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.time = 0
        return self.now()

    def step(self, action: Any) -> Any:
        assert self.action_space.contains(action)
        assert all(row[x] for row, x in zip(self.rows, action - self.action_space.start, strict=True))
        self.time += 1
        observation, info = self.now()
        return observation, 1.0, self.time == 3, False, info

    def action_masks(self) -> Any:
        assert self.where == "call"
        return self.given()


class Everything(gymnasium.Env):
    """Every space, both as observation and as action; observations in odd containers."""

    parts = spaces.Dict(
        {
            "pair": spaces.Tuple(
                [spaces.Discrete(3, start=1), spaces.Box(-2.0, np.array([1.0, 3.0]), dtype=np.float64)]
            ),
            "grid": spaces.MultiDiscrete([[2, 3], [4, 2]], start=[[0, 1], [-1, 0]]),
            "bits": spaces.MultiBinary([2, 2]),
            "flags": spaces.Box(0, 1, (2,), bool),
            "bytes": spaces.Box(0, 255, (3,), np.uint8),
        }
    )
    observation_space = action_space = parts

    def seen(self) -> Any:
        sample = self.parts.sample()
        return OrderedDict((key, list(x) if key == "pair" else x) for key, x in reversed(sample.items()))

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.time = 0
        return self.seen(), {}

    def step(self, action: Any) -> Any:
        assert self.action_space.contains(action), action
        self.time += 1
        return self.seen(), np.float64(1), False, self.time == 4, {}


def vector(environments: Sequence[Any], mode: str) -> SyncVectorEnv:
    """A vector environment of these, which are made when it is."""
    return SyncVectorEnv(list(environments), autoreset_mode=MODES[mode])
