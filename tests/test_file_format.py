"""The bytes of a policy file, MUST by MUST, and as a second implementation reads them."""

import hashlib
import math
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import msgpack
import numpy as np
import ormsgpack
import pytest
from by_hand import TABLES, closed, content_of, opened, sealed
from cases import as_frozen

import policy_core as pc
from policy_core.configs import codec
from policy_core.errors import FileError, FingerprintError
from policy_core.files import arrays, configs, document, replay, rows, wire

pytestmark = pytest.mark.usefixtures("unchecked")  # beartype doubles the time to trace

GOLDEN = Path(__file__).parent / "golden"
CONFIG = as_frozen(
    pc.ActorCriticConfig(
        observation_space=pc.Box(shape=(2,)),
        action_space=pc.Dict({"go": pc.Discrete(2), "by": pc.Box(low=-1.0, high=1.0, shape=(1,))}),
        actor=pc.MLP((3,)),
        critic=pc.MLP(()),
    )
)


def _params(batch: tuple[int, ...] = ()) -> Any:
    """Params that depend on nothing but this line."""
    template = jax.eval_shape(lambda: CONFIG.init(key=jax.random.key(0)))
    return jax.tree.map(
        lambda leaf: np.linspace(-1, 1, math.prod(batch + leaf.shape), dtype=leaf.dtype).reshape(
            batch + leaf.shape
        ),
        template,
    )


EXTRA = {
    "key": jax.random.key(7),
    "keys": jax.random.split(jax.random.key(1, impl="rbg"), 3),
    "half": np.arange(3).astype(jnp.bfloat16),
    "eighth": np.arange(4).astype(jnp.float8_e4m3fn),
    "flags": np.array([True, False]),
    "none": np.zeros((0, 3), np.int32),
    "count": 3,
    "rate": 0.5,
    "on": True,
}
DATA = pc.to_bytes((_params((2,)), CONFIG), metadata={"b": "é", "a": ""}, extra=EXTRA)


def test_the_bytes_are_what_the_page_says():
    read = msgpack.unpackb(DATA)
    assert list(read) == [
        "format", "version", "config", "fingerprint", "metadata",
        "batch", "leaves", "self_test", "extra", "blocks", "checksum",
    ]  # fmt: skip
    assert (read["format"], read["version"], read["batch"]) == ("policy_core", 1, [2])
    assert read["config"] == codec.encoding_of(CONFIG)
    assert list(read["metadata"].items()) == [("a", ""), ("b", "é")]
    bias = _params((2,))["actor"]["head"]["by"]["bias"]
    path, dtype, shape, padding, chunks = read["leaves"][0]
    assert (path, dtype, shape, chunks) == (
        "actor/head/by/bias",
        "float32",
        [2, 1],
        [bias.astype("<f4").tobytes()],
    )
    assert set(padding) <= {0}
    for name in TABLES:
        assert [row[0] for row in read[name]] == sorted(row[0] for row in read[name])
        for _, _, _, padding, chunks in read[name]:
            assert len(padding) < 64
            assert not chunks or DATA.index(padding + b"\x91" + msgpack.packb(chunks[0])) >= 0
    assert closed(opened(DATA)) == DATA


def test_a_second_implementation_reads_it_and_computes_the_same():
    read = ormsgpack.unpackb(DATA)
    assert read == msgpack.unpackb(DATA)
    assert read["fingerprint"] == hashlib.sha256(b"policy_core config\n" + read["config"]).digest()
    assert read["fingerprint"] == pc.fingerprint(CONFIG)
    assert sealed(content_of(DATA)) == DATA
    assert ormsgpack.packb(read) == DATA
    assert ormsgpack.packb(ormsgpack.unpackb(read["config"])) == read["config"]


def test_every_leaf_is_aligned_and_a_view_of_the_file(tmp_path):
    pc.save(tmp_path / "file", (_params((2,)), CONFIG), extra=EXTRA)
    read = document.read(*document_bytes(tmp_path / "file"))
    for row in (*read.leaves, *read.self_test, *read.extra):
        if row.chunks:
            assert row.array().ctypes.data % 64 == 0
            assert not row.array().flags.owndata


def document_bytes(path: Path) -> Any:
    from policy_core.files.storage import read_file

    return read_file(path, document.check_start)


def test_large_leaves_are_shared_not_copied(tmp_path):
    config = pc.ActorCriticConfig(
        observation_space=pc.Box(shape=(600,)), action_space=pc.Discrete(2), actor=pc.MLP((600,)), critic=pc.MLP(()),
    )  # fmt: skip
    params = jax.tree.map(
        lambda x: jnp.ones(x.shape), jax.eval_shape(lambda: config.init(key=jax.random.key(0)))
    )
    pc.save(tmp_path / "file", (params, config), self_test=False)
    policy = pc.load(tmp_path / "file")
    kernel = policy[0]["actor"]["tower"]["hidden_0"]["kernel"]
    assert kernel.unsafe_buffer_pointer() % 64 == 0
    donated = jax.jit(lambda p: jax.tree.map(lambda x: x + 1, p), donate_argnums=0)(policy)
    assert donated[0]["actor"]["tower"]["hidden_0"]["kernel"][0, 0] == 2


def test_many_leaves_are_not_there_twice(tmp_path):
    layers = {f"layer_{i:02d}": np.ones((256, 256), np.float32) for i in range(20)}
    pc.save(
        tmp_path / "file",
        (_params(), CONFIG),
        extra={**layers, "count": np.ones(3, np.float32)},
        self_test=False,
    )
    data = document_bytes(tmp_path / "file")[0]
    start = np.frombuffer(data, np.uint8).ctypes.data
    rows = document.read(data).extra
    shared = [start <= x.unsafe_buffer_pointer() < start + len(data) for x in arrays.arrays_of(rows)]
    assert [row.path for row, there in zip(rows, shared, strict=True) if not there] == ["count"], (
        "the small one"
    )


@pytest.mark.parametrize("largest", [1, 7])
def test_leaves_in_several_chunks_come_back(largest, monkeypatch):
    monkeypatch.setattr(rows, "LARGEST_CHUNK", largest)
    monkeypatch.setattr(rows, "_HEADS", {})  # which were read when a chunk was larger
    data = pc.to_bytes((_params((2,)), CONFIG), extra=EXTRA, self_test=False)
    assert max(len(row[4]) for row in ormsgpack.unpackb(data)["leaves"]) == -(-48 // largest)
    loaded = pc.from_bytes(data, CONFIG)[0]
    assert all(map(np.array_equal, jax.tree.leaves(loaded), jax.tree.leaves(_params((2,)))))
    monkeypatch.undo()
    with pytest.raises(FileError, match=r"chunks, not those of its shape"):
        pc.from_bytes(data)


def test_extra_comes_back_in_the_structure_of_like(tmp_path):
    pc.save(tmp_path / "file", (_params(), CONFIG), extra=EXTRA, self_test=False)
    like = {
        **EXTRA,
        "key": jax.ShapeDtypeStruct((), jax.random.key(0).dtype),
        "count": 0,
        "rate": 0.0,
        "on": False,
    }
    got = pc.load_extra(tmp_path / "file", like)
    assert (got["count"], got["rate"], got["on"]) == (3, 0.5, True)
    assert [type(got[name]) for name in ("count", "rate", "on")] == [int, float, bool]
    for name in ("key", "keys"):
        assert got[name].dtype == EXTRA[name].dtype
        assert np.array_equal(jax.random.key_data(got[name]), jax.random.key_data(EXTRA[name]))
    for name in ("half", "eighth", "flags", "none"):
        assert got[name].dtype == EXTRA[name].dtype
        assert np.array_equal(np.asarray(got[name]), EXTRA[name])
    plain = pc.to_bytes((_params(), CONFIG), self_test=False)
    twins = pc.load(tmp_path / "file"), pc.from_bytes(plain)
    assert all(map(np.array_equal, *map(jax.tree.leaves, twins)))


def test_the_state_of_an_optimizer_comes_back(tmp_path):
    import optax

    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(optax.linear_schedule(1e-3, 0, 10)))
    params = jax.tree.map(jnp.asarray, _params())
    state = jax.tree.map(lambda x: x + jnp.ones((), x.dtype), optimizer.init(params))
    pc.save(tmp_path / "file", (params, CONFIG), extra=state, self_test=False)
    got = pc.load_extra(tmp_path / "file", jax.eval_shape(optimizer.init, params))
    assert jax.tree.structure(got) == jax.tree.structure(state)
    assert all(map(np.array_equal, jax.tree.leaves(got), jax.tree.leaves(state)))
    with pytest.raises(FileError, match=r"^extra: the leaf '0/trace/.*' of `like` is missing$"):
        pc.load_extra(tmp_path / "file", optax.sgd(1e-3, momentum=0.9).init(params))


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"f": len}, r"^extra: the leaf 'f' is builtin_function_or_method, expected an array$"),
        ({"s": "text"}, r"^extra: the leaf 's' is str, expected an array$"),
        ({"o": np.array([None])}, r"the leaf 'o' is object; a file holds bool, int8"),
        ({"n": 2**63}, r"^extra: the int 'n' does not fit into 64 bits$"),
        ({"a": {"b": 1}, "a/b": 2}, r"^extra: two leaves have the path 'a/b'"),
        ({"\ud800": 1}, r"cannot be written as msgpack"),
        ({"x" * 5000: 1}, r"^extra: a path is longer than 4096 bytes$"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_extra_that_no_file_holds_is_refused_and_nothing_is_written(extra, message, tmp_path):
    with pytest.raises(FileError, match=message):
        pc.save(tmp_path / "file", (_params(), CONFIG), extra=extra, self_test=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "metadata",
    [{"a" * 300: ""}, {"a": "b" * 2**20}, {str(i): "" for i in range(1025)}],
    ids=["name", "size", "many"],
)
def test_metadata_has_limits(metadata):
    with pytest.raises(FileError, match=r"^metadata: .*at most|^metadata: the name .* has more than"):
        pc.to_bytes((_params(), CONFIG), metadata=metadata, self_test=False)
    with pytest.raises(FileError, match=r"^metadata: "):
        pc.from_bytes(closed({**opened(DATA), "metadata": metadata}))


def test_the_self_test_is_kept_and_checked(tmp_path):
    policy = (jax.tree.map(jnp.asarray, _params((2,))), CONFIG)
    given = np.array([[0.25, -0.5], [2.0, 3.0]])
    pc.save(tmp_path / "file", policy, observations=given)
    assert pc.verify(tmp_path / "file", CONFIG) == pc.files.Verification(10, 0.0, "entropy")
    table = {row[0]: row for row in opened((tmp_path / "file").read_bytes())["self_test"]}
    assert set(table) == {
        "observation", "value", "log_prob", "entropy",
        "action/go", "action/by", "env_action/go", "env_action/by",
    }  # fmt: skip
    assert (table["observation"][2], table["value"][2], table["action/by"][2]) == (
        [10, 2],
        [2, 10],
        [2, 10, 1],
    )
    kept = np.frombuffer(table["observation"][3], "<f4").reshape(10, 2)
    assert np.array_equal(kept[8:], given.astype(np.float32))
    saved = np.frombuffer(table["value"][3], "<f4").reshape(2, 10)
    member = jax.tree.map(lambda x: x[1], policy[0]), CONFIG
    assert np.allclose(pc.value(member, (), kept[8])[1], saved[1, 8], atol=1e-6)


@pytest.mark.parametrize("name", ["value", "log_prob", "entropy", "action/by"])
def test_a_self_test_that_fails_says_by_how_much(name, tmp_path):
    read = opened(DATA)
    row = next(row for row in read["self_test"] if row[0] == name)
    numbers = np.frombuffer(row[3], "<f4").copy()
    numbers[3] += 0.125 * max(1, abs(numbers[3]))
    row[3] = numbers.tobytes()
    (tmp_path / "file").write_bytes(closed(read))
    pc.load(tmp_path / "file")
    message = rf"^self-test: '{name}' is off by 0\.1\d*, at most 0\.001 is allowed, over 8 observations"
    for check in (lambda: pc.verify(tmp_path / "file"), lambda: pc.load(tmp_path / "file", self_test=True)):
        with pytest.raises(FileError, match=message if name != "action/by" else r"is off by"):
            check()
    assert pc.verify(tmp_path / "file", tolerance=10.0).deviation > 0.1
    for tolerance in (math.nan, -1.0):
        with pytest.raises(FileError, match=r"^tolerance: got (nan|-1.0), expected a number of at least 0$"):
            pc.verify(tmp_path / "file", tolerance=tolerance)


def _with_bias_of_the_critic(data: bytes, number: float) -> bytes:
    read = opened(data)
    row = next(row for row in read["leaves"] if row[0] == "critic/head/bias")
    row[3] = np.full(2, number, "<f4").tobytes()
    return closed(read)


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_off_unless_it_was_recorded_there(number, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(_with_bias_of_the_critic(DATA, number))
    for tolerance in (1e-3, math.inf):
        with pytest.raises(FileError, match=r"^self-test: 'value' is off by inf"):
            pc.verify(path, tolerance=tolerance)
    params = jax.tree.map(jnp.asarray, _params((2,)))
    params["critic"]["head"]["bias"] = jnp.full((2, 1), number)
    pc.save(path, (params, CONFIG))
    assert pc.verify(path).deviation == 0
    for other in {0.0, math.nan, math.inf} - {number}:
        path.write_bytes(_with_bias_of_the_critic(path.read_bytes(), other))
        with pytest.raises(FileError, match=r"^self-test: 'value' is off by inf"):
            pc.verify(path)


def test_a_nan_at_another_place_is_another():
    nan, inf = math.nan, math.inf
    of = lambda then, now: replay._deviation(np.array(then), np.array(now))
    assert of([nan, 1.0, inf], [nan, 1.0, inf]) == 0
    for then, now in (([nan, 1.0], [1.0, nan]), ([1.0, 1.0], [1.0, nan]), ([nan], [1.0]), ([inf], [-inf])):
        assert of(then, now) == inf
    assert of([1.0, 4.0], [1.5, 5.0]) == 0.5


@pytest.mark.usefixtures("unchecked")
def test_observations_of_another_space_are_refused():
    with pytest.raises(FileError, match=r"^self_test: observations\[0\]: got shape \(3,\), expected \(2,\)"):
        pc.to_bytes((_params(), CONFIG), observations=np.zeros((1, 3), np.float32))
    with pytest.raises(FileError, match=r"^observations: got some with self_test=False"):
        pc.to_bytes((_params(), CONFIG), observations=np.zeros((1, 2), np.float32), self_test=False)


def test_inspect_tells_what_is_there_without_knowing_the_classes(tmp_path, monkeypatch):
    (tmp_path / "file").write_bytes(DATA)
    monkeypatch.setattr(codec, "CONFIGS", {})
    found = pc.inspect(tmp_path / "file")
    assert found.config == msgpack.unpackb(codec.encoding_of(CONFIG))
    assert (found.fingerprint, found.version, found.batch) == (pc.fingerprint(CONFIG), 1, (2,))
    assert found.leaves[0] == ("actor/head/by/bias", "float32", (2, 1), 8)
    assert {row[:3] for row in found.extra} >= {("key", "key:threefry2x32", ()), ("keys", "key:rbg", (3,))}
    assert (found.self_test, found.metadata, found.nbytes) == (8, {"a": "", "b": "é"}, len(DATA))


# Written once by this test's twin, below; a change that cannot read one cannot read people's files.
GOLDEN_FILES = {"v1-policy.msgpack": (), "v1-population.msgpack": (2,)}


@pytest.mark.parametrize("name", GOLDEN_FILES)
def test_a_golden_file_is_read_and_written_again(name):
    batch, data = GOLDEN_FILES[name], (GOLDEN / name).read_bytes()
    params, config = pc.load(GOLDEN / name, CONFIG)
    assert config == CONFIG
    assert all(map(np.array_equal, jax.tree.leaves(params), jax.tree.leaves(_params(batch))))
    assert pc.verify(GOLDEN / name).deviation < 1e-5
    again = opened(pc.to_bytes((params, config), metadata={"golden": name}, self_test=False))
    assert closed({**again, "self_test": opened(data)["self_test"]}) == data


def test_a_file_of_an_old_version_is_migrated(monkeypatch, tmp_path):
    """As if version 2 had renamed `hidden`, and version 1 had called it `width`."""
    data = (GOLDEN / "v1-policy.msgpack").read_bytes()
    assert layout_version(data) == 1

    def migrate(value: Any) -> Any:
        if isinstance(value, dict) and value.get("type") == "policy_core/MLP":
            return {**value, "fields": {**value["fields"], "activation": "relu"}}
        if isinstance(value, dict):
            return {name: migrate(part) for name, part in value.items()}
        return [migrate(part) for part in value] if isinstance(value, list) else value

    monkeypatch.setattr(document, "VERSION", 2)
    monkeypatch.setitem(configs.MIGRATIONS, 1, migrate)
    params, config = pc.from_bytes(data)
    assert (config.actor.activation, config.critic.activation) == ("relu", "relu")
    assert all(map(np.array_equal, jax.tree.leaves(params), jax.tree.leaves(_params())))
    with pytest.raises(FingerprintError, match=r"actor.activation +'relu' +'tanh'"):
        pc.from_bytes(data, CONFIG)
    assert pc.from_bytes(data, config)[1] is not None
    monkeypatch.undo()
    with pytest.raises(FileError, match=r"^version: got 2, expected 1 to 1"):
        pc.from_bytes(closed({**opened(data), "version": 2}))


def test_the_reader_of_a_file_is_that_of_its_version(monkeypatch):
    data = closed({**opened(DATA), "version": 2})
    first = document.READERS[1]
    chosen = []
    monkeypatch.setattr(document, "VERSION", 2)
    monkeypatch.setitem(document.READERS, 2, lambda data: chosen.append(2) or first(data))
    assert document.read(memoryview(data)).leaves == document.read(memoryview(DATA)).leaves
    assert chosen == [2]


def layout_version(data: bytes) -> int:
    version: int = msgpack.unpackb(data)["version"]
    return version


def _declare(**fields: Any) -> Any:
    """The class `Grown` of a policy with these fields besides, as if its source had changed."""
    inner = CONFIG.init, CONFIG.forward

    class Grown:
        observation_space: pc.contract.Space[Any] = CONFIG.observation_space
        action_space: pc.contract.Space[Any] = CONFIG.action_space

        def init(self, *, key: Any) -> Any:
            return inner[0](key=key)

        def initial_state(self, params: Any, *, key: Any = None) -> Any:
            return ()

        def forward(self, params: Any, state: Any, observation: Any, *, action_mask: Any = None) -> Any:
            return inner[1](params, state, observation, action_mask=action_mask)

        def env_action(self, action: Any) -> Any:
            return CONFIG.env_action(action)

        def policy_action(self, env_action: Any) -> Any:
            return CONFIG.policy_action(env_action)

    for name, default in fields.items():
        Grown.__annotations__[name] = float
        setattr(Grown, name, default)
    Grown.__qualname__ = "Grown"
    return pc.static(Grown)


def test_a_field_that_comes_later_leaves_old_files_and_fingerprints_as_they_are():
    old = _declare()()
    data, print_of_old = pc.to_bytes((_params(), old), self_test=False), pc.fingerprint(old)
    new = _declare(dropout=pc.added(0.0))
    assert pc.fingerprint(new()) == print_of_old == pc.fingerprint(new(dropout=0))
    assert pc.from_bytes(data, new())[1] == new()
    assert pc.fingerprint(new(dropout=0.5)) != print_of_old
    with pytest.raises(FingerprintError, match=r"dropout +0.0 +0.5"):
        pc.from_bytes(data, new(dropout=0.5))
    again = pc.to_bytes((_params(), new(dropout=0.5)), self_test=False)
    assert pc.from_bytes(again)[1].dropout == 0.5
    assert pc.to_bytes((_params(), new()), self_test=False) == data
    # With an ordinary default the file loads all the same, the fingerprint is a new one.
    plain = _declare(dropout=0.0)
    assert pc.from_bytes(data, plain())[1] == plain()
    assert pc.fingerprint(plain()) != print_of_old


@pytest.mark.parametrize(
    "value",
    [0, 1, 127, 128, 255, 256, 2**16 - 1, 2**16, 2**32 - 1, 2**32, 2**63 - 1, -1, -32, -33, -128, -129, -(2**15),
     -(2**15) - 1, -(2**31), -(2**31) - 1, -(2**63), 0.5, True, False, None, "", "x" * 31, "x" * 32, "x" * 256, [],
     [1] * 15, [1] * 16, [[]], {"a": 1}, {str(i): [] for i in range(20)}],
    ids=lambda value: repr(value)[:20],
)  # fmt: skip
def test_the_reader_reads_what_msgpack_writes(value):
    reader = wire.Reader(memoryview(msgpack.packb(value)))
    assert reader.value(wire.Budget(1000, 5), "it") == value
    reader.end("it")
    for cut in range(len(msgpack.packb(value))):
        short = wire.Reader(memoryview(msgpack.packb(value)[:cut]))
        with pytest.raises(FileError, match=r"^it: "):
            short.value(wire.Budget(1000, 5), "it")


LONGER = [b"\xcc\x01", b"\xcd\x00\x80", b"\xce\x00\x00\x01\x00", b"\xcf" + bytes(4) + b"\xff" * 4, b"\xd0\xff",
          b"\xd0\x01", b"\xd1\xff\x80", b"\xd2\xff\xff\x80\x00", b"\xd3" + b"\xff" * 8, b"\xd9\x01a", b"\xda\x00\x20" + b"a" * 32,
          b"\xdc\x00\x01\x00", b"\xdd\x00\x00\x00\x01\x00", b"\xde\x00\x01\xa1a\x00", b"\xca" + bytes(4), b"\xc4\x00", b"\xc1",
          b"\xc7\x00\x01", b"\xd4\x01\x00", b"\xd6\xff" + bytes(4), b"\x82\xa1a\x00\xa1a\x00", b"\x81\x01\x02", b"\xa1\xff"]  # fmt: skip


@pytest.mark.parametrize("data", LONGER, ids=bytes.hex)
def test_the_reader_reads_no_second_spelling(data):
    reader = wire.Reader(memoryview(data))
    with pytest.raises(FileError, match=r"^it: "):
        reader.value(wire.Budget(100, 5), "it")
