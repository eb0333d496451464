"""Parts of an action that depend on each other: joint masks, and autoregressive parts."""

import itertools
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import AUTOREGRESSIVE, OBSERVATION, SMALL, config
from compiling import fresh

import policy_core as pc
from policy_core.distributions import (
    MASKED_LOG_PROB,
    AutoregressiveJoint,
    Categorical,
    MultiCategorical,
    ProductCategorical,
)
from policy_core.distributions.graph import Graph
from policy_core.errors import ConfigError, MaskError

pytestmark = pytest.mark.usefixtures("unchecked")  # beartype doubles the time to trace

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
ODD = pc.MultiDiscrete((3, 2, 2), start=(0, -1, 5))
LOGITS = jnp.asarray(RNG.normal(size=(4, 7)), jnp.float32)
ALLOWED = RNG.random((3, 2, 2)) < 0.4
TRIPLES = np.array(list(itertools.product(*(range(n) for n in ODD.nvec))), np.int32)


# JOINT MASKS


def _law(logits: np.ndarray, allowed: np.ndarray) -> np.ndarray:
    """The probabilities of all triples, in float64: rows multiplied, cut to the mask, normalized."""
    rows = np.split(np.exp(logits.astype(float)), np.cumsum(ODD.nvec)[:-1], -1)
    table = np.einsum("bi,bj,bk->bijk", *rows) * allowed
    return table / table.sum((1, 2, 3), keepdims=True)


def test_a_joint_mask_cuts_the_product_and_renormalizes() -> None:
    d = ProductCategorical(LOGITS, pc.spaces.JointMask(jnp.asarray(ALLOWED)), ODD)
    law = _law(np.asarray(LOGITS), ALLOWED)
    np.testing.assert_allclose(d.probs, law, atol=3e-7)
    actions = TRIPLES + ODD.starts()
    log_probs = jax.vmap(d.log_prob)(jnp.broadcast_to(actions[:, None], (12, 4, 3)))
    assert (log_probs[~ALLOWED.ravel()] == MASKED_LOG_PROB).all()
    expected = np.log(law.reshape(4, 12).T[ALLOWED.ravel()])
    np.testing.assert_allclose(log_probs[ALLOWED.ravel()], expected, atol=1e-6)
    entropy = -np.sum(law * np.log(np.where(law > 0, law, 1)), (1, 2, 3))
    np.testing.assert_allclose(d.entropy(), entropy, atol=1e-6)
    best = actions[law.reshape(4, 12).argmax(-1)]
    np.testing.assert_array_equal(d.mode(), best)


def test_a_joint_mask_of_everything_or_nothing_changes_nothing() -> None:
    plain = MultiCategorical(LOGITS, None, ODD)
    actions = jnp.array([[0, -1, 5], [2, 0, 6], [0, 1, 5], [3, 0, 5]])  # the last two are not in the space
    for mask in (np.ones_like(ALLOWED), np.zeros_like(ALLOWED)):
        d = ProductCategorical(LOGITS, pc.spaces.JointMask(jnp.asarray(mask)), ODD)
        np.testing.assert_allclose(d.log_prob(actions), plain.log_prob(actions), atol=1e-6)
        np.testing.assert_allclose(d.entropy(), plain.entropy(), atol=1e-6)
        np.testing.assert_array_equal(d.mode(), plain.mode())
    assert (d.log_prob(actions)[2:] == MASKED_LOG_PROB).all()


def test_a_policy_takes_a_joint_mask() -> None:
    policy = fresh(config(ODD, actor_gain=1.0), key=KEY)
    observation, mask = jnp.ones(3), pc.spaces.JointMask(jnp.asarray(ALLOWED))

    def draw(key: Any) -> Any:
        _, action, _, log_prob = pc.action_and_value(policy, (), observation, key=key, action_mask=mask)
        _, _, again, _ = pc.evaluate_action(policy, (), observation, action, action_mask=mask)
        return action - ODD.starts(), again - log_prob, ODD.sample(key=key, mask=mask) - ODD.starts()

    drawn, difference, sampled = jax.jit(jax.vmap(draw))(jax.random.split(KEY, 500))
    assert (difference == 0).all()
    for choices in (drawn, sampled):
        assert ALLOWED[tuple(np.asarray(choices).T)].all()
        assert len(np.unique(choices, axis=0)) == ALLOWED.sum()


def test_joint_masks_that_cannot_apply_are_refused() -> None:
    with pytest.raises(MaskError, match=r"action_mask\.allowed: got shape \(3, 2\), expected \(3, 2, 2\)"):
        ODD.check_mask(pc.spaces.JointMask(jnp.ones((3, 2), bool)))
    with pytest.raises(MaskError, match=r"allowed: got dtype int32, expected bool"):
        ODD.check_mask(pc.spaces.JointMask(jnp.ones((3, 2, 2), jnp.int32)))
    with pytest.raises(MaskError, match="JointMask holds joint ones"):
        pc.MultiDiscrete((2, 2)).check_mask(jnp.ones((2, 2), bool))
    with pytest.raises(MaskError, match=r"got shape .*, expected \(4,\)|boolean array"):
        pc.Discrete(4).check_mask(pc.spaces.JointMask(jnp.ones(4, bool)))
    large = pc.MultiDiscrete((1048577, 1))
    with pytest.raises(MaskError, match="1048577 combinations, expected at most 1048576"):
        large.check_mask(pc.spaces.JointMask(np.ones((1048577, 1), bool)))


def test_a_joint_mask_that_allows_nothing_is_found_by_checked_mask() -> None:
    from jax.experimental import checkify

    check = jax.jit(checkify.checkify(lambda mask: pc.spaces.checked_mask(ODD, mask)))
    assert check(pc.spaces.JointMask(jnp.asarray(ALLOWED)))[0].get() is None
    error, _ = check(pc.spaces.JointMask(jnp.zeros((3, 2, 2), bool)))
    assert "a row allows nothing" in error.get()


# AUTOREGRESSIVE PARTS

CHAIN = Graph(
    spaces=(("a", pc.Discrete(3)), ("b", pc.MultiBinary(2)), ("c", pc.Discrete(2, start=7))),
    parents=(("b", ("a",)), ("c", ("a", "b"))),
)


def _chain(rng: np.random.Generator, mask: Any) -> AutoregressiveJoint:
    def normal(*shape: int) -> jax.Array:
        return jnp.asarray(2 * rng.normal(size=shape), jnp.float32)

    bits = pc.distributions.Bernoulli(normal(3, 2), None, pc.MultiBinary(2))
    parts = {
        "a": Categorical(normal(1, 3), mask, pc.Discrete(3)),
        "b": bits,
        "c": Categorical(normal(12, 2), None, pc.Discrete(2, start=7)),
    }
    return AutoregressiveJoint(parts, CHAIN)


def _chain_law(d: AutoregressiveJoint) -> np.ndarray:
    """The probabilities of all 24 actions, in float64, by the chain rule, one by one."""
    law = np.zeros((3, 2, 2, 2))
    softmax = lambda z: np.exp(z) / np.exp(z).sum()
    for a, i, j, c in np.ndindex(law.shape):
        logits = np.asarray(d.parts["a"].logits[0], float)
        if d.parts["a"].mask is not None:
            logits = np.where(d.parts["a"].mask[0], logits, -np.inf)
        ones = 1 / (1 + np.exp(-np.asarray(d.parts["b"].logits[a], float)))
        bits = np.prod(np.where([i, j], ones, 1 - ones))
        last = softmax(np.asarray(d.parts["c"].logits[4 * a + 2 * i + j], float))[c]
        law[a, i, j, c] = softmax(logits)[a] * bits * last
    return law


@pytest.mark.parametrize("mask", [None, jnp.array([[True, False, True]])], ids=["free", "masked"])
def test_a_chain_is_the_product_of_its_conditionals(mask: Any) -> None:
    rng = np.random.default_rng(1)
    p, q = _chain(rng, mask), _chain(rng, mask)
    law, other = _chain_law(p), _chain_law(q)
    a, i, j, c = np.indices(law.shape).reshape(4, -1).astype(np.int32)
    actions = {"a": a, "b": np.stack([i, j], -1), "c": c + 7}

    @jax.jit
    def facts(p: Any, q: Any) -> Any:
        terms = lambda p: (jnp.exp(jax.vmap(p.log_prob)(actions)), p.entropy(), p.kl(q))
        impossible = p.log_prob({"a": 3, "b": jnp.zeros(2, int), "c": 7})
        slopes = jax.grad(lambda p: sum(jnp.sum(x) for x in terms(p)), allow_int=True)(p)
        return terms(p), (p.kl(p), impossible), slopes

    (probs, entropy, kl), (of_itself, impossible), slopes = facts(p, q)
    np.testing.assert_allclose(probs, law.ravel(), atol=3e-7)
    some = law > 0
    np.testing.assert_allclose(entropy, -np.sum(law[some] * np.log(law[some])), atol=1e-6)
    np.testing.assert_allclose(kl, np.sum(law[some] * np.log(law[some] / other[some])), atol=1e-6)
    floats = [x for x in jax.tree.leaves(slopes) if jnp.issubdtype(x.dtype, jnp.floating)]
    assert all(np.isfinite(x).all() for x in floats)
    assert float(of_itself) == 0
    assert bool(impossible == MASKED_LOG_PROB)
    draws = jax.jit(jax.vmap(lambda key: p.sample(key=key)))(jax.random.split(KEY, 20_000))
    index = (draws["a"], *draws["b"].T, draws["c"] - 7)
    counts = np.zeros_like(law)
    np.add.at(counts, tuple(map(np.asarray, index)), 1 / 20_000)
    assert np.abs(counts - law).max() < 5 * np.sqrt(0.25 / 20_000)
    assert counts[~some].sum() == 0


def test_the_mode_follows_the_parents() -> None:
    d = _chain(np.random.default_rng(2), None)
    mode, a = d.mode(), int(jnp.argmax(d.parts["a"].logits[0]))
    bits = np.asarray(d.parts["b"].logits[a] > 0, int)
    assert int(mode["a"]) == a
    assert mode["b"].tolist() == bits.tolist()
    assert int(mode["c"]) == 7 + int(jnp.argmax(d.parts["c"].logits[4 * a + 2 * bits[0] + bits[1]]))


def test_a_part_gets_the_features_and_what_it_sees() -> None:
    """Against the networks called by hand."""
    policy = fresh(AUTOREGRESSIVE, key=KEY)
    (params, chosen), observation = policy, jnp.array([0.3, -1.0, 2.0])
    own = params["actor"]["head"]["force"]
    x = chosen.actor.apply(params["actor"]["tower"], observation)
    _, d = pc.action_distribution(policy, (), observation)
    seen = [(tool, aim) for tool in range(3) for aim in range(4)]
    for k, (tool, aim) in enumerate(seen):
        flat = jnp.concatenate([x, jax.nn.one_hot(tool, 3), jax.nn.one_hot(aim, 4)])
        z = chosen.autoregressive.network.apply(own["network"], flat)
        loc = z @ own["head"]["kernel"] + own["head"]["bias"]
        np.testing.assert_allclose(d.parts["force"].loc[k], loc, atol=1e-6)
    assert d.parts["aim"].mask.tolist() == (np.arange(4) != np.arange(3)[:, None]).tolist()
    assert d.parts["free"].logits.shape == (1, 4)


def test_what_a_mask_function_forbids_is_never_drawn() -> None:
    policy = fresh(AUTOREGRESSIVE, key=KEY)
    mask = {**AUTOREGRESSIVE.action_space.full_mask(), "aim": jnp.array([True, True, False, True])}

    @jax.jit
    @jax.vmap
    def draw(key: Any) -> Any:
        _, action, _, log_prob = pc.action_and_value(policy, (), jnp.ones(3), key=key, action_mask=mask)
        _, _, again, _ = pc.evaluate_action(policy, (), jnp.ones(3), action, action_mask=mask)
        return action, again - log_prob

    action, difference = draw(jax.random.split(KEY, 500))
    assert (difference == 0).all()
    assert (action["tool"] != action["aim"]).all()
    assert set(action["aim"].tolist()) == {0, 1, 3}


def test_parts_of_a_tuple_go_by_their_places() -> None:
    space = pc.Tuple((pc.Box(low=-1.0, high=1.0, shape=(2,)), pc.Box(low=0, high=2, shape=(), dtype="int8")))
    chosen = config(space, autoregressive=pc.Autoregressive({0: (1,)}))
    policy = fresh(chosen, key=KEY)
    _, d = pc.action_distribution(policy, (), jnp.ones(3))
    assert d.parts[0].loc.shape == (3, 2)
    _, action = pc.act(policy, (), jnp.ones(3), key=KEY)
    assert bool(space.contains(action))


@pytest.mark.parametrize(
    ("space", "parents", "message"),
    [
        (pc.Discrete(2), {"a": ("b",)}, "got Discrete, expected a Dict or Tuple for Autoregressive"),
        ({"a": pc.Discrete(2)}, {"a": ("x",)}, "got 'x', expected one of \\['a'\\]"),
        ({"a": pc.Discrete(2)}, {"a": ("a",)}, "got \\('a',\\) for 'a', expected other parts, each once"),
        ({"a": pc.Box(), "b": pc.Box()}, {"a": ("b",)}, "got 'b', a Box, for 'a', expected a discrete part"),
        (
            {k: pc.Discrete(2) for k in "abc"},
            {"c": ("b",), "b": ("a",)},
            "got 'b' for 'c' without its parents; add \\['a'\\]",
        ),
        (
            {"a": pc.MultiBinary(13), "b": pc.Box()},
            {"b": ("a",)},
            "got \\('a',\\) for 'b', with more than 4096 combinations",
        ),
        (
            {k: pc.Discrete(2) for k in "ab"},
            {"a": ("b",), "b": ("a",)},
            "got 'b' for 'a' without its parents; add \\['a'\\]",
        ),
    ],
)
def test_dependence_that_cannot_be_is_refused(space: Any, parents: Any, message: str) -> None:
    space = pc.Dict(space) if isinstance(space, dict) else space
    with pytest.raises(ConfigError, match=message):
        config(space, autoregressive=pc.Autoregressive(parents))


def test_masks_of_functions_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"masks: 'a' has no parents to make a mask from"):
        pc.Autoregressive({"b": ("a",)}, masks={"a": "others"})
    with pytest.raises(ConfigError, match=r"masks\['b'\]: no mask_function is registered as 'none'"):
        pc.Autoregressive({"b": ("a",)}, masks={"b": "none"})
    with pytest.raises(ConfigError, match=r"parents: got the names \['b', 'b'\], expected each once"):
        pc.Autoregressive((("b", ("a",)), ("b", ())))
    space = pc.Dict({"tool": pc.Discrete(3), "b": pc.Discrete(3)})
    wrong = config(space, autoregressive=pc.Autoregressive({"b": ("tool",)}, masks={"b": "others"}))
    policy = fresh(wrong, key=KEY)
    with pytest.raises(MaskError, match=r"the mask of 'b' by 'others': got shape \(4,\), expected \(3,\)"):
        pc.act(policy, (), jnp.ones(3))


LOAD = """
import sys, policy_core as pc
try:
    pc.load(sys.argv[1])
except ValueError as error:
    print(error)
"""


def test_a_file_whose_mask_function_is_not_registered_says_so(tmp_path: Path) -> None:
    path = tmp_path / "policy.msgpack"
    policy = fresh(AUTOREGRESSIVE, key=KEY)
    pc.save(path, policy)
    assert pc.load(path)[1] == AUTOREGRESSIVE
    done = subprocess.run([sys.executable, "-c", LOAD, str(path)], capture_output=True, text=True, check=True)
    assert "no mask_function is registered as 'others'" in done.stdout
    assert "policy_core.heads.register_mask_function adds one" in done.stdout


def test_the_config_says_who_sees_whom() -> None:
    assert pc.Autoregressive({"b": ("a",), "c": ("a",)}) == pc.Autoregressive(
        (("c", ("a",)), ("b", ("a",))), network=pc.MLP((64,))
    )
    plain = pc.ActorCriticConfig(
        observation_space=OBSERVATION, action_space=AUTOREGRESSIVE.action_space, **SMALL
    )
    assert "autoregressive" in str(pc.diff(plain, AUTOREGRESSIVE))
