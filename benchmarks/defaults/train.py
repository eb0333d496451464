"""One PPO with the options of `Rule`, and a batch of seeds of it as one program.

Not copied: the environments are those of gymnax, also for Lerax, which has its own; the statistics of
observations are updated after an update, as in `examples/ppo.py`, where rejax does so at each step;
nothing is evaluated apart from training.
"""

import contextlib
import fcntl
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from policy_core_adapters import gymnax
from policy_core_adapters.environment import Environment

import policy_core as pc
from benchmarks.defaults.settings import EVERYTHING, LERAX_OWN, Rule, Setting, as_equinox

POINTS = 20  # of a curve
EXCLUSIVE = "POLICY_CORE_BENCHMARK_LOCK"  # a file: who has it runs, while others compile
Train = Callable[[jax.Array, Any, dict[str, Any]], tuple[jax.Array, jax.Array]]


def either(flag: Any, yes: Callable[[], Any], no: Callable[[], Any]) -> Any:
    """`yes()` or `no()`; of an array both are computed."""
    if isinstance(flag, bool):
        return yes() if flag else no()
    return jax.tree.map(lambda a, b: jnp.where(flag, a, b), yes(), no())


def make_optimizer(rule: Rule, num_updates: int, trainable: Any) -> optax.GradientTransformation:
    last = either(rule.annealed, lambda: 0.0, lambda: rule.learning_rate)
    steps = num_updates * rule.num_epochs * rule.num_minibatches
    rate = optax.linear_schedule(rule.learning_rate, last, steps)

    def clip(gradient: Any, params: Any) -> Any:
        def clipped(how: optax.GradientTransformation) -> Any:
            return how.update(gradient, how.init(params))[0]

        return either(
            rule.clip_entries,
            lambda: clipped(optax.clip(rule.max_gradient)),
            lambda: clipped(optax.clip_by_global_norm(rule.max_gradient)),
        )

    moves = optax.chain(optax.stateless(clip), optax.adam(rate, eps=rule.adam_eps))
    return optax.multi_transform({True: moves, False: optax.set_to_zero()}, trainable)


def make_train(setting: Setting, config: pc.ActorCriticConfig, env: Environment) -> Train:
    """`train(key, params, options)`: the sum of the returns that ended in each update, and their number.

    `options` replace fields of the rule.
    """

    def train(key: jax.Array, params: Any, options: dict[str, Any]) -> tuple[jax.Array, jax.Array]:
        rule = setting.rule._replace(**options)
        num_updates = -(-setting.steps // (rule.num_envs * rule.num_steps))
        optimizer = make_optimizer(rule, num_updates, config.trainable)
        update = make_update(setting, rule, config, env, optimizer)
        _, env_key, key = jax.random.split(key, 3)  # the first one is that of the params
        observation, env_state = jax.vmap(env.reset)(jax.random.split(env_key, rule.num_envs))
        start: Any = config.initial_state(params)
        memory = jax.tree.map(lambda x: jnp.broadcast_to(x, (rule.num_envs, *x.shape)), start)
        zeros = jnp.zeros(rule.num_envs)
        carry = params, optimizer.init(params), observation, env_state, memory, zeros == 0, zeros
        _, (total, count) = jax.lax.scan(update, carry, jax.random.split(key, num_updates))
        return total, count

    return train


def make_update(
    setting: Setting,
    rule: Rule,
    config: pc.ActorCriticConfig,
    env: Environment,
    optimizer: optax.GradientTransformation,
) -> Callable[[Any, jax.Array], Any]:
    """A rollout and the epochs on it, for a scan."""
    size = rule.num_envs * rule.num_steps
    recurrent = setting.memory is not None

    def forward(params: Any, memory: Any, first: jax.Array, observation: Any) -> tuple[Any, Any, jax.Array]:
        def one(memory: Any, first: jax.Array, observation: Any) -> Any:
            start = config.initial_state(params)
            memory = jax.tree.map(lambda a, b: jnp.where(first, a, b), start, memory)
            return config.forward(params, memory, observation)

        step: Any = jax.vmap(one)
        memory, distribution, prediction = step(memory, first, observation)
        return memory, distribution, prediction.value()

    def env_step(carry: Any, key: jax.Array) -> Any:
        params, observation, state, before, first, total = carry
        action_key, env_key = jax.random.split(key)
        memory, distribution, value = forward(params, before, first, observation)
        keys = jax.random.split(action_key, rule.num_envs)
        action = jax.vmap(lambda one, key: one.sample(key=key))(distribution, keys)
        log_prob, played = distribution.log_prob(action), jax.vmap(config.env_action)(action)
        step = jax.vmap(env.step)(jax.random.split(env_key, rule.num_envs), state, played)
        reward = setting.reward_scale * step.reward

        def bootstrapped() -> jax.Array:
            *_, beyond = forward(params, memory, jnp.zeros_like(first), step.final_observation)
            return reward + rule.discount * jnp.where(step.truncated, beyond, 0.0)

        reward = either(rule.bootstrap, bootstrapped, lambda: reward)
        done = step.terminated | step.truncated
        total = total + step.reward
        stored = either(rule.as_played, lambda: played, lambda: action)
        transition = (observation, stored, log_prob, value, reward, done), (before, first)
        returned = jnp.sum(total, where=done), jnp.sum(done)
        carry = params, step.observation, step.state, memory, done, jnp.where(done, 0.0, total)
        return carry, (transition, returned)

    def evaluate(params: Any, observation: Any, memory: Any, first: jax.Array) -> Any:
        """Of a minibatch, `[step]` or, with a memory, `[env, time]`."""
        if not recurrent:
            return forward(params, memory, first, observation)[1:]

        def sequence(memory: Any, first: jax.Array, observation: Any) -> Any:
            start = jax.tree.map(lambda x: x[0], memory)
            return config.forward_sequence(params, start, observation, is_first=first)

        _, distribution, prediction = jax.vmap(sequence)(memory, first, observation)
        return distribution, prediction.value()

    def loss(params: Any, batch: Any) -> Any:
        ((observation, action, log_prob, old_value, *_), (memory, first)), advantage = batch
        distribution, value = evaluate(params, observation, memory, first)
        target = advantage + old_value
        ratio = jnp.exp(distribution.log_prob(action) - log_prob)
        advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
        policy_loss = -jnp.minimum(ratio * advantage, jnp.clip(ratio, 0.8, 1.2) * advantage).mean()
        error = jnp.square(value - target)

        def of_near_values() -> jax.Array:
            near = old_value + jnp.clip(value - old_value, -0.2, 0.2)
            return jnp.maximum(error, jnp.square(near - target))

        value_loss = either(rule.value_clip, of_near_values, lambda: error).mean()
        return policy_loss + 0.25 * value_loss - rule.entropy * distribution.entropy().mean()

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
        observation, _, _, values, rewards, dones = transitions[0]
        last_observation, _, memory, first, _ = env_carry
        *_, last_value = forward(params, memory, first, last_observation)

        def backward(carry: Any, t: Any) -> Any:
            advantage, next_value = carry
            value, reward, done = t
            delta = reward + rule.discount * next_value * (1 - done) - value
            advantage = delta + rule.discount * rule.gae_lambda * (1 - done) * advantage
            return (advantage, value), advantage

        start = jnp.zeros_like(last_value), last_value
        _, advantage = jax.lax.scan(backward, start, (values, rewards, dones), reverse=True)
        count = rule.num_envs if recurrent else size
        to_rows = (lambda x: x.swapaxes(0, 1)) if recurrent else (lambda x: x.reshape(size, *x.shape[2:]))
        batch = jax.tree.map(to_rows, (transitions, advantage))

        def epoch(carry: Any, key: jax.Array) -> tuple[Any, None]:
            order = jax.random.permutation(key, count).reshape(rule.num_minibatches, -1)
            return jax.lax.scan(minibatch_step, carry, jax.tree.map(lambda x: x[order], batch))

        (params, optimizer_state), _ = jax.lax.scan(epoch, (params, optimizer_state), jnp.stack(epoch_keys))
        params = config.update_statistics(params, observation)
        return (params, optimizer_state, *env_carry), jax.tree.map(jnp.sum, returned)

    return update


def make_env(setting: Setting) -> Environment:
    env = gymnax.make(setting.task)
    if setting.memory is None:
        return env
    sys.path.append(str(Path(__file__).parent.parent.parent / "examples"))
    from environments import hidden_velocity

    return hidden_velocity(env)


def ended_by_chance(setting: Setting, std: float, max_steps: int) -> float:
    """The part of 2,000 episodes of independent normal actions, clipped, that reach a terminal state."""
    env = make_env(setting)
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


# BATCHES -------------------------------------------------------------------------------------


def varied(rules: Sequence[Rule]) -> dict[str, np.ndarray]:
    """The fields in which the rules differ, with the value of each rule.

    Raises:
        ValueError: if they differ in the shapes of their batches, which are those of a program.
    """
    fields = {name: [getattr(rule, name) for rule in rules] for name in Rule._fields}
    differ = {name: values for name, values in fields.items() if len(set(values)) > 1}
    if shapes := [name for name in Rule._fields[:4] if name in differ]:
        raise ValueError(f"rules: they differ in {', '.join(shapes)}, so they cannot be one program")
    return {name: np.array(values, np.bool_ if isinstance(values[0], bool) else np.float32)
            for name, values in differ.items()}  # fmt: skip


def make_config(setting: Setting, env: Environment, fields: dict[str, Any]) -> pc.ActorCriticConfig:
    return pc.ActorCriticConfig(
        observation_space=env.observation_space,
        action_space=env.action_space,
        **{"normalize": pc.Normalize() if setting.normalize else None, "memory": setting.memory, **fields},
    )


def check_one_network(configs: Sequence[pc.ActorCriticConfig]) -> None:
    """Raise `ValueError` unless the configs differ in nothing but how their params begin."""

    def program(config: pc.ActorCriticConfig) -> str:
        params = jax.eval_shape(lambda: config.init(key=jax.random.key(0)))
        state = jax.eval_shape(config.initial_state, params)
        return str(jax.make_jaxpr(config.forward)(params, state, config.observation_space.struct()))

    if len({program(config) for config in configs}) > 1:
        raise ValueError("cells: their networks compute different things, so they cannot be one program")


@contextlib.contextmanager
def exclusive() -> Iterator[None]:
    """Alone among the processes that have the same lock file, if the environment names one."""
    if (path := os.environ.get(EXCLUSIVE)) is None:
        yield
        return
    with Path(path).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def processor() -> str:
    """The kind of the device, and of a CPU its model, if the system tells it."""
    device = jax.devices()[0]
    if device.platform != "cpu":
        return str(device.device_kind)
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()


def run(cells: Sequence[tuple[str, str]], seeds: range, steps: int | None = None) -> list[dict[str, Any]]:
    """Train the seeds of cells, pairs of a setting and a network, as one program: a batch of each.

    The settings may differ in options of the rule, the networks in their first params. On a CPU the seconds
    are those of the processor, else of the clock; a seed's are the same for all cells. `steps` are instead
    of those of the setting.

    Raises:
        ValueError: for cells that cannot be one program.
    """
    settings = [EVERYTHING[name][0] for name, _ in cells]
    options = varied([setting.rule for setting in settings])
    if len({setting._replace(rule=settings[0].rule) for setting in settings}) > 1:
        raise ValueError("cells: their tasks differ, so they cannot be one program")
    setting = settings[0] if steps is None else settings[0]._replace(steps=steps)
    env = make_env(setting)
    configs = [make_config(setting, env, EVERYTHING[name][1][network]) for name, network in cells]
    check_one_network(configs)
    keys = jax.vmap(jax.random.key)(jnp.array(seeds))

    def fresh(config: pc.ActorCriticConfig, network: str) -> Any:
        def one(key: jax.Array) -> Any:
            key = jax.random.split(key, 3)[0]
            params = config.init(key=key)
            return as_equinox(params, key) if network == LERAX_OWN else params

        return jax.jit(jax.vmap(one))(keys)

    started = {network: fresh(config, network) for config, (_, network) in zip(configs, cells, strict=True)}
    params = jax.tree.map(lambda *x: jnp.concatenate(x), *(started[network] for _, network in cells))
    lanes = (
        jnp.concatenate([keys] * len(cells)),
        params,
        {name: jnp.repeat(jnp.asarray(values), len(seeds)) for name, values in options.items()},
    )

    def clock() -> float:
        return time.process_time() if jax.devices()[0].platform == "cpu" else time.perf_counter()

    start = clock()
    program = jax.jit(jax.vmap(make_train(setting, configs[0], env))).lower(*lanes).compile()
    compiled = clock() - start
    with exclusive():
        start = clock()
        total, count = (np.asarray(x).reshape(len(cells), len(seeds), -1) for x in program(*lanes))
        seconds = clock() - start
    parts = np.array_split(np.arange(total.shape[2]), min(POINTS, max(1, total.shape[2] // 2)))
    with np.errstate(invalid="ignore"):  # NaN before the first episode ends
        curves = [total[..., part].sum(-1) / count[..., part].sum(-1) for part in parts]
    about = {
        "seconds": round(seconds / (len(seeds) * len(cells)), 3),
        "compile": round(compiled, 1),
        "device": jax.devices()[0].platform,
        "processor": processor(),
        "jax": jax.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }
    return [
        {"setting": name, "network": network, "first": seeds.start, "seeds": len(seeds), **about,
         "curves": np.round(np.stack(curves, -1)[i], 3).tolist()}
        for i, (name, network) in enumerate(cells)
    ]  # fmt: skip
