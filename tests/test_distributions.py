"""Distributions: identities, numbers against references, masks, dtypes, and the laws of samples.

The cases and the references of the accuracy tests are those of `benchmarks/numerics`, which
also writes docs/numerics.md; here they run on fewer points, and `Row.held` is the bound.
"""

import itertools
import json
import math
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from compiling import AS_USERS

import policy_core as pc
from benchmarks import numerics
from policy_core.distributions import (
    MASKED_LOG_PROB,
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

pytestmark = pytest.mark.usefixtures("unchecked")  # beartype doubles the time to trace

ROOT = Path(__file__).parent.parent
KEY = jax.random.key(0)
BATCH = (2, 3)
DRAWS = 4000
BOX = pc.Box(low=-2.0, high=3.0)
MIXED = pc.Box(low=(-1.0, -math.inf, 0.0), high=(1.0, 2.0, math.inf), shape=(3,))


# For draws by the million: optimized, whatever `conftest` says.
fast_jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 3})


def _at(tree: Any, *index: int) -> Any:
    return jax.tree.map(lambda x: x[index], tree)


def _cast(tree: Any, dtype: Any) -> Any:
    return jax.tree.map(lambda x: x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x, tree)


def _close(a: Any, b: Any, tolerance: float = 0.0) -> None:
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance), a, b)


# IDENTITIES

RNG = np.random.default_rng(0)


def _normal(*shape: int, scale: float = 1.0) -> jax.Array:
    return jnp.asarray(RNG.normal(size=(*BATCH, *shape)) * scale, jnp.float32)


def _mask(n: int) -> jax.Array:
    return jnp.asarray(RNG.random((*BATCH, n)) < 0.6).at[..., n // 2].set(True)


def _pair(build: Any) -> Any:
    return build(), build()


def _masked_rows() -> Any:
    mask = (_mask(2), None, _mask(4))
    return _pair(lambda: MultiCategorical(_normal(9), mask, pc.MultiDiscrete((2, 3, 4))))


def _masked(n: int, space: Any) -> Any:
    mask = _mask(n)
    return _pair(lambda: Categorical(_normal(n), mask, space))


def _masked_bits() -> Any:
    mask = _mask(3)
    return _pair(lambda: Bernoulli(_normal(3), mask, pc.MultiBinary(3)))


def _concentration(*shape: int) -> jax.Array:
    return jnp.exp(_normal(*shape))


def _joint() -> Joint:
    return Joint(
        {
            "x": Joint(
                (Categorical(_normal(3), None, pc.Discrete(3)), Normal(_normal(), _normal(), pc.Box()))
            ),
            "bits": Bernoulli(_normal(2), None, pc.MultiBinary(2)),
            "share": SquashedNormal(_normal(2), _normal(2), pc.Box(low=0.0, high=0.5, shape=(2,))),
        }
    )


def _jointly_masked() -> Any:
    mask = pc.spaces.JointMask(_mask(6).reshape(*BATCH, 2, 3))
    return _pair(lambda: ProductCategorical(_normal(5), mask, pc.MultiDiscrete((2, 3), start=(4, -1))))


def _autoregressive() -> AutoregressiveJoint:
    box = pc.Box(low=0.0, high=0.5, shape=(2,))
    parts = {
        "tool": Categorical(_normal(1, 3), None, pc.Discrete(3)),
        "bits": Bernoulli(_normal(3, 2), None, pc.MultiBinary(2)),
        "share": SquashedNormal(_normal(12, 2), _normal(12, 2), box),
    }
    spaces = (("bits", pc.MultiBinary(2)), ("share", box), ("tool", pc.Discrete(3)))
    parents = (("bits", ("tool",)), ("share", ("tool", "bits")))
    return AutoregressiveJoint(parts, Graph(spaces=spaces, parents=parents))


ODD = pc.MultiDiscrete((2, 3, 2, 3), shape=(2, 2), start=(0, 1, 0, -5))
PAIRS = {
    "categorical": _pair(lambda: Categorical(_normal(5, scale=2), None, pc.Discrete(5, start=-2))),
    "categorical of one": _pair(lambda: Categorical(_normal(1), None, pc.Discrete(1))),
    "categorical, masked": _masked(5, pc.Discrete(5, start=3)),
    "multi-categorical": _pair(lambda: MultiCategorical(_normal(10), None, ODD)),
    "multi-categorical, even": _pair(lambda: MultiCategorical(_normal(6), None, pc.MultiDiscrete((3, 3)))),
    "multi-categorical, masked": _masked_rows(),
    "bernoulli": _pair(lambda: Bernoulli(_normal(2, 2), None, pc.MultiBinary((2, 2)))),
    "bernoulli, masked": _masked_bits(),
    "normal": _pair(lambda: Normal(_normal(3), _normal(3, scale=0.3), pc.Box(shape=(3,)))),
    "squashed normal": _pair(lambda: SquashedNormal(_normal(), _normal(scale=0.3), BOX)),
    "squashed normal, mixed": _pair(lambda: SquashedNormal(_normal(3), _normal(3, scale=0.3), MIXED)),
    "beta": _pair(lambda: Beta(_concentration(2), _concentration(2), pc.Box(low=-1.0, high=2.0, shape=(2,)))),
    "joint": _pair(_joint),
    "product-categorical, jointly masked": _jointly_masked(),
    "autoregressive": _pair(_autoregressive),
}


def _contains(d: Any, action: Any) -> jax.Array:
    """Whether an unbatched action is in the space, once it is an environment action."""
    match d:
        case AutoregressiveJoint():
            return jnp.all(jnp.stack([_contains(_at(part, 0), action[n]) for n, part in d.parts.items()]))
        case Joint(dict() as parts):
            return jnp.all(jnp.stack([_contains(parts[name], action[name]) for name in parts]))
        case Joint(parts):
            return jnp.all(jnp.stack([_contains(part, a) for part, a in zip(parts, action, strict=True)]))
        case SquashedNormal():
            return d.space.contains(pc.SquashedNormalHead().env_action(d.space, action))
        case Beta():
            return d.space.contains(pc.BetaHead().env_action(d.space, action))
    return d.space.contains(action)


def _methods(p: Any, q: Any, action: Any) -> Any:
    return {"mode": p.mode(), "log_prob": p.log_prob(action), "entropy": p.entropy(), "kl": p.kl(q)}


@jax.jit
def _facts(p: Any, q: Any, keys: Any) -> Any:
    """What the identities need, in one compilation: of many draws, and of one in each form."""
    actions, log_probs = jax.vmap(lambda k: p.sample_and_log_prob(key=k))(keys)
    scores, others = jax.vmap(lambda a: (p.log_prob(a), q.log_prob(a)))(actions)
    legal = jax.vmap(jax.vmap(jax.vmap(_contains)), (None, 0))(p, actions)
    grid, last = keys[: math.prod(BATCH)].reshape(BATCH), tuple(size - 1 for size in BATCH)
    nested = jax.vmap(jax.vmap(lambda p, k: p.sample_and_log_prob(key=k)))(p, grid)
    single = _at(p, *last)
    draw = single.sample(key=grid[last])
    # A third batch axis in front: p against q, and p against p.
    stacked = _stack(p, p), _stack(q, p), _stack(_at(actions, 0), _at(actions, 1))
    return {
        "draws": (log_probs, scores, others, legal),
        "outside": _methods(*stacked),
        "inside": jax.vmap(jax.vmap(jax.vmap(_methods)))(*stacked),
        "nested": _at(nested, *last),
        "one by one": (draw, single.log_prob(draw)),
    }


def _stack(a: Any, b: Any) -> Any:
    return jax.tree.map(lambda x, y: jnp.stack([x, y]), a, b)


# Whether two sums of products cancel exactly depends on how they are fused.
_kl_of_beta = jax.jit(lambda p, q: p.kl(q), compiler_options=AS_USERS)


@pytest.mark.parametrize("name", PAIRS)
def test_identities(name: str) -> None:
    p, q = PAIRS[name]
    facts = _facts(p, q, jax.random.split(KEY, DRAWS))
    log_probs, scores, others, legal = facts["draws"]
    outside = facts["outside"]
    entropy, (kl, kl_of_same) = outside["entropy"][0], outside["kl"]
    assert bool(legal.all())
    # Expectations over draws, within 5 standard errors.
    for got, terms in ((entropy, -log_probs), (kl, log_probs - others)):
        assert got.shape == BATCH
        deviation = np.abs(np.mean(terms, 0, dtype=float) - got)
        assert (deviation <= 5 * np.std(terms, 0, dtype=float) / math.sqrt(DRAWS) + 1e-6).all()
    assert (kl >= 0).all()
    if name == "beta":
        assert (kl_of_same <= 1e-11).all()
        _, kl_of_same = _kl_of_beta(_stack(p, p), _stack(q, p))
    assert (kl_of_same == 0).all()
    # `sample_and_log_prob` is `sample` and `log_prob`, and a vmap changes nothing.
    _close(log_probs, scores, 1e-6)
    _close(facts["nested"], facts["one by one"], 1e-6)
    _close(outside, facts["inside"], 1e-6)


@pytest.mark.parametrize("name", PAIRS)
def test_a_seed_is_a_key_by_the_name_that_distrax_has(name: str) -> None:
    p = PAIRS[name][0]
    both = jax.jit(lambda key: (p.sample(key=key), *p.sample_and_log_prob(key=key))).lower(KEY)
    again = jax.jit(lambda key: (p.sample(seed=key), *p.sample_and_log_prob(seed=key))).lower(KEY)
    assert again.as_text() == both.as_text()  # the same program
    for method in (p.sample, p.sample_and_log_prob):
        with pytest.raises(
            pc.errors.StructureError, match=rf"^{type(p).__name__}\..*: got both key and seed"
        ):
            method(key=KEY, seed=KEY)
        with pytest.raises(TypeError, match="required keyword-only argument: 'key'"):
            method()


@pytest.mark.parametrize("name", [name for name in PAIRS if "cat" in name or "bern" in name])
def test_probabilities_sum_to_one(name: str) -> None:
    d = _at(PAIRS[name][0], 0, 0)
    match d.space:
        case pc.Discrete(n=n, start=start):
            actions = np.arange(start, start + n)
        case pc.MultiDiscrete(nvec=nvec):
            actions = np.array(list(itertools.product(*map(range, nvec)))).reshape(
                -1, *d.space.struct().shape
            )
            actions = actions + d.space.starts()
        case pc.MultiBinary():
            shape = d.space.struct().shape
            actions = np.array(list(itertools.product(*[(0, 1)] * math.prod(shape)))).reshape(-1, *shape)
    log_probs, rest = jax.jit(
        lambda d, actions: (
            jax.vmap(d.log_prob)(actions),
            (d.probs, getattr(d, "log_probs", ()), d.mode()),
        )
    )(d, actions.astype(np.int32))
    probs, row_log_probs, mode = rest
    assert float(jnp.exp(log_probs).sum()) == pytest.approx(1, abs=1e-6)
    assert (mode == actions[int(jnp.argmax(log_probs))]).all()
    if not isinstance(d, Bernoulli):
        for row in jax.tree.leaves(probs):
            assert float(row.sum()) == pytest.approx(1, abs=1e-6)
        _close(jax.tree.map(jnp.exp, row_log_probs), probs, 1e-6)


def _grid(space: pc.Box, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Points before the squash, and the environment actions in float64, dense near the bounds."""
    u = np.sign(t := np.linspace(-1, 1, count)) * np.abs(t) ** 1.5 * 20
    u = u.astype(np.float32)
    low, high = (float(np.ravel(bound)[-1]) for bound in space.bounds())
    return u, low + (high - low) / (1 + np.exp(-2 * u.astype(float)))


DENSITIES = {
    "squashed": (SquashedNormal, 0.3, -0.5),
    "squashed, wide": (SquashedNormal, -0.5, 1.0),
    "squashed, at a bound": (SquashedNormal, 2.0, -1.0),
    "beta": (Beta, 2.0, 3.5),
    "beta, uniform": (Beta, 1.0, 1.0),
    "beta, at both bounds": (Beta, 0.6, 0.7),
}


@pytest.mark.parametrize("name", DENSITIES)
@pytest.mark.parametrize("space", [BOX, pc.Box(low=-1e-3, high=0.0), pc.Box(low=-1e4, high=1e4)])
def test_density_integrates_to_one_in_environment_units(name: str, space: pc.Box) -> None:
    family, *parameters = DENSITIES[name]
    u, env_actions = _grid(space, 40001)
    actions = u if family is SquashedNormal else 2 * u
    d = family(*(jnp.full(u.shape, x, jnp.float32) for x in parameters), space)
    density = np.exp(np.asarray(d.log_prob(actions), float))
    assert np.trapezoid(density, env_actions) == pytest.approx(1, abs=2e-5)
    head = pc.SquashedNormalHead() if family is SquashedNormal else pc.BetaHead()
    low, high = map(float, space.bounds())
    np.testing.assert_allclose(
        head.env_action(space, jnp.asarray(actions)), env_actions, atol=3e-7 * (high - low)
    )


def test_density_integrates_to_one_over_a_plane() -> None:
    space = pc.Box(low=(-2.0, 0.0), high=(3.0, 0.5), shape=(2,))
    u, y = _grid(space, 801)
    x = -2 + 5 / (1 + np.exp(-2 * u.astype(float)))
    actions = np.stack(np.meshgrid(u, u, indexing="ij"), -1)
    for family, scale in ((SquashedNormal, 1), (Beta, 2)):
        parameters = (
            jnp.broadcast_to(jnp.array(v, jnp.float32), actions.shape) for v in ((0.7, 2.0), (0.6, 0.9))
        )
        density = np.exp(np.asarray(family(*parameters, space).log_prob(scale * actions), float))
        assert np.trapezoid(np.trapezoid(density, y), x) == pytest.approx(1, abs=1e-3)


# ACCURACY: values, and gradients in reverse and forward mode


ERRORS = """
import json, jax, jax.numpy as jnp
from benchmarks import numerics
from policy_core import Box, Discrete, MultiBinary
from policy_core.distributions import Bernoulli, Beta, Categorical, Normal, SquashedNormal

dtype = jnp.zeros(()).dtype
x, key = jnp.linspace(0.5, 1.5, 4), jax.random.key(0)
box = Box(low=0.0, high=1.0, shape=(4,), dtype=str(dtype))
dists = [family(x, x, box) for family in (Normal, SquashedNormal, Beta)]
dists += [Categorical(x, None, Discrete(4)), Bernoulli(x, None, MultiBinary(4))]
pairs = [d.sample_and_log_prob(key=key) for d in dists]
dtypes = sorted({str(a.dtype) for pair in pairs for a in pair})
print(json.dumps({"errors": numerics.errors(quick=True, who=("ours",)), "dtypes": dtypes}))
"""


def _worst_errors(**environment: str) -> tuple[list[str], dict[str, float | None]]:
    """In a process of their own, compiled as users compile: dtypes of samples, and errors by row."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "XLA_FLAGS": "", **environment}
    done = subprocess.run([sys.executable, "-c", ERRORS], env=env, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    return found["dtypes"], {
        f"{row.family} {row.quantity}": numerics.of_row(row, found["errors"][row.family]["ours"])
        for row in numerics.ROWS
    }


def test_float32() -> None:
    dtypes, errors = _worst_errors()
    held = {f"{row.family} {row.quantity}": row.held for row in numerics.ROWS}
    assert dtypes == ["float32", "int32"]
    assert {name: error for name, error in errors.items() if error is None or error > held[name]} == {}


def test_float64() -> None:
    dtypes, errors = _worst_errors(JAX_ENABLE_X64="1", XLA_FLAGS=os.environ["XLA_FLAGS"])
    assert dtypes == ["float64", "int32"]
    assert {name: error for name, error in errors.items() if error is None or error > 1e-12} == {}


@pytest.mark.parametrize("n", [1, 2, 18, 1000])
def test_one_allowed_action_is_certain(n: int) -> None:
    rows = np.arange(min(n, 20))
    mask = np.zeros((len(rows), n), bool)
    mask[rows, rows[::-1]] = True
    allowed = jnp.asarray(mask)
    junk = np.resize([1e6, np.inf, -np.inf, np.nan, 3e38], mask.shape)
    logits = jnp.asarray(np.where(mask, RNG.normal(size=mask.shape) * 1e4, junk), jnp.float32)
    space = pc.Discrete(n)

    @jax.jit
    def everything(logits: Any) -> Any:
        def scores(logits: Any) -> Any:
            d = Categorical(logits, allowed, space)
            return d.log_prob(rows[::-1].astype(np.int32)), d.entropy(), d.kl(d)

        values, pull = jax.vjp(scores, logits)
        draw = Categorical(logits, allowed, space).sample(key=KEY)
        return values, pull(jax.tree.map(jnp.ones_like, values)), draw

    *zeros, draw = everything(logits)
    assert all((x == 0).all() for x in jax.tree.leaves(zeros))
    assert (draw == rows[::-1]).all()


@pytest.mark.parametrize("family", ["categorical", "bernoulli", "normal", "beta"])
def test_kl_of_neighbors_is_never_negative(family: str) -> None:
    distance = np.array([1e-7, 1e-5, 1e-3])[:, None]
    x, y, noise = (RNG.normal(size=(3, 500, 6)) for _ in range(3))
    x, y, near = (jnp.asarray(z, jnp.float32) for z in (2 * x, 2 * y, 2 * x + distance[..., None] * noise))
    of = {
        "categorical": lambda z: Categorical(z, None, pc.Discrete(6)),
        "bernoulli": lambda z: Bernoulli(z, None, pc.MultiBinary(6)),
        "normal": lambda z: Normal(z, 0.1 * z, pc.Box(shape=(6,))),
        "beta": lambda z: Beta(jnp.exp(0.5 * z), jnp.exp(y), pc.Box(low=0.0, high=1.0, shape=(6,))),
    }[family]
    values = jax.jit(lambda x, near: of(x).kl(of(near)))(x, near)
    assert (values >= 0).all()
    assert (values <= 200 * np.maximum(distance, 1e-6) ** 2).all()  # for the parameters are rounded


def test_kl_where_the_other_masks() -> None:
    mask = jnp.array([True, True, False])
    p, q = jnp.array([0.0, 1.0, 2.0]), jnp.array([0.5, 0.0, 0.0])
    space = pc.Discrete(3)

    @jax.jit
    def both(p: Any, q: Any) -> Any:
        def narrower(p: Any, q: Any) -> Any:
            return Categorical(p, None, space).kl(Categorical(q, mask, space))

        wider = Categorical(p, mask, space).kl(Categorical(q, None, space))
        return jax.value_and_grad(narrower, (0, 1))(p, q), wider

    (value, slopes), wider = both(p, q)
    assert float(value) == pytest.approx(1e30 * scipy.special.softmax(p)[2], rel=1e-6)
    assert all(np.isfinite(slope).all() for slope in slopes)
    assert float(slopes[1][2]) == 0
    log_p, log_q = scipy.special.log_softmax(p[:2]), scipy.special.log_softmax(q)[:2]
    assert float(wider) == pytest.approx((np.exp(log_p) * (log_p - log_q)).sum(), rel=1e-5)


def test_kl_of_bits_where_one_of_the_two_masks() -> None:
    """A masked bit is zero for certain: what the other allows at a masked bit of ours costs, and inversely."""
    p, q = jnp.array([0.3, -1.0, 2.0, -200.0]), jnp.array([-0.5, 1.5, 0.0, 3.0])
    mask, space = jnp.array([True, False, True, False]), pc.MultiBinary(4)

    @jax.jit
    def divergences(p: Any, q: Any) -> Any:
        def of(ours: Any, theirs: Any) -> Any:
            call = lambda p, q: Bernoulli(p, ours, space).kl(Bernoulli(q, theirs, space))
            return jax.value_and_grad(call, (0, 1))(p, q)

        return of(None, mask), of(mask, None), of(mask, mask)

    narrower, wider, both = divergences(p, q)
    one, other = (scipy.special.expit(np.asarray(x, np.float64)) for x in (p, q))
    bits = one * np.log(one / other) + (1 - one) * np.log((1 - one) / (1 - other))
    free = bits[0] + bits[2]
    assert float(narrower[0]) == pytest.approx(1e30 * one[1], rel=1e-6)
    assert float(wider[0]) == pytest.approx(free - np.log1p(-other[[1, 3]]).sum(), rel=1e-5)
    assert float(both[0]) == pytest.approx(free, rel=1e-5)
    sure = Bernoulli(p.at[1].set(-200.0), None, space).kl(Bernoulli(q, mask, space))
    assert float(sure) == pytest.approx(free, rel=1e-5)  # who never picks what the other masks pays nothing
    for _, slopes in (narrower, wider, both):
        assert all(np.isfinite(slope).all() for slope in slopes)
    np.testing.assert_array_equal(narrower[1][1][~mask], 0)  # nothing flows to what is masked
    np.testing.assert_array_equal(wider[1][0][~mask], 0)


@pytest.mark.parametrize("name", ["categorical", "categorical, masked", "multi-categorical"])
def test_log_prob_and_entropy_together_are_those_alone(name: str) -> None:
    """Values and gradients, also of actions outside of the space and beside infinite and NaN logits."""
    p = PAIRS[name][0]
    n = p.logits.shape[-1]
    rows = jnp.broadcast_to(p.logits.reshape(-1, n)[0], (5, n)).at[1, 0].set(-jnp.inf)
    rows = rows.at[2, 1].set(jnp.inf).at[3].set(-jnp.inf).at[4, 0].set(jnp.nan)
    mask = None if p.mask is None else jnp.ones(n, bool).at[1].set(False)

    def both(together: bool, logits: Any, action: Any) -> Any:
        d = p._replace(logits=logits, mask=mask)
        log_prob, entropy = d.log_prob_and_entropy(action) if together else (d.log_prob(action), d.entropy())
        return 2.0 * log_prob + 0.3 * entropy, (log_prob, entropy)

    grad = jax.jit(jax.value_and_grad(both, argnums=1, has_aux=True), static_argnums=0)
    for shift in (-1, 0, 100):
        action = p.mode().reshape(-1, *p.space.struct().shape)[0] + shift
        for logits in rows:
            (_, values), gradient = grad(True, logits, action)
            (_, expected), slope = grad(False, logits, action)
            _close(values[0], expected[0])
            _close((values[1], gradient), (expected[1], slope), 1e-6)
            assert bool(jnp.isnan(gradient).any()) == bool(jnp.isnan(logits).any())


def test_impossible_actions() -> None:
    logits, mask = jnp.array([0.0, 1.0, 2.0]), jnp.array([True, True, False])
    d = Categorical(logits, mask, pc.Discrete(3, start=5))
    score = jax.jit(jax.value_and_grad(lambda z, a: d._replace(logits=z).log_prob(a)))
    for action in (4, 7, 8, -1):
        value, slope = score(logits, action)
        assert float(value) == pytest.approx(MASKED_LOG_PROB)
        assert (slope == 0).all()
    bits = Bernoulli(logits, mask, pc.MultiBinary(3))
    impossible = jnp.array([[0, 0, 1], [2, 0, 0], [0, -1, 0]])
    assert (jax.jit(jax.vmap(bits.log_prob))(impossible) == jnp.float32(MASKED_LOG_PROB)).all()
    joint = Joint({"a": d, "b": bits})
    worst = joint.log_prob({"a": jnp.array(0), "b": jnp.array([0, 0, 1])})
    assert float(worst) == pytest.approx(MASKED_LOG_PROB)


def test_bernoulli_at_zero_and_its_action_dtypes() -> None:
    logits = jnp.array([0.0, -0.0, 2.0])
    d = Bernoulli(logits, None, pc.MultiBinary(3))
    bits = np.array([1, 0, 1])
    scores = [d.log_prob(jnp.asarray(bits, dtype)) for dtype in (jnp.int32, bool, jnp.float32, jnp.bfloat16)]
    assert len({float(score) for score in scores}) == 1

    @partial(jax.jit, static_argnums=0)
    def gradients(derivative: Any) -> Any:
        other = Bernoulli(jnp.array([1.0, -1.0, 2.0]), None, pc.MultiBinary(3))
        functions = (lambda d: d.log_prob(bits), lambda d: d.entropy(), lambda d: d.kl(other))
        return [derivative(lambda z, f=f: f(d._replace(logits=z)))(logits) for f in functions]

    p = np.array([0.5, 0.5, 1 / (1 + math.exp(-2))])
    slope = p * (1 - p)
    wanted = [bits - p, -slope * [0, 0, 2], slope * [-1, 1, 0]]
    for derivative in (jax.grad, jax.jacfwd):
        _close(gradients(derivative), wanted, 1e-6)


def test_squashed_normal_far_out() -> None:
    log_std = jnp.broadcast_to(jnp.arange(-20.0, 21.0)[:, None], (41, 5))
    loc = jnp.broadcast_to(jnp.array([-1e4, -3.0, 0.0, 8.0, 1e4]), log_std.shape)

    @jax.jit
    def drawn(loc: Any, log_std: Any) -> Any:
        def scores(loc: Any, log_std: Any) -> Any:
            d = SquashedNormal(loc, log_std, BOX)
            return jax.vmap(lambda k: d.sample_and_log_prob(key=k)[1])(jax.random.split(KEY, 200))

        value, pull = jax.vjp(scores, loc, log_std)
        return value, pull(jnp.ones_like(value))

    u = jnp.array([-1e4, -100.0, -9.0, -0.0, 0.0, 1e-30, 9.0, 100.0, 1e4])

    @jax.jit
    @jax.vmap
    def far(log_std: Any) -> Any:
        def score(u: Any, loc: Any, log_std: Any) -> Any:
            d = SquashedNormal(loc, jnp.full(u.shape, log_std), BOX)
            return (d.log_prob(u) + d.entropy()).sum()

        return jax.value_and_grad(score, (0, 1, 2))(u, 0.9 * u, log_std)

    assert all(np.isfinite(x).all() for x in jax.tree.leaves((drawn(loc, log_std), far(log_std[:, 0]))))


def test_densities_of_infinite_actions_are_no_nan() -> None:
    u = jnp.array([math.inf, -math.inf, 3e38, -3e38])
    parameters = ((0.0, 0.0), (3.0, -20.0), (-1.0, 20.0))
    for loc, log_std in parameters:
        for family in (Normal, SquashedNormal):
            d = family(jnp.full(4, loc), jnp.full(4, log_std), BOX)
            value, slope = jax.vmap(jax.value_and_grad(lambda u, d=d: _at(d, 0).log_prob(u)))(u)
            assert (value < -1e10).all()
            assert not np.isnan(slope).any()
    for a, b, at_one in ((2.0, 2.0, -math.inf), (1.0, 1.0, 0.0), (3.0, 1.0, math.log(3)), (2.0, 0.5, 1e38)):
        value = Beta(jnp.full(4, a), jnp.full(4, b), pc.Box(low=0.0, high=1.0)).log_prob(u)
        assert not np.isnan(value).any()
        assert value[0] >= at_one if at_one > 1e30 else value[0] == pytest.approx(at_one, abs=1e-5)


@pytest.mark.parametrize("log_std", [-3.0, -1.0, 0.0, 1.0])
def test_squashed_normal_of_an_environment_action(log_std: float) -> None:
    """Up to 1 - 2^-24: the draw is recovered to three ulp, and the score to 1e-6."""
    space = pc.Box(low=-1.0, high=1.0)
    ends = 1 - np.float64(2.0) ** -np.arange(1, 25)
    actions = np.concatenate([-ends, ends, RNG.uniform(-1, 1, 200)]).astype(np.float32)
    u = jax.jit(jax.vmap(partial(pc.SquashedNormalHead().policy_action, space)))(actions)
    exact = np.arctanh(actions.astype(np.longdouble))
    loc = np.asarray(exact, np.float32) + np.float32(0.25) * np.float32(math.exp(log_std))
    got = SquashedNormal(jnp.asarray(loc), jnp.full(u.shape, log_std), space).log_prob(u)
    z = (exact - loc) / np.exp(np.longdouble(log_std))
    density = -z * z / 2 - log_std - 0.5 * math.log(2 * math.pi)
    want = density - np.log1p(-(actions.astype(np.longdouble) ** 2))
    error = np.abs(np.asarray(got, float) - want) / np.maximum(1, np.abs(want))
    assert (np.abs(np.asarray(u) - exact) <= 3 * np.spacing(np.abs(np.asarray(u)))).all()
    assert (error <= 1e-6).all()


BOXES = [
    (-1, 1),
    (0, 1),
    (-2, 0.5),
    (-3e38, 3e38),
    (-1e38, 3e38),
    (0, 255),
    (1e6, 1e6 + 1),
    (0, 1e-20),
    (0.1, 0.3),
]
BOXES += [tuple(sorted(RNG.normal(size=2) * 10 ** RNG.uniform(-6, 6, 2))) for _ in range(20)]


def test_policy_actions_of_environment_actions_in_any_box() -> None:
    """To four ulp, up to 2^-24 of the half width from a bound, where they are clamped; Beta has twice the number."""
    u = np.concatenate(
        [RNG.uniform(-8.6, 8.6, 3000), RNG.normal(size=3000), 1e-3 * RNG.normal(size=3000), [-50, 50]]
    )
    low, high = (tuple(np.repeat(np.float32(ends), len(u)).tolist()) for ends in zip(*BOXES, strict=True))
    box = pc.Box(low=low, high=high, shape=(len(BOXES), len(u)))
    squashed, beta = pc.SquashedNormalHead(), pc.BetaHead()

    @jax.jit
    def there_and_back(u: Any) -> Any:
        action = squashed.env_action(box, u)
        return action, squashed.policy_action(box, action), beta.policy_action(box, action)

    action, got, log_odds = there_and_back(jnp.asarray(np.tile(u, (len(BOXES), 1)), jnp.float32))
    got, log_odds = np.asarray(got), np.asarray(log_odds)
    x, low, high = (np.asarray(a, np.longdouble) for a in (action, *box.bounds()))
    middle, half = (low + high) / 2, (high - low) / 2
    inside = (x > low) & (x < high)
    exact = np.where(
        abs(x - middle) < half / 2,
        np.arctanh(np.clip((x - middle) / half, -0.5, 0.5)),
        0.5 * np.log(np.where(inside, x - low, 1) / np.where(inside, high - x, 1)),
    )
    limit = np.arctanh(1 - np.longdouble(2) ** -24)
    exact = np.where(inside, np.clip(exact, -limit, limit), np.sign(x - middle) * limit)
    np.testing.assert_array_less(abs(got - exact), 4 * np.spacing(abs(got)) + 1e-45)
    np.testing.assert_array_equal(log_odds, 2 * got)


@pytest.mark.parametrize("u", [-7.2, 7.2, 3.0])
def test_a_log_density_of_an_environment_action_near_0(u: float) -> None:
    space, head = pc.Box(low=0.0, high=1.0), pc.SquashedNormalHead()
    action = head.env_action(space, jnp.float32(u))
    d = SquashedNormal(jnp.float32(-7), jnp.float32(-2), space)
    x = float(action)
    exact = 0.5 * (math.log(x) - math.log1p(-x))
    want = scipy.stats.norm.logpdf(exact, -7, math.exp(-2)) - math.log(2 * x * (1 - x))
    assert float(d.log_prob(head.policy_action(space, action))) == pytest.approx(want, rel=2e-6)


@pytest.mark.parametrize("ends", [(-3e38, 3e38), (0.0, 3e38), (-1.0, 2.0)])
def test_bins_are_found_again_in_any_box(ends: Any) -> None:
    space, head = pc.Box(low=ends[0], high=ends[1]), pc.BinsHead(7)
    for index in range(7):
        assert int(head.policy_action(space, head.env_action(space, jnp.int32(index)))) == index


MOMENTS = {
    "normal": (lambda p, q, space: Normal(p, q - 1, space), pc.NormalHead(pc.Scale())),
    "squashed": (lambda p, q, space: SquashedNormal(p, q, space), pc.SquashedNormalHead()),
    "beta": (lambda p, q, space: Beta(jnp.exp(p), jnp.exp(q), space), pc.BetaHead()),
}


@pytest.mark.parametrize("name", MOMENTS)
def test_mean_and_stddev_are_those_of_what_is_scored(name: str) -> None:
    """Of draws before clipping for a normal, else of environment actions; within 5 standard errors."""
    build, head = MOMENTS[name]
    box = pc.Box(low=(-2.0, 0.0, 5.0), high=(0.5, 1.0, 7.0), shape=(3,))
    d = build(_normal(3), _normal(3), box)

    @jax.jit
    def facts(d: Any) -> Any:
        draws = jax.vmap(lambda k: d.sample(key=k))(jax.random.split(KEY, 10000))
        actions = (
            draws if name == "normal" else jax.vmap(jax.vmap(jax.vmap(partial(head.env_action, box))))(draws)
        )
        return actions, d.mean(), d.stddev()

    actions, mean, stddev = (np.asarray(x, float) for x in facts(d))
    assert mean.shape == stddev.shape == (*BATCH, 3)
    error = actions.std(0) / 100
    assert (abs(actions.mean(0) - mean) <= 5 * error).all()
    assert (abs(actions.std(0) - stddev) <= 5 * error * (1 + abs(actions - mean).max(0) / stddev)).all()
    assert (abs(actions.std(0) / stddev - 1) <= 0.05).all()


@pytest.mark.parametrize("log_std", [-10.0, -5.0, -1.0, 0.0, 0.6, 1.0, 3.0, 10.0])
def test_moments_of_a_squashed_normal_by_quadrature(log_std: float) -> None:
    loc, std = np.array([-9.0, -3.0, -0.4, 0.0, 1e-3, 0.5, 2.0, 8.0], np.float32), math.exp(log_std)
    nodes, weights = np.polynomial.legendre.leggauss(20)
    ends = np.geomspace(1e-3, 60, 60)
    for middle in loc.astype(float):
        crossing = (np.concatenate([-ends[::-1], [0], ends]) - middle) / std
        edges = np.unique(np.clip(np.concatenate([np.linspace(-9, 9, 37), crossing]), -9, 9))
        a, b = edges[:-1, None], edges[1:, None]
        noise = (a + b) / 2 + (b - a) / 2 * nodes
        mass = (b - a) / 2 * weights * scipy.stats.norm.pdf(noise)
        x = np.tanh(middle + std * noise)
        mean = (mass * x).sum()
        d = SquashedNormal(jnp.float32(middle), jnp.float32(log_std), pc.Box(low=-1.0, high=1.0))
        assert float(d.mean()) == pytest.approx(mean, abs=3e-7)
        assert float(d.stddev()) == pytest.approx(math.sqrt((mass * (x - mean) ** 2).sum()), abs=2e-6)


def test_moments_in_closed_form() -> None:
    box = pc.Box(low=-2.0, high=0.5)
    a, b = np.float32([0.3, 2.0, 1e4]), np.float32([0.7, 5.0, 3.0])
    d = Beta(jnp.asarray(a), jnp.asarray(b), box)
    _close(d.mean(), -2 + 2.5 * scipy.stats.beta.mean(a, b), 2e-7)
    _close(d.stddev(), 2.5 * scipy.stats.beta.std(a, b), 1e-6)
    bits = Bernoulli(jnp.array([-40.0, 0.0, 3.0, 1.0]), jnp.arange(4) < 3, pc.MultiBinary(4))
    p = np.array([*scipy.special.expit([-40.0, 0.0, 3.0]), 0])
    np.testing.assert_allclose(bits.mean(), p, rtol=1e-6)
    np.testing.assert_allclose(bits.stddev(), np.sqrt(p * (1 - p)), rtol=1e-6)
    both = Joint({"x": Joint((d, bits)), "k": Categorical(jnp.zeros(3), None, pc.Discrete(3))})
    _close(both.mean(), {"x": (d.mean(), bits.mean()), "k": None})
    _close(both.stddev(), {"x": (d.stddev(), bits.stddev()), "k": None})
    wide = SquashedNormal(jnp.zeros(3), jnp.zeros(3), MIXED)
    _close(wide.stddev()[1:], jnp.ones(2))


def test_beta_gradient_of_samples_is_unbiased() -> None:
    """d E[z] / d alpha = psi'(alpha), through the sampler."""
    alphas, betas = np.float32([0.5, 2.0, 1e3]), np.float32([0.5, 5.0, 1e4])
    shape = (20000, 3)
    a, b = (jnp.broadcast_to(x, shape) for x in (alphas, betas))

    @jax.jit
    def slopes(a: Any, b: Any) -> Any:
        def draws(a: Any) -> Any:
            return Beta(a, b, pc.Box(low=0.0, high=1.0, shape=(3,))).sample(key=KEY)

        return jax.jvp(draws, (a,), (jnp.ones_like(a),))[1]

    found = np.asarray(slopes(a, b), float)
    tolerance = 5 * found.std(0) / math.sqrt(len(found)) + 1e-6
    assert (np.abs(found.mean(0) - scipy.special.polygamma(1, alphas)) < tolerance).all()


# DTYPES


HALVES = ("categorical, masked", "multi-categorical, masked", "bernoulli, masked", "normal")
HALVES += ("squashed normal, mixed", "beta")


@pytest.mark.parametrize("name", HALVES)
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision_parameters(name: str, dtype: Any) -> None:
    @jax.jit
    def everything(p: Any, q: Any) -> Any:
        action, log_prob = p.sample_and_log_prob(key=KEY)
        slopes = jax.grad(lambda p: (p.entropy() + p.kl(q)).sum(), allow_int=True)(p)
        return (action, p.mode(), log_prob, p.log_prob(action), p.entropy(), p.kl(q)), slopes

    values, slopes = everything(*_cast(PAIRS[name], dtype))
    assert {str(x.dtype) for x in jax.tree.leaves(values)} <= {"float32", "int32"}
    assert {x.dtype for x in values[2:]} == {jnp.dtype("float32")}
    floats = [x for x in jax.tree.leaves((values, slopes)) if jnp.issubdtype(x.dtype, jnp.floating)]
    assert all(np.isfinite(x.astype(jnp.float32)).all() for x in floats)


# MASKS


@pytest.mark.parametrize("n", [5, 40, 1024])
def test_a_class_is_the_inverse_of_the_cumulative_distribution(n: int) -> None:
    """The larger the random number, the later the class: also where classes are searched in a table."""
    keys = jax.random.split(KEY, 2000)
    logits = jnp.asarray(np.random.default_rng(n).normal(size=n), jnp.float32)
    draws = jax.jit(jax.vmap(lambda key: Categorical(logits, None, pc.Discrete(n)).sample(key=key)))(keys)
    order = np.argsort(jax.vmap(lambda key: jax.random.bits(key, (), "uint32"))(keys))
    assert len(np.unique(draws)) > min(n, 300) / 2
    assert (np.diff(np.asarray(draws)[order]) >= 0).all()


def test_every_mask_of_four() -> None:
    masks = jnp.array(list(itertools.product([False, True], repeat=4))[1:])
    free = jnp.asarray(RNG.normal(size=masks.shape), jnp.float32)
    junk = jnp.broadcast_to(jnp.array([1e6, jnp.inf, jnp.nan, -jnp.inf]), masks.shape)
    logits = jnp.where(masks, free, junk)
    space = pc.Discrete(4)

    def scores(z: Any, y: Any) -> Any:
        d, other = Categorical(z, masks, space), Categorical(y, masks, space)
        best = jnp.argmax(masks, -1).astype(jnp.int32)
        return jnp.stack([d.log_prob(best), d.entropy(), d.kl(other), other.kl(d)], -1)

    other = jnp.where(masks, free[:, ::-1], jnp.nan)
    values = jax.jit(scores)(logits, other)
    assert np.isfinite(values).all()
    assert (values[:, 1:] >= 0).all()
    for jacobian in (jax.jacrev, jax.jacfwd):
        slopes = jax.jit(jacobian(lambda z: scores(z, other).sum(0)))(logits)
        assert np.isfinite(slopes).all()
        assert (jnp.where(masks, 0, slopes) == 0).all()
    draws = jax.jit(jax.vmap(lambda k: Categorical(logits, masks, space).sample(key=k)))(
        jax.random.split(KEY, 2000)
    )
    assert bool(jnp.take_along_axis(masks, draws.T, -1).all())
    assert bool((jnp.sum(jax.nn.one_hot(draws, 4), 0) > 0)[masks].all())  # and all that is allowed is drawn
    # The same through the row of a multi-categorical.
    twice = MultiCategorical(jnp.concatenate([logits, logits], -1), (masks, None), pc.MultiDiscrete((4, 4)))
    assert bool(jnp.take_along_axis(masks, twice.sample(key=KEY)[:, :1], -1).all())


def test_nothing_allowed_is_everything_allowed() -> None:
    logits, none = jnp.array([0.3, -1.0, 2.0]), jnp.zeros(3, bool)
    one, two = pc.Discrete(3), pc.MultiDiscrete((1, 2))

    @jax.jit
    def everything(d: Any, other: Any) -> Any:
        action = d.sample(key=KEY)
        return d.probs, d.log_probs, d.mode(), action, d.log_prob(action), d.entropy(), d.kl(other)

    for free, shut in (
        (Categorical(logits, None, one), Categorical(logits, none, one)),
        (MultiCategorical(logits, None, two), MultiCategorical(logits, (none[:1], none[:2]), two)),
    ):
        _close(everything(free, shut), everything(shut, free))


@pytest.mark.parametrize("n", [2, 5, 18, 40])
def test_masked_is_never_drawn(n: int) -> None:
    """Masks at both ends, beside weights from 1 to 0: 1.2e7 draws over the four n."""
    rows, draws = 1000, 3000
    place = np.arange(n)
    ends = np.sort(RNG.integers(0, n, (2, rows)), 0)
    mask = (place >= ends[0][:, None]) & (place <= ends[1][:, None]) & (RNG.random((rows, n)) < 0.8)
    mask[np.arange(rows), ends[0]] = True
    logits = np.where(mask, RNG.normal(size=mask.shape) * RNG.choice([0.1, 3, 30, 300], (rows, 1)), 1e6)
    d = Categorical(jnp.asarray(logits, jnp.float32), jnp.asarray(mask), pc.Discrete(n))

    @jax.jit
    def count_masked(d: Any, key: Any) -> Any:
        def bad(total: Any, key: Any) -> Any:
            index = d.sample(key=key)
            return total + jnp.sum(~jnp.take_along_axis(d.mask, index[:, None], -1), dtype=jnp.int32), None

        return jax.lax.scan(bad, jnp.int32(0), jax.random.split(key, draws))[0]

    assert int(count_masked(d, KEY)) == 0


@pytest.mark.parametrize("n", [3, 18, 50, 1100])
def test_masked_is_not_drawn_at_the_ends_of_the_uniform(n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    bits = np.repeat(np.uint32([0, 1, 2**31, 2**32 - 129, 2**32 - 1]), 60)
    monkeypatch.setattr(jax.random, "bits", lambda key, shape, dtype: jnp.asarray(bits, dtype))
    mask = RNG.random((len(bits), n)) < 0.5
    mask[:, [0, -1]], mask[:, n // 2] = False, True
    logits = RNG.normal(size=mask.shape) * np.resize([0, 3, 30], (len(bits), 1))
    d = Categorical(jnp.asarray(logits, jnp.float32), jnp.asarray(mask), pc.Discrete(n))
    assert mask[np.arange(len(bits)), jax.jit(lambda d: d.sample(key=KEY))(d)].all()


@jax.jit  # once for all values of junk
def _draws(d: Any) -> Any:
    drawn = jax.vmap(lambda k: d.sample_and_log_prob(key=k))(jax.random.split(KEY, 500))
    return drawn, d.mode(), d.entropy()


@pytest.mark.parametrize("junk", [math.nan, math.inf, -math.inf, 3e38])
def test_masked_is_never_drawn_whatever_is_allowed(junk: float) -> None:
    """Beside a NaN, too: every allowed action is as likely then, and the log-probability is NaN."""
    mask, long = jnp.array([False, True, True, False, True]), jnp.arange(40) % 7 == 3
    logits, row = jnp.array([9.0, junk, 0.0, 9.0, 0.0]), jnp.where(long, junk, 9.0)
    joint = pc.spaces.JointMask(~jnp.eye(2, dtype=bool))
    one, two = pc.Discrete(5, start=3), pc.MultiDiscrete((5, 2))
    bits = Bernoulli(logits, mask, pc.MultiBinary(5))
    table = Bernoulli(jnp.tile(logits, (5, 1)), jnp.tile(mask, (5, 1)), pc.MultiBinary(5))
    parts = {"tool": Categorical(logits[None], mask[None], one), "bits": table}
    graph = Graph(spaces=(("bits", pc.MultiBinary(5)), ("tool", one)), parents=(("bits", ("tool",)),))
    everything = {
        "one": Categorical(logits, mask, one),
        "long": Categorical(row, long, pc.Discrete(40)),
        "rows": MultiCategorical(jnp.concatenate([logits, logits[1:3]]), (mask, None), two),
        "padded": MultiCategorical(jnp.concatenate([logits[1:3], logits]), None, pc.MultiDiscrete((2, 5))),
        "tied": ProductCategorical(logits[:4], joint, pc.MultiDiscrete((2, 2))),
        "bits": bits,
        "seen": AutoregressiveJoint(parts, graph),
    }

    found = {name: _draws(d) for name, d in everything.items()}
    actions = {name: np.asarray(x[0][0]) for name, x in found.items() if name != "seen"}
    seen = found["seen"][0][0]
    assert set(actions["one"]) <= {4, 5, 7}
    assert set(actions["rows"][:, 0]) <= {1, 2, 4}
    assert long[actions["long"]].all()
    assert (actions["padded"][:, 0] < 2).all()
    assert (actions["tied"].sum(-1) == 1).all()
    assert set(np.asarray(seen["tool"])) <= {4, 5, 7}
    assert not actions["bits"][:, ~mask].any()
    assert not seen["bits"][:, ~mask].any()
    assert int(found["one"][1]) in {4, 5, 7}
    assert int(found["long"][1]) % 7 == 3
    assert float(everything["one"].log_prob(3)) == pytest.approx(MASKED_LOG_PROB)
    for (_, log_probs), _, entropy in found.values():
        assert math.isnan(junk) == bool(np.isnan(log_probs).all()) == bool(np.isnan(entropy))
    if math.isnan(junk):
        assert set(actions["one"]) == {4, 5, 7}


# LAWS


@partial(fast_jit, static_argnames=("chunks", "size"))
def _histogram(logits: Any, key: Any, *, chunks: int, size: int) -> Any:
    d = Categorical(logits, None, pc.Discrete(logits.shape[-1]))

    def chunk(counts: Any, key: Any) -> Any:
        draws = jax.vmap(lambda k: d.sample(key=k))(jax.random.split(key, size))
        return counts.at[draws].add(1), None

    return jax.lax.scan(chunk, jnp.zeros(logits.shape, jnp.int32), jax.random.split(key, chunks))[0]


@pytest.mark.parametrize("n", [2, 18, 256, 1000, 10000])
def test_categorical_draws_follow_the_law(n: int) -> None:
    """Chi-square over a million draws, of float32 logits and of those of a bfloat16 network; of 10,000 fewer."""
    logits = jnp.asarray(RNG.normal(size=n) * 1.5, jnp.float32)
    for seed, z in enumerate((logits, logits.astype(jnp.bfloat16).astype(jnp.float32))):
        chunks = 50 if n < 10000 else 10
        counts = np.asarray(_histogram(z, jax.random.key(seed), chunks=chunks, size=20000), np.int64)
        expected = scipy.special.softmax(np.asarray(z, float)) * counts.sum()
        rare = expected < 5  # pooled, for chi-square is not valid there
        observed, expected = (np.append(x[~rare], x[rare].sum()) for x in (counts, expected))
        used = expected > 0
        assert scipy.stats.chisquare(observed[used], expected[used]).pvalue > 1e-4


@jax.jit
def _draw(d: Any, key: Any) -> Any:
    return d.sample(key=key)


def _quantiles(d: Any, key: Any) -> Any:
    """The distribution function, by SciPy, of draws taken to environment actions."""
    z = np.asarray(_draw(d, key), float)
    p = [float(parameter[0]) for parameter in d[:2]]
    match d:
        case Normal():
            return scipy.stats.norm.cdf(z, p[0], math.exp(p[1]))
        case SquashedNormal():
            position = np.tanh(z)  # of the action between the bounds, from -1 to 1
            return scipy.stats.norm.cdf(
                np.arctanh(np.clip(position, -1 + 1e-16, 1 - 1e-16)), p[0], math.exp(p[1])
            )
        case Beta():
            left, right = scipy.special.expit(z), scipy.special.expit(-z)  # 1 - x, not rounded to 0
            return np.where(z < 0, scipy.stats.beta.cdf(left, *p), scipy.stats.beta.sf(right, *p[::-1]))


def test_bits_follow_the_law() -> None:
    logits = np.array([-14.0, -9.0, -3.0, -0.5, 0.0, 0.5, 3.0, 9.0, 14.0])
    d = Bernoulli(jnp.asarray(logits, jnp.float32), None, pc.MultiBinary(9))

    @fast_jit
    def ones(key: Any) -> Any:
        draws = jax.vmap(lambda k: d.sample(key=k))(jax.random.split(key, 2**20))
        return draws.sum(0)

    count, drawn = 4 * 2**20, sum(np.asarray(ones(key), float) for key in jax.random.split(KEY, 4))
    p = scipy.special.expit(logits)
    assert (abs(drawn - count * p) <= 5 * np.sqrt(count * p * (1 - p))).all()


def test_rare_bits_are_as_rare_as_they_should_be(monkeypatch: pytest.MonkeyPatch) -> None:
    """The 64 bits of the uniform number that decide: about probability * 2^64, for both values."""
    sizes = np.array([5.0, 16.5, 25.0, 30.0])
    d = Bernoulli(jnp.asarray(np.concatenate([-sizes, sizes]), jnp.float32), None, pc.MultiBinary(8))
    threshold = [int(p * 2**64) for p in np.tile(scipy.special.expit(-sizes), 2)]
    for factor, rare in ((1 - 1e-5, True), (1 + 1e-5, False)):
        words = [int(t * factor) for t in threshold]
        bits = np.array([[w >> 32 for w in words], [w % 2**32 for w in words]], np.uint32)
        monkeypatch.setattr(jax.random, "bits", lambda key, shape, dtype, bits=bits: jnp.asarray(bits))
        assert (d.sample(key=KEY) == np.repeat(np.int32([rare, not rare]), 4)).all()


@pytest.mark.parametrize(
    ("family", "parameters"),
    [
        (Normal, (0.3, -1.0)), (SquashedNormal, (0.5, 0.2)), (Beta, (0.5, 0.5)), (Beta, (1.0, 1.0)),
        (Beta, (2.0, 5.0)), (Beta, (0.01, 0.02)), (Beta, (1e3, 1e4)),
    ],
)  # fmt: skip
def test_continuous_draws_follow_the_law(family: Any, parameters: Any) -> None:
    d = family(
        *(jnp.full(100000, x, jnp.float32) for x in parameters), pc.Box(low=0.0, high=1.0, shape=(100000,))
    )
    assert scipy.stats.kstest(_quantiles(d, KEY), "uniform").pvalue > 1e-4


def test_draws_are_the_same_eagerly_jitted_and_vmapped() -> None:
    n = 40  # two levels of the search
    logits = jnp.asarray(RNG.normal(size=(500, n)), jnp.float32)
    keys = jax.random.split(KEY, len(logits))

    def draw(z: Any, key: Any) -> Any:
        return Categorical(z, None, pc.Discrete(n)).sample(key=key)

    together = jax.jit(jax.vmap(draw))(logits, keys)
    assert (together == jax.vmap(draw)(logits, keys)).all()
    one = jax.jit(draw)
    assert [int(one(logits[i], keys[i])) for i in range(50)] == together[:50].tolist()
    assert int(draw(logits[0], keys[0])) == int(together[0])
