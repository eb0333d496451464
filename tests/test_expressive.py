"""What configs say so that policies of other libraries can be expressed, against independent references."""

import math
from collections import deque
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import policy_core as pc
from policy_core.encoders import CNN, Encode
from policy_core.errors import ConfigError, StructureError
from policy_core.memory import FrameStack
from policy_core.networks import LayerNorm, Sequential
from policy_core.surgery import from_leaves, leaves

pytestmark = pytest.mark.usefixtures("unchecked")  # beartype doubles the time to trace

RNG = np.random.default_rng(0)
BOX = pc.Box(shape=(3,))


def log_std(scale: pc.Scale, raw: Any) -> Any:
    """The log-std of raw parameters, by way of a head."""
    raw = np.asarray(raw, np.float32)
    space = pc.Box(shape=raw.shape)
    params = {
        "kernel": jnp.zeros((1, raw.size)), "bias": jnp.zeros(raw.size), "scale": jnp.asarray(raw)
    }  # fmt: skip
    return pc.NormalHead(scale).distribution(space, params, jnp.ones(1), None, None).log_std


@pytest.mark.parametrize(
    ("scale", "std"),
    [
        # brax.training.distribution.NormalTanhDistribution: (softplus(x) + min_std) * var_scale
        (pc.Scale(positive="softplus", min_std=0.001, factor=0.7), lambda x: (np.log1p(np.exp(x)) + 0.001) * 0.7),
        (pc.Scale(min_std=0.2, factor=3.0), lambda x: (np.exp(x) + 0.2) * 3),
        # rsl_rl.modules.ActorCritic, noise_std_type="scalar"
        (pc.Scale(positive="identity"), lambda x: np.clip(x, np.exp(-20), np.exp(20))),
        (pc.Scale(positive="identity", low=-1.0, high=0.0), lambda x: np.clip(x, np.exp(-1), 1)),
        (pc.Scale(positive="identity", low=-1.0, high=0.0, factor=0.5, log_std=-0.5),
         lambda x: np.clip(0.5 * x, np.exp(-1), 1)),
        # CleanRL's SAC: log_std = low + 0.5 (high - low) (tanh(x) + 1)
        (pc.Scale(bounding="tanh", low=-5.0, high=2.0), lambda x: np.exp(-5 + 3.5 * (np.tanh(x) + 1))),
    ],
)  # fmt: skip
def test_the_std_of_a_scale(scale, std):
    raw = np.linspace(-4, 4, 41)
    expected = np.log(std(raw))
    assert np.allclose(log_std(scale, raw), expected, rtol=2e-6, atol=2e-6)
    start = log_std(scale, np.full(1, scale.raw))
    assert np.allclose(start, scale.log_std, atol=2e-6)


def test_a_least_std_keeps_the_gradient():
    gradient = lambda scale: jax.grad(lambda raw: jnp.sum(_log_std_of(scale, raw)))(jnp.full(3, -6.0))
    assert np.all(gradient(pc.Scale(low=-2.0)) == 0)
    assert np.all(gradient(pc.Scale(min_std=math.exp(-2))) > 0)
    assert np.all(gradient(pc.Scale(bounding="tanh", low=-2.0, high=2.0)) > 0)
    assert np.all(np.isfinite(gradient(pc.Scale(positive="softplus", min_std=1e-3))))


def _log_std_of(scale: pc.Scale, raw: Any) -> Any:
    params = {"kernel": jnp.zeros((1, 3)), "bias": jnp.zeros(3), "scale": raw}
    return pc.NormalHead(scale).distribution(BOX, params, jnp.ones(1), None, None).log_std


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"min_std": -1.0}, r"^Scale\.min_std, Scale\.factor: got -1\.0, 1\.0"),
        ({"factor": 0.0}, r"^Scale\.min_std, Scale\.factor: got 0\.0, 0\.0"),
        ({"min_std": 2.0}, r"^Scale\.log_std: got 0\.0, which no raw parameter gives; the std must be above .* 2$"),
        ({"std": "fixed", "factor": 2.0}, r'^Scale: std="fixed" is exp\(log_std\); it has no min_std'),
        ({"bounding": "tanh", "min_std": 0.1}, r'^Scale\.bounding: "tanh" bounds the log-std'),
        ({"bounding": "tanh", "low": 0.0}, r"^Scale\.log_std: .*; with tanh it is above low and below high$"),
        ({"bounding": "other"}, r"^Scale\.bounding: got str 'other', expected 'clip' or 'tanh'; use one of these"),
    ],
)  # fmt: skip
def test_a_scale_that_contradicts_itself(fields, message):
    with pytest.raises(ConfigError, match=message):
        pc.Scale(**fields)


class Reference(nn.Module):
    encoder: CNN

    @nn.compact
    def __call__(self, x: Any) -> Any:
        encoder = self.encoder
        for i, (filters, side) in enumerate(zip(encoder.channels, encoder.kernels, strict=True)):
            stride = (encoder.strides or [1] * 9)[i]
            x = nn.Conv(filters, (side, side), stride, padding=encoder.padding, name=f"convolution_{i}")(x)
            x = nn.elu(x)
            window = (encoder.window, encoder.window)
            if encoder.pool == "max":
                x = nn.max_pool(x, window, window)
            elif encoder.pool == "mean":
                x = nn.avg_pool(x, window, window)
        x = x.ravel()
        return x if encoder.size is None else nn.elu(nn.Dense(encoder.size, name="linear")(x))


@pytest.mark.parametrize(
    "fields",
    [
        {"channels": (3, 4), "kernels": (3, 2), "strides": (2, 1), "size": 6},
        {"channels": (3, 4), "kernels": (4, 3), "strides": (1, 2), "padding": "SAME", "size": None},
        {"channels": (3,), "kernels": (3,), "pool": "max", "size": 5},
        {"channels": (3, 2), "kernels": (3, 3), "padding": "SAME", "pool": "mean", "window": 3, "size": 5},
    ],
)
def test_a_cnn_is_that_of_flax(fields):
    encoder = CNN(activation="elu", **fields)
    space = pc.Box(shape=(13, 11, 2))
    params = encoder.init(space, key=jax.random.key(0), dtype="float32")
    params = jax.tree.map(lambda x: x + 0.1, params)
    x = jnp.asarray(RNG.standard_normal(space.shape), jnp.float32)
    with jax.numpy_dtype_promotion("standard"):  # flax divides by an integer
        expected = Reference(encoder).apply({"params": params}, x)
    got = encoder.apply(params, space, x, "float32")
    assert got.shape == (encoder.out_size(space),) == expected.shape
    assert np.allclose(got, expected, atol=2e-6)


def test_the_two_networks_of_the_field_are_cnns():
    for network in (pc.NatureCNN(size=7), pc.MinAtarCNN(filters=3, size=7)):
        space = pc.Box(low=0, high=255, shape=(40, 40, 3), dtype="uint8")
        params = network.init(space, key=jax.random.key(0), dtype="float32")
        same = network.network.init(space, key=jax.random.key(0), dtype="float32")
        assert jax.tree.all(jax.tree.map(lambda a, b: bool(jnp.all(a == b)), params, same))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CNN(channels=(), kernels=()), r"^CNN\.channels: got \(\), expected 1 to 100 convolutions$"),
        (lambda: CNN(channels=(2, 2), kernels=(3,)), r"^CNN\.kernels: got \(3,\), expected 2 numbers"),
        (lambda: CNN(channels=(2,), kernels=(3,), strides=(1, 1)), r"^CNN\.strides: got \(1, 1\), expected 1 nu"),
        (lambda: CNN(channels=(2,), kernels=(0,)), r"^CNN\.kernels: got \(0,\)"),
        (lambda: CNN(channels=(2,), kernels=(3,), activation="rely"), r"^CNN\.activation: no activation"),
        (lambda: CNN(channels=(2,), kernels=(9,)).check_space(pc.Box(shape=(8, 9, 1))), r"too small for CNN"),
        (lambda: Sequential((pc.Flatten(),)), r"^Sequential\.networks\[0\]: got Flatten, an encoder"),
        (lambda: Sequential((pc.MLP(),) * 101), r"^Sequential\.networks: got 101, expected at most 100"),
        (lambda: LayerNorm(epsilon=0.0), r"^LayerNorm\.epsilon: got 0\.0, expected a positive number"),
        (lambda: pc.MLP(epsilon=-1.0), r"^MLP\.epsilon: got -1\.0"),
        (lambda: Encode(pc.Flatten()), r"^Encode\.network: got Flatten, an encoder, expected a network"),
        (lambda: FrameStack(0), r"^FrameStack\.frames: got 0"),
        (lambda: pc.Normalize(min_std=-1.0), r"^Normalize\.min_std: got -1\.0"),
        (lambda: pc.Normalize(max_count=0.0), r"^Normalize\.max_count: got 0\.0, expected at least 1"),
        (lambda: pc.NormalHead(mean_bound=0.0), r"^NormalHead\.mean_bound: got 0\.0"),
        (lambda: pc.NormalHead(clip=-1.0), r"^NormalHead\.clip: got -1\.0"),
        (lambda: pc.NormalHead(factor=(1.0, 0.0)), r"^NormalHead\.offset, NormalHead\.factor: got"),
        (lambda: pc.NormalHead(offset=(1.0, 0.0)).check_space(BOX), r"^NormalHead\.offset: got 2 numbers"),
        (lambda: pc.Box.of([0.0], [1.0, 2.0]), r"^Box\.of: got bounds of shapes \(1,\) and \(2,\)"),
        (lambda: _config(normalize=pc.Normalize(keys=("y",))), r"^Normalize\.keys: got \('y',\)"),
        (lambda: _config(trunk=pc.MLP(()), encoder_sharing="separate"), r"encoder_sharing: .*cannot share a trunk"),
        (lambda: _config(critic=None, encoder_sharing="separate"), r"critic: None has no critic_keys"),
    ],
)  # fmt: skip
def test_what_configs_refuse(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


def _config(**fields: Any) -> Any:
    return pc.ActorCriticConfig(
        observation_space=BOX, action_space=pc.Discrete(2),
        **{"actor": pc.MLP((4,)), "critic": pc.MLP((4,)), **fields},
    )  # fmt: skip


def test_networks_in_sequence_are_those_of_flax():
    torso = Sequential(
        (
            pc.MLP((6,), activation="elu", bias=False),
            LayerNorm(epsilon=1e-6),
            pc.MLP((3,), layer_norm=True, epsilon=1e-6),
        )
    )
    params = torso.init(4, key=jax.random.key(0), dtype="float32")
    params = jax.tree.map(
        lambda x: x + 0.1 * jnp.cos(jnp.arange(x.size, dtype=x.dtype).reshape(x.shape)), params
    )
    assert set(params["network_0"]["hidden_0"]) == {"kernel"}
    x = jnp.asarray([0.3, -1.0, 2.0, 0.1])
    y = nn.elu(x @ params["network_0"]["hidden_0"]["kernel"])
    y = nn.LayerNorm(epsilon=1e-6).apply({"params": params["network_1"]}, y)
    y = y @ params["network_2"]["hidden_0"]["kernel"] + params["network_2"]["hidden_0"]["bias"]
    y = nn.tanh(nn.LayerNorm(epsilon=1e-6).apply({"params": params["network_2"]["norm_0"]}, y))
    assert np.allclose(torso.apply(params, x), y, atol=2e-6)


def test_separate_encoders_share_nothing():
    space = pc.Dict({"scan": pc.Box(shape=(5,)), "pose": pc.Box(shape=(2,))})
    config = pc.ActorCriticConfig(
        observation_space=space, action_space=pc.Discrete(2), actor=pc.MLP(()), critic=pc.MLP(()),
        encoder=pc.Parts({"scan": Encode(pc.MLP((3,)))}, rest=pc.Flatten()), encoder_sharing="separate",
        normalize=pc.Normalize(keys=("pose",)),
    )  # fmt: skip
    policy = pc.init(config, key=jax.random.key(0))
    observation = {"scan": jnp.arange(5.0), "pose": jnp.ones(2)}
    gradient, _ = jax.grad(lambda policy: pc.value(policy, (), observation)[1])(policy)
    assert not any(leaf.any() for leaf in jax.tree.leaves(gradient["actor"]))
    assert gradient["critic"]["encoder"]["scan"]["hidden_0"]["kernel"].any()
    assert policy[0]["normalize"]["scan"] == {}
    alone = pc.actor_only(policy)
    assert alone[1].encoder_sharing == "shared"
    before, after = (pc.action_distribution(p, (), observation)[1].logits for p in (policy, alone))
    assert np.array_equal(before, after)


@pytest.mark.parametrize("fill", ["zeros", "first"])
def test_a_frame_stack_is_a_queue(fill):
    memory = FrameStack(3, fill=fill)
    params = memory.init(2, key=jax.random.key(0), dtype="float32")
    xs = RNG.standard_normal((7, 2)).astype(np.float32)
    first = np.array([False, False, False, False, True, False, False])
    frames: deque[Any] = deque(maxlen=3)
    expected = []
    for t, x in enumerate(xs):
        if t == 0 or first[t]:
            frames = deque([np.zeros(2) if fill == "zeros" else x] * 3, maxlen=3)
        frames.append(x)
        expected.append(np.concatenate(frames))
    state, ys = memory.sequence(params, memory.initial_state(params), jnp.asarray(xs), jnp.asarray(first))
    assert np.array_equal(ys, np.array(expected, np.float32))
    _, y = memory.step(params, state, jnp.asarray(xs[0]))
    assert np.array_equal(y, np.concatenate([xs[5], xs[6], xs[0]]))
    gradient = jax.grad(lambda p: jnp.sum(memory.step(p, memory.initial_state(p), jnp.ones(2))[1]))(params)
    assert not gradient["start"].any()


@pytest.mark.parametrize("form", ["variance", "std"])
def test_the_forms_of_normalization(form):
    normalize = pc.Normalize(form=form, epsilon=0.01, min_std=0.5, clip=math.inf)
    mean, variance = np.array([1.0, -2.0, 1e-3]), np.array([4.0, 1e-4, 0.0])
    statistics = pc.Normalize.statistics(mean, variance, count=100)
    x = np.array([0.5, 3.0, -1.0], np.float32)
    std = np.sqrt(variance + 0.01) if form == "variance" else np.sqrt(variance)
    std = np.maximum(std, 0.5) + (0.01 if form == "std" else 0)
    assert np.allclose(normalize.apply(statistics, jnp.asarray(x)), (x - mean) / std, rtol=1e-6)
    wide = pc.Normalize.statistics([1 / 3], [0.1], 2**30 + 1)
    assert np.float64(wide["mean"][0, 0]) + np.float64(wide["mean"][1, 0]) == pytest.approx(1 / 3, rel=1e-14)
    assert np.float64(wide["count"][0, 0]) + np.float64(wide["count"][1, 0]) == 2**30 + 1
    for arguments in (([0.0], [1.0, 2.0], 1), ([0.0], [-1.0], 1), ([math.nan], [1.0], 1)):
        with pytest.raises(StructureError, match=r"^(variance|mean): (got shape|expected finite numbers)"):
            pc.Normalize.statistics(*arguments)


def test_a_largest_count_forgets():
    config = _config(normalize=pc.Normalize(max_count=50.0))
    policy = pc.init(config, key=jax.random.key(0))
    mean, count = 0.0, 0.0
    for t in range(12):
        batch = RNG.standard_normal((10, 3)).astype(np.float32) + t
        weight = 10 / (count + 10)
        mean, count = mean + weight * (batch.mean(0) - mean), min(count + 10, 50.0)
        policy = pc.update_statistics(policy, jnp.asarray(batch))
    statistics = policy[0]["normalize"]
    assert np.allclose(statistics["mean"][0], mean, rtol=1e-5)
    assert statistics["count"][0].tolist() == [50.0] * 3
    assert np.all(statistics["mean"][0] > 6)  # the mean of all is 5.5


def test_an_action_of_a_robot_is_offset_plus_scale():
    space = pc.Box(low=-2.0, high=2.0, shape=(3,))
    head = pc.NormalHead(offset=(0.1, -0.2, 0.0), factor=(0.5, 1.0, 2.0), clip=1.5)
    raw = np.array([1.0, -3.0, 1.4], np.float32)
    expected = np.array([0.1 + 0.5, -0.2 - 1.5, 2.0], np.float32)
    assert np.allclose(head.env_action(space, raw), expected)
    assert np.allclose(head.policy_action(space, expected), [1.0, -1.5, 1.0])
    bound = pc.NormalHead(mean_bound=2.0)
    params = {"kernel": jnp.zeros((1, 3)), "bias": jnp.asarray([0.5, -3.0, 9.0]), "scale": jnp.zeros(3)}
    loc = bound.distribution(space, params, jnp.ones(1), None, None).loc
    assert np.allclose(loc, 2 * np.tanh(np.array([0.5, -3.0, 9.0]) / 2), rtol=1e-6)


def test_leaves_go_out_and_come_in():
    config = _config(memory=pc.GRU(3), normalize=pc.Normalize())
    population = jax.vmap(lambda key: pc.init(config, key=key))(jax.random.split(jax.random.key(0), 2))
    found = leaves(population)
    assert list(found) == sorted(found)
    assert [row[0] for row in pc.inspect(_saved(population)).leaves] == list(found)
    back = from_leaves(config, {name: np.asarray(x, np.float64) for name, x in found.items()}, batch=(2,))
    assert jax.tree.all(
        jax.tree.map(lambda a, b: a.dtype == b.dtype and bool(jnp.all(a == b)), population, back)
    )
    with pytest.raises(StructureError, match=r"^leaves: 'more' is not one of the config's params$"):
        from_leaves(config, {**found, "more": 1}, batch=(2,))
    with pytest.raises(
        StructureError, match=r"^leaves\['actor/head/bias'\]: got shape \(2, 2\), expected \(2,\)$"
    ):
        from_leaves(config, found)
    with pytest.raises(
        StructureError, match=r"^leaves\['actor/head/bias'\]: got dtype int64, expected float32$"
    ):
        from_leaves(config, {**found, "actor/head/bias": np.zeros((2, 2), np.int64)}, batch=(2,))
    with pytest.raises(StructureError, match=r"^leaves\['actor/head/bias'\]: got a number beyond float32$"):
        from_leaves(config, {**found, "actor/head/bias": np.full((2, 2), 1e300)}, batch=(2,))
    with pytest.raises(
        StructureError, match=r"^leaves: 'actor/head/bias' float32\(2,\) is missing, and \d+ others"
    ):
        from_leaves(config, {})


def _saved(policy: Any) -> Any:
    import tempfile
    from pathlib import Path

    path = Path(tempfile.mkdtemp()) / "file"
    pc.save(path, policy, self_test=False)
    return path


def test_a_box_of_arrays():
    assert pc.Box.of(np.float32([-1, -1]), [1.0, 2.0]) == pc.Box(low=-1.0, high=(1.0, 2.0), shape=(2,))
    assert pc.Box.of(0.0, 1.0) == pc.Box(low=0.0, high=1.0)
    assert pc.Box.of(np.zeros((2, 0)), np.zeros((2, 0))).shape == (2, 0)
