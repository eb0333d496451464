"""A trainer in the form of PureJaxRL's `ppo.py` and `ppo_rnn.py`, in our words, for tests.

PureJaxRL is no package: its scripts are copied and changed. What a script asks of its network is here as
they ask it: `network.init(key, x)`, `network.apply(params, x)` for one observation or a batch of them,
`pi.sample(seed=)`, `TrainState`; and for the recurrent one `[time, env]` with `dones`, `hstate[None, :]`,
`hstate[0]` and a permutation of the environments.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax.training.train_state import TrainState


class Hyper(NamedTuple):
    num_envs: int = 4
    num_steps: int = 128
    num_updates: int = 60
    epochs: int = 4
    minibatches: int = 4
    rate: float = 2.5e-4
    discount: float = 0.99
    gae_lambda: float = 0.95
    clip: float = 0.2
    entropy: float = 0.01
    value: float = 0.5


class Transition(NamedTuple):
    first: Any  # whether the episode ended before `obs`
    done: Any  # whether it ended after it
    action: Any
    value: Any
    reward: Any
    log_prob: Any
    obs: Any
    returned: Any


class Runner(NamedTuple):
    state: Any
    env_state: Any
    obs: Any
    first: Any
    total: Any
    hstate: Any
    key: Any


class Trainer(NamedTuple):
    init: Callable[..., Runner]
    rollout: Callable[..., Any]
    evaluate: Callable[..., Any]
    update: Callable[..., Any]
    train: Callable[..., Any]


def make_train(network: Any, env: Any, env_params: Any, hyper: Hyper, recurrent: bool = False) -> Trainer:
    tx = optax.chain(
        optax.clip_by_global_norm(0.5),
        optax.adam(
            optax.linear_schedule(hyper.rate, 0.0, hyper.num_updates * hyper.epochs * hyper.minibatches),
            eps=1e-5,
        ),
    )
    n = hyper.num_envs

    def init(key: Any) -> Runner:
        key, net_key, env_key = jax.random.split(key, 3)
        obs, env_state = jax.vmap(env.reset, in_axes=(0, None))(jax.random.split(env_key, n), env_params)
        first = jnp.zeros(n, bool)
        if recurrent:
            hstate = network.initialize_carry(n, 128)
            params = network.init(net_key, hstate, (jnp.zeros((1, *obs.shape)), jnp.zeros((1, n))))
        else:
            hstate, params = (), network.init(net_key, jnp.zeros(obs.shape[1:]))
        state = TrainState.create(apply_fn=network.apply, params=params, tx=tx)
        return Runner(state, env_state, obs, first, jnp.zeros(n), hstate, key)

    def one_step(params: Any, hstate: Any, obs: Any, first: Any) -> Any:
        if not recurrent:
            return hstate, *network.apply(params, obs)
        return network.apply(params, hstate, (obs[None, :], first[None, :]))

    def env_step(r: Runner, _: None) -> Any:
        key, act_key, env_key = jax.random.split(r.key, 3)
        hstate, pi, value = one_step(r.state.params, r.hstate, r.obs, r.first)
        action = pi.sample(seed=act_key)
        log_prob = pi.log_prob(action)
        if recurrent:
            value, action, log_prob = value.squeeze(0), action.squeeze(0), log_prob.squeeze(0)
        obs, env_state, reward, done, _ = jax.vmap(env.step, in_axes=(0, 0, 0, None))(
            jax.random.split(env_key, n), r.env_state, action, env_params
        )
        total = r.total + reward
        seen = Transition(
            r.first, done, action, value, reward, log_prob, r.obs, jnp.where(done, total, jnp.nan)
        )
        return Runner(r.state, env_state, obs, done, jnp.where(done, 0.0, total), hstate, key), seen

    def rollout(r: Runner) -> Any:
        start = r.hstate
        r, traj = jax.lax.scan(env_step, r, None, hyper.num_steps)
        last = one_step(r.state.params, r.hstate, r.obs, r.first)[2]
        last = last.squeeze(0) if recurrent else last

        def backward(carry: Any, t: Transition) -> Any:
            gae, next_value = carry
            delta = t.reward + hyper.discount * next_value * (1 - t.done) - t.value
            gae = delta + hyper.discount * hyper.gae_lambda * (1 - t.done) * gae
            return (gae, t.value), gae

        _, advantages = jax.lax.scan(backward, (jnp.zeros_like(last), last), traj, reverse=True)
        return r, (start, traj, advantages, advantages + traj.value)

    def evaluate(params: Any, hstate: Any, traj: Transition) -> Any:
        if recurrent:
            return network.apply(params, hstate[0], (traj.obs, traj.first))[1:]
        return network.apply(params, traj.obs)

    def loss(params: Any, batch: Any) -> Any:
        hstate, traj, gae, targets = batch
        pi, value = evaluate(params, hstate, traj)
        clipped = traj.value + (value - traj.value).clip(-hyper.clip, hyper.clip)
        value_loss = 0.5 * jnp.maximum(jnp.square(value - targets), jnp.square(clipped - targets)).mean()
        ratio = jnp.exp(pi.log_prob(traj.action) - traj.log_prob)
        gae = (gae - gae.mean()) / (gae.std() + 1e-8)
        actor = -jnp.minimum(ratio * gae, jnp.clip(ratio, 1 - hyper.clip, 1 + hyper.clip) * gae).mean()
        return actor + hyper.value * value_loss - hyper.entropy * pi.entropy().mean(), ratio

    def minibatch(state: TrainState, batch: Any) -> Any:
        grads, ratio = jax.grad(loss, has_aux=True)(state.params, batch)
        return state.apply_gradients(grads=grads), ratio

    def update(state: TrainState, data: Any, key: Any) -> Any:
        """The new train state, and the ratios of every minibatch, those of the first one before any change."""
        hstate, *others = data

        def epoch(state: TrainState, key: Any) -> Any:
            if recurrent:
                order = jax.random.permutation(key, n)
                batch = jax.tree.map(lambda x: jnp.take(x, order, axis=1), (hstate[None, :], *others))
                batch = jax.tree.map(
                    lambda x: x.reshape(x.shape[0], hyper.minibatches, -1, *x.shape[2:]).swapaxes(0, 1), batch
                )
            else:
                order = jax.random.permutation(key, n * hyper.num_steps)
                batch = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[order], ((), *others))
                batch = jax.tree.map(lambda x: x.reshape(hyper.minibatches, -1, *x.shape[1:]), batch)
            return jax.lax.scan(minibatch, state, batch)

        return jax.lax.scan(epoch, state, jax.random.split(key, hyper.epochs))

    def iteration(r: Runner, _: None) -> Any:
        r, data = rollout(r)
        key, update_key = jax.random.split(r.key)
        state, ratios = update(r.state, data, update_key)
        return r._replace(state=state, key=key), (data[1].returned, ratios)

    def train(key: Any) -> Any:
        return jax.lax.scan(iteration, init(key), None, hyper.num_updates)

    return Trainer(init, rollout, evaluate, update, train)
