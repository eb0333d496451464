"""The free functions: rules that go beyond the contract's own checks, and their errors."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from cases import CONFIGS, SPACES, config
from compiling import AS_USERS
from jax.experimental import checkify
from meshes import mesh_of

import policy_core as pc
from policy_core.errors import MaskError, StructureError

OBSERVATION = np.array([0.3, -0.2, 1.0], np.float32)


@pytest.fixture(scope="module")
def policy() -> Any:
    return pc.init(config(pc.Discrete(4)), key=jax.random.key(0))


@pytest.fixture(scope="module")
def box_policy() -> Any:
    space = pc.Box(low=(-0.1, -1.0), high=(0.1, 1.0), shape=(2,))
    return pc.init(config(space), key=jax.random.key(0))


ERRORS = {
    "a batch": (lambda p: pc.act(p, (), np.ones((5, 3), np.float32)),
                r"observation: got shape \(5, 3\), expected \(3,\); for a batch use jax.vmap"),
    "a shape": (lambda p: pc.act(p, (), np.ones(4, np.float32)), r"got shape \(4,\), expected \(3,\)"),
    "a dtype": (lambda p: pc.act(p, (), np.ones(3, np.int32)), r"got dtype int32, expected float32; convert"),
    "a list": (lambda p: pc.act(p, (), [0.1, 0.2, 0.3]), r"observation: got list, expected an array float32\(3,\); use jnp\.array\(observation\)"),
    "a dict": (lambda p: pc.act(p, (), {"x": OBSERVATION}), r"observation\['x'\]: unexpected"),
    "a state": (lambda p: pc.act(p, jnp.zeros(3), OBSERVATION), r"state: unexpected; expected \(\)"),
    "the pair": (lambda p: pc.act(p[0], (), OBSERVATION), r"policy: got dict, expected the pair"),
    "the order": (lambda p: pc.act((p[1], p[0]), (), OBSERVATION), r"config: got dict.*in this order"),
    "no config": (lambda p: pc.init(pc.MLP(), key=jax.random.key(0)), r"config: got MLP, expected a config"),
    "keys": (lambda p: pc.act(p, (), OBSERVATION, key=jax.random.split(jax.random.key(0), 3)),
             r"key: got keys of shape \(3,\), expected one key; use jax.vmap"),
    "raw keys": (lambda p: pc.init(p[1], key=jax.random.split(jax.random.PRNGKey(0), 3)), r"keys of shape \(3,\)"),
    "a seed": (lambda p: pc.init(p[1], key=7), r"key: got int32\(\), expected a key; use jax.random.key"),
    "is_first": (lambda p: pc.act(p, (), OBSERVATION, is_first=jnp.zeros(2, bool)),
                 r"is_first: got shape \(2,\), expected \(\)"),
    "an int is_first": (lambda p: pc.act(p, (), OBSERVATION, is_first=1), r"is_first: got dtype int32, expected bool"),
    "a float action": (lambda p: pc.evaluate_action(p, (), OBSERVATION, 1.9), r"action: got dtype float32"),
    "actions": (lambda p: pc.evaluate_action(p, (), OBSERVATION, jnp.zeros(7, int)), r"action: got shape \(7,\)"),
    "time": (lambda p: pc.evaluate_sequence(p, (), np.ones((4, 3), np.float32), np.zeros(5, int),
                                            is_first=np.zeros(4, bool)),
             r"actions: got shape \(5,\), expected a leading time axis of length 4"),
    "no time": (lambda p: pc.evaluate_sequence(p, (), OBSERVATION, 1, is_first=np.bool_(False)),
                r"is_first: got bool\(\), expected bool\(time,\)"),
    "env action": (lambda p: pc.policy_action(p, 0.5), r"env_action: got dtype float32"),
}  # fmt: skip


@pytest.mark.parametrize("name", ERRORS)
@pytest.mark.usefixtures("unchecked")
def test_wrong_argument_is_named_with_the_fix(policy: Any, name: str) -> None:
    call, message = ERRORS[name]
    with pytest.raises(StructureError, match=message):
        call(policy)


MASKS = {
    "additive": (np.array([0.0, -np.inf, 0.0, 0.0], np.float32), r"action_mask: got dtype float32, an additive mask\?"),
    "int": (np.array([1, 0, 1, 1]), r"got dtype int32, expected bool.*use mask.astype\(bool\)"),
    "batch": (np.ones((2, 4), bool), r"got shape \(2, 4\), expected \(4,\); for a batch use jax.vmap"),
    "short": (np.ones(3, bool), r"got shape \(3,\), expected \(4,\)"),
    "one": (np.ones(1, bool), r"got shape \(1,\), expected \(4,\)"),
    "list": ([True, True, False, True], r"got list, expected a boolean array"),
}  # fmt: skip


@pytest.mark.parametrize("name", MASKS)
@pytest.mark.usefixtures("unchecked")
def test_mask_that_cannot_apply_is_refused(policy: Any, name: str) -> None:
    mask, message = MASKS[name]
    with pytest.raises(MaskError, match=message):
        pc.act(policy, (), OBSERVATION, action_mask=mask)


def test_mask_for_a_box_is_refused(box_policy: Any) -> None:
    with pytest.raises(MaskError, match="got a mask for a Box"):
        pc.act(box_policy, (), OBSERVATION, action_mask=np.ones(2, bool))


def test_missing_and_extra_observation_keys_are_named() -> None:
    spaces = {"a": pc.Box(shape=(2,)), "b": pc.Discrete(3)}
    policy = pc.init(config(pc.Discrete(2), pc.Dict(spaces)), key=jax.random.key(0))
    with pytest.raises(StructureError, match=r"observation\['b'\]: missing"):
        pc.act(policy, (), {"a": jnp.zeros(2)})
    with pytest.raises(StructureError, match=r"observation\['c'\]: unexpected"):
        pc.act(policy, (), {"a": jnp.zeros(2), "b": 0, "c": 0})


def test_empty_row_counts_as_unmasked(policy: Any) -> None:
    _, unmasked = pc.action_distribution(policy, (), OBSERVATION)
    _, empty = pc.action_distribution(policy, (), OBSERVATION, action_mask=np.zeros(4, bool))
    np.testing.assert_array_equal(empty.log_probs, unmasked.log_probs)


def test_a_masked_action_has_the_documented_log_prob_and_no_gradient(policy: Any) -> None:
    mask = np.array([True, False, True, True])

    def log_prob(params: Any) -> Any:
        return pc.evaluate_action((params, policy[1]), (), OBSERVATION, 1, action_mask=mask)[2]

    value, gradient = jax.value_and_grad(log_prob)(policy[0])
    assert value == np.float32(pc.distributions.MASKED_LOG_PROB)
    assert jnp.exp(value) == 0
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(gradient))


@pytest.mark.parametrize("action", [7, -1])
def test_an_action_out_of_range_has_probability_zero(policy: Any, action: int) -> None:
    log_prob = pc.evaluate_action(policy, (), OBSERVATION, action)[2]
    assert log_prob == np.float32(pc.distributions.MASKED_LOG_PROB)


def test_box_rollouts_store_the_unclipped_action_and_act_returns_the_clipped(box_policy: Any) -> None:
    keys = jax.random.split(jax.random.key(1), 200)
    steps = jax.vmap(lambda key: pc.action_and_value(box_policy, (), OBSERVATION, key=key))
    _, stored, _, log_probs = jax.jit(steps, compiler_options=AS_USERS)(keys)
    acts = jax.vmap(lambda key: pc.act(box_policy, (), OBSERVATION, key=key)[1])
    acted = jax.jit(acts, compiler_options=AS_USERS)(keys)
    space = box_policy[1].action_space
    assert not bool(jnp.all(jax.vmap(space.contains)(stored)))
    assert bool(jnp.all(jax.vmap(space.contains)(acted)))
    np.testing.assert_array_equal(acted, jax.vmap(lambda a: pc.env_action(box_policy, a))(stored))
    again = jax.vmap(lambda a: pc.evaluate_action(box_policy, (), OBSERVATION, a)[2])(stored)
    np.testing.assert_allclose(again, log_probs, rtol=0, atol=1e-6)


def test_policy_action_inverts_env_action(box_policy: Any) -> None:
    inside = jnp.array([0.05, -0.7])
    np.testing.assert_array_equal(pc.env_action(box_policy, pc.policy_action(box_policy, inside)), inside)
    np.testing.assert_array_equal(
        pc.policy_action(box_policy, jnp.array([3.0, -3.0])), np.array([0.1, -1.0], np.float32)
    )


def test_both_key_styles_are_accepted(policy: Any) -> None:
    _, typed = pc.act(policy, (), OBSERVATION, key=jax.random.key(3))
    _, raw = pc.act(policy, (), OBSERVATION, key=jax.random.PRNGKey(3))
    assert typed == raw


def test_plain_optax_trains_the_pair(policy: Any) -> None:
    optimizer = optax.adamw(0.05)

    @jax.jit
    def step(policy: Any, state: Any) -> Any:
        def loss(policy: Any) -> Any:
            _, value, log_prob, _ = pc.evaluate_action(policy, (), OBSERVATION, 2)
            return (value - 1.0) ** 2 - log_prob

        value, gradient = jax.value_and_grad(loss)(policy)
        change, state = optimizer.update(gradient, state, policy)
        return value, optax.apply_updates(policy, change), state

    state, losses = optimizer.init(policy), []
    with jax.numpy_dtype_promotion("standard"):  # optax is not strict
        for _ in range(30):
            value, policy, state = step(policy, state)
            losses.append(float(value))
    assert losses[-1] < 0.3 < losses[0]
    assert policy[1] == config(pc.Discrete(4))
    assert int(pc.act(policy, (), OBSERVATION)[1]) == 2


def test_nested_populations(policy: Any) -> None:
    keys = jax.random.split(jax.random.key(0), (2, 3))
    population = jax.vmap(jax.vmap(lambda key: pc.init(policy[1], key=key)))(keys)
    step = jax.vmap(jax.vmap(lambda p: pc.evaluate_action(p, (), OBSERVATION, 1)))
    _, values, log_probs, entropies = step(population)
    assert values.shape == log_probs.shape == entropies.shape == (2, 3)
    member = jax.tree.map(lambda x: x[1, 2], population)
    np.testing.assert_allclose(values[1, 2], pc.value(member, (), OBSERVATION)[1], rtol=1e-5)


@pytest.mark.usefixtures("unchecked")  # beartype doubles the time to trace
def test_a_distribution_that_leaves_a_vmap_is_right_outside() -> None:
    batch = jnp.linspace(-1.0, 1.0, 12).reshape(4, 3)

    @partial(jax.jit, static_argnums=0)  # one program for each config
    def facts(config: Any, key: Any) -> Any:
        policy = pc.init(config, key=key)
        inside = lambda o: pc.action_distribution(policy, (), o)[1]
        outside = jax.vmap(inside)(batch)
        both = outside.entropy(), outside.log_prob(outside.mode())
        return both, jax.vmap(lambda o: (inside(o).entropy(), inside(o).log_prob(inside(o).mode())))(batch)

    for name in (
        "act box of rank 2",
        "act multi-discrete of rank 2",
        "act multi-binary of rank 2",
        "act discrete",
    ):
        outside, inside = facts(CONFIGS[name], jax.random.key(0))
        for got, expected in zip(outside, inside, strict=True):
            assert got.shape == (4,)
            np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_computing_in_bfloat16_gives_float32_distributions() -> None:
    policy = pc.init(config(pc.Discrete(4), compute_dtype="bfloat16"), key=jax.random.key(0))
    _, distribution = pc.action_distribution(policy, (), OBSERVATION)
    _, value = pc.value(policy, (), OBSERVATION)
    assert distribution.logits.dtype == value.dtype == jnp.float32
    assert policy[0]["actor"]["head"]["kernel"].dtype == jnp.float32
    low = pc.init(config(pc.Discrete(4), param_dtype="bfloat16"), key=jax.random.key(0))
    assert {leaf.dtype for leaf in jax.tree.leaves(low)} == {jnp.dtype("bfloat16")}


def test_the_value_alone_does_not_compute_the_actor(policy: Any) -> None:
    def flops(function: Any) -> float:
        return jax.jit(function).lower(policy, OBSERVATION).compile().cost_analysis()["flops"]

    alone = flops(lambda p, o: pc.value(p, (), o)[1])
    both = flops(lambda p, o: pc.action_and_value(p, (), o, key=None)[1:])
    assert alone < 0.6 * both


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_everything_lowers_for_other_platforms(policy: Any, platform: str) -> None:
    def everything(key: Any, observation: Any) -> Any:
        fresh = pc.init(policy[1], key=key)
        state, action, *_ = pc.action_and_value(fresh, (), observation, key=key)
        return jax.grad(lambda p: sum(pc.evaluate_action(p, state, observation, action)[1:]))(fresh)[0]

    key = jax.eval_shape(lambda: jax.random.key(0))
    exported = jax.export.export(jax.jit(everything), platforms=[platform])(key, OBSERVATION)
    assert exported.platforms == (platform,)


def test_a_population_sharded_over_devices_gives_the_same(policy: Any) -> None:
    keys = jax.random.split(jax.random.key(0), 4)
    population = jax.vmap(lambda key: pc.init(policy[1], key=key))(keys)
    values = jax.jit(jax.vmap(lambda p: pc.value(p, (), OBSERVATION)[1]))
    sharding = jax.sharding.NamedSharding(mesh_of("Auto", member=2), jax.sharding.PartitionSpec("member"))
    sharded = values(jax.device_put(population, sharding))
    assert len(sharded.sharding.device_set) == 2
    np.testing.assert_allclose(sharded, values(population), rtol=1e-6)


def test_dict_observations_are_read_in_sorted_order() -> None:
    forth = pc.Dict({"a": pc.Box(shape=(1,)), "b": pc.Box(shape=(2,))})
    back = pc.Dict({"b": pc.Box(shape=(2,)), "a": pc.Box(shape=(1,))})
    assert forth == back
    element = {"b": jnp.array([2.0, 3.0]), "a": jnp.array([1.0])}
    assert forth.flatten(element).tolist() == [1.0, 2.0, 3.0]


HEAD_ERRORS = {
    "an empty dict": (lambda: config(pc.Dict({})), r"got an empty Dict, expected parts"),
    "endless integers": (lambda: config(SPACES["box int32"]), r"more than 1048576 values"),
    "Beta without bounds": (
        lambda: config(SPACES["box"], box_head=pc.BetaHead()),
        r"expected two finite ones for Beta",
    ),
    "bins of no width": (
        lambda: config(pc.Box(low=(0.0, 1.0), high=(1.0, 1.0), shape=(2,)), box_head=pc.BinsHead()),
        r"action_space: two bounds of the Box are equal, expected low < high for bins",
    ),
    "bins without bounds": (
        lambda: config(SPACES["box"], box_head=pc.BinsHead()),
        r"expected two finite ones",
    ),
    "no width": (
        lambda: config(pc.Box(low=1.0, high=1.0), box_head=pc.SquashedNormalHead()),
        r"two bounds.* are equal",
    ),
    "a part without a head": (
        lambda: config(SPACES["dict"], box_head=pc.BetaHead()),
        r"expected two finite ones for Beta",
    ),
    "log_std out of bounds": (
        lambda: pc.Scale(log_std=3.0, high=2.0),
        r"Scale.log_std: got 3.0, expected a number from",
    ),
    "concentrations": (lambda: pc.BetaHead(low=2.0, high=1.0), r"expected 0 < low < high"),
    "one bin": (lambda: pc.BinsHead(1), r"BinsHead.bins: got 1, expected at least 2"),
    "a frozen policy": (
        lambda: config(pc.Discrete(2), temperature=0.0),
        r"temperature: got 0.0, expected a positive",
    ),
    "64 bits": (
        lambda: pc.init(config(pc.Discrete(2), param_dtype="float64"), key=jax.random.key(0)),
        r"param_dtype: float64 needs 64-bit JAX",
    ),
}


@pytest.mark.parametrize("name", HEAD_ERRORS)
@pytest.mark.usefixtures("unchecked")
def test_a_head_that_cannot_serve_is_refused(name: str) -> None:
    build, message = HEAD_ERRORS[name]
    with pytest.raises(pc.errors.ConfigError, match=message):
        build()


@pytest.mark.parametrize("head", [pc.SquashedNormalHead(), pc.BetaHead(), pc.BinsHead(9), pc.NormalHead()])
def test_policy_action_comes_back_through_every_head(head: Any) -> None:
    space = pc.Box(low=(-2.0, 0.0), high=(2.0, 1.0), shape=(2,))
    policy = pc.init(config(space, box_head=head), key=jax.random.key(0))
    for inside in ([0.5, 0.25], [-1.5, 0.875], [2.0, 0.0]):
        action = pc.policy_action(policy, jnp.array(inside))
        assert all(bool(jnp.all(jnp.isfinite(x))) for x in jax.tree.leaves(action))
        np.testing.assert_allclose(pc.env_action(policy, action), inside, rtol=0, atol=2e-7)
        assert jnp.isfinite(pc.evaluate_action(policy, (), OBSERVATION, action)[2])


def test_integer_boxes_are_exact_to_the_last_value() -> None:
    policy = pc.init(config(pc.Box(low=-128, high=127, dtype="int8")), key=jax.random.key(0))
    assert int(pc.env_action(policy, jnp.int32(0))) == -128
    assert int(pc.env_action(policy, jnp.int32(255))) == 127
    assert int(pc.policy_action(policy, jnp.int8(127))) == 255


def test_temperature_is_a_leaf_that_is_set_and_not_trained() -> None:
    policy = pc.init(config(pc.Discrete(4), temperature=1.0, actor_gain=1.0), key=jax.random.key(0))
    params, static = policy
    temperatures = jnp.array([0.01, 1.0, 100.0])

    def entropy(temperature: Any) -> Any:
        hot = ({**params, "temperature": temperature}, static)
        return pc.action_distribution(hot, (), OBSERVATION)[1].entropy()

    entropies = jax.vmap(entropy)(temperatures)
    assert entropies[0] < 0.05 < entropies[1] < entropies[2]
    assert entropies[2] == pytest.approx(np.log(4), abs=1e-4)
    assert not np.any(jax.vmap(jax.grad(entropy))(temperatures))
    tempered = jax.nn.log_softmax(pc.action_distribution(policy, (), OBSERVATION)[1].logits / 0.01)
    got = pc.action_distribution(({**params, "temperature": temperatures[0]}, static), (), OBSERVATION)[1]
    np.testing.assert_allclose(got.log_probs, tempered, rtol=1e-5)


def test_a_temperature_is_the_root_of_the_density() -> None:
    space = pc.Box(low=0.0, high=1.0)
    for head in (pc.BetaHead(), pc.NormalHead()):
        params, static = pc.init(config(space, box_head=head, temperature=1.0), key=jax.random.key(0))
        at = jnp.array([-1.0, 0.2, 0.9])

        def log_prob(temperature: float, params: Any = params, static: Any = static) -> Any:
            policy = ({**params, "temperature": jnp.float32(temperature)}, static)
            return jax.vmap(lambda a: pc.evaluate_action(policy, (), OBSERVATION, a)[2])(at)

        difference = log_prob(2.0) - log_prob(1.0) / 2
        np.testing.assert_allclose(difference, difference[0], atol=1e-5)


def test_beta_concentrations_are_clipped_at_every_temperature() -> None:
    """softplus plus a minimum, its power, and bounds that hold afterwards."""
    space = pc.Box(low=0.0, high=1.0, shape=(3,))
    outputs = np.array(
        [-30.0, 0.0, 30.0, 30.0, 0.0, -30.0], np.float32
    )  # of three first and three second ones
    layer = {"kernel": jnp.zeros((1, 6)), "bias": jnp.asarray(outputs)}
    for low, high in ((0.5, 4.0), (1e-3, 1e4), (1.0, 20.0)):
        for temperature in (None, 0.01, 1.0, 2.0):
            heat = None if temperature is None else jnp.float32(temperature)
            got = pc.BetaHead(low=low, high=high).distribution(space, layer, jnp.ones(1), None, heat)
            exact = low + np.logaddexp(0, outputs.astype(np.float64))
            exact = 1 + (exact - 1) / (temperature or 1.0)  # the root of x^(a - 1)
            wanted = np.clip(exact, min(low, 1e-2), high)
            np.testing.assert_allclose(jnp.concatenate([got.alpha, got.beta]), wanted, rtol=1e-4)


def test_each_head_starts_with_its_own_gain() -> None:
    params, _ = pc.init(config(pc.Discrete(3), actor_gain=0.5, critic_gain=3.0), key=jax.random.key(0))
    for owner, gain in (("actor", 0.5), ("critic", 3.0)):
        kernel = params[owner]["head"]["kernel"]
        np.testing.assert_allclose(kernel.T @ kernel, gain**2 * np.eye(kernel.shape[1]), atol=1e-5)


def test_checked_mask_reports_a_row_that_allows_nothing() -> None:
    space = SPACES["nested"]
    check = jax.jit(checkify.checkify(lambda mask: pc.spaces.checked_mask(space, mask)))
    full = space.full_mask()
    assert check(full)[0].get() is None
    bits_only = {**full, "x": (jnp.zeros(2, bool), full["x"][1])}
    assert check(bits_only)[0].get() is None
    empty = {**full, "x": (full["x"][0], (jnp.ones(2, bool), jnp.zeros(3, bool)))}
    assert "action_mask: a row allows nothing" in check(empty)[0].get()


@pytest.mark.usefixtures("unchecked")
def test_first_states_of_several_environments():
    policy = pc.init(config(pc.Discrete(4), memory=pc.GRU(5, learned_start=True)), key=jax.random.key(0))
    one = pc.reset(policy)
    for batch in [(3,), (2, 3), (0,), ()]:
        states = pc.reset(policy, batch=batch)
        assert states["shared"].shape == (*batch, 5)
        assert np.array_equal(states["shared"], np.broadcast_to(one["shared"], (*batch, 5)))
        assert pc.reset(policy, key=jax.random.key(0), batch=batch)["shared"].shape == (*batch, 5)
    nested = jax.vmap(lambda x: pc.reset(policy, batch=(3,))["shared"] + x)(jnp.zeros(2))
    assert nested.shape == (2, 3, 5)
    assert pc.reset(pc.init(config(pc.Discrete(4)), key=jax.random.key(0)), batch=(3,)) == ()
    for batch in (3, (-1,), (1.0,), "ab"):
        with pytest.raises(
            StructureError, match=r"^batch: got .*, expected a tuple of sizes, such as \(32,\)"
        ):
            pc.reset(policy, batch=batch)


def test_first_states_with_a_key_differ():
    class Start:
        """A policy whose first state is random."""

        observation_space: pc.contract.Space[Any] = pc.Box(shape=(2,))
        action_space: pc.contract.Space[Any] = pc.Discrete(2)

        def init(self, *, key: Any) -> Any:
            return {"scale": jnp.ones(())}

        def initial_state(self, params: Any, *, key: Any = None) -> Any:
            return jnp.zeros(2) if key is None else params["scale"] * jax.random.normal(key, (2,))

        def forward(self, params: Any, state: Any, observation: Any, *, action_mask: Any = None) -> Any:
            return state, pc.distributions.Categorical(state, action_mask, self.action_space), jnp.zeros(())

        def env_action(self, action: Any) -> Any:
            return action

        def policy_action(self, env_action: Any) -> Any:
            return env_action

    config_class = pc.static(Start)
    policy = pc.init(config_class(), key=jax.random.key(0))
    states = pc.reset(policy, key=jax.random.key(1), batch=(2, 3))
    assert states.shape == (2, 3, 2)
    assert len(np.unique(np.asarray(states))) == 12
