"""Surgery: every leaf goes where a rule says, and none is lost in silence."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import policy_core as pc
from policy_core.errors import StructureError

pytestmark = pytest.mark.usefixtures("unchecked")  # beartype doubles the time to trace


def _policy(actions: int, hidden: tuple[int, ...] = (4,), fill: float = 0.0, **fields):
    config = pc.ActorCriticConfig(
        observation_space=pc.Box(shape=(2,)), action_space=pc.Discrete(actions), actor=pc.MLP(hidden),
        critic=pc.MLP(()), **fields,
    )  # fmt: skip
    template = jax.eval_shape(lambda: config.init(key=jax.random.key(0)))
    return jax.tree.map(lambda x: jnp.full(x.shape, fill, x.dtype), template), config


OLD, WIDE = _policy(2, fill=1.0), _policy(3, (6,), fill=2.0)


def test_every_action_does_what_it_says():
    (params, config), report = pc.transplant(
        OLD, WIDE, {"critic/head/bias": "keep", "critic/*": "copy", "actor/*": "pad"}
    )
    assert config == WIDE[1]
    assert jax.tree.structure(params) == jax.tree.structure(WIDE[0])
    assert params["critic"]["head"]["bias"].tolist() == [2]
    assert params["critic"]["head"]["kernel"].tolist() == [[1], [1]]
    kernel = np.full((6, 3), 2.0)
    kernel[:4, :2] = 1
    assert np.array_equal(params["actor"]["head"]["kernel"], kernel)
    assert [row.path for row in report] == sorted(row.path for row in report)
    assert len(report) == len(jax.tree.leaves(WIDE[0]))
    assert report[1] == ("actor/head/kernel", "pad", "actor/*", "float32(4, 2)", "float32(6, 3)")
    assert all((leaf == 2).all() for leaf in jax.tree.leaves(WIDE[0]))


def test_leaves_that_only_one_side_has_must_be_named():
    deep = _policy(2, (4, 4), fill=3.0)
    (params, _), report = pc.transplant(deep, OLD, {"*hidden_1*": "skip", "*": "copy"})
    assert all((leaf == 3).all() for leaf in jax.tree.leaves(params))
    assert sum(row.action == "skip" for row in report) == 2
    (params, _), _ = pc.transplant(OLD, deep, {"*hidden_1*": "keep", "*": "copy"})
    assert (params["actor"]["tower"]["hidden_1"]["kernel"] == 3).all()
    assert (params["actor"]["head"]["kernel"] == 1).all()


def test_a_population_is_a_pair_like_any_other():
    population = [jax.tree.map(lambda x: jnp.stack([x, x + 1]), p) for p in (OLD, WIDE)]
    (params, _), _ = pc.transplant(*population, {"*": "pad"})
    assert params["actor"]["head"]["kernel"][:, 0, 0].tolist() == [1, 2]
    assert params["actor"]["head"]["kernel"][:, 5, 2].tolist() == [2, 3]


@pytest.mark.parametrize(
    ("source", "target", "rules", "message"),
    [
        (
            OLD,
            OLD,
            {"actor/*": "copy"},
            r"^rules: no rule matches 'critic/head/bias', float32\(1,\) in the source",
        ),
        (
            OLD,
            WIDE,
            {"*": "copy"},
            r"cannot copy 'actor/head/bias': float32\(2,\) into float32\(3,\); pad it",
        ),
        (
            WIDE,
            OLD,
            {"*": "pad"},
            r"cannot pad 'actor/head/bias': .*; it is larger, and entries would be lost$",
        ),
        (OLD, OLD, {"*": "skip"}, r"cannot skip .*: the target has such a leaf; keep, copy or pad it$"),
        (OLD, OLD, {"*": "copy", "memory/*": "keep"}, r"^rules: 'memory/\*' is the first match of no leaf"),
        (OLD, OLD, {"*": "move"}, r"^rules: got 'move', expected one of copy, keep, pad, skip$"),
        (
            _policy(2, (4, 4)),
            OLD,
            {"*": "copy"},
            r"cannot copy '.*hidden_1/bias': the target has no such leaf; skip",
        ),
        (
            _policy(2, (4, 4)),
            OLD,
            {"*": "keep"},
            r"cannot keep '.*hidden_1/bias': the target has no such leaf; skip",
        ),
        (
            OLD,
            _policy(2, (4, 4)),
            {"*": "pad"},
            r"cannot pad '.*hidden_1/bias': the source has no such leaf; keep",
        ),
        (
            OLD,
            _policy(2, param_dtype="bfloat16"),
            {"*": "pad"},
            r"padding changes neither the dtype nor the axes",
        ),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_what_would_lose_a_leaf_is_refused(source, target, rules, message):
    with pytest.raises(StructureError, match=message):
        pc.transplant(source, target, rules)
