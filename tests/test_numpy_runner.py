"""The runner without JAX acts as the policy does."""

import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from by_hand import closed, opened
from cases import BOUNDED, LOW_PRECISION, OBSERVATION, SPACES, config
from cases import CONFIGS as CASES
from policy_core_adapters import numpy_runner

import policy_core as pc
from policy_core.configs.codec import to_data

pytestmark = pytest.mark.usefixtures("unchecked")  # beartype doubles the time to trace

ROOT = Path(__file__).parent.parent
FULL = "POLICY_CORE_FULL" in os.environ  # every config and 1,000 observations, else a sample
WHOLE = {"layer_norm": True, "learned_start": True}
CONFIGS = {
    **CASES,
    "lstm": config(SPACES["box"], memory=pc.LSTM(4), trunk=pc.MLP((5,))),
    "every memory": config(
        SPACES["box"],
        memory=pc.Stack(
            (
                pc.GRU(4, **WHOLE),
                pc.LSTM(4, **WHOLE),
                pc.MinGRU(4, learned_start=True),
                pc.WindowAttention(4, window=5, heads=2),
            ),
            residual=True,
        ),
        memory_sharing="separate",
    ),
    "gru of the actor": config(SPACES["box"], memory=pc.GRU(4, layer_norm=True), memory_sharing="actor"),
    "embedded": config(
        SPACES["box"],
        pc.Dict(
            {
                "x": OBSERVATION,
                "gear": pc.Discrete(4, start=1),
                "rows": pc.MultiDiscrete((2, 3)),
                "bits": pc.MultiBinary((2, 1)),
            }
        ),
        encoder=pc.Parts(
            {"gear": pc.Embedding(2), "rows": pc.Embedding(3), "bits": pc.Embedding(2)}, rest=pc.Flatten()
        ),
        normalize=pc.Normalize(),
    ),
    "critic with keys": config(
        pc.Discrete(3),
        pc.Dict({"eye": pc.Box(shape=(3, 3, 1)), "k": pc.Discrete(4), "x": OBSERVATION}),
        critic_keys=("k", "x"),
        encoder=pc.Parts({"eye": pc.MinAtarCNN(filters=2, size=3), "k": pc.Embedding(2)}, rest=pc.Flatten()),
        memory=pc.GRU(3),
        memory_sharing="actor",
    ),
    "nature": config(pc.Discrete(3), pc.Box(low=0, high=255, shape=(44, 37, 2), dtype="uint8")),
    "impala": config(
        pc.Discrete(3),
        pc.Box(low=0.0, high=1.0, shape=(7, 10, 3)),
        encoder=pc.ImpalaCNN(channels=(4, 2), blocks=1, size=8),
    ),
    "autoregressive bins": config(
        pc.Tuple((BOUNDED, pc.MultiDiscrete((2, 3), start=(0, 1)), SPACES["nested"], pc.MultiBinary(2))),
        box_head=pc.BinsHead(3),
        autoregressive=pc.Autoregressive({1: (0,), 2: (1, 0), 3: (0,)}, network=pc.MLP(())),
        temperature=0.7,
    ),
}
SOME = ("act box bfloat16", "act discrete with start", "act nested", "act box int8", "observe nested", "state std",
        "softplus std", "squashed, mixed bounds", "beta",
        "gSDE", "squashed gSDE", "heads of parts", "temperature", "only a trunk", "autoregressive",
        "autoregressive bins", "memory with a skip", "gru", "lstm", "every memory", "gru of the actor",
        "normalized", "embedded", "two-hot value", "HL-Gauss values", "symlog values", "PopArt values", "normalized value", "layer norm",
        "image", "parts", "nature", "impala",
        "privileged critic", "critic with keys")  # fmt: skip
NAMES = [name for name in CONFIGS if name not in LOW_PRECISION and (FULL or name in SOME)]
COUNT = 1000 if FULL else 100
WITH_TIES = ("temperature", "autoregressive", "autoregressive bins", "bins")  # discrete parts that others see


def others(mask: Any, seen: dict[Any, Any]) -> Any:
    """`cases.others` in NumPy."""
    free = np.arange(4) != seen["tool"]
    return free if mask is None else mask & free


def _policy(config: Any, seed: int = 0) -> Any:
    """Params that are not tiny, so that nothing passes because a number is near zero, nor huge."""
    rng = np.random.default_rng(seed)

    def draw(x: Any) -> Any:
        inputs = math.prod(x.shape[:-1])
        return (0.7 * min(1, math.sqrt(8 / max(inputs, 1))) * rng.standard_normal(x.shape)).astype(x.dtype)

    template = jax.eval_shape(lambda: config.init(key=jax.random.key(0)))
    params = jax.tree.map(draw, template)
    if "temperature" in params:
        params["temperature"] = np.float32(config.temperature)
    return jax.tree.map(jnp.asarray, params), config


def _random_mask(mask: Any, rng: np.random.Generator) -> Any:
    return jax.tree.map(lambda row: rng.random(row.shape) < 0.6, mask)


@pytest.mark.parametrize("name", NAMES)
def test_modes_values_and_states_are_those_of_jax(name, tmp_path):
    policy = _policy(CONFIGS[name])
    space, rng = CONFIGS[name].action_space, np.random.default_rng(1)
    pc.save(tmp_path / "file", policy, self_test=False)
    runner = numpy_runner.load(tmp_path / "file", mask_functions={"others": others})
    keys = jax.random.split(jax.random.key(2), COUNT)
    observations = jax.vmap(lambda key: CONFIGS[name].observation_space.sample(key=key))(keys)
    rows = [_random_mask(space.full_mask(), rng) for _ in range(COUNT)]
    masks = jax.tree.map(lambda *rows: np.stack(rows), *rows)
    is_first = np.arange(COUNT) % 130 == 70  # else the state is carried on, for 100 steps and more

    @jax.jit
    def run(observations: Any, masks: Any) -> Any:
        def step(state: Any, inputs: Any) -> Any:
            observation, mask, first = inputs
            _, value = pc.value(policy, state, observation, is_first=first)
            state, distribution = pc.action_distribution(
                policy, state, observation, action_mask=mask, is_first=first
            )
            return state, (state, pc.env_action(policy, distribution.mode()), value)

        return jax.lax.scan(step, pc.reset(policy), (observations, masks, is_first))[1]

    states, expected, values = jax.tree.map(np.asarray, run(observations, masks))
    observations = jax.tree.map(np.asarray, observations)
    state, differ = runner.reset(), 0
    assert jax.tree.structure(state) == jax.tree.structure(pc.reset(policy))
    for i in range(COUNT):
        observation, first = jax.tree.map(lambda x: x[i], observations), bool(is_first[i])
        seen, value = runner.value(state, observation, is_first=first)
        state, action = runner.act(state, observation, action_mask=rows[i], is_first=first)
        for ours in (seen, state):
            wanted = jax.tree.map(lambda x: x[i], states)
            assert jax.tree.structure(ours) == jax.tree.structure(wanted)
            for got, want in zip(jax.tree.leaves(ours), jax.tree.leaves(wanted), strict=True):
                assert got.dtype == want.dtype
                assert np.allclose(got, want, rtol=1e-5, atol=1e-5)
        assert np.shape(value) == values[i].shape
        assert np.all(np.abs(value - values[i]) <= 1e-5 * np.maximum(1, np.abs(values[i])))
        wanted = jax.tree.map(lambda x: x[i], expected)
        assert jax.tree.structure(action) == jax.tree.structure(wanted)
        for got, want in zip(jax.tree.leaves(action), jax.tree.leaves(wanted), strict=True):
            assert got.shape == want.shape
            assert got.dtype == (np.float32 if want.dtype == jnp.bfloat16 else want.dtype)
            if want.dtype == jnp.bfloat16:  # one rounding apart at most
                differ += not np.array_equal(got, want.astype(np.float32))
                assert np.allclose(got, want.astype(np.float32), rtol=2**-7)
            elif want.dtype.kind != "f" or name in WITH_TIES:
                differ += not np.allclose(got, want, rtol=1e-5, atol=1e-5)
            else:
                assert np.allclose(got, want, rtol=1e-5, atol=1e-5)
    assert differ <= COUNT // 200, "more than ties"


SAMPLED = {
    "discrete": config(pc.Discrete(3, start=1)),
    "multi": config(pc.MultiDiscrete((2, 3))),
    "bits": config(pc.MultiBinary(2)),
    "normal": config(
        pc.Box(shape=(2,)), box_head=pc.NormalHead(pc.Scale(std="state", log_std=-1.0)), temperature=0.5
    ),
    "squashed": config(BOUNDED, box_head=pc.SquashedNormalHead(pc.Scale(positive="softplus"))),
    "beta": config(BOUNDED, box_head=pc.BetaHead(), temperature=2.0),
    "bins": config(BOUNDED, box_head=pc.BinsHead(4)),
    "autoregressive": CASES["autoregressive"],
}


@pytest.mark.parametrize("name", SAMPLED)
def test_draws_have_the_law_of_jax(name, tmp_path):
    policy, count = _policy(SAMPLED[name]), 2000
    pc.save(tmp_path / "file", policy, self_test=False)
    rng, runner = (
        np.random.default_rng(0),
        numpy_runner.load(tmp_path / "file", mask_functions={"others": others}),
    )
    observation = np.array([0.3, -0.2, 0.5], np.float32)
    draws = [runner.act((), observation, rng=rng)[1] for _ in range(count)]
    keys = jax.random.split(jax.random.key(0), count)
    _, expected = jax.vmap(lambda key: pc.act(policy, (), observation, key=key))(keys)
    stacked = jax.tree.map(lambda *x: np.stack(x), *draws)
    for got, want in zip(jax.tree.leaves(stacked), jax.tree.leaves(expected), strict=True):
        a, b = (np.asarray(x).reshape(count, -1).astype(float).round(5) for x in (got, want))
        for column in range(a.shape[1]):  # Kolmogorov and Smirnov, two samples, a level of 1e-5 or so
            both = np.sort(np.concatenate([a[:, column], b[:, column]]))
            apart = [np.searchsorted(np.sort(x[:, column]), both, side="right") / count for x in (a, b)]
            assert np.max(np.abs(apart[0] - apart[1])) < 2.5 * np.sqrt(2 / count)


def test_what_is_masked_is_never_drawn(tmp_path):
    policy = _policy(SAMPLED["discrete"])
    pc.save(tmp_path / "file", policy, self_test=False)
    runner, rng = numpy_runner.load(tmp_path / "file"), np.random.default_rng(0)
    mask = np.array([False, True, False])
    assert {int(runner.act((), np.ones(3), rng=rng, action_mask=mask)[1]) for _ in range(100)} == {2}
    every = np.zeros(3, bool)  # a row that allows nothing allows everything
    assert runner.act((), np.ones(3), action_mask=every)[1] == runner.act((), np.ones(3))[1]
    with pytest.raises(ValueError, match=r"^action_mask: got bool\(2,\), expected bool\(3,\)$"):
        runner.act((), np.ones(3), action_mask=np.ones(2, bool))
    with pytest.raises(ValueError, match=r"^observation: got float64\(4,\), expected Box\(3,\)$"):
        runner.act((), np.ones(4))


OBSERVED = {
    "box": (pc.Box(shape=(2, 3)), np.ones((2, 3)), (np.ones((3, 2)), np.ones(6), np.ones((1, 3)), "ab", None, ())),
    "integers": (pc.Box(low=0, high=9, shape=(2,), dtype="int8"), np.ones(2, int), (np.ones(2), np.ones(3, int))),
    "discrete": (pc.Discrete(3), 1, (np.ones(1, int), 0.5, "1", [1])),
    "several": (pc.MultiDiscrete((2, 3)), np.array([0, 1]), (np.ones((2, 1), int), 1, np.ones(2))),
    "bits": (pc.MultiBinary((1, 2)), np.ones((1, 2), int), (np.ones(2, int), np.ones((2, 1), int))),
    "dict": (
        pc.Dict({"a": pc.Discrete(2), "b": pc.Box()}),
        {"a": 1, "b": 0.5},
        ({"a": 1}, {"a": 1, "b": 0.5, "c": 1}, (1, 0.5), {"a": 1, "b": np.ones(1)}),
    ),
    "tuple": (
        pc.Tuple((pc.Discrete(2), pc.Box(shape=(2,)))),
        (1, np.ones(2)),
        ((1,), (1, np.ones(2), 1), {0: 1, 1: np.ones(2)}, (np.ones(2), 1), None),
    ),
}  # fmt: skip


@pytest.mark.parametrize("normalize", [None, pc.Normalize()])
@pytest.mark.parametrize("name", OBSERVED)
def test_an_observation_has_the_form_of_its_space(name, normalize, tmp_path):
    space, good, bad = OBSERVED[name]
    policy = _policy(config(pc.Discrete(3), space, normalize=normalize, encoder=pc.Flatten()))
    pc.save(tmp_path / "file", policy, self_test=False)
    runner = numpy_runner.load(tmp_path / "file")
    _, value = runner.value((), good)
    expected = pc.value(policy, (), jax.tree.map(jnp.asarray, good))[1]
    assert abs(value - float(expected)) <= 1e-5 * max(1, abs(value))
    for observation in bad:
        with pytest.raises(ValueError, match=r"^observation"):
            runner.act((), observation)


def test_what_draws_an_action_is_a_generator(tmp_path):
    pc.save(tmp_path / "file", _policy(SAMPLED["discrete"]), self_test=False)
    for wrong in (0, np.int64(0), jax.random.key(0)):
        with pytest.raises(TypeError, match=r"^rng: got .*, expected a numpy\.random\.Generator$"):
            numpy_runner.load(tmp_path / "file").act((), np.ones(3), rng=wrong)


@pytest.mark.parametrize("junk", [math.nan, math.inf, -math.inf])
def test_what_is_masked_is_never_drawn_whatever_the_logits(junk, tmp_path):
    params, policy = _policy(config(pc.MultiDiscrete((3, 3))))
    bias = params["actor"]["head"]["bias"].at[1].set(junk).at[5].set(junk)
    params["actor"]["head"]["bias"] = bias
    pc.save(tmp_path / "file", (params, policy), self_test=False)
    runner, rng = numpy_runner.load(tmp_path / "file"), np.random.default_rng(0)
    rows = (np.array([False, True, True]), np.array([True, False, True]))
    for mask in (rows, pc.spaces.JointMask(np.outer(*rows))):
        for _ in range(200):
            _, action = runner.act((), np.ones(3, np.float32), rng=rng, action_mask=mask)
            assert action[0] > 0
            assert action[1] != 1
    drawn = [runner.act((), np.ones(3, np.float32), rng=rng)[1] for _ in range(200)]
    assert len({int(i) for i, _ in drawn}) == (1 if junk == math.inf else 3 if math.isnan(junk) else 2)


def test_a_draw_that_is_rounded_up_to_the_whole_is_of_the_last_that_is_allowed(tmp_path):
    class Generator:
        """Of which the product with the whole is the whole, as for numbers just below 1."""

        standard_normal = None

        def random(self, shape: Any = None) -> Any:
            return 1.0 if shape is None else np.ones(shape)

    for space, allowed in ((pc.Discrete(3), [True, True, False]), (pc.MultiDiscrete((3, 3)), None)):
        pc.save(tmp_path / "file", _policy(config(space)), self_test=False)
        runner, mask = numpy_runner.load(tmp_path / "file"), None if allowed is None else np.array(allowed)
        _, action = runner.act((), np.ones(3, np.float32), rng=Generator(), action_mask=mask)  # type: ignore[arg-type]
        assert np.all(action == (2 if mask is None else 1))


def test_combinations_that_a_joint_mask_forbids_are_never_chosen(tmp_path):
    policy = _policy(config(pc.MultiDiscrete((2, 3, 2), start=(0, 1, 0)), temperature=2.0))
    pc.save(tmp_path / "file", policy, self_test=False)
    runner, rng = numpy_runner.load(tmp_path / "file"), np.random.default_rng(0)
    allowed = rng.random((300, 2, 3, 2)) < 0.3
    allowed[0] = False  # allows everything
    observations = rng.standard_normal((300, 3)).astype(np.float32)

    class Joint(NamedTuple):  # any object will do
        allowed: Any

    def mode(x: Any, allowed: Any) -> Any:
        return pc.act(policy, (), x, action_mask=pc.spaces.JointMask(allowed))[1]

    expected = np.asarray(jax.vmap(mode)(observations, allowed))
    got = [runner.act((), x, action_mask=Joint(a))[1] for x, a in zip(observations, allowed, strict=True)]
    assert np.array_equal(np.stack(got), expected)
    assert got[0].dtype == expected.dtype

    _, distribution = pc.action_distribution(
        policy, (), observations[1], action_mask=pc.spaces.JointMask(allowed[1])
    )
    draws = [runner.act((), observations[1], rng=rng, action_mask=Joint(allowed[1]))[1] for _ in range(3000)]
    counts = np.zeros((2, 3, 2))
    np.add.at(counts, tuple(np.stack(draws).T - np.array([[0], [1], [0]])), 1)
    assert np.all(counts[~allowed[1]] == 0)
    assert np.abs(counts / 3000 - np.asarray(distribution.probs)).max() < 0.05
    with pytest.raises(ValueError, match=r"^action_mask.allowed: got bool\(3,\), expected bool\(2, 3, 2\)$"):
        runner.act((), np.ones(3), action_mask=Joint(np.ones(3, bool)))


def test_what_a_state_is_and_what_it_is_not(tmp_path):
    pc.save(tmp_path / "file", _policy(CONFIGS["every memory"]), self_test=False)
    runner = numpy_runner.load(tmp_path / "file")
    first = runner.reset()
    state, _ = runner.act(first, np.ones(3))
    kept = jax.tree.map(np.copy, state)
    for _ in range(6):  # more than the window
        runner.act(state, np.ones(3))
    assert jax.tree.all(jax.tree.map(np.array_equal, state, kept)), "a state is not written to"
    assert not any(leaf.flags.writeable for leaf in jax.tree.leaves(first))
    for wrong in ((), {"actor": 0}, None):
        with pytest.raises(
            ValueError, match=r"^state: expected the state returned by `reset` or the last call"
        ):
            runner.act(wrong, np.ones(3))
        assert runner.act(wrong, np.ones(3), is_first=True)[0].keys() == {"actor", "critic"}


def _arrays(tree: Any) -> list[Any]:
    return [leaf for leaf in jax.tree.leaves(tree) if isinstance(leaf, np.ndarray)]


@pytest.mark.parametrize(
    "name", ["act nested", "squashed gSDE", "autoregressive bins", "every memory", "parts"]
)
def test_what_a_call_returns_is_no_other_calls(name, tmp_path):
    """Nor do arrays of the runner, or the observation, have its memory, so that both may be written to."""
    pc.save(tmp_path / "file", _policy(CONFIGS[name]), self_test=False)
    runner, rng = (
        numpy_runner.load(tmp_path / "file", mask_functions={"others": others}),
        np.random.default_rng(0),
    )
    observation = jax.tree.map(np.asarray, CONFIGS[name].observation_space.sample(key=jax.random.key(0)))
    results: list[Any] = []
    kept: list[Any] = []
    state = runner.reset()
    for draws in (None, rng, None, rng, None):
        state, action = runner.act(state, observation, rng=draws)
        results.append((state, action))
        kept.append(jax.tree.map(np.copy, (state, action)))
    assert jax.tree.all(jax.tree.map(np.array_equal, results, kept))
    actions = _arrays([action for _, action in results])
    for i, array in enumerate(actions):
        others_ = [*actions[:i], *_arrays(observation), *_arrays([state for state, _ in results])]
        assert not any(np.shares_memory(array, other) for other in others_)
        array[...] = 0
    before = jax.tree.map(np.copy, runner.act(runner.reset(), observation))
    for array in _arrays(runner.act(runner.reset(), observation)):
        if array.flags.writeable:
            array[...] = 7
    assert jax.tree.all(jax.tree.map(np.array_equal, runner.act(runner.reset(), observation), before))


# What one call may take: Python functions, and functions in C that are no operations of arrays. The more
# there are, the slower; a microsecond is twenty.
CALLS = {
    "discrete": (pc.Discrete(3), {}, 20, 27),
    "normal": (pc.Box(shape=(2,)), {}, 24, 25),
    "squashed": (BOUNDED, {"box_head": pc.SquashedNormalHead()}, 27, 28),
    "beta": (BOUNDED, {"box_head": pc.BetaHead()}, 27, 41),
    "several": (pc.MultiDiscrete((3, 3)), {}, 27, 34),
    "normalized": (pc.Discrete(3), {"normalize": pc.Normalize()}, 23, 30),
    "GRU": (pc.Discrete(3), {"memory": pc.GRU(4)}, 27, 34),
    "LSTM": (pc.Discrete(3), {"memory": pc.LSTM(4)}, 27, 34),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_call_takes_a_few_functions(name, tmp_path):
    space, fields, *most = CALLS[name]
    tower = pc.MLP((4, 4))
    policy = _policy(config(space, **({"actor": tower, "critic": tower} | fields)))
    pc.save(tmp_path / "file", policy, self_test=False)
    runner, rng, x = numpy_runner.load(tmp_path / "file"), np.random.default_rng(0), np.ones(3, np.float32)
    state = runner.reset()
    for draws, allowed in zip((None, rng), most, strict=True):
        events: list[str] = []
        before = sys.getprofile()
        sys.setprofile(lambda frame, event, argument: events.append(event))
        try:
            runner.act(state, x, rng=draws)
        finally:
            sys.setprofile(before)
        assert events.count("call") + events.count("c_call") - 1 <= allowed


def test_halved_kernels_and_shared_exponentials_give_the_same_bits():
    from policy_core_adapters.numpy_runner import memory, networks

    rng, size, f4 = np.random.default_rng(0), 5, np.float32
    edges = f4([0.0, -0.0, 1e-45, -1e-40, 3e38, -3e38, 104, -104, math.inf, -math.inf, math.nan])
    x = np.concatenate([edges, rng.standard_normal(500).astype(f4) * 30])
    e = np.exp(-np.abs(x))
    for got, sign in zip((networks.sigmoid(x), *networks.sigmoids(x)), (1, 1, -1), strict=True):
        assert got.dtype == f4
        assert np.array_equal(got, np.where(sign * x >= 0, f4(1), e) / (1 + e), equal_nan=True)

    def gate(x: Any) -> Any:
        return f4(0.5) * np.tanh(f4(0.5) * x) + f4(0.5)

    def part(*shape: int) -> Any:
        return rng.standard_normal(shape).astype(f4)

    fields = {"size": size, "layer_norm": False, "learned_start": False}
    for _ in range(20):
        x, h, c = part(3), part(size), part(size)
        kernel, recurrent, bias = part(3, 4 * size), part(size, 4 * size), part(4 * size)
        params = {"input": {"kernel": kernel, "bias": bias}, "recurrent": {"kernel": recurrent}}
        rows = [np.ascontiguousarray(k.T) for k in (kernel, recurrent)]
        i, f, g, o = (rows[0].dot(x) + rows[1].dot(h) + bias).reshape(4, size)
        cell = gate(f) * c + gate(i) * np.tanh(g)
        state, y = memory._lstm(fields, params, 3, f4).step({"cell": c, "hidden": h}, x)
        assert np.array_equal(state["cell"], cell)
        assert np.array_equal(y, gate(o) * np.tanh(cell))
        three, inner = 3 * size, part(size)
        params = {
            "input": {"kernel": kernel[:, :three], "bias": bias[:three]},
            "recurrent": {"kernel": recurrent[:, :three], "bias": inner},
        }
        rows = [np.ascontiguousarray(k[:, :three].T) for k in (kernel, recurrent)]
        w, u = rows[0].dot(x) + bias[:three], rows[1].dot(h)
        r, z = gate(w[: 2 * size] + u[: 2 * size]).reshape(2, size)
        n = np.tanh(w[2 * size :] + r * (u[2 * size :] + inner))
        assert np.array_equal(memory._gru(fields, params, 3, f4).step(h, x)[1], (1 - z) * n + z * h)


def test_a_box_has_no_mask(tmp_path):
    pc.save(tmp_path / "file", _policy(SAMPLED["bins"]), self_test=False)
    with pytest.raises(ValueError, match=r"^action_mask: got a mask for a Box"):
        numpy_runner.load(tmp_path / "file").act((), np.ones(3), action_mask=[np.ones(4, bool)] * 2)


def test_mask_functions_are_given_by_name(tmp_path):
    pc.save(tmp_path / "file", _policy(CONFIGS["autoregressive"]), self_test=False)
    with pytest.raises(
        ValueError, match=r"^Autoregressive.masks\['aim'\]: 'others' is not known here; pass it in"
    ):
        numpy_runner.load(tmp_path / "file")
    runner = numpy_runner.load(tmp_path / "file", mask_functions={"others": others})
    rng = np.random.default_rng(0)
    draws = [runner.act((), np.ones(3), rng=rng)[1] for _ in range(100)]
    assert list(draws[0]) == list(CONFIGS["autoregressive"].action_space.struct())
    assert not any(draw["aim"] == draw["tool"] for draw in draws)


def test_every_activation_is_that_of_jax():
    x = np.linspace(-6, 6, 101, dtype=np.float32)
    from policy_core.networks.activations import ACTIVATIONS

    ours = ACTIVATIONS.functions

    shipped = {
        name for name, f in ours.items() if not f.__module__.startswith(("test", "doctest", "builtins"))
    }
    assert set(numpy_runner.ACTIVATIONS) <= shipped
    for name, function in numpy_runner.ACTIVATIONS.items():
        assert np.allclose(function(x), ours[name](x), rtol=2e-6, atol=1e-6), name
        assert function(x).dtype == np.float32, name


def test_a_member_of_a_population_and_low_precision_params(tmp_path):
    policies = [_policy(CONFIGS["act box"], seed) for seed in range(3)]
    population = jax.tree.map(lambda *x: jnp.stack(x), *policies)
    pc.save(tmp_path / "file", population, self_test=False)
    runner = numpy_runner.load(tmp_path / "file", member=1)
    assert np.allclose(runner.act((), np.ones(3))[1], pc.act(policies[1], (), jnp.ones(3))[1], atol=1e-5)
    for member in ((), 3, (0, 0)):
        with pytest.raises(
            ValueError, match=r"^member: got .* expected an index for each of the axes \(3,\)$"
        ):
            numpy_runner.load(tmp_path / "file", member=member)
    half = _policy(config(SPACES["box"], param_dtype="bfloat16"))
    pc.save(tmp_path / "half", half, self_test=False)
    action = numpy_runner.load(tmp_path / "half").act((), np.ones(3))[1]
    assert np.allclose(action, pc.act(half, (), jnp.ones(3))[1], atol=1e-5)


def test_what_it_does_not_know_is_refused(tmp_path):
    def refused(message: str, data: bytes) -> None:
        (tmp_path / "file").write_bytes(data)
        with pytest.raises(ValueError, match=message):
            numpy_runner.load(tmp_path / "file")

    def edited(name: str = "act box", **fields: Any) -> bytes:
        import hashlib

        import msgpack

        document = opened(pc.to_bytes(_policy(CONFIGS[name]), self_test=False))
        data = msgpack.unpackb(document["config"])
        data["fields"] = dict(sorted((data["fields"] | fields).items()))
        encoding = msgpack.packb(data)
        return closed(
            document
            | {"config": encoding, "fingerprint": hashlib.sha256(b"policy_core config\n" + encoding).digest()}
        )

    unknown = {"type": "policy_core/Memory", "fields": {"objectives": None}}
    two_hot = to_data(CONFIGS["two-hot value"].value_head)
    refused(r"^no network 'policy_core/Memory' is supported by this runner", edited(actor=unknown))
    refused(r"^no head 'policy_core/Memory' is supported by this runner", edited(box_head=unknown))
    refused(r"^no encoder 'policy_core/Memory' is supported by this runner", edited(encoder=unknown))
    refused(r"^no value head 'policy_core/Memory' is supported by this runner", edited(value_head=unknown))
    refused(
        r"^TwoHotHead.tower: this runner does not support the field",
        edited("two-hot value", value_head=two_hot | {"fields": two_hot["fields"] | {"tower": 1}}),
    )
    many = two_hot | {"fields": two_hot["fields"] | {"bins": 2**40}}  # no grid is made of them
    refused(r"^leaves: one has the shape \(8, 11\), expected", edited("two-hot value", value_head=many))
    refused(r"^no memory 'policy_core/Memory' is supported by this runner", edited("gru", memory=unknown))
    refused(
        r"^autoregressive: this runner does not support 'policy_core/Memory'$", edited(autoregressive=unknown)
    )
    refused(r"^ActorCriticConfig.more: this runner does not support the field", edited(more=unknown))
    refused(r"^compute_dtype: bfloat16 is not what NumPy computes in", edited(compute_dtype="bfloat16"))
    for name, leaf in (("act box", "actor/head/bias"), ("gru", "memory/input/bias")):
        document = opened(edited(name))
        row = next(row for row in document["leaves"] if row[0] == leaf)
        row[2], row[3] = [1], row[3][:4]  # NumPy would stretch it
        refused(r"^leaves: one has the shape \(1,\), expected", closed(document))
    refused(r"^config: expected a bytes, got a size$", closed(opened(edited()) | {"config": 1}))
    data = edited()
    refused(r"^checksum: ", data[:-1] + bytes([data[-1] ^ 1]))
    refused(r"^not a policy file$", b"x" * 100)


def test_it_imports_numpy_and_hardly_more():
    script = (
        "import hashlib, sys, numpy\n"
        "before = set(sys.modules)\n"
        "import policy_core_adapters.numpy_runner\n"
        "print(*before, '|', *set(sys.modules) - before)"
    )
    result = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT / "adapters",
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    before, more = map(str.split, result.stdout.split("|"))
    assert not {name.partition(".")[0] for name in before} & {"jax", "jaxlib", "policy_core", "ml_dtypes"}
    # Such as numpy.random or pathlib, 10 ms each, which a robot may never need.
    assert {name.partition(".")[0] for name in more} == {"policy_core_adapters", "__future__"}


def test_an_actor_without_its_critic(tmp_path):
    space = pc.Dict({"x": OBSERVATION, "truth": pc.Box(shape=(2,))})
    alone = pc.actor_only(_policy(config(SPACES["box"], space, actor_keys=("x",), normalize=pc.Normalize())))
    pc.save(tmp_path / "alone", alone, self_test=False)
    runner, observation = numpy_runner.load(tmp_path / "alone"), {"x": np.float32([0.3, -1.0, 2.0])}
    _, action = runner.act(runner.reset(), observation)
    assert np.allclose(action, pc.act(alone, (), observation)[1], atol=1e-5)
    with pytest.raises(ValueError, match="value: the policy has no critic"):
        runner.value(runner.reset(), observation)
