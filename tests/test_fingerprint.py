"""The fingerprint: the same bytes wherever and whenever it is computed."""

import hashlib
import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgpack
import pytest
from cases import CONFIGS, SPACES, as_frozen

import policy_core as pc
from policy_core.configs import codec

ROOT = Path(__file__).parent.parent

# These values are in files on people's disks: a change that breaks one breaks the files.
GOLDEN: dict[str, tuple[Any, str]] = {
    "mlp": (pc.MLP(), "5db00010d620f13c8b55df5da5af8da1d93743a7250b112dbdbf5b9223ad6944"),
    "box": (
        pc.Box(low=(-1.5, -math.inf), high=(2, math.inf), shape=(2,), dtype="bfloat16"),
        "57b5253c47527b0d406f298c8cc0028c0e102ee1707e76504439d428d706b95d",
    ),
    "multi-discrete": (
        pc.MultiDiscrete((2, 3), start=(-1, 2**31 - 4)),
        "cab54674b8110ad32143178f1e5598b9852d5031035074707851cce90a7d82fd",
    ),
    "nested": (
        pc.Dict({"b": pc.Tuple((pc.Discrete(2), pc.MultiBinary((2, 2)))), "a": pc.Box()}),
        "f1f371954e69e48920597458e5fa510f3bf51f902b2757bed35281e6f8dcaa0c",
    ),
    "lstm": (
        pc.LSTM(70000, layer_norm=True),
        "d2baac9db343d55a131bb0965836ed079ad27c015a23122ff8785ea90ae09d18",
    ),
    "min-gru": (
        pc.MinGRU(3, horizon=1e3, learned_start=True),
        "003f71fe3232ba33aa6e345ccadb28c0fb69d4c95a19a5ccfd16bd1e8cbec839",
    ),
    "actor-critic": (
        pc.ActorCriticConfig(observation_space=pc.Box(shape=(4,)), action_space=pc.Discrete(2)),
        "587b77abdd1d8f2730ec65788891287e9d97e8cce6c3c318dbe27341a0de9e2a",
    ),
    "every field": (
        pc.ActorCriticConfig(
            observation_space=pc.Dict({"x": pc.Discrete(300, start=-70000), "y": pc.Box()}),
            action_space=pc.Dict({"a": pc.Discrete(2), "b": pc.Box(low=-1, high=1, shape=(2,))}),
            actor=pc.MLP((8, 300), activation="relu", kernel_init="lecun_normal", gain=1),
            critic=pc.MLP((70000,), activation="gelu", gain=0.1),
            trunk=None,
            encoder=pc.Parts({"x": pc.Embedding(3)}, rest=pc.Flatten()),
            actor_keys=("x",),
            critic_keys=("y", "x"),
            normalize=pc.Normalize(clip=5),
            memory=pc.Stack((pc.GRU(3), pc.WindowAttention(300, window=7)), residual=False),
            memory_sharing="separate",
            box_head=pc.NormalHead(pc.Scale(std="state", log_std=-0.5)),
            autoregressive=pc.Autoregressive({"b": ("a",)}, network=pc.MLP((5,))),
            temperature=1.5,
            actor_gain=1,
            critic_gain=2,
            param_dtype="float64",
            compute_dtype="bfloat16",
        ),
        "0e5b7559c5561242aff240cd389f139abbf8d9033fd2cc8e275c93de6d5fc458",
    ),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_the_fingerprint_is_the_one_on_record(name):
    config, value = GOLDEN[name]
    assert pc.fingerprint(as_frozen(config)).hex() == value


def test_the_fingerprint_is_32_bytes():
    assert {(type(pc.fingerprint(config)), len(pc.fingerprint(config))) for config in CONFIGS.values()} == {
        (bytes, 32)
    }


def test_the_configs_of_the_table_have_different_fingerprints():
    everything = [*CONFIGS.values(), *SPACES.values()]
    assert len({pc.fingerprint(config) for config in everything}) == len(set(everything)) > 40


def test_the_fingerprint_is_the_hash_of_sorted_plain_data():
    data = {
        "type": "policy_core/MLP",
        "fields": {
            "activation": "relu", "bias": True, "epsilon": 1e-5, "gain": 1.0, "hidden": [3, 70000],
            "kernel_init": "lecun_normal", "layer_norm": False,
        },
    }  # fmt: skip
    encoding = msgpack.packb(data)
    config = pc.MLP((3, 70000), activation="relu", kernel_init="lecun_normal", gain=1)
    assert codec.encoding_of(config) == encoding
    assert pc.fingerprint(config) == hashlib.sha256(b"policy_core config\n" + encoding).digest()


SCRIPT = """
import importlib.util, json, sys
for name in ("jax", "msgpack", "jaxtyping", "typing_extensions"):
    if importlib.util.find_spec(name) is None:
        print(json.dumps(name))
        raise SystemExit
import policy_core as pc
from cases import CONFIGS
print(json.dumps({name: pc.fingerprint(config).hex() for name, config in CONFIGS.items()}))
"""


def _fingerprints(python: str, **environment: str) -> Any:
    """The fingerprints of the table as computed by an interpreter, or what that lacks."""
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    result = subprocess.run(
        [python, "-c", SCRIPT],
        env={**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": path, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


@pytest.mark.parametrize("seed", ["0", "1"])
def test_the_fingerprint_does_not_depend_on_the_hash_seed(seed):
    expected = {name: pc.fingerprint(config).hex() for name, config in CONFIGS.items()}
    assert _fingerprints(sys.executable, PYTHONHASHSEED=seed) == expected


def _other_python() -> str:
    found = sorted(Path.home().glob(".pyenv/versions/3.13*/bin/python"))
    on_path = shutil.which("python3.13")
    if on_path is not None and "shims" not in on_path:  # a shim may lead nowhere
        return on_path
    if not found:
        pytest.skip("there is no Python 3.13 here")
    return str(found[-1])


def test_the_fingerprint_does_not_depend_on_the_version_of_python():
    got = _fingerprints(_other_python())
    if isinstance(got, str):
        pytest.skip(f"Python 3.13 is here, but without {got}")
    assert got == {name: pc.fingerprint(config).hex() for name, config in CONFIGS.items()}


def test_the_order_of_fields_in_the_source_does_not_matter():
    def declare(*names: str) -> Any:
        annotations = dict.fromkeys(names, int)
        return pc.static(type("Permuted", (), {"__module__": "permuted", "__annotations__": annotations}))

    encodings = [
        codec.encoding_of(declare(*names)(a=1, b=2, c=3)) for names in (["a", "b", "c"], ["c", "a", "b"])
    ]
    assert encodings[0] == encodings[1]
    assert list(msgpack.unpackb(encodings[0])["fields"]) == ["a", "b", "c"]


def test_diff_lists_exactly_the_fields_that_differ():
    base = CONFIGS["act box"]
    assert pc.diff(base, base) == []
    other = pc.ActorCriticConfig(
        observation_space=pc.Box(shape=(3,)),
        action_space=pc.Box(low=-1, shape=(3,)),
        actor=pc.MLP((8,), activation="relu"),
        critic=pc.MLP((8, 8)),
        box_head=pc.NormalHead(pc.Scale(std="fixed")),
        critic_gain=2,
    )
    assert pc.diff(base, other) == [
        ("action_space.low", "-inf", "-1.0"),
        ("actor.activation", "'tanh'", "'relu'"),
        ("box_head.scale.std", "'global'", "'fixed'"),
        ("critic.hidden", "(8,)", "(8, 8)"),
        ("critic_gain", "1.0", "2.0"),
    ]


def test_diff_tells_types_and_what_is_absent():
    assert pc.diff(pc.Discrete(2), pc.MultiBinary(2)) == [
        ("type of config", "policy_core/Discrete", "policy_core/MultiBinary"),
        ("n", "2", "(absent)"),
        ("start", "0", "(absent)"),
        ("shape", "(absent)", "(2,)"),
    ]
    left, right = (pc.Tuple((pc.Discrete(2), *rest)) for rest in ((), (pc.MultiBinary(3),)))
    assert pc.diff(left, right) == [
        ("spaces (length)", "1", "2"),
        ("type of spaces[1]", "(absent)", "policy_core/MultiBinary"),
        ("spaces[1].shape", "(absent)", "(3,)"),
    ]
    assert pc.diff(CONFIGS["shared trunk"], CONFIGS["act discrete"])[0] == (
        "action_space.n",
        "3",
        "5",
    )
    assert ("trunk", "(absent)", "None") in pc.diff(CONFIGS["shared trunk"], CONFIGS["act discrete"])
    assert pc.diff(pc.Tuple(()), pc.Tuple((pc.Discrete(1),)))[0] == ("spaces", "()", "(absent)")


def test_diff_is_empty_exactly_for_equal_configs():
    configs = list(CONFIGS.values())
    for i, left in enumerate(configs):
        for j, right in enumerate(configs):
            assert (left == right) == (i == j)
            # Of those whose spaces differ, neighbors: the spaces alone make a difference.
            same = (
                left.observation_space == right.observation_space and left.action_space == right.action_space
            )
            if same or abs(i - j) == 1:
                assert (pc.diff(left, right) == []) == (i == j)
