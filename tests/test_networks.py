"""Networks: orthogonal matrices, towers, registries, and no call that can hang."""

import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import flax.linen as linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from meshes import mesh_of

import policy_core as pc
from policy_core.errors import ConfigError
from policy_core.networks import activations, initializers, layers

ROOT = Path(__file__).parent.parent
KEY = jax.random.key(0)
SHAPES = [(64, 64), (128, 8), (8, 128), (1, 5), (5, 1), (256, 256), (1, 1)]

orthogonal = jax.jit(initializers.orthogonal, static_argnums=1)


@pytest.mark.parametrize("shape", SHAPES)
def test_orthogonal_is_orthonormal(shape):
    q = orthogonal(KEY, shape)
    assert (q.shape, q.dtype) == (shape, jnp.float32)
    wide = np.asarray(q, np.float64)
    gram = wide @ wide.T if shape[0] < shape[1] else wide.T @ wide
    assert np.max(np.abs(gram - np.eye(min(shape)))) < 1e-6


def test_orthogonal_is_uniform_over_orthogonal_matrices():
    n, count = 4, 4000
    keys = jax.random.split(KEY, count)
    q = np.asarray(jax.jit(jax.vmap(lambda key: initializers.orthogonal(key, (n, n))))(keys), np.float64)
    error = 5 / math.sqrt(count)
    assert np.all(np.abs(q.mean(0)) < error / math.sqrt(n))
    assert np.all(np.abs((q**2).mean(0) * n - 1) < 1.5 * error)
    # For an even column law, nothing fixes a sign: not the first row, not the diagonal, not the determinant.
    for signs in (q[:, 0, :] > 0, np.diagonal(q, axis1=1, axis2=2) > 0, np.linalg.det(q) > 0):
        assert np.all(np.abs(signs.mean(0) - 0.5) < error / 2)
    # Mezzadri 2007: the trace of a Haar matrix has mean 0 and variance 1.
    trace = np.trace(q, axis1=1, axis2=2)
    assert abs(trace.mean()) < error
    assert abs((trace**2).mean() - 1) < 2 * error


@pytest.mark.parametrize("shape", [(6, 2), (2, 6)])
def test_orthogonal_of_a_rectangle_treats_all_entries_alike(shape):
    keys = jax.random.split(KEY, 2000)
    q = np.asarray(jax.jit(jax.vmap(lambda key: initializers.orthogonal(key, shape)))(keys), np.float64)
    assert np.all(np.abs((q**2).mean(0) * 6 - 1) < 0.2)
    assert np.all(np.abs(q.mean(0)) < 5 / math.sqrt(2000 * 6))


def test_orthogonal_in_a_batch_is_orthogonal_alone():
    keys = jax.random.split(KEY, 3)
    batch = jax.jit(jax.vmap(lambda key: initializers.orthogonal(key, (8, 5))))(keys)
    for i in range(3):
        assert np.allclose(batch[i], orthogonal(keys[i], (8, 5)), atol=1e-6)


@pytest.mark.parametrize("name", ["lecun_normal", "lecun_uniform", "lecun_orthogonal", "orthogonal"])
def test_a_kernel_is_one_operation_with_the_same_numbers_everywhere(name):
    function, shape = initializers.INITIALIZERS.find(name), (6, 4)
    [operation] = jax.make_jaxpr(lambda key: function(key, shape))(KEY).eqns
    assert operation.primitive.name == "drawn"
    keys, legacy = jax.random.split(KEY, 4), jax.random.split(jax.random.PRNGKey(0), 4)
    alone = np.stack([jax.jit(function.__wrapped__, static_argnums=1)(key, shape) for key in keys])
    assert alone.std() > 0.1
    draw = lambda key: function(key, shape)
    mesh = mesh_of("Auto", i=2)
    spread = jax.shard_map(
        jax.vmap(draw),
        mesh=mesh,
        in_specs=jax.sharding.PartitionSpec("i"),
        out_specs=jax.sharding.PartitionSpec("i"),
    )
    for drawn in (
        np.stack([draw(key) for key in keys]),
        jax.jit(jax.vmap(draw))(keys),
        jax.vmap(draw)(legacy),
        jax.lax.map(draw, keys),
        jax.jit(spread)(keys),
        jax.vmap(jax.vmap(draw))(keys.reshape(2, 2)).reshape(4, *shape),
    ):
        assert drawn.dtype == np.float32
        assert np.allclose(drawn, alone, atol=1e-6)
    assert np.array_equal(jax.grad(lambda x: jnp.sum(x * draw(KEY)))(jnp.ones(shape)), draw(KEY))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_an_mlp_has_the_layers_it_says(dtype):
    mlp = pc.MLP((8, 3))
    params = mlp.init(5, key=KEY, dtype=dtype)
    shapes = jax.tree.map(lambda x: (x.shape, str(x.dtype)), params)
    assert shapes == {
        "hidden_0": {"kernel": ((5, 8), dtype), "bias": ((8,), dtype)},
        "hidden_1": {"kernel": ((8, 3), dtype), "bias": ((3,), dtype)},
    }
    assert not any(bool(layer["bias"].any()) for layer in params.values())
    assert mlp.out_size(5) == 3
    assert mlp.apply(params, jnp.ones(5)).shape == (3,)


def test_an_mlp_without_layers_is_the_identity():
    mlp = pc.MLP(())
    x = jnp.arange(3.0)
    assert mlp.init(3, key=KEY, dtype="float32") == {}
    assert mlp.out_size(3) == 3
    assert mlp.apply({}, x) is x


@pytest.mark.parametrize("x_dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("param_dtype", ["float32", "bfloat16"])
def test_the_computation_is_in_the_dtype_of_the_input(x_dtype, param_dtype):
    mlp = pc.MLP((4,))
    params = mlp.init(3, key=KEY, dtype=param_dtype)
    jaxpr = jax.make_jaxpr(mlp.apply)(params, jnp.ones(3, x_dtype))
    products = [eqn for eqn in jaxpr.eqns if eqn.primitive.name in ("dot_general", "add", "tanh")]
    assert {str(eqn.outvars[0].aval.dtype) for eqn in products} == {x_dtype}
    assert {eqn.primitive.name for eqn in products} >= {"dot_general", "tanh"}
    assert str(jaxpr.out_avals[0].dtype) == x_dtype


def test_the_layers_of_an_mlp_are_drawn_independently():
    params = pc.MLP((4, 4)).init(4, key=KEY, dtype="float32")
    assert not np.allclose(params["hidden_0"]["kernel"], params["hidden_1"]["kernel"])


@pytest.mark.parametrize("gain", [0.0, 0.01, 1.0, math.sqrt(2)])
def test_the_gain_scales_the_kernel(gain):
    config = pc.MLP((6,), kernel_init="orthogonal", gain=gain)
    kernel = config.init(9, key=KEY, dtype="float32")["hidden_0"]["kernel"]
    assert np.allclose(kernel.T @ kernel, gain**2 * np.eye(6), atol=1e-6)
    unit = pc.MLP((6,), kernel_init="orthogonal", gain=1.0).init(9, key=KEY, dtype="float32")["hidden_0"][
        "kernel"
    ]
    assert np.allclose(kernel, gain * unit, rtol=1e-6)


def test_the_defaults_are_those_that_were_measured_to_be_best():
    assert (pc.MLP().kernel_init, pc.MLP().gain) == ("lecun_orthogonal", math.sqrt(2))


@pytest.mark.parametrize("shape", [(4, 64), (64, 64), (64, 3)])
def test_lecun_orthogonal_kernels_are_orthogonal_with_variance_one_over_inputs(shape):
    kernel = np.asarray(initializers.lecun_orthogonal(KEY, shape), np.float64)
    inputs, outputs = shape
    square = kernel @ kernel.T if outputs > inputs else kernel.T @ kernel
    assert np.allclose(square, max(1, outputs / inputs) * np.eye(min(shape)), atol=1e-5)
    assert math.isclose((kernel**2).mean(), 1 / inputs, rel_tol=1e-5)  # exactly, whatever was drawn


@pytest.mark.parametrize("kernel_init", ["lecun_normal", "lecun_uniform"])
def test_lecun_kernels_have_variance_one_over_inputs(kernel_init):
    mlp = pc.MLP((500,), kernel_init=kernel_init, gain=2)
    kernel = np.asarray(mlp.init(40, key=KEY, dtype="float32")["hidden_0"]["kernel"], np.float64)
    count = kernel.size
    assert abs(kernel.mean()) < 5 * 2 / math.sqrt(40 * count)
    assert abs(kernel.var() * 40 / 4 - 1) < 5 * math.sqrt(2 / count)
    largest = np.max(np.abs(kernel)) / (2 * math.sqrt(3 / 40))
    assert (largest <= 1 + 1e-6) == (kernel_init == "lecun_uniform")


def _gelu(x: np.ndarray) -> np.ndarray:
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


ALPHA, SCALE = 1.6732632423543772, 1.0507009873554805
REFERENCE: dict[str, Any] = {
    "elu": lambda x: np.where(x > 0, x, np.expm1(x)),
    "gelu": _gelu,
    "identity": lambda x: x,
    "leaky_relu": lambda x: np.where(x > 0, x, 0.01 * x),
    "relu": lambda x: np.maximum(x, 0),
    "selu": lambda x: SCALE * np.where(x > 0, x, ALPHA * np.expm1(x)),
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "silu": lambda x: x / (1 + np.exp(-x)),
    "softplus": lambda x: np.log1p(np.exp(x)),
    "tanh": np.tanh,
}


def test_the_activations_are_those_of_the_reference():
    # In a fresh process: examples and other tests add names.
    script = "from policy_core.networks.activations import ACTIVATIONS; print(*ACTIVATIONS.functions)"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert set(result.stdout.split()) == set(REFERENCE)


@pytest.mark.parametrize("name", REFERENCE)
def test_an_mlp_is_linear_then_activated_layer_by_layer(name):
    mlp = pc.MLP((4, 3), activation=name)
    params = mlp.init(2, key=KEY, dtype="float32")
    bias_keys = jax.random.split(KEY, 2)
    params = {
        layer: {"kernel": leaves["kernel"], "bias": jax.random.normal(key, leaves["bias"].shape)}
        for key, (layer, leaves) in zip(bias_keys, params.items(), strict=True)
    }
    expected = x = np.array([0.5, -2.0])
    for layer in ("hidden_0", "hidden_1"):
        kernel, bias = (np.asarray(params[layer][leaf], np.float64) for leaf in ("kernel", "bias"))
        expected = REFERENCE[name](expected @ kernel + bias)
    assert np.allclose(mlp.apply(params, jnp.array(x, jnp.float32)), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"activation": "swishy"},
            r"^MLP\.activation: no activation is registered as 'swishy'; there are \['elu', .*'tanh'.*\], and "
            r"policy_core\.networks\.register_activation adds one$",
        ),
        (
            {"kernel_init": "xavier"},
            r"^MLP\.kernel_init: no initializer is registered as 'xavier'; there are \[.*'orthogonal'.*\], and "
            r"policy_core\.networks\.register_initializer adds one$",
        ),
        ({"hidden": (4, 0)}, r"^MLP\.hidden: got \(4, 0\), expected widths of at least 1$"),
        ({"hidden": (-1,)}, r"^MLP\.hidden: got \(-1,\), expected widths of at least 1$"),
        ({"hidden": [4]}, r"^MLP\.hidden: got list \[4\], expected tuple\[int, \.\.\.\]; use a tuple$"),
        ({"hidden": 4}, r"^MLP\.hidden: got int 4, expected tuple\[int, \.\.\.\]; "),
        ({"activation": jnp.tanh}, r"^MLP\.activation: got .*; refer to functions by their registered name"),
        ({"gain": True}, r"^MLP\.gain: got bool True, expected float"),
        ({"gain": math.nan}, r"^MLP\.gain: got NaN"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_an_mlp_that_makes_no_sense_is_refused(fields, message):
    with pytest.raises(ConfigError, match=message):
        pc.MLP(**fields)


def _double(x: Any) -> Any:
    return 2 * x


def _constant(key: Any, shape: tuple[int, int]) -> Any:
    return jnp.full(shape, 0.5)


def test_a_registered_activation_is_used_and_its_name_is_taken():
    pc.networks.register_activation("test_networks.double", _double)
    pc.networks.register_activation("test_networks.double", _double)
    mlp = pc.MLP((3,), activation="test_networks.double")
    params = mlp.init(2, key=KEY, dtype="float32")
    plain = pc.MLP((3,), activation="identity").apply(params, jnp.ones(2))
    assert mlp.apply(params, jnp.ones(2)).tolist() == (2 * plain).tolist()
    with pytest.raises(
        ConfigError,
        match=r"^the name 'test_networks\.double' is taken by another activation; choose a new one$",
    ):
        pc.networks.register_activation("test_networks.double", lambda x: 2 * x)
    with pytest.raises(ConfigError, match=r"^the name 'tanh' is taken by another activation"):
        pc.networks.register_activation("tanh", _double)
    assert activations.ACTIVATIONS.find("test_networks.double") is _double
    assert activations.ACTIVATIONS.find("tanh") is jnp.tanh


def test_a_registered_initializer_is_used_and_its_name_is_taken():
    pc.networks.register_initializer("test_networks.constant", _constant)
    pc.networks.register_initializer("test_networks.constant", _constant)
    mlp = pc.MLP((3,), kernel_init="test_networks.constant", gain=3)
    assert mlp.init(2, key=KEY, dtype="bfloat16")["hidden_0"]["kernel"].tolist() == [[1.5] * 3] * 2
    with pytest.raises(ConfigError, match=r"^the name 'orthogonal' is taken by another initializer"):
        pc.networks.register_initializer("orthogonal", _constant)


CONFIG = pc.ActorCriticConfig(observation_space=pc.Box(shape=(4,)), action_space=pc.Discrete(2))
KEYS = jax.random.split(KEY, 3)


@pytest.fixture(scope="module")
def population() -> Any:
    return jax.jit(jax.vmap(lambda key: pc.init(CONFIG, key=key)))


def _linear_algebra(text: str) -> list[str]:
    """Whatever in a lowered program sounds like a factorisation (`sqrt` does not)."""
    return re.findall(r"lapack|cholesky|svd|householder|cusolver|(?<!s)qr(?!t)", text.lower())


def test_a_factorisation_would_be_found_in_a_lowered_program():
    traced = jax.jit(jax.vmap(jnp.linalg.qr)).trace(jnp.ones((2, 3, 3)))
    text = traced.lower(lowering_platforms=("cpu",)).as_text()
    assert {"lapack", "qr"} <= set(_linear_algebra(text))


def test_vmapped_init_calls_no_linear_algebra_library(population):
    # Batched QR calls of LAPACK can wait for each other for ever on two cores.
    text = population.trace(KEYS).lower(lowering_platforms=("cpu",)).as_text()
    assert "dot_general" in text
    assert "custom_call" not in text
    assert _linear_algebra(text) == []


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_vmapped_init_lowers_for_accelerators(population, platform):
    exported = jax.export.export(population, platforms=[platform])(KEYS)
    assert exported.platforms == (platform,)
    assert _linear_algebra(exported.mlir_module()) == []


HANG = """
import jax
import policy_core as pc

config = pc.ActorCriticConfig(observation_space=pc.Box(shape=(4,)), action_space=pc.Discrete(2))
init = jax.jit(jax.vmap(lambda k: pc.init(config, key=k)))
for members in (8, 64):
    for i in range(25):
        jax.block_until_ready(init(jax.random.split(jax.random.key(i), members)))
print("OK")
"""


def test_vmapped_init_does_not_hang():
    result = subprocess.run(
        [sys.executable, "-c", HANG], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert (result.stdout.strip(), result.returncode) == ("OK", 0), result.stderr


class _Normed(linen.Module):
    """`MLP((6, 5), layer_norm=True)` by hand."""

    @linen.compact
    def __call__(self, x: Any) -> Any:
        for i, width in enumerate((6, 5)):
            x = linen.Dense(width, name=f"hidden_{i}")(x)
            x = jnp.tanh(linen.LayerNorm(epsilon=1e-5, name=f"norm_{i}")(x))
        return x


class _Block(linen.Module):
    @linen.compact
    def __call__(self, x: Any) -> Any:
        y = linen.LayerNorm(epsilon=1e-5, name="norm")(x)
        y = linen.relu(linen.Dense(18, name="up")(y))
        return x + linen.Dense(6, name="down")(y)


class _Residual(linen.Module):
    """`ResidualMLP(6, blocks=2, expansion=3)` by hand."""

    @linen.compact
    def __call__(self, x: Any) -> Any:
        x = linen.Dense(6, name="input")(x)
        for i in range(2):
            x = _Block(name=f"block_{i}")(x)
        return linen.LayerNorm(epsilon=1e-5, name="norm")(x)


@pytest.mark.parametrize(
    ("network", "module"),
    [(pc.MLP((6, 5), layer_norm=True), _Normed()), (pc.ResidualMLP(6, expansion=3), _Residual())],
    ids=["layer norm", "residual"],
)
def test_normed_and_residual_networks_are_those_of_flax(network: Any, module: Any) -> None:
    params = network.init(4, key=jax.random.key(0), dtype="float32")
    noise = iter(jax.random.split(jax.random.key(1), 100))
    params = jax.tree.map(lambda x: x + 0.1 * jax.random.normal(next(noise), x.shape), params)
    x = jnp.array([0.5, -30.0, 2.0, 0.1])
    got = network.apply(params, x)
    assert got.shape == (network.out_size(4),)
    np.testing.assert_allclose(got, module.apply({"params": params}, x), rtol=2e-5, atol=2e-6)
    slopes = (
        jax.grad(lambda p, f=f: jnp.sum(jnp.sin(f(p))))(params)
        for f in (lambda p: network.apply(p, x), lambda p: module.apply({"params": p}, x))
    )
    for a, b in zip(*map(jax.tree.leaves, slopes), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)
    half = network.apply(params, x.astype(jnp.bfloat16))
    assert half.dtype == jnp.bfloat16
    np.testing.assert_allclose(half.astype(jnp.float32), got, atol=0.15)


def test_a_layer_norm_of_tiny_numbers_shows_its_epsilon() -> None:
    """Where the variance is about the 1e-5 that is added to it."""
    x = 4e-3 * np.array([0.5, -1.0, 2.0, 0.1])
    expected = (x - x.mean()) / np.sqrt(x.var() + 1e-5)
    assert 0.5 < np.abs(expected).max() < 1.2  # 1.6 without an epsilon
    got = layers.norm(layers.init_norm(4, "float32"), jnp.asarray(x, jnp.float32))
    np.testing.assert_allclose(got, expected, rtol=1e-5)
    flax = linen.LayerNorm(epsilon=1e-5).apply(
        {"params": layers.init_norm(4, "float32")}, x.astype("float32")
    )
    np.testing.assert_allclose(got, flax, rtol=1e-4)


def test_layers_of_a_residual_block_that_are_activated_have_the_gain() -> None:
    params = pc.ResidualMLP(6, expansion=3, gain=3.0).init(4, key=jax.random.key(0), dtype="float32")
    for name, factor in (("up", 9.0), ("down", 1.0)):
        singular = jnp.linalg.svd(params["block_1"][name]["kernel"], compute_uv=False)
        np.testing.assert_allclose(jnp.square(singular), factor, rtol=1e-5)
    np.testing.assert_allclose(jnp.linalg.svd(params["input"]["kernel"], compute_uv=False), 1, rtol=1e-5)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"width": 0}, r"ResidualMLP\.width: got 0, expected at least 1"),
        ({"blocks": 101}, r"ResidualMLP\.blocks: got 101, expected at most 100"),
        ({"activation": "tanhh"}, r"ResidualMLP\.activation: .*'tanhh'"),
    ],
)
def test_a_residual_network_that_makes_no_sense_is_refused(fields: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        pc.ResidualMLP(**fields)
