"""A vector environment of gymnasium as a loop that says the same of each way to reset.

gymnasium has three: at an end `NEXT_STEP` (its default) gives the last observation, and resets in the
next step, whose action it ignores; `SAME_STEP` resets at once, and has the last observation in
`info["final_obs"]`; `DISABLED` leaves it to the caller.
"""

from typing import Any, NamedTuple

import jax
import numpy as np

import policy_core as pc
from policy_core_adapters.gymnasium.spaces import space_of
from policy_core_adapters.gymnasium.values import to_action, to_mask, to_observation


class Turn(NamedTuple):
    """What `VectorLoop` gives: observations to act on, and what came of the last action; all `[env, ...]`.

    After `reset` nothing has come of anything: rewards are 0, flags false, `valid` is false.
    """

    observation: Any
    """What the policies act on next, in the dtypes of the observation space."""
    is_first: np.ndarray
    """Whether `observation` is the first of an episode."""
    action_mask: Any
    """Which actions are allowed at `observation`, in the structure of the action space; None for all."""
    reward: np.ndarray
    """float32."""
    terminated: np.ndarray
    """Whether the last action led to a terminal state: the value of `final_observation` is 0."""
    truncated: np.ndarray
    """Whether it led to a time limit and not to a terminal state: bootstrap from `final_observation`."""
    final_observation: Any
    """The observation that followed the last action, also where the episode ended."""
    valid: np.ndarray
    """Whether the last action was played. It is not where `NEXT_STEP` resets: leave such a transition
    out of the loss."""


class VectorLoop:
    """Steps a vector environment; holds nothing but the environment and what it ended with.

    With `SAME_STEP` and `DISABLED` an ended environment has been reset when `step` returns. With
    `NEXT_STEP` the turn after an end has the last observation as `observation` and as
    `final_observation`, the next one the first observation of the new episode, `is_first` and not `valid`.

    Masks are those of `info["action_mask"]`, else those of the method `action_masks` of the
    environments, if they have it.

    Args:
        envs: a `gymnasium.vector.VectorEnv`, or what has its attributes and methods.
        observation_space: what observations are cast to; that of `envs` by default.
        autoreset_mode: "NextStep", "SameStep" or "Disabled", for an environment that does not say. It
            is read from `envs.unwrapped.autoreset_mode` if there, then from `envs.metadata`:
            `SyncVectorEnv` writes it into the metadata of the class of its environments, where the next
            `SyncVectorEnv` of that class overwrites it.

    Raises:
        StructureError: for an environment that is no vector environment, or does not say how it resets.

    Example:
        >>> import gymnasium, jax, numpy as np, policy_core as pc
        >>> from policy_core_adapters.gymnasium import VectorLoop
        >>> loop = VectorLoop(gymnasium.make_vec("CartPole-v1", num_envs=3, vectorization_mode="sync"))
        >>> config = pc.ActorCriticConfig(
        ...     observation_space=loop.observation_space, action_space=loop.action_space
        ... )
        >>> policy = pc.init(config, key=jax.random.key(0))
        >>> turn = loop.reset(seed=0)
        >>> states = pc.reset(policy, batch=(3,))
        >>> states, actions = jax.vmap(lambda s, o, f: pc.act(policy, s, o, is_first=f))(
        ...     states, turn.observation, turn.is_first
        ... )
        >>> turn = loop.step(actions)
        >>> turn.reward.tolist(), turn.valid.tolist()
        ([1.0, 1.0, 1.0], [True, True, True])
    """

    def __init__(
        self,
        envs: Any,
        *,
        observation_space: pc.contract.Space | None = None,
        autoreset_mode: str | None = None,
    ) -> None:
        for name in ("num_envs", "single_observation_space", "single_action_space", "action_space"):
            if not hasattr(envs, name):
                raise pc.errors.StructureError(
                    f"envs: got {type(envs).__name__} without {name}, expected a vector environment; use "
                    "gymnasium.make_vec or gymnasium.vector.SyncVectorEnv"
                )
        self.envs = envs
        self.num_envs = int(envs.num_envs)
        self.autoreset_mode = _mode(envs, autoreset_mode)
        self.action_space = space_of(envs.single_action_space, "action_space")
        if observation_space is None:
            observation_space = space_of(envs.single_observation_space, "observation_space")
        self.observation_space = observation_space
        self._ended: np.ndarray | None = None
        self._mask: Any = None
        self._mask_from: str | None = None

    def reset(self, seed: Any = None) -> Turn:
        """Reset all environments; `seed` is an int, or one for each where the environment takes these."""
        observation, info = self.envs.reset(seed=seed)
        none = np.zeros(self.num_envs, bool)
        observation = self._observed(observation)
        self._ended, self._mask_from, self._mask = none, self._where_masks_are(info), None
        mask = self._masks(info, needed=~none)
        reward = np.zeros(self.num_envs, np.float32)
        return Turn(observation, ~none, mask, reward, none, none.copy(), observation, none.copy())

    def step(self, action: Any) -> Turn:
        """One step of all environments.

        Args:
            action: environment actions, `[env, ...]`, as `pc.act` or `pc.env_action` give them under
                `jax.vmap`.
        """
        if self._ended is None:
            raise pc.errors.StructureError("step: called before reset")
        raw, reward, terminated, truncated, info = self.envs.step(to_action(self.envs.action_space, action))
        observation = final = self._observed(raw)
        terminated = np.array(terminated, bool)
        truncated = np.array(truncated, bool) & ~terminated
        done = terminated | truncated
        valid, is_first = np.ones(self.num_envs, bool), done
        if self.autoreset_mode == "NextStep":
            valid, is_first = ~self._ended, self._ended
            needed = ~done
            reward = np.where(valid, reward, 0.0)
        else:
            needed = np.ones(self.num_envs, bool)
            if self.autoreset_mode == "SameStep":
                final = self._finals(observation, info, done)
            elif done.any():
                self._masks(info, needed=~done)
                observation, info = self._restart(final, done)
                needed = done
        self._ended = done
        return Turn(
            observation,
            is_first.copy(),
            self._masks(info, needed),
            np.asarray(reward, np.float32),
            terminated,
            truncated,
            final,
            valid,
        )

    def close(self) -> None:
        """Close the environments."""
        self.envs.close()

    def _observed(self, observation: Any) -> Any:
        return to_observation(self.observation_space, observation)

    def _given(self, info: dict[str, Any], key: str) -> np.ndarray:
        """Which environments have an entry: those of `_key`, or all of an array that comes without."""
        if key not in info:
            return np.zeros(self.num_envs, bool)
        if f"_{key}" in info:
            return np.asarray(info[f"_{key}"], bool)
        entries = info[key] if isinstance(info[key], np.ndarray) else [None] * self.num_envs
        return np.array([entry is not None for entry in entries])

    def _finals(self, observation: Any, info: dict[str, Any], done: np.ndarray) -> Any:
        """The observations, with those that were lost to a reset in their places (`SAME_STEP`)."""
        if not done.any():
            return observation
        given = self._given(info, "final_obs")
        if (done & ~given).any():
            raise pc.errors.StructureError(
                f"info: no final_obs of environments {np.flatnonzero(done & ~given).tolist()}, which ended; "
                "expected it of every end in the mode SameStep"
            )
        final = jax.tree.map(np.copy, observation)
        for i in np.flatnonzero(done):
            last = self._observed(info["final_obs"][i])
            for leaf, row in zip(jax.tree.leaves(final), jax.tree.leaves(last), strict=True):
                leaf[i] = row
        return final

    def _restart(self, final: Any, done: np.ndarray) -> tuple[Any, dict[str, Any]]:
        """Reset those that ended (`DISABLED`); the others must stay where they are."""
        observation, fresh = self.envs.reset(options={"reset_mask": done.copy()})
        observation = self._observed(observation)
        for leaf, before in zip(jax.tree.leaves(observation), jax.tree.leaves(final), strict=True):
            if not np.array_equal(leaf[~done], before[~done], equal_nan=leaf.dtype.kind == "f"):
                raise pc.errors.StructureError(
                    "envs: reset with options={'reset_mask': mask} moved environments outside of the mask; "
                    "expected it to reset those of the mask only, as SyncVectorEnv does"
                )
        return observation, fresh

    # MASKS ---------------------------------------------------------------------------------

    def _where_masks_are(self, info: dict[str, Any]) -> str | None:
        if "action_mask" in info:
            return "info"
        if hasattr(self.envs, "call"):
            try:
                there = self.envs.call("has_wrapper_attr", "action_masks")
            except AttributeError:
                return None
            return "call" if all(there) else None
        return None

    def _masks(self, info: dict[str, Any], needed: np.ndarray) -> Any:
        """The masks now: those of `info` where it has them, else those before."""
        if self._mask_from != "info" and "action_mask" in info:
            raise pc.errors.MaskError(
                "info: has an action_mask that the first reset did not have, expected it at each reset"
            )
        if self._mask_from is None:
            return None
        if self._mask_from == "call":
            masks = [to_mask(self.action_space, mask) for mask in self.envs.call("action_masks")]
            return jax.tree.map(lambda *rows: np.stack(rows), *masks)
        given = self._given(info, "action_mask")
        lacking = needed & ~given
        if lacking.any():
            raise pc.errors.MaskError(
                f"info: no action_mask of environments {np.flatnonzero(lacking).tolist()}; expected it with "
                "every observation, since the first reset had one"
            )
        if not given.any():
            return self._mask
        new = self._masks_of_info(info["action_mask"], given)
        if self._mask is not None:
            new = jax.tree.map(
                lambda a, b: np.where(given.reshape(-1, *[1] * (a.ndim - 1)), a, b), new, self._mask
            )
        self._mask = new
        return new

    def _masks_of_info(self, masks: Any, given: np.ndarray) -> Any:
        if isinstance(masks, np.ndarray) and masks.dtype != object:
            return to_mask(self.action_space, masks)
        rows = {int(i): to_mask(self.action_space, _one(masks, i)) for i in np.flatnonzero(given)}
        some = next(iter(rows.values()))  # stands in for those that are replaced by what was before
        return jax.tree.map(lambda *x: np.stack(x), *(rows.get(i, some) for i in range(self.num_envs)))


def _one(masks: Any, i: Any) -> Any:
    """The mask of one environment: gymnasium keeps `_key` beside each `key` of a dict."""
    if isinstance(masks, dict):
        return {key: _one(part, i) for key, part in masks.items() if f"_{key}" in masks}
    return masks[i]


def _mode(envs: Any, mode: Any) -> str:
    if mode is None:
        mode = getattr(getattr(envs, "unwrapped", envs), "autoreset_mode", None)
    if mode is None:
        mode = (getattr(envs, "metadata", None) or {}).get("autoreset_mode")
    mode = getattr(mode, "value", mode)
    if mode not in ("NextStep", "SameStep", "Disabled"):
        raise pc.errors.StructureError(
            f"autoreset_mode: got {mode!r}, expected 'NextStep', 'SameStep' or 'Disabled'; pass it for an "
            f"environment that does not say how it resets, such as this {type(envs).__name__}"
        )
    return str(mode)
