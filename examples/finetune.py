"""Go on with what another library has begun: a policy of Stable-Baselines3, imported, fine-tuned and saved.

`sb3_cartpole.zip` was trained by Stable-Baselines3 for 1,024 steps (tests/fixtures/make_sb3.py). Only numbers
come from it: neither torch nor Stable-Baselines3 is needed.
"""

import command

# isort: split
import argparse
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ppo
from evaluate import evaluate
from policy_core_adapters.environment import Environment
from policy_core_adapters.imports import sb3

import policy_core as pc

HERE = Path(__file__).parent
EPISODES = 100


def finetune(policy: Any, env: Environment, hyper: ppo.Hyperparameters, key: jax.Array) -> Any:
    """The policy after `hyper.num_updates` updates of PPO, from where it is."""
    init, update = ppo.make_train(policy[1], env, hyper)
    runner = jax.jit(init)(
        key
    )  # of which only the policy is fresh: an optimizer begins with zeros in any case
    states = pc.reset(policy, batch=(hyper.num_envs,))
    # Copied, for a runner that is donated would take the arrays of the caller with it.
    runner = runner._replace(policy=jax.tree.map(jnp.copy, policy), policy_state=states)
    runner, _ = jax.jit(lambda runner: jax.lax.scan(lambda r, _: update(r), runner, None, hyper.num_updates))(
        runner
    )
    return runner.policy


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--file", type=Path, default=HERE / "sb3_cartpole.zip", help="a zip of SB3")
    parser.add_argument("--env", default="CartPole-v1", help="PACKAGE:NAME, of gymnax without PACKAGE:")
    parser.add_argument("--updates", type=command.positive, default=160)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--target", type=float, default=475.0, help="mean return to ask for")
    parser.add_argument("--out", type=Path, default=Path("finetuned.msgpack"), help="the file")
    options = parser.parse_args()
    env = command.environment(options.env)
    found = sb3.load(options.file)
    command.check_fits(found.policy[1], env, options.env)
    keys = jax.random.split(jax.random.key(options.seed))
    played = jax.jit(lambda policy: evaluate(policy, env, keys[1], EPISODES, 500).mean())
    hyper = ppo.Hyperparameters(num_updates=options.updates, learning_rate=options.learning_rate)
    before = float(played(found.policy))
    policy = finetune(found.policy, env, hyper, keys[0])
    after = float(played(policy))
    metadata = {**found.metadata, "fine-tuned on": options.env, "updates": str(options.updates)}
    pc.save(options.out, policy, metadata=metadata)
    steps = options.updates * hyper.num_envs * hyper.num_steps
    print(f"{options.file.name}, of Stable-Baselines3 {found.metadata['version']}: mean return {before:.1f}")
    print(f"{options.out}, {steps:,} steps later: mean return {after:.1f}")
    return 0 if after >= options.target else 1


if __name__ == "__main__":
    command.run(main)
