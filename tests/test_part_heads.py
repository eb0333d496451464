"""Another head for each part of an action, and heads of one's own for discrete spaces."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import BOUNDED, SMALL, config
from compiling import fresh
from policy_core_adapters import numpy_runner
from scipy import stats

import policy_core as pc
from policy_core.testing import Case, checks

pytestmark = pytest.mark.usefixtures("unchecked")  # beartype doubles the time to trace

X = jnp.array([0.3, -0.2, 0.5])
PARTS = {
    "beta": (BOUNDED, pc.BetaHead()),
    "bins": (BOUNDED, pc.BinsHead(3)),
    "bits": (pc.MultiBinary(2), pc.heads.LogitsHead()),
    "gsde": (pc.Box(shape=(2,)), pc.heads.GSDEHead(log_std=0.0)),
    "squashed": (BOUNDED, pc.SquashedNormalHead()),
}
SPACE = pc.Dict({**{name: space for name, (space, _) in PARTS.items()}, "rest": pc.Box(shape=(2,))})
HEADS = pc.heads.PartHeads({name: head for name, (_, head) in PARTS.items()})


def test_each_part_has_the_distribution_of_its_head_alone():
    policy = fresh(config(SPACE, heads=HEADS, actor_gain=1.0), key=jax.random.key(0))
    _, joint = pc.action_distribution(policy, pc.reset(policy), X)
    params = policy[0]["actor"]
    for name, (space, head) in PARTS.items():
        field = "discrete_head" if name == "bits" else "box_head"
        alone = config(space, critic=None, **{field: head})
        own = {"tower": params["tower"], "head": params["head"][name]}
        part = ({"actor": own}, alone)
        _, expected = pc.action_distribution(part, pc.reset(part), X)
        assert type(joint.parts[name]) is type(expected)
        for ours, theirs in zip(jax.tree.leaves(joint.parts[name]), jax.tree.leaves(expected), strict=True):
            assert np.array_equal(ours, theirs)
    assert type(joint.parts["rest"]) is pc.distributions.Normal


def test_names_are_sorted_and_nested_parts_have_heads_of_their_own():
    inner = pc.heads.PartHeads({1: pc.BetaHead()})
    assert pc.heads.PartHeads((("b", inner), ("a", pc.NormalHead()))).heads[0][0] == "a"
    space = pc.Dict({"a": BOUNDED, "b": pc.Tuple((BOUNDED, BOUNDED))})
    policy = fresh(config(space, heads=pc.heads.PartHeads({"b": inner})), key=jax.random.key(0))
    parts = pc.action_distribution(policy, (), X)[1].parts
    kinds = [type(part).__name__ for part in (parts["a"], *parts["b"].parts)]
    assert kinds == ["Normal", "Normal", "Beta"]


def test_the_kept_noise_of_a_part_and_the_draws_of_others_are_independent():
    space = pc.Dict({"a": pc.Box(shape=(1,)), "b": pc.Box(shape=(1,))})
    heads = pc.heads.PartHeads({"a": pc.heads.GSDEHead(log_std=0.0)})
    policy = fresh(config(space, heads=heads), key=jax.random.key(0))
    draw = jax.vmap(lambda key: pc.action_and_value(policy, pc.reset(policy), X, key=key)[1])
    actions = jax.tree.map(np.ravel, draw(jax.random.split(jax.random.key(1), 3000)))
    assert abs(stats.spearmanr(actions["a"], actions["b"]).statistic) < 0.07
    state, first, *_ = pc.action_and_value(policy, pc.reset(policy), X, key=jax.random.key(2))
    _, second, *_ = pc.action_and_value(policy, state, X, key=jax.random.key(3))
    assert first["a"] == second["a"]
    assert first["b"] != second["b"]


def test_a_part_in_bins_may_have_children():
    space = pc.Dict({"a": BOUNDED, "b": BOUNDED, "c": pc.Box(shape=(2,))})
    heads = pc.heads.PartHeads({"a": pc.BinsHead(3), "b": pc.BetaHead()})
    dependent = config(
        space, heads=heads, autoregressive=pc.Autoregressive({"b": ("a",), "c": ("a",)}, network=pc.MLP((4,)))
    )
    policy = fresh(dependent, key=jax.random.key(0))
    distribution = pc.action_distribution(policy, (), X)[1]
    assert distribution.parts["b"].alpha.shape == (9, 2)
    data = pc.to_bytes(policy)
    assert pc.from_bytes(data)[1] == dependent


def test_a_dependent_action_with_heads_of_parts_is_the_same_in_numpy(tmp_path):
    space = pc.Dict({"a": BOUNDED, "b": BOUNDED})
    heads = pc.heads.PartHeads({"a": pc.BinsHead(3), "b": pc.BetaHead()})
    dependent = config(space, heads=heads, autoregressive=pc.Autoregressive({"b": ("a",)}), actor_gain=3.0)
    policy = fresh(dependent, key=jax.random.key(3))
    pc.save(tmp_path / "file", policy)
    runner = numpy_runner.load(tmp_path / "file")
    for x in np.random.default_rng(0).standard_normal((30, 3)).astype(np.float32):
        expected, (_, got) = pc.act(policy, (), jnp.asarray(x))[1], runner.act((), x)
        assert all(np.allclose(got[name], expected[name], atol=1e-5) for name in ("a", "b"))


@pc.static
class Clipped:
    """Logits within a bound, by tanh (Bello et al. 2017)."""

    bound: float = 2.0
    plain: pc.heads.LogitsHead = pc.heads.LogitsHead()

    def check_space(self, space: Any) -> None:
        self.plain.check_space(space)

    def policy_space(self, space: Any) -> Any:
        return self.plain.policy_space(space)

    def init(self, space: Any, in_size: int, *, key: Any, dtype: str, gain: float) -> Any:
        return self.plain.init(space, in_size, key=key, dtype=dtype, gain=gain)

    def distribution(self, space: Any, params: Any, features: Any, mask: Any, temperature: Any) -> Any:
        made = self.plain.distribution(space, params, features, mask, temperature)
        return made._replace(logits=self.bound * jnp.tanh(made.logits / self.bound))

    def env_action(self, space: Any, action: Any) -> Any:
        return action

    def policy_action(self, space: Any, env_action: Any) -> Any:
        return env_action


def test_a_head_of_ones_own_serves_every_discrete_space():
    space = pc.Dict({"a": pc.Discrete(3), "b": pc.MultiDiscrete((2, 3)), "c": pc.MultiBinary(2)})
    own = config(space, discrete_head=Clipped())
    case = Case(own)
    for check in (checks.check_shapes, checks.check_ratio, checks.check_masks, checks.check_file):
        check(case)  # docs/extending.md has all of them on heads of one's own
    params, _ = fresh(own, key=jax.random.key(0))
    large = jax.tree.map(lambda x: 100 * jnp.ones_like(x), params)
    _, distribution = pc.action_distribution((large, own), (), X)
    assert all(np.abs(x).max() == 2 for x in jax.tree.leaves(distribution))
    (tmp, _) = pc.from_bytes(pc.to_bytes((params, own)))
    assert jax.tree.structure(tmp) == jax.tree.structure(params)


def test_what_cannot_be_is_refused(tmp_path):
    with pytest.raises(
        pc.errors.ConfigError, match=r"heads: got 'leg', but the parts of the action are \['arm'\]"
    ):
        config(pc.Dict({"arm": BOUNDED}), heads=pc.heads.PartHeads({"leg": pc.BetaHead()}))
    with pytest.raises(pc.errors.ConfigError, match=r"heads: got 0, but the parts of the action are \[\]"):
        config(BOUNDED, heads=pc.heads.PartHeads({0: pc.BetaHead()}))
    with pytest.raises(pc.errors.ConfigError, match=r"^action_space: got Discrete, expected a Box of floats"):
        config(pc.Dict({"a": pc.Discrete(2)}), heads=pc.heads.PartHeads({"a": pc.BetaHead()}))
    with pytest.raises(pc.errors.ConfigError, match=r"^action_space: got Discrete, expected a Box of floats"):
        config(pc.Discrete(2), discrete_head=pc.NormalHead())
    with pytest.raises(
        pc.errors.ConfigError, match=r"^PartHeads\.heads: got the names \['a', 'a'\], expected each"
    ):
        pc.heads.PartHeads((("a", pc.BetaHead()), ("a", pc.BetaHead())))
    own = fresh(config(pc.Discrete(3), discrete_head=Clipped()), key=jax.random.key(0))
    pc.save(tmp_path / "file", own)
    with pytest.raises(ValueError, match=r"head.*Clipped"):
        numpy_runner.load(tmp_path / "file")


def test_a_policy_without_them_has_the_fingerprint_that_it_had():
    fields = {"observation_space": pc.Box(shape=(3,)), "action_space": pc.Discrete(2), **SMALL}
    made = pc.ActorCriticConfig(**fields)
    assert pc.ActorCriticConfig(**fields, discrete_head=pc.heads.LogitsHead(), heads=None) == made
    assert pc.ActorCriticConfig(**fields, heads=pc.heads.PartHeads({})) != made
