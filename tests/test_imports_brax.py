"""Policies of Brax and back: its own networks and inference functions, in float32 and float64."""

import functools
import json
import pickle
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from elsewhere import check, deviation
from policy_core_adapters.imports import brax

import policy_core as pc
from policy_core.errors import ConfigError, FileError

ppo = pytest.importorskip("brax.training.agents.ppo.networks", reason="brax is not installed")
checkpoint = pytest.importorskip("brax.training.agents.ppo.checkpoint", reason="brax is not installed")
statistics = pytest.importorskip("brax.training.acme.running_statistics", reason="brax is not installed")

pytestmark = [
    pytest.mark.filterwarnings("default"),  # other people's warnings are theirs
    pytest.mark.usefixtures("unchecked", "lenient"),
]

PARTS = {"state": (4,), "privileged_state": (6,)}
SMALL = {"policy_hidden_layer_sizes": (8, 6), "value_hidden_layer_sizes": (7,)}
PRIVILEGED = {"policy_obs_key": "state", "value_obs_key": "privileged_state"}
LAYOUTS: dict[str, tuple[Any, dict[str, Any]]] = {
    "plain": (4, {}),
    "tanh": (4, {"activation": jnp.tanh}),
    "asymmetric": (PARTS, PRIVILEGED),
    "both see the state": (PARTS, {}),
    "normal": (4, {"distribution_type": "normal", "init_noise_std": 0.4}),
    "normal of a log": (4, {"distribution_type": "normal", "noise_std_type": "log", "init_noise_std": 0.4}),
    "normal of the state": (PARTS, {"distribution_type": "normal", "noise_std_type": "log", "state_dependent_std": True, **PRIVILEGED}),
    "not normalized": (4, {}),
}  # fmt: skip


def observations(size: Any, count: int) -> Any:
    rng = np.random.default_rng(0)
    if isinstance(size, int):
        return np.float32(2 * rng.standard_normal((count, size)) + 1)
    return {name: np.float32(2 * rng.standard_normal((count, *shape)) - 1) for name, shape in size.items()}


def made(size: Any, options: dict[str, Any], normalized: bool = True) -> Any:
    """A factory, its networks, and params whose statistics have a constant entry."""
    factory = functools.partial(ppo.make_ppo_networks, **SMALL, **options)
    preprocess = {"preprocess_observations_fn": statistics.normalize} if normalized else {}
    networks = factory(size, 2, **preprocess)
    x = observations(size, 50)
    x = {k: v.copy() for k, v in x.items()} if isinstance(x, dict) else x.copy()
    (x["state"] if isinstance(x, dict) else x)[:, 1] = 3.0
    state = statistics.init_state(jax.tree.map(lambda leaf: jnp.zeros(leaf.shape[1:]), x))
    state = statistics.update(state, jax.tree.map(jnp.asarray, x))
    keys = jax.random.split(jax.random.key(0))
    params = networks.policy_network.init(keys[0]), networks.value_network.init(keys[1])
    rng = np.random.default_rng(1)  # biases that are not zero
    params = jax.tree.map(lambda leaf: leaf + np.float32(0.1 * rng.standard_normal(leaf.shape)), params)
    return factory, networks, (state, *params)


def computed(networks: Any, params: Any, x: Any, sample: Any) -> dict[str, Any]:
    """What Brax computes in the dtype of its arguments."""
    distribution = networks.parametric_action_distribution
    logits = networks.policy_network.apply(params[0], params[1], x)
    return {
        "predict": distribution.mode(logits),
        "mode": distribution.create_dist(logits).mode(),
        "log_prob": distribution.log_prob(logits, sample),
        "value": networks.value_network.apply(params[0], params[2], x),
    }


def reference(networks: Any, params: Any, x: Any) -> dict[str, Any]:
    """In float64, with the errors of float32, as `elsewhere.check` takes it."""
    count = len(jax.tree.leaves(x)[0])
    sample = np.float32(np.random.default_rng(2).standard_normal((count, 2)))
    single = jax.tree.map(np.asarray, computed(networks, params, x, sample))
    with jax.enable_x64(True):
        wide = jax.tree.map(
            lambda leaf: np.float64(leaf) if np.issubdtype(np.asarray(leaf).dtype, np.floating) else leaf,
            (params, x, sample),
        )
        double = jax.tree.map(np.asarray, computed(networks, *wide))
    assert all(leaf.dtype == np.float64 for leaf in double.values())
    errors = {f"{name}_error": deviation(single[name], leaf) for name, leaf in double.items()}
    return {"sample": sample, **double, **errors}


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_policy_of_brax_acts_as_it_does(name: str, tmp_path: Any) -> None:
    """From the folder of its checkpoint, and from its pickle where that says enough."""
    size, options = LAYOUTS[name]
    normalized = name != "not normalized"
    factory, networks, params = made(size, options, normalized)
    x = observations(size, 32)
    (x["state"] if isinstance(x, dict) else x)[:, 1] = 3.0 + 1e-6 * (np.arange(32) % 3 - 1)
    expected = reference(networks, params, x)
    config = checkpoint.network_config(size, 2, normalized, factory)
    checkpoint.save(tmp_path / "steps", 7, params, config)
    found = brax.load(tmp_path / "steps" / "000000000007")
    result = check(found, expected, x, None, tmp_path)
    assert set(result) == {"mode", "predict", "log_prob", "value"}
    assert (found.policy[1].normalize is None) != normalized

    (tmp_path / "pickle").write_bytes(pickle.dumps(params))
    if name == "normal of the state":
        with pytest.raises(FileError, match=r"^noise_std_type: the std depends on the observation"):
            brax.load(tmp_path / "pickle", **PRIVILEGED)
        return
    more: dict[str, Any] = {"activation": "tanh"} if name == "tanh" else {}
    more |= PRIVILEGED if name == "asymmetric" else {}
    more |= {} if normalized else {"normalize_observations": False}
    again = brax.load(tmp_path / "pickle", **more)
    assert again.policy[1] == found.policy[1]
    same = jax.tree.map(lambda a, b: bool((a == b).all()), again.policy[0], found.policy[0])
    assert jax.tree.all(same)


@pytest.mark.parametrize("name", ["plain", "tanh", "asymmetric", "not normalized"])
def test_brax_acts_as_a_policy_that_is_given_back(name: str, tmp_path: Any) -> None:
    size, options = LAYOUTS[name]
    _, networks, params = made(size, options, name != "not normalized")
    (tmp_path / "pickle").write_bytes(pickle.dumps(params))
    found = brax.load(
        tmp_path / "pickle",
        activation="tanh" if name == "tanh" else None,
        normalize_observations=name != "not normalized",
        **(PRIVILEGED if name == "asymmetric" else {}),
    )
    dumped = brax.dump(found.policy)
    again = ppo.make_ppo_networks(**dumped.network, preprocess_observations_fn=statistics.normalize)
    x = observations(size, 32)
    sample = np.zeros((32, 2), np.float32)
    for one, other in zip(
        jax.tree.leaves(computed(networks, params, x, sample)),
        jax.tree.leaves(computed(again, dumped.params, x, sample)),
        strict=True,
    ):
        np.testing.assert_allclose(one, other, rtol=2e-6, atol=2e-6)
    if name != "not normalized":
        assert int(dumped.params[0].count) == 50
    act = ppo.make_inference_fn(again)(dumped.params, deterministic=True)
    got, _ = act(jax.tree.map(lambda leaf: leaf[0], x), jax.random.key(0))
    _, ours = pc.act(found.policy, (), jax.tree.map(lambda leaf: leaf[0], x))
    np.testing.assert_allclose(got, ours, rtol=2e-6, atol=2e-6)
    # what Brax saves of it is read again
    (tmp_path / "again").write_bytes(pickle.dumps(dumped.params))
    brax.load(tmp_path / "again", **({k: v for k, v in PRIVILEGED.items() if name == "asymmetric"}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"action_space": pc.Discrete(2)}, r"^action_space: got Discrete.*; Brax has vectors in \[-1, 1\]"),
        ({"memory": pc.GRU(4)}, r"^memory: got GRU"),
        ({"box_head": pc.NormalHead()}, r"^box_head: got NormalHead.*; Brax has SquashedNormalHead"),
        ({"normalize": pc.Normalize()}, r"^normalize: got Normalize.*; Brax has no clipping: clip=inf"),
        ({"actor": pc.MLP((4,), layer_norm=True)}, r"^actor: got MLP"),
        ({"critic": pc.MLP((4,), activation="relu")}, r"^critic: got MLP.*the same for both"),
        ({"observation_space": pc.Box(shape=(2, 2))}, r"^observation_space: got Box.*; Brax has vectors of floats"),
        ({"value_head": pc.RegressionHead(scale=2.0)}, r"^value_head: got RegressionHead"),
    ],
)  # fmt: skip
def test_what_brax_cannot_express_is_refused_by_its_field(changes: Any, message: str) -> None:
    scale = pc.Scale(std="state", positive="softplus", min_std=0.001)
    fields: dict[str, Any] = {
        "observation_space": pc.Box(shape=(3,)), "action_space": pc.Box(low=-1.0, high=1.0, shape=(2,)),
        "box_head": pc.SquashedNormalHead(scale), "actor": pc.MLP((4,)), "critic": pc.MLP((4,)),
    }  # fmt: skip
    brax.dump(pc.init(pc.ActorCriticConfig(**fields), key=jax.random.key(0)))
    policy = pc.init(pc.ActorCriticConfig(**{**fields, **changes}), key=jax.random.key(0))
    with pytest.raises(ConfigError, match=message):
        brax.dump(policy)


def test_a_damaged_checkpoint_is_refused(tmp_path: Any) -> None:
    size, options = LAYOUTS["asymmetric"]
    factory, _, params = made(size, options)
    checkpoint.save(tmp_path, 0, params, checkpoint.network_config(size, 2, True, factory))
    folder = tmp_path / "000000000000"
    with pytest.raises(
        FileError, match=r"there is no ppo_network_config\.json in it; expected the folder of one step"
    ):
        brax.load(tmp_path)
    with pytest.raises(
        FileError, match=r"^value_obs_key: got 'state' for a network of 6 inputs; the parts are"
    ):
        brax.load(folder, value_obs_key="state")
    with pytest.raises(FileError, match=r"^activation: got 'glu', expected one of"):
        brax.load(folder, activation="glu")
    settings = json.loads((folder / "ppo_network_config.json").read_text())
    settings["network_factory_kwargs"]["mean_clip_scale"] = 2.0
    (folder / "ppo_network_config.json").write_text(json.dumps(settings))
    with pytest.raises(FileError, match=r"^mean_clip_scale: the mean is s x / \(1 \+ \|x\|\)"):
        brax.load(folder)
    (folder / "ppo_network_config.json").write_text("{}")
    with pytest.raises(FileError, match=r"^ppo_network_config\.json: it is damaged"):
        brax.load(folder)
    settings["network_factory_kwargs"]["mean_clip_scale"] = None
    (folder / "ppo_network_config.json").write_text(json.dumps(settings))
    (folder / "_METADATA").write_bytes(b"{}")
    with pytest.raises(FileError, match=r"Orbax cannot read it"):
        brax.load(folder)
