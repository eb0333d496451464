"""Params and actions are those of the config, or an error says whose they are; a call is found by its config."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import policy_core as pc
from policy_core.errors import StructureError

KEY = jax.random.key(0)
TWO, ONES = pc.Discrete(2), jnp.ones(4)
NETWORK = pc.MLP((4,))
pytestmark = pytest.mark.usefixtures("unchecked")


def config(action_space: Any = TWO, **fields: Any) -> Any:
    fields = {"observation_space": pc.Box(shape=(4,)), "actor": NETWORK, "critic": NETWORK, **fields}
    return pc.ActorCriticConfig(action_space=action_space, **fields)


def population(of: Any, *axes: int) -> Any:
    init: Any = lambda key: pc.init(of, key=key)
    for _ in axes:
        init = jax.vmap(init)
    return init(jax.random.split(KEY, axes))


WAYS: dict[str, Any] = {
    "act": lambda policy: pc.act(policy, (), ONES),
    "action_and_value": lambda policy: pc.action_and_value(policy, (), ONES, key=KEY),
    "evaluate_action": lambda policy: pc.evaluate_action(policy, (), ONES, 1),
    "value": lambda policy: pc.value(policy, (), ONES),
    "forward": lambda policy: pc.forward(policy, (), ONES),
    "action_distribution": lambda policy: pc.action_distribution(policy, (), ONES),
    "evaluate_sequence": lambda policy: pc.evaluate_sequence(
        policy, (), jnp.ones((3, 4)), jnp.zeros(3, int), is_first=jnp.zeros(3, bool)
    ),
    "reset": pc.reset,
    "update_statistics": lambda policy: pc.update_statistics(policy, jnp.ones((6, 4))),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("axes", [(3,), (2, 3)], ids=str)
def test_a_population_that_is_not_vmapped_is_refused(way, axes):
    got = f"params['actor']['head']['bias']: got shape {(*axes, 2)}, expected (2,); these are the params of "
    with pytest.raises(StructureError, match="^" + re.escape(got + "a population")) as error:
        WAYS[way](population(config(normalize=pc.Normalize()), *axes))
    assert f"of {axes}: use jax.vmap over it, or take one with policy_core.population.member" in str(
        error.value
    )


def test_a_population_loses_its_critics_as_it_is():
    of = config(normalize=pc.Normalize())
    actors = pc.actor_only(population(of, 3))
    assert pc.batch_shape(actors) == (3,)
    assert jax.vmap(lambda policy: pc.act(policy, (), ONES)[1])(actors).shape == (3,)
    with pytest.raises(StructureError, match=r"^params\['critic'\].*another config"):
        pc.actor_only(({**pc.init(of, key=KEY)[0], "critic": {}}, of))


MEMORIES = {"gru": pc.GRU(4), "min gru": pc.MinGRU(4), "attention": pc.WindowAttention(4, window=2, heads=1)}


@pytest.mark.parametrize("name", MEMORIES)
def test_a_population_with_a_memory_or_an_embedding_is_refused_and_its_members_act(name):
    policies = population(
        config(observation_space=pc.Discrete(5), encoder=pc.Embedding(3), memory=MEMORIES[name]), 2
    )
    with pytest.raises(StructureError, match=r"a population of \(2,\)"):
        pc.reset(policies)
    states = jax.vmap(pc.reset)(policies)
    _, actions = jax.vmap(lambda policy, state: pc.act(policy, state, 1))(policies, states)
    assert actions.shape == (2,)


OTHERS: dict[str, tuple[Any, str]] = {
    "of a wider network": (
        lambda: pc.init(config(actor=pc.MLP((5,))), key=KEY)[0],
        r"^params\['actor'\]\['head'\]\['kernel'\]: got shape \(5, 2\), expected \(4, 2\); these are the params of "
        r"another config: policy_core\.transplant carries leaves over",
    ),
    "without a critic": (
        lambda: {"actor": pc.init(config(), key=KEY)[0]["actor"]},
        r"^params\['critic'\]\['head'\]\['bias'\]: missing; these are the params of another config",
    ),
    "with a trunk": (
        lambda: pc.init(config(trunk=pc.MLP((4,))), key=KEY)[0],
        r"^params\['trunk'\]\['hidden_0'\]\['bias'\]: unexpected; these are the params of another config",
    ),
    "none": (lambda: None, r"^params\['actor'\]\['head'\]\['bias'\]: missing"),
    "of integers": (
        lambda: jax.tree.map(lambda leaf: leaf.astype(int), pc.init(config(), key=KEY)[0]),
        r"^params\['actor'\]\['head'\]\['bias'\]: got dtype int32, expected float32",
    ),
}


@pytest.mark.parametrize("name", OTHERS)
def test_params_of_something_else_are_refused_by_path(name):
    params, message = OTHERS[name]
    with pytest.raises(StructureError, match=message):
        pc.act((params(), config()), (), ONES)


def test_params_of_another_width_of_float_act():
    """As a trainer that keeps params in float32 and computes in bfloat16 casts them."""
    params, same = pc.init(config(), key=KEY)
    half = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), params)
    assert pc.act((half, same), (), ONES)[1].shape == ()


def test_what_is_no_pair_is_refused_at_a_later_call_too():
    policy = pc.init(config(), key=KEY)
    pc.act(policy, (), ONES)
    for wrong in (policy[0], 3, (policy[1], policy[0]), (*policy, 1)):
        with pytest.raises(StructureError, match=r"^(policy|config): got "):
            pc.act(wrong, (), ONES)
    for wrong in (pc.MLP(), [pc.MLP()], {}):
        with pytest.raises(
            StructureError, match=r"^config: got \w+, expected a config that implements ActorCritic"
        ):
            pc.init(wrong, key=KEY)


ACTIONS: list[tuple[Any, Any, str]] = [
    (TWO, 1.7, r"^action: got dtype float32, expected int32; convert it with \.astype"),
    (TWO, {"a": 1}, r"^action\['a'\]: unexpected; expected one array"),
    (TWO, np.zeros(3, np.int32), r"^action: got shape \(3,\), expected \(\); for a batch use jax\.vmap"),
    (pc.Box(shape=(2,)), np.zeros(3, np.float32), r"^action: got shape \(3,\), expected \(2,\)"),
    (pc.Box(shape=(2,)), np.zeros(2, np.int32), r"^action: got dtype int32, expected float32"),
    (pc.Dict({"a": TWO, "b": pc.Box()}), {"a": 1}, r"^action\['b'\]: missing"),
]


@pytest.mark.parametrize(("space", "action", "message"), ACTIONS)
def test_an_action_of_another_space_is_refused(space, action, message):
    with pytest.raises(StructureError, match=message):
        pc.env_action(pc.init(config(space), key=KEY), action)


def test_the_policy_action_of_bins_is_an_index():
    policy = pc.init(config(pc.Box(low=-1.0, high=1.0, shape=(2,)), box_head=pc.BinsHead(5)), key=KEY)
    assert pc.env_action(policy, jnp.array([0, 4])).tolist() == [-1.0, 1.0]
    with pytest.raises(StructureError, match=r"^action: got dtype float32, expected int32"):
        pc.env_action(policy, jnp.array([0.0, 4.0]))


@jax.tree_util.register_static
class Untraced:
    """A config from elsewhere whose `init` looks at its key."""

    observation_space, action_space = pc.Box(shape=(4,)), TWO

    def init(self, *, key: Any) -> Any:
        return {"seed": jnp.asarray(float(jax.random.key_data(key)[-1]))}

    def initial_state(self, params: Any, *, key: Any = None) -> Any:
        return ()

    def forward(self, params: Any, state: Any, observation: Any, *, action_mask: Any = None) -> Any:
        logits = jnp.stack([params["seed"], jnp.zeros(())])
        return state, pc.distributions.Categorical(logits, action_mask, TWO), params["seed"]

    def env_action(self, action: Any) -> Any:
        return action

    def policy_action(self, env_action: Any) -> Any:
        return env_action


def test_a_config_whose_init_cannot_be_traced_says_so_or_opts_out(monkeypatch):
    policy: Any = ({"seed": jnp.ones(())}, Untraced())
    with pytest.raises(
        StructureError, match=r"^config: Untraced\.init cannot be traced.* set params_unchecked = True"
    ):
        pc.act(policy, (), ONES)
    monkeypatch.setattr(Untraced, "params_unchecked", True, raising=False)
    assert int(pc.act(policy, (), ONES)[1]) == 0
    assert pc.batch_shape(policy) == ()
    assert pc.summary(policy).startswith("Untraced: 1 parameters")


def test_the_methods_of_jit_survive():
    policy = pc.init(config(), key=KEY)
    assert "jit_act" in pc.act.lower(policy, (), ONES).as_text()
    assert pc.act.eval_shape(policy, (), ONES)[1].dtype == jnp.int32
    assert pc.value.trace(policy, (), ONES).jaxpr.out_avals[0].shape == ()
    assert pc.act.__doc__.startswith("One step of inference")
    assert pc.act(policy=policy, state=(), observation=ONES)[1].shape == ()


def test_a_call_is_found_by_the_hash_of_its_config():
    """JAX hashes the tree of a pair without its config, so a jit of pairs would compare them one by one."""
    many = [config(critic_gain=1.0 + i) for i in range(40)]
    params = pc.init(many[0], key=KEY)[0]
    compared = 0
    equal = type(many[0]).__eq__

    def count(self: Any, other: Any) -> Any:
        nonlocal compared
        compared += 1
        return equal(self, other)

    for one in many:
        pc.value((params, one), (), ONES)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(many[0]), "__eq__", count)
        for one in many:
            pc.value((params, one), (), ONES)
    assert compared <= 2 * len(many)


D, BOX = pc.distributions, pc.Box(low=-1.0, high=1.0, shape=(2,))
MISSHAPEN: dict[str, tuple[Any, str]] = {
    "categorical": (lambda: D.Categorical(jnp.zeros(4), None, pc.Discrete(3)), r"^logits: got shape \(4,\), expected \(\.\.\., 3\)"),
    "several": (lambda: D.MultiCategorical(jnp.zeros(3), None, pc.MultiDiscrete((2, 3))), r"^logits: got shape \(3,\)"),
    "joint": (
        lambda: D.ProductCategorical(jnp.zeros(3), pc.spaces.JointMask(jnp.ones((2, 3), bool)), pc.MultiDiscrete((2, 3))),
        r"^logits: got shape \(3,\)",
    ),
    "bits": (lambda: D.Bernoulli(jnp.zeros(3), None, pc.MultiBinary((2, 3))), r"^logits: got shape \(3,\)"),
    "normal": (lambda: D.Normal(jnp.zeros(2), jnp.zeros(1), BOX), r"^log_std: got shape \(1,\), expected \(\.\.\., 2\)"),
    "batch": (lambda: D.Normal(jnp.zeros((5, 2)), jnp.zeros(2), BOX), r"^log_std: got shape \(2,\), expected \(5, 2\)"),
    "squashed": (lambda: D.SquashedNormal(jnp.zeros(1), jnp.zeros(1), BOX), r"^loc: got shape \(1,\)"),
    "beta": (lambda: D.Beta(jnp.ones(1), jnp.ones(2), BOX), r"^alpha: got shape \(1,\)"),
    "integers": (lambda: D.Categorical(jnp.zeros(3, int), None, pc.Discrete(3)), r"^logits: got dtype int32, expected a float"),
}  # fmt: skip


@pytest.mark.parametrize("method", ["entropy", "mode", "sample", "sample_and_log_prob"])
@pytest.mark.parametrize("name", MISSHAPEN)
def test_parameters_of_another_shape_than_the_space_are_refused(name, method):
    make, message = MISSHAPEN[name]
    if method == "mode" and name in ("normal", "batch"):
        pytest.skip("the mode is the mean, whatever the standard deviation")
    arguments = {"key": KEY} if "sample" in method else {}
    with pytest.raises(StructureError, match=message):
        getattr(make(), method)(**arguments)


NO_ELEMENTS = [
    -0.5,
    0.5,
    np.nan,
    np.inf,
    -np.inf,
    np.int64(2**32 + 1),
    np.uint32(2**32 - 1),
    2**40,
    3,
    -1,
    np.float16(1.5),
]


@pytest.mark.parametrize("action", NO_ELEMENTS, ids=str)
def test_what_is_no_element_of_a_discrete_space_is_never_rounded_to_one(action):
    assert D.Categorical(jnp.zeros(3), None, pc.Discrete(3)).log_prob(action) == D.MASKED_LOG_PROB
    several = np.array([action, 0])
    assert (
        D.MultiCategorical(jnp.zeros(6), None, pc.MultiDiscrete((3, 3))).log_prob(several)
        == D.MASKED_LOG_PROB
    )
    mask = pc.spaces.JointMask(jnp.ones((3, 3), bool))
    assert (
        D.ProductCategorical(jnp.zeros(6), mask, pc.MultiDiscrete((3, 3))).log_prob(several)
        == D.MASKED_LOG_PROB
    )
    assert D.Bernoulli(jnp.zeros(2), None, pc.MultiBinary(2)).log_prob(several) == D.MASKED_LOG_PROB


@pytest.mark.parametrize(
    "one", [1, True, 1.0, np.int64(1), np.uint8(1), jnp.bfloat16(1), jnp.uint32(1)], ids=str
)
def test_an_element_is_one_in_any_dtype(one):
    distribution = D.Categorical(jnp.array([0.0, 1.0, 2.0]), None, pc.Discrete(3))
    assert distribution.log_prob(one) == distribution.log_prob(jnp.int32(1))
