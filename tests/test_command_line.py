"""`python -m policy_core`: what it prints, and its exit codes."""

import dataclasses
import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import msgpack
import numpy as np
import pytest
from by_hand import closed, opened

import policy_core as pc
from policy_core.__main__ import main

ROOT = Path(__file__).parent.parent
CONFIG = pc.ActorCriticConfig(
    observation_space=pc.Box(shape=(2,)), action_space=pc.Discrete(3), actor=pc.MLP((4,)), critic=pc.MLP(())
)


@pc.static
class Halved:
    """A `Flatten` as if `factor` had come in a later version."""

    factor: float = pc.added(0.5)

    def check_space(self, space: Any, name: str = "observation_space") -> None:
        """Accept every space."""

    def init(self, space: Any, *, key: Any, dtype: str) -> Any:
        return {}

    def out_size(self, space: Any) -> int:
        return int(space.flat_size)

    def apply(self, params: Any, space: Any, observation: Any, dtype: str) -> Any:
        return self.factor * space.flatten(observation).astype(dtype)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    params = jax.tree.map(
        lambda x: jnp.ones(x.shape), jax.eval_shape(lambda: CONFIG.init(key=jax.random.key(0)))
    )
    pc.save(folder / "good", (params, CONFIG), metadata={"by": "me"}, extra={"count": 3})
    params["critic"]["head"]["bias"] += 0.5
    pc.save(folder / "moved", (params, CONFIG), self_test=False)
    other = pc.ActorCriticConfig(
        observation_space=CONFIG.observation_space,
        action_space=pc.Discrete(2),
        actor=pc.MLP((4,)),
        critic=pc.MLP(()),
    )
    pc.save(folder / "other", pc.init(other, key=jax.random.key(0)), self_test=False)
    later = dataclasses.replace(CONFIG, encoder=Halved())
    pc.save(folder / "later", pc.init(later, key=jax.random.key(0)), self_test=False)
    (folder / "damaged").write_bytes((folder / "good").read_bytes()[:-1])
    read = opened((folder / "good").read_bytes())
    row = next(row for row in read["self_test"] if row[0] == "value")
    row[3] = (np.frombuffer(row[3], "<f4") + np.float32(0.5)).tobytes()
    (folder / "failing").write_bytes(closed(read))
    return folder


def test_inspect_shows_everything(folder, capsys):
    assert main(["inspect", str(folder / "good")]) == 0
    out = capsys.readouterr().out
    for text in (pc.fingerprint(CONFIG).hex(), "policy_core/ActorCriticConfig", "actor/tower/hidden_0/kernel",
                 "2 x 4", "count", "int64", "self-test: 8 observations", "by", "me", "total", "30", "120"):  # fmt: skip
        assert text in out, text
    assert "added later" not in out  # by no class of this version
    assert main(["inspect", str(folder / "later")]) == 0
    assert "factor: 0.5  (added later, at its default)" in capsys.readouterr().out


def test_info_prints_readably_and_lists_fields_at_their_later_defaults(folder):
    found = pc.inspect(folder / "good")
    assert found.added == {}
    lines = str(found).splitlines()
    assert lines[0] == "policy_core/ActorCriticConfig, 30 parameters in 6 leaves, and `extra`"
    assert f"fingerprint {pc.fingerprint(CONFIG).hex()}" in lines
    assert "  action_space: Discrete(n=3, start=0)" in lines
    assert "  name: 'ActorCriticConfig'" in lines
    later = pc.inspect(folder / "later")
    assert later.added == {"encoder.factor": 0.5}
    assert "added later, at their defaults: encoder.factor" in str(later)
    assert "metadata by: me" in lines
    assert all(len(line) <= 100 for line in lines)
    assert len(lines) < 35
    assert "classes" not in found.added  # that of a class which is not registered is not known
    strange = found._replace(config={"type": "x/Y", "fields": {"a": "\x1b[2J" * 50}})
    assert (strange.added, strange[0]) == ({}, {"type": "x/Y", "fields": {"a": "\x1b[2J" * 50}})
    assert "\x1b" not in str(strange)


@pytest.mark.parametrize("columns", [60, 80, 100])
def test_tables_fit_the_terminal_and_break_names_last(columns, folder, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    document = opened((folder / "good").read_bytes())
    row = ["a/long/path/to/the/kernel/of/a/layer", "float32", [1, 1, 1, 1], bytes(4)]
    more = {"leaves": [row, *document["leaves"]], "metadata": {"note": "word " * 40 + "x" * 150}}
    path = _sealed(folder, {"type": "x/Y", "fields": {"names": ["n" * 200]}}, **more)
    for command in (["inspect", path], ["diff", str(folder / "other"), path]):
        main(command)
        lines = capsys.readouterr().out.splitlines()
        assert max(len(line) for line in lines if not line.startswith((path, "fingerprint"))) <= columns
    if columns >= 80:
        assert any(row[0] in line for line in lines)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: False)
    main(["inspect", path])
    assert "word " * 40 + "x" * 150 in capsys.readouterr().out  # a pipe has no width


CODES = "\x1b]0;owned\x07\x1b[2J\n\r\u202e\x9b31m"


def _sealed(folder: Path, config: Any, **more: Any) -> str:
    document = opened((folder / "good").read_bytes())
    encoding = msgpack.packb(config)
    mark = hashlib.sha256(b"policy_core config\n" + encoding).digest()
    (folder / "sealed").write_bytes(closed(document | {"config": encoding, "fingerprint": mark} | more))
    return str(folder / "sealed")


@pytest.mark.parametrize("command", [["inspect"], ["diff", "good"], ["diff", "other"], ["verify"]])
def test_nothing_in_a_file_steers_the_terminal(command, folder, capsys):
    document = opened((folder / "good").read_bytes())
    rows = sorted([[CODES + "row", "float32", [1], bytes(4)], *document["leaves"]])
    inner = {"type": f"x/{CODES}Net", "fields": {CODES: CODES}}
    config = {"type": f"x/{CODES}Policy", "fields": {f"a{CODES}": 1, "b": [CODES], "c": inner}}
    path = _sealed(folder, config, metadata={CODES: CODES}, leaves=rows, extra=rows)
    main([command[0], *(str(folder / name) for name in command[1:]), path])
    captured = capsys.readouterr()
    for text in (captured.out, captured.err):
        assert not [c for c in text if not c.isprintable() and c != "\n"]
        assert "\n\\r" not in text  # the newline that was in the codes
    assert "\\x1b]0;owned" in captured.out + captured.err


ODD: list[Any] = [
    {"type": 5, "fields": {}},
    {"type": "x/Y", "fields": None},
    {"type": "x/Y", "fields": []},
    {"type": "x/Y"},
    {"a": {"b": 1}},
    {"fields": {}, "type": "x/Y"},
    {"type": "x/Y", "fields": {"b": 1, "a": 1}},
    {"type": "x/Y", "fields": {"a": [[{"type": None, "fields": {}}]]}},
    [{"type": {}, "fields": {}}],
]


@pytest.mark.parametrize("config", ODD, ids=str)
@pytest.mark.parametrize("command", [["inspect"], ["diff", "good"], ["verify"]])
def test_an_odd_config_is_an_error_and_not_a_difference(command, config, folder, capsys):
    path = _sealed(folder, config)
    assert main([command[0], *(str(folder / name) for name in command[1:]), path]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("policy_core: config: a config is a map of 'type' and sorted 'fields'")


def test_verify_says_how_far_it_is_off(folder, capsys):
    assert main(["verify", str(folder / "good")]) == 0
    assert "over 8 observations the outputs are within 0 of" in capsys.readouterr().out
    assert main(["verify", str(folder / "moved")]) == 0
    assert "it has no self-test" in capsys.readouterr().out
    assert main(["verify", str(folder / "failing")]) == 1
    assert "self-test: 'value' is off by" in capsys.readouterr().err
    assert main(["verify", "--tolerance", "1", str(folder / "failing")]) == 0


@pytest.mark.parametrize("command", ["inspect", "verify"])
@pytest.mark.parametrize("name", ["damaged", "missing"])
def test_what_cannot_be_read_is_said_in_one_line(command, name, folder, capsys):
    assert main([command, str(folder / name)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.splitlines()) == 1
    assert main([command, "--json", str(folder / name)]) == 2
    assert set(json.loads(capsys.readouterr().out)) == {"error"}


def test_diff_shows_fields_and_params(folder, capsys):
    good = str(folder / "good")
    assert main(["diff", good, good]) == 0
    assert capsys.readouterr().out == "the same policy\n"
    assert main(["diff", good, str(folder / "moved")]) == 1
    out = capsys.readouterr().out
    assert "critic/head/bias" in out
    assert "0.5" in out
    assert "actor" not in out
    assert next(line.split() for line in out.splitlines() if "critic/head/bias" in line)[2:] == ["=", "0.5"]
    assert out.splitlines()[-1] == "equal: 60 of the fields, 5 of the params"
    assert main(["diff", good, str(folder / "other")]) == 1
    out = capsys.readouterr().out
    assert "action_space.n" in out
    assert "float32(4, 2)" in out


def test_json_says_the_same(folder, capsys):
    good = str(folder / "good")
    assert main(["inspect", "--json", good]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["parameters"], found["batch"], found["metadata"]) == (30, [], {"by": "me"})
    assert found["added"] == {}
    assert found["fingerprint"] == pc.fingerprint(CONFIG).hex()
    assert found["config"]["fields"]["observation_space"]["fields"]["high"] == "inf"
    assert main(["diff", "--json", good, str(folder / "moved")]) == 1
    assert json.loads(capsys.readouterr().out) == {
        "fields": [],
        "params": [["critic/head/bias", "float32(1,)", "float32(1,)", 0.5]],
        "equal": {"fields": 60, "params": 5},
    }
    assert main(["verify", "--json", good]) == 0
    assert json.loads(capsys.readouterr().out)["observations"] == 8


def test_it_runs_as_a_module(folder):
    command = [sys.executable, "-m", "policy_core", "inspect", str(folder / "good")]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert (result.returncode, result.stderr) == (0, "")
    result = subprocess.run([*command[:3], "nothing"], cwd=ROOT, capture_output=True, timeout=60, check=False)
    assert result.returncode == 2


def test_whoever_reads_may_stop_early(folder):
    command = f"{sys.executable} -m policy_core inspect {folder / 'good'} | true; exit ${{PIPESTATUS[0]}}"
    result = subprocess.run(
        ["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert (result.returncode, result.stderr) == (0, "")


def test_a_command_of_an_entry_point_runs_and_is_imported_only_when_it_may_be_needed(
    folder, capsys, monkeypatch
):
    loaded = []

    class Point:
        name = "weigh"

        def load(self) -> Any:
            loaded.append(self.name)
            return weigh

    def weigh(parser: Any) -> None:
        """Weigh a file.

        In bytes.
        """
        parser.add_argument("file", type=Path)
        parser.set_defaults(
            run=lambda options: ({"bytes": options.file.stat().st_size}, 3),
            show=lambda result: print(f"{result['bytes']} bytes"),
        )

    def points(*, group: str) -> list[Point]:
        return [Point()] if group == "policy_core.commands" else []

    monkeypatch.setattr("importlib.metadata.entry_points", points)
    assert main(["verify", str(folder / "good")]) == 0
    assert loaded == []
    capsys.readouterr()
    size = (folder / "good").stat().st_size
    assert main(["weigh", str(folder / "good")]) == 3
    assert capsys.readouterr().out == f"{size} bytes\n"
    assert main(["weigh", "--json", str(folder / "good")]) == 3
    assert json.loads(capsys.readouterr().out) == {"bytes": size}
    assert main(["weigh", str(folder / "absent")]) == 2
    assert "absent" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "Weigh a file\n" in capsys.readouterr().out
