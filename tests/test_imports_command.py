"""`policy-core import`: what it writes, prints and refuses."""

import json
import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path

import jax
import numpy as np
import pytest
from elsewhere import unpacked
from policy_core_adapters.imports import flax_params, safetensors

import policy_core as pc
from policy_core.__main__ import main

ROOT = Path(__file__).parent.parent
GROUP = "policy_core.commands"
pytestmark = pytest.mark.usefixtures("unchecked")


@pytest.fixture(autouse=True)
def _installed(monkeypatch):
    """The entry points of pyproject.toml, whatever was installed."""
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"][GROUP]
    points = [EntryPoint(name, value, GROUP) for name, value in declared.items()]
    monkeypatch.setattr("importlib.metadata.entry_points", lambda *, group: points if group == GROUP else [])


@pytest.mark.parametrize(
    ("kind", "file", "options", "leaf"),
    [
        ("sb3", "old_vecnormalize.zip", ["--statistics", "old_vecnormalize.vecnormalize.pkl"], "action_net.weight"),
        ("rsl_rl", "asymmetric.pt", ["--activation", "relu"], "actor.mlp.0.weight"),
        ("rl_games", "lstm_before.pth", ["--before-mlp"], "a2c_network.rnn.rnn.bias_hh_l0"),
    ],
)  # fmt: skip
def test_a_file_of_another_library_becomes_a_policy_file(kind, file, options, leaf, tmp_path, capsys):
    folder = unpacked(kind)
    options = [str(folder / option) if "vecnormalize" in option else option for option in options]
    out = tmp_path / "policy.msgpack"
    assert main(["import", kind, str(folder / file), "-o", str(out), *options]) == 0
    printed = capsys.readouterr().out
    assert leaf in printed
    assert printed.splitlines()[-1] == f"{out}: {out.stat().st_size:,} bytes, ActorCriticConfig"
    info = pc.inspect(out)
    assert info.self_test == 8
    assert {"imported from", "version", "sha256"} <= info.metadata.keys()
    assert main(["verify", str(out)]) == 0
    capsys.readouterr()
    assert main(["import", "--json", kind, str(folder / file), "-o", str(out), *options]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["metadata"] == info.metadata
    assert leaf in result["report"]
    assert result["fingerprint"] == info.fingerprint.hex()


def test_params_of_flax_take_the_config_of_a_file(tmp_path, capsys):
    config = pc.ActorCriticConfig(
        observation_space=pc.Box(shape=(3,)), action_space=pc.Discrete(2), actor=pc.MLP((4,)), critic=pc.MLP((4,))
    )  # fmt: skip
    pc.save(tmp_path / "like", pc.init(config, key=jax.random.key(0)))
    other = pc.init(config, key=jax.random.key(1))
    tree = flax_params.dump(other, flax_params.purejaxrl)
    names = {
        ",".join(key.key for key in path): leaf
        for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]
    }
    safetensors.save(tmp_path / "a.safetensors", names)
    arguments = ["import", "flax", str(tmp_path / "a.safetensors"), "-o", str(tmp_path / "out")]
    assert main(arguments) == 2
    assert "--like, --rules: flax needs both" in capsys.readouterr().err
    assert main([*arguments, "--like", str(tmp_path / "like"), "--rules", "purejaxrl"]) == 0
    read = pc.surgery.leaves(pc.load(tmp_path / "out", config))
    for name, leaf in pc.surgery.leaves(other).items():
        assert np.array_equal(leaf, read[name])


def test_what_is_wrong_is_said(tmp_path, capsys):
    file = str(unpacked("rl_games") / "discrete.pth")
    out = ["-o", str(tmp_path / "out")]
    assert main(["import", "rl_games", file, *out, "--policy-obs-key", "state"]) == 2
    assert "--policy-obs-key: it is of brax, not of rl_games" in capsys.readouterr().err
    assert main(["import", "rl_games", file, *out, "--no-before-mlp", "--statistics", "x"]) == 2
    assert "--statistics: it is of sb3, not of rl_games" in capsys.readouterr().err
    assert main(["import", "sb3", file, *out]) == 2
    assert "there is no 'data' in it" in capsys.readouterr().err
    assert main(["import", "--json", "brax", str(tmp_path / "absent"), *out]) == 2
    assert "absent" in json.loads(capsys.readouterr().out)["error"]
    assert not (tmp_path / "out").exists()
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "import" in capsys.readouterr().out
