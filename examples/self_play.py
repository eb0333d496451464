"""Self-play: one policy learns connect-four from both sides of the board.

The trainer is `ppo.py` as it is: every move is a step, and `Step.sign` says that the next value is the
other player's, so that what is good for them counts against us. (`pgx.make(name, opponent)` is the
other way: an opponent that answers inside of `step`.) A share of the moves is drawn at random; without
that the two meet ever fewer positions, and lose to whoever plays others. In the end the greedy policy
plays one that draws among its legal moves, as the first player and as the second.
"""

import command

# isort: split
import argparse
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import ppo
from evaluate import episode_return
from policy_core_adapters import pgx
from policy_core_adapters.environment import Environment, Step
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

import policy_core as pc

HYPER = ppo.Hyperparameters(
    num_envs=128,
    num_updates=192,
    num_epochs=4,
    num_minibatches=8,
    discount=0.9,  # a move
    entropy_coefficient=0.05,
)
RANDOM_MOVES = 0.2  # of all, in training
CHUNKS = 12  # points of the learning curve
MOST_MOVES = 21  # of one player in a game


def with_random_moves(env: Environment, share: float) -> Environment:
    """The game in which a share of the moves is drawn among the legal ones, whatever was chosen."""

    def step(key: jax.Array, state: Any, action: Any) -> Step:
        move_key, which_key, key = jax.random.split(key, 3)
        other = env.action_space.sample(key=move_key, mask=env.action_mask(state))
        drawn = jax.random.bernoulli(which_key, share)
        return env.step(key, state, jnp.where(drawn, other, action))

    return env._replace(step=step)


def against_random(policy: Any, key: jax.Array, games: int) -> tuple[jax.Array, jax.Array]:
    """The share of games that the greedy policy wins as the first player, and as the second."""
    env = pgx.make("connect_four", pgx.random_player)

    def game(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        _, state = env.reset(jax.random.split(key)[0])  # that of `episode_return`
        return episode_return(policy, env, key, MOST_MOVES) > 0, state.first == 0

    won, first = jax.vmap(game)(jax.random.split(key, games))
    return jnp.sum(won & first) / jnp.sum(first), jnp.sum(won & ~first) / jnp.sum(~first)


def train(config: Any, hyper: ppo.Hyperparameters, seed: int, games: int, console: Console) -> Any:
    """The policy, and the shares of games that it won on the way, `[point, first or second]`."""
    env = with_random_moves(pgx.make("connect_four", None), RANDOM_MOVES)
    init, update = ppo.make_train(config, env, hyper)
    updates = hyper.num_updates // CHUNKS

    @jax.jit
    def train_chunk(runner: ppo.Runner) -> tuple[ppo.Runner, Any]:
        runner, _ = jax.lax.scan(lambda r, _: update(r), runner, None, updates)
        return runner, against_random(runner.policy, jax.random.key(1), games)

    runner, curve = jax.jit(init)(jax.random.key(seed)), []
    columns = (TextColumn("training"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(compact=True))
    with Progress(*columns, TextColumn("{task.fields[figures]}"), console=console) as progress:
        task = progress.add_task("", total=CHUNKS, figures="compiling")
        for chunk in range(1, CHUNKS + 1):
            runner, shares = train_chunk(runner)
            curve.append([float(share) for share in shares])
            moves = chunk * updates * hyper.num_envs * hyper.num_steps
            figures = (
                f"{moves:7,} moves, wins {curve[-1][0]:4.0%} of games begun, {curve[-1][1]:4.0%} of others"
            )
            progress.update(task, advance=1, figures=figures)
    return runner.policy, np.array(curve)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--updates", type=int, default=HYPER.num_updates)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--games", type=int, default=1000, help="of the evaluation")
    parser.add_argument("--target", type=float, default=0.95, help="share of games to win on each side")
    parser.add_argument("--out", type=Path, default=Path("build/self_play.msgpack"))
    options = parser.parse_args()
    console, start = Console(), time.perf_counter()

    env = pgx.make("connect_four", None)
    config = pc.ActorCriticConfig(
        observation_space=env.observation_space,
        action_space=env.action_space,
        encoder=pc.MinAtarCNN(),
        actor=pc.MLP((64,)),
        critic=pc.MLP((64,)),
    )
    hyper = HYPER._replace(num_updates=options.updates)
    policy, curve = train(config, hyper, options.seed, 200, console)
    console.print("wins against random moves, as the first and as the second player:")
    console.print("\n".join(f"{i / CHUNKS:6.0%}  {a:4.0%} {b:4.0%}" for i, (a, b) in enumerate(curve, 1)))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    pc.save(options.out, policy, metadata={"environment": "pgx:connect_four"})
    test = jax.jit(lambda policy, key: against_random(policy, key, options.games))
    first, second = (float(share) for share in test(policy, jax.random.key(1000)))
    passed = min(first, second) >= options.target
    console.print(
        f"of {options.games} games, wins {first:.1%} of those begun and {second:.1%} of the others: target "
        f"of {options.target:.0%} {'reached' if passed else 'MISSED'}, {time.perf_counter() - start:.0f} s"
    )
    return 0 if passed else 1


if __name__ == "__main__":
    command.run(main)
