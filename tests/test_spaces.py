"""Spaces: what they contain, draw, flatten, and refuse."""

import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import SPACES
from hypothesis import HealthCheck, given, settings
from strategies import SPACES as ANY_SPACE
from strategies import SPACES_AND_MASKS

import policy_core as pc
from policy_core.errors import ConfigError, MaskError

unchecked = pytest.mark.usefixtures("unchecked")
few = settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])

KEY = jax.random.key(0)
DRAWS = 64
F32_MAX, F16_MAX = float(np.finfo(np.float32).max), float(np.finfo(np.float16).max)
INT32_MIN, INT32_MAX = -(2**31), 2**31 - 1
ONE = jnp.array(1, jnp.int32)


def _at(tree: Any, i: int) -> Any:
    return jax.tree.map(lambda x: x[i], tree)


def _draw(space: Any, mask: Any = None) -> Any:
    return jax.jit(lambda: space.sample(key=KEY, mask=mask))()


def _same(a: Any, b: Any) -> bool:
    """The same tree, dtypes and numbers."""
    if jax.tree.structure(a) != jax.tree.structure(b):
        return False
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return all(x.dtype == y.dtype and x.shape == y.shape and bool((x == y).all()) for x, y in pairs)


def _same_but_for_float32(a: Any, b: Any) -> bool:
    """The same, where integers above 2**24 are rounded as float32 rounds them."""

    def rounded(x: Any) -> Any:
        wide = jnp.issubdtype(x.dtype, jnp.integer) and x.dtype.itemsize == 4
        return x.astype(jnp.float32) if wide else x

    dtypes = [[leaf.dtype for leaf in jax.tree.leaves(tree)] for tree in (a, b)]
    return dtypes[0] == dtypes[1] and _same(jax.tree.map(rounded, a), jax.tree.map(rounded, b))


def _permitted(space: Any, mask: Any, element: Any) -> bool:
    """By hand and in NumPy: `element` is in `space` and `mask` allows it."""
    match space:
        case pc.Dict():
            assert isinstance(element, dict)
            assert list(element) == [name for name, _ in space.spaces]
            return all(
                _permitted(part, None if mask is None else mask[name], element[name])
                for name, part in space.spaces
            )
        case pc.Tuple():
            assert isinstance(element, tuple)
            assert len(element) == len(space.spaces)
            masks = [None] * len(element) if mask is None else mask
            return all(_permitted(*parts) for parts in zip(space.spaces, masks, element, strict=True))
    element = np.asarray(element)
    match space:
        case pc.Box():
            assert element.dtype == space.struct().dtype
            assert element.shape == space.shape
            low, high = space.bounds()
            return bool(((element >= low) & (element <= high)).all())
        case pc.Discrete():
            nvec, starts, rows = (space.n,), (space.start,), (mask,)
        case pc.MultiDiscrete():
            nvec, starts, rows = space.nvec, space.start, mask or (None,) * len(space.nvec)
        case _:
            allowed = np.ones(element.shape, bool) if mask is None else np.asarray(mask)
            assert set(element.ravel().tolist()) <= {0, 1}
            return bool((allowed | (element == 0)).all())
    assert element.dtype == np.int32
    for value, n, start, row in zip(element.ravel().tolist(), nvec, starts, rows, strict=True):
        index = value - start
        if not 0 <= index < n or (row is not None and np.any(row) and not row[index]):
            return False
    return True


def _random_mask(full: Any, seed: int = 0) -> Any:
    """A mask that allows about half, and something in every row."""
    rng = np.random.default_rng(seed)

    def half(leaf: Any) -> Any:
        mask = rng.integers(0, 2, leaf.shape).astype(bool)
        mask[..., rng.integers(leaf.shape[-1])] = True
        return jnp.array(mask)

    return jax.tree.map(half, full)


class Drawn(NamedTuple):
    space: Any
    draw: Any
    samples: Any
    inside: Any
    flat: Any
    back: Any
    mask: Any
    masked: Any


@pytest.fixture(scope="module", params=SPACES)
def drawn(request: pytest.FixtureRequest) -> Drawn:
    """Draws of a space of the table and what it makes of them, under `jit` and `vmap`."""
    space = SPACES[request.param]
    mask = _random_mask(space.full_mask())

    @jax.jit
    @jax.vmap
    def draw(key: Any) -> Any:
        sample = space.sample(key=key)
        flat = space.flatten(sample)
        masked = space.sample(key=key, mask=mask)
        return sample, space.contains(sample), flat, space.unflatten(flat), masked

    # As NumPy arrays, which are cheap to take apart.
    samples, inside, flat, back, masked = jax.tree.map(np.asarray, draw(jax.random.split(KEY, DRAWS)))
    return Drawn(space, draw, samples, inside, flat, back, mask, masked)


def test_samples_are_elements(drawn):
    assert bool(drawn.inside.all())
    struct = drawn.space.struct()
    assert jax.tree.structure(drawn.samples) == jax.tree.structure(struct)
    for sample, leaf in zip(jax.tree.leaves(drawn.samples), jax.tree.leaves(struct), strict=True):
        assert (sample.shape[1:], sample.dtype) == (leaf.shape, leaf.dtype)
    assert all(_permitted(drawn.space, None, _at(drawn.samples, i)) for i in range(DRAWS))


def test_samples_under_a_mask_are_what_it_allows(drawn):
    assert all(_permitted(drawn.space, drawn.mask, _at(drawn.masked, i)) for i in range(DRAWS))


def test_flatten_gives_flat_size_float32_numbers(drawn):
    assert drawn.flat.shape == (DRAWS, drawn.space.flat_size)
    assert drawn.flat.dtype == jnp.float32


def test_unflatten_is_the_inverse_of_flatten(drawn):
    assert _same_but_for_float32(drawn.back, drawn.samples)


def test_the_same_key_gives_the_same_sample_and_another_key_another(drawn):
    again, *_ = drawn.draw(jax.random.split(KEY, DRAWS))
    other, *_ = drawn.draw(jax.random.split(jax.random.key(1), DRAWS))
    assert _same(again, drawn.samples)
    assert _same(other, drawn.samples) == (drawn.space == pc.Discrete(1))


def test_the_full_mask_is_a_mask_of_the_space(drawn):
    full = drawn.space.full_mask()
    drawn.space.check_mask(full)
    drawn.space.check_mask(None)
    assert all(bool(leaf.all()) and leaf.dtype == bool for leaf in jax.tree.leaves(full))


@unchecked
@few
@given(SPACES_AND_MASKS)
def test_any_sample_is_what_the_mask_allows_and_survives_flattening(space_and_mask):
    space, mask = space_and_mask
    space.check_mask(mask)
    for seed in range(2):
        element = space.sample(key=jax.random.key(seed), mask=mask)
        assert _permitted(space, mask, element)
        assert bool(space.contains(element))
    flat = space.flatten(element)
    assert (flat.shape, flat.dtype) == ((space.flat_size,), jnp.float32)
    assert _same_but_for_float32(space.unflatten(flat), element)


@unchecked
@few
@given(ANY_SPACE)
def test_no_space_contains_what_has_another_structure(space):
    element = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), space.struct())
    batch = jax.tree.map(lambda leaf: jnp.zeros((2, *leaf.shape), leaf.dtype), space.struct())
    for wrong in ([element], {"": element, "?": element}, (element, element), None, "text", object()):
        if not (wrong is None and space.struct() in ((), {})):
            assert not bool(space.contains(wrong))
    if jax.tree.leaves(element):
        assert not bool(space.contains(batch))
        assert not bool(space.contains(()))


BOX = pc.Box(low=(-1, 0), high=(1, math.inf), shape=(2,))
INT_BOX = pc.Box(low=-3, high=5, dtype="int8")
DICT, TUPLE = SPACES["dict"], SPACES["tuple"]

CONTAINS: list[tuple[Any, Any, bool]] = [
    (BOX, jnp.array([-1.0, 0.0]), True),
    (BOX, jnp.array([1.0, F32_MAX]), True),
    (BOX, jnp.array([0.5, 2.0], jnp.bfloat16), True),
    (BOX, np.array([0.5, 2.0]), True),
    (BOX, jnp.array([1.0000001, 0.0]), False),
    (BOX, jnp.array([0.0, -1e-30]), False),
    (BOX, jnp.array([math.nan, 0.0]), False),
    (BOX, jnp.array([0.0, math.nan]), False),
    (BOX, jnp.array([-math.inf, 0.0]), False),
    (BOX, jnp.array([0.0]), False),
    (BOX, jnp.array([[0.0, 0.0]]), False),
    (BOX, jnp.array(0.0), False),
    (BOX, jnp.array([0, 0]), False),
    (BOX, jnp.array([False, False]), False),
    (BOX, [0.0, 0.0], False),
    (BOX, (jnp.array([0.0, 0.0]),), False),
    (BOX, None, False),
    (BOX, "text", False),
    (pc.Box(), jnp.array(math.nan), False),
    (pc.Box(), "float32", False),
    (pc.Box(), jnp.float32, False),
    (pc.Discrete(3), "int32", False),
    (pc.Box(), jnp.array(-F32_MAX), True),
    (pc.Box(low=-1e30, high=1e30), jnp.array(0.0, jnp.float16), True),
    (pc.Box(low=0.1, high=0.1), jnp.array(0.1, jnp.float32), True),
    (pc.Box(low=0.1, high=0.1), jnp.array(0.1, jnp.bfloat16), True),
    (INT_BOX, jnp.array(-3, jnp.int8), True),
    (INT_BOX, jnp.array(5, jnp.int32), True),
    (INT_BOX, jnp.array(5, jnp.uint8), True),
    (INT_BOX, jnp.array(True), True),
    (INT_BOX, jnp.array(6, jnp.int8), False),
    (INT_BOX, jnp.array(255, jnp.uint8), False),
    (INT_BOX, jnp.array(253, jnp.uint8), False),
    (INT_BOX, jnp.array(256 + 1, jnp.int32), False),
    (INT_BOX, jnp.array(1.0), False),
    (pc.Box(low=-3, high=5, shape=(2,), dtype="int8"), jnp.array([-3, 5], jnp.int8), True),
    (pc.Box(low=-3, high=5, shape=(2,), dtype="int8"), jnp.array([-3, 5], jnp.int32), True),
    (pc.Box(low=-3, high=5, shape=(2,), dtype="int8"), jnp.array([-3, 261], jnp.int32), False),
    (pc.Box(low=-3, high=5, shape=(2,), dtype="int8"), jnp.array([3, 253], jnp.uint8), False),
    (pc.Box(low=-9, high=-3, shape=(1,), dtype="int8"), jnp.array([253], jnp.uint8), False),
    (pc.Box(low=300, high=400, shape=(1,), dtype="int16"), jnp.array([100], jnp.uint8), False),
    (pc.Box(dtype="int32", shape=(1,)), jnp.array([2**32 - 1], jnp.uint32), False),
    (pc.Box(dtype="uint32", shape=(1,)), jnp.array([2**32 - 1], jnp.uint32), True),
    (pc.Box(dtype="uint32", shape=(1,)), jnp.array([-1], jnp.int32), False),
    (pc.Box(low=0, high=5, dtype="int32", shape=(1,)), np.array([2**32 + 1]), False),
    (pc.Discrete(3, start=-2), jnp.array(-2), True),
    (pc.Discrete(3, start=-2), jnp.array(0, jnp.int8), True),
    (pc.Discrete(3, start=-2), jnp.array(False), True),
    (pc.Discrete(3, start=-2), jnp.array(1), False),
    (pc.Discrete(3, start=-2), jnp.array(-3), False),
    (pc.Discrete(3, start=-2), jnp.array(0.0), False),
    (pc.Discrete(3, start=-2), jnp.array([0]), False),
    (pc.Discrete(3, start=-2), jnp.array(2**32 - 1, jnp.uint32), False),
    (pc.Discrete(3), np.int64(2**32 + 1), False),
    (pc.Discrete(3), "0", False),
    (pc.Discrete(5, start=2**31 - 5), jnp.array(INT32_MAX), True),
    (pc.Discrete(5, start=2**31 - 5), jnp.array(INT32_MIN), False),
    (pc.Discrete(5, start=INT32_MIN), jnp.array(INT32_MIN), True),
    (pc.Discrete(5, start=INT32_MIN), jnp.array(INT32_MAX), False),
    (pc.MultiDiscrete((2, 3)), jnp.array([1, 2]), True),
    (pc.MultiDiscrete((2, 3)), jnp.array([2, 2]), False),
    (pc.MultiDiscrete((2, 3)), jnp.array([1, -1]), False),
    (pc.MultiDiscrete((2, 3)), jnp.array([1.0, 1.0]), False),
    (pc.MultiDiscrete((2, 3)), jnp.array([1]), False),
    (pc.MultiDiscrete((2, 3)), jnp.array([[1, 2]]), False),
    (pc.MultiDiscrete((2, 3)), np.array([2**32, 1]), False),
    (pc.MultiDiscrete((2, 3), start=(-1, 0)), jnp.array([2**32 - 1, 0], jnp.uint32), False),
    (pc.MultiDiscrete((2, 3), start=(5, INT32_MIN)), jnp.array([5, INT32_MIN]), True),
    (pc.MultiDiscrete((5,), start=(2**31 - 5,)), jnp.array([INT32_MAX]), True),
    (pc.MultiDiscrete((5,), start=(2**31 - 5,)), jnp.array([INT32_MIN]), False),
    (pc.MultiDiscrete((6,), shape=()), jnp.array(5), True),
    (pc.MultiBinary(2), jnp.array([0, 1]), True),
    (pc.MultiBinary(2), jnp.array([False, True]), True),
    (pc.MultiBinary(2), jnp.array([0, 2]), False),
    (pc.MultiBinary(2), jnp.array([0, -1]), False),
    (pc.MultiBinary(2), jnp.array([0.0, 1.0]), False),
    (pc.MultiBinary(2), jnp.array([[0, 1]]), False),
    (pc.MultiBinary(2), np.array([0, 2**32]), False),
    (DICT, {"a": ONE, "b": jnp.zeros(2)}, True),
    (DICT, {"b": jnp.zeros(2), "a": ONE}, True),
    (DICT, {"a": ONE}, False),
    (DICT, {"a": ONE, "b": jnp.zeros(2), "c": ONE}, False),
    (DICT, {"a": ONE, "b": jnp.array([0.0, math.nan])}, False),
    (DICT, {"a": 3 * ONE, "b": jnp.zeros(2)}, False),
    (DICT, (ONE, jnp.zeros(2)), False),
    (TUPLE, (ONE, jnp.array(0.5)), True),
    (TUPLE, [ONE, jnp.array(0.5)], False),
    (TUPLE, (ONE,), False),
    (TUPLE, (ONE, jnp.array(0.5), ONE), False),
    (TUPLE, (2 * ONE, jnp.array(0.5)), False),
    (TUPLE, (ONE, ONE), False),
    (pc.Tuple(()), (), True),
    (pc.Tuple(()), (ONE,), False),
    (pc.Dict({}), {}, True),
    (pc.Dict({}), {"a": ONE}, False),
]


@unchecked
@pytest.mark.parametrize(
    ("space", "element", "inside"),
    CONTAINS,
    ids=[f"{i}-{type(space).__name__}-{inside}" for i, (space, _, inside) in enumerate(CONTAINS)],
)
def test_contains(space, element, inside):
    assert bool(space.contains(element)) is inside


@pytest.mark.parametrize("name", ["box mixed bounds", "box int32", "discrete", "multi-discrete", "nested"])
def test_contains_under_jit_and_vmap_refuses_what_is_out_of_bounds(name):
    space = SPACES[name]

    @jax.jit
    @jax.vmap
    def contains(key: Any, outside: Any) -> Any:
        element = space.sample(key=key)
        return space.contains(jax.tree.map(lambda x: jnp.where(outside, -100, x).astype(x.dtype), element))

    inside = contains(jax.random.split(KEY, 4), jnp.array([False, True, False, False]))
    assert inside.tolist() == [True, False, True, True]


def test_an_index_outside_of_the_space_flattens_to_zeros():
    assert pc.Discrete(3, start=1).flatten(jnp.array(0)).tolist() == [0, 0, 0]
    assert pc.Discrete(3, start=1).flatten(jnp.array(3)).tolist() == [0, 0, 1]


def test_flat_forms():
    assert pc.MultiDiscrete((2, 3), start=(0, 5)).flatten(jnp.array([1, 7])).tolist() == [0, 1, 0, 0, 1]
    assert pc.MultiBinary((2, 2)).flatten(jnp.array([[0, 1], [1, 0]])).tolist() == [0, 1, 1, 0]
    assert pc.Box(shape=(2, 2)).flatten(jnp.array([[1.0, 2], [3, 4]])).tolist() == [1, 2, 3, 4]
    image = pc.Box(low=0, high=255, shape=(1, 2), dtype="uint8")
    assert image.flatten(jnp.array([[0, 255]], jnp.uint8)).tolist() == [0, 255]
    assert image.unflatten(jnp.array([0.4, 254.6])).tolist() == [[0, 255]]
    nested = pc.Tuple((pc.Discrete(2), pc.Dict({"b": pc.Box(), "a": pc.Box(shape=(2,))})))
    element = (jnp.array(1), {"b": jnp.array(9.0), "a": jnp.array([7.0, 8])})
    assert nested.flatten(element).tolist() == [0, 1, 7, 8, 9]


def test_unflatten_takes_the_largest_number_of_each_row():
    assert int(pc.Discrete(3, start=4).unflatten(jnp.array([-3.0, -1, -2]))) == 5
    space = pc.MultiDiscrete((2, 3), shape=(2, 1), start=(0, 10))
    assert space.unflatten(jnp.array([-5.0, -6, -9, -8, -7])).tolist() == [[0], [12]]
    assert pc.MultiBinary(2).unflatten(jnp.array([0.4, 0.6])).tolist() == [0, 1]


def test_a_dict_orders_its_keys_whatever_the_mapping():
    a, b, c = pc.Discrete(2), pc.Box(shape=(1,)), pc.MultiBinary(2)
    names = ["b", "B", "10", "9", "a"]
    spaces = dict(zip(names, (a, b, c, a, b), strict=True))
    space = pc.Dict(spaces)
    assert [name for name, _ in space.spaces] == sorted(names) == ["10", "9", "B", "a", "b"]
    backwards = dict(reversed(spaces.items()))
    assert pc.Dict(backwards) == space
    assert pc.fingerprint(pc.Dict(backwards)) == pc.fingerprint(space)
    assert pc.Dict(tuple(backwards.items())) == space
    assert list(space.struct()) == list(space.sample(key=KEY)) == list(space.full_mask()) == sorted(names)
    assert space["b"] == a


def test_parts_of_a_composite_are_drawn_independently():
    space = pc.Tuple((pc.Box(shape=(3,)),) * 2)
    first, second = space.sample(key=KEY)
    assert not bool((first == second).any())


def test_spaces_without_parts_or_entries_work():
    assert pc.Dict({}).unflatten(pc.Dict({}).flatten({})) == pc.Dict({}).sample(key=KEY) == {}
    assert pc.Tuple(()).unflatten(pc.Tuple(()).flatten(())) == pc.Tuple(()).sample(key=KEY) == ()
    box = pc.Box(shape=(2, 0))
    assert box.unflatten(box.flatten(box.sample(key=KEY))).shape == (2, 0)
    assert pc.MultiBinary(0).sample(key=KEY, mask=jnp.ones(0, bool)).shape == (0,)


@pytest.mark.parametrize("mask", [None, ()])
def test_a_multi_discrete_without_entries_works(mask):
    space = pc.MultiDiscrete(())
    sample = space.sample(key=KEY, mask=mask)
    assert space.unflatten(space.flatten(sample)).shape == sample.shape == (0,)


@pytest.mark.parametrize(
    ("dtype", "low", "high"),
    [
        ("int8", -128, 127),
        ("int8", -math.inf, math.inf),
        ("int8", -128, 126),
        ("uint8", 0, 255),
        ("uint8", 0, 254),
        ("int8", -3, 4),
        ("int16", 32760, 32767),
        ("int32", INT32_MAX - 2, INT32_MAX),
        ("uint32", 2**32 - 3, 2**32 - 1),
    ],
)
def test_an_integer_box_reaches_every_value_and_no_other(dtype, low, high):
    samples = _draw(pc.Box(low=low, high=high, shape=(20_000,), dtype=dtype))
    assert samples.dtype == dtype
    info = np.iinfo(dtype)
    expected = range(int(max(low, info.min)), int(min(high, info.max)) + 1)
    assert set(np.asarray(samples).tolist()) == set(expected)


@pytest.mark.parametrize("dtype", ["int32", "uint32", "int16"])
def test_the_widest_integer_box_is_drawn_evenly(dtype):
    info = np.iinfo(dtype)
    samples = np.asarray(_draw(pc.Box(shape=(20_000,), dtype=dtype)), np.float64)
    share = (samples - info.min) / (float(info.max) - info.min)
    counts = np.histogram(share, bins=8, range=(0, 1))[0]
    assert np.all(np.abs(counts - 2500) < 5 * math.sqrt(2500))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_the_widest_float_box_does_not_overflow(dtype):
    limit = float(jnp.finfo(dtype).max)
    space = pc.Box(low=-limit, high=limit, shape=(4096,), dtype=dtype)
    sample = _draw(space)
    assert bool(jnp.isfinite(sample).all())
    assert bool(space.contains(sample))
    assert abs(float(np.mean(np.asarray(sample, np.float64) / limit))) < 0.05


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_bound_beyond_the_dtype_is_no_bound(dtype):
    space = pc.Box(low=-1e300, high=1e300, shape=(4,), dtype=dtype)
    sample = _draw(space)
    assert bool(jnp.isfinite(sample).all())
    assert bool(space.contains(sample))


def test_64_bit_boxes_are_their_32_bit_cousins():
    space = pc.Box(low=-(2**40), high=2**40, shape=(2,), dtype="int64")
    assert space.struct().dtype == jnp.int32
    assert [bound.tolist() for bound in space.bounds()] == [[INT32_MIN] * 2, [INT32_MAX] * 2]
    assert bool(space.contains(space.sample(key=KEY)))
    assert _draw(pc.Box(dtype="float64")).dtype == jnp.float32
    assert pc.Box(dtype="float64").flatten(jnp.array(1.0)).dtype == jnp.float32


COUNT = 20_000


@pytest.mark.parametrize(
    ("low", "high", "mean", "variance"),
    [
        (-1, 2, 0.5, 9 / 12),
        (3, math.inf, 4, 1),
        (-math.inf, -2, -3, 1),
        (-math.inf, math.inf, 0, 1),
    ],
)
def test_float_boxes_are_drawn_from_the_law_they_say(low, high, mean, variance):
    x = np.asarray(_draw(pc.Box(low=low, high=high, shape=(COUNT,))))
    assert abs(x.mean() - mean) < 5 * math.sqrt(variance / COUNT)
    assert abs(x.var() / variance - 1) < 0.1
    assert x.min() >= low
    assert x.max() <= high


def _shares(space: Any, mask: Any) -> np.ndarray:
    """How often each value of each entry is drawn."""
    keys = jax.random.split(KEY, 4000)
    draws = np.asarray(jax.jit(jax.vmap(lambda key: space.sample(key=key, mask=mask)))(keys))
    draws = draws.reshape(len(keys), -1) - np.ravel(space.start)
    return np.stack([np.mean(draws == value, axis=0) for value in range(4)], -1)


@pytest.mark.parametrize(
    ("space", "mask", "expected"),
    [
        (pc.Discrete(4, start=-1), None, [[0.25] * 4]),
        (pc.Discrete(4, start=-1), [True, False, True, True], [[1 / 3, 0, 1 / 3, 1 / 3]]),
        (pc.Discrete(4, start=-1), [False] * 4, [[0.25] * 4]),
        (pc.Discrete(4, start=-1), [False, False, False, True], [[0, 0, 0, 1]]),
        (pc.Discrete(4, start=2**31 - 4), None, [[0.25] * 4]),
        (pc.Discrete(4, start=2**31 - 4), [True] * 4, [[0.25] * 4]),
        (pc.MultiDiscrete((2, 4), start=(3, -3)), None, [[0.5, 0.5, 0, 0], [0.25] * 4]),
        (
            pc.MultiDiscrete((2, 4), start=(3, -3)),
            ([False, False], [False, True, True, False]),
            [[0.5, 0.5, 0, 0], [0, 0.5, 0.5, 0]],
        ),
        (
            pc.MultiDiscrete((2, 4), start=(3, -3)),
            (None, [False] * 4),
            [[0.5, 0.5, 0, 0], [0.25] * 4],
        ),
        (pc.MultiDiscrete((4,), start=(2**31 - 4,)), None, [[0.25] * 4]),
    ],
    ids=range(10),
)
def test_categories_are_drawn_evenly_among_the_allowed(space, mask, expected):
    rows = jax.tree.map(jnp.array, mask, is_leaf=lambda x: isinstance(x, list))
    shares = _shares(space, rows)
    assert np.all(np.abs(shares - expected) < 5 * 0.5 / math.sqrt(4000))
    assert np.all(shares[np.array(expected) == 0] == 0)


def test_bits_are_fair_and_forbidden_bits_are_zero():
    bits = _draw(pc.MultiBinary((COUNT,)))
    assert abs(float(bits.mean()) - 0.5) < 5 * 0.5 / math.sqrt(COUNT)
    mask = jnp.arange(COUNT) % 2 == 0
    masked = _draw(pc.MultiBinary((COUNT,)), mask)
    assert not bool(masked[1::2].any())
    assert bool((masked[::2] == bits[::2]).all())
    assert not bool(pc.MultiBinary(3).sample(key=KEY, mask=jnp.zeros(3, bool)).any())


def test_masks_are_vmapped_with_the_keys():
    space = pc.Tuple((pc.Discrete(3), pc.MultiDiscrete((2, 2)), pc.Box()))
    masks = (jnp.eye(3, dtype=bool), (jnp.array([[True, False]] * 3), None), None)
    sample = jax.jit(jax.vmap(lambda key, mask: space.sample(key=key, mask=mask)))
    first, second, _ = sample(jax.random.split(KEY, 3), masks)
    assert first.tolist() == [0, 1, 2]
    assert second[:, 0].tolist() == [0, 0, 0]


FLAT = np.array([True, False, False, True, True])
STACKED = np.array([[True, False, True], [False, True, True]])
ROWS = [[True, False], [False, True, True]]


@pytest.mark.parametrize("to_array", [np.asarray, jnp.asarray])
def test_rows_of_a_flat_and_of_a_stacked_mask(to_array):
    for mask in (FLAT, STACKED):
        rows = pc.spaces.rows_of_mask(to_array(mask), (2, 3))
        assert isinstance(rows, tuple)
        assert [row.tolist() for row in rows] == ROWS
        pc.MultiDiscrete((2, 3)).check_mask(rows)
    assert [row.tolist() for row in pc.spaces.rows_of_mask(to_array([True, False, True]), (3,))] == [
        [True, False, True]
    ]


@pytest.mark.parametrize("batch", [(4,), (2,), (4, 5)])
def test_rows_of_a_batch_of_masks(batch):
    for mask in (FLAT, STACKED):
        rows = pc.spaces.rows_of_mask(jnp.broadcast_to(mask, (*batch, *mask.shape)), (2, 3))
        assert [row.shape for row in rows] == [(*batch, 2), (*batch, 3)]
        assert [row[(0,) * len(batch)].tolist() for row in rows] == ROWS


def test_rows_of_a_mask_under_jit_and_vmap():
    rows = jax.jit(jax.vmap(lambda mask: pc.spaces.rows_of_mask(mask, (2, 3))))(jnp.stack([FLAT, ~FLAT]))
    assert [row[0].tolist() for row in rows] == ROWS
    assert [row[1].tolist() for row in rows] == [[False, True], [True, False, False]]


@unchecked
@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.ones(4, bool), r"^mask: got shape \(4,\), expected flat \(5,\) or stacked \(2, 3\)$"),
        (np.ones((3, 3), bool), r"^mask: got shape \(3, 3\), expected flat \(5,\) or stacked \(2, 3\)$"),
        (np.array(True), r"^mask: got shape \(\), expected flat"),
        (np.ones(5), r"^mask: got dtype float\d+, an additive mask\?.*use mask == 0 for additive"),
        (np.ones(5, np.int32), r"^mask: got dtype int32, expected bool .*use mask\.astype\(bool\)$"),
        ([True] * 5, r"^mask: got list, expected a boolean array; use jnp\.array\(mask\)$"),
    ],
)
def test_rows_of_what_is_no_mask_are_refused(mask, message):
    with pytest.raises(MaskError, match=message):
        pc.spaces.rows_of_mask(mask, (2, 3))


D3, MD, MB = pc.Discrete(3), pc.MultiDiscrete((2, 3)), pc.MultiBinary((2, 2))
ADDITIVE = (
    r"got dtype float32, an additive mask\?, expected bool with true = allowed; use mask == 0 for additive "
    r"and mask > 0 for multiplicative masks$"
)
INTEGER = r"got dtype int32, expected bool with true = allowed; use mask\.astype\(bool\)$"
NO_ARRAY = r"expected a boolean array; use jnp\.array\(mask\)$"
CONVERT = (
    r"expected a tuple of 2 boolean rows of lengths \(2, 3\); policy_core\.spaces\.rows_of_mask converts flat and "
    r"stacked masks, JointMask holds joint ones$"
)
T2, T3 = jnp.ones(2, bool), jnp.ones(3, bool)

BAD_MASKS: list[tuple[Any, Any, str]] = [
    (D3, jnp.zeros(3), r"action_mask: " + ADDITIVE),
    (D3, jnp.ones(3, jnp.int32), r"action_mask: " + INTEGER),
    (D3, [True, True, False], r"action_mask: got list, " + NO_ARRAY),
    (D3, jnp.ones(4, bool), r"action_mask: got shape \(4,\), expected \(3,\)$"),
    (D3, jnp.ones((2, 3), bool), r"action_mask: got shape \(2, 3\), expected \(3,\); .* use jax\.vmap$"),
    (D3, jnp.array(True), r"action_mask: got shape \(\), expected \(3,\)$"),
    (D3, (T3,), r"action_mask: got tuple, " + NO_ARRAY),
    (D3, {"a": T3}, r"action_mask: got dict, " + NO_ARRAY),
    (D3, "all", r"action_mask: got str, " + NO_ARRAY),
    (D3, "bool", r"action_mask: got str, " + NO_ARRAY),
    (D3, bool, r"action_mask: got type, " + NO_ARRAY),
    (MD, (jnp.zeros(2), T3), r"action_mask\[0\]: " + ADDITIVE),
    (MD, (T2, jnp.ones(3, jnp.int32)), r"action_mask\[1\]: " + INTEGER),
    (MD, (T2, T2), r"action_mask\[1\]: got shape \(2,\), expected \(3,\)$"),
    (MD, (T2, jnp.ones((5, 3), bool)), r"action_mask\[1\]: got shape \(5, 3\), .* use jax\.vmap$"),
    (MD, (T2,), r"action_mask: got 1 rows, " + CONVERT),
    (MD, [T2, T3], r"action_mask: got list, " + CONVERT),
    (MD, jnp.ones(5, bool), r"action_mask: got ArrayImpl, " + CONVERT),
    (MD, jnp.ones((2, 3), bool), r"action_mask: got ArrayImpl, " + CONVERT),
    (MD, (T2, [True] * 3), r"action_mask\[1\]: got list, " + NO_ARRAY),
    (MB, jnp.zeros((2, 2)), r"action_mask: " + ADDITIVE),
    (MB, jnp.ones((2, 2), jnp.int32), r"action_mask: " + INTEGER),
    (MB, jnp.ones(4, bool), r"action_mask: got shape \(4,\), expected \(2, 2\)$"),
    (MB, jnp.ones((7, 2, 2), bool), r"action_mask: got shape \(7, 2, 2\), expected \(2, 2\); .*jax\.vmap$"),
    (BOX, T2, r"action_mask: got a mask for a Box, which cannot be masked; pass None$"),
    (DICT, {"a": T3}, r"action_mask: got keys \['a'\], expected a dict of \['a', 'b'\], None for no mask$"),
    (DICT, {"a": T3, "b": None, "c": None}, r"action_mask: got keys \['a', 'b', 'c'\], expected a dict of"),
    (DICT, (T3, None), r"action_mask: got tuple, expected a dict of \['a', 'b'\], None for no mask$"),
    (DICT, {"a": T2, "b": None}, r"action_mask\['a'\]: got shape \(2,\), expected \(3,\)$"),
    (DICT, {"a": None, "b": T2}, r"action_mask\['b'\]: got a mask for a Box"),
    (TUPLE, (T2,), r"action_mask: got 1 masks, expected a tuple of 2 masks$"),
    (TUPLE, [T2, None], r"action_mask: got list, expected a tuple of 2 masks$"),
    (TUPLE, (T3, None), r"action_mask\[0\]: got shape \(3,\), expected \(2,\)$"),
    (TUPLE, (T2, T2), r"action_mask\[1\]: got a mask for a Box"),
    (
        SPACES["nested"],
        {"x": (None, (T2, T2)), "y": None},
        r"action_mask\['x'\]\[1\]\[1\]: got shape \(2,\), expected \(3,\)$",
    ),
]


@unchecked
@pytest.mark.parametrize(
    ("space", "mask", "message"),
    BAD_MASKS,
    ids=[f"{i}-{type(space).__name__}" for i, (space, _, _) in enumerate(BAD_MASKS)],
)
def test_what_is_no_mask_of_the_space_is_refused(space, mask, message):
    with pytest.raises(MaskError, match="^" + message):
        space.check_mask(mask)
    with pytest.raises(MaskError, match="^" + message.replace("action_mask", "mask", 1)):
        space.sample(key=KEY, mask=mask)


BAD_SPACES: list[tuple[Any, str]] = [
    (lambda: pc.Box(low=1, high=0), r"^Box\.low: above Box\.high somewhere; expected low <= high$"),
    (lambda: pc.Box(low=(0, 2), high=(1, 1), shape=(2,)), r"^Box\.low: above Box\.high somewhere"),
    (lambda: pc.Box(low=math.inf), r"^Box\.low: above Box\.high"),
    (lambda: pc.Box(high=-math.inf), r"^Box\.low: above Box\.high"),
    (lambda: pc.Box(low=(0, 0), shape=(3,)),
     r"^Box\.low: got 2 bounds for shape \(3,\), expected one number, or 3 in C order$"),
    (lambda: pc.Box(high=(0, 0), shape=()), r"^Box\.high: got 2 bounds for shape \(\), .* or 1 in C order$"),
    (lambda: pc.Box(low=((0, 0),), shape=(1, 2)), r"^Box\.low\[0\]: got tuple \(0, 0\), expected float"),
    (lambda: pc.Box(low=np.zeros(2), shape=(2,)), r"^Box\.low: got ndarray of shape \(2,\)"),
    (lambda: pc.Box(low=math.nan), r"^Box\.low: got NaN"),
    (lambda: pc.Box(shape=(1,) * 17), r"^Box\.shape: got 17 axes, at most 16 are allowed$"),
    (lambda: pc.MultiBinary((2**30, 2**30)), r"^MultiBinary\.shape: .*, expected fewer than 2\^60 numbers$"),
    (lambda: pc.MultiDiscrete((2,), shape=(1,) * 17), r"^MultiDiscrete\.shape: got 17 axes"),
    (lambda: pc.Box(shape=(-1,)), r"^Box\.shape: got \(-1,\), expected sizes of at least 0$"),
    (lambda: pc.Box(shape=[2]), r"^Box\.shape: got list \[2\].*use a tuple$"),
    (lambda: pc.Box(shape=2), r"^Box\.shape: got int 2, expected tuple"),
    (lambda: pc.Box(low=0.5, dtype="int8"), r"^Box\.low, Box\.high: expected whole numbers for int8$"),
    (lambda: pc.Box(high=(1, 1.5), shape=(2,), dtype="uint8"), r"^Box\..*: expected whole numbers for uint8$"),
    (lambda: pc.Box(low=-1, dtype="uint8"), r"^Box\.low, Box\.high: outside of the range of uint8$"),
    (lambda: pc.Box(high=128, dtype="int8"), r"^Box\.low, Box\.high: outside of the range of int8$"),
    (lambda: pc.Box(high=2**32, dtype="uint32"), r"^Box\.low, Box\.high: outside of the range of uint32$"),
    (lambda: pc.Box(dtype="float128"), r"^Box\.dtype: got str 'float128', expected 'float16' or"),
    (lambda: pc.Box(dtype=jnp.float32), r"^Box\.dtype: got .*expected 'float16' or"),
    (lambda: pc.Discrete(0), r"^Discrete\.n: got 0, expected at least one category$"),
    (lambda: pc.Discrete(-1), r"^Discrete\.n: got -1, expected at least one category$"),
    (lambda: pc.Discrete(True), r"^Discrete\.n: got bool True"),
    (lambda: pc.Discrete(2, start=INT32_MAX), r"^Discrete\.n: 2147483647 \+ 2 leaves the range of int32$"),
    (lambda: pc.Discrete(2, start=INT32_MIN - 1), r"^Discrete\.n: .*leaves the range of int32$"),
    (lambda: pc.MultiDiscrete((2, 0)), r"^MultiDiscrete\.nvec: got 0, expected at least one category$"),
    (lambda: pc.MultiDiscrete([2, 3]), r"^MultiDiscrete\.nvec: got list \[2, 3\].*use a tuple$"),
    (lambda: pc.MultiDiscrete((2, 3), shape=(3,)),
     r"^MultiDiscrete: got 2 numbers of categories, shape \(3,\) and 2 starts, expected as many of each$"),
    (lambda: pc.MultiDiscrete((2, 3), start=(0,)), r"^MultiDiscrete: got 2 .* and 1 starts"),
    (lambda: pc.MultiDiscrete((2, 3), start=(0, INT32_MAX)), r"^MultiDiscrete\.nvec: .*range of int32$"),
    (lambda: pc.MultiDiscrete((2, 3), shape=(-1, -2)), r"^MultiDiscrete"),
    (lambda: pc.MultiBinary(-1), r"^MultiBinary\.shape: got \(-1,\), expected sizes of at least 0$"),
    (lambda: pc.MultiBinary((2, -1)), r"^MultiBinary\.shape: got \(2, -1\), expected sizes of at least 0$"),
    (lambda: pc.MultiBinary(2.0), r"^MultiBinary\.shape: got float 2\.0"),
    (lambda: pc.Dict((("a", D3), ("b", D3), ("a", D3))),
     r"^Dict\.spaces: got the names \['a', 'b', 'a'\], expected each once$"),
    (lambda: pc.Dict({1: D3}), r"^Dict\.spaces\[0\]\[0\]: got int 1, expected str"),
    (lambda: pc.Dict({"a": 3}), r"^Dict\.spaces\[0\]\[1\]: got int 3, expected .*Space"),
    (lambda: pc.Dict({"a": pc.MLP()}), r"^Dict\.spaces\[0\]\[1\]: got MLP .*, expected .*Space"),
    (lambda: pc.Tuple([D3]), r"^Tuple\.spaces: got list .*use a tuple$"),
    (lambda: pc.Tuple((D3, None)), r"^Tuple\.spaces\[1\]: got NoneType None, expected .*Space"),
]  # fmt: skip


@unchecked
@pytest.mark.parametrize(("make", "message"), BAD_SPACES, ids=range(len(BAD_SPACES)))
def test_a_space_that_makes_no_sense_is_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


def test_equal_spaces_have_one_spelling():
    assert pc.Box(low=(-1, -1), high=(2, 2), shape=(2,)) == pc.Box(low=-1, high=2, shape=(2,))
    assert pc.Box(low=(3.0,), shape=(1, 1)) == pc.Box(low=3, shape=(1, 1))
    assert pc.MultiDiscrete((2, 3)) == pc.MultiDiscrete((2, 3), shape=(2,), start=(0, 0))
    assert pc.MultiBinary(4) == pc.MultiBinary((4,))
    assert pc.Discrete(4) == pc.Discrete(4, start=0)


def test_bounded_and_is_float():
    assert pc.Box(low=0, high=1).bounded
    assert pc.Box(dtype="int8").bounded
    assert not pc.Box(low=0).bounded
    assert not pc.Box(low=(0, 0), high=(1, math.inf), shape=(2,)).bounded
    assert pc.Box(dtype="bfloat16").is_float
    assert not pc.Box(dtype="uint8").is_float


def test_bounds_are_in_c_order():
    low, high = pc.Box(low=(0, 1, 2, 3), high=9, shape=(2, 2)).bounds()
    assert low.tolist() == [[0, 1], [2, 3]]
    assert high.tolist() == [[9, 9], [9, 9]]
    assert low.dtype == high.dtype == np.float32


def test_every_space_offers_the_protocol():
    assert all(isinstance(space, pc.contract.Space) for space in SPACES.values())
    assert not isinstance(pc.MLP(), pc.contract.Space)


@pytest.mark.usefixtures("unchecked")
def test_actions_of_a_box_of_float64_stay_inside_its_bounds_in_32_bits() -> None:
    ends = np.array([(0.1, 0.3), (-0.3, -0.1), (1e-3, 0.7), (-1 / 3, 1 / 3), (0.1, 0.1 + 1e-9), (0.5, 2.0)])
    space = pc.Box(
        low=tuple(ends[:, 0].tolist()), high=tuple(ends[:, 1].tolist()), shape=(6,), dtype="float64"
    )
    low, high = (np.asarray(bound, np.float64) for bound in space.bounds())
    wide = np.arange(6) != 4  # no float32 is inside this one
    assert (low >= ends[:, 0])[wide].all()
    assert (high <= ends[:, 1])[wide].all()
    assert (low <= high).all()
    np.testing.assert_allclose(low, ends[:, 0], rtol=1.2e-7)
    np.testing.assert_allclose(high, ends[:, 1], rtol=1.2e-7)
    far = {
        pc.NormalHead(): jnp.array([-9.0, 9.0]),
        pc.SquashedNormalHead(): jnp.array([-50.0, 50.0]),
        pc.BetaHead(): jnp.array([-50.0, 50.0]),
        pc.BinsHead(): jnp.array([0, 10]),
    }
    for head, actions in far.items():
        env_actions = [head.env_action(space, jnp.full(6, action)) for action in actions]
        assert all(bool(space.contains(action)) for action in env_actions)
        for action in env_actions:
            inside = (np.asarray(action, np.float64) >= ends[:, 0]) & (
                np.asarray(action, np.float64) <= ends[:, 1]
            )
            assert inside[wide].all()
    # What came in rounded is still an element, and a bound beyond float32 is none.
    assert bool(space.contains(jnp.asarray(ends[:, 0], jnp.float32)))
    assert np.isinf(pc.Box(low=-1e300, dtype="float64").bounds()[0])
    # A box of float32 has bounds of float32.
    assert pc.Box(low=0.1, high=0.3).bounds()[0] == np.float32(0.1)


X64 = """
import jax, jax.numpy as jnp, sys
import policy_core as pc
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
key = jax.random.key(0)
discrete, several = pc.Discrete(3, start=1), pc.MultiDiscrete((2, 3))
masks = {
    discrete: [None, jnp.array([True, False, True])],
    several: [None, several.full_mask(), pc.spaces.JointMask(jnp.ones((2, 3), bool))],
    pc.MultiDiscrete(()): [None, ()],
    pc.MultiBinary(2): [None, jnp.array([True, False])],
    pc.Box(low=0, high=9, dtype="int8"): [None],
    pc.Box(): [None],
}


@jax.jit  # one program, for one for each operation takes long to compile
def drawn():
    found = []
    for space, rows in masks.items():
        for mask in rows:
            element = space.sample(key=key, mask=mask)
            found.append((element, space.unflatten(space.flatten(element)), space.contains(element)))
    return found


spaces = [space for space, rows in masks.items() for _ in rows]
for space, (element, again, inside) in zip(spaces, drawn(), strict=True):
    assert element.dtype == space.struct().dtype, (space, element.dtype)
    assert again.dtype == element.dtype
    assert bool(inside)
tool = pc.Dict({"tool": discrete, "pair": several, "force": pc.Box(shape=(2,))})
config = pc.ActorCriticConfig(
    observation_space=tool,
    action_space=tool,
    actor=pc.MLP((4,)),
    critic=pc.MLP((4,)),
    autoregressive=pc.Autoregressive({"force": ("tool",)}, network=pc.MLP((4,))),
)


@jax.jit
def scored():
    policy, observation = pc.init(config, key=key), tool.sample(key=key)
    _, action, *acted = pc.action_and_value(policy, (), observation, key=key)
    return *acted, *pc.evaluate_action(policy, (), observation, action)[1:]


assert {str(x.dtype) for x in scored()} == {"float32"}
print(pc.verify(sys.argv[1]).deviation)
"""


def test_dtypes_in_64_bits_and_a_file_of_32(tmp_path: Any) -> None:
    """Under strict promotion; the file is of an autoregressive policy."""
    space = pc.Dict({"tool": pc.Discrete(3), "force": pc.Box(shape=(2,))})
    config = pc.ActorCriticConfig(
        observation_space=pc.Box(shape=(2,)),
        action_space=space,
        actor=pc.MLP((4,)),
        critic=pc.MLP((4,)),
        autoregressive=pc.Autoregressive({"force": ("tool",)}, network=pc.MLP((4,))),
    )
    pc.save(tmp_path / "file", pc.init(config, key=jax.random.key(0)))
    root = Path(__file__).parent.parent
    env = {**os.environ, "PYTHONPATH": str(root), "JAX_ENABLE_X64": "1"}
    command = [sys.executable, "-c", X64, str(tmp_path / "file")]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 1e-5
