"""Policies of other libraries: what acts the same, what is refused, and that nothing in a file is ever run."""

import base64
import io
import json
import math
import os
import pickle
import subprocess
import sys
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from policy_core_adapters import numpy_runner
from policy_core_adapters.imports import brax, pickles, rl_games, rsl_rl, sb3

import policy_core as pc
from policy_core.errors import FileError

pytestmark = pytest.mark.usefixtures("unchecked")  # beartype doubles the time to trace

ROOT = Path(__file__).parent.parent
REAL = ROOT.parent / "shared" / "checkpoints"
real = pytest.mark.skipif(not REAL.is_dir(), reason="the real checkpoints are not in this place")


# WHAT TORCH AND STABLE-BASELINES3 WRITE, WITHOUT THEM


class _Named:
    """What is pickled as another global: `_Named("torch", "FloatStorage")`."""

    def __init__(self, module: str, name: str) -> None:
        self.module, self.name = module, name


class _Tensor:
    def __init__(self, array: np.ndarray) -> None:
        self.array = np.ascontiguousarray(array, np.float32)


class _Call:
    def __init__(self, function: _Named, *args: Any, state: Any = None) -> None:
        self.function, self.args, self.state = function, args, state


class _Pickler(pickle._Pickler):
    """The pickler of Python, that writes any global by its name and tensors as torch does."""

    def __init__(self, file: Any) -> None:
        super().__init__(file, protocol=2)
        self.storages: list[bytes] = []

    def save(self, obj: Any, save_persistent_id: bool = True) -> Any:
        if isinstance(obj, _Named):
            self.write(pickle.GLOBAL + f"{obj.module}\n{obj.name}\n".encode())
        elif isinstance(obj, _Tensor):
            self.storages.append(obj.array.tobytes())
            shape = obj.array.shape
            strides = tuple(step // 4 for step in obj.array.strides)
            storage = _Persistent(str(len(self.storages) - 1), obj.array.size)
            function = _Named("torch._utils", "_rebuild_tensor_v2")
            self.save(
                _Call(
                    function, storage, 0, shape, strides, False, _Call(_Named("collections", "OrderedDict"))
                )
            )
        elif isinstance(obj, _Persistent):
            self.save(("storage", _Named("torch", "FloatStorage"), obj.key, "cpu", obj.size))
            self.write(pickle.BINPERSID)
        elif isinstance(obj, _Call):
            self.save(obj.function)
            self.save(obj.args)
            self.write(pickle.REDUCE)
            if obj.state is not None:
                self.save(obj.state)
                self.write(pickle.BUILD)
        else:
            super().save(obj, save_persistent_id)


class _Persistent:
    def __init__(self, key: str, size: int) -> None:
        self.key, self.size = key, size


def pickled(value: Any) -> tuple[bytes, list[bytes]]:
    file = io.BytesIO()
    pickler = _Pickler(file)
    pickler.dump(value)
    return file.getvalue(), pickler.storages


def torch_file(value: Any) -> bytes:
    data, storages = pickled(value)
    return zipped({"archive/data.pkl": data, **{f"archive/data/{i}": x for i, x in enumerate(storages)}})


def zipped(files: dict[str, bytes], how: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", how) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return file.getvalue()


def numpy_array(array: Any) -> Any:
    array = np.asarray(array)
    reconstruct = _Named("numpy.core.multiarray", "_reconstruct")
    dtype = _Call(_Named("numpy", "dtype"), array.dtype.str[1:], False, True,
                  state=(3, "<", None, None, None, -1, -1, 0))  # fmt: skip
    return _Call(
        reconstruct,
        _Named("numpy", "ndarray"),
        (0,),
        b"b",
        state=(1, array.shape, dtype, False, array.tobytes()),
    )


def sb3_space(kind: str, **state: Any) -> dict[str, str]:
    cls = _Named(f"gymnasium.spaces.{kind.lower()}", kind)
    data, _ = pickled(_Call(cls, state=dict(state)))
    return {":type:": f"<class {kind}>", ":serialized:": base64.b64encode(data).decode()}


def sb3_box(shape: tuple[int, ...], low: float, high: float, dtype: str = "float32") -> dict[str, str]:
    bounds = {
        name: numpy_array(np.full(shape, value, dtype)) for name, value in (("low", low), ("high", high))
    }
    return sb3_space("Box", dtype=dtype, _shape=shape, **bounds)


def sb3_file(leaves: dict[str, np.ndarray], observation: Any, action: Any, **data: Any) -> bytes:
    document = {
        "policy_class": {"__module__": "stable_baselines3.common.policies"}, "policy_kwargs": {}, "use_sde": False,
        "observation_space": observation, "action_space": action, **data,
    }  # fmt: skip
    tensors = OrderedDict((name, _Tensor(leaf)) for name, leaf in leaves.items())
    return zipped(
        {
            "data": json.dumps(document).encode(),
            "policy.pth": torch_file(_Call(_Named("collections", "OrderedDict"), list(tensors.items()))),
            "_stable_baselines3_version": b"2.4.0",
        },
        zipfile.ZIP_DEFLATED,
    )


RNG = np.random.default_rng(0)


def dense(name: str, inputs: int, outputs: int) -> dict[str, np.ndarray]:
    shapes = {"weight": (outputs, inputs), "bias": (outputs,)}
    return {
        f"{name}.{kind}": (RNG.standard_normal(shape) / math.sqrt(inputs)).astype(np.float32)
        for kind, shape in shapes.items()
    }


def apply(leaves: dict[str, np.ndarray], name: str, x: Any) -> Any:
    return np.asarray(x, np.float64) @ leaves[f"{name}.weight"].T.astype(np.float64) + leaves[f"{name}.bias"]


def test_a_policy_with_a_shared_network_is_that_of_its_leaves(tmp_path):
    leaves = {
        **dense("mlp_extractor.shared_net.0", 3, 8), **dense("mlp_extractor.policy_net.0", 8, 7),
        **dense("mlp_extractor.value_net.0", 8, 6), **dense("mlp_extractor.value_net.2", 6, 5),
        **dense("action_net", 7, 2), **dense("value_net", 5, 1), "log_std": np.float32([0.3, -0.5]),
    }  # fmt: skip
    relu, _ = pickled({"activation_fn": _Named("torch.nn.modules.activation", "ReLU")})
    (tmp_path / "ppo.zip").write_bytes(
        sb3_file(leaves, sb3_box((3,), -np.inf, np.inf), sb3_box((2,), -1.0, 1.0),
                 policy_kwargs={":serialized:": base64.b64encode(relu).decode()})
    )  # fmt: skip
    found = sb3.load(tmp_path / "ppo.zip")
    _, config = found.policy
    assert (config.trunk.hidden, config.actor.hidden, config.critic.hidden) == ((8,), (7,), (6, 5))
    assert config.actor.activation == "relu"
    assert set(found.report) == set(leaves)
    assert found.report["action_net.weight"] == "actor/head/kernel"
    assert found.metadata["version"] == "2.4.0"
    for _ in range(20):
        x, action = RNG.standard_normal(3), RNG.standard_normal(2)
        shared = np.maximum(apply(leaves, "mlp_extractor.shared_net.0", x), 0)
        mean = apply(leaves, "action_net", np.maximum(apply(leaves, "mlp_extractor.policy_net.0", shared), 0))
        y = np.maximum(apply(leaves, "mlp_extractor.value_net.0", shared), 0)
        value = apply(leaves, "value_net", np.maximum(apply(leaves, "mlp_extractor.value_net.2", y), 0))[0]
        std = np.exp(leaves["log_std"].astype(np.float64))
        log_prob = np.sum(-0.5 * ((action - mean) / std) ** 2 - np.log(std) - 0.5 * np.log(2 * np.pi))
        observation = jnp.asarray(x, jnp.float32)
        assert np.allclose(pc.act(found.policy, (), observation)[1], np.clip(mean, -1, 1), atol=1e-6)
        got = pc.evaluate_action(found.policy, (), observation, jnp.asarray(action, jnp.float32))
        assert np.allclose(got[1], value, atol=1e-6)
        assert np.allclose(got[2], log_prob, atol=1e-5)
    pc.save(tmp_path / "ours", found.policy, metadata=found.metadata)
    runner = numpy_runner.load(tmp_path / "ours")
    assert np.allclose(runner.act((), np.float32(x))[1], np.clip(mean, -1, 1), atol=1e-6)


def test_images_with_their_channels_first(tmp_path):
    channels, height, width = 2, 44, 52  # of which 2 x 3 pixels are left, so that their order counts
    convolutions = [("cnn.0", channels, 32, 8, 4), ("cnn.2", 32, 64, 4, 2), ("cnn.4", 64, 64, 3, 1)]
    leaves: dict[str, np.ndarray] = {}
    for name, inputs, outputs, side, _ in convolutions:
        kernel = RNG.standard_normal((outputs, inputs, side, side)) / math.sqrt(inputs * side * side)
        leaves[f"features_extractor.{name}.weight"] = kernel.astype(np.float32)
        leaves[f"features_extractor.{name}.bias"] = (0.1 * RNG.standard_normal(outputs)).astype(np.float32)
    leaves |= dense("features_extractor.linear.0", 64 * 2 * 3, 16)
    leaves |= {
        name.replace("features", f"{owner}_features"): leaf
        for name, leaf in leaves.items()
        for owner in ("pi", "vf")
    }
    leaves |= {**dense("action_net", 16, 3), **dense("value_net", 16, 1)}
    image = sb3_box((channels, height, width), 0, 255, "uint8")
    (tmp_path / "file").write_bytes(sb3_file(leaves, image, sb3_space("Discrete", n=3, start=0)))
    found = sb3.load(tmp_path / "file")
    assert found.policy[1].observation_space.shape == (height, width, channels)
    x = RNG.integers(0, 256, (channels, height, width)).astype(np.uint8)
    y = x.astype(np.float64) / 255
    for name, _, _, side, stride in convolutions:
        windows = np.lib.stride_tricks.sliding_window_view(y, (side, side), (1, 2))[:, ::stride, ::stride]
        kernel = leaves[f"features_extractor.{name}.weight"].astype(np.float64)
        bias = leaves[f"features_extractor.{name}.bias"][:, None, None]
        y = np.maximum(np.einsum("chwij,ocij->ohw", windows, kernel) + bias, 0)
    features = np.maximum(apply(leaves, "features_extractor.linear.0", y.ravel()), 0)
    _, distribution, value = pc.forward(found.policy, (), jnp.asarray(x.transpose(1, 2, 0)))
    assert np.allclose(distribution.logits, apply(leaves, "action_net", features), atol=1e-5)
    assert np.allclose(value.value(), apply(leaves, "value_net", features)[0], atol=1e-5)
    assert found.report["pi_features_extractor.cnn.0.weight"].startswith("not needed")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"use_sde": True}, r"^use_sde: log_std has the shape \(2,\), expected \(features, 2\)"),
        ({"more": dense("mlp_extractor.other", 2, 2)}, r"^the leaf 'mlp_extractor.other.bias' has no place in the"),
        ({"more": {"features_extractor.mine.weight": np.ones(2)}}, r"^features_extractor_class: the leaf 'feat"),
        ({"without": "value_net.bias"}, r"^the leaf 'value_net.bias' is missing"),
        ({"action_space": sb3_space("Dict", spaces={})}, r"^action_space: a Dict space is not known here"),
        ({"action_space": {"n": 2}}, r"^action_space: it is not a space of gym"),
    ],
)  # fmt: skip
def test_what_is_not_known_is_refused_by_its_name(change, message, tmp_path):
    leaves = {
        **dense("action_net", 3, 2),
        **dense("value_net", 3, 1),
        **change.pop("more", {}),
        "log_std": np.zeros(2),
    }
    leaves.pop(change.pop("without", ""), None)
    spaces = {"observation_space": sb3_box((3,), -1, 1), "action_space": sb3_box((2,), -1, 1)}
    data = {**spaces, **change}
    file = sb3_file(leaves, data.pop("observation_space"), data.pop("action_space"), **data)
    (tmp_path / "file").write_bytes(file)
    with pytest.raises(FileError, match=message):
        sb3.load(tmp_path / "file")


def test_statistics_and_values_of_rl_games(tmp_path):
    leaves = {
        **dense("a2c_network.actor_mlp.0", 3, 8), **dense("a2c_network.mu", 8, 2), **dense("a2c_network.value", 8, 1),
        "a2c_network.sigma": np.float32([0.1, -0.2]), "running_mean_std.running_mean": np.float32([1, 2, 3]),
        "running_mean_std.running_var": np.float32([1, 4, 9]), "running_mean_std.count": np.float32(50),
        "value_mean_std.running_mean": np.float32([10]), "value_mean_std.running_var": np.float32([4]),
        "value_mean_std.count": np.float32(50),
    }  # fmt: skip
    (tmp_path / "file").write_bytes(
        torch_file({"model": {name: _Tensor(leaf) for name, leaf in leaves.items()}})
    )
    found = rl_games.load(tmp_path / "file", activation="relu")
    x = np.float32([2.0, -30.0, 1.0])
    y = np.clip((x - [1, 2, 3]) / np.sqrt(np.array([1, 4, 9]) + 1e-5), -5, 5)
    y = np.maximum(apply(leaves, "a2c_network.actor_mlp.0", y), 0)
    _, distribution, value = pc.forward(found.policy, (), jnp.asarray(x))
    assert np.allclose(distribution.loc, apply(leaves, "a2c_network.mu", y), atol=1e-5)
    expected = apply(leaves, "a2c_network.value", y)[0] * np.sqrt(4 + 1e-5) + 10
    assert np.allclose(value.value(), expected, atol=1e-5)
    assert found.report["value_mean_std.running_var"] == "folded into critic/head"


def test_a_training_checkpoint_of_rsl_rl(tmp_path):
    leaves = {
        **dense("actor.0", 3, 8), **dense("actor.2", 8, 2), **dense("critic.0", 3, 6), **dense("critic.2", 6, 1),
        "std": np.float32([0.5, 2.0]), "actor_obs_normalizer._mean": np.float32([[1, 2, 3]]),
        "actor_obs_normalizer._std": np.float32([[1, 2, 0]]), "actor_obs_normalizer._var": np.float32([[1, 4, 0]]),
        "actor_obs_normalizer.count": np.float32(50),
    }  # fmt: skip
    leaves |= {name.replace("actor_", "critic_"): leaf for name, leaf in leaves.items() if "_obs_" in name}
    state = {"model_state_dict": {name: _Tensor(leaf) for name, leaf in leaves.items()}, "iter": 3}
    (tmp_path / "file").write_bytes(torch_file(state))
    found = rsl_rl.load(tmp_path / "file", activation="tanh")
    x = np.float32([2.0, -3.0, 3.01])
    y = (x - [1, 2, 3]) / (np.array([1, 2, 0]) + 0.01)
    expected = apply(leaves, "actor.2", np.tanh(apply(leaves, "actor.0", y)))
    _, distribution, value = pc.forward(found.policy, (), jnp.asarray(x))
    assert np.allclose(distribution.loc, expected, atol=1e-5)
    assert np.allclose(distribution.scale, [0.5, 2.0], rtol=1e-6)
    assert np.allclose(
        value.value(), apply(leaves, "critic.2", np.tanh(apply(leaves, "critic.0", y)))[0], atol=1e-5
    )


def test_a_policy_of_brax(tmp_path):
    rng = np.random.default_rng(1)
    layers = {
        f"hidden_{i}": {"kernel": rng.standard_normal(shape).astype(np.float32) / 2, "bias": rng.standard_normal(shape[1:]).astype(np.float32)}
        for i, shape in enumerate([(3, 8), (8, 4)])
    }  # fmt: skip
    statistics = _Call(
        _Named("brax.training.acme.running_statistics", "RunningStatisticsState"),
        state={"mean": numpy_array(np.float32([1, 2, 3])), "std": numpy_array(np.float32([1, 2, 1e-6])),
               "count": numpy_array(np.float32(9)), "summed_variance": numpy_array(np.ones(3, np.float32))},
    )  # fmt: skip
    arrays = jax.tree.map(numpy_array, layers)
    (tmp_path / "file").write_bytes(pickled((statistics, {"params": arrays}))[0])
    found = brax.load(tmp_path / "file")
    x = np.float32([0.5, -1.0, 3.000002])
    y = (np.float64(x) - [1, 2, 3]) / np.float64(np.float32([1, 2, 1e-6]))
    y = y @ layers["hidden_0"]["kernel"] + layers["hidden_0"]["bias"]
    y = y / (1 + np.exp(-y)) @ layers["hidden_1"]["kernel"] + layers["hidden_1"]["bias"]
    loc, std = y[:2], np.log1p(np.exp(y[2:])) + 0.001
    _, distribution, value = pc.forward(found.policy, (), jnp.asarray(x))
    assert value is None
    assert np.allclose(distribution.loc, loc, rtol=1e-5)
    assert np.allclose(np.exp(distribution.log_std), std, rtol=1e-5)
    assert np.allclose(pc.act(found.policy, (), jnp.asarray(x))[1], np.tanh(loc), atol=1e-5)


# REAL FILES, AGAINST WHAT THEIR OWN LIBRARIES GAVE


def _close(got: Any, expected: Any, tolerance: float = 2e-6) -> None:
    got, expected = np.asarray(got, np.float64), np.asarray(expected, np.float64)
    assert np.max(np.abs(got - expected) / np.maximum(1, np.abs(expected))) <= tolerance


@real
@pytest.mark.parametrize(
    "name",
    ["a2c_Acrobot-v1", "maskable_snake_mlp", "ppo_BipedalWalker-v3", "ppo_CartPole-v1",
     "ppo_MountainCarContinuous-v0", "ppo_Pendulum-v1"],
)  # fmt: skip
def test_real_files_of_stable_baselines(name, tmp_path):
    path = REAL / "sb3" / f"{name}.zip"
    statistics = REAL / "sb3" / f"{name}.vecnormalize.pkl"
    found = sb3.load(path, statistics if statistics.exists() else None)
    exploring = name in ("ppo_MountainCarContinuous-v0", "ppo_Pendulum-v1")  # by gSDE
    assert isinstance(found.policy[1].box_head, pc.heads.GSDEHead) == exploring
    expected = np.load(f"{path}.reference.npz")
    observations, policy = jnp.asarray(expected["raw"]), found.policy
    masks = jnp.asarray(expected["mask"]) if "mask" in expected.files else None
    drawn = expected["sample"]
    drawn = jnp.asarray(drawn, jnp.int32 if drawn.dtype == np.int64 else jnp.float32)

    @jax.jit
    @lambda f: jax.vmap(f, in_axes=(0, 0, None if masks is None else 0))
    def outputs(observation: Any, action: Any, mask: Any) -> Any:
        state = pc.reset(policy)
        _, chosen = pc.act(policy, state, observation, action_mask=mask)
        return chosen, *pc.evaluate_action(policy, state, observation, action, action_mask=mask)[1:]

    chosen, value, log_prob, entropy = outputs(observations, drawn, masks)
    _close(chosen, expected["predict"])
    _close(value, expected["value"])
    if exploring:  # the density is narrow, and float32 of either library is off by 3e-6
        exact = _exact_log_prob(policy, expected["raw"], expected["sample"])
        assert np.abs(log_prob - exact).max() <= 3 * np.abs(expected["log_prob"] - exact).max()
    else:
        _close(log_prob, expected["log_prob"])
    _close(entropy, expected["entropy"])
    pc.save(tmp_path / "file", policy, metadata=found.metadata)
    runner = numpy_runner.load(tmp_path / "file")
    for i in range(20):
        mask = None if masks is None else np.asarray(masks[i])
        _close(
            runner.act(runner.reset(), np.asarray(observations[i]), action_mask=mask)[1],
            expected["predict"][i],
            5e-6,
        )


def _exact(layer: Any, x: Any) -> Any:
    return x @ np.float64(layer["kernel"]) + np.float64(layer["bias"])


def _exact_log_prob(policy: Any, x: Any, action: Any) -> Any:
    """That of gSDE as Stable-Baselines3 has it, in float64."""
    params, config = policy
    x = np.float64(x)
    if config.normalize is not None:
        mean, variance = (np.float64(params["normalize"][name]).sum(0) for name in ("mean", "variance"))
        x = (x - mean) / np.sqrt(variance + config.normalize.epsilon)
        x = np.clip(x, -config.normalize.clip, config.normalize.clip)
    for layer in params["actor"]["tower"].values():
        x = {"tanh": np.tanh, "relu": lambda x: np.maximum(x, 0)}[config.actor.activation](_exact(layer, x))
    head = params["actor"]["head"]
    variance = x**2 @ np.exp(np.float64(head["log_std"])) ** 2 + 1e-6
    squares = (np.float64(action) - _exact(head, x)) ** 2 / variance
    return -0.5 * np.sum(squares + np.log(2 * np.pi * variance), -1)


@real
def test_real_recurrent_files():
    path = REAL / "sb3" / "recurrent_plume.zip"
    policy, expected = sb3.load(path).policy, np.load(f"{path}.reference.npz")
    first = jnp.asarray(expected["first"])
    _, distributions, values = pc.forward_sequence(
        policy, pc.reset(policy), jnp.asarray(expected["x"]), is_first=first
    )
    actions = jnp.asarray(expected["a"], jnp.int32)
    assert np.array_equal(jax.vmap(lambda d: d.mode())(distributions), actions)
    _close(jax.vmap(lambda d, a: d.log_prob(a))(distributions, actions), expected["lp"])
    _close(values.value(), expected["v"])
    for name, recurrent in (("rl_sar/go2_robot_lab_policy.pt", False), ("unitree/g1.motion.pt", True)):
        policy, expected = rsl_rl.load(REAL / name).policy, np.load(REAL / f"{name}.reference.npz")
        assert (policy[1].memory is not None) == recurrent
        x = jnp.asarray(expected["x"])
        _, distributions, _ = pc.forward_sequence(
            policy, pc.reset(policy), x, is_first=jnp.arange(len(x)) == 0
        )
        if recurrent:
            _close(distributions.loc, expected["y"], 5e-6)
            continue
        exact = expected["x"].astype(np.float64)  # torch itself is off by as much, of sums of up to 130
        for i in range(3):
            exact = _exact(policy[0]["actor"]["tower"][f"hidden_{i}"], exact)
            exact = np.where(exact > 0, exact, np.expm1(np.minimum(exact, 0)))
        exact = _exact(policy[0]["actor"]["head"], exact)
        assert np.abs(distributions.loc - exact).max() <= 3 * np.abs(expected["y"] - exact).max()


@real
def test_real_files_of_rl_games_and_brax_are_read_whole():
    found = rl_games.load(REAL / "rl_games" / "cartpole_vel_info.pth")
    assert found.policy[1].action_space == pc.Discrete(2)
    assert len(found.report) == 15
    found = brax.load(REAL / "brax" / "myosuite_mjx_brax_policy")
    assert found.policy[1].actor.hidden == (32,) * 4
    assert all(pc.act(found.policy, (), jnp.ones(2))[1].shape == (6,) for _ in range(1))


# HOSTILE FILES


class _Evil:
    def __init__(self, function: Any, *args: Any) -> None:
        self.reduced = function, args

    def __reduce__(self) -> Any:
        return self.reduced


def _deep(depth: int) -> bytes:
    return b"\x80\x02" + b"(" * depth + b"t" * depth + b"."


def _storage(count: int, content: bytes) -> bytes:
    pid = ("storage", _Named("torch", "FloatStorage"), "0", "cpu", count)
    data, _ = pickled(pid)
    return zipped({"archive/data.pkl": data[:-1] + b"Q.", "archive/data/0": content})


def _view(size: Any, stride: Any) -> bytes:
    function = _Named("torch._utils", "_rebuild_tensor_v2")
    data, _ = pickled(_Call(function, _Persistent("0", 2), 0, size, stride, False, {}))
    return zipped({"archive/data.pkl": data, "archive/data/0": bytes(8)})


def _bomb() -> bytes:
    return zipped({"archive/data.pkl": bytes(2**28)}, zipfile.ZIP_DEFLATED)


PICKLES: dict[str, Any] = {
    "os.system": lambda: pickle.dumps(_Evil(os.system, "touch HIT")),
    "builtins.eval": lambda: pickle.dumps(_Evil(eval, "open('HIT', 'w')")),
    "getattr": lambda: pickle.dumps(_Evil(getattr, "a", "upper")),
    "getattr of a call": lambda: pickle.dumps(_Evil(getattr, _Evil(__import__, "os"), "system")),
    "a chain of calls": lambda: b"cos\nsystem\n" + b"(S'touch HIT'\ntR" * 1000 + b".",
    "names by the thousand": lambda: b"".join(b"cos\na%d\n0" % i for i in range(20_000)) + b"N.",
    "subprocess in text": lambda: b"csubprocess\nPopen\n(S'touch HIT'\ntR.",
    "inst": lambda: b"(S'touch HIT'\nios\nsystem\n.",
    "codecs": lambda: b"c_codecs\nencode\n(S'aa'\nS'zlib'\ntR.",
    "extension": lambda: b"\x80\x02\x82\x01.",
    "a dtype of objects": lambda: pickle.dumps(np.array([os.system], object)),
    "a dtype by expression": lambda: b"cnumpy\ndtype\n(S'(2,'\ntR.",
    "an array of 2^40": lambda: pickled(_Call(_Named("numpy.core.multiarray", "_reconstruct"), _Named("numpy", "ndarray"), (0,), b"b", state=(1, (2**40,), _Call(_Named("numpy", "dtype"), "f4"), False, b"")))[0],
    "a memo of 2^32": lambda: b"\x80\x02]r\xff\xff\xff\xff.",
    "a memo of 2^26, which there is memory for": lambda: b"\x80\x02]r\x00\x00\x00\x04.",
    "bytes of 2^40": lambda: b"\x80\x04\x8e" + (2**40).to_bytes(8, "little") + b".",
    "deep": lambda: _deep(100_000),
    "a list in itself": lambda: b"\x80\x02]q\x00h\x00a.",
    "state of a function": lambda: b"c_codecs\nencode\n}S'__defaults__'\n(S'zlib'\nS'zlib'\ntsb.",
    "state of a class": lambda: b"cnumpy\ndtype\n(N}S'value'\nI1\nstb.",
    "unfinished": lambda: b"\x80\x02]",
    "nothing": lambda: b"",
    "text": lambda: b"hello",
}  # fmt: skip
ZIPS: dict[str, Any] = {
    "a storage of 2^40": lambda: _storage(2**40, bytes(8)),
    "a storage of another size": lambda: _storage(3, bytes(8)),
    "a view beyond its storage": lambda: _view((3,), (1,)),
    "a view of one number 2^40 times": lambda: _view((2**40,), (0,)),
    "a negative stride": lambda: _view((2,), (-1,)),
    "a zip bomb": _bomb,
    "a path out of the zip": lambda: zipped(
        {"archive/data.pkl": pickled(_Persistent("../../../etc/passwd", 2))[0]}
    ),
    "two pickles": lambda: zipped({"a/data.pkl": b"N.", "b/data.pkl": b"N."}),
    "no pickle": lambda: zipped({"archive/other": b""}),
    "no zip": lambda: b"PK\x03\x04nothing",
    "an old torch": lambda: pickle.dumps(119547037146038801333356, 2),
}


def _model(data: bytes, policy: bytes = b"") -> bytes:
    return zipped(
        {"data": data, "policy.pth": policy, "_stable_baselines3_version": b"2"}, zipfile.ZIP_DEFLATED
    )


MODELS: dict[str, Any] = {  # of Stable-Baselines3
    "data that is deep": lambda: _model(b"[" * 100_000),
    "data that is one large number": lambda: _model(b"9" * 1_000_000),
    "data that is no dict": lambda: _model(b"[]"),
    "a bomb in policy.pth": lambda: _model(b"{}", _bomb()),
    "a bomb beside others": lambda: zipped({"data": b"{}", "a": bytes(2**28)}, zipfile.ZIP_DEFLATED),
    "a policy class that runs": lambda: _model(json.dumps({"policy_class": _serialized(_Evil(os.system, "touch HIT"))}).encode()),
    "keywords that run": lambda: _model(json.dumps({"policy_kwargs": _serialized({"a": _Evil(eval, "open('HIT', 'w')")})}).encode(), torch_file({})),
    "base64 that is none": lambda: _model(json.dumps({"policy_class": {":serialized:": "%"}}).encode()),
    "names out of the folder": lambda: zipped({"../data": b"{}", "/etc/passwd": b"", "..\\policy.pth": b""}),
}  # fmt: skip


def _serialized(value: Any) -> dict[str, str]:
    return {":serialized:": base64.b64encode(pickle.dumps(value)).decode()}


SCRIPT = """
import re, sys, time
from policy_core_adapters.imports import pickles, sb3
def strangers(data):
    return pickles.load(data, strangers=True)
loads = {"zip": pickles.load_torch, "pkl": pickles.load, "any": strangers, "sb3": sb3.load}
def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
for path in sys.argv[1:]:
    load = loads[path[-3:]]
    data = path if load is sb3.load else open(path, "rb").read()
    open("/proc/self/clear_refs", "w").write("5")
    before, start = peak(), time.process_time()
    try:
        load(data)
        print("loaded", end=" ")
    except ValueError as error:
        print(type(error).__name__, end=" ")
    print(time.process_time() - start, (peak() - before) * 1024, flush=True)
"""


def test_hostile_files_are_refused_soon_cheaply_and_never_run(tmp_path):
    paths = []
    tables = {"pkl": PICKLES, "zip": ZIPS, "sb3": MODELS, "any": PICKLES}
    for kind, table in tables.items():
        for i, make in enumerate(table.values()):
            paths.append(tmp_path / f"{i}.{kind}")
            paths[-1].write_bytes(make())
    result = subprocess.run(
        [sys.executable, "-c", SCRIPT, *map(str, paths)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'adapters'}"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    names = [f"{kind}: {name}" for kind, table in tables.items() for name in table]
    rows = dict(zip(names, (line.split() for line in result.stdout.splitlines()), strict=False))
    assert len(rows) == len(names), result.stderr
    # With `strangers` a name alone is no reason to refuse a file, and nothing more: nothing is ever run.
    harmless = {name for name, row in rows.items() if name.startswith("any: ") and row[0] == "loaded"}
    assert {name: row[0] for name, row in rows.items() if name not in harmless} == dict.fromkeys(
        [name for name in names if name not in harmless], "FileError"
    )
    assert len(harmless) < len(PICKLES) / 2
    assert {name: row for name, row in rows.items() if float(row[1]) > 0.5 or float(row[2]) > 2**26} == {}
    assert not (tmp_path / "HIT").exists()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"cos\nsystem\n(S'ls'\ntR.", r"^pickle: it asks for os\.system, which is not on the list"),
        (b"cbuiltins\neval\n.", r"^pickle: it asks for builtins\.eval"),
        (
            b"cstable_baselines3.common.vec_env.vec_normalize\nsystem\n.",
            r"it asks for stable_baselines3\..*\.system",
        ),
    ],
)
def test_a_global_is_refused_by_its_name(data, message):
    with pytest.raises(FileError, match=message):
        pickles.load(data)


def test_arrays_come_out_as_they_went_in():
    arrays = [
        np.arange(6, dtype="f8").reshape(2, 3).T,
        np.zeros((0, 2), "i4"),
        np.float32(3.5),
        np.array([True, False]),
    ]
    for protocol in (2, 4):
        for array in arrays:
            got = pickles.load(pickle.dumps(array, protocol))
            assert np.array_equal(got, array)
    shared = np.ones(3)
    a, b = pickles.load(pickle.dumps([shared, shared]))
    assert a is b
