"""Values that are normalized by running statistics of returns."""

from typing import Any

import environments
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from cases import OBSERVATION, config
from policy_core_adapters.environment import with_previous
from small_ppo import TINY, train

import policy_core as pc

pytestmark = pytest.mark.usefixtures("unchecked")  # beartype doubles the time to trace

POPART = pc.heads.PopArtHead
OBSERVATIONS = jnp.asarray(np.random.default_rng(0).standard_normal((20, 3)), jnp.float32)


def policy_of(head: Any, **fields: Any) -> Any:
    return pc.init(config(pc.Discrete(2), OBSERVATION, value_head=head, **fields), key=jax.random.key(0))


def values(policy: Any) -> Any:
    return jax.vmap(lambda x: pc.value(policy, pc.reset(policy), x)[1])(OBSERVATIONS)


def layer(policy: Any) -> Any:
    return policy[0]["critic"]["head"]


@pytest.mark.parametrize("objectives", [None, 2])
def test_every_value_stays_when_statistics_change(objectives):
    policy, before = policy_of(POPART(objectives=objectives)), None
    rng, front = np.random.default_rng(1), () if objectives is None else (objectives,)
    for scale, shift in ((3.0, 10.0), (500.0, -1e3), (0.5, 2.0), (1e4, 0.0)):
        before = np.float64(values(policy))
        returns = shift + scale * rng.standard_normal((30, *front))
        policy = pc.update_statistics(policy, returns=jnp.asarray(returns, jnp.float32))
        after = np.float64(values(policy))
        spread = np.sqrt(np.float64(layer(policy)["statistics"]["variance"]).sum(0).max())
        assert np.abs(after - before).max() <= 3e-6 * max(spread, np.abs(before).max())
    # The statistics are those of all returns, and the layer is that of the paper's equations 7 and 8.
    assert layer(policy)["statistics"]["count"].sum(0).max() == 120


def test_the_layer_is_that_of_the_equations():
    policy = policy_of(POPART())
    returns = np.random.default_rng(2).normal(40.0, 7.0, 50).astype(np.float32)
    params = layer(policy)
    new = layer(pc.update_statistics(policy, returns=jnp.asarray(returns)))
    mean, std = returns.astype(np.float64).mean(), np.sqrt(returns.astype(np.float64).var() + 1e-5)
    start = np.sqrt(1 + 1e-5)
    assert np.allclose(new["statistics"]["mean"][0], mean, rtol=1e-6)
    assert np.allclose(new["kernel"], np.float64(params["kernel"]) * start / std, rtol=1e-6)
    assert np.allclose(new["bias"], (start * np.float64(params["bias"]) + 0.0 - mean) / std, rtol=1e-5)


def test_loss_and_gradient_are_those_of_normalized_targets():
    policy = pc.update_statistics(policy_of(POPART()), returns=jnp.array([10.0, 50.0, 90.0]))
    mean, std = 50.0, np.sqrt(3200 / 3 + 1e-5)
    x, target = OBSERVATIONS[0], 120.0

    def loss(policy: Any) -> Any:
        return pc.forward(policy, (), x)[2].loss(jnp.array(target))

    _, value = pc.value(policy, (), x)
    z, wanted = (float(value) - mean) / std, (target - mean) / std
    assert np.isclose(float(loss(policy)), 0.5 * (z - wanted) ** 2, rtol=1e-5)
    slope = layer(jax.grad(loss)(policy))
    assert np.isclose(slope["bias"][0], z - wanted, rtol=1e-5)
    assert not any(bool(jnp.any(leaf)) for leaf in jax.tree.leaves(slope["statistics"]))


def test_without_preserve_values_move_and_the_layer_stays():
    policy = policy_of(POPART(preserve=False))
    new = pc.update_statistics(policy, returns=jnp.array([100.0, 300.0]))
    assert np.array_equal(layer(new)["kernel"], layer(policy)["kernel"])
    assert np.allclose(values(new), 200 + np.sqrt(1e4 + 1e-5) * values(policy) / np.sqrt(1 + 1e-5), rtol=1e-4)


def test_masks_axes_members_and_wrappers():
    policy = policy_of(POPART(max_count=4.0), normalize=pc.Normalize())
    returns = jnp.arange(12.0).reshape(3, 4)
    mask = returns < 5
    expected = layer(pc.update_statistics(policy, returns=jnp.arange(5.0)))
    got = layer(pc.update_statistics(policy, returns=returns, mask=mask))
    split = jax.vmap(
        lambda r, m: layer(pc.update_statistics(policy, returns=r, mask=m, axis_name="i")), axis_name="i"
    )(returns, mask)
    wrapped = (policy[0], pc.env_actions.InEnvActions(policy[1]))
    within = layer(pc.update_statistics(wrapped, returns=returns, mask=mask))
    for other in (got, jax.tree.map(lambda x: x[1], split), within):
        for ours, theirs in zip(jax.tree.leaves(other), jax.tree.leaves(expected), strict=True):
            assert np.allclose(ours, theirs, rtol=1e-6)
    assert float(expected["statistics"]["count"][0]) == 4  # from there on a moving average
    both = pc.update_statistics(policy, OBSERVATIONS, returns=OBSERVATIONS[:, 0])
    assert both[0]["normalize"]["count"][0].tolist() == [20.0] * 3
    members = jax.vmap(lambda key: pc.init(policy[1], key=key))(jax.random.split(jax.random.key(0), 2))
    members = jax.vmap(lambda policy, returns: pc.update_statistics(policy, returns=returns))(
        members, returns[:2]
    )
    assert layer(members)["statistics"]["mean"][:, 0].tolist() == [1.5, 5.5]
    plain = policy_of(pc.RegressionHead())
    for ours, theirs in zip(
        jax.tree.leaves(pc.update_statistics(plain, returns=returns)), jax.tree.leaves(plain), strict=True
    ):
        assert np.array_equal(ours, theirs)
    actor = pc.actor_only(policy)
    assert pc.update_statistics(actor, returns=returns)[1] == actor[1]


@pytest.mark.usefixtures("lenient")  # optax mixes dtypes
def test_an_optimizer_with_weight_decay_leaves_the_statistics():
    policy = pc.update_statistics(policy_of(POPART()), returns=jnp.array([10.0, 50.0]))
    moves = pc.trainable(policy)[0]["critic"]["head"]
    assert moves == {
        "kernel": True, "bias": True, "statistics": {"count": False, "mean": False, "variance": False}
    }  # fmt: skip
    optimizer = optax.multi_transform({True: optax.adamw(0.1), False: optax.set_to_zero()}, pc.trainable)
    change, _ = optimizer.update(jax.tree.map(jnp.ones_like, policy), optimizer.init(policy), policy)
    new = optax.apply_updates(policy, change)
    assert not np.array_equal(layer(new)["kernel"], layer(policy)["kernel"])
    for ours, theirs in zip(*(jax.tree.leaves(layer(p)["statistics"]) for p in (new, policy)), strict=True):
        assert np.array_equal(ours, theirs)


@pytest.mark.usefixtures("lenient")
def test_a_critic_of_large_returns_learns_with_it():
    """A plain regression is far away where this one has arrived; that its mean moves at once is no PopArt."""
    x = OBSERVATIONS

    def error(head: Any, targets: Any) -> float:
        policy = pc.update_statistics(policy_of(head), returns=targets)
        optimizer = optax.multi_transform({True: optax.adam(1e-2), False: optax.set_to_zero()}, pc.trainable)

        def step(carry: Any, _: None) -> Any:
            def loss(policy: Any) -> Any:
                return jax.vmap(lambda o: pc.forward(policy, (), o)[2])(x).loss(targets).mean()

            policy, state = carry
            change, state = optimizer.update(jax.grad(loss)(policy), state, policy)
            return (optax.apply_updates(policy, change), state), None

        (policy, _), _ = jax.jit(lambda: jax.lax.scan(step, (policy, optimizer.init(policy)), None, 300))()
        return float(jnp.sqrt(jnp.mean((values(policy) - targets) ** 2) / jnp.var(targets)))

    wide, far = 1000 * x[:, 0], 1000 + 10 * x[:, 0]
    assert error(POPART(), wide) < 0.1
    assert error(pc.RegressionHead(), wide) > 0.9
    assert error(POPART(preserve=False), far) < 0.1
    assert error(pc.RegressionHead(), far) > 10


@pytest.mark.usefixtures("lenient")
@pytest.mark.filterwarnings("default")
def test_the_example_trainer_trains_it_with_kept_noise_and_the_previous_action():
    env = with_previous(environments.hybrid())
    made = pc.ActorCriticConfig(
        observation_space=env.observation_space,
        action_space=env.action_space,
        actor=pc.MLP((8,)),
        critic=pc.MLP((8,)),
        box_head=pc.heads.GSDEHead(),
        value_head=POPART(),
        memory=pc.Stack((pc.MinGRU(4),), skip="concat"),
    )
    hyper = TINY._replace(num_updates=3)
    (params, _), _ = train(env, made, hyper)
    statistics = params["critic"]["head"]["statistics"]
    assert float(statistics["count"].sum()) == hyper.num_updates * hyper.num_envs * hyper.num_steps
    start = pc.init(made, key=jax.random.key(0))[0]["actor"]["head"]["force"]["log_std"]
    assert not np.array_equal(params["actor"]["head"]["force"]["log_std"], start)
    assert all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in jax.tree.leaves(params))


def test_what_cannot_be_is_refused():
    policy = policy_of(POPART(objectives=2))
    with pytest.raises(pc.errors.StructureError, match=r"^returns: got shape \(5,\), expected \(\.\.\., 2\)"):
        pc.update_statistics(policy, returns=jnp.ones(5))
    with pytest.raises(pc.errors.StructureError, match=r"^returns: got dtype int32, expected floats"):
        pc.update_statistics(policy, returns=jnp.ones((5, 2), jnp.int32))
    with pytest.raises(pc.errors.StructureError, match=r"^mask: got bool\(4,\), expected bool\(5,\)"):
        pc.update_statistics(policy, returns=jnp.ones((5, 2)), mask=jnp.ones(4, bool))
    with pytest.raises(pc.errors.ConfigError, match=r"^PopArtHead\.max_count, PopArtHead\.epsilon: got 0\.5"):
        POPART(max_count=0.5)
    with pytest.raises(pc.errors.ConfigError, match=r"^PopArtHead\.objectives: got 0"):
        POPART(objectives=0)
