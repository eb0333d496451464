"""Policies as the networks of PureJaxRL: in a trainer of its form, beside a network as its scripts have them."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from policy_core_adapters import gymnax as adapter
from policy_core_adapters.hosts.purejaxrl import ActorCritic, ActorCriticRNN
from purejaxrl_form import Hyper, make_train

import policy_core as pc
from policy_core.errors import ConfigError, StructureError

distrax = pytest.importorskip("distrax", reason="distrax is not installed: make test-more")
nn = pytest.importorskip("flax.linen", reason="flax is not installed: make test-more")

pytestmark = [pytest.mark.usefixtures("unchecked", "lenient"), pytest.mark.filterwarnings("default")]
KEY = jax.random.key(0)
ROOT_2 = float(np.sqrt(2))


class Dense(nn.Module):
    size: int
    gain: float

    @nn.compact
    def __call__(self, x: Any) -> Any:
        return nn.Dense(self.size, kernel_init=nn.initializers.orthogonal(self.gain), name="layer")(x)


class Theirs(nn.Module):
    """The network of `ppo.py`, or, with a GRU, of `ppo_rnn.py`."""

    actions: int
    recurrent: bool = False

    @nn.compact
    def __call__(self, *inputs: Any) -> Any:
        if self.recurrent:
            hidden, (x, dones) = inputs
            x = nn.relu(Dense(16, ROOT_2, name="embed")(x))
            cell, outputs = nn.GRUCell(16, name="gru"), []
            for t in range(x.shape[0]):
                hidden = jnp.where(dones[t][:, None], 0.0, hidden)
                hidden, y = cell(hidden, x[t])
                outputs.append(y)
            x = jnp.stack(outputs)
        else:
            (x,) = inputs
        towers = []
        for name, size, gain in (("actor", self.actions, 0.01), ("critic", 1, 1.0)):
            y = x
            for i in range(2):
                y = nn.tanh(Dense(16, ROOT_2, name=f"{name}_{i}")(y))
            towers.append(Dense(size, gain, name=f"{name}_head")(y))
        pi, value = distrax.Categorical(logits=towers[0]), towers[1].squeeze(-1)
        return (hidden, pi, value) if self.recurrent else (pi, value)

    def initialize_carry(self, batch: int, _: int) -> Any:
        return jnp.zeros((batch, 16))


def ours_of(params: Any, config: Any) -> Any:
    """The params of `Theirs` as those of a policy."""
    flat = params["params"]
    leaves = {}
    for tower in ("actor", "critic"):
        for path, name in (
            (f"{tower}/tower/hidden_0", f"{tower}_0"),
            (f"{tower}/tower/hidden_1", f"{tower}_1"),
            (f"{tower}/head", f"{tower}_head"),
        ):
            leaves |= {f"{path}/{kind}": leaf for kind, leaf in flat[name]["layer"].items()}
    if config.memory is not None:
        gru = flat["gru"]
        leaves |= {f"trunk/hidden_0/{kind}": leaf for kind, leaf in flat["embed"]["layer"].items()}
        for ours, side in (("input", "i"), ("recurrent", "h")):
            kernels = [gru[f"{side}{gate}"]["kernel"] for gate in "rzn"]
            leaves[f"memory/{ours}/kernel"] = jnp.concatenate(kernels, 1)
        leaves["memory/input/bias"] = jnp.concatenate([gru[f"i{gate}"]["bias"] for gate in "rzn"])
        leaves["memory/recurrent/bias"] = gru["hn"]["bias"]
    return pc.surgery.from_leaves(config, leaves)


class Cue:
    """In gymnax's form of before 1.0: a cue at the first step, to be answered at the third, its last."""

    def reset(self, key: Any, params: Any) -> Any:
        cue = jax.random.bernoulli(key).astype(jnp.int32)
        return jnp.array([2.0 * cue - 1, 0.0]), (cue, jnp.int32(0))

    def step(self, key: Any, state: Any, action: Any, params: Any) -> Any:
        cue, time = state
        done = time == 2
        reward = jnp.where(done & (action == cue), 1.0, 0.0)
        first, fresh = self.reset(key, params)
        seen = jnp.array([0.0, jnp.where(time == 1, 1.0, 0.0)])
        state = jax.tree.map(lambda a, b: jnp.where(done, a, b), fresh, (cue, time + 1))
        return jnp.where(done, first, seen), state, reward, done, {}


class Case(NamedTuple):
    env: Any
    env_params: Any
    config: Any
    ours: Any
    theirs: Any
    hyper: Hyper
    start: float
    end: float


def case(name: str) -> Case:
    towers: Any = {"actor": pc.MLP((16, 16)), "critic": pc.MLP((16, 16))}
    if name == "ppo":
        import gymnax
        from gymnax.wrappers import LegacyStepAPIWrapper

        env, params = gymnax.make("CartPole-v1")
        spaces = [adapter.space_of(space(params)) for space in (env.observation_space, env.action_space)]
        config = pc.ActorCriticConfig(observation_space=spaces[0], action_space=spaces[1], **towers)
        hyper = Hyper(num_envs=8, num_steps=64, num_updates=60, rate=5e-3)
        return Case(LegacyStepAPIWrapper(env), params, config, ActorCritic(config), Theirs(2), hyper, 60, 150)
    config = pc.ActorCriticConfig(
        observation_space=pc.Box(shape=(2,)), action_space=pc.Discrete(2), memory=pc.GRU(16),
        trunk=pc.MLP((16,), activation="relu"), **towers,
    )  # fmt: skip
    hyper = Hyper(num_envs=16, num_steps=12, num_updates=60, rate=1e-2)
    return Case(Cue(), None, config, ActorCriticRNN(config), Theirs(2, recurrent=True), hyper, 0.65, 0.95)


@pytest.mark.parametrize("name", ["ppo", "ppo_rnn"])
def test_the_same_params_make_the_same_update_and_the_ratio_starts_at_1(name: str) -> None:
    made, recurrent = case(name), name == "ppo_rnn"
    ours, theirs = (
        make_train(network, made.env, made.env_params, made.hyper._replace(epochs=2), recurrent)
        for network in (made.ours, made.theirs)
    )
    twin = jax.jit(theirs.init)(KEY)
    start = jax.jit(ours.init)(KEY)
    state = start.state.replace(params=ours_of(twin.state.params, made.config))
    start = start._replace(state=state)
    for _ in range(2):  # the second rollout begins in the middle of episodes, with states
        start, data = jax.jit(ours.rollout)(start)
    _, traj, *_ = data
    assert traj.first.any()
    new, ratios = jax.jit(ours.update)(state, data, KEY)
    assert (ratios[0, 0] == 1).all()
    assert np.abs(ratios[-1, -1] - 1).max() > 1e-3
    hstate = data[0]
    if recurrent:
        assert isinstance(hstate.fresh, jax.Array)
        hstate = hstate.state["shared"]
    expected, others = jax.jit(theirs.update)(twin.state, (hstate, *data[1:]), KEY)
    np.testing.assert_allclose(ratios, others, atol=1e-5)
    expected = pc.surgery.leaves(ours_of(expected.params, made.config))
    for path, leaf in pc.surgery.leaves(new.params).items():
        np.testing.assert_allclose(leaf, expected[path], atol=1e-5, err_msg=path)


@pytest.mark.parametrize("name", ["ppo", "ppo_rnn"])
def test_both_learn(name: str) -> None:
    made = case(name)
    for network in (made.ours, made.theirs):
        trainer = make_train(network, made.env, made.env_params, made.hyper, name == "ppo_rnn")
        _, (returned, _) = jax.jit(trainer.train)(KEY)
        returned = np.asarray(returned)
        assert np.nanmean(returned[:3]) < made.start
        assert np.nanmean(returned[-5:]) > made.end, type(network)


def test_a_trained_policy_is_the_pair_of_the_train_state(tmp_path: Any) -> None:
    made = case("ppo")
    runner = jax.jit(make_train(made.ours, made.env, made.env_params, made.hyper).init)(KEY)
    pc.save(tmp_path / "policy", runner.state.params)
    policy = pc.load(tmp_path / "policy", made.config)
    assert pc.act(policy, (), jnp.ones(4))[1].shape == ()
    pi, value = made.ours.apply(policy, jnp.ones((3, 5, 4)))
    assert (pi.mode().shape, value.shape) == ((3, 5), (3, 5))
    assert made.ours.apply(policy, jnp.ones(4))[1].shape == ()
    masked, _ = made.ours.apply(policy, jnp.ones((5, 4)), jnp.array([[True, False]] * 5))
    assert not masked.sample(seed=KEY).any()


def test_without_a_memory_and_with_a_learned_start_and_masks() -> None:
    spaces: Any = {"observation_space": pc.Box(shape=(2,)), "action_space": pc.Discrete(3)}
    small: Any = {"actor": pc.MLP((4,)), "critic": pc.MLP((4,))}
    x = jax.random.normal(KEY, (4, 2, 2)), jnp.zeros((4, 2)).at[2, 1].set(1)
    mask = jnp.ones((4, 2, 3), bool).at[..., 0].set(False)
    for memory in (None, pc.GRU(4, learned_start=True), pc.WindowAttention(4, window=3, heads=2)):
        network = ActorCriticRNN(pc.ActorCriticConfig(memory=memory, **spaces, **small))
        carry = network.initialize_carry(2, 4)
        params, config = network.init(KEY, carry, x)
        params = jax.tree.map(lambda leaf: leaf + 0.1, params)
        after, pi, value = network.apply((params, config), carry, x, mask)
        assert not (pi.sample(seed=KEY) == 0).any()
        # One by one, from the first state of the policy, which a carry of zeros is not.
        states, carry = pc.reset((params, config), batch=(2,)), network.initialize_carry(2)
        for t in range(4):
            states, _, critic = jax.vmap(lambda s, o, f: pc.forward((params, config), s, o, is_first=f))(
                states, x[0][t], x[1][t].astype(bool)
            )
            carry, _, values = network.apply((params, config), carry, (x[0][t : t + 1], x[1][t : t + 1]))
            np.testing.assert_allclose(values[0], critic.value(), atol=1e-5)
            np.testing.assert_allclose(value[t], critic.value(), atol=1e-5)
        for a, b, c in zip(*map(jax.tree.leaves, (after.state, carry.state, states)), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-5)
            np.testing.assert_allclose(a, c, atol=1e-5)


@pytest.mark.parametrize("head", [pc.NormalHead(), pc.SquashedNormalHead(), pc.BetaHead(), pc.BinsHead(5)])
def test_what_is_stored_is_what_is_played(head: Any) -> None:
    config = pc.ActorCriticConfig(
        observation_space=pc.Box(shape=(3,)),
        action_space=pc.Box(low=-2.0, high=2.0, shape=(2,)),
        box_head=head,
    )
    network = ActorCritic(config)
    policy = network.init(KEY, jnp.zeros((1, 3)))
    assert policy[1] == config
    pi, _ = network.apply(policy, jnp.ones((64, 3)))
    action = pi.sample(seed=KEY)
    kept = isinstance(head, pc.NormalHead)
    assert bool((np.abs(action) <= 2).all()) != kept  # the script clips
    mode = jnp.clip(pi.mode(), -2, 2)
    played = jax.vmap(lambda x: pc.act(policy, (), x)[1])(jnp.ones((64, 3)))
    np.testing.assert_allclose(mode, played, atol=1e-6)
    np.testing.assert_array_equal(
        pi.log_prob(action), network.apply(policy, jnp.ones((64, 3)))[0].log_prob(action)
    )


def test_what_does_not_fit_is_refused() -> None:
    spaces: Any = {"observation_space": pc.Box(shape=(2,)), "action_space": pc.Discrete(3)}
    with pytest.raises(
        ConfigError, match=r"memory, or kept noise, whose state ppo\.py does not carry; use ActorCriticRNN"
    ):
        ActorCritic(pc.ActorCriticConfig(memory=pc.GRU(4), **spaces))
    with pytest.raises(ConfigError, match=r"values have the shape \(2,\), and PureJaxRL takes one number"):
        ActorCritic(pc.ActorCriticConfig(value_head=pc.RegressionHead(objectives=2), **spaces))
    with pytest.raises(StructureError, match="critic is None, and PureJaxRL needs the values"):
        ActorCriticRNN(pc.ActorCriticConfig(critic=None, **spaces))
    with pytest.raises(StructureError, match="config: got int, expected a config"):
        ActorCritic(3)
    network: Any = ActorCritic(pc.ActorCriticConfig(**spaces))
    with pytest.raises(StructureError, match=r"x: got shapes \[\(3,\)\], expected .* \[\(2,\)\]"):
        network.init(KEY, jnp.zeros(3))
    network = ActorCriticRNN(network.config)
    carry = network.initialize_carry(1)
    with pytest.raises(
        StructureError, match=r"obs: got 1 leading axes, and 2 of dones, expected \[time, env\]"
    ):
        network.init(KEY, carry, (jnp.zeros((1, 2)), jnp.zeros((1, 1))))
    with pytest.raises(StructureError, match="hstate: got tuple, expected what initialize_carry"):
        network.init(KEY, (), (jnp.zeros((1, 1, 2)), jnp.zeros((1, 1))))
