"""Policies in the PPO of rejax, beside its own networks."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from policy_core_adapters import gymnax as adapter
from policy_core_adapters.hosts.rejax import agent, policy_of

import policy_core as pc
from policy_core.errors import ConfigError, StructureError

pytest.importorskip("rejax", reason="rejax is not installed: make test-more")
import gymnax
import rejax
from gymnax.wrappers import LegacyStepAPIWrapper
from rejax.algos.ppo import AdvantageMinibatch

pytestmark = [pytest.mark.usefixtures("unchecked", "lenient"), pytest.mark.filterwarnings("default")]
KEY = jax.random.key(0)


class Legacy(LegacyStepAPIWrapper):
    """`step` of before gymnax 1.0, which rejax calls; and `PPO.create` copies the environment."""

    def __deepcopy__(self, memo: Any) -> "Legacy":
        return self


def made(name: str = "CartPole-v1", head: Any = None, **fields: Any) -> tuple[Any, Any]:
    """PPO as rejax makes it, and a config for the environment, of tanh towers of 16."""
    env, params = gymnax.make(name)
    algo = rejax.PPO.create(
        env=Legacy(env), env_params=params, num_envs=16, num_steps=64, num_minibatches=4, num_epochs=4,
        total_timesteps=61_440, eval_freq=61_440, skip_initial_evaluation=True, learning_rate=5e-3,
        max_grad_norm=0.5, agent_kwargs={"hidden_layer_sizes": (16, 16), "activation": "tanh"}, **fields,
    )  # fmt: skip
    config = pc.ActorCriticConfig(
        observation_space=adapter.space_of(env.observation_space(params)),
        action_space=adapter.space_of(env.action_space(params)),
        actor=pc.MLP((16, 16)),
        critic=pc.MLP((16, 16)),
        box_head=head or pc.NormalHead(),
    )
    return algo, config


def ours_of(actor: Any, critic: Any, config: Any) -> Any:
    """The params of rejax's networks as those of a policy."""
    layers = {
        "actor/tower/hidden_0": actor["params"]["features"]["Dense_0"],
        "actor/tower/hidden_1": actor["params"]["features"]["Dense_1"],
        "actor/head": actor["params"]["action_logits"],
        "critic/tower/hidden_0": critic["params"]["Dense_0"],
        "critic/tower/hidden_1": critic["params"]["Dense_1"],
        "critic/head": critic["params"]["Dense_2"],
    }
    leaves = {f"{path}/{kind}": leaf for path, part in layers.items() for kind, leaf in part.items()}
    return pc.surgery.from_leaves(config, leaves)


def test_the_same_params_make_the_same_update_and_the_ratio_starts_at_1() -> None:
    theirs, config = made()
    ours = theirs.replace(**agent(config))
    twin, state = theirs.init_state(KEY), ours.init_state(KEY)
    policy = ours_of(twin.actor_ts.params, twin.critic_ts.params, config)
    state = state.replace(
        actor_ts=state.actor_ts.replace(params=pc.actor_only(policy)),
        critic_ts=state.critic_ts.replace(params=pc.surgery.critic_only(policy)),
    )

    @jax.jit
    def collected(state: Any) -> Any:
        state, trajectories = ours.collect_trajectories(state)
        last = ours.critic.apply(state.critic_ts.params, state.last_obs)
        batch = AdvantageMinibatch(trajectories, *ours.calculate_gae(trajectories, last))
        again, _ = ours.actor.apply(
            state.actor_ts.params, trajectories.obs, trajectories.action, method="log_prob_entropy"
        )
        return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), batch), again - trajectories.log_prob

    batch, off = collected(state)
    assert (off == 0).all()
    update, update_twin = jax.jit(ours.update), jax.jit(theirs.update)
    for _ in range(3):
        state, twin = update(state, batch), update_twin(twin, batch)
    expected = pc.surgery.leaves(ours_of(twin.actor_ts.params, twin.critic_ts.params, config))
    start = pc.surgery.leaves(policy)
    for path, leaf in pc.surgery.leaves(policy_of(config, state)).items():
        np.testing.assert_allclose(leaf, expected[path], atol=1e-5, err_msg=path)
        assert np.abs(leaf - start[path]).max() > 1e-3


def test_an_optimizer_has_no_moments_of_the_other_tower() -> None:
    algo, config = made()
    state = algo.replace(**agent(config)).init_state(KEY)
    for train_state, tower in ((state.actor_ts, "actor"), (state.critic_ts, "critic")):
        assert set(train_state.params[0]) == {tower}
        sizes = [leaf.size for leaf in jax.tree.leaves(train_state.opt_state) if leaf.ndim]
        assert sum(sizes) == 2 * sum(leaf.size for leaf in jax.tree.leaves(train_state.params))


def test_both_learn_and_a_population_of_seeds_is_one_policy(tmp_path: Any) -> None:
    theirs, config = made()
    for algo in (theirs.replace(**agent(config)), theirs):
        state, (_, returns) = jax.jit(jax.vmap(algo.train))(jax.random.split(KEY, 2))
        assert returns[:, -1].mean() > 150, type(algo.actor)  # of 500; 22 untrained
        if algo is not theirs:
            population = policy_of(config, state)
    assert pc.batch_shape(population) == (2,)
    pc.save(tmp_path / "policies", population)
    policy = pc.population.member(pc.load(tmp_path / "policies", config), 1)
    assert pc.act(policy, (), jnp.ones(4))[1].shape == ()
    assert pc.value(policy, (), jnp.ones(4))[1].shape == ()


@pytest.mark.parametrize("head", [pc.NormalHead(), pc.SquashedNormalHead(), pc.BetaHead()])
def test_boxes_are_stored_as_they_are_played(head: Any) -> None:
    algo, config = made("Pendulum-v1", head)
    algo = algo.replace(**agent(config))

    @jax.jit
    def collected(state: Any) -> Any:
        state, trajectories = algo.collect_trajectories(state)
        scores = algo.actor.apply(
            state.actor_ts.params, trajectories.obs, trajectories.action, method="log_prob_entropy"
        )
        return state, trajectories, scores

    state, trajectories, (again, entropy) = collected(algo.init_state(KEY))
    assert trajectories.action.shape == (64, 16, 1)
    kept = isinstance(head, pc.NormalHead)  # rejax clips
    assert bool((jnp.abs(trajectories.action) <= 2).all()) != kept
    np.testing.assert_allclose(again, trajectories.log_prob, atol=1e-5)  # another batch: the last bits
    assert entropy.shape == again.shape
    state = jax.jit(algo.train_iteration)(state)
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(policy_of(config, state)))
    assert algo.make_act(state)(jnp.ones(3), KEY).shape == ()


def test_keys_of_observations_reach_their_tower() -> None:
    space = pc.Dict({"seen": pc.Box(shape=(2,)), "all": pc.Box(shape=(3,))})
    config = pc.ActorCriticConfig(
        observation_space=space, action_space=pc.Discrete(3), actor_keys=("seen",), encoder_sharing="shared"
    )
    parts, obs = agent(config), {"seen": jnp.ones((5, 2)), "all": jnp.ones((5, 3))}
    actor, critic = parts["actor"].init(KEY, obs, KEY), parts["critic"].init(KEY, obs)
    action, log_prob, entropy = parts["actor"].apply(actor, obs, KEY)
    assert action.shape == log_prob.shape == entropy.shape == parts["critic"].apply(critic, obs).shape == (5,)


def test_what_does_not_fit_is_refused() -> None:
    _, config = made()
    spaces: Any = {"observation_space": config.observation_space, "action_space": config.action_space}
    for fields, message in (
        (
            {"memory": pc.GRU(4)},
            "memory, or kept noise, whose state rejax's PPO does not carry; use memory=None",
        ),
        ({"normalize": pc.Normalize()}, "statistics rejax does not update; use PPO.create"),
        ({"trunk": pc.MLP((4,))}, "actor and critic share 'trunk/hidden_0/bias', .*; use trunk=None"),
        ({"critic": None}, "critic is None, and rejax needs"),
    ):
        with pytest.raises((ConfigError, StructureError), match=message):
            agent(pc.ActorCriticConfig(**spaces, **fields))
    image = pc.Box(low=0, high=255, shape=(36, 36, 1), dtype="uint8")
    with pytest.raises(ConfigError, match=r"actor and critic share 'encoder/.*encoder_sharing=\"separate\""):
        agent(pc.ActorCriticConfig(observation_space=image, action_space=pc.Discrete(2)))
    agent(
        pc.ActorCriticConfig(observation_space=image, action_space=pc.Discrete(2), encoder_sharing="separate")
    )
    actor = agent(config)["actor"]
    with pytest.raises(StructureError, match="method: got 'q', expected 'act', 'action_log_prob'"):
        actor.apply(actor.init(KEY, jnp.ones((1, 4))), jnp.ones((1, 4)), KEY, method="q")
    other = pc.ActorCriticConfig(**spaces)
    algo, _ = made()
    state = algo.replace(**agent(config)).init_state(KEY)
    with pytest.raises(StructureError, match="critic: got a pair of another config than that of the critic"):
        policy_of(other, state)
