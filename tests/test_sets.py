"""A set of different policies in a folder: all of the new ones, or all of the old."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import policy_core as pc
from policy_core.errors import FileError, FingerprintError
from policy_core.files import sets

pytestmark = pytest.mark.usefixtures("unchecked")  # beartype doubles the time to trace

ROOT = Path(__file__).parent.parent
TINY = {"actor": pc.MLP((3,)), "critic": pc.MLP(())}
CONFIGS = {
    "prey": pc.ActorCriticConfig(observation_space=pc.Box(shape=(2,)), action_space=pc.Discrete(2), **TINY),
    "predator 1/2": pc.ActorCriticConfig(
        observation_space=pc.Box(shape=(3,)), action_space=pc.Discrete(5), **TINY
    ),
    "предатель": pc.ActorCriticConfig(
        observation_space=pc.Box(shape=(2,)), action_space=pc.Discrete(2), **TINY
    ),
}


def policies(number: float, batch: tuple[int, ...] = ()) -> dict[str, Any]:
    return {
        name: (
            jax.tree.map(
                lambda leaf: jnp.full(batch + leaf.shape, number),
                jax.eval_shape(lambda config=config: config.init(key=jax.random.key(0))),
            ),
            config,
        )
        for name, config in CONFIGS.items()
    }


def number_of(loaded: dict[str, Any]) -> float:
    (number,) = {float(x) for leaf in jax.tree.leaves(loaded) for x in np.ravel(leaf)}
    return number


def test_a_set_comes_back(tmp_path):
    folder = tmp_path / "new" / "set"
    pc.files.save_all(folder, policies(1.0))
    for loaded in (pc.files.load_all(folder), pc.files.load_all(folder, CONFIGS)):
        assert {name: policy[1] for name, policy in loaded.items()} == CONFIGS
        assert number_of(loaded) == 1.0
    for file in folder.glob("*.msgpack"):
        assert pc.verify(file).observations == 8
    assert len(list(folder.iterdir())) == 4


def test_a_new_set_takes_the_place_of_the_old_and_of_nothing_else(tmp_path):
    pc.files.save_all(tmp_path, policies(1.0), self_test=False)
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "prey-0123456789abcdef.msgpack").write_text("mine, too")
    del (few := policies(2.0, (2,)))["prey"]
    pc.files.save_all(tmp_path, few, self_test=False)
    assert number_of(loaded := pc.files.load_all(tmp_path)) == 2.0
    assert set(loaded) == set(few)
    assert len(list(tmp_path.iterdir())) == 5
    before = sorted(tmp_path.iterdir())
    pc.files.save_all(tmp_path, few, self_test=False)
    assert sorted(tmp_path.iterdir()) == before


def test_a_policy_that_cannot_be_saved_leaves_the_old_set(tmp_path):
    pc.files.save_all(tmp_path, policies(1.0), self_test=False)
    new = policies(2.0)
    new["prey"] = (new["prey"][0], CONFIGS["predator 1/2"])
    with pytest.raises(FileError, match=r"^'prey': params: the leaf .* of the config's params"):
        pc.files.save_all(tmp_path, new, self_test=False)
    assert number_of(pc.files.load_all(tmp_path)) == 1.0
    for name in ("", "x" * 300, 5):
        with pytest.raises(
            FileError, match=r"^policies: got the name .*, expected a text of 1 to 256 bytes$"
        ):
            pc.files.save_all(tmp_path, {name: policies(1.0)["prey"]})


def test_a_set_of_other_names_or_configs_is_refused(tmp_path):
    pc.files.save_all(tmp_path, policies(1.0), self_test=False)
    other = CONFIGS | {"prey": CONFIGS["predator 1/2"]}
    with pytest.raises(FingerprintError, match=r"^'prey': .*\n.*\n  action_space\.n +2 +5"):
        pc.files.load_all(tmp_path, other)
    with pytest.raises(
        FileError, match=r"^manifest.json: the set is of \[.*'prey'.*\], expected \['prey'\]$"
    ):
        pc.files.load_all(tmp_path, {"prey": CONFIGS["prey"]})


def test_a_file_of_another_set_is_refused(tmp_path):
    pc.files.save_all(tmp_path / "a", policies(1.0), self_test=False)
    pc.files.save_all(tmp_path / "b", policies(2.0), self_test=False)
    (mine,) = (tmp_path / "a").glob("prey-*")
    (other,) = (tmp_path / "b").glob("prey-*")
    mine.write_bytes(other.read_bytes())
    with pytest.raises(
        FileError, match=r"^'prey': prey-.* is a good file, but not the one that the manifest"
    ):
        pc.files.load_all(tmp_path / "a")
    mine.write_bytes(mine.read_bytes()[:-1])
    with pytest.raises(FileError, match=r"^'prey': not a policy file, or truncated"):
        pc.files.load_all(tmp_path / "a")
    mine.unlink()
    with pytest.raises(FileNotFoundError, match=r"prey-"):
        pc.files.load_all(tmp_path / "a")


GOOD = {"file": "a-0.msgpack", "fingerprint": "00", "checksum": "00"}


def _manifest(**policies: Any) -> str:
    return json.dumps({"format": "policy_core set", "version": 1, "policies": policies})


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "[]", "null", "5", "[" * 100_000, '{"a": 1, "a": 2}', "\ud800".encode("utf-8", "surrogatepass"),
        _manifest().replace("1", "2"), _manifest().replace("set", "sets"), _manifest()[:-1] + ', "more": 1}',
        _manifest(a=GOOD | {"file": "../a.msgpack"}), _manifest(a=GOOD | {"file": "/etc/passwd"}),
        _manifest(a=GOOD | {"file": "a\\b.msgpack"}), _manifest(a=GOOD | {"file": ".a.msgpack"}),
        _manifest(a=GOOD | {"file": ["a-0.msgpack"]}), _manifest(a=GOOD | {"file": "a-0.msgpack\n"}),
        _manifest(a=GOOD | {"more": 1}), _manifest(a={}), _manifest(a=None), _manifest(**{"": GOOD}),
        _manifest(a=5), json.dumps({"format": "policy_core set", "version": 1, "policies": []}), "x" * 2**21,
    ],
    ids=range(24),
)  # fmt: skip
def test_a_manifest_that_is_none_is_refused(text, tmp_path):
    (tmp_path / "manifest.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(FileError, match=r"^manifest.json: |^policies: got the name ''"):
        pc.files.load_all(tmp_path)
    # What is no manifest names no files that a save could remove.
    pc.files.save_all(tmp_path, policies(3.0), self_test=False)
    assert number_of(pc.files.load_all(tmp_path)) == 3.0


WRITER = """
import sys, test_sets
import policy_core as pc
for number in range(10**6):
    pc.files.save_all(sys.argv[1], test_sets.policies(float(number % 50)), self_test=False)
    print(number, flush=True)
"""


def test_a_killed_save_leaves_a_whole_set(tmp_path):
    paths = [str(ROOT), str(ROOT / "adapters"), str(ROOT / "tests")]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    seen = set()
    for kill in range(2):
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path)], env=env, stdout=subprocess.PIPE, text=True
        ) as writer:
            assert writer.stdout is not None
            for _ in range(3 + 5 * kill):
                writer.stdout.readline()
            writer.kill()
        seen.add(number_of(pc.files.load_all(tmp_path)))
    assert len(seen) > 1


def test_readers_see_whole_sets_while_two_write(tmp_path):
    pc.files.save_all(tmp_path, policies(0.0), self_test=False)
    sets_of = [policies(float(number)) for number in range(4)]
    stop, errors, seen = threading.Event(), [], set()

    def write(first: int) -> None:
        for i in range(12):
            pc.files.save_all(tmp_path, sets_of[(first + i) % 4], self_test=False)

    def read() -> None:
        while not stop.is_set():
            try:
                seen.add(number_of(pc.files.load_all(tmp_path)))
            except Exception as error:
                errors.append(error)

    reader = threading.Thread(target=read)
    writers = [threading.Thread(target=write, args=(first,)) for first in (0, 2)]
    for thread in (reader, *writers):
        thread.start()
    for thread in writers:
        thread.join()
    stop.set()
    reader.join()
    assert errors == []
    assert len(seen) > 1
    assert len(list(tmp_path.iterdir())) == 4
    assert set(sets._read_manifest(tmp_path)) == set(CONFIGS)
