"""Load a policy file, or a population, and let it play: the file is all that is needed."""

import command

# isort: split
import argparse
from typing import Any

import jax
import jax.numpy as jnp
from policy_core_adapters.environment import Environment
from rich.console import Console
from rich.table import Table

import policy_core as pc


def episode_return(policy: Any, env: Environment, key: jax.Array, max_steps: int) -> jax.Array:
    """The return of one episode of the deterministic policy."""

    def step(carry: Any, key: jax.Array) -> tuple[Any, None]:
        env_state, state, observation, total, alive = carry
        mask = env.action_mask(env_state)
        state, action = pc.act(policy, state, observation, action_mask=mask)
        outcome = env.step(key, env_state, action)
        total = total + alive * outcome.reward
        alive = alive * ~(outcome.terminated | outcome.truncated)
        return (outcome.state, state, outcome.observation, total, alive), None

    reset_key, key = jax.random.split(key)
    observation, env_state = env.reset(reset_key)
    carry = (env_state, pc.reset(policy), observation, jnp.zeros(()), jnp.ones(()))
    (*_, total, _), _ = jax.lax.scan(step, carry, jax.random.split(key, max_steps))
    return jnp.asarray(total)


def evaluate(policy: Any, env: Environment, key: jax.Array, episodes: int, max_steps: int) -> jax.Array:
    """Returns `[episodes]`."""
    keys = jax.random.split(key, episodes)
    return jax.vmap(lambda key: episode_return(policy, env, key, max_steps))(keys)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file")
    parser.add_argument("--env", default="CartPole-v1", help="PACKAGE:NAME, of gymnax without PACKAGE:")
    parser.add_argument("--episodes", type=command.positive, default=100)
    parser.add_argument("--max-steps", type=command.positive, default=500, help="of an episode")
    parser.add_argument("--seed", type=int, default=1000, help="of the environments")
    parser.add_argument("--target", type=float, default=float("-inf"), help="mean return to ask for")
    options = parser.parse_args()

    policy = pc.load(options.file)
    _, config = policy
    env = command.environment(options.env)
    command.check_fits(config, env, options.env)
    axes = len(pc.batch_shape(policy))
    policies = jax.tree.map(lambda x: x.reshape(-1, *x.shape[axes:]), policy)
    key = jax.random.key(options.seed)
    run = jax.vmap(lambda policy: evaluate(policy, env, key, options.episodes, options.max_steps))
    returns = jax.jit(run)(policies)

    table = Table(
        title=f"{options.env}, {options.episodes} episodes each of at most {options.max_steps} steps"
    )
    for column in ("policy", "mean return", "worst", "best"):
        table.add_column(column, justify="right")
    for i, row in enumerate(returns):
        table.add_row(str(i), f"{row.mean():.1f}", f"{row.min():.0f}", f"{row.max():.0f}")
    Console().print(table)
    worst = float(returns.mean(axis=1).min())
    passed = worst >= options.target
    if options.target > float("-inf"):
        verdict = "reached" if passed else "MISSED"
        Console().print(f"target of {options.target:.0f} for every policy: {verdict} ({worst:.1f})")
    return 0 if passed else 1


if __name__ == "__main__":
    command.run(main)
