"""Memories: sequences equal steps, weights of other libraries carry over, nothing crosses a reset."""

import functools
from typing import Any

import flax.linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import config

import policy_core as pc
from policy_core.errors import ConfigError, ContractError, StructureError
from policy_core.memory import scan_steps
from policy_core.memory.gates import apply_map
from policy_core.testing.checks import Case, check_memory

pytestmark = pytest.mark.usefixtures("unchecked")  # beartype doubles the time to trace

INPUTS, SIZE, TIME = 3, 6, 8
LINEAR: Any = {"actor": pc.MLP(()), "critic": pc.MLP(())}

MEMORIES: dict[str, Any] = {
    "gru, normalized, learned start": pc.GRU(SIZE, layer_norm=True, learned_start=True),
    "lstm, normalized, learned start": pc.LSTM(SIZE, layer_norm=True, learned_start=True),
    "min gru": pc.MinGRU(SIZE, learned_start=True),
    "attention": pc.WindowAttention(SIZE, window=3, heads=2),
    "attention longer than the sequence": pc.WindowAttention(SIZE, window=11, heads=3),
    "stack": pc.Stack((pc.MinGRU(SIZE), pc.WindowAttention(SIZE, window=3, heads=1)), residual=True),
}
time = np.arange(TIME)
PATTERNS = np.stack([time < 0, time >= 0, time == 0, *(np.random.default_rng(0).random((5, TIME)) < 0.3)])


def numbers(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@functools.cache
def params_of(memory: Any, in_size: int = INPUTS) -> Any:
    """Params of which none is what it was made as."""
    fresh = jax.eval_shape(lambda: memory.init(in_size, key=jax.random.key(0), dtype="float32"))
    leaves, structure = jax.tree.flatten(fresh)
    moved = [jnp.array(0.6 * numbers(*leaf.shape, seed=i)) for i, leaf in enumerate(leaves)]
    return jax.tree.unflatten(structure, moved)


def compare(memory: Any, one: Any, other: Any) -> None:
    """Two sequence forms agree in values and gradients, from a state in the midst of an episode."""
    weights = numbers(TIME, memory.out_size(INPUTS), seed=1)

    def loss(params: Any, xs: Any, is_first: Any, form: Any) -> Any:
        start = memory.initial_state(params)
        state, _ = scan_steps(memory, params, start, xs[::-1], jnp.zeros(TIME, bool))
        state, ys = form(params, state, xs, is_first)
        return jnp.sum(weights * ys), (state, ys)

    @jax.jit
    def both(params: Any, xs: Any, patterns: Any) -> Any:
        def run(is_first: Any) -> Any:
            forms = functools.partial(jax.value_and_grad(loss, (0, 1), has_aux=True), params, xs, is_first)
            return forms(one), forms(other)

        return jax.vmap(run)(patterns)

    got, expected = both(params_of(memory), numbers(TIME, INPUTS), PATTERNS)
    for x, y in zip(jax.tree.leaves(got[0]), jax.tree.leaves(expected[0]), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-5)
    for x, y in zip(jax.tree.leaves(got[1]), jax.tree.leaves(expected[1]), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-4)
        assert np.any(x)


@pytest.mark.parametrize(
    "name", [name for name in MEMORIES if "lstm" not in name and "gru, " not in name[:5]]
)
@pytest.mark.usefixtures("unchecked")
def test_a_sequence_equals_its_steps_however_it_is_reset(name: str) -> None:
    memory = MEMORIES[name]
    compare(memory, memory.sequence, functools.partial(scan_steps, memory))


@pytest.mark.usefixtures("unchecked")
def test_all_at_once_equals_steps() -> None:
    memory = MEMORIES["min gru"]
    compare(memory, memory.parallel_scan, functools.partial(scan_steps, memory))


@pytest.mark.parametrize(("platform", "loops"), [("cpu", True), ("cuda", False), ("tpu", False)])
def test_the_linear_recurrence_goes_in_turn_on_cpus_and_at_once_elsewhere(platform: str, loops: bool) -> None:
    memory = MEMORIES["min gru"]

    def loss(params: Any, xs: Any, is_first: Any) -> Any:
        return jnp.sum(memory.sequence(params, memory.initial_state(params), xs, is_first)[1])

    arguments = (params_of(memory), jnp.zeros((TIME, INPUTS)), jnp.zeros(TIME, bool))
    for function in (loss, jax.grad(loss)):
        text = jax.export.export(jax.jit(function), platforms=[platform])(*arguments).mlir_module()
        assert ("stablehlo.while" in text) == loops


# WEIGHTS OF OTHER LIBRARIES ------------------------------------------------------------------


def close_to(memory: Any, params: Any, expected: Any, xs: np.ndarray) -> None:
    is_first = jnp.zeros(len(xs), bool)
    _, ys = memory.sequence(params, memory.initial_state(params), jnp.array(xs), is_first)
    np.testing.assert_allclose(ys, expected, rtol=0, atol=1e-6)


def from_flax(theirs: Any, gates: str, bias: str) -> dict[str, Any]:
    """Kernels side by side in our order; `bias` says which of the maps has which biases."""
    maps = {
        name: {"kernel": jnp.concatenate([theirs[letter + gate]["kernel"] for gate in gates], 1)}
        for name, letter in (("input", "i"), ("recurrent", "h"))
    }
    maps["input"]["bias"] = jnp.concatenate([theirs[bias + gate]["bias"] for gate in gates])
    return maps


def through_flax(cell: Any, xs: np.ndarray) -> Any:
    """Their params, none of them zero, and their outputs."""
    carry = cell.initialize_carry(jax.random.key(0), xs[0].shape)
    shapes = jax.eval_shape(lambda: cell.init(jax.random.key(0), carry, xs[0]))
    theirs = jax.tree.map(lambda leaf: jnp.array(0.4 * numbers(*leaf.shape, seed=leaf.size)), shapes)
    outputs = []
    for x in xs:
        carry, y = cell.apply(theirs, carry, x)
        outputs.append(y)
    return theirs["params"], np.stack(outputs)


def test_weights_of_flax_carry_over() -> None:
    xs = numbers(4, INPUTS)
    theirs, expected = through_flax(flax.linen.GRUCell(SIZE), xs)
    ours = from_flax(theirs, "rzn", "i")
    ours["recurrent"]["bias"] = theirs["hn"]["bias"]
    close_to(pc.GRU(SIZE), ours, expected, xs)
    theirs, expected = through_flax(flax.linen.OptimizedLSTMCell(SIZE), xs)
    close_to(pc.LSTM(SIZE), from_flax(theirs, "ifgo", "h"), expected, xs)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def torch_gru(w: dict[str, np.ndarray], xs: np.ndarray) -> np.ndarray:
    """`torch.nn.GRU`, one layer, as its documentation has it: two biases, gates r, z, n in rows."""
    h, ys = np.zeros(SIZE), []
    for x in xs:
        x_r, x_z, x_n = np.split(w["weight_ih_l0"] @ x + w["bias_ih_l0"], 3)
        h_r, h_z, h_n = np.split(w["weight_hh_l0"] @ h + w["bias_hh_l0"], 3)
        r, z = sigmoid(x_r + h_r), sigmoid(x_z + h_z)
        h = (1 - z) * np.tanh(x_n + r * h_n) + z * h
        ys.append(h)
    return np.stack(ys)


def torch_lstm(w: dict[str, np.ndarray], xs: np.ndarray) -> np.ndarray:
    """`torch.nn.LSTM`, likewise; gates i, f, g, o."""
    h, c, ys = np.zeros(SIZE), np.zeros(SIZE), []
    for x in xs:
        rows = w["weight_ih_l0"] @ x + w["bias_ih_l0"] + w["weight_hh_l0"] @ h + w["bias_hh_l0"]
        i, f, g, o = np.split(rows, 4)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        ys.append(h)
    return np.stack(ys)


def torch_weights(gates: int) -> dict[str, np.ndarray]:
    rows = gates * SIZE
    shapes = {"weight_ih_l0": (rows, INPUTS), "weight_hh_l0": (rows, SIZE), "bias_ih_l0": (rows,)}
    shapes["bias_hh_l0"] = (rows,)
    return {name: 0.4 * numbers(*shape, seed=i) for i, (name, shape) in enumerate(shapes.items())}


def from_torch(w: dict[str, np.ndarray]) -> dict[str, Any]:
    kernels = {"input": w["weight_ih_l0"], "recurrent": w["weight_hh_l0"]}
    maps: Any = {name: {"kernel": jnp.array(kernel.T)} for name, kernel in kernels.items()}
    maps["input"]["bias"] = jnp.array(w["bias_ih_l0"] + w["bias_hh_l0"])
    return maps


def test_weights_in_the_layout_of_torch_carry_over() -> None:
    """Against a float64 transcription of torch's equations: torch itself is several GB with CUDA."""
    xs, w = numbers(4, INPUTS), torch_weights(3)
    ours, last = from_torch(w), slice(2 * SIZE, None)
    ours["input"]["bias"] = ours["input"]["bias"].at[last].set(w["bias_ih_l0"][last])
    ours["recurrent"]["bias"] = jnp.array(w["bias_hh_l0"][last])
    close_to(pc.GRU(SIZE), ours, torch_gru(w, xs), xs)
    w = torch_weights(4)
    close_to(pc.LSTM(SIZE), from_torch(w), torch_lstm(w, xs), xs)


# ATTENTION -------------------------------------------------------------------------------------


def attended(memory: Any, params: Any, xs: np.ndarray) -> np.ndarray:
    """The output at the last of the inputs, of which all but the window is cut off; in NumPy."""
    p = jax.tree.map(lambda x: np.asarray(x, np.float64), params)

    def linear(layer: Any, x: Any) -> Any:
        return x @ layer["kernel"] + layer["bias"]

    e = linear(p["embedding"], xs[-memory.window :].astype(np.float64))
    normal = (e - e.mean(1, keepdims=True)) / np.sqrt(e.var(1, keepdims=True) + 1e-5)
    normal = normal * p["norm"]["scale"] + p["norm"]["bias"]
    queries, keys, values = np.split(linear(p["attended"], normal), 3, axis=1)
    read = []
    for head, part in enumerate(np.split(np.arange(memory.size), memory.heads)):
        age = np.arange(len(e))[::-1]
        scores = keys[:, part] @ queries[-1, part] / np.sqrt(len(part)) + p["ages"][head, age]
        weights = np.exp(scores - scores.max())
        read.append(weights @ values[:, part] / weights.sum())
    return e[-1] + linear(p["output"], np.concatenate(read))


@pytest.mark.parametrize("name", ["attention", "attention longer than the sequence"])
def test_attention_reads_the_window_and_nothing_before_a_reset(name: str) -> None:
    memory = MEMORIES[name]
    params, xs = params_of(memory), numbers(20, INPUTS)
    is_first = np.arange(20) == 5
    _, ys = jax.jit(functools.partial(scan_steps, memory))(params, memory.initial_state(params), xs, is_first)
    for t in range(20):
        episode = xs[(5 if t >= 5 else 0) : t + 1]
        np.testing.assert_allclose(ys[t], attended(memory, params, episode), rtol=0, atol=1e-5)


def test_the_count_of_a_ring_stays_small() -> None:
    memory = pc.WindowAttention(2, window=3, heads=1)
    params = params_of(memory)
    state, counts = memory.initial_state(params), []
    step = jax.jit(memory.step)
    for _ in range(10):
        state, _ = step(params, state, np.ones(INPUTS, np.float32))
        counts.append(int(state["count"]))
    assert counts == [1, 2, 3, 4, 5, 3, 4, 5, 3, 4]


# WHAT THE CONFIGS SAY ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["gru, normalized, learned start", "lstm, normalized, learned start"])
def test_layer_norm_takes_out_the_size_of_the_kernels(name: str) -> None:
    memory = MEMORIES[name]
    params, x = params_of(memory), jnp.array(10 * numbers(INPUTS))
    state = jax.tree.map(lambda leaf: leaf + 2, memory.initial_state(params))
    large = {**params}
    for part in ("input", "recurrent"):
        large[part] = {**params[part], "kernel": 3 * params[part]["kernel"]}
    a, b = memory.step(params, state, x)[1], memory.step(large, state, x)[1]
    np.testing.assert_allclose(a, b, atol=1e-4)
    plain = type(memory)(SIZE)
    assert not np.allclose(plain.step(params, state, x)[1], a, atol=0.01)


@pytest.mark.parametrize("name", ["gru, normalized, learned start", "lstm, normalized, learned start"])
def test_the_layer_norm_of_a_memory_has_an_epsilon_of_a_hundred_thousandth(name: str) -> None:
    """By hand, gate by gate, where that is about the variance."""
    memory, x, h = MEMORIES[name], 2e-3 * numbers(INPUTS, seed=1), 2e-3 * numbers(SIZE, seed=2)
    p, gates = params_of(memory), 4 if isinstance(memory, pc.LSTM) else 3

    def mapped(layer: Any, x: np.ndarray) -> np.ndarray:
        y = (x.astype(np.float64) @ np.asarray(layer["kernel"], np.float64)).reshape(gates, SIZE)
        variance = y.var(1, keepdims=True)
        assert (variance < 1e-4).all()
        y = (y - y.mean(1, keepdims=True)) / np.sqrt(variance + 1e-5)
        return (y.ravel() * np.asarray(layer["scale"], np.float64)).reshape(gates, SIZE)

    for part, seen in (("input", x), ("recurrent", h)):
        got = apply_map(p[part], jnp.asarray(seen), gates, jnp.float32, True)
        np.testing.assert_allclose(got, mapped(p[part], seen).ravel(), rtol=1e-4, atol=1e-6)
    if gates == 3:
        sigmoid = lambda x: 1 / (1 + np.exp(-x))
        seen = mapped(p["input"], x) + np.asarray(p["input"]["bias"], np.float64).reshape(3, SIZE)
        recalled = mapped(p["recurrent"], h)
        r, z = sigmoid(seen[0] + recalled[0]), sigmoid(seen[1] + recalled[1])
        n = np.tanh(seen[2] + r * (recalled[2] + np.asarray(p["recurrent"]["bias"])))
        np.testing.assert_allclose(
            memory.step(p, jnp.asarray(h), jnp.asarray(x))[1], (1 - z) * n + z * h, atol=1e-5
        )


def test_attention_to_tiny_numbers_shows_the_epsilon_of_its_norm() -> None:
    memory = MEMORIES["attention"]
    params, xs = params_of(memory), 3e-3 * numbers(2, INPUTS)
    params = {**params, "embedding": {**params["embedding"], "bias": jnp.zeros(SIZE)}}
    _, ys = scan_steps(memory, params, memory.initial_state(params), jnp.asarray(xs), jnp.zeros(2, bool))
    np.testing.assert_allclose(ys[-1], attended(memory, params, xs), rtol=0, atol=2e-6)


def test_fresh_params_are_as_documented() -> None:
    times = 1 / jax.nn.sigmoid(
        pc.MinGRU(200, horizon=50).init(2, key=jax.random.key(0), dtype="float32")["linear"]["bias"][:200]
    )
    assert 2 <= times.min() < 8
    assert 42 < times.max() <= 50
    bias = pc.LSTM(2).init(2, key=jax.random.key(0), dtype="float32")["input"]["bias"]
    assert bias.tolist() == [0, 0, 1, 1, 0, 0, 0, 0]
    init = jax.jit(lambda key: pc.GRU(5).init(2, key=key, dtype="float32"))
    kernel = init(jax.random.key(0))["recurrent"]["kernel"]
    for gate in np.split(np.asarray(kernel), 3, axis=1):
        np.testing.assert_allclose(gate.T @ gate, np.eye(5), atol=1e-5)
    assert not np.allclose(kernel[:, :5], kernel[:, 5:10])


@pytest.mark.parametrize("sharing", ["shared", "separate", "actor"])
def test_each_sharing_has_the_memories_it_says(sharing: Any) -> None:
    policy = pc.init(
        config(
            pc.Discrete(3), memory=pc.MinGRU(4), memory_sharing=sharing, compute_dtype="bfloat16", **LINEAR
        ),
        key=jax.random.key(0),
    )
    owners = {"shared": ["shared"], "separate": ["actor", "critic"], "actor": ["actor"]}[sharing]
    state, x = pc.reset(policy), numbers(INPUTS)
    later, _ = pc.act(policy, state, x)
    assert list(state) == list(later) == owners
    for name in owners:
        assert later[name].dtype == jnp.float32  # whatever the dtype of the towers
        assert np.any(later[name] != state[name])
    moved = not np.allclose(pc.value(policy, state, x)[1], pc.value(policy, later, x)[1], atol=1e-6)
    assert moved == (sharing != "actor")
    if sharing == "separate":
        assert np.any(later["actor"] != later["critic"])


def test_a_population_of_environments_keeps_a_state_each() -> None:
    static = config(pc.Discrete(3), memory=pc.MinGRU(4), **LINEAR)
    population = jax.vmap(lambda key: pc.init(static, key=key))(jax.random.split(jax.random.key(0), 2))
    xs, first = numbers(2, 3, TIME, INPUTS), PATTERNS[3:6]
    actions = jnp.zeros((2, 3, TIME), jnp.int32)

    @jax.jit
    @functools.partial(jax.vmap, in_axes=(0, 0, 0, None))
    def run(policy: Any, xs: Any, actions: Any, first: Any) -> Any:
        def one(xs: Any, actions: Any, first: Any) -> Any:
            return pc.evaluate_sequence(policy, pc.reset(policy), xs, actions, is_first=first)

        return jax.vmap(one)(xs, actions, first)

    got = run(population, xs, actions, first)
    member = jax.tree.map(lambda x: x[1], population)
    state = pc.reset(member)
    for t in range(TIME):
        state, value = pc.value(member, state, xs[1, 2, t], is_first=first[2, t])
        np.testing.assert_allclose(got[1][1, 2, t], value, atol=1e-5)
    np.testing.assert_allclose(got[0]["shared"][1, 2], state["shared"], atol=1e-5)


BAD = {
    "size": (lambda: pc.GRU(0), r"GRU.size: got 0, expected at least 1"),
    "window": (lambda: pc.WindowAttention(4, window=0), r"WindowAttention.window: got 0"),
    "heads": (lambda: pc.WindowAttention(6), r"heads: got 4, expected a divisor of the size 6"),
    "state": (lambda: pc.WindowAttention(2**9, window=2**10 + 1), r"window: more than 524288 numbers"),
    "horizon": (
        lambda: pc.MinGRU(4, horizon=1.5),
        r"MinGRU.horizon: got 1.5, expected a number of at least 2",
    ),
    "no layer": (lambda: pc.Stack(()), r"Stack.layers: got \(\), expected at least one memory"),
    "widths": (
        lambda: config(pc.Discrete(2), memory=pc.Stack((pc.GRU(4), pc.GRU(5)), residual=True)),
        r"Stack.layers\[1\]: got output dimension 5 for input dimension 4, expected the same dimension",
    ),
    "no memory": (
        lambda: config(pc.Discrete(2), memory_sharing="actor"),
        r"memory_sharing: got 'actor' without a memory; give a memory, or leave it out",
    ),
    "no memory config": (lambda: config(pc.Discrete(2), memory=pc.MLP()), r"memory: got MLP .*, expected"),
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.usefixtures("unchecked")
def test_a_config_that_does_not_fit_is_refused(name: str) -> None:
    build, message = BAD[name]
    with pytest.raises(ConfigError, match=message):
        build()


@pytest.fixture(scope="module")
def policy() -> Any:
    return pc.init(config(pc.Discrete(3), memory=pc.MinGRU(4), **LINEAR), key=jax.random.key(0))


def evaluate(policy: Any, **changes: Any) -> Any:
    arguments = {
        "state": pc.reset(policy), "observations": np.ones((5, 3), np.float32), "actions": np.zeros(5, int),
        "is_first": np.zeros(5, bool), "action_masks": np.ones((5, 3), bool), **changes,
    }  # fmt: skip
    return pc.evaluate_sequence(policy, **arguments)


WRONG = {
    "no state": ({"state": ()}, r"state\['shared'\]: missing; expected leaves \['shared'\], got \(\)"),
    "another state": ({"state": {"actor": np.zeros(4, np.float32)}}, r"state\['actor'\]: unexpected; expected lea"),
    "another size": ({"state": {"shared": np.zeros(5, np.float32)}},
                     r"state\['shared'\]: got shape \(5,\), expected \(4,\)"),
    "time": ({"observations": np.ones((4, 3), np.float32)},
             r"observations: got shape \(4, 3\), expected a leading time axis of length 5, as is_first"),
    "a batch": ({"observations": np.ones((5, 2, 3), np.float32)},
                r"observation: got shape \(2, 3\), expected \(3,\); for a batch use jax.vmap"),
    "masks": ({"action_masks": np.ones((5, 4), bool)}, r"action_mask: got shape \(4,\), expected \(3,\)"),
    "actions": ({"actions": np.zeros(5, np.float32)}, r"action: got dtype float32, expected int32"),
    "is_first of ints": ({"is_first": np.zeros(5, int)}, r"is_first: got int.*, expected bool\(time,\)"),
    "is_first of a batch": ({"is_first": np.zeros((5, 2), bool)}, r"is_first: got bool\(5, 2\), expected bool\(time"),
    "no steps": ({"observations": np.ones((0, 3), np.float32), "actions": np.zeros(0, int),
                  "is_first": np.zeros(0, bool), "action_masks": np.ones((0, 3), bool)},
                 r"is_first: got no steps, expected at least one"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.usefixtures("unchecked")
def test_a_wrong_sequence_is_named_with_what_was_expected(policy: Any, name: str) -> None:
    changes, message = WRONG[name]
    with pytest.raises(StructureError, match=message):
        evaluate(policy, **changes)


def _step(self: Any, params: Any, state: Any, x: Any) -> Any:
    state = state / 2 + x @ params
    return state, state


def leaky(**methods: Any) -> Any:
    """The simplest memory that there is, with what `methods` say otherwise, in a policy."""
    body = {
        "__module__": __name__,
        "__qualname__": "Leaky" + "".join(methods),
        "__annotations__": {},
        "init": lambda self, in_size, *, key, dtype: jnp.ones((in_size, 2), dtype),
        "out_size": lambda self, in_size: 2,
        "initial_state": lambda self, params: jnp.zeros(2),
        "step": _step,
        "sequence": lambda self, *call: scan_steps(self, *call),
        **methods,
    }
    memory = pc.static(type("Leaky", (), body))()
    return config(pc.Discrete(2), memory=memory, **LINEAR)


def _never_reset(self: Any, params: Any, state: Any, xs: Any, is_first: Any) -> Any:
    return scan_steps(self, params, state, xs, jnp.zeros_like(is_first))


def _cut(self: Any, params: Any, state: Any, x: Any) -> Any:
    return _step(self, params, jax.lax.stop_gradient(state), x)


@pytest.mark.usefixtures("unchecked")
def test_a_memory_of_ones_own_keeps_the_contract() -> None:
    check_memory(Case(leaky()))


@pytest.mark.parametrize(
    ("methods", "message"),
    [
        ({"sequence": _never_reset}, "as sequences and as steps differ by"),
        ({"step": _cut}, "no gradient flows through time"),
    ],
    ids=["never reset", "cut"],
)
@pytest.mark.usefixtures("unchecked")
def test_check_policy_finds_a_broken_memory(methods: dict[str, Any], message: str) -> None:
    with pytest.raises(ContractError, match=message):
        check_memory(Case(leaky(**methods)))


def test_a_skip_puts_the_input_behind_the_output():
    layers = (pc.GRU(4), pc.MinGRU(2))
    plain, skipping = pc.Stack(layers), pc.Stack(layers, skip="concat")
    params = plain.init(3, key=jax.random.key(0), dtype="float32")
    assert (plain.out_size(3), skipping.out_size(3)) == (2, 5)
    state, x = plain.initial_state(params), jnp.array([0.5, -1.0, 2.0])
    (expected_state, expected), (got_state, got) = (
        plain.step(params, state, x),
        skipping.step(params, state, x),
    )
    assert np.array_equal(got, np.concatenate([expected, x]))
    for ours, theirs in zip(jax.tree.leaves(got_state), jax.tree.leaves(expected_state), strict=True):
        assert np.array_equal(ours, theirs)
    xs, is_first = jnp.stack([x, -x, 2 * x]), jnp.array([False, True, False])
    _, ys = skipping.sequence(params, state, xs, is_first)
    assert np.array_equal(ys[:, :2], plain.sequence(params, state, xs, is_first)[1])
    assert np.array_equal(ys[:, 2:], xs)
    nested = pc.Stack((skipping, pc.GRU(3)))  # a skip around a part of the layers
    assert nested.init(3, key=jax.random.key(0), dtype="float32")["layer_1"]["input"]["kernel"].shape[0] == 5
