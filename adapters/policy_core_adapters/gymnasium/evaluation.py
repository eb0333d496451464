"""Let a policy play episodes of a gymnasium environment, with a progress bar, and as a GIF."""

import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

import policy_core as pc
from policy_core_adapters.gymnasium.spaces import space_of
from policy_core_adapters.gymnasium.values import to_action, to_mask, to_observation


class Evaluation(NamedTuple):
    """What came of each episode, `[episode]`."""

    returns: np.ndarray
    """The sums of rewards, float64."""
    lengths: np.ndarray
    """Steps."""
    terminated: np.ndarray
    """Whether the episode ended in a terminal state, and not at a time limit."""


def evaluate(
    policy: Any,
    env: Any,
    episodes: int,
    *,
    seed: int = 0,
    key: Any = None,
    progress: bool = True,
    gif: str | os.PathLike[str] | None = None,
    gif_episodes: int = 1,
) -> Evaluation:
    """The returns of so many episodes of one environment.

    Masks are those of `info["action_mask"]`, else of the method `action_masks`, where there is one.

    Args:
        policy: the pair.
        env: a `gymnasium.Env` (not a vector environment) of the spaces of the policy; of a `Dict`
            observation the policy may see a part, as what `pc.actor_only` returns.
        episodes: how many, at least 1.
        seed: of the first reset; the episodes after it go on from there.
        key: consumed, to sample the actions; None plays the mode.
        progress: show a bar on stderr: of rich if it is installed, else a line of text.
        gif: a path, to write the first episodes to; needs Pillow, and an environment made with
            `render_mode="rgb_array"`.
        gif_episodes: how many of them.

    Raises:
        StructureError: for an environment of other spaces than the policy's.
        ValueError: for a `gif` of an environment that does not render arrays, or no episodes.

    Example:
        >>> import gymnasium, jax, policy_core as pc
        >>> from policy_core_adapters.gymnasium import evaluate, space_of
        >>> env = gymnasium.make("CartPole-v1")
        >>> config = pc.ActorCriticConfig(
        ...     observation_space=space_of(env.observation_space), action_space=space_of(env.action_space)
        ... )
        >>> policy = pc.init(config, key=jax.random.key(0))
        >>> evaluate(policy, env, 3, progress=False).returns.shape
        (3,)
    """
    if episodes < 1:
        raise ValueError(f"episodes: got {episodes}, expected at least 1")
    if hasattr(env, "num_envs"):
        raise pc.errors.StructureError("env: got a vector environment, expected one environment")
    config = policy[1]
    _check_spaces(config, env)
    if gif is not None and getattr(env, "render_mode", None) != "rgb_array":
        raise ValueError(
            f"gif: got an environment of render_mode {getattr(env, 'render_mode', None)!r}, expected "
            "'rgb_array'; "
            'make it with gymnasium.make(name, render_mode="rgb_array")'
        )
    act = jax.jit(lambda state, observation, mask, key: pc.act(
        policy, state, observation, action_mask=mask, key=key))  # fmt: skip
    split = jax.jit(jax.random.split)
    frames: list[Any] = []
    returns, lengths, ends = [], [], []
    with _bar(episodes, progress) as show:
        for episode in range(episodes):
            raw, info = env.reset(seed=seed if episode == 0 else None)
            state, total, length, terminated, truncated = pc.reset(policy), 0.0, 0, False, False
            filmed = gif is not None and episode < gif_episodes
            while not (terminated or truncated):
                if filmed:
                    frames.append(env.render())
                observation = to_observation(config.observation_space, _seen(config.observation_space, raw))
                key, used = (None, None) if key is None else split(key)
                state, action = act(state, observation, _mask(config, env, info), used)
                raw, reward, terminated, truncated, info = env.step(to_action(env.action_space, action))
                total, length = total + float(reward), length + 1
            if filmed:
                frames.append(env.render())
            returns.append(total)
            lengths.append(length)
            ends.append(bool(terminated))
            show(float(np.mean(returns)))
    if gif is not None:
        _write_gif(gif, frames, float((getattr(env, "metadata", None) or {}).get("render_fps") or 30))
    return Evaluation(np.array(returns), np.array(lengths), np.array(ends))


def _check_spaces(config: Any, env: Any) -> None:
    for name in ("observation_space", "action_space"):
        ours, theirs = getattr(config, name), space_of(getattr(env, name), name)
        if isinstance(ours, pc.Dict) and isinstance(theirs, pc.Dict) and name == "observation_space":
            theirs = pc.Dict(_seen(ours, dict(theirs.spaces)))
        if jax.tree.map(lambda x: x.shape, ours.struct()) != jax.tree.map(
            lambda x: x.shape, theirs.struct()
        ) or (name == "action_space" and ours != theirs):
            raise pc.errors.StructureError(
                f"env: has the {name} {theirs}, expected that of the policy, {ours}"
            )


def _seen(space: Any, parts: Any) -> Any:
    """Of a mapping the parts that a `Dict` has: what `pc.actor_only` returns may see less than there is."""
    if not isinstance(space, pc.Dict) or not isinstance(parts, Mapping):
        return parts
    return {name: parts[name] for name, _ in space.spaces if name in parts}


def _mask(config: Any, env: Any, info: dict[str, Any]) -> Any:
    if "action_mask" in info:
        return to_mask(config.action_space, info["action_mask"])
    if hasattr(env, "has_wrapper_attr") and env.has_wrapper_attr("action_masks"):
        return to_mask(config.action_space, env.get_wrapper_attr("action_masks")())
    return None


@contextlib.contextmanager
def _bar(total: int, shown: bool) -> Iterator[Callable[[float], None]]:
    """`show(mean_return)` after each episode."""
    if not shown:
        yield lambda mean: None
        return
    try:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
    except ImportError:
        done = 0

        def line(mean: float) -> None:
            nonlocal done
            done += 1
            print(f"\repisode {done}/{total}, mean return {mean:.1f}", end="", file=sys.stderr, flush=True)

        yield line
        print(file=sys.stderr)
        return
    columns = (
        TextColumn("playing"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(compact=True),
        TextColumn("mean return {task.fields[mean]:.1f}"),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("", total=total, mean=0.0)
        yield lambda mean: bar.update(task, advance=1, mean=mean)


def _write_gif(path: str | os.PathLike[str], frames: list[Any], frames_per_second: float) -> None:
    """The frames as an animation that repeats.

    A GIF counts in hundredths of a second, and viewers slow down what is shorter than two of them:
    then frames are left out, so that the time is right.
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError("gif: needs Pillow; pip install 'policy-core[gif]'") from error
    every = max(1, -(-int(frames_per_second) // 50))
    images = [Image.fromarray(np.asarray(frame, np.uint8)) for frame in frames[::every]]
    images = [image.quantize(64) for image in images]
    duration = round(100 * every / frames_per_second) * 10
    images[0].save(
        path, "GIF", save_all=True, append_images=images[1:], duration=duration, loop=0, optimize=False
    )
