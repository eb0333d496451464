"""Running statistics: NumPy's on all of the data, whatever comes, and no optimizer moves them."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from cases import config
from meshes import mesh_of

import policy_core as pc
from policy_core.errors import ConfigError, StructureError

pytestmark = pytest.mark.usefixtures("unchecked")  # beartype doubles the time to trace

SPACE = pc.Dict(
    {
        "speed": pc.Box(shape=(3,)),
        "image": pc.Box(low=0, high=255, shape=(2, 2, 1), dtype="uint8"),
        "gear": pc.Discrete(3),
        "arm": pc.Tuple((pc.Box(), pc.MultiBinary(2))),
    }
)
KEY = jax.random.key(0)
RNG = np.random.default_rng(0)


def made(space: Any = SPACE, **fields: Any) -> Any:
    return pc.init(config(pc.Discrete(2), space, normalize=pc.Normalize(**fields)), key=KEY)


def box(size: int = 3, **fields: Any) -> Any:
    return made(pc.Box(shape=(size,)), **fields)


def moments(policy: Any) -> Any:
    """Count, mean and variance of a policy whose observations are one array, in float64."""
    return [np.asarray(x, np.float64).sum(0) for x in jax.tree.leaves(policy[0]["normalize"])]


def same(a: Any, b: Any) -> bool:
    return bool(jax.tree.all(jax.tree.map(lambda x, y: bool((x == y).all()), a, b)))


def data(*axes: int, shift: float = 100.0) -> np.ndarray:
    return (RNG.standard_normal((*axes, 3)) * [0.1, 1.0, 30.0] + [shift, 0.0, -shift]).astype(np.float32)


def assert_moments(policy: Any, x: np.ndarray, tolerance: float = 1e-5) -> None:
    x = np.asarray(x, np.float64)
    count, mean, variance = moments(policy)
    np.testing.assert_array_equal(count, np.isfinite(x).sum(0))
    scale = np.nanstd(x, 0)
    np.testing.assert_allclose(mean, np.nanmean(x, 0), atol=tolerance * scale.min(), rtol=tolerance)
    np.testing.assert_allclose(variance, np.nanvar(x, 0), rtol=tolerance)


def test_statistics_are_those_of_numpy_whatever_the_axes_and_pieces() -> None:
    policy, seen = box(), []
    for axes in ((), (7,), (4, 5), (2, 3, 4), (0,), (500,)):
        x = data(*axes)
        policy = pc.update_statistics(policy, jnp.asarray(x))
        seen.append(x.reshape(-1, 3))
        assert_moments(policy, np.concatenate(seen))


def test_small_numbers_far_from_zero_keep_their_variance() -> None:
    x = np.float32(1e4) + data(2000, shift=0.0)[:, :1]
    policy = box(1)
    for part in np.split(x, 20):
        policy = pc.update_statistics(policy, jnp.asarray(part))
    assert_moments(policy, x)


def test_a_billion_samples_and_those_that_follow_count() -> None:
    """A billion in blocks of a million: an axis of 1000 equal devices, 1000 times."""
    x = data(1000, shift=1000.0)

    @jax.jit
    def blocks(policy: Any, x: Any) -> Any:
        def step(policy: Any, _: None) -> Any:
            update = jax.vmap(
                lambda _: pc.update_statistics(policy, x, axis_name="device"), axis_name="device"
            )
            return jax.tree.map(lambda leaf: leaf[0], update(jnp.zeros(1000))), None

        return jax.lax.scan(step, policy, None, 1000)[0]

    policy = blocks(box(), x)
    count, mean, variance = moments(policy)
    wide = x.astype(np.float64)
    assert (count == 1e9).all()
    np.testing.assert_allclose(mean, wide.mean(0), rtol=1e-7, atol=1e-6)
    np.testing.assert_allclose(variance, wide.var(0), rtol=1e-5)

    @jax.jit
    def more(policy: Any, y: Any) -> Any:
        return jax.lax.scan(lambda p, _: (pc.update_statistics(p, y), None), policy, None, 20_000)[0]

    y = x[:10] + np.float32(7)  # steps of 7e-8, where float32 has 6e-5
    n, m = 2e5, y.astype(np.float64)
    new_count, new_mean, new_variance = moments(more(policy, y))
    share = n / (1e9 + n)
    step = m.mean(0) - mean
    assert (new_count == 1e9 + n).all()
    np.testing.assert_allclose(new_mean - mean, share * step, rtol=1e-3)
    moved = share * (m.var(0) - variance + (1 - share) * step**2)
    np.testing.assert_allclose(new_variance - variance, moved, rtol=1e-3)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 3e38])
def test_what_is_not_finite_is_left_out_entry_by_entry(bad: float) -> None:
    x = data(50)
    x[7, 1] = x[9, 2] = bad
    policy = pc.update_statistics(pc.update_statistics(box(), x[:8]), x[8:])
    assert_moments(policy, np.where(np.abs(x) < 1e30, x, np.nan))
    before = policy
    policy = pc.update_statistics(policy, jnp.full((3,), bad))
    assert same(policy, before)
    _, value = pc.value(policy, (), jnp.asarray(x[0]))
    assert np.isfinite(value)


def test_a_mask_says_which_observations_count() -> None:
    x, mask = data(4, 6), RNG.random((4, 6)) < 0.5
    policy = pc.update_statistics(box(), x, mask=jnp.asarray(mask))
    assert_moments(policy, x[mask])
    assert same(pc.update_statistics(policy, x, mask=jnp.zeros((4, 6), bool)), policy)


def test_parts_of_floats_have_statistics_and_others_pass_unchanged() -> None:
    policy = made()
    draw = jax.jit(jax.vmap(lambda key: SPACE.sample(key=key)))
    x = jax.tree.map(jnp.asarray, draw(jax.random.split(KEY, 20)))
    updated = pc.update_statistics(policy, x)
    statistics = updated[0]["normalize"]
    assert statistics["image"] == statistics["gear"] == statistics["arm"][1] == {}
    for seen, part in ((statistics["speed"], x["speed"]), (statistics["arm"][0], x["arm"][0])):
        np.testing.assert_allclose(seen["mean"].sum(0), np.mean(part, 0), rtol=1e-5, atol=1e-6)
    first = jax.tree.map(lambda leaf: leaf[0], x)
    got = updated[1].normalize.apply(statistics, first)
    expected = (first["speed"] - np.mean(x["speed"], 0)) / np.std(x["speed"], 0)
    np.testing.assert_allclose(got["speed"], expected, rtol=1e-4)
    assert got["image"] is first["image"]
    assert got["gear"] is first["gear"]
    assert same({**updated[0], "normalize": ()}, {**policy[0], "normalize": ()})


def test_the_policy_sees_normalized_and_clipped_observations() -> None:
    x = data(100)
    policy = pc.update_statistics(box(clip=1.5), x)
    plain = ({name: part for name, part in policy[0].items() if name != "normalize"},
             config(pc.Discrete(2), pc.Box(shape=(3,))))  # fmt: skip
    expected = np.clip((x - x.mean(0, np.float64)) / x.std(0, dtype=np.float64), -1.5, 1.5)
    assert (np.abs(expected) == 1.5).any()
    both = jax.jit(jax.vmap(lambda x, y: (pc.value(policy, (), x)[1], pc.value(plain, (), y)[1])))
    np.testing.assert_allclose(
        *both(jnp.asarray(x), jnp.asarray(expected, jnp.float32)), rtol=1e-4, atol=1e-5
    )
    ends = [pc.value(policy, (), jnp.full(3, end))[1] for end in (np.inf, 1e30, np.nan)]
    assert ends[0] == ends[1]
    assert np.isnan(ends[2])


def test_constant_entries_become_zero() -> None:
    policy = pc.update_statistics(box(1), jnp.full((10, 1), 5.0))
    assert float(policy[1].normalize.apply(policy[0]["normalize"], jnp.array([5.0]))[0]) == 0


def test_members_of_a_population_have_statistics_of_their_own() -> None:
    configuration = box()[1]
    population = jax.jit(jax.vmap(lambda key: pc.init(configuration, key=key)))(jax.random.split(KEY, 2))
    x = data(2, 30)
    population = jax.jit(jax.vmap(pc.update_statistics))(population, jnp.asarray(x))
    for i in range(2):
        assert_moments(jax.tree.map(lambda leaf: leaf[i], population), x[i])


def test_devices_agree_on_the_statistics_of_all() -> None:
    x = data(2, 30)
    mask = np.ones((2, 30), bool)
    mask[0, 3:] = False
    mesh = mesh_of("Auto", device=2)
    spec = jax.sharding.PartitionSpec
    update = jax.jit(
        jax.shard_map(
            lambda policy, x, mask: pc.update_statistics(policy, x, mask=mask, axis_name="device"),
            mesh=mesh, in_specs=(spec(), spec("device"), spec("device")), out_specs=spec(),
        )
    )  # fmt: skip
    policy = box()
    for _ in range(2):
        policy = update(policy, x, mask)
    assert_moments(policy, np.concatenate([x[mask]] * 2))


def test_the_gradient_of_statistics_is_zero_and_a_file_holds_them() -> None:
    policy = pc.update_statistics(box(), data(10))
    x = jnp.ones(3)
    gradient, _ = jax.grad(lambda p: pc.value(p, (), x)[1])(policy)
    assert all(not leaf.any() for leaf in jax.tree.leaves(gradient["normalize"]))
    loaded = pc.from_bytes(pc.to_bytes(policy))
    assert same(loaded, policy)
    assert pc.value(loaded, (), x)[1] == pc.value(policy, (), x)[1]


def _descend(inner: Any, policy: Any) -> Any:
    optimizer = optax.multi_transform({True: inner, False: optax.set_to_zero()}, pc.trainable)

    @jax.jit
    def step(policy: Any, state: Any) -> Any:
        gradient = jax.tree.map(jnp.ones_like, policy)  # as of a loss that does not stop it
        change, state = optimizer.update(gradient, state, policy)
        return optax.apply_updates(policy, change), state, change

    return step(policy, optimizer.init(policy))


def _frozen(params: Any) -> Any:
    return {name: params[name] for name in ("normalize", "temperature")}


def _everything() -> Any:
    configuration = config(pc.Discrete(2), normalize=pc.Normalize(), temperature=0.5)
    return pc.update_statistics(pc.init(configuration, key=KEY), data(10))


@pytest.mark.filterwarnings("default")
def test_no_optimizer_moves_what_is_not_trainable() -> None:
    policy = _everything()
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        (moved, _), _, _ = _descend(optax.adamw(0.1, weight_decay=0.5), policy)
        clipped = _descend(optax.clip_by_global_norm(1.0), policy)[2]
        norm = optax.tree.norm(clipped)
    assert same(_frozen(moved), _frozen(policy[0]))
    assert not any(
        same(a, b) for a, b in zip(*map(jax.tree.leaves, (moved["actor"], policy[0]["actor"])), strict=True)
    )
    # The norm that is clipped is that of what is trained.
    assert float(norm) == pytest.approx(1.0, abs=1e-5)


def test_an_evolution_strategy_leaves_alone_what_is_not_trainable() -> None:
    policy = _everything()

    @jax.jit
    def perturbed(policy: Any) -> Any:
        return jax.tree.map(lambda leaf, moves: leaf + 0.1 if moves else leaf, policy, pc.trainable(policy))

    params, _ = perturbed(policy)
    assert same(_frozen(params), _frozen(policy[0]))
    assert not same(params["critic"], policy[0]["critic"])


def test_policies_without_statistics_are_trainable_and_unchanged() -> None:
    policy = pc.init(config(pc.Discrete(2)), key=KEY)
    assert same(pc.update_statistics(policy, jnp.ones((5, 3))), policy)
    moves = pc.trainable(policy)
    assert jax.tree.structure(moves) == jax.tree.structure(policy)
    assert all(leaf is True for leaf in jax.tree.leaves(moves))


def _batch(**changes: Any) -> Any:
    x = jax.tree.map(lambda leaf: jnp.zeros((4, *leaf.shape), leaf.dtype), SPACE.struct())
    return {**x, **changes}


@pytest.mark.parametrize(
    ("observations", "mask", "message"),
    [
        ({"speed": jnp.ones((4, 3))}, None, r"observations\['arm'\]\[0\]: missing"),
        (_batch(sped=jnp.ones(4)), None, r"observations\['sped'\]: unexpected"),
        (_batch(speed=jnp.ones((5, 3))), None, r"observations\['speed'\]: got shape \(5, 3\), expected \(4, 3\)"),
        (_batch(image=jnp.ones((4, 2, 2, 1))), None, r"observations\['image'\]: got dtype float32, expected uint8"),
        (_batch(), jnp.ones(3, bool), r"mask: got shape \(3,\), expected \(4,\)"),
        (_batch(), jnp.ones(4), "mask: got dtype float32, expected bool"),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("unchecked")
def test_what_does_not_fit_is_refused_by_name(observations: Any, mask: Any, message: str) -> None:
    with pytest.raises(StructureError, match=message):
        pc.update_statistics(made(), observations, mask=mask)


@pytest.mark.parametrize(
    ("name", "value"), [("clip", 0.0), ("clip", -1.0), ("epsilon", 0.0), ("epsilon", np.inf)]
)
def test_limits_are_positive(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=rf"^Normalize\.{name}: got .*, expected a positive number"):
        pc.Normalize(**{name: float(value)})
