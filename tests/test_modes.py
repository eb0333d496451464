"""Under the modes of JAX itself: meshes, checks of keys and NaNs, no jit, exports, donation.

What only has to be traced is traced, with shapes in place of arrays.
"""

import importlib.util
from typing import Any

import cases
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from meshes import mesh_of

import policy_core as pc
from policy_core.configs.registry import CONFIGS
from policy_core.encoders.convolution import convolution

KEY = jax.random.key(0)
TIME = 4
SPEC = jax.sharding.PartitionSpec
MEMORIES = {
    "gru": pc.GRU(4),
    "lstm": pc.LSTM(4, learned_start=True),
    "min_gru": pc.MinGRU(4),
    "attention": pc.WindowAttention(4, window=3, heads=2),
    "stack": pc.Stack((pc.GRU(4), pc.MinGRU(4, learned_start=True))),
}


def structs(make: Any, *leading: int) -> Any:
    """Shapes and dtypes of what `make` gives, with leading axes."""
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct((*leading, *leaf.shape), leaf.dtype), jax.eval_shape(make)
    )


def policy_of(config: Any, *leading: int) -> Any:
    return structs(lambda: pc.init(config, key=KEY), *leading)


def numbers_for(struct: Any) -> Any:
    """Small random numbers, without a program to compile."""
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: rng.normal(0, 0.3, leaf.shape).astype(leaf.dtype), struct)


def observations_of(config: Any, *leading: int) -> Any:
    return structs(lambda: config.observation_space.sample(key=KEY), *leading)


def actions_of(config: Any, *leading: int) -> Any:
    return structs(lambda: config._policy_space.sample(key=KEY), *leading)


def manual(kind: str = "Auto", check_vma: bool = True) -> Any:
    """A decorator: the function on one element of each device, mapped over two devices.

    What the first argument is made of is the same on both if it is a pair in a list.
    """
    mesh = mesh_of(kind, device=2)

    def spread(function: Any) -> Any:
        def local(*arguments: Any) -> Any:
            own = [
                argument[0] if isinstance(argument, list) else jax.tree.map(lambda leaf: leaf[0], argument)
                for argument in arguments
            ]
            return jax.tree.map(lambda leaf: leaf[None], function(*own))

        def call(*arguments: Any) -> Any:
            specs = tuple(SPEC() if isinstance(x, list) else SPEC("device") for x in arguments)
            return jax.shard_map(
                local, mesh=mesh, in_specs=specs, out_specs=SPEC("device"), check_vma=check_vma
            )(*arguments)

        return jax.jit(call)

    return spread


def evaluated(policy: Any, observations: Any, actions: Any) -> Any:
    """State, and the sum of what a trainer needs, of a sequence that begins with a reset."""
    state, values, log_probs, entropies = pc.evaluate_sequence(
        policy, pc.reset(policy), observations, actions, is_first=jnp.arange(TIME) == 2
    )
    return state, sum(jnp.sum(x) for x in (values, log_probs, entropies))


# --- shard_map ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MEMORIES)
def test_a_sequence_goes_under_a_shard_map(name: str) -> None:
    config = cases.config(pc.Discrete(3), memory=MEMORIES[name])
    batch = observations_of(config, 2, TIME), actions_of(config, 2, TIME)
    state, _ = jax.eval_shape(manual()(evaluated), [policy_of(config)], *batch)
    assert jax.tree.leaves(state)[0].shape[0] == 2
    jax.eval_shape(manual()(evaluated), policy_of(config, 2), *batch)  # a population, split by members


@pytest.mark.parametrize("name", MEMORIES)
def test_a_scan_of_ones_own_may_start_from_a_reset_under_a_shard_map(name: str) -> None:
    config = cases.config(pc.Discrete(3), memory=MEMORIES[name])

    def rollout(policy: Any, observations: Any, key: Any) -> Any:
        step = lambda state, observation: pc.act(policy, state, observation)
        return jax.lax.scan(step, pc.reset(policy, key=key), observations)

    observations, keys = observations_of(config, 2, TIME), jax.eval_shape(lambda: jax.random.split(KEY, 2))
    jax.eval_shape(manual()(rollout), [policy_of(config)], observations, keys)  # by the key
    without = lambda policy, observations: rollout(policy, observations, None)
    jax.eval_shape(manual()(without), policy_of(config, 2), observations)  # by the params


def test_noise_that_is_kept_is_drawn_under_a_shard_map() -> None:
    config = cases.config(pc.Box(shape=(2,)), box_head=pc.heads.GSDEHead(resample_every=2))

    def rollout(policy: Any, observations: Any, key: Any) -> Any:
        step = lambda state, inputs: pc.act(policy, state, inputs[0], key=inputs[1])
        keys = jax.random.split(key, TIME)
        return jax.lax.scan(step, pc.reset(policy, key=key), (observations, keys))

    observations, keys = observations_of(config, 2, TIME), jax.eval_shape(lambda: jax.random.split(KEY, 2))
    jax.eval_shape(manual()(rollout), [policy_of(config)], observations, keys)
    jax.eval_shape(manual()(evaluated), [policy_of(config)], observations, actions_of(config, 2, TIME))


def test_a_sequence_of_a_policy_with_nothing_but_forward_goes_under_a_shard_map() -> None:
    config = Counting(space=pc.Discrete(3))
    batch = observations_of(config, 2, TIME), structs(lambda: jnp.zeros((), jnp.int32), 2, TIME)
    jax.eval_shape(manual()(evaluated), [policy_of(config)], *batch)


@pc.static
class Counting:
    """A policy with nothing but the contract, part of whose state nothing changes."""

    space: pc.Discrete
    observation_space = pc.Box(shape=(3,))

    @property
    def action_space(self) -> pc.Discrete:
        return self.space

    def init(self, *, key: Any) -> Any:
        return jax.random.normal(key, (3,))

    def initial_state(self, params: Any, *, key: Any = None) -> Any:
        return {"seen": jnp.zeros(3), "limit": jnp.zeros((), jnp.int32)}

    def forward(self, params: Any, state: Any, observation: Any, *, action_mask: Any = None) -> Any:
        seen = state["seen"] + observation
        logits = params * seen
        state = {"seen": seen, "limit": jnp.ones((), jnp.int32)}
        return state, pc.distributions.Categorical(logits, action_mask, self.space), jnp.sum(logits)

    def env_action(self, action: Any) -> Any:
        return action

    def policy_action(self, env_action: Any) -> Any:
        return env_action


def test_gradients_under_a_shard_map_are_those_without() -> None:
    config = cases.config(pc.Discrete(3), memory=pc.GRU(4, learned_start=True))
    policy, observations = numbers_for((policy_of(config), observations_of(config, 2, TIME)))
    actions = np.arange(2 * TIME).reshape(2, TIME) % 3

    def gradient(policy: Any, observations: Any, actions: Any) -> Any:
        return jax.grad(lambda p: evaluated(p, observations, actions)[1])(policy)[0]

    spread = manual()(gradient)([policy], observations, actions)

    def total(policy: Any) -> Any:
        return jnp.sum(jax.vmap(lambda *batch: evaluated(policy, *batch)[1])(observations, actions))

    # JAX sums the gradient of what is the same on all devices over them.
    for ours, both in zip(*map(jax.tree.leaves, (spread, jax.jit(jax.grad(total))(policy))), strict=True):
        np.testing.assert_allclose(ours, np.stack([both] * 2), rtol=1e-4, atol=1e-5)


# --- Explicit meshes, and populations over devices -------------------------------------------


def over_devices(kind: str) -> tuple[Any, Any]:
    """A mesh of two devices, and what places shapes on it: by their first axis, or the same on both."""
    mesh = mesh_of(kind, device=2)

    def place(tree: Any, *names: str) -> Any:
        sharding = jax.sharding.NamedSharding(mesh, SPEC(*names))
        return jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), tree
        )

    return mesh, place


DIFFERENTIATED = ("image", "parts", "act nested", "gru", "layer norm")  # twice the time


@pytest.mark.parametrize("name", cases.CONFIGS)
def test_the_data_of_a_config_go_over_an_explicit_mesh(name: str) -> None:
    """`tests/test_devices.py` splits members, too, and scans."""
    config, (mesh, place) = cases.CONFIGS[name], over_devices("Explicit")
    policy, batch = policy_of(config), (observations_of(config, 2, TIME), actions_of(config, 2, TIME))

    def total(policy: Any, observations: Any, actions: Any) -> Any:
        return jnp.sum(jax.vmap(lambda *x: evaluated(policy, *x)[1])(observations, actions))

    with jax.set_mesh(mesh):
        function = jax.grad(total) if name in DIFFERENTIATED else total
        jax.eval_shape(jax.jit(function), place(policy), *place(batch, "device"))


def test_a_population_of_cnns_is_split_by_members_without_communication() -> None:
    space, encoder = pc.Box(shape=(6, 6, 2)), pc.ImpalaCNN(channels=(2,), blocks=1, size=4)
    encoder_params = structs(lambda: encoder.init(space, key=KEY, dtype="float32"), 2)
    images = jax.ShapeDtypeStruct((2, 3, *space.shape), jnp.float32)

    def gradient(params: Any, images: Any) -> Any:
        total = lambda p: jnp.sum(jax.vmap(lambda image: encoder.apply(p, space, image, "float32"))(images))
        return jax.grad(total)(params)

    arguments = over_devices("Auto")[1]((encoder_params, images), "device")
    program = (
        jax.jit(jax.vmap(gradient), out_shardings=arguments[1].sharding).lower(*arguments).compile().as_text()
    )
    assert " convolution(" not in program
    assert not [kind for kind in ("all-gather", "all-reduce", "all-to-all", "permute") if kind in program]


@pytest.mark.parametrize(("side", "stride", "padding"), [(3, 2, "SAME"), (4, 3, "VALID")])
def test_convolutions_of_a_population_are_those_of_its_members(side: int, stride: int, padding: str) -> None:
    rng = np.random.default_rng(0)
    normal = lambda *shape: rng.normal(size=shape).astype(np.float32)
    layers, images = {"kernel": normal(2, side, side, 2, 3), "bias": normal(2, 3)}, normal(2, 3, 7, 8, 2)

    def total(layer: Any, images: Any) -> Any:
        one = lambda image: convolution(layer, image, stride, padding)
        return jnp.sum(jnp.sin(jax.vmap(one)(images)))

    def both(layer: Any, images: Any) -> Any:
        value, gradient = jax.value_and_grad(total, (0, 1))(layer, images)
        return value, gradient, jax.jvp(total, (layer, images), gradient)[1]

    member = jax.jit(both)
    members = [member(*jax.tree.map(lambda leaf, i=i: leaf[i], (layers, images))) for i in range(2)]
    ours = jax.tree.leaves(jax.jit(jax.vmap(both))(layers, images))
    for got, *expected in zip(ours, *map(jax.tree.leaves, members), strict=True):
        np.testing.assert_allclose(got, np.stack(expected), rtol=1e-4, atol=1e-4)


# --- Exports --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MEMORIES)
def test_a_sequence_is_exported_for_every_length(name: str) -> None:
    config = cases.config(pc.Discrete(3), memory=MEMORIES[name])
    policy, (time,) = policy_of(config), jax.export.symbolic_shape("time")

    def evaluate(params: Any, state: Any, observations: Any, is_first: Any) -> Any:
        state, distribution, critic = pc.forward_sequence(
            (params, config), state, observations, is_first=is_first
        )
        return state, distribution.probs, critic.value()

    state, firsts = structs(lambda: pc.reset(pc.init(config, key=KEY))), jax.ShapeDtypeStruct((time,), bool)
    function = jax.jit(evaluate)
    exported = jax.export.export(function, platforms=("cpu", "cuda"))(
        policy[0], state, jax.ShapeDtypeStruct((time, 3), jnp.float32), firsts
    )
    if name != "attention":
        return  # where time decides what is computed
    params, state = numbers_for(policy[0]), pc.reset((numbers_for(policy[0]), config))
    for length in (2, 7):
        arguments = (
            params,
            state,
            numbers_for(jax.ShapeDtypeStruct((length, 3), jnp.float32)),
            np.arange(length) == 4,
        )
        for got, expected in zip(
            *map(jax.tree.leaves, (exported.call(*arguments), function(*arguments))), strict=True
        ):
            np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


SERIALIZED = ("act nested", "autoregressive", "beta", "HL-Gauss values", "symlog values", "squashed", "bins")


@pytest.mark.parametrize("name", SERIALIZED)
def test_functions_of_a_pair_and_distributions_are_serialized(name: str) -> None:
    pytest.importorskip("flatbuffers")
    config = cases.CONFIGS[name]
    state = structs(lambda: pc.reset(pc.init(config, key=KEY)))
    exported = jax.export.export(jax.jit(pc.forward))(policy_of(config), state, observations_of(config))
    read = jax.export.deserialize(exported.serialize())
    assert (read.in_tree, read.out_tree) == (exported.in_tree, exported.out_tree)


def test_a_class_that_is_defined_anew_is_serialized_and_an_unknown_one_is_not_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("flatbuffers")

    def defined() -> Any:
        @pc.static
        class Setting:
            width: int = 1

        return Setting(width=2)

    for _ in range(101):  # of one name, and each can be serialized
        defined()
    exported = jax.export.export(jax.jit(lambda pair: pair))((jnp.ones(2), defined()))
    data = exported.serialize()
    assert jax.export.deserialize(data).in_tree == exported.in_tree
    [name] = [name for name in CONFIGS if name.endswith("defined.<locals>.Setting")]
    monkeypatch.delitem(CONFIGS, name)
    with pytest.raises(pc.errors.ConfigError, match="import the module that defines it"):
        jax.export.deserialize(data)


# --- Keys ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", cases.SPACES)
def test_a_sample_uses_no_key_twice(name: str) -> None:
    with jax.debug_key_reuse(True):
        jax.jit(lambda key: cases.SPACES[name].sample(key=key)).trace(KEY)


def test_a_policy_is_saved_where_keys_are_checked() -> None:
    config = cases.config(cases.SPACES["box"], memory=pc.GRU(2))
    with jax.debug_key_reuse(True):
        pc.to_bytes((numbers_for(policy_of(config)[0]), config))


# --- Without jit, and donation ---------------------------------------------------------------


@pytest.mark.parametrize("name", cases.CONFIGS)
def test_no_array_is_there_twice(name: str) -> None:
    config = cases.CONFIGS[name]

    def made(key: Any) -> Any:
        params = config.init(key=key)
        return params, config.initial_state(params)

    results = [id(result) for result in jax.make_jaxpr(made)(KEY).jaxpr.outvars]
    assert len(set(results)) == len(results)


def test_what_is_made_without_jit_is_donated() -> None:
    memory = pc.WindowAttention(2, window=2, heads=1)
    with jax.disable_jit():
        made = pc.Normalize().init(pc.Box(shape=(3,))), memory.initial_state({"ages": jnp.zeros((1, 2))})
    jax.jit(lambda made: jax.tree.map(lambda leaf: leaf + 1, made), donate_argnums=0)(made)


# --- The table -------------------------------------------------------------------------------


def traced_under_checks(config: Any, slow: bool) -> None:
    """Trace all that a trainer does under a shard_map, in 64 bits, with checked keys.

    Args:
        config: the config.
        slow: whether with the checks of jaxprs and of leaks, which take JAX several times as long.
    """

    def everything(key: Any) -> Any:
        keys = iter(jax.random.split(key, 4))
        policy = pc.init(config, key=next(keys))
        state = pc.reset(policy, key=next(keys))
        observation = config.observation_space.sample(key=next(keys))
        state, action, *_ = pc.action_and_value(policy, state, observation, key=next(keys))
        state, _ = pc.value(policy, state, observation, is_first=jnp.array(True))
        stacked = jax.tree.map(lambda leaf: jnp.stack([leaf] * TIME), (observation, action))
        return state, evaluated(policy, *stacked), pc.update_statistics(policy, observation)

    keys = jax.eval_shape(lambda: jax.random.split(KEY, 2))
    with (
        jax.enable_x64(True), jax.debug_key_reuse(True), jax.enable_checks(slow), jax.check_tracer_leaks(slow)
    ):  # fmt: skip
        manual()(everything).trace(keys)


CHECKED = ("two memories", "normalized")


@pytest.mark.parametrize("name", cases.CONFIGS)
def test_a_config_is_traced_under_every_check(name: str) -> None:
    """Promotion and ranks are strict by conftest."""
    traced_under_checks(cases.CONFIGS[name], slow=name in CHECKED)


def _tasks() -> dict[str, Any]:
    """The tasks of `examples/results.py` and `examples/memory.py`, where their packages are installed."""
    if any(importlib.util.find_spec(name) is None for name in ("gymnax", "optax", "rich")):
        return {}
    import memory
    import results

    return {**results.TASKS, **memory.TASKS}


@pytest.mark.parametrize("name", TASKS := _tasks())
def test_a_config_of_the_examples_is_traced_under_every_check(name: str) -> None:
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        config = TASKS[name].config(TASKS[name].make())
    traced_under_checks(config, slow=False)


@pytest.mark.parametrize("name", ["gru", "squashed", "HL-Gauss values"])
def test_no_nan_comes_up_on_the_way(name: str) -> None:
    config = cases.CONFIGS[name]
    policy, observations = numbers_for((policy_of(config), observations_of(config, TIME)))
    actions = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), actions_of(config, TIME))
    with jax.debug_nans(True):
        jax.jit(jax.grad(lambda p: evaluated(p, observations, actions)[1]))(policy)


def test_a_policy_acts_without_jit() -> None:
    policy = jax.tree.map(jnp.asarray, numbers_for(policy_of(cases.CONFIGS["gru"])))
    with jax.disable_jit():
        _, action = pc.act(policy, pc.reset(policy), jnp.ones(3))
    assert 0 <= action < 3


@pytest.mark.parametrize("name", ["Categorical", "SquashedNormal"])
def test_scores_of_32_bits_stay_so_where_64_are_enabled(name: str) -> None:
    """Also those that are written in operations which take no number of Python beside an array."""
    with jax.enable_x64(True), jax.numpy_dtype_promotion("strict"):
        x = jnp.array([0.5, -1.0, 2.0], jnp.float32)
        action = jnp.int32(2) if name == "Categorical" else x

        def score(x: jax.Array) -> jax.Array:
            if name == "Categorical":
                made = pc.distributions.Categorical(x, jnp.array([True, False, True]), pc.Discrete(3))
            else:
                made = pc.distributions.SquashedNormal(x, x, pc.Box(low=-1.0, high=1.0, shape=(3,)))
            return made.log_prob(action) + made.entropy()

        value, gradient = jax.value_and_grad(score)(x)
    assert value.dtype == gradient.dtype == np.float32
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()
