"""Value heads: against NumPy and SciPy, and what they learn of random returns."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.stats
from cases import config
from compiling import fresh

import policy_core as pc
from policy_core.errors import ConfigError
from policy_core.heads import CategoricalValue, RegressedValue
from policy_core.heads.value import symexp, symlog

pytestmark = pytest.mark.usefixtures("unchecked")  # beartype doubles the time to trace

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
TARGETS = np.array([-2000.0, -7.0, -1.5, 0.0, 0.25, 3.0, 6.9, 7.0, 40.0])
TWO_HOT = {
    "even": pc.TwoHotHead(low=-7.0, high=7.0, bins=6),
    "symlog": pc.TwoHotHead(low=-20.0, high=3000.0, bins=9, symlog=True),
    "two bins": pc.TwoHotHead(low=0.0, high=1.0, bins=2),
}


def neighbors(target: float, centers: np.ndarray) -> np.ndarray:
    """Two-hot by searching."""
    x = np.clip(target, centers[0], centers[-1])
    right = int(np.clip(np.searchsorted(centers, x, side="right"), 1, len(centers) - 1))
    share = (x - centers[right - 1]) / (centers[right] - centers[right - 1])
    probs = np.zeros(len(centers))
    probs[right - 1], probs[right] = 1 - share, share
    return probs


@pytest.mark.parametrize("name", TWO_HOT)
def test_two_hot_targets_are_the_neighbors_and_keep_the_mean(name: str) -> None:
    head = TWO_HOT[name]
    grid = np.linspace(*(np.sign(x) * np.log1p(abs(x)) for x in (head.low, head.high)), head.bins)
    centers = (
        np.sign(grid) * np.expm1(abs(grid)) if head.symlog else np.linspace(head.low, head.high, head.bins)
    )
    got = jax.jit(head.target_probs)(jnp.asarray(TARGETS, jnp.float32))
    expected = np.stack([neighbors(x, centers) for x in TARGETS])
    np.testing.assert_allclose(got, expected, atol=2e-6)
    assert ((got > 0).sum(1) <= 2).all()
    means = np.asarray(got, np.float64) @ centers
    np.testing.assert_allclose(means, np.clip(TARGETS, head.low, head.high), rtol=1e-6, atol=1e-5)
    at_bins = head.target_probs(jnp.asarray(centers, jnp.float32))
    np.testing.assert_allclose(at_bins, np.eye(head.bins), atol=2e-6)


def test_smoothed_targets_are_a_normal_cut_to_the_bins() -> None:
    head = pc.HLGaussHead(low=-7.0, high=9.0, bins=16, sigma=1.5)
    edges = np.linspace(-7, 9, 17)
    got = jax.jit(head.target_probs)(jnp.asarray(TARGETS, jnp.float32))
    for probs, x in zip(got, np.clip(TARGETS, -7, 9), strict=True):
        below = scipy.stats.norm.cdf(edges, x, 1.5)
        np.testing.assert_allclose(probs, np.diff(below) / (below[-1] - below[0]), atol=1e-6)
    inside = np.linspace(-2.5, 4.5, 29)  # three standard deviations from the ends
    means = np.asarray(head.target_probs(jnp.asarray(inside, jnp.float32)), np.float64) @ head.centers()
    np.testing.assert_allclose(means, inside, atol=0.02)


@pytest.mark.parametrize("head", [*TWO_HOT.values(), pc.HLGaussHead(low=-7.0, high=9.0, bins=16)])
def test_a_categorical_value_is_its_mean_and_its_loss_the_cross_entropy(head: Any) -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(len(TARGETS), head.bins))
    prediction = CategoricalValue(jnp.asarray(logits, jnp.float32), head)
    log_probs = logits - scipy.special.logsumexp(logits, axis=1, keepdims=True)
    centers = head.centers()
    np.testing.assert_allclose(prediction.value(), np.exp(log_probs) @ centers, rtol=1e-5, atol=1e-5)
    spread = np.asarray(head.target_probs(jnp.asarray(TARGETS, jnp.float32)))
    expected = -(spread * log_probs).sum(1)
    np.testing.assert_allclose(prediction.loss(jnp.asarray(TARGETS, jnp.float32)), expected, rtol=1e-5)


@pytest.mark.parametrize(
    "head",
    [
        pc.TwoHotHead(low=-4.85e8, high=4.85e8, symlog=True),
        pc.TwoHotHead(low=-20.0, high=20.0, bins=100),
        pc.HLGaussHead(low=-3e5, high=3e5),
    ],
)
def test_equal_bins_cancel_however_large_they_are(head: Any) -> None:
    half = RNG.normal(size=(50, head.bins)) * 5
    even = jnp.asarray(np.concatenate([half + half[:, ::-1], np.zeros((1, head.bins))]), jnp.float32)
    for value in (
        CategoricalValue(even, head).value(),
        jax.jit(CategoricalValue.value)(CategoricalValue(even, head)),
    ):
        assert (value == 0).all()


GRIDS = {
    "symlog from 0": pc.TwoHotHead(low=0.0, high=4.9e8, symlog=True),
    "symlog from -1": pc.TwoHotHead(low=-1.0, high=4.9e8, symlog=True),
    "symlog below 0": pc.TwoHotHead(low=-1e6, high=-10.0, symlog=True, bins=64),
    "symlog": pc.TwoHotHead(low=-1e4, high=1e4, symlog=True),
    "even": pc.TwoHotHead(low=-3.0, high=1e3, bins=100),
    "far from 0": pc.TwoHotHead(low=1e6, high=1e6 + 100, bins=101),
    "HL-Gauss": pc.HLGaussHead(low=-1e-3, high=20.0),
}


@pytest.mark.parametrize("name", GRIDS)
def test_values_are_right_on_every_grid(name: str) -> None:
    """A bin alone gives itself; else the error is relative to the mean distance from the origin."""
    head = GRIDS[name]
    centers, alone = head.centers(), jnp.where(jnp.eye(head.bins, dtype=bool), 0.0, -1e9)
    of = jax.jit(lambda z: (CategoricalValue(z, head).value(), CategoricalValue(z, head).probs))
    np.testing.assert_allclose(of(alone)[0], centers, rtol=2e-7)
    logits = RNG.normal(size=(500, head.bins)) * np.geomspace(0.1, 100, 500)[:, None]
    logits = logits - RNG.uniform(0, 0.3, (500, 1)) * np.arange(head.bins)  # much of it at small returns
    values, probs = of(jnp.asarray(logits, jnp.float32))
    exact = scipy.special.softmax(np.asarray(logits, np.float32).astype(float), -1)
    origin = np.clip(0, centers[0], centers[-1])
    scale = abs(origin) + exact @ abs(centers - origin)
    assert (abs(values - exact @ centers) <= 2e-6 * scale).all()
    # What the sum itself loses, given the probabilities:
    given = np.asarray(probs, float)
    given = given / given.sum(-1, keepdims=True)
    assert (abs(values - given @ centers) <= 5e-7 * scale).all()


@pytest.mark.parametrize("name", GRIDS)
def test_two_hot_weights_sum_to_one_and_keep_the_mean_on_every_grid(name: str) -> None:
    head = GRIDS[name]
    targets = RNG.uniform(head.low, head.high, 2000) * np.geomspace(1e-6, 1, 2000)
    targets = np.clip(targets, head.low, head.high).astype(np.float32)
    weights = np.asarray(jax.jit(head.target_probs)(jnp.asarray(targets)), float)
    np.testing.assert_allclose(weights.sum(-1), 1, atol=3e-7)
    assert (weights >= 0).all()
    if isinstance(head, pc.TwoHotHead):
        means = weights @ head.centers().astype(np.float32).astype(float)
        np.testing.assert_allclose(means, targets, rtol=1e-6, atol=1e-6 * np.diff(head.centers()).min())


@pytest.mark.parametrize("head", [TWO_HOT["even"], pc.HLGaussHead(low=-7.0, high=7.0, bins=6)])
def test_logits_are_clipped_as_those_of_an_actor(head: Any) -> None:
    """The value and the loss are finite for infinite ones; a NaN shows."""
    inf = float("inf")
    rows = [[-inf, 0, 0, 0, 0, 0], [3e38, 0, 0, 0, 0, -3e38], [inf, 0, 0, 0, 0, inf], [-inf] * 6]
    logits = jnp.array(rows, jnp.float32)

    @jax.jit
    def everything(logits: Any) -> Any:
        score, pull = jax.vjp(lambda z: CategoricalValue(z, head).loss(jnp.zeros(len(rows))), logits)
        return CategoricalValue(logits, head).value(), score, pull(jnp.ones_like(score))

    values, losses, slopes = everything(logits)
    assert all(np.isfinite(x).all() for x in (values, losses, slopes))
    assert (losses >= 0).all()
    np.testing.assert_allclose(values, [-head.centers()[0] / 5, head.centers()[0], 0, 0], atol=1e-5)
    values, losses, (slopes,) = everything(logits.at[:, 2].set(jnp.nan))
    assert all(np.isnan(x).all() for x in (values, losses, np.asarray(slopes)[np.abs(logits) < 1e30]))


@pytest.mark.parametrize("symlog", [False, True])
def test_a_regression_is_rescaled_and_its_loss_is_that_of_the_output(symlog: bool) -> None:
    head = pc.RegressionHead(scale=50.0, symlog=symlog)
    outputs = np.array([-3.0, -0.1, 0.0, 2.0])
    target = np.array([-1000.0, 5.0, 0.0, 50.0])
    prediction = RegressedValue(jnp.asarray(outputs, jnp.float32), head)
    value = 50 * (np.sign(outputs) * (np.exp(abs(outputs)) - 1) if symlog else outputs)
    np.testing.assert_allclose(prediction.value(), value, rtol=1e-6)
    aim = np.sign(target) * np.log(1 + abs(target) / 50) if symlog else target / 50
    np.testing.assert_allclose(
        prediction.loss(jnp.asarray(target, jnp.float32)), 0.5 * (outputs - aim) ** 2, rtol=1e-5
    )
    perfect = RegressedValue(jnp.asarray(aim, jnp.float32), head)
    np.testing.assert_allclose(perfect.value(), target, rtol=1e-5)


def test_the_loss_of_a_critic_that_diverged_is_infinite_and_its_gradient_is_not() -> None:
    def loss(x: Any) -> Any:
        return RegressedValue(x, pc.RegressionHead()).loss(jnp.zeros(()))

    value, gradient = jax.value_and_grad(loss)(jnp.array(1e30))
    assert (float(value), float(gradient)) == (np.inf, float(np.float32(1e30)))


@pytest.mark.parametrize("x", [-3.0, -1e-6, 0.0, -0.0, 0.5, 40.0])
def test_gradients_of_symlog_and_symexp(x: float) -> None:
    for function, slope, bend in (
        (symlog, 1 / (1 + abs(x)), -np.sign(x) / (1 + abs(x)) ** 2),
        (symexp, np.exp(abs(x)), np.sign(x) * np.exp(abs(x))),
    ):
        for derivative in (jax.grad, jax.jacfwd):
            assert float(derivative(function)(x)) == pytest.approx(slope, rel=1e-6)
            if x != 0:  # where there are two
                assert float(derivative(jax.grad(function))(x)) == pytest.approx(bend, rel=1e-6)


def test_a_symlog_critic_learns_from_a_value_of_zero() -> None:
    head = pc.RegressionHead(symlog=True)
    policy = fresh(config(pc.Discrete(2), value_head=head, critic_gain=0.0), key=KEY)

    def loss(policy: Any) -> Any:
        return jnp.square(pc.value(policy, (), jnp.ones(3))[1] - 5.0)

    slopes = jax.grad(loss)(policy)[0]["critic"]["head"]
    assert float(slopes["bias"][0]) == pytest.approx(-10)


RETURNS = jnp.array([0.0, 0.0, 0.0, 400.0])  # of one observation: the mean is 100


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (pc.RegressionHead(scale=100.0), 100.0),
        (pc.RegressionHead(symlog=True), float(np.expm1(np.log(401) / 4))),  # as its docstring warns
        (pc.TwoHotHead(low=-1e4, high=1e4, bins=61, symlog=True), 100.0),
        (pc.HLGaussHead(low=-50.0, high=450.0, bins=51), 100.0),
    ],
    ids=["scale", "symlog", "two-hot symlog", "HL-Gauss"],
)
def test_what_is_learned_of_random_returns(head: Any, expected: float) -> None:
    policy = fresh(config(pc.Discrete(2), value_head=head), key=KEY)
    optimizer = optax.adam(3e-2)

    def step(carry: Any, _: Any) -> Any:
        policy, state = carry

        def loss(policy: Any) -> Any:
            _, _, critic = pc.forward(policy, (), jnp.ones(3))
            return jax.vmap(critic.loss)(RETURNS).mean()

        change, state = optimizer.update(jax.grad(loss)(policy), state)
        return (optax.apply_updates(policy, change), state), None

    with jax.numpy_dtype_promotion("standard"):
        carry = (policy, optimizer.init(policy))
        (policy, _), _ = jax.jit(lambda carry: jax.lax.scan(step, carry, None, 500))(carry)
    assert float(pc.value(policy, (), jnp.ones(3))[1]) == pytest.approx(expected, rel=0.02)


def test_several_objectives_are_a_vector_everywhere() -> None:
    policy = fresh(config(pc.Discrete(2), value_head=pc.RegressionHead(objectives=3)), key=KEY)
    x = jnp.ones((4, 3))
    _, one = pc.value(policy, (), x[0])
    _, _, again, _ = pc.action_and_value(policy, (), x[0], key=KEY)
    _, values, log_probs, _ = pc.evaluate_sequence(
        policy, (), x, jnp.zeros(4, int), is_first=jnp.zeros(4, bool)
    )
    assert one.shape == again.shape == (3,)
    assert (values.shape, log_probs.shape) == ((4, 3), (4,))
    np.testing.assert_allclose(values, np.stack([one] * 4), rtol=1e-6)
    jacobian = jax.jacobian(lambda policy: pc.value(policy, (), x[0])[1])(policy)[0]["critic"]["head"]["bias"]
    np.testing.assert_array_equal(jacobian, np.eye(3))
    alone = fresh(config(pc.Discrete(2)), key=KEY)
    assert pc.value(alone, (), x[0])[1].shape == ()


@pytest.mark.parametrize("name", ["two-hot", "HL-Gauss", "vector"])
def test_the_file_keeps_the_head_and_its_self_test_sees_it(name: str, tmp_path: Any) -> None:
    head = {
        "two-hot": pc.TwoHotHead(low=-9.0, high=9.0, bins=5, gain=1.0),
        "HL-Gauss": pc.HLGaussHead(low=-9.0, high=9.0, bins=5, gain=1.0),
        "vector": pc.RegressionHead(objectives=2),
    }[name]
    policy = fresh(config(pc.Discrete(2), value_head=head), key=KEY)
    pc.save(tmp_path / "policy.msgpack", policy)
    loaded = pc.load(tmp_path / "policy.msgpack")
    assert loaded[1].value_head == head
    assert pc.verify(tmp_path / "policy.msgpack").deviation < 1e-5
    np.testing.assert_array_equal(*(pc.value(p, (), jnp.ones(3))[1] for p in (policy, loaded)))
    assert pc.diff(policy[1], config(pc.Discrete(2)))
    forged = config(pc.Discrete(2), value_head=head)
    assert pc.fingerprint(forged) == pc.fingerprint(policy[1])


def test_the_default_head_leaves_old_fingerprints_alone() -> None:
    plain = config(pc.Discrete(2))
    assert pc.fingerprint(plain) == pc.fingerprint(config(pc.Discrete(2), value_head=pc.RegressionHead()))
    assert pc.fingerprint(plain) != pc.fingerprint(
        config(pc.Discrete(2), value_head=pc.RegressionHead(scale=2.0))
    )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: pc.RegressionHead(scale=0.0), r"RegressionHead\.scale: got 0\.0, expected a positive"),
        (lambda: pc.RegressionHead(objectives=0), r"RegressionHead\.objectives: got 0, .* None for a scalar"),
        (
            lambda: pc.TwoHotHead(low=1.0, high=1.0),
            r"TwoHotHead\.low: got 1\.0 to 1\.0, expected .* low < high",
        ),
        (lambda: pc.TwoHotHead(low=0.0, high=float("inf")), r"TwoHotHead\.low: got 0\.0 to inf"),
        (lambda: pc.TwoHotHead(low=0.0, high=1.0, bins=1), r"TwoHotHead\.bins: got 1, expected at least 2"),
        (
            lambda: pc.TwoHotHead(low=1e6, high=1e6 + 10, bins=101),
            r"TwoHotHead\.bins: got 101 from 1000000\.0 to 1000010\.0, finer than float32; use fewer bins",
        ),
        (
            lambda: pc.TwoHotHead(low=1.0, high=2.0, bins=2**24, symlog=True),
            r"TwoHotHead\.bins: got 16777216",
        ),
        (lambda: pc.HLGaussHead(low=0.0, high=1.0, bins=10**12), r"HLGaussHead\.bins: got 1000000000000"),
        (lambda: pc.TwoHotHead(low=-1e39, high=0.0), r"TwoHotHead\.low: got -1e\+39 to 0\.0"),
        (lambda: pc.HLGaussHead(low=0.0, high=1.0, sigma=0.0), r"HLGaussHead\.sigma: got 0\.0"),
        (lambda: pc.HLGaussHead(low=0.0, high=1.0, objectives=-1), r"HLGaussHead\.objectives: got -1"),
    ],
)
def test_what_makes_no_sense_is_refused(make: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()
