"""The parser under hypothesis: whatever the bytes say, a policy or our error, and it shrinks what is not.

The checksum is right in all of these files, so that it hides nothing. Counts by the ten
thousand, with seeds instead of shrinking, are in `mutations.py`.
"""

import copy
import hashlib
from collections.abc import Iterator
from typing import Any

import hypothesis.strategies as st
import jax
import msgpack
import mutations
import pytest
from by_hand import closed, content_of, opened, sealed
from cases import CONFIGS
from hypothesis import HealthCheck, given, settings
from policy_core_adapters import numpy_runner

import policy_core as pc
from policy_core.configs import codec
from policy_core.errors import FileError

pytestmark = pytest.mark.usefixtures("unchecked")  # beartype doubles the time to trace

CONFIG = pc.ActorCriticConfig(
    observation_space=pc.Box(shape=(1,)),
    action_space=pc.Dict({"a": pc.Discrete(2), "b": pc.MultiDiscrete((2, 3))}),
    autoregressive=pc.Autoregressive({"b": ("a",)}, network=pc.MLP(())),
    memory=pc.Stack((pc.GRU(1), pc.WindowAttention(2, window=2, heads=1))),
    actor=pc.MLP((2,)),
    critic=pc.MLP(()),
)
DATA = pc.to_bytes(pc.init(CONFIG, key=jax.random.key(0)), metadata={"note": "x"}, self_test=False)
CONTENT = content_of(DATA)
FEW = settings(
    max_examples=120, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck)
)

LEAVES = (
    st.sampled_from([value for value in mutations.VALUES if not isinstance(value, list | dict)])
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=5)
    | st.binary(max_size=70)
)
LIKE = {  # a value of the same type gets further
    str: st.sampled_from([x for x in mutations.VALUES if isinstance(x, str)]) | st.text(max_size=5),
    int: st.integers(-2, 70) | st.sampled_from([2**31, 2**32, 2**60, 2**63, 2**64 - 1]),
    bytes: st.binary(max_size=70),
}
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)


def _outcome(data: bytes) -> bool:
    """Whether it loads; what does can be saved, and comes back."""
    try:
        loaded = pc.from_bytes(data)
    except FileError:
        return False
    again = pc.to_bytes(loaded, self_test=False)
    assert pc.to_bytes(pc.from_bytes(again), self_test=False) == again, (
        "what loads can be saved, and comes back"
    )
    return True


@st.composite
def _documents(draw: st.DrawFn) -> bytes:
    """The document, or its config, with one or two places changed."""
    document = opened(DATA)
    config = msgpack.unpackb(document["config"])
    root = draw(st.sampled_from([document, config]))
    for _ in range(draw(st.integers(1, 2))):
        places = list(mutations._places(root))
        holder, at = draw(st.sampled_from(places))
        match draw(st.sampled_from(["like", "like", "replace", "delete", "swap", "copy", "add"])):
            case "like":
                holder[at] = draw(LIKE.get(type(holder[at]), VALUES))
            case "replace":
                holder[at] = draw(VALUES)
            case "delete":
                del holder[at]
            case "swap":
                other = draw(
                    st.sampled_from(list(holder) if isinstance(holder, dict) else range(len(holder)))
                )
                holder[at], holder[other] = holder[other], holder[at]
            case "copy":
                source, key = draw(st.sampled_from(places))
                if not isinstance(source[key], dict | list):
                    holder[at] = source[key]
            case "add" if isinstance(holder, dict):
                holder[draw(st.text(max_size=3))] = draw(VALUES)
            case "add":
                holder.insert(at, draw(VALUES))
    if root is config:
        document["config"] = msgpack.packb(config)
        document["fingerprint"] = hashlib.sha256(b"policy_core config\n" + document["config"]).digest()
    return closed(document)


@FEW
@given(_documents())
def test_documents_that_were_changed_load_or_are_refused(data):
    _outcome(data)


@FEW
@given(st.integers(0, len(CONTENT) - 1), st.integers(0, 4), st.binary(max_size=4))
def test_bytes_that_were_changed_load_or_are_refused(at, removed, added):
    _outcome(sealed(CONTENT[:at] + added + CONTENT[at + removed :]))


@FEW
@given(st.binary(max_size=200), st.booleans())
def test_bytes_of_any_kind_are_refused(data, begins):
    assert not _outcome(sealed(DATA[:29] + data if begins else data))


@settings(FEW, max_examples=300)
@given(data=st.one_of(_documents(), st.binary(max_size=100)))
def test_the_runner_without_jax_refuses_with_a_valueerror(data, tmp_path):
    (tmp_path / "file").write_bytes(data)
    try:
        runner = numpy_runner.load(tmp_path / "file")
    except ValueError:
        return
    assert isinstance(runner.reset(), dict | tuple)


def test_the_file_that_is_changed_is_a_good_one():
    assert _outcome(DATA)


def _parts(data: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """The configs in plain data, and where they are."""
    if isinstance(data, dict) and "type" in data:
        yield path, data
    if isinstance(data, dict | list):
        for key, value in data.items() if isinstance(data, dict) else enumerate(data):
            yield from _parts(value, (*path, key))


@pytest.mark.filterwarnings("ignore")  # JAX's own, of sizes that only exist on paper
def test_a_config_in_the_place_of_another_loads_or_is_refused():
    # Protocols ask for methods by name: an encoder passes for a network until it is used.
    whole = [codec.to_data(config) for config in CONFIGS.values()]
    every = {part["type"]: part for data in whole for _, part in _parts(data)}
    places = {tuple(map(str, path)): (data, path) for data in whole for path, _ in _parts(data) if path}
    refused = set()
    for data, path in places.values():
        for name, part in every.items():
            changed = copy.deepcopy(data)
            holder = changed
            for key in path[:-1]:
                holder = holder[key]
            holder[path[-1]] = part
            encoding = msgpack.packb(changed)
            fingerprint = hashlib.sha256(b"policy_core config\n" + encoding).digest()
            if not _outcome(closed({**opened(DATA), "config": encoding, "fingerprint": fingerprint})):
                refused.add(name)
    assert len(places) > 10
    assert refused == set(every)
