"""Randomness: what is drawn side by side is independent, and no key is dropped or used twice.

A law of its own for each entry says nothing of two entries that share a key. So the draws of every
head are cut into a few classes, entry by entry, and every pair of entries is tested for independence
by chi-square; kernels of fresh params are compared by their correlation.
"""

import itertools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from cases import OBSERVATION, config

import policy_core as pc
from policy_core.distributions import (
    AutoregressiveJoint,
    Bernoulli,
    Beta,
    Categorical,
    Joint,
    MultiCategorical,
    Normal,
    ProductCategorical,
    SquashedNormal,
)
from policy_core.distributions.graph import Graph
from policy_core.distributions.numerics import categorical_sampling

pytestmark = pytest.mark.usefixtures("unchecked")  # beartype doubles the time to trace

DRAWS = 2000
RAREST = 1e-6  # of the p-values of some 1,000 pairs, whose draws are the same in every run

PAIR = pc.Box(low=-1.0, high=1.0, shape=(2,))
ROWS = pc.MultiDiscrete((3, 3, 3))
UNEVEN = pc.MultiDiscrete((2, 4, 3))
ROW_MASK = (jnp.array([True, False, True]), None, jnp.array([False, True, True]))
UNEVEN_MASK = (None, jnp.array([True, False, True, True]), jnp.array([True, True, False]))
CHAIN = Graph(
    spaces=(("aim", pc.Discrete(3)), ("free", pc.Discrete(3)), ("tool", pc.Discrete(3))),
    parents=(("aim", ("tool",)),),
)
ONE = Categorical(jnp.zeros(3), None, pc.Discrete(3))
ALONE, SEEING = (ONE._replace(logits=jnp.zeros((rows, 3))) for rows in (1, 3))  # a row for each that is seen
# The parts and entries of each are independent, whatever the masks; twins have one law.
HEADS: dict[str, Any] = {
    "rows": MultiCategorical(jnp.zeros(9), None, ROWS),
    "masked rows": MultiCategorical(jnp.zeros(9), ROW_MASK, ROWS),
    "masked rows of several lengths": MultiCategorical(jnp.zeros(9), UNEVEN_MASK, UNEVEN),
    "rows under a joint mask": ProductCategorical(
        jnp.zeros(4), pc.spaces.JointMask(jnp.ones((2, 2), bool)), pc.MultiDiscrete((2, 2))
    ),
    "bits": Bernoulli(jnp.zeros(3), None, pc.MultiBinary(3)),
    "masked bits": Bernoulli(jnp.zeros(3), jnp.array([True, False, True]), pc.MultiBinary(3)),
    "normal": Normal(jnp.zeros(2), jnp.zeros(2), PAIR),
    "squashed normal": SquashedNormal(jnp.zeros(2), jnp.zeros(2), PAIR),
    "beta": Beta(jnp.full(2, 2.0), jnp.full(2, 2.0), PAIR),
    "categorical": ONE,
    "parts": Joint({"x": Joint((ONE, ONE)), "y": Joint((ONE, ONE))}),
    "dependent parts": AutoregressiveJoint({"aim": SEEING, "free": ALONE, "tool": ALONE}, CHAIN),
}
SPACES: dict[str, tuple[Any, Any]] = {
    "masked rows": (ROWS, ROW_MASK),
    "masked rows of several lengths": (UNEVEN, UNEVEN_MASK),
    "bits": (pc.MultiBinary(3), None),
    "box": (PAIR, None),
    "parts": (pc.Dict({"x": pc.Tuple((pc.Discrete(3),) * 2), "y": pc.Tuple((pc.Discrete(3),) * 2)}), None),
}


@pytest.fixture(scope="module")
def draws() -> dict[str, np.ndarray]:
    """`[draw, entry]` of every head by both of its methods, and of every space: one program."""

    @jax.jit
    @jax.vmap
    def draw(key: Any) -> Any:
        found = {}
        for name, head in HEADS.items():
            found[f"{name}, sample"] = head.sample(key=key)
            found[f"{name}, sample_and_log_prob"] = head.sample_and_log_prob(key=key)[0]
        for name, (space, mask) in SPACES.items():
            found[f"space of {name}"] = space.sample(key=key, mask=mask)
        return found

    found = draw(jax.random.split(jax.random.key(0), DRAWS))
    return {
        name: np.concatenate([np.asarray(leaf).reshape(DRAWS, -1) for leaf in jax.tree.leaves(x)], 1)
        for name, x in found.items()
    }


NAMES = [
    *(f"{name}, {method}" for name in HEADS for method in ("sample", "sample_and_log_prob")),
    *(f"space of {name}" for name in SPACES),
]


def classes_of(column: np.ndarray) -> np.ndarray:
    """Numbers 0, 1, ...: the values themselves where there are few, else quarters of the law."""
    values, index = np.unique(column, return_inverse=True)
    return index if len(values) <= 4 else np.searchsorted(np.quantile(column, [0.25, 0.5, 0.75]), column)


def dependence(x: np.ndarray, y: np.ndarray) -> float:
    """The p-value of the independence of two columns; 1 if one of them is constant."""
    x, y = classes_of(x), classes_of(y)
    table = np.zeros((x.max() + 1, y.max() + 1))
    np.add.at(table, (x, y), 1)
    if min(table.shape) < 2:
        return 1.0
    return float(scipy.stats.chi2_contingency(table, correction=False).pvalue)


def test_the_test_of_independence_finds_a_shared_key() -> None:
    """What the tests below are worth: equal, opposite and partly equal columns, normal and of classes."""
    rng = np.random.default_rng(0)
    normal, classes, others = rng.normal(size=DRAWS), rng.integers(0, 3, DRAWS), rng.integers(0, 2, DRAWS)
    for x, y in ((normal, -normal), (normal, normal**2), (classes, 2 * classes), (classes, others * classes)):
        assert dependence(x, y) < RAREST
    for x, y in ((normal, rng.normal(size=DRAWS)), (classes, others), (normal, classes)):
        assert dependence(x, y) > 0.01


@pytest.mark.parametrize("name", NAMES)
def test_entries_parts_and_steps_are_drawn_independently(draws: Any, name: str) -> None:
    entries = list(enumerate(draws[name].T))
    together = {(i, j): dependence(x, y) for (i, x), (j, y) in itertools.combinations(entries, 2)}
    assert {pair for pair, p in together.items() if p < RAREST} == set()
    # And from one key to the next, all split off one key.
    in_turn = {(i, j): dependence(x[:-1], y[1:]) for (i, x), (j, y) in itertools.product(entries, repeat=2)}
    assert {pair for pair, p in in_turn.items() if p < RAREST} == set()


@pytest.mark.parametrize("name", NAMES)
def test_another_key_gives_another_draw(draws: Any, name: str) -> None:
    distinct = [len(np.unique(column)) for column in draws[name].T]
    assert all(count > 1 for count in distinct) or name.startswith("masked bits")
    assert max(distinct) > 1
    rows = len(np.unique(draws[name], axis=0))
    assert rows >= min(np.prod([min(count, 4.0) for count in distinct]), DRAWS / 2) / 2


def test_members_of_a_population_draw_by_their_own_keys() -> None:
    """Through the calls of a rollout: `action_and_value` and `act` of members, and of steps of a scan."""
    static = config(pc.Discrete(3), actor=pc.MLP(()), critic=pc.MLP(()))
    params = jax.tree.map(
        lambda leaf: jnp.zeros(leaf.shape), jax.eval_shape(lambda: static.init(key=jax.random.key(0)))
    )
    policy = params, static

    @jax.jit
    @jax.vmap
    def members(key: Any) -> Any:
        def step(state: Any, key: Any) -> Any:
            act_key, rollout_key = jax.random.split(key)
            _, env_action = pc.act(policy, state, jnp.ones(3), key=act_key)
            state, action, *_ = pc.action_and_value(policy, state, jnp.ones(3), key=rollout_key)
            return state, (env_action, action)

        return jax.lax.scan(step, pc.reset(policy), jax.random.split(key, DRAWS))[1]

    found = members(jax.random.split(jax.random.key(1), 3))
    columns = [np.asarray(leaf)[member] for leaf in found for member in range(3)]
    ps = [dependence(x, y) for x, y in itertools.combinations(columns, 2)]
    ps += [dependence(x[:-1], x[1:]) for x in columns]
    assert min(ps) > RAREST


# FRESH PARAMS ------------------------------------------------------------------------------------

SIDE = 16
SQUARE = pc.MLP((SIDE, SIDE))
CATEGORIES = pc.Discrete(SIDE)
BINS = pc.TwoHotHead(low=-1.0, high=1.0, bins=SIDE, gain=1.0)
IMAGE = pc.Box(shape=(8, 8, 4))
CNN = pc.ImpalaCNN(channels=(4, 4), blocks=1, size=SIDE)
# Nearly every kernel is made of squares of one shape, so that all of them can be compared.
INITIALISED: dict[str, Any] = {
    "plain": pc.ActorCriticConfig(
        observation_space=pc.Box(shape=(SIDE,)),
        action_space=CATEGORIES,
        memory=pc.GRU(SIDE),
        actor=SQUARE,
        critic=SQUARE,
        value_head=BINS,
    ),
    "shared": pc.ActorCriticConfig(
        observation_space=pc.Box(shape=(SIDE,)),
        action_space=pc.Dict({"a": CATEGORIES, "b": pc.Tuple((CATEGORIES, CATEGORIES))}),
        trunk=pc.ResidualMLP(SIDE, blocks=1, expansion=1),
        memory=pc.Stack((pc.GRU(SIDE), pc.MinGRU(SIDE), pc.WindowAttention(SIDE))),
        actor=SQUARE,
        critic=SQUARE,
        value_head=BINS,
    ),
    "apart": pc.ActorCriticConfig(
        observation_space=pc.Dict({"x": CATEGORIES, "y": IMAGE, "z": IMAGE}),
        action_space=pc.Dict({"a": CATEGORIES, "b": CATEGORIES, "c": CATEGORIES}),
        autoregressive=pc.Autoregressive({"b": ("a",), "c": ("a",)}, network=pc.MLP((SIDE,))),
        encoder=pc.Parts({"x": pc.Embedding(SIDE), "y": CNN, "z": CNN}),
        actor_keys=("x", "y", "z"),
        critic_keys=("x", "y", "z"),
        memory=pc.MinGRU(SIDE),
        memory_sharing="separate",
        actor=SQUARE,
        critic=SQUARE,
        value_head=BINS,
    ),
}


def squares(params: Any) -> dict[str, np.ndarray]:
    """The blocks of the kernels that are not constant, by name; flat."""
    blocks = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        name, kernel = jax.tree_util.keystr(path, simple=True, separator="/"), np.asarray(leaf)
        if kernel.ndim < 2 or np.ptp(kernel) == 0:
            continue
        side = SIDE if kernel.ndim == 2 else len(kernel)
        for index in np.ndindex(*(n // min(n, side) for n in kernel.shape)):
            part = tuple(slice(i * side, (i + 1) * side) for i in index)
            blocks[f"{name}{list(index)}"] = kernel[part].ravel()
    return blocks


@pytest.mark.parametrize("name", INITIALISED)
def test_no_two_kernels_of_fresh_policies_are_of_one_key(name: str) -> None:
    """Not of a tower, a head, a memory, an encoder; nor the same one of two members of a population."""
    with jax.debug_key_reuse(True):  # which also finds two that are not alike, as they split one key further
        made = [INITIALISED[name].init(key=key) for key in jax.random.split(jax.random.key(0))]
    blocks = {
        f"{i}: {path}": block for i, params in enumerate(made) for path, block in squares(params).items()
    }
    assert len(blocks) > 20
    shapes: dict[int, list[str]] = {}
    for path, block in blocks.items():
        shapes.setdefault(block.size, []).append(path)
    for size, paths in shapes.items():
        correlation = np.abs(np.corrcoef(np.stack([blocks[path] for path in paths])))
        np.fill_diagonal(correlation, 0)
        at = np.unravel_index(np.argmax(correlation), correlation.shape)
        assert correlation.max() < 5.5 / math.sqrt(size), [paths[i] for i in at]


# KEYS THAT ARE PASSED ON -------------------------------------------------------------------------


@pc.static
class RandomStart:
    """A policy of one's own whose first state is random."""

    observation_space: pc.contract.Space = OBSERVATION
    action_space: pc.contract.Space = pc.Discrete(2)

    def init(self, *, key: Any) -> Any:
        return {"scale": 1.0 + jax.random.uniform(key, ())}

    def initial_state(self, params: Any, *, key: Any = None) -> Any:
        return jnp.zeros(()) if key is None else params["scale"] * jax.random.normal(key, ())

    def forward(self, params: Any, state: Any, observation: Any, *, action_mask: Any = None) -> Any:
        return state, Categorical(jnp.zeros(2), action_mask, pc.Discrete(2)), state

    def env_action(self, action: Any) -> Any:
        return action

    def policy_action(self, env_action: Any) -> Any:
        return env_action


def test_reset_and_init_pass_their_keys_to_the_policy() -> None:
    policy = params, static = pc.init(RandomStart(), key=jax.random.key(0))
    keys = jax.random.split(jax.random.key(1), DRAWS)
    states = jax.vmap(lambda key: pc.reset(policy, key=key))(keys)
    expected = jax.vmap(lambda key: static.initial_state(params, key=key))(keys)
    np.testing.assert_allclose(states, expected, rtol=1e-6)
    assert len(np.unique(states)) > DRAWS - 10
    assert pc.init(static, key=keys[0])[0]["scale"] != params["scale"]  # and so does `init`
    assert dependence(np.asarray(states[:-1]), np.asarray(states[1:])) > RAREST
    assert float(pc.reset(policy)) == 0


def test_a_target_finds_the_class_whose_interval_holds_it():
    """Each class as often as its weight says, and none of weight 0: not the first, not the last."""
    weights = jnp.array([0, 3, 0, 2, 0], jnp.int32)
    index, rest = jax.vmap(lambda target: categorical_sampling._search(weights, target))(
        jnp.arange(5, dtype=jnp.int32)
    )
    assert index.tolist() == [1, 1, 1, 3, 3]
    assert rest.tolist() == [0, 1, 2, 0, 1]


@pytest.mark.parametrize("n", [2, 32, 33, 1000, 100_000])
def test_weights_stay_below_half_the_range_and_near_to_what_they_round(n):
    """Also where all but one are just too light for the first unit, and outweigh that one together."""
    first_unit = 2.0 ** -(31 - n.bit_length())
    weights = np.full(n, 0.99 * first_unit, np.float32)
    weights[0] = 1
    integers, total = map(np.asarray, categorical_sampling._integers(jnp.asarray(weights)))
    integers = integers.ravel().astype(np.int64)
    assert integers.sum() == total < 2**31
    assert not integers[n:].any()  # the padding of a table
    integers = integers[:n]
    law = weights.astype(np.float64) / weights.sum(dtype=np.float64)
    assert np.abs(integers / integers.sum() - law).sum() / 2 < n * (2.0**-25 if n <= 32 else 2.0**-30)
