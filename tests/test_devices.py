"""Every kind of config on eight devices: members in parallel, data in parallel, all ways that JAX has to say so.

What is run is compared with one device; what only has to be traced is traced, with shapes for arrays.
"""

import os
import re
from typing import Any

import cases
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from meshes import mesh_of

import policy_core as pc
from policy_core import population

pytestmark = pytest.mark.usefixtures("unchecked")  # beartype doubles the time to trace

FULL = "POLICY_CORE_FULL" in os.environ  # every config, else one of each kind
KEY = jax.random.key(0)
TIME, ENVIRONMENTS, MEMBERS = 2, 2, 8
COLLECTIVE = re.compile(
    r"= (\S+) (?:\S+ )?(all-gather|all-reduce|all-to-all|collective-permute|reduce-scatter)(?:-start)?\("
)


def scores(policy: Any, observations: Any, actions: Any) -> Any:
    """A number that depends on everything that a trainer differentiates. `[time, ...]`."""
    _, values, log_probs, entropies = pc.evaluate_sequence(
        policy, pc.reset(policy), observations, actions, is_first=jnp.arange(TIME) == 1
    )
    return jnp.sum(jnp.square(values)) - jnp.sum(log_probs) - 0.01 * jnp.sum(entropies)


def update(policy: Any, observations: Any, keys: Any, axis: str | None = None) -> Any:
    """A step of training of one policy: `observations` are `[environments, time, ...]`, keys `[environments]`.

    Each environment is a scan of the user's own over `action_and_value`.
    """

    def rollout(observations: Any, key: Any) -> Any:
        def step(state: Any, inputs: Any) -> Any:
            state, *out = pc.action_and_value(policy, state, inputs[0], key=inputs[1])
            return state, out

        keys = jax.random.split(key, TIME)
        return jax.lax.scan(step, pc.reset(policy, key=key), (observations, keys))[1]

    actions, values, log_probs = jax.vmap(rollout)(observations, keys)

    def loss(policy: Any) -> Any:
        return jnp.mean(jax.vmap(lambda *x: scores(policy, *x))(observations, actions))

    gradient = jax.grad(loss)(policy if axis is None else jax.lax.pcast(policy, axis, to="varying"))
    if axis is not None:
        gradient = jax.lax.pmean(gradient, axis)
    policy = jax.tree.map(lambda p, g: p - (0.1 * g).astype(p.dtype), policy, gradient)
    policy = pc.update_statistics(policy, observations, axis_name=axis)
    return policy, (actions, values, log_probs)


def structs(config: Any, *members: int) -> Any:
    """Shapes of the arguments of `update`, mapped over members."""
    shape = (*members, ENVIRONMENTS)
    one = config.observation_space.struct()
    observations = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct((*shape, TIME, *leaf.shape), leaf.dtype), one
    )
    keys = jax.eval_shape(lambda: jax.random.split(KEY, shape))
    policy = jax.eval_shape(lambda: pc.init(config, key=KEY))
    policy = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((*members, *leaf.shape), leaf.dtype), policy)
    return policy, observations, keys


def arguments(config: Any) -> Any:
    """Small random numbers for `structs`, without a program to compile."""
    rng = np.random.default_rng(0)

    def draw(leaf: Any) -> Any:
        if jnp.issubdtype(leaf.dtype, jnp.floating):
            return rng.normal(0, 0.3, leaf.shape).astype(leaf.dtype)
        return np.asarray(rng.integers(0, 2, leaf.shape), leaf.dtype)

    policy, observations, keys = structs(config, MEMBERS)
    # Positive: a temperature, the count and the variances of statistics.
    params = jax.tree.map(draw, policy[0])
    for name in {"temperature", "normalize"} & set(params):
        params[name] = jax.tree.map(lambda leaf: 0.5 + np.abs(leaf), params[name])
    samples = jax.tree.map(draw, observations)
    return (params, config), samples, jax.random.split(KEY, keys.shape)


def placed(tree: Any, sharding: NamedSharding) -> Any:
    """Shapes on devices."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), tree)


def close(got: Any, expected: Any, tolerance: float) -> None:
    for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(got), jax.tree.leaves(expected), strict=True):
        a, b = (np.asarray(x).astype(np.float64) for x in (a, b))
        assert np.isfinite(a).all(), path
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance, err_msg=str(path))


# --- Members in parallel -----------------------------------------------------------------------


# The rejection loops of two gamma samples, each a loop in a loop, end when no member of any device needs
# another round: one bit a round. Under a shard_map each device has loops of its own.
REJECTION = {name for name in cases.CONFIGS if "beta" in name} | {"heads of parts"}


# One of each kind; heads of parts, which are those of the others, are only traced, below.
KINDS = (
    "act discrete", "act nested", "act box int8", "observe box uint8", "squashed", "beta", "bins", "squashed gSDE",
    "autoregressive", "temperature", "attention of the actor", "two memories", "memory with a skip",
    "privileged critic", "image", "parts", "normalized", "two-hot value", "HL-Gauss values", "symlog values",
    "PopArt values", "normalized value", "layer norm", "bfloat16 params",
)  # fmt: skip


def test_every_class_is_in_one_of_the_kinds() -> None:
    there, found = (
        set().union(*(cases.classes_of(cases.CONFIGS[name]) for name in names))
        for names in (cases.CONFIGS, KINDS)
    )
    assert there - found == {"policy_core/PartHeads"}


@pytest.mark.parametrize("name", cases.CONFIGS if FULL else KINDS)
def test_members_on_eight_devices_are_those_of_a_loop_and_do_not_communicate(name: str) -> None:
    call, by_member = arguments(cases.CONFIGS[name]), population.sharding(mesh_of("Auto", population=8))
    one_member = jax.jit(update)  # traced once, for both programs
    lowered = jax.jit(jax.vmap(one_member), out_shardings=by_member).lower(*placed(call, by_member))
    program = lowered.compile()
    expected = [("pred[]", "all-reduce")] * 4 if name in REJECTION else []
    assert COLLECTIVE.findall(program.as_text()) == expected
    got = jax.device_get(program(*jax.device_put(call, by_member)))
    alone = one_member.lower(*structs(cases.CONFIGS[name])).compile()
    for i, key in zip(range(3), call[2], strict=False):
        policy, observations, member = (jax.tree.map(lambda leaf: leaf[i], x) for x in (*call[:2], got))
        close(member, alone(policy, observations, key), 0.05 if name in cases.LOW_PRECISION else 5e-6)


def test_the_rejection_loops_of_members_under_a_shard_map_do_not_communicate() -> None:
    by_member = population.sharding(mesh_of("Auto", population=8))
    mapped = jax.shard_map(
        jax.vmap(update), mesh=by_member.mesh, in_specs=by_member.spec, out_specs=by_member.spec
    )
    shapes = placed(structs(cases.CONFIGS["beta"], MEMBERS), by_member)
    assert COLLECTIVE.findall(jax.jit(mapped).lower(*shapes).compile().as_text()) == []


def test_a_collective_is_found() -> None:
    by_member = population.sharding(mesh_of("Auto", population=8))
    program = jax.jit(lambda x: x - jnp.mean(x), in_shardings=by_member, out_shardings=by_member)
    text = program.lower(jnp.ones(8)).compile().as_text()
    assert COLLECTIVE.findall(text) == [("f32[]", "all-reduce")]


# --- Members and data, in manual and explicit axes ------------------------------------------------


def manual(config: Any) -> Any:
    """`update` under a shard_map: four groups of members, whose environments are split over two devices."""

    def local(policy: Any, observations: Any, keys: Any) -> Any:
        return jax.vmap(lambda *x: update(*x, axis="data"))(policy, observations, keys)

    split = P("population", "data")
    return jax.shard_map(
        local,
        mesh=mesh_of("Auto", population=4, data=2),
        in_specs=(P("population"), split, split),
        out_specs=(P("population"), split),
    )


@pytest.mark.parametrize("name", cases.CONFIGS if FULL else (*KINDS, "heads of parts"))
def test_a_config_is_traced_over_members_and_data(name: str) -> None:
    config = cases.CONFIGS[name]
    shapes = structs(config, MEMBERS)
    policy, _ = jax.eval_shape(jax.jit(manual(config)), *shapes)
    assert policy == shapes[0]
    mesh = mesh_of("Explicit", population=4, data=2)
    members, split = (NamedSharding(mesh, P(*axes)) for axes in (("population",), ("population", "data")))
    with jax.set_mesh(mesh):
        call = placed(shapes[0], members), *placed(shapes[1:], split)
        (policy, _), rollout = jax.eval_shape(jax.jit(jax.vmap(update)), *call)
    assert {leaf.sharding.spec[0] for leaf in jax.tree.leaves(policy)} == {"population"}
    assert {leaf.sharding.spec[:2] for leaf in jax.tree.leaves(rollout)} == {("population", "data")}
    made = jax.eval_shape(lambda: population.init(config, MEMBERS, key=KEY, out_shardings=members))
    assert made == shapes[0]


RUN = [
    *(("manual", name) for name in ("normalized", "parts")),
    *(("explicit", name) for name in ("normalized", "gru")),
    *(("jit", name) for name in ("normalized", "gru", "squashed", "image")),
]


@pytest.mark.parametrize(("way", "name"), RUN)
def test_members_and_data_on_eight_devices_give_what_one_gives(way: str, name: str) -> None:
    config = cases.CONFIGS[name]
    call = arguments(config)
    expected = jax.jit(jax.vmap(update))(*call)
    mesh = mesh_of("Explicit" if way == "explicit" else "Auto", population=4, data=2)
    members, split = (NamedSharding(mesh, P(*axes)) for axes in (("population",), ("population", "data")))
    function = manual(config) if way == "manual" else jax.vmap(update)
    put = jax.device_put(call[0], members), *jax.device_put(call[1:], split)
    with jax.set_mesh(mesh):
        close(jax.jit(function)(*put), expected, 1e-6)
