"""Proximal policy optimization (Schulman et al. 2017), wholly under jit, in one file.

Generic in the policy: whatever keeps the actor-critic contract is trained by this file,
with or without memory, with any action space, masked or not. Minibatches are made of
sequences, each with the state of the memory that it began with, so that gradients flow
through time. It trains one policy; for a population, `jax.vmap` the two functions. Rates may be
arrays, too: inside of the function that is mapped, `make_train` is called with those of a member.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from policy_core_adapters.environment import Environment

import policy_core as pc

Rate = float | jax.Array  # an array for one that is traced, as by `jax.vmap` over members


class Hyperparameters(NamedTuple):
    """The names are those of the paper and of the usual implementations."""

    num_envs: int = 32
    num_steps: int = 32  # of each environment, between two updates
    num_updates: int = 160
    num_epochs: int = 10
    num_minibatches: int = 4
    sequence_length: int = 1  # the horizon of backpropagation; raise it for a memory
    learning_rate: Rate = 1e-3  # annealed linearly to zero
    discount: float = 0.98
    gae_lambda: float = 0.9
    clip_range: Rate = 0.2
    value_coefficient: float = 0.5
    entropy_coefficient: Rate = 0.0
    max_grad_norm: float = 0.5
    temperature: Rate | None = None  # of the actions, instead of that of the config, which has one


class Runner(NamedTuple):
    """Everything that training carries from one update to the next."""

    policy: Any
    optimizer_state: Any
    policy_state: Any  # of each environment, as are the next four
    env_state: Any
    observation: Any
    is_first: jax.Array
    episode_return: jax.Array
    key: jax.Array


class Transition(NamedTuple):
    """What a rollout stores, `[time, env, ...]`."""

    policy_state: Any  # before the observation
    observation: Any
    is_first: jax.Array
    action_mask: Any
    action: Any  # the policy action, whose log-probability is stored beside it
    log_prob: jax.Array
    value: jax.Array
    reward: jax.Array
    sign: jax.Array  # of the next value: -1 where an opponent moves next, else 1
    done: jax.Array
    returned: jax.Array  # the return of the episode that ended here, else NaN
    valid: jax.Array  # whether the action was played, and counts


# ADVANTAGES: generalized advantage estimation (Schulman et al. 2016) -----------------------


def advantages(hyper: Hyperparameters, transitions: Transition, last_value: jax.Array) -> jax.Array:
    """`[time, env]`, from what was stored and the values of the observations that come next."""

    def backward(carry: Any, t: Transition) -> tuple[Any, jax.Array]:
        advantage, next_value = carry
        going_on = t.sign * (1.0 - t.done)
        delta = t.reward + hyper.discount * next_value * going_on - t.value
        advantage = delta + hyper.discount * hyper.gae_lambda * going_on * advantage
        return (advantage, t.value), advantage

    start = (jnp.zeros_like(last_value), last_value)
    _, advantage = jax.lax.scan(backward, start, transitions, reverse=True)
    return jnp.asarray(advantage)


def shuffles(key: jax.Array, count: int, size: int) -> jax.Array:
    """`[count, size]`: in each row the numbers below `size`, shuffled.

    These are the last bits of random numbers, which are sorted by all of their bits. On CPUs it takes an
    eighth of the time of `jax.random.permutation`, which sorts pairs, and several times.
    """
    bits = (size - 1).bit_length()
    draws = jax.random.bits(key, (count, size), jnp.uint32)
    order = jnp.sort(draws >> bits << bits | jnp.arange(size, dtype=jnp.uint32)) % 2**bits
    return jnp.asarray(order)


def make_train(
    config: pc.contract.ActorCritic,
    env: Environment,
    hyper: Hyperparameters,
    optimizer: optax.GradientTransformation | None = None,
) -> tuple[Callable[[jax.Array], Runner], Callable[[Runner], tuple[Runner, jax.Array]]]:
    """`init(key) -> runner` and `update(runner) -> (runner, returns of ended episodes)`.

    Both are pure; jit them, scan the second. The returns are `[num_steps, num_envs]`, NaN
    where no episode ended. An optimizer is used as it is, in place of Adam with the learning rate
    and the norm of `hyper`; only what `pc.trainable` names is given to it.
    """
    num_sequences = hyper.num_envs * hyper.num_steps // hyper.sequence_length
    if hyper.num_steps % hyper.sequence_length or num_sequences % hyper.num_minibatches:
        raise ValueError("num_steps must be whole sequences, and these whole minibatches")
    if optimizer is None:
        updates = hyper.num_updates * hyper.num_epochs * hyper.num_minibatches
        adam = optax.adam(optax.linear_schedule(hyper.learning_rate, 0.0, updates), eps=1e-5)
        optimizer = optax.flatten(optax.chain(optax.clip_by_global_norm(hyper.max_grad_norm), adam))
    optimizer = optax.multi_transform({True: optimizer, False: optax.set_to_zero()}, pc.trainable)

    def init(key: jax.Array) -> Runner:
        policy_key, env_key, key = jax.random.split(key, 3)
        policy: Any = pc.init(config, key=policy_key)
        observation, env_state = jax.vmap(env.reset)(jax.random.split(env_key, hyper.num_envs))
        policy_state = pc.reset(policy, batch=(hyper.num_envs,))
        zeros = jnp.zeros(hyper.num_envs)
        return Runner(
            policy, optimizer.init(policy), policy_state, env_state, observation, zeros == 0, zeros, key
        )

    # ROLLOUT -----------------------------------------------------------------------------

    def env_step(runner: Runner, keys: jax.Array) -> tuple[Runner, Transition]:
        def one(keys: jax.Array, policy_state: Any, env_state: Any, observation: Any, first: Any) -> Any:
            action_key, env_key = keys
            mask = env.action_mask(env_state)
            policy_state, action, value, log_prob = pc.action_and_value(
                runner.policy, policy_state, observation, key=action_key, action_mask=mask, is_first=first
            )
            step = env.step(env_key, env_state, pc.env_action(runner.policy, action))
            return policy_state, step, mask, action, log_prob, value

        policy_state, step, mask, action, log_prob, value = jax.vmap(one)(
            keys, runner.policy_state, runner.env_state, runner.observation, runner.is_first
        )

        def beyond() -> jax.Array:
            values: Any = jax.vmap(lambda state, x: pc.value(runner.policy, state, x)[1])
            return jnp.where(step.truncated, values(policy_state, step.final_observation), 0.0)

        # A time limit is not the end of the world: what would have come counts. Few steps have any.
        bootstrap = jax.lax.cond(jnp.any(step.truncated), beyond, lambda: jnp.zeros_like(value))
        reward = step.reward + hyper.discount * step.sign * bootstrap
        done = step.terminated | step.truncated
        total = runner.episode_return + step.reward
        transition = Transition(
            runner.policy_state, runner.observation, runner.is_first, mask, action, log_prob,
            value, reward, step.sign, done, jnp.where(done & step.valid, total, jnp.nan), step.valid,
        )  # fmt: skip
        runner = runner._replace(
            policy_state=policy_state,
            env_state=step.state,
            observation=step.observation,
            is_first=done,
            episode_return=jnp.where(done, 0.0, total),
        )
        return runner, transition

    # LOSS ----------------------------------------------------------------------------------

    def loss(policy: Any, batch: Any) -> Any:
        has_memory = bool(jax.tree.leaves(batch[0].policy_state))
        if not has_memory:  # steps are independent: one long sequence is one product
            batch = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), batch)
        t, advantage, target = batch  # [sequence, time, ...]

        def evaluate(t: Transition) -> Any:
            first_state = jax.tree.map(lambda x: x[0], t.policy_state)
            return pc.forward_sequence(
                policy, first_state, t.observation, is_first=t.is_first, action_masks=t.action_mask
            )

        _, distribution, critic = jax.vmap(evaluate)(t) if has_memory else evaluate(t)
        log_prob, entropy = distribution.log_prob(t.action), distribution.entropy()

        def mean(x: jax.Array) -> jax.Array:
            return jnp.sum(x, where=t.valid) / jnp.maximum(jnp.sum(t.valid, dtype=x.dtype), 1.0)

        centered = advantage - mean(advantage)
        advantage = centered / (jnp.sqrt(mean(jnp.square(centered))) + 1e-8)
        ratio = jnp.exp(log_prob - t.log_prob)
        clipped = jnp.clip(ratio, 1 - hyper.clip_range, 1 + hyper.clip_range)
        policy_loss = -mean(jnp.minimum(ratio * advantage, clipped * advantage))
        value_loss = mean(critic.loss(target))  # half a squared error, or what the value head asks for
        return policy_loss + hyper.value_coefficient * value_loss - hyper.entropy_coefficient * mean(entropy)

    def to_sequences(x: jax.Array) -> jax.Array:
        """`[time, env, ...]` to `[sequence, sequence_length, ...]`."""
        x = x.reshape(-1, hyper.sequence_length, *x.shape[1:])
        return x.swapaxes(1, 2).reshape(num_sequences, hyper.sequence_length, *x.shape[3:])

    # UPDATE --------------------------------------------------------------------------------

    def update(runner: Runner) -> tuple[Runner, jax.Array]:
        if hyper.temperature is not None:
            leaves = {"temperature": jnp.asarray(hyper.temperature)}
            runner = runner._replace(policy=pc.population.set_leaves(runner.policy, leaves))
        key, env_key, order_key = jax.random.split(runner.key, 3)
        keys = jax.random.split(env_key, (hyper.num_steps, hyper.num_envs, 2))
        runner, transitions = jax.lax.scan(env_step, runner._replace(key=key), keys)
        last_value = jax.vmap(
            lambda state, observation, first: pc.value(runner.policy, state, observation, is_first=first)[1]
        )(runner.policy_state, runner.observation, runner.is_first)
        advantage = advantages(hyper, transitions, last_value)
        batch = jax.tree.map(to_sequences, (transitions, advantage, advantage + transitions.value))

        def minibatch_step(carry: Any, indices: jax.Array) -> tuple[Any, None]:
            policy, optimizer_state = carry
            gradient = jax.grad(loss)(policy, jax.tree.map(lambda x: x[indices], batch))
            change, optimizer_state = optimizer.update(gradient, optimizer_state, policy)
            return (optax.apply_updates(policy, change), optimizer_state), None

        # First, so that a critic of normalized values is trained on the scale of these targets.
        target = advantage + transitions.value
        policy = pc.update_statistics(runner.policy, returns=target, mask=transitions.valid)
        minibatches = shuffles(order_key, hyper.num_epochs, num_sequences)
        minibatches = minibatches.reshape(hyper.num_epochs * hyper.num_minibatches, -1)
        carry = (policy, runner.optimizer_state)
        (policy, optimizer_state), _ = jax.lax.scan(minibatch_step, carry, minibatches)
        # Last, so that the loss sees the observations as the rollout did, and ratios start at 1.
        policy = pc.update_statistics(policy, transitions.observation, mask=transitions.valid)
        runner = runner._replace(policy=policy, optimizer_state=optimizer_state)
        return runner, transitions.returned

    return init, update


def main() -> int:
    """Train one policy on an environment by name, and save it."""
    import argparse

    import command
    import environments

    parser = argparse.ArgumentParser(description="Train one policy with the defaults, and save it.")
    packages = ", ".join(environments.PACKAGES)
    parser.add_argument(
        "--env", default="CartPole-v1", help=f"PACKAGE:NAME, where PACKAGE is one of {packages}"
    )
    parser.add_argument("--updates", type=command.positive, default=Hyperparameters().num_updates)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default="policy.msgpack", help="the file")
    options = parser.parse_args()
    env = command.environment(options.env)
    config = pc.ActorCriticConfig(observation_space=env.observation_space, action_space=env.action_space)
    hyper = Hyperparameters(num_updates=options.updates)
    init, update = make_train(config, env, hyper)
    runner, update = jax.jit(init)(jax.random.key(options.seed)), jax.jit(update)
    for i in range(1, options.updates + 1):
        runner, returned = update(runner)
        steps = i * hyper.num_envs * hyper.num_steps
        ended = returned[~jnp.isnan(returned)]
        figure = f"mean return {ended.mean():8.2f}" if ended.size else "no episode ended"
        print(f"{steps:9,} steps, {figure}", flush=True)
    pc.save(options.out, runner.policy, metadata={"environment": options.env})
    return 0


if __name__ == "__main__":
    import command

    command.run(main)
