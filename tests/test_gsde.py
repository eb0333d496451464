"""State-dependent exploration: its density by the formulas in float64, and how long its noise is kept."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import OBSERVATION, config
from compiling import fresh
from policy_core_adapters import numpy_runner
from scipy import stats

import policy_core as pc

pytestmark = pytest.mark.usefixtures("unchecked")  # beartype doubles the time to trace

BOX = pc.Box(low=(-1.0, 0.5), high=(2.0, 1.5), shape=(2,))
GSDE = pc.heads.GSDEHead
STILL = jnp.array([0.3, -0.2, 0.5])


def policy_of(head: Any, space: Any = BOX, seed: int = 0, **fields: Any) -> Any:
    """A policy whose params are not those of the start."""
    made = config(space, box_head=head, **{"actor": pc.MLP((8,)), **fields})
    params, _ = fresh(made, key=jax.random.key(seed))
    leaves, tree = jax.tree.flatten(params)
    rng = np.random.default_rng(seed)
    noisy = [x + jnp.asarray(0.3 * rng.standard_normal(x.shape), x.dtype) for x in leaves]
    return jax.tree.unflatten(tree, noisy), made


def by_hand(policy: Any, observation: Any) -> tuple[Any, Any, Any]:
    """Features, mean and S in float64."""
    params, made = jax.tree.map(np.float64, policy[0]), policy[1]
    layer, head, fields = params["actor"]["tower"]["hidden_0"], params["actor"]["head"], made.box_head
    x = np.tanh(np.float64(observation) @ layer["kernel"] + layer["bias"])
    raw = head["log_std"]
    std = np.exp(raw)
    if fields.positive == "expln":
        std = np.where(raw <= 0, np.exp(raw), np.log1p(np.maximum(raw, 0) + fields.epsilon) + 1)
    return x, x @ head["kernel"] + head["bias"], np.broadcast_to(std, head["kernel"].shape)


@pytest.mark.parametrize("squash", [False, True])
@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("positive", ["exp", "expln"])
def test_log_prob_and_entropy_are_those_of_the_formulas(positive, full, squash):
    head = GSDE(log_std=0.1, positive=positive, full_std=full, squash=squash, epsilon=1e-3)
    policy = policy_of(head)
    rng = np.random.default_rng(1)
    for _ in range(20):
        observation, u = rng.standard_normal(3), rng.standard_normal(2)
        x, mean, std = by_hand(policy, observation)
        spread = np.sqrt(x**2 @ std**2 + 1e-3)
        log_prob = stats.norm.logpdf(u, mean, spread)
        entropy = stats.norm.entropy(mean, spread)
        if squash:  # da/du = (high - low) / 2 * (1 - tanh(u)^2)
            half = np.log((np.array(BOX.high) - np.array(BOX.low)) / 2)
            log_prob = log_prob - half - np.log1p(-(np.tanh(u) ** 2))
            nodes, weights = np.polynomial.hermite_e.hermegauss(120)
            draws = mean + spread * nodes[:, None]
            slope = 2 * (math.log(2) - np.abs(draws) - np.log1p(np.exp(-2 * np.abs(draws))))
            entropy = entropy + half + weights @ slope / math.sqrt(2 * math.pi)
        got = pc.evaluate_action(
            policy, pc.reset(policy), jnp.asarray(observation, jnp.float32), jnp.asarray(u, jnp.float32)
        )
        assert np.allclose(got[2], log_prob.sum(), rtol=2e-6, atol=2e-6)
        assert np.allclose(got[3], entropy.sum(), rtol=1e-4 if squash else 2e-6, atol=2e-5)


@pytest.mark.parametrize("heat", [None, 2.0])
def test_a_draw_is_the_mean_plus_the_features_times_the_kept_matrix(heat):
    policy = policy_of(GSDE(log_std=-0.5), pc.Box(shape=(2,)), temperature=heat)
    if heat:
        policy = ({**policy[0], "temperature": jnp.array(heat)}, policy[1])
    state, matrices = pc.reset(policy), []
    for i, key in enumerate(jax.random.split(jax.random.key(3), 6)):
        observation = jnp.cos(jnp.arange(3.0) + i)
        state, action, _, log_prob = pc.action_and_value(policy, state, observation, key=key)
        matrices.append(np.float64(state["exploration"]["matrix"]))
        x, mean, std = by_hand(policy, observation)
        expected = mean + math.sqrt(heat or 1) * x @ (std * matrices[-1])
        assert np.allclose(action, expected, atol=2e-6)
        spread = np.sqrt((heat or 1) * (x**2 @ std**2 + 1e-6))
        assert np.allclose(log_prob, stats.norm.logpdf(expected, mean, spread).sum(), atol=1e-4)
    assert all(np.array_equal(matrices[0], other) for other in matrices)


@pytest.mark.parametrize("squash", [False, True])
def test_over_episodes_draws_have_the_law_of_the_density(squash):
    policy = policy_of(GSDE(log_std=-0.5, squash=squash))
    keys = jax.random.split(jax.random.key(0), 4000)
    call = jax.vmap(lambda key: pc.action_and_value(policy, pc.reset(policy), STILL, key=key)[1])
    x, mean, std = by_hand(policy, STILL)
    spread = np.sqrt(x**2 @ std**2)
    for column, draws in enumerate(np.asarray(call(keys)).T):
        assert stats.kstest((draws - mean[column]) / spread[column], "norm").pvalue > 1e-4
    # What has no matrix yet draws by itself, with the same law.
    _, distribution = pc.action_distribution(policy, pc.reset(policy), STILL)
    for column, draws in enumerate(np.asarray(jax.vmap(lambda key: distribution.sample(key=key))(keys)).T):
        assert stats.kstest((draws - mean[column]) / spread[column], "norm").pvalue > 1e-4


@pytest.mark.parametrize("every", [None, 1, 3])
def test_the_matrix_is_drawn_every_so_many_draws_and_after_a_reset(every):
    policy = policy_of(GSDE(log_std=-0.5, resample_every=every))
    is_first = jnp.arange(11) == 7

    def step(state: Any, inputs: Any) -> Any:
        key, first = inputs
        state, action, *_ = pc.action_and_value(policy, state, STILL, key=key, is_first=first)
        return state, action

    keys = jax.random.split(jax.random.key(1), 11)
    _, actions = jax.jit(lambda: jax.lax.scan(step, pc.reset(policy), (keys, is_first)))()
    changes = [i for i in range(1, 11) if not np.array_equal(actions[i], actions[i - 1])]
    assert changes == {None: [7], 1: list(range(1, 11)), 3: [3, 6, 7, 10]}[every]


def test_members_and_environments_have_matrices_of_their_own():
    policies = jax.vmap(lambda key: fresh(policy_of(GSDE())[1], key=key))(
        jax.random.split(jax.random.key(0), 3)
    )
    keys = jax.random.split(jax.random.key(1), (3, 2, 2))  # members, environments, steps
    is_first = jnp.array([False, True])

    def episode(policy: Any, keys: Any) -> Any:
        def step(state: Any, inputs: Any) -> Any:
            state, _ = pc.act(policy, state, STILL, key=inputs[0], is_first=inputs[1])
            return state, state["exploration"]["matrix"]

        return jax.lax.scan(step, pc.reset(policy), (keys, is_first))[1]

    matrices = jax.vmap(lambda policy, keys: jax.vmap(lambda keys: episode(policy, keys))(keys))(
        policies, keys
    )
    assert len({np.asarray(matrix).tobytes() for matrix in matrices.reshape(12, -1)}) == 12


def test_without_a_key_the_action_is_the_mean_and_nothing_is_drawn():
    policy = policy_of(GSDE(), pc.Box(shape=(2,)))
    start = pc.reset(policy)
    assert int(start["exploration"]["age"]) == -1
    state, action = pc.act(policy, start, STILL)
    assert np.allclose(action, by_hand(policy, STILL)[1], atol=1e-6)
    for ours, before in zip(jax.tree.leaves(state), jax.tree.leaves(start), strict=True):
        assert np.array_equal(ours, before)
    state, _, _ = pc.forward(policy, start, STILL)
    assert int(state["exploration"]["age"]) == -1


def test_reset_with_a_key_draws_at_once_for_each_environment():
    policy = policy_of(GSDE(resample_every=2))
    states = pc.reset(policy, key=jax.random.key(0), batch=(3,))["exploration"]
    assert states["age"].tolist() == [1, 1, 1]
    assert len({np.asarray(matrix).tobytes() for matrix in states["matrix"]}) == 3


def test_the_ratio_is_one_whatever_matrix_is_in_the_state():
    policy = policy_of(GSDE(squash=True), memory=pc.GRU(4))
    observations = jax.random.normal(jax.random.key(0), (6, 3))
    is_first = jnp.array([False, False, True, False, False, False])
    start = pc.reset(policy, key=jax.random.key(5))

    def step(state: Any, inputs: Any) -> Any:
        observation, key, first = inputs
        after, action, _, log_prob = pc.action_and_value(policy, state, observation, key=key, is_first=first)
        other = pc.reset(policy, key=key)["exploration"]
        _, _, again, _ = pc.evaluate_action(
            policy, {**state, "exploration": other}, observation, action, is_first=first
        )
        return after, (action, log_prob, again)

    inputs = (observations, jax.random.split(jax.random.key(1), 6), is_first)
    _, (actions, log_probs, again) = jax.jit(lambda: jax.lax.scan(step, start, inputs))()
    assert np.array_equal(log_probs, again)
    state, _, scores, _ = pc.evaluate_sequence(policy, start, observations, actions, is_first=is_first)
    assert np.allclose(scores, log_probs, atol=1e-5)
    assert int(state["exploration"]["age"]) == -1  # reset inside, and nothing was drawn since
    state, *_ = pc.evaluate_sequence(policy, start, observations, actions, is_first=jnp.zeros(6, bool))
    assert np.array_equal(state["exploration"]["matrix"], start["exploration"]["matrix"])
    _, distributions, _ = pc.forward_sequence(policy, start, observations, is_first=is_first)
    assert distributions.drawn.tolist() == [True, True, False, False, False, False]


@pytest.mark.parametrize("learn", [False, True])
def test_the_variance_has_a_gradient_in_the_features_if_it_is_asked_for(learn):
    policy = policy_of(GSDE(learn_features=learn))

    def entropy(policy: Any) -> Any:
        return pc.action_distribution(policy, pc.reset(policy), STILL)[1].entropy()

    slope = jax.grad(entropy)(policy)[0]["actor"]
    assert bool(jnp.any(slope["head"]["log_std"] != 0))
    assert bool(jnp.any(slope["tower"]["hidden_0"]["kernel"] != 0)) == learn


def test_every_box_of_a_dict_explores_and_every_wrapper_passes_it_on():
    space = pc.Dict({"arm": pc.Box(shape=(2,)), "grip": pc.Discrete(2), "legs": pc.Tuple((BOX, BOX))})
    policy = policy_of(GSDE(squash=False), space, memory=pc.memory.FrameStack(2))
    for made in (policy, (policy[0], pc.env_actions.InEnvActions(policy[1]))):
        state, first, *_ = pc.action_and_value(made, pc.reset(made), STILL, key=jax.random.key(1))
        assert set(state["exploration"]) == {"arm", "legs"}
        legs = state["exploration"]["legs"]
        assert not np.array_equal(legs["0"]["matrix"], legs["1"]["matrix"])
        state = {**state, "shared": pc.reset(made)["shared"]}
        _, second, *_ = pc.action_and_value(made, state, STILL, key=jax.random.key(2))
        assert np.array_equal(first["arm"], second["arm"])
        assert np.array_equal(first["legs"][1], second["legs"][1])


def test_what_cannot_be_is_refused():
    with pytest.raises(
        pc.errors.ConfigError, match=r"^GSDEHead\.resample_every: got 0, expected at least 1, or None"
    ):
        GSDE(resample_every=0)
    with pytest.raises(pc.errors.ConfigError, match=r"^GSDEHead\.log_std, GSDEHead\.epsilon: got 0\.0, 0\.0"):
        GSDE(log_std=0.0, epsilon=0.0)
    with pytest.raises(pc.errors.ConfigError, match=r"nothing can be squashed into"):
        config(pc.Box(shape=(2,)), box_head=GSDE(squash=True))
    space = pc.Dict({"a": pc.Discrete(2), "b": BOX})
    with pytest.raises(pc.errors.ConfigError, match=r"^Autoregressive: got a head whose noise is kept"):
        config(space, box_head=GSDE(), autoregressive=pc.Autoregressive({"b": ("a",)}))
    policy = policy_of(GSDE())
    with pytest.raises(pc.errors.StructureError, match=r"the initial state is policy_core\.reset"):
        pc.act(policy, (), STILL)


def test_the_numpy_runner_keeps_its_matrix(tmp_path):
    policy = policy_of(GSDE(log_std=-0.5, resample_every=3), pc.Box(shape=(2,)), temperature=1.5)
    pc.save(tmp_path / "file", policy)
    runner, rng = numpy_runner.load(tmp_path / "file"), np.random.default_rng(0)
    observation, heat = np.asarray(STILL), float(policy[0]["temperature"])
    x, mean, std = by_hand(policy, observation)
    state, draws = runner.reset(), []
    for _ in range(1200):
        state, action = runner.act(state, observation, rng=rng)
        matrix = state["exploration"]["matrix"]
        assert np.allclose(action, mean + math.sqrt(heat) * x @ (std * matrix), atol=1e-5)
        draws.append(action)
    rows = np.stack(draws).reshape(400, 3, 2)
    assert np.array_equal(rows[:, 0], rows[:, 2])
    spread = np.sqrt(heat * (x**2 @ std**2))
    for column in range(2):
        z = (rows[:, 0, column] - mean[column]) / spread[column]
        assert stats.kstest(z, "norm").pvalue > 1e-4
    again, _ = runner.act(state, observation, rng=rng, is_first=True)
    assert not np.array_equal(again["exploration"]["matrix"], state["exploration"]["matrix"])
    # A state of JAX is one of the runner, so that an episode may go on in the other.
    state, expected = pc.act(policy, pc.reset(policy), STILL, key=jax.random.key(0))
    _, expected = pc.act(policy, state, STILL, key=jax.random.key(1))
    _, action = runner.act(jax.tree.map(np.asarray, state), observation, rng=rng)
    assert np.allclose(action, expected, atol=1e-5)


def test_a_config_without_the_optional_method_is_as_before():
    assert isinstance(config(OBSERVATION), pc.contract.ExploringActorCritic)
    policy = fresh(config(OBSERVATION), key=jax.random.key(0))
    assert policy[1].explore(policy[0], (), key=jax.random.key(0)) == ()
    assert not isinstance(pc.NormalHead(), pc.contract.ExploringHead)
