"""Every row against a floor: the same network and space written by hand in plain `jax.numpy`.

Run by `make bench`. A floor is what a trainer would write for that one space, without checks and without
masks that it does not need: 64x64 tanh towers, `jax.random.categorical`, a normal with a log-std. Both start
from the same params, and their log-probs, entropies and gradients are compared before anything is timed.
Compile times are CPU times of fresh processes without a cache, from the Python function to the executable.
`python benchmarks/floor.py ROW TASK` measures one row and task.
"""

import argparse
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import policy_core as pc
from benchmarks.timing import Measured, in_turn, measured, same, show

Arrays = dict[str, Any]


class Row(NamedTuple):
    """One line of the table: a config and the floor's own way to draw and to score."""

    config: Any
    draw: Callable[..., tuple[Any, jax.Array]]
    """`(head output, mask, key) -> action, log-prob`"""
    score: Callable[..., tuple[jax.Array, jax.Array]]
    """`(head output, mask, action) -> log-prob, entropy`"""
    masked: bool = False


def tower(params: Arrays, x: jax.Array) -> jax.Array:
    for i in range(2):
        x = jnp.tanh(x @ params["tower"][f"hidden_{i}"]["kernel"] + params["tower"][f"hidden_{i}"]["bias"])
    return x


def head_of(params: Arrays, x: jax.Array) -> Any:
    """Logits, or mean and log-std."""
    head = params["actor"]["head"]
    y = tower(params["actor"], x) @ head["kernel"] + head["bias"]
    return (y, head["scale"]) if "scale" in head else y


def value_of(params: Arrays, x: jax.Array) -> jax.Array:
    head = params["critic"]["head"]
    values: jax.Array = tower(params["critic"], x) @ head["kernel"] + head["bias"]
    return values[..., 0]


def categorical_draw(logits: jax.Array, mask: Any, key: jax.Array) -> tuple[jax.Array, jax.Array]:
    logits = logits if mask is None else jnp.where(mask, logits, -1e9)
    action = jax.random.categorical(key, logits)
    return action, jax.nn.log_softmax(logits)[action]


def categorical_score(logits: jax.Array, mask: Any, action: jax.Array) -> tuple[jax.Array, jax.Array]:
    logits = logits if mask is None else jnp.where(mask, logits, -1e9)
    log_probs = jax.nn.log_softmax(logits)
    return log_probs[action], -jnp.sum(jnp.exp(log_probs) * log_probs)


def rows_draw(logits: jax.Array, _: Any, key: jax.Array) -> tuple[jax.Array, jax.Array]:
    parts = [
        categorical_draw(logits[5 * i : 5 * i + 5], None, k) for i, k in enumerate(jax.random.split(key, 8))
    ]
    return jnp.stack([action for action, _ in parts]), sum(log_prob for _, log_prob in parts)  # type: ignore[return-value]


def rows_score(logits: jax.Array, _: Any, action: jax.Array) -> tuple[jax.Array, jax.Array]:
    parts = [categorical_score(logits[5 * i : 5 * i + 5], None, action[i]) for i in range(8)]
    return sum(x for x, _ in parts), sum(x for _, x in parts)  # type: ignore[return-value]


def normal_log_prob(mean: jax.Array, log_std: jax.Array, x: jax.Array) -> jax.Array:
    return jnp.sum(-0.5 * ((x - mean) / jnp.exp(log_std)) ** 2 - log_std - 0.5 * math.log(2 * math.pi))


def normal_draw(head: Any, _: Any, key: jax.Array) -> tuple[jax.Array, jax.Array]:
    mean, log_std = head
    x = mean + jnp.exp(log_std) * jax.random.normal(key, mean.shape)
    return x, normal_log_prob(mean, log_std, x)


def normal_score(head: Any, _: Any, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    mean, log_std = head
    return normal_log_prob(mean, log_std, x), jnp.sum(log_std + 0.5 * math.log(2 * math.pi * math.e))


def log_slope(x: jax.Array) -> jax.Array:
    """Of tanh: `log(1 - tanh(x)^2)`."""
    return 2.0 * (math.log(2.0) - x - jax.nn.softplus(-2.0 * x))


def squashed_draw(head: Any, mask: Any, key: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, log_prob = normal_draw(head, mask, key)
    return x, log_prob - jnp.sum(log_slope(x))


def squashed_score(head: Any, mask: Any, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The entropy as Brax has it: of one sample, here the mean."""
    log_prob, entropy = normal_score(head, mask, x)
    return log_prob - jnp.sum(log_slope(x)), entropy + jnp.sum(log_slope(head[0]))


def _config(inputs: int, space: Any, **more: Any) -> pc.ActorCriticConfig:
    return pc.ActorCriticConfig(observation_space=pc.Box(shape=(inputs,)), action_space=space, **more)


def _classes(inputs: int, n: int, masked: bool = False) -> Row:
    return Row(_config(inputs, pc.Discrete(n)), categorical_draw, categorical_score, masked)


_BOX = pc.Box(low=-1.0, high=1.0, shape=(8,))
ROWS = {
    "4 to Discrete(2)": _classes(4, 2),
    "64 to Discrete(18)": _classes(64, 18),
    "the same, masked": _classes(64, 18, masked=True),
    "64 to Discrete(1024)": _classes(64, 1024),
    "32 to MultiDiscrete(5)^8": Row(_config(32, pc.MultiDiscrete((5,) * 8)), rows_draw, rows_score),
    "27 to Box(8)": Row(_config(27, _BOX), normal_draw, normal_score),
    "the same, squashed": Row(
        _config(27, _BOX, box_head=pc.SquashedNormalHead()), squashed_draw, squashed_score
    ),
}


def inputs_of(row: Row, batch: tuple[int, ...]) -> tuple[Any, Any, Any]:
    """Observations, masks or None, and keys, of a batch."""
    rng = np.random.default_rng(0)
    observation = jnp.asarray(rng.standard_normal((*batch, *row.config.observation_space.shape)), jnp.float32)
    mask = None
    if row.masked:
        allowed = rng.random((*batch, row.config.action_space.n)) < 0.5
        allowed[..., 0] = True
        mask = jnp.asarray(allowed)
    keys = jax.random.split(jax.random.key(1), batch)
    return observation, mask, keys


def losses(row: Row) -> dict[str, Callable[..., jax.Array]]:
    """The clipped loss of a minibatch: `(policy, observations, masks, actions, log-probs, advantages)`."""

    def ppo(score: Any, policy: Any, x: Any, mask: Any, action: Any, old: Any, gain: Any) -> jax.Array:
        value, log_prob, entropy = jax.vmap(partial(score, policy))(x, mask, action)
        ratio = jnp.exp(log_prob - old)
        clipped = jnp.minimum(ratio * gain, jnp.clip(ratio, 0.8, 1.2) * gain)
        return jnp.mean(-clipped + 0.5 * (value - gain) ** 2 - 0.01 * entropy)

    def ours(policy: Any, x: Any, mask: Any, action: Any) -> Any:
        return pc.evaluate_action(policy, (), x, action, action_mask=mask)[1:]

    def floor(policy: Any, x: Any, mask: Any, action: Any) -> Any:
        return value_of(policy[0], x), *row.score(head_of(policy[0], x), mask, action)

    return {"floor": partial(ppo, floor), "ours": partial(ppo, ours)}


def draws(row: Row) -> dict[str, Callable[..., Any]]:
    """`draw(policy, observation, mask, key) -> action, value, log-prob`, of one observation."""

    def ours(policy: Any, x: Any, mask: Any, key: jax.Array) -> Any:
        return pc.action_and_value(policy, (), x, key=key, action_mask=mask)[1:]

    def floor(policy: Any, x: Any, mask: Any, key: jax.Array) -> Any:
        action, log_prob = row.draw(head_of(policy[0], x), mask, key)
        return action, value_of(policy[0], x), log_prob

    return {"floor": floor, "ours": ours}


def acts(row: Row) -> dict[str, Any]:
    """`act(policy, observation, mask)`, the mode of one observation."""

    def ours(policy: Any, x: Any, mask: Any) -> Any:
        return pc.act(policy, (), x, action_mask=mask)[1]

    def floor(policy: Any, x: Any, mask: Any) -> Any:
        y = head_of(policy[0], x)
        if isinstance(y, tuple):
            return jnp.tanh(y[0]) if row.draw is squashed_draw else jnp.clip(y[0], -1.0, 1.0)
        y = y if mask is None else jnp.where(mask, y, -1e9)
        return jnp.argmax(y.reshape(8, 5), -1) if row.draw is rows_draw else jnp.argmax(y)

    return {"floor": jax.jit(floor), "ours": ours}


TASKS = ("act, 1", "draw 64", "draw 4096", "gradient 64", "gradient 4096", "population 32 x 16")


COMPILED = ("draw 64", "gradient 64")


def params_of(row: Row, members: tuple[int, ...] = ()) -> Any:
    """Small random params, without a program that draws them."""
    rng = np.random.default_rng(0)
    structs = jax.eval_shape(lambda: row.config.init(key=jax.random.key(0)))
    return jax.tree.map(
        lambda x: jnp.asarray(0.2 * rng.standard_normal((*members, *x.shape)), x.dtype), structs
    )


def contestants(row: Row, task: str) -> tuple[dict[str, Any], tuple[Any, ...]]:
    """The two functions of a task, jitted, and their arguments."""
    kind, _, size = task.partition(" ")
    policy = params_of(row), row.config
    if kind == "act,":
        x, mask, _ = inputs_of(row, ())
        return acts(row), (policy, x, mask)
    if kind == "population":
        count, each = map(int, size.split(" x "))
        members = params_of(row, (count,)), row.config
        x, mask, key = inputs_of(row, (count, each))
        over = {
            name: jax.jit(jax.vmap(jax.vmap(f, (None, 0, 0, 0)), (0, 0, 0, 0)))
            for name, f in draws(row).items()
        }
        return over, (members, x, mask, key)
    x, mask, key = inputs_of(row, (int(size),))
    drawn = {name: jax.jit(jax.vmap(f, (None, 0, 0, 0))) for name, f in draws(row).items()}
    if kind == "draw":
        return drawn, (policy, x, mask, key)
    action, _, log_prob = drawn["ours"](policy, x, mask, key)
    gain = jax.random.normal(jax.random.key(3), log_prob.shape)
    return {name: jax.jit(jax.grad(f)) for name, f in losses(row).items()}, (
        policy,
        x,
        mask,
        action,
        log_prob,
        gain,
    )


def check(row: Row) -> None:
    """Raise AssertionError unless both compute the same: modes, scores, gradients."""
    for task in ("act, 1", "gradient 64"):
        if task.startswith("gradient") and row.draw is squashed_draw:
            continue  # the floor's entropy is an estimate
        both, arguments = contestants(row, task)
        floor, ours = (both[name](*arguments) for name in ("floor", "ours"))
        if task.startswith("gradient"):
            floor, ours = floor[0], ours[0]
        same(ours, floor)


def run_times(name: str, task: str, seconds: float) -> list[Measured]:
    """The rows of a task of a row."""
    both, arguments = contestants(ROWS[name], task)
    calls = {who: partial(f, *arguments) for who, f in both.items()}
    return measured(name, task, in_turn(calls, seconds), "us")


def compile_seconds(row: Row, task: str, who: str) -> float:
    """CPU seconds from the function to the executable, in this process, with everything imported and warm."""
    both: dict[str, Any] = {}

    def arguments() -> Any:
        functions, found = contestants(row, task)
        both.update(functions)
        return found

    shapes = jax.eval_shape(arguments)
    jax.clear_caches()  # of what the shapes needed
    jax.jit(lambda x: jnp.tanh(x) @ x).lower(jnp.ones((3, 3))).compile()  # what the first compilation loads
    start = time.process_time()
    jax.jit(both[who]).lower(*shapes).compile()
    return time.process_time() - start


def compile_times(name: str, task: str, processes: int) -> list[Measured]:
    """The rows of fresh processes, in turn."""
    seconds: dict[str, list[float]] = {"floor": [], "ours": []}
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    for _ in range(processes):
        for who, found in seconds.items():
            command = [sys.executable, __file__, name, task, "--who", who]
            out = subprocess.run(
                command, check=True, stdout=subprocess.PIPE, text=True, env=environment
            ).stdout
            found.append(float(out))
    return measured(name, f"compile {task}", seconds, "s", paired=False)


def measure(
    seconds: float = 1.5,
    *,
    processes: int | None = None,
    names: Iterable[str] = tuple(ROWS),
    tasks: Iterable[str] = TASKS,
) -> list[Measured]:
    """Every row and task, and the compilation of two of them in `processes` processes each (by default 3)."""
    rows = []
    for name in names:
        check(ROWS[name])
        for task in tasks:
            rows += run_times(name, task, seconds)
        for task in COMPILED if processes != 0 else ():
            rows += compile_times(name, task, processes or 3)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("row", nargs="?", choices=ROWS)
    parser.add_argument("task", nargs="?", choices=TASKS)
    parser.add_argument("--who", choices=("floor", "ours"), help="print the compile time of one, in s")
    parser.add_argument("--seconds", type=float, default=1.5, help="of each task of a row")
    parser.add_argument("--processes", type=int, default=5, help="of each compile time; 0: none")
    options = parser.parse_args()
    if options.who:
        print(compile_seconds(ROWS[options.row], options.task, options.who))
        return
    names = [options.row] if options.row else list(ROWS)
    tasks = [options.task] if options.task else TASKS
    print(show(measure(options.seconds, processes=options.processes, names=names, tasks=tasks)))


if __name__ == "__main__":
    main()
