"""Policies of rsl-rl and rl_games: files that they wrote, against what they computed; fixtures/make_robots.py."""

import numpy as np
import pytest
from elsewhere import check, names, unpacked
from policy_core_adapters.imports import pickles, rl_games, rsl_rl

import policy_core as pc
from policy_core.errors import FileError

pytestmark = pytest.mark.usefixtures("unchecked")  # beartype doubles the time to trace


def expected_of(folder, name):
    found = dict(np.load(folder / f"{name}.npz"))
    parts = {key.removeprefix("x/"): found[key] for key in found if key.startswith("x/")}
    return found, parts or found["x"]


@pytest.mark.parametrize("file", names("rsl_rl", ".pt"))
def test_a_file_of_rsl_rl_acts_as_its_library_did(file, tmp_path):
    folder = unpacked("rsl_rl")
    name, _, kind = file.removesuffix(".pt").partition(".")
    expected, x = expected_of(folder, name)
    found = rsl_rl.load(folder / file, activation="relu" if name == "asymmetric" else "elu")
    if kind == "jit":
        assert found.policy[1].critic is None
        x = x["policy"] if isinstance(x, dict) else x
        expected = {key: expected[key] for key in expected if key.startswith(("mode", "first"))}
    result = check(found, expected, x, None, tmp_path)
    assert set(result) == {"mode", "value", "log_prob", "entropy"} & set(expected)
    if isinstance(x, dict):
        assert found.policy[1].critic_keys == ("critic",)
        assert pc.actor_only(found.policy)[1].observation_space == pc.Dict({"policy": pc.Box(shape=(4,))})


@pytest.mark.parametrize("file", names("rl_games", ".pth"))
def test_a_file_of_rl_games_acts_as_its_library_did(file, tmp_path):
    folder = unpacked("rl_games")
    expected, x = expected_of(folder, file.removesuffix(".pth"))
    found = rl_games.load(folder / file)
    result = check(found, expected, x, None, tmp_path)
    assert {"mode", "value"} <= set(result)
    if file == "lstm.pth":
        assert found.report["a2c_network.layer_norm.weight"] == "critic/tower/scale"


def changed(file, library, change):
    """The leaves of a file, changed, as `load_torch` gives them."""
    value = pickles.load_torch((unpacked(library) / file).read_bytes())
    change(value)
    return value


@pytest.mark.parametrize(
    ("load", "file", "change", "message"),
    [
        (rsl_rl, "mlp.pt", lambda v: v["actor_state_dict"].pop("distribution.std_param"), r"^std: the checkpoint has none of std"),
        (rsl_rl, "mlp.pt", lambda v: v.pop("actor_state_dict"), r"^actor: there are no layers actor\.0"),
        (rsl_rl, "mlp.pt", dict.clear, r"^the file is neither TorchScript nor a checkpoint"),
        (rsl_rl, "mlp.pt", lambda v: v["actor_state_dict"].update(other=np.ones(2)), r"^the leaf 'actor\.other' has no place"),
        (rl_games, "lstm.pth", lambda v: v["model"].pop("running_mean_std.running_mean"), r"^before_mlp: the file has no statistics"),
        (rl_games, "lstm.pth", lambda v: v["model"].update({"a2c_network.rnn.rnn.weight_ih_l0": np.ones((24, 10))}), r"rnn: it has 10 inputs and 6 outputs, beside an MLP from 4 to 6 and 4 observations"),
        (rl_games, "lstm.pth", lambda v: v["model"].update({"a2c_network.rnn.rnn.weight_hh_l0": np.ones((24, 12))}), r"rnn: it has 2 gates, expected"),
        (rl_games, "discrete.pth", lambda v: v["model"].pop("a2c_network.value.bias"), r"^the leaf 'a2c_network.value.bias' is missing"),
        (rl_games, "discrete.pth", dict.clear, r"^the file is no checkpoint of rl_games"),
    ],
)  # fmt: skip
def test_what_is_not_known_is_refused_by_its_name(load, file, change, message, monkeypatch):
    library = load.__name__.rpartition(".")[2]
    value = changed(file, library, change)
    monkeypatch.setattr(load, "load_torch", lambda _: value)
    with pytest.raises(FileError, match=message):
        load.load(unpacked(library) / file)


def test_the_order_of_a_memory_is_asked_for_where_both_fit(monkeypatch):
    def square(value):
        model = value["model"]
        for name in ("actor_mlp.0.weight", "actor_mlp.2.weight", "mu.weight", "value.weight"):
            leaf = model[f"a2c_network.{name}"]
            model[f"a2c_network.{name}"] = np.resize(leaf, (len(leaf) if "mlp" not in name else 4, 4))
        for i in (0, 2):
            model[f"a2c_network.actor_mlp.{i}.bias"] = np.ones(4)
        for kind in ("ih", "hh"):
            model[f"a2c_network.rnn.rnn.weight_{kind}_l0"] = np.resize(1.0, (16, 4))
            model[f"a2c_network.rnn.rnn.bias_{kind}_l0"] = np.ones(16)
        for kind in ("weight", "bias"):
            model[f"a2c_network.layer_norm.{kind}"] = np.ones(4)

    value = changed("lstm.pth", "rl_games", square)
    monkeypatch.setattr(rl_games, "load_torch", lambda _: value)
    path = unpacked("rl_games") / "lstm.pth"
    with pytest.raises(FileError, match=r"^before_mlp: both orders fit the shapes; say which it is"):
        rl_games.load(path)
    configs = [rl_games.load(path, before_mlp=before).policy[1] for before in (False, True)]
    assert [config.trunk is None for config in configs] == [False, True]


def test_a_central_critic_stays_behind(monkeypatch):
    for file in ("gru_separate.pth", "continuous.pth"):
        value = changed(file, "rl_games", lambda value: value.update(assymetric_vf_nets={}))
        monkeypatch.setattr(rl_games, "load_torch", lambda _, value=value: value)
        found = rl_games.load(unpacked("rl_games") / file)
        assert found.policy[1].critic is None
        assert found.report["a2c_network.value.weight"].startswith(
            "not carried over: the critic is a central one"
        )
        assert found.report["a2c_network.mu.weight"] == "actor/head/kernel"
