"""Static configs: what is refused and in which words; equality, hash, copies, JAX."""

import copy
import dataclasses
import enum
import math
import pickle
import sys
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import msgpack
import numpy as np
import pytest
from cases import CONFIGS, SPACES
from hypothesis import HealthCheck, given, settings
from strategies import CONFIGS as ANY_CONFIG
from strategies import SPACES as ANY_SPACE

import policy_core as pc
from policy_core.configs import codec, registry, validation
from policy_core.distributions.graph import Graph
from policy_core.errors import ConfigError
from policy_core.functions import step
from policy_core.heads.discrete import LogitsHead

unchecked = pytest.mark.usefixtures("unchecked")
few = settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])


pc.heads.register_mask_function("at_least", lambda mask, seen: jnp.arange(3) >= seen["a"])


@pc.static
class Inner:
    size: int = 1


@pc.static
class Sample:
    flag: bool = False
    count: int = 0
    rate: float = 0.0
    name: str = "a"
    maybe: int | None = None
    choice: Literal["x", "y"] = "x"
    level: Literal[1, 2] = 1
    pair: tuple[int, float] = (0, 0.0)
    many: tuple[tuple[int, ...], ...] = ()
    either: float | tuple[float, ...] = 0.0
    inner: Inner = Inner()
    inners: tuple[Inner, ...] = ()


class StrSubclass(str):
    __slots__ = ()


class Color(enum.IntEnum):
    RED = 1


class Point(NamedTuple):
    x: int
    y: float


@dataclasses.dataclass(frozen=True)
class Plain:
    size: int = 1


USE_A_TUPLE = r"; use a tuple$"
USE_LEGAL = r"; use bool, int, float, str, None, a tuple of these, or a static config$"
ONLY_LEGAL = r"; a config holds only bool, int, float, str, None, a tuple of these, or a static config$"
ARRAY = r"; use a tuple of Python numbers; arrays that learn belong in the params$"
NUMBER = r"; use a Python number, such as `\.item\(\)` gives; a traced value belongs in the params$"
BOOL = r"; use an int or a float: True and 1 would share a compiled program$"
FUNCTION = r"; refer to functions by their registered name, such as 'tanh'$"

REFUSED: list[tuple[str, Any, str]] = [
    ("count", [1], r"count: got list \[1\], expected int" + USE_A_TUPLE),
    ("many", [(1,)], r"many: got list .*, expected tuple\[tuple\[int, \.\.\.\], \.\.\.\]" + USE_A_TUPLE),
    ("many", ((1,), [2]), r"many\[1\]: got list \[2\], expected tuple\[int, \.\.\.\]" + USE_A_TUPLE),
    ("either", [0.0], r"either: got list .*, expected float \| tuple\[float, \.\.\.\]" + USE_A_TUPLE),
    ("inner", {"size": 1}, r"inner: got dict \{'size': 1\}, expected Inner" + USE_LEGAL),
    ("many", {1}, r"many: got set \{1\}, expected .*" + USE_LEGAL),
    ("either", np.zeros(3), r"either: got ndarray of shape \(3,\) and dtype float64, expected .*" + ARRAY),
    ("either", jnp.zeros((2, 3)), r"either: got ArrayImpl of shape \(2, 3\) and dtype float32, .*" + ARRAY),
    ("rate", np.float64(1), r"rate: got float64 of shape \(\) and dtype float64, expected float" + NUMBER),
    ("rate", np.float32(1), r"rate: got float32 of shape \(\) .*, expected float" + NUMBER),
    ("rate", np.array(1.0), r"rate: got ndarray of shape \(\) .*, expected float" + NUMBER),
    ("rate", jnp.array(1.0), r"rate: got ArrayImpl of shape \(\) .*, expected float" + NUMBER),
    ("count", np.int64(1), r"count: got int64 of shape \(\) .*, expected int" + NUMBER),
    ("flag", np.bool_(True), r"flag: got bool\w* of shape \(\) .*, expected bool" + NUMBER),
    ("either", (0.0, np.float64(1)), r"either\[1\]: got float64 .*, expected float" + NUMBER),
    ("name", np.str_("a"), r"name: got str_ .*, expected str" + NUMBER),
    ("rate", math.nan, r"rate: got NaN, expected a number; NaN never equals itself$"),
    ("either", (0.0, math.nan), r"either\[1\]: got NaN, expected a number; NaN never equals itself$"),
    ("count", True, r"count: got bool True, expected int" + BOOL),
    ("rate", False, r"rate: got bool False, expected float" + BOOL),
    ("maybe", True, r"maybe: got bool True, expected int \| None" + BOOL),
    ("level", True, r"level: got bool True, expected 1 or 2" + BOOL),
    ("many", ((1,), (2, True)), r"many\[1\]\[1\]: got bool True, expected int" + BOOL),
    ("pair", (True, 0.0), r"pair\[0\]: got bool True, expected int" + BOOL),
    ("flag", 1, r"flag: got int 1, expected bool" + ONLY_LEGAL),
    ("count", 1.0, r"count: got float 1\.0, expected int" + ONLY_LEGAL),
    ("count", None, r"count: got NoneType None, expected int" + ONLY_LEGAL),
    ("count", 1j, r"count: got complex 1j, expected int" + ONLY_LEGAL),
    ("count", Color.RED, r"count: got Color .*, expected int" + ONLY_LEGAL),
    ("name", b"a", r"name: got bytes b'a', expected str" + ONLY_LEGAL),
    ("name", StrSubclass("a"), r"name: got StrSubclass 'a', expected str" + ONLY_LEGAL),
    ("choice", StrSubclass("x"), r"choice: got StrSubclass 'x', expected 'x' or 'y'; use one of these$"),
    ("choice", "z", r"choice: got str 'z', expected 'x' or 'y'; use one of these$"),
    ("level", 1.0, r"level: got float 1\.0, expected 1 or 2" + ONLY_LEGAL),
    ("pair", (1,), r"pair: got tuple \(1,\), expected tuple\[int, float\]" + ONLY_LEGAL),
    ("pair", Point(1, 2.0), r"pair: got Point .*, expected tuple\[int, float\]" + ONLY_LEGAL),
    ("inner", Plain(), r"inner: got Plain Plain\(size=1\), expected Inner" + ONLY_LEGAL),
    ("inner", pc.NormalHead(), r"inner: got NormalHead .*, expected Inner" + ONLY_LEGAL),
    ("inners", (Inner(), Plain()), r"inners\[1\]: got Plain .*, expected Inner" + ONLY_LEGAL),
    ("name", ["a" * 100], r"name: got list \['a{55}\.\.\., expected str" + USE_A_TUPLE),
    ("name", jnp.tanh, r"name: got \w+ .*, expected str" + FUNCTION),
    ("name", print, r"name: got builtin_function_or_method .*, expected str" + FUNCTION),
    ("name", lambda x: x, r"name: got function .*, expected str" + FUNCTION),
    ("inner", Inner, r"inner: got the class Inner, expected Inner; use Inner\(\.\.\.\)"),
    ("count", 2**63, r"count: got 9223372036854775808, expected an int of at most 64 bits$"),
    ("maybe", -(2**63) - 1, r"maybe: got -9223372036854775809, expected an int of at most 64 bits$"),
    ("rate", 2**53 + 1, r"rate: got the int 9007199254740993, which no float holds exactly$"),
    ("rate", 10**400, r"rate: got the int 10+, which no float holds exactly$"),
]


@pytest.mark.parametrize(
    ("field", "value", "message"),
    REFUSED,
    ids=[f"{i}-{field}-{type(value).__name__}" for i, (field, value, _) in enumerate(REFUSED)],
)
def test_a_field_refuses_what_is_not_its_type_naming_path_and_fix(field, value, message):
    with pytest.raises(ConfigError, match=r"(?s)^Sample\." + message):
        Sample(**{field: value})


@pytest.mark.parametrize("transform", [jax.jit, jax.grad, jax.vmap])
def test_a_traced_value_is_refused(transform):
    def function(x):
        with pytest.raises(ConfigError, match=r"^Sample\.rate: got \w*Tracer of shape \(\).*" + NUMBER):
            Sample(rate=x)
        return x

    transform(function)(jnp.ones(3) if transform is jax.vmap else 1.0)


def test_extremes_are_accepted_as_they_are():
    config = Sample(count=2**63 - 1, maybe=-(2**63), rate=math.inf, either=(-math.inf, 5e-324))
    assert (config.count, config.maybe) == (2**63 - 1, -(2**63))
    assert config.rate == math.inf
    assert config.either == (-math.inf, 5e-324)


def test_an_int_for_a_float_becomes_that_float():
    config = Sample(rate=1, pair=(1, 2), either=(1, 2.0))
    assert (type(config.rate), type(config.pair[1]), type(config.either[0])) == (float, float, float)
    assert type(config.pair[0]) is int
    assert config == Sample(rate=1.0, pair=(1, 2.0), either=(1.0, 2.0))
    assert Sample(rate=2**53).rate == 2.0**53


def test_minus_zero_becomes_zero():
    config = Sample(rate=-0.0, either=(-0.0, 1.0))
    assert math.copysign(1, config.rate) == math.copysign(1, config.either[0]) == 1
    assert config == Sample(rate=0.0, either=(0.0, 1.0))
    assert hash(config) == hash(Sample(rate=0.0, either=(0.0, 1.0)))


def test_fields_are_keyword_only_unless_declared_otherwise():
    with pytest.raises(TypeError):
        Sample(True)
    with pytest.raises(TypeError):
        pc.MLP((8,), "relu")
    assert pc.MLP((8,)).hidden == (8,)


def test_a_static_class_is_final():
    with pytest.raises(ConfigError, match=r"WiderMLP: derives from the config MLP; configs are final"):

        @pc.static
        class WiderMLP(pc.MLP):
            extra: int = 0


# One instance of every shipped config, and for each of its fields other legal values.
@pc.static
class _Logits:
    """A head of a user for discrete spaces."""

    plain: pc.heads.LogitsHead = pc.heads.LogitsHead()
    check_space = pc.heads.LogitsHead.check_space
    policy_space = pc.heads.LogitsHead.policy_space
    init = pc.heads.LogitsHead.init
    distribution = pc.heads.LogitsHead.distribution
    env_action = pc.heads.LogitsHead.env_action
    policy_action = pc.heads.LogitsHead.policy_action


ALTERNATIVES: list[tuple[Any, dict[str, list[Any]]]] = [
    (
        pc.Box(low=0, high=5, shape=(2,)),
        {
            "low": [1, -math.inf, (0, 1), 5e-324],
            "high": [6, math.inf, (5, 6), 5.000000000000001],
            "shape": [(3,), (2, 1), (), (1, 2)],
            "dtype": ["float16", "bfloat16", "float64", "int8", "int16", "int32", "int64", "uint8",
                      "uint16", "uint32", "uint64"],
        },
    ),
    (pc.Discrete(3, start=1), {"n": [2, 4], "start": [0, -1, 2]}),
    (
        pc.MultiDiscrete((2, 3)),
        {"nvec": [(3, 2), (2, 4)], "shape": [(2, 1), (1, 2)], "start": [(0, 1), (1, 0)]},
    ),
    (pc.MultiBinary(4), {"shape": [5, (2, 2), (4, 1)]}),
    (
        pc.Dict({"a": pc.Discrete(3), "b": pc.Discrete(2)}),
        {"spaces": [(("a", pc.Discrete(3)),), (("b", pc.Discrete(3)), ("a", pc.Discrete(2))),
                    (("a", pc.Discrete(3)), ("c", pc.Discrete(2))), ()]},
    ),
    (
        pc.Tuple((pc.Discrete(3), pc.Discrete(2))),
        {"spaces": [(pc.Discrete(2), pc.Discrete(3)), (pc.Discrete(3),), ()]},
    ),
    (
        pc.MLP((64, 32)),
        {
            "hidden": [(32, 64), (64,), ()],
            "activation": ["relu", "gelu"],
            "kernel_init": ["orthogonal", "lecun_uniform"],
            "gain": [2, math.nextafter(math.sqrt(2), 2)],
            "layer_norm": [True],
            "epsilon": [1e-6],
            "bias": [False],
        },
    ),
    (
        pc.ResidualMLP(64),
        {
            "width": [65],
            "blocks": [1],
            "expansion": [1],
            "activation": ["gelu"],
            "kernel_init": ["lecun_normal"],
            "gain": [1],
        },
    ),
    (pc.RegressionHead(), {"objectives": [1, 2], "scale": [2], "symlog": [True]}),
    (
        pc.heads.PopArtHead(),
        {"objectives": [1, 2], "preserve": [False], "max_count": [9, math.inf], "epsilon": [0.5]},
    ),
    (
        pc.TwoHotHead(low=0.0, high=1.0),
        {"low": [-1], "high": [2], "bins": [3], "symlog": [True], "objectives": [1], "gain": [1]},
    ),
    (
        pc.HLGaussHead(low=0.0, high=1.0),
        {"low": [-1], "high": [2], "bins": [3], "sigma": [1], "objectives": [1], "gain": [1]},
    ),
    (
        pc.Scale(),
        {
            "std": ["state", "fixed"],
            "log_std": [-1, 5e-324],
            "low": [-5.0],
            "high": [2.0],
            "positive": ["softplus", "identity"],
            "min_std": [0.5],
            "factor": [2],
            "bounding": ["tanh"],
        },
    ),
    (
        pc.NormalHead(),
        {"scale": [pc.Scale(std="state")], "mean_bound": [2], "offset": [1, (1.0, 2.0)], "factor": [2, (1.0, 2.0)],
         "clip": [5]},
    ),
    (pc.SquashedNormalHead(), {"scale": [pc.Scale(std="state")], "mean_bound": [2]}),
    (
        pc.heads.GSDEHead(),
        {"log_std": [-1, 5e-324], "positive": ["expln"], "full_std": [False], "squash": [True],
         "learn_features": [True], "resample_every": [1, 8], "epsilon": [1e-8]},
    ),
    (pc.BetaHead(), {"low": [0.5], "high": [100.0]}),
    (pc.BinsHead(), {"bins": [12]}),
    (
        pc.Autoregressive({"b": ("a",)}),
        {
            "parents": [(), (("b", ("c",)),), (("c", ("a",)),), ((1, (0,)),)],
            "network": [pc.MLP(())],
            "masks": [(("b", "at_least"),)],
        },
    ),
    (
        Graph(spaces=(("a", pc.Discrete(2)), ("b", pc.Box())), parents=(("b", ("a",)),)),
        {"spaces": [(("a", pc.Discrete(3)), ("b", pc.Box()))], "parents": [()]},
    ),
    (LogitsHead(), {}),
    (
        pc.heads.PartHeads({"a": pc.NormalHead()}),
        {"heads": [(), (("b", pc.NormalHead()),), (("a", pc.BetaHead()),), ((0, pc.NormalHead()),)]},
    ),
    *(
        (cell(4), {"size": [5], "layer_norm": [True], "learned_start": [True]}) for cell in (pc.GRU, pc.LSTM)
    ),
    (
        pc.Normalize(),
        {"clip": [5, math.inf], "epsilon": [1e-5], "form": ["std"], "min_std": [1], "max_count": [9],
         "keys": [(), ("x",)]},
    ),
    (pc.Flatten(), {}),
    (pc.Embedding(4), {"size": [5]}),
    (pc.encoders.Encode(pc.MLP()), {"network": [pc.MLP(())]}),
    (
        pc.encoders.CNN(channels=(4, 4), kernels=(3, 3)),
        {"channels": [(4, 5)], "kernels": [(3, 2)], "strides": [(1, 2)], "padding": ["SAME"], "pool": ["max", "mean"],
         "window": [3], "activation": ["tanh"], "size": [5, None], "gain": [1]},
    ),
    (pc.networks.LayerNorm(), {"epsilon": [1e-6]}),
    (pc.networks.Sequential((pc.MLP(),)), {"networks": [(), (pc.MLP(), pc.MLP())]}),
    (
        pc.env_actions.InEnvActions(
            pc.ActorCriticConfig(observation_space=pc.Box(), action_space=pc.Box(low=-1.0, high=1.0))
        ),
        {"config": [pc.ActorCriticConfig(observation_space=pc.Box(), action_space=pc.Discrete(2))]},
    ),
    (pc.memory.FrameStack(3), {"frames": [4], "fill": ["first"]}),
    (pc.NatureCNN(), {"size": [5]}),
    (pc.ImpalaCNN(), {"channels": [(16,), (16, 32)], "blocks": [1], "size": [5]}),
    (pc.MinAtarCNN(), {"filters": [5], "size": [5]}),
    (
        pc.Parts({"a": pc.Flatten()}),
        {"encoders": [(), (("b", pc.Flatten()),), ((0, pc.Flatten()),), (("a", pc.Embedding(3)),)],
         "rest": [pc.Flatten()]},
    ),
    (pc.MinGRU(4), {"size": [5], "horizon": [99], "learned_start": [True]}),
    (pc.WindowAttention(4), {"size": [8], "window": [31], "heads": [2]}),
    (
        pc.Stack((pc.GRU(4), pc.LSTM(4))),
        {"layers": [(pc.LSTM(4), pc.GRU(4)), (pc.GRU(4),)], "residual": [True], "skip": ["concat"]},
    ),
    (
        pc.ActorCriticConfig(
            observation_space=pc.Dict({"x": pc.Discrete(3), "y": pc.Discrete(3)}),
            action_space=pc.Dict({"a": pc.Discrete(2), "b": pc.Discrete(3)}),
            memory=pc.GRU(4),
            memory_sharing="separate",
        ),
        {
            "observation_space": [pc.Box(shape=(3,)), pc.Discrete(2), pc.Tuple((pc.Discrete(3),))],
            "encoder": [pc.Parts({}, rest=pc.Flatten()), pc.Parts({}, rest=pc.Embedding(3))],
            "action_space": [pc.Discrete(3), pc.MultiDiscrete((2,)), pc.MultiBinary(2), pc.Box()],
            "actor": [pc.MLP(()), pc.MLP(gain=2)],  # None only beside a critic that has nothing of its own
            "critic": [pc.MLP(()), pc.MLP(gain=2)],
            "trunk": [pc.MLP()],
            "normalize": [pc.Normalize(), pc.Normalize(clip=5)],
            "memory": [pc.GRU(5), pc.LSTM(4), pc.Stack((pc.GRU(4),))],
            "memory_sharing": ["shared", "actor"],
            "actor_keys": [("x",), ("y",)],
            "critic_keys": [("x",), ("x", "y")],
            "box_head": [pc.NormalHead(pc.Scale(log_std=1)), pc.SquashedNormalHead()],
            "autoregressive": [pc.Autoregressive({"b": ("a",)}), pc.Autoregressive({"a": ("b",)})],
            "temperature": [1.0, 2.0],
            "actor_gain": [0.02, 1],
            "critic_gain": [0.5, 2],
            "param_dtype": ["bfloat16", "float16", "float64"],
            "compute_dtype": ["bfloat16", "float16", "float64"],
            "value_head": [pc.RegressionHead(scale=2), pc.TwoHotHead(low=0.0, high=1.0)],
            "name": ["walker"],
            "encoder_sharing": ["separate"],
            "discrete_head": [_Logits()],
            "heads": [pc.heads.PartHeads({}), pc.heads.PartHeads({"a": pc.heads.LogitsHead()})],
        },
    ),
]  # fmt: skip
SHIPPED = [config for config, _ in ALTERNATIVES]


def _names(values: list[Any]) -> list[str]:
    return [type(value).__name__ for value in values]


def test_the_table_of_alternatives_covers_every_shipped_config_and_field():
    shipped = {
        cls
        for cls in registry.CONFIGS.values()
        if cls.__module__.startswith("policy_core.")
        and getattr(sys.modules[cls.__module__], cls.__name__, None) is cls  # not made by an example
    }
    assert {type(config) for config in SHIPPED} == shipped
    for config, alternatives in ALTERNATIVES:
        assert set(alternatives) == {field.name for field in dataclasses.fields(config)}


@pytest.mark.parametrize(("config", "alternatives"), ALTERNATIVES, ids=_names(SHIPPED))
def test_changing_any_field_changes_equality_hash_and_fingerprint(config, alternatives):
    fields = validation.fields_of(config)
    again = codec.build(type(config), fields)
    assert again is not config
    assert again == config
    assert hash(again) == hash(config)
    assert pc.fingerprint(again) == pc.fingerprint(config)
    variants = [
        codec.build(type(config), {**fields, name: value}) for name in fields for value in alternatives[name]
    ]
    everything = [config, *variants]
    for i, a in enumerate(everything):
        assert all(a != b for b in everything[i + 1 :])
    assert len({hash(a) for a in everything}) == len(everything)
    assert len({pc.fingerprint(a) for a in everything}) == len(everything)
    assert len({jax.tree.structure(a) for a in everything}) == len(everything)


def test_configs_of_different_classes_with_the_same_fields_differ():
    @pc.static
    class Other:
        size: int = 1

    assert Inner() != Other()
    assert pc.fingerprint(Inner()) != pc.fingerprint(Other())
    assert Inner() != Plain()
    assert Inner() != 1
    assert pc.Tuple(()) != pc.Dict({})


@pytest.mark.parametrize("config", SHIPPED, ids=_names(SHIPPED))
def test_configs_are_frozen(config):
    for field in dataclasses.fields(config):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(config, field.name, getattr(config, field.name))
        with pytest.raises(dataclasses.FrozenInstanceError):
            delattr(config, field.name)
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.unheard_of = 1


TABLE = {
    **dict(zip(_names(SHIPPED), SHIPPED, strict=True)),
    **{f"space {name}": space for name, space in SPACES.items()},
    **CONFIGS,
}


@pytest.mark.parametrize("config", TABLE.values(), ids=TABLE)
def test_pickles_and_copies_are_equal(config):
    pickles = [
        pickle.loads(pickle.dumps(config, protocol)) for protocol in range(pickle.HIGHEST_PROTOCOL + 1)
    ]
    for twin in (*pickles, copy.copy(config), copy.deepcopy(config), dataclasses.replace(config)):
        assert twin == config
        assert type(twin) is type(config)
        assert hash(twin) == hash(config)
        assert repr(twin) == repr(config)


def test_a_replaced_field_is_checked():
    with pytest.raises(ConfigError, match=r"^MLP\.gain: got str"):
        dataclasses.replace(pc.MLP(), gain="1")


@unchecked
@few
@given(ANY_CONFIG | ANY_SPACE)
def test_a_config_survives_plain_data_and_msgpack(config):
    assert codec.from_data(codec.to_data(config)) == config
    data = msgpack.unpackb(codec.encoding_of(config), raw=False)
    twin = codec.from_data(data)
    assert twin == config
    assert codec.encoding_of(twin) == codec.encoding_of(config)


@unchecked
@few
@given(ANY_CONFIG, ANY_CONFIG)
def test_equality_hash_fingerprint_and_diff_agree(a, b):
    twin = pickle.loads(pickle.dumps(a))
    for left, right in ((a, b), (a, twin)):
        equal = codec.to_data(left) == codec.to_data(right)
        assert (left == right) == equal
        assert (pc.fingerprint(left) == pc.fingerprint(right)) == equal
        assert (not pc.diff(left, right)) == equal
        assert not equal or hash(left) == hash(right)


def _data(**fields: Any) -> dict[str, Any]:
    return {"type": "policy_core/MLP", "fields": fields}


def test_a_field_that_the_data_lacks_takes_its_default():
    assert codec.from_data(_data(gain=1.0)) == pc.MLP(gain=1)
    assert codec.from_data({"type": "policy_core/Discrete", "fields": {"n": 3}}) == pc.Discrete(3)


BAD_DATA: list[tuple[Any, str]] = [
    ({"type": "policy_core/Discrete", "fields": {"start": 1}},
     r"^config: the field 'n' of policy_core/Discrete is missing$"),
    ({"type": "nowhere/Nothing", "fields": {}},
     r"^config: no config type named 'nowhere/Nothing' is registered; import the module that defines it$"),
    ({"type": 3, "fields": {}}, r"^config: no config type named 3 is registered"),
    ({"type": ["policy_core/MLP"], "fields": {}}, r"^config: no config type named \['policy_core/MLP'\]"),
    (_data(wings=2), r"^config: policy_core/MLP has no field 'wings'; it has \['activation', 'bias', .*\]$"),
    ({"type": "policy_core/MLP"}, r"^config: a config is a map of 'type' and 'fields', got \['type'\]$"),
    ({"type": "policy_core/MLP", "fields": []}, r"^config: a config is a map of 'type' and 'fields'"),
    ({"type": "policy_core/MLP", "fields": {}, "more": 1}, r"^config: a config is a map of .*'more'\]$"),
    (_data(hidden=[1, 2.5]), r"^MLP\.hidden\[1\]: got float 2\.5, expected int"),
    (_data(hidden=[0]), r"^MLP\.hidden: got \(0,\), expected widths of at least 1$"),
    (_data(gain=math.nan), r"^MLP\.gain: got NaN"),
    ({"type": "policy_core/Tuple", "fields": {"spaces": [{"type": "x/Y", "fields": {}}]}},
     r"^config\.spaces\[0\]: no config type named 'x/Y'"),
]  # fmt: skip


@pytest.mark.parametrize(("data", "message"), BAD_DATA, ids=range(len(BAD_DATA)))
def test_data_that_is_no_config_is_refused(data, message):
    with pytest.raises(ConfigError, match=message):
        codec.from_data(data)


def _declare(module: str, name: str, **annotations: type) -> type:
    """A static class as if it had been written in that module."""
    return pc.static(type(name, (), {"__module__": module, "__annotations__": annotations}))


def test_two_classes_of_one_name_are_refused():
    _declare("one_package.a", "Torso", width=int)
    with pytest.raises(
        ConfigError,
        match=r"^one_package\.b\.Torso: a config named 'one_package/Torso' exists already in "
        r"one_package\.a; rename one of the two$",
    ):
        _declare("one_package.b", "Torso", width=int)
    _declare("another_package.b", "Torso", width=int)


def test_a_class_that_is_declared_again_replaces_itself():
    _declare("reloaded_package.a", "Torso", width=int)
    again = _declare("reloaded_package.a", "Torso", width=int, height=int)
    config = again(width=1, height=2)
    assert codec.from_data(codec.to_data(config)) == config


def test_a_config_is_a_tree_without_leaves():
    for config in SHIPPED:
        assert jax.tree.leaves(config) == []
        assert jax.tree.map(lambda x: x + 1, config) is config
    params = {"w": jnp.ones(2)}
    assert jax.tree.leaves((params, Inner())) == [params["w"]]


def _step(pair: Any, x: Any) -> Any:
    params, config = pair
    assert type(config) is Inner
    return {"w": params["w"] * x * config.size}, config


TRANSFORMS: dict[str, Any] = {
    "jit": lambda pair: jax.jit(_step)(pair, 2.0),
    "vmap": lambda pair: jax.tree.map(
        lambda x: x[1], jax.vmap(_step, in_axes=(None, 0))(pair, jnp.array([1.0, 2.0]))
    ),
    "grad": lambda pair: jax.grad(lambda pair: jnp.sum(_step(pair, 2.0)[0]["w"]))(pair),
    "scan": lambda pair: jax.lax.scan(lambda pair, x: (_step(pair, x), None), pair, jnp.array([0.5, 4.0]))[0],
    "cond": lambda pair: jax.lax.cond(
        jnp.array(True), lambda pair: _step(pair, 2.0), lambda pair: pair, pair
    ),
    "while_loop": lambda pair: jax.lax.while_loop(
        lambda pair: pair[0]["w"][0] < 6, lambda pair: _step(pair, 2.0), pair
    ),
    "device_put": lambda pair: jax.device_put(_step(pair, 2.0)),
    "checkpoint": lambda pair: jax.checkpoint(_step)(pair, 2.0),
}


@pytest.mark.parametrize("name", TRANSFORMS)
def test_the_pair_goes_through_every_transformation(name):
    config = Inner(size=3)
    params, out = TRANSFORMS[name](({"w": jnp.ones(2)}, config))
    assert out == config
    expected = {"scan": 18.0}.get(name, 6.0)
    assert params["w"].tolist() == [expected] * 2


def test_equal_configs_built_anew_compile_once():
    traces = []

    @jax.jit
    def function(pair: Any) -> Any:
        traces.append(pair[1])
        return pair[0] * pair[1].rate

    for rate in (2, 2.0, -0.0, 0, 0.0):
        for _ in range(2):
            config = Sample(rate=rate, inner=Inner(size=7))
            assert function((jnp.ones(1), config))[0] == rate
    assert len(traces) == 2
    function((jnp.ones(1), pickle.loads(pickle.dumps(config))))
    function((jnp.ones(1), codec.from_data(codec.to_data(config))))
    assert len(traces) == 2
    function((jnp.ones(1), Sample(rate=0, inner=Inner(size=8))))
    assert len(traces) == 3


def test_a_config_is_a_static_argument():
    traces = []

    def function(config: Any, x: Any) -> Any:
        traces.append(config)
        return x * config.size

    jitted = jax.jit(function, static_argnums=0)
    assert [int(jitted(Inner(size=size), 1)) for size in (2, 2, 3)] == [2, 2, 3]
    assert len(traces) == 2


def test_init_compiles_once_for_equal_configs():
    def build() -> Any:
        return pc.ActorCriticConfig(
            observation_space=pc.Box(shape=(2,)), action_space=pc.Discrete(2),
            actor=pc.MLP((2,)), critic=pc.MLP((2,)),
        )  # fmt: skip

    pc.init(build(), key=jax.random.key(0))
    before = step._init._cache_size()
    pc.init(build(), key=jax.random.key(1))
    assert step._init._cache_size() == before
