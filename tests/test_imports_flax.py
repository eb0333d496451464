"""Params of flax: networks with the layers and equations of PureJaxRL, gymnax-blines, JaxMARL, Stoix and rejax.

These are scripts, or packages that need many others: their modules are written again here, with the names that
flax gives to their layers. Real files are read with them, too, where these are.
"""

import functools
import json
import math
import struct
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from elsewhere import check, deviation
from policy_core_adapters.imports import flax_params, safetensors

import policy_core as pc
from policy_core.errors import FileError, StructureError

pytestmark = pytest.mark.usefixtures("unchecked", "lenient")  # networks of others

REAL = Path(__file__).parents[2] / "shared" / "checkpoints"
real = pytest.mark.skipif(not REAL.is_dir(), reason="the real checkpoints are not in this place")
OBS, HIDDEN, ACTIONS = 4, 6, 3


# THE NETWORKS


class ActorCritic(nn.Module):
    """PureJaxRL's, with tanh, for discrete and continuous actions."""

    continuous: bool

    @nn.compact
    def __call__(self, x):
        y = nn.tanh(nn.Dense(HIDDEN)(x))  # layers are numbered as they are made, so one a line
        y = nn.tanh(nn.Dense(HIDDEN)(y))
        y = nn.Dense(ACTIONS)(y)
        std = jnp.exp(self.param("log_std", nn.initializers.zeros, (ACTIONS,))) if self.continuous else None
        v = nn.tanh(nn.Dense(HIDDEN)(x))
        v = nn.tanh(nn.Dense(HIDDEN)(v))
        v = nn.Dense(1)(v)
        return y, std, v[..., 0]


class ScannedRNN(nn.Module):
    """A GRU that is reset where an episode begins; one that only makes its first state is counted, too."""

    @functools.partial(
        nn.scan, variable_broadcast="params", in_axes=0, out_axes=0, split_rngs={"params": False}
    )
    @nn.compact
    def __call__(self, carry, x):
        inputs, first = x
        nn.GRUCell(features=carry.shape[-1], parent=None)
        carry = jnp.where(first[:, None], jnp.zeros_like(carry), carry)
        return nn.GRUCell(features=carry.shape[-1])(carry, inputs)


class ActorCriticRNN(nn.Module):
    """PureJaxRL's and JaxMARL's."""

    @nn.compact
    def __call__(self, x, first):
        e = nn.relu(nn.Dense(HIDDEN)(x))
        _, e = ScannedRNN()(jnp.zeros((1, HIDDEN), x.dtype), (e[:, None], first[:, None]))
        e = e[:, 0]
        y = nn.relu(nn.Dense(HIDDEN)(e))
        y = nn.Dense(ACTIONS)(y)
        v = nn.relu(nn.Dense(HIDDEN)(e))
        v = nn.Dense(1)(v)
        return y, v[..., 0]


class MAPPOTower(nn.Module):
    """JaxMARL's `ActorRNN` or `CriticRNN`."""

    outputs: int
    hidden: int = HIDDEN

    @nn.compact
    def __call__(self, x, first):
        e = nn.relu(nn.Dense(self.hidden)(x))
        _, e = ScannedRNN()(jnp.zeros((1, self.hidden), x.dtype), (e[:, None], first[:, None]))
        y = nn.relu(nn.Dense(self.hidden)(e[:, 0]))
        return nn.Dense(self.outputs)(y)


class Blines(nn.Module):
    """gymnax-blines' `CategoricalSeparateMLP` or `GaussianSeparateMLP`."""

    outputs: int
    gaussian: bool
    hidden: int = HIDDEN

    @nn.compact
    def __call__(self, x):
        v = nn.relu(nn.Dense(self.hidden, name="critic_fc_1")(x))
        v = nn.relu(nn.Dense(self.hidden, name="critic_fc_2")(v))
        v = nn.Dense(1, name="critic_fc_v")(v)[..., 0]
        if not self.gaussian:
            y = nn.relu(nn.Dense(self.hidden)(x))
            y = nn.relu(nn.Dense(self.hidden)(y))
            return nn.Dense(self.outputs)(y), None, v
        y = nn.relu(nn.Dense(self.hidden, name="actor_fc_1")(x))
        y = nn.relu(nn.Dense(self.hidden, name="actor_fc_2")(y))
        loc = nn.Dense(self.outputs, name="actor_fc_mu")(y)
        return loc, nn.softplus(nn.Dense(self.outputs, name="actor_fc_scale")(y)) + 0.001, v


class Torso(nn.Module):
    """Stoix' `MLPTorso`, rejax' `MLP`."""

    @nn.compact
    def __call__(self, x):
        x = nn.silu(nn.Dense(HIDDEN + 1)(x))
        return nn.silu(nn.Dense(HIDDEN)(x))


class Head(nn.Module):
    outputs: int
    second: bool

    @nn.compact
    def __call__(self, x):
        y = nn.Dense(self.outputs)(x)
        return (y, nn.Dense(self.outputs)(x)) if self.second else y


class StoixNetwork(nn.Module):
    """`FeedForwardActor` or `FeedForwardCritic`."""

    second: bool
    outputs: int
    head: str

    def setup(self):
        self.torso = Torso()
        setattr(self, self.head, Head(self.outputs, self.second))

    def __call__(self, x):
        return getattr(self, self.head)(self.torso(x))


class RejaxPolicy(nn.Module):
    names: tuple[str, ...]
    log_std: bool = False

    def setup(self):
        self.features = Torso()
        for name in self.names:
            setattr(self, name, nn.Dense(ACTIONS))
        if self.log_std:
            self.action_log_std = self.param("action_log_std", nn.initializers.zeros, (ACTIONS,))

    def __call__(self, x):
        x = self.features(x)
        return *(getattr(self, name)(x) for name in self.names), *(
            (self.action_log_std,) if self.log_std else ()
        )


class RejaxValue(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.silu(nn.Dense(HIDDEN + 1)(x))
        x = nn.silu(nn.Dense(HIDDEN)(x))
        return nn.Dense(1)(x)[..., 0]


# WHAT THEY COMPUTE


def normal(loc, std, sample):
    std = jnp.broadcast_to(std, loc.shape)
    log_prob = -0.5 * jnp.square((sample - loc) / std) - jnp.log(std) - 0.5 * jnp.log(2 * jnp.pi)
    return {
        "mode": loc,
        "log_prob": log_prob.sum(-1),
        "entropy": (0.5 + 0.5 * jnp.log(2 * jnp.pi) + jnp.log(std)).sum(-1),
    }


def categorical(logits, sample):
    log_p = jax.nn.log_softmax(logits)
    picked = jnp.take_along_axis(log_p, sample[:, None].astype(jnp.int32), 1)[:, 0]
    return {"mode": logits.argmax(-1), "log_prob": picked, "entropy": -(jnp.exp(log_p) * log_p).sum(-1)}


def either(y, std, v, sample):
    return {**(categorical(y, sample) if std is None else normal(y, std, sample)), "value": v}


def random(tree, seed=0):
    """Biases and stds that are not zero."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: np.float32(leaf + 0.3 * rng.standard_normal(np.shape(leaf))), tree)


def made(*modules, inputs):
    """The variables of modules, as flax has them."""
    return [
        random(module.init(jax.random.key(i), *arguments), i)
        for i, (module, arguments) in enumerate(zip(modules, inputs, strict=True))
    ]


def reference(compute, *arguments):
    """What is computed in float64, with the errors of float32, as `elsewhere.check` takes it."""
    single = jax.tree.map(np.asarray, compute(*arguments))
    with jax.enable_x64(True):
        wide = jax.tree.map(
            lambda leaf: np.float64(leaf) if np.asarray(leaf).dtype == np.float32 else leaf, arguments
        )
        double = jax.tree.map(np.asarray, compute(*wide))
    floats = {name: leaf for name, leaf in double.items() if leaf.dtype.kind == "f"}
    assert all(leaf.dtype == np.float64 for leaf in floats.values())
    return {**double, **{f"{name}_error": deviation(single[name], leaf) for name, leaf in floats.items()}}


def config_of(**fields):
    tower = {"actor": pc.MLP((HIDDEN, HIDDEN)), "critic": pc.MLP((HIDDEN, HIDDEN))}
    return pc.ActorCriticConfig(**{"observation_space": pc.Box(shape=(OBS,)), "action_space": pc.Discrete(ACTIONS), **tower, **fields})  # fmt: skip


def observations(count, size=OBS):
    return np.float32(np.random.default_rng(3).standard_normal((count, size)))


def drawn(space, count):
    rng = np.random.default_rng(4)
    return rng.integers(0, space.n, count) if isinstance(space, pc.Discrete) else np.float32(rng.standard_normal((count, ACTIONS)))  # fmt: skip


BOX = pc.Box(shape=(ACTIONS,))
SOFTPLUS = pc.Scale(std="state", positive="softplus", min_std=0.001)


@pytest.mark.parametrize("continuous", [False, True])
def test_purejaxrl(continuous, tmp_path):
    x, space = observations(32), BOX if continuous else pc.Discrete(ACTIONS)
    module, sample = ActorCritic(continuous), drawn(space, 32)
    (variables,) = made(module, inputs=[(x,)])
    expected = reference(
        lambda variables, x, sample: either(*module.apply(variables, x), sample), variables, x, sample
    )
    config = config_of(action_space=space)
    found = flax_params.load(variables, config, flax_params.purejaxrl)
    assert set(check(found, {**expected, "sample": sample}, x, None, tmp_path)) == {
        "mode",
        "log_prob",
        "entropy",
        "value",
    }
    # and back, through safetensors with the names of JaxMARL
    tree = flax_params.dump(found.policy, flax_params.purejaxrl)
    assert jax.tree.all(jax.tree.map(lambda a, b: bool(np.array_equal(a, b)), tree, dict(variables)))
    names = {
        ",".join(key.key for key in path): leaf
        for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]
    }
    safetensors.save(tmp_path / "a.safetensors", names, {"from": "here"})
    again = flax_params.load(tmp_path / "a.safetensors", config, flax_params.purejaxrl)
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), again.policy[0], found.policy[0]))
    assert len(again.metadata["sha256"]) == 64


def starts(count):
    first = np.zeros(count, bool)
    first[[0, 7, 8, 90, 201]] = True
    return first


def masked(logits, mask):
    return logits - (1 - mask) * 1e10


def test_purejaxrl_and_jaxmarl_with_a_memory_and_masks(tmp_path):
    x, first, module = observations(300), starts(300), ActorCriticRNN()
    mask = np.random.default_rng(5).random((300, ACTIONS)) < 0.6
    mask[np.arange(300), 1] = True
    sample = np.ones(300, int)
    (variables,) = made(module, inputs=[(x, first)])

    def compute(variables, x, sample):
        y, v = module.apply(variables, x, first)
        return either(masked(y, mask), None, v, sample)

    expected = reference(compute, variables, x, sample)
    config = config_of(
        trunk=pc.MLP((HIDDEN,), activation="relu"), memory=pc.GRU(HIDDEN),
        actor=pc.MLP((HIDDEN,), activation="relu"), critic=pc.MLP((HIDDEN,), activation="relu"),
    )  # fmt: skip
    found = flax_params.load(variables, config, flax_params.purejaxrl)
    assert found.report["ScannedRNN_0/GRUCell_0/in/kernel"] == "memory/input/kernel"
    check(found, {**expected, "sample": sample, "first": first}, x, mask, tmp_path)
    tree = flax_params.dump(found.policy, flax_params.purejaxrl)
    assert jax.tree.all(jax.tree.map(lambda a, b: bool(np.array_equal(a, b)), tree, dict(variables)))


def test_jaxmarl_with_a_critic_of_the_world_state(tmp_path):
    seen = {"obs": observations(300), "world_state": observations(300, 7)}
    first, sample = starts(300), np.ones(300, int)
    networks = MAPPOTower(ACTIONS), MAPPOTower(1)
    both = made(*networks, inputs=[(seen["obs"], first), (seen["world_state"], first)])

    def compute(both, seen, sample):
        y, v = (
            module.apply(one, part, first)
            for module, one, part in zip(networks, both, seen.values(), strict=True)
        )
        return either(y, None, v[..., 0], sample)

    expected = reference(compute, both, seen, sample)
    encoder, relu = (
        pc.encoders.Encode(pc.MLP((HIDDEN,), activation="relu")),
        pc.MLP((HIDDEN,), activation="relu"),
    )
    config = config_of(
        observation_space=pc.Dict({"obs": pc.Box(shape=(OBS,)), "world_state": pc.Box(shape=(7,))}),
        actor_keys=("obs",), critic_keys=("world_state",), memory=pc.GRU(HIDDEN), memory_sharing="separate",
        encoder=pc.Parts({"obs": encoder, "world_state": encoder}), actor=relu, critic=relu,
    )  # fmt: skip
    source = {"actor": both[0], "critic": both[1]}
    found = flax_params.load(source, config, flax_params.jaxmarl_mappo)
    check(found, {**expected, "sample": sample, "first": first}, seen, None, tmp_path)


@pytest.mark.parametrize("gaussian", [False, True])
def test_gymnax_blines(gaussian, tmp_path):
    x, space = observations(32), BOX if gaussian else pc.Discrete(ACTIONS)
    module, sample = Blines(ACTIONS, gaussian), drawn(space, 32)
    (variables,) = made(module, inputs=[(x,)])
    expected = reference(
        lambda variables, x, sample: either(*module.apply(variables, x), sample), variables, x, sample
    )
    relu = pc.MLP((HIDDEN, HIDDEN), activation="relu")
    config = config_of(action_space=space, actor=relu, critic=relu, box_head=pc.NormalHead(SOFTPLUS))
    found = flax_params.load(variables, config, flax_params.gymnax_blines)
    check(found, {**expected, "sample": sample}, x, None, tmp_path)
    tree = flax_params.dump(found.policy, flax_params.gymnax_blines)
    assert all(
        jax.tree.leaves(jax.tree.map(lambda a, b: bool(np.allclose(a, b, atol=1e-7)), tree, dict(variables)))
    )


def tanh_normal(loc, std, sample):
    """Of the action before the squash."""
    rest = normal(loc, std, sample)
    jacobian = 2 * (jnp.log(2.0) - sample - jax.nn.softplus(-2 * sample))
    return {"mode": loc, "log_prob": rest["log_prob"] - jacobian.sum(-1)}


@pytest.mark.parametrize("kind", ["categorical", "normal", "tanh"])
def test_stoix(kind, tmp_path):
    x = observations(32)
    bounded = pc.Box(low=-1.0, high=1.0, shape=(ACTIONS,))
    space = {"categorical": pc.Discrete(ACTIONS), "normal": BOX, "tanh": bounded}[kind]
    networks = (
        StoixNetwork(kind != "categorical", ACTIONS, "action_head"),
        StoixNetwork(False, 1, "critic_head"),
    )
    both, sample = made(*networks, inputs=[(x,), (x,)]), drawn(space, 32)

    def compute(both, x, sample):
        out, v = (module.apply(one, x) for module, one in zip(networks, both, strict=True))
        if kind == "categorical":
            return either(out, None, v[..., 0], sample)
        loc, raw = out
        if kind == "tanh":
            return {**tanh_normal(loc, jax.nn.softplus(raw) + 1e-3, sample), "value": v[..., 0]}
        return either(loc, jax.nn.softplus(raw) * 0.3 / jax.nn.softplus(0.0) + 1e-6, v[..., 0], sample)

    expected = reference(compute, both, x, sample)
    factor = 0.3 / math.log(2)
    scale = pc.Scale(std="state", positive="softplus", min_std=1e-6 / factor, factor=factor)
    tower = pc.MLP((HIDDEN + 1, HIDDEN), activation="silu")
    head = pc.SquashedNormalHead(SOFTPLUS) if kind == "tanh" else pc.NormalHead(scale)
    config = config_of(action_space=space, actor=tower, critic=tower, box_head=head)
    found = flax_params.load({"actor_params": both[0], "critic_params": both[1]}, config, flax_params.stoix)
    check(found, {**expected, "sample": sample}, x, None, tmp_path)


@pytest.mark.parametrize("kind", ["discrete", "gaussian", "beta"])
def test_rejax(kind, tmp_path):
    x = observations(32)
    space = {
        "discrete": pc.Discrete(ACTIONS),
        "gaussian": BOX,
        "beta": pc.Box(low=-1.0, high=1.0, shape=(ACTIONS,)),
    }[kind]
    names = {"discrete": ("action_logits",), "gaussian": ("action_mean",), "beta": ("alpha", "beta")}[kind]
    networks = RejaxPolicy(names, kind == "gaussian"), RejaxValue()
    both, sample = made(*networks, inputs=[(x,), (x,)]), drawn(space, 32)

    def compute(both, x, sample):
        out, v = (module.apply(one, x) for module, one in zip(networks, both, strict=True))
        if kind == "discrete":
            return either(out[0], None, v, sample)
        if kind == "gaussian":
            return either(out[0], jnp.exp(out[1]), v, sample)
        a, b = (1 + jax.nn.softplus(raw) for raw in out)
        position = jax.nn.sigmoid(sample)  # the policy action is the log-odds of the position; the range is 2
        from jax.scipy.stats import beta

        return {"log_prob": (beta.logpdf(position, a, b) - jnp.log(2.0)).sum(-1), "value": v}

    expected = reference(compute, both, x, sample)
    tower = pc.MLP((HIDDEN + 1, HIDDEN), activation="silu")
    head = pc.BetaHead() if kind == "beta" else pc.NormalHead()
    config = config_of(action_space=space, actor=tower, critic=tower, box_head=head)
    found = flax_params.load({"actor": both[0], "critic": both[1]}, config, flax_params.rejax)
    check(found, {**expected, "sample": sample}, x, None, tmp_path)


@real
@pytest.mark.parametrize(("name", "size", "outputs"), [("CartPole-v1", 4, 2), ("Pendulum-v1", 3, 1)])
def test_real_files_of_gymnax_blines(name, size, outputs, tmp_path):
    gaussian = name == "Pendulum-v1"
    relu = pc.MLP((64, 64), activation="relu")
    config = config_of(
        observation_space=pc.Box(shape=(size,)), action_space=pc.Box(shape=(1,)) if gaussian else pc.Discrete(2),
        actor=relu, critic=relu, box_head=pc.NormalHead(SOFTPLUS),
    )  # fmt: skip
    found = flax_params.load(REAL / "gymnax_blines" / f"{name}.ppo.pkl", config, flax_params.gymnax_blines)
    module, x = Blines(outputs, gaussian, 64), observations(256, size)
    tree = flax_params.dump(found.policy, flax_params.gymnax_blines)
    sample = np.float32(x[:, :1]) if gaussian else np.ones(256, int)
    expected = reference(lambda tree, x, sample: either(*module.apply(tree, x), sample), tree, x, sample)
    check(found, {**expected, "sample": sample}, x, None, tmp_path)


@real
def test_a_real_file_of_jaxmarl(tmp_path):
    config = pc.ActorCriticConfig(
        observation_space=pc.Box(shape=(658,)), action_space=pc.Discrete(21), critic=None,
        trunk=pc.MLP((128,), activation="relu"), memory=pc.GRU(128), actor=pc.MLP((128,), activation="relu"),
    )  # fmt: skip
    path = REAL / "jaxmarl" / "mappo_hanabi.safetensors"
    found = flax_params.load(path, config, flax_params.jaxmarl_mappo)
    assert found.report["ScannedRNN_0/GRUCell_1/hn/bias"] == "memory/recurrent/bias"
    x, first = np.float32(np.random.default_rng(0).random((300, 658)) < 0.3), starts(300)
    mask = np.random.default_rng(5).random((300, 21)) < 0.6
    mask[:, 20] = True
    module, sample = MAPPOTower(21, 128), np.full(300, 20)
    tree = flax_params.dump(found.policy, flax_params.jaxmarl_mappo)

    def compute(tree, x, sample):
        return categorical(masked(module.apply(tree, x, first), mask), sample)

    check(found, {**reference(compute, tree, x, sample), "sample": sample, "first": first}, x, mask, tmp_path)


@pytest.mark.parametrize(
    ("tree", "rules", "error", "message"),
    [
        ({"Dense_0": {"kernel": np.ones((4, 2))}}, {"Dense_1": "actor/head"}, FileError, r"^rules: 'Dense_1' fits nothing, expected one; there are \['Dense_0'\]"),
        ({"a_0": {"kernel": np.ones(1)}, "a_1": {"kernel": np.ones(1)}}, {"a_*": "actor/head"}, FileError, r"^rules: 'a_\*' fits \['a_0', 'a_1'\], expected one"),
        ({"Dense_0": {"kernel": np.ones((4, 2))}}, {}, FileError, r"^the leaf 'Dense_0/kernel' has no place in the policy"),
        ({"Dense_0": {"kernel": np.ones((4, 3))}}, {"Dense_0": "actor/head"}, StructureError, r"^leaves: 'actor/head/bias'.* is missing"),
        ({"Dense_0": "text"}, {}, FileError, r"^params: 'Dense_0' is a str, expected arrays in mappings"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(tree, rules, error, message):
    config = config_of(actor=pc.MLP(()), critic=None)
    with pytest.raises(error, match=message):
        flax_params.load(tree, config, rules)


def test_what_is_not_given_back_is_named():
    policy = pc.init(config_of(critic=None), key=jax.random.key(0))
    with pytest.raises(FileError, match=r"^rules: none takes 'actor/head/bias', nor 5 others"):
        flax_params.dump(policy, {})
    with pytest.raises(FileError, match=r"^rules: 'x' goes to 'critic', which the policy has not"):
        flax_params.dump(policy, {"x": "critic"})
    with pytest.raises(FileError, match=r"^rules: '\*' is a glob, expected one name"):
        flax_params.dump(policy, {"*": "actor"})


def file_of(header: Any, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


ROW = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"a header of 100000001 bytes in a file of 0"),
        (struct.pack("<Q", 2**40), r"a header of 1099511627776 bytes in a file of 8"),
        (file_of(b"["), r"the header is damaged"),
        (file_of(b"[" * 100_000), r"the header is damaged"),
        (file_of([1]), r"the header is damaged"),
        (file_of({"a": {**ROW, "shape": [2**40]}}, bytes(8)), r"'a' of shape \(1099511627776,\) has 8 bytes"),
        (file_of({"a": {**ROW, "data_offsets": [0, 2**40]}}, bytes(8)), r"'a' is not where the array before it ends"),
        (file_of({"a": ROW, "b": ROW}, bytes(8)), r"'b' is not where the array before it ends"),
        (file_of({"a": {**ROW, "shape": [-1, -2]}}, bytes(8)), r"'a' is not where"),
        (file_of({"a": {**ROW, "dtype": "BF16"}}, bytes(8)), r"'a' has the dtype BF16, which NumPy has not"),
        (file_of({"a": ROW}, bytes(9)), r"1 bytes are of no array"),
        (file_of({"a": {**ROW, "shape": 2}}, bytes(8)), r"the header is damaged"),
    ],
)  # fmt: skip
def test_a_hostile_file_of_safetensors_is_refused(content, message, tmp_path):
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(FileError, match=message):
        safetensors.load(tmp_path / "file")


def test_safetensors_reads_and_writes_what_the_package_does(tmp_path):
    package = pytest.importorskip("safetensors.numpy", reason="safetensors is not installed")
    arrays = {
        "a,b": np.arange(6, dtype="f4").reshape(2, 3),
        "c": np.float64(3.0),
        "d": np.zeros((0, 2), "i8"),
        "e": np.array([True, False]),
    }
    arrays = {name: np.asarray(array) for name, array in arrays.items()}
    package.save_file(arrays, tmp_path / "theirs", metadata={"k": "v"})
    got, metadata = safetensors.load(tmp_path / "theirs")
    assert metadata == {"k": "v"}
    safetensors.save(tmp_path / "ours", arrays, {"k": "v"})
    for read in (got, package.load_file(tmp_path / "ours")):
        assert read.keys() == arrays.keys()
        assert all(
            np.array_equal(read[name], array) and read[name].dtype == array.dtype
            for name, array in arrays.items()
        )
    with pytest.raises(FileError, match=r"'a' has the dtype complex64, which the format has not"):
        safetensors.save(tmp_path / "ours", {"a": np.zeros(1, "c8")})
