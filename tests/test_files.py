"""The policy file: what comes back, and everything that must not."""

import functools
import hashlib
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import msgpack
import numpy as np
import pytest
from cases import CONFIGS

import policy_core as pc
from policy_core import _static
from policy_core.errors import FileError, FingerprintError

ROOT = Path(__file__).parent.parent
TINY = {"actor": pc.MLP((2,)), "critic": pc.MLP(())}
CONFIG = pc.ActorCriticConfig(observation_space=pc.Box(shape=(1,)), action_space=pc.Discrete(2), **TINY)
OTHER = pc.ActorCriticConfig(observation_space=pc.Box(shape=(1,)), action_space=pc.Discrete(3), **TINY)


@functools.cache
def _template(config: Any) -> Any:
    return jax.eval_shape(lambda: config.init(key=jax.random.key(0)))


def _random_params(config: Any, batch: tuple[int, ...] = (), seed: int = 0) -> Any:
    """Params of a config with random bits in them: infinities, NaNs, numbers too small to normalise."""
    rng = np.random.default_rng(seed)

    def bits(leaf: Any) -> Any:
        shape = (*batch, *leaf.shape)
        if leaf.dtype == bool:
            return jnp.array(rng.integers(0, 2, shape).astype(bool))
        content = rng.bytes(math.prod(shape) * leaf.dtype.itemsize)
        return jnp.asarray(np.frombuffer(content, leaf.dtype).reshape(shape))

    return jax.tree.map(bits, _template(config))


def _identical(a: Any, b: Any) -> bool:
    """The same tree, dtypes, shapes and bits."""
    if jax.tree.structure(a) != jax.tree.structure(b):
        return False
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return all(
        x.dtype == y.dtype and x.shape == y.shape and np.asarray(x).tobytes() == np.asarray(y).tobytes()
        for x, y in pairs
    )


PARAMS = _random_params(CONFIG)
DATA = pc.to_bytes((PARAMS, CONFIG), metadata={"note": "x"})


@pytest.mark.parametrize("name", CONFIGS)
def test_every_policy_comes_back_bit_for_bit(name):
    policy = (_random_params(CONFIGS[name]), CONFIGS[name])
    params, config = pc.from_bytes(pc.to_bytes(policy))
    assert _identical(params, policy[0])
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(params))
    assert config == CONFIGS[name]


@pytest.mark.parametrize("batch", [(3,), (2, 3), (0,), (1,)])
def test_a_population_comes_back_bit_for_bit(batch, tmp_path):
    policy = (_random_params(CONFIG, batch), CONFIG)
    pc.save(tmp_path / "population", policy)
    params, config = pc.load(tmp_path / "population", CONFIG)
    assert _identical(params, policy[0])
    assert config == CONFIG


@pc.static
class OddPolicy:
    """Params of every kind that a pytree may hold."""

    observation_space: pc.Space[Any] = pc.Box()
    action_space: pc.Space[Any] = pc.Discrete(2)
    collide: bool = False

    def init(self, *, key: Any) -> Any:
        params = {
            "count": jnp.zeros((), jnp.int32),
            "flags": jnp.zeros((2, 3), bool),
            "flag": jnp.zeros((), bool),
            "half": jnp.zeros((3,), jnp.bfloat16),
            "float16": jnp.zeros((1, 2), jnp.float16),
            "bytes": jnp.zeros((4,), jnp.uint8),
            "wide": jnp.zeros((2,), jnp.uint32),
            "complex": jnp.zeros((2,), jnp.complex64),
            "eighth": jnp.zeros((2,), jnp.float8_e4m3fn),
            "empty": jnp.zeros((0, 3)),
            "list": [jnp.zeros(2), (jnp.zeros(()), None)],
            "key": jax.random.key_data(key),
            "é/ü": jnp.zeros(1),
            "": jnp.zeros(1),
        }
        return {**params, "a": {"b": jnp.zeros(1)}, "a/b": jnp.zeros(1)} if self.collide else params

    def initial_state(self, params: Any, *, key: Any = None) -> Any:
        return ()

    def forward(self, params: Any, state: Any, observation: Any, *, action_mask: Any = None) -> Any:
        raise NotImplementedError

    def env_action(self, action: Any) -> Any:
        return action

    def policy_action(self, env_action: Any) -> Any:
        return env_action


@pytest.mark.parametrize("batch", [(), (2,)])
def test_params_of_every_kind_come_back_bit_for_bit(batch):
    policy = (_random_params(OddPolicy(), batch), OddPolicy())
    params, config = pc.from_bytes(pc.to_bytes(policy), OddPolicy())
    assert _identical(params, policy[0])
    assert config == OddPolicy()


def test_two_leaves_of_one_path_are_not_confused():
    policy = (_random_params(OddPolicy(collide=True)), OddPolicy(collide=True))
    assert not _identical(policy[0]["a"]["b"], policy[0]["a/b"])
    try:
        data = pc.to_bytes(policy)
    except FileError:  # to refuse them is right, too
        return
    assert _identical(pc.from_bytes(data)[0], policy[0])


def test_load_takes_the_config_from_the_file_or_checks_it(tmp_path):
    path = tmp_path / "policy.msgpack"
    pc.save(path, (PARAMS, CONFIG))
    for loaded in (pc.load(path), pc.load(str(path)), pc.load(path, CONFIG)):
        assert type(loaded) is tuple
        assert _identical(loaded[0], PARAMS)
        assert loaded[1] == CONFIG
    assert path.read_bytes() == pc.to_bytes((PARAMS, CONFIG))


def test_a_loaded_policy_acts_as_the_saved_one():
    policy = pc.init(CONFIG, key=jax.random.key(0))
    loaded = pc.from_bytes(pc.to_bytes(policy))
    acts = [pc.value(p, (), jnp.ones(1))[1] for p in (policy, loaded)]
    assert acts[0] == acts[1]


def test_equal_pairs_give_equal_bytes():
    again = jax.tree.map(np.asarray, PARAMS)
    reordered = {"critic": again["critic"], "actor": dict(reversed(again["actor"].items()))}
    twin = _static.from_data(_static.to_data(CONFIG))
    assert pc.to_bytes((reordered, twin), metadata={"note": "x"}) == DATA
    metadata = {"b": "1", "a": "2"}
    assert pc.to_bytes((PARAMS, CONFIG), metadata=metadata) == pc.to_bytes(
        (PARAMS, CONFIG), metadata=dict(reversed(metadata.items()))
    )
    assert pc.to_bytes((_random_params(CONFIG, seed=1), CONFIG), metadata={"note": "x"}) != DATA


def test_the_file_is_the_map_that_the_documentation_says():
    document = msgpack.unpackb(DATA)
    assert list(document) == [
        "format", "version", "config", "fingerprint", "batch", "leaves", "metadata", "checksum",
    ]  # fmt: skip
    assert (document["format"], document["version"], document["batch"]) == ("policy_core", 1, [])
    assert document["config"] == _static.encoding_of(CONFIG)
    assert document["fingerprint"] == pc.fingerprint(CONFIG)
    assert document["metadata"] == {"note": "x"}
    assert document["checksum"] == DATA[-32:] == hashlib.sha256(DATA[:-32]).digest()
    bias = np.asarray(PARAMS["actor"]["head"]["bias"])
    assert document["leaves"][0] == ["actor/head/bias", "float32", [2], bias.astype("<f4").tobytes()]
    assert [row[0] for row in document["leaves"]] == sorted(row[0] for row in document["leaves"])


def test_another_config_is_refused_with_both_values():
    with pytest.raises(FingerprintError) as caught:
        pc.from_bytes(DATA, OTHER)
    lines = str(caught.value).splitlines()
    assert lines[0] == "the file holds a policy of another config"
    assert lines[1].split() == ["field", "in", "the", "file", "expected"]
    assert [line.split() for line in lines[2:-1]] == [["action_space.n", "2", "3"]]
    assert lines[-1] == "load without a config to take the one in the file"


def test_every_field_that_differs_is_listed():
    other = pc.ActorCriticConfig(
        observation_space=pc.Box(shape=(1,)), action_space=pc.MultiBinary(2), actor_gain=0.5, **TINY
    )
    with pytest.raises(FingerprintError) as caught:
        pc.from_bytes(DATA, other)
    for left, right in (("0.01", "0.5"), ("policy_core/Discrete", "policy_core/MultiBinary")):
        assert any(left in line and right in line for line in str(caught.value).splitlines())
    assert "actor.hidden" not in str(caught.value)


def test_a_missing_file_is_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        pc.load(tmp_path / "nothing")
    with pytest.raises(FileNotFoundError):
        pc.save(tmp_path / "no folder" / "file", (PARAMS, CONFIG))
    with pytest.raises(IsADirectoryError):
        pc.load(tmp_path)


def _refused(data: bytes) -> bool:
    try:
        pc.from_bytes(data)
    except FileError:
        return True
    return False


@pytest.mark.usefixtures("unchecked")
def test_every_flipped_bit_is_noticed():
    assert not _refused(DATA)
    accepted = []
    data = bytearray(DATA)
    for i in range(len(data)):
        for bit in range(8):
            data[i] ^= 1 << bit
            if not _refused(bytes(data)):
                accepted.append((i, bit))
            data[i] ^= 1 << bit
    assert accepted == []


def test_every_truncation_is_noticed():
    assert [n for n in range(len(DATA)) if not _refused(DATA[:n])] == []


def test_trailing_bytes_are_noticed():
    assert all(_refused(DATA + bytes([byte])) for byte in range(256))
    assert _refused(DATA + DATA)
    assert _refused(b"\0" + DATA)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0",
        b"not a policy",
        b"\x80\x04\x95pickle",
        b"\x91" * 2000,
        b"\xc6\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff",
        b"\xd6\xff\0\0\0\0",
        msgpack.packb([1]),
        msgpack.packb({}),
        msgpack.packb({1: 2}),
        msgpack.packb({"format": "other", "version": 1}),
        msgpack.packb(None),
    ],
    ids=range(13),
)
def test_what_is_no_policy_file_is_refused(data):
    with pytest.raises(FileError, match=r"^not a policy file"):
        pc.from_bytes(data)


def _sealed(document: Any) -> bytes:
    """A document with the right checksum."""
    data = msgpack.packb(document)
    return data[:-32] + hashlib.sha256(data[:-32]).digest()


def _edited(edit: Callable[[dict[str, Any]], Any]) -> bytes:
    document = msgpack.unpackb(DATA)
    edit(document)
    return _sealed(document)


def _with_config(encoding: bytes) -> Callable[[dict[str, Any]], None]:
    def edit(document: dict[str, Any]) -> None:
        document["config"] = encoding
        document["fingerprint"] = hashlib.sha256(b"policy_core config\n" + encoding).digest()

    return edit


def _with_data(change: Callable[[dict[str, Any]], Any]) -> Callable[[dict[str, Any]], None]:
    data = _static.to_data(CONFIG)
    change(data)
    return _with_config(msgpack.packb(data))


def _set(*path: Any) -> Callable[[dict[str, Any]], None]:
    """Set what a path leads to: the last of the arguments is the value."""

    def edit(document: dict[str, Any]) -> None:
        for part in path[:-2]:
            document = document[part]
        document[path[-2]] = path[-1]

    return edit


def _swap_keys(document: dict[str, Any]) -> None:
    items = list(document.items())
    items[4], items[5] = items[5], items[4]
    document.clear()
    document.update(items)


def _new_leaf(document: dict[str, Any]) -> None:
    document["leaves"].append(["zzz", "float32", [1], bytes(4)])


HEAD = r"'actor/head/bias'"
EDITS: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "wrong shape": (_set("leaves", 0, 2, [1, 2]), rf"^file: the leaf {HEAD} is float32\(1, 2\), .*\(2,\)$"),
    "shape that is not the content's": (_set("leaves", 0, 2, [3]), rf"^file: the leaf {HEAD} is float32\(3,\), the config expects float32\(2,\)$"),
    "no shape": (_set("leaves", 0, 2, None), r"^leaves: expected rows of \[path, dtype, shape, bytes\]$"),
    "negative size": (_set("leaves", 0, 2, [-2, -1]), rf"^file: the leaf {HEAD} is float32\(-2, -1\)"),
    "fractional size": (_set("leaves", 0, 2, [2.0]), rf"^leaves: {HEAD} is there twice, or has no shape$"),
    "size that is true": (_set("leaves", 0, 2, [True, 2]), rf"^leaves: {HEAD} is there twice, or has no shape$"),
    "enormous size": (_set("leaves", 0, 2, [2**63, 2**63]), rf"^file: the leaf {HEAD} is float32"),
    "many axes": (_set("leaves", 0, 2, [1] * 100 + [2]), r"^(leaves|file): "),
    "wrong dtype": (_set("leaves", 0, 1, "int32"), rf"^file: the leaf {HEAD} is int32\(2,\), .*float32\(2,\)"),
    "other float": (_set("leaves", 0, slice(1, 3), ["bfloat16", [4]]), rf"^file: the leaf {HEAD} is bfloat16"),
    "object dtype": (_set("leaves", 0, 1, "object"), rf"^file: the leaf {HEAD} is object\(2,\)"),
    "unknown dtype": (_set("leaves", 0, 1, "float33"), rf"^file: the leaf {HEAD} is float33\(2,\)"),
    "no dtype": (_set("leaves", 0, 1, 32), r"^leaves: expected rows"),
    "alias of the dtype": (_set("leaves", 0, 1, "f4"), rf"^file: the leaf {HEAD} is f4\(2,\)"),
    "big-endian dtype": (_set("leaves", 0, 1, ">f4"), r"^(leaves|file): "),
    "missing leaf": (lambda d: d["leaves"].pop(0), rf"^file: the leaf {HEAD} of the config's params is missing$"),
    "no leaves": (_set("leaves", []), rf"^file: the leaf {HEAD} of the config's params is missing$"),
    "extra leaf": (_new_leaf, r"^file: there is a leaf 'zzz', which the config does not have$"),
    "duplicate leaf": (lambda d: d["leaves"].append(d["leaves"][0]), rf"^leaves: {HEAD} is there twice"),
    "other name": (_set("leaves", 0, 0, "actor/head/bia"), rf"^file: the leaf {HEAD} .* is missing$"),
    "name of bytes": (_set("leaves", 0, 0, b"x"), r"^leaves: expected rows"),
    "long row": (lambda d: d["leaves"][0].append(1), r"^leaves: expected rows"),
    "missing byte": (_set("leaves", 0, 3, bytes(7)), rf"^leaves: {HEAD} has 7 bytes, not those of its shape \(2,\)$"),
    "text as content": (_set("leaves", 0, 3, "a" * 8), r"^leaves: expected rows"),
    "map of leaves": (_set("leaves", {}), r"^leaves: expected rows"),
    "batch": (_set("batch", [2]), rf"^file: the leaf {HEAD} is float32\(2,\), .*float32\(2, 2\)$"),
    "negative batch": (_set("batch", [-1]), r"^batch: expected sizes of at least 0"),
    "batch of text": (_set("batch", "a"), r"^batch: expected a list"),
    "no batch": (_set("batch", None), r"^batch: expected a list"),
    "version 2": (_set("version", 2), r"^version: got 2, expected 1; a newer policy_core may read it$"),
    "version of text": (_set("version", "1"), r"^version: got '1', expected 1"),
    "other format": (_set("format", "policy"), r"^not a policy file: it is msgpack, but not of the format"),
    "other order of keys": (_swap_keys, r"^keys: got \[.*'leaves', 'batch'.*\], expected .* in this order$"),
    "missing key": (lambda d: d.pop("metadata"), r"^keys: got .*, expected"),
    "extra key": (lambda d: d.update(checksum=d.pop("checksum"), more=bytes(32)), r"^keys: got .*'more'"),
    "fingerprint of another config": (_set("fingerprint", pc.fingerprint(OTHER)), r"^fingerprint: it is not"),
    "no fingerprint": (_set("fingerprint", None), r"^fingerprint: it is not that of the config in the file$"),
    "config without its fingerprint": (_set("config", _static.encoding_of(OTHER)), r"^fingerprint: it is not"),
    "config of text": (_set("config", "config"), r"^fingerprint: it is not that of the config"),
    "config of another shape": (_with_config(_static.encoding_of(OTHER)), rf"^file: the leaf {HEAD} is"),
    "unknown type": (
        _with_data(_set("type", "nowhere/Policy")),
        r"^config: config: no config type named 'nowhere/Policy' is known here; import the module that defines",
    ),
    "unknown nested type": (
        _with_data(_set("fields", "actor", "type", "nowhere/Net")),
        r"^config: config\.actor: no config type named 'nowhere/Net'",
    ),
    "type of code": (_with_data(_set("type", "os/system")), r"^config: config: no config type named 'os/system'"),
    "unknown field": (_with_data(_set("fields", "wings", 2)), r"^config: .* has no field 'wings'"),
    "unknown activation": (
        _with_data(_set("fields", "actor", "fields", "activation", "unheard")),
        r"^config: MLP\.activation: no activation is registered as 'unheard'.*register_activation",
    ),
    "illegal width": (_with_data(_set("fields", "actor", "fields", "hidden", [0])), r"^config: MLP\.hidden: got"),
    "enormous width": (_with_data(_set("fields", "actor", "fields", "hidden", [2**62])), None),
    "enormous space": (_with_data(_set("fields", "observation_space", "fields", "shape", [2**62, 4])), None),
    "illegal type of field": (_with_data(_set("fields", "actor_gain", "1")), r"^config: ActorCriticConfig\.ac"),
    "no policy": (_with_config(_static.encoding_of(pc.MLP())), r"^config: got MLP, which is not an ActorCritic$"),
    "no config": (_with_config(msgpack.packb(None)), r"^config: got NoneType, which is not an ActorCritic$"),
    "config without fields": (_with_config(msgpack.packb({"a": 1})), r"^config: config: a config is a map of"),
    "config of no msgpack": (_with_config(b"\xc1"), r"^config: damaged: "),
    "empty config": (_with_config(b""), r"^config: damaged: "),
    "deep config": (_with_config(b"\x91" * 5000 + b"\0"), r"^config: "),
    "deep config of maps": (
        _with_config(b"\x82\xa4type\xafpolicy_core/Dict\xa6fields\x81\xa6spaces" * 400 + b"\0"),
        r"^config: ",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", EDITS)
@pytest.mark.usefixtures("unchecked")
@pytest.mark.filterwarnings("ignore:Explicitly requested dtype int64")  # by JAX, for enormous sizes
def test_a_sealed_file_that_contradicts_itself_is_refused(name):
    edit, message = EDITS[name]
    with pytest.raises(FileError, match=message):
        pc.from_bytes(_edited(edit))


def test_an_unedited_sealed_file_is_accepted():
    assert _identical(pc.from_bytes(_edited(lambda document: None))[0], PARAMS)


# NumPy evaluates some of these as Python, warns about some, and dies of the last: by a signal, not an error.
STRANGE_DTYPES = ["(2,", "f4,,", "1" * 500 + "f4", "a", "{'names': []}", "M8[s]", "V4", "O", "", "key<fry>",
                  "float128", "m8[s/0]"]  # fmt: skip


@pytest.mark.usefixtures("unchecked")
def test_no_name_of_a_dtype_reaches_numpy_unchecked():
    # In a process of its own, which the last one would end.
    files = [_edited(_set("leaves", 0, 1, name)) for name in STRANGE_DTYPES]
    script = (
        "import sys, warnings, msgpack, policy_core as pc\n"
        "warnings.simplefilter('error')\n"
        "for data in msgpack.unpackb(sys.stdin.buffer.read()):\n"
        "    try:\n"
        "        pc.from_bytes(data)\n"
        "        print('accepted')\n"
        "    except Exception as error:\n"
        "        print(type(error).__name__, flush=True)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        input=msgpack.packb(files),
        capture_output=True,
        timeout=120,
        check=False,
    )
    got = dict(zip(STRANGE_DTYPES, result.stdout.decode().split(), strict=False))
    assert got == dict.fromkeys(STRANGE_DTYPES, "FileError")
    assert result.returncode == 0, result.stderr


def _without(params: Any, *path: str) -> Any:
    if len(path) == 1:
        return {name: part for name, part in params.items() if name != path[0]}
    return {**params, path[0]: _without(params[path[0]], *path[1:])}


def _replace(params: Any, leaf: Any) -> Any:
    return {**params, "actor": {**params["actor"], "head": {**params["actor"]["head"], "bias": leaf}}}


BAD_PARAMS: dict[str, tuple[Any, str]] = {
    "missing leaf": (_without(PARAMS, "actor", "head", "bias"), rf"^params: the leaf {HEAD} of .* is missing$"),
    "missing part": (_without(PARAMS, "critic"), r"^params: the leaf 'critic/head/bias' .* is missing$"),
    "extra leaf": ({**PARAMS, "more": jnp.ones(1)}, r"^params: there is a leaf 'more', which the config does"),
    "wrong shape": (_replace(PARAMS, jnp.ones(3)), rf"^params: the leaf {HEAD} is float32\(3,\), .*float32\(2,\)$"),
    "wrong dtype": (_replace(PARAMS, jnp.ones(2, jnp.bfloat16)), rf"^params: the leaf {HEAD} is bfloat16\(2,\)"),
    "NumPy's own dtype": (
        _replace(PARAMS, np.ones(2)),
        rf"^params: the leaf {HEAD} is float64.*; enable jax_enable_x64 to use 64-bit params$",
    ),
    "one leaf of a population": (_replace(PARAMS, jnp.ones((4, 2))), r"^params: the leaf '.*' is float32"),
    "params of another config": (_random_params(OTHER), rf"^params: the leaf {HEAD} is float32\(3,\)"),
    "none": (None, rf"^params: the leaf {HEAD} of the config's params is missing$"),
    "shapes": (_template(CONFIG), r"^params: the leaf '"),
    "a number": (_replace(PARAMS, 1.0), rf"^params: the leaf {HEAD}"),
    "a text": (_replace(PARAMS, "ab"), rf"^params: the leaf {HEAD}"),
    "an object": (_replace(PARAMS, np.array([None, None])), rf"^params: the leaf {HEAD}"),
    "a key": (_replace(PARAMS, jax.random.key(0)), rf"^params: the leaf {HEAD}"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_PARAMS)
@pytest.mark.usefixtures("unchecked")
def test_params_that_are_not_the_configs_are_refused_and_nothing_is_written(name, tmp_path):
    params, message = BAD_PARAMS[name]
    with pytest.raises(FileError, match=message):
        pc.save(tmp_path / "file", (params, CONFIG))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("step", ["replace", "fsync", "write"])
def test_a_failed_save_leaves_the_old_file_and_nothing_else(step, tmp_path, monkeypatch):
    path = tmp_path / "policy"
    pc.save(path, (PARAMS, CONFIG))
    before = path.read_bytes()

    def fail(*args: Any, **kwargs: Any) -> Any:
        raise OSError("the disk is full")

    with monkeypatch.context() as patch:
        if step == "write":
            if not Path("/dev/full").exists():
                pytest.skip("there is no /dev/full here")
            opened = open
            patch.setattr(
                "builtins.open",
                lambda file, mode="r", *rest, **more: opened(
                    "/dev/full" if mode == "xb" and opened(file, mode).close() is None else file,
                    mode.replace("x", "w"),
                    *rest,
                    **more,
                ),
            )
        else:
            patch.setattr(os, step, fail)
        with pytest.raises(OSError, match=r"disk is full|No space left"):
            pc.save(path, (_random_params(CONFIG, seed=1), CONFIG))
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes() == before
    assert _identical(pc.load(path)[0], PARAMS)


def test_a_save_replaces_the_old_file_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "policy"
    newer = _random_params(CONFIG, seed=1)
    pc.save(path, (PARAMS, CONFIG))
    pc.save(path, (newer, CONFIG))
    assert list(tmp_path.iterdir()) == [path]
    assert _identical(pc.load(path)[0], newer)


def test_a_name_is_used_as_it_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    newer = _random_params(CONFIG, seed=1)
    pc.save("run.step_100", (PARAMS, CONFIG))
    pc.save("run.step_200", (newer, CONFIG))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run.step_100", "run.step_200"]
    assert _identical(pc.load("run.step_100")[0], PARAMS)
    assert _identical(pc.load(Path("run.step_200"))[0], newer)


def test_a_name_may_be_as_long_as_the_file_system_allows(tmp_path):
    path = tmp_path / ("n" * 255)
    pc.save(path, (PARAMS, CONFIG))
    assert _identical(pc.load(path)[0], PARAMS)


def test_metadata_is_saved_and_must_be_text():
    assert msgpack.unpackb(DATA)["metadata"] == {"note": "x"}
    assert _identical(pc.from_bytes(DATA)[0], PARAMS)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"steps": 3}, r"^metadata: got 'steps': int, expected text$"),
        ({3: "steps"}, r"^metadata: got 3: str, expected text$"),
        ({"a": b"x"}, r"^metadata: got 'a': bytes, expected text$"),
        ({"a": None}, r"^metadata: got 'a': NoneType, expected text$"),
        ({"a": {"b": "c"}}, r"^metadata: got 'a': dict, expected text$"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_metadata_that_is_not_text_is_refused(metadata, message):
    with pytest.raises(FileError, match=message):
        pc.to_bytes((PARAMS, CONFIG), metadata=metadata)


X64 = """
import sys
import jax, jax.numpy as jnp
import policy_core as pc

config = pc.ActorCriticConfig(
    observation_space=pc.Box(shape=(1,)), action_space=pc.Discrete(2),
    actor=pc.MLP((2,)), critic=pc.MLP(()), param_dtype="float64",
)
policy = pc.init(config, key=jax.random.key(0))
assert {leaf.dtype for leaf in jax.tree.leaves(policy[0])} == {jnp.dtype("float64")}
data = pc.to_bytes(policy)
again = pc.from_bytes(data, config)[0]
assert jax.tree.all(jax.tree.map(lambda a, b: a.dtype == b.dtype and (a == b).all(), again, policy[0]))
sys.stdout.buffer.write(data)
"""


# JAX itself warns where it makes a 32-bit leaf of what is said to be 64-bit.
@pytest.mark.filterwarnings("ignore:Explicitly requested dtype float64")
def test_64_bit_params_are_refused_by_a_32_bit_process_with_advice():
    result = subprocess.run(
        [sys.executable, "-c", X64],
        cwd=ROOT,
        env={**os.environ, "JAX_ENABLE_X64": "1"},
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    with pytest.raises(
        FileError,
        match=r"param_dtype: float64 needs 64-bit JAX; set jax_enable_x64, or use float32$",
    ):
        pc.from_bytes(result.stdout)
