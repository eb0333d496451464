"""PPO of Stable-Baselines3 and of sbx on gymnasium's environments, as rl-baselines3-zoo runs them.

torch is given one thread, and no GPU. sbx compiles as it goes, for each model anew: what its first update
takes longer than the median of the others, rollout included, is called its compilation.
"""

import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from benchmarks.tasks.record import Seed
from benchmarks.tasks.settings import SBX, Setting, Task


def train(contestant: str, task: Task, setting: Setting, seeds: list[int]) -> Iterator[Seed]:
    """A fresh model and fresh environments for each seed."""
    from stable_baselines3.common.callbacks import BaseCallback  # pyright: ignore[reportMissingImports]
    from stable_baselines3.common.env_util import make_vec_env  # pyright: ignore[reportMissingImports]
    from stable_baselines3.common.vec_env import VecNormalize  # pyright: ignore[reportMissingImports]

    if contestant == SBX:
        from sbx import PPO  # pyright: ignore[reportMissingImports]
    else:
        import torch  # pyright: ignore[reportMissingImports]
        from stable_baselines3 import PPO  # pyright: ignore[reportMissingImports]

        torch.set_num_threads(1)

    fields = dict(setting.fields)
    num_envs, normalize = fields.pop("n_envs"), fields.pop("normalize", False)
    rollout = num_envs * fields["n_steps"]
    updates = -(-task.steps // rollout)

    class Returns(BaseCallback):  # type: ignore[misc, unused-ignore]
        """The episodes that end in each rollout."""

        def _on_training_start(self) -> None:
            self.episodes = np.zeros(updates, int)
            self.returned = np.zeros(updates)
            self.times: list[float] = []

        def _on_rollout_start(self) -> None:
            self.times.append(time.process_time())

        def _on_step(self) -> bool:
            update = (self.num_timesteps - 1) // rollout
            for info in self.locals["infos"]:
                if "episode" in info:  # of Monitor, so without normalization
                    self.episodes[update] += 1
                    self.returned[update] += info["episode"]["r"]
            return True

    for seed in seeds:
        env: Any = make_vec_env(task.name, n_envs=num_envs, seed=seed)
        if normalize:
            env = VecNormalize(env, gamma=fields["gamma"])
        model = PPO("MlpPolicy", env, seed=seed, device="cpu", **fields)
        returns = Returns()
        model.learn(total_timesteps=updates * rollout, callback=returns)
        env.close()
        spent = np.diff([*returns.times, time.process_time()])
        compiled = 0.0
        if contestant == SBX and updates > 1:
            compiled = max(0.0, float(spent[0] - np.median(spent[1:])))
        seconds = float(spent.sum()) - compiled
        yield Seed(seed, updates * rollout, returns.returned, returns.episodes, seconds, compiled)
