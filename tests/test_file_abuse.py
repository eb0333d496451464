"""Policy files that are damaged, forged or hostile: our error, soon, and nothing else."""

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import by_hand
import jax
import jax.numpy as jnp
import msgpack
import mutations
import numpy as np
import pytest
from by_hand import closed, content_of, opened, sealed
from policy_core_adapters import numpy_runner

import policy_core as pc
from policy_core.configs import codec
from policy_core.errors import FileError
from policy_core.files import document as layout
from policy_core.files import rows as tables

pytestmark = pytest.mark.usefixtures("unchecked")  # beartype doubles the time to trace

ROOT = Path(__file__).parent.parent
TINY = {"actor": pc.MLP((2,)), "critic": pc.MLP(())}
CONFIG = pc.ActorCriticConfig(observation_space=pc.Box(shape=(1,)), action_space=pc.Discrete(2), **TINY)
OTHER = pc.ActorCriticConfig(observation_space=pc.Box(shape=(1,)), action_space=pc.Discrete(3), **TINY)
PARAMS = jax.tree.map(
    lambda leaf: jnp.arange(1, leaf.size + 1, dtype=leaf.dtype).reshape(leaf.shape) / 8,
    jax.eval_shape(lambda: CONFIG.init(key=jax.random.key(0))),
)
DATA = pc.to_bytes((PARAMS, CONFIG), metadata={"note": "x"}, self_test=False)


def _identical(a: Any, b: Any) -> bool:
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return all(x.dtype == y.dtype and np.asarray(x).tobytes() == np.asarray(y).tobytes() for x, y in pairs)


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


def _edited(edit: Callable[[dict[str, Any]], Any]) -> bytes:
    document = opened(DATA)
    edit(document)
    return closed(document)


def _with_config(encoding: bytes) -> Callable[[dict[str, Any]], None]:
    def edit(document: dict[str, Any]) -> None:
        document["config"] = encoding
        document["fingerprint"] = hashlib.sha256(b"policy_core config\n" + encoding).digest()

    return edit


def _with_data(change: Callable[[dict[str, Any]], Any]) -> Callable[[dict[str, Any]], None]:
    data = codec.to_data(CONFIG)
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
    items[5], items[6] = items[6], items[5]
    document.clear()
    document.update(items)


def _new_leaf(document: dict[str, Any]) -> None:
    document["leaves"].append(["zzz", "float32", [1], bytes(4)])


HEAD = r"'actor/head/bias'"
EDITS: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "wrong shape": (_set("leaves", 0, 2, [1, 2]), rf"^file: the leaf {HEAD} is float32\(1, 2\), expected float32\(2,\) of"),
    "shape that is not the content's": (_set("leaves", 0, 2, [3]), rf"^leaves: the leaf {HEAD} has 8 bytes in a chunk, not those of its shape \(3,\)$"),
    "no shape": (_set("leaves", 0, 2, None), rf"^leaves: the leaf {HEAD}: expected a list at byte \d+, got the msgpack tag 0xc0$"),
    "negative size": (_set("leaves", 0, 2, [-2, -1]), rf"^leaves: the leaf {HEAD}: expected a size at byte"),
    "fractional size": (_set("leaves", 0, 2, [2.0]), rf"^leaves: the leaf {HEAD}: expected a size at byte \d+, got the msgpack tag 0xcb$"),
    "size that is true": (_set("leaves", 0, 2, [True, 2]), rf"^leaves: the leaf {HEAD}: expected a size at byte \d+, got the msgpack tag 0xc3$"),
    "enormous size": (_set("leaves", 0, 2, [2**63, 2**63]), rf"^leaves: the leaf {HEAD}: 9223372036854775808 is larger than any size$"),
    "many axes": (_set("leaves", 0, 2, [1] * 100 + [2]), r"a list of 101, at most 32 are allowed$"),
    "wrong dtype": (_set("leaves", 0, 1, "int32"), rf"^file: the leaf {HEAD} is int32\(2,\), .*float32\(2,\)"),
    "other float": (_set("leaves", 0, slice(1, 3), ["bfloat16", [4]]), rf"^file: the leaf {HEAD} is bfloat16"),
    "object dtype": (_set("leaves", 0, 1, "object"), r"is of the unknown dtype 'object'$"),
    "unknown dtype": (_set("leaves", 0, 1, "float33"), r"is of the unknown dtype 'float33'$"),
    "no dtype": (_set("leaves", 0, 1, 32), rf"^leaves: the leaf {HEAD}: expected text at byte"),
    "alias of the dtype": (_set("leaves", 0, 1, "f4"), r"is of the unknown dtype 'f4'$"),
    "big-endian dtype": (_set("leaves", 0, 1, ">f4"), r"is of the unknown dtype '>f4'$"),
    "missing leaf": (lambda d: d["leaves"].pop(0), rf"^file: the leaf {HEAD} of the config's params is missing$"),
    "no leaves": (_set("leaves", []), rf"^file: the leaf {HEAD} of the config's params is missing$"),
    "extra leaf": (_new_leaf, r"^file: there is a leaf 'zzz', which is none of the config's params$"),
    "duplicate leaf": (lambda d: d["leaves"].append(d["leaves"][0]), rf"^leaves: the leaf {HEAD} is there twice, or out of order$"),
    "other name": (_set("leaves", 0, 0, "actor/head/bia"), rf"^file: the leaf {HEAD} .* is missing$"),
    "name of bytes": (_set("leaves", 0, 0, b"x"), r"^leaves: expected text at byte"),
    "long row": (lambda d: d["leaves"][0].append(1), r"^leaves: the leaf"),
    "missing byte": (_set("leaves", 0, 3, bytes(7)), rf"^leaves: the leaf {HEAD} has 7 bytes in a chunk, not those of its shape \(2,\)$"),
    "text as content": (_set("leaves", 0, 3, "a" * 8), r"^leaves: expected rows of \[path, dtype, shape, padding, chunks\]$"),
    "map of leaves": (_set("leaves", {}), r"^leaves: expected a list at byte \d+, got the msgpack tag 0x80$"),
    "batch": (_set("batch", [2]), rf"^file: the leaf {HEAD} is float32\(2,\), expected float32\(2, 2\) of"),
    "negative batch": (_set("batch", [-1]), r"^batch: expected a size at byte"),
    "batch of text": (_set("batch", "a"), r"^batch: expected a list at byte"),
    "no batch": (_set("batch", None), r"^batch: expected a list at byte"),
    "version 2": (_set("version", 2), r"^version: got 2, expected 1 to 1; a newer policy_core may read it$"),
    "version of text": (_set("version", "1"), r"^version: expected a size at byte"),
    "other format": (_set("format", "policy"), r"^not a policy file"),
    "other order of keys": (_swap_keys, r"^keys: got 'leaves', expected 'batch'$"),
    "missing key": (lambda d: d.pop("metadata"), r"^not a policy file"),
    "extra key": (lambda d: d.update(more=bytes(32)), r"^not a policy file"),
    "fingerprint of another config": (_set("fingerprint", pc.fingerprint(OTHER)), r"^fingerprint: it is not"),
    "no fingerprint": (_set("fingerprint", None), r"^fingerprint: expected bytes at byte"),
    "config without its fingerprint": (_set("config", codec.encoding_of(OTHER)), r"^fingerprint: it is not"),
    "config of text": (_set("config", "config"), r"^config: expected bytes at byte"),
    "config of another shape": (_with_config(codec.encoding_of(OTHER)), rf"^file: the leaf {HEAD} is"),
    "unknown type": (
        _with_data(_set("type", "nowhere/Policy")),
        r"^config: config: no config type named 'nowhere/Policy' is registered; import the module that defines",
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
    "no policy": (_with_config(codec.encoding_of(pc.MLP())), r"^config: got MLP, which is not an ActorCritic$"),
    "no config": (_with_config(msgpack.packb(None)), r"^config: got NoneType, which is not an ActorCritic$"),
    "config without fields": (_with_config(msgpack.packb({"a": 1})), r"^config: a config is a map of 'type'"),
    "config of no msgpack": (_with_config(b"\xc1"), r"^config: expected a value at byte 0, got the msgpack tag 0xc1$"),
    "empty config": (_with_config(b""), r"^config: truncated, the bytes end here$"),
    "deep config": (_with_config(b"\x91" * 5000 + b"\0"), r"^config: nested deeper than 64$"),
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


MUTANT = pc.to_bytes(mutations.policy((16,)), metadata={"note": "x"}, self_test=False)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.filterwarnings("ignore")  # JAX's own, of sizes that only exist on paper
def test_random_damage_is_refused_or_changes_nothing():
    limits: dict[str, float] = {}
    counts = mutations.run_structural(MUTANT, 400, seed=1, limits=limits)
    assert counts["kept other"] == 0
    assert counts["resealed refused"] > 300
    assert counts["resealed other"] > 0  # legal changes load: the mutations do reach that deep
    counts = mutations.run_bytes(MUTANT, 400, seed=1, limits=limits)
    assert counts["resealed refused"] > 100
    assert (
        limits["seconds"] < 0.5
    )  # 0.02 alone; here Python's collector may have all of a suite to go through
    assert mutations.most_memory(MUTANT, 100, seed=2) < 10 * 2**20


HUGE = b"\xdd\x02\x62\x5a\x00" + b"\x90" * 40_000_000


def _deep(depth: int) -> bytes:
    return b"\x91" * depth + b"\0"


def _config_of(data: Any) -> bytes:
    return closed({**opened(DATA), **_config(msgpack.packb(data))})


def _config(encoding: bytes) -> dict[str, bytes]:
    return {"config": encoding, "fingerprint": hashlib.sha256(b"policy_core config\n" + encoding).digest()}


def _policy_data(**fields: Any) -> Any:
    data = codec.to_data(CONFIG)
    data["fields"] |= fields
    return data


def _space(**fields: Any) -> Any:
    return {"type": "policy_core/Box", "fields": {"dtype": "float32", "high": 1.0, "low": -1.0, **fields}}


def _of(name: str, **fields: Any) -> Any:
    return {"type": f"policy_core/{name}", "fields": dict(sorted(fields.items()))}


def _tuple(*parts: Any) -> Any:
    return _of("Tuple", spaces=list(parts))


def _nested(space: Any, depth: int) -> Any:
    return _tuple(_nested(space, depth - 1)) if depth else space


def _dependent(*parents: Any) -> Any:
    network = codec.to_data(pc.MLP(()))
    return _of("Autoregressive", masks=[], network=network, parents=sorted(map(list, parents), key=str))


def _impala(**fields: Any) -> Any:
    return _of("ImpalaCNN", **{"blocks": 1, "channels": [1], "size": 1, **fields})


CONFIG_DATA = codec.to_data(CONFIG)
ONE, IMAGE = _of("Discrete", n=1, start=0), _space(dtype="uint8", low=0.0, high=255.0, shape=[64, 64, 3])
BITS = _space(dtype="uint8", low=0.0, high=1.0, shape=[2**19])
CATEGORIES = _of("MultiDiscrete", nvec=[1] * 80_000, shape=[80_000], start=[0] * 80_000)
# Configs that take from seconds to hours to build, in files of a few leaves.
LARGE: dict[str, Callable[[], Any]] = {
    "a million blocks": lambda: {"observation_space": IMAGE, "encoder": _impala(blocks=10**6)},
    "100,000 stages": lambda: {"observation_space": IMAGE, "encoder": _impala(channels=[1] * 10**5)},
    "100 stages of 100 blocks": lambda: {
        "observation_space": IMAGE, "encoder": _impala(channels=[1] * 100, blocks=100)
    },
    "500 encoders": lambda: {
        "observation_space": _tuple(*[IMAGE] * 500),
        "encoder": _of("Parts", encoders=[], rest=_impala(channels=[1] * 10, blocks=10)),
    },
    "a parent of 2^22 bits": lambda: {
        "action_space": _tuple(_of("MultiBinary", shape=[2**22]), ONE), "autoregressive": _dependent((1, [0]))
    },
    "a parent of 2^60 bits": lambda: {
        "action_space": _tuple(_of("MultiBinary", shape=[2**60]), ONE), "autoregressive": _dependent((1, [0]))
    },
    "a parent of 16,000 bits": lambda: {
        "action_space": _tuple(_of("MultiBinary", shape=[16_000]), ONE), "autoregressive": _dependent((1, [0]))
    },
    "400 chained parts": lambda: {
        "action_space": _tuple(*[ONE] * 400),
        "autoregressive": _dependent(*((i, list(range(i))) for i in range(1, 400))),
    },
    "250 parts that see 32 each": lambda: {
        "action_space": _tuple(*[ONE] * 250),
        "autoregressive": _dependent(*((i, list(range(32))) for i in range(32, 250))),
    },
    "20 boxes of 2^19 integers": lambda: {"action_space": _tuple(*[BITS] * 20)},
    "500 boxes of 2^14 integers": lambda: {
        "action_space": _tuple(*[_space(dtype="uint8", low=0.0, high=1.0, shape=[2**14])] * 500)
    },
    "20 boxes of 2^19 bins": lambda: {
        "action_space": _tuple(*[_space(shape=[2**19])] * 20), "box_head": _of("BinsHead", bins=2)
    },
    "500 dependent boxes": lambda: {
        "action_space": _tuple(*[_space(dtype="uint8", low=0.0, high=1.0, shape=[2**14])] * 500),
        "autoregressive": _dependent(),
    },
    "10,000 memories": lambda: {
        "memory": _of("Stack", layers=[codec.to_data(pc.GRU(1))] * 10_000, residual=False)
    },
    "43,000 parts of an action": lambda: {"action_space": _tuple(*[ONE] * 43_000)},
    "2,000 parts of an action": lambda: {"action_space": _tuple(*[ONE] * 2_000)},
    "20,000 normalized boxes": lambda: {
        "observation_space": _tuple(*[_space(shape=[1])] * 20_000), "normalize": codec.to_data(pc.Normalize())
    },
    "2,000 normalized boxes": lambda: {
        "observation_space": _tuple(*[_space(shape=[1])] * 2_000), "normalize": codec.to_data(pc.Normalize())
    },
    "a window of two million": lambda: {"memory": _of("WindowAttention", heads=1, size=1, window=2 * 10**6)},
    "a window of 2^20": lambda: {"memory": _of("WindowAttention", heads=1, size=1, window=2**20)},
    "a state of 2^40 numbers": lambda: {"memory": _of("WindowAttention", heads=1, size=2**20, window=2**20)},
    "10,000 axes": lambda: {"observation_space": _space(shape=[3] * 10_000)},
    "10,000 axes of bits": lambda: {"observation_space": _of("MultiBinary", shape=[3] * 10_000)},
    "240,000 numbers": lambda: {"action_space": CATEGORIES},
    "240,000 numbers within 15 spaces": lambda: {"observation_space": _nested(CATEGORIES, 15)},
    "an observation of 2^30 categories": lambda: {"observation_space": _of("Discrete", n=2**30, start=0)},
}  # fmt: skip

HOSTILE: dict[str, Callable[[], bytes]] = {
    "40 MB of empty lists": lambda: HUGE,
    "40 MB of empty lists in a file": lambda: _resealed(b"\xa6leaves", HUGE),
    "40 MB of empty lists as a config": lambda: closed({**opened(DATA), **_config(HUGE)}),
    "4 MB of empty lists as a config": lambda: closed({**opened(DATA), **_config(b"\xdd\0\x3f\xff\0" + b"\x90" * 0x3FFF00)}),
    "a million levels": lambda: _deep(10**6),
    "a million levels as metadata": lambda: _resealed(b"\xa8metadata", _deep(10**6)),
    "a million levels as a config": lambda: closed({**opened(DATA), **_config(_deep(10**6))}),
    "leaves of 2^32 rows": lambda: _resealed(b"\xa6leaves", b"\xdd\xff\xff\xff\xff"),
    "a chunk of 2^32 bytes": lambda: _resealed(b"\xa5batch", b"\xc6\xff\xff\xff\xff"),
    "metadata of 2^32 names": lambda: _resealed(b"\xa8metadata", b"\xdf\xff\xff\xff\xff"),
    "an extension": lambda: _resealed(b"\xa5batch", b"\xc7\x01\x05x"),
    "a time stamp": lambda: _resealed(b"\xa5batch", b"\xd6\xff" + bytes(4)),
    "a duplicate name": lambda: _resealed(b"\xa8metadata", b"\x82\xa1a\xa1b\xa1a\xa1c"),
    "a size of 2^60": lambda: closed(_with_shape([2**60])),
    "sizes that overflow to what is there": lambda: closed(_with_shape([2**32, 2**32, 2])),
    "a size of 2^60 beside 0": lambda: closed(_with_shape([2**60, 2**60, 0])),
    "a tower of 2^18 layers": lambda: _config_of(_policy_data(actor=_tower([1] * 200_000))),
    "a tower of 2,000 layers": lambda: _config_of(_policy_data(actor=_tower([1] * 2_000))),
    "an action of 2^40 numbers": lambda: _config_of(_policy_data(action_space=_space(shape=[2**40]))),
    "an integer action of 2^30 numbers": lambda: _config_of(
        _policy_data(action_space=_space(dtype="uint8", shape=[2**30], low=0.0, high=1.0))
    ),
    "a squashed action of 2^30 numbers": lambda: _config_of(
        _policy_data(
            action_space=_space(shape=[2**30]),
            box_head=codec.to_data(pc.SquashedNormalHead()),
        )
    ),
    "an observation of 2^60 numbers": lambda: _config_of(_policy_data(observation_space=_space(shape=[2**60]))),
    "a choice of 2^30": lambda: _config_of(
        _policy_data(action_space={"type": "policy_core/Discrete", "fields": {"n": 2**30, "start": 0}})
    ),
}  # fmt: skip


def _tower(hidden: list[int]) -> Any:
    return {"type": "policy_core/MLP", "fields": {**codec.to_data(pc.MLP())["fields"], "hidden": hidden}}


def _with_shape(shape: list[int]) -> dict[str, Any]:
    document = opened(DATA)
    document["leaves"][0][2] = shape
    return document


def _resealed(key: bytes, value: bytes) -> bytes:
    """The file with other bytes behind a key, and nothing but the checksum after them."""
    return sealed(DATA[: DATA.index(key) + len(key)] + value)


HOSTILE_SCRIPT = """
import re, sys, time, warnings
if sys.argv[1] == "numpy_runner":
    from policy_core_adapters.numpy_runner import load
else:
    import policy_core as pc
    load = getattr(pc, sys.argv[1])
def peak():  # of this process alone: that of getrusage begins with the parent's
    return int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
warnings.simplefilter("ignore")
load(sys.argv[2])  # what JAX needs at its first use is no part of it
for path in sys.argv[3:]:
    open("/proc/self/clear_refs", "w").write("5")  # the peak begins anew
    before = peak()
    start = time.process_time()
    try:
        load(path)
        result = "loaded"
    except ValueError:
        result = "refused"
    except BaseException as error:
        result = type(error).__name__
    seconds = time.process_time() - start  # of the processor, whatever else the machine does
    print(result, seconds, (peak() - before) * 1024, flush=True)
"""


@pytest.mark.parametrize("reader", ["load", "verify", "numpy_runner"])
def test_hostile_files_are_refused_soon_and_cheaply(reader, tmp_path):
    # The largest last: the peak of a process only grows.
    (tmp_path / "good").write_bytes(_edited(lambda document: None))
    files = {name: make() for name, make in HOSTILE.items()}
    files |= {name: _config_of(_policy_data(**make())) for name, make in LARGE.items()}
    names = sorted(files, key=lambda name: len(files[name]))
    for i, name in enumerate(names):
        (tmp_path / str(i)).write_bytes(files[name])
    paths = [str(tmp_path / str(i)) for i in range(len(names))]
    result = subprocess.run(
        [sys.executable, "-c", HOSTILE_SCRIPT, reader, str(tmp_path / "good"), *paths],
        cwd=ROOT / "adapters",
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    rows = dict(zip(names, (line.split() for line in result.stdout.splitlines()), strict=False))
    assert len(rows) == len(names), result.stderr
    assert {name: row[0] for name, row in rows.items()} == dict.fromkeys(names, "refused")
    slow = {name: row[1] for name, row in rows.items() if float(row[1]) > 0.5}
    assert slow == {}
    large = {name: row[2] for name, row in rows.items() if float(row[2]) > 2 * len(files[name]) + 2**25}
    assert large == {}
    if "POLICY_CORE_FULL" in os.environ:
        for name, row in rows.items():
            print(f"{name:40} {float(row[1]):6.3f} s {float(row[2]) / 1e6:6.1f} MB")


def test_another_config_than_expected_is_told_without_building_it(monkeypatch):
    large = codec.from_data(_policy_data(observation_space=_space(shape=[3])))
    monkeypatch.setattr(pc.files.configs, "from_data", None)  # type: ignore[attr-defined]
    with pytest.raises(pc.errors.FingerprintError, match=r"observation_space\.shape +\(1,\) +\(3,\)"):
        pc.from_bytes(DATA, large)
    unknown = _config_of(_policy_data(actor=_of("Nowhere", widths=[1] * 100_000)))
    with pytest.raises(pc.errors.FingerprintError, match=r"actor +'?policy_core/Nowhere") as caught:
        pc.from_bytes(unknown, CONFIG)
    assert len(str(caught.value)) < 5000


def test_a_population_of_none_has_no_outputs_to_replay(tmp_path):
    # Its self-test could say that there are 2^40 observations of no bytes.
    config = pc.ActorCriticConfig(observation_space=pc.Dict({}), action_space=pc.Discrete(2), **TINY)
    params = jax.tree.map(
        lambda leaf: jnp.zeros((0, *leaf.shape), leaf.dtype),
        jax.eval_shape(lambda: config.init(key=jax.random.key(0))),
    )
    document = opened(pc.to_bytes((params, config), self_test=False))
    document["self_test"] = [
        [name, dtype, [0, 2**40], b""]
        for name, dtype in (
            ("action", "int32"), ("entropy", "float32"), ("env_action", "int32"), ("log_prob", "float32"),
            ("value", "float32"),
        )
    ]  # fmt: skip
    (tmp_path / "file").write_bytes(closed(document))
    assert pc.verify(tmp_path / "file").observations == 0


ABUSE = sorted((Path(__file__).parent / "abuse").glob("*.msgpack"))
GOLDEN = sorted((Path(__file__).parent / "golden").glob("*.msgpack"))
READERS: dict[str, Callable[..., Any]] = {"policy_core": pc.load, "numpy_runner": numpy_runner.load}


@pytest.mark.filterwarnings("ignore:Explicitly requested dtype int64")  # by JAX, for enormous sizes
@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("path", [*ABUSE, *GOLDEN], ids=lambda path: path.stem)
def test_both_readers_refuse_the_abuse_folder_and_read_the_golden_files(path, reader):
    assert len(ABUSE) > 20
    if path in GOLDEN:
        member = {"member": 1} if reader == "numpy_runner" and "population" in path.stem else {}
        READERS[reader](path, **member)
        return
    with pytest.raises(ValueError, match=r".") as caught:
        READERS[reader](path)
    assert type(caught.value) in (ValueError, UnicodeDecodeError) or isinstance(caught.value, FileError)


def _extra(dtype: str) -> bytes:
    document = opened(DATA)
    document["extra"] = [["x", dtype, [1], bytes(8)]]
    return closed(document)


# Each is no policy file, though any msgpack library reads it.
SPELLINGS: dict[str, Callable[[], bytes]] = {
    "metadata of numbers": lambda: _with_head(b"\xa4note\xa1x", b"\xa4note\x07"),
    "metadata named by a number": lambda: _with_head(b"\x81\xa4note\xa1x", b"\x81\x07\xa1x"),
    "unordered metadata": lambda: _edited(_set("metadata", {"b": "", "a": ""})),
    "metadata twice": lambda: _with_head(b"\x81\xa4note\xa1x", b"\x82\xa4note\xa1x\xa4note\xa1x"),
    "unordered leaves": lambda: _edited(lambda d: d["leaves"].reverse()),
    "a surplus leaf": lambda: _edited(_new_leaf),
    "a leaf twice": lambda: _edited(lambda d: d["leaves"].insert(0, d["leaves"][0])),
    "extra of objects": lambda: _extra("object"),
    "extra of dates": lambda: _extra("m8[s/0]"),
    "a long version": lambda: _with_head(b"\xa7version\x01", b"\xa7version\xcc\x01"),
    "a long size": lambda: _with_head(b"\xa5batch\x90", b"\xa5batch\xdc\x00\x00"),
    "misaligned content": lambda: _misaligned(),
    "NaN in the config": lambda: _config_of(_policy_data(actor_gain=float("nan"))),
    "-0.0 in the config": lambda: _config_of(_policy_data(actor_gain=-0.0)),
    "a long number in the config": lambda: _with_encoding(
        lambda encoding: encoding.replace(b"\xa1n\x02", b"\xa1n\xcc\x02")
    ),
    "a 32-bit float in the config": lambda: _with_encoding(
        lambda encoding: encoding.replace(b"gain\xcb\x3f\xf0" + bytes(6), b"gain\xca\x3f\x80" + bytes(2))
    ),
    "unordered fields": lambda: _with_encoding(
        lambda encoding: encoding.replace(b"\xa1n\x02\xa5start\x00", b"\xa5start\x00\xa1n\x02")
    ),
    "a field twice": lambda: _with_encoding(
        lambda encoding: encoding.replace(b"\x82\xa1n\x02\xa5start\x00", b"\x83\xa1n\x02\xa1n\x02\xa5start\x00")
    ),
    "fields before type": lambda: _config_of({"fields": CONFIG_DATA["fields"], "type": CONFIG_DATA["type"]}),
    "a type of a number": lambda: _config_of({"type": 5, "fields": {}}),
    "fields of nothing": lambda: _config_of({"type": "policy_core/MLP", "fields": None}),
    "logits that the space has not": lambda: _config_of(_policy_data(action_space=ONE)),
    "a kernel of other inputs": lambda: _config_of(_policy_data(observation_space=_space(shape=[2]))),
    "integers as params": lambda: _edited(_set("leaves", 0, 1, "int32")),
    "floats of another width": lambda: _config_of(_policy_data(param_dtype="bfloat16")),
    "a name of a dtype that NumPy would run": lambda: _config_of(_policy_data(action_space=_space(dtype="m8[s/0]", shape=[2]))),
    "a negative size": lambda: _config_of(_policy_data(observation_space=_space(shape=[-1]))),
    "a flag as a size": lambda: _config_of(_policy_data(action_space=_of("Discrete", n=True, start=0))),
}  # fmt: skip


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("name", SPELLINGS)
def test_both_readers_refuse_what_no_writer_writes(name, reader, tmp_path):
    data = SPELLINGS[name]()
    assert data != DATA
    (tmp_path / "file").write_bytes(data)
    with pytest.raises(ValueError, match=r".") as caught:
        READERS[reader](tmp_path / "file")
    assert type(caught.value) in (ValueError, FileError)


def _with_head(old: bytes, new: bytes) -> bytes:
    """The file with other bytes before its leaves, which are aligned again."""
    head = DATA[: DATA.index(b"\xa6leaves")]
    assert head.count(old) == 1
    parts = [head.replace(old, new)]
    for name in by_hand.TABLES:
        rows = opened(DATA)[name]
        parts.append(msgpack.packb(name) + msgpack.Packer().pack_array_header(len(rows)))
        for row in rows:
            parts.append(by_hand._row(row, sum(map(len, parts))))
    return sealed(b"".join(parts))


def _with_encoding(change: Callable[[bytes], bytes]) -> bytes:
    before = opened(DATA)["config"]
    assert change(before) != before
    return closed({**opened(DATA), **_config(change(before))})


def _misaligned() -> bytes:
    start = DATA.index(b"\xafactor/head/bias")
    at = DATA.index(b"\xc4", start) + 1
    return sealed(DATA[:at] + bytes([DATA[at] - 1]) + content_of(DATA)[at + 2 :])


def test_the_ways_to_forge_leave_a_good_file_as_it_is():
    assert _with_head(b"note", b"note") == DATA == closed(opened(DATA))


def _bytes_resealed(old: bytes, new: bytes) -> bytes:
    assert DATA.count(old) == 1
    return sealed(content_of(DATA).replace(old, new))


def test_a_row_has_one_spelling():
    start = DATA.index(b"\xafactor/head/bias")
    end = DATA.index(b"\xb1actor/head/kernel")
    row = DATA[start:end]
    at = row.index(b"\xc4") + 2
    size = row[at - 1]
    assert size >= 1
    assert row[at : at + size] == bytes(size)
    dirty = row[:at] + b"\1" + row[at + 1 :]
    with pytest.raises(FileError, match=r"has a padding that is not zero$"):
        pc.from_bytes(_bytes_resealed(row, dirty))
    short = row[: at - 1] + bytes([size - 1]) + row[at + 1 :]
    with pytest.raises(FileError, match=r"is not aligned to 64 bytes$"):
        pc.from_bytes(_bytes_resealed(row, short))
    twice = _edited(lambda document: document["leaves"].insert(0, document["leaves"][0]))
    with pytest.raises(
        FileError, match=r"^leaves: the leaf 'actor/head/bias' is there twice, or out of order$"
    ):
        pc.from_bytes(twice)
    flags = pc.to_bytes((PARAMS, CONFIG), extra={"flag": np.array([True])}, self_test=False)
    document = opened(flags)
    document["extra"][0][3] = b"\2"
    with pytest.raises(FileError, match=r"is bool and holds a byte that is neither 0 nor 1$"):
        pc.from_bytes(closed(document))


def _told(data: bytes) -> Any:
    """What a file holds, or the error that it is refused with."""
    try:
        read = layout.read(memoryview(data))
    except FileError as error:
        return str(error)
    rows = [*read.leaves, *read.self_test, *read.extra]
    return read.batch, [[*row[:3], b"".join(row.chunks)] for row in rows]


def test_what_is_known_of_the_heads_of_rows_changes_no_answer(monkeypatch):
    heads: dict[int, Any] = {}
    monkeypatch.setattr(tables, "_HEADS", heads)
    good = pc.to_bytes((PARAMS, CONFIG), extra={"flag": np.array([True]), "x": np.ones(3)}, self_test=False)
    content, answers = content_of(good), set()
    start = content.index(b"leaves")  # what stands before is read anew each time
    changed = [content[:i] + bytes([content[i] ^ bit]) + content[i + 1 :]
               for i in range(start, len(content)) for bit in (1, 64)]  # fmt: skip
    for data in [sealed(x) for x in (*changed, *(content[:i] for i in range(start, len(content))))]:
        heads.clear()
        cold = _told(data)
        _told(good)
        assert len(heads) == len(jax.tree.leaves(PARAMS)) + 2
        assert _told(data) == cold
        answers.add(cold if isinstance(cold, str) else "")
    assert len(answers) > 100


def test_few_and_short_heads_of_rows_are_kept(monkeypatch):
    heads: dict[int, Any] = {}
    monkeypatch.setattr(tables, "_HEADS", heads)
    extra = {f"{i:05d}": np.zeros(1, np.float32) for i in range(3000)} | {"x" * 300: np.zeros(1)}
    data = pc.to_bytes((PARAMS, CONFIG), extra=extra, self_test=False)
    for _ in range(2):
        assert len(layout.read(memoryview(data)).extra) == 3001
        assert 0 < len(heads) <= 1024
        assert max(len(head[0]) for head in heads.values()) <= 256
