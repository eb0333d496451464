"""One PPO with the options of `Rule`, and a batch of seeds of it as one program.

Not copied: the environments are those of gymnax, also for Lerax, which has its own; the statistics of
observations are updated after an update, as in `examples/ppo.py`, where rejax does so at each step;
nothing is evaluated apart from training.
"""

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from policy_core_adapters import gymnax
from policy_core_adapters.environment import Environment

import policy_core as pc
from benchmarks.defaults.settings import LERAX_OWN, Setting, as_equinox

POINTS = 20  # of a curve


def make_train(
    setting: Setting,
    config: pc.ActorCriticConfig,
    env: Environment,
    fresh: Callable[[jax.Array], Any],
) -> Callable[[jax.Array], tuple[jax.Array, jax.Array]]:
    """`train(key)`: the sum of the returns of the episodes that ended in each update, and their number.

    `fresh(key)` are the first params.
    """
    rule = setting.rule
    size = rule.num_envs * rule.num_steps
    num_updates = -(-setting.steps // size)
    rate = optax.linear_schedule(
        rule.learning_rate, 0.0, num_updates * rule.num_epochs * rule.num_minibatches
    )
    clip = optax.clip_by_global_norm if rule.clip == "norm" else optax.clip
    adam = optax.adam(rate if rule.annealed else rule.learning_rate, eps=rule.adam_eps)
    optimizer = optax.multi_transform(
        {True: optax.chain(clip(rule.max_gradient), adam), False: optax.set_to_zero()}, config.trainable
    )

    def forward(params: Any, observation: Any) -> tuple[Any, jax.Array]:
        step: Any = jax.vmap(lambda x: config.forward(params, (), x))
        _, distribution, prediction = step(observation)
        return distribution, prediction.value()

    def env_step(carry: Any, key: jax.Array) -> Any:
        params, observation, state, total = carry
        action_key, env_key = jax.random.split(key)
        distribution, value = forward(params, observation)
        keys = jax.random.split(action_key, rule.num_envs)
        action = jax.vmap(lambda one, key: one.sample(key=key))(distribution, keys)
        log_prob, played = distribution.log_prob(action), jax.vmap(config.env_action)(action)
        step = jax.vmap(env.step)(jax.random.split(env_key, rule.num_envs), state, played)
        reward = setting.reward_scale * step.reward
        if rule.bootstrap:
            _, beyond = forward(params, step.final_observation)
            reward = reward + rule.discount * jnp.where(step.truncated, beyond, 0.0)
        done = step.terminated | step.truncated
        total = total + step.reward
        stored = played if rule.as_played else action
        transition = observation, stored, log_prob, value, reward, done
        returned = jnp.sum(total, where=done), jnp.sum(done)
        return (params, step.observation, step.state, jnp.where(done, 0.0, total)), (transition, returned)

    def loss(params: Any, batch: Any) -> Any:
        (observation, action, log_prob, old_value, *_), advantage = batch
        distribution, value = forward(params, observation)
        target = advantage + old_value
        ratio = jnp.exp(distribution.log_prob(action) - log_prob)
        advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
        policy_loss = -jnp.minimum(ratio * advantage, jnp.clip(ratio, 0.8, 1.2) * advantage).mean()
        error = jnp.square(value - target)
        if rule.value_clip:
            near = old_value + jnp.clip(value - old_value, -0.2, 0.2)
            error = jnp.maximum(error, jnp.square(near - target))
        return policy_loss + 0.25 * error.mean() - rule.entropy * distribution.entropy().mean()

    def minibatch_step(carry: Any, batch: Any) -> tuple[Any, None]:
        params, optimizer_state = carry
        change, optimizer_state = optimizer.update(jax.grad(loss)(params, batch), optimizer_state, params)
        return (optax.apply_updates(params, change), optimizer_state), None

    def update(carry: Any, key: jax.Array) -> Any:
        params, optimizer_state, *env_carry = carry
        rollout_key, *epoch_keys = jax.random.split(key, 1 + rule.num_epochs)
        (_, *env_carry), (transitions, returned) = jax.lax.scan(
            env_step, (params, *env_carry), jax.random.split(rollout_key, rule.num_steps)
        )
        observation, _, _, values, rewards, dones = transitions
        _, last_value = forward(params, env_carry[0])

        def backward(carry: Any, t: Any) -> Any:
            advantage, next_value = carry
            value, reward, done = t
            delta = reward + rule.discount * next_value * (1 - done) - value
            advantage = delta + rule.discount * rule.gae_lambda * (1 - done) * advantage
            return (advantage, value), advantage

        start = jnp.zeros_like(last_value), last_value
        _, advantage = jax.lax.scan(backward, start, (values, rewards, dones), reverse=True)
        batch = jax.tree.map(lambda x: x.reshape(size, *x.shape[2:]), (transitions, advantage))

        def epoch(carry: Any, key: jax.Array) -> tuple[Any, None]:
            order = jax.random.permutation(key, size).reshape(rule.num_minibatches, -1)
            return jax.lax.scan(minibatch_step, carry, jax.tree.map(lambda x: x[order], batch))

        (params, optimizer_state), _ = jax.lax.scan(epoch, (params, optimizer_state), jnp.stack(epoch_keys))
        params = config.update_statistics(params, observation)
        return (params, optimizer_state, *env_carry), jax.tree.map(jnp.sum, returned)

    def train(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        policy_key, env_key, key = jax.random.split(key, 3)
        params = fresh(policy_key)
        observation, state = jax.vmap(env.reset)(jax.random.split(env_key, rule.num_envs))
        carry = params, optimizer.init(params), observation, state, jnp.zeros(rule.num_envs)
        _, (total, count) = jax.lax.scan(update, carry, jax.random.split(key, num_updates))
        return total, count

    return train


def ended_by_chance(setting: Setting, std: float, max_steps: int) -> float:
    """The part of 2,000 episodes of independent normal actions, clipped, that reach a terminal state."""
    env = gymnax.make(setting.task)
    box: Any = env.action_space

    def episode(key: jax.Array) -> jax.Array:
        def step(carry: Any, key: jax.Array) -> tuple[Any, None]:
            state, going_on, found = carry
            action = jnp.clip(std * jax.random.normal(key, box.shape), *box.bounds())
            result = env.step(key, state, action)
            found |= going_on & result.terminated
            return (result.state, going_on & ~(result.terminated | result.truncated), found), None

        start = env.reset(key)[1], jnp.array(True), jnp.array(False)
        (_, _, found), _ = jax.lax.scan(step, start, jax.random.split(key, max_steps))
        return jnp.asarray(found)

    return float(jax.jit(jax.vmap(episode))(jax.random.split(jax.random.key(0), 2000)).mean())


def run(setting: Setting, name: str, fields: dict[str, Any], seeds: range) -> dict[str, Any]:
    """Train the seeds: a curve of each, and seconds of the processors, those of a seed and of compilation."""
    env = gymnax.make(setting.task)
    normalize = pc.Normalize() if setting.normalize else None
    config = pc.ActorCriticConfig(
        observation_space=env.observation_space,
        action_space=env.action_space,
        **{"normalize": normalize, **fields},
    )

    def fresh(key: jax.Array) -> Any:
        params = config.init(key=key)
        return as_equinox(params, key) if name == LERAX_OWN else params

    keys = jax.vmap(jax.random.key)(jnp.array(seeds))
    start = time.process_time()
    program = jax.jit(jax.vmap(make_train(setting, config, env, fresh))).lower(keys).compile()
    compiled = time.process_time()
    total, count = (np.asarray(x) for x in program(keys))
    seconds = time.process_time() - compiled
    parts = np.array_split(np.arange(total.shape[1]), min(POINTS, total.shape[1] // 2))
    with np.errstate(invalid="ignore"):  # NaN before the first episode ends
        curves = [total[:, part].sum(1) / count[:, part].sum(1) for part in parts]
    return {
        "curves": np.round(curves, 3).T.tolist(),
        "seconds": round(seconds / len(seeds), 3),
        "compile": round(compiled - start, 1),
    }
