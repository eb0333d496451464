"""Random configs, neighbors, spaces of users, hostile numbers and modes of JAX.

`POLICY_CORE_EXAMPLES=1000` runs each of these with as many examples, and not the same each time.
"""

import dataclasses
import hashlib
import math
import os
import time
import tracemalloc
from typing import Any

import cases
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import msgpack
import numpy as np
import pytest
from by_hand import closed, opened
from hypothesis import assume, given, settings
from policy_core_adapters import numpy_runner
from strategies import CONFIGS, SIMPLE_SPACES
from test_modes import traced_under_checks

import policy_core as pc
from policy_core.configs.codec import encoding_of, to_data
from policy_core.errors import ConfigError, FileError, StructureError
from policy_core.trees import params_struct

pytestmark = pytest.mark.usefixtures("unchecked")  # beartype doubles the time to trace

KEY = jax.random.key(0)
MANY = os.environ.get("POLICY_CORE_EXAMPLES")


def examples(few: int) -> Any:
    """Settings: a few examples, the same each time, or as many as are asked for."""
    return settings(max_examples=int(MANY or few), derandomize=not MANY, deadline=None)


def _zeros(struct: Any) -> Any:
    return jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), struct)


def _same(left: Any, right: Any) -> bool:
    """Whether one passes for the other: the width of a float is free."""
    kinds = [jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype.kind in "fV"), x) for x in (left, right)]
    return kinds[0] == kinds[1]


# --- Configs, and params of their neighbors -----------------------------------------------------


@examples(20)
@given(CONFIGS, CONFIGS, st.sampled_from([field.name for field in dataclasses.fields(pc.ActorCriticConfig)]))
def test_params_of_a_neighbor_are_refused_unless_their_shapes_are_equal(config, other, name):
    """One field is that of another config."""
    try:
        neighbor = dataclasses.replace(config, **{name: getattr(other, name)})
    except ConfigError:
        assume(False)
    params, expected = params_struct(config), params_struct(neighbor)
    state = jax.eval_shape(lambda: neighbor.initial_state(_zeros(expected)))
    observation = neighbor.observation_space.struct()

    def act(params: Any, state: Any, observation: Any) -> Any:
        return pc.act((params, neighbor), state, observation)[1]

    if _same(params, expected):
        action = jax.eval_shape(act, params, state, observation)
        assert _same(action, neighbor.action_space.struct())
    else:
        with pytest.raises(StructureError, match=r"^params.*(another config|a population of)"):
            jax.eval_shape(act, params, state, observation)


@examples(8)
@given(CONFIGS)
def test_any_config_goes_into_a_file_and_acts_without_jax(tmp_path_factory, config):
    params = _zeros(params_struct(config))
    data = pc.to_bytes((params, config), self_test=False)
    read, again = pc.from_bytes(data, config)
    assert again == config
    assert jax.tree.structure(read) == jax.tree.structure(params)
    path = tmp_path_factory.mktemp("any") / "file"
    path.write_bytes(data)
    if config.compute_dtype != "float32":
        with pytest.raises(ValueError, match="compute_dtype"):
            numpy_runner.load(path)
        return
    runner = numpy_runner.load(path)
    observation = jax.tree.map(np.asarray, config.observation_space.sample(key=KEY))
    _, action = runner.act(runner.reset(), observation)
    assert bool(config.action_space.contains(jax.tree.map(jnp.asarray, action)))


# --- Spaces of users ----------------------------------------------------------------------------


@pc.static
class Own:
    """A space of a user's own: another one, of which nothing but the contract is known."""

    inner: pc.contract.Space

    flat_size = property(lambda self: self.inner.flat_size)

    def struct(self) -> Any:
        return self.inner.struct()

    def sample(self, *, key: Any, mask: Any = None) -> Any:
        return self.inner.sample(key=key, mask=mask)

    def contains(self, element: Any) -> Any:
        return self.inner.contains(element)

    def flatten(self, element: Any) -> Any:
        return self.inner.flatten(element)

    def unflatten(self, flat: Any) -> Any:
        return self.inner.unflatten(flat)

    def full_mask(self) -> Any:
        return self.inner.full_mask()

    def mask_rows(self, mask: Any) -> Any:
        return self.inner.mask_rows(mask)

    def check_mask(self, mask: Any, name: str = "action_mask") -> None:
        self.inner.check_mask(mask, name)


OWN = SIMPLE_SPACES.map(lambda space: Own(inner=space))
WITH_OWN = st.one_of(
    OWN,
    OWN.map(lambda space: pc.Dict({"own": space, "known": pc.Discrete(2)})),
    OWN.map(lambda space: pc.Tuple((pc.Box(shape=(1,)), space))),
)


@examples(8)
@given(WITH_OWN, st.sampled_from([None, pc.GRU(2)]))
def test_a_space_of_ones_own_is_observed_and_saved(space, memory):
    assert isinstance(space, pc.contract.Space)
    config = pc.ActorCriticConfig(
        observation_space=space, action_space=pc.Discrete(2), memory=memory, actor=pc.MLP((2,))
    )
    params, state = _zeros(params_struct(config)), ()
    if memory is not None:
        state = jax.eval_shape(lambda: pc.reset((params, config)))
    observation = jax.eval_shape(lambda: space.sample(key=KEY))
    _, action = jax.eval_shape(lambda *rest: pc.act((params, config), *rest), state, observation)
    assert action.shape == ()
    batch = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((3, *leaf.shape), leaf.dtype), observation)
    if jax.tree.leaves(batch):
        with pytest.raises(StructureError, match=r"^observation"):
            jax.eval_shape(lambda *rest: pc.act((params, config), *rest), state, batch)
    assert pc.from_bytes(pc.to_bytes((params, config), self_test=False))[1] == config


@examples(8)
@given(WITH_OWN)
def test_there_is_no_head_for_a_space_of_ones_own_and_that_is_said(space):
    with pytest.raises(ConfigError, match=r"action_space.*Own"):
        pc.ActorCriticConfig(observation_space=pc.Box(shape=(1,)), action_space=space)


# --- Hostile configs ----------------------------------------------------------------------------


def _forged(document: dict[str, Any], tree: Any) -> bytes:
    """A file with the config of plain data in the place of its own."""
    encoding = msgpack.packb(tree)
    mark = hashlib.sha256(b"policy_core config\n" + encoding).digest()
    return closed(document | {"config": encoding, "fingerprint": mark})


LARGE = st.sampled_from([17, 2**8, 2**12, 2**16, 2**20, 2**24, 2**31 - 1, 2**40, 2**53, 10**300])


def _places(data: Any, place: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where there is a number or a list in plain data."""
    if isinstance(data, dict):
        return [p for name, x in data["fields"].items() for p in _places(x, (*place, "fields", name))]
    if isinstance(data, list):
        inner = [p for i, x in enumerate(data) for p in _places(x, (*place, i))]
        return [place, *inner] if data else inner
    return [place] if type(data) in (int, float) else []


@examples(25)
@given(CONFIGS, st.data())
def test_a_config_with_hostile_numbers_is_refused_or_loaded_in_no_time(config, data):
    document = opened(pc.to_bytes((_zeros(params_struct(config)), config), self_test=False))
    tree = to_data(config)
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.sampled_from(_places(tree)))
        within: Any = tree
        for step in place[:-1]:
            within = within[step]
        found, large = within[place[-1]], data.draw(LARGE)
        if isinstance(found, list):
            within[place[-1]] = found * min(large, max(2**14 // len(found), 1))
        elif isinstance(found, float):
            within[place[-1]] = float(large)
        else:
            within[place[-1]] = min(large, 2**63)
    encoding = msgpack.packb(tree)
    assume(len(encoding) < 2**22)
    forged = _forged(document, tree)
    tracemalloc.start()
    start = time.process_time()
    try:
        _, loaded = pc.from_bytes(forged)
        assert encoding_of(loaded) == encoding
    except FileError:
        pass
    seconds, (_, most) = time.process_time() - start, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 2**26
    assert seconds < 3  # of which tracemalloc takes most


BASE = cases.config(
    pc.Tuple((pc.Discrete(2), pc.Box(low=0.0, high=1.0, shape=(1,)))),
    observation_space=pc.MultiDiscrete((2, 3)),
    normalize=None,
)
NOT_NEEDED: dict[str, tuple[dict[str, Any], tuple[Any, ...], Any]] = {
    # by title: fields of the config, the place in its plain data, and what a reader must refuse there
    "the horizon of a memory": ({"memory": pc.MinGRU(2, horizon=9.0)}, ("memory", "horizon"), 1.0),
    "its type": ({"memory": pc.MinGRU(2, horizon=9.0)}, ("memory", "horizon"), "x"),
    "a sigma": ({"value_head": pc.HLGaussHead(low=0.0, high=1.0, sigma=2.0)}, ("value_head", "sigma"), 0.0),
    "the end of a grid": ({"value_head": pc.TwoHotHead(low=0.0, high=1.0)}, ("value_head", "high"), -1.0),
    "a large grid": ({"value_head": pc.TwoHotHead(low=0.0, high=1.0)}, ("value_head", "high"), 1e39),
    "the scale of returns": ({"value_head": pc.RegressionHead(scale=2.0)}, ("value_head", "scale"), 0.0),
    "a clip": ({"normalize": pc.Normalize()}, ("normalize", "clip"), -1.0),
    "an epsilon": ({"normalize": pc.Normalize()}, ("normalize", "epsilon"), math.inf),
    "a temperature": ({"temperature": 2.0}, ("temperature",), math.inf),
    "a scale that is none": ({}, ("box_head", "scale"), {"type": "policy_core/Flatten", "fields": {}}),
    "a log_std out of its bounds": ({}, ("box_head", "scale", "log_std"), 30.0),
    "concentrations": ({"box_head": pc.BetaHead()}, ("box_head", "low"), 1e9),
    "a start out of range": ({}, ("action_space", "spaces", 0, "start"), 2**31 - 1),
    "rows and starts": ({}, ("observation_space", "start"), [0]),
    "rows and a shape": ({}, ("observation_space", "shape"), [1]),
    "a gain": ({}, ("actor_gain",), math.inf),
    "a shape": ({}, ("action_space", "spaces", 1, "shape"), [1] * 17),
    "bins of no width": ({"box_head": pc.BinsHead(3)}, ("action_space", "spaces", 1, "high"), 0.0),
}


@pytest.mark.parametrize("title", NOT_NEEDED)
def test_fields_that_acting_does_not_need_are_refused_by_both_readers(title, tmp_path):
    fields, place, bad = NOT_NEEDED[title]
    if "normalize" in fields:
        fields = {**fields, "observation_space": pc.Box(shape=(2,))}
    config = dataclasses.replace(BASE, **fields)
    params = jax.tree.map(np.ones_like, _zeros(params_struct(config)))
    document = opened(pc.to_bytes((params, config), self_test=False))
    tree, path = to_data(config), tmp_path / "file"
    path.write_bytes(closed(document))
    numpy_runner.load(path)
    within: Any = tree["fields"]
    for step in place[:-1]:
        within = within[step]
        within = within["fields"] if isinstance(within, dict) else within
    assert within[place[-1]] != bad
    within[place[-1]] = bad
    path.write_bytes(_forged(document, tree))
    with pytest.raises(FileError, match="config"):
        pc.load(path)
    with pytest.raises(ValueError, match=r"can hold|BinsHead"):
        numpy_runner.load(path)


# --- Modes of JAX -------------------------------------------------------------------------------


@examples(2)
@given(CONFIGS.filter(lambda config: config.param_dtype != "float16"))
def test_any_config_is_traced_under_the_modes_of_jax(config):
    traced_under_checks(config, slow=False)
