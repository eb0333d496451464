"""Policies in the PPO of Lerax, beside its own policy. Lerax needs Python 3.13 and its sources: by hand."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import policy_core as pc
from policy_core.errors import ConfigError, FingerprintError

pytest.importorskip("lerax", reason="Lerax is not installed: it needs Python 3.13, and is not on PyPI")
import equinox as eqx
from lerax import space as spaces
from lerax.algorithm import PPO
from lerax.callback import EmptyCallback
from lerax.env.classic_control import CartPole, Pendulum
from lerax.policy import AbstractActorCriticPolicy, MLPActorCriticPolicy
from lerax.wrapper import TimeLimit
from policy_core_adapters.hosts import lerax as adapter

from policy_core.networks import Sequential

pytestmark = [pytest.mark.usefixtures("unchecked", "lenient"), pytest.mark.filterwarnings("default")]
KEY = jax.random.key(0)
HYPER: dict[str, Any] = {"num_envs": 4, "num_steps": 128, "num_batches": 4, "num_epochs": 4}


def config_of(env: Any, **fields: Any) -> pc.ActorCriticConfig:
    return pc.ActorCriticConfig(
        observation_space=adapter.space_of(env.observation_space), action_space=adapter.space_of(env.action_space),
        **{"actor": pc.MLP((16,)), "critic": pc.MLP((16,)), **fields},
    )  # fmt: skip


def wrapped(config: Any) -> Any:
    return adapter.ActorCriticPolicy(pc.init(config, key=KEY))


def of_shape_of_theirs(env: Any) -> pc.ActorCriticConfig:
    relu, linear = (
        lambda *n, f=f: pc.MLP(n, activation=f, kernel_init="lecun_normal", gain=1.0)
        for f in ("relu", "identity")
    )
    return config_of(
        env, trunk=Sequential((relu(16, 16), linear(8))), critic=relu(16, 16),
        actor=Sequential((relu(16), linear(8))), actor_gain=1.0,
    )  # fmt: skip


def their_policy(env: Any) -> Any:
    return MLPActorCriticPolicy(
        env, feature_size=8, feature_width=16, value_width=16, action_width=16, key=KEY
    )


def ours_of(policy: Any, config: Any) -> Any:
    """The params of Lerax's policy as those of ours."""
    encoder, value, action = policy.encoder.layers, policy.value_head.layers, policy.action_head
    layers = {
        "trunk/network_0/hidden_0": encoder[0], "trunk/network_0/hidden_1": encoder[1],
        "trunk/network_1/hidden_0": encoder[2], "critic/tower/hidden_0": value[0],
        "critic/tower/hidden_1": value[1], "critic/head": value[2],
        "actor/tower/network_0/hidden_0": action.mlp.layers[0],
        "actor/tower/network_1/hidden_0": action.mlp.layers[1], "actor/head": action.action_dist.mapping,
    }  # fmt: skip
    kernels = {f"{path}/kernel": layer.weight.T for path, layer in layers.items()}
    return pc.surgery.from_leaves(
        config, kernels | {f"{path}/bias": layer.bias for path, layer in layers.items()}
    )


def rollout(algo: PPO, env: Any, policy: Any) -> Any:
    callback = EmptyCallback()
    state = algo.reset(env, policy, key=KEY, callback=callback)
    collect = eqx.filter_vmap(algo.collect_rollout, in_axes=(None, None, eqx.if_array(0), None, 0))
    _, buffer = collect(env, policy, state.step_state, callback, jax.random.split(KEY, algo.num_envs))
    return buffer.flatten_axes(), state.opt_state


def test_the_same_params_make_the_same_update_and_the_ratio_starts_at_1() -> None:
    env, algo = CartPole(), PPO(**HYPER, entropy_loss_coefficient=0.01)
    theirs = their_policy(env)
    ours = adapter.ActorCriticPolicy(ours_of(theirs, of_shape_of_theirs(env)))

    @eqx.filter_jit
    def run(ours: Any, theirs: Any) -> Any:
        buffer, ours_state = rollout(algo, env, ours)
        _, theirs_state = rollout(algo, env, theirs)
        again = jax.vmap(ours.evaluate_action)(buffer.states, buffer.observations, buffer.actions)
        off = again[2] - buffer.log_probs
        for _ in range(2):
            ours, ours_state, stats = algo.train_batch(ours, ours_state, buffer)
            theirs, theirs_state, others = algo.train_batch(theirs, theirs_state, buffer)
        return ours, theirs, off, stats, others

    new, expected, off, stats, others = run(ours, theirs)
    assert (off == 0).all()
    np.testing.assert_allclose(jax.tree.leaves(stats), jax.tree.leaves(others), atol=1e-5)
    leaves = pc.surgery.leaves(ours_of(expected, new.pair[1]))
    before = pc.surgery.leaves(ours.pair)
    for path, leaf in pc.surgery.leaves(new.pair).items():
        np.testing.assert_allclose(leaf, leaves[path], atol=1e-5, err_msg=path)
        assert np.abs(leaf - before[path]).max() > 1e-4


def returns(policy: Any, env: Any, steps: int) -> float:
    """The mean return of 32 deterministic episodes of at most so many steps."""

    @eqx.filter_jit
    @eqx.filter_vmap
    def episode(key: Any) -> Any:
        def step(carry: Any, key: Any) -> Any:
            env_state, state, alive, total = carry
            keys = jax.random.split(key, 4)
            state, action = policy(state, env.observation(env_state, key=keys[0]))
            after = env.transition(env_state, action, key=keys[1])
            total += alive * env.reward(env_state, action, after, key=keys[2])
            alive *= 1 - env.terminal(after, key=keys[3])
            return (after, state, alive, total), None

        start = env.initial(key=key), policy.reset(key=key), jnp.ones(()), jnp.zeros(())
        return jax.lax.scan(step, start, jax.random.split(key, steps))[0][3]

    return float(episode(jax.random.split(KEY, 32)).mean())


def test_both_learn(tmp_path: Any) -> None:
    env, algo = CartPole(), PPO(**HYPER, learning_rate=3e-3)
    for policy in (wrapped(config_of(env)), their_policy(env)):
        trained = algo.learn(env, policy, 512 * 40, key=KEY)
        assert returns(policy, env, 300) < 100
        assert returns(trained, env, 300) > 200, type(trained)
        if isinstance(trained, adapter.ActorCriticPolicy):
            trained.serialize(tmp_path / "new" / "policy.msgpack")
            again = adapter.ActorCriticPolicy.deserialize(tmp_path / "new" / "policy.msgpack", config_of(env))
            assert returns(again, env, 300) == returns(trained, env, 300)
    with pytest.raises(FingerprintError, match="actor"):
        adapter.ActorCriticPolicy.deserialize(
            tmp_path / "new" / "policy.msgpack", config_of(env, actor=pc.MLP((16,), activation="relu"))
        )


HEADS = [pc.NormalHead(pc.Scale(log_std=1.0)), pc.SquashedNormalHead(), pc.BetaHead(), pc.BinsHead(5)]


@pytest.mark.parametrize("head", HEADS, ids=lambda head: type(head).__name__)
def test_of_boxes_the_ratio_is_1_and_what_is_stored_is_within_the_bounds(head: Any) -> None:
    env, algo = TimeLimit(Pendulum(), 200), PPO(**HYPER)
    policy = wrapped(config_of(env, box_head=head))

    @eqx.filter_jit
    def run(policy: Any) -> Any:
        buffer, state = rollout(algo, env, policy)
        again = jax.vmap(policy.evaluate_action)(buffer.states, buffer.observations, buffer.actions)
        return buffer, again[2] - buffer.log_probs, algo.train_batch(policy, state, buffer)[0]

    buffer, off, new = run(policy)
    assert (jnp.abs(buffer.actions) <= 2).all()
    np.testing.assert_allclose(off, 0, atol=1e-5)
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(new.pair))
    _, action = policy(policy.reset(key=KEY), buffer.observations[0])
    assert env.action_space.contains(action)


def test_a_memory_is_reset_where_lerax_resets_it() -> None:
    env, algo = CartPole(), PPO(**HYPER)
    policy = wrapped(config_of(env, memory=pc.GRU(4)))

    @eqx.filter_jit
    def run(policy: Any) -> Any:
        buffer, state = rollout(algo, env, policy)
        again = jax.vmap(policy.evaluate_action)(buffer.states, buffer.observations, buffer.actions)
        return buffer, again[2] - buffer.log_probs, algo.train_batch(policy, state, buffer)[0]

    buffer, off, _ = run(policy)
    np.testing.assert_allclose(off, 0, atol=1e-6)
    states = buffer.states["shared"].reshape(4, 128, 4)
    after_end = np.zeros((4, 128), bool)
    after_end[:, 1:] = np.asarray(buffer.dones).reshape(4, 128)[:, :-1]
    after_end[:, 0] = True
    assert ((states == 0).all(-1) == after_end).all()


SPACES = {
    "Box": spaces.Box(jnp.array([-1.0, 0.0]), jnp.array([1.0, jnp.inf])),
    "Discrete": spaces.Discrete(3),
    "MultiDiscrete": spaces.MultiDiscrete((2, 3)),
    "MultiBinary": spaces.MultiBinary((2, 2)),
    "Dict": spaces.Dict({"b": spaces.Discrete(2), "a": spaces.Box(-jnp.ones(2), jnp.ones(2))}),
    "Tuple": spaces.Tuple((spaces.Discrete(2), spaces.MultiBinary(3))),
}


@pytest.mark.parametrize("name", SPACES)
def test_spaces_go_both_ways_and_every_member_works(name: str) -> None:
    space = SPACES[name]
    ours = adapter.space_of(space)
    assert adapter.space_of(adapter.to_lerax(ours)) == ours
    policy = wrapped(pc.ActorCriticConfig(observation_space=ours, action_space=ours))
    assert isinstance(policy, AbstractActorCriticPolicy)
    assert policy.name == "policy_core"
    assert adapter.space_of(policy.action_space) == adapter.space_of(policy.observation_space) == ours
    observation = space.sample(key=KEY)

    @eqx.filter_jit
    def members(policy: Any) -> Any:
        state, action, value, log_prob = policy.action_and_value(policy.reset(key=KEY), observation, key=KEY)
        state, again, score, entropy = policy.evaluate_action(state, observation, action)
        return action, (value, again), (log_prob, score), entropy, policy.value(state, observation)[1]

    action, values, scores, entropy, value = members(policy)
    for one in (action, policy((), observation)[1]):
        assert jnp.all(space.contains(one))  # of bits it answers for each
    assert values[0] == values[1] == value
    np.testing.assert_allclose(*scores, atol=1e-6)
    assert entropy.shape == ()
    optimized = eqx.filter(policy, eqx.is_inexact_array)
    assert len(jax.tree.leaves(optimized)) == len(jax.tree.leaves(policy.pair))  # no bound is among them


def test_a_mask_is_kept() -> None:
    policy = wrapped(pc.ActorCriticConfig(observation_space=pc.Box(shape=(2,)), action_space=pc.Discrete(3)))
    mask = jnp.array([False, False, True])
    for key in (None, KEY):
        assert policy((), jnp.ones(2), key=key, action_mask=mask)[1] == 2
    *_, log_prob, entropy = policy.evaluate_action((), jnp.ones(2), jnp.array(2), action_mask=mask)
    assert log_prob == entropy == 0


def test_what_does_not_fit_is_refused() -> None:
    config = pc.ActorCriticConfig(observation_space=pc.Box(shape=(2,)), action_space=pc.Discrete(3, start=1))
    with pytest.raises(ConfigError, match="discrete spaces of Lerax start at 0 and have one axis"):
        _ = wrapped(config).action_space
    normalized = pc.ActorCriticConfig(
        observation_space=pc.Box(shape=(2,)), action_space=pc.Discrete(3), normalize=pc.Normalize()
    )
    with pytest.raises(ConfigError, match="whose statistics Lerax does not update; normalize in a wrapper"):
        wrapped(normalized)
    known = pc.update_statistics(pc.init(normalized, key=KEY), jnp.ones((3, 2)))
    assert adapter.ActorCriticPolicy(known).pair is known
    with pytest.raises(ConfigError, match=r"space: got int, expected a space of Lerax"):
        adapter.space_of(3)
    with pytest.raises(AttributeError, match="no attribute 'Policy'"):
        _ = adapter.Policy
