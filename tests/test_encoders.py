"""Encoders: against flax and NumPy, on bytes and floats, and errors that name the key."""

import re
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import config

import policy_core as pc
from policy_core.encoders.convolution import convolution
from policy_core.errors import ConfigError, StructureError

pytestmark = pytest.mark.usefixtures("unchecked")  # beartype doubles the time to trace

KEY = jax.random.key(0)


def image(*shape: int, dtype: str = "uint8") -> Any:
    return pc.Box(low=0, high=255 if dtype == "uint8" else 1, shape=shape, dtype=dtype)


def conv(filters: int, side: int, stride: int, padding: str, name: str) -> Any:
    return nn.Conv(filters, (side, side), (stride, stride), padding=padding, name=name)


class Nature(nn.Module):
    @nn.compact
    def __call__(self, x: Any) -> Any:
        for i, (filters, side, stride) in enumerate(((32, 8, 4), (64, 4, 2), (64, 3, 1))):
            x = nn.relu(conv(filters, side, stride, "VALID", f"convolution_{i}")(x))
        return nn.relu(nn.Dense(20, name="linear")(x.reshape(-1)))


class Impala(nn.Module):
    @nn.compact
    def __call__(self, x: Any) -> Any:
        for i, filters in enumerate((4, 8)):
            x = conv(filters, 3, 1, "SAME", f"stage_{i}/convolution")(x)
            x = nn.max_pool(x, (3, 3), (2, 2), "SAME")
            for j in range(2):
                y = x
                for k in range(2):
                    y = conv(filters, 3, 1, "SAME", f"stage_{i}/block_{j}/convolution_{k}")(nn.relu(y))
                x = x + y
        return nn.relu(nn.Dense(20, name="linear")(nn.relu(x).reshape(-1)))


class MinAtar(nn.Module):
    @nn.compact
    def __call__(self, x: Any) -> Any:
        x = nn.relu(conv(16, 3, 1, "VALID", "convolution_0")(x))
        return nn.relu(nn.Dense(20, name="linear")(x.reshape(-1)))


TOWERS = {
    "nature": (pc.NatureCNN(size=20), Nature(), (44, 36, 2)),
    "impala": (pc.ImpalaCNN(channels=(4, 8), size=20), Impala(), (7, 10, 3)),
    "minatar": (pc.MinAtarCNN(size=20), MinAtar(), (10, 9, 4)),
}


def flat_layers(params: Any, path: str = "") -> dict[str, Any]:
    """Layers by path, as the modules above call them."""
    if "kernel" in params:
        return {path: params}
    return {
        k: v
        for name, part in params.items()
        for k, v in flat_layers(part, f"{path}/{name}".strip("/")).items()
    }


@pytest.mark.parametrize("name", TOWERS)
def test_towers_are_those_of_flax_on_bytes_and_on_floats(name: str) -> None:
    encoder, module, shape = TOWERS[name]
    space = image(*shape)
    params = jax.jit(lambda: encoder.init(space, key=KEY, dtype="float32"))()
    params = jax.tree.map(lambda leaf: leaf + 0.05 if leaf.ndim == 1 else leaf, params)
    x = jnp.asarray(np.random.default_rng(0).integers(0, 256, shape), jnp.uint8)
    apply = jax.jit(encoder.apply, static_argnums=(1, 3))
    got = apply(params, space, x, "float32")
    scaled = x.astype(jnp.float32) / 255

    def of_flax(params: Any) -> Any:
        y = module.apply({"params": flat_layers(params)}, scaled)
        return jnp.sum(jnp.square(y)), y

    def of_ours(params: Any) -> Any:
        return jnp.sum(jnp.square(encoder.apply(params, space, x, "float32")))

    (_, expected), slope = jax.jit(jax.value_and_grad(of_flax, has_aux=True))(params)
    for a, b in zip(*map(jax.tree.leaves, (jax.jit(jax.grad(of_ours))(params), slope)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4 * float(jnp.max(jnp.abs(b))))
    assert got.shape == (encoder.out_size(space),)
    assert float(jnp.max(jnp.abs(expected))) > 0.1
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)
    floats = apply(params, image(*shape, dtype="float32"), scaled, "float32")  # not divided again
    np.testing.assert_allclose(floats, expected, rtol=1e-4, atol=1e-5)
    kernel = params[next(iter(params))]
    kernel = kernel.get("convolution", kernel)["kernel"]
    gram = kernel.reshape(-1, kernel.shape[-1])
    gram = gram.T @ gram if gram.shape[0] >= gram.shape[1] else gram @ gram.T
    np.testing.assert_allclose(gram, 2 * np.eye(len(gram)), atol=1e-4)


@pytest.mark.parametrize("name", TOWERS)
def test_convolutions_are_in_the_layout_that_is_fast_in_loops(name: str) -> None:
    """XLA for CPUs computes any other naively there, ten times as slowly; outside it finds its own way."""
    encoder, shape = TOWERS[name][0], (84, 84, 4)  # XLA swaps a kernel and images that are smaller than it
    space = image(*shape)
    params = jax.eval_shape(lambda: encoder.init(space, key=KEY, dtype="float32"))
    rollout = jax.ShapeDtypeStruct((3, 32, *shape), jnp.uint8)  # minibatches

    def loss(params: Any, images: Any) -> Any:
        features = jax.vmap(lambda x: encoder.apply(params, space, x, "float32"))(images)
        return jnp.sum(jnp.square(features))

    def descend(params: Any, images: Any) -> Any:
        slope = jax.grad(loss)(params, images)
        return jax.tree.map(lambda a, b: a - 0.1 * b, params, slope), None

    def train(params: Any, rollout: Any) -> Any:
        return jax.lax.scan(descend, params, rollout)[0]

    with jax.default_device(jax.devices("cpu")[0]):
        text = jax.jit(train).lower(params, rollout).compile().as_text()
    layouts = re.findall(r"dim_labels=(\S+?),? ", text)
    assert len(layouts) >= 2  # each convolution forward, and the gradients of its kernel and its input
    assert set(layouts) == {"b01f_01io->b01f"}


def test_convolutions_have_the_derivatives_of_lax() -> None:
    """Forward, reverse, and forward over reverse; padded, and with strides that leave a rest."""
    rng = np.random.default_rng(0)

    def draw(*shape: int) -> Any:
        return jnp.asarray(rng.normal(size=shape), jnp.float32)

    for side, stride, padding in ((3, 1, "SAME"), (4, 2, "VALID"), (3, 2, "SAME")):

        def ours(kernel: Any, x: Any, stride: int = stride, padding: str = padding) -> Any:
            layer = {"kernel": kernel, "bias": jnp.zeros(3)}
            return jnp.sum(jnp.sin(convolution(layer, x, stride, padding)))

        def of_lax(kernel: Any, x: Any, stride: int = stride, padding: str = padding) -> Any:
            layout = ("NHWC", "HWIO", "NHWC")
            y = jax.lax.conv_general_dilated(
                x[None], kernel, (stride, stride), padding, dimension_numbers=layout
            )
            return jnp.sum(jnp.sin(y))

        point, direction = ((draw(side, side, 2, 3), draw(9, 8, 2)) for _ in range(2))
        for derive in (
            lambda f: jax.jvp(f, point, direction),
            lambda f: jax.grad(f, (0, 1))(*point),
            lambda f: jax.jvp(jax.grad(f, (0, 1)), point, direction),
        ):
            for a, b in zip(*map(jax.tree.leaves, (derive(ours), derive(of_lax))), strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("axis", [0, 2])
def test_a_population_of_one_has_the_convolutions_of_one_policy(axis: int) -> None:
    """And no products of patches, which are for several kernels: forward and both gradients, bit for bit."""
    rng = np.random.default_rng(0)
    kernel, images = (jnp.asarray(rng.normal(size=s), jnp.float32) for s in ((3, 3, 2, 3), (4, 9, 8, 2)))

    def loss(kernel: Any, images: Any) -> Any:
        layer = {"kernel": kernel, "bias": jnp.zeros(3)}
        return jnp.sum(jnp.sin(jax.vmap(lambda x: convolution(layer, x, 2, "SAME"))(images)))

    gradient = jax.value_and_grad(loss, (0, 1))
    mapped = jax.vmap(gradient, in_axes=(axis, axis))

    def convolutions(f: Any, *arguments: Any) -> int:
        return str(jax.jit(f).lower(*arguments).as_text()).count("stablehlo.convolution")

    def several(x: Any, n: int) -> Any:
        return jnp.stack([x] * n, axis)

    one = several(kernel, 1), several(images, 1)
    assert convolutions(mapped, *one) == convolutions(gradient, kernel, images) == 3
    assert convolutions(mapped, several(kernel, 2), several(images, 2)) == 0
    for a, b in zip(jax.tree.leaves(mapped(*one)), jax.tree.leaves(gradient(kernel, images)), strict=True):
        np.testing.assert_array_equal(a[0], b)


def test_the_encoder_is_found_from_the_space_and_written_down() -> None:
    camera, pose = image(40, 36, 3), pc.Box(shape=(2,))
    for space, expected in (
        (camera, pc.NatureCNN()),
        (image(10, 10, 4), pc.MinAtarCNN()),
        (image(2, 2, 1), pc.Flatten()),
        (image(40, 40, 3, dtype="float32"), pc.Flatten()),
        (pc.Discrete(3), pc.Flatten()),
        (pc.Dict({"pose": pose, "gear": pc.Discrete(3)}), pc.Flatten()),
        (pc.Dict({"pose": pose, "eye": camera}), pc.Parts({"eye": pc.NatureCNN(), "pose": pc.Flatten()})),
        (pc.Tuple((pose, camera)), pc.Parts({1: pc.NatureCNN(), 0: pc.Flatten()})),
    ):
        made = config(pc.Discrete(2), space)
        assert made.encoder == expected
        assert made == config(pc.Discrete(2), space, encoder=expected)


def test_embeddings_are_rows_of_the_table() -> None:
    space = pc.MultiDiscrete((2, 3, 4), start=(0, 1, -5))
    embedding = pc.Embedding(5)
    params = embedding.init(space, key=KEY, dtype="float32")
    got = embedding.apply(params, space, jnp.array([1, 2, -2]), "float32")
    np.testing.assert_array_equal(got, np.ravel(params["table"][np.array([1, 3, 8])]))
    assert embedding.out_size(space) == 15
    params = embedding.init(pc.Discrete(3, start=2), key=KEY, dtype="float32")
    got = embedding.apply(params, pc.Discrete(3, start=2), jnp.array(4), "float32")
    np.testing.assert_array_equal(got, params["table"][2])
    assert not embedding.apply(params, pc.Discrete(3, start=2), jnp.array(5), "float32").any()
    bits = pc.MultiBinary((2, 2))
    params = embedding.init(bits, key=KEY, dtype="float32")
    got = embedding.apply(params, bits, jnp.array([[0, 1], [1, 0]]), "float32")
    np.testing.assert_array_equal(got, np.ravel(params["table"][np.array([0, 3, 5, 6])]))
    assert embedding.out_size(bits) == 20


def test_parts_follow_each_other_in_sorted_order() -> None:
    space = pc.Dict({"z": pc.Discrete(3), "eye": image(3, 3, 1), "a": pc.Box(shape=(2,))})
    parts = pc.Parts({"z": pc.Embedding(4), "eye": pc.MinAtarCNN(filters=2, size=6)}, rest=pc.Flatten())
    params = parts.init(space, key=KEY, dtype="float32")
    assert set(params) == {"eye", "z"}
    x = {"a": jnp.array([1.0, -2.0]), "eye": jnp.full((3, 3, 1), 200, jnp.uint8), "z": jnp.array(2)}
    got = parts.apply(params, space, x, "float32")
    eye = pc.MinAtarCNN(filters=2, size=6).apply(params["eye"], space["eye"], x["eye"], "float32")
    np.testing.assert_array_equal(got, np.concatenate([x["a"], eye, params["z"]["table"][2]]))
    assert parts.out_size(space) == 12


@pytest.mark.usefixtures("unchecked")  # beartype doubles the time to trace
def test_bytes_stay_bytes_until_they_are_encoded_and_the_encoder_is_trained() -> None:
    space = pc.Dict({"eye": image(5, 5, 2), "pose": pc.Box(shape=(2,))})
    policy = pc.init(
        config(
            pc.Discrete(2),
            space,
            encoder=pc.Parts({"eye": pc.MinAtarCNN(filters=2, size=3)}, rest=pc.Flatten()),
        ),
        key=KEY,
    )
    x = space.sample(key=KEY)
    assert x["eye"].dtype == jnp.uint8
    gradient, _ = jax.jit(jax.grad(lambda policy: pc.value(policy, (), x)[1]))(policy)
    assert gradient["encoder"]["eye"]["convolution_0"]["kernel"].any()
    loaded = pc.from_bytes(pc.to_bytes(policy))
    assert pc.value(loaded, (), x)[1] == pc.value(policy, (), x)[1]
    text = str(jax.make_jaxpr(lambda x: pc.value(policy, (), x))(x))
    assert "u8[5,5,2]" in text


EYE = {"eye": image(40, 40, 3), "pose": pc.Box(shape=(2,))}
REFUSED = {
    "channel first": (image(3, 40, 36), None, r"observation_space: got an image of shape \(3, 40, 36\).*channels first; give \(40, 36, 3\)"),
    "channel first in a part": (pc.Dict({**EYE, "eye": image(4, 84, 84)}), None, r"observation_space\['eye'\]: .*channels first"),
    "too small": (pc.Dict({"eye": image(35, 40, 3)}), pc.Parts({"eye": pc.NatureCNN()}), r"observation_space\['eye'\]: .*too small for NatureCNN, which needs 36 x 36"),
    "too small for MinAtar": (image(2, 9, 1), pc.MinAtarCNN(), "too small for MinAtarCNN, which needs 3 x 3"),
    "missing": (pc.Dict(EYE), pc.Parts({"eye": pc.NatureCNN()}), r"Parts\.encoders: 'pose' of observation_space is missing"),
    "extra": (pc.Dict(EYE), pc.Parts({"eyes": pc.NatureCNN()}), r"Parts\.encoders: got 'eyes', but observation_space has the parts \['eye', 'pose'\]"),
    "dtype": (pc.Box(low=0, high=9, shape=(40, 40, 3), dtype="int32"), pc.NatureCNN(), "got an image of int32, but NatureCNN takes uint8 or floats"),
    "rank": (pc.Dict({"eye": pc.Box(shape=(4, 40, 40, 3))}), pc.Parts({"eye": pc.ImpalaCNN()}), r"observation_space\['eye'\]: got a Box of shape \(4, 40, 40, 3\), .*frames of a stack are channels"),
    "kind": (pc.Discrete(3), pc.NatureCNN(), "observation_space: got Discrete, but NatureCNN takes a Box"),
    "no parts at all": (pc.Box(), pc.Parts({"x": pc.Flatten()}), "observation_space: got Box, but Parts takes a Dict or a Tuple"),
    "no parts": (pc.Discrete(3), pc.Parts({}), "observation_space: got Discrete, but Parts takes a Dict or a Tuple"),
    "no categories": (pc.Box(), pc.Embedding(2), "observation_space: got Box, but Embedding takes Discrete"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_a_space_that_does_not_fit_is_refused_by_name(name: str) -> None:
    space, encoder, message = REFUSED[name]
    with pytest.raises(ConfigError, match=message):
        config(pc.Discrete(2), space, encoder=encoder)


@pytest.mark.parametrize("name", ["actor", "critic", "trunk"])
def test_an_encoder_is_no_network(name: str) -> None:
    with pytest.raises(
        ConfigError, match=rf"^ActorCriticConfig\.{name}: got Flatten, an encoder, expected a network"
    ):
        config(pc.Discrete(2), **{name: pc.Flatten()})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"eye": jnp.zeros((3, 40, 40), jnp.uint8)}, r"observation\['eye'\]: got shape \(3, 40, 40\), expected \(40, 40, 3\); channels come last"),
        ({"eye": jnp.zeros((40, 40, 3))}, r"observation\['eye'\]: got dtype float32, expected uint8"),
        ({"ear": jnp.zeros(2)}, r"observation\['ear'\]: unexpected"),
        ({"pose": None}, r"observation\['pose'\]: missing"),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("unchecked")
def test_an_observation_that_does_not_fit_is_refused_by_name(changes: Any, message: str) -> None:
    x = {"eye": jnp.zeros((40, 40, 3), jnp.uint8), "pose": jnp.zeros(2), **changes}
    encoder = pc.Parts({"eye": pc.ImpalaCNN(channels=(2,), size=2)}, rest=pc.Flatten())
    configuration = config(pc.Discrete(2), pc.Dict(EYE), encoder=encoder)
    with pytest.raises(StructureError, match=message):
        jax.eval_shape(lambda: pc.value(pc.init(configuration, key=KEY), (), x))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: pc.NatureCNN(size=0), r"NatureCNN\.size: got 0"),
        (lambda: pc.ImpalaCNN(channels=()), r"ImpalaCNN\.channels: got \(\)"),
        (lambda: pc.ImpalaCNN(channels=(4, 0)), r"ImpalaCNN\.channels: got \(4, 0\)"),
        (lambda: pc.MinAtarCNN(filters=-1), r"MinAtarCNN\.filters: got -1"),
        (lambda: pc.Embedding(0), r"Embedding\.size: got 0"),
        (lambda: pc.Parts((("a", pc.Flatten()), ("a", pc.Flatten()))), r"Parts\.encoders: .* expected each once"),
    ],
)  # fmt: skip
def test_sizes_are_positive_and_names_are_given_once(make: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()
