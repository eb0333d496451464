"""One member out of the file of a population: what is read, what is verified, what comes out."""

import contextlib
import io
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import mutations
import numpy as np
import pytest
from by_hand import closed, content_of, opened, sealed
from policy_core_adapters import numpy_runner

import policy_core as pc
from policy_core.__main__ import main
from policy_core.errors import FileError, FingerprintError, SelfTestError
from policy_core.files import checksum, members, policies

pytestmark = pytest.mark.usefixtures("unchecked")  # beartype doubles the time to trace

CONFIG = pc.ActorCriticConfig(
    observation_space=pc.Box(shape=(4,)),
    action_space=pc.Dict({"go": pc.Discrete(2), "by": pc.Box(low=-1.0, high=1.0, shape=(2,))}),
    actor=pc.MLP((16,)),
    critic=pc.MLP((16,)),
    normalize=pc.Normalize(),
)
MEMORY = pc.ActorCriticConfig(
    observation_space=pc.Box(shape=(2,)), action_space=pc.Discrete(3), actor=pc.MLP(()), critic=pc.MLP(()),
    memory=pc.GRU(5), temperature=1.0,
)  # fmt: skip


def population(config: Any, batch: tuple[int, ...]) -> Any:
    """Params that differ in every number."""
    template = jax.eval_shape(lambda: config.init(key=jax.random.key(0)))
    rng = np.random.default_rng(0)
    params = jax.tree.map(
        lambda leaf: jnp.asarray(rng.uniform(0.1, 1, batch + leaf.shape), leaf.dtype), template
    )
    return params, config


def member_of(policy: Any, index: tuple[int, ...]) -> Any:
    return jax.tree.map(lambda leaf: leaf[index], policy)


def same(a: Any, b: Any) -> bool:
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return jax.tree.structure(a) == jax.tree.structure(b) and all(
        x.dtype == y.dtype and x.shape == y.shape and np.asarray(x).tobytes() == np.asarray(y).tobytes()
        for x, y in pairs
    )


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of 7 members in several blocks, with an `extra` of which each has a part."""
    path = tmp_path_factory.mktemp("members") / "population"
    policy = population(CONFIG, (7,))
    extra = {"moments": policy[0], "steps": np.arange(7), "keys": jax.random.split(jax.random.key(0), 7),
             "flags": np.arange(14).reshape(7, 2) % 3 == 0, "none": np.zeros((7, 0), np.float32),
             "rows": np.random.default_rng(0).standard_normal((7, 20_000), np.float32)}  # fmt: skip
    pc.save(path, policy, metadata={"run": "a"}, extra=extra, observations=np.ones((3, 4), np.float32))
    assert path.stat().st_size > 8 * checksum.BLOCK
    return path


@pytest.mark.parametrize("i", [0, 3, 6, np.int64(5), jnp.int32(2)])
def test_a_member_is_bitwise_that_of_the_population(path, i):
    whole = pc.load(path)
    assert same(pc.load(path, member=i), member_of(whole, (int(i),)))
    assert same(pc.load(path, CONFIG, member=i, self_test=True), member_of(whole, (int(i),)))
    found = pc.verify(path, CONFIG, member=i)
    assert (found.observations, found.deviation < 1e-6) == (11, True)


@pytest.mark.parametrize("config", [CONFIG, MEMORY], ids=["dict", "memory"])
def test_a_member_of_two_axes(config, tmp_path):
    policy = population(config, (2, 3))
    pc.save(tmp_path / "file", policy)
    for index in [(0, 0), (0, 2), (1, 0), (1, 2)]:
        assert same(pc.load(tmp_path / "file", member=index), member_of(policy, index))
        assert pc.verify(tmp_path / "file", member=index).deviation < 1e-6
        runner = numpy_runner.load(tmp_path / "file", member=index)
        observation = np.linspace(-1, 1, config.observation_space.shape[0], dtype=np.float32)
        one = member_of(policy, index)
        expected = pc.value(one, pc.reset(one), observation)[1]
        assert np.allclose(runner.value(runner.reset(), observation)[1], expected, atol=1e-5)


def test_extra_of_a_member(path, tmp_path):
    extra = pc.load_extra(path, EXTRA := {
        "moments": population(CONFIG, ())[0], "steps": 0, "keys": jax.random.key(0), "flags": np.zeros(2, bool),
        "none": np.zeros(0, np.float32), "rows": np.zeros(20_000, np.float32),
    }, member=4)  # fmt: skip
    assert extra["steps"] == 4
    assert extra["keys"] == jax.random.split(jax.random.key(0), 7)[4]
    assert extra["flags"].tolist() == [False, True]
    assert same(extra["moments"], member_of(pc.load(path)[0], (4,)))
    with pytest.raises(
        FileError, match=r"^extra: the leaf 'rows' is float32\(20000,\), expected float32\(7,"
    ):
        pc.load_extra(path, EXTRA | {"rows": np.zeros((7, 20_000), np.float32)}, member=4)
    pc.save(tmp_path / "file", population(CONFIG, (2,)), extra={"step": 5}, self_test=False)
    assert pc.load_extra(tmp_path / "file", {"step": 0}) == {"step": 5}
    assert pc.load(tmp_path / "file", member=1)[1] == CONFIG
    with pytest.raises(
        FileError, match=r"^extra: the leaf 'step' has the shape \(\), expected \(2,\) in front"
    ):
        pc.load_extra(tmp_path / "file", {"step": 0}, member=1)


@pytest.mark.parametrize("index", [-1, 7, (1, 1), (), True, 1.0, "1", None, (None,)])
def test_a_member_that_is_not_there(index, path):
    if index is not None:
        with pytest.raises(
            FileError, match=r"^member: got .*, expected an index for each of the axes \(7,\)"
        ):
            pc.load(path, member=index)
    with pytest.raises(ValueError, match=r"^member: got "):
        numpy_runner.load(path, member=index)


def test_there_is_no_member_of_one_policy(tmp_path):
    pc.save(tmp_path / "file", population(CONFIG, ()), self_test=False)
    with pytest.raises(FileError, match=r"^member: got 0, expected none: it is one policy$"):
        pc.load(tmp_path / "file", member=0)


def test_a_member_of_another_config_is_refused(path):
    with pytest.raises(FingerprintError, match=r"actor_gain"):
        pc.load(path, CONFIG.__class__(**{**_fields(CONFIG), "actor_gain": 0.5}), member=1)


def _fields(config: Any) -> dict[str, Any]:
    return {name: getattr(config, name) for name in config.__dataclass_fields__}


class Counting(io.FileIO):
    """A file that counts the bytes that are read from it."""

    count = 0

    def readinto(self, buffer: Any) -> int:
        size: int = super().readinto(buffer)  # type: ignore[assignment]
        Counting.count += size
        return size

    def read(self, size: int | None = -1) -> bytes:
        data: bytes = super().read(size)  # type: ignore[assignment]
        Counting.count += len(data)
        return data


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    def opened_raw(path: Any, mode: str, buffering: int = -1) -> Any:
        assert mode == "rb"
        return Counting(path)

    for module in (policies, numpy_runner):
        monkeypatch.setattr(module, "open", opened_raw, raising=False)
    Counting.count = 0
    return lambda: Counting.count


def test_little_is_read_of_a_large_file(tmp_path, counted):
    config = pc.ActorCriticConfig(
        observation_space=pc.Box(shape=(8,)), action_space=pc.Discrete(4), normalize=pc.Normalize()
    )
    policy = population(config, (1024,))
    pc.save(tmp_path / "file", policy)
    assert (tmp_path / "file").stat().st_size > 37e6
    got = pc.load(tmp_path / "file", config, member=700)
    assert same(got, member_of(policy, (700,)))
    assert counted() <= 2e6
    Counting.count = 0
    runner = numpy_runner.load(tmp_path / "file", member=700)
    assert counted() <= 2e6
    ones = np.ones(8, np.float32)
    assert np.allclose(runner.value((), ones)[1], pc.value(got, (), jnp.asarray(ones))[1], atol=1e-4)


def _outcome(path: Path, member: Any) -> Any:
    """The member, or None if our error refuses it; every other exception comes out of here."""
    try:
        return pc.load(path, member=member)
    except FileError:
        return None


def test_a_flipped_byte_is_noticed_where_it_is_read(path, tmp_path):
    data, right = path.read_bytes(), pc.load(path, member=5)
    rng, file, counts = random.Random(0), tmp_path / "file", {"refused": 0, "unread": 0}
    size = len(content_of(data))
    places = [*range(0, 2000, 19), *(rng.randrange(size) for _ in range(150)), *range(size, len(data))]
    for at in places:
        flipped = bytearray(data)
        flipped[at] ^= 1 << rng.randrange(8)
        file.write_bytes(flipped)
        found = _outcome(file, 5)
        assert found is None or (same(found, right) and 2000 < at < size)
        try:
            numpy_runner.load(file, member=5)
        except ValueError:
            assert found is None or at > 2000
        counts["refused" if found is None else "unread"] += 1
        if found is not None and counts["unread"] % 20 == 0:
            with pytest.raises(FileError, match=r"^checksum: the file is damaged between bytes \d+ and \d+"):
                pc.load(file)
    assert min(counts.values()) > 50


def test_every_block_that_is_read_is_verified(path, tmp_path, monkeypatch):
    data = path.read_bytes()
    read = set()
    block = policies.Blocks._block
    monkeypatch.setattr(policies.Blocks, "_block", lambda self, i: read.add(i) or block(self, i))
    pc.load(path, member=5)
    blocks = set(range(-(-len(content_of(data)) // checksum.BLOCK)))
    assert 0 in read
    assert read < blocks
    for i in blocks:
        flipped = bytearray(data)
        flipped[i * checksum.BLOCK + 100] ^= 4
        (tmp_path / "file").write_bytes(flipped)
        assert (_outcome(tmp_path / "file", 5) is None) == (i in read)


def test_truncations_are_noticed(path, tmp_path):
    data = path.read_bytes()
    rng = random.Random(0)
    for size in [*range(0, 300, 11), *(rng.randrange(len(data)) for _ in range(60)), len(data) - 1]:
        (tmp_path / "file").write_bytes(data[:size])
        with pytest.raises(FileError, match=r"^not a policy file"):
            pc.load(tmp_path / "file", member=1)
        with pytest.raises(ValueError, match=r"^not a policy file|^checksum"):
            numpy_runner.load(tmp_path / "file", member=1)
    (tmp_path / "file").write_bytes(data + b"\0")
    assert _outcome(tmp_path / "file", 1) is None


@pytest.mark.filterwarnings("ignore")  # JAX's own, of sizes that only exist on paper
def test_mutated_files_load_a_member_or_are_refused(tmp_path):
    data = pc.to_bytes(population(MEMORY, (3,)), metadata={"note": "x"})
    rng, file, counts = random.Random(0), tmp_path / "file", {True: 0, False: 0}
    while sum(counts.values()) < 150:
        try:
            mutated = closed(mutations.mutated(data, rng))
        except (ValueError, OverflowError):  # msgpack cannot write it
            continue
        file.write_bytes(mutated)
        counts[_outcome(file, 1) is None] += 1
        with contextlib.suppress(ValueError):
            numpy_runner.load(file, member=1)
        with contextlib.suppress(FileError):
            pc.verify(file, member=1)
    assert min(counts.values()) > 10


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ([2], r"^leaves: the leaf 'actor/head/bias' has the shape \(3, 3\), expected \(2,\) in front"),
        ([2**40], r"^leaves: the leaf 'actor/head/bias' has the shape \(3, 3\)"),
        ([0], r"^member: got 1, expected an index for each of the axes \(0,\)"),
        ([3, 3], r"^member: got 1, expected an index for each of the axes \(3, 3\)"),
        ([], r"^member: got 1, expected none: it is one policy$"),
    ],
)
def test_a_forged_batch_is_refused(batch, message, tmp_path):
    document = opened(pc.to_bytes(population(MEMORY, (3,))))
    (tmp_path / "file").write_bytes(closed({**document, "batch": batch}))
    with pytest.raises(FileError, match=message):
        pc.load(tmp_path / "file", member=1)
    with pytest.raises(ValueError, match=r"^leaves|^member"):
        numpy_runner.load(tmp_path / "file", member=1)


def test_the_digests_of_blocks_are_checked_as_the_rest(tmp_path):
    data = pc.to_bytes(population(MEMORY, (3,)))
    content = content_of(data)
    head, seal = data[len(content) :][:9], data[-43:]
    digests = data[len(content) + 9 : -43]
    assert len(digests) == 32
    for ending, message in [
        (head + bytes(32) + seal, r"^checksum: the file is truncated or damaged"),
        (head + digests + seal[:-32] + bytes(32), r"^checksum: the file is truncated or damaged"),
        (seal + head + digests, r"keys: the last but one is not 'blocks'"),
        (head[:-1] + b"\x40" + digests * 2 + seal, r"^not a policy file|^checksum"),
    ]:
        (tmp_path / "file").write_bytes(content + ending)
        for member in (None, 1):
            with pytest.raises(FileError, match=message):
                pc.load(tmp_path / "file", member=member)
    assert sealed(content) == data


@pytest.mark.parametrize(
    "size", [0, 1, 65535, 65536, 65537, 2**20, 2047 * 65536 + 5, 2048 * 65536, 2049 * 65536]
)
def test_the_size_of_a_file_tells_that_of_its_content(size):
    count = -(-size // 2**16)
    whole = size + len(checksum.ending(bytes(32 * count)))
    assert checksum.content_size(whole) == size
    with pytest.raises(FileError, match=r"no file has this size$"):
        checksum.content_size(20)


def test_the_file_of_a_member_is_that_which_is_saved_from_it(path, tmp_path, capsys):
    out = tmp_path / "new" / "member"
    assert main(["member", str(path), "5", str(out)]) == 0
    assert f"{out}: member 5 of {path}" in " ".join(capsys.readouterr().out.split())
    policy = pc.load(path, member=5)
    like = {
        "moments": policy[0], "steps": 0, "keys": jax.random.key(0), "flags": np.zeros(2, bool),
        "none": np.zeros(0, np.float32), "rows": np.zeros(20_000, np.float32),
    }  # fmt: skip
    extra = pc.load_extra(path, like, member=5)
    expected = pc.to_bytes(
        policy, metadata={"run": "a"}, extra=extra, observations=np.ones((3, 4), np.float32)
    )
    assert out.read_bytes() == expected
    assert pc.verify(out) == pc.files.Verification(11, 0.0, "entropy")


def test_what_of_a_file_a_member_does_not_have_is_said(tmp_path, capsys):
    pc.save(tmp_path / "file", population(MEMORY, (2, 2)), extra={"step": 5}, self_test=False)
    assert main(["member", str(tmp_path / "file"), "1,0", str(tmp_path / "out"), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["member"], answer["extra"]) == ([1, 0], False)
    assert main(["member", str(tmp_path / "file"), "1,0", str(tmp_path / "out")]) == 0
    assert "without `extra`" in " ".join(capsys.readouterr().out.split())
    assert (tmp_path / "out").read_bytes() == pc.to_bytes(
        member_of(pc.load(tmp_path / "file"), (1, 0)), self_test=False
    )
    assert main(["member", str(tmp_path / "file"), "2,0", str(tmp_path / "no")]) == 2
    assert "member: got (2, 0), expected an index for each of the axes (2, 2)" in capsys.readouterr().err
    assert not (tmp_path / "no").exists()


def test_a_member_that_fails_its_self_test_is_not_written(path, tmp_path):
    document = opened(path.read_bytes())
    row = next(row for row in document["self_test"] if row[0] == "value")
    numbers = np.frombuffer(row[3], "<f4").reshape(7, 11).copy()
    numbers[5, 2] += 1
    row[3] = numbers.tobytes()
    (tmp_path / "file").write_bytes(closed(document))
    assert pc.verify(tmp_path / "file", member=4).deviation < 1e-6
    with pytest.raises(SelfTestError, match=r"^self-test: 'value' is off by"):
        pc.verify(tmp_path / "file", member=5)
    with pytest.raises(SelfTestError, match=r"^self-test: 'value' is off by"):
        members.extract(tmp_path / "file", 5, tmp_path / "out")
    assert not (tmp_path / "out").exists()
