"""Policies in the PPO of Brax, beside its own networks, on its environment for tests."""

import functools
import pickle
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from policy_core_adapters import brax as adapter
from policy_core_adapters.hosts.brax import network_factory, policy_of
from policy_core_adapters.imports import brax as imports

import policy_core as pc
from policy_core.errors import ConfigError

pytest.importorskip("brax", reason="brax is not installed: make test-more")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of jaxopt, that it is not maintained
    from brax import envs
    from brax.training import acting
    from brax.training.agents.ppo import losses
    from brax.training.agents.ppo import networks as ppo_networks
    from brax.training.agents.ppo import train as ppo

pytestmark = [pytest.mark.usefixtures("unchecked", "lenient"), pytest.mark.filterwarnings("default")]
KEY = jax.random.key(0)
SIZES = {"policy_hidden_layer_sizes": (16, 16), "value_hidden_layer_sizes": (16, 16)}


@pytest.fixture(autouse=True)
def on_newer_jax(monkeypatch: pytest.MonkeyPatch) -> None:
    """Brax 0.14.2 calls what jax 0.10 has no longer: this is what it did."""

    def device_put_replicated(tree: Any, devices: Any) -> Any:
        return jax.tree.map(lambda x: jnp.stack([x] * len(devices)), tree)

    monkeypatch.setattr(jax, "device_put_replicated", device_put_replicated, raising=False)


@functools.cache
def spaces() -> dict[str, Any]:
    env = adapter.make("fast")
    return {"observation_space": env.observation_space, "action_space": env.action_space}


def train(factory: Any, params: Any = None, updates: int = 1, **fields: Any) -> Any:
    defaults = {"entropy_cost": 0.0, "num_evals": 0, "run_evals": False, "episode_length": 20}
    fields = {**defaults, "learning_rate": 3e-3, "num_updates_per_batch": 2, **fields}
    return ppo.train(
        envs.get_environment("fast"), num_timesteps=updates * 640, num_envs=32,
        batch_size=16, num_minibatches=4, unroll_length=10,
        max_devices_per_host=1, network_factory=factory, restore_params=params, seed=3, **fields,
    )  # fmt: skip


def imported(params: Any, tmp_path: Any) -> Any:
    """Brax's own params as a policy of the same outputs, by `imports.brax`."""
    statistics, policy, value = jax.tree.map(np.asarray, params)
    state = {name: getattr(statistics, name) for name in ("mean", "std", "count", "summed_variance")}
    state["count"] = np.ones((), np.float32)
    (tmp_path / "params").write_bytes(pickle.dumps((state, policy, value)))
    found = imports.load(tmp_path / "params").policy
    config = found[1]
    leaves = {
        path: leaf for path, leaf in pc.surgery.leaves(found).items() if not path.startswith("normalize")
    }
    plain = pc.ActorCriticConfig(
        **spaces(), actor=config.actor, critic=config.critic, box_head=config.box_head
    )
    return pc.surgery.from_leaves(plain, leaves)


def test_the_same_params_make_the_same_update(tmp_path: Any) -> None:
    own = functools.partial(ppo_networks.make_ppo_networks, **SIZES)
    _, start, _ = train(own, updates=0)
    policy = imported(start, tmp_path)
    config = policy[1]
    given = (start[0], pc.actor_only(policy), pc.surgery.critic_only(policy))
    _, theirs, their_metrics = train(own, start, num_evals=1)
    _, ours, our_metrics = train(network_factory(config), given, num_evals=1)
    got = pc.surgery.leaves(policy_of(config, ours))
    expected = pc.surgery.leaves(imported(theirs, tmp_path))
    before = pc.surgery.leaves(policy)
    for path, leaf in got.items():
        np.testing.assert_allclose(leaf, expected[path], atol=2e-5, err_msg=path)
        assert np.abs(leaf - before[path]).max() > 1e-4, path
    for name in (
        "training/v_loss",
        "training/policy_loss",
        "training/kl_mean",
        "training/policy_dist_mean_std",
    ):
        assert name in our_metrics
        assert name in their_metrics


@pytest.mark.parametrize(
    "head", [pc.SquashedNormalHead(), pc.NormalHead(), pc.BetaHead(), pc.BinsHead(5)], ids=str
)
def test_the_ratio_starts_at_1_and_what_is_played_is_within_the_bounds(head: Any) -> None:
    config = pc.ActorCriticConfig(**spaces(), actor=pc.MLP((8,)), critic=pc.MLP((8,)), box_head=head)
    env = envs.get_environment("fast")
    networks = network_factory(config)((env.observation_size,), env.action_size)
    params = networks.policy_network.init(KEY), networks.value_network.init(KEY)
    policy = ppo_networks.make_inference_fn(networks)((None, *params))
    observation = jax.random.normal(KEY, (7, 10, env.observation_size))

    @jax.jit
    def both(observation: Any) -> Any:
        action, extras = policy(observation, KEY)
        logits = networks.policy_network.apply(None, params[0], observation)
        again = networks.parametric_action_distribution.log_prob(logits, extras["raw_action"])
        return action, extras, again

    action, extras, again = both(observation)
    assert (again == extras["log_prob"]).all()
    assert (jnp.abs(action) <= 1).all()
    assert action.shape == (7, 10, env.action_size)
    mode, _ = ppo_networks.make_inference_fn(networks)((None, *params), deterministic=True)(observation, KEY)
    played = jax.vmap(jax.vmap(lambda x: pc.act(policy_of(config, (None, *params)), (), x)[1]))(observation)
    np.testing.assert_allclose(mode, played, atol=1e-6)
    described = networks.parametric_action_distribution.create_dist(extras["distribution_params"])
    np.testing.assert_allclose(described.kl_divergence(described), 0.0, atol=1e-6)
    data = acting.Transition(
        observation=observation, action=action, reward=jnp.ones((7, 10)), discount=jnp.ones((7, 10)),
        next_observation=observation,
        extras={"policy_extras": extras, "state_extras": {"truncation": jnp.zeros((7, 10))}},
    )  # fmt: skip
    both_params = losses.PPONetworkParams(*params)
    loss, metrics = losses.compute_ppo_loss(both_params, None, data, KEY, networks)
    assert jnp.isfinite(loss)
    assert jnp.isnan(metrics["policy_dist_mean_loc"]) == (not hasattr(extras["distribution_params"], "mean"))


def test_both_improve(tmp_path: Any) -> None:
    tower = pc.MLP((16, 16), activation="silu", kernel_init="lecun_uniform", gain=1.0)  # as Brax has them
    config = pc.ActorCriticConfig(**spaces(), actor=tower, critic=tower, box_head=pc.SquashedNormalHead())
    rewards: dict[Any, list[float]] = {}
    own = functools.partial(ppo_networks.make_ppo_networks, **SIZES)
    for name, factory in (("ours", network_factory(config)), ("theirs", own)):
        found = rewards[name] = []
        _, params, _ = train(
            factory, updates=32, entropy_cost=1e-2, episode_length=100, num_updates_per_batch=4, discounting=0.95, num_evals=2, run_evals=True, num_eval_envs=32, normalize_observations=True,
            progress_fn=lambda _, metrics, found=found: found.append(float(metrics["eval/episode_reward"])),
        )  # fmt: skip
        if name == "ours":
            pc.save(tmp_path / "policy", policy_of(config, params))
    for before, after in rewards.values():
        assert before < 45  # half of the actions push
        assert after > 52
    assert pc.load(tmp_path / "policy", config)[1] == config


def test_what_does_not_fit_is_refused() -> None:
    boxes = {name: space for name, space in spaces().items() if name != "action_space"}
    for fields, message in (
        ({"memory": pc.GRU(4)}, "memory, or kept noise, whose state Brax's PPO does not carry"),
        ({"normalize": pc.Normalize()}, "statistics Brax does not update; use ppo.train"),
        ({"trunk": pc.MLP((4,))}, "actor and critic share 'trunk/hidden_0/bias'"),
        ({"action_space": pc.Discrete(2)}, "action_space: got Discrete.*, expected a Box of one axis"),
    ):
        with pytest.raises(ConfigError, match=message):
            network_factory(pc.ActorCriticConfig(**{**spaces(), **fields}))
    config = pc.ActorCriticConfig(**spaces())
    seen, size = config.observation_space.shape, config.action_space.shape[0]
    for sizes, message in (
        ((seen, size + 1), r"action_space: got shape \(\d,\), expected \(\d,\), as the environment has"),
        (((99,), size), r"observation_space: got \(\d,\), expected \(99,\), as"),
        (({"state": seen}, size), r"observation_space: got .* expected \{'state': "),
    ):
        with pytest.raises(ConfigError, match=message):
            network_factory(config)(*sizes)
    wide = pc.Box(low=-2.0, high=1.0, shape=(size,))
    with pytest.raises(ConfigError, match="expected the bounds of Brax, -1 and 1"):
        network_factory(pc.ActorCriticConfig(**boxes, action_space=wide))(seen, size)


def test_observations_in_parts_reach_their_tower() -> None:
    space = pc.Dict({"state": pc.Box(shape=(2,)), "privileged_state": pc.Box(shape=(3,))})
    config = pc.ActorCriticConfig(
        observation_space=space, action_space=pc.Box(low=-1.0, high=1.0, shape=(2,)), **adapter.keys(space)
    )
    networks = network_factory(config)(
        {"state": (2,), "privileged_state": (3,)}, 2, lambda x, scale: {**x, "state": scale * x["state"]}
    )
    params = networks.policy_network.init(KEY), networks.value_network.init(KEY)
    x = {"state": jnp.ones((5, 2)), "privileged_state": jnp.ones((5, 3))}
    logits = networks.policy_network.apply(2.0, params[0], x)
    np.testing.assert_allclose(
        logits.loc[0], pc.action_distribution(params[0], (), {"state": 2 * jnp.ones(2)})[1].loc, rtol=1e-5
    )
    assert networks.value_network.apply(2.0, params[1], x).shape == (5,)
