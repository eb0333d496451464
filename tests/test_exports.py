"""Policies lowered to graphs act as `act` does; the graphs are computed by NumPy here."""

import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import OBSERVATION, SPACES, config
from exported import (
    ALL,
    BOUNDED,
    CONFIGS,
    MASKS,
    REFUSED,
    SAMPLE,
    check_close,
    compare,
    feeds_of,
    named,
    outputs_of,
    policy_of,
    saved,
    steps_of,
)
from policy_core_adapters.exports import loss, replay
from policy_core_adapters.exports.graph import Graph, evaluate
from policy_core_adapters.exports.lowering import ExportError, lower
from policy_core_adapters.exports.quantize import quantized
from policy_core_adapters.exports.sampling import sample
from test_numpy_runner import SAMPLED

import policy_core as pc
from policy_core.configs.codec import to_data

pytestmark = pytest.mark.usefixtures("unchecked")  # beartype doubles the time to trace


@pytest.mark.parametrize("name", SAMPLE)
def test_a_lowered_policy_acts_as_it_does(name, tmp_path):
    policy = policy_of(CONFIGS[name])
    path = saved(policy, tmp_path / "file")
    lowered = lower(path, outputs=outputs_of(name), masks="rows", is_first=True, mask_functions=MASKS)
    steps = steps_of(policy)
    compare(name, steps, evaluate(lowered.graph, feeds_of(lowered, policy, steps)))


@pytest.mark.parametrize("name", ["gru", "act nested", "parts"])
def test_axes_in_front_change_nothing(name, tmp_path):
    policy = policy_of(CONFIGS[name])
    lowered = lower(saved(policy, tmp_path / "file"), masks="rows", is_first=True)
    steps = steps_of(policy, 6)
    feeds = feeds_of(lowered, policy, steps)
    flat = evaluate(lowered.graph, feeds)
    deep = evaluate(lowered.graph, {key: x.reshape(2, 3, *x.shape[1:]) for key, x in feeds.items()})
    for key, x in flat.items():
        assert np.allclose(deep[key].reshape(x.shape), x, rtol=1e-6, atol=1e-6)
        alone = evaluate(lowered.graph, {name: rows[4] for name, rows in feeds.items()})
        assert np.allclose(alone[key], x[4], rtol=1e-6, atol=1e-6)


def test_a_joint_mask_allows_combinations(tmp_path):
    space = pc.MultiDiscrete((2, 3, 2), start=(0, 1, 0))
    policy = policy_of(config(pc.Dict({"a": space, "b": pc.Discrete(3)}), temperature=2.0))
    allowed = np.random.default_rng(0).random((100, 2, 3, 2)) < 0.2
    allowed[3] = False  # allows everything
    masks = {"a": pc.spaces.JointMask(allowed), "b": None}
    steps = steps_of(policy, 100, masks)
    path = saved(policy, tmp_path / "file")
    outputs = ("action", "policy_action", "value", "log_prob")
    lowered = lower(path, outputs=outputs, masks={"a": "joint"})
    assert lowered.masks == {"a": "joint"}
    feeds = {"observation": steps.observations, "action_mask/a": allowed}
    assert set(lowered.graph.inputs) == set(feeds)
    compare("joint", steps, evaluate(lowered.graph, feeds))
    with pytest.raises(ExportError, match=r"^masks: 'c' is no discrete part of the action$"):
        lower(path, masks={"c": "rows"})


@pytest.mark.parametrize("junk", [math.nan, math.inf, -math.inf])
def test_what_is_masked_is_never_chosen_whatever_the_logits(junk, tmp_path):
    params, made = policy_of(config(pc.MultiDiscrete((3, 3))))
    params["actor"]["head"]["bias"] = params["actor"]["head"]["bias"].at[1].set(junk)
    path = saved((params, made), tmp_path / "file")
    x = np.random.default_rng(0).standard_normal((50, 3)).astype(np.float32)
    rows = {"0": np.tile([True, False, True], (50, 1)), "1": np.tile([False, True, True], (50, 1))}
    for noise in (False, True):
        lowered = lower(path, masks="rows", noise=noise)
        feeds = {"observation": x, **{f"action_mask/{i}": row for i, row in rows.items()}}
        if noise:
            feeds["noise"] = np.random.default_rng(1).random((50, 2), np.float32)
        action = evaluate(lowered.graph, feeds)["action"]
        assert set(action[:, 0].tolist()) <= {0, 2}
        assert set(action[:, 1].tolist()) <= {1, 2}


LAWS = {**SAMPLED, "squashed, in part": config(SPACES["box mixed bounds"], box_head=pc.SquashedNormalHead())}


@pytest.mark.parametrize("name", LAWS)
def test_draws_have_the_law_of_jax(name, tmp_path):
    policy, count = policy_of(LAWS[name]), 4000
    path = saved(policy, tmp_path / "file")
    lowered = lower(path, noise=True, mask_functions=MASKS)
    rng, observation = np.random.default_rng(0), np.array([0.3, -0.2, 0.5], np.float32)
    feeds = replay.others_of(lowered, rng, True, (count,))
    assert feeds.keys() == lowered.noise.keys()
    got = evaluate(lowered.graph, feeds | {"observation": np.tile(observation, (count, 1))})
    keys = jax.random.split(jax.random.key(0), count)
    _, expected = jax.vmap(lambda key: pc.act(policy, (), observation, key=key))(keys)
    for key, want in named(expected, "action").items():
        a, b = (np.asarray(x).reshape(count, -1).astype(float).round(5) for x in (got[key], want))
        for column in range(a.shape[1]):  # Kolmogorov and Smirnov, two samples, a level of 1e-5 or so
            both = np.sort(np.concatenate([a[:, column], b[:, column]]))
            apart = [np.searchsorted(np.sort(x[:, column]), both, side="right") / count for x in (a, b)]
            assert np.max(np.abs(apart[0] - apart[1])) < 2.5 * np.sqrt(2 / count), (key, column)


@pytest.mark.parametrize("name", ["gSDE", "squashed gSDE"])
def test_noise_that_is_kept_is_an_input(name, tmp_path):
    policy = policy_of(CONFIGS[name])
    lowered = lower(saved(policy, tmp_path / "file"), outputs=("action", "log_prob"), noise=True)
    kept = {"gSDE": {"noise": None}, "squashed gSDE": {"noise/y/z": 2}}[name]
    assert lowered.kept == kept
    assert not any("exploration" in key for key in lowered.graph.inputs)
    state, observation = pc.reset(policy), np.array([0.3, -0.2, 0.5], np.float32)
    after, want = pc.act(policy, state, observation, key=jax.random.key(0))
    matrices = [x for key, x in named(after, "state").items() if key.endswith("matrix")]
    feeds = {"observation": observation, **replay.others_of(lowered, np.random.default_rng(0), True)}
    feeds |= {**lowered.initial, **dict(zip(kept, map(np.asarray, matrices), strict=True))}
    got = evaluate(lowered.graph, feeds)
    for key, x in named(want, "action").items():
        if x.dtype.kind == "f":  # the other parts are drawn from other numbers
            check_close(key, got[key], x)
    mode = pc.env_action(policy, pc.action_distribution(policy, state, observation)[1].mode())
    assert not np.allclose(jax.tree.leaves(mode)[-1], jax.tree.leaves(want)[-1], atol=1e-3)


def test_an_actor_has_nothing_that_the_critic_alone_sees(tmp_path):
    path = saved(policy_of(CONFIGS["privileged critic"]), tmp_path / "file")
    lowered = lower(path)
    assert list(lowered.graph.inputs) == ["observation/x", "state/actor"]
    assert list(lowered.graph.outputs) == ["next_state/actor", "action"]
    largest = max(x.size for x in lowered.graph.constants.values())
    assert largest == 24  # the head of the actor: nothing of the critic is left
    whole = lower(path, outputs=("value",))
    assert set(whole.graph.inputs) == {"observation/truth", "observation/x", "state/actor", "state/critic"}


def test_a_state_begins_where_an_episode_does(tmp_path):
    policy = policy_of(config(pc.Discrete(3), memory=pc.LSTM(4, learned_start=True)))
    lowered = lower(saved(policy, tmp_path / "file"), is_first=True)
    for key, start in named(pc.reset(policy), "state").items():
        assert np.array_equal(lowered.initial[key], start)
    x, rng = np.ones(3, np.float32), np.random.default_rng(0)
    feeds = {"observation": x, "is_first": np.array(True)}
    any_state = {key: rng.standard_normal(start.shape, np.float32) for key, start in lowered.initial.items()}
    one, other = (evaluate(lowered.graph, feeds | state) for state in (any_state, lowered.initial))
    assert all(np.array_equal(one[key], other[key]) for key in one)
    without = lower(tmp_path / "file")
    assert "is_first" not in without.graph.inputs


def test_what_was_registered_is_given_by_name(tmp_path):
    from policy_core.networks import register_activation

    register_activation("exports_square", lambda x: x * x)
    policy = policy_of(config(pc.Discrete(3), actor=pc.MLP((8,), activation="exports_square")))
    path = saved(policy, tmp_path / "file")
    with pytest.raises(ExportError, match=r"^activation: 'exports_square' is a function that was registered"):
        lower(path)
    lowered = lower(path, activations={"exports_square": lambda graph, x: graph.op("mul", x, x)})
    x = np.random.default_rng(0).standard_normal((50, 3)).astype(np.float32)
    wanted = jax.vmap(lambda x: pc.act(policy, (), x)[1])(x)
    assert np.array_equal(evaluate(lowered.graph, {"observation": x})["action"], wanted)
    path = saved(policy_of(ALL["autoregressive"]), tmp_path / "other")
    with pytest.raises(ExportError, match=r"^Autoregressive.masks\['aim'\]: 'others' is a function that was"):
        lower(path)


def test_a_member_of_a_population_and_low_precision_params(tmp_path):
    policies = [policy_of(CONFIGS["act box"], seed) for seed in range(3)]
    population = jax.tree.map(lambda *x: jnp.stack(x), *policies)
    path = saved(population, tmp_path / "file", self_test=True)
    lowered, x = lower(path, member=1), np.ones(3, np.float32)
    check_close(
        "action", evaluate(lowered.graph, {"observation": x})["action"], pc.act(policies[1], (), x)[1]
    )
    found = replay.replay(lowered, lambda feeds: evaluate(lowered.graph, feeds), calls=1)
    assert found.against == "self-test"
    assert found.deviation <= 1e-6
    with pytest.raises(ValueError, match=r"^member: got \(\), expected an index for each of the axes"):
        lower(path)
    half = policy_of(config(SPACES["box"], param_dtype="bfloat16"))
    action = evaluate(lower(saved(half, tmp_path / "half")).graph, {"observation": x})["action"]
    check_close("action", action, pc.act(half, (), x)[1])


# REFUSED BY NAME

UNKNOWN = {"type": "mine/Thing", "fields": {"objectives": None}}


def _edited(path, name="act box", **fields):
    """A file with other config data."""
    import hashlib

    import msgpack
    from by_hand import closed, opened

    document = opened(pc.to_bytes(policy_of(ALL[name]), self_test=False))
    data = msgpack.unpackb(document["config"])
    data["fields"] = dict(sorted((data["fields"] | fields).items()))
    encoding = msgpack.packb(data)
    seal = {"config": encoding, "fingerprint": hashlib.sha256(b"policy_core config\n" + encoding).digest()}
    path.write_bytes(closed(document | seal))
    return path


@pytest.mark.parametrize(
    ("fields", "what"),
    [
        ({"actor": UNKNOWN}, "network"),
        ({"box_head": UNKNOWN}, "box_head"),
        ({"encoder": UNKNOWN}, "encoder"),
        ({"memory": UNKNOWN}, "memory"),
        ({"autoregressive": UNKNOWN}, "autoregressive"),
        ({"normalize": UNKNOWN}, "normalize"),
        ({"value_head": UNKNOWN}, "value_head"),
        ({"heads": UNKNOWN}, "heads"),
    ],
)
def test_a_class_of_ones_own_is_refused_by_name(fields, what, tmp_path):
    path = _edited(tmp_path / "file", **fields)
    expected = rf"^{what}: 'mine/Thing' is carried by no export, which know the classes of policy_core only"
    with pytest.raises(ExportError, match=expected):
        lower(path, outputs=("action", "value"))


@pytest.mark.parametrize("name", REFUSED)
def test_low_precision_is_refused_by_name(name, tmp_path):
    path = saved(policy_of(ALL[name]), tmp_path / "file")
    expected = {"act box bfloat16": "Box.dtype: bfloat16 is carried by no export; act with JAX or"}
    want = expected.get(
        name, "compute_dtype: bfloat16 is carried by no export, which compute in float32; act"
    )
    with pytest.raises(ExportError, match=rf"^{re.escape(want)}"):
        lower(path)


def test_what_cannot_be_carried_is_refused_by_name(tmp_path):
    def refused(message, path, **options):
        with pytest.raises(ExportError, match=rf"^{re.escape(message)}"):
            lower(path, **options)

    refused("ActorCriticConfig.more: no export knows this field", _edited(tmp_path / "a", more=1))
    two_hot = to_data(ALL["two-hot value"].value_head)
    two_hot["fields"]["tower"] = 1
    edited = _edited(tmp_path / "b", "two-hot value", value_head=two_hot)
    refused("TwoHotHead.tower: no export knows this field", edited, outputs=("value",))
    wide = _edited(tmp_path / "w", compute_dtype="float64")
    refused("compute_dtype: float64 is carried by no export", wide)
    beta = saved(policy_of(ALL["beta"]), tmp_path / "c")
    refused("outputs: the log_prob of a BetaHead is carried by no export", beta, outputs=("log_prob",))
    refused("outputs: got 'entropy', expected some of", beta, outputs=("entropy",))
    refused("masks: got 'flat', expected 'none', 'rows' or 'joint'", beta, masks="flat")
    inside = saved(policy_of(CONFIGS["in environment actions"]), tmp_path / "d")
    refused("outputs: log_prob of InEnvActions is carried by no export", inside, outputs=("log_prob",))
    alone = saved(pc.actor_only(policy_of(CONFIGS["privileged critic"])), tmp_path / "e")
    refused("outputs: the value was asked for, and the policy has no critic", alone, outputs=("value",))
    assert list(lower(alone).graph.inputs) == ["observation/x", "state/actor"]
    blind = saved(pc.surgery.critic_only(policy_of(CONFIGS["privileged critic"])), tmp_path / "h")
    refused("actor: the policy has none, so it cannot act", blind, outputs=("value",))
    empty = saved(policy_of(config(pc.Discrete(2), pc.Box(shape=(0,)))), tmp_path / "f")
    refused("observation_space: it has no numbers", empty)
    huge = saved(policy_of(config(pc.MultiDiscrete((2,) * 21))), tmp_path / "g")
    refused("masks: a joint mask of 2097152 combinations, at most 1048576 are allowed", huge, masks="joint")


def test_a_damaged_file_is_refused(tmp_path):
    path = saved(policy_of(ALL["act box"]), tmp_path / "file")
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(ValueError, match=r"^checksum: "):
        lower(path)
    with pytest.raises(OSError, match="No such file"):
        lower(tmp_path / "none")


# GRAPHS


def test_a_graph_checks_what_is_added():
    graph = Graph()
    x, n, b = graph.input("x", (3,)), graph.input("n", (2,), "int32"), graph.input("b", (2, 3), "bool")
    kernel = graph.constant(np.ones((4, 2)))
    for message, op, operands, attributes in (
        ("op: there is no 'sin'", "sin", (x,), {}),
        ("add: expected two of", "add", (x, n), {}),
        ("add: the ranks differ", "add", (x, graph.op("reshape", x, shape=(1, 3))), {}),
        ("add: a constant of rank 2 is too large", "add", (x, graph.constant(np.ones((1, 3)))), {}),
        ("add: the shapes", "add", (x, graph.constant(np.ones(2))), {}),
        ("linear: x (3,) does not go with the kernel (4, 2)", "linear", (x, kernel), {}),
        ("tanh: expected float32, got int32", "tanh", (n,), {}),
        ("where: expected a bool condition", "where", (n, x, x), {}),
        ("reshape: shape: (3,) is not of the size", "reshape", (x,), {"shape": (4,)}),
        ("slice: 1:5 is not in (3,)", "slice", (x,), {"axis": -1, "start": 1, "stop": 5}),
        ("concat: constants are not joined", "concat", (x, graph.constant(np.ones(3))), {"axis": -1}),
        ("sum: axes: got (0,)", "sum", (x,), {"axes": (0,), "keep": False}),
        ("any: expected bool", "any", (x,), {"axes": (-1,), "keep": False}),
        ("conv2d: expected [height, width, channels]", "conv2d", (x, kernel), {}),
        ("mod: expected a constant divisor", "mod", (n, n), {}),
        ("cast: dtype: got 'float64'", "cast", (x,), {"dtype": "float64"}),
        ("argmax: expected float32", "argmax", (b,), {}),
    ):
        with pytest.raises(ValueError, match=rf"^{re.escape(message)}"):
            graph.op(op, *operands, **attributes)
    assert graph.op("any", b, axes=(-1,), keep=False).shape == (2,)
    with pytest.raises(ValueError, match=r"^output 'y': it is there already, or depends on no input$"):
        graph.output("y", kernel)
    with pytest.raises(ValueError, match=r"^input 'x': it is there already"):
        graph.input("x", (3,))
    graph.output("y", graph.op("tanh", x))
    for wrong, message in (({}, "'x' is missing"), ({"x": np.ones(3)}, "'x' is float64(3,)")):
        with pytest.raises(ValueError, match=rf"^inputs: {re.escape(message)}"):
            evaluate(graph.pruned(), wrong)
    assert list(graph.pruned().inputs) == ["x"]


def test_what_is_constant_is_computed_at_once():
    graph = Graph()
    x = graph.input("x", (2,))
    two = graph.op("exp", graph.op("mul", graph.constant(np.zeros(2)), 3.0))
    assert graph.nodes == []
    graph.output("y", graph.varying(two, x))
    rows = np.array([[np.nan, 1], [2, 3]], np.float32)
    assert np.array_equal(evaluate(graph, {"x": rows})["y"], np.ones((2, 2)))


# 8 BITS


def test_kernels_in_8_bits_are_off_by_half_a_step():
    kernel = np.random.default_rng(0).standard_normal((3, 3, 2, 5)).astype(np.float32)
    kernel[..., 4] = 0
    values, scale = quantized(kernel)
    assert values.dtype == np.int8
    assert np.abs(values).max() == 127
    assert np.all(np.abs(values * scale - kernel) <= scale * 0.5001)
    assert np.all(values[..., 4] == 0)


@pytest.mark.parametrize("name", ["act nested", "gru", "image", "every memory"])
def test_the_loss_of_8_bits_is_stated_and_bounded(name, tmp_path):
    path = saved(policy_of(CONFIGS[name]), tmp_path / "file", self_test=True)
    whole, short = lower(path), lower(path, int8=True)
    kernels = [x for x in short.graph.constants.values() if x.dtype == np.int8]
    assert sum(x.size for x in kernels) > sum(x.size for x in whole.graph.constants.values()) / 2
    found = loss.loss_of(whole, short)
    assert found.drawn.observations == 10_000
    assert found.self_test.observations == 8
    assert 0 < found.worst < 0.2
    again = loss.loss_of(whole, whole)
    assert again.worst == again.drawn.deviation == 0
    with pytest.raises(ExportError, match=r"^int8: 8 bits move an action by up to .* and 0\.0001 is allowed"):
        loss.loss_of(whole, short, bound=1e-4)


def test_observations_are_drawn_from_the_space():
    rng = np.random.default_rng(0)
    space = pc.Dict(
        {
            **{name.replace(" ", "-"): space for name, space in SPACES.items() if "bfloat" not in name},
            "x": OBSERVATION,
            "y": BOUNDED,
        }
    )
    drawn = sample(to_data(space), rng, 20)
    wanted = named(space.struct(), "observation")
    assert drawn.keys() == wanted.keys()
    for key, struct in wanted.items():
        assert (drawn[key].shape, drawn[key].dtype) == ((20, *struct.shape), struct.dtype), key
    for i in range(20):
        tree = jax.tree.unflatten(jax.tree.structure(space.struct()), [drawn[key][i] for key in wanted])
        assert space.contains(tree)
